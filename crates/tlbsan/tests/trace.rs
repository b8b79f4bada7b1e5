//! Traces: the same records come out, and whatever is wrong with a trace is told with its place.

#[path = "universe/mod.rs"]
#[allow(dead_code, reason = "shared with the comparison")]
mod universe;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use tlbsan::trace::{Recorder, Replay, TraceError, Wrong};
use tlbsan::{Config, Event, Hint, Model, What, World};
use universe::{Ram, Setting, Universe, decode};

/// Memory that has stacks and texts as well.
struct Host<'a> {
    ram: &'a mut Ram,
    time: u64,
}

impl World for Host<'_> {
    fn load(&self, pa: u64) -> Option<u64> {
        if pa < 1 << 32 { self.ram.load(pa) } else { None }
    }

    fn stack(&self) -> Vec<u64> {
        (0..self.time % 5).map(|n| 0xffff_8000_0000_1000 + (n << 6)).collect()
    }

    fn text(&self, va: u64, len: u64) -> Option<String> {
        (va != 0).then(|| format!("step {va} of {len}"))
    }

    fn watch(&mut self, page: u64, on: bool) {
        self.ram.watch(page, on);
    }
}

fn lines(model: &mut Model) -> String {
    let records = model.take_records().into_iter();
    records.map(|record| serde_json::to_string(&record).expect("records are plain data") + "\n").collect()
}

/// Runs the steps that `codes` stand for: the trace, the records, and how many events there were.
fn record(codes: &[u64]) -> (Vec<u8>, String, u64) {
    let config = Config::default();
    let mut model = Model::new(config);
    let mut recorder = Recorder::new(Vec::new(), &config).expect("memory takes everything");
    let mut universe = Universe::new(Setting::new(codes.first().copied().unwrap_or(0)));
    let mut events = 0;
    let steps = codes.iter().flat_map(|code| decode(*code, true, &universe.setting));
    let steps: Vec<_> = universe.prologue().into_iter().chain(steps).collect();
    for step in steps {
        universe.perform(&step, |ram, event| {
            let mut tell = |event: &Event| {
                let mut host = Host { ram, time: event.pc };
                recorder.event(&mut model, &mut host, event).expect("memory takes everything");
                events += 1;
            };
            if event.pc.is_multiple_of(7) {
                let label = Hint::Label { text: event.pc % 3, len: event.pc };
                tell(&Event { what: What::Hint(label), ..*event });
            }
            tell(event);
        });
    }
    model.finish();
    (recorder.finish().expect("memory takes everything"), lines(&mut model), events)
}

/// Plays a trace back: what the model says until the end, or until something is wrong.
fn replay(trace: &[u8]) -> (Result<u64, TraceError>, String) {
    let mut replay = match Replay::new(trace) {
        Ok(replay) => replay,
        Err(error) => return (Err(error), String::new()),
    };
    let mut model = Model::new(replay.config());
    loop {
        match replay.next_event() {
            Ok(Some(event)) => model.event(&mut replay, &event),
            Ok(None) => {
                model.finish();
                return (Ok(replay.unanswered()), lines(&mut model));
            }
            Err(error) => return (Err(error), lines(&mut model)),
        }
    }
}

/// Reads a trace without a model.
fn read(trace: &[u8]) -> Result<u64, TraceError> {
    let mut replay = Replay::new(trace)?;
    let mut events = 0;
    while replay.next_event()?.is_some() {
        events += 1;
    }
    Ok(events)
}

fn sample() -> Vec<u64> {
    (0..60_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24).collect()
}

#[test]
fn a_trace_gives_the_same_records_byte_for_byte() {
    let config = Runs { cases: 60, failure_persistence: None, ..Runs::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let codes = proptest::collection::vec(0..1_u64 << 43, 1..120);
    runner
        .run(&codes, |codes| {
            let (trace, told, _) = record(&codes);
            let (unanswered, again) = replay(&trace);
            prop_assert_eq!(again, told);
            prop_assert_eq!(unanswered.ok(), Some(0));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_trace_is_compact() {
    let (trace, told, events) = record(&sample().repeat(50));
    assert!(told.contains("violation"));
    let bytes = trace.len() as f64 / events as f64;
    assert!(bytes < 16.0, "{bytes:.1} bytes an event");
}

#[test]
fn a_trace_cut_off_anywhere_is_told_with_the_place() {
    let (trace, _, _) = record(&sample());
    for len in 0..trace.len() {
        let error = read(&trace[..len]).expect_err("cut off");
        assert!(matches!(error.wrong, Wrong::Truncated), "{len}: {error}");
        assert_eq!(error.offset, len as u64);
    }
    assert!(read(&trace).is_ok());
}

#[test]
fn a_flipped_bit_anywhere_is_told() {
    let (trace, _, _) = record(&sample()[..20]);
    for at in 0..trace.len() {
        let mut damaged = trace.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = read(&damaged).expect_err("damaged");
        assert!(error.offset <= trace.len() as u64, "{error}");
        assert!(!error.to_string().is_empty());
    }
    let longer = [&trace[..], &[0]].concat();
    assert!(
        matches!(read(&longer), Err(TraceError { wrong: Wrong::Trailing, offset }) if offset == trace.len() as u64)
    );
}

#[test]
fn another_version_is_refused_by_its_number() {
    let (mut trace, _, _) = record(&[]);
    trace[8] = 9;
    assert!(matches!(read(&trace), Err(TraceError { wrong: Wrong::Version(9), offset: 8 })));
    assert!(matches!(read(b"\x7fELF and more"), Err(TraceError { wrong: Wrong::NoTrace, .. })));
}

/// The checksum that a block must have, worked out bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn a_block_of_nonsense_with_a_right_checksum_is_refused_or_played() {
    let (trace, _, _) = record(&sample()[..10]);
    let begin = 16 + 8;
    let len = u32::from_le_bytes([trace[16], trace[17], trace[18], trace[19]]) as usize;
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let (mut refused, mut played) = (0, 0);
    for round in 0..4000 {
        let mut wrong = trace.clone();
        for _ in 0..1 + round % 8 {
            let at = begin + random() % len;
            wrong[at] = if round % 2 == 0 { random() as u8 } else { wrong[at] ^ 1 << (random() % 8) };
        }
        let sum = checksum(&wrong[begin..begin + len]);
        wrong[20..24].copy_from_slice(&sum.to_le_bytes());
        match replay(&wrong).0 {
            Ok(_) => played += 1,
            Err(error) => {
                assert!((16..trace.len() as u64).contains(&error.offset), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 1000 && played > 10, "{refused} refused, {played} played");
}
