//! walk-cache: two threads unmap in one address space at once, and one flush forgets that page tables were freed.
//!
//! arm64 Linux, May 2019. t1 unmaps a page and frees its page table T; t2 drops its stack meanwhile. t1's finish sees that
//! somebody else has a change open, so it resets its record "to force a flush" of everything, and with the record goes the
//! knowledge that a table was freed. It invalidates leaves only. The walk caches still lead to T when t1 maps again and another
//! table T' is linked in its place: cores that walk through T fault for ever on an entry that looks valid.
//!
//! ```text
//!      t1                                          t2
//!   0  map A, STACK
//!   1                    everyone reads both
//!   2  unmap A: clears the entry, unlinks T
//!   3                                              opens a change: two are open now
//!   4  finish: sees company
//!        correct: invalidates the whole ASID, tables too
//!        fault:   VALE1IS of A: leaves only
//!   5  map A: links T', which is not T
//!   6                    everyone reads A: the new frame
//!   7                                              zap STACK; finish
//!   8  map STACK
//!   9                    everyone reads STACK: the new frame
//! ```
//!
//! One core alone plays both: t1 within t2's open change, as an interrupt would. `missing-leaf` is the simple relative: the leaf
//! itself is not invalidated, and another core goes on reading the old page.

use alloc::{format, string::String};

use pgtable::{FrameAllocator, fault::Fault};
use tlbi::{Level, PhysAddr, VirtAddr};
use tlbsan_hint::{Cause, Expected, Kind};

use super::{Form, Judge};
use crate::{
    platform::bootargs,
    stage::{BLOCK, OnePe, PAGE, Stage, page},
    tamper::Loss,
};

/// The page that t1 unmaps: alone in its 2 MiB span, so that its level-3 table is freed.
const A: u64 = 0x4000_0000;
/// The page that t2 drops, in the next span: no TLBI for it may clean A's table entry.
const STACK: u64 = A + BLOCK;
/// The page of `missing-leaf`, whose neighbour keeps their table in use.
const LEAF: u64 = 0x8000_0000;

const OLD: u64 = 0x0101_0101;
const NEW: u64 = 0x0202_0202;

/// The forms.
pub const FORMS: &[Form] = &[
    Form { name: "walk-cache/correct", judge: Judge::Cores, expected: &[], play: correct },
    Form {
        name: "walk-cache/lost-freed-tables",
        judge: Judge::Tlbsan,
        expected: &[Expected { kind: Kind::Remade, cause: Cause::LeafOnly, start: A, size: BLOCK, level: 2 }],
        play: lost_freed_tables,
    },
    Form {
        name: "walk-cache/missing-leaf",
        judge: Judge::Cores,
        expected: &[Expected { kind: Kind::Remade, cause: Cause::NoInvalidation, start: LEAF, size: PAGE, level: 3 }],
        play: missing_leaf,
    },
];

fn correct(asid: u16, _: bool) -> Result<(), String> {
    let loss = match bootargs::number("drop") {
        Ok(Some(n)) => Loss::Nth(n as usize),
        Ok(None) => Loss::Nothing,
        Err(word) => return Err(format!("drop={word}: not the number of an instruction")),
    };
    unmap_in_company(asid, loss, None)
}

fn lost_freed_tables(asid: u16, _: bool) -> Result<(), String> {
    unmap_in_company(asid, Loss::Nothing, Some(Fault::LostFreedTables))
}

/// The core that unmaps, and the one that drops its stack.
const T1: usize = 0;
const T2: usize = 1;

/// The drawing above.
fn unmap_in_company(asid: u16, loss: Loss, fault: Option<Fault>) -> Result<(), String> {
    Stage::play(asid, loss, &|stage, core| {
        let steps = &stage.steps;
        let everyone_reads_a = || steps.everyone(6, || stage.sees(core, A, NEW));

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
            T2 => drop_stack(stage, everyone_reads_a),
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
        steps.reach(7);
        edit.zap(page(STACK))
    });
    stage.expect("zap STACK", zapped);
    steps.done(7);
}

fn table_of(stage: &Stage<'_>, va: u64) -> Option<PhysAddr> {
    stage.space.table(VirtAddr::new(va), Level::L3)
}

/// The TLBI for a leaf is lost; the last core goes on reading the old page.
///
/// ```text
///      core 0                                      the last core
///   0  map LEAF and its neighbour
///   1                                              reads LEAF: the old frame
///   2  unmap LEAF; VALE1IS is lost; map LEAF
///   3                                              reads LEAF: still the old frame
/// ```
fn missing_leaf(asid: u16, as_named: bool) -> Result<(), String> {
    Stage::play(asid, Loss::LeafTlbis, &|stage, core| {
        let steps = &stage.steps;
        let reader = stage.cores - 1;
        if core == 0 {
            steps.step(0, || {
                stage.map(LEAF, stage.frame(OLD));
                stage.map(LEAF + PAGE, stage.frame(OLD));
            });
        }
        if core == reader {
            steps.step(1, || stage.sees(core, LEAF, OLD));
        }
        if core == 0 {
            steps.step(2, || {
                // The old frame keeps its contents: the pool hands it out last.
                let unmapped =
                    stage.space.change(&stage.tlb, &OnePe, &mut |released| stage.pool.free(released.frame), |edit| {
                        edit.unmap(page(LEAF))
                    });
                stage.expect("unmap LEAF", unmapped);
                stage.map(LEAF, stage.frame(NEW));
            });
        }
        if core == reader {
            steps.step(3, || stage.sees(core, LEAF, if as_named { OLD } else { NEW }));
        }
    })
}
