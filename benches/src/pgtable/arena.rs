//! Frames for tables: the same ones, touched before, for everybody. A stack for each thread, as a kernel has one for each core.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::RefCell;

pub(crate) const FRAME: usize = 4096;

thread_local! {
    static FREE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Gives this thread `frames` more frames. Their memory is never given back.
pub(crate) fn provide(frames: usize) {
    let layout = Layout::from_size_align(frames * FRAME, FRAME).expect("a size that fits");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: the allocation is that long. Whatever is in it, no page of it is still to be faulted in afterwards.
    unsafe { memory.write_bytes(0xa5, frames * FRAME) };
    FREE.with_borrow_mut(|free| free.extend((0..frames).map(|n| memory as u64 + (n * FRAME) as u64)));
}

/// Takes a frame, contents as they are: its address, which is physical and virtual.
#[inline]
pub(crate) fn allocate() -> Option<u64> {
    FREE.with_borrow_mut(Vec::pop)
}

/// Takes a frame, zeroed.
#[inline]
pub(crate) fn allocate_zeroed() -> Option<u64> {
    let frame = allocate()?;
    // SAFETY: a frame is ours alone until it is freed.
    unsafe { (frame as *mut u8).write_bytes(0, FRAME) };
    Some(frame)
}

#[inline]
pub(crate) fn free(frame: u64) {
    FREE.with_borrow_mut(|free| free.push(frame));
}

/// Takes many frames, for another thread.
pub(crate) fn part(frames: usize) -> Vec<u64> {
    FREE.with_borrow_mut(|free| free.split_off(free.len() - frames))
}

/// Gives this thread frames that another one had.
pub(crate) fn give(mut frames: Vec<u64>) {
    FREE.with_borrow_mut(|free| free.append(&mut frames));
}

/// Frames that are free.
pub(crate) fn available() -> usize {
    FREE.with_borrow(Vec::len)
}

/// Everybody begins with the lowest frame, and goes up.
pub(crate) fn sort() {
    FREE.with_borrow_mut(|free| free.sort_unstable_by(|a, b| b.cmp(a)));
}
