//! The bits of a stage-1 descriptor, in one place for every format (Arm ARM D8.3).
//!
//! ```text
//!   table   63:59 hierarchical   55 taken: this crate's lock, ignored by hardware    next table's address    1 1
//!   leaf    58:56 software  55 dirty, by software  54 UXN  53 PXN  52 Contiguous  51 DBM  50 GP
//!           11 nG  10 AF  9:8 SH, or address bits 51:50 with LPA2  7:6 AP  5 NS  4:2 AttrIndx    page 1 1, block 0 1
//! ```

use crate::attributes::{Attributes, Hierarchical, Shareability};
use crate::geometry::Geometry;
use tlbi::{Granule, Level, PhysAddr};

const VALID: u64 = 1 << 0;
/// Below level 3: a table. At level 3: a page.
const TABLE_OR_PAGE: u64 = 1 << 1;
const AP_USER: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const SH_SHIFT: u32 = 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NON_GLOBAL: u64 = 1 << 11;
/// Of a block: not to be cached in a way that conflicts with a change of its size (FEAT_BBM).
const NT: u64 = 1 << 16;
const GUARDED: u64 = 1 << 50;
const DIRTY_MANAGED: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
/// Of a leaf: was written to, when it could be and DBM no longer says so.
const SOFTWARE_DIRTY: u64 = 1 << 55;
/// Of a table: taken. Bits 58:55 of a table descriptor are ignored by hardware.
const TAKEN: u64 = 1 << 55;
const HIERARCHICAL_SHIFT: u32 = 59;

/// The 64 bits of a table entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Descriptor(u64);

/// What a descriptor is, at the level where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Invalid or reserved: translates nothing and is never cached.
    Invalid,
    /// Points at the next table.
    Table(PhysAddr),
    /// Translates: the frame and what it permits.
    Leaf(PhysAddr, Attributes),
}

/// The same without looking further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Invalid,
    Table,
    Leaf,
}

impl Descriptor {
    /// The invalid descriptor, all zero.
    pub const INVALID: Self = Self(0);

    /// These 64 bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Points at the table `next`.
    #[inline(always)]
    pub fn table<G: Geometry>(next: PhysAddr, hierarchical: Hierarchical) -> Self {
        let restrictions = (hierarchical.bits() as u64) << HIERARCHICAL_SHIFT;
        Self(place::<G>(next) | restrictions | TABLE_OR_PAGE | VALID)
    }

    /// A leaf at `level`, with its access flag set. A page that tracks its dirty state begins clean.
    #[inline(always)]
    pub fn leaf<G: Geometry>(level: Level, frame: PhysAddr, attributes: Attributes, global: bool) -> Self {
        let mut bits = place::<G>(frame) | attributes.bits() & fields::<G>() | VALID | ACCESS_FLAG;
        bits |= if level == Level::L3 { TABLE_OR_PAGE } else { 0 };
        bits |= if global { 0 } else { NON_GLOBAL };
        Self(bits)
    }

    /// The same leaf with these attributes. What was dirty stays so.
    #[inline(always)]
    pub(crate) fn with_attributes<G: Geometry>(self, attributes: Attributes) -> Self {
        let mut bits = self.0 & !(fields::<G>() | SOFTWARE_DIRTY) | attributes.bits() & fields::<G>();
        if self.is_dirty() {
            // Tracked and dirty is writable; in all other cases a software bit remembers.
            if bits & DIRTY_MANAGED != 0 {
                bits &= !AP_READ_ONLY;
            } else {
                bits |= SOFTWARE_DIRTY;
            }
        }
        Self(bits)
    }

    /// Whether bit 0 is set.
    #[inline(always)]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// What it is at `level`.
    #[inline(always)]
    pub(crate) fn kind<G: Geometry>(self, level: Level) -> Kind {
        match (self.0 & VALID != 0, self.0 & TABLE_OR_PAGE != 0, level == Level::L3) {
            (true, true, true) => Kind::Leaf,
            (true, true, false) => Kind::Table,
            (true, false, false) if G::has_leaves(level) => Kind::Leaf,
            _ => Kind::Invalid,
        }
    }

    /// Whether all entries of a table of pages are pages.
    #[inline(always)]
    pub(crate) fn all_pages(mut entries: impl Iterator<Item = Self>) -> bool {
        entries
            .try_fold((), |(), entry| (entry.0 & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE).then_some(()))
            .is_some()
    }

    /// What it is at `level`, read.
    #[inline]
    pub fn entry<G: Geometry>(self, level: Level) -> Entry {
        match self.kind::<G>(level) {
            Kind::Invalid => Entry::Invalid,
            Kind::Table => Entry::Table(self.next::<G>()),
            Kind::Leaf => Entry::Leaf(self.output::<G>(level), self.attributes::<G>()),
        }
    }

    /// Of a table descriptor: where the next table is.
    #[inline(always)]
    pub(crate) fn next<G: Geometry>(self) -> PhysAddr {
        PhysAddr::new(taken_from::<G>(self.0))
    }

    /// Of a leaf at `level`: the first byte it translates to. Below a block's size there may be nT.
    #[inline(always)]
    pub(crate) fn output<G: Geometry>(self, level: Level) -> PhysAddr {
        let within = if level == Level::L3 { 0 } else { G::size(level) - 1 };
        // The upper bits of a wide address are not where a block's offset is, so masking comes after decoding.
        PhysAddr::new(taken_from::<G>(self.0) & !within)
    }

    /// Of a leaf: what it permits, tracked dirty pages counting as writable.
    #[inline(always)]
    pub fn attributes<G: Geometry>(self) -> Attributes {
        let attributes = Attributes::of_leaf(self.0);
        if G::LPA2 { attributes.with_shareability(Shareability::Inner) } else { attributes }
    }

    /// Of a table descriptor: what it forbids.
    pub const fn hierarchical(self) -> Hierarchical {
        Hierarchical::from_bits_truncate((self.0 >> HIERARCHICAL_SHIFT) as u8)
    }

    /// Of a leaf: the access flag.
    #[inline(always)]
    pub const fn is_accessed(self) -> bool {
        self.0 & ACCESS_FLAG != 0
    }

    /// Of a leaf: written to since it was mapped or cleaned, as far as that is tracked.
    #[inline(always)]
    pub const fn is_dirty(self) -> bool {
        self.0 & SOFTWARE_DIRTY != 0 || self.0 & (DIRTY_MANAGED | AP_READ_ONLY) == DIRTY_MANAGED
    }

    /// Of a leaf: member of a contiguous run.
    #[inline(always)]
    pub const fn is_contiguous(self) -> bool {
        self.0 & CONTIGUOUS != 0
    }

    /// Whether both are the same but for what hardware updates, and for what changes with the size.
    pub(crate) const fn is_like(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(ACCESS_FLAG | SOFTWARE_DIRTY | CONTIGUOUS) & !self.dirty_bit(other) == 0
    }

    /// AP[2], where both track dirty state in it.
    const fn dirty_bit(self, other: Self) -> u64 {
        if self.0 & other.0 & DIRTY_MANAGED != 0 { AP_READ_ONLY } else { 0 }
    }

    /// Of a leaf: EL0 may execute it.
    #[inline(always)]
    pub(crate) const fn is_user_executable(self) -> bool {
        self.0 & UXN == 0
    }

    /// Of a leaf: not tagged with an ASID.
    pub const fn is_global(self) -> bool {
        self.0 & NON_GLOBAL == 0
    }

    /// Whether hardware may write this entry at any time: a valid leaf whose access flag or dirty state it could set.
    #[inline(always)]
    pub(crate) const fn is_volatile(self) -> bool {
        self.is_valid()
            && (self.0 & ACCESS_FLAG == 0 || self.0 & (DIRTY_MANAGED | AP_READ_ONLY) == DIRTY_MANAGED | AP_READ_ONLY)
    }

    /// Whether a TLB could hold what the old one permits and the new one does not: the change owes an invalidation.
    ///
    /// Not one that only permits more: a stale entry then costs a spurious fault. A leaf without its access flag is in no TLB
    /// unless hardware sets the flag, and hardware may do that at any time, so the flag is not consulted.
    #[inline(always)]
    pub(crate) const fn forbids_more(self, new: Self) -> bool {
        // Bits that permit when clear, and that permit when set. A page that hardware may make writable is writable.
        const WHEN_CLEAR: u64 = PXN | UXN | GUARDED;
        const fn is_writable(d: Descriptor) -> bool {
            d.0 & AP_READ_ONLY == 0 || d.0 & DIRTY_MANAGED != 0
        }
        new.0 & !self.0 & WHEN_CLEAR != 0
            || self.0 & !new.0 & AP_USER != 0
            || (is_writable(self) && !is_writable(new))
            // Cleaned: writes through the stale entry would not be noticed.
            || (self.0 & AP_READ_ONLY == 0 && new.0 & AP_READ_ONLY != 0)
    }

    /// Whether break-before-make is due between two leaves at one address, sizes and contiguous bit aside: another frame,
    /// memory type, shareability or address space, or global against non-global (Arm ARM D8.17.1).
    #[inline(always)]
    pub(crate) fn conflicts(self, new: Self, level: Level) -> bool {
        let nt = if level == Level::L3 { 0 } else { NT };
        (self.0 ^ new.0) & !(Attributes::PERMISSIONS | SOFTWARE_DIRTY | ACCESS_FLAG | nt | CONTIGUOUS) != 0
    }

    #[inline(always)]
    pub(crate) const fn with_contiguous(self, on: bool) -> Self {
        Self(if on { self.0 | CONTIGUOUS } else { self.0 & !CONTIGUOUS })
    }

    pub(crate) const fn with_accessed(self, on: bool) -> Self {
        Self(if on { self.0 | ACCESS_FLAG } else { self.0 & !ACCESS_FLAG })
    }

    pub(crate) const fn with_nt(self, on: bool) -> Self {
        Self(if on { self.0 | NT } else { self.0 & !NT })
    }

    /// Written to: tracked pages become writable.
    pub(crate) const fn with_dirty(self) -> Self {
        Self(if self.0 & DIRTY_MANAGED != 0 { self.0 & !AP_READ_ONLY } else { self.0 | SOFTWARE_DIRTY })
    }

    /// Not written to: tracked pages are read-only until the next write.
    pub(crate) const fn with_clean(self) -> Self {
        let clean = self.0 & !SOFTWARE_DIRTY;
        Self(if self.0 & DIRTY_MANAGED != 0 { clean | AP_READ_ONLY } else { clean })
    }

    /// The access flag and dirty state of either.
    pub(crate) const fn merged(self, other: Self) -> Self {
        let accessed = Self(self.0 | other.0 & ACCESS_FLAG);
        if other.is_dirty() { accessed.with_dirty() } else { accessed }
    }

    /// A leaf that has no address yet, with this one.
    #[inline(always)]
    pub(crate) fn at<G: Geometry>(self, output: PhysAddr) -> Self {
        Self(self.0 | place::<G>(output))
    }

    /// The same leaf at another level, for the frame `output`.
    #[inline(always)]
    pub(crate) fn resized<G: Geometry>(self, level: Level, output: PhysAddr) -> Self {
        // nT is among the address bits of a page.
        let kept = self.0 & !(place::<G>(PhysAddr::new(u64::MAX)) | TABLE_OR_PAGE | CONTIGUOUS);
        Self(kept | place::<G>(output) | if level == Level::L3 { TABLE_OR_PAGE } else { 0 })
    }

    /// The same leaf for the address `size` bytes further on, if that does not carry over into upper bits that stand elsewhere.
    #[inline(always)]
    pub(crate) const fn following(self, size: u64) -> Self {
        Self(self.0.wrapping_add(size))
    }

    /// Everything but the address bits that stand where they belong.
    #[inline(always)]
    pub(crate) fn without_address<G: Geometry>(self) -> Self {
        Self(self.0 & !in_place::<G>())
    }

    /// Broken, as in break-before-make: invalid, but what it was can be told.
    pub(crate) const fn broken(self) -> Self {
        Self(self.0 & !VALID)
    }

    /// What a [`broken`](Self::broken) one was.
    pub(crate) const fn mended(self) -> Self {
        Self(self.0 | VALID)
    }

    /// Of a table descriptor: somebody has the table.
    #[inline(always)]
    pub(crate) const fn is_taken(self) -> bool {
        self.0 & TAKEN != 0
    }

    #[inline(always)]
    pub(crate) const fn taken(self) -> Self {
        Self(self.0 | TAKEN)
    }

    #[inline(always)]
    pub(crate) const fn released(self) -> Self {
        Self(self.0 & !TAKEN)
    }
}

/// Where a leaf has its attributes. With LPA2 two address bits are in the place of SH.
#[inline(always)]
fn fields<G: Geometry>() -> u64 {
    if G::LPA2 { Attributes::ALL & !Attributes::SHAREABILITY } else { Attributes::ALL }
}

/// Bits that hold an address as it stands, without those that have moved.
#[inline(always)]
fn in_place<G: Geometry>() -> u64 {
    let top: u64 = if G::LPA2 { 1 << 50 } else { 1 << 48 };
    (top - 1) & !(G::PAGE - 1)
}

/// An address where a descriptor has it.
#[inline(always)]
fn place<G: Geometry>(address: PhysAddr) -> u64 {
    let low = address.bits() & in_place::<G>();
    match (G::GRANULE, G::LPA2) {
        // The upper four bits are in 15:12.
        (Granule::K64, _) => low | (address.bits() >> 48 & 0xf) << 12,
        // Bits 51:50 are in the place of SH.
        (_, true) => low | (address.bits() >> 50 & 3) << SH_SHIFT,
        _ => low,
    }
}

/// The address that a descriptor has.
#[inline(always)]
fn taken_from<G: Geometry>(bits: u64) -> u64 {
    let low = bits & in_place::<G>();
    match (G::GRANULE, G::LPA2) {
        (Granule::K64, _) => low | (bits >> 12 & 0xf) << 48,
        (_, true) => low | (bits >> SH_SHIFT & 3) << 50,
        _ => low,
    }
}
