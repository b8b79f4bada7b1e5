//! A sequence of events, given to the model and to the reference: do they give the same verdicts after every one? For tests
//! and for a fuzzer alike.
#![allow(unreachable_pub, dead_code, reason = "each user takes its part")]

#[path = "../reference/mod.rs"]
pub mod reference;
#[path = "../universe/mod.rs"]
pub mod universe;

use reference::{Reference, Seen, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use tlbsan::{Cause, Config, Event, Kind, Model, Record, Sysreg, What};
use universe::{Act, PES, Ram, Setting, Step, Universe, decode};

/// Whether the model is told of an event.
pub type Hears = fn(&Event) -> bool;

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

/// Every kind of verdict.
pub const KINDS: [Kind; 6] =
    [Kind::Remade, Kind::Reused, Kind::LiveChange, Kind::Asid, Kind::StaleAccess, Kind::Claimed];

/// What a comparison has come across.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub events: u64,
    pub verdicts: u64,
    /// Of these, of each kind in `KINDS`.
    pub of_kind: [u64; KINDS.len()],
    /// Verdicts whose cause the rules leave open.
    pub open_causes: u64,
    /// Verdicts of the model alone, on account of a PE that had left a context.
    pub over: u64,
}

impl Tally {
    pub fn add(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            verdicts: self.verdicts + other.verdicts,
            of_kind: std::array::from_fn(|kind| self.of_kind[kind] + other.of_kind[kind]),
            open_causes: self.open_causes + other.open_causes,
            over: self.over + other.over,
        }
    }
}

/// What is compared, and how.
#[derive(Clone, Copy)]
pub struct Comparison {
    /// Whether PEs change their address spaces.
    ///
    /// A PE that has left a context holds what it held then (R3). The model does not follow entries but contexts: it takes
    /// the PE to hold whatever the tables hold until the ASID is invalidated, and thus errs on the side of a verdict. So,
    /// where PEs roam, the model may say more than the reference, of PEs that have left something; never less.
    pub roaming: bool,
    /// Whether the model finds all of it in a guest: EL1&0 under a stage 2 that leaves everything in its place. The reference is not
    /// told of that: verdicts about stage 1 must be the same.
    pub nested: bool,
    /// What the model is told.
    pub hears: Hears,
}

/// Where the root of that stage 2 lies.
const STAGE_2: u64 = 1 << 46;

impl Comparison {
    /// Says how the two differ on a sequence, if they do. The first number is that of the setting.
    pub fn run(self, codes: &[u64]) -> Result<Tally, String> {
        let (setting, codes) = codes.split_first().unwrap_or((&0, &[]));
        let setting = if self.nested { Setting::in_a_guest(*setting) } else { Setting::new(*setting) };
        let mut universe = Universe::new(setting);
        let setting = universe.setting;
        let fast = Fast { model: Model::new(Config { tell_all: true, ..Config::default() }), hears: self.hears };
        let slow = Reference::new(PES);
        let (roaming, heal) = (self.roaming, universe.heal());
        let mut both = Both { roaming, left: BTreeSet::new(), heal, slow, fast, tally: Tally::default() };
        if self.nested {
            // 40 bits from level 1, a block of 1 GiB, a VMID.
            universe.ram.write(STAGE_2, 0x7fd);
            let registers =
                [(Sysreg::VtcrEl2, 24 | 1 << 6), (Sysreg::VttbrEl2, STAGE_2 | 5 << 48), (Sysreg::HcrEl2, 1)];
            for (pe, (register, value)) in (0..PES).flat_map(|pe| registers.map(|it| (pe, it))) {
                both.fast.event(&mut universe.ram, &Event { pe, pc: 0, what: What::Sysreg(register, value) });
            }
        }
        let prologue = universe.prologue();
        let steps: Vec<Step> = codes.iter().flat_map(|code| decode(*code, self.roaming, &setting)).collect();
        // Of what is unknown after a reset, and where two stages together lead, a guest says less.
        let told = |step: &&Step| !self.nested || !matches!(step.act, Act::Reset | Act::Access { .. });
        for (number, step) in prologue.iter().chain(&steps).filter(told).enumerate() {
            let mut outcome = Ok(());
            universe.perform(step, |ram, event| {
                if outcome.is_ok() {
                    outcome = both.event_and_heal(ram, event);
                }
            });
            if let Err(mut text) = outcome {
                let _ = writeln!(text, "  {setting:?}, after");
                for step in prologue.iter().chain(&steps).filter(told).take(number + 1).skip(prologue.len()) {
                    let _ = writeln!(text, "    {}", setting.describe(step));
                }
                return Err(text);
            }
            if number + 1 == prologue.len() {
                both.left.clear();
            }
        }
        Ok(both.tally)
    }
}

/// Both of them, and what they have come across.
struct Both {
    roaming: bool,
    /// PEs whose registers were written since everything was invalidated.
    left: BTreeSet<usize>,
    heal: [What; 5],
    slow: Reference,
    fast: Fast,
    tally: Tally,
}

impl Both {
    /// Hands an event to both. After a verdict everything that is stale goes, and the sequence goes on: what was told once is
    /// told no more.
    fn event_and_heal(&mut self, ram: &mut Ram, event: &Event) -> Result<(), String> {
        let mut told = self.event(ram, event)?;
        while std::mem::take(&mut told) {
            self.slow.forgive();
            for what in self.heal {
                for pe in 0..PES {
                    // Registers take effect as well, and may be wrong.
                    told |= self.event(ram, &Event { pe, pc: 0, what })?;
                }
            }
            self.slow.forgive();
            self.left.clear();
        }
        Ok(())
    }

    /// Hands an event to both. Whether there was a verdict.
    fn event(&mut self, ram: &mut Ram, event: &Event) -> Result<bool, String> {
        self.tally.events += 1;
        if matches!(event.what, What::Sysreg(..) | What::Reset) {
            self.left.insert(event.pe);
        }
        let (expected, found) = (self.slow.event(*event, &|pa| ram.read(pa)), self.fast.event(ram, event));
        if self.agree(&expected, &found) {
            return Ok(!expected.is_empty() || !found.is_empty());
        }
        Err(format!("  reference: {expected:x?}\n  model:     {found:x?}\n"))
    }

    /// Whether the verdicts about one event are the same.
    ///
    /// The reference names every entry and all that may hold it; the model leaves out what hangs on an entry it has named, for
    /// the PEs named there.
    fn agree(&mut self, expected: &[Seen], found: &Verdicts) -> bool {
        let mut named: BTreeMap<Told, BTreeSet<usize>> = BTreeMap::new();
        found.iter().for_each(|it| named.entry(it.0).or_default().extend(&it.2));
        let expected: BTreeMap<Told, &Seen> = expected.iter().map(|seen| (seen.told, seen)).collect();
        let known = named.keys().all(|it| expected.contains_key(it));
        // More than the reference says.
        let none = BTreeSet::new();
        let more = |(told, pes): (&Told, &BTreeSet<usize>)| {
            let seen = expected.get(told).map_or(&none, |seen| &seen.pes);
            pes.iter().all(|pe| seen.contains(pe) || self.roaming && self.left.contains(pe))
        };
        let same = |(told, seen): (&Told, &&Seen)| {
            let pes = named.get(told).cloned().unwrap_or_default();
            // Of the slots in which two roots differ the first is named.
            let earlier = |above: &Told| above.1 <= told.1 && above.1 >> 63 == told.1 >> 63 && above.3 <= told.3;
            let stands_for = |above: &Told| {
                above.3 < told.3 && contains(above, told)
                    || (above.0, told.0) == (Kind::Asid, Kind::Asid) && earlier(above)
            };
            let above = named.iter().filter(|(above, _)| stands_for(above));
            let all: BTreeSet<usize> = above.flat_map(|(_, pes)| pes).chain(&pes).copied().collect();
            let because = |cause| pes.is_empty() || found.iter().any(|it| it.0 == *told && it.1 == cause);
            // Of PEs that have left, the model may take more operations to have fallen short; what it takes them to hold still explains
            // where they get to.
            let has_left = self.roaming && seen.pes.union(&pes).any(|pe| self.left.contains(pe));
            let is_explained = has_left && seen.told.0 == Kind::StaleAccess;
            (is_explained || all.is_superset(&seen.pes)) && (has_left || seen.cause.is_none_or(because))
        };
        self.tally.verdicts += expected.len() as u64;
        for (kind, count) in KINDS.iter().zip(&mut self.tally.of_kind) {
            *count += expected.keys().filter(|told| told.0 == *kind).count() as u64;
        }
        self.tally.open_causes += expected.values().filter(|seen| seen.cause.is_none()).count() as u64;
        self.tally.over += u64::from(!known);
        named.iter().all(more) && expected.iter().all(same)
    }
}

/// Whether one verdict is about all that the other is about.
fn contains(above: &Told, it: &Told) -> bool {
    above.0 == it.0 && above.1 <= it.1 && it.1 + (it.2 - 1) <= above.1 + (above.2 - 1)
}

/// The model is told of everything.
pub fn everything(_: &Event) -> bool {
    true
}

/// What a fuzzer calls: six bytes are a number, any bytes are a sequence.
pub fn fuzz(bytes: &[u8]) -> Result<Tally, String> {
    let code = |six: &[u8]| six.iter().fold(0, |code, byte| code << 8 | u64::from(*byte));
    let codes: Vec<u64> = bytes.chunks(6).map(code).collect();
    let run = |(roaming, nested)| Comparison { roaming, nested, hears: everything }.run(&codes);
    let [stay, roam, guest] = [(false, false), (true, false), (false, true)].map(run);
    Ok(stay?.add(roam?).add(guest?))
}
