//! The library on tlbsan's simulated machine: every table access, barrier and TLBI is performed there and judged.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use pgtable::{AddressSpace, FrameAllocator, Geometry, TableMemory};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Mutex;
use tlbi::{Asid, Dsb, Features, Granule, Issue, Op, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};
use tlbsan::model::Config;
use tlbsan::report::Violation;
use tlbsan::sim::Machine;
use tlbsan::{Hint, IdRegister, Sysreg};

pub const ASID: Asid = Asid::new(7);

#[cfg(not(loom))]
thread_local! {
    /// The PE that this thread plays.
    static PE: Cell<usize> = const { Cell::new(0) };
}
// The model checker's threads share one of the system's.
#[cfg(loom)]
loom::thread_local! {
    static PE: Cell<usize> = Cell::new(0);
}

/// From now on this thread is that PE.
pub fn be(pe: usize) {
    PE.with(|at| at.set(pe));
}

/// The PE that this thread plays.
fn pe() -> usize {
    PE.with(Cell::get)
}

/// A witness: a thread plays one PE at a time, and changes only between statements.
pub struct OnePe;
// SAFETY: no test calls `be` between an invalidation and its sync.
unsafe impl Pinned for OnePe {}

/// The machine, and a pool of frames that hands the oldest out first, so that a freed table does not come back at once.
pub struct Board {
    machine: Mutex<Machine>,
    pool: Mutex<VecDeque<u64>>,
    frames: usize,
    /// Allocations until one fails; negative: never.
    fail_in: Mutex<i64>,
    /// Drops the n-th TLBI or DSB from now on, counted from 0.
    drop_at: Cell<Option<usize>>,
    issued: Cell<usize>,
    pub log: Mutex<Vec<String>>,
    /// The checker is told of every table that is freed.
    tell_freed: Cell<bool>,
    /// A slot, and what is stored to it.
    watched: Mutex<(u64, Vec<u64>)>,
}

// SAFETY: the Cells are used by single-threaded tests alone.
unsafe impl Sync for Board {}

impl Board {
    pub fn new(frames: usize) -> Self {
        Self::with_granule(frames, Granule::K4)
    }

    /// Frames for tables of this granule.
    pub fn with_granule(frames: usize, granule: Granule) -> Self {
        Self {
            machine: Mutex::new(Machine::new(Config::default())),
            pool: Mutex::new((1..=frames as u64).map(|n| n << granule.shift()).collect()),
            frames,
            fail_in: Mutex::new(-1),
            drop_at: Cell::new(None),
            issued: Cell::new(0),
            log: Mutex::new(Vec::new()),
            tell_freed: Cell::new(false),
            watched: Mutex::new((u64::MAX, Vec::new())),
        }
    }

    /// From now on a table that is freed while a PE may still walk through it is a violation.
    pub fn tell_freed(&self) {
        self.tell_freed.set(true);
    }

    /// Fills every free frame with this word.
    pub fn scribble(&self, word: u64) {
        let pool = self.pool.lock().expect("no panic").clone();
        for frame in pool {
            (0..512).for_each(|n| self.machine().store(0, frame + 8 * n, word));
        }
    }

    /// Notes what is stored to a slot.
    pub fn watch(&self, slot: PhysAddr) {
        *self.watched.lock().expect("no panic") = (slot.bits(), Vec::new());
    }

    /// What was stored to it since.
    pub fn watched(&self) -> Vec<u64> {
        self.watched.lock().expect("no panic").1.clone()
    }

    fn note_store(&self, slot: PhysAddr, value: u64) {
        let mut watched = self.watched.lock().expect("no panic");
        if watched.0 == slot.bits() {
            watched.1.push(value);
        }
    }

    pub fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.machine.lock().expect("no test thread panicked")
    }

    pub fn tlb(&self) -> Tlb<&Self> {
        Tlb::new(self, Features { asid_bits: 16, ..Features::NONE })
    }

    /// An empty space, loaded on `pes` PEs.
    pub fn space(&self, pes: usize) -> AddressSpace<&Self, &Self> {
        let space = AddressSpace::new(self, self, ASID, 40).expect("a frame for the root");
        for pe in 0..pes {
            self.machine().run_in(pe, space.root().bits(), ASID.number());
        }
        space
    }

    /// An empty space of any shape, loaded on `pes` PEs whose hardware sets access flags and dirty state; global in the upper half.
    pub fn space_of<G: Geometry>(&self, pes: usize) -> AddressSpace<&Self, &Self, G> {
        let space = if G::UPPER {
            AddressSpace::global(self, self, G::PA_BITS)
        } else {
            AddressSpace::new(self, self, ASID, G::PA_BITS)
        };
        let space = space.expect("a frame for the root");
        for pe in 0..pes {
            self.load_space(pe, &space);
        }
        space
    }

    /// Loads a space on a PE, and nothing in the other half.
    pub fn load_space<G: Geometry>(&self, pe: usize, space: &AddressSpace<&Self, &Self, G>) {
        const AS: u64 = 1 << 36;
        const HA_HD: u64 = 3 << 39;
        const IPS_52: u64 = 6 << 32;
        const A1_EPD0: u64 = 1 << 22 | 1 << 7;
        const EPD1: u64 = 1 << 23;
        let (ttbr, half) = if G::UPPER { (Sysreg::Ttbr1El1, A1_EPD0) } else { (Sysreg::Ttbr0El1, EPD1) };
        let mut machine = self.machine();
        machine.write(pe, Sysreg::TcrEl1, G::tcr() | AS | HA_HD | IPS_52 | half);
        machine.write(pe, ttbr, space.ttbr());
        machine.write(pe, Sysreg::SctlrEl1, 1);
        machine.isb(pe);
    }

    /// `pes` PEs have this level of FEAT_BBM; half of the levels come with range operations.
    pub fn tlb_with_bbm(&self, pes: usize, bbm: u8) -> Tlb<&Self> {
        for pe in 0..pes {
            self.machine().identify(pe, IdRegister::Mmfr2, u64::from(bbm) << 52);
        }
        Tlb::new(self, Features { asid_bits: 16, bbm, range: bbm % 2 == 0, ..Features::NONE })
    }

    /// Frames in use.
    pub fn used(&self) -> usize {
        self.frames - self.pool.lock().expect("no panic").len()
    }

    pub fn fail_in(&self, allocations: i64) {
        *self.fail_in.lock().expect("no panic") = allocations;
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.machine().take_violations()
    }

    /// Counts TLBIs and DSBs from here on, and leaves the n-th out.
    pub fn drop_at(&self, n: Option<usize>) {
        self.drop_at.set(n);
        self.issued.set(0);
        self.log.lock().expect("no panic").clear();
    }

    fn is_dropped(&self, what: String) -> bool {
        let n = self.issued.get();
        self.issued.set(n + 1);
        self.log.lock().expect("no panic").push(what);
        self.drop_at.get() == Some(n)
    }

    /// Everything the root reaches, as bytes.
    pub fn tree(&self, root: u64) -> Vec<(u64, Vec<u64>)> {
        let mut out = Vec::new();
        let mut todo = vec![(root, 0)];
        while let Some((table, level)) = todo.pop() {
            let entries: Vec<u64> = (0..512).map(|n| self.machine().peek(table + n * 8)).collect();
            if level < 3 {
                todo.extend(entries.iter().filter(|e| *e & 1 != 0).map(|e| (e & 0xffff_ffff_f000, level + 1)));
            }
            out.push((table, entries));
        }
        out.sort();
        out
    }
}

// SAFETY: the machine's memory is what its walkers read; one lock makes each access atomic.
unsafe impl TableMemory for Board {
    fn load(&self, entry: PhysAddr) -> u64 {
        self.machine().load(pe(), entry.bits())
    }
    fn store(&self, entry: PhysAddr, value: u64) {
        self.note_store(entry, value);
        self.machine().store(pe(), entry.bits(), value);
    }
    fn store_release(&self, entry: PhysAddr, value: u64) {
        self.store(entry, value);
    }
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        self.machine().compare_exchange(pe(), entry.bits(), old, new)?;
        self.note_store(entry, new);
        Ok(())
    }
}

// SAFETY: frames are handed out once until they are freed.
unsafe impl FrameAllocator for Board {
    fn allocate(&self) -> Option<PhysAddr> {
        let mut fail_in = self.fail_in.lock().expect("no panic");
        if *fail_in == 0 {
            return None;
        }
        *fail_in -= 1;
        self.pool.lock().expect("no panic").pop_front().map(PhysAddr::new)
    }
    fn free(&self, frame: PhysAddr) {
        if self.tell_freed.get() {
            self.machine().hint(pe(), Hint::FrameFreed { pa: frame.bits(), size: 0x1000 });
        }
        let mut pool = self.pool.lock().expect("no panic");
        assert!(!pool.contains(&frame.bits()), "{frame} freed twice");
        pool.push_back(frame.bits());
    }
}

// SAFETY: executes on the PE that the thread plays, except what a test drops to see it missed.
unsafe impl Issue for Board {
    fn tlbi(&self, op: Op) {
        if !self.is_dropped(op.to_string()) {
            self.machine().tlbi(pe(), op);
        }
    }
    fn dsb(&self, dsb: Dsb) {
        if !self.is_dropped(dsb.to_string()) {
            self.machine().dsb(pe(), dsb);
        }
    }
    fn isb(&self) {
        self.machine().isb(pe());
    }
}

pub fn range(start: u64, size: u64) -> VaRange {
    VaRange::new(VirtAddr::new(start), size).expect("a range")
}

pub fn frame(n: u64) -> PhysAddr {
    PhysAddr::new(0x1_0000_0000 + (n << 12))
}
