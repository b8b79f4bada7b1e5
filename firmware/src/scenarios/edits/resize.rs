//! A block becomes pages and the pages a block, while the other cores read through it.
//!
//! ```text
//!   core 0                                                              the others
//!   map A: one block                                                    read its first, second and last page all the time
//!   split A: a table in the block's place, whose pages say the same
//!     FEAT_BBM 0: invalid; TLBI; table      1: nT; TLBI; table; TLBI      2: table; TLBI
//!     split-without-bbm:                    table, whatever the level
//!   collapse A: the block in the table's place
//!     invalid; TLBI of A, walk caches too; block
//!     collapse-leaf-only:                   the TLBI is of leaves only
//!   unmap A
//! ```

use alloc::string::String;

use pgtable::{Attributes, Geometry, fault::Fault};
use tlbi::Level;

use super::{A, Billing, Found, Show, levels, perform, spare};
use crate::stage::range;

/// At every level of FEAT_BBM that the CPU has.
pub fn correct<G: Geometry>(billing: &Billing) -> Result<(), String> {
    levels().try_for_each(|bbm| {
        on_block::<G>(billing, bbm, |show| {
            for _ in 0..2 {
                split(show, bbm == 0);
                collapse(show, bbm == 0);
            }
        })
    })
}

/// `split-without-bbm`.
pub fn split_in_place<G: Geometry>(billing: &Billing) -> Result<(), String> {
    on_block::<G>(billing, 0, |show| {
        show.stage.space.inject(Some(Fault::SplitWithoutBbm));
        split(show, false);
        show.stage.space.inject(None);
    })
}

/// `collapse-leaf-only`.
pub fn collapse_leaf_only<G: Geometry>(billing: &Billing) -> Result<(), String> {
    on_block::<G>(billing, 0, |show| {
        split(show, true);
        show.stage.space.inject(Some(Fault::CollapseLeafOnly));
        collapse(show, true);
        show.stage.space.inject(None);
    })
}

/// Maps a block, has `body` do something with it, and unmaps it.
fn on_block<G: Geometry>(
    billing: &Billing,
    bbm: u8,
    body: impl Fn(&Show<'_, '_, G>) + Sync,
) -> Result<(), String> {
    let size = G::size(Level::L2);
    let block = spare(size)?;
    let places = [A, A + G::PAGE, A + size - G::PAGE];
    perform::<G>(billing, bbm, &places, &|show| {
        show.fill(A, size, block.at(0));
        let whole = range(A, size);
        show.edit("map", None, &[(whole, Found::Word)], |edit| edit.map(whole, block.at(0), Attributes::USER_DATA));
        show.expect_leaf("map", A, Level::L2, false);
        body(show);
        show.edit("unmap", None, &[(whole, Found::Hole)], |edit| edit.unmap(whole));
    })
}

fn split<G: Geometry>(show: &Show<'_, '_, G>, breaks: bool) {
    let whole = range(A, G::size(Level::L2));
    let second = range(A + G::PAGE, G::PAGE);
    show.edit("split", breaks.then_some(whole), &[], |edit| edit.split(second));
    show.expect_leaf("split", A, Level::L3, false);
}

fn collapse<G: Geometry>(show: &Show<'_, '_, G>, breaks: bool) {
    let whole = range(A, G::size(Level::L2));
    show.edit("collapse", breaks.then_some(whole), &[], |edit| edit.collapse(whole));
    show.expect_leaf("collapse", A, Level::L2, false);
}
