//! Passes the linker script to the bare-metal link, and to no other; and assembles the twins.

use std::fmt::Write;
use std::{env, fs, path::Path};
use twins::assembly::{Needs, program};
use twins::{BASE_TABLES, GROUPS, Group, HEARTBEAT, Twin, World, statements};

fn main() {
    let script = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
        .parent()
        .expect("firmware/ stands in the workspace")
        .join("linker/firmware.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let twins = Generated::new();
    fs::write(Path::new(&out).join("twins.S"), twins.assembly).expect("OUT_DIR can be written");
    fs::write(Path::new(&out).join("twins.rs"), twins.table).expect("OUT_DIR can be written");
}

/// The twins as programs, and the table of them that `src/twins` includes.
struct Generated {
    assembly: String,
    table: String,
    symbols: String,
}

impl Generated {
    fn new() -> Self {
        let mut it = Self {
            assembly: "    .section .text.twins, \"ax\"\n".into(),
            table: String::new(),
            symbols: String::new(),
        };
        let heartbeat =
            [0, 1].map(|n| it.program(format!("twins_heartbeat_{n}"), HEARTBEAT[n], World::El1, 0)).join(", ");
        let mut rows = String::new();
        for (g, group) in GROUPS.iter().enumerate() {
            let setup = format!("{BASE_TABLES}; {}", group.setup);
            let setup = it.program(format!("twins_setup_{g}"), &setup, World::El1, 0);
            for (n, twin) in group.twins.iter().enumerate() {
                let programs = it.twin(&format!("twin_{g}_{n}"), group, twin);
                let _ = writeln!(rows, "    {},", row(group, twin, &setup, &programs));
            }
        }
        let symbols = &it.symbols;
        it.table = format!(
            "unsafe extern \"C\" {{\n{symbols}}}\n\nstatic HEARTBEAT: [Program; 2] = [{heartbeat}];\n\nstatic TWINS: &[Twin] = &[\n{rows}];\n"
        );
        it
    }

    /// Adds a program; returns its symbol.
    fn program(&mut self, symbol: String, sequence: &str, world: World, pe: usize) -> String {
        self.assembly += &program(&symbol, &statements(sequence), world, pe);
        let _ = writeln!(self.symbols, "    fn {symbol}();");
        symbol
    }

    /// The programs of a twin: one for each PE.
    fn twin(&mut self, name: &str, group: &Group, twin: &Twin) -> String {
        let pes = match (twin.only_simulated, group.world) {
            (Some(_), _) => 0,
            (None, world) if world.is_reset() => 1,
            (None, _) => 2,
        };
        let programs: Vec<String> =
            (0..pes).map(|pe| self.program(format!("{name}_pe{pe}"), twin.sequence, group.world, pe)).collect();
        programs.join(", ")
    }
}

fn row(group: &Group, twin: &Twin, setup: &str, programs: &str) -> String {
    let Group { name, world, .. } = group;
    let needs = Needs::of(&twin.statements());
    let expected: String = twin
        .verdicts()
        .iter()
        .map(|v| {
            let (kind, cause) = (format!("{:?}", v.kind), format!("{:?}", v.cause));
            let (start, size, level) = (v.start, v.size, v.level);
            format!(
                "Expected {{ kind: Kind::{kind}, cause: Cause::{cause}, start: {start:#x}, size: {size:#x}, level: {level} }}, "
            )
        })
        .collect();
    format!(
        "Twin {{ name: {:?}, world: World::{world:?}, needs: {needs:?}, setup: {setup}, programs: &[{programs}], \
         expected: &[{expected}], only_simulated: {:?} }}",
        format!("{name}: {}", twin.sequence),
        twin.only_simulated,
    )
}
