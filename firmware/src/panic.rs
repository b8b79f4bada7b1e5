//! The firmware's own failure: one message, then exit code 3.

use core::{
    panic::PanicInfo,
    sync::atomic::{AtomicUsize, Ordering},
};

use aarch64_cpu::asm;

use crate::{exit, smp};

/// The core that is failing, plus one.
static FAILING: AtomicUsize = AtomicUsize::new(0);

/// Says whether this core is the one to report. A second failing core waits for the first to stop the machine; a core that fails
/// while it reports stops at once.
pub fn claim_report() {
    let me = smp::current_core() + 1;
    match FAILING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(first) if first == me => exit::exit(exit::GUEST_FAILED),
        Err(_) => loop {
            asm::wfe();
        },
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    claim_report();
    let core = smp::current_core();
    match info.location() {
        Some(at) => {
            crate::emergency_println!("# core {core} panicked at {at} while {}: {}", smp::what(core), info.message())
        }
        None => crate::emergency_println!("# core {core} panicked while {}: {}", smp::what(core), info.message()),
    }
    exit::exit(exit::GUEST_FAILED)
}
