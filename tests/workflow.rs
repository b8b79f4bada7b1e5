//! The GitHub workflow: what its `Run` step does is done here, with the values that it has for this project's own firmware.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const WORKFLOW: &str = include_str!("../.github/workflows/tlbsan.yml");

/// The lines of the step of this name.
fn step(name: &str) -> Vec<&'static str> {
    let lines = WORKFLOW.lines().skip_while(|line| line.trim() != format!("- name: {name}")).skip(1);
    let step: Vec<&str> = lines.take_while(|line| !line.trim_start().starts_with("- name: ")).collect();
    assert!(!step.is_empty(), "there is no step {name}");
    step
}

/// The script of a step.
fn script(name: &str) -> String {
    let lines = step(name).into_iter().skip_while(|line| line.trim() != "run: |").skip(1);
    lines.map(|line| line.trim_start().to_owned() + "\n").collect()
}

/// What the environment of a step is if nobody gives inputs: what stands in the last pair of quotes.
fn defaults(name: &str) -> BTreeMap<String, String> {
    let lines = step(name).into_iter().skip_while(|line| line.trim() != "env:").skip(1);
    let lines = lines.take_while(|line| line.starts_with("          "));
    lines
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(key, value)| {
            let quoted: Vec<&str> = value.split('\'').collect();
            // `a && 'x' || ''` without inputs: the last that is not empty.
            let value = quoted.iter().skip(1).step_by(2).rfind(|text| !text.is_empty()).copied().unwrap_or_default();
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn the_run_step_leaves_every_report_and_its_exit_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a part of the project");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |dir| root.join(dir));
    let folder = std::env::temp_dir().join(format!("tlbsan-workflow-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for (append, status) in
        [("tlbsan scenario=walk-cache/correct", "0"), ("tlbsan fault=walk-cache/lost-freed-tables", "1")]
    {
        let mut values = defaults("Run");
        assert_eq!(values["OPTIONS"], "");
        values.insert("TLBSAN".to_owned(), "target/release/tlbsan".to_owned());
        values.insert("REPORTS".to_owned(), folder.to_string_lossy().into_owned());
        let qemu = values["QEMU"].replace("-append tlbsan", &format!("-append '{append}'"));
        assert!(qemu.contains(append), "{qemu}");
        values.insert("QEMU".to_owned(), qemu);
        // Paths are relative to the checkout; what is built may be elsewhere here.
        let built = format!("{}/", target.display());
        values.values_mut().for_each(|value| *value = value.replace("target/", &built));
        for output in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
            let file = folder.join(output);
            let _ = std::fs::remove_file(&file);
            values.insert(output.to_owned(), file.to_string_lossy().into_owned());
        }
        let output = Command::new("bash")
            .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script("Run")])
            .envs(&values)
            .current_dir(root)
            .output()
            .expect("bash");
        let console = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{console}");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(read("GITHUB_OUTPUT"), format!("status={status}\n"), "{console}");
        assert!(read("GITHUB_STEP_SUMMARY").starts_with("# tlbsan: "), "{console}");
        let sarif: serde_json::Value = serde_json::from_str(&read("tlbsan.sarif")).expect("JSON");
        let results = sarif["runs"][0]["results"].as_array().expect("results");
        assert_eq!(results.len().to_string(), status);
        for result in results {
            let place = &result["locations"][0]["physicalLocation"];
            let file: PathBuf = root.join(place["artifactLocation"]["uri"].as_str().expect("a file"));
            assert!(file.is_file(), "code scanning shows a file of the repository: {place}");
            assert!(place["region"]["startLine"].as_u64() > Some(0), "{place}");
        }
        for report in ["html", "json", "xml"] {
            assert!(!read(&format!("tlbsan.{report}")).is_empty(), "{report}");
        }
    }
    std::fs::remove_dir_all(&folder).expect("it was ours");
}

#[test]
fn every_action_is_a_public_one_with_its_version() {
    let uses: Vec<&str> = WORKFLOW.lines().filter_map(|line| line.trim().strip_prefix("uses: ")).collect();
    assert!(uses.contains(&"github/codeql-action/upload-sarif@v3"), "{uses:?}");
    for action in uses {
        let known = ["actions/", "github/codeql-action/"].iter().any(|owner| action.starts_with(owner));
        assert!(known && action.contains("@v"), "{action}");
    }
}
