//! The lock of a space, and waiting for another core.

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
pub(crate) fn yield_now() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint; changes nothing.
    unsafe {
        core::arch::asm!("yield", options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::hint::spin_loop();
}

#[cfg(loom)]
pub(crate) use under_loom::{Lock, yield_now};

/// The same under the model checker, which tries every order in which threads take the lock.
#[cfg(loom)]
mod under_loom {
    #[derive(Debug)]
    pub(crate) struct Lock<T>(loom::sync::Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no thread of a model panics")
        }
    }

    pub(crate) fn yield_now() {
        loom::thread::yield_now();
    }
}
