//! The architecture's formats: random descriptors and registers, read by the model and by a second reading of its own.
//!
//! `TLBSAN_CASES` sets the number of cases, `TLBSAN_SEED` where the numbers begin; the same numbers give the same.

#[path = "formats/naive.rs"]
mod naive;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::fmt::Debug;
use tlbsan::Sysreg;
use tlbsan::descriptor::{Descriptor, Leaf};
use tlbsan::geometry::{Geometry, Space};
use tlbsan::machine::{Loaded, PLACES, Registers, Unmodelled};

const PAGES: [u8; 3] = [12, 14, 16];

/// A kind of case that must come up, by its question and answer.
type Class<Q, A> = (&'static str, fn(&Q, &A) -> bool);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Draws cases and has each one judged, which gives questions and the answers that both agree on. Each class must come
/// up once in a thousand cases.
fn search<S: Strategy, Q, A>(
    cases: u64,
    strategy: S,
    classes: &[Class<Q, A>],
    judge: impl Fn(S::Value) -> Result<Vec<(Q, A)>, TestCaseError>,
) {
    let cases = number("TLBSAN_CASES", cases);
    let seed = number("TLBSAN_SEED", 1).to_le_bytes().repeat(4);
    let config = Runs { cases: cases as u32, failure_persistence: None, ..Runs::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let tally = RefCell::new(vec![0; classes.len()]);
    let outcome = runner.run(&strategy, |case| {
        for (question, answer) in judge(case)? {
            for (count, (_, class)) in tally.borrow_mut().iter_mut().zip(classes) {
                *count += u64::from(class(&question, &answer));
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for (count, (name, _)) in tally.into_inner().into_iter().zip(classes) {
        assert!(count * 1000 >= cases, "{name}: {count} of {cases}");
    }
}

fn agree<A: Debug + PartialEq>(model: A, naive: A) -> Result<A, TestCaseError> {
    if model == naive {
        return Ok(model);
    }
    Err(TestCaseError::fail(format!("\nthe model: {model:x?}\nthe other: {naive:x?}")))
}

/// A descriptor, its level, and what its table is.
type Entry = (u64, i8, Geometry);

fn entries() -> impl Strategy<Value = Entry> {
    // Mostly valid, mostly with the access flag.
    let bits = (any::<u64>(), any::<u64>(), 0..8_usize)
        .prop_map(|(bits, more, low)| bits & !3 | [3, 3, 3, 3, 1, 1, 1, more & 3][low] | more & 1 << 10);
    // Stage 1 with ASIDs and without, stage 2.
    let geometry = (0..3_usize, 0..3, any::<[bool; 4]>()).prop_map(|(page, regime, [ds, ha, hd, hpd])| Geometry {
        stage2: regime == 2,
        tagged: regime == 0,
        wide: ds && PAGES[page] != 16,
        hw_access_flag: ha,
        hw_dirty: ha && hd,
        flat_attributes: hpd && regime != 2,
        ..Geometry::stage1(PAGES[page], 48).expect("a geometry")
    });
    (bits, -1..=3_i8, geometry)
}

fn leaf(answer: &Descriptor, is: impl Fn(&Leaf) -> bool) -> bool {
    matches!(answer, Descriptor::Leaf(leaf) if is(leaf))
}

#[test]
fn descriptors_are_read_alike() {
    let classes: [Class<Entry, Descriptor>; 16] = [
        ("nothing", |_, a| *a == Descriptor::Nothing),
        ("a reserved block", |q, a| q.0 & 3 == 1 && q.0 >> 10 & 1 == 1 && *a == Descriptor::Nothing),
        ("no access flag", |q, a| q.0 & 3 == 3 && q.1 == 3 && *a == Descriptor::Nothing),
        ("hardware's access flag", |q, a| leaf(a, |_| q.0 >> 10 & 1 == 0)),
        ("tables at level -1", |q, a| q.1 == -1 && matches!(a, Descriptor::Table(_))),
        ("tables beyond 48 bits", |_, a| matches!(a, Descriptor::Table(table) if table.next >> 48 != 0)),
        ("hierarchical attributes", |_, a| matches!(a, Descriptor::Table(table) if table.hierarchical & 15 != 0)),
        ("NSTable with HPD", |q, a| {
            q.2.flat_attributes && matches!(a, Descriptor::Table(table) if table.hierarchical == 16)
        }),
        ("4 KiB blocks of level 0", |q, a| q.2.page_shift == 12 && leaf(a, |l| q.1 == 0 && l.output >> 50 != 0)),
        ("16 KiB blocks of level 1", |q, a| q.2.page_shift == 14 && leaf(a, |l| q.1 == 1 && !l.contiguous)),
        ("64 KiB, 52 bits", |q, a| q.2.page_shift == 16 && leaf(a, |l| l.output >> 48 != 0)),
        ("hardware's dirty state", |q, a| q.2.hw_dirty && leaf(a, |l| l.writable && (q.0 >> 7 & 1 == 1) != q.2.stage2)),
        ("guarded, 52 bits", |q, a| q.2.wide && leaf(a, |l| l.gp)),
        ("global by bit 11 alone", |q, a| leaf(a, |l| q.2.tagged && !l.non_global)),
        ("stage 2, EL0 alone may execute", |q, a| q.2.stage2 && leaf(a, |l| l.pxn && !l.uxn)),
        ("nT", |_, a| leaf(a, |l| l.nt)),
    ];
    search(150_000, entries(), &classes, |(bits, level, geometry)| {
        let both = (Descriptor::decode(bits, level, &geometry), naive::descriptor(bits, level, &geometry));
        Ok(vec![((bits, level, geometry), agree(both.0, both.1)?)])
    });
}

#[test]
fn every_size_has_its_levels() {
    for (page, bits) in PAGES.into_iter().flat_map(|page| (page + 1..=52).map(move |bits| (page, bits))) {
        let geometry = Geometry::stage1(page, bits).expect("a geometry");
        let (root, levels) = (naive::root_level(page, bits), naive::levels(page));
        assert_eq!(geometry.start_level, root, "{page} {bits}");
        for level in root..=3 {
            let (shift, run) = levels[(3 - level) as usize];
            // A table has as many entries as make one of the level above, the root what is left.
            let above = if level == root { bits } else { levels[(4 - level) as usize].0 };
            let both = (geometry.size(level), geometry.run(level), geometry.entries(level));
            assert_eq!(both, (1 << shift, run, 1 << (above - shift)), "{page} {bits} {level}");
        }
    }
}

/// Registers of chance. Some bits are set less often than not, and some sizes lie where they are just allowed.
fn registers() -> impl Strategy<Value = Registers> {
    (proptest::array::uniform13(any::<u64>()), any::<[u64; 2]>()).prop_map(|(words, [rare, size])| {
        let mut registers = Registers::default();
        for (register, word) in Sysreg::ALL.iter().zip(words) {
            let unlikely = match register {
                Sysreg::HcrEl2 => 1 << 27 | 1 << 12,                 // TGE, DC
                Sysreg::TcrEl1 | Sysreg::TcrEl2 => 1 << 23 | 1 << 7, // EPD1, EPD0
                _ => 0,
            };
            let at_edge =
                |at: u32| if size >> at & 8 != 0 { (0x3f << at, (12 + (size >> at & 7)) << at) } else { (0, 0) };
            let (sizes, edges) = match register {
                Sysreg::TcrEl1 | Sysreg::TcrEl2 => (at_edge(0).0 | at_edge(16).0, at_edge(0).1 | at_edge(16).1),
                Sysreg::VtcrEl2 => at_edge(0),
                _ => (0, 0),
            };
            registers.write(*register, word & (rare | !unlikely) & !sizes | edges);
        }
        registers
    })
}

/// Registers and the place asked for.
type Place = (Registers, usize);
type Answer = Result<Option<Loaded>, Unmodelled>;

fn root(answer: &Answer, is: impl Fn(&Loaded) -> bool) -> bool {
    matches!(answer, Ok(Some(loaded)) if is(loaded))
}

#[test]
fn registers_are_read_alike() {
    fn bit(q: &Place, register: Sysreg, n: u32) -> bool {
        q.0.get(register) >> n & 1 == 1
    }
    let classes: [Class<Place, Answer>; 28] = [
        ("a reserved granule", |_, a| *a == Err(Unmodelled::Granule)),
        ("a reserved size", |q, a| q.1 < 4 && *a == Err(Unmodelled::Size)),
        ("a level that does not go with the size", |q, a| q.1 == 4 && *a == Err(Unmodelled::Size)),
        ("EL1&0, lower half", |q, a| q.1 == 0 && root(a, |_| true)),
        ("EL1&0, upper half", |q, a| q.1 == 1 && root(a, |_| true)),
        ("EL1&0, off by TGE", |q, a| q.1 == 0 && *a == Ok(None) && bit(q, Sysreg::HcrEl2, 27)),
        ("stage 2 by DC", |q, a| root(a, |l| l.root.geometry.stage2 && !bit(q, Sysreg::HcrEl2, 0))),
        ("a host without stage 2", |q, a| q.1 == 4 && *a == Ok(None) && bit(q, Sysreg::HcrEl2, 0)),
        ("EPD1", |q, a| q.1 == 1 && *a == Ok(None) && bit(q, Sysreg::TcrEl1, 23)),
        ("EL2", |_, a| root(a, |l| l.root.space == Space::El2)),
        ("EL2&0, upper half", |q, a| q.1 == 3 && root(a, |l| l.root.space == Space::El20)),
        ("the other TTBR's ASID", |q, a| q.1 == 0 && root(a, |_| bit(q, Sysreg::TcrEl1, 22))),
        ("ASIDs of 16 bits", |_, a| root(a, |l| l.asid >> 8 != 0)),
        ("ASIDs of 8 bits", |q, a| q.1 == 1 && root(a, |_| !bit(q, Sysreg::TcrEl1, 36))),
        ("VMIDs of 16 bits", |_, a| root(a, |l| matches!(l.root.space, Space::Stage2(256..)))),
        ("CnP", |_, a| root(a, |l| l.shared)),
        ("64 KiB, 52 bits of output", |_, a| root(a, |l| !l.root.geometry.wide && l.root.table >> 48 != 0)),
        ("DS, 52 bits of output", |_, a| root(a, |l| l.root.geometry.wide && l.root.table >> 48 != 0)),
        ("a root at level -1, stage 1", |q, a| q.1 < 4 && root(a, |l| l.root.geometry.start_level == -1)),
        ("a root at level -1, stage 2", |q, a| q.1 == 4 && root(a, |l| l.root.geometry.start_level == -1)),
        ("HPD", |_, a| root(a, |l| l.root.geometry.flat_attributes)),
        ("HD", |_, a| root(a, |l| l.root.geometry.hw_dirty)),
        ("shareability by the register", |_, a| root(a, |l| l.root.geometry.controls.shareability != 0)),
        ("WXN", |_, a| root(a, |l| l.root.geometry.controls.wxn)),
        ("EPAN of EL2&0", |_, a| root(a, |l| l.root.space == Space::El20 && l.root.geometry.controls.epan)),
        ("no EPAN at EL2", |q, a| root(a, |l| l.root.space == Space::El2 && bit(q, Sysreg::SctlrEl2, 57))),
        ("several tables for a root", |_, a| {
            let g = |l: &Loaded| l.root.geometry;
            root(a, |l| g(l).entries(g(l).start_level) as u64 * 8 > g(l).page())
        }),
        ("a root smaller than 64 bytes", |_, a| root(a, |l| l.root.geometry.entries(l.root.geometry.start_level) < 8)),
    ];
    search(60_000, registers(), &classes, |registers| {
        let answer =
            |place| Ok(((registers, place), agree(registers.loaded(place), naive::loaded(&registers, place))?));
        (0..PLACES).map(answer).collect()
    });
}

fn decode(bits: u64, geometry: Geometry) -> Descriptor {
    Descriptor::decode(bits, 2, &geometry)
}

#[test]
fn blocks_are_guarded_with_lpa2_too() {
    let lpa2 = Geometry { wide: true, ..Geometry::stage1(12, 48).expect("a geometry") };
    assert!(leaf(&decode(1 << 50 | 0x401, lpa2), |l| l.gp));
}

#[test]
fn hpd_leaves_nstable() {
    let hpd = Geometry { flat_attributes: true, ..Geometry::stage1(12, 48).expect("a geometry") };
    assert!(matches!(decode(u64::MAX, hpd), Descriptor::Table(table) if table.hierarchical == 1 << 4));
}

#[test]
fn stage_2_may_forbid_execution_to_either_el() {
    let stage2 = Geometry { stage2: true, tagged: false, ..Geometry::stage1(12, 48).expect("a geometry") };
    let forbidden = [(0b00, (false, false)), (0b01, (true, false)), (0b10, (true, true)), (0b11, (false, true))];
    assert!(forbidden.iter().all(|(xn, both)| leaf(&decode(xn << 53 | 0x401, stage2), |l| (l.pxn, l.uxn) == *both)));
}

/// What a place is translated through, by HCR_EL2 and the register that controls the place. All MMUs are on.
fn loaded(hcr: u64, place: usize, control: u64) -> Answer {
    let mut registers = Registers::default();
    let controls = [Sysreg::TcrEl1, Sysreg::TcrEl1, Sysreg::TcrEl2, Sysreg::TcrEl2, Sysreg::VtcrEl2];
    for (register, value) in
        [(Sysreg::SctlrEl1, 1), (Sysreg::SctlrEl2, 1), (Sysreg::HcrEl2, hcr), (controls[place], control)]
    {
        registers.write(register, value);
    }
    registers.loaded(place)
}

#[test]
fn more_than_48_bits_need_ds_or_64_kib() {
    let t0sz = |tcr: u64| root(&loaded(0, 0, tcr), |_| true);
    assert_eq!([15, 15 | 2 << 14, 15 | 1 << 59, 15 | 1 << 14].map(t0sz), [false, false, true, true]);
}

#[test]
fn sl2_counts_with_ds_alone() {
    // 30 bits from level 2; 52 bits from level -1, with DS; SL2 beside another SL0 is reserved.
    let level = |vtcr: u64| loaded(1, 4, vtcr).ok().flatten().map(|loaded| loaded.root.geometry.start_level);
    assert_eq!([34 | 1 << 33, 12 | 3 << 32, 25 | 1 << 6 | 3 << 32].map(level), [Some(2), Some(-1), None]);
}

#[test]
fn stage_2_of_16_kib_begins_at_level_0_with_ds_alone() {
    let vtcr = |ds: u64| root(&loaded(1, 4, 16 | 3 << 6 | 2 << 14 | ds), |_| true);
    assert_eq!([0, 1 << 32].map(vtcr), [false, true]);
}

#[test]
fn dc_is_stage_2_without_stage_1() {
    assert_eq!([0, 4].map(|place| root(&loaded(1 << 12, place, 25 | 1 << 6), |_| true)), [false, true]);
}

#[test]
fn a_host_has_no_stage_2() {
    let (vm, host) = (1, 1 << 34 | 1 << 27);
    assert_eq!([vm, vm | host].map(|hcr| root(&loaded(hcr, 4, 25 | 1 << 6), |_| true)), [true, false]);
}
