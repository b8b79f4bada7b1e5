//! A report to look at: one file, with nothing to fetch and nothing to run. What comes from the guest is text, whatever it looks like.

use std::fmt::Write;

use tlbsan::report::{Severity, Site, Step as Way, Violation};

use super::{Finding, Report, escaped, timeline};
use crate::advice::advice;
use crate::cost;
use crate::outcome;
use crate::paint::{Paint, bits, count, hex, regroup};
use crate::stack::{Telling, addresses, line, stack};
use crate::story::{Step, headline, rule, steps, tagged};

/// A heading, and which findings belong below it.
type Section = (&'static str, fn(&Finding) -> bool);

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(report: &Report<'_>) -> String {
    let summary = outcome::summary(report.facts, report.outcome);
    let class = if report.outcome.code == 0 { "good" } else { "wrong" };
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.push_str(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    );
    // A String takes everything.
    let _ = write!(
        out,
        "<title>tlbsan: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>tlbsan <span class=\"badge {class}\">{}</span></h1>\n\
         <p id=\"summary\">{}</p>\n<p class=\"dim mono\">{}</p>\n</header>\n",
        escaped(&report.outcome.word),
        escaped(&report.outcome.word),
        escaped(&summary),
        escaped(report.subject)
    );
    for reason in &report.outcome.reasons {
        let _ = writeln!(out, "<p class=\"wrong\">{}</p>", escaped(reason));
    }

    let sections: [Section; 4] = [
        ("Violations", Finding::counts),
        ("Expected by their cases", |finding| finding.expected),
        ("Suppressed", |finding| finding.violation.suppressed.is_some() && !finding.expected),
        ("Advice", |finding| {
            finding.violation.severity != Severity::Error && finding.violation.suppressed.is_none() && !finding.expected
        }),
    ];
    for (title, belongs) in sections {
        let findings: Vec<&Finding> = report.account.findings.iter().filter(|finding| belongs(finding)).collect();
        if findings.is_empty() {
            continue;
        }
        let _ = writeln!(out, "<section>\n<h2>{title} <span class=\"dim\">{}</span></h2>", findings.len());
        for finding in findings {
            article(&mut out, finding, report.telling);
        }
        out.push_str("</section>\n");
    }
    if report.account.left_out > 0 {
        let _ = writeln!(
            out,
            "<p>{} are not shown.</p>",
            count(report.account.left_out, "more violation", "more violations")
        );
    }
    cases(&mut out, report);
    costs(&mut out, report);
    remarks(&mut out, report);
    out.push_str("</body>\n</html>\n");
    out
}

fn article(out: &mut String, finding: &Finding, telling: Telling<'_>) {
    let v = &finding.violation;
    let quiet = if finding.counts() { "" } else { " quiet" };
    let _ = write!(
        out,
        "<article class=\"violation{quiet}\" id=\"v{}\">\n<h3><span class=\"badge wrong\" title=\"{}\">{}</span> <span class=\"badge\">{}</span> {}</h3>\n",
        v.number,
        escaped(rule(v.kind)),
        v.kind,
        v.cause,
        escaped(&headline(v))
    );
    let mut facts = vec![format!("slot {}", hex(v.slot.into())), tagged(v)];
    facts.extend(v.case.map(|case| format!("case {case}")));
    facts.extend((v.times > 1).then(|| format!("{} by the same store", count(v.times, "entry", "entries"))));
    facts.extend(
        (finding.repeats > 0).then(|| format!("{} from the same places", count(finding.repeats, "repeat", "repeats"))),
    );
    facts.extend(finding.violation.suppressed.as_ref().map(|place| format!("suppressed by {place}")));
    let _ = writeln!(out, "<p class=\"dim\">{}</p>", escaped(&facts.join(" · ")));

    let _ = writeln!(out, "<h4>Time line</h4>\n<div class=\"scroll\">{}</div>", timeline::svg(v));
    out.push_str(
        "<p class=\"legend dim\"><span><i style=\"background:var(--legal)\"></i>may be cached, and is right</span><span><i \
         style=\"background:var(--stale)\"></i>stale, and still allowed</span><span><i style=\"background:var(--wrong)\"></i>an \
         error from here on</span></p>\n",
    );
    trees(out, v);
    story(out, v, telling);
    let _ = writeln!(out, "<p class=\"todo\"><strong>What to do:</strong> {}</p>\n</article>", escaped(&advice(v)));
}

/// The tables on the way to the entry, before and after.
fn trees(out: &mut String, v: &Violation) {
    out.push_str("<h4>Tables</h4>\n<div class=\"trees\">\n");
    let (before, after) = (&v.ways.before, &v.ways.after);
    tree(out, "Before: what may be cached", before, after, "old");
    tree(out, "After: what memory says", after, before, "new");
    out.push_str("</div>\n");
    if before.is_empty() && after.is_empty() {
        let _ = writeln!(
            out,
            "<p class=\"mono\">old {} {}<br>new {} {}</p>",
            bits(v.old.bits),
            escaped(&regroup(&v.old.text)),
            bits(v.new.bits),
            escaped(&regroup(&v.new.text))
        );
    }
}

fn tree(out: &mut String, title: &str, way: &[Way], other: &[Way], class: &str) {
    if way.is_empty() {
        return;
    }
    let _ = write!(out, "<div class=\"tree\"><p class=\"dim\">{title}</p>\n<ol>\n");
    for (depth, step) in way.iter().enumerate() {
        let same = other.contains(step);
        let _ = writeln!(
            out,
            "<li style=\"--depth:{depth}\"{}><span class=\"dim\">level {}, table {}, entry {}</span><br><code>{}</code> {}</li>",
            if same { String::new() } else { format!(" class=\"{class}\"") },
            step.level,
            hex(step.table.into()),
            step.index,
            bits(step.entry.bits),
            escaped(&regroup(&step.entry.text))
        );
    }
    out.push_str("</ol></div>\n");
}

/// The steps with their call stacks.
fn story(out: &mut String, v: &Violation, telling: Telling<'_>) {
    out.push_str("<h4>What happened</h4>\n<ol class=\"steps\">\n");
    for step in steps(v) {
        match step {
            Step::Note(what) => {
                let _ = writeln!(out, "<li class=\"dim\" value=\"\" style=\"list-style:none\">{}</li>", escaped(&what));
            }
            Step::Did(site, what) => {
                let label =
                    site.label.as_ref().map(|label| format!(", in \u{201c}{label}\u{201d}")).unwrap_or_default();
                let _ = write!(
                    out,
                    "<li><strong>PE {}</strong> {}{} <span class=\"dim\">(event {})</span>",
                    site.pe,
                    escaped(&what),
                    escaped(&label),
                    site.at
                );
                frames(out, site, telling);
                out.push_str("</li>\n");
            }
        }
    }
    out.push_str("</ol>\n");
}

fn frames(out: &mut String, site: &Site, telling: Telling<'_>) {
    let short = crate::stack::lines(site, Telling { full_stacks: false, ..telling });
    let whole = stack(site, telling.names);
    out.push_str("<ul class=\"mono\">");
    short.iter().for_each(|line| {
        let _ = write!(out, "<li>{}</li>", escaped(line));
    });
    out.push_str("</ul>");
    if whole.len() > short.len() {
        let _ = write!(out, "<details><summary>all {} frames</summary><ul class=\"mono\">", whole.len());
        for frame in &whole {
            let _ = write!(out, "<li>{}</li>", escaped(&line(frame, Paint::PLAIN)));
        }
        let _ = write!(out, "</ul><p class=\"dim mono\">{}</p></details>", escaped(&addresses(site)));
    }
}

fn cases(out: &mut String, report: &Report<'_>) {
    if report.points.is_empty() && report.account.cases.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Cases</h2>\n<table id=\"cases\"><tr><th>case</th><th>result</th><th class=\"n\">opened</th><th class=\"n\">cleaned</th><th>expected</th></tr>\n");
    for case in &report.account.cases {
        let point = report.points.iter().find(|point| point.case == Some(case.id));
        let name = point.map_or_else(|| format!("case {}", case.id), |point| point.name.clone());
        let (class, word) = if case.passed { ("good", "passed") } else { ("wrong", "failed") };
        let expected: Vec<String> = case.expected.iter().map(crate::story::verdict).collect();
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"{class}\">{word}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escaped(&name),
            case.opened,
            case.cleaned,
            escaped(&expected.join("; "))
        );
    }
    for point in report.points.iter().filter(|point| point.case.is_none()) {
        let (class, word) = match (&point.skipped, point.ok) {
            (Some(why), _) => ("skipped", format!("skipped: {why}")),
            (None, true) => ("good", "passed".to_owned()),
            (None, false) => ("wrong", "failed".to_owned()),
        };
        let (name, word) = (escaped(&point.name), escaped(&word));
        let _ = writeln!(out, "<tr><td>{name}</td><td class=\"{class}\">{word}</td><td></td><td></td><td></td></tr>");
    }
    out.push_str("</table>\n</section>\n");
}

fn costs(out: &mut String, report: &Report<'_>) {
    if report.account.costs.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Cost of invalidation, by call site</h2>\n<div class=\"scroll\"><table id=\"cost\"><tr><th>operation, and where</th><th class=\"n\">TLBIs</th>");
    for (name, what) in cost::COLUMNS {
        let _ = write!(out, "<th class=\"n\" title=\"{}\">{}</th>", escaped(what), escaped(name));
    }
    out.push_str("</tr>\n");
    for cost in &report.account.costs {
        let place: Vec<String> = cost::place(cost, report.telling).iter().map(|line| escaped(line)).collect();
        let _ = write!(
            out,
            "<tr><td><strong>{}</strong><br><span class=\"mono dim\">{}</span></td><td class=\"n\">{}</td>",
            escaped(&crate::story::operation(&cost.op)),
            place.join("<br>"),
            cost.tlbis
        );
        cost::waste(cost).iter().for_each(|n| {
            let _ = write!(out, "<td class=\"n\">{n}</td>");
        });
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n</section>\n");
}

fn remarks(out: &mut String, report: &Report<'_>) {
    let account = report.account;
    if account.remarks.is_empty() && account.notices.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Notes</h2>\n<ul>\n");
    for remark in &account.remarks {
        let _ = writeln!(out, "<li>{}</li>", escaped(&crate::story::remark(remark, report.telling, Paint::PLAIN)));
    }
    for notice in &account.notices {
        let _ = writeln!(out, "<li>{}</li>", escaped(notice));
    }
    out.push_str("</ul>\n</section>\n");
}
