//! A small universe for random events: a few PEs, address spaces, table pages and slots, so that what happens by chance
//! meets what happened before.
//!
//! A [`Step`] is what a kernel does in one line; it is decoded from one number (`draw`), so that a sequence is a list of
//! numbers: proptest draws and shrinks them, a fuzzer's bytes are some, and a failing one can be pasted into a test. The first
//! number says what kind of universe it is (`setting`).

mod draw;
mod setting;

pub(crate) use draw::decode;
pub(crate) use setting::Setting;

use setting::{KERNEL, LOWER_TABLES, ROOTS, Regime, UPPER_TABLES};
use std::collections::{BTreeMap, BTreeSet};
use tlbi::{Dsb, Op, Target};
use tlbsan::{AccessKind, Event, Hint, IdRegister, Sysreg, What, World};

/// PEs.
pub(crate) const PES: usize = 3;

/// Something that a PE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Store {
        slot: u64,
        value: u64,
    },
    Load {
        slot: u64,
    },
    /// Zeroes a table page with DC ZVA, or with stores.
    Clear {
        page: u64,
        zva: bool,
    },
    Tlbi(Op),
    Dsb(Dsb),
    Isb,
    Eret,
    /// Loads the root of a space under an ASID or VMID, its number in a kernel that makes no mistake; with CnP or without.
    Space {
        root: u16,
        number: u16,
        shared: bool,
    },
    Access {
        va: u64,
        pa: u64,
    },
    Mmu {
        on: bool,
    },
    /// The PE tells what it can do.
    Features,
    Reset,
    /// Sets the memory attributes.
    Mair(u64),
    Hint(Hint),
}

/// Who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) pe: usize,
    pub(crate) act: Act,
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

    pub(crate) fn write(&mut self, pa: u64, value: u64) {
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
#[derive(Debug)]
pub(crate) struct Universe {
    pub(crate) setting: Setting,
    pub(crate) ram: Ram,
    /// Number of the next event, and the PC that it happens at.
    pub(crate) time: u64,
}

impl Universe {
    /// One in which nothing has happened yet.
    pub(crate) fn new(setting: Setting) -> Self {
        Self { setting, ram: Ram::default(), time: 0 }
    }

    /// What happens before the steps: space 1 maps pages and a block, and runs on PEs 0 and 1; space 2 runs on PE 2.
    pub(crate) fn prologue(&self) -> Vec<Step> {
        let at = |table: u64, index: u64| self.setting.table(table) + 8 * index;
        let table = |number| self.setting.output(self.setting.table(number)) | 3;
        let (frame, page) = (|number| self.setting.output(self.setting.frame(number)), self.setting.leaf());
        let store = |slot, value| Act::Store { slot, value };
        let acts = [
            store(at(ROOTS[1], 0), table(UPPER_TABLES[0])),
            store(at(UPPER_TABLES[0], 0), table(LOWER_TABLES[0])),
            store(at(LOWER_TABLES[0], 0), frame(1) | page | self.setting.run()),
            store(at(LOWER_TABLES[0], 1), (frame(1) + (1 << self.setting.granule)) | page | self.setting.run()),
            store(at(UPPER_TABLES[0], 1), frame(2) | page & !2),
            Act::Dsb(Dsb::Ish),
        ];
        let begin = |pe| {
            let space = if pe == 2 && self.setting.has_spaces() { 2 } else { 1 };
            [Act::Features, Act::Space { root: space, number: space, shared: false }, Act::Mmu { on: true }, Act::Isb]
                .map(|act| Step { pe, act })
        };
        acts.map(|act| Step { pe: 0, act }).into_iter().chain((0..PES).flat_map(begin)).collect()
    }

    /// What every PE does after a verdict: registers take effect, all stores become visible, and nothing stale is left.
    pub(crate) fn heal(&self) -> [What; 5] {
        let everything = match self.setting.regime {
            Regime::El1 | Regime::Host => Op::inner(Target::All),
            Regime::El2 => Op::new(tlbi::Regime::El2, tlbi::Scope::Inner, Target::All),
            Regime::Guest => Op::inner(Target::AllVmids),
        };
        [What::Isb, What::Dsb(Dsb::Osh), What::Tlbi(everything), What::Dsb(Dsb::Ish), What::Isb]
    }

    /// Does one step; hands each event of it to `tell` after it happened, also those of pages that nobody watches.
    pub(crate) fn perform(&mut self, step: &Step, mut tell: impl FnMut(&mut Ram, &Event)) {
        let pe = step.pe;
        let mut now = |ram: &mut Ram, what| {
            self.time += 1;
            tell(ram, &Event { pe, pc: self.time, what });
        };
        let ram = &mut self.ram;
        match step.act {
            Act::Store { slot, value } => {
                ram.write(slot, value);
                now(ram, What::Store { pa: slot, size: 8 });
            }
            Act::Load { slot } => now(ram, What::Load { pa: slot, size: 8 }),
            Act::Clear { page, zva } => {
                let size = if zva { 2048 } else { 16 };
                for pa in (page..page + 4096).step_by(size as usize) {
                    (pa..pa + size).step_by(8).for_each(|slot| ram.write(slot, 0));
                    now(ram, if zva { What::Zero { pa, size } } else { What::Store { pa, size } });
                }
            }
            Act::Tlbi(op) => now(ram, What::Tlbi(op)),
            Act::Dsb(dsb) => now(ram, What::Dsb(dsb)),
            Act::Isb => now(ram, What::Isb),
            Act::Eret => now(ram, What::Eret),
            Act::Space { root, number, shared } => {
                let root = self.setting.root(ROOTS[usize::from(root)]) | u64::from(number) << 48 | u64::from(shared);
                let register = match self.setting.regime {
                    Regime::El1 => Sysreg::Ttbr0El1,
                    Regime::Host | Regime::El2 => Sysreg::Ttbr0El2,
                    Regime::Guest => Sysreg::VttbrEl2,
                };
                now(ram, What::Sysreg(register, root));
            }
            Act::Mmu { on } => {
                let (kernel, tcr) = (self.setting.root(KERNEL), self.setting.control());
                let registers: &[(Sysreg, u64)] = match self.setting.regime {
                    Regime::El1 => &[(Sysreg::TcrEl1, tcr), (Sysreg::Ttbr1El1, kernel), (Sysreg::SctlrEl1, on.into())],
                    Regime::Host => &[
                        (Sysreg::HcrEl2, 1 << 34 | 1 << 27),
                        (Sysreg::TcrEl2, tcr),
                        (Sysreg::Ttbr1El2, kernel),
                        (Sysreg::SctlrEl2, on.into()),
                    ],
                    Regime::El2 => &[(Sysreg::TcrEl2, tcr), (Sysreg::SctlrEl2, on.into())],
                    Regime::Guest => &[(Sysreg::VtcrEl2, tcr), (Sysreg::HcrEl2, on.into())],
                };
                registers.iter().for_each(|(register, value)| now(ram, What::Sysreg(*register, *value)));
            }
            Act::Access { va, pa } => {
                let el = if matches!(self.setting.regime, Regime::El1 | Regime::Guest) { 1 } else { 2 };
                now(ram, What::Access { va, pa, kind: AccessKind::Load, el });
            }
            Act::Features => {
                now(ram, What::Id(IdRegister::Mmfr2, u64::from(self.setting.bbm) << 52));
            }
            Act::Reset => now(ram, What::Reset),
            Act::Mair(value) => {
                let el1 = matches!(self.setting.regime, Regime::El1 | Regime::Guest);
                now(ram, What::Sysreg(if el1 { Sysreg::MairEl1 } else { Sysreg::MairEl2 }, value));
            }
            Act::Hint(hint) => now(ram, What::Hint(hint)),
        }
    }
}
