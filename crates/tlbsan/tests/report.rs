//! What a story carries besides its verdict: order, ways through the tables, the hint, how often it happened again.

mod common;

use common::{ASID, L1, L2, PAGE, ROOT, T, T2, TABLE, VA, by_va};
use tlbi::Op;
use tlbsan::model::Config;
use tlbsan::report::{Claim, Record, Step, Violation};
use tlbsan::sim::Machine;
use tlbsan::{Hint, Sysreg};

/// A page at `VA`, through four levels.
fn machine() -> Machine {
    let mut m = common::machine(Config::default());
    m.store(0, T, 0x10_0000 | PAGE);
    m.run_in(0, ROOT, ASID);
    m.run_in(1, ROOT, ASID);
    m
}

fn only(m: &mut Machine) -> Violation {
    let mut violations = m.take_violations();
    assert_eq!(violations.len(), 1, "{violations:#?}");
    violations.remove(0)
}

/// Tables and entries of a way.
fn way(steps: &[Step]) -> Vec<(i8, u64, usize, u64)> {
    steps.iter().map(|step| (step.level, step.table, step.index, step.entry.bits)).collect()
}

#[test]
fn a_table_replaced_shows_both_ways_in_order_of_time() {
    let mut m = machine();
    m.store(1, L2, 0);
    common::flush(&mut m, 1, Op::inner(by_va(VA, ASID, true)));
    m.store(0, T2, 0x30_0000 | PAGE);
    m.store(0, L2, T2 | TABLE);
    let violations = m.take_violations();
    let v = violations.iter().find(|v| v.level == 2).expect("the table entry");
    let above = [(0, ROOT, 0, L1 | TABLE), (1, L1, 1, L2 | TABLE)];
    assert_eq!(way(&v.ways.before), [above[0], above[1], (2, L2, 0, T | TABLE)]);
    assert_eq!(way(&v.ways.after), [above[0], above[1], (2, L2, 0, T2 | TABLE)]);
    assert!(v.removed.at < v.attempts[0].site.at && v.attempts[0].site.at < v.trigger.at, "{v:#?}");
    assert_eq!(v.number, 1);
}

#[test]
fn a_leaf_below_a_stale_table_is_shown_through_that_table() {
    let mut m = machine();
    m.store(0, L2, 0);
    m.hint(0, Hint::FrameFreed { pa: 0x10_0000, size: 4096 });
    let v = only(&mut m);
    assert_eq!(v.claim, Some(Claim::FrameFreed { pa: 0x10_0000, size: 4096 }));
    let before: Vec<u64> = v.ways.before.iter().map(|step| step.table).collect();
    assert_eq!(before, [ROOT, L1, L2, T], "through the entry that is gone");
    assert_eq!(way(&v.ways.after).last(), Some(&(2, L2, 0, 0)), "the walk ends where the table was");
}

#[test]
fn the_hint_that_claims_is_told() {
    let mut m = machine();
    m.store(0, T, 0);
    m.hint(1, Hint::FlushClaimed { start: VA, size: 0x1000, asid: ASID });
    let v = only(&mut m);
    assert_eq!(v.claim, Some(Claim::FlushClaimed { start: VA, size: 0x1000, asid: ASID }));
    m.store(0, T, 0x10_0000 | PAGE);
    m.store(0, T, 0x20_0000 | PAGE);
    assert_eq!(only(&mut m).claim, None, "only where a hint made it an error");
}

#[test]
fn repeats_are_counted_for_the_violation_that_was_told() {
    let mut m = machine();
    m.at(0x100, &[]);
    for n in 0..4u64 {
        m.store(0, T, 0);
        m.store(0, T, (n + 2) << 20 | PAGE);
    }
    m.at(0x200, &[]);
    m.store(0, T, 0);
    m.store(0, T, 0x80_0000 | PAGE);
    let records = m.take_records();
    let told = |record: &Record| matches!(record, Record::Violation(_));
    assert_eq!(records.iter().filter(|record| told(record)).count(), 2, "{records:#?}");
    let repeats: Vec<(u64, u64)> = m
        .finish()
        .iter()
        .filter_map(|record| match record {
            Record::Repeats { violation, more } => Some((*violation, *more)),
            _ => None,
        })
        .collect();
    assert_eq!(repeats, [(1, 3)]);
}

#[test]
fn resets_and_registers_of_identity_are_no_events_of_the_guest() {
    let mut m = Machine::new(Config::default());
    m.reset(0);
    m.identify(0, tlbsan::IdRegister::Mmfr2, 0);
    let Some(Record::End(end)) = m.finish().pop() else { panic!("the last record is the end") };
    assert_eq!(end.events, 0);
    m.write(0, Sysreg::TcrEl1, 0);
    let Some(Record::End(end)) = m.finish().pop() else { panic!("the last record is the end") };
    assert_eq!(end.events, 1);
}
