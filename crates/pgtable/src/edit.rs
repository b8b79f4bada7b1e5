//! Edits of a live space: map, unmap, zap.
//!
//! Each works in two steps under the space's lock: a survey that may refuse, and changes nothing; then the change, which
//! cannot fail. So a refused request leaves the space, and the allocator, as they were.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Entry};
use crate::error::Error;
use crate::gather::{Gather, Released};
use crate::memory::{FrameAllocator, PAGE_SIZE, TableMemory};
use crate::space::{AddressSpace, GRANULE, UnderWay, VA_BITS};
use crate::walk::{Visit, Visitor, walk};
use core::convert::Infallible;
#[cfg(feature = "fault-injection")]
use tlbi::Depth;
use tlbi::{Invalidation, Issue, Level, PhysAddr, Pinned, Scope, Tlb, VaRange, VirtAddr};

/// A change to a space, from [`AddressSpace::change`].
pub struct Edit<'c, M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> {
    pub(crate) space: &'c AddressSpace<M, A>,
    pub(crate) tlb: &'c Tlb<I>,
    pub(crate) pinned: &'c P,
    pub(crate) owner: &'c mut dyn FnMut(Released),
    pub(crate) gather: Gather,
    /// The space's pending record holds something for this change.
    pub(crate) raised: bool,
    /// It set out to remove something, found or not.
    pub(crate) removing: bool,
    /// Every entry that became valid has been made visible.
    pub(crate) published: bool,
}

impl<M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> Edit<'_, M, A, I, P> {
    /// Maps `range` to the frames from `frame` on, as pages.
    ///
    /// What was unmapped there and may still be cached is flushed first, whoever unmapped it: two translations of one
    /// address are never cacheable at once.
    ///
    /// # Errors
    /// A range or frame that is not page-aligned, outside the space or the CPU's physical addresses; a page in the range
    /// that is mapped already; no frames for tables.
    pub fn map(&mut self, range: VaRange, frame: PhysAddr, attributes: Attributes) -> Result<(), Error> {
        check_range(range)?;
        check_frames(frame, range.size(), self.space.pa_bits)?;
        let (memory, frames, root) = (&self.space.memory, &self.space.frames, self.space.root());
        let mut under_way = self.space.under_way.lock();

        let mut survey = SurveyMap { range, tables: 0 };
        walk(memory, root, range, &mut survey)?;
        let tables = Reserve::fill(memory, frames, survey.tables)?;
        if under_way.is_pending(range) {
            flush_pending(self.space, self.tlb, self.pinned, &mut self.gather, &mut self.raised, &mut under_way);
        }
        let Ok(()) = walk(memory, root, range, &mut Map { start: range.start(), frame, attributes, tables });
        self.published = false;
        Ok(())
    }

    /// Unmaps `range`, every page of which is mapped, and frees the tables that become empty.
    ///
    /// If another core unmaps a part of it at the same time, the pages of that part are released by that core alone.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; a page in it that is not mapped.
    pub fn unmap(&mut self, range: VaRange) -> Result<(), Error> {
        check_range(range)?;
        {
            let _structure = self.space.under_way.lock();
            walk(&self.space.memory, self.space.root(), range, &mut SurveyUnmap { range })?;
        }
        self.remove(range, true);
        Ok(())
    }

    /// Unmaps whatever is mapped in `range`, leaving the tables in place (Linux: `zap_page_range`, MADV_DONTNEED).
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space.
    pub fn zap(&mut self, range: VaRange) -> Result<(), Error> {
        check_range(range)?;
        self.remove(range, false);
        Ok(())
    }

    /// Removes what is there, a gather full at a time; frames are given back between, without the lock.
    fn remove(&mut self, range: VaRange, free_tables: bool) {
        self.removing = true;
        let mut rest = Some(range);
        while let Some(range) = rest {
            let full = {
                let mut under_way = self.space.under_way.lock();
                // Before the first entry changes.
                under_way.raise(range, !core::mem::replace(&mut self.raised, true));
                let mut remove = Remove { gather: &mut self.gather, free_tables };
                let full = walk(&self.space.memory, self.space.root(), range, &mut remove).err();
                // Before the lock is released: another core that finds an entry cleared may have to invalidate it, and a
                // DSB of its own would not order this core's stores (R4).
                if self.gather.stale().is_some() {
                    self.tlb.order_stores(Scope::Inner);
                }
                full
            };
            rest = full.and_then(|Full { at }| VaRange::new(at, range.last().bits() - at.bits() + 1).ok());
            if rest.is_some() {
                // Without the lock: the record stays raised until the change is finished.
                self.flush();
            }
        }
    }

    /// Flushes the gather and gives back what it held.
    fn flush(&mut self) {
        let asid = self.space.asid();
        // Somebody else has a change open and may have found cleared what this one cleared, or the other way round:
        // neither may return before all of it is out of every TLB.
        let nested = self.removing && self.space.is_nested();
        let instead = if nested { Some(self.nested_invalidation()) } else { None };
        // SAFETY: `remove` orders the stores of every change before it releases the lock.
        unsafe { self.gather.flush(self.tlb, self.pinned, asid, instead) };
        self.gather.release(self.owner, &self.space.frames);
    }

    /// What a finish invalidates that sees another change open: the whole address space, tables included.
    fn nested_invalidation(&self) -> Invalidation {
        let asid = self.space.asid();
        #[cfg(feature = "fault-injection")]
        if let (true, Some(mut stale)) =
            (self.space.injected(crate::fault::Fault::LostFreedTables), self.gather.stale())
        {
            stale.depth = Depth::Leaf;
            return stale.invalidation(asid);
        }
        Invalidation::asid(asid)
    }
}

impl<M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> Drop for Edit<'_, M, A, I, P> {
    /// Finishes the change: flush, lower the pending record, give frames back.
    fn drop(&mut self) {
        if !self.published {
            self.tlb.publish();
        }
        self.flush();
        self.space.close(self.raised);
    }
}

impl<M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> core::fmt::Debug for Edit<'_, M, A, I, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Edit").field("asid", &self.space.asid()).field("gather", &self.gather).finish_non_exhaustive()
    }
}

/// Flushes what is pending so that something may be mapped over it. The lock is held: nothing is removed meanwhile.
fn flush_pending<M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized>(
    space: &AddressSpace<M, A>,
    tlb: &Tlb<I>,
    pinned: &P,
    gather: &mut Gather,
    raised: &mut bool,
    under_way: &mut UnderWay,
) {
    if *raised && under_way.is_sole_remover() {
        // Only this change has removed anything: its own record says how deep.
        // SAFETY: `remove` has ordered its stores.
        unsafe { gather.flush(tlb, pinned, space.asid(), None) };
        under_way.lower();
        *raised = false;
    } else {
        // Others have, and their records are theirs; they will flush again when they finish.
        // SAFETY: each of them ordered its stores in `remove` before it released the lock, which is held here.
        unsafe { tlb.invalidate_ordered(pinned, &Invalidation::asid(space.asid())) }.sync();
    }
}

fn check_range(range: VaRange) -> Result<(), Error> {
    if !range.is_aligned(PAGE_SIZE) {
        return Err(Error::UnalignedRange { range });
    }
    if range.last().bits() >> VA_BITS != 0 {
        return Err(Error::OutsideSpace { range });
    }
    Ok(())
}

fn check_frames(frame: PhysAddr, size: u64, pa_bits: u8) -> Result<(), Error> {
    if !frame.is_aligned(PAGE_SIZE) {
        return Err(Error::UnalignedFrame { frame });
    }
    match frame.checked_add(size - 1) {
        Some(last) if last.bits() >> pa_bits == 0 => Ok(()),
        _ => Err(Error::FrameTooHigh { frame, size, pa_bits }),
    }
}

/// Refuses a range with something mapped in it; counts the tables that are missing.
struct SurveyMap {
    range: VaRange,
    tables: usize,
}

impl<M: TableMemory> Visitor<M> for SurveyMap {
    type Error = Error;

    fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Error> {
        if at.descriptor.is_valid() {
            return Err(Error::AlreadyMapped { range: self.range, at: at.part.start() });
        }
        // One table for each entry of the levels between here and the pages.
        let mut level = at.level;
        while let Some(below) = level.below() {
            let shift = GRANULE.level_shift(level);
            self.tables += ((at.part.last().bits() >> shift) - (at.part.start().bits() >> shift) + 1) as usize;
            level = below;
        }
        Ok(())
    }
}

/// Frames for tables, allocated before anything is changed; threaded through themselves, for no walker knows them yet.
struct Reserve<'s, M: TableMemory, A: FrameAllocator> {
    memory: &'s M,
    frames: &'s A,
    first: Option<PhysAddr>,
}

impl<'s, M: TableMemory, A: FrameAllocator> Reserve<'s, M, A> {
    fn fill(memory: &'s M, frames: &'s A, tables: usize) -> Result<Self, Error> {
        let mut reserve = Self { memory, frames, first: None };
        for _ in 0..tables {
            // On failure dropping the reserve gives back what it has.
            let frame = frames.allocate().ok_or(Error::OutOfFrames { tables })?;
            memory.store(frame, reserve.first.map_or(0, |next| next.bits() | Self::MORE));
            reserve.first = Some(frame);
        }
        Ok(reserve)
    }

    /// Marks a link to another frame: 0 is a frame too. Bit 0 stays clear, so that no link looks like a valid entry.
    const MORE: u64 = 2;

    /// The first frame, with the link to the next still in it.
    fn pop(&mut self) -> Option<PhysAddr> {
        let frame = self.first?;
        let link = self.memory.load(frame);
        self.first = (link & Self::MORE != 0).then(|| PhysAddr::new(link & !Self::MORE));
        Some(frame)
    }

    /// An empty table.
    fn take(&mut self) -> Option<PhysAddr> {
        let table = self.pop()?;
        self.memory.clear_table(table);
        Some(table)
    }
}

impl<M: TableMemory, A: FrameAllocator> Drop for Reserve<'_, M, A> {
    fn drop(&mut self) {
        while let Some(frame) = self.pop() {
            self.frames.free(frame);
        }
    }
}

/// Maps what the survey found free.
struct Map<'s, M: TableMemory, A: FrameAllocator> {
    start: VirtAddr,
    frame: PhysAddr,
    attributes: Attributes,
    tables: Reserve<'s, M, A>,
}

impl<M: TableMemory, A: FrameAllocator> Visitor<M> for Map<'_, M, A> {
    type Error = Infallible;

    fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Infallible> {
        if at.level == Level::L3 {
            let offset = at.part.start().bits() - self.start.bits();
            at.set(Descriptor::page(PhysAddr::new(self.frame.bits() + offset), self.attributes));
        } else if let Some(table) = self.tables.take() {
            at.link(table);
        }
        Ok(())
    }
}

/// Refuses a range with a hole.
struct SurveyUnmap {
    range: VaRange,
}

impl<M: TableMemory> Visitor<M> for SurveyUnmap {
    type Error = Error;

    fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Error> {
        if at.descriptor.is_valid() { Ok(()) } else { Err(Error::NotMapped { range: self.range, at: at.part.start() }) }
    }
}

/// Removes leaves, and tables that become empty.
struct Remove<'g> {
    gather: &'g mut Gather,
    free_tables: bool,
}

/// The gather is full; the walk is to go on from here after a flush.
struct Full {
    at: VirtAddr,
}

impl<M: TableMemory> Visitor<M> for Remove<'_> {
    type Error = Full;

    fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Full> {
        if let Entry::Leaf(frame, _) = at.entry() {
            if !self.gather.has_room() {
                return Err(Full { at: at.part.start() });
            }
            at.set(Descriptor::INVALID);
            self.gather.leaf(at.part, at.level, frame);
        }
        Ok(())
    }

    fn table_post(&mut self, at: &Visit<'_, M>, table: PhysAddr) -> Result<(), Full> {
        // Without room it stays linked, empty: nothing is lost, the next unmap beneath it or the end of the space frees it.
        if self.free_tables && self.gather.has_room_for_table() && at.is_empty_table(table) {
            at.set(Descriptor::INVALID);
            self.gather.table(at.part, at.level, table);
        }
        Ok(())
    }
}
