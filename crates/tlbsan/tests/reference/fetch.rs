//! What walkers may fetch, and so may be held.

use super::*;

/// Whether who has loaded these roots walks through an entry: through nothing that belongs to another root.
fn walks(tops: &[Entry], e: &Entry) -> bool {
    tops.iter().any(|top| top.root == e.root && (e.asid.is_none() || e.asid == top.asid))
}

impl Reference {
    /// Every walker fetches all it can reach: from its roots, and from the table entries it holds.
    ///
    /// What they may not have seen yet is what no DSB has published as far as `domain`; what they held before is `known`.
    pub(super) fn fetch(&mut self, domain: Domain, known: &[Pe]) {
        for (pe, known) in known.iter().enumerate() {
            let tops = roots(&self.pes[pe].effective);
            let held = self.pes[pe].cached.iter().map(|(e, time)| (*e, *time));
            let mut all: Vec<(Entry, Time)> = held.chain(tops.iter().map(|top| (*top, self.now))).collect();
            while let Some((above, time)) = all.pop() {
                let found = walks(&tops, &above).then(|| self.read_table(pe, &above, domain, known));
                let cached = &mut self.pes[pe].cached;
                for e in found.into_iter().flatten() {
                    if cached.get(&e) < Some(&time) {
                        cached.insert(e, time);
                        all.push((e, time));
                    }
                }
            }
        }
    }

    /// What the walker of `pe` may fetch through a table entry.
    fn read_table(&self, pe: usize, above: &Entry, domain: Domain, known: &Pe) -> Vec<Entry> {
        let holds = |e: &Entry| known.cached.contains_key(e);
        let mut found = self.children(above);
        // What another member of its run says of a slot is fetched again by those that hold it, but not by a walker that comes anew:
        // a run may be written entry by entry.
        found.extend(self.children(above).iter().flat_map(Entry::run).filter(holds));
        // And so is an old value.
        let inside = |it: &Unseen| above.says.next().is_some() && overlap((it.slot, 8), above.target());
        let hidden = self.unseen.iter().filter(|it| inside(it) && self.is_hidden(it, pe, domain));
        found.extend(hidden.map(|it| self.child(above, it.slot, it.old)).filter(holds));
        let combined = above.root.space.is_stage2() && above.leaf().is_some();
        found.extend(combined.then_some(Entry { combined, ..*above }));
        found
    }

    /// Whether the walker of `pe` may miss a store; or, for an operation that reaches further than its PE, that of any PE there.
    ///
    /// It does not if, after it or a later one to the same slot, a DSB reaches that far: by one who knew of the store; or by one whose
    /// later TLBI shows that the store was handed over to it, though not to the PE that stored.
    fn is_hidden(&self, store: &Unseen, pe: usize, domain: Domain) -> bool {
        !self.unseen.iter().filter(|it| it.slot == store.slot && it.at >= store.at).any(|store| {
            self.dsbs.iter().any(|&(at, by, reach)| {
                let own = domain == Domain::NonShareable && by == pe;
                let knows = store.knowers.get(&by).is_some_and(|since| *since < at);
                let later_tlbi = || self.executed.iter().any(|it| it.pe == by && it.at > at);
                let publishes = knows || self.issuing != Some(store.pe) && later_tlbi();
                at > store.at && (own || reach >= domain.max(Domain::InnerShareable)) && publishes
            })
        })
    }

    /// `pe` has read these slots, or stored there once more: it knows of all stores to them.
    pub(super) fn seen(&mut self, pe: usize, slots: std::ops::Range<u64>) {
        let seen = self.unseen.iter_mut().filter(|it| slots.contains(&it.slot));
        seen.for_each(|it| _ = it.knowers.entry(pe).or_insert(self.now));
    }

    /// A TLBI: what comes back at once, where it is performed now. For a broadcast one only a DSB that reaches as far has published
    /// a store; for a local one the PE's own DSB is enough, however far that reaches.
    pub(super) fn tlbi(&mut self, pe: usize, op: Op) {
        let (at, registers, domain) = (self.now, self.pes[pe].effective, op.scope.domain());
        let it = Executed { at, pe, op, registers, stays: BTreeMap::new(), completed: false };
        self.executed.push(it.clone());
        self.issuing = Some(pe);
        let before = self.pes.clone();
        for (pe, known) in before.iter().enumerate() {
            let tops = roots(&known.effective);
            // R4 asks for the order of the store that removed an entry, whatever leads there by now. What was stored where a stale table
            // entry leads is gone with that.
            let hidden: Vec<&Unseen> = self.unseen.iter().filter(|it| self.is_hidden(it, pe, domain)).collect();
            let was = |e: &Entry, old| Descriptor::decode(old, e.level, &e.root.geometry).is_cacheable();
            let removed = |e: &Entry, it: &Unseen| it.slot != e.slot || was(e, it.old);
            let hides = |(e, since): (&Entry, &Time)| hidden.iter().any(|it| it.at == *since && removed(e, it));
            let stays = |e: &Entry| walks(&tops, e) && self.stale.get_key_value(e).is_some_and(hides);
            let after = known.cached.iter().filter(|(e, _)| !it.removes(e) || stays(e));
            self.pes[pe].cached = after.map(|(e, time)| (*e, if stays(e) { at } else { *time })).collect();
        }
        self.fetch(domain, &before);
        self.issuing = None;
        let after = std::mem::replace(&mut self.pes, before);
        let again = |(pe, it): (usize, Pe)| it.cached.into_iter().map(move |(e, time)| ((pe, e), time));
        let stays = after.into_iter().enumerate().flat_map(again).collect();
        self.executed.last_mut().expect("the one just pushed").stays = stays;
    }
}
