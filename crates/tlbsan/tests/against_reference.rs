//! Random sequences of events: the model and the naive reference must give the same verdicts after every one.
//!
//! `TLBSAN_CASES` sets the number of sequences, `TLBSAN_SEED` where the numbers begin; the same numbers give the same
//! sequences. `TLBSAN_SEQUENCE` repeats one (the numbers of a failure, separated by commas). fuzz/ has a fuzzer for the same
//! comparison, and its corpus: sequences on which the two once differed, by what was wrong.

#[path = "comparison/mod.rs"]
mod comparison;

use comparison::universe::Setting;
use comparison::{Comparison, Hears, KINDS, Tally, everything, fuzz};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestError, TestRng, TestRunner};
use std::cell::Cell;
use tlbi::{Dsb, Scope, Target};
use tlbsan::{Kind, Sysreg, What};

/// Runs random sequences; what they came across, or the smallest one found that differs.
fn search(comparison: Comparison, cases: u64, shrink: u32) -> Result<Tally, String> {
    let seed = number("TLBSAN_SEED", 1).to_le_bytes().repeat(4);
    let config = Runs { cases: cases as u32, failure_persistence: None, max_shrink_iters: shrink, ..Runs::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let total = Cell::new(Tally::default());
    let sequences = (0..Setting::ALL, proptest::collection::vec(0..1_u64 << 43, 1..40));
    let outcome = runner.run(&sequences, |(setting, codes)| {
        let codes: Vec<u64> = [setting].into_iter().chain(codes).collect();
        let with_codes = |text| {
            let codes: Vec<String> = codes.iter().map(u64::to_string).collect();
            TestCaseError::fail(format!("{text}  TLBSAN_SEQUENCE={}", codes.join(",")))
        };
        total.set(total.get().add(comparison.run(&codes).map_err(with_codes)?));
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(total.get()),
        Err(TestError::Fail(reason, _)) => Err(reason.message().to_owned()),
        Err(other) => Err(other.to_string()),
    }
}

/// Random sequences; or the one that is asked for, of which there is nothing to count.
fn test(comparison: Comparison, cases: u64) -> Option<Tally> {
    let one = std::env::var("TLBSAN_SEQUENCE").ok();
    let outcome = match &one {
        Some(codes) => {
            comparison.run(&codes.split(',').filter_map(|code| code.trim().parse().ok()).collect::<Vec<_>>())
        }
        None => search(comparison, number("TLBSAN_CASES", cases), 20_000),
    };
    match outcome {
        Ok(tally) => {
            println!("{tally:?}");
            one.is_none().then_some(tally)
        }
        Err(text) => panic!("\n{text}"),
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn the_model_and_the_reference_agree_where_pes_stay() {
    let Some(tally) = test(Comparison { roaming: false, nested: false, hears: everything }, 250) else { return };
    assert!(tally.verdicts * 100 > tally.events, "too few verdicts to mean anything: {tally:?}");
    // Who stays in its address space loads no other under its ASID.
    let missing = |(kind, count): (&Kind, &u64)| *count == 0 && *kind != Kind::Asid;
    assert!(!KINDS.iter().zip(&tally.of_kind).any(missing), "{tally:?}");
    assert_eq!(tally.over, 0);
}

#[test]
fn the_model_and_the_reference_agree_on_a_guests_own_tables() {
    let Some(tally) = test(Comparison { roaming: false, nested: true, hears: everything }, 150) else { return };
    assert!(tally.verdicts * 100 > tally.events && tally.over == 0, "{tally:?}");
}

#[test]
fn the_model_misses_nothing_where_pes_roam() {
    let Some(tally) = test(Comparison { roaming: true, nested: false, hears: everything }, 250) else { return };
    assert!(tally.of_kind.iter().all(|count| *count > 0), "{tally:?}");
    assert!(tally.over * 100 <= tally.verdicts, "{tally:?}");
}

#[test]
fn the_reference_is_short() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference")).expect("the reference");
    let text = files.map(|file| std::fs::read_to_string(file.expect("an entry").path()).expect("a file"));
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let lines: usize = text.map(|text| text.lines().filter(is_code).count()).sum();
    assert!(lines < 600, "{lines} lines of code");
}

/// Names what the model is not told, and whether that went unnoticed.
fn deaf(hears: Hears) -> Result<Tally, String> {
    search(Comparison { roaming: false, nested: false, hears }, 6000, 0)
}

#[test]
fn a_model_that_misses_a_kind_of_event_is_found_out() {
    let without: [(&str, Hears); 9] = [
        ("store", |e| !matches!(e.what, What::Store { .. })),
        ("tlbi", |e| !matches!(e.what, What::Tlbi(_))),
        (
            "leaf-only tlbi",
            |e| !matches!(e.what, What::Tlbi(op) if matches!(op.target, Target::Va { leaf_only: true, .. })),
        ),
        ("dsb", |e| !matches!(e.what, What::Dsb(_))),
        ("dsb ishst", |e| e.what != What::Dsb(Dsb::Ishst)),
        (
            "tlbi by range",
            |e| !matches!(e.what, What::Tlbi(op) if matches!(op.target, Target::VaRange { .. } | Target::IpaRange { .. })),
        ),
        ("outer-shareable tlbi", |e| !matches!(e.what, What::Tlbi(op) if op.scope == Scope::Outer)),
        ("access", |e| !matches!(e.what, What::Access { .. })),
        ("change of mair", |e| !matches!(e.what, What::Sysreg(Sysreg::MairEl1 | Sysreg::MairEl2, _))),
    ];
    for (name, hears) in without {
        assert!(deaf(hears).is_err(), "nobody noticed that the model misses every {name}");
    }
}

/// What a fuzzer begins with.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/against_reference"));
    let file = |file: std::fs::DirEntry| {
        (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("a file"))
    };
    let mut corpus: Vec<_> = files.expect("the corpus").map(|entry| file(entry.expect("an entry"))).collect();
    corpus.sort();
    corpus
}

#[test]
fn sequences_that_once_differed_agree() {
    let corpus = corpus();
    assert!(corpus.len() >= 40, "{}", corpus.len());
    for (name, bytes) in corpus {
        if let Err(text) = fuzz(&bytes) {
            panic!("{name}\n{text}");
        }
    }
}

/// Leaves out steps as long as the two still differ; how they do then.
fn smallest(mut input: Vec<u8>) -> String {
    let mut at = 6;
    while at < input.len() {
        let mut shorter = input.clone();
        shorter.drain(at..(at + 6).min(input.len()));
        if fuzz(&shorter).is_err() {
            (input, at) = (shorter, 6);
        } else {
            at += 6;
        }
    }
    format!("{}  bytes: {input:x?}", fuzz(&input).err().unwrap_or_default())
}

/// Changes the corpus byte by byte and crosswise for `TLBSAN_FUZZ_SECONDS`, and a fixed number of times without it: what the
/// fuzzer does, without one.
#[test]
fn sequences_near_those_that_once_differed_agree() {
    let corpus = corpus();
    let begun = std::time::Instant::now();
    let seconds = number("TLBSAN_FUZZ_SECONDS", 0);
    let mut state = number("TLBSAN_SEED", 1) | 1 << 63;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below.max(1)
    };
    let mut round = 0;
    while round < 150 || begun.elapsed().as_secs() < seconds {
        let mut input = corpus[round % corpus.len()].1.clone();
        for _ in 0..=random(3) {
            let other = &corpus[random(corpus.len())].1;
            let at = random(input.len() / 6) * 6;
            input.splice(at..at, other[random(other.len() / 6) * 6..].iter().copied());
            let at = random(input.len());
            input[at] = random(256) as u8;
        }
        if fuzz(&input).is_err() {
            panic!("\n{}", smallest(input));
        }
        round += 1;
    }
}
