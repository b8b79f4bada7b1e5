//! One run: starts QEMU, reads its console and the stream in a thread each, and brings it to an end.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tlbsan::report::{Record, STREAM_VERSION, Summary};

use crate::args::Options;
use crate::command::{Backend, RAM_BASE, Refusal, Setup, build};
use crate::outcome::{self, Cut, Exit, Facts};
use crate::paint::Paint;
use crate::qemu;
use crate::report::Reports;
use crate::session::{Session, Style};
use crate::stack::Telling;
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
    /// A record.
    Record(Box<Record>),
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
    let mut symbols = Symbols::load(&options.symbols)?;

    let (reader, writer) =
        io::pipe().map_err(|error| Refusal(format!("no pipe for the records: {error}; close some files")))?;
    let backend = qemu::backend();
    let setup = Setup {
        plugin: &plugin,
        fd: std::os::fd::AsRawFd::as_raw_fd(&writer),
        backend: backend.clone(),
        ignore_hints: options.ignore_hints,
        tell_all: options.suppress.is_some(),
        cost: options.cost,
        trace: options.trace,
        blind: options.blind,
        record: options.record.as_deref(),
    };
    let args = build(&options.guest, &setup)?;
    let _file = Unlink(match backend {
        Backend::File(path) => Some(path),
        Backend::Memfd => None,
    });

    let pid = Rc::new(Cell::new(None));
    let (of, made_of) = (Rc::clone(&pid), setup.backend.clone());
    symbols.look_into(RAM_BASE, Box::new(move || qemu::memory(of.get()?, &made_of)));
    let telling = Telling { names: &symbols, full_stacks: options.full_stacks };
    let mut reports = Reports::open(options, telling, subject(&program, &options.guest))?;

    catch_signals();
    let mut child = qemu::spawn(&program, &args, &writer)?;
    // Only QEMU writes: when it ends, so does the stream.
    drop(writer);
    pid.set(Some(child.id()));
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
    let mut session = Session::new(stdout, telling, style);
    let mut watch = Watch {
        timeout: options.timeout,
        first: options.stop_on_first,
        begun: Instant::now(),
        cut: None,
        asked: None,
        killed: false,
    };
    let mut heard = Heard::default();
    let mut stream = Incoming { symbols: &symbols, reports: &mut reports, heard: &mut heard };
    let exit = follow(&mut child, &events, &mut session, &mut watch, &mut stream);

    let facts = Facts {
        started: heard.started,
        end: heard.end,
        broken: heard.broken,
        notice: heard.notice,
        exit,
        cut: watch.cut,
        tally: session.finish(Instant::now()),
        suppressed: reports.suppressed(),
    };
    let outcome = outcome::judge(&facts);
    let paint = style.paint;
    let mut lines: Vec<String> = outcome.reasons.iter().map(|reason| format!("tlbsan: {reason}")).collect();
    lines.extend(heard.withheld.line(&options.blind));
    let written = reports.finish(&facts, &outcome, session.points(), paint);
    lines.extend(written.iter().flatten().cloned());
    let summary = outcome::summary(&facts, &outcome);
    lines.push(if outcome.code == 0 { paint.green(&summary) } else { paint.red(&summary) });
    session.say(&lines);
    written.map(|_| outcome.code)
}

/// What was run, as a person would type it.
fn subject(program: &Path, guest: &[OsString]) -> String {
    let words = std::iter::once(program.as_os_str()).chain(guest.iter().map(OsString::as_os_str));
    let quoted = words.map(|word| match word.to_string_lossy() {
        word if word.contains(char::is_whitespace) => format!("'{word}'"),
        word => word.into_owned(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Where records go.
struct Incoming<'a, 'r> {
    symbols: &'a Symbols,
    reports: &'a mut Reports<'r>,
    heard: &'a mut Heard,
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

impl Heard {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Start { .. } => self.started = true,
            Record::End(summary) => self.end = Some(summary.clone()),
            Record::Notice { text } => self.notice = Some(text.clone()),
            _ => self.withheld.record(record),
        }
    }
}

/// Takes events until QEMU has ended and everything it wrote is read.
fn follow<W: Write>(
    child: &mut Child,
    events: &Receiver<Event>,
    session: &mut Session<'_, W>,
    watch: &mut Watch,
    incoming: &mut Incoming<'_, '_>,
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
            Ok(Event::Record(record)) => {
                incoming.symbols.attach();
                // What a guest does while it is being stopped at its first violation is not told.
                if watch.cut != Some(Cut::First) || matches!(*record, Record::End(_)) {
                    for record in incoming.reports.take(*record) {
                        incoming.heard.note(&record);
                        session.record(record, now);
                    }
                }
                watch.failed(child, session.has_failed(), now);
            }
            Ok(Event::Broken(why)) => {
                incoming.heard.broken = Some(why);
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
            incoming.symbols.attach();
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
    /// Whether the first violation ends the run.
    first: bool,
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

    fn failed(&mut self, child: &Child, failed: bool, now: Instant) {
        if self.first && failed && self.cut.is_none() {
            self.cut = Some(Cut::First);
            self.end(child, now);
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
            Ok(record) => Event::Record(Box::new(record)),
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
fn record(line: &[u8], number: u64) -> Result<Record, String> {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    let shown: String = text.chars().take(80).collect();
    let record: Record = serde_json::from_str(&text)
        .map_err(|error| format!("line {number} of the plugin's stream is no record ({error}): {shown}"))?;
    match record {
        Record::Start { version } if version != STREAM_VERSION => {
            Err(format!("the plugin's stream has version {version}, and this tlbsan reads version {STREAM_VERSION}"))
        }
        Record::Start { .. } => Ok(record),
        _ if number == 1 => Err(format!("the plugin's stream does not begin with its version: {shown}")),
        _ => Ok(record),
    }
}
