//! What a change costs that ends while others are open, by remedy: on simulated PEs, and on the firmware's cores.
//!
//! Simulated: `company` changes are open at once in a space that `pes` PEs have loaded. Each removes its range; when all have,
//! they end one after the other. Each PE holds the 64 hot pages of its thread and the tables above them. Counted for each
//! change: TLBIs, the PEs they reach, DSBs, entries that are taken from some PE and still are in the tables, and how many other
//! changes its finish waited for. Nothing is measured in time, so the figures are the same in every run.
//!
//! Firmware: the stress scenario on QEMU (without the checker), the same seed for all remedies. Run `make build` first.

#[allow(dead_code, reason = "nothing is promised here")]
mod report;

use pgtable::{AddressSpace, Attributes, FrameAllocator, Remedy, TableMemory};
use report::Figure;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use system_tests::Board;
use tlbi::{Asid, Dsb, Features, Issue, Op, PhysAddr, Pinned, Target, Tlb, VaRange, VirtAddr};

const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const REMEDIES: [(&str, Remedy); 4] =
    [("a", Remedy::WholeRange), ("b", Remedy::WholeSpace), ("c", Remedy::Counters), ("d", Remedy::Wait)];
const RANGES: Features = Features { asid_bits: 16, ets2: true, ttl: true, range: true, ..Features::NONE };
const SINGLES: Features = Features { range: false, ..RANGES };

/// Hot pages of a thread, and where those of the first begin; its neighbours' follow, a table each.
const HOT: u64 = 64;
const HOT_AT: u64 = GOES_AT + (1 << 30);
/// Where the ranges are that go; a thread's are this far from the next one's.
const GOES_AT: u64 = 0x40_0000_0000;
const APART: u64 = 8 * BLOCK;

/// What each change removes.
#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    pages: u64,
    /// Their tables become empty.
    frees_tables: bool,
    /// All remove the same pages: the first one clears them, the others find them cleared.
    same: bool,
}

impl Work {
    /// Where the range of a thread begins.
    fn goes(self, thread: usize) -> u64 {
        GOES_AT + if self.same { 0 } else { thread as u64 * APART }
    }
}

const WORK: [Work; 4] = [
    Work { name: "4 pages", pages: 4, frees_tables: false, same: false },
    Work { name: "2,000 pages", pages: 2000, frees_tables: false, same: false },
    Work { name: "4 pages and their table", pages: 4, frees_tables: true, same: false },
    Work { name: "the same 4 pages", pages: 4, frees_tables: false, same: true },
];

thread_local! {
    static PE: Cell<usize> = const { Cell::new(0) };
}

struct OnePe;
// SAFETY: a thread is one simulated PE from its first statement to its last.
unsafe impl Pinned for OnePe {}

/// Frames of simulated memory: 0 is none.
struct Memory {
    words: Vec<AtomicU64>,
    next: AtomicUsize,
    free: Mutex<Vec<u64>>,
}

impl Memory {
    fn new(frames: usize) -> Self {
        let words = (0..frames * 512).map(|_| AtomicU64::new(0)).collect();
        Self { words, next: AtomicUsize::new(1), free: Mutex::new(Vec::new()) }
    }

    fn word(&self, entry: PhysAddr) -> &AtomicU64 {
        &self.words[(entry.bits() / 8) as usize]
    }
}

// SAFETY: words are atomic, and simulated walkers read the same ones.
unsafe impl TableMemory for Memory {
    fn load(&self, entry: PhysAddr) -> u64 {
        self.word(entry).load(Ordering::Relaxed)
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

// SAFETY: a frame is handed out once until it is freed.
unsafe impl FrameAllocator for Memory {
    fn allocate(&self) -> Option<PhysAddr> {
        let freed = self.free.lock().expect("no panic").pop();
        let frame = freed.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed) as u64 * PAGE);
        ((frame / PAGE) < self.words.len() as u64 / 512).then(|| PhysAddr::new(frame))
    }
    fn free(&self, frame: PhysAddr) {
        self.free.lock().expect("no panic").push(frame.bits());
    }
}

/// An entry of a TLB or walk cache: its level, and the first address that it translates.
type Entry = (u8, u64);

fn entry(level: u8, va: u64) -> Entry {
    (level, va >> (39 - 9 * level) << (39 - 9 * level))
}

/// What has been issued, and what it took from the PEs.
#[derive(Clone, Default)]
struct Count {
    tlbis: u64,
    reached: u64,
    dsbs: u64,
    needless: u64,
}

/// PEs whose threads have been at their hot pages.
struct Pes {
    /// What each PE holds, refilled after every change.
    hold: Vec<BTreeSet<Entry>>,
    count: Mutex<Count>,
    /// Taken in the change that a thread is ending.
    taken: Mutex<Vec<BTreeSet<(usize, Entry)>>>,
}

impl Pes {
    fn new(pes: usize, work: Work) -> Self {
        let holds = |pe: usize| {
            let hot = (0..HOT).map(|n| HOT_AT + pe as u64 * BLOCK + n * PAGE);
            let hot = hot.flat_map(|va| (0..4).map(move |level| entry(level, va)));
            // A table that goes is not taken needlessly.
            let stay = if work.frees_tables { 0..2 } else { 0..3 };
            hot.chain(stay.map(|level| entry(level, work.goes(pe)))).collect()
        };
        let hold = (0..pes).map(holds).collect();
        Self { hold, count: Mutex::default(), taken: Mutex::new(vec![BTreeSet::new(); pes]) }
    }

    fn take(&self, is_taken: impl Fn(&Entry) -> bool) {
        let mut taken = self.taken.lock().expect("no panic");
        for (pe, hold) in self.hold.iter().enumerate() {
            taken[PE.get()].extend(hold.iter().filter(|entry| is_taken(entry)).map(|entry| (pe, *entry)));
        }
    }

    /// The change of this thread has ended: everything it took is hot and in the tables still.
    fn settle(&self) {
        let taken = std::mem::take(&mut self.taken.lock().expect("no panic")[PE.get()]);
        self.count.lock().expect("no panic").needless += taken.len() as u64;
    }
}

// SAFETY: stands for PEs that hold what `hold` says; each operation is performed completely.
unsafe impl Issue for Pes {
    fn tlbi(&self, op: Op) {
        {
            let mut count = self.count.lock().expect("no panic");
            count.tlbis += 1;
            count.reached += self.hold.len() as u64;
        }
        match op.target {
            Target::Va { va, leaf_only, .. } => {
                let va = va.bits();
                self.take(|e| *e == entry(e.0, va) && (!leaf_only || e.0 == 3));
            }
            Target::VaRange { pages, leaf_only, .. } => {
                let (first, last) = (pages.first_va(), pages.first_va() + pages.size() - 1);
                let overlaps = |e: &Entry| e.1 <= last && e.1 + (1 << (39 - 9 * e.0)) > first;
                self.take(|e| overlaps(e) && (!leaf_only || e.0 == 3));
            }
            _ => self.take(|_| true),
        }
    }
    fn dsb(&self, _: Dsb) {
        self.count.lock().expect("no panic").dsbs += 1;
    }
    fn isb(&self) {}
}

/// Whose turn it is.
#[derive(Default)]
struct Step(Mutex<usize>, Condvar);

impl Step {
    fn wait_for(&self, step: usize) {
        drop(self.1.wait_while(self.0.lock().expect("no panic"), |at| *at != step).expect("no panic"));
    }

    fn next(&self) {
        *self.0.lock().expect("no panic") += 1;
        self.1.notify_all();
    }
}

/// What one change cost, on average.
#[derive(Clone, Copy, PartialEq)]
struct Cost {
    tlbis: f64,
    reached: f64,
    dsbs: f64,
    needless: f64,
    waited: f64,
}

fn pages(first: u64, count: u64) -> VaRange {
    VaRange::new(VirtAddr::new(first), count * PAGE).expect("a range of the lower half")
}

/// `company` changes at once, in a space that `pes` PEs have loaded.
fn simulate(work: Work, remedy: Remedy, features: Features, pes: usize, company: usize) -> Cost {
    let memory = Memory::new(8 * pes + 64 * company + 64);
    let machine = Pes::new(pes, work);
    let space: AddressSpace<_, _> =
        AddressSpace::new(&memory, &memory, Asid::new(7), 48).expect("a frame").with_remedy(remedy);
    let tlb = Tlb::new(&machine, features);
    let map = |range, frame| {
        let mapped = space.change(&tlb, &OnePe, &mut |_| (), |edit| edit.map(range, frame, Attributes::USER_DATA));
        mapped.expect("free");
    };
    for pe in 0..pes as u64 {
        map(pages(HOT_AT + pe * BLOCK, HOT), PhysAddr::new(0x1_0000_0000));
    }
    for thread in 0..if work.same { 1 } else { company } {
        map(pages(work.goes(thread), work.pages), PhysAddr::new(0x1_0000_0000));
    }
    // The tables above them stay.
    map(pages(HOT_AT - PAGE, 1), PhysAddr::new(0x1_0000_0000));
    *machine.count.lock().expect("no panic") = Count::default();

    let (step, waited) = (Step::default(), AtomicU64::new(0));
    let closed = || (space.census().begun - space.census().open as u64) as usize;
    let before = closed();
    std::thread::scope(|scope| {
        for thread in 0..company {
            let (space, machine, tlb, step, waited, closed) = (&space, &machine, &tlb, &step, &waited, &closed);
            scope.spawn(move || {
                PE.set(thread);
                space.change(tlb, &OnePe, &mut |_| (), |edit| {
                    step.wait_for(thread);
                    let range = pages(work.goes(thread), work.pages);
                    if work.frees_tables { edit.unmap(range) } else { edit.zap(range) }.expect("mapped");
                    step.next();
                    // They end in the order in which they began.
                    step.wait_for(company + thread);
                    while closed() != before + thread {
                        std::thread::yield_now();
                    }
                    step.next();
                });
                if remedy == Remedy::Wait {
                    waited.fetch_add((closed() - before - thread - 1) as u64, Ordering::Relaxed);
                }
                machine.settle();
            });
        }
    });
    let count = machine.count.lock().expect("no panic").clone();
    let each = |total: u64| total as f64 / company as f64;
    Cost {
        tlbis: each(count.tlbis),
        reached: each(count.reached),
        dsbs: each(count.dsbs),
        needless: each(count.needless),
        waited: each(waited.into_inner()),
    }
}

const PES: [usize; 6] = [2, 4, 8, 16, 32, 64];
/// Changes at once, at most: where they wait for each other they spin, on real threads.
const MOST: usize = 16;

fn simulated(figures: &mut Vec<Figure>) {
    for (ranges, features) in [("with range operations", RANGES), ("without range operations", SINGLES)] {
        for work in WORK {
            let mut rows = Vec::new();
            for (name, remedy) in REMEDIES {
                let two: Vec<Cost> = PES.iter().map(|pes| simulate(work, remedy, features, *pes, 2)).collect();
                let all: Vec<Cost> =
                    PES.iter().map(|pes| simulate(work, remedy, features, *pes, MOST.min(*pes))).collect();
                for (company, costs) in [("two", &two), ("all, 16 at most,", &all)] {
                    for (pes, cost) in PES.iter().zip(costs) {
                        let workload = format!("{}, {ranges}, {pes} PEs, {company} in company", work.name);
                        let mut figure = |value, unit| figures.push(Figure::new(&workload, name, value, unit));
                        figure(cost.tlbis, "TLBIs");
                        figure(cost.reached, "PEs reached");
                        figure(cost.dsbs, "DSBs");
                        figure(cost.needless, "entries invalidated needlessly");
                        figure(cost.waited, "changes waited for");
                    }
                }
                let at = |costs: &[Cost], pes| costs[PES.iter().position(|n| *n == pes).unwrap_or(0)];
                let number = |value: f64| format!("{value:.1}").trim_end_matches(".0").to_owned();
                rows.push(vec![
                    name.to_owned(),
                    number(at(&two, 2).tlbis),
                    number(at(&two, 2).dsbs),
                    number(at(&two, 64).reached),
                    number(at(&two, 2).needless),
                    number(at(&two, 8).needless),
                    number(at(&two, 64).needless),
                    number(at(&all, 64).tlbis),
                    number(at(&all, 64).needless),
                    number(at(&two, 64).waited),
                    number(at(&all, 64).waited),
                ]);
            }
            report::print(
                &format!("{}, {ranges}: a change that ends in the company of one other, or of fifteen", work.name),
                &[
                    "",
                    "TLBIs",
                    "DSBs",
                    "reached/64",
                    "needless/2",
                    "/8",
                    "/64",
                    "16 changes: TLBIs",
                    "needless/64",
                    "waits",
                    "of 16",
                ],
                &rows,
            );
        }
    }
}

/// `# stress: 4010 unmaps, 7102 of 10021 changes ended in company, 4.822 s; 5120 TLBIs, 12310 DSBs, finish 12.7 us`
fn read_stress(stdout: &str) -> Option<[f64; 5]> {
    let line = stdout.lines().find(|line| line.contains(" unmaps, "))?;
    let words: Vec<&str> = line.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
    let before = |unit: &str| {
        let at = words.iter().position(|word| *word == unit)?;
        words.get(at - 1)?.parse::<f64>().ok()
    };
    Some([before("unmaps")?, before("of")?, before("TLBIs")?, before("DSBs")?, before("us")?])
}

fn firmware(figures: &mut Vec<Figure>) -> Result<(), String> {
    for (cpu, what) in [("max", "with range operations"), ("cortex-a57", "without range operations")] {
        let mut rows = Vec::new();
        for cores in [2, 4, 8] {
            for (name, _) in REMEDIES {
                let append = format!("fault=stress/correct unmaps=2000 seed=1 remedy={name}");
                let outcome = Board::new(cpu, cores, &append).run_plain();
                let stress = read_stress(&outcome.stdout).filter(|_| outcome.code == Some(0));
                let [unmaps, company, tlbis, dsbs, finish] = stress.ok_or(outcome.stdout + &outcome.stderr)?;
                let workload = format!("firmware, {cpu}, {cores} cores");
                let mut figure = |value, unit| figures.push(Figure::new(&workload, name, value, unit));
                figure(company / unmaps, "changes in company, an unmap");
                figure(tlbis / unmaps, "TLBIs, an unmap");
                figure(dsbs / unmaps, "DSBs, an unmap");
                figure(finish, "us, a finish (emulated)");
                let number = |value: f64| format!("{value:.2}");
                rows.push(vec![
                    format!("{cores} cores, {name}"),
                    number(company / unmaps),
                    number(tlbis / unmaps),
                    number(dsbs / unmaps),
                    format!("{finish:.0}"),
                ]);
            }
        }
        report::print(
            &format!("The firmware's stress on {cpu}, {what}: for each unmap"),
            &["", "changes in company", "TLBIs", "DSBs", "finish, us (emulated)"],
            &rows,
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut figures = Vec::new();
    simulated(&mut figures);
    let ran = firmware(&mut figures);
    let written: io::Result<_> = report::write("remedies", &figures);
    match (ran, written) {
        (Ok(()), Ok(path)) => {
            println!("written to {}", path.display());
            ExitCode::SUCCESS
        }
        (Err(error), _) => {
            eprintln!("remedies: the firmware did not run: {error}");
            ExitCode::FAILURE
        }
        (_, Err(error)) => {
            eprintln!("remedies: {error}");
            ExitCode::FAILURE
        }
    }
}
