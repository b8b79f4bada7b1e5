//! QEMU's own option syntax: lists of `key=value` with doubled commas, sizes, numbers.
//!
//! Knows the grammar and no option.

/// Splits `virt,gic-version=3` into pairs; the first item without `=` is the value of `implied`, later ones are switched on.
pub(crate) fn pairs(text: &str, implied: &str) -> Vec<(String, String)> {
    let mut items = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // A doubled comma is a comma of the value.
            ',' if chars.next_if_eq(&',').is_none() => items.push(String::new()),
            _ => {
                if let Some(item) = items.last_mut() {
                    item.push(c);
                }
            }
        }
    }
    let pair = |(position, item): (usize, String)| match item.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None if position == 0 => (implied.to_owned(), item),
        None => (item, "on".to_owned()),
    };
    items.into_iter().enumerate().filter(|(_, item)| !item.is_empty()).map(pair).collect()
}

/// The opposite of [`pairs`], every key written out.
pub(crate) fn join(pairs: &[(String, String)]) -> String {
    let items: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    items.join(",")
}

/// `text` with its commas doubled.
pub(crate) fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

/// Bytes of `512`, `1G`, `1.5G`, `1000k`; a number without a suffix counts in `unit` bytes.
pub(crate) fn size(text: &str, unit: u64) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(number.len()..)?.to_ascii_lowercase().as_str() {
        "" => unit,
        "b" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        "e" => 1 << 60,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 18 {
        return None;
    }
    let scale = 10u128.checked_pow(fraction.len() as u32)?;
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let bytes = u128::from(whole.parse::<u64>().ok()?) * u128::from(unit) + fraction * u128::from(unit) / scale;
    u64::try_from(bytes).ok()
}

/// `8` or `0x8`.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_doubled_commas_and_the_implied_key() {
        let expected = [("type", "virt"), ("path", "a,b=c"), ("secure", "on")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(pairs("virt,path=a,,b=c,secure", "type"), expected);
        assert_eq!(join(&expected), "type=virt,path=a,,b=c,secure=on");
        assert_eq!(pairs("", "type"), []);
    }

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        let m = 1 << 20;
        for (text, bytes) in [
            ("512", Some(512 * m)),
            ("1G", Some(1 << 30)),
            ("1.5g", Some(3 << 29)),
            ("64.5M", Some(67_633_152)),
            ("1000k", Some(1_024_000)),
            ("1073741824b", Some(1 << 30)),
            ("0", Some(0)),
            ("0x80", None),
            ("1e2", None),
            ("", None),
            ("G", None),
            ("-1", None),
            ("1x", None),
            ("99999999999T", None),
            ("1.é", None),
        ] {
            assert_eq!(size(text, m), bytes, "{text}");
        }
    }
}
