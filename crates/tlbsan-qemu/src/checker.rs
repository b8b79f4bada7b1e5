//! The model behind its lock, the stream of its records, and when to stop.
//!
//! One lock makes events of several vCPUs one sequence. Whatever goes wrong in here ends the checking, never the guest: a
//! notice is written, and the record `end` is not, so that nobody takes silence for a clean run.

use crate::bindings::Api;
use crate::memory::Ram;
use crate::vcpu::Vcpu;
use crate::watch::Watched;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tlbsan::trace::Recorder;
use tlbsan::{Config, Event, Model, Record, What, World};

/// The model and where its records go.
#[derive(Debug)]
pub(crate) struct Checker {
    judge: Mutex<Judge>,
    stream: Mutex<Stream>,
    stopped: AtomicBool,
    trace: bool,
    /// Events until it panics.
    panic_in: Option<AtomicU64>,
}

/// The model, and who writes down what it is told.
#[derive(Debug)]
struct Judge {
    model: Model,
    recorder: Option<Recorder<BufWriter<File>>>,
}

impl Checker {
    /// A checker that has written its first record; `record` is where the trace goes.
    pub(crate) fn new(
        config: Config,
        mut stream: Stream,
        args: (bool, Option<u64>),
        record: Option<File>,
    ) -> io::Result<Self> {
        let (trace, panic_at) = args;
        let mut model = Model::new(config);
        for record in model.take_records() {
            stream.write(&record)?;
        }
        let recorder = record.map(|file| Recorder::new(BufWriter::new(file), &config)).transpose()?;
        let judge = Mutex::new(Judge { model, recorder });
        let panic_in = panic_at.map(AtomicU64::new);
        Ok(Self { judge, stream: Mutex::new(stream), stopped: AtomicBool::new(false), trace, panic_in })
    }

    /// Whether checking has ended, in whatever way.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Shows the model one event of the vCPU that `visit` is about.
    pub(crate) fn handle(&self, visit: &mut Visit<'_>, pc: u64, what: What) {
        // Poisoned: another vCPU's event has panicked in the model, which has stopped the checking.
        let Ok(mut judge) = self.judge.lock() else { return };
        let Judge { model, recorder } = &mut *judge;
        // Here, because the checking may have stopped while this vCPU waited.
        if self.stopped() {
            return;
        }
        if let Some(left) = &self.panic_in {
            assert!(left.fetch_sub(1, Ordering::Relaxed) != 1, "asked for by panic-at");
        }
        let event = Event { pe: visit.vcpu.index, pc, what };
        if self.trace {
            eprintln!("tlbsan: PE {} at {pc:#x}: {what:x?}, called from {:x?}", event.pe, visit.stack());
        }
        match recorder {
            None => model.event(visit, &event),
            Some(recorder) => {
                if let Err(e) = recorder.event(model, visit, &event) {
                    self.stop(&format!("cannot write the trace: {e}"));
                }
            }
        }
        self.write(&model.take_records());
    }

    /// The run is over: the last records.
    pub(crate) fn finish(&self) {
        let Ok(mut judge) = self.judge.lock() else { return };
        if !self.stopped() {
            if let Some(Err(e)) = judge.recorder.take().map(Recorder::finish) {
                return self.stop(&format!("cannot write the trace: {e}"));
            }
            judge.model.finish();
            self.write(&judge.model.take_records());
            self.stopped.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the checking, and says why in a sentence. The guest goes on.
    pub(crate) fn stop(&self, why: &str) {
        if self.stopped.swap(true, Ordering::Relaxed) {
            return;
        }
        eprintln!("tlbsan: {why}; checking has stopped, the guest goes on");
        let text = format!("{why}; checking has stopped");
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.write(&Record::Notice { text });
    }

    fn write(&self, records: &[Record]) {
        for record in records {
            let written = self.stream.lock().unwrap_or_else(PoisonError::into_inner).write(record);
            if let Err(e) = written {
                return self.stop(&format!("cannot write a record: {e}"));
            }
        }
    }
}

/// Records as lines of JSON. A line is written at once, so that a reader sees it even if QEMU is killed.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
}

impl Stream {
    /// A stream to the file descriptor.
    ///
    /// # Safety
    /// The descriptor, if open, is meant for this stream and nobody else closes it.
    pub(crate) unsafe fn open(fd: RawFd) -> io::Result<Self> {
        // SAFETY: not dropped, thus not closed, before it is known to be open.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        file.metadata()?;
        Ok(Self { file: ManuallyDrop::into_inner(file) })
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// The world as the model sees it during an event of one vCPU, on that vCPU's thread.
pub(crate) struct Visit<'a> {
    pub(crate) api: &'a Api,
    pub(crate) ram: &'a Ram,
    pub(crate) watched: &'a Watched,
    pub(crate) vcpu: &'a Vcpu,
}

impl World for Visit<'_> {
    fn load(&self, pa: u64) -> Option<u64> {
        self.ram.load(pa)
    }

    fn stack(&self) -> Vec<u64> {
        self.vcpu.stack(self.api, self.ram)
    }

    fn text(&self, va: u64, len: u64) -> Option<String> {
        self.vcpu.text(self.api, self.ram, va, len)
    }

    fn watch(&mut self, page: u64, on: bool) {
        self.watched.set(page, on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use tlbsan::report::STREAM_VERSION;

    #[test]
    fn a_stopped_checker_writes_a_notice_and_no_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let fd = writer.as_raw_fd();
        std::mem::forget(writer);
        // SAFETY: open, and given away.
        let checker =
            Checker::new(Config::default(), unsafe { Stream::open(fd) }.unwrap(), (false, None), None).unwrap();
        checker.stop("it broke");
        checker.stop("and again");
        checker.finish();
        drop(checker);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let notice = Record::Notice { text: "it broke; checking has stopped".into() };
        assert_eq!(records, [Record::Start { version: STREAM_VERSION }, notice]);
    }

    #[test]
    fn a_closed_descriptor_is_refused() {
        // SAFETY: nothing is open under so large a number.
        assert!(unsafe { Stream::open(1 << 28) }.is_err());
    }
}
