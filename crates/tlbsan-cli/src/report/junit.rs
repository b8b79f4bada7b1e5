//! JUnit's XML, as test reports read it: a test case for each test point or case, and one for the run itself.

use std::fmt::Write;

use super::{Report, escaped};
use crate::paint::Paint;
use crate::story::tell;

/// One `testcase`.
struct Case {
    name: String,
    /// The element's name, the message and the text; `None`: passed.
    outcome: Option<(&'static str, String, String)>,
}

/// The whole document.
pub(super) fn suites(report: &Report<'_>) -> String {
    let mut cases: Vec<Case> = report
        .points
        .iter()
        .map(|point| {
            let text = point.notes.join("\n");
            let outcome = match &point.skipped {
                Some(why) => Some(("skipped", why.clone(), String::new())),
                None if point.ok => None,
                None => {
                    Some(("failure", point.notes.first().cloned().unwrap_or("the guest itself failed it".into()), text))
                }
            };
            Case { name: point.name.clone(), outcome }
        })
        .collect();
    let told: Vec<u64> = report.points.iter().filter_map(|point| point.case).collect();
    for case in report.account.cases.iter().filter(|case| !told.contains(&case.id)) {
        let outcome = (!case.passed).then(|| ("failure", "not as expected".to_owned(), stories(report, Some(case.id))));
        cases.push(Case { name: format!("case {}", case.id), outcome });
    }
    cases.push(run(report));

    let count =
        |what| cases.iter().filter(|case| case.outcome.as_ref().is_some_and(|(kind, ..)| *kind == what)).count();
    let counts = format!(
        r#"tests="{}" failures="{}" errors="{}" skipped="{}""#,
        cases.len(),
        count("failure"),
        count("error"),
        count("skipped")
    );
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // A String takes everything.
    let _ = writeln!(out, "<testsuites name=\"tlbsan\" {counts}>");
    let _ = writeln!(out, "  <testsuite name=\"tlbsan\" {counts}>");
    for Case { name, outcome } in &cases {
        let _ = write!(out, "    <testcase classname=\"tlbsan\" name=\"{}\"", escaped(name));
        let _ = match outcome {
            None => writeln!(out, "/>"),
            Some((kind, message, text)) => writeln!(
                out,
                ">\n      <{kind} message=\"{}\">{}</{kind}>\n    </testcase>",
                escaped(message),
                escaped(text)
            ),
        };
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// What is no test point's: violations outside cases, a hang, a crash.
fn run(report: &Report<'_>) -> Case {
    let outcome = match report.outcome.code {
        0 => None,
        _ if report.account.findings.iter().any(|finding| finding.counts() && finding.violation.case.is_none()) => {
            Some(("failure", report.outcome.word.clone(), stories(report, None)))
        }
        // Its cases say it.
        1 => None,
        _ => Some(("error", report.outcome.word.clone(), report.outcome.reasons.join("\n"))),
    };
    Case { name: "the run".to_owned(), outcome }
}

fn stories(report: &Report<'_>, case: Option<u64>) -> String {
    let findings = report.account.findings.iter().filter(|finding| finding.counts() && finding.violation.case == case);
    findings.flat_map(|finding| tell(&finding.violation, report.telling, Paint::PLAIN)).collect::<Vec<_>>().join("\n")
}
