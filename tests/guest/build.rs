//! A static program at a fixed address: no dynamic linker, and pages of up to 64 KiB.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        for argument in ["-static", "--image-base=0x400000", "-zmax-page-size=65536", "-znorelro"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
