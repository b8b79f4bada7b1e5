//! The upper half of a kernel that hides itself from EL0: its own pages are non-global there (KPTI).

use tlbsan::model::Config;
use tlbsan::report::Severity;
use tlbsan::sim::{Machine, TCR};
use tlbsan::{Kind, Sysreg};

const ROOT: u64 = 0x1000;
const TABLES: [u64; 3] = [0x2000, 0x3000, 0x4000];
/// A page of data, until it becomes a table.
const FRAME: u64 = 0x10_0000;
const TABLE: u64 = 3;
/// Valid page, AF, inner shareable, read-write at EL1, not for EL0; nG.
const KERNEL: u64 = 0x703;
const NON_GLOBAL: u64 = 1 << 11;
/// EL0 may use it.
const USER: u64 = 1 << 6;

/// A kernel half of 48 bits that maps `FRAME` with these attributes as its first page, ASID 5.
fn kernel(attributes: u64) -> Machine {
    let mut m = Machine::new(Config::default());
    let [l1, l2, l3] = TABLES;
    for (slot, entry) in [(ROOT, l1 | TABLE), (l1, l2 | TABLE), (l2, l3 | TABLE), (l3, FRAME | attributes)] {
        m.store(0, slot, entry);
    }
    // Walks through TTBR1 only, whose ASID counts (EPD0, A1).
    m.write(0, Sysreg::TcrEl1, TCR & !(1 << 23) | 1 << 7 | 1 << 22);
    m.write(0, Sysreg::Ttbr1El1, ROOT | 5 << 48);
    m.write(0, Sysreg::SctlrEl1, 1);
    m.isb(0);
    m
}

/// The page is unmapped, and its frame becomes a table at once.
fn becomes_a_table(attributes: u64) -> Vec<(Kind, Severity)> {
    let mut m = kernel(attributes);
    m.store(0, TABLES[2], 0);
    m.store(0, TABLES[1] + 8, FRAME | TABLE);
    m.take_violations().into_iter().map(|v| (v.kind, v.severity)).collect()
}

#[test]
fn a_frame_of_the_kernels_own_may_wait_for_a_lazy_flush() {
    assert_eq!(becomes_a_table(KERNEL), [(Kind::Reused, Severity::Advice)]);
    assert_eq!(becomes_a_table(KERNEL | NON_GLOBAL), [(Kind::Reused, Severity::Advice)]);
    assert_eq!(becomes_a_table(KERNEL | NON_GLOBAL | USER), [(Kind::Reused, Severity::Error)]);
}

#[test]
fn a_global_page_may_become_non_global_and_not_the_other_way_round() {
    for (before, after, broken) in [(KERNEL, KERNEL | NON_GLOBAL, 0), (KERNEL | NON_GLOBAL, KERNEL, 1)] {
        let mut m = kernel(before);
        m.store(0, TABLES[2], FRAME | after);
        assert_eq!(m.take_violations().len(), broken, "{before:#x} to {after:#x}");
    }
}
