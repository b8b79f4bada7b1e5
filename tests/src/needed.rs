//! Which of the instructions that were withheld from the model were needed, by the slow reference on the recorded trace.
//!
//! The reference walks all of memory after every event, which is too slow for the millions of a Linux run. So each withheld
//! instruction is looked at through one address at a time: the reference is fed with the stores to the tables on that
//! address's way, the barriers, and the invalidations that concern it, in the order of the trace. Up to the instruction
//! there is one reference; from there on there are two, one that is told of it and one that is not. It was needed if only the
//! latter comes to a verdict.
//!
//! It is looked at from a million events before the instruction to a million after it. So some needed ones may be missed
//! here, and none is made up.
//!
//! Other withheld instructions are told to neither: both judge what the model saw.

use crate::reference::Reference;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Read};
use tlbi::{Dsb, Op, Target, VirtAddr};
use tlbsan::blind::leaf_only;
use tlbsan::machine::{Loaded, MAX_PES, Registers};
use tlbsan::trace::Replay;
use tlbsan::{Event, Sysreg, What, World};

/// Addresses at which an invalidation of many is looked at.
const SAMPLES: usize = 4;
/// Accessed pages that are remembered of an ASID.
const ACCESSED: usize = 64;
const PAGE: u64 = 4096;
/// Events before and after an instruction that it is looked at in: entries that went stale earlier, or that are put to another
/// use later, count for nothing here.
const WINDOW: u64 = 1_000_000;
/// 48 bits in both halves, 4 KiB granule, 16-bit ASIDs: what Linux has here, and what the reference is told.
const TCR: u64 = 16 | 16 << 16 | 2 << 30 | 1 << 36;

/// Instructions that were withheld, by their event, and whether they were only taken for leaf-only ones.
pub type Withheld = BTreeMap<u64, bool>;

/// One address of one instruction.
struct View {
    event: u64,
    va: u64,
    /// The ASID that counts; `None`: the kernel's half, where it is left out.
    asid: Option<u16>,
    told: Reference,
    /// From the instruction on.
    untold: Option<Reference>,
    /// Slots on the address's way, now or once, by table.
    slots: BTreeMap<u64, BTreeSet<u64>>,
    /// Tables that are on the way now.
    linked: BTreeSet<u64>,
    /// Whether a block has been on the way: then leaf-only invalidations of its other pages count too.
    block: bool,
    roots: BTreeSet<u64>,
    loaded: [Option<u64>; MAX_PES],
    /// Slots whose last store no DSB of its writer has followed yet, and the PEs of which one has.
    unordered: BTreeMap<u64, (usize, BTreeSet<usize>)>,
    /// Who has invalidated everything that this view is about, after the instruction.
    ending: Option<usize>,
    /// PEs that a DSB may matter of.
    busy: [bool; MAX_PES],
    outcome: Option<bool>,
}

/// The two passes over a trace.
struct Needed<'a> {
    withheld: &'a Withheld,
    /// By the event of the instruction.
    views: Vec<View>,
    /// Views whose window has begun are those below; of these some have ended.
    begun: usize,
    active: Vec<usize>,
    /// Views by the pages of tables that they follow.
    by_table: HashMap<u64, Vec<usize>>,
    registers: Vec<(Registers, Registers)>,
    halves: Vec<[Option<Loaded>; 2]>,
}

/// The withheld instructions that were needed.
pub fn needed(open: impl Fn() -> Box<dyn Read>, withheld: &Withheld) -> BTreeSet<u64> {
    let mut views = views(open(), withheld);
    views.sort_by_key(|view| view.event);
    let mut needed = Needed {
        withheld,
        views,
        begun: 0,
        active: Vec::new(),
        by_table: HashMap::new(),
        registers: vec![Default::default(); MAX_PES],
        halves: vec![[None; 2]; MAX_PES],
    };
    let mut replay = Replay::new(BufReader::new(open())).expect("a trace");
    let mut number = 0;
    while let Some(event) = replay.next_event().expect("a whole trace") {
        number += 1;
        if number % 1024 == 1 {
            needed.begin_and_end(&replay, number);
        }
        needed.event(&replay, number, &event);
    }
    needed.views.iter().filter(|view| view.outcome == Some(true)).map(|view| view.event).collect()
}

/// First pass: from which addresses each instruction is to be looked at.
fn views(trace: Box<dyn Read>, withheld: &Withheld) -> Vec<View> {
    let mut replay = Replay::new(BufReader::new(trace)).expect("a trace");
    let mut views = Vec::new();
    let mut asids = [0_u16; MAX_PES];
    let mut accessed: HashMap<u16, Vec<u64>> = HashMap::new();
    // The last invalidation of each PE since its last DSB, and DSBs that wait for the next.
    let mut last: Vec<Option<Op>> = vec![None; MAX_PES];
    let mut waiting: Vec<Vec<u64>> = vec![Vec::new(); MAX_PES];
    let mut number = 0;
    while let Some(event) = replay.next_event().expect("a whole trace") {
        number += 1;
        let pe = event.pe;
        match event.what {
            // Linux has the ASID in TTBR1 (A1).
            What::Sysreg(Sysreg::Ttbr1El1, value) => asids[pe] = (value >> 48) as u16,
            What::Access { va, el: 0, .. } => {
                let pages = accessed.entry(asids[pe]).or_default();
                let page = va << 8 >> 8 & !(PAGE - 1);
                if !pages.contains(&page) {
                    if pages.len() == ACCESSED {
                        pages.remove(0);
                    }
                    pages.push(page);
                }
            }
            What::Tlbi(op) => {
                let mut look =
                    |event| views.extend(addresses(op, &accessed).into_iter().map(|at| View::new(event, at)));
                if withheld.contains_key(&number) {
                    look(number);
                }
                waiting[pe].drain(..).for_each(&mut look);
                last[pe] = Some(op);
            }
            What::Dsb(_) => {
                if withheld.contains_key(&number) {
                    if let Some(op) = last[pe] {
                        views.extend(addresses(op, &accessed).into_iter().map(|at| View::new(number, at)));
                    }
                    waiting[pe].push(number);
                } else {
                    waiting[pe].clear();
                    last[pe] = None;
                }
            }
            _ => {}
        }
    }
    views
}

/// Where an operation is looked at.
fn addresses(op: Op, accessed: &HashMap<u16, Vec<u64>>) -> Vec<(u64, Option<u16>)> {
    let of_asid = |asid: u16, inside: &dyn Fn(u64) -> bool| {
        let pages = accessed.get(&asid).into_iter().flatten().rev().copied().filter(|page| inside(*page));
        pages.take(SAMPLES).map(|page| (page, Some(asid))).collect::<Vec<_>>()
    };
    match op.target {
        Target::Va { va, asid, .. } => vec![(va.bits() << 8 >> 8, asid.map(tlbi::Asid::number))],
        Target::VaRange { pages, asid, .. } => {
            let (first, last) = (pages.first_va(), pages.first_va() + (pages.size() - 1));
            let ends = [first, last & !(PAGE - 1)].map(|va| (va << 8 >> 8, asid.map(tlbi::Asid::number)));
            let inside = asid.map_or(Vec::new(), |asid| of_asid(asid.number(), &|page| (first..=last).contains(&page)));
            ends.into_iter().chain(inside).collect()
        }
        Target::Asid(asid) => of_asid(asid.number(), &|_| true),
        _ => Vec::new(),
    }
}

impl View {
    fn new(event: u64, (va, asid): (u64, Option<u16>)) -> Self {
        let half = va >> 55 & 1;
        let mut told = Reference::new(4);
        // Only the half that the address is in.
        let tcr = TCR | if half == 1 { 1 << 7 | 1 << 22 } else { 1 << 23 };
        for pe in 0..4 {
            for (register, value) in [(Sysreg::TcrEl1, tcr), (Sysreg::SctlrEl1, 1)] {
                told.event(Event { pe, pc: 0, what: What::Sysreg(register, value) }, &|_| 0);
            }
        }
        let asid = if half == 1 { None } else { asid };
        let (loaded, busy) = ([None; MAX_PES], [false; MAX_PES]);
        let (slots, linked, roots) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self {
            event,
            va,
            asid,
            told,
            untold: None,
            slots,
            linked,
            block: false,
            roots,
            loaded,
            unordered: BTreeMap::new(),
            ending: None,
            busy,
            outcome: None,
        }
    }

    fn half(&self) -> usize {
        (self.va >> 55 & 1) as usize
    }

    /// Tells both references.
    fn feed(&mut self, world: &impl World, pe: usize, what: What) {
        let event = Event { pe, pc: 0, what };
        let memory = |pa: u64| world.load(pa).unwrap_or(0);
        let with = !self.told.event(event, &memory).is_empty();
        let without = self.untold.as_mut().map(|untold| !untold.event(event, &memory).is_empty());
        if let What::Dsb(_) = what {
            // Without accesses R6 is no question: what was removed need not be remembered until the PE is synchronised.
            let isb = Event { pe, pc: 0, what: What::Isb };
            self.untold.iter_mut().chain([&mut self.told]).for_each(|it| _ = it.event(isb, &memory));
        }
        if self.outcome.is_none() && (with || without == Some(true)) {
            // A verdict that both come to says nothing about the instruction.
            self.outcome = Some(!with);
        }
        self.busy[pe] |= matches!(what, What::Store { .. } | What::Load { .. } | What::Tlbi(_));
        match what {
            What::Store { pa, .. } => _ = self.unordered.insert(pa, (pe, BTreeSet::new())),
            What::Tlbi(op) => {
                self.unordered.retain(|_, (_, waited)| !waited.contains(&pe));
                if self.untold.is_some() && matches!(op.target, Target::All | Target::Asid(_)) {
                    self.ending = (op.scope != tlbi::Scope::Local).then_some(pe);
                }
            }
            What::Dsb(dsb) => {
                if dsb.covers_stores() {
                    self.unordered.retain(|_, (writer, _)| *writer != pe);
                    self.unordered.values_mut().for_each(|(_, waited)| _ = waited.insert(pe));
                }
                if self.ending == Some(pe) && dsb.covers_loads() && dsb.covers_stores() {
                    // Whatever was stale is gone from both.
                    self.outcome = self.outcome.or(Some(false));
                }
            }
            _ => {}
        }
    }

    /// Follows the tables on the address's way, from every root. Tables that are new on it are told as if stored just now.
    fn follow(&mut self, world: &impl World, pe: usize) -> Vec<u64> {
        let ways: Vec<Vec<(u64, u64)>> = self.roots.iter().map(|root| self.way(world, *root)).collect();
        self.block |= ways.iter().any(|way| way.len() == 3 && world.load(way[2].1).is_some_and(|entry| entry & 3 == 1));
        let met: Vec<(u64, u64)> = ways.into_iter().flatten().collect();
        self.linked = met.iter().map(|(table, _)| *table).collect();
        let new: Vec<(u64, u64)> =
            met.into_iter().filter(|(table, slot)| self.slots.entry(*table).or_default().insert(*slot)).collect();
        for (_, slot) in new.iter().rev() {
            self.feed(world, pe, What::Store { pa: *slot, size: 8 });
        }
        new.into_iter().map(|(table, _)| table).collect()
    }

    /// The operation as far as it concerns the address.
    fn concerning(&self, op: Op) -> Option<Op> {
        let target = match op.target {
            Target::All | Target::AllStages | Target::AllVmids => Target::All,
            Target::Asid(asid) => (Some(asid.number()) == self.asid).then_some(op.target)?,
            Target::Va { va, asid, leaf_only, ttl } => {
                let first = va.bits() & !(PAGE - 1);
                return self.by_address(op, first, PAGE, asid, leaf_only, ttl);
            }
            Target::VaRange { pages, asid, leaf_only } => {
                return self.by_address(op, pages.first_va(), pages.size(), asid, leaf_only, 0);
            }
            _ => return None,
        };
        Some(Op { target, ..op })
    }

    /// An operation that removes nothing that the view is about.
    fn elsewhere(&self) -> Op {
        let va = VirtAddr::new(self.va << 8 >> 8 ^ 1 << 38);
        Op::local(Target::Va { va, asid: None, leaf_only: true, ttl: 0 })
    }

    fn by_address(
        &self,
        op: Op,
        first: u64,
        size: u64,
        asid: Option<tlbi::Asid>,
        leaf_only: bool,
        ttl: u8,
    ) -> Option<Op> {
        let (first, mine) = (first << 8 >> 8, self.va << 8 >> 8);
        let last = first + (size - 1);
        let named = self.asid.is_none() || asid.is_none() || asid.map(tlbi::Asid::number) == self.asid;
        // Tables count wherever they are on the way.
        let page = mine & !(PAGE - 1);
        let near = (first..=last).contains(&page) || self.block && (first >> 21..=last >> 21).contains(&(mine >> 21));
        if !named || (first >> 55) != (mine >> 55) || (leaf_only && !near) {
            return None;
        }
        let at = page.clamp(first, last & !(PAGE - 1));
        let asid = if self.asid.is_none() { None } else { asid };
        Some(Op { target: Target::Va { va: VirtAddr::new(at << 8 >> 8), asid, leaf_only, ttl }, ..op })
    }
}

impl Needed<'_> {
    fn begin_and_end(&mut self, world: &impl World, number: u64) {
        while self.views.get(self.begun).is_some_and(|view| view.event <= number + WINDOW) {
            self.active.push(self.begun);
            for pe in 0..MAX_PES {
                self.load(world, pe, self.begun);
            }
            self.begun += 1;
        }
        let views = &mut self.views;
        self.active.retain(|index| {
            let view = &mut views[*index];
            let over = view.outcome.is_some() || view.event + WINDOW < number;
            if over {
                // Nothing of it is needed any more but what came of it.
                let (event, outcome) = (view.event, view.outcome.or(Some(false)));
                *view = View { outcome, ..View::new(event, (view.va, view.asid)) };
            }
            !over
        });
    }

    fn event(&mut self, world: &impl World, number: u64, event: &Event) {
        let pe = event.pe;
        match event.what {
            What::Sysreg(register, value) => self.registers[pe].0.write(register, value),
            What::Isb | What::ExceptionEntry | What::Eret => self.synchronise(world, pe),
            What::Store { pa, size } | What::Zero { pa, size } => {
                for slot in (pa & !7..pa + size).step_by(8) {
                    self.accessed(world, pe, slot, What::Store { pa: slot, size: 8 });
                }
                self.reused(world, pe, pa, size);
            }
            What::Load { pa, size } => {
                for slot in (pa & !7..pa + size).step_by(8) {
                    self.accessed(world, pe, slot, What::Load { pa: slot, size: 8 });
                }
            }
            What::Tlbi(op) => self.tlbi(world, number, pe, op),
            What::Dsb(dsb) => self.dsb(world, number, pe, dsb),
            _ => {}
        }
    }

    fn synchronise(&mut self, world: &impl World, pe: usize) {
        let (written, effective) = &mut self.registers[pe];
        if written == effective {
            return;
        }
        *effective = *written;
        self.halves[pe] = [0, 1].map(|half| written.loaded(half).ok().flatten());
        for at in 0..self.active.len() {
            self.load(world, pe, self.active[at]);
        }
    }

    /// Tells a view what a PE translates through, if it is another table than it was told last.
    fn load(&mut self, world: &impl World, pe: usize, index: usize) {
        let view = &mut self.views[index];
        let loaded = self.halves[pe][view.half()];
        let loaded = loaded.filter(|loaded| view.asid.is_none() || view.asid == Some(loaded.asid));
        let table = loaded.map(|loaded| loaded.root.table);
        if view.outcome.is_some() || view.loaded[pe] == table {
            return;
        }
        view.loaded[pe] = table;
        let new = match table {
            Some(table) if view.roots.insert(table) => view.follow(world, pe),
            _ => Vec::new(),
        };
        let register = [Sysreg::Ttbr0El1, Sysreg::Ttbr1El1][view.half()];
        let ttbr = table.unwrap_or(0) | u64::from(view.asid.unwrap_or(0)) << 48;
        view.feed(world, pe, What::Sysreg(register, ttbr));
        view.feed(world, pe, What::Isb);
        self.follows(index, &new);
    }

    fn follows(&mut self, view: usize, tables: &[u64]) {
        for table in tables {
            let views = self.by_table.entry(*table).or_default();
            if !views.contains(&view) {
                views.push(view);
            }
        }
    }

    fn accessed(&mut self, world: &impl World, pe: usize, slot: u64, what: What) {
        let Some(views) = self.by_table.get(&(slot & !(PAGE - 1))) else { return };
        for index in views.clone() {
            let view = &mut self.views[index];
            if view.outcome.is_some() {
                continue;
            }
            let table = slot & !(PAGE - 1);
            let on_the_way = view.slots.get(&table).is_some_and(|slots| slots.contains(&slot));
            let is_store = matches!(what, What::Store { .. });
            // Who loads what another has stored may order it.
            let matters = is_store || view.unordered.get(&slot).is_some_and(|(writer, _)| *writer != pe);
            if on_the_way && matters {
                let new = if is_store { view.follow(world, pe) } else { Vec::new() };
                view.feed(world, pe, what);
                self.follows(index, &new);
            }
        }
    }

    /// A table that is on nobody's way any more may be put to another use, wherever in it. That can only be wrong without the
    /// instruction.
    fn reused(&mut self, world: &impl World, pe: usize, pa: u64, size: u64) {
        let table = pa & !(PAGE - 1);
        for index in self.by_table.get(&table).map_or(&[][..], Vec::as_slice) {
            let view = &mut self.views[*index];
            if view.outcome.is_none() && view.untold.is_some() && !view.linked.contains(&table) {
                view.feed(world, pe, What::Store { pa, size });
            }
        }
    }

    fn tlbi(&mut self, world: &impl World, number: u64, pe: usize, op: Op) {
        let seen = match self.withheld.get(&number) {
            None => Some(op),
            Some(weakened) => leaf_only(op).filter(|_| *weakened),
        };
        for index in &self.active {
            let view = &mut self.views[*index];
            if view.event == number {
                view.untold = Some(view.told.clone());
                if let Some(op) = view.concerning(op) {
                    view.tell(world, pe, What::Tlbi(op), true);
                }
                if let Some(op) = seen.and_then(|op| view.concerning(op)) {
                    view.tell(world, pe, What::Tlbi(op), false);
                }
                continue;
            }
            // Any other shows all the same that its PE was handed what others stored before its last DSB (R4).
            let elsewhere =
                || view.unordered.values().any(|(_, waited)| waited.contains(&pe)).then(|| view.elsewhere());
            if let Some(op) = seen.and_then(|op| view.concerning(op).or_else(elsewhere)) {
                view.feed(world, pe, What::Tlbi(op));
            }
        }
    }

    fn dsb(&mut self, world: &impl World, number: u64, pe: usize, dsb: Dsb) {
        let withheld = self.withheld.contains_key(&number);
        for index in &self.active {
            let view = &mut self.views[*index];
            if view.event == number {
                view.untold = Some(view.told.clone());
                view.tell(world, pe, What::Dsb(dsb), true);
            } else if !withheld && (view.busy[pe] || !view.unordered.is_empty()) {
                view.feed(world, pe, What::Dsb(dsb));
                view.busy[pe] = !(dsb.covers_loads() && dsb.covers_stores());
            }
        }
    }
}

impl View {
    /// Tells one of the two: the one that knows of the instruction, or the other.
    fn tell(&mut self, world: &impl World, pe: usize, what: What, with: bool) {
        let reference = if with { Some(&mut self.told) } else { self.untold.as_mut() };
        if let Some(reference) = reference {
            reference.event(Event { pe, pc: 0, what }, &|pa| world.load(pa).unwrap_or(0));
        }
        self.busy[pe] = true;
    }

    /// The tables and slots that a walk for the address meets from a root.
    fn way(&self, world: &impl World, root: u64) -> Vec<(u64, u64)> {
        let (mut way, mut table) = (Vec::new(), root);
        for level in 0..4 {
            let slot = table + (self.va >> (39 - 9 * level) & 0x1ff) * 8;
            way.push((table, slot));
            match world.load(slot) {
                Some(entry) if entry & 3 == 3 => table = entry & 0x0000_ffff_ffff_f000,
                _ => break,
            }
        }
        way
    }
}
