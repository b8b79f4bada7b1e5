//! `tlbsan check`: the records of the run that was recorded, and what is wrong with a trace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tlbi::{Dsb, Op, Target};
use tlbsan::trace::Recorder;
use tlbsan::{Config, Event, Model, Sysreg, What, World};

const ROOT: u64 = 0x1000;
const L3: u64 = 0x2000;

/// Two words of memory: a root with a table, and what its first slot holds.
struct Ram(u64);

impl World for Ram {
    fn load(&self, pa: u64) -> Option<u64> {
        Some(match pa {
            ROOT => L3 | 3,
            L3 => self.0,
            _ => 0,
        })
    }

    fn stack(&self) -> Vec<u64> {
        vec![0x4000_1000]
    }

    fn watch(&mut self, _page: u64, _on: bool) {}
}

/// A page is unmapped and another is mapped in its place; with `flush` after an invalidation. The trace, and its records.
fn run(flush: bool) -> (Vec<u8>, String) {
    let config = Config::default();
    let (mut ram, mut model) = (Ram(0x20_0f43), Model::new(config));
    let mut recorder = Recorder::new(Vec::new(), &config).expect("memory");
    let mut pc = 0x4000_0000;
    let mut tell = |ram: &mut Ram, what| {
        pc += 4;
        recorder.event(&mut model, ram, &Event { pe: 0, pc, what }).expect("memory");
    };
    // 30 bits: two levels, 4 KiB, EPD1.
    for (register, value) in [(Sysreg::TcrEl1, 34 | 1 << 23), (Sysreg::Ttbr0El1, ROOT), (Sysreg::SctlrEl1, 1)] {
        tell(&mut ram, What::Sysreg(register, value));
    }
    tell(&mut ram, What::Isb);
    ram.0 = 0;
    tell(&mut ram, What::Store { pa: L3, size: 8 });
    if flush {
        tell(&mut ram, What::Dsb(Dsb::Ishst));
        tell(&mut ram, What::Tlbi(Op::inner(Target::All)));
        tell(&mut ram, What::Dsb(Dsb::Ish));
    }
    ram.0 = 0x30_0f43;
    tell(&mut ram, What::Store { pa: L3, size: 8 });
    model.finish();
    let records = model.take_records();
    let lines = records.iter().map(|record| serde_json::to_string(record).expect("plain data") + "\n").collect();
    (recorder.finish().expect("memory"), lines)
}

fn check(name: &str, trace: &[u8]) -> (Output, PathBuf) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (path, json) = (folder.join(format!("{name}.trace")), folder.join(format!("{name}.json")));
    fs::write(&path, trace).expect("a file");
    let _ = fs::remove_file(&json);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlbsan"));
    let output = command.arg("check").arg("--json").arg(&json).arg(&path).output().expect("it starts");
    (output, json)
}

#[test]
fn the_records_are_those_of_the_run() {
    for (name, flush, code) in [("clean", true, 0), ("violation", false, 1)] {
        let (trace, records) = run(flush);
        let (output, json) = check(name, &trace);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        let found = fs::read_to_string(json).expect("records");
        assert_eq!(found.strip_prefix(&records).map(|outcome| outcome.lines().count()), Some(1), "{found}");
        assert_eq!(told.contains("remade"), !flush, "{told}");
    }
}

#[test]
fn a_trace_cut_off_is_told_with_the_place_after_what_it_says() {
    let (trace, _) = run(false);
    for len in [0, 10, trace.len() - 1] {
        let (output, _) = check("short", &trace[..len]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("cut off at byte {len}")), "{text}");
    }
    let (output, _) = check("none", b"\x7fELF\x02\x01\x01");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no trace of tlbsan"));
}
