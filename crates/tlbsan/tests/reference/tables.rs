//! What the tables in memory say, and how that differs from what an entry says.

use super::decode::{Change, Desc, Format, compare};
use super::{Entry, Reference};
use std::collections::BTreeSet;

impl Reference {
    /// The table that a slot lies in.
    pub(super) fn table(&self, slot: u64) -> u64 {
        slot >> self.granule << self.granule
    }

    pub(super) fn value(&self, slot: u64) -> u64 {
        self.memory.get(&slot).copied().unwrap_or(0)
    }

    /// What the tables say now for the span of `e`, and where: the leaf above it, or whatever stands at its level.
    pub(super) fn meaning(&self, e: &Entry) -> (i8, u64, Desc) {
        let format = &e.root.format;
        let (mut table, mut first) = (e.root.table, e.va & u64::MAX << format.bits);
        for level in format.root_level()..=e.level {
            let index = (e.va - first) / format.span(level);
            let slot = table + 8 * index;
            match Desc::decode(self.value(slot), level, format) {
                Desc::Table { next, .. } if level < e.level => table = next,
                found => return (level, slot, found),
            }
            first += index * format.span(level);
        }
        (e.level, 0, Desc::Nothing)
    }

    /// How the tables' meaning differs from what `e` says.
    pub(super) fn difference(&self, e: &Entry) -> Change {
        let (level, _, desc) = self.meaning(e);
        let at = |format: &Format| e.va & (format.span(level) - 1);
        match (e.desc.next(), desc.next()) {
            _ if desc == Desc::Nothing => Change::Owed,
            (None, Some(table)) if e.desc.may_be_resized(self.bbm) => self.resized(e, &e.desc, table, e.level + 1, 0),
            (Some(table), None) if desc.may_be_resized(self.bbm) && level == e.level => {
                self.resized(e, &desc, table, e.level + 1, 0).max(Change::Owed)
            }
            (_, None) if desc.may_be_resized(self.bbm) && level < e.level => {
                desc.resized(&e.desc, at(&e.root.format), self.bbm).max(Change::Owed)
            }
            _ if level != e.level => Change::Break,
            _ => self.compare(e, &desc),
        }
    }

    /// What it asks for to have the entries of a table beside `block`, of which it begins at `offset`.
    fn resized(&self, e: &Entry, block: &Desc, table: u64, level: i8, offset: u64) -> Change {
        let format = &e.root.format;
        let entry = |index: u64| {
            let offset = offset + index * format.span(level);
            match Desc::decode(self.value(table + 8 * index), level, format) {
                Desc::Table { next, .. } => self.resized(e, block, next, level + 1, offset),
                desc => block.resized(&desc, offset, self.bbm),
            }
        };
        (0..format.table(level) / 8).map(entry).max().unwrap_or(Change::None)
    }

    /// How `desc`, at its level, differs from what `e` says.
    pub(super) fn compare(&self, e: &Entry, desc: &Desc) -> Change {
        compare(&e.desc, desc, self.bbm, |a, b| self.same_contents(a, b, e.size()))
    }

    pub(super) fn is_stale(&self, e: &Entry) -> bool {
        self.difference(e) != Change::None
    }

    /// Whether the tables hold nothing that is cacheable and says the same: an entry without its access flag is no translation
    /// that could be changed in place.
    pub(super) fn is_gone(&self, e: &Entry) -> bool {
        self.is_stale(e) || !self.meaning(e).2.is_cacheable()
    }

    fn same_contents(&self, a: u64, b: u64, size: u64) -> bool {
        let contents = |start: u64| {
            let words = self.memory.range(start..start + size).filter(|(_, value)| **value != 0);
            words.map(move |(pa, value)| (pa - start, *value))
        };
        contents(a).eq(contents(b))
    }

    /// Tables that are linked: reached from a root that is, or was, loaded.
    pub(super) fn linked(&self) -> BTreeSet<u64> {
        let mut linked = BTreeSet::new();
        for root in &self.roots {
            let mut tables = BTreeSet::from([root.table]);
            for level in root.format.root_level()..=3 {
                linked.extend(&tables);
                let slots = |table: &u64| *table..*table + root.format.table(level);
                let values = tables.iter().flat_map(|table| self.memory.range(slots(table)));
                tables = values.filter_map(|(_, value)| Desc::decode(*value, level, &root.format).next()).collect();
            }
        }
        linked
    }
}
