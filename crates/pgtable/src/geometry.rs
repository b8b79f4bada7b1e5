//! How tables are shaped: granule, bits of virtual address, half, and the spans that follow (Arm ARM D8.2).
//!
//! A geometry is a type, so that nothing of it is left at run time: [`Lower<K4, 48>`](Lower) is what TTBR0_EL1 translates with
//! 4 KiB pages and T0SZ = 16. What a descriptor says is [`descriptor`](crate::descriptor)'s business.

use core::fmt::Debug;
use core::marker::PhantomData;
use tlbi::{Granule, Level, PhysAddr, VaRange, VirtAddr};

/// The format of tables and descriptors: a granule, with or without FEAT_LPA2 (TCR_EL1.DS).
pub trait Format: sealed::Sealed + Copy + Debug + Send + Sync + 'static {
    /// The granule.
    const GRANULE: Granule;
    /// TCR_EL1.DS: 52-bit addresses with 4 KiB and 16 KiB pages. Shareability is not in the descriptor then.
    const LPA2: bool;
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident $granule:ident $lpa2:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name;
        impl sealed::Sealed for $name {}
        impl Format for $name {
            const GRANULE: Granule = Granule::$granule;
            const LPA2: bool = $lpa2;
        }
    )*};
}

formats! {
    /// 4 KiB pages, 48-bit addresses.
    K4 K4 false;
    /// 4 KiB pages with FEAT_LPA2: 52-bit addresses, levels -1 to 3, blocks at level 0.
    K4Wide K4 true;
    /// 16 KiB pages, 48-bit addresses.
    K16 K16 false;
    /// 16 KiB pages with FEAT_LPA2: 52-bit addresses, blocks at level 1.
    K16Wide K16 true;
    /// 64 KiB pages: 52-bit virtual addresses with FEAT_LVA, 52-bit physical ones with FEAT_LPA.
    K64 K64 false;
}

/// The shape of a space: [`Lower`] or [`Upper`]. It has no values that matter, only constants.
pub trait Geometry: sealed::Sealed + Copy + Debug + Send + Sync + 'static {
    /// The format of its tables.
    type Format: Format;
    /// Bits of virtual address that are translated: 64 - TnSZ.
    const VA_BITS: u32;
    /// The half that TTBR1_EL1 translates, whose upper bits are all ones.
    const UPPER: bool;

    /// The granule.
    const GRANULE: Granule = <Self::Format as Format>::GRANULE;
    /// TCR_EL1.DS.
    const LPA2: bool = <Self::Format as Format>::LPA2;
    /// Entries of a table; the root may have fewer.
    const ENTRIES: usize = Self::GRANULE.size() as usize / 8;
    /// Bytes of a page and of a table.
    const PAGE: u64 = Self::GRANULE.size();
    /// Level of the root table.
    const ROOT: Level = root_level(Self::GRANULE, Self::LPA2, Self::VA_BITS);
    /// Physical address bits that a descriptor holds.
    const PA_BITS: u8 = if Self::LPA2 || matches!(Self::GRANULE, Granule::K64) { 52 } else { 48 };

    /// The whole space.
    const EVERYTHING: VaRange = everything(Self::UPPER, Self::VA_BITS);

    /// log2 of the bytes that an entry at `level` translates.
    #[inline(always)]
    fn shift(level: Level) -> u32 {
        let page = Self::GRANULE.shift();
        page + (page - 3) * (3 - level.number()) as u32
    }

    /// Bytes that an entry at `level` translates.
    #[inline(always)]
    fn size(level: Level) -> u64 {
        1 << Self::shift(level)
    }

    /// Entries of a table at `level`.
    #[inline(always)]
    fn entries(level: Level) -> usize {
        if level == Self::ROOT { 1 << (Self::VA_BITS - Self::shift(level)) } else { Self::ENTRIES }
    }

    /// Address of the entry for `va` in a table at `level`.
    #[inline(always)]
    fn slot(table: PhysAddr, level: Level, va: VirtAddr) -> PhysAddr {
        let index = (va.bits() >> Self::shift(level)) & (Self::entries(level) as u64 - 1);
        PhysAddr::new(table.bits() + 8 * index)
    }

    /// Whether a leaf may stand at `level`.
    #[inline(always)]
    fn has_leaves(level: Level) -> bool {
        level.number()
            >= match (Self::GRANULE, Self::LPA2) {
                (Granule::K4, true) => 0,
                (Granule::K4, false) | (Granule::K16, true) => 1,
                // 4 TiB blocks of 64 KiB granules need FEAT_LPA, and are not used.
                (Granule::K16, false) | (Granule::K64, _) => 2,
            }
    }

    /// Entries of a contiguous run at `level`, 1 where there is none (Arm ARM D8.7.1).
    #[inline(always)]
    fn run(level: Level) -> u64 {
        match (Self::GRANULE, level.number()) {
            (Granule::K4, 1..=3) => 16,
            (Granule::K16, 3) => 128,
            (Granule::K16, 2) => 32,
            (Granule::K64, 2 | 3) => 32,
            _ => 1,
        }
    }

    /// Bytes of a contiguous run at `level`; of one entry where there is none.
    #[inline(always)]
    fn run_size(level: Level) -> u64 {
        Self::run(level) << Self::shift(level)
    }

    /// Whether the range lies in this half.
    #[inline(always)]
    fn contains(range: VaRange) -> bool {
        Self::EVERYTHING.contains(range.start()) && Self::EVERYTHING.contains(range.last())
    }

    /// The fields of TCR_EL1 that this half asks for: T0SZ and TG0, or T1SZ and TG1; and DS.
    fn tcr() -> u64 {
        let size = u64::from(64 - Self::VA_BITS);
        let wide = if Self::LPA2 { 1 << 59 } else { 0 };
        if Self::UPPER {
            let granule = match Self::GRANULE {
                Granule::K16 => 1,
                Granule::K4 => 2,
                Granule::K64 => 3,
            };
            size << 16 | granule << 30 | wide
        } else {
            let granule = match Self::GRANULE {
                Granule::K4 => 0,
                Granule::K64 => 1,
                Granule::K16 => 2,
            };
            size | granule << 14 | wide
        }
    }
}

/// What TTBR0_EL1 translates: addresses from 0 to 2^`VA_BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lower<F, const VA_BITS: u32>(PhantomData<F>);

/// What TTBR1_EL1 translates: the last 2^`VA_BITS` addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Upper<F, const VA_BITS: u32>(PhantomData<F>);

impl<F, const VA_BITS: u32> sealed::Sealed for Lower<F, VA_BITS> {}
impl<F, const VA_BITS: u32> sealed::Sealed for Upper<F, VA_BITS> {}

impl<F: Format, const VA_BITS: u32> Geometry for Lower<F, VA_BITS> {
    type Format = F;
    const VA_BITS: u32 = VA_BITS;
    const UPPER: bool = false;
}

impl<F: Format, const VA_BITS: u32> Geometry for Upper<F, VA_BITS> {
    type Format = F;
    const VA_BITS: u32 = VA_BITS;
    const UPPER: bool = true;
}

/// The level at which a walk begins. A size that no TCR_EL1 can ask for does not compile.
const fn root_level(granule: Granule, lpa2: bool, va_bits: u32) -> Level {
    let most = if lpa2 || matches!(granule, Granule::K64) { 52 } else { 48 };
    assert!(va_bits >= 32 && va_bits <= most, "32 to 48 bits of virtual address; 52 with 64 KiB pages or LPA2");
    let levels = (va_bits - granule.shift()).div_ceil(granule.shift() - 3);
    match Level::from_number(4 - levels as i8) {
        Some(level) => level,
        None => panic!("no such level"),
    }
}

const fn everything(upper: bool, va_bits: u32) -> VaRange {
    let start = if upper { u64::MAX << va_bits } else { 0 };
    match VaRange::new(VirtAddr::new(start), 1 << va_bits) {
        Ok(range) => range,
        Err(_) => panic!("a half is a range"),
    }
}

mod sealed {
    pub trait Sealed {}
}
