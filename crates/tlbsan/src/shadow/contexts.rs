//! Contexts: the roots that PEs have loaded, and who may hold what was read through them (R3).

use super::{Parent, Shadow, TablePage};
use crate::descriptor::{Descriptor, Leaf};
use crate::geometry::Space;
use crate::machine::{Loaded, PeSet, Root};
use crate::residue::{Holders, Tag};

/// Contexts that are followed.
pub const MAX_CONTEXTS: usize = 1 << 14;
/// Tags that a context is followed under; more are held under any ASID.
const MAX_TAGS: usize = 16;

/// Tables that are looked through for a leaf.
const MAX_SEARCHED: usize = 4096;

/// Names a context; never used twice.
pub type ContextId = usize;

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
    /// Everyone who may hold something of it, under whatever tag.
    pub fn uses_mut(&mut self) -> impl Iterator<Item = &mut TagUse> {
        self.tags.iter_mut().chain([&mut self.globals])
    }

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
    /// PEs that may hold an entry which can be reached since event `since` (R3): a PE gets nothing new of a context that
    /// it has left.
    pub fn may_hold(&self, since: u64) -> PeSet {
        self.held & (self.loaded | !self.left_at(|left| left < since))
    }

    /// PEs that have left it at such an event.
    fn left_at(&self, such: impl Fn(u64) -> bool) -> PeSet {
        self.left.iter().filter(|(_, left)| such(*left)).fold(0, |set, (pe, _)| set | 1 << pe)
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

    /// An invalidation of `reach`, executed at event `time`, is complete: a PE that has the context loaded, or has left
    /// it since, may have filled again.
    pub fn invalidated(&mut self, reach: PeSet, time: u64) {
        self.held &= self.loaded | self.left_at(|left| left > time) | !reach;
        self.left.retain(|(pe, _)| self.held >> pe & 1 != 0);
    }
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
        for used in context.uses_mut().filter(|used| used.loaded >> pe & 1 != 0) {
            used.unload(pe, time);
        }
    }

    /// Who may hold an entry that can be reached through a context since event `since`, by the tag it has: global for
    /// global leaves, an ASID otherwise. An entry of stage 2 is held by its own, and a leaf also combined with entries
    /// of stage 1.
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

    /// Whether the tables below a root hold such a leaf. With a limit to the search: then they count as such that do.
    pub fn has_leaf(&self, root: u64, is: impl Fn(&Leaf) -> bool) -> bool {
        self.finds_leaf(root, &is, &mut MAX_SEARCHED.clone())
    }

    fn finds_leaf(&self, base: u64, is: &impl Fn(&Leaf) -> bool, budget: &mut usize) -> bool {
        let Some(left) = budget.checked_sub(1) else { return true };
        *budget = left;
        let Some(table) = self.tables.get(&base) else { return false };
        // A table that leads to itself is followed at one level.
        let deeper = |next: u64| self.tables.get(&next).is_some_and(|child| child.level > table.level);
        (0..table.entries.len()).any(|index| match table.descriptor(index) {
            Descriptor::Leaf(leaf) => is(&leaf),
            Descriptor::Table(next) => deeper(next.next) && self.finds_leaf(next.next, is, budget),
            Descriptor::Nothing => false,
        })
    }

    /// Notes that nobody can hold anything of a context, if that is so: no PE has it loaded, its root is empty, and what
    /// was in it is gone from every TLB. Its root may be freed and become anything.
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
}
