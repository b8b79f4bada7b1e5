//! `linux-guest PROGRAM`: makes Linux change its page tables in one way, many times, and checks that memory says what it
//! should. Exit status 0: all was as it should be.
//!
//! Freestanding: raw system calls, no library, so that nothing but a bare-metal target is needed to build it.
#![no_std]
#![no_main]

mod programs;
mod sys;

use core::arch::global_asm;
use core::ffi::{CStr, c_char};

// The kernel starts a process with its arguments on the stack: their number, then pointers to them.
global_asm!(".global _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl {start}", start = sym start);

extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel has put argc there, and behind it as many pointers to C strings.
    let name = unsafe {
        let argument = |n: usize| CStr::from_ptr(*stack.add(1 + n) as *const c_char).to_str().unwrap_or("");
        if *stack > 1 { argument(1) } else { "" }
    };
    let Some((_, program)) = programs::ALL.iter().find(|(known, _)| *known == name) else {
        sys::print("usage: linux-guest PROGRAM, one of:");
        for (name, _) in programs::ALL {
            sys::print(" ");
            sys::print(name);
        }
        sys::print("\n");
        sys::exit(2);
    };
    match program() {
        Ok(()) => sys::exit(0),
        Err(what) => {
            for text in ["# ", name, ": ", what, "\n"] {
                sys::print(text);
            }
            sys::exit(1)
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::print("# a program has panicked\n");
    sys::exit(3)
}
