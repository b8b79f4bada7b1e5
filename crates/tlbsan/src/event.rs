//! What the model is told: one event at a time, on which PE, at which PC.
//!
//! Events come in each PE's program order. A store is reported after it happened; its value is read from memory, not
//! carried in the event, because what sources report of a store (failed exclusives, atomics, pairs) is not what landed.

use tlbi::{Dsb, Op};
use tlbsan_hint::Hint;

/// A system register that the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the architecture's")]
pub enum Sysreg {
    Ttbr0El1,
    Ttbr1El1,
    TcrEl1,
    SctlrEl1,
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
    /// A TLBI is executed.
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
    /// A system register is written. It takes effect at the next context synchronisation event.
    Sysreg(Sysreg, u64),
    /// A hint is executed.
    Hint(Hint),
    /// The PE comes out of reset: MMU off.
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
