//! R3: a PE that has left a context gets nothing new of it, and keeps what it has: seen from one table page's several lives.

mod common;

use common::{PAGE, ROOT, TABLE, VA, by_va, flush};
use tlbi::{Asid, Dsb, Op, Target};
use tlbsan::model::Config;
use tlbsan::sim::Machine;
use tlbsan::{Cause, Kind};

/// A root that stays empty: where a PE goes that leaves.
const RESERVED: u64 = 0x8000;
const TABLES: [u64; 3] = [common::L1, common::L2, common::T];

/// Maps `VA` below `ROOT`, from the leaf upwards.
fn map(m: &mut Machine, frame: u64) {
    let [l1, l2, l3] = TABLES;
    for (slot, entry) in [(l3, frame | PAGE), (l2, l3 | TABLE), (l1 + 8, l2 | TABLE), (ROOT, l1 | TABLE)] {
        m.store(0, slot, entry);
    }
}

/// Takes everything down, from the leaf upwards.
fn unmap(m: &mut Machine) {
    let [l1, l2, l3] = TABLES;
    for slot in [l3, l2, l1 + 8, ROOT] {
        m.store(0, slot, 0);
    }
}

/// PE 0 runs where PE 1 has been and is no longer.
fn one_that_was_left() -> Machine {
    let mut m = Machine::new(Config::default());
    map(&mut m, 0x10_0000);
    m.run_in(1, ROOT, 5);
    m.run_in(1, RESERVED, 0);
    m.run_in(0, ROOT, 5);
    m
}

/// Invalidates in order, on PE 0 alone.
fn flush_here(m: &mut Machine, target: Target) {
    m.dsb(0, Dsb::Ishst);
    m.tlbi(0, Op::local(target));
    m.dsb(0, Dsb::Nsh);
}

fn verdicts(m: &mut Machine) -> Vec<(Kind, Cause, Vec<u16>, Vec<usize>)> {
    m.take_violations().into_iter().map(|v| (v.kind, v.cause, v.asids, v.pes)).collect()
}

/// A process's life on PE 0 as kernels end it: torn down and invalidated while still loaded, left afterwards.
fn live_and_die(m: &mut Machine, asid: u16) {
    map(m, 0x10_0000);
    m.run_in(0, ROOT, asid);
    unmap(m);
    flush(m, 0, Op::inner(Target::Asid(Asid::new(asid))));
    m.run_in(0, RESERVED, 0);
}

#[test]
fn a_root_has_several_lives_under_several_asids() {
    let mut m = Machine::new(Config::default());
    live_and_die(&mut m, 5);
    map(&mut m, 0x10_0000);
    m.run_in(0, ROOT, 6);
    // Only ASID 6 can be cached of this life.
    m.store(0, TABLES[2], 0);
    flush(&mut m, 0, Op::inner(by_va(VA, 6, false)));
    m.store(0, TABLES[2], 0x20_0000 | PAGE);
    assert_eq!(verdicts(&mut m), []);
    // And it is.
    m.store(0, TABLES[2], 0);
    m.store(0, TABLES[2], 0x30_0000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Remade, Cause::NoInvalidation, vec![6], vec![0])]);
}

#[test]
fn the_root_of_a_dead_process_may_become_anything() {
    let mut m = Machine::new(Config::default());
    live_and_die(&mut m, 5);
    for word in 0..512 {
        m.store(0, ROOT + 8 * word, 0x0123_4567_89ab_cde1 + word);
    }
    m.store(0, ROOT, 0x6_0401);
    assert_eq!(verdicts(&mut m), []);
}

#[test]
fn what_was_mapped_before_a_pe_left_is_kept_there() {
    let mut m = one_that_was_left();
    m.store(0, TABLES[2], 0);
    flush_here(&mut m, by_va(VA, 5, false));
    m.store(0, TABLES[2], 0x20_0000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Remade, Cause::LocalOnly, vec![5], vec![1])]);
}

#[test]
fn what_is_mapped_after_a_pe_left_is_not_there() {
    let mut m = one_that_was_left();
    let second = TABLES[2] + 8;
    for (frame, is_first) in [(0x20_0000, true), (0x30_0000, false)] {
        m.store(0, second, frame | PAGE);
        if is_first {
            m.store(0, second, 0);
            flush_here(&mut m, by_va(VA + 0x1000, 5, true));
        }
    }
    assert_eq!(verdicts(&mut m), []);
}

#[test]
fn an_entry_that_is_put_back_is_still_held_by_those_who_left() {
    let mut m = one_that_was_left();
    m.store(0, TABLES[2], 0);
    m.store(0, TABLES[2], 0x10_0000 | PAGE);
    assert_eq!(verdicts(&mut m), [], "what is cached is right again");
    m.store(0, TABLES[2], 0);
    flush_here(&mut m, by_va(VA, 5, false));
    m.store(0, TABLES[2], 0x20_0000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Remade, Cause::LocalOnly, vec![5], vec![1])]);
}

/// What a TLB holds after reset is unknown as a whole; the entries of before count no more. The machine is reset while a table
/// and a root are stale, and the next kernel puts their pages to another use before its MMU is on.
#[test]
fn what_was_held_before_a_reset_counts_no_more() {
    let mut m = Machine::new(Config::default());
    map(&mut m, 0x10_0000);
    for pe in [0, 1] {
        m.run_in(pe, ROOT, 5);
    }
    m.store(0, TABLES[1], 0);
    m.reset(0);
    m.reset(1);
    for table in [ROOT, TABLES[0], TABLES[1], TABLES[2]] {
        for slot in (table..table + 0x1000).step_by(8) {
            m.store(0, slot, 0x0123_4567_89ab_cde1);
        }
    }
    assert_eq!(verdicts(&mut m), []);
    // One that was not reset keeps what it has.
    let mut m = Machine::new(Config::default());
    map(&mut m, 0x10_0000);
    for pe in [0, 1] {
        m.run_in(pe, ROOT, 5);
    }
    m.store(0, TABLES[1], 0);
    m.reset(1);
    m.store(0, TABLES[2], 0x20_0000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, vec![5], vec![0])]);
}
