//! What to invalidate, and the operations that cover it.
//!
//! [`plan`] is a pure function: no barriers, no hardware. It gives one operation per stride, up to [`limit`] strides;
//! beyond that a single whole-ASID (or, for global entries, whole-regime) operation is both shorter and bounded in time.

use crate::addr::{Asid, VaRange, VirtAddr};
use crate::features::Features;
use crate::granule::{Granule, Level};
use crate::op::{Op, Regime, Scope, Target};

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
    /// Everything of the EL1&0 regime under the current VMID.
    All,
    /// Everything tagged with the ASID: not global leaves.
    Asid(Asid),
    /// The entries that translate a range.
    Pages {
        /// The ASID they are tagged with; `None` for global (kernel) mappings, whatever the ASID.
        asid: Option<Asid>,
        /// The addresses.
        range: VaRange,
        /// Level of the smallest leaf, or freed table's parent, in the range: one operation per entry of that level.
        stride: Level,
        /// Leaves only, or tables too.
        depth: Depth,
    },
}

/// A request: what became stale, and for which PEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invalidation {
    extent: Extent,
    scope: Scope,
    granule: Granule,
}

impl Invalidation {
    const fn new(extent: Extent) -> Self {
        Self { extent, scope: Scope::Inner, granule: Granule::K4 }
    }

    /// Everything of the EL1&0 regime.
    pub const fn all() -> Self {
        Self::new(Extent::All)
    }

    /// A whole address space: tables and non-global leaves of `asid`.
    pub const fn asid(asid: Asid) -> Self {
        Self::new(Extent::Asid(asid))
    }

    /// The entries for `range` in the address space `asid`. See [`Extent::Pages`] for `stride` and `depth`.
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

    /// For tables of this granule; 4 KiB unless told.
    #[must_use]
    pub const fn granule(mut self, granule: Granule) -> Self {
        self.granule = granule;
        self
    }

    /// Which addresses and ASIDs.
    pub const fn extent(&self) -> Extent {
        self.extent
    }

    /// Which PEs.
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// R6: whether this PE's own next accesses need a context synchronisation event after the completing DSB.
    ///
    /// Instruction fetch always does, so anything the kernel itself may execute from (entries of every ASID) asks for
    /// one. User code is reached through an exception return, which is one; a kernel's own data accesses to a user
    /// range before that need it unless the PE has FEAT_ETS2.
    pub const fn needs_isb(&self, features: &Features) -> bool {
        match self.extent {
            Extent::All | Extent::Pages { asid: None, .. } => true,
            Extent::Asid(_) | Extent::Pages { asid: Some(_), .. } => !features.ets2,
        }
    }
}

/// Number of strides from which on the whole ASID is invalidated instead: as many as one table has entries (512, 2048 or
/// 8192). It bounds the time spent with interrupts off; it is no tuning of performance.
pub const fn limit(granule: Granule) -> u64 {
    granule.size() / 8
}

/// The operations that cover `inv`, in order. Barriers are not part of it: see [`Tlb`](crate::Tlb).
pub fn plan(inv: &Invalidation, _features: &Features) -> Plan {
    let whole = |target| Plan { scope: inv.scope, step: Step::Once(target) };
    match inv.extent {
        Extent::All => whole(Target::All),
        Extent::Asid(asid) => whole(Target::Asid(asid)),
        Extent::Pages { asid, range, stride, depth } => {
            let size = inv.granule.level_size(stride);
            let range = range.widen(size);
            let count = (range.last().bits() - range.start().bits()) / size + 1;
            if count >= limit(inv.granule) {
                return whole(asid.map_or(Target::All, Target::Asid));
            }
            let leaf_only = depth == Depth::Leaf;
            Plan { scope: inv.scope, step: Step::Each { va: range.start(), size, count, asid, leaf_only } }
        }
    }
}

/// Iterator over the operations of a request.
#[derive(Clone, Debug)]
pub struct Plan {
    scope: Scope,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Done,
    Once(Target),
    Each { va: VirtAddr, size: u64, count: u64, asid: Option<Asid>, leaf_only: bool },
}

impl Iterator for Plan {
    type Item = Op;

    #[inline]
    fn next(&mut self) -> Option<Op> {
        let target = match &mut self.step {
            Step::Done => return None,
            Step::Once(target) => {
                let target = *target;
                self.step = Step::Done;
                target
            }
            Step::Each { va, size, count, asid, leaf_only } => {
                *count = count.checked_sub(1)?;
                let target = Target::Va { va: *va, asid: *asid, leaf_only: *leaf_only, ttl: 0 };
                // Past the last operation the address may leave the half, and is not used.
                *va = VirtAddr::new(va.bits().wrapping_add(*size));
                target
            }
        };
        Some(Op::new(Regime::El10, self.scope, target))
    }
}
