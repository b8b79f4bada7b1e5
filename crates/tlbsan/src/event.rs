//! What the model is told: one event at a time, on which PE, at which PC.
//!
//! Events come in each PE's program order. A store is reported after it happened; its value is read from memory, not
//! carried in the event, because what sources report of a store (failed exclusives, atomics, pairs) is not what landed.
//! Loads and stores matter where a page is watched ([`World::watch`]); accesses by virtual address ([`What::Access`]) are
//! an extra that some sources have, as many or as few of them as they like.
//!
//! What a source cannot tell may be left out: a PE is taken to be at EL1, without EL2 and without any optional feature,
//! until it says otherwise.

use tlbi::{Dsb, Op};
use tlbsan_hint::Hint;

/// A system register that the model follows.
///
/// The register meant, not the name it was written under: at EL2 with HCR_EL2.E2H, `MSR TTBR0_EL1` writes `Ttbr0El2` and
/// `MSR TTBR0_EL12` writes `Ttbr0El1`. Whoever makes the event resolves that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the architecture's")]
pub enum Sysreg {
    Ttbr0El1,
    Ttbr1El1,
    TcrEl1,
    SctlrEl1,
    MairEl1,
    Ttbr0El2,
    Ttbr1El2,
    TcrEl2,
    SctlrEl2,
    MairEl2,
    HcrEl2,
    VttbrEl2,
    VtcrEl2,
}

impl Sysreg {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::Ttbr0El1,
        Self::Ttbr1El1,
        Self::TcrEl1,
        Self::SctlrEl1,
        Self::MairEl1,
        Self::Ttbr0El2,
        Self::Ttbr1El2,
        Self::TcrEl2,
        Self::SctlrEl2,
        Self::MairEl2,
        Self::HcrEl2,
        Self::VttbrEl2,
        Self::VtcrEl2,
    ];
}

/// An ID register that says what a PE can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdRegister {
    /// ID_AA64MMFR0_EL1: size of ASIDs.
    Mmfr0,
    /// ID_AA64MMFR1_EL1: FEAT_ETS2, FEAT_HAFDBS.
    Mmfr1,
    /// ID_AA64MMFR2_EL1: FEAT_BBM, FEAT_CNP.
    Mmfr2,
    /// ID_AA64ISAR0_EL1: FEAT_TLBIRANGE.
    Isar0,
}

/// What an access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessKind {
    /// Data is read.
    Load,
    /// Data is written, or read and written by one instruction.
    Store,
    /// An instruction is fetched.
    Fetch,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A store to physical memory, or an atomic that may have stored, has been performed.
    Store {
        /// Physical address of the first byte.
        pa: u64,
        /// Bytes.
        size: u64,
    },
    /// Physical memory has been zeroed by DC ZVA.
    Zero {
        /// Physical address of the block.
        pa: u64,
        /// Bytes.
        size: u64,
    },
    /// A load from physical memory has been performed.
    Load {
        /// Physical address of the first byte.
        pa: u64,
        /// Bytes.
        size: u64,
    },
    /// An access by virtual address has been performed; the physical address is the one that the source's TLB gave.
    ///
    /// Apart from [`What::Store`] and [`What::Load`]: a source may tell both of one instruction, the access first.
    Access {
        /// Virtual address of the first byte, with whatever tag it has.
        va: u64,
        /// Physical address of the first byte.
        pa: u64,
        /// What for.
        kind: AccessKind,
        /// The exception level whose regime translated it, 0..=3.
        el: u8,
    },
    /// A TLBI is executed, at an exception level where it is defined.
    Tlbi(Op),
    /// A TLBI outside the model is executed: taken as one that removes everything, and said so once.
    UnknownTlbi(u32),
    /// A DSB is executed.
    Dsb(Dsb),
    /// An ISB is executed.
    Isb,
    /// An exception is taken: a context synchronisation event.
    ExceptionEntry,
    /// An exception return is executed: a context synchronisation event.
    Eret,
    /// The PE is at this exception level, 0..=3, from now on. Told after the event that changes it, and only then.
    El(u8),
    /// A system register is written. It takes effect at the next context synchronisation event.
    Sysreg(Sysreg, u64),
    /// What an ID register of this PE holds. Told once, before anything else of the PE matters.
    Id(IdRegister, u64),
    /// A hint is executed.
    Hint(Hint),
    /// The PE comes out of reset, or is switched on by another PE (PSCI CPU_ON): MMU off, TLB contents UNKNOWN.
    ///
    /// Without this event a PE begins with its MMU off and an empty TLB.
    Reset,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The PE, counted from 0.
    pub pe: usize,
    /// Virtual address of the instruction.
    pub pc: u64,
    /// What happened.
    pub what: What,
}

/// What the model asks of the world it watches.
pub trait World {
    /// The 8 bytes at `pa`, a multiple of 8, as they are in memory now; `None` where there is no memory.
    fn load(&self, pa: u64) -> Option<u64>;

    /// Return addresses on the stack of the PE whose event is being handled, innermost first, without the PC itself.
    fn stack(&self) -> Vec<u64>;

    /// The UTF-8 text at a virtual address of the PE whose event is being handled, for labels.
    fn text(&self, va: u64, len: u64) -> Option<String> {
        let _ = (va, len);
        None
    }

    /// From now on stores to, and loads from, the 4 KiB page at `page` are of interest (`on`), or no longer.
    ///
    /// Events for other pages may be left out.
    fn watch(&mut self, page: u64, on: bool);
}
