//! Checks of the ground floor itself, with bootarg `selftest`: what a scenario relies on and would otherwise find missing late.

use alloc::{collections::BTreeMap, vec::Vec};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::{
    exceptions::{self, probe},
    frames::{self, FRAME_SIZE},
    mmu, smp,
    steer::Steps,
    sync::{now, ticks},
};

const ROUNDS: u32 = 200;

/// Runs all checks and prints what steering costs.
///
/// # Panics
/// With a message where one fails.
pub fn run() {
    smp::doing("self-test");
    memory();
    probes();
    let exceptions = exceptions::taken();
    let before = now();
    jobs();
    let jobs = now();
    steps();
    let steps = now();
    // An exception is an ISB: steering that takes one cures what it steers.
    assert_eq!(exceptions::taken(), exceptions, "steering took exceptions");
    let per_round = |ticks_taken: u64| ticks_taken * 1000 / ticks(1).max(1) / u64::from(ROUNDS);
    crate::println!(
        "# self-test: {} us a job, {} us a round of steps",
        per_round(jobs - before),
        per_round(steps - jobs)
    );
}

fn memory() {
    let used = frames::heap_used();
    let map: BTreeMap<u64, u64> = (0..1000).map(|i| (i, i * i)).collect();
    assert_eq!(map.get(&999), Some(&998_001), "the heap loses what is stored in it");
    drop(map);
    let taken: Vec<u64> = (0..100).map_while(|_| frames::alloc_zeroed()).collect();
    assert_eq!(taken.len(), 100, "out of frames");
    for &pa in &taken {
        assert_eq!(pa % FRAME_SIZE, 0, "frame {pa:#x} is not aligned");
        // SAFETY: the frame is ours, and RAM in the linear map.
        unsafe { mmu::phys_to_virt::<u64>(pa).write_volatile(pa) };
    }
    for &pa in &taken {
        // SAFETY: as above.
        let found = unsafe { mmu::phys_to_virt::<u64>(pa).read_volatile() };
        assert_eq!(found, pa, "frame {pa:#x} was handed out twice");
        frames::free(pa);
    }
    drop(taken);
    let block = frames::alloc_pages(512).expect("no 2 MiB block free");
    assert_eq!(block % (2 << 20), 0, "block {block:#x} is not aligned to its size");
    frames::free_pages(block, 512);
    assert!(frames::heap_used() <= used + 4096, "the heap leaks: {used} bytes before, {} after", frames::heap_used());
}

fn probes() {
    let word = 42_u64;
    let at = &raw const word as u64;
    // SAFETY: a local variable, and an address where nothing is mapped.
    let (good, bad, write) = unsafe { (probe::read(at), probe::read(8), probe::write(8, 1)) };
    assert_eq!(good, Ok(42), "probing mapped memory");
    let bad = bad.expect_err("nothing is mapped at 8");
    assert!(bad.fault_status().is_translation() && !bad.is_write(), "probing a hole gave {bad}");
    let write = write.expect_err("nothing is mapped at 8");
    assert!(write.fault_status().is_translation() && write.is_write(), "writing a hole gave {write}");
    let text = crate::primary_main as *const () as u64 & !7;
    // SAFETY: text is never writable; if it were, the same value goes back.
    let text = unsafe { probe::write(text, (text as *const u64).read_volatile()) };
    assert!(text.is_err_and(|fault| fault.fault_status().is_permission()), "the image's text is writable");
}

/// The checker names callers by walking frame pointers: the walk must stay inside this core's stack and end at the first frame.
fn frame_pointers() {
    let mut record: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) record, options(nomem, nostack, preserves_flags)) };
    let core = smp::current_core();
    let slot = record & !(2 * mmu::STACK_SIZE - 1);
    for depth in 0.. {
        assert!(depth < 64, "core {core}: the walk of frame pointers does not end");
        assert!(
            record & 15 == 0 && record & !(2 * mmu::STACK_SIZE - 1) == slot,
            "core {core}: frame record at {record:#x}"
        );
        // SAFETY: 16 bytes on this core's own stack.
        let [next, link] = unsafe { (record as *const [u64; 2]).read() };
        if next == 0 {
            assert_eq!(link, 0, "core {core}: the first frame has somewhere to return to");
            break;
        }
        assert!(mmu::is_text(link), "core {core}: return address {link:#x} is not in the image's text");
        record = next;
    }
}

fn jobs() {
    smp::run(smp::core_count(), &|_| frame_pointers());
    for round in 0..ROUNDS {
        let cores = round as usize % smp::core_count() + 1;
        let ran = [const { AtomicUsize::new(0) }; crate::platform::MAX_CORES];
        smp::run(cores, &|core| {
            assert_eq!(core, smp::current_core(), "a core is told another index than it has");
            ran[core].fetch_add(1, Ordering::Relaxed);
        });
        for (core, ran) in ran.iter().enumerate() {
            assert_eq!(ran.load(Ordering::Relaxed), usize::from(core < cores), "core {core} in a job for {cores}");
        }
    }
}

fn steps() {
    let cores = smp::core_count() as u32;
    let steps = Steps::new(cores as usize);
    let sum = AtomicU32::new(0);
    smp::run(cores as usize, &|core| {
        for round in 0..ROUNDS {
            let mine = round * cores + core as u32;
            // Relaxed on purpose: the steps order it.
            steps.step(mine, || {
                assert_eq!(sum.load(Ordering::Relaxed), mine, "step {mine} ran out of order");
                sum.store(mine + 1, Ordering::Relaxed);
            });
        }
    });
}
