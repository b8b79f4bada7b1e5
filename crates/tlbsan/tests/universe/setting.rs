//! What kind of universe it is: whose tables they are, of which granule, and where tables and frames lie.

use super::{Act, Step};

/// Root tables, by number: an empty one for space 0, those of spaces 1 and 2.
pub(super) const ROOTS: [u64; 3] = [3, 1, 2];
/// The upper half's root, the same for all.
pub(super) const KERNEL: u64 = 4;
/// Tables of level 2; the roots are of level 1.
pub(super) const UPPER_TABLES: [u64; 2] = [5, 6];
/// Tables of level 3.
pub(super) const LOWER_TABLES: [u64; 3] = [7, 8, 9];
/// All but the roots.
pub(super) const TABLES: [u64; 5] = [5, 6, 7, 8, 9];

/// What is translated through the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Regime {
    /// EL1&0, both halves.
    El1,
    /// EL2&0 of a host with VHE, both halves.
    Host,
    /// EL2 with one half and no ASIDs.
    El2,
    /// Stage 2, for a guest that has its MMU off.
    Guest,
}

/// Of what shape addresses and tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Plain,
    /// Output addresses of 52 bits: FEAT_LPA2, or FEAT_LPA with 64 KiB.
    Wide,
    /// Attributes of table descriptors are ignored (TCR.HPDn).
    Flat,
    /// Of stage 2, with fewer than 64 KiB: two tables side by side for the first level.
    Joined,
}

/// What holds for a whole sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(super) regime: Regime,
    /// log2 of the page.
    pub(crate) granule: u32,
    /// Hardware manages access flag and dirty state.
    managed: bool,
    /// The level of FEAT_BBM.
    pub(super) bbm: u8,
    /// Pages come in contiguous runs.
    pub(super) runs: bool,
    pub(super) shape: Shape,
}

impl Setting {
    /// How many there are.
    pub(crate) const ALL: u64 = 576;

    /// The one with a number; 0 is EL1&0 with pages of 4 KiB, nothing managed.
    pub(crate) fn new(number: u64) -> Self {
        let regime = [Regime::El1, Regime::Host, Regime::El2, Regime::Guest][(number % 4) as usize];
        let granule = [12, 14, 16][(number / 4 % 3) as usize];
        let (managed, bbm, runs) = (number / 12 % 2 == 1, (number / 24 % 4) as u8, number / 96 % 2 == 1);
        let shape = match (number / 192 % 3, regime) {
            (0, _) => Shape::Plain,
            (1, _) => Shape::Wide,
            (_, Regime::Guest) if granule < 16 => Shape::Joined,
            _ => Shape::Flat,
        };
        Self { regime, granule, managed, bbm, runs, shape }
    }

    /// One of EL1&0 whose tables a stage 2 of 40 bits can map.
    pub(crate) fn in_a_guest(number: u64) -> Self {
        let it = Self::new(number & !3);
        Self { shape: if it.shape == Shape::Wide { Shape::Plain } else { it.shape }, ..it }
    }

    /// log2 of what an entry translates.
    pub(super) fn shift(&self, level: u32) -> u32 {
        self.granule + (self.granule - 3) * (3 - level)
    }

    /// Bits of address, for three levels.
    pub(super) fn bits(&self) -> u32 {
        let most = if self.shape == Shape::Wide && self.granule == 16 { 52 } else { 48 };
        (self.shift(1) + self.granule - 3 + u32::from(self.shape == Shape::Joined)).min(most)
    }

    /// TCR.DS: FEAT_LPA2.
    pub(super) fn has_ds(&self) -> bool {
        self.shape == Shape::Wide && self.granule < 16
    }

    /// What lies above 48 bits in every address.
    fn high(&self) -> u64 {
        if self.shape == Shape::Wide { 0b1001 << 48 } else { 0 }
    }

    /// Where a table lies.
    pub(super) fn table(&self, number: u64) -> u64 {
        self.high() | number << (self.granule + u32::from(self.shape == Shape::Joined))
    }

    /// The number of the table that an address is in.
    pub(super) fn number(&self, pa: u64) -> u64 {
        (pa & !self.high()) >> (self.granule + u32::from(self.shape == Shape::Joined))
    }

    /// Where a frame lies, of the size of a block of level 2; 1 to 3.
    pub(super) fn frame(&self, number: u64) -> u64 {
        self.high() | number << self.shift(2)
    }

    /// The same of level 1.
    pub(super) fn large_frame(&self, number: u64) -> u64 {
        self.high() | number << self.shift(1)
    }

    /// An address as descriptors hold it: bits above 48 in 49:48 and 9:8 with DS, in 15:12 with 64 KiB.
    pub(super) fn output(&self, pa: u64) -> u64 {
        let (low, high) = (pa & u64::MAX >> 16, pa >> 48);
        match self.shape {
            Shape::Wide if self.granule == 16 => low | high << 12,
            Shape::Wide => low | (high & 3) << 48 | high >> 2 << 8,
            _ => low,
        }
    }

    /// The address of a root as TTBRs hold it: bits above 48 in 5:2.
    pub(super) fn root(&self, number: u64) -> u64 {
        let pa = self.table(number);
        pa & u64::MAX >> 16 | pa >> 48 << 2
    }

    /// Whether there are ASIDs or VMIDs.
    pub(super) fn has_spaces(&self) -> bool {
        self.regime != Regime::El2
    }

    /// Whether there is an upper half, and leaves may be global.
    pub(super) fn has_halves(&self) -> bool {
        matches!(self.regime, Regime::El1 | Regime::Host)
    }

    /// A page's attributes: access flag, inner shareable, EL0, not global, and writable.
    pub(super) fn leaf(&self) -> u64 {
        // With DS the shareability is the register's.
        let shareable = if self.has_ds() { 0 } else { 0x300 };
        shareable | if self.regime == Regime::Guest { 0xcc3 } else { 0xc43 }
    }

    /// The contiguous bit, where it is set.
    pub(super) fn run(&self) -> u64 {
        if self.runs { 1 << 52 } else { 0 }
    }

    /// TCR_ELx or VTCR_EL2.
    pub(super) fn control(&self) -> u64 {
        let size = u64::from(64 - self.bits());
        let (tg0, tg1) = [(0, 2), (2, 1), (1, 3)][(self.granule as usize - 12) / 2];
        let managed = if self.managed { 3 } else { 0 };
        let (ds, flat) = (u64::from(self.has_ds()), u64::from(self.shape == Shape::Flat));
        // 52 bits of physical address.
        let ps = if self.shape == Shape::Wide { 6 } else { 0 };
        match self.regime {
            // ASIDs of 16 bits, from TTBR0.
            Regime::El1 | Regime::Host => {
                let halves = size | size << 16 | tg0 << 14 | tg1 << 30 | 1 << 36 | managed << 39;
                halves | ps << 32 | (flat * 3) << 41 | ds << 59
            }
            Regime::El2 => size | tg0 << 14 | ps << 16 | managed << 21 | flat << 24 | ds << 32,
            // VMIDs of 16 bits; level 1 is the first.
            Regime::Guest => {
                let start = if self.granule == 12 { 1 } else { 2 };
                size | start << 6 | tg0 << 14 | ps << 16 | 1 << 19 | managed << 21 | ds << 32
            }
        }
    }

    /// The step in words: `PE 0: str root1[0] = ...`.
    pub(crate) fn describe(&self, step: &Step) -> String {
        let act = match step.act {
            Act::Store { slot, value } => format!("str {} = {}", self.place(slot), self.meaning(value)),
            Act::Load { slot } => format!("ldr {}", self.place(slot)),
            Act::Clear { page, zva: true } => format!("dc zva, all of {}", self.place(page)),
            Act::Clear { page, zva: false } => format!("stp xzr, all of {}", self.place(page)),
            Act::Tlbi(op) => op.to_string(),
            Act::Dsb(dsb) => dsb.to_string(),
            Act::Isb => "isb".to_owned(),
            Act::Eret => "eret".to_owned(),
            Act::Space { root, number, shared } => {
                format!("msr ttbr, root{root} asid {number}{}", if shared { " cnp" } else { "" })
            }
            Act::Access { va, pa } => format!("access {va:#x}, at {pa:#x}"),
            Act::Mmu { on } => format!("msr sctlr, {}", u64::from(on)),
            Act::Features => format!("feat_bbm is {}", self.bbm),
            Act::Reset => "reset".to_owned(),
            Act::Mair(value) => format!("msr mair, {value:#x}"),
            Act::Hint(hint) => format!("hint {hint:x?}"),
        };
        format!("PE {}: {act}", step.pe)
    }

    fn name(&self, pa: u64) -> String {
        let number = self.number(pa);
        match (ROOTS.iter().position(|it| *it == number), TABLES.iter().position(|it| *it == number)) {
            (Some(space), _) => format!("root{space}"),
            (_, Some(table)) => format!("table{table}"),
            _ if number == KERNEL => "kernel".to_owned(),
            _ => format!("{pa:#x}"),
        }
    }

    fn place(&self, slot: u64) -> String {
        format!("{}[{}]", self.name(slot), slot % (1 << self.granule) / 8)
    }

    fn meaning(&self, value: u64) -> String {
        let output = value & (u64::MAX >> 16 & !((1 << self.granule) - 1));
        let (name, rest) = (self.name(output), value & !output);
        match value & 3 {
            3 if value & 0x740 == 0 => format!("{name} as table {rest:#x}"),
            3 => format!("{name} as page {rest:#x}"),
            1 => format!("{name} as block {rest:#x}"),
            _ => format!("{value:#x}"),
        }
    }
}
