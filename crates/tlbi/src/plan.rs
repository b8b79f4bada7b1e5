//! A request to the operations that cover it.
//!
//! [`plan`] is a pure function: no barriers, no hardware. It gives the fewest operations that cover exactly what was asked for,
//! rounded to entries of the request's stride:
//!
//! ```text
//!   one entry                  one operation by address
//!   up to 2^21 pages           FEAT_TLBIRANGE: one range operation, or two that overlap; k, 32k, 1024k or 32768k times two
//!                              pages fit into one (k = 1..=32), and an overlap invalidates nothing twice that matters
//!   ... with LPA2              a range operation begins at a multiple of 64 KiB: pages before it, and a last odd page, go by
//!                              themselves; between them there may be a third range operation
//!   without FEAT_TLBIRANGE     one operation an entry, below [`limit`]
//!   beyond                     the whole ASID or regime; or, if the request says `exact`, pieces of 2^21 pages
//! ```
//!
//! Invalidating more than asked for happens in three cases only: the rounding, the limits, and a request that the PE cannot carry
//! out to the letter (see [`Invalidation::check`]). Invalidating less never happens.

use crate::addr::{Asid, Ipa, VirtAddr};
use crate::features::Features;
use crate::granule::{Granule, Level};
use crate::op::{Op, Pages, Regime, Target};
use crate::request::{Depth, Extent, Invalidation, Stage2, Stage2Extent, World};

/// Without range operations: number of strides from which on the whole ASID is invalidated instead, as many as one table has
/// entries (512, 2048 or 8192). It bounds the time spent with interrupts off; it is no tuning of performance.
pub const fn limit(granule: Granule) -> u64 {
    granule.size() / 8
}

/// With range operations: number of pages above which the whole ASID is invalidated instead, unless they are one entry. As many
/// as one operation covers.
pub const RANGE_LIMIT: u64 = Pages::MAX;

/// The operations that cover `inv`, in order. Barriers are not part of it: see [`Tlb`](crate::Tlb).
#[inline]
pub fn plan(inv: &Invalidation, features: &Features) -> Plan {
    let (asid, range, stride, depth) = match inv.extent {
        Extent::Pages { asid, range, stride, depth } => (asid, range, stride, depth),
        _ => return Plan::once(inv, single(inv, features)),
    };
    let Some(asid) = ops_asid(inv, asid, stride, features) else {
        return Plan::once(inv, whole(inv, asid, features));
    };
    let range = range.widen(inv.granule.level_size(stride));
    let cover = Cover::new(range.start().bits(), range.size(), inv.granule, inv.lpa2, stride, inv.exact, features);
    let Some(cover) = cover else {
        return Plan::once(inv, whole(inv, asid, features));
    };
    let kind = Kind::Va { asid, leaf_only: matches!(depth, Depth::Leaf) };
    let hint = if inv.uniform { hint(inv.granule, inv.lpa2, stride, depth) } else { None };
    Plan {
        op: Op { nxs: inv.nxs && features.xs, ..Op::new(inv.regime(), inv.scope, Target::All) },
        once: false,
        kind,
        cover,
        hint,
        ttl: ttl(inv.granule, hint, features),
        pairs: inv.kpti,
        pair: None,
    }
}

/// The stage-2 operations that cover `request`, in order; what they leave of combined entries, and the barriers between, are
/// the sequence's: see [`Tlb::invalidate_stage2`](crate::Tlb::invalidate_stage2).
pub fn plan_stage2(request: &Stage2, features: &Features) -> Plan {
    let whole = |target| Plan {
        op: Op::new(Regime::El10, request.scope, target),
        once: true,
        kind: Kind::Ipa { non_secure: false, leaf_only: false },
        cover: Cover::NOTHING,
        hint: None,
        ttl: 0,
        pairs: false,
        pair: None,
    };
    let (range, stride, depth) = match request.extent {
        Stage2Extent::Vmid => return whole(Target::AllStages),
        Stage2Extent::AllVmids => return whole(Target::AllVmids),
        Stage2Extent::Pages { range, stride, depth } => (range, stride, depth),
    };
    if !request.granule.has_level(stride, request.lpa2) {
        return whole(Target::AllStages);
    }
    let (start, size) = range.widened(request.granule.level_size(stride));
    let Some(cover) = Cover::new(start, size, request.granule, request.lpa2, stride, request.exact, features) else {
        return whole(Target::AllStages);
    };
    let hint = if request.uniform { hint(request.granule, request.lpa2, stride, depth) } else { None };
    Plan {
        once: false,
        kind: Kind::Ipa { non_secure: request.non_secure, leaf_only: matches!(depth, Depth::Leaf) },
        cover,
        hint,
        ttl: ttl(request.granule, hint, features),
        ..whole(Target::All)
    }
}

/// The one operation of a request that is no range.
#[inline(always)]
pub(crate) fn single(inv: &Invalidation, features: &Features) -> Op {
    let Extent::Page { asid, va, level, depth } = inv.extent else {
        return match inv.extent {
            Extent::Asid(asid) => whole(inv, Some(asid), features),
            _ => whole(inv, None, features),
        };
    };
    match ops_asid(inv, asid, level, features) {
        Some(asid) => {
            let hint = hint(inv.granule, inv.lpa2, level, depth);
            let leaf_only = matches!(depth, Depth::Leaf);
            let target = Target::Va { va, asid, leaf_only, ttl: ttl(inv.granule, hint, features) };
            Op { nxs: inv.nxs && features.xs, ..Op::new(inv.regime(), inv.scope, target) }
        }
        None => whole(inv, asid, features),
    }
}

/// Everything of the ASID, if it is one and the regime has an operation for it; otherwise of the regime.
#[inline(always)]
fn whole(inv: &Invalidation, asid: Option<Asid>, features: &Features) -> Op {
    let target = match (inv.world, asid) {
        (World::El10, Some(asid)) if asid.fits(features.asid_bits) => Target::Asid(inv.first_of_pair(asid)),
        _ => Target::All,
    };
    Op { nxs: inv.nxs && features.xs, ..Op::new(inv.regime(), inv.scope, target) }
}

/// The ASID that operations by address name; `None` where they cannot do what is asked for.
#[inline(always)]
fn ops_asid(inv: &Invalidation, asid: Option<Asid>, level: Level, features: &Features) -> Option<Option<Asid>> {
    if !inv.granule.has_level(level, inv.lpa2) {
        return None;
    }
    match (inv.world, asid) {
        (World::El2 | World::El3, _) => Some(None),
        // VAE2 names one ASID, and nothing names every one.
        (World::El20, None) => None,
        (World::El10, None) => Some(None),
        (World::El10 | World::El20, Some(asid)) if asid.fits(features.asid_bits) => Some(Some(inv.first_of_pair(asid))),
        (World::El10 | World::El20, Some(_)) => None,
    }
}

/// The level that every entry concerned is a leaf at, if a hint can name it. Where a table was freed, its entry is at
/// another level.
#[inline(always)]
fn hint(granule: Granule, lpa2: bool, level: Level, depth: Depth) -> Option<Level> {
    (matches!(depth, Depth::Leaf) && granule.has_hint(level, lpa2)).then_some(level)
}

/// The hint as an operation by address takes it: `(TG << 2) | level`, with FEAT_TTL only.
#[inline(always)]
fn ttl(granule: Granule, hint: Option<Level>, features: &Features) -> u8 {
    match hint {
        Some(level) if features.ttl => (granule.tg() as u8) << 2 | level.number() as u8,
        _ => 0,
    }
}

impl Invalidation {
    #[inline(always)]
    const fn first_of_pair(&self, asid: Asid) -> Asid {
        if self.kpti { Asid::new(asid.number() & !1) } else { asid }
    }
}

/// The same operation for the odd ASID of a KPTI pair; `None` if it names no ASID.
#[inline(always)]
pub(crate) fn pair_of(mut op: Op) -> Option<Op> {
    match &mut op.target {
        Target::Asid(asid) | Target::Va { asid: Some(asid), .. } | Target::VaRange { asid: Some(asid), .. } => {
            *asid = Asid::new(asid.number() | 1)
        }
        _ => return None,
    }
    Some(op)
}

/// Iterator over the operations of a request.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What all operations have in common; if `once`, the only one.
    op: Op,
    once: bool,
    kind: Kind,
    cover: Cover,
    hint: Option<Level>,
    ttl: u8,
    pairs: bool,
    pair: Option<Op>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Va { asid: Option<Asid>, leaf_only: bool },
    Ipa { non_secure: bool, leaf_only: bool },
}

impl Plan {
    #[inline]
    fn once(inv: &Invalidation, op: Op) -> Self {
        Self {
            op,
            once: true,
            kind: Kind::Va { asid: None, leaf_only: false },
            cover: Cover::NOTHING,
            hint: None,
            ttl: 0,
            pairs: inv.kpti,
            pair: None,
        }
    }
}

impl Iterator for Plan {
    type Item = Op;

    #[inline(always)]
    fn next(&mut self) -> Option<Op> {
        if let Some(op) = self.pair.take() {
            return Some(op);
        }
        let op = if self.once {
            self.once = false;
            self.op
        } else {
            let target = match (self.cover.next()?, self.kind) {
                (Piece::Entry(first), Kind::Va { asid, leaf_only }) => {
                    Target::Va { va: VirtAddr::new(first), asid, leaf_only, ttl: self.ttl }
                }
                (Piece::Range(first, pages), Kind::Va { asid, leaf_only }) => {
                    Target::VaRange { pages: self.cover.pages(first, pages, self.hint), asid, leaf_only }
                }
                (Piece::Entry(first), Kind::Ipa { non_secure, leaf_only }) => {
                    Target::Ipa { ipa: Ipa::new(first), non_secure, leaf_only, ttl: self.ttl }
                }
                (Piece::Range(first, pages), Kind::Ipa { non_secure, leaf_only }) => {
                    Target::IpaRange { pages: self.cover.pages(first, pages, self.hint), non_secure, leaf_only }
                }
            };
            Op { target, ..self.op }
        };
        if self.pairs {
            self.pair = pair_of(op);
        }
        Some(op)
    }
}

/// What one operation covers.
enum Piece {
    /// The entry that begins at this address.
    Entry(u64),
    /// That many pages from this address.
    Range(u64, u64),
}

/// What is still to be covered: `left` pages from `first`. The `back` pages before them are covered, and a range operation may
/// cover them again.
#[derive(Clone, Debug)]
struct Cover {
    first: u64,
    left: u64,
    back: u64,
    /// Pages of an entry at the stride's level.
    entry: u64,
    /// A range operation begins at a multiple of so many pages.
    align: u64,
    granule: Granule,
    lpa2: bool,
    ranges: bool,
}

impl Cover {
    const NOTHING: Self =
        Self { first: 0, left: 0, back: 0, entry: 1, align: 1, granule: Granule::K4, lpa2: false, ranges: false };

    /// `None` above the limits. `first` and `size` are multiples of an entry at the level of `stride`.
    #[inline]
    fn new(
        first: u64,
        size: u64,
        granule: Granule,
        lpa2: bool,
        stride: Level,
        exact: bool,
        features: &Features,
    ) -> Option<Self> {
        let left = size >> granule.shift();
        let entry_shift = granule.level_shift(stride) - granule.shift();
        let entry = 1 << entry_shift;
        if left > entry && !exact {
            let beyond = if features.range { left > RANGE_LIMIT } else { left >> entry_shift >= limit(granule) };
            if beyond {
                return None;
            }
        }
        // With 64 KiB pages BaseADDR counts in those whatever DS says.
        let align = if lpa2 { 1 << (16 - granule.shift()) } else { 1 };
        // One operation by address covers an entry that no range operation covers alone.
        let ranges = features.range && entry <= Pages::MAX;
        Some(Self { first, left, back: 0, entry, align, granule, lpa2, ranges })
    }

    #[inline]
    fn pages(&self, first: u64, pages: u64, hint: Option<Level>) -> Pages {
        Pages::of(self.granule, self.lpa2, first, pages, hint)
    }

    /// What the next operation covers. At most ten comparisons, and nothing that divides.
    #[inline(always)]
    fn next(&mut self) -> Option<Piece> {
        if self.left == 0 {
            return None;
        }
        let page = self.granule.shift();
        let misaligned = self.first >> page & (self.align - 1) != 0;
        if !self.ranges || self.left == self.entry || misaligned {
            let first = self.first;
            self.skip(self.entry);
            return Some(Piece::Entry(first));
        }
        if self.align > 1 && self.left & 1 != 0 {
            // Range operations cover even counts from an even start: the last page goes by itself.
            self.left -= 1;
            return Some(Piece::Entry(self.first.wrapping_add(self.left << page)));
        }
        // The last one, if it may begin earlier.
        if let Some(pages) = round_up(self.left) {
            let again = pages - self.left;
            if again <= self.back && again & (self.align - 1) == 0 {
                self.left = 0;
                return Some(Piece::Range(self.first.wrapping_sub(again << page), pages));
            }
        }
        let pages = round_down(self.left);
        let rest = self.left - pages;
        let odd_end = self.left & (self.align - 1);
        if odd_end != 0 && rest > 64 && self.left <= Pages::MAX {
            // The end is no multiple of 64 KiB, and too far for a last operation that starts at one: cut it off.
            self.left -= odd_end;
            return Some(Piece::Range(self.first.wrapping_add(self.left << page), odd_end));
        }
        let first = self.first;
        self.skip(pages);
        Some(Piece::Range(first, pages))
    }

    #[inline]
    fn skip(&mut self, pages: u64) {
        // Past the last page the address may wrap, and is not used.
        self.first = self.first.wrapping_add(pages << self.granule.shift());
        self.left -= pages;
        self.back += pages;
    }
}

/// The smallest number of pages not below `pages` that one range operation covers.
#[inline]
fn round_up(pages: u64) -> Option<u64> {
    let unit = match pages {
        0..=0x40 => 1 << 1,
        0x41..=0x800 => 1 << 6,
        0x801..=0x1_0000 => 1 << 11,
        0x1_0001..=Pages::MAX => 1 << 16,
        _ => return None,
    };
    Some((pages + (unit - 1)) & !(unit - 1))
}

/// The greatest number of pages not above `pages`, which is 2 at least, that one range operation covers.
#[inline]
fn round_down(pages: u64) -> u64 {
    match pages {
        0..0x40 => pages & !1,
        0x40..0x800 => pages & !0x3f,
        0x800..0x1_0000 => pages & !0x7ff,
        0x1_0000..Pages::MAX => pages & !0xffff,
        _ => Pages::MAX,
    }
}
