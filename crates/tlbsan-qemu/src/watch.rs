//! Which pages are of interest, and what makes all other accesses cheap.
//!
//! Nearly every access goes to a page that nobody watches. [`Watched`] answers that by physical page, but QEMU takes its time
//! to tell a physical address; so each vCPU remembers virtual pages that led nowhere ([`Uninteresting`]).
//!
//! What may be remembered: a virtual page of one translation regime, as long as neither its translation nor the set of
//! watched pages changes. The former takes a TLBI of any PE or a write to the PE's own translation registers; the latter
//! happens under whatever alias, so a page that becomes watched makes every vCPU forget everything.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a page here, whatever granule the guest uses: log2.
const PAGE_SHIFT: u32 = 12;

/// The watched pages of guest RAM, one bit each.
#[derive(Debug)]
pub(crate) struct Watched {
    first: u64,
    bits: Box<[AtomicU64]>,
    /// Counts the moments at which remembered pages become worthless.
    epoch: AtomicU64,
}

impl Watched {
    /// No page of the RAM is watched.
    pub(crate) fn new(ram_base: u64, ram_size: u64) -> Self {
        let words = (ram_size >> PAGE_SHIFT).div_ceil(64);
        let bits = std::iter::repeat_with(|| AtomicU64::new(0)).take(words as usize).collect();
        Self { first: ram_base >> PAGE_SHIFT, bits, epoch: AtomicU64::new(1) }
    }

    /// The bit of the page that holds `pa`.
    fn bit(&self, pa: u64) -> Option<(&AtomicU64, u64)> {
        let page = (pa >> PAGE_SHIFT).checked_sub(self.first)?;
        Some((self.bits.get((page / 64) as usize)?, 1 << (page % 64)))
    }

    /// Whether the page that holds `pa` is watched.
    pub(crate) fn contains(&self, pa: u64) -> bool {
        self.bit(pa).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Watches the page that holds `pa`, or no longer. A page outside RAM is never watched.
    pub(crate) fn set(&self, pa: u64, on: bool) {
        let Some((word, bit)) = self.bit(pa) else { return };
        if !on {
            word.fetch_and(!bit, Ordering::AcqRel);
        } else if word.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.forget();
        }
    }

    /// Makes every vCPU forget its uninteresting pages.
    pub(crate) fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The epoch. What is found afterwards may be remembered under it.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

/// Virtual pages of one vCPU that were found to lead to no watched page. Used by the vCPU's own thread only.
#[derive(Debug)]
pub(crate) struct Uninteresting {
    epoch: AtomicU64,
    /// A page's address, with the regime in the bits below; [`NONE`] where there is none.
    pages: [AtomicU64; Self::PAGES],
}

/// No page: not even a regime has all bits set.
const NONE: u64 = u64::MAX;

impl Uninteresting {
    /// How many pages can be remembered: 4 KiB of them, an eighth of a host's L1 cache.
    const PAGES: usize = 512;

    pub(crate) fn new() -> Self {
        Self { epoch: AtomicU64::new(0), pages: [const { AtomicU64::new(NONE) }; Self::PAGES] }
    }

    fn slot(&self, va: u64) -> &AtomicU64 {
        &self.pages[(va >> PAGE_SHIFT) as usize % Self::PAGES]
    }

    /// Whether the page that holds `va` in `regime` (below 0xfff) was found uninteresting in this epoch.
    #[inline(always)]
    pub(crate) fn contains(&self, epoch: u64, va: u64, regime: u64) -> bool {
        self.slot(va).load(Ordering::Relaxed) == (va & !0xfff | regime) && self.epoch.load(Ordering::Relaxed) == epoch
    }

    /// Remembers the page that holds `va`. `epoch` was read before the page was looked at.
    pub(crate) fn insert(&self, epoch: u64, va: u64, regime: u64) {
        if self.epoch.swap(epoch, Ordering::Relaxed) != epoch {
            self.clear();
        }
        self.slot(va).store(va & !0xfff | regime, Ordering::Relaxed);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for page in &self.pages {
            page.store(NONE, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_ram_are_watched() {
        let watched = Watched::new(0x4000_0000, 0x10_0000);
        for pa in [0x3fff_f000, 0, u64::MAX, 0x4000_0000 + 0x10_0000] {
            watched.set(pa, true);
            assert!(!watched.contains(pa), "{pa:#x}");
        }
        watched.set(0x4004_1000, true);
        assert!(watched.contains(0x4004_1fff));
        assert!(!watched.contains(0x4004_0fff) && !watched.contains(0x4004_2000));
        watched.set(0x4004_1000, false);
        assert!(!watched.contains(0x4004_1000));
    }

    #[test]
    fn a_page_that_becomes_watched_is_remembered_no_longer() {
        let watched = Watched::new(0x4000_0000, 0x10_0000);
        let seen = Uninteresting::new();
        seen.insert(watched.epoch(), 0xffff_0000_0000_5008, 2);
        assert!(seen.contains(watched.epoch(), 0xffff_0000_0000_5ff0, 2));
        assert!(!seen.contains(watched.epoch(), 0xffff_0000_0000_5ff0, 3), "another regime");
        assert!(!seen.contains(watched.epoch(), 0xffff_0000_0000_6000, 2));
        watched.set(0x4000_0000, true);
        assert!(!seen.contains(watched.epoch(), 0xffff_0000_0000_5008, 2));
        seen.insert(watched.epoch(), 0x7000, 2);
        assert!(!seen.contains(watched.epoch(), 0xffff_0000_0000_5008, 2), "left over from an older epoch");
        let before = watched.epoch();
        watched.set(0x4000_0000, true);
        assert_eq!(watched.epoch(), before, "already watched: nothing is new");
    }

    #[test]
    fn clearing_forgets() {
        let seen = Uninteresting::new();
        seen.insert(1, 0x1000, 2);
        seen.clear();
        assert!(!seen.contains(1, 0x1000, 2));
    }
}
