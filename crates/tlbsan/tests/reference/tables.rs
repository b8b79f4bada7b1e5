//! What the tables in memory say, how that differs from what an entry says, and what such a change asks for.

use super::*;

/// What a change asks for; of several, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Nothing: both say the same, or the new one permits more.
    None,
    /// An invalidation: the span translates to nothing any more, or less is permitted.
    Owed,
    /// Break-before-make.
    Break,
}

/// What may not change in place, whatever the size.
fn fixed(leaf: &Leaf) -> impl PartialEq {
    (leaf.attr_index, leaf.shareability, leaf.ns)
}

/// Whether `old` permits something that `new` does not.
fn permits_more(old: &Leaf, new: &Leaf) -> bool {
    let all = |it: &Leaf| [it.writable, it.el0, !it.pxn, !it.uxn, !it.gp];
    all(old).iter().zip(all(new)).any(|(old, new)| *old && !new)
}

impl Reference {
    /// What `bits` at `slot` say, in a table that `above` leads to.
    pub(super) fn child(&self, above: &Entry, slot: u64, bits: u64) -> Entry {
        let (level, geometry) = (above.level + 1, &above.root.geometry);
        let says = Descriptor::decode(bits, level, geometry).under(above.says.forbids());
        let va = above.va + (slot - above.target().0) / 8 * geometry.size(level);
        let asid = above.asid.filter(|_| !says.is_global());
        Entry { level, va, slot, says, asid, shared: false, ..*above }
    }

    /// What is there to be fetched from a table that `above` leads to.
    pub(super) fn children(&self, above: &Entry) -> Vec<Entry> {
        let (table, size) = if above.says.next().is_some() { above.target() } else { (0, 0) };
        let values = self.memory.range(table..table + size);
        values.map(|(slot, (bits, _))| self.child(above, *slot, *bits)).filter(|e| e.says.is_cacheable()).collect()
    }

    /// What stands in the tables for `va`, at `level` or above it.
    pub(super) fn walk(&self, root: Root, va: u64, level: i8) -> Entry {
        let mut at = Entry::top(root);
        while at.says.next().is_some() && at.level < level {
            let slot = at.target().0 + (va - at.va) / root.geometry.size(at.level + 1) * 8;
            at = self.child(&at, slot, self.memory.get(&slot).map_or(0, |it| it.0));
        }
        at
    }

    /// What the tables say of the span of `e`.
    pub(super) fn meaning(&self, e: &Entry) -> Entry {
        self.walk(e.root, e.va, e.level)
    }

    /// How the tables' meaning differs from what `e` says.
    pub(super) fn difference(&self, e: &Entry) -> Change {
        let found = self.meaning(e);
        // FEAT_BBM: blocks whose size may change without a break.
        let resizes = |block: &Entry| block.leaf().is_some_and(|it| self.bbm >= 2 || self.bbm == 1 && it.nt);
        let below = found.level < e.level;
        match (e.says.next(), found.says.next()) {
            (None, Some(_)) if resizes(e) => self.resized(e, &found),
            // What is reached through the table has entries of its own.
            (Some(_), None) if below && resizes(&found) => Change::Owed,
            (_, None) if (below || e.leaf().is_none()) && resizes(&found) => self.resized(&found, e).max(Change::Owed),
            _ if below && found.says.is_cacheable() => Change::Break,
            _ => self.compare(e, &found),
        }
    }

    /// What it asks for to have `part` beside `block`, of which it translates a part.
    fn resized(&self, block: &Entry, part: &Entry) -> Change {
        let alike = |a: &Leaf, b: &Leaf| {
            let moved = a.output.wrapping_sub(block.va) != b.output.wrapping_sub(part.va);
            !moved && fixed(a) == fixed(b) && a.non_global == b.non_global
        };
        match (block.leaf(), part.leaf()) {
            (Some(a), Some(b)) if !alike(&a, &b) => Change::Break,
            (Some(a), Some(b)) if self.bbm >= 3 && !permits_more(&a, &b) => Change::None,
            _ => {
                let (children, all) = (self.children(part), part.root.geometry.entries(part.level + 1));
                let least =
                    if part.says.next().is_some() && children.len() == all { Change::None } else { Change::Owed };
                children.iter().map(|it| self.resized(block, it)).fold(least, Change::max)
            }
        }
    }

    /// How `new`, at its level, differs from what `e` says.
    pub(super) fn compare(&self, e: &Entry, new: &Entry) -> Change {
        let (breaks, owed) = match (&e.says, &new.says) {
            (_, Descriptor::Nothing) | (Descriptor::Nothing, _) => (false, true),
            (Descriptor::Table(a), Descriptor::Table(b)) => (a.next != b.next, b.hierarchical & !a.hierarchical != 0),
            (Descriptor::Leaf(a), Descriptor::Leaf(b)) => {
                let moved = a.output != b.output;
                let tellable = || a.writable || b.writable || !self.same_contents(a.output, b.output, e.size());
                let overlaps = a.non_global && !b.non_global;
                // The contiguous bit is a size.
                let resized = |free| a.contiguous != b.contiguous && self.bbm < free;
                let forbids = permits_more(a, b) || b.nt && !a.nt || a.non_global != b.non_global;
                (fixed(a) != fixed(b) || overlaps || resized(2) || moved && tellable(), moved || resized(3) || forbids)
            }
            _ => (true, true),
        };
        let least = if owed { Change::Owed } else { Change::None };
        if breaks { Change::Break } else { least }
    }

    /// Whether the tables do not say the same any more, in a way that a TLB may hold.
    pub(super) fn is_gone(&self, e: &Entry) -> bool {
        self.difference(e) != Change::None
    }

    fn same_contents(&self, a: u64, b: u64, size: u64) -> bool {
        let words = |start: u64| self.memory.range(start..start + size).filter(|(_, (value, _))| *value != 0);
        words(a).map(|(pa, (value, _))| (pa - a, value)).eq(words(b).map(|(pa, (value, _))| (pa - b, value)))
    }

    /// Whether walkers may read a slot. What is stored elsewhere goes with the store that makes it part of a table, and that of
    /// tables which nobody can reach any more counts no more.
    pub(super) fn is_table(&self, slot: u64) -> bool {
        let held = self.held().into_iter().filter(|e| e.says.next().is_some()).map(|e| e.target());
        self.linked().into_iter().chain(held).any(|table| overlap(table, (slot, 8)))
    }

    /// Tables that are linked, and their bytes: reached from a root that is loaded, or of which something is still held.
    pub(super) fn linked(&self) -> BTreeSet<(u64, u64)> {
        let tops = self.held().into_iter().chain(self.pes.iter().flat_map(|pe| roots(&pe.effective)));
        let (mut linked, mut all) = (BTreeSet::new(), tops.map(|e| Entry::top(e.root)).collect::<BTreeSet<_>>());
        while let Some(above) = all.pop_first() {
            linked.extend(above.says.next().map(|_| above.target()));
            all.extend(self.children(&above));
        }
        linked
    }
}
