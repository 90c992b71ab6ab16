//! What a round sends and receives.
//!
//! A message that all are to have is received by everybody but its author; with gossip, each peer hears it from
//! up to all of its mesh but the one it passes it on to. So much is received, and what all receive all have
//! sent: on average over the peers, as much goes out as comes in. Bodies too large for gossip are fetched by
//! their hash, once a peer. Encryption, acknowledgements and address books are not counted (a few percent).

use swarm_protocol::anti_entropy::STATUS_INTERVAL;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::wire::{Checkpoint, Request, Response, Role, SIGNED_HEADER_LEN, Status};

use super::{Sample, Scene, Sheet};
use crate::net::Scale;

/// Bytes around a signed header in a gossip message, and around a body in an answer.
const AROUND: u64 = 16;

/// Others' deltas that a peer gets in a round, and own ones that it makes, both on average: with more peers than
/// a round takes, each publishes in some rounds only.
pub(super) fn deltas(genesis: &Genesis, scene: &Scene) -> (f64, f64) {
    let authors = f64::from(scene.authors(genesis));
    let own = authors / f64::from(scene.peers.max(1));
    (authors - own, own)
}

/// Bytes of a question for a status and its answer.
pub(super) fn status(genesis: &Genesis) -> u64 {
    let zero = Digest::default();
    let status = Status {
        round: 0,
        your_next_round: 0,
        settled: 0,
        log_digest: zero,
        open: vec![(0, zero); genesis.rounds.window as usize],
        checkpoint: Some(Checkpoint { settled: 0, manifest: zero, log_digest: zero }),
        role: Role::Author,
        access: (!genesis.access.is_open()).then_some(zero),
    };
    (Request::Status(status.clone()).encode().len() + Response::Status(status).encode().len()) as u64
}

fn scale(scene: &Scene) -> Scale {
    Scale::of(scene.peers as usize)
}

fn neighbours(scene: &Scene) -> u64 {
    u64::from(scene.peers.saturating_sub(1)).min(scale(scene).neighbours() as u64)
}

/// How often a gossiped message arrives.
fn copies(scene: &Scene) -> f64 {
    neighbours(scene).min(scale(scene).mesh().n as u64).saturating_sub(1).max(1) as f64
}

/// Deltas as they arrive: headers, bodies, repetitions, each in bytes.
fn arriving(genesis: &Genesis, scene: &Scene, sample: &Sample) -> [f64; 3] {
    let (others, _) = deltas(genesis, scene);
    let header = (SIGNED_HEADER_LEN as u64 + AROUND) as f64;
    let body = (sample.body + AROUND) as f64;
    let again = (copies(scene) - 1.0) * if sample.inline { header + body } else { header };
    [others * header, others * body, others * again]
}

/// What a node receives in a round of so many `seconds`.
pub(super) fn received(genesis: &Genesis, scene: &Scene, sample: &Sample, seconds: f64) -> Sheet {
    let mut sheet = Sheet::new("received in a round", genesis.model.parameter_count());
    let [headers, bodies, again] = arriving(genesis, scene, sample);
    sheet.add("others' deltas: signed headers", headers as u64);
    sheet.add("others' deltas: bodies", bodies as u64);
    sheet.add("the same again, from other neighbours", again as u64);
    sheet.add(statuses(scene), told(genesis, scene, seconds));
    sheet
}

/// What a node sends in a round of so many `seconds`, on average over the peers.
pub(super) fn sent(genesis: &Genesis, scene: &Scene, sample: &Sample, seconds: f64) -> Sheet {
    let mut sheet = Sheet::new("sent in a round, on average over the peers", genesis.model.parameter_count());
    let [headers, bodies, again] = arriving(genesis, scene, sample);
    let (others, own) = deltas(genesis, scene);
    // With nobody there, nothing is sent.
    let share = if others > 0.0 { (own / others).min(1.0) } else { 0.0 };
    let once = headers + bodies;
    sheet.add("own delta, once", (share * once) as u64);
    sheet.add("deltas passed on", ((1.0 - share) * once) as u64);
    sheet.add("the same again, to other neighbours", again as u64);
    sheet.add(statuses(scene), told(genesis, scene, seconds));
    sheet
}

/// Each asks each neighbour once in every interval, so each way goes a question and an answer.
fn told(genesis: &Genesis, scene: &Scene, seconds: f64) -> u64 {
    let exchanges = neighbours(scene) as f64 * seconds / STATUS_INTERVAL.as_secs_f64();
    (exchanges * status(genesis) as f64) as u64
}

fn statuses(scene: &Scene) -> String {
    format!("statuses, {} neighbours, every {} s", neighbours(scene), STATUS_INTERVAL.as_secs())
}
