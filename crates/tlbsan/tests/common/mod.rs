//! Tables of four levels for one page, written by hand: where tests that go step by step begin.
#![allow(dead_code, reason = "each test takes its part")]

use tlbi::{Asid, Dsb, Op, Target, VirtAddr};
use tlbsan::Config;
use tlbsan::sim::Machine;

pub(crate) const ROOT: u64 = 0x1000;
pub(crate) const L1: u64 = 0x2000;
pub(crate) const L2: u64 = 0x3000;
/// The level-3 table, whose first entry is that of `VA`.
pub(crate) const T: u64 = 0x4000;
/// A page that may become another one.
pub(crate) const T2: u64 = 0x5000;
pub(crate) const VA: u64 = 0x4000_0000;
pub(crate) const ASID: u16 = 7;
/// Page descriptor attributes: valid page, AF, nG, inner shareable, EL0, rw.
pub(crate) const PAGE: u64 = 0xf43;
pub(crate) const TABLE: u64 = 3;

/// The tables down to `T`, which is empty. No PE runs in them yet.
pub(crate) fn machine(config: Config) -> Machine {
    let mut m = Machine::new(config);
    for (slot, entry) in [(ROOT, L1 | TABLE), (L1 + 8, L2 | TABLE), (L2, T | TABLE)] {
        m.store(0, slot, entry);
    }
    m
}

/// What an operation by VA names.
pub(crate) fn by_va(va: u64, asid: u16, leaf_only: bool) -> Target {
    Target::Va { va: VirtAddr::new(va), asid: Some(Asid::new(asid)), leaf_only, ttl: 0 }
}

/// Invalidates in order.
pub(crate) fn flush(m: &mut Machine, pe: usize, op: Op) {
    m.dsb(pe, Dsb::Ishst);
    m.tlbi(pe, op);
    m.dsb(pe, Dsb::Ish);
}
