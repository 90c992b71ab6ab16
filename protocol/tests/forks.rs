//! Swarms that begin with another swarm's model: who has it hands it on, and nothing else is taken for it.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use support::{FOUNDER, JOINER, REPLICA, World, genesis};
use swarm_optimizer::coefficients::Coefficients;
use swarm_protocol::checkpoint::{Held, Manifest};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Genesis, Parent};
use swarm_protocol::identity::{Identity, PeerKey};
use swarm_protocol::initial;
use swarm_protocol::peer::{Action, Part, Peer, Report};
use swarm_protocol::round_log::RoundLog;
use swarm_protocol::wire::{Refusal, Request, Response, Role, Status};

/// A fork of the small swarm after some rounds, and the coefficients that it begins with.
fn fork() -> (Arc<Genesis>, Coefficients) {
    let parent = genesis();
    let layout = parent.layout().unwrap();
    let drawn = initial::coefficients(&parent, &layout);
    let trained: Vec<i32> = drawn.values().iter().zip(0..).map(|(c, i)| c + i * 7 % 1000).collect();
    let from = Parent { swarm: Some(parent.swarm_id()), settled: 12, state: Digest::of_state(&trained) };
    let fork = Genesis { parent: Some(from), ..parent.as_ref().clone() };
    fork.validate().unwrap();
    (fork.into(), Coefficients::new(trained))
}

fn joined_at(world: &World, at: usize) -> Option<u64> {
    let settled = |report: &Report| match report {
        Report::JoiningAt(checkpoint) => Some(checkpoint.settled),
        _ => None,
    };
    world.reports[at].iter().rev().find_map(settled)
}

#[test]
fn one_who_has_the_starting_point_is_enough() {
    for seed in 0..10 {
        let (genesis, c0) = fork();
        let mut world = World::with(seed, genesis);
        world.loss = 100;
        let part = Part { stop_before: Some(16), ..JOINER };
        // Founders by name only: without a model there is nothing to found.
        let empty = world.add(Part { stop_before: Some(16), ..FOUNDER });
        let joiner = world.add(part);
        world.run_for(20);
        for at in [empty, joiner] {
            assert_eq!((world.peers[at].round(), world.peers[at].role()), (0, Role::Joining));
            assert!(!world.peers[at].has_state());
        }
        world.add_with(Part { stop_before: Some(16), ..FOUNDER }, Some(c0));
        world.run_for(80);
        assert_eq!(world.finished.len(), 3, "seed {seed}: {:?}", world.reports);
        world.assert_agreement(&[0, 1, 2]);
        for at in [empty, joiner] {
            assert_eq!(joined_at(&world, at), Some(0));
            assert!(world.outboxes[at].len() > 8, "seed {seed}: it must have published");
        }
    }
}

#[test]
fn a_newcomer_joins_at_any_age() {
    let (genesis, c0) = fork();
    for seconds in 1..24 {
        let mut world = World::with(seconds, genesis.clone());
        let end = 40;
        world.add_with(Part { stop_before: Some(end), ..FOUNDER }, Some(c0.clone()));
        world.add(Part { stop_before: Some(end), ..REPLICA });
        world.run_for(seconds);
        let round = world.peers[0].round();
        let late = world.add(Part { stop_before: Some(end), ..JOINER });
        world.run_for(80);
        assert_eq!(world.finished.len(), 3, "joined at {round}: {:?}", world.reports[late]);
        world.assert_agreement(&[0, 1, late]);
        let joined = joined_at(&world, late).unwrap();
        assert!(joined + 16 > round, "at round {round} it joined at {joined}");
    }
}

/// C0 is the parent's C, and nothing else is taken for it when the peer is made.
#[test]
fn the_model_goes_on_from_the_parents() {
    let (genesis, c0) = fork();
    let mut world = World::with(1, genesis.clone());
    let at = world.add_with(FOUNDER, Some(c0.clone()));
    assert_eq!(world.peers[at].coefficients().values(), c0.values());
    let peer = |c0: Coefficients| {
        let identity = Identity::from_secret(&[9; 32]);
        Peer::with_start(Duration::ZERO, genesis.clone(), identity, FOUNDER, Some(c0)).map(drop)
    };
    let mut other = c0.values().to_vec();
    other[3] ^= 1;
    let error = peer(Coefficients::new(other)).unwrap_err().to_string();
    assert!(error.contains("the genesis names"), "{error}");
}

/// One that was stopped before it had a model has saved none: it does not take zeros for it.
#[test]
fn restarts_keep_what_there_is() {
    let (genesis, c0) = fork();
    let mut world = World::with(3, genesis.clone());
    let empty = world.add(Part { stop_before: Some(20), ..JOINER });
    world.run_for(5);
    world.stop(empty);
    let restart = |world: &mut World, at: usize, part: Part| {
        let snapshot = world.peers[at].snapshot();
        let held =
            world.peers[at].checkpoints().newest().map(|held| (held.bytes.clone(), held.state.clone()));
        let identity = Identity::from_secret(&World::secret(at));
        let mut peer = Peer::new(world.now, genesis.clone(), identity, part).unwrap();
        peer.restore(world.now, snapshot, &world.outboxes[at].clone()).unwrap();
        if let Some((manifest, state)) = held {
            assert!(peer.restore_checkpoint(manifest, state));
        }
        world.restart(at, peer);
    };
    restart(&mut world, empty, Part { stop_before: Some(20), ..FOUNDER });
    assert!(!world.peers[empty].has_state());
    let founder = world.add_with(Part { stop_before: Some(20), ..FOUNDER }, Some(c0));
    world.run_for(4);
    assert!(world.peers[empty].has_state() && world.peers[founder].log().settled() == 0);
    // The one who was handed the starting point hands it on, after a restart too.
    world.stop(empty);
    restart(&mut world, empty, Part { stop_before: Some(20), ..FOUNDER });
    assert!(world.peers[empty].has_state());
    let late = world.add(Part { stop_before: Some(20), ..JOINER });
    world.disconnect(founder, late);
    world.run_for(80);
    assert_eq!(world.finished.len(), 3, "{:?}", world.reports);
    world.assert_agreement(&[empty, founder, late]);
}

/// A neighbour that says what the test makes it say, and the bytes that it serves.
struct Liar {
    key: PeerKey,
    status: Status,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Liar {
    /// One that names `manifest` as the starting point, and has these coefficients.
    fn of(n: u8, genesis: &Genesis, manifest: &Manifest, state: &[i32]) -> Self {
        let bytes: Vec<u8> = state.iter().flat_map(|value| value.to_le_bytes()).collect();
        let blobs = [manifest.encode(), bytes].map(|bytes| (Digest::of_bytes(&bytes), bytes));
        let status = Status {
            round: 0,
            your_next_round: 0,
            settled: 0,
            log_digest: RoundLog::new(genesis).log_digest(),
            open: Vec::new(),
            checkpoint: Some(manifest.checkpoint()),
            role: Role::Author,
            access: None,
        };
        Self { key: Identity::from_secret(&[n; 32]).public(), status, blobs: blobs.into() }
    }

    fn answer(&self, request: &[u8]) -> Response {
        match Request::decode(request).unwrap() {
            Request::Status(_) => Response::Status(self.status.clone()),
            Request::Bodies(hashes) => {
                let of = |hash| self.blobs.get(hash).cloned().unwrap_or_default();
                Response::Bodies(hashes.iter().map(of).collect())
            }
            Request::Blob { hash, offset, length } => match self.blobs.get(&hash) {
                Some(bytes) => {
                    let (from, total) = (offset as usize, bytes.len());
                    let to = total.min(from + length as usize);
                    Response::Blob { total: total as u64, bytes: bytes[from..to].to_vec() }
                }
                None => Response::Refused(Refusal::NotHeld),
            },
            Request::Round(_) => Response::Round(Vec::new(), Vec::new()),
            Request::History | Request::Access(_) => Response::Refused(Refusal::NotHeld),
        }
    }
}

/// Lets `peer` talk with `neighbours` for some seconds; returns whom it cut off, and what it reported.
fn talk(peer: &mut Peer, from: Duration, neighbours: &[Liar]) -> (Vec<PeerKey>, Vec<Report>) {
    let (mut bans, mut reports) = (Vec::new(), Vec::new());
    for liar in neighbours {
        peer.handle_connected(from, liar.key);
    }
    for step in 0..1000 {
        let now = from + Duration::from_millis(10 * step);
        peer.handle_wake(now);
        while let Some(action) = peer.poll_action() {
            match action {
                Action::Request { peer: to, id, bytes } => {
                    let liar = neighbours.iter().find(|liar| liar.key == to).unwrap();
                    let answer = liar.answer(&bytes).encode();
                    peer.handle_response(now, to, id, Some(&answer));
                }
                Action::Ban { peer: key, .. } => {
                    bans.push(key);
                    peer.handle_disconnected(now, key);
                }
                Action::Report(report) => reports.push(report),
                _ => {}
            }
        }
    }
    (bans, reports)
}

#[test]
fn a_neighbour_with_another_model_is_refused() {
    let (genesis, c0) = fork();
    let log = RoundLog::new(&genesis);
    let other: Vec<i32> = c0.values().iter().map(|c| c + 1).collect();
    // One whole model that is not the parent's; one that claims its state, with other parts; one that makes up
    // a history before the first round.
    let whole = Manifest::of(0, log.recent_digests(), &other);
    let mut patched = whole.clone();
    patched.state = Digest::of_state(c0.values());
    let history = Manifest::of(0, vec![Digest::default()], c0.values());
    for (n, lie, state) in [(50, &whole, &other[..]), (51, &patched, &other), (52, &history, c0.values())] {
        let liar = Liar::of(n, &genesis, lie, state);
        let identity = Identity::from_secret(&[9; 32]);
        let mut peer = Peer::new(Duration::ZERO, genesis.clone(), identity, JOINER).unwrap();
        let (bans, reports) = talk(&mut peer, Duration::ZERO, &[liar]);
        assert!(!peer.has_state() && peer.coefficients().values().iter().all(|c| *c == 0));
        assert_eq!(bans, [Identity::from_secret(&[n; 32]).public()], "{n}: {reports:?}");
        assert!(reports.iter().any(|report| matches!(report, Report::CannotJoin(_))), "{n}: {reports:?}");
        // An honest one after that is believed.
        let honest = Held::new(0, log.recent_digests(), c0.clone());
        let honest = Liar::of(60, &genesis, &honest.manifest, c0.values());
        let (bans, _) = talk(&mut peer, Duration::from_secs(60), &[honest]);
        assert!(bans.is_empty() && peer.has_state());
        assert_eq!(peer.coefficients().values(), c0.values());
    }
}
