//! The reference's own reading of descriptors (Arm ARM D8.3), and what a change asks for. 4 KiB tables.

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Desc {
    Nothing,
    Table {
        next: u64,
        /// NSTable, APTable, UXNTable, PXNTable: each of them forbids.
        forbids: u64,
    },
    Leaf {
        output: u64,
        /// AttrIndx, SH, nG, contiguous, and NS, GP, nT: all that may not change in place.
        attributes: u64,
        /// AP[2] clear or DBM; AP[1]; PXN and UXN clear: what it permits.
        permits: u64,
        /// Whether the access flag lets a TLB hold it. It is no part of the translation.
        cacheable: bool,
    },
}

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing: both say the same, or the new one permits more.
    None,
    /// An invalidation: the span translates to nothing any more, or less is permitted.
    Owed,
    /// Break-before-make.
    Break,
}

/// Bytes of a page, and of a table.
pub(crate) const PAGE: u64 = 4096;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const NG: u64 = 1 << 11;
const WRITABLE: u64 = 1 << 7;
const CONTIGUOUS: u64 = 1 << 52;
/// Entries of a contiguous run.
const RUN: u64 = 16;

/// Bytes that an entry at `level` translates.
pub(crate) fn span(level: i8) -> u64 {
    1 << (12 + 9 * (3 - level))
}

impl Desc {
    pub(crate) fn decode(bits: u64, level: i8) -> Self {
        let bit = |n: u32| bits >> n & 1 == 1;
        match (bit(0), bit(1), level) {
            (true, true, ..3) => Self::Table { next: bits & ADDRESS, forbids: bits >> 59 },
            (true, true, 3) | (true, false, 1 | 2) => {
                let permits = (bits ^ (1 << 7 | 3 << 53)) & (1 << 6 | 1 << 7 | 3 << 53);
                // nT is a block's; in a page's descriptor the bit belongs to the address.
                let nt = if level < 3 { 1 << 16 } else { 0 };
                Self::Leaf {
                    output: bits & ADDRESS & !(span(level) - 1),
                    attributes: bits & (7 << 2 | 1 << 5 | 3 << 8 | NG | nt | 1 << 50 | CONTIGUOUS),
                    permits: if bit(51) { permits | WRITABLE } else { permits },
                    cacheable: bit(10),
                }
            }
            _ => Self::Nothing,
        }
    }

    /// Whether a TLB may hold it (R2).
    pub(crate) fn is_cacheable(&self) -> bool {
        matches!(self, Self::Table { .. } | Self::Leaf { cacheable: true, .. })
    }

    /// The table that it leads to.
    pub(crate) fn next(&self) -> Option<u64> {
        match *self {
            Self::Table { next, .. } => Some(next),
            _ => None,
        }
    }

    /// Whether it is not tagged with an ASID.
    pub(crate) fn is_global(&self) -> bool {
        matches!(self, Self::Leaf { attributes, .. } if attributes & NG == 0)
    }

    /// What the entry with number `index` says of the contiguous run around it: what each number means.
    pub(crate) fn run(self, index: u64, level: i8) -> Vec<(u64, Self)> {
        let first = index / RUN * RUN;
        match self {
            Self::Leaf { output, attributes, permits, cacheable } if attributes & CONTIGUOUS != 0 => {
                let moved = |number: u64| output.wrapping_add(number.wrapping_sub(index).wrapping_mul(span(level)));
                let member = |n| (n, Self::Leaf { output: moved(n), attributes, permits, cacheable });
                (first..first + RUN).map(member).collect()
            }
            alone => vec![(index, alone)],
        }
    }
}

/// What the change from `old` to `new`, at one level, asks for. `same_contents` compares what two frames hold.
pub(crate) fn compare(old: &Desc, new: &Desc, same_contents: impl Fn(u64, u64) -> bool) -> Change {
    match (*old, *new) {
        (_, Desc::Nothing) | (Desc::Nothing, _) => Change::Owed,
        (Desc::Table { next: a, .. }, Desc::Table { next: b, .. }) if a != b => Change::Break,
        (Desc::Table { forbids: x, .. }, Desc::Table { forbids: y, .. }) if y & !x == 0 => Change::None,
        (Desc::Table { .. }, Desc::Table { .. }) => Change::Owed,
        (
            Desc::Leaf { output: a, attributes: x, permits: p, .. },
            Desc::Leaf { output: b, attributes: y, permits: q, .. },
        ) => {
            let tellable = a != b && ((p | q) & WRITABLE != 0 || !same_contents(a, b));
            let narrowed = x & NG == 0 && y == x | NG;
            if (x != y && !narrowed || tellable) && new.is_cacheable() {
                Change::Break
            } else if x != y || p & !q != 0 || a != b {
                Change::Owed
            } else {
                Change::None
            }
        }
        _ => Change::Break,
    }
}
