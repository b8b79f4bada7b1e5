//! Linux' system calls, as many of them as the programs use, on a 64-bit Arm kernel. Errors are negative numbers.

use core::arch::{asm, global_asm};

/// Protection and flags of mappings, advice: the numbers are Linux'.
pub(crate) mod mm {
    pub(crate) const NONE: usize = 0;
    pub(crate) const READ: usize = 1;
    pub(crate) const WRITE: usize = 2;
    pub(crate) const SHARED: usize = 1;
    pub(crate) const PRIVATE: usize = 2;
    pub(crate) const FIXED: usize = 0x10;
    pub(crate) const ANONYMOUS: usize = 0x20;
    pub(crate) const HUGETLB: usize = 0x4_0000;
    pub(crate) const HUGE_SHIFT: usize = 26;
    pub(crate) const REMAP_MAYMOVE: usize = 1;
    pub(crate) const REMAP_FIXED: usize = 2;
    pub(crate) const DONTNEED: usize = 4;
    pub(crate) const FREE: usize = 8;
    pub(crate) const MERGEABLE: usize = 12;
    pub(crate) const HUGEPAGE: usize = 14;
    pub(crate) const NOHUGEPAGE: usize = 15;
    pub(crate) const COLD: usize = 20;
    pub(crate) const PAGEOUT: usize = 21;
}

const OPENAT: usize = 56;
const CLOSE: usize = 57;
const WRITE: usize = 64;
const EXIT: usize = 93;
const EXIT_GROUP: usize = 94;
const FTRUNCATE: usize = 46;
const NANOSLEEP: usize = 101;
const SCHED_YIELD: usize = 124;
const MUNMAP: usize = 215;
const MREMAP: usize = 216;
const CLONE: usize = 220;
const EXECVE: usize = 221;
const MMAP: usize = 222;
const MPROTECT: usize = 226;
const MADVISE: usize = 233;
const WAIT4: usize = 260;
const MEMFD_CREATE: usize = 279;

fn call(number: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: a system call changes no registers but X0; what it does to memory is the affair of the wrappers, which pass
    // memory that is theirs.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") args[0] => result, in("x1") args[1], in("x2") args[2],
             in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
    }
    result
}

pub(crate) fn print(text: &str) {
    call(WRITE, [1, text.as_ptr() as usize, text.len(), 0, 0, 0]);
}

/// Ends the process.
pub(crate) fn exit(status: usize) -> ! {
    loop {
        call(EXIT_GROUP, [status, 0, 0, 0, 0, 0]);
    }
}

pub(crate) fn mmap(address: usize, size: usize, protection: usize, flags: usize, file: isize) -> Result<usize, isize> {
    let result = call(MMAP, [address, size, protection, flags, file as usize, 0]);
    if (-4095..0).contains(&result) { Err(result) } else { Ok(result as usize) }
}

pub(crate) fn munmap(address: usize, size: usize) -> isize {
    call(MUNMAP, [address, size, 0, 0, 0, 0])
}

pub(crate) fn mremap(address: usize, old: usize, new: usize, flags: usize, to: usize) -> isize {
    call(MREMAP, [address, old, new, flags, to, 0])
}

pub(crate) fn mprotect(address: usize, size: usize, protection: usize) -> isize {
    call(MPROTECT, [address, size, protection, 0, 0, 0])
}

pub(crate) fn madvise(address: usize, size: usize, advice: usize) -> isize {
    call(MADVISE, [address, size, advice, 0, 0, 0])
}

/// A file in memory.
pub(crate) fn memfd(size: usize) -> isize {
    let file = call(MEMFD_CREATE, [c"guest".as_ptr() as usize, 0, 0, 0, 0, 0]);
    truncate(file, size);
    file
}

pub(crate) fn truncate(file: isize, size: usize) -> isize {
    call(FTRUNCATE, [file as usize, size, 0, 0, 0, 0])
}

/// Writes a word to a file of the kernel's. Says whether it was there and took it.
pub(crate) fn tell(path: &core::ffi::CStr, word: &str) -> bool {
    const AT_FDCWD: usize = -100_isize as usize;
    const WRONLY: usize = 1;
    let file = call(OPENAT, [AT_FDCWD, path.as_ptr() as usize, WRONLY, 0, 0, 0]);
    if file < 0 {
        return false;
    }
    let written = call(WRITE, [file as usize, word.as_ptr() as usize, word.len(), 0, 0, 0]);
    call(CLOSE, [file as usize, 0, 0, 0, 0, 0]);
    written == word.len() as isize
}

/// 0 in the child.
pub(crate) fn fork() -> isize {
    const SIGCHLD: usize = 17;
    call(CLONE, [SIGCHLD, 0, 0, 0, 0, 0])
}

/// Waits for any child; whether it ended with status 0.
pub(crate) fn wait() -> bool {
    let mut status = 0_u32;
    let child = call(WAIT4, [usize::MAX, &raw mut status as usize, 0, 0, 0, 0]);
    child > 0 && status == 0
}

/// Becomes another program, and comes back only if that fails.
pub(crate) fn execute(program: &core::ffi::CStr, argument: &core::ffi::CStr) {
    let arguments = [program.as_ptr(), argument.as_ptr(), core::ptr::null()];
    let environment = [core::ptr::null::<u8>()];
    call(EXECVE, [program.as_ptr() as usize, arguments.as_ptr() as usize, environment.as_ptr() as usize, 0, 0, 0]);
}

pub(crate) fn yield_now() {
    call(SCHED_YIELD, [0; 6]);
}

pub(crate) fn sleep(milliseconds: usize) {
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    call(NANOSLEEP, [time.as_ptr() as usize, 0, 0, 0, 0, 0]);
}

unsafe extern "C" {
    /// `clone` with these flags; the child runs `entry(argument)` on `stack` and ends.
    fn guest_spawn(flags: usize, stack: usize, entry: extern "C" fn(usize), argument: usize) -> isize;
}

global_asm!(
    ".global guest_spawn",
    "guest_spawn:",
    "mov x9, x2",
    "mov x10, x3",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x8, {clone}",
    "svc #0",
    "cbz x0, 1f",
    "ret",
    "1: mov x29, #0",
    "mov x30, #0",
    "mov x0, x10",
    "blr x9",
    "mov x0, #0",
    "mov x8, {exit}",
    "svc #0",
    clone = const CLONE,
    exit = const EXIT,
);

/// Starts a thread; whether it runs.
pub(crate) fn spawn(entry: extern "C" fn(usize), argument: usize) -> bool {
    /// CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM.
    const FLAGS: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
    const STACK: usize = 64 << 10;
    let Ok(stack) = mmap(0, STACK, mm::READ | mm::WRITE, mm::PRIVATE | mm::ANONYMOUS, -1) else { return false };
    // SAFETY: the stack is the thread's alone, and is never unmapped.
    unsafe { guest_spawn(FLAGS, stack + STACK, entry, argument) > 0 }
}
