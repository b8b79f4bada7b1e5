//! Call stacks as a person reads them: by name, and short.
//!
//! A stack in full goes through everything that was inlined on the way, libraries included. Short, it shows what the kernel itself
//! did: of a library that was called, the function that was called and not its insides; of a function and its closures, one;
//! and no more than a few. What the kernel itself is, the outermost frame says: its crate. Code without crates, as C is, has no
//! libraries.

use tlbsan::report::Site;

use crate::paint::{Paint, hex};
use crate::symbols::{Frame, Names};

/// Frames shown of a full stack.
const MOST: usize = 24;
/// Frames shown of a short one.
const FEW: usize = 5;

/// Who names addresses, and how much of a stack is shown.
#[derive(Clone, Copy)]
pub(crate) struct Telling<'a> {
    /// Whoever can name addresses.
    pub(crate) names: &'a dyn Names,
    /// `--full-stacks`.
    pub(crate) full_stacks: bool,
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

/// What is shown of `frames`, the innermost ones of `whole`, and how many are not.
pub(crate) fn shown(frames: &[Frame], whole: &[Frame], full: bool) -> (Vec<Frame>, usize) {
    let mut shown: Vec<Frame> = if full { frames.to_vec() } else { folded(frames, own_crate(whole)) };
    shown.truncate(if full { MOST } else { FEW });
    let hidden = if full { frames.len() - shown.len() } else { usize::from(shown.len() < frames.len()) };
    (shown, hidden)
}

/// The crate that the outermost function belongs to, of those that have one.
fn own_crate(frames: &[Frame]) -> Option<&str> {
    frames.iter().rev().find_map(|frame| frame.function.as_deref().and_then(crate_of))
}

fn folded(frames: &[Frame], own: Option<&str>) -> Vec<Frame> {
    let Some(own) = own else { return frames.to_vec() };
    let of = |frame: &Frame| frame.function.as_deref().and_then(crate_of).unwrap_or(own).to_owned();
    let mut kept: Vec<Frame> = Vec::new();
    for (n, frame) in frames.iter().enumerate() {
        let library = of(frame);
        if library != own && frames.get(n + 1).is_some_and(|caller| of(caller) == library) {
            continue;
        }
        let mut frame = frame.clone();
        frame.function = frame.function.map(|name| base(&name).to_owned());
        if !kept.iter().any(|inner| inner.function.is_some() && inner.function == frame.function) {
            kept.push(frame);
        }
    }
    kept
}

/// The function that a closure is written in.
pub(crate) fn base(mut function: &str) -> &str {
    while let Some(inside) = function.strip_suffix("::{{closure}}") {
        function = inside;
    }
    function
}

/// `pgtable` of `pgtable::edit::unmap` and of `<pgtable::edit::Edit as Drop>::drop`.
fn crate_of(function: &str) -> Option<&str> {
    let (first, _) = function.trim_start_matches(['<', '&', '*', '(']).split_once("::")?;
    first.chars().all(|c| c.is_alphanumeric() || c == '_').then_some(first)
}

/// `pgtable::edit::unmap at crates/pgtable/src/edit.rs:120`.
pub(crate) fn line(frame: &Frame, paint: Paint) -> String {
    let location = match &frame.location {
        Some((file, Some(line))) => format!("{file}:{line}"),
        Some((file, None)) => file.clone(),
        None => {
            let function = frame.function.as_deref().unwrap_or("?");
            return frame.offset.map_or_else(|| function.to_owned(), |offset| format!("{function}+{offset:#x}"));
        }
    };
    match &frame.function {
        Some(function) => format!("{function} {}", paint.dim(&format!("at {location}"))),
        None => location,
    }
}

/// The same for somebody who knows no names.
pub(crate) fn addresses(site: &Site) -> String {
    let callers: Vec<String> = site.stack.iter().take(MOST).map(|&ret| hex(ret.into())).collect();
    let pc = hex(site.pc.into());
    if callers.is_empty() { pc } else { format!("{pc}, called from {}", callers.join(", ")) }
}

/// The frames shown of a stack by itself, as lines; addresses where there are no names.
pub(crate) fn lines(site: &Site, telling: Telling<'_>) -> Vec<String> {
    let whole = stack(site, telling.names);
    if whole.is_empty() {
        return vec![format!("at {}", addresses(site))];
    }
    let (shown, _) = shown(&whole, &whole, telling.full_stacks);
    shown.iter().map(|frame| line(frame, Paint::PLAIN)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(functions: &[&str]) -> Vec<Frame> {
        functions.iter().map(|name| Frame { function: Some((*name).into()), location: None, offset: None }).collect()
    }

    fn short(functions: &[&str]) -> Vec<String> {
        let whole = frames(functions);
        shown(&whole, &whole, false).0.into_iter().filter_map(|frame| frame.function).collect()
    }

    #[test]
    fn of_a_library_the_function_that_was_called_is_shown() {
        let stack = [
            "fw::stage::Linear::store",
            "pgtable::walk::Visit<M>::set",
            "<pgtable::edit::Remove<M> as pgtable::walk::Visitor<M>>::table_post",
            "pgtable::edit::Edit<M,A>::unmap",
            "fw::race::play::{{closure}}::{{closure}}",
            "fw::steer::Steps::step",
            "fw::race::play::{{closure}}",
            "pgtable::space::AddressSpace<M>::change",
            "fw::race::play",
            "fw::main",
            "entry",
        ];
        assert_eq!(
            short(&stack),
            [
                "fw::stage::Linear::store",
                "pgtable::edit::Edit<M,A>::unmap",
                "fw::race::play",
                "fw::steer::Steps::step",
                "pgtable::space::AddressSpace<M>::change",
            ]
        );
        let whole = frames(&stack);
        assert_eq!(shown(&whole, &whole, true), (whole.clone(), 0));
    }

    #[test]
    fn c_has_no_libraries() {
        let stack = ["set_pte", "ptep_clear", "zap_pte_range", "unmap_vmas", "exit_mmap", "mmput", "do_exit"];
        assert_eq!(short(&stack), stack[..FEW]);
        assert_eq!(short(&stack[..2]), stack[..2]);
    }

    #[test]
    fn a_place_without_a_line_is_told_by_its_offset() {
        let frame = Frame { function: Some("zap_pte_range".into()), location: None, offset: Some(0x1a4) };
        assert_eq!(line(&frame, Paint::PLAIN), "zap_pte_range+0x1a4");
    }
}
