//! The window of a test case: what it is expected to show, and what it showed.

use crate::report::{CaseResult, Verdict};
use std::collections::BTreeSet;

/// A case that is running.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) id: u64,
    expected: BTreeSet<Verdict>,
    seen: BTreeSet<Verdict>,
    /// Counts of residues opened and cleaned when it began.
    began: (u64, u64),
}

impl Window {
    pub(crate) fn new(id: u64, counts: (u64, u64)) -> Self {
        Self { id, expected: BTreeSet::new(), seen: BTreeSet::new(), began: counts }
    }

    pub(crate) fn expect(&mut self, verdict: Verdict) {
        self.expected.insert(verdict);
    }

    /// Notes a verdict; says whether it was expected.
    pub(crate) fn see(&mut self, verdict: Verdict) -> bool {
        self.seen.insert(verdict);
        self.expected.contains(&verdict)
    }

    /// Equal as sets; and a case that expects nothing must have been awake.
    pub(crate) fn end(self, counts: (u64, u64)) -> CaseResult {
        let (opened, cleaned) = (counts.0 - self.began.0, counts.1 - self.began.1);
        let awake = opened > 0 && cleaned > 0;
        CaseResult {
            id: self.id,
            opened,
            cleaned,
            passed: self.expected == self.seen && (awake || !self.expected.is_empty()),
            expected: self.expected.into_iter().collect(),
            seen: self.seen.into_iter().collect(),
        }
    }
}
