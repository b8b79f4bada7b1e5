//! Each listed CPU gets its work-around, its neighbours do not, and a simulated machine with the erratum shows that it helps.

use std::cell::{Cell, RefCell};
use tlbi::errata::ERRATA;
use tlbi::{Asid, Depth, Dsb, Errata, Features, IdRegisters, Invalidation, Issue, Level, Op, Recorder, Tlb, VirtAddr};
use tlbsan::model::Config;
use tlbsan::sim::Machine;
use tlbsan_hint::{Cause, Kind};

struct Pin;
// SAFETY: a simulated PE runs its thread to the end.
unsafe impl tlbi::Pinned for Pin {}

fn midr(implementer: u8, part: u16, revision: u8) -> u64 {
    let (major, minor) = (u64::from(revision >> 4), u64::from(revision & 15));
    u64::from(implementer) << 24 | major << 20 | 0xf << 16 | u64::from(part) << 4 | minor
}

/// The notices, written down a second time, by part number: (implementer, parts, last revision) for each work-around.
#[allow(clippy::type_complexity, reason = "a table")]
const NOTICES: &[(&str, &[(u8, &[u16], u8)])] = &[
    (
        "repeat",
        &[
            (0x51, &[0x800], 0x00),
            (0x51, &[0x804], 0xff),
            (0x41, &[0xd05], 0xff),
            (0x41, &[0xd46], 0x11),
            // A76, A76AE, A77, A78, A78AE, A78C, A710, X1, X1C, X2, X3, X4, X925.
            (0x41, &[0xd0b, 0xd0e, 0xd0d, 0xd41, 0xd42, 0xd4b, 0xd47, 0xd44, 0xd4c, 0xd48, 0xd4e, 0xd82, 0xd85], 0xff),
            // N1, N2, V1, V2, V3, V3AE, C1-Premium, C1-Ultra.
            (0x41, &[0xd0c, 0xd49, 0xd40, 0xd4f, 0xd84, 0xd83, 0xd90, 0xd8c], 0xff),
            (0x4e, &[0x010], 0xff),
        ],
    ),
    ("cnp", &[(0x4e, &[0x004], 0xff), (0x48, &[0xd02], 0xff)]),
    ("exec", &[(0x41, &[0xd4d], 0xff)]),
    ("icache", &[(0x43, &[0x0a1], 0x11), (0x43, &[0x0a2], 0x00)]),
    ("switch", &[(0x51, &[0x800], 0x00)]),
    ("bbm", &[(0x41, &[0xd84, 0xd83], 0x01), (0x41, &[0xd90, 0xd8c], 0x10)]),
];

fn noticed(what: &str, implementer: u8, part: u16, revision: u8) -> bool {
    // Kryo: every part number 0x2xx.
    if implementer == 0x51 && part >> 8 == 2 {
        return matches!(what, "repeat" | "switch");
    }
    let (_, rows) = NOTICES.iter().find(|(name, _)| *name == what).expect("listed");
    rows.iter().any(|(maker, parts, last)| *maker == implementer && parts.contains(&part) && revision <= *last)
}

#[test]
fn a_work_around_forgotten_or_given_to_a_neighbour() {
    let revisions = [0x00, 0x01, 0x02, 0x0f, 0x10, 0x11, 0x12, 0x20, 0x30, 0x31, 0xff];
    for implementer in [0x00, 0x41, 0x42, 0x43, 0x46, 0x48, 0x4e, 0x50, 0x51, 0x61, 0xc0, 0xff] {
        for part in 0..0x1000 {
            for revision in revisions {
                let is = |what| noticed(what, implementer, part, revision);
                let expected = Errata {
                    repeat_tlbi: is("repeat"),
                    no_cnp: is("cnp"),
                    no_bbm_relaxation: is("bbm"),
                    break_user_exec: is("exec"),
                    icache_after_switch: is("icache"),
                    reserved_asid_switch: is("switch"),
                };
                let found = Errata::of(midr(implementer, part, revision));
                assert_eq!(found, expected, "{implementer:#x} {part:#x} revision {revision:#x}");
            }
        }
    }
}

#[test]
fn an_erratum_that_concerns_a_revision_outside_its_row() {
    for erratum in ERRATA {
        let at = |revision| erratum.concerns(midr(erratum.implementer, erratum.part, revision));
        assert!(at(erratum.first) && at(erratum.last), "{erratum:?}");
        assert!(erratum.last == 0xff || !at(erratum.last + 1), "{erratum:?}");
        assert!(!erratum.concerns(midr(erratum.implementer ^ 1, erratum.part, erratum.first)), "{erratum:?}");
        assert!(!erratum.concerns(midr(erratum.implementer, erratum.part ^ 0x800, erratum.first)), "{erratum:?}");
        assert_ne!(erratum.needs, Errata::NONE, "{erratum:?}");
    }
}

/// Of a CPU that has everything, but for what it gets wrong.
fn features(midr: u64) -> Features {
    Features::from_id_registers(&IdRegisters {
        midr_el1: midr,
        id_aa64mmfr0_el1: 2 << 4,
        id_aa64mmfr2_el1: 2 << 52 | 1,
        ..IdRegisters::default()
    })
}

#[test]
fn a_feature_used_although_the_cpu_gets_it_wrong() {
    for erratum in ERRATA {
        let found = features(midr(erratum.implementer, erratum.part, erratum.first));
        assert_eq!(found.cnp, !found.errata.no_cnp, "{erratum:?}");
        assert_eq!(found.bbm, if found.errata.no_bbm_relaxation { 0 } else { 2 }, "{erratum:?}");
    }
    // Cortex-A53: nothing of the kind.
    let sound = features(midr(0x41, 0xd03, 0x04));
    assert_eq!((sound.cnp, sound.bbm, sound.errata), (true, 2, Errata::NONE));
    // Whoever knows better overrides.
    let mut overridden = features(midr(0x41, 0xd0b, 0x00));
    overridden.errata.repeat_tlbi = false;
    let tlb = Tlb::new(Recorder::<8>::new(), overridden);
    tlb.invalidate(&Pin, &Invalidation::asid(ASID)).sync();
    assert_eq!(tlb.issuer().instructions().count(), 4, "DSB, TLBI, DSB, ISB");
}

const ROOT: u64 = 0x1000;
const LEAF: u64 = 0x4000;
const VA: VirtAddr = VirtAddr::new(0x4000_0000);
const ASID: Asid = Asid::new(7);
/// Valid page, AF, nG, inner shareable, EL0, read and write.
const PAGE: u64 = 0xf43;

/// Two PEs in a space that maps one page; if `forgetful`, with CPUs of the repeat-TLBI group: a DSB does not wait for accesses
/// through old entries, unless a TLBI and a DSB came before its own TLBI.
struct Board {
    machine: RefCell<Machine>,
    forgetful: bool,
    dsbs: Cell<usize>,
}

impl Board {
    fn new(forgetful: bool) -> Self {
        let mut machine = Machine::new(Config::default());
        for (slot, entry) in
            [(ROOT, 0x2000 | 3), (0x2000 + 8, 0x3000 | 3), (0x3000, LEAF | 3), (LEAF, 0x10_0000 | PAGE)]
        {
            machine.store(0, slot, entry);
        }
        machine.run_in(0, ROOT, ASID.number());
        machine.run_in(1, ROOT, ASID.number());
        Self { machine: RefCell::new(machine), forgetful, dsbs: Cell::new(0) }
    }

    fn store(&self, value: u64) {
        self.machine.borrow_mut().store(0, LEAF, value);
    }

    fn verdicts(&self) -> Vec<(Kind, Cause)> {
        self.machine.borrow_mut().take_violations().iter().map(|v| (v.kind, v.cause)).collect()
    }
}

// SAFETY: executes on the simulated PE 0, as far as its CPU's errata let it.
unsafe impl Issue for Board {
    fn tlbi(&self, op: Op) {
        self.machine.borrow_mut().tlbi(0, op);
    }

    fn dsb(&self, dsb: Dsb) {
        let completes = dsb.completes_tlbi(tlbi::barrier::Domain::NonShareable);
        let seen = self.dsbs.get();
        self.dsbs.set(seen + usize::from(completes));
        let forgets = self.forgetful && completes && seen == 0;
        self.machine.borrow_mut().dsb(0, if forgets { Dsb::Ishst } else { dsb });
    }

    fn isb(&self) {
        self.machine.borrow_mut().isb(0);
    }
}

/// Unmaps the page, invalidates it and maps another frame there.
fn remap(board: &Board, features: Features) -> Vec<(Kind, Cause)> {
    let tlb = Tlb::new(board, features);
    board.store(0);
    tlb.invalidate(&Pin, &Invalidation::page(ASID, VA, Level::L3, Depth::Leaf)).sync();
    board.store(0x20_0000 | PAGE);
    board.verdicts()
}

#[test]
fn accesses_that_a_forgetful_dsb_leaves_behind() {
    let not_completed = vec![(Kind::Remade, Cause::NotCompleted)];
    let mut affected = 0;
    for erratum in ERRATA.iter().filter(|erratum| erratum.needs.repeat_tlbi) {
        let features = features(midr(erratum.implementer, erratum.part, erratum.first));
        assert_eq!(remap(&Board::new(true), features), [], "{erratum:?}");
        let mut without = features;
        without.errata.repeat_tlbi = false;
        assert_eq!(remap(&Board::new(true), without), not_completed, "{erratum:?}: the erratum must show");
        affected += 1;
    }
    assert!(affected > 20);
    // A CPU without the erratum needs no repetition.
    assert_eq!(remap(&Board::new(false), features(midr(0x41, 0xd03, 0x04))), []);
}

#[test]
fn a_user_executable_entry_rewritten_while_it_may_be_cached() {
    let page = Invalidation::page(ASID, VA, Level::L3, Depth::Leaf);
    // What may still be cached when the new permissions are written.
    let open = |midr| {
        let board = Board::new(false);
        let tlb = Tlb::new(&board, features(midr));
        board.store(0);
        let broken = tlb.break_for_permissions(&Pin, &page);
        let open = !board.machine.borrow().model().residues().is_empty();
        // Read-only.
        board.store(0x10_0000 | PAGE | 1 << 7);
        if !broken {
            tlb.invalidate(&Pin, &page).sync();
        }
        assert!(board.machine.borrow().model().residues().is_empty(), "and afterwards nothing, on any CPU");
        (broken, open)
    };
    for revision in [0x00, 0x10, 0x13] {
        assert_eq!(open(midr(0x41, 0xd4d, revision)), (true, false), "Cortex-A715");
    }
    assert_eq!(open(midr(0x41, 0xd81, 0x00)), (false, true), "Cortex-A720: the usual order");
}

#[test]
fn stale_instructions_after_a_switch() {
    let switched = |midr| {
        let tlb = Tlb::new(Recorder::<8>::new(), features(midr));
        tlb.context_switched();
        tlb.issuer().instructions().map(|i| i.to_string()).collect::<Vec<_>>()
    };
    for erratum in ERRATA {
        let midr = midr(erratum.implementer, erratum.part, erratum.first);
        let expected: &[&str] =
            if erratum.needs.icache_after_switch { &["isb", "ic iallu", "dsb nsh", "isb"] } else { &["isb"] };
        assert_eq!(switched(midr), expected, "{erratum:?}");
    }
}
