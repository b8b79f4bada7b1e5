//! `tlbsan`: runs any aarch64 kernel under QEMU with the checker's plugin and tells which stale translations became errors.
//!
//! | module    | what                                                                       |
//! |-----------|----------------------------------------------------------------------------|
//! | `args`    | our own command line, and the help                                         |
//! | `options` | the syntax of QEMU's options                                               |
//! | `command` | QEMU's command line: what is refused, what is added (pure)                 |
//! | `qemu`    | QEMU as a program                                                          |
//! | `check`   | a trace judged without QEMU                                                |
//! | `run`     | threads, clock, signals: one run from beginning to end                     |
//! | `console` | the guest's console in lines                                               |
//! | `tap`     | TAP 14, and what becomes of a test point (pure)                            |
//! | `session` | console and records, merged into one account (no I/O but its writer)       |
//! | `symbols` | functions and lines for addresses                                          |
//! | `stack`   | call stacks as a person reads them (pure)                                  |
//! | `story`   | a violation as a person reads it (pure)                                    |
//! | `advice`  | what to do about it (pure)                                                 |
//! | `cost`    | what invalidations were spent on (pure)                                    |
//! | `suppress`| violations that are known                                                  |
//! | `report`  | what stays: JSON lines, HTML, SARIF, JUnit                                 |
//! | `outcome` | exit code, reasons, summary (pure)                                         |
//! | `withheld`| what `--blind` keeps from the model                                        |
//! | `paint`   | colours and numbers                                                        |

mod advice;
mod args;
mod check;
mod command;
mod console;
mod cost;
mod options;
mod outcome;
mod paint;
mod qemu;
mod report;
mod run;
mod session;
mod stack;
mod story;
mod suppress;
mod symbols;
mod tap;
mod withheld;

use std::io::Write;
use std::process::ExitCode;

use args::Action;

/// Could not run.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let done = match args::parse(std::env::args_os().skip(1)) {
        Ok(Action::Print(text)) => {
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            Ok(0)
        }
        Ok(Action::Run(options)) => run::run(&options).map_err(|refusal| refusal.0),
        Ok(Action::Check(trace, options)) => check::check(&trace, &options).map_err(|refusal| refusal.0),
        Err(usage) => Err(usage),
    };
    match done {
        Ok(code) => code.into(),
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "tlbsan: could not run: {why}");
            COULD_NOT_RUN.into()
        }
    }
}
