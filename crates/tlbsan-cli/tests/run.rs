//! The whole command, with a script in QEMU's place that prints a console and writes a stream.
#![cfg(target_os = "linux")]

mod fake;

use fake::{END, Fake, SILENT, START, violation};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TAP: &str =
    "echo 'TAP version 14'; echo '1..2'; echo 'ok 1 - a/correct'; echo 'ok 2 - a/wide # SKIP needs 4 cores'";

#[test]
fn clean_is_0() {
    let fake = Fake::new("clean", &format!("r '{START}'\nr '{SILENT}'\n{TAP}\nr '{END}'"));
    let json = fake.folder.join("run.json");
    let ran = fake.run(&["--json", json.to_str().expect("UTF-8")]);
    ran.is(0, &[]);
    assert_eq!(
        ran.out,
        "TAP version 14\n1..2\nok 1 - a/correct\n  # tlbsan: silent; 6 stale entries opened, 6 cleaned\n\
         ok 2 - a/wide # SKIP needs 4 cores\n\
         # tlbsan: 1 case, 1 passed, 1 skipped; 12 stale entries opened, 12 cleaned; 51 TLBIs; clean\n"
    );
    let lines = fs::read_to_string(json).expect("records");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.get(..3), Some(&[START, SILENT, END][..]));
    assert!(lines.last().is_some_and(|line| line.contains(r#""code":0"#) && line.contains(r#""record":"outcome""#)));
    let args = fs::read_to_string(fake.folder.join("args")).expect("arguments");
    assert!(args.starts_with("-M virt -smp 2 -nographic -accel accel=tcg,thread=multi -object "), "{args}");
}

#[test]
fn a_violation_is_1_and_told() {
    let v = violation("null");
    let ran = Fake::new("violation", &format!("r '{START}'\necho booting\nr '{v}'\nr '{END}'")).run(&[]);
    ran.is(1, &["booting\n", "stale translation [remade, leaf-only]: 0x4000_0000..0x4020_0000", "what to do:"]);
    assert!(ran.out.ends_with("; 1 violation\n"), "{ran:?}");
}

#[test]
fn a_violation_stays_1_when_the_guest_then_crashes() {
    let v = violation("null");
    let ran = Fake::new("crash-later", &format!("r '{START}'\nr '{v}'\nkill -SEGV $$")).run(&[]);
    ran.is(1, &["tlbsan: QEMU was killed by signal 11", "1 violation"]);
}

#[test]
fn unmet_expectations_are_1() {
    let case = r#"{"record":"case","id":1,"opened":6,"cleaned":6,"expected":[{"kind":"remade","cause":"leaf-only","start":1073741824,"size":2097152,"level":2}],"seen":[],"passed":false}"#;
    let ran = Fake::new("unmet", &format!("r '{START}'\nr '{case}'\n{TAP}\nr '{END}'")).run(&[]);
    ran.is(1, &["\nnot ok 1 - a/correct\n", "missing: remade, leaf-only", "1 case not as expected"]);
}

#[test]
fn expected_violations_are_one_line_or_a_story() {
    let verdict = r#"{"kind":"remade","cause":"leaf-only","start":1073741824,"size":2097152,"level":2}"#;
    let case = format!(
        r#"{{"record":"case","id":1,"opened":6,"cleaned":6,"expected":[{verdict}],"seen":[{verdict}],"passed":true}}"#
    );
    let v = violation("1");
    let fake = Fake::new("expected", &format!("r '{START}'\nr '{v}'\nr '{case}'\n{TAP}\nr '{END}'"));
    let line = "  # tlbsan: as expected: remade, leaf-only: 0x4000_0000..0x4020_0000 at level 2\n";
    let ran = fake.run(&[]);
    ran.is(0, &["\nok 1 - a/correct\n", line]);
    assert!(!ran.out.contains("stale translation ["), "{ran:?}");
    fake.run(&["--stories"]).is(0, &[line, "  # stale translation [remade, leaf-only]"]);
    fake.run(&["--color", "always"]).is(0, &["\x1b[32mok\x1b[0m 1"]);
}

#[test]
fn what_could_not_run_is_2() {
    for (name, body, words) in [
        ("no-start", "echo 'qemu: no such machine' >&2; exit 1".to_owned(), &["status 1", "no such machine"][..]),
        ("no-end", format!("r '{START}'"), &["stopped before the guest"]),
        (
            "gave-up",
            format!(r#"r '{START}'; r '{{"record":"notice","text":"The checker panicked."}}'"#),
            &["The checker panicked", "stopped before"],
        ),
        ("no-events", format!("r '{START}'\nr '{}'", END.replace("100", "0")), &["no event"]),
        ("old-stream", format!("r '{}'", START.replace(":3", ":7")), &["version 7", "version 3"]),
        ("garbage", format!("r '{START}'\nr '{{\"record\":\"case\"'"), &["line 2", "no record"]),
        ("no-version", format!("r '{END}'"), &["does not begin"]),
    ] {
        Fake::new(name, &body).run(&["--timeout", "20"]).is(2, words);
    }
}

#[test]
fn a_wrong_host_is_2_and_says_what_to_do() {
    Fake::of("old", "QEMU emulator version 7.2.15", "-plugin x", "").run(&[]).is(2, &["7.2", "9.1"]);
    Fake::of("bare", "QEMU emulator version 10.0.2", "nothing", "").run(&[]).is(2, &["--enable-plugins"]);
    Fake::of("bash", "GNU bash, 5.2", "nothing", "").run(&[]).is(2, &["--qemu"]);
    let fake = Fake::new("host", "");
    fake.run(&["--qemu", "/no/such/qemu"]).is(2, &["not installed"]);
    fake.run(&["--plugin", "/no/such.so"]).is(2, &["/no/such.so", "cargo build"]);
    fake.run(&["--symbols", "/no/such.elf"]).is(2, &["/no/such.elf"]);
    fake.run(&["--json", "/no/such/folder/x"]).is(2, &["--json"]);
    fake.run(&["--walk"]).is(2, &["help run"]);
}

#[test]
fn a_failing_guest_is_3() {
    for (name, body, words) in [
        ("status-3", format!("r '{START}'\nr '{END}'\nexit 3"), &["exit status 3"][..]),
        ("killed", format!("r '{START}'\nkill -ABRT $$"), &["signal 6"]),
        (
            "not-ok",
            format!("r '{START}'\nr '{SILENT}'\necho TAP version 14; echo not ok 1 - a; echo 1..1\nr '{END}'"),
            &["not ok 1 - a", "the guest itself failed 1 test point"],
        ),
        (
            "short",
            format!("r '{START}'\nr '{SILENT}'\necho TAP version 14; echo ok 1 - a; echo 1..9\nr '{END}'"),
            &["1 of 9 planned"],
        ),
    ] {
        Fake::new(name, &body).run(&[]).is(3, words);
    }
}

#[test]
fn a_hang_that_was_cut_is_4() {
    Fake::new("timer", &format!("r '{START}'\nr '{END}'\nexit 4")).run(&[]).is(4, &["exit status 4"]);

    // Asked nicely, QEMU lets the plugin finish.
    let body = format!("trap 'r \"$END\"; exit 0' TERM\nEND='{END}'\nr '{START}'\nwhile :; do sleep 0.1; done");
    let ran = Fake::new("timeout", &body).run(&["--timeout", "1"]);
    ran.is(4, &["still running after 1 s", "51 TLBIs"]);
}

#[test]
fn a_qemu_that_does_not_listen_is_killed() {
    let begun = Instant::now();
    let ran =
        Fake::new("deaf", &format!("trap '' TERM\nr '{START}'\nwhile :; do sleep 0.1; done")).run(&["--timeout", "1"]);
    ran.is(4, &["still running after 1 s"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn an_interrupt_ends_qemu_and_still_reports() {
    let body =
        format!("trap 'r \"$END\"; exit 0' TERM\nEND='{END}'\nr '{START}'\necho up\nwhile :; do sleep 0.1; done");
    let fake = Fake::new("interrupt", &body);
    let mut child = fake.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tlbsan starts");
    let mut stdout = child.stdout.take().expect("piped");
    // Its first words show that it listens to signals.
    let mut first = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut first).expect("the guest speaks");
    let done = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(done.success());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut out).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(4), "{out}");
    assert!(out.contains("interrupted") && out.contains("51 TLBIs"), "{out}");
}

#[test]
fn a_reader_that_went_away_does_not_change_the_code() {
    let fake = Fake::new("pipe", &format!("r '{START}'\nr '{SILENT}'\n{TAP}\nr '{END}'"));
    let mut child = fake.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tlbsan starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
