#![no_std]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod addr;
pub mod barrier;
pub mod errata;
pub mod features;
pub mod flush;
pub mod granule;
pub mod issue;
pub mod op;
pub mod plan;
pub mod request;

pub use addr::{Asid, Ipa, IpaRange, PhysAddr, RangeError, VaRange, VirtAddr};
pub use barrier::Dsb;
pub use errata::Errata;
pub use features::{Features, IdRegisters};
pub use flush::{Pending, Pinned, Tlb};
pub use granule::{Granule, Level};
#[cfg(target_arch = "aarch64")]
pub use issue::Hardware;
pub use issue::{Instruction, Issue, Recorder};
pub use op::{Form, Mnemonic, Op, Pages, Regime, Scope, Target};
pub use plan::plan;
pub use request::{Depth, Extent, Invalidation, RequestError, Stage2, Stage2Extent};
