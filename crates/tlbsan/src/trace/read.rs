//! Reading a trace, and being the world it was recorded in.

use super::codec::{take, take_delta};
use super::{Context, MAGIC, MAX_BLOCK, MAX_STACK, MAX_STACKS, MAX_TEXT, PAGE, VERSION, WORDS, tag};
use crate::event::{AccessKind, Event, IdRegister, Sysreg, What, World};
use crate::hash::FastMap;
use crate::machine::MAX_PES;
use crate::model::Config;
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use tlbi::{Dsb, Mnemonic};
use tlbsan_hint::HintCode;

/// Bytes before the first block.
const HEADER: usize = 16;

/// What is wrong with a trace.
#[derive(Debug)]
pub enum Wrong {
    /// It does not begin as a trace does.
    NoTrace,
    /// It is of a version that this reader does not know.
    Version(u16),
    /// It ends before its end.
    Truncated,
    /// A block's checksum is another: something was changed after it was written.
    Damaged,
    /// A block, a number or an item that no writer makes.
    Malformed(&'static str),
    /// It goes on after its end.
    Trailing,
    /// It cannot be read.
    Io(io::Error),
}

/// Why a trace cannot be read on, and where.
#[derive(Debug)]
pub struct TraceError {
    /// Bytes from the beginning: of the item, or, where a block as a whole is wrong, of the block.
    pub offset: u64,
    /// What is wrong.
    pub wrong: Wrong,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.offset;
        match &self.wrong {
            Wrong::NoTrace => f.write_str("this is no trace of tlbsan"),
            Wrong::Version(version) => write!(f, "the trace has version {version}; this tlbsan reads {VERSION}"),
            Wrong::Truncated => write!(f, "the trace is cut off at byte {at}"),
            Wrong::Damaged => write!(f, "the trace is damaged: the block at byte {at} does not match its checksum"),
            Wrong::Malformed(what) => write!(f, "the trace makes no sense at byte {at}: {what}"),
            Wrong::Trailing => write!(f, "the trace goes on after its end, at byte {at}"),
            Wrong::Io(error) => write!(f, "the trace cannot be read at byte {at}: {error}"),
        }
    }
}

impl std::error::Error for TraceError {}

/// The words of a page: a few bytes of a trace do not make it 4 KiB.
#[derive(Debug)]
enum Page {
    /// Those that are not zero, with their numbers, ascending.
    Few(Vec<(u16, u64)>),
    All(Box<[u64; WORDS]>),
}

/// Words from which on a page is kept whole.
const MANY: usize = 64;

impl Default for Page {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Page {
    fn get(&self, index: usize) -> u64 {
        match self {
            Self::Few(words) => {
                words.binary_search_by_key(&index, |word| usize::from(word.0)).map_or(0, |at| words[at].1)
            }
            Self::All(words) => words[index % WORDS],
        }
    }

    fn set(&mut self, index: usize, value: u64) {
        if let Self::Few(few) = self {
            match few.binary_search_by_key(&index, |word| usize::from(word.0)) {
                Ok(at) => return few[at].1 = value,
                Err(at) if few.len() < MANY => return few.insert(at, (index as u16, value)),
                Err(_) => {
                    let mut all = Box::new([0; WORDS]);
                    few.iter().for_each(|(index, value)| all[usize::from(*index)] = *value);
                    *self = Self::All(all);
                }
            }
        }
        if let Self::All(words) = self {
            words[index % WORDS] = value;
        }
    }
}

/// A trace being read, and the world as it was.
#[derive(Debug)]
pub struct Replay<R> {
    source: R,
    config: Config,
    block: Vec<u8>,
    /// What of the block is read.
    at: usize,
    /// Where the block's contents begin in the trace, and where the next block does.
    begin: u64,
    next: u64,
    context: Context,
    memory: FastMap<u64, Option<Page>>,
    stacks: Vec<Vec<u64>>,
    stack: Vec<u64>,
    texts: Vec<(u64, u64, Option<String>)>,
    events: u64,
    ended: bool,
    unanswered: Cell<u64>,
}

impl<R: Read> Replay<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// [`Wrong::NoTrace`], [`Wrong::Version`], [`Wrong::Truncated`], or what `source` says.
    pub fn new(mut source: R) -> Result<Self, TraceError> {
        let mut header = [0; HEADER];
        let read = fill(&mut source, &mut header).map_err(|error| TraceError { offset: 0, wrong: Wrong::Io(error) })?;
        let known = read.min(MAGIC.len());
        if header[..known] != MAGIC[..known] {
            return Err(TraceError { offset: 0, wrong: Wrong::NoTrace });
        }
        if read < header.len() {
            return Err(TraceError { offset: read as u64, wrong: Wrong::Truncated });
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(TraceError { offset: 8, wrong: Wrong::Version(version) });
        }
        if crc32fast::hash(&header[..HEADER - 4]).to_le_bytes() != header[HEADER - 4..] {
            return Err(TraceError { offset: 0, wrong: Wrong::Damaged });
        }
        if header[10] & !7 != 0 || header[11] != 0 {
            return Err(TraceError { offset: 10, wrong: Wrong::Malformed("an unknown setting") });
        }
        let set = |bit: u8| header[10] >> bit & 1 != 0;
        let config = Config { ignore_hints: set(0), tell_all: set(1), cost: set(2), ..Config::default() };
        Ok(Self {
            source,
            config,
            block: Vec::new(),
            at: 0,
            begin: HEADER as u64,
            next: HEADER as u64,
            context: Context::default(),
            memory: FastMap::default(),
            stacks: Vec::new(),
            stack: Vec::new(),
            texts: Vec::new(),
            events: 0,
            ended: false,
            unanswered: Cell::new(0),
        })
    }

    /// How the model was set that the trace was recorded with.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Questions that the trace has no answer to: above zero only if another model asks than the one recorded.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.get()
    }

    /// The next event, with the world made as it was then; `None`: the trace is over, and complete.
    ///
    /// # Errors
    /// Anything in [`Wrong`] with its place. Everything before that place was right.
    pub fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        self.stack.clear();
        self.texts.clear();
        loop {
            if self.at == self.block.len() && !self.fill_block()? {
                return Ok(None);
            }
            let start = self.at;
            let block = std::mem::take(&mut self.block);
            let mut rest = &block[start..];
            let item = self.item(&mut rest);
            self.at = block.len() - rest.len();
            self.block = block;
            match item {
                Ok(Some(event)) => {
                    self.events += 1;
                    return Ok(Some(event));
                }
                Ok(None) => {}
                Err(what) => {
                    return Err(TraceError { offset: self.begin + start as u64, wrong: Wrong::Malformed(what) });
                }
            }
        }
    }

    /// Reads the next block; false: there is none, and should be none.
    fn fill_block(&mut self) -> Result<bool, TraceError> {
        let offset = self.next;
        let error = |wrong| TraceError { offset, wrong };
        let mut head = [0; 8];
        let read = fill(&mut self.source, &mut head).map_err(|e| error(Wrong::Io(e)))?;
        match (read, self.ended) {
            (0, true) => return Ok(false),
            (_, true) => return Err(error(Wrong::Trailing)),
            (8, false) => {}
            (read, false) => return Err(TraceError { offset: offset + read as u64, wrong: Wrong::Truncated }),
        }
        let [a, b, c, d, e, f, g, h] = head;
        let (len, sum) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]));
        if len == 0 || len > MAX_BLOCK {
            return Err(error(Wrong::Malformed("a block of no or of too many bytes")));
        }
        self.block.resize(len, 0);
        let read = fill(&mut self.source, &mut self.block).map_err(|e| error(Wrong::Io(e)))?;
        if read < len {
            return Err(TraceError { offset: offset + 8 + read as u64, wrong: Wrong::Truncated });
        }
        if crc32fast::hash(&self.block) != sum {
            return Err(error(Wrong::Damaged));
        }
        (self.at, self.begin, self.next) = (0, offset + 8, offset + 8 + len as u64);
        Ok(true)
    }

    /// Reads one item: an event, or something that the world takes in.
    fn item(&mut self, bytes: &mut &[u8]) -> Result<Option<Event>, &'static str> {
        const NUMBER: &str = "a number is cut off or too large";
        let first = take_byte(bytes)?;
        if self.ended {
            return Err("an item after the end");
        }
        match first {
            tag::END => {
                self.ended = true;
                let events = take(bytes).ok_or(NUMBER)?;
                if events == self.events { Ok(None) } else { Err("another number of events than there are") }
            }
            tag::PAGE => {
                let page = self.page(bytes)?;
                let mut words = Page::default();
                let mut index = 0_usize;
                for _ in 0..take(bytes).filter(|count| *count <= WORDS as u64).ok_or("too many words for a page")? {
                    let skip = take(bytes).filter(|skip| *skip < WORDS as u64).ok_or(NUMBER)?;
                    index += skip as usize;
                    if index >= WORDS {
                        return Err("a word past its page");
                    }
                    words.set(index, take(bytes).ok_or(NUMBER)?);
                    index += 1;
                }
                self.memory.insert(page, Some(words));
                Ok(None)
            }
            tag::HOLE => {
                let page = self.page(bytes)?;
                self.memory.insert(page, None);
                Ok(None)
            }
            tag::WORD => {
                let word = take_delta(bytes, self.context.memory).ok_or(NUMBER)?;
                self.context.memory = word;
                let value = take(bytes).ok_or(NUMBER)?;
                let page = word.checked_mul(8).ok_or("no address")? & !(PAGE - 1);
                match self.memory.get_mut(&page) {
                    Some(Some(words)) => words.set(word as usize % WORDS, value),
                    _ => return Err("a word of a page that has not been read"),
                }
                Ok(None)
            }
            tag::STACK => {
                let len = take(bytes).filter(|len| *len <= MAX_STACK as u64).ok_or("too long a stack")?;
                self.stack.clear();
                let mut last = 0;
                for _ in 0..len {
                    last = take_delta(bytes, last).ok_or(NUMBER)?;
                    self.stack.push(last);
                }
                if self.stacks.len() < MAX_STACKS {
                    self.stacks.push(self.stack.clone());
                }
                Ok(None)
            }
            tag::STACK_AGAIN => {
                let number = take(bytes).ok_or(NUMBER)?;
                let known = usize::try_from(number).ok().and_then(|number| self.stacks.get(number));
                self.stack.clone_from(known.ok_or("a stack that has not been read")?);
                Ok(None)
            }
            tag::TEXT | tag::NO_TEXT => {
                let (va, len) = (take(bytes).ok_or(NUMBER)?, take(bytes).ok_or(NUMBER)?);
                let mut text = None;
                if first == tag::TEXT {
                    let bytes_of_it = take(bytes).filter(|len| *len <= MAX_TEXT as u64).ok_or("too long a text")?;
                    let (it, rest) = bytes.split_at_checked(bytes_of_it as usize).ok_or("a text is cut off")?;
                    *bytes = rest;
                    text = Some(std::str::from_utf8(it).map_err(|_| "a text that is no UTF-8")?.to_owned());
                }
                if self.texts.len() == 16 {
                    return Err("too many texts for one event");
                }
                self.texts.push((va, len, text));
                Ok(None)
            }
            _ => self.event(first, bytes).map(Some),
        }
    }

    /// Address of a memory item that is about a whole page.
    fn page(&mut self, bytes: &mut &[u8]) -> Result<u64, &'static str> {
        let word = take_delta(bytes, self.context.memory).ok_or("a number is cut off or too large")?;
        self.context.memory = word;
        word.checked_mul(8).filter(|page| page.is_multiple_of(PAGE)).ok_or("a page that is not aligned")
    }

    fn event(&mut self, first: u8, bytes: &mut &[u8]) -> Result<Event, &'static str> {
        const NUMBER: &str = "a number is cut off or too large";
        let pe = match first & tag::SAME_PE {
            0 => take(bytes).filter(|pe| *pe < MAX_PES as u64).ok_or("a PE that there cannot be")? as usize,
            _ => self.context.pe,
        };
        let last_pc = self.context.pcs[pe];
        let pc = match (first & tag::SAME_PC, first & tag::NEXT_PC) {
            (0, 0) => take_delta(bytes, last_pc).ok_or(NUMBER)?,
            (0, _) => last_pc.wrapping_add(4),
            (_, 0) => last_pc,
            _ => return Err("two places for one event"),
        };
        self.context.pe = pe;
        self.context.pcs[pe] = pc;
        let last_pa = &mut self.context.pas[pe];
        let mut place = |bytes: &mut &[u8]| {
            *last_pa = take_delta(bytes, *last_pa)?;
            Some(*last_pa)
        };
        let insn = |bytes: &mut &[u8]| take(bytes).and_then(|insn| u32::try_from(insn).ok()).ok_or("no instruction");
        let what = match first & 0x1f {
            tag::STORE => What::Store { pa: place(bytes).ok_or(NUMBER)?, size: take(bytes).ok_or(NUMBER)? },
            tag::ZERO => What::Zero { pa: place(bytes).ok_or(NUMBER)?, size: take(bytes).ok_or(NUMBER)? },
            tag::LOAD => What::Load { pa: place(bytes).ok_or(NUMBER)?, size: take(bytes).ok_or(NUMBER)? },
            tag::ACCESS => {
                let pa = place(bytes).ok_or(NUMBER)?;
                let va = take_delta(bytes, pa).ok_or(NUMBER)?;
                let kind = match take_byte(bytes)? {
                    0 => AccessKind::Load,
                    1 => AccessKind::Store,
                    2 => AccessKind::Fetch,
                    _ => return Err("no kind of access"),
                };
                What::Access { va, pa, kind, el: take_el(bytes)? }
            }
            tag::TLBI => {
                let (mnemonic, _) = Mnemonic::from_insn(insn(bytes)?).ok_or("no TLBI")?;
                What::Tlbi(mnemonic.decode(take(bytes).ok_or(NUMBER)?))
            }
            tag::UNKNOWN_TLBI => What::UnknownTlbi(insn(bytes)?),
            tag::DSB => What::Dsb(Dsb::from_insn(insn(bytes)?).ok_or("no DSB")?),
            tag::ISB => What::Isb,
            tag::EXCEPTION_ENTRY => What::ExceptionEntry,
            tag::ERET => What::Eret,
            tag::EL => What::El(take_el(bytes)?),
            tag::SYSREG => {
                let register = *Sysreg::ALL.get(usize::from(take_byte(bytes)?)).ok_or("no system register")?;
                What::Sysreg(register, take(bytes).ok_or(NUMBER)?)
            }
            tag::ID => {
                let register = match take_byte(bytes)? {
                    0 => IdRegister::Mmfr0,
                    1 => IdRegister::Mmfr1,
                    2 => IdRegister::Mmfr2,
                    3 => IdRegister::Isar0,
                    _ => return Err("no ID register"),
                };
                What::Id(register, take(bytes).ok_or(NUMBER)?)
            }
            tag::HINT => {
                let code = HintCode::from_insn(insn(bytes)?).ok_or("no hint")?;
                let mut args = [0; 4];
                for arg in &mut args {
                    *arg = take(bytes).ok_or(NUMBER)?;
                }
                What::Hint(code.decode(args).ok_or("no hint")?)
            }
            tag::RESET => What::Reset,
            _ => return Err("no item has this number"),
        };
        Ok(Event { pe, pc, what })
    }
}

impl<R> World for Replay<R> {
    fn load(&self, pa: u64) -> Option<u64> {
        match self.memory.get(&(pa & !(PAGE - 1))) {
            Some(page) => page.as_ref().map(|words| words.get((pa % PAGE / 8) as usize)),
            None => {
                self.unanswered.set(self.unanswered.get() + 1);
                None
            }
        }
    }

    fn stack(&self) -> Vec<u64> {
        self.stack.clone()
    }

    fn text(&self, va: u64, len: u64) -> Option<String> {
        self.texts.iter().find(|text| (text.0, text.1) == (va, len)).and_then(|text| text.2.clone())
    }

    fn watch(&mut self, _page: u64, _on: bool) {}
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, &'static str> {
    let (&byte, rest) = bytes.split_first().ok_or("an item is cut off")?;
    *bytes = rest;
    Ok(byte)
}

fn take_el(bytes: &mut &[u8]) -> Result<u8, &'static str> {
    let el = take_byte(bytes)?;
    if el < 4 { Ok(el) } else { Err("no exception level") }
}

/// Reads until `buffer` is full or there is no more; says how much there was.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
