//! How stories read, word by word.

use tlbsan::report::Attempt;
use tlbsan_hint::Cause;

use super::*;
use crate::symbols::{Frame, Names};

/// A small kernel: each address below has a function, 0x200 with one inlined into it, 0x300 with a piece of core.
pub(crate) struct Kernel;

impl Names for Kernel {
    fn frames(&self, pc: u64) -> Vec<Frame> {
        let frame = |function: &str, file: &str, line| Frame {
            function: Some(function.into()),
            location: Some((file.into(), Some(line))),
            offset: None,
        };
        match pc {
            0x100 => vec![frame("pgtable::edit::unmap", "crates/pgtable/src/edit.rs", 120)],
            0x200 => vec![
                frame("tlbi::issue::Hardware::tlbi", "crates/tlbi/src/issue.rs", 60),
                frame("tlbi::flush::Tlb::invalidate", "crates/tlbi/src/flush.rs", 88),
            ],
            0x300 => vec![
                frame("core::ptr::write_volatile<u64>", "library/core/src/ptr/mod.rs", 2000),
                frame("pgtable::edit::map", "crates/pgtable/src/edit.rs", 80),
            ],
            0x1000 => vec![frame("walk_cache::t1", "firmware/src/scenarios/walk_cache.rs", 70)],
            0x1100 => vec![frame("walk_cache::t2", "firmware/src/scenarios/walk_cache.rs", 95)],
            0x2000 => vec![frame("steer::run", "firmware/src/steer.rs", 33)],
            0x3000 => vec![Frame { function: Some("secondary_entry".into()), location: None, offset: None }],
            _ => vec![],
        }
    }
}

/// Nobody has names.
struct Stripped;

impl Names for Stripped {
    fn frames(&self, _: u64) -> Vec<Frame> {
        Vec::new()
    }
}

pub(crate) fn site(pe: usize, pc: u64, stack: &[u64]) -> Site {
    Site { pe, pc, stack: stack.iter().map(|pc| pc + 4).collect(), label: None, at: 0 }
}

pub(crate) fn hang_of_2019() -> Violation {
    Violation {
        number: 1,
        case: Some(3),
        kind: Kind::Remade,
        cause: Cause::LeafOnly,
        start: 0x4000_0000,
        size: 0x20_0000,
        level: 2,
        table: true,
        asids: vec![7],
        pes: vec![1, 2],
        slot: 0x4009_8000,
        old: Descriptor { bits: 0x4010_0003, text: "table at 0x40100000".into() },
        new: Descriptor { bits: 0x4011_0003, text: "table at 0x40110000".into() },
        removed: Site { label: Some("t1: unmap(A)".into()), ..site(1, 0x100, &[0x1000, 0x2000, 0x3000, 0x9999]) },
        trigger: site(0, 0x300, &[0x1100, 0x2000, 0x3000]),
        attempts: vec![Attempt {
            site: site(1, 0x200, &[0x1000, 0x2000, 0x3000]),
            op: "tlbi vale1is, 0x40000000 asid 7".into(),
            why: "it removes leaf entries only, and this is a table entry.".into(),
            cause: Cause::LeafOnly,
        }],
        more_attempts: 3,
        times: 1,
        severity: Severity::Error,
        accessed: None,
        claim: None,
        ways: Default::default(),
        suppressed: None,
    }
}

fn story(v: &Violation, names: &dyn Names) -> String {
    tell(v, Telling { names, full_stacks: true }, Paint::PLAIN).join("\n")
}

#[test]
fn the_hang_of_2019_reads_as_a_story() {
    assert_eq!(
        story(&hang_of_2019(), &Kernel),
        r#"stale translation [remade, leaf-only]: 0x4000_0000..0x4020_0000 has a new translation, but PEs 1 and 2 may still walk through its old level-2 table entry
  old  0x0000_0000_4010_0003  table at 0x4010_0000  slot 0x4009_8000, ASID 7
  new  0x0000_0000_4011_0003  table at 0x4011_0000
  1. PE 1 removed the old level-2 table entry, in "t1: unmap(A)"
       pgtable::edit::unmap at crates/pgtable/src/edit.rs:120
       walk_cache::t1 at firmware/src/scenarios/walk_cache.rs:70
       steer::run at firmware/src/steer.rs:33
       secondary_entry
  2. PE 1 issued TLBI VALE1IS, 0x4000_0000 ASID 7: it removes leaf entries only, and this is a table entry
       tlbi::issue::Hardware::tlbi at crates/tlbi/src/issue.rs:60
       tlbi::flush::Tlb::invalidate at crates/tlbi/src/flush.rs:88
       ... called as in 1
     and 3 more invalidations that did not help
  3. PE 0 wrote the new entry
       pgtable::edit::map at crates/pgtable/src/edit.rs:80
       walk_cache::t2 at firmware/src/scenarios/walk_cache.rs:95
       ... called as in 1
  what to do: issue TLBI VAE1IS instead of TLBI VALE1IS whenever tables are freed or replaced (Depth::Full): leaf forms keep walk caches"#
    );
}

#[test]
fn without_symbols_addresses_stand_in() {
    let v =
        Violation { cause: Cause::NoInvalidation, attempts: vec![], more_attempts: 0, times: 512, ..hang_of_2019() };
    let text = story(&v, &Stripped);
    assert!(
        text.contains("       at 0x100, called from 0x1004, 0x2004, 0x3004, 0x999d\n  2. nobody invalidated it\n"),
        "{text}"
    );
    assert!(text.contains("the same store did this to 512 entries; this is the first"), "{text}");
}

#[test]
fn a_live_change_is_one_step() {
    let removed = site(0, 0x300, &[]);
    let v = Violation {
        kind: Kind::LiveChange,
        cause: Cause::NotBrokenFirst,
        table: false,
        level: 3,
        size: 0x1000,
        asids: vec![],
        trigger: removed.clone(),
        removed,
        attempts: vec![],
        more_attempts: 0,
        ..hang_of_2019()
    };
    let text = story(&v, &Kernel);
    let steps: Vec<&str> = text.lines().filter(|line| line.starts_with("  1.") || line.starts_with("  2.")).collect();
    assert_eq!(steps, ["  1. PE 0 wrote the new entry over the old one"], "{text}");
    assert!(text.contains("global or any ASID") && text.contains("break before make"), "{text}");
}

#[test]
fn every_kind_and_cause_has_words_and_a_way_out() {
    for &kind in Kind::ALL {
        for &cause in Cause::ALL {
            for (table, level) in [(true, 0), (false, 2), (false, 3), (true, -1)] {
                for op in ["tlbi vae1, 0x1000 asid 1", "tlbi vale1is, 0x1000", "tlbi vmalle1nxs", "é", ""] {
                    let mut v = Violation { kind, cause, table, level, pes: vec![], ..hang_of_2019() };
                    v.attempts = vec![Attempt { cause, op: op.into(), ..v.attempts.remove(0) }];
                    let lines = tell(&v, Telling { names: &Kernel, full_stacks: false }, Paint::PLAIN);
                    let advice = lines.last().expect("never empty");
                    assert!(advice.starts_with("  what to do: ") && advice.len() > 40, "{advice}");
                    assert!(lines.iter().all(|line| !line.contains('\n')));
                }
            }
        }
    }
}

#[test]
fn the_advice_names_the_instruction_that_was_tried() {
    let with = |cause, op: &str| {
        let mut v = Violation { cause, ..hang_of_2019() };
        v.attempts = vec![Attempt { cause, op: op.into(), ..v.attempts.remove(0) }];
        advice(&v)
    };
    for (cause, op, word) in [
        (Cause::LeafOnly, "tlbi rvale1is, 0x1000", "TLBI RVAE1IS instead of TLBI RVALE1IS"),
        (Cause::LocalOnly, "tlbi vae1, 0x1000", "issue TLBI VAE1IS and"),
        (Cause::LocalOnly, "tlbi vae1nxs, 0x1000", "issue TLBI VAE1ISNXS and"),
        (Cause::NotOrdered, "tlbi vae1is, 0x1000", "put DSB ISHST between"),
        (Cause::NotOrdered, "tlbi vae1, 0x1000", "put DSB NSHST"),
        (Cause::NotCompleted, "tlbi vae1is, 0x1000", "DSB ISH on PE 1 after TLBI VAE1IS, before the new"),
        (Cause::GlobalSurvives, "tlbi aside1is, asid 3", "TLBI ASIDE1IS leaves entries without nG"),
        (Cause::WrongAsid, "tlbi vae1is, 0x1000 asid 3", "name ASID 7"),
    ] {
        assert!(with(cause, op).contains(word), "{cause}: {}", with(cause, op));
    }
}

#[test]
fn advice_is_one_line_and_names_no_error() {
    let lines = tell(
        &Violation { severity: Severity::Advice, ..hang_of_2019() },
        Telling { names: &Stripped, full_stacks: false },
        Paint::PLAIN,
    );
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("advice [remade, leaf-only]: "), "{lines:?}");
    let cost = Remark { severity: Severity::Cost, text: "nobody ran ASID 9".into(), site: site(1, 0x100, &[]) };
    let stripped = Telling { names: &Stripped, full_stacks: false };
    assert_eq!(remark(&cost, stripped, Paint::PLAIN), "cost: nobody ran ASID 9 (PE 1 at 0x100)");
    let named = remark(&cost, Telling { names: &Kernel, full_stacks: false }, Paint::PLAIN);
    assert_eq!(named, "cost: nobody ran ASID 9 (PE 1 pgtable::edit::unmap at crates/pgtable/src/edit.rs:120)");
}

#[test]
fn a_stale_access_shows_both_addresses() {
    let accessed = Some(tlbsan::report::Accessed { va: 0x4000_0010, used: 0x10_0010, tables: Some(0x20_0010) });
    let v = Violation { kind: Kind::StaleAccess, cause: Cause::NotSynchronised, accessed, ..hang_of_2019() };
    let text = story(&v, &Stripped);
    assert!(text.contains("used 0x10_0010 for 0x4000_0010, where the tables give 0x20_0010"), "{text}");
    assert!(text.contains("ISB after the DSB"), "{text}");

    let accessed = accessed.map(|access| tlbsan::report::Accessed { tables: Some(access.used), ..access });
    let text = story(&Violation { accessed, ..v }, &Stripped);
    assert!(text.contains("used 0x4000_0010 without a context synchronisation event"), "{text}");
}

#[test]
fn short_stacks_show_what_the_kernel_did() {
    let lines = tell(&hang_of_2019(), Telling { names: &Kernel, full_stacks: false }, Paint::PLAIN);
    let frames: Vec<&str> = lines.iter().filter(|line| line.starts_with("       ")).map(|line| line.trim()).collect();
    assert!(frames.contains(&"tlbi::flush::Tlb::invalidate at crates/tlbi/src/flush.rs:88"), "{frames:?}");
    assert!(!frames.iter().any(|frame| frame.contains("issue.rs")), "the insides of a library: {frames:?}");
}

#[test]
fn a_claim_names_the_hint_and_what_it_said() {
    let claim = Some(Claim::FrameFreed { pa: 0x4567_8000, size: 4096 });
    let text = story(&Violation { kind: Kind::Claimed, claim, ..hang_of_2019() }, &Stripped);
    assert!(
        text.contains("3. PE 0 gave the frame at 0x4567_8000 (4096 bytes) back to its allocator: hint frame_freed"),
        "{text}"
    );
    let claim = Some(Claim::FlushClaimed { start: 0x4000_0000, size: 0x1000, asid: 7 });
    let text = story(&Violation { kind: Kind::Claimed, claim, ..hang_of_2019() }, &Stripped);
    assert!(text.contains("declared 0x4000_0000..0x4000_1000 flushed for ASID 7: hint flush_claimed"), "{text}");
}
