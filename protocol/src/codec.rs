//! Canonical bytes of small values: bincode 1.3 with fixed-width little-endian integers.
//!
//! Fixed width makes the encoding of a value unique, which is what hashes and signatures need. Reading is
//! bounded by the length of the input: a claimed length beyond it is an error, not an allocation. Types
//! that are read have no zero-sized elements and no recursion, which a limit would not stop.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(limit)
}

/// Canonical bytes of a value of bounded size.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // bincode fails only beyond a limit, or for types that are not used here (untagged, unsized).
    bincode::DefaultOptions::new().with_fixint_encoding().serialize(value).unwrap_or_default()
}

/// Reads what [`encode`] wrote; trailing bytes are refused, nothing longer than `bytes` is allocated.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    options(bytes.len() as u64).deserialize(bytes).ok()
}
