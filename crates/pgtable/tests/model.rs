//! Random edits of every format, and what a fuzzer makes of those that once went wrong.

mod common;
mod edits;

use edits::{Area, Step, fuzz, play};
use pgtable::*;
use proptest::prelude::*;
use tlbi::Level;
use tlbsan::geometry::Geometry as Shape;

fn area() -> impl Strategy<Value = Area> {
    (prop_oneof![8 => Just(0usize), 1 => Just(1), 1 => Just(2)], 0..12usize, 0..10usize)
        .prop_map(|(anchor, offset, length)| Area { anchor, offset, length })
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || 0..5usize;
    prop_oneof![
        6 => (area(), prop::bool::weighted(0.2), prop::bool::weighted(0.2), kind())
            .prop_map(|(area, pages_only, odd, kind)| Step::Map { area, pages_only, odd, kind }),
        2 => area().prop_map(Step::Unmap),
        2 => area().prop_map(Step::Zap),
        3 => (area(), kind()).prop_map(|(area, kind)| Step::Protect { area, kind }),
        1 => area().prop_map(Step::Age),
        1 => area().prop_map(Step::Clean),
        1 => area().prop_map(Step::Split),
        1 => area().prop_map(|area| Step::Collapse { area }),
        1 => area().prop_map(Step::Fold),
        1 => area().prop_map(Step::Unfold),
        1 => area().prop_map(|area| Step::Relocate { area }),
        2 => (area(), any::<bool>(), any::<bool>()).prop_map(|(area, unmap, odd)| Step::Cursor { area, unmap, odd }),
        3 => (area(), any::<bool>()).prop_map(|(area, write)| Step::Hardware { area, write }),
    ]
}

macro_rules! shapes {
    ($($name:ident: $shape:ty, $cases:literal;)*) => {$(
        #[test]
        fn $name() {
            // PGTABLE_CASES: so many times as many.
            let times = std::env::var("PGTABLE_CASES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
            let cases = $cases * times;
            let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
                cases,
                max_shrink_iters: 400,
                failure_persistence: None,
                ..ProptestConfig::default()
            });
            let changes = prop::collection::vec((0..3usize, prop::collection::vec(step(), 1..5)), 1..10);
            let played = runner.run(&(0..4u8, 0..4usize, changes), |(bbm, remedy, changes)| {
                play::<$shape>(bbm, remedy, &changes);
                Ok(())
            });
            if let Err(error) = played {
                panic!("{error}");
            }
        }
    )*};
}

// The smallest and the largest of each format, and those where a level begins or ends.
shapes! {
    k4_36: Lower<K4, 36>, 60;
    k4_39: Upper<K4, 39>, 60;
    k4_40: Lower<K4, 40>, 30;
    k4_48: Lower<K4, 48>, 60;
    k4_48_upper: Upper<K4, 48>, 60;
    k4_wide_48: Lower<K4Wide, 48>, 30;
    k4_wide_52: Lower<K4Wide, 52>, 60;
    k4_wide_52_upper: Upper<K4Wide, 52>, 30;
    k16_36: Lower<K16, 36>, 30;
    k16_47: Upper<K16, 47>, 30;
    k16_48: Lower<K16, 48>, 30;
    k16_wide_52: Lower<K16Wide, 52>, 30;
    k16_wide_52_upper: Upper<K16Wide, 52>, 30;
    k64_36: Lower<K64, 36>, 12;
    k64_42: Upper<K64, 42>, 12;
    k64_48: Lower<K64, 48>, 12;
    k64_52: Lower<K64, 52>, 12;
    k64_52_upper: Upper<K64, 52>, 12;
}

/// Every size of every format begins at the level, and with as many entries, as the referee says.
#[test]
fn every_va_size_has_its_shape() {
    fn check<G: Geometry>() {
        let shape = Shape::stage1(G::GRANULE.shift() as u8, G::VA_BITS as u8).expect("a shape");
        let shape = Shape { wide: G::LPA2, ..shape };
        assert_eq!(G::ROOT.number(), shape.start_level);
        for level in (shape.start_level..=3).filter_map(Level::from_number) {
            assert_eq!(G::shift(level), shape.shift(level.number()));
            assert_eq!(G::entries(level), shape.entries(level.number()));
            assert_eq!(G::run(level) as usize, shape.run(level.number()));
            assert_eq!(G::has_leaves(level), shape.has_leaves(level.number()));
        }
        let tnsz = 64 - u64::from(G::VA_BITS);
        assert_eq!(if G::UPPER { G::tcr() >> 16 & 0x3f } else { G::tcr() & 0x3f }, tnsz);
        assert_eq!(G::EVERYTHING.size(), 1 << G::VA_BITS);
    }
    macro_rules! sizes {
        ($format:ident: $($bits:literal)*) => { $(check::<Lower<$format, $bits>>(); check::<Upper<$format, $bits>>();)* };
    }
    sizes!(K4: 36 37 38 39 40 41 42 43 44 45 46 47 48);
    sizes!(K4Wide: 36 40 44 48 49 50 51 52);
    sizes!(K16: 36 37 38 39 40 41 42 43 44 45 46 47 48);
    sizes!(K16Wide: 36 40 44 47 48 49 50 51 52);
    sizes!(K64: 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52);
}

/// What a fuzzer begins with: sequences that once went wrong, or that reach what random ones seldom do.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/edits"));
    let file = |file: std::fs::DirEntry| {
        (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("a file"))
    };
    let mut corpus: Vec<_> = files.expect("the corpus").map(|entry| file(entry.expect("an entry"))).collect();
    corpus.sort();
    corpus
}

#[test]
fn sequences_that_once_went_wrong() {
    let corpus = corpus();
    assert!(corpus.len() >= 7, "{}", corpus.len());
    for (name, bytes) in corpus {
        println!("{name}");
        fuzz(&bytes);
    }
}

/// Changes the corpus byte by byte and crosswise for `PGTABLE_FUZZ_SECONDS`, and a fixed number of times without it: what the
/// fuzzer does, without one.
#[test]
fn sequences_near_those_that_once_went_wrong() {
    let corpus = corpus();
    let number = |name, default| std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default);
    let (seconds, mut state) = (number("PGTABLE_FUZZ_SECONDS", 0), number("PGTABLE_SEED", 1) | 1 << 63);
    let begun = std::time::Instant::now();
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below.max(1)
    };
    let mut round = 0;
    while round < 150 || begun.elapsed().as_secs() < seconds {
        let mut input = corpus[round % corpus.len()].1.clone();
        let other = &corpus[random(corpus.len())].1;
        input.extend(&other[3 + 4 * random((other.len() - 3) / 4)..]);
        for _ in 0..random(8) {
            let at = random(input.len());
            input[at] = random(256) as u8;
        }
        if std::panic::catch_unwind(|| fuzz(&input)).is_err() {
            panic!("for the corpus: {input:?}");
        }
        round += 1;
    }
    println!("{round} sequences");
}
