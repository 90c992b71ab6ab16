//! Puts libtorch's folder into the binary's rpath, so that `swarm` starts without `LD_LIBRARY_PATH`: `lib` beside the
//! binary's own folder, where `scripts/package.sh` puts it, and before that the one that it is built with.
//!
//! `torch-sys` links libtorch, but an rpath set by a dependency does not reach the dependent binary:
//! the crate that owns the binary has to set it.

use std::env::{var, var_os};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=SWARM_PACKAGE");
    if var_os("CARGO_FEATURE_TRAIN").is_none() {
        return;
    }
    // What is made for other machines must not look for libraries in a folder that only this one has.
    if let Some(libtorch) = var_os("LIBTORCH").filter(|_| var_os("SWARM_PACKAGE").is_none()) {
        let lib = std::path::Path::new(&libtorch).join("lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    match var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib"),
        Ok("macos") => println!("cargo:rustc-link-arg=-Wl,-rpath,@loader_path/../lib"),
        _ => {}
    }
}
