//! Tells the sources that they run under loom, without a flag that would build every other crate anew.

fn main() {
    println!("cargo:rustc-cfg=ceiba_loom");
}
