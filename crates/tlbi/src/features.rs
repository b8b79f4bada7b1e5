//! What a PE can do, as far as the sequences depend on it, from its ID registers (Arm ARM D24.2).

/// The features that the sequences of this crate use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Bits in an ASID: 8 or 16 (ID_AA64MMFR0_EL1.ASIDBits).
    pub asid_bits: u8,
    /// FEAT_ETS2 or FEAT_ETS3 (ID_AA64MMFR1_EL1.ETS >= 2): a completed TLBI is ordered before this PE's later data
    /// accesses without a context synchronisation event.
    pub ets2: bool,
}

impl Features {
    /// The least that Armv8.0 offers.
    pub const NONE: Self = Self { asid_bits: 8, ets2: false };

    /// From the values of ID_AA64MMFR0_EL1 and ID_AA64MMFR1_EL1.
    pub const fn from_id_registers(mmfr0: u64, mmfr1: u64) -> Self {
        Self { asid_bits: if mmfr0 >> 4 & 0xf >= 2 { 16 } else { 8 }, ets2: mmfr1 >> 36 & 0xf >= 2 }
    }

    /// Of the PE that runs this code.
    #[cfg(target_arch = "aarch64")]
    pub fn detect() -> Self {
        let (mmfr0, mmfr1): (u64, u64);
        // SAFETY: ID registers are readable at EL1 and above, and have no side effects; where EL0 may not read them the
        // operating system emulates the access.
        unsafe {
            core::arch::asm!("mrs {}, id_aa64mmfr0_el1", out(reg) mmfr0, options(nomem, nostack, preserves_flags));
            core::arch::asm!("mrs {}, id_aa64mmfr1_el1", out(reg) mmfr1, options(nomem, nostack, preserves_flags));
        }
        Self::from_id_registers(mmfr0, mmfr1)
    }

    /// What both PEs can do: a system uses the features that all of its PEs have.
    pub const fn common(self, other: Self) -> Self {
        Self {
            asid_bits: if self.asid_bits < other.asid_bits { self.asid_bits } else { other.asid_bits },
            ets2: self.ets2 && other.ets2,
        }
    }
}
