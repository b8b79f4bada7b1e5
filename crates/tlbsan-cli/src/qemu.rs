//! QEMU as a program: is it there, is it new enough, does it take plugins; and starting it so that it cannot outlive us.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::command::{Backend, Refusal};
use crate::outcome::Exit;

/// The oldest QEMU whose plugins can read registers and memory as the plugin needs it.
const OLDEST: (u32, u32) = (9, 1);
/// The plugin's file name.
const PLUGIN: &str = "libtlbsan_qemu.so";

/// Checks that QEMU exists, is new enough and takes plugins.
pub(crate) fn check(qemu: &Path) -> Result<(), Refusal> {
    let shown = qemu.display();
    let version = ask(qemu, "--version")?;
    let found = parse_version(&version).ok_or_else(|| {
        Refusal(format!("{shown} does not say a QEMU version; name qemu-system-aarch64 with `--qemu`"))
    })?;
    if found < OLDEST {
        return Err(Refusal(format!(
            "{shown} is QEMU {}.{}, and tlbsan needs {}.{} or newer; install a newer one (Debian 12: from backports) or name it \
             with `--qemu`",
            found.0, found.1, OLDEST.0, OLDEST.1
        )));
    }
    if !ask(qemu, "--help")?.lines().any(|line| line.starts_with("-plugin ")) {
        return Err(Refusal(format!(
            "{shown} is built without plugins; install a QEMU configured with --enable-plugins or name it with `--qemu`"
        )));
    }
    Ok(())
}

fn ask(qemu: &Path, what: &str) -> Result<String, Refusal> {
    let shown = qemu.display();
    let output = Command::new(qemu).arg(what).stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal(format!("{shown} is not installed; install it (Debian: qemu-system-arm) or name it with `--qemu`"))
        }
        _ => Refusal(format!("cannot run {shown}: {error}; name another with `--qemu`")),
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `QEMU emulator version 10.0.2 (Debian ...)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.split_once("version ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The plugin: the one named, or the one beside this executable.
pub(crate) fn plugin(named: Option<&Path>) -> Result<PathBuf, Refusal> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => {
            let exe = std::env::current_exe()
                .map_err(|error| Refusal(format!("where is tlbsan? {error}; use `--plugin`")))?;
            exe.with_file_name(PLUGIN)
        }
    };
    // QEMU resolves a bare name along the linker's path, not here.
    match path.canonicalize() {
        Ok(path) if path.is_file() => Ok(path),
        _ => Err(Refusal(format!(
            "the plugin {} does not exist; build it with `cargo build --release -p tlbsan-qemu` or name it with `--plugin`",
            path.display()
        ))),
    }
}

/// What guest memory can be made of on this host.
pub(crate) fn backend() -> Backend {
    if memfd_works() {
        return Backend::Memfd;
    }
    Backend::File(std::env::temp_dir().join(format!("tlbsan-ram-{}", std::process::id())))
}

/// The memory of the guest that `qemu` runs, to read; `None` where it is not made yet, or somebody else's.
pub(crate) fn memory(qemu: u32, backend: &Backend) -> Option<File> {
    match backend {
        Backend::File(path) => File::open(path).ok(),
        Backend::Memfd => {
            let descriptors = std::fs::read_dir(format!("/proc/{qemu}/fd")).ok()?;
            let memory = |path: &PathBuf| {
                let link = std::fs::read_link(path).unwrap_or_default();
                link.to_string_lossy().starts_with("/memfd:memory-backend-memfd")
            };
            descriptors.flatten().map(|entry| entry.path()).find(memory).and_then(|path| File::open(path).ok())
        }
    }
}

#[cfg(target_os = "linux")]
fn memfd_works() -> bool {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: the name is a C string; nothing else is asked of the caller.
    let fd = unsafe { libc::memfd_create(c"tlbsan".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor is open, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

#[cfg(not(target_os = "linux"))]
fn memfd_works() -> bool {
    false
}

/// Starts QEMU; `stream` stays open in it and in no other child. Its console is piped.
///
/// To be called on the main thread: QEMU dies with the thread that started it.
pub(crate) fn spawn(qemu: &Path, args: &[OsString], stream: &io::PipeWriter) -> Result<Child, Refusal> {
    let fd = stream.as_raw_fd();
    let mut command = Command::new(qemu);
    command.args(args).stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let inherit = move || {
        // SAFETY: fcntl and prctl are async-signal-safe and take no pointers here; `fd` is open, because the caller borrows it.
        let done = unsafe {
            #[cfg(target_os = "linux")]
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::fcntl(fd, libc::F_SETFD, 0)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes two system calls, and allocates only where one has failed and the child will not run anyway.
    unsafe { command.pre_exec(inherit) };
    command
        .spawn()
        .map_err(|error| Refusal(format!("cannot start {}: {error}; name another with `--qemu`", qemu.display())))
}

/// Asks QEMU to quit: it leaves in good order, and the plugin writes its `end`.
pub(crate) fn terminate(child: &Child) {
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: no memory is involved; the child is not reaped yet, so that the pid is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// How it ended.
pub(crate) fn exit(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some((10, 0)));
        assert!(parse_version("QEMU emulator version 7.2.15").is_some_and(|version| version < OLDEST));
        assert!(parse_version("QEMU emulator version 9.1.0").is_some_and(|version| version >= OLDEST));
        assert_eq!(parse_version("version "), None);
        assert_eq!(parse_version("GNU bash, version 5"), None);
    }
}
