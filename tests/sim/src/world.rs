//! The swarm: places where peers are, and the loop over what happens to them.
//!
//! `act` carries out what a peer's state machine asks for; `weather` lets peers come and go and splits
//! the network.

mod act;
mod weather;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::layout::Layout;
use swarm_protocol::Time;
use swarm_protocol::checks::{Checks, Direct};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::{Identity, PeerKey};
use swarm_protocol::peer::snapshot::Snapshot;
use swarm_protocol::peer::{Part, Peer, Report};
use swarm_protocol::wire::Role;

use crate::clock::Clock;
use crate::invariants::Invariants;
use crate::network::{Carried, Message, Network};
use crate::options::{Attack, Options};
use crate::queue::{Event, Queue, Who};
use crate::random::{Random, secret};
use crate::remembered::Remembered;
use crate::sabotage::Sabotage;
use crate::summary::{Flow, Progress, Summary};
use crate::trainer::Trainer;
use crate::violation::{Error, Invariant, Violation};

/// How often it is looked how far everybody is, and neighbours are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The honest peers must have agreed for this many looks in a row.
const AGREEING_LOOKS: u32 = 5;
/// Time that anti-entropy has after the last round before the peers must agree.
const QUIET: Duration = Duration::from_secs(300);

/// What is on a peer's disk.
struct Saved {
    snapshot: Snapshot,
    checkpoints: Vec<(Vec<u8>, Coefficients)>,
    given_back: BTreeSet<u64>,
}

/// A place where a peer is, or was.
struct Place {
    peer: Option<Peer>,
    life: u32,
    key: PeerKey,
    /// What the key is made from: it counts the newcomers.
    person: u64,
    clock: Clock,
    training_time: Duration,
    /// Tells the current training from one that was given up.
    training: u64,
    wake: Option<Time>,
    /// What `Persist` asked to write.
    outbox: VecDeque<Vec<u8>>,
    snapshot: Option<Saved>,
    /// Rounds whose own delta went back to the residual.
    given_back: BTreeSet<u64>,
    attack: Option<Attack>,
    finished: bool,
    /// The last thing that it told its user.
    report: Option<Report>,
    /// What a replayer has heard.
    heard: Vec<Rc<Message>>,
}

/// An honest author's delta that went out.
struct Published {
    round: u64,
    author: PeerKey,
    id: Digest,
}

/// The whole simulation.
pub(crate) struct World {
    options: Options,
    genesis: Arc<Genesis>,
    layout: Arc<Layout>,
    checks: Arc<dyn Checks>,
    queue: Queue,
    network: Network,
    random: Random,
    trainer: Trainer,
    invariants: Invariants,
    places: Vec<Place>,
    index: HashMap<PeerKey, Who>,
    /// Number of the last message or token.
    number: u64,
    /// Who waits for the answer with this token, and the id of the question.
    asked: HashMap<u64, (Who, u64)>,
    /// The gossip message whose verdict has this token, and who passed it on.
    undecided: HashMap<u64, (usize, Rc<Message>)>,
    published: Vec<Published>,
    signed: HashMap<(PeerKey, u64), Digest>,
    summary: Summary,
    /// Nobody comes or goes any more: since when.
    ending: Option<Time>,
    agreeing: u32,
    sabotage: Option<Sabotage>,
}

impl World {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        options.validate().map_err(Error::Options)?;
        let genesis = Arc::new(options.genesis());
        let layout = Arc::new(genesis.layout().map_err(|error| Error::Options(error.to_string()))?);
        let checks: Arc<dyn Checks> =
            if options.full { Arc::new(Direct) } else { Arc::new(Remembered::default()) };
        let mut world = Self {
            trainer: Trainer::new(options.seed, layout.clone(), genesis.rule, options.peers, options.full),
            invariants: Invariants::new(options, genesis.clone(), layout.clone()),
            network: Network::new(options),
            random: Random::new(options.seed, "world", 0),
            queue: Queue::default(),
            options: options.clone(),
            genesis,
            layout,
            checks,
            places: Vec::new(),
            index: HashMap::new(),
            number: 0,
            asked: HashMap::new(),
            undecided: HashMap::new(),
            published: Vec::new(),
            signed: HashMap::new(),
            summary: Summary::default(),
            ending: None,
            agreeing: 0,
            sabotage: None,
        };
        for at in 0..options.peers {
            world.add_place(at);
        }
        Ok(world)
    }

    /// Lets something go wrong in this run.
    pub(crate) fn sabotage(&mut self, sabotage: Sabotage) {
        self.sabotage = Some(sabotage);
        self.invariants.sabotage = Some(sabotage);
    }

    fn add_place(&mut self, at: usize) {
        let options = &self.options;
        let mut random = Random::new(options.seed, "place", at as u64);
        let fast = (2.0 * random.unit() - 1.0) * options.drift * 1e6;
        let clock = Clock::new(Duration::from_secs(1) + random.within(options.skew), fast as i32);
        let slowness = if random.chance(options.slow) { options.slowness } else { 1.0 };
        let training_time = random.log_normal(options.round, 0.1).mul_f64(slowness);
        // The first peer is honest, whatever the share.
        let bad = at > 0 && random.chance(options.byzantine);
        let attack = bad.then(|| options.attacks[at % options.attacks.len()]);
        self.places.push(Place {
            peer: None,
            life: 0,
            key: self.identity(at, 0).public(),
            person: 0,
            clock,
            training_time,
            training: 0,
            wake: None,
            outbox: VecDeque::new(),
            snapshot: None,
            given_back: BTreeSet::new(),
            attack,
            finished: false,
            report: None,
            heard: Vec::new(),
        });
    }

    fn identity(&self, at: usize, person: u64) -> Identity {
        Identity::from_secret(&secret(self.options.seed, "identity", (person << 32) | at as u64))
    }

    fn who(&self, at: usize) -> Who {
        Who { at, life: self.places[at].life }
    }

    fn is_there(&self, who: Who) -> bool {
        let place = &self.places[who.at];
        place.life == who.life && place.peer.is_some()
    }

    /// What the clock of the peer at `at` shows.
    fn clock(&self, at: usize) -> Time {
        self.places[at].clock.shows(self.queue.now())
    }

    fn is_honest(&self, at: usize) -> bool {
        self.places[at].attack.is_none()
    }

    fn violated(&self, invariant: Invariant, peers: Vec<usize>, detail: String) -> Violation {
        self.invariants.violated(invariant, self.queue.now(), peers, detail)
    }

    /// Starts a peer at an empty place, as `part` says; `restore` brings back what it had.
    fn start(&mut self, at: usize, found_after: Option<Duration>, restore: bool) -> Result<(), Violation> {
        let part = Part { trains: true, found_after, stop_before: Some(self.options.rounds) };
        let now = self.clock(at);
        let identity = self.identity(at, self.places[at].person);
        let refused = |world: &Self, why: String| world.violated(Invariant::Restart, vec![at], why);
        let mut peer = Peer::new(now, self.genesis.clone(), identity, part)
            .map_err(|error| refused(self, error.to_string()))?;
        peer.set_checks(self.checks.clone());
        if restore {
            let outbox: Vec<Vec<u8>> = self.places[at].outbox.iter().cloned().collect();
            let restored = match self.places[at].snapshot.take() {
                Some(Saved { mut snapshot, checkpoints, given_back }) => {
                    if self.sabotage == Some(Sabotage::SpoilSnapshot) {
                        snapshot.position.swarm = Digest::default();
                    }
                    self.places[at].given_back = given_back;
                    peer.restore(now, snapshot, &outbox).map(|()| {
                        for (manifest, state) in checkpoints {
                            peer.restore_checkpoint(manifest, state);
                        }
                    })
                }
                None => {
                    self.places[at].given_back.clear();
                    peer.restore_outbox(&outbox)
                }
            };
            restored.map_err(|why| refused(self, why))?;
        }
        let place = &mut self.places[at];
        place.life += 1;
        place.key = peer.key();
        place.wake = None;
        place.finished = false;
        place.report = None;
        place.peer = Some(peer);
        self.index.insert(self.places[at].key, self.who(at));
        self.invariants.restarted(at);
        self.look_for_neighbours(at)?;
        self.act(at)
    }

    /// Connects the peer at `at` with others if it has too few neighbours.
    fn look_for_neighbours(&mut self, at: usize) -> Result<(), Violation> {
        let places = &self.places;
        for other in self.network.look_for_neighbours(at, |at| places[at].peer.is_some()) {
            self.connected(at, other)?;
        }
        Ok(())
    }

    /// Tells both ends of a new connection.
    fn connected(&mut self, a: usize, b: usize) -> Result<(), Violation> {
        for (at, other) in [(a, b), (b, a)] {
            let (now, key) = (self.clock(at), self.places[other].key);
            if let Some(peer) = &mut self.places[at].peer {
                peer.handle_connected(now, key);
                self.act(at)?;
            }
        }
        Ok(())
    }

    /// Tells `at` that its connection with `other` has ended.
    fn disconnected(&mut self, at: usize, other: usize) -> Result<(), Violation> {
        let (now, key) = (self.clock(at), self.places[other].key);
        if let Some(peer) = &mut self.places[at].peer {
            peer.handle_disconnected(now, key);
            self.act(at)?;
        }
        Ok(())
    }

    /// Runs until all agree.
    pub(crate) fn run(
        mut self,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Summary, Error> {
        for at in 0..self.options.peers {
            self.start(at, Some(Duration::ZERO), false)?;
        }
        self.begin_weather();
        self.queue.after(LOOK, Event::Look);
        while let Some(event) = self.queue.next() {
            if matches!(event, Event::Look) {
                let here = self.progress();
                if progress(here).is_break() {
                    return Err(Error::Stopped(here));
                }
                if self.look()? {
                    break;
                }
            } else {
                self.step(event)?;
            }
        }
        Ok(self.finish()?)
    }

    fn honest(&self) -> Vec<(usize, &Peer)> {
        let there = self.places.iter().enumerate().filter(|(_, place)| place.attack.is_none());
        there.filter_map(|(at, place)| Some((at, place.peer.as_ref()?))).collect()
    }

    fn progress(&self) -> Progress {
        let honest = self.honest();
        // Newcomers say nothing about where the swarm is, unless there is nobody else.
        let joined = honest.iter().filter(|(_, peer)| peer.role() != Role::Joining);
        let mut rounds: Vec<u64> = joined.map(|(_, peer)| peer.round()).collect();
        rounds.sort_unstable();
        Progress {
            time: self.queue.now(),
            round: rounds.get(rounds.len() / 2).copied().unwrap_or(0),
            rounds: self.options.rounds,
            present: self.places.iter().filter(|place| place.peer.is_some()).count(),
            events: self.queue.happened(),
        }
    }

    /// Once a second: whether all is done, and whether it takes too long.
    fn look(&mut self) -> Result<bool, Violation> {
        if self.sabotage == Some(Sabotage::BanHonest)
            && let Some(other) = self.network.neighbours(0).first().copied()
        {
            self.ban(0, other, QUIET, "sabotage")?;
        }
        self.queue.after(LOOK, Event::Look);
        for at in 0..self.places.len() {
            if self.places[at].peer.is_some() {
                self.look_for_neighbours(at)?;
            }
        }
        let now = self.queue.now();
        let Some(since) = self.ending else {
            if self.progress().round >= self.options.rounds {
                self.ending = Some(now);
            }
            // The slowest weather costs less than five times the training time.
            let most = self.options.round.mul_f64(5.0 * self.options.rounds as f64) + 2 * QUIET;
            if now > most + self.options.partition.unwrap_or_default() {
                return Err(self.divided(Invariant::Progress));
            }
            return Ok(false);
        };
        let honest = self.honest();
        let first = honest.first().map(|(_, peer)| peer.log_digest());
        let agree = honest.iter().all(|(_, peer)| {
            peer.round() == self.options.rounds
                && peer.role() == Role::Finishing
                && Some(peer.log_digest()) == first
        });
        self.agreeing = if agree { self.agreeing + 1 } else { 0 };
        let knowing = self.places.iter().filter(|place| place.attack.is_none() && place.peer.is_some());
        if self.agreeing >= AGREEING_LOOKS
            && (knowing.clone().all(|place| place.finished) || now > since + QUIET)
        {
            return Ok(true);
        }
        if !agree && now > since + QUIET + self.options.round.mul_f64(4.0 * self.options.slowness) {
            return Err(self.divided(Invariant::Convergence));
        }
        Ok(false)
    }

    /// A violation that describes the groups that hold different sets, the largest first.
    fn divided(&self, invariant: Invariant) -> Violation {
        let mut groups: HashMap<(u64, &str, Digest), Vec<usize>> = HashMap::new();
        for (at, peer) in self.honest() {
            groups.entry((peer.round(), peer.doing(), peer.log_digest())).or_default().push(at);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|((.., digest), peers)| (std::cmp::Reverse(peers.len()), *digest));
        let mut lines: Vec<String> = groups
            .iter()
            .take(6)
            .map(|((round, doing, digest), peers)| {
                let some: Vec<String> = peers.iter().take(4).map(usize::to_string).collect();
                format!(
                    "{} peers ({}..) in round {round}, {doing}, sets {digest:.8}, told last: {}",
                    peers.len(),
                    some.join(", "),
                    peers
                        .first()
                        .and_then(|at| self.places[*at].report.as_ref())
                        .map_or_else(|| "nothing".to_owned(), |report| format!("{report:?}"))
                )
            })
            .collect();
        lines.insert(0, format!("{} groups hold different sets", groups.len()));
        lines.extend(self.invariants.parting());
        let odd = groups.iter().skip(1).flat_map(|(_, peers)| peers.iter().copied()).take(8).collect();
        self.violated(invariant, odd, lines.join("\n  "))
    }

    /// The last checks, and the figures.
    fn finish(mut self) -> Result<Summary, Violation> {
        let honest = self.honest();
        let outcome = self.invariants.finish(self.queue.now(), &honest)?;
        let (mut given_back, mut forfeited) = (0, 0);
        for (at, peer) in &honest {
            let accounts = self.invariants.accounts(
                self.queue.now(),
                *at,
                peer,
                &self.places[*at].given_back,
                &outcome,
            )?;
            given_back += accounts.returned.deltas;
            forfeited += accounts.forfeited.deltas;
        }
        let (mut folds, mut late) = (0, 0);
        let mut refusals = std::collections::BTreeMap::<String, u64>::new();
        for (_, peer) in &honest {
            let (all, after) = peer.folded_counts();
            folds += all;
            late += after;
            for (kind, count) in peer.refusals() {
                *refusals.entry((*kind).to_owned()).or_default() += count;
            }
        }
        let state = honest.first().map(|(_, peer)| peer.state_digest().to_string());
        let log = honest.first().map(|(_, peer)| peer.log_digest().to_string());
        let agreed = honest.len();
        let mut judged: Vec<usize> = honest.iter().map(|(_, peer)| peer.estimated_peers()).collect();
        judged.sort_unstable();
        let estimated_peers = judged.get(judged.len() / 2).copied().unwrap_or(0);
        let full = self.genesis.rule.publishers as usize;
        let (mut missed, mut crowded) = (0, 0);
        for published in &self.published {
            if outcome.folded.contains(&published.id)
                || outcome.void.contains(&(published.round, published.author))
            {
                continue;
            }
            let entries = outcome.entries.get(&published.round).copied().unwrap_or(0);
            *if entries >= full { &mut crowded } else { &mut missed } += 1;
        }
        let convergence = self.invariants.convergence();
        let round_seconds = self.invariants.round_seconds();
        let rounds = |seconds: Option<&f64>| seconds.map_or(0.0, |seconds| seconds / round_seconds.max(1e-9));
        let traffic = std::mem::take(&mut self.network.traffic);
        let each = self.options.peers as f64 * self.options.rounds as f64;
        let flow = |carried: &Carried| Flow {
            sent: carried.sent as f64 / each,
            received: carried.received as f64 / each,
        };
        let finished = self.places.iter().filter(|place| place.attack.is_none() && place.finished).count();
        let summary = std::mem::take(&mut self.summary);
        Ok(Summary {
            replay: self.options.to_string(),
            agreed,
            finished,
            seconds: self.queue.now().as_secs_f64(),
            round_seconds,
            events: self.queue.happened(),
            trace: self.queue.trace().to_string(),
            state: state.unwrap_or_default(),
            log: log.unwrap_or_default(),
            published: self.published.len() as u64,
            folded: outcome.folded.len() as u64,
            missed,
            crowded,
            given_back,
            forfeited,
            late_share: late as f64 / f64::max(folds as f64, 1.0),
            median_convergence: rounds(convergence.get(convergence.len() / 2)),
            worst_convergence: rounds(convergence.last()),
            parted_settlements: self.invariants.parted,
            messages: traffic.sent,
            lost: traffic.lost,
            bytes_a_peer: traffic.bytes / self.options.peers as u64,
            bytes_busiest: self.network.sent.iter().copied().max().unwrap_or(0),
            traffic: traffic.kinds.iter().map(|(kind, carried)| (kind.name(), flow(carried))).collect(),
            estimated_peers,
            neighbours: self.network.mean_neighbours(),
            most_held: self.invariants.most_held,
            held_bound: self.invariants.held_bound(),
            refusals,
            ..summary
        })
    }
}
