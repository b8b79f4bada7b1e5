//! Locks and waiting that disturb nothing under test.
//!
//! `core::hint::spin_loop` is an ISB on aarch64, and an ISB or DSB in the waiting cures the very faults that scenarios show. So
//! everything here waits with YIELD or WFE, and orders memory with Acquire and Release alone. None of these locks may be taken in
//! an interrupt handler.

use aarch64_cpu::{
    asm,
    registers::{CNTFRQ_EL0, CNTP_CTL_EL0, CNTP_TVAL_EL0, CNTVCT_EL0, DAIF},
};
use tock_registers::interfaces::{Readable, Writeable};

/// Waits with YIELD.
pub struct Yield;

impl spin::RelaxStrategy for Yield {
    #[inline(always)]
    fn relax() {
        yield_now();
    }
}

/// A spin lock that waits with YIELD.
pub type Lock<T> = spin::mutex::SpinMutex<T, Yield>;
/// A cell written once that waits with YIELD.
pub type Once<T> = spin::once::Once<T, Yield>;

/// The YIELD instruction: no barrier, no event.
#[inline(always)]
pub fn yield_now() {
    // SAFETY: YIELD is a hint and touches neither memory nor registers.
    unsafe { core::arch::asm!("yield", options(nomem, nostack, preserves_flags)) }
}

/// Looks at the condition before the first nap: some 10 us under QEMU, where WFE does nothing, and long on hardware, where it sleeps.
const LOOKS: u32 = 1000;
/// Limits of one nap.
const NAP_MIN_US: u64 = 20;
const NAP_MAX_US: u64 = 1000;

/// Waits until `condition` holds. Between looks the core sleeps in WFE, from which the event stream wakes it if nobody sends an
/// event; after a while it naps, so that a host with fewer CPUs than cores runs those that have something to do. The GIC's interface
/// of this core is set up.
#[inline]
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if condition() {
            return;
        }
        asm::wfe();
    }
    let start = now();
    while !condition() {
        // A quarter of what was waited already: the wait takes at most that much longer than it must.
        let microsecond = ticks(1) / 1000;
        nap(((now() - start) / 4).clamp(NAP_MIN_US * microsecond, NAP_MAX_US * microsecond));
    }
}

/// Sleeps for the shortest while, so that a host with fewer CPUs than cores runs the others.
pub fn rest() {
    nap(NAP_MIN_US * ticks(1) / 1000);
}

/// Sleeps in WFI until so many ticks have passed or an interrupt is pending.
///
/// The timer that ends the nap wakes WFI but is never taken: IRQs are masked meanwhile and the timer is off before they are unmasked.
/// An exception would synchronise the context like an ISB; this does not.
fn nap(duration: u64) {
    let unmasked = DAIF.get();
    // SAFETY: masks IRQs for a moment; no memory, no stack.
    unsafe { core::arch::asm!("msr daifset, #2", options(nomem, nostack, preserves_flags)) };
    CNTP_TVAL_EL0.set(duration.min(i32::MAX as u64));
    CNTP_CTL_EL0.write(CNTP_CTL_EL0::ENABLE::SET + CNTP_CTL_EL0::IMASK::CLEAR);
    asm::wfi();
    CNTP_CTL_EL0.write(CNTP_CTL_EL0::ENABLE::CLEAR);
    DAIF.set(unmasked);
}

/// Waits until `condition` holds or `milliseconds` have passed; says whether it held.
pub fn wait_at_most(milliseconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = now().saturating_add(ticks(milliseconds));
    loop {
        if condition() {
            return true;
        }
        if now() > end {
            return condition();
        }
        yield_now();
    }
}

/// The virtual counter.
pub fn now() -> u64 {
    CNTVCT_EL0.get()
}

/// Milliseconds in ticks of the virtual counter.
pub fn ticks(milliseconds: u64) -> u64 {
    (CNTFRQ_EL0.get() / 1000).saturating_mul(milliseconds)
}
