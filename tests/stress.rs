//! Random interleavings: silent where the library is right, and the 2019 bug soon found where it is not.

use system_tests::{Board, Outcome};
use tlbsan::{Cause, Kind};

/// `# stress: 20010 unmaps, 34102 of 51034 changes ended in company, 11.295 s`
fn unmaps(outcome: &Outcome) -> (u64, u64) {
    let line = outcome.stdout.lines().find(|line| line.contains(" unmaps, ")).unwrap_or_default();
    let number = |n: usize| line.split(' ').nth(n).and_then(|word| word.parse().ok());
    number(2).zip(number(4)).unwrap_or_else(|| panic!("no count of unmaps\n{}", outcome.stdout))
}

#[test]
fn the_correct_form_is_silent_with_every_remedy() {
    for (cpu, cores, remedy) in
        [("cortex-a57", 4, "a"), ("neoverse-n2", 8, "b"), ("max", 4, "c"), ("cortex-a57", 3, "d"), ("max", 1, "b")]
    {
        let append = format!("fault=stress/correct unmaps=2000 remedy={remedy}");
        let outcome = Board::new(cpu, cores, &append).run().expect(0);
        let (unmaps, in_company) = unmaps(&outcome);
        assert!(unmaps >= 2000, "{}", outcome.stdout);
        // Who waits for the others with remedy d has left before: there are few in company.
        let few = if remedy == "d" { 0 } else { unmaps / 10 };
        assert!(cores == 1 || in_company > few, "the cores hardly met\n{}", outcome.stdout);
        let cases = outcome.cases();
        assert!(cases.len() == 1 && cases[0].awake() && cases[0].seen.is_empty(), "{cases:#?}");
    }
}

#[test]
fn the_bug_of_2019_is_found_within_the_first_thousand_unmaps() {
    for cores in [2, 4, 8] {
        let outcome = Board::new("cortex-a57", cores, "fault=stress/lost-freed-tables unmaps=1000").run().expect(1);
        assert!(unmaps(&outcome).0 < 1100, "{}", outcome.stdout);
        let violations = outcome.violations();
        assert!(!violations.is_empty());
        // A freed table is lost: another is linked where it was, or it becomes another table itself. Nothing else is wrong.
        for v in violations {
            assert!(matches!(v.kind, Kind::Remade | Kind::Reused), "{v:#?}");
            assert_eq!((v.cause, v.level), (Cause::LeafOnly, 2), "{v:#?}");
        }
    }
}
