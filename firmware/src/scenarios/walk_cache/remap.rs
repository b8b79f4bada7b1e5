//! One core unmaps a page and maps another frame there; each way to get the invalidation in between wrong.
//!
//! ```text
//!      core 0                                      the last core
//!   0  map the page and its neighbour
//!   1                                              reads it: the old frame
//!   2  unmap it: DSB ISHST; TLBI; DSB ISH; ISB
//!      map it to another frame; read it
//!   3                                              reads it: the new frame
//! ```
//!
//! The page is LEAF, whose neighbour keeps their level-3 table in use, or A, whose level-3 table is freed, and whose neighbour keeps
//! the tables above it.

use alloc::{format, string::String};

use pgtable::{FrameAllocator, fault::Fault};

use super::{A, Billing, LEAF, NEW, OLD, Reads, STACK, race::table_of};
use crate::{
    stage::{OnePe, PAGE, Stage, page},
    tamper::{self, Loss},
};

/// The drawing above.
pub fn play(billing: &Billing, va: u64, loss: Loss, fault: Option<Fault>, reads: Reads) -> Result<(), String> {
    Stage::play(billing.asid, loss, &|stage, core| {
        let steps = &stage.steps;
        let reader = stage.cores - 1;
        if core == 0 {
            stage.space.inject(fault);
            // As an allocator does that finds uses after free.
            stage.pool.scribble(fault == Some(Fault::TablesFreedBeforeFlush));
            steps.step(0, || {
                stage.map(va, stage.frame(OLD));
                stage.map(if va == LEAF { LEAF + PAGE } else { STACK }, stage.frame(OLD));
            });
        }
        if core == reader {
            steps.step(1, || stage.sees(core, va, OLD));
        }
        if core == 0 {
            steps.step(2, || {
                unmap_and_map_again(stage, va);
                if core != reader {
                    // It has never read the page, but for the frame that is there now.
                    stage.sees(core, va, NEW);
                }
            });
        }
        if core == reader {
            if loss == Loss::FullDsbsElsewhere {
                tamper::execute_dsbs_of_another_core(|| steps.at() == 3);
            }
            steps.step(3, || stage.sees_one_of(core, va, reads.marks(billing, core == 0)));
        }
    })
}

fn unmap_and_map_again(stage: &Stage<'_>, va: u64) {
    let old_table = table_of(stage, va);
    // The frame keeps its contents: the pool hands it out last.
    let unmapped = stage
        .space
        .change(&stage.tlb, &OnePe, &mut |released| stage.pool.free(released.frame), |edit| edit.unmap(page(va)));
    stage.expect("unmap", unmapped);
    stage.map(va, stage.frame(NEW));
    if va == A && table_of(stage, va) == old_table {
        stage.fail(format!("the table {old_table:?} was linked again: that is no fault, and the case shows nothing"));
    }
}
