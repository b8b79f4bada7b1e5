//! reused: an unlinked table page is put to another use while a walk cache may still point at it.
//!
//! The walker that follows the stale pointer reads whatever the page holds now. A value with bit 0 set would be taken for
//! an entry. Entries made invalid one by one are a teardown and no harm; a page that is wholly cleared, in a way that a
//! teardown would not, has been given to a new owner.

use crate::shadow::{Scrub, TablePage};

/// What a store to a slot of an unlinked table page says of the page.
///
/// `wide`: the store covered more than this slot. The page's entry has not been updated yet.
pub fn is_reuse(page: &mut TablePage, index: usize, new: u64, wide: bool) -> bool {
    let old = page.entries[index];
    if new & 1 != 0 {
        return new != old;
    }
    if new != 0 {
        return false; // an allocator's link, for instance: no walker takes it for an entry
    }
    let scrub = page.scrubbed.get_or_insert_with(Box::<Scrub>::default);
    scrub.note(index, wide || old & 1 == 0);
    scrub.is_cleared()
}
