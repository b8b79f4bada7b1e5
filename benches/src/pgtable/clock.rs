//! What work takes: CPU time of this thread, for what others do on the machine is not ours.

/// Seconds.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let begun = now();
    work();
    now() - begun
}

fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this call. The clock exists, so the call succeeds.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
