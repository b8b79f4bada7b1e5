//! reused: an unlinked table is put to another use while a walk cache may still point at it, or the frame of a stale leaf
//! becomes a table.
//!
//! The walker that follows the stale pointer reads whatever the page holds now. A value with bit 0 set would be taken for
//! an entry. Entries made invalid one by one are a teardown and no harm; a table that is wholly cleared, in a way that a
//! teardown would not, has been given to a new owner. A table that was linked at another place is judged when its first
//! valid entry is written: until then both places see the same.
//!
//! Through the stale leaf somebody may write what is a table now. For a leaf of the kernel's own this is advice: kernels free
//! such frames before a lazy flush, by design. The kernel's own are leaves that EL0 cannot use and that are global, or lie in
//! the upper half: a kernel that hides itself from EL0 (KPTI) has non-global ones there.

use crate::descriptor::Descriptor;
use crate::report::Severity;
use crate::residue::{ResidueId, Residues};
use crate::shadow::{Scrub, TablePage};

/// What a store to a slot of an unlinked table says of the table.
///
/// `wide`: the store covered more than this slot. The table's entry has not been updated yet.
pub fn is_reuse(table: &mut TablePage, index: usize, new: u64, wide: bool) -> bool {
    let old = table.entries.get(index).copied().unwrap_or(0);
    if new & 1 != 0 {
        return new != old;
    }
    if new != 0 {
        return false; // an allocator's link, for instance: no walker takes it for an entry
    }
    let entries = table.entries.len();
    let scrub = table.scrubbed.get_or_insert_with(|| Box::new(Scrub::new(entries)));
    scrub.note(index, wide || old & 1 == 0);
    scrub.is_cleared()
}

/// Leaf residues that lead into a table which has just been linked, each with how much it matters.
pub fn frame_becomes_table(residues: &Residues, table: u64, size: u64) -> Vec<(ResidueId, Severity)> {
    if residues.is_empty() {
        return Vec::new();
    }
    let leads = residues.leading_to(table, size).into_iter().filter_map(|id| {
        let what = &residues.get(id)?.what;
        let Descriptor::Leaf(leaf) = what.entry else { return None };
        let by_design = !leaf.el0 && (!leaf.non_global || what.start >> 63 != 0);
        Some((id, if by_design { Severity::Advice } else { Severity::Error }))
    });
    leads.collect()
}
