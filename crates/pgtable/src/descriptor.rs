//! The bits of a stage-1 descriptor, 4 KiB granule, 48-bit output addresses (Arm ARM D8.3).

use crate::attributes::{Attributes, Shareability};
use tlbi::{Level, PhysAddr};

const VALID: u64 = 1 << 0;
/// At levels 0 to 2: a table; at level 3: a page.
const TABLE_OR_PAGE: u64 = 1 << 1;
const ATTR_INDEX_SHIFT: u32 = 2;
const AP_USER: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const SH_SHIFT: u32 = 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NON_GLOBAL: u64 = 1 << 11;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The 64 bits of a table entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Descriptor(u64);

/// What a descriptor is, at the level where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Invalid or reserved: translates nothing and is never cached.
    Invalid,
    /// Points at the next table.
    Table(PhysAddr),
    /// Translates: the frame and what it permits.
    Leaf(PhysAddr, Attributes),
}

impl Descriptor {
    /// The invalid descriptor, all zero.
    pub const INVALID: Self = Self(0);

    /// These 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Points at the table `next`, without hierarchical restrictions.
    pub const fn table(next: PhysAddr) -> Self {
        Self(next.bits() & ADDRESS | TABLE_OR_PAGE | VALID)
    }

    /// A non-global page with its access flag set.
    pub const fn page(frame: PhysAddr, attributes: Attributes) -> Self {
        let mut bits = frame.bits() & ADDRESS | TABLE_OR_PAGE | VALID | ACCESS_FLAG | NON_GLOBAL | PXN;
        bits |= ((attributes.memory_type & 7) as u64) << ATTR_INDEX_SHIFT;
        bits |= (attributes.shareability as u64) << SH_SHIFT;
        if attributes.user {
            bits |= AP_USER;
        }
        if !attributes.write {
            bits |= AP_READ_ONLY;
        }
        if !attributes.user_execute {
            bits |= UXN;
        }
        Self(bits)
    }

    /// Whether bit 0 is set.
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// What it is at `level`.
    pub const fn entry(self, level: Level) -> Entry {
        if !self.is_valid() {
            return Entry::Invalid;
        }
        let address = PhysAddr::new(self.0 & ADDRESS);
        match (level.number(), self.0 & TABLE_OR_PAGE != 0) {
            (0..=2, true) => Entry::Table(address),
            (3, true) | (1 | 2, false) => Entry::Leaf(address, self.attributes()),
            _ => Entry::Invalid,
        }
    }

    const fn attributes(self) -> Attributes {
        Attributes {
            memory_type: (self.0 >> ATTR_INDEX_SHIFT & 7) as u8,
            shareability: match self.0 >> SH_SHIFT & 3 {
                2 => Shareability::Outer,
                3 => Shareability::Inner,
                _ => Shareability::NonShareable,
            },
            write: self.0 & AP_READ_ONLY == 0,
            user: self.0 & AP_USER != 0,
            user_execute: self.0 & UXN == 0,
        }
    }
}
