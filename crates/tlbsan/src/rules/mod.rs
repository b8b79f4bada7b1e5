//! What must not happen while a residue lives (R7): one file a rule.
//!
//! A rule finds the residues that a step has made into errors; the model then tells their story and retires them, so that
//! one mistake gives one verdict.

pub mod asid;
pub mod claimed;
pub mod live_change;
pub mod remade;
pub mod reused;
pub mod stale_access;
