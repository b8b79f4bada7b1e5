//! The tables reachable from every root that some PE may hold entries of, with the contents last seen.
//!
//! Sources report a store after it happened and without the old value; the shadow is where the old value comes from. A
//! table that is unlinked stays here, and watched, while a walk cache may still point at it. Tables are of any size, from
//! a root of two entries to sixteen 64 KiB tables in a row; they are found by the 4 KiB pages that they lie in.

use crate::descriptor::Descriptor;
use crate::geometry::{Geometry, Space};
use crate::hash::{FastMap, FastSet};
use crate::machine::{Loaded, PeSet, Root};
use crate::residue::{Holders, ResidueId, Tag};
use smallvec::SmallVec;
use std::cell::RefCell;

/// Bytes of a page as sources watch it, whatever the guest's granule.
pub const WATCHED: u64 = 4096;
/// Tables that are followed.
pub const MAX_TABLES: usize = 1 << 16;
/// Entries that all of them have together at most.
const MAX_ENTRIES: usize = 1 << 24;
/// Places that one slot is followed at: a table linked in more is followed at some of them.
const MAX_SPANS: usize = 256;
/// Contexts that are followed.
pub const MAX_CONTEXTS: usize = 1 << 14;
/// Tags that a context is followed under; more are held under any ASID.
const MAX_TAGS: usize = 16;

/// A root that some PE has loaded, and who may hold entries that were read through it.
#[derive(Clone, Debug)]
pub struct Context {
    /// The tables.
    pub root: Root,
    /// Under which tags it was loaded.
    pub tags: Vec<TagUse>,
    /// Residues that were read through it and are open.
    pub open: usize,
    /// Who may hold its global leaves: an invalidation by ASID leaves them.
    pub globals: TagUse,
}

impl Context {
    /// Whether nobody can hold anything of it.
    fn is_at_rest(&self) -> bool {
        self.tags.is_empty() && self.globals.held == 0 && self.open == 0
    }

    /// PEs that have it loaded now under a tag; what is not of one ASID, under any.
    pub fn loaded_under(&self, tag: Tag) -> PeSet {
        self.tags.iter().find(|used| used.tag == tag).unwrap_or(&self.globals).loaded
    }
}

/// Which PEs have, or had, a context under one tag.
#[derive(Clone, Debug)]
pub struct TagUse {
    /// The ASID; [`Tag::AnyAsid`] stands for those that are not told apart.
    pub tag: Tag,
    /// PEs that may hold entries (R3): it is loaded, or has been since the last covering, completed invalidation.
    pub held: PeSet,
    /// PEs on which it is loaded now.
    pub loaded: PeSet,
    /// When PEs that hold it without having it loaded left it.
    left: Vec<(usize, u64)>,
}

impl TagUse {
    /// PEs that may hold an entry which can be reached since event `since` (R3): a PE gets nothing new of a context that it
    /// has left.
    pub fn may_hold(&self, since: u64) -> PeSet {
        let too_late = self.left.iter().filter(|(_, left)| *left < since).fold(0, |set, (pe, _)| set | 1 << pe);
        self.held & (self.loaded | !too_late)
    }

    /// PEs that have left it are taken to have done so at event `time`.
    pub fn stayed_until(&mut self, pes: PeSet, time: u64) {
        for (_, left) in self.left.iter_mut().filter(|(pe, _)| pes >> pe & 1 != 0) {
            *left = time;
        }
    }

    fn new(tag: Tag) -> Self {
        Self { tag, held: 0, loaded: 0, left: Vec::new() }
    }

    fn load(&mut self, pe: usize) {
        let bit = 1 << pe;
        self.held |= bit;
        self.loaded |= bit;
    }

    fn unload(&mut self, pe: usize, time: u64) {
        self.loaded &= !(1 << pe);
        self.left.retain(|(other, _)| *other != pe);
        self.left.push((pe, time));
    }

    /// An invalidation of `reach`, executed at event `time`, is complete: a PE that has the context loaded, or has left it since,
    /// may have filled again.
    pub fn invalidated(&mut self, reach: PeSet, time: u64) {
        let refilled = self.left.iter().filter(|(_, left)| *left > time).fold(0, |set, (pe, _)| set | 1 << pe);
        self.held &= self.loaded | refilled | !reach;
        self.left.retain(|(pe, _)| self.held >> pe & 1 != 0);
    }
}

/// Names a context; never used twice.
pub type ContextId = usize;

/// Who points at a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// A TTBR.
    Root(ContextId),
    /// An entry of another table.
    Slot {
        /// The other table.
        table: u64,
        /// The entry's number.
        index: usize,
    },
}

/// A table.
#[derive(Clone, Debug)]
pub struct TablePage {
    /// Level of its entries.
    pub level: i8,
    /// How it is walked.
    pub geometry: Geometry,
    /// Who points at it; empty: unlinked.
    parents: Vec<Parent>,
    /// Contents as last seen.
    pub entries: Box<[u64]>,
    /// For each of them the event since which walkers may have found it, or one that permits less.
    since: Box<[u64]>,
    places: RefCell<Places>,
    /// Table residues that lead here.
    pub residues: FastSet<ResidueId>,
    /// Entries that stand for what was cached as part of a contiguous run (FEAT_BBM level 3), and since which event.
    out_of_run: Vec<(usize, u64)>,
    /// Slots stored to since it was unlinked, and whether some store was of no use to a teardown.
    pub scrubbed: Option<Box<Scrub>>,
}

/// Where a table translates: walked up to once, and kept until some table is linked or unlinked.
#[derive(Clone, Debug, Default)]
struct Places {
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
}

/// Tells a table that is being cleared for another use from one that is being torn down entry by entry.
#[derive(Clone, Debug)]
pub struct Scrub {
    stored: Vec<u64>,
    missing: usize,
    pointless: bool,
}

impl Scrub {
    /// Nothing of a table with so many entries is cleared.
    pub fn new(entries: usize) -> Self {
        Self { stored: vec![0; entries.div_ceil(64)], missing: entries, pointless: false }
    }

    /// Notes a store of zero; `pointless`: the slot was invalid already, or the store covered more than one slot.
    pub fn note(&mut self, index: usize, pointless: bool) {
        if let Some(word) = self.stored.get_mut(index / 64) {
            let bit = 1 << (index % 64);
            self.missing -= usize::from(*word & bit == 0);
            *word |= bit;
        }
        self.pointless |= pointless;
    }

    /// Whether the whole table was cleared, and not as a teardown would.
    #[inline]
    pub fn is_cleared(&self) -> bool {
        self.pointless && self.missing == 0
    }
}

impl TablePage {
    /// A table that `parent` points at since event `time`.
    pub fn new(level: i8, geometry: Geometry, parent: Parent, entries: Box<[u64]>, time: u64) -> Self {
        let since = vec![time; entries.len()].into();
        let (parents, places, residues) = (vec![parent], RefCell::default(), FastSet::default());
        Self { level, geometry, parents, entries, since, places, residues, out_of_run: Vec::new(), scrubbed: None }
    }

    /// Who points at it; none: it is not linked.
    pub fn parents(&self) -> &[Parent] {
        &self.parents
    }

    /// For each entry the event since which walkers may have found it, or one that permits less.
    pub fn since(&self) -> &[u64] {
        &self.since
    }

    /// The descriptor in a slot.
    #[inline]
    pub fn descriptor(&self, index: usize) -> Descriptor {
        let bits = self.entries.get(index).copied().unwrap_or(0);
        Descriptor::decode(bits, self.level, &self.geometry)
    }

    /// Whether what walkers may have found in a slot since event `since` is cached as part of a contiguous run.
    pub fn is_in_run(&self, index: usize, entry: &Descriptor, since: u64) -> bool {
        let lost = || self.out_of_run.iter().any(|(known, time)| *known == index && since <= *time);
        matches!(entry, Descriptor::Leaf(leaf) if leaf.contiguous || lost())
    }

    /// Tables that the slots point at, with the slot's number.
    pub fn children(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (0..self.entries.len()).filter_map(|index| match self.descriptor(index) {
            Descriptor::Table(table) => Some((index, table.next)),
            _ => None,
        })
    }

    /// Table residues that lead here, oldest first as far as their names tell.
    pub fn leading_here(&self) -> Vec<ResidueId> {
        let mut ids: Vec<ResidueId> = self.residues.iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Whether nothing in it is cacheable.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(|bits| bits & 1 == 0)
    }
}

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
}

/// Where a slot translates, everywhere. Nearly always one place.
pub type Spans = SmallVec<[Span; 2]>;

/// All contexts and tables.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    contexts: FastMap<ContextId, Context>,
    next_context: ContextId,
    by_root: FastMap<Root, ContextId>,
    by_space: FastMap<Space, Vec<ContextId>>,
    tables: FastMap<u64, TablePage>,
    /// Counts what changes where tables are linked, or since when.
    shape: u64,
    entries: usize,
    /// Tables in each page, but for a page that is one table.
    lying_in: FastMap<u64, Vec<u64>>,
}

impl Shadow {
    /// The context of `root`, if it is known.
    #[inline]
    pub fn find(&self, root: &Root) -> Option<ContextId> {
        self.by_root.get(root).copied()
    }

    /// Makes a context for `root`.
    pub fn add_context(&mut self, root: Root) -> ContextId {
        let id = self.next_context;
        self.next_context += 1;
        let globals = TagUse::new(Tag::Global);
        self.shape += 1;
        self.contexts.insert(id, Context { root, tags: Vec::new(), open: 0, globals });
        self.by_root.insert(root, id);
        self.by_space.entry(root.space).or_default().push(id);
        id
    }

    /// Forgets a context.
    pub fn drop_context(&mut self, id: ContextId) {
        let Some(context) = self.contexts.remove(&id) else { return };
        self.shape += 1;
        self.by_root.remove(&context.root);
        if let Some(ids) = self.by_space.get_mut(&context.root.space) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_space.remove(&context.root.space);
            }
        }
    }

    /// The context with this index.
    #[inline]
    pub fn context(&self, id: ContextId) -> Option<&Context> {
        self.contexts.get(&id)
    }

    /// The context with this index, to change.
    #[inline]
    pub fn context_mut(&mut self, id: ContextId) -> Option<&mut Context> {
        self.contexts.get_mut(&id)
    }

    /// The contexts of a space.
    pub fn contexts_of(&self, space: Space) -> &[ContextId] {
        self.by_space.get(&space).map_or(&[], Vec::as_slice)
    }

    /// Every space that has contexts.
    pub fn spaces(&self) -> Vec<Space> {
        self.by_space.keys().copied().collect()
    }

    /// Notes that `loaded` is loaded on `pe` from now on.
    pub fn load(&mut self, id: ContextId, loaded: &Loaded, pe: usize) {
        let Some(context) = self.context_mut(id) else { return };
        context.globals.load(pe);
        let wanted = if context.tags.len() < MAX_TAGS { Tag::Asid(loaded.asid) } else { Tag::AnyAsid };
        let known = context.tags.iter().position(|tag| tag.tag == Tag::Asid(loaded.asid) || tag.tag == wanted);
        let place = known.unwrap_or_else(|| {
            context.tags.push(TagUse::new(wanted));
            context.tags.len() - 1
        });
        context.tags[place].load(pe);
    }

    /// Notes that the context is no longer loaded on `pe` since event `time`. What it cached stays.
    pub fn unload(&mut self, id: ContextId, pe: usize, time: u64) {
        let Some(context) = self.context_mut(id) else { return };
        let Context { tags, globals, .. } = context;
        for tag in tags.iter_mut().chain([globals]).filter(|tag| tag.loaded >> pe & 1 != 0) {
            tag.unload(pe, time);
        }
    }

    /// Who may hold an entry that can be reached through a context since event `since`, by the tag it has: global for
    /// global leaves, an ASID otherwise. An entry of stage 2 is held by its own, and a leaf also combined with entries of
    /// stage 1.
    pub fn holders(&self, id: ContextId, entry: &Descriptor, since: u64) -> Holders {
        let Some(context) = self.context(id) else { return Holders::new() };
        let all = context.globals.may_hold(since);
        let mut held: Holders = match (context.root.space.is_stage2(), entry) {
            (true, Descriptor::Leaf(_)) => [(Tag::Ipa, all), (Tag::Combined, all)].into_iter().collect(),
            (true, _) => [(Tag::Ipa, all)].into_iter().collect(),
            (false, entry) if entry.is_global() => [(Tag::Global, all)].into_iter().collect(),
            _ => context.tags.iter().map(|tag| (tag.tag, tag.may_hold(since))).collect(),
        };
        held.retain(|(_, pes)| *pes != 0);
        held
    }

    /// Whether the context's tables hold a global leaf. With a limit to the search: then they count as such that do.
    pub fn has_globals(&self, id: ContextId) -> bool {
        self.context(id).is_some_and(|context| self.finds_global(context.root.table, &mut 4096))
    }

    fn finds_global(&self, base: u64, budget: &mut usize) -> bool {
        let Some(left) = budget.checked_sub(1) else { return true };
        *budget = left;
        let Some(table) = self.tables.get(&base) else { return false };
        (0..table.entries.len()).any(|index| match table.descriptor(index) {
            Descriptor::Table(next) => {
                self.tables.get(&next.next).is_some_and(|child| child.level > table.level)
                    && self.finds_global(next.next, budget)
            }
            entry => entry.is_cacheable() && entry.is_global(),
        })
    }

    /// Notes that nobody can hold anything of a context, if that is so: no PE has it loaded, its root is empty, and what was
    /// in it is gone from every TLB. Its root may be freed and become anything.
    pub fn rest(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let unused = context.globals.loaded == 0 && context.open == 0;
        if unused && self.tables.get(&context.root.table).is_none_or(TablePage::is_empty) {
            context.tags.clear();
            context.globals = TagUse::new(Tag::Global);
        }
    }

    /// How many contexts are followed.
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// Whether there is no place for another context.
    pub fn is_full(&self) -> bool {
        self.contexts.len() >= MAX_CONTEXTS
    }

    /// Every context.
    pub fn all_contexts(&self) -> Vec<ContextId> {
        self.contexts.keys().copied().collect()
    }

    /// Every context at rest.
    pub fn all_resting(&self) -> Vec<ContextId> {
        self.contexts.iter().filter(|(_, context)| context.is_at_rest()).map(|(id, _)| *id).collect()
    }

    /// The contexts at rest whose root a table is.
    pub fn resting(&self, table: u64) -> Vec<ContextId> {
        let Some(table) = self.tables.get(&table) else { return Vec::new() };
        let resting = |id: &ContextId| self.contexts.get(id).is_some_and(Context::is_at_rest);
        let roots = table.parents.iter().filter_map(|parent| match parent {
            Parent::Root(id) => Some(*id),
            Parent::Slot { .. } => None,
        });
        roots.filter(resting).collect()
    }

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

    /// From event `time` on an entry stands for what was cached as part of a contiguous run.
    pub fn left_run(&mut self, base: u64, index: usize, time: u64) {
        if let Some(table) = self.tables.get_mut(&base) {
            table.out_of_run.retain(|(known, _)| *known != index);
            table.out_of_run.push((index, time));
        }
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

    /// Where a slot translates. A table may be linked at several places; the flag says that there are more than are told.
    pub fn spans(&self, table: u64, index: usize) -> (Spans, bool) {
        let mut spans = Spans::new();
        let Some(table) = self.tables.get(&table) else { return (spans, false) };
        let mut places = table.places.borrow_mut();
        if places.shape != Some(self.shape) {
            let mut found = SmallVec::new();
            let whole = self.collect_places(table, (0, 0), &mut found, &mut 4096);
            *places = Places { shape: Some(self.shape), found, whole };
        }
        let inside = (index as u64) << table.geometry.shift(table.level);
        let since = table.since.get(index).copied().unwrap_or(0);
        for &Place { context, space, first_va, va_bits, offset, since: reached } in &places.found {
            let offset = offset.wrapping_add(inside);
            // Entries past the half's size are not reachable.
            if offset >> va_bits == 0 {
                spans.push(Span { context, space, start: first_va.wrapping_add(offset), since: since.max(reached) });
            }
        }
        (spans, !places.whole)
    }

    fn collect_places(
        &self,
        table: &TablePage,
        (offset, since): (u64, u64),
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
                    found.push(Place { context, space: root.space, first_va, va_bits, offset, since });
                    found.len() < MAX_SPANS
                }
                Parent::Slot { table: above, index } => {
                    let Some(up) = self.tables.get(&above).filter(|up| up.level < table.level) else { return true };
                    let offset = offset.wrapping_add((index as u64) << up.geometry.shift(up.level));
                    let since = since.max(up.since.get(index).copied().unwrap_or(0));
                    self.collect_places(up, (offset, since), found, budget)
                }
            }
        })
    }
}

/// The watched page that holds `pa`.
#[inline]
pub const fn page_of(pa: u64) -> u64 {
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
