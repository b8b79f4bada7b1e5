//! Real threads that edit one space at random, their ranges overlapping, with a thread that walks the tables as hardware would.
//!
//! Memory is what threads share, without a model: what is checked is that no page is lost, given back twice or seen where it never
//! was, that a table is never read after it was freed, and that a space that is quiet has as many tables as it needs.

use pgtable::*;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tlbi::{Asid, Dsb, Features, Issue, Op, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

const FRAMES: usize = 256;
const PAGE: u64 = 4096;
const POISON: u64 = 0xdead_dead_dead_deac;

/// Frames of tables; what is freed is poisoned, and handed out again at once.
struct Memory {
    words: Vec<AtomicU64>,
    free: Mutex<Vec<u64>>,
    used: AtomicUsize,
    read_poison: AtomicBool,
}

impl Memory {
    fn new() -> Self {
        Self {
            words: (0..FRAMES * 512).map(|_| AtomicU64::new(POISON)).collect(),
            free: Mutex::new((0..FRAMES as u64).map(|n| n * PAGE).collect()),
            used: AtomicUsize::new(0),
            read_poison: AtomicBool::new(false),
        }
    }

    fn word(&self, pa: PhysAddr) -> &AtomicU64 {
        &self.words[(pa.bits() / 8) as usize]
    }
}

// SAFETY: every access is one atomic access to memory that lives as long as the space.
unsafe impl TableMemory for Memory {
    fn load(&self, entry: PhysAddr) -> u64 {
        let value = self.word(entry).load(Ordering::Relaxed);
        if value == POISON {
            self.read_poison.store(true, Ordering::Relaxed);
        }
        value
    }
    fn store(&self, entry: PhysAddr, value: u64) {
        self.word(entry).store(value, Ordering::Relaxed);
    }
    fn store_release(&self, entry: PhysAddr, value: u64) {
        self.word(entry).store(value, Ordering::Release);
    }
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        self.word(entry).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

// SAFETY: a frame is handed out once until it comes back.
unsafe impl FrameAllocator for Memory {
    fn allocate(&self) -> Option<PhysAddr> {
        let frame = self.free.lock().expect("no panic").pop().map(PhysAddr::new)?;
        self.used.fetch_add(1, Ordering::Relaxed);
        Some(frame)
    }
    fn free(&self, frame: PhysAddr) {
        for n in 0..512 {
            self.store(PhysAddr::new(frame.bits() + 8 * n), POISON);
        }
        self.used.fetch_sub(1, Ordering::Relaxed);
        self.free.lock().expect("no panic").push(frame.bits());
    }
}

struct Nothing;
// SAFETY: stands for no PE: what is cached is not this test's subject.
unsafe impl Issue for Nothing {
    fn tlbi(&self, _: Op) {}
    fn dsb(&self, _: Dsb) {}
    fn isb(&self) {}
}

struct Pin;
// SAFETY: stands for no PE.
unsafe impl Pinned for Pin {}

/// xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Three 2 MiB spans around a corner of tables.
const REGION: u64 = (1 << 39) - (2 << 20);
const PAGES: u64 = 3 * 512;
/// Every mapping has a number; its frames begin at so many bytes times that.
const SERIAL: u64 = 1 << 24;

/// What must be so of a page, whoever mapped it.
fn belongs(m: &Mapping) -> bool {
    m.frame.bits() % SERIAL == m.va.bits() - REGION
}

fn play(remedy: Remedy, bbm: u8, seed: u64) {
    let memory = Memory::new();
    let space: AddressSpace<&Memory, &Memory> =
        AddressSpace::new(&memory, &memory, Asid::new(1), 48).expect("a frame").with_remedy(remedy);
    let serial = AtomicU64::new(1);
    let over = AtomicBool::new(false);
    // Pages mapped less pages given back, by where and which frame.
    let balance: Mutex<HashMap<(u64, u64), i64>> = Mutex::new(HashMap::new());
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3u64)
            .map(|n| {
                let (space, serial, balance) = (&space, &serial, &balance);
                scope.spawn(move || {
                    let tlb = Tlb::new(Nothing, Features { asid_bits: 16, bbm, ..Features::NONE });
                    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed * 31 + n + 1));
                    let mut mine: HashMap<(u64, u64), i64> = HashMap::new();
                    for _ in 0..600 {
                        let long = random.draw(4) == 0;
                        let pages = 1 + random.draw(if long { 700 } else { 20 });
                        let first = random.draw(PAGES - pages + 1);
                        let range = VaRange::new(VirtAddr::new(REGION + first * PAGE), pages * PAGE).expect("a range");
                        let number = serial.fetch_add(1, Ordering::Relaxed);
                        let frame = PhysAddr::new(number * SERIAL + first * PAGE);
                        let mut back = Vec::new();
                        let mapped =
                            space.change(&tlb, &Pin, &mut |r: Released| back.push(r), |edit| match random.draw(12) {
                                0..=4 => edit.map(range, frame, Attributes::USER_DATA).is_ok(),
                                5 | 6 => matches!(edit.unmap(range), Err(Error::Busy { .. })),
                                7 | 8 => edit.zap(range).is_err(),
                                9 => edit.protect(range, Attributes::USER_RODATA).is_err(),
                                10 => edit.fold(range).is_err(),
                                _ => {
                                    let mut cursor = edit.cursor(range).expect("a range");
                                    while cursor.position().is_some() {
                                        cursor.unmap().expect("frames for a split");
                                    }
                                    false
                                }
                            });
                        if mapped {
                            (0..pages)
                                .for_each(|n| *mine.entry((first + n, frame.bits() + n * PAGE)).or_insert(0) += 1);
                        }
                        for r in back {
                            for n in 0..r.size / PAGE {
                                let page = (r.va.bits() - REGION) / PAGE + n;
                                *mine.entry((page, r.frame.bits() + n * PAGE)).or_insert(0) -= 1;
                            }
                        }
                    }
                    let mut all = balance.lock().expect("no panic");
                    mine.into_iter().for_each(|(page, count)| *all.entry(page).or_insert(0) += count);
                })
            })
            .collect();
        let walker = scope.spawn(|| {
            let mut random = Random(seed + 77);
            while !over.load(Ordering::Relaxed) {
                space.for_each(&mut |m| {
                    assert!(belongs(&m), "{m:?}");
                    seen.fetch_add(1, Ordering::Relaxed);
                });
                for _ in 0..100 {
                    let page = random.draw(PAGES);
                    if let Some(m) = space.lookup(VirtAddr::new(REGION + page * PAGE)) {
                        assert!(belongs(&m), "{m:?}");
                    }
                }
            }
        });
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        over.store(true, Ordering::Relaxed);
        walker.join().expect("no panic");
    });
    assert!(seen.into_inner() > 1000, "the walker saw something");
    assert!(!memory.read_poison.load(Ordering::Relaxed), "a table was read after it was freed");

    // What is mapped now is what was mapped and did not come back.
    let mut mapped = HashMap::new();
    space.for_each(&mut |m| {
        for n in 0..(1u64 << (12 + 9 * (3 - m.level().number()))) / PAGE {
            mapped.insert(((m.va.bits() - REGION) / PAGE + n, m.frame.bits() + n * PAGE), 1);
        }
    });
    let mut left = balance.into_inner().expect("no panic");
    left.retain(|_, count| *count != 0);
    assert_eq!(left.len(), mapped.len());
    assert!(left == mapped, "a page was lost, or came back twice");

    // Nothing is taken any more, and everything can be given back.
    let tlb = Tlb::new(Nothing, Features { asid_bits: 16, bbm, ..Features::NONE });
    let all = VaRange::new(VirtAddr::new(REGION), PAGES * PAGE).expect("a range");
    let zapped = space.try_change(&tlb, &Pin, &mut |_| (), |edit| edit.zap(all));
    assert_eq!(zapped, Ok(Ok(())));
    space.change(&tlb, &Pin, &mut |_| (), |edit| {
        edit.map(all, PhysAddr::new(SERIAL), Attributes::USER_DATA).expect("free");
        edit.unmap(all).expect("mapped");
    });
    space.reclaim();
    assert_eq!(memory.used.load(Ordering::Relaxed), 1, "the root");
}

#[test]
fn overlapping_edits_lose_nothing_and_a_walker_sees_nothing_else() {
    let remedies = [Remedy::WholeRange, Remedy::WholeSpace, Remedy::Counters, Remedy::Wait];
    for (n, remedy) in remedies.into_iter().enumerate() {
        play(remedy, n as u8, 7 + n as u64);
    }
}
