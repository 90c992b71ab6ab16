//! The fuzz targets without a fuzzer: every input in `fuzz/corpus`, and each damaged in a hundred ways that a seed
//! decides, goes through the very functions that the fuzzer calls. What ever crashed one is among them.

// A panic is how a test fails, and so it is in the functions that are shared with the fuzzer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::fs;
use std::path::Path;

#[path = "../fuzz/checks/decoders.rs"]
mod decoders;
#[path = "../fuzz/checks/packing.rs"]
mod packing;
#[path = "../fuzz/checks/peer.rs"]
mod peer;
#[path = "../fuzz/checks/wire.rs"]
mod wire;

/// Ways in which each input is damaged.
const DAMAGES: u64 = 100;

/// Runs `check` on the inputs of the target `name` and on what damage makes of them.
fn every_input(name: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{} has too few inputs", folder.display());
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % bound.max(1)
    };
    for file in files {
        let input = fs::read(&file).unwrap();
        check(&input);
        for _ in 0..DAMAGES {
            let mut damaged = input.clone();
            for _ in 0..=below(4) {
                let at = below(damaged.len());
                match below(4) {
                    0 => damaged.truncate(at),
                    1 => damaged.insert(at, below(256) as u8),
                    2 if !damaged.is_empty() => drop(damaged.remove(at)),
                    _ => damaged.iter_mut().skip(at).take(1).for_each(|byte| *byte = below(256) as u8),
                }
            }
            check(&damaged);
        }
    }
}

#[test]
fn bodies_are_refused_or_canonical() {
    every_input("packing", packing::run);
}

#[test]
fn messages_are_refused_or_what_would_have_been_written() {
    every_input("wire", wire::run);
}

#[test]
fn files_and_manifests_are_refused_or_what_would_have_been_written() {
    every_input("decoders", decoders::run);
}

#[test]
fn the_state_machine_bears_any_order_of_anything() {
    every_input("peer", peer::run);
}
