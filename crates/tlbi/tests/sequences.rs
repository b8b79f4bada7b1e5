//! The sequences, instruction by instruction, for every kind of request.

use tlbi::{
    Asid, Depth, Errata, Features, Invalidation, Ipa, IpaRange, Level, Recorder, Scope, Stage2, Tlb, VaRange, VirtAddr,
};

struct Pin;
// SAFETY: a recorder stands for no PE.
unsafe impl tlbi::Pinned for Pin {}

const ASID: Asid = Asid::new(8);
const PAGE: VirtAddr = VirtAddr::new(0x40_0000);
/// What a CPU of Armv9 has.
const ALL: Features =
    Features { asid_bits: 16, ets2: true, outer: true, range: true, xs: true, el2: true, el3: true, ..Features::NONE };
const REPEAT: Errata = Errata { repeat_tlbi: true, ..Errata::NONE };

/// What `run` issues on a PE with `features`.
fn issued(features: Features, run: impl FnOnce(&Tlb<Recorder>)) -> Vec<String> {
    let tlb = Tlb::new(Recorder::new(), features);
    run(&tlb);
    assert_eq!(tlb.issuer().lost(), 0);
    tlb.issuer().instructions().map(|instruction| instruction.to_string()).collect()
}

fn check(features: Features, inv: Invalidation, expected: &[&str]) {
    assert_eq!(issued(features, |tlb| tlb.invalidate(&Pin, &inv).sync()), expected, "{inv:?}");
}

fn pages(count: u64) -> VaRange {
    VaRange::new(PAGE, count << 12).expect("a range")
}

#[test]
fn a_user_page_removed_or_restricted_without_one_of_its_barriers() {
    let inv = Invalidation::page(ASID, PAGE, Level::L3, Depth::Leaf);
    check(Features::NONE, inv, &["dsb ishst", "tlbi vale1is, 0x400000 asid 8", "dsb ish", "isb"]);
    // FEAT_ETS2 orders this PE's data accesses; user code is fetched after an exception return.
    check(ALL, inv, &["dsb ishst", "tlbi vale1is, 0x400000 asid 8", "dsb ish"]);
}

#[test]
fn a_kernel_page_whose_next_fetch_may_be_stale() {
    let inv = Invalidation::global_page(PAGE, Level::L3, Depth::Leaf);
    check(ALL, inv, &["dsb ishst", "tlbi vaale1is, 0x400000", "dsb ish", "isb"]);
}

#[test]
fn a_freed_table_that_stays_in_a_walk_cache() {
    let inv = Invalidation::pages(ASID, pages(2), Level::L3, Depth::Full);
    check(ALL, inv, &["dsb ishst", "tlbi rvae1is, 0x400000..0x402000 asid 8", "dsb ish"]);
    let one = Invalidation::page(ASID, PAGE, Level::L2, Depth::Full);
    check(ALL, one, &["dsb ishst", "tlbi vae1is, 0x400000 asid 8", "dsb ish"]);
    check(
        Features::NONE,
        Invalidation::pages(ASID, pages(2), Level::L3, Depth::Full),
        &["dsb ishst", "tlbi vae1is, 0x400000 asid 8", "tlbi vae1is, 0x401000 asid 8", "dsb ish", "isb"],
    );
}

#[test]
fn a_whole_space_or_regime_that_is_not_whole() {
    check(ALL, Invalidation::asid(ASID), &["dsb ishst", "tlbi aside1is, asid 8", "dsb ish"]);
    check(ALL, Invalidation::all(), &["dsb ishst", "tlbi vmalle1is", "dsb ish", "isb"]);
    check(ALL, Invalidation::all().local(), &["dsb nshst", "tlbi vmalle1", "dsb nsh", "isb"]);
}

#[test]
fn a_barrier_that_does_not_reach_as_far_as_its_operation() {
    let inv = Invalidation::page(ASID, PAGE, Level::L3, Depth::Leaf);
    check(ALL, inv.local(), &["dsb nshst", "tlbi vale1, 0x400000 asid 8", "dsb nsh"]);
    let outer = inv.outer(&ALL).expect("FEAT_TLBIOS");
    check(ALL, outer, &["dsb oshst", "tlbi vale1os, 0x400000 asid 8", "dsb osh"]);
    let without = Features { xs: false, ..ALL };
    check(ALL, inv.nxs(), &["dsb ishst", "tlbi vale1isnxs, 0x400000 asid 8", "dsb ishnxs"]);
    check(ALL, inv.nxs().local(), &["dsb nshst", "tlbi vale1nxs, 0x400000 asid 8", "dsb nshnxs"]);
    check(ALL, outer.nxs(), &["dsb oshst", "tlbi vale1osnxs, 0x400000 asid 8", "dsb oshnxs"]);
    // Without FEAT_XS the plain ones, which wait for more.
    check(without, inv.nxs(), &["dsb ishst", "tlbi vale1is, 0x400000 asid 8", "dsb ish"]);
}

#[test]
fn el2_and_el3_without_their_own_operations() {
    let inv = Invalidation::global_page(PAGE, Level::L3, Depth::Leaf);
    check(ALL, inv.el2(), &["dsb ishst", "tlbi vale2is, 0x400000", "dsb ish", "isb"]);
    check(ALL, inv.el3(), &["dsb ishst", "tlbi vale3is, 0x400000", "dsb ish", "isb"]);
    let host = Invalidation::page(ASID, PAGE, Level::L3, Depth::Full).el20();
    check(ALL, host, &["dsb ishst", "tlbi vae2is, 0x400000 asid 8", "dsb ish", "isb"]);
}

#[test]
fn half_of_a_kpti_pair() {
    let inv = Invalidation::page(ASID, PAGE, Level::L3, Depth::Leaf).kpti();
    check(ALL, inv, &["dsb ishst", "tlbi vale1is, 0x400000 asid 8", "tlbi vale1is, 0x400000 asid 9", "dsb ish"]);
    check(
        ALL,
        Invalidation::asid(ASID).kpti(),
        &["dsb ishst", "tlbi aside1is, asid 8", "tlbi aside1is, asid 9", "dsb ish"],
    );
}

#[test]
fn ageing_that_waits_or_is_not_ordered() {
    let inv = Invalidation::page(ASID, PAGE, Level::L3, Depth::Leaf);
    assert_eq!(issued(Features::NONE, |tlb| tlb.age(&inv)), ["dsb ishst", "tlbi vale1is, 0x400000 asid 8"]);
    let local = inv.local();
    assert_eq!(issued(ALL, |tlb| tlb.age(&local)), ["dsb nshst", "tlbi vale1, 0x400000 asid 8"]);
}

#[test]
fn a_batch_that_waits_more_than_once_or_not_far_enough() {
    let page = |n: u64| Invalidation::page(ASID, VirtAddr::new(n << 12), Level::L3, Depth::Leaf);
    let kernel = Invalidation::global_page(PAGE, Level::L3, Depth::Leaf);
    let batch = issued(ALL, |tlb| {
        let first = tlb.invalidate(&Pin, &page(1).local());
        let second = tlb.invalidate(&Pin, &page(2));
        first.merge(second).merge(tlb.invalidate(&Pin, &kernel)).sync();
    });
    assert_eq!(
        batch,
        [
            "dsb nshst",
            "tlbi vale1, 0x1000 asid 8",
            "dsb ishst",
            "tlbi vale1is, 0x2000 asid 8",
            "dsb ishst",
            "tlbi vaale1is, 0x400000",
            "dsb ish",
            "isb"
        ]
    );
    // A plain operation among nXS ones is waited for by a plain DSB, in either order.
    let (nxs, plain) = (page(1).nxs(), page(2));
    for (a, b) in [(nxs, plain), (plain, nxs)] {
        let batch = issued(ALL, |tlb| tlb.invalidate(&Pin, &a).merge(tlb.invalidate(&Pin, &b)).sync());
        assert_eq!(batch.last().map(String::as_str), Some("dsb ish"));
    }
    // Through two `Tlb`s: neither is forgotten.
    let (one, two) = (Tlb::new(Recorder::<8>::new(), ALL), Tlb::new(Recorder::<8>::new(), ALL));
    one.invalidate(&Pin, &page(1)).merge(two.invalidate(&Pin, &page(2))).sync();
    for tlb in [&one, &two] {
        assert_eq!(tlb.issuer().instructions().last().map(|i| i.to_string()).as_deref(), Some("dsb ish"));
    }
}

#[test]
fn an_invalidation_that_nobody_waits_for() {
    let inv = Invalidation::page(ASID, PAGE, Level::L3, Depth::Leaf);
    let dropped = issued(ALL, |tlb| drop(tlb.invalidate(&Pin, &inv)));
    assert_eq!(dropped, issued(ALL, |tlb| tlb.invalidate(&Pin, &inv).sync()));
    assert_eq!(dropped.last().map(String::as_str), Some("dsb ish"));
}

#[test]
fn a_combined_entry_that_survives_its_stage_2_entry() {
    let range = IpaRange::new(Ipa::new(0x8000_0000), 0x3000).expect("a range");
    let request = Stage2::pages(range, Level::L3, Depth::Leaf);
    let run = |features, request: Stage2| issued(features, |tlb| tlb.invalidate_stage2(&Pin, &request).sync());
    assert_eq!(
        run(Features { range: false, ..ALL }, request),
        [
            "dsb ishst",
            "tlbi ipas2le1is, 0x80000000",
            "tlbi ipas2le1is, 0x80001000",
            "tlbi ipas2le1is, 0x80002000",
            "dsb ish",
            "tlbi vmalle1is",
            "dsb ish"
        ]
    );
    let full = Stage2::pages(range, Level::L3, Depth::Full).local();
    assert_eq!(
        run(ALL, full),
        [
            "dsb nshst",
            "tlbi ripas2e1, 0x80000000..0x80002000",
            "tlbi ipas2e1, 0x80002000",
            "dsb nsh",
            "tlbi vmalle1",
            "dsb nsh"
        ]
    );
    assert_eq!(run(ALL, Stage2::vmid()), ["dsb ishst", "tlbi vmalls12e1is", "dsb ish"]);
    let outer = Stage2::vmid().outer(&ALL).expect("FEAT_TLBIOS");
    assert_eq!(run(ALL, outer), ["dsb oshst", "tlbi vmalls12e1os", "dsb osh"]);
    assert!(Stage2::vmid().outer(&Features::NONE).is_err());
    assert_eq!(run(ALL, Stage2::all_vmids()), ["dsb ishst", "tlbi alle1is", "dsb ish"]);
    let broken = Features { errata: REPEAT, ..ALL };
    assert_eq!(
        run(broken, Stage2::vmid()),
        ["dsb ishst", "tlbi vmalls12e1is", "dsb ish", "tlbi vale1is, 0x0 asid 0", "dsb ish"]
    );
}

#[test]
fn a_new_entry_that_the_next_access_does_not_see() {
    assert_eq!(issued(ALL, Tlb::publish), ["dsb ishst", "isb"]);
    assert_eq!(issued(ALL, |tlb| tlb.order_stores(Scope::Outer)), ["dsb oshst"]);
}

#[test]
fn the_repetition_left_out_or_done_too_often() {
    let broken = Features { errata: REPEAT, ..ALL };
    let page = Invalidation::page(ASID, PAGE, Level::L3, Depth::Leaf);
    let repeated = "tlbi vale1is, 0x0 asid 0";
    check(broken, page, &["dsb ishst", "tlbi vale1is, 0x400000 asid 8", "dsb ish", repeated, "dsb ish"]);
    // Before the ISB, not after it.
    check(broken, Invalidation::all(), &["dsb ishst", "tlbi vmalle1is", "dsb ish", repeated, "dsb ish", "isb"]);
    check(broken, page.local(), &["dsb nshst", "tlbi vale1, 0x400000 asid 8", "dsb nsh"]);
    check(
        broken,
        Invalidation::all().el2(),
        &["dsb ishst", "tlbi alle2is", "dsb ish", "tlbi vale2is, 0x0 asid 0", "dsb ish", "isb"],
    );
    // Once a sync, not once an operation.
    let batch = issued(broken, |tlb| {
        tlb.invalidate(&Pin, &page.local())
            .merge(tlb.invalidate(&Pin, &page))
            .merge(tlb.invalidate(&Pin, &page))
            .sync();
    });
    assert_eq!(batch.iter().filter(|i| *i == repeated).count(), 1);
    assert_eq!(batch[batch.len() - 3..], ["dsb ish", repeated, "dsb ish"]);
    assert_eq!(issued(broken, |tlb| tlb.age(&page)).len(), 2, "ageing waits for nothing");
}

#[test]
fn instructions_from_before_the_switch() {
    assert_eq!(issued(ALL, Tlb::context_switched), ["isb"]);
    let cavium = Features { errata: Errata { icache_after_switch: true, ..Errata::NONE }, ..Features::NONE };
    assert_eq!(issued(cavium, Tlb::context_switched), ["isb", "ic iallu", "dsb nsh", "isb"]);
}

#[test]
fn a_recorder_that_is_full_and_says_nothing() {
    let tlb = Tlb::new(Recorder::<2>::new(), Features::NONE);
    tlb.invalidate(&Pin, &Invalidation::all()).sync();
    assert_eq!((tlb.issuer().instructions().count(), tlb.issuer().lost()), (2, 2));
    tlb.issuer().clear();
    assert_eq!((tlb.issuer().instructions().count(), tlb.issuer().lost()), (0, 0));
}
