//! The plugin's arguments, as QEMU hands them over: `key=value`.

use std::ffi::c_int;
use tlbsan::Blind;

/// What the launcher asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// File descriptor for the records.
    pub(crate) fd: c_int,
    /// Physical address of guest RAM.
    pub(crate) ram_base: u64,
    /// Bytes of guest RAM.
    pub(crate) ram_size: u64,
    /// The file behind guest RAM; without it QEMU's memfd is looked for.
    pub(crate) backend: Option<String>,
    /// Act as if the guest had executed no hint.
    pub(crate) ignore_hints: bool,
    /// Make a record of every violation.
    pub(crate) tell_all: bool,
    /// Keep account of what invalidations are spent on.
    pub(crate) cost: bool,
    /// Print every event on standard error.
    pub(crate) trace: bool,
    /// What is withheld from the model.
    pub(crate) blind: Blind,
    /// The event at which the checker panics, as a test of what happens then.
    pub(crate) panic_at: Option<u64>,
    /// Where the trace goes, if the run is recorded.
    pub(crate) record: Option<String>,
}

impl Args {
    /// Reads `key=value` arguments. The error is a sentence for the user.
    pub(crate) fn parse<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let (mut fd, mut ram, mut backend, mut ignore_hints, mut trace) = (None, None, None, false, false);
        let (mut record, mut tell_all, mut cost) = (None, false, false);
        let (mut blind, mut panic_at) = (Blind::default(), None);
        for arg in args {
            let (key, value) = arg.split_once('=').ok_or_else(|| format!("argument {arg}: expected key=value"))?;
            let wrong = |what: &str| format!("argument {arg}: expected {what}");
            match key {
                "fd" => fd = Some(value.parse().ok().filter(|fd| *fd >= 0).ok_or_else(|| wrong("a file descriptor"))?),
                "ram" => ram = Some(parse_ram(value).ok_or_else(|| wrong("ram=0xBASE:0xSIZE, in whole 4 KiB pages"))?),
                "backend" => backend = Some(value.to_owned()),
                "record" => record = Some(value.to_owned()),
                "ignore-hints" => ignore_hints = parse_switch(value).ok_or_else(|| wrong("on or off"))?,
                "tell-all" => tell_all = parse_switch(value).ok_or_else(|| wrong("on or off"))?,
                "cost" => cost = parse_switch(value).ok_or_else(|| wrong("on or off"))?,
                "trace" => trace = parse_switch(value).ok_or_else(|| wrong("on or off"))?,
                "panic-at" => panic_at = Some(value.parse().map_err(|_| wrong("a number"))?),
                "blind-tlbi" => blind.tlbi = value.parse().map_err(|_| wrong("a number"))?,
                "blind-dsb" => blind.dsb = value.parse().map_err(|_| wrong("a number"))?,
                "weaken" => blind.weaken = value.parse().map_err(|_| wrong("a number"))?,
                "seed" => blind.seed = value.parse().map_err(|_| wrong("a number"))?,
                _ => {
                    let known = "fd, ram, backend, ignore-hints, tell-all, cost, trace, record, blind-tlbi, blind-dsb, weaken, seed";
                    return Err(format!("argument {arg}: unknown; known are {known}"));
                }
            }
        }
        let fd = fd.ok_or("argument fd=N is missing: the file descriptor for the records")?;
        let (ram_base, ram_size) = ram.ok_or("argument ram=0xBASE:0xSIZE is missing: guest RAM")?;
        Ok(Self { fd, ram_base, ram_size, backend, ignore_hints, tell_all, cost, trace, blind, panic_at, record })
    }
}

fn parse_ram(value: &str) -> Option<(u64, u64)> {
    let (base, size) = value.split_once(':')?;
    let (base, size) = (parse_hex(base)?, parse_hex(size)?);
    let whole_pages = (base | size).is_multiple_of(0x1000) && size > 0;
    (whole_pages && base.checked_add(size).is_some()).then_some((base, size))
}

fn parse_hex(value: &str) -> Option<u64> {
    u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()
}

/// QEMU turns a bare `key` into `key=on`, and users write what QEMU accepts elsewhere.
fn parse_switch(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" => Some(true),
        "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_line_is_understood() {
        let args = Args::parse([
            "fd=3",
            "ram=0x40000000:0x10000000",
            "backend=/dev/shm/ram",
            "ignore-hints=on",
            "cost=on",
            "blind-tlbi=9",
            "seed=5",
        ]);
        let expected = Args {
            fd: 3,
            ram_base: 0x4000_0000,
            ram_size: 0x1000_0000,
            backend: Some("/dev/shm/ram".into()),
            ignore_hints: true,
            tell_all: false,
            cost: true,
            trace: false,
            blind: Blind { tlbi: 9, dsb: 0, weaken: 0, seed: 5 },
            panic_at: None,
            record: None,
        };
        assert_eq!(args, Ok(expected));
    }

    #[test]
    fn wrong_lines_are_refused_with_the_argument() {
        let ram = "ram=0x40000000:0x1000";
        for (args, told) in [
            (vec![ram], "fd=N"),
            (vec!["fd=3"], "ram=0xBASE:0xSIZE"),
            (vec!["fd=-1", ram], "fd=-1"),
            (vec!["fd=3", "ram=0x40000000"], "ram=0x40000000"),
            (vec!["fd=3", "ram=0x40000000:0x1"], "0x1"),
            (vec!["fd=3", "ram=0xfffffffffffff000:0x2000"], "0x2000"),
            (vec!["fd=3", ram, "ignore-hints=maybe"], "maybe"),
            (vec!["fd=3", ram, "colour=blue"], "colour"),
            (vec!["fd"], "key=value"),
        ] {
            let error = Args::parse(args.iter().copied()).unwrap_err();
            assert!(error.contains(told), "{args:?}: {error}");
        }
    }
}
