//! What page tables cost, beside what the peers' cost: the same work on the same frames, in one run.
//!
//! Each round, every subject in turn maps, walks, protects and unmaps; medians of the rounds are compared. Before that, one round
//! that is not timed checks with a decoder of its own that each subject has done what it was asked to: every leaf where it
//! belongs, none left, every frame back. Writes target/bench/pgtable.json; fails on no figure.
//!
//! `--only SUBJECT FIRST END` does some of the steps for pages and nothing else, for a profiler that counts instructions;
//! `--repeat SUBJECT pages|blocks|sparse SECONDS` does all of them for so long, for one that takes samples.

mod arena;
mod clock;
mod floor;
mod ours;
mod peers;
#[path = "../report.rs"]
mod report;
mod subject;
mod workload;

use peers::{aarch64_paging::Paging, generic::Generic, multiarch::Multiarch, x86::X86};
use report::Figure;
use std::io;
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use subject::Subject;
use workload::{GIB, Workload, read};

/// What is timed, in this order; page by page is for pages side by side, whose frames are so too, or are scattered.
const STEPS: [&str; 8] =
    ["map", "walk", "protect", "unmap", "map each", "unmap each", "map scattered", "unmap scattered"];
const MAP: usize = 0;
const WALK: usize = 1;
const PROTECT: usize = 2;
const UNMAP: usize = 3;
const MAP_EACH: usize = 4;
const UNMAP_EACH: usize = 5;
const MAP_SCATTERED: usize = 6;
const UNMAP_SCATTERED: usize = 7;
/// Each in a space of its own.
const PARTS: [Range<usize>; 3] = [MAP..MAP_EACH, MAP_EACH..MAP_SCATTERED, MAP_SCATTERED..STEPS.len()];

/// Seconds of each step.
type Times = [f64; STEPS.len()];

/// A subject, as the rounds see it.
struct Entry {
    name: &'static str,
    /// Its unmapping is the same work as ours: it looks at leaves, and returns tables.
    unmaps: bool,
    finds_leaves: bool,
    /// Does these steps, and leaves nothing behind unless it stops halfway; checks each with the tables that there are, if told.
    play: fn(&Workload, Range<usize>, bool) -> Times,
}

const fn entry<S: Subject>() -> Entry {
    let unmaps = S::VISITS_LEAVES && S::FREES_TABLES;
    Entry { name: S::NAME, unmaps, finds_leaves: S::FINDS_LEAVES, play: play::<S> }
}

/// Ours first.
const SUBJECTS: [Entry; 6] = [
    entry::<ours::Ours>(),
    entry::<Paging<false>>(),
    entry::<Paging<true>>(),
    entry::<Multiarch>(),
    entry::<Generic>(),
    entry::<X86>(),
];

fn play<S: Subject>(workload: &Workload, steps: Range<usize>, check: bool) -> Times {
    let mut times = [0.0; STEPS.len()];
    let scattered = workload.scattered();
    arena::sort();
    let all = arena::available();
    for part in PARTS {
        if part.start >= steps.end || part.end <= steps.start {
            continue;
        }
        let workload = if part.start == MAP_SCATTERED { &scattered } else { workload };
        let expected = workload.sum();
        let mut subject = S::new();
        for step in part.start..part.end.min(steps.end) {
            let mut seen = None;
            times[step] = clock::seconds(|| match step {
                MAP => subject.map(workload),
                WALK => seen = Some(subject.walk(workload)),
                PROTECT => subject.protect(workload),
                UNMAP => seen = subject.unmap(workload),
                MAP_EACH | MAP_SCATTERED => subject.map_each(workload),
                _ => seen = subject.unmap_each(workload),
            });
            assert_eq!(seen.unwrap_or(expected), expected, "{}, {}, {}", S::NAME, workload.name, STEPS[step]);
            if check {
                checked(&subject, workload, step);
            }
            // One frame for the root, and none for anything else.
            if S::FREES_TABLES && matches!(step, UNMAP | UNMAP_EACH | UNMAP_SCATTERED) {
                assert_eq!(arena::available(), all - 1, "{}, {}, {}", S::NAME, workload.name, STEPS[step]);
            }
        }
        if steps.end < part.end {
            // A profiler counts steps, and not the end.
            std::mem::forget(subject);
            return times;
        }
        subject.end();
        assert_eq!(arena::available(), all, "{} keeps frames", S::NAME);
    }
    times
}

/// The tables hold what they must after a step.
fn checked<S: Subject>(subject: &S, workload: &Workload, step: usize) {
    let found = read(S::FORMAT, subject.root());
    let writable = step != PROTECT;
    let expected: Vec<(u64, u64, u64, bool)> = if matches!(step, UNMAP | UNMAP_EACH | UNMAP_SCATTERED) {
        Vec::new()
    } else {
        workload.leaves().map(|(va, pa)| (va, pa, workload.leaf, writable)).collect()
    };
    assert!(found == expected, "{}, {}, after {}: not what was asked for", S::NAME, workload.name, STEPS[step]);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds a leaf.
struct Measured {
    /// By subject, as [`SUBJECTS`], and step.
    subjects: Vec<Times>,
    plain: f64,
    /// Filled, walked, cleared.
    zeroed: [f64; 3],
}

/// Page by page is for pages side by side.
fn steps(workload: &Workload) -> usize {
    if workload.leaf == workload::PAGE && workload.apart { STEPS.len() } else { MAP_EACH }
}

fn measure(workload: &Workload) -> Measured {
    let steps = steps(workload);
    arena::provide(workload.frames.saturating_sub(arena::available()));
    for subject in &SUBJECTS {
        (subject.play)(workload, 0..steps, true);
    }
    let mut rounds: Vec<Vec<Times>> = SUBJECTS.iter().map(|_| Vec::new()).collect();
    let (mut plain, mut zeroed) = (Vec::new(), Vec::new());
    for round in 0..workload.rounds {
        for turn in 0..SUBJECTS.len() {
            // Nobody always follows the same neighbour's caches from the same place in the round.
            let n = (turn + round) % SUBJECTS.len();
            rounds[n].push((SUBJECTS[n].play)(workload, 0..steps, false));
        }
        plain.push(floor::plain(workload));
        zeroed.push(floor::zeroed(workload));
    }
    let leaf = 1e9 / workload.count() as f64;
    let middle = |times: &[Times], step: usize| leaf * median(times.iter().map(|times| times[step]).collect());
    let plain = leaf * median(plain);
    let zeroed = std::array::from_fn(|n| leaf * median(zeroed.iter().map(|times: &[f64; 3]| times[n]).collect()));
    let subjects = rounds.iter().map(|times| std::array::from_fn(|step| middle(times, step))).collect();
    Measured { subjects, plain, zeroed }
}

/// What is promised of a step: at most so much of the best peer.
const PROMISES: [f64; STEPS.len()] = [0.5, 0.6, 0.4, 0.6, 0.5, 0.8, 0.5, 0.8];
/// Mapping takes at most so much of zeroing a frame and filling it.
const FLOOR: f64 = 2.0;

fn compare(workload: &Workload, figures: &mut Vec<Figure>, promises: &mut Vec<Vec<String>>) {
    let measured = measure(workload);
    let steps = steps(workload);
    let mut rows = Vec::new();
    let cell = |value: f64, ours: f64| format!("{value:.2} {:>6}", format!("{:.2}x", value / ours));
    let title = |step: usize| format!("{}, {}", workload.name, STEPS[step]);
    for (subject, times) in SUBJECTS.iter().zip(&measured.subjects) {
        let mut row = vec![subject.name.to_owned()];
        for (step, (&time, &ours)) in times.iter().zip(&measured.subjects[0]).enumerate().take(steps) {
            row.push(cell(time, ours));
            figures.push(Figure::new(&title(step), subject.name, time, "ns/leaf").against(ours));
        }
        rows.push(row);
    }
    let [fill, walk, clear] = measured.zeroed;
    let floors = [
        ("floor: plain store", vec![(MAP, measured.plain)]),
        ("floor: zeroed frame, atomic access", vec![(MAP, fill), (WALK, walk), (UNMAP, clear)]),
    ];
    for (name, values) in floors {
        let mut row = vec![name.to_owned()];
        row.extend((0..steps).map(|step| {
            let value = values.iter().find(|(of, _)| *of == step);
            value.map_or(String::new(), |(_, value)| cell(*value, measured.subjects[0][step]))
        }));
        rows.push(row);
        for (step, value) in values {
            figures.push(Figure::new(&title(step), name, value, "ns/leaf").against(measured.subjects[0][step]));
        }
    }
    let head: Vec<&str> = std::iter::once("").chain(STEPS.into_iter().take(steps)).collect();
    report::print(&format!("{}: ns a leaf, and by ours", workload.name), &head, &rows);

    let mut promise = |step: usize, of: &str, value: f64, target: f64| {
        let figure = Figure::new(&title(step), &format!("pgtable, of {of}"), value, "x").at_most(target);
        promises.push(told(&figure, "at most"));
        figures.push(figure);
    };
    promise(MAP, "the zeroed-frame floor", measured.subjects[0][MAP] / fill, FLOOR);
    for step in 0..steps {
        let peers = SUBJECTS.iter().zip(&measured.subjects).skip(1);
        // Only who does the same work: a peer that is told where pages are does not look for them.
        let peers = peers.filter(|(subject, _)| match step {
            WALK | PROTECT => subject.finds_leaves || workload.apart,
            UNMAP => subject.unmaps,
            _ => true,
        });
        if let Some((best, times)) = peers.min_by(|a, b| a.1[step].total_cmp(&b.1[step])) {
            promise(step, best.name, measured.subjects[0][step] / times[step], PROMISES[step]);
        }
    }
}

fn told(figure: &Figure, bound: &str) -> Vec<String> {
    let target = figure.target.map_or(String::new(), |target| format!("{bound} {target}"));
    let met = figure.met.map_or("", |met| if met { "met" } else { "missed" });
    let subject = figure.subject.trim_start_matches("pgtable, ").to_owned();
    vec![figure.workload.clone(), subject, format!("{:.2}", figure.value), target, met.to_owned()]
}

/// Two threads map, protect and unmap a GiB each, in one space: how much more they do than one. The same of the floor says how
/// much of two cores there was.
fn threads(figures: &mut Vec<Figure>, promises: &mut Vec<Vec<String>>) {
    const TIMES: usize = 32;
    let workload = |n: u64| {
        let mut workload = Workload::pages(GIB, 9);
        workload.spans[0].va += n * GIB;
        workload.spans[0].pa += n * GIB;
        workload
    };
    // One may end up with all that the other has had.
    let frames = (TIMES + 1) * workload(0).frames;
    arena::provide((2 * frames + 1).saturating_sub(arena::available()));
    arena::sort();
    let ours = |threads: usize| {
        let all = arena::available();
        let shared = <ours::Ours as Subject>::new();
        let seconds = beside(threads, frames, &|thread| {
            let workload = workload(thread as u64);
            for _ in 0..TIMES {
                shared.map_shared(&workload);
                shared.protect_shared(&workload);
                assert_eq!(shared.unmap_shared(&workload), workload.sum());
            }
        });
        shared.end();
        assert_eq!(arena::available(), all, "frames are lost");
        seconds
    };
    let floor = |threads: usize| {
        beside(threads, frames, &|thread| {
            let workload = workload(thread as u64);
            for _ in 0..TIMES {
                floor::zeroed(&workload);
            }
        })
    };
    let gain = |work: &dyn Fn(usize) -> f64| {
        let rounds = (0..workload(0).rounds).map(|_| 2.0 * work(1) / work(2)).collect();
        median(rounds)
    };
    let (ours, floor) = (gain(&ours), gain(&floor));
    let name = "1 GiB of 4K pages, two threads";
    let figure =
        Figure { target: Some(1.8), met: Some(ours >= 1.8), ..Figure::new(name, "pgtable, of one", ours, "x") };
    promises.push(told(&figure, "at least"));
    figures.push(figure);
    let figure = Figure::new(name, "floor: zeroed frame, atomic access, of one", floor, "x");
    promises.push(told(&figure, ""));
    figures.push(figure);
}

/// Seconds from the first to begin to the last to end of so many threads, each with a stack of frames of its own; tables may go back
/// to the other's.
fn beside(threads: usize, frames: usize, work: &(dyn Fn(usize) + Sync)) -> f64 {
    // Whoever had frames before has given them back in an order of its own.
    arena::sort();
    let barrier = Barrier::new(threads);
    let work = |thread: usize, frames: Vec<u64>| {
        arena::give(frames);
        barrier.wait();
        let begun = Instant::now();
        work(thread);
        (begun, Instant::now(), arena::part(arena::available()))
    };
    let work = &work;
    std::thread::scope(|scope| {
        let begin = |thread| {
            let frames = arena::part(frames);
            scope.spawn(move || work(thread, frames))
        };
        let running: Vec<_> = (0..threads).map(begin).collect();
        let done: Vec<_> = running.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect();
        let begun = done.iter().map(|times| times.0).min();
        let ended = done.iter().map(|times| times.1).max();
        done.into_iter().for_each(|times| arena::give(times.2));
        ended.zip(begun).map_or(f64::NAN, |(ended, begun)| (ended - begun).as_secs_f64())
    })
}

/// Instructions of some steps, counted by valgrind; `None` if it is not there.
fn counted(subject: &Entry, steps: Range<usize>) -> Option<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=lackey", "--basic-counts=yes"])
        .arg(std::env::current_exe().ok()?)
        .args(["--only", subject.name, &steps.start.to_string(), &steps.end.to_string()])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("guest instrs:"))?;
    line.split_whitespace().last()?.replace(',', "").parse().ok()
}

fn instructions(figures: &mut Vec<Figure>) {
    let mut rows = Vec::new();
    for subject in &SUBJECTS {
        let mut row = vec![subject.name.to_owned()];
        let mut before = None;
        for (step, name) in STEPS.iter().enumerate() {
            // What came before falls out.
            let part = PARTS.iter().find(|part| part.contains(&step)).map_or(0, |part| part.start);
            if step == part {
                before = counted(subject, step..step);
            }
            let after = counted(subject, part..step + 1);
            if let (Some(before), Some(after)) = (before, after) {
                let each = (after - before) / counting().count() as f64;
                row.push(format!("{each:.1}"));
                figures.push(Figure::new(
                    &format!("64 MiB of 4K pages, {name}"),
                    subject.name,
                    each,
                    "instructions/leaf",
                ));
            }
        }
        rows.push(row);
    }
    let head: Vec<&str> = std::iter::once("").chain(STEPS).collect();
    report::print("64 MiB of 4K pages: instructions a leaf, counted by valgrind", &head, &rows);
}

/// What is counted: less than what is measured, for counting takes its time.
fn counting() -> Workload {
    Workload::pages(GIB / 16, 1)
}

fn run() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &str| SUBJECTS.iter().find(|subject| subject.name == name).ok_or(io::ErrorKind::InvalidInput);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--only", name, first, end] => {
            let workload = counting();
            arena::provide(workload.frames);
            let step = |word: &str| word.parse().map_err(|_| io::ErrorKind::InvalidInput);
            (named(name)?.play)(&workload, step(first)?..step(end)?, false);
            return Ok(());
        }
        ["--threads"] => {
            let (mut figures, mut promises) = (Vec::new(), Vec::new());
            threads(&mut figures, &mut promises);
            report::print("Two threads", &["", "", "", "", ""], &promises);
            return Ok(());
        }
        ["--repeat", name, workload, seconds] => {
            let workload = match workload {
                "blocks" => Workload::blocks(1),
                "sparse" => Workload::sparse(1),
                _ => Workload::pages(GIB, 1),
            };
            arena::provide(workload.frames);
            let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap_or(1));
            while Instant::now() < end {
                (named(name)?.play)(&workload, 0..steps(&workload), false);
            }
            return Ok(());
        }
        _ => {}
    }
    let (mut figures, mut promises) = (Vec::new(), Vec::new());
    for workload in [Workload::pages(GIB, 15), Workload::blocks(31), Workload::sparse(3)] {
        compare(&workload, &mut figures, &mut promises);
    }
    threads(&mut figures, &mut promises);
    instructions(&mut figures);
    report::print("What was promised", &["", "", "", "", ""], &promises);
    println!("{}", report::write("pgtable", &figures)?.display());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench pgtable: {error}");
            ExitCode::FAILURE
        }
    }
}
