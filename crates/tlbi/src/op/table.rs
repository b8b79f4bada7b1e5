//! The table: every TLBI of Armv8.0 to Armv9.5 but the 128-bit TLBIP forms (Arm ARM C5.5, C5.3 "op0 == 0b01").
//!
//! A row is a form: the name without its suffixes, what it removes, and for each scope the CRm and op2 of its encoding.
//! CRn is 8, or 9 for the nXS forms of FEAT_XS. Encoding, decoding, names and execution all come from here.

use super::{Regime, Scope};

/// Which ASIDs an operation by address names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// The one in the operand, and global entries.
    One,
    /// Every one.
    Any,
    /// The regime has none.
    Untagged,
}

/// Leaf entries only, or table entries as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Leaf,
    Full,
}

/// What a form removes, and so how its operand is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    All,
    AllStages,
    AllVmids,
    DirtyState,
    Asid,
    Va(Tag, Reach),
    VaRange(Tag, Reach),
    Ipa(Reach),
    IpaRange(Reach),
    Gpt,
    GptRange(Reach),
}

/// Hands the table to `$use`: form, name, op1, whether there is an operand, regime, shape, and (CRm op2) of the local, the
/// inner shareable and the outer shareable form, where it exists.
macro_rules! with_table {
    ($use:ident) => {
        $use! {
            // EL1&0; at EL2 with HCR_EL2.{E2H, TGE} = {1, 1} the same instructions act on EL2&0.
            Vmalle1    "vmalle1"    0 none El10 (All)                    (7 0) (3 0) (1 0);
            Vae1       "vae1"       0 xt   El10 (Va(One, Full))          (7 1) (3 1) (1 1);
            Aside1     "aside1"     0 xt   El10 (Asid)                   (7 2) (3 2) (1 2);
            Vaae1      "vaae1"      0 xt   El10 (Va(Any, Full))          (7 3) (3 3) (1 3);
            Vale1      "vale1"      0 xt   El10 (Va(One, Leaf))          (7 5) (3 5) (1 5);
            Vaale1     "vaale1"     0 xt   El10 (Va(Any, Leaf))          (7 7) (3 7) (1 7);
            Rvae1      "rvae1"      0 xt   El10 (VaRange(One, Full))     (6 1) (2 1) (5 1);
            Rvaae1     "rvaae1"     0 xt   El10 (VaRange(Any, Full))     (6 3) (2 3) (5 3);
            Rvale1     "rvale1"     0 xt   El10 (VaRange(One, Leaf))     (6 5) (2 5) (5 5);
            Rvaale1    "rvaale1"    0 xt   El10 (VaRange(Any, Leaf))     (6 7) (2 7) (5 7);
            // Stage 2 of EL1&0, and both stages.
            Ipas2e1    "ipas2e1"    4 xt   El10 (Ipa(Full))              (4 1) (0 1) (4 0);
            Ripas2e1   "ripas2e1"   4 xt   El10 (IpaRange(Full))         (4 2) (0 2) (4 3);
            Ipas2le1   "ipas2le1"   4 xt   El10 (Ipa(Leaf))              (4 5) (0 5) (4 4);
            Ripas2le1  "ripas2le1"  4 xt   El10 (IpaRange(Leaf))         (4 6) (0 6) (4 7);
            Alle1      "alle1"      4 none El10 (AllVmids)               (7 4) (3 4) (1 4);
            Vmalls12e1 "vmalls12e1" 4 none El10 (AllStages)              (7 6) (3 6) (1 6);
            Vmallws2e1 "vmallws2e1" 4 none El10 (DirtyState)             (6 2) (2 2) (5 2);
            // EL2, and EL2&0.
            Alle2      "alle2"      4 none El2  (All)                    (7 0) (3 0) (1 0);
            Vae2       "vae2"       4 xt   El2  (Va(One, Full))          (7 1) (3 1) (1 1);
            Vale2      "vale2"      4 xt   El2  (Va(One, Leaf))          (7 5) (3 5) (1 5);
            Rvae2      "rvae2"      4 xt   El2  (VaRange(One, Full))     (6 1) (2 1) (5 1);
            Rvale2     "rvale2"     4 xt   El2  (VaRange(One, Leaf))     (6 5) (2 5) (5 5);
            // EL3.
            Alle3      "alle3"      6 none El3  (All)                    (7 0) (3 0) (1 0);
            Vae3       "vae3"       6 xt   El3  (Va(Untagged, Full))     (7 1) (3 1) (1 1);
            Vale3      "vale3"      6 xt   El3  (Va(Untagged, Leaf))     (7 5) (3 5) (1 5);
            Rvae3      "rvae3"      6 xt   El3  (VaRange(Untagged, Full)) (6 1) (2 1) (5 1);
            Rvale3     "rvale3"     6 xt   El3  (VaRange(Untagged, Leaf)) (6 5) (2 5) (5 5);
            // Granule protection tables (FEAT_RME): no inner shareable and no nXS forms.
            Paall      "paall"      6 none El3  (Gpt)                    (7 4) ()    (1 4);
            Rpa        "rpa"        6 xt   El3  (GptRange(Full))         ()    ()    (4 3);
            Rpal       "rpal"       6 xt   El3  (GptRange(Leaf))         ()    ()    (4 7);
        }
    };
}

macro_rules! forms {
    ($($form:ident $name:literal $op1:literal $operand:ident $regime:ident ($($shape:tt)*)
       ($($local:literal)*) ($($inner:literal)*) ($($outer:literal)*);)*) => {
        /// A TLBI's name without the suffixes for scope and nXS.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are the architecture's")]
        pub enum Form {
            $($form,)*
        }

        impl Form {
            /// Every form.
            pub const ALL: &'static [Self] = &[$(Self::$form),*];

            /// As an assembler writes it, without suffixes: `vae1`; of the operations by PA `rpa` and `rpal`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$form => $name,)* }
            }

            /// Whether the instruction takes an operand register.
            pub const fn has_operand(self) -> bool {
                match self { $(Self::$form => forms!(@operand $operand),)* }
            }

            /// Whose entries it removes.
            pub const fn regime(self) -> Regime {
                match self { $(Self::$form => Regime::$regime,)* }
            }

            pub(super) const fn shape(self) -> Shape {
                use {Reach::*, Shape::*, Tag::*};
                match self { $(Self::$form => $($shape)*,)* }
            }

            /// The form that removes that; of a regime that lacks it, everything of the regime.
            #[inline(always)]
            pub(super) const fn of(regime: Regime, shape: Shape) -> Self {
                use {Reach::*, Shape::*, Tag::*};
                match (regime, shape) {
                    $((Regime::$regime, $($shape)*) => Self::$form,)*
                    (Regime::El10, _) => Self::Vmalle1,
                    (Regime::El2, _) => Self::Alle2,
                    (Regime::El3, _) => Self::Alle3,
                }
            }

            const fn op1(self) -> u32 {
                match self { $(Self::$form => $op1,)* }
            }

            /// CRm and op2.
            #[inline(always)]
            const fn code(self, scope: Scope) -> Option<(u32, u32)> {
                match (self, scope) {
                    $((Self::$form, Scope::Local) => forms!(@code $($local)*),
                    (Self::$form, Scope::Inner) => forms!(@code $($inner)*),
                    (Self::$form, Scope::Outer) => forms!(@code $($outer)*),)*
                }
            }
        }
    };
    (@operand none) => { false };
    (@operand xt) => { true };
    (@code $crm:literal $op2:literal) => { Some(($crm, $op2)) };
    (@code) => { None };
}

with_table!(forms);

impl Form {
    /// Whether it is an operation of FEAT_TLBIRANGE.
    pub const fn is_range(self) -> bool {
        matches!(self.shape(), Shape::VaRange(..) | Shape::IpaRange(..))
    }

    /// Whether FEAT_XS gives it nXS variants: all but the operations by PA.
    #[inline(always)]
    pub const fn has_nxs(self) -> bool {
        !matches!(self, Self::Paall | Self::Rpa | Self::Rpal)
    }
}

/// A TLBI instruction without its operand: a form with its suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mnemonic {
    form: Form,
    scope: Scope,
    nxs: bool,
}

/// `sys #0, C8, C0, #0, x0`: what all TLBI instructions have in common.
const SYS_CRN8: u32 = 0xd508_8000;

impl Mnemonic {
    /// The instruction of that form and scope; `None` where the architecture has none.
    pub const fn new(form: Form, scope: Scope, nxs: bool) -> Option<Self> {
        if form.code(scope).is_none() || (nxs && !form.has_nxs()) { None } else { Some(Self { form, scope, nxs }) }
    }

    /// The narrowest instruction that removes as much, as far, and whose completion means as much.
    #[inline(always)]
    pub(super) const fn at_least(form: Form, scope: Scope, nxs: bool) -> Self {
        let scope = if form.code(scope).is_some() { scope } else { Scope::Outer };
        Self { form, scope, nxs: nxs && form.has_nxs() }
    }

    /// Every instruction, ordered by form.
    pub fn all() -> impl Iterator<Item = Self> {
        let variants = [Scope::Local, Scope::Inner, Scope::Outer].into_iter().flat_map(|s| [(s, false), (s, true)]);
        Form::ALL.iter().flat_map(move |form| variants.clone().filter_map(|(scope, nxs)| Self::new(*form, scope, nxs)))
    }

    /// The name without suffixes.
    pub const fn form(self) -> Form {
        self.form
    }

    /// Which PEs it reaches.
    pub const fn scope(self) -> Scope {
        self.scope
    }

    /// Whether its completion leaves out accesses with the XS attribute (the nXS forms of FEAT_XS).
    pub const fn nxs(self) -> bool {
        self.nxs
    }

    /// Whether the instruction takes an operand register.
    pub const fn has_operand(self) -> bool {
        self.form.has_operand()
    }

    /// The instruction's 32 bits with operand register `xt`, 0..=31; one without an operand has 31 whatever is given.
    pub const fn insn(self, xt: u8) -> u32 {
        let (crm, op2) = match self.form.code(self.scope) {
            Some(code) => code,
            // `new` and `at_least` let nothing else come into being.
            None => (0, 0),
        };
        let rt = if self.has_operand() { (xt & 31) as u32 } else { 31 };
        SYS_CRN8 | self.form.op1() << 16 | (self.nxs as u32) << 12 | crm << 8 | op2 << 5 | rt
    }

    /// The operation that `insn` encodes and its operand register's number (31: XZR).
    pub fn from_insn(insn: u32) -> Option<(Self, u8)> {
        if !is_tlbi(insn) {
            return None;
        }
        let (form, scope) = DECODE[encoding(insn)]?;
        let xt = (insn & 31) as u8;
        Self::new(form, scope, insn >> 12 & 1 != 0).filter(|m| m.insn(xt) == insn).map(|m| (m, xt))
    }
}

/// What tells TLBI instructions apart, but for nXS: op1, CRm and op2.
const fn encoding(insn: u32) -> usize {
    (insn >> 9 & 0x380 | insn >> 5 & 0x7f) as usize
}

/// The form and the scope of each encoding.
static DECODE: [Option<(Form, Scope)>; 1024] = {
    const SCOPES: [Scope; 3] = [Scope::Local, Scope::Inner, Scope::Outer];
    let mut table = [None; 1024];
    let mut n = 0;
    while n < Form::ALL.len() * SCOPES.len() {
        let (form, scope) = (Form::ALL[n / SCOPES.len()], SCOPES[n % SCOPES.len()]);
        if let Some(mnemonic) = Mnemonic::new(form, scope, false) {
            table[encoding(mnemonic.insn(0))] = Some((form, scope));
        }
        n += 1;
    }
    table
};

impl core::fmt::Display for Mnemonic {
    /// As an assembler writes it, in lower case: `vae1isnxs`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.form.name())?;
        f.write_str(match self.scope {
            Scope::Local => "",
            Scope::Inner => "is",
            Scope::Outer => "os",
        })?;
        f.write_str(if self.nxs { "nxs" } else { "" })
    }
}

/// Whether `insn` is any TLBI at all, known to this crate or not: SYS with CRn 8, or 9 for the nXS forms.
pub const fn is_tlbi(insn: u32) -> bool {
    insn & 0xfff8_e000 == SYS_CRN8
}

/// Executes the instruction with `operand` in Xt.
///
/// As SYS with the numbers of the table: an assembler wants the name of a form enabled for the whole program, and the PE
/// does not care.
///
/// # Safety
/// The PE implements the instruction, and executes at an exception level where it is defined.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn execute(mnemonic: Mnemonic, operand: u64) {
    macro_rules! issue {
        ($($form:ident $name:literal $op1:literal $operand:ident $regime:ident $shape:tt
           ($($local:literal)*) ($($inner:literal)*) ($($outer:literal)*);)*) => {
            match (mnemonic.form, mnemonic.scope) {
                $((Form::$form, Scope::Local) => issue!(@code $operand $op1 $($local)*),
                (Form::$form, Scope::Inner) => issue!(@code $operand $op1 $($inner)*),
                (Form::$form, Scope::Outer) => issue!(@code $operand $op1 $($outer)*),)*
            }
        };
        // No such instruction: `Mnemonic::new` and `at_least` let none come into being.
        (@code $operand:ident $op1:literal) => { () };
        (@code $operand:ident $op1:literal $crm:literal $op2:literal) => {
            if mnemonic.nxs { issue!(@sys $operand $op1 "c9" $crm $op2) } else { issue!(@sys $operand $op1 "c8" $crm $op2) }
        };
        (@sys none $op1:literal $crn:literal $crm:literal $op2:literal) => {
            // SAFETY: the caller's promise; the instruction touches no register and no memory.
            unsafe {
                core::arch::asm!(
                    concat!("sys #{op1}, ", $crn, ", c{crm}, #{op2}"),
                    op1 = const $op1, crm = const $crm, op2 = const $op2, options(nostack, preserves_flags)
                )
            }
        };
        (@sys xt $op1:literal $crn:literal $crm:literal $op2:literal) => {
            // SAFETY: as above.
            unsafe {
                core::arch::asm!(
                    concat!("sys #{op1}, ", $crn, ", c{crm}, #{op2}, {xt}"),
                    op1 = const $op1, crm = const $crm, op2 = const $op2, xt = in(reg) operand,
                    options(nostack, preserves_flags)
                )
            }
        };
    }
    with_table!(issue)
}
