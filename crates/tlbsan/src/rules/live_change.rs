//! live-change: a valid entry is changed in place where break-before-make is due.
//!
//! Between the store and the invalidation both translations may be cached, by different PEs or by one: the architecture
//! then allows either, a mixture, or a TLB conflict abort (Arm ARM D8.17.1). The size and contiguity changes that FEAT_BBM
//! permits are judged as on a CPU without it.

use crate::descriptor::{Change, Descriptor};
use crate::machine::PeSet;
use crate::residue::Tag;

/// Whether the change, which [`compare`](crate::descriptor::compare) has judged, breaks the rule: only if somebody may hold
/// the old entry.
pub fn is_broken(change: Change, old: &Descriptor, holders: &[(Tag, PeSet)]) -> bool {
    matches!(change, Change::Break(_)) && old.is_cacheable() && !holders.is_empty()
}
