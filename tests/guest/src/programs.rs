//! The programs: each is a way in which kernels change page tables.

use crate::sys::{self, mm};
use core::sync::atomic::{AtomicUsize, Ordering};

/// What went wrong, in words.
pub(crate) type Outcome = Result<(), &'static str>;

/// A program and its name.
pub(crate) type Program = (&'static str, fn() -> Outcome);

/// Every program.
pub(crate) const ALL: &[Program] = &[
    ("map", map),
    ("protect", protect),
    ("remap", remap),
    ("advise", advise),
    ("file", file),
    ("fork", fork),
    ("exec", exec),
    ("threads", threads),
    ("swap", swap),
    ("compact", compact),
    ("merge", merge),
    ("contiguous", contiguous),
    ("nothing", || Ok(())),
];

const PAGE: usize = 4096;
/// What one table of pages translates, with 4 KiB pages; also a huge page.
const BLOCK: usize = 2 << 20;
const ANONYMOUS: usize = mm::PRIVATE | mm::ANONYMOUS;
const BOTH: usize = mm::READ | mm::WRITE;

/// Memory of this process.
#[derive(Clone, Copy)]
struct Area {
    start: usize,
    size: usize,
}

impl Area {
    fn new(size: usize) -> Result<Self, &'static str> {
        Self::at(0, size, ANONYMOUS, -1)
    }

    fn at(address: usize, size: usize, flags: usize, file: isize) -> Result<Self, &'static str> {
        let start = sys::mmap(address, size, BOTH, flags, file).map_err(|_| "mmap")?;
        Ok(Self { start, size })
    }

    /// Aligned as a huge page is.
    fn huge(size: usize) -> Result<Self, &'static str> {
        let whole = Self::new(size + BLOCK)?;
        let start = whole.start.next_multiple_of(BLOCK);
        whole.part(0, start - whole.start).unmap()?;
        whole.part(start - whole.start + size, BLOCK - (start - whole.start)).unmap()?;
        Ok(Self { start, size })
    }

    fn part(self, offset: usize, size: usize) -> Self {
        Self { start: self.start + offset, size }
    }

    fn pages(self) -> impl Iterator<Item = *mut usize> {
        (self.start..self.start + self.size).step_by(PAGE).map(|at| at as *mut usize)
    }

    /// Writes to every page its number and `salt`.
    fn fill(self, salt: usize) {
        for (n, page) in self.pages().enumerate() {
            // SAFETY: the area is mapped, writable, and nobody else's.
            unsafe { page.write_volatile(n ^ salt) };
        }
    }

    /// Whether every page holds what [`Area::fill`] wrote.
    fn check(self, salt: usize, what: &'static str) -> Outcome {
        // SAFETY: the area is mapped and readable.
        let same = self.pages().enumerate().all(|(n, page)| unsafe { page.read_volatile() } == n ^ salt);
        if same { Ok(()) } else { Err(what) }
    }

    /// Whether every page holds zero.
    fn is_empty(self, what: &'static str) -> Outcome {
        // SAFETY: the area is mapped and readable.
        if self.pages().all(|page| unsafe { page.read_volatile() } == 0) { Ok(()) } else { Err(what) }
    }

    fn unmap(self) -> Outcome {
        if self.size == 0 || sys::munmap(self.start, self.size) == 0 { Ok(()) } else { Err("munmap") }
    }

    fn protect(self, protection: usize) -> Outcome {
        if sys::mprotect(self.start, self.size, protection) == 0 { Ok(()) } else { Err("mprotect") }
    }

    /// Advice may be refused: a kernel need not know it.
    fn advise(self, advice: usize) {
        sys::madvise(self.start, self.size, advice);
    }
}

/// Map, touch, unmap: whole, in parts, over what is there; with and without freeing tables, with huge pages split.
fn map() -> Outcome {
    for round in 0..24 {
        let size = PAGE << (round % 11);
        let area = Area::new(size)?;
        area.fill(round);
        area.check(round, "memory just mapped")?;
        let over = Area::at(area.start, size, ANONYMOUS | mm::FIXED, -1)?;
        over.is_empty("memory mapped over")?;
        over.fill(round);
        over.unmap()?;
    }
    for round in 0..6 {
        let area = Area::huge(4 * BLOCK)?;
        area.advise(mm::HUGEPAGE);
        area.fill(round);
        // The middle of a huge page, then the rest of it.
        area.part(BLOCK + 16 * PAGE, 8 * PAGE).unmap()?;
        area.part(0, BLOCK).check(round, "beside a hole")?;
        area.part(BLOCK, 16 * PAGE).unmap()?;
        area.part(2 * BLOCK, BLOCK).unmap()?;
        let again = Area::at(area.start + 2 * BLOCK, BLOCK, ANONYMOUS | mm::FIXED, -1)?;
        again.is_empty("a hole filled")?;
        again.fill(round);
        area.unmap()?;
    }
    Ok(())
}

/// Read-only, none, writable again; every second page, and a huge page as a whole and in parts.
fn protect() -> Outcome {
    for round in 0..4 {
        for area in [Area::new(64 * PAGE)?, Area::huge(2 * BLOCK)?] {
            area.fill(round);
            area.protect(mm::READ)?;
            area.check(round, "read-only memory")?;
            area.protect(mm::NONE)?;
            area.protect(BOTH)?;
            area.check(round, "memory writable again")?;
            for n in (0..32).step_by(2) {
                area.part(n * PAGE, PAGE).protect(mm::READ)?;
            }
            area.check(round, "every second page read-only")?;
            area.protect(BOTH)?;
            area.fill(round + 1);
            area.check(round + 1, "memory written again")?;
            area.unmap()?;
        }
    }
    Ok(())
}

/// Moves pages, whole tables of them and huge pages; grows and shrinks.
fn remap() -> Outcome {
    for round in 0..6 {
        for (size, advice) in [(8 * PAGE, mm::NOHUGEPAGE), (2 * BLOCK, mm::NOHUGEPAGE), (2 * BLOCK, mm::HUGEPAGE)] {
            let (from, to) = (Area::huge(2 * BLOCK)?, Area::huge(2 * BLOCK)?);
            let from = from.part(0, size);
            from.advise(advice);
            from.fill(round);
            let moved = sys::mremap(from.start, size, size, mm::REMAP_MAYMOVE | mm::REMAP_FIXED, to.start);
            if moved != to.start as isize {
                return Err("mremap to a place");
            }
            to.part(0, size).check(round, "memory moved")?;
            let anew = Area::at(from.start, size, ANONYMOUS | mm::FIXED, -1)?;
            anew.is_empty("memory where some was moved away")?;
            anew.fill(round);
            anew.unmap()?;
            let grown = sys::mremap(to.start, size, size + BLOCK, mm::REMAP_MAYMOVE, 0);
            if grown < 0 {
                return Err("mremap to grow");
            }
            let grown = Area { start: grown as usize, size: size + BLOCK };
            grown.part(0, size).check(round, "memory grown")?;
            if sys::mremap(grown.start, grown.size, size, 0, 0) != grown.start as isize {
                return Err("mremap to shrink");
            }
            grown.part(0, size).unmap()?;
            Area { start: to.start, size: 2 * BLOCK }.unmap()?;
            Area { start: from.start, size: 2 * BLOCK }.unmap()?;
        }
    }
    Ok(())
}

/// Gives memory back while it stays mapped.
fn advise() -> Outcome {
    for round in 0..8 {
        let area = Area::huge(2 * BLOCK)?;
        area.advise(if round % 2 == 0 { mm::HUGEPAGE } else { mm::NOHUGEPAGE });
        area.fill(round);
        area.part(0, 64 * PAGE).advise(mm::DONTNEED);
        area.part(0, 64 * PAGE).is_empty("memory given back")?;
        area.part(BLOCK, 64 * PAGE).advise(mm::FREE);
        area.part(BLOCK + 64 * PAGE, 64 * PAGE).advise(mm::COLD);
        area.fill(round + 1);
        area.check(round + 1, "memory used again")?;
        area.advise(mm::DONTNEED);
        area.is_empty("all memory given back")?;
        area.unmap()?;
    }
    Ok(())
}

/// A file mapped twice, written through either, cut short and lengthened.
fn file() -> Outcome {
    for round in 0..8 {
        let size = 64 * PAGE;
        let file = sys::memfd(size);
        let (one, other) = (Area::at(0, size, mm::SHARED, file)?, Area::at(0, size, mm::SHARED, file)?);
        let private = Area::at(0, size, mm::PRIVATE, file)?;
        one.fill(round);
        other.check(round, "a file's other mapping")?;
        private.check(round, "a file's private mapping")?;
        private.fill(round + 1);
        other.check(round, "a file after private writes")?;
        for area in [one, other] {
            area.protect(mm::READ)?;
            area.protect(BOTH)?;
        }
        sys::truncate(file, 0);
        sys::truncate(file, size);
        other.is_empty("a file cut short")?;
        other.fill(round + 2);
        one.check(round + 2, "a file lengthened")?;
        for area in [one, other, private] {
            area.unmap()?;
        }
    }
    Ok(())
}

/// Parent and child write to what they share until then.
fn fork() -> Outcome {
    let area = Area::huge(BLOCK)?;
    for round in 0..12 {
        area.fill(round);
        if sys::fork() == 0 {
            let as_it_was = area.check(round, "");
            area.part(0, 32 * PAGE).fill(round + 1);
            let own = area.part(0, 32 * PAGE).check(round + 1, "");
            sys::exit(usize::from(as_it_was.is_err() || own.is_err()));
        }
        area.part(16 * PAGE, 32 * PAGE).fill(round + 2);
        area.part(0, 16 * PAGE).check(round, "what only the child wrote")?;
        if !sys::wait() {
            return Err("a child saw other memory than its own");
        }
    }
    Ok(())
}

/// Children become another program.
fn exec() -> Outcome {
    for _ in 0..12 {
        if sys::fork() == 0 {
            sys::execute(c"/bin/linux-guest", c"nothing");
            sys::exit(1);
        }
        if !sys::wait() {
            return Err("a program that does nothing failed");
        }
    }
    Ok(())
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);
static SHARED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn thread(number: usize) {
    let work = || -> Outcome {
        let shared = Area { start: SHARED.load(Ordering::Relaxed), size: 4 * BLOCK };
        for round in 0..8 {
            // Its own part of a table that all share: unmapped by one while another gives memory back.
            let own = shared.part(number * 32 * PAGE, 32 * PAGE);
            own.fill(round);
            own.check(round, "")?;
            own.part(0, 16 * PAGE).advise(mm::DONTNEED);
            own.part(0, 16 * PAGE).is_empty("")?;
            let block = shared.part((number % 4) * BLOCK + number * 64 * PAGE, 8 * PAGE);
            // Over what is there: another thread would map something into a hole.
            Area::at(block.start, block.size, ANONYMOUS | mm::FIXED, -1)?.fill(round);
            let alone = Area::new(BLOCK)?;
            alone.part(0, 16 * PAGE).fill(round);
            alone.part(0, 8 * PAGE).protect(mm::READ)?;
            alone.part(0, 16 * PAGE).check(round, "")?;
            alone.unmap()?;
            sys::yield_now();
        }
        Ok(())
    };
    if work().is_err() {
        FAILED.fetch_add(1, Ordering::Relaxed);
    }
    RUNNING.fetch_sub(1, Ordering::Relaxed);
}

/// Threads that map, unmap and give back at once in one address space, and end while others go on.
fn threads() -> Outcome {
    for _ in 0..2 {
        let area = Area::huge(4 * BLOCK)?;
        SHARED.store(area.start, Ordering::Relaxed);
        for number in 0..5 {
            RUNNING.fetch_add(1, Ordering::Relaxed);
            if !sys::spawn(thread, number) {
                return Err("no thread");
            }
        }
        while RUNNING.load(Ordering::Relaxed) != 0 {
            sys::sleep(1);
        }
        area.unmap()?;
    }
    if FAILED.load(Ordering::Relaxed) == 0 { Ok(()) } else { Err("a thread saw other memory than it should") }
}

/// Memory that goes to swap, and comes back when it is read or written.
fn swap() -> Outcome {
    for round in 0..4 {
        let area = Area::huge(2 * BLOCK)?;
        area.advise(if round % 2 == 0 { mm::NOHUGEPAGE } else { mm::HUGEPAGE });
        area.fill(round);
        area.advise(mm::PAGEOUT);
        area.part(0, BLOCK).check(round, "memory back from swap")?;
        area.part(0, BLOCK).fill(round + 1);
        area.part(0, BLOCK).check(round + 1, "memory back from swap, written")?;
        area.advise(mm::PAGEOUT);
        area.part(0, BLOCK).check(round + 1, "memory twice in swap")?;
        area.unmap()?;
    }
    Ok(())
}

/// Memory with holes in it, which the kernel moves together while it is in use.
fn compact() -> Outcome {
    let area = Area::huge(8 * BLOCK)?;
    area.advise(mm::NOHUGEPAGE);
    for round in 0..3 {
        area.fill(round);
        for n in (0..area.size / PAGE).step_by(2) {
            area.part(n * PAGE, PAGE).advise(mm::DONTNEED);
        }
        let told = sys::tell(c"/proc/sys/vm/compact_memory", "1");
        for n in (1..area.size / PAGE).step_by(2) {
            // SAFETY: the area is mapped and readable.
            if unsafe { ((area.start + n * PAGE) as *const usize).read_volatile() } != n ^ round {
                return Err("memory was moved and says something else");
            }
        }
        if !told {
            return Err("the kernel does not compact");
        }
    }
    Ok(())
}

/// Equal pages that the kernel makes one (KSM), and that are written apart again.
fn merge() -> Outcome {
    let area = Area::new(128 * PAGE)?;
    area.advise(mm::NOHUGEPAGE);
    for page in area.pages() {
        // SAFETY: the area is mapped and writable.
        unsafe { page.write_volatile(0x5eed) };
    }
    area.advise(mm::MERGEABLE);
    if !(sys::tell(c"/sys/kernel/mm/ksm/pages_to_scan", "1000") && sys::tell(c"/sys/kernel/mm/ksm/run", "1")) {
        return Err("the kernel does not merge pages");
    }
    sys::sleep(400);
    area.fill(1);
    area.check(1, "pages written after they were merged")?;
    sys::tell(c"/sys/kernel/mm/ksm/run", "0");
    Ok(())
}

/// Huge pages of hugetlbfs: runs with the contiguous bit, and blocks.
fn contiguous() -> Outcome {
    for (size, shift, pool) in [
        (64 << 10, 16, c"/sys/kernel/mm/hugepages/hugepages-64kB/nr_hugepages"),
        (BLOCK, 21, c"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
    ] {
        if !sys::tell(pool, "8") {
            return Err("the kernel has no pool of huge pages");
        }
        let flags = ANONYMOUS | mm::HUGETLB | shift << mm::HUGE_SHIFT;
        for round in 0..4 {
            let area = Area::at(0, 4 * size, flags, -1)?;
            area.fill(round);
            area.protect(mm::READ)?;
            area.check(round, "a huge page")?;
            area.protect(BOTH)?;
            if sys::fork() == 0 {
                area.part(0, size).fill(round + 1);
                sys::exit(usize::from(area.part(size, size).check_from(size / PAGE, round).is_err()));
            }
            if !sys::wait() {
                return Err("a child's huge page");
            }
            area.check(round, "a huge page after a child wrote its own")?;
            area.unmap()?;
        }
        sys::tell(pool, "0");
    }
    Ok(())
}

impl Area {
    /// As [`Area::check`], where the area is a part that begins with page `first` of what was filled.
    fn check_from(self, first: usize, salt: usize) -> Outcome {
        // SAFETY: the area is mapped and readable.
        let same = self.pages().enumerate().all(|(n, page)| unsafe { page.read_volatile() } == (first + n) ^ salt);
        if same { Ok(()) } else { Err("a part") }
    }
}
