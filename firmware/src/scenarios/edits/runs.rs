//! Pages become a contiguous run and the run single pages, while the other cores read through it.
//!
//! ```text
//!   core 0                                                              the others
//!   map A: the pages of one run, each for itself                        read the first, second and last page all the time
//!   fold, unfold, fold:
//!     FEAT_BBM 0, 1: all invalid; TLBI of the run; all anew      2: in place; TLBI of the run
//!   make the second page read-only: the run is unfolded first
//!     contiguous-partial: it is not, and the rest of the run still says that the page is writable
//!   make all read-only, fold
//!   unmap the second page: the run is unfolded first
//!   map another frame there
//! ```

use alloc::string::String;

use pgtable::{Geometry, fault::Fault};
use tlbi::Level;

use super::{Billing, Found, Show, Site, levels, perform, spare};
use crate::stage::range;

/// At every level of FEAT_BBM that the CPU has.
pub fn correct<G: Geometry>(billing: &Billing) -> Result<(), String> {
    levels().try_for_each(|bbm| {
        on_run::<G>(billing, bbm, |show| {
            let whole = range(G::A, G::run_size(Level::L3));
            let second = range(G::A + G::PAGE, G::PAGE);
            let breaks = (bbm < 2).then_some(whole);
            let is_run = |what, run| show.expect_leaf(what, G::A, Level::L3, run);

            is_run("map", true);
            for _ in 0..2 {
                show.edit("unfold", breaks, &[], |edit| edit.unfold(second));
                is_run("unfold", false);
                show.edit("fold", breaks, &[], |edit| edit.fold(whole));
                is_run("fold", true);
            }
            show.edit("protect a part", breaks, &[], |edit| edit.protect(second, G::RODATA));
            is_run("protect a part", false);
            show.edit("protect the rest", None, &[], |edit| edit.protect(whole, G::RODATA));
            show.edit("fold", breaks, &[], |edit| edit.fold(whole));
            is_run("fold", true);
            unmap_second_and_map_again(show, bbm < 2);
            show.edit("fold", None, &[], |edit| edit.fold(whole));
            is_run("pages that are no run", false);
        })
    })
}

/// `contiguous-partial`.
pub fn partial<G: Geometry>(billing: &Billing) -> Result<(), String> {
    on_run::<G>(billing, 0, |show| {
        let whole = range(G::A, G::run_size(Level::L3));
        let second = range(G::A + G::PAGE, G::PAGE);
        show.stage.space.inject(Some(Fault::ContiguousPartial));
        show.edit("protect a part", None, &[], |edit| edit.protect(second, G::RODATA));
        show.stage.space.inject(None);
        // All of one kind again.
        show.edit("protect the rest", None, &[], |edit| edit.protect(whole, G::RODATA));
    })
}

/// Maps a run, has `body` do something with it, and unmaps it.
fn on_run<G: Geometry>(billing: &Billing, bbm: u8, body: impl Fn(&Show<'_, '_, G>) + Sync) -> Result<(), String> {
    let size = G::run_size(Level::L3);
    let block = spare(size)?;
    let places = [G::A, G::A + G::PAGE, G::A + size - G::PAGE];
    perform::<G>(billing, bbm, &places, &|show| {
        show.fill(G::A, size, block.at(0));
        let whole = range(G::A, size);
        show.edit("map", None, &[(whole, Found::Word)], |edit| edit.map(whole, block.at(0), G::DATA));
        body(show);
        show.edit("unmap", None, &[(whole, Found::Hole)], |edit| edit.unmap(whole));
    })
}

fn unmap_second_and_map_again<G: Geometry>(show: &Show<'_, '_, G>, breaks: bool) {
    let whole = range(G::A, G::run_size(Level::L3));
    let second = range(G::A + G::PAGE, G::PAGE);
    show.edit("unmap a part", breaks.then_some(whole), &[(second, Found::Hole)], |edit| edit.unmap(second));
    let frame = show.page_for(G::A + G::PAGE);
    show.edit("map it again", None, &[(second, Found::Word)], |edit| edit.map(second, frame, G::DATA));
}
