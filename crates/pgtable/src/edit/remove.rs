//! Unmapping, and the tables that become empty.
//!
//! ```text
//!   covered in part    leaves are cleared one by one, into the gather's batch; runs as a whole
//!   covered whole      unlinked with one store, and harvested after the flush
//! ```
//!
//! What the gather cannot hold is done in steps, each of which is whole: cleared, visible, in the record; flushed and given back with
//! nothing taken.

use crate::descriptor::{Descriptor, Kind};
use crate::edit::{Edit, Touched, check_range};
use crate::error::Error;
use crate::exclusive::{Hold, Intent, release, take, take_root};
use crate::gather::Gather;
use crate::geometry::Geometry;
use crate::memory::{FrameAllocator, TableMemory, entry};
use crate::space::AddressSpace;
use crate::sync::atomic::Ordering;
use crate::walk::{Next, Pages, Path, Visit, Visitor, walk};
use tlbi::{Issue, Level, PhysAddr, Pinned, VaRange, VirtAddr};

/// Entries of one level that a step covers at least: no run is longer, so none is cut.
const STEP: u64 = 128;

impl<'c, M, A, I, P, G> Edit<'c, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    /// Unmaps `range`, every page of which is mapped, and frees the tables that become empty. Blocks and runs of which it covers
    /// only a part are split first.
    ///
    /// Beyond what a gather holds (64 leaves that are cleared one by one, 32 tables) it works in several steps. If another core
    /// unmaps a part of the rest meanwhile, the pages of that part are released by that core alone.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; a page in it that is not mapped; no frames for the tables of a
    /// split; [`Error::Busy`].
    pub fn unmap(&mut self, range: VaRange) -> Result<(), Error> {
        check_range::<G>(range)?;
        let space = self.space;
        let (mut hold, mut reserve) = self.prepare(range, Intent::Unlink, || {
            let mut survey = Survey { hole: None };
            let _ = walk::<M, G, _>(&space.memory, space.root, range, &mut survey);
            match survey.hole {
                Some(at) => Err(Error::NotMapped { range, at }),
                None => Ok(self.tables_to_cut(range, &|_| true)),
            }
        })?;
        self.ask(range);
        self.cut(&mut hold, &mut reserve, range, &|_| true);
        self.remove(hold, range, Intent::Unlink);
        self.prune(range.start());
        self.prune(range.last());
        Ok(())
    }

    /// Unmaps whatever is mapped in `range`, leaving the tables in place (Linux: `zap_page_range`, MADV_DONTNEED). Blocks and runs
    /// of which it covers only a part are split first.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; no frames for the tables of a split; [`Error::Busy`].
    pub fn zap(&mut self, range: VaRange) -> Result<(), Error> {
        check_range::<G>(range)?;
        let (mut hold, mut reserve) =
            self.prepare(range, Intent::Change, || Ok(self.tables_to_cut(range, &|_| true)))?;
        self.ask(range);
        self.cut(&mut hold, &mut reserve, range, &|_| true);
        self.remove(hold, range, Intent::Change);
        Ok(())
    }

    /// Removes what is there, a gather full at a time; frames are given back between, nothing taken. Who must not wait keeps what it
    /// has, for it might be waiting for the code that it has interrupted.
    fn remove(&mut self, hold: Hold<'c, M, G>, range: VaRange, intent: Intent) {
        let space = self.space;
        let mut hold = Some(hold);
        let mut step = range;
        // Level of the table whose span bounds the steps, once there are several.
        let mut bound = G::ROOT;
        loop {
            let mut remove = Remove {
                gather: &mut self.gather,
                intent,
                last: step.last(),
                stopped: G::ROOT,
                cleared: Touched::default(),
            };
            let full = walk::<M, G, _>(&space.memory, space.root, step, &mut remove).err();
            let level = remove.stopped;
            if let Some(stale) = remove.cleared.stale() {
                self.gather.note(stale);
            }
            self.settle();
            if self.patient {
                hold = None;
            }
            let (at, last) = match full {
                Some(at) => {
                    // Its own entries, which the record describes. What it owes to others is for the end.
                    self.flush();
                    bound = level;
                    (at, at.bits() | (STEP * G::size(level) - 1))
                }
                None if step.last() >= range.last() => return,
                // Easier going: up to the end of the table, then of the one above it.
                None => {
                    bound = bound.above().filter(|above| *above >= G::ROOT).unwrap_or(G::ROOT);
                    let at = step.last().bits() + 1;
                    let span = bound.above().map_or(u64::MAX, |above| G::size(above) - 1);
                    (VirtAddr::new(at), at | span)
                }
            };
            let Some(next) = up_to(at, last, range) else { return };
            step = next;
            loop {
                if self.patient {
                    // Nothing is refused any more: what it waits for ends.
                    hold = Hold::take(space, step, intent, true).ok();
                }
                let Some(longer) = self.uncut(step, range) else { break };
                hold = hold.filter(|_| !self.patient);
                step = longer;
            }
        }
    }

    /// The step made longer, if it would cut a block or run in two. The end of the whole range does not: that has been seen to.
    fn uncut(&self, step: VaRange, range: VaRange) -> Option<VaRange> {
        let path = Path::<G>::new(&self.space.memory, self.space.root, step.last());
        let (_, descriptor) = path.last();
        let size = match (descriptor.kind::<G>(path.level()), descriptor.is_contiguous()) {
            (Kind::Leaf, true) => G::run_size(path.level()),
            (Kind::Leaf, false) => G::size(path.level()),
            _ => return None,
        };
        up_to(step.start(), step.last().bits() | (size - 1), range).filter(|longer| *longer != step)
    }

    /// Frees the tables on the way to `va` that are empty. Best effort: a table that somebody is using stays linked; nothing is lost,
    /// and the next unmap beneath it or the end of the space frees it.
    pub(crate) fn prune(&mut self, va: VirtAddr) {
        let space = self.space;
        loop {
            if !self.gather.has_room_for_tree() {
                self.flush();
            }
            let _reader = space.grace.enter();
            let path = Path::<G>::new(&space.memory, space.root, va);
            let Some(above) = path.level().above() else { return };
            let Some((slot, descriptor)) = path.at(above) else { return };
            let table = descriptor.next::<G>();
            if !is_empty::<M, G>(&space.memory, table, path.level()) || !take_above(space, &path, above) {
                return;
            }
            // Taken means linked, and what is taken stays as it is.
            let taken = take(&space.memory, slot, descriptor);
            let unlinked = taken && is_empty::<M, G>(&space.memory, table, path.level());
            if unlinked {
                space.memory.store(slot, Descriptor::INVALID.bits());
                if let Ok(page) = VaRange::new(va.align_down(G::PAGE), G::PAGE) {
                    self.gather.tree(page, above, table, above);
                }
                self.settle();
            } else if taken {
                release(&space.memory, slot, descriptor);
            }
            release_above(space, &path, above);
            if !unlinked {
                return;
            }
        }
    }
}

/// From `start` to `last`, or to the end of `range`.
fn up_to(start: VirtAddr, last: u64, range: VaRange) -> Option<VaRange> {
    VaRange::new(start, range.last().bits().min(last) - start.bits() + 1).ok()
}

/// Takes the table in which the entry at `level` on the path stands.
fn take_above<M: TableMemory, A, G: Geometry>(space: &AddressSpace<M, A, G>, path: &Path<G>, level: Level) -> bool {
    match level.above().and_then(|above| path.at(above)) {
        Some((slot, descriptor)) => take(&space.memory, slot, descriptor),
        None => take_root(&space.root_taken),
    }
}

fn release_above<M: TableMemory, A, G: Geometry>(space: &AddressSpace<M, A, G>, path: &Path<G>, level: Level) {
    match level.above().and_then(|above| path.at(above)) {
        Some((slot, descriptor)) => release(&space.memory, slot, descriptor),
        None => space.root_taken.store(false, Ordering::Release),
    }
}

/// Whether every entry of a table is invalid.
fn is_empty<M: TableMemory, G: Geometry>(memory: &M, table: PhysAddr, level: Level) -> bool {
    (0..G::entries(level)).all(|index| !Descriptor::from_bits(memory.load(entry(table, index))).is_valid())
}

/// Refuses a range with a hole.
struct Survey {
    hole: Option<VirtAddr>,
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Survey {
    #[inline(always)]
    fn pages(&mut self, at: &Pages<'_, M, G>) -> Next {
        // All of them at once: a hole is looked for only if there is one.
        if at.all_leaves() { Next::Skip } else { Next::Continue }
    }

    #[inline(always)]
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if at.kind() == Kind::Leaf {
            return Next::Continue;
        }
        self.hole = Some(at.start());
        Next::Stop
    }
}

/// Removes leaves and, where the intent is so, tables that are covered whole.
struct Remove<'g, G> {
    gather: &'g mut Gather<G>,
    intent: Intent,
    /// Where the walk ends.
    last: VirtAddr,
    /// The level at which the gather was full.
    stopped: Level,
    /// Where leaves were cleared.
    cleared: Touched,
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Remove<'_, G> {
    #[inline(always)]
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if at.kind() != Kind::Leaf {
            return Next::Continue;
        }
        if !self.gather.has_room() {
            self.stopped = at.level();
            return Next::Stop;
        }
        let run = at.start().bits() | (G::run_size(at.level()) - 1);
        if at.descriptor().is_contiguous() && at.start().is_aligned(G::run_size(at.level())) && run <= self.last.bits()
        {
            clear_run(at, self.gather);
            self.cleared.add(at.start().bits(), run, at.level());
        } else {
            let old = at.replace(|_| Descriptor::INVALID);
            self.gather.leaves(at.span_start(), at.level(), old, 1);
            self.cleared.add(at.start().bits(), at.last().bits(), at.level());
        }
        Next::Skip
    }

    fn table_pre(&mut self, at: &Visit<'_, M, G>) -> Next {
        if self.intent != Intent::Unlink || !at.is_whole() {
            return Next::Continue;
        }
        if !self.gather.has_room_for_tree() {
            self.stopped = at.level();
            return Next::Stop;
        }
        at.set(Descriptor::INVALID);
        self.gather.tree(at.part(), at.level(), at.descriptor().next::<G>(), Level::L3);
        Next::Skip
    }
}

/// Clears a contiguous run, of which the entry visited is the first. Hardware keeps the state of a run in any of its members.
#[inline(never)]
fn clear_run<M: TableMemory, G: Geometry>(at: &Visit<'_, M, G>, gather: &mut Gather<G>) {
    let mut merged = at.replace(|_| Descriptor::INVALID);
    for n in 1..G::run(at.level()) as usize {
        merged = merged.merged(at.sibling(n).replace(|_| Descriptor::INVALID));
    }
    gather.leaves(at.span_start(), at.level(), merged, G::run(at.level()));
}
