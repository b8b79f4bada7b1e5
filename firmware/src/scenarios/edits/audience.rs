//! The other cores: they read through the space all the while it is edited, and check every word.
//!
//! What a reader may see is the contract of a live edit:
//!
//! - the word that belongs to the address, whichever frame it is in at the moment. Frames that leave the space are overwritten as soon
//!   as they are given back, so a word from one of them is a wrong one;
//! - a translation fault, but only while an edit is under way that breaks the address (break-before-make) or maps or unmaps it.
//!   A kernel's fault handler finds the address mapped, or about to be, and has the access done again; so does the next round here;
//! - an access flag fault where pages are aged: the reader sets the flag, as the handler would.
//!
//! The last of them also writes where it is asked to, and is told the outcome that a handler would come to.
//!
//! Each place that is read has a state with a version, which the editing core changes before and after it edits. A read counts strictly
//! if the state was the same before and after it. One core alone reads between its edits.

use alloc::{format, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use pgtable::{Edit, Error, Geometry, Released, TableMemory};
use tlbi::{Asid, PhysAddr, VaRange, VirtAddr};
use tlbsan_hint as hint;

use crate::{
    exceptions::{Syndrome, probe},
    platform::MAX_CORES,
    stage::{Linear, OnePe, Pool, Stage},
    sync::{rest, wait_until},
    tamper::Tampered,
};

/// The word that belongs to the address `va`.
pub const fn mark(va: u64) -> u64 {
    va ^ 0x6d61_726b_0000_0000
}

/// What frames hold that have left the space.
const POISON: u64 = 0x6761_726b_6167_6500;

/// What a reader finds at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its word.
    Word = 0,
    /// A fault.
    Hole = 1,
    /// One or the other: somebody is at it.
    Either = 2,
}

impl Found {
    fn of(state: u64) -> Self {
        match state & 3 {
            0 => Self::Word,
            1 => Self::Hole,
            _ => Self::Either,
        }
    }
}

/// How often a core reads everything between two rests. Without rests a host with fewer CPUs hardly comes to the edits.
const ROUNDS: usize = 16;

/// An address that is read all the time.
struct Place {
    va: u64,
    /// [`Found`] in the lowest two bits; above them a number that grows with each change.
    state: AtomicU64,
}

impl Place {
    fn turn(&self, found: Found) {
        let version = (self.state.load(Ordering::Relaxed) >> 2) + 1;
        self.state.store(version << 2 | found as u64, Ordering::Release);
    }

    fn found(&self) -> Found {
        Found::of(self.state.load(Ordering::Relaxed))
    }
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is done.
    Yes = 2,
    /// Nothing is mapped there at the moment.
    Broken = 3,
    /// The mapping does not permit it.
    Refused = 4,
}

/// A write that the last core is asked for.
struct Errand {
    va: AtomicU64,
    word: AtomicU64,
    /// 0: none; [`Self::ASKED`]; or what came of it.
    state: AtomicU64,
}

impl Errand {
    const ASKED: u64 = 1;
}

/// Who reads what.
pub struct Audience {
    places: Vec<Place>,
    /// How often each core has read every place.
    rounds: [AtomicU64; MAX_CORES],
    errand: Errand,
    over: AtomicBool,
}

impl Audience {
    /// These addresses will be read; `found` is there at first.
    pub fn new(places: &[u64], found: Found) -> Self {
        let place = |va: &u64| Place { va: *va, state: AtomicU64::new(found as u64) };
        Self {
            places: places.iter().map(place).collect(),
            rounds: [const { AtomicU64::new(0) }; MAX_CORES],
            errand: Errand { va: AtomicU64::new(0), word: AtomicU64::new(0), state: AtomicU64::new(0) },
            over: AtomicBool::new(false),
        }
    }

    /// Reads on this core until the show is over.
    pub fn attend<G: Geometry>(&self, stage: &Stage<'_, G>, core: usize) {
        while !self.over.load(Ordering::Acquire) {
            for _ in 0..ROUNDS {
                self.round(stage, core);
                self.rounds[core].fetch_add(1, Ordering::Release);
            }
            if core == stage.cores - 1 && self.errand.state.load(Ordering::Acquire) == Errand::ASKED {
                let (va, word) = (self.errand.va.load(Ordering::Relaxed), self.errand.word.load(Ordering::Relaxed));
                self.errand.state.store(write(stage, core, va, word) as u64, Ordering::Release);
            }
            rest();
        }
    }

    fn round<G: Geometry>(&self, stage: &Stage<'_, G>, core: usize) {
        for place in &self.places {
            let before = place.state.load(Ordering::Acquire);
            // SAFETY: aligned; the spaces of cases map their own frames only.
            let seen = unsafe { probe::read(place.va) };
            // A DMB: the state is read after the word.
            fence(Ordering::Acquire);
            let after = place.state.load(Ordering::Relaxed);
            let expected = if before == after { Found::of(before) } else { Found::Either };
            self.judge(stage, core, place.va, seen, expected);
        }
    }

    fn judge<G: Geometry>(
        &self,
        stage: &Stage<'_, G>,
        core: usize,
        va: u64,
        seen: Result<u64, Syndrome>,
        expected: Found,
    ) {
        match (seen, expected) {
            (Ok(word), _) if word != mark(va) => {
                stage.fail(format!("core {core} reads {word:#x} at {va:#x}, not {:#x}", mark(va)));
            }
            (Ok(_), Found::Hole) => stage.fail(format!("core {core} reads at {va:#x}, where nothing is mapped")),
            (Ok(_), _) => {}
            (Err(fault), _) if fault.fault_status().is_access_flag() => {
                let touched = touch(stage, va, false);
                // Gone meanwhile: the next round finds that.
                if !matches!(touched, Ok(true) | Err(Error::NotMapped { .. })) {
                    stage.fail(format!("core {core} cannot touch {va:#x}: {touched:?}"));
                }
            }
            (Err(fault), Found::Hole | Found::Either) if fault.fault_status().is_translation() => {}
            (Err(fault), _) => stage.fail(format!("core {core} faults at {va:#x} ({fault}), which nobody breaks")),
        }
    }
}

/// The core that edits, and those who watch.
pub struct Show<'a, 's, G: Geometry> {
    /// Where it is played.
    pub stage: &'a Stage<'s, G>,
    audience: &'a Audience,
}

impl<'a, 's, G: Geometry> Show<'a, 's, G> {
    /// For the core that edits.
    pub fn new(stage: &'a Stage<'s, G>, audience: &'a Audience) -> Self {
        Self { stage, audience }
    }

    /// An edit during which a reader may find `breaks` broken; without, no reader may notice anything. What is at a place afterwards
    /// is what was there before, unless `then` says otherwise; every core reads all of it once more.
    pub fn edit(
        &self,
        what: &str,
        breaks: Option<VaRange>,
        then: &[(VaRange, Found)],
        body: impl FnOnce(&mut Edit<'_, Linear, &'s Pool, Tampered, OnePe, G>) -> Result<(), Error>,
    ) {
        let stage = self.stage;
        let places = &self.audience.places;
        let within = |range: VaRange, place: &Place| range.contains(VirtAddr::new(place.va));
        let after: Vec<Option<Found>> = places
            .iter()
            .map(|place| {
                let last = then.iter().rev().find(|(range, _)| within(*range, place)).map(|(_, found)| *found);
                last.or_else(|| breaks.filter(|range| within(*range, place)).map(|_| place.found()))
            })
            .collect();
        let changing = || places.iter().zip(&after).filter_map(|(place, found)| found.map(|found| (place, found)));

        changing().for_each(|(place, _)| place.turn(Found::Either));
        let done = stage.space.change(&stage.tlb, &OnePe, &mut |released| self.poison(released), body);
        stage.expect(what, done);
        let everything = G::EVERYTHING;
        let asid = stage.space.asid().map_or(0, Asid::number);
        hint::flush_claimed(everything.start().bits(), everything.size(), asid);
        changing().for_each(|(place, found)| place.turn(found));
        self.look();
    }

    /// Has the last core write, as often as it takes a handler to say what came of it.
    pub fn write(&self, va: u64, word: u64) -> Written {
        let stage = self.stage;
        if stage.cores == 1 {
            return write(stage, 0, va, word);
        }
        let errand = &self.audience.errand;
        errand.va.store(va, Ordering::Relaxed);
        errand.word.store(word, Ordering::Relaxed);
        errand.state.store(Errand::ASKED, Ordering::Release);
        wait_until(|| errand.state.load(Ordering::Acquire) != Errand::ASKED);
        match errand.state.load(Ordering::Relaxed) {
            2 => Written::Yes,
            3 => Written::Broken,
            _ => Written::Refused,
        }
    }

    /// Has the last core write, which must end so.
    pub fn expect_write(&self, va: u64, word: u64, expected: Written) {
        let written = self.write(va, word);
        if written != expected {
            self.stage.fail(format!("a write at {va:#x}: {written:?}, not {expected:?}"));
        }
    }

    /// Every core reads every place once more.
    pub fn look(&self) {
        let (stage, audience) = (self.stage, self.audience);
        if stage.cores == 1 {
            audience.round(stage, 0);
        }
        for core in 1..stage.cores {
            // The round that is under way may have begun before.
            let enough = audience.rounds[core].load(Ordering::Acquire) + 2;
            wait_until(|| audience.rounds[core].load(Ordering::Acquire) >= enough);
        }
    }

    /// The words of all places in `va..va + size` go into the memory at `frame` that will be mapped there.
    pub fn fill(&self, va: u64, size: u64, frame: PhysAddr) {
        for place in self.audience.places.iter().filter(|place| (va..va + size).contains(&place.va)) {
            Linear.store(PhysAddr::new(frame.bits() + (place.va - va)), mark(place.va));
        }
    }

    /// A page frame of the pool with the word of the place `va`.
    pub fn page_for(&self, va: u64) -> PhysAddr {
        self.stage.frame(mark(va))
    }

    /// Whether the page or block at `va` is what it should be.
    pub fn expect_leaf(&self, what: &str, va: u64, level: tlbi::Level, contiguous: bool) {
        let found = self.stage.space.lookup(VirtAddr::new(va));
        if !found.is_some_and(|leaf| leaf.level() == level && leaf.is_contiguous() == contiguous) {
            self.stage.fail(format!("{what}: {va:#x} is {found:?}"));
        }
    }

    /// The frame has left the space: nobody may see this.
    fn poison(&self, released: Released) {
        for page in (0..released.size).step_by(G::PAGE as usize) {
            Linear.store(PhysAddr::new(released.frame.bits() + page), POISON);
        }
        self.stage.pool.take_back(released.frame);
    }

    /// The others may go home.
    pub fn end(&self) {
        self.audience.over.store(true, Ordering::Release);
    }
}

fn touch<G: Geometry>(stage: &Stage<'_, G>, va: u64, write: bool) -> Result<bool, Error> {
    stage.space.change(&stage.tlb, &OnePe, &mut |_| (), |edit| edit.touch(VirtAddr::new(va), write))
}

/// Writes on this core; sets the access flag and dirty state that it takes.
fn write<G: Geometry>(stage: &Stage<'_, G>, core: usize, va: u64, word: u64) -> Written {
    loop {
        // SAFETY: aligned; the spaces of cases map their own frames only.
        let Err(fault) = (unsafe { probe::write(va, word) }) else { return Written::Yes };
        let status = fault.fault_status();
        if status.is_translation() {
            return Written::Broken;
        }
        if !status.is_access_flag() && !status.is_permission() {
            stage.fail(format!("core {core} cannot write at {va:#x} ({fault})"));
            return Written::Refused;
        }
        match touch(stage, va, true) {
            Ok(true) => {}
            Ok(false) => return Written::Refused,
            Err(_) => return Written::Broken,
        }
    }
}
