//! A delta: a signed header, and a body that the header names by hash.
//!
//! The header is small and travels by gossip; it says who speaks, for which round, on top of which
//! history (`base`), and vouches for a checkpoint. `tokens` and the losses are the author's claims;
//! nothing depends on them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::digest::Digest;
use crate::identity::{Identity, PeerKey, SignatureBytes};

/// The version of deltas that this build writes and accepts.
pub const VERSION: u16 = 1;

const DOMAIN: &str = "swarm delta 1";

/// Losses travel as fixed point: nats per token x 2^16.
const LOSS_SCALE: f64 = 65_536.0;

/// What an author says about its delta. 198 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Format version of header and body.
    pub version: u16,
    /// The swarm's id.
    pub swarm: Digest,
    /// The round that the delta belongs to.
    pub round: u64,
    /// Who speaks.
    pub author: PeerKey,
    /// The author's log digest through round `round - window`.
    pub base: Digest,
    /// The author's newest checkpoint: how many rounds were settled in it.
    pub checkpoint_round: u64,
    /// BLAKE3 of its manifest; see [`crate::checkpoint`].
    pub checkpoint_digest: Digest,
    /// BLAKE3 of the body.
    pub body_hash: Digest,
    /// The body's length in bytes.
    pub body_length: u32,
    /// Tokens trained on for this delta, as the author claims.
    pub tokens: u64,
    /// Training loss at the start of the round, as claimed; see [`fixed_loss`].
    pub loss_before: u32,
    /// Training loss at its end, as claimed.
    pub loss_after: u32,
}

/// A header with its author's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHeader {
    /// What is said.
    pub header: Header,
    /// The author's signature over the header's bytes.
    pub signature: SignatureBytes,
}

impl Header {
    /// A header that names this body and claims nothing: no history, no checkpoint, no training.
    pub fn new(swarm: Digest, round: u64, author: PeerKey, body: &[u8]) -> Self {
        Self {
            version: VERSION,
            swarm,
            round,
            author,
            base: Digest::default(),
            checkpoint_round: 0,
            checkpoint_digest: Digest::default(),
            body_hash: Digest::of_bytes(body),
            body_length: u32::try_from(body.len()).unwrap_or(u32::MAX),
            tokens: 0,
            loss_before: 0,
            loss_after: 0,
        }
    }

    /// Signs the header; `identity` must be the author.
    pub fn sign(self, identity: &Identity) -> SignedHeader {
        let signature = identity.sign(DOMAIN, &codec::encode(&self));
        SignedHeader { header: self, signature }
    }

    /// The delta id: BLAKE3 of the header's bytes. The signature is not part of it.
    pub fn id(&self) -> Digest {
        Digest::of_bytes(&codec::encode(self))
    }
}

impl SignedHeader {
    /// Whether the author really signed this, verified strictly.
    pub fn verify(&self) -> bool {
        self.header.author.verify(DOMAIN, &codec::encode(&self.header), &self.signature)
    }
}

/// A delta whose signature and body have been verified.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The signed header.
    pub signed: SignedHeader,
    /// The header's id.
    pub id: Digest,
    /// The packed body; see [`crate::packing`].
    pub body: Arc<[u8]>,
}

impl Delta {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.signed.header
    }
}

/// A loss in nats per token as fixed point; what is not a sensible loss becomes the largest value.
pub fn fixed_loss(loss: f64) -> u32 {
    if loss.is_finite() && loss >= 0.0 { (loss * LOSS_SCALE) as u32 } else { u32::MAX }
}

/// A fixed-point loss in nats per token.
pub fn float_loss(fixed: u32) -> f64 {
    f64::from(fixed) / LOSS_SCALE
}
