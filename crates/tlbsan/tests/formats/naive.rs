//! A second reading of the formats, as the Arm ARM's tables and figures have them, field by field.
//!
//! It has the model's words for what it finds, and nothing of how the model comes to it. Reserved bits are read as they
//! stand: a kernel that keeps them as they must be sees no difference.

use tlbsan::Sysreg::{self, HcrEl2, SctlrEl1, SctlrEl2, TcrEl1, TcrEl2, VtcrEl2, VttbrEl2};
use tlbsan::Sysreg::{Ttbr0El1, Ttbr0El2, Ttbr1El1, Ttbr1El2};
use tlbsan::descriptor::{Descriptor, Leaf, Table};
use tlbsan::geometry::{Controls, Geometry, Space};
use tlbsan::machine::{Loaded, Registers, Root, Unmodelled};

/// `value<high:low>`.
fn field(value: u64, high: u32, low: u32) -> u64 {
    value << (63 - high) >> (63 - high + low)
}

/// Of each level, from level 3 up: log2 of the bytes that an entry translates, and the entries of a contiguous run
/// (D8.2, "The Contiguous bit").
pub(crate) fn levels(page: u8) -> &'static [(u8, usize)] {
    match page {
        12 => &[(12, 16), (21, 16), (30, 16), (39, 1), (48, 1)],
        14 => &[(14, 128), (25, 32), (36, 1), (47, 1)],
        _ => &[(16, 32), (29, 32), (42, 1)],
    }
}

/// log2 of the bytes that an entry at `level` translates.
fn shift(page: u8, level: i8) -> u8 {
    levels(page)[(3 - level) as usize].0
}

/// The level of a stage-1 root: the highest that has more than one entry (D8.2).
pub(crate) fn root_level(page: u8, bits: u8) -> i8 {
    4 - levels(page).iter().filter(|(shift, _)| *shift < bits).count() as i8
}

/// The address whose bit `n`, from `low` on, is the bit of `value` that `place` names; bits without a place are 0.
fn gathered(value: u64, low: u8, place: impl Fn(u32) -> Option<u32>) -> u64 {
    let is_set = |n: &u32| place(*n).is_some_and(|at| field(value, at, at) == 1);
    (low.into()..52).filter(is_set).map(|n| 1 << n).sum()
}

/// A descriptor (D8.3).
pub(crate) fn descriptor(bits: u64, level: i8, g: &Geometry) -> Descriptor {
    let is = |n| field(bits, n, n) == 1;
    let blocks: &[i8] = match (g.page_shift, g.wide) {
        (12, false) => &[2, 1],
        (12, true) => &[2, 1, 0],
        (14, true) => &[2, 1],
        // With 64 KiB also level 1, if physical addresses have 52 bits; no translation register says that they do.
        _ => &[2],
    };
    let address = |low| {
        gathered(bits, low, |n| match (n, g.page_shift, g.wide) {
            (..48, ..) => Some(n),
            (_, 16, _) => Some(n - 48 + 12),
            (48 | 49, _, true) => Some(n),
            (50 | 51, _, true) => Some(n - 50 + 8),
            _ => None,
        })
    };
    match (field(bits, 1, 0), level) {
        (0b11, 3) => {}
        (0b11, _) => {
            // Stage 2 has no hierarchical attributes; HPD is about permissions, and so not about NSTable.
            let hierarchical = match (g.stage2, g.flat_attributes) {
                (true, _) => 0,
                (false, true) => field(bits, 63, 63) << 4,
                (false, false) => field(bits, 63, 59),
            };
            return Descriptor::Table(Table { next: address(g.page_shift), hierarchical: hierarchical as u8 });
        }
        (0b01, _) if blocks.contains(&level) => {}
        _ => return Descriptor::Nothing,
    }
    if !is(10) && !g.hw_access_flag {
        return Descriptor::Nothing;
    }
    let dirty = g.hw_dirty && is(51);
    let stage1 = Leaf {
        output: address(shift(g.page_shift, level)),
        attr_index: field(bits, 4, 2) as u8,
        ns: is(5),
        el0: is(6),
        writable: !is(7) || dirty,
        shareability: if g.wide { 0 } else { field(bits, 9, 8) as u8 },
        non_global: is(11) && g.tagged,
        nt: is(16) && level != 3,
        gp: is(50),
        contiguous: is(52) && levels(g.page_shift)[(3 - level) as usize].1 > 1,
        pxn: is(53),
        uxn: is(54),
    };
    if !g.stage2 {
        return Descriptor::Leaf(stage1);
    }
    // Execution at EL1 and at EL0, by XN[1:0] (FEAT_XNX).
    let (pxn, uxn) = match field(bits, 54, 53) {
        0b00 => (false, false),
        0b01 => (true, false),
        0b10 => (true, true),
        _ => (false, true),
    };
    let attr_index = field(bits, 5, 2) as u8;
    let writable = is(7) || dirty;
    Descriptor::Leaf(Leaf { attr_index, ns: false, writable, non_global: false, gp: false, pxn, uxn, ..stage1 })
}

/// Where a control register keeps what it says of one half: the lowest bit of each field (D24.2).
struct Control {
    size: u32,
    granule: u32,
    /// What the values of TGn mean; 0 if reserved.
    granules: [u8; 4],
    /// IPS or PS.
    output: u32,
    shareability: u32,
    ha: u32,
    hd: u32,
    ds: u32,
    /// EPDn and HPDn, where there are any.
    epd: Option<u32>,
    hpd: Option<u32>,
}

/// TCR_EL1, and TCR_EL2 with E2H: T0SZ and its like.
const LOWER: Control = Control {
    size: 0,
    granule: 14,
    granules: [12, 16, 14, 0],
    output: 32,
    shareability: 12,
    ha: 39,
    hd: 40,
    ds: 59,
    epd: Some(7),
    hpd: Some(41),
};
/// T1SZ and its like.
const UPPER: Control = Control {
    size: 16,
    granule: 30,
    granules: [0, 14, 12, 16],
    shareability: 28,
    epd: Some(23),
    hpd: Some(42),
    ..LOWER
};
/// TCR_EL2 without E2H.
const ONE: Control = Control { output: 16, ha: 21, hd: 22, ds: 32, epd: None, hpd: Some(24), ..LOWER };
/// VTCR_EL2.
const STAGE2: Control = Control { hpd: None, ..ONE };

/// The first level of stage 2, by VTCR_EL2.SL2 and SL0.
fn stage2_level(vtcr: u64, page: u8, ds: bool) -> Option<i8> {
    let sl2 = ds && page == 12 && field(vtcr, 33, 33) == 1;
    match (page, sl2, field(vtcr, 7, 6)) {
        (12, false, sl0) => Some([2, 1, 0, 3][sl0 as usize]),
        (12, true, 0b00) => Some(-1),
        (14, _, 0b11) => ds.then_some(0),
        (14 | 16, _, sl0 @ 0b00..=0b10) => Some([3, 2, 1][sl0 as usize]),
        _ => None,
    }
}

/// What a place is translated through.
pub(crate) fn loaded(registers: &Registers, place: usize) -> Result<Option<Loaded>, Unmodelled> {
    let is = |register, n| field(registers.get(register), n, n) == 1;
    let (tge, e2h) = (is(HcrEl2, 27), is(HcrEl2, 34));
    // HCR_EL2.{E2H, TGE} = {1, 1}: VM and DC behave as 0. DC behaves as VM = 1 and SCTLR_EL1.M = 0, TGE as the latter.
    let [vm, dc] = [0, 12].map(|n| is(HcrEl2, n) && !(e2h && tge));
    let vmid = field(registers.get(VttbrEl2), if is(VtcrEl2, 19) { 63 } else { 55 }, 48) as u16;
    let el1 = is(SctlrEl1, 0) && !tge && !dc;
    let (el2, el2_space) = (is(SctlrEl2, 0), if e2h { Space::El20 } else { Space::El2 });
    let (on, space, register, ttbrs, control): (_, _, Sysreg, _, _) = match place {
        0 => (el1, Space::El10(vmid), TcrEl1, [Ttbr0El1, Ttbr1El1], LOWER),
        1 => (el1, Space::El10(vmid), TcrEl1, [Ttbr0El1, Ttbr1El1], UPPER),
        2 => (el2, el2_space, TcrEl2, [Ttbr0El2, Ttbr1El2], if e2h { LOWER } else { ONE }),
        3 => (el2 && e2h, el2_space, TcrEl2, [Ttbr0El2, Ttbr1El2], UPPER),
        _ => (vm || dc, Space::Stage2(vmid), VtcrEl2, [VttbrEl2; 2], STAGE2),
    };
    if !on || control.epd.is_some_and(|epd| is(register, epd)) {
        return Ok(None);
    }
    let (tcr, half) = (registers.get(register), place as u8 % 2);
    let sctlr = [Some(SctlrEl1), Some(SctlrEl2), None][place / 2];
    let page_shift = control.granules[field(tcr, control.granule + 1, control.granule) as usize];
    // DS is RES0 with 64 KiB, which has 52 bits of its own.
    let wide = page_shift != 16 && is(register, control.ds);
    let sizes = match (page_shift, wide) {
        (0, _) => return Err(Unmodelled::Granule),
        (16, _) => 12..=47,
        (_, true) => 12..=48,
        (_, false) => 16..=48,
    };
    let size = field(tcr, control.size + 5, control.size) as u8;
    let (va_bits, stage2) = (64 - size, place == 4);
    if !sizes.contains(&size) {
        return Err(Unmodelled::Size);
    }
    let first = if stage2 { stage2_level(tcr, page_shift, wide) } else { Some(root_level(page_shift, va_bits)) };
    // Bits that the root resolves: those of a table, and of up to sixteen tables at stage 2.
    let start_level = first.ok_or(Unmodelled::Size)?;
    let resolved = va_bits.checked_sub(shift(page_shift, start_level)).ok_or(Unmodelled::Size)?;
    if !(1..=page_shift - 3 + if stage2 { 4 } else { 0 }).contains(&resolved) {
        return Err(Unmodelled::Size);
    }
    let tagged = matches!(space, Space::El10(_) | Space::El20);
    let geometry = Geometry {
        page_shift,
        start_level,
        va_bits,
        stage2,
        tagged,
        wide,
        hw_access_flag: is(register, control.ha),
        hw_dirty: is(register, control.ha) && is(register, control.hd),
        flat_attributes: control.hpd.is_some_and(|hpd| is(register, hpd)),
        controls: Controls {
            shareability: if wide { field(tcr, control.shareability + 1, control.shareability) as u8 } else { 0 },
            output_size: field(tcr, control.output + 2, control.output) as u8,
            wxn: sctlr.is_some_and(|sctlr| is(sctlr, 19)),
            // EPAN is RES0 where EL0 is no part of the regime.
            epan: tagged && sctlr.is_some_and(|sctlr| is(sctlr, 57)),
        },
    };
    // BADDR, aligned to the root's size. With 52 bits of output to 64 bytes at least: bits 5:2 are the upper four then.
    let ttbr = registers.get(ttbrs[usize::from(half)]);
    let long = wide || page_shift == 16 && field(tcr, control.output + 2, control.output) == 0b110;
    let low = if long { 6.max(resolved + 3) } else { resolved + 3 };
    let table = gathered(ttbr, low, |n| if n < 48 { Some(n) } else { long.then_some(n - 48 + 2) });
    // A1 and AS.
    let from = ttbrs[usize::from(field(tcr, 22, 22) == 1)];
    let asid = field(registers.get(from), if field(tcr, 36, 36) == 1 { 63 } else { 55 }, 48) as u16;
    let root = Root { space, table, half, geometry };
    Ok(Some(Loaded { root, asid: if tagged { asid } else { 0 }, shared: field(ttbr, 0, 0) == 1 }))
}
