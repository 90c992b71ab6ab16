//! Who a peer is: an ed25519 key. The same key names the peer on the network and signs its deltas.
//!
//! Signatures are verified strictly (no small-order keys, canonical encodings only; RFC 8032 leaves
//! room that two verifiers could fill differently), so that all peers agree on what is signed.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// A peer's public key, 32 bytes as in RFC 8032.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerKey(#[serde(with = "crate::codec::bytes32")] pub [u8; 32]);

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:.8}")
    }
}

impl FromStr for PeerKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(text)
            .map(|bytes| Self(*bytes.as_bytes()))
            .map_err(|_| format!("{text:?} is not a public key: 64 hexadecimal digits are expected"))
    }
}

/// A 64-byte ed25519 signature, in two halves because serde knows arrays up to 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureBytes(
    #[serde(with = "crate::codec::bytes32")] [u8; 32],
    #[serde(with = "crate::codec::bytes32")] [u8; 32],
);

impl SignatureBytes {
    fn join(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

/// A peer's secret key.
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The identity with this 32-byte ed25519 secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(secret) }
    }

    /// The 32-byte ed25519 secret.
    pub fn secret(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public key.
    pub fn public(&self) -> PeerKey {
        PeerKey(self.key.verifying_key().to_bytes())
    }

    /// Signs `domain`, a zero byte and `message`.
    pub fn sign(&self, domain: &str, message: &[u8]) -> SignatureBytes {
        let bytes = self.key.sign(&tagged(domain, message)).to_bytes();
        let (mut low, mut high) = ([0; 32], [0; 32]);
        low.copy_from_slice(&bytes[..32]);
        high.copy_from_slice(&bytes[32..]);
        SignatureBytes(low, high)
    }
}

impl PeerKey {
    /// Whether anything can be signed with this key: a point of the curve, and none of small order.
    pub fn is_usable(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }

    /// Whether `signature` is this peer's over `domain` and `message`, verified strictly.
    pub fn verify(&self, domain: &str, message: &[u8], signature: &SignatureBytes) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| {
            key.verify_strict(&tagged(domain, message), &Signature::from_bytes(&signature.join())).is_ok()
        })
    }
}

fn tagged(domain: &str, message: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_domain_and_message_only() {
        let identity = Identity::from_secret(&[7; 32]);
        let signature = identity.sign("domain", b"message");
        let key = identity.public();
        assert!(key.verify("domain", b"message", &signature));
        assert!(!key.verify("domain", b"massage", &signature));
        assert!(!key.verify("other", b"message", &signature));
        assert!(!Identity::from_secret(&[8; 32]).public().verify("domain", b"message", &signature));
        let mut flipped = signature;
        flipped.1[3] ^= 1;
        assert!(!key.verify("domain", b"message", &flipped));
    }

    #[test]
    fn small_order_keys_sign_nothing() {
        // The identity point as a key makes a zero signature valid under lax verification.
        let mut point = [0; 32];
        point[0] = 1;
        let lax = SignatureBytes(point, [0; 32]);
        assert!(!PeerKey(point).verify("domain", b"anything", &lax));
        assert!(!PeerKey(point).is_usable() && Identity::from_secret(&[7; 32]).public().is_usable());
    }
}
