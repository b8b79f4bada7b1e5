//! Accesses that may fault: a scenario looks at an address and gets the value or the fault.
//!
//! The access is one instruction in the caller's own function, so that a checker that names the PC of an access names the scenario's
//! line. An access that does not fault executes nothing else; one that faults has taken an exception, which on its return
//! synchronises the context like an ISB.

use core::arch::asm;

use super::{Frame, Syndrome};

/// The instruction that may fault, and where to go on if it does. The linker collects them (.fixups).
#[repr(C)]
struct Fixup {
    instruction: u64,
    landing: u64,
}

unsafe extern "C" {
    static __fixups_start: Fixup;
    static __fixups_end: Fixup;
}

/// If the exception comes from an instruction with a fixup, goes on there with ESR in x1.
pub(super) fn recover(frame: &mut Frame) -> bool {
    let (start, end) = (&raw const __fixups_start, &raw const __fixups_end);
    let count = (end as usize - start as usize) / size_of::<Fixup>();
    // SAFETY: the linker script puts the two symbols around an array of `Fixup`, which the assembly below writes.
    let fixups = unsafe { core::slice::from_raw_parts(start, count) };
    let syndrome = Syndrome(frame.esr);
    match fixups.iter().find(|fixup| fixup.instruction == frame.elr) {
        Some(fixup) if syndrome.is_data_abort() => {
            frame.x[1] = frame.esr;
            frame.elr = fixup.landing;
            true
        }
        _ => false,
    }
}

macro_rules! probing {
    ($instruction:literal, $($operands:tt)*) => {
        asm!(
            "2:",
            $instruction,
            "3:",
            ".pushsection .fixups, \"a\", @progbits",
            ".quad 2b, 3b",
            ".popsection",
            $($operands)*
            options(nostack, preserves_flags)
        )
    };
}

/// Reads 8 bytes at `va`, or says why that faulted.
///
/// # Safety
/// `va` is aligned; if it translates, then to memory whose reading disturbs nobody.
#[inline(always)]
pub unsafe fn read(va: u64) -> Result<u64, Syndrome> {
    let value: u64;
    let esr: u64;
    // SAFETY: a load changes nothing but its register, and a fault comes back through the fixup.
    unsafe { probing!("ldr x0, [{va}]", va = in(reg) va, out("x0") value, inout("x1") 0_u64 => esr,) };
    if esr == 0 { Ok(value) } else { Err(Syndrome(esr)) }
}

/// Writes 8 bytes at `va`, or says why that faulted.
///
/// # Safety
/// `va` is aligned; if it translates, then to memory that the caller may overwrite.
#[inline(always)]
pub unsafe fn write(va: u64, value: u64) -> Result<(), Syndrome> {
    let esr: u64;
    // SAFETY: the caller owns what `va` translates to, and a fault comes back through the fixup.
    unsafe { probing!("str x0, [{va}]", va = in(reg) va, in("x0") value, inout("x1") 0_u64 => esr,) };
    if esr == 0 { Ok(()) } else { Err(Syndrome(esr)) }
}
