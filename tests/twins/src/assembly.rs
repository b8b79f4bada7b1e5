//! From statements to assembly: one program for each PE, in which the statement's instruction stands as it is named.
//!
//! A program runs anywhere: at either end of the address space, at EL1 and EL2, with the MMU on or off. It is called with
//!
//! ```text
//! x19  what to add to a physical address to access it        x22  physical address of the blocks
//! x20  physical address of the tables                        x23  where the machine's own register values are
//! x21  physical address of the frames                        x24  where the turn is
//! ```
//!
//! and changes x0 to x17. PEs take turns: each waits with WFE and an acquire load and says with a release store and SEV that the
//! next may go on. No DSB and no ISB: a barrier there would cure what the sequence shows. A program ends when all are done.
//!
//! At EL2 an exception goes on at x17: `el 2` is an HVC, and an access that stage 2 refuses goes on behind itself.

use crate::{
    Access, Area, Need, Register, SCTLR_MMU, Statement, Step, TCR_DS, TCR_HA, TCR_TG0_16K, VTCR_DS, Value, World,
    Written,
};
use std::fmt::Write;
use tlbi::Scope;
use tlbsan_hint::Hint;

/// Offset from x23 of the machine's own value of a register, which has the MMU on. One place is for TCR_EL2 in the regimes of EL2,
/// and for VTCR_EL2 beside a guest.
fn own(register: Register) -> usize {
    match register {
        Register::TcrEl1 => 0,
        Register::SctlrEl1 => 8,
        Register::SctlrEl2 => 16,
        Register::TcrEl2 | Register::VtcrEl2 => 72,
        other => panic!("no own value of {}", other.name()),
    }
}

/// What a PE must have for a sequence, beyond Armv8.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// FEAT_BBM of exactly this level.
    pub bbm: Option<u8>,
    /// FEAT_ETS2, or that there is none.
    pub ets2: Option<bool>,
    /// FEAT_TTL.
    pub ttl: bool,
    /// FEAT_TLBIRANGE.
    pub range: bool,
    /// FEAT_TLBIOS.
    pub outer: bool,
    /// FEAT_XS.
    pub nxs: bool,
    /// FEAT_TTCNP.
    pub cnp: bool,
    /// Pages of 16 KiB.
    pub k16: bool,
    /// FEAT_HAFDBS.
    pub hafdbs: bool,
    /// FEAT_LPA2, with the pages that there are.
    pub lpa2: bool,
}

impl Needs {
    /// Those of a sequence.
    pub fn of(statements: &[Statement]) -> Self {
        let mut needs = Self::default();
        for Statement { step, .. } in statements {
            match *step {
                Step::Need(Need::Bbm(level)) => needs.bbm = Some(level),
                Step::Need(Need::Ets2(there)) => needs.ets2 = Some(there),
                Step::Dsb(dsb) => needs.nxs |= dsb.is_nxs(),
                Step::Tlbi(mnemonic, xt) => {
                    let range = mnemonic.form().is_range();
                    needs.range |= range;
                    needs.ttl |= !range && mnemonic.has_operand() && xt >> 44 & 0xf != 0;
                    needs.outer |= mnemonic.scope() == Scope::Outer;
                    needs.nxs |= mnemonic.nxs();
                }
                Step::Write(
                    Register::Ttbr0El1 | Register::Ttbr0El2 | Register::VttbrEl2,
                    Written::Value(Value { bits, .. }),
                ) => needs.cnp |= bits & 1 != 0,
                Step::Write(Register::TcrEl1, Written::Bits { set, .. }) => {
                    needs.k16 |= set & TCR_TG0_16K != 0;
                    needs.hafdbs |= set >> TCR_HA & 1 != 0;
                    needs.lpa2 |= set >> TCR_DS & 1 != 0;
                }
                Step::Write(Register::VtcrEl2, Written::Bits { set, .. }) => {
                    needs.k16 |= set & TCR_TG0_16K != 0;
                    needs.lpa2 |= set >> VTCR_DS & 1 != 0;
                }
                _ => {}
            }
        }
        needs
    }
}

/// The program of `pe`, under the name `symbol`.
pub fn program(symbol: &str, statements: &[Statement], world: World, pe: usize) -> String {
    let mut program = Program { text: String::new(), label: 0, el: first_level(world), mmu_off: false, world };
    program.line(format_args!("    .balign 4\n    .type {symbol}, %function\n{symbol}:"));
    let (mut turn, mut last) = (0, 0);
    for statement in statements {
        if statement.pe != last {
            if last == pe {
                program.pass(turn + 1);
            }
            (turn, last) = (turn + 1, statement.pe);
            if last == pe {
                program.wait(turn);
            }
        }
        if statement.pe == pe {
            program.step(statement.step);
        }
    }
    if last == pe {
        program.pass(turn + 1);
    }
    program.wait(turn + 1);
    program.end();
    program.line(format_args!("    ret\n    .size {symbol}, . - {symbol}\n"));
    program.text
}

fn first_level(world: World) -> u8 {
    match world {
        World::ResetEl2 | World::El2 | World::El2Host | World::Guest | World::GuestMmuOn => 2,
        _ => 1,
    }
}

struct Program {
    text: String,
    label: usize,
    /// The exception level, and whether the MMU is off at EL1, at this place of the program.
    el: u8,
    mmu_off: bool,
    world: World,
}

impl Program {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// Instructions, separated by `;`.
    fn emit(&mut self, instructions: &str) {
        for instruction in instructions.split(';') {
            self.line(format_args!("    {}", instruction.trim()));
        }
    }

    /// A number for labels of this place.
    fn fresh(&mut self) -> usize {
        self.label += 1;
        100 + self.label
    }

    fn load(&mut self, register: &str, value: u64) {
        self.emit(&format!("movz {register}, #{:#x}", value & 0xffff));
        for shift in [16, 32, 48].into_iter().filter(|shift| value >> shift & 0xffff != 0) {
            self.emit(&format!("movk {register}, #{:#x}, lsl #{shift}", value >> shift & 0xffff));
        }
    }

    fn load_value(&mut self, register: &str, value: Value) {
        self.load(register, value.bits);
        match value.area {
            Area::Nowhere => {}
            Area::Tables => self.emit(&format!("add {register}, {register}, x20")),
            Area::Frames => self.emit(&format!("add {register}, {register}, x21")),
            Area::Blocks => self.emit(&format!("add {register}, {register}, x22")),
        }
    }

    fn pass(&mut self, turn: usize) {
        self.emit(&format!("mov w0, #{turn}; stlr w0, [x24]; sev"));
    }

    fn wait(&mut self, turn: usize) {
        let n = self.fresh();
        self.line(format_args!("{n}:"));
        self.emit(&format!("ldar w0, [x24]; cmp w0, #{turn}; b.hs {n}1f; wfe; b {n}b"));
        self.line(format_args!("{n}1:"));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Store(at, value) => {
                self.load_value("x0", at);
                self.load_value("x1", value);
                self.emit("str x1, [x0, x19]");
            }
            Step::Load(at) => {
                self.load_value("x0", at);
                self.emit("ldr x1, [x0, x19]");
            }
            Step::Zero(page) => {
                self.load_value("x0", page);
                self.zero();
            }
            Step::Dsb(dsb) => self.line(format_args!("    .inst {:#x} // dsb {}", dsb.insn(), dsb.option())),
            Step::Isb => self.emit("isb"),
            Step::Eret => self.eret(self.el),
            Step::Exception => self.access("mov x0, #8", "ldr x1, [x0]"),
            Step::El(el) => self.go_to(el),
            Step::Reset(_) | Step::Need(_) => {}
            Step::Write(register, written) => self.write(register, written),
            Step::Tlbi(mnemonic, xt) => {
                if mnemonic.has_operand() {
                    self.load("x0", xt);
                }
                self.line(format_args!("    .inst {:#x} // tlbi {mnemonic}", mnemonic.insn(0)));
            }
            Step::Access(kind, va, _) => {
                self.load("x0", va);
                match kind {
                    Access::Read => self.access("nop", "ldr x1, [x0]"),
                    Access::Write => self.access("nop", "str xzr, [x0]"),
                    Access::Fetch => panic!("no PE can show that it fetches"),
                }
            }
            Step::Claim(start, size) => self.hint(Hint::FlushClaimed { start, size, asid: crate::ASID }, None),
            Step::Free(page) => self.hint(Hint::FrameFreed { pa: page.bits, size: 0x1000 }, Some(page)),
        }
    }

    /// DC ZVA, all of the page at x0.
    fn zero(&mut self) {
        let n = self.fresh();
        self.emit(
            "add x0, x0, x19; add x1, x0, #0x1000; mrs x2, dczid_el0; and x2, x2, #0xf; mov x3, #4; lsl x2, x3, x2",
        );
        self.line(format_args!("{n}:"));
        self.emit(&format!("dc zva, x0; add x0, x0, x2; cmp x0, x1; b.lo {n}b"));
    }

    /// An access that may fault, at EL1 with the firmware's vectors or under EL2's: goes on behind it.
    fn access(&mut self, before: &str, instruction: &str) {
        let n = self.fresh();
        self.emit(before);
        self.emit(&format!("adr x17, {n}1f"));
        self.line(format_args!("{n}:"));
        self.emit(instruction);
        self.line(format_args!("{n}1:"));
        if !self.world.is_guest() {
            self.emit(&format!(".pushsection .fixups, \"a\", @progbits; .quad {n}b, {n}1b; .popsection"));
        }
    }

    /// An exception return to the next instruction, at exception level `el`.
    fn eret(&mut self, el: u8) {
        let (n, from) = (self.fresh(), self.el);
        self.emit(&format!("adr x17, {n}f; msr elr_el{from}, x17; mov x0, #{:#x}; msr spsr_el{from}, x0", spsr(el)));
        self.emit("eret");
        self.line(format_args!("{n}:"));
        self.el = el;
    }

    fn go_to(&mut self, el: u8) {
        if el > self.el {
            let n = self.fresh();
            self.emit(&format!("adr x17, {n}f; hvc #0"));
            self.line(format_args!("{n}:"));
            self.el = el;
        } else {
            self.eret(el);
        }
    }

    fn write(&mut self, register: Register, written: Written) {
        match written {
            Written::Value(value) => self.load_value("x1", value),
            Written::Bits { clear, set } => {
                self.emit(&format!("ldr x1, [x23, #{}]", own(register)));
                self.load("x2", clear);
                self.emit("bic x1, x1, x2");
                self.load("x2", set);
                self.emit("orr x1, x1, x2");
                if register == Register::SctlrEl1 {
                    self.mmu_off = clear & SCTLR_MMU != 0;
                }
            }
        }
        self.emit(&format!("msr {}, x1", register.name()));
    }

    fn hint(&mut self, hint: Hint, pa: Option<Value>) {
        let (insn, args) = hint.insn();
        for (n, arg) in args.into_iter().enumerate() {
            self.load(&format!("x{n}"), arg);
        }
        if let Some(pa) = pa {
            self.load_value("x0", pa);
        }
        self.line(format_args!("    .inst {insn:#x}"));
    }

    /// Back to where the caller can go on.
    fn end(&mut self) {
        if self.el != first_level(self.world) {
            self.go_to(first_level(self.world));
        }
        if self.mmu_off {
            self.write(Register::SctlrEl1, Written::Bits { clear: 0, set: 0 });
            self.emit("isb");
        }
    }
}

/// PSTATE of an exception level with its own stack pointer and everything masked.
fn spsr(el: u8) -> u64 {
    0x3c0 | u64::from(el) << 2 | 1
}
