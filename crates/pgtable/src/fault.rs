//! Protocol faults, for tests that show they are caught. Feature `fault-injection`; never in a kernel.

/// A mistake that a space makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The 2019 bug of arm64 Linux: a finish that sees another change open forgets that tables were freed, and invalidates
    /// the leaves of its range only.
    LostFreedTables,
}
