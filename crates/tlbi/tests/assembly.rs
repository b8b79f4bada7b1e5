//! What the compiler makes of one page: a tiny crate for the bare-metal target, compiled and read.

use std::path::{Path, PathBuf};
use std::process::Command;
use tlbi::{Dsb, Mnemonic};

const TARGET: &str = "aarch64-unknown-none-softfloat";

/// The functions that are read. A kernel that knows its CPU at compile time; the page and the ASID come at run time.
const SOURCE: &str = r#"
#![no_std]
use tlbi::*;

pub struct Pin;
unsafe impl Pinned for Pin {}

const SIXTEEN: Features = Features { asid_bits: 16, ..Features::NONE };
const MODERN: Features = Features { asid_bits: 16, ets2: true, ttl: true, range: true, xs: true, ..Features::NONE };
const REPEAT: Features = Features { errata: Errata { repeat_tlbi: true, ..Errata::NONE }, ..SIXTEEN };

#[inline(always)]
fn issue(features: Features, inv: Invalidation) {
    let tlb = Tlb::new(unsafe { Hardware::new() }, features);
    tlb.invalidate(&Pin, &inv).sync();
}

#[inline(always)]
fn page(va: u64, asid: u16) -> Invalidation {
    Invalidation::page(Asid::new(asid), VirtAddr::new(va), Level::L3, Depth::Leaf)
}

#[unsafe(no_mangle)]
pub fn user_page(va: u64, asid: u16) { issue(SIXTEEN, page(va, asid)) }
#[unsafe(no_mangle)]
pub fn user_page_hinted(va: u64, asid: u16) { issue(MODERN, page(va, asid)) }
#[unsafe(no_mangle)]
pub fn user_page_nxs(va: u64, asid: u16) { issue(MODERN, page(va, asid).nxs()) }
#[unsafe(no_mangle)]
pub fn user_page_local(va: u64, asid: u16) { issue(MODERN, page(va, asid).local()) }
#[unsafe(no_mangle)]
pub fn user_page_kpti(va: u64, asid: u16) { issue(SIXTEEN, page(va, asid).kpti()) }
#[unsafe(no_mangle)]
pub fn user_page_repeated(va: u64, asid: u16) { issue(REPEAT, page(va, asid)) }
#[unsafe(no_mangle)]
pub fn freed_table(va: u64, asid: u16) {
    issue(MODERN, Invalidation::page(Asid::new(asid), VirtAddr::new(va), Level::L2, Depth::Full))
}
#[unsafe(no_mangle)]
pub fn kernel_page(va: u64) { issue(MODERN, Invalidation::global_page(VirtAddr::new(va), Level::L3, Depth::Leaf)) }
#[unsafe(no_mangle)]
pub fn hyp_page(va: u64) {
    issue(MODERN, Invalidation::global_page(VirtAddr::new(va), Level::L3, Depth::Leaf).el2())
}
#[unsafe(no_mangle)]
pub fn planned(inv: &Invalidation, features: &Features) -> u64 {
    plan(inv, features).fold(0, |sum, op| sum ^ op.operand())
}
#[unsafe(no_mangle)]
pub fn divided(a: u64, b: u64) -> u64 { if b == 0 { 0 } else { a / b } }
#[unsafe(no_mangle)]
pub fn with_a_branch(va: u64, asid: u16, ets2: bool) { issue(Features { ets2, ..SIXTEEN }, page(va, asid)) }
"#;

const FUNCTIONS: &[(&str, &[&str])] = &[
    ("user_page", &["dsb ishst", "tlbi vale1is", "dsb ish", "isb"]),
    ("user_page_hinted", &["dsb ishst", "tlbi vale1is", "dsb ish"]),
    ("user_page_nxs", &["dsb ishst", "tlbi vale1isnxs", "dsb ishnxs"]),
    ("user_page_local", &["dsb nshst", "tlbi vale1", "dsb nsh"]),
    ("user_page_kpti", &["dsb ishst", "tlbi vale1is", "tlbi vale1is", "dsb ish", "isb"]),
    ("user_page_repeated", &["dsb ishst", "tlbi vale1is", "dsb ish", "tlbi vale1is", "dsb ish", "isb"]),
    ("freed_table", &["dsb ishst", "tlbi vae1is", "dsb ish"]),
    ("kernel_page", &["dsb ishst", "tlbi vaale1is", "dsb ish", "isb"]),
    ("hyp_page", &["dsb ishst", "tlbi vale2is", "dsb ish", "isb"]),
];

/// Compiles with rustc alone, in a folder of its own: the crate has no dependencies.
fn compile(folder: &str) -> String {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    std::fs::create_dir_all(&out).expect("a folder for the output");
    let source = out.join("pages.rs");
    std::fs::write(&source, SOURCE).expect("the source is written");
    let library = out.join("libtlbi.rlib");
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    rustc("tlbi", &lib, &["--crate-type=rlib", "--emit=link", "-o", &shown(&library)]);
    let text = out.join("pages.s");
    let external = format!("tlbi={}", library.display());
    let options = ["--crate-type=lib", "--emit=asm", "-Ccodegen-units=1", "--extern", &external, "-o", &shown(&text)];
    rustc("pages", &source, &options);
    std::fs::read_to_string(text).expect("the assembly is there")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn rustc(name: &str, source: &Path, options: &[&str]) {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let output = Command::new(rustc)
        .args(["--edition=2024", "--target", TARGET, "-Copt-level=3", "--crate-name", name])
        .args(options)
        .arg(source)
        .output()
        .expect("rustc starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !errors.contains("can't find crate for `core`"),
        "install target {TARGET}: rustup target add {TARGET}\n{errors}"
    );
    assert!(output.status.success(), "{errors}");
}

/// The instructions of a function, one a line.
fn body<'a>(assembly: &'a str, function: &str) -> Vec<&'a str> {
    let start = format!("\n{function}:\n");
    let after = assembly.split(&start).nth(1).unwrap_or_else(|| panic!("no {function} in the assembly"));
    let end = after.find(".Lfunc_end").expect("the function ends");
    after[..end]
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.ends_with(':'))
        .filter(|line| !line.starts_with('.') || line.starts_with(".inst"))
        .collect()
}

fn is_branch(instruction: &str) -> bool {
    let mnemonic = instruction.split_whitespace().next().unwrap_or_default();
    matches!(mnemonic, "b" | "bl" | "br" | "blr" | "cbz" | "cbnz" | "tbz" | "tbnz") || mnemonic.starts_with("b.")
}

/// The instruction, if it is a barrier or a TLBI.
fn maintenance(instruction: &str) -> Option<String> {
    let (mnemonic, operands) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
    match mnemonic {
        "isb" => Some("isb".to_owned()),
        // The compiler shows what every CPU has by name.
        "tlbi" => Some(format!("tlbi {}", operands.split(',').next().unwrap_or_default().trim())),
        ".inst" => {
            let word = u32::from_str_radix(operands.trim().trim_start_matches("0x"), 16).expect("a word");
            Some(Dsb::from_insn(word).expect("a DSB").to_string())
        }
        "sys" => {
            let number = |text: &str| text.trim().trim_start_matches(['#', 'c']).parse::<u32>().ok();
            let fields: Vec<u32> = operands.split(',').take(4).filter_map(number).collect();
            let [op1, crn, crm, op2] = fields[..] else { panic!("{instruction}") };
            let word = 0xd508_0000 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5;
            let known = [word, word | 31].into_iter().find_map(Mnemonic::from_insn);
            Some(format!("tlbi {}", known.expect("a TLBI").0))
        }
        _ => None,
    }
}

#[test]
fn one_page_that_branches_or_loses_an_instruction() {
    let assembly = compile("straight");
    for (function, expected) in FUNCTIONS {
        let body = body(&assembly, function);
        let branches: Vec<&&str> = body.iter().filter(|line| is_branch(line)).collect();
        assert!(branches.is_empty(), "{function}: {body:#?}");
        assert_eq!(body.iter().filter(|line| **line == "ret").count(), 1, "{function}: {body:#?}");
        let issued: Vec<String> = body.iter().filter_map(|line| maintenance(line)).collect();
        assert_eq!(issued, *expected, "{function}");
        assert!(body.len() <= expected.len() + 10, "{function}: {} instructions: {body:#?}", body.len());
    }
    // The reading itself: a function that must branch is seen to.
    assert!(body(&assembly, "with_a_branch").iter().any(|line| is_branch(line)));
}

#[test]
fn a_division_or_a_panic_in_planning() {
    let assembly = compile("planning");
    // Functions that were not inlined count as well: the whole file but for the one that divides, to show that it is seen.
    let divisions =
        |lines: &[&str]| lines.iter().filter(|line| line.starts_with("udiv") || line.starts_with("sdiv")).count();
    let all: Vec<&str> = assembly.lines().map(str::trim).collect();
    assert_eq!((divisions(&body(&assembly, "divided")), divisions(&all)), (1, 1));
    assert!(!body(&assembly, "planned").is_empty());
    let panics: Vec<&&str> = all.iter().filter(|line| line.contains("panic")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
}
