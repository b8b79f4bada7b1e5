//! Residues: entries that are gone from memory and may still be cached.
//!
//! ```text
//!   store changes the entry ──> open ──DSB by the writer, or by a PE that knows of the store (R4)──> ordered
//!   ordered ──covering TLBI──> in flight ──DSB by the PE that issued it (R5)──> gone on the PEs it reached
//! ```
//!
//! A residue is closed when no PE may hold it any more. A TLBI that does not suffice leaves a note why: R4 and R5 are never
//! verdicts, they explain one. What a TLBI does is in `invalidate`, how a verdict is explained in `explain`; here is
//! where residues are kept and found.
//!
//! They are indexed by what they translate, by ASID, by space, by where they lead and by the slot, so that no event looks at residues
//! that it does not concern. Lists in the indices are cleaned when they have more dead than live members.

mod explain;
mod invalidate;
mod order;
mod store;

pub use invalidate::{Named, Settled};
pub(crate) use order::member;

use crate::blind::Help;
use crate::descriptor::Descriptor;
use crate::geometry::{Geometry, Space};
use crate::hash::FastMap;
use crate::machine::{MAX_PES, PeSet};
use crate::report::Site;
use crate::shadow::ContextId;
use explain::{Logged, Noted};
use invalidate::InFlight;
use order::{Cut, CutOff};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use store::{Few, List, Sizes, Slab, bury, push, put, take};
use tlbsan_hint::Cause;

/// Names a residue; never used twice: a place and how often it was used before.
pub type ResidueId = u64;

/// What a cached entry is tagged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// A global leaf, or any leaf where there are no ASIDs.
    Global,
    /// A non-global leaf or a table entry under this ASID.
    Asid(u16),
    /// Under more ASIDs than are followed one by one: only an operation for every ASID removes it for sure.
    AnyAsid,
    /// An entry of stage 2 by itself.
    Ipa,
    /// Entries of stage 1 that were combined with an entry of stage 2.
    Combined,
}

impl Tag {
    /// Whether a lookup under `asid` finds it; 0 where there are no ASIDs.
    pub fn is_found(self, asid: u16) -> bool {
        !matches!(self, Self::Asid(other) if other != asid)
    }
}

/// Who may hold an entry, by its tag. Nearly always one.
pub type Holders = SmallVec<[(Tag, PeSet); 2]>;
/// Some residues. Nearly always a few.
pub type Ids = SmallVec<[ResidueId; 4]>;

/// PEs that may hold a residue under one tag.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The tag.
    pub tag: Tag,
    /// The PEs.
    pub pes: PeSet,
    /// Covering TLBIs that no DSB has completed yet.
    in_flight: Vec<InFlight>,
}

/// What is removed from a slot, and where it translated.
#[derive(Clone, Copy, Debug)]
pub struct Removed {
    /// Through which root.
    pub context: ContextId,
    /// What it belongs to.
    pub space: Space,
    /// How it was walked.
    pub geometry: Geometry,
    /// Physical address of the table.
    pub table: u64,
    /// Number of the slot in it.
    pub index: usize,
    /// Level of the slot.
    pub level: i8,
    /// First input address.
    pub start: u64,
    /// The old entry.
    pub bits: u64,
    /// The old entry, decoded.
    pub entry: Descriptor,
    /// Physical address of the slot whose change took it out of the tables: its own, or that of a table above it.
    pub cut: u64,
    /// The table residue through which a walker may still reach it, if it is still in its (unlinked) table.
    pub through: Option<ResidueId>,
}

impl Removed {
    /// Physical address of the slot.
    #[inline]
    pub fn slot(&self) -> u64 {
        self.table.wrapping_add(self.index as u64 * 8)
    }

    /// First input address that its whole table translates.
    pub fn table_start(&self) -> u64 {
        self.start.wrapping_sub((self.index as u64) << self.shift())
    }

    /// Whether `bits` in its slot say the same.
    pub(super) fn is_said_by(&self, bits: u64) -> bool {
        let decode = |bits| Descriptor::decode(bits, self.level, &self.geometry);
        bits == self.bits || decode(bits) == decode(self.bits)
    }

    /// Whether the same is cached of it where the table entries above forbid so much.
    pub(super) fn says(&self, forbidden: u8) -> bool {
        Descriptor::decode(self.bits, self.level, &self.geometry).under(forbidden) == self.entry
    }

    /// log2 of the bytes that it translates.
    #[inline]
    pub fn shift(&self) -> u32 {
        self.geometry.shift(self.level)
    }
}

/// An entry that may still be cached.
#[derive(Clone, Debug)]
pub struct Residue {
    /// What and where.
    pub what: Removed,
    /// Who may hold it.
    pub holders: SmallVec<[Holder; 1]>,
    /// Who removed it.
    pub removed: Arc<Site>,
    /// The PE whose store it was; not known while only its effect was seen.
    writer: Option<usize>,
    /// Number of the event in which it came into being; of what was filled in later, of that which it hangs on.
    born: u64,
    /// Number of the event in which it was filled in.
    filled: u64,
    /// Number of the event in which its writer stored: later, if its effect was seen first.
    written: u64,
    /// The store that removed it from its unlinked table as well.
    detached: Option<CutOff>,
    /// Residues that can be reached through this one.
    children: Vec<ResidueId>,
    /// TLBIs that did not suffice.
    attempts: Vec<Noted>,
    more_attempts: u64,
    /// Withheld instructions that would have helped to remove it, by the event they were executed in.
    missed: Vec<(u64, Help)>,
}

impl Residue {
    /// Whether it is a walk-cache entry.
    #[inline]
    pub fn is_table(&self) -> bool {
        matches!(self.what.entry, Descriptor::Table(_))
    }

    /// Bytes that it translates.
    pub fn size(&self) -> u64 {
        1 << self.what.shift()
    }

    /// Number of the event in which it came into being.
    pub fn born(&self) -> u64 {
        self.born
    }

    /// The PE whose store it was, if that is known.
    pub fn writer(&self) -> Option<usize> {
        self.writer
    }

    /// Whether it is gone from its unlinked table as well.
    pub fn is_detached(&self) -> bool {
        self.detached.is_some()
    }

    /// PEs that may hold it under a tag.
    pub fn held_under(&self, tag: Tag) -> PeSet {
        self.holders.iter().filter(|holder| holder.tag == tag).fold(0, |set, holder| set | holder.pes)
    }

    /// Whether `pe` may hold it, tagged so that a lookup under `asid` finds it.
    pub fn may_be_found(&self, pe: usize, asid: u16) -> bool {
        self.holders.iter().any(|holder| holder.pes >> pe & 1 != 0 && holder.tag.is_found(asid))
    }

    /// Every PE that may hold it.
    pub fn pes(&self) -> PeSet {
        self.holders.iter().fold(0, |set, holder| set | holder.pes)
    }

    /// Withheld instructions that a verdict with this cause answers for.
    pub fn missed(&self, cause: Cause) -> impl Iterator<Item = u64> + '_ {
        let answers = move |help| match help {
            Help::Remove => true,
            // Another DSB came in time.
            Help::Order => false,
            Help::Complete => cause == Cause::NotCompleted,
        };
        self.missed.iter().filter(move |(_, help)| answers(*help)).map(|(event, _)| *event)
    }

    /// Whether it is tagged with `asid`, or with none; where there are no ASIDs, a number says nothing.
    pub fn concerns(&self, asid: u16) -> bool {
        let is_meant = |holder: &Holder| match holder.tag {
            Tag::Asid(tag) => tag == asid,
            _ => true,
        };
        !self.what.space.has_asids() || self.holders.iter().any(is_meant)
    }

    /// Whether it translates some of the `size` bytes from `first`.
    pub fn overlaps(&self, first: u64, size: u64) -> bool {
        overlap((self.what.start, self.size()), (first, size))
    }
}

/// Whether two ranges of (start, bytes) have a byte in common. They may end at 2^64.
#[inline]
fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 <= b.0.saturating_add(b.1.saturating_sub(1)) && b.0 <= a.0.saturating_add(a.1.saturating_sub(1))
}

/// Residues that are kept open; what would be more is not followed.
pub const MAX_OPEN: usize = 1 << 17;

/// All open residues.
#[derive(Clone, Debug, Default)]
pub struct Residues {
    slab: Slab,
    /// By first address and log2 of the size.
    by_span: FastMap<(Space, u64, u8), Few>,
    by_space: FastMap<Space, List>,
    by_asid: FastMap<(Space, u16), List>,
    /// Leaves by where they lead, and log2 of the size.
    by_frame: FastMap<(u64, u8), Few>,
    /// By the slot that they were read from, what was cut off above that.
    by_slot: FastMap<u64, Few>,
    /// How many there are of each size.
    sizes: Sizes,
    /// Slots that residues were cut off by.
    cuts: FastMap<u64, Cut>,
    /// Per PE: when its last DSB that publishes stores up to each domain was.
    published: Vec<[u64; 4]>,
    /// By domain, the last DSB after which its PE executed a TLBI: what was stored before counts as ordered.
    handed_over: [u64; 4],
    /// Per PE: residues with a TLBI of this PE in flight.
    in_flight: Vec<Vec<ResidueId>>,
    /// Per PE: what its own completed TLBIs removed since its last context synchronisation event (R6).
    unsynchronised: Vec<Vec<Settled>>,
    /// Number of the event being handled.
    now: u64,
    tlbis: u64,
    /// TLBIs that concerned no residue: they may have been meant for one.
    log: VecDeque<Logged>,
    opened: u64,
    cleaned: u64,
    refused: u64,
}

impl Residues {
    /// The next event is number `now`; numbers grow.
    #[inline]
    pub fn at_event(&mut self, now: u64) {
        self.now = now;
    }

    /// Opens a residue for what `holders` may hold. `writer` is unknown if only the effect of the store was seen.
    pub fn open(
        &mut self,
        what: Removed,
        holders: Holders,
        removed: Arc<Site>,
        writer: Option<usize>,
    ) -> Option<ResidueId> {
        if holders.is_empty() {
            return None;
        }
        if self.slab.live >= MAX_OPEN {
            self.refused += 1;
            return None;
        }
        self.opened += 1;
        let (space, start, shift, cut, through) = (what.space, what.start, what.shift(), what.cut, what.through);
        let slot = what.slot();
        let frame = leads_to(&what);
        let holders = holders.into_iter().map(|(tag, pes)| Holder { tag, pes, in_flight: Vec::new() }).collect();
        let id = self.slab.insert(Residue {
            what,
            holders,
            removed,
            writer,
            born: self.now,
            filled: self.now,
            written: self.now,
            detached: None,
            children: Vec::new(),
            attempts: Vec::new(),
            more_attempts: 0,
            missed: Vec::new(),
        });
        put(&mut self.by_span, (space, start, shift as u8), id);
        push(&self.slab, self.by_space.entry(space).or_default(), id);
        for holder in self.slab.get(id).iter().flat_map(|residue| &residue.holders) {
            if let Tag::Asid(asid) = holder.tag {
                push(&self.slab, self.by_asid.entry((space, asid)).or_default(), id);
            }
        }
        if let Some(frame) = frame {
            put(&mut self.by_frame, (frame, shift as u8), id);
        }
        if slot != cut {
            put(&mut self.by_slot, slot, id);
        }
        self.sizes.add(shift);
        let cut = self.cuts.entry(cut).or_default();
        cut.live += 1;
        cut.last_store = self.now;
        if writer.is_none() {
            cut.unattributed.push(id);
        }
        if let Some(above) = through.and_then(|through| self.slab.get_mut(through)) {
            above.children.push(id);
        }
        Some(id)
    }

    /// Ends a residue that did no harm or was judged; not counted as cleaned.
    pub fn retire(&mut self, id: ResidueId) -> Option<Box<Residue>> {
        let residue = self.slab.remove(id)?;
        let Removed { space, start, cut, .. } = residue.what;
        let (shift, slot) = (residue.what.shift(), residue.what.slot());
        take(&mut self.by_span, (space, start, shift as u8), id);
        if let Some(frame) = leads_to(&residue.what) {
            take(&mut self.by_frame, (frame, shift as u8), id);
        }
        bury(&self.slab, &mut self.by_space, space);
        for holder in &residue.holders {
            if let Tag::Asid(asid) = holder.tag {
                bury(&self.slab, &mut self.by_asid, (space, asid));
            }
        }
        if slot != cut {
            take(&mut self.by_slot, slot, id);
        }
        self.sizes.remove(shift);
        self.leave_cut(cut);
        if residue.detached.is_some() {
            self.leave_cut(slot);
        }
        Some(residue)
    }

    fn leave_cut(&mut self, slot: u64) {
        if let Some(cut) = self.cuts.get_mut(&slot) {
            cut.live = cut.live.saturating_sub(1);
            if cut.live == 0 {
                self.cuts.remove(&slot);
            }
        }
    }

    /// The table residue through which this one was reached has had its verdict for `told`: what is left is what other PEs hold, and
    /// what these can still reach through another one. Whether anything is.
    pub fn outlive(&mut self, id: ResidueId, told: PeSet, other: Option<ResidueId>) -> bool {
        let still = other.and_then(|other| self.get(other)).map_or(0, Residue::pes);
        let Some(residue) = self.slab.get_mut(id) else { return false };
        residue.what.through = other;
        residue.holders.iter_mut().for_each(|holder| holder.pes &= !told | still);
        let left = residue.pes() != 0;
        if let Some(other) = other.and_then(|other| self.slab.get_mut(other)) {
            other.children.push(id);
        }
        left
    }

    /// More PEs may hold a residue.
    pub fn hold(&mut self, id: ResidueId, more: impl Iterator<Item = (Tag, PeSet)>) {
        for (tag, pes) in more.filter(|(_, pes)| *pes != 0) {
            let Some(residue) = self.slab.get_mut(id) else { return };
            match residue.holders.iter_mut().find(|holder| holder.tag == tag) {
                Some(holder) => holder.pes |= pes,
                None => {
                    residue.holders.push(Holder { tag, pes, in_flight: Vec::new() });
                    if let Tag::Asid(asid) = tag {
                        let key = (residue.what.space, asid);
                        push(&self.slab, self.by_asid.entry(key).or_default(), id);
                    }
                }
            }
        }
    }

    /// What is filled in later than the one it hangs on was cut off by the same store.
    pub fn cut_off_like(&mut self, id: ResidueId, above: ResidueId) {
        let Some((born, written)) = self.get(above).map(|above| (above.born, above.written)) else { return };
        if let Some(residue) = self.slab.get_mut(id) {
            (residue.born, residue.written) = (born, written);
        }
    }

    /// An open residue.
    #[inline]
    pub fn get(&self, id: ResidueId) -> Option<&Residue> {
        self.slab.get(id)
    }

    /// Every open residue, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (ResidueId, &Residue)> {
        self.slab
            .places
            .iter()
            .enumerate()
            .filter_map(|(place, (used, residue))| Some((u64::from(*used) << 32 | place as u64, residue.as_deref()?)))
    }

    /// What can be reached through a residue.
    pub fn children(&self, id: ResidueId) -> Vec<ResidueId> {
        self.get(id).map_or(Vec::new(), |residue| residue.children.clone())
    }

    /// Forgets those that have ended of what can be reached through a residue.
    pub fn forget_ended_children(&mut self, id: ResidueId) {
        let living = self.children(id).into_iter().filter(|child| self.get(*child).is_some()).collect();
        if let Some(residue) = self.slab.get_mut(id) {
            residue.children = living;
        }
    }

    /// Residues of exactly this span.
    #[inline]
    pub fn at(&self, space: Space, start: u64, shift: u32) -> &[ResidueId] {
        self.by_span.get(&(space, start, shift as u8)).map_or(&[], Few::as_slice)
    }

    /// Residues of a space whose span has a byte in common with the `size` bytes from `first`.
    pub fn overlapping(&self, space: Space, first: u64, size: u64) -> Ids {
        let mut found = Ids::new();
        let last = first.saturating_add(size.saturating_sub(1));
        // How many entries of that size have a byte there.
        let entries = |shift: u32| ((last >> shift) - (first >> shift)).saturating_add(1);
        let Some(all) = self.by_space.get(&space) else { return found };
        if self.sizes.iter().map(entries).fold(0, u64::saturating_add) > all.ids.len() as u64 {
            found.extend(all.ids.iter().copied().filter(|id| self.get(*id).is_some_and(|r| r.overlaps(first, size))));
            return found;
        }
        for shift in self.sizes.iter() {
            for n in 0..entries(shift) {
                found.extend_from_slice(self.at(space, (first >> shift).wrapping_add(n) << shift, shift));
            }
        }
        found
    }

    /// Leaf residues that lead to a byte of the `size` bytes at `pa`.
    pub fn leading_to(&self, pa: u64, size: u64) -> Vec<ResidueId> {
        let mut found = Vec::new();
        if size > 1 << 20 {
            found.extend(
                self.iter()
                    .filter(|(_, r)| match leads_to(&r.what) {
                        Some(frame) => overlap((frame, r.size()), (pa, size)),
                        None => false,
                    })
                    .map(|(id, _)| id),
            );
            found.sort_unstable();
            return found;
        }
        for shift in self.sizes.iter() {
            let step = 1 << shift;
            let mut frame = Some(pa & !(step - 1));
            while let Some(at) = frame.filter(|at| *at <= pa.saturating_add(size.saturating_sub(1))) {
                if let Some(ids) = self.by_frame.get(&(at, shift as u8)) {
                    found.extend(ids.as_slice());
                }
                frame = at.checked_add(step);
            }
        }
        found
    }

    /// How many came into being, and how many of them were removed by invalidation.
    pub fn counts(&self) -> (u64, u64) {
        (self.opened, self.cleaned)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slab.live
    }

    /// Whether there is no residue at all.
    pub fn is_empty(&self) -> bool {
        self.slab.live == 0
    }

    /// How many were too many to be followed.
    #[inline]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether there are residues of a space.
    pub fn has(&self, space: Space) -> bool {
        self.by_space.contains_key(&space)
    }

    /// TLBIs so far.
    pub fn tlbis(&self) -> u64 {
        self.tlbis
    }
}

/// The frame that a leaf leads to.
#[inline]
fn leads_to(what: &Removed) -> Option<u64> {
    match what.entry {
        Descriptor::Leaf(leaf) => Some(leaf.output),
        _ => None,
    }
}

/// The list of a PE.
#[inline]
fn list<T: Default>(lists: &mut Vec<T>, pe: usize) -> &mut T {
    let pe = pe.min(MAX_PES - 1);
    if lists.len() <= pe {
        lists.resize_with(pe + 1, T::default);
    }
    &mut lists[pe]
}
