//! `tlbsan check`: plays a trace back to the model and tells what it says, as `tlbsan run` would.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::Path;
use std::time::Instant;

use tlbsan::report::Record;
use tlbsan::trace::Replay;
use tlbsan::{Config, Model};

use crate::args::Options;
use crate::command::Refusal;
use crate::outcome::{self, Cut, Exit, Facts};
use crate::paint::Paint;
use crate::report::Reports;
use crate::session::{Session, Style};
use crate::stack::Telling;
use crate::symbols::Symbols;
use crate::withheld::Withheld;

/// Judges the trace and returns the exit code.
pub(crate) fn check(path: &Path, options: &Options) -> Result<u8, Refusal> {
    let unreadable = |error: &dyn std::fmt::Display| Refusal(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mut replay = Replay::new(BufReader::new(file)).map_err(|error| unreadable(&error))?;
    let symbols = Symbols::load(&options.symbols)?;
    let recorded = replay.config();
    let config = Config {
        ignore_hints: recorded.ignore_hints || options.ignore_hints,
        tell_all: options.suppress.is_some(),
        cost: recorded.cost || options.cost,
        blind: options.blind,
    };
    let telling = Telling { names: &symbols, full_stacks: options.full_stacks };
    let mut reports = Reports::open(options, telling, path.display().to_string())?;

    let stdout = io::stdout();
    let style = Style {
        paint: Paint::new(options.colour, stdout.is_terminal(), |name| std::env::var_os(name)),
        stories: options.stories,
        quiet: options.quiet,
        cases: !config.ignore_hints,
    };
    let mut session = Session::new(stdout, telling, style);
    let mut model = Model::new(config);
    let mut withheld = Withheld::default();
    let (mut started, mut end) = (false, None);
    let (broken, cut) = 'events: loop {
        let next = replay.next_event();
        match &next {
            Ok(Some(event)) => {
                model.event(&mut replay, event);
            }
            Ok(None) => model.finish(),
            Err(_) => {}
        }
        for record in model.take_records().into_iter().flat_map(|record| reports.take(record)) {
            match &record {
                Record::Start { .. } => started = true,
                Record::End(summary) => end = Some(summary.clone()),
                _ => withheld.record(&record),
            }
            session.record(record, Instant::now());
            if options.stop_on_first && session.has_failed() {
                break 'events (None, Some(Cut::First));
            }
        }
        match next {
            Ok(Some(_)) => {}
            Ok(None) => break (None, None),
            Err(error) => break (Some(error.to_string()), None),
        }
    };
    session.stream_ended(Instant::now());
    let tally = session.finish(Instant::now());
    let facts = Facts {
        started,
        end,
        broken: None,
        notice: broken,
        exit: Exit::Status(0),
        cut,
        tally,
        suppressed: reports.suppressed(),
    };
    let mut outcome = outcome::judge(&facts);
    if let Some(why) = &facts.notice {
        outcome.reasons = vec![format!("{}: {why}", path.display())];
    }
    let mut lines: Vec<String> = outcome.reasons.iter().map(|reason| format!("tlbsan: {reason}")).collect();
    if replay.unanswered() > 0 {
        let asked = crate::paint::count(replay.unanswered(), "question", "questions");
        lines.push(format!("tlbsan: note: {asked} had no answer in the trace: another model recorded it"));
    }
    lines.extend(withheld.line(&options.blind));
    let written = reports.finish(&facts, &outcome, session.points(), style.paint);
    lines.extend(written.iter().flatten().cloned());
    let summary = outcome::summary(&facts, &outcome);
    lines.push(if outcome.code == 0 { style.paint.green(&summary) } else { style.paint.red(&summary) });
    session.say(&lines);
    written.map(|_| outcome.code)
}
