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
//!   ISB               R6         this PE's own later accesses, where FEAT_ETS2 does not already order them
//! ```
//!
//! Local invalidation is the same with NSHST and NSH. Arm ARM D8.16.6 "TLB maintenance instruction ordering".

use crate::barrier::Dsb;
use crate::features::Features;
use crate::issue::Issue;
use crate::op::Scope;
use crate::plan::{Invalidation, plan};
use core::marker::PhantomData;

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
    #[inline]
    pub fn invalidate<'t, P: Pinned + ?Sized>(&'t self, pinned: &'t P, inv: &Invalidation) -> Pending<'t, I> {
        self.order_stores(inv.scope());
        // SAFETY: the line above.
        unsafe { self.invalidate_ordered(pinned, inv) }
    }

    /// R4 alone: this PE's stores to tables so far are visible to the walkers of every PE in `scope`.
    ///
    /// For a table that several PEs edit under a lock: executed before the lock is released, it lets whoever finds an entry
    /// cleared invalidate it, not only the PE that cleared it.
    #[inline]
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
    #[inline]
    pub unsafe fn invalidate_ordered<'t, P: Pinned + ?Sized>(
        &'t self,
        pinned: &'t P,
        inv: &Invalidation,
    ) -> Pending<'t, I> {
        let _ = pinned;
        for op in plan(inv, &self.features) {
            self.issue.tlbi(op);
        }
        Pending { tlb: self, scope: inv.scope(), isb: inv.needs_isb(&self.features), on_this_pe: PhantomData }
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
    on_this_pe: PhantomData<*const ()>,
}

impl<I: Issue> Pending<'_, I> {
    /// Waits until the invalidations have taken effect on every PE of their scope.
    #[inline]
    pub fn sync(self) {
        drop(self);
    }

    /// Both, to be waited for together by one DSB.
    ///
    /// If they were issued through different `Tlb`s, `other` is synced at once instead.
    pub fn merge(mut self, other: Self) -> Self {
        if core::ptr::eq(self.tlb, other.tlb) {
            self.scope = self.scope.max(other.scope);
            self.isb |= other.isb;
            core::mem::forget(other);
        }
        self
    }
}

impl<I: Issue> Drop for Pending<'_, I> {
    #[inline]
    fn drop(&mut self) {
        // R5: loads and stores, or the TLBI is not waited for.
        self.tlb.issue.dsb(match self.scope {
            Scope::Local => Dsb::Nsh,
            Scope::Inner => Dsb::Ish,
            Scope::Outer => Dsb::Osh,
        });
        if self.isb {
            self.tlb.issue.isb(); // R6
        }
    }
}
