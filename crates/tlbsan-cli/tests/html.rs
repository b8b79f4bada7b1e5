//! The HTML report in a browser: what it shows, where it lies, and that it fetches and runs nothing.
//!
//! Needs Chromium; without one the tests are skipped, and say so.
#![cfg(target_os = "linux")]

mod fake;

use fake::{END, Fake, START};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Names under which distributions install it.
const NAMES: [&str; 6] = [
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// A page in Chromium, over its debugging pipe.
struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    number: u64,
    session: Option<String>,
    events: Vec<Value>,
}

impl Browser {
    /// `None`, said on standard error, where there is none.
    fn start(name: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .find_map(|folder| NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file()));
        let Some(program) = found else {
            // Past the harness, which hides what passing tests print.
            let _ = writeln!(
                std::io::stderr(),
                "html: SKIPPED: no Chromium; looked for {} on PATH; script/setup --browser installs one on Debian",
                NAMES.join(", ")
            );
            return None;
        };
        let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chromium-{name}"));
        // Commands come in at descriptor 3, answers go out at 4. If it hangs, the pipe closes, and the test fails.
        let mut child = Command::new("sh")
            .args(["-c", "exec timeout -k 5 90 \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let (commands, answers) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut browser =
            Self { child, commands, answers: BufReader::new(answers), number: 0, session: None, events: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).expect("Chromium listens");
        loop {
            let answer = self.next();
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).expect("Chromium speaks");
        assert_eq!(bytes.pop(), Some(0), "Chromium ended, or did not answer in time");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Opens the page in a window of this width.
    fn open(&mut self, page: &Path, width: u32) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        self.events.clear();
        self.call("Page.navigate", json!({ "url": format!("file://{}", page.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next();
            self.events.push(event);
        }
    }

    /// What an expression comes to in the page.
    fn ask(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NASTY: &str = "<img src=x onerror=alert(1)><script>document.title=1</script>";

/// A run with one violation on four PEs, told by two TLBIs, a case that expects another, and names that look like HTML.
fn report(name: &str) -> PathBuf {
    let site = |pe: u64, at: u64| json!({ "pe": pe, "pc": 0x4000_1000u64, "stack": [], "label": NASTY, "at": at });
    let attempt = |pe, at, op: &str, cause: &str| json!({ "site": site(pe, at), "op": op, "why": "it removes leaves only", "cause": cause });
    let entry = |bits: u64, text: &str| json!({ "bits": bits, "text": text });
    let step = |level, table: u64, bits: u64, text: &str| json!({ "level": level, "table": table, "index": 1, "entry": entry(bits, text) });
    let violation = |number: u64, case: Value, start: u64| {
        json!({
            "record": "violation", "number": number, "case": case, "kind": "remade", "cause": "leaf-only", "start": start,
            "size": 0x20_0000, "level": 2, "table": true, "asids": [5], "pes": [0, 1, 2, 3], "slot": 0x4009_8000u64,
            "old": entry(0x4010_0003, "table at 0x40100000"), "new": entry(0x4011_0003, "table at 0x40110000"),
            "removed": site(1, 10), "trigger": site(2, 99),
            "attempts": [
                attempt(1, 20, "tlbi vale1is, 0x40000000 asid 5", "leaf-only"),
                attempt(3, 30, "tlbi vae1, 0x40000000 asid 5", "local-only"),
            ],
            "more_attempts": 2, "times": 3,
            "ways": {
                "before": [step(1, 0x4000_0000, 0x4009_8003, "table at 0x40098000"), step(2, 0x4009_8000, 0x4010_0003, "table at 0x40100000")],
                "after": [step(1, 0x4000_0000, 0x4009_8003, "table at 0x40098000"), step(2, 0x4009_8000, 0x4011_0003, "table at 0x40110000")],
            },
        })
    };
    let expected =
        json!({ "kind": "remade", "cause": "leaf-only", "start": 0x8000_0000u64, "size": 0x20_0000, "level": 2 });
    let case = json!({ "record": "case", "id": 1, "opened": 2, "cleaned": 1, "expected": [expected], "seen": [expected], "passed": true });
    let repeats = json!({ "record": "repeats", "violation": 1, "more": 41 });
    let fake = Fake::new(
        name,
        &format!(
            "r '{START}'\nr '{}'\nr '{}'\nr '{case}'\nr '{repeats}'\necho 'TAP version 14'; echo 'ok 1 - {NASTY}'; echo 'ok 2 - b # SKIP needs 4 cores'; echo '1..2'\nr '{}'",
            violation(1, Value::Null, 0x4000_0000),
            violation(2, json!(1), 0x8000_0000),
            END.replace(r#""unexpected":0"#, r#""unexpected":42"#),
        ),
    );
    let page = fake.folder.join("run.html");
    fake.run(&["--html", page.to_str().expect("UTF-8")]).is(1, &[]);
    page
}

#[test]
fn the_report_shows_what_happened_and_fetches_nothing() {
    let page = report("html-shows");
    let Some(mut browser) = Browser::start("shows") else { return };
    browser.open(&page, 1200);
    assert_eq!(browser.ask("document.title"), "tlbsan: 42 violations");
    assert_eq!(browser.ask("document.querySelectorAll('article.violation').length"), 2);
    assert_eq!(browser.ask("document.querySelectorAll('article.violation.quiet').length"), 1, "the expected one");
    assert_eq!(
        browser.ask("document.querySelector('#v1 svg').querySelectorAll('.pe').length"),
        4,
        "a lane for each PE"
    );
    assert_eq!(browser.ask("document.querySelector('#v1 svg').querySelectorAll('.step').length"), 4);
    assert_eq!(browser.ask("document.querySelectorAll('#v1 svg .reach').length"), 1, "one broadcast, one local");
    assert_eq!(browser.ask("document.querySelectorAll('#v1 .tree').length"), 2);
    assert_eq!(browser.ask("document.querySelectorAll('#v1 .tree li').length"), 4);
    assert_eq!(browser.ask("document.querySelector('#v1 .tree li.old code').innerText"), "0x0000_0000_4010_0003");
    assert_eq!(browser.ask("document.querySelector('#v1 .tree li.new code').innerText"), "0x0000_0000_4011_0003");
    for text in ["41 repeats", "What to do", "and 2 more invalidations"] {
        assert_eq!(browser.ask(&format!("document.querySelector('#v1').innerText.includes('{text}')")), true, "{text}");
    }

    // What comes from the guest is text.
    assert_eq!(browser.ask("document.images.length + document.scripts.length"), 0);
    assert_eq!(browser.ask(&format!("document.querySelector('#cases').innerText.includes('{NASTY}')")), true);
    let of = |browser: &Browser, method: &str| -> Vec<Value> {
        browser.events.iter().filter(|event| event["method"] == method).cloned().collect()
    };
    let requests = of(&browser, "Network.requestWillBeSent");
    assert_eq!(requests.len(), 1, "the page itself: {requests:?}");
    assert_eq!(of(&browser, "Log.entryAdded"), Vec::<Value>::new());
    assert_eq!(of(&browser, "Runtime.exceptionThrown"), Vec::<Value>::new());
}

/// Text that sticks out of its drawing, or two labels of a row that meet.
const OVERLAPS: &str = "(() => {
    const bad = [];
    for (const svg of document.querySelectorAll('svg')) {
        const box = svg.viewBox.baseVal, texts = [...svg.querySelectorAll('text')];
        for (const text of texts) {
            const b = text.getBBox();
            if (b.x < 0 || b.y < 0 || b.x + b.width > box.width || b.y + b.height > box.height) bad.push(text.textContent);
        }
        for (const row of [...new Set(texts.map(t => t.getAttribute('y')))]) {
            const boxes = texts.filter(t => t.getAttribute('y') === row).map(t => t.getBBox()).sort((a, b) => a.x - b.x);
            boxes.forEach((b, n) => { if (n > 0 && boxes[n - 1].x + boxes[n - 1].width > b.x) bad.push('overlap in row ' + row); });
        }
    }
    return bad;
})()";

#[test]
fn it_fits_every_width_and_both_colour_schemes() {
    let page = report("html-fits");
    let Some(mut browser) = Browser::start("fits") else { return };
    for width in [360, 800, 1600] {
        browser.open(&page, width);
        let sideways = browser.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(sideways, 0, "the page scrolls sideways at {width}");
        assert_eq!(browser.ask(OVERLAPS), json!([]), "at {width}");
        let side_by_side = browser.ask(
            "(() => { const [a, b] = document.querySelectorAll('#v1 .tree'); return a.getBoundingClientRect().top === b.getBoundingClientRect().top; })()",
        );
        assert_eq!(side_by_side, width > 700, "before beside after at {width}");
    }
    // Ink on paper, in both schemes, with the contrast that WCAG asks of text.
    let contrast = "(() => {
        const light = c => { const [r, g, b] = c.match(/\\d+/g).map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        return Math.min(...[...document.querySelectorAll('h2, p, li, td, .dim, .wrong, .good, .skipped, summary')].map(e => {
            const ink = light(getComputedStyle(e).color);
            return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
        }));
    })()";
    for scheme in ["light", "dark"] {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.call("Emulation.setEmulatedMedia", features);
        let least = browser.ask(contrast).as_f64().expect("a number");
        assert!(least >= 4.5, "{scheme}: {least}");
    }
}
