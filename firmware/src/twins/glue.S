// Into a twin's world, through its program, and out again. Offsets from x23 are those of `Machine` in mod.rs.
//
// Programs change x0 to x17, and find x19 to x24 as tests/twins/src/assembly.rs says. x25 is the program, x26 the offset that x19 had
// before, x27 the PE. Whoever leaves invalidates everything: the next world begins clean.

.equ OWN_TCR,       0
.equ OWN_SCTLR,     8
.equ OWN_SCTLR_EL2, 16
.equ AREAS,         24                          // tables, frames, blocks, offset of data
.equ RESERVED,      56
.equ ROOT,          64
.equ OWN_TCR_EL2,   72
.equ OWN_HCR,       80
.equ OWN_MAIR,      88
.equ TURN,          96
.equ FINISHED,      104
.equ PROGRAM,       112
.equ CODE_OFFSET,   120
.equ INSIDE,        128
.equ GUEST_ROOT,    144
.equ KERNEL,        152                         // its TTBR1_EL1
.equ KERNEL_TCR,    160

    .section .text.twins, "ax"

// Saves what belongs to the caller, masks everything, and finds the registers that programs want.
.macro begin
    stp     x29, x30, [sp, #-112]!
    mov     x29, sp
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mrs     x9, daif
    str     x9, [sp, #96]
    msr     daifset, #15
    mov     x23, x0
    mov     x25, x1
    mov     x27, x3
    find_areas
.endm

.macro find_areas
    ldp     x20, x21, [x23, #AREAS]
    ldp     x22, x19, [x23, #(AREAS + 16)]
    add     x24, x23, #TURN
.endm

.macro finish
    ldr     x9, [sp, #96]
    msr     daif, x9
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #112
    ret
.endm

// From here on code and data are found at their physical addresses.
.macro at_physical_addresses
    ldr     x9, [x23, #CODE_OFFSET]
    sub     x25, x25, x9
    sub     x23, x23, x19
    sub     x24, x24, x19
    mov     x26, x19
    mov     x19, #0
.endm

.macro at_virtual_addresses
    mov     x19, x26
    add     x23, x23, x19
.endm

// twins_call(machine, program): runs a program where we are.
    .global twins_call
    .type   twins_call, %function
twins_call:
    begin
    blr     x25
    finish
    .size   twins_call, . - twins_call

// twins_enter(machine, program, world, pe)
    .global twins_enter
    .type   twins_enter, %function
twins_enter:
    begin
    cmp     x2, #{EL2}
    b.hs    3f
    ldr     x0, [x23, #ROOT]
    msr     ttbr0_el1, x0
    isb
    bl      both_inside
    cmp     x2, #{FLAT}
    b.ne    1f
    at_physical_addresses
    blr     x25
    ldr     x9, [x23, #CODE_OFFSET]
    adr     x17, own_mair
    sub     x17, x17, x9
    blr     x17
    at_virtual_addresses
    b       2f
1:  blr     x25
2:  ldr     x0, [x23, #RESERVED]
    msr     ttbr0_el1, x0
    isb
    tlbi    vmalle1is
    dsb     ish
    ldr     x0, [x23, #OWN_TCR]                 // what a sequence may have changed
    msr     tcr_el1, x0
    isb
    tlbi    vmalle1is
    dsb     sy                                  // and what the sequence has left in flight, whatever its domain
    isb
    finish
3:  at_physical_addresses
    adr     x17, at_el2
    sub     x17, x17, x9
    hvc     #0
    at_virtual_addresses
    finish
    .size   twins_enter, . - twins_enter

// At its physical address: MAIR is put back with the MMU off and an empty TLB, for a field of it may be cached with translations.
    .type   own_mair, %function
own_mair:
    mrs     x0, sctlr_el1
    bic     x1, x0, #1
    msr     sctlr_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    ldr     x1, [x23, #OWN_MAIR]
    msr     mair_el1, x1
    isb
    msr     sctlr_el1, x0
    isb
    ret
    .size   own_mair, . - own_mair

// At EL2, its MMU off; x28 is where EL1 goes on.
    .type   at_el2, %function
at_el2:
    mrs     x28, elr_el2
    ldr     x0, [x23, #OWN_HCR]
    cmp     x2, #{GUEST}
    b.hs    1f
    msr     hcr_el2, x0
    isb
    ldr     x0, [x23, #OWN_TCR_EL2]
    msr     tcr_el2, x0
    ldr     x0, [x23, #OWN_MAIR]
    msr     mair_el2, x0
    ldr     x0, [x23, #ROOT]
    msr     ttbr0_el2, x0
    isb
    tlbi    alle2
    dsb     nsh
    isb
    ldr     x0, [x23, #OWN_SCTLR_EL2]
    msr     sctlr_el2, x0
    isb
    b       3f
1:  ldr     x1, [x23, #OWN_TCR_EL2]
    msr     vtcr_el2, x1
    ldr     x1, [x23, #ROOT]
    msr     vttbr_el2, x1
    cmp     x2, #{GUEST_MMU_ON}
    b.eq    4f
    mrs     x1, sctlr_el1
    bic     x1, x1, #1
    bic     x1, x1, #4
    msr     sctlr_el1, x1
    b       5f
4:  ldr     x1, [x23, #OWN_TCR]
    msr     tcr_el1, x1
    ldr     x1, [x23, #GUEST_ROOT]
    msr     ttbr0_el1, x1
5:  msr     hcr_el2, x0
    isb
    adr     x17, 2f                             // into the guest, for a moment
    msr     elr_el2, x17
    mov     x1, #0x3c5
    msr     spsr_el2, x1
    eret
2:  adr     x17, 3f
    hvc     #0
3:  bl      both_inside
    blr     x25
    ldr     x0, [x23, #OWN_SCTLR_EL2]
    bic     x0, x0, #1
    bic     x0, x0, #4
    msr     sctlr_el2, x0
    isb
    tlbi    alle2is                             // of EL2&0, where that is ours
    dsb     ish
    mov     x0, #(1 << 31)
    msr     hcr_el2, x0
    msr     vttbr_el2, xzr
    ldr     x0, [x23, #OWN_SCTLR]
    msr     sctlr_el1, x0
    ldr     x0, [x23, #RESERVED]
    msr     ttbr0_el1, x0
    ldr     x0, [x23, #KERNEL]
    msr     ttbr1_el1, x0
    ldr     x0, [x23, #KERNEL_TCR]
    msr     tcr_el1, x0
    isb
    tlbi    alle1is
    tlbi    alle2is
    dsb     sy                                  // and what the sequence has left in flight, whatever its domain
    isb
    msr     elr_el2, x28
    mov     x0, #0x3c5
    msr     spsr_el2, x0
    eret
    .size   at_el2, . - at_el2

// Waits until both PEs are here: who may hold an entry must not be left to chance. No DSB, no ISB.
    .type   both_inside, %function
both_inside:
    add     x0, x23, #INSIDE
    add     x1, x23, #(INSIDE + 8)
    add     x3, x0, x27, lsl #3
    mov     w4, #1
    stlr    w4, [x3]
    sev
1:  ldar    w3, [x0]
    ldar    w4, [x1]
    and     w3, w3, w4
    cbnz    w3, 2f
    wfe
    b       1b
2:  ret
    .size   both_inside, . - both_inside

// Where PSCI starts a PE that is to come out of reset; x0 is the machine's physical address. It does its program, and nothing more ever.
    .global twins_reset
    .type   twins_reset, %function
twins_reset:
    mov     x23, x0
    bl      drop_to_el1
    find_areas
    mov     x19, #0
    ldr     x0, [x23, #OWN_MAIR]
    msr     mair_el1, x0
    isb
    ldr     x25, [x23, #PROGRAM]
    blr     x25
    ldr     x0, [x23, #OWN_SCTLR]
    bic     x0, x0, #1
    bic     x0, x0, #4
    msr     sctlr_el1, x0
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
finished:
    mov     w0, #1
    add     x1, x23, #FINISHED
    stlr    w0, [x1]
    sev
1:  wfi
    b       1b
    .size   twins_reset, . - twins_reset

// The same where PSCI starts it at EL2, and it stays there.
    .global twins_reset_el2
    .type   twins_reset_el2, %function
twins_reset_el2:
    mov     x23, x0
    find_areas
    mov     x19, #0
    ldr     x0, [x23, #OWN_HCR]
    msr     hcr_el2, x0
    ldr     x0, [x23, #OWN_MAIR]
    msr     mair_el2, x0
    isb
    ldr     x25, [x23, #PROGRAM]
    blr     x25
    ldr     x0, [x23, #OWN_SCTLR_EL2]
    bic     x0, x0, #1
    bic     x0, x0, #4
    msr     sctlr_el2, x0
    isb
    tlbi    alle2
    dsb     nsh
    isb
    b       finished
    .size   twins_reset_el2, . - twins_reset_el2
