//! Random edits against a flat map of pages, for every format, on the simulated machine: after each change nothing stale is left, no
//! rule of break-before-make was broken, every frame came back once, and no write that hardware noted was forgotten.

mod common;

use common::{Board, OnePe, be};
use pgtable::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tlbi::{Level, PhysAddr, VaRange, VirtAddr};
use tlbsan::geometry::Geometry as Shape;
use tlbsan::machine::Root;

/// Addresses and lengths in the abstract: each format makes pages of them.
#[derive(Clone, Copy, Debug)]
struct Area {
    anchor: usize,
    offset: usize,
    length: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Map {
        area: Area,
        pages_only: bool,
        odd: bool,
        kind: usize,
    },
    Unmap(Area),
    Zap(Area),
    Protect {
        area: Area,
        kind: usize,
    },
    Age(Area),
    Clean(Area),
    Split(Area),
    Collapse {
        area: Area,
    },
    Fold(Area),
    Unfold(Area),
    Relocate {
        area: Area,
    },
    Cursor {
        area: Area,
        unmap: bool,
        odd: bool,
    },
    /// Hardware reads, or writes through, the first page.
    Hardware {
        area: Area,
        write: bool,
    },
}

fn kinds() -> [Attributes; 5] {
    let tracked = Attributes::USER_DATA.with_track_dirty(true);
    let device = Attributes::USER_DATA.with_memory(AttrIndex::new(2).expect("below 8"));
    [Attributes::USER_DATA, Attributes::USER_RODATA, Attributes::USER_CODE, tracked, device]
}

fn area() -> impl Strategy<Value = Area> {
    (prop_oneof![8 => Just(0usize), 1 => Just(1), 1 => Just(2)], 0..12usize, 0..10usize)
        .prop_map(|(anchor, offset, length)| Area { anchor, offset, length })
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || 0..5usize;
    prop_oneof![
        6 => (area(), prop::bool::weighted(0.2), prop::bool::weighted(0.2), kind())
            .prop_map(|(area, pages_only, odd, kind)| Step::Map { area, pages_only, odd, kind }),
        2 => area().prop_map(Step::Unmap),
        2 => area().prop_map(Step::Zap),
        3 => (area(), kind()).prop_map(|(area, kind)| Step::Protect { area, kind }),
        1 => area().prop_map(Step::Age),
        1 => area().prop_map(Step::Clean),
        1 => area().prop_map(Step::Split),
        1 => area().prop_map(|area| Step::Collapse { area }),
        1 => area().prop_map(Step::Fold),
        1 => area().prop_map(Step::Unfold),
        1 => area().prop_map(|area| Step::Relocate { area }),
        2 => (area(), any::<bool>(), any::<bool>()).prop_map(|(area, unmap, odd)| Step::Cursor { area, unmap, odd }),
        3 => (area(), any::<bool>()).prop_map(|(area, write)| Step::Hardware { area, write }),
    ]
}

/// A page of the flat map.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Page {
    frame: u64,
    kind: usize,
}

struct World<'b, G: Geometry> {
    board: &'b Board,
    space: &'b AddressSpace<&'b Board, &'b Board, G>,
    bbm: u8,
    flat: BTreeMap<u64, Page>,
    /// Pages written to and not cleaned since.
    dirty: BTreeSet<u64>,
    /// Ageing waits for nothing: what it invalidates is not yet gone.
    aged: bool,
    moves: u64,
}

impl<'b, G: Geometry> World<'b, G> {
    fn new(board: &'b Board, space: &'b AddressSpace<&'b Board, &'b Board, G>, bbm: u8) -> Self {
        Self { board, space, bbm, flat: BTreeMap::new(), dirty: BTreeSet::new(), aged: false, moves: 0 }
    }

    fn range(&self, area: Area) -> Option<VaRange> {
        let run = G::run(Level::L3);
        let table = G::ENTRIES as u64;
        let offsets =
            [0, 1, run / 2, run, run + 1, 2 * run, table - run, table - 1, table, table + 1, table + run, 2 * table];
        let lengths = [1, 1, 2, 3, run - 1, run, run + 1, 2 * run, table, table + run + 1];
        // A boundary of tables at two levels, the first page of the space, the last ones.
        let all = G::EVERYTHING;
        let upper = if G::ROOT <= Level::L1 { G::size(Level::L1) } else { G::size(Level::L2) };
        let start = match area.anchor {
            0 => all.start().bits() + upper - table * G::PAGE,
            1 => all.start().bits(),
            _ => all.last().bits() - ((2 * table + run) * G::PAGE - 1),
        };
        let start = start.wrapping_add(offsets[area.offset] * G::PAGE);
        VaRange::new(VirtAddr::new(start), lengths[area.length] * G::PAGE).ok().filter(|range| G::contains(*range))
    }

    fn pages(range: VaRange) -> std::ops::RangeInclusive<u64> {
        range.start().bits() / G::PAGE..=range.last().bits() / G::PAGE
    }

    /// A frame that blocks of the address fit, or one page beside it.
    fn frame(range: VaRange, odd: bool) -> PhysAddr {
        let block = G::size(Level::L2);
        let top = 1 << (G::PA_BITS - 1);
        let within = range.start().bits() & (4 * block - 1);
        PhysAddr::new(top + within + if odd { G::PAGE } else { 0 })
    }

    fn inside(&self, range: VaRange) -> Vec<(u64, Page)> {
        self.flat.range(Self::pages(range)).map(|(page, what)| (*page, *what)).collect()
    }

    /// Sets what hardware would, at the leaf of a page.
    fn hardware(&mut self, range: VaRange, write: bool) {
        struct Find(Option<(PhysAddr, Descriptor, u64, u64)>);
        impl<M: TableMemory, G: Geometry> Visitor<M, G> for Find {
            fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
                if matches!(at.entry(), Entry::Leaf(..)) {
                    self.0 = Some((at.slot(), at.descriptor(), at.span_start().bits(), G::size(at.level())));
                }
                Next::Skip
            }
        }
        let page = VaRange::new(range.start(), G::PAGE).expect("a page");
        let mut find = Find(None);
        self.space.walk(page, &mut find).expect("inside");
        let Some((slot, descriptor, ..)) = find.0 else { return };
        let attributes = descriptor.attributes::<G>();
        let mut bits = descriptor.bits() | 1 << 10;
        if write && attributes.write() {
            if attributes.track_dirty() {
                bits &= !(1 << 7);
                self.dirty.insert(range.start().bits() / G::PAGE);
            }
        }
        self.board.machine().store_unreported(slot.bits(), bits);
        self.board.machine().report_store(0, slot.bits());
    }

    fn change(&mut self, pe: usize, steps: &[Step]) {
        let tlb = self.board.tlb_with_bbm(3, self.bbm);
        let mut released: Vec<Released> = Vec::new();
        let mut removed: Vec<(u64, u64)> = Vec::new();
        let mut removed_dirty: BTreeSet<u64> = BTreeSet::new();
        let space = self.space;
        be(pe);
        space.change(&tlb, &OnePe, &mut |r| released.push(r), |edit| {
            for step in steps {
                self.step(edit, *step, &mut removed, &mut removed_dirty);
            }
        });
        // Every page came back once, and its writes with it.
        let mut back: Vec<(u64, u64)> = Vec::new();
        for r in &released {
            for n in 0..r.size / G::PAGE {
                back.push((r.va.bits() / G::PAGE + n, r.frame.bits() + n * G::PAGE));
                if removed_dirty.contains(&(r.va.bits() / G::PAGE + n)) {
                    assert!(r.dirty, "the write to {} was forgotten", r.va);
                }
            }
        }
        back.sort_unstable();
        removed.sort_unstable();
        assert_eq!(back, removed, "frames given back, {steps:?}");
        self.check();
    }

    fn step(
        &mut self,
        edit: &mut Edit<'_, &'b Board, &'b Board, &'b Board, OnePe, G>,
        step: Step,
        removed: &mut Vec<(u64, u64)>,
        removed_dirty: &mut BTreeSet<u64>,
    ) {
        let (Step::Map { area, .. }
        | Step::Unmap(area)
        | Step::Zap(area)
        | Step::Protect { area, .. }
        | Step::Age(area)
        | Step::Clean(area)
        | Step::Split(area)
        | Step::Collapse { area }
        | Step::Fold(area)
        | Step::Unfold(area)
        | Step::Relocate { area }
        | Step::Cursor { area, .. }
        | Step::Hardware { area, .. }) = step;
        let Some(range) = self.range(area) else { return };
        let inside = self.inside(range);
        let whole = inside.len() as u64 == range.size() / G::PAGE;
        let mut remove = |world: &mut Self, pages: &[(u64, Page)]| {
            for (page, what) in pages {
                world.flat.remove(page);
                removed.push((*page, what.frame));
                if world.dirty.remove(page) {
                    removed_dirty.insert(*page);
                }
            }
        };
        match step {
            Step::Map { pages_only, odd, kind, .. } => {
                let frame = Self::frame(range, odd);
                let attributes = kinds()[kind];
                let result = if pages_only {
                    edit.map_pages(range, frame, attributes)
                } else {
                    edit.map(range, frame, attributes)
                };
                assert_eq!(result.is_ok(), inside.is_empty(), "{step:?} {range}: {result:?}");
                if result.is_ok() {
                    for (n, page) in Self::pages(range).enumerate() {
                        self.flat.insert(page, Page { frame: frame.bits() + n as u64 * G::PAGE, kind });
                    }
                }
            }
            Step::Unmap(_) => {
                let result = edit.unmap(range);
                assert_eq!(result.is_ok(), whole, "{step:?} {range}: {result:?}");
                if whole {
                    remove(self, &inside);
                }
            }
            Step::Zap(_) => {
                edit.zap(range).expect("a range");
                remove(self, &inside);
            }
            Step::Protect { kind, .. } => {
                edit.protect(range, kinds()[kind]).expect("a range");
                for (page, what) in inside {
                    self.flat.insert(page, Page { kind, ..what });
                }
            }
            Step::Age(_) => {
                let mut young = 0;
                edit.age(range, &mut |_| young += 1).expect("a range");
                self.aged |= young > 0;
                edit.age(range, &mut |again| panic!("{again:?} was aged twice")).expect("a range");
            }
            Step::Clean(_) => {
                let mut cleaned: BTreeSet<u64> = BTreeSet::new();
                edit.clean(range, &mut |m| {
                    let first = m.va.bits() / G::PAGE;
                    cleaned.extend(first..first + G::size(m.level()) / G::PAGE);
                })
                .expect("a range");
                for page in Self::pages(range).filter(|page| self.dirty.contains(page)) {
                    assert!(cleaned.contains(&page), "the write to page {page:#x} was forgotten");
                }
                self.dirty.retain(|page| !cleaned.contains(page));
            }
            Step::Split(_) => edit.split(range).expect("a range"),
            Step::Fold(_) => edit.fold(range).expect("a range"),
            Step::Unfold(_) => edit.unfold(range).expect("a range"),
            Step::Collapse { .. } => {
                let size = G::size(Level::L2);
                let block = VaRange::new(range.start().align_down(size), size).expect("a block");
                let held = self.inside(block);
                let refused = edit.collapse(block);
                let first = held.first().map(|(_, first)| *first);
                let uniform = first.is_some_and(|first| {
                    first.frame % size == 0
                        && held.len() as u64 == size / G::PAGE
                        && held
                            .iter()
                            .enumerate()
                            .all(|(n, (_, p))| p.frame == first.frame + n as u64 * G::PAGE && p.kind == first.kind)
                });
                assert_eq!(refused.is_ok(), uniform, "{block}: {refused:?}");
            }
            Step::Relocate { .. } => {
                let Some(leaf) = self.space.lookup(range.start()) else {
                    assert!(matches!(
                        edit.relocate(range.start(), PhysAddr::new(0), &mut |_, _, _| ()),
                        Err(Error::NotMapped { .. })
                    ));
                    return;
                };
                let size = G::size(leaf.level());
                self.moves += 1;
                let to = PhysAddr::new((1 << (G::PA_BITS - 2)) + self.moves * G::size(Level::L2));
                let mut copied = None;
                edit.relocate(range.start(), to, &mut |old, new, size| copied = Some((old, new, size)))
                    .expect("mapped");
                assert_eq!(copied, Some((leaf.frame, to, size)));
                let span = VaRange::new(leaf.va, size).expect("a leaf");
                for (n, (page, what)) in self.inside(span).into_iter().enumerate() {
                    removed.push((page, what.frame));
                    // The new frame is as dirty as the copy: the old one's state is told, and stays.
                    self.flat.insert(page, Page { frame: to.bits() + n as u64 * G::PAGE, ..what });
                }
            }
            Step::Cursor { unmap, odd, .. } => {
                let frame = Self::frame(range, odd);
                let mut cursor = edit.cursor(range).expect("a range");
                let mut n = 0;
                let mut gone = Vec::new();
                while let Some(va) = cursor.position() {
                    let page = va.bits() / G::PAGE;
                    let here = self.flat.get(&page).copied();
                    assert_eq!(cursor.query().expect("patient").is_some(), here.is_some(), "{va}");
                    if unmap {
                        let was = cursor.unmap().expect("frames for splits");
                        assert_eq!(was.is_some(), here.is_some());
                        gone.extend(here.map(|here| (page, here)));
                    } else {
                        let frame = PhysAddr::new(frame.bits() + n * G::PAGE);
                        let mapped = cursor.map(frame, kinds()[0]);
                        assert_eq!(mapped.is_ok(), here.is_none(), "{mapped:?}");
                        if mapped.is_ok() {
                            self.flat.insert(page, Page { frame: frame.bits(), kind: 0 });
                        } else {
                            cursor.advance();
                        }
                    }
                    n += 1;
                }
                drop(cursor);
                remove(self, &gone);
            }
            Step::Hardware { write, .. } => self.hardware(range, write),
        }
    }

    fn check(&mut self) {
        let mut mapped: Vec<(u64, Page)> = Vec::new();
        let mut runs: BTreeMap<(VirtAddr, Level), u64> = BTreeMap::new();
        self.space.for_each(&mut |m| {
            assert!(m.frame.is_aligned(G::size(m.level())) && m.va.is_aligned(G::size(m.level())), "{m:?}");
            if m.is_contiguous() {
                let run = G::run_size(m.level());
                assert_eq!(m.frame.bits() & (run - 1), m.va.bits() & (run - 1), "{m:?}");
                *runs.entry((m.va.align_down(run), m.level())).or_insert(0) += 1;
            }
            let kind = kinds().iter().position(|kind| *kind == m.attributes);
            for n in 0..G::size(m.level()) / G::PAGE {
                let kind = kind.expect("attributes that were asked for");
                mapped.push((m.va.bits() / G::PAGE + n, Page { frame: m.frame.bits() + n * G::PAGE, kind }));
            }
        });
        let flat: Vec<(u64, Page)> = self.flat.iter().map(|(page, what)| (*page, *what)).collect();
        assert!(mapped == flat, "{} pages are mapped, {} should be", mapped.len(), flat.len());
        for ((start, level), members) in runs {
            assert_eq!(members, G::run(level), "a part of the run at {start}");
        }
        assert_eq!(self.board.violations(), []);
        // The referee's own walk, with its own decoder.
        let shape = Shape::stage1(G::GRANULE.shift() as u8, G::VA_BITS as u8).expect("a shape");
        let root = Root {
            space: tlbsan::geometry::Space::El10(0),
            table: self.space.root().bits(),
            half: u8::from(G::UPPER),
            geometry: Shape { wide: G::LPA2, ..shape },
        };
        let machine = self.board.machine();
        for (page, what) in self.flat.iter().step_by(7) {
            let walked =
                tlbsan::walk::walk(&root, page * G::PAGE, |table, index| Some(machine.peek(table + 8 * index as u64)));
            assert_eq!(walked.output(), Some(what.frame), "page {page:#x}");
        }
        if !self.aged {
            assert_eq!(machine.model().residues().len(), 0, "a change leaves nothing stale behind");
        }
    }
}

fn play<G: Geometry>(bbm: u8, remedy: usize, changes: &[(usize, Vec<Step>)]) {
    let board = Board::with_granule(300, G::GRANULE);
    let remedy = [Remedy::WholeRange, Remedy::WholeSpace, Remedy::Counters, Remedy::Wait][remedy];
    let space = board.space_of::<G>(3).with_remedy(remedy);
    let mut world = World::<G>::new(&board, &space, bbm);
    for (pe, steps) in changes {
        world.change(*pe, steps);
    }
    let mapped = world.flat.len() as u64;
    let other = board.space_of::<G>(3);
    let mut pages = 0;
    // SAFETY: every PE has been switched to the other one.
    unsafe { space.destroy(&board.tlb(), &OnePe, &mut |r| pages += r.size / G::PAGE) };
    assert_eq!(pages, mapped);
    assert_eq!(board.used(), 1, "the other one's root: tables that did not come back");
    drop(other);
}

macro_rules! shapes {
    ($($name:ident: $shape:ty, $cases:literal;)*) => {$(
        #[test]
        fn $name() {
            // PGTABLE_CASES: so many times as many.
            let times = std::env::var("PGTABLE_CASES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
            let cases = $cases * times;
            let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
                cases,
                max_shrink_iters: 400,
                failure_persistence: None,
                ..ProptestConfig::default()
            });
            let changes = prop::collection::vec((0..3usize, prop::collection::vec(step(), 1..5)), 1..10);
            let played = runner.run(&(0..4u8, 0..4usize, changes), |(bbm, remedy, changes)| {
                play::<$shape>(bbm, remedy, &changes);
                Ok(())
            });
            if let Err(error) = played {
                panic!("{error}");
            }
        }
    )*};
}

// The smallest and the largest of each format, and those where a level begins or ends.
shapes! {
    k4_36: Lower<K4, 36>, 60;
    k4_39: Upper<K4, 39>, 60;
    k4_40: Lower<K4, 40>, 30;
    k4_48: Lower<K4, 48>, 60;
    k4_48_upper: Upper<K4, 48>, 60;
    k4_wide_48: Lower<K4Wide, 48>, 30;
    k4_wide_52: Lower<K4Wide, 52>, 60;
    k4_wide_52_upper: Upper<K4Wide, 52>, 30;
    k16_36: Lower<K16, 36>, 30;
    k16_47: Upper<K16, 47>, 30;
    k16_48: Lower<K16, 48>, 30;
    k16_wide_52: Lower<K16Wide, 52>, 30;
    k16_wide_52_upper: Upper<K16Wide, 52>, 30;
    k64_36: Lower<K64, 36>, 12;
    k64_42: Upper<K64, 42>, 12;
    k64_48: Lower<K64, 48>, 12;
    k64_52: Lower<K64, 52>, 12;
    k64_52_upper: Upper<K64, 52>, 12;
}

/// Every size of every format begins at the level, and with as many entries, as the referee says.
#[test]
fn every_va_size_has_its_shape() {
    fn check<G: Geometry>() {
        let shape = Shape::stage1(G::GRANULE.shift() as u8, G::VA_BITS as u8).expect("a shape");
        let shape = Shape { wide: G::LPA2, ..shape };
        assert_eq!(G::ROOT.number(), shape.start_level);
        for level in (shape.start_level..=3).filter_map(Level::from_number) {
            assert_eq!(G::shift(level), shape.shift(level.number()));
            assert_eq!(G::entries(level), shape.entries(level.number()));
            assert_eq!(G::run(level) as usize, shape.run(level.number()));
            assert_eq!(G::has_leaves(level), shape.has_leaves(level.number()));
        }
        let tnsz = 64 - u64::from(G::VA_BITS);
        assert_eq!(if G::UPPER { G::tcr() >> 16 & 0x3f } else { G::tcr() & 0x3f }, tnsz);
        assert_eq!(G::EVERYTHING.size(), 1 << G::VA_BITS);
    }
    macro_rules! sizes {
        ($format:ident: $($bits:literal)*) => { $(check::<Lower<$format, $bits>>(); check::<Upper<$format, $bits>>();)* };
    }
    sizes!(K4: 36 37 38 39 40 41 42 43 44 45 46 47 48);
    sizes!(K4Wide: 36 40 44 48 49 50 51 52);
    sizes!(K16: 36 37 38 39 40 41 42 43 44 45 46 47 48);
    sizes!(K16Wide: 36 40 44 47 48 49 50 51 52);
    sizes!(K64: 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52);
}
