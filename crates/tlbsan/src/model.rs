//! The model: events in, records out.

use crate::{Event, Record, World};

/// How the model judges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Act as if the guest had executed no hint.
    pub ignore_hints: bool,
}

/// The model.
#[derive(Debug, Default)]
pub struct Model {
    records: Vec<Record>,
}

impl Model {
    /// A model of PEs that come out of reset.
    pub fn new(config: Config) -> Self {
        let _ = config;
        Self::default()
    }

    /// Takes one event.
    pub fn event<W: World>(&mut self, world: &mut W, event: &Event) {
        let _ = (world, event);
    }

    /// Records made since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// The run is over.
    pub fn finish(&mut self) {
        self.records.push(Record::End(crate::report::Summary::default()));
    }
}
