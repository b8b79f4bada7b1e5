//! The problems that the project re-enacts, one file each: the correct form first, then each named fault.

use alloc::string::String;

use tlbsan_hint::Expected;

pub mod walk_cache;

/// Who can judge a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Its own cores see the fault: any machine that keeps stale leaves shows it.
    Cores,
    /// Only the checker: this emulator has no walk caches.
    Tlbsan,
}

/// One form of a scenario.
pub struct Form {
    /// `scenario/correct` or `scenario/fault`.
    pub name: &'static str,
    /// Who can judge it.
    pub judge: Judge,
    /// The verdicts that the checker must reach, no more and no fewer.
    pub expected: &'static [Expected],
    /// Plays it under `asid`. `as_named`: it is known to be faulty and says whether its cores saw the fault as they should;
    /// otherwise it is judged like the correct form.
    pub play: fn(asid: u16, as_named: bool) -> Result<(), String>,
}

impl Form {
    /// The scenario's name.
    pub fn scenario(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(scenario, _)| scenario)
    }

    /// Whether it is the correct form.
    pub fn is_correct(&self) -> bool {
        self.name.ends_with("/correct")
    }
}

/// All of them, in the order they run.
pub const ALL: &[&[Form]] = &[walk_cache::FORMS];
