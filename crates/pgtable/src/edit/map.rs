//! Mapping: the largest blocks and contiguous runs that fit, in tables that are complete before they are linked.
//!
//! New tables are filled while nothing is taken, as far as the first look at the range has told where they will hang: so the table
//! above them, in which other edits have their work too, is taken for a moment only.

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
use core::marker::PhantomData;
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
        let survey = |reserve: &mut Reserve<'_, M, A, G>| {
            let mut survey = Survey { plan: &plan, reserve, tables: 0, mapped: None };
            let _ = walk::<M, G, _>(&space.memory, space.root, range, &mut survey);
            match survey.mapped {
                Some(at) => Err(Error::AlreadyMapped { range, at }),
                None => Ok(survey.tables),
            }
        };
        #[cfg(feature = "fault-injection")]
        let link_early = space.injected(Fault::TableLinkedBeforeZeroed);
        #[cfg(not(feature = "fault-injection"))]
        let link_early = false;
        let (hold, mut reserve) = self.prepare_ahead(range, Intent::Change, survey, |reserve| {
            if !link_early {
                plan.build_ahead(reserve);
            }
        })?;
        self.flush_pending(range);
        #[cfg(feature = "fault-injection")]
        {
            reserve.link_early = link_early;
        }
        let mut map = Map { plan: &plan, tables: &mut reserve, run_to: 0 };
        let _ = walk::<M, G, _>(&space.memory, space.root, range, &mut map);
        self.published = false;
        drop(hold);
        Ok(())
    }
}

/// Frames for tables, allocated before anything is changed.
pub(crate) struct Reserve<'s, M: TableMemory, A: FrameAllocator, G: Geometry> {
    memory: &'s M,
    frames: &'s A,
    first: Link,
    len: usize,
    /// Where tables will hang, and those that have been built for it.
    spots: [Option<Spot>; SPOTS],
    #[cfg(feature = "fault-injection")]
    link_early: bool,
    geometry: PhantomData<G>,
}

/// Tables, each with all below it, that are built before anything is taken; others are built when they are linked.
const SPOTS: usize = 4;

/// An invalid entry at `level`, of which `start` to `last` is to be mapped by a table.
#[derive(Clone, Copy, Debug)]
struct Spot {
    level: Level,
    start: u64,
    last: u64,
    table: Option<PhysAddr>,
}

impl<'s, M: TableMemory, A: FrameAllocator, G: Geometry> Reserve<'s, M, A, G> {
    pub(crate) fn new(memory: &'s M, frames: &'s A) -> Self {
        Self {
            memory,
            frames,
            first: Link::END,
            len: 0,
            spots: [None; SPOTS],
            #[cfg(feature = "fault-injection")]
            link_early: false,
            geometry: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Allocates until there are `tables`. On failure dropping the reserve gives back what it has.
    pub(crate) fn grow(&mut self, tables: usize) -> Result<(), Error> {
        while self.len < tables {
            let frame = self.frames.allocate().ok_or(Error::OutOfFrames { tables })?;
            self.push(frame);
        }
        Ok(())
    }

    fn push(&mut self, frame: PhysAddr) {
        self.memory.store(frame, self.first.0);
        self.first = Link::to(frame);
        self.len += 1;
    }

    /// A frame with a link still in it.
    pub(crate) fn pop(&mut self) -> Option<PhysAddr> {
        let (frame, rest) = self.first.follow(self.memory)?;
        self.first = rest;
        self.len -= 1;
        Some(frame)
    }

    /// Whether a table was built for the entry. If not, it is one for which there may be time before the next look.
    fn is_built(&mut self, level: Level, start: u64, last: u64) -> bool {
        let same = |spot: &Spot| (spot.level, spot.start) == (level, start);
        match self.spots.iter().flatten().find(|spot| same(spot)) {
            Some(spot) => spot.table.is_some(),
            None => {
                if let Some(free) = self.spots.iter_mut().find(|spot| spot.is_none()) {
                    *free = Some(Spot { level, start, last, table: None });
                }
                false
            }
        }
    }

    /// The table that was built for the entry.
    fn take_built(&mut self, level: Level, start: u64) -> Option<PhysAddr> {
        let spot = self.spots.iter_mut().flatten().find(|spot| (spot.level, spot.start) == (level, start))?;
        spot.table.take()
    }

    /// Takes a table that nobody has seen apart.
    fn take_apart(&mut self, table: PhysAddr, level: Level) {
        if let Some(below) = level.below() {
            for index in 0..G::entries(level) {
                let descriptor = Descriptor::from_bits(self.memory.load(entry(table, index)));
                if descriptor.kind::<G>(level) == Kind::Table {
                    self.take_apart(descriptor.next::<G>(), below);
                }
            }
        }
        self.push(table);
    }
}

impl<M: TableMemory, A: FrameAllocator, G: Geometry> Drop for Reserve<'_, M, A, G> {
    fn drop(&mut self) {
        for spot in core::mem::take(&mut self.spots).into_iter().flatten() {
            if let (Some(table), Some(below)) = (spot.table, spot.level.below()) {
                self.take_apart(table, below);
            }
        }
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
    geometry: PhantomData<G>,
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
            geometry: PhantomData,
        }
    }

    /// Whether leaves may stand at `level`, where all that an entry translates is mapped: virtual and physical addresses are
    /// aligned alike, or not, in the whole range.
    #[inline(always)]
    fn has_leaves(&self, level: Level) -> bool {
        level == Level::L3 || (level >= self.largest && G::has_leaves(level) && self.offset & (G::size(level) - 1) == 0)
    }

    /// Whether a leaf at `level` fits where it would translate from `start` to `last`.
    #[inline(always)]
    fn fits(&self, level: Level, start: u64, last: u64) -> bool {
        self.has_leaves(level) && (level == Level::L3 || last - start == G::size(level) - 1)
    }

    /// The addresses that are mapped by contiguous runs at `level`, if the entries there are leaves.
    #[inline(always)]
    fn runs(&self, level: Level) -> (u64, u64) {
        let size = G::run_size(level);
        if !self.runs || G::run(level) == 1 || self.offset & (size - 1) != 0 {
            return (1, 0);
        }
        aligned_part(self.range.start().bits(), self.range.last().bits(), size)
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
        let size = G::size(below);
        let parts = (last >> G::shift(below)) - (start >> G::shift(below)) + 1;
        // All entries between the first and the last are alike: what one of them asks for, each does.
        let first = start | (size - 1);
        let tables = self.tables(below, start, last.min(first));
        match parts {
            1 => 1 + tables,
            2 => 1 + tables + self.tables(below, first + 1, last),
            _ => {
                let between = self.tables(below, first + 1, first + size);
                1 + tables + (parts - 2) as usize * between + self.tables(below, last & !(size - 1), last)
            }
        }
    }

    /// Builds the tables for the spots that are known.
    fn build_ahead<M: TableMemory, A: FrameAllocator>(&self, reserve: &mut Reserve<'_, M, A, G>) {
        for n in 0..SPOTS {
            let Some(Spot { level, start, last, table: None }) = reserve.spots[n] else { continue };
            let table = level.below().and_then(|below| self.build(reserve, below, start, last));
            reserve.spots[n] = Some(Spot { level, start, last, table });
        }
    }

    /// A complete table at `level` for `start` to `last`; every table below it that is covered whole, and every one at level 3, is
    /// taken, as the walk that gives tables back expects. `None` only if the survey did not count it.
    fn build<M: TableMemory, A: FrameAllocator>(
        &self,
        reserve: &mut Reserve<'_, M, A, G>,
        level: Level,
        start: u64,
        last: u64,
    ) -> Option<PhysAddr> {
        let table = reserve.pop()?;
        let memory = reserve.memory;
        let slot = |va: u64| G::slot(table, level, VirtAddr::new(va));
        let (first, end) = (slot(start), PhysAddr::new(slot(last).bits() + 8));
        if first > table {
            memory.clear(table, ((first.bits() - table.bits()) / 8) as usize);
        }
        // What is covered whole are leaves, if they fit; what is covered in part at either end, or does not fit, are tables.
        let (from, to) = if self.has_leaves(level) { aligned_part(start, last, G::size(level)) } else { (1, 0) };
        let mut tables = |start: u64, last: u64| {
            let Some(below) = level.below() else { return };
            let first = slot(start);
            for_parts::<G>(level, start, last, |index, start, last| {
                let child = self.build::<M, A>(reserve, below, start, last);
                let new = child.map_or(Descriptor::INVALID, |child| pointer::<G>(child, below, start, last));
                memory.store(entry(first, index), new.bits());
            });
        };
        if from > to {
            tables(start, last);
        } else {
            if start < from {
                tables(start, from - 1);
            }
            let (run_from, run_to) = self.runs(level);
            let (run_from, run_to) = (run_from.max(from), run_to.min(to));
            if run_from > run_to {
                self.fill(memory, slot(from), level, from, to, false);
            } else {
                if from < run_from {
                    self.fill(memory, slot(from), level, from, run_from - 1, false);
                }
                self.fill(memory, slot(run_from), level, run_from, run_to, true);
                if run_to < to {
                    self.fill(memory, slot(run_to + 1), level, run_to + 1, to, false);
                }
            }
            if to < last {
                tables(to + 1, last);
            }
        }
        let size = 8 * G::ENTRIES as u64;
        if end.bits() < table.bits() + size {
            memory.clear(end, ((table.bits() + size - end.bits()) / 8) as usize);
        }
        Some(table)
    }

    /// Leaves side by side, from `from` to `to`, the first of them at `slot`.
    #[inline(always)]
    fn fill<M: TableMemory>(&self, memory: &M, slot: PhysAddr, level: Level, from: u64, to: u64, contiguous: bool) {
        let leaf = if level == Level::L3 { self.page } else { self.block }.with_contiguous(contiguous);
        let mut slot = slot;
        let mut output = from.wrapping_add(self.offset);
        for _ in 0..((to - from) >> G::shift(level)) + 1 {
            memory.store(slot, leaf.at::<G>(PhysAddr::new(output)).bits());
            slot = PhysAddr::new(slot.bits() + 8);
            output = output.wrapping_add(G::size(level));
        }
    }
}

/// The part of `start` to `last` that begins and ends at multiples of `size`; the end before the start, if there is none.
#[inline(always)]
fn aligned_part(start: u64, last: u64, size: u64) -> (u64, u64) {
    // Inclusive ends: the half may begin at 0 and end at 2^64.
    let first = start.checked_add(size - 1).map(|first| first & !(size - 1));
    let end = if last & (size - 1) == size - 1 { Some(last) } else { (last & !(size - 1)).checked_sub(1) };
    first.zip(end).unwrap_or((1, 0))
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
struct Survey<'p, 'r, 's, M: TableMemory, A: FrameAllocator, G: Geometry> {
    plan: &'p Plan<G>,
    reserve: &'r mut Reserve<'s, M, A, G>,
    tables: usize,
    mapped: Option<VirtAddr>,
}

impl<M: TableMemory, A: FrameAllocator, G: Geometry> Visitor<M, G> for Survey<'_, '_, '_, M, A, G> {
    #[inline(always)]
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if at.kind() == Kind::Leaf {
            self.mapped = Some(at.start());
            return Next::Stop;
        }
        if at.level() != Level::L3 {
            let (level, start, last) = (at.level(), at.start().bits(), at.last().bits());
            let tables = self.plan.tables(level, start, last);
            if tables > 0 && !self.reserve.is_built(level, start, last) {
                self.tables += tables;
            }
        }
        Next::Continue
    }
}

/// Maps what the survey found free.
struct Map<'p, 'r, 's, M: TableMemory, A: FrameAllocator, G: Geometry> {
    plan: &'p Plan<G>,
    tables: &'r mut Reserve<'s, M, A, G>,
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
            let built = self.tables.take_built(level, start);
            if let Some(table) = built.or_else(|| self.plan.build::<M, A>(self.tables, below, start, last)) {
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
