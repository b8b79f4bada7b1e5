//! Exit codes of a whole run: a panic, a fault and a hang are told apart from a violation, on every core.

use system_tests::Board;

#[test]
fn a_panic_on_any_core_is_the_guests_failure() {
    for core in 0..4 {
        let outcome = Board::new("cortex-a57", 4, &format!("inject=panic core={core}")).run().expect(3);
        assert!(outcome.stdout.contains(&format!("core {core}")), "{}", outcome.stdout);
    }
}

#[test]
fn a_fault_is_told_with_its_syndrome_decoded() {
    for core in [0, 3] {
        let outcome = Board::new("neoverse-n2", 4, &format!("inject=fault core={core}")).run().expect(3);
        for told in ["ELR", "ESR", "FAR", "translation fault", &format!("core {core}")] {
            assert!(outcome.stdout.contains(told), "no {told} in\n{}", outcome.stdout);
        }
    }
}

#[test]
fn a_hang_is_cut_and_says_where_every_core_is() {
    for (cores, inject) in [(4, "inject=hang"), (4, "inject=hang-masked"), (1, "inject=hang")] {
        let outcome = Board::new("max", cores, &format!("{inject} watchdog=2")).run().expect(4);
        assert!(outcome.stdout.contains("watchdog: no progress within 2 s"), "{}", outcome.stdout);
        for core in 0..cores {
            assert!(outcome.stdout.contains(&format!("core {core}:")), "{}", outcome.stdout);
        }
    }
}

#[test]
fn what_does_not_exist_is_no_success() {
    let outcome = Board::new("cortex-a57", 2, "fault=walk-cache/no-such").run();
    assert_ne!(outcome.code, Some(0), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("walk-cache/lost-freed-tables"), "the cases there are\n{}", outcome.stdout);
}

#[test]
fn the_firmware_tests_itself() {
    Board::new("max", 8, "selftest").run().expect(0);
}
