//! The time line of a violation: a lane for each PE, a column for each step, and on the lanes for how long a PE may have held the
//! old entry. Columns are in the order of events and not to scale: between two steps there may be millions.

use std::collections::BTreeSet;
use std::fmt::Write;

use tlbsan::report::{Site, Violation};
use tlbsan_hint::{Cause, Kind};

use super::escaped;
use crate::story::{Step, operation, steps};

/// PEs that get a lane; those that did something first.
const LANES: usize = 16;
const LANE: usize = 30;
const TOP: usize = 42;
const LEFT: usize = 60;
/// Of a character, about.
const CHARACTER: usize = 8;

/// What a column shows.
struct Column<'a> {
    site: &'a Site,
    class: &'static str,
    label: String,
    below: &'static str,
    /// Whether it reaches every PE.
    broadcast: bool,
}

fn columns(v: &Violation) -> Vec<Column<'_>> {
    let did: Vec<&Site> = steps(v)
        .into_iter()
        .filter_map(|step| match step {
            Step::Did(site, _) => Some(site),
            Step::Note(_) => None,
        })
        .collect();
    let last = did.len().saturating_sub(1);
    did.into_iter()
        .enumerate()
        .map(|(n, site)| match (n, n.checked_sub(1).and_then(|at| v.attempts.get(at))) {
            // What breaks the rule; it may be the first step as well.
            (n, _) if n == last => {
                Column { site, class: "use", label: short_use(v).to_owned(), below: v.kind.name(), broadcast: false }
            }
            (0, _) => {
                Column { site, class: "store", label: "store".to_owned(), below: "old entry goes", broadcast: false }
            }
            (_, Some(attempt)) => {
                let label = operation(&attempt.op);
                let label = label.split(',').next().unwrap_or_default().to_owned();
                let broadcast =
                    label.trim_end_matches("NXS").ends_with("IS") || label.trim_end_matches("NXS").ends_with("OS");
                Column { site, class: "tlbi", label, below: short_cause(attempt.cause), broadcast }
            }
            _ => Column { site, class: "tlbi", label: String::new(), below: "", broadcast: false },
        })
        .collect()
}

fn short_use(v: &Violation) -> &'static str {
    match v.kind {
        Kind::Remade => "new entry",
        Kind::Reused => "page reused",
        Kind::LiveChange => "store over it",
        Kind::Claimed => "hint",
        Kind::StaleAccess => "access",
        Kind::Asid => "other root",
    }
}

fn short_cause(cause: Cause) -> &'static str {
    match cause {
        Cause::NoInvalidation => "nothing",
        Cause::LeafOnly => "leaves only",
        Cause::LocalOnly => "this PE only",
        Cause::WrongRange => "other range",
        Cause::WrongAsid => "other ASID",
        Cause::GlobalSurvives => "not globals",
        Cause::WrongTtl => "wrong TTL",
        Cause::NotBrokenFirst => "not broken",
        Cause::NotOrdered => "not ordered",
        Cause::NotCompleted => "no DSB after",
        Cause::NotSynchronised => "no ISB after",
    }
}

/// The drawing.
pub(super) fn svg(v: &Violation) -> String {
    let columns = columns(v);
    let acting: BTreeSet<usize> = columns.iter().map(|column| column.site.pe).collect();
    let mut lanes: Vec<usize> =
        acting.iter().copied().chain(v.pes.iter().copied().filter(|pe| !acting.contains(pe))).collect();
    let hidden = lanes.len().saturating_sub(LANES);
    lanes.truncate(LANES);
    lanes.sort_unstable();

    let mut at = LEFT + 30;
    let places: Vec<usize> = columns
        .iter()
        .map(|column| {
            let half = column.label.len().max(column.below.len()) * CHARACTER / 2 + 12;
            let place = at + half;
            at = place + half;
            place
        })
        .collect();
    let (width, bottom) = (at + 40, TOP + lanes.len() * LANE);
    let height = bottom + 24 + if hidden > 0 { 18 } else { 0 };
    let (first, last) = (places.first().copied().unwrap_or(at), places.last().copied().unwrap_or(at));
    let y = |pe: usize| lanes.iter().position(|lane| *lane == pe).map(|n| TOP + n * LANE + LANE / 2);

    let mut out = format!(
        r#"<svg class="timeline" role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}"><title>Time line: {}</title>"#,
        escaped(
            &columns
                .iter()
                .map(|column| format!("PE {}: {}", column.site.pe, column.label))
                .collect::<Vec<_>>()
                .join(", ")
        )
    );
    // A String takes everything.
    for &pe in &lanes {
        let y = y(pe).unwrap_or(TOP);
        let _ = write!(out, r#"<g class="pe"><text x="8" y="{}">PE {pe}</text>"#, y + 4);
        let _ = write!(out, r#"<line class="lane" x1="{LEFT}" y1="{y}" x2="{}" y2="{y}"/>"#, width - 8);
        if v.pes.contains(&pe) {
            let bar = |class: &str, from: usize, to: usize| {
                let width = to.saturating_sub(from);
                format!(r#"<rect class="{class}" x="{from}" y="{}" width="{width}" height="8" rx="2"/>"#, y - 4)
            };
            let _ = write!(
                out,
                "{}{}{}",
                bar("legal", LEFT, first),
                bar("window", first, last),
                bar("error", last, width - 8)
            );
        }
        out.push_str("</g>");
    }
    for (number, (column, x)) in columns.iter().zip(places).enumerate() {
        let y = y(column.site.pe).unwrap_or(TOP);
        if column.broadcast {
            let _ = write!(out, r#"<line class="reach" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}"/>"#);
        }
        let mark = match column.class {
            "store" => format!(r#"<rect class="store" x="{}" y="{}" width="14" height="14"/>"#, x - 7, y - 7),
            "tlbi" => {
                let points =
                    [(x, y - 9), (x + 9, y), (x, y + 9), (x - 9, y)].map(|(x, y)| format!("{x},{y}")).join(" ");
                format!(r#"<polygon class="tlbi" points="{points}"/>"#)
            }
            _ => format!(r#"<circle class="use" cx="{x}" cy="{y}" r="8"/>"#),
        };
        let _ = write!(
            out,
            r#"<g class="step">{mark}<text x="{x}" y="18" text-anchor="middle">{} {}</text><text class="dim" x="{x}" y="{}" text-anchor="middle">{}</text></g>"#,
            number + 1,
            escaped(&column.label),
            bottom + 16,
            escaped(column.below)
        );
    }
    if hidden > 0 {
        let _ =
            write!(out, r#"<text class="dim" x="8" y="{}">and {hidden} more PEs that may hold it</text>"#, height - 6);
    }
    out.push_str("</svg>");
    out
}
