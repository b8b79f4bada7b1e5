//! The instructions of the library under test, on their way to the PE: counted, written down, and one of them lost on purpose.
//!
//! A scenario's space issues through [`Tampered`]. Outside a window it is the hardware and nothing else.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use tlbi::{Dsb, Hardware, Instruction, Issue, Op, Target};

use crate::sync::Lock;

/// What is lost within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// The n-th TLBI or DSB, counted from 0. ISBs are not counted.
    Nth(usize),
    /// Every TLBI that removes leaves only.
    LeafTlbis,
}

const NOTHING: u8 = 0;
const NTH: u8 = 1;
const LEAF_TLBIS: u8 = 2;

/// What the window has seen; [`Tampered::close`] prints it.
const KEPT: usize = 64;

static OPEN: AtomicBool = AtomicBool::new(false);
static LOSS: AtomicU8 = AtomicU8::new(NOTHING);
static NTH_LOST: AtomicUsize = AtomicUsize::new(0);
static ISSUED: AtomicUsize = AtomicUsize::new(0);
static RECORD: Lock<[Option<Instruction>; KEPT]> = Lock::new([None; KEPT]);

/// This PE, but for what the open window loses.
#[derive(Clone, Copy)]
pub struct Tampered(Hardware);

impl Tampered {
    /// Issues on the PE that calls.
    pub const fn new(hardware: Hardware) -> Self {
        Self(hardware)
    }

    /// From now on, on every core.
    pub fn open(loss: Loss) {
        RECORD.lock().fill(None);
        ISSUED.store(0, Ordering::Relaxed);
        let (code, nth) = match loss {
            Loss::Nothing => (NOTHING, 0),
            Loss::Nth(n) => (NTH, n),
            Loss::LeafTlbis => (LEAF_TLBIS, 0),
        };
        NTH_LOST.store(nth, Ordering::Relaxed);
        LOSS.store(code, Ordering::Relaxed);
        OPEN.store(true, Ordering::Release);
    }

    /// The window is over: what was issued in it, in order, and how much of that is not kept.
    pub fn close() -> ([Option<Instruction>; KEPT], usize) {
        OPEN.store(false, Ordering::Release);
        (*RECORD.lock(), ISSUED.load(Ordering::Relaxed).saturating_sub(KEPT))
    }

    fn is_lost(instruction: Instruction) -> bool {
        if !OPEN.load(Ordering::Acquire) {
            return false;
        }
        let n = ISSUED.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = RECORD.lock().get_mut(n) {
            *slot = Some(instruction);
        }
        match LOSS.load(Ordering::Relaxed) {
            NTH => n == NTH_LOST.load(Ordering::Relaxed),
            LEAF_TLBIS => matches!(
                instruction,
                Instruction::Tlbi(Op {
                    target: Target::Va { leaf_only: true, .. } | Target::VaRange { leaf_only: true, .. },
                    ..
                })
            ),
            _ => false,
        }
    }
}

// SAFETY: executes each instruction on the calling PE, except what a scenario loses to show that it is missed. Nothing but the
// scenario's own space, which nobody else relies on, issues through it.
unsafe impl Issue for Tampered {
    fn tlbi(&self, op: Op) {
        if !Self::is_lost(Instruction::Tlbi(op)) {
            self.0.tlbi(op);
        }
    }

    fn dsb(&self, dsb: Dsb) {
        if !Self::is_lost(Instruction::Dsb(dsb)) {
            self.0.dsb(dsb);
        }
    }

    fn isb(&self) {
        self.0.isb();
    }
}
