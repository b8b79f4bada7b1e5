//! The tables reachable from every root that some PE may hold entries of, with the contents last seen.
//!
//! Sources report a store after it happened and without the old value; the shadow is where the old value comes from. A
//! table page that is unlinked stays here, and watched, while a walk cache may still point at it.

use crate::descriptor::{Descriptor, ENTRIES, Geometry, PAGE, level_size};
use crate::machine::{Loaded, PeSet, Root};
use crate::residue::{ResidueId, Tag};
use std::collections::HashMap;

/// A root that some PE has loaded, and who may hold entries that were read through it.
#[derive(Clone, Debug)]
pub struct Context {
    /// The tables.
    pub root: Root,
    /// Under which ASIDs it was loaded.
    pub tags: Vec<TagUse>,
}

/// Which PEs have, or had, a context under one ASID.
#[derive(Clone, Copy, Debug)]
pub struct TagUse {
    /// The ASID.
    pub asid: u16,
    /// PEs that may hold entries (R3): it is loaded, or has been since the last covering, completed invalidation.
    pub held: PeSet,
    /// PEs on which it is loaded now.
    pub loaded: PeSet,
}

/// Index of a context.
pub type ContextId = usize;

/// Who points at a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// A TTBR.
    Root(ContextId),
    /// An entry of another table.
    Slot {
        /// The other table.
        page: u64,
        /// The entry's number.
        index: usize,
    },
}

/// A table page.
#[derive(Clone, Debug)]
pub struct TablePage {
    /// Level of its entries.
    pub level: i8,
    /// How it is walked.
    pub geometry: Geometry,
    /// Who points at it; empty: unlinked.
    pub parents: Vec<Parent>,
    /// Contents as last seen.
    pub entries: Box<[u64; ENTRIES]>,
    /// Table residues that lead here.
    pub residues: Vec<ResidueId>,
    /// Slots stored to since it was unlinked, and whether some store was of no use to a teardown.
    pub scrubbed: Option<Box<Scrub>>,
}

/// Tells a page that is being cleared for another use from one that is being torn down entry by entry.
#[derive(Clone, Debug, Default)]
pub struct Scrub {
    stored: [u64; ENTRIES / 64],
    pointless: bool,
}

impl Scrub {
    /// Notes a store of zero; `pointless`: the slot was invalid already, or the store covered more than one slot.
    pub fn note(&mut self, index: usize, pointless: bool) {
        self.stored[index / 64] |= 1 << (index % 64);
        self.pointless |= pointless;
    }

    /// Whether the whole page was cleared, and not as a teardown would.
    pub fn is_cleared(&self) -> bool {
        self.pointless && self.stored.iter().all(|word| *word == u64::MAX)
    }
}

impl TablePage {
    /// The descriptor in a slot.
    pub fn descriptor(&self, index: usize) -> Descriptor {
        Descriptor::decode(self.entries[index], self.level, &self.geometry)
    }

    /// Tables that the slots point at, with the slot's number.
    pub fn children(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (0..ENTRIES).filter_map(|index| match self.descriptor(index) {
            Descriptor::Table(table) => Some((index, table.next)),
            _ => None,
        })
    }
}

/// Where a slot translates: in which context, from which virtual address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The context.
    pub context: ContextId,
    /// First virtual address.
    pub start: u64,
}

/// All contexts and table pages.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    contexts: Vec<Option<Context>>,
    pages: HashMap<u64, TablePage>,
}

/// PEs a context is followed under: one tag an ASID, up to this many; more are held under any ASID.
const MAX_TAGS: usize = 16;

impl Shadow {
    /// The context of `root`, if it is known.
    pub fn find(&self, root: &Root) -> Option<ContextId> {
        self.contexts.iter().position(|c| c.as_ref().is_some_and(|c| c.root == *root))
    }

    /// Makes a context for `root`.
    pub fn add_context(&mut self, root: Root) -> ContextId {
        let context = Some(Context { root, tags: Vec::new() });
        match self.contexts.iter().position(Option::is_none) {
            Some(free) => {
                self.contexts[free] = context;
                free
            }
            None => {
                self.contexts.push(context);
                self.contexts.len() - 1
            }
        }
    }

    /// Forgets a context.
    pub fn drop_context(&mut self, id: ContextId) {
        if let Some(slot) = self.contexts.get_mut(id) {
            *slot = None;
        }
    }

    /// The context with this index.
    pub fn context(&self, id: ContextId) -> Option<&Context> {
        self.contexts.get(id)?.as_ref()
    }

    /// Every context, to change.
    pub fn contexts_mut(&mut self) -> impl Iterator<Item = (ContextId, &mut Context)> {
        self.contexts.iter_mut().enumerate().filter_map(|(id, c)| Some((id, c.as_mut()?)))
    }

    /// Notes that `loaded` is loaded on `pe` from now on.
    pub fn load(&mut self, id: ContextId, loaded: &Loaded, pe: usize) {
        let Some(Some(context)) = self.contexts.get_mut(id) else { return };
        let bit = 1 << pe;
        match context.tags.iter_mut().find(|tag| tag.asid == loaded.asid) {
            Some(tag) => {
                tag.held |= bit;
                tag.loaded |= bit;
            }
            None => context.tags.push(TagUse { asid: loaded.asid, held: bit, loaded: bit }),
        }
    }

    /// Notes that `loaded` is no longer loaded on `pe`. What it cached stays.
    pub fn unload(&mut self, id: ContextId, loaded: &Loaded, pe: usize) {
        let Some(Some(context)) = self.contexts.get_mut(id) else { return };
        if let Some(tag) = context.tags.iter_mut().find(|tag| tag.asid == loaded.asid) {
            tag.loaded &= !(1 << pe);
        }
    }

    /// Who may hold an entry read through a context, by the tag it has: global for global leaves, an ASID otherwise.
    pub fn holders(&self, id: ContextId, global: bool) -> Vec<(Tag, PeSet)> {
        let Some(context) = self.context(id) else { return Vec::new() };
        let all = context.tags.iter().fold(0, |set, tag| set | tag.held);
        if all == 0 {
            Vec::new()
        } else if global {
            vec![(Tag::Global, all)]
        } else if context.tags.len() > MAX_TAGS {
            vec![(Tag::AnyAsid, all)]
        } else {
            context.tags.iter().filter(|tag| tag.held != 0).map(|tag| (Tag::Asid(tag.asid), tag.held)).collect()
        }
    }

    /// The table page at `page`.
    pub fn page(&self, page: u64) -> Option<&TablePage> {
        self.pages.get(&page)
    }

    /// The table page at `page`, to change.
    pub fn page_mut(&mut self, page: u64) -> Option<&mut TablePage> {
        self.pages.get_mut(&page)
    }

    /// Adds a table page.
    pub fn insert_page(&mut self, page: u64, table: TablePage) {
        self.pages.insert(page, table);
    }

    /// Forgets a table page.
    pub fn remove_page(&mut self, page: u64) -> Option<TablePage> {
        self.pages.remove(&page)
    }

    /// Everywhere that a slot translates. A table may be linked from several places.
    pub fn spans(&self, page: u64, index: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        self.collect_spans(page, index, 0, &mut spans);
        spans
    }

    fn collect_spans(&self, page: u64, index: usize, offset: u64, spans: &mut Vec<Span>) {
        let Some(table) = self.pages.get(&page) else { return };
        let offset = offset.wrapping_add(index as u64 * level_size(table.level));
        for parent in &table.parents {
            match *parent {
                Parent::Root(context) => {
                    if let Some(known) = self.context(context) {
                        // Entries past the half's size are not reachable.
                        if offset >> known.root.geometry.va_bits == 0 {
                            let start = known.root.first_va().wrapping_add(offset);
                            spans.push(Span { context, start });
                        }
                    }
                }
                // Levels only ever rise towards the root, so this ends.
                Parent::Slot { page: above, index } => {
                    if self.pages.get(&above).is_some_and(|parent| parent.level < table.level) {
                        self.collect_spans(above, index, offset, spans);
                    }
                }
            }
        }
    }
}

/// The page that holds `pa`.
pub const fn page_of(pa: u64) -> u64 {
    pa & !(PAGE - 1)
}
