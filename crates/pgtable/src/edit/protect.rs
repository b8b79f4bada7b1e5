//! What mappings permit, what memory they are, and what has happened to them.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Kind};
use crate::edit::{Edit, Touched, check_range};
use crate::error::Error;
use crate::exclusive::{Hold, Intent};
#[cfg(feature = "fault-injection")]
use crate::fault::Fault;
use crate::geometry::Geometry;
use crate::memory::{FrameAllocator, TableMemory};
use crate::space::Mapping;
use crate::walk::{Next, Pages, Visit, Visitor, walk};
use tlbi::{Depth, Issue, Level, Pinned, VaRange, VirtAddr};

impl<M, A, I, P, G> Edit<'_, M, A, I, P, G>
where
    M: TableMemory,
    A: FrameAllocator,
    G: Geometry,
    I: Issue,
    P: Pinned + ?Sized,
{
    /// Gives everything that is mapped in `range` these attributes; holes stay holes. Blocks and runs of which it covers only a
    /// part, and that change, are split first. The access flag and what is dirty stay as they are.
    ///
    /// Permissions change in place, and cost an invalidation only where something is taken away. Another memory type, shareability
    /// or address space asks for break-before-make, which is done: an access in between faults.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; writable and executable at once; no frames for the tables of a
    /// split; [`Error::Busy`].
    pub fn protect(&mut self, range: VaRange, attributes: Attributes) -> Result<(), Error> {
        check_range::<G>(range)?;
        if attributes.is_write_execute() && !self.space.write_execute {
            return Err(Error::WriteExecute { range });
        }
        let changes = |old: Descriptor| old.with_attributes::<G>(attributes) != old;
        let (mut hold, mut reserve) =
            self.prepare(range, Intent::Change, || Ok(self.tables_to_cut(range, &changes)))?;
        self.ask(range);
        self.cut(&mut hold, &mut reserve, range, &changes);
        self.change_leaves(hold, |old| old.with_attributes::<G>(attributes));
        Ok(())
    }

    /// Calls `young` for every page and block in `range` whose access flag is set, and clears it.
    ///
    /// Nobody waits for the invalidation: an access through a stale entry may leave the flag clear, and the page looks older than
    /// it is. Never conclude from a clear flag that a page is in no TLB.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; [`Error::Busy`].
    pub fn age(&mut self, range: VaRange, young: &mut dyn FnMut(Mapping)) -> Result<(), Error> {
        check_range::<G>(range)?;
        let hold = Hold::take(self.space, range, Intent::Change, self.patient)?;
        let mut age = Age { young, touched: Touched::default() };
        let _ = walk::<M, G, _>(&self.space.memory, self.space.root, range, &mut age);
        if let Some(stale) = age.touched.stale() {
            self.tlb.age(&self.space.invalidation(&stale));
        }
        drop(hold);
        Ok(())
    }

    /// Calls `dirty` for every page and block in `range` that was written to since it was mapped or last cleaned, and makes it
    /// clean: from the end of the change on, the next write is noticed again. Only mappings that track it ever become dirty.
    ///
    /// # Errors
    /// A range that is not page-aligned or outside the space; [`Error::Busy`].
    pub fn clean(&mut self, range: VaRange, dirty: &mut dyn FnMut(Mapping)) -> Result<(), Error> {
        check_range::<G>(range)?;
        let hold = Hold::take(self.space, range, Intent::Change, self.patient)?;
        self.ask(range);
        let mut clean = Clean { dirty, touched: Touched::default() };
        let _ = walk::<M, G, _>(&self.space.memory, self.space.root, range, &mut clean);
        if let Some(stale) = clean.touched.stale() {
            self.gather.note(stale);
            self.settle();
        }
        drop(hold);
        Ok(())
    }

    /// What hardware would do on an access, where it does not: sets the access flag of the page or block at `va`, and for a write to
    /// one that tracks them, its dirty state. Whether the mapping permits the access; for the handler of access flag and
    /// permission faults. Owes no invalidation.
    ///
    /// # Errors
    /// Outside the space; [`Error::NotMapped`]; [`Error::Busy`].
    pub fn touch(&mut self, va: VirtAddr, write: bool) -> Result<bool, Error> {
        let page =
            VaRange::new(va.align_down(G::PAGE), G::PAGE).map_err(|_| Error::OutsideSpace { range: G::EVERYTHING })?;
        check_range::<G>(page)?;
        let hold = Hold::take(self.space, page, Intent::Change, self.patient)?;
        let mut touch = Touch { write, permitted: None };
        let _ = walk::<M, G, _>(&self.space.memory, self.space.root, page, &mut touch);
        drop(hold);
        touch.permitted.ok_or(Error::NotMapped { range: page, at: va })
    }

    /// Replaces every leaf of the range that is held by what `new` makes of it, with break-before-make where it is due.
    fn change_leaves(&mut self, hold: Hold<'_, M, G>, new: impl Fn(Descriptor) -> Descriptor) {
        let (space, range) = (self.space, hold.range());
        let user_exec = self.tlb.features().errata.break_user_exec;
        let mut change = Change {
            new: &new,
            user_exec,
            careless: false,
            known: Known::NONE,
            stale: Touched::default(),
            broken: Touched::default(),
        };
        #[cfg(feature = "fault-injection")]
        {
            change.careless = space.injected(Fault::RemapWithoutBreak);
        }
        let _ = walk::<M, G, _>(&space.memory, space.root, range, &mut change);
        let (stale, broken) = (change.stale.stale(), change.broken.stale());
        if let Some(broken) = broken {
            self.invalidate_now(broken.range, broken.stride, Depth::Leaf);
            let _ = walk::<M, G, _>(&space.memory, space.root, broken.range, &mut Mend { new: &new });
            self.published = false;
        }
        if let Some(stale) = stale {
            self.gather.note(stale);
            self.settle();
        }
        drop(hold);
    }
}

/// Changes leaves in place, or breaks them.
struct Change<'n, F> {
    new: &'n F,
    /// User-executable leaves are broken whatever changes.
    user_exec: bool,
    /// Nothing is broken: a fault.
    careless: bool,
    known: Known,
    stale: Touched,
    broken: Touched,
}

/// What is to be done with a leaf.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Nothing,
    /// A plain store; whether something is taken away.
    Store(bool),
    /// Break-before-make, or hardware may write to it at any time.
    Careful,
}

/// The verdict on the last entry: what becomes of a leaf does not depend on its address, and neighbours are mostly alike.
#[derive(Clone, Copy)]
struct Known {
    fields: Descriptor,
    level: Level,
    /// Bits that change.
    change: u64,
    verdict: Verdict,
}

impl Known {
    /// Of an invalid entry.
    const NONE: Self = Self { fields: Descriptor::INVALID, level: Level::L3, change: 0, verdict: Verdict::Nothing };

    #[inline(always)]
    fn is_of<G: Geometry>(&self, old: Descriptor, level: Level) -> bool {
        old.without_address::<G>() == self.fields && level == self.level
    }
}

impl<F: Fn(Descriptor) -> Descriptor> Change<'_, F> {
    /// What is to be done with an entry that is no table.
    #[inline]
    fn judged<G: Geometry>(&self, old: Descriptor, level: Level) -> Known {
        let leaf = old.kind::<G>(level) == Kind::Leaf;
        let new = if leaf { (self.new)(old) } else { old };
        let verdict = if new == old {
            Verdict::Nothing
        } else if old.is_volatile() || self.is_break_due(old, new, level) {
            Verdict::Careful
        } else {
            Verdict::Store(old.forbids_more(new))
        };
        Known { fields: old.without_address::<G>(), level, change: old.bits() ^ new.bits(), verdict }
    }

    fn is_break_due(&self, old: Descriptor, new: Descriptor, level: Level) -> bool {
        !self.careless && (old.conflicts(new, level) || (self.user_exec && old.is_user_executable()))
    }

    /// Break-before-make, or hardware may write to it at any time.
    #[inline(never)]
    fn carefully<M: TableMemory, G: Geometry>(&mut self, at: &Visit<'_, M, G>) {
        let old = at.descriptor();
        let new = (self.new)(old);
        if self.is_break_due(old, new, at.level()) {
            at.replace(Descriptor::broken);
            self.broken.add(at.start().bits(), at.last().bits(), at.level());
        } else {
            // What hardware has set meanwhile does not change what is permitted.
            at.replace(self.new);
            if old.forbids_more(new) {
                self.stale.add(at.start().bits(), at.last().bits(), at.level());
            }
        }
    }
}

impl<M: TableMemory, G: Geometry, F: Fn(Descriptor) -> Descriptor> Visitor<M, G> for Change<'_, F> {
    #[inline(always)]
    fn pages(&mut self, at: &Pages<'_, M, G>) -> Next {
        let mut known = self.known;
        let mut index = 0;
        while index < at.len() {
            let first = index;
            let mut old = at.read(index);
            if !known.is_of::<G>(old, Level::L3) {
                known = self.judged::<G>(old, Level::L3);
            }
            let verdict = known.verdict;
            if verdict == Verdict::Careful {
                self.carefully(&at.visit_read(index, old));
                index += 1;
                continue;
            }
            // This one, and all that follow and are like it.
            loop {
                if verdict != Verdict::Nothing {
                    at.set(index, Descriptor::from_bits(old.bits() ^ known.change));
                }
                index += 1;
                if index == at.len() {
                    break;
                }
                old = at.read(index);
                if old.without_address::<G>() != known.fields {
                    break;
                }
            }
            if verdict == Verdict::Store(true) {
                let page = |index: usize| at.start().bits() + index as u64 * G::PAGE;
                self.stale.add(page(first), page(index - 1) | (G::PAGE - 1), Level::L3);
            }
        }
        self.known = known;
        Next::Skip
    }

    #[inline(always)]
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        let old = at.descriptor();
        if !self.known.is_of::<G>(old, at.level()) {
            self.known = self.judged::<G>(old, at.level());
        }
        match self.known.verdict {
            Verdict::Nothing => {}
            Verdict::Store(forbids) => {
                at.set(Descriptor::from_bits(old.bits() ^ self.known.change));
                if forbids {
                    self.stale.add(at.start().bits(), at.last().bits(), at.level());
                }
            }
            Verdict::Careful => self.carefully(at),
        }
        Next::Skip
    }
}

/// Makes what was broken: nothing else that is invalid has other bits set.
struct Mend<'n, F> {
    new: &'n F,
}

impl<M: TableMemory, G: Geometry, F: Fn(Descriptor) -> Descriptor> Visitor<M, G> for Mend<'_, F> {
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        let old = at.descriptor();
        if !old.is_valid() && old != Descriptor::INVALID {
            at.set((self.new)(old.mended()));
        }
        Next::Skip
    }
}

struct Age<'y> {
    young: &'y mut dyn FnMut(Mapping),
    touched: Touched,
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Age<'_> {
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if at.kind() == Kind::Leaf && at.descriptor().is_accessed() {
            let old = at.replace(|old| old.with_accessed(false));
            (self.young)(Mapping::new::<G>(at.span_start(), old, at.level()));
            self.touched.add(at.start().bits(), at.last().bits(), at.level());
        }
        Next::Continue
    }
}

struct Clean<'d> {
    dirty: &'d mut dyn FnMut(Mapping),
    touched: Touched,
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Clean<'_> {
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if at.kind() == Kind::Leaf && at.descriptor().is_dirty() {
            let old = at.replace(Descriptor::with_clean);
            (self.dirty)(Mapping::new::<G>(at.span_start(), old, at.level()));
            if old.forbids_more(old.with_clean()) {
                self.touched.add(at.start().bits(), at.last().bits(), at.level());
            }
        }
        Next::Continue
    }
}

struct Touch {
    write: bool,
    permitted: Option<bool>,
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Touch {
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if at.kind() == Kind::Leaf {
            let attributes = at.descriptor().attributes::<G>();
            let permitted = attributes.write() || !self.write;
            if permitted {
                let dirty = self.write && attributes.track_dirty();
                let touched = |old: Descriptor| if dirty { old.with_dirty() } else { old };
                at.replace(|old| touched(old.with_accessed(true)));
            }
            self.permitted = Some(permitted);
        }
        Next::Skip
    }
}
