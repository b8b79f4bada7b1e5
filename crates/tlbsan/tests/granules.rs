//! Every granule and shape of table: the same bug, and the same cure, where only the geometry differs.

use tlbi::{Dsb, Mnemonic, Op};
use tlbsan::sim::Machine;
use tlbsan::{Cause, Config, Kind, Sysreg};

const ROOT: u64 = 0x10_0000;
const ASID: u64 = 7;

/// A way to walk, and a chain of tables for one address.
struct Shape {
    name: &'static str,
    /// TCR_EL1, without EPD1.
    tcr: u64,
    ttbr: u64,
    half: Sysreg,
    va: u64,
    /// Slots from the root down: address and value; the last is the leaf.
    chain: &'static [(u64, u64)],
    /// Bytes and level of the leaf.
    size: u64,
    level: i8,
    /// TG of TLBI operands.
    tg: u64,
}

const PAGE: u64 = 0xf43;
const AS: u64 = 1 << 36;

fn shapes() -> Vec<Shape> {
    let lower = |name, tcr: u64, va, chain, size, level, tg| Shape {
        name,
        tcr: tcr | 1 << 23,
        ttbr: ROOT,
        half: Sysreg::Ttbr0El1,
        va,
        chain,
        size,
        level,
        tg,
    };
    vec![
        lower(
            "4K, 48 bits",
            16,
            0x80_8060_5000,
            &[(ROOT + 8, 0x20_0003), (0x20_0010, 0x20_1003), (0x20_1018, 0x20_2003), (0x20_2028, 0x100_0000 | PAGE)],
            0x1000,
            3,
            1,
        ),
        lower(
            "4K, 25 bits: sixteen entries",
            39,
            0x20_3000,
            &[(ROOT + 8, 0x20_0003), (0x20_0018, 0x100_0000 | PAGE)],
            0x1000,
            3,
            1,
        ),
        lower("4K, a block of 1 GiB", 25, 0x4000_0000, &[(ROOT + 8, 0x4000_0000 | 0xf41)], 1 << 30, 1, 1),
        lower(
            "16K, 47 bits",
            17 | 2 << 14,
            0x4000,
            &[(ROOT, 0x20_0003), (0x20_0000, 0x20_4003), (0x20_4008, 0x100_4000 | PAGE)],
            0x4000,
            3,
            2,
        ),
        lower(
            "16K, a block of 32 MiB",
            17 | 2 << 14,
            0x200_0000,
            &[(ROOT, 0x20_0003), (0x20_0008, 0x4000_0000 | 0xf41)],
            32 << 20,
            2,
            2,
        ),
        lower(
            "64K, 42 bits",
            22 | 1 << 14,
            0x3_0000,
            &[(ROOT, 0x20_0003), (0x20_0018, 0x100_0000 | PAGE)],
            0x1_0000,
            3,
            3,
        ),
        lower(
            "64K, 48 bits: a root of 512 bytes",
            16 | 1 << 14,
            0x1_0000,
            &[(ROOT, 0x20_0003), (0x20_0000, 0x21_0003), (0x21_0008, 0x100_0000 | PAGE)],
            0x1_0000,
            3,
            3,
        ),
        lower(
            "64K, 52 bits of output",
            12 | 1 << 14 | 6 << 32,
            0x1_0000,
            &[(ROOT, 0x20_0003), (0x20_0000, 0x21_0003), (0x21_0008, 0x100_a000 | PAGE)],
            0x1_0000,
            3,
            3,
        ),
        lower(
            "4K, 52 bits: LPA2, a root at level -1",
            12 | 1 << 59 | 6 << 32,
            1 << 48,
            &[
                (ROOT + 8, 0x20_0003),
                (0x20_0000, 0x20_1003),
                (0x20_1000, 0x20_2003),
                (0x20_2000, 0x20_3003),
                (0x20_3000, 0x3_0000_0100_0000 | 0xc43),
            ],
            0x1000,
            3,
            1,
        ),
        Shape {
            name: "4K, 39 bits, the upper half, A1",
            tcr: 25 << 16 | 2 << 30 | 1 << 7 | 1 << 22,
            ttbr: ROOT,
            half: Sysreg::Ttbr1El1,
            va: 0xffff_ff80_4000_0000,
            chain: &[(ROOT + 8, 0x20_0003), (0x20_0000, 0x20_1003), (0x20_1000, 0x100_0000 | PAGE)],
            size: 0x1000,
            level: 3,
            tg: 1,
        },
    ]
}

fn machine(shape: &Shape) -> Machine {
    let mut m = Machine::new(Config::default());
    for (slot, value) in shape.chain {
        m.store(0, *slot, *value);
    }
    for pe in 0..2 {
        m.write(pe, Sysreg::TcrEl1, shape.tcr | AS);
        m.write(pe, shape.half, shape.ttbr | ASID << 48);
        m.write(pe, Sysreg::SctlrEl1, 1);
        m.isb(pe);
    }
    m
}

fn op(name: &str, operand: u64) -> Op {
    Mnemonic::all().find(|m| m.to_string() == name).expect("an operation").decode(operand)
}

fn by_va(va: u64) -> u64 {
    ASID << 48 | va >> 12 & 0xfff_ffff_ffff
}

/// Clears the leaf, invalidates, puts another there; what is said about it.
fn remade(shape: &Shape, ops: &[Op]) -> Vec<(Kind, Cause, u64, u64, i8)> {
    let mut m = machine(shape);
    let (slot, leaf) = shape.chain[shape.chain.len() - 1];
    m.store(0, slot, 0);
    m.dsb(0, Dsb::Ishst);
    for op in ops {
        m.tlbi(0, *op);
    }
    m.dsb(0, Dsb::Ish);
    m.store(0, slot, leaf + shape.size);
    m.take_violations().iter().map(|v| (v.kind, v.cause, v.start, v.size, v.level)).collect()
}

#[test]
fn a_leaf_remade() {
    for shape in shapes() {
        let error = |cause| vec![(Kind::Remade, cause, shape.va, shape.size, shape.level)];
        let check = |operand: Option<u64>, expected: Vec<_>| {
            let ops: Vec<Op> = operand.into_iter().map(|operand| op("vale1is", operand)).collect();
            assert_eq!(remade(&shape, &ops), expected, "{}: {ops:?}", shape.name);
        };
        let va = by_va(shape.va);
        check(None, error(Cause::NoInvalidation));
        check(Some(va), vec![]);
        // Any address inside the entry does.
        check(Some(by_va(shape.va + shape.size - 1)), vec![]);
        check(Some(by_va(shape.va + shape.size)), error(Cause::WrongRange));
        let ttl = |tg: u64, level: i8| Some(va | (tg << 2 | level as u64) << 44);
        check(ttl(shape.tg, shape.level), vec![]);
        // Of level 1 every granule has leaves but 16 KiB.
        let other = if shape.tg == 1 { 3 } else { 1 };
        check(ttl(other, shape.level), error(Cause::WrongTtl));
        check(ttl(shape.tg, if shape.level == 3 { 2 } else { 3 }), error(Cause::WrongTtl));
        // A range of two pages, in the granule of the tables and in another.
        let granule = 12 + 2 * (shape.tg as u32 - 1);
        // With TCR.DS ranges are counted in 64 KiB.
        let shift = if shape.tcr >> 59 & 1 != 0 { 16 } else { granule };
        let range = |tg: u64| op("rvale1is", ASID << 48 | tg << 46 | shape.va >> shift & ((1 << 37) - 1));
        assert_eq!(remade(&shape, &[range(shape.tg)]), [], "{}", shape.name);
        if shape.tcr >> 59 & 1 == 0 {
            let other = shape.tg % 3 + 1;
            let seen = remade(&shape, &[range(other)]);
            assert!(
                matches!(seen.as_slice(), [(Kind::Remade, Cause::WrongTtl | Cause::WrongRange, ..)]),
                "{}: {seen:?}",
                shape.name
            );
            // Where that one names the address, too.
            let covering = op("rvale1is", ASID << 48 | other << 46 | shape.va >> (10 + 2 * other) & ((1 << 37) - 1));
            assert_eq!(remade(&shape, &[covering]), error(Cause::WrongTtl), "{}", shape.name);
        }
    }
}

#[test]
fn a_table_remade() {
    for shape in shapes().iter().filter(|shape| shape.chain.len() > 1) {
        let flushed = |name: &str| {
            let mut m = machine(shape);
            let (leaf, parent) = (shape.chain[shape.chain.len() - 1].0, shape.chain[shape.chain.len() - 2].0);
            m.store(0, leaf, 0);
            m.store(0, parent, 0);
            m.dsb(0, Dsb::Ishst);
            m.tlbi(0, op(name, by_va(shape.va)));
            m.dsb(0, Dsb::Ish);
            m.store(0, parent, 0x40_0003);
            m.take_violations().iter().map(|v| (v.kind, v.cause, v.level)).collect::<Vec<_>>()
        };
        assert_eq!(flushed("vale1is"), [(Kind::Remade, Cause::LeafOnly, shape.level - 1)], "{}", shape.name);
        assert_eq!(flushed("vae1is"), [], "{}", shape.name);
    }
}

/// With DS a range begins at a multiple of 64 KiB, and its operand counts in these, in every regime.
#[test]
fn ranges_count_in_64_kib_where_ds_is_set() {
    use Sysreg as S;
    // What else is written, TCR_ELx and the place of DS in it, the root's register, where, and the operations: at stage 2 one for combined
    // entries, too.
    type Regime = (&'static [(Sysreg, u64)], (Sysreg, u64, u32), Sysreg, u8, &'static [&'static str]);
    let regimes: [Regime; 4] = [
        (&[(S::SctlrEl1, 1)], (S::TcrEl1, 16 | 1 << 23 | AS, 59), S::Ttbr0El1, 1, &["rvale1is"]),
        (&[(S::SctlrEl2, 1)], (S::TcrEl2, 16, 32), S::Ttbr0El2, 2, &["rvale2is"]),
        (&[(S::SctlrEl2, 1), (S::HcrEl2, 1 << 34)], (S::TcrEl2, 16 | 1 << 23 | AS, 59), S::Ttbr0El2, 2, &["rvale2is"]),
        (&[(S::HcrEl2, 1)], (S::VtcrEl2, 16 | 2 << 6, 32), S::VttbrEl2, 1, &["ripas2le1is", "vmalle1is"]),
    ];
    for (others, (tcr, value, ds), ttbr, el, ops) in regimes {
        for (wide, unit, off) in (0..8).map(|n| (n & 1, 12 + (n & 2) * 2, n & 4 != 0)) {
            let mut m = Machine::new(Config::default());
            for (slot, next) in [(ROOT, 0x20_0003), (0x20_0000, 0x20_1003), (0x20_1000, 0x20_2003)] {
                m.store(0, slot, next);
            }
            // Writable; DS has address bits in the place of SH.
            let writable = if ttbr == S::VttbrEl2 { 1 << 7 } else { 0 };
            let (slot, leaf) = (0x20_2000 + 8 * 0x10, 0x100_0000 | PAGE & !0x300 | writable);
            m.store(0, slot, leaf);
            m.go_to(0, 2);
            let all = [(tcr, value | wide << ds), (ttbr, ROOT | ASID << 48)];
            all.into_iter().chain(others.iter().copied()).for_each(|(register, value)| m.write(0, register, value));
            m.go_to(0, el);
            // The operand says the same where nothing is translated any more: what is cached stays.
            if off {
                m.write(0, others[0].0, 0);
                m.isb(0);
            }
            m.store(0, slot, 0);
            m.dsb(0, Dsb::Ishst);
            for name in ops {
                m.tlbi(0, op(name, ASID << 48 | 1 << 46 | 0x1_0000 >> unit));
                m.dsb(0, Dsb::Ish);
            }
            m.store(0, slot, leaf + 0x1000);
            let seen: Vec<_> = m.take_violations().iter().map(|v| (v.kind, v.cause, v.start)).collect();
            let expected =
                if (unit == 16) == (wide == 1) { vec![] } else { vec![(Kind::Remade, Cause::WrongRange, 0x1_0000)] };
            assert_eq!(seen, expected, "{tcr:?} DS {wide}, BaseADDR in {unit} bits, off: {off}");
        }
    }
}

#[test]
fn roots_of_a_few_bytes_share_a_page() {
    // 64 KiB, 48 bits: 512 bytes each. A store to one is none to the other, nor to what lies beside them.
    let shape = shapes().into_iter().find(|shape| shape.name.contains("512 bytes")).expect("it is there");
    let mut m = machine(&shape);
    m.store(0, ROOT + 0x200, 0x50_0003);
    m.write(1, Sysreg::Ttbr0El1, (ROOT + 0x200) | (9 << 48));
    m.isb(1);
    m.store(0, ROOT + 0x208, 0x51_0003);
    m.store(0, ROOT + 0x400, 0x51_0003);
    m.store(0, ROOT + 0x400, 0);
    assert_eq!(m.model().residues().counts().0, 0);
    m.store(0, ROOT + 0x208, 0);
    assert_eq!(m.model().residues().counts().0, 1);
    m.store(0, ROOT + 0x208, 0x52_0003);
    let seen: Vec<_> = m.take_violations().iter().map(|v| (v.kind, v.asids.clone())).collect();
    assert_eq!(seen, [(Kind::Remade, vec![9])]);
}

#[test]
fn dirty_state_and_access_flag_of_hardware() {
    let tcr = |bits: u64| {
        let mut m = Machine::new(Config::default());
        for (slot, value) in
            [(ROOT, 0x20_0003), (0x20_0000, 0x20_1003), (0x20_1000, 0x100_0000 | PAGE | 1 << 7 | 1 << 51)]
        {
            m.store(0, slot, value);
        }
        m.write(0, Sysreg::TcrEl1, 25 | 1 << 23 | bits);
        m.write(0, Sysreg::Ttbr0El1, ROOT);
        m.write(0, Sysreg::SctlrEl1, 1);
        m.isb(0);
        m
    };
    let (ha, hd) = (1 << 39, 1 << 40);
    for (bits, opened) in [(0, 0), (ha | hd, 1)] {
        // Writable by hardware's leave, then no longer: an invalidation is owed only where hardware could have written.
        let mut m = tcr(bits);
        m.store(0, 0x20_1000, 0x100_0000 | PAGE | 1 << 7);
        assert_eq!(m.model().residues().counts().0, opened, "{bits:#x}");
    }
    for (bits, opened) in [(0, 0), (ha, 1)] {
        // Without access flag: cached only where hardware may set it.
        let mut m = tcr(bits);
        m.store(0, 0x20_1008, 0x101_0000 | 0xb43);
        m.store(0, 0x20_1008, 0);
        assert_eq!(m.model().residues().counts().0, opened, "{bits:#x}");
    }
}
