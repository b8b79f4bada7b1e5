//! What walkers may fetch, and so may be held.

use super::decode::Desc;
use super::{Entry, Pe, Reference, Time, Unseen};
use std::collections::BTreeSet;
use tlbi::barrier::Domain;

impl Reference {
    /// Every walker fetches all it can reach: from its roots, and from the table entries it holds.
    ///
    /// What they may not have seen yet is what no DSB has published as far as `domain`.
    pub(super) fn fetch(&mut self, domain: Domain) {
        for pe in 0..self.pes.len() {
            let roots = self.pes[pe].effective.roots(self.granule);
            loop {
                let mut found = Vec::new();
                for root in &roots {
                    found.extend(self.read_table(pe, root, root.asid, self.now, domain));
                }
                for (&e, &time) in &self.pes[pe].cached {
                    let Some(root) = walked(&roots, &e) else { continue };
                    found.extend(self.read_table(pe, &e, root.asid, time, domain));
                    if e.root.format.stage2 && e.next().is_none() && !e.combined {
                        found.push((Entry { combined: true, ..e }, time));
                    }
                }
                let before = self.pes[pe].cached.clone();
                found.into_iter().for_each(|(e, time)| self.pes[pe].caches(e, time));
                if self.pes[pe].cached == before {
                    break;
                }
            }
        }
    }

    /// What each PE holds and has seen in the tables when it was removed by a store that it may not have seen yet. R4 asks for the
    /// order of that store, whatever leads to its slot by now.
    pub(super) fn unordered(&mut self, domain: Domain) -> BTreeSet<(usize, Entry)> {
        if self.unseen.is_empty() {
            return BTreeSet::new();
        }
        // A broadcast TLBI wants a DSB that reaches as far; a local one has ordered nothing for it.
        let before = self.pes.clone();
        self.fetch(domain);
        let mut all = BTreeSet::new();
        for (pe, it) in self.pes.iter().enumerate() {
            all.extend(it.cached.iter().filter(|(_, time)| **time == self.now).map(|(e, _)| (pe, *e)));
        }
        self.pes = before;
        let removed_by = |pe, e: &Entry, store: &Unseen| {
            let says_it = Desc::decode(self.value(e.slot), e.level, &e.root.format) == e.desc;
            !says_it && store.removed.contains(e) && store.is_hidden(pe, domain)
        };
        let of = |(pe, it): (usize, &Pe)| {
            let held = it.cached.keys().filter(|e| !e.combined);
            let removed = held.filter(|e| self.unseen.iter().any(|store| removed_by(pe, e, store)));
            removed.map(|e| (pe, *e)).collect::<Vec<_>>()
        };
        all.extend(self.pes.iter().enumerate().flat_map(of));
        all
    }

    /// What the walker of `pe` may fetch through a table entry, no younger than `time`.
    fn read_table(
        &self,
        pe: usize,
        above: &Entry,
        asid: Option<u16>,
        time: Time,
        domain: Domain,
    ) -> Vec<(Entry, Time)> {
        let (Some(table), level, mut found) = (above.next(), above.level + 1, Vec::new()) else { return Vec::new() };
        let format = &above.root.format;
        let slots = table..table + format.table(level);
        let values = self.memory.range(slots.clone()).map(|(slot, value)| (*slot, *value, true));
        let visible = self.unseen.iter().filter(|u| slots.contains(&u.slot) && u.is_hidden(pe, domain));
        for (slot, value, current) in values.chain(visible.map(|u| (u.slot, u.old, false))) {
            let desc = Desc::decode(value, level, format);
            if !desc.is_cacheable() {
                continue;
            }
            let asid = asid.filter(|_| !desc.is_global());
            let own = (slot - table) / 8;
            for (index, desc) in desc.run(own, level, format) {
                let va = above.va.wrapping_add(index * format.span(level));
                let e = Entry {
                    va,
                    slot: table + 8 * index,
                    desc,
                    level,
                    asid,
                    combined: false,
                    shared: false,
                    root: above.root,
                };
                // An old value is fetched again by those that hold it, but not by a walker that comes anew; and so is what another
                // member of its run says of a slot: a run may be written entry by entry.
                let anew = current && index == own;
                if anew || (current || index == own) && self.pes[pe].cached.contains_key(&e) {
                    found.push((e, time));
                }
            }
        }
        found
    }
}

/// The root through which `e` is walked, if it is.
fn walked<'a>(roots: &'a [Entry], e: &Entry) -> Option<&'a Entry> {
    roots.iter().find(|it| it.root == e.root && it.covers(e.va) && (e.asid.is_none() || e.asid == it.asid))
}
