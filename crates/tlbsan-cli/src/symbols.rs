//! From addresses to functions and lines.
//!
//! Knows ELF and DWARF, through addr2line, and what a path should look like. Where there are no symbols it has no answer, and the
//! story shows addresses.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use addr2line::Loader;

use crate::command::Refusal;

/// One function in a call stack; several of them have one address where code was inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The function, demangled.
    pub(crate) function: Option<String>,
    /// The file and the line.
    pub(crate) location: Option<(String, Option<u32>)>,
}

/// Whoever can name an address.
pub(crate) trait Names {
    /// The functions at `pc`, innermost first; empty if nothing is known.
    fn frames(&self, pc: u64) -> Vec<Frame>;
}

/// The ELF files given by `--symbols`.
#[derive(Default)]
pub(crate) struct Symbols {
    files: Vec<File>,
}

struct File {
    loader: Loader,
    /// Folders that paths are shown relative to.
    roots: Vec<PathBuf>,
}

impl Symbols {
    /// Opens the files.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, Refusal> {
        let cwd = std::env::current_dir().ok();
        let mut files = Vec::new();
        for path in paths {
            let loader = Loader::new(path).map_err(|error| {
                Refusal(format!(
                    "cannot read symbols from {}: {error}; `--symbols` takes the kernel's ELF file",
                    path.display()
                ))
            })?;
            // A kernel is mostly built into the root of its tree (vmlinux), or into a folder below the current one.
            let beside = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
            files.push(File { loader, roots: cwd.clone().into_iter().chain(beside).collect() });
        }
        Ok(Self { files })
    }
}

impl Names for Symbols {
    fn frames(&self, pc: u64) -> Vec<Frame> {
        // Instructions are aligned, whatever a broken stack says; and addr2line cannot take the last address there is.
        let pc = pc & !3;
        // A return address may carry a pointer authentication code: where it has no name, the plain address may have one.
        let plain = if pc >> 55 & 1 == 1 { pc | 0xffff << 48 } else { pc & !(0xffff << 48) };
        let tries = if plain == pc { vec![pc] } else { vec![pc, plain] };
        let found = tries.iter().flat_map(|&pc| self.files.iter().map(move |file| file.frames(pc)));
        found.into_iter().find(|frames| !frames.is_empty()).unwrap_or_default()
    }
}

impl File {
    fn frames(&self, pc: u64) -> Vec<Frame> {
        let symbol = || self.loader.find_symbol(pc).map(demangled);
        let mut found = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(pc) {
            while let Ok(Some(frame)) = frames.next() {
                let name =
                    frame.function.as_ref().and_then(|function| function.raw_name().ok().map(|name| demangled(&name)));
                let location =
                    frame.location.and_then(|at| Some((self.shown(at.file?), at.line.filter(|&line| line != 0))));
                found.push(Frame { function: name, location });
            }
        }
        // A line without a function, as assembly has them; or a symbol alone.
        match found.last_mut() {
            Some(last) if last.function.is_none() => last.function = symbol(),
            Some(_) => {}
            None => found.extend(symbol().map(|name| Frame { function: Some(name), location: None })),
        }
        found.retain(|frame| frame.function.is_some() || frame.location.is_some());
        found
    }

    fn shown(&self, path: &str) -> String {
        shorten(path, &self.roots).into_owned()
    }
}

fn demangled(name: &str) -> String {
    plain(&format!("{:#}", rustc_demangle::demangle(name)))
}

/// `<stage::Linear as memory::TableMemory>::store` is `stage::Linear::store` to whoever wrote it.
fn plain(name: &str) -> String {
    let Some(inside) = name.strip_prefix('<') else { return name.to_owned() };
    let mut depth = 1;
    let end = inside.char_indices().find_map(|(at, c)| {
        match c {
            '<' => depth += 1,
            // The arrow of a function's type closes nothing.
            '>' if !inside[..at].ends_with('-') => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    });
    let Some((implementation, rest)) = end.map(|at| (&inside[..at], &inside[at + 1..])) else { return name.to_owned() };
    match implementation.split_once(" as ") {
        Some((of, _)) if !of.contains(['<', '(', '[', '&', ' ']) => format!("{of}{rest}"),
        _ => name.to_owned(),
    }
}

/// A path as a person of the project would say it.
fn shorten<'a>(path: &'a str, roots: &[PathBuf]) -> Cow<'a, str> {
    for root in roots.iter().filter(|root| root.parent().is_some()) {
        if let Some(inside) = Path::new(path).strip_prefix(root).ok().and_then(Path::to_str) {
            return inside.into();
        }
    }
    // ~/.cargo/registry/src/index.crates.io-0123/arm-gic-0.10.0/src/lib.rs and ~/.cargo/git/checkouts/name-0123/abc/src/lib.rs
    let fetched = path.split_once("/registry/src/").or_else(|| path.split_once("/git/checkouts/"));
    if let Some((_, inside)) = fetched.and_then(|(_, inside)| inside.split_once('/')) {
        return inside.into();
    }
    match path.find("/library/") {
        Some(at) if path.starts_with("/rustc/") || path.contains("/rustlib/src/") => {
            path.get(at + 1..).unwrap_or(path).into()
        }
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_project() {
        let roots = [PathBuf::from("/home/me/kernel"), PathBuf::from("/")];
        for (path, shown) in [
            ("/home/me/kernel/src/mm.rs", "src/mm.rs"),
            ("/home/me/kernel2/src/mm.rs", "/home/me/kernel2/src/mm.rs"),
            (
                "/root/.cargo/registry/src/index.crates.io-1949cf8c/arm-gic-0.10.0/src/lib.rs",
                "arm-gic-0.10.0/src/lib.rs",
            ),
            ("/rustc/0123abc/library/core/src/ptr/mod.rs", "library/core/src/ptr/mod.rs"),
            ("mm/mmu_gather.c", "mm/mmu_gather.c"),
        ] {
            assert_eq!(shorten(path, &roots), shown);
        }
    }

    #[test]
    fn names_are_those_of_the_source() {
        for (name, shown) in [
            ("<fw::stage::Linear as pgtable::memory::TableMemory>::store", "fw::stage::Linear::store"),
            (
                "<pgtable::edit::Map<M,A> as pgtable::walk::Visitor<M>>::leaf",
                "<pgtable::edit::Map<M,A> as pgtable::walk::Visitor<M>>::leaf",
            ),
            ("tlbi::flush::Tlb<I>::invalidate", "tlbi::flush::Tlb<I>::invalidate"),
            ("<fw::A as core::ops::FnOnce<fn() -> u8>>::call", "fw::A::call"),
            ("<broken", "<broken"),
            ("", ""),
        ] {
            assert_eq!(plain(name), shown);
        }
    }

    #[test]
    fn this_very_program_has_names() {
        let exe = std::env::current_exe().expect("a test has a file");
        let symbols = Symbols::load(&[exe]).expect("an ELF file");
        // Where the test was loaded is unknown; that asking for any address is harmless is what counts.
        for pc in [0, 1, u64::MAX, 0x1000, 0xffff_8000_0000_0000] {
            let _ = symbols.frames(pc);
        }
        assert!(Symbols::load(&["/dev/null".into()]).is_err());
        assert!(Symbols::load(&["/no/such/file".into()]).is_err());
    }
}
