//! What edits of page tables cost, beside the floor: the stores alone.
//!
//! Ours is the shipped path, concurrent and checked; the hardware is replaced by an [`Issue`] that does nothing. All subjects use
//! frames of one arena that has been touched before.

mod report;

use pgtable::*;
use report::Figure;
use std::cell::{Cell, UnsafeCell};
use std::hint::black_box;
use std::io;
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

/// What was measured, in nanoseconds a page: the median of the rounds.
struct Table {
    figures: Vec<Figure>,
    rows: Vec<Vec<String>>,
    floor: f64,
}

impl Table {
    fn time(&mut self, work: &str, subject: &str, took: impl Fn() -> f64) -> f64 {
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| took()).collect();
        rounds.sort_by(f64::total_cmp);
        let ns = rounds[rounds.len() / 2] / PAGES as f64;
        if work == "zero a frame, store" {
            self.floor = ns;
        }
        let ratio = ns / self.floor;
        self.rows.push(vec![work.to_owned(), subject.to_owned(), format!("{ns:.2}"), format!("{ratio:.2}")]);
        let figure = Figure::new(work, subject, ns, "ns/page");
        let figure = if work == "map, one call" { figure.at_most(2.0 * self.floor) } else { figure };
        self.figures.push(figure.against(self.floor));
        ns
    }
}

const ROUNDS: usize = 15;

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

fn run() -> io::Result<()> {
    let arena = Arena::new();
    let tlb = Tlb::new(Nothing, Features { asid_bits: 16, range: true, ..Features::NONE });
    let space: AddressSpace<&Arena, &Arena> =
        AddressSpace::new(&arena, &arena, Asid::new(1), 48).map_err(io::Error::other)?;
    let all = VaRange::new(VirtAddr::new(START), GIB).map_err(io::Error::other)?;
    let (rw, ro) = (Attributes::USER_DATA, Attributes::USER_RODATA);
    let sum = Cell::new(0u64);
    let add = |frame: PhysAddr| sum.set(sum.get().wrapping_add(frame.bits()));

    let map = || space.change(&tlb, &Pin, &mut |_| (), |e| e.map_pages(all, PhysAddr::new(DATA), rw)).unwrap_or(());
    let unmap = || space.change(&tlb, &Pin, &mut |r: Released| add(r.frame), |e| e.unmap(all)).unwrap_or(());
    let protect = |attributes| space.change(&tlb, &Pin, &mut |_| (), |e| e.protect(all, attributes)).unwrap_or(());
    let store = |zero: bool| {
        // Frames at the far end, which no table uses.
        for n in 0..PAGES {
            let entry = PhysAddr::new(((FRAMES as u64 - 512) << 12) + 8 * n);
            if zero && n % 512 == 0 {
                arena.clear(entry, 512);
            }
            arena.store(entry, (DATA + (n << 12)) | 0x703);
        }
    };

    let mut table = Table { figures: Vec::new(), rows: Vec::new(), floor: 1.0 };
    table.time("zero a frame, store", "floor", || nanos(|| store(true)));
    table.time("store", "floor", || nanos(|| store(false)));
    table.time("map, one call", "pgtable", || {
        let took = nanos(map);
        unmap();
        took
    });
    table.time("unmap, one call", "pgtable", || {
        map();
        nanos(unmap)
    });
    map();
    table.time("walk, visitor", "pgtable", || {
        let mut visitor = Sum(0);
        let took = nanos(|| {
            let _ = space.walk(all, &mut visitor);
        });
        black_box(visitor.0);
        took
    });
    table.time("walk, for_each", "pgtable", || nanos(|| space.for_each(&mut |m| add(m.frame))));
    table.time("protect, one call", "pgtable", || {
        let took = nanos(|| protect(ro));
        protect(rw);
        took
    });
    table.time("lookup, page by page", "pgtable", || {
        nanos(|| {
            for n in 0..PAGES {
                black_box(space.lookup(VirtAddr::new(START + (n << 12))));
            }
        })
    });
    unmap();
    table.time("map, cursor", "pgtable", || {
        let took = nanos(|| {
            space.change(&tlb, &Pin, &mut |_| (), |e| {
                let Ok(mut cursor) = e.cursor(all) else { return };
                for n in 0..PAGES {
                    let _ = cursor.map(PhysAddr::new(DATA + (n << 12)), rw);
                }
            });
        });
        unmap();
        took
    });
    table.time("unmap, cursor", "pgtable", || {
        map();
        nanos(|| {
            space.change(&tlb, &Pin, &mut |r: Released| add(r.frame), |e| {
                let Ok(mut cursor) = e.cursor(all) else { return };
                while let Ok(unmapped) = cursor.unmap() {
                    black_box(unmapped.map(|m| m.frame));
                }
            });
        })
    });
    black_box(sum.get());
    if arena.used.get() != 1 {
        return Err(io::Error::other("tables did not come back"));
    }
    report::print("1 GiB of 4 KiB pages, CPU time of one thread", &["", "subject", "ns/page", "floor"], &table.rows);
    println!("{}", report::write("pgtable", &table.figures)?.display());
    Ok(())
}

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

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench pgtable: {error}");
            ExitCode::FAILURE
        }
    }
}
