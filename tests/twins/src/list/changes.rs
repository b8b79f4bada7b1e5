//! What is stored to tables, and the invalidations that it asks for: EL1, in one address space.

use super::{NO_LEVEL_1, NO_LEVEL_3, broken, right};
use crate::Twin;

pub(super) const REMADE: &[Twin] = &[
    broken("str pte 0; str pte page:2", &["remade no-invalidation va+0 level 3"]),
    broken("str pte 0; dsb ishst; tlbi vale1is va; str pte page:2", &["remade not-completed va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2"),
    // The 2019 bug.
    broken(
        "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; tlbi vale1is va+1000; dsb ish; str pmd table:t2",
        &["remade leaf-only va+0 level 2"],
    ),
    right("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; str pmd table:t2"),
    // A block where pages were, and pages where a block was.
    broken(
        "str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; str pmd block:0",
        &["remade no-invalidation va+1000 level 3"],
    ),
    right("str pmd 0; dsb ishst; tlbi aside1is; dsb ish; str pmd block:0"),
    broken(
        "str pmd1 block:0; str pmd1 0; dsb ishst; tlbi vale1is va; dsb ish; str t2.0 page:3; str pmd1 table:t2",
        &["remade wrong-range va+200000 level 2"],
    ),
    right(
        "str pmd1 block:0; str pmd1 0; dsb ishst; tlbi vale1is va+3ff000; dsb ish; str t2.0 page:3; str pmd1 table:t2",
    ),
];

pub(super) const ORDER_AND_COMPLETION: &[Twin] = &[
    broken("str pte 0; tlbi vale1is va; dsb ish; str pte page:2", &["remade not-ordered va+0 level 3"]),
    broken("str pte 0; dsb nshst; tlbi vale1is va; dsb ish; str pte page:2", &["remade not-ordered va+0 level 3"]),
    broken("str pte 0; dsb ishld; tlbi vale1is va; dsb ish; str pte page:2", &["remade not-ordered va+0 level 3"]),
    broken("str pte 0; dsb ishst; tlbi vale1is va; dsb ishst; str pte page:2", &["remade not-completed va+0 level 3"]),
    broken("str pte 0; dsb ishst; tlbi vale1is va; dsb ishld; str pte page:2", &["remade not-completed va+0 level 3"]),
    broken("str pte 0; dsb ishst; tlbi vale1is va; dsb nsh; str pte page:2", &["remade not-completed va+0 level 3"]),
    broken("str pte 0; dsb ishst; tlbi vale1is va; 1: dsb ish; str pte page:2", &["remade not-completed va+0 level 3"]),
    // Whoever has read the entry orders the store as well, with a DSB after the read, for whoever invalidates it.
    right("str pte 0; 1: ldr pte; 1: dsb ish; tlbi vale1is va; dsb ish; str pte page:2"),
    broken(
        "str pte 0; 1: dsb ish; 1: ldr pte; tlbi vale1is va; dsb ish; str pte page:2",
        &["remade not-ordered va+0 level 3"],
    ),
    broken(
        "1: ldr pte; str pte 0; 1: dsb ish; tlbi vale1is va; dsb ish; str pte page:2",
        &["remade not-ordered va+0 level 3"],
    ),
    // Who executes DSB and TLBI may have been handed the store under a lock, which nobody sees.
    right("str pte 0; 1: dsb ish; 1: tlbi vale1is va; 1: dsb ish; str pte page:2"),
    // A PE that stored it itself was handed nothing.
    broken(
        "str pte 0; 1: dsb ish; 1: tlbi vale1is va+5000; tlbi vale1is va; dsb ish; str pte page:2",
        &["remade not-ordered va+0 level 3"],
    ),
    right("str pud 0; 1: str pmd 0; 1: dsb ish; 1: tlbi vmalle1is; 1: dsb ish; claim va 2000"),
    // Who is away when the TLBI is executed may be back before the DSB, and miss the store then; or finds nothing that is left.
    broken(
        concat!(
            "msr ttbr0_el1 a9.empty; isb; 1: msr ttbr0_el1 a9.empty; 1: isb; str pte 0; tlbi vale1is va; ",
            "msr ttbr0_el1 a7.root; isb; 1: msr ttbr0_el1 a7.root; 1: isb; dsb ish; claim va 1000",
        ),
        &["claimed not-ordered va+0 level 3"],
    ),
    right(concat!(
        "1: msr ttbr0_el1 a9.empty; 1: isb; str pmd 0; dsb ishst; tlbi vae1is va; tlbi vae1is va+1000; ",
        "1: msr ttbr0_el1 a7.root; 1: isb; dsb ish; claim va 2000",
    )),
    // What is changed in an unlinked table is read there again once that is linked, by who misses the store.
    broken(
        "str pmd 0; dsb ishst; str pte 0; str pmd table:t; tlbi vae1is va; dsb ish; str pte page:2",
        &["remade not-ordered va+0 level 3"],
    ),
    right("str pmd 0; dsb ishst; str pte 0; str pmd table:t; dsb ishst; tlbi vae1is va; dsb ish; str pte page:2"),
    broken("str pte 0; 1: tlbi vale1is va; 1: dsb ish; str pte page:2", &["remade not-ordered va+0 level 3"]),
    broken(
        "1: dsb ish; str pte 0; 1: tlbi vale1is va; 1: dsb ish; str pte page:2",
        &["remade not-ordered va+0 level 3"],
    ),
    broken(
        "str pte 0; 1: dsb nsh; 1: tlbi vale1is va; 1: dsb ish; str pte page:2",
        &["remade not-ordered va+0 level 3"],
    ),
    // It is the store that removed an entry whose order counts, whatever was stored below it later.
    broken(
        "str pud 0; 1: str pmd 0; 1: dsb ish; tlbi vmalle1is; dsb ish; claim va 2000",
        &["claimed not-ordered va+0 level 1", "claimed not-ordered va+0 level 2"],
    ),
    right("str pud 0; 1: ldr pud; 1: str pmd 0; 1: dsb ish; tlbi vmalle1is; dsb ish; claim va 2000"),
    // An unrelated TLBI between store and DSB does no harm.
    right("str pte 0; tlbi vale1is va+5000; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2"),
    // Outer shareable forms want osh.
    broken("str pte 0; dsb ishst; tlbi vale1os va; dsb osh; str pte page:2", &["remade not-ordered va+0 level 3"]),
    broken("str pte 0; dsb oshst; tlbi vale1os va; dsb ish; str pte page:2", &["remade not-completed va+0 level 3"]),
    right("str pte 0; dsb oshst; tlbi vale1os va; dsb osh; str pte page:2"),
    right("str pte 0; dsb ishst; dsb oshst; tlbi vale1os va; dsb sy; str pte page:2"),
    // nXS forms complete by either DSB, others by the plain one only.
    broken("str pte 0; dsb ishst; tlbi vale1is va; dsb ishnxs; str pte page:2", &["remade not-completed va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale1isnxs va; dsb ishnxs; str pte page:2"),
    right("str pte 0; dsb ishst; tlbi vale1isnxs va; dsb ish; str pte page:2"),
    broken(
        "str pte 0; dsb ishst; tlbi vale1isnxs va; dsb nshnxs; str pte page:2",
        &["remade not-completed va+0 level 3"],
    ),
];

pub(super) const SCOPE_AND_OPERAND: &[Twin] = &[
    broken("str pte 0; dsb ishst; tlbi vale1 va; dsb ish; str pte page:2", &["remade local-only va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale1 va; dsb nsh; 1: tlbi vale1 va; 1: dsb nsh; str pte page:2"),
    broken("str pte 0; dsb ishst; tlbi vale1is va+1000; dsb ish; str pte page:2", &["remade wrong-range va+0 level 3"]),
    broken(
        "str pte 0; dsb ishst; tlbi vale1is va asid=8; dsb ish; str pte page:2",
        &["remade wrong-asid va+0 level 3"],
    ),
    broken("str pte 0; dsb ishst; tlbi aside1is asid=8; dsb ish; str pte page:2", &["remade wrong-asid va+0 level 3"]),
    // The tables are in use under two ASIDs, and it goes under one of them.
    broken(
        "1: msr ttbr0_el1 a8.root; 1: isb; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2",
        &["remade wrong-asid va+0 level 3"],
    ),
    right(
        "1: msr ttbr0_el1 a8.root; 1: isb; str pte 0; dsb ishst; tlbi vale1is va; tlbi vale1is va asid=8; dsb ish; str pte page:2",
    ),
    right("str pte 0; dsb ishst; tlbi vaale1is va; dsb ish; str pte page:2"),
    right("str pte 0; dsb ishst; tlbi vmalle1is; dsb ish; str pte page:2"),
    right("str pte 0; dsb ishst; tlbi aside1is; dsb ish; str pte page:2"),
    // TTL: granule and level.
    broken(
        "str pte 0; dsb ishst; tlbi vale1is va ttl=1.2; dsb ish; str pte page:2",
        &["remade wrong-ttl va+0 level 3"],
    ),
    broken(
        "str pte 0; dsb ishst; tlbi vale1is va ttl=2.3; dsb ish; str pte page:2",
        &["remade wrong-ttl va+0 level 3"],
    ),
    right("str pte 0; dsb ishst; tlbi vale1is va ttl=1.3; dsb ish; str pte page:2"),
    // A table entry stands above the leaf that the hint is about.
    broken(
        "str pmd1 table:t2; str pmd1 0; dsb ishst; tlbi vae1is va+200000 ttl=1.2; dsb ish; str pmd1 table:empty",
        &["remade wrong-ttl va+200000 level 2"],
    ),
    right("str pmd1 table:t2; str pmd1 0; dsb ishst; tlbi vae1is va+200000 ttl=1.3; dsb ish; str pmd1 table:empty"),
    // Ranges.
    broken(
        "str pte 0; dsb ishst; tlbi rvale1is va+1000*2; dsb ish; str pte page:2",
        &["remade wrong-range va+0 level 3"],
    ),
    broken(
        "str pte 0; dsb ishst; tlbi rvale1is va*2 ttl=2; dsb ish; str pte page:2",
        &["remade wrong-ttl va+0 level 3"],
    ),
    right("str pte 0; dsb ishst; tlbi rvale1is va*2 ttl=3; dsb ish; str pte page:2"),
    // With a level a range begins where an entry of that level can.
    broken(
        "str pmd1 block:0; str pmd1 0; dsb ishst; tlbi rvale1is va+201000*2 ttl=2; dsb ish; str pmd1 block:1",
        &["remade wrong-ttl va+200000 level 2"],
    ),
    right("str pmd1 block:0; str pmd1 0; dsb ishst; tlbi rvale1is va+200000*2 ttl=2; dsb ish; str pmd1 block:1"),
    right("str pte 0; str pte1 0; dsb ishst; tlbi rvale1is va*2; dsb ish; str pte page:2; str pte1 page:3"),
    right("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi rvae1is va*2; dsb ish; str pmd table:t2"),
    // Globals survive operations by ASID, and by address no ASID is too wrong for them.
    broken(
        "str pte2 page:2,g; str pte2 0; dsb ishst; tlbi aside1is; dsb ish; str pte2 page:3,g",
        &["remade global-survives va+2000 level 3"],
    ),
    right("str pte2 page:2,g; str pte2 0; dsb ishst; tlbi vale1is va+2000 asid=9; dsb ish; str pte2 page:3,g"),
];

pub(super) const REUSED: &[Twin] = &[
    broken("str pte 0; str pte1 0; str pmd 0; str t.8 1235", &["reused no-invalidation va+0 level 2"]),
    broken(
        "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; tlbi vale1is va+1000; dsb ish; zva t",
        &["reused leaf-only va+0 level 2"],
    ),
    right("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; str t.8 1235"),
    // A teardown is none, nor an allocator's link; nor is linking the table elsewhere, until something is put in it.
    right("str pmd 0; str pte 0; str pte1 0; str t.2 7000"),
    right("str pmd 0; str pmd1 table:t; dsb ishst; tlbi vae1is va; tlbi vae1is va+1000; dsb ish; str pte5 page:5"),
    broken("str pmd 0; str pmd1 table:t; str pte5 page:5", &["reused no-invalidation va+0 level 2"]),
    // Without access flag it is a valid entry all the same.
    broken("str pmd 0; str pmd1 table:t; str pte5 page:5,o", &["reused no-invalidation va+0 level 2"]),
    // The frame of a stale leaf becomes a table.
    right("str pte2 page:9; str pte2 0; str pmd1 table:empty"),
    broken("str pte2 page:empty; str pte2 0; str pmd1 table:empty", &["reused no-invalidation va+2000 level 3"]),
    right("str pte2 page:empty; str pte2 0; dsb ishst; tlbi vale1is va+2000; dsb ish; str pmd1 table:empty"),
];

pub(super) const LIVE_CHANGE: &[Twin] = &[
    broken("str pte page:2", &["live-change not-broken-first va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2"),
    broken("str pte page:0,d", &["live-change not-broken-first va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:0,d"),
    broken("str pte page:0,g", &["live-change not-broken-first va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:0,g"),
    broken("str pmd table:t2", &["live-change not-broken-first va+0 level 2"]),
    broken("id bbm 0; str pte page:0,c", &["live-change not-broken-first va+0 level 3"]),
    broken("str pmd block:0", &["live-change not-broken-first va+0 level 2"]),
    // PE 1 has kept a global page of the table that is replaced, and not the table's own entry.
    broken(
        "str pte2 page:2,g; str t2.2 page:3,g; 1: msr ttbr0_el1 a9.empty; 1: isb; tlbi aside1is; dsb ish; str pmd table:t2",
        &["live-change not-broken-first va+0 level 2", "live-change not-broken-first va+2000 level 3"],
    ),
    // Permissions, software bits and the access flag are no such change.
    right("str pte page:0,r; str pte page:0; str pte page:0,s; str pte page:0"),
    right("str pte page:0,o; str pte page:0"),
    broken("str pte page:0,o; str pte page:2", &["remade no-invalidation va+0 level 3"]),
];

pub(super) const FEAT_BBM: &[Twin] = &[
    broken("id bbm 0; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"]),
    broken("id bbm 1; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"])
        .only_simulated(NO_LEVEL_1),
    right("id bbm 2; str pmd1 table:t2"),
    right("id bbm 3; str pmd1 table:t2").only_simulated(NO_LEVEL_3),
    // Something else in the table is another translation, whatever the level.
    broken("id bbm 2; str t2.5 page:9; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"]),
    broken("id bbm 3; str t2.5 page:9; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"])
        .only_simulated(NO_LEVEL_3),
    broken("id bbm 2; str t2.5 part:5,g; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"]),
    // What was cached of the block before still counts at level 2; at level 3 it says the same as the pages.
    right("id bbm 2; str pmd1 table:t2; str t2.5 0; dsb ishst; tlbi vale1is va+205000; dsb ish; str t2.5 page:9"),
    broken(
        "id bbm 2; str pmd1 table:t2; str t2.5 0; str t2.5 page:9",
        &["remade no-invalidation va+205000 level 3", "remade no-invalidation va+200000 level 2"],
    ),
    // Level 1: nT first, then an invalidation, then the change.
    right("id bbm 1; str pmd1 block:0,n; dsb ishst; tlbi vale1is va+200000; dsb ish; str pmd1 table:t2")
        .only_simulated(NO_LEVEL_1),
    broken("id bbm 1; str pmd1 block:0,n; str pmd1 table:t2", &["remade no-invalidation va+200000 level 2"])
        .only_simulated(NO_LEVEL_1),
    // Back again: the table is owed an invalidation before its page is used again.
    broken(
        "id bbm 3; str pmd1 table:t2; str pmd1 block:0; str t2.5 page:9",
        &["reused no-invalidation va+200000 level 2"],
    )
    .only_simulated(NO_LEVEL_3),
    // The contiguous bit is a size.
    right("id bbm 2; str pte page:0,c"),
    broken("id bbm 1; str pte page:0,c", &["live-change not-broken-first va+0 level 3"]).only_simulated(NO_LEVEL_1),
];

pub(super) const CONTIGUOUS: &[Twin] = &[
    right("10{str t2.% 0}; dsb ishst; 10{tlbi vale1is va+20%000}; dsb ish; 10{str t2.% page:3%,c}"),
    right("10{str t2.% 0}; dsb ishst; tlbi rvale1is va+200000*10; dsb ish; 10{str t2.% page:3%,c}"),
    // One page of the run is invalidated, as if it stood for all.
    broken(
        "10{str t2.% 0}; dsb ishst; tlbi vale1is va+200000; dsb ish; str t2.3 page:33",
        &["remade no-invalidation va+203000 level 3"],
    ),
    // Another member still stands for the page.
    broken(
        "str t2.0 0; dsb ishst; tlbi vale1is va+200000; dsb ish; str t2.0 page:9",
        &["remade not-broken-first va+200000 level 3"],
    ),
    // No member stands in a table that is no longer linked.
    right("str pmd1 0; dsb ishst; 10{tlbi vae1is va+20%000}; dsb ish; 10{str t2.% page:3%,c}; str pmd1 table:t2"),
    // Fewer permissions, entry by entry, then one invalidation.
    right("str t2.0 page:0,cr; str t2.1 page:1,cr"),
];

pub(super) const CLAIMED: &[Twin] = &[
    // PE 1 comes back and follows the table entry it has kept, to a page that was not there when it left.
    broken(
        "1: msr ttbr0_el1 a9.empty; 1: isb; str pte5 page:5; str pmd 0; 1: msr ttbr0_el1 a7.root; 1: isb; dsb ishst; \
         tlbi vmalle1; dsb nsh; 1: dsb ishst; 1: tlbi vae1 va; 1: dsb nsh; claim va+5000 1000",
        &["claimed local-only va+5000 level 3"],
    ),
    // The table is linked elsewhere, and the page's access flag is back: so it is for who still comes from here.
    broken(
        "str pmd 0; str pmd1 table:t; str pte page:0,o; dsb ishst; tlbi vale1is va; dsb ish; str pte page:0; \
         tlbi vae1is va+1000; dsb ish; claim va 1000",
        &["claimed no-invalidation va+0 level 3"],
    ),
    right(
        "str pmd 0; str pmd1 table:t; str pte page:0,o; dsb ishst; tlbi vae1is va; tlbi vae1is va+1000; dsb ish; \
         str pte page:0; claim va 1000",
    ),
    right(
        "1: msr ttbr0_el1 a9.empty; 1: isb; str pte5 page:5; str pmd 0; dsb ishst; 1: dsb ishst; tlbi vae1is va; dsb ish; \
         1: msr ttbr0_el1 a7.root; 1: isb; dsb ishst; tlbi vmalle1; dsb nsh; claim va+5000 1000",
    ),
    broken("str pte 0; claim va 1000", &["claimed no-invalidation va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; claim va 1000"),
    right("str pte 0; claim va+1000 1000"),
    // It still says what it said, or permits more: a spurious fault at most.
    right("str pte page:0,o; claim va 1000"),
    right("str pte page:0,r; dsb ishst; tlbi vale1is va; dsb ish; str pte page:0,o; claim va 1000"),
    // A page that stood alone, and one that was global.
    broken("id bbm 2; str pte page:0,c; claim va 1000", &["claimed no-invalidation va+0 level 3"]),
    right("id bbm 2; str pte page:0,c; dsb ishst; tlbi vale1is va; dsb ish; claim va 1000"),
    broken("str pte2 page:2,g; str pte2 page:2; claim va+2000 1000", &["claimed no-invalidation va+2000 level 3"]),
    right("str pte2 page:2,g; str pte2 page:2; dsb ishst; tlbi vale1is va+2000; dsb ish; claim va+2000 1000"),
    broken(
        "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; dsb ish; free t",
        &["claimed leaf-only va+0 level 2"],
    ),
    right("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; free t"),
    // What a table entry forbids all that is below it (APTable) is cached with the table entry, and with the leaves below it.
    broken(
        "str pmd table:t,h; dsb ishst; tlbi vale1is va; dsb ish; claim va 1000",
        &["claimed leaf-only va+0 level 2"],
    ),
    right("str pmd table:t,h; dsb ishst; tlbi vae1is va; dsb ish; claim va 1000"),
    // Each goes by its own address, or all go at once.
    broken(
        "str pmd table:t,h; dsb ishst; tlbi vae1is va; dsb ish; claim va+1000 1000",
        &["claimed no-invalidation va+1000 level 3"],
    ),
    right("str pmd table:t,h; dsb ishst; tlbi vae1is va; tlbi vae1is va+1000; dsb ish; claim va 2000"),
    right("str pmd table:t,h; dsb ishst; tlbi vae1is va; dsb ish; tlbi vale1is va+1000; dsb ish; claim va 2000"),
    right("str pmd table:t,h; dsb ishst; tlbi vmalle1is; dsb ish; claim va 2000"),
    right("str pmd table:t,h; dsb ishst; tlbi aside1is; dsb ish; claim va 2000"),
    // A page that forbids it by itself says what it said.
    right("str pte2 page:2,k; str pmd table:t,h; dsb ishst; tlbi vae1is va; dsb ish; claim va+2000 1000"),
];
