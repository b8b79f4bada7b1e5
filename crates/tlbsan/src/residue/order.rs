//! R4: which stores cut a residue off from walkers, whether these have seen them, and what can be fetched again meanwhile.

use super::{Residue, ResidueId, Residues};
use crate::descriptor::{Descriptor, Leaf};
use crate::geometry::Space;
use crate::report::Site;
use crate::shadow::{Context, Shadow};
use smallvec::SmallVec;
use std::sync::Arc;
use tlbi::barrier::Domain;

/// What is known of a slot that residues were cut off by.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    /// Residues that are open.
    pub(super) live: usize,
    /// When it was last stored to.
    pub(super) last_store: u64,
    /// Residues of a store that no PE has reported yet.
    pub(super) unattributed: Vec<ResidueId>,
    /// Who has read it, and when.
    pub(super) readers: SmallVec<[(usize, u64); 1]>,
}

/// A store to `slot` that cut a residue off.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutOff {
    pub(super) slot: u64,
    /// The PE, if that is known.
    writer: Option<usize>,
    /// Since when reads of the slot count as reads of it.
    since: u64,
    pub(super) written: u64,
}

/// Readers of one slot that are remembered.
const MAX_READERS: usize = 64;

impl Residues {
    /// `pe` has read the slot: from now on its DSBs order the store too (other-multi-copy atomicity).
    pub fn seen(&mut self, slot: u64, pe: usize) {
        let Some(cut) = self.cuts.get_mut(&slot) else { return };
        let last_dsb = self.published.get(pe).map_or(0, |published| published[0]);
        // An earlier read of the same value that no DSB has followed yet says as much.
        let known = |(reader, at): &(usize, u64)| *reader == pe && *at > cut.last_store && *at > last_dsb;
        if !cut.readers.iter().any(known) {
            if cut.readers.len() >= MAX_READERS {
                cut.readers.remove(0);
            }
            cut.readers.push((pe, self.now));
        }
    }

    /// The store that changed `slot` turns out to be `pe`'s.
    pub fn attribute(&mut self, slot: u64, pe: usize, site: impl FnOnce() -> Arc<Site>) {
        let Some(cut) = self.cuts.get_mut(&slot) else { return };
        if cut.unattributed.is_empty() {
            return;
        }
        let site = site();
        for id in std::mem::take(&mut cut.unattributed) {
            if let Some(residue) = self.slab.get_mut(id) {
                residue.removed = Arc::clone(&site);
                residue.writer = Some(pe);
                residue.written = self.now;
            }
        }
    }

    /// The entry has gone from its unlinked table as well: once that store is ordered, a walker cannot fetch it from there again.
    pub fn detach(&mut self, space: Space, slot: u64, start: u64, shift: u32, pe: usize) {
        let cut_off = CutOff { slot, writer: Some(pe), since: self.now, written: self.now };
        for id in self.at(space, start, shift).to_vec() {
            let Some(residue) = self.slab.get_mut(id) else { continue };
            if residue.what.slot() == slot && residue.what.through.is_some() && !residue.is_detached() {
                residue.detached = Some(cut_off);
                let cut = self.cuts.entry(slot).or_default();
                cut.live += 1;
                cut.last_store = self.now;
            }
        }
    }

    /// The entry is in its unlinked table again.
    pub fn attach(&mut self, id: ResidueId) {
        let detached = self.slab.get_mut(id).and_then(|residue| residue.detached.take());
        detached.into_iter().for_each(|cut| self.leave_cut(cut.slot));
    }

    /// Another member of the contiguous run of this residue is back: what is in flight may have been executed before it was
    /// fetched again.
    pub fn revive(&mut self, id: ResidueId) {
        if let Some(residue) = self.slab.get_mut(id) {
            residue.holders.iter_mut().for_each(|holder| holder.in_flight.clear());
        }
    }

    /// R4: whether some DSB has made the store that removed the residue visible to walkers within `domain`.
    fn is_ordered(&self, residue: &Residue, domain: Domain, issuer: usize) -> bool {
        let Residue { writer, born, written, .. } = *residue;
        self.is_visible(CutOff { slot: residue.what.cut, writer, since: born, written }, domain, issuer)
    }

    /// Whether some DSB has made a store visible to walkers within `domain`.
    ///
    /// A barrier that reaches no further than its PE orders for that PE's own operations. Who executes DSB and TLBI is taken to
    /// have been handed what others stored before that DSB: under a lock, say, which is not seen. For what a PE has stored itself only
    /// its own DSB counts, or that of one who has read it.
    fn is_visible(&self, CutOff { slot, writer, since, written }: CutOff, domain: Domain, issuer: usize) -> bool {
        let wide = domain.max(Domain::InnerShareable);
        let after = |pe: usize, time: u64| {
            let enough = if pe == issuer { domain } else { wide };
            self.published.get(pe).is_some_and(|p| p[enough as usize] > time)
        };
        let read = |cut: &Cut| cut.readers.iter().any(|(pe, time)| *time >= since && after(*pe, *time));
        writer.is_some_and(|pe| after(pe, written))
            || after(issuer, written)
            || writer != Some(issuer) && self.handed_over[wide as usize] > written
            || self.cuts.get(&slot).is_some_and(read)
    }

    /// Table residues that lead to where a residue was read from, if it is still there as far as walkers within `domain` see:
    /// through each of them it can come back.
    pub(super) fn above(
        &self,
        residue: &Residue,
        shadow: &Shadow,
        domain: Domain,
        issuer: usize,
    ) -> SmallVec<[&Residue; 2]> {
        let what = &residue.what;
        let gone = residue.detached.is_some_and(|cut_off| self.is_visible(cut_off, domain, issuer));
        // Another member of its run stands for it there, if walks come there still.
        let in_run = || stands_in_run(residue, shadow) && !is_linked_here(residue, shadow);
        let hangs = what.through.is_some() && !gone || in_run();
        let Some(table) = shadow.table(what.table).filter(|_| hangs) else { return SmallVec::new() };
        let start = what.table_start();
        let leads = |above: &&Residue| {
            above.what.level < what.level && (above.what.context, above.what.start) == (what.context, start)
        };
        table.residues.iter().filter_map(|id| self.get(*id)).filter(leads).collect()
    }

    /// R4 for an entry and for every table residue `above` it: from one that stays the entry would come back.
    pub(super) fn is_ordered_from_above(
        &self,
        residue: &Residue,
        above: &[&Residue],
        shadow: &Shadow,
        domain: Domain,
        issuer: usize,
    ) -> bool {
        let from_above = |it: &&Residue| {
            let above = self.above(it, shadow, domain, issuer);
            self.is_ordered_from_above(it, &above, shadow, domain, issuer)
        };
        self.is_ordered(residue, domain, issuer) && above.iter().all(from_above)
    }
}

/// Whether its table is linked where it translated.
fn is_linked_here(residue: &Residue, shadow: &Shadow) -> bool {
    let (spans, more) = shadow.spans(residue.what.table, residue.what.index);
    let here = (residue.what.context, residue.what.start);
    more || spans.iter().any(|span| (span.context, span.start) == here)
}

/// Whether another member of its contiguous run still stands for this entry: the run is cached as one, from any member.
fn stands_in_run(residue: &Residue, shadow: &Shadow) -> bool {
    let (what, Descriptor::Leaf(old)) = (&residue.what, residue.what.entry) else { return false };
    let Some(table) = shadow.table(what.table).filter(|_| old.contiguous) else { return false };
    let run = what.geometry.run(what.level);
    let first = what.index & !(run - 1);
    (first..first + run).filter(|index| *index != what.index).any(|index| match table.descriptor(index) {
        Descriptor::Leaf(other) => member(&other, index, what.index, residue.size()) == old,
        _ => false,
    })
}

/// The context whose PEs can fetch it again from another member of its run.
pub(super) fn in_run<'a>(residue: &Residue, shadow: &'a Shadow) -> Option<&'a Context> {
    let again = stands_in_run(residue, shadow) && is_linked_here(residue, shadow);
    shadow.context(residue.what.context).filter(|_| again)
}

/// What the member of a run with number `own` says of number `index`.
pub(crate) fn member(leaf: &Leaf, own: usize, index: usize, size: u64) -> Leaf {
    let offset = (index as u64).wrapping_sub(own as u64).wrapping_mul(size);
    Leaf { output: leaf.output.wrapping_add(offset), ..*leaf }
}
