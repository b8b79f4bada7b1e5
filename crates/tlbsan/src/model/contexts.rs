//! What each PE translates through: registers that take effect, contexts that begin and end, resets.

use super::{Model, Now};
use crate::descriptor::{Descriptor, grouped};
use crate::effect::{Effect, Selection};
use crate::event::{Sysreg, World};
use crate::geometry::Space;
use crate::machine::{EL2, EL10, Loaded, PLACES, PeSet, Registers, STAGE2, Unknown, Unmodelled, pes};
use crate::report::{self, Severity, Step, Ways};
use crate::residue::{Residue, ResidueId, Tag};
use crate::rules::asid;
use crate::rules::live_change::changed_attributes;
use crate::shadow::{MAX_CONTEXTS, Parent};
use crate::walk::walk;
use tlbsan_hint::{Cause, Kind};

impl Model {
    /// A context synchronisation event: register writes take effect.
    pub(super) fn synchronise<W: World>(&mut self, now: &mut Now<'_, W>) {
        let pe = now.event.pe;
        self.residues.synchronise(pe);
        if self.pes[pe].owing != 0 {
            self.collect(now);
        }
        let state = &mut self.pes[pe];
        if state.effective != state.written {
            state.effective = state.written;
            self.reload(now);
        }
    }

    /// What a change of controls has left to be invalidated: until now there was time.
    fn collect<W: World>(&mut self, now: &mut Now<'_, W>) {
        let pe = now.event.pe;
        let owing = std::mem::take(&mut self.pes[pe].owing);
        for place in (0..PLACES).filter(|place| owing >> place & 1 != 0) {
            let Some(loaded) = self.pes[pe].loaded[place] else { continue };
            if let Some(id) = self.shadow.find(&loaded.root) {
                self.check_earlier(now, id, &loaded, None);
            }
        }
    }

    /// The PE begins anew: what its TLB holds is UNKNOWN, what it held among it.
    pub(super) fn reset<W: World>(&mut self, now: &mut Now<'_, W>) {
        let pe = now.event.pe;
        let state = &mut self.pes[pe];
        state.written = Registers::default();
        state.effective = Registers::default();
        state.el = 1;
        state.owing = 0;
        state.mair = [None; 2];
        state.unknown = [Some(Unknown { since: now.time, why: "after reset" }); 2];
        state.without_stage2 = None;
        self.residues.synchronise(pe);
        self.reload(now);
        for space in self.shadow.spaces() {
            self.forget(now.world, pe, space);
        }
    }

    /// A kernel that starts at EL1 may move to EL2&0 for good. From then on its operations act there, and no access goes by what the
    /// PE has kept of EL1&0: that is UNKNOWN, as after a reset, and is invalidated before EL1's MMU goes on again. A host that lets
    /// it on is about to go back, and it always goes back to guests, which have a stage 2: what is held of these is kept.
    fn leave_el1<W: World>(&mut self, now: &mut Now<'_, W>) {
        let pe = now.event.pe;
        let state = &mut self.pes[pe];
        let left = state.effective.has_left_el1();
        let Some(space) = state.without_stage2.take_if(|_| left) else { return };
        state.unknown[0] = Some(Unknown { since: now.time, why: "since EL1 was left for EL2&0" });
        state.mair[0] = None;
        self.forget(now.world, pe, space);
    }

    /// What a PE held of a space, stale or not, is part of what is UNKNOWN from here on.
    fn forget<W: World>(&mut self, world: &mut W, pe: usize, space: Space) {
        let gone = 1 << pe;
        let ids = self.residues.of_space(space);
        for (id, residue) in self.residues.release(&ids, None, gone) {
            self.closed(world, id, &residue);
        }
        for id in self.shadow.contexts_of(space).to_vec() {
            let Some(context) = self.shadow.context_mut(id) else { continue };
            context.uses_mut().for_each(|used| used.held &= !gone);
            self.end_context(world, id);
        }
    }

    /// Registers are in effect, or the exception level has changed: what is walked now?
    pub(super) fn reload<W: World>(&mut self, now: &mut Now<'_, W>) {
        let pe = now.event.pe;
        let below_el2 = self.pes[pe].el < 2;
        for place in 0..PLACES {
            let registers = self.pes[pe].effective;
            if !below_el2 && !EL2.contains(&place) {
                // While EL2 runs it prepares EL1&0 for whom it will enter: judged upon entry. What it has put away is walked no
                // more.
                let current = registers.loaded(place).ok().flatten();
                if let Some(gone) = self.pes[pe].loaded[place].take_if(|loaded| current != Some(*loaded)) {
                    self.unload(&gone, pe);
                }
                continue;
            }
            let next = registers.loaded(place).and_then(|next| match next {
                Some(loaded) if EL10.contains(&place) => stays_in_place(now.world, &registers, loaded),
                next => Ok(next),
            });
            let next = next.unwrap_or_else(|why| {
                self.notice(format!("{} is walked with {}: nothing is judged there", names(place), why.text()));
                None
            });
            let previous = std::mem::replace(&mut self.pes[pe].loaded[place], next);
            if previous == next {
                continue;
            }
            if let Some(previous) = previous {
                self.unload(&previous, pe);
            }
            if let Some(next) = next {
                self.load(now, &next, place);
            }
        }
        let state = &mut self.pes[pe];
        if let Some(walked) = EL10.into_iter().find_map(|place| state.loaded[place]).filter(|_| below_el2) {
            state.without_stage2 = (!state.effective.has_stage2()).then_some(walked.root.space);
        }
        self.leave_el1(now);
        self.check_attributes(now, 0, EL10[0], Sysreg::MairEl1);
        self.check_attributes(now, 1, EL2[0], Sysreg::MairEl2);
    }

    fn unload(&mut self, previous: &Loaded, pe: usize) {
        if let Some(id) = self.shadow.find(&previous.root) {
            self.shadow.unload(id, pe, self.time);
            self.shadow.rest(id);
        }
    }

    fn load<W: World>(&mut self, now: &mut Now<'_, W>, next: &Loaded, place: usize) {
        let pe = now.event.pe;
        let id = match self.shadow.find(&next.root) {
            Some(id) => id,
            None => {
                if self.shadow.is_full() {
                    for id in self.shadow.all_resting() {
                        self.end_context(now.world, id);
                    }
                }
                if self.shadow.is_full() {
                    self.notice(format!("more than {MAX_CONTEXTS} roots at once: those beyond are not followed"));
                    return;
                }
                let id = self.shadow.add_context(next.root);
                let geometry = next.root.geometry;
                self.link(now, next.root.table, Parent::Root(id), geometry.start_level, geometry);
                id
            }
        };
        self.shadow.load(id, next, pe);
        self.check_unknown(now, next, place);
        self.check_earlier(now, id, next, Some(place));
        self.refill(now, id, next);
    }

    /// What may be held of earlier tables under the identifier of those that are loaded. What may wait is owed where they have been
    /// loaded just now, at a place.
    fn check_earlier<W: World>(&mut self, now: &mut Now<'_, W>, id: usize, next: &Loaded, loaded_at: Option<usize>) {
        let pe = now.event.pe;
        let tag = Tag::Asid(next.asid);
        let sharing = self.sharing(pe, next);
        let mut waits = false;
        for clash in asid::clashes(&self.shadow, id, tag, sharing) {
            if clash.may_wait && loaded_at.is_some() {
                waits = true;
                continue;
            }
            self.asid_clash(now, next, &clash);
            // Told once: from here on the PE counts as one that holds nothing of the earlier tables.
            self.forget_held(now.world, clash.earlier, tag, clash.pes);
        }
        waits |= self.check_residues(now, id, next, sharing, loaded_at.is_some());
        if let Some(place) = loaded_at.filter(|_| waits) {
            self.pes[pe].owing |= 1 << place;
        }
    }

    /// A PE that comes back to a context may follow the stale table entries that it has kept: it gets what has become reachable
    /// through them meanwhile.
    fn refill<W: World>(&mut self, now: &mut Now<'_, W>, id: usize, next: &Loaded) {
        let pe = now.event.pe;
        let (tag, ids) = self.left_under(next);
        for residue in ids {
            let kept = self.residues.get(residue).filter(|residue| residue.what.context == id && residue.is_table());
            if kept.is_some_and(|residue| residue.held_under(tag) >> pe & 1 != 0) {
                self.refill_below(now, residue, 1 << pe, Some(tag), None);
            }
        }
    }

    /// Residues under the ASID or VMID that is loaded now, and how they are tagged.
    fn left_under(&self, next: &Loaded) -> (Tag, Vec<ResidueId>) {
        match next.root.space {
            Space::Stage2(_) => (Tag::Ipa, self.residues.of_space(next.root.space)),
            space => (Tag::Asid(next.asid), self.residues.of_asid(space, next.asid)),
        }
    }

    /// The PEs whose entries `pe` may use under what it has loaded: its own, and with CnP those of PEs that set it,
    /// too, whatever root they have there.
    fn sharing(&self, pe: usize, next: &Loaded) -> PeSet {
        let same = |it: &Loaded| {
            it.shared && (it.root.space, it.root.half, it.asid) == (next.root.space, next.root.half, next.asid)
        };
        let others = self.pes.iter().enumerate().filter(|(_, it)| next.shared && it.loaded.iter().flatten().any(same));
        others.fold(1 << pe, |set, (other, _)| set | 1 << other)
    }

    /// Residues that an earlier root left, on PEs that share, under the ASID that is loaded now. Whether some were left out that
    /// `may_wait`.
    fn check_residues<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        id: usize,
        next: &Loaded,
        sharing: PeSet,
        may_wait: bool,
    ) -> bool {
        if self.shadow.table(next.root.table).is_none_or(|table| table.is_empty()) {
            return false;
        }
        let (tag, ids) = self.left_under(next);
        let counts = |residue: &Residue| residue.held_under(tag) & sharing;
        let left = |residue: &Residue| {
            let half = residue.what.start >> 63 == u64::from(next.root.half);
            counts(residue) != 0 && half && residue.what.context != id
        };
        let waits = |residue: &Residue| {
            let earlier = self.shadow.context(residue.what.context);
            may_wait && earlier.is_some_and(|earlier| asid::may_wait(&earlier.root, &next.root))
        };
        let all = ids.into_iter().filter(|id| self.residues.get(*id).is_some_and(left));
        let (later, ids): (Vec<_>, Vec<_>) = all.partition(|id| self.residues.get(*id).is_some_and(waits));
        self.verdicts_of(now, Kind::Asid, Severity::Error, ids, counts, (0, None));
        !later.is_empty()
    }

    fn asid_clash<W: World>(&mut self, now: &mut Now<'_, W>, next: &Loaded, clash: &asid::Clash) {
        let Some(earlier) = self.shadow.context(clash.earlier) else { return };
        let root = earlier.root;
        let level = root.geometry.start_level;
        let describe = |table: u64| {
            let table = self.shadow.table(table);
            let entry = table.map_or(Descriptor::Nothing, |table| table.descriptor(clash.index));
            let bits = table.and_then(|table| table.entries.get(clash.index)).copied().unwrap_or(0);
            (report::Descriptor { bits, text: entry.to_string() }, entry)
        };
        let (old, entry) = describe(root.table);
        let (mut new, _) = describe(next.root.table);
        new.text += &asid::read_otherwise(&root.geometry, &next.root.geometry);
        let step = |root: &crate::machine::Root, entry: &report::Descriptor| {
            vec![Step { level: root.geometry.start_level, table: root.table, index: clash.index, entry: entry.clone() }]
        };
        let ways = Ways { before: step(&root, &old), after: step(&next.root, &new) };
        let site = now.site();
        let cause = self.why_held(root.space, next.asid, clash.pes);
        self.verdict(report::Violation {
            kind: Kind::Asid,
            cause,
            start: root.first_va().wrapping_add((clash.index as u64) << root.geometry.shift(level)),
            size: root.geometry.size(level),
            level,
            table: matches!(entry, Descriptor::Table(_)),
            asids: if root.space.has_asids() { vec![next.asid] } else { Vec::new() },
            pes: pes(clash.pes).collect(),
            slot: root.table.wrapping_add(clash.index as u64 * 8),
            old,
            new,
            removed: (*site).clone(),
            ways,
            ..super::verdicts::blank(&site)
        });
    }

    /// Why entries of an earlier context are still held under an identifier.
    fn why_held(&self, space: Space, asid: u16, held: PeSet) -> Cause {
        let names = |effect: &&Effect| {
            let covers = match effect.selection {
                Selection::Asid(other, number) => (other, number) == (space, asid),
                Selection::Space(other) => other == space,
                Selection::Nothing | Selection::Addresses { .. } | Selection::Combined { .. } => false,
                _ => true,
            };
            covers && effect.reach & held != 0
        };
        if self.wide_tlbis.iter().any(|effect| names(&effect)) { Cause::NotCompleted } else { Cause::NoInvalidation }
    }

    /// An MMU that goes on over a TLB whose contents are UNKNOWN, and that nobody has invalidated.
    fn check_unknown<W: World>(&mut self, now: &mut Now<'_, W>, next: &Loaded, place: usize) {
        let pe = now.event.pe;
        let which = usize::from(EL2.contains(&place));
        // Stage 2, and what a guest finds under it, are its host's business.
        let guest = which == 0 && self.pes[pe].effective.has_stage2();
        let Some(unknown) = self.pes[pe].unknown[which].take_if(|_| !guest) else { return };
        let waits = |effect: &Effect| {
            effect.reach >> pe & 1 != 0 && effect.time > unknown.since && affected(effect).any(|other| other == which)
        };
        let cause = if self.wide_tlbis.iter().any(waits) { Cause::NotCompleted } else { Cause::NoInvalidation };
        let root = next.root;
        let site = now.site();
        let text = |text: String| report::Descriptor { bits: 0, text };
        self.verdict(report::Violation {
            kind: Kind::Asid,
            cause,
            start: root.first_va(),
            size: 1 << root.geometry.va_bits,
            level: root.geometry.start_level,
            table: true,
            pes: vec![pe],
            slot: root.table,
            old: text(format!("anything: UNKNOWN {}", unknown.why)),
            new: text(format!("tables at {}", grouped(root.table))),
            removed: (*site).clone(),
            ..super::verdicts::blank(&site)
        });
    }

    /// Memory attributes that change under translations that may be cached (a field of MAIR may be cached with them).
    fn check_attributes<W: World>(&mut self, now: &mut Now<'_, W>, which: usize, place: usize, mair: Sysreg) {
        let pe = now.event.pe;
        let state = &mut self.pes[pe];
        let Some(loaded) = state.loaded[place].or(state.loaded[place + 1]) else { return };
        let space = loaded.root.space;
        let value = state.effective.get(mair);
        let before = state.mair[which].replace((space, value));
        let Some((_, before)) = before.filter(|(other, _)| *other == space) else { return };
        let halves = [state.loaded[place], state.loaded[place + 1]];
        // One mistake, told of the first half that it concerns.
        let used = |Loaded { root, asid, .. }: Loaded| {
            let uses = |it: &usize| self.shadow.has_leaf(root.table, |leaf| usize::from(leaf.attr_index) == *it);
            changed_attributes(before, value).find(uses).map(|attribute| (attribute, root, asid))
        };
        let Some((attribute, root, asid)) = halves.into_iter().flatten().find_map(used) else { return };
        let site = now.site();
        let text = |value: u64| {
            let text = format!("attribute {attribute} is {:#04x}", value >> (8 * attribute) & 0xff);
            report::Descriptor { bits: value, text }
        };
        self.verdict(report::Violation {
            kind: Kind::LiveChange,
            cause: Cause::NotBrokenFirst,
            start: root.first_va(),
            size: 1 << root.geometry.va_bits,
            level: root.geometry.start_level,
            table: false,
            asids: vec![asid],
            pes: vec![pe],
            slot: root.table,
            old: text(before),
            new: text(value),
            removed: (*site).clone(),
            ..super::verdicts::blank(&site)
        });
    }

    /// R3: after a completed invalidation of its identifier, a PE holds only what it has loaded.
    pub(super) fn end_contexts<W: World>(&mut self, world: &mut W, effect: &Effect) {
        let Some((spaces, asid)) = self.ended_by(effect) else { return };
        for (pe, state) in self.pes.iter_mut().enumerate() {
            for which in affected(effect) {
                if effect.reach >> pe & 1 != 0 {
                    state.unknown[which].take_if(|unknown| unknown.since < effect.time);
                    // An MMU that is on has filled its TLB again.
                    let on = [EL10, EL2][which].into_iter().any(|place| state.loaded[place].is_some());
                    state.mair[which].take_if(|_| !on);
                    if which == 0 {
                        state.without_stage2.take_if(|space| !on && spaces.contains(space));
                    }
                }
            }
        }
        if asid.is_none() && effect.reach == PeSet::MAX {
            self.pardon(&spaces);
        }
        let ids: Vec<usize> = spaces.iter().flat_map(|space| self.shadow.contexts_of(*space)).copied().collect();
        for id in ids {
            let Some(context) = self.shadow.context_mut(id) else { continue };
            let mut lost = Vec::new();
            for used in context.uses_mut().filter(|used| asid.is_none_or(|asid| used.tag == Tag::Asid(asid))) {
                let before = used.held;
                used.invalidated(effect.reach, effect.time);
                let gone = before & !used.held;
                lost.extend((gone != 0).then_some((used.tag, gone)));
            }
            // Not even what has become stale since the operation was executed.
            if !lost.is_empty() {
                self.release_lost(world, id, &lost);
            }
            self.end_context(world, id);
        }
    }

    /// PEs hold nothing of a context under some tags any more.
    fn release_lost<W: World>(&mut self, world: &mut W, id: usize, lost: &[(Tag, PeSet)]) {
        let Some(space) = self.shadow.context(id).map(|context| context.root.space) else { return };
        let of_it = |it: &ResidueId| self.residues.get(*it).is_some_and(|residue| residue.what.context == id);
        let ids: Vec<ResidueId> = self.residues.of_space(space).into_iter().filter(of_it).collect();
        for (tag, pes) in lost {
            // Residues of stage 2 have tags of their own.
            let tag = (!space.is_stage2()).then_some(*tag);
            for (id, residue) in self.residues.release(&ids, tag, *pes) {
                self.closed(world, id, &residue);
            }
        }
    }

    /// The spaces whose contexts an invalidation may end, and the ASID if it is for one; `None`: it is no wide one.
    pub(super) fn ended_by(&self, effect: &Effect) -> Option<(Vec<Space>, Option<u16>)> {
        Some(match effect.selection {
            Selection::Nothing | Selection::Addresses { .. } | Selection::Combined { .. } => return None,
            Selection::Everything => (self.shadow.spaces(), None),
            Selection::EveryVmid => {
                let all = self.shadow.spaces().into_iter();
                (all.filter(|space| matches!(space, Space::El10(_) | Space::Stage2(_))).collect(), None)
            }
            Selection::BothStages(vmid) => (vec![Space::El10(vmid), Space::Stage2(vmid)], None),
            Selection::Space(space) => (vec![space], None),
            Selection::Asid(space, asid) => (vec![space], Some(asid)),
        })
    }

    /// Whether some PE that it reaches has UNKNOWN entries of a regime that it covers.
    pub(super) fn ends_unknown(&self, effect: &Effect) -> bool {
        let reached = self.pes.iter().enumerate().filter(|(pe, _)| effect.reach >> pe & 1 != 0);
        reached.into_iter().any(|(_, pe)| affected(effect).any(|which| pe.unknown[which].is_some()))
    }

    /// Takes a context for one that some PEs hold nothing of any more under a tag.
    fn forget_held<W: World>(&mut self, world: &mut W, id: usize, tag: Tag, pes: PeSet) {
        let Some(context) = self.shadow.context_mut(id) else { return };
        let space = context.root.space;
        for used in context.tags.iter_mut().filter(|used| used.tag == tag) {
            used.held &= used.loaded | !pes;
        }
        if !space.is_stage2() {
            self.release_lost(world, id, &[(tag, pes)]);
        }
        self.end_context(world, id);
    }

    /// Forgets a context of which no PE holds anything, be it stale.
    pub(super) fn end_context<W: World>(&mut self, world: &mut W, id: usize) {
        let Some(context) = self.shadow.context_mut(id) else { return };
        context.tags.retain(|tag| tag.held != 0);
        if !context.tags.is_empty() || context.open != 0 {
            return;
        }
        let (root, globals) = (context.root.table, context.globals.held);
        if globals == 0 || !self.shadow.has_leaf(root, |leaf| !leaf.non_global) {
            self.shadow.drop_context(id);
            self.unlink(world, root, Parent::Root(id));
        }
    }
}

/// Which of the regimes of EL1&0 (0) and EL2 (1) an invalidation covers as a whole.
fn affected(effect: &Effect) -> impl Iterator<Item = usize> + use<> {
    let (el10, el2) = match effect.selection {
        Selection::Everything => (true, true),
        Selection::Space(Space::El10(_)) | Selection::BothStages(_) | Selection::EveryVmid => (true, false),
        Selection::Space(Space::El20 | Space::El2) => (false, true),
        _ => (false, false),
    };
    [(0, el10), (1, el2)].into_iter().filter(|(_, yes)| *yes).map(|(which, _)| which)
}

/// Tables of stage 1 under stage 2 are followed where stage 2 leaves them in their place.
fn stays_in_place<W: World>(world: &W, registers: &Registers, loaded: Loaded) -> Result<Option<Loaded>, Unmodelled> {
    if let Some(stage2) = registers.loaded(STAGE2)? {
        let load = |table: u64, index: usize| world.load(table.wrapping_add(index as u64 * 8));
        let table = loaded.root.table & !7;
        if walk(&stage2.root, table, load).output() != Some(table) {
            return Err(Unmodelled::Nested);
        }
    }
    Ok(Some(loaded))
}

fn names(place: usize) -> &'static str {
    match place {
        0 => "TTBR0_EL1",
        1 => "TTBR1_EL1",
        2 => "TTBR0_EL2",
        3 => "TTBR1_EL2",
        _ => "VTTBR_EL2",
    }
}
