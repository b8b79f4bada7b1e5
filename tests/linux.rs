//! A stock Linux under the checker: silent as it is, and not silent when the checker is kept from seeing what Linux does.
//!
//! `make test-linux`, which fetches the kernel. The programs that run in it are in tests/guest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use system_tests::{Linux, Withheld, needed};
use tlbsan::report::Severity;
use tlbsan::trace::Replay;
use tlbsan::{Record, What};

#[test]
fn linux_leaves_nothing_stale_behind() {
    let mut failed = Vec::new();
    let at_el1 = ["cortex-a57", "neoverse-n2", "max"].into_iter().flat_map(|cpu| [1, 2, 4].map(|n| Linux::new(cpu, n)));
    // With an EL2 the kernel starts at EL1 and moves to EL2&0, with tables that it has used before.
    let at_el2 = Linux { machine: ",virtualization=on", ..Linux::new("max", 2) };
    for linux in at_el1.chain([at_el2]) {
        let name = format!("{}{}, {} vCPUs", linux.cpu, linux.machine, linux.cores);
        let outcome = linux.run();
        let summary = outcome.stdout.lines().last().unwrap_or_default().to_owned();
        println!("{name}: {summary}");
        if outcome.code != Some(0) {
            failed.push(format!("{name}:\n{}\n{}", outcome.stdout, outcome.stderr));
            continue;
        }
        let end = outcome.summary();
        // Awake: it saw Linux' entries come and go.
        assert!(end.opened > 100_000 && end.cleaned > 100_000 && end.tlbis > 50_000, "{end:?}");
        assert_eq!((end.unexpected, end.violations), (0, 0), "{end:?}");
        assert!(outcome.has_line("ok 16 - "), "every program has run: {}", outcome.stdout);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Nothing that a PE held counts after a reset, and a reset is seen though nobody tells of it.
#[test]
fn linux_may_reset_the_machine() {
    // Without a first process it panics, and then it reboots.
    let append = "loglevel=7 rdinit=/nowhere init=/nowhere";
    let tlbsan = ["--timeout", "40"].map(str::to_owned).into();
    let outcome = Linux { append, tlbsan, reboots: true, ..Linux::new("max", 2) }.run().expect(4);
    let boots = outcome.stdout.matches("Booting Linux on physical CPU").count();
    println!("{boots} boots");
    // How many there are within the time is the machine's business.
    assert!(boots > 1, "{}", outcome.stdout);
    assert!(outcome.violations().iter().all(|violation| violation.severity != Severity::Error), "{}", outcome.stdout);
}

/// Runs Linux with some of its instructions withheld from the checker: how many, and which of them were needed and found.
fn withhold(options: &[&str]) -> (usize, BTreeSet<u64>, BTreeSet<u64>) {
    const SEED: &str = "20260718";
    let trace = std::env::temp_dir().join(format!("tlbsan-linux-{}.trace", std::process::id()));
    let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    options.extend(["--seed", SEED, "--quiet"].map(str::to_owned));
    // Without KASLR there is no KPTI, which would double every context switch, and with it the work of the reference; and this
    // CPU has no FEAT_BBM, of which the reference knows nothing.
    let linux =
        Linux { append: "nokaslr", tlbsan: options.clone(), trace: Some(trace.clone()), ..Linux::new("cortex-a57", 4) };
    let outcome = linux.run().expect(1);
    let (mut withheld, mut found) = (Withheld::new(), BTreeSet::new());
    for record in &outcome.records {
        match record {
            Record::Blinded(blinded) => _ = withheld.insert(blinded.event, blinded.what.contains(" taken for ")),
            Record::Found { event } => _ = found.insert(*event),
            _ => {}
        }
    }
    assert!(resets(&trace) >= 7, "four CPUs came up, and three of them were switched off and on");
    let needed = needed(|| Box::new(BufReader::new(File::open(&trace).expect("the trace"))), &withheld);
    let _ = std::fs::remove_file(&trace);
    let reported = needed.intersection(&found).count();
    println!(
        "{}: {} blinded, {} needed, {reported} of them reported ({} in all)",
        options.join(" "),
        withheld.len(),
        needed.len(),
        found.len()
    );
    let missed: Vec<&Record> = outcome
        .records
        .iter()
        .filter(|record| matches!(record, Record::Blinded(b) if needed.contains(&b.event) && !found.contains(&b.event)))
        .collect();
    assert!(missed.is_empty(), "needed and not reported: {missed:#?}");
    (withheld.len(), needed, found)
}

/// How many resets of PEs a trace tells of.
fn resets(trace: &Path) -> usize {
    let mut replay = Replay::new(BufReader::new(File::open(trace).expect("the trace"))).expect("a trace");
    let events = std::iter::from_fn(|| replay.next_event().expect("a whole trace"));
    events.filter(|event| event.what == What::Reset).count()
}

#[test]
fn whatever_tlbi_linux_needs_is_missed() {
    let (_, needed, _) = withhold(&["--blind", "tlbi:250"]);
    assert!(needed.len() > 100, "{}", needed.len());
}

#[test]
fn whatever_dsb_linux_needs_is_missed() {
    let (_, needed, _) = withhold(&["--blind", "dsb:500"]);
    assert!(needed.len() > 100, "{}", needed.len());
}

#[test]
fn whatever_all_level_invalidation_linux_needs_is_missed() {
    let (_, needed, _) = withhold(&["--weaken", "3"]);
    assert!(!needed.is_empty());
}
