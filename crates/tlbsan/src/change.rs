//! What a change of a descriptor asks of the kernel: nothing, an invalidation, or break-before-make (Arm ARM D8.17.1).
//!
//! Translations are compared, not bits. Where FEAT_BBM lets the size of a block or the contiguous bit change in place, the
//! comparison needs to know what the table on one side holds: [`Judge::alike`] says so.

use crate::descriptor::{Descriptor, Leaf, Table};

/// What a change from one cacheable descriptor to another, for the same addresses, asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: both translate alike, or the new one only permits more.
    None,
    /// An invalidation some time: a permission was taken away, or the size changed where FEAT_BBM permits that.
    Tighten,
    /// Break-before-make: both must never be cached at once. The word says what differs.
    Break(&'static str),
}

/// How the entries of a table translate, compared with the block in whose place the table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alike {
    /// Exactly as the block.
    Same,
    /// As the block, or not at all, or with other permissions.
    Less,
    /// Otherwise.
    Other,
}

/// What a comparison wants to know of the world.
pub trait Judge {
    /// The level of FEAT_BBM that all PEs have.
    fn bbm(&self) -> u8;
    /// Whether two frames of `size` bytes hold the same.
    fn same_contents(&self, a: u64, b: u64, size: u64) -> bool;
    /// How a table translates, compared with a block for the same `size` bytes.
    fn alike(&self, block: &Leaf, table: &Table, size: u64) -> Alike;
    /// Whether memory type and shareability, which two leaves say differently, come to the same all the same.
    fn same_memory(&self, _a: &Leaf, _b: &Leaf) -> bool {
        false
    }
}

/// Compares two descriptors for the same `size` bytes.
pub fn compare(old: &Descriptor, new: &Descriptor, size: u64, judge: &impl Judge) -> Change {
    match (old, new) {
        (Descriptor::Nothing, _) | (_, Descriptor::Nothing) => Change::None,
        (Descriptor::Table(old), Descriptor::Table(new)) => {
            if old.next != new.next {
                Change::Break("another table")
            } else if new.hierarchical & !old.hierarchical == 0 {
                Change::None
            } else {
                Change::Tighten
            }
        }
        (Descriptor::Leaf(old), Descriptor::Table(new)) => match resized(old, new, size, judge) {
            None => Change::Break("a table in place of a block"),
            // Level 3: nothing that is stale could be told from what is new.
            Some(Alike::Same) if judge.bbm() >= 3 => Change::None,
            Some(_) => Change::Tighten,
        },
        (Descriptor::Table(old), Descriptor::Leaf(new)) => match resized(new, old, size, judge) {
            None => Change::Break("a block in place of a table"),
            // The table itself stays in walk caches whatever the level.
            Some(_) => Change::Tighten,
        },
        (Descriptor::Leaf(old), Descriptor::Leaf(new)) => compare_leaves(old, new, size, judge),
    }
}

/// How the two translate, if FEAT_BBM permits to put one in the place of the other.
fn resized(block: &Leaf, table: &Table, size: u64, judge: &impl Judge) -> Option<Alike> {
    if !permits_resizing(block, judge.bbm()) {
        return None;
    }
    let alike = judge.alike(block, table, size);
    (alike != Alike::Other).then_some(alike)
}

/// Whether a change of this block's size needs no break: level 1 asks for nT in the block's descriptor.
pub fn permits_resizing(block: &Leaf, bbm: u8) -> bool {
    bbm >= 2 || (bbm == 1 && block.nt)
}

/// Whether two leaves of different size translate alike: `offset` bytes into `block` begins `part`.
pub fn agree(block: &Leaf, part: &Leaf, offset: u64, judge: &impl Judge) -> bool {
    part.output == block.output.wrapping_add(offset)
        && part.non_global == block.non_global
        && differing_attribute(block, part, judge).is_none()
}

/// Which attribute differs between two leaves that break-before-make is due for, in either direction.
fn differing_attribute(old: &Leaf, new: &Leaf, judge: &impl Judge) -> Option<&'static str> {
    let memory = |leaf: &Leaf| (leaf.attr_index, leaf.shareability);
    if memory(old) != memory(new) && !judge.same_memory(old, new) {
        Some("another memory type or shareability")
    } else if old.ns != new.ns {
        Some("another physical address space")
    } else {
        None
    }
}

/// Whether the new leaf forbids something that the old one permits.
pub fn forbids_more(old: &Leaf, new: &Leaf) -> bool {
    (old.writable && !new.writable)
        || (old.el0 && !new.el0)
        || (!old.pxn && new.pxn)
        || (!old.uxn && new.uxn)
        || (!old.gp && new.gp)
}

fn compare_leaves(old: &Leaf, new: &Leaf, size: u64, judge: &impl Judge) -> Change {
    if let Some(what) = differing_attribute(old, new, judge) {
        return Change::Break(what);
    }
    // Only this way round: what is due is that no global entry is made beside non-global ones that overlap with it.
    if old.non_global && !new.non_global {
        return Change::Break("global after non-global");
    }
    let narrowed = !old.non_global && new.non_global;
    // Two read-only translations to equal contents cannot be told apart.
    let moved = old.output != new.output;
    if moved && (old.writable || new.writable || !judge.same_contents(old.output, new.output, size)) {
        return Change::Break("another output address");
    }
    let resized = old.contiguous != new.contiguous;
    if resized && judge.bbm() < 2 {
        return Change::Break("the contiguous bit");
    }
    let owed = resized && judge.bbm() < 3;
    // Once nT is set, what was cached without it must go before the size may change.
    if moved || owed || narrowed || forbids_more(old, new) || (!old.nt && new.nt) {
        Change::Tighten
    } else {
        Change::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    struct Plain(u8, Alike, bool);

    impl Judge for Plain {
        fn bbm(&self) -> u8 {
            self.0
        }
        fn same_contents(&self, _: u64, _: u64, _: u64) -> bool {
            self.2
        }
        fn alike(&self, _: &Leaf, _: &Table, _: u64) -> Alike {
            self.1
        }
    }

    fn decode(bits: u64, level: i8) -> Descriptor {
        Descriptor::decode(bits, level, &Geometry::stage1(12, 48).expect("a geometry"))
    }

    #[test]
    fn changes_are_told_apart() {
        let page = |bits: u64| decode(bits | 0xc03, 3); // AF, nG
        let compare = |a, b| compare(&a, &b, 4096, &Plain(0, Alike::Other, false));
        let (rw, ro) = (page(0x1000), page(0x1080));
        assert_eq!(compare(rw, ro), Change::Tighten);
        assert_eq!(compare(ro, rw), Change::None);
        assert!(matches!(compare(rw, page(0x2000)), Change::Break(_)));
        assert!(matches!(compare(ro, page(0x2080)), Change::Break(_)));
        assert!(matches!(compare(rw, page(0x1004)), Change::Break(_)), "memory type");
        assert!(matches!(compare(rw, page(0x1000 | 1 << 52)), Change::Break(_)), "contiguous");
        for (bit, what) in [(7, "read-only"), (50, "a guarded page"), (53, "PXN"), (54, "UXN")] {
            assert_eq!(compare(rw, page(0x1000 | 1 << bit)), Change::Tighten, "{what} forbids");
            assert_eq!(compare(page(0x1000 | 1 << bit), rw), Change::None, "{what} no longer");
        }
        let el0 = page(0x1040);
        assert_eq!((compare(el0, rw), compare(rw, el0)), (Change::Tighten, Change::None), "EL0 may use it or not");
        let non_secure = page(0x1020);
        assert!(
            matches!(compare(rw, non_secure), Change::Break(_)) && matches!(compare(non_secure, rw), Change::Break(_))
        );
        let global = decode(0x1000 | 0x403, 3);
        assert!(matches!(compare(rw, global), Change::Break(_)), "a global entry over a non-global one");
        assert_eq!(compare(global, rw), Change::Tighten, "other ASIDs may keep the global one");
        let same = super::compare(&ro, &page(0x2080), 4096, &Plain(0, Alike::Other, true));
        assert_eq!(same, Change::Tighten);
        for (old, new) in [(rw, page(0x2080)), (ro, page(0x2000))] {
            let same = super::compare(&old, &new, 4096, &Plain(0, Alike::Other, true));
            assert!(matches!(same, Change::Break(_)), "what may be written does not stay the same");
        }
    }

    #[test]
    fn feat_bbm_permits_changes_of_size_that_translate_alike() {
        let (block, table) = (decode(0x4000_0000 | 0xc01, 2), decode(0x5000_0003, 2));
        let nt = decode(0x4000_0000 | 0xc01 | 1 << 16, 2);
        let compare = |a, b, bbm, alike| compare(a, b, 1 << 21, &Plain(bbm, alike, false));
        for (bbm, old, expected) in [
            (0, &block, Change::Break("a table in place of a block")),
            (1, &block, Change::Break("a table in place of a block")),
            (1, &nt, Change::Tighten),
            (2, &block, Change::Tighten),
            (3, &block, Change::None),
        ] {
            assert_eq!(compare(old, &table, bbm, Alike::Same), expected, "level {bbm}");
            assert!(matches!(compare(old, &table, bbm, Alike::Other), Change::Break(_)), "level {bbm}");
        }
        let (page, run) = (decode(0x1c03, 3), decode(0x1c03 | 1 << 52, 3));
        for (bbm, expected) in [(1, Change::Break("the contiguous bit")), (2, Change::Tighten), (3, Change::None)] {
            assert_eq!(compare(&page, &run, bbm, Alike::Other), expected, "level {bbm}");
            assert_eq!(compare(&run, &page, bbm, Alike::Other), expected, "level {bbm}");
        }
        assert_eq!(compare(&table, &block, 3, Alike::Same), Change::Tighten, "the table is owed an invalidation");
        assert_eq!(compare(&block, &table, 3, Alike::Less), Change::Tighten);
        assert_eq!(compare(&block, &nt, 1, Alike::Other), Change::Tighten, "nT owes an invalidation");
    }
}
