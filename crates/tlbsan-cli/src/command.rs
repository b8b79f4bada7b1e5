//! The QEMU command line: the user's arguments, checked for what the checker cannot work with, and the plugin's added.
//!
//! Pure: looks at no file and starts nothing. What it says about QEMU was tried on 10.0.2: `-machine` options merge, of
//! several `-accel` the first wins, and `accel=` in `-machine` excludes `-accel`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use tlbsan::Blind;

use crate::options::{escape, join, number, pairs, size};
use crate::withheld;

/// Where the machine `virt` has its RAM.
pub(crate) const RAM_BASE: u64 = 0x4000_0000;
/// RAM of the machine `virt` without `-m`.
const DEFAULT_RAM: u64 = 128 << 20;
/// The id of the memory backend that QEMU and the plugin share.
const BACKEND: &str = "tlbsan-ram";
/// PEs that the model can tell apart.
const MAX_PES: u64 = 64;

/// Why there can be no run: one sentence that says what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Refusal {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What guest memory is made of, so that the plugin can read it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// An anonymous file of QEMU's.
    Memfd,
    /// A file, for hosts without `memfd_create`.
    File(PathBuf),
}

/// What the command adds to the user's arguments.
#[derive(Clone, Debug)]
pub(crate) struct Setup<'a> {
    /// The plugin.
    pub(crate) plugin: &'a Path,
    /// The descriptor that QEMU inherits for the stream of records.
    pub(crate) fd: i32,
    /// What guest memory is made of.
    pub(crate) backend: Backend,
    /// Whether the plugin acts as if the guest gave no hints.
    pub(crate) ignore_hints: bool,
    /// Whether the plugin makes a record of every violation.
    pub(crate) tell_all: bool,
    /// Whether the plugin keeps account of what invalidations cost.
    pub(crate) cost: bool,
    /// Whether the plugin prints every event.
    pub(crate) trace: bool,
    /// What is withheld from the model.
    pub(crate) blind: Blind,
    /// Where the plugin writes a trace.
    pub(crate) record: Option<&'a Path>,
}

/// What the user's arguments ask for, as far as it concerns the checker.
#[derive(Default)]
struct Wishes {
    machine: Option<String>,
    ram: Option<u64>,
    smp: Vec<(String, u64)>,
    single: bool,
    icount: bool,
    /// The arguments to hand on; those about accelerators are left out and stand in `accel`.
    rest: Vec<OsString>,
    accel: Vec<(String, String)>,
}

/// The arguments for QEMU.
pub(crate) fn build(user: &[OsString], setup: &Setup<'_>) -> Result<Vec<OsString>, Refusal> {
    let wishes = read(user)?;
    match wishes.machine.as_deref() {
        Some(name) if name == "virt" || name.starts_with("virt-") => {}
        Some(name) => {
            return Err(Refusal(format!(
                "the machine `{name}` is not supported so far, because tlbsan must know where its RAM is; use `-M virt`"
            )));
        }
        None => return Err("no machine is given; add `-M virt`, the one that is supported so far".into()),
    }
    let vcpus = vcpus(&wishes.smp);
    if vcpus > MAX_PES {
        return Err(Refusal(format!(
            "{vcpus} vCPUs are more than tlbsan can tell apart; use `-smp {MAX_PES}` or fewer"
        )));
    }
    if vcpus > 1 && (wishes.single || wishes.icount) {
        let what = if wishes.icount { "-icount" } else { "thread=single" };
        return Err(Refusal(format!(
            "with {what} QEMU runs all {vcpus} vCPUs in one thread and tells plugins the wrong one, so that every verdict \
             could name the wrong PE; leave {what} out, or use `-smp 1`"
        )));
    }

    let mut args = wishes.rest;
    let mut accel = wishes.accel;
    if vcpus > 1 && !accel.iter().any(|(key, _)| key == "thread") {
        accel.push(("thread".into(), "multi".into()));
    }
    if !accel.is_empty() {
        accel.retain(|(key, _)| key != "accel");
        accel.insert(0, ("accel".into(), "tcg".into()));
        args.extend(["-accel".into(), join(&accel).into()]);
    }

    // QEMU rounds up likewise, and refuses a backend of another size.
    let ram = wishes.ram.filter(|&size| size != 0).unwrap_or(DEFAULT_RAM).next_multiple_of(8192);
    let object = match &setup.backend {
        Backend::Memfd => OsString::from(format!("memory-backend-memfd,id={BACKEND},size={ram},share=on")),
        Backend::File(path) => {
            let path = utf8(path, "TMPDIR")?;
            format!("memory-backend-file,id={BACKEND},size={ram},share=on,mem-path={}", escape(path)).into()
        }
    };
    args.extend(["-object".into(), object, "-machine".into(), format!("memory-backend={BACKEND}").into()]);

    let path = escape(utf8(setup.plugin, "--plugin")?);
    let mut plugin = format!("file={path},fd={},ram={RAM_BASE:#x}:{ram:#x}", setup.fd);
    if let Backend::File(path) = &setup.backend {
        plugin += &format!(",backend={}", escape(utf8(path, "TMPDIR")?));
    }
    for (option, on) in [
        ("ignore-hints", setup.ignore_hints),
        ("tell-all", setup.tell_all),
        ("cost", setup.cost),
        ("trace", setup.trace),
    ] {
        if on {
            plugin += &format!(",{option}=on");
        }
    }
    plugin += &withheld::plugin_arguments(&setup.blind);
    if let Some(path) = setup.record {
        plugin += &format!(",record={}", escape(utf8(path, "-o")?));
    }
    args.extend(["-plugin".into(), plugin.into()]);
    Ok(args)
}

fn utf8<'a>(path: &'a Path, whence: &str) -> Result<&'a str, Refusal> {
    path.to_str().ok_or_else(|| Refusal(format!("{} is not UTF-8; choose another {whence}", path.display())))
}

/// Goes through the user's arguments once.
fn read(user: &[OsString]) -> Result<Wishes, Refusal> {
    let mut wishes = Wishes::default();
    let mut args = user.iter();
    while let Some(arg) = args.next() {
        let name = arg.to_str().and_then(|arg| arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))).unwrap_or("");
        let takes_value = matches!(
            name,
            "M" | "machine"
                | "m"
                | "smp"
                | "accel"
                | "icount"
                | "numa"
                | "plugin"
                | "object"
                | "mem-path"
                | "append"
                | "readconfig"
                | "device"
        );
        let value = if takes_value { args.next() } else { None };
        let text = value.map(|value| value.to_string_lossy()).unwrap_or_default();
        let mut keep = true;
        match name {
            "M" | "machine" => {
                if let Some(machine) = wishes.machine(&text)? {
                    wishes.rest.extend([arg.clone(), machine.into()]);
                    keep = false;
                }
            }
            "m" => wishes.memory(&text)?,
            "smp" => wishes.topology(&pairs(&text, "cpus"))?,
            "accel" => {
                let accel = pairs(&text, "accel");
                wishes.single |= accel.iter().any(|(key, value)| key == "thread" && value == "single");
                only_tcg(accel.iter().find(|(key, _)| key == "accel").map_or("tcg", |(_, value)| value))?;
                if wishes.accel.is_empty() {
                    wishes.accel = accel;
                }
                keep = false;
            }
            "icount" => wishes.icount = true,
            "enable-kvm" => only_tcg("kvm")?,
            "numa" => return Err("tlbsan needs guest memory in one piece; leave `-numa` out".into()),
            "mem-path" => return Err("tlbsan gives the guest's memory itself; leave `-mem-path` out".into()),
            "daemonize" => return Err("tlbsan waits for QEMU and reads its console; leave `-daemonize` out".into()),
            "readconfig" => {
                return Err(
                    "tlbsan must see machine, memory and vCPUs; write what `-readconfig` would read as arguments"
                        .into(),
                );
            }
            "device" if ["pc-dimm", "nvdimm", "virtio-mem"].iter().any(|memory| text.starts_with(memory)) => {
                return Err(Refusal(format!(
                    "tlbsan needs guest memory in one piece; leave `-device {text}` out and give all of it with `-m`"
                )));
            }
            "plugin" if text.contains("tlbsan_qemu") => {
                return Err(
                    "tlbsan loads its plugin itself; leave your `-plugin` out, `--plugin PATH` chooses another".into(),
                );
            }
            "object" if pairs(&text, "qom-type").iter().any(|(key, id)| key == "id" && id == BACKEND) => {
                return Err(Refusal(format!("the id {BACKEND} is tlbsan's own; give your object another")));
            }
            _ => {}
        }
        if keep {
            wishes.rest.push(arg.clone());
            wishes.rest.extend(value.cloned());
        }
    }
    Ok(wishes)
}

impl Wishes {
    /// Takes the options of one `-machine`; where `accel=` is among them, returns the rest of them.
    fn machine(&mut self, text: &str) -> Result<Option<String>, Refusal> {
        let mut options = pairs(text, "type");
        for (key, value) in &options {
            match key.as_str() {
                "type" => self.machine = Some(value.clone()),
                "accel" => value.split(':').try_for_each(only_tcg)?,
                "memory-backend" => {
                    return Err(
                        "tlbsan gives the guest's memory itself; leave `memory-backend=` out, `-m` says its size"
                            .into(),
                    );
                }
                "memory.size" => self.ram = Some(ram(value, 1)?),
                _ => {
                    if let Some(key) = key.strip_prefix("smp.") {
                        self.topology(&[(key.to_owned(), value.clone())])?;
                    }
                }
            }
        }
        let all = options.len();
        options.retain(|(key, _)| key != "accel");
        Ok((options.len() < all).then(|| join(&options)))
    }

    fn memory(&mut self, text: &str) -> Result<(), Refusal> {
        for (_, value) in pairs(text, "size").iter().filter(|(key, _)| key == "size") {
            self.ram = Some(ram(value, 1 << 20)?);
        }
        Ok(())
    }

    fn topology(&mut self, options: &[(String, String)]) -> Result<(), Refusal> {
        for (key, value) in options {
            let count = number(value).ok_or_else(|| Refusal(format!("`-smp {key}={value}` is no number of vCPUs")))?;
            self.smp.retain(|(other, _)| other != key);
            self.smp.push((key.clone(), count));
        }
        Ok(())
    }
}

fn ram(text: &str, unit: u64) -> Result<u64, Refusal> {
    size(text, unit)
        .filter(|&size| size <= 1 << 48)
        .ok_or_else(|| Refusal(format!("`{text}` is no size of guest memory; write `-m 512M` or `-m 2G`")))
}

fn only_tcg(accel: &str) -> Result<(), Refusal> {
    match accel {
        "tcg" => Ok(()),
        _ => Err(Refusal(format!(
            "with the accelerator `{accel}` the guest runs on the host's CPU, where no plugin sees it; use `-accel tcg`"
        ))),
    }
}

/// How many vCPUs start, by QEMU's rules: `cpus`, else `maxcpus`, else the product of the topology.
fn vcpus(smp: &[(String, u64)]) -> u64 {
    let get = |name: &str| smp.iter().find(|(key, _)| key == name).map(|&(_, count)| count).filter(|&count| count > 0);
    get("cpus")
        .or_else(|| get("maxcpus"))
        .unwrap_or_else(|| smp.iter().map(|&(_, count)| count.max(1)).fold(1, u64::saturating_mul))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
