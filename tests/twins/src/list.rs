//! The list.

use crate::{Group, Twin, World};

/// What every case on a PE begins with, so that the checker shows that it is awake: an entry goes, in the right way. It begins and
/// ends at EL1 in an address space of the caller's.
pub const HEARTBEAT: [&str; 2] = [
    "str t.1ff page:1f; msr ttbr0_el1 a7.root; isb; str t.1ff 0; dsb ishst; tlbi vale1is va+1ff000; dsb ish; isb",
    "tlbi aside1is; dsb ish; isb",
];

const NO_LEVEL_1: &str = "no CPU of QEMU's has level 1 of FEAT_BBM";
const NO_LEVEL_3: &str = "no CPU of QEMU's has level 3 of FEAT_BBM";
const FORGETS: &str = "QEMU forgets upon the TLBI, at once";
const WRONG: &str = "it takes a machine that goes wrong";
const NO_FETCH: &str = "QEMU tells plugins no addresses of fetches";

const fn broken(sequence: &'static str, expected: &'static [&'static str]) -> Twin {
    Twin::broken(sequence, expected)
}

const fn right(sequence: &'static str) -> Twin {
    Twin::right(sequence)
}

/// Every group.
pub const GROUPS: &[Group] = &[
    Group { name: "remade", world: World::El1, setup: "", twins: REMADE },
    Group { name: "order-and-completion", world: World::El1, setup: "", twins: ORDER_AND_COMPLETION },
    Group { name: "scope-and-operand", world: World::El1, setup: "", twins: SCOPE_AND_OPERAND },
    Group { name: "forms-by-address", world: World::El1, setup: "", twins: FORMS_BY_ADDRESS },
    Group { name: "forms-local", world: World::El1, setup: "", twins: FORMS_LOCAL },
    Group { name: "forms-as-a-whole", world: World::El1, setup: "", twins: FORMS_AS_A_WHOLE },
    Group { name: "reused", world: World::El1, setup: "", twins: REUSED },
    Group { name: "live-change", world: World::El1, setup: "", twins: LIVE_CHANGE },
    // A table whose pages translate as block 0 does.
    Group { name: "feat-bbm", world: World::El1, setup: "200{str t2.% part:%}; str pmd1 block:0", twins: FEAT_BBM },
    Group {
        name: "contiguous",
        world: World::El1,
        setup: "10{str t2.% page:%,c}; str pmd1 table:t2",
        twins: CONTIGUOUS,
    },
    Group { name: "claimed", world: World::El1, setup: "", twins: CLAIMED },
    Group { name: "asid", world: World::El1, setup: "", twins: ASID },
    Group {
        name: "common-not-private",
        world: World::El1Away,
        setup: "str root2.0 table:other",
        twins: COMMON_NOT_PRIVATE,
    },
    Group { name: "translation-control", world: World::El1, setup: "", twins: TRANSLATION_CONTROL },
    Group { name: "granules", world: World::El1, setup: "str t2.4 page:10", twins: GRANULES },
    Group { name: "hardware-managed", world: World::El1, setup: "", twins: HARDWARE_MANAGED },
    Group { name: "memory-attributes", world: World::El1Flat, setup: "", twins: MEMORY_ATTRIBUTES },
    Group { name: "mmu-off", world: World::El1Flat, setup: "", twins: MMU_OFF },
    Group { name: "stale-access", world: World::El1, setup: "str pte page:0,k", twins: STALE_ACCESS },
    Group { name: "el2", world: World::El2, setup: "", twins: EL2 },
    Group { name: "el2-forms", world: World::El2, setup: "", twins: EL2_FORMS },
    Group { name: "el2-another-root", world: World::El2, setup: "str root2.0 table:other", twins: EL2_ANOTHER_ROOT },
    Group { name: "el2-host", world: World::El2Host, setup: "", twins: EL2_HOST },
    Group { name: "stage-2", world: World::Guest, setup: "", twins: STAGE_2 },
    Group { name: "stage-2-forms", world: World::Guest, setup: "", twins: STAGE_2_FORMS },
    Group { name: "forms-of-both-stages", world: World::Guest, setup: "", twins: FORMS_OF_BOTH_STAGES },
    Group { name: "vmid", world: World::Guest, setup: "", twins: VMID },
    Group {
        name: "stage-1-under-stage-2",
        world: World::GuestMmuOn,
        setup: "str pte f43; str pte1 1f43",
        twins: STAGE_1_UNDER_STAGE_2,
    },
    Group { name: "guest-access", world: World::Guest, setup: "", twins: GUEST_ACCESS },
    // Last: invalidations of other PEs before it is switched on are no use to a PE.
    Group { name: "reset", world: World::Reset, setup: "", twins: RESET },
];

const RESET: &[Twin] = &[
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

const REMADE: &[Twin] = &[
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

const ORDER_AND_COMPLETION: &[Twin] = &[
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

const SCOPE_AND_OPERAND: &[Twin] = &[
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

/// Each form by address twice: for the page's address, and for another. `operand`: what follows the address.
macro_rules! by_address {
    ($($before:literal $after:literal $operand:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!(
                "str pte 0; dsb ", $before, "; tlbi ", $form, " va", $operand, "; dsb ", $after, "; str pte page:2"
            )),
            broken(
                concat!(
                    "str pte 0; dsb ", $before, "; tlbi ", $form, " va+2000", $operand, "; dsb ", $after, "; str pte page:2"
                ),
                &["remade wrong-range va+0 level 3"],
            ),
        )*)*]
    };
}

/// Each local form twice: on one PE, and on both.
macro_rules! local {
    ($($form:literal)*) => {
        &[$(
            broken(
                concat!("str pte 0; dsb ishst; tlbi ", $form, "; dsb ish; str pte page:2"),
                &["remade local-only va+0 level 3"],
            ),
            right(concat!(
                "str pte 0; dsb ishst; tlbi ", $form, "; dsb nsh; 1: tlbi ", $form, "; 1: dsb nsh; str pte page:2"
            )),
        )*]
    };
}

/// Each form of `tlbi` as a whole twice: with the right DSB in front of it, and with none.
macro_rules! as_a_whole {
    ($($before:literal $after:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!("str pte 0; dsb ", $before, "; tlbi ", $form, "; dsb ", $after, "; str pte page:2")),
            broken(
                concat!("str pte 0; tlbi ", $form, "; dsb ", $after, "; str pte page:2"),
                &["remade not-ordered va+0 level 3"],
            ),
        )*)*]
    };
}

/// Each form by IPA twice: `good` and `bad` are operands.
macro_rules! by_ipa {
    ($($before:literal $after:literal $good:literal $bad:literal $cause:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!(
                "str s2t.0 0; dsb ", $before, "; tlbi ", $form, " ", $good, "; dsb ", $after,
                "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
            )),
            broken(
                concat!(
                    "str s2t.0 0; dsb ", $before, "; tlbi ", $form, " ", $bad, "; dsb ", $after,
                    "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
                ),
                &[concat!("remade ", $cause, " 0 level 3")],
            ),
        )*)*]
    };
}

/// Each form for both stages twice: it reaches the other PE, and is completed, or not.
macro_rules! both_stages {
    ($($before:literal $good:literal $bad:literal $cause:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!("str s2t.0 0; dsb ", $before, "; tlbi ", $form, "; dsb ", $good, "; str s2t.0 s2page:2")),
            broken(
                concat!("str s2t.0 0; dsb ", $before, "; tlbi ", $form, "; dsb ", $bad, "; str s2t.0 s2page:2"),
                &[concat!("remade ", $cause, " 0 level 3")],
            ),
        )*)*]
    };
}

const FORMS_BY_ADDRESS: &[Twin] = by_address! {
    "ishst" "ish" "": "vae1is" "vaae1is" "vaale1is" "vale1isnxs" "vae1isnxs" "vaae1isnxs" "vaale1isnxs";
    "oshst" "osh" "": "vae1os" "vale1os" "vaae1os" "vaale1os";
    "ishst" "ish" "*2": "rvae1is" "rvale1is" "rvaae1is" "rvaale1is" "rvae1isnxs";
    "oshst" "osh" "*2": "rvae1os" "rvale1os" "rvaae1os" "rvaale1os";
};

const FORMS_LOCAL: &[Twin] = local! {
    "vae1 va" "vaae1 va" "vaale1 va" "aside1" "vmalle1" "rvae1 va*2" "rvale1 va*2" "rvaae1 va*2" "rvaale1 va*2"
};

const FORMS_AS_A_WHOLE: &[Twin] = as_a_whole! {
    "oshst" "osh": "aside1os" "vmalle1os";
    "ishst" "ish": "aside1isnxs" "vmalle1isnxs";
};

const EL2_FORMS: &[Twin] = by_address! {
    "ishst" "ish" "": "vale2is" "vae2is" "vale2isnxs";
    "oshst" "osh" "": "vae2os" "vale2os";
    "ishst" "ish" "*2": "rvae2is" "rvale2is";
    "oshst" "osh" "*2": "rvae2os" "rvale2os";
};

const STAGE_2_FORMS: &[Twin] = by_ipa! {
    "ishst" "ish" "ipa+0" "ipa+2000" "wrong-range": "ipas2e1is" "ipas2le1is" "ipas2e1isnxs";
    "oshst" "osh" "ipa+0" "ipa+2000" "wrong-range": "ipas2e1os" "ipas2le1os";
    "ishst" "ish" "ipa+0*2 ttl=3" "ipa+0*2 ttl=2" "wrong-ttl": "ripas2e1is" "ripas2le1is";
    "oshst" "osh" "ipa+0*2 ttl=3" "ipa+0*2 ttl=2" "wrong-ttl": "ripas2e1os" "ripas2le1os";
};

const FORMS_OF_BOTH_STAGES: &[Twin] = both_stages! {
    "oshst" "osh" "ish" "not-completed": "vmalls12e1os" "alle1os";
    "ishst" "ishnxs" "ishst" "not-completed": "vmalls12e1isnxs" "alle1isnxs";
};

const REUSED: &[Twin] = &[
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

const LIVE_CHANGE: &[Twin] = &[
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

const FEAT_BBM: &[Twin] = &[
    broken("id bbm 0; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"]),
    broken("id bbm 1; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"])
        .only_simulated(NO_LEVEL_1),
    right("id bbm 2; str pmd1 table:t2"),
    right("id bbm 3; str pmd1 table:t2").only_simulated(NO_LEVEL_3),
    // Something else in the table is another translation, whatever the level.
    broken("id bbm 2; str t2.5 page:9; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"]),
    broken("id bbm 3; str t2.5 page:9; str pmd1 table:t2", &["live-change not-broken-first va+200000 level 2"])
        .only_simulated(NO_LEVEL_3),
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

const CONTIGUOUS: &[Twin] = &[
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

const CLAIMED: &[Twin] = &[
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
    broken(
        "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; dsb ish; free t",
        &["claimed leaf-only va+0 level 2"],
    ),
    right("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; free t"),
    // What a table entry forbids all that is below it (APTable) is cached with the table entry.
    broken(
        "str pmd table:t,h; dsb ishst; tlbi vale1is va; dsb ish; claim va 1000",
        &["claimed leaf-only va+0 level 2"],
    ),
    right("str pmd table:t,h; dsb ishst; tlbi vae1is va; dsb ish; claim va 1000"),
];

const ASID: &[Twin] = &[
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
const COMMON_NOT_PRIVATE: &[Twin] = &[
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
    // The same tables, other ones under another ASID, none at all.
    right(
        "msr ttbr0_el1 a7.root.cnp; isb; str pte 0; 1: msr ttbr0_el1 a7.root.cnp; 1: isb; \
         1: msr ttbr0_el1 a8.root2.cnp; 1: isb; 1: msr ttbr0_el1 a7.empty.cnp; 1: isb",
    ),
];

// TCR.T0SZ moves the root to another level: what was cached of it says something else.
const TRANSLATION_CONTROL: &[Twin] = &[
    broken("msr tcr_el1 t0sz=19; isb", &["asid no-invalidation 0 level 0"]),
    // The same level with half the entries, beside a PE that has them all.
    broken(
        "msr ttbr0_el1 a9.empty; isb; tlbi vmalle1; dsb nsh; msr tcr_el1 t0sz=11; isb; msr ttbr0_el1 a7.root; isb; \
         1: msr ttbr0_el1 a9.empty; 1: isb; 1: tlbi vmalle1; 1: dsb nsh; str pte 0; str pte page:2",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("msr ttbr0_el1 a7.empty; isb; tlbi vmalle1; dsb nsh; msr tcr_el1 t0sz=19; isb; msr ttbr0_el1 a7.root; isb"),
    // HPD0: what table entries forbid counts no more.
    broken("msr tcr_el1 hpd0=1; isb", &["asid no-invalidation 0 level 0"]),
    right("msr tcr_el1 epd0=1; isb; tlbi vmalle1; dsb nsh; msr tcr_el1 hpd0=1; isb"),
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

// One table of pages of 64 or 16 KiB: 25 bits of address. Walks are disabled while the registers change.
const GRANULES: &[Twin] = &[
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

const HARDWARE_MANAGED: &[Twin] = &[
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

const MEMORY_ATTRIBUTES: &[Twin] = &[
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

const MMU_OFF: &[Twin] = &[
    broken(
        "msr sctlr_el1 off; isb; 1: msr sctlr_el1 off; 1: isb; str pte 0; str pte page:2",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("msr sctlr_el1 off; isb; 1: msr sctlr_el1 off; 1: isb; tlbi vmalle1is; dsb ish; str pte 0; str pte page:2"),
];

const STALE_ACCESS: &[Twin] = &[
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
    // Registers may take effect early.
    right("read va frame:0; msr ttbr0_el1 a9.empty; read va frame:0"),
];

const EL2: &[Twin] = &[
    right("str pte 0; dsb ishst; tlbi vale2is va; dsb ish; str pte page:2"),
    // Another regime's operation is none here.
    broken("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2", &["remade no-invalidation va+0 level 3"]),
    broken("str pte 0; dsb ishst; tlbi vale2 va; dsb ish; str pte page:2", &["remade local-only va+0 level 3"]),
    broken(
        "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale2is va; tlbi vale2is va+1000; dsb ish; str pmd table:t2",
        &["remade leaf-only va+0 level 2"],
    ),
    right(
        "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae2is va; tlbi vae2is va+1000; dsb ish; str pmd table:t2",
    ),
    right("str pte 0; dsb ishst; tlbi alle2is; dsb ish; str pte page:2"),
    broken("str pte 0; dsb ishst; tlbi alle1is; dsb ish; str pte page:2", &["remade no-invalidation va+0 level 3"]),
    broken("str pte page:2", &["live-change not-broken-first va+0 level 3"]),
    right("str pte 0; dsb oshst; tlbi alle2os; dsb osh; str pte page:2"),
    broken("str pte 0; dsb oshst; tlbi alle2os; dsb ish; str pte page:2", &["remade not-completed va+0 level 3"]),
    broken("str pte 0; dsb ishst; tlbi alle2; dsb ish; str pte page:2", &["remade local-only va+0 level 3"]),
    right("str pte 0; dsb ishst; tlbi vale2is va ttl=1.3; dsb ish; str pte page:2"),
    broken(
        "str pte 0; dsb ishst; tlbi vale2is va ttl=1.2; dsb ish; str pte page:2",
        &["remade wrong-ttl va+0 level 3"],
    ),
];

const EL2_ANOTHER_ROOT: &[Twin] = &[
    broken("msr ttbr0_el2 a0.root2; isb", &["asid no-invalidation 0 level 0"]),
    // The old root was walked until the new one took effect.
    broken("tlbi alle2; dsb nsh; msr ttbr0_el2 a0.root2; isb", &["asid no-invalidation 0 level 0"]),
    right("msr sctlr_el2 off; isb; tlbi alle2; dsb nsh; msr ttbr0_el2 a0.root2; msr sctlr_el2 on; isb"),
];

const EL2_HOST: &[Twin] = &[
    // With {E2H, TGE} = {1, 1} the forms of EL1 act on EL2&0.
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2"),
    broken(
        "str pte 0; dsb ishst; tlbi vale1is va asid=8; dsb ish; str pte page:2",
        &["remade wrong-asid va+0 level 3"],
    ),
    right("str pte 0; dsb ishst; tlbi vale2is va; dsb ish; str pte page:2"),
    broken(
        "str pte 0; dsb ishst; tlbi vale2is va asid=8; dsb ish; str pte page:2",
        &["remade wrong-asid va+0 level 3"],
    ),
    right("str pte 0; dsb ishst; tlbi vmalle1is; dsb ish; str pte page:2"),
    // Without TGE they act on EL1&0.
    broken(
        "msr hcr_el2 e2h; isb; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("msr hcr_el2 e2h; isb; str pte 0; dsb ishst; tlbi vale2is va; dsb ish; str pte page:2"),
];

const STAGE_2: &[Twin] = &[
    broken("str s2t.0 0; dsb ishst; str s2t.0 s2page:2", &["remade no-invalidation 0 level 3"]),
    // Combined entries survive an invalidation by IPA.
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    right("str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"),
    right("str s2t.0 0; dsb ishst; tlbi ipas2le1is ipa+0; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"),
    right("str s2t.0 0; dsb ishst; tlbi ripas2e1is ipa+0*2; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"),
    // Without the DSB between them the combined entry can be made again.
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2",
        &["remade not-completed 0 level 3"],
    ),
    broken(
        "str s2t.0 0; dsb ishst; tlbi vmalle1is; dsb ish; tlbi ipas2e1is ipa+0; dsb ish; str s2t.0 s2page:2",
        &["remade not-completed 0 level 3"],
    ),
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+1000; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2",
        &["remade wrong-range 0 level 3"],
    ),
    broken(
        "str s2t.0 0; dsb ishst; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    // Why the operation by IPA fell short is the cause, whatever VMALLE1 left combined for that.
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1 ipa+0; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2",
        &["remade local-only 0 level 3"],
    ),
    broken(
        "str s2t.0 0; tlbi ipas2e1is ipa+0; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2",
        &["remade not-ordered 0 level 3"],
    ),
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0 ttl=1.2; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2",
        &["remade wrong-ttl 0 level 3"],
    ),
    // A covering VAE1 does as well, for what stage 1 (off here) makes of the address.
    right("str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is ipa+0; dsb ish; str s2t.0 s2page:2"),
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is ipa+1000; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    right("str s2t.0 0; dsb ishst; tlbi vmalls12e1is; dsb ish; str s2t.0 s2page:2"),
    right("str s2t.0 0; dsb ishst; tlbi alle1is; dsb ish; str s2t.0 s2page:2"),
    broken("str s2t.0 0; dsb ishst; tlbi alle2is; dsb ish; str s2t.0 s2page:2", &["remade no-invalidation 0 level 3"]),
    broken("str s2t.0 s2page:2", &["live-change not-broken-first 0 level 3"]),
    broken("str s2t.0 s2page:0,u", &["live-change not-broken-first 0 level 3"]),
    right("str s2t.0 s2page:0,w; str s2t.0 s2page:0"),
    // Another VMID's operation.
    broken(
        "str s2t.0 0; dsb ishst; msr vttbr_el2 a5.s2root; isb; tlbi vmalls12e1is; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    // The 2019 bug, one stage down.
    broken(
        "str s2t.0 0; str s2t.1 0; str s2l2.0 0; dsb ishst; tlbi ipas2le1is ipa+0; tlbi ipas2le1is ipa+1000; dsb ish; \
         tlbi vmalle1is; dsb ish; str s2l2.0 table:s2t2",
        &["remade leaf-only 0 level 2"],
    ),
    right(
        "str s2t.0 0; str s2t.1 0; str s2l2.0 0; dsb ishst; tlbi ipas2e1is ipa+0; tlbi ipas2e1is ipa+1000; dsb ish; \
         tlbi vmalle1is; dsb ish; str s2l2.0 table:s2t2",
    ),
];

const VMID: &[Twin] = &[
    broken("msr vttbr_el2 a3.s2other; el 1; el 2", &["asid no-invalidation 0 level 1"]),
    right("msr vttbr_el2 a4.s2other; el 1; el 2"),
    // At EL2 a guest is put away by a write of VTTBR_EL2 and its synchronisation; before that it may still be walked.
    right("msr vttbr_el2 a4.empty; isb; tlbi alle1is; dsb ish; msr vttbr_el2 a3.s2other; el 1; el 2"),
    broken(
        "msr vttbr_el2 a4.empty; tlbi alle1is; dsb ish; msr vttbr_el2 a3.s2other; el 1; el 2",
        &["asid no-invalidation 0 level 1"],
    ),
    right(
        "msr vttbr_el2 a4.empty; el 1; el 2; msr vttbr_el2 a3.s2root; isb; tlbi vmalls12e1is; dsb ish; \
         msr vttbr_el2 a3.s2other; el 1; el 2",
    ),
];

// The leaves of stage 1 lead to the intermediate addresses 0 and 0x1000, and stage 2 leads on from there.
const STAGE_1_UNDER_STAGE_2: &[Twin] = &[
    // What stage 1 maps goes as without stage 2, by virtual address, and under the VMID.
    right("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte 1f43"),
    broken("str pte 0; str pte 1f43", &["remade no-invalidation va+0 level 3"]),
    broken(
        "str pte 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; str pte 1f43",
        &["remade no-invalidation va+0 level 3"],
    ),
    broken("str pte 0; dsb ishst; tlbi vale1is va asid=9; dsb ish; str pte 1f43", &["remade wrong-asid va+0 level 3"]),
    broken(
        "str pte 0; dsb ishst; msr vttbr_el2 a5.s2root; isb; tlbi vale1is va; dsb ish; str pte 1f43",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("str pte 0; dsb ishst; tlbi vmalls12e1is; dsb ish; str pte 1f43"),
    right("el 1; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte 1f43; el 2"),
    // HCR_EL2.FB makes its local operations broadcast, and BSU its barriers reach as far.
    broken(
        "el 1; str pte 0; dsb nshst; tlbi vale1 va; dsb nsh; str pte 1f43; el 2",
        &["remade local-only va+0 level 3"],
    ),
    broken(
        "msr hcr_el2 vm+fb; el 1; str pte 0; dsb nshst; tlbi vale1 va; dsb nsh; str pte 1f43; el 2",
        &["remade not-ordered va+0 level 3"],
    ),
    right("msr hcr_el2 vm+fb; el 1; str pte 0; dsb ishst; tlbi vale1 va; dsb ish; str pte 1f43; el 2"),
    right("msr hcr_el2 vm+fb+bsu; el 1; str pte 0; dsb nshst; tlbi vale1 va; dsb nsh; str pte 1f43; el 2"),
    // Those that EL2 executes stay as they are.
    broken(
        "msr hcr_el2 vm+fb; isb; str pte 0; dsb ishst; tlbi vale1 va; dsb ish; str pte 1f43",
        &["remade local-only va+0 level 3"],
    ),
    // The 2019 bug, in a guest.
    broken(
        "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; tlbi vale1is va+1000; dsb ish; str pmd table:t2",
        &["remade leaf-only va+0 level 2"],
    ),
    right("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; str pmd table:t2"),
    // What stage 2 maps, as part of entries that were combined with stage 1's: by virtual address, whatever ASID, TTL and leaf say.
    right("str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is va; dsb ish; str s2t.0 s2page:2"),
    right("str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vale1is va; dsb ish; str s2t.0 s2page:2"),
    right("str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vaae1is va; dsb ish; str s2t.0 s2page:2"),
    right("str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"),
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is va asid=9; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vale1is va ttl=1.2; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is va+1000; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    // A page of stage 1 is a part of a block of stage 2: what the rest was combined with stays.
    broken(
        "str s2l2.1 s2block:0; str pte2 200f43; str s2l2.1 0; dsb ishst; tlbi ipas2e1is ipa+200000; dsb ish; \
         tlbi vae1is va+2000; dsb ish; str s2l2.1 s2block:1",
        &["remade no-invalidation 200000 level 2"],
    ),
    right(
        "str s2l2.1 s2block:0; str pte2 200f43; str s2l2.1 0; dsb ishst; tlbi ipas2e1is ipa+200000; dsb ish; \
         tlbi vmalle1is; dsb ish; str s2l2.1 s2block:1",
    ),
    // The address is a virtual one, now that stage 1 is on.
    broken(
        "str s2t.0 0; dsb ishst; tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is ipa+0; dsb ish; str s2t.0 s2page:2",
        &["remade no-invalidation 0 level 3"],
    ),
    // Both halves may lead to one table.
    broken(
        "msr ttbr1_el1 a0.root; msr tcr_el1 epd1=0; el 1; el 2; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte 1f43",
        &["remade no-invalidation ffff000200000000 level 3"],
    ),
    right(
        "msr ttbr1_el1 a0.root; msr tcr_el1 epd1=0; el 1; el 2; str pte 0; dsb ishst; tlbi vale1is va; \
         tlbi vale1is ffff000200000000; dsb ish; str pte 1f43",
    ),
    // TCR.DS: an address has 52 bits, and shareability is no part of a descriptor.
    right(
        "str other.8 table:t2; str t2.0 table:empty; str empty.0 c43; str root2.0 table:other; msr ttbr0_el1 a9.root2; \
         msr tcr_el1 ds=1; el 1; read va+10 frame:0+10; el 2; str empty.0 0; dsb ishst; tlbi vale1is va asid=9 ttl=1.3; \
         dsb ish; str empty.0 1c43; dsb ish; el 1; read va+10 frame:1+10; el 2",
    ),
    broken(
        "str other.8 table:t2; str t2.0 table:empty; str empty.0 c43; str root2.0 table:other; msr ttbr0_el1 a9.root2; \
         msr tcr_el1 ds=1; el 1; el 2; str empty.0 0; dsb ishst; tlbi vale1is va asid=9 ttl=1.0; dsb ish; str empty.0 1c43",
        &["remade wrong-ttl va+0 level 3"],
    ),
    // Accesses go through both.
    right("el 1; read va+10 frame:0+10; read va+1010 frame:1+10; el 2"),
    broken("el 1; read va+10 frame:1+10; el 2", &["stale-access no-invalidation va+0 level 3"]).only_simulated(WRONG),
    // The root of stage 2 is another one, and so the PE should find nothing there.
    broken(
        "el 1; read va+10 frame:0+10; el 2; msr vttbr_el2 a3.s2other; el 1; read va+10 frame:0+10; el 2",
        &["asid no-invalidation 0 level 1", "stale-access no-invalidation va+0 level 3"],
    ),
    right("el 1; read va+10 frame:0+10; el 2; str s2t.0 0; dsb ishst; el 1; read va+10 frame:0+10; el 2"),
    right("el 1; read va+10 frame:0+10; el 2; str pte 0; dsb ishst; el 1; read va+10 frame:0+10; el 2"),
];

// Stage 1 is off: the address is an intermediate one.
const GUEST_ACCESS: &[Twin] = &[
    right("el 1; read ipa+10 frame:0+10; el 2"),
    // The root is another one, and so the PE should find nothing there.
    broken(
        "el 1; read ipa+10 frame:0+10; el 2; msr vttbr_el2 a3.s2other; el 1; read ipa+10 frame:0+10; el 2",
        &["asid no-invalidation 0 level 1", "stale-access no-invalidation 0 level 3"],
    ),
    right(
        "el 1; read ipa+10 frame:0+10; el 2; msr vttbr_el2 a5.s2other; isb; tlbi alle1is; dsb ish; msr vttbr_el2 a3.s2other; \
         el 1; read ipa+10 fault; el 2",
    ),
    broken("el 1; read ipa+10 frame:1+10; el 2", &["stale-access no-invalidation 0 level 3"]).only_simulated(WRONG),
    right("el 1; read ipa+10 frame:0+10; el 2; str s2t.0 0; dsb ishst; el 1; read ipa+10 frame:0+10; el 2"),
];
