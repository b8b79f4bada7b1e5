//! The hints for C: a kernel built by a C compiler gives each of them, and the checker takes it as it was meant.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tlbsan::report::{Claim, Record, Verdict, Violation};
use tlbsan::{Cause, Kind};

const WINDOW: u64 = 0x8000_0000;

struct Ran {
    code: Option<i32>,
    stdout: String,
    records: Vec<Record>,
}

/// The kernel under tlbsan.
fn run(name: &str, cpu: &str, options: &[&str]) -> Ran {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is a part of the project");
    let made = |path: &str| -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |dir| root.join(dir));
        let file = target.join(path);
        assert!(
            file.exists(),
            "{} is missing: run `make build` and `script/c-kernel target/c-kernel.elf`",
            file.display()
        );
        file
    };
    let kernel = made("c-kernel.elf");
    let json = std::env::temp_dir().join(format!("tlbsan-c-{}-{name}.json", std::process::id()));
    let mut command = Command::new(made("release/tlbsan"));
    command.args(["run", "--timeout", "60", "--color", "never", "--symbols"]).arg(&kernel);
    command.arg("--json").arg(&json).args(options);
    command.args(["--", "-M", "virt", "-m", "128M", "-nographic", "-nic", "none", "-cpu", cpu, "-kernel"]).arg(&kernel);
    let output = command.current_dir(root).stdin(Stdio::null()).output().expect("tlbsan starts");
    let lines = std::fs::read_to_string(&json).unwrap_or_default();
    let _ = std::fs::remove_file(&json);
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        records: lines.lines().map(|line| serde_json::from_str(line).expect("a record")).collect(),
    }
}

impl Ran {
    fn violations(&self) -> Vec<&Violation> {
        fn violation(record: &Record) -> Option<&Violation> {
            if let Record::Violation(violation) = record { Some(violation) } else { None }
        }
        self.records.iter().filter_map(violation).collect()
    }
}

#[test]
fn every_hint_is_taken_as_it_was_meant() {
    for cpu in ["cortex-a57", "max"] {
        let ran = run(cpu, cpu, &["--stories"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stdout);
        assert!(ran.stdout.contains("# tlbsan: silent; 1 stale entry opened, 1 cleaned"), "{}", ran.stdout);
        assert!(ran.stdout.contains("4 cases, 4 passed"), "{}", ran.stdout);
        let page = |cause| Verdict { kind: Kind::Claimed, cause, start: WINDOW, size: 4096, level: 3 };
        let table = Verdict { kind: Kind::Remade, cause: Cause::LeafOnly, start: WINDOW, size: 2 << 20, level: 2 };
        let violations = ran.violations();
        assert_eq!(
            violations.iter().map(|v| Verdict::from(*v)).collect::<Vec<_>>(),
            [page(Cause::NoInvalidation), page(Cause::WrongRange), table]
        );
        assert!(matches!(violations[0].claim, Some(Claim::FrameFreed { size: 4096, .. })), "{:#?}", violations[0]);
        assert_eq!(violations[1].claim, Some(Claim::FlushClaimed { start: WINDOW, size: 4096, asid: 1 }));
        let label = violations[0].trigger.label.as_deref();
        assert_eq!(label, Some("free_before_flush: the frame is not flushed yet"));
    }
}

#[test]
fn stories_name_functions_and_lines_of_c() {
    let ran = run("stories", "cortex-a57", &["--stories"]);
    for told in [
        "store at tests/c-kernel/kernel.c:",
        "replace_table at tests/c-kernel/kernel.c:",
        "flush_leaf at tests/c-kernel/kernel.c:",
        "in \"free_before_flush: the frame is not flushed yet\"",
        "kernel_main at tests/c-kernel/kernel.c:",
        "hint frame_freed",
    ] {
        assert!(ran.stdout.contains(told), "{told}\n{}", ran.stdout);
    }
}

#[test]
fn without_hints_the_bug_is_found_and_claims_are_not() {
    let ran = run("no-hints", "cortex-a57", &["--ignore-hints"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    let kinds: Vec<Kind> = ran.violations().iter().map(|v| v.kind).collect();
    assert_eq!(kinds, [Kind::Remade]);
}
