//! claimed: the kernel says that nothing stale is left, and something is.
//!
//! Only a hint can say so: a range is declared flushed, or a frame is given back to its allocator. Without hints the reuse
//! of a plain data frame cannot be seen. An entry that merely lost its access flag still says what it said, and one that permits
//! more as well: that is no claim broken.

use crate::change::forbids_more;
use crate::descriptor::{Descriptor, Leaf};
use crate::geometry::Geometry;
use crate::residue::{Residue, ResidueId, Residues};
use crate::shadow::{Shadow, Span};

/// Residues that lead to a frame which is given back.
pub fn frame_freed(shadow: &Shadow, residues: &Residues, bbm: u8, pa: u64, size: u64) -> Vec<ResidueId> {
    let mut ids = residues.leading_to(pa, size);
    if size <= 1 << 20 {
        let pages = (pa & !0xfff..pa.saturating_add(size)).step_by(0x1000);
        ids.extend(pages.filter_map(|page| shadow.table(page)).flat_map(|table| &table.residues));
    } else {
        let table = |residue: &Residue| residue.what.entry.next().is_some_and(|next| next >= pa && next - pa < size);
        ids.extend(residues.iter().filter(|(_, residue)| table(residue)).map(|(id, _)| id));
    }
    stale(shadow, residues, bbm, ids)
}

/// Residues in a range that is declared flushed for an ASID.
pub fn flush_claimed(
    shadow: &Shadow,
    residues: &Residues,
    bbm: u8,
    start: u64,
    size: u64,
    asid: u16,
) -> Vec<ResidueId> {
    let ids = residues.iter().filter(|(_, residue)| residue.overlaps(start, size) && residue.concerns(asid));
    let ids = ids.map(|(id, _)| id).collect();
    stale(shadow, residues, bbm, ids)
}

/// Those whose slot says something else now, access flag aside; from the roots down, for what retires takes what hangs on
/// it along, and in the order in which they came into being.
fn stale(shadow: &Shadow, residues: &Residues, bbm: u8, mut ids: Vec<ResidueId>) -> Vec<ResidueId> {
    ids.retain(|id| residues.get(*id).is_some_and(|residue| !says_the_same(shadow, residue, bbm)));
    ids.sort_unstable_by_key(|id| residues.get(*id).map(|residue| (residue.what.level, residue.born(), *id)));
    ids.dedup();
    ids
}

/// Whether `new` says what `old` says, or permits more. By descriptors alone: what MAIR makes of them does not count here.
fn permits_as_much(old: &Descriptor, new: &Descriptor, bbm: u8) -> bool {
    match (old, new) {
        (Descriptor::Leaf(old), Descriptor::Leaf(new)) => {
            let says = |leaf: &Leaf| (leaf.output, leaf.attr_index, leaf.shareability, leaf.non_global, leaf.ns);
            let same_size = old.contiguous == new.contiguous || bbm >= 3;
            says(old) == says(new) && same_size && !forbids_more(old, new) && (old.nt || !new.nt)
        }
        _ => old == new,
    }
}

fn says_the_same(shadow: &Shadow, residue: &Residue, bbm: u8) -> bool {
    let what = &residue.what;
    let Some(table) = shadow.table(what.table) else { return false };
    let aged = Geometry { hw_access_flag: true, ..table.geometry };
    let bits = table.entries.get(what.index).copied().unwrap_or(0);
    // The slot may stand in a table that is linked elsewhere by now.
    let here = |span: &&Span| (span.context, span.start) == (what.context, what.start);
    let entry = Descriptor::decode(bits, what.level, &aged);
    let (spans, _) = shadow.spans(what.table, what.index);
    spans.iter().find(here).is_some_and(|span| permits_as_much(&what.entry, &entry.under(span.forbids), bbm))
}
