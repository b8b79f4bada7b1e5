//! live-change: a valid entry is changed in place where break-before-make is due.
//!
//! Between the store and the invalidation both translations may be cached, by different PEs or by one: the architecture
//! then allows either, a mixture, or a TLB conflict abort (Arm ARM D8.17.1). Changes of size and of the contiguous bit are
//! judged by the level of FEAT_BBM that all PEs have: [`compare`](crate::change::compare) knows.
//!
//! A memory attribute that is changed in MAIR, while translations that use it may be cached, is the same for all of them.

use crate::change::Change;
use crate::descriptor::{Descriptor, Leaf};
use crate::machine::PeSet;
use crate::residue::Tag;

/// Whether the change, which [`compare`](crate::change::compare) has judged, breaks the rule: only if somebody may hold the
/// old entry.
pub fn is_broken(change: Change, old: &Descriptor, holders: &[(Tag, PeSet)]) -> bool {
    matches!(change, Change::Break(_)) && old.is_cacheable() && !holders.is_empty()
}

/// The attributes of MAIR that differ between what is in effect and what was.
pub fn changed_attributes(before: u64, now: u64) -> impl Iterator<Item = usize> {
    (0..8).filter(move |index| before >> (8 * index) & 0xff != now >> (8 * index) & 0xff)
}

/// Whether an attribute is of memory that is outer shareable whatever the descriptor says: Device, Normal non-cacheable.
fn is_always_shared(attribute: u8) -> bool {
    attribute & 0xf0 == 0 || attribute == 0x44
}

/// Whether two leaves of stage 1 come to the same memory type and shareability by the MAIRs of all PEs that walk the tables (D8.6).
/// Tagged memory differs from untagged as by a permission.
pub fn same_memory(mut mairs: impl Iterator<Item = u64>, a: &Leaf, b: &Leaf) -> bool {
    let untagged = |attribute| if attribute == 0xf0 { 0xff } else { attribute };
    let same = |mair: u64| {
        let [one, other] = [a, b].map(|leaf| untagged((mair >> (8 * (leaf.attr_index & 7))) as u8));
        one == other && (a.shareability == b.shareability || is_always_shared(one))
    };
    let Some(first) = mairs.next() else { return false };
    // 0: not told yet.
    first != 0 && same(first) && mairs.all(|mair| mair != 0 && same(mair))
}

/// The same at stage 2, where the descriptor has the attribute itself: Device is 00xx, Normal non-cacheable 0101.
pub fn same_memory_at_stage_2(a: &Leaf, b: &Leaf) -> bool {
    a.attr_index == b.attr_index && (a.attr_index >> 2 == 0 || a.attr_index == 0b0101)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn at_stage_2_shareability_counts_for_normal_cacheable_memory_alone() {
        let geometry = Geometry { stage2: true, ..Geometry::stage1(12, 40).expect("a geometry") };
        let leaf = |attribute: u64, shareability: u64| match Descriptor::decode(
            0x403 | attribute << 2 | shareability << 8,
            3,
            &geometry,
        ) {
            Descriptor::Leaf(leaf) => leaf,
            other => panic!("no leaf: {other}"),
        };
        for (attribute, same) in [(0b0000, true), (0b0011, true), (0b0101, true), (0b0110, false), (0b1111, false)] {
            assert_eq!(same_memory_at_stage_2(&leaf(attribute, 0), &leaf(attribute, 3)), same, "{attribute:#06b}");
        }
        assert!(!same_memory_at_stage_2(&leaf(0b0000, 0), &leaf(0b0101, 0)), "another type");
    }
}
