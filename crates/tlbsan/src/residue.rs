//! Residues: entries that are gone from memory and may still be cached.
//!
//! ```text
//!   store changes the entry ──> open ──DSB by the writer, or by a PE that read the entry (R4)──> ordered
//!   ordered ──covering TLBI──> in flight ──DSB by the PE that issued it (R5)──> gone on the PEs it reached
//! ```
//!
//! A residue is closed when no PE may hold it any more. A TLBI that does not suffice leaves a note why: R4 and R5 are never
//! verdicts, they explain one. Residues are indexed by what they translate, so that an operation by address finds its own.

use crate::descriptor::{Descriptor, level_size};
use crate::machine::{MAX_PES, PeSet, pes};
use crate::report::{Attempt, Site};
use crate::shadow::ContextId;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tlbi::barrier::Domain;
use tlbi::{Dsb, Op, Scope, Target};
use tlbsan_hint::Cause;

/// Names a residue; never used twice.
pub type ResidueId = u64;

/// What a cached entry is tagged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A global leaf.
    Global,
    /// A non-global leaf or a table entry under this ASID.
    Asid(u16),
    /// Under more ASIDs than are followed one by one: only an operation for every ASID removes it for sure.
    AnyAsid,
}

/// PEs that may hold a residue under one tag.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The tag.
    pub tag: Tag,
    /// The PEs.
    pub pes: PeSet,
    /// Covering TLBIs that no DSB has completed yet.
    in_flight: Vec<InFlight>,
}

#[derive(Clone, Debug)]
struct InFlight {
    issuer: usize,
    op: Op,
    site: Arc<Site>,
}

/// What is removed from a slot, and where it translated.
#[derive(Clone, Debug)]
pub struct Removed {
    /// Through which root.
    pub context: ContextId,
    /// Physical address of the slot.
    pub slot: u64,
    /// Level of the slot.
    pub level: i8,
    /// First virtual address.
    pub start: u64,
    /// The old entry.
    pub bits: u64,
    /// The old entry, decoded.
    pub entry: Descriptor,
    /// Physical address of the slot whose change took it out of the tables: its own, or that of a table above it.
    pub cut: u64,
    /// The table residue through which a walker may still reach it, if it is still in its (unlinked) table.
    pub through: Option<ResidueId>,
}

/// An entry that may still be cached.
#[derive(Clone, Debug)]
pub struct Residue {
    /// What and where.
    pub what: Removed,
    /// Who may hold it.
    pub holders: Vec<Holder>,
    /// Who removed it.
    pub removed: Arc<Site>,
    /// The PE whose store it was; not known while only its effect was seen.
    writer: Option<usize>,
    /// How far some DSB has made the store visible.
    ordered: Option<Domain>,
    /// TLBIs that did not suffice.
    attempts: Vec<(Arc<Site>, Op, Cause, String)>,
    more_attempts: u64,
    /// Number of TLBIs before it.
    born: u64,
}

impl Residue {
    /// Whether it is a walk-cache entry.
    pub fn is_table(&self) -> bool {
        matches!(self.what.entry, Descriptor::Table(_))
    }

    /// Bytes that it translates.
    pub fn size(&self) -> u64 {
        level_size(self.what.level)
    }

    /// Every PE that may hold it.
    pub fn pes(&self) -> PeSet {
        self.holders.iter().fold(0, |set, holder| set | holder.pes)
    }

    /// Whether it is tagged with `asid`, or with none.
    pub fn concerns(&self, asid: u16) -> bool {
        self.holders.iter().any(|holder| match holder.tag {
            Tag::Asid(tag) => tag == asid,
            Tag::Global | Tag::AnyAsid => true,
        })
    }

    fn covers(&self, va: u64) -> bool {
        va.wrapping_sub(self.what.start) < self.size()
    }
}

/// Attempts kept with each residue; later ones are counted.
const MAX_ATTEMPTS: usize = 6;
/// TLBIs remembered to explain that the wrong thing was invalidated.
const LOG: usize = 64;

#[derive(Clone, Debug)]
struct Logged {
    number: u64,
    issuer: usize,
    op: Op,
    site: Arc<Site>,
}

/// All open residues.
#[derive(Clone, Debug, Default)]
pub struct Residues {
    open: HashMap<ResidueId, Residue>,
    by_span: BTreeMap<(u64, i8), Vec<ResidueId>>,
    by_slot: HashMap<u64, Vec<ResidueId>>,
    /// Per PE: residues whose store a DSB of this PE would order.
    unordered: Vec<Vec<ResidueId>>,
    /// Per PE: residues with a TLBI of this PE in flight.
    in_flight: Vec<Vec<ResidueId>>,
    next: ResidueId,
    tlbis: u64,
    /// TLBIs that concerned no residue at all: they may have been meant for one.
    idle: VecDeque<Logged>,
    opened: u64,
    cleaned: u64,
}

impl Residues {
    /// Opens a residue for what `holders` may hold. `writer` is unknown if only the effect of the store was seen.
    pub fn open(
        &mut self,
        what: Removed,
        holders: Vec<(Tag, PeSet)>,
        removed: Arc<Site>,
        writer: Option<usize>,
    ) -> Option<ResidueId> {
        if holders.is_empty() {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.opened += 1;
        self.by_span.entry((what.start, what.level)).or_default().push(id);
        self.by_slot.entry(what.cut).or_default().push(id);
        let holders = holders.into_iter().map(|(tag, pes)| Holder { tag, pes, in_flight: Vec::new() }).collect();
        self.open.insert(
            id,
            Residue {
                what,
                holders,
                removed,
                writer,
                ordered: None,
                attempts: Vec::new(),
                more_attempts: 0,
                born: self.tlbis,
            },
        );
        if let Some(pe) = writer {
            list(&mut self.unordered, pe).push(id);
        }
        Some(id)
    }

    /// Ends a residue that did no harm or was judged; not counted as cleaned.
    pub fn retire(&mut self, id: ResidueId) -> Option<Residue> {
        let residue = self.open.remove(&id)?;
        forget(&mut self.by_span, &(residue.what.start, residue.what.level), id);
        if let Some(ids) = self.by_slot.get_mut(&residue.what.cut) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_slot.remove(&residue.what.cut);
            }
        }
        Some(residue)
    }

    /// An open residue.
    pub fn get(&self, id: ResidueId) -> Option<&Residue> {
        self.open.get(&id)
    }

    /// Every open residue.
    pub fn iter(&self) -> impl Iterator<Item = (ResidueId, &Residue)> {
        self.open.iter().map(|(id, residue)| (*id, residue))
    }

    /// Residues of exactly this span and level.
    pub fn at(&self, start: u64, level: i8) -> &[ResidueId] {
        self.by_span.get(&(start, level)).map_or(&[], Vec::as_slice)
    }

    /// Residues that start in the `size` bytes from `start`.
    pub fn within(&self, start: u64, size: u64) -> impl Iterator<Item = ResidueId> + '_ {
        let last = start.saturating_add(size - 1);
        self.by_span.range((start, i8::MIN)..=(last, i8::MAX)).flat_map(|(_, ids)| ids.iter().copied())
    }

    /// How many came into being, and how many of them were removed by invalidation.
    pub fn counts(&self) -> (u64, u64) {
        (self.opened, self.cleaned)
    }

    /// TLBIs so far.
    pub fn tlbis(&self) -> u64 {
        self.tlbis
    }

    /// Whether there is no residue at all.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// `pe` has read the slot: from now on its DSBs order the store too (other-multi-copy atomicity).
    pub fn seen(&mut self, slot: u64, pe: usize) {
        if let Some(ids) = self.by_slot.get(&slot) {
            list(&mut self.unordered, pe).extend(ids);
        }
    }

    /// The store that changed `slot` turns out to be `pe`'s.
    pub fn attribute(&mut self, slot: u64, pe: usize, site: impl FnOnce() -> Arc<Site>) {
        let Some(ids) = self.by_slot.get(&slot) else { return };
        let mut site = Some(site);
        let mut made = None;
        for id in ids {
            if let Some(residue) = self.open.get_mut(id)
                && residue.writer.is_none()
            {
                if let Some(make) = site.take() {
                    made = Some(make());
                }
                if let Some(site) = &made {
                    residue.removed = Arc::clone(site);
                }
                residue.writer = Some(pe);
                list(&mut self.unordered, pe).push(*id);
            }
        }
    }

    /// The entry has gone from its unlinked table as well: a walker cannot reach it any more, once that store is ordered.
    pub fn detach(&mut self, slot: u64, start: u64, level: i8, pe: usize) {
        for id in self.at(start, level).to_vec() {
            if let Some(residue) = self.open.get_mut(&id)
                && residue.what.slot == slot
                && residue.what.through.take().is_some()
            {
                let cut = std::mem::replace(&mut residue.what.cut, slot);
                residue.writer = Some(pe);
                residue.ordered = None;
                if let Some(ids) = self.by_slot.get_mut(&cut) {
                    ids.retain(|other| *other != id);
                }
                self.by_slot.entry(slot).or_default().push(id);
                list(&mut self.unordered, pe).push(id);
            }
        }
    }

    /// `pe` executes a DSB. Returns the residues that are closed by it.
    pub fn dsb(&mut self, pe: usize, dsb: Dsb) -> Vec<(ResidueId, Residue)> {
        if dsb.publishes_stores(Domain::NonShareable) {
            let waiting = std::mem::take(list(&mut self.unordered, pe));
            let again = waiting.into_iter().filter(|id| match self.open.get_mut(id) {
                Some(residue) => {
                    residue.ordered = residue.ordered.max(Some(dsb.domain()));
                    residue.ordered < Some(Domain::InnerShareable)
                }
                None => false,
            });
            let again = again.collect();
            *list(&mut self.unordered, pe) = again;
        }
        if !dsb.completes_tlbi(Domain::NonShareable) {
            return Vec::new();
        }
        let waiting = std::mem::take(list(&mut self.in_flight, pe));
        let mut closed = Vec::new();
        for id in waiting {
            let Some(residue) = self.open.get_mut(&id) else { continue };
            let mut still = false;
            for holder in &mut residue.holders {
                holder.in_flight.retain(|tlbi| {
                    if tlbi.issuer != pe {
                        return true;
                    }
                    if !dsb.completes_tlbi(tlbi.op.scope.domain()) {
                        still = true;
                        return true;
                    }
                    holder.pes &= match tlbi.op.scope {
                        Scope::Local => !(1 << pe),
                        Scope::Inner | Scope::Outer => 0,
                    };
                    false
                });
            }
            residue.holders.retain(|holder| holder.pes != 0);
            if residue.holders.is_empty() {
                closed.extend(self.retire(id).map(|residue| (id, residue)));
                self.cleaned += 1;
            } else if still {
                list(&mut self.in_flight, pe).push(id);
            }
        }
        closed
    }

    /// `pe` executes a TLBI.
    pub fn tlbi(&mut self, pe: usize, op: Op, site: impl FnOnce() -> Arc<Site>) {
        self.tlbis += 1;
        if self.open.is_empty() {
            return;
        }
        let ids: Vec<ResidueId> = match op.target {
            Target::Va { va, .. } => {
                (0..=3).flat_map(|level| self.at(va.bits() & !(level_size(level) - 1), level).iter().copied()).collect()
            }
            _ => self.open.keys().copied().collect(),
        };
        let site = site();
        let mut concerned = false;
        for id in ids {
            let refillable = self
                .open
                .get(&id)
                .and_then(|residue| residue.what.through)
                .is_some_and(|through| self.open.contains_key(&through));
            if let Some(residue) = self.open.get_mut(&id) {
                let (any, in_flight) = residue.tlbi(pe, op, refillable, &site);
                concerned |= any;
                if in_flight {
                    list(&mut self.in_flight, pe).push(id);
                }
            }
        }
        if !concerned {
            if self.idle.len() == LOG {
                self.idle.pop_front();
            }
            self.idle.push_back(Logged { number: self.tlbis, issuer: pe, op, site });
        }
    }

    /// Why a residue is still open, with the invalidations that did not suffice.
    pub fn explain(&self, residue: &Residue) -> (Cause, Vec<Attempt>, u64) {
        let mut attempts = residue.attempts.clone();
        for holder in &residue.holders {
            for tlbi in &holder.in_flight {
                let why = format!(
                    "no DSB {} by PE {} has completed it since: a PE may still be using the old entry",
                    option(tlbi.op.scope),
                    tlbi.issuer
                );
                attempts.push((Arc::clone(&tlbi.site), tlbi.op, Cause::NotCompleted, why));
            }
        }
        if attempts.is_empty() {
            attempts = self.missed(residue);
        }
        let cause = attempts.iter().map(|attempt| attempt.2).max_by_key(|cause| closeness(*cause));
        let attempts = attempts
            .into_iter()
            .map(|(site, op, cause, why)| Attempt { site: (*site).clone(), op: op.to_string(), why, cause })
            .collect();
        (cause.unwrap_or(Cause::NoInvalidation), attempts, residue.more_attempts)
    }

    /// TLBIs since by the same PE that removed nothing: the wrong address, or the wrong ASID, for this residue?
    fn missed(&self, residue: &Residue) -> Vec<(Arc<Site>, Op, Cause, String)> {
        let since = self
            .idle
            .iter()
            .filter(|tlbi| tlbi.number > residue.born && residue.writer.is_none_or(|writer| writer == tlbi.issuer));
        let mut missed: Vec<_> = since
            .filter_map(|tlbi| {
                let (asid, right_va) = match tlbi.op.target {
                    Target::Asid(asid) => (Some(asid), true),
                    Target::Va { va, asid, .. } => (asid, residue.covers(va.bits())),
                    _ => return None,
                };
                let right_asid = asid.is_none_or(|asid| residue.concerns(asid.number()));
                let (cause, why) = match (right_asid, right_va) {
                    (true, false) => (Cause::WrongRange, "it names other addresses".to_owned()),
                    (false, true) => (Cause::WrongAsid, "it names another ASID".to_owned()),
                    _ => return None,
                };
                Some((Arc::clone(&tlbi.site), tlbi.op, cause, why))
            })
            .collect();
        missed.truncate(MAX_ATTEMPTS);
        missed
    }
}

impl Residue {
    /// Whether the operation concerned this residue at all, and whether it is in flight for it now.
    fn tlbi(&mut self, pe: usize, op: Op, refillable: bool, site: &Arc<Site>) -> (bool, bool) {
        let (mut concerned, mut any_in_flight) = (false, false);
        for index in 0..self.holders.len() {
            let (tag, held) = (self.holders[index].tag, self.holders[index].pes);
            let verdict = self.suffices(tag, op, refillable);
            concerned |= verdict != Err(Cause::WrongAsid);
            match verdict {
                Ok(()) => {
                    let reached = op.scope != Scope::Local || held >> pe & 1 != 0;
                    if reached {
                        let site = Arc::clone(site);
                        self.holders[index].in_flight.push(InFlight { issuer: pe, op, site });
                        any_in_flight = true;
                    }
                    if op.scope == Scope::Local && held & !(1 << pe) != 0 {
                        let why =
                            format!("it reaches PE {pe} only; {} may keep the entry", list_pes(held & !(1 << pe)));
                        self.attempt(site, op, Cause::LocalOnly, why);
                    }
                }
                // Somebody else's invalidation, most likely.
                Err(Cause::WrongAsid) => {}
                Err(cause) => {
                    let why = self.reason(cause, op, refillable, held);
                    self.attempt(site, op, cause, why);
                }
            }
        }
        (concerned, any_in_flight)
    }

    /// Whether the operation removes the entry from the PEs it reaches, whatever they are (rules.md's table: Arm ARM D8.16).
    fn suffices(&self, tag: Tag, op: Op, refillable: bool) -> Result<(), Cause> {
        match op.target {
            Target::Asid(asid) => match tag {
                Tag::Asid(tag) if tag == asid.number() => {}
                Tag::Global => return Err(Cause::GlobalSurvives),
                _ => return Err(Cause::WrongAsid),
            },
            Target::Va { asid, leaf_only, ttl, .. } => {
                match (asid, tag) {
                    (None, _) | (_, Tag::Global) => {}
                    (Some(asid), Tag::Asid(tag)) if tag == asid.number() => {}
                    _ => return Err(Cause::WrongAsid),
                }
                if leaf_only && (self.is_table() || refillable) {
                    return Err(Cause::LeafOnly);
                }
                // The hint names the level of the leaf; tables above it go too, without `leaf_only`.
                let hint = (ttl & 3) as i8;
                if ttl >> 2 == 1
                    && hint != 0
                    && (hint != self.what.level && !self.is_table() || hint <= self.what.level && self.is_table())
                {
                    return Err(Cause::WrongTtl);
                }
            }
            // Everything; the model hands nothing else on.
            _ => {}
        }
        if self.ordered < Some(op.scope.domain()) { Err(Cause::NotOrdered) } else { Ok(()) }
    }

    fn reason(&self, cause: Cause, op: Op, refillable: bool, held: PeSet) -> String {
        let level = self.what.level;
        match cause {
            Cause::LeafOnly if refillable => "it removes leaves only, and the leaf can be refilled through the table \
                 entry above it, which is still in a walk cache"
                .to_owned(),
            Cause::LeafOnly => {
                format!(
                    "it removes leaves only; the level-{level} table entry stays in the walk cache of {}",
                    list_pes(held)
                )
            }
            Cause::GlobalSurvives => "an operation by ASID leaves global entries".to_owned(),
            Cause::WrongTtl => format!("its TTL hint names another level; the entry is at level {level}"),
            Cause::NotOrdered => format!(
                "no DSB {}st stands between the store and it: a walker may have read the old entry again afterwards",
                option(op.scope)
            ),
            _ => String::new(),
        }
    }

    fn attempt(&mut self, site: &Arc<Site>, op: Op, cause: Cause, why: String) {
        let known = self.attempts.iter().any(|(_, other, c, _)| *c == cause && other.mnemonic() == op.mnemonic());
        if known || self.attempts.len() >= MAX_ATTEMPTS {
            self.more_attempts += 1;
        } else {
            self.attempts.push((Arc::clone(site), op, cause, why));
        }
    }
}

/// How near an insufficient invalidation came: the nearest one names the cause.
fn closeness(cause: Cause) -> u8 {
    match cause {
        Cause::NotCompleted => 8,
        Cause::NotOrdered => 7,
        Cause::LocalOnly => 6,
        Cause::LeafOnly => 5,
        Cause::WrongTtl => 4,
        Cause::GlobalSurvives => 3,
        Cause::WrongAsid => 2,
        Cause::WrongRange => 1,
        Cause::NoInvalidation | Cause::NotBrokenFirst | Cause::NotSynchronised => 0,
    }
}

fn option(scope: Scope) -> &'static str {
    match scope {
        Scope::Local => "nsh",
        Scope::Inner => "ish",
        Scope::Outer => "osh",
    }
}

fn list_pes(set: PeSet) -> String {
    let names: Vec<String> = pes(set).map(|pe| pe.to_string()).collect();
    format!("PE {}", names.join(", "))
}

fn list(lists: &mut Vec<Vec<ResidueId>>, pe: usize) -> &mut Vec<ResidueId> {
    let pe = pe.min(MAX_PES - 1);
    if lists.len() <= pe {
        lists.resize_with(pe + 1, Vec::new);
    }
    &mut lists[pe]
}

fn forget(index: &mut BTreeMap<(u64, i8), Vec<ResidueId>>, key: &(u64, i8), id: ResidueId) {
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
