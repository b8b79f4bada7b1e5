//! The rules in the regimes of EL2 and in stage 2: sequences that break them, each beside its twin that is right.

mod sequence;

use sequence::{guest, run, twins};

const RIGHT: &[&str] = &[];

#[test]
fn el2_single() {
    twins(
        || sequence::el2(false),
        &[
            ("str pte 0; dsb ishst; tlbi vale2is va; dsb ish; str pte page:2", RIGHT),
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2", &["remade no-invalidation @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale2 va; dsb ish; str pte page:2", &["remade local-only @0 level 3"]),
            (
                "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale2is va; tlbi vale2is va+1000; dsb ish; str pmd table:t2",
                &["remade leaf-only @0 level 2"],
            ),
            (
                "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae2is va; tlbi vae2is va+1000; dsb ish; str pmd table:t2",
                RIGHT,
            ),
            ("str pte 0; dsb ishst; tlbi alle2is; dsb ish; str pte page:2", RIGHT),
            ("str pte page:2", &["live-change not-broken-first @0 level 3"]),
        ],
    );
}

#[test]
fn el2_with_two_halves() {
    twins(
        || sequence::el2(true),
        &[
            // With {E2H, TGE} = {1, 1} the forms of EL1 act on EL2&0.
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2", RIGHT),
            (
                "str pte 0; dsb ishst; tlbi vale1is va asid=8; dsb ish; str pte page:2",
                &["remade wrong-asid @0 level 3"],
            ),
            ("str pte 0; dsb ishst; tlbi vale2is va; dsb ish; str pte page:2", RIGHT),
            (
                "str pte 0; dsb ishst; tlbi vale2is va asid=8; dsb ish; str pte page:2",
                &["remade wrong-asid @0 level 3"],
            ),
            ("str pte 0; dsb ishst; tlbi vmalle1is; dsb ish; str pte page:2", RIGHT),
            // Without TGE they act on EL1&0.
            (
                "msr hcr_el2 400000000; isb; str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2",
                &["remade no-invalidation @0 level 3"],
            ),
        ],
    );
}

#[test]
fn stage_2() {
    let unmap = "str s2t.0 0; dsb ishst; ";
    let case = |steps: &str| format!("{unmap}{steps}; str s2t.0 s2page:2");
    let cases = [
        (case(""), &["remade no-invalidation @0 level 3"][..]),
        // Combined entries survive an invalidation by IPA.
        (case("tlbi ipas2e1is ipa+0; dsb ish"), &["remade no-invalidation @0 level 3"]),
        (case("tlbi ipas2e1is ipa+0; dsb ish; tlbi vmalle1is; dsb ish"), RIGHT),
        (case("tlbi ipas2le1is ipa+0; dsb ish; tlbi vmalle1is; dsb ish"), RIGHT),
        (case("tlbi ripas2e1is ipa+0*2; dsb ish; tlbi vmalle1is; dsb ish"), RIGHT),
        // Without the DSB between them the combined entry can be made again.
        (case("tlbi ipas2e1is ipa+0; tlbi vmalle1is; dsb ish"), &["remade not-completed @0 level 3"]),
        (case("tlbi vmalle1is; dsb ish; tlbi ipas2e1is ipa+0; dsb ish"), &["remade not-completed @0 level 3"]),
        (case("tlbi ipas2e1is ipa+1000; dsb ish; tlbi vmalle1is; dsb ish"), &["remade not-completed @0 level 3"]),
        // A covering VAE1 does as well, for what stage 1 (off here) makes of the address.
        (case("tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is ipa+0; dsb ish"), RIGHT),
        (case("tlbi ipas2e1is ipa+0; dsb ish; tlbi vae1is ipa+1000; dsb ish"), &["remade no-invalidation @0 level 3"]),
        (case("tlbi vmalls12e1is; dsb ish"), RIGHT),
        (case("tlbi alle1is; dsb ish"), RIGHT),
        (case("tlbi alle2is; dsb ish"), &["remade no-invalidation @0 level 3"]),
        ("str s2t.0 s2page:2".to_owned(), &["live-change not-broken-first @0 level 3"]),
        ("str s2t.0 s2page:0,w; str s2t.0 s2page:0".to_owned(), RIGHT),
        // Another VMID's operation.
        (case("el 2; msr vttbr_el2 a5.s2root; isb; tlbi vmalls12e1is; dsb ish"), &["remade no-invalidation @0 level 3"]),
        // The 2019 bug, one stage down.
        (
            "str s2t.0 0; str s2t.1 0; str s2l2.0 0; dsb ishst; tlbi ipas2le1is ipa+0; tlbi ipas2le1is ipa+1000; dsb ish; \
             tlbi vmalle1is; dsb ish; str s2l2.0 table:s2t2"
                .to_owned(),
            &["remade leaf-only @0 level 2"],
        ),
    ];
    let cases: Vec<(&str, &[&str])> = cases.iter().map(|(text, expected)| (text.as_str(), *expected)).collect();
    twins(guest, &cases);
}

#[test]
fn vmid() {
    let change = |flush: &str, vmid: &str| format!("el 2; {flush} msr vttbr_el2 a{vmid}.s2other; el 1");
    let cases = [
        (change("", "3"), &["asid no-invalidation @0 level 1"][..]),
        (change("", "4"), RIGHT),
        (
            change(
                "msr vttbr_el2 a4.empty; el 1; el 2; msr vttbr_el2 a3.s2root; isb; tlbi vmalls12e1is; dsb ish;",
                "3",
            ),
            RIGHT,
        ),
    ];
    let cases: Vec<(&str, &[&str])> = cases.iter().map(|(text, expected)| (text.as_str(), *expected)).collect();
    twins(
        || {
            let mut m = guest();
            run(&mut m, "str s2other.0 table:s2t2");
            m
        },
        &cases,
    );
}

#[test]
fn el2_another_root() {
    let other = "str root2.0 table:other; ";
    let live = format!("{other} msr ttbr0_el2 a0.root2; isb");
    let flushed_while_live = format!("{other} tlbi alle2; dsb nsh; msr ttbr0_el2 a0.root2; isb");
    let off =
        format!("{other} msr sctlr_el2 0; isb; tlbi alle2; dsb nsh; msr ttbr0_el2 a0.root2; msr sctlr_el2 1; isb");
    let clash: &[&str] = &["asid no-invalidation @0 level 0"];
    twins(
        || sequence::el2(false),
        &[
            (live.as_str(), clash),
            // The old root was walked until the new one took effect.
            (flushed_while_live.as_str(), clash),
            (off.as_str(), RIGHT),
        ],
    );
}

#[test]
fn guest_accesses() {
    // Stage 1 off: the address is an intermediate one.
    twins(
        guest,
        &[
            ("read ipa+10 frame:0+10", RIGHT),
            ("read ipa+10 frame:1+10", &["stale-access no-invalidation @0 level 3"]),
            ("str s2t.0 0; dsb ishst; read ipa+10 frame:0+10", RIGHT),
        ],
    );
}
