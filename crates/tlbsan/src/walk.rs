//! Walks of tables in memory, for accesses: what an address translates to, by the tables alone.
//!
//! Nothing cached has a part in it, and no permission: an access that was performed was permitted.

use crate::descriptor::{Descriptor, Leaf};
use crate::machine::Root;

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// At a leaf: the output address of the input address.
    Leaf(u64),
    /// At an entry that translates nothing.
    Nothing,
    /// Where the walk cannot follow: outside memory, or outside the half.
    Lost,
}

impl Walk {
    /// The output address.
    pub fn output(self) -> Option<u64> {
        match self {
            Self::Leaf(pa) => Some(pa),
            _ => None,
        }
    }
}

/// Translates `va` through `root`. `load` gives the 8 bytes of an entry, by table and number.
pub fn walk(root: &Root, va: u64, load: impl Fn(u64, usize) -> Option<u64>) -> Walk {
    walk_to_leaf(root, va, load).0
}

/// The same with the level and the descriptor of the leaf.
pub fn walk_to_leaf(root: &Root, va: u64, load: impl Fn(u64, usize) -> Option<u64>) -> (Walk, Option<(i8, Leaf)>) {
    let Some(offset) = root.offset(va) else { return (Walk::Lost, None) };
    // An access finds the entry that has just got its access flag from hardware, whether or not TCR.HA says so.
    let geometry = crate::geometry::Geometry { hw_access_flag: true, ..root.geometry };
    let mut table = root.table;
    for level in geometry.start_level..=3 {
        let shift = geometry.shift(level);
        let index = (offset >> shift) as usize & (geometry.entries(level) - 1);
        let Some(bits) = load(table, index) else { return (Walk::Lost, None) };
        match Descriptor::decode(bits, level, &geometry) {
            Descriptor::Nothing => return (Walk::Nothing, None),
            Descriptor::Table(next) => table = next.next,
            Descriptor::Leaf(leaf) => {
                return (Walk::Leaf(leaf.output | offset & ((1 << shift) - 1)), Some((level, leaf)));
            }
        }
    }
    (Walk::Nothing, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, Space};
    use std::collections::HashMap;

    fn translate(page_shift: u8, va_bits: u8, half: u8, entries: &[(u64, u64)], va: u64) -> Walk {
        let geometry = Geometry::stage1(page_shift, va_bits).expect("a geometry");
        let root = Root { space: Space::El10(0), table: 0x1000_0000, half, geometry };
        let memory: HashMap<u64, u64> = entries.iter().copied().collect();
        walk(&root, va, |table, index| Some(memory.get(&(table + index as u64 * 8)).copied().unwrap_or(0)))
    }

    #[test]
    fn every_granule_in_both_halves() {
        let k4 = [
            (0x1000_0000 + 257 * 8, 0x1000_1003),
            (0x1000_1008, 0x1000_2003),
            (0x1000_2008, 0x1000_3003),
            (0x1000_3008, 0x0040_0000_5555_5403 | 3 << 8),
        ];
        assert_eq!(translate(12, 48, 0, &k4, 0x0000_8080_4020_1abc), Walk::Leaf(0x5555_5abc));
        assert_eq!(translate(12, 48, 1, &k4, 0xffff_8080_4020_1abc), Walk::Leaf(0x5555_5abc));
        assert_eq!(translate(12, 48, 0, &k4[..3], 0x0000_8080_4020_1abc), Walk::Nothing);
        assert_eq!(translate(12, 48, 0, &k4, 0xffff_8080_4020_1abc), Walk::Lost, "the other half");
        let k16 = [
            (0x1000_0000, 0x1000_4003),
            (0x1000_4000, 0x1000_8003),
            (0x1000_8008, 0x1000_c003),
            (0x1000_c008, 0x4000_4403),
        ];
        assert_eq!(translate(14, 48, 0, &k16, 0x200_7fff), Walk::Leaf(0x4000_7fff));
        let k64 = [(0x1000_01f8, 0x1001_0003), (0x1001_fff8, 0x1002_0003), (0x1002_fff8, 0x4003_0403)];
        assert_eq!(translate(16, 48, 1, &k64, 0xffff_ffff_ffff_fff0), Walk::Leaf(0x4003_fff0));
        let block = [(0x1000_0000, 0x1000_1003), (0x1000_1008, 0x8000_0401)];
        assert_eq!(translate(12, 48, 0, &block, 0x7654_3210), Walk::Leaf(0xb654_3210));
    }
}
