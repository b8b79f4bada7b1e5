//! One run: starts QEMU, reads its console and the stream in a thread each, and brings it to an end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tlbsan::report::{Record, STREAM_VERSION, Summary};

use crate::args::Options;
use crate::command::{Backend, Refusal, Setup, build};
use crate::outcome::{self, Cut, Exit, Facts};
use crate::paint::Paint;
use crate::qemu;
use crate::session::{Session, Style};
use crate::symbols::Symbols;
use crate::withheld::Withheld;

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(25);
/// How long QEMU may take to quit when asked to.
const GRACE: Duration = Duration::from_secs(5);
/// How long its pipes may stay open, held by somebody else, once it has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// What the threads report.
enum Event {
    /// Bytes of the guest's console.
    Console(Vec<u8>),
    /// The console is closed.
    ConsoleEnd,
    /// A record, and the line that it was read from.
    Record(Box<Record>, String),
    /// The stream makes no sense, and is not read further.
    Broken(String),
    /// The stream is closed.
    StreamEnd,
}

/// Runs the guest and returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8, Refusal> {
    let program = options.qemu.clone().unwrap_or_else(|| PathBuf::from("qemu-system-aarch64"));
    qemu::check(&program)?;
    let plugin = qemu::plugin(options.plugin.as_deref())?;
    let symbols = Symbols::load(&options.symbols)?;
    let mut json = match &options.json {
        Some(path) => Some(File::create(path).map_err(|error| {
            Refusal(format!("cannot write {}: {error}; name another file with `--json`", path.display()))
        })?),
        None => None,
    };

    let (reader, writer) =
        io::pipe().map_err(|error| Refusal(format!("no pipe for the records: {error}; close some files")))?;
    let backend = qemu::backend();
    let setup = Setup {
        plugin: &plugin,
        fd: std::os::fd::AsRawFd::as_raw_fd(&writer),
        backend: backend.clone(),
        ignore_hints: options.ignore_hints,
        trace: options.trace,
        blind: options.blind,
        record: options.record.as_deref(),
    };
    let (args, vcpus) = build(&options.guest, &setup)?;
    let _file = Unlink(match backend {
        Backend::File(path) => Some(path),
        Backend::Memfd => None,
    });

    catch_signals();
    let mut child = qemu::spawn(&program, &args, &writer)?;
    // Only QEMU writes: when it ends, so does the stream.
    drop(writer);
    let (sender, events) = sync_channel(256);
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || read_console(stdout, &sender));
    }
    thread::spawn(move || read_stream(reader, &sender));

    let stdout = io::stdout();
    let style = Style {
        paint: Paint::new(options.colour, stdout.is_terminal(), |name| std::env::var_os(name)),
        stories: options.stories,
        quiet: options.quiet,
        cases: !options.ignore_hints,
    };
    let mut session = Session::new(stdout, &symbols, style);
    let mut watch = Watch { timeout: options.timeout, begun: Instant::now(), cut: None, asked: None, killed: false };
    let mut heard = Heard::default();
    let exit = follow(&mut child, &events, &mut session, &mut watch, &mut heard, json.as_mut());

    let facts = Facts {
        vcpus,
        started: heard.started,
        end: heard.end,
        broken: heard.broken,
        notice: heard.notice,
        exit,
        cut: watch.cut,
        tally: session.finish(Instant::now()),
    };
    let outcome = outcome::judge(&facts);
    let paint = style.paint;
    let mut lines: Vec<String> = outcome.reasons.iter().map(|reason| format!("tlbsan: {reason}")).collect();
    lines.extend(heard.withheld.line(&options.blind));
    let summary = outcome::summary(&facts, &outcome);
    lines.push(if outcome.code == 0 { paint.green(&summary) } else { paint.red(&summary) });
    session.say(&lines);
    if let Some(json) = &mut json {
        writeln!(json, "{}", outcome::json(&facts, &outcome)).map_err(|error| {
            Refusal(format!("the records could not be written in full: {error}; make room for `--json`"))
        })?;
    }
    Ok(outcome.code)
}

/// What the stream said about itself.
#[derive(Default)]
struct Heard {
    started: bool,
    end: Option<Summary>,
    broken: Option<String>,
    notice: Option<String>,
    withheld: Withheld,
}

/// Takes events until QEMU has ended and everything it wrote is read.
fn follow<W: Write>(
    child: &mut Child,
    events: &Receiver<Event>,
    session: &mut Session<'_, W>,
    watch: &mut Watch,
    heard: &mut Heard,
    mut json: Option<&mut File>,
) -> Exit {
    let (mut console, mut stream) = (true, true);
    let mut looked = Instant::now();
    let mut ended: Option<(Exit, Instant)> = None;
    loop {
        let event = events.recv_timeout(TICK);
        let (now, idle) = (Instant::now(), event.is_err());
        match event {
            Ok(Event::Console(bytes)) => session.console(&bytes, now),
            Ok(Event::ConsoleEnd) => console = false,
            Ok(Event::Record(record, line)) => {
                if let Some(json) = &mut json {
                    // A full disk is told at the end, when the outcome cannot be written either.
                    let _ = writeln!(json, "{line}");
                }
                match &*record {
                    Record::Start { .. } => heard.started = true,
                    Record::End(summary) => heard.end = Some(summary.clone()),
                    Record::Notice { text } => heard.notice = Some(text.clone()),
                    _ => heard.withheld.record(&record),
                }
                session.record(*record, now);
            }
            Ok(Event::Broken(why)) => {
                heard.broken = Some(why);
                watch.end(child, now);
            }
            Ok(Event::StreamEnd) => {
                stream = false;
                session.stream_ended(now);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                (console, stream) = (false, false);
                thread::sleep(TICK);
            }
        }
        if now.saturating_duration_since(looked) >= TICK {
            looked = now;
            session.tick(now);
            if ended.is_none() {
                watch.look(child, now);
                ended = match child.try_wait() {
                    Ok(Some(status)) => Some((qemu::exit(status), now)),
                    Ok(None) => None,
                    Err(_) => Some((Exit::Signal(0), now)),
                };
            }
        }
        if let Some((exit, at)) = ended
            && (!(console || stream) || now.saturating_duration_since(at) >= DRAIN && idle)
        {
            return exit;
        }
    }
}

/// The clock and the signals.
struct Watch {
    timeout: u64,
    begun: Instant,
    cut: Option<Cut>,
    /// When QEMU was asked to quit.
    asked: Option<Instant>,
    killed: bool,
}

impl Watch {
    fn look(&mut self, child: &mut Child, now: Instant) {
        let over = self.timeout > 0 && now.saturating_duration_since(self.begun) >= Duration::from_secs(self.timeout);
        let signals = SIGNALS.load(Ordering::Relaxed);
        if self.cut.is_none() && (over || signals > 0) {
            self.cut = Some(if over { Cut::Timeout(self.timeout) } else { Cut::Interrupted });
            self.end(child, now);
        }
        let late = self.asked.is_some_and(|asked| now.saturating_duration_since(asked) >= GRACE);
        if (late || signals > 1) && !self.killed {
            self.killed = true;
            // It may have ended just now, which is as well.
            let _ = child.kill();
        }
    }

    fn end(&mut self, child: &Child, now: Instant) {
        if self.asked.is_none() {
            self.asked = Some(now);
            qemu::terminate(child);
        }
    }
}

/// How many signals came that ask to stop.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// From now on SIGINT, SIGTERM and SIGHUP end QEMU, and tlbsan still says what was found.
fn catch_signals() {
    extern "C" fn count(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only adds to an atomic number.
        unsafe { libc::signal(signal, count as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// A file that is gone at the end.
struct Unlink(Option<PathBuf>);

impl Drop for Unlink {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn read_console(mut stdout: impl Read, sender: &SyncSender<Event>) {
    let mut buffer = vec![0; 1 << 14];
    loop {
        match stdout.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if sender.send(Event::Console(bytes)).is_err() {
                    return;
                }
            }
        }
    }
    let _ = sender.send(Event::ConsoleEnd);
}

fn read_stream(stream: impl Read, sender: &SyncSender<Event>) {
    let mut stream = BufReader::new(stream);
    let mut number = 0u64;
    let mut line = Vec::new();
    loop {
        line.clear();
        number += 1;
        match stream.read_until(b'\n', &mut line) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A last line without its end was cut with the process that wrote it.
            Ok(_) | Err(_) if line.last() != Some(&b'\n') => break,
            Ok(_) | Err(_) => {}
        }
        let event = match record(&line, number) {
            Ok((record, text)) => Event::Record(Box::new(record), text),
            Err(why) => {
                let _ = sender.send(Event::Broken(why));
                // QEMU must not stall on a full pipe while it is being ended.
                let _ = io::copy(&mut stream, &mut io::sink());
                break;
            }
        };
        if sender.send(event).is_err() {
            return;
        }
    }
    let _ = sender.send(Event::StreamEnd);
}

/// Reads line `number` of the stream, the first being 1.
fn record(line: &[u8], number: u64) -> Result<(Record, String), String> {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    let shown: String = text.chars().take(80).collect();
    let record: Record = serde_json::from_str(&text)
        .map_err(|error| format!("line {number} of the plugin's stream is no record ({error}): {shown}"))?;
    match record {
        Record::Start { version } if version != STREAM_VERSION => {
            Err(format!("the plugin's stream has version {version}, and this tlbsan reads version {STREAM_VERSION}"))
        }
        Record::Start { .. } => Ok((record, text)),
        _ if number == 1 => Err(format!("the plugin's stream does not begin with its version: {shown}")),
        _ => Ok((record, text)),
    }
}
