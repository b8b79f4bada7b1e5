//! page_table_multiarch: a cursor that walks from the root for every page; never frees a table on unmap.

use super::pte::Pte;
use crate::arena;
use crate::subject::Subject;
use crate::workload::{BLOCK, Format, PAGE, Sum, Workload};
use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::{GenericPTE, MappingFlags, PageSize, PageTable64, PagingHandler, PagingMetaData};
use std::cell::Cell;
use std::hint::black_box;

struct Meta;

impl PagingMetaData for Meta {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 48;
    const VA_MAX_BITS: usize = 48;
    type VirtAddr = VirtAddr;

    // Called on bare metal only.
    fn flush_tlb(_: Option<VirtAddr>) {}
}

struct Frames;

impl PagingHandler for Frames {
    #[inline]
    fn alloc_frames(frames: usize, _: usize) -> Option<PhysAddr> {
        assert_eq!(frames, 1);
        arena::allocate().map(|frame| (frame as usize).into())
    }

    #[inline]
    fn dealloc_frames(frame: PhysAddr, _: usize) {
        arena::free(frame.as_usize() as u64);
    }

    #[inline]
    fn phys_to_virt(pa: PhysAddr) -> VirtAddr {
        pa.as_usize().into()
    }
}

pub(crate) struct Multiarch(PageTable64<Meta, Pte, Frames>);

fn va(va: u64) -> VirtAddr {
    (va as usize).into()
}

fn pa(pa: u64) -> PhysAddr {
    (pa as usize).into()
}

fn data() -> MappingFlags {
    MappingFlags::READ | MappingFlags::WRITE | MappingFlags::USER
}

impl Subject for Multiarch {
    const NAME: &'static str = "page_table_multiarch";
    const FORMAT: Format = Format::Aarch64;
    const FREES_TABLES: bool = false;

    fn new() -> Self {
        Self(PageTable64::try_new().expect("a frame for the root"))
    }

    fn root(&self) -> u64 {
        self.0.root_paddr().as_usize() as u64
    }

    fn map(&mut self, workload: &Workload) {
        let mut cursor = self.0.cursor();
        for span in &workload.spans {
            let frame = |at: VirtAddr| pa(at.as_usize() as u64 - span.va + span.pa);
            cursor.map_region(va(span.va), frame, span.size as usize, data(), workload.leaf == BLOCK).expect("mapped");
        }
    }

    fn walk(&self, _: &Workload) -> Sum {
        let sum = Cell::new(Sum::default());
        // What it visits are present entries of all levels.
        let visit = |level: usize, _: usize, _: VirtAddr, entry: &Pte| {
            if level == 3 || entry.is_huge() {
                let mut so_far = sum.get();
                so_far.add(entry.paddr().as_usize() as u64);
                sum.set(so_far);
            }
        };
        self.0.walk(usize::MAX, Some(&visit), None);
        sum.get()
    }

    fn protect(&mut self, workload: &Workload) {
        let (start, size) = workload.whole();
        let read_only = MappingFlags::READ | MappingFlags::USER;
        let mut cursor = self.0.cursor();
        if workload.apart {
            for span in &workload.spans {
                cursor.protect_region(va(span.va), span.size as usize, read_only).expect("protected");
            }
        } else {
            cursor.protect_region(va(start), size as usize, read_only).expect("protected");
        }
    }

    fn unmap(&mut self, workload: &Workload) -> Option<Sum> {
        let mut cursor = self.0.cursor();
        for span in &workload.spans {
            cursor.unmap_region(va(span.va), span.size as usize).expect("unmapped");
        }
        None
    }

    fn map_each(&mut self, workload: &Workload) {
        let mut cursor = self.0.cursor();
        for (at, frame) in workload.leaves() {
            let size = if workload.leaf == PAGE { PageSize::Size4K } else { PageSize::Size2M };
            cursor.map(va(at), pa(black_box(frame)), size, data()).expect("mapped");
        }
    }

    fn unmap_each(&mut self, workload: &Workload) -> Option<Sum> {
        let mut sum = Sum::default();
        let mut cursor = self.0.cursor();
        for (at, _) in workload.leaves() {
            sum.add(cursor.unmap(va(at)).expect("unmapped").0.as_usize() as u64);
        }
        Some(sum)
    }
}
