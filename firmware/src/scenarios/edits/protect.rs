//! Permissions and types of pages change over holes, pages age and become clean, while the other cores read them.
//!
//! ```text
//!   core 0                                                              the others
//!   map six pages of A, but for the third and the fifth                 read all six all the time
//!   make all read-only: in place; TLBI                                  a write is refused, reads go on
//!   make them writable: in place                                        a write succeeds
//!   another shareability: invalid; TLBI; anew                           may fault
//!   age, twice: access flags are cleared                                fault, and set the flag again
//!   track writes                                                        a write faults once, and is noticed
//! ```

use alloc::{format, string::String};

use pgtable::{Geometry, Shareability};
use tlbi::{VaRange, VirtAddr};

use super::{Billing, Found, Show, Site, audience::Written, levels, perform};
use crate::stage::range;

const PAGES: u64 = 6;
const HOLES: [u64; 2] = [2, 4];

/// At every level of FEAT_BBM that the CPU has: a type is never changed in place.
pub fn correct<G: Geometry>(billing: &Billing) -> Result<(), String> {
    let places: [u64; PAGES as usize] = core::array::from_fn(|n| G::A + n as u64 * G::PAGE);
    levels().try_for_each(|bbm| perform::<G>(billing, bbm, &places, &script))
}

fn script<G: Geometry>(show: &Show<'_, '_, G>) {
    let whole = range(G::A, PAGES * G::PAGE);
    // The linear map says inner shareable; the difference is harmless here, and break-before-make is due.
    let outer = G::DATA.with_shareability(Shareability::Outer);
    let tracked = G::DATA.with_track_dirty(true);
    for n in (0..PAGES).filter(|n| !HOLES.contains(n)) {
        let page = range(G::A + n * G::PAGE, G::PAGE);
        let frame = show.page_for(page.start().bits());
        show.edit("map", None, &[(page, Found::Word)], |edit| edit.map(page, frame, G::DATA));
    }
    let word = G::A + 8;
    show.expect_write(word, 1, Written::Yes);

    show.edit("take writing away", None, &[], |edit| edit.protect(whole, G::RODATA));
    show.expect_write(word, 2, Written::Refused);
    show.edit("change nothing", None, &[], |edit| edit.protect(whole, G::RODATA));
    show.edit("permit writing", None, &[], |edit| edit.protect(whole, G::DATA));
    show.expect_write(word, 3, Written::Yes);
    show.edit("another shareability", Some(whole), &[], |edit| edit.protect(whole, outer));
    show.edit("back again", Some(whole), &[], |edit| edit.protect(whole, G::DATA));

    let mapped = PAGES - HOLES.len() as u64;
    for _ in 0..2 {
        // The readers have been everywhere since the last time.
        let mut young = 0;
        show.edit("age", None, &[], |edit| edit.age(whole, &mut |_| young += 1));
        if young != mapped {
            show.stage.fail(format!("{young} pages of {mapped} are young"));
        }
    }

    show.edit("track writes", None, &[], |edit| edit.protect(whole, tracked));
    clean(show, whole, &[]);
    show.expect_write(word, 4, Written::Yes);
    clean(show, whole, &[G::A]);
    clean(show, whole, &[]);
    // Holes and all; then the last page, and with it the tables.
    let last = range(G::A + (PAGES - 1) * G::PAGE, G::PAGE);
    let before = range(G::A, (PAGES - 1) * G::PAGE);
    show.edit("zap", None, &[(before, Found::Hole)], |edit| edit.zap(before));
    show.edit("unmap", None, &[(last, Found::Hole)], |edit| edit.unmap(last));
}

/// Cleans the pages: these were dirty.
fn clean<G: Geometry>(show: &Show<'_, '_, G>, whole: VaRange, expected: &[u64]) {
    let mut dirty = alloc::vec::Vec::new();
    show.edit("clean", None, &[], |edit| edit.clean(whole, &mut |page| dirty.push(page.va)));
    if !dirty.iter().copied().eq(expected.iter().map(|va| VirtAddr::new(*va))) {
        show.stage.fail(format!("dirty were {dirty:?}, not {expected:x?}"));
    }
}
