//! Plans against a search for the shortest cover, against Linux's algorithm, and against the rules for hints and limits.

mod common;
#[path = "common/linux.rs"]
mod linux;

use common::Random;
use linux::LinuxRange;
use tlbi::plan::{RANGE_LIMIT, limit, plan_stage2};
use tlbi::{
    Asid, Depth, Extent, Features, Granule, Invalidation, Ipa, IpaRange, Level, Op, Pages, Regime, Scope, Stage2,
    Target, VaRange, VirtAddr, plan,
};

const ASID: Asid = Asid::new(7);
const RANGES: Features = Features { asid_bits: 16, range: true, ttl: true, el2: true, el3: true, ..Features::NONE };
const SINGLES: Features = Features { range: false, ..RANGES };
const GRANULES: [Granule; 3] = [Granule::K4, Granule::K16, Granule::K64];

/// The pages that one operation removes leaves of, as first and last page number.
fn covered(op: Op, granule: Granule, entry: u64, lpa2: bool) -> (u64, u64) {
    // As the PE reads the operand, not as the plan meant it.
    match op.mnemonic().decode(op.operand()).target {
        Target::Va { va, .. } => {
            let first = va.bits() >> granule.shift() & !(entry - 1);
            (first, first + (entry - 1))
        }
        Target::VaRange { pages, .. } => {
            let pages = pages.with_lpa2(lpa2);
            let first = pages.first_va() >> granule.shift();
            (first, first + (pages.pages() - 1))
        }
        Target::Ipa { ipa, .. } => {
            let first = ipa.bits() >> granule.shift() & !(entry - 1);
            (first, first + (entry - 1))
        }
        Target::IpaRange { pages, .. } => {
            let pages = pages.with_lpa2(lpa2);
            let first = pages.first_ipa() >> granule.shift();
            (first, first + (pages.pages() - 1))
        }
        other => panic!("{other:?} is no operation by address"),
    }
}

/// Whether the intervals cover exactly `first..=last`.
fn covers_exactly(mut intervals: Vec<(u64, u64)>, first: u64, last: u64) -> bool {
    intervals.sort_unstable();
    let mut next = first;
    for (from, to) in intervals {
        if from > next || from < first || to > last {
            return false;
        }
        next = next.max(to + 1);
    }
    next == last + 1
}

/// A request in pages: what the tests vary.
#[derive(Clone, Copy, Debug)]
struct Case {
    granule: Granule,
    lpa2: bool,
    level: Level,
    first: u64,
    pages: u64,
    exact: bool,
}

impl Case {
    fn entry(&self) -> u64 {
        self.granule.level_size(self.level) >> self.granule.shift()
    }

    fn align(&self) -> u64 {
        if self.lpa2 { 0x1_0000 >> self.granule.shift() } else { 1 }
    }

    fn request(&self) -> Invalidation {
        let start = VirtAddr::new(self.first << self.granule.shift());
        let range = VaRange::new(start, self.pages << self.granule.shift()).expect("a range");
        let inv =
            Invalidation::pages(ASID, range, self.level, Depth::Leaf).granule(self.granule).lpa2(self.lpa2).uniform();
        if self.exact { inv.exact() } else { inv }
    }

    fn plan(&self, features: &Features) -> Vec<Op> {
        plan(&self.request(), features).collect()
    }

    fn check_exact(&self, ops: &[Op]) {
        let mask = u64::MAX >> self.granule.shift();
        let intervals = ops.iter().map(|op| {
            let (from, to) = covered(*op, self.granule, self.entry(), self.lpa2);
            (from & mask, to & mask)
        });
        let first = self.first & mask;
        assert!(covers_exactly(intervals.collect(), first, first + (self.pages - 1)), "{self:?}: {ops:?}");
    }

    fn linux(&self, ranges: bool) -> u64 {
        LinuxRange {
            first: self.first,
            pages: self.pages,
            stride: self.entry(),
            entries: limit(self.granule),
            align: self.align(),
            ranges,
        }
        .operations()
    }
}

/// Every number of pages that one range operation covers (Arm ARM: (NUM + 1) * 2^(5 * SCALE + 1)).
fn range_sizes() -> Vec<u64> {
    let mut sizes: Vec<u64> = (0..4).flat_map(|scale| (0..32).map(move |num| (num + 1) << (5 * scale + 1))).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// For each n up to `most`: the fewest operations, overlapping or not, that cover exactly n pages from `offset`, an offset in
/// pages from a multiple of 64 KiB.
fn shortest_covers(most: u64, offset: u64, align: u64, entry: u64) -> Vec<u32> {
    let sizes = range_sizes();
    let mut fewest = vec![u32::MAX; most as usize + 1];
    fewest[0] = 0;
    // The greatest n whose cover takes so many operations.
    let mut last_with: Vec<u64> = vec![0];
    for end in 1..=most {
        let mut best = u32::MAX;
        let entries = (end % entry == 0).then(|| end - entry);
        let ranges = sizes
            .iter()
            .take_while(|size| **size <= end)
            .map(|size| end - size)
            .filter(|start| (offset + start) % align == 0);
        for start in entries.into_iter().chain(ranges) {
            // What comes before may end anywhere from `start` on.
            if let Some(before) = last_with.iter().position(|last| *last >= start && *last != u64::MAX) {
                best = best.min(before as u32 + 1);
            }
        }
        fewest[end as usize] = best;
        if best != u32::MAX {
            if last_with.len() <= best as usize {
                last_with.resize(best as usize + 1, u64::MAX);
            }
            last_with[best as usize] = end;
        }
    }
    fewest
}

#[test]
fn a_cover_that_is_too_small_too_large_or_too_long_up_to_4096_pages() {
    let mut checked = 0;
    for granule in GRANULES {
        for lpa2 in [false, true] {
            let base = Case { granule, lpa2, level: Level::L3, first: 1 << 20, pages: 1, exact: false };
            for offset in 0..base.align() {
                let shortest = shortest_covers(4096, offset, base.align(), 1);
                for half in [0, u64::MAX << 48 >> granule.shift()] {
                    for pages in 1..=4096 {
                        let case = Case { first: half + (1 << 20) + offset, pages, ..base };
                        let ops = case.plan(&RANGES);
                        case.check_exact(&ops);
                        assert_eq!(ops.len() as u32, shortest[pages as usize], "{case:?}: {ops:?}");
                        assert!(ops.len() as u64 <= case.linux(true), "{case:?}");
                        checked += 1;
                    }
                }
            }
        }
    }
    assert_eq!(checked, 2 * 4096 * (1 + 16 + 1 + 4 + 1 + 1));
}

#[test]
fn a_cover_of_blocks_that_is_too_small_too_large_or_too_long() {
    for (granule, lpa2) in [(Granule::K4, false), (Granule::K4, true), (Granule::K16, true), (Granule::K64, false)] {
        let case = Case { granule, lpa2, level: Level::L2, first: 1 << 30, pages: 0, exact: false };
        let entry = case.entry();
        let shortest = shortest_covers(40 * entry, 0, case.align(), entry);
        for blocks in 1..=40 {
            let case = Case { pages: blocks * entry, ..case };
            let ops = case.plan(&RANGES);
            case.check_exact(&ops);
            assert_eq!(ops.len() as u32, shortest[case.pages as usize], "{case:?}: {ops:?}");
        }
    }
}

/// A plan of one operation too many would show as a cover by fewer; and with LPA2, pages before a multiple of 64 KiB and a last odd
/// page can be in no range operation at all.
fn least(case: &Case, sizes: &[u64]) -> u64 {
    if case.pages == case.entry() {
        return 1;
    }
    let (align, mut pages) = (case.align(), case.pages);
    let head = ((align - case.first % align) % align).min(pages);
    pages -= head;
    let odd = u64::from(align > 1 && pages % 2 == 1);
    pages -= odd;
    let forced = head + odd;
    if pages == 0 {
        return forced;
    }
    let most = sizes.last().copied().unwrap_or(1);
    let is_one = |pages: u64| pages == case.entry() || sizes.binary_search(&pages).is_ok();
    if is_one(pages) {
        return forced + 1;
    }
    if pages % align == 0 {
        return forced + 2.max(pages.div_ceil(most));
    }
    // The last operation begins at a multiple of 64 KiB and ends at none: it is one of up to 64 pages. Another may end inside it.
    let last = sizes.iter().filter(|size| **size <= 64 && *size % align == pages % align).max().copied().unwrap_or(0);
    let before = if sizes.iter().any(|size| pages - last <= *size && *size < pages) {
        1
    } else {
        2.max((pages - last).div_ceil(most))
    };
    forced + 1 + before
}

#[test]
fn a_cover_of_a_large_range_that_is_too_small_too_large_or_too_long() {
    let sizes = range_sizes();
    let mut random = Random(3);
    for round in 0..200_000 {
        let granule = GRANULES[random.below(3) as usize];
        let lpa2 = granule != Granule::K64 && random.below(2) == 1;
        let level = if random.below(3) == 0 { Level::L2 } else { Level::L3 };
        let exact = random.below(4) == 0;
        let mut case = Case { granule, lpa2, level, first: 0, pages: 0, exact };
        let most = if exact { 1 << 24 } else { RANGE_LIMIT };
        // Sizes of every order, and near to those that one operation covers.
        let near = sizes[random.below(sizes.len() as u64) as usize] + random.below(4);
        let order = random.below(12);
        let any = random.below(most >> order) + 1;
        let entries = if random.below(2) == 0 { near } else { any }.div_ceil(case.entry());
        case.pages = (entries * case.entry()).min(most);
        case.first = random.below(1 << 20) * case.entry();
        let ops = case.plan(&RANGES);
        case.check_exact(&ops);
        assert!(ops.len() as u64 <= least(&case, &sizes), "round {round}: {case:?}: {ops:?}");
        if !exact {
            assert!(ops.len() as u64 <= case.linux(true), "round {round}: {case:?}: {ops:?}");
        }
        if !exact && entries < limit(granule) {
            let ops = case.plan(&SINGLES);
            case.check_exact(&ops);
            assert_eq!(ops.len() as u64, case.linux(false), "round {round}: {case:?}");
        }
    }
}

#[test]
fn a_whole_asid_below_the_limits_or_a_storm_of_operations_above() {
    for granule in GRANULES {
        for level in [Level::L3, Level::L2] {
            let at = |pages, exact| Case { granule, lpa2: false, level, first: 0, pages, exact };
            let entry = at(1, false).entry();
            let by_asid = |ops: &[Op]| ops.len() == 1 && ops[0].target == Target::Asid(ASID);
            let below = at((limit(granule) - 1) * entry, false);
            assert_eq!(below.plan(&SINGLES).len() as u64, limit(granule) - 1);
            assert!(by_asid(&at(limit(granule) * entry, false).plan(&SINGLES)), "{granule}");
            assert!(!by_asid(&at(RANGE_LIMIT, false).plan(&RANGES)), "{granule}");
            assert_eq!(at(RANGE_LIMIT, false).plan(&RANGES).len(), 1);
            assert!(by_asid(&at(RANGE_LIMIT + entry, false).plan(&RANGES)), "{granule}");
            let pieces = at(2 * RANGE_LIMIT + entry, true);
            let ops = pieces.plan(&RANGES);
            pieces.check_exact(&ops);
            assert_eq!(ops.len(), 3, "{granule}: pieces of 2^21 pages");
        }
    }
    // One entry is one operation, however large: 2^22 pages.
    let block = Case { granule: Granule::K16, lpa2: true, level: Level::L1, first: 0, pages: 1 << 22, exact: false };
    for features in [RANGES, SINGLES] {
        let ops = block.plan(&features);
        block.check_exact(&ops);
        assert_eq!(ops.len(), 1);
    }
    assert_eq!([limit(Granule::K4), limit(Granule::K16), limit(Granule::K64), RANGE_LIMIT], [512, 2048, 8192, 1 << 21]);
}

#[test]
fn a_fallback_that_leaves_what_was_asked_for() {
    let range = VaRange::new(VirtAddr::new(0), 1 << 40).expect("a range");
    let pages = Invalidation::pages(ASID, range, Level::L3, Depth::Full);
    let global = Invalidation::global_pages(range, Level::L3, Depth::Full);
    for (inv, name) in [
        (pages, "tlbi aside1is, asid 7"),
        (global, "tlbi vmalle1is"),
        (pages.local(), "tlbi aside1, asid 7"),
        (pages.el2(), "tlbi alle2is"),
        (pages.el20(), "tlbi alle2is"),
        (global.el3(), "tlbi alle3is"),
        (Invalidation::asid(ASID).el20(), "tlbi alle2is"),
        (Invalidation::all().el3().local(), "tlbi alle3"),
    ] {
        let ops: Vec<String> = plan(&inv, &RANGES).map(|op| op.to_string()).collect();
        assert_eq!(ops, [name]);
    }
}

#[test]
fn an_entry_of_el2_named_by_the_wrong_operation() {
    let range = VaRange::new(VirtAddr::new(0x40_0000), 0x1000).expect("a range");
    let pages = Invalidation::pages(ASID, range, Level::L3, Depth::Leaf);
    let global = Invalidation::global_pages(range, Level::L3, Depth::Full);
    for (inv, name) in [
        (pages, "tlbi vale1is, 0x400000 asid 7"),
        (pages.el2(), "tlbi vale2is, 0x400000"),
        (pages.el20(), "tlbi vale2is, 0x400000 asid 7"),
        (global, "tlbi vaae1is, 0x400000"),
        (global.el2(), "tlbi vae2is, 0x400000"),
        // VAE2 names one ASID only.
        (global.el20(), "tlbi alle2is"),
        (global.el3(), "tlbi vae3is, 0x400000"),
    ] {
        let ops: Vec<String> = plan(&inv, &Features { ttl: false, ..RANGES }).map(|op| op.to_string()).collect();
        assert_eq!(ops, [name]);
    }
    let decoded = plan(&pages.el20(), &RANGES).next().map(|op| op.mnemonic().decode(op.operand()));
    assert!(matches!(decoded, Some(Op { regime: Regime::El2, target: Target::Va { asid: Some(ASID), .. }, .. })));
}

#[test]
fn a_hint_where_none_may_be() {
    let range = |size| VaRange::new(VirtAddr::new(1 << 30), size).expect("a range");
    let hint = |inv: Invalidation, features: &Features| match plan(&inv, features).next().expect("an operation").target
    {
        Target::Va { ttl, .. } => i32::from(ttl),
        Target::VaRange { pages, .. } => pages.level().map_or(0, |level| i32::from(level.number())),
        _ => -1,
    };
    let mixed = Invalidation::pages(ASID, range(1 << 12), Level::L3, Depth::Leaf);
    let tables = Invalidation::pages(ASID, range(1 << 21), Level::L2, Depth::Full).uniform();
    let block = Invalidation::pages(ASID, range(1 << 21), Level::L2, Depth::Leaf).uniform();
    let blocks = Invalidation::pages(ASID, range(3 << 21), Level::L2, Depth::Leaf).uniform();
    assert_eq!(hint(mixed, &RANGES), 0, "nobody said that there is one level only");
    assert_eq!(hint(mixed.uniform(), &RANGES), 0b0111);
    assert_eq!(hint(tables, &RANGES), 0, "a table was freed");
    assert_eq!(hint(block, &RANGES), 0b0110);
    assert_eq!(hint(block, &Features { ttl: false, ..RANGES }), 0, "no FEAT_TTL");
    assert_eq!(hint(blocks, &RANGES), 2);
    assert_eq!(hint(blocks, &Features { ttl: false, ..RANGES }), 2, "ranges have theirs without FEAT_TTL");
    assert_eq!(hint(Invalidation::pages(ASID, range(3 << 21), Level::L2, Depth::Full).uniform(), &RANGES), 0);
    for (granule, level, lpa2, expected) in [
        (Granule::K4, Level::L1, false, 0b0101),
        (Granule::K4, Level::L0, true, 0),
        (Granule::K16, Level::L1, false, 0),
        (Granule::K16, Level::L1, true, 0b1001),
        (Granule::K16, Level::L2, false, 0b1010),
        (Granule::K64, Level::L1, false, 0b1101),
        (Granule::K64, Level::L3, false, 0b1111),
    ] {
        let page = Invalidation::page(ASID, VirtAddr::new(0), level, Depth::Leaf).granule(granule).lpa2(lpa2);
        assert_eq!(hint(page, &RANGES), expected, "{granule} {level} {lpa2}");
    }
}

/// A range operation with a hint wants BaseADDR aligned to the entries it hints at.
#[test]
fn a_hinted_range_that_starts_inside_a_block() {
    let mut random = Random(4);
    let mut hinted = 0;
    for _ in 0..20_000 {
        let granule = GRANULES[random.below(3) as usize];
        let lpa2 = granule != Granule::K64 && random.below(2) == 1;
        let level = [Level::L1, Level::L2, Level::L3][random.below(3) as usize];
        let mut case = Case { granule, lpa2, level, first: 0, pages: 0, exact: random.below(2) == 1 };
        case.pages = (random.below(64) + 1) * case.entry();
        case.first = random.below(64) * case.entry();
        if case.pages << granule.shift() >= 1 << 50 {
            continue;
        }
        for op in case.plan(&RANGES) {
            if let Target::VaRange { pages, .. } = op.target
                && let Some(level) = pages.level()
            {
                hinted += 1;
                assert_eq!(pages.with_lpa2(lpa2).first_va() % granule.level_size(level), 0, "{case:?}: {op}");
                assert_eq!(pages.size() % granule.level_size(level), 0, "{case:?}: {op}");
            }
        }
    }
    assert!(hinted > 1000, "{hinted}");
}

#[test]
fn half_of_a_kpti_pair() {
    let range = VaRange::new(VirtAddr::new(0x40_0000), 67 << 12).expect("a range");
    let even = Asid::new(8);
    let requests = [
        Invalidation::pages(even, range, Level::L3, Depth::Leaf),
        Invalidation::page(even, VirtAddr::new(0), Level::L3, Depth::Full),
        Invalidation::asid(even),
    ];
    for inv in requests {
        let alone: Vec<Op> = plan(&inv, &RANGES).collect();
        let pairs: Vec<Op> = plan(&inv.kpti(), &RANGES).collect();
        assert_eq!(pairs.len(), 2 * alone.len());
        for (n, op) in alone.iter().enumerate() {
            assert_eq!(pairs[2 * n], *op);
            assert_eq!(pairs[2 * n + 1].operand(), op.operand() | 1 << 48, "{op}");
            assert_eq!(pairs[2 * n + 1].mnemonic(), op.mnemonic());
        }
    }
    for inv in [Invalidation::all(), Invalidation::global_pages(range, Level::L3, Depth::Leaf)] {
        assert!(plan(&inv.kpti(), &RANGES).eq(plan(&inv, &RANGES)), "no ASID, no pair");
    }
}

#[test]
fn a_stage_2_range_covered_wrongly() {
    let sizes = range_sizes();
    let mut random = Random(5);
    for _ in 0..20_000 {
        let order = random.below(21);
        let case = Case {
            granule: GRANULES[random.below(3) as usize],
            lpa2: false,
            level: Level::L3,
            first: random.below(1 << 24),
            pages: random.below(1 << order) + 1,
            exact: false,
        };
        let range = IpaRange::new(Ipa::new(case.first << case.granule.shift()), case.pages << case.granule.shift());
        let request = Stage2::pages(range.expect("a range"), Level::L3, Depth::Leaf).granule(case.granule);
        let ops: Vec<Op> = plan_stage2(&request, &RANGES).collect();
        case.check_exact(&ops);
        assert!(ops.len() as u64 <= least(&case, &sizes), "{case:?}");
        assert!(ops.iter().all(|op| op.mnemonic().form().name().contains("ipas2le1")));
    }
    let huge = IpaRange::new(Ipa::new(0), 1 << 40).expect("a range");
    let whole: Vec<String> =
        plan_stage2(&Stage2::pages(huge, Level::L3, Depth::Full), &RANGES).map(|op| op.to_string()).collect();
    assert_eq!(whole, ["tlbi vmalls12e1is"]);
}

/// Whatever the numbers are, a plan ends and nothing panics; and it never covers less than was asked for.
#[test]
fn a_request_that_hangs_or_panics_or_covers_less() {
    let mut random = Random(6);
    let levels: Vec<Level> = (-1..=3).filter_map(Level::from_number).collect();
    for _ in 0..50_000 {
        let features = Features {
            asid_bits: [8, 16][random.below(2) as usize],
            range: random.below(2) == 1,
            ttl: random.below(2) == 1,
            xs: random.below(2) == 1,
            ..Features::NONE
        };
        let start = random.next() >> random.below(64);
        let Ok(range) = VaRange::new(VirtAddr::new(start), random.next() >> random.below(64)) else { continue };
        let level = levels[random.below(5) as usize];
        let granule = GRANULES[random.below(3) as usize];
        let asid = Asid::new(random.next() as u16);
        let inv = [
            Invalidation::pages(asid, range, level, Depth::Full),
            Invalidation::global_pages(range, level, Depth::Leaf),
            Invalidation::page(asid, VirtAddr::new(random.next()), level, Depth::Leaf),
        ][random.below(3) as usize]
            .granule(granule)
            .lpa2(random.below(2) == 1);
        let inv =
            [inv, inv.el2(), inv.el20(), inv.el3(), inv.kpti(), inv.nxs(), inv.uniform()][random.below(7) as usize];
        let ops: Vec<Op> = plan(&inv, &features).take(20_000).collect();
        assert!(!ops.is_empty() && ops.len() < 20_000, "{inv:?}");
        assert!(ops.iter().all(|op| op.scope == Scope::Inner && (!op.nxs || features.xs)));
        let by_address = matches!(ops[0].target, Target::Va { .. } | Target::VaRange { .. });
        if let (Extent::Pages { asid: Some(asid), .. }, Regime::El10, true) = (inv.extent(), inv.regime(), by_address) {
            assert!(asid.fits(features.asid_bits), "an ASID that the CPU does not have: {inv:?}");
            assert!(granule.has_level(level, true), "{inv:?}");
        }
    }
}

#[test]
fn pages_and_their_largest_number_disagree() {
    assert_eq!(range_sizes().last(), Some(&Pages::MAX));
}
