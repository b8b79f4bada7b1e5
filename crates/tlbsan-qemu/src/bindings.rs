//! QEMU's plugin interface, as much of it as we use: types, functions, and what differs between its versions.
//!
//! The functions are members of QEMU's executable. They are looked up by name at run time, so that this library loads, and
//! says what it lacks, even where one is missing; and so that unit tests link.
//!
//! Versions 4 to 6 (QEMU 9.1 to 10.2) and 7 (11.0 and newer) are spoken. What differs is in this file only.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

/// What QEMU calls this plugin.
pub(crate) type PluginId = u64;
/// What QEMU tells of a memory access: regime, size, direction.
pub(crate) type MemInfo = u32;

/// A translation block.
#[repr(C)]
pub(crate) struct Block {
    _opaque: [u8; 0],
}

/// An instruction in a translation block.
#[repr(C)]
pub(crate) struct Instruction {
    _opaque: [u8; 0],
}

/// The physical address of an access.
#[repr(C)]
pub(crate) struct HwAddr {
    _opaque: [u8; 0],
}

/// A register; it is never dereferenced here.
#[repr(C)]
pub(crate) struct Handle {
    _opaque: [u8; 0],
}

/// `GArray` and `GByteArray`.
#[repr(C)]
pub(crate) struct Array {
    pub(crate) data: *mut u8,
    pub(crate) len: u32,
}

/// The head of `qemu_plugin_reg_descriptor`; newer versions have more behind it.
#[repr(C)]
struct Descriptor {
    handle: *mut Handle,
    name: *const c_char,
    feature: *const c_char,
}

/// `qemu_info_t`.
#[repr(C)]
pub(crate) struct Info {
    target_name: *const c_char,
    version_min: c_int,
    version_cur: c_int,
    system_emulation: bool,
    smp_vcpus: c_int,
    max_vcpus: c_int,
}

impl Info {
    /// The kind of guest: `aarch64`.
    pub(crate) fn target(&self) -> &str {
        // SAFETY: QEMU passes a string that lives as long as the information itself.
        unsafe { CStr::from_ptr(self.target_name) }.to_str().unwrap_or("?")
    }

    /// How many vCPUs there can be; `None` in user mode emulation.
    pub(crate) fn max_vcpus(&self) -> Option<usize> {
        let max = self.max_vcpus.max(self.smp_vcpus);
        if self.system_emulation { usize::try_from(max).ok().filter(|max| *max > 0) } else { None }
    }
}

/// Callback of a vCPU with the data it was registered with.
pub(crate) type VcpuCallback = extern "C" fn(vcpu: u32, data: *mut c_void);
/// Callback of a memory access.
pub(crate) type MemoryCallback = extern "C" fn(vcpu: u32, info: MemInfo, va: u64, data: *mut c_void);

/// Callbacks may read registers.
pub(crate) const READ_REGS: c_int = 1;
/// Callbacks for loads and stores.
pub(crate) const LOADS_AND_STORES: c_int = 3;

/// What is called once rather than per instruction.
pub(crate) trait Callbacks {
    /// A vCPU begins to live; runs on its thread.
    fn vcpu_init(vcpu: u32);
    /// A block is being translated.
    fn translate(block: *mut Block);
    /// QEMU exits.
    fn at_exit();
}

unsafe extern "C" {
    fn dlsym(library: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// The address of `symbol` in whatever this process has loaded; null if there is none.
fn lookup(symbol: &CStr) -> *mut c_void {
    const RTLD_DEFAULT: *mut c_void = std::ptr::null_mut();
    // SAFETY: dlsym takes any name.
    unsafe { dlsym(RTLD_DEFAULT, symbol.as_ptr()) }
}

macro_rules! api {
    ($($(#[$doc:meta])* fn $name:ident = $symbol:literal ($($arg:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct Api {
            $($(#[$doc])* pub(crate) $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
            /// Whether callbacks have the parameters of version 7.
            userdata: bool,
            regime_mask: MemInfo,
        }

        impl Api {
            /// Finds every function; the error is the name of one that is missing.
            pub(crate) fn resolve(info: &Info) -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        let address = lookup($symbol);
                        if address.is_null() {
                            return Err($symbol.to_string_lossy().into_owned());
                        }
                        // SAFETY: the function of that name has this type in every version that QEMU lets us load into,
                        // but for what `register` takes care of.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $result)?>(address) }
                    },)*
                    userdata: info.version_cur >= 7,
                    regime_mask: if info.version_cur >= 7 { 0x1f } else { 0xf },
                })
            }
        }
    };
}

api! {
    /// Until version 6 without the last parameter, here and in the next.
    fn register_vcpu_init = c"qemu_plugin_register_vcpu_init_cb" (PluginId, *const c_void, *mut c_void);
    fn register_translate = c"qemu_plugin_register_vcpu_tb_trans_cb" (PluginId, *const c_void, *mut c_void);
    fn register_at_exit = c"qemu_plugin_register_atexit_cb" (PluginId, *const c_void, *mut c_void);
    fn on_block = c"qemu_plugin_register_vcpu_tb_exec_cb" (*mut Block, VcpuCallback, c_int, *mut c_void);
    fn on_instruction = c"qemu_plugin_register_vcpu_insn_exec_cb" (*mut Instruction, VcpuCallback, c_int, *mut c_void);
    fn on_memory = c"qemu_plugin_register_vcpu_mem_cb" (*mut Instruction, MemoryCallback, c_int, c_int, *mut c_void);
    fn block_len = c"qemu_plugin_tb_n_insns" (*const Block) -> usize;
    fn block_get = c"qemu_plugin_tb_get_insn" (*const Block, usize) -> *mut Instruction;
    fn insn_data = c"qemu_plugin_insn_data" (*const Instruction, *mut c_void, usize) -> usize;
    fn insn_va = c"qemu_plugin_insn_vaddr" (*const Instruction) -> u64;
    fn mem_size_shift = c"qemu_plugin_mem_size_shift" (MemInfo) -> u32;
    fn mem_is_store = c"qemu_plugin_mem_is_store" (MemInfo) -> bool;
    fn get_hwaddr = c"qemu_plugin_get_hwaddr" (MemInfo, u64) -> *mut HwAddr;
    fn hwaddr_pa = c"qemu_plugin_hwaddr_phys_addr" (*const HwAddr) -> u64;
    fn get_registers = c"qemu_plugin_get_registers" () -> *mut Array;
    /// Its result is an int until version 5, a bool since; what it read is told by the array's length.
    fn read_register = c"qemu_plugin_read_register" (*mut Handle, *mut Array) -> c_int;
    fn array_element_size = c"g_array_get_element_size" (*mut Array) -> u32;
    fn array_free = c"g_array_free" (*mut Array, c_int) -> *mut c_char;
    fn bytes_new = c"g_byte_array_new" () -> *mut Array;
    fn bytes_set_size = c"g_byte_array_set_size" (*mut Array, u32) -> *mut Array;
}

impl Api {
    /// Registers what is called once.
    ///
    /// # Safety
    /// `id` is the one QEMU has given to this plugin, and QEMU is installing it.
    pub(crate) unsafe fn register<C: Callbacks>(&self, id: PluginId) {
        extern "C" fn vcpu_init_6<C: Callbacks>(_: PluginId, vcpu: u32) {
            C::vcpu_init(vcpu);
        }
        extern "C" fn vcpu_init_7<C: Callbacks>(vcpu: u32, _: *mut c_void) {
            C::vcpu_init(vcpu);
        }
        extern "C" fn translate_6<C: Callbacks>(_: PluginId, block: *mut Block) {
            C::translate(block);
        }
        extern "C" fn translate_7<C: Callbacks>(block: *mut Block, _: *mut c_void) {
            C::translate(block);
        }
        extern "C" fn at_exit_6<C: Callbacks>(_: PluginId, _: *mut c_void) {
            C::at_exit();
        }
        extern "C" fn at_exit_7<C: Callbacks>(_: *mut c_void) {
            C::at_exit();
        }

        type Register6 = unsafe extern "C" fn(PluginId, *const c_void);
        let none = std::ptr::null_mut();
        if self.userdata {
            // SAFETY: as the caller promises; the callbacks have the parameters of version 7.
            unsafe {
                (self.register_vcpu_init)(id, vcpu_init_7::<C> as *const c_void, none);
                (self.register_translate)(id, translate_7::<C> as *const c_void, none);
                (self.register_at_exit)(id, at_exit_7::<C> as *const c_void, none);
            }
        } else {
            // SAFETY: as the caller promises; the callbacks and the first two functions have the parameters of version 6.
            unsafe {
                let register_vcpu_init: Register6 = std::mem::transmute(self.register_vcpu_init);
                let register_translate: Register6 = std::mem::transmute(self.register_translate);
                register_vcpu_init(id, vcpu_init_6::<C> as *const c_void);
                register_translate(id, translate_6::<C> as *const c_void);
                (self.register_at_exit)(id, at_exit_6::<C> as *const c_void, none);
            }
        }
    }

    /// The bits of [`MemInfo`] that name the translation regime: QEMU's MMU index, below the size in its `MemOpIdx`.
    ///
    /// Five bits where there are more than sixteen of them. A bit too many does no harm: see `watch`.
    pub(crate) fn regime(&self, info: MemInfo) -> u64 {
        u64::from(info & self.regime_mask)
    }

    /// The registers of the vCPU whose thread this is: name and handle.
    pub(crate) fn registers(&self) -> Vec<(String, *mut Handle)> {
        // SAFETY: QEMU gives an array of descriptors that we own, each `stride` bytes, of which the head is known; names
        // are strings that QEMU keeps. Freed once, after the last use.
        unsafe {
            let array = (self.get_registers)();
            if array.is_null() {
                return Vec::new();
            }
            let stride = (self.array_element_size)(array) as usize;
            let named = (0..(*array).len as usize)
                .map(|i| {
                    let descriptor = (*array).data.add(i * stride).cast::<Descriptor>();
                    let name = CStr::from_ptr((*descriptor).name).to_string_lossy().into_owned();
                    (name, (*descriptor).handle)
                })
                .collect();
            (self.array_free)(array, 1);
            named
        }
    }
}

/// The version that this plugin claims to be written for. QEMU reads it after loading and refuses what is not in its range.
///
/// An atomic, because it is written once while the library loads, by [`CHOOSE_VERSION`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is QEMU's")]
pub(crate) static qemu_plugin_version: AtomicI32 = AtomicI32::new(4);

/// Overrides the choice below: a version of QEMU's plugin interface, 4 or newer.
const VERSION_VARIABLE: &str = "TLBSAN_PLUGIN_API";

/// Run by the loader, before QEMU looks at the version.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = choose_version;

extern "C" fn choose_version() {
    let asked = std::env::var(VERSION_VARIABLE).ok().and_then(|version| version.parse().ok());
    let newest = !lookup(c"qemu_plugin_register_vcpu_discon_cb").is_null();
    let version = asked.unwrap_or(if newest { 7 } else { 4 });
    qemu_plugin_version.store(version, Ordering::Relaxed);
}
