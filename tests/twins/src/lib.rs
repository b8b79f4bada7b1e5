//! Every rule as tiny instruction sequences: some that break it, each beside one that is right.
//!
//! A twin's name is its sequence, and the sequence is what is executed: on the simulated machine (crates/tlbsan/tests/twins.rs)
//! and, assembled into the firmware, on PEs of QEMU (firmware/src/twins). There is one list, so neither can have a twin that
//! the other lacks.
//!
//! Statements are separated by `;`, a number and a colon before one name the PE (0 otherwise). Tables map [`VA`] through `root`,
//! `pud`, `pmd` and `pte`, each the slot for it, `pte1` the next one and so on; [`VA`] and the page after it are mapped. Numbers are
//! hexadecimal. `10{...%...}` stands for 0x10 times what is in the braces, with `%` counted up from 0.
//!
//! ```text
//! str pte 0 | str pte page:2,r | str pmd table:t2 | str pmd block:1 | str t.1ff page:empty     ldr pte     zva t
//! dsb ishst     isb     eret     exc     el 2     reset     reset 2     msr ttbr0_el1 a9.root2     msr mair_el1 attr0=44     msr tcr_el1 a1=1,t0sz=19
//! msr sctlr_el1 off     msr sctlr_el2 on,wxn=1     msr vtcr_el2 ds=1,sl0=2
//! tlbi vale1is va+1000 asid=7 ttl=4.3     tlbi rvae1is va+0*2 ttl=3     tlbi ipas2e1is ipa+0     tlbi vmalle1is
//! tlbi rvae1is va*2 tg=2 ds
//! read va+10 frame:0+10     read va fault     write ...     fetch ...     claim va 1000     free t     id bbm 2     id ets2 1
//! ```

pub mod assembly;
mod list;
mod parse;

pub use list::{GROUPS, HEARTBEAT};
use tlbi::{Dsb, Mnemonic};
use tlbsan_hint::{Cause, Expected, Kind};

/// What `va` stands for.
pub const VA: u64 = 0x2_0000_0000;
/// The ASID of the address space.
pub const ASID: u16 = 7;
/// The VMID of the guest.
pub const VMID: u16 = 3;
/// The ASID of the address space that [`World::El1Away`] begins in.
pub const AWAY: u16 = 9;

/// The table pages that sequences name, and how many pages there are together.
pub const TABLES: &[(&str, u64)] = &[
    ("root", 0x0000),
    ("l1", 0x1000),
    ("l2", 0x2000),
    ("t", 0x3000),
    ("t2", 0x4000),
    ("root2", 0x5000),
    ("empty", 0x6000),
    ("other", 0x7000),
    // Two tables side by side, aligned so.
    ("s2root", 0x8000),
    ("s2l2", 0xa000),
    ("s2t", 0xb000),
    ("s2t2", 0xc000),
    ("s2other", 0xe000),
    // Of 16 KiB each.
    ("k16l1", 0x10000),
    ("k16l2", 0x14000),
    ("k16t", 0x18000),
];
/// Pages of tables.
pub const TABLE_PAGES: usize = 32;
/// Frames that pages may lead to.
pub const FRAMES: usize = 64;

/// What the tables hold before the setup of a group.
pub const BASE_TABLES: &str = "str root.0 table:l1; str pud table:l2; str pmd table:t; str pte page:0; str pte1 page:1; \
     str s2root.0 table:s2l2; str s2l2.0 table:s2t; str s2t.0 s2page:0; str s2t.1 s2page:1; str s2other.0 table:s2t2";

/// Where the PEs are when a sequence begins. There are two, or one that is just out of reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// At EL1 in the address space, under [`ASID`].
    El1,
    /// The same, and the code lies at its own physical address, so that the MMU may go off.
    El1Flat,
    /// At EL1 in an empty space under [`AWAY`].
    El1Away,
    /// One PE just out of reset, at EL1.
    Reset,
    /// The same at EL2, which has one half.
    ResetEl2,
    /// At EL2 with one half, translated by the tables.
    El2,
    /// At EL2 with two halves and ASIDs (HCR_EL2.{E2H, TGE} = {1, 1}), in the address space.
    El2Host,
    /// At EL2, after both have been in a guest of [`VMID`]: its stage 1 is off, stage 2 maps IPA 0 and the page after it.
    Guest,
    /// The same, and its stage 1 is on: the lower half alone, in the address space under [`ASID`]. Stage 2 leaves its tables where
    /// they are.
    GuestMmuOn,
}

impl World {
    /// Whether it is at EL2 beside a guest.
    pub const fn is_guest(self) -> bool {
        matches!(self, Self::Guest | Self::GuestMmuOn)
    }

    /// Whether there is one PE, which comes out of reset.
    pub const fn is_reset(self) -> bool {
        matches!(self, Self::Reset | Self::ResetEl2)
    }
}

/// A rule in one world.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// Where.
    pub world: World,
    /// What is stored to the tables before any PE walks them.
    pub setup: &'static str,
    /// The sequences.
    pub twins: &'static [Twin],
}

/// A sequence with the verdicts that it must get: none if it is right.
#[derive(Clone, Copy, Debug)]
pub struct Twin {
    /// Its name.
    pub sequence: &'static str,
    /// `remade leaf-only va+0 level 2`, and no others.
    pub expected: &'static [&'static str],
    /// Why only the simulated machine can do this, if so.
    pub only_simulated: Option<&'static str>,
}

impl Twin {
    /// A sequence that breaks its rule.
    pub const fn broken(sequence: &'static str, expected: &'static [&'static str]) -> Self {
        Self { sequence, expected, only_simulated: None }
    }

    /// A sequence that is right.
    pub const fn right(sequence: &'static str) -> Self {
        Self { sequence, expected: &[], only_simulated: None }
    }

    /// No PE of QEMU does this, for a reason.
    pub const fn only_simulated(self, why: &'static str) -> Self {
        Self { only_simulated: Some(why), ..self }
    }

    /// What it does.
    ///
    /// # Panics
    /// If it is no sequence.
    pub fn statements(&self) -> Vec<Statement> {
        statements(self.sequence)
    }

    /// What must be told of it.
    ///
    /// # Panics
    /// If that makes no sense.
    pub fn verdicts(&self) -> Vec<Expected> {
        self.expected.iter().map(|text| parse::verdict(text)).collect()
    }
}

/// What a sequence does.
///
/// # Panics
/// If it is none.
pub fn statements(sequence: &str) -> Vec<Statement> {
    parse::sequence(sequence)
}

/// One statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Who executes it.
    pub pe: usize,
    /// What.
    pub step: Step,
}

/// Where physical addresses are counted from: each machine has its own places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// From 0.
    Nowhere,
    /// The tables, [`TABLE_PAGES`] pages aligned to 16 KiB.
    Tables,
    /// The frames, [`FRAMES`] pages.
    Frames,
    /// Frames of 2 MiB, aligned so. They are mapped, and never accessed.
    Blocks,
}

/// A physical address, and bits that are added to it: a descriptor, or the value of a translation table base register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where from.
    pub area: Area,
    /// What is added.
    pub bits: u64,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stores 8 bytes at a physical address.
    Store(Value, Value),
    /// Loads 8 bytes from there.
    Load(Value),
    /// Zeroes the page there.
    Zero(Value),
    /// A DSB.
    Dsb(Dsb),
    /// An ISB.
    Isb,
    /// An exception return to the next instruction, at the same level.
    Eret,
    /// An exception, and the return from it.
    Exception,
    /// Goes to an exception level: down by ERET, up by an exception.
    El(u8),
    /// Comes out of reset at an exception level.
    Reset(u8),
    /// MSR.
    Write(Register, Written),
    /// A TLBI with its operand.
    Tlbi(Mnemonic, u64),
    /// An access at a virtual address, and the physical one that the simulated TLB gives; `None`: it faults.
    Access(Access, u64, Option<Value>),
    /// The hint that `size` bytes are flushed.
    Claim(u64, u64),
    /// The hint that a page is freed.
    Free(Value),
    /// Nothing: the PE must be so, or the sequence says nothing.
    Need(Need),
}

/// What an access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say it")]
pub enum Access {
    Read,
    Write,
    Fetch,
}

/// A system register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the architecture's")]
pub enum Register {
    Ttbr0El1,
    Ttbr1El1,
    TcrEl1,
    SctlrEl1,
    MairEl1,
    Ttbr0El2,
    TcrEl2,
    SctlrEl2,
    HcrEl2,
    VttbrEl2,
    VtcrEl2,
}

impl Register {
    /// What the architecture calls it, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ttbr0El1 => "ttbr0_el1",
            Self::Ttbr1El1 => "ttbr1_el1",
            Self::TcrEl1 => "tcr_el1",
            Self::SctlrEl1 => "sctlr_el1",
            Self::MairEl1 => "mair_el1",
            Self::Ttbr0El2 => "ttbr0_el2",
            Self::TcrEl2 => "tcr_el2",
            Self::SctlrEl2 => "sctlr_el2",
            Self::HcrEl2 => "hcr_el2",
            Self::VttbrEl2 => "vttbr_el2",
            Self::VtcrEl2 => "vtcr_el2",
        }
    }

    pub(crate) const ALL: &'static [Self] = &[
        Self::Ttbr0El1,
        Self::Ttbr1El1,
        Self::TcrEl1,
        Self::SctlrEl1,
        Self::MairEl1,
        Self::Ttbr0El2,
        Self::TcrEl2,
        Self::SctlrEl2,
        Self::HcrEl2,
        Self::VttbrEl2,
        Self::VtcrEl2,
    ];

    /// The fields that sequences change of the machine's own value.
    pub(crate) const fn fields(self) -> &'static [Field] {
        match self {
            Self::TcrEl1 => TCR_EL1_FIELDS,
            Self::TcrEl2 => TCR_EL2_FIELDS,
            Self::VtcrEl2 => VTCR_EL2_FIELDS,
            Self::SctlrEl1 | Self::SctlrEl2 => SCTLR_FIELDS,
            _ => &[],
        }
    }
}

/// What is written to a system register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// A root under an ASID or VMID, or a number.
    Value(Value),
    /// The machine's own value, which has the MMU on, with these bits cleared, and then these set.
    #[allow(missing_docs, reason = "they say it")]
    Bits { clear: u64, set: u64 },
}

/// What a PE must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// FEAT_BBM of this level.
    Bbm(u8),
    /// FEAT_ETS2, or not.
    Ets2(bool),
}

/// A field of a register: its name, lowest bit, and width.
pub(crate) type Field = (&'static str, u32, u32);

const TCR_EL1_FIELDS: &[Field] = &[
    ("t0sz", 0, 6),
    ("epd0", 7, 1),
    ("sh0", 12, 2),
    ("tg0", TCR_TG0, 2),
    ("a1", 22, 1),
    ("epd1", 23, 1),
    ("ips", 32, 3),
    ("ha", TCR_HA, 1),
    ("hd", 40, 1),
    ("hpd0", 41, 1),
    ("ds", TCR_DS, 1),
];
/// Without HCR_EL2.E2H.
const TCR_EL2_FIELDS: &[Field] = &[("t0sz", 0, 6), ("ps", 16, 3)];
const VTCR_EL2_FIELDS: &[Field] =
    &[("t0sz", 0, 6), ("sl0", 6, 2), ("tg0", TCR_TG0, 2), ("ps", 16, 3), ("ds", VTCR_DS, 1), ("sl2", 33, 1)];
const SCTLR_FIELDS: &[Field] = &[("wxn", 19, 1), ("epan", 57, 1)];
/// SCTLR_ELx.{M, C}: what is cleared to switch the MMU off.
pub(crate) const SCTLR_MMU: u64 = 1 | 1 << 2;
/// TCR_EL1.HA: FEAT_HAFDBS.
pub(crate) const TCR_HA: u32 = 39;
/// TCR_EL1.DS and VTCR_EL2.DS: FEAT_LPA2.
pub(crate) const TCR_DS: u32 = 59;
pub(crate) const VTCR_DS: u32 = 32;
/// TG0 of TCR_EL1 and VTCR_EL2, and what it is for 16 KiB.
pub(crate) const TCR_TG0: u32 = 14;
pub(crate) const TCR_TG0_16K: u64 = 2 << TCR_TG0;

/// MAIR_ELx of all worlds: index 0 is Normal write-back, 1 is Device-nGnRE.
pub const MAIR: u64 = 0x04ff;
/// HCR_EL2.RW: what is below EL2 is AArch64.
pub const HCR_RW: u64 = 1 << 31;

/// The bytes that an entry of a 4 KiB granule's table translates.
pub const fn span(level: i8) -> u64 {
    1 << (12 + 9 * (3 - level) as u32)
}

/// A verdict in the words of the list: with the address as an offset to [`VA`], if it is there.
pub fn words(kind: Kind, cause: Cause, start: u64, size: u64, level: i8) -> String {
    let at = match start.checked_sub(VA) {
        Some(offset) if offset < 1 << 30 => format!("va+{offset:x}"),
        _ => format!("{start:x}"),
    };
    let size = if size == 1 << 48 {
        "whole".to_owned()
    } else if size == span(level) {
        format!("level {level}")
    } else {
        format!("level {level} size {size:x}")
    };
    format!("{kind} {cause} {at} {size}")
}
