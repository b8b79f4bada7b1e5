//! Addresses, address ranges and ASIDs as types of their own.
//!
//! A virtual address, a physical address and a page number are all 64 bits wide and never interchangeable. Nothing here
//! knows about tables; alignment is the business of whoever knows the granule.

use core::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The address with these 64 bits.
            pub const fn new(bits: u64) -> Self {
                Self(bits)
            }

            /// All 64 bits.
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// Whether the address is a multiple of `size`, a power of two in bytes.
            pub const fn is_aligned(self, size: u64) -> bool {
                self.0 & size.wrapping_sub(1) == 0
            }

            /// The address rounded down to a multiple of `size`, a power of two in bytes.
            pub const fn align_down(self, size: u64) -> Self {
                Self(self.0 & !size.wrapping_sub(1))
            }

            /// The address `bytes` further on, or `None` past 2^64.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(bits) => Some(Self(bits)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A virtual address, as a load would use it (no tag in bits 63:56).
    VirtAddr
}

address! {
    /// An output address of stage 1, where there is no stage 2.
    PhysAddr
}

address! {
    /// An intermediate physical address: what stage 1 puts out and stage 2 translates.
    Ipa
}

/// An address space identifier: TTBRn_EL1.ASID, 8 or 16 bits wide (ID_AA64MMFR0_EL1.ASIDBits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Asid(u16);

impl Asid {
    /// The ASID with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether it has at most that many bits.
    pub const fn fits(self, bits: u8) -> bool {
        bits >= 16 || self.0 >> bits == 0
    }
}

impl fmt::Display for Asid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A range of virtual addresses: never empty, never wrapping, never across the gap between the two halves.
///
/// The end is kept inclusive, so that the last page of the upper half is representable.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaRange {
    start: VirtAddr,
    last: VirtAddr,
}

/// Why a range of virtual addresses cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// The size is zero.
    Empty {
        /// Where the range was to start.
        start: VirtAddr,
    },
    /// The range runs past 2^64.
    Wraps {
        /// Where the range was to start.
        start: VirtAddr,
        /// Its size in bytes.
        size: u64,
    },
    /// An end of the range, or something between, has bits 63:52 that are not all equal: no TTBR translates it
    /// (Arm ARM D8.2, largest VA size 52 bits).
    NonCanonical {
        /// Where the range was to start.
        start: VirtAddr,
        /// Its size in bytes.
        size: u64,
    },
    /// The range runs past 2^52, the largest IPA without 128-bit descriptors.
    BeyondIpa {
        /// Where the range was to start.
        start: Ipa,
        /// Its size in bytes.
        size: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { start } => write!(f, "empty range at {start}"),
            Self::Wraps { start, size } => {
                write!(f, "range of {size:#x} bytes at {start} runs past the end of the address space")
            }
            Self::NonCanonical { start, size } => {
                write!(f, "range of {size:#x} bytes at {start} leaves the lower or the upper half of the address space")
            }
            Self::BeyondIpa { start, size } => {
                write!(f, "range of {size:#x} bytes at {start} runs past the largest intermediate physical address")
            }
        }
    }
}

impl core::error::Error for RangeError {}

impl VaRange {
    /// The `size` bytes from `start`.
    ///
    /// # Errors
    /// [`RangeError`] if the range is empty, wraps, or is not wholly inside one half of a 52-bit address space.
    pub const fn new(start: VirtAddr, size: u64) -> Result<Self, RangeError> {
        if size == 0 {
            return Err(RangeError::Empty { start });
        }
        let Some(last) = start.checked_add(size - 1) else {
            return Err(RangeError::Wraps { start, size });
        };
        let (low, high) = (start.bits() >> 52, last.bits() >> 52);
        if low != high || (low != 0 && low != 0xfff) {
            return Err(RangeError::NonCanonical { start, size });
        }
        Ok(Self { start, last })
    }

    /// First address.
    pub const fn start(self) -> VirtAddr {
        self.start
    }

    /// Last address, inclusive.
    pub const fn last(self) -> VirtAddr {
        self.last
    }

    /// Size in bytes; never 0.
    pub const fn size(self) -> u64 {
        // A half spans at most 2^52 bytes.
        self.last.0 - self.start.0 + 1
    }

    /// Whether start and end are multiples of `size`, a power of two in bytes.
    pub const fn is_aligned(self, size: u64) -> bool {
        self.start.is_aligned(size) && self.size() & size.wrapping_sub(1) == 0
    }

    /// Whether `va` lies inside.
    pub const fn contains(self, va: VirtAddr) -> bool {
        self.start.0 <= va.0 && va.0 <= self.last.0
    }

    /// Whether the two have an address in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 <= other.last.0 && other.start.0 <= self.last.0
    }

    /// The smallest range that contains both, or `None` if they lie in different halves.
    pub fn union(self, other: Self) -> Option<Self> {
        (self.start.0 >> 63 == other.start.0 >> 63)
            .then(|| Self { start: self.start.min(other.start), last: self.last.max(other.last) })
    }

    /// The range widened to multiples of `size`, a power of two of at most 2^52 bytes (it then stays within its half).
    pub const fn widen(self, size: u64) -> Self {
        Self { start: self.start.align_down(size), last: VirtAddr(self.last.0 | size.wrapping_sub(1)) }
    }
}

impl fmt::Display for VaRange {
    /// `0x1000..0x3000`, the end exclusive as people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, u128::from(self.last.0) + 1)
    }
}

impl fmt::Debug for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A range of intermediate physical addresses: never empty, and below 2^52.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpaRange {
    start: Ipa,
    size: u64,
}

impl IpaRange {
    /// The `size` bytes from `start`.
    ///
    /// # Errors
    /// [`RangeError`] if the range is empty, wraps, or runs past 2^52, the largest IPA without 128-bit descriptors.
    pub const fn new(start: Ipa, size: u64) -> Result<Self, RangeError> {
        let va = VirtAddr::new(start.bits());
        if size == 0 {
            return Err(RangeError::Empty { start: va });
        }
        let Some(last) = start.checked_add(size - 1) else {
            return Err(RangeError::Wraps { start: va, size });
        };
        if last.bits() >> 52 != 0 {
            return Err(RangeError::BeyondIpa { start, size });
        }
        Ok(Self { start, size })
    }

    /// First address.
    pub const fn start(self) -> Ipa {
        self.start
    }

    /// Size in bytes; never 0.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// First address and number of bytes, widened to multiples of `size`, a power of two of at most 2^52 bytes.
    pub(crate) const fn widened(self, size: u64) -> (u64, u64) {
        let start = self.start.align_down(size).bits();
        let last = (self.start.bits() + (self.size - 1)) | (size - 1);
        (start, last - start + 1)
    }
}

impl fmt::Display for IpaRange {
    /// `0x1000..0x3000`, the end exclusive as people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.start.bits() + self.size)
    }
}

impl fmt::Debug for IpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
