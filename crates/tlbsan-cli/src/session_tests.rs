//! What the account says, for consoles and streams that arrive in any order.

use tlbsan::report::{Descriptor, Site};
use tlbsan_hint::{Cause, Kind};

use super::*;
use crate::symbols::{Frame, Names};

struct NoNames;

impl Names for NoNames {
    fn frames(&self, _: u64) -> Vec<Frame> {
        Vec::new()
    }
}

const STYLE: Style = Style { paint: Paint::PLAIN, stories: false, quiet: false, cases: true };

const TELLING: Telling<'_> = Telling { names: &NoNames, full_stacks: false };

const REMADE: Verdict =
    Verdict { kind: Kind::Remade, cause: Cause::LeafOnly, start: 0x4000_0000, size: 0x20_0000, level: 2 };

fn violation(case: Option<u64>) -> Record {
    let d = |text: &str| Descriptor { bits: 0x4010_0003, text: text.into() };
    Record::Violation(Box::new(Violation {
        number: 1,
        case,
        kind: REMADE.kind,
        cause: REMADE.cause,
        start: REMADE.start,
        size: REMADE.size,
        level: REMADE.level,
        table: true,
        asids: vec![7],
        pes: vec![2],
        slot: 0x4009_8000,
        old: d("table"),
        new: d("table"),
        removed: Site::default(),
        trigger: Site { pe: 1, ..Site::default() },
        attempts: vec![],
        more_attempts: 0,
        times: 1,
        severity: Severity::Error,
        accessed: None,
        claim: None,
        ways: Default::default(),
        suppressed: None,
    }))
}

fn case(id: u64, expected: &[Verdict], seen: &[Verdict], counts: u64) -> Record {
    let passed = expected == seen && (counts > 0 || !expected.is_empty());
    Record::Case(CaseResult {
        id,
        opened: counts,
        cleaned: counts,
        expected: expected.to_vec(),
        seen: seen.to_vec(),
        passed,
    })
}

/// Plays console and records as they come; returns what was printed and what was counted.
fn play(style: Style, play: impl FnOnce(&mut Session<'_, &mut Vec<u8>>, Instant)) -> (String, Tally) {
    let mut out = Vec::new();
    let now = Instant::now();
    let mut session = Session::new(&mut out, TELLING, style);
    play(&mut session, now);
    let tally = session.finish(now + Duration::from_secs(60));
    (String::from_utf8(out).expect("text"), tally)
}

#[test]
fn a_point_waits_for_its_case_and_holds_what_follows() {
    let (text, tally) = play(STYLE, |session, now| {
        session.console(b"TAP version 14\n1..2\nok 1 - a/correct\nok 2 - a/fault\n# bye\n", now);
        session.record(violation(Some(2)), now);
        session.record(case(2, &[REMADE], &[REMADE], 3), now);
        session.tick(now + Duration::from_secs(1));
        session.record(case(1, &[], &[], 6), now);
    });
    assert_eq!(
        text,
        "TAP version 14\n1..2\nok 1 - a/correct\n  # tlbsan: silent; 6 stale entries opened, 6 cleaned\n\
         ok 2 - a/fault\n  # tlbsan: as expected: remade, leaf-only: 0x4000_0000..0x4020_0000 at level 2\n# bye\n"
    );
    assert_eq!(tally, Tally { passed: 2, points: 2, plan: Some(2), ..Tally::default() });
}

#[test]
fn the_checker_s_no_turns_ok_into_not_ok() {
    let (text, tally) = play(STYLE, |session, now| {
        session.console(b"TAP version 14\n", now);
        session.record(violation(Some(1)), now);
        session.record(case(1, &[], &[REMADE], 1), now);
        session.record(case(2, &[REMADE], &[], 1), now);
        session.record(case(3, &[], &[], 0), now);
        session.console(b"ok 1 - a\nok 2 - b\nok 3 - c\nok 4 - d # SKIP needs 4 cores\n1..4\n", now);
    });
    assert!(text.contains("\nnot ok 1 - a\n  # tlbsan: unexpected: remade, leaf-only"), "{text}");
    assert!(text.contains("  # stale translation [remade, leaf-only]: 0x4000_0000..0x4020_0000 has a new"), "{text}");
    assert!(text.contains("\nnot ok 2 - b\n  # tlbsan: missing: remade, leaf-only"), "{text}");
    assert!(text.contains("\nnot ok 3 - c\n  # tlbsan: asleep: 0 stale entries opened"), "{text}");
    assert!(text.contains("\nok 4 - d # SKIP needs 4 cores\n1..4\n"), "{text}");
    let tally_wanted = Tally { unexpected: 1, failed: 3, points: 4, skipped: 1, plan: Some(4), ..Tally::default() };
    assert_eq!(tally, tally_wanted);
}

#[test]
fn a_yaml_block_stays_with_its_point() {
    let (text, tally) = play(STYLE, |session, now| {
        session.record(case(1, &[], &[], 1), now);
        session.console(b"TAP version 14\r\nnot ok 1 - a\r\n  ---\r\n  got: 1\r\n  ...\r\n1..1\r\n", now);
    });
    let block = "not ok 1 - a\n  ---\r\n  got: 1\r\n  ...\r\n  # tlbsan: silent; 1 stale entry opened, 1 cleaned\n";
    assert!(text.contains(block), "{text}");
    assert!(text.contains("the guest itself failed it\n1..1\r\n"), "{text}");
    assert_eq!((tally.guest_failed, tally.failed), (1, 0));
}

#[test]
fn other_kernels_tap_is_left_alone_and_soon() {
    let (text, tally) = play(STYLE, |session, now| {
        session.console(b"TAP version 14\nok 1 - a\nok 2 - b\nok 3 - c\n", now);
        session.tick(now + WAIT);
        session.tick(now + WAIT + SHORT_WAIT);
        session.tick(now + WAIT + SHORT_WAIT * 2);
        session.tick(now + WAIT + SHORT_WAIT * 3);
        session.console(b"done\n", now);
    });
    assert_eq!(text, "TAP version 14\nok 1 - a\nok 2 - b\nok 3 - c\ndone\n");
    assert_eq!((tally.points, tally.passed), (3, 0));
}

#[test]
fn without_tap_stories_stand_between_the_lines_of_the_log() {
    let (text, tally) = play(STYLE, |session, now| {
        session.console(b"ok 1 - no TAP\nlogin: ", now);
        session.tick(now + PATIENCE);
        session.record(violation(None), now);
        session.console(b"root\n", now);
    });
    assert!(text.starts_with("ok 1 - no TAP\nlogin: \n\nstale translation [remade, leaf-only]"), "{text}");
    assert_eq!(tally, Tally { unexpected: 1, ..Tally::default() });
}

#[test]
fn a_case_that_never_ends_hides_nothing() {
    let (text, tally) = play(STYLE, |session, now| {
        session.console(b"TAP version 14\n", now);
        session.record(violation(Some(9)), now);
    });
    assert!(text.contains("# tlbsan: case 9 did not end"), "{text}");
    assert!(text.contains("# stale translation"), "{text}");
    assert_eq!(tally.unexpected, 1);
}

#[test]
fn cases_without_test_points_are_told_by_number() {
    let (text, tally) = play(STYLE, |session, now| {
        session.record(case(1, &[], &[], 1), now);
        session.tick(now + Duration::from_secs(2));
        session.record(case(1, &[], &[], 0), now);
    });
    assert!(text.contains("tlbsan: case 1 passed\ntlbsan: silent"), "{text}");
    assert!(text.contains("tlbsan: case 1 failed\ntlbsan: asleep"), "{text}");
    assert_eq!((tally.passed, tally.failed), (1, 1));
}

#[test]
fn quiet_prints_what_failed() {
    let style = Style { quiet: true, ..STYLE };
    let (text, _) = play(style, |session, now| {
        session.record(case(1, &[], &[], 1), now);
        session.record(case(2, &[REMADE], &[], 1), now);
        session.console(b"log\nTAP version 14\n1..2\nok 1 - a\nok 2 - b\n# bye\n", now);
    });
    assert_eq!(
        text,
        "not ok 2 - b\n  # tlbsan: missing: remade, leaf-only: 0x4000_0000..0x4020_0000 at level 2; 1 stale entry opened, \
         1 cleaned\n"
    );
}
