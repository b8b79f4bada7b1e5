//! What a PE can do, as far as the sequences depend on it, from its ID registers (Arm ARM D24.2).

use crate::errata::Errata;
use crate::op::{Form, Mnemonic, Regime, Scope};
use crate::request::RequestError;

/// The features that the sequences of this crate use.
///
/// Each field may be overridden: taking a feature away costs operations and is always right, but for [`outer`](Self::outer)
/// and the exception levels; claiming one that a PE lacks is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Bits in an ASID: 8 or 16 (ID_AA64MMFR0_EL1.ASIDBits, TCR_EL1.AS).
    pub asid_bits: u8,
    /// FEAT_ETS2 or FEAT_ETS3 (ID_AA64MMFR1_EL1.ETS >= 2): a completed TLBI is ordered before this PE's later data
    /// accesses without a context synchronisation event.
    pub ets2: bool,
    /// FEAT_TLBIOS (ID_AA64ISAR0_EL1.TLB >= 1): outer shareable operations.
    pub outer: bool,
    /// FEAT_TLBIRANGE (ID_AA64ISAR0_EL1.TLB >= 2): range operations.
    pub range: bool,
    /// FEAT_TTL (ID_AA64MMFR2_EL1.TTL): the level hint of operations by address.
    pub ttl: bool,
    /// FEAT_XS (ID_AA64ISAR1_EL1.XS): the nXS operations and barriers.
    pub xs: bool,
    /// FEAT_TTCNP (ID_AA64MMFR2_EL1.CnP) without an erratum against it: TTBRx.CnP may be set.
    pub cnp: bool,
    /// FEAT_BBM level 0 to 3 (ID_AA64MMFR2_EL1.BBM) without an erratum against it.
    pub bbm: u8,
    /// EL2 is implemented (ID_AA64PFR0_EL1.EL2): its operations, and those of stage 2.
    pub el2: bool,
    /// EL3 is implemented (ID_AA64PFR0_EL1.EL3).
    pub el3: bool,
    /// FEAT_RME (ID_AA64PFR0_EL1.RME): operations by PA.
    pub rme: bool,
    /// FEAT_TLBIW (ID_AA64ISAR3_EL1.TLBIW, bits 11:8): `VMALLWS2E1`.
    pub tlbiw: bool,
    /// What the CPU gets wrong.
    pub errata: Errata,
}

/// The ID registers that [`Features`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the architecture's")]
pub struct IdRegisters {
    pub midr_el1: u64,
    pub id_aa64pfr0_el1: u64,
    pub id_aa64isar0_el1: u64,
    pub id_aa64isar1_el1: u64,
    pub id_aa64isar3_el1: u64,
    pub id_aa64mmfr0_el1: u64,
    pub id_aa64mmfr1_el1: u64,
    pub id_aa64mmfr2_el1: u64,
}

impl IdRegisters {
    /// Of the PE that runs this code.
    #[cfg(target_arch = "aarch64")]
    pub fn read() -> Self {
        macro_rules! mrs {
            ($register:literal) => {{
                let value: u64;
                // SAFETY: ID registers are readable at EL1 and above, and have no side effects; where EL0 may not read them the
                // operating system emulates the access. One that an older PE lacks reads as zero.
                unsafe {
                    core::arch::asm!(
                        concat!("mrs {}, ", $register),
                        out(reg) value,
                        options(nomem, nostack, preserves_flags)
                    );
                }
                value
            }};
        }
        Self {
            midr_el1: mrs!("midr_el1"),
            id_aa64pfr0_el1: mrs!("id_aa64pfr0_el1"),
            id_aa64isar0_el1: mrs!("id_aa64isar0_el1"),
            id_aa64isar1_el1: mrs!("id_aa64isar1_el1"),
            // ID_AA64ISAR3_EL1, whose name older assemblers lack.
            id_aa64isar3_el1: mrs!("s3_0_c0_c6_3"),
            id_aa64mmfr0_el1: mrs!("id_aa64mmfr0_el1"),
            id_aa64mmfr1_el1: mrs!("id_aa64mmfr1_el1"),
            // ID_AA64MMFR2_EL1.
            id_aa64mmfr2_el1: mrs!("s3_0_c0_c7_2"),
        }
    }
}

impl Features {
    /// The least that Armv8.0 offers, without EL2 and EL3.
    pub const NONE: Self = Self {
        asid_bits: 8,
        ets2: false,
        outer: false,
        range: false,
        ttl: false,
        xs: false,
        cnp: false,
        bbm: 0,
        el2: false,
        el3: false,
        rme: false,
        tlbiw: false,
        errata: Errata::NONE,
    };

    /// From the values of the ID registers.
    pub fn from_id_registers(id: &IdRegisters) -> Self {
        let field = |register: u64, low: u32| (register >> low & 0xf) as u8;
        let errata = Errata::of(id.midr_el1);
        Self {
            asid_bits: if field(id.id_aa64mmfr0_el1, 4) >= 2 { 16 } else { 8 },
            ets2: field(id.id_aa64mmfr1_el1, 36) >= 2,
            outer: field(id.id_aa64isar0_el1, 56) >= 1,
            range: field(id.id_aa64isar0_el1, 56) >= 2,
            ttl: field(id.id_aa64mmfr2_el1, 48) >= 1,
            xs: field(id.id_aa64isar1_el1, 56) >= 1,
            cnp: field(id.id_aa64mmfr2_el1, 0) >= 1 && !errata.no_cnp,
            bbm: if errata.no_bbm_relaxation { 0 } else { field(id.id_aa64mmfr2_el1, 52).min(3) },
            el2: field(id.id_aa64pfr0_el1, 8) >= 1,
            el3: field(id.id_aa64pfr0_el1, 12) >= 1,
            rme: field(id.id_aa64pfr0_el1, 52) >= 1,
            tlbiw: field(id.id_aa64isar3_el1, 8) >= 1,
            errata,
        }
    }

    /// Of the PE that runs this code.
    #[cfg(target_arch = "aarch64")]
    pub fn detect() -> Self {
        Self::from_id_registers(&IdRegisters::read())
    }

    /// What both PEs can do, with the errata of either: a system uses the features that all of its PEs have.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        const fn lesser(a: u8, b: u8) -> u8 {
            if a < b { a } else { b }
        }
        Self {
            asid_bits: lesser(self.asid_bits, other.asid_bits),
            ets2: self.ets2 && other.ets2,
            outer: self.outer && other.outer,
            range: self.range && other.range,
            ttl: self.ttl && other.ttl,
            xs: self.xs && other.xs,
            cnp: self.cnp && other.cnp,
            bbm: lesser(self.bbm, other.bbm),
            el2: self.el2 && other.el2,
            el3: self.el3 && other.el3,
            rme: self.rme && other.rme,
            tlbiw: self.tlbiw && other.tlbiw,
            errata: self.errata.union(other.errata),
        }
    }

    /// Whether the PE implements the instruction.
    ///
    /// # Errors
    /// [`RequestError::Unsupported`] with the instruction and the feature that is missing.
    pub const fn check(&self, mnemonic: Mnemonic) -> Result<(), RequestError> {
        let form = mnemonic.form();
        let stage2 = matches!(
            form,
            Form::Ipas2e1
                | Form::Ipas2le1
                | Form::Ripas2e1
                | Form::Ripas2le1
                | Form::Alle1
                | Form::Vmalls12e1
                | Form::Vmallws2e1
        );
        let gpt = matches!(form, Form::Paall | Form::Rpa | Form::Rpal);
        let needs = if gpt && !self.rme {
            "FEAT_RME"
        } else if (stage2 || matches!(form.regime(), Regime::El2)) && !self.el2 {
            "EL2"
        } else if matches!(form.regime(), Regime::El3) && !self.el3 {
            "EL3"
        } else if matches!(form, Form::Vmallws2e1) && !self.tlbiw {
            "FEAT_TLBIW"
        } else if form.is_range() && !self.range {
            "FEAT_TLBIRANGE"
        } else if matches!(mnemonic.scope(), Scope::Outer) && !gpt && !self.outer {
            "FEAT_TLBIOS"
        } else if mnemonic.nxs() && !self.xs {
            "FEAT_XS"
        } else {
            return Ok(());
        };
        Err(RequestError::Unsupported { instruction: mnemonic, needs })
    }
}
