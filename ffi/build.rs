//! What the linker is told of the shared library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux" | "android" | "freebsd") => {
            // The number goes up with CEIBA_ABI_VERSION's breaks, not with the version of the package.
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libceiba.so.0");
            // Its threads run its code until the process ends: it cannot be unloaded.
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        Ok("macos") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libceiba.0.dylib");
        }
        _ => {}
    }
}
