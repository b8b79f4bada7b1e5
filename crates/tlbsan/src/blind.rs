//! Tests of the model's own sight: instructions that it is kept from seeing, chosen at random from a seed.
//!
//! One in so many TLBIs or DSBs is withheld, or one in so many all-level invalidations by VA is taken for one of leaves. What
//! a correct kernel needed it for then looks like a mistake of the kernel's, and must be found. Each withheld instruction
//! marks the stale entries that it would have helped to remove; a verdict about one of them answers for it.

use tlbi::{Op, Target};

/// What is withheld: one in so many, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blind {
    /// TLBIs that are not seen.
    pub tlbi: u64,
    /// DSBs that are not seen.
    pub dsb: u64,
    /// All-level invalidations by VA that are taken for leaf-only ones.
    pub weaken: u64,
    /// Where the choice begins; the same numbers make the same choice of the same events.
    pub seed: u64,
}

/// How an instruction is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// As it is.
    Clear,
    /// Not at all.
    Not,
    /// A TLBI as another.
    As(Op),
}

/// The choice, made as instructions come.
#[derive(Clone, Debug)]
pub(crate) struct Blindfold {
    blind: Blind,
    state: u64,
}

impl Blindfold {
    pub(crate) fn new(blind: Blind) -> Self {
        Self { blind, state: blind.seed }
    }

    /// Says yes to one in `many`.
    fn one_in(&mut self, many: u64) -> bool {
        if many == 0 {
            return false;
        }
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).is_multiple_of(many)
    }

    pub(crate) fn tlbi(&mut self, op: Op) -> Sight {
        if self.one_in(self.blind.tlbi) {
            return Sight::Not;
        }
        match leaf_only(op) {
            Some(weak) if self.one_in(self.blind.weaken) => Sight::As(weak),
            _ => Sight::Clear,
        }
    }

    pub(crate) fn dsb(&mut self) -> Sight {
        if self.one_in(self.blind.dsb) { Sight::Not } else { Sight::Clear }
    }
}

/// The leaf-only form of an all-level operation by VA: what a weakened one is taken for.
pub fn leaf_only(op: Op) -> Option<Op> {
    let target = match op.target {
        Target::Va { va, asid, leaf_only: false, ttl } => Target::Va { va, asid, leaf_only: true, ttl },
        Target::VaRange { pages, asid, leaf_only: false } => Target::VaRange { pages, asid, leaf_only: true },
        _ => return None,
    };
    Some(Op { target, ..op })
}

/// What a withheld instruction would have done for a stale entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// Removed it.
    Remove,
    /// Ordered its removal before the TLBIs that follow (R4).
    Order,
    /// Completed its invalidation (R5).
    Complete,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_chosen_and_the_same_ones_again() {
        let chosen = |seed| {
            let mut fold = Blindfold::new(Blind { dsb: 10, seed, ..Blind::default() });
            (0..10_000).filter(|_| fold.dsb() == Sight::Not).collect::<Vec<_>>()
        };
        assert!((800..1200).contains(&chosen(1).len()), "{}", chosen(1).len());
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
        let mut open = Blindfold::new(Blind { seed: 1, ..Blind::default() });
        assert!((0..1000).all(|_| open.dsb() == Sight::Clear));
    }
}
