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

mod decode;

use decode::{Change, Desc, PAGE, compare, span};
use std::collections::{BTreeMap, BTreeSet};
use tlbi::{Dsb, Op, Scope, Target};
use tlbsan::{Cause, Event, Hint, Kind, Sysreg, What};

type Time = u64;
type Pes = BTreeSet<usize>;

/// Where walks begin, and how many bits of address they resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Root {
    table: u64,
    bits: u32,
}

impl Root {
    /// The level of the root table: each resolves 9 bits, the root what is left.
    fn level(&self) -> i8 {
        4 - (self.bits - 12).div_ceil(9) as i8
    }
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
    root: Root,
}

impl Entry {
    fn size(&self) -> u64 {
        span(self.level)
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
            Desc::Table { next, .. } => (next, PAGE),
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
#[derive(Clone, Debug, Default)]
struct Unseen {
    slot: u64,
    old: u64,
    /// The writer, and whoever has read the slot since: a DSB of theirs publishes the store.
    knowers: Pes,
    /// PEs whose own walker sees the store, thanks to a DSB that reaches no further.
    published: Pes,
    /// PEs that have executed a DSB since, for themselves or for all: their next TLBI shows that they were handed the store.
    waited: Pes,
    waited_for_all: Pes,
}

/// A TLBI that was executed.
#[derive(Clone, Debug)]
struct Executed {
    at: Time,
    pe: usize,
    op: Op,
    completed: bool,
}

#[derive(Clone, Debug, Default)]
struct Pe {
    written: BTreeMap<Sysreg, u64>,
    effective: BTreeMap<Sysreg, u64>,
    /// What it may hold, and when it could last have fetched that.
    cached: BTreeMap<Entry, Time>,
}

impl Pe {
    /// It may hold `e`, fetched at `time`.
    fn caches(&mut self, e: Entry, time: Time) {
        let known = self.cached.entry(e).or_insert(time);
        *known = time.max(*known);
    }

    /// Where walks begin, as if a table entry of the whole half led there. 4 KiB granule, ASIDs of 16 bits.
    fn roots(&self) -> Vec<Entry> {
        let register = |name| self.effective.get(&name).copied().unwrap_or(0);
        let tcr = register(Sysreg::TcrEl1);
        let ttbr = [Sysreg::Ttbr0El1, Sysreg::Ttbr1El1].map(register);
        let asid = Some((ttbr[(tcr >> 22 & 1) as usize] >> 48) as u16);
        let half = |half: usize| {
            // T0SZ and EPD0, or T1SZ and EPD1.
            let (bits, disabled) = (64 - (tcr >> (16 * half) & 0x3f) as u32, tcr >> (7 + 16 * half) & 1 == 1);
            if register(Sysreg::SctlrEl1) & 1 == 0 || disabled || !(25..=48).contains(&bits) {
                return None;
            }
            let root = Root { table: ttbr[half] & 0x0000_ffff_ffff_fffe, bits };
            let desc = Desc::Table { next: root.table, forbids: 0 };
            let va = if half == 0 { 0 } else { u64::MAX << bits };
            Some(Entry { level: root.level() - 1, va, slot: 0, desc, asid, root })
        };
        [0, 1].into_iter().filter_map(half).collect()
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    now: Time,
    memory: BTreeMap<u64, u64>,
    /// The slot that is being stored to, and its old value.
    replaced: Option<(u64, u64)>,
    pes: Vec<Pe>,
    /// Every root that was ever loaded.
    roots: BTreeSet<Root>,
    unseen: Vec<Unseen>,
    executed: Vec<Executed>,
    /// Since when each entry has been gone from the tables.
    stale: BTreeMap<Entry, Time>,
    /// When each slot of a table that is not linked was last stored zero to, if nothing else was stored since.
    zeroed: BTreeMap<u64, Time>,
}

impl Reference {
    /// `pes` PEs with their MMUs off, memory all zero.
    pub(crate) fn new(pes: usize) -> Self {
        Self { pes: vec![Pe::default(); pes], ..Self::default() }
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
                self.publish(pe, |store| (store.waited.contains(&pe), store.waited_for_all.contains(&pe)));
                self.executed.push(Executed { at: self.now, pe, op, completed: false });
                if op.scope != Scope::Local {
                    // A broadcast TLBI wants a DSB that reaches as far; a local one has ordered nothing for it.
                    let unseen = self.unseen.clone();
                    self.unseen.iter_mut().for_each(|u| u.published.clear());
                    self.fetch();
                    self.unseen = unseen;
                }
            }
            What::Dsb(dsb) => self.dsb(pe, dsb),
            What::Isb | What::ExceptionEntry | What::Eret => {
                let pe = &mut self.pes[pe];
                pe.effective = pe.written.clone();
                self.roots.extend(pe.roots().iter().map(|root| root.root));
            }
            What::Sysreg(register, value) => {
                self.pes[pe].written.insert(register, value);
            }
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
        self.fetch();
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
        self.zeroed.retain(|slot, _| !linked.contains(&page(*slot)));
        let stale: BTreeSet<Entry> = self.held().filter(|e| self.is_gone(e)).collect();
        self.stale.retain(|e, _| stale.contains(e));
        for e in stale {
            self.stale.entry(e).or_insert(self.now);
        }
    }

    /// Every walker fetches all it can reach: from its roots, and from the table entries it holds.
    fn fetch(&mut self) {
        for pe in 0..self.pes.len() {
            let roots = self.pes[pe].roots();
            loop {
                let mut found = Vec::new();
                for root in &roots {
                    found.extend(self.read_table(pe, root, root.asid, self.now));
                }
                for (&e, &time) in &self.pes[pe].cached {
                    let tagged =
                        |it: &&Entry| it.root == e.root && it.covers(e.va) && (e.asid.is_none() || e.asid == it.asid);
                    let Some(root) = roots.iter().find(tagged) else { continue };
                    found.extend(self.read_table(pe, &e, root.asid, time));
                    // R4 asks for an ordered store to the entry's own slot, if that is what removed it, whatever leads there.
                    let says = |value| Desc::decode(value, e.level) == e.desc;
                    let unseen = |u: &Unseen| u.slot == e.slot && says(u.old) && !u.published.contains(&pe);
                    if !says(self.value(e.slot)) && self.unseen.iter().any(unseen) {
                        found.push((e, self.now));
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

    /// What the walker of `pe` may fetch through a table entry, no younger than `time`.
    fn read_table(&self, pe: usize, above: &Entry, asid: Option<u16>, time: Time) -> Vec<(Entry, Time)> {
        let (Some(table), level, mut found) = (above.next(), above.level + 1, Vec::new()) else { return Vec::new() };
        let slots = table..table + PAGE;
        let values = self.memory.range(slots.clone()).map(|(slot, value)| (*slot, *value, true));
        let visible = self.unseen.iter().filter(|u| slots.contains(&u.slot) && !u.published.contains(&pe));
        for (slot, value, current) in values.chain(visible.map(|u| (u.slot, u.old, false))) {
            let desc = Desc::decode(value, level);
            if !desc.is_cacheable() {
                continue;
            }
            let asid = asid.filter(|_| !desc.is_global());
            let own = (slot - table) / 8;
            for (index, desc) in desc.run(own, level) {
                let va = above.va.wrapping_add(index * span(level));
                let e = Entry { level, va, slot: table + 8 * index, desc, asid, root: above.root };
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

    fn value(&self, slot: u64) -> u64 {
        self.memory.get(&slot).copied().unwrap_or(0)
    }

    /// What the tables say now for the span of `e`, and where: the leaf above it, or whatever stands at its level.
    fn meaning(&self, e: &Entry) -> (i8, u64, Desc) {
        let (mut table, mut first) = (e.root.table, e.va & u64::MAX << e.root.bits);
        for level in e.root.level()..=e.level {
            let index = (e.va - first) / span(level);
            let slot = table + 8 * index;
            match Desc::decode(self.value(slot), level) {
                Desc::Table { next, .. } if level < e.level => table = next,
                found => return (level, slot, found),
            }
            first += index * span(level);
        }
        (e.level, 0, Desc::Nothing)
    }

    /// How the tables' meaning differs from what `e` says.
    fn difference(&self, e: &Entry) -> Change {
        let (level, _, desc) = self.meaning(e);
        match desc {
            Desc::Nothing => Change::Owed,
            _ if level != e.level => Change::Break,
            _ => self.compare(e, &desc),
        }
    }

    /// How `desc`, at its level, differs from what `e` says.
    fn compare(&self, e: &Entry, desc: &Desc) -> Change {
        compare(&e.desc, desc, |a, b| self.same_contents(a, b, e.size()))
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
            for level in root.level()..=3 {
                linked.extend(&tables);
                let values = tables.iter().flat_map(|table| self.memory.range(*table..*table + PAGE));
                tables = values.filter_map(|(_, value)| Desc::decode(*value, level).next()).collect();
            }
        }
        linked
    }

    fn store(&mut self, pe: usize, slot: u64, value: u64) -> Vec<Seen> {
        let fresh: BTreeSet<Entry> = self.held().filter(|e| !self.is_gone(e)).collect();
        let linked = self.linked();
        let old = self.memory.insert(slot, value).unwrap_or(0);
        self.replaced = Some((slot, old));
        if linked.contains(&page(slot)) || self.held().any(|e| e.slot == slot || e.next() == Some(page(slot))) {
            self.unseen.push(Unseen { slot, old, knowers: [pe].into(), ..Unseen::default() });
        }
        if value == 0 {
            self.zeroed.insert(slot, self.now);
        } else {
            self.zeroed.remove(&slot);
        }
        let new_tables = &self.linked() - &linked;
        let verdicts = self.judge(|all, e| {
            let breaks = all.difference(e) == Change::Break;
            let becomes_table = || e.next().is_none() && new_tables.iter().any(|it| overlap((*it, PAGE), e.target()));
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
        if (level, there.next()) == (e.level, Some(table)) || table != page(slot) {
            return false;
        }
        if self.linked().contains(&table) {
            // Linked elsewhere: it may be emptied there, and neither software bits nor the access flag are a change.
            let aged = |value| Desc::decode(value | 1 << 10, e.level + 1);
            return value & 1 == 1 && aged(old) != aged(value);
        }
        let cleared = || (table..table + PAGE).step_by(8).all(|slot| self.zeroed.get(&slot) > Some(since));
        value & 1 == 1 && value != old || cleared()
    }

    /// The verdicts about what is held, by what `kind` says of it; equal ones made one.
    fn judge(&self, kind: impl Fn(&Self, &Entry) -> Option<Kind>) -> Vec<Seen> {
        let mut verdicts: BTreeMap<(Kind, u64, i8), Seen> = BTreeMap::new();
        for e in self.held().collect::<BTreeSet<Entry>>() {
            let Some(kind) = kind(self, &e) else { continue };
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
        e.next() == Some(page(child.slot))
            && e.level + 1 == child.level
            && e.covers(child.va)
            && e.root == child.root
            && self.holds_now(child)
    }

    /// Whether the slot that `e` was read from holds it still; for the slot of the store at hand, until then.
    fn holds_now(&self, e: &Entry) -> bool {
        let replaced = self.replaced.filter(|(slot, _)| *slot == e.slot).map(|(_, old)| old);
        let desc = Desc::decode(replaced.unwrap_or_else(|| self.value(e.slot)), e.level);
        desc.is_cacheable() && self.compare(e, &desc) == Change::None
    }

    fn dsb(&mut self, pe: usize, dsb: Dsb) {
        let [own, all] = [Scope::Local, Scope::Inner].map(|scope| dsb.publishes_stores(scope.domain()));
        self.publish(pe, |store| (own && store.knowers.contains(&pe), all && store.knowers.contains(&pe)));
        for store in &mut self.unseen {
            store.waited.extend(own.then_some(pe));
            store.waited_for_all.extend(all.then_some(pe));
        }
        for i in 0..self.executed.len() {
            let Executed { at, pe: issuer, op, completed } = self.executed[i];
            if issuer == pe && !completed && dsb.completes_tlbi(op.scope.domain()) {
                self.executed[i].completed = true;
                for (target, it) in self.pes.iter_mut().enumerate() {
                    if op.scope == Scope::Inner || target == pe {
                        it.cached.retain(|e, fetched| *fetched >= at || !misses(&op, e).is_empty());
                    }
                }
                // The next TLBI may have been performed long after this one.
                self.fetch();
            }
        }
    }

    /// What is visible to the walker of `pe`, and to all, by what `which` says; so is every earlier store to the same slot.
    fn publish(&mut self, pe: usize, which: impl Fn(&Unseen) -> (bool, bool)) {
        let unseen = std::mem::take(&mut self.unseen);
        for (i, mut store) in unseen.iter().cloned().enumerate() {
            let visible = |to: fn((bool, bool)) -> bool| {
                unseen[i..].iter().any(|later| later.slot == store.slot && to(which(later)))
            };
            let (own, all) = (visible(|it| it.0), visible(|it| it.1));
            if own {
                store.published.insert(pe);
            }
            if !all {
                self.unseen.push(store);
            }
        }
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
        for Executed { at, pe, op, completed } in self.executed.iter().filter(|tlbi| tlbi.at > since) {
            let mut all = misses(op, e);
            let mut also = |yes: bool, cause| all.extend(yes.then_some(cause));
            // It may be fetched again through a table entry that the operation leaves.
            let leaf_only = matches!(op.target, Target::Va { leaf_only: true, .. });
            let left = if leaf_only { Cause::LeafOnly } else { Cause::WrongAsid };
            also(above.iter().any(|it| !misses(op, it).is_empty()), left);
            also(op.scope == Scope::Local && pes.iter().any(|it| it != pe), Cause::LocalOnly);
            also(youngest >= Some(at), Cause::NotOrdered);
            also(!completed, Cause::NotCompleted);
            causes.extend(if all.is_empty() { vec![left] } else { all });
        }
        // Whether a TLBI for something else was meant for this is anybody's guess, and so is what a run's other members did.
        let other = |cause| matches!(cause, Cause::WrongRange | Cause::WrongAsid | Cause::GlobalSurvives);
        match causes.pop_first() {
            None => Some(Cause::NoInvalidation),
            Some(cause) => (causes.is_empty() && !other(cause) && e.desc.run(0, e.level).len() == 1).then_some(cause),
        }
    }
}

/// The table that a slot lies in.
fn page(slot: u64) -> u64 {
    slot & !(PAGE - 1)
}

fn overlap((a, a_size): (u64, u64), (b, b_size): (u64, u64)) -> bool {
    a < b.saturating_add(b_size) && b < a.saturating_add(a_size)
}

/// Why `op` does not remove `e` where it is executed.
fn misses(op: &Op, e: &Entry) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut unless = |good: bool, cause| causes.extend((!good).then_some(cause));
    match op.target {
        Target::Asid(_) if e.asid.is_none() => unless(false, Cause::GlobalSurvives),
        Target::Asid(asid) => unless(e.asid == Some(asid.number()), Cause::WrongAsid),
        Target::Va { va, asid, leaf_only, ttl } => {
            unless(e.covers(va.align_down(PAGE).bits()), Cause::WrongRange);
            unless(e.asid.is_none_or(|it| asid.is_none_or(|asid| it == asid.number())), Cause::WrongAsid);
            // TTL is granule (1: 4 KiB, 0: no hint) and level of the leaf; a table is above that.
            let named =
                if e.next().is_some() { |leaf, level| leaf > level } else { |leaf: i8, level: i8| leaf == level };
            unless(ttl >> 2 == 0 || ttl >> 2 == 1 && named((ttl & 3) as i8, e.level), Cause::WrongTtl);
            unless(!leaf_only || e.next().is_none(), Cause::LeafOnly);
        }
        _ => {}
    }
    causes
}
