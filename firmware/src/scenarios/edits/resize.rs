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

use pgtable::{Geometry, TableMemory, fault::Fault};
use tlbi::Level;

use super::{Billing, Found, Kernel, Show, Site, audience::mark, levels, perform, perform_from, spare};
use crate::{
    mmu,
    stage::{BLOCK, Linear, PAGE, range},
};

/// At every level of FEAT_BBM that the CPU has.
pub fn correct<G: Geometry>(billing: &Billing) -> Result<(), String> {
    levels().try_for_each(|bbm| {
        on_block::<G>(billing, bbm, |show| {
            for _ in 0..2 {
                split(show, G::A, bbm == 0);
                collapse(show, G::A, bbm == 0);
            }
        })
    })
}

/// The same with a block of the linear map, through which the kernel reads and writes all RAM. Nobody but the readers uses this block
/// of it while it may be broken: a kernel that cannot say so takes a CPU with FEAT_BBM.
pub fn linear_map(billing: &Billing) -> Result<(), String> {
    let block = spare(BLOCK)?;
    let at = mmu::phys_to_virt::<u64>(block.at(0).bits()) as u64;
    let places = [at, at + PAGE, at + BLOCK - PAGE];
    // The readers find it mapped.
    places.iter().for_each(|va| Linear.store(block.at(va - at), mark(*va)));
    levels().try_for_each(|bbm| {
        perform_from::<Kernel>(Found::Word, billing, bbm, &places, &|show| {
            show.expect_leaf("the linear map", at, Level::L2, false);
            for _ in 0..2 {
                split(show, at, bbm == 0);
                collapse(show, at, bbm == 0);
            }
        })
    })
}

/// `split-without-bbm`.
pub fn split_in_place<G: Geometry>(billing: &Billing) -> Result<(), String> {
    on_block::<G>(billing, 0, |show| {
        show.stage.space.inject(Some(Fault::SplitWithoutBbm));
        split(show, G::A, false);
        show.stage.space.inject(None);
    })
}

/// `collapse-leaf-only`.
pub fn collapse_leaf_only<G: Geometry>(billing: &Billing) -> Result<(), String> {
    on_block::<G>(billing, 0, |show| {
        split(show, G::A, true);
        show.stage.space.inject(Some(Fault::CollapseLeafOnly));
        collapse(show, G::A, true);
        show.stage.space.inject(None);
    })
}

/// Maps a block, has `body` do something with it, and unmaps it.
fn on_block<G: Geometry>(billing: &Billing, bbm: u8, body: impl Fn(&Show<'_, '_, G>) + Sync) -> Result<(), String> {
    let size = G::size(Level::L2);
    let block = spare(size)?;
    let places = [G::A, G::A + G::PAGE, G::A + size - G::PAGE];
    perform::<G>(billing, bbm, &places, &|show| {
        show.fill(G::A, size, block.at(0));
        let whole = range(G::A, size);
        show.edit("map", None, &[(whole, Found::Word)], |edit| edit.map(whole, block.at(0), G::DATA));
        show.expect_leaf("map", G::A, Level::L2, false);
        body(show);
        show.edit("unmap", None, &[(whole, Found::Hole)], |edit| edit.unmap(whole));
    })
}

fn split<G: Geometry>(show: &Show<'_, '_, G>, at: u64, breaks: bool) {
    let whole = range(at, G::size(Level::L2));
    let second = range(at + G::PAGE, G::PAGE);
    show.edit("split", breaks.then_some(whole), &[], |edit| edit.split(second));
    show.expect_leaf("split", at, Level::L3, false);
}

fn collapse<G: Geometry>(show: &Show<'_, '_, G>, at: u64, breaks: bool) {
    let whole = range(at, G::size(Level::L2));
    show.edit("collapse", breaks.then_some(whole), &[], |edit| edit.collapse(whole));
    show.expect_leaf("collapse", at, Level::L2, false);
}
