//! What peers with bad intentions do.
//!
//! They run the same state machine as everybody, so they are part of the swarm; what they do besides
//! happens where its actions are carried out. All of it is made from what such a peer really has: its own
//! key, any key that nobody knows, and what it has heard.

use swarm_optimizer::layout::Layout;
use swarm_protocol::delta::{Header, SignedHeader};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Rule;
use swarm_protocol::identity::Identity;
use swarm_protocol::packing;
use swarm_protocol::wire::{Gossip, Request, Response, Status};

use crate::random::Random;
use crate::trainer;

/// Rounds that a liar claims to be ahead.
const BOAST: u64 = 1000;

/// Another delta of the author of `header`, for the same round; `identity` is that author's.
pub(crate) fn twin(
    header: &Header,
    identity: &Identity,
    layout: &Layout,
    rule: &Rule,
    random: &mut Random,
) -> Vec<u8> {
    let delta = trainer::quick(layout, rule, random);
    let body = packing::encode(layout, rule, rule.k, &delta).unwrap_or_default();
    encoded(signed(Header { tokens: header.tokens + 1, ..*header }, identity, &body), body)
}

/// A delta for the same round by somebody whom nobody has heard of.
pub(crate) fn stranger(header: &Header, layout: &Layout, rule: &Rule, random: &mut Random) -> Vec<u8> {
    let mut key = [0; 32];
    key.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&random.next().to_le_bytes()));
    let identity = Identity::from_secret(&key);
    twin(&Header { author: identity.public(), ..*header }, &identity, layout, rule, random)
}

/// Something that is no good: bytes at random, a damaged message, or a broken delta under a good signature.
pub(crate) fn garbage(bytes: &[u8], identity: &Identity, random: &mut Random) -> Vec<u8> {
    let Ok(Gossip::Delta(mine, Some(body))) = Gossip::decode(bytes) else { return noise(random) };
    let header = mine.header;
    match random.below(6) {
        0 => noise(random),
        1 => damaged(bytes.to_vec(), random),
        2 => {
            let longer = [&body[..], &[0]].concat();
            encoded(signed(header, identity, &longer), longer)
        }
        3 => encoded(signed(Header { round: header.round + BOAST, ..header }, identity, &body), body),
        4 => encoded(signed(Header { swarm: Digest::default(), ..header }, identity, &body), body),
        // A body that nobody has.
        _ => {
            let other = [&body[..], &[1]].concat();
            Gossip::Delta(Box::new(signed(header, identity, &other)), None).encode()
        }
    }
}

/// `bytes` with one bit flipped or the end cut off.
pub(crate) fn damaged(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = random.below(bytes.len());
    if random.chance(0.5) {
        bytes.truncate(at);
    } else if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
    bytes
}

/// A question with a boasting status, if it has one.
pub(crate) fn boasting_request(bytes: Vec<u8>) -> Vec<u8> {
    match Request::decode(&bytes) {
        Ok(Request::Status(status)) => Request::Status(boast(status)).encode(),
        _ => bytes,
    }
}

/// An answer with a boasting status, if it has one.
pub(crate) fn boasting_response(bytes: Vec<u8>) -> Vec<u8> {
    match Response::decode(&bytes) {
        Ok(Response::Status(status)) => Response::Status(boast(status)).encode(),
        _ => bytes,
    }
}

fn boast(status: Status) -> Status {
    Status {
        round: status.round + BOAST,
        settled: status.settled + BOAST,
        your_next_round: status.your_next_round + BOAST,
        ..status
    }
}

fn noise(random: &mut Random) -> Vec<u8> {
    (0..random.below(600)).map(|_| random.next() as u8).collect()
}

fn signed(header: Header, identity: &Identity, body: &[u8]) -> SignedHeader {
    Header { body_hash: Digest::of_bytes(body), body_length: body.len() as u32, ..header }.sign(identity)
}

fn encoded(signed: SignedHeader, body: Vec<u8>) -> Vec<u8> {
    Gossip::Delta(Box::new(signed), Some(body)).encode()
}
