//! R4: which stores cut a residue off from walkers, whether these have seen them, and what can be fetched again meanwhile.

use super::{Ids, Residue, ResidueId, Residues};
use crate::descriptor::{Descriptor, Leaf};
use crate::machine::PeSet;
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
    /// Who has read it or stored to it again.
    pub(super) knowers: SmallVec<[Knower; 1]>,
}

/// A PE that knows what a slot held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knower {
    /// When it read the slot, or stored to it.
    pub(super) at: u64,
    pe: u16,
    stored: bool,
}

impl Knower {
    pub(super) fn pe(&self) -> usize {
        usize::from(self.pe)
    }
}

/// A store to `slot` that cut a residue off.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutOff {
    slot: u64,
    /// The PE, if that is known.
    writer: Option<usize>,
    /// Since when who reads the slot, or stores to it, knows of it.
    since: u64,
    pub(super) written: u64,
}

/// Knowers of one slot that are remembered.
const MAX_KNOWERS: usize = 64;

impl Residues {
    /// `pe` has read the slot, or stored to it: from now on its DSBs order earlier stores too (other-multi-copy atomicity, coherence).
    pub fn seen(&mut self, slot: u64, pe: usize, stored: bool) {
        let Some(cut) = self.cuts.get_mut(&slot) else { return };
        let last_dsb = self.published.get(pe).map_or(0, |published| published[0]);
        // That it knew the same value already, and no DSB has followed yet, says as much.
        let known = |it: &Knower| it.pe() == pe && it.stored == stored && it.at > cut.last_store && it.at > last_dsb;
        if !cut.knowers.iter().any(known) {
            if cut.knowers.len() >= MAX_KNOWERS {
                cut.knowers.remove(0);
            }
            cut.knowers.push(Knower { at: self.now, pe: pe as u16, stored });
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

    /// `pe` has stored `new` to a slot that held `old`. What was cut off above it and read from there cannot be read any more, once that
    /// store is ordered; or can be again.
    pub fn stored(&mut self, slot: u64, old: u64, new: u64, pe: usize) {
        let Some(ids) = self.by_slot.get(&slot).map(|ids| Ids::from_slice(ids.as_slice())) else { return };
        for id in ids {
            let Some(residue) = self.slab.get_mut(id) else { continue };
            let is_said_by = |bits| residue.what.is_said_by(bits);
            if is_said_by(new) {
                if residue.detached.take().is_some() {
                    self.leave_cut(slot);
                }
            } else if is_said_by(old) && residue.detached.is_none() {
                residue.detached = Some(CutOff { slot, writer: Some(pe), since: self.now, written: self.now });
                let cut = self.cuts.entry(slot).or_default();
                cut.live += 1;
                cut.last_store = self.now;
            }
        }
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
    /// its own DSB counts, or that of one who has read it or stored there since.
    fn is_visible(&self, CutOff { slot, writer, since, written }: CutOff, domain: Domain, issuer: usize) -> bool {
        let wide = domain.max(Domain::InnerShareable);
        let after = |pe: usize, time: u64| {
            let enough = if pe == issuer { domain } else { wide };
            self.published.get(pe).is_some_and(|p| p[enough as usize] > time)
        };
        let handed_over = |time: u64| self.handed_over[wide as usize] > time;
        // Once a later store to the slot is visible, this one can no longer be missed.
        let knows = |it: &&Knower| after(it.pe(), it.at) || it.stored && it.pe() != issuer && handed_over(it.at);
        let known = |cut: &Cut| cut.knowers.iter().filter(|it| it.at >= since).any(|it| knows(&it));
        writer.is_some_and(|pe| after(pe, written))
            || after(issuer, written)
            || writer != Some(issuer) && handed_over(written)
            || self.cuts.get(&slot).is_some_and(known)
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
        let Some(table) = shadow.table(what.table) else { return SmallVec::new() };
        // It may have been changed while the page was no table.
        let stands = || table.entries.get(what.index).is_some_and(|bits| what.is_said_by(*bits));
        let missed = |cut_off| !self.is_visible(cut_off, domain, issuer);
        let hangs = what.through.is_some() && residue.detached.map_or_else(stands, missed);
        // Another member of its run stands for it there, if walks come there still.
        let in_run = |forbidden| stands_in_run(residue, shadow, forbidden) && linked_here(residue, shadow).is_none();
        let start = what.table_start();
        let leads = |above: &&Residue| {
            let there = (above.what.context, above.what.start) == (what.context, start);
            let forbidden = above.what.entry.forbids();
            above.what.level < what.level && there && (hangs && what.says(forbidden) || in_run(forbidden))
        };
        table.residues.iter().filter_map(|id| self.get(*id)).filter(leads).collect()
    }

    /// R4: PEs whose walkers may still miss a store that removed the entry, or one that removed a table residue `above` it: from
    /// that the entry would come back.
    pub(super) fn unordered(
        &self,
        residue: &Residue,
        above: &[&Residue],
        shadow: &Shadow,
        domain: Domain,
        issuer: usize,
    ) -> PeSet {
        // Its table is linked again: walkers that miss what was stored there in between read the old entry.
        let missed = residue.detached.is_some_and(|cut_off| {
            let again = linked_here(residue, shadow).is_some_and(|forbidden| residue.what.says(forbidden));
            again && !self.is_visible(cut_off, domain, issuer)
        });
        if missed || !self.is_ordered(residue, domain, issuer) {
            return residue.pes();
        }
        let from_above =
            |it: &&Residue| self.unordered(it, &self.above(it, shadow, domain, issuer), shadow, domain, issuer);
        above.iter().map(from_above).fold(0, |all, pes| all | pes)
    }
}

/// What is forbidden on the way to its table, if that is linked where it translated; taken for nothing where there are more places
/// than are followed.
fn linked_here(residue: &Residue, shadow: &Shadow) -> Option<u8> {
    let (spans, more) = shadow.spans(residue.what.table, residue.what.index);
    let here = (residue.what.context, residue.what.start);
    let span = spans.iter().find(|span| (span.context, span.start) == here);
    span.map(|span| span.forbids).or(more.then_some(0))
}

/// Whether another member of its contiguous run still stands for this entry: the run is cached as one, from any member.
fn stands_in_run(residue: &Residue, shadow: &Shadow, forbidden: u8) -> bool {
    let (what, Descriptor::Leaf(old)) = (&residue.what, residue.what.entry) else { return false };
    let Some(table) = shadow.table(what.table).filter(|_| old.contiguous) else { return false };
    let run = what.geometry.run(what.level);
    let first = what.index & !(run - 1);
    let mut others = (first..first + run).filter(|index| *index != what.index);
    others.any(|index| match table.descriptor(index).under(forbidden) {
        Descriptor::Leaf(other) => member(&other, index, what.index, residue.size()) == old,
        _ => false,
    })
}

/// The context whose PEs can fetch it again from another member of its run.
pub(super) fn in_run<'a>(residue: &Residue, shadow: &'a Shadow) -> Option<&'a Context> {
    let is_run = matches!(residue.what.entry, Descriptor::Leaf(leaf) if leaf.contiguous);
    let forbidden = if is_run { linked_here(residue, shadow)? } else { return None };
    shadow.context(residue.what.context).filter(|_| stands_in_run(residue, shadow, forbidden))
}

/// What the member of a run with number `own` says of number `index`.
pub(crate) fn member(leaf: &Leaf, own: usize, index: usize, size: u64) -> Leaf {
    let offset = (index as u64).wrapping_sub(own as u64).wrapping_mul(size);
    Leaf { output: leaf.output.wrapping_add(offset), ..*leaf }
}
