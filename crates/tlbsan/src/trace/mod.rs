//! Traces: what the model was told and what it asked, written down so that it can be told again without the machine.
//!
//! A trace holds events, and memory as the model saw it: whole 4 KiB pages when one is first asked for, then the words that
//! changed; stacks and texts for the events that asked for them. Nothing in it depends on the model's order of questions, so
//! another model may be asked too; [`Replay::unanswered`] counts what it wanted to know and the trace does not say.
//!
//! [`Recorder`] stands between a source of events and the model and writes; [`Replay`] reads and is the model's world. The
//! format is in docs/trace.md. Knows nothing of files: any `Write` or `Read` will do.

mod codec;
mod read;
mod write;

pub use read::{Replay, TraceError, Wrong};
pub use write::Recorder;

/// The first bytes of every trace.
pub const MAGIC: [u8; 8] = *b"TLBSANTR";
/// Version of the format; a reader refuses another.
pub const VERSION: u16 = 1;

/// The most bytes of a block's contents.
const MAX_BLOCK: usize = 1 << 20;
/// A block is written once it has this many.
const FULL_BLOCK: usize = 1 << 16;
/// The most addresses of a stack.
const MAX_STACK: usize = 256;
/// The most bytes of a text.
const MAX_TEXT: usize = 4096;
/// The most stacks that are numbered; further ones are written out each time.
const MAX_STACKS: usize = 1 << 16;

/// Words of a page.
const WORDS: usize = 512;
const PAGE: u64 = 4096;

/// What an item is: the low five bits of its first byte.
mod tag {
    pub(super) const END: u8 = 0;
    pub(super) const STORE: u8 = 1;
    pub(super) const ZERO: u8 = 2;
    pub(super) const LOAD: u8 = 3;
    pub(super) const ACCESS: u8 = 4;
    pub(super) const TLBI: u8 = 5;
    pub(super) const UNKNOWN_TLBI: u8 = 6;
    pub(super) const DSB: u8 = 7;
    pub(super) const ISB: u8 = 8;
    pub(super) const EXCEPTION_ENTRY: u8 = 9;
    pub(super) const ERET: u8 = 10;
    pub(super) const EL: u8 = 11;
    pub(super) const SYSREG: u8 = 12;
    pub(super) const ID: u8 = 13;
    pub(super) const HINT: u8 = 14;
    pub(super) const RESET: u8 = 15;
    /// Memory: a page as it is, words that have changed, a page that is not there.
    pub(super) const PAGE: u8 = 16;
    pub(super) const WORD: u8 = 17;
    pub(super) const HOLE: u8 = 18;
    /// For the next event: a stack written out, a stack by number, a text, no text.
    pub(super) const STACK: u8 = 20;
    pub(super) const STACK_AGAIN: u8 = 21;
    pub(super) const TEXT: u8 = 22;
    pub(super) const NO_TEXT: u8 = 23;
    /// The event's PE is the one of the event before.
    pub(super) const SAME_PE: u8 = 1 << 5;
    /// It happens 4 bytes after its PE's last.
    pub(super) const NEXT_PC: u8 = 1 << 6;
    /// It happens at the same place as its PE's last.
    pub(super) const SAME_PC: u8 = 1 << 7;
}

/// What both ends remember to write differences only.
#[derive(Clone, Debug)]
struct Context {
    pe: usize,
    pcs: [u64; crate::machine::MAX_PES],
    pas: [u64; crate::machine::MAX_PES],
    /// The last address of a memory item.
    memory: u64,
}

impl Default for Context {
    fn default() -> Self {
        Self { pe: 0, pcs: [0; crate::machine::MAX_PES], pas: [0; crate::machine::MAX_PES], memory: 0 }
    }
}
