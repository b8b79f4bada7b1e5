//! walk-cache on real cores: the 2019 bug caught, its cure silent and awake, on every machine and in every run.

use std::collections::BTreeSet;
use system_tests::{Board, Outcome};
use tlbsan::report::Verdict;
use tlbsan::{Cause, Kind};

const A: u64 = 0x4000_0000;
const LEAF: u64 = 0x8000_0000;

const LOST_FREED_TABLES: Verdict =
    Verdict { kind: Kind::Remade, cause: Cause::LeafOnly, start: A, size: 2 << 20, level: 2 };
const MISSING_LEAF: Verdict =
    Verdict { kind: Kind::Remade, cause: Cause::NoInvalidation, start: LEAF, size: 4096, level: 3 };

#[track_caller]
fn check_all_cases(outcome: &Outcome) {
    let cases = outcome.cases();
    let [correct, lost, leaf] = cases.as_slice() else { panic!("{cases:#?}\n{}", outcome.stdout) };
    assert!(correct.passed && correct.seen.is_empty() && correct.awake(), "{correct:#?}");
    assert_eq!((correct.opened, correct.cleaned), (3, 3), "A's leaf and table, the stack's leaf");
    assert_eq!(lost.seen, [LOST_FREED_TABLES]);
    assert_eq!(leaf.seen, [MISSING_LEAF]);
    assert!(outcome.has_line("ok 1 - walk-cache/correct"), "{}", outcome.stdout);
    assert!(outcome.has_line("ok 2 - walk-cache/lost-freed-tables"), "{}", outcome.stdout);
    assert!(outcome.has_line("ok 3 - walk-cache/missing-leaf"), "{}", outcome.stdout);
    assert!(outcome.has_line("# tlbsan: silent; 3 stale entries opened, 3 cleaned"), "{}", outcome.stdout);
    assert_eq!(outcome.summary().unexpected, 0);
}

#[test]
fn every_case_on_every_machine() {
    for cpu in ["cortex-a57", "neoverse-n2", "max"] {
        for cores in [1, 2, 4, 8] {
            check_all_cases(&Board::new(cpu, cores, "").run().expect(0));
        }
    }
}

#[test]
fn every_case_where_the_image_is_entered_at_el2() {
    check_all_cases(&Board { machine: ",virtualization=on", ..Board::new("max", 2, "") }.run().expect(0));
}

#[test]
fn the_bug_alone_is_told_with_who_what_and_where() {
    let outcome = Board::new("cortex-a57", 4, "fault=walk-cache/lost-freed-tables").run().expect(1);
    let violations = outcome.violations();
    let [v] = violations.as_slice() else { panic!("{violations:#?}") };
    assert_eq!(Verdict::from(*v), LOST_FREED_TABLES);
    assert_eq!(v.pes, [0, 1, 2, 3]);
    assert!(v.old.text.starts_with("table at") && v.new.text.starts_with("table at") && v.old != v.new, "{v:#?}");
    for told in [
        "PEs 0, 1, 2 and 3 may still walk through its old level-2 table entry",
        "PE 0 removed the old level-2 table entry",
        "pgtable::edit::Edit<M,A,I,P>::unmap at crates/pgtable/src/edit.rs:",
        "PE 0 issued TLBI VALE1IS, 0x4000_0000 ASID 1: it removes leaves only",
        "pgtable::gather::Gather::flush at crates/pgtable/src/gather.rs:",
        "PE 0 wrote the new entry",
        "firmware::scenarios::walk_cache::unmap_and_map_again at firmware/src/scenarios/walk_cache.rs:",
        "TLBI VAE1IS instead of TLBI VALE1IS whenever tables are freed",
    ] {
        assert!(outcome.stdout.contains(told), "the story does not say: {told}\n{}", outcome.stdout);
    }
}

#[test]
fn the_bug_is_found_without_any_hint() {
    let board =
        Board { tlbsan: vec!["--ignore-hints"], ..Board::new("cortex-a57", 4, "fault=walk-cache/lost-freed-tables") };
    let outcome = board.run().expect(1);
    assert_eq!(outcome.violations().iter().map(|v| Verdict::from(*v)).collect::<Vec<_>>(), [LOST_FREED_TABLES]);
    assert!(outcome.cases().is_empty(), "hints were not ignored");
}

#[test]
fn a_missing_leaf_invalidation_shows_on_another_core() {
    let outcome = Board::new("cortex-a57", 2, "fault=walk-cache/missing-leaf").run().expect(1);
    assert_eq!(outcome.violations().iter().map(|v| Verdict::from(*v)).collect::<Vec<_>>(), [MISSING_LEAF]);
    assert!(outcome.stdout.contains("core 1 reads 0x1010101 at 0x80000000, not 0x2020202"), "{}", outcome.stdout);
    // And without the checker.
    let plain = Board::new("cortex-a57", 2, "fault=walk-cache/missing-leaf").run_plain().expect(1);
    assert!(plain.has_line("not ok 1 - walk-cache/missing-leaf"), "{}", plain.stdout);
}

#[test]
fn dropping_any_required_instruction_of_the_correct_form_makes_a_verdict() {
    let run = |append: &str| Board::new("neoverse-n2", 4, &format!("scenario=walk-cache/correct {append}")).run();
    let whole = run("issued").expect(0);
    let issued: Vec<String> = whole
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("#   ")?.split_once(": ").map(|(_, instruction)| instruction.to_owned()))
        .collect();
    // A DSB ISHST that no TLBI follows makes new entries visible: advice (R2), a spurious fault at worst.
    let is_publish =
        |n: usize| issued[n] == "dsb ishst" && issued.get(n + 1).is_none_or(|next| !next.starts_with("tlbi"));
    let required: Vec<usize> = (0..issued.len()).filter(|n| !is_publish(*n)).collect();
    assert!(required.len() >= 6, "two flushes of three instructions: {issued:?}");
    for n in 0..issued.len() {
        let outcome = run(&format!("drop={n}"));
        let code = if required.contains(&n) { 1 } else { 0 };
        assert_eq!(
            outcome.code,
            Some(code),
            "without instruction {n}, {}, of {issued:?}\n{}",
            issued[n],
            outcome.stdout
        );
        assert_eq!(outcome.violations().is_empty(), code == 0);
    }
}

#[test]
fn twenty_runs_give_the_same_verdicts() {
    let set = || -> BTreeSet<(Verdict, Vec<usize>)> {
        let outcome = Board::new("cortex-a57", 4, "").run().expect(0);
        outcome.violations().iter().map(|v| (Verdict::from(*v), v.pes.clone())).collect()
    };
    let first = set();
    assert_eq!(first.len(), 2, "{first:?}");
    for run in 1..20 {
        assert_eq!(set(), first, "run {run}");
    }
}

#[test]
fn one_core_with_icount_is_the_same_byte_for_byte() {
    let run = || {
        let outcome =
            Board { qemu: vec!["-icount", "shift=0"], ..Board::new("max", 1, "fault=walk-cache/lost-freed-tables") }
                .run();
        let outcome = outcome.expect(1);
        (outcome.stdout, outcome.records)
    };
    let (first, second) = (run(), run());
    assert!(first.0.contains("stale translation [remade, leaf-only]"), "{}", first.0);
    assert_eq!(first, second);
}

#[test]
fn without_the_checker_the_image_runs_and_says_what_it_cannot_judge() {
    let outcome = Board::new("cortex-a57", 4, "").run_plain().expect(0);
    assert!(outcome.has_line("ok 1 - walk-cache/correct"), "{}", outcome.stdout);
    assert!(outcome.has_line("ok 2 - walk-cache/lost-freed-tables # SKIP needs tlbsan"), "{}", outcome.stdout);
    assert!(outcome.has_line("ok 3 - walk-cache/missing-leaf"), "{}", outcome.stdout);
}
