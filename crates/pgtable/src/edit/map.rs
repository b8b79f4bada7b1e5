//! Mapping: the largest blocks and contiguous runs that fit, in tables that are complete before they are linked.

use crate::attributes::{Attributes, Hierarchical};
use crate::descriptor::{Descriptor, Kind};
use crate::edit::{Edit, check_frames, check_range};
use crate::error::Error;
use crate::exclusive::Intent;
#[cfg(feature = "fault-injection")]
use crate::fault::Fault;
use crate::geometry::Geometry;
use crate::memory::{FrameAllocator, Link, TableMemory, entry};
use crate::walk::{Next, Visit, Visitor, walk};
use tlbi::{Issue, Level, PhysAddr, Pinned, VaRange, VirtAddr};

impl<M, A, I, P, G> Edit<'_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    /// Maps `range` to the frames from `frame` on, with the largest blocks and contiguous runs that fit.
    ///
    /// What was unmapped there and may still be cached is flushed first, whoever unmapped it: two translations of one
    /// address are never cacheable at once.
    ///
    /// # Errors
    /// A range or frame that is not page-aligned, outside the space or the CPU's physical addresses; writable and executable at
    /// once; a page in the range that is mapped already; no frames for tables; [`Error::Busy`].
    pub fn map(&mut self, range: VaRange, frame: PhysAddr, attributes: Attributes) -> Result<(), Error> {
        self.map_leaves(range, frame, attributes, G::ROOT, true)
    }

    /// [`map`](Self::map) with single pages: for what will be changed page by page.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_pages(&mut self, range: VaRange, frame: PhysAddr, attributes: Attributes) -> Result<(), Error> {
        self.map_leaves(range, frame, attributes, Level::L3, false)
    }

    fn map_leaves(
        &mut self,
        range: VaRange,
        frame: PhysAddr,
        attributes: Attributes,
        largest: Level,
        runs: bool,
    ) -> Result<(), Error> {
        check_range::<G>(range)?;
        check_frames::<G>(frame, range.size(), self.space.pa_bits)?;
        if attributes.is_write_execute() && !self.space.write_execute {
            return Err(Error::WriteExecute { range });
        }
        let space = self.space;
        let plan = Plan::<G>::new(range, frame, attributes, space.asid().is_none(), largest, runs);
        let (hold, mut reserve) = self.prepare(range, Intent::Change, || {
            let mut survey = Survey { plan: &plan, tables: 0, mapped: None };
            let _ = walk::<M, G, _>(&space.memory, space.root, range, &mut survey);
            match survey.mapped {
                Some(at) => Err(Error::AlreadyMapped { range, at }),
                None => Ok(survey.tables),
            }
        })?;
        self.flush_pending(range);
        #[cfg(feature = "fault-injection")]
        if space.injected(Fault::TableLinkedBeforeZeroed) {
            reserve.link_early = true;
        }
        let mut map = Map { plan: &plan, tables: &mut reserve, run_to: 0 };
        let _ = walk::<M, G, _>(&space.memory, space.root, range, &mut map);
        self.published = false;
        drop(hold);
        Ok(())
    }
}

/// Frames for tables, allocated before anything is changed.
pub(crate) struct Reserve<'s, M: TableMemory, A: FrameAllocator> {
    memory: &'s M,
    frames: &'s A,
    first: Link,
    len: usize,
    #[cfg(feature = "fault-injection")]
    link_early: bool,
}

impl<'s, M: TableMemory, A: FrameAllocator> Reserve<'s, M, A> {
    pub(crate) fn new(memory: &'s M, frames: &'s A) -> Self {
        Self {
            memory,
            frames,
            first: Link::END,
            len: 0,
            #[cfg(feature = "fault-injection")]
            link_early: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Allocates until there are `tables`. On failure dropping the reserve gives back what it has.
    pub(crate) fn grow(&mut self, tables: usize) -> Result<(), Error> {
        while self.len < tables {
            let frame = self.frames.allocate().ok_or(Error::OutOfFrames { tables })?;
            self.memory.store(frame, self.first.0);
            self.first = Link::to(frame);
            self.len += 1;
        }
        Ok(())
    }

    /// A frame with a link still in it.
    pub(crate) fn pop(&mut self) -> Option<PhysAddr> {
        let (frame, rest) = self.first.follow(self.memory)?;
        self.first = rest;
        self.len -= 1;
        Some(frame)
    }
}

impl<M: TableMemory, A: FrameAllocator> Drop for Reserve<'_, M, A> {
    fn drop(&mut self) {
        while let Some(frame) = self.pop() {
            self.frames.free(frame);
        }
    }
}

/// What is to be mapped where: a pure function from addresses to leaves.
pub(crate) struct Plan<G> {
    range: VaRange,
    /// What is added to a virtual address to give the frame.
    offset: u64,
    /// The leaf without its address, at level 3 and above it.
    page: Descriptor,
    block: Descriptor,
    largest: Level,
    runs: bool,
    geometry: core::marker::PhantomData<G>,
}

impl<G: Geometry> Plan<G> {
    fn new(range: VaRange, frame: PhysAddr, attributes: Attributes, global: bool, largest: Level, runs: bool) -> Self {
        let leaf = |level| Descriptor::leaf::<G>(level, PhysAddr::new(0), attributes, global);
        Self {
            range,
            offset: frame.bits().wrapping_sub(range.start().bits()),
            page: leaf(Level::L3),
            block: leaf(Level::L2),
            largest,
            runs,
            geometry: core::marker::PhantomData,
        }
    }

    /// Whether a leaf at `level` fits where it would translate from `start` to `last`.
    #[inline(always)]
    fn fits(&self, level: Level, start: u64, last: u64) -> bool {
        level == Level::L3
            || (level >= self.largest
                && G::has_leaves(level)
                && last - start == G::size(level) - 1
                && (start | self.offset) & (G::size(level) - 1) == 0)
    }

    /// The addresses that are mapped by contiguous runs at `level`, if the entries there are leaves.
    #[inline(always)]
    fn runs(&self, level: Level) -> (u64, u64) {
        let size = G::run_size(level);
        if !self.runs || G::run(level) == 1 || self.offset & (size - 1) != 0 {
            return (1, 0);
        }
        let (start, last) = (self.range.start().bits(), self.range.last().bits());
        // Inclusive ends: the half may begin at 0 and end at 2^64. An empty part has its end before its start.
        let first = start.checked_add(size - 1).map(|first| first & !(size - 1));
        let end = if last & (size - 1) == size - 1 { Some(last) } else { (last & !(size - 1)).checked_sub(1) };
        first.zip(end).unwrap_or((1, 0))
    }

    #[inline(always)]
    fn leaf(&self, level: Level, va: u64, contiguous: bool) -> Descriptor {
        let leaf = if level == Level::L3 { self.page } else { self.block };
        leaf.at::<G>(PhysAddr::new(va.wrapping_add(self.offset))).with_contiguous(contiguous)
    }

    /// Tables that an invalid entry at `level` asks for, of which `start` to `last` is to be mapped.
    fn tables(&self, level: Level, start: u64, last: u64) -> usize {
        if self.fits(level, start, last) {
            return 0;
        }
        let Some(below) = level.below().filter(|below| *below != Level::L3) else { return 1 };
        let mut tables = 1;
        for_parts::<G>(below, start, last, |_, start, last| tables += self.tables(below, start, last));
        tables
    }

    /// A complete table at `level` for `start` to `last`; every table below it that is covered whole, and every one at level 3, is
    /// taken, as the walk that gives tables back expects. `None` only if the survey did not count it.
    fn build<M: TableMemory, A: FrameAllocator>(
        &self,
        reserve: &mut Reserve<'_, M, A>,
        level: Level,
        start: u64,
        last: u64,
    ) -> Option<PhysAddr> {
        let table = reserve.pop()?;
        let memory = reserve.memory;
        let first = G::slot(table, level, VirtAddr::new(start));
        let end = PhysAddr::new(G::slot(table, level, VirtAddr::new(last)).bits() + 8);
        let size = 8 * G::ENTRIES as u64;
        let (run_start, run_last) = self.runs(level);
        if first > table {
            memory.clear(table, ((first.bits() - table.bits()) / 8) as usize);
        }
        if level == Level::L3 {
            let fill = |from: u64, to: u64, contiguous| {
                let leaf = self.page.with_contiguous(contiguous);
                let mut slot = PhysAddr::new(first.bits() + ((from - start) >> G::GRANULE.shift() << 3));
                let mut output = from.wrapping_add(self.offset);
                for _ in 0..((to - from) >> G::GRANULE.shift()) + 1 {
                    memory.store(slot, leaf.at::<G>(PhysAddr::new(output)).bits());
                    slot = PhysAddr::new(slot.bits() + 8);
                    output = output.wrapping_add(G::PAGE);
                }
            };
            let (from, to) = (run_start.max(start), run_last.min(last));
            if from > to {
                fill(start, last, false);
            } else {
                if start < from {
                    fill(start, from - 1, false);
                }
                fill(from, to, true);
                if to < last {
                    fill(to + 1, last, false);
                }
            }
        } else if let Some(below) = level.below() {
            for_parts::<G>(level, start, last, |index, start, last| {
                let new = if self.fits(level, start, last) {
                    self.leaf(level, start, run_start <= start && start <= run_last)
                } else {
                    let child = self.build::<M, A>(reserve, below, start, last);
                    child.map_or(Descriptor::INVALID, |child| pointer::<G>(child, below, start, last))
                };
                memory.store(entry(first, index), new.bits());
            });
        }
        if end.bits() < table.bits() + size {
            memory.clear(end, ((table.bits() + size - end.bits()) / 8) as usize);
        }
        Some(table)
    }
}

/// The entry that points at a new table at `level` of which `start` to `last` is in the range: taken, if the walk that gives tables
/// back takes it for ours.
fn pointer<G: Geometry>(table: PhysAddr, level: Level, start: u64, last: u64) -> Descriptor {
    let entry = Descriptor::table::<G>(table, Hierarchical::empty());
    let whole = level.above().is_some_and(|above| last - start == G::size(above) - 1);
    if level == Level::L3 || whole { entry.taken() } else { entry }
}

/// Calls `each` for every entry at `level` that `start` to `last` touches: its index from the first one, and its part.
#[inline(always)]
fn for_parts<G: Geometry>(level: Level, start: u64, last: u64, mut each: impl FnMut(usize, u64, u64)) {
    let span = G::size(level) - 1;
    let (mut index, mut start) = (0, start);
    loop {
        let end = last.min(start | span);
        each(index, start, end);
        if end == last {
            return;
        }
        index += 1;
        start = end + 1;
    }
}

/// Refuses a range with something mapped in it; counts the tables that are missing.
struct Survey<'p, G> {
    plan: &'p Plan<G>,
    tables: usize,
    mapped: Option<VirtAddr>,
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Survey<'_, G> {
    #[inline(always)]
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if at.kind() == Kind::Leaf {
            self.mapped = Some(at.start());
            return Next::Stop;
        }
        if at.level() != Level::L3 {
            self.tables += self.plan.tables(at.level(), at.start().bits(), at.last().bits());
        }
        Next::Continue
    }
}

/// Maps what the survey found free.
struct Map<'p, 'r, 's, M: TableMemory, A: FrameAllocator, G> {
    plan: &'p Plan<G>,
    tables: &'r mut Reserve<'s, M, A>,
    /// Blocks up to here are members of a run whose entries were all found invalid.
    run_to: u64,
}

impl<M: TableMemory, A: FrameAllocator, G: Geometry> Map<'_, '_, '_, M, A, G> {
    /// Whether the block at `at` begins, or is within, a run of blocks. A table, be it empty, spoils a run.
    fn is_in_run(&mut self, at: &Visit<'_, M, G>) -> bool {
        let va = at.start().bits();
        let (start, last) = self.plan.runs(at.level());
        if va < start || va > last {
            return false;
        }
        if va & (G::run_size(at.level()) - 1) == 0 {
            let free = |n| {
                let descriptor = Descriptor::from_bits(at.memory().load(entry(at.slot(), n)));
                descriptor.kind::<G>(at.level()) == Kind::Invalid
            };
            let all = (0..G::run(at.level()) as usize).all(free);
            self.run_to = if all { va + (G::run_size(at.level()) - 1) } else { 0 };
        }
        va <= self.run_to
    }
}

impl<M: TableMemory, A: FrameAllocator, G: Geometry> Visitor<M, G> for Map<'_, '_, '_, M, A, G> {
    #[inline(always)]
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        let (level, start, last) = (at.level(), at.start().bits(), at.last().bits());
        if level == Level::L3 {
            let (run_start, run_last) = self.plan.runs(level);
            at.set(self.plan.leaf(level, start, run_start <= start && start <= run_last));
        } else if self.plan.fits(level, start, last) {
            let contiguous = self.is_in_run(at);
            at.set(self.plan.leaf(level, start, contiguous));
        } else if let Some(below) = level.below() {
            #[cfg(feature = "fault-injection")]
            if self.tables.link_early {
                return self.link_unfinished(at, below);
            }
            if let Some(table) = self.plan.build::<M, A>(self.tables, below, start, last) {
                at.link(pointer::<G>(table, below, start, last));
            }
        }
        Next::Skip
    }
}

#[cfg(feature = "fault-injection")]
impl<M: TableMemory, A: FrameAllocator, G: Geometry> Map<'_, '_, '_, M, A, G> {
    /// The fault: the table is linked with what its frame held, then cleared and filled by the walk.
    fn link_unfinished(&mut self, at: &Visit<'_, M, G>, below: Level) -> Next {
        let Some(table) = self.tables.pop() else { return Next::Skip };
        at.link(pointer::<G>(table, below, at.start().bits(), at.last().bits()));
        at.memory().clear(table, G::ENTRIES);
        Next::Continue
    }
}
