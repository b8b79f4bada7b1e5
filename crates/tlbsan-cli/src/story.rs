//! The story of a violation, as a person reads it: what is wrong, how it came about step by step, what to do.
//!
//! Pure: from the record and whoever can name addresses to lines of text. Knows neither TAP nor the console.

use tlbsan::report::{Descriptor, Remark, Severity, Site, Verdict, Violation};
use tlbsan_hint::Kind;

use crate::advice::advice;
use crate::paint::{Paint, bits, count, hex, regroup, span};
use crate::symbols::{Frame, Names};

/// Frames shown of one call stack: down to whoever asked for the change, through everything inlined on the way.
const FRAMES: usize = 24;

/// A verdict in one line: `remade, leaf-only: 0x4000_0000..0x4020_0000 at level 2`.
pub(crate) fn verdict(v: &Verdict) -> String {
    format!("{}, {}: {} at level {}", v.kind, v.cause, span(v.start, v.size), v.level)
}

/// The whole story, line by line.
pub(crate) fn tell(v: &Violation, names: &dyn Names, paint: Paint) -> Vec<String> {
    if v.severity != Severity::Error {
        // Advice takes no more than a line.
        return vec![paint.dim(&format!("advice [{}, {}]: {}", v.kind, v.cause, headline(v)))];
    }
    let tag = format!("stale translation [{}, {}]:", v.kind, v.cause);
    let mut lines = vec![format!("{} {}", paint.red(&tag), paint.bold(&headline(v)))];
    lines.push(format!(
        "  old  {}  {}",
        descriptor(&v.old),
        paint.dim(&format!("slot {}, {}", hex(v.slot.into()), tagged(v)))
    ));
    lines.push(format!("  new  {}", descriptor(&v.new)));

    let mut steps = Steps { lines: &mut lines, names, paint, number: 0, first: Vec::new() };
    if v.removed == v.trigger {
        steps.add(&v.trigger, "wrote the new entry over the old one");
    } else {
        steps.add(&v.removed, &format!("removed the {}", entry(v)));
    }
    for attempt in &v.attempts {
        steps.add(
            &attempt.site,
            &format!("issued {}: {}", operation(&attempt.op), regroup(attempt.why.trim_end_matches('.'))),
        );
    }
    if v.more_attempts > 0 {
        steps.lines.push(format!(
            "     and {} that did not help",
            count(v.more_attempts, "more invalidation", "more invalidations")
        ));
    }
    if v.removed != v.trigger {
        if v.attempts.is_empty() && v.more_attempts == 0 {
            steps.number += 1;
            steps.lines.push(format!("  {}. nobody invalidated it", steps.number));
        }
        steps.add(&v.trigger, triggered(v));
    }

    if v.times > 1 {
        lines.push(format!("  the same store did this to {} entries; this is the first", v.times));
    }
    lines.push(format!("  {} {}", paint.green("what to do:"), advice(v)));
    lines
}

/// A remark, in one line.
pub(crate) fn remark(remark: &Remark, paint: Paint) -> String {
    let word = if remark.severity == Severity::Cost { "cost" } else { "advice" };
    paint.dim(&format!("{word}: {} (PE {} at {})", remark.text, remark.site.pe, hex(remark.site.pc.into())))
}

/// What is wrong, in plain words.
fn headline(v: &Violation) -> String {
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

/// What ended the time in which a stale entry is allowed.
fn triggered(v: &Violation) -> &'static str {
    match v.kind {
        Kind::Remade => "wrote the new entry",
        Kind::Reused if v.table => "put the table's page to another use",
        Kind::Reused => "made the frame a table",
        Kind::LiveChange => "wrote the new entry without a break in between",
        Kind::Claimed => "declared it clean, by a hint",
        Kind::StaleAccess => "accessed it",
        Kind::Asid => "loaded other tables",
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

fn tagged(v: &Violation) -> String {
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
struct Steps<'a> {
    lines: &'a mut Vec<String>,
    names: &'a dyn Names,
    paint: Paint,
    number: usize,
    /// The call stack of the first step: what later ones share with it is not repeated.
    first: Vec<Frame>,
}

impl Steps<'_> {
    fn add(&mut self, site: &Site, what: &str) {
        self.number += 1;
        let label = site.label.as_deref().map(|label| format!(", in \"{}\"", label.escape_debug())).unwrap_or_default();
        self.lines.push(format!("  {}. PE {} {what}{}", self.number, site.pe, self.paint.dim(&label)));
        let stack = stack(site, self.names);
        if stack.is_empty() {
            self.lines.push(format!("       at {}", addresses(site)));
        } else {
            self.frames(&stack);
        }
        if self.number == 1 {
            self.first = stack;
        }
    }

    fn frames(&mut self, stack: &[Frame]) {
        let shared = stack.iter().rev().zip(self.first.iter().rev()).take_while(|(a, b)| a == b).count();
        // At least the innermost frame is said again, and one shared caller is no longer than the remark about it.
        let shared = if shared < 2 { 0 } else { shared.min(stack.len() - 1) };
        let own = stack.len() - shared;
        for frame in stack.iter().take(own.min(FRAMES)) {
            let line = self.frame(frame);
            self.lines.push(line);
        }
        let remark = match (own.saturating_sub(FRAMES), shared) {
            (0, 0) => return,
            (0, _) => "... called as in 1".to_owned(),
            (more, _) => format!("... and {} further out", count(more as u64, "caller", "callers")),
        };
        self.lines.push(format!("       {}", self.paint.dim(&remark)));
    }

    fn frame(&self, frame: &Frame) -> String {
        let location = match &frame.location {
            Some((file, Some(line))) => format!("{file}:{line}"),
            Some((file, None)) => file.clone(),
            None => return format!("       {}", frame.function.as_deref().unwrap_or("?")),
        };
        match &frame.function {
            Some(function) => format!("       {function} {}", self.paint.dim(&format!("at {location}"))),
            None => format!("       {location}"),
        }
    }
}

/// The call stack with names, up to the first caller that has none.
pub(crate) fn stack(site: &Site, names: &dyn Names) -> Vec<Frame> {
    let mut frames = names.frames(site.pc);
    if frames.is_empty() {
        return frames;
    }
    for (depth, &ret) in site.stack.iter().enumerate() {
        // The call stands before the address that it returns to.
        let caller = names.frames(ret.wrapping_sub(4));
        let Some(outermost) = caller.last() else { break };
        // The link register of a function that has called others leads back into itself: it is no caller.
        if depth == 0 && frames.last().is_some_and(|own| own.function == outermost.function) {
            continue;
        }
        frames.extend(caller);
    }
    // A function that calls itself is named once, where it was innermost.
    frames.dedup_by(|outer, inner| outer.function.is_some() && outer.function == inner.function);
    // What core and alloc do on somebody's behalf tells nothing, unless there is nobody else.
    let library = |frame: &Frame| frame.location.as_ref().is_some_and(|(file, _)| file.starts_with("library/"));
    if !frames.iter().all(library) {
        frames.retain(|frame| !library(frame));
    }
    frames
}

fn addresses(site: &Site) -> String {
    let callers: Vec<String> = site.stack.iter().take(FRAMES).map(|&ret| hex(ret.into())).collect();
    let pc = hex(site.pc.into());
    if callers.is_empty() { pc } else { format!("{pc}, called from {}", callers.join(", ")) }
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
