//! Per-PE registers: what is written, what is in effect, and the translation contexts that follow from it.
//!
//! A register write takes effect at the next context synchronisation event; contexts are judged there and not before, so
//! that a kernel may pass through a reserved root on its way.

use crate::Sysreg;
use crate::descriptor::Geometry;

/// A set of PEs, as bits.
pub type PeSet = u64;

/// The most PEs that the model follows.
pub const MAX_PES: usize = PeSet::BITS as usize;

/// The set's members, ascending.
pub fn pes(set: PeSet) -> impl Iterator<Item = usize> {
    (0..MAX_PES).filter(move |pe| set >> pe & 1 != 0)
}

/// The translation registers of EL1&0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    ttbr: [u64; 2],
    tcr: u64,
    sctlr: u64,
}

/// Which tables a half of the address space is walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// Physical address of the root table.
    pub table: u64,
    /// 0: lower half, TTBR0; 1: upper half, TTBR1.
    pub half: u8,
    /// How it is walked.
    pub geometry: Geometry,
}

impl Root {
    /// First virtual address of the half.
    pub fn first_va(&self) -> u64 {
        match self.half {
            0 => 0,
            _ => u64::MAX << self.geometry.va_bits,
        }
    }
}

/// A root as it is loaded on a PE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The tables.
    pub root: Root,
    /// The ASID that non-global entries and table entries are tagged with.
    pub asid: u16,
}

/// Why a half is not modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmodelled {
    /// TCR_EL1.TGn is not 4 KiB.
    Granule,
    /// TCR_EL1.DS or a TnSZ outside 16..=39.
    Size,
    /// A root table that is not aligned to 4 KiB.
    UnalignedRoot,
}

impl Unmodelled {
    /// For the notice.
    pub fn text(self) -> &'static str {
        match self {
            Self::Granule => "a granule other than 4 KiB",
            Self::Size => "an address size outside 25..=48 bits",
            Self::UnalignedRoot => "a root table smaller than a page",
        }
    }
}

impl Registers {
    /// Writes one register.
    pub fn write(&mut self, register: Sysreg, value: u64) {
        match register {
            Sysreg::Ttbr0El1 => self.ttbr[0] = value,
            Sysreg::Ttbr1El1 => self.ttbr[1] = value,
            Sysreg::TcrEl1 => self.tcr = value,
            Sysreg::SctlrEl1 => self.sctlr = value,
            // Other regimes are not modelled yet.
            _ => {}
        }
    }

    /// What a half is translated through; `Ok(None)`: through nothing (MMU off, or walks disabled by EPD).
    pub fn loaded(&self, half: u8) -> Result<Option<Loaded>, Unmodelled> {
        let bit = |n: u32| self.tcr >> n & 1 != 0;
        let (size_shift, epd, tg_4k) = match half {
            0 => (0, bit(7), self.tcr >> 14 & 3 == 0),
            _ => (16, bit(23), self.tcr >> 30 & 3 == 2),
        };
        if self.sctlr & 1 == 0 || epd {
            return Ok(None);
        }
        if !tg_4k {
            return Err(Unmodelled::Granule);
        }
        let tnsz = self.tcr >> size_shift & 0x3f;
        if bit(59) || !(16..=39).contains(&tnsz) {
            return Err(Unmodelled::Size);
        }
        let va_bits = 64 - tnsz as u32;
        // Levels 0, 1, 2 start at 40, 31, 22 bits of address.
        let start_level = if va_bits > 39 {
            0
        } else if va_bits > 30 {
            1
        } else {
            2
        };
        let ttbr = self.ttbr[usize::from(half & 1)];
        let table = ttbr & 0x0000_ffff_ffff_fffe;
        if table & 0xfff != 0 {
            return Err(Unmodelled::UnalignedRoot);
        }
        // A1 selects the TTBR whose ASID counts, AS whether it has 16 bits.
        let asid = (self.ttbr[usize::from(bit(22))] >> 48) as u16;
        let asid = if bit(36) { asid } else { asid & 0xff };
        let geometry = Geometry { start_level, va_bits, hw_access_flag: bit(39) };
        Ok(Some(Loaded { root: Root { table, half, geometry }, asid }))
    }
}

/// One PE.
#[derive(Clone, Debug, Default)]
pub struct Pe {
    /// As written.
    pub written: Registers,
    /// As in effect since the last context synchronisation event.
    pub effective: Registers,
    /// What each half is translated through.
    pub loaded: [Option<Loaded>; 2],
    /// The last label hint.
    pub label: Option<String>,
}
