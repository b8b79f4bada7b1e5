//! Edits of a live space.
//!
//! Each works in the same steps: take every table that the range touches; survey, which may refuse and changes nothing; allocate
//! what the survey says is missing, having nothing meanwhile, and begin again; then change, which cannot fail; make the change
//! visible; give the tables back. So a refused request leaves the space, and the allocator, as they were, and edits that overlap
//! happen one after the other.
//!
//! | | |
//! |---|---|
//! | [`map`] | new leaves, the largest that fit |
//! | [`remove`] | unmap, zap, and tables that become empty |
//! | [`protect`] | permissions and types; ageing and cleaning |
//! | [`resize`] | blocks and runs that become smaller or larger, frames that move: break-before-make |

pub mod map;
pub mod protect;
pub mod remove;
pub mod resize;

use crate::error::Error;
use crate::exclusive::{Hold, Intent};
#[cfg(feature = "fault-injection")]
use crate::fault::Fault;
use crate::gather::{Gather, Owner, Stale};
use crate::geometry::{Geometry, K4, Lower};
use crate::memory::{FrameAllocator, TableMemory};
use crate::record::{self, Record, Remedy, Share};
use crate::space::AddressSpace;
use crate::sync::{notify, wait_until};
use map::Reserve;
use tlbi::{Depth, Invalidation, Issue, Level, PhysAddr, Pinned, Scope, Tlb, VaRange, VirtAddr};

/// The tables of a range, taken, and the frames that the edit needs.
type Prepared<'c, M, A, G> = (Hold<'c, M, G>, Reserve<'c, M, A, G>);

/// A change to a space, from [`AddressSpace::change`].
pub struct Edit<'c, M, A, I, P, G = Lower<K4, 48>>
where
    M: TableMemory,
    A: FrameAllocator,
    I: Issue,
    P: Pinned + ?Sized,
    G: Geometry,
{
    pub(crate) space: &'c AddressSpace<M, A, G>,
    pub(crate) tlb: &'c Tlb<I>,
    pinned: &'c P,
    owner: &'c mut dyn Owner<M, G>,
    pub(crate) gather: Gather<G>,
    /// What the space's record holds for this change.
    share: Share,
    /// Everything it was asked to take away, found or not.
    asked: Option<VaRange>,
    /// Every entry that became valid has been made visible.
    pub(crate) published: bool,
    /// It may wait for tables.
    pub(crate) patient: bool,
}

impl<'c, M, A, I, P, G> Edit<'c, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    pub(crate) fn new(
        space: &'c AddressSpace<M, A, G>,
        tlb: &'c Tlb<I>,
        pinned: &'c P,
        owner: &'c mut dyn Owner<M, G>,
        share: Share,
        patient: bool,
    ) -> Self {
        let gather = Gather::new();
        Self { space, tlb, pinned, owner, gather, share, asked: None, published: true, patient }
    }

    /// Takes the tables of `range`, asks `survey` how many tables are missing, and allocates them, having nothing meanwhile.
    fn prepare(
        &self,
        range: VaRange,
        intent: Intent,
        mut survey: impl FnMut() -> Result<usize, Error>,
    ) -> Result<Prepared<'c, M, A, G>, Error> {
        self.prepare_ahead(range, intent, |_| survey(), |_| ())
    }

    /// The same where something can be done with the frames while nothing is taken yet; the survey sees what was.
    fn prepare_ahead(
        &self,
        range: VaRange,
        intent: Intent,
        mut survey: impl FnMut(&mut Reserve<'c, M, A, G>) -> Result<usize, Error>,
        mut ahead: impl FnMut(&mut Reserve<'c, M, A, G>),
    ) -> Result<Prepared<'c, M, A, G>, Error> {
        let mut reserve = Reserve::new(&self.space.memory, &self.space.frames);
        loop {
            let hold = Hold::take(self.space, range, intent, self.patient)?;
            let missing = survey(&mut reserve)?;
            if missing <= reserve.len() {
                return Ok((hold, reserve));
            }
            drop(hold);
            reserve.grow(missing)?;
            ahead(&mut reserve);
        }
    }

    /// This change takes `range` away, or some permission in it, whether it finds anything there or not.
    fn ask(&mut self, range: VaRange) {
        // A space lies in one half, so there is a union.
        self.asked = Some(self.asked.and_then(|asked| asked.union(range)).unwrap_or(range));
    }

    /// A cursor has taken leaves away; their table is still taken.
    pub(crate) fn take_away(&mut self, stale: Stale) {
        self.ask(stale.range);
        self.gather.note(stale);
        self.settle();
    }

    /// What has become stale is in the record and visible to walkers. The tables in which it was are still taken: another core
    /// that finds an entry cleared sees the record raised; and it may have to invalidate the entry, which a DSB of its own
    /// would not order (R4).
    pub(crate) fn settle(&mut self) {
        #[cfg(feature = "fault-injection")]
        if self.space.injected(Fault::LeafOnlyAfterTableFree) {
            self.gather.forget_tables();
        }
        if let Some(stale) = self.gather.stale() {
            self.space.record.lock().raise(&mut self.share, &stale);
            self.tlb.order_stores(Scope::Inner);
        }
    }

    /// Makes stale copies unusable at once, tables taken: break-before-make.
    fn invalidate_now(&self, range: VaRange, stride: Level, depth: Depth) {
        self.tlb.invalidate(self.pinned, &self.space.pages(range, stride, depth)).sync();
    }

    /// Flushes the gather, by its own record, and gives back what it held. Nothing is taken.
    pub(crate) fn flush(&mut self) {
        self.flush_by(None);
    }

    fn flush_by(&mut self, instead: Option<Invalidation>) {
        if instead.is_none() && self.gather.is_empty() {
            return;
        }
        self.flush_gather(instead);
        let space = self.space;
        let reader = space.grace.enter();
        self.gather.release(&space.memory, self.owner, &reader);
        drop(reader);
        space.reclaim();
    }

    fn flush_gather(&mut self, instead: Option<Invalidation>) {
        let inv = instead.or(self.gather.stale().map(|stale| self.space.invalidation(&stale)));
        // SAFETY: `settle` orders the stores of every change before it gives the tables back. Each remedy's request covers what
        // was asked for, and so what was removed.
        unsafe { self.gather.flush(self.tlb, self.pinned, inv) };
    }

    /// Flushes what is pending in `range` so that something may be mapped over it. Its tables are taken: nothing is removed there
    /// meanwhile, and who removed something before has given them back since.
    pub(crate) fn flush_pending(&mut self, range: VaRange) {
        let space = self.space;
        let (alone, reach) = {
            let record = space.record.lock();
            let pending = record.is_pending(range);
            #[cfg(feature = "fault-injection")]
            let pending = pending && !space.injected(Fault::MapOverPending);
            if !pending {
                return;
            }
            (record.is_sole_remover(&self.share), record.reach())
        };
        if alone {
            // What is pending there is this change's: its own record says how deep. Others may begin to remove elsewhere.
            self.flush_gather(None);
            space.record.lock().lower(&mut self.share);
        } else if let Some((stride, depth)) = reach {
            // Others have, and their records are theirs; they will flush again when they finish. Of a table that one of them
            // unlinked, any address in its span will do: leaves elsewhere in the span stay theirs, for nothing is mapped there.
            // SAFETY: each of them ordered its stores in `settle` before it gave back the tables that are taken here.
            unsafe { self.tlb.invalidate_ordered(self.pinned, &space.pages(range, stride, depth)) }.sync();
        }
    }

    /// What a change that was asked to remove `asked` invalidates at its end instead of its own record, because another
    /// change is open: that one may have cleared what this one found cleared, and is not to be waited for.
    fn remedy(&self, record: &Record, asked: VaRange) -> Option<Invalidation> {
        match self.space.remedy {
            Remedy::WholeRange => Some(self.space.pages(asked, Level::L3, Depth::Full)),
            Remedy::WholeSpace => Some(self.space.everything()),
            Remedy::Counters => record.reach().map(|(stride, depth)| {
                let strides = asked.widen(G::size(stride)).size() >> G::shift(stride);
                if self.tlb.features().range || strides <= record::STRIDES_IN_COMPANY {
                    self.space.pages(asked, stride, depth)
                } else {
                    self.space.everything()
                }
            }),
            // Who must not wait does more instead.
            Remedy::Wait => (!self.patient).then(|| self.space.everything()),
        }
    }

    /// The end of a change: flush, lower the record, give frames back.
    fn finish(&mut self) {
        if !self.published {
            self.tlb.publish();
        }
        let mut instead: Option<Invalidation> = None;
        if let Some(asked) = self.asked {
            let record = self.space.record.lock();
            if record.is_nested() {
                instead = self.remedy(&record, asked);
                drop(record);
                #[cfg(feature = "fault-injection")]
                self.sabotage_remedy(&mut instead);
            }
        }
        #[cfg(feature = "fault-injection")]
        if self.space.injected(Fault::TablesFreedBeforeFlush) {
            self.gather.release_tables_early(&self.space.memory, &self.space.frames, self.owner);
        }
        #[cfg(feature = "fault-injection")]
        let early =
            self.space.injected(Fault::LoweredBeforeFlush).then(|| self.space.record.lock().close(&mut self.share));
        self.flush_by(instead);
        #[cfg(feature = "fault-injection")]
        let newer = early.unwrap_or_else(|| self.space.record.lock().close(&mut self.share));
        #[cfg(not(feature = "fault-injection"))]
        let newer = self.space.record.lock().close(&mut self.share);
        notify(&self.space.record);
        let waits = self.space.remedy == Remedy::Wait && self.asked.is_some() && self.patient;
        #[cfg(feature = "fault-injection")]
        let waits = waits && !self.space.injected(Fault::UnflushedNeighbour);
        if waits {
            // This change has flushed and left, so whoever waits for it goes on: two finishes never wait for each other.
            wait_until(&self.space.record, |record| record.is_over(newer));
        }
    }
}

#[cfg(feature = "fault-injection")]
impl<M, A, I, P, G> Edit<'_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    /// What the faulty finishes do in company.
    fn sabotage_remedy(&mut self, instead: &mut Option<Invalidation>) {
        if self.space.injected(Fault::LostFreedTables) {
            *instead = None;
            self.gather.forget_tables();
        } else if self.space.injected(Fault::GatherRecordResetLate) {
            *instead = None;
            self.gather.forget_everything();
        } else if self.space.injected(Fault::UnflushedNeighbour) {
            *instead = None;
        }
    }
}

impl<M, A, I, P, G> Drop for Edit<'_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    fn drop(&mut self) {
        self.finish();
    }
}

impl<M, A, I, P, G> core::fmt::Debug for Edit<'_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Edit").field("asid", &self.space.asid()).field("gather", &self.gather).finish_non_exhaustive()
    }
}

pub(crate) fn check_range<G: Geometry>(range: VaRange) -> Result<(), Error> {
    if !range.is_aligned(G::PAGE) {
        return Err(Error::UnalignedRange { range });
    }
    if !G::contains(range) {
        return Err(Error::OutsideSpace { range });
    }
    Ok(())
}

pub(crate) fn check_frames<G: Geometry>(frame: PhysAddr, size: u64, pa_bits: u8) -> Result<(), Error> {
    if !frame.is_aligned(G::PAGE) {
        return Err(Error::UnalignedFrame { frame });
    }
    match frame.checked_add(size - 1) {
        Some(last) if last.bits() >> pa_bits == 0 => Ok(()),
        _ => Err(Error::FrameTooHigh { frame, size, pa_bits }),
    }
}

/// Where leaves have changed so that stale copies must go: from the first to the last, and the smallest level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touched {
    first: u64,
    last: u64,
    /// As wide as it is read: a narrow store that a wider load follows waits for the cache.
    level: i64,
}

impl Default for Touched {
    fn default() -> Self {
        Self { first: u64::MAX, last: 0, level: i64::MIN }
    }
}

impl Touched {
    #[inline(always)]
    pub(crate) fn add(&mut self, start: u64, last: u64, level: Level) {
        self.first = self.first.min(start);
        self.last = self.last.max(last);
        self.level = self.level.max(level.number().into());
    }

    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.first <= self.last
    }

    /// As a request wants it.
    pub(crate) fn stale(self) -> Option<Stale> {
        let size = self.last.checked_sub(self.first)?.checked_add(1)?;
        let range = VaRange::new(VirtAddr::new(self.first), size).ok()?;
        Some(Stale::new(range, Level::from_number(i8::try_from(self.level).ok()?)?, Depth::Leaf))
    }
}
