// The vector table, and the way into and out of exceptions::enter.
//
// Every exception saves everything: x0..x30, ELR, SPSR, ESR and a frame record (x29, ELR) to which x29 points, so that a walk of frame
// pointers goes through the interrupted function. Layout: exceptions::Frame.

.equ FRAME_SIZE,    288
.equ FRAME_ELR,     248
.equ FRAME_SPSR,    256
.equ FRAME_RECORD,  272

// A stack lies in the upper half of a slot of 128 KiB: bit 16 of any pointer into it is set. With the bit clear the stack has run
// into its guard, and storing there would fault for ever. The sums and differences put sp and x0 back without a free register.
.macro vector index
    .balign 128
    sub     sp, sp, #FRAME_SIZE
    add     sp, sp, x0
    sub     x0, sp, x0
    tbz     x0, #16, 1f
    sub     x0, sp, x0
    sub     sp, sp, x0
    stp     x0, x1, [sp]
    mov     x1, #\index
    b       save_and_enter
1:  b       stack_overflow
.endm

    .section .vectors, "ax"
    .balign 2048
    .global vectors
    .type   vectors, %function
vectors:
    .set    vector_index, 0
    .rept   16
    vector  vector_index
    .set    vector_index, vector_index + 1
    .endr
    .size   vectors, . - vectors

    .type   save_and_enter, %function
save_and_enter:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, elr_el1
    mrs     x3, spsr_el1
    mrs     x4, esr_el1
    stp     x30, x2, [sp, #240]
    stp     x3, x4, [sp, #FRAME_SPSR]
    stp     x29, x2, [sp, #FRAME_RECORD]
    add     x29, sp, #FRAME_RECORD
    mov     x0, sp
    bl      {enter}

    ldp     x2, x3, [sp, #FRAME_ELR]
    msr     elr_el1, x2
    msr     spsr_el1, x3
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    ldr     x30, [sp, #240]
    add     sp, sp, #FRAME_SIZE
    eret
    .size   save_and_enter, . - save_and_enter

// Here sp + x0 and so on are lost on purpose: the machine only says its last words, on a stack of its own.
    .type   stack_overflow, %function
stack_overflow:
    ldr     x0, =emergency_stack_top
    mov     sp, x0
    mrs     x0, elr_el1
    mov     x29, xzr
    mov     x30, xzr
    b       {overflow}
    .size   stack_overflow, . - stack_overflow

    .section .bss.emergency_stack, "aw", @nobits
    .balign 16
    .space  8192
emergency_stack_top:
