//! One space against a plain map, on the simulated machine; bad requests; frames running out.

mod common;

use common::{Board, OnePe, be, frame, range};
use pgtable::{AddressSpace, Attributes, Error, FrameAllocator, K4, Upper};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tlbi::{Issue, Level, PhysAddr, Tlb, VirtAddr};

const PAGE: u64 = 0x1000;
const RW: Attributes = Attributes::USER_DATA;

fn map<I: Issue>(space: &AddressSpace<&Board, &Board>, tlb: &Tlb<I>, va: u64, pages: u64, n: u64) -> Result<(), Error> {
    space.change(tlb, &OnePe, &mut |_| (), |edit| edit.map(range(va, pages * PAGE), frame(n), RW))
}

#[test]
fn refused_requests_leave_the_space_as_it_was() {
    let board = Board::new(64);
    let space = board.space(2);
    let tlb = board.tlb();
    map(&space, &tlb, 0x4000_0000, 4, 0).expect("free");
    map(&space, &tlb, 0x4000_6000, 1, 9).expect("free");
    let (tree, used) = (board.tree(space.root().bits()), board.used());
    let top = 1 << 48;
    let map_range = |r, f| space.change(&tlb, &OnePe, &mut |_| (), |edit| edit.map(r, f, RW));
    let unmap = |r| space.change(&tlb, &OnePe, &mut |_| panic!("nothing is unmapped"), |edit| edit.unmap(r));
    let zap = |r| space.change(&tlb, &OnePe, &mut |_| panic!("nothing is unmapped"), |edit| edit.zap(r));

    for r in [range(0x5000_0800, PAGE), range(0x5000_0000, 0x800), range(0x5000_0fff, 1)] {
        let error = Err(Error::UnalignedRange { range: r });
        assert_eq!((map_range(r, frame(1)), unmap(r), zap(r)), (error, error, error));
    }
    for r in [range(top - PAGE, 2 * PAGE), range(top, PAGE), range(u64::MAX - 0xfff, PAGE)] {
        let error = Err(Error::OutsideSpace { range: r });
        assert_eq!((map_range(r, frame(1)), unmap(r), zap(r)), (error, error, error));
    }
    let free = range(0x5000_0000, 2 * PAGE);
    let odd = PhysAddr::new(0x800);
    assert_eq!(map_range(free, odd), Err(Error::UnalignedFrame { frame: odd }));
    for high in [PhysAddr::new((1 << 40) - PAGE), PhysAddr::new(1 << 40), PhysAddr::new(!0xfff)] {
        let error = Error::FrameTooHigh { frame: high, size: 2 * PAGE, pa_bits: 40 };
        assert_eq!(map_range(free, high), Err(error));
    }
    let double = range(0x3fff_e000, 16 * PAGE);
    assert_eq!(
        map_range(double, frame(1)),
        Err(Error::AlreadyMapped { range: double, at: VirtAddr::new(0x4000_0000) })
    );
    let hole = range(0x4000_0000, 7 * PAGE);
    assert_eq!(unmap(hole), Err(Error::NotMapped { range: hole, at: VirtAddr::new(0x4000_4000) }));
    assert_eq!(unmap(range(0, top)).map_err(|e| matches!(e, Error::NotMapped { .. })), Err(true));

    assert_eq!((board.tree(space.root().bits()), board.used()), (tree, used));
    assert_eq!(board.violations(), []);
}

#[test]
fn a_map_that_runs_out_of_frames_at_any_point_changes_nothing() {
    let board = Board::new(64);
    let space = board.space(1);
    let tlb = board.tlb();
    map(&space, &tlb, 0x4000_0000, 1, 0).expect("free");
    let (tree, used) = (board.tree(space.root().bits()), board.used());
    // Across a 512 GiB boundary: two new tables at each of levels 1 (one is there), 2 and 3.
    let wide = range((1 << 39) - 0x20_0000, 0x40_0000);
    let map_wide = || space.change(&tlb, &OnePe, &mut |_| (), |edit| edit.map(wide, frame(1), RW));
    let needed = 5;
    for n in 0..needed {
        board.fail_in(n);
        assert_eq!(map_wide(), Err(Error::OutOfFrames { tables: needed as usize }), "failing at allocation {n}");
        assert_eq!(board.used(), used, "failing at allocation {n}");
        assert_eq!(board.tree(space.root().bits()), tree, "failing at allocation {n}");
    }
    board.fail_in(needed);
    assert_eq!(map_wide(), Ok(()));
    assert_eq!(board.used(), used + needed as usize);
}

#[test]
fn tables_that_become_empty_are_freed_and_others_stay() {
    let board = Board::new(64);
    let space = board.space(1);
    let tlb = board.tlb();
    let empty = board.used();
    map(&space, &tlb, 0x4000_0000, 2, 0).expect("free");
    let mut released = Vec::new();
    let mut unmap = |va, pages| {
        space.change(&tlb, &OnePe, &mut |r| released.push((r.va, r.frame)), |e| e.unmap(range(va, pages * PAGE)))
    };
    unmap(0x4000_0000, 1).expect("mapped");
    assert_eq!(board.used(), empty + 3, "a page is left in the level-3 table");
    unmap(0x4000_1000, 1).expect("mapped");
    assert_eq!(board.used(), empty);
    assert_eq!(released, [(VirtAddr::new(0x4000_0000), frame(0)), (VirtAddr::new(0x4000_1000), frame(1))]);
    assert_eq!(space.table(VirtAddr::new(0x4000_0000), Level::L1), None);
    assert_eq!(board.violations(), []);
}

/// A table that a change unlinks is pending with all that it translated, not only with the pages that it held at last.
#[test]
fn a_table_is_replaced_in_one_change_only_after_its_flush() {
    let board = Board::new(64);
    let space = board.space(2);
    let tlb = board.tlb();
    map(&space, &tlb, 0x4000_0000, 4, 0).expect("free");
    let table = space.table(VirtAddr::new(0x4000_0000), Level::L3);
    space.change(&tlb, &OnePe, &mut |_| (), |edit| {
        edit.unmap(range(0x4000_0000, 4 * PAGE)).expect("mapped");
        // Another page beneath the same level-2 entry.
        edit.map(range(0x401f_c000, PAGE), frame(5), RW).expect("free");
    });
    assert_ne!(space.table(VirtAddr::new(0x401f_c000), Level::L3), None);
    assert_ne!(space.table(VirtAddr::new(0x401f_c000), Level::L3), table, "the old one was still in the gather");
    assert_eq!(board.violations(), []);
}

#[test]
fn an_unmap_larger_than_the_gather_gives_every_frame_back() {
    let board = Board::new(2048);
    let space = board.space(2);
    let tlb = board.tlb();
    let empty = board.used();
    map(&space, &tlb, 0x4000_0000 - 300 * PAGE, 3000, 0).expect("free");
    let mut released = Vec::new();
    space
        .change(&tlb, &OnePe, &mut |r| released.push(r.frame), |e| {
            e.unmap(range(0x4000_0000 - 300 * PAGE, 3000 * PAGE))
        })
        .expect("mapped");
    released.sort();
    assert!(released.iter().copied().eq((0..3000).map(frame)), "every frame once");
    assert_eq!(board.used(), empty);
    assert_eq!(board.violations(), []);
    let (opened, cleaned) = board.machine().model().residues().counts();
    assert!(opened > 3000 && opened == cleaned, "{opened} opened, {cleaned} cleaned");
}

#[test]
fn the_end_of_a_space_returns_everything() {
    let board = Board::new(64);
    let space = board.space(2);
    let tlb = board.tlb();
    map(&space, &tlb, 0x4000_0000, 3, 0).expect("free");
    map(&space, &tlb, (1 << 48) - PAGE, 1, 7).expect("free");
    for pe in 0..2 {
        board.machine().run_in(pe, 0xf_f000, 0);
    }
    let mut released = Vec::new();
    // SAFETY: both PEs have been switched to another root.
    unsafe { space.destroy(&tlb, &OnePe, &mut |r| released.push(r.frame)) };
    assert_eq!(released, [frame(0), frame(1), frame(2), frame(7)]);
    assert_eq!(board.used(), 0);
    // Its tables are ordinary memory again.
    for n in 1..=64 {
        board.machine().store(0, n << 12, 0x1235);
    }
    assert_eq!(board.violations(), []);
}

/// A kernel's boot code has mapped its own half by hand, and runs in it.
#[test]
fn tables_that_exist_are_adopted_as_they_are() {
    const BASE: u64 = 0xffff_0000_0000_0000;
    const BLOCK: u64 = 0x20_0000;
    // PXN, UXN, AF, inner shareable; global.
    const LEAF: u64 = 3 << 53 | 1 << 10 | 3 << 8;
    let board = Board::new(64);
    let [root, l1, l2, l3] = std::array::from_fn(|_| board.allocate().expect("a frame").bits());
    for (entry, value) in
        [(root, l1 | 3), (l1, l2 | 3), (l2, 0x8000_0000 | LEAF | 1), (l2 + 8, l3 | 3), (l3, frame(0).bits() | LEAF | 3)]
    {
        board.machine().store(0, entry, value);
    }
    let tree = board.tree(root);
    // SAFETY: tables of this shape, which nobody else has.
    let space: AddressSpace<_, _, Upper<K4, 48>> =
        unsafe { AddressSpace::adopt(&board, &board, None, 40, PhysAddr::new(root)) };
    (0..2).for_each(|pe| board.load_space(pe, &space));
    assert_eq!((board.tree(root), board.used()), (tree.clone(), 4));
    let mut mapped = Vec::new();
    space.for_each(&mut |m| mapped.push((m.va.bits(), m.frame, m.level(), m.attributes)));
    let data = Attributes::KERNEL_DATA;
    assert_eq!(
        mapped,
        [(BASE, PhysAddr::new(0x8000_0000), Level::L2, data), (BASE + BLOCK, frame(0), Level::L3, data)]
    );

    let tlb = board.tlb();
    let (block, page) = (range(BASE, BLOCK), range(BASE + PAGE, PAGE));
    let mut released = Vec::new();
    space.change(&tlb, &OnePe, &mut |r| released.push(r.frame), |edit| {
        edit.split(page).expect("mapped");
        edit.collapse(block).expect("one block");
        edit.unmap(range(BASE + BLOCK, PAGE)).expect("mapped");
    });
    assert_eq!((released, board.used()), (vec![frame(0)], 3), "the table that was boot code's is free");
    let left: Vec<_> = tree.into_iter().filter(|(table, _)| *table != l3).collect();
    let now = board.tree(root);
    assert_eq!(now.len(), left.len());
    for ((table, before), (_, after)) in left.iter().zip(&now) {
        let changed: Vec<_> = (0..512).filter(|n| before[*n] != after[*n]).map(|n| (*table, n, after[n])).collect();
        assert_eq!(changed, if *table == l2 { vec![(l2, 1, 0)] } else { vec![] });
    }
    assert_eq!(board.violations(), []);
    let (opened, cleaned) = board.machine().model().residues().counts();
    assert!(opened > 0 && opened == cleaned, "{opened} opened, {cleaned} cleaned");
}

#[test]
fn a_change_that_panics_is_flushed_all_the_same() {
    let board = Board::new(64);
    let space = board.space(2);
    let tlb = board.tlb();
    map(&space, &tlb, 0x4000_0000, 1, 0).expect("free");
    let mut released = Vec::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        space.change(&tlb, &OnePe, &mut |r| released.push(r.frame), |edit| {
            edit.unmap(range(0x4000_0000, PAGE)).expect("mapped");
            panic!("in the middle of it");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(released, [frame(0)]);
    map(&space, &tlb, 0x4000_0000, 1, 1).expect("free again");
    assert_eq!(board.violations(), []);
}

#[derive(Clone, Debug)]
enum Step {
    Map { page: u64, pages: u64, frame: u64 },
    Unmap { page: u64, pages: u64 },
    Zap { page: u64, pages: u64 },
}

/// Pages around the corners of tables of every level.
fn page() -> impl Strategy<Value = u64> {
    let corners = prop_oneof![Just(0u64), Just(1 << 9), Just(1 << 18), Just(1 << 27), Just((1 << 36) - 8)];
    (corners, 0..8u64).prop_map(|(corner, near)| (corner + near).saturating_sub(4))
}

fn step() -> impl Strategy<Value = Step> {
    let pages = || prop_oneof![4 => 1..5u64, 1 => 60..140u64];
    prop_oneof![
        (page(), pages(), 0..1u64 << 20).prop_map(|(page, pages, frame)| Step::Map { page, pages, frame }),
        (page(), pages()).prop_map(|(page, pages)| Step::Unmap { page, pages }),
        (page(), pages()).prop_map(|(page, pages)| Step::Zap { page, pages }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Changes of several steps each, by random PEs, some while another PE has a change open.
    #[test]
    fn a_space_is_a_plain_map_and_leaves_nothing_stale(
        changes in prop::collection::vec((0..4usize, any::<bool>(), prop::collection::vec(step(), 1..4)), 1..16)
    ) {
        let board = Board::new(4096);
        let space = board.space(4);
        let tlb = board.tlb();
        let mut flat: BTreeMap<u64, u64> = BTreeMap::new();
        for (pe, company, steps) in changes {
            let mut released = Vec::new();
            let mut expected = Vec::new();
            let mut run = || {
                be(pe);
                space.change(&tlb, &OnePe, &mut |r| released.push((r.va.bits() >> 12, r.frame)), |edit| {
                    for step in &steps {
                        let (Step::Map { page, pages, .. } | Step::Unmap { page, pages } | Step::Zap { page, pages }) = *step;
                        let r = range(page * PAGE, pages * PAGE);
                        let inside = flat.range(page..page + pages).map(|(p, f)| (*p, *f)).collect::<Vec<_>>();
                        let outside = page + pages > 1 << 36;
                        let result = match *step {
                            Step::Map { frame: n, .. } => edit.map(r, frame(n), RW),
                            Step::Unmap { .. } => edit.unmap(r),
                            Step::Zap { .. } => edit.zap(r),
                        };
                        let possible = !outside && match step {
                            Step::Map { .. } => inside.is_empty(),
                            Step::Unmap { .. } => inside.len() as u64 == pages,
                            Step::Zap { .. } => true,
                        };
                        assert_eq!(result.is_ok(), possible, "{step:?}: {result:?}");
                        if possible {
                            if let Step::Map { frame: n, .. } = *step {
                                flat.extend((0..pages).map(|i| (page + i, n + i)));
                            } else {
                                expected.extend(inside.iter().map(|(p, f)| (*p, frame(*f))));
                                inside.iter().for_each(|(p, _)| { flat.remove(p); });
                            }
                        }
                    }
                });
            };
            if company {
                be((pe + 1) % 4);
                space.change(&tlb, &OnePe, &mut |_| (), |_| {
                    run();
                    be((pe + 1) % 4);
                });
            } else {
                run();
            }
            released.sort();
            expected.sort();
            prop_assert_eq!(released, expected);
            let mut mapped = Vec::new();
            space.for_each(&mut |m| mapped.push((m.va.bits() >> 12, m.frame)));
            prop_assert_eq!(mapped, flat.iter().map(|(p, f)| (*p, frame(*f))).collect::<Vec<_>>());
            prop_assert_eq!(board.violations(), vec![]);
            let (opened, cleaned) = board.machine().model().residues().counts();
            prop_assert_eq!(opened, cleaned, "a change leaves nothing stale behind");
        }
    }
}
