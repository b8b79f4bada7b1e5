//! What particular CPUs get wrong, by MIDR_EL1, and which work-around they need.
//!
//! Facts are those of the makers' notices as Linux applies them (arch/arm64, cpu_errata.c). A table row is a model, the revisions
//! concerned and the work-arounds. What a work-around does to a sequence stands at its field in [`Errata`].

/// The work-arounds that a CPU needs. Every field may be set or cleared by whoever knows better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Errata {
    /// Broadcast invalidation happens, but its DSB does not wait for accesses through the old entry: each
    /// [`Pending::sync`](crate::Pending::sync) of a broadcast stage-1 invalidation issues one more TLBI and DSB.
    pub repeat_tlbi: bool,
    /// PEs with TTBRx.CnP set may share entries wrongly: [`Features::cnp`](crate::Features::cnp) is false.
    pub no_cnp: bool,
    /// Relaxations of break-before-make do not hold: [`Features::bbm`](crate::Features::bbm) is 0.
    pub no_bbm_relaxation: bool,
    /// A change of a user-executable entry may be missed: whoever changes its permissions clears it and has the
    /// invalidation synced before the new value is written, as if break-before-make were due (A715, 2645198).
    pub break_user_exec: bool,
    /// Stale instructions may stay after a TTBR write: see [`Tlb::context_switched`](crate::Tlb::context_switched).
    pub icache_after_switch: bool,
    /// A translation may be tagged with the old ASID and the new table or the other way round: whoever switches spaces goes
    /// through a reserved ASID with an empty table (Falkor and Kryo, 1003). This crate writes no TTBR.
    pub reserved_asid_switch: bool,
}

impl Errata {
    /// None.
    pub const NONE: Self = Self {
        repeat_tlbi: false,
        no_cnp: false,
        no_bbm_relaxation: false,
        break_user_exec: false,
        icache_after_switch: false,
        reserved_asid_switch: false,
    };

    /// Of the CPU with this MIDR_EL1.
    pub fn of(midr: u64) -> Self {
        ERRATA.iter().filter(|erratum| erratum.concerns(midr)).fold(Self::NONE, |all, erratum| all.union(erratum.needs))
    }

    /// The work-arounds of both: a system needs those of all its PEs.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            repeat_tlbi: self.repeat_tlbi || other.repeat_tlbi,
            no_cnp: self.no_cnp || other.no_cnp,
            no_bbm_relaxation: self.no_bbm_relaxation || other.no_bbm_relaxation,
            break_user_exec: self.break_user_exec || other.break_user_exec,
            icache_after_switch: self.icache_after_switch || other.icache_after_switch,
            reserved_asid_switch: self.reserved_asid_switch || other.reserved_asid_switch,
        }
    }
}

/// One row: a model of CPU, the revisions concerned, and what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erratum {
    /// The maker's number.
    pub id: &'static str,
    /// The CPU's name.
    pub cpu: &'static str,
    /// MIDR_EL1.Implementer.
    pub implementer: u8,
    /// MIDR_EL1.PartNum, of which the bits in `part_mask` count.
    pub part: u16,
    /// Which bits of the part number tell the model.
    pub part_mask: u16,
    /// First revision concerned: major << 4 | minor, r1p2 is 0x12.
    pub first: u8,
    /// Last revision concerned.
    pub last: u8,
    /// The work-arounds.
    pub needs: Errata,
}

impl Erratum {
    /// Whether it concerns the CPU with this MIDR_EL1.
    pub const fn concerns(&self, midr: u64) -> bool {
        let revision = (midr >> 16 & 0xf0 | midr & 0xf) as u8;
        midr >> 24 & 0xff == self.implementer as u64
            && (midr >> 4) as u16 & 0xfff & self.part_mask == self.part
            && self.first <= revision
            && revision <= self.last
    }
}

const ARM: u8 = 0x41;
const CAVIUM: u8 = 0x43;
const HISILICON: u8 = 0x48;
const NVIDIA: u8 = 0x4e;
const QUALCOMM: u8 = 0x51;

macro_rules! errata {
    ($($id:literal $needs:ident: $($cpu:literal $implementer:ident $part:literal $(/ $mask:literal)? $first:literal..=$last:literal),+;)*) => {
        /// Every erratum that changes a sequence.
        pub const ERRATA: &[Erratum] = &[$($(Erratum {
            id: $id,
            cpu: $cpu,
            implementer: $implementer,
            part: $part,
            part_mask: 0xfff $(& $mask)?,
            first: $first,
            last: $last,
            needs: Errata { $needs: true, ..Errata::NONE },
        },)+)*];
    };
}

errata! {
    "1009" repeat_tlbi: "Falkor v1" QUALCOMM 0x800 0x00..=0x00, "Kryo" QUALCOMM 0x200/0xf00 0x00..=0xff;
    "1286807" repeat_tlbi: "Cortex-A76" ARM 0xd0b 0x00..=0x30, "Kryo 4xx Gold" QUALCOMM 0x804 0x00..=0xff;
    "2441007" repeat_tlbi: "Cortex-A55" ARM 0xd05 0x00..=0xff;
    "2441009" repeat_tlbi: "Cortex-A510" ARM 0xd46 0x00..=0x11;
    // CVE-2025-10263.
    "4118414" repeat_tlbi:
        "Cortex-A76" ARM 0xd0b 0x00..=0xff, "Cortex-A76AE" ARM 0xd0e 0x00..=0xff, "Cortex-A77" ARM 0xd0d 0x00..=0xff,
        "Cortex-A78" ARM 0xd41 0x00..=0xff, "Cortex-A78AE" ARM 0xd42 0x00..=0xff, "Cortex-A78C" ARM 0xd4b 0x00..=0xff,
        "Cortex-A710" ARM 0xd47 0x00..=0xff, "Cortex-X1" ARM 0xd44 0x00..=0xff, "Cortex-X1C" ARM 0xd4c 0x00..=0xff,
        "Cortex-X2" ARM 0xd48 0x00..=0xff, "Cortex-X3" ARM 0xd4e 0x00..=0xff, "Cortex-X4" ARM 0xd82 0x00..=0xff,
        "Cortex-X925" ARM 0xd85 0x00..=0xff, "Neoverse-N1" ARM 0xd0c 0x00..=0xff, "Neoverse-N2" ARM 0xd49 0x00..=0xff,
        "Neoverse-V1" ARM 0xd40 0x00..=0xff, "Neoverse-V2" ARM 0xd4f 0x00..=0xff, "Neoverse-V3" ARM 0xd84 0x00..=0xff,
        "Neoverse-V3AE" ARM 0xd83 0x00..=0xff, "C1-Premium" ARM 0xd90 0x00..=0xff, "C1-Ultra" ARM 0xd8c 0x00..=0xff;
    "T410-OLY-1029" repeat_tlbi: "Olympus" NVIDIA 0x010 0x00..=0xff;
    "Carmel CnP" no_cnp: "Carmel" NVIDIA 0x004 0x00..=0xff;
    "162100125" no_cnp: "HIP09" HISILICON 0xd02 0x00..=0xff;
    "2645198" break_user_exec: "Cortex-A715" ARM 0xd4d 0x00..=0xff;
    // Passes 1.x and 2.x of the ThunderX are r0 and r1.
    "27456" icache_after_switch: "ThunderX T88" CAVIUM 0x0a1 0x00..=0x11, "ThunderX T81" CAVIUM 0x0a2 0x00..=0x00;
    "1003" reserved_asid_switch: "Falkor v1" QUALCOMM 0x800 0x00..=0x00, "Kryo" QUALCOMM 0x200/0xf00 0x00..=0xff;
    "3053180" no_bbm_relaxation: "Neoverse-V3" ARM 0xd84 0x00..=0x01, "Neoverse-V3AE" ARM 0xd83 0x00..=0x01;
    "3683289" no_bbm_relaxation: "C1-Premium" ARM 0xd90 0x00..=0x10, "C1-Ultra" ARM 0xd8c 0x00..=0x10;
}
