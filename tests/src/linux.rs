//! Runs a stock Linux, as `script/linux` provides it, under the checker.

use crate::{Outcome, artifact};
use std::path::PathBuf;
use std::process::Command;

/// Seconds after which the host cuts a run: several times what one takes on a slow machine.
const LIMIT: &str = "900";

/// The machine that Linux is started on.
#[derive(Clone, Debug)]
pub struct Linux {
    /// QEMU's name of the CPU.
    pub cpu: &'static str,
    /// Cores.
    pub cores: usize,
    /// Added to `-M virt`.
    pub machine: &'static str,
    /// Added to the kernel's command line.
    pub append: &'static str,
    /// Arguments for tlbsan.
    pub tlbsan: Vec<String>,
    /// Where a trace is recorded.
    pub trace: Option<PathBuf>,
    /// Whether the machine begins anew when Linux asks for it; otherwise that ends the run.
    pub reboots: bool,
}

impl Linux {
    /// A machine with 1 GiB.
    pub fn new(cpu: &'static str, cores: usize) -> Self {
        Self { cpu, cores, machine: "", append: "", tlbsan: Vec::new(), trace: None, reboots: false }
    }

    /// QEMU's arguments.
    pub fn qemu_arguments(&self) -> Vec<String> {
        let [kernel, initramfs] =
            ["linux/kernel", "linux/initramfs"].map(|file| artifact(file, "script/linux").display().to_string());
        let append = format!("console=ttyAMA0 panic=-1 quiet {}", self.append);
        let (machine, cores) = (format!("virt{}", self.machine), self.cores.to_string());
        let arguments = ["-M", &machine, "-cpu", self.cpu, "-smp", &cores, "-m", "1G", "-nographic"];
        let rest = ["-nic", "none", "-kernel", &kernel, "-initrd", &initramfs, "-append", &append];
        let end = if self.reboots { None } else { Some("-no-reboot") };
        arguments.into_iter().chain(rest).chain(end).map(str::to_owned).collect()
    }

    /// Runs it under the checker, from boot to power-off.
    pub fn run(&self) -> Outcome {
        let json = std::env::temp_dir().join(format!("tlbsan-linux-{}.json", std::process::id()));
        let mut command = Command::new(artifact("release/tlbsan", "make build"));
        match &self.trace {
            Some(trace) => command.arg("record").arg("-o").arg(trace),
            None => command.arg("run"),
        };
        // Of several limits the last counts.
        command.args(["--timeout", LIMIT, "--json"]).arg(&json).args(&self.tlbsan);
        let outcome = Outcome::of(command.arg("--").args(self.qemu_arguments()), &json);
        let _ = std::fs::remove_file(&json);
        outcome
    }
}
