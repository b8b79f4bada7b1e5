//! A simulated machine: memory and PEs that execute stores, loads, barriers and TLBIs, and report them to the model.
//!
//! It lets library code run under the checker on the host, without an emulator: every access is performed on its memory
//! and then told, exactly as an emulator would.

use crate::event::{AccessKind, Event, IdRegister, Sysreg, What, World};
use crate::hash::{FastMap, FastSet};
use crate::model::{Config, Model};
use crate::report::Record;
use tlbi::{Dsb, Op};
use tlbsan_hint::Hint;

/// Memory that comes into being, zeroed, where it is first stored to.
#[derive(Debug, Default)]
struct Memory {
    words: FastMap<u64, u64>,
    watched: FastSet<u64>,
    stack: Vec<u64>,
}

impl World for Memory {
    fn load(&self, pa: u64) -> Option<u64> {
        Some(self.words.get(&pa).copied().unwrap_or(0))
    }

    fn stack(&self) -> Vec<u64> {
        self.stack.clone()
    }

    fn watch(&mut self, page: u64, on: bool) {
        if on {
            self.watched.insert(page);
        } else {
            self.watched.remove(&page);
        }
    }
}

/// TCR_EL1 for a 48-bit lower half alone (EPD1), 4 KiB granule, 16-bit ASIDs from TTBR0.
pub const TCR: u64 = 16 | 16 << 16 | 1 << 23 | 2 << 30 | 1 << 36;

/// The machine. A PC is whatever the caller says it is; [`Machine::at`] sets it.
#[derive(Debug)]
pub struct Machine {
    memory: Memory,
    model: Model,
    pc: u64,
}

impl Machine {
    /// Memory all zero, every PE with its MMU off.
    pub fn new(config: Config) -> Self {
        Self { memory: Memory::default(), model: Model::new(config), pc: 0 }
    }

    /// The next events happen at this PC, called from these places.
    pub fn at(&mut self, pc: u64, stack: &[u64]) {
        self.pc = pc;
        self.memory.stack = stack.to_vec();
    }

    fn tell(&mut self, pe: usize, what: What) {
        self.model.event(&mut self.memory, &Event { pe, pc: self.pc, what });
    }

    /// Stores 8 bytes.
    pub fn store(&mut self, pe: usize, pa: u64, value: u64) {
        let pa = pa & !7;
        self.memory.words.insert(pa, value);
        if self.memory.watched.contains(&(pa & !0xfff)) {
            self.tell(pe, What::Store { pa, size: 8 });
        }
    }

    /// A store whose report is late: memory changes now, the event comes with [`Machine::report_store`].
    pub fn store_unreported(&mut self, pa: u64, value: u64) {
        self.memory.words.insert(pa & !7, value);
    }

    /// Reports an earlier store.
    pub fn report_store(&mut self, pe: usize, pa: u64) {
        self.tell(pe, What::Store { pa: pa & !7, size: 8 });
    }

    /// Loads 8 bytes.
    pub fn load(&mut self, pe: usize, pa: u64) -> u64 {
        let pa = pa & !7;
        if self.memory.watched.contains(&(pa & !0xfff)) {
            self.tell(pe, What::Load { pa, size: 8 });
        }
        self.peek(pa)
    }

    /// Stores `new` if `old` is there; returns what was there.
    pub fn compare_exchange(&mut self, pe: usize, pa: u64, old: u64, new: u64) -> Result<u64, u64> {
        let found = self.load(pe, pa);
        if found == old {
            self.store(pe, pa, new);
            Ok(found)
        } else {
            Err(found)
        }
    }

    /// Reads memory without any PE doing so.
    pub fn peek(&self, pa: u64) -> u64 {
        self.memory.words.get(&(pa & !7)).copied().unwrap_or(0)
    }

    /// Executes a TLBI.
    pub fn tlbi(&mut self, pe: usize, op: Op) {
        self.tell(pe, What::Tlbi(op));
    }

    /// Executes a TLBI that the model does not know.
    pub fn unknown_tlbi(&mut self, pe: usize, insn: u32) {
        self.tell(pe, What::UnknownTlbi(insn));
    }

    /// Executes a DSB.
    pub fn dsb(&mut self, pe: usize, dsb: Dsb) {
        self.tell(pe, What::Dsb(dsb));
    }

    /// Executes an ISB.
    pub fn isb(&mut self, pe: usize) {
        self.tell(pe, What::Isb);
    }

    /// Takes an exception to EL1.
    pub fn exception(&mut self, pe: usize) {
        self.tell(pe, What::ExceptionEntry);
    }

    /// Returns from an exception.
    pub fn eret(&mut self, pe: usize) {
        self.tell(pe, What::Eret);
    }

    /// Goes to an exception level, by ERET or by an exception.
    pub fn go_to(&mut self, pe: usize, el: u8) {
        self.tell(pe, What::Eret);
        self.tell(pe, What::El(el));
    }

    /// Comes out of reset, or is switched on.
    pub fn reset(&mut self, pe: usize) {
        self.tell(pe, What::Reset);
    }

    /// Has an ID register with this value.
    pub fn identify(&mut self, pe: usize, register: IdRegister, value: u64) {
        self.tell(pe, What::Id(register, value));
    }

    /// Accesses `va` at EL1 with a TLB that says `pa`.
    pub fn access(&mut self, pe: usize, va: u64, pa: u64, kind: AccessKind) {
        self.access_at(pe, va, pa, kind, 1);
    }

    /// Accesses `va` at an exception level with a TLB that says `pa`.
    pub fn access_at(&mut self, pe: usize, va: u64, pa: u64, kind: AccessKind, el: u8) {
        self.tell(pe, What::Access { va, pa, kind, el });
    }

    /// Executes a hint.
    pub fn hint(&mut self, pe: usize, hint: Hint) {
        self.tell(pe, What::Hint(hint));
    }

    /// Writes a system register; it takes effect with the next ISB.
    pub fn write(&mut self, pe: usize, register: Sysreg, value: u64) {
        self.tell(pe, What::Sysreg(register, value));
    }

    /// Turns the MMU on with `root` in TTBR0 under `asid`, or switches to it.
    pub fn run_in(&mut self, pe: usize, root: u64, asid: u16) {
        self.write(pe, Sysreg::TcrEl1, TCR);
        self.write(pe, Sysreg::Ttbr0El1, root | u64::from(asid) << 48);
        self.write(pe, Sysreg::SctlrEl1, 1);
        self.isb(pe);
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Records made since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.model.take_records()
    }

    /// The end of the run: the records that come last.
    pub fn finish(&mut self) -> Vec<Record> {
        self.model.finish();
        self.take_records()
    }

    /// Violations among the records made since the last call.
    pub fn take_violations(&mut self) -> Vec<crate::report::Violation> {
        let violation = |record| match record {
            Record::Violation(violation) => Some(*violation),
            _ => None,
        };
        self.take_records().into_iter().filter_map(violation).collect()
    }
}
