//! Steering: which core does which step, in which order.
//!
//! Steps are numbered from 0. A core waits for its step and says when it is done; the order of the steps is then the same in every
//! run. Waiting is WFE and an Acquire load, telling is a Release store and SEV: no DSB and no ISB, because a barrier here would
//! cure the fault under test.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use aarch64_cpu::asm;

use crate::sync::wait_until;

/// The step that a set of cores has reached together.
pub struct Steps {
    cores: usize,
    at: AtomicU32,
    arrived: AtomicUsize,
}

impl Steps {
    /// At step 0, for `cores` cores. One core alone takes the steps as they come: there is nobody to wait for.
    pub const fn new(cores: usize) -> Self {
        Self { cores, at: AtomicU32::new(0), arrived: AtomicUsize::new(0) }
    }

    /// Waits until it is step `n`'s turn, and forever if that turn is over: each step belongs to one core.
    #[inline]
    pub fn reach(&self, n: u32) {
        if self.cores > 1 {
            wait_until(|| self.at.load(Ordering::Acquire) == n);
        }
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
    pub fn at(&self) -> u32 {
        self.at.load(Ordering::Acquire)
    }

    /// Runs `step` on every core as step `n`; it is done when the last core has done it.
    #[inline]
    pub fn everyone(&self, n: u32, step: impl FnOnce()) {
        self.reach(n);
        step();
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.cores {
            self.arrived.store(0, Ordering::Relaxed);
            self.done(n);
        }
    }
}
