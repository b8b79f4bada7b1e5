//! What the crate needs of its kernel: access to table memory, and frames for tables.

use tlbi::PhysAddr;

/// Entries in a table.
pub const ENTRIES: usize = 512;
/// Bytes in a table and in a page.
pub const PAGE_SIZE: u64 = 4096;

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

    /// Makes every entry of a table that no walker can reach invalid.
    fn clear_table(&self, table: PhysAddr) {
        for index in 0..ENTRIES {
            self.store(slot(table, index), 0);
        }
    }
}

/// Frames for tables.
///
/// # Safety
/// A frame that [`allocate`](FrameAllocator::allocate) returns is 4096 bytes, aligned, reachable through the
/// [`TableMemory`], and belongs to the caller alone until it is freed.
pub unsafe trait FrameAllocator {
    /// A frame with any contents, or `None` if there is none.
    fn allocate(&self) -> Option<PhysAddr>;

    /// Takes a frame back. No walker can reach it, and no walk cache leads to it.
    fn free(&self, frame: PhysAddr);
}

// SAFETY: hands every call on.
unsafe impl<M: TableMemory + ?Sized> TableMemory for &M {
    fn load(&self, entry: PhysAddr) -> u64 {
        (**self).load(entry)
    }

    fn store(&self, entry: PhysAddr, value: u64) {
        (**self).store(entry, value);
    }

    fn store_release(&self, entry: PhysAddr, value: u64) {
        (**self).store_release(entry, value);
    }

    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        (**self).compare_exchange(entry, old, new)
    }

    fn clear_table(&self, table: PhysAddr) {
        (**self).clear_table(table);
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

/// Address of the entry `index` (mod 512) of a table.
pub(crate) const fn slot(table: PhysAddr, index: usize) -> PhysAddr {
    PhysAddr::new(table.bits() | ((index % ENTRIES) as u64) << 3)
}
