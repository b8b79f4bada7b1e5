//! A small universe for random events: a few PEs, address spaces, table pages and slots, so that what happens by chance
//! meets what happened before.
//!
//! A [`Step`] is what a kernel does in one line; it is decoded from one number, so that a sequence is a list of numbers:
//! proptest draws and shrinks them, a fuzzer's bytes are some, and a failing one can be pasted into a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tlbi::{Asid, Dsb, Op, Target, VirtAddr};
use tlbsan::{Event, Hint, Sysreg, What, World};

/// PEs.
pub(crate) const PES: usize = 3;
/// Root tables: of the spaces with ASID 1 and 2, and an empty one for ASID 0.
pub(crate) const ROOTS: [u64; 3] = [0x3000, 0x1000, 0x2000];
/// The upper half's root, the same for all.
pub(crate) const KERNEL: u64 = 0x4000;
/// Tables of level 2; the roots are of level 1.
pub(crate) const UPPER_TABLES: [u64; 2] = [0x5000, 0x6000];
/// Tables of level 3.
pub(crate) const LOWER_TABLES: [u64; 3] = [0x7000, 0x8000, 0x9000];
/// All of these, by number.
const TABLES: [u64; 5] = [0x5000, 0x6000, 0x7000, 0x8000, 0x9000];
/// Frames of 2 MiB, with pages in them.
const FRAMES: [u64; 3] = [0x20_0000, 0x40_0000, 0x60_0000];
/// First address of the upper half.
const UPPER: u64 = u64::MAX << 39;
/// TCR_EL1: 39 bits and thus 3 levels in both halves, 4 KiB, 16-bit ASIDs from TTBR0.
const TCR: u64 = 25 | 25 << 16 | 2 << 30 | 1 << 36;

/// Something that a PE does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Store {
        pe: usize,
        slot: u64,
        value: u64,
    },
    Load {
        pe: usize,
        slot: u64,
    },
    /// Zeroes a table page with DC ZVA, or with stores.
    Clear {
        pe: usize,
        page: u64,
        zva: bool,
    },
    Tlbi {
        pe: usize,
        op: Op,
    },
    Dsb {
        pe: usize,
        dsb: Dsb,
    },
    Isb {
        pe: usize,
    },
    Eret {
        pe: usize,
    },
    Ttbr0 {
        pe: usize,
        asid: u16,
    },
    Mmu {
        pe: usize,
        on: bool,
    },
    Hint {
        pe: usize,
        hint: Hint,
    },
}

impl Step {
    pub(crate) fn pe(&self) -> usize {
        match *self {
            Self::Store { pe, .. }
            | Self::Load { pe, .. }
            | Self::Clear { pe, .. }
            | Self::Tlbi { pe, .. }
            | Self::Dsb { pe, .. }
            | Self::Isb { pe }
            | Self::Eret { pe }
            | Self::Ttbr0 { pe, .. }
            | Self::Mmu { pe, .. }
            | Self::Hint { pe, .. } => pe,
        }
    }
}

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

/// The steps that `code` stands for; without `roaming`, PEs stay in their address spaces. Small codes for simple things, so that shrinking simplifies.
pub(crate) fn decode(code: u64, roaming: bool) -> Vec<Step> {
    let mut d = Digits(code);
    let what = d.below(32);
    let what = if !roaming && (22..=27).contains(&what) { what - 22 } else { what };
    let pe = d.one_of(&[0, 0, 0, 1, 1, 2]);
    match what {
        0..=7 => {
            let slot = slot(&mut d);
            vec![Step::Store { pe, slot, value: value(&mut d, slot) }]
        }
        8..=10 => vec![Step::Store { pe, slot: slot(&mut d), value: 0 }],
        11..=13 => {
            let before = d.one_of(&[Dsb::Ishst, Dsb::Ishst, Dsb::Ish, Dsb::Nshst]);
            let op = op(&mut d);
            let after = d.one_of(&[Dsb::Ish, Dsb::Ish, Dsb::Ish, Dsb::Nsh]);
            vec![Step::Dsb { pe, dsb: before }, Step::Tlbi { pe, op }, Step::Dsb { pe, dsb: after }]
        }
        14..=16 => vec![Step::Tlbi { pe, op: op(&mut d) }],
        17..=19 => {
            vec![Step::Dsb { pe, dsb: d.one_of(&[Dsb::Ish, Dsb::Ishst, Dsb::Nsh, Dsb::Nshst, Dsb::Ishld, Dsb::Sy]) }]
        }
        20 | 21 => vec![Step::Load { pe, slot: slot(&mut d) }],
        22..=24 => {
            let asid = d.one_of(&[1, 2, 0]);
            vec![Step::Ttbr0 { pe, asid }, if d.below(4) == 0 { Step::Eret { pe } } else { Step::Isb { pe } }]
        }
        25 => vec![Step::Ttbr0 { pe, asid: d.one_of(&[1, 2, 0]) }],
        26 => vec![Step::Isb { pe }],
        27 => vec![Step::Mmu { pe, on: d.below(3) != 0 }, Step::Isb { pe }],
        28 => vec![Step::Clear { pe, page: d.one_of(&TABLES), zva: d.below(2) == 0 }],
        29 => {
            let slot = slot(&mut d);
            [0, value(&mut d, slot)].map(|value| Step::Store { pe, slot, value }).to_vec()
        }
        30 => {
            let start = va(&mut d);
            let size = d.one_of(&[0x1000, 0x20_0000, 0x4000_0000, u64::MAX]);
            let asid = d.one_of(&[1, 2, 0]);
            vec![Step::Hint { pe, hint: Hint::FlushClaimed { start, size, asid } }]
        }
        _ => {
            let pa = if d.below(2) == 0 { d.one_of(&TABLES) } else { d.one_of(&FRAMES) };
            vec![Step::Hint { pe, hint: Hint::FrameFreed { pa, size: d.one_of(&[0x1000, 0x20_0000]) } }]
        }
    }
}

fn slot(d: &mut Digits) -> u64 {
    let page = match d.below(10) {
        0..=3 => d.one_of(&LOWER_TABLES),
        4..=6 => d.one_of(&UPPER_TABLES),
        _ => d.one_of(&[ROOTS[1], ROOTS[1], ROOTS[2], KERNEL]),
    };
    page + 8 * d.one_of(&[0, 0, 1, 2])
}

/// A value for the slot: of the right level for its table, since the model follows a page at one level.
fn value(d: &mut Digits, slot: u64) -> u64 {
    const TABLE: u64 = 3;
    // AF, inner shareable, EL0, and nG for all but some.
    let leaf = 0x743 | d.one_of(&[1 << 11, 1 << 11, 0]);
    let (links, blocks): (&[u64], bool) = match slot & !0xfff {
        page if LOWER_TABLES.contains(&page) => (&[], false),
        page if UPPER_TABLES.contains(&page) => (&LOWER_TABLES, true),
        _ => (&UPPER_TABLES, true),
    };
    match d.below(8) {
        7 => d.one_of(&[0, 0x7000]),
        0..=4 if !links.is_empty() => d.one_of(links) | TABLE | d.one_of(&[0, 0, 0, 0, 1 << 61, 1 << 55]),
        // A frame of 1 GiB, in which no table lies; never read-only, because the model compares the contents of 2 MiB at most.
        _ if links == UPPER_TABLES => d.one_of(&FRAMES) << 9 | (leaf & !2),
        _ if blocks => d.one_of(&FRAMES) | (leaf & !2) ^ d.one_of(&[0, 0, 0, 1 << 7]),
        _ => {
            let output = d.one_of(&[FRAMES[0], FRAMES[0] + 0x1000, FRAMES[1]]);
            output | (leaf ^ d.one_of(&[0, 0, 1 << 10, 1 << 7, 1 << 55, 1 << 2, 1 << 52, 2]))
        }
    }
}

fn va(d: &mut Digits) -> u64 {
    let half = d.one_of(&[0, 0, 0, UPPER]);
    half | d.one_of(&[0, 0, 1, 2]) << 30 | d.one_of(&[0, 0, 1, 2]) << 21 | d.one_of(&[0, 0, 1, 2]) << 12
}

fn op(d: &mut Digits) -> Op {
    let inner = d.below(4) != 0;
    let asid = d.one_of(&[1, 1, 2, 0]);
    let target = match d.below(10) {
        0 => Target::All,
        1 | 2 => Target::Asid(Asid::new(asid)),
        kind => Target::Va {
            va: VirtAddr::new(va(d)),
            asid: (kind != 3).then_some(Asid::new(asid)),
            leaf_only: kind % 2 == 0,
            ttl: d.one_of(&[0, 0, 0, 0, 4 | 3, 4 | 2, 3]),
        },
    };
    if inner { Op::inner(target) } else { Op::local(target) }
}

/// Memory, and what the model wants to know of it.
#[derive(Debug, Default)]
pub(crate) struct Ram {
    words: BTreeMap<u64, u64>,
    watched: BTreeSet<u64>,
}

impl Ram {
    pub(crate) fn read(&self, pa: u64) -> u64 {
        self.words.get(&pa).copied().unwrap_or(0)
    }

    pub(crate) fn is_watched(&self, pa: u64) -> bool {
        self.watched.contains(&(pa & !0xfff))
    }

    fn write(&mut self, pa: u64, value: u64) {
        self.words.insert(pa, value);
    }
}

impl World for Ram {
    fn load(&self, pa: u64) -> Option<u64> {
        Some(self.read(pa))
    }

    fn stack(&self) -> Vec<u64> {
        Vec::new()
    }

    fn watch(&mut self, page: u64, on: bool) {
        if on {
            self.watched.insert(page);
        } else {
            self.watched.remove(&page);
        }
    }
}

/// A universe as the steps so far have left it.
#[derive(Debug, Default)]
pub(crate) struct Universe {
    pub(crate) ram: Ram,
    /// Number of the next event, and the PC that it happens at.
    pub(crate) time: u64,
}

impl Universe {
    /// What happens before the steps: space 1 maps pages and a block, and runs on PEs 0 and 1; space 2 runs on PE 2.
    pub(crate) fn prologue() -> Vec<Step> {
        let table = |page| page | 3;
        let page = |frame: u64| frame | 0xf43;
        let store = |slot, value| Step::Store { pe: 0, slot, value };
        let mut steps = vec![
            store(ROOTS[1], table(UPPER_TABLES[0])),
            store(UPPER_TABLES[0], table(LOWER_TABLES[0])),
            store(LOWER_TABLES[0], page(FRAMES[0])),
            store(LOWER_TABLES[0] + 8, page(FRAMES[0] + 0x1000)),
            store(UPPER_TABLES[0] + 8, FRAMES[1] | 0xf41),
            Step::Dsb { pe: 0, dsb: Dsb::Ish },
        ];
        for pe in 0..PES {
            let asid = if pe == 2 { 2 } else { 1 };
            steps.extend([Step::Ttbr0 { pe, asid }, Step::Mmu { pe, on: true }, Step::Isb { pe }]);
        }
        steps
    }

    /// What every PE does after a verdict: all stores become visible, and nothing stale is left.
    pub(crate) fn heal() -> [What; 3] {
        [What::Dsb(Dsb::Ish), What::Tlbi(Op::inner(Target::All)), What::Dsb(Dsb::Ish)]
    }

    /// Does one step; hands each event of it to `tell` after it happened, also those of pages that nobody watches.
    pub(crate) fn perform(&mut self, step: &Step, mut tell: impl FnMut(&mut Ram, &Event)) {
        let pe = step.pe();
        let mut now = |ram: &mut Ram, what| {
            self.time += 1;
            tell(ram, &Event { pe, pc: self.time, what });
        };
        let ram = &mut self.ram;
        match *step {
            Step::Store { slot, value, .. } => {
                ram.write(slot, value);
                now(ram, What::Store { pa: slot, size: 8 });
            }
            Step::Load { slot, .. } => now(ram, What::Load { pa: slot, size: 8 }),
            Step::Clear { page, zva, .. } => {
                let size = if zva { 2048 } else { 16 };
                for pa in (page..page + 4096).step_by(size as usize) {
                    (pa..pa + size).step_by(8).for_each(|slot| ram.write(slot, 0));
                    now(ram, if zva { What::Zero { pa, size } } else { What::Store { pa, size } });
                }
            }
            Step::Tlbi { op, .. } => now(ram, What::Tlbi(op)),
            Step::Dsb { dsb, .. } => now(ram, What::Dsb(dsb)),
            Step::Isb { .. } => now(ram, What::Isb),
            Step::Eret { .. } => now(ram, What::Eret),
            Step::Ttbr0 { asid, .. } => {
                now(ram, What::Sysreg(Sysreg::Ttbr0El1, ROOTS[usize::from(asid)] | u64::from(asid) << 48));
            }
            Step::Mmu { on, .. } => {
                now(ram, What::Sysreg(Sysreg::TcrEl1, TCR));
                now(ram, What::Sysreg(Sysreg::Ttbr1El1, KERNEL));
                now(ram, What::Sysreg(Sysreg::SctlrEl1, u64::from(on)));
            }
            Step::Hint { hint, .. } => now(ram, What::Hint(hint)),
        }
    }
}

/// `root1[0] = table1`: slots and values by name.
fn place(pa: u64) -> String {
    let name = |page: u64| match page {
        KERNEL => Some("kernel".to_owned()),
        page => match (ROOTS.iter().position(|it| *it == page), TABLES.iter().position(|it| *it == page)) {
            (Some(i), _) => Some(format!("root{i}")),
            (_, Some(i)) => Some(format!("table{i}")),
            _ => None,
        },
    };
    name(pa & !0xfff).unwrap_or_else(|| format!("{:#x}", pa & !0xfff))
}

fn meaning(value: u64) -> String {
    let address = place(value & 0xffff_ffff_f000);
    let rest = value & !0xffff_ffff_f000;
    match value & 3 {
        3 if value & 0x740 == 0 => format!("{address} as table {rest:#x}"),
        3 => format!("{address} as page {rest:#x}"),
        1 => format!("{address} as block {rest:#x}"),
        _ => format!("{value:#x}"),
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PE {}: ", self.pe())?;
        match *self {
            Self::Store { slot, value, .. } => {
                write!(f, "str {}[{}] = {}", place(slot), slot % 4096 / 8, meaning(value))
            }
            Self::Load { slot, .. } => write!(f, "ldr {}[{}]", place(slot), slot % 4096 / 8),
            Self::Clear { page, zva: true, .. } => write!(f, "dc zva, all of {}", place(page)),
            Self::Clear { page, zva: false, .. } => write!(f, "stp xzr, all of {}", place(page)),
            Self::Tlbi { op, .. } => write!(f, "{op}"),
            Self::Dsb { dsb, .. } => write!(f, "{dsb}"),
            Self::Isb { .. } => write!(f, "isb"),
            Self::Eret { .. } => write!(f, "eret"),
            Self::Ttbr0 { asid, .. } => write!(f, "msr ttbr0_el1, {} asid {asid}", place(ROOTS[usize::from(asid)])),
            Self::Mmu { on, .. } => write!(f, "msr sctlr_el1, {}", u64::from(on)),
            Self::Hint { hint, .. } => write!(f, "hint {hint:x?}"),
        }
    }
}
