//! The tables reachable from every root that some PE may hold entries of, with the contents last seen.
//!
//! Sources report a store after it happened and without the old value; the shadow is where the old value comes from. A
//! table that is unlinked stays here, and watched, while a walk cache may still point at it. Tables are of any size,
//! from a root of two entries to sixteen 64 KiB tables in a row; they are found by the 4 KiB pages that they lie in.
//!
//! What a table is stands in `page`, the roots and who may hold what was read through them in `contexts`, where a slot
//! translates in `spans`; here is where tables are kept and found.

mod contexts;
mod page;
mod spans;

pub use contexts::{Context, ContextId, MAX_CONTEXTS, TagUse};
pub use page::{Parent, Scrub, TablePage};
pub use spans::{Span, Spans};

use crate::geometry::Space;
use crate::hash::FastMap;
use crate::machine::Root;

/// Bytes of a page as sources watch it, whatever the guest's granule.
pub const WATCHED: u64 = 4096;
/// Tables that are followed.
pub const MAX_TABLES: usize = 1 << 16;
/// Entries that all of them have together at most.
const MAX_ENTRIES: usize = 1 << 24;

/// All contexts and tables.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    contexts: FastMap<ContextId, Context>,
    next_context: ContextId,
    by_root: FastMap<Root, ContextId>,
    by_space: FastMap<Space, Vec<ContextId>>,
    tables: FastMap<u64, TablePage>,
    /// Counts what changes where tables are linked, since when, or what is forbidden there.
    shape: u64,
    entries: usize,
    /// Tables in each page, but for a page that is one table.
    lying_in: FastMap<u64, Vec<u64>>,
}

impl Shadow {
    /// The table that begins at `table`.
    #[inline]
    pub fn table(&self, table: u64) -> Option<&TablePage> {
        self.tables.get(&table)
    }

    /// The table that begins at `table`, to change.
    #[inline]
    pub fn table_mut(&mut self, table: u64) -> Option<&mut TablePage> {
        self.tables.get_mut(&table)
    }

    /// The table and the slot in it that an address lies in, and what the slot held when it was last seen.
    pub fn slot(&self, pa: u64) -> Option<(u64, usize, u64)> {
        let page = page_of(pa);
        let inside = |base: u64| {
            let table = self.tables.get(&base)?;
            let index = (pa.checked_sub(base)? / 8) as usize;
            table.entries.get(index).map(|bits| (base, index, *bits))
        };
        inside(page).or_else(|| self.lying_in.get(&page)?.iter().find_map(|base| inside(*base)))
    }

    /// Adds a table. Returns the pages in which it is the first, or `None` if there are too many tables.
    pub fn insert(&mut self, base: u64, table: TablePage) -> Option<Vec<u64>> {
        if self.tables.len() >= MAX_TABLES || self.entries + table.entries.len() > MAX_ENTRIES {
            return None;
        }
        let mut first = Vec::new();
        for page in pages(base, table.entries.len()) {
            if !self.tables.contains_key(&page) && !self.lying_in.contains_key(&page) {
                first.push(page);
            }
            if page != base {
                self.lying_in.entry(page).or_default().push(base);
            }
        }
        self.entries += table.entries.len();
        self.shape += 1;
        self.tables.insert(base, table);
        Some(first)
    }

    /// Forgets a table. Returns it with the pages in which no other lies.
    pub fn remove(&mut self, base: u64) -> Option<(TablePage, Vec<u64>)> {
        let table = self.tables.remove(&base)?;
        self.entries -= table.entries.len();
        self.shape += 1;
        let mut empty = Vec::new();
        for page in pages(base, table.entries.len()) {
            if let Some(bases) = self.lying_in.get_mut(&page) {
                bases.retain(|other| *other != base);
                if bases.is_empty() {
                    self.lying_in.remove(&page);
                }
            }
            if !self.tables.contains_key(&page) && !self.lying_in.contains_key(&page) {
                empty.push(page);
            }
        }
        Some((table, empty))
    }

    /// `parent` points at the table as well.
    pub fn link(&mut self, base: u64, parent: Parent) {
        if let Some(table) = self.tables.get_mut(&base) {
            table.parents.push(parent);
            self.shape += 1;
        }
    }

    /// `parent` no longer points at the table.
    pub fn unlink(&mut self, base: u64, parent: Parent) {
        if let Some(table) = self.tables.get_mut(&base)
            && let Some(at) = table.parents.iter().position(|known| *known == parent)
        {
            table.parents.swap_remove(at);
            self.shape += 1;
        }
    }

    /// A table entry forbids something else than before.
    pub fn reshape(&mut self) {
        self.shape += 1;
    }

    /// Walkers may have found what is in a slot since event `time`, and not earlier.
    pub fn set_since(&mut self, base: u64, index: usize, time: u64) {
        if let Some(table) = self.tables.get_mut(&base)
            && let Some(since) = table.since.get_mut(index)
        {
            *since = time;
            // Below level 3 there are no tables that could be concerned.
            self.shape += u64::from(table.level < 3);
        }
    }
}

/// The watched page that holds `pa`.
const fn page_of(pa: u64) -> u64 {
    pa & !(WATCHED - 1)
}

/// The watched pages that a table of `entries` entries lies in.
fn pages(base: u64, entries: usize) -> impl Iterator<Item = u64> {
    let last = base.saturating_add(entries as u64 * 8 - 1);
    (page_of(base)..=page_of(last)).step_by(WATCHED as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn tables_and_their_entries_have_a_cap() {
        let geometry = Geometry::stage1(12, 39).expect("a geometry");
        let table = |entries| TablePage::new(3, geometry, Parent::Root(0), vec![0; entries].into(), 0);
        let mut shadow = Shadow::default();
        let base = |n: usize| n as u64 * WATCHED;
        assert!((0..MAX_TABLES).all(|n| shadow.insert(base(n), table(2)).is_some()));
        assert!(shadow.insert(base(MAX_TABLES), table(2)).is_none());
        assert!(shadow.remove(base(7)).is_some());
        assert!(shadow.insert(base(MAX_TABLES), table(2)).is_some(), "one has gone");

        let mut shadow = Shadow::default();
        assert!(shadow.insert(0, table(MAX_ENTRIES)).is_some());
        assert!(shadow.insert(1 << 40, table(1)).is_none());
        assert!(shadow.remove(0).is_some());
        assert!(shadow.insert(1 << 40, table(1)).is_some());
    }
}
