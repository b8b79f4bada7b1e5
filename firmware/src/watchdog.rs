//! Cuts hangs: a timer on the boot core that says where every core is and ends the run with exit code 4.
//!
//! It reaches the boot core only where interrupts are on; what hangs with them masked is cut from outside.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{CNTV_CTL_EL0, CNTV_CVAL_EL0};
use tock_registers::interfaces::Writeable;

use crate::{
    exceptions::Frame,
    exit,
    platform::gic,
    smp,
    sync::{now, ticks},
};

/// Seconds until it fires, for the message.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// From now on `seconds` until the run is cut, instead of what was left. Only on the boot core.
pub fn arm(seconds: u64) {
    LIMIT.store(seconds, Ordering::Relaxed);
    gic::on_timer(expired);
    CNTV_CVAL_EL0.set(now().saturating_add(ticks(seconds.saturating_mul(1000))));
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
}

/// No limit until the next [`arm`].
pub fn disarm() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
}

fn expired(frame: &mut Frame) {
    disarm();
    crate::emergency_println!("# watchdog: no progress within {} s", LIMIT.load(Ordering::Relaxed));
    let me = smp::current_core();
    for core in 0..smp::core_count() {
        let what = smp::what(core);
        match if core == me { Some(frame.elr) } else { smp::ask_where(core) } {
            Some(at) => crate::emergency_println!("#   core {core}: {what}, at {at:#018x}"),
            None => crate::emergency_println!("#   core {core}: {what}, does not answer"),
        }
    }
    exit::exit(exit::HANG)
}
