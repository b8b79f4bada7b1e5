//! Annotations that a kernel may add for `tlbsan`, and the names of its rules.
//!
//! A hint is `movz xzr, #imm`, which does nothing on hardware, with arguments in x0..x3. It goes one way: the kernel never
//! learns whether somebody listens, nor what was concluded. All of them are optional: `tlbsan` needs none to find a stale
//! entry. They say which case runs, what it is expected to show, and when the kernel itself believes a page to be clean.
//!
//! On other architectures the functions do nothing.

#![no_std]

use core::fmt;

macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $type {
            $($(#[$vdoc])* $variant = $code,)*
        }

        impl $type {
            /// Every one, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name, as in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code, as in hints.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The one with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.code() == code)
            }

            /// The one with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.name() == name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

names! {
    /// Which rule was broken: what made a stale entry an error.
    Kind {
        /// The slot, or the span it translates, got a different valid translation while an older one may be cached.
        Remade = 1 "remade",
        /// An unlinked table page was put to another use while walk caches may still point at it.
        Reused = 2 "reused",
        /// A valid entry was changed in place where break-before-make is due.
        LiveChange = 3 "live-change",
        /// The kernel said that something is flushed, or freed a frame, and it may still be cached.
        Claimed = 4 "claimed",
        /// An access used another physical address than the tables give, although nothing stale was allowed any more.
        StaleAccess = 5 "stale-access",
        /// An ASID or VMID was loaded with other tables while entries of the earlier ones may be cached under it.
        Asid = 6 "asid",
    }
}

names! {
    /// Why the older translation may still be cached.
    Cause {
        /// No TLBI concerned it.
        NoInvalidation = 1 "no-invalidation",
        /// TLBIs removed leaf entries only; this is a table entry, or a leaf that can be refilled through one.
        LeafOnly = 2 "leaf-only",
        /// TLBIs reached the issuing PE only.
        LocalOnly = 3 "local-only",
        /// TLBIs named other addresses.
        WrongRange = 4 "wrong-range",
        /// TLBIs named another ASID.
        WrongAsid = 5 "wrong-asid",
        /// The entry is global: operations by ASID leave it.
        GlobalSurvives = 6 "global-survives",
        /// The TTL hint named another level.
        WrongTtl = 7 "wrong-ttl",
        /// The old entry was never made invalid in between.
        NotBrokenFirst = 8 "not-broken-first",
        /// No DSB ordered the store of the entry before the TLBI (R4).
        NotOrdered = 9 "not-ordered",
        /// No DSB of the issuing PE completed the TLBI (R5).
        NotCompleted = 10 "not-completed",
        /// The PE executed no context synchronisation event after the completed TLBI and before its access (R6).
        NotSynchronised = 11 "not-synchronised",
    }
}

/// A verdict as a case expects it. Which PEs hold the entry is left out: that is the interleaving's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expected {
    /// The rule broken.
    pub kind: Kind,
    /// Why the stale entry was still there.
    pub cause: Cause,
    /// First virtual address that the stale entry translates.
    pub start: u64,
    /// Bytes that it translates.
    pub size: u64,
    /// Lookup level of the stale entry, -1..=3.
    pub level: i8,
}

/// One hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// A case begins: verdicts count for it until [`Hint::CaseEnd`].
    CaseBegin {
        /// The number of its test point (TAP).
        id: u64,
    },
    /// The case that runs is expected to show this verdict.
    Expect(Expected),
    /// The case ends. What it left stale stays stale: a case ends with a full flush of its own.
    CaseEnd {
        /// The number given at its beginning.
        id: u64,
    },
    /// The frame goes back to an allocator: nothing may be cached that leads to it.
    FrameFreed {
        /// Physical address of the frame.
        pa: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// The kernel believes that no stale entry is left for this range.
    FlushClaimed {
        /// First virtual address.
        start: u64,
        /// Size in bytes.
        size: u64,
        /// The ASID.
        asid: u16,
    },
    /// A word for the story: what this PE is about to do.
    Label {
        /// Virtual address of UTF-8 text.
        text: u64,
        /// Its length in bytes.
        len: u64,
    },
}

/// `movz xzr, #0`, the instruction that carries a hint in its immediate.
const MOVZ_XZR: u32 = 0xd280_001f;

/// The immediate of the first hint; the others follow.
const FIRST_IMM: u16 = 0x7b50;

/// Which hint an instruction is; its arguments are in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HintCode(u16);

impl HintCode {
    const CASE_BEGIN: u16 = 0;
    const EXPECT: u16 = 1;
    const CASE_END: u16 = 2;
    const FRAME_FREED: u16 = 3;
    const FLUSH_CLAIMED: u16 = 4;
    const LABEL: u16 = 5;

    /// The hint that `insn` is, if it is one.
    pub const fn from_insn(insn: u32) -> Option<Self> {
        if insn & !0x001f_ffe0 != MOVZ_XZR {
            return None;
        }
        let code = ((insn >> 5) as u16).wrapping_sub(FIRST_IMM);
        if code <= Self::LABEL { Some(Self(code)) } else { None }
    }

    /// The hint with these arguments (x0..x3), or `None` if they make no sense.
    pub fn decode(self, args: [u64; 4]) -> Option<Hint> {
        let [x0, x1, x2, _] = args;
        Some(match self.0 {
            Self::CASE_BEGIN => Hint::CaseBegin { id: x0 },
            Self::EXPECT => Hint::Expect(Expected {
                kind: Kind::from_code(x0 as u8)?,
                cause: Cause::from_code((x0 >> 8) as u8)?,
                level: (x0 >> 16) as i8,
                start: x1,
                size: x2,
            }),
            Self::CASE_END => Hint::CaseEnd { id: x0 },
            Self::FRAME_FREED => Hint::FrameFreed { pa: x0, size: x1 },
            Self::FLUSH_CLAIMED => Hint::FlushClaimed { start: x0, size: x1, asid: x2 as u16 },
            Self::LABEL => Hint::Label { text: x0, len: x1 },
            _ => return None,
        })
    }
}

impl Hint {
    /// The immediate's offset and the arguments: what [`HintCode::decode`] undoes.
    const fn encode(self) -> (u16, [u64; 4]) {
        match self {
            Self::CaseBegin { id } => (HintCode::CASE_BEGIN, [id, 0, 0, 0]),
            Self::Expect(Expected { kind, cause, start, size, level }) => {
                let what = kind.code() as u64 | (cause.code() as u64) << 8 | (level as u8 as u64) << 16;
                (HintCode::EXPECT, [what, start, size, 0])
            }
            Self::CaseEnd { id } => (HintCode::CASE_END, [id, 0, 0, 0]),
            Self::FrameFreed { pa, size } => (HintCode::FRAME_FREED, [pa, size, 0, 0]),
            Self::FlushClaimed { start, size, asid } => (HintCode::FLUSH_CLAIMED, [start, size, asid as u64, 0]),
            Self::Label { text, len } => (HintCode::LABEL, [text, len, 0, 0]),
        }
    }

    /// The instruction that carries the hint, and its arguments in x0..x3.
    pub const fn insn(self) -> (u32, [u64; 4]) {
        let (code, args) = self.encode();
        (MOVZ_XZR | ((FIRST_IMM + code) as u32) << 5, args)
    }

    /// Executes the hint on this PE.
    #[inline(always)]
    pub fn emit(self) {
        let (code, args) = self.encode();
        #[cfg(target_arch = "aarch64")]
        {
            macro_rules! movz {
                ($($code:path),*) => {
                    match code {
                        // SAFETY: writes no register and no memory; memory is left clobbered so that the stores a hint
                        // speaks of stand before it.
                        $($code => unsafe {
                            core::arch::asm!(
                                "movz xzr, #{imm}",
                                imm = const FIRST_IMM + $code,
                                in("x0") args[0], in("x1") args[1], in("x2") args[2], in("x3") args[3],
                                options(nostack, preserves_flags),
                            )
                        },)*
                        _ => {}
                    }
                };
            }
            movz!(
                HintCode::CASE_BEGIN,
                HintCode::EXPECT,
                HintCode::CASE_END,
                HintCode::FRAME_FREED,
                HintCode::FLUSH_CLAIMED,
                HintCode::LABEL
            );
        }
        #[cfg(not(target_arch = "aarch64"))]
        let _ = (code, args);
    }
}

/// A case begins; `id` is the number of its test point.
#[inline(always)]
pub fn case_begin(id: u64) {
    Hint::CaseBegin { id }.emit();
}

/// The running case is expected to show this verdict.
#[inline(always)]
pub fn expect(expected: Expected) {
    Hint::Expect(expected).emit();
}

/// The running case ends.
#[inline(always)]
pub fn case_end(id: u64) {
    Hint::CaseEnd { id }.emit();
}

/// The frame of `size` bytes at `pa` goes back to its allocator.
#[inline(always)]
pub fn frame_freed(pa: u64, size: u64) {
    Hint::FrameFreed { pa, size }.emit();
}

/// No stale entry should be left for the `size` bytes from `start` in the address space `asid`.
#[inline(always)]
pub fn flush_claimed(start: u64, size: u64, asid: u16) {
    Hint::FlushClaimed { start, size, asid }.emit();
}

/// What this PE is about to do, for the story.
#[inline(always)]
pub fn label(text: &'static str) {
    Hint::Label { text: text.as_ptr() as u64, len: text.len() as u64 }.emit();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_survives_its_encoding() {
        let hints = [
            Hint::CaseBegin { id: 7 },
            Hint::Expect(Expected {
                kind: Kind::Remade,
                cause: Cause::NotCompleted,
                start: 0x8000_0000,
                size: 1 << 21,
                level: -1,
            }),
            Hint::CaseEnd { id: u64::MAX },
            Hint::FrameFreed { pa: 0x4000_0000, size: 4096 },
            Hint::FlushClaimed { start: 0x1000, size: 0x2000, asid: 0xffff },
            Hint::Label { text: 0xffff_0000_0000_1234, len: 12 },
        ];
        for hint in hints {
            let (code, args) = hint.encode();
            let insn = MOVZ_XZR | u32::from(FIRST_IMM + code) << 5;
            assert_eq!(HintCode::from_insn(insn).and_then(|code| code.decode(args)), Some(hint));
        }
    }

    #[test]
    fn other_moves_are_no_hints() {
        for insn in [MOVZ_XZR, MOVZ_XZR | 0x7b4f << 5, MOVZ_XZR | 0x7b56 << 5, 0xd280_0000 | 0x7b50 << 5, 0xd503_201f] {
            assert_eq!(HintCode::from_insn(insn), None, "{insn:#x}");
        }
    }
}
