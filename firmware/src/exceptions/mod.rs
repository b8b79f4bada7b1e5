//! Exceptions at EL1: interrupts go to the GIC's handlers, accesses announced to [`probe`] come back as a value, and everything else
//! is told in words and ends the run with exit code 3.

mod esr;
pub mod probe;

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{DAIF, FAR_EL1};
pub use esr::Syndrome;
use tock_registers::interfaces::{Readable, Writeable};

use crate::{exit, panic, platform::gic, smp};

/// What an exception saved; the layout is vectors.S'.
#[repr(C)]
pub struct Frame {
    /// x0..x30.
    pub x: [u64; 31],
    /// Where the exception returns to.
    pub elr: u64,
    /// PSTATE to return with.
    pub spsr: u64,
    /// What happened, meaningful for synchronous exceptions and SErrors.
    pub esr: u64,
    /// x29 and ELR once more: the frame record.
    pub record: [u64; 2],
}

core::arch::global_asm!(include_str!("vectors.S"), enter = sym enter, overflow = sym overflow);

/// Entries of the vector table that have a meaning here: current EL with SP_ELx.
const SYNCHRONOUS: u64 = 4;
const IRQ: u64 = 5;

/// Exceptions taken by all cores.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// How many exceptions all cores have taken so far. Each synchronised its core's context, so what must not be cured by an ISB takes
/// none meanwhile.
pub fn taken() -> u64 {
    TAKEN.load(Ordering::Relaxed)
}

extern "C" fn enter(frame: &mut Frame, vector: u64) {
    TAKEN.fetch_add(1, Ordering::Relaxed);
    match vector {
        IRQ => gic::dispatch(frame),
        SYNCHRONOUS if probe::recover(frame) || semihosting_is_absent(frame) => {}
        _ => unexpected(frame, vector),
    }
}

/// HLT #0xf000, the semihosting call.
const SEMIHOSTING_HLT: u32 = 0xd45e_0000;

/// A semihosting call is UNDEFINED where nobody serves it: remember that and go on behind it.
fn semihosting_is_absent(frame: &mut Frame) -> bool {
    if Syndrome(frame.esr).class() != esr::UNKNOWN {
        return false;
    }
    // SAFETY: an instruction at ELR was just fetched, so its address is mapped; instructions are aligned.
    let instruction = unsafe { (frame.elr as *const u32).read_volatile() };
    let absent = instruction == SEMIHOSTING_HLT;
    if absent {
        exit::semihosting_absent();
        frame.x[0] = u64::MAX;
        frame.elr += 4;
    }
    absent
}

fn unexpected(frame: &Frame, vector: u64) -> ! {
    let far = FAR_EL1.get();
    panic::claim_report();
    let core = smp::current_core();
    let kind = ["synchronous exception", "IRQ", "FIQ", "SError"][vector as usize % 4];
    let from = ["this EL with SP_EL0", "this EL", "EL0", "AArch32 EL0"][vector as usize / 4 % 4];
    crate::emergency_println!("# core {core}: unexpected {kind} from {from} while {}", smp::what(core));
    crate::emergency_println!("#   ELR {:#018x}  LR {:#018x}  SPSR {:#x}", frame.elr, frame.x[30], frame.spsr);
    crate::emergency_println!("#   ESR {:#010x}: {}", frame.esr, Syndrome(frame.esr));
    if Syndrome(frame.esr).has_far() {
        crate::emergency_println!("#   FAR {far:#018x}");
    }
    exit::exit(exit::GUEST_FAILED)
}

extern "C" fn overflow(elr: u64) -> ! {
    let far = FAR_EL1.get();
    panic::claim_report();
    let core = smp::current_core();
    crate::emergency_println!(
        "# core {core}: stack overflow while {}: ELR {elr:#018x} FAR {far:#018x}",
        smp::what(core)
    );
    exit::exit(exit::GUEST_FAILED)
}

/// Lets IRQs and SErrors come.
pub fn unmask() {
    DAIF.write(DAIF::D::Masked + DAIF::A::Unmasked + DAIF::I::Unmasked + DAIF::F::Masked);
}

/// Keeps all interrupts away from this core, for good.
pub fn mask() {
    DAIF.write(DAIF::D::Masked + DAIF::A::Masked + DAIF::I::Masked + DAIF::F::Masked);
}
