//! What invalidations are spent on, by call site: nothing here is an error, and nothing here changes a verdict.
//!
//! Judged when an operation is executed, by what may be cached just then. Four things are wasteful: to name nothing stale; to
//! reach all PEs for what only the issuer may hold; to remove table entries where only leaves are stale; and to
//! go through neighbouring entries one by one, between two DSBs, where the CPU has range operations.

use super::{Model, Now};
use crate::effect::{Effect, Selection};
use crate::event::World;
use crate::hash::FastMap;
use crate::machine::PeSet;
use crate::report::{Cost, Site};
use crate::residue::Tag;
use std::hash::{Hash, Hasher};
use tlbi::{Asid, Depth, Features, Granule, Invalidation, Level, Op, Scope, Target, VaRange, VirtAddr};

/// Call sites that are told apart.
const MAX_SITES: usize = 4096;
/// Return addresses that tell call sites apart.
const DEPTH: usize = 16;

/// The account of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    sites: FastMap<(u64, u64), usize>,
    spent: Vec<Cost>,
    /// Of the site where there is no room for more.
    rest: Option<Box<Cost>>,
    /// Per PE: the operations that might have been one.
    runs: FastMap<usize, Run>,
}

/// Operations of one PE on neighbouring entries, with nothing between them.
#[derive(Clone, Debug)]
struct Run {
    /// The operation, at its first address.
    op: Op,
    first: u64,
    /// Bytes from one to the next; 0: there is only one so far.
    stride: u64,
    last: u64,
    number: u64,
    granule: Granule,
    lpa2: bool,
    /// Whose they are.
    key: (u64, u64),
}

impl Ledger {
    fn entry(&mut self, key: (u64, u64), op: &Op, site: &Site) -> &mut Cost {
        let blank = |site: Site| Cost {
            site,
            op: format!("tlbi {}", op.mnemonic()),
            tlbis: 0,
            in_vain: 0,
            broadcast: 0,
            all_levels: 0,
            one_by_one: 0,
        };
        if let Some(&at) = self.sites.get(&key) {
            return &mut self.spent[at];
        }
        if self.spent.len() >= MAX_SITES {
            let rest = || Box::new(Cost { op: "tlbi".to_owned(), ..blank(Site::default()) });
            return self.rest.get_or_insert_with(rest);
        }
        self.sites.insert(key, self.spent.len());
        self.spent.push(blank(site.clone()));
        let last = self.spent.len() - 1;
        &mut self.spent[last]
    }

    /// `pe` executes something that no range operation reaches across.
    pub(super) fn end_run(&mut self, pe: usize) {
        let Some(run) = self.runs.remove(&pe) else { return };
        let saved = run.number.saturating_sub(run.as_ranges());
        match self.sites.get(&run.key) {
            Some(&at) => self.spent[at].one_by_one += saved,
            None => self.rest.iter_mut().for_each(|rest| rest.one_by_one += saved),
        }
    }

    /// An operation by address on a PE with FEAT_TLBIRANGE: the next of a run, or the first of another.
    fn run(&mut self, pe: usize, next: Run) {
        if let Some(run) = self.runs.get_mut(&pe) {
            let step = next.first.wrapping_sub(run.last);
            let alike = same_but_address(&run.op, &next.op) && run.key == next.key;
            if alike && (step == run.stride || run.stride == 0 && step.is_power_of_two() && step <= 1 << 30) {
                (run.last, run.stride) = (next.first, step);
                run.number += 1;
                return;
            }
        }
        self.end_run(pe);
        self.runs.insert(pe, next);
    }

    /// The account so far, the costliest sites first.
    pub(super) fn take(&mut self) -> Vec<Cost> {
        let mut pes: Vec<usize> = self.runs.keys().copied().collect();
        pes.sort_unstable();
        pes.into_iter().for_each(|pe| self.end_run(pe));
        self.sites.clear();
        let mut spent = std::mem::take(&mut self.spent);
        spent.sort_by_key(|cost| {
            let wasted = cost.in_vain + cost.broadcast + cost.all_levels + cost.one_by_one;
            std::cmp::Reverse((wasted, cost.tlbis))
        });
        spent.extend(self.rest.take().map(|rest| *rest));
        spent
    }
}

impl Run {
    /// How few range operations cover the same, by the planner of `tlbi`.
    fn as_ranges(&self) -> u64 {
        let page = self.granule.size();
        let size = (self.last - self.first).saturating_add(self.stride.max(page));
        let Ok(range) = VaRange::new(VirtAddr::new(self.first), size) else { return self.number };
        let features = Features { range: true, asid_bits: 16, ..Features::NONE };
        let request = Invalidation::global_pages(range, Level::L3, Depth::Leaf).granule(self.granule).lpa2(self.lpa2);
        tlbi::plan(&request, &features).count() as u64
    }
}

fn same_but_address(a: &Op, b: &Op) -> bool {
    let shape = |op: &Op| match op.target {
        Target::Va { asid, leaf_only, ttl, .. } => Some((asid.map(Asid::number), leaf_only, ttl)),
        _ => None,
    };
    (a.regime, a.scope, a.nxs) == (b.regime, b.scope, b.nxs) && shape(a) == shape(b)
}

impl Model {
    /// Enters an operation into the account, before it is executed.
    pub(super) fn spend<W: World>(&mut self, now: &Now<'_, W>, effect: &Effect) {
        if self.ledger.is_none() || effect.selection == Selection::Nothing {
            return;
        }
        let site = now.site();
        let named = self.residues.named(effect);
        let held = self.held_by(effect);
        let in_vain = !named.any && !self.ends_some_context(effect) && !self.ends_unknown(effect);
        let alone = (named.pes | held) == 1 << effect.issuer && self.pes.len() > 1;
        let by_leaf = matches!(effect.selection, Selection::Addresses { leaf_only: false, .. });
        let run = self.run_of(effect, &site);
        let Some(ledger) = &mut self.ledger else { return };
        let cost = ledger.entry(key(&site), &effect.op, &site);
        cost.tlbis += 1;
        cost.in_vain += u64::from(in_vain);
        cost.broadcast += u64::from(!in_vain && alone && effect.op.scope != Scope::Local);
        cost.all_levels += u64::from(named.any && by_leaf && !named.beyond_leaves);
        match run {
            Some(run) if !in_vain => ledger.run(effect.issuer, run),
            _ => ledger.end_run(effect.issuer),
        }
    }

    /// PEs that may hold anything of the contexts that an operation names.
    fn held_by(&self, effect: &Effect) -> PeSet {
        let (spaces, asid, address) = match effect.selection {
            // An entry of the upper half is mostly global: whatever the tag.
            Selection::Addresses { space, asid, first, .. } => {
                (vec![space], asid.filter(|_| first >> 63 == 0), Some(first))
            }
            Selection::Combined { .. } | Selection::Nothing => return 0,
            _ => match self.ended_by(effect) {
                Some((spaces, asid)) => (spaces, asid, None),
                None => return 0,
            },
        };
        let contexts = spaces.iter().flat_map(|space| self.shadow.contexts_of(*space));
        let contexts = contexts.filter_map(|id| self.shadow.context(*id));
        let contexts = contexts.filter(|context| address.is_none_or(|va| context.root.offset(va).is_some()));
        let tags = contexts.flat_map(|context| &context.tags);
        let tags = tags.filter(|used| asid.is_none_or(|asid| !matches!(used.tag, Tag::Asid(tag) if tag != asid)));
        tags.fold(0, |set, used| set | used.held)
    }

    /// Whether a PE that it reaches may hold entries of a context that it has left, and holds none afterwards (R3).
    fn ends_some_context(&self, effect: &Effect) -> bool {
        let Some((spaces, asid)) = self.ended_by(effect) else { return false };
        let contexts = spaces.iter().flat_map(|space| self.shadow.contexts_of(*space));
        let tags = contexts.filter_map(|id| self.shadow.context(*id)).flat_map(|context| &context.tags);
        let mut tags = tags.filter(|used| asid.is_none_or(|asid| used.tag == Tag::Asid(asid)));
        tags.any(|used| used.held & !used.loaded & effect.reach != 0)
    }

    /// The operation as the first of a run, where ranges could do the same.
    fn run_of(&self, effect: &Effect, site: &Site) -> Option<Run> {
        let Target::Va { va, .. } = effect.op.target else { return None };
        if !self.pes.iter().all(|pe| pe.features.range) {
            return None;
        }
        let loaded = self.pes[effect.issuer].loaded.iter().flatten();
        let root = loaded.map(|loaded| loaded.root).find(|root| root.offset(va.bits()).is_some());
        let granule = match root.map_or(12, |root| root.geometry.page_shift) {
            14 => Granule::K16,
            16 => Granule::K64,
            _ => Granule::K4,
        };
        let lpa2 = root.is_some_and(|root| root.geometry.wide);
        let first = va.bits();
        Some(Run { op: effect.op, first, stride: 0, last: first, number: 1, granule, lpa2, key: key(site) })
    }
}

fn key(site: &Site) -> (u64, u64) {
    let mut hasher = crate::hash::FastHasher::default();
    site.stack.iter().take(DEPTH).for_each(|ret| ret.hash(&mut hasher));
    (site.pc, hasher.finish())
}
