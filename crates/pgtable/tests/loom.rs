//! The pending record under every order in which two or three cores may take its lock, with the simulated machine as the judge.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p pgtable --test loom --features fault-injection --release`
//!
//! Between two operations on the lock or on a TLB any other core may run. What is shown for each remedy: whoever has returned from a
//! change finds nothing stale of what it was asked to remove; nothing is mapped over what is pending; no two finishes wait for each
//! other. And that the checker would find it if it were not so.
#![cfg(loom)]

mod common;

use common::{ASID, Board, OnePe, be, frame, range};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use pgtable::fault::Fault;
use pgtable::{AddressSpace, Attributes, Edit, Error, FrameAllocator, Remedy, TableMemory};
use std::collections::BTreeSet;
use std::sync::Mutex;
use tlbi::{Dsb, Features, Issue, Op, PhysAddr, Tlb, VaRange};
use tlbsan::{Cause, Kind};
use tlbsan_hint::Hint;

const A: u64 = 0x4000_0000;
const B: u64 = 0x4000_1000;
const STACK: u64 = 0x4020_0000;
const PAGE: u64 = 0x1000;
const RW: Attributes = Attributes::USER_DATA;
const REMEDIES: [Remedy; 4] = [Remedy::WholeRange, Remedy::WholeSpace, Remedy::Counters, Remedy::Wait];

/// The simulated machine, shared; and a moment before each store that makes an entry valid or invalid, and before each operation on
/// a TLB, at which another core may run. All of them count in one place: the model checker tries only those orders in which
/// something differs that it knows of.
#[derive(Clone)]
struct Cores(Arc<(Board, AtomicUsize)>);

impl Cores {
    fn board(&self) -> &Board {
        &self.0.0
    }

    fn moment(&self) {
        self.0.1.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: hands every call on.
unsafe impl TableMemory for Cores {
    fn load(&self, entry: PhysAddr) -> u64 {
        self.board().load(entry)
    }
    fn store(&self, entry: PhysAddr, value: u64) {
        let old = self.board().machine().peek(entry.bits());
        if (old ^ value) & 1 != 0 {
            self.moment();
        }
        self.board().store(entry, value);
    }
    fn store_release(&self, entry: PhysAddr, value: u64) {
        self.store(entry, value);
    }
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        self.board().compare_exchange(entry, old, new)
    }
}

// SAFETY: hands every call on.
unsafe impl FrameAllocator for Cores {
    fn allocate(&self) -> Option<PhysAddr> {
        self.board().allocate()
    }
    fn free(&self, frame: PhysAddr) {
        self.board().free(frame);
    }
}

// SAFETY: hands every call on; a moment later.
unsafe impl Issue for Cores {
    fn tlbi(&self, op: Op) {
        self.moment();
        self.board().tlbi(op);
    }
    fn dsb(&self, dsb: Dsb) {
        if dsb.covers_loads() {
            self.moment();
        }
        self.board().dsb(dsb);
    }
    fn isb(&self) {
        self.board().isb();
    }
}

/// One space, and the cores that change it.
#[derive(Clone)]
struct Play {
    cores: Cores,
    space: Arc<AddressSpace<Cores, Cores>>,
}

impl Play {
    /// A, B and the stack are mapped; every one of `pes` PEs may have them cached.
    fn new(pes: usize, remedy: Remedy, fault: Option<Fault>) -> Self {
        let cores = Cores(Arc::new((Board::new(32), AtomicUsize::new(0))));
        let space = AddressSpace::new(cores.clone(), cores.clone(), ASID, 40).expect("a frame").with_remedy(remedy);
        for pe in 0..pes {
            cores.board().machine().run_in(pe, space.root().bits(), ASID.number());
        }
        space.inject(fault);
        let play = Self { cores, space: Arc::new(space) };
        for (n, va) in [A, B, STACK].into_iter().enumerate() {
            play.change(|edit| edit.map(page(va), frame(n as u64), RW)).expect("free");
        }
        play
    }

    fn change<R>(&self, body: impl FnOnce(&mut Edit<'_, Cores, Cores, Cores, OnePe>) -> R) -> R {
        let tlb = Tlb::new(self.cores.clone(), Features { asid_bits: 16, ..Features::NONE });
        self.space.change(&tlb, &OnePe, &mut |_| (), body)
    }

    /// Removes whatever there is in `range` and then says that nothing of it is cached.
    fn zap(&self, pe: usize, range: VaRange) {
        self.change(|edit| edit.zap(range)).expect("a range");
        let claim = Hint::FlushClaimed { start: range.start().bits(), size: range.size(), asid: ASID.number() };
        self.cores.board().machine().hint(pe, claim);
    }

    /// Starts PE `pe`.
    fn start(&self, pe: usize, part: impl FnOnce(&Self) + 'static) -> loom::thread::JoinHandle<()> {
        let play = self.clone();
        loom::thread::spawn(move || {
            be(pe);
            part(&play);
        })
    }

    fn verdicts(&self) -> Vec<(Kind, Cause)> {
        self.cores.board().violations().iter().map(|v| (v.kind, v.cause)).collect()
    }
}

fn page(va: u64) -> VaRange {
    range(va, PAGE)
}

/// Every order with at most so many preemptions: all verdicts that there were in any of them, and how many orders there were.
fn every_order(
    preemptions: usize,
    script: impl Fn() -> Vec<(Kind, Cause)> + Sync + Send + 'static,
) -> (BTreeSet<String>, usize) {
    let seen = std::sync::Arc::new(Mutex::new((BTreeSet::new(), 0)));
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(preemptions);
    checker.max_branches = 100_000;
    let found = seen.clone();
    checker.check(move || {
        let verdicts = script();
        let mut found = found.lock().expect("no panic");
        found.0.extend(verdicts.iter().map(|(kind, cause)| format!("{kind} {cause}")));
        found.1 += 1;
    });
    let seen = seen.lock().expect("no panic");
    seen.clone()
}

#[track_caller]
fn silent(name: &str, script: impl Fn() -> Vec<(Kind, Cause)> + Sync + Send + 'static) {
    silent_with(2, name, script);
}

#[track_caller]
fn silent_with(preemptions: usize, name: &str, script: impl Fn() -> Vec<(Kind, Cause)> + Sync + Send + 'static) {
    let (verdicts, orders) = every_order(preemptions, script);
    println!("{name}: silent in {orders} orders");
    assert!(orders > 10, "{name}: there are more orders than {orders}");
    assert_eq!(verdicts, BTreeSet::new(), "{name}");
}

#[track_caller]
fn caught(name: &str, expected: &str, script: impl Fn() -> Vec<(Kind, Cause)> + Sync + Send + 'static) {
    let (verdicts, orders) = every_order(2, script);
    println!("{name}: {verdicts:?} among {orders} orders");
    assert!(verdicts.contains(expected), "{name}: {verdicts:?}");
}

/// Two cores zap overlapping ranges: each may find cleared what the other has not flushed.
fn two_zaps(remedy: Remedy, fault: Option<Fault>) -> Vec<(Kind, Cause)> {
    let play = Play::new(2, remedy, fault);
    let other = play.start(1, |play| play.zap(1, page(A)));
    be(0);
    play.zap(0, range(A, 2 * PAGE));
    other.join().expect("no panic");
    play.verdicts()
}

/// The same with a table freed, and the page mapped again: t1 and t2 of 2019.
fn race_of_2019(remedy: Remedy, fault: Option<Fault>) -> Vec<(Kind, Cause)> {
    let play = Play::new(2, remedy, fault);
    let other = play.start(1, |play| play.zap(1, page(STACK)));
    be(0);
    play.change(|edit| edit.unmap(range(A, 2 * PAGE))).expect("mapped");
    play.change(|edit| edit.map(page(A), frame(7), RW)).expect("free");
    other.join().expect("no panic");
    play.verdicts()
}

/// One core unmaps, a table with it; another maps there as soon as it may, if in the same place or beneath the same table.
fn map_over(remedy: Remedy, fault: Option<Fault>, va: u64) -> Vec<(Kind, Cause)> {
    let play = Play::new(2, remedy, fault);
    let other = play.start(1, move |play| {
        let mapped = play.change(|edit| edit.map(page(va), frame(8), RW));
        assert!(matches!(mapped, Ok(()) | Err(Error::AlreadyMapped { .. })), "{mapped:?}");
    });
    be(0);
    play.change(|edit| edit.unmap(range(A, 2 * PAGE))).expect("mapped");
    other.join().expect("no panic");
    play.verdicts()
}

#[test]
fn whoever_returns_finds_nothing_stale() {
    for remedy in REMEDIES {
        silent(&format!("two zaps, {remedy:?}"), move || two_zaps(remedy, None));
    }
}

#[test]
fn tables_freed_in_company_are_flushed() {
    for remedy in REMEDIES {
        silent(&format!("2019, {remedy:?}"), move || race_of_2019(remedy, None));
    }
}

#[test]
fn nothing_is_mapped_over_what_is_pending() {
    for remedy in REMEDIES {
        for va in [A, A + 0x10_0000] {
            silent(&format!("map over {va:#x}, {remedy:?}"), move || map_over(remedy, None, va));
        }
    }
}

/// Three changes at once that find each other's entries cleared, and all of them return. One preemption: each of two cores that
/// wait for the table of the third makes new orders with every look.
#[test]
fn three_finishes_never_wait_for_each_other() {
    for remedy in REMEDIES {
        silent_with(1, &format!("three zaps, {remedy:?}"), move || {
            let play = Play::new(3, remedy, None);
            let others = [1, 2].map(|pe| play.start(pe, move |play| play.zap(pe, page(A))));
            be(0);
            play.zap(0, page(A));
            others.into_iter().for_each(|other| other.join().expect("no panic"));
            play.verdicts()
        });
    }
}

#[test]
fn the_faulty_twins_are_caught() {
    for remedy in REMEDIES {
        caught(&format!("unflushed neighbour, {remedy:?}"), "claimed no-invalidation", move || {
            two_zaps(remedy, Some(Fault::UnflushedNeighbour))
        });
        caught(&format!("lost freed tables, {remedy:?}"), "remade leaf-only", move || {
            race_of_2019(remedy, Some(Fault::LostFreedTables))
        });
        caught(&format!("lowered before the flush, {remedy:?}"), "claimed no-invalidation", move || {
            two_zaps(remedy, Some(Fault::LoweredBeforeFlush))
        });
        caught(&format!("map over pending, {remedy:?}"), "remade no-invalidation", move || {
            map_over(remedy, Some(Fault::MapOverPending), A)
        });
        caught(&format!("lowered before the flush, mapped over, {remedy:?}"), "remade no-invalidation", move || {
            map_over(remedy, Some(Fault::LoweredBeforeFlush), A)
        });
    }
}
