//! A network of peers in virtual time: a seed decides every delay, loss, repetition and what is learned.

// A module of two test programs: each uses a part of it, and a panic is how a test fails.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::residual::Residual;
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::Time;
use swarm_protocol::architecture::Sizes;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::{Identity, PeerKey};
use swarm_protocol::packing;
use swarm_protocol::peer::rounds::Extracted;
use swarm_protocol::peer::{Action, Part, Peer, Report, Verdict};
use swarm_protocol::wire::{Request, Response};

pub const FOUNDER: Part = Part { trains: true, found_after: Some(Duration::ZERO), stop_before: None };
pub const JOINER: Part = Part { trains: true, found_after: None, stop_before: None };
pub const REPLICA: Part = Part { trains: false, found_after: Some(Duration::ZERO), stop_before: None };

/// A small swarm's genesis: rounds of a second or so, a window of eight: six seconds, so that
/// anti-entropy (a status a second, a second of patience) repairs what gossip loses before a round settles.
pub fn genesis() -> Arc<Genesis> {
    let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
    let mut genesis = Genesis::new("virtual", model, 1);
    genesis.rule.tile = 8;
    genesis.rule.k = 4;
    genesis.rounds.window = 8;
    genesis.rounds.retention = 32;
    genesis.rounds.checkpoint_every = 4;
    genesis.rounds.min_round_ms = 100;
    genesis.rounds.round_ms = 2_000;
    genesis.rounds.grace_ms = 500;
    genesis.validate().unwrap();
    Arc::new(genesis)
}

/// What a liar answers to a question, given what its state machine would have answered; `None`: nothing, ever.
/// A status that it sends by itself goes through here as well, as the answer to that status.
pub type Lie = Box<dyn FnMut(&Request, Response) -> Option<Response>>;

/// What went from one peer to another as answers.
#[derive(Clone, Copy, Default)]
pub struct Served {
    pub answers: u64,
    pub bytes: u64,
    /// Of them, bytes of blobs that were asked for one at a time: checkpoints and large bodies.
    pub blobs: u64,
}

enum Event {
    Wake(usize),
    Trained(usize),
    Gossip { to: usize, from: usize, origin: usize, bytes: Vec<u8> },
    Request { to: usize, from: usize, id: u64, bytes: Vec<u8> },
    Response { to: usize, from: usize, id: u64, bytes: Vec<u8> },
}

pub struct World {
    pub now: Time,
    pub peers: Vec<Peer>,
    pub alive: Vec<bool>,
    pub reports: Vec<Vec<Report>>,
    pub bans: Vec<(usize, PeerKey)>,
    pub outboxes: Vec<Vec<Vec<u8>>>,
    pub finished: BTreeSet<usize>,
    /// How often each has been told to keep its own model while C changed its history.
    pub rebased: Vec<usize>,
    /// Rounds whose own delta went back to the residual.
    pub returned: Vec<BTreeSet<u64>>,
    /// Chance in a thousand that a gossip message is lost on a link, and that it comes twice.
    pub loss: u64,
    pub duplication: u64,
    /// Pairs that cannot talk.
    pub cut: BTreeSet<(usize, usize)>,
    /// Milliseconds that a round's training takes, a peer.
    pub speed: Vec<u64>,
    /// Peers whose answers are not what their state machine says.
    pub lies: BTreeMap<usize, Lie>,
    /// Answers by who gave them and who asked, and questions by who asked and who was asked.
    pub served: BTreeMap<(usize, usize), Served>,
    pub asked: BTreeMap<(usize, usize), u64>,
    /// How often a peer has passed on what another one had let go of, and sent something of its own.
    pub passed_on: Vec<u64>,
    pub published: Vec<u64>,
    /// Deltas are a few numbers, so that a large model costs no time.
    pub sparse: bool,
    /// All find nearly the same, but this one the opposite.
    pub contrary: Option<usize>,
    genesis: Arc<Genesis>,
    queue: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    random: u64,
    wakes: Vec<Option<Time>>,
    tokens: BTreeMap<u64, (usize, u64, Vec<u8>)>,
    gossip: BTreeMap<u64, (usize, usize, Vec<u8>)>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, genesis())
    }

    pub fn with(seed: u64, genesis: Arc<Genesis>) -> Self {
        Self {
            now: Duration::from_secs(1),
            peers: Vec::new(),
            alive: Vec::new(),
            reports: Vec::new(),
            bans: Vec::new(),
            outboxes: Vec::new(),
            finished: BTreeSet::new(),
            rebased: Vec::new(),
            returned: Vec::new(),
            loss: 0,
            duplication: 0,
            cut: BTreeSet::new(),
            speed: Vec::new(),
            lies: BTreeMap::new(),
            served: BTreeMap::new(),
            asked: BTreeMap::new(),
            passed_on: Vec::new(),
            published: Vec::new(),
            sparse: false,
            contrary: None,
            genesis,
            queue: BTreeMap::new(),
            sequence: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            wakes: Vec::new(),
            tokens: BTreeMap::new(),
            gossip: BTreeMap::new(),
        }
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % bound.max(1)
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), event);
    }

    pub fn secret(at: usize) -> [u8; 32] {
        [at as u8 + 1; 32]
    }

    /// Adds a peer, connected to all others that are alive.
    pub fn add(&mut self, part: Part) -> usize {
        self.add_with(part, None)
    }

    /// The same, with the starting point of a fork.
    pub fn add_with(&mut self, part: Part, c0: Option<Coefficients>) -> usize {
        let at = self.peers.len();
        let identity = Identity::from_secret(&Self::secret(at));
        let peer = Peer::with_start(self.now, self.genesis.clone(), identity, part, c0).unwrap();
        self.peers.push(peer);
        self.alive.push(true);
        self.reports.push(Vec::new());
        self.outboxes.push(Vec::new());
        self.rebased.push(0);
        self.returned.push(BTreeSet::new());
        self.wakes.push(None);
        self.speed.push(700);
        self.passed_on.push(0);
        self.published.push(0);
        self.connect(at);
        at
    }

    /// Stops a peer for good or until `restart`.
    pub fn stop(&mut self, at: usize) {
        self.alive[at] = false;
        let key = self.peers[at].key();
        for other in 0..self.peers.len() {
            if other != at && self.alive[other] {
                self.peers[other].handle_disconnected(self.now, key);
                self.act(other);
            }
        }
    }

    /// Cuts a running peer off from everybody: both ends notice.
    pub fn unplug(&mut self, at: usize) {
        for other in 0..self.peers.len() {
            if other != at && self.alive[other] {
                self.disconnect(at, other);
            }
        }
    }

    /// Closes the connection of two running peers; both notice.
    pub fn disconnect(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
        for (at, other) in [(a, b), (b, a)] {
            let key = self.peers[other].key();
            self.peers[at].handle_disconnected(self.now, key);
            self.act(at);
        }
    }

    /// Undoes `unplug`.
    pub fn plug(&mut self, at: usize) {
        self.cut.retain(|(a, b)| *a != at && *b != at);
        self.connect(at);
    }

    /// Connects a running peer with all that it is not cut off from.
    pub fn plug_in(&mut self, at: usize) {
        self.connect(at);
    }

    /// Puts a new state machine in a stopped peer's place.
    pub fn restart(&mut self, at: usize, peer: Peer) {
        self.peers[at] = peer;
        self.alive[at] = true;
        self.wakes[at] = None;
        self.connect(at);
    }

    pub fn genesis(&self) -> Arc<Genesis> {
        self.genesis.clone()
    }

    fn connect(&mut self, at: usize) {
        let key = self.peers[at].key();
        for other in 0..self.peers.len() {
            if other != at && self.linked(at, other) {
                let other_key = self.peers[other].key();
                self.peers[other].handle_connected(self.now, key);
                self.peers[at].handle_connected(self.now, other_key);
                self.act(other);
            }
        }
        self.act(at);
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        self.alive[a] && self.alive[b] && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(5 + self.below(60))
    }

    fn flood(&mut self, from: usize, origin: usize, bytes: &[u8]) {
        for to in 0..self.peers.len() {
            if to == from || to == origin || !self.linked(from, to) {
                continue;
            }
            let copies =
                u64::from(self.below(1000) >= self.loss) + u64::from(self.below(1000) < self.duplication);
            for _ in 0..copies {
                let delay = self.delay();
                self.schedule(delay, Event::Gossip { to, from, origin, bytes: bytes.to_vec() });
            }
        }
    }

    fn index(&self, key: PeerKey) -> usize {
        self.peers.iter().position(|peer| peer.key() == key).unwrap()
    }

    /// Carries out a peer's actions and schedules its next wake.
    pub fn act(&mut self, at: usize) {
        while let Some(action) = self.peers[at].poll_action() {
            match action {
                Action::StartRound(_) => {
                    let time = self.speed[at] + self.below(100);
                    self.schedule(Duration::from_millis(time), Event::Trained(at));
                }
                Action::Extract { round, k } => self.extract(at, round, k),
                Action::Persist { round, bytes } => {
                    self.outboxes[at].push(bytes);
                    self.peers[at].handle_persisted(self.now, round);
                }
                Action::Publish(bytes) => {
                    self.published[at] += 1;
                    self.flood(at, at, &bytes);
                }
                Action::Verdict { token, verdict } => {
                    let (from, origin, bytes) = self.gossip.remove(&token).unwrap();
                    self.passed_on[at] += u64::from(verdict == Verdict::Accept);
                    if verdict == Verdict::Accept && from == origin {
                        // One more hop is enough in a full mesh, and it is how bodies meet twice.
                        self.flood(at, origin, &bytes);
                    }
                }
                Action::Request { peer, id, bytes } => {
                    let to = self.index(peer);
                    *self.asked.entry((at, to)).or_default() += 1;
                    let Some(bytes) = self.boast(at, bytes) else { continue };
                    if self.linked(at, to) {
                        let delay = self.delay();
                        self.schedule(delay, Event::Request { to, from: at, id, bytes });
                    }
                }
                Action::Respond { token, bytes } => {
                    let (to, id, question) = self.tokens.remove(&token).unwrap();
                    let Some(bytes) = self.answer(at, &question, bytes) else { continue };
                    let served = self.served.entry((at, to)).or_default();
                    served.answers += 1;
                    served.bytes += bytes.len() as u64;
                    if matches!(Response::decode(&bytes), Ok(Response::Blob { .. })) {
                        served.blobs += bytes.len() as u64;
                    }
                    if self.linked(at, to) {
                        let delay = self.delay();
                        self.schedule(delay, Event::Response { to, from: at, id, bytes });
                    }
                }
                Action::Report(report) => self.reports[at].push(report),
                Action::Ban { peer, .. } => {
                    self.bans.push((at, peer));
                    let other = self.index(peer);
                    self.disconnect(at, other);
                }
                Action::Finished => {
                    self.finished.insert(at);
                }
                Action::Folded | Action::Checkpoint(_) => {}
                Action::Return { round, .. } => {
                    let first = self.returned[at].insert(round);
                    assert!(first, "the delta of round {round} went back twice");
                }
                Action::Take { round, .. } => assert!(self.returned[at].remove(&round)),
                Action::Rebase(_) => self.rebased[at] += 1,
            }
        }
        if let Some(next) = self.peers[at].next_event() {
            let next = next.max(self.now);
            if self.wakes[at].is_none_or(|wake| wake > next || wake <= self.now) {
                self.wakes[at] = Some(next);
                self.schedule(next - self.now, Event::Wake(at));
            }
        }
    }

    /// What `at` answers to `question` instead of `honest`, if it lies.
    fn answer(&mut self, at: usize, question: &[u8], honest: Vec<u8>) -> Option<Vec<u8>> {
        let Some(lie) = self.lies.get_mut(&at) else { return Some(honest) };
        match (Request::decode(question), Response::decode(&honest)) {
            (Ok(question), Ok(answer)) => lie(&question, answer).map(|answer| answer.encode()),
            _ => Some(honest),
        }
    }

    /// What `at` says of itself instead of `question`, if it lies.
    fn boast(&mut self, at: usize, question: Vec<u8>) -> Option<Vec<u8>> {
        let Some(lie) = self.lies.get_mut(&at) else { return Some(question) };
        let Ok(Request::Status(status)) = Request::decode(&question) else { return Some(question) };
        match lie(&Request::Status(status.clone()), Response::Status(status)) {
            Some(Response::Status(status)) => Some(Request::Status(status).encode()),
            _ => None,
        }
    }

    fn extract(&mut self, at: usize, round: u64, k: u32) {
        let layout = self.peers[at].layout().clone();
        if self.sparse {
            let entry = Entry { position: self.below(16) as u16, level: 1 };
            let mut delta = SparseDelta::default();
            delta.push(self.below(layout.tiles().len() as u64) as u32, Step::nearest(64.0), vec![entry]);
            let body = packing::encode(&layout, &self.genesis.rule, k, &delta).unwrap();
            let extracted = Extracted { round, body, tokens: 64, loss_before: 2.0, loss_after: 1.9 };
            self.peers[at].handle_extracted(self.now, extracted);
            return;
        }
        let scale = self.contrary.map_or(0.0, |contrary| if at == contrary { -5e-3 } else { 5e-3 });
        let common = |index: usize| scale * ((index * 7919 + round as usize) % 13) as f32 - 6.0 * scale;
        let common: Vec<f32> = (0..layout.len()).map(common).collect();
        let own = common.into_iter().map(|common| common + (self.below(2001) as f32 - 1000.0) * 1e-5);
        let values = own.collect();
        let mut residual = Residual::from_values(&layout, values).unwrap();
        let rule = self.genesis.rule;
        let delta = residual.extract(&layout, &mut Kernels::single(&layout), k as usize, rule.max_exponent);
        let body = packing::encode(&layout, &rule, k, &delta).unwrap();
        let extracted = Extracted { round, body, tokens: 64, loss_before: 2.0, loss_after: 1.9 };
        self.peers[at].handle_extracted(self.now, extracted);
    }

    /// Hands bytes to a peer as gossip from another.
    pub fn gossip(&mut self, to: usize, from: usize, bytes: &[u8]) {
        self.sequence += 1;
        let token = self.sequence;
        self.gossip.insert(token, (from, from, bytes.to_vec()));
        let key = self.peers[from].key();
        self.peers[to].handle_gossip(self.now, key, token, bytes);
        self.act(to);
    }

    /// Hands a request to a peer as from another, and returns nothing: what matters is what it leaves.
    pub fn request(&mut self, to: usize, from: usize, bytes: &[u8]) {
        self.sequence += 1;
        let token = self.sequence;
        self.tokens.insert(token, (from, token, bytes.to_vec()));
        let key = self.peers[from].key();
        self.peers[to].handle_request(self.now, key, token, bytes);
        self.act(to);
    }

    /// All that was served to `to`, by everybody.
    pub fn served_to(&self, to: usize) -> Served {
        let all = self.served.iter().filter(|((_, at), _)| *at == to).map(|(_, served)| served);
        all.fold(Served::default(), |sum, one| Served {
            answers: sum.answers + one.answers,
            bytes: sum.bytes + one.bytes,
            blobs: sum.blobs + one.blobs,
        })
    }

    /// How often `at` has refused something of this kind.
    pub fn refused(&self, at: usize, kind: &str) -> u64 {
        self.peers[at].refusals().get(kind).copied().unwrap_or(0)
    }

    /// Asserts that `at` has banned none but those in `bad`.
    pub fn assert_only_banned(&self, bad: &[usize]) {
        for (at, banned) in &self.bans {
            let who = self.index(*banned);
            assert!(bad.contains(&who) || bad.contains(at), "peer {at} has banned peer {who}");
        }
    }

    /// Runs until `until` or until nothing is left to happen.
    pub fn run_until(&mut self, until: Time) {
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > until {
                break;
            }
            let Some(((time, _), event)) = self.queue.pop_first() else { break };
            self.now = time;
            self.step(event);
        }
        self.now = until;
    }

    pub fn run_for(&mut self, seconds: u64) {
        self.run_until(self.now + Duration::from_secs(seconds));
    }

    fn step(&mut self, event: Event) {
        let now = self.now;
        let at = match event {
            Event::Wake(at) if self.alive[at] => {
                self.wakes[at] = None;
                self.peers[at].handle_wake(now);
                at
            }
            Event::Trained(at) if self.alive[at] => {
                self.peers[at].handle_trained(now);
                at
            }
            Event::Gossip { to, from, origin, bytes } if self.alive[to] => {
                self.sequence += 1;
                let token = self.sequence;
                let key = self.peers[from].key();
                self.gossip.insert(token, (from, origin, bytes.clone()));
                self.peers[to].handle_gossip(now, key, token, &bytes);
                to
            }
            Event::Request { to, from, id, bytes } if self.linked(to, from) => {
                self.sequence += 1;
                let token = self.sequence;
                self.tokens.insert(token, (from, id, bytes.clone()));
                let key = self.peers[from].key();
                self.peers[to].handle_request(now, key, token, &bytes);
                to
            }
            Event::Response { to, from, id, bytes } if self.linked(to, from) => {
                let key = self.peers[from].key();
                self.peers[to].handle_response(now, key, id, Some(&bytes));
                to
            }
            _ => return,
        };
        self.act(at);
    }

    /// Asserts that all peers in `who` hold the same, at the same place.
    pub fn assert_agreement(&self, who: &[usize]) {
        let first = &self.peers[who[0]];
        for &at in who {
            let peer = &self.peers[at];
            assert_eq!(peer.round(), first.round(), "peer {at} stands at another round than peer {}", who[0]);
            assert_eq!(
                peer.log_digest(),
                first.log_digest(),
                "peer {at} holds other sets than peer {}",
                who[0]
            );
            assert_eq!(peer.state_digest(), first.state_digest(), "peer {at} holds other integers");
        }
    }
}
