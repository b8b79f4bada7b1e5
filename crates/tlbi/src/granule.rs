//! Translation granules and lookup levels (Arm ARM D8.2), and the spans that follow from them.

use core::fmt;

/// A translation granule: the size of a page and of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl Granule {
    /// log2 of the page size in bytes: 12, 14 or 16.
    pub const fn shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Page size in bytes.
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }

    /// The granule as TLBI operands name it, in TTL and TG: 1, 2, 3.
    pub(crate) const fn tg(self) -> u64 {
        match self {
            Self::K4 => 1,
            Self::K16 => 2,
            Self::K64 => 3,
        }
    }

    /// log2 of the number of bytes that one entry at `level` translates; at most 52, where a walk has no such level.
    pub const fn level_shift(self, level: Level) -> u32 {
        // A table holds 2^(shift - 3) entries of 8 bytes; level 3 entries span one page.
        let shift = self.shift() + (self.shift() - 3) * (3 - level.number()) as u32;
        if shift < 52 { shift } else { 52 }
    }

    /// Whether a walk with this granule has tables at `level`, with or without TCR_ELx.DS set (Arm ARM D8.2): down from 0,
    /// with 64 KiB from 1; with 4 KiB and DS from -1.
    pub const fn has_level(self, level: Level, lpa2: bool) -> bool {
        match self {
            Self::K4 => level.number() >= if lpa2 { -1 } else { 0 },
            Self::K16 => level.number() >= 0,
            Self::K64 => level.number() >= 1,
        }
    }

    /// Whether a level hint can name a leaf at `level`: an encoding that is not reserved (Arm ARM D8.16 "TTL").
    pub(crate) const fn has_hint(self, level: Level, lpa2: bool) -> bool {
        match self {
            Self::K16 => level.number() >= if lpa2 { 1 } else { 2 },
            Self::K4 | Self::K64 => level.number() >= 1,
        }
    }

    /// Number of bytes that one entry at `level` translates.
    pub const fn level_size(self, level: Level) -> u64 {
        1 << self.level_shift(level)
    }
}

impl fmt::Display for Granule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::K4 => "4 KiB",
            Self::K16 => "16 KiB",
            Self::K64 => "64 KiB",
        })
    }
}

/// A lookup level, -1 (with FEAT_LPA2) to 3. Level 3 holds pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(i8);

impl Level {
    /// Level -1, the start of a 52-bit walk with the 4 KiB granule.
    pub const LM1: Self = Self(-1);
    /// Level 0.
    pub const L0: Self = Self(0);
    /// Level 1.
    pub const L1: Self = Self(1);
    /// Level 2.
    pub const L2: Self = Self(2);
    /// Level 3: pages.
    pub const L3: Self = Self(3);

    /// The level with this number, or `None` outside -1..=3.
    pub const fn from_number(number: i8) -> Option<Self> {
        if number >= -1 && number <= 3 { Some(Self(number)) } else { None }
    }

    /// -1..=3.
    pub const fn number(self) -> i8 {
        self.0
    }

    /// One step nearer to the pages, or `None` at level 3.
    pub const fn below(self) -> Option<Self> {
        Self::from_number(self.0 + 1)
    }

    /// One step nearer to the root, or `None` at level -1.
    pub const fn above(self) -> Option<Self> {
        Self::from_number(self.0 - 1)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}
