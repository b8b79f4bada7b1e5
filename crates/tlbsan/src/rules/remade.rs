//! remade: a slot, or the span it translates, gets a different valid translation while an older one may still be cached.
//!
//! The 2019 arm64 hang is this rule: a table T is unlinked, only leaves are invalidated, and another table T' is linked at
//! the same place. Some PE's walk cache still leads to T.
//!
//! Two translations that break-before-make allows side by side (the same, or differing in permissions alone) are no error:
//! a kernel may clear an entry and put it back with fewer permissions before it invalidates.

use crate::descriptor::{Change, Descriptor, compare, level_size};
use crate::residue::{ResidueId, Residues};
use crate::shadow::{Shadow, Span};

/// What a newly valid entry means for the open residues.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Residues that are errors now.
    pub broken: Vec<ResidueId>,
    /// Residues that the new entry agrees with: what is cached is right again.
    pub healed: Vec<ResidueId>,
}

/// An entry at `level` for `span` has become valid as `new`.
pub fn newly_valid(
    shadow: &Shadow,
    residues: &Residues,
    span: Span,
    level: i8,
    new: &Descriptor,
    same_contents: &mut dyn FnMut(u64, u64) -> bool,
) -> Outcome {
    let mut outcome = Outcome::default();
    if !residues.is_empty() {
        visit(shadow, residues, span, level, new, same_contents, &mut outcome);
    }
    outcome
}

fn visit(
    shadow: &Shadow,
    residues: &Residues,
    span: Span,
    level: i8,
    new: &Descriptor,
    same_contents: &mut dyn FnMut(u64, u64) -> bool,
    outcome: &mut Outcome,
) {
    let mine = |id: &ResidueId| residues.get(*id).filter(|r| r.what.context == span.context);
    for id in residues.at(span.start, level) {
        let Some(residue) = mine(id) else { continue };
        if residue.what.entry == *new {
            outcome.healed.push(*id);
        } else if let Change::Break(_) = compare(&residue.what.entry, new, &mut *same_contents) {
            outcome.broken.push(*id);
        }
    }
    match new {
        Descriptor::Nothing => {}
        Descriptor::Table(table) => {
            // Everything that the table brings with it becomes valid as well.
            let Some(child) = shadow.page(table.next) else { return };
            let (below, size) = (level + 1, level_size(level + 1));
            if child.level != below || residues.within(span.start, level_size(level)).next().is_none() {
                return;
            }
            for index in 0..child.entries.len() {
                let entry = child.descriptor(index);
                if entry.is_cacheable() {
                    let start = span.start.wrapping_add(index as u64 * size);
                    visit(shadow, residues, Span { start, ..span }, below, &entry, same_contents, outcome);
                }
            }
        }
        Descriptor::Leaf(_) => {
            // A block replaces whatever its span held in smaller pieces.
            for id in residues.within(span.start, level_size(level)) {
                if mine(&id).is_some_and(|residue| residue.what.level > level) {
                    outcome.broken.push(id);
                }
            }
            // A smaller leaf inside what a block translated.
            for above in (0..level).rev() {
                let start = span.start & !(level_size(above) - 1);
                for id in residues.at(start, above) {
                    if mine(id).is_some_and(|residue| !residue.is_table()) {
                        outcome.broken.push(*id);
                    }
                }
            }
        }
    }
}
