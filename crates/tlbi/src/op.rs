//! One TLBI instruction with its operand: typed, encoded and decoded by one table (Arm ARM C5.5, D8.16).
//!
//! The operand of an operation by address is `VA[55:12]` in bits 43:0 whatever the granule, the TTL hint in 47:44 and the
//! ASID in 63:48. An address that is not masked to those bits puts ones into the hint, and a wrong hint may invalidate
//! nothing; so the operand is made here and nowhere else.

use crate::addr::{Asid, VirtAddr};
use crate::barrier::Domain;
use core::fmt;

/// Which PEs an operation reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The PE that executes it.
    Local,
    /// Every PE in the inner shareable domain (`IS`).
    Inner,
}

impl Scope {
    /// The shareability domain that barriers around the operation must reach.
    pub const fn domain(self) -> Domain {
        match self {
            Self::Local => Domain::NonShareable,
            Self::Inner => Domain::InnerShareable,
        }
    }
}

/// What an operation of the EL1&0 regime removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `VMALLE1`: everything of the current VMID.
    All,
    /// `ASIDE1`: table entries and non-global leaves of the ASID. Global leaves stay.
    Asid(Asid),
    /// `VAE1`, `VALE1`, `VAAE1`, `VAALE1`: entries that translate the address.
    Va {
        /// Any address inside the page or block; an operation drops bits 11:0.
        va: VirtAddr,
        /// Entries of this ASID and global ones; `None`: of every ASID (the `A` forms).
        asid: Option<Asid>,
        /// Leaf entries only (the `L` forms); otherwise table entries on the walk of `va` go too, at every level.
        leaf_only: bool,
        /// The TTL hint of FEAT_TTL, `(TG << 2) | level`; 0: no hint.
        ttl: u8,
    },
}

/// A TLBI instruction with its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Op {
    /// Which PEs it reaches.
    pub scope: Scope,
    /// What it removes.
    pub target: Target,
}

/// Hands the table of operations to `$use`: name, assembler's name, op1, CRm, op2, whether there is an operand register,
/// scope, kind of target. CRn is 8 throughout.
macro_rules! with_table {
    ($use:ident) => {
        $use! {
            Vmalle1is "vmalle1is" 0 3 0 none Inner All;
            Vae1is    "vae1is"    0 3 1 xt   Inner Vae;
            Aside1is  "aside1is"  0 3 2 xt   Inner Aside;
            Vaae1is   "vaae1is"   0 3 3 xt   Inner Vaae;
            Vale1is   "vale1is"   0 3 5 xt   Inner Vale;
            Vaale1is  "vaale1is"  0 3 7 xt   Inner Vaale;
            Vmalle1   "vmalle1"   0 7 0 none Local All;
            Vae1      "vae1"      0 7 1 xt   Local Vae;
            Aside1    "aside1"    0 7 2 xt   Local Aside;
            Vaae1     "vaae1"     0 7 3 xt   Local Vaae;
            Vale1     "vale1"     0 7 5 xt   Local Vale;
            Vaale1    "vaale1"    0 7 7 xt   Local Vaale;
        }
    };
}

/// The kinds of target, as the mnemonics tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    All,
    Aside,
    Vae,
    Vaae,
    Vale,
    Vaale,
}

macro_rules! mnemonics {
    ($($variant:ident $name:literal $op1:literal $crm:literal $op2:literal $operand:ident $scope:ident $kind:ident;)*) => {
        /// A TLBI instruction without its operand.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are the architecture's")]
        pub enum Mnemonic {
            $($variant,)*
        }

        impl Mnemonic {
            /// Every operation this crate knows.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name as an assembler writes it, in lower case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            const fn row(self) -> (u32, u32, u32, bool, Scope, Kind) {
                match self {
                    $(Self::$variant => ($op1, $crm, $op2, mnemonics!(@operand $operand), Scope::$scope, Kind::$kind),)*
                }
            }
        }
    };
    (@operand none) => { false };
    (@operand xt) => { true };
}

with_table!(mnemonics);

/// `sys #0, C8, C0, #0, x0`: what all TLBI instructions have in common.
const SYS_CRN8: u32 = 0xd508_8000;

impl Mnemonic {
    /// Whether the instruction takes an operand register.
    pub const fn has_operand(self) -> bool {
        self.row().3
    }

    /// The instruction's 32 bits with operand register `xt`, 0..=31; one without an operand has 31 whatever is given.
    pub const fn insn(self, xt: u8) -> u32 {
        let (op1, crm, op2, has_operand, _, _) = self.row();
        let rt = if has_operand { (xt & 31) as u32 } else { 31 };
        SYS_CRN8 | op1 << 16 | crm << 8 | op2 << 5 | rt
    }

    /// The operation that `insn` encodes and its operand register's number (31: XZR).
    pub fn from_insn(insn: u32) -> Option<(Self, u8)> {
        let xt = (insn & 31) as u8;
        Self::ALL.iter().copied().find(|m| m.insn(xt) == insn).map(|m| (m, xt))
    }

    /// The operation with operand `xt`, read as the architecture reads it: RES0 bits are ignored.
    pub const fn decode(self, xt: u64) -> Op {
        let (_, _, _, _, scope, kind) = self.row();
        let asid = Asid::new((xt >> 48) as u16);
        // Bit 55 of the address selects the half; the bits above it follow.
        let va = VirtAddr::new((((xt << 20) as i64) >> 8) as u64);
        let ttl = (xt >> 44 & 0xf) as u8;
        let target = match kind {
            Kind::All => Target::All,
            Kind::Aside => Target::Asid(asid),
            Kind::Vae => Target::Va { va, asid: Some(asid), leaf_only: false, ttl },
            Kind::Vale => Target::Va { va, asid: Some(asid), leaf_only: true, ttl },
            Kind::Vaae => Target::Va { va, asid: None, leaf_only: false, ttl },
            Kind::Vaale => Target::Va { va, asid: None, leaf_only: true, ttl },
        };
        Op { scope, target }
    }
}

/// Whether `insn` is any TLBI at all, known to this crate or not: SYS with CRn 8, or 9 for the nXS forms.
pub const fn is_tlbi(insn: u32) -> bool {
    insn & 0xfff8_e000 == SYS_CRN8
}

impl Op {
    /// Broadcast to the inner shareable domain.
    pub const fn inner(target: Target) -> Self {
        Self { scope: Scope::Inner, target }
    }

    /// On this PE only.
    pub const fn local(target: Target) -> Self {
        Self { scope: Scope::Local, target }
    }

    /// The instruction.
    pub const fn mnemonic(self) -> Mnemonic {
        use Mnemonic as M;
        match (self.target, self.scope) {
            (Target::All, Scope::Inner) => M::Vmalle1is,
            (Target::All, Scope::Local) => M::Vmalle1,
            (Target::Asid(_), Scope::Inner) => M::Aside1is,
            (Target::Asid(_), Scope::Local) => M::Aside1,
            (Target::Va { asid: Some(_), leaf_only: false, .. }, Scope::Inner) => M::Vae1is,
            (Target::Va { asid: Some(_), leaf_only: false, .. }, Scope::Local) => M::Vae1,
            (Target::Va { asid: Some(_), leaf_only: true, .. }, Scope::Inner) => M::Vale1is,
            (Target::Va { asid: Some(_), leaf_only: true, .. }, Scope::Local) => M::Vale1,
            (Target::Va { asid: None, leaf_only: false, .. }, Scope::Inner) => M::Vaae1is,
            (Target::Va { asid: None, leaf_only: false, .. }, Scope::Local) => M::Vaae1,
            (Target::Va { asid: None, leaf_only: true, .. }, Scope::Inner) => M::Vaale1is,
            (Target::Va { asid: None, leaf_only: true, .. }, Scope::Local) => M::Vaale1,
        }
    }

    /// What goes into Xt; 0 for an operation without an operand.
    pub const fn operand(self) -> u64 {
        match self.target {
            Target::All => 0,
            Target::Asid(asid) => (asid.number() as u64) << 48,
            Target::Va { va, asid, ttl, .. } => {
                let asid = match asid {
                    Some(asid) => asid.number() as u64,
                    None => 0,
                };
                asid << 48 | ((ttl & 0xf) as u64) << 44 | (va.bits() >> 12 & ((1 << 44) - 1))
            }
        }
    }

    /// Executes the instruction.
    ///
    /// # Safety
    /// The PE is at EL1 or above. Removing entries from a TLB is always sound in itself; what an operation too few or a
    /// missing barrier leaves behind is the business of whoever calls this instead of [`Tlb`](crate::Tlb).
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(crate) unsafe fn execute(self) {
        macro_rules! issue {
            ($($variant:ident $name:literal $op1:literal $crm:literal $op2:literal $operand:ident $scope:ident $kind:ident;)*) => {
                match self.mnemonic() {
                    $(Mnemonic::$variant => issue!(@asm $operand $name),)*
                }
            };
            // SAFETY: the caller is at EL1 or above; neither form touches a register or memory.
            (@asm none $name:literal) => { unsafe {
                core::arch::asm!(concat!("tlbi ", $name), options(nostack, preserves_flags))
            } };
            // SAFETY: as above.
            (@asm xt $name:literal) => { unsafe {
                core::arch::asm!(concat!("tlbi ", $name, ", {}"), in(reg) self.operand(), options(nostack, preserves_flags))
            } };
        }
        with_table!(issue)
    }
}

impl fmt::Display for Op {
    /// `tlbi vae1is, 0x400000 asid 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tlbi {}", self.mnemonic().name())?;
        match self.target {
            Target::All => Ok(()),
            Target::Asid(asid) => write!(f, ", asid {asid}"),
            Target::Va { va, asid, ttl, .. } => {
                write!(f, ", {}", va.align_down(0x1000))?;
                if let Some(asid) = asid {
                    write!(f, " asid {asid}")?;
                }
                if ttl != 0 {
                    write!(f, " ttl {ttl:#x}")?;
                }
                Ok(())
            }
        }
    }
}
