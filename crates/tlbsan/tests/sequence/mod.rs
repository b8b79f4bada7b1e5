//! Tests that are instruction sequences: the text is executed as it stands, so that a name cannot lie.
//!
//! Statements are separated by `;`, a number and a colon before one name the PE (0 otherwise). Tables map [`VA`] through
//! `root`, `pud`, `pmd` and `pte`, each the slot for it, `pte1` the next one and so on; [`VA`] and the page after it are mapped.
//!
//! ```text
//! str pte 0 | str pte page:2rg | str pmd table:t2 | str pmd block:1     ldr pte     zva t
//! dsb ishst     isb     eret     exc     el 2     reset     msr ttbr0_el1 a9.root2     msr mair_el1 ff44
//! tlbi vale1is va+1000 asid=7 ttl=4.3     tlbi rvae1is va+0*2 ttl=3     tlbi ipas2e1is ipa+0     tlbi vmalle1is
//! read va+10 frame:0+10     fetch ...     write ...     id bbm 2     id ets2
//! ```
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::BTreeSet;
use tlbi::{Dsb, Mnemonic};
use tlbsan::sim::{Machine, TCR};
use tlbsan::{AccessKind, Config, Hint, IdRegister, Sysreg};

pub const VA: u64 = 0x4000_0000;
pub const ASID: u64 = 7;
const ROOT: u64 = 0x1000;
const TABLES: &[(&str, u64)] = &[
    ("root", ROOT),
    ("l1", 0x2000),
    ("l2", 0x3000),
    ("t", 0x4000),
    ("t2", 0x5000),
    ("root2", 0x6000),
    ("empty", 0x7000),
    ("other", 0x8000),
    ("s2root", 0x10000),
    ("s2l2", 0x12000),
    ("s2t", 0x13000),
    ("s2t2", 0x14000),
    ("s2other", 0x16000),
];

fn number(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("no hexadecimal number: {text}"))
}

fn table(name: &str) -> u64 {
    TABLES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no table {name}")).1
}

/// `pte`, `pte3`, `t2.5`, `s2t.0`.
fn slot(name: &str) -> u64 {
    if let Some((name, index)) = name.split_once('.') {
        return table(name) + number(index) * 8;
    }
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let index = if digits.is_empty() { 0 } else { number(digits) };
    let base = match name.trim_end_matches(|c: char| c.is_ascii_hexdigit() && c.is_ascii_digit()) {
        "pud" => table("l1") + 8,
        "pmd" => table("l2"),
        "pte" => table("t"),
        other => panic!("no slot {other}"),
    };
    base + index * 8
}

/// Address of a frame: `frame:2`, `block:1`, each with an offset.
fn frame(text: &str) -> u64 {
    let (what, offset) = text.split_once('+').unwrap_or((text, "0"));
    let (kind, n) = what.split_once(':').unwrap_or_else(|| panic!("no frame: {text}"));
    let base = match kind {
        "frame" => 0x10_0000 + number(n) * 0x1000,
        "block" => 0x8000_0000 + number(n) * 0x20_0000,
        _ => panic!("no frame: {text}"),
    };
    base + number(offset)
}

/// `0`, `page:1`, `block:2`, `table:t2`, with letters for attributes after a comma.
fn value(text: &str) -> u64 {
    let (what, letters) = text.split_once(',').unwrap_or((text, ""));
    let mut bits = match what.split_once(':') {
        Some(("table", name)) => table(name) | 3,
        // AF, nG, inner shareable, EL0, writable.
        Some(("page", n)) => frame(&format!("frame:{n}")) | 0xf43,
        Some(("block", n)) => frame(&format!("block:{n}")) | 0xf41,
        // A page that continues block 0.
        Some(("part", n)) => (frame("block:0") + number(n) * 0x1000) | 0xf43,
        // Stage 2: AF, readable and writable, normal memory.
        Some(("s2page", n)) => frame(&format!("frame:{n}")) | 0x7ff,
        Some(("s2self", n)) => number(n) | 0x7ff,
        _ => number(what),
    };
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 1 << 7,
            'k' => bits &= !(1 << 6),
            'g' => bits &= !(1 << 11),
            'c' => bits |= 1 << 52,
            'o' => bits &= !(1 << 10),
            'd' => bits |= 1 << 2,
            'n' => bits |= 1 << 16,
            's' => bits |= 1 << 55,
            'w' => bits &= !(1 << 7),
            _ => panic!("no attribute {letter}"),
        }
    }
    bits
}

/// `va+1000`, `ipa+0`.
fn address(text: &str) -> u64 {
    let (base, offset) = text.split_once('+').unwrap_or((text, "0"));
    number(offset) + if base == "va" { VA } else { 0 }
}

fn sysreg(name: &str) -> Sysreg {
    match name {
        "ttbr0_el1" => Sysreg::Ttbr0El1,
        "ttbr1_el1" => Sysreg::Ttbr1El1,
        "tcr_el1" => Sysreg::TcrEl1,
        "sctlr_el1" => Sysreg::SctlrEl1,
        "mair_el1" => Sysreg::MairEl1,
        "ttbr0_el2" => Sysreg::Ttbr0El2,
        "ttbr1_el2" => Sysreg::Ttbr1El2,
        "tcr_el2" => Sysreg::TcrEl2,
        "sctlr_el2" => Sysreg::SctlrEl2,
        "hcr_el2" => Sysreg::HcrEl2,
        "vttbr_el2" => Sysreg::VttbrEl2,
        "vtcr_el2" => Sysreg::VtcrEl2,
        _ => panic!("no register {name}"),
    }
}

/// A register's value: a number, or `a9.root2` and `a9.root2.cnp`: a root under an ASID or VMID.
fn register_value(text: &str) -> u64 {
    let Some(rest) = text.strip_prefix('a').filter(|rest| rest.contains('.')) else { return number(text) };
    let mut parts = rest.split('.');
    let asid = number(parts.next().unwrap_or(""));
    let root = table(parts.next().unwrap_or(""));
    asid << 48 | root | u64::from(parts.next() == Some("cnp"))
}

fn tlbi(m: &mut Machine, pe: usize, words: &[&str]) {
    let mnemonic =
        Mnemonic::all().find(|m| m.to_string() == words[0]).unwrap_or_else(|| panic!("no TLBI {}", words[0]));
    let range = words[0].starts_with('r');
    let mut xt = 0;
    let mut tagged = words[0].contains("va") || words[0].contains("asid");
    tagged &= !words[0].contains("vaa") && !words[0].contains("vmall");
    if tagged {
        xt |= ASID << 48;
    }
    for word in &words[1..] {
        if let Some(asid) = word.strip_prefix("asid=") {
            xt = xt & !(0xffff << 48) | number(asid) << 48;
        } else if let Some(ttl) = word.strip_prefix("ttl=") {
            let n = match ttl.split_once('.') {
                Some((tg, level)) => number(tg) << 2 | number(level),
                None => number(ttl),
            };
            xt |= if range { n << 37 } else { n << 44 };
        } else if let Some((start, pages)) = word.split_once('*') {
            let num = number(pages) / 2 - 1;
            xt |= address(start) >> 12 | num << 39 | 1 << 46;
        } else {
            xt |= address(word) >> 12 & 0xfff_ffff_ffff;
        }
    }
    m.tlbi(pe, mnemonic.decode(xt));
}

/// Executes a sequence.
pub fn run(m: &mut Machine, sequence: &str) {
    for statement in sequence.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        let (pe, statement) = match statement.split_once(": ") {
            Some((pe, rest)) => (number(pe) as usize, rest),
            None => (0, statement),
        };
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words[..] {
            ["str", at, what] => m.store(pe, slot(at), value(what)),
            ["ldr", at] => _ = m.load(pe, slot(at)),
            ["zva", at] => (0..512).for_each(|n| m.store(pe, table(at) + n * 8, 0)),
            ["dsb", option] => {
                let dsb = Dsb::ALL.iter().find(|dsb| dsb.option() == option);
                m.dsb(pe, *dsb.unwrap_or_else(|| panic!("no DSB {option}")));
            }
            ["isb"] => m.isb(pe),
            ["eret"] => m.eret(pe),
            ["exc"] => m.exception(pe),
            ["el", el] => m.go_to(pe, number(el) as u8),
            ["reset"] => m.reset(pe),
            ["msr", register, what] => m.write(pe, sysreg(register), register_value(what)),
            ["id", "bbm", level] => (0..2).for_each(|pe| m.identify(pe, IdRegister::Mmfr2, number(level) << 52)),
            ["id", "ets2"] => (0..2).for_each(|pe| m.identify(pe, IdRegister::Mmfr1, 2 << 36)),
            ["read", va, pa] => m.access(pe, address(va), frame(pa), AccessKind::Load),
            ["write", va, pa] => m.access(pe, address(va), frame(pa), AccessKind::Store),
            ["fetch", va, pa] => m.access(pe, address(va), frame(pa), AccessKind::Fetch),
            ["claim", va, size] => {
                m.hint(pe, Hint::FlushClaimed { start: address(va), size: number(size), asid: ASID as u16 });
            }
            ["free", what] => m.hint(pe, Hint::FrameFreed { pa: table(what), size: 0x1000 }),
            ["tlbi", ..] => tlbi(m, pe, &words[1..]),
            _ => panic!("no statement: {statement}"),
        }
    }
}

/// Two PEs with the tables in memory and their MMUs off.
pub fn tables() -> Machine {
    let mut m = Machine::new(Config::default());
    let pages =
        "str root.0 table:l1; str pud table:l2; str pmd table:t; str pte page:0; str pte1 page:1; str other.0 table:l1";
    run(&mut m, pages);
    m
}

/// Two PEs in the address space, under [`ASID`].
pub fn el1() -> Machine {
    let mut m = tables();
    for pe in 0..2 {
        m.run_in(pe, ROOT, ASID as u16);
    }
    m
}

/// Two PEs at EL2 with the tables in TTBR0_EL2; with two halves and ASIDs if `vhe`.
pub fn el2(vhe: bool) -> Machine {
    let mut m = tables();
    for pe in 0..2 {
        m.go_to(pe, 2);
        let (hcr, tcr, ttbr) = if vhe { (1 << 34 | 1 << 27, TCR, ROOT | ASID << 48) } else { (0, 16, ROOT) };
        for (register, value) in
            [(Sysreg::HcrEl2, hcr), (Sysreg::TcrEl2, tcr), (Sysreg::Ttbr0El2, ttbr), (Sysreg::SctlrEl2, 1)]
        {
            m.write(pe, register, value);
        }
        m.isb(pe);
    }
    m
}

/// Two PEs at EL1 under stage 2 with VMID 3, stage 1 off: IPA 0 and the page after it are mapped by `s2t`, `s2root` is two
/// tables at level 1.
pub fn guest() -> Machine {
    let mut m = tables();
    run(&mut m, "str s2root.0 table:s2l2; str s2l2.0 table:s2t; str s2t.0 s2page:0; str s2t.1 s2page:1");
    run(&mut m, "str s2other.0 table:s2l2");
    for pe in 0..2 {
        m.go_to(pe, 2);
        for (register, value) in
            [(Sysreg::VtcrEl2, 24 | 1 << 6), (Sysreg::VttbrEl2, table("s2root") | 3 << 48), (Sysreg::HcrEl2, 1)]
        {
            m.write(pe, register, value);
        }
        m.go_to(pe, 1);
    }
    m
}

/// The verdicts of a sequence: `remade no-invalidation @0 level 3`, the address as an offset to [`VA`] if it is there.
pub fn verdicts(m: &mut Machine, sequence: &str) -> BTreeSet<String> {
    run(m, sequence);
    let text = |v: tlbsan::report::Violation| {
        let offset = if v.start >= VA { v.start - VA } else { v.start };
        format!("{} {} @{offset:x} level {}", v.kind, v.cause, v.level)
    };
    let errors = m.take_violations().into_iter().filter(|v| v.severity == tlbsan::report::Severity::Error);
    errors.map(text).collect()
}

/// A rule's twins: the broken form gives exactly these verdicts, the right one none. `setup` makes the machine.
pub fn twins(setup: impl Fn() -> Machine, pairs: &[(&str, &[&str])]) {
    for (sequence, expected) in pairs {
        let seen = verdicts(&mut setup(), sequence);
        let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(seen, expected, "\n  {sequence}\n");
    }
}
