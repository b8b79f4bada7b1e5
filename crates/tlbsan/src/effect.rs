//! What a TLBI removes, in terms of the model: an operation, read with the registers of the PE that executes it.
//!
//! The operand is checked here: a TTL or TG that does not go with the tables makes an operation that need not remove
//! anything (Arm ARM D8.16.3, "TTL field"), and BaseADDR counts in other units under TCR.DS.

use crate::geometry::{Geometry, Space};
use crate::machine::{EL2, EL10, Pe, PeSet, STAGE2};
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
    /// The level of the leaf entry; `None`: nothing is said.
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
    let (space, places) = match op.regime {
        Regime::El3 => return Selection::Nothing,
        Regime::El2 => (registers.el2(), EL2),
        // EL1 cannot run while TGE is set.
        Regime::El10 if registers.is_host() => (Space::El20, EL2),
        Regime::El10 => (registers.el10(), EL10),
    };
    let wide = |places: &[usize]| {
        places.iter().any(|place| matches!(registers.loaded(*place), Ok(Some(loaded)) if loaded.root.geometry.wide))
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
            let pages = pages.with_lpa2(wide(&places));
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
            let pages = pages.with_lpa2(wide(&[STAGE2]));
            let hint = range_hint(&pages, pages.first_ipa());
            let first = pages.first_ipa();
            Selection::Addresses { space: Space::Stage2(vmid), asid: None, first, size: pages.size(), leaf_only, hint }
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
    // TG 0: no hint at all.
    let tg = ttl >> 2 & 3;
    // Level 0 is reserved without FEAT_LPA2, and nobody gives it: no hint.
    let level = (tg != 0 && ttl & 3 != 0).then_some((ttl & 3) as i8);
    Hint { tg: if level.is_some() { tg } else { 0 }, level, range: None }
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

impl Hint {
    /// Whether the hint lets the operation pass by an entry of such tables: a leaf at another level, or a table at or below
    /// the level of the leaf.
    pub fn misses(&self, geometry: &Geometry, level: i8, is_table: bool) -> bool {
        if self.tg == 0 {
            return false;
        }
        if self.tg != geometry.tg() {
            return true;
        }
        let Some(hint) = self.level else { return false };
        // A range must begin where an entry of that level can.
        let misaligned = self.range.is_some_and(|first| first & (geometry.size(hint) - 1) != 0);
        misaligned || if is_table { hint <= level } else { hint != level }
    }
}
