//! What can be wrong with a request. The space is as it was before the call.

use core::fmt;
use tlbi::{PhysAddr, VaRange, VirtAddr};

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The range does not start and end on a page boundary.
    UnalignedRange {
        /// The range asked for.
        range: VaRange,
    },
    /// The range is not within the half that the space translates.
    OutsideSpace {
        /// The range asked for.
        range: VaRange,
    },
    /// The physical address is not on a page boundary.
    UnalignedFrame {
        /// The address asked for.
        frame: PhysAddr,
    },
    /// The frames end beyond the CPU's physical addresses.
    FrameTooHigh {
        /// First frame asked for.
        frame: PhysAddr,
        /// Bytes to be mapped from there.
        size: u64,
        /// Physical address bits of the CPU.
        pa_bits: u8,
    },
    /// The mapping would be both writable and executable, and the space does not permit that.
    WriteExecute {
        /// The range asked for.
        range: VaRange,
    },
    /// Something is mapped there already.
    AlreadyMapped {
        /// The range asked for.
        range: VaRange,
        /// First page in it that is mapped.
        at: VirtAddr,
    },
    /// Nothing is mapped there.
    NotMapped {
        /// The range asked for.
        range: VaRange,
        /// First page in it that is not mapped.
        at: VirtAddr,
    },
    /// What is mapped there cannot be one block: a hole, frames that are not adjacent or not aligned, other attributes; or the
    /// range is no block of this format.
    NotUniform {
        /// The range asked for.
        range: VaRange,
    },
    /// The allocator had no frame for a table.
    OutOfFrames {
        /// Tables that the request needs.
        tables: usize,
    },
    /// Another change has a table of the range at this moment, and the caller cannot wait.
    Busy {
        /// The range asked for.
        range: VaRange,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnalignedRange { range } => write!(f, "range {range} is not made of whole pages"),
            Self::OutsideSpace { range } => write!(f, "range {range} is outside the half that the space translates"),
            Self::UnalignedFrame { frame } => write!(f, "physical address {frame} is not on a page boundary"),
            Self::FrameTooHigh { frame, size, pa_bits } => {
                write!(f, "{size:#x} bytes at physical address {frame} end beyond the CPU's {pa_bits} bits")
            }
            Self::WriteExecute { range } => {
                write!(f, "{range} would be both writable and executable; AddressSpace::with_write_execute permits it")
            }
            Self::AlreadyMapped { range, at } => write!(f, "cannot map {range}: {at} is mapped already"),
            Self::NotMapped { range, at } => write!(f, "{range} is not mapped throughout: nothing at {at}"),
            Self::NotUniform { range } => write!(f, "{range} does not map one aligned block with equal attributes"),
            Self::OutOfFrames { tables } => write!(f, "no frames left for the {tables} tables that the change needs"),
            Self::Busy { range } => write!(f, "another change has a table of {range}"),
        }
    }
}

impl core::error::Error for Error {}
