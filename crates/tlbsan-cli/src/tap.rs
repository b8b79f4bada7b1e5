//! TAP 14, as far as merging needs it: what a line of the guest's console is, and what becomes of a test point.
//!
//! Pure. <https://testanything.org/tap-version-14-specification.html>

use tlbsan::report::CaseResult;

/// A line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// `TAP version 14`.
    Version,
    /// `1..N`.
    Plan(u64),
    /// `ok 3 - name`.
    Point(Point),
    /// `Bail out! reason`.
    BailOut(String),
    /// Everything else: comments, diagnostics, the guest's log.
    Other,
}

/// A test point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// What the guest says.
    pub(crate) ok: bool,
    /// Its number, if it bears one.
    pub(crate) number: Option<u64>,
    /// Whether it is a SKIP.
    pub(crate) skip: bool,
    /// Whether it is a TODO: failing is no failure.
    pub(crate) todo: bool,
    /// Everything behind `ok` or `not ok`, the space included.
    pub(crate) rest: String,
}

/// Reads a line.
pub(crate) fn read(line: &[u8]) -> Line {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\r', '\n']);
    if text.starts_with("TAP version ") {
        return Line::Version;
    }
    if let Some(why) = text.strip_prefix("Bail out!") {
        return Line::BailOut(why.trim().to_owned());
    }
    if let Some(count) = text.strip_prefix("1..") {
        let count = count.split(['#', ' ']).next().unwrap_or_default();
        return count.parse().map_or(Line::Other, Line::Plan);
    }
    let (ok, rest) = match (text.strip_prefix("not ok"), text.strip_prefix("ok")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Line::Other,
    };
    // `okay` and `ok:` are words of a log.
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return Line::Other;
    }
    let words = rest.trim_start();
    let digits = words.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let directive = split(rest).1.to_ascii_uppercase();
    Line::Point(Point {
        ok,
        number: digits.parse().ok(),
        skip: directive.starts_with("SKIP"),
        todo: directive.starts_with("TODO"),
        rest: rest.to_owned(),
    })
}

/// What a test point is called: what stands between number and directive.
pub(crate) fn name(rest: &str) -> String {
    let (name, _) = split(rest);
    let name = name.trim().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    name.strip_prefix('-').unwrap_or(name).trim().to_owned()
}

/// Why it is skipped: what follows the word.
pub(crate) fn reason(rest: &str) -> String {
    split(rest).1.split_once(' ').map_or("", |(_, why)| why).trim().to_owned()
}

/// What stands before, and what behind, the first `#` that is not escaped.
fn split(rest: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            '#' if !escaped => return (&rest[..at], rest[at + 1..].trim()),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    (rest, "")
}

/// Whether an unfinished line may yet become one that matters here, and is better not shown in parts.
pub(crate) fn may_become(line: &[u8]) -> bool {
    let starts = |word: &[u8]| line.starts_with(word) || word.starts_with(line);
    !line.is_empty() && [&b"ok "[..], b"not ok ", b"TAP version ", b"1..", b"Bail out!"].into_iter().any(starts)
}

/// What a test point is once both sides have been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// What is printed.
    pub(crate) ok: bool,
    /// Whether it failed by the guest's own word, with nothing held against it by the checker.
    pub(crate) guest_failed: bool,
}

/// Joins what the guest and the checker say. A point without a case is as the guest says.
pub(crate) fn merge(point: &Point, case: Option<&CaseResult>) -> Merged {
    let passed = case.is_none_or(|case| case.passed);
    Merged { ok: point.ok && passed, guest_failed: !point.ok && passed && !point.skip && !point.todo }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(line: &str) -> Point {
        match read(line.as_bytes()) {
            Line::Point(point) => point,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_what_they_look_like() {
        assert_eq!(read(b"TAP version 14\r\n"), Line::Version);
        assert_eq!(read(b"1..12 # all\n"), Line::Plan(12));
        assert_eq!(read(b"1..x"), Line::Other);
        assert_eq!(read(b"Bail out! no memory"), Line::BailOut("no memory".into()));
        for log in ["okay", "ok: 3", "not okay", "  ok 1 - subtest", "# ok 1", "", "n", "\u{fffd}ok 1"] {
            assert_eq!(read(log.as_bytes()), Line::Other, "{log}");
        }
        assert_eq!(read(b"\xff\xfeok 1"), Line::Other);
    }

    #[test]
    fn points_keep_number_and_directive() {
        let plain = point("ok 3 - walk-cache/lost-freed-tables\r\n");
        assert_eq!((plain.ok, plain.number, plain.skip, plain.todo), (true, Some(3), false, false));
        assert_eq!(plain.rest, " 3 - walk-cache/lost-freed-tables");
        assert_eq!(point("not ok").number, None);
        assert_eq!(point("ok - no number").number, None);
        assert_eq!(point("ok 99999999999999999999999").number, None);
        assert!(point("ok 4 - bbm # skip needs tlbsan").skip);
        assert!(point("not ok 4 # TODO later").todo);
        assert!(!point(r"ok 5 - prints \# SKIP").skip);
        assert!(point(r"ok 5 - a backslash \\# SKIP").skip);
    }

    #[test]
    fn names_and_reasons_are_what_is_between() {
        for (rest, called, why) in [
            (" 3 - walk-cache/correct", "walk-cache/correct", ""),
            (" 4 - bbm # SKIP needs 4 cores", "bbm", "needs 4 cores"),
            (" - no number", "no number", ""),
            (" 5", "", ""),
            (r" 6 - C\# # skip", r"C\#", ""),
        ] {
            assert_eq!((name(rest).as_str(), reason(rest).as_str()), (called, why), "{rest}");
        }
    }

    #[test]
    fn prompts_are_shown_at_once_and_test_points_whole() {
        for part in ["o", "ok 1", "not", "TAP", "1", "Bail"] {
            assert!(may_become(part.as_bytes()), "{part}");
        }
        for part in ["", "login: ", "# ", "/ $ ", "okay"] {
            assert!(!may_become(part.as_bytes()), "{part}");
        }
    }

    #[test]
    fn ok_takes_both() {
        let case = |passed| CaseResult { id: 1, opened: 1, cleaned: 1, expected: vec![], seen: vec![], passed };
        let of = |line: &str, case: Option<CaseResult>| {
            let merged = merge(&point(line), case.as_ref());
            (merged.ok, merged.guest_failed)
        };
        assert_eq!(of("ok 1", Some(case(true))), (true, false));
        assert_eq!(of("ok 1", Some(case(false))), (false, false));
        assert_eq!(of("ok 1", None), (true, false));
        assert_eq!(of("not ok 1", None), (false, true));
        assert_eq!(of("not ok 1", Some(case(true))), (false, true));
        assert_eq!(of("not ok 1", Some(case(false))), (false, false));
        assert_eq!(of("not ok 1 # TODO", None), (false, false));
    }
}
