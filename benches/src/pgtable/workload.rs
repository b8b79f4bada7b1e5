//! What is mapped, and whether it was: tables are read by a decoder that knows no subject.

use crate::arena::FRAME;

/// Adjacent pages or blocks that map adjacent frames: one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) va: u64,
    pub(crate) pa: u64,
    pub(crate) size: u64,
}

/// What is mapped.
#[derive(Clone)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Bytes of a page or block.
    pub(crate) leaf: u64,
    pub(crate) spans: Vec<Span>,
    /// Every span is a change by itself; otherwise all of them are one.
    pub(crate) apart: bool,
    /// The frames of a span are in no order.
    pub(crate) is_scattered: bool,
    /// Frames for tables that suffice.
    pub(crate) frames: usize,
    pub(crate) rounds: usize,
}

pub(crate) const PAGE: u64 = FRAME as u64;
pub(crate) const BLOCK: u64 = 2 << 20;
pub(crate) const GIB: u64 = 1 << 30;
const VA: u64 = 0x40_0000_0000;
/// Not aligned to the next larger block, so that pages are pages and 2 MiB blocks no larger ones, nor contiguous runs.
const PA: u64 = 0x8_0000_0000;

impl Workload {
    /// Pages, side by side.
    pub(crate) fn pages(size: u64, rounds: usize) -> Self {
        let spans = vec![Span { va: VA, pa: PA + PAGE, size }];
        let frames = (size / BLOCK) as usize + 8;
        Self { name: "1 GiB of 4K pages", leaf: PAGE, spans, apart: true, is_scattered: false, frames, rounds }
    }

    /// Some GiB of blocks, one call each.
    pub(crate) fn blocks(rounds: usize) -> Self {
        let span = |n| Span { va: VA + n * GIB, pa: PA + BLOCK + n * 2 * GIB, size: GIB };
        let spans = (0..32).map(span).collect();
        Self { name: "1 GiB as 2 MiB blocks", leaf: BLOCK, spans, apart: true, is_scattered: false, frames: 64, rounds }
    }

    /// One page in each 2 MiB of 64 GiB.
    pub(crate) fn sparse(rounds: usize) -> Self {
        let span = |n| Span { va: VA + n * BLOCK + n * 7 % 512 * PAGE, pa: PA + n * PAGE, size: PAGE };
        let spans: Vec<Span> = (0..64 * GIB / BLOCK).map(span).collect();
        let frames = spans.len() + 80;
        Self {
            name: "64 GiB, a page in each 2 MiB",
            leaf: PAGE,
            spans,
            apart: false,
            is_scattered: false,
            frames,
            rounds,
        }
    }

    /// All of it, holes included.
    pub(crate) fn whole(&self) -> (u64, u64) {
        let (first, last) = (self.spans[0], self.spans[self.spans.len() - 1]);
        let end = (last.va + last.size).next_multiple_of(BLOCK);
        (first.va, end - first.va)
    }

    /// The same, no frame beside its neighbour's.
    pub(crate) fn scattered(&self) -> Self {
        Self { is_scattered: true, ..self.clone() }
    }

    /// Virtual address and frame of every leaf.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let leaf = self.leaf;
        // Odd, so that every frame comes once of the 2^n of a span.
        let stride = if self.is_scattered { 0x9e37 } else { 1 };
        let parts = move |span: &Span| {
            let Span { va, pa, size } = *span;
            (0..size / leaf).map(move |n| (va + n * leaf, pa + ((n * stride * leaf) & (size - 1))))
        };
        self.spans.iter().flat_map(parts)
    }

    /// Leaves.
    pub(crate) fn count(&self) -> u64 {
        self.spans.iter().map(|span| span.size / self.leaf).sum()
    }

    /// What walking it must come to.
    pub(crate) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        self.leaves().for_each(|(_, pa)| sum.add(pa));
        sum
    }
}

/// Leaves that somebody has seen or given back, and their frames added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) leaves: u64,
    pub(crate) frames: u64,
}

impl Sum {
    #[inline(always)]
    pub(crate) fn add(&mut self, pa: u64) {
        self.leaves += 1;
        self.frames = self.frames.wrapping_add(pa);
    }
}

/// Which descriptors a subject writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Arm ARM D8.3, 4 KiB granule.
    Aarch64,
    /// The four levels of x86-64.
    X86,
}

/// Every leaf that the table at `root` leads to: virtual address, frame, size, whether it may be written to.
pub(crate) fn read(format: Format, root: u64) -> Vec<(u64, u64, u64, bool)> {
    let mut leaves = Vec::new();
    read_table(format, root, 0, 0, &mut leaves);
    leaves
}

fn read_table(format: Format, table: u64, level: u32, base: u64, leaves: &mut Vec<(u64, u64, u64, bool)>) {
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    let size = 1 << (39 - 9 * level);
    for index in 0..512 {
        // SAFETY: the subjects' tables are frames of the arena, and nobody writes to them at the moment.
        let entry = unsafe { (table as *const u64).add(index).read() };
        let va = base + index as u64 * size;
        let (leaf, writable) = match format {
            Format::Aarch64 => (level == 3 || entry & 2 == 0, entry & 1 << 7 == 0),
            Format::X86 => (level == 3 || entry & 1 << 7 != 0, entry & 2 != 0),
        };
        match (entry & 1 != 0, leaf) {
            (false, _) => {}
            (true, true) => leaves.push((va, entry & ADDRESS, size, writable)),
            (true, false) => read_table(format, entry & ADDRESS, level + 1, va, leaves),
        }
    }
}
