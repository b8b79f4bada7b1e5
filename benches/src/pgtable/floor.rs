//! What memory alone costs: the least that anybody can do for the same tables.

use crate::arena;
use crate::clock::seconds;
use crate::workload::{BLOCK, GIB, PAGE, Sum, Workload};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries of a table of the last level, in order: which table, which entry, what frame.
struct Tables {
    /// First entry, how many, first frame.
    parts: Vec<(usize, usize, u64)>,
    step: u64,
    frames: Vec<u64>,
}

impl Tables {
    fn new(workload: &Workload) -> Self {
        let reach = if workload.leaf == PAGE { BLOCK } else { GIB };
        let mut parts = Vec::new();
        for span in &workload.spans {
            let mut done = 0;
            while done < span.size {
                let va = span.va + done;
                let size = (span.size - done).min(reach - va % reach);
                parts.push(((va % reach / workload.leaf) as usize, (size / workload.leaf) as usize, span.pa + done));
                done += size;
            }
        }
        let frames = Vec::with_capacity(parts.len());
        Self { parts, step: workload.leaf, frames }
    }

    /// Fills all of them, in frames as `allocate` gives them, and puts an entry in its place with `store`.
    #[inline(always)]
    fn fill(&mut self, allocate: impl Fn() -> Option<u64>, store: impl Fn(*mut u64, u64)) {
        for (first, entries, pa) in &self.parts {
            let frame = allocate().expect("a frame");
            // SAFETY: 512 entries fit.
            let slots = unsafe { (frame as *mut u64).add(*first) };
            for n in 0..*entries {
                // SAFETY: as above.
                store(unsafe { slots.add(n) }, (pa + n as u64 * self.step) | 3);
            }
            self.frames.push(frame);
        }
        black_box(&self.frames);
    }

    /// Reads all 512 entries of each table, as a walk must that is not told where they are valid.
    fn read(&self) -> Sum {
        let mut sum = Sum::default();
        for frame in &self.frames {
            for n in 0..512 {
                // SAFETY: 512 entries fit.
                let entry = unsafe { AtomicU64::from_ptr((*frame as *mut u64).add(n)) }.load(Ordering::Relaxed);
                if entry & 1 != 0 {
                    sum.add(entry & !3);
                }
            }
        }
        sum
    }

    fn clear(&mut self) {
        for ((first, entries, _), frame) in self.parts.iter().zip(self.frames.drain(..)) {
            for n in *first..first + entries {
                // SAFETY: 512 entries fit.
                unsafe { AtomicU64::from_ptr((frame as *mut u64).add(n)) }.store(0, Ordering::Relaxed);
            }
            arena::free(frame);
        }
    }
}

/// A plain store for each entry; seconds.
pub(crate) fn plain(workload: &Workload) -> f64 {
    arena::sort();
    let mut tables = Tables::new(workload);
    // SAFETY: `fill` says where an entry fits.
    let fill = seconds(|| tables.fill(arena::allocate, |slot, entry| unsafe { slot.write(entry) }));
    tables.clear();
    fill
}

/// Each frame zeroed, then a relaxed atomic store for each entry; a load of all 512 of each table; a store to clear each entry, and
/// the frames freed. Seconds.
pub(crate) fn zeroed(workload: &Workload) -> [f64; 3] {
    arena::sort();
    let mut tables = Tables::new(workload);
    // SAFETY: `fill` says where an entry fits.
    let store = |slot, entry| unsafe { AtomicU64::from_ptr(slot) }.store(entry, Ordering::Relaxed);
    let fill = seconds(|| tables.fill(arena::allocate_zeroed, store));
    let mut sum = Sum::default();
    let walk = seconds(|| sum = tables.read());
    assert_eq!(sum, workload.sum());
    [fill, walk, seconds(|| tables.clear())]
}
