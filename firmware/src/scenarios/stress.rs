//! The program of the 2019 report, as long as one likes: threads map, write, unmap and exit in one address space, and drop their
//! stacks as they go.
//!
//! Each core draws its steps from a stream of its own; the seed is printed, and gives the same steps again (not the same
//! interleaving: that is the machine's). Pages of all cores lie beneath the same tables, so whoever unmaps the last one frees the
//! table, and whoever maps the next one links another.
//!
//! ```text
//!    eight spans of 2 MiB   │ core 0: 4 pages │ core 1: 4 pages │ ...     mapped, written and unmapped by their core
//!    one more               │ stack of core 0 │ stack of core 1 │ ...     dropped by anybody
//! ```
//!
//! Bootargs: `seed=N`; `unmaps=N` or `seconds=N` ends it, whichever comes first.

use alloc::{format, string::String};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgtable::{Attributes, Edit, Error, FrameAllocator, fault::Fault};
use tlbi::{VaRange, VirtAddr};

use super::{Billing, Form, Judge, Need};
use crate::{
    exceptions::probe,
    platform::bootargs,
    println,
    stage::{BLOCK, Linear, OnePe, PAGE, Pool, Stage, page},
    sync::{now, ticks},
    tamper::{Loss, Tampered},
    watchdog,
};

/// They run by name alone. What the faulty one is caught at is up to chance, so it expects nothing of itself.
pub const FORMS: &[Form] = &[
    Form {
        name: "stress/correct",
        judge: Judge::Cores,
        needs: &[],
        expected: &[],
        expected_bbm2: None,
        play: |b| play(b, None),
    },
    Form {
        name: "stress/lost-freed-tables",
        judge: Judge::Tlbsan,
        needs: &[Need::TwoCores],
        expected: &[],
        expected_bbm2: None,
        play: |b| play(b, Some(Fault::LostFreedTables)),
    },
];

/// Spans of 2 MiB, and how many of them a core uses at once: so few that the last page of a table goes often.
const SPANS: u64 = 8;
const SPANS_AT_ONCE: usize = 2;
/// Pages of one core in each span.
const OWN: u64 = 4;
const BASE: u64 = 0x4000_0000;
const STACKS: u64 = BASE + SPANS * BLOCK;

/// Rounds of waiting within a change and between two, one of each drawn at random: the upper limits.
const WITHIN: [u64; 3] = [1, 20, 200];
const BETWEEN: [u64; 3] = [1, 50, 1000];

/// Unmaps, and changes that found another one open at their end, on all cores.
static UNMAPS: AtomicU64 = AtomicU64::new(0);
static NESTED: AtomicU64 = AtomicU64::new(0);
/// Changes, and the time that they took to end: flush, give back, wait.
static CHANGES: AtomicU64 = AtomicU64::new(0);
static ENDING: AtomicU64 = AtomicU64::new(0);

type Change<'c, 's> = Edit<'c, Linear, &'s Pool, Tampered, OnePe>;

fn play(billing: &Billing, fault: Option<Fault>) -> Result<(), String> {
    let argument = |name| bootargs::number(name).map_err(|word| format!("{name}={word}: not a number"));
    let seed = argument("seed")?.unwrap_or_else(now);
    let unmaps = argument("unmaps")?.unwrap_or(u64::MAX);
    let seconds = argument("seconds")?;
    if unmaps == u64::MAX && seconds.is_none() {
        return Err("how long? unmaps=N or seconds=N".into());
    }
    println!("# stress: seed={seed:#x}");
    for count in [&UNMAPS, &NESTED, &CHANGES, &ENDING] {
        count.store(0, Relaxed);
    }
    let start = now();
    let deadline = start.saturating_add(ticks(seconds.unwrap_or(u64::MAX / 1000).saturating_mul(1000)));

    let outcome = Stage::play(billing.asid, Loss::Nothing, &|stage, core| {
        if core == 0 {
            stage.space.inject(fault);
        }
        let mut thread = Thread::new(stage, core, seed);
        while UNMAPS.load(Relaxed) < unmaps && now() < deadline && !stage.has_failed() {
            if core == 0 {
                watchdog::arm(STEP_SECONDS);
            }
            thread.step();
        }
        thread.exit();
    });
    let milliseconds = (now() - start) / ticks(1).max(1);
    let (tlbis, dsbs) = Tampered::counts();
    let microseconds = ENDING.load(Relaxed) * 1000 / ticks(1).max(1);
    println!(
        "# stress: {} unmaps, {} of {} changes ended in company, {}.{:03} s; {tlbis} TLBIs, {dsbs} DSBs, finish {} us",
        UNMAPS.load(Relaxed),
        NESTED.load(Relaxed),
        CHANGES.load(Relaxed),
        milliseconds / 1000,
        milliseconds % 1000,
        microseconds / CHANGES.load(Relaxed).max(1),
    );
    outcome
}

/// Far more than a step takes.
const STEP_SECONDS: u64 = 10;

/// What one core does.
struct Thread<'s, 'p> {
    stage: &'s Stage<'p>,
    core: u64,
    random: u64,
    /// Which of its pages are mapped, a bit each, by span.
    mapped: [u8; SPANS as usize],
    /// Grows with each page that is written.
    mark: u64,
}

impl<'s, 'p> Thread<'s, 'p> {
    fn new(stage: &'s Stage<'p>, core: usize, seed: u64) -> Self {
        let core = core as u64;
        // Streams of different cores share nothing for all practical purposes; 0 is the one bad start.
        let random = (seed ^ core.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        Self { stage, core, random, mapped: [0; SPANS as usize], mark: core << 48 }
    }

    /// A number below `below`: xorshift64*.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    /// Lets time pass, while others go on.
    fn dawdle(&mut self, limits: [u64; 3]) {
        let limit = limits[self.draw(3) as usize];
        for n in 0..self.draw(limit) {
            core::hint::black_box(n);
        }
    }

    fn change<R>(&mut self, body: impl FnOnce(&mut Self, &mut Change<'_, '_>) -> R) -> R {
        let stage = self.stage;
        let mut ends = 0;
        let result = stage.space.change(&stage.tlb, &OnePe, &mut |released| stage.pool.free(released.frame), |edit| {
            let result = body(self, edit);
            self.dawdle(WITHIN);
            if stage.space.census().open > 1 {
                NESTED.fetch_add(1, Relaxed);
            }
            ends = now();
            result
        });
        CHANGES.fetch_add(1, Relaxed);
        ENDING.fetch_add(now() - ends, Relaxed);
        result
    }

    /// One step: mmap and write, munmap, or drop stacks.
    fn step(&mut self) {
        let span = self.draw(SPANS);
        let used = self.mapped.iter().filter(|pages| **pages != 0).count();
        match self.draw(6) {
            0 => self.drop_stacks(),
            1 => self.push_stack(),
            _ if self.mapped[span as usize] != 0 => {
                self.unmap(span);
                if self.draw(2) == 0 {
                    self.map(span);
                }
            }
            _ if used < SPANS_AT_ONCE => self.map(span),
            _ => {}
        }
        // With the cores, so that as many changes are open at once.
        self.dawdle(BETWEEN.map(|rounds| rounds * self.stage.cores as u64));
    }

    /// Maps some of the core's pages and writes to them.
    fn map(&mut self, span: u64) {
        let pages = 1 + self.draw(OWN);
        let marks = self.mark + 1..=self.mark + pages;
        self.change(|me, edit| {
            for (n, mark) in (0..pages).zip(marks.clone()) {
                let frame = me.stage.frame(mark);
                me.stage.expect("map", edit.map(me.own(span, n), frame, Attributes::USER_DATA));
            }
        });
        for (n, mark) in (0..pages).zip(marks) {
            let va = self.own(span, n).start().bits();
            self.stage.sees(self.core as usize, va, mark);
            // SAFETY: aligned; the page is this core's, and so is the frame.
            if let Err(fault) = unsafe { probe::write(va, !mark) } {
                self.stage.fail(format!("core {} cannot write to {va:#x} (ESR {:#x})", self.core, fault.0));
            }
            self.stage.sees(self.core as usize, va, !mark);
        }
        self.mark += pages;
        self.mapped[span as usize] = pages as u8;
    }

    /// Unmaps them; they are gone for this core then.
    fn unmap(&mut self, span: u64) {
        let pages = u64::from(core::mem::take(&mut self.mapped[span as usize]));
        let first = self.own(span, 0).start();
        let Ok(range) = VaRange::new(first, pages * PAGE) else { return };
        let unmapped = self.change(|_, edit| edit.unmap(range));
        self.stage.expect("unmap", unmapped);
        UNMAPS.fetch_add(1, Relaxed);
        let gone = self.own(span, self.random % pages).start().bits();
        self.stage.faults(self.core as usize, gone);
    }

    /// Maps the core's stack, if it is not there.
    fn push_stack(&mut self) {
        let frame = self.stage.frame(self.mark);
        let stack = page(STACKS + self.core * PAGE);
        match self.change(|_, edit| edit.map(stack, frame, Attributes::USER_DATA)) {
            Ok(()) => {}
            Err(Error::AlreadyMapped { .. }) => self.stage.pool.free(frame),
            Err(error) => self.stage.fail(format!("map a stack: {error}")),
        }
    }

    /// Drops the stacks of every core: some of them another core has just dropped.
    fn drop_stacks(&mut self) {
        let Ok(stacks) = VaRange::new(VirtAddr::new(STACKS), self.stage.cores as u64 * PAGE) else { return };
        let dropped = self.change(|_, edit| edit.zap(stacks));
        self.stage.expect("drop stacks", dropped);
        UNMAPS.fetch_add(1, Relaxed);
    }

    /// The thread exits.
    fn exit(&mut self) {
        for span in 0..SPANS {
            if self.mapped[span as usize] != 0 {
                self.unmap(span);
            }
        }
    }

    /// The n-th of the core's pages in a span.
    fn own(&self, span: u64, n: u64) -> VaRange {
        page(BASE + span * BLOCK + (self.core * OWN + n) * PAGE)
    }
}
