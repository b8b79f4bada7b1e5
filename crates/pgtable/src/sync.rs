//! The lock of a record, atomics, and waiting for another core.

/// A lock that waits with YIELD: `core::hint::spin_loop` is an ISB on aarch64, which would hide a missing one.
#[cfg(not(loom))]
pub(crate) type Lock<T> = spin::mutex::SpinMutex<T, Yield>;

/// How a core waits for another.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Yield;

#[cfg(not(loom))]
impl spin::RelaxStrategy for Yield {
    #[inline(always)]
    fn relax() {
        yield_now();
    }
}

/// Lets another core go on.
#[cfg(not(loom))]
#[inline(always)]
fn yield_now() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint; changes nothing.
    unsafe {
        core::arch::asm!("yield", options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::hint::spin_loop();
}

/// Waits between two looks at what somebody else has. Looking takes it, or its cache line, from those who are waited for: ever more
/// seldom.
#[derive(Debug)]
pub(crate) struct Pause(u32);

impl Pause {
    /// YIELDs between two looks, at most: some microseconds. The model checker tries every order anyway.
    const MAX: u32 = if cfg!(loom) { 1 } else { 256 };

    pub(crate) const fn new() -> Self {
        Self(1)
    }

    pub(crate) fn wait(&mut self) {
        (0..self.0).for_each(|_| yield_now());
        self.0 = (self.0 * 2).min(Self::MAX);
    }
}

/// Waits, without the lock, until `over` of what it guards.
#[cfg(not(loom))]
pub(crate) fn wait_until<T>(lock: &Lock<T>, over: impl Fn(&T) -> bool) {
    let mut pause = Pause::new();
    while !over(&lock.lock()) {
        pause.wait();
    }
}

/// What somebody waits for may have come about.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn notify<T>(_: &Lock<T>) {}

#[cfg(not(loom))]
pub(crate) use core::sync::atomic;
#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(loom)]
use loom::thread::yield_now;
#[cfg(loom)]
pub(crate) use under_loom::{Lock, notify, wait_until};

/// The same under the model checker, which tries every order in which threads take the lock. It knows no fairness: who waits sleeps.
#[cfg(loom)]
mod under_loom {
    use loom::sync::{Condvar, Mutex, MutexGuard};

    #[derive(Debug)]
    pub(crate) struct Lock<T>(Mutex<T>, Condvar);

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value), Condvar::new())
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no thread of a model panics")
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    pub(crate) fn wait_until<T>(lock: &Lock<T>, over: impl Fn(&T) -> bool) {
        let mut guard = lock.lock();
        while !over(&guard) {
            guard = lock.1.wait(guard).expect("no thread of a model panics");
        }
    }

    pub(crate) fn notify<T>(lock: &Lock<T>) {
        lock.1.notify_all();
    }
}
