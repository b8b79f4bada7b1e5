//! The model: events in, records out.
//!
//! It keeps the shadow in step with memory, opens a residue for whatever leaves the tables, lets barriers and TLBIs work
//! on the residues, and asks the rules after each step. It does not know where events come from.

use crate::case::Window;
use crate::descriptor::{Change, Descriptor, ENTRIES, Geometry, PAGE, compare};
use crate::event::{Event, Sysreg, What, World};
use crate::machine::{Loaded, MAX_PES, Pe, PeSet, Unmodelled, pes};
use crate::report::{self, Record, STREAM_VERSION, Site, Summary, Verdict, Violation};
use crate::residue::{Removed, Residue, ResidueId, Residues};
use crate::rules::{claimed, live_change, remade, reused};
use crate::shadow::{ContextId, Parent, Shadow, Span, TablePage, page_of};
use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;
use tlbi::{Dsb, Op, Regime, Scope, Target};
use tlbsan_hint::{Cause, Hint, Kind};

/// How the model judges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Act as if the guest had executed no hint.
    pub ignore_hints: bool,
}

/// The model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    pes: Vec<Pe>,
    shadow: Shadow,
    residues: Residues,
    /// Invalidations of whole ASIDs that no DSB has completed yet, by issuer: they end what contexts may be held (R3).
    context_tlbis: Vec<(usize, Op)>,
    case: Option<Window>,
    told: HashSet<(Kind, Cause, u64, u64)>,
    noticed: HashSet<String>,
    summary: Summary,
    records: Vec<Record>,
}

/// The event being handled, with the world it happens in.
struct Now<'a, W> {
    world: &'a mut W,
    event: &'a Event,
    label: Option<String>,
    site: OnceCell<Arc<Site>>,
}

impl<W: World> Now<'_, W> {
    /// Where the event happened, with its call stack. Asked for only when a story may need it.
    fn site(&self) -> Arc<Site> {
        let make = || {
            let Event { pe, pc, .. } = *self.event;
            Arc::new(Site { pe, pc, stack: self.world.stack(), label: self.label.clone() })
        };
        Arc::clone(self.site.get_or_init(make))
    }

    fn same_contents(&self, a: u64, b: u64) -> bool {
        (0..PAGE).step_by(8).all(
            |offset| matches!((self.world.load(a + offset), self.world.load(b + offset)), (Some(a), Some(b)) if a == b),
        )
    }
}

/// A slot of a table page that has just changed.
#[derive(Clone, Copy)]
struct Slot {
    page: u64,
    index: usize,
    level: i8,
}

impl Slot {
    fn pa(self) -> u64 {
        self.page + self.index as u64 * 8
    }
}

impl Model {
    /// A model of PEs that come out of reset.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            pes: Vec::new(),
            shadow: Shadow::default(),
            residues: Residues::default(),
            context_tlbis: Vec::new(),
            case: None,
            told: HashSet::new(),
            noticed: HashSet::new(),
            summary: Summary::default(),
            records: vec![Record::Start { version: STREAM_VERSION }],
        }
    }

    /// Takes one event.
    pub fn event<W: World>(&mut self, world: &mut W, event: &Event) {
        self.summary.events += 1;
        let pe = event.pe;
        if pe >= MAX_PES {
            self.notice(format!("PE {pe} and above are not followed: the model knows {MAX_PES}"));
            return;
        }
        if self.pes.len() <= pe {
            self.pes.resize_with(pe + 1, Pe::default);
        }
        let label = self.pes[pe].label.clone();
        let mut now = Now { world, event, label, site: OnceCell::new() };
        match event.what {
            What::Store { pa, size } => self.stored(&mut now, pa, size, size > 8),
            What::Zero { pa, size } => self.stored(&mut now, pa, size, true),
            What::Load { pa, size } => self.loaded(&mut now, pa, size),
            What::Tlbi(op) if is_modelled(op) => self.tlbi(&mut now, op),
            What::Tlbi(op) => {
                self.notice(format!("TLBI {} is not modelled: taken as removing everything", op.mnemonic()));
                self.tlbi(&mut now, Op::inner(Target::All));
            }
            What::UnknownTlbi(insn) => {
                self.notice(format!("TLBI {:#010x} is not modelled: taken as removing everything", insn & !31));
                self.tlbi(&mut now, Op::inner(Target::All));
            }
            // An nXS form is taken as the plain one: nXS operations are not modelled.
            What::Dsb(dsb) => self.dsb(&mut now, dsb.plain()),
            What::Access { .. } | What::El(_) | What::Id(..) => {}
            What::Isb | What::ExceptionEntry | What::Eret => self.synchronise(&mut now),
            What::Sysreg(register, value) => self.write(pe, register, value),
            What::Hint(hint) => self.hint(&mut now, hint),
            What::Reset => {
                self.pes[pe].written = Default::default();
                self.synchronise(&mut now);
            }
        }
    }

    /// Records made since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// The run is over: the last record is made.
    pub fn finish(&mut self) {
        (self.summary.opened, self.summary.cleaned) = self.residues.counts();
        self.summary.tlbis = self.residues.tlbis();
        self.records.push(Record::End(self.summary.clone()));
    }

    /// Open residues: what may be cached although it is gone from memory.
    pub fn residues(&self) -> &Residues {
        &self.residues
    }

    fn notice(&mut self, text: String) {
        if self.noticed.insert(text.clone()) {
            self.records.push(Record::Notice { text });
        }
    }

    // ---- stores and loads ------------------------------------------------------------------------------------------

    fn stored<W: World>(&mut self, now: &mut Now<'_, W>, pa: u64, size: u64, wide: bool) {
        for slot in slots(pa, size) {
            let (page, index) = (page_of(slot), (slot % PAGE / 8) as usize);
            let Some(table) = self.shadow.page(page) else { continue };
            let old = table.entries[index];
            let new = now.world.load(slot).unwrap_or(0);
            if old != new {
                self.changed(now, page, index, new, wide, Some(now.event.pe));
            } else {
                // Perhaps its effect was seen before the store was reported.
                self.residues.attribute(slot, now.event.pe, || now.site());
                if new == 0 && !self.is_live(page) {
                    self.stored_unlinked(now, page, index, new, wide, Some(now.event.pe));
                }
            }
        }
    }

    fn loaded<W: World>(&mut self, now: &mut Now<'_, W>, pa: u64, size: u64) {
        for slot in slots(pa, size) {
            let (page, index) = (page_of(slot), (slot % PAGE / 8) as usize);
            let Some(table) = self.shadow.page(page) else { continue };
            let old = table.entries[index];
            let new = now.world.load(slot).unwrap_or(0);
            // The load tells of a store that its own PE has not reported yet. An entry that went away is noted now: this
            // PE may act on it. What became valid waits for its report.
            let gone = |bits| !Descriptor::decode(bits, table.level, &table.geometry).is_cacheable();
            if old != new && gone(new) {
                self.changed(now, page, index, new, false, None);
            }
            self.residues.seen(slot, now.event.pe);
        }
    }

    /// A slot holds something else than before. `writer` is not known where only the effect was seen.
    fn changed<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        page: u64,
        index: usize,
        new: u64,
        wide: bool,
        writer: Option<usize>,
    ) {
        if !self.is_live(page) {
            self.stored_unlinked(now, page, index, new, wide, writer);
            return;
        }
        let Some(table) = self.shadow.page_mut(page) else { return };
        let slot = Slot { page, index, level: table.level };
        let geometry = table.geometry;
        let (before, bits) = (table.descriptor(index), table.entries[index]);
        table.entries[index] = new;
        let after = table.descriptor(index);
        if before == after {
            return; // software bits
        }
        let spans = self.shadow.spans(page, index);
        let change = compare(&before, &after, |a, b| now.same_contents(a, b));

        if before.is_cacheable() && (!after.is_cacheable() || change == Change::Tighten) {
            let gone = !after.is_cacheable();
            for span in &spans {
                let id = self.open(now, slot, *span, bits, before, slot.pa(), None, writer);
                if let (true, Descriptor::Table(table)) = (gone, before) {
                    self.cut_off(now, table.next, slot, *span, id, writer);
                }
            }
            if let (true, Descriptor::Table(table)) = (gone, before) {
                self.unlink(now.world, table.next, Parent::Slot { page, index });
            }
            if gone {
                return;
            }
        }
        if let Change::Break(_) = change {
            for span in &spans {
                let holders = self.shadow.holders(span.context, is_global(&before));
                if live_change::is_broken(change, &before, &holders) {
                    self.live_change(now, slot, *span, (bits, before), (new, after));
                }
            }
            if let Descriptor::Table(table) = before {
                self.unlink(now.world, table.next, Parent::Slot { page, index });
            }
        }
        let replaced = !before.is_cacheable() || matches!(change, Change::Break(_));
        if let (true, Descriptor::Table(table)) = (replaced, after) {
            self.link(now.world, table.next, Parent::Slot { page, index }, slot.level + 1, geometry);
        }
        for span in spans {
            let outcome = remade::newly_valid(&self.shadow, &self.residues, span, slot.level, &after, &mut |a, b| {
                now.same_contents(a, b)
            });
            for id in outcome.healed {
                self.retire(now.world, id);
            }
            self.verdicts(now, Kind::Remade, outcome.broken, new, Some(after));
        }
    }

    /// A store to a table page that no root reaches any more.
    fn stored_unlinked<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        page: u64,
        index: usize,
        new: u64,
        wide: bool,
        writer: Option<usize>,
    ) {
        let Some(table) = self.shadow.page_mut(page) else { return };
        let reuse = reused::is_reuse(table, index, new, wide);
        let (before, level) = (table.descriptor(index), table.level);
        table.entries[index] = new;
        let after = table.descriptor(index);
        let leading_here = table.residues.clone();
        if reuse && !leading_here.is_empty() {
            self.verdicts(now, Kind::Reused, leading_here, new, Some(after));
        } else if before.is_cacheable() && !after.is_cacheable() {
            // Teardown of an unlinked table: its entries can no longer be read through a stale pointer.
            let slot = page + index as u64 * 8;
            let starts: Vec<u64> = leading_here
                .iter()
                .filter_map(|id| self.residues.get(*id))
                .map(|residue| residue.what.start + index as u64 * crate::descriptor::level_size(level))
                .collect();
            for start in starts {
                self.residues.detach(slot, start, level, writer.unwrap_or(now.event.pe));
            }
        }
    }

    // ---- the shape of the tables -----------------------------------------------------------------------------------

    fn is_live(&self, page: u64) -> bool {
        self.shadow.page(page).is_some_and(|table| {
            table.parents.iter().any(|parent| match *parent {
                Parent::Root(_) => true,
                Parent::Slot { page: above, .. } => {
                    self.shadow.page(above).is_some_and(|up| up.level < table.level) && self.is_live(above)
                }
            })
        })
    }

    /// `parent` points at the table `page` from now on.
    fn link<W: World>(&mut self, world: &mut W, page: u64, parent: Parent, level: i8, geometry: Geometry) {
        if let Some(table) = self.shadow.page_mut(page) {
            if table.level == level {
                table.scrubbed = None;
                table.parents.push(parent);
            } else {
                let text = format!("the table at {page:#x} is linked at two levels: followed at one of them only");
                self.notice(text);
            }
            return;
        }
        let mut entries = Box::new([0; ENTRIES]);
        for (index, entry) in entries.iter_mut().enumerate() {
            *entry = world.load(page + index as u64 * 8).unwrap_or(0);
        }
        let table = TablePage { level, geometry, parents: vec![parent], entries, residues: Vec::new(), scrubbed: None };
        let children: Vec<(usize, u64)> = table.children().collect();
        self.shadow.insert_page(page, table);
        world.watch(page, true);
        for (index, child) in children {
            self.link(world, child, Parent::Slot { page, index }, level + 1, geometry);
        }
    }

    /// `parent` no longer points at the table `page`.
    fn unlink<W: World>(&mut self, world: &mut W, page: u64, parent: Parent) {
        if let Some(table) = self.shadow.page_mut(page) {
            if let Some(at) = table.parents.iter().position(|known| *known == parent) {
                table.parents.swap_remove(at);
            }
            self.forget_if_clean(world, page);
        }
    }

    /// Drops an unlinked table page that nobody can reach, not even through a walk cache.
    fn forget_if_clean<W: World>(&mut self, world: &mut W, page: u64) {
        let clean = self.shadow.page(page).is_some_and(|table| table.parents.is_empty() && table.residues.is_empty());
        if !clean {
            return;
        }
        if let Some(table) = self.shadow.remove_page(page) {
            world.watch(page, false);
            for (index, child) in table.children() {
                self.unlink(world, child, Parent::Slot { page, index });
            }
        }
    }

    /// A table has been unlinked: everything in it, and below, may be cached too.
    fn cut_off<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        page: u64,
        cut: Slot,
        span: Span,
        through: Option<ResidueId>,
        writer: Option<usize>,
    ) {
        let Some(table) = self.shadow.page(page) else { return };
        let level = table.level;
        let inside: Vec<(usize, u64, Descriptor)> = (0..ENTRIES)
            .map(|index| (index, table.entries[index], table.descriptor(index)))
            .filter(|(_, _, entry)| entry.is_cacheable())
            .collect();
        for (index, bits, entry) in inside {
            let slot = Slot { page, index, level };
            let start = span.start + index as u64 * crate::descriptor::level_size(level);
            let span = Span { start, ..span };
            let id = self.open(now, slot, span, bits, entry, cut.pa(), through, writer);
            if let Descriptor::Table(next) = entry {
                self.cut_off(now, next.next, cut, span, id.or(through), writer);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what a residue is")]
    fn open<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        slot: Slot,
        span: Span,
        bits: u64,
        entry: Descriptor,
        cut: u64,
        through: Option<ResidueId>,
        writer: Option<usize>,
    ) -> Option<ResidueId> {
        let what = Removed {
            context: span.context,
            slot: slot.pa(),
            level: slot.level,
            start: span.start,
            bits,
            entry,
            cut,
            through,
        };
        let holders = self.shadow.holders(span.context, is_global(&entry));
        let id = self.residues.open(what, holders, now.site(), writer)?;
        if let Descriptor::Table(table) = entry
            && let Some(child) = self.shadow.page_mut(table.next)
        {
            child.residues.push(id);
        }
        Some(id)
    }

    /// Ends a residue without counting it as cleaned, and what hangs on it.
    fn retire<W: World>(&mut self, world: &mut W, id: ResidueId) -> Option<Residue> {
        let residue = self.residues.retire(id)?;
        self.closed(world, id, &residue);
        Some(residue)
    }

    /// A residue has ended: the table it led to may be nobody's now.
    fn closed<W: World>(&mut self, world: &mut W, id: ResidueId, residue: &Residue) {
        if let Descriptor::Table(table) = residue.what.entry
            && let Some(child) = self.shadow.page_mut(table.next)
        {
            child.residues.retain(|other| *other != id);
            self.forget_if_clean(world, table.next);
        }
    }

    // ---- instructions ----------------------------------------------------------------------------------------------

    fn tlbi<W: World>(&mut self, now: &mut Now<'_, W>, op: Op) {
        let pe = now.event.pe;
        self.residues.tlbi(pe, op, || now.site());
        if matches!(op.target, Target::All | Target::Asid(_)) && !self.context_tlbis.contains(&(pe, op)) {
            self.context_tlbis.push((pe, op));
        }
    }

    fn dsb<W: World>(&mut self, now: &mut Now<'_, W>, dsb: Dsb) {
        let pe = now.event.pe;
        for (id, residue) in self.residues.dsb(pe, dsb) {
            self.closed(now.world, id, &residue);
        }
        let completed = |(issuer, op): &(usize, Op)| *issuer == pe && dsb.completes_tlbi(op.scope.domain());
        if self.context_tlbis.iter().any(completed) {
            let (done, rest): (Vec<_>, Vec<_>) = self.context_tlbis.iter().partition(|tlbi| completed(tlbi));
            self.context_tlbis = rest;
            for (_, op) in done {
                self.end_contexts(now.world, pe, op);
            }
        }
    }

    /// R3: after a completed invalidation of its ASID, a PE holds only what it has loaded.
    fn end_contexts<W: World>(&mut self, world: &mut W, pe: usize, op: Op) {
        let reached: PeSet = match op.scope {
            Scope::Local => 1 << pe,
            Scope::Inner | Scope::Outer => PeSet::MAX,
        };
        let mut ended: Vec<(ContextId, u64)> = Vec::new();
        for (id, context) in self.shadow.contexts_mut() {
            for tag in &mut context.tags {
                if matches!(op.target, Target::All) || op.target == Target::Asid(tlbi::Asid::new(tag.asid)) {
                    tag.held &= tag.loaded | !reached;
                }
            }
            context.tags.retain(|tag| tag.held != 0);
            if context.tags.is_empty() {
                ended.push((id, context.root.table));
            }
        }
        for (id, root) in ended {
            self.unlink(world, root, Parent::Root(id));
            self.shadow.drop_context(id);
        }
    }

    fn write(&mut self, pe: usize, register: Sysreg, value: u64) {
        self.pes[pe].written.write(register, value);
    }

    /// A context synchronisation event: register writes take effect.
    fn synchronise<W: World>(&mut self, now: &mut Now<'_, W>) {
        let pe = now.event.pe;
        let state = &mut self.pes[pe];
        if state.effective == state.written {
            return;
        }
        state.effective = state.written;
        for half in 0..2u8 {
            let next = match self.pes[pe].effective.loaded(half) {
                Ok(next) => next,
                Err(why) => {
                    self.unmodelled(half, why);
                    None
                }
            };
            let previous = std::mem::replace(&mut self.pes[pe].loaded[usize::from(half)], next);
            if previous == next {
                continue;
            }
            if let Some(previous) = previous
                && let Some(id) = self.shadow.find(&previous.root)
            {
                self.shadow.unload(id, &previous, pe);
            }
            if let Some(next) = next {
                self.load(now.world, &next, pe);
            }
        }
    }

    fn load<W: World>(&mut self, world: &mut W, next: &Loaded, pe: usize) {
        let id = match self.shadow.find(&next.root) {
            Some(id) => id,
            None => {
                let id = self.shadow.add_context(next.root);
                let Geometry { start_level, .. } = next.root.geometry;
                self.link(world, next.root.table, Parent::Root(id), start_level, next.root.geometry);
                id
            }
        };
        self.shadow.load(id, next, pe);
    }

    fn unmodelled(&mut self, half: u8, why: Unmodelled) {
        self.notice(format!("TTBR{half}_EL1 is walked with {}: not modelled yet, nothing is judged there", why.text()));
    }

    // ---- hints -----------------------------------------------------------------------------------------------------

    fn hint<W: World>(&mut self, now: &mut Now<'_, W>, hint: Hint) {
        if self.config.ignore_hints {
            return;
        }
        match hint {
            Hint::CaseBegin { id } => self.case = Some(Window::new(id, self.residues.counts())),
            Hint::Expect(expected) => {
                if let Some(case) = &mut self.case {
                    case.expect(expected.into());
                }
            }
            Hint::CaseEnd { id } => {
                if let Some(case) = self.case.take_if(|case| case.id == id) {
                    let result = case.end(self.residues.counts());
                    if result.passed {
                        self.summary.passed += 1;
                    } else {
                        self.summary.failed += 1;
                    }
                    self.records.push(Record::Case(result));
                }
            }
            Hint::FrameFreed { pa, size } => {
                let broken = claimed::frame_freed(&self.residues, pa, size);
                self.verdicts(now, Kind::Claimed, broken, 0, None);
            }
            Hint::FlushClaimed { start, size, asid } => {
                let broken = claimed::flush_claimed(&self.residues, start, size, asid);
                self.verdicts(now, Kind::Claimed, broken, 0, None);
            }
            Hint::Label { text, len } => {
                self.pes[now.event.pe].label = now.world.text(text, len.min(200));
            }
        }
    }

    // ---- verdicts --------------------------------------------------------------------------------------------------

    /// Residues that have become errors: each retires, and one story an equal cause is told.
    fn verdicts<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        kind: Kind,
        broken: Vec<ResidueId>,
        new_bits: u64,
        new: Option<Descriptor>,
    ) {
        let mut stories: Vec<Violation> = Vec::new();
        for id in broken {
            let Some(residue) = self.retire(now.world, id) else { continue };
            // What can only be read through it is part of the same mistake.
            let below: Vec<ResidueId> =
                self.residues.iter().filter(|(_, r)| r.what.through == Some(id)).map(|(id, _)| id).collect();
            for id in below {
                self.retire_below(now.world, id);
            }
            let (cause, attempts, more_attempts) = self.residues.explain(&residue);
            let context = self.shadow.context(residue.what.context);
            let violation = Violation {
                case: None,
                kind,
                cause,
                start: residue.what.start,
                size: residue.size(),
                level: residue.what.level,
                table: residue.is_table(),
                asids: match context {
                    Some(context) if !is_global(&residue.what.entry) => {
                        context.tags.iter().filter(|tag| residue.concerns(tag.asid)).map(|tag| tag.asid).collect()
                    }
                    _ => Vec::new(),
                },
                pes: pes(residue.pes()).collect(),
                slot: residue.what.slot,
                old: describe(residue.what.bits, residue.what.entry),
                new: describe(new_bits, new.unwrap_or(Descriptor::Nothing)),
                removed: (*residue.removed).clone(),
                trigger: (*now.site()).clone(),
                attempts,
                more_attempts,
                times: 1,
                severity: Default::default(),
                accessed: None,
            };
            let verdict = Verdict::from(&violation);
            self.count(verdict);
            match stories.iter_mut().find(|story| story.cause == cause) {
                Some(story) => story.times += 1,
                None => stories.push(violation),
            }
        }
        for story in stories {
            self.tell(story);
        }
    }

    fn retire_below<W: World>(&mut self, world: &mut W, id: ResidueId) {
        let below: Vec<ResidueId> =
            self.residues.iter().filter(|(_, r)| r.what.through == Some(id)).map(|(id, _)| id).collect();
        self.retire(world, id);
        for id in below {
            self.retire_below(world, id);
        }
    }

    fn live_change<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        slot: Slot,
        span: Span,
        old: (u64, Descriptor),
        new: (u64, Descriptor),
    ) {
        let holders = self.shadow.holders(span.context, is_global(&old.1));
        let site = now.site();
        let violation = Violation {
            case: None,
            kind: Kind::LiveChange,
            cause: Cause::NotBrokenFirst,
            start: span.start,
            size: crate::descriptor::level_size(slot.level),
            level: slot.level,
            table: matches!(old.1, Descriptor::Table(_)),
            asids: self
                .shadow
                .context(span.context)
                .map_or(Vec::new(), |c| c.tags.iter().map(|tag| tag.asid).collect()),
            pes: pes(holders.iter().fold(0, |set, holder| set | holder.1)).collect(),
            slot: slot.pa(),
            old: describe(old.0, old.1),
            new: describe(new.0, new.1),
            removed: (*site).clone(),
            trigger: (*site).clone(),
            attempts: Vec::new(),
            more_attempts: 0,
            times: 1,
            severity: Default::default(),
            accessed: None,
        };
        self.count(Verdict::from(&violation));
        self.tell(violation);
    }

    /// Counts a verdict for the running case.
    fn count(&mut self, verdict: Verdict) {
        let expected = self.case.as_mut().is_some_and(|case| case.see(verdict));
        if !expected {
            self.summary.unexpected += 1;
        }
    }

    /// Makes a record, unless the same has been told.
    fn tell(&mut self, mut story: Violation) {
        story.case = self.case.as_ref().map(|case| case.id);
        let place = story.case.unwrap_or(u64::MAX);
        // The same mistake in another case is another story.
        let key = (story.kind, story.cause, story.trigger.pc ^ place.rotate_left(32), story.removed.pc);
        if self.told.insert(key) {
            self.summary.violations += 1;
            self.records.push(Record::Violation(Box::new(story)));
        } else {
            self.summary.repeats += 1;
        }
    }
}

/// Whether the model follows what the operation leaves; others are taken as removing everything.
fn is_modelled(op: Op) -> bool {
    op.regime == Regime::El10
        && op.scope != Scope::Outer
        && !op.nxs
        && matches!(op.target, Target::All | Target::Asid(_) | Target::Va { .. })
}

fn is_global(entry: &Descriptor) -> bool {
    matches!(entry, Descriptor::Leaf(leaf) if !leaf.non_global)
}

fn describe(bits: u64, entry: Descriptor) -> report::Descriptor {
    report::Descriptor { bits, text: entry.to_string() }
}

/// The 8-byte slots that `size` bytes at `pa` touch.
fn slots(pa: u64, size: u64) -> impl Iterator<Item = u64> {
    let first = pa & !7;
    let last = pa.saturating_add(size.clamp(1, PAGE) - 1) & !7;
    (first..=last).step_by(8)
}
