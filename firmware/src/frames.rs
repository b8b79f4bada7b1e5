//! Physical memory: page frames for whoever asks, and the heap behind `alloc`.
//!
//! Both are buddy allocators over the RAM that the device tree names, without the image, the device tree and what is reserved. The
//! frame allocator keeps its books on the heap, so a frame is never written while it is free. Lock order: frames, then heap.
//! Neither may be used in an interrupt handler.

use core::{
    alloc::{GlobalAlloc, Layout},
    ops::Range,
    ptr::{self, NonNull},
};

use buddy_system_allocator::{FrameAllocator, Heap};

use crate::{
    mmu::{phys_to_virt, virt_to_phys},
    sync::Lock,
};

/// Size of a frame.
pub const FRAME_SIZE: u64 = 4096;

/// Blocks up to 2^(ORDER - 1) bytes, or frames.
const ORDER: usize = 33;

/// The heap takes an eighth of the largest region, within these limits.
const HEAP_MIN: u64 = 2 << 20;
const HEAP_MAX: u64 = 64 << 20;

/// At most this many pieces of RAM and holes in it.
const MAX_PIECES: usize = 64;

static FRAMES: Lock<FrameAllocator<ORDER>> = Lock::new(FrameAllocator::new());

struct KernelHeap(Lock<Heap<ORDER>>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Lock::new(Heap::empty()));

// SAFETY: the buddy heap returns blocks of at least the layout's size and alignment out of memory that [`init`] gave it alone, and
// the lock makes each call exclusive.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().alloc(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if let Some(at) = NonNull::new(at) {
            // SAFETY: GlobalAlloc's caller passes a block of ours with the layout it was allocated with.
            unsafe { self.0.lock().dealloc(at, layout) }
        }
    }
}

/// A short list of address ranges.
pub struct Pieces {
    pieces: [Range<u64>; MAX_PIECES],
    len: usize,
}

impl Pieces {
    /// Nothing.
    pub const fn new() -> Self {
        Self { pieces: [const { 0..0 }; MAX_PIECES], len: 0 }
    }

    /// Adds a range; empty ones vanish. Says whether there was room.
    pub fn push(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let room = self.len < MAX_PIECES;
        if room {
            self.pieces[self.len] = range;
            self.len += 1;
        }
        room
    }

    /// Takes `hole` out of every range. Says whether there was room for the pieces.
    pub fn remove(&mut self, hole: &Range<u64>) -> bool {
        let mut left = Self::new();
        let mut room = true;
        for piece in self.iter() {
            room &= left.push(piece.start..piece.end.min(hole.start));
            room &= left.push(piece.start.max(hole.end)..piece.end);
        }
        // A hole that lies outside yields the piece once: one of the two ranges above is empty or the piece itself.
        *self = left;
        room
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.pieces[..self.len].iter()
    }
}

impl Default for Pieces {
    fn default() -> Self {
        Self::new()
    }
}

/// Hands the RAM in `free` to the heap and the frame allocator.
///
/// # Safety
/// All of it is RAM in the linear map, used by nobody, and the call happens once.
///
/// # Errors
/// The number of bytes in the largest piece when no piece can hold a heap.
pub unsafe fn init(free: &Pieces) -> Result<(), u64> {
    let whole = |piece: &Range<u64>| piece.start.next_multiple_of(FRAME_SIZE)..piece.end & !(FRAME_SIZE - 1);
    let largest = free.iter().map(whole).max_by_key(|piece| piece.end.saturating_sub(piece.start)).unwrap_or(0..0);
    let size = largest.end.saturating_sub(largest.start);
    let heap = (size / 8).clamp(HEAP_MIN, HEAP_MAX).next_multiple_of(FRAME_SIZE);
    if size < 2 * heap {
        return Err(size);
    }
    let heap = largest.end - heap..largest.end;
    // SAFETY: the range is RAM in the linear map that nobody else uses (the caller's promise), and it is kept from the frame
    // allocator below.
    unsafe {
        HEAP.0.lock().add_to_heap(phys_to_virt::<u8>(heap.start) as usize, phys_to_virt::<u8>(heap.end) as usize)
    };
    let mut frames = FRAMES.lock();
    for piece in free.iter().map(whole) {
        let end = if piece.end == heap.end { heap.start } else { piece.end };
        if piece.start < end {
            frames.add_frame((piece.start / FRAME_SIZE) as usize, (end / FRAME_SIZE) as usize);
        }
    }
    Ok(())
}

/// Physical address of a frame with unknown contents, or nothing when memory is out.
pub fn alloc() -> Option<u64> {
    alloc_pages(1)
}

/// Physical address of a frame of zeros.
pub fn alloc_zeroed() -> Option<u64> {
    let pa = alloc()?;
    // SAFETY: the frame is ours since the line above, and RAM in the linear map.
    unsafe { ptr::write_bytes(phys_to_virt::<u8>(pa), 0, FRAME_SIZE as usize) };
    Some(pa)
}

/// Gives back a frame from [`alloc`].
pub fn free(pa: u64) {
    free_pages(pa, 1);
}

/// Physical address of `count` adjacent frames, rounded up to a power of two and aligned to that (512: a 2 MiB block).
pub fn alloc_pages(count: usize) -> Option<u64> {
    FRAMES.lock().alloc(count).map(|frame| frame as u64 * FRAME_SIZE)
}

/// Gives back frames from [`alloc_pages`] with the same count.
pub fn free_pages(pa: u64, count: usize) {
    FRAMES.lock().dealloc((pa / FRAME_SIZE) as usize, count);
}

/// Bytes the heap has handed out. For leak checks.
pub fn heap_used() -> usize {
    HEAP.0.lock().stats_alloc_user()
}

/// Physical address of something on the heap.
pub fn heap_to_phys<T>(at: *const T) -> u64 {
    virt_to_phys(at)
}
