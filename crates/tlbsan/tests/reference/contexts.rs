//! Registers that take effect, resets, and accesses: what a PE translates through, and whether it may.

use super::*;

/// Whether a root is one of EL1&0's stage 1 (0), or of EL2's regimes (1).
fn belongs(root: &Entry) -> Option<usize> {
    (!root.root.space.is_stage2()).then_some(usize::from(matches!(root.root.space, Space::El2 | Space::El20)))
}

impl Reference {
    /// What was written to registers is in effect.
    pub(super) fn synchronised(&mut self, pe: usize) -> Vec<Seen> {
        let it = &mut self.pes[pe];
        let old = roots(&it.effective);
        (it.effective, it.settled) = (it.written, BTreeSet::new());
        let new = roots(&it.effective);
        let loaded: Vec<&Entry> = new.iter().filter(|root| !old.contains(root)).collect();
        // Whether the MMU goes on over what a reset has left; that of stage 2 nobody judges.
        let unknown = |root: &&&Entry| belongs(root).is_some_and(|which| it.unknown[which].take().is_some());
        let after_reset = loaded.iter().find(unknown).map(|root| Seen::new(Kind::Asid, root, [pe].into(), None));
        self.settle();
        let seen = after_reset.into_iter().chain(self.changed_attributes(pe, &new));
        seen.chain(loaded.iter().flat_map(|root| self.clashes(pe, root))).collect()
    }

    /// An invalidation of everything is complete.
    pub(super) fn all_invalidated(&mut self, it: &Executed) {
        let which = match it.op.target {
            Target::AllStages | Target::AllVmids => 0,
            Target::All => usize::from(it.op.regime != Regime::El10 || it.registers.is_host()),
            _ => return,
        };
        for (_, pe) in self.pes.iter_mut().enumerate().filter(|(pe, _)| it.reaches(*pe)) {
            pe.unknown[which].take_if(|since| *since < it.at);
            // Unless entries were made since.
            let on = roots(&pe.effective).iter().any(|root| belongs(root) == Some(which));
            pe.mair[which].take_if(|_| !on);
        }
    }

    /// A PE must not hold entries of other tables under an ASID or VMID that it loads; nor may those with which it shares entries
    /// (CnP): none that is stale, and none that the new root does not say as well.
    fn clashes(&mut self, pe: usize, new: &Entry) -> Vec<Seen> {
        let same = |it: &Entry| (it.root.space, it.root.half, it.asid) == (new.root.space, new.root.half, new.asid);
        let shares = |it: &Pe| new.shared && roots(&it.effective).iter().any(|it| it.shared && same(it));
        let earlier = |e: &Entry| same(e) && e.root != new.root && !e.combined && !self.children(new).is_empty();
        let differs = |e: &Entry| self.meaning(e).says != self.walk(new.root, e.va, e.level).says;
        let clash = |e: &&Entry| earlier(e) && (self.stale.contains_key(e) || e.level == new.level + 1 && differs(e));
        let mut all: BTreeMap<Entry, Pes> = BTreeMap::new();
        for (other, it) in self.pes.iter().enumerate().filter(|(other, it)| *other == pe || shares(it)) {
            for e in it.cached.keys().filter(clash) {
                all.entry(*e).or_default().insert(other);
            }
        }
        self.told.extend(all.keys().map(Entry::residue));
        all.into_iter().map(|(e, pes)| Seen::new(Kind::Asid, &e, pes, None)).collect()
    }

    /// MAIR: a field of it may be cached with the translations that use it. The first half in which one has changed that something
    /// there uses.
    fn changed_attributes(&mut self, pe: usize, roots: &[Entry]) -> Option<Seen> {
        let it = &mut self.pes[pe];
        let before = it.mair;
        let changes = |root: &&Entry| {
            let Some(which) = belongs(root) else { return false };
            let now = (it.effective.get([Sysreg::MairEl1, Sysreg::MairEl2][which]), root.root.space);
            it.mair[which] = Some(now);
            let changed = before[which].filter(|old| old.1 == now.1).map_or(0, |old| old.0 ^ now.0);
            let used = |leaf: Leaf| changed >> (8 * leaf.attr_index) & 0xff != 0;
            let holds = |e: &Entry| e.root == root.root && !self.stale.contains_key(e) && e.leaf().is_some_and(used);
            it.cached.keys().any(holds)
        };
        let seen = |root| Seen::new(Kind::LiveChange, root, [pe].into(), Some(Cause::NotBrokenFirst));
        roots.iter().filter(changes).collect::<Vec<_>>().first().map(|root| seen(root))
    }

    /// `pe` has accessed `va` at exception level `el`, and got to `pa`. Under stage 2 with the MMU of EL1&0 off.
    pub(super) fn accessed(&mut self, pe: usize, va: u64, pa: u64, el: u8) -> Option<Seen> {
        let root_of = |registers: &Registers| {
            let guest = if registers.has_stage2() { Space::Stage2(registers.vmid()) } else { registers.el10() };
            let space = if el < 2 && !registers.is_host() { guest } else { registers.el2() };
            roots(registers).into_iter().find(|it| it.root.space == space && it.root.offset(va).is_some())
        };
        let leads = |e: &Entry| e.leaf().filter(|_| va.wrapping_sub(e.va) < e.size()).map(|it| it.output + (va - e.va));
        let it = &self.pes[pe];
        let (root, written) = (root_of(&it.effective)?.aged(), root_of(&it.written));
        let tables = leads(&self.walk(root.root, va, 3));
        // R6: what the PE's own invalidation removed may be in use until it synchronises, if that leads elsewhere.
        let asids = [None, root.asid, written.and_then(|it| it.asid)];
        let here = |e: &Entry| e.root.space == root.root.space && asids.contains(&e.asid);
        let elsewhere = |e: &&Entry| here(e) && leads(e).is_some_and(|pa| tables != Some(pa));
        if let Some(gone) = it.settled.iter().filter(elsewhere).max_by_key(|e| e.level).copied() {
            self.pes[pe].settled.retain(|e| e.slot != gone.slot);
            return Some(Seen::new(Kind::StaleAccess, &gone, [pe].into(), Some(Cause::NotSynchronised)));
        }
        // Registers that are written and not yet in effect may be used as well; where they lead, if anywhere, nobody says.
        let is_right =
            tables == Some(pa) || written.is_none_or(|it| leads(&self.walk(it.aged().root, va, 3)) == Some(pa));
        // R7: so is what may be cached still.
        if is_right || it.cached.keys().any(|e| here(e) && self.stale.contains_key(e) && leads(e) == Some(pa)) {
            return None;
        }
        let page = Entry { level: 3, va: va & !(root.root.geometry.page() - 1), ..root };
        Some(Seen::new(Kind::StaleAccess, &page, [pe].into(), Some(Cause::NoInvalidation)))
    }
}
