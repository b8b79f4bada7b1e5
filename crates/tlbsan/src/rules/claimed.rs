//! claimed: the kernel says that nothing stale is left, and something is.
//!
//! Only a hint can say so: a range is declared flushed, or a frame is given back to its allocator. Without hints the reuse
//! of a plain data frame cannot be seen.

use crate::descriptor::{Descriptor, PAGE};
use crate::residue::{ResidueId, Residues};

/// Residues that lead to a frame which is given back.
pub fn frame_freed(residues: &Residues, pa: u64, size: u64) -> Vec<ResidueId> {
    overlapping(residues, |residue| {
        let (first, bytes) = match residue.what.entry {
            Descriptor::Nothing => return false,
            Descriptor::Table(table) => (table.next, PAGE),
            Descriptor::Leaf(leaf) => (leaf.output, residue.size()),
        };
        first < pa.saturating_add(size) && pa < first.saturating_add(bytes)
    })
}

/// Residues in a range that is declared flushed for an ASID.
pub fn flush_claimed(residues: &Residues, start: u64, size: u64, asid: u16) -> Vec<ResidueId> {
    overlapping(residues, |residue| {
        let (first, bytes) = (residue.what.start, residue.size());
        first < start.saturating_add(size) && start < first.saturating_add(bytes) && residue.concerns(asid)
    })
}

fn overlapping(residues: &Residues, test: impl Fn(&crate::residue::Residue) -> bool) -> Vec<ResidueId> {
    let mut ids: Vec<ResidueId> = residues.iter().filter(|(_, residue)| test(residue)).map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids
}
