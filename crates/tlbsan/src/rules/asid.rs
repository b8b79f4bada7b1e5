//! asid: an ASID or VMID is loaded with other tables while entries of the earlier ones may be cached under it.
//!
//! Contexts are judged at context synchronisation events, so that a kernel may pass through a reserved (empty) root. On one
//! PE every other root that it may still hold entries of under the same identifier counts (Arm ARM D8.16.1); between PEs
//! only if both set TTBR.CnP under it, for then they share entries (D8.16.2), whatever tables those were read from.
//! Without CnP two PEs may use one ASID for different tables.
//!
//! After reset the TLB's contents are UNKNOWN (D8.16): whatever is loaded before everything was invalidated meets entries
//! of that kind.

use crate::descriptor::Descriptor;
use crate::geometry::Geometry;
use crate::machine::{PeSet, Root};
use crate::residue::Tag;
use crate::shadow::{ContextId, Shadow};

/// Two roots under one identifier, and the first slot in which they differ.
#[derive(Clone, Copy, Debug)]
pub struct Clash {
    /// The context of the earlier root.
    pub earlier: ContextId,
    /// PEs that may hold its entries, of those that count.
    pub pes: PeSet,
    /// The slot, in the earlier root.
    pub index: usize,
}

/// Earlier roots that clash with context `new`, which has just been loaded under `tag`, by what PEs may hold that are
/// `sharing` with the one that has loaded it, itself among them.
pub fn clashes(shadow: &Shadow, new: ContextId, tag: Tag, sharing: PeSet) -> Vec<Clash> {
    let Some(context) = shadow.context(new) else { return Vec::new() };
    let root = context.root;
    let others = shadow.contexts_of(root.space).iter().copied().filter(|id| *id != new);
    others
        .filter_map(|earlier| {
            let other = shadow.context(earlier)?;
            if other.root.half != root.half {
                return None;
            }
            let used = other.tags.iter().find(|used| used.tag == tag)?;
            let (index, since) = differs(shadow, &other.root, &root, |since| used.may_hold(since) & sharing != 0)?;
            Some(Clash { earlier, pes: used.may_hold(since) & sharing, index })
        })
        .collect()
}

/// The first slot of `earlier` that holds something which is `held` and that `new` does not say as well, with the event since
/// which it does. An empty root clashes with nothing.
fn differs(shadow: &Shadow, earlier: &Root, new: &Root, held: impl Fn(u64) -> bool) -> Option<(usize, u64)> {
    let (old, new_table) = (shadow.table(earlier.table)?, shadow.table(new.table)?);
    if new_table.is_empty() {
        return None;
    }
    let read_alike = |it: &Geometry| (it.page_shift, it.start_level, it.wide, it.flat_attributes);
    let same_shape = read_alike(&earlier.geometry) == read_alike(&new.geometry);
    let clashes = |&(index, since): &(usize, u64)| {
        let entry = old.descriptor(index);
        // A global leaf is held whatever the ASID: that another one is loaded changes nothing about it.
        let tagged = !earlier.space.has_asids() || !entry.is_global();
        entry != Descriptor::Nothing && tagged && !(same_shape && new_table.descriptor(index) == entry) && held(since)
    };
    old.since().iter().copied().enumerate().find(clashes)
}
