//! Where a case is played: an address space of its own on every core, frames that come back in the order they went, and a place
//! to say what was seen.

use alloc::{collections::VecDeque, format, string::String};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, TTBR0_EL1};
use pgtable::{AddressSpace, Attributes, Error, FrameAllocator, Remedy, TableMemory};
use tlbi::{Asid, Features, Hardware, Issue, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};
use tock_registers::interfaces::{Readable, Writeable};

use crate::{
    exceptions::probe,
    frames, mmu,
    platform::bootargs,
    smp,
    steer::Steps,
    sync::Lock,
    tamper::{Loss, Tampered},
};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes that a level-2 entry translates.
pub const BLOCK: u64 = 2 << 20;

/// Tables through the linear map.
#[derive(Clone, Copy)]
pub struct Linear;

impl Linear {
    fn entry(pa: PhysAddr) -> &'static AtomicU64 {
        // SAFETY: the frames of a pool are RAM, which the linear map holds for ever; all access to tables is atomic.
        unsafe { &*mmu::phys_to_virt::<AtomicU64>(pa.bits()) }
    }
}

// SAFETY: the linear map is write-back, inner shareable memory, as walks are (boot.S, TCR_EL1); each access is one instruction.
unsafe impl TableMemory for Linear {
    fn load(&self, entry: PhysAddr) -> u64 {
        Self::entry(entry).load(Ordering::Relaxed)
    }

    fn store(&self, entry: PhysAddr, value: u64) {
        Self::entry(entry).store(value, Ordering::Relaxed);
    }

    fn store_release(&self, entry: PhysAddr, value: u64) {
        Self::entry(entry).store(value, Ordering::Release);
    }

    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        Self::entry(entry).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

/// Frames of one case. The one freed last is handed out last: a table that is freed must not come back as its own successor, for
/// linking the same table again is no fault.
pub struct Pool {
    free: Lock<VecDeque<u64>>,
    size: usize,
    scribble: AtomicBool,
}

impl Pool {
    /// `size` frames.
    fn new(size: usize) -> Result<Self, String> {
        let free = Lock::new(VecDeque::with_capacity(size));
        let pool = Self { free, size, scribble: AtomicBool::new(false) };
        for _ in 0..size {
            let frame = frames::alloc().ok_or_else(|| format!("no memory for {size} frames"))?;
            pool.free.lock().push_back(frame);
        }
        Ok(pool)
    }

    /// Whether frames that come back are filled with a pattern, which a walker would take for entries.
    pub fn scribble(&self, on: bool) {
        self.scribble.store(on, Ordering::Relaxed);
    }

    /// Frames that somebody has.
    pub fn used(&self) -> usize {
        self.size - self.free.lock().len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.free.lock().drain(..).for_each(frames::free);
    }
}

// SAFETY: each frame is RAM in the linear map, taken from the system's allocator and handed to one taker at a time.
unsafe impl FrameAllocator for Pool {
    fn allocate(&self) -> Option<PhysAddr> {
        self.free.lock().pop_front().map(PhysAddr::new)
    }

    fn free(&self, frame: PhysAddr) {
        if self.scribble.load(Ordering::Relaxed) {
            for offset in (0..PAGE).step_by(8) {
                Linear.store(PhysAddr::new(frame.bits() + offset), 0xdead_dead_dead_dead);
            }
        }
        self.free.lock().push_back(frame.bits());
    }
}

/// Nothing here is preempted: a core runs its part of a case to the end.
pub struct OnePe;

// SAFETY: there is no scheduler; code stays on the core that runs it.
unsafe impl Pinned for OnePe {}

/// The space of a case.
pub type Space<'s> = AddressSpace<Linear, &'s Pool>;

/// What a case is played on.
pub struct Stage<'s> {
    /// Its space.
    pub space: Space<'s>,
    /// Cores that take part: 0..cores.
    pub cores: usize,
    /// Data frames and tables come from here.
    pub pool: &'s Pool,
    /// The maintenance under test.
    pub tlb: Tlb<Tampered>,
    /// What its changes do that end in company; bootarg `remedy=`.
    pub remedy: Remedy,
    /// Which core does what when.
    pub steps: Steps,
    failure: Lock<Option<String>>,
}

/// Frames that a case may use.
const FRAMES: usize = 512;

impl Stage<'_> {
    /// Plays `play` on a fresh stage with address space `asid` and returns what went wrong, if anything. The space is loaded on
    /// every core while it plays; afterwards it ends with a flush of everything it had.
    ///
    /// What `loss` names is lost while the case plays; how it was set up and how it ends is not touched.
    pub fn play(asid: u16, loss: Loss, play: &(dyn Fn(&Stage<'_>, usize) + Sync)) -> Result<(), String> {
        let remedy = remedy_from_bootargs()?;
        let loss = match (loss, bootargs::number("drop")) {
            (Loss::Nothing, Ok(Some(n))) => Loss::Nth(n as usize),
            (_, Err(word)) => return Err(format!("drop={word}: not the number of an instruction")),
            (loss, _) => loss,
        };
        let pool = Pool::new(FRAMES)?;
        // SAFETY: the image runs at EL1.
        let hardware = unsafe { Hardware::new() };
        let tlb = Tlb::new(Tampered::new(hardware), Features::detect());
        let pa_bits = [32, 36, 40, 42, 44, 48, 52].get(ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange) as usize);
        let space = AddressSpace::new(Linear, &pool, Asid::new(asid), pa_bits.copied().unwrap_or(32))
            .map_err(|error| format!("{error}"))?
            .with_remedy(remedy);
        let cores = smp::core_count();
        let stage =
            Stage { space, cores, pool: &pool, tlb, remedy, steps: Steps::new(cores), failure: Lock::new(None) };

        Tampered::open(loss);
        let entry = Steps::new(cores);
        smp::run(stage.cores, &|core| {
            // Nobody begins before everybody has the space: which cores may hold an entry must not be left to chance.
            entry.everyone(0, || load(hardware, stage.space.ttbr()));
            entry.reach(1);
            play(&stage, core);
            load(hardware, mmu::reserved_root_pa());
        });
        let (issued, more) = Tampered::close();
        if bootargs::flag("issued") {
            crate::println!("# issued, {more} more:");
            issued.iter().flatten().enumerate().for_each(|(n, instruction)| crate::println!("#   {n}: {instruction}"));
        }

        let Stage { space, tlb, failure, .. } = stage;
        // SAFETY: every core has left it for the reserved root, in the job above.
        unsafe { space.destroy(&tlb, &OnePe, &mut |released| pool.free(released.frame)) };
        let lost = pool.used();
        match failure.into_inner() {
            Some(failure) => Err(failure),
            None if lost != 0 => Err(format!("{lost} frames did not come back")),
            None => Ok(()),
        }
    }

    /// Says that something is not as it must be. The first word counts.
    pub fn fail(&self, what: String) {
        self.failure.lock().get_or_insert(what);
    }

    /// Whether something has gone wrong.
    pub fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// What `done` did must have succeeded.
    pub fn expect(&self, what: &str, done: Result<(), Error>) {
        if let Err(error) = done {
            self.fail(format!("{what}: {error}"));
        }
    }

    /// A frame of the pool whose first word is `mark`.
    pub fn frame(&self, mark: u64) -> PhysAddr {
        match self.pool.allocate() {
            Some(frame) => {
                Linear.store(frame, mark);
                frame
            }
            None => {
                self.fail(format!("the pool of {FRAMES} frames is empty"));
                PhysAddr::new(0)
            }
        }
    }

    /// Maps the page at `va` to `frame`, in a change of its own.
    pub fn map(&self, va: u64, frame: PhysAddr) {
        let mapped =
            self.space.change(&self.tlb, &OnePe, &mut |_| (), |edit| edit.map(page(va), frame, Attributes::USER_DATA));
        self.expect("map", mapped);
    }

    /// Reads the word at `va` through the space on this core, which must be `mark`.
    #[inline(always)]
    pub fn sees(&self, core: usize, va: u64, mark: u64) {
        // SAFETY: aligned; the spaces of cases map frames of their pool only.
        match unsafe { probe::read(va) } {
            Ok(value) if value == mark => {}
            Ok(value) => self.fail(format!("core {core} reads {value:#x} at {va:#x}, not {mark:#x}")),
            Err(fault) => self.fail(format!("core {core} faults at {va:#x} (ESR {:#x})", fault.0)),
        }
    }

    /// Reads the word at `va` through the space on this core, which must fault.
    #[inline(always)]
    pub fn faults(&self, core: usize, va: u64) {
        // SAFETY: as in `sees`.
        if let Ok(value) = unsafe { probe::read(va) } {
            self.fail(format!("core {core} reads {value:#x} at {va:#x}, which is not mapped"));
        }
    }
}

/// The remedy that the bootargs ask for: `remedy=a`, `b`, `c` or `d`.
fn remedy_from_bootargs() -> Result<Remedy, String> {
    match bootargs::get("remedy") {
        None => Ok(Remedy::default()),
        Some("a") => Ok(Remedy::WholeRange),
        Some("b") => Ok(Remedy::WholeSpace),
        Some("c") => Ok(Remedy::Counters),
        Some("d") => Ok(Remedy::Wait),
        Some(other) => Err(format!("remedy={other}: there are a, b, c and d")),
    }
}

/// The page at `va`.
pub fn page(va: u64) -> VaRange {
    match VaRange::new(VirtAddr::new(va), PAGE) {
        Ok(range) => range,
        Err(error) => panic!("a scenario's page: {error}"),
    }
}

/// Translates the lower half through `ttbr0` from now on, on this core.
fn load(hardware: Hardware, ttbr0: u64) {
    TTBR0_EL1.set(ttbr0);
    hardware.isb();
}
