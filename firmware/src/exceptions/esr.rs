//! ESR_EL1 in words (Arm ARM D24.2, "ESR_EL1").

use core::fmt;

/// Exception class of an UNDEFINED instruction.
pub(super) const UNKNOWN: u64 = 0x00;
const INSTRUCTION_ABORTS: core::ops::RangeInclusive<u64> = 0x20..=0x21;
const DATA_ABORTS: core::ops::RangeInclusive<u64> = 0x24..=0x25;

/// A value of ESR_EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syndrome(pub u64);

impl Syndrome {
    /// EC.
    pub fn class(self) -> u64 {
        self.0 >> 26 & 0x3f
    }

    /// Whether this is a data abort.
    pub fn is_data_abort(self) -> bool {
        DATA_ABORTS.contains(&self.class())
    }

    /// Whether this is an instruction abort.
    pub fn is_instruction_abort(self) -> bool {
        INSTRUCTION_ABORTS.contains(&self.class())
    }

    /// Whether an aborted data access was a write (WnR).
    pub fn is_write(self) -> bool {
        self.is_data_abort() && self.0 >> 6 & 1 != 0
    }

    /// DFSC or IFSC of an abort.
    pub fn fault_status(self) -> FaultStatus {
        FaultStatus((self.0 & 0x3f) as u8)
    }

    /// Whether FAR_EL1 holds the address.
    pub fn has_far(self) -> bool {
        let not_valid = self.0 >> 10 & 1 != 0;
        matches!(self.class(), 0x22 | 0x34 | 0x35)
            || (self.is_data_abort() || self.is_instruction_abort()) && !not_valid
    }

    fn name(self) -> &'static str {
        match self.class() {
            UNKNOWN => "UNDEFINED instruction",
            0x01 => "trapped WFI or WFE",
            0x07 => "trapped SIMD or floating point",
            0x0d => "branch target exception",
            0x0e => "illegal execution state",
            0x15 => "SVC",
            0x16 => "HVC",
            0x17 => "SMC",
            0x18 => "trapped system register or instruction",
            0x1c => "pointer authentication failure",
            0x20 => "instruction abort from a lower EL",
            0x21 => "instruction abort",
            0x22 => "PC alignment fault",
            0x24 => "data abort from a lower EL",
            0x25 => "data abort",
            0x26 => "SP alignment fault",
            0x2f => "SError",
            0x30 | 0x31 => "hardware breakpoint",
            0x32 | 0x33 => "software step",
            0x34 | 0x35 => "watchpoint",
            0x3c => "BRK",
            _ => "exception of another class",
        }
    }
}

impl fmt::Display for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EC {:#04x}, {}", self.class(), self.name())?;
        if self.is_data_abort() {
            write!(f, " on a {}: {}", if self.is_write() { "write" } else { "read" }, self.fault_status())?;
        } else if self.is_instruction_abort() {
            write!(f, ": {}", self.fault_status())?;
        } else if self.class() == 0x3c {
            write!(f, " #{:#x}", self.0 & 0xffff)?;
        }
        Ok(())
    }
}

/// The fault status code of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultStatus(pub u8);

impl FaultStatus {
    /// A translation fault at any level.
    pub fn is_translation(self) -> bool {
        matches!(self.0, 0b000100..=0b000111 | 0b101011)
    }

    /// An access flag fault at any level.
    pub fn is_access_flag(self) -> bool {
        matches!(self.0, 0b001000..=0b001011)
    }

    /// A permission fault at any level.
    pub fn is_permission(self) -> bool {
        matches!(self.0, 0b001100..=0b001111)
    }

    /// A TLB conflict.
    pub fn is_tlb_conflict(self) -> bool {
        self.0 == 0b110000
    }

    /// The level of the entry that faulted, for the faults that have one.
    pub fn level(self) -> Option<i8> {
        match self.0 {
            0b000000..=0b001111 | 0b010100..=0b010111 | 0b011100..=0b011111 => Some((self.0 & 0b11) as i8),
            0b101001 | 0b101011 | 0b010011 | 0b011011 => Some(-1),
            _ => None,
        }
    }
}

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0b000000..=0b000011 | 0b101001 => "address size fault",
            0b000100..=0b000111 | 0b101011 => "translation fault",
            0b001000..=0b001011 => "access flag fault",
            0b001100..=0b001111 => "permission fault",
            0b010000 => "synchronous external abort",
            0b010001 => "synchronous tag check fault",
            0b010011..=0b010111 => "synchronous external abort on a table walk",
            0b011000 => "synchronous parity or ECC error",
            0b011011..=0b011111 => "synchronous parity or ECC error on a table walk",
            0b100001 => "alignment fault",
            0b110000 => "TLB conflict abort",
            0b110001 => "unsupported atomic hardware update fault",
            0b110100 => "lockdown",
            0b110101 => "unsupported exclusive or atomic access",
            other => return write!(f, "fault status {other:#08b}"),
        };
        f.write_str(name)?;
        match self.level() {
            Some(level) => write!(f, ", level {level}"),
            None => Ok(()),
        }
    }
}
