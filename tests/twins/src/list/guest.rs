//! Guests: stage 2, and stage 1 under it.

use super::{FORGETS, WRONG, broken, right};
use crate::Twin;

pub(super) const STAGE_2: &[Twin] = &[
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

pub(super) const VMID: &[Twin] = &[
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
    // One VMID for two stages 2 on two PEs: with CnP they share entries, without it they do not.
    broken(
        "msr vttbr_el2 a5.s2root.cnp; el 1; el 2; 1: msr vttbr_el2 a5.s2other.cnp; 1: el 1; 1: el 2",
        &["asid no-invalidation 0 level 1"],
    ),
    right("msr vttbr_el2 a5.s2root; el 1; el 2; 1: msr vttbr_el2 a5.s2other; 1: el 1; 1: el 2"),
    right("msr vttbr_el2 a5.s2root.cnp; el 1; el 2; 1: msr vttbr_el2 a5.s2other; 1: el 1; 1: el 2"),
    right("msr vttbr_el2 a5.s2root.cnp; el 1; el 2; 1: msr vttbr_el2 a6.s2other.cnp; 1: el 1; 1: el 2"),
];

// The leaves of stage 1 lead to the intermediate addresses 0 and 0x1000, and stage 2 leads on from there.
pub(super) const STAGE_1_UNDER_STAGE_2: &[Twin] = &[
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
    broken(
        "msr hcr_el2 vm+bsu; isb; str pte 0; dsb nshst; tlbi vale1is va; dsb ish; str pte 1f43",
        &["remade not-ordered va+0 level 3"],
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
    // The operand of a range counts 64 KiB then, whatever the pages.
    broken(
        "str other.8 table:t2; str t2.0 table:empty; str empty.0 c43; str root2.0 table:other; msr ttbr0_el1 a9.root2; \
         msr tcr_el1 ds=1; el 1; el 2; str empty.0 0; dsb ishst; tlbi rvale1is va*2 asid=9; dsb ish; str empty.0 1c43",
        &["remade wrong-range va+0 level 3"],
    ),
    right(
        "str other.8 table:t2; str t2.0 table:empty; str empty.0 c43; str root2.0 table:other; msr ttbr0_el1 a9.root2; \
         msr tcr_el1 ds=1; el 1; el 2; str empty.0 0; dsb ishst; tlbi rvale1is va*2 ds asid=9; dsb ish; str empty.0 1c43",
    ),
    // Memory attributes are another guest's.
    broken("msr mair_el1 attr0=44; el 1; el 2", &["live-change not-broken-first 0 whole"]),
    right("msr vttbr_el2 a5.s2root; msr mair_el1 attr0=44; el 1; el 2"),
    // The same tables read in another way.
    broken(
        "str root2.0 table:other; msr ttbr0_el1 a9.root2; el 1; el 2; msr tcr_el1 ds=1; el 1; el 2",
        &["asid no-invalidation 0 level 0"],
    ),
    right(
        "str root2.0 table:other; msr ttbr0_el1 a9.root2; el 1; el 2; msr tcr_el1 ds=1; isb; tlbi aside1is asid=9; dsb ish; \
         el 1; el 2",
    ),
    // Accesses go through both.
    right("el 1; read va+10 frame:0+10; read va+1010 frame:1+10; el 2"),
    broken("el 1; read va+10 frame:1+10; el 2", &["stale-access no-invalidation va+0 level 3"]).only_simulated(WRONG),
    // After a verdict about stage 2 its guest's accesses say nothing new.
    broken(
        "el 1; read va+10 frame:0+10; el 2; str s2t.0 s2page:2; el 1; read va+10 frame:0+10; el 2",
        &["live-change not-broken-first 0 level 3"],
    ),
    // What was combined and is gone from this PE, or is another guest's, explains no address.
    broken(
        "str s2t.0 0; dsb ishst; tlbi vmalls12e1; dsb nsh; el 1; read va+10 frame:0+10; el 2",
        &["stale-access no-invalidation va+0 level 3"],
    )
    .only_simulated(FORGETS),
    broken(
        "str s2t2.0 table:t2; str t2.5 s2page:5; msr vttbr_el2 a5.s2other; el 1; el 2; str t2.5 0; msr vttbr_el2 a3.s2root; el 1; \
         read va+10 frame:5+10; el 2",
        &["stale-access no-invalidation va+0 level 3"],
    )
    .only_simulated(WRONG),
    // A stale table entry with nothing below it explains no address.
    broken(
        "str pmd1 table:t2; str pmd1 0; el 1; read va+200010 frame:5+10; el 2",
        &["stale-access no-invalidation va+200000 level 3"],
    )
    .only_simulated(WRONG),
    // Where the old entry led through stage 2 is not known.
    right(
        "id ets2 0; el 1; str pte2 f03; str pte2 0; dsb ishst; tlbi vale1is va+2000; dsb ish; str pte2 1f03; dsb ish; \
         read va+2010 frame:1+10; el 2",
    ),
    // The root of stage 2 is another one, and so the PE should find nothing there.
    broken(
        "el 1; read va+10 frame:0+10; el 2; msr vttbr_el2 a3.s2other; el 1; read va+10 frame:0+10; el 2",
        &["asid no-invalidation 0 level 1", "stale-access no-invalidation va+0 level 3"],
    ),
    right("el 1; read va+10 frame:0+10; el 2; str s2t.0 0; dsb ishst; el 1; read va+10 frame:0+10; el 2"),
    right("el 1; read va+10 frame:0+10; el 2; str pte 0; dsb ishst; el 1; read va+10 frame:0+10; el 2"),
];

// FEAT_LPA2 with pages of 16 KiB: 39 bits from level 1, and the code in a block of 64 GiB.
pub(super) const LPA2: &[Twin] = &[
    right(
        "msr tcr_el1 ds=1,tg0=2,t0sz=19; msr ttbr0_el1 a9.k16l1; el 1; read 1000010010 frame:10+10; el 2; \
         str k16t.4 0; dsb ishst; tlbi rvale1is 1000010000*2 tg=2 ds ttl=3 asid=9; dsb ish; str k16t.4 page:20,l; dsb ish; \
         el 1; read 1000010010 frame:20+10; el 2",
    ),
    broken(
        "msr tcr_el1 ds=1,tg0=2,t0sz=19; msr ttbr0_el1 a9.k16l1; el 1; el 2; \
         str k16t.4 0; dsb ishst; tlbi rvale1is 1000010000*2 tg=2 ttl=3 asid=9; dsb ish; str k16t.4 page:20,l",
        &["remade wrong-range 1000010000 level 3 size 4000"],
    ),
    // A range of pages of 4 KiB removes none of 16 KiB.
    broken(
        "msr tcr_el1 ds=1,tg0=2,t0sz=19; msr ttbr0_el1 a9.k16l1; el 1; el 2; \
         str k16t.4 0; dsb ishst; tlbi rvale1is 1000010000*8 ds ttl=3 asid=9; dsb ish; str k16t.4 page:20,l",
        &["remade wrong-ttl 1000010000 level 3 size 4000"],
    ),
    right(
        "msr tcr_el1 ds=1,tg0=2,t0sz=19; msr ttbr0_el1 a9.k16l1; el 1; el 2; \
         str k16t.4 0; dsb ishst; tlbi vale1is 1000010000 ttl=2.3 asid=9; dsb ish; str k16t.4 page:20,l",
    ),
    // Level 1 has blocks, so it is a hint.
    broken(
        "msr tcr_el1 ds=1,tg0=2,t0sz=19; msr ttbr0_el1 a9.k16l1; el 1; el 2; \
         str k16t.4 0; dsb ishst; tlbi vale1is 1000010000 ttl=2.1 asid=9; dsb ish; str k16t.4 page:20,l",
        &["remade wrong-ttl 1000010000 level 3 size 4000"],
    ),
    right(
        "msr tcr_el1 ds=1,tg0=2,t0sz=19; msr ttbr0_el1 a9.k16l1; el 1; el 2; str k16l1.2 401; str k16l1.2 0; \
         dsb ishst; tlbi vale1is 2000000000 ttl=2.1 asid=9; dsb ish; str k16l1.2 table:k16l2",
    ),
    broken(
        "msr tcr_el1 ds=1,tg0=2,t0sz=19; msr ttbr0_el1 a9.k16l1; el 1; el 2; str k16l1.2 401; str k16l1.2 0; \
         dsb ishst; tlbi vale1is 2000000000 ttl=2.2 asid=9; dsb ish; str k16l1.2 table:k16l2",
        &["remade wrong-ttl 2000000000 level 1 size 1000000000"],
    ),
];

// The same at stage 2: 4 KiB from level 0 (48 bits, the code in a block of 512 GiB) or by SL2 from level -1, 16 KiB from level 1.
pub(super) const LPA2_STAGE_2: &[Twin] = &[
    right(
        "msr vtcr_el2 ds=1,sl0=2,t0sz=10; msr vttbr_el2 a5.root; el 1; read 8000000010 frame:0+10; el 2; \
         str t.0 0; dsb ishst; tlbi ripas2le1is 8000000000*2 ds ttl=3; dsb ish; tlbi vmalle1is; dsb ish; \
         str t.0 s2page:2,l; dsb ish; el 1; read 8000000010 frame:2+10; el 2",
    ),
    broken(
        "msr vtcr_el2 ds=1,sl0=2,t0sz=10; msr vttbr_el2 a5.root; el 1; el 2; \
         str t.0 0; dsb ishst; tlbi ripas2le1is 8000000000*2 ttl=3; dsb ish; tlbi vmalle1is; dsb ish; str t.0 s2page:2,l",
        &["remade wrong-range 8000000000 level 3"],
    ),
    // Blocks of level 0.
    right(
        "msr vtcr_el2 ds=1,sl0=2,t0sz=10; msr vttbr_el2 a5.root; el 1; el 2; str root.2 4fd; str root.2 0; \
         dsb ishst; tlbi ipas2le1is 10000000000 ttl=1.0; dsb ish; tlbi vmalle1is; dsb ish; str root.2 table:l1",
    ),
    broken(
        "msr vtcr_el2 ds=1,sl0=2,t0sz=10; msr vttbr_el2 a5.root; el 1; el 2; str root.2 4fd; str root.2 0; \
         dsb ishst; tlbi ipas2le1is 10000000000 ttl=1.1; dsb ish; tlbi vmalle1is; dsb ish; str root.2 table:l1",
        &["remade wrong-ttl 10000000000 level 0"],
    ),
    // SL2.
    right(
        "msr vtcr_el2 ds=1,sl2=1,sl0=0,t0sz=c; msr vttbr_el2 a5.root2; el 1; read 8000001010 frame:1+10; el 2; \
         str t.1 0; dsb ishst; tlbi ipas2le1is 8000001000 ttl=1.3; dsb ish; tlbi vmalle1is; dsb ish; \
         str t.1 s2page:2,l; dsb ish; el 1; read 8000001010 frame:2+10; el 2",
    ),
    broken(
        "msr vtcr_el2 ds=1,sl2=1,sl0=0,t0sz=c; msr vttbr_el2 a5.root2; el 1; el 2; \
         str t.1 0; dsb ishst; tlbi ipas2le1is 8000001000 ttl=1.0; dsb ish; tlbi vmalle1is; dsb ish; str t.1 s2page:2,l",
        &["remade wrong-ttl 8000001000 level 3"],
    ),
    // Pages of 16 KiB.
    right(
        "msr vtcr_el2 ds=1,tg0=2,sl0=2,t0sz=19; msr vttbr_el2 a5.k16l1; el 1; read 1000010010 frame:10+10; el 2; \
         str k16t.4 0; dsb ishst; tlbi ripas2le1is 1000010000*2 tg=2 ds ttl=3; dsb ish; tlbi vmalle1is; dsb ish; \
         str k16t.4 s2page:20,l; dsb ish; el 1; read 1000010010 frame:20+10; el 2",
    ),
    broken(
        "msr vtcr_el2 ds=1,tg0=2,sl0=2,t0sz=19; msr vttbr_el2 a5.k16l1; el 1; el 2; \
         str k16t.4 0; dsb ishst; tlbi ripas2le1is 1000010000*2 tg=2 ttl=3; dsb ish; tlbi vmalle1is; dsb ish; \
         str k16t.4 s2page:20,l",
        &["remade wrong-range 1000010000 level 3 size 4000"],
    ),
    right(
        "msr vtcr_el2 ds=1,tg0=2,sl0=2,t0sz=19; msr vttbr_el2 a5.k16l1; el 1; el 2; \
         str k16t.4 0; dsb ishst; tlbi ipas2le1is 1000010000 ttl=2.3; dsb ish; tlbi vmalle1is; dsb ish; str k16t.4 s2page:20,l",
    ),
    broken(
        "msr vtcr_el2 ds=1,tg0=2,sl0=2,t0sz=19; msr vttbr_el2 a5.k16l1; el 1; el 2; \
         str k16t.4 0; dsb ishst; tlbi ipas2le1is 1000010000 ttl=2.1; dsb ish; tlbi vmalle1is; dsb ish; str k16t.4 s2page:20,l",
        &["remade wrong-ttl 1000010000 level 3 size 4000"],
    ),
];

// Stage 1 is off: the address is an intermediate one.
pub(super) const GUEST_ACCESS: &[Twin] = &[
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
    // A verdict about one guest says nothing of another's accesses.
    broken(
        "str s2t.0 s2page:2; msr vttbr_el2 a5.s2root; el 1; read ipa+10 frame:0+10; el 2",
        &["live-change not-broken-first 0 level 3", "stale-access no-invalidation 0 level 3"],
    )
    .only_simulated(WRONG),
    broken("el 1; read ipa+10 frame:1+10; el 2", &["stale-access no-invalidation 0 level 3"]).only_simulated(WRONG),
    right("el 1; read ipa+10 frame:0+10; el 2; str s2t.0 0; dsb ishst; el 1; read ipa+10 frame:0+10; el 2"),
];
