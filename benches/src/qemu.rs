//! What the checker costs: CPU time and memory of QEMU with it and without, one after the other in the same minutes.
//!
//! The firmware and a stock Linux (`script/linux`), the same command line and memory backend for both. CPU time is that of all
//! processes, user and system, since the emulator's threads wait for each other; memory is the largest resident set of QEMU,
//! of which guest RAM is a part on either side.

#[allow(dead_code, reason = "each benchmark uses its part")]
mod report;

use report::{Figure, print, write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// Runs of each kind; the best of them counts, for what is in its way is somebody else's.
const ROUNDS: usize = 3;

/// One run.
#[derive(Clone, Copy)]
struct Usage {
    /// CPU seconds.
    cpu: f64,
    /// MiB.
    memory: f64,
}

fn main() -> ExitCode {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let tlbsan = target.join("release/tlbsan");
    let firmware = target.join("aarch64-unknown-none-softfloat/release/firmware.img");
    let mut workloads = Vec::new();
    if firmware.exists() && tlbsan.exists() {
        let machine = "-M virt,gic-version=3 -cpu cortex-a57 -smp 4 -m 256M -nographic -nic none \
                       -semihosting-config enable=on,target=native";
        let mut arguments: Vec<String> = machine.split_whitespace().map(str::to_owned).collect();
        arguments.extend(["-kernel".into(), firmware.display().to_string(), "-append".into(), "tlbsan".into()]);
        workloads.push(("firmware, 4 vCPUs", 256, 3.0, arguments));
    } else {
        println!("the firmware is not built: `make build` first\n");
    }
    let [kernel, initramfs] = ["linux/kernel", "linux/initramfs"].map(|file| target.join(file));
    if kernel.exists() && initramfs.exists() && tlbsan.exists() {
        let machine = "-M virt -cpu max -smp 4 -m 1G -nographic -nic none -no-reboot";
        let mut arguments: Vec<String> = machine.split_whitespace().map(str::to_owned).collect();
        arguments.extend(["-kernel".into(), kernel.display().to_string()]);
        arguments.extend(["-initrd".into(), initramfs.display().to_string()]);
        arguments.extend(["-append".into(), "console=ttyAMA0 panic=-1 quiet".into()]);
        workloads.push(("Linux, 4 vCPUs", 1024, 2.5, arguments));
    } else {
        println!("Linux is not there: `make linux` fetches it\n");
    }

    let mut figures = Vec::new();
    let mut rows = Vec::new();
    for (name, ram, target, arguments) in workloads {
        let Some((plain, checked)) = compare(&tlbsan, ram, &arguments) else {
            println!("{name}: a run failed");
            return ExitCode::FAILURE;
        };
        let ratio = checked.cpu / plain.cpu;
        let (memory, allowed) = (checked.memory - plain.memory, f64::from(ram) * 0.05 + 64.0);
        figures.push(Figure::new(name, "QEMU", plain.cpu, "CPU seconds"));
        figures.push(Figure::new(name, "QEMU with tlbsan", checked.cpu, "CPU seconds").against(plain.cpu));
        figures.push(Figure::new(name, "ratio", ratio, "").at_most(target));
        figures.push(Figure::new(name, "the checker's memory", memory, "MiB").at_most(allowed));
        let met = |met| if met { "met" } else { "missed" };
        rows.push(vec![
            name.to_owned(),
            format!("{:.1}", plain.cpu),
            format!("{:.1}", checked.cpu),
            format!("{ratio:.2}"),
            format!("<= {target:.1}: {}", met(ratio <= target)),
            format!("{memory:.0}"),
            format!("<= {allowed:.0}: {}", met(memory <= allowed)),
        ]);
    }
    let head = ["workload", "QEMU, CPU s", "with tlbsan", "ratio", "target", "memory, MiB", "target"];
    print("What the checker costs", &head, &rows);
    match write("qemu", &figures) {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("the figures could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Both kinds in turn; the best of each.
fn compare(tlbsan: &Path, ram: u32, arguments: &[String]) -> Option<(Usage, Usage)> {
    let mut best: [Option<Usage>; 2] = [None; 2];
    for _ in 0..ROUNDS {
        let mut plain = Command::new("qemu-system-aarch64");
        plain.args(arguments).args(["-accel", "tcg,thread=multi", "-machine", "memory-backend=ram", "-object"]);
        plain.arg(format!("memory-backend-memfd,id=ram,size={ram}M,share=on"));
        let mut checked = Command::new(tlbsan);
        checked.args(["run", "--quiet", "--"]).args(arguments);
        for (best, command) in best.iter_mut().zip([plain, checked]) {
            let now = run(command)?;
            *best = Some(
                best.map_or(now, |best| Usage { cpu: best.cpu.min(now.cpu), memory: best.memory.max(now.memory) }),
            );
        }
    }
    Some((best[0]?, best[1]?))
}

/// What one run has used, of all its processes.
fn run(mut command: Command) -> Option<Usage> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let pid = libc::pid_t::try_from(child.id()).ok()?;
    let mut status = 0;
    // SAFETY: a rusage of zeros is one, and both pointers are to our own variables; nobody else waits for the child.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, 0, &raw mut usage), usage)
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let ended = waited == pid && ExitStatus::from_raw(status).code().is_some_and(|code| code == 0);
    ended.then_some(Usage {
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        memory: usage.ru_maxrss as f64 / 1024.0,
    })
}
