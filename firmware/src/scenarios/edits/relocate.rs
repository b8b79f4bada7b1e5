//! A page moves to another frame while the other cores read it, and one of them writes to it.
//!
//! ```text
//!   core 0                                                              the last core
//!   map A to F
//!   relocate A to G: invalid; DSB; TLBI; DSB;
//!                                                                       writes one word of A: faults
//!     copy F to G
//!                                                                       writes another word: faults
//!   the new entry; F is given back, and overwritten
//!                                                                       writes both again, as after the handler
//!   both words are there
//!
//!     remap-without-break: the new entry at once, in place. A write reaches F or G, as the TLB pleases: what went to G before
//!                          the copy, or to F after it, is lost
//! ```

use alloc::{format, string::String};

use pgtable::{FrameAllocator, Geometry, TableMemory, fault::Fault};
use tlbi::{PhysAddr, VirtAddr};

use super::{
    Billing, Found, Show, Site,
    audience::{Written, mark},
    levels, perform,
};
use crate::{
    exceptions::probe,
    stage::{Linear, range},
};

/// At every level of FEAT_BBM that the CPU has: none of them lets a frame change in place.
pub fn correct<G: Geometry>(billing: &Billing) -> Result<(), String> {
    levels().try_for_each(|bbm| {
        on_page::<G>(billing, bbm, |show| {
            for turn in 1..5 {
                if relocate(show, turn, Written::Broken) {
                    show.stage.fail(format!("a write was lost in turn {turn}"));
                }
            }
        })
    })
}

/// `remap-without-break`.
pub fn in_place<G: Geometry>(billing: &Billing) -> Result<(), String> {
    on_page::<G>(billing, 0, |show| {
        show.stage.space.inject(Some(Fault::RemapWithoutBreak));
        let lost = relocate(show, 1, if billing.as_named { Written::Yes } else { Written::Broken });
        if lost != billing.as_named {
            show.stage.fail(if lost { "a write was lost".into() } else { "no write was lost".into() });
        }
        show.stage.space.inject(None);
    })
}

fn on_page<G: Geometry>(billing: &Billing, bbm: u8, body: impl Fn(&Show<'_, '_, G>) + Sync) -> Result<(), String> {
    let places = [G::A, G::A + G::PAGE];
    perform::<G>(billing, bbm, &places, &|show| {
        for va in places {
            let frame = show.page_for(va);
            let page = range(va, G::PAGE);
            show.edit("map", None, &[(page, Found::Word)], |edit| edit.map(page, frame, G::DATA));
        }
        body(show);
        let both = range(G::A, 2 * G::PAGE);
        show.edit("unmap", None, &[(both, Found::Hole)], |edit| edit.unmap(both));
    })
}

/// Moves A to another frame; whether a write was lost that came meanwhile, and to which happens `meanwhile`.
fn relocate<G: Geometry>(show: &Show<'_, '_, G>, turn: u64, meanwhile: Written) -> bool {
    let stage = show.stage;
    let Some(to) = stage.pool.allocate() else {
        stage.fail("the pool is empty".into());
        return false;
    };
    // Written before the copy, and after it.
    let words = [(G::A + 8, mark(turn)), (G::A + 16, mark(turn << 8))];
    let write = |(va, word)| show.expect_write(va, word, meanwhile);
    let mut copy = |from: PhysAddr, to: PhysAddr, size: u64| {
        write(words[0]);
        for offset in (0..size).step_by(8) {
            Linear.store(PhysAddr::new(to.bits() + offset), Linear.load(PhysAddr::new(from.bits() + offset)));
        }
        write(words[1]);
    };
    show.edit("relocate", Some(range(G::A, G::PAGE)), &[], |edit| edit.relocate(VirtAddr::new(G::A), to, &mut copy));
    if meanwhile == Written::Broken {
        // As the access is done again when the handler has found the page mapped.
        words.into_iter().for_each(|(va, word)| show.expect_write(va, word, Written::Yes));
    }
    // SAFETY: aligned; the frames are the case's.
    words.into_iter().any(|(va, word)| unsafe { probe::read(va) } != Ok(word))
}
