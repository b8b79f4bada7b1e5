//! How tables are walked: regime, stage, granule, levels, and the spans that follow (Arm ARM D8.2).
//!
//! Everything here comes from translation control registers; what a descriptor says is [`descriptor`](crate::descriptor)'s.

/// What a TLB entry belongs to, before any ASID: a translation regime, and under EL1&0 the VMID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// EL1&0, stage 1 under this VMID; 0 where there is no EL2.
    El10(u16),
    /// EL2&0 (HCR_EL2.E2H): two halves, with ASIDs.
    El20,
    /// EL2 (without E2H): one half, no ASIDs.
    El2,
    /// Stage 2 of EL1&0 under this VMID.
    Stage2(u16),
}

impl Space {
    /// Whether entries are looked up by intermediate physical address.
    pub const fn is_stage2(self) -> bool {
        matches!(self, Self::Stage2(_))
    }

    /// Whether entries carry ASIDs.
    pub const fn has_asids(self) -> bool {
        matches!(self, Self::El10(_) | Self::El20)
    }
}

/// Control fields that change nothing of how descriptors are read, and that a TLB may cache with what it makes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Controls {
    /// TCR.SHn where TCR.DS makes it the shareability of every leaf; 0 elsewhere.
    pub shareability: u8,
    /// TCR.IPS or PS: the size of output addresses.
    pub output_size: u8,
    /// SCTLR.WXN: what is writable is not executable.
    pub wxn: bool,
    /// SCTLR.EPAN: PSTATE.PAN counts for what EL0 may only execute, too.
    pub epan: bool,
}

/// How the tables below one root are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Geometry {
    /// log2 of the page: 12, 14 or 16.
    pub page_shift: u8,
    /// Level of the root table, -1..=3.
    pub start_level: i8,
    /// Bits of input address: 64 - TnSZ.
    pub va_bits: u8,
    /// Stage 2 descriptors.
    pub stage2: bool,
    /// The regime has ASIDs: leaves may be non-global.
    pub tagged: bool,
    /// TCR.DS: descriptors of FEAT_LPA2.
    pub wide: bool,
    /// TCR.HA: hardware sets the access flag, so that leaves without it may be cached.
    pub hw_access_flag: bool,
    /// TCR.HD: hardware manages dirty state, so that DBM means writable.
    pub hw_dirty: bool,
    /// TCR.HPDn: the attributes of table descriptors are ignored, but for NSTable.
    pub flat_attributes: bool,
    /// What else is cached with the entries.
    pub controls: Controls,
}

impl Geometry {
    /// The geometry of tables with `va_bits` bits of input and stage-1 descriptors; `None` if there is no such table.
    pub fn stage1(page_shift: u8, va_bits: u8) -> Option<Self> {
        // 52 bits at most; at least one bit that an index is taken from.
        if va_bits <= page_shift || va_bits > 56 {
            return None;
        }
        let stride = page_shift - 3;
        let levels = (va_bits - page_shift).div_ceil(stride);
        if levels > 5 {
            return None;
        }
        Some(Self {
            page_shift,
            start_level: 4 - levels as i8,
            va_bits,
            stage2: false,
            tagged: true,
            wide: false,
            hw_access_flag: false,
            hw_dirty: false,
            flat_attributes: false,
            controls: Controls::default(),
        })
    }

    /// log2 of the bytes that an entry at `level` translates.
    pub const fn shift(&self, level: i8) -> u32 {
        self.page_shift as u32 + (self.page_shift as u32 - 3) * (3 - level) as u32
    }

    /// Bytes that an entry at `level` translates.
    pub const fn size(&self, level: i8) -> u64 {
        1 << self.shift(level)
    }

    /// Bytes of a page.
    pub const fn page(&self) -> u64 {
        1 << self.page_shift
    }

    /// Entries of a table at `level`. A root table may have fewer than others, and at stage 2 up to sixteen times as many.
    pub const fn entries(&self, level: i8) -> usize {
        if level == self.start_level {
            1 << (self.va_bits as u32).saturating_sub(self.shift(level))
        } else {
            1 << (self.page_shift - 3)
        }
    }

    /// Entries of a contiguous run at `level`: 1 where there is none.
    pub const fn run(&self, level: i8) -> usize {
        match (self.page_shift, level) {
            (12, 1..=3) => 16,
            (14, 3) => 128,
            (14, 2) => 32,
            (16, 2 | 3) => 32,
            _ => 1,
        }
    }

    /// Whether `level` may hold blocks or pages.
    pub const fn has_leaves(&self, level: i8) -> bool {
        match self.page_shift {
            12 => level >= 1 || (level == 0 && self.wide),
            14 => level >= 2 || (level == 1 && self.wide),
            // With 52-bit output there are blocks at level 1 as well; without it the encoding is reserved.
            _ => level >= 2,
        }
    }

    /// The granule as a TLBI operand names it: 1, 2, 3.
    pub const fn tg(&self) -> u8 {
        match self.page_shift {
            12 => 1,
            14 => 2,
            _ => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(page_shift: u8, va_bits: u8) -> (i8, usize, u32) {
        let g = Geometry::stage1(page_shift, va_bits).expect("a geometry");
        (g.start_level, g.entries(g.start_level), g.shift(g.start_level))
    }

    #[test]
    fn levels_follow_from_the_size() {
        assert_eq!(shape(12, 48), (0, 512, 39));
        assert_eq!(shape(12, 52), (-1, 16, 48));
        assert_eq!(shape(12, 39), (1, 512, 30));
        assert_eq!(shape(12, 25), (2, 16, 21));
        assert_eq!(shape(14, 48), (0, 2, 47));
        assert_eq!(shape(14, 47), (1, 2048, 36));
        assert_eq!(shape(16, 48), (1, 64, 42));
        assert_eq!(shape(16, 52), (1, 1024, 42));
        assert_eq!(Geometry::stage1(12, 12), None);
        assert_eq!(Geometry::stage1(16, 60), None);
    }
}
