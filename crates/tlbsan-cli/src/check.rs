//! `tlbsan check`: plays a trace back to the model and tells what it says, as `tlbsan run` would.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use tlbsan::report::Record;
use tlbsan::trace::Replay;
use tlbsan::{Config, Model};

use crate::args::Options;
use crate::command::Refusal;
use crate::outcome::{self, Exit, Facts};
use crate::paint::Paint;
use crate::session::{Session, Style};
use crate::symbols::Symbols;
use crate::withheld::Withheld;

/// Judges the trace and returns the exit code.
pub(crate) fn check(path: &Path, options: &Options) -> Result<u8, Refusal> {
    let unreadable = |error: &dyn std::fmt::Display| Refusal(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mut replay = Replay::new(BufReader::new(file)).map_err(|error| unreadable(&error))?;
    let symbols = Symbols::load(&options.symbols)?;
    let unwritable = |error: io::Error| Refusal(format!("the records could not be written: {error}; see `--json`"));
    let mut json = match &options.json {
        Some(path) => Some(BufWriter::new(File::create(path).map_err(unwritable)?)),
        None => None,
    };
    let recorded = replay.config();
    let ignore_hints = recorded.ignore_hints || options.ignore_hints;
    let config = Config { ignore_hints, blind: options.blind, ..recorded };

    let stdout = io::stdout();
    let style = Style {
        paint: Paint::new(options.colour, stdout.is_terminal(), |name| std::env::var_os(name)),
        stories: options.stories,
        quiet: options.quiet,
        cases: !config.ignore_hints,
    };
    let mut session = Session::new(stdout, &symbols, style);
    let mut model = Model::new(config);
    let (mut started, mut end, mut pes) = (false, None, 0);
    let mut withheld = Withheld::default();
    let broken = loop {
        let next = replay.next_event();
        match &next {
            Ok(Some(event)) => {
                pes = pes.max(event.pe as u64 + 1);
                model.event(&mut replay, event);
            }
            Ok(None) => model.finish(),
            Err(_) => {}
        }
        for record in model.take_records() {
            if let Some(json) = &mut json {
                let line = serde_json::to_string(&record).map_err(|error| unwritable(error.into()))?;
                writeln!(json, "{line}").map_err(unwritable)?;
            }
            match &record {
                Record::Start { .. } => started = true,
                Record::End(summary) => end = Some(summary.clone()),
                _ => withheld.record(&record),
            }
            session.record(record, Instant::now());
        }
        match next {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    session.stream_ended(Instant::now());
    let tally = session.finish(Instant::now());
    let facts =
        Facts { vcpus: pes, started, end, broken: None, notice: broken, exit: Exit::Status(0), cut: None, tally };
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
    let summary = outcome::summary(&facts, &outcome);
    lines.push(if outcome.code == 0 { style.paint.green(&summary) } else { style.paint.red(&summary) });
    session.say(&lines);
    if let Some(mut json) = json {
        writeln!(json, "{}", outcome::json(&facts, &outcome)).and_then(|()| json.flush()).map_err(unwritable)?;
    }
    Ok(outcome.code)
}
