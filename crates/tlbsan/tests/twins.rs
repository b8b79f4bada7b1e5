//! Every rule as sequences that break it, each beside its twin that is right, on the simulated machine. The sequences, and their
//! names, stand in tests/twins; tests/twins.rs runs the same on PEs of QEMU.

use std::collections::BTreeSet;
use tlbi::{Form, Granule, Mnemonic, Op, Pages, Regime, Target};
use tlbsan::report::{Record, Severity, Violation};
use tlbsan::sim::{Machine, TCR};
use tlbsan::{AccessKind, Cause, Config, Hint, IdRegister, Sysreg};
use twins::{
    ASID, AWAY, Access, Area, BASE_TABLES, GROUPS, Group, MAIR, Need, Register, Statement, Step, VMID, Value, World,
    Written, words,
};

/// PEs that walk the tables.
const PES: usize = 2;
/// TCR_EL2 of one half: 48 bits.
const TCR_EL2: u64 = 16;
/// VTCR_EL2: 40 bits, 4 KiB, from level 1.
const VTCR: u64 = 24 | 1 << 6;

fn place(value: Value) -> u64 {
    let base = match value.area {
        Area::Nowhere => 0,
        Area::Tables => 0x4001_0000,
        Area::Frames => 0x4010_0000,
        Area::Blocks => 0x8000_0000,
    };
    base + value.bits
}

fn table(name: &str) -> u64 {
    let (_, bits) = twins::TABLES.iter().find(|(known, _)| *known == name).expect("a table");
    place(Value { area: Area::Tables, bits: *bits })
}

fn sysreg(register: Register) -> Sysreg {
    match register {
        Register::Ttbr0El1 => Sysreg::Ttbr0El1,
        Register::Ttbr1El1 => Sysreg::Ttbr1El1,
        Register::TcrEl1 => Sysreg::TcrEl1,
        Register::SctlrEl1 => Sysreg::SctlrEl1,
        Register::MairEl1 => Sysreg::MairEl1,
        Register::Ttbr0El2 => Sysreg::Ttbr0El2,
        Register::TcrEl2 => Sysreg::TcrEl2,
        Register::SctlrEl2 => Sysreg::SctlrEl2,
        Register::HcrEl2 => Sysreg::HcrEl2,
        Register::VttbrEl2 => Sysreg::VttbrEl2,
        Register::VtcrEl2 => Sysreg::VtcrEl2,
    }
}

/// The machine's own value of a register.
fn own(register: Register) -> u64 {
    match register {
        Register::TcrEl1 => TCR,
        Register::TcrEl2 => TCR_EL2,
        Register::VtcrEl2 => VTCR,
        // The MMU is on.
        _ => 1,
    }
}

fn perform(m: &mut Machine, pe: usize, step: Step) {
    match step {
        Step::Store(at, value) => m.store(pe, place(at), place(value)),
        Step::Load(at) => _ = m.load(pe, place(at)),
        Step::Zero(page) => (0..512).for_each(|n| m.store(pe, place(page) + n * 8, 0)),
        Step::Dsb(dsb) => m.dsb(pe, dsb),
        Step::Isb => m.isb(pe),
        Step::Eret => m.eret(pe),
        Step::Exception => m.exception(pe),
        Step::El(el) => m.go_to(pe, el),
        Step::Reset(el) => {
            m.reset(pe);
            if el != 1 {
                m.go_to(pe, el);
            }
        }
        Step::Write(register, Written::Value(value)) => m.write(pe, sysreg(register), place(value)),
        Step::Write(register, Written::Bits { clear, set }) => {
            m.write(pe, sysreg(register), own(register) & !clear | set);
        }
        Step::Tlbi(mnemonic, xt) => m.tlbi(pe, mnemonic.decode(xt)),
        Step::Access(kind, va, gives) => {
            let kind = match kind {
                Access::Read => AccessKind::Load,
                Access::Write => AccessKind::Store,
                Access::Fetch => AccessKind::Fetch,
            };
            // One that faults is no access.
            gives.into_iter().for_each(|pa| m.access(pe, va, place(pa), kind));
        }
        Step::Claim(start, size) => m.hint(pe, Hint::FlushClaimed { start, size, asid: ASID }),
        Step::Free(page) => m.hint(pe, Hint::FrameFreed { pa: place(page), size: 0x1000 }),
        Step::Need(Need::Bbm(level)) => {
            (0..PES).for_each(|pe| m.identify(pe, IdRegister::Mmfr2, u64::from(level) << 52));
        }
        Step::Need(Need::Ets2(there)) => {
            (0..PES).for_each(|pe| m.identify(pe, IdRegister::Mmfr1, if there { 2 << 36 } else { 0 }));
        }
    }
}

fn run(m: &mut Machine, sequence: &str) {
    for statement in twins::statements(sequence) {
        perform(m, statement.pe, statement.step);
    }
}

/// A machine that has just got to where a group's sequences begin.
fn machine(world: World, setup: &str) -> Machine {
    let mut m = Machine::new(Config::default());
    run(&mut m, BASE_TABLES);
    run(&mut m, setup);
    if world.is_guest() {
        // The GiB of the tables, in its place: a guest's stage 1 is found there, and on a PE the code.
        for name in ["s2root", "s2other", "empty"] {
            m.store(0, table(name) + 8, 1 << 30 | 0x7fd);
        }
    }
    let tagged = |name, asid: u16| table(name) | u64::from(asid) << 48;
    for pe in 0..PES {
        m.write(pe, Sysreg::MairEl1, MAIR);
        match world {
            World::El1 | World::El1Flat => m.run_in(pe, table("root"), ASID),
            World::El1Away => m.run_in(pe, table("empty"), AWAY),
            World::Reset | World::ResetEl2 => {}
            World::El2 | World::El2Host => {
                m.go_to(pe, 2);
                let (hcr, tcr, ttbr) = match world {
                    World::El2 => (0, TCR_EL2, table("root")),
                    _ => (1 << 34 | 1 << 27, TCR, tagged("root", ASID)),
                };
                m.write(pe, Sysreg::HcrEl2, hcr);
                m.write(pe, Sysreg::TcrEl2, tcr);
                m.write(pe, Sysreg::Ttbr0El2, ttbr);
                m.write(pe, Sysreg::SctlrEl2, 1);
                m.isb(pe);
            }
            World::Guest | World::GuestMmuOn => {
                m.go_to(pe, 2);
                if world == World::GuestMmuOn {
                    m.write(pe, Sysreg::TcrEl1, TCR);
                    m.write(pe, Sysreg::Ttbr0El1, tagged("root", ASID));
                    m.write(pe, Sysreg::SctlrEl1, 1);
                }
                m.write(pe, Sysreg::VtcrEl2, VTCR);
                m.write(pe, Sysreg::VttbrEl2, tagged("s2root", VMID));
                m.write(pe, Sysreg::HcrEl2, 1);
                m.go_to(pe, 1);
                m.go_to(pe, 2);
            }
        }
    }
    m
}

/// The errors of a sequence, in the words of the list: those that a case of it has seen.
fn verdicts(m: &mut Machine, sequence: &str) -> BTreeSet<String> {
    m.hint(0, Hint::CaseBegin { id: 1 });
    run(m, sequence);
    m.hint(0, Hint::CaseEnd { id: 1 });
    let case = |record| if let Record::Case(case) = record { Some(case.seen) } else { None };
    let seen = m.take_records().into_iter().find_map(case).expect("the case has ended");
    seen.into_iter().map(|v| words(v.kind, v.cause, v.start, v.size, v.level)).collect()
}

/// A rule's twins: a broken form gets exactly its verdicts, a right one none.
fn twins_of(name: &str) {
    let group = GROUPS.iter().find(|group| group.name == name).expect("a group");
    let mut wrong = String::new();
    for twin in group.twins {
        let seen = verdicts(&mut machine(group.world, group.setup), twin.sequence);
        let expected: BTreeSet<String> = twin.expected.iter().map(|text| (*text).to_owned()).collect();
        if seen != expected {
            wrong += &format!("\n  {}\n    seen {seen:?}\n    expected {expected:?}", twin.sequence);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

macro_rules! groups {
    ($($test:ident = $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                twins_of($name);
            }
        )*

        #[test]
        fn no_group_is_forgotten() {
            let tested: BTreeSet<&str> = [$($name),*].into();
            assert_eq!(GROUPS.iter().map(|group| group.name).collect::<BTreeSet<_>>(), tested);
        }
    };
}

groups! {
    reset = "reset",
    reset_el2 = "reset-el2",
    remade = "remade",
    order_and_completion = "order-and-completion",
    scope_and_operand = "scope-and-operand",
    forms_by_address = "forms-by-address",
    forms_as_a_whole = "forms-as-a-whole",
    forms_of_both_stages = "forms-of-both-stages",
    el2_forms_by_address = "el2-forms-by-address",
    el2_forms_as_a_whole = "el2-forms-as-a-whole",
    stage_2_forms = "stage-2-forms",
    reused = "reused",
    live_change = "live-change",
    feat_bbm = "feat-bbm",
    contiguous = "contiguous",
    claimed = "claimed",
    asid = "asid",
    common_not_private = "common-not-private",
    translation_control = "translation-control",
    cached_controls = "cached-controls",
    granules = "granules",
    hardware_managed = "hardware-managed",
    memory_attributes = "memory-attributes",
    mmu_off = "mmu-off",
    stale_access = "stale-access",
    el2 = "el2",
    el2_another_root = "el2-another-root",
    el2_controls = "el2-controls",
    el2_host = "el2-host",
    stage_2 = "stage-2",
    vmid = "vmid",
    stage_1_under_stage_2 = "stage-1-under-stage-2",
    lpa2 = "lpa2",
    lpa2_stage_2 = "lpa2-stage-2",
    guest_access = "guest-access",
}

#[test]
fn every_rule_has_both_twins_and_every_name_is_one() {
    let mut names = BTreeSet::new();
    for group in GROUPS {
        // On PEs of QEMU as well.
        let mut run = group.twins.iter().filter(|twin| twin.only_simulated.is_none());
        assert!(run.clone().any(|twin| twin.expected.is_empty()), "{} has no right one", group.name);
        assert!(run.any(|twin| !twin.expected.is_empty()), "{} has no broken one", group.name);
        assert!(group.twins.iter().all(|twin| names.insert((group.name, twin.sequence))), "{}", group.name);
    }
    let told: BTreeSet<_> =
        GROUPS.iter().flat_map(|group| group.twins).flat_map(twins::Twin::verdicts).map(|v| v.kind).collect();
    assert_eq!(told, tlbsan::Kind::ALL.iter().copied().collect(), "a rule without a twin that breaks it");
    let told: BTreeSet<_> =
        GROUPS.iter().flat_map(|group| group.twins).flat_map(twins::Twin::verdicts).map(|v| v.cause).collect();
    assert_eq!(told, tlbsan::Cause::ALL.iter().copied().collect(), "a cause without a twin");
}

/// Each TLBI of EL1&0, EL2 and stage 2: without it a right twin would not be right, and with it another one is broken. Not those that
/// remove no translation (FEAT_TLBIW).
#[test]
fn every_tlbi_has_both_twins() {
    let is =
        |mnemonic: Mnemonic| move |statement: &Statement| matches!(statement.step, Step::Tlbi(it, _) if it == mnemonic);
    let twins = || GROUPS.iter().flat_map(|group| group.twins.iter().map(move |twin| (group, twin)));
    let parsed: Vec<_> = twins().map(|(group, twin)| (group, twin.expected.is_empty(), twin.statements())).collect();
    let depends = |group: &Group, statements: &[Statement], mnemonic| {
        let mut m = machine(group.world, group.setup);
        let without = statements.iter().filter(|statement| !is(mnemonic)(statement));
        without.for_each(|statement| perform(&mut m, statement.pe, statement.step));
        !m.take_violations().is_empty()
    };
    let removes = |mnemonic: &Mnemonic| mnemonic.form().regime() != Regime::El3 && mnemonic.form() != Form::Vmallws2e1;
    let missing = Mnemonic::all().filter(removes).filter(|mnemonic| {
        let mut of_it = parsed.iter().filter(|(.., statements)| statements.iter().any(is(*mnemonic)));
        let right = of_it.clone().any(|(group, right, statements)| *right && depends(group, statements, *mnemonic));
        !(right && of_it.any(|(_, right, _)| !right))
    });
    assert_eq!(missing.map(|mnemonic| mnemonic.to_string()).collect::<Vec<_>>(), [""; 0]);
}

/// The page that explains the rules, line by line.
fn page() -> Vec<&'static str> {
    include_str!("../../../docs/rules.md").lines().collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_page_names_every_group_and_tests_that_there_are() {
    let mut named = BTreeSet::new();
    for row in page().into_iter().filter(|line| line.starts_with('|') && line.split('|').count() == 6) {
        let twins = row.split('|').nth(3).expect("the third of four columns");
        for name in quoted(twins) {
            if let Some((file, test)) = name.split_once("::") {
                let at = |place: &str| format!("{}/{place}/{file}.rs", env!("CARGO_MANIFEST_DIR"));
                let source = ["tests", "src"].iter().find_map(|place| std::fs::read_to_string(at(place)).ok());
                let source = source.unwrap_or_else(|| panic!("no file for {name}"));
                assert!(source.contains(&format!("fn {test}()")), "no test {name}");
            } else {
                assert!(GROUPS.iter().any(|group| group.name == name), "no group {name}");
                named.insert(name);
            }
        }
    }
    assert_eq!(named, GROUPS.iter().map(|group| group.name).collect(), "the page forgets a group");
}

#[test]
fn the_pages_pairs_are_twins() {
    let is_twin = |sequence: &str, broken: bool| {
        let twins = GROUPS.iter().flat_map(|group| group.twins);
        twins.filter(|twin| twin.sequence == sequence).any(|twin| twin.expected.is_empty() != broken)
    };
    let mut rules = BTreeSet::new();
    for row in page().into_iter().filter(|line| line.starts_with('|') && line.split('|').count() == 5) {
        let [rule, broken, right] = [1, 2, 3].map(|n| row.split('|').nth(n).unwrap_or("").trim());
        if let ([broken], [right]) = (&quoted(broken)[..], &quoted(right)[..]) {
            assert!(is_twin(broken, true), "no twin that breaks a rule: {broken}");
            assert!(is_twin(right, false), "no twin that is right: {right}");
            assert!(rules.insert(rule), "two rows for {rule}");
        } else {
            assert!(quoted(broken).is_empty() && quoted(right).is_empty(), "no pair: {row}");
        }
    }
    let wanted = ["R1", "R2", "R3", "R4", "R5", "R6", "R7"].into_iter();
    for rule in wanted.chain(tlbsan::Kind::ALL.iter().map(|kind| kind.name())) {
        assert!(rules.contains(rule), "no pair for {rule}");
    }
}

fn el1() -> Machine {
    machine(World::El1, "")
}

#[test]
fn a_machine_after_reset_without_reset_holds_nothing() {
    let on = "msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb";
    assert_eq!(verdicts(&mut machine(World::Reset, ""), on), [].into());
}

#[test]
fn a_stale_kernel_page_that_becomes_a_table_is_advice() {
    let mut m = el1();
    run(&mut m, "str pte2 page:empty,gk; str pte2 0; str pmd1 table:empty");
    let found: Vec<_> = m.take_violations().into_iter().map(|v| (v.kind.name(), v.severity)).collect();
    assert_eq!(found, [("reused", Severity::Advice)]);
    let then = verdicts(&mut m, "str pte2 page:5");
    assert_eq!(then, ["remade no-invalidation va+2000 level 3".to_owned()].into());
}

#[test]
fn a_page_of_el0_that_is_used_before_the_isb_is_advice() {
    let mut m = machine(World::El1, "");
    run(&mut m, "str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; read va+10 frame:2+10");
    let found: Vec<_> = m.take_violations().into_iter().map(|v| (v.kind.name(), v.cause, v.severity)).collect();
    assert_eq!(found, [("stale-access", tlbsan::Cause::NotSynchronised, Severity::Advice)]);
}

#[test]
fn what_was_executed_before_a_reset_does_not_clean_the_tlb_after_it() {
    for (sequence, expected) in [
        ("reset; 1: tlbi vmalle1is; 1: dsb ish", None),
        ("1: tlbi vmalle1is; reset; 1: dsb ish", Some(Cause::NoInvalidation)),
        // What is in flight.
        ("reset; 1: tlbi vmalle1is", Some(Cause::NotCompleted)),
        ("1: tlbi vmalle1is; reset", Some(Cause::NoInvalidation)),
        ("reset; 1: tlbi vmalle1", Some(Cause::NoInvalidation)),
    ] {
        let mut m = el1();
        run(&mut m, &format!("{sequence}; msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb"));
        assert_eq!(m.take_violations().iter().map(|v| v.cause).next(), expected, "{sequence}");
    }
}

#[test]
fn what_a_root_was_told_to_clash_with_is_not_held_against_the_pe_again() {
    let mut m = el1();
    run(&mut m, "str root2.0 table:other; msr ttbr0_el1 a7.root2; isb");
    assert_eq!(m.take_violations().len(), 1);
    run(&mut m, "str pte page:2");
    assert_eq!(m.take_violations()[0].pes, [1]);
}

#[test]
fn a_context_that_all_have_left_ends_with_its_asid_but_for_globals() {
    for (setup, contexts) in [("", 1), ("str pte2 page:2,g", 2)] {
        let mut m = machine(World::El1, setup);
        run(&mut m, "msr ttbr0_el1 a9.empty; isb; 1: msr ttbr0_el1 a9.empty; 1: isb; tlbi aside1is; dsb ish");
        assert_eq!(m.model().shadow().contexts(), contexts, "{setup}");
    }
}

#[test]
fn memory_attributes_of_el2_are_those_of_mair_el2() {
    for (register, expected) in [(Sysreg::MairEl1, 0), (Sysreg::MairEl2, 1)] {
        let mut m = machine(World::El2, "");
        m.write(0, register, 0x44);
        m.isb(0);
        assert_eq!(m.take_violations().len(), expected, "{register:?}");
    }
}

#[test]
fn after_reset_memory_attributes_are_new() {
    let mut m = el1();
    m.reset(0);
    m.write(0, Sysreg::MairEl1, 0x44);
    run(&mut m, "msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb");
    let found: Vec<_> = m.take_violations().into_iter().map(|v| v.kind).collect();
    assert_eq!(found, [tlbsan::Kind::Asid], "and nothing of the change");
}

/// A PE is at EL1 then, until it says otherwise.
#[test]
fn after_reset_a_pe_is_at_el1() {
    let mut m = el1();
    m.go_to(0, 2);
    m.reset(0);
    run(&mut m, "msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb");
    assert_eq!(m.take_violations().len(), 1);
}

#[test]
fn after_reset_el2_holds_anything_whether_it_has_guests_or_not() {
    for (first, expected) in [("", 1), ("tlbi alle2; dsb nsh;", 0), ("tlbi alle1; dsb nsh;", 1)] {
        let mut m = machine(World::Reset, "");
        m.reset(0);
        m.go_to(0, 2);
        m.write(0, Sysreg::HcrEl2, 1);
        run(&mut m, &format!("{first} msr tcr_el2 t0sz=10; msr ttbr0_el2 a0.root; msr sctlr_el2 on; isb"));
        let found: Vec<_> = m.take_violations().into_iter().map(|v| v.kind).collect();
        assert_eq!(found, vec![tlbsan::Kind::Asid; expected], "{first}");
    }
}

/// HCR_EL2, VTCR_EL2, VTTBR_EL2 and the registers of EL1, for a guest whose tables stay in place.
fn prepare_guest(m: &mut Machine, hcr: u64, asid: u16) {
    m.store(0, table("s2root") + 8, 1 << 30 | 0x7fd);
    m.write(0, Sysreg::VtcrEl2, VTCR);
    m.write(0, Sysreg::VttbrEl2, table("s2root") | u64::from(VMID) << 48);
    m.write(0, Sysreg::HcrEl2, hcr);
    m.write(0, Sysreg::TcrEl1, TCR);
    m.write(0, Sysreg::Ttbr0El1, table("root") | u64::from(asid) << 48);
    m.write(0, Sysreg::SctlrEl1, 1);
}

#[test]
fn after_reset_what_stage_2_and_guests_hold_is_not_judged() {
    let mut m = machine(World::Reset, "");
    m.reset(0);
    m.go_to(0, 2);
    prepare_guest(&mut m, 1, ASID);
    m.go_to(0, 1);
    assert!(m.take_violations().is_empty());
    // It still holds anything, for who comes without stage 2.
    m.go_to(0, 2);
    prepare_guest(&mut m, 0, ASID + 1);
    m.go_to(0, 1);
    assert_eq!(m.take_violations().iter().map(|v| v.kind).collect::<Vec<_>>(), [tlbsan::Kind::Asid]);
}

/// Worlds, and a page that goes there and another that comes.
const GONE_AND_BACK: [(World, &str, &str, &str); 4] = [
    (World::El1, "str pte 0; dsb ishst", "dsb ish; str pte page:2", "va+0"),
    (World::El2, "str pte 0; dsb ishst", "dsb ish; str pte page:2", "va+0"),
    (World::El2Host, "str pte 0; dsb ishst", "dsb ish; str pte page:2", "va+0"),
    (World::Guest, "str s2t.0 0; dsb ishst", "dsb ish; str s2t.0 s2page:2", "0"),
];

#[test]
fn an_unknown_tlbi_removes_everything_and_is_told_once() {
    for (world, gone, back, _) in GONE_AND_BACK {
        let mut m = machine(world, "");
        run(&mut m, gone);
        // One instruction, with two registers for the operand.
        m.unknown_tlbi(0, 0xd50c_84c0);
        m.unknown_tlbi(0, 0xd50c_84c1);
        run(&mut m, back);
        let records = m.take_records();
        let told = |is: fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
        assert_eq!(told(|record| matches!(record, Record::Violation(_))), 0, "{world:?}");
        assert_eq!(told(|record| matches!(record, Record::Notice { .. })), 1, "{world:?}");
        // Another one is told of as well.
        m.unknown_tlbi(0, 0xd50e_84c0);
        assert_eq!(m.take_records().len(), 1, "{world:?}");
    }
}

#[test]
fn an_unknown_tlbi_needs_its_barriers() {
    for (first, last, cause) in [("", "dsb ish", "not-ordered"), ("dsb ishst", "", "not-completed")] {
        let mut m = el1();
        run(&mut m, &format!("str pte 0; {first}"));
        m.unknown_tlbi(0, 0xd50c_84c0);
        let seen = verdicts(&mut m, &format!("{last}; str pte page:2"));
        assert_eq!(seen, [format!("remade {cause} va+0 level 3")].into());
    }
}

#[test]
fn operations_of_el3_and_for_other_than_translations_remove_nothing_and_draw_no_verdict() {
    let ignored = |m: &Mnemonic| m.form().regime() == Regime::El3 || m.form() == Form::Vmallws2e1;
    for (world, gone, back, at) in GONE_AND_BACK {
        for mnemonic in Mnemonic::all().filter(ignored) {
            let op = mnemonic.decode(u64::from(ASID) << 48 | twins::VA >> 12);
            let mut m = machine(world, "");
            m.take_records();
            m.tlbi(0, op);
            run(&mut m, "dsb ish");
            assert!(m.take_records().is_empty(), "{mnemonic}");
            run(&mut m, gone);
            m.tlbi(0, op);
            let seen = verdicts(&mut m, back);
            assert_eq!(seen, [format!("remade no-invalidation {at} level 3")].into(), "{world:?} {mnemonic}");
        }
    }
}

#[test]
fn a_range_removes_combined_entries_of_its_first_2_mib() {
    for (slot, ipa, expected) in
        [("s2t.1ff", 0x1f_f000, None), ("s2t2.0", 0x20_0000, Some("remade no-invalidation 200000 level 3"))]
    {
        let mut m = machine(World::Guest, "str s2t.1ff s2page:3; str s2l2.1 table:s2t2; str s2t2.0 s2page:4");
        run(&mut m, &format!("str {slot} 0; dsb ishst; tlbi ipas2e1is ipa+{ipa:x}; dsb ish"));
        let pages = Pages::new(Granule::K4, false, 0, 1024).expect("4 MiB");
        m.tlbi(0, Op::inner(Target::VaRange { pages, asid: None, leaf_only: false }));
        let seen = verdicts(&mut m, &format!("dsb ish; str {slot} s2page:9"));
        assert_eq!(seen, expected.into_iter().map(str::to_owned).collect(), "{slot}");
    }
}

#[test]
fn the_least_level_of_feat_bbm_counts() {
    let mut m = machine(World::El1, "200{str t2.% part:%}; str pmd1 block:0");
    m.identify(0, IdRegister::Mmfr2, 2 << 52);
    m.identify(1, IdRegister::Mmfr2, 0);
    let seen = verdicts(&mut m, "str pmd1 table:t2");
    assert_eq!(seen, ["live-change not-broken-first va+200000 level 2".to_owned()].into());
}

#[test]
fn a_guest_whose_root_is_moved_draws_a_notice() {
    let mut m = machine(World::GuestMmuOn, "");
    let notices = |m: &mut Machine| {
        let records = m.take_records().into_iter();
        records.filter(|record| matches!(record, Record::Notice { .. })).count()
    };
    assert_eq!(notices(&mut m), 0);
    m.write(0, Sysreg::Ttbr0El1, 0x8000_0000 | u64::from(ASID) << 48);
    m.go_to(0, 1);
    assert_eq!(notices(&mut m), 1);
}

#[test]
fn a_stale_access_shows_both_addresses() {
    let mut m = el1();
    run(&mut m, "read va+10 frame:1+10");
    let accessed = m.take_violations()[0].accessed.expect("the access");
    let frames = place(Value { area: Area::Frames, bits: 0 });
    assert_eq!((accessed.va, accessed.used, accessed.tables), (twins::VA + 0x10, frames + 0x1010, Some(frames + 0x10)));
}

#[test]
fn shareability_of_stage_2_counts_for_normal_cacheable_memory_alone() {
    for (attributes, expected) in [("", 1), ("u", 0)] {
        let mut m = machine(World::Guest, "");
        run(&mut m, &format!("str s2t.2 s2page:2,{attributes}; str s2t.2 s2page:2,{attributes}l"));
        assert_eq!(m.take_violations().len(), expected, "{attributes}");
    }
}

#[test]
fn a_stale_table_below_a_new_block_is_an_error() {
    let gone = "str pmd1 table:t2; str pud 0; dsb ishst; tlbi vae1is va; tlbi vae1is va+1000";
    let error = "remade no-invalidation va+200000 level 2".to_owned();
    for (more, expected) in [("", [error].into()), ("tlbi vae1is va+200000;", [].into())] {
        let seen = verdicts(&mut el1(), &format!("{gone}; {more} dsb ish; str pud 40000f41"));
        assert_eq!(seen, expected, "{more}");
    }
}

#[test]
fn a_block_without_nt_breaks_a_claim_where_one_with_nt_stands() {
    let seen = verdicts(&mut el1(), "str pmd1 block:0; str pmd1 block:0,n; claim va+200000 1000");
    assert_eq!(seen, ["claimed no-invalidation va+200000 level 2".to_owned()].into());
}

#[test]
fn what_stage_1_gives_is_no_physical_address() {
    let mut m = machine(World::GuestMmuOn, "str pte f43");
    m.go_to(0, 1);
    m.access(0, twins::VA, 0, AccessKind::Load);
    assert_eq!(m.take_violations().iter().map(|v| v.kind).collect::<Vec<_>>(), [tlbsan::Kind::StaleAccess]);
}

#[test]
fn the_asid_of_el2_finds_nothing_of_el1() {
    let mut m = el1();
    m.write(0, Sysreg::HcrEl2, 1 << 34);
    m.write(0, Sysreg::TcrEl2, TCR);
    m.write(0, Sysreg::Ttbr0El2, table("empty") | u64::from(ASID) << 48);
    m.write(0, Sysreg::SctlrEl2, 1);
    run(&mut m, "str root2.0 table:other; str pte 0; msr ttbr0_el1 a9.root2; isb; read va frame:0");
    assert_eq!(m.take_violations().iter().map(|v| v.kind).collect::<Vec<_>>(), [tlbsan::Kind::StaleAccess]);
}

#[test]
fn an_operation_for_an_asid_that_nobody_ran_is_a_cost() {
    for (sequence, expected) in [("tlbi aside1is asid=9", 1), ("tlbi aside1is", 0)] {
        let mut m = el1();
        run(&mut m, sequence);
        let remarks =
            m.take_records().into_iter().filter(|r| matches!(r, Record::Remark(r) if r.severity == Severity::Cost));
        assert_eq!(remarks.count(), expected, "{sequence}");
    }
}

#[test]
fn who_may_hold_what() {
    let away = "1: msr ttbr0_el1 a9.empty; 1: isb; ";
    let held = |steps: &str| {
        let mut m = el1();
        run(&mut m, &format!("{steps} str pte page:2"));
        let violations: Vec<Violation> = m.take_violations();
        violations[0].pes.clone()
    };
    assert_eq!(held(away), [0, 1], "what was cached stays");
    assert_eq!(held(&format!("{away} tlbi aside1is; dsb ish;")), [0]);
    // It left after the TLBI: it may have filled again before it did.
    assert_eq!(held(&format!("tlbi aside1is; {away} dsb ish;")), [0, 1]);
    assert_eq!(held(&format!("{away} tlbi aside1; dsb ish;")), [0, 1], "a local one does not reach it");
    assert_eq!(held(&format!("{away} tlbi aside1is;")), [0, 1], "not complete");
    assert_eq!(held(&format!("tlbi aside1is; {away} tlbi aside1is; dsb ish;")), [0], "one DSB completes both");
    // Not even what has become stale since it was executed.
    assert_eq!(held(&format!("{away} tlbi aside1is; str pte 0; dsb ish;")), [0]);
    let mut m = machine(World::Guest, "");
    run(&mut m, "1: msr vttbr_el2 a4.empty; 1: isb; tlbi vmalls12e1is; str s2t.0 0; dsb ish; str s2t.0 s2page:2");
    assert_eq!(m.take_violations()[0].pes, [0], "stage 2");
}
