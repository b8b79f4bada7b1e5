//! Registers at EL1: address spaces, translation control, the MMU off and on, reset; and accesses through what they say.

use super::{FORGETS, NO_FETCH, WRONG, broken, right};
use crate::Twin;

pub(super) const RESET: &[Twin] = &[
    broken(
        "reset; msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb",
        &["asid no-invalidation 0 whole"],
    ),
    broken(
        "reset; tlbi vmalle1; msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb",
        &["asid not-completed 0 whole"],
    ),
    broken(
        "reset; tlbi vale1 va; dsb nsh; msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb",
        &["asid no-invalidation 0 whole"],
    ),
    right("reset; tlbi vmalle1; dsb nsh; msr tcr_el1 t0sz=10; msr ttbr0_el1 a7.root; msr sctlr_el1 on; isb"),
];

pub(super) const ASID: &[Twin] = &[
    // Two ASIDs for one root, as a kernel has that hides itself from EL0: who comes back to one of them before the DSB fills nothing in
    // that the operation for it does not remove.
    right(concat!(
        "1: msr ttbr0_el1 a9.root; 1: isb; str pmd 0; dsb ishst; tlbi aside1is; 1: msr ttbr0_el1 a7.root; 1: isb; ",
        "tlbi aside1is asid=9; dsb ish; claim va 2000",
    )),
    broken(
        concat!(
            "1: msr ttbr0_el1 a9.root; 1: isb; str pmd 0; dsb ishst; tlbi aside1is; 1: msr ttbr0_el1 a7.root; 1: isb; ",
            "dsb ish; str pmd table:t2",
        ),
        &["remade wrong-asid va+0 level 2"],
    ),
    broken("str root2.0 table:other; msr ttbr0_el1 a7.root2; isb", &["asid no-invalidation 0 level 0"]),
    right(
        "str root2.0 table:other; dsb ishst; msr ttbr0_el1 a9.empty; isb; tlbi aside1is; dsb ish; msr ttbr0_el1 a7.root2; isb",
    ),
    broken(
        "str root2.0 table:other; msr ttbr0_el1 a9.empty; isb; tlbi aside1is; msr ttbr0_el1 a7.root2; isb",
        &["asid not-completed 0 level 0"],
    ),
    broken(
        "str root2.0 table:other; msr ttbr0_el1 a9.empty; isb; tlbi aside1is asid=8; dsb ish; msr ttbr0_el1 a7.root2; isb",
        &["asid no-invalidation 0 level 0"],
    ),
    // What is in flight is for another ASID, or for another PE.
    broken(
        "str root2.0 table:other; msr ttbr0_el1 a9.empty; isb; tlbi aside1is asid=8; msr ttbr0_el1 a7.root2; isb",
        &["asid no-invalidation 0 level 0"],
    ),
    broken(
        "str root2.0 table:other; msr ttbr0_el1 a9.empty; isb; 1: tlbi aside1; msr ttbr0_el1 a7.root2; isb",
        &["asid no-invalidation 0 level 0"],
    ),
    // PEs that have left the space hold nothing of it after an invalidation by ASID, but for globals.
    broken(
        "str pte2 page:2,g; msr ttbr0_el1 a9.empty; isb; 1: msr ttbr0_el1 a9.empty; 1: isb; tlbi aside1is; dsb ish; \
         str pte2 0; str pte2 page:3,g",
        &["remade no-invalidation va+2000 level 3"],
    ),
    right(
        "str pte2 page:2,g; msr ttbr0_el1 a9.empty; isb; 1: msr ttbr0_el1 a9.empty; 1: isb; tlbi vmalle1is; dsb ish; \
         str pte2 0; str pte2 page:3,g",
    ),
    right(
        "msr ttbr0_el1 a9.empty; isb; 1: msr ttbr0_el1 a9.empty; 1: isb; tlbi aside1is; dsb ish; str pte 0; str pte page:2",
    ),
    // Linux passes through its reserved root; what is written over before the synchronisation never was.
    right("str root2.0 table:other; msr ttbr0_el1 a7.empty; isb; msr ttbr0_el1 a9.empty; msr ttbr0_el1 a9.root2; isb"),
    right("str root2.0 table:other; msr ttbr0_el1 a7.root2; msr ttbr0_el1 a9.root2; isb"),
    // What an address space left behind under its ASID.
    broken(
        "str pte 0; str pte1 0; str pmd 0; str pud 0; str root.0 0; str root2.0 table:other; msr ttbr0_el1 a7.root2; isb",
        &[
            "asid no-invalidation va+0 level 3",
            "asid no-invalidation va+1000 level 3",
            "asid no-invalidation va+0 level 2",
            "asid no-invalidation va+0 level 1",
            "asid no-invalidation 0 level 0",
        ],
    ),
    right(
        "str pte 0; str pte1 0; str pmd 0; str pud 0; str root.0 0; dsb ishst; tlbi aside1is; dsb ish; \
         str root2.0 table:other; msr ttbr0_el1 a7.root2; isb",
    ),
];

// One ASID for two spaces on two PEs: with CnP they share entries, without it they do not.
pub(super) const COMMON_NOT_PRIVATE: &[Twin] = &[
    broken(
        "msr ttbr0_el1 a7.root.cnp; isb; 1: msr ttbr0_el1 a7.root2.cnp; 1: isb",
        &["asid no-invalidation 0 level 0"],
    ),
    right("msr ttbr0_el1 a7.root; isb; 1: msr ttbr0_el1 a7.root2; 1: isb"),
    right("msr ttbr0_el1 a7.root.cnp; isb; 1: msr ttbr0_el1 a7.root.cnp; 1: isb"),
    // What is stale on the one PE may be used by the other.
    broken(
        "msr ttbr0_el1 a7.root.cnp; isb; str root.0 0; 1: msr ttbr0_el1 a7.root2.cnp; 1: isb",
        &["asid no-invalidation 0 level 0"],
    ),
    right(
        "msr ttbr0_el1 a7.root.cnp; isb; str root.0 0; dsb ishst; tlbi aside1is; dsb ish; \
         1: msr ttbr0_el1 a7.root2.cnp; 1: isb",
    ),
    right("msr ttbr0_el1 a7.root; isb; str root.0 0; 1: msr ttbr0_el1 a7.root2.cnp; 1: isb"),
    // The same tables, read alike by both or not.
    broken(
        "msr ttbr0_el1 a7.root.cnp; isb; 1: msr tcr_el1 hpd0=1; 1: msr ttbr0_el1 a7.root.cnp; 1: isb; 1: isb",
        &["asid no-invalidation 0 level 0"],
    ),
    right(
        "msr tcr_el1 hpd0=1; msr ttbr0_el1 a7.root.cnp; isb; isb; \
         1: msr tcr_el1 hpd0=1; 1: msr ttbr0_el1 a7.root.cnp; 1: isb; 1: isb",
    ),
    right("msr ttbr0_el1 a7.root; isb; 1: msr tcr_el1 hpd0=1; 1: msr ttbr0_el1 a7.root; 1: isb; 1: isb"),
    // The same tables, other ones under another ASID, none at all.
    right(
        "msr ttbr0_el1 a7.root.cnp; isb; str pte 0; 1: msr ttbr0_el1 a7.root.cnp; 1: isb; \
         1: msr ttbr0_el1 a8.root2.cnp; 1: isb; 1: msr ttbr0_el1 a7.empty.cnp; 1: isb",
    ),
];

// TCR.T0SZ moves the root to another level: what was cached of it says something else.
pub(super) const TRANSLATION_CONTROL: &[Twin] = &[
    broken("msr tcr_el1 t0sz=19; isb", &["asid no-invalidation 0 level 0"]),
    // The same level with half the entries, beside a PE that has them all.
    broken(
        "msr ttbr0_el1 a9.empty; isb; tlbi vmalle1; dsb nsh; msr tcr_el1 t0sz=11; isb; msr ttbr0_el1 a7.root; isb; \
         1: msr ttbr0_el1 a9.empty; 1: isb; 1: tlbi vmalle1; 1: dsb nsh; str pte 0; str pte page:2",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("msr ttbr0_el1 a7.empty; isb; tlbi vmalle1; dsb nsh; msr tcr_el1 t0sz=19; isb; msr ttbr0_el1 a7.root; isb"),
    // HPD0: what table entries forbid counts no more.
    broken("msr tcr_el1 hpd0=1; isb; isb", &["asid no-invalidation 0 level 0"]),
    broken("tlbi vmalle1; dsb nsh; msr tcr_el1 hpd0=1; isb; isb", &["asid no-invalidation 0 level 0"]),
    broken("msr tcr_el1 hpd0=1; isb; tlbi vmalle1; isb", &["asid not-completed 0 level 0"]),
    right("msr tcr_el1 epd0=1; isb; tlbi vmalle1; dsb nsh; msr tcr_el1 hpd0=1; isb; isb"),
    // Permissions may change in place: the invalidation comes after.
    right("msr tcr_el1 hpd0=1; isb; tlbi vmalle1; dsb nsh; isb"),
    right("msr tcr_el1 hpd0=1; isb; tlbi aside1; dsb nsh; isb"),
    broken("msr tcr_el1 hpd0=1; isb; tlbi aside1 asid=8; dsb nsh; isb", &["asid no-invalidation 0 level 0"]),
    // What was stale before it is no other matter.
    right("str pte 0; dsb ishst; msr tcr_el1 hpd0=1; isb; tlbi vmalle1is; dsb ish; isb; str pte page:2"),
    // Beside other tables they do not wait.
    broken(
        "str root2.0 table:other; msr tcr_el1 hpd0=1; msr ttbr0_el1 a7.root2; isb; tlbi vmalle1; dsb nsh; isb",
        &["asid no-invalidation 0 level 0"],
    ),
    // EPD0: nothing new is cached of the lower half, and what was cached stays.
    broken(
        "msr tcr_el1 epd0=1; isb; 1: msr tcr_el1 epd0=1; 1: isb; str pte 0; str pte page:2",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("msr tcr_el1 epd0=1; isb; 1: msr tcr_el1 epd0=1; 1: isb; tlbi vmalle1is; dsb ish; str pte 0; str pte page:2"),
    // A1: the ASID is that of TTBR1, which is 0, in both halves.
    broken(
        "msr tcr_el1 a1=1; isb; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2",
        &["remade wrong-asid va+0 level 3"],
    ),
    right(
        "msr tcr_el1 a1=1; isb; str pte 0; dsb ishst; tlbi vale1is va; tlbi vale1is va asid=0; dsb ish; str pte page:2",
    ),
    broken(
        "str root2.0 table:other; msr tcr_el1 a1=1; isb; msr ttbr0_el1 a9.root2; isb",
        &["asid no-invalidation 0 level 0"],
    ),
    right("str root2.0 table:other; msr ttbr0_el1 a9.root2; isb"),
];

// In a guest, which has the lower half alone: these controls are for both.
pub(super) const CACHED_CONTROLS: &[Twin] = &[
    // SCTLR.WXN.
    broken("msr sctlr_el1 on,wxn=1; el 1; el 2", &["asid no-invalidation 0 level 0"]),
    broken("el 1; msr sctlr_el1 on,wxn=1; isb; tlbi vmalle1; isb; dsb nsh; el 2", &["asid not-completed 0 level 0"]),
    right("el 1; msr sctlr_el1 on,wxn=1; isb; tlbi vmalle1; dsb nsh; isb; el 2"),
    right("msr sctlr_el1 off; el 1; tlbi vmalle1; dsb nsh; msr sctlr_el1 on,wxn=1; isb; isb; el 2"),
    // It was not in effect, and what is written is no matter.
    right("msr sctlr_el1 on,wxn=1; msr sctlr_el1 on; el 1; el 2"),
    // SCTLR.EPAN.
    broken("msr sctlr_el1 on,epan=1; el 1; el 2", &["asid no-invalidation 0 level 0"]),
    right("el 1; msr sctlr_el1 on,epan=1; isb; tlbi aside1; dsb nsh; isb; el 2"),
    // TCR.IPS.
    broken("msr tcr_el1 ips=1; el 1; el 2", &["asid no-invalidation 0 level 0"]),
    right("el 1; msr tcr_el1 ips=1; isb; tlbi vmalle1; dsb nsh; isb; el 2"),
    // TCR.SH0 is about walks, and with DS about every leaf: two shareabilities must not be cached at once.
    right("msr tcr_el1 sh0=2; el 1; el 2"),
    broken(
        "str root2.0 table:other; msr ttbr0_el1 a9.root2; msr tcr_el1 ds=1; el 1; \
         msr tcr_el1 ds=1,sh0=2; isb; tlbi vmalle1; dsb nsh; isb; el 2",
        &["asid no-invalidation 0 level 0"],
    ),
    right(
        "str root2.0 table:other; msr ttbr0_el1 a9.root2; msr tcr_el1 ds=1; el 1; el 2; msr ttbr0_el1 a9.empty; isb; \
         tlbi vmalle1; dsb nsh; msr ttbr0_el1 a9.root2; msr tcr_el1 ds=1,sh0=2; el 1; isb; el 2",
    ),
    // VTCR_EL2.PS.
    broken("msr vtcr_el2 ps=1; el 1; el 2", &["asid no-invalidation 0 level 1"]),
    right("msr vtcr_el2 ps=1; isb; tlbi vmalls12e1; dsb nsh; el 1; el 2"),
];

// One table of pages of 64 or 16 KiB: 25 bits of address. Walks are disabled while the registers change.
pub(super) const GRANULES: &[Twin] = &[
    right(
        "msr tcr_el1 epd0=1; isb; msr ttbr0_el1 a9.t2; isb; msr tcr_el1 tg0=1,t0sz=27; isb; read 4f010 frame:1f+10; \
         str t2.4 0; dsb ishst; tlbi vale1is 4f000 asid=9 ttl=3.3; dsb ish; isb; str t2.4 page:20; dsb ish; isb; \
         read 40010 frame:20+10",
    ),
    broken(
        "msr tcr_el1 epd0=1; isb; msr ttbr0_el1 a9.t2; isb; msr tcr_el1 tg0=1,t0sz=27; isb; \
         str t2.4 0; dsb ishst; tlbi vale1is 50000 asid=9; dsb ish; str t2.4 page:20",
        &["remade wrong-range 40000 level 3 size 10000"],
    ),
    broken(
        "msr tcr_el1 epd0=1; isb; msr ttbr0_el1 a9.t2; isb; msr tcr_el1 tg0=1,t0sz=27; isb; \
         str t2.4 0; dsb ishst; tlbi vale1is 40000 asid=9 ttl=1.3; dsb ish; str t2.4 page:20",
        &["remade wrong-ttl 40000 level 3 size 10000"],
    ),
    right(
        "msr tcr_el1 epd0=1; isb; msr ttbr0_el1 a9.t2; isb; msr tcr_el1 tg0=2,t0sz=27; isb; read 13010 frame:13+10; \
         str t2.4 0; dsb ishst; tlbi vale1is 13000 asid=9 ttl=2.3; dsb ish; isb; str t2.4 page:20; dsb ish; isb; \
         read 10010 frame:20+10",
    ),
    broken(
        "msr tcr_el1 epd0=1; isb; msr ttbr0_el1 a9.t2; isb; msr tcr_el1 tg0=2,t0sz=27; isb; \
         str t2.4 0; dsb ishst; tlbi vale1is 14000 asid=9; dsb ish; str t2.4 page:20",
        &["remade wrong-range 10000 level 3 size 4000"],
    ),
];

pub(super) const HARDWARE_MANAGED: &[Twin] = &[
    // Without access flag a leaf is cached only if hardware may set it.
    right("str pte2 page:2,o; str pte2 0; str pte2 page:3"),
    broken(
        "msr tcr_el1 ha=1; isb; str pte2 page:2,o; str pte2 0; str pte2 page:3",
        &["remade no-invalidation va+2000 level 3"],
    ),
    right(
        "msr tcr_el1 ha=1; isb; str pte2 page:2,o; str pte2 0; dsb ishst; tlbi vale1is va+2000; dsb ish; str pte2 page:3",
    ),
    // Between two read-only pages of equal contents no break is due, but hardware may make one with DBM writable.
    right("msr tcr_el1 ha=1; isb; str pte2 page:2,rm; str pte2 page:3,rm; dsb ishst; tlbi vale1is va+2000; dsb ish"),
    broken(
        "msr tcr_el1 ha=1,hd=1; isb; str pte2 page:2,rm; str pte2 page:3,rm; dsb ishst; tlbi vale1is va+2000; dsb ish",
        &["live-change not-broken-first va+2000 level 3"],
    ),
];

pub(super) const MEMORY_ATTRIBUTES: &[Twin] = &[
    broken("msr mair_el1 attr0=44; isb", &["live-change not-broken-first 0 whole"]),
    broken(
        "msr sctlr_el1 off; isb; msr mair_el1 attr0=44; msr sctlr_el1 on; isb",
        &["live-change not-broken-first 0 whole"],
    ),
    right("msr sctlr_el1 off; isb; tlbi vmalle1; dsb nsh; msr mair_el1 attr0=44; msr sctlr_el1 on; isb"),
    // An MMU that is on fills the TLB again.
    broken("tlbi vmalle1; dsb nsh; msr mair_el1 attr0=44; isb", &["live-change not-broken-first 0 whole"]),
    // An attribute that no entry uses.
    right("msr mair_el1 attr2=44; isb"),
];

pub(super) const MMU_OFF: &[Twin] = &[
    broken(
        "msr sctlr_el1 off; isb; 1: msr sctlr_el1 off; 1: isb; str pte 0; str pte page:2",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("msr sctlr_el1 off; isb; 1: msr sctlr_el1 off; 1: isb; tlbi vmalle1is; dsb ish; str pte 0; str pte page:2"),
];

pub(super) const STALE_ACCESS: &[Twin] = &[
    right("read va frame:0; write va+1008 frame:1+8"),
    broken("read va frame:1", &["stale-access no-invalidation va+0 level 3"]).only_simulated(WRONG),
    // An empty root forbids nothing, but nobody may count on what is cached of the one before.
    broken(
        "read va frame:0; msr ttbr0_el1 a7.empty; isb; read va frame:0",
        &["stale-access no-invalidation va+0 level 3"],
    ),
    right("read va frame:0; msr ttbr0_el1 a7.empty; isb; tlbi aside1is; dsb ish; isb; read va fault"),
    // R6. The access goes where it should, this time: another machine's might not.
    broken(
        "id ets2 0; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; read va+10 frame:2+10; read va+10 frame:2+10",
        &["stale-access not-synchronised va+0 level 3"],
    ),
    broken(
        "id ets2 0; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; read va+10 frame:0+10",
        &["stale-access not-synchronised va+0 level 3"],
    )
    .only_simulated(FORGETS),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; isb; read va+10 frame:2+10"),
    // What was removed under another ASID could not have been used.
    right(
        "id ets2 0; str other.8 table:t2; str t2.0 table:empty; str empty.0 page:2,k; str root2.0 table:other; \
         msr ttbr0_el1 a9.root2; isb; msr ttbr0_el1 a7.root; isb; str empty.0 0; dsb ishst; tlbi vale1is va asid=9; dsb ish; \
         read va+10 frame:0+10",
    ),
    // For a page of EL0's it is advice: its kernel leaves that to the return to EL0.
    right(
        "id ets2 0; str pte page:0; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; read va+10 frame:2+10",
    ),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; read va+1008 frame:1+8"),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; 1: read va+10 frame:2+10"),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:0; dsb ish; read va+10 frame:0+10"),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; eret; str pte page:2; read va frame:2"),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; exc; str pte page:2; read va frame:2"),
    right("id ets2 1; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; read va frame:2"),
    broken(
        "id ets2 1; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; fetch va frame:0",
        &["stale-access not-synchronised va+0 level 3"],
    )
    .only_simulated(NO_FETCH),
    right("id ets2 1; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; eret; fetch va frame:2")
        .only_simulated(NO_FETCH),
    broken(
        "str pte 0; dsb ishst; tlbi vale1is va; dsb ish; isb; str pte page:2; read va+10 frame:0+10",
        &["stale-access no-invalidation va+0 level 3"],
    )
    .only_simulated(FORGETS),
    // Between the store and the completed TLBI both are right, on every PE.
    right("1: read va frame:0; str pte 0; 1: read va frame:0; dsb ishst; tlbi vale1is va; 1: read va frame:0"),
    broken(
        "str pte 0; dsb ishst; tlbi vale1is va; dsb ish; 1: read va frame:0",
        &["stale-access no-invalidation va+0 level 3"],
    )
    .only_simulated(FORGETS),
    // What is stale under one ASID explains nothing under another.
    broken(
        "str root2.0 table:other; str pte 0; msr ttbr0_el1 a9.root2; isb; read va frame:0",
        &["stale-access no-invalidation va+0 level 3"],
    )
    .only_simulated(WRONG),
    // What a verdict was given about is not told again.
    broken("read va frame:0; str pte page:2; read va frame:0", &["live-change not-broken-first va+0 level 3"]),
    // Advice is no verdict.
    broken(
        "id ets2 0; str pte page:0; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2; dsb ish; \
         read va+10 frame:2+10; isb; read va+10 frame:0+10",
        &["stale-access no-invalidation va+0 level 3"],
    )
    .only_simulated(FORGETS),
    // Until everything was invalidated everywhere.
    broken(
        "str pte page:2; dsb ishst; tlbi vmalle1is; dsb ish; isb; read va frame:0",
        &["live-change not-broken-first va+0 level 3", "stale-access no-invalidation va+0 level 3"],
    )
    .only_simulated(FORGETS),
    broken(
        "str pte page:2; dsb ishst; tlbi vmalle1; dsb ish; isb; read va frame:0",
        &["live-change not-broken-first va+0 level 3"],
    )
    .only_simulated(FORGETS),
    broken(
        "str pte page:2; dsb ishst; tlbi aside1is; dsb ish; isb; read va frame:0",
        &["live-change not-broken-first va+0 level 3"],
    )
    .only_simulated(FORGETS),
    // Registers may take effect early.
    right("read va frame:0; msr ttbr0_el1 a9.empty; read va frame:0"),
];
