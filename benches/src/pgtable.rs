//! What edits of page tables cost, beside the floor: the stores alone.
//!
//! Ours is the shipped path, concurrent and checked; the hardware is replaced by an [`Issue`] that does nothing. All subjects use
//! frames of one arena that has been touched before. `--work NAME N` does one piece of work N times and nothing else, for a
//! profiler that counts instructions.

mod report;

use pgtable::*;
use report::Figure;
use std::cell::{Cell, UnsafeCell};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use tlbi::{Asid, Dsb, Features, Issue, Op, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

/// Frames of 4 KiB, handed out in order of return.
struct Arena {
    words: Box<[AtomicU64]>,
    free: UnsafeCell<Vec<u64>>,
    used: Cell<usize>,
}

// SAFETY: each thread has an allocator of its own.
unsafe impl Sync for Arena {}

const FRAMES: usize = 1 << 16;

impl Arena {
    fn new() -> Self {
        let words = (0..FRAMES * 512).map(|_| AtomicU64::new(1)).collect();
        let free = (0..FRAMES as u64).rev().map(|n| n << 12).collect();
        Self { words, free: UnsafeCell::new(free), used: Cell::new(0) }
    }

    #[inline(always)]
    fn word(&self, pa: PhysAddr) -> &AtomicU64 {
        // SAFETY: addresses come from frames of the arena.
        unsafe { self.words.get_unchecked((pa.bits() >> 3) as usize) }
    }
}

// SAFETY: every access is one atomic access to the arena.
unsafe impl TableMemory for Arena {
    #[inline(always)]
    fn load(&self, entry: PhysAddr) -> u64 {
        self.word(entry).load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn store(&self, entry: PhysAddr, value: u64) {
        self.word(entry).store(value, Ordering::Relaxed);
    }
    #[inline(always)]
    fn store_release(&self, entry: PhysAddr, value: u64) {
        self.word(entry).store(value, Ordering::Release);
    }
    #[inline(always)]
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        self.word(entry).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

// SAFETY: a frame is handed out once until it comes back.
unsafe impl FrameAllocator for Arena {
    #[inline]
    fn allocate(&self) -> Option<PhysAddr> {
        // SAFETY: one thread.
        let frame = unsafe { &mut *self.free.get() }.pop().map(PhysAddr::new);
        self.used.set(self.used.get() + 1);
        frame
    }
    #[inline]
    fn free(&self, frame: PhysAddr) {
        // SAFETY: one thread.
        unsafe { &mut *self.free.get() }.push(frame.bits());
        self.used.set(self.used.get() - 1);
    }
}

struct Nothing;
// SAFETY: stands for no PE.
unsafe impl Issue for Nothing {
    fn tlbi(&self, op: Op) {
        black_box(op);
    }
    fn dsb(&self, dsb: Dsb) {
        black_box(dsb);
    }
    fn isb(&self) {}
}

struct Pin;
// SAFETY: stands for no PE.
unsafe impl Pinned for Pin {}

const GIB: u64 = 1 << 30;
const PAGES: u64 = GIB / 4096;
const START: u64 = 1 << 30;
const DATA: u64 = 1 << 36;

fn range(start: u64, size: u64) -> VaRange {
    VaRange::new(VirtAddr::new(start), size).expect("a range")
}

fn time(figures: &mut Vec<(String, f64)>, name: &str, units: u64, took: impl Fn() -> f64) {
    if std::env::var("ONLY").is_ok_and(|only| !name.contains(&only)) {
        return;
    }
    let mut rounds: Vec<f64> =
        (0..std::env::var("ROUNDS").map_or(15, |r| r.parse().unwrap_or(15))).map(|_| took()).collect();
    rounds.sort_by(f64::total_cmp);
    let ns = rounds[rounds.len() / 2] / units as f64;
    println!("  {name:<40} {ns:8.2} ns");
    figures.push((name.to_owned(), ns));
}

/// CPU time of this thread: what others do on the machine does not count.
fn nanos(work: impl FnOnce()) -> f64 {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of this frame.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let start = now();
    work();
    now() - start
}

fn main() -> ExitCode {
    let arena = Arena::new();
    let tlb = Tlb::new(Nothing, Features { asid_bits: 16, range: true, ..Features::NONE });
    let space: AddressSpace<&Arena, &Arena> =
        AddressSpace::new(&arena, &arena, Asid::new(1), 48).expect("a frame for the root");
    let all = range(START, GIB);
    let rw = Attributes::USER_DATA;
    let ro = Attributes::USER_RODATA;
    let mut figures = Vec::new();
    let released = Cell::new(0u64);
    let map = || space.change(&tlb, &Pin, &mut |_| (), |e| e.map_pages(all, PhysAddr::new(DATA), rw)).expect("free");
    let unmap = || {
        space
            .change(&tlb, &Pin, &mut |r: Released| released.set(released.get().wrapping_add(r.frame.bits())), |e| {
                e.unmap(all)
            })
            .expect("mapped")
    };
    time(&mut figures, "floor: zero + store", PAGES, || {
        nanos(|| {
            for frame in FRAMES as u64 - 512..FRAMES as u64 {
                arena.clear(PhysAddr::new(frame << 12), 512);
                for n in 0..512 {
                    arena.store(PhysAddr::new(frame << 12 | n << 3), DATA + (frame << 21 | n << 12) | 0x703);
                }
            }
        })
    });
    time(&mut figures, "floor: store", PAGES, || {
        nanos(|| {
            for frame in FRAMES as u64 - 512..FRAMES as u64 {
                for n in 0..512 {
                    arena.store(PhysAddr::new(frame << 12 | n << 3), DATA + (frame << 21 | n << 12) | 0x703);
                }
            }
        })
    });
    time(&mut figures, "map, one call", PAGES, || {
        let took = nanos(map);
        unmap();
        took
    });
    time(&mut figures, "unmap, one call", PAGES, || {
        map();
        nanos(unmap)
    });
    map();
    time(&mut figures, "walk: for_each", PAGES, || {
        nanos(|| {
            let mut sum = 0u64;
            space.for_each(&mut |m| sum = sum.wrapping_add(m.frame.bits()));
            black_box(sum);
        })
    });
    struct Sum(u64);
    impl<M: TableMemory, G: Geometry> Visitor<M, G> for Sum {
        #[inline(always)]
        fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
            if let Entry::Leaf(frame, _) = at.entry() {
                self.0 = self.0.wrapping_add(frame.bits());
            }
            Next::Continue
        }
    }
    time(&mut figures, "walk: visitor", PAGES, || {
        nanos(|| {
            let mut sum = Sum(0);
            space.walk(all, &mut sum).expect("inside");
            black_box(sum.0);
        })
    });
    time(&mut figures, "protect, one call", PAGES, || {
        let took = nanos(|| space.change(&tlb, &Pin, &mut |_| (), |e| e.protect(all, ro)).expect("mapped"));
        space.change(&tlb, &Pin, &mut |_| (), |e| e.protect(all, rw)).expect("mapped");
        took
    });
    time(&mut figures, "lookup", PAGES, || {
        nanos(|| {
            for n in 0..PAGES {
                black_box(space.lookup(VirtAddr::new(START + (n << 12))));
            }
        })
    });
    unmap();
    let by_cursor = || {
        space.change(&tlb, &Pin, &mut |_| (), |e| {
            let mut cursor = e.cursor(all).expect("a range");
            for n in 0..PAGES {
                cursor.map(PhysAddr::new(DATA + (n << 12)), rw).expect("free");
            }
        })
    };
    let from_cursor = || {
        space.change(&tlb, &Pin, &mut |r: Released| released.set(released.get().wrapping_add(r.frame.bits())), |e| {
            let mut cursor = e.cursor(all).expect("a range");
            for _ in 0..PAGES {
                black_box(cursor.unmap().expect("mapped"));
            }
        })
    };
    time(&mut figures, "map, cursor", PAGES, || {
        let took = nanos(by_cursor);
        unmap();
        took
    });
    time(&mut figures, "unmap, cursor", PAGES, || {
        map();
        nanos(from_cursor)
    });
    println!("{} tables used, {}", arena.used.get(), black_box(released.get()));
    let _ = Figure::new("", "", 0.0, "");
    ExitCode::SUCCESS
}
