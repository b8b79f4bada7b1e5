//! Who may write to which table.
//!
//! Exclusivity is per table and taken once, not per entry. A table is *taken* while a bit is set that hardware ignores, in the
//! descriptor that points at it; the root's is in the space. The protocol:
//!
//! ```text
//!   an entry that is no table         is written by whoever has the table it stands in
//!   an entry that points at a table   is written to take that table, by compare-exchange; once taken, by who has it
//!   a table is unlinked               by whoever has it, everything beneath it, and the table above
//!   a table that was unlinked         stays taken, and so does everything beneath: who comes late cannot take it any more
//! ```
//!
//! So whoever succeeds in taking a table knows that it is linked, and that it stays linked until it is given back. No second
//! look at the way down is needed; [`grace`](crate::grace) keeps the memory from being reused while one walks there.
//!
//! An edit takes all that its range touches, from the root down and in ascending order, changes entries, makes them visible, and
//! gives everything back: overlapping edits happen one after the other, disjoint ones have nothing in common. Nobody waits for a
//! table while having another: who finds one taken gives back what it has and begins again. That order has no cycles, so
//! of several edits that collide one goes on. From an interrupt handler the answer is [`Error::Busy`].

use crate::descriptor::{Descriptor, Kind};
use crate::error::Error;
use crate::geometry::Geometry;
use crate::grace::Reader;
use crate::memory::{TableMemory, entry};
use crate::space::AddressSpace;
use crate::sync::Pause;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::walk::{Next, Visit, Visitor, index, walk};
use tlbi::{Level, PhysAddr, VaRange, VirtAddr};

/// What an edit is going to do with the tables in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Change entries.
    Change,
    /// Unlink tables that the range covers.
    Unlink,
}

/// Which tables are taken that a range covers only in part: by level, those at its start (the root among them), those at its
/// end. The others, and those at level 3, always are.
#[derive(Clone, Copy, Debug, Default)]
struct Partial {
    first: [bool; 5],
    last: [bool; 5],
}

impl Partial {
    fn of(&mut self, range: VaRange, level: Level, start: VirtAddr) -> &mut bool {
        // The first table of a level is the one whose part begins where the range does.
        if start == range.start() { &mut self.first[index(level)] } else { &mut self.last[index(level)] }
    }
}

/// What somebody else has. The root table and its first entry have one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    Root,
    Entry(PhysAddr),
}

/// All tables of a range, taken. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Hold<'s, M: TableMemory, G: Geometry> {
    memory: &'s M,
    root: PhysAddr,
    root_taken: &'s AtomicBool,
    range: VaRange,
    partial: Partial,
    /// Where it could not go on; nothing from there on is ours.
    failed: Option<Failed>,
    reader: Option<Reader<'s>>,
    geometry: core::marker::PhantomData<G>,
}

/// Takes a table, by the entry that points at it. Whether it was free.
#[inline]
pub(crate) fn take<M: TableMemory>(memory: &M, slot: PhysAddr, descriptor: Descriptor) -> bool {
    !descriptor.is_taken() && memory.compare_exchange(slot, descriptor.bits(), descriptor.taken().bits()).is_ok()
}

/// Takes the root table. Whether it was free.
pub(crate) fn take_root(taken: &AtomicBool) -> bool {
    taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// Gives a table back.
#[inline]
pub(crate) fn release<M: TableMemory>(memory: &M, slot: PhysAddr, descriptor: Descriptor) {
    memory.store_release(slot, descriptor.released().bits());
}

impl<'s, M: TableMemory, G: Geometry> Hold<'s, M, G> {
    /// Takes the tables of `range`.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody has one, and the caller is not `patient`.
    pub(crate) fn take<A>(
        space: &'s AddressSpace<M, A, G>,
        range: VaRange,
        intent: Intent,
        patient: bool,
    ) -> Result<Self, Error> {
        let mut pause = Pause::new();
        loop {
            let mut hold = Self {
                memory: &space.memory,
                root: space.root,
                root_taken: &space.root_taken,
                range,
                partial: Partial::default(),
                failed: None,
                reader: Some(space.grace.enter()),
                geometry: core::marker::PhantomData,
            };
            if hold.try_take(intent) {
                return Ok(hold);
            }
            drop(hold);
            if !patient {
                return Err(Error::Busy { range });
            }
            pause.wait();
        }
    }

    fn try_take(&mut self, intent: Intent) -> bool {
        let needs = needs::<M, G>(self.memory, self.root, G::ROOT, self.range.start(), self.range.last(), intent);
        if needs {
            if !take_root(self.root_taken) {
                self.failed = Some(Failed::Root);
                return false;
            }
            *self.partial.of(self.range, G::ROOT, self.range.start()) = true;
        }
        let mut taken = [false; 5];
        taken[index(G::ROOT)] = needs;
        let mut visitor = Take { hold: self, intent, taken };
        let (memory, root, range) = (visitor.hold.memory, visitor.hold.root, visitor.hold.range);
        walk::<M, G, _>(memory, root, range, &mut visitor).is_ok()
    }

    /// The range.
    pub(crate) fn range(&self) -> VaRange {
        self.range
    }

    /// A table at `level` has been linked, taken, whose part of the range begins at `start`.
    pub(crate) fn note_linked(&mut self, level: Level, start: VirtAddr) {
        *self.partial.of(self.range, level, start) = true;
    }

    /// A table that has been unlinked and flushed.
    pub(crate) fn retire(&self, table: PhysAddr) {
        if let Some(reader) = &self.reader {
            reader.retire(self.memory, table);
        }
    }

    fn release_all(&mut self) {
        if self.failed == Some(Failed::Root) {
            return;
        }
        let mut visitor = Release { hold: self, open: [None; 5] };
        let (memory, root, range) = (visitor.hold.memory, visitor.hold.root, visitor.hold.range);
        if walk::<M, G, _>(memory, root, range, &mut visitor).is_err() {
            for (slot, descriptor) in visitor.open.into_iter().rev().flatten() {
                release(memory, slot, descriptor);
            }
        }
        if *self.partial.of(self.range, G::ROOT, self.range.start()) {
            self.root_taken.store(false, Ordering::Release);
        }
    }
}

impl<M: TableMemory, G: Geometry> Drop for Hold<'_, M, G> {
    fn drop(&mut self) {
        self.release_all();
        // Only now: the way to what was taken led through tables that were not.
        self.reader = None;
    }
}

/// Whether entries between two addresses of a table that is covered in part, above level 3, are to be written: any that is no
/// table, and any that is covered whole if tables are to be unlinked.
fn needs<M: TableMemory, G: Geometry>(
    memory: &M,
    table: PhysAddr,
    level: Level,
    start: VirtAddr,
    last: VirtAddr,
    intent: Intent,
) -> bool {
    let size = G::size(level);
    let first = G::slot(table, level, start);
    let count = ((last.bits() >> G::shift(level)) - (start.bits() >> G::shift(level)) + 1) as usize;
    let covers_one = {
        let whole_from = (start.bits().wrapping_add(size - 1)) & !(size - 1);
        whole_from >= start.bits() && whole_from <= last.bits() && last.bits() - whole_from >= size - 1
    };
    (intent == Intent::Unlink && covers_one)
        || (0..count).any(|n| Descriptor::from_bits(memory.load(entry(first, n))).kind::<G>(level) != Kind::Table)
}

struct Take<'h, 's, M: TableMemory, G: Geometry> {
    hold: &'h mut Hold<'s, M, G>,
    intent: Intent,
    /// Of the tables on the way to where the walk is, by level.
    taken: [bool; 5],
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Take<'_, '_, M, G> {
    fn table_pre(&mut self, at: &Visit<'_, M, G>) -> Next {
        let Some(below) = at.level().below() else { return Next::Skip };
        let always = below == Level::L3 || at.is_whole();
        let table = at.descriptor().next::<G>();
        let needed = always || needs::<M, G>(at.memory(), table, below, at.start(), at.last(), self.intent);
        if needed && !take(at.memory(), at.slot(), at.descriptor()) {
            self.hold.failed = Some(Failed::Entry(at.slot()));
            return Next::Stop;
        }
        self.taken[index(below)] = needed;
        if needed && !always {
            let range = self.hold.range;
            *self.hold.partial.of(range, below, at.start()) = true;
        }
        if below == Level::L3 { Next::Skip } else { Next::Continue }
    }

    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if self.taken[index(at.level())] {
            return Next::Skip;
        }
        // There was a table a moment ago, when it was found that this one need not be taken.
        self.hold.failed = Some(Failed::Entry(at.slot()));
        Next::Stop
    }
}

struct Release<'h, 's, M: TableMemory, G: Geometry> {
    hold: &'h mut Hold<'s, M, G>,
    /// Tables that are ours and that the walk is in, by level.
    open: [Option<(PhysAddr, Descriptor)>; 5],
}

impl<M: TableMemory, G: Geometry> Visitor<M, G> for Release<'_, '_, M, G> {
    fn table_pre(&mut self, at: &Visit<'_, M, G>) -> Next {
        if self.hold.failed == Some(Failed::Entry(at.slot())) {
            return Next::Stop;
        }
        let Some(below) = at.level().below() else { return Next::Skip };
        if below == Level::L3 {
            release(at.memory(), at.slot(), at.descriptor());
            return Next::Skip;
        }
        let range = self.hold.range;
        let ours = at.is_whole() || *self.hold.partial.of(range, below, at.start());
        self.open[index(below)] = ours.then_some((at.slot(), at.descriptor()));
        Next::Continue
    }

    fn table_post(&mut self, at: &Visit<'_, M, G>) -> Next {
        if let Some((slot, descriptor)) = at.level().below().and_then(|below| self.open[index(below)].take()) {
            release(at.memory(), slot, descriptor);
        }
        Next::Continue
    }

    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        if self.hold.failed == Some(Failed::Entry(at.slot())) { Next::Stop } else { Next::Skip }
    }
}
