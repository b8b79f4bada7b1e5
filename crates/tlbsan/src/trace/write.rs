//! Writing a trace while the model runs.

use super::codec::{put, put_delta};
use super::{Context, FULL_BLOCK, MAGIC, MAX_STACK, MAX_STACKS, MAX_TEXT, PAGE, VERSION, WORDS, tag};
use crate::event::{AccessKind, Event, IdRegister, Sysreg, What, World};
use crate::machine::MAX_PES;
use crate::model::{Config, Model};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write};

/// Stands between a source of events and the model, and writes down what passes.
#[derive(Debug)]
pub struct Recorder<W> {
    out: W,
    block: Vec<u8>,
    context: Context,
    /// Memory as the trace has it so far; `None`: a page that is not there.
    memory: HashMap<u64, Option<Box<[u64; WORDS]>>>,
    stacks: HashMap<Vec<u64>, u64>,
    events: u64,
}

/// What the model has asked while it handled one event.
#[derive(Debug, Default)]
struct Asked {
    words: Vec<(u64, Option<u64>)>,
    stack: Option<Vec<u64>>,
    texts: Vec<(u64, u64, Option<String>)>,
}

/// The source's world, with everything asked of it noted. The same question in one event gets the same answer.
struct Asking<'a, S> {
    source: &'a mut S,
    asked: RefCell<Asked>,
}

impl<S: World> World for Asking<'_, S> {
    fn load(&self, pa: u64) -> Option<u64> {
        let value = self.source.load(pa);
        self.asked.borrow_mut().words.push((pa, value));
        value
    }

    fn stack(&self) -> Vec<u64> {
        let mut asked = self.asked.borrow_mut();
        let stack = asked.stack.get_or_insert_with(|| {
            let mut stack = self.source.stack();
            stack.truncate(MAX_STACK);
            stack
        });
        stack.clone()
    }

    fn text(&self, va: u64, len: u64) -> Option<String> {
        let text = self.source.text(va, len).filter(|text| text.len() <= MAX_TEXT);
        self.asked.borrow_mut().texts.push((va, len, text.clone()));
        text
    }

    fn watch(&mut self, page: u64, on: bool) {
        self.source.watch(page, on);
    }
}

impl<W: Write> Recorder<W> {
    /// A trace into `out` of a model with this configuration, which the trace repeats.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(mut out: W, config: &Config) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        let settings = [config.ignore_hints, config.tell_all, config.cost];
        let settings = settings.iter().rev().fold(0, |bits, set| bits << 1 | u8::from(*set));
        header.extend([settings, 0]);
        header.extend(crc32fast::hash(&header).to_le_bytes());
        out.write_all(&header)?;
        Ok(Self {
            out,
            block: Vec::with_capacity(FULL_BLOCK * 2),
            context: Context::default(),
            memory: HashMap::new(),
            stacks: HashMap::new(),
            events: 0,
        })
    }

    /// Hands the event to the model and writes it down, with what the model asked.
    ///
    /// # Errors
    /// What the output says; the model has handled the event all the same.
    pub fn event<S: World>(&mut self, model: &mut Model, source: &mut S, event: &Event) -> io::Result<()> {
        let mut asking = Asking { source, asked: RefCell::new(Asked::default()) };
        model.event(&mut asking, event);
        let asked = asking.asked.into_inner();
        // What was stored is worth knowing even if this model did not ask.
        if let What::Store { pa, size } | What::Zero { pa, size } | What::Load { pa, size } = event.what {
            let last = pa.saturating_add(size.clamp(1, PAGE) - 1) & !7;
            for slot in (pa & !7..=last).step_by(8) {
                if self.memory.contains_key(&(slot & !(PAGE - 1))) {
                    self.word(source, slot, source.load(slot));
                    self.flush_full_block()?;
                }
            }
        }
        for (pa, value) in &asked.words {
            self.word(source, *pa, *value);
            self.flush_full_block()?;
        }
        if let Some(stack) = asked.stack {
            self.stack(stack);
        }
        for (va, len, text) in asked.texts {
            self.block.push(if text.is_some() { tag::TEXT } else { tag::NO_TEXT });
            put(&mut self.block, va);
            put(&mut self.block, len);
            if let Some(text) = text {
                put(&mut self.block, text.len() as u64);
                self.block.extend_from_slice(text.as_bytes());
            }
        }
        self.put_event(event);
        self.events += 1;
        self.flush_full_block()
    }

    /// The trace is complete. Without this it counts as truncated.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<W> {
        self.block.push(tag::END);
        put(&mut self.block, self.events);
        self.flush_block()?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Between two items: an item has a few KiB at most, so that no block becomes too large.
    fn flush_full_block(&mut self) -> io::Result<()> {
        if self.block.len() >= FULL_BLOCK { self.flush_block() } else { Ok(()) }
    }

    fn flush_block(&mut self) -> io::Result<()> {
        self.out.write_all(&(self.block.len() as u32).to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&self.block).to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// `pa` reads `value`: written if the trace does not say so already.
    fn word<S: World>(&mut self, source: &S, pa: u64, value: Option<u64>) {
        let (page, index) = (pa & !(PAGE - 1), (pa % PAGE / 8) as usize);
        if let Some(known) = self.memory.get_mut(&page) {
            match (known, value) {
                (Some(words), Some(value)) if words[index] != value => {
                    words[index] = value;
                    self.block.push(tag::WORD);
                    put_delta(&mut self.block, pa >> 3, self.context.memory);
                    put(&mut self.block, value);
                    self.context.memory = pa >> 3;
                }
                _ => {}
            }
            return;
        }
        let mut words = Box::new([0; WORDS]);
        let mut there = value.is_some();
        for (word, pa) in words.iter_mut().zip((page..).step_by(8)) {
            let read = source.load(pa);
            there &= read.is_some();
            *word = read.unwrap_or(0);
        }
        words[index] = value.unwrap_or(0);
        self.block.push(if there { tag::PAGE } else { tag::HOLE });
        put_delta(&mut self.block, page >> 3, self.context.memory);
        self.context.memory = page >> 3;
        if there {
            put(&mut self.block, words.iter().filter(|word| **word != 0).count() as u64);
            let mut next = 0;
            for (index, word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
                put(&mut self.block, (index - next) as u64);
                put(&mut self.block, *word);
                next = index + 1;
            }
        }
        self.memory.insert(page, there.then_some(words));
    }

    fn stack(&mut self, stack: Vec<u64>) {
        if let Some(number) = self.stacks.get(&stack) {
            self.block.push(tag::STACK_AGAIN);
            put(&mut self.block, *number);
            return;
        }
        self.block.push(tag::STACK);
        put(&mut self.block, stack.len() as u64);
        let mut last = 0;
        for address in &stack {
            put_delta(&mut self.block, *address, last);
            last = *address;
        }
        if self.stacks.len() < MAX_STACKS {
            self.stacks.insert(stack, self.stacks.len() as u64);
        }
    }

    fn put_event(&mut self, event: &Event) {
        let pe = event.pe.min(MAX_PES - 1);
        let last_pc = self.context.pcs[pe];
        let mut flags = if event.pe == self.context.pe { tag::SAME_PE } else { 0 };
        flags |= match event.pc.wrapping_sub(last_pc) {
            0 => tag::SAME_PC,
            4 => tag::NEXT_PC,
            _ => 0,
        };
        let out = &mut self.block;
        let at = out.len();
        out.push(flags);
        if flags & tag::SAME_PE == 0 {
            put(out, event.pe as u64);
        }
        if flags & (tag::SAME_PC | tag::NEXT_PC) == 0 {
            put_delta(out, event.pc, last_pc);
        }
        self.context.pe = event.pe;
        self.context.pcs[pe] = event.pc;
        let last_pa = &mut self.context.pas[pe];
        let mut place = |out: &mut Vec<u8>, pa: u64| {
            put_delta(out, pa, *last_pa);
            *last_pa = pa;
        };
        let tag = match event.what {
            What::Store { pa, size } | What::Zero { pa, size } | What::Load { pa, size } => {
                place(out, pa);
                put(out, size);
                match event.what {
                    What::Store { .. } => tag::STORE,
                    What::Zero { .. } => tag::ZERO,
                    _ => tag::LOAD,
                }
            }
            What::Access { va, pa, kind, el } => {
                place(out, pa);
                put_delta(out, va, pa);
                let kind = match kind {
                    AccessKind::Load => 0,
                    AccessKind::Store => 1,
                    AccessKind::Fetch => 2,
                };
                out.extend([kind, el]);
                tag::ACCESS
            }
            What::Tlbi(op) => {
                put(out, u64::from(op.mnemonic().insn(0)));
                put(out, op.operand());
                tag::TLBI
            }
            What::UnknownTlbi(insn) => {
                put(out, u64::from(insn));
                tag::UNKNOWN_TLBI
            }
            What::Dsb(dsb) => {
                put(out, u64::from(dsb.insn()));
                tag::DSB
            }
            What::Isb => tag::ISB,
            What::ExceptionEntry => tag::EXCEPTION_ENTRY,
            What::Eret => tag::ERET,
            What::El(el) => {
                out.push(el);
                tag::EL
            }
            What::Sysreg(register, value) => {
                let number = Sysreg::ALL.iter().position(|it| *it == register).unwrap_or(usize::from(u8::MAX));
                out.push(number as u8);
                put(out, value);
                tag::SYSREG
            }
            What::Id(register, value) => {
                out.push(match register {
                    IdRegister::Mmfr0 => 0,
                    IdRegister::Mmfr1 => 1,
                    IdRegister::Mmfr2 => 2,
                    IdRegister::Isar0 => 3,
                });
                put(out, value);
                tag::ID
            }
            What::Hint(hint) => {
                let (insn, args) = hint.insn();
                put(out, u64::from(insn));
                args.iter().for_each(|arg| put(out, *arg));
                tag::HINT
            }
            What::Reset => tag::RESET,
        };
        out[at] |= tag;
    }
}
