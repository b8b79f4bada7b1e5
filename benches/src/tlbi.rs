//! What a request costs: operations and barriers, and the time to plan them.
//!
//! Operations are counted, not measured: by this crate, by Linux's algorithm with and without range operations, and by one
//! operation a page. Run it with `--plan N` to plan N times and nothing else, for a profiler that counts instructions.

#[allow(dead_code, reason = "one way to use it")]
#[path = "../../crates/tlbi/tests/common/linux.rs"]
mod linux;
mod report;

use linux::LinuxRange;
use report::Figure;
use std::hint::black_box;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Instant;
use tlbi::{Asid, Depth, Features, Instruction, Invalidation, Level, Recorder, Tlb, VaRange, VirtAddr, plan};

struct Pin;
// SAFETY: a recorder stands for no PE.
unsafe impl tlbi::Pinned for Pin {}

const RANGES: Features = Features { asid_bits: 16, ets2: true, ttl: true, range: true, outer: true, ..Features::NONE };
const SINGLES: Features = Features { range: false, outer: false, ..RANGES };

/// A change, in 4 KiB pages.
struct Workload {
    name: String,
    first: u64,
    pages: u64,
    level: Level,
    depth: Depth,
}

impl Workload {
    fn pages(name: impl Into<String>, first: u64, pages: u64) -> Self {
        Self { name: name.into(), first, pages, level: Level::L3, depth: Depth::Leaf }
    }

    fn request(&self) -> Option<Invalidation> {
        let range = VaRange::new(VirtAddr::new(self.first << 12), self.pages << 12).ok()?;
        Some(Invalidation::pages(Asid::new(7), range, self.level, self.depth).uniform())
    }

    fn stride(&self) -> u64 {
        if self.level == Level::L2 { 512 } else { 1 }
    }

    /// TLBIs and barriers.
    fn ours(&self, features: Features) -> (u64, u64) {
        let tlb = Tlb::new(Recorder::<1024>::new(), features);
        if let Some(inv) = self.request() {
            tlb.invalidate(&Pin, &inv).sync();
        }
        let tlbis = tlb.issuer().instructions().filter(|i| matches!(i, Instruction::Tlbi(_))).count();
        let all = tlb.issuer().instructions().count() + tlb.issuer().lost();
        (tlbis as u64, (all - tlbis) as u64)
    }

    fn linux(&self, ranges: bool) -> u64 {
        let (first, pages, stride) = (self.first, self.pages, self.stride());
        LinuxRange { first, pages, stride, entries: 512, align: 1, ranges }.operations()
    }
}

fn workloads() -> Vec<Workload> {
    const ALIGNED: u64 = 0x4_0000;
    const ODD: u64 = 0x4_0001;
    let mut all = Vec::new();
    for pages in [1, 2, 16, 31, 511, 512, 513, 4096, 65_536, (1 << 21) + 1] {
        all.push(Workload::pages(format!("{pages} pages, aligned"), ALIGNED, pages));
        all.push(Workload::pages(format!("{pages} pages, from an odd one"), ODD, pages));
    }
    let blocks =
        |name: &str, pages, depth| Workload { level: Level::L2, depth, ..Workload::pages(name, ALIGNED, pages) };
    all.push(blocks("one 2 MiB block", 512, Depth::Leaf));
    all.push(blocks("a freed table", 512, Depth::Full));
    all.push(blocks("1 GiB of blocks", 1 << 18, Depth::Leaf));
    all
}

fn operations(figures: &mut Vec<Figure>) {
    let mut rows = Vec::new();
    for workload in workloads() {
        let (ours, barriers) = workload.ours(RANGES);
        let (ours_single, _) = workload.ours(SINGLES);
        let (linux, linux_single) = (workload.linux(true), workload.linux(false));
        let one_each = workload.pages;
        rows.push(vec![
            workload.name.clone(),
            ours.to_string(),
            linux.to_string(),
            ours_single.to_string(),
            linux_single.to_string(),
            one_each.to_string(),
            barriers.to_string(),
            // Before the first operation one DSB, after the last one.
            "2".to_owned(),
            // A DSB before, one after, and an ISB, each time.
            (3 * one_each).to_string(),
        ]);
        for (subject, value, base) in [
            ("linux, range operations", linux, ours),
            ("linux, no range operations", linux_single, ours_single),
            ("one per page", one_each, ours),
        ] {
            figures.push(Figure::new(&workload.name, subject, value as f64, "operations").against(base as f64));
        }
        for (subject, value, target) in
            [("tlbi, range operations", ours, linux), ("tlbi, no range operations", ours_single, linux_single)]
        {
            figures.push(Figure::new(&workload.name, subject, value as f64, "operations").at_most(target as f64));
        }
        figures.push(Figure::new(&workload.name, "tlbi", barriers as f64, "barriers").at_most(2.0));
        figures.push(Figure::new(&workload.name, "linux", 2.0, "barriers").against(barriers as f64));
        figures.push(
            Figure::new(&workload.name, "one per page", 3.0 * one_each as f64, "barriers").against(barriers as f64),
        );
    }
    let head = [
        "4 KiB pages, user range, FEAT_ETS2",
        "tlbi",
        "linux",
        "tlbi -range",
        "linux -range",
        "one per page",
        "barriers",
        "linux",
        "one per page",
    ];
    report::print("TLBI operations and barriers (-range: without FEAT_TLBIRANGE)", &head, &rows);
}

/// Plans `times` times; the operands go through `black_box`, as they would go into a register.
fn plan_repeatedly(inv: &Invalidation, features: &Features, times: u64) {
    for _ in 0..times {
        for op in plan(black_box(inv), black_box(features)) {
            black_box(op.operand());
        }
    }
}

/// Nanoseconds a plan: the median of 31 rounds.
fn nanoseconds(inv: &Invalidation, features: &Features) -> f64 {
    const TIMES: u64 = 20_000;
    let mut rounds: Vec<f64> = (0..31)
        .map(|_| {
            let start = Instant::now();
            plan_repeatedly(inv, features, TIMES);
            start.elapsed().as_nanos() as f64 / TIMES as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Instructions a plan, counted by valgrind; `None` if it is not there.
fn instructions(workload: usize) -> Option<f64> {
    let count = |times: u64| {
        let output = Command::new("valgrind")
            .args(["--tool=none", "--stats=no", "--log-file=/dev/null"])
            .arg("true")
            .output()
            .ok()
            .filter(|output| output.status.success())
            .and_then(|_| {
                Command::new("valgrind")
                    .args(["--tool=lackey", "--basic-counts=yes"])
                    .arg(std::env::current_exe().ok()?)
                    .args(["--plan", &times.to_string(), &workload.to_string()])
                    .output()
                    .ok()
            })?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains("guest instrs:"))?;
        line.split_whitespace().last()?.replace(',', "").parse::<f64>().ok()
    };
    // What starting costs falls out.
    Some((count(2_000)? - count(1_000)?) / 1_000.0)
}

/// What is planned, with which features.
fn plans() -> Vec<(&'static str, Workload, Features)> {
    let from = |pages| Workload::pages("", 0x4_0001, pages);
    vec![
        ("plan 1 page", from(1), RANGES),
        ("plan 512 pages", from(512), RANGES),
        ("plan 511 pages", from(511), RANGES),
        ("plan 4097 pages", from(4097), RANGES),
        ("plan 512 pages, no range operations", from(512), SINGLES),
        ("plan 511 pages, no range operations", from(511), SINGLES),
    ]
}

fn planning(figures: &mut Vec<Figure>) {
    let mut rows = Vec::new();
    for (n, (name, workload, features)) in plans().into_iter().enumerate() {
        let Some(inv) = workload.request() else { continue };
        let operations = plan(&inv, &features).count();
        let time = nanoseconds(&inv, &features);
        let counted = instructions(n);
        let mut figure = Figure::new(name, "tlbi", time, "ns");
        if workload.pages == 512 {
            figure = figure.at_most(50.0);
        }
        rows.push(vec![
            name.to_owned(),
            operations.to_string(),
            format!("{time:.1}"),
            counted.map_or_else(|| "no valgrind".to_owned(), |counted| format!("{counted:.0}")),
            figure.met.map_or("", |met| if met { "met" } else { "missed" }).to_owned(),
        ]);
        figures.push(figure);
        figures.extend(counted.map(|counted| Figure::new(name, "tlbi", counted, "instructions")));
    }
    report::print(
        "Planning (target: 512 pages in at most 50 ns)",
        &["", "operations", "ns", "instructions", "target"],
        &rows,
    );
}

fn run() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, times, n] = arguments.as_slice()
        && flag == "--plan"
    {
        let (times, n) = (times.parse().unwrap_or(0), n.parse().unwrap_or(usize::MAX));
        if let Some((_, workload, features)) = plans().into_iter().nth(n)
            && let Some(inv) = workload.request()
        {
            plan_repeatedly(&inv, &features, times);
        }
        return Ok(());
    }
    let mut figures = Vec::new();
    operations(&mut figures);
    planning(&mut figures);
    println!("{}", report::write("tlbi", &figures)?.display());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench tlbi: {error}");
            ExitCode::FAILURE
        }
    }
}
