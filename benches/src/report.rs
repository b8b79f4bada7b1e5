//! Results of a benchmark: one schema for the file, and the same as tables.

use serde::Serialize;
use std::io;
use std::path::PathBuf;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was done.
    pub(crate) workload: String,
    /// By whom.
    pub(crate) subject: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: String,
    /// The subject's value by ours, where they are compared.
    pub(crate) ratio: Option<f64>,
    /// What was promised, in the same unit.
    pub(crate) target: Option<f64>,
    /// Whether the promise is kept.
    pub(crate) met: Option<bool>,
}

impl Figure {
    /// A figure that nothing was promised of.
    pub(crate) fn new(workload: &str, subject: &str, value: f64, unit: &str) -> Self {
        let (workload, subject, unit) = (workload.to_owned(), subject.to_owned(), unit.to_owned());
        Self { workload, subject, value, unit, ratio: None, target: None, met: None }
    }

    /// Compared with ours.
    pub(crate) fn against(self, ours: f64) -> Self {
        Self { ratio: (ours != 0.0).then(|| self.value / ours), ..self }
    }

    /// At most `target` was promised.
    pub(crate) fn at_most(self, target: f64) -> Self {
        Self { target: Some(target), met: Some(self.value <= target), ..self }
    }
}

/// Writes `target/bench/NAME.json` and returns where.
pub(crate) fn write(name: &str, figures: &[Figure]) -> io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_string_pretty(figures)? + "\n")?;
    Ok(path)
}

/// Prints a table: `head` above `rows`, columns aligned, all but the first to the right.
pub(crate) fn print(title: &str, head: &[&str], rows: &[Vec<String>]) {
    println!("{title}\n");
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::from(" ");
        for (column, cell) in cells.enumerate() {
            let width = width(column);
            let cell = if column == 0 { format!(" {cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&cell);
        }
        println!("{}", text.trim_end());
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    println!();
}
