//! twins: every rule of the checker as tiny instruction sequences, broken and right, executed as they are named (bootarg
//! `scenario=twins`).
//!
//! The sequences stand in tests/twins; build.rs has assembled them, one program for each PE. Each begins with tables of its own on
//! PEs that have just entered its world ([`World`]), and ends with everything invalidated. The checker alone judges; the cores only
//! do what the name says. Programs contain TLBI, DSB and ISB of their own, and so does what leads into them (glue.S): they are what
//! is under test, and the library's sequences are not.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aarch64_cpu::{
    asm::barrier,
    registers::{ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, SCTLR_EL1, TCR_EL1, TTBR0_EL1, TTBR1_EL1},
};
use tlbi::{Features, Granule};
use tlbsan_hint::{self as hint, Cause, Expected, Kind};
use tock_registers::interfaces::{Readable, Writeable};

use crate::{
    exit, frames,
    mmu::{self, LINEAR_BASE, phys_to_virt},
    platform::{self, bootargs},
    println, smp,
    sync::wait_at_most,
    watchdog,
};

/// A program's code: not to be called but by glue.S.
type Program = unsafe extern "C" fn();

/// Where the PEs are when a sequence begins: see tests/twins/src/lib.rs. The order is glue.S'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum World {
    El1,
    El1Flat,
    El1Away,
    Reset,
    ResetEl2,
    El2,
    El2Host,
    Guest,
    GuestMmuOn,
}

impl World {
    const fn is_guest(self) -> bool {
        matches!(self, Self::Guest | Self::GuestMmuOn)
    }

    const fn is_reset(self) -> bool {
        matches!(self, Self::Reset | Self::ResetEl2)
    }
}

/// What PEs must have for a sequence.
struct Needs {
    bbm: Option<u8>,
    ets2: Option<bool>,
    ttl: bool,
    range: bool,
    outer: bool,
    nxs: bool,
    cnp: bool,
    k16: bool,
    hafdbs: bool,
    lpa2: bool,
}

/// A sequence.
struct Twin {
    name: &'static str,
    world: World,
    needs: Needs,
    setup: Program,
    programs: &'static [Program],
    expected: &'static [Expected],
    only_simulated: Option<&'static str>,
}

core::arch::global_asm!(include_str!(concat!(env!("OUT_DIR"), "/twins.S")));
core::arch::global_asm!(
    include_str!("glue.S"),
    FLAT = const World::El1Flat as u64,
    EL2 = const World::El2 as u64,
    GUEST = const World::Guest as u64,
    GUEST_MMU_ON = const World::GuestMmuOn as u64,
);
include!(concat!(env!("OUT_DIR"), "/twins.rs"));

unsafe extern "C" {
    fn twins_call(machine: &Machine, program: Program);
    fn twins_enter(machine: &Machine, program: Program, world: World, pe: u64);
    fn twins_reset();
    fn twins_reset_el2();
}

/// What a program and glue.S find behind x23.
#[repr(C)]
struct Machine {
    tcr: u64,
    sctlr: u64,
    sctlr_el2: u64,
    tables: u64,
    frames: u64,
    blocks: u64,
    /// What makes a physical address of the above one that EL1 can access.
    offset: u64,
    /// TTBR0_EL1 between the cases.
    reserved: u64,
    /// TTBR0_EL1, TTBR0_EL2 or VTTBR_EL2 as the world begins.
    root: u64,
    /// TCR_EL2 or VTCR_EL2.
    tcr_el2: u64,
    hcr: u64,
    mair: u64,
    turn: AtomicU64,
    finished: AtomicU32,
    /// Physical address of the program of a PE that comes out of reset.
    program: AtomicU64,
    /// What makes a physical address of code the one that it is linked at.
    code_offset: u64,
    inside: [AtomicU64; 2],
    /// TTBR0_EL1 of a guest whose MMU is on.
    guest_root: u64,
    /// TTBR1_EL1 and TCR_EL1 between the cases.
    kernel: u64,
    kernel_tcr: u64,
}

// As glue.S has them.
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Machine, turn) == 96 && offset_of!(Machine, code_offset) == 120);
    assert!(offset_of!(Machine, inside) == 128 && offset_of!(Machine, guest_root) == 144);
};

const PAGE: u64 = 4096;
/// As in tests/twins/src/lib.rs: pages of tables, and their places. The machine and two tables that map the code stand behind them.
const TABLE_PAGES: u64 = 32;
const OWN_L2: u64 = (TABLE_PAGES + 1) * PAGE;
const OWN_L3: u64 = (TABLE_PAGES + 2) * PAGE;
const L1: u64 = 0x1000;
const EMPTY: u64 = 0x6000;
const OTHER: u64 = 0x7000;
const S2ROOT: u64 = 0x8000;
const S2OTHER: u64 = 0xe000;
const FRAMES_AT: u64 = 48 * PAGE;
const PAGES: usize = 128;
const ASID: u64 = 7;
const AWAY: u64 = 9;
const VMID: u64 = 3;

const TCR_EPD1: u64 = 1 << 23;
const TCR_AS: u64 = 1 << 36;
const HCR_RW: u64 = 1 << 31;
const HCR_VM: u64 = 1;
const HCR_E2H_TGE: u64 = 1 << 34 | 1 << 27;
/// SCTLR_EL2 with the MMU and the caches on; its RES1 bits, with HCR_EL2.E2H clear and set.
const SCTLR_ON: u64 = 1 | 1 << 2 | 1 << 12;
const SCTLR_EL2_RES1: u64 = 0x30c5_0830;
const SCTLR_HOST_RES1: u64 = 0x30d0_0800;
/// Walks write-back and inner shareable, 4 KiB.
const WALKS: u64 = 1 << 8 | 1 << 10 | 3 << 12;
/// Normal memory at its own address, for EL1 and EL2 to execute: AF, inner shareable.
const OWN_BLOCK: u64 = 1 << 10 | 3 << 8 | 1;
/// The same as a page, and AP[2] for code: where SCTLR.WXN is set, nobody executes what is writable.
const OWN_PAGE: u64 = OWN_BLOCK | 2;
const READ_ONLY: u64 = 1 << 7;
const TABLE: u64 = 3;
/// The same with TCR.DS, which has the shareability and puts address bits in its place.
const OWN_BLOCK_DS: u64 = 1 << 10 | 1;
/// The same at stage 2: Normal write-back, read and write.
const OWN_STAGE2_BLOCK: u64 = OWN_BLOCK | 0xf << 2 | 3 << 6;

/// Seconds until a twin counts as hung. Its PEs mask interrupts, so a hang inside is cut from outside.
const SECONDS: u64 = 10;
/// How long a PE may take from reset to its program's end.
const RESET_MS: u64 = 5000;

/// Plays all of them, and prints TAP 14; returns the exit code.
pub fn run() -> u32 {
    println!("TAP version 14\n1..{}", TWINS.len());
    if !bootargs::flag("tlbsan") {
        TWINS.iter().zip(1..).for_each(|(twin, id)| println!("ok {id} - {} # SKIP needs tlbsan", twin.name));
        return exit::CLEAN;
    }
    let Some(memory) = frames::alloc_pages(PAGES) else {
        println!("Bail out! no {PAGES} adjacent frames");
        return exit::GUEST_FAILED;
    };
    let features = Features::detect();
    // Cores that were not started: each can come out of reset once.
    let mut fresh = smp::core_count()..platform::core_count();
    let failed = TWINS.iter().zip(1..).filter(|(twin, id)| {
        let why_not = twin.cannot_run(&features, &fresh);
        if let Some(why) = why_not {
            println!("ok {id} - {} # SKIP {why}", twin.name);
            return false;
        }
        smp::doing(twin.name);
        watchdog::arm(SECONDS);
        let outcome = twin.play(*id, memory, &mut fresh);
        watchdog::disarm();
        match outcome {
            Ok(()) => println!("ok {id} - {}", twin.name),
            Err(why) => println!("not ok {id} - {}\n  # {why}", twin.name),
        }
        outcome.is_err()
    });
    let failed = failed.count();
    frames::free_pages(memory, PAGES);
    if failed == 0 { exit::CLEAN } else { exit::CASE_FAILED }
}

impl Twin {
    fn cannot_run(&self, features: &Features, fresh: &core::ops::Range<usize>) -> Option<&'static str> {
        let at_el2 = self.world.is_guest() || matches!(self.world, World::ResetEl2 | World::El2 | World::El2Host);
        let needs = &self.needs;
        if self.only_simulated.is_some() {
            return self.only_simulated;
        }
        [
            (!self.world.is_reset() && smp::core_count() < 2, "needs two cores"),
            (self.world.is_reset() && fresh.is_empty(), "needs a core that was not started"),
            (at_el2 && !features.el2, "needs EL2"),
            (self.world == World::El2Host && !has_vhe(), "needs FEAT_VHE"),
            (needs.bbm.is_some_and(|level| level != features.bbm), "needs another level of FEAT_BBM"),
            (needs.ets2 == Some(true) && !features.ets2, "needs FEAT_ETS2"),
            (needs.ets2 == Some(false) && features.ets2, "needs a CPU without FEAT_ETS2"),
            (needs.ttl && !features.ttl, "needs FEAT_TTL"),
            (needs.range && !features.range, "needs FEAT_TLBIRANGE"),
            (needs.outer && !features.outer, "needs FEAT_TLBIOS"),
            (needs.nxs && !features.xs, "needs FEAT_XS"),
            (needs.cnp && !features.cnp, "needs FEAT_TTCNP"),
            (needs.k16 && !mmu::has_granule(Granule::K16), "needs pages of 16 KiB"),
            (needs.hafdbs && ID_AA64MMFR1_EL1.read(ID_AA64MMFR1_EL1::HAFDBS) < 2, "needs FEAT_HAFDBS"),
            (needs.lpa2 && !has_lpa2(needs.k16), "needs FEAT_LPA2"),
        ]
        .into_iter()
        .find_map(|(lacking, why)| lacking.then_some(why))
    }

    fn play(&self, id: u64, memory: u64, fresh: &mut core::ops::Range<usize>) -> Result<(), &'static str> {
        let machine = Machine::make(self.world, memory);
        // SAFETY: the programs store to this machine's tables; the heartbeat loads them in TTBR0_EL1, where nothing of ours lies,
        // and invalidates them.
        unsafe { twins_call(machine, self.setup) };
        machine.map_code(self.world);

        hint::case_begin(id);
        self.expected.iter().copied().for_each(hint::expect);
        let [there, gone] = HEARTBEAT;
        // SAFETY: as above.
        unsafe { twins_call(machine, there) };
        TTBR0_EL1.set(machine.reserved);
        barrier::isb(barrier::SY);
        // SAFETY: as above.
        unsafe { twins_call(machine, gone) };
        machine.turn.store(0, Ordering::Release);
        let outcome = if self.world.is_reset() { self.reset(machine, fresh) } else { self.enter(machine) };
        hint::case_end(id);
        outcome
    }

    fn enter(&self, machine: &'static Machine) -> Result<(), &'static str> {
        let [first, second] = self.programs else { return Err("no program for each PE") };
        smp::run(2, &|pe| {
            let program = if pe == 0 { *first } else { *second };
            // SAFETY: the machine's tables map the code where the world wants it, and what programs access; the PE comes back
            // with the registers of EL1 as they were.
            unsafe { twins_enter(machine, program, self.world, pe as u64) };
        });
        Ok(())
    }

    fn reset(&self, machine: &'static Machine, fresh: &mut core::ops::Range<usize>) -> Result<(), &'static str> {
        let (Some(core), [program]) = (fresh.next(), self.programs) else { return Err("no core, or no program") };
        machine.program.store(mmu::image_to_phys(*program as *const () as u64), Ordering::Release);
        let entry = if self.world == World::ResetEl2 { twins_reset_el2 } else { twins_reset };
        let entry = mmu::image_to_phys(entry as *const () as u64);
        platform::cpu_on(platform::mpidr(core), entry, mmu::virt_to_phys(machine)).map_err(|_| "CPU_ON failed")?;
        let done = wait_at_most(RESET_MS, || machine.finished.load(Ordering::Acquire) == 1);
        if done { Ok(()) } else { Err("the core did not come back from its program") }
    }
}

impl Machine {
    /// A machine in the frames at `memory`, its tables empty, as a world begins.
    fn make(world: World, memory: u64) -> &'static Self {
        // SAFETY: the frames are ours, and no PE walks them between two twins.
        unsafe { phys_to_virt::<u8>(memory).write_bytes(0, PAGES * PAGE as usize) };
        let pa_size = TCR_EL1.read(TCR_EL1::IPS);
        let own = TCR_EL1.get();
        let epd1 = if matches!(world, World::Reset | World::GuestMmuOn) { TCR_EPD1 } else { 0 };
        let host = world == World::El2Host;
        let root = |table: u64, asid: u64| (memory + table) | (asid << 48);
        let machine = Self {
            tcr: own | epd1,
            sctlr: SCTLR_EL1.get(),
            sctlr_el2: SCTLR_ON | if host { SCTLR_HOST_RES1 } else { SCTLR_EL2_RES1 },
            tables: memory,
            frames: memory + FRAMES_AT,
            // Mapped, and never accessed.
            blocks: mmu::image().start + (32 << 20),
            offset: LINEAR_BASE,
            reserved: mmu::reserved_root_pa(),
            root: match world {
                World::El1Away => root(EMPTY, AWAY),
                World::Guest | World::GuestMmuOn => root(S2ROOT, VMID),
                World::El2 | World::ResetEl2 => root(0, 0),
                _ => root(0, ASID),
            },
            tcr_el2: match world {
                // 40 bits from level 1, and RES1.
                World::Guest | World::GuestMmuOn => 24 | 1 << 6 | WALKS | pa_size << 16 | 1 << 31,
                World::El2 | World::ResetEl2 => 16 | WALKS | pa_size << 16 | 1 << 31 | 1 << 23,
                _ => 16 | 16 << 16 | WALKS | 2 << 30 | pa_size << 32 | own & TCR_AS | TCR_EPD1,
            },
            hcr: HCR_RW
                | match world {
                    World::El2Host => HCR_E2H_TGE,
                    World::Guest | World::GuestMmuOn => HCR_VM,
                    _ => 0,
                },
            mair: mmu::MAIR,
            turn: AtomicU64::new(0),
            finished: AtomicU32::new(0),
            program: AtomicU64::new(0),
            code_offset: mmu::KERNEL_BASE - mmu::image().start,
            inside: [const { AtomicU64::new(0) }; 2],
            guest_root: root(0, ASID),
            kernel: TTBR1_EL1.get(),
            kernel_tcr: own,
        };
        let at = phys_to_virt::<Self>(memory + TABLE_PAGES * PAGE);
        // SAFETY: as above; it fits its page, and what others change of it is atomic.
        unsafe {
            at.write(machine);
            &*at
        }
    }

    /// Maps the GiB that the code and the machine lie in to itself, where the world needs that.
    fn map_code(&self, world: World) {
        let stage1: &[u64] = match world {
            World::El1 | World::El1Away | World::Guest => &[],
            // The other one is for TCR.DS.
            World::GuestMmuOn => &[L1],
            _ => &[L1, OTHER],
        };
        let stage1_ds: &[u64] = if world == World::GuestMmuOn { &[OTHER] } else { &[] };
        let stage2: &[u64] = if world.is_guest() { &[S2ROOT, S2OTHER, EMPTY] } else { &[] };
        let code = mmu::image().start;
        self.fill(OWN_L2, |n| match (code >> 30 << 30) | n << 21 {
            block if block >> 21 == code >> 21 => (self.tables + OWN_L3) | TABLE,
            block => block | OWN_BLOCK,
        });
        self.fill(OWN_L3, |n| match (code >> 21 << 21) | n << 12 {
            page if mmu::is_text(page.wrapping_add(self.code_offset)) => page | OWN_PAGE | READ_ONLY,
            page => page | OWN_PAGE,
        });
        for gib in [self.tables >> 30, code >> 30] {
            let at_stage1 = if gib == code >> 30 { (self.tables + OWN_L2) | TABLE } else { gib << 30 | OWN_BLOCK };
            let blocks =
                [(stage1, at_stage1), (stage1_ds, gib << 30 | OWN_BLOCK_DS), (stage2, gib << 30 | OWN_STAGE2_BLOCK)];
            for (tables, entry) in blocks {
                tables.iter().for_each(|table| self.store(table + gib * 8, entry));
            }
        }
    }

    /// Fills a table.
    fn fill(&self, table: u64, entry: impl Fn(u64) -> u64) {
        (0..PAGE / 8).for_each(|n| self.store(table + n * 8, entry(n)));
    }

    /// Stores an entry at an offset to the machine's tables.
    fn store(&self, offset: u64, entry: u64) {
        let slot = phys_to_virt::<AtomicU64>(self.tables + offset);
        // SAFETY: a slot of this machine's tables, which no PE walks yet.
        unsafe { (*slot).store(entry, Ordering::Release) };
    }
}

/// FEAT_LPA2 at both stages, with pages of 4 or 16 KiB: ID_AA64MMFR0_EL1.TGran4 or TGran16, and TGran4_2 or TGran16_2, of which 0
/// says that stage 2 is as stage 1.
fn has_lpa2(k16: bool) -> bool {
    let mmfr0 = ID_AA64MMFR0_EL1.get();
    let (stage1, stage2) =
        if k16 { (mmfr0 >> 20 & 15 == 2, mmfr0 >> 32) } else { (mmfr0 >> 28 & 15 == 1, mmfr0 >> 40) };
    stage1 && matches!(stage2 & 15, 0 | 3)
}

/// ID_AA64MMFR1_EL1.VH.
fn has_vhe() -> bool {
    ID_AA64MMFR1_EL1.read(ID_AA64MMFR1_EL1::VH) != 0
}
