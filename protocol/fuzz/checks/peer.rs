//! The state machine in the hands of enemies: any order of connections, messages, answers and time, with messages that
//! are in order, damaged, or nothing at all. It never panics, answers every question once, asks no more at a time than
//! it may, and holds no more than the genesis allows.
//!
//! The input is a list of operations, a byte each and its arguments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::anti_entropy::MAX_PENDING;
use swarm_protocol::architecture::Sizes;
use swarm_protocol::delta::{Header, SignedHeader};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::{Identity, PeerKey};
use swarm_protocol::packing;
use swarm_protocol::peer::rounds::Extracted;
use swarm_protocol::peer::{Action, Part, Peer};
use swarm_protocol::wire::{Checkpoint, Gossip, Refusal, Request, Response, Role, Status};

/// Neighbours, all of them the enemy's.
const OTHERS: u8 = 3;
/// Operations of one input, at most.
const LONGEST: usize = 300;

fn genesis() -> &'static (Arc<Genesis>, Layout) {
    static GENESIS: OnceLock<(Arc<Genesis>, Layout)> = OnceLock::new();
    GENESIS.get_or_init(|| {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let mut genesis = Genesis::new("fuzzed", model, 1);
        genesis.rule.tile = 8;
        genesis.rule.k = 4;
        genesis.rule.publishers = 3;
        genesis.rounds.window = 2;
        genesis.rounds.retention = 8;
        genesis.rounds.checkpoint_every = 2;
        genesis.rounds.min_round_ms = 100;
        genesis.rounds.round_ms = 1000;
        genesis.rounds.grace_ms = 100;
        genesis.validate().expect("a genesis");
        let layout = genesis.layout().expect("a layout");
        (Arc::new(genesis), layout)
    })
}

/// What is left of the input; zeros at the end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }
}

struct World {
    peer: Peer,
    now: Duration,
    token: u64,
    asked: VecDeque<(PeerKey, u64, Vec<u8>)>,
    /// Bodies that deltas were made of.
    bodies: BTreeMap<Digest, Vec<u8>>,
    headers: Vec<SignedHeader>,
    gossip: Vec<u8>,
    extracts: Option<(u64, u32)>,
}

/// Tries `data`.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let part =
        Part { trains: input.byte() % 4 != 0, found_after: Some(Duration::from_secs(1)), stop_before: None };
    let identity = Identity::from_secret(&[77; 32]);
    let peer = Peer::new(Duration::ZERO, genesis().0.clone(), identity, part).expect("a peer");
    let mut world = World {
        peer,
        now: Duration::ZERO,
        token: 0,
        asked: VecDeque::new(),
        bodies: BTreeMap::new(),
        headers: Vec::new(),
        gossip: Vec::new(),
        extracts: None,
    };
    for _ in 0..LONGEST {
        if input.0.is_empty() {
            break;
        }
        world.step(&mut input);
        world.act();
    }
}

fn other(which: u8) -> Identity {
    Identity::from_secret(&[1 + which % OTHERS; 32])
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let (code, from) = (input.byte(), input.byte());
        let (now, key) = (self.now, other(from).public());
        match code % 16 {
            0 => self.peer.handle_connected(now, key),
            1 => self.peer.handle_disconnected(now, key),
            2 | 3 => {
                self.now += Duration::from_millis(u64::from(input.byte()) * 40);
                self.peer.handle_wake(self.now);
            }
            4 => self.peer.handle_trained(now),
            5 | 6 => {
                let (signed, body) = self.delta(from, input);
                let inline = input.byte().is_multiple_of(2);
                let bytes = Gossip::Delta(Box::new(signed), inline.then_some(body)).encode();
                self.gossip(key, bytes);
            }
            7 => {
                let bytes = damaged(self.gossip.clone(), input);
                self.gossip(key, bytes);
            }
            8 => {
                let bytes = input.bytes();
                self.gossip(key, bytes);
            }
            9 => {
                let (one, other) = (self.delta(from, input).0, self.delta(from, input).0);
                self.gossip(key, Gossip::Equivocation(Box::new((one, other))).encode());
            }
            10 => {
                let question = self.question(input);
                self.ask(key, question.encode());
            }
            11 => {
                let bytes = damaged(self.question(input).encode(), input);
                self.ask(key, bytes);
            }
            12 => {
                let bytes = input.bytes();
                self.ask(key, bytes);
            }
            13 | 14 => {
                let Some((peer, id, question)) = self.asked.pop_front() else { return };
                let answer = self.answer(&question, input).encode();
                let answer = if code % 16 == 13 { answer } else { damaged(answer, input) };
                self.peer.handle_response(now, peer, id, Some(&answer));
            }
            _ => {
                let Some((peer, id, _)) = self.asked.pop_back() else { return };
                let bytes = input.bytes();
                self.peer.handle_response(now, peer, id, (!bytes.is_empty()).then_some(&bytes));
            }
        }
    }

    fn gossip(&mut self, from: PeerKey, bytes: Vec<u8>) {
        self.token += 1;
        self.peer.handle_gossip(self.now, from, self.token, &bytes);
        self.gossip = bytes;
    }

    /// Each question is answered, at once.
    fn ask(&mut self, from: PeerKey, bytes: Vec<u8>) {
        self.token += 1;
        let token = self.token;
        self.act();
        self.peer.handle_request(self.now, from, token, &bytes);
        let mut answers = 0;
        while let Some(action) = self.peer.poll_action() {
            if matches!(action, Action::Respond { token: answered, .. } if answered == token) {
                answers += 1;
            }
            self.carry_out(action);
        }
        assert_eq!(answers, 1);
    }

    fn act(&mut self) {
        while let Some(action) = self.peer.poll_action() {
            self.carry_out(action);
        }
        let rounds = &genesis().0.rounds;
        let most = genesis().0.rule.publishers as usize * (rounds.retention + 3 * rounds.window + 1) as usize;
        assert!(self.peer.held_deltas() <= most, "{} deltas", self.peer.held_deltas());
        assert!(self.peer.accounts().balance());
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Request { peer, id, bytes } => {
                assert!(Request::decode(&bytes).is_ok());
                self.asked.push_back((peer, id, bytes));
                // Some of them have been given up since; of what is here, only the newest can be open.
                let most = 2 * MAX_PENDING * usize::from(OTHERS);
                while self.asked.len() > most {
                    self.asked.pop_front();
                }
            }
            Action::Respond { bytes, .. } => assert!(Response::decode(&bytes).is_ok()),
            Action::Extract { round, k } => {
                let body = body(k, (round % 7) as i8 + 1);
                let extracted = Extracted { round, body, tokens: 1, loss_before: 2.0, loss_after: 1.9 };
                self.extracts = Some((round, k));
                self.peer.handle_extracted(self.now, extracted);
            }
            Action::Persist { round, bytes } => {
                assert_eq!(self.extracts.take().map(|(round, _)| round), Some(round));
                assert!(Gossip::decode(&bytes).is_ok());
                self.peer.handle_persisted(self.now, round);
            }
            Action::Publish(bytes) => assert!(Gossip::decode(&bytes).is_ok()),
            _ => {}
        }
    }

    /// A delta by one of the others, for a round near this peer's.
    fn delta(&mut self, from: u8, input: &mut Input<'_>) -> (SignedHeader, Vec<u8>) {
        let round = (self.peer.round() + u64::from(input.byte() % 8)).saturating_sub(4);
        let level = (input.byte() % 7) as i8 + 1;
        let body = body(4, level);
        let author = other(from);
        let mut header = Header::new(self.peer.swarm_id(), round, author.public(), &body);
        let log = self.peer.log();
        header.base = log.digest_after(log.settled_at(round)).unwrap_or_default();
        if let Some(held) = self.peer.checkpoints().newest().filter(|_| input.byte().is_multiple_of(2)) {
            header.checkpoint_round = held.checkpoint.settled;
            header.checkpoint_digest = held.checkpoint.manifest;
        }
        match input.byte() % 8 {
            0 => header.tokens = u64::from(input.byte()),
            1 => header.body_length = u32::from(input.byte()),
            2 => header.base = Digest([input.byte(); 32]),
            _ => {}
        }
        let signed = header.sign(&author);
        self.bodies.insert(header.body_hash, body.clone());
        self.headers.push(signed);
        (signed, body)
    }

    fn status(&self, input: &mut Input<'_>) -> Status {
        let ahead = u64::from(input.byte() % 32);
        let round = (self.peer.round() + ahead).saturating_sub(8);
        let settled = round.saturating_sub(u64::from(input.byte() % 4));
        let log = self.peer.log();
        let digest = |choice: u8, known: Option<Digest>| match choice % 4 {
            0 => Digest([choice; 32]),
            _ => known.unwrap_or_default(),
        };
        let mut open = log.set_digests(log.settled());
        if input.byte().is_multiple_of(2) {
            open.push((round, Digest([input.byte(); 32])));
        }
        let checkpoint = match input.byte() % 3 {
            0 => None,
            1 => self.peer.checkpoints().newest().map(|held| held.checkpoint),
            _ => Some(Checkpoint {
                settled: settled.saturating_sub(u64::from(input.byte() % 4)),
                manifest: Digest([input.byte(); 32]),
                log_digest: Digest([input.byte() % 2; 32]),
            }),
        };
        Status {
            round,
            your_next_round: round.saturating_sub(u64::from(input.byte() % 8)),
            settled,
            log_digest: digest(input.byte(), log.expected_digest(settled)),
            open,
            checkpoint,
            role: [Role::Author, Role::Replica, Role::Joining, Role::Finishing]
                [usize::from(input.byte() % 4)],
            access: None,
        }
    }

    fn hash(&self, input: &mut Input<'_>) -> Digest {
        let at = usize::from(input.byte());
        let held = self.peer.checkpoints().newest().map(|held| held.checkpoint.manifest);
        match at % 4 {
            0 => held.unwrap_or_default(),
            _ => self.bodies.keys().nth(at / 4).copied().unwrap_or(Digest([at as u8; 32])),
        }
    }

    fn question(&self, input: &mut Input<'_>) -> Request {
        match input.byte() % 5 {
            0 => Request::Status(self.status(input)),
            1 => Request::Round((self.peer.round() + u64::from(input.byte() % 32)).saturating_sub(16)),
            2 => Request::Blob {
                hash: self.hash(input),
                offset: u64::from(input.byte()),
                length: u32::from(input.byte()) << 16,
            },
            3 => Request::Bodies((0..input.byte()).map(|_| self.hash(input)).collect()),
            _ => Request::History,
        }
    }

    /// What an honest neighbour might answer, more or less.
    fn answer(&self, question: &[u8], input: &mut Input<'_>) -> Response {
        match Request::decode(question) {
            Ok(Request::Status(_)) => Response::Status(self.status(input)),
            Ok(Request::Round(round)) => {
                let of = |signed: &&SignedHeader| signed.header.round == round;
                let headers: Vec<_> = self.headers.iter().filter(of).take(3).copied().collect();
                let proof = headers.first().copied().zip(headers.get(1).copied());
                match input.byte() % 4 {
                    0 => Response::Round(headers, Vec::new()),
                    1 => Response::Round(Vec::new(), proof.into_iter().collect()),
                    _ => Response::Round(headers.into_iter().take(1).collect(), Vec::new()),
                }
            }
            Ok(Request::Bodies(hashes)) => {
                let body = |hash: &Digest| self.bodies.get(hash).cloned().unwrap_or_default();
                Response::Bodies(hashes.iter().map(body).collect())
            }
            Ok(Request::Blob { hash, .. }) => {
                let held = self.peer.checkpoints().blob(&hash, 0, 1 << 20);
                let body = self.bodies.get(&hash).map(|body| (body.len() as u64, body.clone()));
                held.or(body).map_or(Response::Refused(Refusal::NotHeld), |(total, bytes)| Response::Blob {
                    total,
                    bytes,
                })
            }
            Ok(Request::History) => {
                let (first, digests) = self.peer.log().history();
                let first = first + u64::from(input.byte() % 3);
                Response::History { first, held_from: u64::from(input.byte() % 4), digests }
            }
            Ok(Request::Access(statements)) => {
                Response::Access { admitted: !statements.certificates.is_empty(), statements }
            }
            Err(_) => Response::Refused(Refusal::NotReady),
        }
    }
}

fn body(k: u32, level: i8) -> Vec<u8> {
    let (genesis, layout) = genesis();
    let mut delta = SparseDelta::default();
    delta.push(0, Step::nearest(64.0), [Entry { position: 1, level }]);
    packing::encode(layout, &genesis.rule, k, &delta).expect("a body")
}

fn damaged(mut bytes: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    let (high, low, flip) = (input.byte(), input.byte(), input.byte());
    let at = (usize::from(high) << 8 | usize::from(low)) % bytes.len().max(1);
    match (bytes.get_mut(at), flip) {
        (Some(_), 0) => bytes.truncate(at),
        (Some(byte), flip) => *byte ^= flip,
        (None, _) => {}
    }
    bytes
}
