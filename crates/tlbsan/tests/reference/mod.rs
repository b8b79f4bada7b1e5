//! The rules a second time: a reference that is slow, plain, and written from the rules alone.
//!
//! It keeps, for each PE, the set of all entries that its TLB and walk caches may hold. After every event everything that
//! a walker could fetch is fetched into that set, by walking all of memory; a completed TLBI takes out what it covers. An
//! entry is *stale* if the tables, walked again, no longer say what it says. That is all: what is unlinked, what can be
//! refilled through what, and who may hold what since when follows from it, and is nowhere written down.
//!
//! Time is the number of the event. Each entry remembers when it could last have been fetched: a TLBI removes, when its
//! DSB comes, what could not be fetched any more since the TLBI was executed (R4: a store that no DSB has published yet
//! lets walkers fetch the old value still). A stale table entry is a place to fetch from as well, but what is fetched
//! through it is no younger than the table entry itself, so that one TLBI that covers both removes both. An entry that another
//! member of its contiguous run stands for is fetched from there again.
//!
//! A TLBI has failed an entry for every reason that applies: other addresses, another ASID, leaf only ... Where there is one, of all
//! TLBIs, it is the cause of the verdict; where there are several the rules leave it open which is named.

mod accesses;
mod attributes;
mod decode;
mod fetch;
mod identifiers;
mod operations;
mod registers;
mod tables;
mod verdicts;

use decode::{Desc, Format};
use operations::misses;
use registers::{Registers, Space};
use std::collections::{BTreeMap, BTreeSet};
use tlbi::barrier::Domain;
use tlbi::{Dsb, Op, Scope};
use tlbsan::{Cause, Event, Hint, IdRegister, Kind, What};
use verdicts::overlap;

type Time = u64;
type Pes = BTreeSet<usize>;
/// What a verdict is about: an entry, under whatever ASID.
type Residue = (i8, u64, u64, Desc, Root);

/// Where walks begin, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Root {
    space: Space,
    table: u64,
    format: Format,
}

/// Something a TLB or walk cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    level: i8,
    va: u64,
    slot: u64,
    desc: Desc,
    /// None: global.
    asid: Option<u16>,
    /// A leaf of stage 2 as part of an entry that some leaf of stage 1 was combined with.
    combined: bool,
    /// Of a root: shared with other PEs (CnP).
    shared: bool,
    root: Root,
}

impl Entry {
    fn size(&self) -> u64 {
        self.root.format.span(self.level)
    }

    fn covers(&self, va: u64) -> bool {
        va.wrapping_sub(self.va) < self.size()
    }

    /// The table page that it leads to.
    fn next(&self) -> Option<u64> {
        self.desc.next()
    }

    /// The bytes of physical memory that it leads to.
    fn target(&self) -> (u64, u64) {
        match self.desc {
            Desc::Table { next, .. } => (next, self.root.format.table(self.level + 1)),
            Desc::Leaf { output, .. } => (output, self.size()),
            Desc::Nothing => (0, 0),
        }
    }

    /// What a verdict about it tells apart.
    fn residue(&self) -> Residue {
        (self.level, self.va, self.slot, self.desc, self.root)
    }
}

/// What a slot held before a store that walkers may not have seen yet.
#[derive(Clone, Debug)]
struct Unseen {
    slot: u64,
    old: u64,
    /// What was in the tables until then and read from there.
    removed: BTreeSet<Entry>,
    /// The writer, and whoever has read the slot since: a DSB of theirs publishes the store.
    knowers: Pes,
    /// PEs that have executed a DSB since, and how far it reached: their next TLBI shows that they were handed the store.
    waited: BTreeMap<usize, Domain>,
    /// How far the store can be seen, and the PEs whose own walker sees it.
    reach: Domain,
    own: Pes,
}

impl Unseen {
    /// Whether the walker of `pe` may miss the store; or, for an operation that reaches further than its PE, that of any PE there.
    fn is_hidden(&self, pe: usize, domain: Domain) -> bool {
        let own = domain == Domain::NonShareable && self.own.contains(&pe);
        !own && self.reach < domain.max(Domain::InnerShareable)
    }
}

/// A TLBI that was executed.
#[derive(Clone, Debug)]
struct Executed {
    at: Time,
    pe: usize,
    op: Op,
    /// As they were.
    registers: Registers,
    /// What PEs could still fetch when it was executed, for want of order.
    unordered: BTreeSet<(usize, Entry)>,
    completed: bool,
}

impl Executed {
    /// Whether it removes `e`.
    fn removes(&self, e: &Entry) -> bool {
        self.registers.names(&self.op, e.root.space, e.combined) && misses(&self.op, e).is_empty()
    }

    /// Whether `e` is a combined entry that could be made again, from the entry of stage 2 that stayed.
    fn leaves_what_makes(&self, e: &Entry, held: &BTreeMap<Entry, Time>) -> bool {
        let own = Entry { combined: false, ..*e };
        e.combined && !self.removes(&own) && held.get(&own) >= Some(&self.at)
    }
}

#[derive(Clone, Debug, Default)]
struct Pe {
    written: Registers,
    effective: Registers,
    /// What it may hold, and when it could last have fetched that.
    cached: BTreeMap<Entry, Time>,
    /// When it last held an entry of stage 2.
    held: BTreeMap<Entry, Time>,
    /// What its own invalidations have removed since it was synchronised.
    settled: Vec<Entry>,
    /// MAIR as translations of either may be cached with it, and to what they belong.
    mair: [Option<(Space, u64)>; 2],
    /// The reset since which its TLB holds UNKNOWN entries, of EL1&0 and of EL2's regimes.
    unknown: [Option<Time>; 2],
}

impl Pe {
    /// It may hold `e`, fetched at `time`.
    fn caches(&mut self, e: Entry, time: Time) {
        let known = self.cached.entry(e).or_insert(time);
        *known = time.max(*known);
    }
}

/// A verdict of the reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) level: i8,
    pub(crate) pes: Pes,
    /// None: the rules leave it open.
    pub(crate) cause: Option<Cause>,
}

/// The reference.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    now: Time,
    /// log2 of the page.
    granule: u32,
    /// The level of FEAT_BBM.
    bbm: u8,
    memory: BTreeMap<u64, u64>,
    pes: Vec<Pe>,
    /// Every root that was ever loaded.
    roots: BTreeSet<Root>,
    unseen: Vec<Unseen>,
    executed: Vec<Executed>,
    /// Entries that verdicts were about.
    told: BTreeSet<Residue>,
    /// Since when each entry has been gone from the tables.
    stale: BTreeMap<Entry, Time>,
    /// When each slot of a table that is not linked was last stored zero to, if nothing else was stored since.
    zeroed: BTreeMap<u64, Time>,
}

impl Reference {
    /// `pes` PEs with their MMUs off, memory all zero, pages of `1 << granule` bytes.
    pub(crate) fn new(pes: usize, granule: u32) -> Self {
        Self {
            now: 0,
            granule,
            bbm: 0,
            memory: BTreeMap::new(),
            pes: vec![Pe::default(); pes],
            roots: BTreeSet::new(),
            unseen: Vec::new(),
            executed: Vec::new(),
            told: BTreeSet::new(),
            stale: BTreeMap::new(),
            zeroed: BTreeMap::new(),
        }
    }

    /// Forgets what verdicts were about: other members of a contiguous run may stand for it after every invalidation.
    pub(crate) fn forgive(&mut self) {
        let told = std::mem::take(&mut self.told);
        self.pes.iter_mut().for_each(|pe| pe.cached.retain(|e, _| !told.contains(&e.residue())));
    }

    /// Handles an event; `memory` reads the 8 bytes at an address.
    ///
    /// Stores to all of memory are wanted, not only to tables.
    pub(crate) fn event(&mut self, event: &Event, memory: impl Fn(u64) -> u64) -> Vec<Seen> {
        self.now += 1;
        let pe = event.pe;
        let mut verdicts = Vec::new();
        match event.what {
            What::Store { pa, size } | What::Zero { pa, size } => {
                for slot in (pa & !7..pa + size).step_by(8) {
                    verdicts.append(&mut self.store(pe, slot, memory(slot)));
                }
            }
            What::Load { pa, size } => {
                for unseen in self.unseen.iter_mut().filter(|u| (pa & !7..pa + size).contains(&u.slot)) {
                    unseen.knowers.insert(pe);
                }
            }
            What::Tlbi(op) => {
                self.publish(pe, |store| store.waited.get(&pe).copied());
                let registers = self.pes[pe].effective.clone();
                let unordered = self.unordered(op.scope.domain());
                self.executed.push(Executed { at: self.now, pe, op, registers, unordered, completed: false });
            }
            What::Dsb(dsb) => self.dsb(pe, dsb),
            What::Isb | What::ExceptionEntry | What::Eret => {
                let [old, new] = [&self.pes[pe].effective, &self.pes[pe].written].map(|it| it.roots(self.granule));
                self.roots.extend(new.iter().map(|root| root.root));
                verdicts = self.clashes(pe, &old, &new);
                let pe = &mut self.pes[pe];
                pe.effective = pe.written.clone();
                pe.settled.clear();
                verdicts.extend(self.changed_attributes(event.pe));
            }
            What::Id(IdRegister::Mmfr2, value) => self.bbm = (value >> 52 & 15) as u8,
            What::Sysreg(register, value) => {
                self.pes[pe].written.0.insert(register, value);
            }
            What::Reset => self.pes[pe] = Pe { unknown: [Some(self.now); 2], ..Pe::default() },
            What::Access { va, pa, el, .. } => verdicts.extend(self.accessed(pe, va, pa, el)),
            What::Hint(Hint::FlushClaimed { start, size, asid }) => {
                let meant = |e: &Entry| {
                    let disjoint = e.va > start.saturating_add(size.saturating_sub(1)) || e.va + (e.size() - 1) < start;
                    !disjoint && e.asid.is_none_or(|it| it == asid)
                };
                verdicts = self.judge(|all, e| (all.is_stale(e) && meant(e)).then_some(Kind::Claimed));
            }
            What::Hint(Hint::FrameFreed { pa, size }) => {
                let freed = |e: &Entry| overlap(e.target(), (pa, size));
                verdicts = self.judge(|all, e| (all.is_stale(e) && freed(e)).then_some(Kind::Claimed));
            }
            _ => {}
        }
        self.settle();
        verdicts
    }

    /// Fetches whatever can be fetched, and notes what is stale.
    fn settle(&mut self) {
        self.fetch(Domain::NonShareable);
        // What the tables say again, if from another place, is as good as read from there.
        for pe in 0..self.pes.len() {
            for (e, time) in self.pes[pe].cached.clone() {
                let (_, slot, _) = self.meaning(&e);
                if slot != e.slot && !self.is_gone(&e) {
                    self.pes[pe].cached.remove(&e);
                    self.pes[pe].caches(Entry { slot, ..e }, time);
                }
            }
        }
        let linked = self.linked();
        for pe in &mut self.pes {
            pe.held.extend(pe.cached.keys().filter(|e| e.root.format.stage2).map(|e| (*e, self.now)));
        }
        let granule = self.granule;
        self.zeroed.retain(|slot, _| !linked.contains(&(slot >> granule << granule)));
        let stale: BTreeSet<Entry> = self.held().filter(|e| self.is_gone(e)).collect();
        self.stale.retain(|e, _| stale.contains(e));
        for e in stale {
            self.stale.entry(e).or_insert(self.now);
        }
    }

    fn held(&self) -> impl Iterator<Item = Entry> {
        self.pes.iter().flat_map(|pe| pe.cached.keys().copied())
    }

    fn dsb(&mut self, pe: usize, dsb: Dsb) {
        if dsb.covers_stores() {
            self.publish(pe, |store| store.knowers.contains(&pe).then_some(dsb.domain()));
            for store in &mut self.unseen {
                let waited = store.waited.entry(pe).or_insert(dsb.domain());
                *waited = dsb.domain().max(*waited);
            }
        }
        let before: Vec<Entry> = self.pes[pe].cached.keys().filter(|e| self.stale.contains_key(e)).copied().collect();
        for i in 0..self.executed.len() {
            let Executed { pe: issuer, op, completed, .. } = self.executed[i];
            let domain = op.scope.domain();
            let enough = if op.nxs { dsb.completes_nxs_tlbi(domain) } else { dsb.completes_tlbi(domain) };
            if issuer == pe && !completed && enough {
                self.executed[i].completed = true;
                let executed = self.executed[i].clone();
                self.end_all(&executed);
                for (target, it) in self.pes.iter_mut().enumerate() {
                    if executed.op.scope != Scope::Local || target == pe {
                        let Pe { cached, held, .. } = it;
                        cached.retain(|e, fetched| {
                            *fetched >= executed.at
                                || !executed.removes(e)
                                || executed.unordered.contains(&(target, *e))
                                || executed.leaves_what_makes(e, held)
                        });
                    }
                }
                // The next TLBI may have been performed long after this one.
                self.fetch(Domain::NonShareable);
            }
        }
        let Pe { cached, settled, .. } = &mut self.pes[pe];
        settled.extend(before.iter().filter(|e| !cached.contains_key(e)));
    }

    /// What is visible to the walker of `pe`, or further, by what `which` says; so is every earlier store to the same slot.
    fn publish(&mut self, pe: usize, which: impl Fn(&Unseen) -> Option<Domain>) {
        for i in 0..self.unseen.len() {
            let (store, later) = (&self.unseen[i], &self.unseen[i..]);
            let Some(domain) = later.iter().filter(|it| it.slot == store.slot).filter_map(&which).max() else {
                continue;
            };
            self.unseen[i].own.insert(pe);
            self.unseen[i].reach = domain.max(self.unseen[i].reach);
        }
        // No operation wants more.
        self.unseen.retain(|store| store.reach < Domain::OuterShareable);
    }
}
