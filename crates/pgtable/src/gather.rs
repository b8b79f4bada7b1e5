//! What a change has removed from live tables, and what must be given back after the flush.
//!
//! ```text
//!   entry cleared ──> recorded here ──flush, as deep as the record──> may be released ──> its owner, or the allocator
//! ```
//!
//! The record only ever grows until the flush that it describes has completed. There is no way to set it back: losing
//! "tables were freed" between the unmap and the flush is what hung arm64 Linux in 2019. Frames are kept in a fixed batch
//! inline; a list threaded through the pages themselves would write to what a walker can still read.

use crate::memory::FrameAllocator;
use tlbi::{Asid, Depth, Granule, Invalidation, Issue, Level, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

/// Leaves that a gather holds before it must be flushed.
pub(crate) const MAX_LEAVES: usize = 64;
/// Tables that a gather holds before it must be flushed.
pub(crate) const MAX_TABLES: usize = 16;

/// A frame that was mapped, and that no PE can reach through this mapping any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Where it was mapped.
    pub va: VirtAddr,
    /// The frame.
    pub frame: PhysAddr,
}

/// What has become stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Where leaves were cleared: what the flush has to name.
    pub(crate) range: VaRange,
    /// All that the cleared entries translated. An unlinked table translated more than the leaves that it held at last, and
    /// nothing else may be linked in its place before the flush (rule C4).
    pub(crate) span: VaRange,
    /// Level of the smallest leaf.
    pub(crate) stride: Level,
    /// Full as soon as one table was unlinked.
    pub(crate) depth: Depth,
}

impl Stale {
    fn add(record: &mut Option<Self>, new: Self) {
        *record = Some(match *record {
            None => new,
            Some(so_far) => Self {
                // A space lies in one half, so there is a union.
                range: so_far.range.union(new.range).unwrap_or(so_far.range),
                span: so_far.span.union(new.span).unwrap_or(so_far.span),
                stride: so_far.stride.max(new.stride),
                depth: so_far.depth.max(new.depth),
            },
        });
    }

    /// The request that makes all of it unusable.
    pub(crate) fn invalidation(&self, asid: Asid) -> Invalidation {
        Invalidation::pages(asid, self.range, self.stride, self.depth)
    }
}

/// A fixed batch.
#[derive(Debug)]
struct Batch<T, const N: usize> {
    items: [Option<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> Batch<T, N> {
    const fn new() -> Self {
        Self { items: [None; N], len: 0 }
    }

    fn room(&self) -> usize {
        N - self.len
    }

    /// Whether there was room.
    fn push(&mut self, item: T) -> bool {
        match self.items.get_mut(self.len) {
            Some(free) => {
                *free = Some(item);
                self.len += 1;
                true
            }
            None => false,
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        let len = core::mem::take(&mut self.len);
        self.items.iter_mut().take(len).filter_map(Option::take)
    }
}

/// What a change has removed.
#[derive(Debug)]
pub(crate) struct Gather {
    stale: Option<Stale>,
    leaves: Batch<Released, MAX_LEAVES>,
    tables: Batch<PhysAddr, MAX_TABLES>,
}

impl Gather {
    pub(crate) const fn new() -> Self {
        Self { stale: None, leaves: Batch::new(), tables: Batch::new() }
    }

    /// Room for one more leaf, and for every table above it that might become empty with it.
    pub(crate) fn has_room(&self) -> bool {
        self.leaves.room() >= 1 && self.tables.room() >= 3
    }

    /// Room for one more table.
    pub(crate) fn has_room_for_table(&self) -> bool {
        self.tables.room() >= 1
    }

    /// What has become stale and is not flushed yet.
    pub(crate) fn stale(&self) -> Option<Stale> {
        self.stale
    }

    /// A leaf was cleared. Call [`has_room`](Self::has_room) first.
    pub(crate) fn leaf(&mut self, part: VaRange, level: Level, frame: PhysAddr) {
        Stale::add(&mut self.stale, Stale { range: part, span: part, stride: level, depth: Depth::Leaf });
        let kept = self.leaves.push(Released { va: part.start(), frame });
        debug_assert!(kept, "has_room was not asked");
    }

    /// A table was unlinked whose leaves in `part` were cleared before. Call [`has_room_for_table`](Self::has_room_for_table)
    /// first.
    ///
    /// For the flush `part` stands for the table's whole span: an all-level operation on any address inside removes the table
    /// entry. `level` is that of the entry that was cleared.
    pub(crate) fn table(&mut self, part: VaRange, level: Level, table: PhysAddr) {
        let span = part.widen(Granule::K4.level_size(level));
        Stale::add(&mut self.stale, Stale { range: part, span, stride: level, depth: Depth::Full });
        let kept = self.tables.push(table);
        debug_assert!(kept, "has_room was not asked");
    }

    /// Makes everything in the record unusable on every PE; by `instead` where the record alone does not say enough.
    ///
    /// # Safety
    /// Every store that cleared what the record, or `instead`, covers was followed by `Tlb::order_stores` on its PE; and
    /// `instead` covers the record.
    pub(crate) unsafe fn flush<I: Issue, P: Pinned + ?Sized>(
        &mut self,
        tlb: &Tlb<I>,
        pinned: &P,
        asid: Asid,
        instead: Option<Invalidation>,
    ) {
        if let Some(inv) = instead.or(self.stale.map(|stale| stale.invalidation(asid))) {
            // SAFETY: the caller's promise.
            unsafe { tlb.invalidate_ordered(pinned, &inv) }.sync();
        }
        // Only now: nothing of it can be cached any more.
        self.stale = None;
    }

    /// The record without the knowledge that tables were unlinked.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn forget_tables(&mut self) {
        if let Some(stale) = &mut self.stale {
            stale.depth = Depth::Leaf;
        }
    }

    /// No record at all.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn forget_everything(&mut self) {
        self.stale = None;
    }

    /// Tables go back although they are not flushed.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn release_tables_early<A: FrameAllocator>(&mut self, frames: &A) {
        self.tables.drain().for_each(|table| frames.free(table));
    }

    /// Gives back what was flushed: leaves to their owner, tables to the allocator. Nothing while the record is not empty.
    pub(crate) fn release<A: FrameAllocator>(&mut self, owner: &mut dyn FnMut(Released), frames: &A) {
        if self.stale.is_some() {
            return;
        }
        self.leaves.drain().for_each(owner);
        self.tables.drain().for_each(|table| frames.free(table));
    }
}
