//! Accesses by virtual address: is the physical address the one that the tables give (rule stale-access)?
//!
//! Several answers are right: what memory says now, what the shadow says (a store that is not reported yet has not happened
//! for the model), both through the registers in effect and through those written and not yet synchronised; and whatever
//! an open residue explains.

use super::{Model, Now};
use crate::descriptor::Descriptor;
use crate::event::{AccessKind, World};
use crate::geometry::Space;
use crate::machine::{EL2, EL10, Loaded, PLACES, Registers, STAGE2};
use crate::report::{self, Accessed, Severity, Violation};
use crate::residue::Settled;
use crate::rules::stale_access::{gives, not_synchronised, severity};
use crate::walk::{Walk, walk};
use tlbsan_hint::{Cause, Kind};

/// A translation that a verdict was given about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condemned {
    space: Space,
    start: u64,
    size: u64,
    entry: Descriptor,
}

/// Condemned translations that are remembered.
const MAX_CONDEMNED: usize = 256;

impl Condemned {
    pub(super) fn new(space: Space, start: u64, size: u64, entry: Descriptor) -> Self {
        Self { space, start, size, entry }
    }
}

impl Model {
    pub(super) fn condemn(&mut self, condemned: Condemned) {
        if self.condemned.len() >= MAX_CONDEMNED {
            self.condemned.pop_front();
        }
        self.condemned.push_back(condemned);
    }

    /// Everything of these spaces is gone from every PE: what was said about it explains no access any more.
    pub(super) fn pardon(&mut self, spaces: &[Space]) {
        self.condemned.retain(|gone| !spaces.contains(&gone.space));
    }

    pub(super) fn accessed<W: World>(&mut self, now: &mut Now<'_, W>, va: u64, pa: u64, kind: AccessKind, el: u8) {
        let state = &self.pes[now.event.pe];
        let host = state.effective.is_host();
        let places = match el {
            0 if host => EL2,
            0 | 1 => EL10,
            2 => EL2,
            _ => return,
        };
        let stage2 = places == EL10 && state.effective.has_stage2();
        let stage1 = places.map(|place| state.loaded[place]);
        let loaded = match stage1.into_iter().flatten().find(|loaded| loaded.root.offset(va).is_some()) {
            Some(loaded) => loaded,
            // Stage 1 is off: the address is an intermediate one.
            None if stage1 == [None; 2] && stage2 => match state.loaded[STAGE2] {
                Some(loaded) if loaded.root.offset(va).is_some() => loaded,
                _ => return,
            },
            // MMU off: nothing is cached, and nothing to compare with.
            None => return,
        };
        self.summary.accesses += 1;
        // Two stages: what a leaf of the first gives is an intermediate address.
        let nested = stage2 && !loaded.root.space.is_stage2();
        if let Some((entry, tables)) = self.not_synchronised(now, &loaded, nested, va, kind) {
            let severity = severity(&entry.entry, loaded.root.space);
            return self.stale_access(now, &loaded, Accessed { va, used: pa, tables }, severity, Some(entry));
        }
        if !nested && self.by_shadow(&loaded, va) == Walk::Leaf(pa) {
            return;
        }
        let state = &self.pes[now.event.pe];
        // A source may use registers at once that are written and not in effect yet.
        let registers = [&state.effective, &state.written];
        let [in_effect, written] = registers.map(|registers| by_memory(now.world, registers, places, va));
        if [in_effect, written].iter().any(|walk| matches!(walk, Walk::Lost) || *walk == Walk::Leaf(pa)) {
            return;
        }
        if self.is_explained(now.event.pe, &loaded, nested, va, pa) {
            return;
        }
        self.summary.mismatched += 1;
        let access = Accessed { va, used: pa, tables: in_effect.output() };
        self.stale_access(now, &loaded, access, Severity::Error, None);
    }

    /// R6: what the PE's own invalidation removed there and, without a context synchronisation event since, this very access
    /// might have used all the same. Said once for each entry. Of two stages nobody knows where the old entry led.
    fn not_synchronised<W: World>(
        &mut self,
        now: &Now<'_, W>,
        loaded: &Loaded,
        nested: bool,
        va: u64,
        kind: AccessKind,
    ) -> Option<(Settled, Option<u64>)> {
        let pe = now.event.pe;
        let unsynchronised = self.residues.unsynchronised(pe);
        if unsynchronised.is_empty() || nested {
            return None;
        }
        let (fetch, ets2) = (kind == AccessKind::Fetch, self.pes[pe].features.ets2);
        let tables = self.by_shadow(loaded, va).output();
        let va = loaded.root.canonical(va)?;
        let asids = self.asids_in_use(pe, loaded);
        let here =
            |gone: &&Settled| gone.space == loaded.root.space && asids.iter().any(|asid| gone.tag.is_found(*asid));
        let own = unsynchronised.iter().filter(here);
        let settled = not_synchronised(own, fetch, ets2, va, tables).cloned()?;
        self.residues.forget_unsynchronised(pe, settled.slot);
        Some((settled, tables))
    }

    fn by_shadow(&self, loaded: &Loaded, va: u64) -> Walk {
        walk(&loaded.root, va, |table, index| self.shadow.table(table)?.entries.get(index).copied())
    }

    /// R7: whether a residue that the PE may still hold, or a verdict that was given, explains the address.
    fn is_explained(&self, pe: usize, loaded: &Loaded, nested: bool, va: u64, pa: u64) -> bool {
        let space = loaded.root.space;
        let Some(va) = loaded.root.canonical(va) else { return true };
        let asids = self.asids_in_use(pe, loaded);
        let open = self.residues.overlapping(space, va, 1).into_iter().any(|id| {
            self.residues.get(id).is_some_and(|residue| {
                // Whatever came of the intermediate address.
                let leads = gives(&residue.what.entry, residue.what.start, residue.size(), va, pa);
                let found = asids.iter().any(|asid| residue.may_be_found(pe, *asid));
                found && (leads || (nested && !residue.is_table()))
            })
        });
        if open {
            return true;
        }
        let vmid = self.pes[pe].effective.vmid();
        if nested && self.leads_through_stage2(Space::Stage2(vmid), pe, pa) {
            return true;
        }
        self.condemned.iter().any(|gone| {
            gone.space == space && gives(&gone.entry, gone.start, gone.size, va, pa)
                || nested && gone.space == Space::Stage2(vmid)
        })
    }

    /// The ASID that is in effect, and those that are written and that a source may use at once.
    fn asids_in_use(&self, pe: usize, loaded: &Loaded) -> Vec<u16> {
        let written = (0..PLACES).filter_map(|place| self.pes[pe].written.loaded(place).ok()?);
        written.filter(|it| it.root.space == loaded.root.space).map(|it| it.asid).chain([loaded.asid]).collect()
    }

    fn leads_through_stage2(&self, space: Space, pe: usize, pa: u64) -> bool {
        self.residues.leading_to(pa, 1).into_iter().any(|id| {
            self.residues.get(id).is_some_and(|residue| residue.what.space == space && residue.pes() >> pe & 1 != 0)
        })
    }

    fn stale_access<W: World>(
        &mut self,
        now: &mut Now<'_, W>,
        loaded: &Loaded,
        access: Accessed,
        severity: Severity,
        settled: Option<Settled>,
    ) {
        let pe = now.event.pe;
        let Accessed { va, used, tables } = access;
        let Some(canonical) = loaded.root.canonical(va) else { return };
        let site = now.site();
        let address = |pa: Option<u64>| report::Descriptor {
            bits: pa.unwrap_or(0),
            text: pa.map_or_else(|| "nothing".to_owned(), |pa| format!("address {}", crate::descriptor::grouped(pa))),
        };
        let page = loaded.root.geometry.page();
        let mut violation = Violation {
            kind: Kind::StaleAccess,
            severity,
            start: canonical & !(page - 1),
            size: page,
            asids: if loaded.root.space.has_asids() { vec![loaded.asid] } else { Vec::new() },
            pes: vec![pe],
            slot: loaded.root.table,
            old: address(Some(used)),
            new: address(tables),
            removed: (*site).clone(),
            accessed: Some(access),
            ..super::verdicts::blank(&site)
        };
        let mut entry = None;
        if let Some(gone) = settled {
            violation.cause = Cause::NotSynchronised;
            (violation.start, violation.size, violation.level) = (gone.start, gone.size, gone.level);
            violation.slot = gone.slot;
            violation.old = report::Descriptor { bits: gone.bits, text: gone.entry.to_string() };
            violation.removed = (*gone.removed).clone();
            entry = Some(gone.entry);
        }
        if let Some(context) = self.shadow.find(&loaded.root) {
            violation.ways.after = self.way_down(context, canonical, 3);
        }
        if severity == Severity::Error {
            // The next access to the same page tells nothing new.
            let leaf = entry.unwrap_or_else(|| whole_page(used & !(page - 1)));
            self.condemn(Condemned::new(loaded.root.space, violation.start, violation.size, leaf));
        }
        self.verdict(violation);
    }
}

/// A leaf that leads there.
fn whole_page(output: u64) -> Descriptor {
    Descriptor::Leaf(crate::descriptor::Leaf {
        output,
        attr_index: 0,
        shareability: 0,
        writable: true,
        el0: true,
        non_global: true,
        contiguous: false,
        pxn: false,
        uxn: false,
        ns: false,
        gp: false,
        nt: false,
    })
}

/// Through the tables in memory, with stage 2 behind stage 1 where it is on.
fn by_memory<W: World>(world: &W, registers: &Registers, places: [usize; 2], va: u64) -> Walk {
    let load = |table: u64, index: usize| world.load(table.wrapping_add(index as u64 * 8));
    let loaded = places.iter().filter_map(|place| registers.loaded(*place).ok().flatten());
    let stage2 = match registers.loaded(STAGE2) {
        Ok(stage2) if places == EL10 => stage2,
        Ok(_) => None,
        Err(_) => return Walk::Lost,
    };
    let off = loaded.clone().next().is_none();
    let mut stage1 = if off && stage2.is_some() { Walk::Leaf(va) } else { Walk::Lost };
    for loaded in loaded.filter(|loaded| loaded.root.offset(va).is_some()) {
        stage1 = match &stage2 {
            None => walk(&loaded.root, va, load),
            Some(stage2) => walk(&loaded.root, va, |table, index| {
                let slot = table.wrapping_add(index as u64 * 8);
                world.load(walk(&stage2.root, slot, load).output()?)
            }),
        };
    }
    match (stage1, &stage2) {
        (Walk::Leaf(ipa), Some(stage2)) => walk(&stage2.root, ipa, load),
        _ => stage1,
    }
}
