//! Why an operation does not remove an entry where it is executed.

use super::Entry;
use tlbi::op::Pages;
use tlbi::{Op, Target};
use tlbsan::Cause;

/// Bytes that an operation names which is none for a range.
const PAGE: u64 = 4096;

/// Every reason; none: it removes the entry. It is for what the entry belongs to.
pub(super) fn misses(op: &Op, e: &Entry) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut unless = |good: bool, cause| causes.extend((!good).then_some(cause));
    // A range always names its granule.
    let of_range = |pages: Pages| {
        let granule = pages.granule().map_or(0, |granule| 1 + (granule.shift() as u8 - 12) / 2);
        (granule, pages.level().map_or(0, |level| level.number() as u8), true)
    };
    let (first, size, asid, leaf_only, hint) = match op.target {
        Target::Va { va, asid, leaf_only, ttl } => (va.bits(), PAGE, asid, leaf_only, (ttl >> 2, ttl & 3, false)),
        Target::Ipa { ipa, leaf_only, ttl, .. } => (ipa.bits(), PAGE, None, leaf_only, (ttl >> 2, ttl & 3, false)),
        Target::VaRange { pages, asid, leaf_only } => {
            (pages.first_va(), pages.size(), asid, leaf_only, of_range(pages))
        }
        Target::IpaRange { pages, leaf_only, .. } => {
            (pages.first_ipa(), pages.size(), None, leaf_only, of_range(pages))
        }
        Target::Asid(asid) => {
            unless(e.asid.is_some(), Cause::GlobalSurvives);
            unless(e.asid.is_none_or(|it| it == asid.number()), Cause::WrongAsid);
            return causes;
        }
        _ => return causes,
    };
    let first = first & !(PAGE - 1);
    unless(first.wrapping_sub(e.va) < e.size() || e.va.wrapping_sub(first) < size, Cause::WrongRange);
    // What stage 1 was combined with goes with the address, whatever else the operation says.
    if !e.combined {
        let asid = asid.map(tlbi::Asid::number);
        unless(asid.is_none() || e.asid.is_none() || e.asid == asid, Cause::WrongAsid);
        unless(!leaf_only || e.next().is_none(), Cause::LeafOnly);
        unless(hint_fits(hint, first, e), Cause::WrongTtl);
    }
    causes
}

/// The hint is granule and level of the leaf, of which neither may be 0 to mean something; a table is above that. A range must begin
/// where an entry of that level can.
fn hint_fits((granule, level, is_range): (u8, u8, bool), first: u64, e: &Entry) -> bool {
    let format = &e.root.format;
    let same_granule = u32::from(granule) == 1 + (format.page - 12) / 2;
    if granule == 0 || level == 0 {
        return !is_range || same_granule;
    }
    let level = level as i8;
    let named = if e.next().is_some() { level > e.level } else { level == e.level };
    same_granule && named && (!is_range || first.is_multiple_of(format.span(level)))
}
