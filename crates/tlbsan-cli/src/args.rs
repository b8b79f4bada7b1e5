//! The command line of `tlbsan`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use tlbsan::Blind;

use crate::paint::Colour;
use crate::withheld;

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Print this and leave.
    Print(&'static str),
    /// Run a guest, and record it if [`Options::record`] says where.
    Run(Box<Options>),
    /// Judge a trace.
    Check(PathBuf, Box<Options>),
}

/// The options of `tlbsan run`, `record` and `check`.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Files with symbols.
    pub(crate) symbols: Vec<PathBuf>,
    /// Where the records go.
    pub(crate) json: Option<PathBuf>,
    /// Where the reports go that are written when the run has ended.
    pub(crate) html: Option<PathBuf>,
    /// The same, SARIF 2.1.0.
    pub(crate) sarif: Option<PathBuf>,
    /// The same, JUnit's XML.
    pub(crate) junit: Option<PathBuf>,
    /// What is known and not told.
    pub(crate) suppress: Option<PathBuf>,
    /// Whether the first violation ends the run.
    pub(crate) stop_on_first: bool,
    /// Whether there is a profile of what invalidations cost.
    pub(crate) cost: bool,
    /// Whether stories show whole call stacks.
    pub(crate) full_stacks: bool,
    /// Whether the plugin acts as if the guest gave no hints.
    pub(crate) ignore_hints: bool,
    /// Seconds after which the guest is ended; 0 means never.
    pub(crate) timeout: u64,
    /// QEMU.
    pub(crate) qemu: Option<PathBuf>,
    /// The plugin.
    pub(crate) plugin: Option<PathBuf>,
    /// Whether expected violations get a story too.
    pub(crate) stories: bool,
    /// Whether only what failed and the summary are printed.
    pub(crate) quiet: bool,
    /// Whether the plugin prints every event.
    pub(crate) trace: bool,
    /// What is withheld from the model.
    pub(crate) blind: Blind,
    /// Where the trace goes.
    pub(crate) record: Option<PathBuf>,
    /// Colour.
    pub(crate) colour: Colour,
    /// The arguments for QEMU.
    pub(crate) guest: Vec<OsString>,
}

/// The version line.
const VERSION: &str = concat!("tlbsan ", env!("CARGO_PKG_VERSION"));

/// `tlbsan --help`.
const HELP: &str = "\
tlbsan runs any aarch64 kernel under QEMU and tells whether it left a stale TLB or walk-cache entry behind.

Usage:
  tlbsan run [options] -- <arguments of qemu-system-aarch64>
  tlbsan record -o TRACE [options] -- <arguments of qemu-system-aarch64>
  tlbsan check [options] TRACE
  tlbsan help run        the options, the exit codes, examples; likewise help record, help check
  tlbsan --version

Example:
  tlbsan run --symbols vmlinux -- -M virt -cpu max -smp 4 -m 1G -nographic -kernel Image
";

/// `tlbsan help run`.
const HELP_RUN: &str = "\
Usage: tlbsan run [options] -- <arguments of qemu-system-aarch64>

Starts QEMU (9.1 or newer) with the given arguments and the checker's plugin, passes the guest's console through, and tells
of every stale translation that became an error: who removed the entry, which invalidations followed and why they were not
enough, who made it an error, what to do. Where the guest prints TAP 14 and gives hints, both are merged.

Options:
  --symbols FILE      names for addresses: an ELF file (with DWARF: lines too), System.map, or a copy of /proc/kallsyms; may be
                      repeated. Without it a Linux kernel's own table is used, which is found in guest memory
  --json FILE         all records as JSON lines, and the outcome as the last
  --html FILE         a report to look at: one file, with the time line and the tables of each violation
  --sarif FILE        SARIF 2.1.0, for code scanning
  --junit FILE        JUnit's XML, for test reports
  --suppress FILE     violations that are known: a line each, `RULE[/CAUSE] [symbol=NAME] [range=START..END]`
  --stop-on-first     end the guest at its first violation
  --cost              profile by call site what invalidations cost more than they had to
  --full-stacks       show call stacks in full, insides of libraries and closures too
  --timeout SECONDS   end the guest after this long (default: 0, never)
  --ignore-hints      judge as if the guest gave no hints: every violation counts
  --stories           tell expected violations in full as well
  --quiet             print only what failed, and the summary
  --color WHEN        auto, always or never (default: auto; NO_COLOR and CI are honoured)
  --qemu PATH         QEMU (default: qemu-system-aarch64 on PATH)
  --plugin PATH       the plugin (default: libtlbsan_qemu.so beside this command)
  --trace             the plugin prints every event on standard error (slow)
  --blind WHAT:N      a test of the checker: it does not see one in N of WHAT, tlbi or dsb; may be given for both
  --weaken N          the same: it takes one in N all-level invalidations by VA for leaf-only ones
  --seed S            which ones (default: another each time, printed)

What QEMU gets in addition: the plugin, memory that it can read (so no -numa, -mem-path or memory-backend= of yours), and with
more than one vCPU `-accel tcg,thread=multi`. The machine must be `virt`, with 64 vCPUs at most.

Exit codes, the first that applies:
  2  could not run: QEMU or the plugin did not start, or the checker stopped before the guest did
  1  violations, or a case that did not show what it expects (even if the guest hung or crashed afterwards)
  4  a hang was cut: QEMU's exit status 4 (the guest's own timer), --timeout, or an interrupt
  3  the guest failed: another exit status of QEMU, QEMU killed by a signal, a test point that the guest itself failed, or
     fewer test points than planned
  0  clean

Examples:
  tlbsan run --symbols kernel.elf -- -M virt -cpu cortex-a76 -smp 4 -nographic -nic none -kernel kernel.elf
  tlbsan run --json run.json --timeout 600 -- -M virt -cpu max -m 2G -nographic -kernel Image -append console=ttyAMA0
";

/// `tlbsan help record`.
const HELP_RECORD: &str = "\
Usage: tlbsan record -o TRACE [options] -- <arguments of qemu-system-aarch64>

Does what `tlbsan run` does, with the same options and exit codes, and writes down in TRACE what the checker was told and what it
asked: `tlbsan check TRACE` gives the same verdicts without QEMU.
";

/// `tlbsan help check`.
const HELP_CHECK: &str = "\
Usage: tlbsan check [options] TRACE

Judges a trace, without QEMU: the records are those of the run that was recorded, byte for byte.

Options, as for `tlbsan run`: --symbols, --json, --html, --sarif, --junit, --suppress, --stop-on-first, --cost, --full-stacks,
--ignore-hints, --stories, --quiet, --color, --blind WHAT:N,
--weaken N, --seed S

Exit codes, the first that applies:
  2  the trace is cut off, damaged or none; what it says before that place is told
  1  violations, or a case that did not show what it expects
  0  clean
";

/// Reads the command line without the program's name. The error is a sentence.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, String> {
    let mut ours: Vec<OsString> = args.into_iter().collect();
    // Everything behind `--` is QEMU's, verbatim.
    let guest = ours.iter().position(|arg| arg == "--").map(|at| {
        let guest = ours.split_off(at);
        guest.into_iter().skip(1).collect::<Vec<_>>()
    });
    let mut parser = lexopt::Parser::from_args(ours);
    let word = match parser.next().map_err(sentence)? {
        None | Some(Short('h') | Long("help")) => return Ok(Action::Print(HELP)),
        Some(Short('V') | Long("version")) => return Ok(Action::Print(VERSION)),
        Some(Value(word)) if word == "help" => {
            return Ok(Action::Print(match parser.next().map_err(sentence)? {
                Some(Value(topic)) if topic == "run" => HELP_RUN,
                Some(Value(topic)) if topic == "record" => HELP_RECORD,
                Some(Value(topic)) if topic == "check" => HELP_CHECK,
                _ => HELP,
            }));
        }
        Some(Value(word)) if word == "run" || word == "record" || word == "check" => word,
        Some(other) => return Err(sentence(other.unexpected())),
    };
    let (records, checks) = (word == "record", word == "check");
    let help = if records {
        HELP_RECORD
    } else if checks {
        HELP_CHECK
    } else {
        HELP_RUN
    };
    let mut trace = None;

    let mut options = Options::default();
    options.blind.seed = withheld::any_seed();
    while let Some(arg) = parser.next().map_err(sentence)? {
        match arg {
            Long("symbols") => options.symbols.push(value(&mut parser)?.into()),
            Long("json") => options.json = Some(value(&mut parser)?.into()),
            Long("html") => options.html = Some(value(&mut parser)?.into()),
            Long("sarif") => options.sarif = Some(value(&mut parser)?.into()),
            Long("junit") => options.junit = Some(value(&mut parser)?.into()),
            Long("suppress") => options.suppress = Some(value(&mut parser)?.into()),
            Long("stop-on-first") => options.stop_on_first = true,
            Long("cost") => options.cost = true,
            Long("full-stacks") => options.full_stacks = true,
            Short('o') | Long("output") if records => options.record = Some(value(&mut parser)?.into()),
            Value(path) if checks && trace.is_none() => trace = Some(path.into()),
            Long("ignore-hints") => options.ignore_hints = true,
            Long("stories") => options.stories = true,
            Long("trace") => options.trace = true,
            Short('q') | Long("quiet") => options.quiet = true,
            Long("qemu") => options.qemu = Some(value(&mut parser)?.into()),
            Long("plugin") => options.plugin = Some(value(&mut parser)?.into()),
            Long("timeout") => options.timeout = number(&mut parser, "--timeout takes whole seconds")?,
            Long("blind") => withheld::parse(&mut options.blind, &value(&mut parser)?.to_string_lossy())?,
            Long("weaken") => options.blind.weaken = number(&mut parser, "--weaken takes a number, one in so many")?,
            Long("seed") => options.blind.seed = number(&mut parser, "--seed takes a number")?,
            Long("color" | "colour") => {
                let text = value(&mut parser)?;
                options.colour = match text.to_str() {
                    Some("auto") => Colour::Auto,
                    Some("always") => Colour::Always,
                    Some("never") => Colour::Never,
                    _ => return Err(format!("--color takes auto, always or never, not {}", text.display())),
                };
            }
            Short('h') | Long("help") => return Ok(Action::Print(help)),
            Value(word) if !checks => {
                return Err(format!("{} stands before `--`; the arguments for QEMU come after it", word.display()));
            }
            other => return Err(sentence(other.unexpected())),
        }
    }
    if checks {
        if guest.is_some() {
            return Err("a trace is judged without QEMU; leave `--` and what follows out".to_owned());
        }
        let trace = trace.ok_or("there is no trace; name one, as in `tlbsan check run.trace`")?;
        return Ok(Action::Check(trace, Box::new(options)));
    }
    if records && options.record.is_none() {
        return Err(
            "there is no place for the trace; name one with `-o`, as in `tlbsan record -o run.trace -- ...`".to_owned()
        );
    }
    options.guest =
        guest.ok_or("there is no `--`; the arguments for QEMU come after it, as in `tlbsan run -- -M virt ...`")?;
    Ok(Action::Run(Box::new(options)))
}

fn value(parser: &mut lexopt::Parser) -> Result<OsString, String> {
    parser.value().map_err(sentence)
}

fn number(parser: &mut lexopt::Parser, what: &str) -> Result<u64, String> {
    let text = value(parser)?;
    text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{what}, not {}", text.display()))
}

fn sentence(error: lexopt::Error) -> String {
    format!("{error}; see `tlbsan help run`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Action, String> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn qemu_gets_its_arguments_verbatim() {
        let line =
            ["run", "--symbols", "a", "--symbols=b", "--timeout", "7", "-q", "--", "-M", "virt", "--", "--quiet"];
        let Ok(Action::Run(options)) = run(&line) else { panic!("{line:?} is right") };
        assert_eq!(options.guest, ["-M", "virt", "--", "--quiet"]);
        assert_eq!(options.symbols, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((options.timeout, options.quiet, options.stories), (7, true, false));
    }

    #[test]
    fn a_trace_is_written_and_read_where_asked() {
        let Ok(Action::Run(options)) = run(&["record", "-o", "t", "-q", "--", "-M", "virt"]) else { panic!("right") };
        assert_eq!((options.record, options.quiet), (Some(PathBuf::from("t")), true));
        let Ok(Action::Check(trace, options)) = run(&["check", "--json", "j", "t"]) else { panic!("right") };
        assert_eq!((trace, options.json), (PathBuf::from("t"), Some(PathBuf::from("j"))));
    }

    #[test]
    fn mistakes_are_told_with_the_way_out() {
        for (args, word) in [
            (&["run", "-M", "virt"][..], "help run"),
            (&["run", "kernel", "--"], "`--`"),
            (&["run"], "`--`"),
            (&["run", "--timeout", "soon", "--"], "whole seconds"),
            (&["run", "--color", "red", "--"], "auto"),
            (&["run", "--blind", "isb:2", "--"], "tlbi:N"),
            (&["run", "--weaken", "some", "--"], "one in so many"),
            (&["run", "--symbols"], "help run"),
            (&["walk"], "help run"),
            (&["record", "--"], "`-o`"),
            (&["run", "-o", "x", "--"], "help run"),
            (&["check"], "name one"),
            (&["check", "a", "b"], "help run"),
            (&["check", "a", "--", "-M"], "without QEMU"),
        ] {
            match run(args) {
                Err(error) => assert!(error.contains(word), "{args:?}: {error}"),
                Ok(action) => panic!("{args:?} was accepted: {action:?}"),
            }
        }
        for help in [&[][..], &["--help"], &["help"], &["help", "run"], &["run", "--help"], &["--version"]] {
            assert!(matches!(run(help), Ok(Action::Print(_))), "{help:?}");
        }
    }
}
