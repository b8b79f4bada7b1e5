//! The header for C says what the crate says.

use std::collections::BTreeMap;
use tlbsan_hint::{Cause, Expected, Hint, HintCode, Kind};

const HEADER: &str = include_str!("../include/tlbsan_hint.h");

/// The macros without arguments that are numbers.
fn numbers() -> BTreeMap<&'static str, u8> {
    let define = |line: &'static str| {
        let mut words = line.strip_prefix("#define TLBSAN_")?.split_whitespace();
        Some((words.next()?, words.next()?.parse().ok()?))
    };
    HEADER.lines().filter_map(define).collect()
}

/// The immediate that the macro of this name carries.
fn immediate(name: &str) -> u32 {
    let definition = HEADER.split("#define TLBSAN_").find(|part| part.starts_with(&format!("{name}(")));
    let (_, rest) = definition.expect(name).split_once("TLBSAN_HINT_(0x").expect("a hint");
    u32::from_str_radix(&rest[..4], 16).expect("four digits")
}

#[test]
fn rules_and_causes_have_the_same_numbers() {
    let macros = |names: Vec<(&str, u8)>| -> BTreeMap<String, u8> {
        names.into_iter().map(|(name, code)| (name.to_uppercase().replace('-', "_"), code)).collect()
    };
    let kinds = Kind::ALL.iter().map(|kind| (kind.name(), kind.code()));
    let expected = macros(kinds.chain(Cause::ALL.iter().map(|cause| (cause.name(), cause.code()))).collect());
    let found: BTreeMap<String, u8> = numbers().into_iter().map(|(name, code)| (name.to_owned(), code)).collect();
    assert_eq!(found, expected);
}

#[test]
fn each_macro_is_the_instruction_of_its_hint() {
    let expected = Expected { kind: Kind::Remade, cause: Cause::LeafOnly, start: 1, size: 2, level: 3 };
    for (name, hint) in [
        ("CASE_BEGIN", Hint::CaseBegin { id: 1 }),
        ("EXPECT", Hint::Expect(expected)),
        ("CASE_END", Hint::CaseEnd { id: 1 }),
        ("FRAME_FREED", Hint::FrameFreed { pa: 1, size: 2 }),
        ("FLUSH_CLAIMED", Hint::FlushClaimed { start: 1, size: 2, asid: 3 }),
        ("LABEL", Hint::Label { text: 1, len: 2 }),
    ] {
        let insn = 0xd280_001f | immediate(name) << 5;
        assert_eq!(insn, hint.insn().0, "{name}");
        assert!(HintCode::from_insn(insn).is_some());
    }
}

#[test]
fn every_macro_is_explained() {
    for name in ["CASE_BEGIN", "EXPECT", "CASE_END", "FRAME_FREED", "FLUSH_CLAIMED", "LABEL"] {
        let definition = HEADER.find(&format!("#define TLBSAN_{name}(")).expect(name);
        assert!(HEADER[..definition].trim_end().ends_with("*/"), "{name} has no comment");
    }
}
