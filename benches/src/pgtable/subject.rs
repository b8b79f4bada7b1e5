//! What is measured: the same work, by each subject in its own way.

use crate::workload::{Format, Sum, Workload};

/// Maps, walks, protects and unmaps. An error of the library is a bug of the benchmark, and panics.
pub(crate) trait Subject: Sized {
    const NAME: &'static str;
    const FORMAT: Format;
    /// Unmapping gives tables back to the arena; otherwise its end does.
    const FREES_TABLES: bool = true;
    /// Its unmapping looks at leaves, rather than dropping whole tables.
    const VISITS_LEAVES: bool = true;
    /// It finds what is mapped in a range, rather than being told page by page.
    const FINDS_LEAVES: bool = true;

    /// An empty space.
    fn new() -> Self;

    /// Where its root table is.
    fn root(&self) -> u64;

    /// Maps every span, one call each.
    fn map(&mut self, workload: &Workload);

    /// Visits every leaf.
    fn walk(&self, workload: &Workload) -> Sum;

    /// Makes all of it read-only; with one call, if there is one that covers holes.
    fn protect(&mut self, workload: &Workload);

    /// Unmaps every span, one call each, and frees tables if it does. What it gives back, if it gives anything.
    fn unmap(&mut self, workload: &Workload) -> Option<Sum>;

    /// Maps page by page: the frame of each is asked for apart.
    fn map_each(&mut self, workload: &Workload);

    /// Unmaps page by page.
    fn unmap_each(&mut self, workload: &Workload) -> Option<Sum>;

    /// Gives back what it still has.
    fn end(self) {}
}
