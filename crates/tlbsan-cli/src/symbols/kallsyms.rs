//! The symbol table that a Linux kernel carries in itself (CONFIG_KALLSYMS), found in guest memory or in an Image.
//!
//! A running kernel's table knows where the kernel really is: KASLR has moved the base in it already. The parts, of which only the
//! order changes between versions, each at a multiple of 8:
//!
//! ```text
//!   offsets        u32 a symbol, ascending, from the base        before the number (up to 6.3) or behind the index (since 6.4)
//!   base           u64
//!   number         u32
//!   names          for each symbol its length (one byte; two if bit 7 is set), and so many numbers of tokens
//!   markers        u32 for each 256th name: where it begins in `names`
//!   order          three bytes a name; some versions only
//!   tokens         256 strings, each ended by 0; a character that occurs in names has itself for a token
//!   index          u16 a token: where it begins in `tokens`
//! ```
//!
//! Nothing says where all this is. The tokens of the digits stand one after the other, which nothing else does; the index proves
//! the tokens, the markers prove the names. Whatever does not prove right is passed over: memory is the guest's, and
//! may hold anything.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::table::Table;

/// The tokens of the digits.
const DIGITS: &[u8; 20] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// What is looked at around the tokens: more than any kernel's names take.
const BEFORE: u64 = 24 << 20;
const AFTER: u64 = 8 << 20;
/// Read at once.
const CHUNK: usize = 4 << 20;
/// No kernel has more symbols.
const MOST: usize = 1 << 21;
/// Places with the digits that are looked at.
const MAX_TRIES: usize = 64;
/// Words and names looked at around each place; a kernel takes a tenth of it. Memory may hold anything, and must not hold us up.
const MAX_EFFORT: usize = 1 << 24;

/// Looks for the table in what `file` holds, which lies at the physical address `base`.
pub(super) fn find(file: &File, base: u64) -> Option<Table> {
    let (mut table, tokens) = find_at(file)?;
    // Before the MMU is on, and in the identity map, the kernel runs at physical addresses. Linux gives the header's page away
    // once it runs, so that only an early look finds it.
    if let Some(image) = image_before(file, tokens) {
        table.mirror(base.wrapping_add(image));
    }
    Some(table)
}

/// Where the Image begins that has its tokens at `place`: its header is at the beginning of 64 KiB.
fn image_before(file: &File, place: u64) -> Option<u64> {
    let mut magic = [0; 4];
    let mut is_header = |at: u64| file.read_exact_at(&mut magic, at + 56).is_ok() && magic == *b"ARM\x64";
    (0..=place & !0xffff).rev().step_by(1 << 16).take((BEFORE >> 16) as usize * 8).find(|at| is_header(*at))
}

/// The table, and where its tokens are.
fn find_at(file: &File) -> Option<(Table, u64)> {
    let finder = memchr::memmem::Finder::new(DIGITS);
    let mut buffer = vec![0; CHUNK];
    let mut tries = 0;
    for (start, end) in data(file) {
        let mut at = start;
        while at < end {
            let length = CHUNK.min((end - at) as usize);
            let read = file.read_at(&mut buffer[..length], at).ok()?;
            for found in finder.find_iter(&buffer[..read]) {
                tries += 1;
                if let Some(table) = around(file, at + found as u64) {
                    return Some((table, at + found as u64));
                }
                if tries >= MAX_TRIES {
                    return None;
                }
            }
            if read < DIGITS.len() {
                break;
            }
            // The digits may lie across two chunks.
            at += if read < length || at + read as u64 == end { read } else { read - DIGITS.len() } as u64;
        }
    }
    None
}

/// The parts of a file that hold data: a guest's memory is mostly holes, and reading those through takes time.
fn data(file: &File) -> Vec<(u64, u64)> {
    use std::os::fd::AsRawFd;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let seek = |at: u64, whence| {
        let at = libc::off_t::try_from(at).ok()?;
        // SAFETY: no memory is involved. The position moves; reads here give their own.
        u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), at, whence) }).ok()
    };
    let mut parts = Vec::new();
    let mut at = 0;
    while at < length {
        let Some(start) = seek(at, libc::SEEK_DATA) else { break };
        let end = seek(start, libc::SEEK_HOLE).unwrap_or(length).max(start + 1);
        parts.push((start, end.min(length)));
        at = end;
    }
    parts
}

/// The table whose digits are at `place`, if they are those of one.
fn around(file: &File, place: u64) -> Option<Table> {
    let start = place.saturating_sub(BEFORE) & !7;
    let mut bytes = vec![0; (place - start + AFTER) as usize];
    let mut read = 0;
    while let Ok(more @ 1..) = file.read_at(&mut bytes[read..], start + read as u64) {
        read += more;
    }
    bytes.truncate(read);
    Parts::prove(&bytes, (place - start) as usize)?.table()
}

/// The parts that names are made of, proved.
struct Parts<'a> {
    bytes: &'a [u8],
    tokens: Vec<&'a [u8]>,
    number: usize,
    /// Where the number, the names and the end of the index are.
    at_number: usize,
    names: usize,
    end: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize)
}

fn round_up(at: usize) -> usize {
    (at + 7) & !7
}

impl<'a> Parts<'a> {
    fn prove(bytes: &'a [u8], digits: usize) -> Option<Self> {
        // From the digits on, the tokens up to the last.
        let mut last = digits;
        for _ in usize::from(b'0')..256 {
            last += memchr::memchr(0, bytes.get(last..)?)? + 1;
        }
        // Behind them the index, which says where they begin. Its place is a multiple of 8 in the kernel, and in memory.
        let index = round_up(last);
        let offset = |n: usize| {
            Some(usize::from(u16::from_le_bytes(bytes.get(index + 2 * n..index + 2 * n + 2)?.try_into().ok()?)))
        };
        let first = digits.checked_sub(offset(usize::from(b'0'))?)?;
        let mut tokens = Vec::with_capacity(256);
        let mut at = first;
        for n in 0..256 {
            let rest = bytes.get(at..last)?;
            let token = &rest[..memchr::memchr(0, rest)?];
            if offset(n)? != at - first || (n > 0 && token.is_empty()) {
                return None;
            }
            at += token.len() + 1;
            tokens.push(token);
        }
        let (number, at_number, names) = names_before(bytes, first)?;
        Some(Self { bytes, tokens, number, at_number, names, end: index + 512 })
    }

    /// Addresses stand before the number or behind the index.
    fn table(&self) -> Option<Table> {
        let size = round_up(4 * self.number);
        let before = self.at_number.checked_sub(8).and_then(|base| Some((base.checked_sub(size)?, base)));
        let behind = Some(round_up(self.end)).map(|offsets| (offsets, offsets + size));
        let (offsets, base) = [before, behind].into_iter().flatten().find_map(|(offsets, base)| {
            let base = u64::from_le_bytes(self.bytes.get(base..base + 8)?.try_into().ok()?);
            let offsets: Vec<usize> =
                (0..self.number).map(|n| word(self.bytes, offsets + 4 * n)).collect::<Option<_>>()?;
            (base >> 48 == 0xffff && offsets.is_sorted() && offsets.last() > Some(&0)).then_some((offsets, base))
        })?;
        let mut at = self.names;
        let mut symbols = Vec::with_capacity(self.number);
        for offset in offsets {
            let (from, to) = name(self.bytes, at)?;
            let mut text: Vec<u8> = Vec::new();
            for &token in self.bytes.get(from..to)? {
                text.extend(self.tokens[usize::from(token)]);
            }
            at = to;
            let (&kind, name) = text.split_first()?;
            symbols.push((base.wrapping_add(offset as u64), kind, String::from_utf8_lossy(name).into()));
        }
        Some(Table::new(symbols.into_iter()))
    }
}

/// Where the tokens of the name at `at` begin and end.
fn name(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (mut from, mut length) = (at + 1, usize::from(*bytes.get(at)?));
    if length & 0x80 != 0 {
        length = length & 0x7f | usize::from(*bytes.get(at + 1)?) << 7;
        from += 1;
    }
    (length > 0 && from + length <= bytes.len()).then_some((from, from + length))
}

/// The number of names, where it stands, and where they begin, for tokens that begin at `tokens`.
fn names_before(bytes: &[u8], tokens: usize) -> Option<(usize, usize, usize)> {
    let (most, mut effort) = (3 * MOST, MAX_EFFORT);
    // Between markers and tokens three bytes a name may stand.
    (0..most).step_by(8).map_while(|gap| Some((gap, tokens.checked_sub(gap)?))).find_map(|(gap, end)| {
        // An odd number of markers leaves four bytes behind them.
        let markers = markers_ending(bytes, end, &mut effort)
            .or_else(|| markers_ending(bytes, end.checked_sub(4)?, &mut effort))?;
        let groups = |bytes: usize| (bytes / 3).div_ceil(256);
        let fits = gap == 0 || (groups(gap - 8)..=groups(gap)).contains(&markers.offsets.len());
        if fits { by_markers(bytes, &markers, &mut effort) } else { None }
    })
}

/// Markers: where they are, and what they say.
struct Markers {
    at: usize,
    offsets: Vec<usize>,
}

/// The longest ascending row of words, from 0, that ends at `end`.
fn markers_ending(bytes: &[u8], end: usize, effort: &mut usize) -> Option<Markers> {
    let mut offsets = Vec::new();
    let mut at = end.checked_sub(4)?;
    loop {
        *effort = effort.checked_sub(1)?;
        let offset = word(bytes, at)?;
        if offsets.last().is_some_and(|next| offset >= *next) || offsets.len() > MOST / 256 {
            return None;
        }
        offsets.push(offset);
        if offset == 0 {
            break;
        }
        at = at.checked_sub(4)?;
    }
    offsets.reverse();
    (offsets.len() > 1).then_some(Markers { at, offsets })
}

/// The names that the markers belong to end where they begin, give or take what rounds up.
fn by_markers(bytes: &[u8], markers: &Markers, effort: &mut usize) -> Option<(usize, usize, usize)> {
    let last = *markers.offsets.last()?;
    let groups = markers.offsets.len() - 1;
    // Of the last group, 256 names at most, each of 512 tokens at most.
    let nearest = markers.at.checked_sub(last)? & !7;
    let furthest = nearest.saturating_sub(256 * 520).max(8);
    (furthest & !7..=nearest).rev().step_by(8).find_map(|names| {
        let names = names & !7;
        let number = word(bytes, names.checked_sub(8)?)?;
        let fits = (256 * groups + 1..=256 * groups + 256).contains(&number) && word(bytes, names - 4)? == 0;
        if !fits {
            return None;
        }
        let mut at = names;
        for n in 0..number {
            *effort = effort.checked_sub(1)?;
            if n % 256 == 0 && markers.offsets[n / 256] != at - names {
                return None;
            }
            (_, at) = name(bytes, at)?;
        }
        (at <= markers.at && markers.at - at < 8).then_some((number, names - 8, names))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::FromRawFd;

    const BASE: u64 = 0xffff_ffe3_4120_0000;

    /// The table of functions `f0`, `f1` and so on, 16 bytes each: with offsets behind the index, or before the number; and with
    /// the order of names before the tokens, or without.
    fn kernel(number: usize, behind: bool, order: bool) -> Vec<u8> {
        let mut out = vec![0xa5; 4096];
        let pad = |out: &mut Vec<u8>| out.resize(round_up(out.len()), 0);
        let offsets = |out: &mut Vec<u8>| {
            (0..number as u32).for_each(|n| out.extend((n * 16).to_le_bytes()));
            pad(out);
            out.extend(BASE.to_le_bytes());
        };
        // Token 1 stands for "Tf", as a compressor would make it.
        let token = |n: u8| if n == 1 { b"Tf".to_vec() } else { vec![n.max(2)] };
        if !behind {
            offsets(&mut out);
        }
        out.extend((number as u64).to_le_bytes());
        let names = out.len();
        let mut markers = Vec::new();
        for n in 0..number {
            if n % 256 == 0 {
                markers.push((out.len() - names) as u32);
            }
            let digits = n.to_string();
            out.push(1 + digits.len() as u8);
            out.push(1);
            out.extend(digits.bytes());
        }
        pad(&mut out);
        markers.iter().for_each(|marker| out.extend(marker.to_le_bytes()));
        pad(&mut out);
        if order {
            (0..number as u32).for_each(|n| out.extend(&(n * 7919 % number as u32).to_be_bytes()[1..]));
            pad(&mut out);
        }
        let (tokens, mut index) = (out.len(), Vec::new());
        for n in 0..=255 {
            index.extend(((out.len() - tokens) as u16).to_le_bytes());
            out.extend(token(n));
            out.push(0);
        }
        pad(&mut out);
        out.extend(index);
        pad(&mut out);
        if behind {
            offsets(&mut out);
        }
        out
    }

    fn memory(at: u64, contents: &[u8]) -> File {
        // SAFETY: the name is a C string, and nobody else knows the descriptor.
        let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"kallsyms".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(64 << 20).expect("room");
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at)).expect("a place");
        file.write_all(contents).expect("room");
        file
    }

    #[test]
    fn a_table_is_found_wherever_it_is() {
        for (number, behind, order) in
            [(700, false, false), (700, true, false), (1024, false, true), (1000, true, false), (1300, false, true)]
        {
            let bytes = kernel(number, behind, order);
            // Across the end of a chunk as well.
            let digits = memchr::memmem::find(&bytes, DIGITS).expect("digits") as u64;
            for at in [0, 0x20_0000, 0x123_4560, (CHUNK as u64 - digits - 8) & !7] {
                let table = find_at(&memory(at, &bytes))
                    .map(|(table, _)| table)
                    .unwrap_or_else(|| panic!("{number} {behind} {at:#x}"));
                assert_eq!(table.at(BASE + 16 * 123 + 4), Some(("f123", 4)));
                let last = number as u64 - 1;
                assert_eq!(table.at(BASE + 16 * last), Some((format!("f{last}").as_str(), 0)));
            }
        }
    }

    #[test]
    fn physical_addresses_have_names_where_the_image_is() {
        let mut image = vec![0; 0x40_0000];
        image[56..60].copy_from_slice(b"ARM\x64");
        image.extend(kernel(600, true, false));
        let table = find(&memory(0x20_0000, &image), 0x4000_0000).expect("a table");
        // The first function is where the kernel begins.
        assert_eq!(table.at(BASE + 0x20), Some(("f2", 0)));
        assert_eq!(table.at(0x4020_0024), Some(("f2", 4)));
        assert_eq!(table.at(0x4010_0024), None);
        // Linux has put the page of the header to another use.
        image[56] = 0;
        let table = find(&memory(0x20_0000, &image), 0x4000_0000).expect("a table");
        assert_eq!((table.at(BASE + 0x20), table.at(0x4020_0024)), (Some(("f2", 0)), None));
    }

    #[test]
    fn damage_anywhere_is_no_table_or_the_same_one() {
        let bytes = kernel(600, true, false);
        let whole = find_at(&memory(0, &bytes));
        assert!(whole.is_some());
        for at in (4096..bytes.len()).step_by(37) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x80;
            // Names and addresses may be others; it neither panics nor runs away.
            let _ = find_at(&memory(0, &bytes));
        }
        for length in (0..bytes.len()).step_by(101) {
            let found = find_at(&memory(0, &bytes[..length]));
            assert!(found.is_none() || found == whole, "cut off at {length}");
        }
        assert_eq!(find_at(&memory(0, &DIGITS.repeat(1000))), None);
        // Ascending words all the way down, as markers are.
        let index = kernel(600, true, false);
        // Of the tokens before the digits one has two characters.
        let tokens = memchr::memmem::find(&index, DIGITS).expect("digits") - 2 * usize::from(b'0') - 1;
        let mut hostile: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.max(1).to_le_bytes()).collect();
        hostile.extend(&index[tokens..]);
        let begun = std::time::Instant::now();
        assert!(find_at(&memory(0, &hostile)).is_none());
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
