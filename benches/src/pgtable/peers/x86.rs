//! x86_64: page by page, each with a token; tables are freed by a call of its own.

use crate::arena;
use crate::subject::Subject;
use crate::workload::{BLOCK, Format, Sum, Workload};
use std::hint::black_box;
use x86_64::structures::paging::mapper::{CleanUp, MappedPageTable, Mapper, PageTableFrameMapping};
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

struct Identity;

// SAFETY: tables are where their addresses say.
unsafe impl PageTableFrameMapping for Identity {
    #[inline]
    fn frame_to_pointer(&self, frame: PhysFrame) -> *mut PageTable {
        frame.start_address().as_u64() as *mut PageTable
    }
}

struct Frames;

// SAFETY: the arena hands a frame out once until it is freed.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    #[inline]
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        arena::allocate().map(|frame| PhysFrame::containing_address(PhysAddr::new(frame)))
    }
}

impl FrameDeallocator<Size4KiB> for Frames {
    #[inline]
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        arena::free(frame.start_address().as_u64());
    }
}

pub(crate) struct X86 {
    table: MappedPageTable<'static, Identity>,
    root: u64,
}

const DATA: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::USER_ACCESSIBLE);
const READ_ONLY: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::USER_ACCESSIBLE);

#[inline]
fn page<S: PageSize>(va: u64) -> Page<S> {
    Page::containing_address(VirtAddr::new(va))
}

impl X86 {
    fn map_as<S: PageSize + std::fmt::Debug>(&mut self, workload: &Workload)
    where
        MappedPageTable<'static, Identity>: Mapper<S>,
    {
        for (va, pa) in workload.leaves() {
            let frame = PhysFrame::<S>::containing_address(PhysAddr::new(black_box(pa)));
            // SAFETY: no CPU uses the table.
            unsafe { self.table.map_to(page::<S>(va), frame, DATA, &mut Frames) }.expect("mapped").ignore();
        }
    }

    fn walk_as<S: PageSize>(&self, workload: &Workload) -> Sum
    where
        MappedPageTable<'static, Identity>: Mapper<S>,
    {
        let mut sum = Sum::default();
        for (va, _) in workload.leaves() {
            let frame: PhysFrame<S> = self.table.translate_page(page::<S>(va)).expect("mapped");
            sum.add(frame.start_address().as_u64());
        }
        sum
    }

    fn protect_as<S: PageSize>(&mut self, workload: &Workload)
    where
        MappedPageTable<'static, Identity>: Mapper<S>,
    {
        for (va, _) in workload.leaves() {
            let flags = if workload.leaf == BLOCK { READ_ONLY | PageTableFlags::HUGE_PAGE } else { READ_ONLY };
            // SAFETY: no CPU uses the table.
            unsafe { self.table.update_flags(page::<S>(va), flags) }.expect("protected").ignore();
        }
    }

    fn unmap_as<S: PageSize>(&mut self, workload: &Workload) -> Sum
    where
        MappedPageTable<'static, Identity>: Mapper<S>,
    {
        let mut sum = Sum::default();
        for (va, _) in workload.leaves() {
            let (frame, token) = self.table.unmap(page::<S>(va)).expect("unmapped");
            token.ignore();
            sum.add(frame.start_address().as_u64());
        }
        let (start, size) = workload.whole();
        let range = Page::range_inclusive(page(start), page(start + size - 1));
        // SAFETY: the tables are this space's alone.
        unsafe { self.table.clean_up_addr_range(range, &mut Frames) };
        sum
    }
}

impl Subject for X86 {
    const NAME: &'static str = "x86_64";
    const FORMAT: Format = Format::X86;
    const FINDS_LEAVES: bool = false;

    fn new() -> Self {
        let root = arena::allocate_zeroed().expect("a frame for the root");
        // SAFETY: the frame is a zeroed table and ours; tables are where their addresses say.
        let table = unsafe { MappedPageTable::new(&mut *(root as *mut PageTable), Identity) };
        Self { table, root }
    }

    fn root(&self) -> u64 {
        self.root
    }

    fn map(&mut self, workload: &Workload) {
        if workload.leaf == BLOCK { self.map_as::<Size2MiB>(workload) } else { self.map_as::<Size4KiB>(workload) }
    }

    fn walk(&self, workload: &Workload) -> Sum {
        if workload.leaf == BLOCK { self.walk_as::<Size2MiB>(workload) } else { self.walk_as::<Size4KiB>(workload) }
    }

    fn protect(&mut self, workload: &Workload) {
        if workload.leaf == BLOCK {
            self.protect_as::<Size2MiB>(workload);
        } else {
            self.protect_as::<Size4KiB>(workload);
        }
    }

    fn unmap(&mut self, workload: &Workload) -> Option<Sum> {
        Some(if workload.leaf == BLOCK {
            self.unmap_as::<Size2MiB>(workload)
        } else {
            self.unmap_as::<Size4KiB>(workload)
        })
    }

    fn map_each(&mut self, workload: &Workload) {
        self.map(workload);
    }

    fn unmap_each(&mut self, workload: &Workload) -> Option<Sum> {
        self.unmap(workload)
    }

    fn end(self) {
        arena::free(self.root);
    }
}
