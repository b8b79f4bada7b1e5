//! asid: an ASID or VMID is loaded with other tables while entries of the earlier ones may be cached under it.
//!
//! Contexts are judged at context synchronisation events, so that a kernel may pass through a reserved (empty) root. On one
//! PE every other root that it may still hold entries of under the same identifier counts (Arm ARM D8.16.1); between PEs
//! only if both set TTBR.CnP under it, for then they share entries (D8.16.2), whatever tables those were read from.
//! Without CnP two PEs may use one ASID for different tables.
//!
//! Controls that a TLB may cache belong to what entries say: under others the same tables are other ones. Where these are about
//! permissions and the size of output addresses alone, nothing contradicts while both are cached, as where a leaf's permissions
//! change in place: such a change may be made with the MMU on and is followed by the invalidation (MSR, ISB, TLBI, DSB, ISB). It
//! is judged at the second context synchronisation event.
//!
//! After reset the TLB's contents are UNKNOWN (D8.16): whatever is loaded before everything was invalidated meets entries
//! of that kind. What a kernel has left at EL1, having moved to EL2&0, counts as such.

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
    /// Both say the same but for controls that may change before the invalidation.
    pub may_wait: bool,
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
            let held = |since| used.may_hold(since) & sharing != 0;
            let apart = |alike| differs(shadow, &other.root, &root, alike, held);
            let (old, now) = (&other.root.geometry, &root.geometry);
            let ((index, since), may_wait) = match apart(reads(old) == reads(now)) {
                Some(slot) => (slot, false),
                None if permits(old) == permits(now) => return None,
                None => (apart(false)?, true),
            };
            Some(Clash { earlier, pes: used.may_hold(since) & sharing, index, may_wait })
        })
        .collect()
}

/// Whether `new` is the tables of `earlier` under other controls, of those that may change before the invalidation.
pub fn may_wait(earlier: &Root, new: &Root) -> bool {
    let same = (earlier.table, reads(&earlier.geometry)) == (new.table, reads(&new.geometry));
    same && permits(&earlier.geometry) != permits(&new.geometry)
}

/// Of how tables are read, what must not be cached in two ways at once.
fn reads(it: &Geometry) -> impl PartialEq {
    (it.page_shift, it.start_level, it.wide, it.controls.shareability)
}

/// Of how tables are read, what is about permissions and the size of output addresses.
fn permits(it: &Geometry) -> impl PartialEq {
    (it.flat_attributes, it.controls.output_size, it.controls.wxn, it.controls.epan)
}

/// The first slot of `earlier` that holds something which is `held` and that `new`, if it is read `alike`, does not say as well,
/// with the event since which it does. An empty root clashes with nothing.
fn differs(
    shadow: &Shadow,
    earlier: &Root,
    new: &Root,
    alike: bool,
    held: impl Fn(u64) -> bool,
) -> Option<(usize, u64)> {
    let (old, new_table) = (shadow.table(earlier.table)?, shadow.table(new.table)?);
    if new_table.is_empty() {
        return None;
    }
    let clashes = |&(index, since): &(usize, u64)| {
        let entry = old.descriptor(index);
        // A global leaf is held whatever the ASID: that another one is loaded changes nothing about it.
        let tagged = !earlier.space.has_asids() || !entry.is_global();
        entry != Descriptor::Nothing && tagged && !(alike && new_table.descriptor(index) == entry) && held(since)
    };
    old.since().iter().copied().enumerate().find(clashes)
}

/// What is read in another way, for who is told that the same entry clashes with itself.
pub fn read_otherwise(earlier: &Geometry, new: &Geometry) -> String {
    let (old, now) = (&earlier.controls, &new.controls);
    let all = [
        (earlier.page_shift != new.page_shift, "TG"),
        (earlier.va_bits != new.va_bits, "TSZ"),
        (earlier.start_level != new.start_level, "start level"),
        (earlier.wide != new.wide, "DS"),
        (earlier.flat_attributes != new.flat_attributes, "HPD"),
        (old.shareability != now.shareability, "SH"),
        (old.output_size != now.output_size, "PS"),
        (old.wxn != now.wxn, "WXN"),
        (old.epan != now.epan, "EPAN"),
    ];
    let changed: Vec<&str> = all.into_iter().filter(|(changed, _)| *changed).map(|(_, name)| name).collect();
    if changed.is_empty() { String::new() } else { format!(" (under another {})", changed.join(", ")) }
}
