// From the loader to Rust: drop to EL1, build the first tables, switch the MMU on, jump to the high half.
//
// The loader enters at _start with the MMU off and x0 = physical address of the device tree (Linux arm64 boot protocol); PSCI
// enters at secondary_entry with x0 = the context we gave it. Until the jump high every address here is PC-relative, so that the
// image runs wherever it was loaded.
//
// Registers that live from entry to the jump: x19 = entry x0, x20 = physical address of the image, x22 = the reserved root.

// Lower attributes of a valid, inner-shareable Normal (MAIR index 0) entry with AF set.
.equ ENTRY_NORMAL,  (1 << 10) | (3 << 8)
.equ ENTRY_RO,      1 << 7                      // AP[2]
.equ ENTRY_NG,      1 << 11
.equ ENTRY_PXN,     1 << 53
.equ ENTRY_UXN,     1 << 54
.equ TABLE,         3
.equ PAGE,          3
.equ BLOCK,         1

// A label that symbolisers take for a function; .size follows its last instruction.
.macro function name
    .type   \name, %function
\name:
.endm

.macro mov64 reg, value
    movz    \reg, #((\value) & 0xffff)
    movk    \reg, #(((\value) >> 16) & 0xffff), lsl #16
    movk    \reg, #(((\value) >> 32) & 0xffff), lsl #32
    movk    \reg, #(((\value) >> 48) & 0xffff), lsl #48
.endm

    .section .head.text, "ax"
    .global _start
_start:
    b       primary_entry                       // code0
    .long   0                                   // code1
    .quad   0                                   // text_offset: at a 2 MiB boundary
    .quad   _image_size                         // with bss, tables and stack
    .quad   0b1010                              // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

function primary_entry
    mov     x19, x0
    bl      drop_to_el1
    bl      build_tables
    bl      enable_mmu
    ldr     x8, =primary_high
    br      x8
    .size   primary_entry, . - primary_entry

    .global secondary_entry
function secondary_entry
    mov     x19, x0
    bl      drop_to_el1
    bl      enable_mmu
    ldr     x8, =secondary_high
    br      x8
    .size   secondary_entry, . - secondary_entry

// Leaves EL2 if we are there; returns at EL1 with the MMU off and everything masked. What stays at EL2 are vectors.
    .global drop_to_el1
function drop_to_el1
    mov64   x1, {SCTLR_MMU_OFF}
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.eq    1f
    msr     sctlr_el1, x1
    isb
    ret
1:  mov     x0, #(1 << 31)                      // HCR_EL2.RW: EL1 is AArch64; no stage 2, no traps, E2H off
    msr     hcr_el2, x0
    isb
    msr     sctlr_el1, x1
    mov     x0, #0x33ff                         // CPTR_EL2: RES1 bits only, nothing trapped
    msr     cptr_el2, x0
    msr     hstr_el2, xzr
    msr     vttbr_el2, xzr                      // VMID 0
    adrp    x0, el2_vectors
    add     x0, x0, :lo12:el2_vectors
    msr     vbar_el2, x0
    mov     x0, #3                              // CNTHCTL_EL2: EL1 may use the physical counter and timer
    msr     cnthctl_el2, x0
    msr     cntvoff_el2, xzr
    mrs     x0, midr_el1
    msr     vpidr_el2, x0
    mrs     x0, mpidr_el1
    msr     vmpidr_el2, x0
    mrs     x0, id_aa64pfr0_el1                 // GIC system registers, if there are any
    ubfx    x0, x0, #24, #4
    cbz     x0, 2f
    mrs     x0, S3_4_C12_C9_5                   // ICC_SRE_EL2
    orr     x0, x0, #(1 << 0)                   // SRE
    orr     x0, x0, #(1 << 3)                   // Enable: EL1 may set its own
    msr     S3_4_C12_C9_5, x0
    isb
    msr     S3_4_C12_C11_0, xzr                 // ICH_HCR_EL2: no virtual interface
2:  mrs     x0, id_aa64mmfr0_el1                // FEAT_FGT: reset leaves these UNKNOWN, and HFGITR traps TLBI
    ubfx    x0, x0, #56, #4
    cbz     x0, 3f
    msr     S3_4_C1_C1_4, xzr                   // HFGRTR_EL2
    msr     S3_4_C1_C1_5, xzr                   // HFGWTR_EL2
    msr     S3_4_C1_C1_6, xzr                   // HFGITR_EL2
3:  mrs     x0, id_aa64mmfr1_el1                // FEAT_HCX: FnXS would change what TLBI waits for
    ubfx    x0, x0, #40, #4
    cbz     x0, 4f
    msr     S3_4_C1_C2_2, xzr                   // HCRX_EL2
4:  mov     x0, #0x3c5                          // SPSR: EL1h, DAIF masked, PAN clear
    msr     spsr_el2, x0
    msr     elr_el2, x30
    eret
    .size   drop_to_el1, . - drop_to_el1

// Whoever has business at EL2 goes on at x17 there, by HVC; so does an access that EL2 refuses.
.macro vector instruction
    .balign 0x80
    \instruction
.endm
    .balign 0x800
function el2_vectors
    .rept 4                                     // with SP_EL0
    vector  "b ."
    .endr
    vector  "br x17"                            // from EL2: synchronous
    .rept 3
    vector  "b ."
    .endr
    vector  "br x17"                            // from EL1: synchronous
    .rept 7
    vector  "b ."
    .endr
    .size   el2_vectors, . - el2_vectors

// Two trees: TTBR0 maps the block that holds this code onto itself; TTBR1 maps the image at KERNEL_BASE with 4 KiB pages.
function build_tables
    mov     x9, x30
    adrp    x20, __image_start
    adrp    x0, __tables_start
    adrp    x1, __tables_end
1:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    1b

    // Identity: one 2 MiB block, read-only, executable, not global.
    adrp    x0, idmap_l1
    adrp    x1, idmap_l0
    ubfx    x2, x20, #39, #9
    bl      link_table
    adrp    x0, idmap_l2
    adrp    x1, idmap_l1
    ubfx    x2, x20, #30, #9
    bl      link_table
    mov64   x0, (BLOCK | ENTRY_NORMAL | ENTRY_RO | ENTRY_NG | ENTRY_UXN)
    orr     x0, x0, x20
    adrp    x1, idmap_l2
    ubfx    x2, x20, #21, #9
    str     x0, [x1, x2, lsl #3]

    // The image.
    adrp    x0, kernel_l1
    adrp    x1, kernel_l0
    mov     x2, #(({KERNEL_BASE} >> 39) & 0x1ff)
    bl      link_table
    adrp    x0, kernel_l2
    adrp    x1, kernel_l1
    mov     x2, #(({KERNEL_BASE} >> 30) & 0x1ff)
    bl      link_table
    adrp    x0, kernel_l3
    adrp    x1, kernel_l2
    mov     x2, #(({KERNEL_BASE} >> 21) & 0x1ff)
    mov     x3, #{KERNEL_L3_TABLES}
2:  bl      link_table
    add     x0, x0, #4096
    add     x2, x2, #1
    subs    x3, x3, #1
    b.ne    2b

    adrp    x0, __image_start
    adrp    x1, __text_end
    mov64   x2, (PAGE | ENTRY_NORMAL | ENTRY_RO | ENTRY_UXN)
    bl      map_pages
    adrp    x1, __rodata_end
    mov64   x2, (PAGE | ENTRY_NORMAL | ENTRY_RO | ENTRY_UXN | ENTRY_PXN)
    bl      map_pages
    adrp    x1, __tables_end
    mov64   x2, (PAGE | ENTRY_NORMAL | ENTRY_UXN | ENTRY_PXN)
    bl      map_pages
    adrp    x0, __boot_stack_bottom             // what lies between is the guard
    adrp    x1, __boot_stack_top
    bl      map_pages

    // The tables were written past the caches: drop lines that a cacheable walk could find instead.
    dsb     sy
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4                     // DminLine: log2 of words
    mov     x3, #4
    lsl     x2, x3, x2
    adrp    x0, __tables_start
    adrp    x1, __tables_end
3:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    3b
    dsb     sy
    ret     x9
    .size   build_tables, . - build_tables

// Entry x2 of table x1 := table x0.
function link_table
    orr     x4, x0, #TABLE
    str     x4, [x1, x2, lsl #3]
    ret
    .size   link_table, . - link_table

// Pages x0..x1 of the image with attributes x2; leaves x0 = x1. The level-3 tables lie one behind the other.
function map_pages
    adrp    x3, kernel_l3
1:  cmp     x0, x1
    b.hs    2f
    sub     x4, x0, x20
    lsr     x4, x4, #9                          // page index * 8
    orr     x5, x0, x2
    str     x5, [x3, x4]
    add     x0, x0, #4096
    b       1b
2:  ret
    .size   map_pages, . - map_pages

// 48-bit halves, 4 KiB, write-back, inner-shareable, ASID from TTBR0; HA and HD stay 0.
function enable_mmu
    mov64   x0, {MAIR}
    msr     mair_el1, x0
    mov64   x0, {TCR}
    mrs     x1, id_aa64mmfr0_el1
    and     x2, x1, #0xf                        // PARange; above 48 bits needs DS = 1, which we do not set
    mov     x3, #5
    cmp     x2, x3
    csel    x2, x2, x3, lo
    bfi     x0, x2, #32, #3                     // IPS
    ubfx    x2, x1, #4, #4                      // ASIDBits
    cmp     x2, #2
    b.ne    1f
    orr     x0, x0, #(1 << 36)                  // AS: 16-bit ASIDs
1:  msr     tcr_el1, x0
    adrp    x22, reserved_root
    adrp    x0, idmap_l0
    msr     ttbr0_el1, x0
    adrp    x0, kernel_l0
    msr     ttbr1_el1, x0
    isb
    tlbi    vmalle1                             // after reset and CPU_ON the TLBs hold anything
    ic      iallu
    dsb     nsh
    isb
    mov64   x0, {SCTLR_MMU_ON}
    msr     sctlr_el1, x0
    isb
    ret
    .size   enable_mmu, . - enable_mmu

// From here on at the link addresses.
    .section .text.boot_high, "ax"

// The identity map goes away: an empty root under ASID 0, and nothing of it stays cached.
.macro leave_identity
    msr     ttbr0_el1, x22
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
.endm

// Where exceptions go, and where a walk of frame pointers ends.
.macro enter_rust function
    ldr     x8, =vectors
    msr     vbar_el1, x8
    isb
    mov     x29, xzr
    mov     x30, xzr
    b       \function
.endm

function primary_high
    leave_identity
    ldr     x8, =__boot_stack_top
    mov     sp, x8
    msr     tpidr_el1, xzr                      // core 0
    ldr     x0, =__bss_start
    ldr     x1, =__bss_end
1:  cmp     x0, x1
    b.hs    2f
    stp     xzr, xzr, [x0], #16
    b       1b
2:  mov     x0, x19
    mov     x1, x20
    enter_rust {primary_main}
    .size   primary_high, . - primary_high

function secondary_high
    leave_identity
    ldp     x8, x0, [x19]                       // boot::SecondaryContext
    mov     sp, x8
    msr     tpidr_el1, x0
    enter_rust {secondary_main}
    .size   secondary_high, . - secondary_high

    .section .tables, "aw", @nobits
    .balign 4096
idmap_l0:
    .space  4096
idmap_l1:
    .space  4096
idmap_l2:
    .space  4096
    .global kernel_l0
kernel_l0:
    .space  4096
kernel_l1:
    .space  4096
kernel_l2:
    .space  4096
kernel_l3:
    .space  4096 * {KERNEL_L3_TABLES}
    .global reserved_root
reserved_root:
    .space  4096
