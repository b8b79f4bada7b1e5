//! Any bytes are a sequence of events: the model and the reference must agree on them.
#![no_main]

#[path = "../../tests/comparison/mod.rs"]
mod comparison;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Longer sequences say nothing new, and the reference is slow.
    if bytes.len() <= 6 * 41
        && let Err(text) = comparison::fuzz(bytes)
    {
        panic!("\n{text}");
    }
});
