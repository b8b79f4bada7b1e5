//! Steps from numbers.

use super::setting::{KERNEL, LOWER_TABLES, ROOTS, Regime, Setting, Shape, TABLES, UPPER_TABLES};
use super::{Act, Step};
use tlbi::op::Pages;
use tlbi::{Asid, Dsb, Granule, Ipa, Level, Op, Scope, Target, VirtAddr};
use tlbsan::Hint;

/// Takes a number apart, digit by digit, the least significant first.
struct Digits(u64);

impl Digits {
    fn below(&mut self, n: u64) -> u64 {
        let digit = self.0 % n;
        self.0 /= n;
        digit
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Which form an operation has.
#[derive(Clone, Copy)]
struct Form {
    range: bool,
    nxs: bool,
    outer: bool,
}

const PLAIN: Form = Form { range: false, nxs: false, outer: false };
const RANGE: Form = Form { range: true, ..PLAIN };
const NXS: Form = Form { nxs: true, ..PLAIN };
const OUTER: Form = Form { outer: true, ..PLAIN };
const RANGE_NXS: Form = Form { range: true, ..NXS };

impl Form {
    fn is_special(self) -> bool {
        self.range || self.nxs || self.outer
    }
}

/// The steps that `code` stands for; without `roaming`, PEs stay in their address spaces. Small codes for simple things, so that
/// shrinking simplifies.
pub(crate) fn decode(code: u64, roaming: bool, setting: &Setting) -> Vec<Step> {
    let mut d = Digits(code);
    // What is no operation has another variety where this is special.
    let form = d.one_of(&[PLAIN, PLAIN, PLAIN, PLAIN, RANGE, NXS, OUTER, RANGE_NXS]);
    let what = d.below(32);
    let what = if !roaming && (22..=27).contains(&what) { what - 22 } else { what };
    let pe = d.one_of(&[0, 0, 0, 1, 1, 2]);
    let acts = match what {
        0..=7 => {
            let slot = slot(&mut d, setting);
            vec![Act::Store { slot, value: value(&mut d, slot, setting) }]
        }
        8..=10 => vec![Act::Store { slot: slot(&mut d, setting), value: 0 }],
        11..=13 => {
            let before = d.one_of(&[Dsb::Ishst, Dsb::Ishst, Dsb::Ish, Dsb::Nshst]);
            let op = op(&mut d, form, setting);
            let after = d.one_of(&[Dsb::Ish, Dsb::Ish, Dsb::Ish, Dsb::Nsh]);
            let [before, after] = [before, after].map(|dsb| wider(dsb, form));
            vec![Act::Dsb(before), Act::Tlbi(op), Act::Dsb(after)]
        }
        14..=16 => vec![Act::Tlbi(op(&mut d, form, setting))],
        17..=19 => {
            let dsb = d.one_of(&[Dsb::Ish, Dsb::Ishst, Dsb::Nsh, Dsb::Nshst, Dsb::Ishld, Dsb::Sy]);
            vec![Act::Dsb(wider(dsb, form))]
        }
        20 | 21 if form.is_special() => {
            let va = va(&mut d, setting);
            let level = d.one_of(&[3, 3, 2, 1]);
            let frame = match level {
                1 => setting.large_frame(d.one_of(&[1, 2, 3])),
                2 => setting.frame(d.one_of(&[1, 2, 3])),
                _ => d.one_of(&pages(setting)),
            };
            vec![Act::Access { va, pa: frame | va & ((1 << setting.shift(level)) - 1) }]
        }
        20 | 21 => vec![Act::Load { slot: slot(&mut d, setting) }],
        22..=24 if setting.has_spaces() => {
            let number = d.one_of(&[1, 2, 0]);
            let synchronised = if d.below(4) == 0 { Act::Eret } else { Act::Isb };
            let root = if form.is_special() { d.one_of(&[1, 2, 0]) } else { number };
            // Those that go wrong share more often.
            let shared = form.is_special() && d.below(2) == 0;
            vec![Act::Space { root, number, shared }, synchronised]
        }
        25 if setting.has_spaces() => {
            let number = d.one_of(&[1, 2, 0]);
            vec![Act::Space { root: number, number, shared: false }]
        }
        26 => vec![Act::Isb],
        22..=27 if form.is_special() && d.below(2) == 0 => {
            let number = d.one_of(&[1, 2, 0]);
            vec![Act::Reset, Act::Space { root: number, number, shared: false }]
        }
        22..=27 => vec![Act::Mmu { on: d.below(3) != 0 }, Act::Isb],
        28 if setting.granule == 12 => {
            vec![Act::Clear { page: setting.table(d.one_of(&TABLES)), zva: d.below(2) == 0 }]
        }
        28 | 29 => {
            let slot = slot(&mut d, setting);
            [0, value(&mut d, slot, setting)].map(|value| Act::Store { slot, value }).to_vec()
        }
        30 if form.is_special() => vec![Act::Mair(d.one_of(&[0xff, 0x44ff, 0x44, 0])), Act::Isb],
        30 => {
            let start = va(&mut d, setting);
            let size = d.one_of(&[1 << setting.granule, 1 << setting.shift(2), 1 << setting.shift(1), u64::MAX]);
            vec![Act::Hint(Hint::FlushClaimed { start, size, asid: d.one_of(&[1, 2, 0]) })]
        }
        _ => {
            let pa = match d.below(2) {
                0 => setting.table(d.one_of(&TABLES)),
                _ => setting.frame(d.one_of(&[1, 2, 3])),
            };
            let size = d.one_of(&[1 << setting.granule, 1 << setting.shift(2)]);
            vec![Act::Hint(Hint::FrameFreed { pa, size })]
        }
    };
    acts.into_iter().map(|act| Step { pe, act }).collect()
}

fn slot(d: &mut Digits, setting: &Setting) -> u64 {
    let table = match d.below(10) {
        0..=3 => d.one_of(&LOWER_TABLES),
        4..=6 => d.one_of(&UPPER_TABLES),
        _ => d.one_of(&[ROOTS[1], ROOTS[1], ROOTS[2], KERNEL]),
    };
    let joined = setting.shape == Shape::Joined && ROOTS.contains(&table);
    let last = if joined { 1 << (setting.granule - 3) } else { 2 };
    setting.table(table) + 8 * d.one_of(&[0, 0, 1, last])
}

/// A value for the slot: of the right level for its table, since the model follows a page at one level.
fn value(d: &mut Digits, slot: u64, setting: &Setting) -> u64 {
    // nG for all but some.
    let leaf = setting.leaf() & !(1 << 11) | d.one_of(&[1 << 11, 1 << 11, 0]);
    let table = setting.number(slot);
    let (links, blocks): (&[u64], bool) = match table {
        _ if LOWER_TABLES.contains(&table) => (&[], false),
        _ if UPPER_TABLES.contains(&table) => (&LOWER_TABLES, true),
        _ => (&UPPER_TABLES, true),
    };
    match d.below(8) {
        7 => d.one_of(&[0, 0x7000]),
        0..=4 if !links.is_empty() => {
            // Read-only, which some leaves are by themselves; or not for EL0, which all are for.
            let forbids = if slot.is_multiple_of(16) && setting.granule == 12 { 1 << 62 } else { 1 << 61 };
            setting.output(setting.table(d.one_of(links))) | 3 | d.one_of(&[0, 0, 0, 0, forbids, 1 << 55])
        }
        // A frame in which no table lies; what is larger than 2 MiB is never read-only, because the model compares the contents
        // of that much at most.
        _ if links == UPPER_TABLES => setting.output(setting.large_frame(d.one_of(&[1, 2, 3]))) | (leaf & !2),
        _ if blocks => {
            let read_only = d.one_of(&[0, 0, 0, 1 << 7]);
            let nt = if setting.bbm == 1 { d.one_of(&[0, 1 << 16]) } else { 0 };
            let frame = setting.output(setting.frame(d.one_of(&[1, 2, 3])));
            nt | frame | (leaf & !2) ^ if setting.granule == 12 { read_only } else { 0 }
        }
        _ if setting.runs && d.below(4) != 0 => {
            let number = slot % (1 << setting.granule) / 8;
            setting.output(setting.frame(d.one_of(&[1, 1, 2])) + (number << setting.granule)) | leaf | setting.run()
        }
        _ => {
            // What FEAT_BBM level 3 lets lose its contiguous bit in place the model takes to have left its run.
            let keeps = if setting.bbm == 3 { setting.run() } else { 0 };
            let page = leaf ^ d.one_of(&[0, 0, 1 << 10, 1 << 7, 1 << 55, 1 << 2, 1 << 52, 2]);
            setting.output(d.one_of(&pages(setting))) | page | keeps
        }
    }
}

/// Frames of pages.
fn pages(setting: &Setting) -> [u64; 3] {
    [setting.frame(1), setting.frame(1) + (1 << setting.granule), setting.frame(2)]
}

fn va(d: &mut Digits, setting: &Setting) -> u64 {
    let upper = d.one_of(&[false, false, false, true]) && setting.has_halves();
    let last = |level| if level == 1 && setting.shape == Shape::Joined { 1 << (setting.granule - 3) } else { 2 };
    let indices = [1, 2, 3].map(|level| d.one_of(&[0, 0, 1, last(level)]) << setting.shift(level));
    indices.iter().sum::<u64>() | if upper { u64::MAX << setting.bits() } else { 0 }
}

fn op(d: &mut Digits, form: Form, setting: &Setting) -> Op {
    let scope = match d.below(4) {
        0 => Scope::Local,
        _ if form.outer => Scope::Outer,
        _ => Scope::Inner,
    };
    let asid = Asid::new(d.one_of(&[1, 1, 2, 0]));
    let kind = d.below(10);
    let target = match (kind, setting.regime) {
        (0, Regime::Guest) => Target::AllStages,
        (0, _) | (1 | 2, Regime::El2) => Target::All,
        (1, Regime::Guest) => Target::All,
        (2, Regime::Guest) => Target::AllVmids,
        (1 | 2, _) => Target::Asid(asid),
        _ => {
            let va = va(d, setting);
            let level = d.one_of(&[0, 0, 0, 0, 3, 2, 4]);
            let asid = (kind != 3).then_some(asid);
            let intermediate = setting.regime == Regime::Guest && kind != 9;
            by_address(va, asid, kind.is_multiple_of(2), level, form.range, intermediate, setting)
        }
    };
    // A host's own operations may have either name.
    let el2 = setting.regime == Regime::El2 || setting.regime == Regime::Host && form.nxs;
    let regime = if el2 { tlbi::Regime::El2 } else { tlbi::Regime::El10 };
    let op = Op { nxs: form.nxs, ..Op::new(regime, scope, target) };
    // As an instruction says it.
    op.mnemonic().decode(op.operand())
}

/// `level` is a hint, 0 for none; with 4 one that says nothing, or one of a level that may have no leaves.
fn by_address(
    va: u64,
    asid: Option<Asid>,
    leaf_only: bool,
    level: u8,
    range: bool,
    intermediate: bool,
    setting: &Setting,
) -> Target {
    let tg = (setting.granule as u8 - 12) / 2;
    let ttl = match level {
        0 => 0,
        4 if leaf_only => 3,
        4 => (tg + 1) << 2 | u8::from(asid.is_none()),
        level => (tg + 1) << 2 | level,
    };
    if !range {
        return match intermediate {
            true => Target::Ipa { ipa: Ipa::new(va), non_secure: false, leaf_only, ttl },
            false => Target::Va { va: VirtAddr::new(va), asid, leaf_only, ttl },
        };
    }
    let granule = [Granule::K4, Granule::K16, Granule::K64][usize::from(tg)];
    let count = [2, 4, 64][usize::from(level % 3)];
    // With LPA2 a range begins at a multiple of 64 KiB.
    let first = if setting.has_ds() { va & !0xffff } else { va };
    let pages = Pages::new(granule, setting.has_ds(), first, count).expect("such a range");
    let pages = match Level::from_number(level as i8) {
        Some(level) if level.number() < 4 && level.number() > 0 => pages.hint(level),
        _ if level == 4 && !leaf_only => pages.hint(Level::L1),
        _ => pages,
    };
    match intermediate {
        true => Target::IpaRange { pages, non_secure: false, leaf_only },
        false => Target::VaRange { pages, asid, leaf_only },
    }
}

/// With an outer shareable operation barriers of that domain; with an nXS form those that wait for no more than it.
fn wider(dsb: Dsb, form: Form) -> Dsb {
    match (dsb, form.outer, form.nxs) {
        (Dsb::Ish, true, _) => Dsb::Osh,
        (Dsb::Ishst, true, _) => Dsb::Oshst,
        (Dsb::Ish, _, true) => Dsb::IshNxs,
        (Dsb::Nsh, _, true) => Dsb::NshNxs,
        _ => dsb,
    }
}
