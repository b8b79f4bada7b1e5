//! What barriers and TLBIs do to residues (R5, R6; Arm ARM D8.16).

use super::explain::{LOG, Logged, Noted};
use super::order::{Cut, in_run};
use super::store::{List, bury};
use super::{Ids, Residue, ResidueId, Residues, Tag, list};
use crate::blind::Help;
use crate::descriptor::Descriptor;
use crate::effect::{Effect, Selection, completes};
use crate::geometry::Space;
use crate::machine::PeSet;
use crate::report::Site;
use crate::shadow::{Context, Shadow};
use smallvec::SmallVec;
use std::sync::Arc;
use tlbi::barrier::Domain;
use tlbi::{Dsb, Op};
use tlbsan_hint::Cause;

/// A TLBI that covers a residue and that no DSB has completed yet.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) issuer: usize,
    pub(super) op: Op,
    pub(super) reach: PeSet,
    pub(super) site: Arc<Site>,
}

/// What a PE has invalidated and not synchronised that is remembered.
const MAX_UNSYNCHRONISED: usize = 64;

/// Something that is gone from a PE by that PE's own TLBI and DSB.
#[derive(Clone, Debug)]
pub struct Settled {
    /// What it belonged to.
    pub space: Space,
    /// How it was tagged.
    pub tag: Tag,
    /// First input address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Level.
    pub level: i8,
    /// The slot it was read from.
    pub slot: u64,
    /// The old entry.
    pub bits: u64,
    /// The same, decoded.
    pub entry: Descriptor,
    /// Who removed it.
    pub removed: Arc<Site>,
}

/// Residues that have ended, with their former names.
pub(super) type Closed = SmallVec<[(ResidueId, Box<Residue>); 2]>;

/// What is stale of that which an operation names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named {
    /// Whether there is something.
    pub any: bool,
    /// Whether a leaf-only operation would not do.
    pub beyond_leaves: bool,
    /// PEs that may hold it.
    pub pes: PeSet,
}

impl Residues {
    /// `pe` executes a TLBI.
    pub fn tlbi(&mut self, effect: &Effect, shadow: &Shadow, site: impl FnOnce() -> Arc<Site>) {
        self.tlbis += u64::from(!matches!(effect.selection, Selection::Combined { .. }));
        if let Some(published) = self.published.get(effect.issuer) {
            for (handed_over, last_dsb) in self.handed_over.iter_mut().zip(published) {
                *handed_over = (*handed_over).max(*last_dsb);
            }
        }
        if self.is_empty() || effect.selection == Selection::Nothing {
            return;
        }
        let ids = self.selected(effect);
        let site = site();
        let mut concerned = false;
        for id in ids {
            concerned |= self.invalidate(id, effect, shadow, &site);
        }
        // By ASID: a global entry is not looked at, and may have been meant.
        let own = !matches!(effect.selection, Selection::Combined { .. });
        if own && (!concerned || matches!(effect.selection, Selection::Asid(..))) {
            if self.log.len() == LOG {
                self.log.pop_front();
            }
            self.log.push_back(Logged { time: self.now, effect: *effect, site });
        }
    }

    /// A TLBI is withheld, or taken for another: marks what it removes and what is `seen` does not.
    pub fn withhold_tlbi(&mut self, effect: &Effect, seen: Option<&Effect>, shadow: &Shadow) {
        for id in self.selected(effect) {
            let removed = self.removes(id, effect, shadow) & !seen.map_or(0, |seen| self.removes(id, seen, shadow));
            self.mark(id, removed != 0, Help::Remove);
        }
    }

    /// PEs from which an operation removes a residue, whatever it is tagged with.
    fn removes(&self, id: ResidueId, effect: &Effect, shadow: &Shadow) -> PeSet {
        let Some(residue) = self.slab.get(id) else { return 0 };
        let around = self.around(residue, effect, shadow);
        let from = |n| residue.suffices(n, effect, around).map_or(0, |it| it.reach) & residue.holders[n].pes;
        (0..residue.holders.len()).fold(0, |set, n| set | from(n))
    }

    /// A DSB is withheld: marks whose invalidation it completes, and whose removal it orders.
    pub fn withhold_dsb(&mut self, pe: usize, dsb: Dsb) {
        let ids: Vec<ResidueId> = self.iter().map(|(id, _)| id).collect();
        let last = self.published.get(pe).map_or(0, |published| published[dsb.domain() as usize]);
        for id in ids {
            let Some(residue) = self.slab.get(id) else { continue };
            let mut in_flight = residue.holders.iter().flat_map(|holder| &holder.in_flight);
            let awaited = in_flight.any(|tlbi| tlbi.issuer == pe && completes(dsb, &tlbi.op));
            let knows = |cut: &Cut| cut.knowers.iter().any(|it| it.pe() == pe && it.at > last);
            let knows = self.cuts.get(&residue.what.cut).is_some_and(knows);
            let orders = dsb.covers_stores() && (residue.written > last || knows);
            self.mark(id, awaited, Help::Complete);
            self.mark(id, orders, Help::Order);
        }
    }

    fn mark(&mut self, id: ResidueId, yes: bool, help: Help) {
        /// Withheld instructions that one residue remembers: each has one verdict.
        const MAX_MISSED: usize = 64;
        if yes
            && let Some(residue) = self.slab.get_mut(id)
            && residue.missed.len() < MAX_MISSED
        {
            residue.missed.push((self.now, help));
        }
    }

    /// What an operation finds around a residue.
    fn around<'a>(&self, residue: &Residue, effect: &Effect, shadow: &'a Shadow) -> Around<'a> {
        let (domain, issuer) = (effect.op.scope.domain(), effect.issuer);
        let above = self.above(residue, shadow, domain, issuer);
        let held = |pes, above: &&Residue| pes | above.pes();
        Around {
            refillable: above.iter().fold(0, held),
            left_above: above.iter().filter(|above| !above.is_named_by(effect)).fold(0, held),
            in_run: in_run(residue, shadow),
            unordered: self.unordered(residue, &above, shadow, domain, issuer),
        }
    }

    /// What there is for an operation to remove; asked before it is executed.
    pub fn named(&self, effect: &Effect) -> Named {
        let mut named = Named::default();
        for residue in self.selected(effect).into_iter().filter_map(|id| self.get(id)) {
            let refillable = residue.what.through.is_some_and(|through| self.get(through).is_some());
            let pes = if refillable { PeSet::MAX } else { 0 };
            let around = Around { refillable: pes, left_above: 0, in_run: None, unordered: 0 };
            for n in 0..residue.holders.len() {
                match residue.suffices(n, effect, around) {
                    Err(Cause::WrongAsid | Cause::GlobalSurvives | Cause::WrongRange) => {}
                    // One that falls short is a matter of verdicts, not of cost.
                    _ => {
                        named.any = true;
                        named.beyond_leaves |= refillable || residue.is_table();
                        named.pes |= residue.holders[n].pes;
                    }
                }
            }
        }
        named
    }

    /// The residues that an operation may concern.
    fn selected(&self, effect: &Effect) -> Ids {
        let members = |list: Option<&List>| list.map_or(Ids::new(), |list| Ids::from_slice(&list.ids));
        let of_space = |space: Space| members(self.by_space.get(&space));
        match effect.selection {
            Selection::Nothing => Ids::new(),
            Selection::Everything => self.iter().map(|(id, _)| id).collect(),
            Selection::Space(space) => {
                let mut ids = of_space(space);
                if let Space::El10(vmid) = space {
                    ids.extend(of_space(Space::Stage2(vmid)));
                }
                ids
            }
            Selection::Asid(space, asid) => members(self.by_asid.get(&(space, asid))),
            Selection::Addresses { space, first, size, .. } => self.overlapping(space, first, size),
            Selection::Combined { vmid, first, .. } => self.overlapping(Space::Stage2(vmid), first, 1),
            Selection::BothStages(vmid) => {
                let mut ids = of_space(Space::El10(vmid));
                ids.extend(of_space(Space::Stage2(vmid)));
                ids
            }
            Selection::EveryVmid => {
                let el10 = self.by_space.keys().filter(|s| matches!(s, Space::El10(_) | Space::Stage2(_)));
                el10.flat_map(|space| of_space(*space)).collect()
            }
        }
    }

    /// Whether the operation concerned this residue at all.
    fn invalidate(&mut self, id: ResidueId, effect: &Effect, shadow: &Shadow, site: &Arc<Site>) -> bool {
        let Some(residue) = self.slab.get(id) else { return false };
        let around = self.around(residue, effect, shadow);
        let refillable = around.refillable != 0;
        let Some(residue) = self.slab.get_mut(id) else { return false };
        let (mut concerned, mut started) = (false, false);
        let verdicts: SmallVec<[_; 2]> =
            (0..residue.holders.len()).map(|index| residue.suffices(index, effect, around)).collect();
        // It is meant for this entry, and leaves it under other ASIDs.
        let meant = verdicts.iter().any(Result::is_ok);
        for (index, verdict) in verdicts.into_iter().enumerate() {
            concerned |= !matches!(verdict, Err(Cause::WrongAsid));
            match verdict {
                Err(Cause::WrongAsid) if meant && matches!(residue.holders[index].tag, Tag::Asid(_)) => {
                    let held = residue.holders[index].pes;
                    residue.note(Noted::new(site, effect.op, Cause::WrongAsid, held, refillable));
                }
                Ok(Removal { reach, why_left }) => {
                    let holder = &mut residue.holders[index];
                    let held = holder.pes;
                    let op = effect.op;
                    let same = |other: &InFlight| {
                        (other.issuer, other.op.scope, other.op.nxs) == (effect.issuer, op.scope, op.nxs)
                            && reach & !other.reach == 0
                    };
                    if held & reach != 0 && !holder.in_flight.iter().any(same) {
                        let (issuer, site) = (effect.issuer, Arc::clone(site));
                        holder.in_flight.push(InFlight { issuer, op, reach, site });
                        started = true;
                    }
                    if why_left == Cause::NotOrdered && held & effect.reach & !reach != 0 {
                        residue.wants_order();
                    }
                    let left = [(!effect.reach, Cause::LocalOnly), (effect.reach & !reach, why_left)];
                    for (pes, cause) in left.into_iter().filter(|(pes, _)| held & pes != 0) {
                        residue.note(Noted::new(site, op, cause, held & pes, refillable));
                    }
                }
                // Somebody else's invalidation, most likely.
                Err(Cause::WrongAsid) => {}
                Err(cause) => {
                    let held = residue.holders[index].pes;
                    if cause == Cause::NotOrdered {
                        residue.wants_order();
                    }
                    residue.note(Noted::new(site, effect.op, cause, held, refillable));
                }
            }
        }
        if started {
            list(&mut self.in_flight, effect.issuer).push(id);
        }
        concerned
    }

    /// `pe` executes a DSB. Returns the residues that are closed by it.
    pub fn dsb(&mut self, pe: usize, dsb: Dsb) -> Closed {
        if dsb.covers_stores() {
            let published = list(&mut self.published, pe);
            for time in &mut published[..=dsb.domain() as usize] {
                *time = self.now;
            }
        }
        if !dsb.completes_nxs_tlbi(Domain::NonShareable) {
            return Closed::new();
        }
        let mut waiting = match self.in_flight.get_mut(pe) {
            Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
            _ => return Closed::new(),
        };
        let mut closed = Closed::new();
        waiting.retain(|&id| {
            let Some(residue) = self.slab.get_mut(id) else { return false };
            let (still, own) = residue.complete(pe, dsb);
            for tag in own {
                let settled = residue.settled(tag);
                let mine = list(&mut self.unsynchronised, pe);
                if mine.len() < MAX_UNSYNCHRONISED {
                    mine.push(settled);
                }
            }
            let space = residue.what.space;
            if residue.pes() == 0 {
                closed.extend(self.retire(id).map(|residue| (id, residue)));
                self.cleaned += 1;
                return false;
            }
            let mut gone = SmallVec::<[Tag; 2]>::new();
            residue.holders.retain(|holder| {
                if holder.pes == 0 {
                    gone.push(holder.tag);
                }
                holder.pes != 0
            });
            for tag in gone {
                if let Tag::Asid(asid) = tag {
                    bury(&self.slab, &mut self.by_asid, (space, asid));
                }
            }
            still
        });
        // Nothing was added meanwhile, and its memory is used again.
        *list(&mut self.in_flight, pe) = waiting;
        closed
    }

    /// PEs hold nothing of some residues any more, by whatever way: under a tag, or under any (`None`).
    pub fn release(&mut self, ids: &[ResidueId], tag: Option<Tag>, pes: PeSet) -> Closed {
        let mut closed = Closed::new();
        for &id in ids {
            let Some(residue) = self.slab.get_mut(id) else { continue };
            for holder in residue.holders.iter_mut().filter(|holder| tag.is_none_or(|tag| holder.tag == tag)) {
                holder.pes &= !pes;
            }
            if residue.pes() == 0 {
                closed.extend(self.retire(id).map(|residue| (id, residue)));
            }
        }
        closed
    }

    /// Residues of an ASID.
    pub fn of_asid(&self, space: Space, asid: u16) -> Vec<ResidueId> {
        self.living(self.by_asid.get(&(space, asid)))
    }

    /// Residues of a space.
    pub fn of_space(&self, space: Space) -> Vec<ResidueId> {
        self.living(self.by_space.get(&space))
    }

    fn living(&self, list: Option<&List>) -> Vec<ResidueId> {
        let ids = list.map_or(&[][..], |list| &list.ids);
        ids.iter().copied().filter(|id| self.slab.get(*id).is_some()).collect()
    }

    /// What `pe`'s own invalidations removed since its last context synchronisation event.
    pub fn unsynchronised(&self, pe: usize) -> &[Settled] {
        self.unsynchronised.get(pe).map_or(&[], Vec::as_slice)
    }

    /// The entry that was in `slot` need not be told of again.
    pub fn forget_unsynchronised(&mut self, pe: usize, slot: u64) {
        if let Some(mine) = self.unsynchronised.get_mut(pe) {
            mine.retain(|gone| gone.slot != slot);
        }
    }

    /// A context synchronisation event of `pe`.
    pub fn synchronise(&mut self, pe: usize) {
        if let Some(mine) = self.unsynchronised.get_mut(pe) {
            mine.clear();
        }
    }
}

/// What an operation on a residue depends on beside the residue itself.
#[derive(Clone, Copy)]
struct Around<'a> {
    /// PEs with a table residue that leads to it.
    refillable: PeSet,
    /// PEs with one that is not among what the operation removes, for its ASID.
    left_above: PeSet,
    /// The context that is walked where another member of its contiguous run still stands for it.
    in_run: Option<&'a Context>,
    /// PEs that may read it again for want of order (R4).
    unordered: PeSet,
}

/// From where an operation removes an entry.
struct Removal {
    reach: PeSet,
    /// Why it stays on other PEs, though the operation reaches them.
    why_left: Cause,
}

impl Residue {
    /// Whether an operation by address names the ASIDs of this table entry.
    fn is_named_by(&self, effect: &Effect) -> bool {
        match effect.selection {
            Selection::Addresses { asid: Some(asid), .. } => self.holders.iter().all(|h| h.tag == Tag::Asid(asid)),
            _ => true,
        }
    }

    /// With any of the DSBs that were withheld an operation would have removed it.
    fn wants_order(&mut self) {
        let orders = self.missed.iter_mut().filter(|(_, help)| *help == Help::Order);
        orders.for_each(|(_, help)| *help = Help::Remove);
    }

    /// From which PEs the operation removes the entry as one holder has it, or why from none.
    fn suffices(&self, holder: usize, effect: &Effect, around: Around<'_>) -> Result<Removal, Cause> {
        // PEs on which it comes back through what stays, and why.
        let (mut again, mut why_left) = (0, Cause::NotCompleted);
        let tag = self.holders[holder].tag;
        let stage2 = self.what.space.is_stage2();
        match effect.selection {
            Selection::Nothing => return Err(Cause::WrongAsid),
            Selection::Everything | Selection::EveryVmid | Selection::BothStages(_) => {}
            // VMALLE1 leaves what stage 2 caches by itself.
            Selection::Space(_) if stage2 && tag != Tag::Combined => return Err(Cause::WrongAsid),
            Selection::Space(_) => {}
            // An entry of stage 1 that is smaller leaves combined entries of the rest.
            Selection::Combined { first, size, .. } => {
                let whole = size.is_none_or(|size| {
                    self.what.start >= first && self.what.start.wrapping_sub(first).saturating_add(self.size()) <= size
                });
                if tag != Tag::Combined || !whole {
                    return Err(Cause::WrongAsid);
                }
            }
            Selection::Asid(_, asid) => match tag {
                Tag::Asid(tag) if tag == asid => {}
                Tag::Global => return Err(Cause::GlobalSurvives),
                _ => return Err(Cause::WrongAsid),
            },
            Selection::Addresses { asid, first, size, leaf_only, hint, .. } => {
                match (asid, tag) {
                    // Invalidation by IPA leaves combined entries.
                    (_, Tag::Combined) => return Err(Cause::WrongAsid),
                    (None, _) | (_, Tag::Global | Tag::Ipa) => {}
                    (Some(asid), Tag::Asid(tag)) if tag == asid => {}
                    _ => return Err(Cause::WrongAsid),
                }
                if leaf_only && self.is_table() {
                    return Err(Cause::LeafOnly);
                }
                if leaf_only {
                    (again, why_left) = (around.refillable, Cause::LeafOnly);
                } else if tag == Tag::Global {
                    // It goes whatever the ASID; the table entries above it do not.
                    (again, why_left) = (around.left_above, Cause::WrongAsid);
                }
                if hint.misses(&self.what.geometry, self.what.level, self.is_table()) {
                    return Err(Cause::WrongTtl);
                }
                if hint.range.is_some() && !self.overlaps(first, size) {
                    return Err(Cause::WrongRange);
                }
            }
        }
        let held = self.holders[holder].pes & effect.reach;
        if around.unordered != 0 && held & !around.unordered == 0 {
            return Err(Cause::NotOrdered);
        }
        let in_run = around.in_run.map_or(0, |context| context.loaded_under(tag));
        if in_run != 0 {
            (again, why_left) = (again | in_run, Cause::NotBrokenFirst);
        }
        // A combined entry can be made again from the entry of stage 2 as long as that is cached: a DSB must have completed
        // its invalidation before.
        let own = |h: &&super::Holder| h.tag == Tag::Ipa;
        let whole = matches!(effect.selection, Selection::Everything | Selection::EveryVmid | Selection::BothStages(_));
        if tag == Tag::Combined && !whole {
            again |= self.holders.iter().find(own).map_or(0, |h| h.pes);
        }
        if around.unordered & held != 0 {
            (again, why_left) = (again | around.unordered, Cause::NotOrdered);
        }
        // Where nothing of it would go, that is why.
        if held != 0 && held & !again == 0 {
            return Err(why_left);
        }
        Ok(Removal { reach: effect.reach & !again, why_left })
    }

    /// A DSB of `pe` completes what it can. Says whether something of `pe` is still in flight, and under which tags `pe` itself
    /// held the entry and holds it no longer.
    fn complete(&mut self, pe: usize, dsb: Dsb) -> (bool, SmallVec<[Tag; 2]>) {
        let (mut still, mut own) = (false, SmallVec::new());
        for holder in &mut self.holders {
            let pes = &mut holder.pes;
            let held_before = *pes >> pe & 1 != 0;
            holder.in_flight.retain(|tlbi| {
                if tlbi.issuer != pe {
                    return true;
                }
                let done = completes(dsb, &tlbi.op);
                if done {
                    *pes &= !tlbi.reach;
                }
                still |= !done;
                !done
            });
            if held_before && *pes >> pe & 1 == 0 {
                own.push(holder.tag);
            }
        }
        // Of the two that an entry of stage 2 is held under, the last one that goes.
        if self.what.space.is_stage2() && self.pes() >> pe & 1 != 0 {
            own.clear();
        }
        (still, own)
    }

    fn settled(&self, tag: Tag) -> Settled {
        Settled {
            space: self.what.space,
            tag,
            start: self.what.start,
            size: self.size(),
            level: self.what.level,
            slot: self.what.slot(),
            bits: self.what.bits,
            entry: self.what.entry,
            removed: Arc::clone(&self.removed),
        }
    }
}
