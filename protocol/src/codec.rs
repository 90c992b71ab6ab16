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

/// 32 bytes as they are, for `#[serde(with = ...)]`. By itself serde visits every byte of an array, which is
/// most of what reading a status costs; as four little-endian numbers they are the same 32 bytes.
pub mod bytes32 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the bytes.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        let mut numbers = [0u64; 4];
        for (number, eight) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*eight);
        }
        numbers.serialize(serializer)
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let numbers = <[u64; 4]>::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        for (eight, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *eight = number.to_le_bytes();
        }
        Ok(bytes)
    }
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
