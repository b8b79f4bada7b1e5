//! edits: live tables change under the cores that walk them: blocks and runs become smaller and larger, frames move, permissions and
//! types change, pages age, while every other core reads through them.
//!
//! - [`resize`]: a block becomes pages, and pages a block;
//! - [`runs`]: pages become a contiguous run, and the run pages;
//! - [`relocate`]: a page moves to another frame, and no write is lost;
//! - [`protect`]: permissions and types change over holes; pages age and become clean;
//! - [`map`]: blocks, runs and pages come and go, and so do tables.
//!
//! What a reader may see meanwhile is [`audience`]'s to say and to check.

mod audience;
mod map;
mod protect;
mod relocate;
mod resize;
mod runs;

use alloc::{format, string::String};

use audience::{Audience, Found, Show};
use pgtable::{Attributes, Geometry, K4, K16, K64, Lower, Upper};
use tlbi::{Features, Granule};
use tlbsan_hint::{Cause, Expected, Kind};

use super::{Billing, Form, Judge, Need};
use crate::{
    mmu,
    stage::{Block, Stage, Usual},
    tamper::Loss,
};

type Usual16 = Lower<K16, 48>;
type Usual64 = Lower<K64, 48>;
/// The kernel's own space, in which every core runs.
type Kernel = Upper<K4, 48>;

/// Where edits are made, and what is mapped there.
trait Site: Geometry {
    /// The beginning of a block with every granule, and so is what follows it.
    const A: u64 = 0x8000_0000 + if Self::UPPER { mmu::CASE_BASE } else { 0 };
    /// Read and write.
    const DATA: Attributes = if Self::UPPER { Attributes::KERNEL_DATA } else { Attributes::USER_DATA };
    /// Read only.
    const RODATA: Attributes = Self::DATA.with_write(false);
}

impl<G: Geometry> Site for G {}

const fn block_size<G: Geometry>() -> u64 {
    match G::GRANULE {
        Granule::K4 => 2 << 20,
        Granule::K16 => 32 << 20,
        Granule::K64 => 512 << 20,
    }
}

const fn page<G: Geometry>(kind: Kind, cause: Cause, nth: u64) -> Expected {
    Expected { kind, cause, start: G::A + nth * G::PAGE, size: G::PAGE, level: 3 }
}

const fn block<G: Geometry>(kind: Kind, cause: Cause) -> Expected {
    Expected { kind, cause, start: G::A, size: block_size::<G>(), level: 2 }
}

use Cause::{LeafOnly, NoInvalidation, NotBrokenFirst};
use Judge::{Cores, Tlbsan};
use Kind::{Claimed, LiveChange, Remade};
use Need::{Granule as Pages, Spare};

/// Each form four times: in a space of its own with 4, 16 and 64 KiB pages, and in the kernel's own. `G` is its shape.
macro_rules! forms {
    ($($name:literal $judge:ident [$($need:expr),*] [$($expected:expr),*] $(bbm2 [$($bbm2:expr),*])? => $play:expr;)*) => {
        &[$(
            form!(Usual, $name, $judge, [$($need),*], [$($expected),*], [$([$($bbm2),*])?], $play),
            form!(Usual16, concat!($name, "-16k"), $judge, [$($need),*], [$($expected),*], [$([$($bbm2),*])?], $play),
            form!(Usual64, concat!($name, "-64k"), $judge, [$($need),*], [$($expected),*], [$([$($bbm2),*])?], $play),
            form!(Kernel, concat!($name, "-kernel"), $judge, [$($need),*], [$($expected),*], [$([$($bbm2),*])?], $play)
        ),*]
    };
}

macro_rules! form {
    ($shape:ident, $name:expr, $judge:ident, $needs:tt, $expected:tt, [$($bbm2:tt)?], $play:expr) => {{
        type G = $shape;
        Form {
            name: concat!("edits/", $name),
            judge: $judge,
            needs: &form!(@needs $needs),
            expected: &$expected,
            expected_bbm2: form!(@optional $($bbm2)?),
            play: $play,
        }
    }};
    (@needs [$($need:expr),*]) => { [Pages(G::GRANULE), $($need),*] };
    (@optional) => { None };
    (@optional $bbm2:tt) => { Some(&$bbm2) };
}

/// The forms: name, who can judge, what it needs, verdicts expected, those with FEAT_BBM 2 if they are others, how it is played.
///
/// An edit that has returned claims to have flushed. Where the architecture permits to replace what is still cached, that is
/// what a missing invalidation breaks.
pub const FORMS: &[Form] = forms! {
    "correct-resize"     Cores  [Spare(block_size::<G>())] [] => resize::correct::<G>;
    "split-without-bbm"  Tlbsan [Spare(block_size::<G>())]
        [block::<G>(LiveChange, NotBrokenFirst)] bbm2 [block::<G>(Claimed, NoInvalidation)]
        => resize::split_in_place::<G>;
    "collapse-leaf-only" Tlbsan [Spare(block_size::<G>())]
        [block::<G>(Remade, LeafOnly)] bbm2 [block::<G>(Claimed, LeafOnly), page::<G>(Claimed, LeafOnly, 0)]
        => resize::collapse_leaf_only::<G>;

    "correct-runs"       Cores  [] [] => runs::correct::<G>;
    "contiguous-partial" Tlbsan [] [page::<G>(Claimed, NotBrokenFirst, 1)] => runs::partial::<G>;

    "correct-relocate"   Cores  [] [] => relocate::correct::<G>;
    "remap-without-break" Cores [] [page::<G>(LiveChange, NotBrokenFirst, 0)] => relocate::in_place::<G>;

    "correct-protect"    Cores  [] [] => protect::correct::<G>;

    "correct-map"        Cores  [Spare(map::memory::<G>())] [] => map::correct::<G>;
    "table-linked-before-zeroed" Tlbsan [] [page::<G>(Remade, NoInvalidation, 1)] => map::linked_early::<G>;
};

/// A block of the linear map, which is there from the start and in use.
pub const LINEAR_MAP: &[Form] = &[Form {
    name: "edits/correct-linear-map",
    judge: Cores,
    needs: &[],
    expected: &[],
    expected_bbm2: None,
    play: resize::linear_map,
}];

/// Plays `script` on core 0 while the others read `places`, where nothing is mapped yet. FEAT_BBM is taken for what `bbm` says.
fn perform<G: Geometry>(
    billing: &Billing,
    bbm: u8,
    places: &[u64],
    script: &(dyn Fn(&Show<'_, '_, G>) + Sync),
) -> Result<(), String> {
    perform_from(Found::Hole, billing, bbm, places, script)
}

/// The same where the readers find something from the start.
fn perform_from<G: Geometry>(
    found: Found,
    billing: &Billing,
    bbm: u8,
    places: &[u64],
    script: &(dyn Fn(&Show<'_, '_, G>) + Sync),
) -> Result<(), String> {
    let audience = Audience::new(places, found);
    let features = Features { bbm, ..Features::detect() };
    Stage::<G>::play_with(billing.asid, Loss::Nothing, features, &|stage, core| {
        if core == 0 {
            let show = Show::new(stage, &audience);
            script(&show);
            show.end();
        } else {
            audience.attend(stage, core);
        }
    })
    .map_err(|why| format!("with FEAT_BBM {bbm}: {why}"))
}

/// The levels of FEAT_BBM that this CPU can be taken to have.
fn levels() -> impl Iterator<Item = u8> {
    0..=Features::detect().bbm
}

/// Adjacent memory for a block or run.
fn spare(size: u64) -> Result<Block, String> {
    Block::new(size).ok_or_else(|| format!("no {size} bytes to spare"))
}
