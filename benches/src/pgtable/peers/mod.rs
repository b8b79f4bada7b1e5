//! The peers, each used as its manual says, on the same frames.

pub(crate) mod aarch64_paging;
pub(crate) mod generic;
pub(crate) mod multiarch;
mod pte;
pub(crate) mod x86;
