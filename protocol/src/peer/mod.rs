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
//! * `gate` lets in and counts only those who are admitted, in a closed swarm.
//! * `exchange` talks with neighbours: statuses, rounds. `blobs` pulls and serves bytes by their hash,
//!   `transfer` whole checkpoints.
//! * [`rounds`] advances: sign, wait, fold, settle, checkpoint, finish.
//! * `size` tells how many peers there are.
//! * `faults` notices that what was computed here is not what the sets make.
//! * `branch` keeps all histories one: it takes up the majority's where ours differs.
//! * `start` is where a swarm begins; that of a fork is no peer's own, so it is fetched like a checkpoint.
//! * `join` and `catch_up` bring a newcomer, or somebody who was away, to where the swarm is.

mod action;
mod admission;
mod blobs;
mod branch;
mod catch_up;
mod discipline;
mod exchange;
mod faults;
mod gate;
mod join;
pub mod rounds;
mod size;
pub mod snapshot;
mod start;
mod transfer;

pub use action::{Action, Agreement, Part, Report, Spoken, Verdict};

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::layout::Layout;

use crate::Time;
use crate::anti_entropy::Neighbours;
use crate::checkpoint::{Checkpoints, Name};
use crate::checks::{Checks, Direct};
use crate::delta::Delta;
use crate::digest::Digest;
use crate::fetch::{Fetcher, Piece};
use crate::genesis::{Genesis, GenesisError};
use crate::identity::{Identity, PeerKey};
use crate::ledger::{Accounts, Fate, Ledger};
use crate::membership::Membership;
use crate::pacer::Pacer;
use crate::packing;
use crate::rates::Rates;
use crate::replica::Replica;
use crate::round_log::RoundLog;
use crate::wire::{Checkpoint, Role, Status};

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
    /// The tokenizer that the genesis names, if this peer has it: for those who join.
    tokenizer: Option<Arc<[u8]>>,
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
    rates: Rates,
    gate: gate::Gate,
    fetcher: Fetcher,
    bodies: BTreeMap<Digest, admission::AwaitedBody>,
    /// Deltas of open rounds that came from neighbours' lists and have not been passed on.
    unpassed: BTreeSet<(u64, Digest)>,
    /// Pieces that are about to be asked for, by source.
    pieces: BTreeMap<PeerKey, VecDeque<(Digest, Piece)>>,
    checkpoints: Checkpoints,
    /// What headers name before there is a checkpoint.
    start: Checkpoint,
    /// Whether C is that of the swarm: a peer of a fork begins without any.
    has_state: bool,
    /// The checkpoint that a newcomer starts from, if it was invited to one.
    pin: Option<Name>,
    /// A checkpoint that is being fetched, also while another source is looked for.
    transfer: Option<transfer::Transfer>,
    ledger: Ledger,
    /// Own mistakes so far, and the last checkpoint that was computed again and came out the same.
    faults: u32,
    verified: Option<Checkpoint>,
    /// Deltas that left the log while another history is fetched: most of them are in that one too.
    spare: HashMap<Digest, Arc<Delta>>,
    phase: Phase,
    round: u64,
    next_to_sign: u64,
    /// Neighbours that have said, before this peer took part, that it signed more than it knows of, and the
    /// rounds that they have been asked for.
    claims: BTreeMap<PeerKey, u64>,
    /// The history that most authors have, if it is not ours.
    majority: Option<branch::Majority>,
    /// When it was last looked whether most neighbours are right.
    outvoted_at: Option<Time>,
    given_up: Option<Box<branch::GivenUp>>,
    met_others: bool,
    /// Has stood in the swarm's rounds since it was started.
    member: bool,
    /// Left by everybody, and said so.
    alone: bool,
    /// Has heard what there was to hear in the rounds that are open: it was there all the time, or has caught up.
    in_touch: bool,
    refusals: BTreeMap<&'static str, u64>,
    offenders: discipline::Offenders,
    actions: VecDeque<Action>,
}

impl Peer {
    /// A peer at the beginning of the swarm that `genesis` describes. That of a fork has no model yet: see
    /// [`Peer::with_start`].
    ///
    /// # Errors
    /// A genesis that has no layout.
    pub fn new(
        now: Time,
        genesis: Arc<Genesis>,
        identity: Identity,
        part: Part,
    ) -> Result<Self, GenesisError> {
        Self::with_start(now, genesis, identity, part, None)
    }

    /// The same, with the starting point of a fork, if it is at hand. Without it, a peer of a fork founds
    /// nothing: it fetches the starting point from a neighbour.
    ///
    /// # Errors
    /// A genesis that has no layout, or `c0` is not what it names.
    pub fn with_start(
        now: Time,
        genesis: Arc<Genesis>,
        identity: Identity,
        part: Part,
        c0: Option<Coefficients>,
    ) -> Result<Self, GenesisError> {
        let layout = Arc::new(genesis.layout()?);
        let log = RoundLog::new(&genesis);
        let start::Start { c0, has_state, start, checkpoints } =
            start::Start::of(&genesis, &layout, &log, c0)?;
        let checks: Arc<dyn Checks> = Arc::new(Direct);
        let max_body = u32::try_from(packing::max_len(&layout, &genesis.rule)).unwrap_or(u32::MAX);
        Ok(Self {
            swarm: genesis.swarm_id(),
            me: identity.public(),
            identity,
            part,
            max_body,
            log,
            replica: Replica::new(layout.clone(), genesis.rule, c0, checks.clone()),
            checks,
            membership: Membership::default(),
            pacer: Pacer::new(&genesis.rounds, now),
            neighbours: Neighbours::default(),
            rates: Rates::new(&genesis, layout.len(), max_body),
            gate: gate::Gate::new(&genesis),
            fetcher: Fetcher::default(),
            bodies: BTreeMap::new(),
            unpassed: BTreeSet::new(),
            pieces: BTreeMap::new(),
            checkpoints,
            pin: None,
            transfer: None,
            ledger: Ledger::default(),
            faults: 0,
            verified: None,
            spare: HashMap::new(),
            start,
            has_state,
            phase: Phase::Seeking { since: now },
            round: 0,
            next_to_sign: 0,
            claims: BTreeMap::new(),
            majority: None,
            outvoted_at: None,
            given_up: None,
            met_others: false,
            member: false,
            alone: false,
            in_touch: true,
            refusals: BTreeMap::new(),
            offenders: discipline::Offenders::default(),
            actions: VecDeque::new(),
            tokenizer: None,
            genesis,
            layout,
        })
    }

    /// Serves these bytes, from now on, to whoever asks for the tokenizer that the genesis names. Returns whether they
    /// are it; nothing is served otherwise.
    pub fn serve_tokenizer(&mut self, bytes: Arc<[u8]>) -> bool {
        let pinned = self.genesis.tokenizer.map(|tokenizer| tokenizer.blake3);
        let is_it = pinned == Some(Digest::of_bytes(&bytes));
        self.tokenizer = is_it.then_some(bytes);
        is_it
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
                self.gives_up_seeking().map(|after| *since + after)
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
        [phase, self.neighbours.next_event(), self.gate.next_event()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_wake(&mut self, now: Time) {
        for (peer, pending) in self.neighbours.expired(now) {
            self.unanswered(now, peer, pending, true);
        }
        for peer in self.neighbours.due(now) {
            self.send_status(now, peer);
        }
        self.watch_gate(now);
        self.continue_phase(now);
    }

    /// `peer` of the same swarm is connected.
    pub fn handle_connected(&mut self, now: Time, peer: PeerKey) {
        if peer != self.me && self.meet(now, peer) {
            self.neighbours.connected(now, peer);
        }
    }

    /// `peer` is gone.
    pub fn handle_disconnected(&mut self, now: Time, peer: PeerKey) {
        self.left(now, peer);
        self.continue_phase(now);
    }

    /// `peer` is no neighbour any more.
    fn left(&mut self, now: Time, peer: PeerKey) {
        self.forget_contact(&peer);
        for pending in self.neighbours.disconnected(&peer) {
            self.unanswered(now, peer, pending, false);
        }
        for (hash, _) in self.pieces.remove(&peer).into_iter().flatten() {
            self.piece_failed(now, peer, hash);
        }
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

    /// The digest of everything that C is made of: the history up to the own round, if all sets settled as they
    /// are now. Peers in the same round with equal log digests hold equal coefficients.
    pub fn log_digest(&self) -> Digest {
        self.log.expected_digest(self.round).unwrap_or_default()
    }

    /// Number of connected peers of the same swarm.
    pub fn neighbours(&self) -> usize {
        self.neighbours.len()
    }

    /// A neighbour whose settled history is not ours, as far as its last status tells: its C differs. `None` if
    /// there are too few of them to say that it is not just one who lies.
    pub fn differing_neighbour(&self) -> Option<PeerKey> {
        let first = self.differing().next()?;
        (self.differing().count() * rounds::ONE_OF > self.neighbours.len()).then_some(first)
    }

    /// All neighbours whose settled history is not ours.
    fn differing(&self) -> impl Iterator<Item = PeerKey> {
        let differs = |status: &Status| {
            let ours = self.log.digest_after(status.settled);
            status.role != Role::Joining && ours.is_some_and(|ours| ours != status.log_digest)
        };
        let all = self.neighbours.iter();
        all.filter(move |(_, neighbour)| neighbour.status.as_ref().is_some_and(|(status, _)| differs(status)))
            .map(|(peer, _)| *peer)
    }

    /// What is known of `round`, which is open: who spoke, and whether it counts.
    pub fn spoken(&self, round: u64) -> Vec<Spoken> {
        let deltas = self.log.deltas(round);
        deltas
            .map(|delta| Spoken { header: *delta.header(), counts: !self.replica.leaves_out(delta) })
            .collect()
    }

    /// How much each parameter moved in `round`: see [`Replica::movement`].
    pub fn movement(&self, round: u64) -> Option<Vec<f64>> {
        self.replica.movement(round)
    }

    /// How many neighbours have the same settled history as this peer, as far as their last status tells.
    pub fn agreement(&self) -> Agreement {
        let mut found = Agreement::default();
        for (_, neighbour) in self.neighbours.iter() {
            let known = neighbour.status.as_ref().filter(|(status, _)| status.role != Role::Joining);
            let both = known.and_then(|(status, _)| Some((status, self.log.digest_after(status.settled)?)));
            match both {
                Some((status, ours)) if ours == status.log_digest => found.same += 1,
                Some(_) => found.differ += 1,
                None => found.unknown += 1,
            }
        }
        found
    }

    /// How many deltas have been folded, and how many of them late.
    pub fn folded_counts(&self) -> (u64, u64) {
        self.replica.folded_counts()
    }

    /// Whether C has learned from somebody else: a delta of another author is folded in a round that is open.
    pub fn has_folded_others(&self) -> bool {
        self.replica.has_folded_others(&self.me)
    }

    /// The newest checkpoint.
    pub fn newest_checkpoint(&self) -> Option<Name> {
        self.checkpoints.newest().map(|held| held.checkpoint.name())
    }

    /// The sets of all rounds that are open or retained.
    pub fn log(&self) -> &RoundLog {
        &self.log
    }

    /// The checkpoints that neighbours can fetch here.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// What became of everything that this peer has sent.
    pub fn accounts(&self) -> Accounts {
        self.ledger.accounts()
    }

    /// Round, id and fate of every own delta whose round is open or retained.
    pub fn fates(&self) -> impl Iterator<Item = (u64, Digest, Fate)> {
        self.ledger.fates()
    }

    /// The first round of an own delta of which it is not decided what becomes of it.
    pub fn oldest_open(&self) -> Option<u64> {
        let open = |fate: &Fate| matches!(fate, Fate::Open | Fate::GivenUp);
        self.ledger.fates().find(|(.., fate)| open(fate)).map(|(round, ..)| round)
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
            Phase::Seeking { .. } if !self.is_admitted() => "waiting to be admitted",
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
            Phase::Joining(_) => self.transfer.as_ref()?.progress(),
            _ => None,
        }
    }

    fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }
}
