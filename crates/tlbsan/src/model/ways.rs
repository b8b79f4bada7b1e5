//! The ways through the tables that a story shows: what was walked to an entry before it went, and what is walked now.
//!
//! Looked up when a verdict is told, from the shadow and the residues; nothing is remembered for it.

use super::Model;
use super::tables::Slot;
use super::verdicts::describe;
use crate::descriptor::Descriptor;
use crate::report::{self, Step, Ways};
use crate::residue::Residue;
use crate::shadow::{ContextId, Parent};

/// Levels of a walk, concatenated roots included.
const MAX_STEPS: usize = 6;

impl Slot {
    pub(super) fn step(self, entry: report::Descriptor) -> Step {
        Step { level: self.level, table: self.table, index: self.index, entry }
    }
}

impl Model {
    /// Both ways to what `residue` translates.
    pub(super) fn ways_of(&self, residue: &Residue) -> Ways {
        let what = &residue.what;
        let mut before = self.way_to(what.context, what.start, what.table);
        before.push(step_of(residue));
        Ways { before, after: self.way_down(what.context, what.start, what.level) }
    }

    /// The entries that led to `table` for the address: those that do still, or else stale ones. From the root.
    pub(super) fn way_to(&self, context: ContextId, va: u64, table: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let (mut base, root) = (table, self.shadow.context(context).map(|context| context.root));
        while let Some(table) = self.shadow.table(base).filter(|_| steps.len() < MAX_STEPS) {
            let above = table.parents().iter().find_map(|parent| {
                let Parent::Slot { table: above, index } = *parent else { return None };
                let page = self.shadow.table(above).filter(|page| page.level < table.level)?;
                let offset = root.as_ref().and_then(|root| root.offset(va)).unwrap_or(va);
                let here = (offset >> page.geometry.shift(page.level)) as usize % page.entries.len().max(1);
                let entry = describe(*page.entries.get(index)?, page.descriptor(index));
                (here == index).then_some(Step { level: page.level, table: above, index, entry })
            });
            let stale = || {
                let residues = table.leading_here().into_iter().filter_map(|id| self.residues.get(id));
                let mut leading = residues.filter(|r| r.what.context == context && r.what.level < table.level);
                leading.find(|residue| residue.overlaps(va, 1)).map(step_of)
            };
            let Some(step) = above.or_else(stale) else { break };
            base = step.table;
            steps.push(step);
        }
        steps.reverse();
        steps
    }

    /// What a walk of the address finds now, down to `level`.
    pub(super) fn way_down(&self, context: ContextId, va: u64, level: i8) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(root) = self.shadow.context(context).map(|context| context.root) else { return steps };
        let Some(offset) = root.offset(va) else { return steps };
        let mut next = Some(root.table);
        for level in root.geometry.start_level..=level {
            let Some(base) = next.take() else { break };
            let Some(table) = self.shadow.table(base).filter(|table| table.level == level) else { break };
            let index = (offset >> root.geometry.shift(level)) as usize & (root.geometry.entries(level) - 1);
            let (bits, entry) = (table.entries.get(index).copied().unwrap_or(0), table.descriptor(index));
            if let Descriptor::Table(table) = entry {
                next = Some(table.next);
            }
            steps.push(Step { level, table: base, index, entry: describe(bits, entry) });
        }
        steps
    }
}

fn step_of(residue: &Residue) -> Step {
    let what = &residue.what;
    Step { level: what.level, table: what.table, index: what.index, entry: describe(what.bits, what.entry) }
}
