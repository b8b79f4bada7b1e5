//! Bad requests: each is refused with the value at fault, before any instruction.

mod common;

use tlbi::{
    Asid, Depth, Features, Form, Granule, IdRegisters, Instruction, Invalidation, Ipa, IpaRange, Level, Mnemonic, Op,
    RangeError, Recorder, Regime, RequestError, Scope, Stage2, Target, Tlb, VaRange, VirtAddr,
};

struct Pin;
// SAFETY: a recorder stands for no PE.
unsafe impl tlbi::Pinned for Pin {}

fn va(bits: u64) -> VirtAddr {
    VirtAddr::new(bits)
}

#[test]
fn a_range_that_cannot_be() {
    let new = |start, size| VaRange::new(va(start), size);
    let (empty, wraps) =
        (RangeError::Empty { start: va(0x1000) }, |start, size| RangeError::Wraps { start: va(start), size });
    assert_eq!(new(0x1000, 0), Err(empty));
    assert_eq!(new(u64::MAX, 2), Err(wraps(u64::MAX, 2)));
    assert_eq!(new(1, u64::MAX), Err(RangeError::NonCanonical { start: va(1), size: u64::MAX }));
    // Across the gap between the halves, and inside it.
    for (start, size) in [(0x000f_ffff_ffff_f000, 0x2000), (0x0010_0000_0000_0000, 1), (0x7fff_ffff_ffff_f000, 0x2000)]
    {
        assert_eq!(new(start, size), Err(RangeError::NonCanonical { start: va(start), size }));
    }
    assert!(new(0xffff_ffff_ffff_f000, 0x1000).is_ok(), "the last page is one");
    let ipa = Ipa::new(0x1000);
    assert_eq!(IpaRange::new(ipa, 0), Err(RangeError::Empty { start: va(0x1000) }));
    assert_eq!(IpaRange::new(ipa, u64::MAX), Err(RangeError::Wraps { start: va(0x1000), size: u64::MAX }));
    assert_eq!(IpaRange::new(ipa, 1 << 52), Err(RangeError::BeyondIpa { start: ipa, size: 1 << 52 }));
    assert!(IpaRange::new(Ipa::new(0), 1 << 52).is_ok());
}

fn page(asid: u16) -> Invalidation {
    Invalidation::page(Asid::new(asid), va(0x40_0000), Level::L3, Depth::Leaf)
}

fn unsupported(form: Form, scope: Scope, needs: &'static str) -> RequestError {
    let instruction = Mnemonic::new(form, scope, false).expect("an instruction");
    RequestError::Unsupported { instruction, needs }
}

#[test]
fn a_bad_request_that_reaches_the_pe() {
    let none = Features::NONE;
    let wide = Asid::new(0x107);
    let odd = Asid::new(7);
    let range = VaRange::new(va(0x40_0000), 0x3000).expect("a range");
    let level = |granule, level, lpa2| RequestError::NoSuchLevel { granule, level, lpa2 };
    for (inv, error, text) in [
        (
            page(0x107),
            RequestError::AsidTooWide { asid: wide, bits: 8 },
            "ASID 263 has more than the 8 bits of this CPU's ASIDs",
        ),
        (
            Invalidation::asid(wide),
            RequestError::AsidTooWide { asid: wide, bits: 8 },
            "ASID 263 has more than the 8 bits of this CPU's ASIDs",
        ),
        (page(7).kpti(), RequestError::OddPair { asid: odd }, "ASID 7 is odd: a KPTI pair begins with an even ASID"),
        (
            Invalidation::pages(odd, range, Level::LM1, Depth::Full),
            level(Granule::K4, Level::LM1, false),
            "a walk with the 4 KiB granule without LPA2 has no level -1",
        ),
        (
            Invalidation::pages(odd, range, Level::L0, Depth::Full).granule(Granule::K64).lpa2(true),
            level(Granule::K64, Level::L0, true),
            "a walk with the 64 KiB granule with LPA2 has no level 0",
        ),
        (
            Invalidation::page(odd, va(1 << 52), Level::L3, Depth::Leaf),
            RequestError::Range(RangeError::NonCanonical { start: va(1 << 52), size: 1 }),
            "range of 0x1 bytes at 0x10000000000000 leaves the lower or the upper half of the address space",
        ),
        (
            Invalidation::all().el2(),
            unsupported(Form::Alle2, Scope::Inner, "EL2"),
            "this CPU has no TLBI alle2is: it needs EL2",
        ),
        (
            Invalidation::all().el3().local(),
            unsupported(Form::Alle3, Scope::Local, "EL3"),
            "this CPU has no TLBI alle3: it needs EL3",
        ),
    ] {
        let tlb = Tlb::new(Recorder::<8>::new(), none);
        assert_eq!(tlb.try_invalidate(&Pin, &inv).err(), Some(error), "{inv:?}");
        assert_eq!(tlb.issuer().instructions().count(), 0, "{inv:?}");
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(
        page(7).outer(&none),
        Err(unsupported(Form::Vmalle1, Scope::Outer, "FEAT_TLBIOS")),
        "nothing else reaches that far"
    );
    let tlb = Tlb::new(Recorder::<8>::new(), none);
    let stage2 = tlb.try_invalidate_stage2(&Pin, &Stage2::vmid()).err();
    assert_eq!(stage2, Some(unsupported(Form::Vmalls12e1, Scope::Inner, "EL2")));
    let ipas = IpaRange::new(Ipa::new(0), 0x1000).expect("a range");
    let stage2 = Stage2::pages(ipas, Level::L0, Depth::Leaf).granule(Granule::K64);
    assert_eq!(tlb.try_invalidate_stage2(&Pin, &stage2).err(), Some(level(Granule::K64, Level::L0, false)),);
    assert_eq!(tlb.issuer().instructions().count(), 0);
}

#[test]
fn an_instruction_that_the_cpu_lacks_is_executed() {
    let all = Features {
        asid_bits: 16,
        outer: true,
        range: true,
        xs: true,
        el2: true,
        el3: true,
        rme: true,
        tlbiw: true,
        ..Features::NONE
    };
    let mut counted = 0;
    for mnemonic in Mnemonic::all() {
        assert_eq!(all.check(mnemonic), Ok(()), "{mnemonic}");
        let name = mnemonic.to_string();
        let base = name.trim_end_matches("nxs");
        let stage2 =
            name.contains("ipas2") || ["alle1", "vmalls12e1", "vmallws2e1"].iter().any(|n| base.starts_with(n));
        let gpt = name.starts_with("paall") || name.starts_with("rpa");
        let el2 = stage2 || (name.contains('2') && !name.contains("e1"));
        let without = |features: Features| features.check(mnemonic).is_err();
        assert_eq!(without(Features { range: false, ..all }), name.starts_with('r') && !gpt, "{name}");
        assert_eq!(without(Features { outer: false, ..all }), base.ends_with("os") && !gpt, "{name}");
        assert_eq!(without(Features { xs: false, ..all }), name.ends_with("nxs"), "{name}");
        assert_eq!(without(Features { el2: false, ..all }), el2, "{name}");
        assert_eq!(without(Features { el3: false, ..all }), gpt || base.contains('3'), "{name}");
        assert_eq!(without(Features { rme: false, ..all }), gpt, "{name}");
        assert_eq!(without(Features { tlbiw: false, ..all }), name.starts_with("vmallws2"), "{name}");

        let tlb = Tlb::new(Recorder::<2>::new(), Features::NONE);
        let op = mnemonic.decode(0);
        let executed = tlb.execute(op);
        let issued: Vec<Instruction> = tlb.issuer().instructions().collect();
        let expected = if executed.is_ok() { vec![Instruction::Tlbi(op)] } else { Vec::new() };
        assert_eq!(issued, expected, "{name}");
        counted += usize::from(executed.is_ok());
    }
    assert_eq!(counted, 12, "what Armv8.0 has at EL1");
}

/// The infallible path: what cannot be carried out to the letter is carried out by more.
#[test]
fn a_request_that_is_widened_to_too_little() {
    let range = VaRange::new(va(0x40_0000), 0x3000).expect("a range");
    let pages = |level| Invalidation::pages(Asid::new(7), range, level, Depth::Full);
    for (inv, op) in [
        (page(0x107), "tlbi vmalle1is"),
        (Invalidation::asid(Asid::new(0x107)), "tlbi vmalle1is"),
        (pages(Level::LM1), "tlbi aside1is, asid 7"),
        (pages(Level::L0).granule(Granule::K64), "tlbi aside1is, asid 7"),
        (page(0x107).el20(), "tlbi alle2is"),
    ] {
        let tlb = Tlb::new(Recorder::<8>::new(), Features { el2: true, ..Features::NONE });
        tlb.invalidate(&Pin, &inv).sync();
        let issued: Vec<String> = tlb.issuer().instructions().map(|i| i.to_string()).collect();
        assert_eq!(issued[..3], ["dsb ishst", op, "dsb ish"], "{inv:?}");
    }
    // An odd ASID in a pair: both of the pair that it belongs to.
    let tlb = Tlb::new(Recorder::<8>::new(), Features::NONE);
    tlb.invalidate(&Pin, &page(7).kpti()).sync();
    let issued: Vec<String> = tlb.issuer().instructions().map(|i| i.to_string()).collect();
    assert_eq!(issued[1..3], ["tlbi vale1is, 0x400000 asid 6", "tlbi vale1is, 0x400000 asid 7"]);
}

#[test]
fn a_feature_read_from_the_wrong_field() {
    let set = |f: &dyn Fn(&mut IdRegisters)| {
        let mut id = IdRegisters::default();
        f(&mut id);
        Features::from_id_registers(&id)
    };
    let none = Features::NONE;
    assert_eq!(set(&|_| ()), none);
    assert_eq!(set(&|id| id.id_aa64mmfr0_el1 = 2 << 4), Features { asid_bits: 16, ..none });
    assert_eq!(set(&|id| id.id_aa64mmfr1_el1 = 2 << 36), Features { ets2: true, ..none });
    assert_eq!(set(&|id| id.id_aa64mmfr1_el1 = 1 << 36), none, "FEAT_ETS alone promises nothing here");
    assert_eq!(set(&|id| id.id_aa64isar0_el1 = 1 << 56), Features { outer: true, ..none });
    assert_eq!(set(&|id| id.id_aa64isar0_el1 = 2 << 56), Features { outer: true, range: true, ..none });
    assert_eq!(set(&|id| id.id_aa64mmfr2_el1 = 1 << 48), Features { ttl: true, ..none });
    assert_eq!(set(&|id| id.id_aa64isar1_el1 = 1 << 56), Features { xs: true, ..none });
    assert_eq!(set(&|id| id.id_aa64mmfr2_el1 = 1), Features { cnp: true, ..none });
    assert_eq!(set(&|id| id.id_aa64mmfr2_el1 = 2 << 52), Features { bbm: 2, ..none });
    assert_eq!(set(&|id| id.id_aa64pfr0_el1 = 1 << 8), Features { el2: true, ..none });
    assert_eq!(set(&|id| id.id_aa64pfr0_el1 = 1 << 12), Features { el3: true, ..none });
    assert_eq!(set(&|id| id.id_aa64pfr0_el1 = 1 << 52), Features { rme: true, ..none });
    assert_eq!(set(&|id| id.id_aa64isar3_el1 = 1 << 8), Features { tlbiw: true, ..none });
    let all = set(&|id| {
        *id = IdRegisters {
            midr_el1: 0x410f_d0c1,
            id_aa64pfr0_el1: u64::MAX,
            id_aa64isar0_el1: u64::MAX,
            id_aa64isar1_el1: u64::MAX,
            id_aa64isar3_el1: u64::MAX,
            id_aa64mmfr0_el1: u64::MAX,
            id_aa64mmfr1_el1: u64::MAX,
            id_aa64mmfr2_el1: u64::MAX,
        }
    });
    // A system has what all of its PEs have, and the errata of any.
    assert_eq!(all.common(none), Features { errata: all.errata, ..none });
    assert_eq!(none.common(all), all.common(none));
    assert!(all.errata.repeat_tlbi && all.common(all) == all);
}

/// The raw operation at the regime that decides: decoding never yields an operation that its own check calls another.
#[test]
fn an_operation_executed_for_another_regime() {
    let tlb = Tlb::new(Recorder::<2>::new(), Features::NONE);
    let op = Op::new(Regime::El2, Scope::Inner, Target::All);
    assert_eq!(tlb.execute(op), Err(unsupported(Form::Alle2, Scope::Inner, "EL2")));
}
