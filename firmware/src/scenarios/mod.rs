//! The problems that the project re-enacts, one room each: the correct forms first, then each named fault.

use alloc::string::String;

use tlbsan_hint::Expected;

pub mod walk_cache;

/// Who can judge a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Its own cores see the fault: any machine that keeps stale leaves shows it.
    Cores,
    /// Only the checker: this emulator has no walk caches, ignores ASIDs, and completes a TLBI at once.
    Tlbsan,
}

/// One form of a scenario.
pub struct Form {
    /// `scenario/correct...` or `scenario/fault`.
    pub name: &'static str,
    /// Who can judge it.
    pub judge: Judge,
    /// Cores that it takes to show what it is about.
    pub cores: usize,
    /// The verdicts that the checker must reach, no more and no fewer.
    pub expected: &'static [Expected],
    /// Plays it.
    pub play: fn(&Billing) -> Result<(), String>,
}

/// How a form is to be played.
pub struct Billing {
    /// The ASID of its space.
    pub asid: u16,
    /// It is known to be faulty, and says whether its cores saw the fault as they should; otherwise it is judged like the
    /// correct form.
    pub as_named: bool,
}

impl Form {
    /// The scenario's name.
    pub fn scenario(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(scenario, _)| scenario)
    }

    /// Whether it is a correct form.
    pub fn is_correct(&self) -> bool {
        self.expected.is_empty()
    }
}

/// All of them, in the order they run.
pub const ALL: &[&[Form]] = &[walk_cache::FORMS];
