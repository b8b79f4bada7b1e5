//! Random sequences of events: the model and the naive reference must give the same verdicts after every one.
//!
//! `TLBSAN_CASES` sets the number of sequences, `TLBSAN_SEED` where the numbers begin; the same numbers give the same
//! sequences. `TLBSAN_SEQUENCE` repeats one (the numbers of a failure, separated by commas).

#[path = "reference/mod.rs"]
mod reference;
#[path = "universe/mod.rs"]
mod universe;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestError, TestRng, TestRunner};
use reference::{Reference, Seen};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write;
use tlbi::{Dsb, Target};
use tlbsan::{Cause, Config, Event, Kind, Model, Record, What};
use universe::{PES, Ram, Step, Universe, decode};

/// Whether the model is told of an event.
type Hears = fn(&Event) -> bool;

/// What both must agree on always.
type Told = (Kind, u64, u64, i8);

/// The model, asked for its verdicts after every event.
struct Fast {
    model: Model,
    /// Whether it is told of an event: the tests of the comparison leave some out.
    hears: Hears,
}

/// Verdicts of the model.
type Verdicts = Vec<(Told, Cause, Vec<usize>)>;

impl Fast {
    fn event(&mut self, ram: &mut Ram, event: &Event) -> Verdicts {
        let watched = match event.what {
            What::Store { pa, .. } | What::Load { pa, .. } | What::Zero { pa, .. } => ram.is_watched(pa),
            _ => true,
        };
        if !watched || !(self.hears)(event) {
            return Vec::new();
        }
        self.model.event(ram, event);
        let records = self.model.take_records().into_iter();
        let violation = |record| match record {
            Record::Violation(v) => Some(((v.kind, v.start, v.size, v.level), v.cause, v.pes)),
            _ => None,
        };
        records.filter_map(violation).collect()
    }
}

/// What a comparison has come across.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    events: u64,
    verdicts: u64,
    /// Verdicts whose cause the rules leave open, and of which the two name different ones.
    open_causes: u64,
    /// Sequences that ended with a verdict of the model alone, on account of a PE that had left a context.
    over: u64,
}

impl Tally {
    fn add(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            verdicts: self.verdicts + other.verdicts,
            open_causes: self.open_causes + other.open_causes,
            over: self.over + other.over,
        }
    }
}

/// How two sets of verdicts compare.
enum Compared {
    Equal,
    /// The model has more, and may have.
    Over,
    Different,
}

/// What is compared, and how.
#[derive(Clone, Copy)]
struct Comparison {
    /// Whether PEs change their address spaces.
    ///
    /// A PE that has left a context holds what it held then (R3). The model knows since when an entry can be found, and not
    /// what an operation by address has removed from a PE while the entry was valid: it errs on the side of a verdict. So,
    /// where PEs roam, the model may say more than the reference, never less.
    roaming: bool,
    /// What the model is told.
    hears: Hears,
}

impl Comparison {
    /// Says how the two differ on a sequence, if they do.
    fn run(self, codes: &[u64]) -> Result<Tally, String> {
        let mut universe = Universe::default();
        let mut fast = Fast { model: Model::new(Config { tell_all: true, ..Config::default() }), hears: self.hears };
        let mut slow = Reference::new(PES);
        let mut tally = Tally::default();
        let prologue = Universe::prologue();
        let steps: Vec<Step> = codes.iter().flat_map(|code| decode(*code, self.roaming)).collect();
        for (number, step) in prologue.iter().chain(&steps).enumerate() {
            let mut outcome = Compared::Equal;
            let mut verdicts = (Vec::new(), Verdicts::new());
            universe.perform(step, |ram, event| {
                if let Compared::Equal = outcome {
                    tally.events += 1;
                    verdicts = (slow.event(event, |pa| ram.read(pa)), fast.event(ram, event));
                    tally.verdicts += verdicts.0.len() as u64;
                    outcome = self.judge(&verdicts.0, &verdicts.1, &mut tally);
                }
            });
            match outcome {
                Compared::Equal => {}
                Compared::Over => {
                    tally.over += 1;
                    break;
                }
                Compared::Different => {
                    let mut text = format!("  reference: {:x?}\n  model:     {:x?}\n  after\n", verdicts.0, verdicts.1);
                    for step in prologue.iter().chain(&steps).take(number + 1).skip(prologue.len()) {
                        let _ = writeln!(text, "    {step:?}");
                    }
                    let codes: Vec<String> = codes.iter().map(u64::to_string).collect();
                    return Err(format!("{text}  TLBSAN_SEQUENCE={}", codes.join(",")));
                }
            }
        }
        Ok(tally)
    }

    fn judge(self, expected: &[Seen], found: &Verdicts, tally: &mut Tally) -> Compared {
        let told = |v: &Seen| (v.kind, v.start, v.size, v.level);
        let all: BTreeSet<Told> = expected.iter().map(told).collect();
        let found_all: BTreeSet<Told> = found.iter().map(|v| v.0).collect();
        for e in expected {
            let same: Vec<_> = found.iter().filter(|f| f.0 == told(e)).collect();
            let pes: BTreeSet<usize> = same.iter().flat_map(|f| f.2.iter().copied()).collect();
            if same.is_empty() {
                continue; // compared below
            }
            if !(pes == e.pes || self.roaming && pes.is_superset(&e.pes)) {
                return Compared::Different;
            }
            if !same.iter().any(|f| f.1 == e.cause) {
                if e.sure && !self.roaming {
                    return Compared::Different;
                }
                tally.open_causes += 1;
            }
        }
        // A verdict about a table entry takes those about what it leads to along.
        let contains = |f: &Told, e: &Told| f.0 == e.0 && f.1 <= e.1 && e.1 + (e.2 - 1) <= f.1 + (f.2 - 1);
        let covered = all.iter().all(|e| found_all.iter().any(|f| contains(f, e)));
        match (all == found_all, self.roaming && covered) {
            (true, _) => Compared::Equal,
            (false, true) => Compared::Over,
            (false, false) => Compared::Different,
        }
    }

    /// Runs random sequences; what they came across, or the smallest one found that differs.
    fn search(self, cases: u64, shrink: u32) -> Result<Tally, String> {
        let seed = number("TLBSAN_SEED", 1).to_le_bytes().repeat(4);
        let config =
            Runs { cases: cases as u32, failure_persistence: None, max_shrink_iters: shrink, ..Runs::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let total = Cell::new(Tally::default());
        let codes = proptest::collection::vec(0..1_u64 << 40, 1..40);
        let outcome = runner.run(&codes, |codes| {
            total.set(total.get().add(self.run(&codes).map_err(TestCaseError::fail)?));
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(total.get()),
            Err(TestError::Fail(reason, _)) => Err(reason.message().to_owned()),
            Err(other) => Err(other.to_string()),
        }
    }

    /// Random sequences, or the one that is asked for.
    fn test(self, cases: u64) -> Tally {
        let outcome = match std::env::var("TLBSAN_SEQUENCE") {
            Ok(codes) => self.run(&codes.split(',').filter_map(|code| code.trim().parse().ok()).collect::<Vec<_>>()),
            Err(_) => self.search(number("TLBSAN_CASES", cases), 20_000),
        };
        match outcome {
            Ok(tally) => {
                println!("{tally:?}");
                tally
            }
            Err(text) => panic!("\n{text}"),
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn everything(_: &Event) -> bool {
    true
}

#[test]
fn the_model_and_the_reference_agree_where_pes_stay() {
    let tally = Comparison { roaming: false, hears: everything }.test(250);
    assert!(tally.verdicts * 100 > tally.events, "too few verdicts to mean anything: {tally:?}");
    assert_eq!(tally.over, 0);
}

#[test]
fn the_model_misses_nothing_where_pes_roam() {
    let tally = Comparison { roaming: true, hears: everything }.test(250);
    assert!(tally.verdicts > tally.over, "{tally:?}");
}

/// Names what the model is not told, and whether that went unnoticed.
fn deaf(hears: Hears) -> Result<Tally, String> {
    Comparison { roaming: false, hears }.search(2000, 0)
}

#[test]
fn a_model_that_misses_a_kind_of_event_is_found_out() {
    let without: [(&str, Hears); 5] = [
        ("store", |e| !matches!(e.what, What::Store { .. })),
        ("tlbi", |e| !matches!(e.what, What::Tlbi(_))),
        (
            "leaf-only tlbi",
            |e| !matches!(e.what, What::Tlbi(op) if matches!(op.target, Target::Va { leaf_only: true, .. })),
        ),
        ("dsb", |e| !matches!(e.what, What::Dsb(_))),
        ("dsb ishst", |e| e.what != What::Dsb(Dsb::Ishst)),
    ];
    for (name, hears) in without {
        assert!(deaf(hears).is_err(), "nobody noticed that the model misses every {name}");
    }
}

/// Sequences on which the two once differed: where a fuzzer begins.
const CORPUS: [&[u64]; 7] = [
    &[762479573184, 312007479168, 971262903190, 677181898966],
    &[614627344360, 564820061600, 1017873286870, 52197799680],
    &[1038808423592, 293716132608, 201898282966, 40760444640],
    &[2094958152, 390594678880, 790416921821, 100195316157, 631204553631],
    &[714343296022, 361718066784, 305041451872, 758882674161, 112938164107, 518740624127],
    &[1089268166077, 386415328476, 638537000030],
    &[223653544, 164330433984, 239752780470, 1052796885888, 77690580104, 424849038720],
];

/// What a fuzzer calls: five bytes are a number, any bytes are a sequence.
fn fuzz(bytes: &[u8]) -> Result<Tally, String> {
    let code = |five: &[u8]| five.iter().fold(0, |code, byte| code << 8 | u64::from(*byte));
    let codes: Vec<u64> = bytes.chunks(5).map(code).collect();
    let [stay, roam] = [false, true].map(|roaming| Comparison { roaming, hears: everything }.run(&codes));
    Ok(stay?.add(roam?))
}

/// Changes the corpus byte by byte and crosswise for `TLBSAN_FUZZ_SECONDS`, and a fixed number of times without it.
#[test]
fn sequences_near_those_that_once_differed_agree() {
    let bytes = |codes: &[u64]| codes.iter().flat_map(|code| code.to_be_bytes()[3..].to_vec()).collect::<Vec<u8>>();
    let corpus: Vec<Vec<u8>> = CORPUS.iter().map(|codes| bytes(codes)).collect();
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
        let mut input = corpus[round % corpus.len()].clone();
        if round >= corpus.len() {
            for _ in 0..=random(3) {
                let other = &corpus[random(corpus.len())];
                let at = random(input.len() / 5) * 5;
                input.splice(at..at, other[random(other.len() / 5) * 5..].iter().copied());
                let at = random(input.len());
                input[at] = random(256) as u8;
            }
        }
        if let Err(text) = fuzz(&input) {
            panic!("\n{text}");
        }
        round += 1;
    }
}
