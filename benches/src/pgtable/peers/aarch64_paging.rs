//! aarch64-paging: while its tables are active it checks every change for break-before-make first, and refuses where it is due.

use crate::arena;
use crate::subject::Subject;
use crate::workload::{Format, PAGE, Sum, Workload};
use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{El1Attributes, PhysicalAddress};
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, PageTable, Translation, VaRange};
use std::hint::black_box;
use std::ptr::NonNull;

struct Frames;

impl Translation<El1Attributes> for Frames {
    #[inline]
    fn allocate_table(&mut self) -> (NonNull<PageTable<El1Attributes>>, PhysicalAddress) {
        let frame = arena::allocate_zeroed().expect("a frame");
        (self.physical_to_virtual(PhysicalAddress(frame as usize)), PhysicalAddress(frame as usize))
    }

    #[inline]
    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<El1Attributes>>) {
        arena::free(table.as_ptr() as u64);
    }

    #[inline]
    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<El1Attributes>> {
        NonNull::new(pa.0 as *mut _).expect("no table is at 0")
    }
}

/// Active or not.
pub(crate) struct Paging<const LIVE: bool>(Mapping<Frames, El1And0>);

fn data() -> El1Attributes {
    type A = El1Attributes;
    A::VALID | A::ACCESSED | A::USER | A::INNER_SHAREABLE | A::NON_GLOBAL | A::UXN | A::PXN
}

fn region(va: u64, size: u64) -> MemoryRegion {
    MemoryRegion::new(va as usize, (va + size) as usize)
}

impl<const LIVE: bool> Paging<LIVE> {
    fn map_at(&mut self, va: u64, size: u64, pa: u64, leaf: u64) {
        let mut constraints = Constraints::NO_CONTIGUOUS_HINT;
        if leaf == PAGE {
            constraints |= Constraints::NO_BLOCK_MAPPINGS;
        }
        self.0.map_range(&region(va, size), PhysicalAddress(pa as usize), data(), constraints).expect("mapped");
    }

    fn unmap_at(&mut self, va: u64, size: u64) {
        let none = Constraints::empty();
        self.0.map_range(&region(va, size), PhysicalAddress(0), El1Attributes::empty(), none).expect("unmapped");
    }
}

impl<const LIVE: bool> Subject for Paging<LIVE> {
    const NAME: &'static str = if LIVE { "aarch64-paging, live" } else { "aarch64-paging" };
    const FORMAT: Format = Format::Aarch64;
    const VISITS_LEAVES: bool = LIVE;

    fn new() -> Self {
        let mapping = Mapping::with_asid_and_va_range(Frames, 7, 0, El1And0, VaRange::Lower);
        if LIVE {
            mapping.mark_active();
        }
        Self(mapping)
    }

    fn root(&self) -> u64 {
        self.0.root_address().0 as u64
    }

    fn map(&mut self, workload: &Workload) {
        for span in &workload.spans {
            self.map_at(span.va, span.size, span.pa, workload.leaf);
        }
    }

    fn walk(&self, workload: &Workload) -> Sum {
        let (va, size) = workload.whole();
        let mut sum = Sum::default();
        let mut visit =
            |_: &MemoryRegion, entry: &aarch64_paging::descriptor::Descriptor<El1Attributes>, level: usize| {
                if entry.is_valid() && (level == 3 || !entry.is_table_or_page()) {
                    sum.add(entry.output_address().0 as u64);
                }
                Ok(())
            };
        self.0.walk_range(&region(va, size), &mut visit).expect("walked");
        sum
    }

    fn protect(&mut self, workload: &Workload) {
        let modify =
            |_: &MemoryRegion, entry: &mut aarch64_paging::descriptor::UpdatableDescriptor<'_, El1Attributes>| {
                if entry.is_table() || !entry.flags().contains(El1Attributes::VALID) {
                    return Ok(());
                }
                entry.modify_flags(El1Attributes::READ_ONLY, El1Attributes::empty())
            };
        let (va, size) = workload.whole();
        if workload.apart {
            for span in &workload.spans {
                self.0.modify_range(&region(span.va, span.size), &modify).expect("protected");
            }
        } else {
            self.0.modify_range(&region(va, size), &modify).expect("protected");
        }
    }

    fn unmap(&mut self, workload: &Workload) -> Option<Sum> {
        for span in &workload.spans {
            self.unmap_at(span.va, span.size);
        }
        // Tables that are empty only now: those above.
        self.0.compact_subtables();
        None
    }

    fn map_each(&mut self, workload: &Workload) {
        for (va, pa) in workload.leaves() {
            self.map_at(va, workload.leaf, black_box(pa), workload.leaf);
        }
    }

    fn unmap_each(&mut self, workload: &Workload) -> Option<Sum> {
        for (va, _) in workload.leaves() {
            self.unmap_at(va, workload.leaf);
        }
        self.0.compact_subtables();
        None
    }

    fn end(self) {
        if LIVE {
            self.0.mark_inactive();
        }
    }
}
