//! What became stale, said by whoever changed a table; and what cannot be said.

use crate::addr::{Asid, IpaRange, RangeError, VaRange, VirtAddr};
use crate::features::Features;
use crate::granule::{Granule, Level};
use crate::op::{Mnemonic, Op, Regime, Scope, Target};
use core::fmt;

/// Which entries a change may have left stale besides the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// Leaf entries only: no table descriptor was changed.
    Leaf,
    /// Table descriptors were removed or replaced as well: walk caches must go too.
    Full,
}

impl Depth {
    /// The deeper of the two.
    pub fn max(self, other: Self) -> Self {
        Ord::max(self, other)
    }
}

/// Which addresses and ASIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Everything of the regime; of EL1&0 under the current VMID.
    All,
    /// Everything tagged with the ASID: not global leaves.
    Asid(Asid),
    /// The entries that translate one page or block.
    Page {
        /// The ASID they are tagged with; `None` for global (kernel) mappings, whatever the ASID.
        asid: Option<Asid>,
        /// Any address inside.
        va: VirtAddr,
        /// Level of the leaf, or of the entry that pointed to a freed table.
        level: Level,
        /// Leaf only, or tables too.
        depth: Depth,
    },
    /// The entries that translate a range.
    Pages {
        /// The ASID they are tagged with; `None` for global (kernel) mappings, whatever the ASID.
        asid: Option<Asid>,
        /// The addresses.
        range: VaRange,
        /// Level of the smallest leaf, or freed table's parent, in the range. The range is rounded to entries of that level.
        stride: Level,
        /// Leaves only, or tables too.
        depth: Depth,
    },
}

/// The regime as a request knows it: an operation does not tell EL2 from EL2&0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum World {
    El10,
    El2,
    El20,
    El3,
}

/// A request: what became stale, and for which PEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invalidation {
    pub(crate) extent: Extent,
    pub(crate) world: World,
    pub(crate) scope: Scope,
    pub(crate) granule: Granule,
    pub(crate) lpa2: bool,
    pub(crate) uniform: bool,
    pub(crate) exact: bool,
    pub(crate) nxs: bool,
    pub(crate) kpti: bool,
}

impl Invalidation {
    #[inline(always)]
    const fn new(extent: Extent) -> Self {
        Self {
            extent,
            world: World::El10,
            scope: Scope::Inner,
            granule: Granule::K4,
            lpa2: false,
            uniform: false,
            exact: false,
            nxs: false,
            kpti: false,
        }
    }

    /// Everything of the regime, EL1&0 unless told.
    pub const fn all() -> Self {
        Self::new(Extent::All)
    }

    /// A whole address space: tables and non-global leaves of `asid`.
    pub const fn asid(asid: Asid) -> Self {
        Self::new(Extent::Asid(asid))
    }

    /// The entries for the page or block at `va` in the address space `asid`, whose leaf was at `level`; or, with
    /// [`Depth::Full`], for a freed table that an entry at `level` pointed to.
    ///
    /// With [`Depth::Leaf`] the level is handed on as a hint where the CPU takes one: it is the level of the leaf that was there,
    /// and a wrong one may invalidate nothing. Of a contiguous run, each member wants its own request, or [`pages`](Self::pages).
    #[inline(always)]
    pub const fn page(asid: Asid, va: VirtAddr, level: Level, depth: Depth) -> Self {
        let mut inv = Self::new(Extent::Page { asid: Some(asid), va, level, depth });
        inv.uniform = true;
        inv
    }

    /// The same whatever the ASID: a global mapping.
    #[inline(always)]
    pub const fn global_page(va: VirtAddr, level: Level, depth: Depth) -> Self {
        let mut inv = Self::new(Extent::Page { asid: None, va, level, depth });
        inv.uniform = true;
        inv
    }

    /// The entries for `range` in the address space `asid`. See [`Extent::Pages`] for `stride` and `depth`.
    ///
    /// Above the [limits](mod@crate::plan) it becomes the whole address space, which leaves global leaves alone: for
    /// those, use [`global_pages`](Self::global_pages).
    pub const fn pages(asid: Asid, range: VaRange, stride: Level, depth: Depth) -> Self {
        Self::new(Extent::Pages { asid: Some(asid), range, stride, depth })
    }

    /// The entries for `range` whatever their ASID: global mappings, and tables that several spaces share.
    pub const fn global_pages(range: VaRange, stride: Level, depth: Depth) -> Self {
        Self::new(Extent::Pages { asid: None, range, stride, depth })
    }

    /// On this PE only: right only if no other PE can hold the entries.
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.scope = Scope::Local;
        self
    }

    /// On every PE of the outer shareable domain.
    ///
    /// # Errors
    /// [`RequestError::Unsupported`] without FEAT_TLBIOS: nothing else reaches that far.
    pub const fn outer(mut self, features: &Features) -> Result<Self, RequestError> {
        self.scope = Scope::Outer;
        if features.outer {
            Ok(self)
        } else {
            let whole = Op::new(self.regime(), Scope::Outer, Target::All);
            Err(RequestError::Unsupported { instruction: whole.mnemonic(), needs: "FEAT_TLBIOS" })
        }
    }

    /// For tables of this granule; 4 KiB unless told.
    #[must_use]
    pub const fn granule(mut self, granule: Granule) -> Self {
        self.granule = granule;
        self
    }

    /// Whether TCR_ELx.DS is set (FEAT_LPA2): range operands then count in units of 64 KiB. Not unless told.
    #[must_use]
    pub const fn lpa2(mut self, ds: bool) -> Self {
        self.lpa2 = ds;
        self
    }

    /// Every stale leaf in the range is at the level of its stride and no other: the operations may hint at it (TTL).
    ///
    /// With [`Depth::Full`] no hint is given all the same. A hint at the wrong level may invalidate nothing.
    #[must_use]
    pub const fn uniform(mut self) -> Self {
        self.uniform = true;
        self
    }

    /// Nothing but the range, however large: in pieces, instead of the whole address space above the limits.
    ///
    /// Without range operations that is one operation an entry: the caller bounds the range, and the time that it takes.
    #[must_use]
    pub const fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Without waiting for accesses with the XS attribute, where the PE has FEAT_XS; otherwise waiting for them too.
    ///
    /// For memory that no driver with XS mappings relies on.
    #[must_use]
    pub const fn nxs(mut self) -> Self {
        self.nxs = true;
        self
    }

    /// For kernels that run user code under a second ASID (page-table isolation): every operation by ASID is issued for the
    /// even ASID and for the odd one after it.
    #[must_use]
    pub const fn kpti(mut self) -> Self {
        self.kpti = true;
        self
    }

    /// Of EL2 with HCR_EL2.E2H = 0, executed at EL2: there are no ASIDs, whatever the request names.
    #[must_use]
    pub const fn el2(mut self) -> Self {
        self.world = World::El2;
        self
    }

    /// Of EL2&0, executed at EL2 with HCR_EL2.{E2H, TGE} = {1, 0}. With TGE = 1 the request for EL1&0 acts on EL2&0 and is the
    /// one to use: only it has operations by ASID and for every ASID; here, both become the whole regime.
    #[must_use]
    pub const fn el20(mut self) -> Self {
        self.world = World::El20;
        self
    }

    /// Of EL3, executed at EL3.
    #[must_use]
    pub const fn el3(mut self) -> Self {
        self.world = World::El3;
        self
    }

    /// Which addresses and ASIDs.
    pub const fn extent(&self) -> Extent {
        self.extent
    }

    /// Which PEs.
    #[inline(always)]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// Whose entries.
    #[inline(always)]
    pub const fn regime(&self) -> Regime {
        match self.world {
            World::El10 => Regime::El10,
            World::El2 | World::El20 => Regime::El2,
            World::El3 => Regime::El3,
        }
    }

    /// R6: whether this PE's own next accesses need a context synchronisation event after the completing DSB.
    ///
    /// Instruction fetch always does, so anything the kernel itself may execute from (entries of every ASID, or of EL2 and
    /// EL3) asks for one. User code is reached through an exception return, which is one; a kernel's own data accesses to a user
    /// range before that need it unless the PE has FEAT_ETS2.
    #[inline(always)]
    pub const fn needs_isb(&self, features: &Features) -> bool {
        match (self.world, self.extent) {
            (
                World::El10,
                Extent::Asid(_) | Extent::Pages { asid: Some(_), .. } | Extent::Page { asid: Some(_), .. },
            ) => !features.ets2,
            _ => true,
        }
    }

    /// Whether the request is one that this PE can carry out to the letter.
    ///
    /// [`Tlb::invalidate`](crate::Tlb::invalidate) carries out any request, if need be by invalidating more;
    /// [`Tlb::try_invalidate`](crate::Tlb::try_invalidate) refuses what this refuses.
    ///
    /// # Errors
    /// [`RequestError`] with the value at fault.
    pub const fn check(&self, features: &Features) -> Result<(), RequestError> {
        let (asid, level) = match self.extent {
            Extent::All => (None, None),
            Extent::Asid(asid) => (Some(asid), None),
            Extent::Page { asid, level, va, .. } => {
                if let Err(error) = VaRange::new(va, 1) {
                    return Err(RequestError::Range(error));
                }
                (asid, Some(level))
            }
            Extent::Pages { asid, stride, .. } => (asid, Some(stride)),
        };
        if let Some(asid) = asid {
            if !asid.fits(features.asid_bits) {
                return Err(RequestError::AsidTooWide { asid, bits: features.asid_bits });
            }
            if self.kpti && asid.number() & 1 != 0 {
                return Err(RequestError::OddPair { asid });
            }
        }
        if let Some(level) = level {
            if !self.granule.has_level(level, self.lpa2) {
                return Err(RequestError::NoSuchLevel { granule: self.granule, level, lpa2: self.lpa2 });
            }
        }
        features.check(Op::new(self.regime(), self.scope, Target::All).mnemonic())
    }
}

/// Which entries of stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage2Extent {
    /// Everything of both stages under the current VMID.
    Vmid,
    /// Everything of both stages under every VMID.
    AllVmids,
    /// The entries that translate a range, under the current VMID, and what is combined from them.
    Pages {
        /// The addresses.
        range: IpaRange,
        /// Level of the smallest leaf, or freed table's parent, in the range.
        stride: Level,
        /// Leaves only, or tables too.
        depth: Depth,
    },
}

/// A request for stage 2 of EL1&0, executed at EL2 with the guest's VMID in VTTBR_EL2 and HCR_EL2.TGE = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stage2 {
    pub(crate) extent: Stage2Extent,
    pub(crate) scope: Scope,
    pub(crate) granule: Granule,
    pub(crate) lpa2: bool,
    pub(crate) uniform: bool,
    pub(crate) exact: bool,
    pub(crate) non_secure: bool,
}

impl Stage2 {
    const fn new(extent: Stage2Extent) -> Self {
        Self {
            extent,
            scope: Scope::Inner,
            granule: Granule::K4,
            lpa2: false,
            uniform: false,
            exact: false,
            non_secure: false,
        }
    }

    /// Everything of the current VMID.
    pub const fn vmid() -> Self {
        Self::new(Stage2Extent::Vmid)
    }

    /// Everything of every VMID.
    pub const fn all_vmids() -> Self {
        Self::new(Stage2Extent::AllVmids)
    }

    /// The entries for `range`. Above the [limits](mod@crate::plan) it becomes the whole VMID.
    pub const fn pages(range: IpaRange, stride: Level, depth: Depth) -> Self {
        Self::new(Stage2Extent::Pages { range, stride, depth })
    }

    /// On this PE only: right only if no other PE has run under this VMID since.
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.scope = Scope::Local;
        self
    }

    /// On every PE of the outer shareable domain.
    ///
    /// # Errors
    /// As [`Invalidation::outer`].
    pub const fn outer(mut self, features: &Features) -> Result<Self, RequestError> {
        self.scope = Scope::Outer;
        if features.outer {
            Ok(self)
        } else {
            let whole = Op::new(Regime::El10, Scope::Outer, Target::AllStages);
            Err(RequestError::Unsupported { instruction: whole.mnemonic(), needs: "FEAT_TLBIOS" })
        }
    }

    /// For tables of this granule; 4 KiB unless told.
    #[must_use]
    pub const fn granule(mut self, granule: Granule) -> Self {
        self.granule = granule;
        self
    }

    /// Whether VTCR_EL2.DS is set.
    #[must_use]
    pub const fn lpa2(mut self, ds: bool) -> Self {
        self.lpa2 = ds;
        self
    }

    /// As [`Invalidation::uniform`].
    #[must_use]
    pub const fn uniform(mut self) -> Self {
        self.uniform = true;
        self
    }

    /// As [`Invalidation::exact`].
    #[must_use]
    pub const fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// In Secure state: addresses of the non-secure IPA space.
    #[must_use]
    pub const fn non_secure(mut self) -> Self {
        self.non_secure = true;
        self
    }

    /// Which entries.
    pub const fn extent(&self) -> Stage2Extent {
        self.extent
    }

    /// Which PEs.
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// As [`Invalidation::check`].
    ///
    /// # Errors
    /// [`RequestError`] with the value at fault.
    pub const fn check(&self, features: &Features) -> Result<(), RequestError> {
        if let Stage2Extent::Pages { stride, .. } = self.extent {
            if !self.granule.has_level(stride, self.lpa2) {
                return Err(RequestError::NoSuchLevel { granule: self.granule, level: stride, lpa2: self.lpa2 });
            }
        }
        features.check(Op::new(Regime::El10, self.scope, Target::AllStages).mnemonic())
    }
}

/// Why a request cannot be carried out to the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The ASID has more bits than the CPU compares.
    AsidTooWide {
        /// The ASID.
        asid: Asid,
        /// Bits of an ASID on this CPU.
        bits: u8,
    },
    /// A KPTI pair is an even ASID and the one after it.
    OddPair {
        /// The ASID.
        asid: Asid,
    },
    /// A walk with this granule has no such level.
    NoSuchLevel {
        /// The granule.
        granule: Granule,
        /// The level.
        level: Level,
        /// Whether TCR_ELx.DS was said to be set.
        lpa2: bool,
    },
    /// An address that no table translates.
    Range(RangeError),
    /// The CPU lacks the instruction.
    Unsupported {
        /// The instruction.
        instruction: Mnemonic,
        /// What it needs: the name of a feature or exception level.
        needs: &'static str,
    },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AsidTooWide { asid, bits } => {
                write!(f, "ASID {asid} has more than the {bits} bits of this CPU's ASIDs")
            }
            Self::OddPair { asid } => write!(f, "ASID {asid} is odd: a KPTI pair begins with an even ASID"),
            Self::NoSuchLevel { granule, level, lpa2 } => {
                let ds = if lpa2 { "with" } else { "without" };
                write!(f, "a walk with the {granule} granule {ds} LPA2 has no level {level}")
            }
            Self::Range(error) => error.fmt(f),
            Self::Unsupported { instruction, needs } => {
                write!(f, "this CPU has no TLBI {instruction}: it needs {needs}")
            }
        }
    }
}

impl core::error::Error for RequestError {}

impl From<RangeError> for RequestError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}
