//! Any bytes are edits: after each change nothing stale is left, and nothing lost.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/edits/mod.rs"]
mod edits;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edits::fuzz(bytes));
