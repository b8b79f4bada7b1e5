//! Colour, and how numbers look.

use std::ffi::OsString;

/// Whether to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` or `CI` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Colours text, or leaves it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Leaves everything as it is.
    pub(crate) const PLAIN: Self = Self { on: false };

    /// As the user, the terminal and the environment have it.
    pub(crate) fn new(colour: Colour, terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).is_some_and(|value| !value.is_empty());
        let on = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !set("NO_COLOR") && !set("CI"),
        };
        Self { on }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// `0x4000_0000`: hexadecimal in groups of four digits.
pub(crate) fn hex(value: u128) -> String {
    format!("0x{}", grouped(&format!("{value:x}")))
}

/// All 64 bits of a descriptor, in groups.
pub(crate) fn bits(value: u64) -> String {
    format!("0x{}", grouped(&format!("{value:016x}")))
}

/// The half-open range of `size` bytes from `start`.
pub(crate) fn span(start: u64, size: u64) -> String {
    format!("{}..{}", hex(start.into()), hex(u128::from(start) + u128::from(size)))
}

fn grouped(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 4);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(4) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

/// `text` with its hexadecimal numbers in groups, so that one address looks alike wherever it stands.
pub(crate) fn regroup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("0x") {
        let (before, number) = rest.split_at(at + 2);
        let end = number.find(|c: char| !c.is_ascii_hexdigit() && c != '_').unwrap_or(number.len());
        let (digits, after) = number.split_at(end);
        out.push_str(before);
        out.push_str(&if digits.contains('_') { digits.to_owned() } else { grouped(digits) });
        rest = after;
    }
    out + rest
}

/// `1 case`, `2 cases`, `2 stale entries`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_groups() {
        assert_eq!(hex(0), "0x0");
        assert_eq!(hex(0x1_0000), "0x1_0000");
        assert_eq!(span(0xffff_ffff_ffff_f000, 0x1000), "0xffff_ffff_ffff_f000..0x1_0000_0000_0000_0000");
        assert_eq!(bits(0x4010_0003), "0x0000_0000_4010_0003");
        assert_eq!(regroup("tlbi vae1is, 0x40000000 asid 7"), "tlbi vae1is, 0x4000_0000 asid 7");
        assert_eq!(regroup("0x4010_0000 0x 0xé 0x12345"), "0x4010_0000 0x 0xé 0x1_2345");
    }

    #[test]
    fn colour_is_for_people_only() {
        let none = |_: &str| None;
        let only = |set: &'static str| move |name: &str| (name == set).then(|| OsString::from("1"));
        assert!(Paint::new(Colour::Auto, true, none).on);
        assert!(!Paint::new(Colour::Auto, false, none).on);
        assert!(!Paint::new(Colour::Auto, true, only("NO_COLOR")).on);
        assert!(!Paint::new(Colour::Auto, true, only("CI")).on);
        assert!(Paint::new(Colour::Always, false, only("NO_COLOR")).on);
        assert!(!Paint::new(Colour::Never, true, none).on);
    }
}
