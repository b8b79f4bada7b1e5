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
}

impl Setting {
    /// How many there are.
    pub(crate) const ALL: u64 = 192;

    /// The one with a number; 0 is EL1&0 with pages of 4 KiB, nothing managed.
    pub(crate) fn new(number: u64) -> Self {
        let regime = [Regime::El1, Regime::Host, Regime::El2, Regime::Guest][(number % 4) as usize];
        let granule = [12, 14, 16][(number / 4 % 3) as usize];
        let (managed, bbm, runs) = (number / 12 % 2 == 1, (number / 24 % 4) as u8, number / 96 % 2 == 1);
        Self { regime, granule, managed, bbm, runs }
    }

    /// log2 of what an entry translates.
    pub(super) fn shift(&self, level: u32) -> u32 {
        self.granule + (self.granule - 3) * (3 - level)
    }

    /// Bits of address, for three levels.
    pub(super) fn bits(&self) -> u32 {
        (self.shift(1) + self.granule - 3).min(48)
    }

    /// Where a table lies.
    pub(super) fn table(&self, number: u64) -> u64 {
        number << self.granule
    }

    /// Where a frame lies, of the size of a block of level 2; 1 to 3.
    pub(super) fn frame(&self, number: u64) -> u64 {
        number << self.shift(2)
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
        if self.regime == Regime::Guest { 0xfc3 } else { 0xf43 }
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
        match self.regime {
            // ASIDs of 16 bits, from TTBR0.
            Regime::El1 | Regime::Host => size | size << 16 | tg0 << 14 | tg1 << 30 | 1 << 36 | managed << 39,
            Regime::El2 => size | tg0 << 14 | managed << 21,
            // VMIDs of 16 bits; level 1 is the first.
            Regime::Guest => size | (if self.granule == 12 { 1 } else { 2 }) << 6 | tg0 << 14 | 1 << 19 | managed << 21,
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
        let number = pa >> self.granule;
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
