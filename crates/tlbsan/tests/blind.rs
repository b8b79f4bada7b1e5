//! What the model is kept from seeing shows as the mistake that the kernel would have made without it.

mod common;

use common::{ASID, L2, PAGE, ROOT, T, T2, TABLE, VA, by_va, flush};
use tlbi::Op;
use tlbsan::model::Config;
use tlbsan::{Blind, Cause, Record};

/// Unmaps a page and maps another in its place, or, with its table, another table; all in order.
fn remap(blind: Blind, with_table: bool) -> (Vec<u64>, Vec<u64>, Vec<Cause>) {
    let mut m = common::machine(Config { blind, ..Config::default() });
    m.store(0, T, 0x10_0000 | PAGE);
    m.run_in(0, ROOT, ASID);
    let (slot, other) = if with_table { (L2, T2 | TABLE) } else { (T, 0x20_0000 | PAGE) };
    m.store(0, slot, 0);
    flush(&mut m, 0, Op::inner(by_va(VA, ASID, false)));
    m.store(0, slot, other);
    let (mut blinded, mut found, mut causes) = (Vec::new(), Vec::new(), Vec::new());
    for record in m.take_records() {
        match record {
            Record::Blinded(record) => blinded.push(record.event),
            Record::Found { event } => found.push(event),
            Record::Violation(violation) => causes.push(violation.cause),
            _ => {}
        }
    }
    found.dedup();
    (blinded, found, causes)
}

#[test]
fn a_withheld_tlbi_is_found_missing() {
    let (blinded, found, causes) = remap(Blind { tlbi: 1, ..Blind::default() }, false);
    assert_eq!((blinded.len(), &found, &causes[..]), (1, &blinded, &[Cause::NoInvalidation][..]));
}

#[test]
fn a_weakened_tlbi_is_found_where_a_table_was_freed_and_nowhere_else() {
    let (blinded, found, causes) = remap(Blind { weaken: 1, ..Blind::default() }, true);
    assert_eq!((blinded.len(), &found, &causes[..]), (1, &blinded, &[Cause::LeafOnly][..]));
    let (blinded, found, causes) = remap(Blind { weaken: 1, ..Blind::default() }, false);
    assert_eq!((blinded.len(), found.len(), causes.len()), (1, 0, 0), "the leaf is gone all the same");
}

#[test]
fn a_withheld_dsb_is_found_missing_by_its_part() {
    let mut seen = Vec::new();
    // Every choice among two barriers comes up.
    for seed in 0..64 {
        let (blinded, found, causes) = remap(Blind { dsb: 2, seed, ..Blind::default() }, false);
        match blinded.len() {
            0 => assert_eq!((found.len(), causes.len()), (0, 0)),
            1 => {
                assert_eq!(found, blinded);
                seen.extend(causes);
            }
            // Without the first the TLBI counts for nothing, and nothing is left for the second to complete.
            _ => assert_eq!((&found[..], &causes[..]), (&blinded[..1], &[Cause::NotOrdered][..])),
        }
    }
    for cause in [Cause::NotOrdered, Cause::NotCompleted] {
        assert!(seen.contains(&cause), "{cause:?} never came up: {seen:?}");
    }
}

#[test]
fn with_open_eyes_nothing_is_withheld() {
    assert_eq!(remap(Blind::default(), true), (vec![], vec![], vec![]));
}
