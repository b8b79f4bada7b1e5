//! What goes wrong in or around the checker ends the checking, never the guest, and is said.

use std::process::{Command, Stdio};
use system_tests::Board;

/// Runs the firmware on QEMU with the plugin itself, whose records come on standard error: exit code, console, records.
fn with_plugin(board: &Board, arguments: &str) -> (Option<i32>, String, String) {
    let plugin = system_tests::artifact("release/libtlbsan_qemu.so", "make build").display().to_string();
    let mut command = Command::new("timeout");
    command.args(["120", "qemu-system-aarch64"]).args(board.qemu_arguments("tlbsan"));
    command.args(["-accel", "tcg,thread=multi", "-object", "memory-backend-memfd,id=ram,size=256M,share=on"]);
    command.args(["-machine", "memory-backend=ram", "-plugin"]);
    command.arg(format!("file={plugin},fd=2,ram=0x40000000:0x10000000{arguments}"));
    let output = command.stdin(Stdio::null()).output().expect("QEMU starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_fault_in_the_plugin_stops_the_checking_and_the_guest_goes_on() {
    let board = Board::new("cortex-a57", 2, "");
    // The guest cannot know: it does the same with a sound plugin.
    let (code, console, records) = with_plugin(&board, "");
    assert!(records.contains(r#""record":"end""#), "{records}");
    let (faulty_code, faulty_console, records) = with_plugin(&board, ",panic-at=1000");
    assert_eq!((faulty_code, faulty_console), (code, console));
    assert!(records.contains("the checker has panicked: asked for by panic-at"), "{records}");
    assert!(records.contains("checking has stopped, the guest goes on"), "{records}");
    assert!(!records.contains(r#""record":"end""#), "nobody must take this for a clean run: {records}");
}

#[test]
fn memory_that_is_not_there_is_said_before_anything_is_judged() {
    let board = Board::new("cortex-a57", 1, "");
    let (code, _, records) = with_plugin(&board, ",backend=/no/such/file");
    assert_eq!(code, with_plugin(&board, "").0);
    assert!(records.contains("QEMU has no mapping of /no/such/file"), "{records}");
    assert!(!records.contains(r#""record":"end""#), "{records}");
}
