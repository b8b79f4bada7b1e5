//! An address space that several cores change at once.
//!
//! The pending record ([`record`](crate::record)) is what keeps them from each other's throats. It lives in the space, not
//! in the change:
//!
//! ```text
//!   core 1                                core 2
//!   change opens: open = 1
//!   clears entries: the record grows      change opens: open = 2
//!                                         finds an entry already cleared: nothing of its own to flush
//!   finish: open > 1 -> as deep as any    finish: open > 1 -> all that it was asked to remove, as deep as
//!   open change has gone                    core 1 has gone: it must not return while what core 1 cleared
//!   lowered only after the flush            may still be cached
//! ```
//!
//! That is remedy c, the default; [`Remedy`] has the others.

use crate::attributes::Attributes;
use crate::descriptor::Entry;
use crate::edit::Edit;
use crate::error::Error;
use crate::gather::Released;
use crate::memory::{FrameAllocator, TableMemory};
use crate::record::{Census, Record, Remedy};
use crate::sync::Lock;
use crate::walk::{Visit, Visitor, walk};
use core::convert::Infallible;
use tlbi::{Asid, Granule, Invalidation, Issue, Level, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

/// A page that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where.
    pub va: VirtAddr,
    /// The frame.
    pub frame: PhysAddr,
    /// What it permits.
    pub attributes: Attributes,
    /// Level of the leaf.
    pub level: Level,
}

/// An address space: a tree of tables for TTBR0_EL1, 4 KiB granule, 48-bit addresses.
///
/// A space that is dropped keeps its tables allocated: some PE may still walk them. See [`AddressSpace::destroy`].
#[derive(Debug)]
pub struct AddressSpace<M, A> {
    pub(crate) memory: M,
    pub(crate) frames: A,
    root: PhysAddr,
    asid: Asid,
    pub(crate) pa_bits: u8,
    pub(crate) remedy: Remedy,
    /// Also guards the structure of the tables.
    pub(crate) record: Lock<Record>,
    #[cfg(feature = "fault-injection")]
    fault: core::sync::atomic::AtomicU8,
}

impl<M: TableMemory, A: FrameAllocator> AddressSpace<M, A> {
    /// An empty space whose entries are tagged with `asid`.
    ///
    /// `pa_bits`: physical address bits of the CPU (ID_AA64MMFR0_EL1.PARange); more than 48 are not used. The ASID is the
    /// caller's to hand out: nothing of an earlier space with the same one may be cached.
    ///
    /// # Errors
    /// [`Error::OutOfFrames`] if there is no frame for the root table.
    pub fn new(memory: M, frames: A, asid: Asid, pa_bits: u8) -> Result<Self, Error> {
        let root = frames.allocate().ok_or(Error::OutOfFrames { tables: 1 })?;
        memory.clear_table(root);
        Ok(Self {
            memory,
            frames,
            root,
            asid,
            pa_bits: pa_bits.min(48),
            remedy: Remedy::default(),
            record: Lock::new(Record::new()),
            #[cfg(feature = "fault-injection")]
            fault: core::sync::atomic::AtomicU8::new(0),
        })
    }

    /// The same space with another remedy for changes that end while others are open.
    #[must_use]
    pub fn with_remedy(self, remedy: Remedy) -> Self {
        Self { remedy, ..self }
    }

    /// How many changes have begun, and how many are open. Old as soon as it is returned: for statistics, and for tests that
    /// wait for a change to begin or to flush.
    pub fn census(&self) -> Census {
        self.record.lock().census()
    }

    /// The root table.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// The ASID.
    pub fn asid(&self) -> Asid {
        self.asid
    }

    /// What TTBR0_EL1 holds while the space is in use (TCR_EL1.A1 = 0, CnP = 0).
    pub fn ttbr0(&self) -> u64 {
        u64::from(self.asid.number()) << 48 | self.root.bits()
    }

    /// Runs `body`, which edits the tables; flushes what it removed, as deep as that was; then gives frames back.
    ///
    /// Any number of cores may have a change open at once. Frames of pages that were unmapped go to `owner`, after no PE can
    /// reach them any more; `owner` may be called during `body` as well, when the gather is full, and holds no lock of the
    /// space then. What `body` returns is returned. If it panics, the flush is done all the same.
    pub fn change<I: Issue, P: Pinned + ?Sized, R>(
        &self,
        tlb: &Tlb<I>,
        pinned: &P,
        owner: &mut dyn FnMut(Released),
        body: impl FnOnce(&mut Edit<'_, M, A, I, P>) -> R,
    ) -> R {
        let share = self.record.lock().open();
        let mut edit = Edit::new(self, tlb, pinned, owner, share);
        body(&mut edit)
        // Dropping the edit finishes the change: see `Edit::finish`.
    }

    /// The mapping of the page at `va`, if there is one.
    pub fn lookup(&self, va: VirtAddr) -> Option<Mapping> {
        struct Find(Option<Mapping>);
        impl<M: TableMemory> Visitor<M> for Find {
            type Error = Infallible;
            fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Infallible> {
                if let Entry::Leaf(frame, attributes) = at.entry() {
                    self.0 = Some(Mapping { va: at.span_start(), frame, attributes, level: at.level });
                }
                Ok(())
            }
        }
        let mut find = Find(None);
        self.inspect(va, &mut find);
        find.0
    }

    /// The table at `level` on the walk of `va`, if there is one.
    pub fn table(&self, va: VirtAddr, level: Level) -> Option<PhysAddr> {
        struct Find(Level, Option<PhysAddr>);
        impl<M: TableMemory> Visitor<M> for Find {
            type Error = Infallible;
            fn table_pre(&mut self, at: &Visit<'_, M>, table: PhysAddr) -> Result<(), Infallible> {
                if at.level.below() == Some(self.0) {
                    self.1 = Some(table);
                }
                Ok(())
            }
        }
        let mut find = Find(level, (level == crate::walk::ROOT_LEVEL).then_some(self.root));
        self.inspect(va, &mut find);
        find.1
    }

    /// Calls `each` for every page that is mapped, in ascending order.
    pub fn for_each(&self, each: &mut dyn FnMut(Mapping)) {
        struct All<'a>(&'a mut dyn FnMut(Mapping));
        impl<M: TableMemory> Visitor<M> for All<'_> {
            type Error = Infallible;
            fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Infallible> {
                if let Entry::Leaf(frame, attributes) = at.entry() {
                    (self.0)(Mapping { va: at.span_start(), frame, attributes, level: at.level });
                }
                Ok(())
            }
        }
        let Ok(everything) = VaRange::new(VirtAddr::new(0), 1 << VA_BITS) else { return };
        let _structure = self.record.lock();
        let Ok(()) = walk(&self.memory, self.root, everything, &mut All(each));
    }

    fn inspect<V: Visitor<M, Error = Infallible>>(&self, va: VirtAddr, visitor: &mut V) {
        if va.bits() >> VA_BITS != 0 {
            return;
        }
        let Ok(one) = VaRange::new(va, 1) else { return };
        let _structure = self.record.lock();
        let Ok(()) = walk(&self.memory, self.root, one, visitor);
    }

    /// Ends the space: invalidates everything tagged with its ASID, then gives the frames of its pages to `owner` and its
    /// tables to the allocator. The ASID may be handed out again afterwards.
    ///
    /// # Safety
    /// The root is loaded on no PE (TTBR0_EL1 of each has been switched away, and a context synchronisation event has
    /// followed), and will not be loaded again.
    pub unsafe fn destroy<I: Issue, P: Pinned + ?Sized>(
        self,
        tlb: &Tlb<I>,
        pinned: &P,
        owner: &mut dyn FnMut(Released),
    ) {
        struct Harvest<'a, A>(&'a A, &'a mut dyn FnMut(Released));
        impl<M: TableMemory, A: FrameAllocator> Visitor<M> for Harvest<'_, A> {
            type Error = Infallible;
            fn leaf(&mut self, at: &Visit<'_, M>) -> Result<(), Infallible> {
                if let Entry::Leaf(frame, _) = at.entry() {
                    (self.1)(Released { va: at.span_start(), frame });
                }
                Ok(())
            }
            fn table_post(&mut self, _: &Visit<'_, M>, table: PhysAddr) -> Result<(), Infallible> {
                self.0.free(table);
                Ok(())
            }
        }
        // No PE can fill anything any more; what it has, goes here. The tables are nobody's afterwards.
        tlb.invalidate(pinned, &Invalidation::asid(self.asid)).sync();
        if let Ok(everything) = VaRange::new(VirtAddr::new(0), 1 << VA_BITS) {
            let Ok(()) = walk(&self.memory, self.root, everything, &mut Harvest(&self.frames, owner));
        }
        self.frames.free(self.root);
    }
}

/// Bits of a virtual address in the lower half.
pub(crate) const VA_BITS: u32 = 48;
/// The granule.
pub(crate) const GRANULE: Granule = Granule::K4;

#[cfg(feature = "fault-injection")]
impl<M, A> AddressSpace<M, A> {
    /// From now on the space makes this mistake, or none.
    pub fn inject(&self, fault: Option<crate::fault::Fault>) {
        self.fault.store(fault.map_or(0, |fault| fault as u8 + 1), core::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn injected(&self, fault: crate::fault::Fault) -> bool {
        self.fault.load(core::sync::atomic::Ordering::Relaxed) == fault as u8 + 1
    }
}
