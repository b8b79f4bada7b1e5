//! `libtlbsan_qemu.so`: the QEMU plugin that shows the model of `tlbsan` what an aarch64 guest does.
//!
//! It turns QEMU's events into the model's and streams the model's records. It knows QEMU and nothing about rules. Because
//! it is made from QEMU's plugin interface, this crate alone is GPL-2.0-or-later.
//!
//! `-plugin file=libtlbsan_qemu.so,fd=3,ram=0x40000000:0x10000000[,backend=PATH][,ignore-hints=on][,trace=on]`
//!
//! | module     | what                                                                |
//! |------------|---------------------------------------------------------------------|
//! | `bindings` | QEMU's functions, found at run time, and what differs by version    |
//! | `args`     | the arguments above                                                 |
//! | `insn`     | which instructions are of interest                                  |
//! | `memory`   | guest RAM through the mapping that QEMU itself has                   |
//! | `watch`    | which pages are of interest, and the cache that makes others cheap  |
//! | `walk`     | virtual to physical, for what QEMU does not translate for plugins   |
//! | `vcpu`     | registers and other state of one vCPU                               |
//! | `checker`  | the model behind its lock, and the stream of records                |
//! | `plugin`   | the callbacks                                                       |

mod args;
mod bindings;
mod checker;
mod insn;
mod memory;
mod plugin;
mod vcpu;
mod walk;
mod watch;
