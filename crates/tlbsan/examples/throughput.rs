//! How many events a second the model takes, with how many stale entries open, and in how much memory.
//!
//! `cargo run --release -p tlbsan --example throughput [EVENTS]`. The events are those of a kernel that unmaps and maps pages
//! properly, with loads between, beside pages that it has unmapped and never invalidated.

use std::collections::HashMap;
use std::time::Instant;
use tlbi::{Asid, Dsb, Op, Target, VirtAddr};
use tlbsan::sim::TCR;
use tlbsan::{Config, Event, Model, Sysreg, What, World};

const PAGE: u64 = 0xf43;
const ASID: u16 = 7;
/// Leaf tables lie here, one after the other.
const TABLES: u64 = 0x100_0000;

/// Memory as an array.
struct Memory {
    words: Vec<u64>,
}

impl World for Memory {
    fn load(&self, pa: u64) -> Option<u64> {
        self.words.get((pa / 8) as usize).copied()
    }
    fn stack(&self) -> Vec<u64> {
        Vec::new()
    }
    fn watch(&mut self, _: u64, _: bool) {}
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn measure(open: u64, events: u64) {
    let tables = open / 512 + 2;
    let mut memory = Memory { words: vec![0; ((TABLES + tables * 0x1000) / 8) as usize] };
    memory.words[0x1000 / 8] = 0x2003;
    memory.words[0x2000 / 8] = 0x3003;
    for table in 0..tables {
        memory.words[(0x3000 / 8 + table) as usize] = (TABLES + table * 0x1000) | 3;
        for slot in 0..512 {
            memory.words[((TABLES + table * 0x1000) / 8 + slot) as usize] =
                ((1 + table * 512 + slot) << 28 & 0xffff_ffff_f000) | PAGE;
        }
    }
    let before = peak_kib();
    let mut model = Model::new(Config::default());
    let mut tell = |memory: &mut Memory, pe: usize, what: What| {
        model.event(memory, &Event { pe, pc: 0x1000, what });
    };
    for pe in 0..4 {
        for (register, value) in
            [(Sysreg::TcrEl1, TCR), (Sysreg::Ttbr0El1, 0x1000 | u64::from(ASID) << 48), (Sysreg::SctlrEl1, 1)]
        {
            tell(&mut memory, pe, What::Sysreg(register, value));
        }
        tell(&mut memory, pe, What::Isb);
    }
    for n in 0..open {
        let pa = TABLES + n * 8;
        memory.words[(pa / 8) as usize] = 0;
        tell(&mut memory, 0, What::Store { pa, size: 8 });
    }
    let last = TABLES + (tables - 1) * 0x1000;
    let start = Instant::now();
    let mut told = 0;
    while told < events {
        let (slot, pe) = (told / 8 % 512, (told / 8 % 4) as usize);
        let pa = last + slot * 8;
        let va = VirtAddr::new(((tables - 1) << 21) + (slot << 12));
        let old = memory.words[(pa / 8) as usize];
        let tlbi = Op::inner(Target::Va { va, asid: Some(Asid::new(ASID)), leaf_only: true, ttl: 0 });
        memory.words[(pa / 8) as usize] = 0;
        tell(&mut memory, pe, What::Store { pa, size: 8 });
        tell(&mut memory, pe, What::Dsb(Dsb::Ishst));
        tell(&mut memory, pe, What::Tlbi(tlbi));
        tell(&mut memory, pe, What::Dsb(Dsb::Ish));
        tell(&mut memory, pe, What::Isb);
        tell(&mut memory, (pe + 1) % 4, What::Load { pa, size: 8 });
        memory.words[(pa / 8) as usize] = old;
        tell(&mut memory, pe, What::Store { pa, size: 8 });
        tell(&mut memory, (pe + 1) % 4, What::Load { pa, size: 8 });
        told += 8;
    }
    let seconds = start.elapsed().as_secs_f64();
    let counts: HashMap<&str, u64> =
        [("opened", model.residues().counts().0), ("cleaned", model.residues().counts().1)].into();
    println!(
        "{open:>6} open: {:>6.2} M events/s, {} MiB for the model; {counts:?}, {} violations",
        told as f64 / seconds / 1e6,
        (peak_kib().saturating_sub(before)) / 1024,
        model.take_records().len() - 1,
    );
}

fn main() {
    let events = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(4_000_000);
    for open in [0, 64, 4096, 65_536] {
        measure(open, events);
    }
}
