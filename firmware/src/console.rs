//! `print!` and `println!` on the board's UART, from any core, in any state.
//!
//! Lines of different cores do not mix: one lock a call. Who fails must get a word out even if its own core holds that lock, so
//! [`emergency`] waits a bounded time for it and then writes regardless. Before the UART is known, output goes to the debugger by
//! semihosting, if there is one.

use core::fmt::{self, Write};

use arm_pl011_uart::{PL011Registers, Uart, UniqueMmioPointer};

use crate::{
    exit,
    mmu::device_to_virt,
    sync::{Lock, wait_at_most, yield_now},
};

/// The UART once it is mapped.
static CONSOLE: Lock<Option<Console>> = Lock::new(None);

/// How long a failing core waits for the lock.
const PATIENCE_MS: u64 = 200;

struct Console {
    uart: Uart<'static>,
    registers: *mut PL011Registers,
}

// SAFETY: device registers belong to no core; the lock makes the accesses exclusive.
unsafe impl Send for Console {}

impl Console {
    /// # Safety
    /// `registers` are those of a PL011, mapped as Device memory for good, and every other user of them is silent while this one
    /// writes: the lock's holder, or a core that gives up waiting for it and is about to stop the machine.
    unsafe fn new(registers: *mut PL011Registers) -> Option<Self> {
        let pointer = core::ptr::NonNull::new(registers)?;
        // SAFETY: the caller's promise.
        let uart = Uart::new(unsafe { UniqueMmioPointer::new(pointer) });
        Some(Self { uart, registers })
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while self.uart.is_tx_fifo_full() {
                yield_now();
            }
            self.uart.write_word(byte);
        }
        Ok(())
    }
}

/// Starts using the PL011 at physical address `pa`, which [`crate::mmu::map_device`] has mapped. The loader left it enabled.
///
/// # Safety
/// There is a PL011 at `pa`, and nobody else uses it.
pub unsafe fn init(pa: u64) {
    // SAFETY: the caller's promise, and the device window is never unmapped.
    *CONSOLE.lock() = unsafe { Console::new(device_to_virt(pa)) };
}

/// Characters by semihosting, where there is no UART yet.
struct Debugger;

impl Write for Debugger {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().take_while(|_| exit::semihosting_present()) {
            semihosting::sys::arm_compat::sys_writec(byte);
        }
        Ok(())
    }
}

/// Prints. Not in an interrupt handler: there it is [`emergency`].
pub fn print(arguments: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    // Neither writer ever fails.
    let _ = match console.as_mut() {
        Some(console) => console.write_fmt(arguments),
        None => Debugger.write_fmt(arguments),
    };
}

/// Prints although the lock may never be free again: waits a bounded time, then writes anyway. For the last words of the machine.
pub fn emergency(arguments: fmt::Arguments<'_>) {
    let mut guard = None;
    wait_at_most(PATIENCE_MS, || {
        guard = CONSOLE.try_lock();
        guard.is_some()
    });
    let _ = match guard.as_mut().map(|console| console.as_mut()) {
        Some(Some(console)) => console.write_fmt(arguments),
        Some(None) => Debugger.write_fmt(arguments),
        None => {
            // SAFETY: the lock's holder is this core itself, or one that stopped inside; at worst two lines mix. The option is
            // written once, before there is a second core.
            let registers = unsafe { (*CONSOLE.as_mut_ptr()).as_ref().map(|console| console.registers) };
            // SAFETY: the same registers, and the machine is about to stop.
            match registers.and_then(|registers| unsafe { Console::new(registers) }) {
                Some(mut console) => console.write_fmt(arguments),
                None => Debugger.write_fmt(arguments),
            }
        }
    };
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($argument)*))) };
}

/// Prints a line even if the console's lock is held by this very core: for panics and interrupt handlers.
#[macro_export]
macro_rules! emergency_println {
    ($($argument:tt)*) => { $crate::console::emergency(format_args!("{}\n", format_args!($($argument)*))) };
}
