//! The guest's console, cut into lines; what is no line yet (a prompt) is shown after a short while.

use std::time::{Duration, Instant};

use crate::tap;

/// How long an unfinished line is held back.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// A line longer than this is passed on in pieces.
const LONGEST: usize = 1 << 16;

/// A piece of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A whole line, newline included.
    Line(Vec<u8>),
    /// A part of a line, to be shown as it is.
    Part(Vec<u8>),
}

/// Cuts bytes into lines.
#[derive(Default)]
pub(crate) struct Splitter {
    partial: Vec<u8>,
    /// When the last byte of `partial` came.
    since: Option<Instant>,
    /// The beginning of the current line was shown already.
    shown: bool,
}

impl Splitter {
    /// Takes what came.
    pub(crate) fn push(&mut self, bytes: &[u8], now: Instant) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for chunk in bytes.split_inclusive(|&b| b == b'\n') {
            self.partial.extend_from_slice(chunk);
            self.since = Some(now);
            if chunk.ends_with(b"\n") {
                pieces.extend(self.cut());
                self.shown = false;
            } else if self.partial.len() > LONGEST {
                self.shown = true;
                pieces.extend(self.cut());
            }
        }
        pieces
    }

    /// Gives up waiting for the end of a line that has been pausing.
    pub(crate) fn idle(&mut self, now: Instant) -> Option<Piece> {
        let paused = self.since.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        if !paused || self.partial.is_empty() || (!self.shown && tap::may_become(&self.partial)) {
            return None;
        }
        self.shown = true;
        self.cut()
    }

    /// No more will come.
    pub(crate) fn end(&mut self) -> Option<Piece> {
        self.cut()
    }

    fn cut(&mut self) -> Option<Piece> {
        let bytes = std::mem::take(&mut self.partial);
        let piece = if self.shown { Piece::Part } else { Piece::Line };
        (!bytes.is_empty()).then(|| piece(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_prompts_in_time() {
        let (mut splitter, start) = (Splitter::default(), Instant::now());
        let line = |text: &str| Piece::Line(text.into());
        let part = |text: &str| Piece::Part(text.into());
        assert_eq!(splitter.push(b"a\r\nb\nlog", start), [line("a\r\n"), line("b\n")]);
        assert_eq!(splitter.idle(start), None);
        let later = start + PATIENCE;
        assert_eq!(splitter.push(b"in: ", start), []);
        assert_eq!(splitter.idle(later), Some(part("login: ")));
        assert_eq!(splitter.idle(later), None);
        assert_eq!(splitter.push(b"ok 1\nok", later), [part("ok 1\n")], "typed behind a prompt: no test point");
        assert_eq!(splitter.idle(later + PATIENCE), None, "may become a test point");
        assert_eq!(splitter.push(b" 2\n", later), [line("ok 2\n")]);
        assert_eq!(splitter.push(b"\xff", later), []);
        assert_eq!(splitter.end(), Some(Piece::Line(b"\xff".to_vec())));
        assert_eq!(splitter.end(), None);
    }

    #[test]
    fn an_endless_line_does_not_grow() {
        let (mut splitter, now) = (Splitter::default(), Instant::now());
        let pieces = splitter.push(&vec![b'x'; LONGEST + 1], now);
        assert!(matches!(pieces.as_slice(), [Piece::Part(bytes)] if bytes.len() == LONGEST + 1));
        assert_eq!(splitter.push(b"y\n", now), [Piece::Part(b"y\n".to_vec())]);
        assert_eq!(splitter.push(b"z\n", now), [Piece::Line(b"z\n".to_vec())]);
    }
}
