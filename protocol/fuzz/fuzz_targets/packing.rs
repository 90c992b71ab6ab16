//! Runs [`check`] on what the fuzzer makes up:
//!
//!     cargo install cargo-fuzz
//!     cargo +nightly fuzz run --fuzz-dir protocol/fuzz packing
//!
//! Without either, `protocol/tests/corpus.rs` runs it on the inputs in `corpus/packing`.

#![no_main]

#[path = "../checks/packing.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::run(data));
