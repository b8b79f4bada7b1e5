//! One walker for everything: a feature is a [`Visitor`].
//!
//! The walk covers a range, not single addresses, and descends once into each table. Each entry is read once before it is
//! visited; after a visit to a leaf or an invalid entry it is read again, so that a visitor may install a table and have the
//! walk descend into it.
//!
//! A walk takes nothing and waits for nobody. Beside edits it sees each entry as it was at some moment, as hardware does; what
//! keeps the tables that it stands in from being reused is [`grace`](crate::grace).

use crate::attributes::Hierarchical;
use crate::descriptor::{Descriptor, Entry, Kind};
use crate::geometry::Geometry;
use crate::memory::{TableMemory, entry};
use core::marker::PhantomData;
use tlbi::{Level, PhysAddr, VaRange, VirtAddr};

/// One entry on a walk.
#[derive(Debug)]
pub struct Visit<'m, M, G> {
    memory: &'m M,
    slot: PhysAddr,
    descriptor: Descriptor,
    level: Level,
    start: VirtAddr,
    last: VirtAddr,
    geometry: PhantomData<G>,
}

/// How a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// As it comes: into the table, or to the next entry.
    Continue,
    /// Past this entry: not into the table, neither the one that was there nor one that the visit has installed.
    Skip,
    /// Nowhere.
    Stop,
}

/// What to do at the entries of a walk.
pub trait Visitor<M: TableMemory, G: Geometry> {
    /// The entries of a table of pages, before they are visited one by one. [`Next::Skip`]: they need not be.
    #[inline(always)]
    fn pages(&mut self, at: &Pages<'_, M, G>) -> Next {
        let _ = at;
        Next::Continue
    }

    /// An entry that is no table: a leaf, or invalid. Read again afterwards.
    #[inline(always)]
    fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
        let _ = at;
        Next::Continue
    }

    /// A table, before the walk descends into it.
    #[inline(always)]
    fn table_pre(&mut self, at: &Visit<'_, M, G>) -> Next {
        let _ = at;
        Next::Continue
    }

    /// A table, after the walk has left it.
    #[inline(always)]
    fn table_post(&mut self, at: &Visit<'_, M, G>) -> Next {
        let _ = at;
        Next::Continue
    }
}

/// Adjacent entries of a table of pages.
#[derive(Debug)]
pub struct Pages<'m, M, G> {
    memory: &'m M,
    slot: PhysAddr,
    start: VirtAddr,
    last: VirtAddr,
    geometry: PhantomData<G>,
}

impl<M: TableMemory, G: Geometry> Pages<'_, M, G> {
    /// First address that they translate.
    pub fn start(&self) -> VirtAddr {
        self.start
    }

    /// Last address that they translate.
    pub fn last(&self) -> VirtAddr {
        self.last
    }

    /// The entries as they are read.
    #[inline(always)]
    pub fn entries(&self) -> impl Iterator<Item = Descriptor> + '_ {
        let count = ((self.last.bits() - self.start.bits()) >> G::shift(Level::L3)) as usize + 1;
        (0..count).map(|index| Descriptor::from_bits(self.memory.load(entry(self.slot, index))))
    }

    /// The visit of one of them, as it was read.
    #[inline(always)]
    pub(crate) fn visit_read(&self, index: usize, descriptor: Descriptor) -> Visit<'_, M, G> {
        let slot = entry(self.slot, index);
        let start = VirtAddr::new(self.start.bits() + index as u64 * G::PAGE);
        Visit {
            memory: self.memory,
            slot,
            descriptor,
            level: Level::L3,
            start,
            last: VirtAddr::new(start.bits() | (G::PAGE - 1)),
            geometry: PhantomData,
        }
    }

    /// Whether each of them is a page.
    #[inline(always)]
    pub fn all_leaves(&self) -> bool {
        Descriptor::all_pages(self.entries())
    }
}

impl<M: TableMemory, G: Geometry> Visit<'_, M, G> {
    /// Where the entry is.
    #[inline(always)]
    pub fn slot(&self) -> PhysAddr {
        self.slot
    }

    /// The entry as it was read before the visit.
    #[inline(always)]
    pub fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    /// Its level.
    #[inline(always)]
    pub fn level(&self) -> Level {
        self.level
    }

    /// What the entry was when it was read.
    #[inline]
    pub fn entry(&self) -> Entry {
        self.descriptor.entry::<G>(self.level)
    }

    /// First address of the part of the walk's range that the entry translates.
    #[inline(always)]
    pub fn start(&self) -> VirtAddr {
        self.start
    }

    /// Last address of that part.
    #[inline(always)]
    pub fn last(&self) -> VirtAddr {
        self.last
    }

    /// The part of the walk's range that the entry translates.
    #[inline]
    pub fn part(&self) -> VaRange {
        // A part of a range is one.
        VaRange::new(self.start, self.last.bits() - self.start.bits() + 1).unwrap_or(G::EVERYTHING)
    }

    /// First address of all that the entry translates.
    #[inline(always)]
    pub fn span_start(&self) -> VirtAddr {
        self.start.align_down(G::size(self.level))
    }

    /// Whether the walk's range covers all that the entry translates.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.last.bits() - self.start.bits() == G::size(self.level) - 1
    }

    #[inline(always)]
    pub(crate) fn kind(&self) -> Kind {
        self.descriptor.kind::<G>(self.level)
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &M {
        self.memory
    }

    /// The entry `n` further on in the same table, read now.
    pub(crate) fn sibling(&self, n: usize) -> Self {
        let slot = entry(self.slot, n);
        let distance = (n as u64) << G::shift(self.level);
        Self {
            slot,
            descriptor: Descriptor::from_bits(self.memory.load(slot)),
            start: VirtAddr::new(self.start.bits() + distance),
            last: VirtAddr::new(self.last.bits() + distance),
            ..*self
        }
    }

    /// Stores to the entry.
    #[inline(always)]
    pub(crate) fn set(&self, new: Descriptor) {
        self.memory.store(self.slot, new.bits());
    }

    /// Stores a table descriptor whose table is complete.
    #[inline(always)]
    pub(crate) fn link(&self, table: Descriptor) {
        self.memory.store_release(self.slot, table.bits());
    }

    /// Replaces the leaf that is there by what `new` makes of it, and returns what was there at last.
    ///
    /// A plain store, unless hardware may be setting the access flag or the dirty state at this moment: only then does it
    /// take a read-modify-write to lose nothing.
    #[inline(always)]
    pub(crate) fn replace(&self, mut new: impl FnMut(Descriptor) -> Descriptor) -> Descriptor {
        let mut old = self.descriptor;
        if !old.is_volatile() {
            self.set(new(old));
            return old;
        }
        while let Err(now) = self.memory.compare_exchange(self.slot, old.bits(), new(old).bits()) {
            old = Descriptor::from_bits(now);
        }
        old
    }
}

/// Walks `range` from the table `root`, and returns where the visitor stopped it: the first address of that entry's part.
#[inline]
pub(crate) fn walk<M: TableMemory, G: Geometry, V: Visitor<M, G>>(
    memory: &M,
    root: PhysAddr,
    range: VaRange,
    visitor: &mut V,
) -> Result<(), VirtAddr> {
    descend(memory, root, G::ROOT, range.start(), range.last(), visitor)
}

/// The part of a walk below one table.
pub(crate) fn descend<M: TableMemory, G: Geometry, V: Visitor<M, G>>(
    memory: &M,
    table: PhysAddr,
    level: Level,
    start: VirtAddr,
    last: VirtAddr,
    visitor: &mut V,
) -> Result<(), VirtAddr> {
    let span = G::size(level) - 1;
    let mut slot = G::slot(table, level, start);
    let mut start = start;
    let read = |slot| Descriptor::from_bits(memory.load(slot));
    let Some(below) = level.below() else {
        // Pages: nothing to descend into, so nothing to read again.
        match visitor.pages(&Pages { memory, slot, start, last, geometry: PhantomData }) {
            Next::Continue => {}
            Next::Skip => return Ok(()),
            Next::Stop => return Err(start),
        }
        loop {
            let end = VirtAddr::new(start.bits() | span);
            let visit = Visit {
                memory,
                slot,
                descriptor: read(slot),
                level: Level::L3,
                start,
                last: end,
                geometry: PhantomData,
            };
            if visitor.leaf(&visit) == Next::Stop {
                return Err(start);
            }
            if end >= last {
                return Ok(());
            }
            start = VirtAddr::new(end.bits() + 1);
            slot = PhysAddr::new(slot.bits() + 8);
        }
    };
    loop {
        let end = last.min(VirtAddr::new(start.bits() | span));
        let mut visit =
            Visit { memory, slot, descriptor: read(slot), level, start, last: end, geometry: PhantomData::<G> };
        let mut next = Next::Continue;
        if visit.kind() != Kind::Table {
            next = visitor.leaf(&visit);
            visit.descriptor = read(slot);
        }
        if next == Next::Continue && visit.kind() == Kind::Table {
            next = visitor.table_pre(&visit);
            if next == Next::Continue {
                descend::<M, G, V>(memory, visit.descriptor.next::<G>(), below, start, end, visitor)?;
                next = visitor.table_post(&visit);
            }
        }
        if next == Next::Stop {
            return Err(start);
        }
        if end >= last {
            return Ok(());
        }
        start = VirtAddr::new(end.bits() + 1);
        slot = PhysAddr::new(slot.bits() + 8);
    }
}

/// The tables from the root to where an address is translated: what a walk of one address has read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<G> {
    /// By level from -1: where the entry is, and what it was. Levels that the walk did not reach are stale.
    entries: [(PhysAddr, Descriptor); 5],
    end: Level,
    hierarchical: Hierarchical,
    geometry: PhantomData<G>,
}

impl<G: Geometry> Path<G> {
    /// Walks one address, to the first entry that is no table.
    pub(crate) fn new<M: TableMemory>(memory: &M, root: PhysAddr, va: VirtAddr) -> Self {
        let mut path = Self {
            entries: [(root, Descriptor::INVALID); 5],
            end: G::ROOT,
            hierarchical: Hierarchical::empty(),
            geometry: PhantomData,
        };
        let mut table = root;
        let mut level = G::ROOT;
        loop {
            let slot = G::slot(table, level, va);
            let descriptor = Descriptor::from_bits(memory.load(slot));
            path.end = level;
            if let Some(entry) = path.entries.get_mut(index(level)) {
                *entry = (slot, descriptor);
            }
            match (descriptor.kind::<G>(level), level.below()) {
                (Kind::Table, Some(below)) => {
                    path.hierarchical |= descriptor.hierarchical();
                    table = descriptor.next::<G>();
                    level = below;
                }
                _ => return path,
            }
        }
    }

    /// Level of the entry at which the walk ended.
    pub(crate) fn level(&self) -> Level {
        self.end
    }

    /// That entry.
    pub(crate) fn last(&self) -> (PhysAddr, Descriptor) {
        self.at(self.end).unwrap_or((PhysAddr::default(), Descriptor::INVALID))
    }

    /// The entry at a level that the walk passed.
    pub(crate) fn at(&self, level: Level) -> Option<(PhysAddr, Descriptor)> {
        if level < G::ROOT || level > self.end { None } else { self.entries.get(index(level)).copied() }
    }

    /// What the tables on the path forbid.
    pub(crate) fn hierarchical(&self) -> Hierarchical {
        self.hierarchical
    }
}

#[inline(always)]
pub(crate) fn index(level: Level) -> usize {
    (level.number() + 1) as usize
}
