//! The files that a run leaves behind, and what `--suppress`, `--stop-on-first` and `--cost` do to it.
#![cfg(target_os = "linux")]

mod fake;

use fake::{END, Fake, START, violation};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A System.map that fits the addresses of [`violation`]: removed in `unmap`, called from `exit_mmap`; remade in `set_pte`.
const MAP: &str =
    "0000000040001000 T unmap\n0000000040001044 T set_pte\n0000000040001800 T exit_mmap\n0000000040003000 T _etext\n";

fn end(unexpected: u64) -> String {
    END.replace(r#""unexpected":0"#, &format!(r#""unexpected":{unexpected}"#)).replace(r#""passed":1"#, r#""passed":0"#)
}

/// Writes a file beside the fake QEMU.
fn file(fake: &Fake, name: &str, text: &str) -> String {
    let path = fake.folder.join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn read(fake: &Fake, name: &str) -> String {
    fs::read_to_string(fake.folder.join(name)).expect("it was written")
}

/// One violation outside a case, at two places in the code, the second twice.
fn three(name: &str) -> Fake {
    let first = violation("null");
    let second = first.replace("leaf-only", "no-invalidation").replace("1073745924", "1073745992");
    let third = second.replace(r#""start":1073741824"#, r#""start":1075838976"#);
    Fake::new(name, &format!("r '{START}'\nr '{first}'\nr '{second}'\nr '{third}'\nr '{}'", end(3)))
}

#[test]
fn names_come_from_a_map() {
    let fake = three("map");
    let map = file(&fake, "System.map", MAP);
    fake.run(&["--symbols", &map]).is(1, &["       unmap+0x0\n", "       exit_mmap+", "       set_pte"]);
    let wrong = file(&fake, "wrong.map", "hello\n");
    fake.run(&["--symbols", &wrong]).is(2, &["neither ELF nor a list", "System.map"]);
}

#[test]
fn what_is_known_is_taken_out_and_what_matched_nothing_is_named() {
    let fake = three("suppress");
    let (map, json) = (file(&fake, "System.map", MAP), fake.folder.join("run.json"));
    let run = |lines: &str| {
        let known = file(&fake, "known.txt", lines);
        fake.run(&["--symbols", &map, "--suppress", &known, "--json", json.to_str().expect("UTF-8")])
    };
    let ran = run("remade/leaf-only symbol=exit_mmap\nreused\n");
    ran.is(1, &["1 suppressed; 2 violations (1 repeat folded)\n", "known.txt:2 matched nothing: reused"]);
    assert_eq!(ran.out.matches("stale translation [").count(), 1, "{ran:?}");
    let lines: Vec<Value> =
        read(&fake, "run.json").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["record"].as_str()).collect();
    assert_eq!(kinds, ["start", "violation", "violation", "repeats", "end", "outcome"]);
    assert!(lines[1]["suppressed"].as_str().is_some_and(|place| place.ends_with("known.txt:1")), "{}", lines[1]);
    assert_eq!((&lines[3]["violation"], &lines[3]["more"]), (&2.into(), &1.into()));
    assert!(fs::read_to_string(fake.folder.join("args")).expect("arguments").contains(",tell-all=on"));

    // A known bug does not hide another at the same place, elsewhere in memory.
    let ran = run("* range=0x4000_0000..0x4020_0000\n");
    ran.is(1, &["2 suppressed; 1 violation\n", "0x4020_0000..0x4040_0000 has a new translation"]);
    run("remade\n").is(0, &["3 suppressed; clean\n"]);
    run("remad\n").is(2, &["known.txt:1: no rule `remad`"]);
    fake.run(&["--suppress", "/no/such"]).is(2, &["--suppress"]);
}

#[test]
fn a_case_is_judged_without_what_is_known() {
    let seen = r#"{"kind":"remade","cause":"leaf-only","start":1073741824,"size":2097152,"level":2}"#;
    let case =
        format!(r#"{{"record":"case","id":1,"opened":2,"cleaned":1,"expected":[],"seen":[{seen}],"passed":false}}"#);
    let body = format!(
        "r '{START}'\nr '{}'\nr '{case}'\necho TAP version 14; echo ok 1 - a; echo 1..1\nr '{}'",
        violation("1"),
        end(1).replace(r#""failed":0"#, r#""failed":1"#)
    );
    let fake = Fake::new("suppress-case", &body);
    let known = file(&fake, "known.txt", "remade/leaf-only\n");
    fake.run(&["--suppress", &known]).is(0, &["\nok 1 - a\n", "1 case, 1 passed", "1 suppressed; clean"]);
    fake.run(&[]).is(1, &["not ok 1 - a"]);
}

#[test]
fn the_first_violation_ends_the_run_when_asked() {
    let v = violation("null");
    let body = format!(
        "trap 'r \"$V\"; r \"$END\"; exit 0' TERM\nEND='{}'\nV='{v}'\nr '{START}'\nr '{v}'\nwhile :; do sleep 0.1; done",
        end(2)
    );
    let fake = Fake::new("first", &body);
    let ran = fake.run(&["--stop-on-first", "--timeout", "60"]);
    ran.is(1, &["stopped at the first violation", "; 1 violation\n"]);
    assert_eq!(ran.out.matches("stale translation [").count(), 1, "{ran:?}");
}

#[test]
fn costs_are_told_before_the_summary() {
    let cost = r#"{"record":"cost","site":{"pe":0,"pc":1073745924,"stack":[]},"op":"tlbi vae1is","tlbis":96,"in_vain":12,"broadcast":0,"all_levels":84,"one_by_one":0}"#;
    let fake = Fake::new("cost", &format!("r '{START}'\nr '{cost}'\nr '{END}'"));
    let map = file(&fake, "System.map", MAP);
    let html = fake.folder.join("run.html");
    let ran = fake.run(&["--cost", "--symbols", &map, "--html", html.to_str().expect("UTF-8")]);
    ran.is(0, &["cost of 96 TLBIs from 1 call site", "TLBI VAE1IS", "unmap+0x4"]);
    assert!(ran.out.ends_with("clean\n"), "the summary is last: {ran:?}");
    assert!(fs::read_to_string(fake.folder.join("args")).expect("arguments").contains(",cost=on"));
    assert!(read(&fake, "run.html").contains(r#"<table id="cost">"#));
}

fn sarif(fake: &Fake, options: &[&str]) -> Value {
    let path = fake.folder.join("run.sarif");
    fake.run(&[&["--sarif", path.to_str().expect("UTF-8")], options].concat());
    serde_json::from_str(&read(fake, "run.sarif")).expect("JSON")
}

#[test]
fn sarif_has_a_result_a_flow_and_a_fingerprint_for_each_violation() {
    let fake = three("sarif");
    let (map, known) = (file(&fake, "System.map", MAP), file(&fake, "known.txt", "*/leaf-only\n"));
    let log = sarif(&fake, &["--symbols", &map, "--suppress", &known]);
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules: Vec<&str> = run["tool"]["driver"]["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .filter_map(|rule| rule["id"].as_str())
        .collect();
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 2);
    for result in results {
        let index = result["ruleIndex"].as_u64().expect("an index") as usize;
        assert_eq!(result["ruleId"], rules[index]);
        assert!(result["message"]["text"].as_str().is_some_and(|text| text.contains("What to do:")), "{result}");
        let location = &result["locations"][0]["physicalLocation"];
        assert!(location["artifactLocation"]["uri"].is_string() && location["address"]["absoluteAddress"].is_u64());
        let flow = result["codeFlows"][0]["threadFlows"][0]["locations"].as_array().expect("a flow");
        assert_eq!(flow.len(), 3, "store, TLBI, use: {result}");
    }
    assert_eq!(results[0]["suppressions"][0]["kind"], "external");
    assert_eq!(results[0]["partialFingerprints"]["tlbsan/v1"], "remade/leaf-only/table/unmap/unmap");
    assert_eq!((&results[1]["occurrenceCount"], &results[1]["suppressions"]), (&2.into(), &Value::Null));
    assert_eq!(results[1]["partialFingerprints"]["tlbsan/v1"], "remade/no-invalidation/table/unmap/set_pte");
    assert_eq!(run["invocations"][0]["exitCode"], 1);
    assert_eq!(run["invocations"][0]["executionSuccessful"], true);

    let broken = sarif(&Fake::new("sarif-broken", "echo 'no machine' >&2; exit 1"), &[]);
    let invocation = &broken["runs"][0]["invocations"][0];
    assert_eq!((&invocation["exitCode"], &invocation["executionSuccessful"]), (&2.into(), &false.into()));
    assert_eq!(broken["runs"][0]["results"], Value::Array(vec![]));
}

#[test]
fn junit_has_a_case_for_each_test_point_and_one_for_the_run() {
    let seen = r#"{"kind":"remade","cause":"leaf-only","start":1073741824,"size":2097152,"level":2}"#;
    let case = |id, seen: &str| {
        format!(
            r#"{{"record":"case","id":{id},"opened":2,"cleaned":1,"expected":[],"seen":[{seen}],"passed":{}}}"#,
            seen.is_empty()
        )
    };
    let body = format!(
        "r '{START}'\nr '{}'\nr '{}'\nr '{}'\necho 'TAP version 14'; echo '1..3'; echo 'ok 1 - good'; echo 'ok 2 - a<b> & \"c\"'\n\
         echo 'ok 3 - wide # SKIP needs 4 cores'\nr '{}'\nexit 3",
        case(1, ""),
        violation("2"),
        case(2, seen),
        end(1)
    );
    let fake = Fake::new("junit", &body);
    let path: PathBuf = fake.folder.join("run.xml");
    fake.run(&["--junit", path.to_str().expect("UTF-8")]).is(1, &[]);
    let xml = read(&fake, "run.xml");
    for part in [
        r#"<testsuite name="tlbsan" tests="4" failures="1" errors="0" skipped="1">"#,
        r#"<testcase classname="tlbsan" name="good"/>"#,
        r#"name="a&lt;b&gt; &amp; &quot;c&quot;">"#,
        r#"<failure message="tlbsan: unexpected: remade, leaf-only"#,
        "stale translation [remade, leaf-only]",
        r#"<skipped message="needs 4 cores">"#,
        r#"<testcase classname="tlbsan" name="the run"/>"#,
    ] {
        assert!(xml.contains(part), "{part}\n{xml}");
    }
    // Well-formed: each element that opens is closed, in order.
    let mut open = Vec::new();
    for tag in xml.split('<').skip(2) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name.to_owned()), "{xml}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().expect("a name").to_owned()),
        }
    }
    assert!(open.is_empty(), "{open:?}");

    let fake = Fake::new("junit-hang", &format!("r '{START}'\nr '{END}'\nexit 4"));
    let path = fake.folder.join("run.xml");
    fake.run(&["--junit", path.to_str().expect("UTF-8")]).is(4, &[]);
    assert!(read(&fake, "run.xml").contains(r#"<error message="cut short">the guest hung"#));
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_run() {
    let fake = Fake::new("unwritable", "exit 0");
    for option in ["html", "sarif", "junit", "json"] {
        fake.run(&[&format!("--{option}"), "/no/such/folder/x"]).is(2, &[&format!("`--{option}`")]);
        assert!(!fake.folder.join("args").exists(), "QEMU was started");
    }
}
