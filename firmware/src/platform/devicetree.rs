//! The device tree into [`Platform`], once. Devices are looked for among the children of the root and of `simple-bus` nodes with
//! the same addresses.

use core::ops::Range;

use aarch64_cpu::registers::MIDR_EL1;
use dtoolkit::{
    Node, Property, ToCellInt,
    fdt::{Fdt, FdtNode},
    standard::NodeStandard,
};
use tock_registers::interfaces::Readable;

use super::{Conduit, MAX_CORES, Platform, own_mpidr};
use crate::{frames::Pieces, mmu};

const MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];
/// The boot protocol's limit.
const MAX_SIZE: u64 = 2 << 20;
/// PPIs of the timers where the device tree does not say.
const PHYSICAL_TIMER_PPI: u32 = 14;
const VIRTUAL_TIMER_PPI: u32 = 11;

/// Maps the device tree and reads it.
///
/// # Safety
/// `dtb` comes from the loader, which speaks the Linux arm64 boot protocol: 0, or the address of something in RAM.
pub(super) unsafe fn read(dtb: u64) -> Platform {
    assert!(dtb != 0, "no device tree: x0 is 0 (start the flat image, not the ELF)");
    assert!(dtb.is_multiple_of(8), "device tree at {dtb:#x} is not 8-byte aligned");
    let map = |end: u64| {
        mmu::map_ram(dtb & !0x1f_ffff..end.next_multiple_of(0x20_0000))
            .unwrap_or_else(|error| panic!("device tree: {error}"));
    };
    map(dtb + 8);
    let at: *const u8 = mmu::phys_to_virt(dtb);
    // SAFETY: the block mapped above holds the first 8 aligned bytes.
    let header: [u8; 8] = unsafe { at.cast::<[u8; 8]>().read() };
    assert!(header[..4] == MAGIC, "no device tree at {dtb:#x}");
    let size = u64::from(u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
    assert!(size <= MAX_SIZE, "device tree at {dtb:#x} has {size:#x} bytes, more than the boot protocol allows");
    map(dtb + size);
    // SAFETY: the loader put that many bytes there, mapped above; it is reserved below, so nobody writes it ever after.
    let data: &'static [u8] = unsafe { core::slice::from_raw_parts(at, size as usize) };
    let tree = Fdt::new(data).unwrap_or_else(|error| panic!("device tree at {dtb:#x}: {error}"));

    let (cores, core_count, cores_beyond) = cores(tree);
    let (gicd, gicr) = gic(tree);
    let memory = memory(tree);
    let free = free(tree, &memory, dtb..dtb + size);
    Platform {
        cpu: cpu_name(tree),
        uart: find(tree, "arm,pl011").and_then(|node| ranges(node).next()),
        conduit: conduit(tree),
        timers: timers(tree),
        bootargs: tree.find_node("/chosen").and_then(|node| text(node, "bootargs")).unwrap_or(""),
        memory,
        free,
        cores,
        core_count,
        cores_beyond,
        gicd,
        gicr,
    }
}

/// The first enabled device that is compatible with `name`.
fn find(tree: Fdt<'static>, name: &str) -> Option<FdtNode<'static>> {
    let usable = |node: &FdtNode<'_>| {
        node.is_compatible(name)
            && !matches!(text_of(node, "status"), Some(status) if status != "okay" && status != "ok")
    };
    let root = tree.root();
    root.children().find(usable).or_else(|| {
        let mut buses = root.children().filter(|node| {
            // Addresses inside are ours only if `ranges` is there and empty.
            node.is_compatible("simple-bus") && node.property("ranges").is_some_and(|ranges| ranges.value().is_empty())
        });
        buses.find_map(|bus| bus.children().find(usable))
    })
}

fn text(node: FdtNode<'static>, property: &str) -> Option<&'static str> {
    node.property(property)?.value_as().ok()
}

fn text_of<'a>(node: &FdtNode<'a>, property: &str) -> Option<&'a str> {
    node.property(property)?.value_as().ok()
}

/// The `reg` ranges of a node; none if it has none or they make no sense.
fn ranges(node: FdtNode<'static>) -> impl Iterator<Item = Range<u64>> {
    node.reg().ok().flatten().into_iter().flatten().filter_map(|reg| {
        let start: u64 = reg.address().ok()?;
        let size: u64 = reg.size().ok()?;
        Some(start..start.checked_add(size)?)
    })
}

/// Affinities with the boot core's first, how many, and how many more there are.
fn cores(tree: Fdt<'static>) -> ([u64; MAX_CORES], usize, usize) {
    let own = own_mpidr();
    let mut cores = [0; MAX_CORES];
    cores[0] = own;
    let mut count = 1;
    let mut beyond = 0;
    let cpus = tree.cpus().unwrap_or_else(|error| panic!("device tree: /cpus: {error}"));
    for cpu in cpus.cpus() {
        let Some(mpidr) = cpu.ids().ok().and_then(|mut ids| ids.next()).and_then(|id| id.to_int::<u64>().ok()) else {
            continue;
        };
        if mpidr == own {
            continue;
        }
        if count < MAX_CORES {
            cores[count] = mpidr;
            count += 1;
        } else {
            beyond += 1;
        }
    }
    (cores, count, beyond)
}

/// What the boot core is compatible with, without the vendor.
fn cpu_name(tree: Fdt<'static>) -> &'static str {
    // QEMU's `-cpu max` claims to be a cortex-a57 in the device tree; implementer 0, part 'Q' is its own MIDR.
    if MIDR_EL1.get() & 0xff00_fff0 == 0x0510 {
        return "max";
    }
    let name = tree.find_node("/cpus/cpu").and_then(|node| node.compatible().and_then(|mut names| names.next()));
    let name = name.unwrap_or("unknown CPU");
    name.split_once(',').map_or(name, |(_, name)| name)
}

fn gic(tree: Fdt<'static>) -> (Range<u64>, Range<u64>) {
    let node = find(tree, "arm,gic-v3")
        .expect("device tree: no node is compatible with \"arm,gic-v3\" (QEMU: -M virt,gic-version=3)");
    let mut ranges = ranges(node);
    match (ranges.next(), ranges.next()) {
        (Some(gicd), Some(gicr)) => (gicd, gicr),
        _ => panic!("device tree: the GIC's reg lacks the distributor or the redistributors"),
    }
}

fn conduit(tree: Fdt<'static>) -> Option<Conduit> {
    let node = tree.find_node("/psci")?;
    match text(node, "method")? {
        "hvc" => Some(Conduit::Hvc),
        "smc" => Some(Conduit::Smc),
        _ => None,
    }
}

/// PPIs of the non-secure physical and the virtual timer: the second and third of the timer's interrupts, each with type (1: PPI),
/// number and flags.
fn timers(tree: Fdt<'static>) -> (u32, u32) {
    let cells = find(tree, "arm,armv8-timer").and_then(|node| node.property("interrupts"));
    let word = |index: usize| {
        let bytes = cells.as_ref()?.value().get(4 * index..4 * index + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let ppi = |index: usize, default: u32| match (word(3 * index), word(3 * index + 1)) {
        (Some(1), Some(ppi)) if ppi < 16 => ppi,
        _ => default,
    };
    (ppi(1, PHYSICAL_TIMER_PPI), ppi(2, VIRTUAL_TIMER_PPI))
}

fn memory(tree: Fdt<'static>) -> Pieces {
    let mut memory = Pieces::new();
    let nodes = tree.root();
    for node in nodes.children().filter(|node| text_of(node, "device_type") == Some("memory")) {
        for range in ranges(node) {
            // What is left over is not used.
            let _ = memory.push(range);
        }
    }
    assert!(memory.iter().next().is_some(), "device tree: no memory node with a reg");
    memory
}

/// RAM without the image, the device tree and what both kinds of reservation name.
fn free(tree: Fdt<'static>, memory: &Pieces, dtb: Range<u64>) -> Pieces {
    let mut free = Pieces::new();
    let mut room = true;
    for region in memory.iter() {
        // The linear map has 2 MiB blocks: smaller edges are left off.
        room &= free.push(region.start.next_multiple_of(0x20_0000)..(region.end & !0x1f_ffff).min(mmu::LINEAR_LIMIT));
    }
    let page = |range: Range<u64>| range.start & !0xfff..range.end.next_multiple_of(0x1000);
    room &= free.remove(&page(mmu::image()));
    room &= free.remove(&page(dtb));
    for reserved in tree.memory_reservations() {
        room &= free.remove(&page(reserved.address()..reserved.address().saturating_add(reserved.size())));
    }
    if let Some(nodes) = tree.find_node("/reserved-memory") {
        for range in nodes.children().flat_map(ranges) {
            room &= free.remove(&page(range));
        }
    }
    assert!(room, "device tree: RAM in too many pieces");
    free
}
