//! Runs [`check`] on what the fuzzer makes up; see `packing.rs`.

#![no_main]

#[path = "../checks/peer.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::run(data));
