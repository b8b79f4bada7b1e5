#![no_std]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attributes;
pub mod descriptor;
pub mod edit;
pub mod error;
pub mod gather;
pub mod memory;
pub mod record;
pub mod space;
pub mod walk;

mod sync;

#[cfg(feature = "fault-injection")]
pub mod fault;

pub use attributes::Attributes;
pub use descriptor::Descriptor;
pub use edit::Edit;
pub use error::Error;
pub use gather::Released;
pub use memory::{FrameAllocator, TableMemory};
pub use record::{Census, Remedy};
pub use space::{AddressSpace, Mapping};
