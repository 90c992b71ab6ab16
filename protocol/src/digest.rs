//! 32-byte BLAKE3 digests: swarm ids, delta ids, body hashes, state and log digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::bytes32;

/// A BLAKE3 hash. Shown as 64 hexadecimal digits; `{:.8}` shows the first eight.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// In text as it is shown; in bytes as it is.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            bytes32::serialize(&self.0, serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            bytes32::deserialize(deserializer).map(Self)
        }
    }
}

impl Digest {
    /// The hash of `domain`, a zero byte, and `parts` in order. Callers keep the parts' boundaries
    /// unambiguous: at most one of them varies in length.
    pub fn of(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(domain.as_bytes()).update(&[0]);
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The plain BLAKE3 hash of `bytes`, as any `b3sum` gives it.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The state digest: the hash of `values` as little-endian 32-bit integers in coefficient order.
    pub fn of_state(values: &[i32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = [0u8; 4096];
        for block in values.chunks(buffer.len() / 4) {
            for (bytes, value) in buffer.chunks_exact_mut(4).zip(block) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            hasher.update(&buffer[..block.len() * 4]);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:.8}")
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| format!("{text:?} is not a digest: 64 hexadecimal digits are expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_and_reads_back() {
        let digest = Digest::of_bytes(b"swarm");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(format!("{digest:.8}").len(), 8);
        assert!("xyz".parse::<Digest>().is_err());
    }

    #[test]
    fn the_state_digest_is_over_little_endian_integers() {
        let values: Vec<i32> = (0..3000).map(|i| i * -65_537).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(Digest::of_state(&values), Digest::of_bytes(&bytes));
    }
}
