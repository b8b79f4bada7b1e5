//! What walkers may fetch, and so may be held.

use super::*;

impl Reference {
    /// Every walker fetches all it can reach: from its roots, and from the table entries it holds.
    ///
    /// What they may not have seen yet is what no DSB has published as far as `domain`.
    pub(super) fn fetch(&mut self, domain: Domain) {
        for pe in 0..self.pes.len() {
            let tops = roots(&self.pes[pe].effective);
            let held = self.pes[pe].cached.iter().map(|(e, time)| (*e, *time));
            let mut all: Vec<(Entry, Time)> = held.chain(tops.iter().map(|top| (*top, self.now))).collect();
            while let Some((above, time)) = all.pop() {
                // What belongs to a root that is not loaded is not walked through.
                let walked = |top: &Entry| top.root == above.root && (above.asid.is_none() || above.asid == top.asid);
                let found = if tops.iter().any(walked) { self.read_table(pe, &above, domain) } else { Vec::new() };
                let cached = &mut self.pes[pe].cached;
                for e in found {
                    if cached.get(&e) < Some(&time) {
                        cached.insert(e, time);
                        all.push((e, time));
                    }
                }
            }
        }
    }

    /// What the walker of `pe` may fetch through a table entry.
    fn read_table(&self, pe: usize, above: &Entry, domain: Domain) -> Vec<Entry> {
        let holds = |e: &Entry| self.pes[pe].cached.contains_key(e);
        let mut found = self.children(above);
        // What another member of its run says of a slot is fetched again by those that hold it, but not by a walker that comes anew:
        // a run may be written entry by entry.
        found.extend(self.children(above).iter().flat_map(Entry::run).filter(holds));
        // And so is an old value.
        let inside = |it: &Unseen| above.next().is_some() && overlap((it.slot, 8), above.target());
        let hidden = self.unseen.iter().filter(|it| inside(it) && self.is_hidden(it, pe, domain));
        found.extend(hidden.map(|it| self.child(above, it.slot, it.old)).filter(holds));
        let combined = above.root.space.is_stage2() && above.leaf().is_some();
        found.extend(combined.then_some(Entry { combined, ..*above }));
        found
    }

    /// Whether the walker of `pe` may miss a store; or, for an operation that reaches further than its PE, that of any PE there.
    ///
    /// It does not if a DSB reaches that far which came later, by one who knew of the store; or by one whose later TLBI shows that
    /// the store was handed over to it. What goes for a store goes for every earlier one to its slot.
    fn is_hidden(&self, store: &Unseen, pe: usize, domain: Domain) -> bool {
        let publishes = |store: &Unseen, (at, by, reach): (Time, usize, Domain)| {
            let own = domain == Domain::NonShareable && by == pe;
            let knows = store.knowers.get(&by).is_some_and(|since| *since < at);
            let handed_over = || self.executed.iter().rev().any(|it| it.pe == by && it.at > at);
            at > store.at && (own || reach >= domain.max(Domain::InnerShareable)) && (knows || handed_over())
        };
        let mut later = self.unseen.iter().filter(|it| it.slot == store.slot && it.at >= store.at);
        !later.any(|it| self.dsbs.iter().rev().any(|dsb| publishes(it, *dsb)))
    }

    /// A TLBI: what PEs may hold once it is complete, for want of order or because it leaves what makes that.
    pub(super) fn tlbi(&mut self, pe: usize, op: Op) {
        let (at, registers, domain) = (self.now, self.pes[pe].effective, op.scope.domain());
        self.executed.push(Executed { at, pe, op, registers, stays: BTreeSet::new(), completed: false });
        // What each PE could fetch now: a broadcast TLBI wants a DSB that reaches as far; a local one has ordered nothing for it.
        let before = self.pes.clone();
        self.fetch(domain);
        let after = std::mem::replace(&mut self.pes, before);
        let executed = self.executed.last().expect("the one just pushed");
        let mut stays = BTreeSet::new();
        for (pe, (it, after)) in self.pes.iter().zip(&after).enumerate() {
            let again = after.cached.iter().filter(|(_, time)| **time == at).map(|(e, _)| e);
            // What it has seen in the tables when it was removed by a store that it may not have seen yet. R4 asks for the order of
            // that store, whatever leads to its slot by now.
            let says_it = |e: &Entry| Descriptor::decode(self.value(e.slot), e.level, &e.root.geometry) == e.says;
            let hidden = |e: &Entry, it: &Unseen| it.removed.contains(e) && self.is_hidden(it, pe, domain);
            let removed = |e: &Entry| self.unseen.iter().any(|it| hidden(e, it)) && !says_it(e);
            // What the entry of stage 2 that it was made with makes again, if that stays.
            let made = |e: &Entry| !executed.removes(&e.half()) && it.cached.contains_key(&e.half());
            let left = it.cached.keys().filter(|e| if e.combined { made(e) } else { removed(e) });
            stays.extend(again.chain(left).map(|e| (pe, *e)));
        }
        self.executed.last_mut().expect("the same").stays = stays;
    }
}
