//! Entry from the loader and from PSCI: the assembly, the register values it loads, and what it hands to Rust.
//!
//! Knows the architecture and the image's layout (linker/firmware.ld), no board. The only place besides `tlbi` with TLBI, DSB and
//! ISB: until the MMU is on there is nothing to call.

use crate::mmu;

/// Level-3 tables for the image, 2 MiB each; linker/firmware.ld asserts that they suffice.
const KERNEL_L3_TABLES: usize = 4;

/// RES1 bits of SCTLR_EL1 on CPUs without the features that define them (EIS, EOS, SPAN, TSCXT, nTLSMD, LSMAOE).
const SCTLR_MMU_OFF: u64 = 0x30d0_0800;
/// The same with M, C, SA, I; nTWI and nTWE.
const SCTLR_MMU_ON: u64 = SCTLR_MMU_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 16 | 1 << 18;

/// T0SZ = T1SZ = 16; both halves walked write-back, write-allocate, inner-shareable, 4 KiB. IPS and AS come from ID registers.
const TCR: u64 = {
    const HALF: u64 = 16 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12;
    const TG1_4K: u64 = 0b10 << 30;
    HALF | HALF << 16 | TG1_4K
};

/// What a secondary core finds behind the context id of its CPU_ON.
#[repr(C)]
pub struct SecondaryContext {
    /// Its first stack pointer.
    pub stack_top: u64,
    /// Its index, kept in TPIDR_EL1 ever after.
    pub index: u64,
}

core::arch::global_asm!(
    include_str!("boot.S"),
    SCTLR_MMU_OFF = const SCTLR_MMU_OFF,
    SCTLR_MMU_ON = const SCTLR_MMU_ON,
    TCR = const TCR,
    MAIR = const mmu::MAIR,
    KERNEL_BASE = const mmu::KERNEL_BASE,
    KERNEL_L3_TABLES = const KERNEL_L3_TABLES,
    primary_main = sym crate::primary_main,
    secondary_main = sym crate::smp::secondary_main,
);

unsafe extern "C" {
    fn secondary_entry();
}

/// Physical address at which PSCI starts a secondary core.
pub fn secondary_entry_pa() -> u64 {
    mmu::image_to_phys(secondary_entry as *const () as u64)
}
