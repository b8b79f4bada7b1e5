//! An aarch64 descriptor for the two peers that are generic over one: theirs are compiled for aarch64 only, or the caller's to
//! write.

use page_table_multiarch::MappingFlags;

const VALID: u64 = 1 << 0;
const NON_BLOCK: u64 = 1 << 1;
const NORMAL: u64 = 1 << 2;
const EL0: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// 64 bits, as page_table_entry 0.6.1 has them for aarch64.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Pte(u64);

/// Attributes, as page_table_entry makes them of flags.
#[inline]
pub(crate) fn attributes(flags: MappingFlags) -> u64 {
    if flags.is_empty() {
        return 0;
    }
    // Device and uncached memory are indices 0 and 2.
    let mut bits = if flags.contains(MappingFlags::DEVICE) {
        0
    } else if flags.contains(MappingFlags::UNCACHED) {
        2 << 2 | INNER
    } else {
        NORMAL | INNER
    };
    if flags.contains(MappingFlags::READ) {
        bits |= VALID;
    }
    if !flags.contains(MappingFlags::WRITE) {
        bits |= READ_ONLY;
    }
    if flags.contains(MappingFlags::USER) {
        bits |= EL0 | PXN;
        if !flags.contains(MappingFlags::EXECUTE) {
            bits |= UXN;
        }
    } else {
        bits |= UXN;
        if !flags.contains(MappingFlags::EXECUTE) {
            bits |= PXN;
        }
    }
    bits
}

fn flags(bits: u64) -> MappingFlags {
    let mut flags = MappingFlags::empty();
    if bits & VALID == 0 {
        return flags;
    }
    flags |= MappingFlags::READ;
    if bits & READ_ONLY == 0 {
        flags |= MappingFlags::WRITE;
    }
    if bits & EL0 != 0 {
        flags |= MappingFlags::USER;
    }
    if bits & if bits & EL0 != 0 { UXN } else { PXN } == 0 {
        flags |= MappingFlags::EXECUTE;
    }
    match bits >> 2 & 7 {
        0 => flags | MappingFlags::DEVICE,
        2 => flags | MappingFlags::UNCACHED,
        _ => flags,
    }
}

impl Pte {
    #[inline]
    fn leaf(pa: usize, attributes: u64, block: bool) -> Self {
        Self(pa as u64 & ADDRESS | attributes | ACCESSED | if block { 0 } else { NON_BLOCK })
    }

    #[inline]
    fn table(pa: usize) -> Self {
        Self(pa as u64 & ADDRESS | NON_BLOCK | VALID)
    }

    #[inline]
    fn address(self) -> usize {
        (self.0 & ADDRESS) as usize
    }
}

impl page_table_multiarch::GenericPTE for Pte {
    #[inline]
    fn new_page(pa: memory_addr::PhysAddr, flags: MappingFlags, block: bool) -> Self {
        Self::leaf(pa.as_usize(), attributes(flags), block)
    }

    #[inline]
    fn new_table(pa: memory_addr::PhysAddr) -> Self {
        Self::table(pa.as_usize())
    }

    #[inline]
    fn paddr(&self) -> memory_addr::PhysAddr {
        self.address().into()
    }

    #[inline]
    fn flags(&self) -> MappingFlags {
        flags(self.0)
    }

    #[inline]
    fn set_paddr(&mut self, pa: memory_addr::PhysAddr) {
        self.0 = self.0 & !ADDRESS | pa.as_usize() as u64 & ADDRESS;
    }

    #[inline]
    fn set_flags(&mut self, flags: MappingFlags, block: bool) {
        *self = Self::leaf(self.address(), attributes(flags), block);
    }

    #[inline]
    fn bits(self) -> usize {
        self.0 as usize
    }

    #[inline]
    fn is_unused(&self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn is_present(&self) -> bool {
        self.0 & VALID != 0
    }

    #[inline]
    fn is_huge(&self) -> bool {
        self.0 & NON_BLOCK == 0
    }

    #[inline]
    fn clear(&mut self) {
        self.0 = 0;
    }
}

impl page_table_generic::PageTableEntry for Pte {
    /// The bits themselves: the cheapest that it allows.
    type PteConfig = u64;

    #[inline]
    fn new_page(pa: page_table_generic::PhysAddr, attributes: u64, block: bool) -> Self {
        Self::leaf(pa.as_usize(), attributes, block)
    }

    #[inline]
    fn new_table(pa: page_table_generic::PhysAddr) -> Self {
        Self::table(pa.as_usize())
    }

    #[inline]
    fn paddr(&self, _: bool) -> page_table_generic::PhysAddr {
        self.address().into()
    }

    #[inline]
    fn config(&self, _: bool) -> u64 {
        self.0 & !(ADDRESS | NON_BLOCK | ACCESSED)
    }

    #[inline]
    fn present(&self) -> bool {
        self.0 & VALID != 0
    }

    #[inline]
    fn huge(&self, directory: bool) -> bool {
        directory && self.0 & (VALID | NON_BLOCK) == VALID
    }

    #[inline]
    fn unused(&self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn clear(&mut self) {
        self.0 = 0;
    }
}
