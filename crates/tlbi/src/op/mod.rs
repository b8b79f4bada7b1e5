//! One TLBI instruction with its operand: typed, encoded and decoded by one table (Arm ARM C5.5, D8.16).
//!
//! The operand of an operation by address is `VA[55:12]` in bits 43:0 whatever the granule, the TTL hint in 47:44 and the
//! ASID in 63:48. An address that is not masked to those bits puts ones into the hint, and a wrong hint may invalidate
//! nothing; so the operand is made here and nowhere else.

mod pages;
mod table;

use crate::addr::{Asid, Ipa, PhysAddr, VirtAddr};
use crate::barrier::Domain;
use core::fmt;
pub use pages::Pages;
pub use table::{Form, Mnemonic, is_tlbi};
use table::{Reach, Shape, Tag};

/// Which PEs an operation reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The PE that executes it.
    Local,
    /// Every PE in the inner shareable domain (`IS`).
    Inner,
    /// Every PE in the outer shareable domain (`OS`, FEAT_TLBIOS).
    Outer,
}

impl Scope {
    /// The shareability domain that barriers around the operation must reach.
    pub const fn domain(self) -> Domain {
        match self {
            Self::Local => Domain::NonShareable,
            Self::Inner => Domain::InnerShareable,
            Self::Outer => Domain::OuterShareable,
        }
    }
}

/// Whose entries an operation removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Regime {
    /// EL1&0, both stages, under the current VMID unless the operation says otherwise: the forms named `E1`. Executed at EL2
    /// with HCR_EL2.{E2H, TGE} = {1, 1} the stage-1 forms act on EL2&0 instead.
    El10,
    /// EL2, or with HCR_EL2.E2H = 1 EL2&0: the forms named `E2`.
    El2,
    /// EL3: the forms named `E3`; and the operations by PA, which only EL3 executes and which concern every regime.
    El3,
}

/// What an operation removes from its regime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `VMALLE1`, `ALLE2`, `ALLE3`: everything of the regime; for EL1&0 stage 1 and combined entries of the current VMID.
    All,
    /// `ASIDE1`: table entries and non-global leaves of the ASID. Global leaves stay. EL1&0 only.
    Asid(Asid),
    /// `VAE1`, `VALE1`, `VAAE1`, `VAALE1`, and the same for EL2 and EL3: entries that translate the address.
    Va {
        /// Any address inside the page or block; an operation drops bits 11:0.
        va: VirtAddr,
        /// Entries of this ASID and global ones; `None`: of every ASID (the `A` forms of EL1&0), or in EL3 of the regime, which
        /// has none. EL2 has no `A` forms: `None` there is ASID 0, right where HCR_EL2.E2H = 0.
        asid: Option<Asid>,
        /// Leaf entries only (the `L` forms); otherwise table entries on the walk of `va` go too, at every level.
        leaf_only: bool,
        /// The TTL hint of FEAT_TTL, `(TG << 2) | level`; 0: no hint.
        ttl: u8,
    },
    /// `RVAE1` and its kin (FEAT_TLBIRANGE): the same for every page in the range.
    VaRange {
        /// The pages: [`Pages::first_va`], [`Pages::size`].
        pages: Pages,
        /// As in [`Va`](Self::Va).
        asid: Option<Asid>,
        /// As in [`Va`](Self::Va).
        leaf_only: bool,
    },
    /// `IPAS2E1`, `IPAS2LE1`: stage-2 entries that translate the address, under the current VMID. Combined entries stay.
    Ipa {
        /// Any address inside the page or block.
        ipa: Ipa,
        /// In Secure state, whether the address is of the non-secure space (bit 63).
        non_secure: bool,
        /// Leaf entries only.
        leaf_only: bool,
        /// As in [`Va`](Self::Va).
        ttl: u8,
    },
    /// `RIPAS2E1`, `RIPAS2LE1`: the same for every page in the range.
    IpaRange {
        /// The pages: [`Pages::first_ipa`], [`Pages::size`].
        pages: Pages,
        /// As in [`Ipa`](Self::Ipa).
        non_secure: bool,
        /// Leaf entries only.
        leaf_only: bool,
    },
    /// `VMALLS12E1`: everything of stage 1 and 2 under the current VMID.
    AllStages,
    /// `ALLE1`: everything of stage 1 and 2 under every VMID.
    AllVmids,
    /// `VMALLWS2E1` (FEAT_TLBIW): what is cached of stage-2 dirty state under the current VMID. No translation goes.
    DirtyState,
    /// `PAALL` (FEAT_RME): everything of granule protection tables. Local or outer shareable.
    Gpt,
    /// `RPAOS`, `RPALOS` (FEAT_RME): entries of granule protection tables for a range. Outer shareable only.
    GptRange {
        /// Where the range starts, a multiple of its size.
        pa: PhysAddr,
        /// The size field, see [`gpt_range_size`].
        size: u8,
        /// Entries of the last level only.
        leaf_only: bool,
    },
}

impl Target {
    /// Whether it leaves table entries (the `L` forms): what they lead to can be fetched again through them.
    pub const fn is_leaf_only(&self) -> bool {
        matches!(
            self,
            Self::Va { leaf_only: true, .. }
                | Self::VaRange { leaf_only: true, .. }
                | Self::Ipa { leaf_only: true, .. }
                | Self::IpaRange { leaf_only: true, .. }
                | Self::GptRange { leaf_only: true, .. }
        )
    }
}

/// Bytes that the size field of [`Target::GptRange`] stands for, 4 KiB to 512 GiB; `None` if reserved.
pub const fn gpt_range_size(size: u8) -> Option<u64> {
    match size {
        0..=2 => Some(1 << (12 + 2 * size)),
        3 => Some(1 << 21),
        4 => Some(1 << 25),
        5 => Some(1 << 29),
        6 => Some(1 << 30),
        7 => Some(1 << 34),
        8 => Some(1 << 36),
        9 => Some(1 << 39),
        _ => None,
    }
}

/// A TLBI instruction with its operand.
///
/// Where the architecture has no instruction for a combination of fields, the next stronger one stands for it: one that removes
/// more, reaches further or waits for more. [`mnemonic`](Self::mnemonic) tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Op {
    /// Whose entries.
    pub regime: Regime,
    /// Which PEs it reaches.
    pub scope: Scope,
    /// An nXS form (FEAT_XS): complete without waiting for accesses with the XS attribute.
    pub nxs: bool,
    /// What it removes.
    pub target: Target,
}

impl Op {
    /// On EL1&0, broadcast to the inner shareable domain.
    pub const fn inner(target: Target) -> Self {
        Self::new(Regime::El10, Scope::Inner, target)
    }

    /// On EL1&0, on this PE only.
    pub const fn local(target: Target) -> Self {
        Self::new(Regime::El10, Scope::Local, target)
    }

    /// Not an nXS form.
    #[inline(always)]
    pub const fn new(regime: Regime, scope: Scope, target: Target) -> Self {
        Self { regime, scope, nxs: false, target }
    }

    /// Whether it reaches other PEs.
    pub const fn is_broadcast(self) -> bool {
        !matches!(self.mnemonic().scope(), Scope::Local)
    }

    /// Whether it concerns stage-1 translations (of any regime): not IPA, dirty state and granule protection alone.
    pub const fn is_stage1(self) -> bool {
        use Target as T;
        matches!(self.target, T::All | T::Asid(_) | T::Va { .. } | T::VaRange { .. } | T::AllStages | T::AllVmids)
    }

    /// The instruction.
    #[inline(always)]
    pub const fn mnemonic(self) -> Mnemonic {
        const fn reach(leaf_only: bool) -> Reach {
            if leaf_only { Reach::Leaf } else { Reach::Full }
        }
        const fn tag_of(regime: Regime, asid: Option<Asid>) -> Tag {
            match (regime, asid) {
                (Regime::El3, _) => Tag::Untagged,
                (Regime::El10, None) => Tag::Any,
                _ => Tag::One,
            }
        }
        let regime = self.regime;
        let (regime, shape) = match self.target {
            Target::All => (regime, Shape::All),
            Target::Asid(_) => (regime, Shape::Asid),
            Target::Va { asid, leaf_only, .. } => (regime, Shape::Va(tag_of(regime, asid), reach(leaf_only))),
            Target::VaRange { asid, leaf_only, .. } => (regime, Shape::VaRange(tag_of(regime, asid), reach(leaf_only))),
            Target::Ipa { leaf_only, .. } => (Regime::El10, Shape::Ipa(reach(leaf_only))),
            Target::IpaRange { leaf_only, .. } => (Regime::El10, Shape::IpaRange(reach(leaf_only))),
            Target::AllStages => (Regime::El10, Shape::AllStages),
            Target::AllVmids => (Regime::El10, Shape::AllVmids),
            Target::DirtyState => (Regime::El10, Shape::DirtyState),
            Target::Gpt => (Regime::El3, Shape::Gpt),
            Target::GptRange { leaf_only, .. } => (Regime::El3, Shape::GptRange(reach(leaf_only))),
        };
        Mnemonic::at_least(Form::of(regime, shape), self.scope, self.nxs)
    }

    /// What goes into Xt; 0 for an operation without an operand.
    #[inline(always)]
    pub const fn operand(self) -> u64 {
        let tagged = !matches!(self.regime, Regime::El3);
        match self.target {
            Target::Asid(asid) if matches!(self.regime, Regime::El10) => (asid.number() as u64) << 48,
            Target::Va { va, asid, ttl, .. } => {
                top(tagged, asid) | ((ttl & 0xf) as u64) << 44 | (va.bits() >> 12 & ((1 << 44) - 1))
            }
            Target::VaRange { pages, asid, .. } => top(tagged, asid) | pages.operand(),
            Target::Ipa { ipa, non_secure, ttl, .. } => {
                (non_secure as u64) << 63 | ((ttl & 0xf) as u64) << 44 | (ipa.bits() >> 12 & ((1 << 40) - 1))
            }
            Target::IpaRange { pages, non_secure, .. } => (non_secure as u64) << 63 | pages.operand(),
            Target::GptRange { pa, size, .. } => ((size & 0xf) as u64) << 44 | (pa.bits() >> 12 & ((1 << 40) - 1)),
            _ => 0,
        }
    }

    /// Executes the instruction.
    ///
    /// # Safety
    /// The PE implements the instruction and is at an exception level where it is defined: EL1 or above. Removing entries from a
    /// TLB is always sound in itself; what an operation too few or a missing barrier leaves behind is the business of whoever
    /// calls this instead of [`Tlb`](crate::Tlb).
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(crate) unsafe fn execute(self) {
        // SAFETY: the caller's promise.
        unsafe { table::execute(self.mnemonic(), self.operand()) }
    }
}

/// Bits 63:48: the ASID.
#[inline(always)]
const fn top(tagged: bool, asid: Option<Asid>) -> u64 {
    match asid {
        Some(asid) if tagged => (asid.number() as u64) << 48,
        _ => 0,
    }
}

impl Mnemonic {
    /// The operation with operand `xt`, read as the architecture reads it: RES0 bits are ignored.
    ///
    /// Of a range, BaseADDR is read as with TCR_ELx.DS = 0: see [`Pages::with_lpa2`].
    pub const fn decode(self, xt: u64) -> Op {
        const fn asid(tag: Tag, xt: u64) -> Option<Asid> {
            match tag {
                Tag::One => Some(Asid::new((xt >> 48) as u16)),
                Tag::Any | Tag::Untagged => None,
            }
        }
        // Bit 55 of the address selects the half; the bits above it follow.
        let va = VirtAddr::new((((xt << 20) as i64) >> 8) as u64);
        let ttl = (xt >> 44 & 0xf) as u8;
        let non_secure = xt >> 63 != 0;
        let target = match self.form().shape() {
            Shape::All => Target::All,
            Shape::AllStages => Target::AllStages,
            Shape::AllVmids => Target::AllVmids,
            Shape::DirtyState => Target::DirtyState,
            Shape::Asid => Target::Asid(Asid::new((xt >> 48) as u16)),
            Shape::Va(tag, reach) => {
                Target::Va { va, asid: asid(tag, xt), leaf_only: matches!(reach, Reach::Leaf), ttl }
            }
            Shape::VaRange(tag, reach) => Target::VaRange {
                pages: Pages::decode(xt),
                asid: asid(tag, xt),
                leaf_only: matches!(reach, Reach::Leaf),
            },
            Shape::Ipa(reach) => Target::Ipa {
                ipa: Ipa::new((xt & ((1 << 40) - 1)) << 12),
                non_secure,
                leaf_only: matches!(reach, Reach::Leaf),
                ttl,
            },
            Shape::IpaRange(reach) => {
                Target::IpaRange { pages: Pages::decode(xt), non_secure, leaf_only: matches!(reach, Reach::Leaf) }
            }
            Shape::Gpt => Target::Gpt,
            Shape::GptRange(reach) => Target::GptRange {
                pa: PhysAddr::new((xt & ((1 << 40) - 1)) << 12),
                size: ttl,
                leaf_only: matches!(reach, Reach::Leaf),
            },
        };
        Op { regime: self.form().regime(), scope: self.scope(), nxs: self.nxs(), target }
    }
}

impl fmt::Display for Op {
    /// `tlbi vae1is, 0x400000 asid 7`, `tlbi rvale1is, 0x400000..0x420000 asid 7 level 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tlbi {}", self.mnemonic())?;
        let (asid, non_secure) = match self.target {
            Target::Va { asid, .. } | Target::VaRange { asid, .. } => (asid, false),
            Target::Ipa { non_secure, .. } | Target::IpaRange { non_secure, .. } => (None, non_secure),
            Target::Asid(asid) if self.regime == Regime::El10 => return write!(f, ", asid {asid}"),
            Target::GptRange { pa, size, .. } => {
                return match gpt_range_size(size) {
                    Some(bytes) => write!(f, ", {pa}..{:#x}", pa.bits().saturating_add(bytes)),
                    None => write!(f, ", {pa} size {size}"),
                };
            }
            _ => return Ok(()),
        };
        let (ttl, level) = match self.target {
            Target::Va { va, ttl, .. } => {
                write!(f, ", {}", va.align_down(0x1000))?;
                (ttl, None)
            }
            Target::Ipa { ipa, ttl, .. } => {
                write!(f, ", {}", ipa.align_down(0x1000))?;
                (ttl, None)
            }
            Target::VaRange { pages, .. } => {
                write_range(f, pages.first_va(), pages.size())?;
                (0, pages.level())
            }
            Target::IpaRange { pages, .. } => {
                write_range(f, pages.first_ipa(), pages.size())?;
                (0, pages.level())
            }
            _ => (0, None),
        };
        if let Some(asid) = asid {
            write!(f, " asid {asid}")?;
        }
        if ttl != 0 {
            write!(f, " ttl {ttl:#x}")?;
        }
        if let Some(level) = level {
            write!(f, " level {level}")?;
        }
        if non_secure { f.write_str(" non-secure") } else { Ok(()) }
    }
}

/// The end exclusive, as people write it.
fn write_range(f: &mut fmt::Formatter<'_>, first: u64, size: u64) -> fmt::Result {
    write!(f, ", {first:#x}..{:#x}", u128::from(first) + u128::from(size))
}
