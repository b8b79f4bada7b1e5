//! The pending record of a space: who has a change open, and what is removed and not yet flushed.
//!
//! Raised before the lock is released under which the first entry changed, lowered under the lock after the flush has
//! completed. There is no operation that resets it. Whoever sees an entry cleared therefore either sees the record raised,
//! or the flush of that entry is complete.

use crate::gather::Stale;
use tlbi::{Depth, Level, VaRange};

/// What a change does at its end when another change is open, for the other may have cleared what it found cleared.
///
/// All four are right; they differ in what they cost. docs/remedies.md has the proofs and the measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// a: invalidates everything it was asked to remove, found or not, at every level, tables included.
    WholeRange,
    /// b: invalidates the whole address space. What arm64 Linux does.
    WholeSpace,
    /// c: invalidates everything it was asked to remove, as deep and in steps as small as any open change has gone. Without range
    /// operations the whole address space, if that is more than 64 steps.
    #[default]
    Counters,
    /// d: invalidates what it removed itself, then waits until every change has flushed that was open then.
    ///
    /// Waiting needs another core to make progress: not for changes that are nested in one another on one core, nor where
    /// a change is interrupted and the interrupt changes the same space.
    Wait,
}

/// The changes of a space, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// How many have begun, ever.
    pub begun: u64,
    /// How many of them are open: begun, and not flushed yet.
    pub open: usize,
}

/// Without range operations: steps above which [`Remedy::Counters`] gives up and invalidates the whole address space. So many
/// operations reach as many entries as a PE loses that has to walk for its hot pages again.
pub(crate) const STRIDES_IN_COMPANY: u64 = 64;

/// Changes whose tickets are kept one by one; later ones are only counted.
const TICKETS: usize = 64;

/// What is under way in a space.
#[derive(Debug)]
pub(crate) struct Record {
    /// Changes that have begun and whose flush has not completed.
    open: usize,
    /// Changes among them that have removed something.
    removers: usize,
    /// Everything that these have removed, unlinked tables with all that they translated.
    removed: Option<VaRange>,
    /// Changes among them that have cleared an entry at each level, and that have unlinked a table.
    cleared: [usize; 4],
    freed_tables: usize,
    /// Tickets of open changes, in no order; and how many changes had no room.
    tickets: [Option<u64>; TICKETS],
    unticketed: usize,
    next_ticket: u64,
}

/// What one change has raised.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    ticket: Option<u64>,
    removed: bool,
    cleared: [bool; 4],
    freed_tables: bool,
}

impl Record {
    pub(crate) const fn new() -> Self {
        Self {
            open: 0,
            removers: 0,
            removed: None,
            cleared: [0; 4],
            freed_tables: 0,
            tickets: [None; TICKETS],
            unticketed: 0,
            next_ticket: 0,
        }
    }

    /// A change begins.
    pub(crate) fn open(&mut self) -> Share {
        self.open += 1;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let ticket = match self.tickets.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => {
                *slot = Some(ticket);
                Some(ticket)
            }
            None => {
                self.unticketed += 1;
                None
            }
        };
        Share { ticket, ..Share::default() }
    }

    /// A change has removed `stale`; the lock under which it did so is still held.
    pub(crate) fn raise(&mut self, share: &mut Share, stale: &Stale) {
        if !core::mem::replace(&mut share.removed, true) {
            self.removers += 1;
        }
        self.removed = Some(match self.removed {
            // A space lies in one half, so there is a union.
            Some(so_far) => so_far.union(stale.span).unwrap_or(so_far),
            None => stale.span,
        });
        let level = stale.stride.number().clamp(0, 3) as usize;
        if !core::mem::replace(&mut share.cleared[level], true) {
            self.cleared[level] += 1;
        }
        if stale.depth == Depth::Full && !core::mem::replace(&mut share.freed_tables, true) {
            self.freed_tables += 1;
        }
    }

    /// What a change removed so far has been flushed.
    pub(crate) fn lower(&mut self, share: &mut Share) {
        let ticket = share.ticket;
        let raised = core::mem::take(share);
        share.ticket = ticket;
        self.removers = self.removers.saturating_sub(usize::from(raised.removed));
        for (count, raised) in self.cleared.iter_mut().zip(raised.cleared) {
            *count = count.saturating_sub(usize::from(raised));
        }
        self.freed_tables = self.freed_tables.saturating_sub(usize::from(raised.freed_tables));
        if self.removers == 0 {
            self.removed = None;
        }
    }

    /// A change ends; what it removed has been flushed. Returns the ticket that the next change would get: every change that
    /// is open now has a smaller one.
    pub(crate) fn close(&mut self, share: &mut Share) -> u64 {
        self.lower(share);
        self.open = self.open.saturating_sub(1);
        match share.ticket {
            Some(ticket) => {
                if let Some(slot) = self.tickets.iter_mut().find(|slot| **slot == Some(ticket)) {
                    *slot = None;
                }
            }
            None => self.unticketed = self.unticketed.saturating_sub(1),
        }
        self.next_ticket
    }

    /// Whether every change with a smaller ticket has ended.
    pub(crate) fn is_over(&self, ticket: u64) -> bool {
        self.unticketed == 0 && self.tickets.iter().flatten().all(|open| *open >= ticket)
    }

    /// Changes so far, and how many of them are open.
    pub(crate) fn census(&self) -> Census {
        Census { begun: self.next_ticket, open: self.open }
    }

    /// Whether another change than the caller's is open.
    pub(crate) fn is_nested(&self) -> bool {
        self.open > 1
    }

    /// Whether something in `range` may be removed and not yet flushed.
    pub(crate) fn is_pending(&self, range: VaRange) -> bool {
        self.removed.is_some_and(|removed| removed.overlaps(range))
    }

    /// Whether nobody but the owner of `share` has removed anything.
    pub(crate) fn is_sole_remover(&self, share: &Share) -> bool {
        share.removed && self.removers == 1
    }

    /// How deep, and in steps of which level, the open changes have gone; `None`: none has removed anything.
    pub(crate) fn reach(&self) -> Option<(Level, Depth)> {
        let smallest = (0..4).rev().find(|level| self.cleared[*level] > 0)?;
        let depth = if self.freed_tables > 0 { Depth::Full } else { Depth::Leaf };
        Some((Level::from_number(smallest as i8)?, depth))
    }
}
