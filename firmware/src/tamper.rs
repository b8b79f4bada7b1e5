//! The instructions of the library under test, on their way to the PE: counted, written down, and one kind of them lost, weakened or
//! bent on purpose.
//!
//! A scenario's space issues through [`Tampered`]. Outside a window it is the hardware and nothing else.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aarch64_cpu::asm;
use tlbi::{Asid, Dsb, Hardware, Instruction, Issue, Op, Scope, Target, VirtAddr};

use crate::sync::{Lock, wait_until};

/// What goes wrong within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// The n-th TLBI or DSB is lost, counted from 0. ISBs are not counted.
    Nth(usize),
    /// TLBIs that remove leaves only are lost.
    LeafTlbis,
    /// DSBs that wait for stores only are lost: those before a TLBI.
    StoreDsbs,
    /// DSBs that wait for loads and stores are lost: those after a TLBI.
    FullDsbs,
    /// They wait for stores only.
    FullDsbsWeakened,
    /// They are executed on another core.
    FullDsbsElsewhere,
    /// ISBs are lost.
    Isbs,
    /// TLBIs reach their own PE only.
    Broadcast,
    /// TLBIs name another ASID.
    Asid,
    /// TLBIs name another page.
    Address,
}

/// How much of a window is written down.
const KEPT: usize = 64;

static OPEN: AtomicBool = AtomicBool::new(false);
static LOSS: Lock<Loss> = Lock::new(Loss::Nothing);
/// TLBIs and DSBs of the window.
static TLBIS: AtomicUsize = AtomicUsize::new(0);
static DSBS: AtomicUsize = AtomicUsize::new(0);
static ISSUED: AtomicUsize = AtomicUsize::new(0);
static RECORD: Lock<[Option<Instruction>; KEPT]> = Lock::new([None; KEPT]);

/// A DSB that one core wants another to execute.
static WANTED: AtomicBool = AtomicBool::new(false);

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
        for count in [&ISSUED, &TLBIS, &DSBS] {
            count.store(0, Ordering::Relaxed);
        }
        *LOSS.lock() = loss;
        OPEN.store(true, Ordering::Release);
    }

    /// TLBIs and DSBs of the window, or of the last one.
    pub fn counts() -> (usize, usize) {
        (TLBIS.load(Ordering::Relaxed), DSBS.load(Ordering::Relaxed))
    }

    /// The window is over: what the library issued in it, in order, and how much of that is not kept.
    pub fn close() -> ([Option<Instruction>; KEPT], usize) {
        OPEN.store(false, Ordering::Release);
        (*RECORD.lock(), ISSUED.load(Ordering::Relaxed).saturating_sub(KEPT))
    }

    /// Writes the instruction down; what goes wrong with it, if anything may.
    fn note(instruction: Instruction) -> Loss {
        if !OPEN.load(Ordering::Acquire) {
            return Loss::Nothing;
        }
        let count = if matches!(instruction, Instruction::Tlbi(_)) { &TLBIS } else { &DSBS };
        count.fetch_add(1, Ordering::Relaxed);
        let n = ISSUED.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = RECORD.lock().get_mut(n) {
            *slot = Some(instruction);
        }
        match *LOSS.lock() {
            Loss::Nth(lost) if n != lost => Loss::Nothing,
            loss => loss,
        }
    }
}

/// An address space that no case has.
fn other(asid: Asid) -> Asid {
    Asid::new(asid.number() ^ 0x80)
}

// SAFETY: executes each instruction on the calling PE, except what a scenario has go wrong to show that it is missed. Nothing but
// the scenario's own space, which nobody else relies on, issues through it.
unsafe impl Issue for Tampered {
    fn tlbi(&self, op: Op) {
        let bent = |target| Op { target, ..op };
        let op = match (Self::note(Instruction::Tlbi(op)), op.target) {
            (Loss::Nth(_), _)
            | (Loss::LeafTlbis, Target::Va { leaf_only: true, .. } | Target::VaRange { leaf_only: true, .. }) => return,
            (Loss::Broadcast, _) => Op { scope: Scope::Local, ..op },
            (Loss::Asid, Target::Asid(asid)) => bent(Target::Asid(other(asid))),
            (Loss::Asid, Target::Va { va, asid: Some(asid), leaf_only, ttl }) => {
                bent(Target::Va { va, asid: Some(other(asid)), leaf_only, ttl })
            }
            (Loss::Asid, Target::VaRange { pages, asid: Some(asid), leaf_only }) => {
                bent(Target::VaRange { pages, asid: Some(other(asid)), leaf_only })
            }
            (Loss::Address, Target::Va { va, asid, leaf_only, ttl }) => {
                bent(Target::Va { va: VirtAddr::new(va.bits() ^ 0x8000), asid, leaf_only, ttl })
            }
            _ => op,
        };
        self.0.tlbi(op);
    }

    fn dsb(&self, dsb: Dsb) {
        let full = dsb.covers_loads() && dsb.covers_stores();
        match Self::note(Instruction::Dsb(dsb)) {
            Loss::Nth(_) => {}
            Loss::StoreDsbs if !full => {}
            Loss::FullDsbs if full => {}
            Loss::FullDsbsWeakened if full => self.0.dsb(Dsb::Ishst),
            Loss::FullDsbsElsewhere if full => {
                WANTED.store(true, Ordering::Release);
                asm::sev();
                wait_until(|| !WANTED.load(Ordering::Acquire));
            }
            _ => self.0.dsb(dsb),
        }
    }

    fn isb(&self) {
        if !(OPEN.load(Ordering::Acquire) && *LOSS.lock() == Loss::Isbs) {
            self.0.isb();
        }
    }
}

/// Executes on this core the DSBs that another core's window sends elsewhere, until `over`.
pub fn execute_dsbs_of_another_core(over: impl Fn() -> bool) {
    // SAFETY: the image runs at EL1.
    let hardware = unsafe { Hardware::new() };
    wait_until(|| {
        if WANTED.load(Ordering::Acquire) {
            hardware.dsb(Dsb::Ish);
            WANTED.store(false, Ordering::Release);
            asm::sev();
        }
        over()
    });
}
