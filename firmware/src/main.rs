//! The bare-metal image: boots every core and runs the scenarios, under a checker or without.
//!
//! From below: [`boot`] (assembly to Rust), [`mmu`], [`frames`], [`exceptions`], [`platform`] (the board), [`console`], [`smp`],
//! [`watchdog`], [`steer`]; on them [`stage`], where a case is played, [`tamper`], which loses instructions on purpose, the
//! [`scenarios`], and [`cases`], which runs them. Apart from these, [`twins`]: the checker's own rules, one sequence each.

#![no_std]
#![no_main]
#![allow(unreachable_pub, reason = "a binary has no outside: pub means for the other rooms")]
#![allow(dead_code, reason = "the ground floor offers what the scenarios on it take one by one")]

extern crate alloc;

mod boot;
mod cases;
mod console;
mod exceptions;
mod exit;
mod frames;
mod inject;
mod mmu;
mod panic;
mod platform;
mod scenarios;
mod selftest;
mod smp;
mod stage;
mod steer;
mod sync;
mod tamper;
mod twins;
mod watchdog;

use platform::bootargs;

/// Seconds without a watchdog's `arm` until a hang is cut; bootarg `watchdog=`.
const WATCHDOG_SECONDS: u64 = 60;

/// Where boot.S arrives with a stack, zeroed statics and vectors, on the boot core alone.
pub(crate) extern "C" fn primary_main(dtb: u64, image_pa: u64) -> ! {
    let entered = sync::now();
    mmu::init(image_pa);
    smp::doing("starting");
    // SAFETY: once, before any other core; the loader put `dtb` in x0.
    unsafe { platform::init(dtb) };
    smp::enable_event_stream();
    platform::gic::init();
    exceptions::unmask();
    let limit = bootargs::number("watchdog").unwrap_or_else(|word| panic!("watchdog={word}: not a number of seconds"));
    watchdog::arm(limit.unwrap_or(WATCHDOG_SECONDS));
    let cores = bootargs::number("cores").unwrap_or_else(|word| panic!("cores={word}: not a number of cores"));
    smp::start(cores.map_or(usize::MAX, |cores| cores as usize));
    println!("# {}", platform::Summary);
    if bootargs::flag("verbose") {
        println!(
            "# boot took {} us, heap {} bytes in use",
            (sync::now() - entered) / (sync::ticks(1) / 1000).max(1),
            frames::heap_used()
        );
    }
    inject::from_bootargs();
    if bootargs::flag("selftest") {
        selftest::run();
    }
    smp::doing("running cases");
    let twins = bootargs::get("scenario") == Some("twins");
    exit::exit(if twins { twins::run() } else { cases::run() })
}
