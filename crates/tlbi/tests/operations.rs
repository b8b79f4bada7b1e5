//! Every TLBI against the packaged assembler, and every operand against the Arm ARM's fields read once more by hand.

mod common;

use common::{Random, assemble};
use std::collections::BTreeSet;
use tlbi::{Asid, Dsb, Granule, Mnemonic, Op, Pages, Regime, Scope, Target};

/// Forms that the assembler of LLVM 14 does not know: raw `SYS` from the Arm ARM (C5.5.x "TLBI VMALLWS2E1", FEAT_TLBIW).
const RAW: &[(&str, &str)] = &[
    ("vmallws2e1", "sys #4, c8, c6, #2"),
    ("vmallws2e1is", "sys #4, c8, c2, #2"),
    ("vmallws2e1os", "sys #4, c8, c5, #2"),
    ("vmallws2e1nxs", "sys #4, c9, c6, #2"),
    ("vmallws2e1isnxs", "sys #4, c9, c2, #2"),
    ("vmallws2e1osnxs", "sys #4, c9, c5, #2"),
];

/// `vae1is`.
fn name(mnemonic: Mnemonic) -> String {
    mnemonic.to_string()
}

fn text(mnemonic: Mnemonic, xt: u8) -> String {
    let name = name(mnemonic);
    let register = if xt == 31 { "xzr".to_owned() } else { format!("x{xt}") };
    match RAW.iter().find(|(raw, _)| *raw == name) {
        Some((_, sys)) => (*sys).to_owned(),
        None if mnemonic.has_operand() => format!("tlbi {name}, {register}"),
        None => format!("tlbi {name}"),
    }
}

#[test]
fn a_wrong_encoding_of_any_operation_with_any_register() {
    let cases: Vec<(Mnemonic, u8)> =
        Mnemonic::all().flat_map(|mnemonic| (0..32).map(move |xt| (mnemonic, xt))).collect();
    let lines: Vec<String> = cases.iter().map(|(mnemonic, xt)| text(*mnemonic, *xt)).collect();
    for (((mnemonic, xt), line), word) in cases.iter().zip(&lines).zip(assemble(&lines)) {
        assert_eq!(mnemonic.insn(*xt), word, "{line}");
        let decoded = if mnemonic.has_operand() { *xt } else { 31 };
        assert_eq!(Mnemonic::from_insn(word), Some((*mnemonic, decoded)), "{line}");
    }
}

#[test]
fn a_wrong_encoding_of_a_barrier() {
    let lines: Vec<String> = Dsb::ALL.iter().map(|dsb| dsb.to_string()).chain(["isb".to_owned()]).collect();
    let words = assemble(&lines);
    let encoded = Dsb::ALL.iter().map(|dsb| dsb.insn()).chain([tlbi::barrier::ISB_INSN]);
    assert!(words.iter().copied().eq(encoded), "{words:x?}");
    for (dsb, word) in Dsb::ALL.iter().zip(words) {
        assert_eq!(Dsb::from_insn(word), Some(*dsb));
    }
}

/// R5, and what "nXS" leaves out.
#[test]
fn a_barrier_that_is_trusted_with_more_than_it_waits_for() {
    use tlbi::barrier::Domain::{InnerShareable as I, NonShareable as N, OuterShareable as O};
    let completing = |test: &dyn Fn(Dsb) -> bool| -> Vec<&str> {
        Dsb::ALL.iter().filter(|dsb| test(**dsb)).map(|dsb| dsb.option()).collect()
    };
    assert_eq!(completing(&|dsb| dsb.completes_tlbi(N)), ["osh", "nsh", "ish", "sy"]);
    assert_eq!(completing(&|dsb| dsb.completes_tlbi(I)), ["osh", "ish", "sy"]);
    assert_eq!(completing(&|dsb| dsb.completes_tlbi(O)), ["osh", "sy"]);
    assert_eq!(completing(&|dsb| dsb.completes_nxs_tlbi(I)), ["osh", "ish", "sy", "oshnxs", "ishnxs", "synxs"]);
    assert_eq!(completing(&|dsb| dsb.publishes_stores(O) && !dsb.is_nxs()), ["oshst", "osh", "st", "sy"]);
    assert!(Dsb::ALL.iter().all(|dsb| !dsb.plain().is_nxs() && dsb.plain().domain() == dsb.domain()));
}

/// What the Arm ARM lists, by name: an operation left out of the table is missed here.
#[test]
fn an_operation_that_the_table_lacks() {
    let mut expected = BTreeSet::new();
    let mut add = |names: &[&str], suffixes: &[&str]| {
        for name in names {
            for suffix in suffixes {
                expected.insert(format!("{name}{suffix}"));
            }
        }
    };
    let broadcast = ["", "is", "os", "nxs", "isnxs", "osnxs"];
    add(&["vmalle1", "vae1", "aside1", "vaae1", "vale1", "vaale1"], &broadcast);
    add(&["rvae1", "rvaae1", "rvale1", "rvaale1"], &broadcast);
    add(&["alle2", "vae2", "vale2", "rvae2", "rvale2"], &broadcast);
    add(&["alle3", "vae3", "vale3", "rvae3", "rvale3"], &broadcast);
    add(&["alle1", "vmalls12e1", "ipas2e1", "ipas2le1", "ripas2e1", "ripas2le1", "vmallws2e1"], &broadcast);
    add(&["paall"], &["", "os"]);
    add(&["rpa", "rpal"], &["os"]);
    let known: BTreeSet<String> = Mnemonic::all().map(name).collect();
    assert_eq!(known, expected);
    assert_eq!(Mnemonic::all().count(), expected.len(), "no instruction twice");
}

#[test]
fn another_system_instruction_taken_for_a_tlbi() {
    let known: BTreeSet<u32> = Mnemonic::all().map(|mnemonic| mnemonic.insn(31)).collect();
    // Every SYS with XZR: op1, CRn, CRm, op2.
    for fields in 0..1u32 << 14 {
        let insn = 0xd508_001f | fields << 5;
        assert_eq!(Mnemonic::from_insn(insn).is_some(), known.contains(&insn), "{insn:#010x}");
    }
    // SYSL, MSR and the 128-bit SYSP are none.
    for insn in [0xd528_8328, 0xd518_8328, 0xd548_8328] {
        assert_eq!(Mnemonic::from_insn(insn), None, "{insn:#010x}");
    }
}

/// The operand's bits `high..=low`.
fn field(xt: u64, high: u32, low: u32) -> u64 {
    (xt >> low) & (u64::MAX >> (63 - (high - low)))
}

/// The VA with bit 55 repeated above.
fn canonical(va: u64) -> u64 {
    ((va << 8) as i64 >> 8) as u64
}

#[test]
fn a_field_of_a_random_operand_read_wrongly() {
    let mut random = Random(1);
    for mnemonic in Mnemonic::all() {
        for _ in 0..200 {
            let xt = random.next();
            let op = mnemonic.decode(xt);
            assert_eq!(op.mnemonic(), mnemonic, "{op:?}");
            let name = name(mnemonic);
            let base = name.trim_end_matches("nxs");
            let leaf = ["vale", "vaale", "rvale", "rvaale", "ipas2le", "ripas2le", "rpal"]
                .iter()
                .any(|prefix| base.starts_with(prefix));
            let tagged = !base.contains("vaa") && !base.contains('3');
            match op.target {
                Target::Va { va, asid, leaf_only, ttl } => {
                    assert_eq!(canonical(va.bits()), canonical(field(xt, 43, 0) << 12));
                    assert_eq!(u64::from(ttl), field(xt, 47, 44));
                    assert_eq!(asid.map(|asid| u64::from(asid.number())), tagged.then_some(field(xt, 63, 48)));
                    assert_eq!(leaf_only, leaf, "{name}");
                }
                Target::VaRange { pages, asid, leaf_only } => {
                    check_range(pages, xt);
                    assert_eq!(asid.map(|asid| u64::from(asid.number())), tagged.then_some(field(xt, 63, 48)));
                    assert_eq!(leaf_only, leaf, "{name}");
                }
                Target::Ipa { ipa, non_secure, leaf_only, ttl } => {
                    assert_eq!(ipa.bits(), field(xt, 39, 0) << 12);
                    assert_eq!(u64::from(ttl), field(xt, 47, 44));
                    assert_eq!((non_secure, leaf_only), (field(xt, 63, 63) == 1, leaf), "{name}");
                }
                Target::IpaRange { pages, non_secure, leaf_only } => {
                    check_range(pages, xt);
                    assert_eq!((non_secure, leaf_only), (field(xt, 63, 63) == 1, leaf), "{name}");
                }
                Target::Asid(asid) => assert_eq!(u64::from(asid.number()), field(xt, 63, 48)),
                Target::GptRange { pa, size, leaf_only } => {
                    assert_eq!(pa.bits(), field(xt, 39, 0) << 12);
                    assert_eq!((u64::from(size), leaf_only), (field(xt, 47, 44), leaf), "{name}");
                }
                Target::All | Target::AllStages | Target::AllVmids | Target::DirtyState | Target::Gpt => {
                    assert!(!mnemonic.has_operand(), "{name}");
                }
            }
            // What is not RES0 comes back as it was.
            let res0 = match op.target {
                Target::Va { asid: None, .. } | Target::VaRange { asid: None, .. } => 0xffff << 48,
                Target::Ipa { .. } => 0x7fff << 48 | 0xf << 40,
                Target::IpaRange { .. } => 0x7fff << 48,
                Target::Asid(_) => (1 << 48) - 1,
                Target::GptRange { .. } => 0xffff << 48 | 0xf << 40,
                Target::Va { .. } | Target::VaRange { .. } => 0,
                _ => u64::MAX,
            };
            let reserved_granule = match op.target {
                Target::VaRange { pages, .. } | Target::IpaRange { pages, .. } => pages.granule().is_none(),
                _ => false,
            };
            assert_eq!(op.operand(), xt & !res0, "{op:?}");
            assert_eq!(reserved_granule, base.starts_with('r') && !base.starts_with("rp") && field(xt, 47, 46) == 0);
        }
    }
}

/// Arm ARM "TLBI RVAE1": BaseADDR 36:0, TTL 38:37, NUM 43:39, SCALE 45:44, TG 47:46.
fn check_range(pages: Pages, xt: u64) {
    let shift = match field(xt, 47, 46) {
        0 => {
            assert_eq!((pages.pages(), pages.size()), (0, 0), "the reserved granule covers nothing");
            return;
        }
        1 => 12,
        2 => 14,
        _ => 16,
    };
    let count = (field(xt, 43, 39) + 1) << (5 * field(xt, 45, 44) + 1);
    assert_eq!((pages.pages(), pages.size()), (count, count << shift));
    assert_eq!(pages.level().map_or(0, |level| level.number() as u64), field(xt, 38, 37));
    assert_eq!(pages.first_ipa(), field(xt, 36, 0) << shift);
    let sign_extended = |shift: u32| (((field(xt, 36, 0) << 27) as i64) >> 27 << shift) as u64;
    assert_eq!(pages.first_va(), sign_extended(shift));
    assert_eq!(pages.with_lpa2(true).first_va(), sign_extended(16));
}

#[test]
fn a_range_operand_that_covers_other_pages_than_asked_for() {
    let mut random = Random(2);
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        for lpa2 in [false, true] {
            if lpa2 && granule == Granule::K64 {
                continue;
            }
            let align = if lpa2 { 16 } else { granule.shift() };
            for scale in 0..4 {
                for num in 0..32 {
                    let count = (num + 1) << (5 * scale + 1);
                    for half in [0, u64::MAX << 48] {
                        let start = half | random.below(1 << (48 - align)) << align;
                        let pages = Pages::new(granule, lpa2, start, count).expect("that many pages");
                        assert_eq!(pages.first_va(), start, "{granule:?} {lpa2}");
                        assert_eq!(pages.size(), count << granule.shift());
                    }
                }
            }
            for (start, count) in [(0, 0), (0, 1), (0, 3), (0, 66), (0, 1 << 22), (1 << (align - 1), 2)] {
                assert_eq!(Pages::new(granule, lpa2, start, count), None, "{start:#x} {count}");
            }
        }
    }
}

/// An address with bits that the operand has no room for must not spill into the hint or the ASID.
#[test]
fn a_high_address_that_becomes_a_hint() {
    let va = tlbi::VirtAddr::new(0xffff_8000_1234_5fff);
    let op = Op::inner(Target::Va { va, asid: Some(Asid::new(7)), leaf_only: true, ttl: 0 });
    assert_eq!(op.operand(), 7 << 48 | 0xff8_0001_2345);
}

/// Combinations without an instruction are carried out by a stronger one, never by a weaker.
#[test]
fn a_combination_without_an_instruction_that_does_too_little() {
    let va = Target::Va { va: tlbi::VirtAddr::new(0), asid: None, leaf_only: true, ttl: 0 };
    for (regime, scope, target, name) in [
        (Regime::El2, Scope::Inner, Target::Asid(Asid::new(1)), "alle2is"),
        (Regime::El3, Scope::Local, Target::Asid(Asid::new(1)), "alle3"),
        (Regime::El3, Scope::Outer, va, "vale3os"),
        (Regime::El2, Scope::Inner, va, "vale2is"),
        (Regime::El10, Scope::Inner, va, "vaale1is"),
        (Regime::El3, Scope::Inner, Target::Gpt, "paallos"),
        (Regime::El10, Scope::Local, Target::GptRange { pa: Default::default(), size: 0, leaf_only: true }, "rpalos"),
    ] {
        let op = Op::new(regime, scope, target);
        assert_eq!(op.mnemonic().to_string(), name);
        assert!(op.mnemonic().scope() >= scope);
    }
    let gpt = Op { nxs: true, ..Op::new(Regime::El3, Scope::Local, Target::Gpt) };
    assert_eq!(gpt.mnemonic().to_string(), "paall", "which waits for more");
}

#[test]
fn a_text_that_hides_what_an_operation_removes() {
    for (mnemonic, xt, text) in [
        (0xd508_8320, 7 << 48 | 0x400, "tlbi vae1is, 0x400000 asid 7"),
        (0xd508_83a0, 7 << 48 | 7 << 44 | 0x400, "tlbi vale1is, 0x400000 asid 7 ttl 0x7"),
        (0xd508_9360, 0x400, "tlbi vaae1isnxs, 0x400000"),
        (0xd508_8340, 7 << 48, "tlbi aside1is, asid 7"),
        (0xd508_831f, 0, "tlbi vmalle1is"),
        (
            0xd508_82a0,
            7 << 48 | 1 << 46 | 15 << 39 | 3 << 37 | 0x400,
            "tlbi rvale1is, 0x400000..0x420000 asid 7 level 3",
        ),
        (0xd50c_8020, 1 << 63 | 0x80, "tlbi ipas2e1is, 0x80000 non-secure"),
        (0xd50c_8460, 2 << 46 | 1, "tlbi ripas2e1os, 0x4000..0xc000"),
        (0xd50e_8460, 3 << 44 | 0x400, "tlbi rpaos, 0x400000..0x600000"),
        (0xd50e_8460, 15 << 44 | 0x400, "tlbi rpaos, 0x400000 size 15"),
    ] {
        let (mnemonic, _) = Mnemonic::from_insn(mnemonic).expect("a TLBI");
        assert_eq!(mnemonic.decode(xt).to_string(), text);
    }
}
