//! The end of the run: an exit code by semihosting, or power off where nobody listens.

use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::asm;
use semihosting::sys::arm_compat::{ExitReason, sys_exit_extended};

use crate::platform;

/// Everything went as it should.
pub const CLEAN: u32 = 0;
/// A case failed.
pub const CASE_FAILED: u32 = 1;
/// The firmware failed: a panic, or an exception nobody expected.
pub const GUEST_FAILED: u32 = 3;
/// The watchdog cut a hang.
pub const HANG: u32 = 4;

/// Cleared by the exception handler when a semihosting HLT turned out to be UNDEFINED.
static SEMIHOSTING: AtomicBool = AtomicBool::new(true);

/// Whether a debugger answered semihosting calls so far.
pub fn semihosting_present() -> bool {
    SEMIHOSTING.load(Ordering::Relaxed)
}

/// A semihosting call was UNDEFINED: there is no debugger.
pub fn semihosting_absent() {
    SEMIHOSTING.store(false, Ordering::Relaxed);
}

/// Stops the machine, on any core, in any state. Without semihosting the code is lost and the machine powers off.
pub fn exit(code: u32) -> ! {
    if semihosting_present() {
        sys_exit_extended(ExitReason::ADP_Stopped_ApplicationExit, code as usize);
    }
    platform::power_off();
    loop {
        asm::wfe();
    }
}
