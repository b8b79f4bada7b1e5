//! Accesses by virtual address: is the physical address one that may be? Not under stage 2.

use super::decode::Desc;
use super::registers::{Registers, Space};
use super::{Entry, Reference, Seen};
use tlbi::Regime;
use tlbsan::{Cause, Kind};

/// Where a leaf leads an address to.
fn leads(e: &Entry, va: u64) -> Option<u64> {
    match e.desc {
        Desc::Leaf { output, .. } if e.covers(va) => Some(output + (va - e.va)),
        _ => None,
    }
}

impl Reference {
    /// `pe` has accessed `va` at exception level `el`, and got to `pa`.
    pub(super) fn accessed(&mut self, pe: usize, va: u64, pa: u64, el: u8) -> Option<Seen> {
        let regime = if el < 2 { Regime::El10 } else { Regime::El2 };
        let it = &self.pes[pe];
        let space = it.effective.space(regime);
        let root = self.root_of(&it.effective, space, va)?;
        let tables = self.walk(&root, va);
        // R6: what the PE's own invalidation removed may be in use until it synchronises, if that leads elsewhere.
        let elsewhere = |e: &&Entry| leads(e, va).is_some_and(|pa| tables != Some(pa)) && e.root.space == space;
        if let Some(gone) = it.settled.iter().find(elsewhere).copied() {
            self.pes[pe].settled.retain(|e| e.slot != gone.slot);
            let cause = Some(Cause::NotSynchronised);
            let Entry { va: start, level, .. } = gone;
            let (kind, size, pes) = (Kind::StaleAccess, gone.size(), [pe].into());
            return Some(Seen { kind, start, size, level, pes, cause });
        }
        // Registers that are written and not yet in effect may be used as well; where they lead, if anywhere, nobody says.
        let by_written = self.root_of(&it.written, it.written.space(regime), va).map(|root| self.walk(&root, va));
        let is_right = tables == Some(pa) || by_written.is_none_or(|found| found == Some(pa));
        // R7: so is what may be cached still.
        let mut stale = it.cached.keys().filter(|e| e.root.space == space && self.stale.contains_key(e));
        if is_right || stale.any(|e| leads(e, va) == Some(pa)) {
            return None;
        }
        let page = 1 << self.granule;
        let (start, cause) = (va / page * page, Some(Cause::NoInvalidation));
        Some(Seen { kind: Kind::StaleAccess, start, size: page, level: 3, pes: [pe].into(), cause })
    }

    fn root_of(&self, registers: &Registers, space: Space, va: u64) -> Option<Entry> {
        registers.roots(self.granule).into_iter().find(|root| root.root.space == space && root.covers(va))
    }

    /// What the tables in memory say, access flag or not.
    fn walk(&self, root: &Entry, va: u64) -> Option<u64> {
        let (mut at, format) = (*root, root.root.format);
        while let Some(table) = at.next() {
            let level = at.level + 1;
            let first = if level == format.root_level() { root.va } else { at.va };
            let index = (va - first) / format.span(level);
            let desc = Desc::decode(self.value(table + 8 * index), level, &format);
            at = Entry { level, va: first + index * format.span(level), desc, ..at };
        }
        leads(&at, va)
    }
}
