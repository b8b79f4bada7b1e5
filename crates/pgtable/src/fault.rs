//! Protocol faults, for tests that show they are caught. Feature `fault-injection`; never in a kernel.

/// A mistake that a space makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The 2019 bug of arm64 Linux: a finish that sees another change open forgets that tables were freed, and invalidates
    /// the leaves of its range only.
    LostFreedTables,
    /// The first attempt at its cure: the record is reset after "the whole space" was noted in it, and nothing is left to do.
    GatherRecordResetLate,
    /// What the forced flush is there for: a finish that sees another change open flushes its own record, which is empty
    /// where the other one had cleared the entries before.
    UnflushedNeighbour,
    /// Unlinking a table is recorded as if it were a leaf.
    LeafOnlyAfterTableFree,
    /// Tables go back to the allocator before the flush.
    TablesFreedBeforeFlush,
    /// A change leaves the record before its flush has completed.
    LoweredBeforeFlush,
    /// A map does not look at the pending record.
    MapOverPending,
    /// A block is replaced by a table, and a run resized, in place, whatever FEAT_BBM says.
    SplitWithoutBbm,
    /// A mapping gets another frame or memory type in place.
    RemapWithoutBreak,
    /// A part of a contiguous run is changed, and the rest of it stays contiguous.
    ContiguousPartial,
    /// A block in the place of a table is followed by an invalidation of leaves only.
    CollapseLeafOnly,
    /// A new table is linked before it is cleared.
    TableLinkedBeforeZeroed,
}
