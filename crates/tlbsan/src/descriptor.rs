//! Descriptors of stage 1 and stage 2, as a walker reads them (Arm ARM D8.3).
//!
//! Decoding says what may be *cached* (R2): an entry that is invalid, reserved, or a leaf without access flag where
//! hardware does not set it, is all the same here. What a change means is told in [`change`](crate::change).

use crate::geometry::Geometry;
use std::fmt;

/// What a descriptor lets a TLB hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Descriptor {
    /// Nothing.
    Nothing,
    /// A table descriptor.
    Table(Table),
    /// A block or page descriptor.
    Leaf(Leaf),
}

/// A table descriptor: where the next level is, and the hierarchical attributes. Its other bits are ignored by hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Physical address of the next-level table.
    pub next: u64,
    /// Bits 63:59: NSTable, APTable, UXNTable, PXNTable. Each of them forbids.
    pub hierarchical: u8,
}

/// A block or page descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// Output address.
    pub output: u64,
    /// AttrIndx, an index into MAIR; at stage 2 MemAttr.
    pub attr_index: u8,
    /// SH; 0 where the register says it for all (TCR.DS).
    pub shareability: u8,
    /// `AP[2]` is 0, or DBM lets hardware make it so; at stage 2 `S2AP[1]`.
    pub writable: bool,
    /// `AP[1]`: EL0 may access; at stage 2 `S2AP[0]`: may be read.
    pub el0: bool,
    /// nG: tagged with the ASID.
    pub non_global: bool,
    /// Contiguous.
    pub contiguous: bool,
    /// PXN; at stage 2 what XN forbids EL1.
    pub pxn: bool,
    /// UXN; at stage 2 what XN forbids EL0: `XN[1]`.
    pub uxn: bool,
    /// NS: which space the output address is in.
    pub ns: bool,
    /// GP: a guarded page.
    pub gp: bool,
    /// nT: not to be cached in a way that conflicts with a change of size (FEAT_BBM).
    pub nt: bool,
}

impl Descriptor {
    /// What the descriptor `bits` at `level` lets a TLB hold.
    pub fn decode(bits: u64, level: i8, geometry: &Geometry) -> Self {
        let bit = |n: u32| bits >> n & 1 != 0;
        if !bit(0) {
            return Self::Nothing;
        }
        if bit(1) && level < 3 {
            let heeded = match (geometry.stage2, geometry.flat_attributes) {
                (true, _) => 0,
                // All but NSTable.
                (_, true) => 0b10000,
                _ => 0b11111,
            };
            let hierarchical = (bits >> 59) as u8 & heeded;
            return Self::Table(Table { next: address(bits, geometry, geometry.page()), hierarchical });
        }
        // A page has bit 1 set, a block has not.
        if bit(1) != (level == 3) || !geometry.has_leaves(level) {
            return Self::Nothing;
        }
        if !bit(10) && !geometry.hw_access_flag {
            return Self::Nothing;
        }
        let dirty_managed = bit(51) && geometry.hw_dirty;
        let stage2 = geometry.stage2;
        Self::Leaf(Leaf {
            output: address(bits, geometry, geometry.size(level)),
            attr_index: (bits >> 2 & if stage2 { 15 } else { 7 }) as u8,
            shareability: if geometry.wide { 0 } else { (bits >> 8 & 3) as u8 },
            writable: bit(7) == stage2 || dirty_managed,
            el0: bit(6),
            non_global: bit(11) && geometry.tagged && !stage2,
            contiguous: bit(52) && geometry.run(level) > 1,
            // XN[1:0] forbids EL1 alone by 0b01, both by 0b10, EL0 alone by 0b11 (FEAT_XNX).
            pxn: bit(53) != (stage2 && bit(54)),
            uxn: bit(54),
            ns: bit(5) && !stage2,
            gp: bit(50) && !stage2,
            nt: bit(16) && level < 3,
        })
    }

    /// Whether a TLB may hold it.
    #[inline]
    pub fn is_cacheable(&self) -> bool {
        *self != Self::Nothing
    }

    /// The next-level table, if it is a table descriptor.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        match self {
            Self::Table(table) => Some(table.next),
            _ => None,
        }
    }

    /// What it forbids for all that it leads to: the bits of [`Table::hierarchical`].
    #[inline]
    pub fn forbids(&self) -> u8 {
        match self {
            Self::Table(table) => table.hierarchical,
            _ => 0,
        }
    }

    /// What a TLB holds of it below table entries that forbid so much: their attributes are part of what is cached of all that they lead
    /// to. Of NSTable, which Non-secure state ignores, nothing is left in leaves.
    #[inline]
    #[must_use]
    pub fn under(self, forbidden: u8) -> Self {
        let forbids = |bit: u32| forbidden >> bit & 1 != 0;
        match self {
            Self::Nothing => Self::Nothing,
            Self::Table(table) => Self::Table(Table { hierarchical: table.hierarchical | forbidden, ..table }),
            Self::Leaf(leaf) => Self::Leaf(Leaf {
                writable: leaf.writable && !forbids(3),
                el0: leaf.el0 && !forbids(2),
                uxn: leaf.uxn || forbids(1),
                pxn: leaf.pxn || forbids(0),
                ..leaf
            }),
        }
    }

    /// Whether it is not tagged with an ASID.
    #[inline]
    pub fn is_global(&self) -> bool {
        matches!(self, Self::Leaf(leaf) if !leaf.non_global)
    }
}

/// The output or next-level address, a multiple of `size`.
#[inline]
fn address(bits: u64, geometry: &Geometry, size: u64) -> u64 {
    let low = bits & 0x0000_ffff_ffff_ffff & !(size - 1);
    match (geometry.page_shift, geometry.wide) {
        // 52 bits of address with the 64 KiB granule: the upper four are in bits 15:12.
        (16, _) => low | (bits >> 12 & 0xf) << 48,
        // FEAT_LPA2: bits 49:48 where they belong, 51:50 in the place of SH.
        (_, true) => low | bits & 0x0003_0000_0000_0000 | (bits >> 8 & 3) << 50,
        _ => low,
    }
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

    fn plain(page_shift: u8, va_bits: u8) -> Geometry {
        Geometry::stage1(page_shift, va_bits).expect("a geometry")
    }

    fn output(d: Descriptor) -> Option<u64> {
        match d {
            Descriptor::Leaf(leaf) => Some(leaf.output),
            Descriptor::Table(table) => Some(table.next),
            Descriptor::Nothing => None,
        }
    }

    #[test]
    fn what_is_cacheable_follows_level_and_access_flag() {
        let g = plain(12, 48);
        let leaf = |bits, level| Descriptor::decode(bits, level, &g).is_cacheable();
        assert!(leaf(0x4000_0000 | 0x403, 3) && leaf(0x4000_0000 | 0x401, 2) && leaf(0x4000_0000 | 0x401, 1));
        assert!(!leaf(0x4000_0000 | 0x401, 3), "reserved at level 3");
        assert!(!leaf(0x4000_0000 | 0x401, 0), "no blocks at level 0");
        assert!(!leaf(0x4000_0000 | 0x402, 3) && !leaf(0x4000_0000 | 0x003, 3), "invalid, AF = 0");
        let ha = Geometry { hw_access_flag: true, ..g };
        assert!(Descriptor::decode(0x4000_0000 | 0x003, 3, &ha).is_cacheable(), "AF = 0 under TCR.HA");
        assert!(matches!(Descriptor::decode(0x4010_0003, 2, &g), Descriptor::Table(Table { next: 0x4010_0000, .. })));
    }

    #[test]
    fn ignored_bits_are_no_change() {
        let g = plain(12, 48);
        let table = |bits| Descriptor::decode(bits, 2, &g);
        assert_eq!(table(0x4010_0003), table(0x4010_0003 | 1 << 55 | 1 << 3));
        let page = |bits| Descriptor::decode(bits, 3, &g);
        assert_eq!(page(0x4010_0403), page(0x4010_0403 | 0xf << 55));
    }

    #[test]
    fn addresses_of_every_granule() {
        assert_eq!(output(Descriptor::decode(0x4000_2401, 2, &plain(16, 48))), Some(0x0002_0000_4000_0000));
        assert_eq!(output(Descriptor::decode(0x4002_a403, 3, &plain(16, 48))), Some(0x000a_0000_4002_0000));
        assert_eq!(output(Descriptor::decode(0x4000_4403, 3, &plain(14, 47))), Some(0x4000_4000));
        let wide = Geometry { wide: true, ..plain(12, 52) };
        assert_eq!(output(Descriptor::decode(0x0003_0000_4000_1703, 3, &wide)), Some(0x000f_0000_4000_1000));
        assert_eq!(output(Descriptor::decode(0x0003_0000_0000_0703, -1, &wide)), Some(0x000f_0000_0000_0000));
        assert!(Descriptor::decode(0x401, 0, &wide).is_cacheable(), "blocks of 512 GiB");
    }

    #[test]
    fn dirty_state_counts_where_hardware_manages_it() {
        let read_only_dbm = 0x4000_0000 | 0x483 | 1 << 51;
        let writable =
            |g: &Geometry| matches!(Descriptor::decode(read_only_dbm, 3, g), Descriptor::Leaf(l) if l.writable);
        let g = plain(12, 48);
        assert!(!writable(&g), "a software bit");
        assert!(writable(&Geometry { hw_dirty: true, ..g }));
    }

    #[test]
    fn stage_2_has_its_own_permissions() {
        let g = Geometry { stage2: true, ..plain(12, 40) };
        let leaf = |bits: u64| match Descriptor::decode(bits | 0x403, 3, &g) {
            Descriptor::Leaf(leaf) => (leaf.writable, leaf.el0, leaf.attr_index),
            _ => panic!("no leaf"),
        };
        assert_eq!(leaf(0xf << 2 | 3 << 6), (true, true, 15));
        assert_eq!(leaf(1 << 6), (false, true, 0));
    }

    #[test]
    fn addresses_are_grouped() {
        assert_eq!(grouped(0), "0x0");
        assert_eq!(grouped(0x4000_0000), "0x4000_0000");
        assert_eq!(grouped(0x1_0000), "0x1_0000");
    }
}
