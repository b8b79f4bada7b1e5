//! The reference's own reading of descriptors and of TCR_EL1 (Arm ARM D8.2, D8.3), and what a change asks for.

/// How a half of the address space is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Geometry {
    /// log2 of the page: 12, 14 or 16.
    pub(crate) page_bits: u32,
    pub(crate) start: i8,
    pub(crate) va_bits: u32,
    /// TCR.HA.
    pub(crate) sets_af: bool,
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
    /// The span translates to nothing any more: an invalidation, before anything else is put there.
    Gone,
    /// Less is permitted: an invalidation.
    Tighten,
    /// Break-before-make.
    Break,
}

const NG: u64 = 1 << 11;
const WRITABLE: u64 = 1 << 7;

impl Geometry {
    /// The geometry of half 0 or 1, where TCR_EL1 has one that makes sense.
    pub(crate) fn from_tcr(tcr: u64, half: usize) -> Option<Self> {
        let page_bits = match (half, tcr >> if half == 0 { 14 } else { 30 } & 3) {
            (0, 0) | (1, 2) => 12,
            _ => return None,
        };
        let size = (tcr >> (16 * half) & 0x3f) as u32;
        if !(16..=39).contains(&size) {
            return None;
        }
        let va_bits = 64 - size;
        // Level 3 resolves page_bits - 3 bits above the page, and so does each level above; the root takes what is left.
        let start = 4 - (va_bits - page_bits).div_ceil(page_bits - 3) as i8;
        Some(Self { page_bits, start, va_bits, sets_af: tcr >> 39 & 1 == 1 })
    }

    pub(crate) fn page(&self) -> u64 {
        1 << self.page_bits
    }

    /// Bytes that an entry at `level` translates.
    pub(crate) fn span(&self, level: i8) -> u64 {
        1 << (self.page_bits + (self.page_bits - 3) * (3 - level) as u32)
    }

    /// Entries of a table at `level`; a root table may have fewer.
    pub(crate) fn entries(&self, level: i8) -> u64 {
        let top = if level == self.start { 1 << self.va_bits } else { self.span(level - 1) };
        top / self.span(level)
    }

    /// Whether a TTL hint of a TLBI, the level of the leaf, can be true for an entry at `level`.
    pub(crate) fn hint_names(&self, ttl: u8, level: i8, table: bool) -> bool {
        let granule = match self.page_bits {
            12 => 1,
            14 => 2,
            _ => 3,
        };
        let hint = (ttl & 3) as i8;
        ttl >> 2 == granule && if table { hint > level } else { hint == level }
    }

    pub(crate) fn decode(&self, bits: u64, level: i8) -> Desc {
        let bit = |n: u32| bits >> n & 1 == 1;
        let address = 0x0000_ffff_ffff_ffff;
        match (bit(0), bit(1), level) {
            (true, true, ..3) => Desc::Table { next: bits & address & !(self.page() - 1), forbids: bits >> 59 },
            (true, true, 3) | (true, false, 1 | 2) => {
                let permits = (bits ^ (1 << 7 | 3 << 53)) & (1 << 6 | 1 << 7 | 3 << 53);
                let permits = if bit(51) { permits | WRITABLE } else { permits };
                // nT is a block's; in a page's descriptor the bit belongs to the address.
                let nt = if level < 3 { 1 << 16 } else { 0 };
                Desc::Leaf {
                    output: bits & address & !(self.span(level) - 1),
                    attributes: bits & (7 << 2 | 1 << 5 | 3 << 8 | NG | nt | 1 << 50 | 1 << 52),
                    permits,
                    cacheable: bit(10) || self.sets_af,
                }
            }
            _ => Desc::Nothing,
        }
    }
}

impl Desc {
    /// Whether a TLB may hold it (R2).
    pub(crate) fn is_cacheable(&self) -> bool {
        matches!(self, Self::Table { .. } | Self::Leaf { cacheable: true, .. })
    }

    /// Whether it is not tagged with an ASID.
    pub(crate) fn is_global(&self) -> bool {
        matches!(self, Self::Leaf { attributes, .. } if attributes & NG == 0)
    }
}

/// What the change from `old` to `new`, at one level, asks for. `same_contents` compares what two frames hold.
pub(crate) fn compare(old: &Desc, new: &Desc, same_contents: impl Fn(u64, u64) -> bool) -> Change {
    match (*old, *new) {
        (_, Desc::Nothing) | (Desc::Nothing, _) => Change::Gone,
        (Desc::Table { next: a, forbids: x }, Desc::Table { next: b, forbids: y }) => match y & !x {
            _ if a != b => Change::Break,
            0 => Change::None,
            _ => Change::Tighten,
        },
        (
            Desc::Leaf { output: a, attributes: x, permits: p, .. },
            Desc::Leaf { output: b, attributes: y, permits: q, .. },
        ) => {
            let tellable = a != b && ((p | q) & WRITABLE != 0 || !same_contents(a, b));
            let narrowed = x & NG == 0 && y == x | NG;
            if x != y && !narrowed || tellable {
                if new.is_cacheable() { Change::Break } else { Change::Gone }
            } else if p & !q != 0 || a != b || narrowed {
                Change::Tighten
            } else {
                Change::None
            }
        }
        _ => Change::Break,
    }
}
