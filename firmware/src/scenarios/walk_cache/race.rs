//! The 2019 bug of arm64 Linux: two threads unmap in one address space at once, and one flush forgets that tables were freed.
//!
//! t1 unmaps a page and frees its page table T; t2 drops its stack meanwhile. t1's finish sees that somebody else has a change
//! open, so it resets its record "to force a flush" of everything, and with the record goes the knowledge that a table was freed.
//! It invalidates leaves only. The walk caches still lead to T when t1 maps again and another table T' is linked in its place: cores
//! that walk through T fault for ever on an entry that looks valid.
//!
//! ```text
//!      t1                                          t2
//!   0  map A, STACK
//!   1                    everyone reads both
//!   2  unmap A: clears the entry, unlinks T
//!   3                                              opens a change: two are open now
//!   4  finish: sees company
//!        correct:                  what the remedy asks for, tables too
//!        lost-freed-tables:        VALE1IS of A: leaves only
//!        gather-record-reset-late: nothing: the record was reset after the tables were noted
//!   5  map A: links T', which is not T
//!   6                    everyone reads A: the new frame
//!   7                                              zap STACK; finish
//!   8  map STACK
//!   9                    everyone reads STACK: the new frame
//! ```
//!
//! One core alone plays both: t1 within t2's open change, as an interrupt would. Where the remedy is to wait, t1's finish waits for
//! t2's; so t2 goes on once t1 has flushed and left, though it has not come back.

use alloc::{format, string::String};

use pgtable::{FrameAllocator, Remedy, fault::Fault};
use tlbi::{Level, PhysAddr, VirtAddr};

use super::{A, Billing, NEW, OLD, Reads, STACK};
use crate::{
    stage::{OnePe, Stage, page},
    sync::wait_until,
    tamper::Loss,
};

/// The core that unmaps, and the one that drops its stack.
const T1: usize = 0;
const T2: usize = 1;

/// The drawing above.
pub fn play(billing: &Billing, fault: Option<Fault>, reads: Reads) -> Result<(), String> {
    let marks = |core| reads.marks(billing, core == T1 || core == T2);
    Stage::play(billing.asid, Loss::Nothing, &|stage, core| {
        let steps = &stage.steps;
        let everyone_reads_a = || steps.everyone(6, || stage.sees_one_of(core, A, marks(core)));

        if core == T1 {
            stage.space.inject(fault);
            steps.step(0, || {
                stage.map(A, stage.frame(OLD));
                stage.map(STACK, stage.frame(OLD));
            });
        }
        steps.everyone(1, || {
            stage.sees(core, A, OLD);
            stage.sees(core, STACK, OLD);
        });
        match core {
            _ if stage.cores == 1 => drop_stack(stage, || {
                unmap_and_map_again(stage);
                everyone_reads_a();
            }),
            T1 => {
                unmap_and_map_again(stage);
                everyone_reads_a();
            }
            T2 if stage.remedy == Remedy::Wait => {
                // t1's change is open, and so is this one: one is left when t1 has flushed.
                drop_stack(stage, || wait_until(|| stage.space.census().open == 1));
                everyone_reads_a();
                steps.step(7, || ());
            }
            T2 => {
                drop_stack(stage, || {
                    everyone_reads_a();
                    steps.reach(7);
                });
                steps.done(7);
            }
            _ => everyone_reads_a(),
        }
        if core == T1 {
            steps.step(8, || stage.map(STACK, stage.frame(NEW)));
        }
        steps.everyone(9, || stage.sees(core, STACK, NEW));
    })
}

/// t1: unmaps A, finishes in company, maps A again.
fn unmap_and_map_again(stage: &Stage<'_>) {
    let steps = &stage.steps;
    let old_table = table_of(stage, A);
    let unmapped = stage.space.change(&stage.tlb, &OnePe, &mut |released| stage.pool.free(released.frame), |edit| {
        let unmapped = steps.step(2, || edit.unmap(page(A)));
        steps.reach(4);
        unmapped
    });
    stage.expect("unmap A", unmapped);
    steps.done(4);
    steps.step(5, || {
        stage.map(A, stage.frame(NEW));
        if table_of(stage, A) == old_table {
            stage.fail(format!(
                "the table {old_table:?} was linked again: that is no fault, and the case shows nothing"
            ));
        }
    });
}

/// t2: has a change open while `meanwhile` happens.
fn drop_stack(stage: &Stage<'_>, meanwhile: impl FnOnce()) {
    let steps = &stage.steps;
    let zapped = stage.space.change(&stage.tlb, &OnePe, &mut |released| stage.pool.free(released.frame), |edit| {
        steps.step(3, || ());
        meanwhile();
        edit.zap(page(STACK))
    });
    stage.expect("zap STACK", zapped);
}

/// The level-3 table that translates `va`.
pub fn table_of(stage: &Stage<'_>, va: u64) -> Option<PhysAddr> {
    stage.space.table(VirtAddr::new(va), Level::L3)
}
