//! The reference's own reading of descriptors (Arm ARM D8.3), and what a change asks for. Addresses of 48 bits.

/// How the tables below a root are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Format {
    /// log2 of the page, 12, 14 or 16.
    pub(crate) page: u32,
    /// Bits of address that they resolve.
    pub(crate) bits: u32,
    pub(crate) stage2: bool,
    /// Whether leaves may be tagged with an ASID.
    pub(crate) has_asids: bool,
    /// Whether hardware sets the access flag, and makes DBM mean writable.
    pub(crate) ha: bool,
    pub(crate) hd: bool,
}

impl Format {
    /// The level of the root table: each resolves as many bits as a page has entries, the root what is left.
    pub(crate) fn root_level(&self) -> i8 {
        4 - (self.bits - self.page).div_ceil(self.page - 3) as i8
    }

    /// Bytes that an entry at `level` translates.
    pub(crate) fn span(&self, level: i8) -> u64 {
        1 << (self.page + (self.page - 3) * (3 - level) as u32)
    }

    /// Bytes of a table at `level`.
    pub(crate) fn table(&self, level: i8) -> u64 {
        if level == self.root_level() { (1 << self.bits) / self.span(level) * 8 } else { 1 << self.page }
    }

    /// Entries of a contiguous run.
    fn run(&self, level: i8) -> u64 {
        match (self.page, level) {
            (12, _) => 16,
            (14, 3) => 128,
            _ => 32,
        }
    }
}

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
        /// AttrIndx (MemAttr), NS, SH, nG, contiguous: all that may not change in place.
        attributes: u64,
        /// What it permits: EL0 (reads), writes, execution, unguarded branches; and no nT.
        permits: u64,
        /// Whether the access flag lets a TLB hold it. It is no part of the translation.
        cacheable: bool,
    },
}

/// What a change asks for; of several, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Nothing: both say the same, or the new one permits more.
    None,
    /// An invalidation: the span translates to nothing any more, or less is permitted.
    Owed,
    /// Break-before-make.
    Break,
}

const NG: u64 = 1 << 11;
const WRITABLE: u64 = 1 << 7;
const CONTIGUOUS: u64 = 1 << 52;
const NT: u64 = 1 << 16;

impl Desc {
    pub(crate) fn decode(bits: u64, level: i8, format: &Format) -> Self {
        let bit = |n: u32| bits >> n & 1 == 1;
        let address = |size: u64| bits & 0xffff_ffff_ffff & !(size - 1);
        match (bit(0), bit(1), level) {
            (true, true, ..3) => {
                Self::Table { next: address(1 << format.page), forbids: if format.stage2 { 0 } else { bits >> 59 } }
            }
            (true, true, 3) | (true, false, 1 | 2) if level > 1 || format.page == 12 => {
                // At stage 1 AP[2], GP, PXN and UXN forbid; at stage 2 S2AP permits, and XN forbids. In a page nT is address.
                let nt = if level < 3 { NT } else { 0 };
                let (all, forbid) = match format.stage2 {
                    true => (3 << 6 | 3 << 53 | nt, 3 << 53 | nt),
                    false => (3 << 6 | 1 << 50 | 3 << 53 | nt, 1 << 7 | 1 << 50 | 3 << 53 | nt),
                };
                let non_global = if format.has_asids { NG } else { 0 };
                let dirty = if format.hd && bit(51) { WRITABLE } else { 0 };
                Self::Leaf {
                    output: address(format.span(level)),
                    attributes: bits & (15 << 2 | 3 << 8 | non_global | CONTIGUOUS),
                    permits: (bits ^ forbid) & all | dirty,
                    cacheable: bit(10) || format.ha,
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
    pub(crate) fn run(self, index: u64, level: i8, format: &Format) -> Vec<(u64, Self)> {
        let run = format.run(level);
        let first = index / run * run;
        match self {
            Self::Leaf { output, attributes, permits, cacheable } if attributes & CONTIGUOUS != 0 => {
                let moved = |n: u64| output.wrapping_add(n.wrapping_sub(index).wrapping_mul(format.span(level)));
                let member = |n| (n, Self::Leaf { output: moved(n), attributes, permits, cacheable });
                (first..first + run).map(member).collect()
            }
            alone => vec![(index, alone)],
        }
    }
}

impl Desc {
    /// FEAT_BBM: whether the size of this block may change without a break, at a level of the feature.
    pub(crate) fn may_be_resized(&self, bbm: u8) -> bool {
        matches!(self, Self::Leaf { permits, .. } if bbm >= 2 || bbm == 1 && permits & NT == 0)
    }

    /// What it asks for to have `part`, which begins `offset` into this block, beside it.
    pub(crate) fn resized(&self, part: &Self, offset: u64, bbm: u8) -> Change {
        match (*self, *part) {
            (
                Self::Leaf { output: a, attributes: x, permits: p, .. },
                Self::Leaf { output: b, attributes: y, permits: q, .. },
            ) if b == a.wrapping_add(offset) && (x ^ y) & !CONTIGUOUS == 0 => {
                if bbm < 3 || p & !q & !NT != 0 {
                    Change::Owed
                } else {
                    Change::None
                }
            }
            (_, Self::Leaf { cacheable: true, .. }) => Change::Break,
            _ => Change::Owed,
        }
    }
}

/// What the change from `old` to `new`, at one level, asks for. `same_contents` compares what two frames hold.
pub(crate) fn compare(old: &Desc, new: &Desc, bbm: u8, same_contents: impl Fn(u64, u64) -> bool) -> Change {
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
            let narrowed = x & NG == 0 && y & NG != 0;
            // The contiguous bit is a size.
            let free = if bbm >= 2 { CONTIGUOUS } else { 0 } | if narrowed { NG } else { 0 };
            let still = if bbm >= 3 { CONTIGUOUS } else { 0 };
            if ((x ^ y) & !free != 0 || tellable) && new.is_cacheable() {
                Change::Break
            } else if (x ^ y) & !still != 0 || p & !q != 0 || a != b {
                Change::Owed
            } else {
                Change::None
            }
        }
        _ => Change::Break,
    }
}
