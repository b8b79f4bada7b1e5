//! stale-access: an access went to another physical address than the tables give, and nothing allowed it.
//!
//! Between the store that removes an entry and the completed invalidation an access may use the old or the new one (R7):
//! what an open residue explains is legal. After the PE's own invalidation, without a context synchronisation event in
//! between, it is the kernel's mistake, unless FEAT_ETS2 orders data accesses (R6); instruction fetches are never ordered.
//! What neither explains should not be: a change that the checker did not see, or an emulator that went wrong.

use crate::descriptor::Descriptor;
use crate::residue::Settled;

/// Whether a leaf for `size` bytes from `start` gives `pa` for `va`.
pub fn gives(entry: &Descriptor, start: u64, size: u64, va: u64, pa: u64) -> bool {
    let offset = va.wrapping_sub(start);
    match entry {
        Descriptor::Leaf(leaf) => offset < size && leaf.output.wrapping_add(offset) == pa,
        _ => false,
    }
}

/// The invalidation of its own that the PE should have synchronised before this access.
pub fn not_synchronised(settled: &[Settled], is_fetch: bool, ets2: bool, va: u64, pa: u64) -> Option<&Settled> {
    if ets2 && !is_fetch {
        return None;
    }
    settled.iter().find(|gone| gives(&gone.entry, gone.start, gone.size, va, pa))
}
