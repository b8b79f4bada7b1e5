//! SARIF 2.1.0, as code scanning reads it: a result for each violation, at the line that made it an error, with its story as a flow.

use serde_json::{Value, json};
use tlbsan::report::{Severity, Site};
use tlbsan_hint::Kind;

use super::{Finding, Report, function, source_line};
use crate::advice::advice;
use crate::paint::{hex, span};
use crate::stack::stack;
use crate::story::{Step, headline, rule, steps};

/// The whole document.
pub(super) fn log(report: &Report<'_>) -> String {
    let rules: Vec<Value> = Kind::ALL
        .iter()
        .map(|kind| {
            let text = rule(*kind);
            json!({
                "id": kind.name(),
                "name": kind.name(),
                "shortDescription": { "text": text },
                "fullDescription": { "text": text },
                "help": { "text": format!("{text}. See docs/rules.md of tlbsan.") },
                "defaultConfiguration": { "level": "error" },
                "properties": { "tags": ["tlb", "aarch64"], "problem.severity": "error" },
            })
        })
        .collect();
    let findings = report.account.findings.iter().filter(|finding| !finding.expected);
    let results: Vec<Value> = findings.map(|finding| result(finding, report)).collect();
    let ran = report.outcome.code != 2;
    let reasons = report.outcome.reasons.iter();
    let notes: Vec<Value> = reasons
        .map(|reason| json!({ "level": if ran { "warning" } else { "error" }, "message": { "text": reason } }))
        .collect();
    let log = json!({
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{
            "tool": { "driver": {
                "name": "tlbsan",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "invocations": [{
                "executionSuccessful": ran,
                "exitCode": report.outcome.code,
                "commandLine": report.subject,
                "toolExecutionNotifications": notes,
            }],
            "columnKind": "utf16CodeUnits",
            "results": results,
        }],
    });
    let mut text = serde_json::to_string_pretty(&log).unwrap_or_default();
    text.push('\n');
    text
}

fn result(finding: &Finding, report: &Report<'_>) -> Value {
    let v = &finding.violation;
    let message = format!("{} ({}). What to do: {}.", headline(v), v.cause, advice(v).trim_end_matches('.'));
    let flow: Vec<Value> = steps(v)
        .iter()
        .filter_map(|step| match step {
            Step::Did(site, what) => Some((site, format!("PE {} {what}", site.pe))),
            Step::Note(_) => None,
        })
        .enumerate()
        .map(|(order, (site, what))| {
            let mut location = location(site, report);
            location["message"] = json!({ "text": what });
            json!({ "location": location, "stack": call_stack(site, report), "executionOrder": order + 1 })
        })
        .collect();
    let mut result = json!({
        "ruleId": v.kind.name(),
        "ruleIndex": Kind::ALL.iter().position(|kind| *kind == v.kind),
        "level": if v.severity == Severity::Error { "error" } else { "note" },
        "message": { "text": message },
        "locations": [location(&v.trigger, report)],
        "codeFlows": [{ "threadFlows": [{ "locations": flow }] }],
        "occurrenceCount": finding.repeats + v.times.max(1),
        "partialFingerprints": { "tlbsan/v1": fingerprint(finding, report) },
        "properties": {
            "cause": v.cause.name(),
            "range": span(v.start, v.size),
            "level": v.level,
            "pes": v.pes,
        },
    });
    if let Some(place) = &finding.violation.suppressed {
        result["suppressions"] = json!([{ "kind": "external", "justification": place }]);
    }
    result
}

/// Where: in the sources, if they are known; in any case the address.
fn location(site: &Site, report: &Report<'_>) -> Value {
    let line = source_line(site, report.telling);
    let mut physical = json!({ "address": { "absoluteAddress": site.pc } });
    match &line {
        Some((file, line)) => {
            physical["artifactLocation"] = json!({ "uri": uri(file), "uriBaseId": "%SRCROOT%" });
            physical["region"] = json!({ "startLine": line });
        }
        // Code scanning wants a file for every result: the one place where the kernel is named.
        None => physical["artifactLocation"] = json!({ "uri": "kernel", "uriBaseId": "%SRCROOT%" }),
    }
    let name = function(site, report.telling).unwrap_or_else(|| hex(site.pc.into()));
    json!({
        "physicalLocation": physical,
        "logicalLocations": [{ "fullyQualifiedName": name, "kind": "function" }],
    })
}

fn call_stack(site: &Site, report: &Report<'_>) -> Value {
    let frames = stack(site, report.telling.names);
    let frames: Vec<Value> = frames
        .iter()
        .map(|frame| {
            let name = frame.function.as_deref().unwrap_or("?");
            let mut location = json!({ "logicalLocations": [{ "fullyQualifiedName": name, "kind": "function" }] });
            if let Some((file, line)) = frame.location.as_ref().filter(|(file, _)| !file.starts_with('/')) {
                location["physicalLocation"] =
                    json!({ "artifactLocation": { "uri": uri(file), "uriBaseId": "%SRCROOT%" } });
                if let Some(line) = line {
                    location["physicalLocation"]["region"] = json!({ "startLine": line });
                }
            }
            json!({ "location": location })
        })
        .collect();
    json!({ "frames": frames })
}

/// The same for the same bug in another run: no addresses, which move with every build.
fn fingerprint(finding: &Finding, report: &Report<'_>) -> String {
    let v = &finding.violation;
    let place = |site: &Site| function(site, report.telling).unwrap_or_else(|| format!("{:#x}", site.pc));
    let level = if v.table { "table" } else { "leaf" };
    format!("{}/{}/{level}/{}/{}", v.kind, v.cause, place(&v.removed), place(&v.trigger))
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/+@".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
