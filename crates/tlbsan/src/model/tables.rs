//! Stores and loads, and the shape of the tables that follows from them.

use super::{Eye, Model, Now};
use crate::change::{Change, compare};
use crate::descriptor::{Descriptor, Leaf};
use crate::event::World;
use crate::geometry::{Geometry, Space};
use crate::hash::FastMap;
use crate::machine::PeSet;
use crate::residue::{MAX_OPEN, Removed, Residue, ResidueId, Tag, member};
use crate::rules::remade::Tables;
use crate::rules::{live_change, reused};
use crate::shadow::{ContextId, MAX_TABLES, Parent, Span, Spans, TablePage, WATCHED};
use smallvec::SmallVec;
use tlbsan_hint::Kind;

/// A slot of a table that has just changed.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) table: u64,
    pub(super) index: usize,
    pub(super) level: i8,
    pub(super) geometry: Geometry,
}

impl Slot {
    /// What `bits` in it say, whether or not the access flag lets a TLB hold that.
    fn aged(self, bits: u64) -> Descriptor {
        Descriptor::decode(bits, self.level, &Geometry { hw_access_flag: true, ..self.geometry })
    }

    pub(super) fn pa(self) -> u64 {
        self.table.wrapping_add(self.index as u64 * 8)
    }

    /// log2 of the bytes that it translates.
    fn shift(self) -> u32 {
        self.geometry.shift(self.level)
    }

    /// First input address that it translates where its table does so from `first` on.
    fn start(self, first: u64) -> u64 {
        first.wrapping_add((self.index as u64) << self.shift())
    }
}

/// What was stored to a slot.
#[derive(Clone, Copy)]
struct Stored {
    table: u64,
    index: usize,
    /// What it holds now.
    new: u64,
    /// The store covered more than this slot.
    wide: bool,
    /// Who stored; not known where only the effect was seen.
    writer: Option<usize>,
}

impl Stored {
    /// Writes it into the shadow.
    fn write(self, table: &mut TablePage) -> Edit {
        let Self { index, new, .. } = self;
        let slot = Slot { table: self.table, index, level: table.level, geometry: table.geometry };
        let old = (table.entries[index], table.descriptor(index));
        table.entries[index] = new;
        Edit { slot, old, new: (new, table.descriptor(index)) }
    }
}

/// What a slot held, and what it holds now.
#[derive(Clone, Copy)]
pub(super) struct Edit {
    pub(super) slot: Slot,
    pub(super) old: (u64, Descriptor),
    pub(super) new: (u64, Descriptor),
}

impl Edit {
    /// The table that the slot leads to no longer, and the one that it leads to instead.
    fn tables(&self) -> (Option<u64>, Option<u64>) {
        let (before, after) = (self.old.1.next(), self.new.1.next());
        if before == after { (None, None) } else { (before, after) }
    }
}

/// What a TLB may hold of a table: slots and what they hold, and the event since which walkers may have found that.
fn cacheable(base: u64, table: &TablePage) -> Vec<(Slot, (u64, Descriptor), u64)> {
    let (level, geometry) = (table.level, table.geometry);
    let entries = table.entries.iter().zip(table.since()).enumerate();
    let entries = entries.map(|(index, (bits, since))| {
        let slot = Slot { table: base, index, level, geometry };
        (slot, (*bits, table.descriptor(index)), *since)
    });
    entries.filter(|(_, (_, entry), _)| entry.is_cacheable()).collect()
}

/// How a residue hangs together with others.
#[derive(Clone, Copy)]
struct Cut {
    /// The slot whose change took it out of the tables.
    slot: u64,
    /// The table residue above it.
    through: Option<ResidueId>,
    writer: Option<usize>,
    /// PEs that may still come there.
    pes: PeSet,
    /// The tag under which they do; `None`: any.
    under: Option<Tag>,
    /// What the way there forbids now, if it is a way still.
    still: Option<u8>,
}

impl Cut {
    /// Whether walks there fill in what is tagged so.
    fn fills(&self, tag: Tag) -> bool {
        self.under.is_none_or(|under| tag == under || !matches!(tag, Tag::Asid(_) | Tag::AnyAsid))
    }
}

impl Model {
    pub(super) fn stored<W: World>(&mut self, now: &mut Now<'_, W>, pa: u64, size: u64, wide: bool) {
        for slot in slots(pa, size) {
            let Some((base, index, old)) = self.shadow.slot(slot) else { continue };
            if self.wake(now.world, base) {
                continue;
            }
            let new = now.world.load(slot).unwrap_or(0);
            let stored = Stored { table: base, index, new, wide, writer: Some(now.event.pe) };
            if old != new {
                self.changed(now, stored);
            } else {
                // Perhaps its effect was seen before the store was reported.
                self.residues.attribute(slot, now.event.pe, || now.site());
                if new == 0 && !self.shadow.is_live(base) {
                    self.stored_unlinked(now, stored);
                }
            }
            // Once this store is visible, earlier ones to the same slot can no longer be missed.
            self.residues.seen(slot, now.event.pe, true);
        }
    }

    pub(super) fn loaded<W: World>(&mut self, now: &mut Now<'_, W>, pa: u64, size: u64) {
        for slot in slots(pa, size) {
            let Some((base, index, old)) = self.shadow.slot(slot) else { continue };
            let new = now.world.load(slot).unwrap_or(0);
            let valid = |table: &TablePage| Descriptor::decode(new, table.level, &table.geometry).is_cacheable();
            // The load tells of a store that its own PE has not reported yet. An entry that went away is noted now: this
            // PE may act on it. What became valid waits for its report.
            if old != new && !self.shadow.table(base).is_some_and(valid) {
                self.changed(now, Stored { table: base, index, new, wide: false, writer: None });
            }
            self.residues.seen(slot, now.event.pe, false);
        }
    }

    /// A slot holds something else than before.
    fn changed<W: World>(&mut self, now: &mut Now<'_, W>, stored: Stored) {
        let Stored { table: base, index, writer, .. } = stored;
        let (spans, more) = self.shadow.spans(base, index);
        // What translates something somewhere is live.
        if spans.is_empty() && !self.shadow.is_live(base) {
            self.stored_unlinked(now, stored);
            return;
        }
        let Some(table) = self.shadow.table_mut(base) else { return };
        let edit = stored.write(table);
        let leading_here = table.leading_here();
        if !leading_here.is_empty() {
            self.found_from_elsewhere(now, &edit, &leading_here);
        }
        self.residues.stored(edit.slot.pa(), edit.old.0, stored.new, writer.unwrap_or(now.event.pe));
        let Edit { slot, old: (_, before), new: (_, after) } = edit;
        if before == after {
            return; // software bits
        }
        let compare = |space: Option<Space>, forbidden: u8| {
            let eye = Eye { world: &*now.world, geometry: slot.geometry, bbm: self.bbm, pes: &self.pes, space };
            compare(&before.under(forbidden), &after.under(forbidden), slot.geometry.size(slot.level), &eye)
        };
        let changes: SmallVec<[Change; 2]> = spans.iter().map(|span| compare(Some(span.space), span.forbids)).collect();
        let same = if spans.is_empty() {
            compare(None, 0) == Change::None
        } else {
            changes.iter().all(|change| *change == Change::None)
        };
        if more {
            self.notice(format!("the table at {base:#x} is linked at a great many places: followed at some of them"));
        }

        let (leaves, enters) = edit.tables();
        let gone = !after.is_cacheable();
        // What permits more agrees with what it replaces, and whoever holds that holds this. The same table leads to what it
        // has led to all the time.
        let goes_on = before.is_cacheable() && !gone && (same || !(leaves.is_some() || enters.is_some()));
        if !goes_on {
            self.shadow.set_since(base, index, self.time);
        }
        if before.forbids() != after.forbids() {
            self.shadow.reshape();
        }
        for (span, change) in spans.iter().zip(changes) {
            // What leads to the same table still leads to all that is below.
            let still = (!gone && leaves.is_none()).then_some(span.forbids | after.forbids());
            let cut = Cut { slot: slot.pa(), through: None, writer, pes: PeSet::MAX, under: None, still };
            if before.is_cacheable() && (gone || change == Change::Tighten) {
                let old = before.under(span.forbids);
                let id = self.open(now, slot, *span, (edit.old.0, old), cut);
                if let Some(table) = old.next() {
                    self.cut_off(now, table, Span { forbids: old.forbids(), ..*span }, Cut { through: id, ..cut });
                }
            } else if let Change::Break(_) = change {
                self.replaced_in_place(now, &edit, change, *span, cut);
            }
        }
        self.relink(now, &edit);
        if !gone {
            self.became_valid(now, &edit, spans);
        }
    }

    /// Stale table entries lead to the slot, too: walkers that still come from a place where its table was linked
    /// before find what the slot holds now.
    fn found_from_elsewhere<W: World>(&mut self, now: &mut Now<'_, W>, edit: &Edit, leading_here: &[ResidueId]) {
        let Edit { slot, old: (bits, before), new: (new, after) } = *edit;
        // Access flag or not.
        let (old, aged) = (slot.aged(bits), slot.aged(new));
        if new & 1 != 0 && old != aged {
            let mut stale = self.leading_from_elsewhere(leading_here, slot.table);
            stale.retain(|id| {
                let forbids = self.residues.get(*id).map_or(0, |above| above.what.entry.forbids());
                old.under(forbids) != aged.under(forbids)
            });
            self.verdicts(now, Kind::Reused, stale, new, Some(after));
        }
        // Its access flag is back: they find it again. Or they forbid less than what leads here now.
        if after.is_cacheable() {
            let elsewhere = self.leading_from_elsewhere(leading_here, slot.table);
            for id in leading_here.iter().filter(|id| !before.is_cacheable() || !elsewhere.contains(id)) {
                let pes = self.residues.get(*id).map_or(0, Residue::pes);
                self.refill_below(now, *id, pes, None, Some(slot.index));
            }
        }
    }

    /// A valid entry has become another that must not stand beside it.
    fn replaced_in_place<W: World>(&mut self, now: &mut Now<'_, W>, edit: &Edit, change: Change, span: Span, cut: Cut) {
        let (_, before) = edit.old;
        let holders = self.shadow.holders(span.context, &before, span.since);
        // Part of what is cached may agree with what the new entry leads to.
        let told = holders.iter().fold(0, |set, (_, pes)| set | pes);
        self.still_hold(span.context, told);
        if live_change::is_broken(change, &before, &holders) {
            self.live_change(now, edit, span);
        }
        if let (Some(table), _) = edit.tables() {
            let span = Span { forbids: span.forbids | before.forbids(), ..span };
            self.cut_off_below_stale(now, table, span, cut);
            // Another PE may hold what the table leads to, and not its entry.
            self.cut_off(now, table, span, Cut { pes: !told, ..cut });
        }
    }

    /// The table that the slot led to is no longer linked from there, and the one that it leads to now is.
    fn relink<W: World>(&mut self, now: &mut Now<'_, W>, edit: &Edit) {
        let Slot { table, index, level, geometry } = edit.slot;
        let parent = Parent::Slot { table, index };
        let (leaves, enters) = edit.tables();
        if let Some(left) = leaves {
            self.unlink(now.world, left, parent);
        }
        if let Some(entered) = enters {
            self.link(now, entered, parent, level + 1, geometry);
        }
    }

    /// What a newly valid entry means for what is stale.
    fn became_valid<W: World>(&mut self, now: &mut Now<'_, W>, edit: &Edit, spans: Spans) {
        let Edit { slot, new: (new, after), .. } = *edit;
        for span in spans {
            if self.residues.is_empty() {
                return;
            }
            let after = after.under(span.forbids);
            if let Descriptor::Leaf(leaf) = after
                && leaf.contiguous
            {
                self.revive_run(slot, span, &leaf);
            }
            let (bbm, pes, space) = (self.bbm, &self.pes, Some(span.space));
            let judge = Eye { world: &*now.world, geometry: slot.geometry, bbm, pes, space };
            let tables = Tables { shadow: &self.shadow, residues: &self.residues, judge: &judge };
            let outcome = tables.newly_valid(span, slot.level, slot.shift(), &after);
            for id in outcome.healed {
                if let Some(residue) = self.retire(now.world, id) {
                    self.still_hold(residue.what.context, residue.pes());
                }
            }
            // What this very store took out of the tables was replaced in place.
            let in_place = |id: &ResidueId| self.residues.get(*id).is_some_and(|residue| residue.born() == self.time);
            let (in_place, earlier): (Vec<_>, Vec<_>) = outcome.broken.into_iter().partition(in_place);
            self.verdicts(now, Kind::LiveChange, in_place, new, Some(after));
            self.verdicts(now, Kind::Remade, earlier, new, Some(after));
        }
    }

    /// What is stale of a contiguous run can be fetched again from the member that has become valid.
    fn revive_run(&mut self, slot: Slot, span: Span, leaf: &Leaf) {
        let (size, run) = (slot.geometry.size(slot.level), slot.geometry.run(slot.level));
        let first = slot.index & !(run - 1);
        for index in (first..first + run).filter(|index| *index != slot.index) {
            let start = span.start.wrapping_add((index as u64).wrapping_sub(slot.index as u64).wrapping_mul(size));
            let said = Descriptor::Leaf(member(leaf, slot.index, index, size));
            for id in self.residues.at(span.space, start, slot.shift()).to_vec() {
                let what = self.residues.get(id).map(|residue| (residue.what.context, residue.what.entry));
                if what == Some((span.context, said)) {
                    self.residues.revive(id);
                }
            }
        }
    }

    /// What `pes` have cached is right again: they are taken to hold what is in the tables now, as if they had just left.
    fn still_hold(&mut self, context: ContextId, pes: PeSet) {
        let time = self.time;
        if let Some(context) = self.shadow.context_mut(context) {
            context.uses_mut().for_each(|used| used.stayed_until(pes & used.held, time));
        }
    }

    /// A store to the root of contexts that nobody holds anything of: they are followed again when they are loaded. Says
    /// whether the page is none of ours any more.
    fn wake<W: World>(&mut self, world: &mut W, base: u64) -> bool {
        let resting = self.shadow.resting(base);
        if resting.is_empty() {
            return false;
        }
        for id in resting {
            self.shadow.drop_context(id);
            self.unlink(world, base, Parent::Root(id));
        }
        self.shadow.table(base).is_none()
    }

    /// Those table residues that lead to `base` from a place in an address space where it is no longer linked.
    fn leading_from_elsewhere(&self, leading_here: &[ResidueId], base: u64) -> Vec<ResidueId> {
        let (places, more) = self.shadow.spans(base, 0);
        let elsewhere = |id: &ResidueId| {
            let place = self.residues.get(*id).map(|residue| (residue.what.context, residue.what.start));
            !more && place.is_some_and(|place| !places.iter().any(|span| (span.context, span.start) == place))
        };
        leading_here.iter().copied().filter(elsewhere).collect()
    }

    /// A store to a table that no root reaches any more.
    fn stored_unlinked<W: World>(&mut self, now: &mut Now<'_, W>, stored: Stored) {
        let Stored { table: base, index, new, wide, writer } = stored;
        let Some(table) = self.shadow.table_mut(base) else { return };
        let reuse = reused::is_reuse(table, index, new, wide);
        let edit = stored.write(table);
        let leading_here = table.leading_here();
        // What it links follows, lest a page it no longer links looks live when it is linked again.
        self.relink(now, &edit);
        let Edit { new: (_, after), .. } = edit;
        if reuse && !leading_here.is_empty() {
            self.verdicts(now, Kind::Reused, leading_here, new, Some(after));
        }
        self.residues.stored(edit.slot.pa(), edit.old.0, new, writer.unwrap_or(now.event.pe));
    }

    // ---- the shape of the tables -----------------------------------------------------------------------------------

    /// `parent` points at the table `base` from now on.
    pub(super) fn link<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        base: u64,
        parent: Parent,
        level: i8,
        geometry: Geometry,
    ) {
        let entries = geometry.entries(level);
        if let Some(table) = self.shadow.table_mut(base) {
            // A root of fewer entries (a larger TnSZ) may lie at the start of a table that is followed.
            if table.level == level && table.entries.len() >= entries && table.geometry.stage2 == geometry.stage2 {
                table.scrubbed = None;
                self.shadow.link(base, parent);
                self.permit(base, &geometry);
            } else {
                self.notice(format!("the table at {base:#x} is linked in two ways: followed as it was first"));
            }
            return;
        }
        if now.world.load(base).is_none() {
            self.notice(format!("the table at {base:#x} is in no memory that can be read: nothing is judged below it"));
        }
        let load = |index: u64| now.world.load(base.wrapping_add(index * 8)).unwrap_or(0);
        let entries: Box<[u64]> = (0..entries as u64).map(load).collect();
        let size = entries.len() as u64 * 8;
        let table = TablePage::new(level, geometry, parent, entries, self.time);
        let children: Vec<(usize, u64)> = table.children().collect();
        let Some(first_in) = self.shadow.insert(base, table) else {
            self.notice(format!("more than {MAX_TABLES} tables, or very large ones: those beyond are not followed"));
            return;
        };
        for page in first_in {
            now.world.watch(page, true);
        }
        for (id, severity) in reused::frame_becomes_table(&self.residues, base, size) {
            self.verdicts_of(now, Kind::Reused, severity, vec![id], Residue::pes, (base, None));
        }
        for (index, child) in children {
            self.link(now, child, Parent::Slot { table: base, index }, level + 1, geometry);
        }
    }

    /// What any root lets a TLB hold counts, in every table below it: TCR.{HA, HD} may be set while tables are in use.
    fn permit(&mut self, base: u64, geometry: &Geometry) {
        let Some(table) = self.shadow.table_mut(base) else { return };
        let (ha, hd, flat) = (
            table.geometry.hw_access_flag | geometry.hw_access_flag,
            table.geometry.hw_dirty | geometry.hw_dirty,
            table.geometry.flat_attributes & geometry.flat_attributes,
        );
        let known = &mut table.geometry;
        if (known.hw_access_flag, known.hw_dirty, known.flat_attributes) == (ha, hd, flat) {
            return;
        }
        (known.hw_access_flag, known.hw_dirty, known.flat_attributes) = (ha, hd, flat);
        let level = table.level;
        for (_, child) in table.children().collect::<Vec<_>>() {
            if self.shadow.table(child).is_some_and(|child| child.level == level + 1) {
                self.permit(child, geometry);
            }
        }
    }

    /// `parent` no longer points at the table `base`.
    pub(super) fn unlink<W: World>(&mut self, world: &mut W, base: u64, parent: Parent) {
        self.shadow.unlink(base, parent);
        self.forget_if_clean(world, base);
    }

    /// Drops an unlinked table that nobody can reach, not even through a walk cache.
    fn forget_if_clean<W: World>(&mut self, world: &mut W, base: u64) {
        let clean =
            self.shadow.table(base).is_some_and(|table| table.parents().is_empty() && table.residues.is_empty());
        if !clean {
            return;
        }
        if let Some((table, last_in)) = self.shadow.remove(base) {
            for page in last_in {
                world.watch(page, false);
            }
            for (index, child) in table.children() {
                self.unlink(world, child, Parent::Slot { table: base, index });
            }
        }
    }

    /// A table has been unlinked, or what leads to it forbids more: everything in it, and below, may be cached as it was.
    fn cut_off<W: World>(&mut self, now: &mut Now<'_, W>, base: u64, span: Span, cut: Cut) {
        let Some(table) = self.shadow.table_mut(base) else { return };
        // What was cleared in an earlier life counts no more.
        if cut.still.is_none() {
            table.scrubbed = None;
        }
        if self.residues.len() >= MAX_OPEN {
            return;
        }
        for (slot, old, since) in cacheable(base, table) {
            let (bits, entry) = (old.0, old.1.under(span.forbids));
            // It forbids all that by itself.
            if cut.still.is_some_and(|forbids| old.1.under(forbids) == entry) {
                continue;
            }
            let (start, since) = (slot.start(span.start), span.since.max(since));
            let span = Span { start, since, forbids: entry.forbids(), ..span };
            let id = self.open(now, slot, span, (bits, entry), cut);
            // A table may link itself, or one above: what is followed at another level is not followed here.
            if let Some(next) = entry.next()
                && self.shadow.table(next).is_some_and(|child| child.level == slot.level + 1)
            {
                let still = cut.still.map(|forbids| old.1.under(forbids).forbids());
                self.cut_off(now, next, span, Cut { through: id.or(cut.through), still, ..cut });
            }
        }
    }

    /// PEs that walk under a tag, or any (`None`), may fetch again what a table residue leads to, or what is in one slot there: they hold
    /// that, too, if they did not.
    pub(super) fn refill_below<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        above: ResidueId,
        pes: PeSet,
        under: Option<Tag>,
        only: Option<usize>,
    ) {
        // A PE may come back again and again.
        self.residues.forget_ended_children(above);
        let Some(residue) = self.residues.get(above) else { return };
        let Some(next) = residue.what.entry.next() else { return };
        let what = residue.what;
        let cut = Cut { slot: what.cut, through: Some(above), writer: residue.writer(), pes, under, still: None };
        let Some(table) = self.shadow.table(next).filter(|table| table.level == what.level + 1) else { return };
        let inside = cacheable(next, table);
        // Where it leads to the same table still, what that forbids now.
        let (places, _) = self.shadow.spans(next, 0);
        let here = |span: &&Span| (span.context, span.start) == (what.context, what.start);
        let still = places.iter().find(here).map(|span| span.forbids);
        let child = |id: ResidueId| self.residues.get(id).map(|it| (it.what.start, (it.what.entry, id)));
        let known: FastMap<u64, _> = self.residues.children(above).into_iter().filter_map(child).collect();
        for (slot, old, _) in inside.into_iter().filter(|(slot, ..)| only.is_none_or(|only| slot.index == only)) {
            let (start, entry) = (slot.start(what.start), old.1.under(what.entry.forbids()));
            if still.is_some_and(|forbidden| old.1.under(forbidden) == entry) {
                continue;
            }
            let child = match known.get(&start).filter(|(held, _)| *held == entry).map(|(_, id)| *id) {
                Some(child) => {
                    let mut holders = self.shadow.holders(what.context, &entry, 0);
                    holders.retain(|(tag, _)| cut.fills(*tag));
                    self.residues.hold(child, holders.into_iter().map(|(tag, all)| (tag, all & pes)));
                    Some(child)
                }
                None => {
                    let (context, space) = (what.context, what.space);
                    let span = Span { context, space, start, since: 0, forbids: entry.forbids() };
                    let child = self.open(now, slot, span, (old.0, entry), cut);
                    child.inspect(|child| self.residues.cut_off_like(*child, above))
                }
            };
            if let Some(child) = child {
                self.refill_below(now, child, pes, under, None);
            }
        }
    }

    /// A table has been replaced in place, and that was told. What older table entries below it still lead to is stale all
    /// the same, and no part of that mistake.
    fn cut_off_below_stale<W: World>(&mut self, now: &mut Now<'_, W>, base: u64, span: Span, cut: Cut) {
        let Some(table) = self.shadow.table(base) else { return };
        let leads = |id: &ResidueId| {
            let what = &self.residues.get(*id)?.what;
            ((what.context, what.start) == (span.context, span.start)).then_some(*id)
        };
        if let Some(id) = table.leading_here().iter().find_map(leads) {
            let pes = self.residues.get(id).map_or(0, Residue::pes);
            return self.cut_off(now, base, span, Cut { through: Some(id), pes, ..cut });
        }
        let (level, shift) = (table.level, table.geometry.shift(table.level));
        let forbids = |index| span.forbids | table.descriptor(index).forbids();
        let children: Vec<_> = table.children().map(|(index, child)| (index, child, forbids(index))).collect();
        for (index, child, forbids) in children {
            if self.shadow.table(child).is_some_and(|child| child.level == level + 1) {
                let start = span.start.wrapping_add((index as u64) << shift);
                self.cut_off_below_stale(now, child, Span { start, forbids, ..span }, cut);
            }
        }
    }

    fn open<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        slot: Slot,
        span: Span,
        (bits, entry): (u64, Descriptor),
        cut: Cut,
    ) -> Option<ResidueId> {
        let mut holders = self.shadow.holders(span.context, &entry, span.since);
        holders.iter_mut().for_each(|(_, pes)| *pes &= cut.pes);
        holders.retain(|(tag, pes)| *pes != 0 && cut.fills(*tag));
        if holders.is_empty() {
            return None;
        }
        let what = Removed {
            context: span.context,
            space: span.space,
            geometry: slot.geometry,
            table: slot.table,
            index: slot.index,
            level: slot.level,
            start: span.start,
            bits,
            entry,
            cut: cut.slot,
            through: cut.through,
        };
        let id = self.residues.open(what, holders, now.site(), cut.writer)?;
        if let Some(context) = self.shadow.context_mut(span.context) {
            context.open += 1;
        }
        if let Some(next) = entry.next()
            && let Some(child) = self.shadow.table_mut(next)
        {
            child.residues.insert(id);
        }
        Some(id)
    }

    /// Ends a residue without counting it as cleaned.
    pub(super) fn retire<W: World>(&mut self, world: &mut W, id: ResidueId) -> Option<Box<Residue>> {
        let residue = self.residues.retire(id)?;
        self.closed(world, id, &residue);
        Some(residue)
    }

    /// A residue has ended: the table it led to may be nobody's now.
    pub(super) fn closed<W: World>(&mut self, world: &mut W, id: ResidueId, residue: &Residue) {
        if let Some(next) = residue.what.entry.next()
            && let Some(child) = self.shadow.table_mut(next)
        {
            child.residues.remove(&id);
            self.forget_if_clean(world, next);
        }
        if let Some(context) = self.shadow.context_mut(residue.what.context) {
            context.open = context.open.saturating_sub(1);
            if context.open == 0 {
                self.shadow.rest(residue.what.context);
                if self.shadow.context(residue.what.context).is_some_and(|context| context.tags.is_empty()) {
                    self.end_context(world, residue.what.context);
                }
            }
        }
    }
}

/// The 8-byte slots that `size` bytes at `pa` touch.
fn slots(pa: u64, size: u64) -> impl Iterator<Item = u64> {
    let first = pa & !7;
    let last = pa.saturating_add(size.clamp(1, WATCHED) - 1) & !7;
    (first..=last).step_by(8)
}
