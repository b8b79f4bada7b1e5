//! Which of the guest's instructions matter, from their 32 bits (Arm ARM C4.1, C5).
//!
//! TLBI, DSB, ISB and hints are decoded by the crates that own them; what only the checker looks at is decoded here.

use tlbi::{Dsb, Mnemonic, op};
use tlbsan::Sysreg;
use tlbsan_hint::HintCode;

/// An instruction that the model or this plugin must know of. A register number of 31 means XZR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insn {
    Tlbi(Mnemonic, u8),
    UnknownTlbi(u32),
    Dsb(Dsb),
    Isb,
    Eret,
    /// HVC or SMC: an exception, even if QEMU itself answers the call and no vector is entered.
    Call,
    /// MSR of a register that the model follows.
    Sysreg(Named, Sysreg, u8),
    /// MSR VBAR_EL1.
    Vbar(Named, u8),
    Hint(HintCode),
    /// DC ZVA or DC GZVA.
    Zero(u8),
    /// SETP, SETM, SETE, CPY and their kin: stores that QEMU does not report.
    MemoryOp {
        /// Register of the destination address.
        address: u8,
        /// Register of the number of bytes.
        size: u8,
    },
}

/// Under which name a register is accessed. The register of EL1 stands for its name where the name is one of EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// `_EL1`: at EL2 with HCR_EL2.E2H it means the register of EL2.
    El1,
    /// `_EL12`: exists at EL2 with HCR_EL2.E2H only.
    El12,
    /// `_EL2`.
    El2,
}

/// `MSR <system register>, Xt` with op0 = 3: what remains selects the register.
const MSR: u32 = 0xd518_0000;

/// `(op1, CRn, CRm, op2)` as they stand in an MSR.
const fn sysreg(op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

impl Insn {
    /// The instruction, if it is one of those.
    pub(crate) fn decode(insn: u32) -> Option<Self> {
        // What everything but hints, ERET, calls and memory operations has in common: most instructions stop here.
        if insn >> 22 == 0xd500_0000 >> 22 {
            return decode_system(insn);
        }
        match insn {
            // ERET, ERETAA, ERETAB.
            0xd69f_03e0 | 0xd69f_0bff | 0xd69f_0fff => return Some(Self::Eret),
            // HVC #imm, SMC #imm.
            _ if matches!(insn & 0xffe0_001f, 0xd400_0002 | 0xd400_0003) => return Some(Self::Call),
            _ => {}
        }
        if let Some(code) = HintCode::from_insn(insn) {
            return Some(Self::Hint(code));
        }
        decode_memory_op(insn)
    }

    /// Whether the instruction may access memory in a way that QEMU reports: loads and stores, SVE and SME.
    ///
    /// Only where to put callbacks: a yes for an instruction that accesses nothing costs nothing when it runs.
    pub(crate) fn may_access_memory(insn: u32) -> bool {
        let loads_and_stores = insn & 0x0a00_0000 == 0x0800_0000;
        let scalable = insn & 0x9a00_0000 == 0x8000_0000;
        loads_and_stores || scalable
    }
}

fn decode_system(insn: u32) -> Option<Insn> {
    let rt = (insn & 31) as u8;
    if let Some((mnemonic, xt)) = Mnemonic::from_insn(insn) {
        return Some(Insn::Tlbi(mnemonic, xt));
    }
    if op::is_tlbi(insn) {
        return Some(Insn::UnknownTlbi(insn));
    }
    if let Some(dsb) = decode_dsb(insn) {
        return Some(Insn::Dsb(dsb));
    }
    // Every option of ISB behaves as SY.
    if insn & 0xffff_f0ff == tlbi::barrier::ISB_INSN & 0xffff_f0ff {
        return Some(Insn::Isb);
    }
    // DC ZVA, DC GZVA.
    if matches!(insn & !31, 0xd50b_7420 | 0xd50b_7480) {
        return Some(Insn::Zero(rt));
    }
    if insn & 0xfff8_0000 != MSR {
        return None;
    }
    // op1: which name.
    let selector = insn & 0x7_ffe0;
    let named = match selector >> 16 {
        0 => Named::El1,
        5 => Named::El12,
        4 => Named::El2,
        _ => return None,
    };
    const SCTLR: u32 = sysreg(0, 1, 0, 0);
    const HCR: u32 = sysreg(0, 1, 1, 0);
    const TTBR0: u32 = sysreg(0, 2, 0, 0);
    const TTBR1: u32 = sysreg(0, 2, 0, 1);
    const TCR: u32 = sysreg(0, 2, 0, 2);
    const VTTBR: u32 = sysreg(0, 2, 1, 0);
    const VTCR: u32 = sysreg(0, 2, 1, 2);
    const MAIR: u32 = sysreg(0, 10, 2, 0);
    const VBAR: u32 = sysreg(0, 12, 0, 0);
    let register = match (selector & 0xffff, named == Named::El2) {
        (VBAR, false) => return Some(Insn::Vbar(named, rt)),
        (HCR, true) => Sysreg::HcrEl2,
        (VTTBR, true) => Sysreg::VttbrEl2,
        (VTCR, true) => Sysreg::VtcrEl2,
        (SCTLR, el2) => either(el2, Sysreg::SctlrEl1),
        (TTBR0, el2) => either(el2, Sysreg::Ttbr0El1),
        (TTBR1, el2) => either(el2, Sysreg::Ttbr1El1),
        (TCR, el2) => either(el2, Sysreg::TcrEl1),
        (MAIR, el2) => either(el2, Sysreg::MairEl1),
        _ => return None,
    };
    Some(Insn::Sysreg(named, register, rt))
}

/// The register of EL1, or the one of EL2 that corresponds to it.
fn either(el2: bool, register: Sysreg) -> Sysreg {
    if el2 { of_el2(register) } else { register }
}

/// What the name of a register of EL1 means at EL2 with HCR_EL2.E2H.
pub(crate) fn of_el2(register: Sysreg) -> Sysreg {
    match register {
        Sysreg::Ttbr0El1 => Sysreg::Ttbr0El2,
        Sysreg::Ttbr1El1 => Sysreg::Ttbr1El2,
        Sysreg::TcrEl1 => Sysreg::TcrEl2,
        Sysreg::SctlrEl1 => Sysreg::SctlrEl2,
        Sysreg::MairEl1 => Sysreg::MairEl2,
        other => other,
    }
}

/// The lowest exception level at which a TLBI is defined: op1 says so.
pub(crate) fn lowest_level(mnemonic: Mnemonic) -> u8 {
    match mnemonic.insn(0) >> 16 & 7 {
        0 => 1,
        4 => 2,
        _ => 3,
    }
}

/// The DSB, a reserved option as SY.
fn decode_dsb(insn: u32) -> Option<Dsb> {
    if let Some(dsb) = Dsb::from_insn(insn) {
        return Some(dsb);
    }
    match insn {
        // Options 8 and 12; 0 and 4 are SSBB and PSSBB, no DSBs.
        0xd503_389f | 0xd503_3c9f => Some(Dsb::Sy),
        _ => None,
    }
}

/// FEAT_MOPS: `xx 011 o0 01 op1 0 Rs op2 01 Rn Rd`, with op1 = 3 for the SETs, and 0, 1, 2 for the CPYs' P, M and E.
fn decode_memory_op(insn: u32) -> Option<Insn> {
    if insn & 0xfb20_0c00 != 0x1900_0400 {
        return None;
    }
    let op1 = insn >> 22 & 3;
    // The SETs have their stage in op2<3:2>, of which 3 is unallocated.
    let stage = if op1 == 3 { insn >> 14 & 3 } else { op1 };
    (stage != 3).then_some(Insn::MemoryOp { address: (insn & 31) as u8, size: (insn >> 5 & 31) as u8 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlbi::{Form, Scope};

    fn tlbi(form: Form, scope: Scope, nxs: bool, xt: u8) -> Insn {
        Insn::Tlbi(Mnemonic::new(form, scope, nxs).expect("an instruction"), xt)
    }

    /// What llvm-mc makes of the text, and what it must be taken for.
    #[test]
    fn assembled_instructions_are_recognised() {
        for (insn, text, expected) in [
            (0xd508_8328, "tlbi vae1is, x8", tlbi(Form::Vae1, Scope::Inner, false, 8)),
            (0xd508_831f, "tlbi vmalle1is", tlbi(Form::Vmalle1, Scope::Inner, false, 31)),
            (0xd50c_879f, "tlbi alle1", tlbi(Form::Alle1, Scope::Local, false, 31)),
            (0xd508_9328, "tlbi vae1isnxs, x8", tlbi(Form::Vae1, Scope::Inner, true, 8)),
            (0xd50f_8328, "sys #7, c8, c3, #1, x8", Insn::UnknownTlbi(0xd50f_8328)),
            (0xd503_3b9f, "dsb ish", Insn::Dsb(Dsb::Ish)),
            (0xd503_3a3f, "dsb ishnxs", Insn::Dsb(Dsb::IshNxs)),
            (0xd503_363f, "dsb nshnxs", Insn::Dsb(Dsb::NshNxs)),
            (0xd503_323f, "dsb oshnxs", Insn::Dsb(Dsb::OshNxs)),
            (0xd503_3e3f, "dsb synxs", Insn::Dsb(Dsb::SyNxs)),
            (0xd503_3c9f, "dsb #12", Insn::Dsb(Dsb::Sy)),
            (0xd503_3fdf, "isb", Insn::Isb),
            (0xd503_30df, "isb #0", Insn::Isb),
            (0xd69f_03e0, "eret", Insn::Eret),
            (0xd69f_0bff, "eretaa", Insn::Eret),
            (0xd69f_0fff, "eretab", Insn::Eret),
            (0xd400_0002, "hvc #0", Insn::Call),
            (0xd400_0023, "smc #1", Insn::Call),
            (0xd518_2003, "msr ttbr0_el1, x3", Insn::Sysreg(Named::El1, Sysreg::Ttbr0El1, 3)),
            (0xd518_203f, "msr ttbr1_el1, xzr", Insn::Sysreg(Named::El1, Sysreg::Ttbr1El1, 31)),
            (0xd518_2041, "msr tcr_el1, x1", Insn::Sysreg(Named::El1, Sysreg::TcrEl1, 1)),
            (0xd518_1000, "msr sctlr_el1, x0", Insn::Sysreg(Named::El1, Sysreg::SctlrEl1, 0)),
            (0xd51c_1000, "msr sctlr_el2, x0", Insn::Sysreg(Named::El2, Sysreg::SctlrEl2, 0)),
            (0xd51d_1000, "msr sctlr_el12, x0", Insn::Sysreg(Named::El12, Sysreg::SctlrEl1, 0)),
            (0xd51d_2003, "msr ttbr0_el12, x3", Insn::Sysreg(Named::El12, Sysreg::Ttbr0El1, 3)),
            (0xd518_c002, "msr vbar_el1, x2", Insn::Vbar(Named::El1, 2)),
            (0xd518_a203, "msr mair_el1, x3", Insn::Sysreg(Named::El1, Sysreg::MairEl1, 3)),
            (0xd51c_1105, "msr hcr_el2, x5", Insn::Sysreg(Named::El2, Sysreg::HcrEl2, 5)),
            (0xd51c_2003, "msr ttbr0_el2, x3", Insn::Sysreg(Named::El2, Sysreg::Ttbr0El2, 3)),
            (0xd51c_2043, "msr tcr_el2, x3", Insn::Sysreg(Named::El2, Sysreg::TcrEl2, 3)),
            (0xd51c_2103, "msr vttbr_el2, x3", Insn::Sysreg(Named::El2, Sysreg::VttbrEl2, 3)),
            (0xd51c_2143, "msr vtcr_el2, x3", Insn::Sysreg(Named::El2, Sysreg::VtcrEl2, 3)),
            (0xd50b_7427, "dc zva, x7", Insn::Zero(7)),
            (0xd50b_7487, "dc gzva, x7", Insn::Zero(7)),
        ] {
            assert_eq!(Insn::decode(insn), Some(expected), "{text}");
        }
    }

    #[test]
    fn every_stage_of_a_memory_operation_is_recognised() {
        for (insn, text) in [
            (0x19c2_0420, "setp [x0]!, x1!, x2"),
            (0x19c2_4420, "setm [x0]!, x1!, x2"),
            (0x19c2_8420, "sete [x0]!, x1!, x2"),
            (0x1dc2_0420, "setgp [x0]!, x1!, x2"),
            (0x1902_0420, "cpyfp [x0]!, [x2]!, x1!"),
            (0x1d02_0420, "cpyp [x0]!, [x2]!, x1!"),
            (0x1d42_0420, "cpym [x0]!, [x2]!, x1!"),
            (0x1d82_0420, "cpye [x0]!, [x2]!, x1!"),
            (0x1d02_8420, "cpyprn [x0]!, [x2]!, x1!"),
        ] {
            assert_eq!(Insn::decode(insn), Some(Insn::MemoryOp { address: 0, size: 1 }), "{text}");
        }
        assert_eq!(Insn::decode(0x1900_0400 | 3 << 22 | 3 << 14), None);
    }

    #[test]
    fn neighbours_are_not_recognised() {
        for (insn, text) in [
            (0xd538_2003, "mrs x3, ttbr0_el1"),
            (0xd518_a303, "msr amair_el1, x3"),
            (0xd51e_2003, "msr ttbr0_el3, x3"),
            (0xd51c_c002, "msr vbar_el2, x2"),
            (0xd508_7520, "ic ivau-like"),
            (0xd50b_7a20, "dc cvac, x0"),
            (0xd503_309f, "ssbb"),
            (0xd503_349f, "pssbb"),
            (0xd503_3bbf, "dmb ish"),
            (0xd503_30ff, "sb"),
            (0xd503_201f, "nop"),
            (0xd65f_03c0, "ret"),
            (0xd400_0001, "svc #0"),
            (0xf940_0020, "ldr x0, [x1]"),
            (0xd280_0020, "mov x0, #1"),
        ] {
            assert_eq!(Insn::decode(insn), None, "{text}");
        }
    }

    #[test]
    fn no_access_is_left_without_callback() {
        for (insn, text) in [
            (0xf940_0020, "ldr x0, [x1]"),
            (0xa9bf_7bfd, "stp x29, x30, [sp, #-16]!"),
            (0xc85f_7c20, "ldxr x0, [x1]"),
            (0xc8a0_7c41, "cas x0, x1, [x2]"),
            (0xf820_0041, "ldadd x0, x1, [x2]"),
            (0x3d80_0020, "str q0, [x1]"),
            (0x4c00_7c20, "st1 {v0.2d}, [x1]"),
            (0x5800_0040, "ldr x0, .+8"),
            (0xd920_0820, "stg x0, [x1]"),
            (0xe400_4020, "st1b {z0.b}, p0, [x1, x0]"),
            (0xe580_4020, "str z0, [x1]"),
            (0xa400_4020, "ld1b {z0.b}, p0/z, [x1, x0]"),
            (0x8500_4020, "ldr-like sve"),
            (0xe020_0020, "st1b {za0h.b[w12, 0]}, p0, [x1, x0]"),
        ] {
            assert!(Insn::may_access_memory(insn), "{text}");
        }
        for (insn, text) in [(0x8b02_0020, "add x0, x1, x2"), (0x1400_0001, "b .+4"), (0xd503_201f, "nop")] {
            assert!(!Insn::may_access_memory(insn), "{text}");
        }
    }

    #[test]
    fn tlbis_have_a_lowest_level() {
        for (form, level) in [(Form::Vae1, 1), (Form::Alle1, 2), (Form::Ipas2e1, 2), (Form::Vae2, 2), (Form::Alle3, 3)]
        {
            assert_eq!(lowest_level(Mnemonic::new(form, Scope::Local, false).expect("an instruction")), level);
        }
    }
}
