//! What the crate needs of its kernel: access to table memory, and frames for tables.

use tlbi::PhysAddr;

/// Access to the entries of tables by physical address. Every access of this crate to a table goes through it.
///
/// # Safety
/// For frames that come from the space's [`FrameAllocator`], each method is one single-copy atomic 64-bit access to the
/// memory that the PEs' walkers read at that address (inner shareable, write-back cacheable, as TCR_EL1 says of walks),
/// with at least the ordering named. Addresses are multiples of 8.
pub unsafe trait TableMemory {
    /// Relaxed load.
    fn load(&self, entry: PhysAddr) -> u64;

    /// Relaxed store.
    fn store(&self, entry: PhysAddr, value: u64);

    /// Store-release: earlier stores by this PE are visible to whoever reads the value. A table is linked with it, so that
    /// no walker follows the link to contents that are not there yet.
    fn store_release(&self, entry: PhysAddr, value: u64);

    /// Stores `new` if the entry holds `old`, with acquire and release ordering.
    ///
    /// # Errors
    /// What the entry holds instead.
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64>;

    /// Makes `entries` adjacent entries, which no walker can reach, invalid.
    #[inline]
    fn clear(&self, first: PhysAddr, entries: usize) {
        for index in 0..entries {
            self.store(entry(first, index), 0);
        }
    }
}

/// Frames for tables.
///
/// # Safety
/// A frame that [`allocate`](FrameAllocator::allocate) returns is one page of the space's granule, aligned to that, reachable
/// through the [`TableMemory`], below the space's limit of physical addresses, and belongs to the caller alone until it is
/// freed.
pub unsafe trait FrameAllocator {
    /// A frame with any contents, or `None` if there is none.
    fn allocate(&self) -> Option<PhysAddr>;

    /// Takes a frame back. No walker can reach it, and no walk cache leads to it.
    fn free(&self, frame: PhysAddr);
}

// SAFETY: hands every call on.
unsafe impl<M: TableMemory + ?Sized> TableMemory for &M {
    #[inline(always)]
    fn load(&self, entry: PhysAddr) -> u64 {
        (**self).load(entry)
    }

    #[inline(always)]
    fn store(&self, entry: PhysAddr, value: u64) {
        (**self).store(entry, value);
    }

    #[inline(always)]
    fn store_release(&self, entry: PhysAddr, value: u64) {
        (**self).store_release(entry, value);
    }

    #[inline(always)]
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        (**self).compare_exchange(entry, old, new)
    }

    #[inline(always)]
    fn clear(&self, first: PhysAddr, entries: usize) {
        (**self).clear(first, entries);
    }
}

// SAFETY: hands every call on.
unsafe impl<A: FrameAllocator + ?Sized> FrameAllocator for &A {
    fn allocate(&self) -> Option<PhysAddr> {
        (**self).allocate()
    }

    fn free(&self, frame: PhysAddr) {
        (**self).free(frame);
    }
}

/// Address of the entry `index` after `first`.
#[inline(always)]
pub(crate) const fn entry(first: PhysAddr, index: usize) -> PhysAddr {
    PhysAddr::new(first.bits() + 8 * index as u64)
}

/// Frames that are nobody's, threaded through their first words: no walker knows them. Bit 0 of a link is clear, so that it
/// looks like no valid entry; 0 is a frame too, so the end is marked otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link(pub(crate) u64);

impl Link {
    /// Leads nowhere.
    pub(crate) const END: Self = Self(0);
    const SOME: u64 = 2;

    pub(crate) const fn to(frame: PhysAddr) -> Self {
        Self(frame.bits() | Self::SOME)
    }

    /// Where it leads.
    pub(crate) const fn frame(self) -> Option<PhysAddr> {
        if self.0 & Self::SOME != 0 { Some(PhysAddr::new(self.0 & !Self::SOME)) } else { None }
    }

    /// The frame it leads to, and the rest.
    #[inline(always)]
    pub(crate) fn follow<M: TableMemory>(self, memory: &M) -> Option<(PhysAddr, Self)> {
        self.frame().map(|frame| (frame, Self(memory.load(frame))))
    }
}
