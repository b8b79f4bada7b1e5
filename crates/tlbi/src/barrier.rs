//! The DSB, and what it waits for (Arm ARM B2.3, C6.2 DSB).
//!
//! For TLB maintenance two questions matter. Does it make a preceding *store* to a table visible to walkers (R4: entry,
//! DSB, TLBI)? Any DSB that covers stores does, within its domain. Does it complete a preceding *TLBI* of the same PE
//! (R5)? Only one that covers loads and stores does, and its domain must reach as far as the TLBI. An nXS form (FEAT_XS)
//! completes nXS operations only: it does not wait for accesses with the XS attribute that used an old entry.

use core::fmt;

/// How far something reaches: this PE, the inner shareable domain, or the outer shareable domain and beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// This PE only.
    NonShareable,
    /// Every PE of the system, in practice.
    InnerShareable,
    /// PEs and other masters of the outer shareable domain.
    OuterShareable,
    /// The full system.
    System,
}

macro_rules! dsb {
    ($($(#[$doc:meta])* $variant:ident $name:literal crm $crm:literal $domain:ident loads $loads:literal stores $stores:literal;)*) => {
        /// A DSB, by its option. The discriminant is the instruction's CRm field, and 16 more for an nXS form.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Dsb {
            $($(#[$doc])* $variant = $crm,)*
        }

        impl Dsb {
            /// Every DSB, in the order of their encodings.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The option as an assembler writes it.
            pub const fn option(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How far it reaches.
            pub const fn domain(self) -> Domain {
                match self { $(Self::$variant => Domain::$domain,)* }
            }

            /// Whether it waits for earlier loads.
            pub const fn covers_loads(self) -> bool {
                match self { $(Self::$variant => $loads,)* }
            }

            /// Whether it waits for earlier stores.
            pub const fn covers_stores(self) -> bool {
                match self { $(Self::$variant => $stores,)* }
            }

            /// Executes the barrier on this PE; an nXS form needs FEAT_XS to be what it is.
            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            pub(crate) fn execute(self) {
                // As a number: an assembler wants FEAT_XS enabled for the whole program.
                // SAFETY: a barrier changes no register and no memory. No `nomem`: the compiler must not move accesses
                // across it. A PE without FEAT_XS takes the nXS forms as NOPs or as the plain ones and changes nothing else.
                match self { $(Self::$variant => unsafe {
                    core::arch::asm!(
                        ".inst {insn}",
                        insn = const Self::$variant.insn(),
                        options(nostack, preserves_flags)
                    )
                },)* }
            }
        }
    };
}

dsb! {
    /// Outer shareable, loads.
    Oshld "oshld" crm 1 OuterShareable loads true stores false;
    /// Outer shareable, stores.
    Oshst "oshst" crm 2 OuterShareable loads false stores true;
    /// Outer shareable.
    Osh "osh" crm 3 OuterShareable loads true stores true;
    /// This PE, loads.
    Nshld "nshld" crm 5 NonShareable loads true stores false;
    /// This PE, stores.
    Nshst "nshst" crm 6 NonShareable loads false stores true;
    /// This PE.
    Nsh "nsh" crm 7 NonShareable loads true stores true;
    /// Inner shareable, loads.
    Ishld "ishld" crm 9 InnerShareable loads true stores false;
    /// Inner shareable, stores: what orders an entry's store before the TLBI.
    Ishst "ishst" crm 10 InnerShareable loads false stores true;
    /// Inner shareable: what completes a broadcast TLBI.
    Ish "ish" crm 11 InnerShareable loads true stores true;
    /// Full system, loads.
    Ld "ld" crm 13 System loads true stores false;
    /// Full system, stores.
    St "st" crm 14 System loads false stores true;
    /// Full system.
    Sy "sy" crm 15 System loads true stores true;
    /// Outer shareable, without accesses that have the XS attribute.
    OshNxs "oshnxs" crm 0x12 OuterShareable loads true stores true;
    /// This PE, without accesses that have the XS attribute.
    NshNxs "nshnxs" crm 0x16 NonShareable loads true stores true;
    /// Inner shareable, without accesses that have the XS attribute: what completes a broadcast nXS operation.
    IshNxs "ishnxs" crm 0x1a InnerShareable loads true stores true;
    /// Full system, without accesses that have the XS attribute.
    SyNxs "synxs" crm 0x1e System loads true stores true;
}

impl Dsb {
    /// The instruction's 32 bits.
    pub const fn insn(self) -> u32 {
        let crm = (self as u32 & 15) << 8;
        if self.is_nxs() { 0xd503_303f | crm } else { 0xd503_309f | crm }
    }

    /// The DSB that `insn` encodes; `None` for anything else.
    pub fn from_insn(insn: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|dsb| dsb.insn() == insn)
    }

    /// Whether it leaves out accesses with the XS attribute.
    pub const fn is_nxs(self) -> bool {
        self as u32 & 16 != 0
    }

    /// The barrier that waits for accesses with the XS attribute as well.
    #[must_use]
    pub const fn plain(self) -> Self {
        match self {
            Self::OshNxs => Self::Osh,
            Self::NshNxs => Self::Nsh,
            Self::IshNxs => Self::Ish,
            Self::SyNxs => Self::Sy,
            _ => self,
        }
    }

    /// R4: whether it makes this PE's earlier stores to tables visible to walkers within `domain`.
    pub fn publishes_stores(self, domain: Domain) -> bool {
        self.covers_stores() && self.domain() >= domain
    }

    /// R5: whether it completes this PE's earlier TLBI that reaches `domain`, and is no nXS form.
    pub fn completes_tlbi(self, domain: Domain) -> bool {
        !self.is_nxs() && self.completes_nxs_tlbi(domain)
    }

    /// R5: whether it completes this PE's earlier nXS operation that reaches `domain`.
    pub fn completes_nxs_tlbi(self, domain: Domain) -> bool {
        self.covers_loads() && self.covers_stores() && self.domain() >= domain
    }
}

impl fmt::Display for Dsb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dsb ")?;
        f.write_str(self.option())
    }
}

/// The 32 bits of `isb` (`isb sy`).
pub const ISB_INSN: u32 = 0xd503_3fdf;

/// Executes `isb` on this PE: a context synchronisation event.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn isb() {
    // SAFETY: a barrier changes no register and no memory.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Executes `ic iallu` on this PE: its instruction caches forget everything.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn ic_iallu() {
    // SAFETY: at EL1 and above it changes no register and no memory; at EL0, where no sequence of this crate can run, it traps.
    unsafe { core::arch::asm!("ic iallu", options(nostack, preserves_flags)) }
}
