//! What a change has removed from live tables, and what must be given back after the flush.
//!
//! ```text
//!   entry cleared ──> recorded here ──flush, as deep as the record──> may be released ──> its owner, or the allocator
//! ```
//!
//! The record only ever grows until the flush that it describes has completed. There is no way to set it back: losing
//! "tables were freed" between the unmap and the flush is what hung arm64 Linux in 2019. Leaves that were cleared one by one
//! are kept in a fixed batch inline; a list threaded through the pages themselves would write to what a walker can still read. A
//! table that was unlinked keeps its own leaves, and is harvested after the flush.

use crate::descriptor::{Descriptor, Kind};
use crate::geometry::Geometry;
use crate::grace::Reader;
#[cfg(feature = "fault-injection")]
use crate::memory::FrameAllocator;
use crate::memory::{TableMemory, entry};
use core::marker::PhantomData;
use tlbi::{Depth, Invalidation, Issue, Level, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

/// Leaves, or runs of them, that a gather holds before it must be flushed.
pub(crate) const MAX_LEAVES: usize = 64;
/// Unlinked tables, each with all below it, that a gather holds before it must be flushed.
pub(crate) const MAX_TREES: usize = 32;

/// A frame that was mapped, and that no PE can reach through this mapping any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Where it was mapped.
    pub va: VirtAddr,
    /// The frame.
    pub frame: PhysAddr,
    /// Its size in bytes: of a page or block. The members of a contiguous run come one by one.
    pub size: u64,
    /// It was accessed through this mapping since that was last asked.
    pub accessed: bool,
    /// It was written to through this mapping since that was last asked, as far as it was tracked.
    pub dirty: bool,
}

impl Released {
    #[inline(always)]
    fn new<G: Geometry>(va: VirtAddr, descriptor: Descriptor, level: Level) -> Self {
        Self {
            va,
            frame: descriptor.output::<G>(level),
            size: G::size(level),
            accessed: descriptor.is_accessed(),
            dirty: descriptor.is_dirty(),
        }
    }
}

/// Who takes frames back: a caller's closure, compiled into the loop over a table.
pub(crate) trait Owner<M, G> {
    /// `count` adjacent leaves, of adjacent frames and equal state.
    fn leaves(&mut self, va: VirtAddr, descriptor: Descriptor, level: Level, count: u64);

    /// All pages that a table maps, which translates from `start` on.
    fn table(&mut self, memory: &M, table: PhysAddr, start: VirtAddr);
}

impl<M: TableMemory, G: Geometry, F: FnMut(Released) + ?Sized> Owner<M, G> for &mut F {
    fn leaves(&mut self, va: VirtAddr, descriptor: Descriptor, level: Level, count: u64) {
        release_leaves::<G, F>(va, descriptor, level, count, self);
    }

    fn table(&mut self, memory: &M, table: PhysAddr, start: VirtAddr) {
        release_table::<M, G, F>(memory, table, start, self);
    }
}

// Functions of their own, whose argument nothing else points at: so a compiler may keep in registers what the closure counts.

fn release_leaves<G: Geometry, F: FnMut(Released) + ?Sized>(
    va: VirtAddr,
    descriptor: Descriptor,
    level: Level,
    count: u64,
    owner: &mut F,
) {
    let first = Released::new::<G>(va, descriptor, level);
    for n in 0..count {
        let distance = n << G::shift(level);
        let va = VirtAddr::new(va.bits() + distance);
        owner(Released { va, frame: PhysAddr::new(first.frame.bits() + distance), ..first });
    }
}

fn release_table<M: TableMemory, G: Geometry, F: FnMut(Released) + ?Sized>(
    memory: &M,
    table: PhysAddr,
    start: VirtAddr,
    owner: &mut F,
) {
    // Some at a time: not across atomic loads.
    const READ: usize = 16;
    let is_leaf = |descriptor: &Descriptor| descriptor.kind::<G>(Level::L3) == Kind::Leaf;
    for first in (0..G::ENTRIES).step_by(READ) {
        let read: [Descriptor; READ] =
            core::array::from_fn(|n| Descriptor::from_bits(memory.load(entry(table, first + n))));
        let mut release = |n: usize, descriptor: Descriptor| {
            let va = VirtAddr::new(start.bits().wrapping_add((first + n) as u64 * G::PAGE));
            owner(Released::new::<G>(va, descriptor, Level::L3));
        };
        let read_with_index = read.into_iter().enumerate();
        if Descriptor::all_pages(read.into_iter()) {
            read_with_index.for_each(|(n, descriptor)| release(n, descriptor));
        } else {
            read_with_index.filter(|(_, d)| is_leaf(d)).for_each(|(n, descriptor)| release(n, descriptor));
        }
    }
}

/// What has become stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Where leaves were cleared or changed: what the flush has to name.
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
    pub(crate) fn new(range: VaRange, stride: Level, depth: Depth) -> Self {
        Self { range, span: range, stride, depth }
    }

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
}

/// Leaves that were cleared: `count` adjacent ones, which map adjacent frames and share their state.
#[derive(Clone, Copy, Debug)]
struct Cleared {
    va: VirtAddr,
    descriptor: Descriptor,
    level: Level,
    count: u64,
}

/// A table that was unlinked, and what hangs below it.
#[derive(Clone, Copy, Debug)]
struct Tree {
    table: PhysAddr,
    level: Level,
    start: VirtAddr,
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

    #[inline(always)]
    fn has_room(&self) -> bool {
        self.len < N
    }

    #[inline(always)]
    fn last_mut(&mut self) -> Option<&mut T> {
        self.items.get_mut(self.len.wrapping_sub(1))?.as_mut()
    }

    /// Whether there was room.
    #[inline(always)]
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
pub(crate) struct Gather<G> {
    stale: Option<Stale>,
    leaves: Batch<Cleared, MAX_LEAVES>,
    trees: Batch<Tree, MAX_TREES>,
    /// The leaf that would go on where the last one in the batch ends.
    next: (VirtAddr, Descriptor),
    geometry: PhantomData<G>,
}

impl<G: Geometry> Gather<G> {
    pub(crate) const fn new() -> Self {
        let next = (VirtAddr::new(0), Descriptor::INVALID);
        Self { stale: None, leaves: Batch::new(), trees: Batch::new(), next, geometry: PhantomData }
    }

    /// Room for one more leaf or run.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.leaves.has_room()
    }

    /// Room for one more table.
    #[inline(always)]
    pub(crate) fn has_room_for_tree(&self) -> bool {
        self.trees.has_room()
    }

    /// Whether there is nothing to flush and nothing to give back.
    pub(crate) fn is_empty(&self) -> bool {
        self.stale.is_none() && self.leaves.len == 0 && self.trees.len == 0
    }

    /// What has become stale and is not flushed yet.
    pub(crate) fn stale(&self) -> Option<Stale> {
        self.stale
    }

    /// Something has become stale that holds no frame to be given back.
    pub(crate) fn note(&mut self, stale: Stale) {
        Stale::add(&mut self.stale, stale);
    }

    /// Whether the leaf goes on where the last run of leaves in the batch ends, and is equal but for its address: it is recorded then.
    #[inline(always)]
    pub(crate) fn goes_on(&mut self, va: VirtAddr, descriptor: Descriptor, level: Level) -> bool {
        let goes_on = (va, descriptor) == self.next;
        if goes_on {
            self.leaves(va, level, descriptor, 1);
        }
        goes_on
    }

    /// The addresses of the last run in the batch.
    pub(crate) fn last_run(&mut self) -> Option<(u64, u64)> {
        let last = self.leaves.last_mut()?;
        let start = last.va.bits();
        Some((start, start + ((last.count << G::shift(last.level)) - 1)))
    }

    /// `count` adjacent leaves were cleared, which mapped adjacent frames; what became stale by it is [noted](Self::note) apart.
    /// Call [`has_room`](Self::has_room) first.
    #[inline(always)]
    pub(crate) fn leaves(&mut self, va: VirtAddr, level: Level, descriptor: Descriptor, count: u64) {
        let goes_on = (va, descriptor) == self.next;
        let size = count << G::shift(level);
        // Where an address does not carry over into its upper bits, one run more is recorded.
        self.next = (VirtAddr::new(va.bits().wrapping_add(size)), descriptor.following(size));
        match self.leaves.last_mut() {
            Some(last) if goes_on && last.level == level => last.count += count,
            _ => {
                let kept = self.leaves.push(Cleared { va, descriptor, level, count });
                debug_assert!(kept, "has_room was not asked");
            }
        }
    }

    /// The table at `table`, to which an entry at `level` pointed that translates from `start` on, was unlinked with all that
    /// hangs below it. Call [`has_room_for_tree`](Self::has_room_for_tree) first.
    ///
    /// `part` is where it may have held leaves: for the flush it stands for the whole, because an all-level operation on any
    /// address inside removes the table entries.
    pub(crate) fn tree(&mut self, part: VaRange, level: Level, table: PhysAddr, stride: Level) {
        let span = part.widen(G::size(level));
        Stale::add(&mut self.stale, Stale { range: part, span, stride, depth: Depth::Full });
        let level = level.below().unwrap_or(level);
        let kept = self.trees.push(Tree { table, level, start: span.start() });
        debug_assert!(kept, "has_room was not asked");
    }

    /// Makes everything in the record unusable on every PE by `inv`, which covers it.
    ///
    /// # Safety
    /// Every store that made stale what `inv` covers was followed by `Tlb::order_stores` on its PE; and `inv` covers the record.
    pub(crate) unsafe fn flush<I: Issue, P: Pinned + ?Sized>(
        &mut self,
        tlb: &Tlb<I>,
        pinned: &P,
        inv: Option<Invalidation>,
    ) {
        if let Some(inv) = inv {
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
    pub(crate) fn release_tables_early<M: TableMemory, A: FrameAllocator>(
        &mut self,
        memory: &M,
        frames: &A,
        owner: &mut dyn Owner<M, G>,
    ) {
        self.trees.drain().for_each(|tree| {
            harvest::<M, G>(memory, tree.table, tree.level, tree.start, owner, &mut |table| frames.free(table))
        });
    }

    /// Gives back what was flushed: leaves to their owner, tables to the readers' grace. Nothing while the record is not empty.
    pub(crate) fn release<M: TableMemory>(&mut self, memory: &M, owner: &mut dyn Owner<M, G>, reader: &Reader<'_>) {
        if self.stale.is_some() {
            return;
        }
        self.next = (VirtAddr::new(0), Descriptor::INVALID);
        for cleared in self.leaves.drain() {
            owner.leaves(cleared.va, cleared.descriptor, cleared.level, cleared.count);
        }
        for tree in self.trees.drain() {
            let retire = &mut |table| reader.retire(memory, table);
            harvest::<M, G>(memory, tree.table, tree.level, tree.start, owner, retire);
        }
    }
}

/// Hands out what a table maps that no PE can reach, then the tables themselves.
pub(crate) fn harvest<M: TableMemory, G: Geometry>(
    memory: &M,
    table: PhysAddr,
    level: Level,
    start: VirtAddr,
    owner: &mut dyn Owner<M, G>,
    tables: &mut impl FnMut(PhysAddr),
) {
    let Some(below) = level.below() else {
        owner.table(memory, table, start);
        return tables(table);
    };
    let shift = G::shift(level);
    // Blocks side by side that are equal but for their address, handed out as one: the first of them, and how many.
    let mut run = (start, Descriptor::INVALID, 0);
    for index in 0..G::entries(level) {
        let descriptor = Descriptor::from_bits(memory.load(entry(table, index)));
        if run.2 > 0 {
            if descriptor == run.1.following(run.2 << shift) {
                run.2 += 1;
                continue;
            }
            owner.leaves(run.0, run.1, level, run.2);
            run.2 = 0;
        }
        let va = VirtAddr::new(start.bits() + ((index as u64) << shift));
        match descriptor.kind::<G>(level) {
            Kind::Invalid => {}
            Kind::Leaf => run = (va, descriptor, 1),
            Kind::Table => harvest::<M, G>(memory, descriptor.next::<G>(), below, va, owner, tables),
        }
    }
    if run.2 > 0 {
        owner.leaves(run.0, run.1, level, run.2);
    }
    tables(table);
}
