//! What a mapping permits and which memory it is: the fields of a leaf, and MAIR_EL1 behind one of them (Arm ARM D8.4, D8.6).

use bitflags::bitflags;
use core::fmt;

/// Shareability, the field SH. With LPA2 it is TCR_EL1's to say, and what a descriptor asks for is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shareability {
    /// This PE only.
    NonShareable = 0,
    /// Outer shareable.
    Outer = 2,
    /// Inner shareable: ordinary memory of a system with several PEs.
    #[default]
    Inner = 3,
}

/// AttrIndx: which of the eight memory types in MAIR_EL1 a mapping has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrIndex(u8);

impl AttrIndex {
    /// Index 0.
    pub const ZERO: Self = Self(0);

    /// The index, or `None` above 7.
    pub const fn new(index: u8) -> Option<Self> {
        if index < 8 { Some(Self(index)) } else { None }
    }

    /// 0..=7.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A memory type, as one byte of MAIR_EL1 has it (Arm ARM D24.2.109).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryType {
    /// Device memory: no gathering, no reordering, no early write acknowledgement.
    DeviceNGnRnE,
    /// Device memory that may acknowledge writes early: what most device registers want.
    DeviceNGnRE,
    /// Device memory that may be reordered.
    DeviceNGRE,
    /// Device memory that may be gathered and reordered.
    DeviceGRE,
    /// Normal memory, not cached anywhere: frame buffers, write-combining.
    NormalNonCacheable,
    /// Normal memory, write-through, read-allocating.
    NormalWriteThrough,
    /// Normal memory, write-back, read- and write-allocating: RAM.
    NormalWriteBack,
    /// The same with allocation tags (FEAT_MTE2).
    NormalTagged,
    /// Any other byte.
    Other(u8),
}

impl MemoryType {
    const fn bits(self) -> u8 {
        match self {
            Self::DeviceNGnRnE => 0x00,
            Self::DeviceNGnRE => 0x04,
            Self::DeviceNGRE => 0x08,
            Self::DeviceGRE => 0x0c,
            Self::NormalNonCacheable => 0x44,
            Self::NormalWriteThrough => 0xaa,
            Self::NormalWriteBack => 0xff,
            Self::NormalTagged => 0xf0,
            Self::Other(bits) => bits,
        }
    }
}

/// The memory types of a system: MAIR_EL1, and which index stands for which.
///
/// Changing MAIR_EL1 while translations that use it may be cached changes all of them at once, without break-before-make:
/// it is made once, before the MMU goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mair {
    types: [MemoryType; 8],
}

impl Mair {
    /// These eight.
    pub const fn new(types: [MemoryType; 8]) -> Self {
        Self { types }
    }

    /// RAM at index 0, then the device types, then uncached RAM: what Linux would call a reasonable set.
    pub const USUAL: Self = Self::new([
        MemoryType::NormalWriteBack,
        MemoryType::DeviceNGnRnE,
        MemoryType::DeviceNGnRE,
        MemoryType::NormalNonCacheable,
        MemoryType::NormalWriteThrough,
        MemoryType::DeviceGRE,
        MemoryType::NormalTagged,
        MemoryType::DeviceNGRE,
    ]);

    /// What MAIR_EL1 holds.
    pub const fn value(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut index = 0;
        while index < 8 {
            bytes[index] = self.types[index].bits();
            index += 1;
        }
        u64::from_le_bytes(bytes)
    }

    /// The type at `index`.
    pub const fn memory_type(&self, index: AttrIndex) -> MemoryType {
        self.types[(index.0 & 7) as usize]
    }

    /// The first index with this type, if there is one.
    pub const fn index_of(&self, wanted: MemoryType) -> Option<AttrIndex> {
        let mut index = 0;
        while index < 8 {
            if self.types[index as usize].bits() == wanted.bits() {
                return Some(AttrIndex(index));
            }
            index += 1;
        }
        None
    }
}

const ATTR_INDEX_SHIFT: u32 = 2;
const NON_SECURE: u64 = 1 << 5;
const AP_USER: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const SH_SHIFT: u32 = 8;
const GUARDED: u64 = 1 << 50;
const DIRTY_MANAGED: u64 = 1 << 51;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const SOFTWARE_SHIFT: u32 = 56;

/// Attributes of a mapping, kept as a leaf's descriptor has them.
///
/// Whether it is global is the space's to say, not the mapping's: a global entry over non-global ones is never right. The
/// access flag and the dirty state are what happens to a mapping, not what it permits: see [`Mapping`](crate::Mapping).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes(u64);

impl Attributes {
    /// AttrIndx.
    const MEMORY: u64 = 7 << ATTR_INDEX_SHIFT;
    /// SH; in the place of two address bits with LPA2.
    pub(crate) const SHAREABILITY: u64 = 3 << SH_SHIFT;
    /// What changes in place.
    pub(crate) const PERMISSIONS: u64 =
        AP_USER | AP_READ_ONLY | DIRTY_MANAGED | PXN | UXN | GUARDED | 7 << SOFTWARE_SHIFT;
    /// Everything.
    pub(crate) const ALL: u64 = Self::MEMORY | Self::SHAREABILITY | NON_SECURE | Self::PERMISSIONS;

    /// Readable and writable by EL0 and EL1, not executable, inner shareable, memory type 0.
    pub const USER_DATA: Self = Self(AP_USER | UXN | PXN | (Shareability::Inner as u64) << SH_SHIFT);

    /// Readable by EL0 and EL1.
    pub const USER_RODATA: Self = Self::USER_DATA.with_write(false);

    /// Readable by EL0 and EL1, executable by EL0.
    pub const USER_CODE: Self = Self::USER_RODATA.with_user_execute(true);

    /// Readable and writable by EL1.
    pub const KERNEL_DATA: Self = Self::USER_DATA.with_user(false);

    /// Readable by EL1.
    pub const KERNEL_RODATA: Self = Self::KERNEL_DATA.with_write(false);

    /// Readable and executable by EL1.
    pub const KERNEL_CODE: Self = Self::KERNEL_RODATA.with_privileged_execute(true);

    /// Those of a leaf, whether it is dirty or not.
    #[inline(always)]
    pub(crate) const fn of_leaf(bits: u64) -> Self {
        let clean = if bits & DIRTY_MANAGED != 0 { bits | AP_READ_ONLY } else { bits };
        Self(clean & Self::ALL)
    }

    /// As a leaf has them: clean, where dirty state is tracked.
    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    const fn with(self, mask: u64, on: bool) -> Self {
        Self(if on { self.0 | mask } else { self.0 & !mask })
    }

    /// The memory type.
    #[inline]
    pub const fn memory(self) -> AttrIndex {
        AttrIndex((self.0 >> ATTR_INDEX_SHIFT & 7) as u8)
    }

    /// With another memory type.
    #[must_use]
    pub const fn with_memory(self, memory: AttrIndex) -> Self {
        Self(self.0 & !Self::MEMORY | (memory.0 as u64) << ATTR_INDEX_SHIFT)
    }

    /// Shareability.
    pub const fn shareability(self) -> Shareability {
        match self.0 >> SH_SHIFT & 3 {
            2 => Shareability::Outer,
            3 => Shareability::Inner,
            _ => Shareability::NonShareable,
        }
    }

    /// With another shareability.
    #[must_use]
    pub const fn with_shareability(self, shareability: Shareability) -> Self {
        Self(self.0 & !Self::SHAREABILITY | (shareability as u64) << SH_SHIFT)
    }

    /// Stores are permitted.
    #[inline]
    pub const fn write(self) -> bool {
        self.0 & AP_READ_ONLY == 0 || self.0 & DIRTY_MANAGED != 0
    }

    /// Permitting stores or not; where not, there is nothing to track.
    #[must_use]
    pub const fn with_write(self, on: bool) -> Self {
        if self.write() == on { self } else { self.with(AP_READ_ONLY, !on).with(DIRTY_MANAGED, false) }
    }

    /// EL0 may access (`AP[1]`).
    #[inline]
    pub const fn user(self) -> bool {
        self.0 & AP_USER != 0
    }

    /// Permitting access by EL0 or not.
    #[must_use]
    pub const fn with_user(self, on: bool) -> Self {
        self.with(AP_USER, on)
    }

    /// EL0 may execute (UXN clear).
    #[inline]
    pub const fn user_execute(self) -> bool {
        self.0 & UXN == 0
    }

    /// Permitting execution by EL0 or not.
    #[must_use]
    pub const fn with_user_execute(self, on: bool) -> Self {
        self.with(UXN, !on)
    }

    /// EL1 may execute (PXN clear).
    #[inline]
    pub const fn privileged_execute(self) -> bool {
        self.0 & PXN == 0
    }

    /// Permitting execution by EL1 or not.
    #[must_use]
    pub const fn with_privileged_execute(self, on: bool) -> Self {
        self.with(PXN, !on)
    }

    /// Writes are noticed (DBM): a clean page is read-only until the first write. A PE with TCR_EL1.HD then makes it writable
    /// itself; on others [`Edit::touch`](crate::Edit::touch) does.
    #[inline]
    pub const fn track_dirty(self) -> bool {
        self.0 & DIRTY_MANAGED != 0
    }

    /// Noticing writes or not; nothing changes for what permits none.
    #[must_use]
    pub const fn with_track_dirty(self, on: bool) -> Self {
        if self.write() { self.with(DIRTY_MANAGED | AP_READ_ONLY, on) } else { self }
    }

    /// A guarded page (GP): indirect branches must land on BTI.
    pub const fn guarded(self) -> bool {
        self.0 & GUARDED != 0
    }

    /// Guarded or not.
    #[must_use]
    pub const fn with_guarded(self, on: bool) -> Self {
        self.with(GUARDED, on)
    }

    /// The output address is in the non-secure space (NS): in secure state only.
    pub const fn non_secure(self) -> bool {
        self.0 & NON_SECURE != 0
    }

    /// In the non-secure space or not.
    #[must_use]
    pub const fn with_non_secure(self, on: bool) -> Self {
        self.with(NON_SECURE, on)
    }

    /// Three bits for the kernel's own use (58:56); hardware ignores them.
    pub const fn software(self) -> u8 {
        (self.0 >> SOFTWARE_SHIFT & 7) as u8
    }

    /// With the low three bits of `software`.
    #[must_use]
    pub const fn with_software(self, software: u8) -> Self {
        Self(self.0 & !(7 << SOFTWARE_SHIFT) | (software as u64 & 7) << SOFTWARE_SHIFT)
    }

    /// Whether somebody may both write and execute.
    ///
    /// What EL0 may write, EL1 cannot execute whatever PXN says (Arm ARM D8.4.1), so only EL0's own permission counts there.
    #[inline(always)]
    pub const fn is_write_execute(self) -> bool {
        self.write() && if self.user() { self.user_execute() } else { self.privileged_execute() }
    }
}

impl fmt::Debug for Attributes {
    /// The fields, by name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attributes")
            .field("memory", &self.memory().number())
            .field("shareability", &self.shareability())
            .field("write", &self.write())
            .field("user", &self.user())
            .field("user_execute", &self.user_execute())
            .field("privileged_execute", &self.privileged_execute())
            .field("track_dirty", &self.track_dirty())
            .field("guarded", &self.guarded())
            .field("non_secure", &self.non_secure())
            .field("software", &self.software())
            .finish()
    }
}

bitflags! {
    /// What a table descriptor forbids to everything below it (Arm ARM D8.4.2); ignored where TCR_EL1.HPDn is set.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Hierarchical: u8 {
        /// PXNTable: EL1 may not execute.
        const NO_PRIVILEGED_EXECUTE = 1 << 0;
        /// UXNTable: EL0 may not execute.
        const NO_USER_EXECUTE = 1 << 1;
        /// `APTable[0]`: EL0 may not access.
        const NO_USER = 1 << 2;
        /// `APTable[1]`: nobody may write.
        const READ_ONLY = 1 << 3;
        /// NSTable: the tables below, and what they map, are in the non-secure space.
        const NON_SECURE = 1 << 4;
    }
}

impl Hierarchical {
    /// The attributes that are left of `leaf`.
    pub const fn apply(self, leaf: Attributes) -> Attributes {
        leaf.with_write(leaf.write() && !self.contains(Self::READ_ONLY))
            .with_user(leaf.user() && !self.contains(Self::NO_USER))
            .with_user_execute(leaf.user_execute() && !self.contains(Self::NO_USER_EXECUTE))
            .with_privileged_execute(leaf.privileged_execute() && !self.contains(Self::NO_PRIVILEGED_EXECUTE))
            .with_non_secure(leaf.non_secure() || self.contains(Self::NON_SECURE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mair_has_a_byte_for_each_index() {
        assert_eq!(Mair::USUAL.value() & 0xffff_ffff, 0x4404_00ff);
        assert_eq!(Mair::USUAL.index_of(MemoryType::DeviceNGnRE), AttrIndex::new(2));
        assert_eq!(Mair::USUAL.index_of(MemoryType::Other(0x77)), None);
        assert_eq!(AttrIndex::new(8), None);
    }

    #[test]
    fn a_writable_page_of_el0_is_not_executable_by_el1() {
        assert!(!Attributes::USER_DATA.with_privileged_execute(true).is_write_execute());
        assert!(Attributes::USER_DATA.with_user_execute(true).is_write_execute());
        assert!(Attributes::KERNEL_DATA.with_privileged_execute(true).is_write_execute());
    }

    #[test]
    fn tracking_is_for_what_may_be_written() {
        let tracked = Attributes::USER_DATA.with_track_dirty(true);
        assert!(tracked.write() && tracked.track_dirty());
        assert_eq!(tracked.with_track_dirty(false), Attributes::USER_DATA);
        assert_eq!(tracked.with_write(false), Attributes::USER_RODATA);
        assert_eq!(Attributes::USER_RODATA.with_track_dirty(true), Attributes::USER_RODATA);
    }
}
