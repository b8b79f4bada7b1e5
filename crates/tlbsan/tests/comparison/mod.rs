//! A sequence of events, given to the model and to the reference: do they give the same verdicts after every one? For tests
//! and for a fuzzer alike.
#![allow(unreachable_pub, dead_code, reason = "each user takes its part")]

#[path = "../reference/mod.rs"]
pub mod reference;
#[path = "../universe/mod.rs"]
pub mod universe;

use reference::{Reference, Seen};
use std::collections::BTreeSet;
use std::fmt::Write;
use tlbsan::{Cause, Config, Event, Kind, Model, Record, What};
use universe::{PES, Ram, Step, Universe, decode};

/// Whether the model is told of an event.
pub type Hears = fn(&Event) -> bool;

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
pub struct Tally {
    pub events: u64,
    pub verdicts: u64,
    /// Verdicts whose cause the rules leave open.
    pub open_causes: u64,
    /// Sequences that ended with a verdict of the model alone: on account of a PE that had left a context, or of a table that
    /// was replaced in place before.
    pub over: u64,
    /// Verdicts about what may be a table: the model may have looked its last at it.
    pub let_go: u64,
}

impl Tally {
    pub fn add(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            verdicts: self.verdicts + other.verdicts,
            open_causes: self.open_causes + other.open_causes,
            over: self.over + other.over,
            let_go: self.let_go + other.let_go,
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
pub struct Comparison {
    /// Whether PEs change their address spaces.
    ///
    /// A PE that has left a context holds what it held then (R3). The model does not follow entries but contexts: it takes
    /// the PE to hold whatever the tables hold until the ASID is invalidated, and thus errs on the side of a verdict. So,
    /// where PEs roam, the model may say more than the reference, never less.
    pub roaming: bool,
    /// What the model is told.
    pub hears: Hears,
}

impl Comparison {
    /// Says how the two differ on a sequence, if they do.
    pub fn run(self, codes: &[u64]) -> Result<Tally, String> {
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
                    outcome = self.judge(&slow, &verdicts.0, &verdicts.1, &mut tally);
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

    fn judge(self, slow: &Reference, expected: &[Seen], found: &Verdicts, tally: &mut Tally) -> Compared {
        let told = |v: &Seen| (v.kind, v.start, v.size, v.level);
        let all: BTreeSet<Told> = expected.iter().map(told).collect();
        let found_all: BTreeSet<Told> = found.iter().map(|v| v.0).collect();
        // A table that was replaced or put to use, and so got its verdict, is looked at no more: what others store to it
        // orders nothing for the model.
        let unseen = |f: &(Told, Cause, Vec<usize>)| f.1 == Cause::NotOrdered && tally.let_go > 0;
        let (mut over, mut open_causes) = (false, 0);
        for e in expected {
            let same: Vec<_> = found.iter().filter(|f| f.0 == told(e)).collect();
            let pes: BTreeSet<usize> = same.iter().flat_map(|f| f.2.iter().copied()).collect();
            if same.is_empty() {
                continue; // compared below
            }
            let more = same.iter().all(|f| unseen(f)) && pes != e.pes;
            if !(pes == e.pes || (self.roaming || more) && pes.is_superset(&e.pes)) {
                return Compared::Different;
            }
            over |= more;
            open_causes += u64::from(e.cause.is_none());
            if e.cause.is_some_and(|cause| !self.roaming && !more && !same.iter().any(|f| f.1 == cause)) {
                return Compared::Different;
            }
        }
        // A verdict about a table entry takes those about what it leads to along.
        let contains = |f: &Told, e: &Told| f.0 == e.0 && f.1 <= e.1 && e.1 + (e.2 - 1) <= f.1 + (f.2 - 1);
        let covered = all.iter().all(|e| found_all.iter().any(|f| contains(f, e)));
        // Or it does not, where what it leads to is just as wrong by itself.
        let below = |f: &Told| all.contains(f) || all.iter().any(|e| e.3 < f.3 && contains(e, f));
        let equal = all.is_subset(&found_all) && found_all.iter().all(below);
        // What was cleared and put back below a stale table has its own verdict, and in the reference that of the table.
        let had = |f: &Told| slow.has_judged(f.1, f.3);
        let may = |f: &(Told, Cause, Vec<usize>)| all.contains(&f.0) || unseen(f) || had(&f.0);
        let replaced = all.is_subset(&found_all) && found.iter().all(may);
        tally.open_causes += open_causes;
        tally.let_go += found.iter().filter(|f| f.0.3 < 3).count() as u64;
        match (equal && !over, self.roaming && covered || replaced) {
            (true, _) => Compared::Equal,
            (false, true) => Compared::Over,
            (false, false) => Compared::Different,
        }
    }
}

/// The model is told of everything.
pub fn everything(_: &Event) -> bool {
    true
}

/// What a fuzzer calls: five bytes are a number, any bytes are a sequence.
pub fn fuzz(bytes: &[u8]) -> Result<Tally, String> {
    let code = |five: &[u8]| five.iter().fold(0, |code, byte| code << 8 | u64::from(*byte));
    let codes: Vec<u64> = bytes.chunks(5).map(code).collect();
    let [stay, roam] = [false, true].map(|roaming| Comparison { roaming, hears: everything }.run(&codes));
    Ok(stay?.add(roam?))
}
