//! Per-PE registers: what is written, what is in effect, and the translation contexts that follow from it.
//!
//! A register write takes effect at the next context synchronisation event; contexts are judged there and not before, so
//! that a kernel may pass through a reserved root on its way (R3, "Contexts").

use crate::event::{IdRegister, Sysreg};
use crate::geometry::{Controls, Geometry, Space};
use std::sync::Arc;
use tlbi::barrier::Domain;
use tlbi::{Dsb, Op, Regime, Scope};

/// A set of PEs, as bits.
pub type PeSet = u64;

/// The most PEs that the model follows.
pub const MAX_PES: usize = PeSet::BITS as usize;

/// The set's members, ascending.
pub fn pes(set: PeSet) -> impl Iterator<Item = usize> {
    (0..MAX_PES).filter(move |pe| set >> pe & 1 != 0)
}

/// What a PE walks, each on its own: the halves of EL1&0, those of EL2(&0), stage 2.
pub const PLACES: usize = 5;
/// The places of EL1&0.
pub const EL10: [usize; 2] = [0, 1];
/// The places of EL2 and EL2&0.
pub const EL2: [usize; 2] = [2, 3];
/// The place of stage 2.
pub const STAGE2: usize = 4;

/// The translation registers of a PE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    values: [u64; Sysreg::ALL.len()],
}

/// Which tables a half of an address space is walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root {
    /// What its entries belong to.
    pub space: Space,
    /// Physical address of the root table.
    pub table: u64,
    /// 0: lower half, or the only one; 1: upper half.
    pub half: u8,
    /// How it is walked.
    pub geometry: Geometry,
}

impl Root {
    /// First input address of the half.
    pub fn first_va(&self) -> u64 {
        match self.half {
            0 => 0,
            _ => u64::MAX << self.geometry.va_bits,
        }
    }

    /// `va` as entries have it, without a tag, if it is in the half.
    pub fn canonical(&self, va: u64) -> Option<u64> {
        Some(self.first_va().wrapping_add(self.offset(va)?))
    }

    /// The offset of `va` in the half, if it is there. Tags in the upper bits are dropped.
    pub fn offset(&self, va: u64) -> Option<u64> {
        let bits = u32::from(self.geometry.va_bits);
        let upper = va >> 55 & 1 != 0;
        let in_half = if self.geometry.stage2 { va >> bits == 0 } else { upper == (self.half == 1) };
        // Between the size of the half and bit 55 all bits must repeat it.
        let middle = (va << 8 >> 8) >> bits;
        let expected = if upper { ((1 << 56) - 1) >> bits } else { 0 };
        (in_half && (self.geometry.stage2 || middle == expected)).then_some(va & ((1 << bits) - 1))
    }
}

/// A root as it is loaded on a PE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The tables.
    pub root: Root,
    /// The ASID that non-global entries and table entries are tagged with; 0 where there are none.
    pub asid: u16,
    /// TTBR.CnP: the PE shares its entries with others that set it.
    pub shared: bool,
}

/// Why something is not modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmodelled {
    /// A reserved value of TGn.
    Granule,
    /// A TnSZ that makes no table, or a start level that does not go with it.
    Size,
    /// Stage 1 under a stage 2 that does not map the root table to its own address.
    Nested,
}

impl Unmodelled {
    /// For the notice.
    pub fn text(self) -> &'static str {
        match self {
            Self::Granule => "a reserved granule",
            Self::Size => "a reserved address size or start level",
            Self::Nested => "a stage 2 that moves its tables",
        }
    }
}

/// Bits of HCR_EL2.
const HCR_VM: u32 = 0;
const HCR_FB: u32 = 9;
const HCR_BSU: u32 = 10;
const HCR_DC: u32 = 12;
const HCR_TGE: u32 = 27;
const HCR_E2H: u32 = 34;
/// Bits of SCTLR_EL1 and SCTLR_EL2.
const SCTLR_WXN: u32 = 19;
const SCTLR_EPAN: u32 = 57;

impl Registers {
    /// The value of a register.
    pub fn get(&self, register: Sysreg) -> u64 {
        self.values[register as usize]
    }

    /// Writes one register.
    pub fn write(&mut self, register: Sysreg, value: u64) {
        self.values[register as usize] = value;
    }

    fn hcr(&self, bit: u32) -> bool {
        self.get(Sysreg::HcrEl2) >> bit & 1 != 0
    }

    /// HCR_EL2.E2H: EL2 has two halves and ASIDs.
    pub fn is_vhe(&self) -> bool {
        self.hcr(HCR_E2H)
    }

    /// HCR_EL2.{E2H, TGE} = {1, 1}: EL0 belongs to EL2, and so do TLBIs of EL1&0 that EL2 executes.
    pub fn is_host(&self) -> bool {
        self.hcr(HCR_E2H) && self.hcr(HCR_TGE)
    }

    /// A host that has EL1's MMU off: it is not about to go back to EL1&0.
    pub fn has_left_el1(&self) -> bool {
        self.is_host() && self.get(Sysreg::SctlrEl1) & 1 == 0
    }

    /// HCR_EL2.VM or DC: stage 2 is on. Of a host neither counts.
    pub fn has_stage2(&self) -> bool {
        (self.hcr(HCR_VM) || self.hcr(HCR_DC)) && !self.is_host()
    }

    /// The current VMID.
    pub fn vmid(&self) -> u16 {
        let vmid = (self.get(Sysreg::VttbrEl2) >> 48) as u16;
        // VTCR_EL2.VS: 16 bits.
        if self.get(Sysreg::VtcrEl2) >> 19 & 1 != 0 { vmid } else { vmid & 0xff }
    }

    /// What EL1&0 stage 1 belongs to.
    pub fn el10(&self) -> Space {
        Space::El10(self.vmid())
    }

    /// What the regime of EL2 is.
    pub fn el2(&self) -> Space {
        if self.is_vhe() { Space::El20 } else { Space::El2 }
    }

    /// TCR.DS of what a space is walked with (FEAT_LPA2), whether anything is walked or not.
    pub fn is_wide(&self, space: Space) -> bool {
        let (register, bit) = match space {
            Space::El10(_) => (Sysreg::TcrEl1, 59),
            Space::El20 => (Sysreg::TcrEl2, 59),
            Space::El2 => (Sysreg::TcrEl2, 32),
            Space::Stage2(_) => (Sysreg::VtcrEl2, 32),
        };
        self.get(register) >> bit & 1 != 0
    }

    /// What a place is translated through; `Ok(None)`: through nothing (MMU off, walks disabled by EPD).
    pub fn loaded(&self, place: usize) -> Result<Option<Loaded>, Unmodelled> {
        use Sysreg as S;
        match place {
            // With TGE and without E2H stage 1 of EL1&0 is off, and with DC.
            0 | 1 if self.get(S::SctlrEl1) & 1 != 0 && !self.hcr(HCR_TGE) && !self.hcr(HCR_DC) => {
                self.two_halves(self.el10(), place as u8, [S::SctlrEl1, S::TcrEl1], [S::Ttbr0El1, S::Ttbr1El1])
            }
            2 | 3 if self.get(S::SctlrEl2) & 1 != 0 => {
                if self.is_vhe() {
                    self.two_halves(Space::El20, place as u8 - 2, [S::SctlrEl2, S::TcrEl2], [S::Ttbr0El2, S::Ttbr1El2])
                } else if place == 2 {
                    self.one_half()
                } else {
                    Ok(None)
                }
            }
            4 if self.has_stage2() => self.stage2(),
            _ => Ok(None),
        }
    }

    fn two_halves(
        &self,
        space: Space,
        half: u8,
        controls: [Sysreg; 2],
        ttbrs: [Sysreg; 2],
    ) -> Result<Option<Loaded>, Unmodelled> {
        let [sctlr, tcr] = controls.map(|register| self.get(register));
        let bit = |n: u32| tcr >> n & 1 != 0;
        let (tnsz, epd, page_shift, hpd, sh) = match half {
            0 => (tcr & 0x3f, bit(7), granule0(tcr >> 14), bit(41), tcr >> 12),
            _ => (tcr >> 16 & 0x3f, bit(23), granule1(tcr >> 30), bit(42), tcr >> 28),
        };
        if epd {
            return Ok(None);
        }
        let sized = sized(page_shift.ok_or(Unmodelled::Granule)?, tnsz, self.is_wide(space))?;
        let geometry = Geometry {
            hw_access_flag: bit(39),
            hw_dirty: bit(39) && bit(40),
            flat_attributes: hpd,
            controls: Controls { epan: sctlr >> SCTLR_EPAN & 1 != 0, ..cached(&sized, sctlr, sh, tcr >> 32) },
            ..sized
        };
        let ttbr = self.get(ttbrs[usize::from(half & 1)]);
        // A1 selects the TTBR whose ASID counts, AS whether it has 16 bits.
        let asid = (self.get(ttbrs[usize::from(bit(22))]) >> 48) as u16;
        let asid = if bit(36) { asid } else { asid & 0xff };
        let root = Root { space, table: base(ttbr, &geometry, tcr >> 32 & 7), half, geometry };
        Ok(Some(Loaded { root, asid, shared: ttbr & 1 != 0 }))
    }

    fn one_half(&self) -> Result<Option<Loaded>, Unmodelled> {
        let (tcr, ttbr) = (self.get(Sysreg::TcrEl2), self.get(Sysreg::Ttbr0El2));
        let bit = |n: u32| tcr >> n & 1 != 0;
        let page_shift = granule0(tcr >> 14).ok_or(Unmodelled::Granule)?;
        let sized = sized(page_shift, tcr & 0x3f, self.is_wide(Space::El2))?;
        let geometry = Geometry {
            tagged: false,
            hw_access_flag: bit(21),
            hw_dirty: bit(21) && bit(22),
            flat_attributes: bit(24),
            controls: cached(&sized, self.get(Sysreg::SctlrEl2), tcr >> 12, tcr >> 16),
            ..sized
        };
        let root = Root { space: Space::El2, table: base(ttbr, &geometry, tcr >> 16 & 7), half: 0, geometry };
        Ok(Some(Loaded { root, asid: 0, shared: ttbr & 1 != 0 }))
    }

    fn stage2(&self) -> Result<Option<Loaded>, Unmodelled> {
        let (vtcr, vttbr) = (self.get(Sysreg::VtcrEl2), self.get(Sysreg::VttbrEl2));
        let bit = |n: u32| vtcr >> n & 1 != 0;
        let page_shift = granule0(vtcr >> 14).ok_or(Unmodelled::Granule)?;
        let space = Space::Stage2(self.vmid());
        let sized = sized(page_shift, vtcr & 0x3f, self.is_wide(space))?;
        // SL0, with DS and 4 KiB SL2 above it. Level 0 of 16 KiB is DS's as well.
        let start_level = match (page_shift, vtcr >> 6 & 3, sized.wide && bit(33)) {
            (12, 0, true) => -1,
            (12, _, true) => return Err(Unmodelled::Size),
            (12, 3, _) => 3,
            (12, sl0, _) => 2 - sl0 as i8,
            (14, 3, _) if !sized.wide => return Err(Unmodelled::Size),
            (_, sl0, _) => 3 - sl0 as i8,
        };
        let geometry = Geometry {
            start_level,
            stage2: true,
            tagged: false,
            hw_access_flag: bit(21),
            hw_dirty: bit(21) && bit(22),
            controls: cached(&sized, 0, vtcr >> 12, vtcr >> 16),
            ..sized
        };
        // Up to sixteen tables side by side take the place of one more level.
        let input = u32::from(geometry.va_bits);
        let (least, most) = (geometry.shift(start_level), geometry.shift(start_level) + page_shift as u32 - 3 + 4);
        if start_level > 3 || input <= least || input > most {
            return Err(Unmodelled::Size);
        }
        let root = Root { space, table: base(vttbr, &geometry, vtcr >> 16 & 7), half: 0, geometry };
        Ok(Some(Loaded { root, asid: 0, shared: vttbr & 1 != 0 }))
    }
}

/// TG0, at the bottom of `field`.
fn granule0(field: u64) -> Option<u8> {
    match field & 3 {
        0 => Some(12),
        1 => Some(16),
        2 => Some(14),
        _ => None,
    }
}

/// TG1, at the bottom of `field`.
fn granule1(field: u64) -> Option<u8> {
    match field & 3 {
        1 => Some(14),
        2 => Some(12),
        3 => Some(16),
        _ => None,
    }
}

/// The geometry by granule, TnSZ and DS.
fn sized(page_shift: u8, tnsz: u64, ds: bool) -> Result<Geometry, Unmodelled> {
    // With 64 KiB DS is RES0.
    let wide = ds && page_shift != 16;
    // 48 bits at most, or 52 (FEAT_LVA with 64 KiB, FEAT_LPA2 with DS); 16 at least (FEAT_TTST).
    let least = if wide || page_shift == 16 { 12 } else { 16 };
    if !(least..=48).contains(&tnsz) {
        return Err(Unmodelled::Size);
    }
    let geometry = Geometry::stage1(page_shift, 64 - tnsz as u8).ok_or(Unmodelled::Size)?;
    Ok(Geometry { wide, ..geometry })
}

/// What may be cached of SCTLR (0 at stage 2, where there is none), SHn and PS, these two at the bottom of their fields.
fn cached(geometry: &Geometry, sctlr: u64, sh: u64, ps: u64) -> Controls {
    Controls {
        shareability: if geometry.wide { (sh & 3) as u8 } else { 0 },
        output_size: (ps & 7) as u8,
        wxn: sctlr >> SCTLR_WXN & 1 != 0,
        // Where there is an EL0.
        epan: false,
    }
}

/// The root table's address: aligned to its size, as the bits below are RES0. `ps` is TCR.IPS or its like.
fn base(ttbr: u64, geometry: &Geometry, ps: u64) -> u64 {
    let bytes = (geometry.entries(geometry.start_level) as u64 * 8).max(16);
    let low = ttbr & 0x0000_ffff_ffff_fffe;
    // With 52 bits of output the upper four stand in bits 5:2.
    if geometry.wide || (geometry.page_shift == 16 && ps == 6) {
        low & !(bytes.max(64) - 1) | (ttbr >> 2 & 0xf) << 48
    } else {
        low & !(bytes - 1)
    }
}

/// What a PE can do, from its ID registers; nothing until told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// FEAT_ETS2 or later: a completed TLBI is ordered before the PE's later data accesses without synchronisation.
    pub ets2: bool,
    /// Level of FEAT_BBM, 0..=3.
    pub bbm: u8,
    /// FEAT_TLBIRANGE.
    pub range: bool,
}

impl Features {
    /// Takes note of an ID register.
    pub fn tell(&mut self, register: IdRegister, value: u64) {
        match register {
            IdRegister::Mmfr0 => {}
            IdRegister::Mmfr1 => self.ets2 = value >> 36 & 0xf >= 2,
            IdRegister::Mmfr2 => self.bbm = (value >> 52 & 0xf).min(3) as u8,
            IdRegister::Isar0 => self.range = value >> 56 & 0xf >= 2,
        }
    }
}

/// Why what a TLB holds is UNKNOWN.
#[derive(Clone, Copy, Debug)]
pub struct Unknown {
    /// Number of the event since which it is.
    pub since: u64,
    /// For who is told.
    pub why: &'static str,
}

/// One PE.
#[derive(Clone, Debug)]
pub struct Pe {
    /// As written.
    pub written: Registers,
    /// As in effect since the last context synchronisation event.
    pub effective: Registers,
    /// What each place is translated through.
    pub loaded: [Option<Loaded>; PLACES],
    /// The exception level.
    pub el: u8,
    /// What it can do.
    pub features: Features,
    /// Whether the TLB holds UNKNOWN entries of EL1&0, and of EL2's regimes.
    pub unknown: [Option<Unknown>; 2],
    /// What it walked last of EL1&0, if stage 2 was off and that has not been invalidated since.
    pub without_stage2: Option<Space>,
    /// The places, as bits, where something is cached under controls that have changed, to be invalidated before the next
    /// context synchronisation event.
    pub owing: u8,
    /// MAIR of the same, as translations may be cached with it, and to what they belong.
    pub mair: [Option<(Space, u64)>; 2],
    /// The last label hint.
    pub label: Option<Arc<str>>,
}

impl Default for Pe {
    fn default() -> Self {
        Self {
            written: Registers::default(),
            effective: Registers::default(),
            loaded: [None; PLACES],
            el: 1,
            features: Features::default(),
            unknown: [None; 2],
            without_stage2: None,
            owing: 0,
            mair: [None; 2],
            label: None,
        }
    }
}

impl Pe {
    /// The operation as a hypervisor lets EL1 execute it: HCR_EL2.FB makes local ones broadcast.
    pub fn forced(&self, op: Op) -> Op {
        let broadcast = self.el == 1 && self.effective.hcr(HCR_FB) && op.regime == Regime::El10;
        if broadcast && op.scope == Scope::Local { Op { scope: Scope::Inner, ..op } } else { op }
    }

    /// The barrier as it makes EL1 and EL0 execute it: HCR_EL2.BSU is how far it reaches at least.
    pub fn upgraded(&self, dsb: Dsb) -> Dsb {
        let bsu = self.effective.get(Sysreg::HcrEl2) >> HCR_BSU & 3;
        let least = match bsu {
            1 => Domain::InnerShareable,
            2 => Domain::OuterShareable,
            3 => Domain::System,
            _ => return dsb,
        };
        if self.el > 1 || self.effective.is_host() || dsb.domain() >= least {
            return dsb;
        }
        let wider = |it: &&Dsb| {
            it.domain() == least
                && (it.covers_loads(), it.covers_stores(), it.is_nxs())
                    == (dsb.covers_loads(), dsb.covers_stores(), dsb.is_nxs())
        };
        Dsb::ALL.iter().find(wider).copied().unwrap_or(dsb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EL1&0 with the MMU on.
    fn el1(tcr: u64, ttbr0: u64, ttbr1: u64) -> Registers {
        let mut registers = Registers::default();
        for (register, value) in
            [(Sysreg::TcrEl1, tcr), (Sysreg::Ttbr0El1, ttbr0), (Sysreg::Ttbr1El1, ttbr1), (Sysreg::SctlrEl1, 1)]
        {
            registers.write(register, value);
        }
        registers
    }

    fn loaded(registers: &Registers, place: usize) -> Loaded {
        registers.loaded(place).expect("modelled").expect("on")
    }

    #[test]
    fn the_asid_comes_from_the_register_that_a1_names() {
        let registers = el1(16 | 16 << 16 | 2 << 30 | 1 << 36, 0x1234 << 48 | 0x1000, 0x5678 << 48 | 0x2000);
        assert_eq!((loaded(&registers, 0).asid, loaded(&registers, 1).asid), (0x1234, 0x1234));
        let registers = el1(16 | 16 << 16 | 2 << 30 | 1 << 22, 0x1234 << 48 | 0x1000, 0x5678 << 48 | 0x2000);
        assert_eq!((loaded(&registers, 0).asid, loaded(&registers, 1).asid), (0x78, 0x78), "eight bits without AS");
    }

    #[test]
    fn walks_may_be_disabled() {
        let registers = el1(16 | 16 << 16 | 2 << 30 | 1 << 7, 0x1000, 0x2000);
        assert_eq!(registers.loaded(0), Ok(None));
        assert_eq!(loaded(&registers, 1).root.table, 0x2000);
        assert_eq!(el1(16 | 3 << 14, 0, 0).loaded(0), Err(Unmodelled::Granule));
    }

    #[test]
    fn small_roots_are_smaller_than_a_page() {
        // 64 KiB, 48 bits: 64 entries, 512 bytes.
        let registers = el1(16 | 1 << 14 | 1 << 23, 0x4000_1200 | 1, 0);
        assert_eq!((loaded(&registers, 0).root.table, loaded(&registers, 0).shared), (0x4000_1200, true));
        // The same with 52 bits of output.
        let registers = el1(12 | 1 << 14 | 1 << 23 | 6 << 32, 0x4000_2000 | 0xf << 2, 0);
        assert_eq!(loaded(&registers, 0).root.table, 0x000f_0000_4000_2000);
    }

    #[test]
    fn el2_has_one_half_or_two() {
        let mut registers = Registers::default();
        registers.write(Sysreg::SctlrEl2, 1);
        registers.write(Sysreg::TcrEl2, 16 | 16 << 16 | 2 << 30);
        registers.write(Sysreg::Ttbr0El2, 0x3000 | 5u64 << 48);
        registers.write(Sysreg::Ttbr1El2, 0x4000 | 6u64 << 48);
        assert_eq!((loaded(&registers, 2).root.space, loaded(&registers, 2).asid), (Space::El2, 0));
        assert_eq!(registers.loaded(3), Ok(None));
        registers.write(Sysreg::HcrEl2, 1 << 34);
        assert_eq!((loaded(&registers, 3).root.space, loaded(&registers, 3).root.table), (Space::El20, 0x4000));
    }

    #[test]
    fn stage_2_may_begin_with_several_tables() {
        let mut registers = Registers::default();
        registers.write(Sysreg::HcrEl2, 1);
        // 40 bits, 4 KiB, start at level 1: two tables.
        registers.write(Sysreg::VtcrEl2, 24 | 1 << 6);
        registers.write(Sysreg::VttbrEl2, 0x8000_2000 | 9u64 << 48);
        let root = loaded(&registers, 4).root;
        assert_eq!((root.space, root.geometry.start_level, root.geometry.entries(1)), (Space::Stage2(9), 1, 1024));
        registers.write(Sysreg::VtcrEl2, 24);
        assert_eq!(registers.loaded(4), Err(Unmodelled::Size), "512 tables");
    }

    /// At `el` under `hcr`.
    fn pe(el: u8, hcr: u64) -> Pe {
        let mut pe = Pe { el, ..Pe::default() };
        pe.effective.write(Sysreg::HcrEl2, hcr);
        pe
    }

    #[test]
    fn hcr_el2_makes_barriers_wider_below_el2_and_none_narrower() {
        let at = |el, bsu: u64, dsb| pe(el, bsu << HCR_BSU).upgraded(dsb);
        for el in [0, 1] {
            assert_eq!([0, 1, 2, 3].map(|bsu| at(el, bsu, Dsb::Nsh)), [Dsb::Nsh, Dsb::Ish, Dsb::Osh, Dsb::Sy]);
            assert_eq!([0, 1, 2, 3].map(|bsu| at(el, bsu, Dsb::Oshst)), [Dsb::Oshst, Dsb::Oshst, Dsb::Oshst, Dsb::St]);
        }
        assert_eq!([at(1, 1, Dsb::Nshld), at(1, 1, Dsb::NshNxs)], [Dsb::Ishld, Dsb::IshNxs]);
        assert_eq!(at(2, 3, Dsb::Nsh), Dsb::Nsh);
        let host = pe(0, 3 << HCR_BSU | 1 << HCR_TGE | 1 << HCR_E2H);
        assert_eq!(host.upgraded(Dsb::Nsh), Dsb::Nsh, "EL0 of a host");
    }

    #[test]
    fn hcr_el2_makes_operations_of_el1_broadcast() {
        use tlbi::Target;
        let forced = |el, regime| pe(el, 1 << HCR_FB).forced(Op::new(regime, Scope::Local, Target::All)).scope;
        assert_eq!(forced(1, Regime::El10), Scope::Inner);
        assert_eq!([forced(2, Regime::El10), forced(1, Regime::El2)], [Scope::Local; 2]);
    }

    #[test]
    fn features_are_what_id_registers_say() {
        let told = |register, value| {
            let mut features = Features::default();
            features.tell(register, value);
            features
        };
        assert_eq!([0, 1, 2, 3].map(|it| told(IdRegister::Mmfr1, it << 36).ets2), [false, false, true, true]);
        assert_eq!([0, 1, 2, 3].map(|it| u64::from(told(IdRegister::Mmfr2, it << 52).bbm)), [0, 1, 2, 3]);
        assert_eq!([0, 1, 2, 3].map(|it| told(IdRegister::Isar0, it << 56).range), [false, false, true, true]);
    }

    #[test]
    fn addresses_outside_a_half_are_in_none() {
        let registers = el1(16 | 16 << 16 | 2 << 30, 0x1000, 0x2000);
        let (low, high) = (loaded(&registers, 0).root, loaded(&registers, 1).root);
        assert_eq!((low.offset(0x1234), high.offset(0x1234)), (Some(0x1234), None));
        assert_eq!((low.offset(0xab00_0000_0000_1234), low.offset(1 << 48)), (Some(0x1234), None));
        assert_eq!((low.offset(0xffff_0000_0000_1000), high.offset(0xffff_0000_0000_1000)), (None, Some(0x1000)));
    }
}
