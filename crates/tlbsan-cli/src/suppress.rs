//! `--suppress`: violations that are known, and why they are not told.
//!
//! ```text
//!   # a line each: the rule, and where
//!   remade                symbol=vunmap_range*
//!   reused/leaf-only      range=0xffff_8000_0000_0000..0xffff_8000_1000_0000
//!   *                     symbol=kvm_*  range=0x4000_0000..0x8000_0000
//! ```
//!
//! A violation is suppressed if all of a line holds: its rule, or rule and cause; some function on the way to the old entry's
//! removal or to what made it an error; its addresses, all of them. A line that matched nothing is named at the end: it hides
//! the next bug, and nobody misses it.

use std::cell::Cell;
use std::path::Path;

use tlbsan::report::{Site, Violation};
use tlbsan_hint::{Cause, Kind};

use crate::command::Refusal;
use crate::stack::base;
use crate::symbols::Names;

/// The lines of a file.
#[derive(Debug)]
pub(crate) struct Suppressions {
    file: String,
    lines: Vec<Line>,
}

#[derive(Debug, Default)]
struct Line {
    number: usize,
    text: String,
    kind: Option<Kind>,
    cause: Option<Cause>,
    symbol: Option<String>,
    /// First and last address.
    range: Option<(u64, u64)>,
    matched: Cell<u64>,
}

impl Suppressions {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self, Refusal> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Refusal(format!("cannot read {shown}: {error}; name another file with `--suppress`")))?;
        Self::parse(&text, &shown).map_err(Refusal)
    }

    fn parse(text: &str, file: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, text) in text.lines().enumerate() {
            let text = text.split('#').next().unwrap_or_default().trim();
            if !text.is_empty() {
                let line = Line { number: number + 1, text: text.to_owned(), ..Line::default() };
                lines.push(line.read().map_err(|why| format!("{file}:{}: {why}", number + 1))?);
            }
        }
        Ok(Self { file: file.to_owned(), lines })
    }

    /// The line that suppresses a violation, as `FILE:LINE`.
    pub(crate) fn matching(&self, v: &Violation, names: &dyn Names) -> Option<String> {
        let line = self.lines.iter().find(|line| line.matches(v, names))?;
        line.matched.set(line.matched.get() + 1);
        Some(format!("{}:{}", self.file, line.number))
    }

    /// A sentence for each line that matched nothing.
    pub(crate) fn unused(&self) -> Vec<String> {
        let unused = self.lines.iter().filter(|line| line.matched.get() == 0);
        unused.map(|line| format!("{}:{} matched nothing: {}", self.file, line.number, line.text)).collect()
    }
}

impl Line {
    fn read(mut self) -> Result<Self, String> {
        let text = self.text.clone();
        let mut words = text.split_whitespace();
        let rule = words.next().unwrap_or_default();
        let (kind, cause) = rule.split_once('/').unwrap_or((rule, "*"));
        let list = |names: Vec<&str>| names.join(", ");
        if kind != "*" {
            let known = || list(Kind::ALL.iter().map(|kind| kind.name()).collect());
            self.kind =
                Some(Kind::from_name(kind).ok_or_else(|| format!("no rule `{kind}`; there are {}, and *", known()))?);
        }
        if cause != "*" {
            let known = || list(Cause::ALL.iter().map(|cause| cause.name()).collect());
            self.cause = Some(
                Cause::from_name(cause).ok_or_else(|| format!("no cause `{cause}`; there are {}, and *", known()))?,
            );
        }
        for word in words {
            match word.split_once('=') {
                Some(("symbol", glob)) if !glob.is_empty() => self.symbol = Some(glob.to_owned()),
                Some(("range", range)) => {
                    self.range = Some(
                        parse_range(range)
                            .ok_or_else(|| format!("`{range}` is no range; write range=0x4000_0000..0x8000_0000"))?,
                    );
                }
                _ => return Err(format!("`{word}` is neither symbol=NAME nor range=START..END")),
            }
        }
        if self.kind.is_none() && self.cause.is_none() && self.symbol.is_none() && self.range.is_none() {
            return Err("this would suppress everything".to_owned());
        }
        Ok(self)
    }

    fn matches(&self, v: &Violation, names: &dyn Names) -> bool {
        let last = v.start.saturating_add(v.size.saturating_sub(1));
        self.kind.is_none_or(|kind| kind == v.kind)
            && self.cause.is_none_or(|cause| cause == v.cause)
            && self.range.is_none_or(|(from, to)| from <= v.start && last <= to)
            && self
                .symbol
                .as_ref()
                .is_none_or(|glob| [&v.removed, &v.trigger].iter().any(|site| on_stack(site, glob, names)))
    }
}

fn on_stack(site: &Site, glob: &str, names: &dyn Names) -> bool {
    // A call stands before the address that it returns to.
    let pcs = std::iter::once(site.pc).chain(site.stack.iter().map(|ret| ret.wrapping_sub(4)));
    let frames = pcs.flat_map(|pc| names.frames(pc));
    let mut functions = frames.filter_map(|frame| frame.function);
    functions.any(|function| fits(glob, &function) || fits(glob, base(&function)))
}

/// Whether `name` is as `glob` says, where `*` stands for anything.
fn fits(glob: &str, name: &str) -> bool {
    let Some((head, rest)) = glob.split_once('*') else { return glob == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let Some(tail) = parts.pop() else { return true };
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(tail)
}

/// `START..END`, hexadecimal with underscores; END itself is outside, and may be 2^64.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (start, end) = text.split_once("..")?;
    let number = |text: &str| u128::from_str_radix(&text.strip_prefix("0x")?.replace('_', ""), 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let last = u64::try_from(end.checked_sub(1)?).ok()?;
    (start < end).then_some((u64::try_from(start).ok()?, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::tests::{Kernel, hang_of_2019};

    fn parse(text: &str) -> Result<Suppressions, String> {
        Suppressions::parse(text, "known.txt")
    }

    #[test]
    fn rule_symbol_and_range_must_all_hold() {
        for (line, held) in [
            ("remade", true),
            ("remade/leaf-only", true),
            ("*/leaf-only", true),
            ("remade/no-invalidation", false),
            ("reused", false),
            ("* symbol=pgtable::edit::unmap", true),
            ("* symbol=pgtable::edit::un*", true),
            ("* symbol=*::t2", true),
            ("* symbol=*edit*map*", true),
            ("* symbol=secondary_entry", true),
            ("* symbol=unmap", false),
            ("* symbol=tlbi::*", false),
            ("* range=0x4000_0000..0x4020_0000", true),
            ("* range=0x4000_0000..0x401f_ffff", false),
            ("* range=0x0..0x10000000000000000", true),
            ("remade symbol=steer::run range=0x40000000..0x80000000", true),
            ("remade symbol=steer::run range=0x50000000..0x80000000", false),
        ] {
            let found = parse(line).expect(line).matching(&hang_of_2019(), &Kernel);
            assert_eq!(found.is_some(), held, "{line}");
        }
    }

    #[test]
    fn lines_that_match_nothing_are_named() {
        let known = parse("# known\n\nreused  # old\nremade symbol=steer::*\n").expect("three rules");
        assert_eq!(known.matching(&hang_of_2019(), &Kernel).as_deref(), Some("known.txt:4"));
        assert_eq!(known.unused(), ["known.txt:3 matched nothing: reused"]);
    }

    #[test]
    fn mistakes_are_told_with_file_and_line() {
        for (text, word) in [
            ("remade\nremad", "known.txt:2: no rule `remad`; there are remade, reused"),
            ("remade/leaf", "no cause `leaf`"),
            ("remade foo", "neither symbol=NAME nor range=START..END"),
            ("remade symbol=", "neither"),
            ("remade range=1..2", "no range"),
            ("remade range=0x2..0x2", "no range"),
            ("*", "suppress everything"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
