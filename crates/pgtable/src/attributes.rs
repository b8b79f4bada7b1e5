//! What a mapping permits and which memory type it has: the fields of a leaf's attributes (Arm ARM D8.4, D8.5).

/// Shareability, the field SH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shareability {
    /// This PE only.
    NonShareable = 0,
    /// Outer shareable.
    Outer = 2,
    /// Inner shareable: ordinary memory of a system with several PEs.
    Inner = 3,
}

/// Attributes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// AttrIndx: which of the eight memory types in MAIR_EL1; only the low 3 bits are used.
    pub memory_type: u8,
    /// Shareability.
    pub shareability: Shareability,
    /// Stores are permitted.
    pub write: bool,
    /// EL0 has the same access as EL1.
    pub user: bool,
    /// EL0 may execute (UXN clear). EL1 never may: PXN is always set, this crate maps the lower half.
    pub user_execute: bool,
}

impl Attributes {
    /// Readable and writable by EL0, not executable, inner shareable, memory type 0.
    pub const USER_DATA: Self =
        Self { memory_type: 0, shareability: Shareability::Inner, write: true, user: true, user_execute: false };

    /// Readable by EL0 only.
    pub const USER_RODATA: Self = Self { write: false, ..Self::USER_DATA };

    /// Readable and executable by EL0.
    pub const USER_CODE: Self = Self { write: false, user_execute: true, ..Self::USER_DATA };
}
