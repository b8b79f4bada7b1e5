//! remade: a slot, or the span it translates, gets a different valid translation while an older one may still be cached.
//!
//! The 2019 arm64 hang is this rule: a table T is unlinked, only leaves are invalidated, and another table T' is linked at
//! the same place. Some PE's walk cache still leads to T.
//!
//! Two translations that break-before-make allows side by side (the same, or differing in permissions alone, or in size
//! under FEAT_BBM) are no error: a kernel may clear an entry and put it back with fewer permissions before it invalidates.

use crate::change::{Change, Judge, agree, compare, permits_resizing};
use crate::descriptor::{Descriptor, Leaf};
use crate::residue::{Residue, ResidueId, Residues};
use crate::shadow::{Shadow, Span};

/// What a newly valid entry means for the open residues.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Residues that are errors now.
    pub broken: Vec<ResidueId>,
    /// Residues that the new entry agrees with: what is cached is right again.
    pub healed: Vec<ResidueId>,
}

/// What is looked at.
pub struct Tables<'a, J> {
    /// The tables.
    pub shadow: &'a Shadow,
    /// The open residues.
    pub residues: &'a Residues,
    /// Who compares.
    pub judge: &'a J,
}

impl<J: Judge> Tables<'_, J> {
    /// An entry at `level` for `span` has become valid as `new`, with what the tables above it forbid; it translates `1 << shift` bytes.
    pub fn newly_valid(&self, span: Span, level: i8, shift: u32, new: &Descriptor) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.residues.is_empty() {
            self.visit(span, level, shift, new, &mut outcome);
        }
        outcome
    }

    fn mine(&self, id: ResidueId, span: &Span) -> Option<&Residue> {
        self.residues.get(id).filter(|residue| residue.what.context == span.context)
    }

    fn visit(&self, span: Span, level: i8, shift: u32, new: &Descriptor, outcome: &mut Outcome) {
        for &id in self.residues.at(span.space, span.start, shift) {
            let Some(residue) = self.mine(id, &span) else { continue };
            match compare(&residue.what.entry, new, 1 << shift, self.judge) {
                // The same, or what is cached permits less: a spurious fault at most.
                Change::None => outcome.healed.push(id),
                Change::Break(_) => outcome.broken.push(id),
                _ => {}
            }
        }
        match new {
            Descriptor::Nothing => {}
            Descriptor::Table(table) => {
                // Everything that the table brings with it becomes valid as well.
                let Some(child) = self.shadow.table(table.next) else { return };
                let below = child.geometry.shift(child.level);
                if child.level != level + 1 {
                    return;
                }
                for index in 0..child.entries.len() {
                    let entry = child.descriptor(index).under(table.hierarchical);
                    if entry.is_cacheable() {
                        let start = span.start.wrapping_add((index as u64) << below);
                        self.visit(Span { start, ..span }, child.level, below, &entry, outcome);
                    }
                }
            }
            Descriptor::Leaf(leaf) => self.of_other_sizes(span, level, shift, leaf, outcome),
        }
    }

    /// A leaf has become valid: a larger one replaces whatever its span held in smaller pieces, a smaller one stands inside
    /// what a block translated.
    fn of_other_sizes(&self, span: Span, level: i8, shift: u32, new: &Leaf, outcome: &mut Outcome) {
        for id in self.residues.overlapping(span.space, span.start, 1 << shift) {
            let Some(residue) = self.mine(id, &span) else { continue };
            let offset = residue.what.start.wrapping_sub(span.start);
            let fits = match residue.what.entry {
                Descriptor::Leaf(old) if residue.what.level > level => {
                    permits_resizing(new, self.judge.bbm()) && agree(new, &old, offset, self.judge)
                }
                Descriptor::Leaf(old) if residue.what.level < level => {
                    permits_resizing(&old, self.judge.bbm()) && agree(&old, new, offset.wrapping_neg(), self.judge)
                }
                // A table that hangs in the walk cache below the block: its leaves are judged by themselves.
                Descriptor::Table(_) if residue.what.level > level => permits_resizing(new, self.judge.bbm()),
                _ => true,
            };
            if !fits {
                outcome.broken.push(id);
            }
        }
    }
}
