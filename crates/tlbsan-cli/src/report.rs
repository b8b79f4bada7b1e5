//! What a run leaves behind besides its console: records as JSON lines while it goes on, and files written when it has ended.
//!
//! Every record passes here first. With `--suppress` the plugin makes a record of every violation, and what is known is taken
//! out here, before repeats are folded: a known bug must not hide an unknown one that breaks the same rule at the same place.

mod html;
mod junit;
mod sarif;
mod timeline;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tlbsan::report::{CaseResult, Cost, Record, Severity, Summary, Verdict, Violation};
use tlbsan_hint::{Cause, Kind};

use crate::args::Options;
use crate::command::Refusal;
use crate::cost;
use crate::outcome::{self, Facts, Outcome};
use crate::paint::Paint;
use crate::session::TestPoint;
use crate::stack::Telling;
use crate::suppress::Suppressions;

/// Violations that reports hold; the JSON lines have them all.
const MOST: usize = 2_000;

/// A violation, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) violation: Violation,
    /// How many more there were at the same places.
    pub(crate) repeats: u64,
    /// Its case expected it.
    pub(crate) expected: bool,
}

impl Finding {
    /// Whether it counts against the guest.
    pub(crate) fn counts(&self) -> bool {
        self.violation.severity == Severity::Error && self.violation.suppressed.is_none() && !self.expected
    }
}

/// Everything that was said.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) findings: Vec<Finding>,
    /// Findings that were one too many.
    pub(crate) left_out: u64,
    pub(crate) cases: Vec<CaseResult>,
    pub(crate) notices: Vec<String>,
    pub(crate) remarks: Vec<tlbsan::report::Remark>,
    pub(crate) costs: Vec<Cost>,
    pub(crate) end: Option<Summary>,
}

impl Account {
    fn add(&mut self, record: &Record) {
        match record {
            Record::Violation(_) if self.findings.len() >= MOST => self.left_out += 1,
            Record::Violation(violation) => {
                self.findings.push(Finding { violation: (**violation).clone(), repeats: 0, expected: false })
            }
            Record::Repeats { violation, more } => {
                let told = self.findings.iter_mut().find(|finding| finding.violation.number == *violation);
                told.into_iter().for_each(|finding| finding.repeats += more);
            }
            Record::Case(case) => {
                for finding in self.findings.iter_mut().filter(|finding| finding.violation.case == Some(case.id)) {
                    finding.expected = case.expected.contains(&Verdict::from(&finding.violation));
                }
                self.cases.push(case.clone());
            }
            Record::Notice { text } => self.notices.push(text.clone()),
            Record::Remark(remark) => self.remarks.push((**remark).clone()),
            Record::Cost(cost) => self.costs.push((**cost).clone()),
            Record::End(summary) => self.end = Some(summary.clone()),
            Record::Start { .. } | Record::Blinded(_) | Record::Found { .. } | Record::Outcome(_) => {}
        }
    }
}

/// What the writers of files are given.
pub(crate) struct Report<'a> {
    pub(crate) account: &'a Account,
    pub(crate) points: &'a [TestPoint],
    pub(crate) facts: &'a Facts,
    pub(crate) outcome: &'a Outcome,
    pub(crate) telling: Telling<'a>,
    /// What was run.
    pub(crate) subject: &'a str,
}

type Writer = fn(&Report<'_>) -> String;

/// The files that were asked for.
pub(crate) struct Reports<'a> {
    telling: Telling<'a>,
    known: Option<Known>,
    json: Option<BufWriter<File>>,
    files: Vec<(PathBuf, File, Writer)>,
    account: Account,
    subject: String,
}

impl<'a> Reports<'a> {
    /// Opens them, so that nobody waits for a run whose report cannot be written.
    pub(crate) fn open(options: &Options, telling: Telling<'a>, subject: String) -> Result<Self, Refusal> {
        let create = |path: &Path, option: &str| {
            File::create(path).map_err(|error| {
                Refusal(format!("cannot write {}: {error}; name another file with `--{option}`", path.display()))
            })
        };
        let wanted: [(_, _, Writer); 3] = [
            (&options.html, "html", html::page),
            (&options.sarif, "sarif", sarif::log),
            (&options.junit, "junit", junit::suites),
        ];
        let mut files = Vec::new();
        for (path, option, writer) in wanted {
            if let Some(path) = path {
                files.push((path.clone(), create(path, option)?, writer));
            }
        }
        let json = options.json.as_deref().map(|path| create(path, "json")).transpose()?.map(BufWriter::new);
        let known = options.suppress.as_deref().map(Suppressions::load).transpose()?.map(Known::new);
        Ok(Self { telling, known, json, files, account: Account::default(), subject })
    }

    /// Takes a record as it comes, and gives back what is to be told of it.
    pub(crate) fn take(&mut self, record: Record) -> Vec<Record> {
        let sifted = match &mut self.known {
            Some(known) => known.sift(record, self.telling),
            None => vec![record],
        };
        for record in &sifted {
            // A full disk is told at the end, when the outcome cannot be written either.
            let _ = self.write(record);
            self.account.add(record);
        }
        let suppressed = |record: &Record| matches!(record, Record::Violation(v) if v.suppressed.is_some());
        sifted.into_iter().filter(|record| !suppressed(record)).collect()
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Some(json) = &mut self.json else { return Ok(()) };
        serde_json::to_writer(&mut *json, record)?;
        writeln!(json)
    }

    /// How many violations were suppressed.
    pub(crate) fn suppressed(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| known.suppressed)
    }

    /// Everything has ended: writes the files, and says what is to be said before the summary.
    pub(crate) fn finish(
        mut self,
        facts: &Facts,
        outcome: &Outcome,
        points: &[TestPoint],
        paint: Paint,
    ) -> Result<Vec<String>, Refusal> {
        let account = &self.account;
        let report = Report { account, points, facts, outcome, telling: self.telling, subject: &self.subject };
        let full = |path: &Path, error: io::Error| {
            Refusal(format!("{} could not be written in full: {error}; make room for it", path.display()))
        };
        for (path, file, writer) in &mut self.files {
            file.write_all(writer(&report).as_bytes()).map_err(|error| full(path, error))?;
        }
        let mut lines = cost::profile(&account.costs, self.telling, paint);
        let written = self.write(&Record::Outcome(outcome::record(facts, outcome)));
        let written = written.and_then(|()| self.json.as_mut().map_or(Ok(()), BufWriter::flush));
        written.map_err(|error| full(Path::new("the file of `--json`"), error))?;
        let unused = self.known.iter().flat_map(|known| known.suppressions.unused());
        lines.extend(unused.map(|unused| format!("{} {unused}", paint.yellow("tlbsan: note:"))));
        Ok(lines)
    }
}

type Place = (Option<u64>, Severity, Kind, Cause, u64, u64, bool);

/// Takes out what is known, and folds repeats of the rest.
struct Known {
    suppressions: Suppressions,
    /// Numbers of what was told, and how often it was not told again.
    told: HashMap<Place, (u64, u64)>,
    /// Verdicts of the case that runs, by its number.
    seen: HashMap<u64, Vec<(Verdict, bool)>>,
    summary: Summary,
    suppressed: u64,
}

impl Known {
    fn new(suppressions: Suppressions) -> Self {
        let (told, seen, summary) = (HashMap::new(), HashMap::new(), Summary::default());
        Self { suppressions, told, seen, summary, suppressed: 0 }
    }

    /// What is left of a record.
    fn sift(&mut self, record: Record, telling: Telling<'_>) -> Vec<Record> {
        match record {
            Record::Violation(violation) => self.violation(*violation, telling).into_iter().collect(),
            Record::Case(case) => vec![Record::Case(self.case(case))],
            Record::End(end) => {
                let mut repeats: Vec<(u64, u64)> = self.told.values().copied().filter(|(_, more)| *more > 0).collect();
                repeats.sort_unstable();
                let repeats = repeats.into_iter().map(|(violation, more)| Record::Repeats { violation, more });
                let Summary { violations, repeats: folded, unexpected, passed, failed, .. } = self.summary;
                let end = Summary { violations, repeats: folded, unexpected, passed, failed, ..end };
                repeats.chain([Record::End(end)]).collect()
            }
            other => vec![other],
        }
    }

    fn violation(&mut self, mut v: Violation, telling: Telling<'_>) -> Option<Record> {
        let known = self.suppressions.matching(&v, telling.names);
        let error = v.severity == Severity::Error;
        self.suppressed += u64::from(known.is_some());
        match v.case {
            Some(id) if error => self.seen.entry(id).or_default().push((Verdict::from(&v), known.is_some())),
            None if error && known.is_none() => self.summary.unexpected += 1,
            _ => {}
        }
        let place = (v.case, v.severity, v.kind, v.cause, v.trigger.pc, v.removed.pc, known.is_some());
        if let Some((_, more)) = self.told.get_mut(&place) {
            *more += u64::from(error);
            self.summary.repeats += u64::from(error && known.is_none());
            return None;
        }
        if error {
            self.summary.violations += 1;
            v.number = self.summary.violations;
        }
        self.told.insert(place, (v.number, 0));
        v.suppressed = known;
        Some(Record::Violation(Box::new(v)))
    }

    /// The case as it is without what is known.
    fn case(&mut self, mut case: CaseResult) -> CaseResult {
        let verdicts = self.seen.remove(&case.id).unwrap_or_default();
        let hidden = |v: &Verdict| {
            let mut of_it = verdicts.iter().filter(|(other, _)| other == v).peekable();
            of_it.peek().is_some() && of_it.all(|(_, known)| *known)
        };
        let expected = case.expected.clone();
        case.seen.retain(|v| expected.contains(v) || !hidden(v));
        let sets: [BTreeSet<&Verdict>; 2] = [case.expected.iter().collect(), case.seen.iter().collect()];
        case.passed = sets[0] == sets[1] && (case.awake() || !case.expected.is_empty());
        self.summary.unexpected += case.extra().count() as u64;
        let tally = if case.passed { &mut self.summary.passed } else { &mut self.summary.failed };
        *tally += 1;
        case
    }
}

/// The first place with a line in a call stack: the kernel's own before a library's.
pub(crate) fn source_line(site: &tlbsan::report::Site, telling: Telling<'_>) -> Option<(String, u32)> {
    let whole = crate::stack::stack(site, telling.names);
    let (short, _) = crate::stack::shown(&whole, &whole, false);
    let line = |frame: &crate::symbols::Frame| {
        let (file, line) = frame.location.as_ref()?;
        // What is not below the project's folder is somebody else's.
        (!file.starts_with('/')).then(|| Some((file.clone(), (*line)?)))?
    };
    short.iter().find_map(line).or_else(|| whole.iter().find_map(line))
}

/// The innermost function that has a name, as it is shown short.
pub(crate) fn function(site: &tlbsan::report::Site, telling: Telling<'_>) -> Option<String> {
    let whole = crate::stack::stack(site, telling.names);
    let (short, _) = crate::stack::shown(&whole, &whole, false);
    short.into_iter().find_map(|frame| frame.function)
}

/// Text for elements and attributes of XML and HTML. What neither can hold is shown as U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
