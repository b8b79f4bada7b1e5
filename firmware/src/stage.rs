//! Where a case is played: an address space of its own on every core, frames that come back in the order they went, and a place
//! to say what was seen.

use alloc::{collections::VecDeque, format, string::String, vec::Vec};
use core::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, TCR_EL1, TTBR0_EL1};
use pgtable::{AddressSpace, Attributes, Error, FrameAllocator, Geometry, K4, Lower, Remedy, TableMemory};
use tlbi::{Asid, Features, Hardware, Invalidation, Issue, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};
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
        // SAFETY: the frames of a pool, and the image, are RAM, which the linear map holds for ever; all access to tables is atomic.
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

/// Adjacent frames of the system's, aligned to all that they are.
pub struct Block(Range<u64>);

impl Block {
    /// `size` bytes, a power of two, if there are so many to spare.
    pub fn new(size: u64) -> Option<Self> {
        let start = frames::alloc_pages((size / frames::FRAME_SIZE) as usize)?;
        Some(Self(start..start + size))
    }

    /// The address `offset` bytes into it.
    pub fn at(&self, offset: u64) -> PhysAddr {
        PhysAddr::new(self.0.start + offset)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        frames::free_pages(self.0.start, ((self.0.end - self.0.start) / frames::FRAME_SIZE) as usize);
    }
}

/// Frames of one case. The one freed last is handed out last: a table that is freed must not come back as its own successor, for
/// linking the same table again is no fault.
pub struct Pool {
    free: Lock<VecDeque<u64>>,
    all: Block,
    frame: u64,
    scribble: AtomicBool,
}

impl Pool {
    /// As many frames of `frame` bytes as a case may use.
    fn new(frame: u64) -> Result<Self, String> {
        let all =
            Block::new(FRAMES * frame).ok_or_else(|| format!("no memory for {FRAMES} frames of {frame} bytes"))?;
        let free = Lock::new(all.0.clone().step_by(frame as usize).collect());
        Ok(Self { free, all, frame, scribble: AtomicBool::new(false) })
    }

    /// Whether frames that come back are filled with a pattern, which a walker would take for entries.
    pub fn scribble(&self, on: bool) {
        self.scribble.store(on, Ordering::Relaxed);
    }

    /// Writes `word` into the frame that is handed out next.
    pub fn scribble_on_next(&self, offset: u64, word: u64) {
        if let Some(frame) = self.free.lock().front() {
            Linear.store(PhysAddr::new(frame + offset), word);
        }
    }

    /// Frames that somebody has.
    pub fn used(&self) -> usize {
        FRAMES as usize - self.free.lock().len()
    }

    /// Takes a frame back, if it is one of these: a case may map others.
    pub fn take_back(&self, frame: PhysAddr) {
        self.free(frame);
    }
}

// SAFETY: each frame is RAM in the linear map, taken from the system's allocator and handed to one taker at a time.
unsafe impl FrameAllocator for Pool {
    fn allocate(&self) -> Option<PhysAddr> {
        self.free.lock().pop_front().map(PhysAddr::new)
    }

    fn free(&self, frame: PhysAddr) {
        // In the kernel's own space a table may be another's: one that a case which failed has left there.
        if !self.all.0.contains(&frame.bits()) {
            return;
        }
        if self.scribble.load(Ordering::Relaxed) {
            for offset in (0..self.frame).step_by(8) {
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

/// The shape of most spaces.
pub type Usual = Lower<K4, 48>;

/// The space of a case.
pub type Space<'s, G = Usual> = AddressSpace<Linear, &'s Pool, G>;

/// What a case is played on.
pub struct Stage<'s, G = Usual> {
    /// Its space.
    pub space: Space<'s, G>,
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
const FRAMES: u64 = 512;

impl Stage<'_> {
    /// Plays `play` on a fresh stage with address space `asid` and returns what went wrong, if anything. The space is loaded on
    /// every core while it plays; afterwards it ends with a flush of everything it had.
    ///
    /// What `loss` names is lost while the case plays; how it was set up and how it ends is not touched.
    pub fn play(asid: u16, loss: Loss, play: &(dyn Fn(&Stage<'_>, usize) + Sync)) -> Result<(), String> {
        Self::play_with(asid, loss, Features::detect(), play)
    }
}

impl<G: Geometry> Stage<'_, G> {
    /// [`play`](Stage::play) in a space of any shape with 48-bit addresses, with some of the CPU's features. In the upper half that is
    /// the kernel's own space, which every core runs in.
    pub fn play_with(
        asid: u16,
        loss: Loss,
        features: Features,
        play: &(dyn Fn(&Stage<'_, G>, usize) + Sync),
    ) -> Result<(), String> {
        let remedy = remedy_from_bootargs()?;
        let loss = match (loss, bootargs::number("drop")) {
            (Loss::Nothing, Ok(Some(n))) => Loss::Nth(n as usize),
            (_, Err(word)) => return Err(format!("drop={word}: not the number of an instruction")),
            (loss, _) => loss,
        };
        let pool = Pool::new(G::PAGE)?;
        // SAFETY: the image runs at EL1.
        let hardware = unsafe { Hardware::new() };
        let tlb = Tlb::new(Tampered::new(hardware), features);
        let pa_bits = [32, 36, 40, 42, 44, 48, 52].get(ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange) as usize);
        let pa_bits = pa_bits.copied().unwrap_or(32);
        let space = if G::UPPER {
            // SAFETY: tables of this shape, made by boot.S and mmu.rs, whose memory the linear map holds; all of it global, and
            // valid from the first; mmu.rs maps nothing while a case runs.
            unsafe { AddressSpace::adopt(Linear, &pool, None, pa_bits, PhysAddr::new(mmu::kernel_root_pa())) }
        } else {
            AddressSpace::new(Linear, &pool, Asid::new(asid), pa_bits).map_err(|error| format!("{error}"))?
        };
        let space = space.with_remedy(remedy);
        let cores = smp::core_count();
        let stage =
            Stage { space, cores, pool: &pool, tlb, remedy, steps: Steps::new(cores), failure: Lock::new(None) };

        Tampered::open(loss);
        let entry = Steps::new(cores);
        smp::run(stage.cores, &|core| {
            // Nobody begins before everybody has the space, nor leaves it before everybody has ended: which cores may hold an
            // entry must not be left to chance.
            entry.everyone(0, || {
                if !G::UPPER {
                    load::<G>(hardware, stage.space.ttbr());
                }
            });
            entry.reach(1);
            play(&stage, core);
        });
        if !G::UPPER {
            smp::run(stage.cores, &|_| unload(hardware));
        }
        let (issued, more) = Tampered::close();
        if bootargs::flag("issued") {
            crate::println!("# issued, {more} more:");
            issued.iter().flatten().enumerate().for_each(|(n, instruction)| crate::println!("#   {n}: {instruction}"));
        }

        let Stage { space, tlb, failure, .. } = stage;
        if G::UPPER {
            // What a faulty form has left goes, as it does at the end of a space.
            Tlb::new(hardware, features).invalidate(&OnePe, &Invalidation::all()).sync();
            space.reclaim();
        } else {
            // SAFETY: every core has left it for the reserved root, in the second job above.
            unsafe { space.destroy(&tlb, &OnePe, &mut |released| pool.take_back(released.frame)) };
        }
        if G::GRANULE != Usual::GRANULE {
            smp::run(cores, &|_| load::<Usual>(hardware, mmu::reserved_root_pa()));
        }
        let lost = pool.used();
        if lost != 0 {
            // Something may still lead there.
            core::mem::forget(pool);
        }
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
        let page = range(va, G::PAGE);
        let mapped =
            self.space.change(&self.tlb, &OnePe, &mut |_| (), |edit| edit.map(page, frame, Attributes::KERNEL_DATA));
        self.expect("map", mapped);
    }

    /// Reads the word at `va` through the space on this core, which must be `mark`.
    #[inline(always)]
    pub fn sees(&self, core: usize, va: u64, mark: u64) {
        self.sees_one_of(core, va, &[mark]);
    }

    /// The same where several words are right.
    #[inline(always)]
    pub fn sees_one_of(&self, core: usize, va: u64, marks: &[u64]) {
        // SAFETY: aligned; the spaces of cases map frames of their pool only.
        match unsafe { probe::read(va) } {
            Ok(value) if marks.contains(&value) => {}
            Ok(value) => {
                let wanted: Vec<String> = marks.iter().map(|mark| format!("{mark:#x}")).collect();
                self.fail(format!("core {core} reads {value:#x} at {va:#x}, not {}", wanted.join(" or ")));
            }
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

/// The 4 KiB page at `va`.
pub fn page(va: u64) -> VaRange {
    range(va, PAGE)
}

/// `size` bytes from `va` on.
pub fn range(va: u64, size: u64) -> VaRange {
    match VaRange::new(VirtAddr::new(va), size) {
        Ok(range) => range,
        Err(error) => panic!("a scenario's range: {error}"),
    }
}

/// Translates the lower half through tables of shape `G` from now on, on this core; nothing is loaded there.
fn load<G: Geometry>(hardware: Hardware, ttbr0: u64) {
    // T0SZ and TG0; the other half keeps its own.
    const SHAPE: u64 = 0x3f | 0b11 << 14;
    let tcr = TCR_EL1.get() & !(SHAPE | NO_WALKS) | G::tcr();
    if tcr != TCR_EL1.get() {
        TCR_EL1.set(tcr | NO_WALKS);
        hardware.isb();
        // What a TLB keeps of TCR_EL1 goes.
        Tlb::new(hardware, Features::detect()).invalidate(&OnePe, &Invalidation::all().local()).sync();
    }
    TTBR0_EL1.set(ttbr0);
    TCR_EL1.set(tcr);
    hardware.isb();
}

/// Leaves the space that is loaded on this core. The empty root is one of 4 KiB tables: with others loaded it is not walked.
fn unload(hardware: Hardware) {
    if TCR_EL1.get() >> 14 & 0b11 != 0 {
        TCR_EL1.set(TCR_EL1.get() | NO_WALKS);
        hardware.isb();
    }
    TTBR0_EL1.set(mmu::reserved_root_pa());
    hardware.isb();
}

/// TCR_EL1.EPD0: a TLB miss in the lower half faults.
const NO_WALKS: u64 = 1 << 7;
