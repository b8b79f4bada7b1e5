//! Verdicts: from a residue that has become an error to the story of it.

use super::access::Condemned;
use super::tables::Edit;
use super::{MAX_TOLD, Model, Now, Told};
use crate::descriptor::Descriptor;
use crate::effect::Effect;
use crate::event::{Event, What, World};
use crate::geometry::Space;
use crate::machine::{PeSet, pes};
use crate::report::{self, Claim, Record, Remark, Severity, Site, Verdict, Violation, Ways};
use crate::residue::{Removed, Residue, ResidueId, Tag};
use crate::shadow::Span;
use std::sync::Arc;
use tlbsan_hint::{Cause, Hint, Kind};

/// A violation of which everything is still to be said.
pub(super) fn blank(trigger: &Arc<Site>) -> Violation {
    let nothing = || report::Descriptor { bits: 0, text: Descriptor::Nothing.to_string() };
    Violation {
        number: 0,
        case: None,
        kind: Kind::Remade,
        cause: Cause::NoInvalidation,
        severity: Severity::Error,
        start: 0,
        size: 0,
        level: 3,
        table: false,
        asids: Vec::new(),
        pes: Vec::new(),
        slot: 0,
        old: nothing(),
        new: nothing(),
        removed: Site::default(),
        trigger: (**trigger).clone(),
        attempts: Vec::new(),
        more_attempts: 0,
        times: 1,
        accessed: None,
        claim: None,
        ways: Ways::default(),
        suppressed: None,
    }
}

impl Model {
    /// Residues that have become errors: each retires, and one story an equal cause is told.
    pub(super) fn verdicts<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        kind: Kind,
        broken: Vec<ResidueId>,
        new_bits: u64,
        new: Option<Descriptor>,
    ) {
        self.verdicts_of(now, kind, Severity::Error, broken, Residue::pes, (new_bits, new));
    }

    /// The same with a severity, and naming those of a residue's PEs that count. Advice does not retire a residue:
    /// something worse may come of it.
    pub(super) fn verdicts_of<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        kind: Kind,
        severity: Severity,
        broken: Vec<ResidueId>,
        counts: impl Fn(&Residue) -> PeSet,
        (new_bits, new): (u64, Option<Descriptor>),
    ) {
        let mut stories: Vec<Violation> = Vec::new();
        for id in broken {
            let Some(residue) = self.residues.get(id) else { continue };
            let (explained, attempts, more_attempts) = self.residues.explain(residue);
            let cause = if kind == Kind::LiveChange { Cause::NotBrokenFirst } else { explained };
            let what = &residue.what;
            let first = self.config.tell_all || stories.iter().all(|story| story.cause != cause);
            let ways = if first { self.ways_of(residue) } else { Ways::default() };
            let violation = Violation {
                kind,
                cause,
                severity,
                start: what.start,
                size: residue.size(),
                level: what.level,
                table: residue.is_table(),
                asids: asids(residue.holders.iter().map(|holder| holder.tag)),
                pes: pes(counts(residue)).collect(),
                slot: what.slot(),
                old: describe(what.bits, what.entry),
                new: describe(new_bits, new.unwrap_or(Descriptor::Nothing)),
                removed: (*residue.removed).clone(),
                attempts,
                more_attempts,
                claim: claim(now.event),
                ways,
                ..blank(&now.site())
            };
            if severity == Severity::Error {
                let told = residue.pes();
                self.retire_with_children(now, id, told, cause);
                self.count(Verdict::from(&violation));
            }
            match stories.iter_mut().find(|story| story.cause == cause && !self.config.tell_all) {
                Some(story) => story.times += 1,
                None => stories.push(violation),
            }
        }
        for story in stories {
            self.tell(story);
        }
    }

    /// What the PEs that may hold a residue can only read through it is part of the same mistake.
    fn retire_with_children<W: World>(&mut self, now: &mut Now<'_, W>, id: ResidueId, told: PeSet, cause: Cause) {
        let children = self.residues.children(id);
        if let Some(residue) = self.retire(now.world, id) {
            self.records.extend(residue.missed(cause).map(|event| Record::Found { event }));
            let what = &residue.what;
            self.condemn(Condemned::new(what.space, what.start, residue.size(), what.entry));
        }
        for child in children {
            let hangs = |residue: &&Residue| residue.what.through == Some(id) && !residue.is_detached();
            let Some(residue) = self.residues.get(child).filter(hangs) else { continue };
            let (what, pes) = (residue.what, residue.pes());
            let other = self.another_way(&what, pes);
            if !self.residues.outlive(child, told, other) {
                self.retire_with_children(now, child, told, cause);
            }
        }
    }

    /// Another table residue that leads some of `pes` to what was removed: one of an older entry for the same table.
    fn another_way(&self, what: &Removed, pes: PeSet) -> Option<ResidueId> {
        let table = self.shadow.table(what.table)?;
        let start = what.table_start();
        let leads = |id: &ResidueId| {
            let above = self.residues.get(*id).filter(|above| above.pes() & pes != 0);
            above.is_some_and(|above| (above.what.context, above.what.start) == (what.context, start))
        };
        table.leading_here().into_iter().find(leads)
    }

    pub(super) fn live_change<W: World>(&mut self, now: &mut Now<'_, W>, edit: &Edit, span: Span) {
        let Edit { slot, old, new } = *edit;
        let holders = self.shadow.holders(span.context, &old.1, span.since);
        let size = slot.geometry.size(slot.level);
        let site = now.site();
        let mut before = self.way_to(span.context, span.start, slot.table);
        let mut after = before.clone();
        before.push(slot.step(describe(old.0, old.1)));
        after.push(slot.step(describe(new.0, new.1)));
        self.condemn(Condemned::new(span.space, span.start, size, old.1));
        self.verdict(Violation {
            kind: Kind::LiveChange,
            cause: Cause::NotBrokenFirst,
            start: span.start,
            size,
            level: slot.level,
            table: matches!(old.1, Descriptor::Table(_)),
            asids: asids(holders.iter().map(|holder| holder.0)),
            pes: pes(holders.iter().fold(0, |set, holder| set | holder.1)).collect(),
            slot: slot.pa(),
            old: describe(old.0, old.1),
            new: describe(new.0, new.1),
            removed: (*site).clone(),
            ways: Ways { before, after },
            ..blank(&site)
        });
    }

    /// One error.
    pub(super) fn verdict(&mut self, violation: Violation) {
        if violation.severity == Severity::Error {
            self.count(Verdict::from(&violation));
        }
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
        let key = (story.severity, story.kind, story.cause, story.trigger.pc ^ place.rotate_left(32), story.removed.pc);
        let error = story.severity == Severity::Error;
        self.summary.remarks += u64::from(!error);
        if let Some(told) = self.told.get_mut(&key).filter(|_| !self.config.tell_all) {
            if error {
                told.repeats += 1;
                self.summary.repeats += 1;
            }
            return;
        }
        if self.told.len() >= MAX_TOLD && !self.config.tell_all {
            // A stream that grows with every violation would fill a disk.
            self.summary.repeats += u64::from(error);
            return;
        }
        if error {
            self.summary.violations += 1;
            story.number = self.summary.violations;
        }
        if self.told.len() < MAX_TOLD {
            self.told.insert(key, Told { number: story.number, repeats: 0 });
        }
        self.records.push(Record::Violation(Box::new(story)));
    }

    /// Something that could be better, told once a place in the code.
    fn remark<W: World>(&mut self, now: &Now<'_, W>, severity: Severity, text: String) {
        self.summary.remarks += 1;
        let key = (severity, now.event.pc);
        if self.remarked.len() < MAX_TOLD && self.remarked.insert(key) {
            let site = (*now.site()).clone();
            self.records.push(Record::Remark(Box::new(Remark { severity, text, site })));
        }
    }

    /// An operation by ASID that no PE can hold anything of costs every PE time and removes nothing.
    pub(super) fn remark_unused<W: World>(&mut self, now: &Now<'_, W>, effect: &Effect, space: Space, asid: u16) {
        let uses = |id: &usize| {
            self.shadow.context(*id).is_some_and(|context| {
                context.tags.iter().any(|used| matches!(used.tag, Tag::AnyAsid) || used.tag == Tag::Asid(asid))
            })
        };
        let contexts = self.shadow.contexts_of(space);
        if contexts.is_empty() || contexts.iter().any(uses) || !self.residues.of_asid(space, asid).is_empty() {
            return;
        }
        let text = format!("{}: no PE has run ASID {asid} since it was last invalidated", effect.op);
        self.remark(now, Severity::Cost, text);
    }
}

fn asids(tags: impl Iterator<Item = Tag>) -> Vec<u16> {
    let asid = |tag| match tag {
        Tag::Asid(asid) => Some(asid),
        _ => None,
    };
    tags.filter_map(asid).collect()
}

/// The hint that is being judged.
fn claim(event: &Event) -> Option<Claim> {
    match event.what {
        What::Hint(Hint::FrameFreed { pa, size }) => Some(Claim::FrameFreed { pa, size }),
        What::Hint(Hint::FlushClaimed { start, size, asid }) => Some(Claim::FlushClaimed { start, size, asid }),
        _ => None,
    }
}

pub(super) fn describe(bits: u64, entry: Descriptor) -> report::Descriptor {
    report::Descriptor { bits, text: entry.to_string() }
}
