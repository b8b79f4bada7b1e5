//! The cases. A stub.

/// Runs all cases; the exit code.
pub fn run() -> u32 {
    crate::println!("TAP version 14");
    crate::println!("1..0");
    0
}
