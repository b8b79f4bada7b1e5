//! Leaves that become smaller or larger, and frames that move: break-before-make, once (Arm ARM D8.17.1).
//!
//! ```text
//!   FEAT_BBM   size of a block                                     contiguous bit
//!      0       invalid; DSB; TLBI; DSB; new                        all members invalid; DSB; TLBI of the run; DSB; all anew
//!      1       nT set; DSB; TLBI; DSB; new; TLBI                   the same
//!      2       new; DSB; TLBI                                      in place; DSB; TLBI
//!      3       new; for a table in place of a block nothing more   in place
//! ```
//!
//! At level 2 an access between the change and the TLBI may raise a TLB conflict abort: a kernel that does not handle them lowers
//! [`Features::bbm`](tlbi::Features::bbm) to 1. While an entry is broken, its table is taken; nobody else can map there.

use crate::attributes::Hierarchical;
use crate::descriptor::{Descriptor, Kind};
use crate::edit::map::Reserve;
use crate::edit::{Edit, check_frames, check_range};
use crate::error::Error;
use crate::exclusive::{Hold, Intent};
#[cfg(feature = "fault-injection")]
use crate::fault::Fault;
#[cfg(feature = "fault-injection")]
use crate::gather::Stale;
use crate::geometry::Geometry;
use crate::memory::{FrameAllocator, TableMemory, entry};
use crate::walk::Path;
use tlbi::{Depth, Issue, Level, PhysAddr, Pinned, VaRange, VirtAddr};

/// How a change of size is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Break,
    NoTranslationConflict,
    Direct,
    DirectWithoutAborts,
}

impl<M, A, I, P, G> Edit<'_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    /// Splits blocks and runs that reach over an end of `range`, so that both ends lie between leaves. Nothing that is translated
    /// changes.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; no frames for tables; [`Error::Busy`].
    pub fn split(&mut self, range: VaRange) -> Result<(), Error> {
        check_range::<G>(range)?;
        let (mut hold, mut reserve) =
            self.prepare(range, Intent::Change, || Ok(self.tables_to_cut(range, &|_| true)))?;
        self.cut(&mut hold, &mut reserve, range, &|_| true);
        drop(hold);
        Ok(())
    }

    /// Makes one block of the table that translates `range`: the span of an entry at a level that may hold blocks. The access flag
    /// and dirty state of any page become the block's.
    ///
    /// # Errors
    /// [`Error::NotUniform`] if `range` is no such span, or what it holds is not one aligned block in adjacent pages of equal
    /// attributes; outside the space; [`Error::Busy`].
    pub fn collapse(&mut self, range: VaRange) -> Result<(), Error> {
        check_range::<G>(range)?;
        let level = (-1..3).filter_map(Level::from_number).find(|level| {
            *level >= G::ROOT
                && G::has_leaves(*level)
                && G::size(*level) == range.size()
                && range.is_aligned(range.size())
        });
        let refused = Error::NotUniform { range };
        let level = level.ok_or(refused)?;
        // The whole span of an entry that points at a table: its table is taken, and the one above it to unlink it.
        let hold = Hold::take(self.space, range, Intent::Unlink, self.patient)?;
        let path = Path::<G>::new(&self.space.memory, self.space.root, range.start());
        let (slot, pointer) = path.at(level).ok_or(refused)?;
        if path.level() == level && pointer.kind::<G>(level) == Kind::Leaf {
            return Ok(());
        }
        let below = level.below().ok_or(refused)?;
        if path.level() != below || pointer.kind::<G>(level) != Kind::Table {
            return Err(refused);
        }
        let table = pointer.next::<G>();
        let block = self.uniform(table, below, level, range).ok_or(refused)?;
        self.put_block(slot, table, below, block, range);
        hold.retire(table);
        drop(hold);
        self.space.reclaim();
        Ok(())
    }

    /// The block that the leaves of a table amount to, if they do.
    fn uniform(&self, table: PhysAddr, below: Level, level: Level, range: VaRange) -> Option<Descriptor> {
        let memory = &self.space.memory;
        let first = Descriptor::from_bits(memory.load(table));
        if first.kind::<G>(below) != Kind::Leaf || !first.output::<G>(below).is_aligned(range.size()) {
            return None;
        }
        let output = first.output::<G>(below);
        let block = first.resized::<G>(level, output);
        let mut merged = block;
        for index in 0..G::entries(below) {
            let leaf = Descriptor::from_bits(memory.load(entry(table, index)));
            let expected = output.bits() + ((index as u64) << G::shift(below));
            let like = leaf.kind::<G>(below) == Kind::Leaf
                && leaf.output::<G>(below).bits() == expected
                && leaf.resized::<G>(level, output).is_like(block);
            if !like {
                return None;
            }
            merged = merged.merged(leaf);
        }
        Some(merged)
    }

    /// Puts a block in the place of a table, and waits until no PE can be in the table.
    fn put_block(&mut self, slot: PhysAddr, table: PhysAddr, below: Level, block: Descriptor, range: VaRange) {
        let memory = &self.space.memory;
        let way = self.way();
        match way {
            Way::Break => memory.store(slot, Descriptor::INVALID.bits()),
            Way::NoTranslationConflict => memory.store_release(slot, block.with_nt(true).bits()),
            Way::Direct | Way::DirectWithoutAborts => memory.store_release(slot, block.bits()),
        }
        #[cfg(feature = "fault-injection")]
        let careless = self.space.injected(Fault::CollapseLeafOnly);
        #[cfg(not(feature = "fault-injection"))]
        let careless = false;
        if careless {
            // In pieces: without range operations the whole of it would be done by ASID, the table too.
            let piece = G::size(below) * 64;
            for start in (range.start().bits()..=range.last().bits()).step_by(piece as usize) {
                let piece = VaRange::new(VirtAddr::new(start), piece).unwrap_or(range);
                self.invalidate_now(piece, below, Depth::Leaf);
            }
        } else {
            self.invalidate_now(range, below, Depth::Full);
        }
        // Now hardware sets no flag in the table any more.
        let mut merged = block;
        for index in 0..G::entries(below) {
            merged = merged.merged(Descriptor::from_bits(memory.load(entry(table, index))));
        }
        if way == Way::Break {
            memory.store_release(slot, merged.bits());
            self.published = false;
        } else {
            let _ = replace(memory, slot, |now| now.merged(merged).with_nt(false));
        }
    }

    /// Makes contiguous runs of all groups of leaves in `range` that amount to one; others stay as they are.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; [`Error::Busy`].
    pub fn fold(&mut self, range: VaRange) -> Result<(), Error> {
        check_range::<G>(range)?;
        let hold = Hold::take(self.space, range, Intent::Change, self.patient)?;
        let mut at = Some(range.start());
        while let Some(va) = at {
            let path = Path::<G>::new(&self.space.memory, self.space.root, va);
            let (slot, first) = path.last();
            let level = path.level();
            let mut size = G::size(level);
            let run = G::run_size(level);
            let starts = va.is_aligned(run) && run > size && range.last().bits() - va.bits() >= run - 1;
            if starts && first.kind::<G>(level) == Kind::Leaf {
                if !first.is_contiguous() && self.is_run(slot, level, first) {
                    self.set_contiguous(slot, level, va, true);
                }
                size = run;
            }
            let last = va.bits() | (size - 1);
            at = (last < range.last().bits()).then(|| VirtAddr::new(last + 1));
        }
        drop(hold);
        Ok(())
    }

    /// Makes single leaves of all contiguous runs that touch `range`.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; [`Error::Busy`].
    pub fn unfold(&mut self, range: VaRange) -> Result<(), Error> {
        check_range::<G>(range)?;
        let hold = Hold::take(self.space, range, Intent::Change, self.patient)?;
        let mut at = Some(range.start());
        while let Some(va) = at {
            let path = Path::<G>::new(&self.space.memory, self.space.root, va);
            let (slot, first) = path.last();
            let level = path.level();
            let mut size = G::size(level);
            if first.kind::<G>(level) == Kind::Leaf && first.is_contiguous() {
                size = G::run_size(level);
                self.unfold_at(slot, level, va);
            }
            let last = va.bits() | (size - 1);
            at = (last < range.last().bits()).then(|| VirtAddr::new(last + 1));
        }
        drop(hold);
        Ok(())
    }

    /// Moves the page or block at `va` to the frame `to`: while nobody can reach either, `copy` is called with the old frame, the
    /// new one and their size. The old frame goes to the owner. A run is unfolded first.
    ///
    /// `copy` must not call into the space: the table is taken.
    ///
    /// # Errors
    /// Outside the space; [`Error::NotMapped`]; a frame that is not aligned to the mapping's size or too high; [`Error::Busy`].
    pub fn relocate(
        &mut self,
        va: VirtAddr,
        to: PhysAddr,
        copy: &mut dyn FnMut(PhysAddr, PhysAddr, u64),
    ) -> Result<(), Error> {
        let page =
            VaRange::new(va.align_down(G::PAGE), G::PAGE).map_err(|_| Error::OutsideSpace { range: G::EVERYTHING })?;
        check_range::<G>(page)?;
        if !self.gather.has_room() {
            self.flush();
        }
        let hold = Hold::take(self.space, page, Intent::Change, self.patient)?;
        let memory = &self.space.memory;
        let path = Path::<G>::new(memory, self.space.root, va);
        let (slot, descriptor) = path.last();
        let level = path.level();
        let size = G::size(level);
        if descriptor.kind::<G>(level) != Kind::Leaf {
            return Err(Error::NotMapped { range: page, at: va });
        }
        check_frames::<G>(to, size, self.space.pa_bits)?;
        if !to.is_aligned(size) {
            return Err(Error::UnalignedFrame { frame: to });
        }
        let span = whole::<G>(va, level);
        if descriptor.is_contiguous() {
            self.unfold_at(slot, level, va);
        }
        #[cfg(feature = "fault-injection")]
        if self.space.injected(Fault::RemapWithoutBreak) {
            let old = replace(memory, slot, |old| old.resized::<G>(level, to));
            copy(old.output::<G>(level), to, size);
            self.gather.leaves(span.start(), level, old, 1);
            self.gather.note(Stale::new(span, level, Depth::Leaf));
            self.settle();
            return Ok(());
        }
        let old = replace(memory, slot, Descriptor::broken);
        self.invalidate_now(span, level, Depth::Leaf);
        // If `copy` panics, the old frame stays mapped.
        let mut make = Make { memory, slot, new: old };
        copy(old.output::<G>(level), to, size);
        make.new = old.resized::<G>(level, to);
        drop(make);
        self.published = false;
        self.gather.leaves(span.start(), level, old, 1);
        drop(hold);
        Ok(())
    }

    fn way(&self) -> Way {
        #[cfg(feature = "fault-injection")]
        if self.space.injected(Fault::SplitWithoutBbm) {
            return Way::DirectWithoutAborts;
        }
        match self.tlb.features().bbm {
            0 => Way::Break,
            1 => Way::NoTranslationConflict,
            2 => Way::Direct,
            _ => Way::DirectWithoutAborts,
        }
    }

    /// Tables that [`cut`](Self::cut) needs.
    pub(crate) fn tables_to_cut(&self, range: VaRange, changes: &dyn Fn(Descriptor) -> bool) -> usize {
        let mut tables = 0;
        for (second, at) in [(false, range.start()), (true, range.last())] {
            let path = Path::<G>::new(&self.space.memory, self.space.root, at);
            let mut level = path.level();
            let (_, descriptor) = path.last();
            if descriptor.kind::<G>(level) != Kind::Leaf || !changes(descriptor) {
                continue;
            }
            while reaches_over(whole::<G>(at, level), range) {
                // An entry at both ends is split once.
                if !second || !whole::<G>(at, level).contains(range.start()) {
                    tables += 1;
                }
                let Some(below) = level.below() else { break };
                level = below;
            }
        }
        tables
    }

    /// Splits and unfolds what reaches over the ends of `range`, whose tables are taken; but leaves that stay as they are.
    pub(crate) fn cut(
        &mut self,
        hold: &mut Hold<'_, M, G>,
        reserve: &mut Reserve<'_, M, A, G>,
        range: VaRange,
        changes: &dyn Fn(Descriptor) -> bool,
    ) {
        #[cfg(feature = "fault-injection")]
        let careless = self.space.injected(Fault::ContiguousPartial);
        #[cfg(not(feature = "fault-injection"))]
        let careless = false;
        for at in [range.start(), range.last()] {
            loop {
                let path = Path::<G>::new(&self.space.memory, self.space.root, at);
                let (slot, descriptor) = path.last();
                let level = path.level();
                if descriptor.kind::<G>(level) != Kind::Leaf || !changes(descriptor) {
                    break;
                }
                let run = at.align_down(G::run_size(level));
                let run = VaRange::new(run, G::run_size(level)).unwrap_or(range);
                if descriptor.is_contiguous() && !careless && reaches_over(run, range) {
                    self.unfold_at(slot, level, at);
                } else if reaches_over(whole::<G>(at, level), range) {
                    let Some(below) = level.below() else { break };
                    let Some(table) = reserve.pop() else { break };
                    self.split_block(slot, level, table, whole::<G>(at, level));
                    if below != Level::L3 {
                        hold.note_linked(below, range.start().max(whole::<G>(at, level).start()));
                    }
                } else {
                    break;
                }
            }
        }
    }

    /// Puts `table`, which says the same in smaller leaves, in the place of a block. It is linked taken.
    fn split_block(&mut self, slot: PhysAddr, level: Level, table: PhysAddr, span: VaRange) {
        let Some(below) = level.below() else { return };
        let memory = &self.space.memory;
        let pointer = Descriptor::table::<G>(table, Hierarchical::empty()).taken();
        let fill = |block: Descriptor| {
            let output = block.output::<G>(level).bits();
            for index in 0..G::entries(below) {
                let part = PhysAddr::new(output + ((index as u64) << G::shift(below)));
                memory.store(entry(table, index), block.with_nt(false).resized::<G>(below, part).bits());
            }
            pointer
        };
        let way = self.way();
        match way {
            Way::Break => {
                let old = replace(memory, slot, Descriptor::broken);
                self.invalidate_now(span, level, Depth::Leaf);
                memory.store_release(slot, fill(old).bits());
                self.published = false;
            }
            Way::NoTranslationConflict => {
                let _ = replace(memory, slot, |old| old.with_nt(true));
                self.invalidate_now(span, level, Depth::Leaf);
                let _ = replace(memory, slot, fill);
                self.invalidate_now(span, level, Depth::Leaf);
            }
            Way::Direct => {
                let _ = replace(memory, slot, fill);
                self.invalidate_now(span, level, Depth::Leaf);
            }
            Way::DirectWithoutAborts => {
                let _ = replace(memory, slot, fill);
            }
        }
    }

    /// Whether the leaves from `first` on could be a run.
    fn is_run(&self, slot: PhysAddr, level: Level, first: Descriptor) -> bool {
        let output = first.output::<G>(level);
        output.is_aligned(G::run_size(level))
            && (0..G::run(level) as usize).all(|n| {
                let leaf = Descriptor::from_bits(self.space.memory.load(entry(slot, n)));
                let expected = output.bits() + ((n as u64) << G::shift(level));
                leaf.kind::<G>(level) == Kind::Leaf
                    && leaf.output::<G>(level).bits() == expected
                    && leaf.resized::<G>(level, output).is_like(first.resized::<G>(level, output))
            })
    }

    /// Unfolds the run of which the entry for `va` is a member.
    fn unfold_at(&mut self, slot: PhysAddr, level: Level, va: VirtAddr) {
        let start = va.align_down(G::run_size(level));
        let before = (va.bits() - start.bits()) >> G::shift(level);
        self.set_contiguous(PhysAddr::new(slot.bits() - 8 * before), level, start, false);
    }

    /// Sets or clears the contiguous bit of a whole run. What hardware noted in any member is said by all of them afterwards.
    fn set_contiguous(&mut self, first: PhysAddr, level: Level, start: VirtAddr, on: bool) {
        let memory = &self.space.memory;
        let Ok(run) = VaRange::new(start, G::run_size(level)) else { return };
        let slots = (0..G::run(level) as usize).map(|n| entry(first, n));
        let merge = |mut member: Descriptor, merged: Option<Descriptor>| {
            if let Some(merged) = merged {
                member = member.merged(merged);
            }
            member
        };
        let way = self.way();
        if matches!(way, Way::Break | Way::NoTranslationConflict) {
            let mut merged = None;
            for slot in slots.clone() {
                merged = Some(merge(replace(memory, slot, Descriptor::broken), merged));
            }
            self.invalidate_now(run, level, Depth::Leaf);
            for slot in slots {
                let member = Descriptor::from_bits(memory.load(slot)).mended();
                memory.store(slot, merge(member, merged).with_contiguous(on).bits());
            }
            self.published = false;
        } else {
            let mut merged = None;
            for slot in slots.clone() {
                merged = Some(merge(Descriptor::from_bits(memory.load(slot)), merged));
            }
            for slot in slots {
                let _ = replace(memory, slot, |member| merge(member, merged).with_contiguous(on));
            }
            if way == Way::Direct {
                self.invalidate_now(run, level, Depth::Leaf);
            }
        }
    }
}

/// Makes an entry, whatever happens.
struct Make<'m, M: TableMemory> {
    memory: &'m M,
    slot: PhysAddr,
    new: Descriptor,
}

impl<M: TableMemory> Drop for Make<'_, M> {
    fn drop(&mut self) {
        self.memory.store(self.slot, self.new.bits());
    }
}

/// Replaces an entry by what `new` makes of it, losing nothing that hardware does meanwhile; returns what was there. What `new`
/// wrote elsewhere is visible before.
fn replace<M: TableMemory>(memory: &M, slot: PhysAddr, mut new: impl FnMut(Descriptor) -> Descriptor) -> Descriptor {
    let mut old = Descriptor::from_bits(memory.load(slot));
    while let Err(now) = memory.compare_exchange(slot, old.bits(), new(old).bits()) {
        old = Descriptor::from_bits(now);
    }
    old
}

/// All that the entry at `level` for `va` translates.
fn whole<G: Geometry>(va: VirtAddr, level: Level) -> VaRange {
    VaRange::new(va.align_down(G::size(level)), G::size(level)).unwrap_or(G::EVERYTHING)
}

/// Whether a part of `span` lies outside `range`.
fn reaches_over(span: VaRange, range: VaRange) -> bool {
    span.start() < range.start() || span.last() > range.last()
}
