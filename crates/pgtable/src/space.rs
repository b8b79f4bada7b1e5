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
//!
//! The tables themselves are shared out by [`exclusive`](crate::exclusive), and read without any lock.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Entry, Kind};
use crate::edit::Edit;
use crate::error::Error;
use crate::gather::{Released, Stale, harvest};
use crate::geometry::{Geometry, K4, Lower};
use crate::grace::{Grace, Reader};
use crate::memory::{FrameAllocator, TableMemory};
use crate::record::{Census, Record, Remedy};
use crate::sync::Lock;
use crate::sync::atomic::AtomicBool;
use crate::walk::{Next, Path, Visit, Visitor, walk};
use core::fmt;
use core::marker::PhantomData;
use tlbi::{Asid, Depth, Invalidation, Issue, Level, PhysAddr, Pinned, Tlb, VaRange, VirtAddr};

/// A page or block that is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Where.
    pub va: VirtAddr,
    /// The frame.
    pub frame: PhysAddr,
    /// What it permits, the restrictions of the tables above included where they were seen: see [`AddressSpace::lookup`].
    pub attributes: Attributes,
    /// The leaf's descriptor, with its level in place of the address: one word, so that it is handed on in a register.
    rest: u64,
}

impl Mapping {
    #[inline(always)]
    pub(crate) fn new<G: Geometry>(va: VirtAddr, descriptor: Descriptor, level: Level) -> Self {
        Self {
            va,
            frame: descriptor.output::<G>(level),
            attributes: descriptor.attributes::<G>(),
            rest: descriptor.bits() & !LEVEL | ((level.number() + 1) as u64) << LEVEL_SHIFT,
        }
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor::from_bits(self.rest)
    }

    /// Level of the leaf.
    pub fn level(&self) -> Level {
        Level::from_number((self.rest >> LEVEL_SHIFT & 7) as i8 - 1).unwrap_or(Level::L3)
    }

    /// Member of a contiguous run.
    pub fn is_contiguous(&self) -> bool {
        self.descriptor().is_contiguous()
    }

    /// The access flag.
    pub fn is_accessed(&self) -> bool {
        self.descriptor().is_accessed()
    }

    /// Written to since it was mapped or last cleaned, as far as that is tracked.
    pub fn is_dirty(&self) -> bool {
        self.descriptor().is_dirty()
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("va", &self.va)
            .field("frame", &self.frame)
            .field("level", &self.level())
            .field("attributes", &self.attributes)
            .field("contiguous", &self.is_contiguous())
            .field("accessed", &self.is_accessed())
            .field("dirty", &self.is_dirty())
            .finish()
    }
}

const LEVEL_SHIFT: u32 = 16;
const LEVEL: u64 = 7 << LEVEL_SHIFT;

/// An address space: a tree of tables for TTBR0_EL1 or TTBR1_EL1, shaped by `G`; 4 KiB pages and the 48-bit lower half unless
/// told.
///
/// A space that is dropped keeps its tables allocated: some PE may still walk them. See [`AddressSpace::destroy`].
#[derive(Debug)]
pub struct AddressSpace<M, A, G = Lower<K4, 48>> {
    pub(crate) memory: M,
    pub(crate) frames: A,
    pub(crate) root: PhysAddr,
    /// Somebody has the root table: see [`exclusive`](crate::exclusive).
    pub(crate) root_taken: AtomicBool,
    asid: Option<Asid>,
    pub(crate) pa_bits: u8,
    pub(crate) remedy: Remedy,
    pub(crate) write_execute: bool,
    pub(crate) record: Lock<Record>,
    pub(crate) grace: Grace,
    #[cfg(feature = "fault-injection")]
    fault: core::sync::atomic::AtomicU8,
    geometry: PhantomData<G>,
}

impl<M: TableMemory, A: FrameAllocator, G: Geometry> AddressSpace<M, A, G> {
    /// An empty space whose entries are tagged with `asid`.
    ///
    /// `pa_bits`: physical address bits of the CPU (ID_AA64MMFR0_EL1.PARange); more than the format holds are not used. The ASID
    /// is the caller's to hand out: nothing of an earlier space with the same one may be cached.
    ///
    /// # Errors
    /// [`Error::OutOfFrames`] if there is no frame for the root table.
    pub fn new(memory: M, frames: A, asid: Asid, pa_bits: u8) -> Result<Self, Error> {
        Self::tagged(memory, frames, Some(asid), pa_bits)
    }

    /// An empty space whose mappings are global: a kernel's own, in every ASID.
    ///
    /// Nothing else may translate the same addresses under any ASID.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn global(memory: M, frames: A, pa_bits: u8) -> Result<Self, Error> {
        Self::tagged(memory, frames, None, pa_bits)
    }

    fn tagged(memory: M, frames: A, asid: Option<Asid>, pa_bits: u8) -> Result<Self, Error> {
        let root = frames.allocate().ok_or(Error::OutOfFrames { tables: 1 })?;
        memory.clear(root, G::ENTRIES);
        // SAFETY: an empty table that nobody else has.
        Ok(unsafe { Self::adopt(memory, frames, asid, pa_bits, root) })
    }

    /// A space of tables that exist already, and may be in use: those that a kernel's boot code has made. Nothing is read or
    /// written yet, and nothing invalidated.
    ///
    /// A table that becomes empty later goes to `frames`, whoever allocated it.
    ///
    /// # Safety
    /// - `root` and what hangs below it are tables of this shape, each linked from one entry, and `memory` reaches all of them.
    /// - Bits 58:55 of their table descriptors are clear; contiguous runs are complete.
    /// - Nobody else writes to them any more, hardware aside; what was written so far can be seen by every PE that edits.
    /// - Nothing is cached of them but what they say: what they said before has been invalidated.
    /// - Without an ASID every leaf is global; with one none is, and the space is used with that one.
    pub unsafe fn adopt(memory: M, frames: A, asid: Option<Asid>, pa_bits: u8, root: PhysAddr) -> Self {
        Self {
            memory,
            frames,
            root,
            root_taken: AtomicBool::new(false),
            asid,
            pa_bits: pa_bits.min(G::PA_BITS),
            remedy: Remedy::default(),
            write_execute: false,
            record: Lock::new(Record::new()),
            grace: Grace::new(),
            #[cfg(feature = "fault-injection")]
            fault: core::sync::atomic::AtomicU8::new(0),
            geometry: PhantomData,
        }
    }

    /// The same space with another remedy for changes that end while others are open.
    #[must_use]
    pub fn with_remedy(self, remedy: Remedy) -> Self {
        Self { remedy, ..self }
    }

    /// The same space, in which a mapping may be both writable and executable.
    #[must_use]
    pub fn with_write_execute(self) -> Self {
        Self { write_execute: true, ..self }
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

    /// The ASID; `None` for a space of global mappings.
    pub fn asid(&self) -> Option<Asid> {
        self.asid
    }

    /// What TTBR0_EL1 or TTBR1_EL1 holds while the space is in use: its ASID, if it has one, and the root (CnP = 0).
    pub fn ttbr(&self) -> u64 {
        let root = self.root.bits();
        // Address bits 51:48 are in 5:2.
        let base = root & 0x0000_ffff_ffff_ffff | (root >> 48 & 0xf) << 2;
        u64::from(self.asid.map_or(0, Asid::number)) << 48 | base
    }

    /// The request that makes unusable what is stale.
    pub(crate) fn invalidation(&self, stale: &Stale) -> Invalidation {
        self.pages(stale.range, stale.stride, stale.depth)
    }

    pub(crate) fn pages(&self, range: VaRange, stride: Level, depth: Depth) -> Invalidation {
        let inv = match self.asid {
            Some(asid) => Invalidation::pages(asid, range, stride, depth),
            None => Invalidation::global_pages(range, stride, depth),
        };
        inv.granule(G::GRANULE).lpa2(G::LPA2)
    }

    /// Everything that this space's tables may have left behind.
    pub(crate) fn everything(&self) -> Invalidation {
        self.asid.map_or_else(Invalidation::all, Invalidation::asid)
    }

    /// Runs `body`, which edits the tables; flushes what it removed, as deep as that was; then gives frames back.
    ///
    /// Any number of cores may have a change open at once. Frames of pages that were unmapped go to `owner`, after no PE can
    /// reach them any more; `owner` may be called during `body` as well, when the gather is full. No table is taken while it
    /// runs. What `body` returns is returned. If it panics, the flush is done all the same.
    ///
    /// Not from an interrupt handler: there, [`try_change`](Self::try_change).
    pub fn change<I, P, O, R>(
        &self,
        tlb: &Tlb<I>,
        pinned: &P,
        mut owner: &mut O,
        body: impl FnOnce(&mut Edit<'_, M, A, I, P, G>) -> R,
    ) -> R
    where
        I: Issue,
        P: Pinned + ?Sized,
        O: FnMut(Released) + ?Sized,
    {
        let share = self.record.lock().open();
        let mut edit = Edit::new(self, tlb, pinned, &mut owner, share, true);
        body(&mut edit)
        // Dropping the edit finishes the change: see `Edit::finish`.
    }

    /// [`change`](Self::change) that never waits for a table: what somebody else has, the interrupted code among them, gives
    /// [`Error::Busy`], and nothing is done.
    ///
    /// Not with [`Remedy::Wait`], which waits for other changes at its end.
    ///
    /// # Errors
    /// [`Error::Busy`] if the record is being written to at this moment; edits in `body` may be refused with the same.
    pub fn try_change<I, P, O, R>(
        &self,
        tlb: &Tlb<I>,
        pinned: &P,
        mut owner: &mut O,
        body: impl FnOnce(&mut Edit<'_, M, A, I, P, G>) -> R,
    ) -> Result<R, Error>
    where
        I: Issue,
        P: Pinned + ?Sized,
        O: FnMut(Released) + ?Sized,
    {
        // What this core has interrupted does not hold the record, or this fails; and others let go of it without waiting.
        let share = self.record.try_lock().ok_or(Error::Busy { range: G::EVERYTHING })?.open();
        let mut edit = Edit::new(self, tlb, pinned, &mut owner, share, false);
        Ok(body(&mut edit))
    }

    /// The mapping of the page or block at `va`, if there is one. Takes nothing, waits for nobody; beside edits it is true of
    /// some moment during the call.
    ///
    /// A kernel that goes on to use the frame pins it first and then asks again: only if the answer is the same was the frame
    /// not on its way to its owner.
    pub fn lookup(&self, va: VirtAddr) -> Option<Mapping> {
        let (path, _reader) = self.path(va)?;
        let (_, descriptor) = path.last();
        match descriptor.entry::<G>(path.level()) {
            Entry::Leaf(..) => {
                let start = va.align_down(G::size(path.level()));
                let leaf = Mapping::new::<G>(start, descriptor, path.level());
                Some(Mapping { attributes: path.hierarchical().apply(leaf.attributes), ..leaf })
            }
            _ => None,
        }
    }

    /// The table at `level` on the walk of `va`, if there is one.
    pub fn table(&self, va: VirtAddr, level: Level) -> Option<PhysAddr> {
        if level == G::ROOT {
            return Some(self.root);
        }
        let (path, _reader) = self.path(va)?;
        let above = level.above()?;
        match path.at(above)?.1.entry::<G>(above) {
            Entry::Table(table) => Some(table),
            _ => None,
        }
    }

    fn path(&self, va: VirtAddr) -> Option<(Path<G>, Reader<'_>)> {
        G::EVERYTHING.contains(va).then(|| {
            let reader = self.grace.enter();
            (Path::new(&self.memory, self.root, va), reader)
        })
    }

    /// Walks the pages of `range`, as hardware would beside edits: takes nothing, waits for nobody. The tables that the visitor
    /// sees are not freed while the walk runs. Returns where the visitor stopped it.
    ///
    /// # Errors
    /// [`Error::OutsideSpace`].
    pub fn walk<V: Visitor<M, G>>(&self, range: VaRange, visitor: &mut V) -> Result<Option<VirtAddr>, Error> {
        if !G::contains(range) {
            return Err(Error::OutsideSpace { range });
        }
        let _reader = self.grace.enter();
        Ok(walk::<M, G, V>(&self.memory, self.root, range.widen(G::PAGE), visitor).err())
    }

    /// Calls `each` for every page and block that is mapped, in ascending order. Takes nothing, waits for nobody.
    pub fn for_each(&self, each: &mut dyn FnMut(Mapping)) {
        struct All<'a>(&'a mut dyn FnMut(Mapping));
        impl<M: TableMemory, G: Geometry> Visitor<M, G> for All<'_> {
            #[inline]
            fn leaf(&mut self, at: &Visit<'_, M, G>) -> Next {
                if at.kind() == Kind::Leaf {
                    (self.0)(Mapping::new::<G>(at.span_start(), at.descriptor(), at.level()));
                }
                Next::Continue
            }
        }
        let _ = self.walk(G::EVERYTHING, &mut All(each));
    }

    /// Gives tables back to the allocator that lockless walks have kept until now. Every change does so at its end; this is for a
    /// space in which nothing changes any more.
    pub fn reclaim(&self) {
        self.grace.collect(&self.memory, |table| self.frames.free(table));
    }

    /// Ends the space: invalidates everything that its tables may have left behind, then gives the frames of its pages to
    /// `owner` and its tables to the allocator. The ASID may be handed out again afterwards.
    ///
    /// # Safety
    /// The root is loaded on no PE (TTBR0_EL1 or TTBR1_EL1 of each has been switched away, and a context synchronisation event
    /// has followed), and will not be loaded again.
    pub unsafe fn destroy<I, P, O>(mut self, tlb: &Tlb<I>, pinned: &P, mut owner: &mut O)
    where
        I: Issue,
        P: Pinned + ?Sized,
        O: FnMut(Released) + ?Sized,
    {
        // No PE can fill anything any more; what it has, goes here. The tables are nobody's afterwards.
        tlb.invalidate(pinned, &self.everything()).sync();
        let free = |table| self.frames.free(table);
        self.grace.finish(&self.memory, free);
        let start = G::EVERYTHING.start();
        harvest::<M, G>(&self.memory, self.root, G::ROOT, start, &mut owner, &mut { free });
    }
}

#[cfg(feature = "fault-injection")]
impl<M, A, G> AddressSpace<M, A, G> {
    /// From now on the space makes this mistake, or none.
    pub fn inject(&self, fault: Option<crate::fault::Fault>) {
        self.fault.store(fault.map_or(0, |fault| fault as u8 + 1), core::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn injected(&self, fault: crate::fault::Fault) -> bool {
        self.fault.load(core::sync::atomic::Ordering::Relaxed) == fault as u8 + 1
    }
}
