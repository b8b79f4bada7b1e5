//! Who executes the instructions: the PE itself, a recorder on the host, or a wrapper of your own.

use crate::barrier::Dsb;
use crate::op::Op;
use core::cell::Cell;
use core::fmt;

/// Executes TLBI, DSB and ISB.
///
/// # Safety
/// An implementation that stands for a real PE executes each instruction on the PE that calls it, completely and in the
/// order of the calls: everything that [`Tlb`](crate::Tlb) promises rests on it.
pub unsafe trait Issue {
    /// Executes one TLBI.
    fn tlbi(&self, op: Op);
    /// Executes one DSB.
    fn dsb(&self, dsb: Dsb);
    /// Executes an ISB.
    fn isb(&self);

    /// Executes `IC IALLU`: for [`Tlb::context_switched`](crate::Tlb::context_switched) on CPUs with the erratum.
    ///
    /// As provided, it is executed on the PE itself, and on a host there is none: an implementation that records or simulates
    /// wants its own.
    #[inline(always)]
    fn ic_iallu(&self) {
        #[cfg(target_arch = "aarch64")]
        crate::barrier::ic_iallu();
    }
}

// SAFETY: hands every call on.
unsafe impl<I: Issue + ?Sized> Issue for &I {
    #[inline(always)]
    fn tlbi(&self, op: Op) {
        (**self).tlbi(op);
    }

    #[inline(always)]
    fn dsb(&self, dsb: Dsb) {
        (**self).dsb(dsb);
    }

    #[inline(always)]
    fn isb(&self) {
        (**self).isb();
    }

    #[inline(always)]
    fn ic_iallu(&self) {
        (**self).ic_iallu();
    }
}

/// The PE that runs this code.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub struct Hardware(());

#[cfg(target_arch = "aarch64")]
impl Hardware {
    /// The PE that runs this code.
    ///
    /// # Safety
    /// Every use of the value happens at EL1 or above; at EL0 a TLBI is UNDEFINED.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: each call is one instruction on the calling PE.
#[cfg(target_arch = "aarch64")]
unsafe impl Issue for Hardware {
    #[inline(always)]
    fn tlbi(&self, op: Op) {
        // SAFETY: whoever made the value promised EL1 or above.
        unsafe { op.execute() }
    }

    #[inline(always)]
    fn dsb(&self, dsb: Dsb) {
        dsb.execute();
    }

    #[inline(always)]
    fn isb(&self) {
        crate::barrier::isb();
    }
}

/// One instruction that was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// A TLBI with its operand.
    Tlbi(Op),
    /// A DSB.
    Dsb(Dsb),
    /// An ISB.
    Isb,
    /// `IC IALLU`.
    IcIallu,
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tlbi(op) => op.fmt(f),
            Self::Dsb(dsb) => dsb.fmt(f),
            Self::Isb => f.write_str("isb"),
            Self::IcIallu => f.write_str("ic iallu"),
        }
    }
}

/// Writes down what would have been executed: for tests and for hosts that are no aarch64 kernel.
///
/// Keeps the first `N` instructions and counts the rest, see [`Recorder::lost`].
#[derive(Debug)]
pub struct Recorder<const N: usize = 64> {
    kept: [Cell<Option<Instruction>>; N],
    issued: Cell<usize>,
}

impl<const N: usize> Recorder<N> {
    /// An empty record.
    pub const fn new() -> Self {
        Self { kept: [const { Cell::new(None) }; N], issued: Cell::new(0) }
    }

    /// What was issued, in order; the first `N` at most.
    pub fn instructions(&self) -> impl Iterator<Item = Instruction> + '_ {
        self.kept.iter().map_while(Cell::get)
    }

    /// How many instructions came after the record was full.
    pub fn lost(&self) -> usize {
        self.issued.get().saturating_sub(N)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.kept.iter().for_each(|slot| slot.set(None));
        self.issued.set(0);
    }

    fn record(&self, instruction: Instruction) {
        if let Some(slot) = self.kept.get(self.issued.get()) {
            slot.set(Some(instruction));
        }
        self.issued.set(self.issued.get().saturating_add(1));
    }
}

impl<const N: usize> Default for Recorder<N> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: stands for no PE; it executes nothing and says so.
unsafe impl<const N: usize> Issue for Recorder<N> {
    fn tlbi(&self, op: Op) {
        self.record(Instruction::Tlbi(op));
    }

    fn dsb(&self, dsb: Dsb) {
        self.record(Instruction::Dsb(dsb));
    }

    fn isb(&self) {
        self.record(Instruction::Isb);
    }

    fn ic_iallu(&self) {
        self.record(Instruction::IcIallu);
    }
}
