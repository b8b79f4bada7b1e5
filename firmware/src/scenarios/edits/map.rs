//! Ranges come and go, in the largest leaves that fit, while the other cores read there and next to it.
//!
//! ```text
//!   core 0                                                              the others
//!   map from one page and one run below A to its end: a page,           read there, and in the hole before, all the time
//!     a run, and a block where there is memory for one
//!   unmap it, in two parts; map it again
//!
//!   map one page of A, in a new table: cleared, then linked
//!     table-linked-before-zeroed: linked, then cleared. The frame held what looks like an entry
//! ```

use alloc::string::String;

use pgtable::{Descriptor, FrameAllocator, Geometry, fault::Fault};
use tlbi::Level;

use super::{Billing, Found, Site, audience::mark, block_size, perform, spare};
use crate::stage::range;

/// Bytes of the block that is mapped; none with 64 KiB pages, where 512 MiB are for another form.
const fn block<G: Geometry>() -> u64 {
    if block_size::<G>() > 32 << 20 { 0 } else { block_size::<G>() }
}

/// Memory that [`correct`] takes.
pub const fn memory<G: Geometry>() -> u64 {
    if block::<G>() > 0 { 2 * block::<G>() } else { 4 << 20 }
}

/// Everything invalid that becomes valid, and the other way round.
pub fn correct<G: Geometry>(billing: &Billing) -> Result<(), String> {
    let (run, block) = (G::run_size(Level::L3), block::<G>());
    let start = G::A - run - G::PAGE;
    let size = G::A + block - start;
    // Frames are as far into their block, or run, as their addresses: A is at the middle of the memory, or at its end.
    let memory = spare(memory::<G>())?;
    let frame = memory.at(self::memory::<G>() - size);
    let places = [start - G::PAGE, start, start + G::PAGE, G::A - G::PAGE, start + size - G::PAGE];
    perform::<G>(billing, 0, &places, &|show| {
        let (whole, first) = (range(start, size), range(start, G::PAGE));
        let rest = range(start + G::PAGE, size - G::PAGE);
        for _ in 0..2 {
            show.fill(start, size, frame);
            show.edit("map", None, &[(whole, Found::Word)], |edit| edit.map(whole, frame, G::DATA));
            show.expect_leaf("the page", start, Level::L3, false);
            show.expect_leaf("the run", start + G::PAGE, Level::L3, true);
            if block > 0 {
                show.expect_leaf("the block", G::A, Level::L2, false);
            }
            show.edit("unmap a page", None, &[(first, Found::Hole)], |edit| edit.unmap(first));
            show.edit("unmap the rest", None, &[(rest, Found::Hole)], |edit| edit.unmap(rest));
        }
    })
}

/// `table-linked-before-zeroed`.
pub fn linked_early<G: Geometry>(billing: &Billing) -> Result<(), String> {
    let va = G::A + G::PAGE;
    // Only a page elsewhere is read all the time: what others would read here is chance.
    let elsewhere = G::A + block_size::<G>();
    perform::<G>(billing, 0, &[elsewhere], &|show| {
        let stage = show.stage;
        let (page, other) = (range(va, G::PAGE), range(elsewhere, G::PAGE));
        let frame = show.page_for(elsewhere);
        show.edit("map elsewhere", None, &[(other, Found::Word)], |edit| edit.map(other, frame, G::DATA));
        // The next frame holds what looks like an entry for `va`.
        let (frame, stray) = (show.page_for(va), show.page_for(va));
        let entry = Descriptor::leaf::<G>(Level::L3, stray, G::DATA, G::UPPER);
        stage.pool.scribble_on_next(8, entry.bits());
        stage.space.inject(Some(Fault::TableLinkedBeforeZeroed));
        show.edit("map in a new table", None, &[], |edit| edit.map(page, frame, G::DATA));
        stage.space.inject(None);
        stage.sees(0, va, mark(va));
        show.edit("unmap", None, &[], |edit| edit.unmap(page));
        show.edit("unmap elsewhere", None, &[(other, Found::Hole)], |edit| edit.unmap(other));
        stage.pool.free(stray);
    })
}
