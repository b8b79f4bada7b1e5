//! Each rule on the simulated machine: broken, and in order. The tables are written by hand, entry by entry.

mod common;

use common::{ASID, L1, L2, PAGE, ROOT, T, T2, TABLE, VA, by_va};
use tlbi::{Asid, Dsb, Op, Target, VirtAddr};
use tlbsan::model::Config;
use tlbsan::sim::Machine;
use tlbsan_hint::{Cause, Hint, Kind};

/// Two PEs in one address space that maps `VA` and the page after it through the level-3 table `T`.
fn machine() -> Machine {
    let mut m = common::machine(Config::default());
    m.store(0, T, 0x10_0000 | PAGE);
    m.store(0, T + 8, 0x10_1000 | PAGE);
    m.run_in(0, ROOT, ASID);
    m.run_in(1, ROOT, ASID);
    m
}

fn all_levels() -> Op {
    Op::inner(by_va(VA, ASID, false))
}

fn leaf_only() -> Op {
    Op::inner(by_va(VA, ASID, true))
}

fn local_leaf_only() -> Op {
    Op::local(by_va(VA, ASID, true))
}

/// Clears the leaf, and, if `table`, unlinks its table.
fn unmap(m: &mut Machine, table: bool) {
    m.store(0, T, 0);
    if table {
        m.store(0, T + 8, 0);
        m.store(0, L2, 0);
    }
}

fn flush(m: &mut Machine, op: Op) {
    common::flush(m, 0, op);
}

/// The second page's leaf, which unlinking `T` leaves behind as well.
fn flush_neighbour(m: &mut Machine) {
    flush(m, Op::inner(by_va(VA + 0x1000, ASID, true)));
}

/// Rule, cause, first address, level.
type Verdict = (Kind, Cause, u64, i8);

fn verdicts(m: &mut Machine) -> Vec<Verdict> {
    m.take_violations().iter().map(|v| (v.kind, v.cause, v.start, v.level)).collect()
}

/// Maps another frame where the page was.
fn remap(m: &mut Machine) -> Vec<Verdict> {
    m.store(0, T, 0x20_0000 | PAGE);
    verdicts(m)
}

/// What is said when the page is unmapped and mapped anew with `steps` in between.
fn remapped_after(steps: impl Fn(&mut Machine)) -> Vec<Verdict> {
    let mut m = machine();
    unmap(&mut m, false);
    steps(&mut m);
    remap(&mut m)
}

#[test]
fn the_2019_bug_is_found() {
    let mut m = machine();
    unmap(&mut m, true);
    flush(&mut m, leaf_only());
    flush_neighbour(&mut m);
    m.store(0, T2, 0x30_0000 | PAGE);
    m.store(0, L2, T2 | TABLE);
    let violations = m.take_violations();
    let [v] = violations.as_slice() else { panic!("{violations:#?}") };
    assert_eq!((v.kind, v.cause, v.level, v.table), (Kind::Remade, Cause::LeafOnly, 2, true));
    assert_eq!((v.start, v.size, &v.pes[..]), (VA, 2 << 20, &[0, 1][..]));
    assert_eq!((v.old.bits, v.new.bits), (T | TABLE, T2 | TABLE));
    assert!(v.attempts[0].why.contains("removes leaves only; the level-2 table entry"), "{:?}", v.attempts);
}

#[test]
fn the_2019_bug_is_gone_with_an_invalidation_at_every_level() {
    let any_asid = Target::Va { va: VirtAddr::new(VA), asid: None, leaf_only: false, ttl: 0 };
    for op in [all_levels(), Op::inner(any_asid), Op::inner(Target::Asid(Asid::new(ASID))), Op::inner(Target::All)] {
        let mut m = machine();
        unmap(&mut m, true);
        flush(&mut m, op);
        flush_neighbour(&mut m);
        m.store(0, T2, 0x30_0000 | PAGE);
        m.store(0, L2, T2 | TABLE);
        assert_eq!(verdicts(&mut m), [], "{op}");
        assert_eq!(m.model().residues().counts(), (3, 3), "{op}: two leaves and a table, opened and cleaned");
    }
}

#[test]
fn the_same_table_linked_again_is_silent() {
    let mut m = machine();
    unmap(&mut m, true);
    m.store(0, L2, T | TABLE);
    assert_eq!(verdicts(&mut m), []);
}

#[test]
fn a_leaf_remade_is_told_with_its_cause() {
    use Cause as C;
    let wrong_ttl = Target::Va { va: VirtAddr::new(VA), asid: Some(Asid::new(ASID)), leaf_only: true, ttl: 4 | 2 };
    type Steps = fn(&mut Machine, Op);
    let full: Steps = flush;
    let no_dsb_before: Steps = |m, op| {
        m.tlbi(0, op);
        m.dsb(0, Dsb::Ish);
    };
    let no_dsb_after: Steps = |m, op| {
        m.dsb(0, Dsb::Ishst);
        m.tlbi(0, op);
    };
    let ishst_after: Steps = |m, op| {
        m.dsb(0, Dsb::Ishst);
        m.tlbi(0, op);
        m.dsb(0, Dsb::Ishst);
    };
    let dsb_elsewhere: Steps = |m, op| {
        m.dsb(0, Dsb::Ishst);
        m.tlbi(0, op);
        m.dsb(1, Dsb::Ish);
    };
    let nshst_before: Steps = |m, op| {
        m.dsb(0, Dsb::Nshst);
        m.tlbi(0, op);
        m.dsb(0, Dsb::Ish);
    };
    for (name, steps, op, cause) in [
        ("dsb ishst; tlbi vale1 local", full, local_leaf_only(), C::LocalOnly),
        ("dsb ishst; tlbi vale1is of another asid", full, Op::inner(by_va(VA, 8, true)), C::WrongAsid),
        ("dsb ishst; tlbi vale1is of another page", full, Op::inner(by_va(VA + 0x8000, ASID, true)), C::WrongRange),
        ("dsb ishst; tlbi vale1is with a wrong hint", full, Op::inner(wrong_ttl), C::WrongTtl),
        ("tlbi; dsb ish", no_dsb_before, leaf_only(), C::NotOrdered),
        ("dsb nshst; tlbi ..is; dsb ish", nshst_before, leaf_only(), C::NotOrdered),
        ("dsb ishst; tlbi", no_dsb_after, leaf_only(), C::NotCompleted),
        ("dsb ishst; tlbi; dsb ishst", ishst_after, leaf_only(), C::NotCompleted),
        ("dsb ishst; tlbi; dsb ish on the other PE", dsb_elsewhere, leaf_only(), C::NotCompleted),
    ] {
        assert_eq!(remapped_after(|m| steps(m, op)), [(Kind::Remade, cause, VA, 3)], "{name}");
    }
    assert_eq!(remapped_after(|_| ()), [(Kind::Remade, C::NoInvalidation, VA, 3)]);
}

#[test]
fn an_access_that_went_wrong_is_told_once() {
    let mut m = common::machine(Config { tell_all: true, ..Config::default() });
    m.store(0, T, 0x10_0000 | PAGE);
    m.run_in(0, ROOT, ASID);
    for (pa, expected) in [(0x20_0000, 1), (0x20_0000, 0), (0x30_0000, 1)] {
        m.access(0, VA, pa, tlbsan::AccessKind::Load);
        assert_eq!(verdicts(&mut m).len(), expected);
    }
}

#[test]
fn an_address_names_its_page_alone() {
    let after = |va| {
        let mut m = machine();
        m.store(0, T + 8, 0);
        flush(&mut m, Op::inner(by_va(va, ASID, true)));
        m.store(0, T + 8, 0x20_1000 | PAGE);
        verdicts(&mut m)
    };
    assert_eq!(after(VA + 0xfff), [(Kind::Remade, Cause::WrongRange, VA + 0x1000, 3)]);
    assert_eq!(after(VA + 0x1fff), []);
}

#[test]
fn a_leaf_invalidated_in_order_may_be_remade() {
    let mut m = machine();
    unmap(&mut m, false);
    flush(&mut m, leaf_only());
    assert_eq!(remap(&mut m), []);
    assert_eq!(m.model().residues().counts(), (1, 1));
}

#[test]
fn a_local_invalidation_on_every_pe_is_enough() {
    let verdicts = remapped_after(|m| {
        m.dsb(0, Dsb::Ishst);
        for pe in 0..2 {
            m.tlbi(pe, local_leaf_only());
            m.dsb(pe, Dsb::Nsh);
        }
    });
    assert_eq!(verdicts, []);
}

#[test]
fn a_dsb_of_whoever_read_the_entry_orders_the_store() {
    let verdicts = |reads| {
        remapped_after(|m| {
            if reads {
                m.load(1, T);
            }
            m.dsb(1, Dsb::Ishst);
            m.tlbi(0, leaf_only());
            m.dsb(0, Dsb::Ish);
        })
    };
    assert_eq!(verdicts(true), []);
    assert_eq!(verdicts(false), [(Kind::Remade, Cause::NotOrdered, VA, 3)]);
}

#[test]
fn who_invalidates_after_a_dsb_was_handed_the_store() {
    assert_eq!(remapped_after(|m| common::flush(m, 1, leaf_only())), []);
    let without = remapped_after(|m| {
        m.tlbi(1, leaf_only());
        m.dsb(1, Dsb::Ish);
    });
    assert_eq!(without, [(Kind::Remade, Cause::NotOrdered, VA, 3)]);
}

#[test]
fn a_store_seen_before_it_is_reported_is_judged_as_the_writers() {
    let mut m = machine();
    m.store_unreported(T, 0);
    m.load(1, T);
    m.at(0xabc, &[]);
    m.report_store(0, T);
    m.at(0, &[]);
    flush(&mut m, leaf_only());
    assert_eq!(remap(&mut m), []);

    let mut m = machine();
    m.store_unreported(T, 0);
    m.load(1, T);
    m.at(0xabc, &[]);
    m.report_store(0, T);
    m.store(0, T, 0x20_0000 | PAGE);
    let violations = m.take_violations();
    assert_eq!(violations.len(), 1);
    assert_eq!((violations[0].removed.pe, violations[0].removed.pc), (0, 0xabc));
}

#[test]
fn a_global_leaf_survives_an_operation_by_asid() {
    let mut m = machine();
    m.store(0, T + 16, 0x10_2000 | (PAGE & !0x800));
    m.store(0, T + 16, 0);
    flush(&mut m, Op::inner(Target::Asid(Asid::new(ASID))));
    m.store(0, T + 16, 0x20_2000 | (PAGE & !0x800));
    assert_eq!(verdicts(&mut m), [(Kind::Remade, Cause::GlobalSurvives, VA + 0x2000, 3)]);
}

#[test]
fn a_valid_entry_changed_in_place_is_an_error() {
    let mut m = machine();
    assert_eq!(remap(&mut m), [(Kind::LiveChange, Cause::NotBrokenFirst, VA, 3)]);

    let mut m = machine();
    m.store(0, L2, T2 | TABLE);
    assert_eq!(verdicts(&mut m), [(Kind::LiveChange, Cause::NotBrokenFirst, VA, 2)]);

    let mut m = machine();
    m.store(0, L2, 0x4000_0000 | 0xf41);
    assert_eq!(verdicts(&mut m), [(Kind::LiveChange, Cause::NotBrokenFirst, VA, 2)], "a block over a table");
}

#[test]
fn permissions_change_in_place_and_owe_an_invalidation() {
    let mut m = machine();
    m.store(0, T, 0x10_0000 | PAGE | 1 << 7);
    assert_eq!(verdicts(&mut m), []);
    assert_eq!(m.model().residues().counts().0, 1, "the writable translation may still be cached");
    m.store(0, T, 0);
    flush(&mut m, leaf_only());
    assert_eq!(remap(&mut m), []);
    // Relaxing owes nothing, and software bits are no change.
    m.store(0, T, 0x20_0000 | PAGE | 1 << 55);
    assert_eq!(m.model().residues().counts(), (2, 2));
}

#[test]
fn an_entry_that_no_pe_can_hold_leaves_no_residue() {
    let mut m = Machine::new(Config::default());
    m.store(0, ROOT, L1 | TABLE);
    m.run_in(0, T2, 1); // another, empty root
    m.store(0, ROOT, 0);
    m.store(0, ROOT, L2 | TABLE);
    assert_eq!(verdicts(&mut m), []);
    assert_eq!(m.model().residues().counts(), (0, 0));
}

#[test]
fn a_pe_that_left_the_space_keeps_what_it_cached() {
    let mut m = machine();
    m.run_in(1, 0x9000, 1);
    unmap(&mut m, false);
    m.store(0, T, 0x20_0000 | PAGE);
    assert_eq!(m.take_violations()[0].pes, [0, 1]);

    let mut m = machine();
    m.run_in(1, 0x9000, 1);
    flush(&mut m, Op::inner(Target::Asid(Asid::new(ASID)))); // since then PE 1 holds nothing of it
    unmap(&mut m, false);
    m.store(0, T, 0x20_0000 | PAGE);
    assert_eq!(m.take_violations()[0].pes, [0]);
}

#[test]
fn an_unlinked_table_put_to_use_before_its_flush_is_an_error() {
    let mut m = machine();
    unmap(&mut m, true);
    m.store(0, T + 64, 0x1235);
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, VA, 2)]);

    // Cleared as a whole by its next owner.
    let mut m = machine();
    unmap(&mut m, true);
    flush(&mut m, leaf_only());
    for slot in (T..T + 0x1000).step_by(8) {
        m.store(0, slot, 0);
    }
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::LeafOnly, VA, 2)]);
}

#[test]
fn tearing_an_unlinked_table_down_is_no_reuse() {
    let mut m = machine();
    m.store(0, L2, 0); // unlinked while still full
    m.store(0, T, 0);
    m.store(0, T + 8, 0);
    m.store(0, T + 16, 0x7000); // an allocator's link: bit 0 clear
    assert_eq!(verdicts(&mut m), []);
}

#[test]
fn leaves_of_an_unlinked_table_can_be_refilled_through_it() {
    let mut m = machine();
    m.store(0, L2, 0);
    flush(&mut m, leaf_only());
    flush_neighbour(&mut m);
    assert_eq!(m.model().residues().counts(), (3, 0), "leaf-only cleans nothing while the table entry lives");
    flush(&mut m, all_levels());
    assert_eq!(m.model().residues().counts(), (3, 2), "the neighbour's leaf is another entry");
    flush_neighbour(&mut m);
    assert_eq!(m.model().residues().counts(), (3, 3));
}

#[test]
fn a_claim_is_held_against_what_is_left() {
    let mut m = machine();
    unmap(&mut m, false);
    m.hint(0, Hint::FlushClaimed { start: VA, size: 0x1000, asid: ASID });
    assert_eq!(verdicts(&mut m), [(Kind::Claimed, Cause::NoInvalidation, VA, 3)]);

    let mut m = machine();
    unmap(&mut m, true);
    flush(&mut m, leaf_only());
    m.hint(0, Hint::FrameFreed { pa: T, size: 0x1000 });
    assert_eq!(verdicts(&mut m), [(Kind::Claimed, Cause::LeafOnly, VA, 2)]);

    let mut m = machine();
    unmap(&mut m, true);
    flush(&mut m, all_levels());
    flush_neighbour(&mut m);
    m.hint(0, Hint::FrameFreed { pa: T, size: 0x1000 });
    m.hint(0, Hint::FlushClaimed { start: 0, size: u64::MAX, asid: ASID });
    assert_eq!(verdicts(&mut m), []);
}

#[test]
fn a_case_passes_only_if_it_shows_what_it_expects_and_was_awake() {
    use tlbsan::report::Record;
    let outcome = |steps: &dyn Fn(&mut Machine)| {
        let mut m = machine();
        m.hint(0, Hint::CaseBegin { id: 3 });
        steps(&mut m);
        m.hint(0, Hint::CaseEnd { id: 3 });
        m.take_records().into_iter().find_map(|r| if let Record::Case(case) = r { Some(case.passed) } else { None })
    };
    let expect = |m: &mut Machine| {
        m.hint(
            0,
            Hint::Expect(tlbsan_hint::Expected {
                kind: Kind::Remade,
                cause: Cause::NoInvalidation,
                start: VA,
                size: 4096,
                level: 3,
            }),
        );
    };
    assert_eq!(outcome(&|_| ()), Some(false), "asleep");
    assert_eq!(
        outcome(&|m| {
            unmap(m, false);
            flush(m, leaf_only())
        }),
        Some(true)
    );
    assert_eq!(
        outcome(&|m| {
            unmap(m, false);
            remap(m);
        }),
        Some(false),
        "unexpected"
    );
    assert_eq!(
        outcome(&|m| {
            expect(m);
            unmap(m, false);
            remap(m);
        }),
        Some(true)
    );
    assert_eq!(
        outcome(&|m| {
            expect(m);
            unmap(m, false);
            flush(m, leaf_only())
        }),
        Some(false),
        "missing"
    );
}

#[test]
fn hints_are_ignored_when_asked() {
    let mut m = Machine::new(Config { ignore_hints: true, ..Config::default() });
    m.hint(0, Hint::CaseBegin { id: 1 });
    m.hint(0, Hint::CaseEnd { id: 1 });
    assert_eq!(m.take_records().len(), 1, "the start record alone");
}

#[test]
fn an_unlinked_table_linked_elsewhere_is_reused_with_its_first_entry() {
    let mut m = machine();
    m.store(0, L2, 0);
    m.store(0, L2 + 8, T | TABLE); // moved, as Linux moves page tables
    assert_eq!(verdicts(&mut m), []);
    m.store(0, T + 16, 0x10_2000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, VA, 2)]);
}

#[test]
fn an_entry_cleared_in_a_moved_table_stays_a_residue_of_its_own() {
    let mut m = machine();
    m.store(0, L2, 0);
    m.store(0, L2 + 8, T | TABLE);
    m.store(0, T, 0);
    m.store(0, T + 16, 0x10_2000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, VA, 2)]);
    m.hint(0, Hint::FlushClaimed { start: VA, size: 0x1000, asid: ASID });
    assert_eq!(verdicts(&mut m), [(Kind::Claimed, Cause::NoInvalidation, VA, 3)]);
}

#[test]
fn a_table_cleared_out_of_an_unlinked_table_is_not_live_when_that_returns() {
    let mut m = machine();
    m.store(0, L1 + 8, 0);
    m.store(0, L2, 0);
    m.store(0, L1 + 8, L2 | TABLE);
    m.store(0, T + 16, 0x10_2000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, VA, 2)]);
}

#[test]
fn a_local_dsb_orders_a_store_for_its_own_pe_only() {
    let flush_on = |pe| {
        let mut m = machine();
        unmap(&mut m, false);
        m.dsb(0, Dsb::Nshst);
        m.tlbi(pe, local_leaf_only());
        m.dsb(pe, Dsb::Nsh);
        m.store(0, T, 0x20_0000 | PAGE);
        m.take_violations().remove(0).pes
    };
    assert_eq!(flush_on(0), [1]);
    assert_eq!(flush_on(1), [0, 1]);
}

#[test]
fn a_dsb_of_whoever_stored_last_orders_the_earlier_stores() {
    let mut m = machine();
    m.store(1, T, 0);
    m.store(0, T, 1 << 55);
    flush(&mut m, leaf_only());
    assert_eq!(remap(&mut m), []);
}

#[test]
fn a_table_linked_again_with_fewer_prohibitions_is_no_residue() {
    let mut m = machine();
    m.store(0, L2 + 8, T2 | TABLE | 1 << 61);
    m.store(0, L2 + 8, 0);
    m.store(0, L2 + 8, T2 | TABLE);
    m.hint(0, Hint::FlushClaimed { start: VA, size: 1 << 30, asid: ASID });
    assert_eq!(verdicts(&mut m), []);
}

#[test]
fn a_table_that_links_itself_is_unlinked_without_end() {
    let mut m = machine();
    m.store(0, ROOT + 8 * 511, ROOT | TABLE);
    m.store(0, ROOT + 8 * 511, 0);
    m.store(0, L1, L1 | TABLE);
    m.store(0, ROOT, 0);
}

#[test]
fn a_pe_that_left_after_the_invalidation_may_have_refilled() {
    let mut m = machine();
    m.tlbi(0, Op::inner(Target::Asid(Asid::new(ASID))));
    m.run_in(1, 0x9000, 1);
    m.dsb(0, Dsb::Ish);
    unmap(&mut m, false);
    m.store(0, T, 0x20_0000 | PAGE);
    assert_eq!(m.take_violations()[0].pes, [0, 1]);
}

#[test]
fn a_table_replaced_in_an_unlinked_table_is_not_live_when_that_returns() {
    let mut m = machine();
    m.store(0, L1 + 8, 0);
    m.store(0, L2, T2 | TABLE);
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, VA, 1)]);
    m.store(0, L1 + 16, L2 | TABLE);
    m.store(0, T, 0x20_0000 | PAGE);
    assert_eq!(verdicts(&mut m), [], "nothing leads to T any more");
}

#[test]
fn a_leaf_whose_table_has_moved_is_stale_where_it_was() {
    let mut m = machine();
    m.store(0, T, 0);
    m.store(0, L2, 0);
    m.store(0, T, 0x10_0000 | PAGE);
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, VA, 2)]);
    m.store(0, L2 + 8, T | TABLE);
    m.hint(0, Hint::FrameFreed { pa: 0x10_0000, size: 0x1000 });
    assert_eq!(verdicts(&mut m), [(Kind::Claimed, Cause::NoInvalidation, VA, 3)]);
}

#[test]
fn what_was_cleared_before_a_table_was_linked_again_is_forgotten() {
    let mut m = machine();
    m.store(0, L1 + 8, 0);
    for slot in (T..T + 0x1000).step_by(8) {
        m.store(0, slot, 0);
    }
    assert_eq!(verdicts(&mut m), [(Kind::Reused, Cause::NoInvalidation, VA, 2)]);
    m.store(0, L1 + 8, L2 | TABLE);
    m.store(0, L1 + 8, 0);
    m.store(0, T, 0);
    assert_eq!(verdicts(&mut m), [], "one store is a teardown");
}
