//! The kernel's half of the address space: what lies where, and the mappings made once at start.
//!
//! | from                    | what                                                                       |
//! |-------------------------|----------------------------------------------------------------------------|
//! | [`LINEAR_BASE`]         | all RAM at its physical address, 2 MiB and 1 GiB blocks, Normal, no execute |
//! | [`KERNEL_BASE`]         | the image, 4 KiB pages: text RX, rodata R, data RW; tables by boot.S        |
//! | [`STACK_BASE`]          | stacks of secondary cores, each above an unmapped guard                    |
//! | [`CASE_BASE`]           | nothing but what a case maps here                                          |
//! | [`DEVICE_BASE`]         | devices at their physical address, 2 MiB blocks, Device-nGnRE              |
//!
//! Everything here is global, and every edit turns an invalid entry valid, so nothing ever needs an invalidation; cases that edit
//! this half do it with `pgtable`, and leave it as it was. TTBR0 belongs to the scenarios; between them it holds
//! [`reserved_root`], an empty table.

use core::{
    cell::UnsafeCell,
    fmt,
    ops::Range,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use aarch64_cpu::registers::ID_AA64MMFR0_EL1;
use tlbi::{Dsb, Granule, Hardware, Issue};
use tock_registers::interfaces::Readable;

use crate::{frames, sync::Lock};

/// Where RAM appears: `LINEAR_BASE + physical address`.
pub const LINEAR_BASE: u64 = 0xffff_0000_0000_0000;
/// Where the image appears. Also in linker/firmware.ld.
pub const KERNEL_BASE: u64 = 0xffff_8000_0020_0000;
/// Where the stacks of secondary cores appear.
pub const STACK_BASE: u64 = 0xffff_9000_0000_0000;
/// Where cases map what they edit in this half.
pub const CASE_BASE: u64 = 0xffff_a000_0000_0000;
/// Where devices appear: `DEVICE_BASE + physical address`.
pub const DEVICE_BASE: u64 = 0xffff_c000_0000_0000;
/// Physical addresses from here on have no place in the linear map.
pub const LINEAR_LIMIT: u64 = 1 << 46;

/// MAIR_EL1: index 0 is Normal write-back, index 1 Device-nGnRE.
pub const MAIR: u64 = 0xff | 0x04 << (8 * MAIR_DEVICE);
/// Attribute index of Normal memory, write-back, non-transient, read- and write-allocate.
pub const MAIR_NORMAL: u64 = 0;
/// Attribute index of Device-nGnRE.
pub const MAIR_DEVICE: u64 = 1;

/// Stacks are this large.
pub const STACK_SIZE: u64 = 64 << 10;

const PAGE: u64 = 4 << 10;
const BLOCK_2M: u64 = 2 << 20;
const ENTRIES: usize = 512;
/// RAM from here on is mapped in 1 GiB blocks: tables for more are not in the pool.
const BIG_BLOCKS_FROM: u64 = 8 << 30;

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read-write Normal memory.
    Ram,
    /// Read-write Device-nGnRE.
    Device,
}

impl Kind {
    /// Attributes of a leaf: AF, inner-shareable, EL1 only, never executable, global.
    fn attributes(self) -> u64 {
        const COMMON: u64 = 1 << 10 | 0b11 << 8 | 1 << 53 | 1 << 54;
        match self {
            Self::Ram => COMMON | MAIR_NORMAL << 2,
            Self::Device => COMMON | MAIR_DEVICE << 2,
        }
    }
}

/// Why a mapping was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for a table on the way to this virtual address.
    NoTable(u64),
    /// Address or length not a multiple of 4 KiB, or outside what the window holds.
    Range(u64),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable(va) => write!(f, "no memory for a page table on the way to {va:#x}"),
            Self::Range(at) => write!(f, "{at:#x}: not page-aligned or outside its window"),
        }
    }
}

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __text_end: u8;
    static kernel_l0: u8;
    static reserved_root: u8;
}

/// Physical address of the image; known from boot.S.
static IMAGE_PA: AtomicU64 = AtomicU64::new(0);

/// One edit at a time.
static EDIT: Lock<()> = Lock::new(());

#[repr(C, align(4096))]
struct TablePool {
    tables: UnsafeCell<[[u64; ENTRIES]; Self::COUNT]>,
    used: AtomicUsize,
}

// SAFETY: a table is handed out once (`used` counts with an atomic) and from then on touched as page-table entries only.
unsafe impl Sync for TablePool {}

impl TablePool {
    /// Enough for the device tree, the linear map's edges and the devices; later tables come from [`frames`].
    const COUNT: usize = 24;
}

static POOL: TablePool =
    TablePool { tables: UnsafeCell::new([[0; ENTRIES]; TablePool::COUNT]), used: AtomicUsize::new(0) };

/// Remembers where the image was loaded. First thing at start.
pub fn init(image_pa: u64) {
    IMAGE_PA.store(image_pa, Ordering::Relaxed);
    assert_eq!(
        (&raw const __image_start) as u64,
        KERNEL_BASE,
        "mmu.rs and linker/firmware.ld disagree about KERNEL_BASE"
    );
}

/// The image in physical memory, with its tables and the boot core's stack.
pub fn image() -> Range<u64> {
    let start = IMAGE_PA.load(Ordering::Relaxed);
    start..start + ((&raw const __image_end) as u64 - KERNEL_BASE)
}

/// Whether `va` lies in the image's code.
pub fn is_text(va: u64) -> bool {
    (KERNEL_BASE..(&raw const __text_end) as u64).contains(&va)
}

/// Physical address of something in the image (a static, a function).
pub fn image_to_phys(va: u64) -> u64 {
    va - KERNEL_BASE + IMAGE_PA.load(Ordering::Relaxed)
}

/// Physical address of the empty root that TTBR0_EL1 holds while no address space is in use (ASID 0).
pub fn reserved_root_pa() -> u64 {
    image_to_phys((&raw const reserved_root) as u64)
}

/// Physical address of the kernel's root, TTBR1_EL1.
pub fn kernel_root_pa() -> u64 {
    image_to_phys((&raw const kernel_l0) as u64)
}

/// Where RAM at `pa` appears in the linear map. Making the pointer is fine for any address; using it takes RAM at `pa`.
pub fn phys_to_virt<T>(pa: u64) -> *mut T {
    (LINEAR_BASE + pa) as *mut T
}

/// The inverse of [`phys_to_virt`].
pub fn virt_to_phys<T>(at: *const T) -> u64 {
    at as u64 - LINEAR_BASE
}

/// Where a device at `pa` appears once [`map_device`] has mapped it.
pub fn device_to_virt<T>(pa: u64) -> *mut T {
    (DEVICE_BASE + pa) as *mut T
}

/// Whether this CPU translates with pages of that size (ID_AA64MMFR0_EL1.TGran*).
pub fn has_granule(granule: Granule) -> bool {
    let field = |shift: u32| ID_AA64MMFR0_EL1.get() >> shift & 0xf;
    match granule {
        Granule::K4 => field(28) != 0xf,
        Granule::K16 => field(20) != 0,
        Granule::K64 => field(24) != 0xf,
    }
}

/// Maps the RAM in `range`, rounded inwards to 2 MiB, in the linear map; returns what is mapped of it. What is already mapped
/// stays as it is.
///
/// # Errors
/// No memory for tables, or RAM beyond [`LINEAR_LIMIT`].
pub fn map_ram(range: Range<u64>) -> Result<Range<u64>, MapError> {
    let start = range.start.next_multiple_of(BLOCK_2M);
    let end = range.end & !(BLOCK_2M - 1);
    if end > LINEAR_LIMIT {
        return Err(MapError::Range(end));
    }
    if start < end {
        map(LINEAR_BASE + start, start, end - start, Kind::Ram)?;
    }
    Ok(start..end.max(start))
}

/// Maps the 2 MiB blocks around the device registers in `range` in the device window.
///
/// # Errors
/// As [`map_ram`].
pub fn map_device(range: Range<u64>) -> Result<(), MapError> {
    let start = range.start & !(BLOCK_2M - 1);
    let end = range.end.saturating_add(BLOCK_2M - 1) & !(BLOCK_2M - 1);
    if end > LINEAR_LIMIT || start >= end {
        return Err(MapError::Range(range.end));
    }
    map(DEVICE_BASE + start, start, end - start, Kind::Device)
}

/// Maps a stack for core `index` from fresh frames, above a guard of the same size; returns its top.
///
/// # Errors
/// No memory.
pub fn map_stack(index: usize) -> Result<u64, MapError> {
    let bottom = STACK_BASE + index as u64 * 2 * STACK_SIZE + STACK_SIZE;
    for page in (0..STACK_SIZE).step_by(PAGE as usize) {
        let frame = frames::alloc().ok_or(MapError::NoTable(bottom + page))?;
        map(bottom + page, frame, PAGE, Kind::Ram)?;
    }
    Ok(bottom + STACK_SIZE)
}

/// Maps `len` bytes at `va` to `pa` with the largest leaves that fit; entries that are valid already stay.
fn map(va: u64, pa: u64, len: u64, kind: Kind) -> Result<(), MapError> {
    if !(va | pa | len).is_multiple_of(PAGE) {
        return Err(MapError::Range(va));
    }
    let _edit = EDIT.lock();
    let mut done = 0;
    while done < len {
        done += map_one(va + done, pa + done, len - done, kind)?;
    }
    // SAFETY: this is EL1.
    let hardware = unsafe { Hardware::new() };
    // Invalid to valid: walkers must see the entries, and this core's next access must come after; nothing can be stale.
    hardware.dsb(Dsb::Ishst);
    hardware.isb();
    Ok(())
}

/// Makes one leaf, or finds one, and returns how far it reaches from `va`.
fn map_one(va: u64, pa: u64, len: u64, kind: Kind) -> Result<u64, MapError> {
    let mut table = kernel_root_pa();
    for level in 0..4 {
        let span = PAGE << (9 * (3 - level));
        let slot = entry(table, (va / span) as usize % ENTRIES);
        let old = slot.load(Ordering::Relaxed);
        if old & 0b11 == 0b11 && level < 3 {
            table = old & 0x0000_ffff_ffff_f000;
        } else if old & 1 != 0 {
            return Ok(span - va % span);
        } else if level > 0 && span <= largest_block(pa) && (va | pa).is_multiple_of(span) && len >= span {
            let leaf = if level == 3 { 0b11 } else { 0b01 };
            slot.store(pa | kind.attributes() | leaf, Ordering::Relaxed);
            return Ok(span);
        } else {
            table = new_table().ok_or(MapError::NoTable(va))?;
            // Release: a walker that sees the table sees it zeroed.
            slot.store(table | 0b11, Ordering::Release);
        }
    }
    unreachable!("level 3 either holds a leaf or takes one")
}

/// The largest block that maps `pa`. Most RAM is in blocks of 2 MiB, so that a case can split one and everything else stays.
fn largest_block(pa: u64) -> u64 {
    if pa < BIG_BLOCKS_FROM { BLOCK_2M } else { u64::MAX }
}

/// A zeroed table: from the pool, then from the frame allocator.
fn new_table() -> Option<u64> {
    let index = POOL.used.fetch_add(1, Ordering::Relaxed);
    if index < TablePool::COUNT {
        return Some(image_to_phys(POOL.tables.get() as u64) + index as u64 * PAGE);
    }
    frames::alloc_zeroed()
}

/// Entry `index` of the table at `table`, which is one of the image's or a frame in the linear map.
fn entry(table: u64, index: usize) -> &'static AtomicU64 {
    let at = if image().contains(&table) {
        (KERNEL_BASE + (table - image().start)) as *mut u64
    } else {
        phys_to_virt(table)
    };
    // SAFETY: `table` comes from the kernel's root or `new_table`: 512 aligned entries that stay tables forever, mapped at `at`,
    // and only accessed through atomics.
    unsafe { AtomicU64::from_ptr(at.add(index)) }
}
