//! Puts libtorch's folder into the binary's rpath, so that `swarm` starts without `LD_LIBRARY_PATH`.
//!
//! `torch-sys` links libtorch, but an rpath set by a dependency does not reach the dependent binary:
//! the crate that owns the binary has to set it.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if std::env::var_os("CARGO_FEATURE_TRAIN").is_none() {
        return;
    }
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let lib = std::path::Path::new(&libtorch).join("lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
