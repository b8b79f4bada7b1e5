//! The story of a violation, as a person reads it: what is wrong, how it came about step by step, what to do.
//!
//! Pure: from the record and whoever can name addresses to lines of text. Knows neither TAP nor the console.

use tlbsan::report::{Claim, Descriptor, Remark, Severity, Site, Verdict, Violation};
use tlbsan_hint::{Cause, Kind};

use crate::advice::advice;
use crate::paint::{Paint, bits, count, hex, regroup, span};
use crate::stack::{Telling, addresses, line, lines, shown, stack};
use crate::symbols::Frame;

/// A verdict in one line: `remade, leaf-only: 0x4000_0000..0x4020_0000 at level 2`.
pub(crate) fn verdict(v: &Verdict) -> String {
    format!("{}, {}: {} at level {}", v.kind, v.cause, span(v.start, v.size), v.level)
}

/// A step of a story.
pub(crate) enum Step<'a> {
    /// Somebody did something: `removed the old level-3 page`.
    Did(&'a Site, String),
    /// Nobody did: a sentence.
    Note(String),
}

/// How it came about, in order.
pub(crate) fn steps(v: &Violation) -> Vec<Step<'_>> {
    if v.removed == v.trigger {
        return vec![Step::Did(&v.trigger, in_one_step(v).to_owned())];
    }
    let mut steps = vec![Step::Did(&v.removed, format!("removed the {}", entry(v)))];
    steps.extend(v.attempts.iter().map(|attempt| {
        let why = regroup(attempt.why.trim_end_matches('.'));
        Step::Did(&attempt.site, format!("issued {}: {why}", operation(&attempt.op)))
    }));
    if v.more_attempts > 0 {
        let more = count(v.more_attempts, "more invalidation", "more invalidations");
        steps.push(Step::Note(format!("and {more} that did not help")));
    } else if v.cause == Cause::NotSynchronised {
        let pe = v.trigger.pe;
        steps.push(Step::Note(format!(
            "PE {pe} invalidated it, and has executed no ISB, exception entry or ERET since"
        )));
    } else if v.attempts.is_empty() {
        steps.push(Step::Note("nobody invalidated it".to_owned()));
    }
    steps.push(Step::Did(&v.trigger, triggered(v)));
    steps
}

/// The whole story, line by line.
pub(crate) fn tell(v: &Violation, telling: Telling<'_>, paint: Paint) -> Vec<String> {
    if v.severity != Severity::Error {
        // Advice takes no more than a line.
        let place = place(&v.trigger, telling);
        return vec![paint.dim(&format!("advice [{}, {}]: {} ({place})", v.kind, v.cause, headline(v)))];
    }
    let tag = format!("stale translation [{}, {}]:", v.kind, v.cause);
    let mut lines = vec![format!("{} {}", paint.red(&tag), paint.bold(&headline(v)))];
    lines.push(format!(
        "  old  {}  {}",
        descriptor(&v.old),
        paint.dim(&format!("slot {}, {}", hex(v.slot.into()), tagged(v)))
    ));
    lines.push(format!("  new  {}", descriptor(&v.new)));

    let mut numbered = Numbered { lines: &mut lines, telling, paint, number: 0, first: Vec::new() };
    for step in steps(v) {
        match step {
            Step::Did(site, what) => numbered.did(site, &what),
            Step::Note(what) => numbered.note(&what),
        }
    }

    if v.times > 1 {
        lines.push(format!("  the same store did this to {} entries; this is the first", v.times));
    }
    lines.push(format!("  {} {}", paint.green("what to do:"), advice(v)));
    lines
}

/// A remark, in one line.
pub(crate) fn remark(remark: &Remark, telling: Telling<'_>, paint: Paint) -> String {
    let word = if remark.severity == Severity::Cost { "cost" } else { "advice" };
    paint.dim(&format!("{word}: {} ({})", remark.text, place(&remark.site, telling)))
}

/// `PE 0, unmap at mm.c:12`.
fn place(site: &Site, telling: Telling<'_>) -> String {
    let innermost = lines(site, telling).into_iter().next().unwrap_or_default();
    format!("PE {} {innermost}", site.pe)
}

/// What is wrong, in plain words.
pub(crate) fn headline(v: &Violation) -> String {
    let (span, pes, entry) = (span(v.start, v.size), pes(&v.pes), entry(v));
    let still = if v.table { format!("walk through its {entry}") } else { format!("use its {entry}") };
    match v.kind {
        Kind::Remade => format!("{span} has a new translation, but {pes} may still {still}"),
        Kind::Reused if v.table => {
            format!("the page of the {entry} for {span} holds other data now, but {pes} may still walk through it")
        }
        Kind::Reused => {
            format!("the frame behind {span} is a table now, but {pes} may still access it through the {entry}")
        }
        Kind::LiveChange => {
            format!("{span} was changed while in use, and {pes} may hold the {entry} beside the new entry")
        }
        Kind::Claimed => format!("{span} was declared clean, but {pes} may still {still}"),
        Kind::StaleAccess => match &v.accessed {
            Some(access) if access.tables == Some(access.used) => format!(
                "{pes} used {} without a context synchronisation event after its own TLBI and DSB, and might have used the {entry}",
                hex(access.va.into())
            ),
            Some(access) => format!(
                "{pes} used {} for {}, where the tables give {}",
                hex(access.used.into()),
                hex(access.va.into()),
                access.tables.map_or_else(|| "nothing".to_owned(), |pa| hex(pa.into()))
            ),
            None => format!("{pes} used an old translation of {span}"),
        },
        Kind::Asid => {
            format!("other tables are loaded under the {} of {span}, and {pes} may still {still}", identifier(v))
        }
    }
}

/// What the tables are told apart by.
fn identifier(v: &Violation) -> &'static str {
    if v.asids.is_empty() { "identifier" } else { "ASID" }
}

/// What a rule says, for those who have never heard of it.
pub(crate) fn rule(kind: Kind) -> &'static str {
    match kind {
        Kind::Remade => "A new translation was made where an older one may still be cached",
        Kind::Reused => "The page of a table was put to another use while walk caches may still lead to it",
        Kind::LiveChange => "A valid entry was changed in place where break-before-make is due",
        Kind::Claimed => "A range was declared flushed, or a frame freed, that may still be cached",
        Kind::StaleAccess => "An access was made by an old translation that nothing allowed any more",
        Kind::Asid => "Other tables were loaded under an identifier that entries of earlier ones may be cached under",
    }
}

/// What ended the time in which a stale entry is allowed.
fn triggered(v: &Violation) -> String {
    let what = match (v.kind, &v.claim) {
        (Kind::Remade, _) => "wrote the new entry",
        (Kind::Reused, _) if v.table => "put the table's page to another use",
        (Kind::Reused, _) => "made the frame a table",
        (Kind::LiveChange, _) => "wrote the new entry without a break in between",
        (Kind::Claimed, Some(claim)) => return claimed(claim),
        (Kind::Claimed, None) => "declared it clean, by a hint",
        (Kind::StaleAccess, _) => "accessed it",
        (Kind::Asid, _) => "loaded other tables",
    };
    what.to_owned()
}

/// Which hint said that nothing stale was left.
fn claimed(claim: &Claim) -> String {
    match *claim {
        Claim::FrameFreed { pa, size } => {
            format!("gave the frame at {} ({size} bytes) back to its allocator: hint frame_freed", hex(pa.into()))
        }
        Claim::FlushClaimed { start, size, asid } => {
            format!("declared {} flushed for ASID {asid}: hint flush_claimed", span(start, size))
        }
    }
}

/// What did it all at once.
fn in_one_step(v: &Violation) -> &'static str {
    match v.kind {
        Kind::Asid => "loaded other tables under the same identifier",
        Kind::StaleAccess => "accessed it",
        _ => "wrote the new entry over the old one",
    }
}

/// `old level-2 table`.
pub(crate) fn entry(v: &Violation) -> String {
    let what = match (v.table, v.level) {
        (true, _) => "table entry",
        (false, 3) => "page",
        (false, _) => "block",
    };
    format!("old level-{} {what}", v.level)
}

/// `PE 2`, `PEs 0, 1 and 3`.
pub(crate) fn pes(pes: &[usize]) -> String {
    match pes {
        [] => "some PE".to_owned(),
        [one] => format!("PE {one}"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(usize::to_string).collect();
            format!("PEs {} and {last}", most.join(", "))
        }
    }
}

pub(crate) fn tagged(v: &Violation) -> String {
    match v.asids.as_slice() {
        [] => "global or any ASID".to_owned(),
        [one] => format!("ASID {one}"),
        asids => format!("ASIDs {}", asids.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn descriptor(d: &Descriptor) -> String {
    format!("{}  {}", bits(d.bits), regroup(&d.text))
}

/// `TLBI VALE1IS, 0x4000_0000 ASID 7`.
pub(crate) fn operation(op: &str) -> String {
    let (head, operand) = op.split_at(op.find(',').unwrap_or(op.len()));
    let head = head.to_ascii_uppercase();
    let head = if head.starts_with("TLBI ") { head } else { format!("TLBI {head}") };
    format!("{head}{}", regroup(operand).replace("asid ", "ASID ").replace("ttl ", "TTL "))
}

/// The numbered steps.
struct Numbered<'a> {
    lines: &'a mut Vec<String>,
    telling: Telling<'a>,
    paint: Paint,
    number: usize,
    /// The call stack of the first step: what later ones share with it is not repeated.
    first: Vec<Frame>,
}

impl Numbered<'_> {
    fn did(&mut self, site: &Site, what: &str) {
        self.number += 1;
        let label = site.label.as_deref().map(|label| format!(", in \"{}\"", label.escape_debug())).unwrap_or_default();
        self.lines.push(format!("  {}. PE {} {what}{}", self.number, site.pe, self.paint.dim(&label)));
        let stack = stack(site, self.telling.names);
        if stack.is_empty() {
            self.lines.push(format!("       at {}", addresses(site)));
        } else {
            self.frames(&stack);
        }
        if self.number == 1 {
            self.first = stack;
        }
    }

    fn note(&mut self, what: &str) {
        if what.starts_with("and ") {
            self.lines.push(format!("     {what}"));
        } else {
            self.number += 1;
            self.lines.push(format!("  {}. {what}", self.number));
        }
    }

    fn frames(&mut self, stack: &[Frame]) {
        let shared = stack.iter().rev().zip(self.first.iter().rev()).take_while(|(a, b)| a == b).count();
        // At least the innermost frame is said again, and one shared caller is no longer than the remark about it.
        let shared = if shared < 2 { 0 } else { shared.min(stack.len() - 1) };
        let own = stack.len() - shared;
        let (frames, hidden) = shown(&stack[..own], stack, self.telling.full_stacks);
        self.lines.extend(frames.iter().map(|frame| format!("       {}", line(frame, self.paint))));
        let remark = match (hidden, shared) {
            (0, 0) => return,
            (0, 1..) => "... called as in 1".to_owned(),
            (_, 1..) if !self.telling.full_stacks => "... called as in 1".to_owned(),
            _ if !self.telling.full_stacks => "...".to_owned(),
            (more, _) => format!("... and {} further out", count(more as u64, "caller", "callers")),
        };
        self.lines.push(format!("       {}", self.paint.dim(&remark)));
    }
}

#[cfg(test)]
#[path = "story_tests.rs"]
pub(crate) mod tests;
