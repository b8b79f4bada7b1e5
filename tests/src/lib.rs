//! Runs the firmware under QEMU, with the checker or without, and reads what came of it.
//!
//! Expects what `make build` makes, and says so where it is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tlbsan::report::{CaseResult, Record, Summary, Violation};

/// The machine that the firmware is started on.
#[derive(Clone, Debug)]
pub struct Board {
    /// QEMU's name of the CPU.
    pub cpu: &'static str,
    /// Cores.
    pub cores: usize,
    /// Added to `-M virt,gic-version=3`.
    pub machine: &'static str,
    /// What the firmware is told.
    pub append: String,
    /// More arguments for QEMU.
    pub qemu: Vec<&'static str>,
    /// Arguments for tlbsan.
    pub tlbsan: Vec<&'static str>,
    /// Accesses that go, on purpose, where neither the tables nor anything stale leads.
    pub mismatched: u64,
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code.
    pub code: Option<i32>,
    /// What a person saw.
    pub stdout: String,
    /// What a person saw of errors.
    pub stderr: String,
    /// The records of the checker.
    pub records: Vec<Record>,
}

/// Seconds after which the host cuts a run: far more than any takes.
const LIMIT: &str = "120";

impl Board {
    /// A board that runs `append`.
    pub fn new(cpu: &'static str, cores: usize, append: &str) -> Self {
        Self { cpu, cores, machine: "", append: append.to_owned(), qemu: Vec::new(), tlbsan: Vec::new(), mismatched: 0 }
    }

    fn qemu_arguments(&self, append: &str) -> Vec<String> {
        let machine = format!("virt,gic-version=3{}", self.machine);
        let cores = self.cores.to_string();
        let image = artifact("aarch64-unknown-none-softfloat/release/firmware.img");
        let mut arguments: Vec<String> = [
            "-M",
            &machine,
            "-cpu",
            self.cpu,
            "-smp",
            &cores,
            "-m",
            "256M",
            "-nographic",
            "-nic",
            "none",
            "-semihosting-config",
            "enable=on,target=native",
            "-kernel",
            &image.to_string_lossy(),
            "-append",
            append,
        ]
        .map(str::to_owned)
        .into();
        arguments.extend(self.qemu.iter().map(|word| (*word).to_owned()));
        arguments
    }

    /// Runs it under the checker.
    ///
    /// # Panics
    /// If the checker's walk of the tables and QEMU's disagree on an access, or none was compared.
    pub fn run(&self) -> Outcome {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let json = std::env::temp_dir().join(format!("tlbsan-{}-{number}.json", std::process::id()));
        let mut command = Command::new(artifact("release/tlbsan"));
        command.args(["run", "--timeout", LIMIT, "--symbols"]);
        command.arg(artifact("aarch64-unknown-none-softfloat/release/firmware"));
        command.arg("--json").arg(&json).args(&self.tlbsan).arg("--");
        command.args(self.qemu_arguments(&format!("tlbsan {}", self.append)));
        let outcome = Outcome::of(command, &json);
        let _ = std::fs::remove_file(&json);
        let summary = outcome.summary();
        assert!(summary.accesses > 0, "no access was compared\n{}", outcome.stdout);
        assert_eq!(summary.mismatched, self.mismatched, "of {} accesses\n{}", summary.accesses, outcome.stdout);
        outcome
    }

    /// Runs it on QEMU alone.
    pub fn run_plain(&self) -> Outcome {
        let mut command = Command::new("timeout");
        command.args([LIMIT, "qemu-system-aarch64"]).args(self.qemu_arguments(&self.append));
        Outcome::of(command, Path::new("/dev/null"))
    }
}

impl Outcome {
    fn of(mut command: Command, json: &Path) -> Self {
        let output = command.current_dir(root()).stdin(Stdio::null()).env("NO_COLOR", "1").output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = std::fs::read_to_string(json).unwrap_or_default();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            records: lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
        }
    }

    /// Fails the test with all that was seen unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The cases that ended, by their test point.
    pub fn cases(&self) -> Vec<&CaseResult> {
        fn case(record: &Record) -> Option<&CaseResult> {
            if let Record::Case(case) = record { Some(case) } else { None }
        }
        self.records.iter().filter_map(case).collect()
    }

    /// The stories.
    pub fn violations(&self) -> Vec<&Violation> {
        fn violation(record: &Record) -> Option<&Violation> {
            if let Record::Violation(violation) = record { Some(violation) } else { None }
        }
        self.records.iter().filter_map(violation).collect()
    }

    /// The last record.
    pub fn summary(&self) -> &Summary {
        fn end(record: &Record) -> Option<&Summary> {
            if let Record::End(summary) = record { Some(summary) } else { None }
        }
        self.records.iter().find_map(end).unwrap_or_else(|| panic!("no end record\n{}\n{}", self.stdout, self.stderr))
    }

    /// Whether a line of the output starts so.
    pub fn has_line(&self, start: &str) -> bool {
        self.stdout.lines().any(|line| line.trim_start().starts_with(start))
    }
}

/// The project's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A file that `make build` makes.
fn artifact(path: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), |dir| root().join(dir));
    let file = target.join(path);
    assert!(file.exists(), "{} is missing: run `make build` first", file.display());
    file
}
