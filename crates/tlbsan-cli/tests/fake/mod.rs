//! A script in QEMU's place that prints a console and writes a stream.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) const START: &str = r#"{"record":"start","version":3}"#;
pub(crate) const END: &str = r#"{"record":"end","events":100,"tlbis":51,"opened":12,"cleaned":12,"violations":0,"repeats":0,"unexpected":0,"accesses":0,"mismatched":0,"remarks":0,"passed":1,"failed":0}"#;
pub(crate) const SILENT: &str =
    r#"{"record":"case","id":1,"opened":6,"cleaned":6,"expected":[],"seen":[],"passed":true}"#;

/// A violation in `case`, `null` for none.
pub(crate) fn violation(case: &str) -> String {
    let site = r#"{"pe":1,"pc":1073745920,"stack":[1073750016]}"#;
    format!(
        r#"{{"record":"violation","case":{case},"kind":"remade","cause":"leaf-only","start":1073741824,"size":2097152,"level":2,"table":true,"asids":[5],"pes":[2],"slot":1074364416,"old":{{"bits":1074790403,"text":"table at 0x4010_0000"}},"new":{{"bits":1074855939,"text":"table at 0x4011_0000"}},"removed":{site},"trigger":{{"pe":0,"pc":1073745924,"stack":[]}},"attempts":[{{"site":{site},"op":"tlbi vale1is, 0x40000000 asid 5","why":"it removes leaf entries only","cause":"leaf-only"}}],"more_attempts":0,"times":1}}"#
    )
}

/// A folder of its own for one test, with a QEMU in it that does what `body` says, its stream being descriptor 3.
pub(crate) struct Fake {
    pub(crate) folder: PathBuf,
}

impl Fake {
    pub(crate) fn new(name: &str, body: &str) -> Self {
        Self::of(name, "QEMU emulator version 10.0.2 (fake)", "-plugin [file=]<file>", body)
    }

    pub(crate) fn of(name: &str, version: &str, help: &str, body: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("plugin.so"), "").expect("a plugin");
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in --version) echo '{version}'; exit;; --help) echo '{help}'; exit;; esac\n\
             echo \"$@\" >\"$(dirname \"$0\")/args\"\n\
             fd=$(echo \"$@\" | sed 's/.*,fd=\\([0-9]*\\),.*/\\1/')\n\
             exec 3>/proc/self/fd/$fd\n\
             # Only 3 stays open: whoever is killed must leave no writer behind.\n\
             r() {{ echo \"$1\" >&3; }}\n{body}\n"
        );
        let qemu = folder.join("qemu");
        // Never open for writing in this process: a fork of another test would inherit that, and exec would say ETXTBSY.
        let mut writer =
            Command::new("sh").args(["-c", "cat >\"$0\""]).arg(&qemu).stdin(Stdio::piped()).spawn().expect("a shell");
        std::io::Write::write_all(&mut writer.stdin.take().expect("piped"), script.as_bytes()).expect("written");
        writer.wait().expect("written");
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).expect("executable");
        Self { folder }
    }

    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tlbsan"));
        command.arg("run").arg("--qemu").arg(self.folder.join("qemu"));
        command.arg("--plugin").arg(self.folder.join("plugin.so"));
        command.args(options).args(["--", "-M", "virt", "-smp", "2", "-nographic"]).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, options: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(options).output().expect("tlbsan starts");
        Ran {
            code: status.code(),
            out: String::from_utf8_lossy(&stdout).into(),
            err: String::from_utf8_lossy(&stderr).into(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn is(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "{word:?} is missing: {self:#?}");
        }
    }
}
