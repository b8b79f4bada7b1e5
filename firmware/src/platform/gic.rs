//! Interrupts through a GICv3: SGIs between cores, and the virtual timer of each.
//!
//! Handlers run with interrupts masked on the stack of what they interrupted. They take no lock and print with
//! `emergency_println!` only.

use core::{
    mem::transmute,
    ptr::NonNull,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

use arm_gic::{
    IntId, InterruptGroup, UniqueMmioPointer,
    gicv3::{
        GicCpuInterface, GicV3, SgiTarget, SgiTargetGroup,
        registers::{Gicd, GicrSgi},
    },
};
use tlbi::{Dsb, Hardware, Issue};

use super::{MAX_CORES, core_count, mpidr, physical_timer_ppi, platform, virtual_timer_ppi};
use crate::{
    exceptions::Frame,
    mmu::device_to_virt,
    smp,
    sync::{Lock, Once},
};

/// SGIs there are.
pub const SGIS: u32 = 16;
/// The SGI that [`smp`] checks at start; free afterwards.
pub const SGI_CHECK: u32 = 0;
/// The SGI by which the watchdog asks a core where it is.
pub const SGI_WHERE: u32 = 15;

/// What an interrupt calls, with what it interrupted.
pub type Handler = fn(&mut Frame);

static GIC: Once<Lock<GicV3<'static>>> = Once::new();

/// Handlers by SGI; the timer's is the last.
static HANDLERS: [AtomicPtr<()>; SGIS as usize + 1] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; SGIS as usize + 1];
const TIMER: usize = SGIS as usize;

/// The redistributor of each core, found by affinity.
static REDISTRIBUTORS: [AtomicUsize; MAX_CORES] = [const { AtomicUsize::new(usize::MAX) }; MAX_CORES];

/// Sets up the distributor and every redistributor, and this core's interface. Once, on the boot core.
pub fn init() {
    let gicd =
        NonNull::new(device_to_virt::<Gicd>(platform().gicd.start)).expect("the device window does not begin at 0");
    let gicr =
        NonNull::new(device_to_virt::<GicrSgi>(platform().gicr.start)).expect("the device window does not begin at 0");
    let frames = ((platform().gicr.end - platform().gicr.start) as usize / size_of::<GicrSgi>()).max(1);
    // SAFETY: both are a GICv3's according to the device tree, mapped as Device memory for good, and only this driver knows them.
    let gic = unsafe { GicV3::new(UniqueMmioPointer::new(gicd), gicr, frames) };
    let mut gic = gic.unwrap_or_else(|error| panic!("GIC: {error}"));
    // How many redistributors there really are: up to the one that calls itself last.
    let mut found = 0;
    for index in 0..frames {
        let Ok(typer) = gic.gicr_typer(index) else { break };
        found = index + 1;
        if let Some(core) = (0..core_count()).find(|&core| mpidr(core) == typer.core_mpidr()) {
            REDISTRIBUTORS[core].store(index, Ordering::Relaxed);
        }
        if typer.last_redistributor() {
            break;
        }
    }
    // SAFETY: as above; the first driver is gone.
    let gic = unsafe { GicV3::new(UniqueMmioPointer::new(gicd), gicr, found) };
    let mut gic = gic.unwrap_or_else(|error| panic!("GIC: {error}"));
    gic.setup(redistributor(0));
    GIC.call_once(|| Lock::new(gic));
    init_core(0);
}

fn redistributor(core: usize) -> usize {
    let index = REDISTRIBUTORS[core].load(Ordering::Relaxed);
    assert!(
        index != usize::MAX,
        "GIC: no redistributor has core {core}'s affinity {:#x} in its first region",
        mpidr(core)
    );
    index
}

/// Sets up the interface of core `core`, on that core: all SGIs and both timers on, nothing masked by priority. [`init`]
/// has been called.
pub fn init_core(core: usize) {
    let mut gic = GIC.get().expect("the boot core sets the GIC up first").lock();
    let index = redistributor(core);
    gic.init_cpu(index);
    // The watchdog's, and the one that ends naps (sync.rs), which is never taken.
    let timers = [virtual_timer_ppi(), physical_timer_ppi()].map(IntId::ppi);
    for id in (0..SGIS).map(IntId::sgi).chain(timers) {
        gic.enable_interrupt(id, Some(index), true).unwrap_or_else(|error| panic!("GIC: enable {id:?}: {error}"));
    }
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
}

/// Has `handler` called on any core that receives SGI `sgi` (0..16).
pub fn on_sgi(sgi: u32, handler: Handler) {
    HANDLERS[..TIMER][sgi as usize].store(handler as *mut (), Ordering::Release);
}

/// Has `handler` called on a core whose virtual timer fires.
pub fn on_timer(handler: Handler) {
    HANDLERS[TIMER].store(handler as *mut (), Ordering::Release);
}

/// Sends SGI `sgi` to core `core`. The receiver's handler sees everything stored before: this executes DSB ISHST, so it has no
/// place in the steering of a scenario.
pub fn send_sgi(core: usize, sgi: u32) {
    let affinity = mpidr(core);
    let aff0 = affinity & 0xff;
    assert!(aff0 < 16, "SGIs to Aff0 {aff0} need the range selector");
    let target = SgiTarget::List {
        affinity3: (affinity >> 32) as u8,
        affinity2: (affinity >> 16) as u8,
        affinity1: (affinity >> 8) as u8,
        target_list: 1 << aff0,
    };
    // SAFETY: this is EL1.
    let hardware = unsafe { Hardware::new() };
    // The write below is no memory access: without the DSB it may overtake the stores that the handler is to see.
    hardware.dsb(Dsb::Ishst);
    GicCpuInterface::send_sgi(IntId::sgi(sgi), target, SgiTargetGroup::CurrentGroup1)
        .unwrap_or_else(|error| panic!("SGI {sgi} to core {core}: {error}"));
    hardware.isb();
}

/// Calls the handler of the interrupt that is pending.
pub(crate) fn dispatch(frame: &mut Frame) {
    let Some(id) = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1) else { return };
    let slot = if id == IntId::ppi(virtual_timer_ppi()) { Some(TIMER) } else { id.sgi_index().map(|sgi| sgi as usize) };
    let handler = slot.map(|slot| HANDLERS[slot].load(Ordering::Acquire)).filter(|handler| !handler.is_null());
    match handler {
        Some(handler) => {
            // SAFETY: only `on_sgi` and `on_timer` store here, and they store a `Handler`.
            let handler = unsafe { transmute::<*mut (), Handler>(handler) };
            handler(frame);
        }
        None => crate::emergency_println!("# core {}: {id:?} has no handler", smp::current_core()),
    }
    GicCpuInterface::end_interrupt(id, InterruptGroup::Group1);
}
