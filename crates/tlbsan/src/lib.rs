//! What an aarch64 TLB may hold, and when that becomes an error.
//!
//! A kernel changes a table entry; until the right invalidation has completed, any PE may go on using the old one. Real
//! TLBs and emulators forget by chance and so hide the bugs; this model forgets only what the architecture obliges it to.
//! It is told what happened ([`event`]) and keeps
//!
//! - [`machine`]: what each PE has in its registers, and which root it translates through;
//! - [`shadow`]: the tables reachable from every root that some PE may have cached entries of;
//! - [`residue`]: the *residues*: entries that are gone from memory and may still be in a TLB or walk cache of some PE, until
//!   a covering TLBI, ordered after the store, has completed there;
//! - [`rules`]: what must not happen while a residue lives, one file a rule;
//! - [`report`]: the story of a violation.
//!
//! [`sim`] is a small machine that produces the same events without an emulator. The descriptor decoder is the model's
//! own: a referee does not share the mistakes of what it judges.
//!
//! So far the model knows the EL1&0 regime, stage 1, with the 4 KiB granule; other regimes and granules draw a notice.

pub mod descriptor;
pub mod event;
pub mod machine;
pub mod model;
pub mod report;
pub mod residue;
pub mod rules;
pub mod shadow;
pub mod sim;

mod case;

pub use event::{AccessKind, Event, IdRegister, Sysreg, What, World};
pub use model::{Config, Model};
pub use report::Record;
pub use tlbsan_hint::{Cause, Hint, Kind};
