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
mod decode;
mod identifiers;
mod operations;
mod registers;

use decode::{Change, Desc, Format, compare};
use operations::misses;
use registers::{Registers, Space};
use std::collections::{BTreeMap, BTreeSet};
use tlbi::barrier::Domain;
use tlbi::{Dsb, Op, Scope, Target};
use tlbsan::{Cause, Event, Hint, IdRegister, Kind, What};

type Time = u64;
type Pes = BTreeSet<usize>;

/// What operations by address name.
const PAGE: u64 = 4096;

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
    fn residue(&self) -> (i8, u64, u64, Desc, Root) {
        (self.level, self.va, self.slot, self.desc, self.root)
    }
}

/// What a slot held before a store that walkers may not have seen yet.
#[derive(Clone, Debug)]
struct Unseen {
    slot: u64,
    old: u64,
    /// Whether a walk came there.
    was_linked: bool,
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
    /// When it last held what it has ever held.
    held: BTreeMap<Entry, Time>,
    /// What its own invalidations have removed since it was synchronised.
    settled: Vec<Entry>,
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
    /// The slot that is being stored to, and its old value.
    replaced: Option<(u64, u64)>,
    pes: Vec<Pe>,
    /// Every root that was ever loaded.
    roots: BTreeSet<Root>,
    unseen: Vec<Unseen>,
    executed: Vec<Executed>,
    /// Entries that verdicts were about.
    told: BTreeSet<Entry>,
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
            replaced: None,
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
        self.pes.iter_mut().for_each(|pe| pe.cached.retain(|e, _| !told.contains(e)));
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
            }
            What::Id(IdRegister::Mmfr2, value) => self.bbm = (value >> 52 & 15) as u8,
            What::Sysreg(register, value) => {
                self.pes[pe].written.0.insert(register, value);
            }
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
            pe.held.extend(pe.cached.keys().map(|e| (*e, self.now)));
        }
        let granule = self.granule;
        self.zeroed.retain(|slot, _| !linked.contains(&(slot >> granule << granule)));
        let stale: BTreeSet<Entry> = self.held().filter(|e| self.is_gone(e)).collect();
        self.stale.retain(|e, _| stale.contains(e));
        for e in stale {
            self.stale.entry(e).or_insert(self.now);
        }
    }

    /// Every walker fetches all it can reach: from its roots, and from the table entries it holds.
    ///
    /// What they may not have seen yet is what no DSB has published as far as `domain`.
    fn fetch(&mut self, domain: Domain) {
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
    fn unordered(&mut self, domain: Domain) -> BTreeSet<(usize, Entry)> {
        // A broadcast TLBI wants a DSB that reaches as far; a local one has ordered nothing for it.
        let before = self.pes.clone();
        self.fetch(domain);
        let mut all = BTreeSet::new();
        for (pe, it) in self.pes.iter().enumerate() {
            all.extend(it.cached.iter().filter(|(_, time)| **time == self.now).map(|(e, _)| (pe, *e)));
        }
        self.pes = before;
        let removed_by = |pe, e: &Entry, store: &Unseen| {
            let says = |value| Desc::decode(value, e.level, &e.root.format) == e.desc;
            let here = store.was_linked && store.slot == e.slot && store.is_hidden(pe, domain);
            here && says(store.old) && !says(self.value(e.slot))
        };
        let of = |(pe, it): (usize, &Pe)| {
            let roots = it.effective.roots(self.granule);
            let held = it.cached.keys().filter(|e| !e.combined && walked(&roots, e).is_some());
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
                let e = Entry { level, va, slot: table + 8 * index, desc, asid, combined: false, root: above.root };
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

    /// The table that a slot lies in.
    fn table(&self, slot: u64) -> u64 {
        slot >> self.granule << self.granule
    }

    fn value(&self, slot: u64) -> u64 {
        self.memory.get(&slot).copied().unwrap_or(0)
    }

    /// What the tables say now for the span of `e`, and where: the leaf above it, or whatever stands at its level.
    fn meaning(&self, e: &Entry) -> (i8, u64, Desc) {
        let format = &e.root.format;
        let (mut table, mut first) = (e.root.table, e.va & u64::MAX << format.bits);
        for level in format.root_level()..=e.level {
            let index = (e.va - first) / format.span(level);
            let slot = table + 8 * index;
            match Desc::decode(self.value(slot), level, format) {
                Desc::Table { next, .. } if level < e.level => table = next,
                found => return (level, slot, found),
            }
            first += index * format.span(level);
        }
        (e.level, 0, Desc::Nothing)
    }

    /// How the tables' meaning differs from what `e` says.
    fn difference(&self, e: &Entry) -> Change {
        let (level, _, desc) = self.meaning(e);
        let at = |format: &Format| e.va & (format.span(level) - 1);
        match (e.desc.next(), desc.next()) {
            _ if desc == Desc::Nothing => Change::Owed,
            (None, Some(table)) if e.desc.may_be_resized(self.bbm) => self.resized(e, &e.desc, table, e.level + 1, 0),
            (Some(table), None) if desc.may_be_resized(self.bbm) && level == e.level => {
                self.resized(e, &desc, table, e.level + 1, 0).max(Change::Owed)
            }
            (_, None) if desc.may_be_resized(self.bbm) && level < e.level => {
                desc.resized(&e.desc, at(&e.root.format), self.bbm).max(Change::Owed)
            }
            _ if level != e.level => Change::Break,
            _ => self.compare(e, &desc),
        }
    }

    /// What it asks for to have the entries of a table beside `block`, of which it begins at `offset`.
    fn resized(&self, e: &Entry, block: &Desc, table: u64, level: i8, offset: u64) -> Change {
        let format = &e.root.format;
        let entry = |index: u64| {
            let offset = offset + index * format.span(level);
            match Desc::decode(self.value(table + 8 * index), level, format) {
                Desc::Table { next, .. } => self.resized(e, block, next, level + 1, offset),
                desc => block.resized(&desc, offset, self.bbm),
            }
        };
        (0..format.table(level) / 8).map(entry).max().unwrap_or(Change::None)
    }

    /// How `desc`, at its level, differs from what `e` says.
    fn compare(&self, e: &Entry, desc: &Desc) -> Change {
        compare(&e.desc, desc, self.bbm, |a, b| self.same_contents(a, b, e.size()))
    }

    fn is_stale(&self, e: &Entry) -> bool {
        self.difference(e) != Change::None
    }

    /// Whether the tables hold nothing that is cacheable and says the same: an entry without its access flag is no translation
    /// that could be changed in place.
    fn is_gone(&self, e: &Entry) -> bool {
        self.is_stale(e) || !self.meaning(e).2.is_cacheable()
    }

    fn same_contents(&self, a: u64, b: u64, size: u64) -> bool {
        let contents = |start: u64| {
            let words = self.memory.range(start..start + size).filter(|(_, value)| **value != 0);
            words.map(move |(pa, value)| (pa - start, *value))
        };
        contents(a).eq(contents(b))
    }

    /// Tables that are linked: reached from a root that is, or was, loaded.
    fn linked(&self) -> BTreeSet<u64> {
        let mut linked = BTreeSet::new();
        for root in &self.roots {
            let mut tables = BTreeSet::from([root.table]);
            for level in root.format.root_level()..=3 {
                linked.extend(&tables);
                let slots = |table: &u64| *table..*table + root.format.table(level);
                let values = tables.iter().flat_map(|table| self.memory.range(slots(table)));
                tables = values.filter_map(|(_, value)| Desc::decode(*value, level, &root.format).next()).collect();
            }
        }
        linked
    }

    fn store(&mut self, pe: usize, slot: u64, value: u64) -> Vec<Seen> {
        let fresh: BTreeSet<Entry> = self.held().filter(|e| !self.is_gone(e)).collect();
        let meant: BTreeMap<Entry, _> = self.held().map(|e| (e, self.meaning(&e))).collect();
        let linked = self.linked();
        let old = self.memory.insert(slot, value).unwrap_or(0);
        self.replaced = Some((slot, old));
        let table = self.table(slot);
        let was_linked = linked.contains(&table);
        if was_linked || self.held().any(|e| e.slot == slot || e.next() == Some(table)) {
            let (knowers, waited, own) = ([pe].into(), BTreeMap::new(), Pes::new());
            self.unseen.push(Unseen { slot, old, was_linked, knowers, waited, reach: Domain::NonShareable, own });
        }
        if value == 0 {
            self.zeroed.insert(slot, self.now);
        } else {
            self.zeroed.remove(&slot);
        }
        let new_tables = &self.linked() - &linked;
        let verdicts = self.judge(|all, e| {
            // What is put into a table that is stale changes nothing in its stead.
            let changes = e.next().is_none() || meant.get(e) != Some(&all.meaning(e));
            let breaks = changes && all.difference(e) == Change::Break;
            let becomes_table =
                || e.next().is_none() && new_tables.iter().any(|it| overlap((*it, 1 << all.granule), e.target()));
            if breaks && fresh.contains(e) {
                Some(Kind::LiveChange)
            } else if all.is_stale(e) && becomes_table() || all.reuses(e, slot, old, value) {
                Some(Kind::Reused)
            } else {
                breaks.then_some(Kind::Remade)
            }
        });
        self.replaced = None;
        verdicts
    }

    /// Whether a store to `slot` puts the table that stale `e` leads to to another use.
    fn reuses(&self, e: &Entry, slot: u64, old: u64, value: u64) -> bool {
        let (Some(since), Some(table)) = (self.stale.get(e), e.next()) else { return false };
        let (level, _, there) = self.meaning(e);
        if (level, there.next()) == (e.level, Some(table)) || table != self.table(slot) {
            return false;
        }
        if self.linked().contains(&table) {
            // Linked elsewhere: it may be emptied there, and neither software bits nor the access flag are a change.
            let aged = |value| Desc::decode(value | 1 << 10, e.level + 1, &e.root.format);
            return value & 1 == 1 && aged(old) != aged(value);
        }
        let cleared = || (table..table + e.target().1).step_by(8).all(|slot| self.zeroed.get(&slot) > Some(since));
        value & 1 == 1 && value != old || cleared()
    }

    /// The verdicts about what is held, by what `kind` says of it; equal ones made one.
    fn judge(&mut self, kind: impl Fn(&Self, &Entry) -> Option<Kind>) -> Vec<Seen> {
        let mut verdicts: BTreeMap<(Kind, u64, i8), Seen> = BTreeMap::new();
        for e in self.held().collect::<BTreeSet<Entry>>() {
            let Some(kind) = kind(self, &e) else { continue };
            self.told.insert(e);
            let of_it = |it: &Entry| it.residue() == e.residue();
            let holders = self.pes.iter().enumerate().filter(|(_, pe)| pe.cached.keys().any(of_it));
            let pes: Pes = holders.map(|(pe, _)| pe).collect();
            let cause = self.cause(kind, &e, &pes);
            let seen = Seen { kind, start: e.va, size: e.size(), level: e.level, pes, cause };
            let merged = verdicts.entry((kind, e.va, e.level)).or_insert_with(|| seen.clone());
            merged.cause = cause.filter(|_| merged.cause == cause);
            merged.pes.extend(seen.pes);
        }
        verdicts.into_values().collect()
    }

    fn held(&self) -> impl Iterator<Item = Entry> {
        self.pes.iter().flat_map(|pe| pe.cached.keys().copied())
    }

    /// Whether a walk through table entry `e` could fetch `child`.
    fn leads_to(&self, e: &Entry, child: &Entry) -> bool {
        e.next() == Some(self.table(child.slot))
            && e.level + 1 == child.level
            && e.covers(child.va)
            && e.root == child.root
            && self.holds_now(child)
    }

    /// Whether the slot that `e` was read from holds it still; for the slot of the store at hand, until then.
    fn holds_now(&self, e: &Entry) -> bool {
        let replaced = self.replaced.filter(|(slot, _)| *slot == e.slot).map(|(_, old)| old);
        let desc = Desc::decode(replaced.unwrap_or_else(|| self.value(e.slot)), e.level, &e.root.format);
        desc.is_cacheable() && self.compare(e, &desc) == Change::None
    }

    fn dsb(&mut self, pe: usize, dsb: Dsb) {
        if dsb.covers_stores() {
            self.publish(pe, |store| store.knowers.contains(&pe).then_some(dsb.domain()));
            for store in &mut self.unseen {
                let waited = store.waited.entry(pe).or_insert(dsb.domain());
                *waited = dsb.domain().max(*waited);
            }
        }
        for i in 0..self.executed.len() {
            let executed = self.executed[i].clone();
            let domain = executed.op.scope.domain();
            let enough = if executed.op.nxs { dsb.completes_nxs_tlbi(domain) } else { dsb.completes_tlbi(domain) };
            if executed.pe == pe && !executed.completed && enough {
                self.executed[i].completed = true;
                for (target, it) in self.pes.iter_mut().enumerate() {
                    if executed.op.scope != Scope::Local || target == pe {
                        let Pe { cached, held, settled, .. } = it;
                        let before: Vec<Entry> =
                            if target == pe { cached.keys().copied().collect() } else { Vec::new() };
                        cached.retain(|e, fetched| {
                            *fetched >= executed.at
                                || !executed.removes(e)
                                || executed.unordered.contains(&(target, *e))
                                || executed.leaves_what_makes(e, held)
                        });
                        let stale =
                            before.into_iter().filter(|e| self.stale.contains_key(e) && !cached.contains_key(e));
                        settled.extend(stale);
                    }
                }
                // The next TLBI may have been performed long after this one.
                self.fetch(Domain::NonShareable);
            }
        }
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

    /// Why the stale `e` is still there on `pes`, if there is one reason only.
    fn cause(&self, kind: Kind, e: &Entry, pes: &Pes) -> Option<Cause> {
        if kind == Kind::LiveChange {
            return Some(Cause::NotBrokenFirst);
        }
        let since = self.stale.get(e).copied().unwrap_or(self.now);
        let youngest = pes.iter().filter_map(|pe| self.pes[*pe].cached.get(e)).max();
        let above: Vec<Entry> = self.held().filter(|it| self.stale.contains_key(it) && self.leads_to(it, e)).collect();
        let mut causes = BTreeSet::new();
        let for_it = |it: &&Executed| it.registers.names(&it.op, e.root.space, e.combined);
        for executed in self.executed.iter().filter(|it| it.at > since).filter(for_it) {
            let Executed { at, pe, op, completed, .. } = executed;
            let mut all = misses(op, e);
            let mut also = |yes: bool, cause| all.extend(yes.then_some(cause));
            // It may be fetched again through a table entry that the operation leaves.
            let leaf_only = match op.target {
                Target::Va { leaf_only, .. } | Target::VaRange { leaf_only, .. } => leaf_only,
                Target::Ipa { leaf_only, .. } | Target::IpaRange { leaf_only, .. } => leaf_only,
                _ => false,
            };
            let left = if leaf_only { Cause::LeafOnly } else { Cause::WrongAsid };
            also(above.iter().any(|it| !misses(op, it).is_empty()), left);
            also(op.scope == Scope::Local && pes.iter().any(|it| it != pe), Cause::LocalOnly);
            let unordered = || pes.iter().any(|pe| executed.unordered.contains(&(*pe, *e)));
            also(youngest >= Some(at) || unordered(), Cause::NotOrdered);
            let remade = pes.iter().any(|pe| executed.leaves_what_makes(e, &self.pes[*pe].held));
            also(!completed || remade, Cause::NotCompleted);
            causes.extend(if all.is_empty() { vec![left] } else { all });
        }
        // Whether a TLBI for something else was meant for this is anybody's guess, and so is what a run's other members did, or
        // what is combined with it.
        let other = |cause| matches!(cause, Cause::WrongRange | Cause::WrongAsid | Cause::GlobalSurvives);
        let for_half = |it: &Executed| !for_it(&it) && it.registers.names(&it.op, e.root.space, !e.combined);
        if self.executed.iter().any(|it| it.at > since && for_half(it)) {
            return None;
        }
        match causes.pop_first() {
            None => Some(Cause::NoInvalidation),
            Some(cause) => (causes.is_empty() && !other(cause) && e.desc.run(0, e.level, &e.root.format).len() == 1)
                .then_some(cause),
        }
    }
}

/// The root through which `e` is walked, if it is.
fn walked<'a>(roots: &'a [Entry], e: &Entry) -> Option<&'a Entry> {
    roots.iter().find(|it| it.root == e.root && it.covers(e.va) && (e.asid.is_none() || e.asid == it.asid))
}

fn overlap((a, a_size): (u64, u64), (b, b_size): (u64, u64)) -> bool {
    a < b.saturating_add(b_size) && b < a.saturating_add(a_size)
}
