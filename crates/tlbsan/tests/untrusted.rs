//! No sequence of events makes the model panic or grow without bound: the guest is not trusted.

use tlbi::{Dsb, Mnemonic};
use tlbsan::sim::Machine;
use tlbsan::{AccessKind, Config, Hint, IdRegister, Sysreg};

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Mostly something that could be a descriptor, a register or an address of the sixteen pages that there are.
    fn value(&mut self) -> u64 {
        let page = self.below(16) << 12;
        match self.below(8) {
            0 => 0,
            1 => self.next(),
            2 => page | 1 | self.next() & !0xffff_f001,
            3 | 4 => page | 3,
            5 => page | 0x401,
            _ => page | 0x403 | self.next() & (1 << 52 | 1 << 16 | 1 << 11 | 1 << 7),
        }
    }
}

#[test]
fn random_events() {
    for seed in 1..=30u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut m = Machine::new(Config::default());
        let tlbis: Vec<Mnemonic> = Mnemonic::all().collect();
        for _ in 0..2000 {
            let pe = random.below(3) as usize;
            match random.below(16) {
                0..=6 => {
                    let (at, value) = (random.below(16 * 512) * 8, random.value());
                    m.store(pe, at, value);
                }
                7 => _ = m.load(pe, random.below(16 * 512) * 8),
                8 => {
                    let mnemonic = tlbis[random.below(tlbis.len() as u64) as usize];
                    let operand = if random.below(2) == 0 { random.next() } else { random.value() };
                    m.tlbi(pe, mnemonic.decode(operand));
                }
                9 => m.dsb(pe, Dsb::ALL[random.below(Dsb::ALL.len() as u64) as usize]),
                10 => m.isb(pe),
                11 | 12 => {
                    let register = Sysreg::ALL[random.below(Sysreg::ALL.len() as u64) as usize];
                    let value = match register {
                        Sysreg::SctlrEl1 | Sysreg::SctlrEl2 => random.below(4) | random.below(2) << 19,
                        Sysreg::HcrEl2 => random.next() & (1 << 34 | 1 << 27 | 1),
                        Sysreg::TcrEl1 | Sysreg::TcrEl2 | Sysreg::VtcrEl2 if random.below(2) == 0 => random.next(),
                        Sysreg::TcrEl1 | Sysreg::TcrEl2 => {
                            random.below(40) | random.below(40) << 16 | random.below(16) << 28
                        }
                        Sysreg::VtcrEl2 => random.below(40) | random.below(4) << 6 | random.below(4) << 14,
                        _ => random.value() | random.below(4) << 48,
                    };
                    m.write(pe, register, value);
                }
                13 => m.go_to(pe, random.below(4) as u8),
                14 => {
                    let (va, pa) = (random.value(), random.value());
                    let kind = [AccessKind::Load, AccessKind::Store, AccessKind::Fetch][random.below(3) as usize];
                    m.access_at(pe, va, pa, kind, random.below(4) as u8);
                }
                _ => match random.below(5) {
                    0 => m.reset(pe),
                    1 => m.identify(pe, IdRegister::Mmfr2, random.next()),
                    2 => m.hint(pe, Hint::FrameFreed { pa: random.value(), size: random.next() }),
                    3 => m.hint(pe, Hint::FlushClaimed { start: random.next(), size: random.next(), asid: 1 }),
                    _ => m.hint(pe, Hint::FrameFreed { pa: u64::MAX, size: 0x2000 }),
                },
            }
        }
        assert!(m.model().residues().len() <= tlbsan::residue::MAX_OPEN);
    }
}

#[test]
fn tables_that_lead_to_themselves() {
    let mut m = Machine::new(Config::default());
    for level in 0..4u64 {
        for slot in 0..512 {
            m.store(0, 0x1000 + level * 0x1000 + slot * 8, (0x1000 + (level + 1) % 4 * 0x1000) | 3);
        }
    }
    m.run_in(0, 0x1000, 1);
    m.store(0, 0x1000, 0);
    m.store(0, 0x4000, 0x7003);
    m.store(0, 0x1000, 0x1003);
    assert!(m.model().residues().len() <= tlbsan::residue::MAX_OPEN);
}

#[test]
fn roots_without_end() {
    let mut m = Machine::new(Config::default());
    let roots = 2 * tlbsan::shadow::MAX_CONTEXTS as u64;
    for n in 0..roots {
        m.run_in(0, 0x10_0000 + n * 0x1000, (n % 0x1_0000) as u16);
    }
    assert!(m.model().shadow().contexts() <= tlbsan::shadow::MAX_CONTEXTS);
    // Empty ones give way, so that the last is followed as well as the first.
    let last = 0x10_0000 + (roots - 1) * 0x1000;
    m.store(0, last, 0x40_0003);
    m.store(0, last, 0);
    assert_eq!(m.model().residues().len(), 1);
}

#[test]
fn violations_without_end_are_counted_and_not_told() {
    let mut m = Machine::new(Config::default());
    m.store(0, 0x2000, 0x10_0f43);
    for (slot, next) in [(0x1000, 0x4000), (0x4000, 0x3000), (0x3000, 0x2000)] {
        m.store(0, slot, next | 3);
    }
    m.run_in(0, 0x1000, 1);
    let mut told = 0;
    for pc in 0..80_000 {
        m.at(pc, &[]);
        m.store(0, 0x2000, 0x10_0f43 + ((pc % 2) << 12));
        told += m.take_violations().len();
    }
    assert!((60_000..=1 << 16).contains(&told), "{told}");
}
