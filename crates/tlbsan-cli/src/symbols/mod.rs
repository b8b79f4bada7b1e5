//! From addresses to functions and lines.
//!
//! | source                                    | what it gives                                             |
//! |-------------------------------------------|-----------------------------------------------------------|
//! | an ELF file                               | functions, and lines where there is DWARF                 |
//! | System.map, or a copy of /proc/kallsyms   | functions                                                 |
//! | the running Linux kernel's own table      | functions; and how far KASLR has moved the kernel, so that the others fit |
//!
//! The last needs no file: it is looked for in guest memory when the first address wants a name. Where nothing has an answer, the
//! story shows addresses.

mod kallsyms;
mod table;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use object::{Object, ObjectSymbol};
use table::Table;

use crate::command::Refusal;

/// One function in a call stack; several of them have one address where code was inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The function, demangled.
    pub(crate) function: Option<String>,
    /// The file and the line.
    pub(crate) location: Option<(String, Option<u32>)>,
    /// Where no line is known: how many bytes behind the function's beginning.
    pub(crate) offset: Option<u64>,
}

/// Whoever can name an address.
pub(crate) trait Names {
    /// The functions at `pc`, innermost first; empty if nothing is known.
    fn frames(&self, pc: u64) -> Vec<Frame>;
}

/// What `--symbols` names, and the guest's own table.
#[derive(Default)]
pub(crate) struct Symbols {
    files: Vec<File>,
    guest: Option<Guest>,
}

enum File {
    Elf(Box<Elf>),
    Map(Table),
}

struct Elf {
    loader: Loader,
    /// Folders that paths are shown relative to.
    roots: Vec<PathBuf>,
    /// Where the file puts Linux's first symbol.
    text: Option<u64>,
}

/// Guest memory, and the kernel's table once it was found in it.
struct Guest {
    memory: OnceCell<fs::File>,
    /// The physical address at which it begins.
    base: u64,
    /// Opens it, as soon as QEMU has made it.
    open: Box<dyn Fn() -> Option<fs::File>>,
    asked: Cell<u32>,
    table: OnceCell<Table>,
}

/// After so many questions guest memory is looked through, if nothing was found before: a kernel may be loaded late.
const LOOKS: [u32; 3] = [1, 100, 1000];

/// Linux's first symbol.
const TEXT: &str = "_text";

impl Guest {
    fn table(&self) -> Option<&Table> {
        if self.table.get().is_none() {
            self.asked.set(self.asked.get().saturating_add(1));
            if LOOKS.contains(&self.asked.get())
                && let Some(table) = self.memory.get().and_then(|memory| kallsyms::find(memory, self.base))
            {
                let _ = self.table.set(table);
            }
        }
        self.table.get()
    }
}

impl Symbols {
    /// Opens the files.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, Refusal> {
        let files = paths.iter().map(|path| File::open(path)).collect::<Result<_, _>>()?;
        Ok(Self { files, guest: None })
    }

    /// How to open guest memory, which begins at the physical address `base`, and where the running kernel's own table may be.
    pub(crate) fn look_into(&mut self, base: u64, open: Box<dyn Fn() -> Option<fs::File>>) {
        self.guest = Some(Guest { memory: OnceCell::new(), base, open, asked: Cell::new(0), table: OnceCell::new() });
    }

    /// QEMU runs: opens guest memory, which stays readable when it has ended.
    pub(crate) fn attach(&self) {
        if let Some(guest) = &self.guest
            && guest.memory.get().is_none()
            && let Some(memory) = (guest.open)()
        {
            let _ = guest.memory.set(memory);
        }
    }

    /// How far the guest's kernel lies from where `file` has it.
    fn slide(&self, file: &File) -> u64 {
        let text = match file {
            File::Elf(elf) => elf.text,
            File::Map(table) => table.address(TEXT),
        };
        // Without it, it is no Linux, and guest memory need not be looked through.
        let Some(text) = text else { return 0 };
        let guest = self.guest.as_ref().and_then(Guest::table).and_then(|table| table.address(TEXT));
        guest.map_or(0, |guest| guest.wrapping_sub(text))
    }

    fn frames_at(&self, pc: u64) -> Option<Vec<Frame>> {
        let found = self.files.iter().map(|file| file.frames(pc.wrapping_sub(self.slide(file))));
        let found = found.into_iter().find(|frames| !frames.is_empty());
        found.or_else(|| by_table(self.guest.as_ref()?.table()?, pc))
    }
}

fn by_table(table: &Table, pc: u64) -> Option<Vec<Frame>> {
    let (name, offset) = table.at(pc)?;
    Some(vec![Frame { function: Some(demangled(name)), location: None, offset: Some(offset) }])
}

impl Names for Symbols {
    fn frames(&self, pc: u64) -> Vec<Frame> {
        // Instructions are aligned, whatever a broken stack says; and addr2line cannot take the last address there is.
        let pc = pc & !3;
        // A return address may carry a pointer authentication code: where it has no name, the plain address may have one.
        let plain = if pc >> 55 & 1 == 1 { pc | 0xffff << 48 } else { pc & !(0xffff << 48) };
        let plain = Some(plain).filter(|plain| *plain != pc);
        self.frames_at(pc).or_else(|| self.frames_at(plain?)).unwrap_or_default()
    }
}

impl File {
    fn open(path: &Path) -> Result<Self, Refusal> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Refusal(format!(
                "cannot read symbols from {}: {error}; `--symbols` takes the kernel's ELF file, its System.map, or a copy of \
                 /proc/kallsyms",
                path.display()
            ))
        };
        let mut magic = [0; 4];
        let opened = fs::File::open(path).and_then(|mut file| file.read(&mut magic));
        opened.map_err(|error| unreadable(&error))?;
        if magic != *b"\x7fELF" {
            let text = fs::read(path).map_err(|error| unreadable(&error))?;
            return Table::parse(&text)
                .map(Self::Map)
                .ok_or_else(|| unreadable(&"it is neither ELF nor a list of addresses and names"));
        }
        let loader = Loader::new(path).map_err(|error| unreadable(&error))?;
        // A kernel is mostly built into the root of its tree (vmlinux), or into a folder below the current one.
        let beside = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let roots = std::env::current_dir().ok().into_iter().chain(beside).collect();
        let text = text_of(path);
        Ok(Self::Elf(Box::new(Elf { loader, roots, text })))
    }

    fn frames(&self, pc: u64) -> Vec<Frame> {
        match self {
            Self::Elf(elf) => elf.frames(pc),
            Self::Map(table) => by_table(table, pc).unwrap_or_default(),
        }
    }
}

/// Where an ELF file has Linux's first symbol.
fn text_of(path: &Path) -> Option<u64> {
    let file = object::ReadCache::new(fs::File::open(path).ok()?);
    let elf = object::File::parse(&file).ok()?;
    elf.symbols().find(|symbol| symbol.name() == Ok(TEXT)).map(|symbol| symbol.address())
}

impl Elf {
    fn frames(&self, pc: u64) -> Vec<Frame> {
        let symbol = || self.loader.find_symbol(pc).map(demangled);
        let mut found = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(pc) {
            while let Ok(Some(frame)) = frames.next() {
                let name =
                    frame.function.as_ref().and_then(|function| function.raw_name().ok().map(|name| demangled(&name)));
                let location =
                    frame.location.and_then(|at| Some((self.shown(at.file?), at.line.filter(|&line| line != 0))));
                found.push(Frame { function: name, location, offset: None });
            }
        }
        // A line without a function, as assembly has them; or a symbol alone.
        match found.last_mut() {
            Some(last) if last.function.is_none() => last.function = symbol(),
            Some(_) => {}
            None => found.extend(symbol().map(|name| Frame { function: Some(name), location: None, offset: None })),
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
    // ~/.cargo/registry/src/index.example-0123/arm-gic-0.10.0/src/lib.rs and ~/.cargo/git/checkouts/name-0123/abc/src/lib.rs
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
            ("/home/me/.cargo/registry/src/index.example-0123/arm-gic-0.10.0/src/lib.rs", "arm-gic-0.10.0/src/lib.rs"),
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
