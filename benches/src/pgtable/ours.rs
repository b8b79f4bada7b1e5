//! pgtable: shared by reference, checked, with everything that it does on hardware but the instructions themselves.

use crate::arena;
use crate::subject::Subject;
use crate::workload::{Format, PAGE, Span, Sum, Workload};
use pgtable::{
    AddressSpace, Attributes, Edit, Entry, FrameAllocator, K4, Lower, Next, Pages, TableMemory, Visit, Visitor,
};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use tlbi::{Asid, Dsb, Features, Issue, Level, Op, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

/// Tables are where their addresses say.
#[derive(Debug)]
pub(crate) struct Memory;

#[inline(always)]
fn word<'a>(entry: PhysAddr) -> &'a AtomicU64 {
    // SAFETY: the library accesses entries of frames that the arena gave it, and of no others; the arena's memory stays.
    unsafe { AtomicU64::from_ptr(entry.bits() as *mut u64) }
}

// SAFETY: one atomic access each, with the ordering named.
unsafe impl TableMemory for Memory {
    #[inline(always)]
    fn load(&self, entry: PhysAddr) -> u64 {
        word(entry).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(&self, entry: PhysAddr, value: u64) {
        word(entry).store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn store_release(&self, entry: PhysAddr, value: u64) {
        word(entry).store(value, Ordering::Release);
    }

    #[inline(always)]
    fn compare_exchange(&self, entry: PhysAddr, old: u64, new: u64) -> Result<(), u64> {
        word(entry).compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).map(|_| ())
    }

    #[inline(always)]
    fn clear(&self, first: PhysAddr, entries: usize) {
        // SAFETY: as for a word; nobody else reaches the entries.
        unsafe { (first.bits() as *mut u64).write_bytes(0, entries) };
    }
}

#[derive(Debug)]
pub(crate) struct Frames;

// SAFETY: the arena hands a frame out once until it is freed.
unsafe impl FrameAllocator for Frames {
    #[inline]
    fn allocate(&self) -> Option<PhysAddr> {
        arena::allocate().map(PhysAddr::new)
    }

    #[inline]
    fn free(&self, frame: PhysAddr) {
        arena::free(frame.bits());
    }
}

/// No PE: operations are planned and encoded, and go nowhere.
#[derive(Debug)]
pub(crate) struct Nowhere;

// SAFETY: stands for no PE.
unsafe impl Issue for Nowhere {
    #[inline(always)]
    fn tlbi(&self, op: Op) {
        black_box(op.operand());
    }

    #[inline(always)]
    fn dsb(&self, dsb: Dsb) {
        black_box(dsb);
    }

    #[inline(always)]
    fn isb(&self) {}
}

pub(crate) struct Here;
// SAFETY: there is no PE to stay on.
unsafe impl Pinned for Here {}

/// What a CPU with FEAT_TLBIRANGE, FEAT_TTL and FEAT_ETS2 can do: Neoverse V1 and later.
const FEATURES: Features = Features { asid_bits: 16, ets2: true, ttl: true, range: true, ..Features::NONE };

type Space = AddressSpace<Memory, Frames, Lower<K4, 48>>;
type Change<'c> = Edit<'c, Memory, Frames, Nowhere, Here>;

pub(crate) struct Ours {
    space: Space,
    tlb: Tlb<Nowhere>,
}

fn range(va: u64, size: u64) -> VaRange {
    VaRange::new(VirtAddr::new(va), size).expect("a range")
}

impl Ours {
    /// Does `each` for every span, in one change or in one each; what was given back.
    fn change(&self, workload: &Workload, each: impl Fn(&mut Change<'_>, &Span)) -> Sum {
        let mut sum = Sum::default();
        let mut owner = |released: pgtable::Released| sum.add(released.frame.bits());
        if workload.apart {
            for span in &workload.spans {
                self.space.change(&self.tlb, &Here, &mut owner, |edit| each(edit, span));
            }
        } else {
            self.space.change(&self.tlb, &Here, &mut owner, |edit| {
                workload.spans.iter().for_each(|span| each(edit, span));
            });
        }
        sum
    }

    /// [`Subject::map`], for threads that share a space.
    pub(crate) fn map_shared(&self, workload: &Workload) {
        let leaf = workload.leaf;
        self.change(workload, |edit, span| {
            let (range, frame) = (range(span.va, span.size), PhysAddr::new(span.pa));
            let done = if leaf == PAGE {
                edit.map_pages(range, frame, Attributes::USER_DATA)
            } else {
                edit.map(range, frame, Attributes::USER_DATA)
            };
            done.expect("mapped");
        });
    }

    /// [`Subject::protect`].
    pub(crate) fn protect_shared(&self, workload: &Workload) {
        let (va, size) = workload.whole();
        if workload.apart {
            self.change(workload, |edit, span| {
                edit.protect(range(span.va, span.size), Attributes::USER_RODATA).expect("protected");
            });
        } else {
            let change = |edit: &mut Change<'_>| edit.protect(range(va, size), Attributes::USER_RODATA);
            self.space
                .change(&self.tlb, &Here, &mut |_| unreachable!("nothing is unmapped"), change)
                .expect("protected");
        }
    }

    /// [`Subject::unmap`].
    pub(crate) fn unmap_shared(&self, workload: &Workload) -> Sum {
        self.change(workload, |edit, span| edit.unmap(range(span.va, span.size)).expect("unmapped"))
    }
}

impl Subject for Ours {
    const NAME: &'static str = "pgtable";
    const FORMAT: Format = Format::Aarch64;

    fn new() -> Self {
        let space = AddressSpace::new(Memory, Frames, Asid::new(7), 48).expect("a frame for the root");
        Self { space, tlb: Tlb::new(Nowhere, FEATURES) }
    }

    fn root(&self) -> u64 {
        self.space.root().bits()
    }

    fn map(&mut self, workload: &Workload) {
        self.map_shared(workload);
    }

    fn walk(&self, workload: &Workload) -> Sum {
        struct Count(Sum);
        impl Visitor<Memory, Lower<K4, 48>> for Count {
            // A table of pages at once: the sum stays in registers.
            #[inline(always)]
            fn pages(&mut self, at: &Pages<'_, Memory, Lower<K4, 48>>) -> Next {
                let mut sum = self.0;
                for descriptor in at.entries() {
                    if let Entry::Leaf(frame, _) = descriptor.entry::<Lower<K4, 48>>(Level::L3) {
                        sum.add(frame.bits());
                    }
                }
                self.0 = sum;
                Next::Skip
            }

            #[inline(always)]
            fn leaf(&mut self, at: &Visit<'_, Memory, Lower<K4, 48>>) -> Next {
                if let Entry::Leaf(frame, _) = at.entry() {
                    self.0.add(frame.bits());
                }
                Next::Continue
            }
        }
        let mut count = Count(Sum::default());
        let (va, size) = workload.whole();
        self.space.walk(range(va, size), &mut count).expect("walked");
        count.0
    }

    fn protect(&mut self, workload: &Workload) {
        self.protect_shared(workload);
    }

    fn unmap(&mut self, workload: &Workload) -> Option<Sum> {
        Some(self.unmap_shared(workload))
    }

    fn map_each(&mut self, workload: &Workload) {
        let (va, size) = workload.whole();
        let map = |edit: &mut Change<'_>| {
            let mut cursor = edit.cursor(range(va, size)).expect("a cursor");
            for (_, frame) in workload.leaves() {
                cursor.map(PhysAddr::new(black_box(frame)), Attributes::USER_DATA).expect("mapped");
            }
        };
        self.space.change(&self.tlb, &Here, &mut |_| unreachable!("nothing is unmapped"), map);
    }

    fn unmap_each(&mut self, workload: &Workload) -> Option<Sum> {
        Some(self.change(workload, |edit, span| {
            let mut cursor = edit.cursor(range(span.va, span.size)).expect("a cursor");
            for _ in 0..span.size / PAGE {
                cursor.unmap().expect("unmapped").expect("was mapped");
            }
        }))
    }

    fn end(self) {
        // SAFETY: no PE uses it.
        unsafe { self.space.destroy(&self.tlb, &Here, &mut |_| panic!("something was still mapped")) };
    }
}
