/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Annotations that a kernel written in C may add for tlbsan. None is needed to find a stale entry: they say which test
 * case runs, what it is expected to show, and when the kernel itself believes something to be clean.
 *
 * A hint is `movz xzr, #imm`, which does nothing on hardware, with arguments in x0..x3. It goes one way: the kernel never
 * learns whether somebody listens, nor what was concluded. On other architectures, and with TLBSAN_NO_HINTS defined, every
 * macro is an empty statement. Arguments are evaluated once, or not at all where there are no hints.
 *
 * For GCC and clang, C99 and later, or C++. Memory is clobbered, so that the stores a hint speaks of stand before it.
 */
#ifndef TLBSAN_HINT_H
#define TLBSAN_HINT_H

/* Which rule was broken (docs/rules.md). */
#define TLBSAN_REMADE 1       /* a new translation, while an older one may be cached */
#define TLBSAN_REUSED 2       /* an unlinked table's page was put to another use */
#define TLBSAN_LIVE_CHANGE 3  /* a valid entry was changed in place where break-before-make is due */
#define TLBSAN_CLAIMED 4      /* a hint says flushed, or freed, and it may still be cached */
#define TLBSAN_STALE_ACCESS 5 /* an access by an old translation that nothing allowed any more */
#define TLBSAN_ASID 6         /* other tables under an ASID or VMID that entries may be cached under */

/* Why the older translation may still be cached. */
#define TLBSAN_NO_INVALIDATION 1
#define TLBSAN_LEAF_ONLY 2
#define TLBSAN_LOCAL_ONLY 3
#define TLBSAN_WRONG_RANGE 4
#define TLBSAN_WRONG_ASID 5
#define TLBSAN_GLOBAL_SURVIVES 6
#define TLBSAN_WRONG_TTL 7
#define TLBSAN_NOT_BROKEN_FIRST 8
#define TLBSAN_NOT_ORDERED 9       /* no DSB between the store and the TLBI */
#define TLBSAN_NOT_COMPLETED 10    /* no DSB by the same PE after the TLBI */
#define TLBSAN_NOT_SYNCHRONISED 11 /* no context synchronisation event before the PE's own access */

/*
 * TLBSAN_CASE_BEGIN(id): test case `id` begins; the number of its test point, if the kernel prints TAP. Verdicts count for it
 * until TLBSAN_CASE_END(id).
 */
#define TLBSAN_CASE_BEGIN(id) TLBSAN_HINT_(0x7b50, id, 0, 0)

/*
 * TLBSAN_EXPECT(rule, cause, start, size, level): the running case is expected to show this verdict, about the entry at
 * translation table level `level` (-1..3) that translates `size` bytes from the virtual address `start`. Without any, the case
 * is expected to be silent, and to open and clean at least one stale entry.
 */
#define TLBSAN_EXPECT(rule, cause, start, size, level) \
    TLBSAN_HINT_(0x7b51, (rule) | (cause) << 8 | ((level) & 0xff) << 16, start, size)

/* TLBSAN_CASE_END(id): the running case ends. What it left stale stays stale: end it with a full flush of its own. */
#define TLBSAN_CASE_END(id) TLBSAN_HINT_(0x7b52, id, 0, 0)

/*
 * TLBSAN_FRAME_FREED(pa, size): the frame of `size` bytes at the physical address `pa` goes back to its allocator. An error if
 * anything that leads there may still be cached. Give it where the frame is freed: the reuse of a data page is invisible otherwise.
 */
#define TLBSAN_FRAME_FREED(pa, size) TLBSAN_HINT_(0x7b53, pa, size, 0)

/*
 * TLBSAN_FLUSH_CLAIMED(start, size, asid): the kernel believes that nothing stale is left for `size` bytes from the virtual address
 * `start` in the address space `asid`. Give it behind a flush.
 */
#define TLBSAN_FLUSH_CLAIMED(start, size, asid) TLBSAN_HINT_(0x7b54, start, size, asid)

/*
 * TLBSAN_LABEL(text): what this PE is about to do, for the story of a violation. `text` is a string literal, 200 bytes of
 * UTF-8 at most, mapped when the hint is executed.
 */
#define TLBSAN_LABEL(text) TLBSAN_HINT_(0x7b55, "" text, sizeof(text) - 1, 0)

/* The instruction; not for use elsewhere. */
#if defined(__aarch64__) && !defined(TLBSAN_NO_HINTS)
#define TLBSAN_HINT_(imm, a, b, c)                                                                                      \
    do {                                                                                                                \
        /* All of them first: evaluating one may call functions, which use these registers. */                          \
        unsigned long long tlbsan_a_ = (unsigned long long)(a);                                                         \
        unsigned long long tlbsan_b_ = (unsigned long long)(b);                                                         \
        unsigned long long tlbsan_c_ = (unsigned long long)(c);                                                         \
        register unsigned long long tlbsan_x0_ __asm__("x0") = tlbsan_a_;                                               \
        register unsigned long long tlbsan_x1_ __asm__("x1") = tlbsan_b_;                                               \
        register unsigned long long tlbsan_x2_ __asm__("x2") = tlbsan_c_;                                               \
        register unsigned long long tlbsan_x3_ __asm__("x3") = 0;                                                       \
        __asm__ volatile("movz xzr, %4"                                                                                 \
                         :                                                                                              \
                         : "r"(tlbsan_x0_), "r"(tlbsan_x1_), "r"(tlbsan_x2_), "r"(tlbsan_x3_), "i"(imm)                 \
                         : "memory");                                                                                   \
    } while (0)
#else
#define TLBSAN_HINT_(imm, a, b, c) ((void)0)
#endif

#endif
