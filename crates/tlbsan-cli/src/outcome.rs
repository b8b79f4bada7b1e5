//! The exit code and the reasons for it.
//!
//! Pure: from what is known when everything has ended. The order in which codes win: 2 (could not run: nothing can be said), 1
//! (violations, even if the guest hung or crashed afterwards), 4 (a hang was cut), 3 (the guest failed), 0.
//!
//! Where the `end` record is missing: cut by `--timeout` or from outside is 4; QEMU killed by a signal that tlbsan did not send
//! is 3; an orderly exit without it means that the checker stopped before the guest, and that is 2.

use tlbsan::report::Summary;

use crate::paint::count;

/// How QEMU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// Why tlbsan itself ended QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// `--timeout`, in seconds.
    Timeout(u64),
    /// A signal came, from the keyboard or a supervisor.
    Interrupted,
    /// `--stop-on-first`: there was a violation.
    First,
}

/// Everything that the exit code depends on.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Whether the `start` record was read.
    pub(crate) started: bool,
    /// The `end` record.
    pub(crate) end: Option<Summary>,
    /// Why the stream could not be read further.
    pub(crate) broken: Option<String>,
    /// The last notice: where the checker gave up it says why.
    pub(crate) notice: Option<String>,
    /// How QEMU ended.
    pub(crate) exit: Exit,
    /// Whether tlbsan ended it.
    pub(crate) cut: Option<Cut>,
    /// What came of cases and test points.
    pub(crate) tally: Tally,
    /// Violations that `--suppress` took out.
    pub(crate) suppressed: u64,
}

/// What came of cases and test points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Violations outside a case, or in one that failed or never ended.
    pub(crate) unexpected: u64,
    /// Case records that say passed.
    pub(crate) passed: u64,
    /// Case records that say failed.
    pub(crate) failed: u64,
    /// Test points, TAP.
    pub(crate) points: u64,
    /// Test points that were skipped.
    pub(crate) skipped: u64,
    /// Test points that the guest itself failed while its case, if any, passed.
    pub(crate) guest_failed: u64,
    /// How many test points there should be.
    pub(crate) plan: Option<u64>,
    /// What stands behind `Bail out!`.
    pub(crate) bailed: Option<String>,
}

/// The end of it all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The exit code.
    pub(crate) code: u8,
    /// One word or two for the summary.
    pub(crate) word: String,
    /// Whatever is wrong, one sentence each.
    pub(crate) reasons: Vec<String>,
}

/// Judges.
pub(crate) fn judge(facts: &Facts) -> Outcome {
    let mut reasons = Vec::new();
    let could_not_run = could_not_run(facts);
    let violations = violations(facts);
    let hang = hang(facts);
    let failures = failures(facts, hang.is_some());

    let (code, word) = if could_not_run.is_some() {
        (2, "could not run".to_owned())
    } else if let Some(word) = violations {
        (1, word)
    } else if hang.is_some() {
        (4, "cut short".to_owned())
    } else if !failures.is_empty() {
        (3, "the guest failed".to_owned())
    } else {
        (0, "clean".to_owned())
    };
    match could_not_run {
        // Whatever else is odd follows from it.
        Some(reason) => reasons.push(reason),
        None => reasons.extend(hang.into_iter().chain(failures)),
    }
    Outcome { code, word, reasons }
}

fn could_not_run(facts: &Facts) -> Option<String> {
    let status = match facts.exit {
        Exit::Status(status) => format!("status {status}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    };
    if let Some(broken) = &facts.broken {
        return Some(format!("{broken}; are the plugin and tlbsan of one build?"));
    }
    if !facts.started && facts.cut.is_none() {
        return Some(format!("QEMU ended with {status} before the plugin had started; its own message above says why"));
    }
    match &facts.end {
        // QEMU loads plugins before it finds that it cannot build the machine.
        Some(end) if end.events == 0 && facts.exit == Exit::Status(1) && facts.cut.is_none() => {
            Some(format!("QEMU ended with {status} before the guest did anything; its own message above says why"))
        }
        Some(end) if end.events == 0 => Some(
            "the plugin saw no event: no guest code ran that touches translation; is this an aarch64 kernel?"
                .to_owned(),
        ),
        None if facts.cut.is_none() && matches!(facts.exit, Exit::Status(_)) => {
            let why = facts.notice.as_deref().unwrap_or("it did not say why; its message may stand above");
            Some(format!("the checker stopped before the guest did: {}", why.trim_end_matches('.')))
        }
        _ => None,
    }
}

fn violations(facts: &Facts) -> Option<String> {
    let Tally { unexpected, failed, .. } = facts.tally;
    // A guest that was stopped at its first violation went on for a moment.
    let end = facts.end.as_ref().filter(|_| facts.cut != Some(Cut::First));
    let (told, hidden) = end.map_or((0, 0), |end| (end.unexpected, end.failed));
    let (unexpected, failed) = (unexpected.max(told), failed.max(hidden));
    match (unexpected, failed) {
        (0, 0) => None,
        (0, failed) => Some(format!("{} not as expected", count(failed, "case", "cases"))),
        (unexpected, _) => {
            let repeats = facts.end.as_ref().map_or(0, |end| end.repeats).min(unexpected - 1);
            let folded =
                if repeats > 0 { format!(" ({} folded)", count(repeats, "repeat", "repeats")) } else { String::new() };
            Some(count(unexpected, "violation", "violations") + &folded)
        }
    }
}

fn hang(facts: &Facts) -> Option<String> {
    match (facts.cut, facts.exit) {
        (Some(Cut::Timeout(seconds)), _) => {
            Some(format!("the guest was still running after {seconds} s and was ended (--timeout)"))
        }
        (Some(Cut::First), _) => Some("stopped at the first violation (--stop-on-first)".to_owned()),
        (Some(Cut::Interrupted), _) => Some("interrupted; only what ran until then was judged".to_owned()),
        (None, Exit::Status(4)) => Some("the guest hung, and its own timer ended it (exit status 4)".to_owned()),
        _ => None,
    }
}

fn failures(facts: &Facts, cut: bool) -> Vec<String> {
    let tally = &facts.tally;
    let mut reasons = Vec::new();
    match facts.exit {
        _ if cut => {}
        Exit::Status(0) => {}
        Exit::Status(status) => reasons.push(format!("the guest ended QEMU with exit status {status}")),
        Exit::Signal(signal) => reasons.push(format!("QEMU was killed by signal {signal}")),
    }
    if tally.guest_failed > 0 {
        reasons.push(format!("the guest itself failed {}", count(tally.guest_failed, "test point", "test points")));
    }
    if let Some(why) = &tally.bailed {
        reasons.push(format!("the guest bailed out: {why}"));
    }
    match tally.plan {
        Some(plan) if tally.points < plan => {
            reasons.push(format!("{} of {plan} planned test points ran", tally.points))
        }
        Some(plan) if tally.points > plan => {
            reasons.push(format!("{} ran where {plan} were planned", count(tally.points, "test point", "test points")));
        }
        _ => {}
    }
    reasons
}

/// The last line.
pub(crate) fn summary(facts: &Facts, outcome: &Outcome) -> String {
    let Tally { passed, failed, skipped, points, .. } = facts.tally;
    let mut parts = Vec::new();
    if passed + failed > 0 {
        parts.push(format!("{}, {passed} passed", count(passed + failed, "case", "cases")));
        parts.extend((failed > 0).then(|| format!("{failed} failed")));
    } else if points > skipped {
        parts.push(format!("{} without a case", count(points - skipped, "test point", "test points")));
    }
    parts.extend((skipped > 0).then(|| format!("{skipped} skipped")));
    let mut text = parts.join(", ");
    let mut semicolon = |part: String| {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&part);
    };
    if let Some(end) = &facts.end {
        semicolon(format!("{} opened, {} cleaned", count(end.opened, "stale entry", "stale entries"), end.cleaned));
        semicolon(count(end.tlbis, "TLBI", "TLBIs"));
    }
    if facts.suppressed > 0 {
        semicolon(format!("{} suppressed", facts.suppressed));
    }
    semicolon(outcome.word.clone());
    format!("tlbsan: {text}")
}

/// The last line of `--json`.
pub(crate) fn record(facts: &Facts, outcome: &Outcome) -> tlbsan::report::Outcome {
    let (qemu_status, qemu_signal) = match facts.exit {
        Exit::Status(status) => (Some(status), None),
        Exit::Signal(signal) => (None, Some(signal)),
    };
    let Tally { unexpected, passed, failed, points, skipped, guest_failed, plan, .. } = facts.tally;
    tlbsan::report::Outcome {
        code: outcome.code,
        word: outcome.word.clone(),
        reasons: outcome.reasons.clone(),
        unexpected,
        passed,
        failed,
        points,
        skipped,
        guest_failed,
        plan,
        suppressed: facts.suppressed,
        qemu_status,
        qemu_signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Facts {
        Facts {
            started: true,
            end: Some(Summary { events: 100, tlbis: 51, opened: 12, cleaned: 12, passed: 3, ..Summary::default() }),
            broken: None,
            notice: None,
            exit: Exit::Status(0),
            cut: None,
            suppressed: 0,
            tally: Tally { passed: 3, points: 4, skipped: 1, plan: Some(4), ..Tally::default() },
        }
    }

    fn code(change: impl FnOnce(&mut Facts)) -> u8 {
        let mut facts = clean();
        change(&mut facts);
        judge(&facts).code
    }

    #[test]
    fn the_summary_counts_what_was_folded_and_suppressed() {
        let mut facts = clean();
        let end = facts.end.as_mut().expect("set");
        (end.unexpected, end.violations, end.repeats, facts.suppressed) = (15, 3, 12, 2);
        let text = summary(&facts, &judge(&facts));
        assert!(text.ends_with("; 2 suppressed; 15 violations (12 repeats folded)"), "{text}");
        facts.cut = Some(Cut::First);
        facts.tally.unexpected = 1;
        let outcome = judge(&facts);
        assert_eq!((outcome.code, outcome.reasons.len()), (1, 1), "{outcome:?}");
        assert!(summary(&facts, &outcome).ends_with("; 1 violation"), "{}", summary(&facts, &outcome));
    }

    fn no_end(facts: &mut Facts) {
        facts.end = None;
    }

    #[test]
    fn a_clean_run_is_0_and_says_what_was_seen() {
        let facts = clean();
        let outcome = judge(&facts);
        assert_eq!((outcome.code, outcome.reasons.as_slice()), (0, &[][..]));
        assert_eq!(
            summary(&facts, &outcome),
            "tlbsan: 3 cases, 3 passed, 1 skipped; 12 stale entries opened, 12 cleaned; 51 TLBIs; clean"
        );
    }

    #[test]
    fn violations_win_over_whatever_the_guest_did_next() {
        assert_eq!(code(|f| f.tally.unexpected = 1), 1);
        assert_eq!(code(|f| f.tally.failed = 1), 1);
        assert_eq!(code(|f| f.end.as_mut().expect("set").unexpected = 1), 1);
        assert_eq!(code(|f| (f.tally.unexpected, f.exit) = (1, Exit::Status(4))), 1);
        assert_eq!(code(|f| (f.tally.unexpected, f.exit) = (1, Exit::Status(3))), 1);
        let crash = |f: &mut Facts| (f.tally.unexpected, f.exit, f.end) = (1, Exit::Signal(11), None);
        assert_eq!(code(crash), 1);
        let mut facts = clean();
        crash(&mut facts);
        let outcome = judge(&facts);
        assert!(outcome.reasons.iter().any(|reason| reason.contains("signal 11")), "both are said: {outcome:?}");
        assert!(summary(&facts, &outcome).ends_with("; 1 violation"), "{}", summary(&facts, &outcome));
    }

    #[test]
    fn what_did_not_run_is_2_whatever_else_there_is() {
        assert_eq!(code(|f| (f.started, f.end, f.exit) = (false, None, Exit::Status(1))), 2);
        assert_eq!(code(|f| f.end.as_mut().expect("set").events = 0), 2);
        assert_eq!(code(|f| (f.end.as_mut().expect("set").events, f.exit) = (0, Exit::Status(1))), 2);
        assert_eq!(code(no_end), 2);
        assert_eq!(code(|f| f.broken = Some("line 3 is no record".into())), 2);
        assert_eq!(code(|f| (f.broken, f.tally.unexpected) = (Some("line 3 is no record".into()), 1)), 2);
    }

    #[test]
    fn the_guest_s_own_failures_are_3() {
        assert_eq!(code(|f| f.exit = Exit::Status(3)), 3);
        assert_eq!(code(|f| f.exit = Exit::Status(1)), 3);
        assert_eq!(code(|f| f.tally.guest_failed = 1), 3);
        assert_eq!(code(|f| f.tally.points = 3), 3);
        assert_eq!(code(|f| f.tally.bailed = Some("no memory".into())), 3);
        assert_eq!(code(|f| (f.end, f.exit) = (None, Exit::Signal(6))), 3);
    }

    #[test]
    fn hangs_are_4_even_with_points_missing() {
        assert_eq!(code(|f| f.exit = Exit::Status(4)), 4);
        assert_eq!(code(|f| (f.exit, f.tally.points) = (Exit::Status(4), 1)), 4);
        assert_eq!(code(|f| (f.cut, f.end, f.exit) = (Some(Cut::Timeout(5)), None, Exit::Signal(9))), 4);
        assert_eq!(code(|f| (f.cut, f.started, f.end) = (Some(Cut::Timeout(5)), false, None)), 4);
        assert_eq!(code(|f| f.cut = Some(Cut::Interrupted)), 4);
    }
}
