//! The model: events in, records out.
//!
//! It keeps the shadow in step with memory (`tables`), follows what each PE translates through (`contexts`), opens a
//! residue for whatever leaves the tables, lets barriers and TLBIs work on the residues, asks the rules after each step and
//! tells their verdicts (`verdicts`). Accesses by virtual address are judged in `access`. It does not know where events
//! come from, and no sequence of them makes it panic or grow without bound.

mod access;
mod contexts;
mod cost;
mod tables;
mod verdicts;
mod ways;

use crate::blind::{Blind, Blindfold, Sight};
use crate::case::Window;
use crate::change::{Alike, Judge, agree, forbids_more};
use crate::descriptor::{Descriptor, Leaf, Table};
use crate::effect::{Effect, Selection, completes};
use crate::event::{Event, Sysreg, What, World};
use crate::geometry::{Geometry, Space};
use crate::hash::{FastMap, FastSet};
use crate::machine::{EL2, EL10, MAX_PES, Pe};
use crate::report::{Blinded, Record, STREAM_VERSION, Severity, Site, Summary};
use crate::residue::{MAX_OPEN, Residues};
use crate::rules::claimed;
use crate::rules::live_change::{same_memory, same_memory_at_stage_2};
use crate::shadow::Shadow;
use crate::walk::{Walk, walk_to_leaf};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;
use tlbi::Dsb;
use tlbsan_hint::{Cause, Hint, Kind};

/// How the model judges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Act as if the guest had executed no hint.
    pub ignore_hints: bool,
    /// Make a record of every violation, and not of the first from each place in the code only.
    pub tell_all: bool,
    /// Keep account of what invalidations are spent on, by call site. Takes a stack at each.
    pub cost: bool,
    /// What the model is kept from seeing, as a test of its sight.
    pub blind: Blind,
}

/// The model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    pes: Vec<Pe>,
    shadow: Shadow,
    residues: Residues,
    /// The level of FEAT_BBM that all PEs have.
    bbm: u8,
    /// Invalidations wide enough to end what contexts may be held (R3), until a DSB completes them.
    wide_tlbis: Vec<Effect>,
    /// Translations that a verdict was given about: where accesses went by them, nothing more is said.
    condemned: VecDeque<access::Condemned>,
    case: Option<Window>,
    told: FastMap<(Severity, Kind, Cause, u64, u64), Told>,
    remarked: FastSet<(Severity, u64)>,
    noticed: FastSet<String>,
    /// What was spent, if asked for.
    ledger: Option<Box<cost::Ledger>>,
    /// Number of the event being handled.
    time: u64,
    summary: Summary,
    records: Vec<Record>,
    blindfold: Blindfold,
}

/// A violation that has a record.
#[derive(Clone, Copy, Debug)]
struct Told {
    number: u64,
    repeats: u64,
}

/// Places in the code of which a verdict or remark was told; when there are more, they are counted only.
const MAX_TOLD: usize = 1 << 16;
/// Notices made.
const MAX_NOTICES: usize = 256;
/// Invalidations that wait for their DSB and may end contexts.
const MAX_WIDE_TLBIS: usize = 4096;

/// The event being handled, with the world it happens in.
struct Now<'a, W> {
    world: &'a mut W,
    event: &'a Event,
    time: u64,
    label: Option<Arc<str>>,
    site: OnceCell<Arc<Site>>,
}

impl<W: World> Now<'_, W> {
    /// Where the event happened, with its call stack. Asked for only when a story may need it.
    fn site(&self) -> Arc<Site> {
        let make = || {
            let Event { pe, pc, .. } = *self.event;
            let label = self.label.as_deref().map(str::to_owned);
            Arc::new(Site { pe, pc, stack: self.world.stack(), label, at: self.time })
        };
        Arc::clone(self.site.get_or_init(make))
    }
}

/// Compares with the memory of the world.
struct Eye<'a, W> {
    world: &'a W,
    geometry: Geometry,
    bbm: u8,
    /// Whose MAIR says what an attribute is.
    pes: &'a [Pe],
    space: Option<Space>,
}

/// Bytes of two frames that are compared; larger ones are taken as different.
const MAX_COMPARED: u64 = 2 << 20;

impl<W: World> Judge for Eye<'_, W> {
    fn bbm(&self) -> u8 {
        self.bbm
    }

    fn same_contents(&self, a: u64, b: u64, size: u64) -> bool {
        let same = |offset: u64| {
            let at = |frame: u64| self.world.load(frame.wrapping_add(offset));
            matches!((at(a), at(b)), (Some(a), Some(b)) if a == b)
        };
        size <= MAX_COMPARED && (0..size).step_by(8).all(same)
    }

    fn same_memory(&self, a: &Leaf, b: &Leaf) -> bool {
        let (places, mair) = match self.space {
            Some(Space::Stage2(_)) => return same_memory_at_stage_2(a, b),
            Some(Space::El10(_)) => (EL10, Sysreg::MairEl1),
            Some(Space::El20 | Space::El2) => (EL2, Sysreg::MairEl2),
            None => return false,
        };
        let walking = self.pes.iter().filter(|pe| places.iter().any(|place| pe.loaded[*place].is_some()));
        same_memory(walking.map(|pe| pe.effective.get(mair)), a, b)
    }

    fn alike(&self, block: &Leaf, table: &Table, size: u64) -> Alike {
        let stride = u32::from(self.geometry.page_shift) - 3;
        let (part, entries) = (size >> stride, 1u64 << stride);
        if part < self.geometry.page() {
            return Alike::Other;
        }
        let level = 3 - ((part.trailing_zeros() - u32::from(self.geometry.page_shift)) / stride) as i8;
        let mut worst = Alike::Same;
        for index in 0..entries {
            let bits = self.world.load(table.next.wrapping_add(index * 8)).unwrap_or(0);
            let offset = index * part;
            let here = match Descriptor::decode(bits, level, &self.geometry).under(table.hierarchical) {
                Descriptor::Nothing => Alike::Less,
                Descriptor::Leaf(leaf) if !agree(block, &leaf, offset, self) => Alike::Other,
                Descriptor::Leaf(leaf) if forbids_more(block, &leaf) => Alike::Less,
                Descriptor::Leaf(_) => Alike::Same,
                Descriptor::Table(below) => {
                    let block = Leaf { output: block.output.wrapping_add(offset), ..*block };
                    self.alike(&block, &below, part)
                }
            };
            worst = worst.max(here);
            if worst == Alike::Other {
                break;
            }
        }
        worst
    }
}

impl Model {
    /// A model of PEs that have their MMU off and an empty TLB.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            pes: Vec::new(),
            shadow: Shadow::default(),
            residues: Residues::default(),
            bbm: 0,
            wide_tlbis: Vec::new(),
            condemned: VecDeque::new(),
            case: None,
            told: FastMap::default(),
            remarked: FastSet::default(),
            noticed: FastSet::default(),
            ledger: config.cost.then(Box::default),
            time: 0,
            summary: Summary::default(),
            records: vec![Record::Start { version: STREAM_VERSION }],
            blindfold: Blindfold::new(config.blind),
        }
    }

    /// Takes one event.
    pub fn event<W: World>(&mut self, world: &mut W, event: &Event) {
        self.time += 1;
        self.summary.events += u64::from(!matches!(event.what, What::Reset | What::Id(..) | What::El(_)));
        self.residues.at_event(self.time);
        let pe = event.pe;
        if pe >= MAX_PES {
            self.notice(format!("PE {pe} and above are not followed: the model knows {MAX_PES}"));
            return;
        }
        if self.pes.len() <= pe {
            self.pes.resize_with(pe + 1, Pe::default);
            self.common_features();
        }
        let label = self.pes[pe].label.clone();
        let mut now = Now { world, event, time: self.time, label, site: OnceCell::new() };
        match event.what {
            What::Store { pa, size } => self.stored(&mut now, pa, size, size > 8),
            What::Zero { pa, size } => self.stored(&mut now, pa, size, true),
            What::Load { pa, size } => self.loaded(&mut now, pa, size),
            What::Access { va, pa, kind, el } => self.accessed(&mut now, va, pa, kind, el),
            What::Tlbi(op) => {
                let op = self.pes[pe].forced(op);
                let effect = |op| Effect::new(op, pe, &self.pes[pe], self.time);
                match self.blindfold.tlbi(op) {
                    Sight::Clear => self.tlbi(&mut now, &effect(op)),
                    Sight::Not => self.withhold(&effect(op), None, event.pc),
                    Sight::As(other) => {
                        let (effect, seen) = (effect(op), effect(other));
                        self.withhold(&effect, Some(&seen), event.pc);
                        self.tlbi(&mut now, &seen);
                    }
                }
            }
            What::UnknownTlbi(insn) => {
                self.notice(format!("TLBI {:#010x} is not modelled: taken as removing everything", insn & !31));
                self.tlbi(&mut now, &Effect::everything(pe, self.time));
            }
            What::Dsb(dsb) => {
                let dsb = self.pes[pe].upgraded(dsb);
                match self.blindfold.dsb() {
                    Sight::Clear | Sight::As(_) => self.dsb(&mut now, dsb),
                    Sight::Not => {
                        self.residues.withhold_dsb(pe, dsb);
                        self.blinded(pe, event.pc, dsb.to_string());
                    }
                }
            }
            What::Isb | What::ExceptionEntry | What::Eret => self.synchronise(&mut now),
            What::El(el) => {
                if self.pes[pe].el != el {
                    self.pes[pe].el = el;
                    self.reload(&mut now);
                }
            }
            What::Sysreg(register, value) => self.pes[pe].written.write(register, value),
            What::Id(register, value) => {
                self.pes[pe].features.tell(register, value);
                self.common_features();
            }
            What::Hint(hint) => self.hint(&mut now, hint),
            What::Reset => self.reset(&mut now),
        }
        if self.residues.refused() > 0 {
            self.notice(format!("more than {MAX_OPEN} stale entries at once: those beyond are not followed"));
        }
    }

    /// Records made since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// The run is over: the last record is made.
    pub fn finish(&mut self) {
        (self.summary.opened, self.summary.cleaned) = self.residues.counts();
        self.summary.tlbis = self.residues.tlbis();
        let mut repeats: Vec<Told> = self.told.values().copied().filter(|told| told.repeats > 0).collect();
        repeats.sort_unstable_by_key(|told| told.number);
        let repeats = repeats.into_iter().map(|told| Record::Repeats { violation: told.number, more: told.repeats });
        self.records.extend(repeats);
        let spent = self.ledger.as_mut().map_or(Vec::new(), |ledger| ledger.take());
        self.records.extend(spent.into_iter().map(|cost| Record::Cost(Box::new(cost))));
        self.records.push(Record::End(self.summary.clone()));
    }

    /// Open residues: what may be cached although it is gone from memory.
    pub fn residues(&self) -> &Residues {
        &self.residues
    }

    /// The tables that are followed.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    fn notice(&mut self, text: String) {
        if self.noticed.len() < MAX_NOTICES && !self.noticed.contains(&text) {
            self.noticed.insert(text.clone());
            self.records.push(Record::Notice { text });
        }
    }

    fn common_features(&mut self) {
        self.bbm = self.pes.iter().map(|pe| pe.features.bbm).min().unwrap_or(0);
    }

    // ---- instructions ----------------------------------------------------------------------------------------------

    fn tlbi<W: World>(&mut self, now: &mut Now<'_, W>, effect: &Effect) {
        self.spend(now, effect);
        self.residues.tlbi(effect, &self.shadow, || now.site());
        match effect.selection {
            Selection::Addresses { space: Space::El10(vmid), .. } => return self.tlbi_combined(now, effect, vmid),
            Selection::Nothing | Selection::Addresses { .. } | Selection::Combined { .. } => return,
            Selection::Asid(space, asid) => self.remark_unused(now, effect, space, asid),
            _ => {}
        }
        let same = |other: &&mut Effect| {
            (other.issuer, other.op, other.selection) == (effect.issuer, effect.op, effect.selection)
        };
        match self.wide_tlbis.iter_mut().find(same) {
            // One DSB completes both, and the later one removes what was filled between.
            Some(earlier) => *earlier = *effect,
            None => {
                if self.wide_tlbis.len() >= MAX_WIDE_TLBIS {
                    self.wide_tlbis.remove(0);
                }
                self.wide_tlbis.push(*effect);
            }
        }
    }

    /// A TLBI that the model does not see, or sees as another.
    fn withhold(&mut self, effect: &Effect, seen: Option<&Effect>, pc: u64) {
        self.residues.withhold_tlbi(effect, seen, &self.shadow);
        let what = match seen {
            None => effect.op.to_string(),
            Some(seen) => format!("{} taken for {}", effect.op, seen.op),
        };
        self.blinded(effect.issuer, pc, what);
    }

    fn blinded(&mut self, pe: usize, pc: u64, what: String) {
        self.records.push(Record::Blinded(Blinded { event: self.time, what, pe, pc }));
    }

    /// An operation by VA removes combined entries as well: those of the intermediate addresses that stage 1 gives now.
    fn tlbi_combined<W: World>(&mut self, now: &Now<'_, W>, effect: &Effect, vmid: u16) {
        let Selection::Addresses { first, size, asid, hint, .. } = effect.selection else { return };
        /// Pages of a range that are looked at; VMALLE1 is what kernels use for more.
        const MAX_PAGES: u64 = 512;
        if !self.residues.has(Space::Stage2(vmid)) {
            return;
        }
        for page in (0..size.min(MAX_PAGES << 12)).step_by(1 << 12) {
            let va = first.wrapping_add(page);
            // By the registers: at EL2 they may name a guest that the PE is not in.
            let halves = EL10.map(|place| self.pes[effect.issuer].effective.loaded(place).ok().flatten());
            let (first, size) = match halves.into_iter().flatten().find(|loaded| loaded.root.offset(va).is_some()) {
                Some(loaded) => {
                    let entry = |table, index: usize| self.shadow.table(table)?.entries.get(index).copied();
                    let (Walk::Leaf(ipa), Some((level, leaf))) = walk_to_leaf(&loaded.root, va, entry) else {
                        continue;
                    };
                    // A combined entry is tagged, and found, as that of stage 1 is.
                    let other_asid = leaf.non_global && asid.is_some_and(|asid| asid != loaded.asid);
                    if other_asid || hint.misses(&loaded.root.geometry, level, false) {
                        continue;
                    }
                    let size = loaded.root.geometry.size(level);
                    (ipa & !(size - 1), Some(size))
                }
                // The MMU is off: VA and IPA are the same.
                None if halves == [None; 2] => (va, None),
                None => continue,
            };
            let effect = Effect { selection: Selection::Combined { vmid, first, size }, ..*effect };
            self.residues.tlbi(&effect, &self.shadow, || now.site());
        }
    }

    fn dsb<W: World>(&mut self, now: &mut Now<'_, W>, dsb: Dsb) {
        let pe = now.event.pe;
        if let Some(ledger) = &mut self.ledger {
            ledger.end_run(pe);
        }
        for (id, residue) in self.residues.dsb(pe, dsb) {
            self.closed(now.world, id, &residue);
        }
        if self.wide_tlbis.is_empty() {
            return;
        }
        let is_done = |effect: &Effect| effect.issuer == pe && completes(dsb, &effect.op);
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.wide_tlbis).into_iter().partition(is_done);
        self.wide_tlbis = rest;
        for effect in done {
            self.end_contexts(now.world, &effect);
        }
    }

    // ---- hints -----------------------------------------------------------------------------------------------------

    fn hint<W: World>(&mut self, now: &mut Now<'_, W>, hint: Hint) {
        if self.config.ignore_hints {
            return;
        }
        match hint {
            Hint::CaseBegin { id } => self.case = Some(Window::new(id, self.residues.counts())),
            Hint::Expect(expected) => {
                if let Some(case) = &mut self.case {
                    case.expect(expected.into());
                }
            }
            Hint::CaseEnd { id } => {
                if let Some(case) = self.case.take_if(|case| case.id == id) {
                    let result = case.end(self.residues.counts());
                    if result.passed {
                        self.summary.passed += 1;
                    } else {
                        self.summary.failed += 1;
                    }
                    self.records.push(Record::Case(result));
                }
            }
            Hint::FrameFreed { pa, size } => {
                let broken = claimed::frame_freed(&self.shadow, &self.residues, self.bbm, pa, size);
                self.verdicts(now, Kind::Claimed, broken, 0, None);
            }
            Hint::FlushClaimed { start, size, asid } => {
                let broken = claimed::flush_claimed(&self.shadow, &self.residues, self.bbm, start, size, asid);
                self.verdicts(now, Kind::Claimed, broken, 0, None);
            }
            Hint::Label { text, len } => {
                self.pes[now.event.pe].label = now.world.text(text, len.min(200)).map(Arc::from);
            }
        }
    }
}
