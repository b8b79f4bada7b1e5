//! Failures on request, to see that each is told and ends the run as it should: bootargs `inject=` panic, fault, undefined, stack,
//! hang or hang-masked, and `core=N`.

use aarch64_cpu::asm;

use crate::{exceptions, platform::bootargs, smp, sync::wait_until, watchdog};

/// Fails as the bootargs ask; returns if they ask for nothing.
pub fn from_bootargs() {
    let Some(failure) = bootargs::get("inject") else { return };
    let core = bootargs::number("core").unwrap_or_else(|word| panic!("core={word}: not a number"));
    // A hang of the boot core with interrupts masked is out of its own timer's reach, so the last core is the default.
    let core = core.map_or(smp::core_count() - 1, |core| core as usize);
    assert!(core < smp::core_count(), "core={core}: there are {}", smp::core_count());
    watchdog::arm(2);
    smp::doing("waiting for the core that fails");
    smp::run(core + 1, &|me| {
        if me == core {
            smp::doing("failing on request");
            fail(failure);
        }
    });
}

fn fail(failure: &str) {
    match failure {
        "panic" => panic!("on request"),
        "fault" => {
            let nowhere: *mut u64 = core::hint::black_box(8) as *mut u64;
            // SAFETY: nothing is mapped there and the store changes nothing; the data abort it ends in is what was asked for.
            unsafe { nowhere.write_volatile(1) };
        }
        // SAFETY: UDF is UNDEFINED; the exception ends the run.
        "undefined" => unsafe { core::arch::asm!("udf #0") },
        "stack" => {
            overflow(0);
        }
        // Naps, so that a simulated clock jumps to the watchdog's time.
        "hang" => wait_until(|| false),
        "hang-masked" => {
            exceptions::mask();
            loop {
                asm::wfe();
            }
        }
        other => panic!("inject={other}: known are panic, fault, undefined, stack, hang, hang-masked"),
    }
}

#[expect(unconditional_recursion, reason = "overflowing the stack is the purpose")]
fn overflow(depth: u64) -> u64 {
    core::hint::black_box([depth; 64]);
    overflow(depth + 1) + 1
}
