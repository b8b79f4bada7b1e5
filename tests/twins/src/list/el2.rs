//! The regimes of EL2.

use super::{broken, right};
use crate::Twin;

pub(super) const EL2: &[Twin] = &[
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

pub(super) const EL2_ANOTHER_ROOT: &[Twin] = &[
    broken("msr ttbr0_el2 a0.root2; isb", &["asid no-invalidation 0 level 0"]),
    // The old root was walked until the new one took effect.
    broken("tlbi alle2; dsb nsh; msr ttbr0_el2 a0.root2; isb", &["asid no-invalidation 0 level 0"]),
    right("msr sctlr_el2 off; isb; tlbi alle2; dsb nsh; msr ttbr0_el2 a0.root2; msr sctlr_el2 on; isb"),
    // On the other PE other tables: with CnP it finds what this one has cached.
    broken(
        "msr ttbr0_el2 a0.root.cnp; isb; 1: msr sctlr_el2 off; 1: isb; 1: tlbi alle2; 1: dsb nsh; \
         1: msr ttbr0_el2 a0.root2.cnp; 1: msr sctlr_el2 on; 1: isb",
        &["asid no-invalidation 0 level 0"],
    ),
    right(
        "msr ttbr0_el2 a0.root.cnp; isb; 1: msr sctlr_el2 off; 1: isb; 1: tlbi alle2; 1: dsb nsh; \
         1: msr ttbr0_el2 a0.root2; 1: msr sctlr_el2 on; 1: isb",
    ),
];

pub(super) const RESET_EL2: &[Twin] = &[
    broken(
        "reset 2; msr tcr_el2 t0sz=10; msr ttbr0_el2 a0.root; msr sctlr_el2 on; isb",
        &["asid no-invalidation 0 whole"],
    ),
    // That is EL1&0's.
    broken(
        "reset 2; tlbi alle1; dsb nsh; msr tcr_el2 t0sz=10; msr ttbr0_el2 a0.root; msr sctlr_el2 on; isb",
        &["asid no-invalidation 0 whole"],
    ),
    right("reset 2; tlbi alle2; dsb nsh; msr tcr_el2 t0sz=10; msr ttbr0_el2 a0.root; msr sctlr_el2 on; isb"),
];

// As permissions, these change in place.
pub(super) const EL2_CONTROLS: &[Twin] = &[
    broken("msr sctlr_el2 on,wxn=1; isb; isb", &["asid no-invalidation 0 level 0"]),
    broken("msr sctlr_el2 on,wxn=1; isb; tlbi alle1; dsb nsh; isb", &["asid no-invalidation 0 level 0"]),
    right("msr sctlr_el2 on,wxn=1; isb; tlbi alle2; dsb nsh; isb"),
    // EPAN is RES0 where there is no EL0.
    right("msr sctlr_el2 on,epan=1; isb; isb"),
    broken("msr tcr_el2 ps=1; isb; isb", &["asid no-invalidation 0 level 0"]),
    right("msr tcr_el2 ps=1; isb; tlbi alle2; dsb nsh; isb"),
];

pub(super) const EL2_HOST: &[Twin] = &[
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
    // One ASID for two spaces on two PEs: with CnP they share entries, without it they do not.
    broken(
        "str root2.0 table:other; msr ttbr0_el2 a8.root.cnp; isb; 1: msr ttbr0_el2 a8.root2.cnp; 1: isb",
        &["asid no-invalidation 0 level 0"],
    ),
    right("str root2.0 table:other; msr ttbr0_el2 a8.root; isb; 1: msr ttbr0_el2 a8.root2; 1: isb"),
    right("str root2.0 table:other; msr ttbr0_el2 a8.root.cnp; isb; 1: msr ttbr0_el2 a9.root2.cnp; 1: isb"),
    // Without TGE they act on EL1&0.
    broken(
        "msr hcr_el2 e2h; isb; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2",
        &["remade no-invalidation va+0 level 3"],
    ),
    right("msr hcr_el2 e2h; isb; str pte 0; dsb ishst; tlbi vale2is va; dsb ish; str pte page:2"),
    // EL0 is part of the regime.
    broken("msr sctlr_el2 on,epan=1; isb; isb", &["asid no-invalidation 0 level 0"]),
    right("msr sctlr_el2 on,epan=1; isb; tlbi vmalle1; dsb nsh; isb"),
];
