//! How many operations Linux issues for a range, restated from the description of its algorithm: what users compare us with.
#![allow(unreachable_pub, reason = "shared between tests and benches")]

/// The most pages that one range operation covers.
const MAX_RANGE: u64 = 1 << 21;

/// A range for Linux.
#[derive(Clone, Copy, Debug)]
pub struct LinuxRange {
    /// First page, as a page number.
    pub first: u64,
    /// Number of pages.
    pub pages: u64,
    /// Pages of the smallest entry cleared.
    pub stride: u64,
    /// Entries of a table: 512, 2048 or 8192.
    pub entries: u64,
    /// With LPA2, pages in 64 KiB; otherwise 1.
    pub align: u64,
    /// Whether range operations are used.
    pub ranges: bool,
}

impl LinuxRange {
    /// Number of operations.
    pub fn operations(mut self) -> u64 {
        let excess = if self.ranges { self.pages > MAX_RANGE } else { self.pages >= self.stride * self.entries };
        if excess {
            return 1;
        }
        let mut operations = 0;
        let mut scale = 3;
        while self.pages > 0 {
            if !self.ranges || self.pages == 1 || self.first & (self.align - 1) != 0 {
                operations += 1;
                self.first += self.stride;
                self.pages = self.pages.saturating_sub(self.stride);
                continue;
            }
            let shift = 5 * scale + 1;
            let num = (self.pages >> shift).min(32);
            if num > 0 {
                operations += 1;
                self.first += num << shift;
                self.pages -= num << shift;
            }
            scale -= 1;
        }
        operations
    }
}
