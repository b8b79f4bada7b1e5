//! ASIDs and VMIDs: at a context synchronisation a PE must not hold entries of other tables under one that it loads.

use super::decode::Desc;
use super::{Entry, Reference, Seen};
use tlbsan::Kind;

impl Reference {
    /// `pe` translates through `new` roots; before it was through `old` ones.
    pub(super) fn clashes(&self, pe: usize, old: &[Entry], new: &[Entry]) -> Vec<Seen> {
        let loaded = new.iter().filter(|root| !old.contains(root) && self.says_something(root));
        let mut all: Vec<Seen> = loaded.flat_map(|root| self.clashes_with(pe, root)).collect();
        all.sort();
        all.dedup();
        all
    }

    fn says_something(&self, root: &Entry) -> bool {
        self.memory.range(root.root.table..root.root.table + root.target().1).any(|(_, value)| value & 1 == 1)
    }

    /// Of each earlier root the first slot that the new one does not say as well; or, if there is none, all that is stale.
    fn clashes_with(&self, pe: usize, new: &Entry) -> Vec<Seen> {
        let earlier = |e: &&Entry| {
            let half = e.root.space == new.root.space && e.va >> 63 == new.va >> 63;
            half && e.root != new.root && e.asid == new.asid && !e.combined
        };
        let held: Vec<Entry> = self.pes[pe].cached.keys().filter(earlier).copied().collect();
        let differs = |e: &&Entry| {
            let slot = new.root.table + (e.slot - e.root.table);
            let [here, there] = [e.slot, slot].map(|slot| Desc::decode(self.value(slot), e.level, &new.root.format));
            // With other attributes a table is still the same.
            let stands = here == e.desc || here.next().is_some() && here.next() == e.next();
            e.level == new.level + 1 && stands && here != there
        };
        let mut first: Vec<Entry> = held.iter().filter(differs).copied().collect();
        first.sort_by_key(|e| (e.root, e.va));
        first.dedup_by_key(|e| e.root);
        let seen = |e: &Entry| {
            let (kind, size, pes) = (Kind::Asid, e.size(), [pe].into());
            Seen { kind, start: e.va, size, level: e.level, pes, cause: None }
        };
        let told = |e: &&Entry| first.iter().any(|it| it.root == e.root);
        let stale = held.iter().filter(|e| self.stale.contains_key(e) && !told(e));
        stale.chain(&first).map(seen).collect()
    }
}
