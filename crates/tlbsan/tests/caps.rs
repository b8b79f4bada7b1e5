//! Where the model stops counting: each cap has a notice, or a loss that is bounded and known.

mod common;

use common::{ASID, L1, L2, PAGE, ROOT, T, T2, TABLE, VA, by_va, flush};
use tlbi::{Asid, Dsb, Granule, Op, Pages, Target, VirtAddr};
use tlbsan::report::Record;
use tlbsan::sim::Machine;
use tlbsan::{AccessKind, Cause, Config, Kind, Sysreg};

/// An empty root.
const RESERVED: u64 = 0x8000;
const OTHER: u64 = 0x20_0000;

/// PE 0 in tables that map `VA`.
fn machine() -> Machine {
    let mut m = common::machine(Config::default());
    m.store(0, T, 0x10_0000 | PAGE);
    m.run_in(0, ROOT, ASID);
    m
}

fn causes(m: &mut Machine) -> Vec<(Kind, Cause)> {
    m.take_violations().iter().map(|v| (v.kind, v.cause)).collect()
}

fn notices(m: &mut Machine) -> usize {
    m.take_records().iter().filter(|record| matches!(record, Record::Notice { .. })).count()
}

#[test]
fn asids_of_a_context_beyond_16_are_any() {
    let remade = |asids: u16, page: u64, target: &dyn Fn(u16) -> Target| {
        let mut m = common::machine(Config::default());
        m.store(0, T, 0x10_0000 | page);
        (1..=asids).for_each(|asid| m.run_in(0, ROOT, asid));
        m.store(0, T, 0);
        (1..=asids).for_each(|asid| flush(&mut m, 0, Op::inner(target(asid))));
        m.store(0, T, OTHER | page);
        causes(&mut m)
    };
    let one = |asid| by_va(VA, asid, true);
    let every = |_| Target::Va { va: VirtAddr::new(VA), asid: None, leaf_only: true, ttl: 0 };
    let wrong = [(Kind::Remade, Cause::WrongAsid)];
    assert_eq!(remade(16, PAGE, &one), []);
    assert_eq!(remade(17, PAGE, &one), wrong);
    assert_eq!(remade(17, PAGE, &|asid| Target::Asid(Asid::new(asid))), wrong);
    assert_eq!(remade(17, PAGE, &every), []);
    assert_eq!(remade(17, PAGE, &|_| Target::All), []);
    // What is global is nobody's.
    assert_eq!(remade(17, PAGE & !0x800, &one), []);
}

#[test]
fn pes_beyond_64_are_not_followed() {
    let mut m = machine();
    m.run_in(63, ROOT, ASID);
    assert_eq!(notices(&mut m), 0);
    m.run_in(64, ROOT, ASID);
    m.run_in(65, ROOT, ASID);
    m.store(64, T, OTHER | PAGE);
    assert_eq!(notices(&mut m), 2);
    m.store(0, T, 0);
    m.store(0, T, OTHER | PAGE);
    assert_eq!(m.take_violations()[0].pes, [0, 63]);
}

#[test]
fn residues_beyond_131072_are_not_followed() {
    let mut m = machine();
    // Two full tables at two hundred places each: 204,800 leaves.
    for (table, first) in [(T, 0), (T2, 200)] {
        (0..512).for_each(|n| m.store(0, table + 8 * n, n << 12 | PAGE));
        (first..first + 200).for_each(|n| m.store(0, L2 + 8 * n, table | TABLE));
    }
    assert_eq!(notices(&mut m), 0);
    m.store(0, L1 + 8, 0);
    assert_eq!(m.model().residues().len(), 131_072);
    assert_eq!(notices(&mut m), 1);
}

#[test]
fn places_of_a_slot_beyond_256_are_not_followed() {
    for (places, expected) in [(255, 0), (300, 1)] {
        let mut m = machine();
        (0..places).for_each(|n| m.store(0, L2 + 8 * n, T | TABLE));
        m.store(0, T, 0);
        assert_eq!(m.model().residues().len() as u64, places.min(256));
        assert_eq!(notices(&mut m), expected);
    }
}

#[test]
fn of_65_pes_that_know_a_slot_the_first_is_forgotten() {
    for (others, expected) in [(63, vec![]), (64, vec![(Kind::Remade, Cause::NotOrdered)])] {
        let mut m = machine();
        m.store(0, T, 0);
        m.load(1, T);
        for _ in 0..others {
            m.load(2, T);
            m.dsb(2, Dsb::Nshst);
        }
        m.dsb(1, Dsb::Ishst);
        m.tlbi(0, Op::inner(by_va(VA, ASID, true)));
        m.dsb(0, Dsb::Ish);
        m.store(0, T, OTHER | PAGE);
        assert_eq!(causes(&mut m), expected, "{others} others");
    }
}

#[test]
fn of_entries_that_were_removed_and_not_synchronised_64_are_remembered() {
    let mut m = common::machine(Config { tell_all: true, ..Config::default() });
    m.run_in(0, ROOT, ASID);
    let kernel = PAGE & !(1 << 6);
    for n in 0..65 {
        let slot = T + 8 * n;
        m.store(0, slot, (0x10_0000 + (n << 12)) | kernel);
        m.store(0, slot, 0);
        flush(&mut m, 0, Op::inner(by_va(VA + (n << 12), ASID, true)));
        m.store(0, slot, (OTHER + (n << 12)) | kernel);
    }
    assert_eq!(causes(&mut m), []);
    for n in 0..65 {
        m.access(0, VA + (n << 12), OTHER + (n << 12), AccessKind::Load);
    }
    assert_eq!(causes(&mut m), [(Kind::StaleAccess, Cause::NotSynchronised); 64]);
}

#[test]
fn of_wide_operations_in_flight_4096_are_remembered() {
    for (others, expected) in [(4095, vec![]), (4096, vec![(Kind::Remade, Cause::NoInvalidation)])] {
        let mut m = machine();
        m.run_in(0, RESERVED, 0);
        let by_asid = |asid| Op::inner(Target::Asid(Asid::new(asid)));
        m.tlbi(0, by_asid(ASID));
        (0..others).for_each(|n| m.tlbi(0, by_asid(1000 + n)));
        m.dsb(0, Dsb::Ish);
        m.store(0, T, 0);
        m.store(0, T, OTHER | PAGE);
        assert_eq!(causes(&mut m), expected, "{others} others");
    }
}

#[test]
fn of_attempts_that_did_not_suffice_6_are_told() {
    let mut m = machine();
    m.run_in(1, ROOT, ASID);
    m.store(0, T, 0);
    m.dsb(0, Dsb::Ishst);
    let va = |asid, leaf_only| Target::Va { va: VirtAddr::new(VA), asid, leaf_only, ttl: 0 };
    let pages = Pages::new(Granule::K4, false, VA, 2).expect("two pages");
    let range = |asid, leaf_only| Target::VaRange { pages, asid, leaf_only };
    let own = Some(Asid::new(ASID));
    let all = [va(own, true), va(own, false), va(None, true), va(None, false), range(own, true), range(None, true)];
    for target in all.into_iter().chain([Target::All, Target::Asid(Asid::new(ASID))]) {
        m.tlbi(0, Op::local(target));
        m.dsb(0, Dsb::Nsh);
    }
    m.store(0, T, OTHER | PAGE);
    let told: Vec<_> = m.take_violations().iter().map(|v| (v.cause, v.attempts.len(), v.more_attempts)).collect();
    assert_eq!(told, [(Cause::LocalOnly, 6, 2)]);
}

#[test]
fn of_translations_that_verdicts_were_about_256_are_remembered() {
    let mut m = machine();
    let frame = |n: u64| 0x10_0000 + (n << 12);
    (0..257).for_each(|n| m.store(0, T + 8 * n, frame(n) | PAGE));
    (0..257).for_each(|n| m.store(0, T + 8 * n, (frame(n) + OTHER) | PAGE));
    assert_eq!(causes(&mut m), [(Kind::LiveChange, Cause::NotBrokenFirst)]);
    m.access(0, VA + 0x1000, frame(1), AccessKind::Load);
    assert_eq!(causes(&mut m), []);
    m.access(0, VA, frame(0), AccessKind::Load);
    assert_eq!(causes(&mut m), [(Kind::StaleAccess, Cause::NoInvalidation)]);
}

#[test]
fn where_more_than_4096_tables_are_to_be_searched_every_attribute_is_in_use() {
    for (full, expected) in [(6, vec![]), (8, vec![(Kind::LiveChange, Cause::NotBrokenFirst)])] {
        let mut m = common::machine(Config::default());
        // Empty tables of level 3: 512 for each entry of the level-1 table.
        (0..512).for_each(|n| m.store(0, L2 + 8 * n, T | TABLE));
        m.store(0, L1 + 8, 0);
        (0..full).for_each(|n| m.store(0, L1 + 8 * n, L2 | TABLE));
        m.write(0, Sysreg::MairEl1, 0xff);
        m.run_in(0, ROOT, ASID);
        m.write(0, Sysreg::MairEl1, 0x44_ff);
        m.isb(0);
        assert_eq!(causes(&mut m), expected, "{full} times 512");
    }
}

#[test]
fn roots_beyond_16384_are_not_followed() {
    let mut m = Machine::new(Config::default());
    // Sixteen entries each; under VMIDs of 16 bits.
    m.write(0, Sysreg::TcrEl1, 39 | 1 << 23);
    m.write(0, Sysreg::VtcrEl2, 1 << 19);
    m.write(0, Sysreg::SctlrEl1, 1);
    let root = |n: u64| 0x100_0000 + 0x1000 * n;
    let most = 16_384;
    for n in 0..=most {
        assert_eq!(notices(&mut m), 0, "{n}");
        m.store(0, root(n), 0x4000_0000 | 0xf41);
        m.write(0, Sysreg::VttbrEl2, n << 48);
        m.write(0, Sysreg::Ttbr0El1, root(n));
        m.isb(0);
    }
    assert_eq!((notices(&mut m), m.model().shadow().contexts()), (1, most as usize));
    m.store(0, root(most), 0);
    assert_eq!(m.model().residues().len(), 0);
    m.store(0, root(most - 1), 0);
    assert_eq!(m.model().residues().len(), 1);
}
