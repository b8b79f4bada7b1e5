//! What registers say beside where walks begin: MAIR of what an entry is, TCR of what may be held, HCR_EL2 of what EL1 executes.

use tlbi::{Asid, Dsb, Ipa, Op, Scope, Target, VirtAddr};
use tlbsan::sim::{Machine, TCR};
use tlbsan::{Cause, Config, Kind, Record, Sysreg};

const ROOT: u64 = 0x10_0000;
const L1: u64 = 0x20_0000;
const L2: u64 = 0x30_0000;
const T: u64 = 0x40_0000;
const OTHER_ROOT: u64 = 0x50_0000;
const EMPTY: u64 = 0x60_0000;
const ASID: u16 = 7;
/// A valid page: AF, nG, inner shareable, EL0, writable, attribute 0.
const PAGE: u64 = 0xf43;
const FRAME: u64 = 0x1000_0000;
const OTHER: u64 = 0x2000_0000;

/// Two PEs in one address space whose page 0 is `leaf`, with a register set to one value each.
fn machine(leaf: u64, register: Sysreg, values: [u64; 2]) -> Machine {
    let mut m = Machine::new(Config::default());
    for (slot, entry) in [(ROOT, L1 | 3), (L1, L2 | 3), (L2, T | 3), (T, leaf)] {
        m.store(0, slot, entry);
    }
    for (pe, value) in values.into_iter().enumerate() {
        m.write(pe, register, value);
        m.run_in(pe, ROOT, ASID);
    }
    m
}

fn told(m: &mut Machine) -> Vec<(Kind, Cause)> {
    m.take_violations().iter().map(|v| (v.kind, v.cause)).collect()
}

const LIVE: (Kind, Cause) = (Kind::LiveChange, Cause::NotBrokenFirst);

#[test]
fn memory_types_are_what_mair_says() {
    let changed = |mairs: [u64; 2], old: u64, new: u64| {
        let mut m = machine(FRAME | old, Sysreg::MairEl1, mairs);
        m.store(0, T, FRAME | new);
        told(&mut m)
    };
    let (second, third) = (PAGE | 1 << 2, PAGE | 2 << 2);
    assert_eq!(changed([0x44_ffff; 2], PAGE, second), [], "two indices of one attribute");
    assert_eq!(changed([0x44_ffff; 2], PAGE, third), [LIVE]);
    assert_eq!(changed([0x44_ffff, 0x44_ff44], PAGE, second), [LIVE], "not on every PE");
    assert_eq!(changed([0, 0], PAGE, second), [LIVE], "MAIR not known");
    assert_eq!(changed([0x44_ffff, 0], PAGE, second), [LIVE], "not known of one PE");
    assert_eq!(changed([0xf0ff; 2], PAGE, second), [], "tagged memory");
    // Shareability: nobody heeds it but for Normal cacheable memory.
    let outer = |page: u64| page & !0x300 | 0x200;
    assert_eq!(changed([0x44_00ff; 2], PAGE, outer(PAGE)), [LIVE]);
    assert_eq!(changed([0x44_00ff; 2], second, outer(second)), [], "Device");
    assert_eq!(changed([0x44_00ff; 2], third, outer(third)), [], "Normal non-cacheable");
}

#[test]
fn a_change_of_controls_is_judged_at_the_next_event_that_synchronises_and_names_them() {
    const WXN_EPAN: u64 = 1 | 1 << 19 | 1 << 57;
    for between in [Machine::isb, Machine::exception, Machine::eret] {
        let mut m = machine(FRAME | PAGE, Sysreg::SctlrEl1, [1; 2]);
        m.write(0, Sysreg::SctlrEl1, WXN_EPAN);
        m.isb(0);
        assert_eq!(told(&mut m), []);
        between(&mut m, 0);
        let found = m.take_violations();
        let [verdict] = &found[..] else { panic!("{found:?}") };
        assert_eq!((verdict.kind, verdict.cause, &verdict.pes[..]), (Kind::Asid, Cause::NoInvalidation, &[0][..]));
        assert_eq!(verdict.new.text, format!("{} (under another WXN, EPAN)", verdict.old.text));
        // Told once.
        m.isb(0);
        assert_eq!(told(&mut m), []);
    }
}

#[test]
fn hardware_may_be_given_access_flag_and_dirty_state_while_tables_are_in_use() {
    let (no_flag, read_only_dbm) = (PAGE & !(1 << 10), PAGE | 1 << 7 | 1 << 51);
    for (bits, page) in [(1 << 39, no_flag), (3 << 39, read_only_dbm)] {
        for (tcr, expected) in [(TCR, vec![]), (TCR | bits, vec![LIVE])] {
            let mut m = machine(FRAME | page, Sysreg::MairEl1, [0xff; 2]);
            // Both frames hold nothing: read-only, they could be exchanged.
            m.write(0, Sysreg::TcrEl1, tcr);
            m.isb(0);
            m.store(0, T, OTHER | page);
            assert_eq!(told(&mut m), expected, "{tcr:#x} {page:#x}");
        }
    }
}

/// What is told when PE 1 loads tables with CnP, after PE 0 has been through `first`: registers, and the exception level from then on.
fn loaded_beside(first: &[(Sysreg, u64, u8)], second: &[(Sysreg, u64, u8)]) -> Vec<Kind> {
    let mut m = Machine::new(Config::default());
    for (slot, entry) in [(ROOT, L1 | 3), (L1, L2 | 3), (L2, T | 3), (T, FRAME | PAGE), (OTHER_ROOT, L2 | 3)] {
        m.store(0, slot, entry);
    }
    for (pe, steps) in [first, second].into_iter().enumerate() {
        m.go_to(pe, 2);
        for &(register, value, el) in steps {
            m.write(pe, register, value);
            m.go_to(pe, el);
        }
    }
    m.take_violations().iter().map(|v| v.kind).collect()
}

#[test]
fn pes_share_by_regime_half_and_asid() {
    use Sysreg as S;
    const CNP: u64 = 1;
    let asid = |asid: u64| asid << 48;
    let el1 = |ttbr0: u64, ttbr1: u64| {
        let tcr = TCR & !(1 << 23) | 2 << 30;
        [(S::TcrEl1, tcr, 2), (S::Ttbr0El1, ttbr0, 2), (S::Ttbr1El1, ttbr1, 2), (S::SctlrEl1, 1, 1)]
    };
    let other = el1(OTHER_ROOT | asid(7) | CNP, EMPTY);
    assert_eq!(loaded_beside(&el1(ROOT | asid(7) | CNP, EMPTY), &other), [Kind::Asid]);
    assert_eq!(loaded_beside(&el1(ROOT | asid(7), EMPTY | CNP), &other), [], "the other half");
    let mut another_asid = el1(ROOT | asid(7), EMPTY).to_vec();
    another_asid.push((S::Ttbr0El1, ROOT | asid(8) | CNP, 1));
    assert_eq!(loaded_beside(&another_asid, &other), [], "another ASID");

    let el2 = |ttbr0: u64, vttbr: u64| {
        let stage2 = [(S::VtcrEl2, 24 | 1 << 6, 2), (S::VttbrEl2, vttbr, 2), (S::HcrEl2, 1, 1)];
        [(S::TcrEl2, 16, 2), (S::Ttbr0El2, ttbr0, 2), (S::SctlrEl2, 1, 2)].into_iter().chain(stage2).collect::<Vec<_>>()
    };
    let other = [(S::TcrEl2, 16, 2), (S::Ttbr0El2, OTHER_ROOT | CNP, 2), (S::SctlrEl2, 1, 2)];
    assert_eq!(loaded_beside(&el2(ROOT | CNP, EMPTY), &other), [Kind::Asid]);
    assert_eq!(loaded_beside(&el2(ROOT, EMPTY | CNP), &other), [], "stage 2");
}

#[test]
fn what_is_stale_in_one_half_says_nothing_of_a_new_root_for_the_other() {
    for (stale, expected) in [(Sysreg::Ttbr1El1, vec![]), (Sysreg::Ttbr0El1, vec![Kind::Asid])] {
        let mut m = Machine::new(Config::default());
        for (slot, entry) in [(ROOT, L1 | 3), (L1, L2 | 3), (L2, T | 3), (T, FRAME | PAGE), (OTHER_ROOT, L2 | 3)] {
            m.store(0, slot, entry);
        }
        let asid = u64::from(ASID) << 48;
        m.write(0, Sysreg::TcrEl1, TCR & !(1 << 23) | 2 << 30);
        m.write(0, Sysreg::Ttbr0El1, EMPTY | asid);
        m.write(0, Sysreg::Ttbr1El1, EMPTY);
        m.write(0, stale, ROOT | asid);
        m.write(0, Sysreg::SctlrEl1, 1);
        m.isb(0);
        for slot in [T, L2, L1, ROOT] {
            m.store(0, slot, 0);
        }
        m.write(0, Sysreg::Ttbr0El1, OTHER_ROOT | asid);
        m.isb(0);
        assert_eq!(m.take_violations().iter().map(|v| v.kind).collect::<Vec<_>>(), expected, "{stale:?}");
    }
}

/// A page goes and comes with a local TLBI and a non-shareable DSB after it, at EL1 under `hcr`.
fn flushed_locally(hcr: u64, before: Dsb, after: Dsb) -> Vec<(Kind, Cause)> {
    let mut m = machine(FRAME | PAGE, Sysreg::HcrEl2, [hcr; 2]);
    let va = Target::Va { va: VirtAddr::new(0), asid: Some(Asid::new(ASID)), leaf_only: true, ttl: 0 };
    m.store(0, T, 0);
    m.dsb(0, before);
    m.tlbi(0, Op { scope: Scope::Local, ..Op::inner(va) });
    m.dsb(0, after);
    m.store(0, T, OTHER | PAGE);
    told(&mut m)
}

#[test]
fn a_hypervisor_may_let_el1_broadcast() {
    let (fb, bsu_inner) = (1 << 9, 1 << 10);
    let remade = |cause| [(Kind::Remade, cause)];
    assert_eq!(flushed_locally(0, Dsb::Ishst, Dsb::Ish), remade(Cause::LocalOnly));
    assert_eq!(flushed_locally(fb, Dsb::Ishst, Dsb::Ish), []);
    assert_eq!(flushed_locally(fb, Dsb::Ishst, Dsb::Nsh), remade(Cause::NotCompleted));
    assert_eq!(flushed_locally(fb | bsu_inner, Dsb::Nshst, Dsb::Nsh), []);
    assert_eq!(flushed_locally(bsu_inner, Dsb::Nshst, Dsb::Nsh), remade(Cause::LocalOnly));
}

#[test]
fn a_root_that_leads_to_itself_uses_what_its_leaves_use() {
    let mapped = |slot: u64, mair: u64| {
        let mut m = machine(FRAME | PAGE, Sysreg::MairEl1, [0xff; 2]);
        m.store(0, ROOT + 8 * slot, ROOT | 3);
        m.write(0, Sysreg::MairEl1, mair);
        m.isb(0);
        told(&mut m)
    };
    assert_eq!(mapped(511, 0x44_0000_00ff), [], "attribute 4 is nobody's");
    assert_eq!(mapped(511, 0x44), [LIVE]);
}

const E2H: u64 = 1 << 34;
const TGE: u64 = 1 << 27;
/// A root that only EL1 uses.
const BOOT: u64 = 0x50_0000;

/// A PE in EL1&0 goes on at EL2, where it is a host with the same tables. EL1's MMU stays on or goes off.
fn move_to_el2(m: &mut Machine, pe: usize, sctlr_el1: u64) {
    m.go_to(pe, 2);
    m.write(pe, Sysreg::HcrEl2, E2H | TGE);
    m.isb(pe);
    m.tlbi(pe, Op::local(Target::All));
    m.dsb(pe, Dsb::Nsh);
    for (register, value) in
        [(Sysreg::TcrEl2, TCR), (Sysreg::Ttbr0El2, ROOT | u64::from(ASID) << 48), (Sysreg::SctlrEl2, 1)]
    {
        m.write(pe, register, value);
    }
    m.write(pe, Sysreg::SctlrEl1, sctlr_el1);
    m.eret(pe);
}

/// The page goes and comes elsewhere, with the form of EL1 between: of a host it acts on EL2&0.
fn remap(m: &mut Machine) {
    m.store(0, T, 0);
    m.dsb(0, Dsb::Ishst);
    m.tlbi(0, Op::inner(Target::Va { va: VirtAddr::new(0), asid: Some(Asid::new(ASID)), leaf_only: true, ttl: 0 }));
    m.dsb(0, Dsb::Ish);
    m.store(0, T, OTHER | PAGE);
}

/// Two PEs that have been in two address spaces of EL1&0, before either becomes a host.
fn booted() -> Machine {
    let mut m = machine(FRAME | PAGE, Sysreg::MairEl1, [0xff; 2]);
    m.store(0, BOOT, L1 | 3);
    for pe in [0, 1] {
        m.run_in(pe, BOOT, 0);
        m.run_in(pe, ROOT, ASID);
    }
    m
}

#[test]
fn a_kernel_that_moves_to_el2_needs_nothing_of_el1_any_more() {
    let mut m = booted();
    (0..2).for_each(|pe| move_to_el2(&mut m, pe, 0));
    remap(&mut m);
    // The root that it started with is a page like any other.
    for word in 0..512 {
        m.store(0, BOOT + 8 * word, 0x0123_4567_89ab_cde1 + word);
    }
    // Nor is it followed: there would be notices.
    let records = m.take_records();
    assert!(matches!(records[..], [Record::Start { .. }]), "{records:?}");
    // What it has of EL2&0 counts.
    m.store(0, T, 0);
    m.store(0, T, FRAME | PAGE);
    assert_eq!(told(&mut m), [(Kind::Remade, Cause::NoInvalidation)]);
}

#[test]
fn who_stays_at_el1_keeps_what_it_has() {
    let mut m = booted();
    move_to_el2(&mut m, 0, 0);
    remap(&mut m);
    let found: Vec<_> = m.take_violations().into_iter().map(|v| (v.kind, v.cause, v.pes)).collect();
    assert_eq!(found, [(Kind::Remade, Cause::NoInvalidation, vec![1])]);
}

#[test]
fn who_comes_back_to_el1_finds_anything() {
    let come_back = |tlbi: Option<u64>| {
        let mut m = booted();
        (0..2).for_each(|pe| move_to_el2(&mut m, pe, 0));
        if let Some(hcr) = tlbi {
            m.write(0, Sysreg::HcrEl2, hcr);
            m.isb(0);
            m.tlbi(0, Op::local(Target::All));
            m.dsb(0, Dsb::Nsh);
        }
        m.write(0, Sysreg::HcrEl2, E2H);
        m.write(0, Sysreg::MairEl1, 0x44);
        m.write(0, Sysreg::SctlrEl1, 1);
        m.go_to(0, 1);
        let found = m.take_violations();
        found.into_iter().map(|v| (v.kind, v.cause, v.pes, v.old.text)).collect::<Vec<_>>()
    };
    let unknown = "anything: UNKNOWN since EL1 was left for EL2&0".to_owned();
    let unknown = [(Kind::Asid, Cause::NoInvalidation, vec![0], unknown)];
    assert_eq!(come_back(None), unknown);
    assert_eq!(come_back(Some(E2H | TGE)), unknown, "that was EL2&0's");
    assert_eq!(come_back(Some(E2H)), []);
}

#[test]
fn who_invalidates_on_leaving_el1_finds_nothing() {
    let mut m = booted();
    m.go_to(0, 2);
    m.write(0, Sysreg::SctlrEl1, 0);
    m.isb(0);
    m.tlbi(0, Op::local(Target::All));
    m.dsb(0, Dsb::Nsh);
    move_to_el2(&mut m, 0, 0);
    m.write(0, Sysreg::HcrEl2, E2H);
    m.write(0, Sysreg::SctlrEl1, 1);
    m.go_to(0, 1);
    assert_eq!(told(&mut m), []);
}

#[test]
fn a_host_that_leaves_the_mmu_of_el1_on_comes_back_to_what_it_has_left() {
    let mut m = booted();
    let back_and_forth = |m: &mut Machine| {
        (0..2).for_each(|pe| move_to_el2(m, pe, 1));
        m.write(0, Sysreg::HcrEl2, E2H);
        m.go_to(0, 1);
    };
    back_and_forth(&mut m);
    assert_eq!(told(&mut m), []);
    back_and_forth(&mut m);
    remap(&mut m);
    assert_eq!(told(&mut m), [(Kind::Remade, Cause::NoInvalidation)], "of PE 1, and of EL2&0");
}

/// As KVM does: the host sets TGE, and clears it where its operations are to act on a guest.
#[test]
fn what_is_held_of_a_guest_survives_the_toggling_of_tge() {
    const STAGE2: u64 = 0x60_0000;
    const VMID: u64 = 3;
    let left = |hcr: Option<u64>| {
        let mut m = machine(FRAME | PAGE, Sysreg::MairEl1, [0xff; 2]);
        m.store(0, BOOT, L1 | 3);
        // The first GiB in its place.
        m.store(0, STAGE2, 0x7fd);
        for pe in [0, 1] {
            move_to_el2(&mut m, pe, 0);
            m.write(pe, Sysreg::VtcrEl2, 24 | 1 << 6);
            m.write(pe, Sysreg::VttbrEl2, STAGE2 | VMID << 48);
            m.write(pe, Sysreg::HcrEl2, E2H | 1);
            m.go_to(pe, 1);
            m.tlbi(pe, Op::local(Target::All));
            m.dsb(pe, Dsb::Nsh);
            m.run_in(pe, BOOT, ASID);
            m.go_to(pe, 2);
            m.write(pe, Sysreg::HcrEl2, E2H | TGE);
            m.write(pe, Sysreg::SctlrEl1, 0);
            m.isb(pe);
        }
        m.store(0, BOOT, 0);
        m.store(0, STAGE2, 0);
        m.dsb(0, Dsb::Ishst);
        if let Some(hcr) = hcr {
            m.write(0, Sysreg::HcrEl2, hcr);
            m.isb(0);
            m.tlbi(0, Op::inner(Target::Ipa { ipa: Ipa::new(0), non_secure: false, leaf_only: true, ttl: 0 }));
            m.dsb(0, Dsb::Ish);
            m.tlbi(0, Op::inner(Target::All));
            m.dsb(0, Dsb::Ish);
            m.write(0, Sysreg::HcrEl2, E2H | TGE);
            m.isb(0);
        }
        assert_eq!(told(&mut m), []);
        m.store(0, BOOT, L2 | 3);
        m.at(4, &[]);
        m.store(0, STAGE2, 1 << 30 | 0x7fd);
        told(&mut m)
    };
    let remade = [(Kind::Remade, Cause::NoInvalidation); 2];
    assert_eq!(left(None), remade);
    assert_eq!(left(Some(E2H | TGE)), remade, "VMALLE1 was EL2&0's, and combined entries remain");
    assert_eq!(left(Some(E2H)), []);
}
