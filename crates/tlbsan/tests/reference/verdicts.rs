//! Verdicts about what is stale, and why it still is.

use super::tables::Change;
use super::*;

impl Reference {
    pub(super) fn store(&mut self, pe: usize, slot: u64, value: u64) -> Vec<Seen> {
        let before: BTreeMap<_, _> =
            self.held().into_iter().map(|e| (e, (self.is_gone(&e), self.meaning(&e)))).collect();
        let (linked, is_table) = (self.linked(), self.is_table(slot));
        self.linked.extend(linked.iter().map(|table| (*table, self.now)));
        let old = self.memory.insert(slot, (value, self.now)).map_or(0, |it| it.0);
        if is_table {
            self.seen(pe, slot..slot + 8);
            self.unseen.push(Unseen { at: self.now, pe, slot, old, knowers: [(pe, self.now)].into() });
        }
        let new_tables = &self.linked() - &linked;
        self.judge(|all, e| {
            // What is put into a table that is stale changes nothing in its stead.
            let breaks = (e.leaf().is_some() || before[e].1 != all.meaning(e)) && all.difference(e) == Change::Break;
            let becomes_table = || e.leaf().is_some() && new_tables.iter().any(|it| overlap(*it, e.target()));
            if breaks && !before[e].0 {
                Some(Kind::LiveChange)
            } else if all.is_gone(&e.aged()) && becomes_table() || all.reuses(e, slot, old, value) {
                Some(Kind::Reused)
            } else {
                breaks.then_some(Kind::Remade)
            }
        })
    }

    /// Whether a store to `slot` puts the table that stale `e` leads to to another use.
    fn reuses(&self, e: &Entry, slot: u64, old: u64, value: u64) -> bool {
        let (table, size) = e.target();
        let inside =
            e.says.next().is_some() && slot.wrapping_sub(table) < size && self.meaning(e).says.next() != Some(table);
        let Some(since) = self.stale.get(e).filter(|_| inside) else { return false };
        if self.linked().contains(&e.target()) {
            // Linked elsewhere: it may be emptied there, and neither software bits nor the access flag are a change.
            let [old, new] = [old, value].map(|bits| self.child(&e.aged(), slot, bits));
            return value & 1 == 1 && old != new;
        }
        let since = since.max(self.linked.get(&e.target()).unwrap_or(since));
        let zeroed = |slot| self.memory.get(&slot).is_some_and(|it| it.0 == 0 && it.1 > *since);
        value & 1 == 1 && value != old || (table..table + size).step_by(8).all(zeroed)
    }

    /// What a hint says is no longer held.
    pub(super) fn claimed(&mut self, meant: impl Fn(&Entry) -> bool) -> Vec<Seen> {
        self.judge(|all, e| (all.is_gone(&e.aged()) && meant(e)).then_some(Kind::Claimed))
    }

    /// The verdicts about what is held, by what `kind` says of it; equal ones made one.
    fn judge(&mut self, kind: impl Fn(&Self, &Entry) -> Option<Kind>) -> Vec<Seen> {
        let mut verdicts: BTreeMap<Told, Seen> = BTreeMap::new();
        for e in self.held() {
            let Some(kind) = kind(self, &e) else { continue };
            self.told.insert(e.residue());
            let of_it = |it: &Entry| it.residue() == e.residue();
            let pes: Pes = (0..self.pes.len()).filter(|pe| self.pes[*pe].cached.keys().any(of_it)).collect();
            let cause = if kind == Kind::LiveChange { Some(Cause::NotBrokenFirst) } else { self.cause(&e, &pes) };
            let seen = Seen::new(kind, &e, pes, cause);
            let merged = verdicts.entry(seen.told).or_insert_with(|| seen.clone());
            merged.cause = cause.filter(|_| merged.cause == cause);
            merged.pes.extend(seen.pes);
        }
        verdicts.into_values().collect()
    }

    /// Why the stale `e` is still there on `pes`, if there is one reason only.
    fn cause(&self, e: &Entry, pes: &Pes) -> Option<Cause> {
        let since = self.stale.get(e).copied().unwrap_or(self.now);
        let youngest = pes.iter().filter_map(|pe| self.pes[*pe].cached.get(e)).max();
        // Stale table entries that a walk could fetch it through.
        let same = |it: &Entry| it.slot == e.slot && it.root == e.root && self.compare(e, it) == Change::None;
        let above: Vec<&Entry> = self.stale.keys().filter(|it| self.children(it).iter().any(same)).collect();
        let mut causes = BTreeSet::new();
        let since_then: Vec<&Executed> = self.executed.iter().filter(|it| it.at > since).collect();
        let named = |it: &Executed, e: &Entry| names(&it.registers, &it.op, e);
        // Whether a TLBI for the one half of a combined entry was meant for the other is anybody's guess.
        let half = since_then.iter().any(|it| !named(it, e) && named(it, &e.half()));
        for it in since_then.into_iter().filter(|it| named(it, e)) {
            // It may be fetched again through a table entry that the operation leaves.
            let left = if it.op.target.is_leaf_only() { Cause::LeafOnly } else { Cause::WrongAsid };
            // The other half of a combined entry, if it stays, makes it again.
            let combined = e.combined && !it.removes(&e.half());
            let stays = pes.iter().filter_map(|pe| it.stays.get(&(*pe, *e))).max();
            let again = youngest >= Some(&it.at) || stays == Some(&it.at) || combined && stays.is_some();
            let more = [
                (above.iter().any(|table| !misses(&it.op, table).is_empty()), left),
                (!pes.iter().all(|pe| it.reaches(*pe)), Cause::LocalOnly),
                (again, if combined { Cause::NotCompleted } else { Cause::NotOrdered }),
                (!it.completed, Cause::NotCompleted),
            ];
            let mut all = misses(&it.op, e);
            all.extend(more.iter().filter(|(applies, _)| *applies).map(|(_, cause)| *cause));
            causes.extend(if all.is_empty() { vec![left] } else { all });
        }
        // What was meant for something else says nothing, nor what a run's other members did.
        let other = |cause| matches!(cause, Cause::WrongRange | Cause::WrongAsid | Cause::GlobalSurvives);
        let first = causes.pop_first().unwrap_or(Cause::NoInvalidation);
        let alone = causes.is_empty() && !other(first) && e.run().len() == 1;
        (!half && (alone || first == Cause::NoInvalidation)).then_some(first)
    }
}
