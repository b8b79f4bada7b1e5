//! Guest RAM, read through the mapping that QEMU itself has of it.
//!
//! The launcher gives the guest's RAM a named file (a memfd, or a file), so that it can be told in `/proc/self/maps`. A load
//! costs a few nanoseconds this way; QEMU's own interface walks the guest's tables afresh each time.

use std::sync::atomic::{AtomicU64, Ordering};

/// What QEMU's `memory-backend-memfd` is called.
const MEMFD: &str = "/memfd:memory-backend-memfd";

/// Guest RAM.
#[derive(Debug)]
pub(crate) struct Ram {
    /// Physical address of the first byte.
    base: u64,
    size: u64,
    /// Where QEMU has mapped it.
    host: *mut u8,
}

// SAFETY: the mapping is shared memory that every thread may access; it is read with atomic loads only.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// Finds the mapping of RAM at physical address `base`, backed by `backend`, or by QEMU's memfd.
    pub(crate) fn find(base: u64, size: u64, backend: Option<&str>) -> Result<Self, String> {
        let maps =
            std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("cannot read /proc/self/maps: {e}"))?;
        let name = backend.unwrap_or(MEMFD);
        let start = find_mapping(&maps, name, size).ok_or_else(|| {
            format!("QEMU has no mapping of {name} of {size:#x} bytes: is it the guest's memory backend?")
        })?;
        Ok(Self { base, size, host: start as *mut u8 })
    }

    /// The 8 bytes at `pa`, or `None` if that is no multiple of 8 or outside.
    pub(crate) fn load(&self, pa: u64) -> Option<u64> {
        let offset = pa.wrapping_sub(self.base);
        if !pa.is_multiple_of(8) || offset >= self.size {
            return None;
        }
        // SAFETY: the offset is inside the mapping, whose size and base are whole pages, so all 8 bytes are and they are
        // aligned. QEMU keeps RAM mapped until it exits. The guest may write at the same time, which atomic accesses allow.
        let word = unsafe { AtomicU64::from_ptr(self.host.add(offset as usize).cast()) };
        Some(u64::from_le(word.load(Ordering::Relaxed)))
    }
}

/// Start of the mapping of the file `name` from its beginning, of at least `size` bytes, in the text of `/proc/PID/maps`.
///
/// A mapping that the kernel has split (by `madvise`, say) counts as one.
fn find_mapping(maps: &str, name: &str, size: u64) -> Option<u64> {
    let mut current: Option<(u64, u64)> = None;
    for line in maps.lines() {
        let Some((start, end, offset)) = parse_line(line, name) else {
            current = None;
            continue;
        };
        let first = match current {
            Some((first, last)) if last == start && offset == start - first => first,
            _ if offset == 0 => start,
            _ => {
                current = None;
                continue;
            }
        };
        if end - first >= size {
            return Some(first);
        }
        current = Some((first, end));
    }
    None
}

/// `START-END PERMS OFFSET DEV INODE NAME`: start, end and offset of a shared mapping with that name.
fn parse_line(line: &str, name: &str) -> Option<(u64, u64, u64)> {
    let mut rest = line;
    let mut field = || {
        let (field, tail) = rest.trim_start().split_once(' ')?;
        rest = tail;
        Some(field)
    };
    let (start, end) = field()?.split_once('-')?;
    let perms = field()?;
    let offset = field()?;
    let (_dev, _inode) = (field()?, field()?);
    let path = rest.trim_start();
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let hex = |text| u64::from_str_radix(text, 16).ok();
    (path == name && perms.starts_with('r') && perms.ends_with('s')).then_some((hex(start)?, hex(end)?, hex(offset)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55a0c0000000-55a0c0001000 r--p 00000000 fe:00 1234                       /usr/bin/qemu-system-aarch64
7f0000000000-7f0008000000 rw-s 00000000 00:01 2048                       /memfd:memory-backend-memfd (deleted)
7f0010000000-7f0014000000 rw-s 00000000 00:01 2049                       /memfd:memory-backend-memfd (deleted)
7f0014000000-7f0018000000 rw-s 04000000 00:01 2049                       /memfd:memory-backend-memfd (deleted)
7f0020000000-7f0024000000 rw-s 04000000 00:1a 77                         /dev/shm/a file
7f0030000000-7f0034000000 rw-s 00000000 00:1a 77                         /dev/shm/a file
7f0040000000-7f0044000000 rw-p 00000000 00:1a 78                         /dev/shm/private
7f0050000000-7f0050021000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn the_backend_is_found_by_name_and_size() {
        assert_eq!(find_mapping(MAPS, MEMFD, 0x800_0000), Some(0x7f00_0000_0000));
        assert_eq!(find_mapping(MAPS, "/dev/shm/a file", 0x400_0000), Some(0x7f00_3000_0000));
        assert_eq!(find_mapping(MAPS, "/dev/shm/a file", 0x400_1000), None);
        assert_eq!(find_mapping(MAPS, "/dev/shm/private", 0x1000), None);
        assert_eq!(find_mapping(MAPS, MEMFD, 0x1000_0000), None);
        assert_eq!(find_mapping("", MEMFD, 0x1000), None);
    }

    #[test]
    fn a_split_mapping_is_one() {
        let maps: String =
            MAPS.lines().filter(|line| !line.contains(" 2048 ")).map(|line| format!("{line}\n")).collect();
        assert_eq!(find_mapping(&maps, MEMFD, 0x800_0000), Some(0x7f00_1000_0000));
    }

    #[test]
    fn loads_stay_inside() {
        let mut words = [0x11_u64, 0x22, 0x33];
        let ram = Ram { base: 0x4000_0000, size: 16, host: words.as_mut_ptr().cast() };
        assert_eq!(ram.load(0x4000_0000), Some(0x11));
        assert_eq!(ram.load(0x4000_0008), Some(0x22));
        for pa in [0x4000_0010, 0x3fff_fff8, 0x4000_0004, 0, u64::MAX - 7] {
            assert_eq!(ram.load(pa), None, "{pa:#x}");
        }
    }
}
