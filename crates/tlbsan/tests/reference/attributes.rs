//! MAIR: a field of it may be cached with the translations that use it.

use super::decode::Desc;
use super::identifiers::belongs;
use super::{Entry, Reference, Seen};
use tlbsan::{Cause, Kind, Sysreg};

impl Reference {
    /// `pe` has been synchronised: the halves in which an attribute has changed that something there uses.
    pub(super) fn changed_attributes(&mut self, pe: usize) -> Vec<Seen> {
        let mut all = Vec::new();
        for (which, register) in [Sysreg::MairEl1, Sysreg::MairEl2].into_iter().enumerate() {
            let roots = self.pes[pe].effective.roots(self.granule);
            let roots: Vec<Entry> = roots.into_iter().filter(|root| belongs(root) == Some(which)).collect();
            let Some(space) = roots.first().map(|root| root.root.space) else { continue };
            let value = self.pes[pe].effective.field(register, 0, 64);
            let before = self.pes[pe].mair[which].replace((space, value)).filter(|(other, _)| *other == space);
            let Some((_, before)) = before else { continue };
            let byte = |of: u64, attribute: u64| of >> (8 * attribute) & 0xff;
            let changed = (0..8).filter(|attribute| byte(before, *attribute) != byte(value, *attribute));
            let used = |attribute| roots.iter().find(|root| self.uses(root, attribute));
            all.extend(changed.filter_map(used).next().map(|root| {
                let (size, cause) = (1 << root.root.format.bits, Some(Cause::NotBrokenFirst));
                let (kind, level, pes) = (Kind::LiveChange, root.level + 1, [pe].into());
                Seen { kind, start: root.va, size, level, pes, cause }
            }));
        }
        all
    }

    /// Whether a leaf below a table entry uses an attribute.
    fn uses(&self, above: &Entry, attribute: u64) -> bool {
        let (Some(table), level, format) = (above.next(), above.level + 1, &above.root.format) else { return false };
        self.memory.range(table..table + format.table(level)).any(|(_, value)| {
            match Desc::decode(*value, level, format) {
                Desc::Leaf { attributes, cacheable, .. } => cacheable && attributes >> 2 & 7 == attribute,
                desc => self.uses(&Entry { level, desc, ..*above }, attribute),
            }
        })
    }
}
