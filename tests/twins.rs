//! Every rule as instruction sequences on PEs of QEMU: one boot for each CPU, and the verdicts of tests/twins.

use std::collections::BTreeSet;
use system_tests::{Board, Outcome};
use tlbsan::Kind;
use tlbsan::report::Verdict;
use twins::{GROUPS, Twin};

/// The list as test points: the name, and the twin.
fn points() -> Vec<(String, &'static Twin)> {
    let of_group = |group: &'static twins::Group| group.twins.iter().map(|twin| (named(group.name, twin), twin));
    GROUPS.iter().flat_map(of_group).collect()
}

fn named(group: &str, twin: &Twin) -> String {
    format!("{group}: {}", twin.sequence)
}

/// Accesses that QEMU makes through what an earlier root has left: one at EL1; with EL2 two more, in a guest whose MMU is off and in one
/// whose MMU is on.
const MISMATCHED: [u64; 2] = [1, 3];

/// Two cores for the sequences; seven that are switched on one by one where there are nine.
fn boot(cpu: &'static str, cores: usize, machine: &'static str) -> Outcome {
    let mismatched = MISMATCHED[usize::from(machine.contains("virtualization"))];
    Board { machine, mismatched, ..Board::new(cpu, cores, "scenario=twins cores=2") }.run()
}

/// The names of the test points that ran, after all of them were found to be the list's and to have got their verdicts.
fn check(outcome: &Outcome) -> BTreeSet<String> {
    let points = points();
    let lines: Vec<&str> = outcome.stdout.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    assert_eq!(lines.len(), points.len(), "{}", outcome.stdout);
    let mut ran = BTreeSet::new();
    for ((number, line), (name, twin)) in (1..).zip(lines).zip(&points) {
        let (told, skip) = match line.split_once(" # SKIP ") {
            Some((told, why)) => (told, Some(why)),
            None => (line, None),
        };
        assert_eq!(told, format!("{number} - {name}"));
        let case = outcome.cases().into_iter().find(|case| case.id == number);
        match (skip, case) {
            (Some(why), None) => assert!(twin.only_simulated.is_none_or(|reason| reason == why), "{line}"),
            (None, Some(case)) => {
                assert!(twin.only_simulated.is_none(), "{line}");
                let expected: BTreeSet<Verdict> = twin.verdicts().into_iter().map(Verdict::from).collect();
                assert_eq!(case.seen.iter().copied().collect::<BTreeSet<_>>(), expected, "{line}");
                assert!(case.passed && case.awake(), "{line}");
                ran.insert(name.clone());
            }
            (_, case) => panic!("{line}: {case:?}"),
        }
    }
    assert_eq!(outcome.summary().unexpected, 0, "verdicts outside the cases\n{}", outcome.stdout);
    ran
}

#[test]
fn every_twin_gets_its_verdicts_on_some_machine() {
    let mut ran = BTreeSet::new();
    for (cpu, cores, machine) in
        [("cortex-a57", 2, ""), ("neoverse-n2", 9, ",virtualization=on"), ("max", 9, ",virtualization=on")]
    {
        ran.append(&mut check(&boot(cpu, cores, machine).expect(0)));
    }
    let never: Vec<_> = points()
        .into_iter()
        .filter(|(name, twin)| twin.only_simulated.is_none() && !ran.contains(name))
        .map(|(name, _)| name)
        .collect();
    assert!(never.is_empty(), "no machine ran {never:#?}");
}

#[test]
fn broken_twins_are_violations_where_nobody_expects_them() {
    let board = Board {
        mismatched: MISMATCHED[0],
        tlbsan: vec!["--ignore-hints"],
        ..Board::new("cortex-a57", 2, "scenario=twins cores=2")
    };
    let outcome = board.run().expect(1);
    let kinds: BTreeSet<Kind> = outcome.violations().iter().map(|v| v.kind).collect();
    let all: BTreeSet<Kind> = Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Claimed).collect();
    assert_eq!(kinds, all);
}

#[test]
fn without_the_checker_no_twin_claims_to_be_right() {
    let outcome = Board::new("cortex-a57", 2, "scenario=twins cores=2").run_plain().expect(0);
    let skipped = outcome.stdout.lines().filter(|line| line.ends_with(" # SKIP needs tlbsan")).count();
    assert_eq!(skipped, points().len(), "{}", outcome.stdout);
}
