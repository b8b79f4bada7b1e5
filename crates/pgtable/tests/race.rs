//! The 2019 bug and its cure on the simulated machine: no emulator, no chance.

mod common;

use common::{ASID, Board, OnePe, be, frame, range};
use pgtable::fault::Fault;
use pgtable::{AddressSpace, Attributes};
use tlbi::Level;
use tlbsan::{Cause, Kind};

const A: u64 = 0x4000_0000;
const STACK: u64 = 0x4020_0000;
const PAGE: u64 = 0x1000;
const RW: Attributes = Attributes::USER_DATA;

/// t1 on PE 0 maps, unmaps and maps again; t2 on PE 1 has a change open while t1 finishes its unmap. PE 2 and 3 watch.
fn race(board: &Board, space: &AddressSpace<&Board, &Board>) {
    let tlb = board.tlb();
    let map = |va, n| space.change(&tlb, &OnePe, &mut |_| (), |edit| edit.map(range(va, PAGE), frame(n), RW));
    be(0);
    map(A, 1).expect("free");
    map(STACK, 2).expect("free");
    let old_table = space.table(range(A, PAGE).start(), Level::L3).expect("mapped");
    be(1);
    space
        .change(&tlb, &OnePe, &mut |_| (), |t2| {
            be(0);
            space.change(&tlb, &OnePe, &mut |_| (), |t1| t1.unmap(range(A, PAGE))).expect("mapped");
            map(A, 3).expect("free again");
            let new_table = space.table(range(A, PAGE).start(), Level::L3).expect("mapped");
            assert_ne!(old_table, new_table, "the same table linked again is right to be silent");
            be(1);
            t2.zap(range(STACK, PAGE))
        })
        .expect("a range");
    be(0);
    map(STACK, 4).expect("free again");
}

#[test]
fn the_lost_freed_tables_of_2019_are_caught() {
    let board = Board::new(32);
    let space = board.space(4);
    space.inject(Some(Fault::LostFreedTables));
    race(&board, &space);
    let violations = board.violations();
    let [v] = violations.as_slice() else { panic!("{violations:#?}") };
    assert_eq!((v.kind, v.cause), (Kind::Remade, Cause::LeafOnly));
    assert_eq!((v.start, v.size, v.level, v.table), (A, 0x20_0000, 2, true));
    assert_eq!(v.pes, [0, 1, 2, 3]);
}

#[test]
fn the_cure_is_silent_and_awake() {
    let board = Board::new(32);
    let space = board.space(4);
    race(&board, &space);
    assert_eq!(board.violations(), []);
    assert_eq!(board.machine().model().residues().counts(), (3, 3), "A's leaf and table, the stack's leaf");
}

#[test]
fn dropping_any_required_instruction_of_the_cure_is_caught() {
    let issued = {
        let board = Board::new(32);
        let space = board.space(4);
        board.drop_at(None);
        race(&board, &space);
        board.log.lock().expect("no panic").clone()
    };
    // A DSB that only makes new entries visible is advice: leaving it out risks a spurious fault (R2).
    let is_publish =
        |n: usize| issued[n] == "dsb ishst" && issued.get(n + 1).is_none_or(|next| !next.starts_with("tlbi"));
    let required: Vec<usize> = (0..issued.len()).filter(|n| !is_publish(*n)).collect();
    assert!(required.len() >= 6, "two flushes of three: {issued:?}");
    for n in required {
        let board = Board::new(32);
        let space = board.space(4);
        board.drop_at(Some(n));
        race(&board, &space);
        assert_ne!(board.violations(), [], "without instruction {n}, {}, of {issued:?}", issued[n]);
    }
}

#[test]
fn mapping_over_what_another_core_has_not_flushed_yet_flushes_it_first() {
    let board = Board::new(32);
    let space = board.space(2);
    let tlb = board.tlb();
    be(0);
    space.change(&tlb, &OnePe, &mut |_| (), |edit| edit.map(range(A, PAGE), frame(1), RW)).expect("free");
    let mut released = Vec::new();
    space
        .change(&tlb, &OnePe, &mut |r| released.push(r.frame), |edit| {
            edit.unmap(range(A, PAGE))?;
            // Not flushed yet. Another core maps the same page.
            be(1);
            let mapped = space.change(&tlb, &OnePe, &mut |_| (), |other| other.map(range(A, PAGE), frame(2), RW));
            be(0);
            mapped
        })
        .expect("unmapped, then mapped");
    assert_eq!(board.violations(), []);
    assert_eq!(released, [frame(1)]);
    assert_eq!(space.lookup(range(A, PAGE).start()).map(|m| m.frame), Some(frame(2)));
}

#[test]
fn remapping_in_one_change_flushes_in_between() {
    let board = Board::new(32);
    let space = board.space(2);
    let tlb = board.tlb();
    be(0);
    space
        .change(&tlb, &OnePe, &mut |_| (), |edit| {
            edit.map(range(A, 4 * PAGE), frame(1), RW)?;
            edit.unmap(range(A, 2 * PAGE))?;
            edit.map(range(A, PAGE), frame(9), RW)?;
            edit.map(range(A + PAGE, PAGE), frame(10), RW)
        })
        .expect("all in order");
    assert_eq!(board.violations(), []);
    let (opened, cleaned) = board.machine().model().residues().counts();
    assert_eq!((opened, cleaned), (2, 2));
    assert_eq!(Some(ASID), space.asid());
}
