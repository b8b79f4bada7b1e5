//! What goes wrong elsewhere when tables are edited while they are walked: each behaviour has a test that shows it impossible here,
//! and where the library can be made to do it, a twin that shows the checker finding it.

mod common;

use common::{ASID, Board, OnePe, be, frame, range};
use pgtable::fault::Fault;
use pgtable::*;
use tlbi::{Features, Instruction, Level, PhysAddr, Recorder, Target, Tlb, VaRange, VirtAddr};
use tlbsan::Kind;
use tlbsan::report::Violation;

const BASE: u64 = 0x4000_0000;
const PAGE: u64 = 0x1000;
const RUN: u64 = 16 * PAGE;
const BLOCK: u64 = 2 << 20;
const RW: Attributes = Attributes::USER_DATA;
const RO: Attributes = Attributes::USER_RODATA;

/// Frames whose address is aligned to a block.
fn blocks(n: u64) -> PhysAddr {
    PhysAddr::new(0x2_0000_0000 + n * BLOCK)
}

/// A board, and a space on it that two PEs have loaded; FEAT_BBM at this level; freed tables are told to the checker.
fn play<R>(
    bbm: u8,
    fault: Option<Fault>,
    body: impl FnOnce(&Board, &Space<'_>, &Tlb<&Board>) -> R,
) -> (R, Vec<Violation>) {
    let board = Board::new(64);
    board.tell_freed();
    let space = board.space(2);
    let tlb = board.tlb_with_bbm(2, bbm);
    be(0);
    space.inject(fault);
    let result = body(&board, &space, &tlb);
    let violations = board.violations();
    (result, violations)
}

type Space<'b> = AddressSpace<&'b Board, &'b Board>;

fn change<R>(
    space: &Space<'_>,
    tlb: &Tlb<&Board>,
    body: impl FnOnce(&mut Edit<'_, &Board, &Board, &Board, OnePe>) -> R,
) -> R {
    // The parameters of the type are the board's lifetime, whatever it is.
    let space: &AddressSpace<&Board, &Board> = space;
    space.change(tlb, &OnePe, &mut |_| (), body)
}

fn mappings(space: &Space<'_>) -> Vec<Mapping> {
    let mut all = Vec::new();
    space.for_each(&mut |m| all.push(m));
    all
}

/// Silent, and nothing left behind, at every level of FEAT_BBM.
fn silent(body: impl Fn(&Board, &Space<'_>, &Tlb<&Board>)) {
    for bbm in 0..=3 {
        let (stale, violations) = play(bbm, None, |board, space, tlb| {
            body(board, space, tlb);
            board.machine().model().residues().len()
        });
        assert_eq!(violations, [], "FEAT_BBM level {bbm}");
        assert_eq!(stale, 0, "FEAT_BBM level {bbm}");
    }
}

/// The checker finds the fault, as a violation of this kind.
fn caught(fault: Fault, kind: Kind, body: impl Fn(&Board, &Space<'_>, &Tlb<&Board>)) {
    let ((), violations) = play(0, Some(fault), &body);
    assert!(violations.iter().any(|v| v.kind == kind), "{fault:?}: {violations:#?}");
    let ((), violations) = play(0, None, &body);
    assert_eq!(violations, [], "the correct twin of {fault:?}");
}

#[test]
fn a_flush_of_more_than_32_pages_reaches_every_pe() {
    for pages in [8, 32, 33, 64, 600] {
        silent(|board, space, tlb| {
            change(space, tlb, |e| e.map_pages(range(BASE, pages * PAGE), frame(1), RW)).expect("free");
            board.drop_at(None);
            change(space, tlb, |e| e.zap(range(BASE, pages * PAGE))).expect("a range");
            let log = board.log.lock().expect("no panic").clone();
            let tlbis = log.iter().filter(|i| i.starts_with("tlbi"));
            assert!(tlbis.clone().count() > 0 && tlbis.clone().all(|i| i.contains("is")), "{log:?}");
            assert_eq!(log[0], "dsb ishst", "stores come before invalidations: {log:?}");
            let (opened, cleaned) = board.machine().model().residues().counts();
            assert_eq!((opened, cleaned), (pages, pages), "awake");
        });
    }
}

#[test]
fn an_address_of_the_upper_half_gives_no_level_hint() {
    let board = Board::new(16);
    let space = board.space_of::<Upper<K4, 48>>(0);
    let recorder: Tlb<Recorder> = Tlb::new(Recorder::new(), Features { asid_bits: 16, ttl: true, ..Features::NONE });
    let page = range(0xffff_ffff_ffff_f000, PAGE);
    space.change(&recorder, &OnePe, &mut |_| (), |e| e.map(page, frame(1), Attributes::KERNEL_DATA)).expect("free");
    space.change(&recorder, &OnePe, &mut |_| (), |e| e.zap(page)).expect("a range");
    let ops: Vec<_> = recorder
        .issuer()
        .instructions()
        .filter_map(|i| if let Instruction::Tlbi(op) = i { Some(op) } else { None })
        .collect();
    let [op] = ops.as_slice() else { panic!("{ops:?}") };
    assert!(matches!(op.target, Target::Va { asid: None, ttl: 0, .. }), "global, without a hint: {op}");
    assert_eq!(op.operand() >> 44, 0, "VA[55:12] and nothing above");
}

#[test]
fn a_subtable_is_freed_after_its_entry_is_cleared_and_flushed() {
    silent(|board, space, tlb| {
        let empty = board.used();
        change(space, tlb, |e| e.map_pages(range(BASE, 3 * BLOCK), frame(0), RW)).expect("free");
        // Covered whole, covered in part, and emptied by both.
        change(space, tlb, |e| e.unmap(range(BASE + PAGE, 3 * BLOCK - 2 * PAGE))).expect("mapped");
        assert_eq!(board.used(), empty + 4);
        change(space, tlb, |e| e.unmap(range(BASE, PAGE))).expect("mapped");
        change(space, tlb, |e| e.unmap(range(BASE + 3 * BLOCK - PAGE, PAGE))).expect("mapped");
        assert_eq!(board.used(), empty);
    });
}

/// What one slot held, in order, while `body` ran.
fn values_of(board: &Board, slot: PhysAddr, body: impl FnOnce()) -> Vec<u64> {
    board.watch(slot);
    body();
    board.watched()
}

#[test]
fn a_moved_page_is_the_old_one_or_nothing_or_the_new_one() {
    silent(|board, space, tlb| {
        let page = range(BASE, PAGE);
        change(space, tlb, |e| e.map(page, frame(1), RW)).expect("free");
        let table = space.table(page.start(), Level::L3).expect("mapped");
        let old = board.machine().peek(table.bits());
        let mut copied = Vec::new();
        let values = values_of(board, table, || {
            change(space, tlb, |e| {
                e.relocate(page.start(), frame(7), &mut |from, to, size| copied.push((from, to, size)))
            })
            .expect("mapped");
        });
        assert_eq!(copied, [(frame(1), frame(7), PAGE)]);
        let new = board.machine().peek(table.bits());
        let valid: Vec<u64> = values.iter().copied().filter(|value| value & 1 != 0).collect();
        assert_eq!(valid, [new], "{values:x?}: before it was {old:x}");
        assert_eq!(values.first().map(|value| value & 1), Some(0), "broken first");
    });
    caught(Fault::RemapWithoutBreak, Kind::LiveChange, |_, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, PAGE), frame(1), RW)).expect("free");
        change(space, tlb, |e| e.relocate(VirtAddr::new(BASE), frame(7), &mut |_, _, _| ())).expect("mapped");
    });
}

#[test]
fn another_memory_type_is_broken_first() {
    let device = RW.with_memory(AttrIndex::new(2).expect("below 8"));
    silent(|_, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, 2 * BLOCK), blocks(1), RW)).expect("free");
        change(space, tlb, |e| e.protect(range(BASE + PAGE, BLOCK), device)).expect("a range");
        let page = |va| space.lookup(VirtAddr::new(va)).expect("mapped").attributes;
        assert_eq!(
            (page(BASE), page(BASE + PAGE), page(BASE + BLOCK), page(BASE + BLOCK + PAGE)),
            (RW, device, device, RW)
        );
    });
    caught(Fault::RemapWithoutBreak, Kind::LiveChange, |_, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, PAGE), frame(1), RW)).expect("free");
        change(space, tlb, |e| e.protect(range(BASE, PAGE), device)).expect("a range");
    });
}

#[test]
fn a_block_is_split_with_break_before_make_as_the_cpu_wants_it() {
    silent(|_, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, BLOCK), blocks(1), RW)).expect("free");
        change(space, tlb, |e| e.protect(range(BASE + PAGE, PAGE), RO)).expect("a range");
        assert_eq!(mappings(space).len(), 512);
        assert_eq!(mappings(space).iter().filter(|m| m.attributes == RO).count(), 1);
    });
    caught(Fault::SplitWithoutBbm, Kind::LiveChange, |_, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, BLOCK), blocks(1), RW)).expect("free");
        change(space, tlb, |e| e.split(range(BASE, PAGE))).expect("a range");
    });
}

#[test]
fn a_change_inside_a_block_that_changes_nothing_leaves_it_alone() {
    silent(|board, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, BLOCK + RUN), blocks(1), RW)).expect("free");
        let (tree, used) = (board.tree(space.root().bits()), board.used());
        board.drop_at(None);
        change(space, tlb, |e| {
            e.protect(range(BASE + PAGE, PAGE), RW)?;
            e.protect(range(BASE + BLOCK + PAGE, PAGE), RW)?;
            e.split(range(BASE, BLOCK))?;
            e.fold(range(BASE, BLOCK + RUN))?;
            e.collapse(range(BASE, BLOCK))?;
            e.zap(range(BASE + 2 * BLOCK, BLOCK))
        })
        .expect("ranges");
        assert_eq!((board.tree(space.root().bits()), board.used()), (tree, used));
        assert_eq!(*board.log.lock().expect("no panic"), [""; 0], "instructions for nothing");
    });
}

#[test]
fn protecting_over_holes_changes_what_is_there() {
    silent(|_, space, tlb| {
        change(space, tlb, |e| {
            e.map(range(BASE, PAGE), frame(1), RW)?;
            e.map(range(BASE + 5 * PAGE, PAGE), frame(2), RW)?;
            e.map(range(BASE + 4 * BLOCK, PAGE), frame(3), RW)
        })
        .expect("free");
        change(space, tlb, |e| e.protect(range(BASE - BLOCK, 8 * BLOCK), RO)).expect("holes are no error");
        assert_eq!(
            mappings(space).iter().map(|m| (m.frame, m.attributes)).collect::<Vec<_>>(),
            [(frame(1), RO), (frame(2), RO), (frame(3), RO)]
        );
    });
}

#[test]
fn a_table_is_complete_before_it_is_linked() {
    caught(Fault::TableLinkedBeforeZeroed, Kind::Remade, |board, space, tlb| {
        // Frames hold what a table once held.
        board.scribble(0x3_0000_0000 | 0xf43);
        change(space, tlb, |e| e.map(range(BASE, PAGE), frame(1), RW)).expect("free");
    });
}

#[test]
fn runs_are_aligned_in_both_addresses() {
    silent(|_, space, tlb| {
        change(space, tlb, |e| {
            e.map(range(BASE, 2 * RUN), blocks(1), RW)?;
            // The frames, then the addresses, are off by a page.
            e.map(range(BASE + 4 * RUN, 2 * RUN), PhysAddr::new(blocks(2).bits() + PAGE), RW)?;
            e.map(range(BASE + 8 * RUN + PAGE, 2 * RUN), PhysAddr::new(blocks(3).bits() + PAGE), RW)
        })
        .expect("free");
        let runs: Vec<u64> = mappings(space).iter().filter(|m| m.is_contiguous()).map(|m| m.va.bits()).collect();
        let expected = (0..32).map(|n| BASE + n * PAGE).chain((0..16).map(|n| BASE + 9 * RUN + n * PAGE));
        assert_eq!(runs, expected.collect::<Vec<_>>());
    });
}

#[test]
fn unmapping_one_page_of_a_run_unfolds_the_rest() {
    silent(|_, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, 3 * RUN), blocks(1), RW)).expect("free");
        change(space, tlb, |e| e.unmap(range(BASE + RUN + PAGE, PAGE))).expect("mapped");
        let all = mappings(space);
        assert_eq!(all.len(), 47);
        assert_eq!(all.iter().filter(|m| m.is_contiguous()).count(), 32);
        assert!(all.iter().filter(|m| !m.is_contiguous()).all(|m| range(BASE + RUN, RUN).contains(m.va)));
    });
    caught(Fault::ContiguousPartial, Kind::Remade, |_, space, tlb| {
        change(space, tlb, |e| e.map(range(BASE, RUN), blocks(1), RW)).expect("free");
        change(space, tlb, |e| e.unmap(range(BASE + PAGE, PAGE))).expect("mapped");
        change(space, tlb, |e| e.map(range(BASE + PAGE, PAGE), frame(9), RW)).expect("free");
    });
}

#[test]
fn collapsing_invalidates_the_table_too() {
    silent(|board, space, tlb| {
        change(space, tlb, |e| e.map_pages(range(BASE, BLOCK), blocks(1), RW)).expect("free");
        let used = board.used();
        change(space, tlb, |e| e.collapse(range(BASE, BLOCK))).expect("uniform");
        let [block] = mappings(space)[..] else { panic!("{:?}", mappings(space)) };
        assert_eq!((block.level(), block.frame, board.used()), (Level::L2, blocks(1), used - 1));
        // What is not one block is refused: a hole, other frames, other attributes, another size.
        change(space, tlb, |e| e.map_pages(range(BASE + BLOCK, BLOCK), blocks(5), RW)).expect("free");
        change(space, tlb, |e| e.protect(range(BASE + BLOCK, PAGE), RO)).expect("a range");
        for wrong in [
            range(BASE + BLOCK, BLOCK),
            range(BASE, 2 * BLOCK),
            range(BASE + 2 * BLOCK, BLOCK),
            range(BASE + PAGE, BLOCK),
        ] {
            assert_eq!(change(space, tlb, |e| e.collapse(wrong)), Err(Error::NotUniform { range: wrong }));
        }
    });
    caught(Fault::CollapseLeafOnly, Kind::Remade, |_, space, tlb| {
        change(space, tlb, |e| e.map_pages(range(BASE, BLOCK), blocks(1), RW)).expect("free");
        change(space, tlb, |e| e.collapse(range(BASE, BLOCK))).expect("uniform");
    });
}

#[test]
fn blocks_of_every_size_are_mapped_split_and_given_back() {
    fn check<G: Geometry>(level: Level, pes: usize) {
        for bbm in 0..=3 {
            let board = Board::with_granule(64, G::GRANULE);
            board.tell_freed();
            let space = board.space_of::<G>(pes);
            let tlb = board.tlb_with_bbm(pes, bbm);
            be(0);
            let start = G::EVERYTHING.start().bits() + G::size(level);
            let block = VaRange::new(VirtAddr::new(start), G::size(level)).expect("a block");
            let one = VaRange::new(VirtAddr::new(start + G::PAGE), G::PAGE).expect("a page");
            let mut released = 0;
            space.change(&tlb, &OnePe, &mut |_| (), |e| e.map(block, PhysAddr::new(G::size(level)), RW)).expect("free");
            assert_eq!(space.lookup(block.last()).map(|m| m.level()), Some(level));
            space.change(&tlb, &OnePe, &mut |r| released += r.size, |e| e.unmap(one)).expect("mapped");
            assert_eq!((released, space.lookup(one.start())), (G::PAGE, None));
            assert_eq!(
                space.lookup(block.last()).map(|m| m.frame.bits() | (G::size(m.level()) - 1)),
                Some(2 * G::size(level) - 1)
            );
            space.change(&tlb, &OnePe, &mut |r| released += r.size, |e| e.zap(block)).expect("a range");
            assert_eq!(released, G::size(level));
            assert_eq!(board.violations(), []);
            assert_eq!(board.machine().model().residues().len(), 0);
        }
    }
    check::<Lower<K4, 48>>(Level::L1, 2);
    check::<Upper<K4Wide, 52>>(Level::L0, 2);
    check::<Lower<K16Wide, 52>>(Level::L1, 2);
    check::<Upper<K64, 48>>(Level::L2, 2);
}

/// Every operation that allocates, with the allocator failing at the n-th call for every n.
#[test]
fn running_out_of_frames_at_any_point_changes_nothing() {
    type Operation = fn(&Space<'_>, &Tlb<&Board>) -> Result<(), Error>;
    let gib = 1u64 << 30;
    let operations: [(&str, Operation); 6] = [
        ("map across a corner", |s, t| {
            change(s, t, |e| e.map(range((1 << 39) - BLOCK, 2 * BLOCK + PAGE), frame(1), RW))
        }),
        ("unmap a part of a gigabyte", |s, t| change(s, t, |e| e.unmap(range((2 << 30) + PAGE, (1 << 30) - 2 * PAGE)))),
        ("zap a page of a gigabyte", |s, t| change(s, t, |e| e.zap(range((2 << 30) + BLOCK, PAGE)))),
        ("protect across two", |s, t| change(s, t, |e| e.protect(range((3 << 30) - PAGE, 2 * PAGE), RO))),
        ("split", |s, t| change(s, t, |e| e.split(range((3 << 30) - 3 * PAGE, PAGE)))),
        ("cursor", |s, t| change(s, t, |e| e.cursor(range((2 << 30) + PAGE, PAGE))?.unmap().map(|_| ()))),
    ];
    for (name, operation) in operations {
        let mut failures = 0;
        loop {
            let board = Board::new(64);
            let space = board.space(1);
            let tlb = board.tlb();
            be(0);
            change(&space, &tlb, |e| e.map(range(2 * gib, 2 * gib), PhysAddr::new(4 * gib), RW)).expect("free");
            let (tree, used) = (board.tree(space.root().bits()), board.used());
            board.fail_in(failures);
            match operation(&space, &tlb) {
                Err(Error::OutOfFrames { tables }) => assert!(tables as i64 > failures, "{name}: {tables} needed"),
                Ok(()) => break,
                Err(other) => panic!("{name}: {other}"),
            }
            assert_eq!((board.tree(space.root().bits()), board.used()), (tree, used), "{name}, allocation {failures}");
            assert_eq!(board.violations(), []);
            failures += 1;
        }
        assert!(failures > 0, "{name} needs no frame");
    }
}

/// An interrupt handler that edits the space it has interrupted.
#[test]
fn an_interrupt_that_finds_a_table_taken_gets_busy() {
    silent(|_, space, tlb| {
        let page = range(BASE, PAGE);
        let near = range(BASE + PAGE, PAGE);
        let far = range(BASE + 8 * BLOCK, PAGE);
        change(space, tlb, |e| {
            e.map(page, frame(1), RW)?;
            e.map(far, frame(2), RW)
        })
        .expect("free");
        let interrupt = |range: VaRange| {
            space.try_change(tlb, &OnePe, &mut |_| (), |e| {
                [
                    e.map(range, frame(3), RW),
                    e.zap(range),
                    e.unmap(range),
                    e.protect(range, RO),
                    e.age(range, &mut |_| ()),
                    e.fold(range),
                ]
            })
        };
        let mut seen = Vec::new();
        change(space, tlb, |e| {
            e.relocate(page.start(), frame(5), &mut |_, _, _| {
                // The table is taken by the code that is interrupted.
                seen.push(interrupt(near).expect("the record is free"));
                seen.push(interrupt(far).expect("the record is free"));
            })
        })
        .expect("mapped");
        let busy = Err(Error::Busy { range: near });
        assert_eq!(seen[0], [busy; 6]);
        assert_eq!(seen[1][0], Err(Error::AlreadyMapped { range: far, at: far.start() }));
        assert_eq!((seen[1][1], seen[1][3]), (Ok(()), Ok(())));
        // Afterwards it is as any change.
        assert_eq!(interrupt(near).expect("free")[0], Ok(()));
    });
}

#[test]
fn writable_and_executable_is_asked_for() {
    let board = Board::new(16);
    let space = board.space(1);
    let tlb = board.tlb();
    let (page, both) = (range(BASE, PAGE), RW.with_user_execute(true));
    let refused = Err(Error::WriteExecute { range: page });
    assert_eq!(change(&space, &tlb, |e| e.map(page, frame(1), both)), refused);
    change(&space, &tlb, |e| e.map(page, frame(1), RW)).expect("free");
    assert_eq!(change(&space, &tlb, |e| e.protect(page, both)), refused);
    let space = space.with_write_execute();
    assert_eq!(change(&space, &tlb, |e| e.protect(page, both)), Ok(()));
    assert_eq!(space.asid(), Some(ASID));
}

#[test]
fn software_takes_the_faults_that_hardware_would_not() {
    silent(|_, space, tlb| {
        let tracked = RW.with_track_dirty(true);
        let page = range(BASE, PAGE);
        change(space, tlb, |e| e.map(page, frame(1), tracked)).expect("free");
        let state = || space.lookup(page.start()).map(|m| (m.is_accessed(), m.is_dirty()));
        assert_eq!(state(), Some((true, false)));
        let mut young = 0;
        change(space, tlb, |e| e.age(page, &mut |_| young += 1)).expect("a range");
        assert_eq!((young, state()), (1, Some((false, false))));
        change(space, tlb, |e| e.touch(page.start(), true)).map(|permitted| assert!(permitted)).expect("mapped");
        assert_eq!(state(), Some((true, true)));
        // Dirt survives a loss of the permission to write.
        change(space, tlb, |e| e.protect(page, RO)).expect("a range");
        assert_eq!((state(), change(space, tlb, |e| e.touch(page.start(), true))), (Some((true, true)), Ok(false)));
        let mut dirty = Vec::new();
        change(space, tlb, |e| e.clean(page, &mut |m| dirty.push(m.va))).expect("a range");
        assert_eq!((dirty, state()), (vec![page.start()], Some((true, false))));
        assert!(matches!(
            change(space, tlb, |e| e.touch(VirtAddr::new(BASE + PAGE), false)),
            Err(Error::NotMapped { .. })
        ));
    });
}
