//! What a TLBI removes, in terms of the model: an operation, read with the registers of the PE that executes it.
//!
//! The operand is checked here: a TTL or TG that does not go with the tables makes an operation that need not remove
//! anything (Arm ARM D8.16.3, "TTL field"), and BaseADDR counts in other units under TCR.DS.

use crate::geometry::{Geometry, Space};
use crate::machine::{Pe, PeSet};
use tlbi::{Dsb, Op, Regime, Scope, Target};

/// Which entries an operation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// None that the model follows: EL3, dirty state, granule protection.
    Nothing,
    /// Every entry there is: what an operation outside the model is taken for.
    Everything,
    /// Everything of a space; of EL1&0 with the combined entries of its VMID.
    Space(Space),
    /// Table entries and non-global leaves of an ASID.
    Asid(Space, u16),
    /// What translates some addresses.
    Addresses {
        /// Of this space; stage 2: by IPA.
        space: Space,
        /// Tagged with it, or global; `None`: whatever the tag.
        asid: Option<u16>,
        /// The addresses.
        first: u64,
        /// Bytes, at least a page.
        size: u64,
        /// Leaves only.
        leaf_only: bool,
        /// What the operand says of the tables.
        hint: Hint,
    },
    /// Combined entries of a VMID that an operation by VA removes along with those of stage 1.
    Combined {
        /// The VMID.
        vmid: u16,
        /// First intermediate physical address that the entry of stage 1 leads to.
        first: u64,
        /// Bytes that it leads to; `None`: stage 1 is off, and the entry is as large as that of stage 2.
        size: Option<u64>,
    },
    /// Stage 1, stage 2 and combined entries of a VMID.
    BothStages(u16),
    /// The same of every VMID.
    EveryVmid,
}

/// What the operand says of the tables that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The granule as operands name it, 1..=3; 0: nothing is said.
    pub tg: u8,
    /// What stands for the level of the leaf entry; `None`: nothing is said.
    pub level: Option<i8>,
    /// Whether the operation is one by range, and where it begins.
    pub range: Option<u64>,
}

/// A TLBI as a PE executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The operation.
    pub op: Op,
    /// Who executes it.
    pub issuer: usize,
    /// PEs that it reaches.
    pub reach: PeSet,
    /// What it removes there.
    pub selection: Selection,
    /// Number of the event in which it is executed.
    pub time: u64,
}

impl Effect {
    /// The operation as `pe`, number `issuer`, executes it.
    pub fn new(op: Op, issuer: usize, pe: &Pe, time: u64) -> Self {
        let reach = match op.scope {
            Scope::Local => 1 << issuer,
            Scope::Inner | Scope::Outer => PeSet::MAX,
        };
        Self { op, issuer, reach, selection: select(op, pe), time }
    }

    /// An operation that the model does not know: taken for one that removes everything everywhere.
    pub fn everything(issuer: usize, time: u64) -> Self {
        Self { op: Op::inner(Target::All), issuer, reach: PeSet::MAX, selection: Selection::Everything, time }
    }
}

/// Whether a DSB completes an operation that its PE has executed before (R5).
pub fn completes(dsb: Dsb, op: &Op) -> bool {
    let domain = op.scope.domain();
    if op.nxs { dsb.completes_nxs_tlbi(domain) } else { dsb.completes_tlbi(domain) }
}

fn select(op: Op, pe: &Pe) -> Selection {
    let registers = &pe.effective;
    let space = match op.regime {
        Regime::El3 => return Selection::Nothing,
        Regime::El2 => registers.el2(),
        // EL1 cannot run while TGE is set.
        Regime::El10 if registers.is_host() => Space::El20,
        Regime::El10 => registers.el10(),
    };
    let vmid = registers.vmid();
    match op.target {
        Target::All => Selection::Space(space),
        Target::Asid(asid) => Selection::Asid(space, asid.number()),
        Target::Va { va, asid, leaf_only, ttl } => Selection::Addresses {
            space,
            asid: asid_of(space, asid),
            first: va.bits() & !0xfff,
            size: 0x1000,
            leaf_only,
            hint: hint(ttl),
        },
        Target::VaRange { pages, asid, leaf_only } => {
            let pages = pages.with_lpa2(registers.is_wide(space));
            let hint = range_hint(&pages, pages.first_va());
            let asid = asid_of(space, asid);
            Selection::Addresses { space, asid, first: pages.first_va(), size: pages.size(), leaf_only, hint }
        }
        Target::Ipa { ipa, leaf_only, ttl, .. } => Selection::Addresses {
            space: Space::Stage2(vmid),
            asid: None,
            first: ipa.bits() & !0xfff,
            size: 0x1000,
            leaf_only,
            hint: hint(ttl),
        },
        Target::IpaRange { pages, leaf_only, .. } => {
            let space = Space::Stage2(vmid);
            let pages = pages.with_lpa2(registers.is_wide(space));
            let hint = range_hint(&pages, pages.first_ipa());
            let first = pages.first_ipa();
            Selection::Addresses { space, asid: None, first, size: pages.size(), leaf_only, hint }
        }
        Target::AllStages => Selection::BothStages(vmid),
        Target::AllVmids => Selection::EveryVmid,
        Target::DirtyState | Target::Gpt | Target::GptRange { .. } => Selection::Nothing,
    }
}

/// A regime without ASIDs ignores the operand's.
fn asid_of(space: Space, asid: Option<tlbi::Asid>) -> Option<u16> {
    if space.has_asids() { asid.map(tlbi::Asid::number) } else { None }
}

fn hint(ttl: u8) -> Hint {
    Hint { tg: ttl >> 2 & 3, level: Some((ttl & 3) as i8), range: None }
}

fn range_hint(pages: &tlbi::op::Pages, first: u64) -> Hint {
    let tg = match pages.granule().map(tlbi::Granule::shift) {
        Some(12) => 1,
        Some(14) => 2,
        Some(_) => 3,
        None => 0,
    };
    Hint { tg, level: pages.level().map(tlbi::Level::number), range: Some(first) }
}

/// Levels at which a granule has no leaves are reserved, and taken for no hint; FEAT_LPA2 (`wide`: in use) adds two.
fn is_reserved(tg: u8, level: i8, wide: bool) -> bool {
    match (tg, level) {
        (1, 0) | (2, 1) => !wide,
        _ => level == 0,
    }
}

impl Hint {
    /// Whether the hint lets the operation pass by an entry of such tables: a leaf at another level, or a table at or below
    /// the level of the leaf.
    pub fn misses(&self, geometry: &Geometry, level: i8, is_table: bool) -> bool {
        let hint = self.level.filter(|hint| !is_reserved(self.tg, *hint, geometry.wide));
        // TG 0 is no hint at all; nor is TG alone, but for a range.
        if self.tg == 0 || (hint.is_none() && self.range.is_none()) {
            return false;
        }
        if self.tg != geometry.tg() {
            return true;
        }
        let Some(hint) = hint else { return false };
        // A range must begin where an entry of that level can.
        let misaligned = self.range.is_some_and(|first| first & (geometry.size(hint) - 1) != 0);
        misaligned || if is_table { hint <= level } else { hint != level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_without_leaves_are_no_hint() {
        let narrow = |shift| Geometry::stage1(shift, 48).expect("a geometry");
        let wide = |shift| Geometry { wide: true, ..narrow(shift) };
        // An operation for leaves of the level in the TTL, at a leaf of level 3: what is no hint removes that.
        let passes_by = |tg: u8, level: u8, geometry: Geometry| hint(tg << 2 | level).misses(&geometry, 3, false);
        for (tg, shift) in [(1, 12), (2, 14), (3, 16)] {
            assert!(!passes_by(0, 1, narrow(shift)), "no TG");
            assert!(!passes_by(tg, 3, narrow(shift)) && passes_by(tg, 2, narrow(shift)));
            assert!(!passes_by(tg, 0, narrow(shift)), "level 0 of TG {tg}");
        }
        assert_eq!([1, 2, 3].map(|tg| passes_by(tg, 1, narrow(10 + 2 * tg))), [true, false, true], "blocks of level 1");
        // FEAT_LPA2: 512 GiB with pages of 4 KiB, 64 GiB with 16 KiB.
        assert!(passes_by(1, 0, wide(12)) && passes_by(2, 1, wide(14)) && !passes_by(2, 0, wide(14)));
        assert!(!hint(1 << 2).misses(&wide(12), 0, false), "the block that is meant");
    }
}
