//! What the model costs: events replayed a second with few and with many residues open, and its memory for a long trace.
//!
//! The trace is what a kernel does that maps and unmaps pages: clear, DSB, TLBI, DSB, ISB, set, DSB, ISB. Before it begins, as many
//! other pages are unmapped and not invalidated as residues are to stay open. Writes target/bench/replay.json; fails on no figure.

#[allow(dead_code, reason = "each benchmark uses its part")]
mod report;

use report::Figure;
use std::collections::HashMap;
use std::error::Error;
use std::process::Command;
use std::time::Instant;
use tlbi::{Asid, Dsb, Op, Target, VirtAddr};
use tlbsan::trace::{Recorder, Replay};
use tlbsan::{Config, Event, Model, Sysreg, What, World};

/// Events of a trace, those that set it up aside.
const EVENTS: usize = 1_000_000;
/// Of so many runs the best counts.
const RUNS: usize = 5;
/// Residues open, with the events a second that were promised.
const OPEN: [(usize, f64); 2] = [(64, 5e6), (65_536, 2.5e6)];
/// MiB that the model may take for [`EVENTS`] events.
const MEMORY: f64 = 64.0;

const ROOT: u64 = 0x4000_0000;
/// 16 tables of level 2 could follow; one is enough for 512 tables of level 3, and the churn has one of its own.
const MIDDLE: u64 = ROOT + 0x2000;
const LEAVES: u64 = ROOT + 0x10_0000;
const CHURN: u64 = ROOT + 0x80_0000;
/// A valid page of a process, under ASID 1.
const PAGE: u64 = 0xf43;
const TABLE: u64 = 3;

#[derive(Default)]
struct Ram(HashMap<u64, u64>);

impl World for Ram {
    fn load(&self, pa: u64) -> Option<u64> {
        Some(self.0.get(&pa).copied().unwrap_or(0))
    }

    fn stack(&self) -> Vec<u64> {
        vec![0xffff_8000_0001_0000, 0xffff_8000_0002_0000]
    }

    fn watch(&mut self, _page: u64, _on: bool) {}
}

/// Writes a trace by doing what it says.
struct Kernel {
    ram: Ram,
    model: Model,
    recorder: Recorder<Vec<u8>>,
    events: usize,
}

impl Kernel {
    fn tell(&mut self, pe: usize, what: What) -> Result<(), Box<dyn Error>> {
        self.events += 1;
        let event = Event { pe, pc: 0xffff_8000_0000_0000 + 4 * (self.events as u64 % 64), what };
        Ok(self.recorder.event(&mut self.model, &mut self.ram, &event)?)
    }

    fn store(&mut self, pa: u64, value: u64) -> Result<(), Box<dyn Error>> {
        self.ram.0.insert(pa, value);
        self.tell(0, What::Store { pa, size: 8 })
    }
}

/// A trace with `open` residues that stay open; says how many events it has.
fn trace(open: usize) -> Result<(Vec<u8>, usize), Box<dyn Error>> {
    let config = Config::default();
    let mut k = Kernel {
        ram: Ram::default(),
        model: Model::new(config),
        recorder: Recorder::new(Vec::new(), &config)?,
        events: 0,
    };
    let words = &mut k.ram.0;
    words.insert(ROOT, (ROOT + 0x1000) | TABLE);
    words.insert(ROOT + 0x1000, MIDDLE | TABLE);
    for page in 0..open as u64 {
        words.insert(MIDDLE + page / 512 * 8, (LEAVES + page / 512 * 4096) | TABLE);
        words.insert(LEAVES + page * 8, (0x8000_0000 + page * 4096) | PAGE);
    }
    words.insert(MIDDLE + 511 * 8, CHURN | TABLE);
    for page in 0..512 {
        words.insert(CHURN + page * 8, (0x9000_0000 + page * 4096) | PAGE);
    }
    // 48 bits, 4 KiB, EPD1, 16-bit ASIDs from TTBR0.
    let tcr = 16 | 16 << 16 | 1 << 23 | 2 << 30 | 1 << 36;
    for pe in 0..4 {
        for (register, value) in [(Sysreg::TcrEl1, tcr), (Sysreg::Ttbr0El1, ROOT | 1 << 48), (Sysreg::SctlrEl1, 1)] {
            k.tell(pe, What::Sysreg(register, value))?;
        }
        k.tell(pe, What::Isb)?;
    }
    for page in 0..open as u64 {
        k.store(LEAVES + page * 8, 0)?;
    }
    let begun = k.events;
    let mut page = 0;
    while k.events - begun < EVENTS {
        page = (page + 7) % 512;
        let slot = CHURN + page * 8;
        let va = VirtAddr::new(511 << 21 | page << 12);
        k.store(slot, 0)?;
        k.tell(0, What::Dsb(Dsb::Ishst))?;
        k.tell(0, What::Tlbi(Op::inner(Target::Va { va, asid: Some(Asid::new(1)), leaf_only: true, ttl: 0 })))?;
        k.tell(0, What::Dsb(Dsb::Ish))?;
        k.tell(0, What::Isb)?;
        k.store(slot, (0x9000_0000 + (page + k.events as u64) % 4096 * 4096) | PAGE)?;
        k.tell(0, What::Dsb(Dsb::Ishst))?;
        k.tell(0, What::Isb)?;
    }
    let still = k.model.residues().len();
    assert_eq!(still, open, "residues that stay open");
    Ok((k.recorder.finish()?, k.events))
}

/// Plays a trace back; the seconds that it took, and how many records came of it.
fn replay(trace: &[u8]) -> Result<(f64, usize), Box<dyn Error>> {
    let begun = Instant::now();
    let mut replay = Replay::new(trace)?;
    let mut model = Model::new(replay.config());
    while let Some(event) = replay.next_event()? {
        model.event(&mut replay, &event);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok((seconds, model.take_records().len()))
}

/// The most memory that this process has had, in MiB.
fn peak() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A process of its own, in which nothing but the replay takes memory.
    if let [word, path] = &arguments[..]
        && word == "--memory"
    {
        let mut replay = Replay::new(std::io::BufReader::new(std::fs::File::open(path)?))?;
        let mut model = Model::new(replay.config());
        while let Some(event) = replay.next_event()? {
            model.event(&mut replay, &event);
        }
        println!("{}", peak()?);
        return Ok(());
    }
    let mut figures = Vec::new();
    for (open, target) in OPEN {
        let (trace, events) = trace(open)?;
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            best = best.min(replay(&trace)?.0);
        }
        let workload = format!("replay, {open} residues open");
        let speed = events as f64 / best;
        figures.push(Figure {
            target: Some(target),
            met: Some(speed >= target),
            ..Figure::new(&workload, "tlbsan", speed, "events/s")
        });
        figures.push(Figure::new(&workload, "tlbsan", trace.len() as f64 / events as f64, "bytes/event"));
        let path = std::env::temp_dir().join(format!("tlbsan-replay-{}-{open}.trace", std::process::id()));
        std::fs::write(&path, &trace)?;
        let child = Command::new(std::env::current_exe()?).arg("--memory").arg(&path).output();
        std::fs::remove_file(&path)?;
        let memory: f64 = String::from_utf8(child?.stdout)?.trim().parse()?;
        figures.push(Figure::new(&workload, "tlbsan", memory, "MiB").at_most(MEMORY));
    }
    let row = |f: &Figure| {
        let value = if f.value >= 1e5 { format!("{:.2} M", f.value / 1e6) } else { format!("{:.1}", f.value) };
        let target =
            f.target.map_or(String::new(), |t| if t >= 1e5 { format!("{} M", t / 1e6) } else { t.to_string() });
        let met = f.met.map_or("", |met| if met { "yes" } else { "no" });
        vec![f.workload.clone(), value, f.unit.clone(), target, met.to_owned()]
    };
    let rows: Vec<Vec<String>> = figures.iter().map(row).collect();
    report::print("The model, replaying a trace", &["workload", "value", "unit", "target", "met"], &rows);
    println!("\n{}", report::write("replay", &figures)?.display());
    Ok(())
}
