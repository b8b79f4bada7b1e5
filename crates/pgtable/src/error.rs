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
    /// The range is not within the 48-bit lower half that TTBR0 translates.
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
    /// The allocator had no frame for a table.
    OutOfFrames {
        /// Tables that the request needs.
        tables: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnalignedRange { range } => write!(f, "range {range} is not made of whole 4 KiB pages"),
            Self::OutsideSpace { range } => write!(f, "range {range} is outside the 48-bit lower half"),
            Self::UnalignedFrame { frame } => write!(f, "physical address {frame} is not on a 4 KiB boundary"),
            Self::FrameTooHigh { frame, size, pa_bits } => {
                write!(f, "{size:#x} bytes at physical address {frame} end beyond the CPU's {pa_bits} bits")
            }
            Self::AlreadyMapped { range, at } => write!(f, "cannot map {range}: {at} is mapped already"),
            Self::NotMapped { range, at } => write!(f, "cannot unmap {range}: {at} is not mapped"),
            Self::OutOfFrames { tables } => write!(f, "no frames left for the {tables} tables that the mapping needs"),
        }
    }
}

impl core::error::Error for Error {}
