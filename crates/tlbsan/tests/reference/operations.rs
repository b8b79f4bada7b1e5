//! What an operation names, and why it does not remove an entry where it is executed.

use super::*;

/// Whether an operation is for what `e` belongs to.
pub(super) fn names(registers: &Registers, op: &Op, e: &Entry) -> bool {
    let (vmid, space) = (registers.vmid(), e.root.space);
    let current = match op.regime {
        Regime::El10 if registers.is_host() => Space::El20,
        Regime::El10 => registers.el10(),
        _ => registers.el2(),
    };
    match (op.target, space) {
        (Target::AllVmids, _) => matches!(space, Space::El10(_) | Space::Stage2(_)),
        (Target::AllStages, _) => space == Space::Stage2(vmid) || space == Space::El10(vmid),
        (Target::Ipa { .. } | Target::IpaRange { .. }, _) => space == Space::Stage2(vmid) && !e.combined,
        // The MMU of EL1&0 is off beside stage 2: a virtual address is an intermediate one. No ASID is right for all.
        (Target::Asid(_), Space::Stage2(_)) => false,
        (_, Space::Stage2(own)) => e.combined && own == vmid && current == Space::El10(vmid),
        _ => space == current,
    }
}

/// Every reason; none: it removes the entry. It is for what the entry belongs to.
pub(super) fn misses(op: &Op, e: &Entry) -> Vec<Cause> {
    let field = |at: u32, bits: u32| op.operand() >> at & ((1 << bits) - 1);
    let address = |bits: u32| ((op.operand() << (64 - bits)) as i64 >> (64 - bits)) as u64;
    let other_asid = e.asid.is_some_and(|it| u64::from(it) != field(48, 16));
    let by_asid = matches!(op.target, Target::Va { asid: Some(_), .. } | Target::VaRange { asid: Some(_), .. });
    let is_range = matches!(op.target, Target::VaRange { .. } | Target::IpaRange { .. });
    match op.target {
        Target::Va { .. } | Target::VaRange { .. } | Target::Ipa { .. } | Target::IpaRange { .. } => {}
        Target::Asid(_) if e.asid.is_none() => return vec![Cause::GlobalSurvives],
        Target::Asid(_) if other_asid => return vec![Cause::WrongAsid],
        _ => return Vec::new(),
    }
    // TG counts in steps of 2 from 4 KiB, which is 1. BaseADDR has fixed units under LPA2; NUM and SCALE count pages.
    let (tg, page, wide) = (field(46, 2), 10 + 2 * field(46, 2), e.root.geometry.wide);
    let units = if wide { 16 } else { page };
    let (first, size, level) = match is_range {
        false => (address(44) << 12, 1 << 12, field(44, 2)),
        true => (address(37) << units, (field(39, 5) + 1) << (5 * field(44, 2) + 1 + page), field(37, 2)),
    };
    // The hint names the level of the leaf; a table is above that. Levels without leaves are no hint, and there are two more of those
    // without FEAT_LPA2. A TG without a level counts for ranges only, and those must begin where an entry of their level can.
    let none = level == 0 && (is_range || tg != 1 || !wide) || (tg, level) == (2, 1) && !wide;
    let named = if e.says.next().is_some() { level as i8 > e.level } else { level as i8 == e.level };
    let begins = !is_range || first.is_multiple_of(e.root.geometry.size(level as i8));
    let fits = !is_range && (tg == 0 || none) || tg == u64::from(e.root.geometry.tg()) && (none || named && begins);
    // What stage 1 was combined with goes with the address, whatever else the operation says.
    let reasons = [
        (first.wrapping_sub(e.va) >= e.size() && e.va.wrapping_sub(first) >= size, Cause::WrongRange),
        (!e.combined && by_asid && other_asid, Cause::WrongAsid),
        (!e.combined && op.target.is_leaf_only() && e.says.next().is_some(), Cause::LeafOnly),
        (!e.combined && !fits, Cause::WrongTtl),
    ];
    reasons.iter().filter(|(applies, _)| *applies).map(|(_, cause)| *cause).collect()
}
