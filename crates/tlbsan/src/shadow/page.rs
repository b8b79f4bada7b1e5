//! A table: what its entries are, since when, and who points at it.

use super::ContextId;
use super::spans::Places;
use crate::descriptor::Descriptor;
use crate::geometry::Geometry;
use crate::hash::FastSet;
use crate::residue::ResidueId;
use std::cell::RefCell;

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
    pub(super) parents: Vec<Parent>,
    /// Contents as last seen.
    pub entries: Box<[u64]>,
    /// For each of them the event since which walkers may have found it, or one that permits less.
    pub(super) since: Box<[u64]>,
    pub(super) places: RefCell<Places>,
    /// Table residues that lead here.
    pub residues: FastSet<ResidueId>,
    /// Slots stored to since it was unlinked, and whether some store was of no use to a teardown.
    pub scrubbed: Option<Box<Scrub>>,
}

impl TablePage {
    /// A table that `parent` points at since event `time`.
    pub fn new(level: i8, geometry: Geometry, parent: Parent, entries: Box<[u64]>, time: u64) -> Self {
        let since = vec![time; entries.len()].into();
        let (parents, places, residues) = (vec![parent], RefCell::default(), FastSet::default());
        Self { level, geometry, parents, entries, since, places, residues, scrubbed: None }
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

    /// Tables that the slots point at, with the slot's number.
    pub fn children(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (0..self.entries.len()).filter_map(|index| Some((index, self.descriptor(index).next()?)))
    }

    /// Table residues that lead here, oldest first as far as their names tell.
    pub fn leading_here(&self) -> Vec<ResidueId> {
        let mut ids: Vec<ResidueId> = self.residues.iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Whether nothing in it is cacheable.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().enumerate().all(|(index, bits)| bits & 1 == 0 || !self.descriptor(index).is_cacheable())
    }
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
