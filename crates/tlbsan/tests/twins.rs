//! Every rule in EL1&0: sequences that break it, each beside its twin that is right. The name of a test point is its sequence.

mod sequence;

use sequence::{el1, run, tables, twins, verdicts};
use tlbsan::report::{Record, Severity};

const RIGHT: &[&str] = &[];

#[test]
fn remade() {
    twins(
        el1,
        &[
            ("str pte 0; str pte page:2", &["remade no-invalidation @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; str pte page:2", &["remade not-completed @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2", RIGHT),
            // The 2019 bug.
            (
                "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; tlbi vale1is va+1000; dsb ish; str pmd table:t2",
                &["remade leaf-only @0 level 2"],
            ),
            ("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; str pmd table:t2", RIGHT),
            // A block where pages were, and pages where a block was.
            (
                "str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; str pmd block:0",
                &["remade no-invalidation @1000 level 3"],
            ),
            ("str pmd 0; dsb ishst; tlbi aside1is; dsb ish; str pmd block:0", RIGHT),
            (
                "str pmd1 block:0; str pmd1 0; dsb ishst; tlbi vale1is va; dsb ish; str t2.0 page:3; str pmd1 table:t2",
                &["remade wrong-range @200000 level 2"],
            ),
            (
                "str pmd1 block:0; str pmd1 0; dsb ishst; tlbi vale1is va+3ff000; dsb ish; str t2.0 page:3; str pmd1 table:t2",
                RIGHT,
            ),
        ],
    );
}

#[test]
fn order_and_completion() {
    twins(
        el1,
        &[
            ("str pte 0; tlbi vale1is va; dsb ish; str pte page:2", &["remade not-ordered @0 level 3"]),
            ("str pte 0; dsb nshst; tlbi vale1is va; dsb ish; str pte page:2", &["remade not-ordered @0 level 3"]),
            ("str pte 0; dsb ishld; tlbi vale1is va; dsb ish; str pte page:2", &["remade not-ordered @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ishst; str pte page:2", &["remade not-completed @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ishld; str pte page:2", &["remade not-completed @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb nsh; str pte page:2", &["remade not-completed @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; 1: dsb ish; str pte page:2", &["remade not-completed @0 level 3"]),
            // Whoever has read the entry orders the store as well, with a DSB after the read.
            ("str pte 0; 1: ldr pte; 1: dsb ish; 1: tlbi vale1is va; 1: dsb ish; str pte page:2", RIGHT),
            (
                "str pte 0; 1: dsb ish; 1: ldr pte; 1: tlbi vale1is va; 1: dsb ish; str pte page:2",
                &["remade not-ordered @0 level 3"],
            ),
            (
                "1: ldr pte; str pte 0; 1: dsb ish; 1: tlbi vale1is va; 1: dsb ish; str pte page:2",
                &["remade not-ordered @0 level 3"],
            ),
            // An unrelated TLBI between store and DSB does no harm.
            ("str pte 0; tlbi vale1is va+5000; dsb ishst; tlbi vale1is va; dsb ish; str pte page:2", RIGHT),
            // Outer shareable forms want osh.
            ("str pte 0; dsb ishst; tlbi vale1os va; dsb osh; str pte page:2", &["remade not-ordered @0 level 3"]),
            ("str pte 0; dsb oshst; tlbi vale1os va; dsb ish; str pte page:2", &["remade not-completed @0 level 3"]),
            ("str pte 0; dsb oshst; tlbi vale1os va; dsb osh; str pte page:2", RIGHT),
            ("str pte 0; dsb ishst; dsb oshst; tlbi vale1os va; dsb sy; str pte page:2", RIGHT),
            // nXS forms complete by either DSB, others by the plain one only.
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ishnxs; str pte page:2", &["remade not-completed @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1isnxs va; dsb ishnxs; str pte page:2", RIGHT),
            ("str pte 0; dsb ishst; tlbi vale1isnxs va; dsb ish; str pte page:2", RIGHT),
        ],
    );
}

#[test]
fn scope_and_operand() {
    twins(
        el1,
        &[
            ("str pte 0; dsb ishst; tlbi vale1 va; dsb ish; str pte page:2", &["remade local-only @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1 va; dsb nsh; 1: tlbi vale1 va; 1: dsb nsh; str pte page:2", RIGHT),
            ("str pte 0; dsb ishst; tlbi vale1is va+1000; dsb ish; str pte page:2", &["remade wrong-range @0 level 3"]),
            (
                "str pte 0; dsb ishst; tlbi vale1is va asid=8; dsb ish; str pte page:2",
                &["remade wrong-asid @0 level 3"],
            ),
            ("str pte 0; dsb ishst; tlbi aside1is asid=8; dsb ish; str pte page:2", &["remade wrong-asid @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vaale1is va; dsb ish; str pte page:2", RIGHT),
            ("str pte 0; dsb ishst; tlbi vmalle1is; dsb ish; str pte page:2", RIGHT),
            ("str pte 0; dsb ishst; tlbi aside1is; dsb ish; str pte page:2", RIGHT),
            // TTL: granule and level.
            (
                "str pte 0; dsb ishst; tlbi vale1is va ttl=1.2; dsb ish; str pte page:2",
                &["remade wrong-ttl @0 level 3"],
            ),
            (
                "str pte 0; dsb ishst; tlbi vale1is va ttl=2.3; dsb ish; str pte page:2",
                &["remade wrong-ttl @0 level 3"],
            ),
            ("str pte 0; dsb ishst; tlbi vale1is va ttl=1.3; dsb ish; str pte page:2", RIGHT),
            // Ranges.
            (
                "str pte 0; dsb ishst; tlbi rvale1is va+1000*2; dsb ish; str pte page:2",
                &["remade wrong-range @0 level 3"],
            ),
            (
                "str pte 0; dsb ishst; tlbi rvale1is va*2 ttl=2; dsb ish; str pte page:2",
                &["remade wrong-ttl @0 level 3"],
            ),
            ("str pte 0; dsb ishst; tlbi rvale1is va*2 ttl=3; dsb ish; str pte page:2", RIGHT),
            ("str pte 0; str pte1 0; dsb ishst; tlbi rvale1is va*2; dsb ish; str pte page:2; str pte1 page:3", RIGHT),
            ("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi rvae1is va*2; dsb ish; str pmd table:t2", RIGHT),
            // Globals survive operations by ASID, and by address no ASID is too wrong for them.
            (
                "str pte2 page:2,g; str pte2 0; dsb ishst; tlbi aside1is; dsb ish; str pte2 page:3,g",
                &["remade global-survives @2000 level 3"],
            ),
            (
                "str pte2 page:2,g; str pte2 0; dsb ishst; tlbi vale1is va+2000 asid=9; dsb ish; str pte2 page:3,g",
                RIGHT,
            ),
            // Another regime's operation is none here.
            ("str pte 0; dsb ishst; tlbi vale2is va; dsb ish; str pte page:2", &["remade no-invalidation @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi alle1is; dsb ish; str pte page:2", RIGHT),
            ("str pte 0; dsb ishst; tlbi vmalls12e1is; dsb ish; str pte page:2", RIGHT),
        ],
    );
}

#[test]
fn reused() {
    twins(
        el1,
        &[
            ("str pte 0; str pte1 0; str pmd 0; str t.8 1235", &["reused no-invalidation @0 level 2"]),
            (
                "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; tlbi vale1is va+1000; dsb ish; zva t",
                &["reused leaf-only @0 level 2"],
            ),
            ("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; str t.8 1235", RIGHT),
            // A teardown is none, nor an allocator's link; nor is linking the table elsewhere, until something is put in it.
            ("str pmd 0; str pte 0; str pte1 0; str t.2 7000", RIGHT),
            (
                "str pmd 0; str pmd1 table:t; dsb ishst; tlbi vae1is va; tlbi vae1is va+1000; dsb ish; str pte5 page:5",
                RIGHT,
            ),
            ("str pmd 0; str pmd1 table:t; str pte5 page:5", &["reused no-invalidation @0 level 2"]),
            // The frame of a stale leaf becomes a table.
            ("str pte2 4000000000f43; str pte2 0; str pmd1 table:empty", RIGHT),
            ("str pte2 7f43; str pte2 0; str pmd1 table:empty", &["reused no-invalidation @2000 level 3"]),
            ("str pte2 7f43; str pte2 0; dsb ishst; tlbi vale1is va+2000; dsb ish; str pmd1 table:empty", RIGHT),
        ],
    );
}

#[test]
fn a_stale_kernel_page_that_becomes_a_table_is_advice() {
    let mut m = el1();
    run(&mut m, "str pte2 7703; str pte2 0; str pmd1 table:empty");
    let found: Vec<_> = m.take_violations().into_iter().map(|v| (v.kind.name(), v.severity)).collect();
    assert_eq!(found, [("reused", Severity::Advice)]);
    assert_eq!(verdicts(&mut m, "str pte2 page:5"), ["remade no-invalidation @2000 level 3".to_owned()].into());
}

#[test]
fn live_change() {
    twins(
        el1,
        &[
            ("str pte page:2", &["live-change not-broken-first @0 level 3"]),
            ("str pte page:0,d", &["live-change not-broken-first @0 level 3"]),
            ("str pte page:0,g", &["live-change not-broken-first @0 level 3"]),
            ("str pte page:0,c", &["live-change not-broken-first @0 level 3"]),
            ("str pmd table:t2", &["live-change not-broken-first @0 level 2"]),
            ("str pmd block:0", &["live-change not-broken-first @0 level 2"]),
            // Permissions, software bits and the access flag are no such change.
            ("str pte page:0,r; str pte page:0; str pte page:0,s; str pte page:0", RIGHT),
            ("str pte page:0,o; str pte page:0", RIGHT),
            ("str pte page:0,o; str pte page:2", &["remade no-invalidation @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; str pte page:0,d", RIGHT),
        ],
    );
}

#[test]
fn feat_bbm() {
    // A table whose pages translate as block 0 does.
    let alike: String = (0..512).map(|n| format!("str t2.{n:x} part:{n:x}; ")).collect();
    let with_block = || {
        let mut m = el1();
        run(&mut m, &format!("{alike} str pmd1 block:0"));
        m
    };
    let broken: &[&str] = &["live-change not-broken-first @200000 level 2"];
    twins(
        with_block,
        &[
            ("str pmd1 table:t2", broken),
            ("id bbm 1; str pmd1 table:t2", broken),
            ("id bbm 2; str pmd1 table:t2", RIGHT),
            ("id bbm 3; str pmd1 table:t2", RIGHT),
            // Something else in the table is another translation, whatever the level.
            ("id bbm 3; str t2.5 page:9; str pmd1 table:t2", broken),
            // What was cached of the block before still counts at level 2; at level 3 it says the same as the pages.
            (
                "id bbm 2; str pmd1 table:t2; str t2.5 0; dsb ishst; tlbi vale1is va+205000; dsb ish; str t2.5 page:9",
                RIGHT,
            ),
            ("id bbm 2; str pmd1 table:t2; str t2.5 0; str t2.5 page:9", &["remade no-invalidation @205000 level 3"]),
            // Level 1: nT first, then an invalidation, then the change.
            ("id bbm 1; str pmd1 block:0,n; dsb ishst; tlbi vale1is va+200000; dsb ish; str pmd1 table:t2", RIGHT),
            ("id bbm 1; str pmd1 block:0,n; str pmd1 table:t2", &["remade no-invalidation @200000 level 2"]),
            // Back again: the table is owed an invalidation before its page is used again.
            (
                "id bbm 3; str pmd1 table:t2; str pmd1 block:0; str t2.5 page:9",
                &["reused no-invalidation @200000 level 2"],
            ),
        ],
    );
    let broken: &[&str] = &["live-change not-broken-first @0 level 3"];
    twins(
        el1,
        &[("str pte page:0,c", broken), ("id bbm 2; str pte page:0,c", RIGHT), ("id bbm 1; str pte page:0,c", broken)],
    );
}

/// Sixteen contiguous pages, and the same statement for each of them.
fn run_of(statement: &str) -> String {
    (0..16).map(|n| format!("{}; ", statement.replace('#', &format!("{n:x}")))).collect()
}

#[test]
fn contiguous() {
    let contiguous = || {
        let mut m = tables();
        run(&mut m, &run_of("str t2.# page:#,c"));
        run(&mut m, "str pmd1 table:t2");
        for pe in 0..2 {
            m.run_in(pe, 0x1000, 7);
        }
        m
    };
    let clear = run_of("str t2.# 0");
    let flush = run_of("tlbi vale1is va+20#000");
    let again = run_of("str t2.# page:3#,c");
    let right = format!("{clear} dsb ishst; {flush} dsb ish; {again}");
    let ranged = format!("{clear} dsb ishst; tlbi rvale1is va+200000*10; dsb ish; {again}");
    // One page of the run is invalidated, as if it stood for all.
    let one = format!("{clear} dsb ishst; tlbi vale1is va+200000; dsb ish; str t2.3 page:33");
    twins(
        contiguous,
        &[
            (right.as_str(), RIGHT),
            (ranged.as_str(), RIGHT),
            (one.as_str(), &["remade no-invalidation @203000 level 3"]),
            // Another member still stands for the page.
            (
                "str t2.0 0; dsb ishst; tlbi vale1is va+200000; dsb ish; str t2.0 page:9",
                &["remade not-broken-first @200000 level 3"],
            ),
            // Fewer permissions, entry by entry, then one invalidation.
            ("str t2.0 page:0,cr; str t2.1 page:1,cr", RIGHT),
        ],
    );
}

#[test]
fn claimed() {
    twins(
        el1,
        &[
            ("str pte 0; claim va 1000", &["claimed no-invalidation @0 level 3"]),
            ("str pte 0; dsb ishst; tlbi vale1is va; dsb ish; claim va 1000", RIGHT),
            ("str pte 0; claim va+1000 1000", RIGHT),
            ("str pte page:0,o; claim va 1000", RIGHT),
            (
                "str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vale1is va; dsb ish; free t",
                &["claimed leaf-only @0 level 2"],
            ),
            ("str pte 0; str pte1 0; str pmd 0; dsb ishst; tlbi vae1is va; dsb ish; free t", RIGHT),
        ],
    );
}

#[test]
fn asid() {
    let other = "str root2.0 table:other; ";
    let loads = |rest: &str| format!("{other}{rest}");
    let clash: &[&str] = &["asid no-invalidation @0 level 0"];
    let reuse = loads("msr ttbr0_el1 a7.root2; isb");
    let flushed = loads("dsb ishst; msr ttbr0_el1 a9.empty; isb; tlbi aside1is; dsb ish; msr ttbr0_el1 a7.root2; isb");
    let not_completed = loads("msr ttbr0_el1 a9.empty; isb; tlbi aside1is; msr ttbr0_el1 a7.root2; isb");
    let wrong = loads("msr ttbr0_el1 a9.empty; isb; tlbi aside1is asid=8; dsb ish; msr ttbr0_el1 a7.root2; isb");
    let transient = loads("msr ttbr0_el1 a7.empty; isb; msr ttbr0_el1 a9.empty; msr ttbr0_el1 a9.root2; isb");
    let unsynchronised = loads("msr ttbr0_el1 a7.root2; msr ttbr0_el1 a9.root2; isb");
    twins(
        el1,
        &[
            (reuse.as_str(), clash),
            (flushed.as_str(), RIGHT),
            (not_completed.as_str(), &["asid not-completed @0 level 0"]),
            (wrong.as_str(), clash),
            // Linux passes through its reserved root; what is written over before the synchronisation never was.
            (transient.as_str(), RIGHT),
            (unsynchronised.as_str(), RIGHT),
        ],
    );
    // What an address space left behind under its ASID.
    let left = "str pte 0; str pte1 0; str pmd 0; str pud 0; str root.0 0; ";
    let reused = format!("{left}{other} msr ttbr0_el1 a7.root2; isb");
    let seen = verdicts(&mut el1(), &reused);
    assert!(seen.iter().all(|v| v.starts_with("asid no-invalidation")) && !seen.is_empty(), "{seen:?}");
    let ended = format!("{left} dsb ishst; tlbi aside1is; dsb ish; {other} msr ttbr0_el1 a7.root2; isb");
    assert_eq!(verdicts(&mut el1(), &ended), [].into());
}

#[test]
fn common_not_private() {
    // One ASID for two spaces on two PEs: with CnP they share entries, without it they do not.
    let setup = || {
        let mut m = tables();
        run(&mut m, "str root2.0 table:other; 0: msr ttbr0_el1 a7.empty; 1: msr ttbr0_el1 a9.empty; isb; 1: isb");
        for pe in 0..2 {
            m.run_in(pe, 0x7000, 9);
        }
        m
    };
    twins(
        setup,
        &[
            (
                "msr ttbr0_el1 a7.root.cnp; isb; 1: msr ttbr0_el1 a7.root2.cnp; 1: isb",
                &["asid no-invalidation @0 level 0"],
            ),
            ("msr ttbr0_el1 a7.root; isb; 1: msr ttbr0_el1 a7.root2; 1: isb", RIGHT),
            ("msr ttbr0_el1 a7.root.cnp; isb; 1: msr ttbr0_el1 a7.root.cnp; 1: isb", RIGHT),
        ],
    );
}

#[test]
fn reset() {
    let on = "msr tcr_el1 1080c10010; msr ttbr0_el1 a7.root; msr sctlr_el1 1; isb";
    let setup = || {
        let mut m = tables();
        run(&mut m, "str root.0 table:l1");
        m
    };
    let on = on.replace("1080c10010", &format!("{:x}", tlbsan::sim::TCR));
    let cases = [
        (format!("reset; {on}"), &["asid no-invalidation @0 level 0"][..]),
        (format!("reset; tlbi vmalle1; {on}"), &["asid not-completed @0 level 0"]),
        (format!("reset; tlbi vmalle1; dsb nsh; {on}"), RIGHT),
        (format!("reset; tlbi vale1 va; dsb nsh; {on}"), &["asid no-invalidation @0 level 0"]),
        (on.clone(), RIGHT),
    ];
    let cases: Vec<(&str, &[&str])> = cases.iter().map(|(text, expected)| (text.as_str(), *expected)).collect();
    twins(setup, &cases);
}

#[test]
fn memory_attributes() {
    let setup = || {
        let mut m = tables();
        run(&mut m, "0: msr mair_el1 ff44; 1: msr mair_el1 ff44");
        m.run_in(0, 0x1000, 7);
        m
    };
    twins(
        setup,
        &[
            ("msr mair_el1 ff00; isb", &["live-change not-broken-first @0 level 0"]),
            (
                "msr sctlr_el1 0; isb; msr mair_el1 ff00; msr sctlr_el1 1; isb",
                &["live-change not-broken-first @0 level 0"],
            ),
            ("msr sctlr_el1 0; isb; tlbi vmalle1; dsb nsh; msr mair_el1 ff00; msr sctlr_el1 1; isb", RIGHT),
            // An attribute that no entry uses.
            ("msr mair_el1 4444; isb", RIGHT),
        ],
    );
}

#[test]
fn stale_access() {
    let flush = "dsb ishst; tlbi vale1is va; dsb ish; ";
    let no_isb = format!("str pte 0; {flush} str pte page:2; dsb ish; read va+10 frame:0+10");
    // The access went where it should, this time: another machine's might not.
    let lucky = format!("str pte 0; {flush} str pte page:2; dsb ish; read va+10 frame:2+10; read va+10 frame:2+10");
    let elsewhere = format!("str pte 0; {flush} str pte page:2; dsb ish; read va+1008 frame:1+8");
    let another_pe = format!("str pte 0; {flush} str pte page:2; dsb ish; 1: read va+10 frame:2+10");
    let same_again = format!("str pte 0; {flush} str pte page:0; dsb ish; read va+10 frame:0+10");
    let isb = format!("str pte 0; {flush} str pte page:2; dsb ish; isb; read va+10 frame:2+10");
    let isb_stale = format!("str pte 0; {flush} isb; str pte page:2; read va+10 frame:0+10");
    let ets2 = format!("id ets2; str pte 0; {flush} str pte page:2; read va frame:2");
    let fetch = format!("id ets2; str pte 0; {flush} str pte page:2; dsb ish; fetch va frame:0");
    let eret = format!("id ets2; str pte 0; {flush} str pte page:2; eret; fetch va frame:2");
    let exception = format!("str pte 0; {flush} exc; str pte page:2; read va frame:2");
    let unsynchronised: &[&str] = &["stale-access not-synchronised @0 level 3"];
    twins(
        el1,
        &[
            ("read va frame:0; write va+1008 frame:1+8", RIGHT),
            ("read va frame:1", &["stale-access no-invalidation @0 level 3"]),
            (no_isb.as_str(), unsynchronised),
            (lucky.as_str(), unsynchronised),
            (elsewhere.as_str(), RIGHT),
            (another_pe.as_str(), RIGHT),
            (same_again.as_str(), RIGHT),
            (isb.as_str(), RIGHT),
            (isb_stale.as_str(), &["stale-access no-invalidation @0 level 3"]),
            (ets2.as_str(), RIGHT),
            (fetch.as_str(), unsynchronised),
            (eret.as_str(), RIGHT),
            (exception.as_str(), RIGHT),
            // Between the store and the completed TLBI both are right, on every PE.
            ("str pte 0; 1: read va frame:0; dsb ishst; tlbi vale1is va; 1: read va frame:0", RIGHT),
            (
                "str pte 0; dsb ishst; tlbi vale1is va; dsb ish; 1: read va frame:0",
                &["stale-access no-invalidation @0 level 3"],
            ),
            // What a verdict was given about is not told again.
            ("str pte page:2; read va frame:0", &["live-change not-broken-first @0 level 3"]),
            // Registers may take effect early.
            ("str root2.0 table:other; msr ttbr0_el1 a9.empty; read va frame:0", RIGHT),
        ],
    );
}

#[test]
fn a_stale_access_shows_both_addresses() {
    let mut m = el1();
    run(&mut m, "read va+10 frame:1+10");
    let accessed = m.take_violations()[0].accessed.expect("the access");
    assert_eq!((accessed.va, accessed.used, accessed.tables), (0x4000_0010, 0x10_1010, Some(0x10_0010)));
}

#[test]
fn an_operation_for_an_asid_that_nobody_ran_is_a_cost() {
    for (sequence, expected) in [("tlbi aside1is asid=9", 1), ("tlbi aside1is", 0)] {
        let mut m = el1();
        run(&mut m, sequence);
        let remarks =
            m.take_records().into_iter().filter(|r| matches!(r, Record::Remark(r) if r.severity == Severity::Cost));
        assert_eq!(remarks.count(), expected, "{sequence}");
    }
}

#[test]
fn mmu_off_keeps_what_is_cached() {
    twins(
        el1,
        &[
            (
                "msr sctlr_el1 0; isb; 1: msr sctlr_el1 0; 1: isb; str pte 0; str pte page:2",
                &["remade no-invalidation @0 level 3"],
            ),
            (
                "msr sctlr_el1 0; isb; 1: msr sctlr_el1 0; 1: isb; tlbi vmalle1is; dsb ish; str pte 0; str pte page:2",
                RIGHT,
            ),
        ],
    );
}

#[test]
fn who_may_hold_what() {
    let away = "1: msr ttbr0_el1 a9.empty; 1: isb; ";
    let held = |steps: &str| {
        let mut m = el1();
        run(&mut m, &format!("{steps} str pte page:2"));
        m.take_violations()[0].pes.clone()
    };
    assert_eq!(held(away), [0, 1], "what was cached stays");
    assert_eq!(held(&format!("{away} tlbi aside1is; dsb ish;")), [0]);
    // It left after the TLBI: it may have filled again before it did.
    assert_eq!(held(&format!("tlbi aside1is; {away} dsb ish;")), [0, 1]);
    assert_eq!(held(&format!("{away} tlbi aside1; dsb ish;")), [0, 1], "a local one does not reach it");
    assert_eq!(held(&format!("{away} tlbi aside1is;")), [0, 1], "not complete");
}

#[test]
fn translation_control() {
    // TCR.T0SZ moves the root to another level: what was cached of it says something else.
    let tcr = format!("msr tcr_el1 {:x}", tlbsan::sim::TCR & !0x3f | 25);
    let broken = format!("{tcr}; isb");
    let right = format!("msr ttbr0_el1 a7.empty; isb; tlbi vmalle1; dsb nsh; {tcr}; msr ttbr0_el1 a7.root; isb");
    twins(el1, &[(broken.as_str(), &["asid no-invalidation @0 level 0"]), (right.as_str(), RIGHT)]);
}
