//! The sequences, each written once.
//!
//! An entry in a live table has been changed. Until the sequence below has run, any PE may go on using the old one:
//!
//! ```text
//!   store to the entry           by whoever edits the table
//!   DSB ISHST         R4         walkers see the store before anything is invalidated
//!   TLBI ..., TLBI ...           in any order among themselves
//!   DSB ISH           R5         by the SAME PE: waits until every PE has dropped the entries and finished the accesses
//!                                that used them; a DSB on another PE waits for nothing of this
//!   TLBI, DSB ISH                once more on CPUs whose DSB forgets those accesses (Errata::repeat_tlbi)
//!   ISB               R6         this PE's own later accesses, where FEAT_ETS2 does not already order them
//! ```
//!
//! Local invalidation is the same with NSHST and NSH, the outer shareable one with OSHST and OSH. Arm ARM D8.16.6 "TLB
//! maintenance instruction ordering".

use crate::addr::{Asid, VirtAddr};
use crate::barrier::Dsb;
use crate::features::Features;
use crate::issue::Issue;
use crate::op::{Op, Regime, Scope, Target};
use crate::plan::{pair_of, plan, plan_stage2, single};
use crate::request::{Extent, Invalidation, RequestError, Stage2};
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

/// A witness that the code between a TLBI and its DSB stays on one PE.
///
/// # Safety
/// While a value is borrowed, the running thread does not move to another PE; or the kernel's context switch executes
/// `DSB ISH`, which completes what the thread issued before it moved. With interrupts or preemption off that is so.
pub unsafe trait Pinned {}

/// Invalidates TLBs through an [`Issue`].
#[derive(Clone, Copy, Debug)]
pub struct Tlb<I> {
    issue: I,
    features: Features,
}

impl<I: Issue> Tlb<I> {
    /// Issues through `issue`; `features` are those that every PE of the system has, see [`Features::common`].
    #[inline(always)]
    pub const fn new(issue: I, features: Features) -> Self {
        Self { issue, features }
    }

    /// What the instructions go through.
    pub const fn issuer(&self) -> &I {
        &self.issue
    }

    /// What the PEs can do.
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// Makes every stale copy that `inv` covers unusable on all PEs of its scope, once the returned [`Pending`] is synced.
    ///
    /// Whatever was changed: leaves removed or moved, tables freed, permissions reduced, a whole space, a whole regime. A
    /// request that this CPU cannot carry out to the letter ([`Invalidation::check`]) is carried out by invalidating more: an
    /// ASID too wide, or a level that is none, becomes the whole regime or ASID.
    #[inline(always)]
    pub fn invalidate<'t, P: Pinned + ?Sized>(&'t self, pinned: &'t P, inv: &Invalidation) -> Pending<'t, I> {
        self.order_stores(inv.scope());
        // SAFETY: the line above.
        unsafe { self.invalidate_ordered(pinned, inv) }
    }

    /// [`invalidate`](Self::invalidate), but nothing else than what was asked for.
    ///
    /// # Errors
    /// What [`Invalidation::check`] says; no instruction has been issued then, and what is stale stays stale.
    pub fn try_invalidate<'t, P: Pinned + ?Sized>(
        &'t self,
        pinned: &'t P,
        inv: &Invalidation,
    ) -> Result<Pending<'t, I>, RequestError> {
        inv.check(&self.features)?;
        Ok(self.invalidate(pinned, inv))
    }

    /// R4 alone: this PE's stores to tables so far are visible to the walkers of every PE in `scope`.
    ///
    /// For a table that several PEs edit under a lock: executed before the lock is released, it lets whoever finds an entry
    /// cleared invalidate it, not only the PE that cleared it.
    #[inline(always)]
    pub fn order_stores(&self, scope: Scope) {
        self.issue.dsb(match scope {
            Scope::Local => Dsb::Nshst,
            Scope::Inner => Dsb::Ishst,
            Scope::Outer => Dsb::Oshst,
        });
    }

    /// [`invalidate`](Self::invalidate) without its first barrier.
    ///
    /// # Safety
    /// Each store that made an entry stale which `inv` covers was followed by [`order_stores`](Self::order_stores) with this
    /// scope, on the PE that stored.
    #[inline(always)]
    pub unsafe fn invalidate_ordered<'t, P: Pinned + ?Sized>(
        &'t self,
        pinned: &'t P,
        inv: &Invalidation,
    ) -> Pending<'t, I> {
        let _ = pinned;
        self.issue_all(inv);
        Pending {
            tlb: self,
            scope: inv.scope(),
            isb: inv.needs_isb(&self.features),
            nxs: inv.nxs && self.features.xs,
            repeat: self.features.errata.repeat_tlbi && !matches!(inv.scope(), Scope::Local),
            regime: inv.regime(),
            on_this_pe: PhantomData,
        }
    }

    /// The TLBIs of a request.
    #[inline(always)]
    fn issue_all(&self, inv: &Invalidation) {
        if matches!(inv.extent(), Extent::Page { .. }) {
            let op = single(inv, &self.features);
            self.issue.tlbi(op);
            if inv.kpti {
                if let Some(pair) = pair_of(op) {
                    self.issue.tlbi(pair);
                }
            }
        } else {
            self.issue_plan(inv);
        }
    }

    #[inline(never)]
    fn issue_plan(&self, inv: &Invalidation) {
        for op in plan(inv, &self.features) {
            self.issue.tlbi(op);
        }
    }

    /// Ageing: entries whose access flag was cleared will be walked again, sooner or later.
    ///
    /// Nothing waits for the TLBIs. Until some later DSB of this PE, at the latest the one of the next context switch, an access
    /// through the old entry may leave the flag clear: the page looks older than it is, and nothing worse. Whoever then takes
    /// the page away invalidates it as ever; "the flag is clear" never means "it is in no TLB".
    pub fn age(&self, inv: &Invalidation) {
        // R4 all the same: a walk that sees the flag still set would make the TLBI useless.
        self.order_stores(inv.scope());
        self.issue_all(inv);
    }

    /// Between clearing a user-executable entry and writing it with other permissions: on CPUs with
    /// [`Errata::break_user_exec`](crate::Errata::break_user_exec) the invalidation has to stand here, and is done. Whether it was.
    ///
    /// If not, the entry may be written at once, or changed in place, and is invalidated afterwards as ever.
    pub fn break_for_permissions<P: Pinned + ?Sized>(&self, pinned: &P, inv: &Invalidation) -> bool {
        let due = self.features.errata.break_user_exec;
        if due {
            self.invalidate(pinned, inv).sync();
        }
        due
    }

    /// Stage 2: makes every stale copy that `request` covers unusable, and every combined one made from it.
    ///
    /// Executed at EL2 with the guest's VMID in VTTBR_EL2 and HCR_EL2.TGE = 0.
    ///
    /// ```text
    ///   DSB ISHST           R4
    ///   TLBI IPAS2E1IS ...        stage-2 entries; combined entries, which TLBs hold by VA, stay
    ///   DSB ISH             R5    or a walk that still uses a stage-2 entry makes a combined one after the next step
    ///   TLBI VMALLE1IS            combined entries, of every VA: nobody knows which
    ///   DSB ISH             R5    by Pending::sync
    /// ```
    ///
    /// No ISB (R6): the guest is reached through an exception return.
    pub fn invalidate_stage2<'t, P: Pinned + ?Sized>(&'t self, pinned: &'t P, request: &Stage2) -> Pending<'t, I> {
        let _ = pinned;
        self.order_stores(request.scope());
        let mut both = false;
        for op in plan_stage2(request, &self.features) {
            both = matches!(op.target, Target::AllStages | Target::AllVmids);
            self.issue.tlbi(op);
        }
        if !both {
            self.issue.dsb(completing(request.scope(), false));
            self.issue.tlbi(Op::new(Regime::El10, request.scope(), Target::All));
        }
        Pending {
            tlb: self,
            scope: request.scope(),
            isb: false,
            nxs: false,
            repeat: self.features.errata.repeat_tlbi && !matches!(request.scope(), Scope::Local),
            regime: Regime::El10,
            on_this_pe: PhantomData,
        }
    }

    /// [`invalidate_stage2`](Self::invalidate_stage2), but nothing else than what was asked for.
    ///
    /// # Errors
    /// What [`Stage2::check`] says; no instruction has been issued then.
    pub fn try_invalidate_stage2<'t, P: Pinned + ?Sized>(
        &'t self,
        pinned: &'t P,
        request: &Stage2,
    ) -> Result<Pending<'t, I>, RequestError> {
        request.check(&self.features)?;
        Ok(self.invalidate_stage2(pinned, request))
    }

    /// One operation alone, without barriers: it orders nothing and nothing waits for it.
    ///
    /// # Errors
    /// [`RequestError::Unsupported`] if this CPU lacks the instruction; it has not been issued then.
    pub fn execute(&self, op: Op) -> Result<(), RequestError> {
        self.features.check(op.mnemonic())?;
        self.issue.tlbi(op);
        Ok(())
    }

    /// Makes entries that were invalid and now are valid visible to this PE's walker and, in time, to every other.
    ///
    /// Nothing is invalidated, because invalid entries are not cached (R2). Without it the first access may fault
    /// although the entry is there; a kernel that handles such spurious faults may leave it out for user mappings.
    #[inline]
    pub fn publish(&self) {
        self.issue.dsb(Dsb::Ishst);
        self.issue.isb();
    }

    /// After a write to TTBR0_EL1 or TTBR1_EL1: from here on this PE uses the new tables.
    ///
    /// An ISB; on CPUs with [`Errata::icache_after_switch`](crate::Errata::icache_after_switch) then `IC IALLU`, `DSB NSH`, `ISB`.
    pub fn context_switched(&self) {
        self.issue.isb();
        if self.features.errata.icache_after_switch {
            self.issue.ic_iallu();
            self.issue.dsb(Dsb::Nsh);
            self.issue.isb();
        }
    }
}

/// R5: the DSB that completes TLBIs of that scope: loads and stores, or they are not waited for.
#[inline(always)]
const fn completing(scope: Scope, nxs: bool) -> Dsb {
    match (scope, nxs) {
        (Scope::Local, false) => Dsb::Nsh,
        (Scope::Inner, false) => Dsb::Ish,
        (Scope::Outer, false) => Dsb::Osh,
        (Scope::Local, true) => Dsb::NshNxs,
        (Scope::Inner, true) => Dsb::IshNxs,
        (Scope::Outer, true) => Dsb::OshNxs,
    }
}

/// Invalidations that were issued and not yet waited for. Syncs when dropped.
///
/// Until then other PEs may still use the old entries: nothing that was unmapped may be reused, and nothing new mapped in
/// its place. It cannot be sent to another thread, for only the PE that issued a TLBI can complete it.
#[must_use = "stale entries remain usable until the invalidation is synced"]
#[derive(Debug)]
pub struct Pending<'t, I: Issue> {
    tlb: &'t Tlb<I>,
    scope: Scope,
    isb: bool,
    /// Every one of them is an nXS operation.
    nxs: bool,
    repeat: bool,
    regime: Regime,
    on_this_pe: PhantomData<*const ()>,
}

impl<I: Issue> Pending<'_, I> {
    /// Waits until the invalidations have taken effect on every PE of their scope.
    #[inline(always)]
    pub fn sync(self) {
        // Not by dropping: the compiler keeps that out of line.
        ManuallyDrop::new(self).complete();
    }

    #[inline(always)]
    fn complete(&self) {
        let dsb = completing(self.scope, self.nxs);
        self.tlb.issue.dsb(dsb); // R5
        if self.repeat {
            // Any broadcast TLBI will do: its DSB waits for what the first one forgot.
            let any = Target::Va { va: VirtAddr::new(0), asid: Some(Asid::new(0)), leaf_only: true, ttl: 0 };
            self.tlb.issue.tlbi(Op { nxs: self.nxs, ..Op::new(self.regime, self.scope, any) });
            self.tlb.issue.dsb(dsb);
        }
        if self.isb {
            self.tlb.issue.isb(); // R6
        }
    }

    /// Both, to be waited for together by one DSB.
    ///
    /// If they were issued through different `Tlb`s, `other` is synced at once instead.
    pub fn merge(mut self, other: Self) -> Self {
        if core::ptr::eq(self.tlb, other.tlb) {
            self.scope = self.scope.max(other.scope);
            self.isb |= other.isb;
            self.nxs &= other.nxs;
            self.repeat |= other.repeat;
            core::mem::forget(other);
        }
        self
    }
}

impl<I: Issue> Drop for Pending<'_, I> {
    #[inline]
    fn drop(&mut self) {
        self.complete();
    }
}
