//! walk-cache: page tables are freed and the walk caches still lead to them; two cores change one space at once.
//!
//! Three scripts, each with a correct form and faults that differ from it by one mistake:
//!
//! - [`race`]: the 2019 bug of arm64 Linux, a finish in company that forgets that tables were freed;
//! - [`company`]: a page that one core has cleared and not yet flushed, and another core that finds it so;
//! - [`remap`]: one core alone, and each way to get the sequence of an invalidation wrong.

mod company;
mod race;
mod remap;

use pgtable::fault::Fault;
use tlbsan_hint::{Cause, Expected, Kind};

use super::{Billing, Form, Judge, Need};
use crate::{
    stage::{BLOCK, PAGE},
    tamper::Loss,
};

/// A page alone in its 2 MiB span: unmapping it frees its level-3 table.
const A: u64 = 0x4000_0000;
/// A page in the next span: no TLBI for it may clean A's table entry.
const STACK: u64 = A + BLOCK;
/// A page whose neighbour keeps their table in use.
const LEAF: u64 = 0x8000_0000;

/// What the frames hold that are mapped first, and later.
const OLD: u64 = 0x0101_0101;
const NEW: u64 = 0x0202_0202;

const fn leaf(kind: Kind, cause: Cause, va: u64) -> Expected {
    Expected { kind, cause, start: va, size: PAGE, level: 3 }
}

const fn table(kind: Kind, cause: Cause, va: u64) -> Expected {
    Expected { kind, cause, start: va, size: BLOCK, level: 2 }
}

use Cause::{LeafOnly, LocalOnly, NoInvalidation, NotCompleted, NotOrdered, NotSynchronised, WrongAsid, WrongRange};
use Judge::{Cores, Tlbsan};
use Kind::{Claimed, Remade, Reused, StaleAccess};
use Need::{NoEts2, NoWaitAlone, TwoCores};

macro_rules! forms {
    ($($name:literal $judge:ident [$($need:expr),*] [$($expected:expr),*] $play:expr;)*) => {
        &[$(Form {
            name: concat!("walk-cache/", $name),
            judge: $judge,
            needs: &[$($need),*],
            expected: &[$($expected),*],
            play: $play,
        }),*]
    };
}

/// The forms: name, who can judge, what it needs, verdicts expected, how it is played.
pub const FORMS: &[Form] = forms! {
    "correct"                    Cores  [NoWaitAlone] [] |b| race::play(b, None, Fresh);
    "lost-freed-tables"          Tlbsan [NoWaitAlone] [table(Remade, LeafOnly, A)]
        |b| race::play(b, Some(Fault::LostFreedTables), Fresh);
    "gather-record-reset-late"   Cores  [NoWaitAlone] [table(Remade, NoInvalidation, A)]
        |b| race::play(b, Some(Fault::GatherRecordResetLate), Stale);

    "correct-neighbour"          Cores  [NoWaitAlone] [] |b| company::zap(b, None, Fresh);
    "unflushed-neighbour"        Cores  [NoWaitAlone] [leaf(Claimed, NoInvalidation, LEAF)]
        |b| company::zap(b, Some(Fault::UnflushedNeighbour), Stale);
    "correct-map-over"           Cores  [] [] |b| company::map_over(b, None, Fresh);
    "map-over-pending"           Cores  [] [leaf(Remade, NoInvalidation, LEAF)]
        |b| company::map_over(b, Some(Fault::MapOverPending), Stale);

    "correct-table"              Cores  [] [] |b| remap::play(b, A, Loss::Nothing, None, Fresh);
    "leaf-only-after-table-free" Tlbsan [] [table(Remade, LeafOnly, A)]
        |b| remap::play(b, A, Loss::Nothing, Some(Fault::LeafOnlyAfterTableFree), Fresh);
    "tables-freed-before-flush"  Tlbsan [] [table(Reused, NoInvalidation, A)]
        |b| remap::play(b, A, Loss::Nothing, Some(Fault::TablesFreedBeforeFlush), Fresh);

    "correct-leaf"               Cores  [] [] |b| remap::play(b, LEAF, Loss::Nothing, None, Fresh);
    "missing-leaf"               Cores  [] [leaf(Remade, NoInvalidation, LEAF)]
        |b| remap::play(b, LEAF, Loss::LeafTlbis, None, Stale);
    "no-dsb-before-tlbi"         Tlbsan [] [leaf(Remade, NotOrdered, LEAF)]
        |b| remap::play(b, LEAF, Loss::StoreDsbs, None, Fresh);
    "no-dsb-after-tlbi"          Tlbsan [] [leaf(Remade, NotCompleted, LEAF)]
        |b| remap::play(b, LEAF, Loss::FullDsbs, None, Fresh);
    "dsb-ishst-after-tlbi"       Tlbsan [] [leaf(Remade, NotCompleted, LEAF)]
        |b| remap::play(b, LEAF, Loss::FullDsbsWeakened, None, Fresh);
    "dsb-on-other-core"          Tlbsan [TwoCores] [leaf(Remade, NotCompleted, LEAF)]
        |b| remap::play(b, LEAF, Loss::FullDsbsElsewhere, None, Fresh);
    "local-only"                 Cores  [TwoCores] [leaf(Remade, LocalOnly, LEAF)]
        |b| remap::play(b, LEAF, Loss::Broadcast, None, Stale);
    "no-isb"                     Tlbsan [NoEts2] [leaf(StaleAccess, NotSynchronised, LEAF)]
        |b| remap::play(b, LEAF, Loss::Isbs, None, Fresh);
    "wrong-asid"                 Tlbsan [] [leaf(Remade, WrongAsid, LEAF)]
        |b| remap::play(b, LEAF, Loss::Asid, None, Fresh);
    "wrong-range"                Cores  [] [leaf(Remade, WrongRange, LEAF)]
        |b| remap::play(b, LEAF, Loss::Address, None, Stale);
};

/// What the reader finds where another frame has been mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Fresh,
    Stale,
}
use Reads::{Fresh, Stale};

impl Reads {
    /// What is right to read: a form that is known to be faulty shows its fault where the machine shows it at all.
    fn mark(self, billing: &Billing) -> u64 {
        if self == Stale && billing.as_named { OLD } else { NEW }
    }
}
