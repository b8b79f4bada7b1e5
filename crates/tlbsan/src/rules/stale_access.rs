//! stale-access: an access went to another physical address than the tables give, and nothing allowed it.
//!
//! Between the store that removes an entry and the completed invalidation an access may use the old or the new one (R7):
//! what an open residue explains is legal. After the PE's own invalidation, without a context synchronisation event in
//! between, its next access might use the old one still, whatever it used this time: that is the kernel's mistake, unless
//! FEAT_ETS2 orders data accesses (R6); instruction fetches are never ordered. What neither explains should not be: a change
//! that the checker did not see, or an emulator that went wrong.
//!
//! For a page that EL0 may use R6 is advice: kernels leave the ISB out there by design, since the return to EL0 is a context
//! synchronisation event. It tells where the kernel uses such a page itself before it returns.

use crate::descriptor::Descriptor;
use crate::geometry::Space;
use crate::report::Severity;
use crate::residue::Settled;

/// Whether a leaf for `size` bytes from `start` gives `pa` for `va`.
pub fn gives(entry: &Descriptor, start: u64, size: u64, va: u64, pa: u64) -> bool {
    let offset = va.wrapping_sub(start);
    match entry {
        Descriptor::Leaf(leaf) => offset < size && leaf.output.wrapping_add(offset) == pa,
        _ => false,
    }
}

/// The PE's own invalidation that this access should have been synchronised after: the old entry leads elsewhere than the
/// tables, which translate `va` to `tables` now.
pub fn not_synchronised<'a>(
    settled: impl Iterator<Item = &'a Settled>,
    is_fetch: bool,
    ets2: bool,
    va: u64,
    tables: Option<u64>,
) -> Option<&'a Settled> {
    if ets2 && !is_fetch {
        return None;
    }
    // The same address with other permissions or attributes: whichever entry was used, the access went where it should.
    let led_there = |gone: &Settled| tables.is_some_and(|pa| gives(&gone.entry, gone.start, gone.size, va, pa));
    let is_leaf = |gone: &Settled| matches!(gone.entry, Descriptor::Leaf(_));
    let might = |gone: &&Settled| va.wrapping_sub(gone.start) < gone.size && is_leaf(gone) && !led_there(gone);
    // Of several the smallest is named.
    settled.filter(might).min_by_key(|gone| gone.size)
}

/// How bad it is to use what was removed without a context synchronisation event.
pub fn severity(gone: &Descriptor, space: Space) -> Severity {
    match gone {
        // A regime without ASIDs has no EL0.
        Descriptor::Leaf(leaf) if leaf.el0 && space.has_asids() => Severity::Advice,
        _ => Severity::Error,
    }
}
