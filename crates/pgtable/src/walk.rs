//! One walker for everything: a feature is a [`Visitor`].
//!
//! The walk covers a range, not single addresses. Each entry is read once before it is visited; after a visit to a leaf or
//! an invalid entry it is read again, so that a visitor may install a table and have the walk descend into it.

use crate::descriptor::{Descriptor, Entry};
use crate::memory::{TableMemory, slot};
use tlbi::{Granule, Level, PhysAddr, VaRange, VirtAddr};

/// Level of the root table: 48-bit addresses.
pub(crate) const ROOT_LEVEL: Level = Level::L0;

/// One entry on a walk.
#[derive(Debug)]
pub struct Visit<'m, M> {
    memory: &'m M,
    /// Where the entry is.
    pub slot: PhysAddr,
    /// The entry as it was read before the visit.
    pub descriptor: Descriptor,
    /// Its level.
    pub level: Level,
    /// The part of the walk's range that the entry translates.
    pub part: VaRange,
}

impl<M: TableMemory> Visit<'_, M> {
    /// What the entry was when it was read.
    pub fn entry(&self) -> Entry {
        self.descriptor.entry(self.level)
    }

    /// First address of all that the entry translates.
    pub fn span_start(&self) -> VirtAddr {
        self.part.start().align_down(Granule::K4.level_size(self.level))
    }

    /// Whether the walk's range covers all that the entry translates.
    pub fn is_whole(&self) -> bool {
        self.part.size() == Granule::K4.level_size(self.level)
    }

    /// Stores to the entry.
    pub fn set(&self, new: Descriptor) {
        self.memory.store(self.slot, new.bits());
    }

    /// Links a table whose contents are complete.
    pub fn link(&self, table: PhysAddr) {
        self.memory.store_release(self.slot, Descriptor::table(table).bits());
    }

    /// Whether every entry of the table at `table` is invalid.
    pub fn is_empty_table(&self, table: PhysAddr) -> bool {
        (0..crate::memory::ENTRIES).all(|index| !Descriptor::from_bits(self.memory.load(slot(table, index))).is_valid())
    }
}

/// What to do at the entries of a walk. An error ends it.
pub trait Visitor<M: TableMemory> {
    /// Why a walk may end early.
    type Error;

    /// An entry that is no table: a leaf, or invalid. Read again afterwards.
    fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Self::Error> {
        let _ = at;
        Ok(())
    }

    /// A table, before the walk descends into it.
    fn table_pre(&mut self, at: &Visit<'_, M>, table: PhysAddr) -> Result<(), Self::Error> {
        let _ = (at, table);
        Ok(())
    }

    /// A table, after the walk has left it.
    fn table_post(&mut self, at: &Visit<'_, M>, table: PhysAddr) -> Result<(), Self::Error> {
        let _ = (at, table);
        Ok(())
    }
}

/// Walks `range` from the root table.
///
/// # Errors
/// Whatever the visitor ended it with.
pub fn walk<M: TableMemory, V: Visitor<M>>(
    memory: &M,
    root: PhysAddr,
    range: VaRange,
    visitor: &mut V,
) -> Result<(), V::Error> {
    descend(memory, root, ROOT_LEVEL, range, visitor)
}

fn descend<M: TableMemory, V: Visitor<M>>(
    memory: &M,
    table: PhysAddr,
    level: Level,
    range: VaRange,
    visitor: &mut V,
) -> Result<(), V::Error> {
    let size = Granule::K4.level_size(level);
    let mut start = range.start();
    loop {
        let end = range.last().min(VirtAddr::new(start.bits() | (size - 1)));
        let Ok(part) = VaRange::new(start, end.bits() - start.bits() + 1) else { return Ok(()) };
        let slot = slot(table, (start.bits() >> Granule::K4.level_shift(level)) as usize);
        let read = || Descriptor::from_bits(memory.load(slot));

        let mut visit = Visit { memory, slot, descriptor: read(), level, part };
        if !matches!(visit.entry(), Entry::Table(_)) {
            visitor.leaf(&visit)?;
            visit.descriptor = read();
        }
        if let (Entry::Table(next), Some(below)) = (visit.entry(), level.below()) {
            visitor.table_pre(&visit, next)?;
            descend(memory, next, below, part, visitor)?;
            visitor.table_post(&visit, next)?;
        }
        match end.checked_add(1) {
            Some(next) if end < range.last() => start = next,
            _ => return Ok(()),
        }
    }
}
