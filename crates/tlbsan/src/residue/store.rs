//! How residues are stored: places that are used again, and index lists that are cleaned now and then.

use super::{Residue, ResidueId};
use crate::hash::FastMap;

/// A list whose dead members go when they are too many.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    pub(super) ids: Vec<ResidueId>,
    dead: usize,
}

/// Where residues are kept: places that are used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Slab {
    pub(super) places: Vec<(u32, Option<Box<Residue>>)>,
    free: Vec<u32>,
    pub(super) live: usize,
}

impl Slab {
    #[inline]
    pub(super) fn get(&self, id: ResidueId) -> Option<&Residue> {
        let (used, residue) = self.places.get(id as u32 as usize)?;
        (u64::from(*used) == id >> 32).then_some(residue.as_deref()).flatten()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ResidueId) -> Option<&mut Residue> {
        let (used, residue) = self.places.get_mut(id as u32 as usize)?;
        (u64::from(*used) == id >> 32).then_some(residue.as_deref_mut()).flatten()
    }

    pub(super) fn insert(&mut self, residue: Residue) -> ResidueId {
        self.live += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let (used, slot) = &mut self.places[place as usize];
        *slot = Some(Box::new(residue));
        u64::from(*used) << 32 | u64::from(place)
    }

    pub(super) fn remove(&mut self, id: ResidueId) -> Option<Box<Residue>> {
        let (used, slot) = self.places.get_mut(id as u32 as usize)?;
        if u64::from(*used) != id >> 32 {
            return None;
        }
        let residue = slot.take()?;
        *used = used.wrapping_add(1);
        self.free.push(id as u32);
        self.live -= 1;
        Some(residue)
    }
}

/// How many residues there are of each size, as log2 of bytes.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    counts: [u32; 64],
    pub(super) mask: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { counts: [0; 64], mask: 0 }
    }
}

impl Sizes {
    pub(super) fn add(&mut self, shift: u32) {
        self.counts[shift as usize & 63] += 1;
        self.mask |= 1 << (shift & 63);
    }

    pub(super) fn remove(&mut self, shift: u32) {
        let count = &mut self.counts[shift as usize & 63];
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.mask &= !(1 << (shift & 63));
        }
    }

    /// The sizes that occur.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + use<> {
        let mut mask = self.mask;
        std::iter::from_fn(move || {
            let shift = mask.checked_ilog2()?;
            mask &= !(1 << shift);
            Some(shift)
        })
    }
}

#[inline]
pub(super) fn push(slab: &Slab, list: &mut List, id: ResidueId) {
    if list.dead > list.ids.len() / 2 + 16 {
        list.ids.retain(|id| slab.get(*id).is_some());
        list.dead = 0;
    }
    list.ids.push(id);
}

#[inline]
pub(super) fn bury<K: std::hash::Hash + Eq>(slab: &Slab, lists: &mut FastMap<K, List>, key: K) {
    if let Some(list) = lists.get_mut(&key) {
        list.dead += 1;
        if list.dead >= list.ids.len() {
            lists.remove(&key);
        } else if list.dead > list.ids.len() / 2 + 16 {
            list.ids.retain(|id| slab.get(*id).is_some());
            list.dead = 0;
        }
    }
}

/// Nearly always one; then it needs no memory of its own.
#[derive(Clone, Debug)]
pub(super) enum Few {
    One(ResidueId),
    Many(Vec<ResidueId>),
}

impl Few {
    pub(super) fn as_slice(&self) -> &[ResidueId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

#[inline]
pub(super) fn put<K: std::hash::Hash + Eq>(index: &mut FastMap<K, Few>, key: K, id: ResidueId) {
    index
        .entry(key)
        .and_modify(|few| match few {
            Few::One(first) => *few = Few::Many(vec![*first, id]),
            Few::Many(ids) => ids.push(id),
        })
        .or_insert(Few::One(id));
}

#[inline]
pub(super) fn take<K: std::hash::Hash + Eq>(index: &mut FastMap<K, Few>, key: K, id: ResidueId) {
    let empty = match index.get_mut(&key) {
        Some(Few::Many(ids)) => {
            ids.retain(|other| *other != id);
            ids.is_empty()
        }
        Some(Few::One(only)) => *only == id,
        None => false,
    };
    if empty {
        index.remove(&key);
    }
}
