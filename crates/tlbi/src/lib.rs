#![no_std]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod addr;
pub mod barrier;
pub mod features;
pub mod flush;
pub mod granule;
pub mod issue;
pub mod op;
pub mod plan;

pub use addr::{Asid, Ipa, PhysAddr, RangeError, VaRange, VirtAddr};
pub use barrier::Dsb;
pub use features::Features;
pub use flush::{Pending, Pinned, Tlb};
pub use granule::{Granule, Level};
#[cfg(target_arch = "aarch64")]
pub use issue::Hardware;
pub use issue::{Instruction, Issue, Recorder};
pub use op::{Form, Mnemonic, Op, Pages, Regime, Scope, Target};
pub use plan::{Depth, Extent, Invalidation, plan};
