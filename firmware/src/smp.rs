//! Every core: starting them, checking that they hear, and running something on several at once.
//!
//! A core counts as up only when its interrupts are on. Between jobs it waits in WFE with an Acquire load; handing a job over and
//! collecting it contains no DSB and no ISB, so that nothing a scenario shows is cured by how its cores are steered.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use aarch64_cpu::{
    asm,
    registers::{CNTFRQ_EL0, CNTKCTL_EL1, TPIDR_EL1},
};
use tock_registers::interfaces::{Readable, Writeable};

use crate::{
    boot::{SecondaryContext, secondary_entry_pa},
    exceptions::{self, Frame},
    mmu,
    platform::{self, MAX_CORES, gic},
    sync::{wait_at_most, wait_until},
};

/// How long a core may take to come up, or to hear an SGI.
const PATIENCE_MS: u64 = 10_000;

/// Cores wake from WFE at least this often.
const EVENTS_PER_SECOND: u64 = 10_000;

/// What one core tells the others. A cache line each.
#[repr(align(128))]
struct Core {
    up: AtomicBool,
    heard: AtomicU32,
    /// A `&'static str`: address without its high 16 bits, then length.
    doing: AtomicU64,
    /// Where SGI_WHERE interrupted it, and how often it did.
    at: AtomicU64,
    asked: AtomicU32,
}

static CORES: [Core; MAX_CORES] = [const {
    Core {
        up: AtomicBool::new(false),
        heard: AtomicU32::new(0),
        doing: AtomicU64::new(0),
        at: AtomicU64::new(0),
        asked: AtomicU32::new(0),
    }
}; MAX_CORES];

/// What a core finds when PSCI starts it; written before, read with the MMU just on.
struct Contexts(UnsafeCell<[SecondaryContext; MAX_CORES]>);

// SAFETY: element i is written by the boot core before core i exists, and only read after.
unsafe impl Sync for Contexts {}

static CONTEXTS: Contexts =
    Contexts(UnsafeCell::new([const { SecondaryContext { stack_top: 0, index: 0 } }; MAX_CORES]));

/// How many cores are up.
static COUNT: AtomicUsize = AtomicUsize::new(1);

type Job = dyn Fn(usize) + Sync;

/// The job at hand: one word says which it is and who takes part, so that nobody mixes two.
struct Board {
    /// Number of the job, shifted by 8; number of cores that run it.
    posted: AtomicU64,
    job: UnsafeCell<Option<*const Job>>,
    done: AtomicUsize,
    busy: AtomicBool,
}

// SAFETY: `job` is written by the boot core while no core runs a job (`busy`, `done`), before `posted` is stored with Release, and
// read only by cores that `posted` names, after they loaded it with Acquire and before they add to `done`.
unsafe impl Sync for Board {}

static BOARD: Board = Board {
    posted: AtomicU64::new(0),
    job: UnsafeCell::new(None),
    done: AtomicUsize::new(0),
    busy: AtomicBool::new(false),
};

/// How many cores are up; [`run`] takes as many.
pub fn core_count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// The index of the core that runs this; 0 is the boot core.
#[inline]
pub fn current_core() -> usize {
    TPIDR_EL1.get() as usize
}

/// Says what this core is at, for whoever has to tell where it hangs.
pub fn doing(what: &'static str) {
    let packed = (what.as_ptr() as u64) << 16 | (what.len() as u64 & 0xffff);
    CORES[current_core()].doing.store(packed, Ordering::Relaxed);
}

/// What core `core` last said that it was at.
pub fn what(core: usize) -> &'static str {
    match CORES.get(core).map_or(0, |core| core.doing.load(Ordering::Relaxed)) {
        0 => "starting",
        packed => {
            let at = (packed >> 16 | 0xffff << 48) as *const u8;
            // SAFETY: `doing` packed a `&'static str`; statics lie in the kernel's half, whose high 16 bits are all ones.
            unsafe { core::str::from_utf8_unchecked(core::slice::from_raw_parts(at, (packed & 0xffff) as usize)) }
        }
    }
}

/// Wakes this core from WFE regularly, so that a SEV that overtakes its store cannot leave it asleep.
pub fn enable_event_stream() {
    let bit = (CNTFRQ_EL0.get() / EVENTS_PER_SECOND).max(2).ilog2() - 1;
    CNTKCTL_EL1.write(CNTKCTL_EL1::EVNTEN::SET + CNTKCTL_EL1::EVNTI.val(u64::from(bit.min(15))));
}

/// Starts all cores, `most` in all, one after the other, and checks that each hears an SGI.
///
/// # Panics
/// With a message if one does not start or does not hear.
pub fn start(most: usize) {
    gic::on_sgi(gic::SGI_CHECK, |_| {
        CORES[current_core()].heard.fetch_add(1, Ordering::Release);
    });
    gic::on_sgi(gic::SGI_WHERE, note_where);
    CORES[0].up.store(true, Ordering::Relaxed);
    for core in 1..platform::core_count().min(most) {
        start_one(core);
    }
}

fn start_one(core: usize) {
    let mpidr = platform::mpidr(core);
    let stack_top = mmu::map_stack(core).unwrap_or_else(|error| panic!("stack of core {core}: {error}"));
    // SAFETY: core `core` does not run yet, and nobody else reads its context.
    let context = unsafe {
        let context = &raw mut (*CONTEXTS.0.get())[core];
        context.write(SecondaryContext { stack_top, index: core as u64 });
        context
    };
    // The new core reads its context with caches and MMU on; map_stack's DSB and PSCI order its start after these stores.
    platform::cpu_on(mpidr, secondary_entry_pa(), context as u64)
        .unwrap_or_else(|error| panic!("core {core} (affinity {mpidr:#x}): CPU_ON: {error}"));
    assert!(
        wait_at_most(PATIENCE_MS, || CORES[core].up.load(Ordering::Acquire)),
        "core {core} (affinity {mpidr:#x}) did not come up within {PATIENCE_MS} ms"
    );
    COUNT.store(core + 1, Ordering::Relaxed);
    gic::send_sgi(core, gic::SGI_CHECK);
    assert!(
        wait_at_most(PATIENCE_MS, || CORES[core].heard.load(Ordering::Acquire) == 1),
        "core {core} (affinity {mpidr:#x}) is up but heard no SGI within {PATIENCE_MS} ms"
    );
}

/// Where boot.S sends a secondary core.
pub(crate) extern "C" fn secondary_main() -> ! {
    let me = current_core();
    doing("starting");
    enable_event_stream();
    gic::init_core(me);
    exceptions::unmask();
    CORES[me].up.store(true, Ordering::Release);
    asm::sev();
    let mut seen = BOARD.posted.load(Ordering::Acquire);
    loop {
        doing("waiting for a job");
        let mut posted = seen;
        wait_until(|| {
            posted = BOARD.posted.load(Ordering::Acquire);
            posted != seen
        });
        seen = posted;
        if me >= (posted & 0xff) as usize {
            continue;
        }
        doing("running a job");
        // SAFETY: `posted` names this core, see `Board`; `run` keeps the job alive until all have added to `done`.
        let job = unsafe { (*BOARD.job.get()).map(|job| &*job) };
        if let Some(job) = job {
            job(me);
        }
        BOARD.done.fetch_add(1, Ordering::Release);
        asm::sev();
    }
}

/// Runs `job(core)` on cores 0..`cores` at once and returns when all have returned. Only for the boot core, which is core 0; not
/// from within a job.
///
/// # Panics
/// With more cores than [`core_count`], on another core, or nested.
pub fn run(cores: usize, job: &(dyn Fn(usize) + Sync)) {
    assert!((1..=core_count()).contains(&cores), "a job for {cores} of {} cores", core_count());
    assert!(
        current_core() == 0 && !BOARD.busy.swap(true, Ordering::Relaxed),
        "jobs come from the boot core, one at a time"
    );
    // SAFETY: only the lifetime changes. This function does not return, and the job stays borrowed, until every core that may
    // use the pointer has added to `done`.
    let shared = unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Job>(job) };
    // SAFETY: no job is running, see `Board`.
    unsafe { *BOARD.job.get() = Some(shared) };
    BOARD.done.store(0, Ordering::Relaxed);
    let number = (BOARD.posted.load(Ordering::Relaxed) >> 8) + 1;
    BOARD.posted.store(number << 8 | cores as u64, Ordering::Release);
    asm::sev();
    job(0);
    wait_until(|| BOARD.done.load(Ordering::Acquire) == cores - 1);
    BOARD.busy.store(false, Ordering::Relaxed);
}

fn note_where(frame: &mut Frame) {
    let core = &CORES[current_core()];
    core.at.store(frame.elr, Ordering::Relaxed);
    core.asked.fetch_add(1, Ordering::Release);
}

/// Asks another core where it is; nothing if it does not answer, because its interrupts are masked.
pub fn ask_where(core: usize) -> Option<u64> {
    let before = CORES[core].asked.load(Ordering::Relaxed);
    gic::send_sgi(core, gic::SGI_WHERE);
    let answered = wait_at_most(200, || CORES[core].asked.load(Ordering::Acquire) != before);
    answered.then(|| CORES[core].at.load(Ordering::Relaxed))
}
