#![no_std]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attributes;
pub mod cursor;
pub mod descriptor;
pub mod edit;
pub mod error;
pub mod gather;
pub mod geometry;
pub mod memory;
pub mod record;
pub mod space;
pub mod walk;

mod exclusive;
mod grace;
mod sync;

#[cfg(feature = "fault-injection")]
pub mod fault;

pub use attributes::{AttrIndex, Attributes, Hierarchical, Mair, MemoryType, Shareability};
pub use cursor::Cursor;
pub use descriptor::{Descriptor, Entry};
pub use edit::Edit;
pub use error::Error;
pub use gather::Released;
pub use geometry::{Format, Geometry, K4, K4Wide, K16, K16Wide, K64, Lower, Upper};
pub use memory::{FrameAllocator, TableMemory};
pub use record::{Census, Remedy};
pub use space::{AddressSpace, Mapping};
pub use walk::{Next, Pages, Visit, Visitor};
