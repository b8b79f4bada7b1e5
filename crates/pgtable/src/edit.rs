//! Edits of a live space: map, unmap, zap.
//!
//! Each works in two steps under the space's lock: a survey that may refuse, and changes nothing; then the change, which
//! cannot fail. So a refused request leaves the space, and the allocator, as they were.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Entry};
use crate::error::Error;
#[cfg(feature = "fault-injection")]
use crate::fault::Fault;
use crate::gather::{Gather, Released};
use crate::memory::{FrameAllocator, PAGE_SIZE, TableMemory};
use crate::record::{self, Record, Remedy, Share};
use crate::space::{AddressSpace, GRANULE, VA_BITS};
use crate::sync::{notify, wait_until};
use crate::walk::{Visit, Visitor, walk};
use core::convert::Infallible;
use tlbi::{Depth, Invalidation, Issue, Level, PhysAddr, Pinned, Scope, Tlb, VaRange, VirtAddr};

/// A change to a space, from [`AddressSpace::change`].
pub struct Edit<'c, M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> {
    space: &'c AddressSpace<M, A>,
    tlb: &'c Tlb<I>,
    pinned: &'c P,
    owner: &'c mut dyn FnMut(Released),
    gather: Gather,
    /// What the space's record holds for this change.
    share: Share,
    /// Everything it was asked to remove, found or not.
    asked: Option<VaRange>,
    /// Every entry that became valid has been made visible.
    published: bool,
}

impl<'c, M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> Edit<'c, M, A, I, P> {
    pub(crate) fn new(
        space: &'c AddressSpace<M, A>,
        tlb: &'c Tlb<I>,
        pinned: &'c P,
        owner: &'c mut dyn FnMut(Released),
        share: Share,
    ) -> Self {
        Self { space, tlb, pinned, owner, gather: Gather::new(), share, asked: None, published: true }
    }

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
        let space = self.space;
        let mut record = space.record.lock();

        let mut survey = SurveyMap { range, tables: 0 };
        walk(&space.memory, space.root(), range, &mut survey)?;
        let tables = Reserve::fill(&space.memory, &space.frames, survey.tables)?;
        let pending = record.is_pending(range);
        #[cfg(feature = "fault-injection")]
        let pending = pending && !space.injected(Fault::MapOverPending);
        if pending {
            self.flush_pending(&mut record, range);
        }
        let Ok(()) =
            walk(&space.memory, space.root(), range, &mut Map { start: range.start(), frame, attributes, tables });
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
            let _structure = self.space.record.lock();
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
        // A space lies in one half, so there is a union.
        self.asked = Some(self.asked.and_then(|asked| asked.union(range)).unwrap_or(range));
        let mut rest = Some(range);
        while let Some(range) = rest {
            let full = {
                let mut record = self.space.record.lock();
                let mut remove = Remove { gather: &mut self.gather, free_tables };
                let full = walk(&self.space.memory, self.space.root(), range, &mut remove).err();
                #[cfg(feature = "fault-injection")]
                if self.space.injected(Fault::LeafOnlyAfterTableFree) {
                    self.gather.forget_tables();
                }
                if let Some(stale) = self.gather.stale() {
                    // Both before the lock is released. Another core that finds an entry cleared sees the record raised;
                    // and it may have to invalidate the entry, which a DSB of its own would not order (R4).
                    record.raise(&mut self.share, &stale);
                    self.tlb.order_stores(Scope::Inner);
                }
                full
            };
            rest = full.and_then(|Full { at }| VaRange::new(at, range.last().bits() - at.bits() + 1).ok());
            if rest.is_some() {
                // Its own entries, which the record describes. What it owes to others is for the end.
                self.flush(None);
            }
        }
    }

    /// Flushes the gather and gives back what it held.
    fn flush(&mut self, instead: Option<Invalidation>) {
        // SAFETY: `remove` orders the stores of every change before it releases the lock. Each remedy's request covers what
        // was asked for, and so what was removed.
        unsafe { self.gather.flush(self.tlb, self.pinned, self.space.asid(), instead) };
        self.gather.release(self.owner, &self.space.frames);
    }

    /// Flushes what is pending in `range` so that something may be mapped over it. The lock is held: nothing is removed meanwhile.
    fn flush_pending(&mut self, record: &mut Record, range: VaRange) {
        let (tlb, pinned, asid) = (self.tlb, self.pinned, self.space.asid());
        if record.is_sole_remover(&self.share) {
            // Only this change has removed anything: its own record says how deep.
            // SAFETY: `remove` has ordered its stores.
            unsafe { self.gather.flush(tlb, pinned, asid, None) };
            record.lower(&mut self.share);
        } else if let Some((stride, depth)) = record.reach() {
            // Others have, and their records are theirs; they will flush again when they finish. Of a table that one of them
            // unlinked, any address in its span will do: leaves elsewhere in the span stay theirs, for nothing is mapped there.
            // SAFETY: each of them ordered its stores in `remove` before it released the lock, which is held here.
            unsafe { tlb.invalidate_ordered(pinned, &Invalidation::pages(asid, range, stride, depth)) }.sync();
        }
    }

    /// What a change that was asked to remove `asked` invalidates at its end instead of its own record, because another
    /// change is open: that one may have cleared what this one found cleared, and is not to be waited for.
    fn remedy(&self, record: &Record, asked: VaRange) -> Option<Invalidation> {
        let asid = self.space.asid();
        match self.space.remedy {
            Remedy::WholeRange => Some(Invalidation::pages(asid, asked, Level::L3, Depth::Full)),
            Remedy::WholeSpace => Some(Invalidation::asid(asid)),
            Remedy::Counters => record.reach().map(|(stride, depth)| {
                let strides = asked.widen(GRANULE.level_size(stride)).size() / GRANULE.level_size(stride);
                if self.tlb.features().range || strides <= record::STRIDES_IN_COMPANY {
                    Invalidation::pages(asid, asked, stride, depth)
                } else {
                    Invalidation::asid(asid)
                }
            }),
            Remedy::Wait => None,
        }
    }

    /// The end of a change: flush, lower the record, give frames back.
    fn finish(&mut self) {
        if !self.published {
            self.tlb.publish();
        }
        let mut instead: Option<Invalidation> = None;
        if let Some(asked) = self.asked {
            let record = self.space.record.lock();
            if record.is_nested() {
                instead = self.remedy(&record, asked);
                drop(record);
                #[cfg(feature = "fault-injection")]
                self.sabotage_remedy(&mut instead);
            }
        }
        #[cfg(feature = "fault-injection")]
        if self.space.injected(Fault::TablesFreedBeforeFlush) {
            self.gather.release_tables_early(&self.space.frames);
        }
        #[cfg_attr(
            not(feature = "fault-injection"),
            allow(unused_mut, reason = "only a fault leaves before the flush")
        )]
        let mut left = None;
        #[cfg(feature = "fault-injection")]
        if self.space.injected(Fault::LoweredBeforeFlush) {
            left = Some(self.space.record.lock().close(&mut self.share));
        }
        self.flush(instead);
        let newer = left.unwrap_or_else(|| self.space.record.lock().close(&mut self.share));
        notify(&self.space.record);
        let waits = self.space.remedy == Remedy::Wait && self.asked.is_some();
        #[cfg(feature = "fault-injection")]
        let waits = waits && !self.space.injected(Fault::UnflushedNeighbour);
        if waits {
            // This change has flushed and left, so whoever waits for it goes on: two finishes never wait for each other.
            wait_until(&self.space.record, |record| record.is_over(newer));
        }
    }
}

#[cfg(feature = "fault-injection")]
impl<M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> Edit<'_, M, A, I, P> {
    /// What the faulty finishes do in company.
    fn sabotage_remedy(&mut self, instead: &mut Option<Invalidation>) {
        if self.space.injected(Fault::LostFreedTables) {
            *instead = None;
            self.gather.forget_tables();
        } else if self.space.injected(Fault::GatherRecordResetLate) {
            *instead = None;
            self.gather.forget_everything();
        } else if self.space.injected(Fault::UnflushedNeighbour) {
            *instead = None;
        }
    }
}

impl<M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> Drop for Edit<'_, M, A, I, P> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl<M: TableMemory, A: FrameAllocator, I: Issue, P: Pinned + ?Sized> core::fmt::Debug for Edit<'_, M, A, I, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Edit").field("asid", &self.space.asid()).field("gather", &self.gather).finish_non_exhaustive()
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
