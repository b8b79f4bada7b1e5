//! The problems that the project re-enacts, one room each: the correct forms first, then each named fault.

use alloc::string::String;

use tlbi::{Features, Granule};
use tlbsan_hint::Expected;

use crate::{mmu, platform::bootargs, smp, stage::Block};

pub mod edits;
pub mod stress;
pub mod walk_cache;

/// Who can judge a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Its own cores see the fault: any machine that keeps stale leaves shows it.
    Cores,
    /// Only the checker: this emulator has no walk caches, ignores ASIDs, and completes a TLBI at once.
    Tlbsan,
}

/// What a form needs of the machine, or else it would hang or is no fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is no fault on one core.
    TwoCores,
    /// Two changes are open at once, and remedy d has one wait for the other, which takes a second core.
    NoWaitAlone,
    /// It is no fault with FEAT_ETS2.
    NoEts2,
    /// The CPU translates with pages of this size.
    Granule(Granule),
    /// So many adjacent bytes of RAM that nobody else uses.
    Spare(u64),
}

impl Need {
    /// Why it is not met, if it is not.
    pub fn lacks(self) -> Option<&'static str> {
        let alone = smp::core_count() == 1;
        match self {
            Self::TwoCores if alone => Some("no fault on one core"),
            Self::NoWaitAlone if alone && bootargs::get("remedy") == Some("d") => {
                Some("remedy d waits for another core")
            }
            Self::NoEts2 if Features::detect().ets2 => Some("no fault with FEAT_ETS2"),
            Self::Granule(Granule::K16) if !mmu::has_granule(Granule::K16) => Some("no 16 KiB pages on this CPU"),
            Self::Granule(Granule::K64) if !mmu::has_granule(Granule::K64) => Some("no 64 KiB pages on this CPU"),
            Self::Spare(size) if Block::new(size).is_none() => Some("not enough RAM for such a block"),
            _ => None,
        }
    }
}

/// One form of a scenario.
pub struct Form {
    /// `scenario/correct...` or `scenario/fault`.
    pub name: &'static str,
    /// Who can judge it.
    pub judge: Judge,
    /// Where it is played.
    pub needs: &'static [Need],
    /// The verdicts that the checker must reach, no more and no fewer.
    pub expected: &'static [Expected],
    /// Those on a CPU with FEAT_BBM 2 or more, where they are others.
    pub expected_bbm2: Option<&'static [Expected]>,
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

    /// The verdicts that the checker must reach on this CPU.
    pub fn verdicts(&self) -> &'static [Expected] {
        self.expected_bbm2.filter(|_| Features::detect().bbm >= 2).unwrap_or(self.expected)
    }

    /// Whether it is a correct form.
    pub fn is_correct(&self) -> bool {
        self.expected.is_empty()
    }
}

/// Forms that run as long as one likes, and only by name.
pub const BY_NAME: &[&[Form]] = &[stress::FORMS];

/// All others, in the order they run.
pub const ALL: &[&[Form]] = &[walk_cache::FORMS, edits::FORMS, edits::LINEAR_MAP];
