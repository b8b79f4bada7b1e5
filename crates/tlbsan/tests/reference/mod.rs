//! The rules a second time: a reference that is slow, plain, and written from docs/rules.md, with what that says is "under".
//!
//! It keeps, for each PE, the set of all entries that its TLB and walk caches may hold. After every event everything that
//! a walker could fetch is fetched into that set, by walking all of memory; a completed TLBI takes out what it covers. An
//! entry is *stale* if the tables, walked again, no longer say what it says. What is unlinked, what can be refilled through
//! what, and who may hold what since when follows from it.
//!
//! Time counts events, and the slots of a wide store. Each entry remembers when it could last have been fetched: a TLBI removes, when its
//! DSB comes, what could not be fetched any more since the TLBI was executed (R4: a store that no DSB has published yet
//! lets walkers fetch the old value still). A stale table entry is a place to fetch from as well, but what is fetched
//! through it is no younger than the table entry itself, so that one TLBI that covers both removes both. An entry that another
//! member of its contiguous run stands for is fetched from there again.
//!
//! A TLBI has failed an entry for every reason that applies: other addresses, another ASID, leaf only ... Where there is one, of all
//! TLBIs, it is the cause of the verdict; where there are several the rules leave it open which is named.
//!
//! What a descriptor says and where registers let walks begin is no rule about TLBs: `tests/formats.rs` reads both a second time.

mod contexts;
mod fetch;
mod operations;
mod tables;
mod verdicts;

use operations::{misses, names};
use std::collections::{BTreeMap, BTreeSet};
use tlbi::{Dsb, Op, Regime, Scope, Target, barrier::Domain};
use tlbsan::descriptor::{Descriptor, Leaf, Table};
use tlbsan::geometry::{Geometry, Space};
use tlbsan::machine::{Loaded, PLACES, Registers, Root};
use tlbsan::{Cause, Event, Hint, IdRegister, Kind, Sysreg, What};

type Time = u64;
type Pes = BTreeSet<usize>;

/// Something a TLB or walk cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    level: i8,
    va: u64,
    slot: u64,
    says: Descriptor,
    /// None: global.
    asid: Option<u16>,
    /// A leaf of stage 2 as part of an entry that some leaf of stage 1 was combined with.
    combined: bool,
    /// Of a root: shared with other PEs (CnP).
    shared: bool,
    root: Root,
}

/// Where walks begin.
fn roots(registers: &Registers) -> Vec<Entry> {
    let loaded = (0..PLACES).filter_map(|place| registers.loaded(place).ok()?);
    let asid = |it: &Loaded| it.root.space.has_asids().then_some(it.asid);
    loaded.map(|it| Entry { asid: asid(&it), shared: it.shared, ..Entry::top(it.root) }).collect()
}

impl Entry {
    /// A root, as if a table entry led to it.
    fn top(root: Root) -> Self {
        let (level, says) =
            (root.geometry.start_level - 1, Descriptor::Table(Table { next: root.table, hierarchical: 0 }));
        Self { level, va: root.first_va(), slot: 0, says, asid: None, combined: false, shared: false, root }
    }

    /// The same in tables of which the access flag is no part.
    fn aged(&self) -> Self {
        let geometry = Geometry { hw_access_flag: true, ..self.root.geometry };
        Self { root: Root { geometry, ..self.root }, ..*self }
    }

    /// All that it may stand for: its contiguous run.
    fn run(&self) -> Vec<Self> {
        let Some(leaf) = self.leaf().filter(|it| it.contiguous) else { return vec![*self] };
        let run = self.root.geometry.run(self.level) as u64;
        let member = |n: u64| {
            let moved = |it: u64, by: u64| it.wrapping_add(n.wrapping_sub(self.slot / 8 % run).wrapping_mul(by));
            let says = Descriptor::Leaf(Leaf { output: moved(leaf.output, self.size()), ..leaf });
            Self { va: moved(self.va, self.size()), slot: moved(self.slot, 8), says, ..*self }
        };
        (0..run).map(member).collect()
    }

    /// Bytes that it translates.
    fn size(&self) -> u64 {
        let geometry = &self.root.geometry;
        if self.level < geometry.start_level { 1 << geometry.va_bits } else { geometry.size(self.level) }
    }

    /// The bytes of physical memory that it leads to.
    fn target(&self) -> (u64, u64) {
        match self.says {
            Descriptor::Table(table) => (table.next, self.root.geometry.entries(self.level + 1) as u64 * 8),
            Descriptor::Leaf(leaf) => (leaf.output, self.size()),
            Descriptor::Nothing => (0, 0),
        }
    }

    fn leaf(&self) -> Option<Leaf> {
        if let Descriptor::Leaf(leaf) = self.says { Some(leaf) } else { None }
    }

    /// The entry of stage 2 that a combined one was made with, and back.
    fn half(&self) -> Self {
        Self { combined: !self.combined, ..*self }
    }

    /// What a verdict about it tells apart: whatever the ASID.
    fn residue(&self) -> Self {
        Self { asid: None, combined: false, ..*self }
    }
}

/// What a slot held before a store that walkers may not have seen yet.
#[derive(Clone)]
struct Unseen {
    at: Time,
    pe: usize,
    slot: u64,
    old: u64,
    /// Since when the writer knows of it, and whoever has read the slot since.
    knowers: BTreeMap<usize, Time>,
}

/// A TLBI that was executed.
#[derive(Clone, Debug)]
struct Executed {
    at: Time,
    pe: usize,
    op: Op,
    /// As they were.
    registers: Registers,
    /// What PEs could fetch or combine again when it was executed, and when they last could from the tables.
    stays: BTreeMap<(usize, Entry), Time>,
    completed: bool,
}

impl Executed {
    fn reaches(&self, pe: usize) -> bool {
        self.op.scope != Scope::Local || self.pe == pe
    }

    /// Whether it removes `e`.
    fn removes(&self, e: &Entry) -> bool {
        names(&self.registers, &self.op, e) && misses(&self.op, e).is_empty()
    }
}

#[derive(Clone, Debug, Default)]
struct Pe {
    written: Registers,
    effective: Registers,
    /// What it may hold, and when it could last have fetched that.
    cached: BTreeMap<Entry, Time>,
    /// What its own invalidations have removed since it was synchronised.
    settled: BTreeSet<Entry>,
    /// MAIR as translations of either regime may be cached with it, and to what they belong.
    mair: [Option<(u64, Space)>; 2],
    /// The reset since which its TLB holds UNKNOWN entries, of EL1&0 and of EL2's regimes.
    unknown: [Option<Time>; 2],
}

/// What a verdict says, and of what: first address, bytes, level.
pub(crate) type Told = (Kind, u64, u64, i8);

/// A verdict of the reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) told: Told,
    pub(crate) pes: Pes,
    /// None: the rules leave it open.
    pub(crate) cause: Option<Cause>,
}

impl Seen {
    fn new(kind: Kind, e: &Entry, pes: Pes, cause: Option<Cause>) -> Self {
        Self { told: (kind, e.va, e.size(), e.level.max(e.root.geometry.start_level)), pes, cause }
    }
}

/// The reference.
#[derive(Clone, Default)]
pub(crate) struct Reference {
    now: Time,
    /// The level of FEAT_BBM.
    bbm: u8,
    /// What every slot holds, and since when.
    memory: BTreeMap<u64, (u64, Time)>,
    pes: Vec<Pe>,
    unseen: Vec<Unseen>,
    /// DSBs that wait for stores: when, on which PE, and how far.
    dsbs: Vec<(Time, usize, Domain)>,
    executed: Vec<Executed>,
    /// The PE whose TLBI is being performed.
    issuing: Option<usize>,
    /// Entries that verdicts were about.
    told: BTreeSet<Entry>,
    /// Since when each entry has been gone from the tables.
    stale: BTreeMap<Entry, Time>,
    /// When each table was last linked: before which store.
    linked: BTreeMap<(u64, u64), Time>,
}

impl Reference {
    /// `pes` PEs with their MMUs off, memory all zero.
    pub(crate) fn new(pes: usize) -> Self {
        Self { pes: vec![Pe::default(); pes], ..Self::default() }
    }

    /// Forgets what verdicts were about: other members of a contiguous run may stand for it after every invalidation. What walkers can
    /// fetch, they hold again.
    pub(crate) fn forgive(&mut self) {
        let told = std::mem::take(&mut self.told);
        self.pes.iter_mut().for_each(|pe| pe.cached.retain(|e, _| !told.contains(&e.residue())));
        self.settle();
    }

    /// Handles an event; `memory` reads the 8 bytes at an address.
    ///
    /// Stores to all of memory are wanted, not only to tables.
    pub(crate) fn event(&mut self, Event { pe, what, .. }: Event, memory: &dyn Fn(u64) -> u64) -> Vec<Seen> {
        self.now += 1;
        let mut verdicts = Vec::new();
        match what {
            // Of a store to several slots each has its own moment.
            What::Store { pa, size } | What::Zero { pa, size } if pa % 8 + size > 8 => {
                let one = |pa| Event { pe, pc: 0, what: What::Store { pa, size: 8 } };
                return (pa & !7..pa + size).step_by(8).flat_map(|pa| self.event(one(pa), memory)).collect();
            }
            What::Store { pa, .. } | What::Zero { pa, .. } => verdicts = self.store(pe, pa & !7, memory(pa & !7)),
            What::Load { pa, size } if self.is_table(pa & !7) => self.seen(pe, pa & !7..pa + size),
            What::Tlbi(op) => self.tlbi(pe, op),
            What::Dsb(dsb) => self.dsb(pe, dsb),
            What::Isb | What::ExceptionEntry | What::Eret => verdicts = self.synchronised(pe),
            What::Id(IdRegister::Mmfr2, value) => self.bbm = (value >> 52 & 15) as u8,
            What::Sysreg(register, value) => self.pes[pe].written.write(register, value),
            What::Reset => self.pes[pe] = Pe { unknown: [Some(self.now); 2], ..Pe::default() },
            What::Access { va, pa, el, .. } => verdicts.extend(self.accessed(pe, va, pa, el)),
            What::Hint(Hint::FlushClaimed { start, size, asid }) => {
                verdicts = self.claimed(|e| overlap((e.va, e.size()), (start, size)) && e.asid.unwrap_or(asid) == asid);
            }
            What::Hint(Hint::FrameFreed { pa, size }) => verdicts = self.claimed(|e| overlap(e.target(), (pa, size))),
            _ => {}
        }
        self.settle();
        verdicts
    }

    /// Fetches whatever can be fetched, and notes what is stale.
    pub(super) fn settle(&mut self) {
        self.fetch(Domain::NonShareable, &self.pes.clone());
        let gone = self.held().into_iter().filter(|e| self.is_gone(e));
        self.stale = gone.map(|e| (e, self.stale.get(&e).copied().unwrap_or(self.now))).collect();
        // What nobody holds any more is no matter of order.
        let matters = |it: &&Unseen| self.stale.iter().any(|(e, since)| e.slot == it.slot || *since == it.at);
        let matter: BTreeSet<u64> = self.unseen.iter().filter(matters).map(|it| it.slot).collect();
        self.unseen.retain(|it| matter.contains(&it.slot));
        self.dsbs.retain(|_| !self.stale.is_empty());
        self.executed.retain(|it| !self.stale.is_empty() || !it.completed);
    }

    /// What any PE may hold.
    fn held(&self) -> BTreeSet<Entry> {
        self.pes.iter().flat_map(|pe| pe.cached.keys().copied()).collect()
    }

    fn dsb(&mut self, pe: usize, dsb: Dsb) {
        self.dsbs.extend(dsb.covers_stores().then_some((self.now, pe, dsb.domain())));
        let before: Vec<Entry> = self.pes[pe].cached.keys().filter(|e| self.stale.contains_key(e)).copied().collect();
        for i in 0..self.executed.len() {
            let Executed { pe: issuer, op, completed, .. } = self.executed[i];
            let domain = op.scope.domain();
            let enough = if op.nxs { dsb.completes_nxs_tlbi(domain) } else { dsb.completes_tlbi(domain) };
            if issuer == pe && !completed && enough {
                self.executed[i].completed = true;
                let it = self.executed[i].clone();
                let gone = |pe, e: &Entry, time| time < it.at && it.removes(e) && !it.stays.contains_key(&(pe, *e));
                for (pe, Pe { cached, .. }) in self.pes.iter_mut().enumerate().filter(|(pe, _)| it.reaches(*pe)) {
                    cached.retain(|e, time| !gone(pe, e, *time));
                }
                self.all_invalidated(&it);
                // The next TLBI may have been performed long after this one.
                self.fetch(Domain::NonShareable, &self.pes.clone());
            }
        }
        // Of two halves of stage 2 the last one that goes.
        let Pe { cached, settled, .. } = &mut self.pes[pe];
        settled.extend(before.iter().filter(|e| !cached.contains_key(e) && !cached.contains_key(&e.half())));
    }
}

fn overlap((a, a_size): (u64, u64), (b, b_size): (u64, u64)) -> bool {
    a < b.saturating_add(b_size) && b < a.saturating_add(a_size)
}
