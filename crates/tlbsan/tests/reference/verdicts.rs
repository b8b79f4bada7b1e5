//! Verdicts about what is stale, and why it still is.

use super::decode::{Change, Desc};
use super::operations::misses;
use super::{Entry, Executed, Pes, Reference, Seen, Unseen};
use std::collections::{BTreeMap, BTreeSet};
use tlbi::barrier::Domain;
use tlbi::{Scope, Target};
use tlbsan::{Cause, Kind};

impl Reference {
    pub(super) fn store(&mut self, pe: usize, slot: u64, value: u64) -> Vec<Seen> {
        let fresh: BTreeSet<Entry> = self.held().filter(|e| !self.is_gone(e)).collect();
        let meant: BTreeMap<Entry, _> = self.held().map(|e| (e, self.meaning(&e))).collect();
        let linked = self.linked();
        let old = self.memory.insert(slot, value).unwrap_or(0);
        let table = self.table(slot);
        let removed = fresh.iter().filter(|e| e.slot == slot).copied().collect();
        if linked.contains(&table) || self.held().any(|e| e.slot == slot || e.next() == Some(table)) {
            let (knowers, waited, own) = ([pe].into(), BTreeMap::new(), Pes::new());
            self.unseen.push(Unseen { slot, old, removed, knowers, waited, reach: Domain::NonShareable, own });
        }
        if value == 0 {
            self.zeroed.insert(slot, self.now);
        } else {
            self.zeroed.remove(&slot);
        }
        let new_tables = &self.linked() - &linked;
        self.judge(|all, e| {
            // What is put into a table that is stale changes nothing in its stead.
            let changes = e.next().is_none() || meant.get(e) != Some(&all.meaning(e));
            let breaks = changes && all.difference(e) == Change::Break;
            let becomes_table =
                || e.next().is_none() && new_tables.iter().any(|it| overlap((*it, 1 << all.granule), e.target()));
            if breaks && fresh.contains(e) {
                Some(Kind::LiveChange)
            } else if all.is_stale(e) && becomes_table() || all.reuses(e, slot, old, value) {
                Some(Kind::Reused)
            } else {
                breaks.then_some(Kind::Remade)
            }
        })
    }

    /// Whether a store to `slot` puts the table that stale `e` leads to to another use.
    fn reuses(&self, e: &Entry, slot: u64, old: u64, value: u64) -> bool {
        let (Some(since), Some(table)) = (self.stale.get(e), e.next()) else { return false };
        let (level, _, there) = self.meaning(e);
        if (level, there.next()) == (e.level, Some(table)) || table != self.table(slot) {
            return false;
        }
        if self.linked().contains(&table) {
            // Linked elsewhere: it may be emptied there, and neither software bits nor the access flag are a change.
            let aged = |value| Desc::decode(value | 1 << 10, e.level + 1, &e.root.format);
            return value & 1 == 1 && aged(old) != aged(value);
        }
        let cleared = || (table..table + e.target().1).step_by(8).all(|slot| self.zeroed.get(&slot) > Some(since));
        value & 1 == 1 && value != old || cleared()
    }

    /// The verdicts about what is held, by what `kind` says of it; equal ones made one.
    pub(super) fn judge(&mut self, kind: impl Fn(&Self, &Entry) -> Option<Kind>) -> Vec<Seen> {
        let mut verdicts: BTreeMap<(Kind, u64, i8), Seen> = BTreeMap::new();
        for e in self.held().collect::<BTreeSet<Entry>>() {
            let Some(kind) = kind(self, &e) else { continue };
            self.told.insert(e.residue());
            let of_it = |it: &Entry| it.residue() == e.residue();
            let holders = self.pes.iter().enumerate().filter(|(_, pe)| pe.cached.keys().any(of_it));
            let pes: Pes = holders.map(|(pe, _)| pe).collect();
            let cause = self.cause(kind, &e, &pes);
            let seen = Seen { kind, start: e.va, size: e.size(), level: e.level, pes, cause };
            let merged = verdicts.entry((kind, e.va, e.level)).or_insert_with(|| seen.clone());
            merged.cause = cause.filter(|_| merged.cause == cause);
            merged.pes.extend(seen.pes);
        }
        verdicts.into_values().collect()
    }

    /// Whether a walk through table entry `e` could fetch `child`.
    fn leads_to(&self, e: &Entry, child: &Entry) -> bool {
        e.next() == Some(self.table(child.slot))
            && e.level + 1 == child.level
            && e.covers(child.va)
            && e.root == child.root
            && self.holds_now(child)
    }

    /// Whether the slot that `e` was read from holds it still.
    fn holds_now(&self, e: &Entry) -> bool {
        let desc = Desc::decode(self.value(e.slot), e.level, &e.root.format);
        desc.is_cacheable() && self.compare(e, &desc) == Change::None
    }

    /// Why the stale `e` is still there on `pes`, if there is one reason only.
    fn cause(&self, kind: Kind, e: &Entry, pes: &Pes) -> Option<Cause> {
        if kind == Kind::LiveChange {
            return Some(Cause::NotBrokenFirst);
        }
        let since = self.stale.get(e).copied().unwrap_or(self.now);
        let youngest = pes.iter().filter_map(|pe| self.pes[*pe].cached.get(e)).max();
        let above: Vec<Entry> = self.held().filter(|it| self.stale.contains_key(it) && self.leads_to(it, e)).collect();
        let mut causes = BTreeSet::new();
        let for_it = |it: &&Executed| it.registers.names(&it.op, e.root.space, e.combined);
        for executed in self.executed.iter().filter(|it| it.at > since).filter(for_it) {
            let Executed { at, pe, op, completed, .. } = executed;
            let mut all = misses(op, e);
            let mut also = |yes: bool, cause| all.extend(yes.then_some(cause));
            // It may be fetched again through a table entry that the operation leaves.
            let leaf_only = match op.target {
                Target::Va { leaf_only, .. } | Target::VaRange { leaf_only, .. } => leaf_only,
                Target::Ipa { leaf_only, .. } | Target::IpaRange { leaf_only, .. } => leaf_only,
                _ => false,
            };
            let left = if leaf_only { Cause::LeafOnly } else { Cause::WrongAsid };
            also(above.iter().any(|it| !misses(op, it).is_empty()), left);
            also(op.scope == Scope::Local && pes.iter().any(|it| it != pe), Cause::LocalOnly);
            let unordered = || pes.iter().any(|pe| executed.unordered.contains(&(*pe, *e)));
            also(youngest >= Some(at) || unordered(), Cause::NotOrdered);
            let remade = pes.iter().any(|pe| executed.leaves_what_makes(e, &self.pes[*pe].held));
            also(!completed || remade, Cause::NotCompleted);
            causes.extend(if all.is_empty() { vec![left] } else { all });
        }
        // Whether a TLBI for something else was meant for this is anybody's guess, and so is what a run's other members did, or
        // what is combined with it.
        let other = |cause| matches!(cause, Cause::WrongRange | Cause::WrongAsid | Cause::GlobalSurvives);
        let for_half = |it: &Executed| !for_it(&it) && it.registers.names(&it.op, e.root.space, !e.combined);
        if self.executed.iter().any(|it| it.at > since && for_half(it)) {
            return None;
        }
        match causes.pop_first() {
            None => Some(Cause::NoInvalidation),
            Some(cause) => (causes.is_empty() && !other(cause) && e.desc.run(0, e.level, &e.root.format).len() == 1)
                .then_some(cause),
        }
    }
}

pub(super) fn overlap((a, a_size): (u64, u64), (b, b_size): (u64, u64)) -> bool {
    a < b.saturating_add(b_size) && b < a.saturating_add(a_size)
}
