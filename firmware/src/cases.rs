//! Runs the cases and prints TAP 14 of what the cores can see themselves. What only the checker can see, it adds: the two meet by
//! the number of the test point.
//!
//! Bootargs: `scenario=NAME` runs one scenario; `fault=SCENARIO/FAULT` runs one form alone, and as if nobody knew that it is
//! faulty; `tlbsan` says that the checker listens.

use tlbsan_hint as hint;

use crate::{
    exit,
    platform::bootargs,
    println,
    scenarios::{self, Billing, Form, Judge},
    smp, watchdog,
};

/// Seconds until a case counts as hung; bootarg `watchdog=`.
const CASE_SECONDS: u64 = 10;

/// Runs what the bootargs ask for; returns the exit code.
pub fn run() -> u32 {
    let fault = bootargs::get("fault");
    let scenario = bootargs::get("scenario");
    let chosen = |form: &&Form| match (fault, scenario) {
        (Some(fault), _) => form.name == fault,
        (None, Some(scenario)) => form.scenario() == scenario || form.name == scenario,
        (None, None) => true,
    };
    let every =
        || scenarios::ALL.iter().chain(fault.and(Some(scenarios::BY_NAME)).into_iter().flatten()).copied().flatten();
    let forms = || every().filter(chosen);

    println!("TAP version 14");
    let count = forms().count();
    if count == 0 {
        println!("1..0 # SKIP no such case");
        println!("# there are:");
        every().for_each(|form| println!("#   {}", form.name));
        return exit::GUEST_FAILED;
    }
    println!("1..{count}");
    let failed = forms().zip(1..).filter(|(form, id)| !run_one(form, *id, fault.is_none())).count();
    if failed == 0 { exit::CLEAN } else { exit::CASE_FAILED }
}

/// Plays one form as test point `id`; says whether it went as it should.
fn run_one(form: &'static Form, id: u64, as_named: bool) -> bool {
    let name = form.name;
    if let Some(why) = form.needs.iter().find_map(|need| need.lacks()) {
        println!("ok {id} - {name} # SKIP {why}");
        return true;
    }
    if form.judge == Judge::Tlbsan && !bootargs::flag("tlbsan") {
        println!("ok {id} - {name} # SKIP needs tlbsan");
        return true;
    }
    smp::doing(name);
    watchdog::arm(bootargs::number("watchdog").ok().flatten().unwrap_or(CASE_SECONDS));

    hint::case_begin(id);
    if as_named {
        form.verdicts().iter().copied().for_each(hint::expect);
    }
    // Each case has an ASID of its own; 0 is the reserved root's.
    let result = (form.play)(&Billing { asid: id as u16, as_named: as_named && !form.is_correct() });
    hint::case_end(id);

    watchdog::disarm();
    match result {
        Ok(()) => println!("ok {id} - {name}"),
        Err(ref why) => println!("not ok {id} - {name}\n  # {why}"),
    }
    result.is_ok()
}
