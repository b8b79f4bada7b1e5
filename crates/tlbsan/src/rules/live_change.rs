//! live-change: a valid entry is changed in place where break-before-make is due.
//!
//! Between the store and the invalidation both translations may be cached, by different PEs or by one: the architecture
//! then allows either, a mixture, or a TLB conflict abort (Arm ARM D8.17.1). Changes of size and of the contiguous bit are
//! judged by the level of FEAT_BBM that all PEs have: [`compare`](crate::change::compare) knows.
//!
//! A memory attribute that is changed in MAIR, while translations that use it may be cached, is the same for all of them.

use crate::change::Change;
use crate::descriptor::Descriptor;
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
