//! Steering: which core does which step, in which order.
//!
//! Steps are numbered from 0. A core waits for its step and says when it is done; the order of the steps is then the same in every
//! run. Waiting is WFE and an Acquire load, telling is a Release store and SEV: no DSB and no ISB, because a barrier here would
//! cure the fault under test.

use core::sync::atomic::{AtomicU32, Ordering};

use aarch64_cpu::asm;

use crate::sync::wait_until;

/// The step that a set of cores has reached together.
#[derive(Default)]
pub struct Steps {
    at: AtomicU32,
}

impl Steps {
    /// At step 0.
    pub const fn new() -> Self {
        Self { at: AtomicU32::new(0) }
    }

    /// Waits until it is step `n`'s turn, and forever if that turn is over: each step belongs to one core.
    #[inline]
    pub fn reach(&self, n: u32) {
        wait_until(|| self.at.load(Ordering::Acquire) == n);
    }

    /// Step `n` is done: `n + 1` may start.
    #[inline]
    pub fn done(&self, n: u32) {
        self.at.store(n + 1, Ordering::Release);
        asm::sev();
    }

    /// Runs `step` as step `n`.
    #[inline]
    pub fn step<T>(&self, n: u32, step: impl FnOnce() -> T) -> T {
        self.reach(n);
        let result = step();
        self.done(n);
        result
    }

    /// The step whose turn it is.
    #[inline]
    pub fn at(&self) -> u32 {
        self.at.load(Ordering::Acquire)
    }

    /// Back to step 0. Only while no core waits.
    pub fn reset(&self) {
        self.at.store(0, Ordering::Release);
    }
}
