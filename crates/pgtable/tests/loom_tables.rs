//! Who has which table, and how long a freed one is kept, under every order of two cores' accesses to entries.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p pgtable --test loom_tables --release`
//!
//! The real space; every entry that is ever anything but zero is an atomic of the model checker, so that it tries every order of
//! loads, stores and compare-exchanges, and every value that the memory model lets a load return. Nothing is said of TLBs here.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use pgtable::{AddressSpace, Attributes, Edit, Error, FrameAllocator, TableMemory};
use std::collections::BTreeSet;
use std::sync::Mutex;
use tlbi::{Asid, Dsb, Features, Issue, Level, Op, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

const PAGE: u64 = 4096;
const A: u64 = 0x4000_0000;
const B: u64 = A + PAGE;
/// The first page beneath the next table of pages.
const C: u64 = A + (2 << 20);

/// Frames that there are, and entries of each that these scripts ever make anything but zero.
const FRAMES: u64 = 8;
const ENTRIES: u64 = 2;

/// Frames that are free must not be read.
struct Words {
    words: Vec<AtomicU64>,
    used: Mutex<BTreeSet<u64>>,
}

#[derive(Clone)]
struct Memory(Arc<Words>);

impl Memory {
    fn new() -> Self {
        let words = (0..FRAMES * ENTRIES).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Words { words, used: Mutex::default() }))
    }

    /// `None` for the entries that are always zero.
    fn word(&self, pa: PhysAddr) -> Option<&AtomicU64> {
        let (frame, index) = (pa.bits() / PAGE - 1, pa.bits() % PAGE / 8);
        if index < ENTRIES { self.0.words.get((frame * ENTRIES + index) as usize) } else { None }
    }

    fn used(&self) -> usize {
        self.0.used.lock().expect("no panic").len()
    }
}

// SAFETY: each access is one atomic access, as the model checker has it.
unsafe impl TableMemory for Memory {
    fn load(&self, entry: PhysAddr) -> u64 {
        let value = self.word(entry).map_or(0, |word| word.load(Ordering::Relaxed));
        let table = entry.bits() & !(PAGE - 1);
        assert!(self.0.used.lock().expect("no panic").contains(&table), "the freed table {table:#x} is read");
        value
    }
    fn store(&self, entry: PhysAddr, value: u64) {
        match self.word(entry) {
            Some(word) => word.store(value, Ordering::Relaxed),
            None => assert_eq!(value, 0),
        }
    }
    fn store_release(&self, entry: PhysAddr, value: u64) {
        self.word(entry).expect("an entry that these scripts use").store(value, Ordering::Release);
    }
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        let word = self.word(entry).expect("an entry that these scripts use");
        word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

// SAFETY: the lowest free frame, once until it comes back.
unsafe impl FrameAllocator for Memory {
    fn allocate(&self) -> Option<PhysAddr> {
        let mut used = self.0.used.lock().expect("no panic");
        let frame = (1..=FRAMES).map(|n| n * PAGE).find(|frame| !used.contains(frame))?;
        used.insert(frame);
        Some(PhysAddr::new(frame))
    }
    fn free(&self, frame: PhysAddr) {
        assert!(self.0.used.lock().expect("no panic").remove(&frame.bits()), "{frame} is freed twice");
    }
}

struct Nothing;
// SAFETY: stands for no PE.
unsafe impl Issue for Nothing {
    fn tlbi(&self, _: Op) {}
    fn dsb(&self, _: Dsb) {}
    fn isb(&self) {}
}

struct Pin;
// SAFETY: stands for no PE.
unsafe impl Pinned for Pin {}

#[derive(Clone)]
struct Play {
    memory: Memory,
    space: Arc<AddressSpace<Memory, Memory>>,
}

impl Play {
    fn new(pages: &[u64]) -> Self {
        let memory = Memory::new();
        let space = AddressSpace::new(memory.clone(), memory.clone(), Asid::new(1), 40).expect("a frame");
        let play = Self { memory, space: Arc::new(space) };
        for va in pages {
            play.change(|edit| edit.map(page(*va), frame(*va), Attributes::USER_DATA)).expect("free");
        }
        play
    }

    fn change<R>(&self, body: impl FnOnce(&mut Edit<'_, Memory, Memory, Nothing, Pin>) -> R) -> R {
        let tlb = Tlb::new(Nothing, Features { asid_bits: 16, ..Features::NONE });
        self.space.change(&tlb, &Pin, &mut |_| (), body)
    }

    fn with(&self, part: impl FnOnce(&Self) + 'static) -> loom::thread::JoinHandle<()> {
        let play = self.clone();
        loom::thread::spawn(move || part(&play))
    }

    /// Exactly these pages are mapped, by as few tables as that takes at least; nothing is taken.
    fn check(&self, pages: &[u64], spare: usize) {
        let mut mapped = Vec::new();
        self.space.for_each(&mut |m| mapped.push((m.va.bits(), m.frame)));
        assert_eq!(mapped, pages.iter().map(|va| (*va, frame(*va))).collect::<Vec<_>>());
        let tlb = Tlb::new(Nothing, Features { asid_bits: 16, ..Features::NONE });
        let all = VaRange::new(VirtAddr::new(A), 4 << 20).expect("a range");
        let free = self.space.try_change(&tlb, &Pin, &mut |_| (), |edit| edit.zap(all));
        let words: Vec<u64> = self.memory.0.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!(free, Ok(Ok(())), "a table is still taken: {words:x?}");
        self.space.reclaim();
        let spans: BTreeSet<u64> = pages.iter().map(|va| va >> 21).collect();
        let needed = if spans.is_empty() { 1 } else { 3 + spans.len() };
        let used = self.memory.used();
        assert!((needed..=needed + spare).contains(&used), "{used} tables for {pages:x?}");
    }
}

fn page(va: u64) -> VaRange {
    VaRange::new(VirtAddr::new(va), PAGE).expect("a page")
}

fn frame(va: u64) -> PhysAddr {
    PhysAddr::new(0x1_0000_0000 + (va - A))
}

#[track_caller]
fn every_order(name: &str, preemptions: usize, script: impl Fn() + Sync + Send + 'static) {
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = orders.clone();
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(preemptions);
    checker.max_branches = 100_000;
    checker.check(move || {
        script();
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
    println!("{name}: {orders} orders");
    assert!(orders > 10, "{name}: there are more orders than {orders}");
}

/// One core empties a table and frees it; another maps into it.
#[test]
fn nothing_is_mapped_into_a_table_that_goes_away() {
    every_order("unmap and map", 1, || {
        let play = Play::new(&[A]);
        let other = play.with(|play| {
            play.change(|edit| edit.map(page(B), frame(B), Attributes::USER_DATA)).expect("free");
        });
        play.change(|edit| edit.unmap(page(A))).expect("mapped");
        other.join().expect("no panic");
        play.check(&[B], 0);
    });
}

/// Two cores empty one table: who comes last frees it, unless each found it in the other's hands.
#[test]
fn a_table_is_freed_once() {
    every_order("unmap twice", 2, || {
        let play = Play::new(&[A, B]);
        let other = play.with(|play| play.change(|edit| edit.unmap(page(B))).expect("mapped"));
        play.change(|edit| edit.unmap(page(A))).expect("mapped");
        other.join().expect("no panic");
        // Freed frames are missed by `Memory::free`.
        play.check(&[], 3);
    });
}

/// A walk without locks beside an unmap that frees what it stands in, and a map that would take the frame again.
#[test]
fn a_reader_never_stands_in_a_freed_table() {
    every_order("lookup beside unmap and map", 2, || {
        let play = Play::new(&[A]);
        let other = play.with(|play| {
            if let Some(found) = play.space.lookup(VirtAddr::new(A)) {
                assert_eq!(found.frame, frame(A));
            }
        });
        play.change(|edit| edit.unmap(page(A))).expect("mapped");
        play.change(|edit| edit.map(page(C), frame(C), Attributes::USER_DATA)).expect("free");
        other.join().expect("no panic");
        play.check(&[C], 3);
    });
}

/// Two cores change the same two tables: both pages end with what the later one said.
#[test]
fn overlapping_edits_happen_one_after_the_other() {
    every_order("protect twice", 2, || {
        let play = Play::new(&[A, C]);
        let both = VaRange::new(VirtAddr::new(A), (2 << 20) + PAGE).expect("a range");
        let other =
            play.with(move |play| play.change(|edit| edit.protect(both, Attributes::USER_CODE)).expect("a range"));
        play.change(|edit| edit.protect(both, Attributes::USER_RODATA)).expect("a range");
        other.join().expect("no panic");
        let of = |va| play.space.lookup(VirtAddr::new(va)).map(|m| m.attributes);
        assert_eq!(of(A), of(C));
        assert!(of(A) == Some(Attributes::USER_CODE) || of(A) == Some(Attributes::USER_RODATA));
        play.check(&[A, C], 0);
        assert_ne!(play.space.table(VirtAddr::new(A), Level::L3), play.space.table(VirtAddr::new(C), Level::L3));
    });
}

/// Who must not wait is refused while the other has the table, and served otherwise.
#[test]
fn who_must_not_wait_is_told_so() {
    every_order("try", 2, || {
        let play = Play::new(&[A]);
        let other = play.with(|play| {
            let tlb = Tlb::new(Nothing, Features { asid_bits: 16, ..Features::NONE });
            let tried =
                play.space.try_change(&tlb, &Pin, &mut |_| (), |edit| edit.protect(page(A), Attributes::USER_RODATA));
            assert!(matches!(tried, Ok(Ok(()) | Err(Error::Busy { .. })) | Err(Error::Busy { .. })), "{tried:?}");
        });
        play.change(|edit| edit.protect(page(A), Attributes::USER_CODE)).expect("a range");
        other.join().expect("no panic");
        play.check(&[A], 0);
    });
}
