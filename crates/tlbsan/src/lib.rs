//! What an aarch64 TLB may hold.

pub mod event;
pub mod model;
pub mod report;

pub use event::{Event, Sysreg, What, World};
pub use model::{Config, Model};
pub use report::Record;
