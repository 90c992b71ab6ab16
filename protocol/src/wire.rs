//! What peers say to each other, byte by byte.
//!
//! Every message is `version (1 byte, 1) | kind (1 byte) | fixed part (bincode) | raw tail`. The fixed
//! part is bincode 1.3 with fixed-width little-endian integers under a limit, so that no claimed
//! length is allocated and no bytes may follow; bulk (bodies, chunks) is the raw tail, never bincode.
//!
//! | kind | message | fixed part | tail |
//! |---|---|---|---|
//! | 1 | gossip: delta | signed header | the body, or nothing if it is to be pulled |
//! | 2 | gossip: equivocation | two signed headers | |
//! | 3 | gossip: access | certificates, revocations | |
//! | 16 | request: status | status | |
//! | 17 | request: round | round | |
//! | 18 | request: blob | hash, offset, length | |
//! | 19 | request: history | | |
//! | 20 | request: bodies | hashes | |
//! | 21 | request: access | the asker's certificates, revocations of the one asked | |
//! | 32 | response: status | status | |
//! | 33 | response: round | signed headers, proofs | |
//! | 34 | response: blob | total length | the bytes |
//! | 35 | response: refused | reason | |
//! | 36 | response: history | first number of settled rounds, first round held, log digests | |
//! | 37 | response: bodies | lengths | the bodies |
//! | 38 | response: access | whether the asker is admitted, certificates, revocations | |

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::access::Statements;
use crate::codec::{decode, encode};
use crate::delta::SignedHeader;
use crate::digest::Digest;

/// The version of the message formats.
pub const VERSION: u8 = 1;
/// A body up to this length travels inside its gossip message; a longer one is pulled by its hash.
pub const MAX_INLINE: usize = 64 * 1024;
/// Most bytes that one blob response carries.
pub const MAX_CHUNK: u32 = 1 << 20;
/// Most bytes of a gossip message.
pub const MAX_GOSSIP: usize = MAX_INLINE + 1024;
/// Most bytes of a request.
pub const MAX_REQUEST: usize = 64 * 1024;
/// Most bytes of a response: a chunk, or the headers of a full round.
pub const MAX_RESPONSE: usize = MAX_CHUNK as usize + 256 * 1024;
/// Most bodies that are asked for at a time.
pub const MAX_BODIES: usize = 128;
/// Most headers that a round response carries.
pub const MAX_HEADERS: usize = 4096;

/// Kinds of responses that are bulk: bodies, and parts of checkpoints. A message's second byte is its kind.
pub const BULK: [u8; 2] = [34, 37];

/// Why bytes are not a message.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than its two leading bytes.
    #[error("a message of {0} bytes is too short")]
    Short(usize),
    /// Another format version.
    #[error("message format version {0}; this build speaks {VERSION}")]
    Version(u8),
    /// A kind that is unknown, or has no place here.
    #[error("unexpected message kind {0}")]
    Kind(u8),
    /// The fixed part does not parse.
    #[error("malformed message of kind {0}")]
    Malformed(u8),
}

/// A message that is flooded to everyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gossip {
    /// Somebody's delta, with its body if that is small.
    Delta(Box<SignedHeader>, Option<Vec<u8>>),
    /// Two different deltas that one author signed for one round.
    Equivocation(Box<(SignedHeader, SignedHeader)>),
    /// Who may take part in a closed swarm, and who may no longer: at most [`crate::access::MAX_TOLD`] statements.
    Access(Statements),
}

/// A question to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Here is my status; what is yours?
    Status(Status),
    /// Which deltas of this round do you hold?
    Round(u64),
    /// The bytes with this hash, from `offset`, at most `length` of them.
    Blob {
        /// BLAKE3 of the whole.
        hash: Digest,
        /// First byte wanted.
        offset: u64,
        /// Most bytes wanted; at most [`MAX_CHUNK`].
        length: u32,
    },
    /// Your log digests, as far as you retain them?
    History,
    /// The bodies with these hashes, at most [`MAX_BODIES`] and together at most [`MAX_CHUNK`] bytes.
    Bodies(Vec<Digest>),
    /// In a closed swarm: here is by what I am admitted, and who has revoked you if anybody has; by what are you
    /// admitted, and who else is?
    Access(Statements),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The answerer's status.
    Status(Status),
    /// Its deltas of the round: signed headers, and proofs of equivocation.
    Round(Vec<SignedHeader>, Vec<(SignedHeader, SignedHeader)>),
    /// Bytes of a blob, and the length of the whole.
    Blob {
        /// Length of the whole in bytes.
        total: u64,
        /// The bytes from the offset that was asked for.
        bytes: Vec<u8>,
    },
    /// Not to be had here.
    Refused(Refusal),
    /// Bodies, one for each hash; an empty one is not held.
    Bodies(Vec<Vec<u8>>),
    /// Its log digests.
    History {
        /// Number of settled rounds of the first digest; one more for each that follows.
        first: u64,
        /// The first round whose set is held.
        held_from: u64,
        /// The digests; the last one is the newest.
        digests: Vec<Digest>,
    },
    /// Who may take part in a closed swarm.
    Access {
        /// Whether the answerer lets the asker take part.
        admitted: bool,
        /// All that the answerer knows; for somebody who is not admitted, only what concerns the two of them.
        statements: Statements,
    },
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The bytes are not held here (any more).
    NotHeld,
    /// The answerer has no state yet.
    NotReady,
    /// The asker has asked for more than it could have reason to.
    TooMuch,
    /// The swarm is closed, and the asker has not shown that it is admitted.
    NotAdmitted,
}

/// What two neighbours tell each other about where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The round this peer trains for.
    pub round: u64,
    /// The highest round of a delta signed by the *receiver* that the sender knows, plus one.
    pub your_next_round: u64,
    /// Number of settled rounds.
    pub settled: u64,
    /// The log digest through them.
    pub log_digest: Digest,
    /// `(round, digest of the set)` for every open round that has deltas.
    pub open: Vec<(u64, Digest)>,
    /// The newest checkpoint, if there is one beyond the starting point.
    pub checkpoint: Option<Checkpoint>,
    /// What this peer does.
    pub role: Role,
    /// In a closed swarm: the digest of all that is known about who may take part; see [`crate::access::Register`].
    pub access: Option<Digest>,
}

/// A checkpoint that can be fetched: the shared coefficients at a settled round; see [`crate::checkpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Number of rounds settled in it.
    pub settled: u64,
    /// BLAKE3 of its manifest.
    pub manifest: Digest,
    /// The log digest through its rounds.
    pub log_digest: Digest,
}

/// What a peer does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Trains and publishes.
    Author,
    /// Holds and passes on everything, publishes nothing.
    Replica,
    /// Still fetching what it needs to take part.
    Joining,
    /// An author that has done its rounds and stays until everybody agrees.
    Finishing,
}

fn message(kind: u8, fixed: &impl Serialize, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind];
    bytes.extend(encode(fixed));
    bytes.extend_from_slice(tail);
    bytes
}

fn open(bytes: &[u8]) -> Result<(u8, &[u8]), WireError> {
    match bytes {
        [VERSION, kind, rest @ ..] => Ok((*kind, rest)),
        [version, _, ..] => Err(WireError::Version(*version)),
        _ => Err(WireError::Short(bytes.len())),
    }
}

fn part<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, WireError> {
    decode(bytes).ok_or(WireError::Malformed(kind))
}

/// Splits a fixed part of the length of `T`'s encoding from the raw tail.
fn part_and_tail<T: DeserializeOwned>(
    kind: u8,
    bytes: &[u8],
    length: usize,
) -> Result<(T, &[u8]), WireError> {
    let (fixed, tail) = bytes.split_at_checked(length).ok_or(WireError::Malformed(kind))?;
    Ok((part(kind, fixed)?, tail))
}

/// Reads lengths and the bodies that follow them.
fn bodies(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, _) = bytes.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok().filter(|count| *count <= MAX_BODIES)?;
    let (lengths, mut tail) = bytes.split_at_checked(8 + 4 * count)?;
    let lengths: Vec<u32> = decode(lengths)?;
    let mut bodies = Vec::with_capacity(count);
    for length in lengths {
        let (body, rest) = tail.split_at_checked(length as usize)?;
        bodies.push(body.to_vec());
        tail = rest;
    }
    tail.is_empty().then_some(bodies)
}

/// Bytes of a signed header.
pub const SIGNED_HEADER_LEN: usize = 198 + 64;

impl Gossip {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Delta(header, body) => message(1, header.as_ref(), body.as_deref().unwrap_or_default()),
            Self::Equivocation(pair) => message(2, pair.as_ref(), &[]),
            Self::Access(statements) => message(3, statements, &[]),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] for anything that `encode` does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match open(bytes)? {
            (1, rest) => {
                let (header, body) = part_and_tail(1, rest, SIGNED_HEADER_LEN)?;
                Ok(Self::Delta(Box::new(header), (!body.is_empty()).then(|| body.to_vec())))
            }
            (2, rest) => Ok(Self::Equivocation(Box::new(part(2, rest)?))),
            (3, rest) => part(3, rest).map(Self::Access),
            (kind, _) => Err(WireError::Kind(kind)),
        }
    }
}

impl Request {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Status(status) => message(16, status, &[]),
            Self::Round(round) => message(17, round, &[]),
            Self::Blob { hash, offset, length } => message(18, &(hash, offset, length), &[]),
            Self::History => message(19, &(), &[]),
            Self::Bodies(hashes) => message(20, hashes, &[]),
            Self::Access(statements) => message(21, statements, &[]),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] for anything that `encode` does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match open(bytes)? {
            (16, rest) => Ok(Self::Status(part(16, rest)?)),
            (17, rest) => Ok(Self::Round(part(17, rest)?)),
            (18, rest) => {
                let (hash, offset, length) = part(18, rest)?;
                Ok(Self::Blob { hash, offset, length })
            }
            (19, rest) => part(19, rest).map(|()| Self::History),
            (20, rest) => part(20, rest).map(Self::Bodies),
            (21, rest) => part(21, rest).map(Self::Access),
            (kind, _) => Err(WireError::Kind(kind)),
        }
    }
}

impl Response {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Status(status) => message(32, status, &[]),
            Self::Round(headers, proofs) => message(33, &(headers, proofs), &[]),
            Self::Blob { total, bytes } => message(34, total, bytes),
            Self::Refused(reason) => message(35, reason, &[]),
            Self::Bodies(bodies) => {
                let lengths: Vec<u32> = bodies.iter().map(|body| body.len() as u32).collect();
                message(37, &lengths, &bodies.concat())
            }
            Self::History { first, held_from, digests } => message(36, &(first, held_from, digests), &[]),
            Self::Access { admitted, statements } => message(38, &(admitted, statements), &[]),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] for anything that `encode` does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match open(bytes)? {
            (32, rest) => Ok(Self::Status(part(32, rest)?)),
            (33, rest) => {
                let (headers, proofs) = part(33, rest)?;
                Ok(Self::Round(headers, proofs))
            }
            (34, rest) => {
                let (total, bytes) = part_and_tail(34, rest, 8)?;
                Ok(Self::Blob { total, bytes: bytes.to_vec() })
            }
            (35, rest) => Ok(Self::Refused(part(35, rest)?)),
            (36, rest) => {
                let (first, held_from, digests) = part(36, rest)?;
                Ok(Self::History { first, held_from, digests })
            }
            (37, rest) => bodies(rest).map(Self::Bodies).ok_or(WireError::Malformed(37)),
            (38, rest) => {
                let (admitted, statements) = part(38, rest)?;
                Ok(Self::Access { admitted, statements })
            }
            (kind, _) => Err(WireError::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests;
