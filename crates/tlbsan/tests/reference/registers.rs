//! Where a PE's walks begin, by its registers. One granule for all; no TBI, LPA2 or 8-bit ASIDs.

use super::decode::{Desc, Format};
use super::{Entry, Root};
use std::collections::BTreeMap;
use tlbi::{Op, Regime, Target};
use tlbsan::Sysreg::{self, HcrEl2, SctlrEl1, SctlrEl2, TcrEl1, TcrEl2, VtcrEl2, VttbrEl2};
use tlbsan::Sysreg::{Ttbr0El1, Ttbr0El2, Ttbr1El1, Ttbr1El2};

/// What entries belong to, and operations name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    /// EL1&0 under a VMID.
    El10(u16),
    El2,
    El20,
    /// Under a VMID.
    Stage2(u16),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Registers(pub(crate) BTreeMap<Sysreg, u64>);

impl Registers {
    pub(crate) fn field(&self, register: Sysreg, shift: usize, bits: u32) -> u64 {
        self.0.get(&register).copied().unwrap_or(0) >> shift & (u64::MAX >> (64 - bits))
    }

    fn bit(&self, register: Sysreg, n: usize) -> bool {
        self.field(register, n, 1) == 1
    }

    /// VTCR_EL2.VS: 16 bits.
    fn vmid(&self) -> u16 {
        self.field(VttbrEl2, 48, if self.bit(VtcrEl2, 19) { 16 } else { 8 }) as u16
    }

    /// What stage-1 operations of a regime name.
    pub(crate) fn space(&self, regime: Regime) -> Space {
        let (host, vhe) = (self.bit(HcrEl2, 34) && self.bit(HcrEl2, 27), self.bit(HcrEl2, 34));
        match regime {
            Regime::El10 if host => Space::El20,
            Regime::El10 => Space::El10(self.vmid()),
            _ if vhe => Space::El20,
            _ => Space::El2,
        }
    }

    /// Whether an operation names what belongs to `space`: of stage 2, its own entries or those combined with it.
    pub(crate) fn names(&self, op: &Op, space: Space, combined: bool) -> bool {
        let current = Space::Stage2(self.vmid());
        match (op.target, space) {
            (Target::AllVmids, _) => matches!(space, Space::El10(_) | Space::Stage2(_)),
            (Target::AllStages, _) => space == current || space == Space::El10(self.vmid()),
            (Target::Ipa { .. } | Target::IpaRange { .. }, _) => space == current && !combined,
            // The MMU of EL1&0 is off beside stage 2: a virtual address is an intermediate one. No ASID is right for all.
            (Target::Asid(_), Space::Stage2(_)) => false,
            (_, Space::Stage2(_)) => space == current && combined && self.space(op.regime) == Space::El10(self.vmid()),
            _ => space == self.space(op.regime),
        }
    }

    /// Where walks begin, as if a table entry led to each root.
    pub(crate) fn roots(&self, page: u32) -> Vec<Entry> {
        let el10 = Space::El10(self.vmid());
        let mut roots = Vec::new();
        if self.bit(SctlrEl1, 0) && !self.bit(HcrEl2, 27) {
            roots.extend([0, 1].map(|half| self.half(page, half, el10, TcrEl1, [Ttbr0El1, Ttbr1El1])));
        }
        if self.bit(SctlrEl2, 0) && self.bit(HcrEl2, 34) {
            roots.extend([0, 1].map(|half| self.half(page, half, Space::El20, TcrEl2, [Ttbr0El2, Ttbr1El2])));
        } else if self.bit(SctlrEl2, 0) {
            roots.push(self.root(page, Space::El2, TcrEl2, Ttbr0El2));
        }
        if self.bit(HcrEl2, 0) {
            roots.push(self.root(page, Space::Stage2(self.vmid()), VtcrEl2, VttbrEl2));
        }
        roots.into_iter().flatten().collect()
    }

    /// One of two halves: T0SZ, EPD0 and TG0, or T1SZ, EPD1 and TG1; HA, HD; the ASID by A1.
    fn half(&self, page: u32, half: usize, space: Space, tcr: Sysreg, ttbrs: [Sysreg; 2]) -> Option<Entry> {
        let granules = [[12, 16, 14, 0], [0, 14, 12, 16]][half];
        let granule = granules[self.field(tcr, [14, 30][half], 2) as usize];
        let bits = 64 - self.field(tcr, 16 * half, 6) as u32;
        let format =
            Format { page, bits, stage2: false, has_asids: true, ha: self.bit(tcr, 39), hd: self.bit(tcr, 40) };
        let asid = self.field(ttbrs[usize::from(self.bit(tcr, 22))], 48, 16) as u16;
        let walked = granule == page && !self.bit(tcr, 7 + 16 * half) && (25..=48).contains(&bits);
        let va = if half == 0 { 0 } else { u64::MAX << bits };
        walked.then(|| self.entry(space, format, ttbrs[half], va, Some(asid)))
    }

    /// EL2 without a second half, and stage 2, which have no ASIDs.
    fn root(&self, page: u32, space: Space, tcr: Sysreg, ttbr: Sysreg) -> Option<Entry> {
        let granule = [12, 16, 14, 0][self.field(tcr, 14, 2) as usize];
        let (bits, stage2) = (64 - self.field(tcr, 0, 6) as u32, tcr == VtcrEl2);
        let format = Format { page, bits, stage2, has_asids: false, ha: self.bit(tcr, 21), hd: self.bit(tcr, 22) };
        (granule == page).then(|| self.entry(space, format, ttbr, 0, None))
    }

    fn entry(&self, space: Space, format: Format, ttbr: Sysreg, va: u64, asid: Option<u16>) -> Entry {
        let root = Root { space, table: self.field(ttbr, 0, 48) & !1, format };
        let desc = Desc::Table { next: root.table, forbids: 0 };
        let shared = self.bit(ttbr, 0);
        Entry { level: format.root_level() - 1, va, slot: 0, desc, asid, combined: false, shared, root }
    }
}
