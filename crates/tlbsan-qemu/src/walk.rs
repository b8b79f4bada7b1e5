//! Virtual to physical by the guest's stage 1 tables, for what QEMU does not translate for plugins: stacks and DC ZVA.
//!
//! It looks at tables only: no permissions, no access flag, no stage 2. The model has its own, complete decoder.

use std::sync::atomic::{AtomicU64, Ordering};
use tlbsan::Sysreg;

/// The registers of one regime, EL1&0 or EL2(&0), as a vCPU has last written them. All zero at reset: MMU off.
///
/// TCR_EL2 without HCR_EL2.E2H has the same fields for its only half, and nobody uses the other.
#[derive(Debug, Default)]
pub(crate) struct Stage1 {
    ttbr0: AtomicU64,
    ttbr1: AtomicU64,
    tcr: AtomicU64,
    sctlr: AtomicU64,
}

/// One half of the address space.
struct Half {
    table: u64,
    /// log2 of the granule.
    granule: u32,
    /// Bits of a virtual address that are translated.
    bits: u32,
}

impl Stage1 {
    /// A register has been written.
    pub(crate) fn write(&self, register: Sysreg, value: u64) {
        let register = match register {
            Sysreg::Ttbr0El1 | Sysreg::Ttbr0El2 => &self.ttbr0,
            Sysreg::Ttbr1El1 | Sysreg::Ttbr1El2 => &self.ttbr1,
            Sysreg::TcrEl1 | Sysreg::TcrEl2 => &self.tcr,
            Sysreg::SctlrEl1 | Sysreg::SctlrEl2 => &self.sctlr,
            _ => return,
        };
        register.store(value, Ordering::Relaxed);
    }

    /// The registers are as after reset.
    pub(crate) fn reset(&self) {
        for register in [&self.ttbr0, &self.ttbr1, &self.tcr, &self.sctlr] {
            register.store(0, Ordering::Relaxed);
        }
    }

    /// Whether SCTLR.M is set.
    pub(crate) fn mmu_on(&self) -> bool {
        self.sctlr.load(Ordering::Relaxed) & 1 != 0
    }

    /// The half that `va` is in, by bit 55; `None` if walks in it are disabled or its granule is reserved.
    fn half(&self, va: u64) -> Option<Half> {
        let tcr = self.tcr.load(Ordering::Relaxed);
        let upper = va & 1 << 55 != 0;
        let (ttbr, size, disabled, granule) = if upper {
            let granule = match tcr >> 30 & 3 {
                1 => 14,
                2 => 12,
                3 => 16,
                _ => return None,
            };
            (&self.ttbr1, tcr >> 16 & 0x3f, tcr >> 23 & 1, granule)
        } else {
            let granule = match tcr >> 14 & 3 {
                0 => 12,
                1 => 16,
                2 => 14,
                _ => return None,
            };
            (&self.ttbr0, tcr & 0x3f, tcr >> 7 & 1, granule)
        };
        let bits = 64 - size as u32;
        // 52 bits at most, and at least something that an index at level 3 is taken from.
        if disabled != 0 || !(granule + 4..=52).contains(&bits) {
            return None;
        }
        // Bit 0 is CnP; the ASID is above the address.
        let table = ttbr.load(Ordering::Relaxed) & 0x0000_ffff_ffff_fff0;
        Some(Half { table, granule, bits })
    }

    /// The physical address of `va`. `load` gives the 8 bytes at a physical address.
    pub(crate) fn translate(&self, load: impl Fn(u64) -> Option<u64>, va: u64) -> Option<u64> {
        if !self.mmu_on() {
            return Some(va);
        }
        let Half { table, granule, bits } = self.half(va)?;
        if self.canonical(va)? << 8 != va << 8 {
            return None;
        }
        let stride = granule - 3;
        let va = va & ((1 << bits) - 1);
        // The first level whose index has bits left.
        let first_level = 4 - (bits - granule).div_ceil(stride) as i32;
        let mut table = table;
        for level in first_level..=3 {
            let shift = granule + (3 - level) as u32 * stride;
            // At the first level there are no address bits above the index, so that nothing needs masking there.
            let index = if level == first_level { va >> shift } else { va >> shift & ((1 << stride) - 1) };
            let descriptor = load(table + index * 8)?;
            let output = descriptor & 0x0000_ffff_ffff_f000 & !((1 << granule) - 1);
            match (descriptor & 3, level) {
                (3, ..=2) => table = output,
                (3, _) | (1, ..=2) => {
                    let offset = (1 << shift) - 1;
                    return Some(output & !offset | va & offset);
                }
                _ => return None,
            }
        }
        None
    }

    /// `va` without what pointer authentication or tagging put into its upper bits.
    pub(crate) fn canonical(&self, va: u64) -> Option<u64> {
        if !self.mmu_on() {
            return Some(va);
        }
        let mask = (1 << self.half(va)?.bits) - 1;
        Some(if va & 1 << 55 != 0 { va | !mask } else { va & mask })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A regime with both halves of `bits` bits, granule by its TG0 and TG1 codes, tables at 0x1000_0000 and 0x2000_0000.
    fn stage1(bits: u64, tg0: u64, tg1: u64) -> Stage1 {
        let stage1 = Stage1::default();
        let size = 64 - bits;
        stage1.write(Sysreg::Ttbr0El1, 0x0007_0000_1000_0001);
        stage1.write(Sysreg::Ttbr1El1, 0x2000_0000);
        stage1.write(Sysreg::TcrEl1, size | size << 16 | tg0 << 14 | tg1 << 30);
        stage1.write(Sysreg::SctlrEl1, 1);
        stage1
    }

    fn translate(stage1: &Stage1, memory: &[(u64, u64)], va: u64) -> Option<u64> {
        let memory: HashMap<u64, u64> = memory.iter().copied().collect();
        stage1.translate(|pa| Some(memory.get(&pa).copied().unwrap_or(0)), va)
    }

    #[test]
    fn without_mmu_addresses_are_physical() {
        assert_eq!(translate(&Stage1::default(), &[], 0x4000_1234), Some(0x4000_1234));
    }

    #[test]
    fn four_levels_of_4k_in_both_halves() {
        for (root, va) in [(0x1000_0000, 0x0000_8080_4020_1abc_u64), (0x2000_0000, 0xffff_8080_4020_1abc)] {
            let tables = [
                (root + 257 * 8, 0x1000_1003),
                (0x1000_1000 + 8, 0x1000_2003),
                (0x1000_2000 + 8, 0x1000_3003),
                (0x1000_3000 + 8, 0x0040_0000_5555_5403 | 3 << 8),
            ];
            assert_eq!(translate(&stage1(48, 0, 2), &tables, va), Some(0x5555_5abc));
            assert_eq!(translate(&stage1(48, 0, 2), &tables[..3], va), None, "the page is not mapped");
        }
    }

    #[test]
    fn blocks_keep_the_address_below_them() {
        let tables = [(0x1000_0000, 0x1000_1003), (0x1000_1000 + 8, 0x8000_0401)];
        assert_eq!(translate(&stage1(48, 0, 2), &tables, 0x7654_3210), Some(0xb654_3210));
    }

    #[test]
    fn fewer_bits_start_at_a_later_level() {
        // 39 bits: level 1. 25 bits: level 2, sixteen entries.
        assert_eq!(translate(&stage1(39, 0, 2), &[(0x1000_0008, 0x8000_0401)], 0x4000_0123), Some(0x8000_0123));
        let tables = [(0x1000_0078, 0x1000_1003), (0x1000_1000, 0x7777_7403)];
        assert_eq!(translate(&stage1(25, 0, 2), &tables, 0x1e0_0123), Some(0x7777_7123));
        assert_eq!(translate(&stage1(25, 0, 2), &tables, 0x200_0000), None, "beyond the half");
    }

    #[test]
    fn the_other_granules() {
        // 16K, 48 bits: level 0 has one bit. 64K, 48 bits: level 1 has six.
        let tables = [
            (0x1000_0000, 0x1000_4003),
            (0x1000_4000, 0x1000_8003),
            (0x1000_8008, 0x1000_c003),
            (0x1000_c008, 0x4000_4403),
        ];
        assert_eq!(translate(&stage1(48, 2, 1), &tables, 0x200_7fff), Some(0x4000_7fff));
        let tables = [(0x2000_01f8, 0x1001_0003), (0x1001_fff8, 0x1002_0003), (0x1002_fff8, 0x4003_0403)];
        assert_eq!(translate(&stage1(48, 1, 3), &tables, 0xffff_ffff_ffff_fff0), Some(0x4003_fff0));
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(translate(&stage1(48, 0, 0), &[], u64::MAX), None, "reserved granule");
        assert_eq!(translate(&stage1(48, 0, 2), &[], 0x0001_0000_0000_0000), None, "between the halves");
        assert_eq!(translate(&stage1(12, 0, 2), &[], 0), None, "too small");
        assert_eq!(stage1(48, 0, 2).translate(|_| None, 0), None, "table outside memory");
        let disabled = stage1(48, 0, 2);
        disabled.write(Sysreg::TcrEl1, 1 << 7 | 16);
        assert_eq!(translate(&disabled, &[(0x1000_0000, 0x4000_0401)], 0), None, "EPD0");
    }

    #[test]
    fn signed_pointers_are_stripped() {
        let stage1 = stage1(48, 0, 2);
        assert_eq!(stage1.canonical(0xb5bf_8000_1234_5678), Some(0xffff_8000_1234_5678));
        assert_eq!(stage1.canonical(0x0034_0000_1234_5678), Some(0x0000_0000_1234_5678));
    }
}
