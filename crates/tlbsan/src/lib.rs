//! What an aarch64 TLB may hold, and when that becomes an error.
//!
//! A kernel changes a table entry; until the right invalidation has completed, any PE may go on using the old one. Real
//! TLBs and emulators forget by chance and so hide the bugs; this model forgets only what the architecture obliges it to.
//! It is told what happened ([`event`]) and keeps
//!
//! - [`machine`]: what each PE has in its registers, and which roots it translates through;
//! - [`geometry`], [`descriptor`], [`change`]: how tables are walked, what an entry says, what a change of it asks for;
//! - [`shadow`]: the tables reachable from every root that some PE may have cached entries of;
//! - [`residue`]: the *residues*: entries that are gone from memory and may still be in a TLB or walk cache of some PE, until
//!   a covering TLBI ([`effect`]), ordered after the store, has completed there;
//! - [`rules`]: what must not happen while a residue lives, one file a rule;
//! - [`report`]: the story of a violation.
//!
//! [`trace`] writes all of this down and plays it back. [`sim`] is a small machine that produces the same events
//! without an emulator. The descriptor decoder is the model's own: a referee does not share the mistakes of what it
//! judges.
//!
//! EL1&0, EL2 and EL2&0 with every granule, and stage 2, are followed. What is not, and why, is in docs/rules.md.

pub mod blind;
pub mod change;
pub mod descriptor;
pub mod effect;
pub mod event;
pub mod geometry;
pub mod hash;
pub mod machine;
pub mod model;
pub mod report;
pub mod residue;
pub mod rules;
pub mod shadow;
pub mod sim;
pub mod trace;
pub mod walk;

mod case;

pub use blind::Blind;
pub use event::{AccessKind, Event, IdRegister, Sysreg, What, World};
pub use model::{Config, Model};
pub use report::Record;
pub use tlbsan_hint::{Cause, Hint, Kind};
