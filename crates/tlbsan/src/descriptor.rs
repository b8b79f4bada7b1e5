//! Stage-1 descriptors of the 4 KiB granule, as a walker reads them (Arm ARM D8.3).
//!
//! Decoding says what may be *cached* (R2): an entry that is invalid, reserved, or a leaf without access flag where
//! hardware does not set it, is all the same here. Comparing says what a change means: nothing, a permission, or
//! something that break-before-make is due for.

use std::fmt;

/// Entries of a table.
pub const ENTRIES: usize = 512;
/// Bytes of a page and of a table.
pub const PAGE: u64 = 4096;

/// The part of TCR_EL1 and TTBRn_EL1 that says how a half is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Level of the root table, 0..=3.
    pub start_level: i8,
    /// Size of the half in bits: 64 - TnSZ.
    pub va_bits: u32,
    /// TCR.HA: hardware sets the access flag, so that leaves without it may be cached.
    pub hw_access_flag: bool,
}

/// log2 of the bytes that an entry at `level` translates.
pub const fn level_shift(level: i8) -> u32 {
    (39 - 9 * level as i32) as u32
}

/// Bytes that an entry at `level` translates.
pub const fn level_size(level: i8) -> u64 {
    1 << level_shift(level)
}

/// What a descriptor lets a TLB hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Nothing.
    Nothing,
    /// A table descriptor.
    Table(Table),
    /// A block or page descriptor.
    Leaf(Leaf),
}

/// A table descriptor: where the next level is, and the hierarchical attributes. Its other bits are ignored by hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Physical address of the next-level table.
    pub next: u64,
    /// Bits 63:59: NSTable, APTable, UXNTable, PXNTable.
    pub hierarchical: u8,
}

/// A block or page descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Output address.
    pub output: u64,
    /// AttrIndx, an index into MAIR_EL1.
    pub attr_index: u8,
    /// SH.
    pub shareability: u8,
    /// `AP[2]` is 0, or DBM lets hardware make it so.
    pub writable: bool,
    /// `AP[1]`: EL0 may access.
    pub el0: bool,
    /// nG: tagged with the ASID.
    pub non_global: bool,
    /// Contiguous.
    pub contiguous: bool,
    /// PXN.
    pub pxn: bool,
    /// UXN.
    pub uxn: bool,
    /// NS, GP and nT, bits 5, 50 and 16: compared, not interpreted.
    pub other: u8,
}

impl Descriptor {
    /// What the descriptor `bits` at `level` lets a TLB hold.
    pub fn decode(bits: u64, level: i8, geometry: &Geometry) -> Self {
        let bit = |n: u32| bits >> n & 1 != 0;
        if !bit(0) {
            return Self::Nothing;
        }
        let leaf_size = match (level, bit(1)) {
            (0..=2, true) => {
                return Self::Table(Table { next: bits & 0x0000_ffff_ffff_f000, hierarchical: (bits >> 59) as u8 });
            }
            (1 | 2, false) | (3, true) => level_size(level),
            _ => return Self::Nothing, // reserved encodings
        };
        if !bit(10) && !geometry.hw_access_flag {
            return Self::Nothing;
        }
        Self::Leaf(Leaf {
            output: bits & 0x0000_ffff_ffff_ffff & !(leaf_size - 1),
            attr_index: (bits >> 2 & 7) as u8,
            shareability: (bits >> 8 & 3) as u8,
            writable: !bit(7) || bit(51),
            el0: bit(6),
            non_global: bit(11),
            contiguous: bit(52),
            pxn: bit(53),
            uxn: bit(54),
            other: u8::from(bit(5)) | u8::from(bit(50)) << 1 | u8::from(bit(16)) << 2,
        })
    }

    /// Whether a TLB may hold it.
    pub fn is_cacheable(&self) -> bool {
        *self != Self::Nothing
    }
}

/// What a change from one cacheable descriptor to another, for the same addresses, asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: both translate alike, or the new one only permits more.
    None,
    /// An invalidation some time: a permission was taken away.
    Tighten,
    /// Break-before-make: both must never be cached at once. The word says what differs.
    Break(&'static str),
}

/// Compares two descriptors at the same level. `same_contents` tells whether two frames hold the same bytes.
pub fn compare(old: &Descriptor, new: &Descriptor, same_contents: impl FnOnce(u64, u64) -> bool) -> Change {
    match (old, new) {
        (Descriptor::Nothing, _) | (_, Descriptor::Nothing) => Change::None,
        (Descriptor::Table(old), Descriptor::Table(new)) => {
            if old.next != new.next {
                Change::Break("another table")
            } else if old.hierarchical & !new.hierarchical == old.hierarchical ^ new.hierarchical {
                Change::None // hierarchical bits only ever forbid
            } else {
                Change::Tighten
            }
        }
        (Descriptor::Leaf(_), Descriptor::Table(_)) => Change::Break("a table in place of a block"),
        (Descriptor::Table(_), Descriptor::Leaf(_)) => Change::Break("a block in place of a table"),
        (Descriptor::Leaf(old), Descriptor::Leaf(new)) => compare_leaves(old, new, same_contents),
    }
}

fn compare_leaves(old: &Leaf, new: &Leaf, same_contents: impl FnOnce(u64, u64) -> bool) -> Change {
    if old.attr_index != new.attr_index || old.shareability != new.shareability {
        return Change::Break("another memory type or shareability");
    }
    if old.non_global != new.non_global {
        return Change::Break("global and non-global");
    }
    if old.contiguous != new.contiguous {
        return Change::Break("the contiguous bit");
    }
    if old.other != new.other {
        return Change::Break("NS, GP or nT");
    }
    // Two read-only translations to equal contents cannot be told apart.
    if old.output != new.output && (old.writable || new.writable || !same_contents(old.output, new.output)) {
        return Change::Break("another output address");
    }
    let lost = (old.writable && !new.writable)
        || (old.el0 && !new.el0)
        || (!old.pxn && new.pxn)
        || (!old.uxn && new.uxn)
        || old.output != new.output;
    if lost { Change::Tighten } else { Change::None }
}

/// An address with its digits in groups of four: `0x4000_0000`.
pub fn grouped(address: u64) -> String {
    let digits = format!("{address:x}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(4).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    format!("0x{}", groups.join("_"))
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("invalid"),
            Self::Table(table) => write!(f, "table at {}", grouped(table.next)),
            Self::Leaf(leaf) => {
                write!(f, "frame {}, ", grouped(leaf.output))?;
                f.write_str(if leaf.writable { "rw" } else { "ro" })?;
                if leaf.el0 {
                    f.write_str(", EL0")?;
                }
                if !leaf.non_global {
                    f.write_str(", global")?;
                }
                if leaf.contiguous {
                    f.write_str(", contiguous")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Geometry = Geometry { start_level: 0, va_bits: 48, hw_access_flag: false };

    fn never(_: u64, _: u64) -> bool {
        false
    }

    #[test]
    fn reserved_and_unaccessed_entries_are_nothing() {
        assert_eq!(Descriptor::decode(0x4000_0000 | 0x401, 0, &PLAIN), Descriptor::Nothing, "block at level 0");
        assert_eq!(Descriptor::decode(0x4000_0000 | 0x401, 3, &PLAIN), Descriptor::Nothing, "reserved at level 3");
        assert_eq!(Descriptor::decode(0x4000_0000 | 0x003, 3, &PLAIN), Descriptor::Nothing, "AF = 0");
        let ha = Geometry { hw_access_flag: true, ..PLAIN };
        assert!(Descriptor::decode(0x4000_0000 | 0x003, 3, &ha).is_cacheable(), "AF = 0 under TCR.HA");
    }

    #[test]
    fn ignored_bits_are_no_change() {
        let table = |bits| Descriptor::decode(bits, 2, &PLAIN);
        assert_eq!(table(0x4010_0003), table(0x4010_0003 | 1 << 55 | 1 << 3));
        let page = |bits| Descriptor::decode(bits, 3, &PLAIN);
        assert_eq!(page(0x4010_0403), page(0x4010_0403 | 0xf << 55));
    }

    #[test]
    fn changes_are_told_apart() {
        let page = |bits: u64| Descriptor::decode(bits | 0xc03, 3, &PLAIN); // AF, nG
        let (rw, ro) = (page(0x1000), page(0x1080));
        assert_eq!(compare(&rw, &ro, never), Change::Tighten);
        assert_eq!(compare(&ro, &rw, never), Change::None);
        assert!(matches!(compare(&rw, &page(0x2000), never), Change::Break(_)));
        assert!(matches!(compare(&ro, &page(0x2080), never), Change::Break(_)));
        assert_eq!(compare(&ro, &page(0x2080), |_, _| true), Change::Tighten);
        assert!(matches!(compare(&rw, &page(0x1004), never), Change::Break(_)), "memory type");
    }

    #[test]
    fn addresses_are_grouped() {
        assert_eq!(grouped(0), "0x0");
        assert_eq!(grouped(0x4000_0000), "0x4000_0000");
        assert_eq!(grouped(0x1_0000), "0x1_0000");
    }
}
