//! ASIDs and VMIDs: at a context synchronisation a PE must not hold entries of other tables under one that it loads.

use super::decode::Desc;
use super::registers::Space;
use super::{Entry, Executed, Pe, Reference, Seen};
use std::collections::BTreeSet;
use tlbi::{Scope, Target};
use tlbsan::Kind;

impl Reference {
    /// `pe` translates through `new` roots; before it was through `old` ones.
    pub(super) fn clashes(&mut self, pe: usize, old: &[Entry], new: &[Entry]) -> Vec<Seen> {
        let loaded = || new.iter().filter(|root| !old.contains(root));
        let after_reset = loaded().find_map(|root| self.meets_unknown(pe, root));
        let loaded: Vec<&Entry> = loaded().filter(|root| self.says_something(root)).collect();
        let mut all: Vec<Seen> = after_reset.into_iter().collect();
        for root in loaded {
            all.extend(self.clashes_with(pe, root));
        }
        all.sort();
        all.dedup();
        all
    }

    /// The PE that loads a root, and those with which it shares entries (CnP) under its ASID.
    fn sharing<'a>(&'a self, pe: usize, new: &'a Entry) -> impl Iterator<Item = (usize, &'a Pe)> {
        let shares = |it: &Pe| {
            let roots = it.effective.roots(self.granule);
            roots.iter().any(|root| root.shared && (root.root.space, root.asid) == (new.root.space, new.asid))
        };
        self.pes.iter().enumerate().filter(move |(other, it)| *other == pe || new.shared && shares(it))
    }

    /// Whether the MMU goes on over what a reset has left. What a guest finds under stage 2 is its host's business.
    fn meets_unknown(&mut self, pe: usize, root: &Entry) -> Option<Seen> {
        self.pes[pe].unknown[belongs(root)?].take()?;
        let (kind, size, pes) = (Kind::Asid, 1 << root.root.format.bits, [pe].into());
        Some(Seen { kind, start: root.va, size, level: root.level + 1, pes, cause: None })
    }

    /// An invalidation of everything is complete.
    pub(super) fn end_all(&mut self, executed: &Executed) {
        let Executed { at, pe, op, registers, .. } = executed;
        let which = match op.target {
            Target::AllStages | Target::AllVmids => 0,
            Target::All => usize::from(!matches!(registers.space(op.regime), Space::El10(_))),
            _ => return,
        };
        for (target, it) in self.pes.iter_mut().enumerate() {
            if op.scope != Scope::Local || target == *pe {
                it.unknown[which].take_if(|since| *since < *at);
                // An MMU that is on has filled its TLB again.
                let on = it.effective.roots(self.granule).iter().any(|root| belongs(root) == Some(which));
                it.mair[which].take_if(|_| !on);
            }
        }
    }

    fn says_something(&self, root: &Entry) -> bool {
        self.memory.range(root.root.table..root.root.table + root.target().1).any(|(_, value)| value & 1 == 1)
    }

    /// Of each earlier root the first slot that the new one does not say as well; or, if there is none, all that is stale.
    fn clashes_with(&mut self, pe: usize, new: &Entry) -> Vec<Seen> {
        let earlier = |e: &&Entry| {
            let half = e.root.space == new.root.space && e.va >> 63 == new.va >> 63;
            half && e.root != new.root && e.asid == new.asid && !e.combined
        };
        let sharing: Vec<(usize, &Pe)> = self.sharing(pe, new).collect();
        let held: BTreeSet<Entry> =
            sharing.iter().flat_map(|(_, it)| it.cached.keys()).filter(earlier).copied().collect();
        let differs = |e: &&Entry| {
            let slot = new.root.table + (e.slot - e.root.table);
            let [here, there] = [e.slot, slot].map(|slot| Desc::decode(self.value(slot), e.level, &new.root.format));
            // With other attributes a table is still the same.
            let stands = here == e.desc || here.next().is_some() && here.next() == e.next();
            e.level == new.level + 1 && stands && here != there
        };
        let mut first: Vec<Entry> = held.iter().filter(differs).copied().collect();
        first.sort_by_key(|e| (e.root, e.va));
        first.dedup_by_key(|e| e.root);
        let seen = |e: &Entry| {
            let holders = sharing.iter().filter(|(_, it)| it.cached.contains_key(e)).map(|(pe, _)| *pe);
            let (kind, size, pes) = (Kind::Asid, e.size(), holders.collect());
            Seen { kind, start: e.va, size, level: e.level, pes, cause: None }
        };
        let told = |e: &&Entry| first.iter().any(|it| it.root == e.root);
        let stale: Vec<&Entry> = held.iter().filter(|e| self.stale.contains_key(e) && !told(e)).collect();
        let all = stale.iter().copied().chain(&first).map(seen).collect();
        let ends: Vec<_> = held.iter().filter(|e| told(e) || stale.contains(e)).map(Entry::residue).collect();
        self.told.extend(ends);
        all
    }
}

/// Whether a root is one of EL1&0's stage 1 (0), or of EL2's regimes (1).
pub(super) fn belongs(root: &Entry) -> Option<usize> {
    match root.root.space {
        Space::El10(_) => Some(0),
        Space::El2 | Space::El20 => Some(1),
        Space::Stage2(_) => None,
    }
}
