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
//!   4                    the last core reads LEAF; where it is neither of the two, it has only waited since step 1
//!   5  finish
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
    let zap = |stage: &Stage<'_>| {
        let zapped = stage.space.change(&stage.tlb, &OnePe, &mut |_| (), |edit| edit.zap(page(LEAF)));
        stage.expect("zap LEAF", zapped);
        hint::flush_claimed(LEAF, PAGE, billing.asid);
    };
    // Known to be faulty, it may read the old frame, unless the core's own work has driven the old entry out.
    in_company(billing, fault, &zap, &|stage, core, _| {
        if reads == Reads::Fresh || !billing.as_named {
            stage.faults(core, LEAF);
        }
    })
}

/// t2 maps another frame where it finds the page cleared.
pub fn map_over(billing: &Billing, fault: Option<Fault>, reads: Reads) -> Result<(), String> {
    let map = |stage: &Stage<'_>| stage.map(LEAF, stage.frame(NEW));
    in_company(billing, fault, &map, &|stage, core, worked| stage.sees_one_of(core, LEAF, reads.marks(billing, worked)))
}

/// The drawing above, with `meanwhile` as step 3. The last core is the `witness` of step 4, and is told whether it has worked since
/// step 1: what it does itself may drive an old entry out of its TLB.
fn in_company(
    billing: &Billing,
    fault: Option<Fault>,
    meanwhile: &(dyn Fn(&Stage<'_>) + Sync),
    witness: &(dyn Fn(&Stage<'_>, usize, bool) + Sync),
) -> Result<(), String> {
    Stage::play(billing.asid, Loss::Nothing, &|stage, core| {
        let steps = &stage.steps;
        let (t1, t2, last) = (0, stage.cores.min(2) - 1, stage.cores - 1);
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
                        meanwhile(stage);
                        witness(stage, core, true);
                    } else {
                        // This change and t2's have begun, and one is left.
                        let t2_left = || stage.space.census() == Census { begun: begun + 2, open: 1 };
                        wait_until(|| steps.at() == 5 || waits && t2_left());
                    }
                    unmapped
                });
            stage.expect("unmap LEAF", unmapped);
        }
        if t1 != t2 {
            if core == t2 {
                steps.step(3, || meanwhile(stage));
            }
            if core == last {
                steps.step(4, || witness(stage, core, last == t2));
            }
        }
    })
}
