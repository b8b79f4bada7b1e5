//! Why an operation does not remove an entry where it is executed.

use super::decode::Format;
use super::{Entry, PAGE};
use tlbi::{Op, Target};
use tlbsan::Cause;

/// Every reason; none: it removes the entry. It is for what the entry belongs to.
pub(crate) fn misses(op: &Op, e: &Entry) -> Vec<Cause> {
    let mut causes = Vec::new();
    let format = &e.root.format;
    match op.target {
        Target::Asid(_) if e.asid.is_none() => causes.push(Cause::GlobalSurvives),
        Target::Asid(asid) if e.asid != Some(asid.number()) => causes.push(Cause::WrongAsid),
        // What stage 1 was combined with goes with the address, whatever else the operation says.
        Target::Va { va, .. } if e.combined => causes.extend(elsewhere(e, va.bits() & !(PAGE - 1), PAGE)),
        Target::VaRange { pages, .. } if e.combined => causes.extend(elsewhere(e, pages.first_va(), pages.size())),
        Target::Va { va, asid, leaf_only, ttl } => {
            causes.extend(elsewhere(e, va.bits() & !(PAGE - 1), PAGE));
            causes.extend(ttl_misses(format, ttl >> 2, ttl & 3, e).then_some(Cause::WrongTtl));
            by_address(e, asid.map(tlbi::Asid::number), leaf_only, &mut causes);
        }
        Target::Ipa { ipa, leaf_only, ttl, .. } => {
            causes.extend(elsewhere(e, ipa.bits() & !(PAGE - 1), PAGE));
            causes.extend(ttl_misses(format, ttl >> 2, ttl & 3, e).then_some(Cause::WrongTtl));
            by_address(e, None, leaf_only, &mut causes);
        }
        Target::VaRange { pages, asid, leaf_only } => {
            range(e, pages, pages.first_va(), &mut causes);
            by_address(e, asid.map(tlbi::Asid::number), leaf_only, &mut causes);
        }
        Target::IpaRange { pages, leaf_only, .. } => {
            range(e, pages, pages.first_ipa(), &mut causes);
            by_address(e, None, leaf_only, &mut causes);
        }
        _ => {}
    }
    causes
}

fn elsewhere(e: &Entry, first: u64, size: u64) -> Option<Cause> {
    let inside = first.wrapping_sub(e.va) < e.size() || e.va.wrapping_sub(first) < size;
    (!inside).then_some(Cause::WrongRange)
}

fn by_address(e: &Entry, asid: Option<u16>, leaf_only: bool, causes: &mut Vec<Cause>) {
    causes.extend((asid.is_some() && e.asid.is_some() && e.asid != asid).then_some(Cause::WrongAsid));
    causes.extend((leaf_only && e.next().is_some()).then_some(Cause::LeafOnly));
}

/// A range names its granule, and with a level it must begin where an entry of that level can.
fn range(e: &Entry, pages: tlbi::op::Pages, first: u64, causes: &mut Vec<Cause>) {
    causes.extend(elsewhere(e, first, pages.size()));
    let level = pages.level().map_or(0, |level| level.number() as u8);
    let format = &e.root.format;
    let granule = pages.granule().map_or(0, |granule| [1, 2, 3][(granule.shift() as usize - 12) / 2]);
    let misaligned = level > 0 && !first.is_multiple_of(format.span(level as i8));
    let other = granule != tg(format) || level > 0 && ttl_misses(format, granule, level, e);
    causes.extend((other || misaligned).then_some(Cause::WrongTtl));
}

/// TG as operands say it.
fn tg(format: &Format) -> u8 {
    [1, 2, 3][(format.page as usize - 12) / 2]
}

/// TTL is granule and level of the leaf, of which neither may be 0 to mean something; a table is above that.
fn ttl_misses(format: &Format, granule: u8, level: u8, e: &Entry) -> bool {
    let named = if e.next().is_some() { level as i8 > e.level } else { level as i8 == e.level };
    granule != 0 && level != 0 && !(granule == tg(format) && named)
}
