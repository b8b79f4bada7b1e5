//! walk-cache on real cores: the 2019 bug caught, its cure silent and awake, on every machine and in every run.

use std::collections::BTreeSet;
use system_tests::{Board, Outcome};
use tlbsan::report::Verdict;
use tlbsan::{Cause, Kind};

const A: u64 = 0x4000_0000;
const LEAF: u64 = 0x8000_0000;

const fn leaf(kind: Kind, cause: Cause, start: u64) -> Verdict {
    Verdict { kind, cause, start, size: 4096, level: 3 }
}

const fn table(kind: Kind, cause: Cause, start: u64) -> Verdict {
    Verdict { kind, cause, start, size: 2 << 20, level: 2 }
}

const LOST_FREED_TABLES: Verdict = table(Kind::Remade, Cause::LeafOnly, A);
const MISSING_LEAF: Verdict = leaf(Kind::Remade, Cause::NoInvalidation, LEAF);

/// What there is besides the verdicts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Where {
    Everywhere,
    /// Not on one core.
    Multi,
    /// Not where one core would wait for itself.
    Nested,
    /// Not on a CPU with FEAT_ETS2.
    WithoutEts2,
}
use Where::{Everywhere, Multi, Nested, WithoutEts2};

/// Every form in the order it runs: where it is played, and what the checker must say. Written down here again: a form that
/// expects the wrong thing of itself would pass its own test.
fn forms() -> Vec<(&'static str, Where, Vec<Verdict>)> {
    use Cause::*;
    use Kind::*;
    let correct = |name, place| (name, place, Vec::new());
    vec![
        correct("correct", Nested),
        ("lost-freed-tables", Nested, vec![LOST_FREED_TABLES]),
        // The new table is linked with the page in it: one store, for which both old entries are stale.
        ("gather-record-reset-late", Nested, vec![table(Remade, NoInvalidation, A), leaf(Remade, NoInvalidation, A)]),
        correct("correct-neighbour", Nested),
        ("unflushed-neighbour", Nested, vec![leaf(Claimed, NoInvalidation, LEAF)]),
        correct("correct-map-over", Everywhere),
        ("map-over-pending", Everywhere, vec![leaf(Remade, NoInvalidation, LEAF)]),
        correct("correct-table", Everywhere),
        ("leaf-only-after-table-free", Everywhere, vec![table(Remade, LeafOnly, A)]),
        ("tables-freed-before-flush", Everywhere, vec![table(Reused, NoInvalidation, A)]),
        correct("correct-leaf", Everywhere),
        ("missing-leaf", Everywhere, vec![MISSING_LEAF]),
        ("no-dsb-before-tlbi", Everywhere, vec![leaf(Remade, NotOrdered, LEAF)]),
        ("no-dsb-after-tlbi", Everywhere, vec![leaf(Remade, NotCompleted, LEAF)]),
        ("dsb-ishst-after-tlbi", Everywhere, vec![leaf(Remade, NotCompleted, LEAF)]),
        ("dsb-on-other-core", Multi, vec![leaf(Remade, NotCompleted, LEAF)]),
        ("local-only", Multi, vec![leaf(Remade, LocalOnly, LEAF)]),
        ("no-isb", WithoutEts2, vec![leaf(StaleAccess, NotSynchronised, LEAF)]),
        ("wrong-asid", Everywhere, vec![leaf(Remade, WrongAsid, LEAF)]),
        ("wrong-range", Everywhere, vec![leaf(Remade, WrongRange, LEAF)]),
    ]
}

#[track_caller]
fn check_all_cases(board: &Board) {
    let outcome = board.run().expect(0);
    let alone = board.cores == 1;
    for (id, (name, place, expected)) in (1..).zip(forms()) {
        let skipped = match place {
            Everywhere => false,
            Multi => alone,
            Nested => alone && board.append.contains("remedy=d"),
            WithoutEts2 => board.cpu == "max",
        };
        let line = format!("ok {id} - walk-cache/{name}");
        let line = outcome.stdout.lines().find(|l| l.starts_with(&line)).unwrap_or_else(|| panic!("no {line}"));
        assert_eq!(line.contains("# SKIP"), skipped, "{line}");
        let case = outcome.cases().into_iter().find(|case| case.id == id);
        assert_eq!(case.is_none(), skipped, "{line}");
        let Some(case) = case else { continue };
        let seen: BTreeSet<Verdict> = case.seen.iter().copied().collect();
        assert!(case.passed && seen == expected.iter().copied().collect(), "{line} on {board:?}: {case:#?}");
        assert!(!expected.is_empty() || case.awake(), "{line} on {board:?}: {case:#?}");
    }
    assert_eq!(outcome.summary().unexpected, 0);
}

#[test]
fn every_form_on_every_machine_with_every_remedy() {
    for cpu in ["cortex-a57", "neoverse-n2", "max"] {
        for cores in [1, 2, 4, 8] {
            for remedy in ["a", "b", "c", "d"] {
                check_all_cases(&Board::new(cpu, cores, &format!("scenario=walk-cache remedy={remedy}")));
            }
        }
    }
}

#[test]
fn every_form_where_the_image_is_entered_at_el2() {
    check_all_cases(&Board { machine: ",virtualization=on", ..Board::new("max", 2, "scenario=walk-cache") });
}

#[test]
fn the_correct_race_opens_and_cleans_what_is_in_the_drawing() {
    let outcome = Board::new("cortex-a57", 4, "scenario=walk-cache/correct").run().expect(0);
    let cases = outcome.cases();
    let [case] = cases.as_slice() else { panic!("{cases:#?}") };
    assert_eq!((case.opened, case.cleaned), (3, 3), "A's leaf and table, the stack's leaf");
    assert!(outcome.has_line("# tlbsan: silent; 3 stale entries opened, 3 cleaned"), "{}", outcome.stdout);
}

#[test]
fn the_bug_alone_is_told_with_who_what_and_where() {
    let board = Board::new("cortex-a57", 4, "fault=walk-cache/lost-freed-tables");
    let outcome = Board { tlbsan: vec!["--full-stacks"], ..board }.run().expect(1);
    let violations = outcome.violations();
    let [v] = violations.as_slice() else { panic!("{violations:#?}") };
    assert_eq!(Verdict::from(*v), LOST_FREED_TABLES);
    assert_eq!(v.pes, [0, 1, 2, 3]);
    assert!(v.old.text.starts_with("table at") && v.new.text.starts_with("table at") && v.old != v.new, "{v:#?}");
    for told in [
        "PEs 0, 1, 2 and 3 may still walk through its old level-2 table entry",
        "PE 0 removed the old level-2 table entry",
        "::unmap at crates/pgtable/src/edit/remove.rs:",
        "PE 0 issued TLBI VALE1IS, 0x4000_0000 ASID 1: it removes leaves only",
        "pgtable::gather::Gather<G>::flush at crates/pgtable/src/gather.rs:",
        "PE 0 wrote the new entry",
        "firmware::scenarios::walk_cache::race::unmap_and_map_again at firmware/src/scenarios/walk_cache/race.rs:",
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

/// On a CPU whose sequences are the plain ones: where errata have an invalidation repeated, the first DSB is not needed for
/// what the checker can see.
#[test]
fn dropping_any_required_instruction_of_a_correct_form_makes_a_verdict() {
    for (form, at_least) in [("correct", 6), ("correct-table", 3), ("correct-leaf", 3)] {
        let run = |append: &str| Board::new("cortex-a57", 4, &format!("scenario=walk-cache/{form} {append}")).run();
        let whole = run("issued").expect(0);
        let issued: Vec<String> = whole
            .stdout
            .lines()
            .filter_map(|line| {
                line.strip_prefix("#   ")?.split_once(": ").map(|(_, instruction)| instruction.to_owned())
            })
            .collect();
        // A DSB ISHST that no TLBI follows makes new entries visible: advice (R2), a spurious fault at worst.
        let is_publish =
            |n: usize| issued[n] == "dsb ishst" && issued.get(n + 1).is_none_or(|next| !next.starts_with("tlbi"));
        let required: Vec<usize> = (0..issued.len()).filter(|n| !is_publish(*n)).collect();
        assert!(required.len() >= at_least, "{form}, flushes of three instructions: {issued:?}");
        for n in 0..issued.len() {
            let outcome = run(&format!("drop={n}"));
            let code = if required.contains(&n) { 1 } else { 0 };
            let what = format!("{form} without instruction {n}, {}, of {issued:?}", issued[n]);
            assert_eq!(outcome.code, Some(code), "{what}\n{}", outcome.stdout);
            assert_eq!(outcome.violations().is_empty(), code == 0, "{what}");
        }
    }
}

/// Every verdict; of several that one store brings about, only the first has a story.
fn seen(outcome: &Outcome) -> BTreeSet<Verdict> {
    outcome.cases().iter().flat_map(|case| case.seen.iter().copied()).collect()
}

/// A form that fails says so when it is run by its name, as if nobody knew that it is faulty.
#[test]
fn every_fault_fails_when_it_is_run_alone() {
    for (name, _, expected) in forms() {
        let outcome = Board::new("cortex-a57", 4, &format!("fault=walk-cache/{name}")).run();
        assert_eq!(outcome.code, Some(i32::from(!expected.is_empty())), "{name}\n{}", outcome.stdout);
        assert_eq!(seen(&outcome), expected.into_iter().collect(), "{name}");
    }
}

/// Those that the emulator shows, it shows without the checker.
#[test]
fn plain_qemu_shows_what_it_can() {
    for (name, told) in [
        ("gather-record-reset-late", "reads 0x1010101 at 0x40000000, not 0x2020202"),
        ("unflushed-neighbour", "core 3 reads 0x1010101 at 0x80000000, which is not mapped"),
        ("map-over-pending", "core 3 reads 0x1010101 at 0x80000000, not 0x2020202"),
        ("missing-leaf", "core 3 reads 0x1010101 at 0x80000000, not 0x2020202"),
        ("local-only", "core 3 reads 0x1010101 at 0x80000000, not 0x2020202"),
        ("wrong-range", "core 3 reads 0x1010101 at 0x80000000, not 0x2020202"),
    ] {
        let outcome = Board::new("cortex-a57", 4, &format!("fault=walk-cache/{name}")).run_plain().expect(1);
        assert!(outcome.stdout.contains(told), "{name}\n{}", outcome.stdout);
    }
}

#[test]
fn twenty_runs_give_the_same_verdicts() {
    let set = || -> (BTreeSet<Verdict>, BTreeSet<(Verdict, Vec<usize>)>) {
        let outcome = Board::new("cortex-a57", 4, "scenario=walk-cache").run().expect(0);
        (seen(&outcome), outcome.violations().iter().map(|v| (Verdict::from(*v), v.pes.clone())).collect())
    };
    let first = set();
    assert_eq!(first.0, forms().into_iter().flat_map(|(_, _, verdicts)| verdicts).collect::<BTreeSet<_>>());
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
    assert!(outcome.has_line("ok 3 - walk-cache/gather-record-reset-late"), "{}", outcome.stdout);
}
