//! A page that one core has cleared and not yet flushed, and another core that finds it so.
//!
//! ```text
//!      t1                                          t2
//!   0  map LEAF and its neighbour
//!   1                    everyone reads LEAF
//!   2  unmap LEAF: clears the entry, no flush yet
//!   3                                              zap: finds LEAF cleared, has nothing of its own to flush; finish
//!                                                    correct:             flushes all the same, or waits for t1
//!                                                    unflushed-neighbour: returns, and LEAF can still be read
//!              or, in the other script,            map LEAF to another frame
//!                                                    correct:             flushes what is pending first
//!                                                    map-over-pending:    two translations of LEAF at once
//!   4  finish
//! ```
//!
//! One core alone plays both: t2 within t1's open change. Where the remedy is to wait, t2's finish waits for t1's; so t1 goes on once
//! t2 has left, though it has not come back.

use alloc::string::String;

use pgtable::{Census, FrameAllocator, Remedy, fault::Fault};
use tlbsan_hint as hint;

use super::{Billing, LEAF, NEW, OLD, Reads};
use crate::{
    stage::{OnePe, PAGE, Stage, page},
    sync::wait_until,
    tamper::Loss,
};

/// t2 zaps what it finds cleared, and then believes the page gone.
pub fn zap(billing: &Billing, fault: Option<Fault>, reads: Reads) -> Result<(), String> {
    in_company(billing, fault, &|stage, core| {
        let zapped = stage.space.change(&stage.tlb, &OnePe, &mut |_| (), |edit| edit.zap(page(LEAF)));
        stage.expect("zap LEAF", zapped);
        hint::flush_claimed(LEAF, PAGE, billing.asid);
        // Known to be faulty, it may read the old frame, unless its own work has driven the old entry out.
        if reads == Reads::Fresh || !billing.as_named {
            stage.faults(core, LEAF);
        }
    })
}

/// t2 maps another frame where it finds the page cleared.
pub fn map_over(billing: &Billing, fault: Option<Fault>, reads: Reads) -> Result<(), String> {
    in_company(billing, fault, &|stage, core| {
        stage.map(LEAF, stage.frame(NEW));
        stage.sees_one_of(core, LEAF, reads.marks(billing, true));
    })
}

/// The drawing above, with `meanwhile` as step 3.
fn in_company(
    billing: &Billing,
    fault: Option<Fault>,
    meanwhile: &(dyn Fn(&Stage<'_>, usize) + Sync),
) -> Result<(), String> {
    Stage::play(billing.asid, Loss::Nothing, &|stage, core| {
        let steps = &stage.steps;
        let (t1, t2) = (0, stage.cores.min(2) - 1);
        if core == t1 {
            stage.space.inject(fault);
            steps.step(0, || {
                stage.map(LEAF, stage.frame(OLD));
                stage.map(LEAF + PAGE, stage.frame(OLD));
            });
        }
        steps.everyone(1, || stage.sees(core, LEAF, OLD));
        let waits = stage.remedy == Remedy::Wait && fault.is_none();
        if core == t1 {
            let begun = stage.space.census().begun;
            let unmapped =
                stage.space.change(&stage.tlb, &OnePe, &mut |released| stage.pool.free(released.frame), |edit| {
                    let unmapped = steps.step(2, || edit.unmap(page(LEAF)));
                    if t1 == t2 {
                        meanwhile(stage, core);
                    } else {
                        // This change and t2's have begun, and one is left.
                        let t2_left = || stage.space.census() == Census { begun: begun + 2, open: 1 };
                        wait_until(|| steps.at() == 4 || waits && t2_left());
                    }
                    unmapped
                });
            stage.expect("unmap LEAF", unmapped);
        }
        if core == t2 && t1 != t2 {
            steps.step(3, || meanwhile(stage, core));
        }
    })
}
