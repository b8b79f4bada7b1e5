//! Names by address alone: the text of System.map or /proc/kallsyms, and what the kernel's own table comes to.

/// Functions by address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// First address and name, by address.
    functions: Vec<(u64, Box<str>)>,
    /// Where the first of them lies in physical memory.
    physical: Option<u64>,
}

/// A function's name is not given to what lies further behind its beginning: no function is that long.
const LONGEST: u64 = 1 << 20;

impl Table {
    /// From (address, type as `nm` prints it, name), in any order. Only functions are kept.
    pub(super) fn new(symbols: impl Iterator<Item = (u64, u8, Box<str>)>) -> Self {
        let function = |kind: u8, name: &str| {
            let local = name.starts_with('$') || name.starts_with(".L") || name.starts_with("__pi_$");
            matches!(kind, b't' | b'T' | b'w' | b'W') && !local
        };
        let mut functions: Vec<(u64, Box<str>)> =
            symbols.filter(|(_, kind, name)| function(*kind, name)).map(|(address, _, name)| (address, name)).collect();
        functions.sort_by_key(|(address, _)| *address);
        Self { functions, physical: None }
    }

    /// `ffff800008010000 T _text` a line, as in System.map and /proc/kallsyms; `None` if it is nothing of the kind.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let line = |line: &[u8]| {
            let line = std::str::from_utf8(line).ok()?;
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let kind = words.next().filter(|kind| kind.len() == 1)?.as_bytes()[0];
            let name = words.next()?;
            // A module's functions: `name [module]`.
            let module = words.next().map(|module| format!("{name} {module}"));
            Some((address, kind, module.map_or_else(|| name.into(), String::into_boxed_str)))
        };
        let lines = text.split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let symbols: Vec<_> = lines.map(line).collect::<Option<_>>()?;
        let table = Self::new(symbols.into_iter());
        // Without the right to see addresses /proc/kallsyms shows zeros.
        table.functions.last().is_some_and(|(address, _)| *address != 0).then_some(table)
    }

    /// The kernel is loaded at this physical address: its functions have names there too.
    pub(super) fn mirror(&mut self, physical: u64) {
        self.physical = Some(physical);
    }

    /// The function at `pc`, and how far it is into it.
    pub(super) fn at(&self, pc: u64) -> Option<(&str, u64)> {
        let virtually = || {
            let (first, last) = (self.functions.first()?.0, self.functions.last()?.0);
            let offset = pc.checked_sub(self.physical?)?;
            (offset <= last - first).then_some(first + offset)
        };
        self.near(pc).or_else(|| self.near(virtually()?))
    }

    fn near(&self, pc: u64) -> Option<(&str, u64)> {
        let next = self.functions.partition_point(|(address, _)| *address <= pc);
        let (address, _) = self.functions.get(next.checked_sub(1)?)?;
        // Of several names at one address the first says most: `_stext` and others come behind.
        let first = self.functions.partition_point(|(other, _)| other < address);
        let marks =
            |name: &str| matches!(name, "_text" | "_stext" | "_head" | "_etext" | "_einittext" | "__exittext_end");
        let (_, name) = self.functions[first..next].iter().find(|(_, name)| !marks(name))?;
        (pc - address < LONGEST).then_some((name, pc - address))
    }

    /// Where a function begins.
    pub(super) fn address(&self, name: &str) -> Option<u64> {
        self.functions.iter().find(|(_, other)| **other == *name).map(|(address, _)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
ffff800008000000 t _head
ffff800008000000 T _text
ffff800008010000 T _stext
ffff800008010000 t bcm2835_handle_irq
ffff8000080100f0 t $x
ffff8000080100f0 t unmap
ffff800008020000 D jiffies
ffff800008030000 T _etext
ffff8000041b0000 t helper\t[zram]
";

    #[test]
    fn addresses_get_the_function_before_them() {
        let table = Table::parse(MAP.as_bytes()).expect("a map");
        for (pc, name) in [
            (0xffff_8000_0801_0000, Some(("bcm2835_handle_irq", 0))),
            (0xffff_8000_0801_00ef, Some(("bcm2835_handle_irq", 0xef))),
            (0xffff_8000_0801_00f4, Some(("unmap", 4))),
            (0xffff_8000_0803_0010, None),
            (0xffff_8000_041b_0010, Some(("helper [zram]", 0x10))),
            (0xffff_8000_043b_0010, None),
            (0x10, None),
        ] {
            assert_eq!(table.at(pc), name, "{pc:#x}");
        }
        assert_eq!(table.address("_text"), Some(0xffff_8000_0800_0000));
        assert_eq!(table.address("jiffies"), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in ["", "ELF", "0000 t zeros\n0000 T only\n", "ffff800008000000 T\n", "hello T world\n"] {
            assert_eq!(Table::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Table::parse(b"\xff\xfe T x"), None);
    }
}
