//! The operand of a range operation (FEAT_TLBIRANGE; Arm ARM C5.5 "TLBI RVAE1").
//!
//! ```text
//!   63   48 47 46 45   44 43 39 38 37 36    0
//!   |ASID  |TG   |SCALE  |NUM  |TTL  |BaseADDR|    (NUM + 1) * 2^(5 * SCALE + 1) pages from BaseADDR
//! ```

use crate::granule::{Granule, Level};

/// The addresses that a range operation covers, as its operand says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pages {
    base: u64,
    granule: Option<Granule>,
    num: u8,
    scale: u8,
    ttl: u8,
    lpa2: bool,
}

/// Bits of BaseADDR.
const BASE_BITS: u32 = 37;

impl Pages {
    /// The most pages that one operation covers: 2^21.
    pub const MAX: u64 = 32 << 16;

    /// The `pages` pages from address `start`; `None` if no operand says exactly that.
    ///
    /// `pages` must be k, 32k, 1024k or 32768k times two with k in 1..=32, and `start` a multiple of the granule; where
    /// `lpa2` (TCR_ELx.DS or VTCR_EL2.DS is set, with 4 and 16 KiB granules) of 64 KiB. Bits of `start` above the ones that BaseADDR
    /// holds are dropped: for a virtual address they repeat the highest one.
    #[inline]
    pub const fn new(granule: Granule, lpa2: bool, start: u64, pages: u64) -> Option<Self> {
        let unit = Self::base_shift(granule, lpa2);
        if pages == 0 || start & ((1 << unit) - 1) != 0 {
            return None;
        }
        let mut scale = 0;
        while scale < 4 {
            let shift = 5 * scale + 1;
            if pages & ((1 << shift) - 1) == 0 && pages >> shift <= 32 {
                let base = start >> unit & ((1 << BASE_BITS) - 1);
                let num = ((pages >> shift) - 1) as u8;
                return Some(Self { base, granule: Some(granule), num, scale: scale as u8, ttl: 0, lpa2 });
            }
            scale += 1;
        }
        None
    }

    /// The operand for a number of pages and a start that [`new`](Self::new) is known to take.
    #[inline]
    pub(crate) const fn of(granule: Granule, lpa2: bool, start: u64, pages: u64, hint: Option<Level>) -> Self {
        let scale = match pages {
            0..=0x40 => 0,
            0x41..=0x800 => 1,
            0x801..=0x1_0000 => 2,
            _ => 3,
        };
        let base = start >> Self::base_shift(granule, lpa2) & ((1 << BASE_BITS) - 1);
        let num = ((pages >> (5 * scale + 1)).wrapping_sub(1) & 31) as u8;
        let all = Self { base, granule: Some(granule), num, scale, ttl: 0, lpa2 };
        match hint {
            Some(level) => all.hint(level),
            None => all,
        }
    }

    /// With the hint that every entry concerned is a leaf at `level`, one of 1, 2 and 3; at another level without a hint.
    #[must_use]
    #[inline]
    pub const fn hint(mut self, level: Level) -> Self {
        self.ttl = if level.number() > 0 { level.number() as u8 } else { 0 };
        self
    }

    /// Reads BaseADDR in units of 64 KiB, as a PE whose TCR has DS set does; an operand does not say it of itself.
    #[must_use]
    pub const fn with_lpa2(mut self, lpa2: bool) -> Self {
        self.lpa2 = lpa2;
        self
    }

    /// Address bits below BaseADDR.
    const fn base_shift(granule: Granule, lpa2: bool) -> u32 {
        if lpa2 { 16 } else { granule.shift() }
    }

    /// Whether BaseADDR is read in units of 64 KiB.
    pub const fn lpa2(self) -> bool {
        self.lpa2
    }

    /// The granule that the operand names; `None`: the reserved value, with which the operation covers nothing.
    pub const fn granule(self) -> Option<Granule> {
        self.granule
    }

    /// Number of pages; 0 with the reserved granule.
    pub const fn pages(self) -> u64 {
        match self.granule {
            Some(_) => (self.num as u64 + 1) << (5 * self.scale + 1),
            None => 0,
        }
    }

    /// Number of bytes.
    pub const fn size(self) -> u64 {
        match self.granule {
            Some(granule) => self.pages() << granule.shift(),
            None => 0,
        }
    }

    /// First virtual address: the highest bit of BaseADDR is repeated upwards.
    pub const fn first_va(self) -> u64 {
        let sign = 64 - BASE_BITS;
        let page = ((self.base << sign) as i64 >> sign) as u64;
        match self.granule {
            Some(granule) => page << Self::base_shift(granule, self.lpa2),
            None => 0,
        }
    }

    /// First intermediate physical address.
    pub const fn first_ipa(self) -> u64 {
        match self.granule {
            Some(granule) => self.base << Self::base_shift(granule, self.lpa2),
            None => 0,
        }
    }

    /// The level that the hint names, 1..=3; `None`: no hint.
    pub const fn level(self) -> Option<Level> {
        match self.ttl {
            1..=3 => Level::from_number(self.ttl as i8),
            _ => None,
        }
    }

    /// The operand but for its top 16 bits.
    pub(super) const fn operand(self) -> u64 {
        let tg = match self.granule {
            None => 0,
            Some(granule) => granule.tg(),
        };
        tg << 46 | (self.scale as u64) << 44 | (self.num as u64) << 39 | (self.ttl as u64) << 37 | self.base
    }

    /// The same backwards.
    pub(super) const fn decode(xt: u64) -> Self {
        let granule = match xt >> 46 & 3 {
            1 => Some(Granule::K4),
            2 => Some(Granule::K16),
            3 => Some(Granule::K64),
            _ => None,
        };
        Self {
            base: xt & ((1 << BASE_BITS) - 1),
            granule,
            num: (xt >> 39 & 31) as u8,
            scale: (xt >> 44 & 3) as u8,
            ttl: (xt >> 37 & 3) as u8,
            lpa2: false,
        }
    }
}
