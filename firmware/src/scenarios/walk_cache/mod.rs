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

use super::{Billing, Form, Judge};
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

use Cause::{LeafOnly, LocalOnly, NoInvalidation, NotCompleted, NotOrdered, WrongAsid, WrongRange};
use Judge::{Cores, Tlbsan};
use Kind::{Claimed, Remade, Reused};

macro_rules! forms {
    ($($name:literal $judge:ident $cores:literal [$($expected:expr),*] $play:expr;)*) => {
        &[$(Form {
            name: concat!("walk-cache/", $name),
            judge: $judge,
            cores: $cores,
            expected: &[$($expected),*],
            play: $play,
        }),*]
    };
}

/// The forms: name, who can judge, cores needed, verdicts expected, how it is played.
pub const FORMS: &[Form] = forms! {
    "correct"                    Cores  1 [] |b| race::play(b, None, Fresh);
    "lost-freed-tables"          Tlbsan 1 [table(Remade, LeafOnly, A)]
        |b| race::play(b, Some(Fault::LostFreedTables), Fresh);
    "gather-record-reset-late"   Cores  1 [table(Remade, NoInvalidation, A), leaf(Remade, NoInvalidation, A)]
        |b| race::play(b, Some(Fault::GatherRecordResetLate), Stale);

    "correct-neighbour"          Cores  1 [] |b| company::zap(b, None, Fresh);
    "unflushed-neighbour"        Cores  1 [leaf(Claimed, NoInvalidation, LEAF)]
        |b| company::zap(b, Some(Fault::UnflushedNeighbour), Stale);
    "correct-map-over"           Cores  1 [] |b| company::map_over(b, None, Fresh);
    "map-over-pending"           Cores  1 [leaf(Remade, NoInvalidation, LEAF)]
        |b| company::map_over(b, Some(Fault::MapOverPending), Stale);

    "correct-table"              Cores  1 [] |b| remap::play(b, A, Loss::Nothing, None, Fresh);
    "leaf-only-after-table-free" Tlbsan 1 [table(Remade, LeafOnly, A)]
        |b| remap::play(b, A, Loss::Nothing, Some(Fault::LeafOnlyAfterTableFree), Fresh);
    "tables-freed-before-flush"  Tlbsan 1 [table(Reused, NoInvalidation, A)]
        |b| remap::play(b, A, Loss::Nothing, Some(Fault::TablesFreedBeforeFlush), Fresh);

    "correct-leaf"               Cores  1 [] |b| remap::play(b, LEAF, Loss::Nothing, None, Fresh);
    "missing-leaf"               Cores  1 [leaf(Remade, NoInvalidation, LEAF)]
        |b| remap::play(b, LEAF, Loss::LeafTlbis, None, Stale);
    "no-dsb-before-tlbi"         Tlbsan 1 [leaf(Remade, NotOrdered, LEAF)]
        |b| remap::play(b, LEAF, Loss::StoreDsbs, None, Fresh);
    "no-dsb-after-tlbi"          Tlbsan 1 [leaf(Remade, NotCompleted, LEAF)]
        |b| remap::play(b, LEAF, Loss::FullDsbs, None, Fresh);
    "dsb-ishst-after-tlbi"       Tlbsan 1 [leaf(Remade, NotCompleted, LEAF)]
        |b| remap::play(b, LEAF, Loss::FullDsbsWeakened, None, Fresh);
    "dsb-on-other-core"          Tlbsan 2 [leaf(Remade, NotCompleted, LEAF)]
        |b| remap::play(b, LEAF, Loss::FullDsbsElsewhere, None, Fresh);
    "local-only"                 Cores  2 [leaf(Remade, LocalOnly, LEAF)]
        |b| remap::play(b, LEAF, Loss::Broadcast, None, Stale);
    "wrong-asid"                 Tlbsan 1 [leaf(Remade, WrongAsid, LEAF)]
        |b| remap::play(b, LEAF, Loss::Asid, None, Fresh);
    "wrong-range"                Cores  1 [leaf(Remade, WrongRange, LEAF)]
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
