//! The merged account of a run: console lines and records go in as they come, text goes out in order.
//!
//! Knows no processes, threads or clocks: time is handed in. A test point is held back, with all that follows it, until the
//! record of its case is there; the plugin writes that before the guest can print the line, so the wait is for our own
//! threads only, and it is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant};

use tlbsan::report::{CaseResult, Record, Severity, Verdict, Violation};

use crate::console::{PATIENCE, Piece, Splitter};
use crate::outcome::Tally;
use crate::paint::{Paint, count};
use crate::stack::Telling;
use crate::story::{self, tell, verdict};
use crate::tap::{self, Line, Point};

/// The longest wait for the record of a case.
const WAIT: Duration = Duration::from_secs(5);
/// The same once a test point had none: other kernels print TAP too, and know no cases.
const SHORT_WAIT: Duration = Duration::from_millis(200);

/// How to tell it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Colours.
    pub(crate) paint: Paint,
    /// Whether expected violations get their story as well.
    pub(crate) stories: bool,
    /// Whether only what failed is printed.
    pub(crate) quiet: bool,
    /// Whether there can be records of cases at all.
    pub(crate) cases: bool,
}

/// The account.
pub(crate) struct Session<'a, W> {
    out: W,
    /// Whether the cursor stands at the beginning of a line.
    fresh: bool,
    telling: Telling<'a>,
    style: Style,
    splitter: Splitter,
    /// `TAP version 14` was seen.
    tap: bool,
    waiting: VecDeque<Piece>,
    /// Until when the test point in front may wait.
    deadline: Option<Instant>,
    /// A test point had no case.
    missed: bool,
    stream_ended: bool,
    /// Records of cases whose test point is yet to come, and when they came.
    cases: BTreeMap<u64, (CaseResult, Instant)>,
    told: BTreeSet<u64>,
    /// Violations of cases that are not told yet.
    held: BTreeMap<u64, Vec<Violation>>,
    /// What is to be said below the last test point, once its YAML block is over.
    notes: Vec<String>,
    yaml: bool,
    last: Option<Instant>,
    tally: Tally,
    points: Vec<TestPoint>,
}

/// A test point as it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestPoint {
    /// What the guest calls it.
    pub(crate) name: String,
    /// What is printed: a TODO that fails is no failure.
    pub(crate) ok: bool,
    /// Whether it is a SKIP, and why.
    pub(crate) skipped: Option<String>,
    /// Its case.
    pub(crate) case: Option<u64>,
    /// What tlbsan has to say about it, without colours.
    pub(crate) notes: Vec<String>,
}

impl<'a, W: Write> Session<'a, W> {
    /// Nothing has happened.
    pub(crate) fn new(out: W, telling: Telling<'a>, style: Style) -> Self {
        Self {
            out,
            fresh: true,
            telling,
            style,
            splitter: Splitter::default(),
            tap: false,
            waiting: VecDeque::new(),
            deadline: None,
            missed: false,
            stream_ended: false,
            cases: BTreeMap::new(),
            told: BTreeSet::new(),
            held: BTreeMap::new(),
            notes: Vec::new(),
            yaml: false,
            last: None,
            tally: Tally::default(),
            points: Vec::new(),
        }
    }

    /// The guest printed something.
    pub(crate) fn console(&mut self, bytes: &[u8], now: Instant) {
        self.waiting.extend(self.splitter.push(bytes, now));
        self.pump(now);
    }

    /// A record came.
    pub(crate) fn record(&mut self, record: Record, now: Instant) {
        match record {
            Record::Start { .. }
            | Record::Repeats { .. }
            | Record::Cost(_)
            | Record::Blinded(_)
            | Record::Found { .. }
            | Record::End(_)
            | Record::Outcome(_) => {}
            Record::Notice { text } => {
                let text = format!("{} {text}", self.style.paint.yellow("tlbsan: note:"));
                self.say(&[text]);
            }
            Record::Remark(remark) => {
                let text = format!("tlbsan: {}", story::remark(&remark, self.telling, self.style.paint));
                self.say(&[text]);
            }
            Record::Violation(violation) if violation.severity != Severity::Error => {
                let lines = tell(&violation, self.telling, self.style.paint);
                self.say(&lines);
            }
            Record::Violation(violation) => match violation.case {
                Some(id) if !self.told.contains(&id) => self.held.entry(id).or_default().push(*violation),
                _ => self.unexpected(&violation),
            },
            Record::Case(case) => {
                let tally = if case.passed { &mut self.tally.passed } else { &mut self.tally.failed };
                *tally += 1;
                self.tally.unexpected += case.extra().collect::<BTreeSet<_>>().len() as u64;
                self.missed = false;
                self.told.remove(&case.id);
                if let Some((earlier, _)) = self.cases.insert(case.id, (case, now)) {
                    self.pointless(&earlier);
                }
                self.pump(now);
            }
        }
    }

    /// No more records will come.
    pub(crate) fn stream_ended(&mut self, now: Instant) {
        self.stream_ended = true;
        self.pump(now);
    }

    /// Time goes by.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.waiting.extend(self.splitter.idle(now));
        self.pump(now);
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= PATIENCE) && !self.yaml {
            self.flush_notes();
        }
        // Without TAP a case has no line to stand below.
        let old = |at: &Instant| now.saturating_duration_since(*at) >= Duration::from_secs(1);
        while !self.tap
            && let Some(id) = self.cases.iter().find(|(_, (_, at))| old(at)).map(|(&id, _)| id)
        {
            self.orphan(id);
        }
    }

    /// Everything has ended: says what is left.
    pub(crate) fn finish(&mut self, now: Instant) -> Tally {
        self.stream_ended = true;
        self.waiting.extend(self.splitter.end());
        self.pump(now);
        self.flush_notes();
        while let Some(&id) = self.cases.keys().next() {
            self.orphan(id);
        }
        for (id, violations) in std::mem::take(&mut self.held) {
            self.say(&[format!("tlbsan: case {id} did not end, so that nobody knows what it expected")]);
            for violation in violations {
                self.unexpected(&violation);
            }
        }
        self.tally.clone()
    }

    /// Whether something counts against the guest already.
    pub(crate) fn has_failed(&self) -> bool {
        self.tally.unexpected + self.tally.failed > 0
    }

    /// The test points so far.
    pub(crate) fn points(&self) -> &[TestPoint] {
        &self.points
    }

    /// Lines of tlbsan's own: comments where the output is TAP.
    pub(crate) fn say(&mut self, lines: &[String]) {
        self.flush_notes();
        let lead = if !self.fresh { "\n" } else { "" };
        let comment = if self.tap { "# " } else { "" };
        let text: String = lines.iter().map(|line| format!("{comment}{line}\n")).collect();
        self.write(format!("{lead}{text}").as_bytes());
    }

    /// Hands out what need not wait any longer.
    fn pump(&mut self, now: Instant) {
        while let Some(piece) = self.waiting.front() {
            if let Piece::Line(line) = piece
                && let Line::Point(point) = tap::read(line)
                && self.must_wait(&point, now)
            {
                return;
            }
            self.deadline = None;
            match self.waiting.pop_front() {
                Some(Piece::Line(line)) => self.line(&line),
                Some(Piece::Part(part)) => {
                    self.flush_notes();
                    self.pass(&part);
                }
                None => {}
            }
            self.last = Some(now);
        }
    }

    fn must_wait(&mut self, point: &Point, now: Instant) -> bool {
        let id = point.number.unwrap_or(self.tally.points + 1);
        if !self.tap || !self.style.cases || point.skip || self.stream_ended || self.cases.contains_key(&id) {
            return false;
        }
        let wait = if self.missed { SHORT_WAIT } else { WAIT };
        now < *self.deadline.get_or_insert(now + wait)
    }

    fn line(&mut self, line: &[u8]) {
        let read = tap::read(line);
        if !self.tap && read != Line::Version {
            return self.pass(line);
        }
        let indented = line.starts_with(b"  ");
        match line.trim_ascii() {
            b"---" if indented && !self.notes.is_empty() => self.yaml = true,
            b"..." if self.yaml => {
                self.yaml = false;
                self.pass(line);
                return self.flush_notes();
            }
            _ if self.yaml && indented => {}
            _ => {
                self.yaml = false;
                self.flush_notes();
            }
        }
        match read {
            Line::Version => self.tap = true,
            Line::Plan(count) => self.tally.plan = Some(count),
            Line::BailOut(why) => self.tally.bailed = Some(why),
            Line::Point(point) => return self.point(&point),
            Line::Other => {}
        }
        self.pass(line);
    }

    fn point(&mut self, point: &Point) {
        self.tally.points += 1;
        let id = point.number.unwrap_or(self.tally.points);
        let case = if point.skip { None } else { self.cases.remove(&id).map(|(case, _)| case) };
        self.missed |= case.is_none() && !point.skip;
        let merged = tap::merge(point, case.as_ref());
        self.tally.skipped += u64::from(point.skip);
        self.tally.guest_failed += u64::from(merged.guest_failed);

        let paint = self.style.paint;
        let status = match merged.ok {
            true if point.skip => paint.yellow("ok"),
            true => paint.green("ok"),
            false => paint.red("not ok"),
        };
        let rest = match point.rest.find('#') {
            Some(at) if point.skip || point.todo => {
                let (name, directive) = point.rest.split_at(at);
                format!("{name}{}", paint.yellow(directive))
            }
            _ => point.rest.clone(),
        };
        let told = !self.style.quiet || (!merged.ok && !point.todo);
        if told {
            let lead = if self.fresh { "" } else { "\n" };
            self.write(format!("{lead}{status}{rest}\n").as_bytes());
        }
        self.points.push(TestPoint {
            name: tap::name(&point.rest),
            ok: merged.ok || point.todo,
            skipped: point.skip.then(|| tap::reason(&point.rest)),
            case: case.as_ref().map(|case| case.id),
            notes: Vec::new(),
        });
        if let Some(case) = case {
            self.told.insert(id);
            let violations = self.held.remove(&id).unwrap_or_default();
            let plain = self.findings(&case, &violations, Paint::PLAIN);
            let mut lines = self.findings(&case, &violations, self.style.paint);
            if let Some(point) = self.points.last_mut() {
                point.notes = plain;
            }
            if merged.guest_failed {
                lines.push("tlbsan: nothing against it; the guest itself failed it".to_owned());
            }
            if told {
                self.notes = lines;
            }
        }
    }

    /// What tlbsan has to say about a case.
    fn findings(&self, case: &CaseResult, violations: &[Violation], paint: Paint) -> Vec<String> {
        let story = |wanted: &Verdict| {
            let found = violations.iter().filter(|violation| Verdict::from(*violation) == *wanted);
            found.flat_map(|violation| tell(violation, self.telling, paint)).collect::<Vec<_>>()
        };
        let mut lines = Vec::new();
        let counts = format!("{} opened, {} cleaned", count(case.opened, "stale entry", "stale entries"), case.cleaned);
        if case.expected.is_empty() && case.seen.is_empty() {
            lines.push(if case.awake() {
                paint.dim(&format!("tlbsan: silent; {counts}"))
            } else {
                paint.red(&format!("tlbsan: asleep: {counts}; where nothing goes stale, silence proves nothing"))
            });
        }
        let seen: BTreeSet<&Verdict> = case.seen.iter().collect();
        for verdict_seen in seen {
            if case.expected.contains(verdict_seen) {
                lines.push(format!("tlbsan: {} {}", paint.green("as expected:"), verdict(verdict_seen)));
                if self.style.stories {
                    lines.extend(story(verdict_seen));
                }
                continue;
            }
            lines.push(format!("tlbsan: {} {}", paint.red("unexpected:"), verdict(verdict_seen)));
            lines.extend(story(verdict_seen));
        }
        for unmet in case.unmet().collect::<BTreeSet<_>>() {
            lines.push(format!("tlbsan: {} {}; {counts}", paint.red("missing:"), verdict(unmet)));
        }
        lines
    }

    /// A case that has a record and no test point (yet).
    fn orphan(&mut self, id: u64) {
        if let Some((case, _)) = self.cases.remove(&id) {
            self.pointless(&case);
        }
    }

    fn pointless(&mut self, case: &CaseResult) {
        self.told.insert(case.id);
        let violations = self.held.remove(&case.id).unwrap_or_default();
        if self.style.quiet && case.passed {
            return;
        }
        let paint = self.style.paint;
        let word = if case.passed { paint.green("passed") } else { paint.red("failed") };
        let mut lines = vec![format!("tlbsan: case {} {word}", case.id)];
        lines.extend(self.findings(case, &violations, paint));
        self.say(&lines);
    }

    /// A violation that no case expects.
    fn unexpected(&mut self, violation: &Violation) {
        self.tally.unexpected += 1;
        let mut lines = tell(violation, self.telling, self.style.paint);
        if !self.tap {
            // Room to breathe amid a kernel's log.
            lines.insert(0, String::new());
            lines.push(String::new());
        }
        self.say(&lines);
    }

    fn flush_notes(&mut self) {
        self.yaml = false;
        let notes = std::mem::take(&mut self.notes);
        let text: String = notes.iter().map(|note| format!("  # {note}\n")).collect();
        self.write(text.as_bytes());
    }

    /// Shows what the guest printed.
    fn pass(&mut self, bytes: &[u8]) {
        if !self.style.quiet {
            self.write(bytes);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.fresh = *last == b'\n';
            // If nobody reads any more, the exit code still counts.
            let _ = self.out.write_all(bytes).and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
