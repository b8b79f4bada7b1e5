//! What the account of invalidations says: each kind of waste beside the same work without it.

mod common;

use common::{ASID, L2, PAGE, ROOT, T, VA, by_va};
use tlbi::{Asid, Dsb, Op, Target};
use tlbsan::IdRegister;
use tlbsan::model::Config;
use tlbsan::report::{Cost, Record};
use tlbsan::sim::Machine;

const ISAR0_RANGE: u64 = 2 << 56;

/// Sixteen pages from `VA` on; the first `pes` of two PEs run in them, and both have range operations if `range`.
fn machine(pes: usize, range: bool) -> Machine {
    let mut m = common::machine(Config { cost: true, ..Config::default() });
    for pe in 0..2 {
        m.identify(pe, IdRegister::Isar0, if range { ISAR0_RANGE } else { 0 });
    }
    (0..16).for_each(|n| m.store(0, T + n * 8, (0x100 + n) << 12 | PAGE));
    (0..pes).for_each(|pe| m.run_in(pe, ROOT, ASID));
    m
}

fn page(n: u64, leaf_only: bool) -> Target {
    by_va(VA + n * 0x1000, ASID, leaf_only)
}

fn clear(m: &mut Machine, pages: impl Iterator<Item = u64>) {
    pages.for_each(|n| m.store(0, T + n * 8, 0));
    m.dsb(0, Dsb::Ishst);
}

/// The account of the one call site: operations, in vain, broadcast, all levels, one by one.
fn spent(m: &mut Machine) -> [u64; 5] {
    let costs = costs(m);
    let [cost] = costs.as_slice() else { panic!("{costs:#?}") };
    [cost.tlbis, cost.in_vain, cost.broadcast, cost.all_levels, cost.one_by_one]
}

fn costs(m: &mut Machine) -> Vec<Cost> {
    let cost = |record| if let Record::Cost(cost) = record { Some(*cost) } else { None };
    m.finish().into_iter().filter_map(cost).collect()
}

/// Unmaps the first page and issues `op`; with `pes` PEs in the space.
fn one_page(pes: usize, op: Op) -> [u64; 5] {
    let mut m = machine(pes, true);
    clear(&mut m, 0..1);
    m.tlbi(0, op);
    m.dsb(0, Dsb::Ish);
    spent(&mut m)
}

#[test]
fn what_was_needed_costs_nothing() {
    assert_eq!(one_page(2, Op::inner(page(0, true))), [1, 0, 0, 0, 0]);
    assert_eq!(one_page(1, Op::local(page(0, true))), [1, 0, 0, 0, 0]);
}

#[test]
fn an_operation_that_names_nothing_stale_is_in_vain() {
    assert_eq!(one_page(2, Op::inner(page(1, true))), [1, 1, 0, 0, 0], "another page");
    let mut m = machine(2, true);
    m.tlbi(0, Op::inner(Target::Asid(Asid::new(ASID))));
    assert_eq!(spent(&mut m), [1, 1, 0, 0, 0], "everything is as it was");
    let mut m = machine(2, true);
    m.run_in(0, 0, 0);
    m.tlbi(0, Op::inner(Target::Asid(Asid::new(ASID))));
    assert_eq!(spent(&mut m)[1], 0, "PE 0 has left the space and may hold entries of it: that ends here (R3)");
}

#[test]
fn an_operation_that_falls_short_is_not_in_vain() {
    let mut m = machine(2, true);
    m.store(0, L2, 0);
    m.dsb(0, Dsb::Ishst);
    m.tlbi(0, Op::inner(page(0, true)));
    assert_eq!(spent(&mut m)[1], 0, "leaf-only for a table: a matter of verdicts");
}

#[test]
fn a_broadcast_for_one_pe_is_told() {
    assert_eq!(one_page(1, Op::inner(page(0, true))), [1, 0, 1, 0, 0]);
    let mut m = machine(2, true);
    clear(&mut m, 0..1);
    m.tlbi(1, Op::inner(page(0, true)));
    assert_eq!(spent(&mut m)[2], 0, "two PEs run there");
    let mut m = machine(1, true);
    clear(&mut m, 0..1);
    m.tlbi(1, Op::inner(page(0, true)));
    assert_eq!(spent(&mut m)[2], 0, "the one PE is another: only a broadcast reaches it");
}

#[test]
fn all_levels_for_a_leaf_are_told() {
    assert_eq!(one_page(2, Op::inner(page(0, false))), [1, 0, 0, 1, 0]);
    let mut m = machine(2, true);
    m.store(0, L2, 0);
    m.dsb(0, Dsb::Ishst);
    m.tlbi(0, Op::inner(page(0, false)));
    assert_eq!(spent(&mut m)[3], 0, "a table was unlinked");
}

/// Unmaps `pages` and invalidates them one after the other.
fn one_by_one(range: bool, pages: &[u64], dsb_between: bool) -> [u64; 5] {
    let mut m = machine(2, range);
    clear(&mut m, pages.iter().copied());
    for &n in pages {
        m.tlbi(0, Op::inner(page(n, true)));
        if dsb_between {
            m.dsb(0, Dsb::Ish);
        }
    }
    m.dsb(0, Dsb::Ish);
    spent(&mut m)
}

#[test]
fn neighbours_one_by_one_are_told_where_the_cpu_has_ranges() {
    assert_eq!(one_by_one(true, &[0, 1, 2, 3, 4, 5, 6, 7], false), [8, 0, 0, 0, 7], "one range operation");
    assert_eq!(one_by_one(true, &[0, 1, 2, 3, 4, 5, 6], false)[4], 5, "two: an even number, and one page");
    assert_eq!(one_by_one(false, &[0, 1, 2, 3, 4, 5, 6, 7], false)[4], 0, "no FEAT_TLBIRANGE");
    assert_eq!(one_by_one(true, &[0, 1, 2, 3], true)[4], 0, "somebody waited in between");
    assert_eq!(one_by_one(true, &[0, 1, 5, 6], false)[4], 2, "two runs of two");
    assert_eq!(one_by_one(true, &[0], false)[4], 0);
}

#[test]
fn call_sites_are_told_apart_by_their_callers_and_their_number_is_limited() {
    let mut m = machine(2, true);
    for (pc, stack) in [(0x100, [0x10]), (0x100, [0x20]), (0x100, [0x10])] {
        m.at(pc, &stack);
        m.tlbi(0, Op::inner(page(0, true)));
    }
    let costs = costs(&mut m);
    let by_caller: Vec<(u64, &[u64])> = costs.iter().map(|cost| (cost.tlbis, &cost.site.stack[..])).collect();
    assert_eq!(by_caller, [(2, &[0x10][..]), (1, &[0x20][..])]);
    assert!(costs.iter().all(|cost| cost.op == "tlbi vale1is"), "{costs:#?}");

    let mut m = machine(2, true);
    for pc in 0..5000 {
        m.at(pc, &[]);
        m.tlbi(0, Op::inner(page(0, true)));
    }
    let costs = self::costs(&mut m);
    assert_eq!((costs.len(), costs.iter().map(|cost| cost.tlbis).sum::<u64>()), (4097, 5000));
}

#[test]
fn without_being_asked_there_is_no_account() {
    let mut m = Machine::new(Config::default());
    m.tlbi(0, Op::inner(page(0, true)));
    assert!(costs(&mut m).is_empty());
}
