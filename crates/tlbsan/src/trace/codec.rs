//! Numbers as bytes: LEB128, and differences in zigzag.

/// Appends `value` in groups of seven bits, the lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the difference between `value` and `base`, small ones of either sign in few bytes.
pub(super) fn put_delta(out: &mut Vec<u8>, value: u64, base: u64) {
    let delta = value.wrapping_sub(base) as i64;
    put(out, (delta << 1 ^ delta >> 63) as u64);
}

/// Takes a number off the front; `None`: too long, or cut off.
#[inline]
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    match **bytes {
        // Most numbers have one byte.
        [byte @ ..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(byte.into())
        }
        _ => take_long(bytes),
    }
}

fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a number off that was written as a difference from `base`.
#[inline]
pub(super) fn take_delta(bytes: &mut &[u8], base: u64) -> Option<u64> {
    let zigzag = take(bytes)?;
    Some(base.wrapping_add(zigzag >> 1 ^ (zigzag & 1).wrapping_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_at_their_limits() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX - 1, u64::MAX, 1 << 63] {
            for base in [0, 5, u64::MAX, 1 << 63] {
                let mut out = Vec::new();
                put(&mut out, value);
                put_delta(&mut out, value, base);
                let mut bytes = &out[..];
                assert_eq!((take(&mut bytes), take_delta(&mut bytes, base)), (Some(value), Some(value)));
                assert!(bytes.is_empty());
            }
        }
    }

    #[test]
    fn numbers_too_long_or_cut_off_are_none() {
        for bytes in
            [&[][..], &[0x80], &[0xff; 9], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert_eq!(take(&mut &*bytes), None, "{bytes:x?}");
        }
    }
}
