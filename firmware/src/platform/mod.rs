//! The board: what the device tree says it has, and how to reach it. The only room that knows one.
//!
//! A device tree that lacks something the firmware cannot do without ends the run with a message that names the node.

pub mod bootargs;
mod devicetree;
pub mod gic;

use core::{fmt, ops::Range};

use aarch64_cpu::registers::{MIDR_EL1, MPIDR_EL1};
use smccc::{Hvc, Smc, psci};
use tock_registers::interfaces::Readable;

use crate::{console, frames, frames::Pieces, mmu, sync::Once};

/// At most this many cores are used.
pub const MAX_CORES: usize = 64;

/// How PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC: the hypervisor, or QEMU without EL2, answers.
    Hvc,
    /// SMC: EL3 firmware, or QEMU with EL2, answers.
    Smc,
}

/// What the device tree says.
pub struct Platform {
    memory: Pieces,
    free: Pieces,
    cores: [u64; MAX_CORES],
    core_count: usize,
    cores_beyond: usize,
    cpu: &'static str,
    uart: Option<Range<u64>>,
    gicd: Range<u64>,
    gicr: Range<u64>,
    conduit: Option<Conduit>,
    timers: (u32, u32),
    bootargs: &'static str,
}

static PLATFORM: Once<Platform> = Once::new();

fn platform() -> &'static Platform {
    PLATFORM.get().expect("platform::init comes first")
}

/// Reads the device tree at physical address `dtb`, maps RAM and devices, and starts the console and the frame allocator.
///
/// # Safety
/// Called once, on the boot core alone; `dtb` comes from the loader, which speaks the Linux arm64 boot protocol.
pub unsafe fn init(dtb: u64) {
    // SAFETY: the caller's promise.
    let found = unsafe { devicetree::read(dtb) };
    if let Some(uart) = &found.uart {
        mmu::map_device(uart.clone()).unwrap_or_else(|error| panic!("UART: {error}"));
        // SAFETY: the device tree says that a PL011 is there, and nobody else knows it.
        unsafe { console::init(uart.start) };
    }
    mmu::map_device(found.gicd.clone()).unwrap_or_else(|error| panic!("GIC distributor: {error}"));
    mmu::map_device(found.gicr.clone()).unwrap_or_else(|error| panic!("GIC redistributors: {error}"));

    // What is not mapped (beyond the linear map, or less than 2 MiB) is not used.
    let mut free = Pieces::new();
    for region in found.free.iter() {
        let mapped = mmu::map_ram(region.start & !0x1f_ffff..region.end.next_multiple_of(0x20_0000));
        mapped.unwrap_or_else(|error| panic!("RAM {:#x}..{:#x}: {error}", region.start, region.end));
        assert!(free.push(region.clone()), "too many pieces of RAM");
    }
    // SAFETY: RAM according to the device tree, without the image, the device tree and everything reserved; mapped above; the
    // loader's own code is done.
    unsafe { frames::init(&free) }
        .unwrap_or_else(|largest| panic!("the largest free piece of RAM has only {largest:#x} bytes"));
    PLATFORM.call_once(|| found);
}

/// How many cores the device tree lists, [`MAX_CORES`] at most.
pub fn core_count() -> usize {
    platform().core_count
}

/// MPIDR_EL1 affinity of core `index`; index 0 is the boot core.
pub fn mpidr(index: usize) -> u64 {
    platform().cores[..platform().core_count][index]
}

/// Affinity of the core that runs this.
pub fn own_mpidr() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// The virtual timer's interrupt, as a PPI number (0..16).
pub fn virtual_timer_ppi() -> u32 {
    platform().timers.1
}

/// The non-secure physical timer's interrupt, as a PPI number (0..16).
pub fn physical_timer_ppi() -> u32 {
    platform().timers.0
}

/// The regions of RAM.
pub fn memory() -> impl Iterator<Item = &'static Range<u64>> {
    platform().memory.iter()
}

/// Starts a core at `entry` (physical, MMU off) with `context` in x0.
///
/// # Errors
/// What PSCI says.
pub fn cpu_on(mpidr: u64, entry: u64, context: u64) -> Result<(), psci::Error> {
    match platform().conduit {
        Some(Conduit::Hvc) => psci::cpu_on::<Hvc>(mpidr, entry, context),
        Some(Conduit::Smc) => psci::cpu_on::<Smc>(mpidr, entry, context),
        None => Err(psci::Error::NotSupported),
    }
}

/// Asks PSCI to power the machine off; returns where there is no PSCI.
pub fn power_off() {
    // Only a failure comes back, and there is nobody left to tell.
    let _ = match PLATFORM.get().and_then(|platform| platform.conduit) {
        Some(Conduit::Hvc) => psci::system_off::<Hvc>(),
        Some(Conduit::Smc) => psci::system_off::<Smc>(),
        None => Ok(()),
    };
}

/// One line about the machine.
pub struct Summary;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platform = platform();
        let cores = platform.core_count;
        write!(f, "{cores} core{}, {}", if cores == 1 { "" } else { "s" }, platform.cpu)?;
        write!(f, " (MIDR {:#010x})", MIDR_EL1.get())?;
        for region in platform.memory.iter() {
            write!(f, ", {} MiB at {:#x}", (region.end - region.start) >> 20, region.start)?;
        }
        match platform.conduit {
            Some(Conduit::Hvc) => f.write_str(", GICv3, PSCI hvc")?,
            Some(Conduit::Smc) => f.write_str(", GICv3, PSCI smc")?,
            None => f.write_str(", GICv3, no PSCI")?,
        }
        match platform.cores_beyond {
            0 => Ok(()),
            more => write!(f, " ({more} more cores left off)"),
        }
    }
}
