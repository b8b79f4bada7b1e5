//! The words of /chosen/bootargs (QEMU: `-append`): `key=value`, or a flag alone.

use super::PLATFORM;

fn words() -> impl Iterator<Item = &'static str> {
    PLATFORM.get().map_or("", |platform| platform.bootargs).split_ascii_whitespace()
}

/// The value of the last `key=value`.
pub fn get(key: &str) -> Option<&'static str> {
    words().filter_map(|word| word.split_once('=')).filter(|(name, _)| *name == key).map(|(_, value)| value).last()
}

/// The value of `key` as a number, decimal or 0x.
///
/// # Errors
/// The value, if it is none.
pub fn number(key: &str) -> Result<Option<u64>, &'static str> {
    let Some(value) = get(key) else { return Ok(None) };
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.map(Some).map_err(|_| value)
}

/// Whether the flag stands there.
pub fn flag(name: &str) -> bool {
    words().any(|word| word == name)
}
