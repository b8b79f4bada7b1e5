/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A kernel in C, as small as one can be that has an MMU: four cases, each with the hints of tlbsan_hint.h. One core, EL1,
 * 39-bit addresses, 4 KiB granule. VA equals PA but for the window, where the cases map and unmap.
 */
#include "tlbsan_hint.h"

typedef unsigned long u64;

#define WINDOW 0x80000000UL
#define PAGE_SIZE 4096UL
#define BLOCK_2M (2UL << 20)
#define ASID 1UL

#define VALID_TABLE 3UL
/* AttrIndx 0: normal; 1: device. AF, and inner shareable where it is normal. */
#define NORMAL_BLOCK (1UL | 1UL << 10 | 3UL << 8)
#define DEVICE_BLOCK (1UL | 1UL << 10 | 1UL << 2 | 3UL << 53)
#define USER_PAGE (3UL | 1UL << 10 | 3UL << 8 | 1UL << 6 | 1UL << 11 | 3UL << 53)

static u64 level1[512] __attribute__((aligned(4096)));
static u64 level2[512] __attribute__((aligned(4096)));
static u64 table[2][512] __attribute__((aligned(4096)));
static unsigned char frames[2][4096] __attribute__((aligned(4096)));

static void put(const char *text) {
    volatile unsigned *const uart = (volatile unsigned *)0x09000000UL;
    while (*text)
        *uart = (unsigned char)*text++;
}

static void store(u64 *slot, u64 entry) { *(volatile u64 *)slot = entry; }
static void dsb_ishst(void) { __asm__ volatile("dsb ishst" ::: "memory"); }
static void dsb_ish(void) { __asm__ volatile("dsb ish" ::: "memory"); }
static void isb(void) { __asm__ volatile("isb" ::: "memory"); }

static u64 operand(u64 va) { return ASID << 48 | va >> 12; }
static void flush_page(u64 va) {
    dsb_ishst();
    __asm__ volatile("tlbi vae1is, %0" ::"r"(operand(va)) : "memory");
    dsb_ish();
    isb();
}
static void flush_leaf(u64 va) {
    dsb_ishst();
    __asm__ volatile("tlbi vale1is, %0" ::"r"(operand(va)) : "memory");
    dsb_ish();
    isb();
}
static void flush_all(void) {
    dsb_ishst();
    __asm__ volatile("tlbi vmalle1is" ::: "memory");
    dsb_ish();
    isb();
}

/* Maps the first page of the window through table 0 to frame 0, with nothing stale before. */
static void set_up(void) {
    store(&level2[0], 0);
    flush_all();
    store(&table[1][0], (u64)frames[1] | USER_PAGE);
    store(&table[0][0], (u64)frames[0] | USER_PAGE);
    store(&level2[0], (u64)table[0] | VALID_TABLE);
    dsb_ishst();
    isb();
}

static int reads(unsigned char expected) { return *(volatile unsigned char *)WINDOW == expected; }

/* Unmap, flush, free, map another frame. */
static int unmap_in_order(void) {
    int good = reads(1);
    store(&table[0][0], 0);
    flush_page(WINDOW);
    TLBSAN_FLUSH_CLAIMED(WINDOW, PAGE_SIZE, ASID);
    TLBSAN_FRAME_FREED(frames[0], PAGE_SIZE);
    store(&table[0][0], (u64)frames[1] | USER_PAGE);
    dsb_ishst();
    isb();
    return good && reads(2);
}

/* The frame goes back to its allocator before the flush. */
static int free_before_flush(void) {
    TLBSAN_EXPECT(TLBSAN_CLAIMED, TLBSAN_NO_INVALIDATION, WINDOW, PAGE_SIZE, 3);
    TLBSAN_LABEL("free_before_flush: the frame is not flushed yet");
    store(&table[0][0], 0);
    dsb_ishst();
    TLBSAN_FRAME_FREED(frames[0], PAGE_SIZE);
    flush_page(WINDOW);
    return 1;
}

/* A flush that the kernel believes in, of the neighbouring page. */
static int flush_wrong_page(void) {
    TLBSAN_EXPECT(TLBSAN_CLAIMED, TLBSAN_WRONG_RANGE, WINDOW, PAGE_SIZE, 3);
    store(&table[0][0], 0);
    flush_page(WINDOW + PAGE_SIZE);
    TLBSAN_FLUSH_CLAIMED(WINDOW, PAGE_SIZE, ASID);
    return 1;
}

/* The bug of 2019: a table is replaced, and leaves only are flushed. */
static int replace_table(void) {
    TLBSAN_EXPECT(TLBSAN_REMADE, TLBSAN_LEAF_ONLY, WINDOW, BLOCK_2M, 2);
    store(&table[0][0], 0);
    store(&level2[0], 0);
    flush_leaf(WINDOW);
    store(&level2[0], (u64)table[1] | VALID_TABLE);
    dsb_ishst();
    isb();
    return 1;
}

/* Memory attributes, tables, registers; and an empty TLB, for after reset it holds anything. */
static void mmu_on(void) {
    level1[0] = DEVICE_BLOCK;
    level1[1] = 0x40000000UL | NORMAL_BLOCK;
    level1[2] = (u64)level2 | VALID_TABLE;
    /* 39 bits below, nothing above; 16-bit ASIDs; write-back, inner shareable walks. */
    const u64 tcr = 25 | 1UL << 8 | 1UL << 10 | 3UL << 12 | 1UL << 23 | 2UL << 32 | 1UL << 36;
    __asm__ volatile("msr mair_el1, %0\n msr tcr_el1, %1\n msr ttbr0_el1, %2\n isb\n"
                     "tlbi vmalle1\n dsb nsh\n isb" ::"r"(0x04ffUL), "r"(tcr), "r"(ASID << 48 | (u64)level1)
                     : "memory");
    u64 sctlr;
    __asm__ volatile("mrs %0, sctlr_el1" : "=r"(sctlr));
    /* M, C, I. */
    __asm__ volatile("msr sctlr_el1, %0\n isb" ::"r"(sctlr | 1 | 1UL << 2 | 1UL << 12) : "memory");
}

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
    {"1 - unmap in order", unmap_in_order},
    {"2 - free before flush", free_before_flush},
    {"3 - flush wrong page", flush_wrong_page},
    {"4 - replace table", replace_table},
};

/* Entered by `start`, with a stack. */
__attribute__((noreturn)) void kernel_main(void);
void kernel_main(void) {
    frames[0][0] = 1;
    frames[1][0] = 2;
    mmu_on();
    put("TAP version 14\n1..4\n");
    for (u64 n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        set_up();
        TLBSAN_CASE_BEGIN(n + 1);
        const int good = cases[n].run();
        flush_all();
        TLBSAN_CASE_END(n + 1);
        put(good ? "ok " : "not ok ");
        put(cases[n].name);
        put("\n");
    }
    /* PSCI SYSTEM_OFF. */
    register u64 function __asm__("x0") = 0x84000008UL;
    __asm__ volatile("hvc #0" ::"r"(function));
    for (;;)
        __asm__ volatile("wfi");
}

unsigned char stack[16384] __attribute__((aligned(16)));

/* Where QEMU enters: the first core, MMU off. The chain of frame records ends here. */
__asm__(".pushsection .text.start, \"ax\"\n"
        ".global start\n"
        "start:\n"
        "    adrp x0, stack\n"
        "    add x0, x0, :lo12:stack\n"
        "    add sp, x0, #16384\n"
        "    mov x29, xzr\n"
        "    mov x30, xzr\n"
        "    b kernel_main\n"
        ".popsection\n");
