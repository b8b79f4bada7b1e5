//! What a mapping permits and which memory it is: the fields of a leaf, and MAIR_EL1 behind one of them (Arm ARM D8.4, D8.6).

use bitflags::bitflags;

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

    pub(crate) const fn of_bits(bits: u64) -> Self {
        Self((bits & 7) as u8)
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

/// Attributes of a mapping.
///
/// Whether it is global is the space's to say, not the mapping's: a global entry over non-global ones is never right. The
/// access flag and the dirty state are what happens to a mapping, not what it permits: see [`Mapping`](crate::Mapping).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// The memory type.
    pub memory: AttrIndex,
    /// Shareability.
    pub shareability: Shareability,
    /// Stores are permitted.
    pub write: bool,
    /// EL0 may access (`AP[1]`).
    pub user: bool,
    /// EL0 may execute (UXN clear).
    pub user_execute: bool,
    /// EL1 may execute (PXN clear).
    pub privileged_execute: bool,
    /// Hardware or software keeps track of writes (DBM): a clean page is read-only until the first write, and a write to it
    /// by a PE with TCR_EL1.HD makes it writable. Means something only together with `write`.
    pub track_dirty: bool,
    /// A guarded page (GP): indirect branches must land on BTI. Without LPA2 and with it in the same place.
    pub guarded: bool,
    /// The output address is in the non-secure space (NS): in secure state only.
    pub non_secure: bool,
    /// Three bits for the kernel's own use (58:56); hardware ignores them.
    pub software: u8,
}

impl Attributes {
    /// Readable and writable by EL0 and EL1, not executable, inner shareable, memory type 0.
    pub const USER_DATA: Self = Self {
        memory: AttrIndex::ZERO,
        shareability: Shareability::Inner,
        write: true,
        user: true,
        user_execute: false,
        privileged_execute: false,
        track_dirty: false,
        guarded: false,
        non_secure: false,
        software: 0,
    };

    /// Readable by EL0 and EL1.
    pub const USER_RODATA: Self = Self { write: false, ..Self::USER_DATA };

    /// Readable by EL0 and EL1, executable by EL0.
    pub const USER_CODE: Self = Self { write: false, user_execute: true, ..Self::USER_DATA };

    /// Readable and writable by EL1.
    pub const KERNEL_DATA: Self = Self { user: false, ..Self::USER_DATA };

    /// Readable by EL1.
    pub const KERNEL_RODATA: Self = Self { write: false, ..Self::KERNEL_DATA };

    /// Readable and executable by EL1.
    pub const KERNEL_CODE: Self = Self { privileged_execute: true, ..Self::KERNEL_RODATA };

    /// Whether somebody may both write and execute.
    ///
    /// What EL0 may write, EL1 cannot execute whatever PXN says (Arm ARM D8.4.1), so only EL0's own permission counts there.
    pub const fn is_write_execute(&self) -> bool {
        self.write && (self.user_execute && self.user || self.privileged_execute && !self.user)
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
        Attributes {
            write: leaf.write && !self.contains(Self::READ_ONLY),
            user: leaf.user && !self.contains(Self::NO_USER),
            user_execute: leaf.user_execute && !self.contains(Self::NO_USER_EXECUTE),
            privileged_execute: leaf.privileged_execute && !self.contains(Self::NO_PRIVILEGED_EXECUTE),
            non_secure: leaf.non_secure || self.contains(Self::NON_SECURE),
            ..leaf
        }
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
        let user = Attributes { privileged_execute: true, ..Attributes::USER_DATA };
        assert!(!user.is_write_execute());
        assert!(Attributes { user_execute: true, ..Attributes::USER_DATA }.is_write_execute());
        assert!(Attributes { privileged_execute: true, ..Attributes::KERNEL_DATA }.is_write_execute());
    }
}
