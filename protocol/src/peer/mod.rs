//! The peer: one state machine over everything else in this crate.
//!
//! It has no clock, no socket, no file and no thread. Whoever drives it hands in what happened
//! (`handle_*`, with the time), carries out what [`Peer::poll_action`] asks for, and comes back at
//! [`Peer::next_event`] at the latest. The node drives it with libp2p and a trainer thread; a
//! simulator can drive thousands of them with virtual time.
//!
//! A round, seen from here:
//!
//! ```text
//!   StartRound ──> the driver trains ──> handle_trained
//!   Extract    ──> the trainer gives its delta ──> handle_extracted ──> signed
//!   Persist    ──> on disk ──> handle_persisted ──> Publish, then wait a little for the others
//!   Folded     ──> the driver recomputes its model from C ──> StartRound of the next round
//! ```
//!
//! * `admission` decides about deltas that come in: verified before anything is kept or passed on.
//! * `exchange` talks with neighbours: statuses, rounds, blobs.
//! * [`rounds`] advances: sign, wait, fold, settle, checkpoint, finish.
//! * `branch` keeps all histories one: it takes up the majority's where ours differs.
//! * `join` brings a newcomer, or somebody who was away, to where the swarm is.

mod admission;
mod branch;
mod exchange;
mod join;
pub mod rounds;
pub mod snapshot;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::layout::Layout;

use crate::Time;
use crate::anti_entropy::Neighbours;
use crate::checks::{Checks, Direct};
use crate::delta::Delta;
use crate::digest::Digest;
use crate::fetch::Fetcher;
use crate::genesis::{Genesis, GenesisError};
use crate::identity::{Identity, PeerKey};
use crate::initial;
use crate::membership::Membership;
use crate::pacer::Pacer;
use crate::packing;
use crate::replica::Replica;
use crate::round_log::RoundLog;
use crate::wire::{Checkpoint, Role, Status};

/// How a peer takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whether it trains and publishes; otherwise it replicates only.
    pub trains: bool,
    /// If nobody has been met by this time, be the swarm alone. `None`: wait for somebody.
    pub found_after: Option<Duration>,
    /// Stop before this round.
    pub stop_before: Option<u64>,
}

/// What the driver shall do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Flood these bytes.
    Publish(Vec<u8>),
    /// Whether the gossip message that came with `token` may be passed on.
    Verdict {
        /// The token of `handle_gossip`.
        token: u64,
        /// The decision.
        verdict: Verdict,
    },
    /// Ask `peer`; hand the answer to `handle_response` with the same id.
    Request {
        /// Whom.
        peer: PeerKey,
        /// Which question.
        id: u64,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Answer the request that came with `token`.
    Respond {
        /// The token of `handle_request`.
        token: u64,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Write this own delta to disk, durably, then call `handle_persisted`.
    Persist {
        /// Its round.
        round: u64,
        /// Signed header and body, as [`crate::wire::Gossip::decode`] reads them.
        bytes: Vec<u8>,
    },
    /// Train for this round, from the model of `coefficients` minus the own residual; then call
    /// `handle_trained`.
    StartRound(u64),
    /// Extract a delta from the residual; then call `handle_extracted`.
    Extract {
        /// For which round.
        round: u64,
        /// Density: coefficients of a full tile.
        k: u32,
    },
    /// C has changed: recompute the model (see [`Peer::take_touched`]).
    Folded,
    /// C has left one history for another, without deltas that this peer had published; it was this
    /// before. The device's own model shall stay as it is: the residual takes up the difference, C as it
    /// is now minus C as it was.
    Rebase(Box<Coefficients>),
    /// Something to tell the user.
    Report(Report),
    /// Cut `peer` off for a while.
    Ban {
        /// Whom.
        peer: PeerKey,
        /// For how long.
        duration: Duration,
        /// Why.
        reason: &'static str,
    },
    /// All rounds are done and every neighbour holds the same.
    Finished,
}

/// Whether a gossip message may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid: pass it on.
    Accept,
    /// Invalid: drop it, and think less of who passed it on.
    Reject,
    /// Not useful now: drop it, nobody's fault.
    Ignore,
}

/// Something to tell the user. `Refused` is reported once for each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The first message of this kind was dropped; see [`Peer::refusals`] for the counts.
    Refused {
        /// What was wrong.
        kind: &'static str,
        /// Who sent it.
        peer: PeerKey,
    },
    /// Nobody was met: this peer is the swarm for now.
    Founded,
    /// Fetching the swarm's state at this checkpoint.
    JoiningAt(Checkpoint),
    /// The swarm's state up to `round` is here.
    Joined {
        /// The round joined in.
        round: u64,
    },
    /// No neighbour has what is needed to join; trying again.
    CannotJoin(&'static str),
    /// Most authors have another history: ours has been given up from so many settled rounds on.
    GaveUp {
        /// How many.
        rounds: u64,
    },
    /// A neighbour's settled history differs from ours.
    Diverged {
        /// The neighbour.
        peer: PeerKey,
        /// The number of settled rounds at which it differs.
        settled: u64,
    },
    /// An author signed two deltas for one round.
    Equivocation {
        /// The author.
        author: PeerKey,
        /// The round.
        round: u64,
    },
    /// The network knows a delta of ours that we do not know: the identity is in use elsewhere, or was
    /// restored from an old backup.
    IdentityInUse {
        /// The round of that delta.
        round: u64,
    },
    /// All neighbours are gone: training goes on, nothing is published until somebody is back.
    Alone,
    /// The trainer's delta was not canonical and has been dropped: a fault of this build.
    Unusable,
}

enum Phase {
    /// Nobody met yet.
    Seeking { since: Time },
    /// Fetching the swarm's state.
    Joining(join::Join),
    /// The trainer is at work, or (a replica) the others are.
    Training,
    /// The trainer has been asked for its delta for this round.
    Extracting(u64),
    /// The own delta is on its way to the disk.
    Persisting(Box<Delta>),
    /// Waiting for the others' deltas.
    Waiting { deadline: Time },
    /// All own rounds are done.
    Finishing { agreed: BTreeMap<PeerKey, u64>, since: Time },
    /// Everybody agrees.
    Finished,
}

/// A peer's whole state, apart from what only the trainer knows (the residual).
pub struct Peer {
    genesis: Arc<Genesis>,
    swarm: Digest,
    layout: Arc<Layout>,
    identity: Identity,
    me: PeerKey,
    part: Part,
    max_body: u32,
    checks: Arc<dyn Checks>,
    log: RoundLog,
    replica: Replica,
    membership: Membership,
    pacer: Pacer,
    neighbours: Neighbours,
    fetcher: Fetcher,
    bodies: BTreeMap<Digest, admission::AwaitedBody>,
    checkpoints: VecDeque<(Checkpoint, Coefficients)>,
    start: Checkpoint,
    phase: Phase,
    round: u64,
    next_to_sign: u64,
    /// The history that most authors have, if it is not ours.
    majority: Option<branch::Majority>,
    given_up: Option<Box<branch::GivenUp>>,
    met_others: bool,
    /// Left by everybody, and said so.
    alone: bool,
    refusals: BTreeMap<&'static str, u64>,
    strikes: BTreeMap<PeerKey, u32>,
    actions: VecDeque<Action>,
}

impl Peer {
    /// A peer at the beginning of the swarm that `genesis` describes.
    ///
    /// # Errors
    /// A genesis that has no layout.
    pub fn new(
        now: Time,
        genesis: Arc<Genesis>,
        identity: Identity,
        part: Part,
    ) -> Result<Self, GenesisError> {
        let layout = Arc::new(genesis.layout()?);
        let c0 = initial::coefficients(&genesis, &layout);
        let log = RoundLog::new(&genesis);
        let checks: Arc<dyn Checks> = Arc::new(Direct);
        let start =
            Checkpoint { settled: 0, state: Digest::of_state(c0.values()), log_digest: log.log_digest() };
        Ok(Self {
            swarm: genesis.swarm_id(),
            me: identity.public(),
            identity,
            part,
            max_body: u32::try_from(packing::max_len(&layout, &genesis.rule)).unwrap_or(u32::MAX),
            log,
            replica: Replica::new(layout.clone(), genesis.rule, c0, checks.clone()),
            checks,
            membership: Membership::default(),
            pacer: Pacer::new(&genesis.rounds, now),
            neighbours: Neighbours::default(),
            fetcher: Fetcher::default(),
            bodies: BTreeMap::new(),
            checkpoints: VecDeque::new(),
            start,
            phase: Phase::Seeking { since: now },
            round: 0,
            next_to_sign: 0,
            majority: None,
            given_up: None,
            met_others: false,
            alone: false,
            refusals: BTreeMap::new(),
            strikes: BTreeMap::new(),
            actions: VecDeque::new(),
            genesis,
            layout,
        })
    }

    /// Asks `checks`, instead of computing each answer itself, from now on.
    pub fn set_checks(&mut self, checks: Arc<dyn Checks>) {
        self.replica.set_checks(checks.clone());
        self.checks = checks;
    }

    /// Stop before `round`, or do not stop by itself. Takes effect when the next round begins.
    pub fn set_stop(&mut self, round: Option<u64>) {
        self.part.stop_before = round;
    }

    /// The next thing to do, or `None`. Call until `None` after every `handle_*`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Peer::handle_wake`] at the latest.
    pub fn next_event(&self) -> Option<Time> {
        let phase = match &self.phase {
            // With somebody to join in sight, the next status decides.
            Phase::Seeking { since } if self.somebody_to_join().is_none() => {
                self.part.found_after.map(|after| *since + after)
            }
            Phase::Waiting { deadline } => Some(*deadline),
            Phase::Training if !self.part.trains => {
                let behind = self.membership.swarm_round(self.round).is_some_and(|swarm| swarm >= self.round);
                behind.then(|| self.pacer.earliest())
            }
            Phase::Finishing { since, .. } if self.neighbours.is_empty() => {
                Some(*since + rounds::FINISH_ALONE)
            }
            _ => None,
        };
        [phase, self.neighbours.next_event()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_wake(&mut self, now: Time) {
        for (peer, pending) in self.neighbours.expired(now) {
            self.unanswered(now, peer, pending);
        }
        for peer in self.neighbours.due(now) {
            self.send_status(now, peer);
        }
        self.continue_phase(now);
    }

    /// `peer` of the same swarm is connected.
    pub fn handle_connected(&mut self, now: Time, peer: PeerKey) {
        if peer != self.me {
            self.neighbours.connected(now, peer);
        }
    }

    /// `peer` is gone.
    pub fn handle_disconnected(&mut self, now: Time, peer: PeerKey) {
        for pending in self.neighbours.disconnected(&peer) {
            self.unanswered(now, peer, pending);
        }
        self.continue_phase(now);
    }

    /// The genesis.
    pub fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// The swarm id.
    pub fn swarm_id(&self) -> Digest {
        self.swarm
    }

    /// The layout of the shared parameters.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// This peer's public key.
    pub fn key(&self) -> PeerKey {
        self.me
    }

    /// The round that this peer trains for.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// C as it is now.
    pub fn coefficients(&self) -> &Coefficients {
        self.replica.coefficients()
    }

    /// Which tiles of C have changed since the last call: one flag a tile.
    pub fn take_touched(&mut self) -> Vec<bool> {
        self.replica.take_touched()
    }

    /// The state digest of C as it is now. Costs a hash over all coefficients.
    pub fn state_digest(&self) -> Digest {
        self.replica.state_digest()
    }

    /// The digest of everything that C is made of: the settled history and the open sets folded so far.
    /// Peers with equal log digests hold equal coefficients.
    pub fn log_digest(&self) -> Digest {
        let mut bytes = Vec::new();
        for (round, digest) in self.log.set_digests(self.log.settled()) {
            if round < self.round {
                bytes.extend(round.to_le_bytes());
                bytes.extend(digest.0);
            }
        }
        Digest::of("swarm position 1", &[&self.log.log_digest().0, &bytes])
    }

    /// Number of connected peers of the same swarm.
    pub fn neighbours(&self) -> usize {
        self.neighbours.len()
    }

    /// A neighbour whose settled history is not ours, as far as its last status tells: its C differs.
    pub fn differing_neighbour(&self) -> Option<PeerKey> {
        let differs = |status: &Status| {
            let ours = self.log.digest_after(status.settled);
            status.role != Role::Joining && ours.is_some_and(|ours| ours != status.log_digest)
        };
        let mut all = self.neighbours.iter();
        all.find(|(_, neighbour)| neighbour.status.as_ref().is_some_and(|(status, _)| differs(status)))
            .map(|(peer, _)| *peer)
    }

    /// How many deltas have been folded, and how many of them late.
    pub fn folded_counts(&self) -> (u64, u64) {
        self.replica.folded_counts()
    }

    /// The sets of all rounds that are open or retained.
    pub fn log(&self) -> &RoundLog {
        &self.log
    }

    /// Number of deltas held, settled or not.
    pub fn held_deltas(&self) -> usize {
        self.log.held()
    }

    /// How many messages were dropped, by kind.
    pub fn refusals(&self) -> &BTreeMap<&'static str, u64> {
        &self.refusals
    }

    /// What this peer does, as its neighbours are told.
    pub fn role(&self) -> Role {
        match self.phase {
            Phase::Seeking { .. } | Phase::Joining(_) => Role::Joining,
            Phase::Finishing { .. } | Phase::Finished => Role::Finishing,
            _ if self.part.trains => Role::Author,
            _ => Role::Replica,
        }
    }

    /// What this peer is doing, in words for its user.
    pub fn doing(&self) -> &'static str {
        match self.phase {
            Phase::Seeking { .. } => "waiting for peers",
            Phase::Joining(_) => "joining",
            Phase::Finishing { .. } => "finishing",
            Phase::Finished => "done",
            _ if self.part.trains => "training",
            _ => "replicating",
        }
    }

    /// Bytes fetched of the state that is being joined, and of how many.
    pub fn join_progress(&self) -> Option<(u64, u64)> {
        match &self.phase {
            Phase::Joining(join) => self.fetcher.progress(&join.wanted_state()?),
            _ => None,
        }
    }

    fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }

    /// Counts a dropped message; reports the first of its kind.
    fn refuse(&mut self, kind: &'static str, peer: PeerKey) {
        let count = self.refusals.entry(kind).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.report(Report::Refused { kind, peer });
        }
    }

    /// Counts a broken rule; after a few, the peer is cut off for a while.
    fn strike(&mut self, kind: &'static str, peer: PeerKey) {
        const STRIKES: u32 = 8;
        const MAX_TRACKED: usize = 4096;
        const BAN: Duration = Duration::from_secs(600);
        self.refuse(kind, peer);
        if self.strikes.len() >= MAX_TRACKED {
            self.strikes.clear();
        }
        let strikes = self.strikes.entry(peer).or_insert(0);
        *strikes += 1;
        if *strikes >= STRIKES {
            self.strikes.remove(&peer);
            self.actions.push_back(Action::Ban { peer, duration: BAN, reason: kind });
        }
    }
}
