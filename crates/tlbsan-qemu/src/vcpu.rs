//! What belongs to one vCPU: its registers, and what is remembered between its callbacks.
//!
//! Only the vCPU's own thread uses it. Atomics stand here because the table of vCPUs is shared, not because threads meet.

use crate::bindings::{Api, Array, Handle};
use crate::insn::{Named, of_el2};
use crate::memory::Ram;
use crate::walk::Stage1;
use crate::watch::Uninteresting;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use tlbsan::{IdRegister, Sysreg};

/// Frames of a stack that are looked at.
const MAX_FRAMES: usize = 24;

/// HCR_EL2.E2H: EL2 is a host's.
const HCR_E2H: u64 = 1 << 34;
/// The exception level that the model takes a PE to be at that comes out of reset.
const AFTER_RESET: u8 = 1;
/// PSCI functions after which a PE that comes back has been off: CPU_SUSPEND, CPU_OFF, CPU_DEFAULT_SUSPEND, SYSTEM_SUSPEND. As
/// 64-bit functions they have [`SMC64`] besides.
const POWER_DOWN: [u32; 4] = [0x8400_0001, 0x8400_0002, 0x8400_000c, 0x8400_000e];
const SMC64: u32 = 1 << 30;
/// The ID registers that the model asks for, by QEMU's names.
const ID_REGISTERS: [(IdRegister, &str); 4] = [
    (IdRegister::Mmfr0, "ID_AA64MMFR0_EL1"),
    (IdRegister::Mmfr1, "ID_AA64MMFR1_EL1"),
    (IdRegister::Mmfr2, "ID_AA64MMFR2_EL1"),
    (IdRegister::Isar0, "ID_AA64ISAR0_EL1"),
];

/// One vCPU.
#[derive(Debug)]
pub(crate) struct Vcpu {
    pub(crate) index: usize,
    registers: OnceLock<Registers>,
    /// The registers of EL1&0, and those of EL2 or EL2&0.
    stage1: [Stage1; 2],
    pub(crate) uninteresting: Uninteresting,
    pub(crate) vectors: Vectors,
    /// HCR_EL2.
    hcr: AtomicU64,
    /// The exception level that was told last.
    told_level: AtomicU8,
    /// Whether anything was told of it.
    begun: AtomicBool,
    /// Whether its last HVC or SMC asked to have it switched off.
    leaving: AtomicBool,
    /// Whether its ID registers were told.
    identified: AtomicBool,
    /// Whether it has issued a TLBI since its last DSB.
    pub(crate) tlbi_issued: AtomicBool,
    pub(crate) pending: Pending,
}

impl Vcpu {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            registers: OnceLock::new(),
            stage1: Default::default(),
            uninteresting: Uninteresting::new(),
            vectors: Vectors::new(),
            hcr: AtomicU64::new(0),
            told_level: AtomicU8::new(AFTER_RESET),
            begun: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            identified: AtomicBool::new(false),
            tlbi_issued: AtomicBool::new(false),
            pending: Pending::default(),
        }
    }

    /// The vCPU lives, and this is its thread. The error is the name of a register that QEMU does not show.
    pub(crate) fn start(&self, api: &Api) -> Result<(), String> {
        let registers = Registers::find(api)?;
        let _ = self.registers.set(registers);
        Ok(())
    }

    /// Whether the vCPU has been through a reset, or has been switched off and on: its MMU is off and it has not been seen to
    /// switch it off. QEMU tells plugins of neither.
    pub(crate) fn was_reset(&self, api: &Api) -> bool {
        let Some(registers) = self.registers.get() else { return false };
        let value = |register: Option<*mut Handle>| register.and_then(|handle| registers.read(api, handle));
        let off = |register| value(register).is_some_and(|sctlr| sctlr & 1 == 0);
        // Since 11.x QEMU shows a host at EL2 what the name means there: its own register.
        let is_host =
            || self.exception_level(api) == Some(2) && value(registers.hcr).is_some_and(|hcr| hcr & HCR_E2H != 0);
        let [el1, el2] = registers.sctlr;
        self.stage1[0].mmu_on() && off(el1) && !is_host() || self.stage1[1].mmu_on() && off(el2)
    }

    /// Begins anew.
    pub(crate) fn reset(&self) {
        self.stage1.iter().for_each(Stage1::reset);
        self.hcr.store(0, Ordering::Relaxed);
        self.told_level.store(AFTER_RESET, Ordering::Relaxed);
        self.tlbi_issued.store(false, Ordering::Relaxed);
        self.pending.take();
        self.uninteresting.clear();
        self.vectors.set(0);
    }

    /// An HVC or SMC with `function` in X0: does the vCPU ask PSCI to be switched off?
    pub(crate) fn calls(&self, function: u64) {
        self.leaving.store(POWER_DOWN.contains(&(function as u32 & !SMC64)), Ordering::Relaxed);
    }

    /// Whether that was the last that it asked for.
    pub(crate) fn was_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether anything was told of it.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether this is the first event of it.
    pub(crate) fn begins(&self) -> bool {
        // No swap: there is one thread.
        !self.begun.load(Ordering::Relaxed) && !self.begun.swap(true, Ordering::Relaxed)
    }

    /// X0 to X30, and XZR for 31.
    pub(crate) fn x(&self, api: &Api, n: u8) -> Option<u64> {
        let registers = self.registers.get()?;
        match registers.x.get(usize::from(n)) {
            Some(handle) => registers.read(api, *handle),
            None => Some(0),
        }
    }

    /// The exception level, 0 to 3. AArch32 code counts as 0: what we look for does not exist there.
    pub(crate) fn exception_level(&self, api: &Api) -> Option<u8> {
        let registers = self.registers.get()?;
        let cpsr = registers.read(api, registers.cpsr)?;
        Some(if cpsr & 1 << 4 != 0 { 0 } else { (cpsr >> 2 & 3) as u8 })
    }

    /// The PC of an instruction of which the translation told the low 12 bits.
    ///
    /// The PC register holds its page: QEMU sets it at the beginning of a block at least, and no block spans pages. The page
    /// known at translation may belong to another alias of the same code.
    pub(crate) fn pc(&self, api: &Api, low: u64) -> u64 {
        let page = self.registers.get().and_then(|registers| registers.read(api, registers.pc));
        page.unwrap_or(0) & !0xfff | low & 0xfff
    }

    /// A translation register has been written.
    pub(crate) fn write(&self, register: Sysreg, value: u64) {
        let el2 = matches!(register, Sysreg::Ttbr0El2 | Sysreg::Ttbr1El2 | Sysreg::TcrEl2 | Sysreg::SctlrEl2);
        self.tables(el2).write(register, value);
        if register == Sysreg::HcrEl2 {
            self.hcr.store(value, Ordering::Relaxed);
        }
    }

    /// Whether addresses are translated by the regime of EL2 now; `None` at EL3.
    pub(crate) fn in_el2(&self, api: &Api) -> Option<bool> {
        const E2H_TGE: u64 = HCR_E2H | 1 << 27;
        match self.exception_level(api)? {
            0 => Some(self.hcr.load(Ordering::Relaxed) & E2H_TGE == E2H_TGE),
            1 => Some(false),
            2 => Some(true),
            _ => None,
        }
    }

    /// The tables of EL2's regime, or of EL1&0.
    pub(crate) fn tables(&self, el2: bool) -> &Stage1 {
        &self.stage1[usize::from(el2)]
    }

    /// The register that is meant by this name at the current exception level, if it exists there. `register` is the one
    /// that the name says.
    pub(crate) fn meant(&self, api: &Api, named: Named, register: Sysreg) -> Option<Sysreg> {
        let host = self.hcr.load(Ordering::Relaxed) & HCR_E2H != 0;
        match (self.exception_level(api)?, named) {
            (1 | 3, Named::El1) => Some(register),
            (2, Named::El1) => Some(if host { of_el2(register) } else { register }),
            (2 | 3, Named::El12) => host.then_some(register),
            (2 | 3, Named::El2) => Some(register),
            _ => None,
        }
    }

    /// The exception level, if it is another than was told last.
    pub(crate) fn new_level(&self, api: &Api) -> Option<u8> {
        let level = self.exception_level(api)?;
        (self.told_level.swap(level, Ordering::Relaxed) != level).then_some(level)
    }

    /// The ID registers that QEMU shows, the first time that this is asked.
    pub(crate) fn identify(&self, api: &Api) -> Vec<(IdRegister, u64)> {
        if self.identified.swap(true, Ordering::Relaxed) {
            return Vec::new();
        }
        let Some(registers) = self.registers.get() else { return Vec::new() };
        let ids = ID_REGISTERS.into_iter().map(|(id, _)| id).zip(registers.ids);
        ids.filter_map(|(id, handle)| Some((id, registers.read(api, handle?)?))).collect()
    }

    /// log2 of the bytes that DC ZVA zeroes.
    pub(crate) fn zero_block_shift(&self, api: &Api) -> u32 {
        /// 64 bytes, as on nearly every CPU.
        const USUAL: u32 = 6;
        let read = || {
            let registers = self.registers.get()?;
            Some(2 + (registers.read(api, registers.dczid?)? & 0xf) as u32)
        };
        read().unwrap_or(USUAL)
    }

    /// Return addresses by the chain of frame pointers, innermost first: X30, then those that were saved.
    pub(crate) fn stack(&self, api: &Api, ram: &Ram) -> Vec<u64> {
        let (Some(lr), Some(mut frame)) = (self.x(api, 30), self.x(api, 29)) else { return Vec::new() };
        let regime = self.in_el2(api);
        let tables = self.tables(regime.unwrap_or(false));
        let strip = |address: u64| tables.canonical(address).unwrap_or(address);
        let mut stack = Vec::new();
        if lr == 0 {
            return stack;
        }
        stack.push(strip(lr));
        if regime.is_none() {
            return stack;
        }
        let word = |va: u64| ram.load(tables.translate(|pa| ram.load(pa), va)?);
        while stack.len() < MAX_FRAMES && frame != 0 && frame.is_multiple_of(16) {
            let (Some(next), Some(saved)) = (word(frame), word(frame + 8)) else { break };
            if saved == 0 {
                break;
            }
            let saved = strip(saved);
            // A leaf, or a function that has called nothing yet: what it saved is what X30 still holds.
            if stack.len() > 1 || saved != stack[0] {
                stack.push(saved);
            }
            // Stacks grow downwards: a caller's frame is above.
            if next <= frame {
                break;
            }
            frame = next;
        }
        stack
    }

    /// The UTF-8 text of `len` bytes at a virtual address; `None` where there is none.
    pub(crate) fn text(&self, api: &Api, ram: &Ram, va: u64, len: u64) -> Option<String> {
        /// Far more than a label has.
        const LONGEST: u64 = 4096;
        let tables = self.tables(self.in_el2(api).unwrap_or(false));
        let byte = |offset: u64| {
            let pa = tables.translate(|pa| ram.load(pa), va.checked_add(offset)?)?;
            Some((ram.load(pa & !7)? >> (8 * (pa & 7))) as u8)
        };
        let bytes: Option<Vec<u8>> = (0..len.min(LONGEST)).map(byte).collect();
        String::from_utf8(bytes?).ok()
    }
}

/// Handles of the registers that we read.
#[derive(Debug)]
struct Registers {
    x: [*mut Handle; 31],
    pc: *mut Handle,
    cpsr: *mut Handle,
    dczid: Option<*mut Handle>,
    /// [`ID_REGISTERS`].
    ids: [Option<*mut Handle>; ID_REGISTERS.len()],
    /// SCTLR_EL1 and SCTLR_EL2; HCR_EL2.
    sctlr: [Option<*mut Handle>; 2],
    hcr: Option<*mut Handle>,
    /// What QEMU reads into.
    buffer: *mut Array,
}

// SAFETY: handles are names, and the buffer is used only by the thread of the vCPU that the registers belong to: every
// callback gets the `Vcpu` of its own thread.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

impl Registers {
    fn find(api: &Api) -> Result<Self, String> {
        let mut named = HashMap::new();
        for (name, handle) in api.registers() {
            // Of several of one name the first is the core's own.
            named.entry(name).or_insert(handle);
        }
        let get = |name: &str| named.get(name).copied().ok_or_else(|| name.to_owned());
        let mut x = [std::ptr::null_mut(); 31];
        for (n, handle) in x.iter_mut().enumerate() {
            *handle = get(&format!("x{n}"))?;
        }
        let ids = ID_REGISTERS.map(|(_, name)| get(name).ok());
        // The shorter name is QEMU's until 10.x.
        let sctlr = ["SCTLR_EL1", "SCTLR_EL2"].map(|name| get(name).ok());
        let sctlr = [sctlr[0].or_else(|| get("SCTLR").ok()), sctlr[1]];
        // SAFETY: takes nothing; the array is ours and lives as long as the process.
        let buffer = unsafe { (api.bytes_new)() };
        let (dczid, hcr) = (get("DCZID_EL0").ok(), get("HCR_EL2").ok());
        Ok(Self { x, pc: get("pc")?, cpsr: get("cpsr")?, dczid, ids, sctlr, hcr, buffer })
    }

    fn read(&self, api: &Api, handle: *mut Handle) -> Option<u64> {
        // SAFETY: the handle is one that QEMU gave for this vCPU, whose thread this is, in a callback that may read
        // registers. QEMU appends to the buffer, so it is emptied first; its length says what is valid.
        let bytes = unsafe {
            (api.bytes_set_size)(self.buffer, 0);
            (api.read_register)(handle, self.buffer);
            let Array { data, len } = *self.buffer;
            if data.is_null() { &[] } else { std::slice::from_raw_parts(data, len as usize) }
        };
        match bytes.len() {
            8 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
            4 => Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?))),
            _ => None,
        }
    }
}

/// Where the vCPU's vectors are: how an exception is recognised, which QEMU 10.0 does not report.
#[derive(Debug)]
pub(crate) struct Vectors {
    /// VBAR_EL1.
    base: AtomicU64,
    /// Blocks that begin where a vector might and were found not to be one, so that a loop there costs little.
    others: [AtomicU64; Self::OTHERS],
}

impl Vectors {
    const OTHERS: usize = 64;
    /// No address of a block.
    const NONE: u64 = u64::MAX;

    fn new() -> Self {
        Self { base: AtomicU64::new(0), others: [const { AtomicU64::new(Self::NONE) }; Self::OTHERS] }
    }

    /// VBAR_EL1 has been written.
    pub(crate) fn set(&self, base: u64) {
        self.base.store(base & !0x7ff, Ordering::Relaxed);
        self.forget();
    }

    /// Translations have changed.
    pub(crate) fn forget(&self) {
        for other in &self.others {
            other.store(Self::NONE, Ordering::Relaxed);
        }
    }

    /// Whether an exception entry begins at `pc`, a multiple of 0x80.
    pub(crate) fn contains(&self, pc: u64) -> bool {
        pc & !0x7ff == self.base.load(Ordering::Relaxed)
    }

    fn other(&self, va: u64) -> &AtomicU64 {
        &self.others[(va >> 7) as usize % Self::OTHERS]
    }

    /// Whether the block that was translated at `va` was found to be no vector.
    pub(crate) fn is_other(&self, va: u64) -> bool {
        self.other(va).load(Ordering::Relaxed) == va
    }

    pub(crate) fn remember_other(&self, va: u64) {
        self.other(va).store(va, Ordering::Relaxed);
    }
}

/// A store that is known before it happens, and that QEMU will not report: told at the vCPU's next callback.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    some: AtomicBool,
    zero: AtomicBool,
    el2: AtomicBool,
    pc: AtomicU64,
    va: AtomicU64,
    size: AtomicU64,
}

/// What [`Pending`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingStore {
    /// Whether it is a DC ZVA.
    pub(crate) zero: bool,
    /// Whether the address is one of EL2's regime.
    pub(crate) el2: bool,
    pub(crate) pc: u64,
    /// First virtual address.
    pub(crate) va: u64,
    /// Bytes.
    pub(crate) size: u64,
}

impl Pending {
    pub(crate) fn set(&self, store: PendingStore) {
        self.zero.store(store.zero, Ordering::Relaxed);
        self.el2.store(store.el2, Ordering::Relaxed);
        self.pc.store(store.pc, Ordering::Relaxed);
        self.va.store(store.va, Ordering::Relaxed);
        self.size.store(store.size, Ordering::Relaxed);
        self.some.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Option<PendingStore> {
        // No swap: there is one thread, and this stands in paths that nearly always find nothing.
        if !self.some.load(Ordering::Relaxed) {
            return None;
        }
        self.some.store(false, Ordering::Relaxed);
        Some(PendingStore {
            zero: self.zero.load(Ordering::Relaxed),
            el2: self.el2.load(Ordering::Relaxed),
            pc: self.pc.load(Ordering::Relaxed),
            va: self.va.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
        })
    }
}
