//! edits on real cores: live tables change under the cores that read through them, with every granule of every CPU.

use std::collections::BTreeSet;
use system_tests::{Board, Outcome};
use tlbsan::report::Verdict;
use tlbsan::{Cause, Kind};

const A: u64 = 0x8000_0000;
const KERNEL_A: u64 = 0xffff_a000_8000_0000;

/// A CPU, as far as the forms depend on it.
struct Cpu {
    name: &'static str,
    pages_16k: bool,
    /// FEAT_BBM 2: the size of a block may change in place.
    bbm2: bool,
}

const CPUS: [Cpu; 5] = [
    Cpu { name: "cortex-a57", pages_16k: false, bbm2: false },
    Cpu { name: "cortex-a76", pages_16k: true, bbm2: false },
    Cpu { name: "neoverse-v1", pages_16k: true, bbm2: true },
    Cpu { name: "neoverse-n2", pages_16k: true, bbm2: true },
    Cpu { name: "max", pages_16k: true, bbm2: true },
];

/// A space: how names of forms end, where in it, bytes of a page, bytes of a block at level 2.
const SPACES: [(&str, u64, u64, u64); 4] = [
    ("", A, 4 << 10, 2 << 20),
    ("-16k", A, 16 << 10, 32 << 20),
    ("-64k", A, 64 << 10, 512 << 20),
    ("-kernel", KERNEL_A, 4 << 10, 2 << 20),
];

/// Every form in the order it runs, and what the checker must say. Written down here again: a form that expects the wrong thing of
/// itself would pass its own test.
fn forms(cpu: &Cpu) -> Vec<(String, Vec<Verdict>)> {
    use Cause::*;
    use Kind::*;
    let mut forms = Vec::new();
    for name in [
        "correct-resize",
        "split-without-bbm",
        "collapse-leaf-only",
        "correct-runs",
        "contiguous-partial",
        "correct-relocate",
        "remap-without-break",
        "correct-protect",
        "correct-map",
        "table-linked-before-zeroed",
    ] {
        for (suffix, at, page, block) in SPACES {
            let page = |kind, cause, nth| Verdict { kind, cause, start: at + nth * page, size: page, level: 3 };
            let block = |kind, cause| Verdict { kind, cause, start: at, size: block, level: 2 };
            let expected = match name {
                // Where the size may change in place, it is the owed invalidation that is missing.
                "split-without-bbm" if cpu.bbm2 => vec![block(Claimed, NoInvalidation)],
                "split-without-bbm" => vec![block(LiveChange, NotBrokenFirst)],
                // The first word of a table that was freed is written to: its first page could be filled again, from before.
                "collapse-leaf-only" if cpu.bbm2 => vec![block(Claimed, LeafOnly), page(Claimed, LeafOnly, 0)],
                "collapse-leaf-only" => vec![block(Remade, LeafOnly)],
                "contiguous-partial" => vec![page(Claimed, NotBrokenFirst, 1)],
                "remap-without-break" => vec![page(LiveChange, NotBrokenFirst, 0)],
                "table-linked-before-zeroed" => vec![page(Remade, NoInvalidation, 1)],
                _ => vec![],
            };
            forms.push((format!("edits/{name}{suffix}"), expected));
        }
    }
    forms.push(("edits/correct-linear-map".into(), vec![]));
    forms
}

/// Room for a block of 512 MiB.
fn board(cpu: &Cpu, cores: usize, append: &str) -> Board {
    Board { qemu: vec!["-m", "1536M"], ..Board::new(cpu.name, cores, append) }
}

#[track_caller]
fn check_all_cases(cpu: &Cpu, outcome: &Outcome) {
    for (id, (name, expected)) in (1..).zip(forms(cpu)) {
        let line = format!("ok {id} - {name}");
        let line = outcome.stdout.lines().find(|l| l.starts_with(&line)).unwrap_or_else(|| panic!("no {line}"));
        let skipped = !cpu.pages_16k && name.ends_with("-16k");
        assert_eq!(line.contains("# SKIP no 16 KiB pages"), skipped, "{line}");
        let case = outcome.cases().into_iter().find(|case| case.id == id);
        assert_eq!(case.is_none(), skipped, "{line}");
        let Some(case) = case else { continue };
        let seen: BTreeSet<Verdict> = case.seen.iter().copied().collect();
        assert!(case.passed && seen == expected.iter().copied().collect(), "{line} on {}: {case:#?}", cpu.name);
        assert!(!expected.is_empty() || case.awake(), "{line} on {}: {case:#?}", cpu.name);
    }
    assert_eq!(outcome.summary().unexpected, 0);
}

#[test]
fn every_edit_on_every_cpu_with_every_granule() {
    for cpu in &CPUS {
        check_all_cases(cpu, &board(cpu, 4, "scenario=edits").run().expect(0));
    }
}

#[test]
fn every_edit_with_fewer_and_more_cores() {
    for (cpu, cores, remedy) in [(&CPUS[0], 1, "c"), (&CPUS[4], 2, "d"), (&CPUS[2], 8, "a")] {
        let append = format!("scenario=edits remedy={remedy}");
        check_all_cases(cpu, &board(cpu, cores, &append).run().expect(0));
    }
}

#[test]
fn every_edit_where_the_image_is_entered_at_el2() {
    let cpu = &CPUS[4];
    let board = Board { machine: ",virtualization=on", ..board(cpu, 2, "scenario=edits") };
    check_all_cases(cpu, &board.run().expect(0));
}

/// Each fault fails by its name alone, as if nobody knew that it is faulty.
#[test]
fn every_fault_fails_when_it_is_run_alone() {
    for cpu in [&CPUS[0], &CPUS[4]] {
        for (name, expected) in forms(cpu) {
            if expected.is_empty() || !cpu.pages_16k && name.ends_with("-16k") {
                continue;
            }
            let outcome = board(cpu, 4, &format!("fault={name}")).run().expect(1);
            let seen: BTreeSet<Verdict> = outcome.cases().iter().flat_map(|case| case.seen.clone()).collect();
            assert_eq!(seen, expected.into_iter().collect(), "{name} on {}\n{}", cpu.name, outcome.stdout);
        }
    }
}

/// Without the checker the cores see that nothing but the right words is read, and that a write is lost where it is.
#[test]
fn plain_qemu_shows_what_it_can() {
    let cpu = &CPUS[4];
    let outcome = board(cpu, 4, "scenario=edits").run_plain().expect(0);
    assert!(outcome.has_line("ok 1 - edits/correct-resize"), "{}", outcome.stdout);
    assert!(outcome.has_line("ok 5 - edits/split-without-bbm # SKIP needs tlbsan"), "{}", outcome.stdout);
    let outcome = board(cpu, 4, "fault=edits/remap-without-break").run_plain().expect(1);
    assert!(outcome.stdout.contains("a write at 0x80000008: Yes, not Broken"), "{}", outcome.stdout);
}

/// Without 512 MiB to spare, the forms that need them say so.
#[test]
fn a_small_machine_says_what_it_has_no_room_for() {
    let outcome = Board::new("cortex-a57", 2, "scenario=edits").run().expect(0);
    assert!(outcome.has_line("ok 3 - edits/correct-resize-64k # SKIP not enough RAM"), "{}", outcome.stdout);
    assert!(outcome.has_line("ok 15 - edits/correct-runs-64k"), "{}", outcome.stdout);
    assert!(outcome.cases().iter().all(|case| case.passed));
}
