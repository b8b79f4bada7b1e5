//! From text to statements. A sequence that makes no sense is a mistake in the list: it panics with the words.

use crate::{
    ASID, Access, Area, HCR_RW, MAIR, Need, Register, SCTLR_MMU, Statement, Step, TABLES, VA, Value, Written, span,
};
use tlbi::{Dsb, Mnemonic};
use tlbsan_hint::{Cause, Expected, Kind};

fn number(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("no hexadecimal number: {text}"))
}

pub(crate) fn sequence(text: &str) -> Vec<Statement> {
    let text = unfold(text);
    text.split(';').map(str::trim).filter(|text| !text.is_empty()).map(statement).collect()
}

/// Writes `10{str t.% 0}` sixteen times.
fn unfold(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let (inside, after) = rest.split_once('}').unwrap_or_else(|| panic!("no end of {{: {text}"));
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_hexdigit()).len();
    let (before, times) = before.split_at(before.len() - digits);
    let copies: String = (0..number(times)).map(|n| inside.replace('%', &format!("{n:x}")) + "; ").collect();
    format!("{before}{copies}{}", unfold(after))
}

fn statement(text: &str) -> Statement {
    let (pe, text) = match text.split_once(": ") {
        Some((pe, rest)) => (number(pe) as usize, rest),
        None => (0, text),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let step = match words[..] {
        ["str", at, what] => Step::Store(slot(at), value(what)),
        ["ldr", at] => Step::Load(slot(at)),
        ["zva", what] => Step::Zero(table(what)),
        ["dsb", option] => {
            let dsb = Dsb::ALL.iter().find(|dsb| dsb.option() == option);
            Step::Dsb(*dsb.unwrap_or_else(|| panic!("no DSB {option}")))
        }
        ["isb"] => Step::Isb,
        ["eret"] => Step::Eret,
        ["exc"] => Step::Exception,
        ["el", el] => Step::El(number(el) as u8),
        ["reset"] => Step::Reset(1),
        ["reset", el] => Step::Reset(number(el) as u8),
        ["msr", name, what] => written(name, what),
        ["id", "bbm", level] => Step::Need(Need::Bbm(number(level) as u8)),
        ["id", "ets2", there] => Step::Need(Need::Ets2(there == "1")),
        ["read", va, pa] => Step::Access(Access::Read, address(va), output(pa)),
        ["write", va, pa] => Step::Access(Access::Write, address(va), output(pa)),
        ["fetch", va, pa] => Step::Access(Access::Fetch, address(va), output(pa)),
        ["claim", va, size] => Step::Claim(address(va), number(size)),
        ["free", what] => Step::Free(table(what)),
        ["tlbi", name, ref operands @ ..] => tlbi(name, operands),
        _ => panic!("no statement: {text}"),
    };
    Statement { pe, step }
}

fn table(name: &str) -> Value {
    let found = TABLES.iter().find(|(known, _)| *known == name);
    Value { area: Area::Tables, bits: found.unwrap_or_else(|| panic!("no table {name}")).1 }
}

/// `pte`, `pte3`, `t2.5`, `s2t.0`.
fn slot(name: &str) -> Value {
    let entry = |name, index: u64| {
        let table = table(name);
        Value { bits: table.bits + 8 * index, ..table }
    };
    if let Some((name, index)) = name.split_once('.') {
        return entry(name, number(index));
    }
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[kind.len()..];
    let index = if digits.is_empty() { 0 } else { number(digits) };
    match kind {
        "pud" => entry("l1", (VA >> 30 & 511) + index),
        "pmd" => entry("l2", (VA >> 21 & 511) + index),
        "pte" => entry("t", (VA >> 12 & 511) + index),
        other => panic!("no slot {other}"),
    }
}

/// `frame:2`, `block:1`, each with an offset.
fn frame(text: &str) -> Value {
    let (what, offset) = text.split_once('+').unwrap_or((text, "0"));
    match what.split_once(':') {
        Some(("frame", n)) => Value { area: Area::Frames, bits: number(n) * 0x1000 + number(offset) },
        Some(("block", n)) => Value { area: Area::Blocks, bits: number(n) * 0x20_0000 + number(offset) },
        _ => panic!("no frame: {text}"),
    }
}

fn output(text: &str) -> Option<Value> {
    (text != "fault").then(|| frame(text))
}

/// `0`, `page:1`, `page:empty`, `block:2`, `table:t2`, with letters for attributes after a comma.
fn value(text: &str) -> Value {
    let (what, letters) = text.split_once(',').unwrap_or((text, ""));
    let named = |n: &str| TABLES.iter().any(|(name, _)| *name == n);
    let (place, mut bits) = match what.split_once(':') {
        Some(("table", name)) => (table(name), 3),
        // AF, nG, inner shareable, EL0, writable.
        Some(("page", name)) if named(name) => (table(name), 0xf43),
        Some(("page", n)) => (frame(&format!("frame:{n}")), 0xf43),
        Some(("block", n)) => (frame(&format!("block:{n}")), 0xf41),
        // A page that continues block 0.
        Some(("part", n)) => (frame(&format!("block:0+{:x}", number(n) * 0x1000)), 0xf43),
        // Stage 2: AF, readable and writable, normal memory.
        Some(("s2page", n)) => (frame(&format!("frame:{n}")), 0x7ff),
        Some(("s2block", n)) => (frame(&format!("block:{n}")), 0x7fd),
        _ => (Value { area: Area::Nowhere, bits: 0 }, number(what)),
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
            'u' => bits &= !(0xe << 2),
            'm' => bits |= 1 << 51,
            'h' => bits |= 1 << 61,
            'l' => bits &= !(3 << 8),
            _ => panic!("no attribute {letter}"),
        }
    }
    Value { bits: place.bits + bits, ..place }
}

/// `va+1000`, `ipa+0`.
fn address(text: &str) -> u64 {
    let (base, offset) = text.split_once('+').unwrap_or((text, "0"));
    match base {
        "va" => VA + number(offset),
        "ipa" => number(offset),
        _ => number(base),
    }
}

/// `msr ttbr0_el1 a9.root2.cnp`, `msr tcr_el1 t0sz=19,a1=1`, `msr sctlr_el1 off`, `msr sctlr_el1 on,wxn=1`,
/// `msr mair_el1 attr0=44`, `msr hcr_el2 e2h+tge`.
fn written(name: &str, text: &str) -> Step {
    let register = Register::ALL.iter().find(|register| register.name() == name);
    let register = *register.unwrap_or_else(|| panic!("no register {name}"));
    let plain = |bits| Written::Value(Value { area: Area::Nowhere, bits });
    let written = match register {
        Register::SctlrEl1 | Register::SctlrEl2 => match text.split_once(',') {
            None if text == "off" => Written::Bits { clear: SCTLR_MMU, set: 0 },
            None if text == "on" => Written::Bits { clear: 0, set: 0 },
            Some(("on", text)) => fields(register, text),
            _ => panic!("neither on nor off: {text}"),
        },
        Register::TcrEl1 | Register::TcrEl2 | Register::VtcrEl2 => fields(register, text),
        Register::MairEl1 => {
            let change = text.strip_prefix("attr").and_then(|text| text.split_once('='));
            let (index, attribute) = change.unwrap_or_else(|| panic!("no change of MAIR: {text}"));
            let shift = 8 * number(index);
            plain(MAIR & !(0xff << shift) | number(attribute) << shift)
        }
        Register::HcrEl2 => {
            let bit = |word| match word {
                "e2h" => 1 << 34,
                "tge" => 1 << 27,
                "vm" => 1,
                "fb" => 1 << 9,
                // Inner shareable at least.
                "bsu" => 1 << 10,
                _ => panic!("no bit of HCR: {word}"),
            };
            plain(text.split('+').map(bit).fold(HCR_RW, |all, bit| all | bit))
        }
        _ => {
            let mut parts = text.strip_prefix('a').unwrap_or_else(|| panic!("no root: {text}")).split('.');
            let asid = number(parts.next().unwrap_or(""));
            let root = table(parts.next().unwrap_or(""));
            let cnp = u64::from(parts.next() == Some("cnp"));
            Written::Value(Value { bits: root.bits + (asid << 48 | cnp), ..root })
        }
    };
    Step::Write(register, written)
}

/// `t0sz=19,a1=1`: fields of the machine's own value.
fn fields(register: Register, text: &str) -> Written {
    let (mut clear, mut set) = (0, 0);
    for field in text.split(',') {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let known = register.fields().iter().find(|(known, ..)| *known == name);
        let (_, lsb, width) = known.unwrap_or_else(|| panic!("no field of {}: {text}", register.name()));
        clear |= ((1 << width) - 1) << lsb;
        set |= number(value) << lsb;
    }
    Written::Bits { clear, set }
}

fn tlbi(name: &str, operands: &[&str]) -> Step {
    let mnemonic = Mnemonic::all().find(|m| m.to_string() == name).unwrap_or_else(|| panic!("no TLBI {name}"));
    let range = mnemonic.form().is_range();
    let tagged = (name.contains("va") && !name.contains("vaa") && !name.contains("vmall")) || name.contains("asid");
    let mut xt = if tagged { u64::from(ASID) << 48 } else { 0 };
    // Of a range: TG, 4 KiB if nothing is said, and what BaseADDR counts: pages, or 64 KiB with DS.
    let tg = operands.iter().find_map(|word| word.strip_prefix("tg=")).map_or(1, number);
    let counts = if operands.contains(&"ds") { 16 } else { 10 + 2 * tg };
    for word in operands {
        if let Some(asid) = word.strip_prefix("asid=") {
            xt = xt & !(0xffff << 48) | number(asid) << 48;
        } else if let Some(ttl) = word.strip_prefix("ttl=") {
            let n = match ttl.split_once('.') {
                Some((tg, level)) => number(tg) << 2 | number(level),
                None => number(ttl),
            };
            xt |= if range { n << 37 } else { n << 44 };
        } else if let Some((start, pages)) = word.split_once('*') {
            // SCALE 0.
            let num = number(pages) / 2 - 1;
            xt |= address(start) >> counts | num << 39 | tg << 46;
        } else if !word.starts_with("tg=") && *word != "ds" {
            xt |= address(word) >> 12 & 0xfff_ffff_ffff;
        }
    }
    Step::Tlbi(mnemonic, xt)
}

/// `remade leaf-only va+0 level 2`, `asid no-invalidation 0 whole`.
pub(crate) fn verdict(text: &str) -> Expected {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (kind, cause, start, rest) = match words[..] {
        [kind, cause, start, ref rest @ ..] => (kind, cause, start, rest),
        _ => panic!("no verdict: {text}"),
    };
    let (level, size) = match *rest {
        ["level", level, ref size @ ..] => {
            let size = match *size {
                [] => None,
                ["size", size] => Some(number(size)),
                _ => panic!("no size: {text}"),
            };
            (level.parse().unwrap_or_else(|_| panic!("no level: {text}")), size)
        }
        ["whole"] => (0, Some(1 << 48)),
        _ => panic!("no level: {text}"),
    };
    Expected {
        kind: Kind::from_name(kind).unwrap_or_else(|| panic!("no rule {kind}")),
        cause: Cause::from_name(cause).unwrap_or_else(|| panic!("no cause {cause}")),
        start: address(start),
        size: size.unwrap_or(span(level)),
        level,
    }
}
