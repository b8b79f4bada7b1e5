//! Tables outlive every lockless walk that could stand in them.
//!
//! A table is unlinked, flushed, and then *retired*: hardware cannot reach it any more, but a reader that began earlier may. It
//! goes back to the allocator two epochs later. An epoch ends when no reader is left that began in the one before:
//!
//! ```text
//!   epoch            e                 e + 1                          e + 2
//!   readers   began in e - 1 or e      began in e or e + 1: waited for, one epoch after the other
//!   a table   retired in e ───────────────────────────────────────────> freed
//! ```
//!
//! Nobody waits: who retires tables tries to end epochs, and what cannot be freed yet is left to the next one who tries. Retired
//! tables are threaded through themselves; no walker of hardware reads them, and to a reader a link looks like an invalid entry.
//!
//! The two counters are shared by all readers of a space: right, and not yet what 128 cores want.

use crate::memory::{Link, TableMemory};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use tlbi::PhysAddr;

#[derive(Debug)]
pub(crate) struct Grace {
    epoch: AtomicUsize,
    /// Readers that began in an even, and in an odd epoch.
    readers: [AtomicUsize; 2],
    /// Links to the tables retired in an epoch, mod 3.
    retired: [AtomicU64; 3],
    /// Somebody is ending an epoch.
    ending: AtomicBool,
}

/// While it lives, no table that can be reached from now on is freed.
#[derive(Debug)]
pub(crate) struct Reader<'g> {
    grace: &'g Grace,
    parity: usize,
}

impl Grace {
    pub(crate) fn new() -> Self {
        Self {
            epoch: AtomicUsize::new(0),
            readers: [AtomicUsize::new(0), AtomicUsize::new(0)],
            retired: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
            ending: AtomicBool::new(false),
        }
    }

    /// Begins to read.
    pub(crate) fn enter(&self) -> Reader<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            let parity = epoch & 1;
            self.readers[parity].fetch_add(1, Ordering::Relaxed);
            // Either whoever ends the next epoch sees this reader, or this reader sees that the epoch has ended.
            fence(Ordering::SeqCst);
            if self.epoch.load(Ordering::Relaxed) == epoch {
                return Reader { grace: self, parity };
            }
            self.readers[parity].fetch_sub(1, Ordering::Release);
        }
    }

    /// Ends as many epochs as it takes to free what is retired, or as can be ended now.
    pub(crate) fn collect<M: TableMemory>(&self, memory: &M, mut free: impl FnMut(PhysAddr)) {
        for _ in 0..3 {
            if self.retired.iter().all(|link| link.load(Ordering::Relaxed) == Link::END.0) {
                return;
            }
            // One at a time: a second one could reach the tables of a younger epoch.
            if self.ending.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
                return;
            }
            let epoch = self.epoch.load(Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let ended = self.readers[(epoch + 1) & 1].load(Ordering::Acquire) == 0;
            let mut rest = Link::END;
            if ended {
                self.epoch.store(epoch + 1, Ordering::Release);
                // Retired in the epoch before the one that has ended.
                rest = Link(self.retired[(epoch + 2) % 3].swap(Link::END.0, Ordering::Acquire));
            }
            self.ending.store(false, Ordering::Release);
            while let Some((table, next)) = rest.follow(memory) {
                free(table);
                rest = next;
            }
            if !ended {
                return;
            }
        }
    }

    /// Frees everything, at the end of a space: there are no readers.
    pub(crate) fn finish<M: TableMemory>(&mut self, memory: &M, mut free: impl FnMut(PhysAddr)) {
        for link in &self.retired {
            let mut rest = Link(link.swap(Link::END.0, Ordering::Acquire));
            while let Some((table, next)) = rest.follow(memory) {
                free(table);
                rest = next;
            }
        }
    }
}

impl Reader<'_> {
    /// A table that has been unlinked and flushed.
    #[inline]
    pub(crate) fn retire<M: TableMemory>(&self, memory: &M, table: PhysAddr) {
        // A reader that began in a later epoch than the one read here has seen the table unlinked.
        fence(Ordering::SeqCst);
        let list = &self.grace.retired[self.grace.epoch.load(Ordering::Relaxed) % 3];
        let mut head = list.load(Ordering::Relaxed);
        loop {
            memory.store(table, head);
            match list.compare_exchange_weak(head, Link::to(table).0, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.grace.readers[self.parity].fetch_sub(1, Ordering::Release);
    }
}
