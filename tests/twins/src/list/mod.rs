//! The list: the groups, and what their cases begin with. The sequences stand in the rooms beside, by what they are about.

mod changes;
mod el2;
mod forms;
mod guest;
mod registers;

use crate::{Group, Twin, World};
use changes::{CLAIMED, CONTIGUOUS, FEAT_BBM, LIVE_CHANGE, ORDER_AND_COMPLETION, REMADE, REUSED, SCOPE_AND_OPERAND};
use el2::{EL2, EL2_ANOTHER_ROOT, EL2_CONTROLS, EL2_HOST, RESET_EL2};
use forms::{
    EL2_FORMS_AS_A_WHOLE, EL2_FORMS_BY_ADDRESS, FORMS_AS_A_WHOLE, FORMS_BY_ADDRESS, FORMS_OF_BOTH_STAGES, STAGE_2_FORMS,
};
use guest::{GUEST_ACCESS, LPA2, LPA2_STAGE_2, STAGE_1_UNDER_STAGE_2, STAGE_2, VMID};
use registers::{
    ASID, CACHED_CONTROLS, COMMON_NOT_PRIVATE, GRANULES, HARDWARE_MANAGED, MEMORY_ATTRIBUTES, MMU_OFF, RESET,
    STALE_ACCESS, TRANSLATION_CONTROL,
};

/// What every case on a PE begins with, so that the checker shows that it is awake: an entry goes, in the right way. It begins and
/// ends at EL1 in an address space of the caller's.
pub const HEARTBEAT: [&str; 2] = [
    "str t.1ff page:1f; msr ttbr0_el1 a7.root; isb; str t.1ff 0; dsb ishst; tlbi vale1is va+1ff000; dsb ish; isb",
    "tlbi vmalle1is; dsb ish; isb",
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
    Group { name: "cached-controls", world: World::GuestMmuOn, setup: "", twins: CACHED_CONTROLS },
    Group { name: "granules", world: World::El1, setup: "str t2.4 page:10", twins: GRANULES },
    Group { name: "hardware-managed", world: World::El1, setup: "", twins: HARDWARE_MANAGED },
    Group { name: "memory-attributes", world: World::El1Flat, setup: "", twins: MEMORY_ATTRIBUTES },
    Group { name: "mmu-off", world: World::El1Flat, setup: "", twins: MMU_OFF },
    Group { name: "stale-access", world: World::El1, setup: "str pte page:0,k", twins: STALE_ACCESS },
    Group { name: "el2", world: World::El2, setup: "", twins: EL2 },
    Group { name: "el2-forms-by-address", world: World::El2, setup: "", twins: EL2_FORMS_BY_ADDRESS },
    Group { name: "el2-forms-as-a-whole", world: World::El2, setup: "", twins: EL2_FORMS_AS_A_WHOLE },
    Group { name: "el2-another-root", world: World::El2, setup: "str root2.0 table:other", twins: EL2_ANOTHER_ROOT },
    Group { name: "el2-controls", world: World::El2, setup: "", twins: EL2_CONTROLS },
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
    Group {
        name: "lpa2",
        world: World::GuestMmuOn,
        setup: "str k16l1.0 401; str k16l1.1 table:k16l2; str k16l2.0 table:k16t; str k16t.4 page:10,l",
        twins: LPA2,
    },
    Group {
        name: "lpa2-stage-2",
        world: World::Guest,
        setup: "str root.0 4fd; str root.1 table:l1; str pud 0; str l1.0 table:l2; str t.0 s2page:0,l; str t.1 s2page:1,l; \
                str root2.0 table:root; \
                str k16l1.0 4fd; str k16l1.1 table:k16l2; str k16l2.0 table:k16t; str k16t.4 s2page:10,l",
        twins: LPA2_STAGE_2,
    },
    Group { name: "guest-access", world: World::Guest, setup: "", twins: GUEST_ACCESS },
    // Last: invalidations of other PEs before it is switched on are no use to a PE.
    Group { name: "reset", world: World::Reset, setup: "", twins: RESET },
    Group { name: "reset-el2", world: World::ResetEl2, setup: "", twins: RESET_EL2 },
];
