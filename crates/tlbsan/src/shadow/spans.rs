//! Where a slot translates: the ways from it up to the roots.

use super::{Context, ContextId, Parent, Shadow, TablePage};
use crate::geometry::Space;
use smallvec::SmallVec;

/// Places that one slot is followed at: a table linked in more is followed at some of them.
const MAX_SPANS: usize = 256;

/// Where a slot translates: in which context, from which input address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The context.
    pub context: ContextId,
    /// What the context belongs to.
    pub space: Space,
    /// First input address.
    pub start: u64,
    /// The event since which the slot can be reached.
    pub since: u64,
    /// What the table entries on the way forbid ([`Descriptor::under`](crate::descriptor::Descriptor::under)).
    pub forbids: u8,
}

/// Where a slot translates, everywhere. Nearly always one place.
pub type Spans = SmallVec<[Span; 2]>;

/// Where a table translates: walked up to once, and kept until the shape of the tables changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// The shape of the tables that they were found in.
    shape: Option<u64>,
    found: SmallVec<[Place; 1]>,
    /// Whether these are all.
    whole: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Place {
    context: ContextId,
    space: Space,
    first_va: u64,
    va_bits: u8,
    /// From the first address of the half.
    offset: u64,
    /// The event since which the table can be reached there.
    since: u64,
    /// What the table entries on the way forbid.
    forbids: u8,
}

impl Shadow {
    /// Whether some root leads to the table.
    pub fn is_live(&self, table: u64) -> bool {
        self.leads_up(table, &mut 4096)
    }

    /// With a limit to the search, for tables that are linked a great many times: they count as live.
    fn leads_up(&self, base: u64, budget: &mut usize) -> bool {
        let Some(table) = self.tables.get(&base) else { return false };
        table.parents.iter().any(|parent| {
            let Some(left) = budget.checked_sub(1) else { return true };
            *budget = left;
            match *parent {
                Parent::Root(_) => true,
                // Levels only ever rise towards the root, so this ends.
                Parent::Slot { table: above, .. } => {
                    self.tables.get(&above).is_some_and(|up| up.level < table.level) && self.leads_up(above, budget)
                }
            }
        })
    }

    /// Where a slot translates. A table may be linked at several places; the flag says that there are more than are
    /// told.
    pub fn spans(&self, table: u64, index: usize) -> (Spans, bool) {
        let mut spans = Spans::new();
        let Some(table) = self.tables.get(&table) else { return (spans, false) };
        let mut places = table.places.borrow_mut();
        if places.shape != Some(self.shape) {
            let mut found = SmallVec::new();
            let whole = self.collect_places(table, (0, 0, 0), &mut found, &mut 4096);
            *places = Places { shape: Some(self.shape), found, whole };
        }
        let inside = (index as u64) << table.geometry.shift(table.level);
        let since = table.since.get(index).copied().unwrap_or(0);
        for &Place { context, space, first_va, va_bits, offset, since: reached, forbids } in &places.found {
            let offset = offset.wrapping_add(inside);
            // Entries past the half's size are not reachable.
            if offset >> va_bits == 0 {
                let (start, since) = (first_va.wrapping_add(offset), since.max(reached));
                spans.push(Span { context, space, start, since, forbids });
            }
        }
        (spans, !places.whole)
    }

    fn collect_places(
        &self,
        table: &TablePage,
        (offset, since, forbids): (u64, u64, u8),
        found: &mut SmallVec<[Place; 1]>,
        budget: &mut usize,
    ) -> bool {
        table.parents.iter().all(|parent| {
            let Some(left) = budget.checked_sub(1) else { return false };
            *budget = left;
            match *parent {
                Parent::Root(context) => {
                    let Some(Context { root, .. }) = self.context(context) else { return true };
                    let (first_va, va_bits) = (root.first_va(), root.geometry.va_bits);
                    found.push(Place { context, space: root.space, first_va, va_bits, offset, since, forbids });
                    found.len() < MAX_SPANS
                }
                Parent::Slot { table: above, index } => {
                    let Some(up) = self.tables.get(&above).filter(|up| up.level < table.level) else { return true };
                    let offset = offset.wrapping_add((index as u64) << up.geometry.shift(up.level));
                    let since = since.max(up.since.get(index).copied().unwrap_or(0));
                    self.collect_places(up, (offset, since, forbids | up.descriptor(index).forbids()), found, budget)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use crate::machine::Root;

    #[test]
    fn where_a_table_translates_follows_every_change_above_it() {
        let geometry = Geometry::stage1(12, 39).expect("a geometry");
        let root = Root { space: Space::El10(0), table: 0x1000, half: 0, geometry };
        let mut shadow = Shadow::default();
        let context = shadow.add_context(root);
        let page = |level, parent| TablePage::new(level, geometry, parent, vec![0; 512].into(), 1);
        let at = |index| Parent::Slot { table: 0x1000, index };
        shadow.insert(0x1000, page(1, Parent::Root(context)));
        shadow.insert(0x2000, page(2, at(3)));
        let spans = |shadow: &Shadow| -> Vec<(u64, u64)> {
            shadow.spans(0x2000, 1).0.iter().map(|span| (span.start, span.since)).collect()
        };
        let start = |index: u64| (index << 30) + (1 << 21);
        assert_eq!(spans(&shadow), [(start(3), 1)]);
        shadow.link(0x2000, at(5));
        assert_eq!(spans(&shadow), [(start(3), 1), (start(5), 1)]);
        shadow.unlink(0x2000, at(3));
        assert_eq!(spans(&shadow), [(start(5), 1)]);
        shadow.set_since(0x1000, 5, 9);
        assert_eq!(spans(&shadow), [(start(5), 9)]);
        shadow.set_since(0x2000, 1, 11);
        assert_eq!(spans(&shadow), [(start(5), 11)]);
        shadow.drop_context(context);
        assert_eq!(spans(&shadow), []);
    }
}
