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
//! through it is no younger than the table entry itself, so that one TLBI that covers both removes both.
//!
//! Causes: a TLBI fails an entry for the first of these that applies: other addresses, another ASID (or a global entry and
//! an operation by ASID), a wrong TTL, leaf only, local only, not ordered, not completed. Of several TLBIs the one that got
//! furthest down that list is the nearest to sufficient and gives the cause. Rules leave that choice open; [`Seen::sure`]
//! says whether there was a choice.

mod decode;

pub(crate) use decode::{Change, Desc, Geometry, compare};
use std::collections::{BTreeMap, BTreeSet};
use tlbi::{Dsb, Op, Scope, Target};
use tlbsan::{Cause, Event, Hint, Kind, Sysreg, What};

type Time = u64;
type Pes = BTreeSet<usize>;

/// Where walks begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Root {
    table: u64,
    first_va: u64,
    geometry: Geometry,
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
        self.root.geometry.span(self.level)
    }

    fn covers(&self, va: u64) -> bool {
        va.wrapping_sub(self.va) < self.size()
    }

    /// The table page that it leads to.
    fn next(&self) -> Option<u64> {
        match self.desc {
            Desc::Table { next, .. } => Some(next),
            _ => None,
        }
    }

    /// The bytes of physical memory that it leads to.
    fn target(&self) -> (u64, u64) {
        match self.desc {
            Desc::Table { next, .. } => (next, self.root.geometry.page()),
            Desc::Leaf { output, .. } => (output, self.size()),
            Desc::Nothing => (0, 0),
        }
    }

    /// Whether `value`, in its slot, says what it says.
    fn is(&self, value: u64) -> bool {
        self.root.geometry.decode(value, self.level) == self.desc
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
    new: u64,
    /// The writer, and whoever has read the slot since: a DSB of theirs publishes the store.
    knowers: Pes,
    /// PEs whose own walker sees the store, thanks to a DSB that reaches no further.
    published: Pes,
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
    /// The roots that walks begin at, with the ASID.
    fn roots(&self) -> Vec<(Root, u16)> {
        let register = |name| self.effective.get(&name).copied().unwrap_or(0);
        let tcr = register(Sysreg::TcrEl1);
        let ttbr = [register(Sysreg::Ttbr0El1), register(Sysreg::Ttbr1El1)];
        let asid = ttbr[(tcr >> 22 & 1) as usize] >> 48;
        let asid = if tcr >> 36 & 1 == 1 { asid } else { asid & 0xff } as u16;
        let mut roots = Vec::new();
        for (half, ttbr) in ttbr.into_iter().enumerate() {
            let disabled = tcr >> (7 + 16 * half) & 1 == 1;
            if let Some(geometry) = Geometry::from_tcr(tcr, half)
                && register(Sysreg::SctlrEl1) & 1 == 1
                && !disabled
            {
                let first_va = if half == 0 { 0 } else { u64::MAX << geometry.va_bits };
                roots.push((Root { table: ttbr & 0x0000_ffff_ffff_fffe, first_va, geometry }, asid));
            }
        }
        roots
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
    pub(crate) cause: Cause,
    /// Whether the rules leave no other cause to name.
    pub(crate) sure: bool,
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
    /// Entries that have had their verdict, and have not been in the tables since.
    retired: BTreeSet<Entry>,
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
                for unseen in &mut self.unseen {
                    if (pa & !7..pa + size).contains(&unseen.slot) {
                        unseen.knowers.insert(pe);
                    }
                }
            }
            What::Tlbi(op) => {
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
                self.roots.extend(pe.roots().into_iter().map(|(root, _)| root));
            }
            What::Sysreg(register, value) => {
                self.pes[pe].written.insert(register, value);
            }
            What::Hint(Hint::FlushClaimed { start, size, asid }) => {
                verdicts = self.claim(|e| {
                    let disjoint = e.va > start.saturating_add(size.saturating_sub(1)) || e.va + (e.size() - 1) < start;
                    !disjoint && e.asid.is_none_or(|it| it == asid)
                });
            }
            What::Hint(Hint::FrameFreed { pa, size }) => {
                verdicts = self.claim(|e| overlap(e.target(), (pa, size)));
            }
            _ => {}
        }
        self.settle();
        verdicts
    }

    /// Fetches whatever can be fetched, and notes what is stale.
    fn settle(&mut self) {
        let retired = std::mem::take(&mut self.retired);
        self.retired = retired.into_iter().filter(|e| self.is_stale(e)).collect();
        self.fetch();
        // What the tables say again, if from another place, is as good as read from there.
        for pe in 0..self.pes.len() {
            for (e, time) in self.pes[pe].cached.clone() {
                let (_, slot, _) = self.meaning(&e);
                if slot != e.slot && !self.is_gone(&e) {
                    let cached = &mut self.pes[pe].cached;
                    cached.remove(&e);
                    let known = cached.entry(Entry { slot, ..e }).or_insert(time);
                    *known = time.max(*known);
                }
            }
        }
        let linked = self.linked();
        self.zeroed.retain(|slot, _| !linked.iter().any(|table| overlap(*table, (*slot, 8))));
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
                let mut found: Vec<(Entry, Time)> = Vec::new();
                for (root, asid) in &roots {
                    self.read_table(
                        pe,
                        root.table,
                        root.geometry.start,
                        root.first_va,
                        (*root, *asid),
                        self.now,
                        &mut found,
                    );
                }
                for (e, time) in &self.pes[pe].cached {
                    let tagged =
                        |context: &&(Root, u16)| context.0 == e.root && e.asid.is_none_or(|it| it == context.1);
                    let Some(context) = roots.iter().find(tagged) else { continue };
                    if let Some(next) = e.next() {
                        self.read_table(pe, next, e.level + 1, e.va, *context, *time, &mut found);
                    }
                    // R4 asks for an ordered store to the entry's own slot, whatever leads there.
                    let unseen =
                        |u: &Unseen| u.slot == e.slot && e.is(u.old) && !e.is(u.new) && !u.published.contains(&pe);
                    if self.unseen.iter().any(unseen) {
                        found.push((*e, self.now));
                    }
                }
                let cached = &mut self.pes[pe].cached;
                let before = cached.clone();
                for (e, time) in found {
                    let known = cached.entry(e).or_insert(time);
                    *known = time.max(*known);
                }
                if *cached == before {
                    break;
                }
            }
        }
    }

    /// Reads a table as the walker of `pe` may see it.
    #[allow(clippy::too_many_arguments, reason = "a walk's whole state, in one place")]
    fn read_table(
        &self,
        pe: usize,
        table: u64,
        level: i8,
        va: u64,
        (root, asid): (Root, u16),
        time: Time,
        found: &mut Vec<(Entry, Time)>,
    ) {
        let geometry = root.geometry;
        let slots = table..table + 8 * geometry.entries(level);
        let values = self.memory.range(slots.clone()).map(|(slot, value)| (*slot, *value, true));
        let visible = self.unseen.iter().filter(|u| slots.contains(&u.slot) && !u.published.contains(&pe));
        for (slot, value, current) in values.chain(visible.map(|u| (u.slot, u.old, false))) {
            let desc = geometry.decode(value, level);
            if desc.is_cacheable() {
                let va = va.wrapping_add((slot - table) / 8 * geometry.span(level));
                let asid = if desc.is_global() { None } else { Some(asid) };
                let e = Entry { level, va, slot, desc, asid, root };
                // An old value is fetched again by those that hold it, but not by a walker that comes anew.
                let is_retired = || self.retired.iter().any(|it| it.residue() == e.residue());
                if current && !is_retired() || self.pes[pe].cached.contains_key(&e) {
                    found.push((e, time));
                }
            }
        }
    }

    /// What the tables say now for the span of `e`, and where: the leaf above it, or whatever stands at its level.
    fn meaning(&self, e: &Entry) -> (i8, u64, Desc) {
        let geometry = e.root.geometry;
        let (mut table, mut first) = (e.root.table, e.root.first_va);
        for level in geometry.start..=e.level {
            let index = (e.va - first) / geometry.span(level);
            let slot = table + 8 * index;
            match geometry.decode(self.memory.get(&slot).copied().unwrap_or(0), level) {
                Desc::Table { next, .. } if level < e.level => table = next,
                found => return (level, slot, found),
            }
            first += index * geometry.span(level);
        }
        (e.level, 0, Desc::Nothing)
    }

    /// How the tables' meaning differs from what `e` says.
    fn difference(&self, e: &Entry) -> Change {
        let (level, _, desc) = self.meaning(e);
        self.change(e, level, desc)
    }

    /// How `desc` at `level` differs from what `e` says.
    fn change(&self, e: &Entry, level: i8, desc: Desc) -> Change {
        match desc {
            Desc::Nothing => Change::Gone,
            _ if level != e.level => Change::Break,
            _ => compare(&e.desc, &desc, |a, b| self.same_contents(a, b, e.size())),
        }
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
        let contents = |start: u64| -> Vec<(u64, u64)> {
            let words = self.memory.range(start..start + size).filter(|(_, value)| **value != 0);
            words.map(|(pa, value)| (pa - start, *value)).collect()
        };
        contents(a) == contents(b)
    }

    /// Tables that are linked: reached from a root that is, or was, loaded.
    fn linked(&self) -> BTreeSet<(u64, u64)> {
        let mut linked = BTreeSet::new();
        for root in &self.roots {
            let mut tables = BTreeSet::from([root.table]);
            for level in root.geometry.start..=3 {
                linked.extend(tables.iter().map(|table| (*table, root.geometry.page())));
                let values = tables.iter().flat_map(|t| self.memory.range(*t..t + 8 * root.geometry.entries(level)));
                let below = values.filter_map(|(_, value)| match root.geometry.decode(*value, level) {
                    Desc::Table { next, .. } => Some(next),
                    _ => None,
                });
                tables = below.collect();
            }
        }
        linked
    }

    fn store(&mut self, pe: usize, slot: u64, value: u64) -> Vec<Seen> {
        let fresh: BTreeSet<Entry> = self.held().filter(|e| !self.is_gone(e)).collect();
        let linked = self.linked();
        let old = self.memory.insert(slot, value).unwrap_or(0);
        self.replaced = Some((slot, old));
        let read_from = |e: Entry| e.slot == slot || e.next().is_some() && overlap(e.target(), (slot, 8));
        if linked.iter().any(|table| overlap(*table, (slot, 8))) || self.held().any(read_from) {
            self.unseen.push(Unseen { slot, old, new: value, knowers: [pe].into(), published: Pes::new() });
        }
        if value == 0 {
            self.zeroed.insert(slot, self.now);
        } else {
            self.zeroed.remove(&slot);
        }
        let new_tables: Vec<(u64, u64)> = self.linked().difference(&linked).copied().collect();
        let mut verdicts = Verdicts::default();
        // From the roots down: what retires takes what hangs on it along.
        let held: BTreeSet<Entry> = self.held().collect();
        for e in held {
            if !self.held().any(|it| it == e) {
                continue;
            }
            let becomes_table = || e.next().is_none() && new_tables.iter().any(|table| overlap(*table, e.target()));
            let breaks = self.difference(&e) == Change::Break;
            let kind = if breaks && fresh.contains(&e) {
                Kind::LiveChange
            } else if self.is_stale(&e) && becomes_table() || self.reuses(&e, slot, old, value) {
                Kind::Reused
            } else if breaks {
                Kind::Remade
            } else {
                continue;
            };
            verdicts.add(self, kind, &e);
            self.retire(&e);
        }
        self.replaced = None;
        verdicts.0.into_values().collect()
    }

    /// Whether a store to `slot` puts the table that stale `e` leads to to another use.
    fn reuses(&self, e: &Entry, slot: u64, old: u64, value: u64) -> bool {
        let Some(since) = self.stale.get(e) else { return false };
        let still_there = matches!(self.meaning(e), (level, _, Desc::Table { next, .. }) if (level, Some(next)) == (e.level, e.next()));
        if e.next().is_none() || still_there || !overlap(e.target(), (slot, 8)) {
            return false;
        }
        let (start, size) = e.target();
        let meaning = |value| Geometry { sets_af: true, ..e.root.geometry }.decode(value, e.level + 1);
        if self.linked().contains(&(start, size)) {
            // Linked elsewhere: it may be emptied there, and neither software bits nor the access flag are a change.
            return value & 1 == 1 && meaning(old) != meaning(value);
        }
        let cleared = || (start..start + size).step_by(8).all(|slot| self.zeroed.get(&slot) > Some(since));
        value & 1 == 1 && value != old || cleared()
    }

    fn claim(&mut self, claimed: impl Fn(&Entry) -> bool) -> Vec<Seen> {
        let mut verdicts = Verdicts::default();
        let held: BTreeSet<Entry> = self.held().collect();
        for e in held {
            if self.held().any(|it| it == e) && self.is_stale(&e) && claimed(&e) {
                verdicts.add(self, Kind::Claimed, &e);
                self.retire(&e);
            }
        }
        verdicts.0.into_values().collect()
    }

    fn held(&self) -> impl Iterator<Item = Entry> {
        self.pes.iter().flat_map(|pe| pe.cached.keys().copied())
    }

    /// Forgets `e`, and what could only be fetched again through it.
    fn retire(&mut self, e: &Entry) {
        let same = |it: &Entry| it.residue() == e.residue();
        let mut below: BTreeSet<Entry> = self.held().filter(same).collect();
        loop {
            let more: Vec<Entry> = self.held().filter(|it| below.iter().any(|e| self.leads_to(e, it))).collect();
            let before = below.len();
            below.extend(more);
            if below.len() == before {
                break;
            }
        }
        // Keep what hangs on something else, too.
        loop {
            let others: Vec<Entry> = self.held().filter(|it| !below.contains(it)).collect();
            let kept = |it: &Entry| {
                let rooted = it.level == it.root.geometry.start
                    && overlap((it.root.table, it.root.geometry.page()), (it.slot, 8));
                !same(it) && (rooted && self.holds_now(it) || others.iter().any(|other| self.leads_to(other, it)))
            };
            let before = below.len();
            below.retain(|it| !kept(it));
            if below.len() == before {
                break;
            }
        }
        for pe in &mut self.pes {
            pe.cached.retain(|it, _| !below.contains(it));
        }
        self.retired.extend(below);
    }

    /// Whether a walk through table entry `e` could fetch `child`.
    fn leads_to(&self, e: &Entry, child: &Entry) -> bool {
        e.next().is_some()
            && overlap(e.target(), (child.slot, 8))
            && e.level + 1 == child.level
            && e.covers(child.va)
            && e.root == child.root
            && self.holds_now(child)
    }

    /// Whether the slot that `e` was read from holds it still; for the slot of the store at hand, until then.
    fn holds_now(&self, e: &Entry) -> bool {
        let replaced = self.replaced.filter(|(slot, _)| *slot == e.slot).map(|(_, old)| old);
        let value = replaced.or_else(|| self.memory.get(&e.slot).copied()).unwrap_or(0);
        let desc = e.root.geometry.decode(value, e.level);
        desc.is_cacheable() && self.change(e, e.level, desc) == Change::None
    }

    fn dsb(&mut self, pe: usize, dsb: Dsb) {
        if dsb.publishes_stores(Scope::Inner.domain()) {
            // Once a store is visible, so is every earlier one to its slot.
            for i in (0..self.unseen.len()).rev() {
                if self.unseen[i].knowers.contains(&pe) {
                    let slot = self.unseen[i].slot;
                    let mut index = 0;
                    self.unseen.retain(|u| {
                        index += 1;
                        u.slot != slot || index > i + 1
                    });
                    return self.dsb(pe, dsb);
                }
            }
        } else if dsb.publishes_stores(Scope::Local.domain()) {
            for i in (0..self.unseen.len()).rev() {
                if self.unseen[i].knowers.contains(&pe) {
                    let slot = self.unseen[i].slot;
                    self.unseen[..=i].iter_mut().filter(|u| u.slot == slot).for_each(|u| {
                        u.published.insert(pe);
                    });
                }
            }
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
            unless(e.covers(va.align_down(e.root.geometry.page()).bits()), Cause::WrongRange);
            unless(e.asid.is_none_or(|it| asid.is_none_or(|asid| it == asid.number())), Cause::WrongAsid);
            unless(ttl >> 2 == 0 || e.root.geometry.hint_names(ttl, e.level, e.next().is_some()), Cause::WrongTtl);
            unless(!leaf_only || e.next().is_none(), Cause::LeafOnly);
        }
        _ => {}
    }
    causes
}

/// The verdicts of one event, equal ones made one.
#[derive(Default)]
struct Verdicts(BTreeMap<(Kind, u64, u64, i8), Seen>);

impl Verdicts {
    fn add(&mut self, model: &Reference, kind: Kind, e: &Entry) {
        let of_it = |it: &Entry| it.residue() == e.residue();
        let holders = model.pes.iter().enumerate().filter(|(_, pe)| pe.cached.keys().any(of_it));
        let pes: Pes = holders.map(|(pe, _)| pe).collect();
        let (cause, sure) = if kind == Kind::LiveChange { (Cause::NotBrokenFirst, true) } else { model.cause(e, &pes) };
        let seen = Seen { kind, start: e.va, size: e.size(), level: e.level, pes, cause, sure };
        let key = (kind, e.va, seen.size, e.level);
        let merged = self.0.entry(key).or_insert_with(|| seen.clone());
        merged.sure &= seen.sure && merged.cause == cause;
        merged.pes.extend(seen.pes);
    }
}

impl Reference {
    /// Why the stale `e` is still there on `pes`, and whether no other answer is right.
    fn cause(&self, e: &Entry, pes: &Pes) -> (Cause, bool) {
        const ORDER: [Cause; 9] = [
            Cause::NoInvalidation,
            Cause::WrongRange,
            Cause::WrongAsid,
            Cause::GlobalSurvives,
            Cause::WrongTtl,
            Cause::LeafOnly,
            Cause::LocalOnly,
            Cause::NotOrdered,
            Cause::NotCompleted,
        ];
        let since = self.stale.get(e).copied().unwrap_or(self.now);
        let rank = |cause: &Cause| ORDER.iter().position(|it| it == cause);
        let fetched = |pe: &usize| self.pes[*pe].cached.get(e).copied().unwrap_or(0);
        let youngest = pes.iter().map(fetched).max().unwrap_or(0);
        let mut causes: Vec<Cause> = Vec::new();
        for tlbi in self.executed.iter().filter(|tlbi| tlbi.at > since) {
            let missed = misses(&tlbi.op, e);
            let local =
                (tlbi.op.scope == Scope::Local && pes.iter().any(|pe| *pe != tlbi.pe)).then_some(Cause::LocalOnly);
            let unordered = (youngest >= tlbi.at).then_some(Cause::NotOrdered);
            let open = (!tlbi.completed).then_some(Cause::NotCompleted);
            let all: Vec<Cause> = missed.into_iter().chain([local, unordered, open].into_iter().flatten()).collect();
            // All is well with it: then the entry was fetched again, through a table entry that it left.
            let leaf_only = matches!(tlbi.op.target, Target::Va { leaf_only: true, .. });
            let above = if leaf_only { Cause::LeafOnly } else { Cause::WrongAsid };
            causes.push(all.first().copied().unwrap_or(above));
            if all.len() > 1 {
                causes.push(all[1]);
                causes.push(all[0]);
            }
        }
        // Whether a TLBI for something else was meant for this is anybody's guess.
        let meant = |cause: &Cause| !matches!(cause, Cause::WrongRange | Cause::WrongAsid | Cause::GlobalSurvives);
        let sure = causes.windows(2).all(|pair| pair[0] == pair[1]) && causes.iter().all(meant);
        (causes.into_iter().max_by_key(rank).unwrap_or(Cause::NoInvalidation), sure)
    }
}
