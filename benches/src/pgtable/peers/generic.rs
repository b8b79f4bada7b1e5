//! page-table-generic: the caller's own entries, maps and unmaps whole ranges, frees tables.

use super::pte::{Pte, attributes};
use crate::arena;
use crate::subject::Subject;
use crate::workload::{BLOCK, Format, PAGE, Sum, Workload};
use page_table_generic::{FrameAllocator, MapConfig, PageTable, PhysAddr, TableMeta, VirtAddr};
use page_table_multiarch::MappingFlags;
use std::hint::black_box;

#[derive(Clone, Copy)]
struct Meta;

impl TableMeta for Meta {
    type P = Pte;
    const PAGE_SIZE: usize = PAGE as usize;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    #[inline]
    fn flush(va: Option<VirtAddr>) {
        black_box(va);
    }
}

#[derive(Clone)]
struct Frames;

impl FrameAllocator for Frames {
    #[inline]
    fn alloc_frame(&self) -> Option<PhysAddr> {
        arena::allocate().map(|frame| PhysAddr::from_usize(frame as usize))
    }

    #[inline]
    fn dealloc_frame(&self, frame: PhysAddr) {
        arena::free(frame.as_usize() as u64);
    }

    #[inline]
    fn phys_to_virt(&self, pa: PhysAddr) -> *mut u8 {
        pa.as_usize() as *mut u8
    }
}

pub(crate) struct Generic(PageTable<Meta, Frames>);

fn va(va: u64) -> VirtAddr {
    VirtAddr::from_usize(va as usize)
}

fn pa(pa: u64) -> PhysAddr {
    PhysAddr::from_usize(pa as usize)
}

fn data() -> u64 {
    attributes(MappingFlags::READ | MappingFlags::WRITE | MappingFlags::USER)
}

impl Subject for Generic {
    const NAME: &'static str = "page-table-generic";
    const FORMAT: Format = Format::Aarch64;

    fn new() -> Self {
        Self(PageTable::new(Frames).expect("a frame for the root"))
    }

    fn root(&self) -> u64 {
        self.0.root_paddr().as_usize() as u64
    }

    fn map(&mut self, workload: &Workload) {
        for span in &workload.spans {
            let config = MapConfig {
                vaddr: va(span.va),
                paddr: pa(span.pa),
                size: span.size as usize,
                pte: data(),
                allow_huge: workload.leaf == BLOCK,
                flush: true,
            };
            self.0.map(&config).expect("mapped");
        }
    }

    fn walk(&self, workload: &Workload) -> Sum {
        let (start, size) = workload.whole();
        let mut sum = Sum::default();
        for entry in self.0.walk(va(start), va(start + size)) {
            if entry.is_final_mapping {
                use page_table_generic::PageTableEntry;
                sum.add(entry.pte.paddr(entry.level > 1).as_usize() as u64);
            }
        }
        sum
    }

    fn protect(&mut self, workload: &Workload) {
        let (start, size) = workload.whole();
        let read_only = attributes(MappingFlags::READ | MappingFlags::USER);
        if workload.apart {
            for span in &workload.spans {
                self.0.protect_region(va(span.va), span.size as usize, read_only).expect("protected");
            }
        } else {
            self.0.protect_region(va(start), size as usize, read_only).expect("protected");
        }
    }

    fn unmap(&mut self, workload: &Workload) -> Option<Sum> {
        for span in &workload.spans {
            self.0.unmap(va(span.va), span.size as usize).expect("unmapped");
        }
        None
    }

    fn map_each(&mut self, workload: &Workload) {
        for (at, frame) in workload.leaves() {
            self.0.map_page(va(at), pa(black_box(frame)), PAGE as usize, data()).expect("mapped");
        }
    }

    fn unmap_each(&mut self, workload: &Workload) -> Option<Sum> {
        let mut sum = Sum::default();
        for (at, _) in workload.leaves() {
            sum.add(self.0.unmap_page(va(at)).expect("unmapped").0.as_usize() as u64);
        }
        Some(sum)
    }
}
