//! The callbacks: QEMU's events in, the model's events out.
//!
//! An instruction's callback runs before the instruction, a memory callback after the access. What an instruction is, and the
//! low 12 bits of its address, travel in the callback's data pointer, so that nothing is allocated per instruction.
//!
//! Limits, all of them QEMU's: what devices write by DMA and what hardware writes into tables by itself (access flag, dirty
//! state) is not reported; the model re-reads memory.

use crate::args::Args;
use crate::bindings::{Api, Block, Callbacks, Info, LOADS_AND_STORES, MemInfo, PluginId, READ_REGS};
use crate::checker::{Checker, Stream, Visit};
use crate::insn::{Insn, lowest_level};
use crate::memory::Ram;
use crate::vcpu::{PendingStore, Vcpu};
use crate::watch::Watched;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use tlbsan::{AccessKind, Config, Sysreg, What};

/// Bytes of a page of guest memory here.
const PAGE: u64 = 0x1000;
/// No access of QEMU's is larger, so one that begins before this offset stays in its page.
const MAX_ACCESS: u64 = 64;
/// DC ZVA's pages among the uninteresting ones, one more for EL2's. No regime of QEMU's has that number.
const ZERO_REGIME: u64 = 0x800;

/// Everything. QEMU loads a plugin once and never unloads this one.
static PLUGIN: OnceLock<Plugin> = OnceLock::new();

struct Plugin {
    api: Api,
    args: Args,
    checker: Checker,
    watched: Watched,
    vcpus: Box<[Vcpu]>,
    /// Found when the first vCPU starts: QEMU creates its memory after loading plugins.
    ram: OnceLock<Ram>,
}

/// QEMU's entry point.
///
/// # Safety
/// Called by QEMU, with information about the guest and `argc` C strings.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let installed = catch_unwind(|| {
        // SAFETY: QEMU passes valid information.
        let info = unsafe { &*info };
        // SAFETY: and that many strings.
        let args = (0..argc as usize).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) }.to_str());
        let args = args.collect::<Result<Vec<_>, _>>().map_err(|_| "an argument is no UTF-8".to_owned())?;
        install(id, info, Args::parse(args)?)
    });
    match installed {
        Ok(Ok(())) => 0,
        Ok(Err(why)) => {
            eprintln!("tlbsan: {why}");
            1
        }
        Err(_) => 1,
    }
}

fn install(id: PluginId, info: &Info, args: Args) -> Result<(), String> {
    if info.target() != "aarch64" {
        return Err(format!("the guest is {}, and tlbsan knows aarch64 only", info.target()));
    }
    let vcpus = info.max_vcpus().ok_or("this is user mode emulation, where there is nothing to check")?;
    let api = Api::resolve(info).map_err(|symbol| format!("this QEMU lacks {symbol}: 9.1 or newer is needed"))?;
    // SAFETY: the launcher opened it for us, as the argument says.
    let stream = unsafe { Stream::open(args.fd) };
    let record = match &args.record {
        Some(path) => Some(File::create(path).map_err(|e| format!("argument record={path}: {e}"))?),
        None => None,
    };
    let config =
        Config { ignore_hints: args.ignore_hints, tell_all: args.tell_all, cost: args.cost, blind: args.blind };
    let checker = stream.and_then(|stream| Checker::new(config, stream, (args.trace, args.panic_at), record));
    let plugin = Plugin {
        api,
        checker: checker.map_err(|e| format!("argument fd={}: {e}", args.fd))?,
        watched: Watched::new(args.ram_base, args.ram_size),
        vcpus: (0..vcpus).map(Vcpu::new).collect(),
        ram: OnceLock::new(),
        args,
    };
    PLUGIN.set(plugin).map_err(|_| "the plugin is loaded twice".to_owned())?;
    // SAFETY: QEMU is installing us under this id.
    unsafe { api.register::<Hooks>(id) };
    Ok(())
}

/// Runs a callback's work, unless checking has stopped, and stops it upon a panic, which must not reach QEMU.
fn guard(work: impl FnOnce(&'static Plugin)) {
    let Some(plugin) = PLUGIN.get() else { return };
    if plugin.checker.stopped() {
        return;
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(plugin))) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        // Nothing may unwind from here, not even out of a failing message.
        let _ = catch_unwind(AssertUnwindSafe(|| plugin.checker.stop(&format!("the checker has panicked: {text}"))));
    }
}

struct Hooks;

impl Callbacks for Hooks {
    fn vcpu_init(vcpu: u32) {
        guard(|plugin| plugin.vcpu_init(vcpu));
    }

    fn translate(block: *mut Block) {
        guard(|plugin| plugin.translate(block));
    }

    fn at_exit() {
        guard(|plugin| plugin.checker.finish());
    }
}

/// A callback's data: the instruction's bits and the low 12 bits of its address.
fn pack(bits: u32, va: u64) -> *mut c_void {
    (u64::from(bits) | (va & 0xfff) << 32) as *mut c_void
}

fn unpack(data: *mut c_void) -> (u32, u64) {
    let data = data as u64;
    (data as u32, data >> 32)
}

extern "C" fn on_instruction(vcpu: u32, data: *mut c_void) {
    guard(|plugin| {
        let (bits, low) = unpack(data);
        if let (Some(insn), Some(vcpu)) = (Insn::decode(bits), plugin.vcpu(vcpu)) {
            plugin.instruction(vcpu, insn, low);
        }
    });
}

/// Before the instruction that follows one which stores untold.
extern "C" fn after_untold_store(vcpu: u32, _: *mut c_void) {
    guard(|plugin| {
        if let Some(vcpu) = plugin.vcpu(vcpu) {
            plugin.tell_pending(vcpu);
        }
    });
}

/// Before a block that begins where a vector might; its data is its address.
extern "C" fn on_vector_like(vcpu: u32, data: *mut c_void) {
    guard(|plugin| {
        if let Some(vcpu) = plugin.vcpu(vcpu) {
            plugin.vector_like(vcpu, data as u64);
        }
    });
}

/// After an access; its data is the address of the instruction. Nearly all accesses end in the first lines.
extern "C" fn on_memory(vcpu: u32, info: MemInfo, va: u64, data: *mut c_void) {
    if let Some(plugin) = PLUGIN.get()
        && let Some(vcpu) = plugin.vcpus.get(vcpu as usize)
        && vcpu.uninteresting.contains(plugin.watched.epoch(), va, plugin.api.regime(info))
        && va % PAGE <= PAGE - MAX_ACCESS
    {
        return;
    }
    on_unknown_access(vcpu, info, va, data);
}

/// Apart, so that the above saves no registers.
#[cold]
#[inline(never)]
extern "C" fn on_unknown_access(vcpu: u32, info: MemInfo, va: u64, data: *mut c_void) {
    guard(|plugin| {
        if let Some(vcpu) = plugin.vcpu(vcpu) {
            plugin.access(vcpu, info, va, data as u64);
        }
    });
}

impl Plugin {
    /// The state of a vCPU; QEMU says beforehand how many there can be.
    fn vcpu(&self, vcpu: u32) -> Option<&Vcpu> {
        self.vcpus.get(vcpu as usize)
    }

    fn vcpu_init(&self, index: u32) {
        let Some(vcpu) = self.vcpu(index) else {
            return self.checker.stop(&format!("vCPU {index} is one more than QEMU has announced"));
        };
        if self.ram.get().is_none() {
            match Ram::find(self.args.ram_base, self.args.ram_size, self.args.backend.as_deref()) {
                // Another vCPU may have been faster, with the same result.
                Ok(ram) => _ = self.ram.set(ram),
                Err(why) => return self.checker.stop(&why),
            }
        }
        if let Err(register) = vcpu.start(&self.api) {
            self.checker.stop(&format!("QEMU shows no register {register} of vCPU {index}"));
        }
    }

    fn translate(&self, block: *mut Block) {
        let api = &self.api;
        // SAFETY: QEMU is translating the block.
        let len = unsafe { (api.block_len)(block) };
        let mut after_untold = false;
        for i in 0..len {
            let mut bytes = [0; 4];
            // SAFETY: the index is below the length; the instruction is valid until the translation ends; no more bytes are
            // asked for than there is room.
            let (instruction, va, size) = unsafe {
                let instruction = (api.block_get)(block, i);
                let size = (api.insn_data)(instruction, bytes.as_mut_ptr().cast(), bytes.len());
                (instruction, (api.insn_va)(instruction), size)
            };
            if size != bytes.len() {
                // Thumb, thus EL0.
                continue;
            }
            let va_as_data = va as *mut c_void;
            if i == 0 && va.is_multiple_of(0x80) {
                // SAFETY: QEMU is translating the block; the callback uses its data as a number. Below likewise.
                unsafe { (api.on_block)(block, on_vector_like, READ_REGS, va_as_data) };
            }
            let bits = u32::from_le_bytes(bytes);
            let insn = Insn::decode(bits);
            if insn.is_some() {
                // SAFETY: as above.
                unsafe { (api.on_instruction)(instruction, on_instruction, READ_REGS, pack(bits, va)) };
            } else if after_untold {
                // SAFETY: as above.
                unsafe { (api.on_instruction)(instruction, after_untold_store, READ_REGS, va_as_data) };
            }
            after_untold = matches!(insn, Some(Insn::Zero(_) | Insn::MemoryOp { .. }));
            if Insn::may_access_memory(bits) {
                // SAFETY: as above.
                unsafe { (api.on_memory)(instruction, on_memory, READ_REGS, LOADS_AND_STORES, va_as_data) };
            }
        }
    }

    /// An instruction of interest is about to be executed. `low`: the low 12 bits of its address.
    fn instruction(&self, vcpu: &Vcpu, insn: Insn, low: u64) {
        self.tell_pending(vcpu);
        let api = &self.api;
        // What comes first after a reset and matters is one of these, or an access.
        if matches!(insn, Insn::Sysreg(..) | Insn::Tlbi(..) | Insn::Isb) {
            self.look_for_reset(vcpu);
        }
        self.tell_level(vcpu, low);
        // Below EL1 most of what follows is undefined, but its callback comes all the same.
        let privileged = || vcpu.exception_level(api).is_some_and(|el| el >= 1);
        let what = match insn {
            Insn::Dsb(dsb) => {
                // QEMU empties the other vCPUs' TLBs some time after this vCPU's TLBI, and before its next block.
                if vcpu.tlbi_issued.swap(false, Ordering::Relaxed) {
                    self.watched.forget();
                }
                Some(What::Dsb(dsb))
            }
            Insn::Isb => Some(What::Isb),
            Insn::Call => {
                vcpu.calls(vcpu.x(api, 0).unwrap_or(0));
                Some(What::ExceptionEntry)
            }
            Insn::Eret => privileged().then_some(What::Eret),
            Insn::Tlbi(mnemonic, xt) if vcpu.exception_level(api).is_some_and(|el| el >= lowest_level(mnemonic)) => {
                self.translations_change(vcpu);
                vcpu.x(api, xt).map(|xt| What::Tlbi(mnemonic.decode(xt)))
            }
            Insn::UnknownTlbi(bits) if privileged() => {
                self.translations_change(vcpu);
                Some(What::UnknownTlbi(bits))
            }
            Insn::Sysreg(named, register, xt) => vcpu.meant(api, named, register).and_then(|register| {
                vcpu.uninteresting.clear();
                vcpu.vectors.forget();
                let value = vcpu.x(api, xt)?;
                vcpu.write(register, value);
                Some(What::Sysreg(register, value))
            }),
            Insn::Vbar(named, xt) => {
                // Any register that has counterparts will do to find out which VBAR is meant.
                if vcpu.meant(api, named, Sysreg::SctlrEl1) == Some(Sysreg::SctlrEl1)
                    && let Some(value) = vcpu.x(api, xt)
                {
                    vcpu.vectors.set(value);
                }
                None
            }
            Insn::Hint(code) if privileged() => {
                let x = |n| vcpu.x(api, n).unwrap_or(0);
                code.decode([x(0), x(1), x(2), x(3)]).map(What::Hint)
            }
            Insn::Zero(xt) => {
                self.about_to_zero(vcpu, xt, low);
                None
            }
            Insn::MemoryOp { address, size } => {
                self.about_to_fill(vcpu, address, size, low);
                None
            }
            _ => None,
        };
        if let Some(what) = what {
            self.send(vcpu, vcpu.pc(api, low), what);
        }
    }

    /// Tells the exception level, if it has changed, and once what the PE can do.
    ///
    /// Exceptions to EL2 are found by this alone; it is no harm to tell one twice.
    fn tell_level(&self, vcpu: &Vcpu, low: u64) {
        for (register, value) in vcpu.identify(&self.api) {
            self.send(vcpu, 0, What::Id(register, value));
        }
        if let Some(level) = vcpu.new_level(&self.api) {
            let pc = vcpu.pc(&self.api, low);
            self.send(vcpu, pc, What::ExceptionEntry);
            self.send(vcpu, pc, What::El(level));
        }
    }

    /// Tells a reset that nobody has told. The first vCPU comes back alone only if it has asked to be switched off: otherwise
    /// the machine was reset, and the others are off.
    fn look_for_reset(&self, vcpu: &Vcpu) {
        if !vcpu.was_reset(&self.api) {
            return;
        }
        let machine = vcpu.index == 0 && !vcpu.was_leaving();
        for other in self.vcpus.iter().filter(|other| other.index == vcpu.index || machine && other.has_begun()) {
            other.reset();
            self.send(other, 0, What::Reset);
        }
    }

    /// A TLBI: what virtual pages lead to may change on every PE.
    fn translations_change(&self, vcpu: &Vcpu) {
        self.watched.forget();
        vcpu.tlbi_issued.store(true, Ordering::Relaxed);
    }

    /// A block that begins where a vector might is about to be executed. `va`: its address, or an alias of it.
    fn vector_like(&self, vcpu: &Vcpu, va: u64) {
        if vcpu.vectors.is_other(va) {
            return;
        }
        let pc = vcpu.pc(&self.api, va);
        if vcpu.vectors.contains(pc) {
            self.tell_pending(vcpu);
            self.send(vcpu, pc, What::ExceptionEntry);
            self.tell_level(vcpu, va);
        } else {
            vcpu.vectors.remember_other(va);
        }
    }

    /// An access has been performed by the instruction at `pc`, or an alias of that.
    fn access(&self, vcpu: &Vcpu, info: MemInfo, va: u64, pc: u64) {
        let api = &self.api;
        // SAFETY: these take what the callback was given.
        let (shift, store) = unsafe { ((api.mem_size_shift)(info), (api.mem_is_store)(info)) };
        let end = va.saturating_add(1 << shift);
        let mut at = va;
        // Each page of the access on its own: two at most.
        while at < end {
            let next = end.min((at | (PAGE - 1)).saturating_add(1));
            let epoch = self.watched.epoch();
            let accessed = self.accessed_pa(info, at);
            if accessed == Some(at) {
                // As without an MMU.
                self.look_for_reset(vcpu);
            }
            if let Some(pa) = accessed {
                self.tell_access(vcpu, at, pa, store, pc);
            }
            match accessed {
                Some(pa) if self.watched.contains(pa) => {
                    let size = next - at;
                    let what = if store { What::Store { pa, size } } else { What::Load { pa, size } };
                    self.tell_pending(vcpu);
                    self.send(vcpu, vcpu.pc(api, pc), what);
                }
                Some(_) => vcpu.uninteresting.insert(epoch, at, api.regime(info)),
                None => {}
            }
            at = next;
        }
    }

    /// An access by virtual address, to compare QEMU's TLB with the tables: those of pages that are not known to be
    /// uninteresting, that is the first one of each page after whatever may have changed it. Devices are left out.
    fn tell_access(&self, vcpu: &Vcpu, va: u64, pa: u64, store: bool, pc: u64) {
        let in_ram = self.ram.get().is_some_and(|ram| ram.load(pa & !7).is_some());
        let kind = if store { AccessKind::Store } else { AccessKind::Load };
        if in_ram && let Some(el) = vcpu.exception_level(&self.api) {
            self.tell_pending(vcpu);
            // Of a guest that was just entered, it may be the first thing of interest.
            self.tell_level(vcpu, pc);
            self.send(vcpu, vcpu.pc(&self.api, pc), What::Access { va, pa, kind, el });
        }
    }

    /// The physical address that an access has just used for `va`, by QEMU's TLB.
    fn accessed_pa(&self, info: MemInfo, va: u64) -> Option<u64> {
        let api = &self.api;
        // SAFETY: called from the access's own callback, until whose end the result is valid.
        unsafe {
            let hwaddr = (api.get_hwaddr)(info, va);
            // A device has an address too, one in which nothing is watched.
            (!hwaddr.is_null()).then(|| (api.hwaddr_pa)(hwaddr))
        }
    }

    /// DC ZVA is about to zero the block that Xt points into.
    fn about_to_zero(&self, vcpu: &Vcpu, xt: u8, low: u64) {
        let Some(va) = vcpu.x(&self.api, xt) else { return };
        let epoch = self.watched.epoch();
        let (Some(ram), Some(el2)) = (self.ram.get(), vcpu.in_el2(&self.api)) else { return };
        let regime = ZERO_REGIME | u64::from(el2);
        if vcpu.uninteresting.contains(epoch, va, regime) {
            return;
        }
        match vcpu.tables(el2).translate(|pa| ram.load(pa), va) {
            Some(pa) if self.watched.contains(pa) => {
                let size = 1 << vcpu.zero_block_shift(&self.api);
                let (pc, va) = (vcpu.pc(&self.api, low), va & !(size - 1));
                vcpu.pending.set(PendingStore { zero: true, el2, pc, va, size });
            }
            Some(_) => vcpu.uninteresting.insert(epoch, va, regime),
            None => {}
        }
    }

    /// A memory copy or set instruction is about to work on what is left of its destination.
    fn about_to_fill(&self, vcpu: &Vcpu, address: u8, size: u8, low: u64) {
        let (Some(va), Some(size)) = (vcpu.x(&self.api, address), vcpu.x(&self.api, size)) else { return };
        let Some(el2) = vcpu.in_el2(&self.api) else { return };
        // Between the stages the size may be negative, and counts up to the address (the architecture's option A).
        let left = size as i64;
        let va = if left < 0 { va.wrapping_add_signed(left) } else { va };
        let size = left.unsigned_abs().min(self.args.ram_size);
        vcpu.pending.set(PendingStore { zero: false, el2, pc: vcpu.pc(&self.api, low), va, size });
    }

    /// Tells what the last instruction has stored without QEMU's telling. Comes before every other event of the vCPU.
    fn tell_pending(&self, vcpu: &Vcpu) {
        let Some(PendingStore { zero, el2, pc, va, size }) = vcpu.pending.take() else { return };
        let Some(ram) = self.ram.get() else { return };
        let end = va.saturating_add(size);
        let mut at = va;
        while at < end {
            let next = end.min((at | (PAGE - 1)).saturating_add(1));
            if let Some(pa) = vcpu.tables(el2).translate(|pa| ram.load(pa), at)
                && self.watched.contains(pa)
            {
                let size = next - at;
                self.send(vcpu, pc, if zero { What::Zero { pa, size } } else { What::Store { pa, size } });
            }
            at = next;
        }
    }

    /// One event for the model. A PE comes out of reset with its first one: QEMU makes its vCPUs long before the guest switches
    /// them on.
    fn send(&self, vcpu: &Vcpu, pc: u64, what: What) {
        if let Some(ram) = self.ram.get() {
            let mut visit = Visit { api: &self.api, ram, watched: &self.watched, vcpu };
            if vcpu.begins() {
                self.checker.handle(&mut visit, 0, What::Reset);
            }
            self.checker.handle(&mut visit, pc, what);
        }
    }
}
