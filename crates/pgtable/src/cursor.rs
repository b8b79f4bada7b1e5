//! Page by page, without walking from the root for each: a cursor keeps its path and the table it stands in.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Kind};
use crate::edit::{Edit, Touched, check_frames, check_range};
use crate::error::Error;
use crate::exclusive::{release, take};
use crate::geometry::Geometry;
use crate::grace::Reader;
use crate::memory::{FrameAllocator, TableMemory};
use crate::space::Mapping;
use crate::sync::Pause;
use crate::walk::Path;
use core::marker::PhantomData;
use tlbi::{Issue, Level, PhysAddr, Pinned, VaRange, VirtAddr};

/// Stands on a page of a range and moves on with each step; from [`Edit::cursor`].
///
/// The table of pages in which it stands is taken until the cursor leaves it: other changes wait for that table, and for no
/// other. Each step is a change by itself; what has been done stays done when a later one is refused.
pub struct Cursor<'e, 'c, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    edit: &'e mut Edit<'c, M, A, I, P, G>,
    at: u64,
    range: VaRange,
    over: bool,
    here: Option<Here<'c, G>>,
}

/// The table of pages in which the cursor stands.
struct Here<'c, G> {
    /// The entry that points at it.
    slot_of_table: PhysAddr,
    pointer: Descriptor,
    table: PhysAddr,
    start: u64,
    last: u64,
    /// What was unmapped in it and is not in the gather's record yet.
    cleared: Touched,
    /// Something was unmapped in it.
    emptied: bool,
    /// Nothing pending lies in it.
    fresh: bool,
    _reader: Reader<'c>,
    geometry: PhantomData<G>,
}

impl<G: Geometry> Here<'_, G> {
    #[inline(always)]
    fn holds(&self, va: u64) -> bool {
        self.start <= va && va <= self.last
    }

    #[inline(always)]
    fn slot(&self, va: u64) -> PhysAddr {
        PhysAddr::new(self.table.bits().wrapping_add(va.wrapping_sub(self.start) >> G::GRANULE.shift() << 3))
    }
}

impl<'c, M, A, I, P, G> Edit<'c, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    /// A cursor on the first page of `range`.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space.
    pub fn cursor(&mut self, range: VaRange) -> Result<Cursor<'_, 'c, M, A, I, P, G>, Error> {
        check_range::<G>(range)?;
        Ok(Cursor { edit: self, at: range.start().bits(), range, over: false, here: None })
    }
}

impl<M, A, I, P, G> Cursor<'_, '_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    /// The page on which it stands; `None` past the end.
    #[inline]
    pub fn position(&self) -> Option<VirtAddr> {
        (!self.over).then_some(VirtAddr::new(self.at))
    }

    /// Goes to a page of the range.
    ///
    /// # Errors
    /// [`Error::OutsideSpace`] if `va` is not in the range.
    pub fn seek(&mut self, va: VirtAddr) -> Result<(), Error> {
        if !self.range.contains(va) {
            return Err(Error::OutsideSpace { range: self.range });
        }
        self.at = va.align_down(G::PAGE).bits();
        self.over = false;
        Ok(())
    }

    /// What is mapped here; does not move.
    ///
    /// # Errors
    /// [`Error::Busy`].
    #[inline]
    pub fn query(&mut self) -> Result<Option<Mapping>, Error> {
        if self.over {
            return Ok(None);
        }
        match self.slot()? {
            Some(slot) => {
                let descriptor = Descriptor::from_bits(self.edit.space.memory.load(slot));
                let leaf = descriptor.kind::<G>(Level::L3) == Kind::Leaf;
                Ok(leaf.then(|| Mapping::new::<G>(VirtAddr::new(self.at), descriptor, Level::L3)))
            }
            None => Ok(self.edit.space.lookup(VirtAddr::new(self.at))),
        }
    }

    /// Goes on to the next page.
    #[inline(always)]
    pub fn advance(&mut self) {
        let next = self.at | (G::PAGE - 1);
        if next >= self.range.last().bits() {
            self.over = true;
        } else {
            self.at = next + 1;
        }
    }

    /// Maps the page here to `frame`, and goes on.
    ///
    /// # Errors
    /// As [`Edit::map`], [`Error::OutsideSpace`] past the end; it stays where it is then.
    #[inline(always)]
    pub fn map(&mut self, frame: PhysAddr, attributes: Attributes) -> Result<(), Error> {
        let space = self.edit.space;
        match &self.here {
            Some(here) if here.fresh && here.holds(self.at) && !self.over => {
                let slot = here.slot(self.at);
                let good = frame.bits() & (G::PAGE - 1) == 0
                    && frame.bits() >> space.pa_bits == 0
                    && (!attributes.is_write_execute() || space.write_execute)
                    && !Descriptor::from_bits(space.memory.load(slot)).is_valid();
                if good {
                    let new = Descriptor::leaf::<G>(Level::L3, frame, attributes, space.asid().is_none());
                    space.memory.store(slot, new.bits());
                    self.advance();
                    return Ok(());
                }
            }
            _ => {}
        }
        self.map_first(frame, attributes)
    }

    /// The first page in a table, and whatever is refused.
    #[inline(never)]
    fn map_first(&mut self, frame: PhysAddr, attributes: Attributes) -> Result<(), Error> {
        let page = self.page()?;
        let space = self.edit.space;
        let Some(slot) = self.slot()? else {
            self.leave();
            self.edit.map_pages(page, frame, attributes)?;
            self.advance();
            return Ok(());
        };
        check_frames::<G>(frame, G::PAGE, space.pa_bits)?;
        if attributes.is_write_execute() && !space.write_execute {
            return Err(Error::WriteExecute { range: page });
        }
        if Descriptor::from_bits(space.memory.load(slot)).is_valid() {
            return Err(Error::AlreadyMapped { range: page, at: page.start() });
        }
        self.flush_pending(page);
        let new = Descriptor::leaf::<G>(Level::L3, frame, attributes, space.asid().is_none());
        space.memory.store(slot, new.bits());
        self.edit.published = false;
        self.advance();
        Ok(())
    }

    /// Unmaps the page here, if it is mapped, and goes on: what was mapped. A block or run is split first. The frame goes to
    /// the change's owner, after the flush as ever; tables that become empty are freed when the cursor leaves them.
    ///
    /// # Errors
    /// As [`Edit::unmap`] but for holes, [`Error::OutsideSpace`] past the end; it stays where it is then.
    #[inline(always)]
    pub fn unmap(&mut self) -> Result<Option<Mapping>, Error> {
        let va = VirtAddr::new(self.at);
        match &self.here {
            Some(here) if here.holds(self.at) && !self.over => {
                let slot = here.slot(self.at);
                let memory = &self.edit.space.memory;
                let old = Descriptor::from_bits(memory.load(slot));
                // One more of a run of equal pages: no room is needed, and `note` asks the gather how far it goes.
                if here.cleared.is_some()
                    && !old.is_volatile()
                    && !old.is_contiguous()
                    && self.edit.gather.goes_on(va, old, Level::L3)
                {
                    memory.store(slot, 0);
                    self.advance();
                    return Ok(Some(Mapping::new::<G>(va, old, Level::L3)));
                }
            }
            _ => {}
        }
        self.unmap_first()
    }

    /// The first page of a run of equal ones.
    #[inline(never)]
    fn unmap_first(&mut self) -> Result<Option<Mapping>, Error> {
        let page = self.page()?;
        let memory = &self.edit.space.memory;
        let slot = self.slot()?;
        let read = slot.map(|slot| (slot, Descriptor::from_bits(memory.load(slot))));
        let (slot, old) = match read {
            Some((slot, old)) if !old.is_contiguous() => (slot, old),
            _ => return self.unmap_larger(page),
        };
        if old.kind::<G>(Level::L3) != Kind::Leaf {
            self.advance();
            return Ok(None);
        }
        if !self.edit.gather.has_room() {
            self.leave();
            self.edit.flush();
            return self.unmap_first();
        }
        let mut was = old;
        if old.is_volatile() {
            while let Err(now) = memory.compare_exchange(slot, was.bits(), 0) {
                was = Descriptor::from_bits(now);
            }
        } else {
            memory.store(slot, 0);
        }
        let va = VirtAddr::new(self.at);
        self.edit.gather.leaves(va, Level::L3, was, 1);
        if let Some(here) = &mut self.here {
            here.cleared.add(self.at, self.at | (G::PAGE - 1), Level::L3);
            here.fresh = false;
        }
        self.advance();
        Ok(Some(Mapping::new::<G>(va, was, Level::L3)))
    }

    /// Where there is no table of pages, or a run.
    #[cold]
    fn unmap_larger(&mut self, page: VaRange) -> Result<Option<Mapping>, Error> {
        self.leave();
        let mapped = self.edit.space.lookup(page.start());
        if mapped.is_some() {
            match self.edit.unmap(page) {
                Ok(()) => {}
                // Somebody else was faster.
                Err(Error::NotMapped { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        self.advance();
        Ok(mapped)
    }

    #[inline(always)]
    fn page(&self) -> Result<VaRange, Error> {
        let outside = Error::OutsideSpace { range: self.range };
        if self.over {
            return Err(outside);
        }
        VaRange::new(VirtAddr::new(self.at), G::PAGE).map_err(|_| outside)
    }

    /// The entry of the page here, its table taken; `None` if there is no table of pages.
    #[inline(always)]
    fn slot(&mut self) -> Result<Option<PhysAddr>, Error> {
        match &self.here {
            Some(here) if here.holds(self.at) => Ok(Some(here.slot(self.at))),
            _ => self.enter(),
        }
    }

    #[cold]
    fn enter(&mut self) -> Result<Option<PhysAddr>, Error> {
        self.leave();
        let space = self.edit.space;
        let va = VirtAddr::new(self.at);
        let mut pause = Pause::new();
        loop {
            let reader = space.grace.enter();
            let path = Path::<G>::new(&space.memory, space.root, va);
            let (Level::L3, Some((slot, pointer))) = (path.level(), path.at(Level::L2)) else { return Ok(None) };
            if take(&space.memory, slot, pointer) {
                let span = va.align_down(G::size(Level::L2)).bits();
                self.here = Some(Here {
                    slot_of_table: slot,
                    pointer,
                    table: pointer.next::<G>(),
                    start: span,
                    last: span + (G::size(Level::L2) - 1),
                    cleared: Touched::default(),
                    emptied: false,
                    geometry: PhantomData,
                    fresh: false,
                    _reader: reader,
                });
                return Ok(Some(path.last().0));
            }
            drop(reader);
            if !self.edit.patient {
                return Err(Error::Busy { range: self.range });
            }
            pause.wait();
        }
    }

    /// Something is about to be mapped at `page`.
    fn flush_pending(&mut self, page: VaRange) {
        self.note();
        let Some(here) = &mut self.here else { return };
        here.fresh = true;
        let table = VaRange::new(VirtAddr::new(here.start), here.last - here.start + 1);
        self.edit.flush_pending(table.unwrap_or(page));
    }

    /// What was cleared here is in the record.
    fn note(&mut self) {
        let Some(here) = &mut self.here else { return };
        let mut cleared = core::mem::take(&mut here.cleared);
        if cleared.is_some() {
            here.emptied = true;
            if let Some((first, last)) = self.edit.gather.last_run() {
                cleared.add(first, last, Level::L3);
            }
        }
        if let Some(stale) = cleared.stale() {
            self.edit.take_away(stale);
        }
    }

    /// Gives the table back; if it may have become empty, frees it.
    fn leave(&mut self) {
        self.note();
        if let Some(here) = self.here.take() {
            release(&self.edit.space.memory, here.slot_of_table, here.pointer);
            drop(here._reader);
            if here.emptied {
                self.edit.prune(VirtAddr::new(here.start));
            }
        }
    }
}

impl<M, A, I, P, G> Drop for Cursor<'_, '_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    fn drop(&mut self) {
        self.leave();
    }
}

impl<M, A, I, P, G> core::fmt::Debug for Cursor<'_, '_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cursor")
            .field("at", &VirtAddr::new(self.at))
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
