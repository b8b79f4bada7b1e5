//! The packaged assembler, and numbers that look random and are the same in every run.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::io::Write;
use std::process::{Command, Stdio};

/// An `llvm-mc` of any version on PATH.
pub fn llvm_mc() -> String {
    let versions = (11..=30).rev().map(|version| format!("llvm-mc-{version}"));
    std::iter::once("llvm-mc".to_owned())
        .chain(versions)
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
        .expect("no llvm-mc on PATH: install package llvm")
}

/// What the assembler makes of each line, in one call.
pub fn assemble(lines: &[String]) -> Vec<u32> {
    let mut child = Command::new(llvm_mc())
        .args(["-triple=aarch64", "-mattr=+v8.7a,+tlb-rmi,+xs,+rme", "-show-encoding"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("llvm-mc starts");
    let text = lines.join("\n") + "\n";
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("llvm-mc ends");
    writer.join().expect("no panic").expect("llvm-mc reads");
    assert!(output.status.success(), "llvm-mc: {}", String::from_utf8_lossy(&output.stderr));
    let words: Vec<u32> = String::from_utf8_lossy(&output.stdout).lines().filter_map(word).collect();
    assert_eq!(words.len(), lines.len(), "one word a line");
    words
}

/// `... // encoding: [0x23,0x93,0x08,0xd5]`.
fn word(line: &str) -> Option<u32> {
    let bytes = line.split("encoding: [").nth(1)?.split(']').next()?;
    let bytes: Vec<u8> = bytes
        .split(',')
        .map(|byte| u8::from_str_radix(byte.trim().trim_start_matches("0x"), 16).expect("a byte"))
        .collect();
    Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..n.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
