//! Who is connected to whom, and how long bytes take.
//!
//! The network is a random graph: a peer looks for `degree` neighbours and takes up to twice as many.
//! Each connection has a latency of its own (log-normal), each message some of its own on top; a
//! peer's messages leave one after another through its upload. A split parts the peers in two halves:
//! nothing passes between them, and after a while the connections are given up.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_protocol::Time;

use crate::options::Options;
use crate::random::Random;

/// Bytes of framing, encryption and transport that every message costs on top.
const OVERHEAD: usize = 80;

/// A gossip message on its way.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
    /// The peer that let go of it.
    pub(crate) origin: usize,
    /// One bit a peer: who has had it. It does what gossipsub's cache of seen messages does.
    seen: RefCell<Vec<u64>>,
}

impl Message {
    pub(crate) fn new(number: u64, bytes: Vec<u8>, origin: usize, peers: usize) -> Self {
        Self { number, bytes, origin, seen: RefCell::new(vec![0; peers.div_ceil(64)]) }
    }

    pub(crate) fn is_known_to(&self, at: usize) -> bool {
        self.seen.borrow()[at / 64] & 1 << (at % 64) != 0
    }

    /// Notes that `at` has it; returns whether that is new.
    pub(crate) fn is_new_to(&self, at: usize) -> bool {
        let mut seen = self.seen.borrow_mut();
        let bit = 1 << (at % 64);
        let word = &mut seen[at / 64];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
struct Link {
    to: usize,
    latency: Duration,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Gossip that the sender made itself.
    Own,
    /// Gossip of others.
    PassedOn,
    /// A status, asked or answered.
    Status,
    /// Any other question, or the answer.
    Question,
}

impl Kind {
    /// Its name in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Own => "own deltas",
            Self::PassedOn => "passed on",
            Self::Status => "statuses",
            Self::Question => "questions",
        }
    }
}

/// Bytes of one kind, by all peers together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Counted traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) bytes: u64,
    pub(crate) kinds: BTreeMap<Kind, Carried>,
}

/// The connections and what they carry.
pub(crate) struct Network {
    links: Vec<Vec<Link>>,
    upload_free: Vec<Time>,
    /// Which half a peer belongs to.
    half: Vec<bool>,
    split: bool,
    /// Connections that a split has ended, made again when it heals.
    broken: Vec<(usize, usize)>,
    banned: BTreeSet<(usize, usize)>,
    random: Random,
    options: Options,
    pub(crate) traffic: Traffic,
    /// Bytes sent, a peer.
    pub(crate) sent: Vec<u64>,
}

impl Network {
    pub(crate) fn new(options: &Options) -> Self {
        let mut random = Random::new(options.seed, "network", 0);
        Self {
            links: vec![Vec::new(); options.peers],
            upload_free: vec![Duration::ZERO; options.peers],
            half: (0..options.peers).map(|_| random.chance(0.5)).collect(),
            split: false,
            broken: Vec::new(),
            banned: BTreeSet::new(),
            random,
            options: options.clone(),
            traffic: Traffic::default(),
            sent: vec![0; options.peers],
        }
    }

    /// Connections of a peer, on average.
    pub(crate) fn mean_neighbours(&self) -> f64 {
        self.links.iter().map(Vec::len).sum::<usize>() as f64 / self.links.len().max(1) as f64
    }

    pub(crate) fn neighbours(&self, at: usize) -> Vec<usize> {
        self.links[at].iter().map(|link| link.to).collect()
    }

    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        self.links[a].iter().any(|link| link.to == b)
    }

    fn parted(&self, a: usize, b: usize) -> bool {
        self.split && self.half[a] != self.half[b]
    }

    fn may_connect(&self, a: usize, b: usize) -> bool {
        a != b
            && !self.connected(a, b)
            && !self.parted(a, b)
            && !self.banned.contains(&(a.min(b), a.max(b)))
            && self.links[a].len().max(self.links[b].len()) < 2 * self.options.degree
    }

    fn connect(&mut self, a: usize, b: usize) {
        let latency = self.random.log_normal(self.options.latency, self.options.spread);
        self.links[a].push(Link { to: b, latency });
        self.links[b].push(Link { to: a, latency });
    }

    /// Looks for neighbours for `at` among the peers that `is_there`; returns the new ones.
    pub(crate) fn look_for_neighbours(&mut self, at: usize, is_there: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut found = Vec::new();
        let peers = self.links.len();
        for _ in 0..20 * self.options.degree {
            if self.links[at].len() >= self.options.degree {
                break;
            }
            let other = self.random.below(peers);
            if is_there(other) && self.may_connect(at, other) {
                self.connect(at, other);
                found.push(other);
            }
        }
        found
    }

    /// Ends the connection of `a` and `b`; returns whether there was one.
    pub(crate) fn disconnect(&mut self, a: usize, b: usize) -> bool {
        let was = self.connected(a, b);
        self.links[a].retain(|link| link.to != b);
        self.links[b].retain(|link| link.to != a);
        was
    }

    /// Ends all connections of `at`; returns whose they were.
    pub(crate) fn leave(&mut self, at: usize) -> Vec<usize> {
        let neighbours = self.neighbours(at);
        for other in &neighbours {
            self.disconnect(at, *other);
        }
        neighbours
    }

    /// `a` and `b` cannot connect until `forgive`.
    pub(crate) fn ban(&mut self, a: usize, b: usize) {
        self.banned.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn forgive(&mut self, a: usize, b: usize) {
        self.banned.remove(&(a.min(b), a.max(b)));
    }

    pub(crate) fn split(&mut self) {
        self.split = true;
    }

    /// Gives up the connections across the split; returns them.
    pub(crate) fn break_up(&mut self) -> Vec<(usize, usize)> {
        let mut ended = Vec::new();
        for a in 0..self.links.len() {
            for b in self.neighbours(a) {
                if self.parted(a, b) {
                    self.disconnect(a, b);
                    ended.push((a, b));
                }
            }
        }
        self.broken.clone_from(&ended);
        ended
    }

    /// Ends the split; returns the connections that come back, between peers that `are_there`.
    pub(crate) fn heal(&mut self, are_there: impl Fn(usize) -> bool) -> Vec<(usize, usize)> {
        self.split = false;
        let mut made = std::mem::take(&mut self.broken);
        made.retain(|(a, b)| are_there(*a) && are_there(*b) && !self.connected(*a, *b));
        // Both have found others since: for once they may have more neighbours than they look for.
        made.retain(|(a, b)| !self.banned.contains(&(*a.min(b), *a.max(b))));
        for (a, b) in &made {
            self.connect(*a, *b);
        }
        made
    }

    /// Sends `length` bytes from `from` to `to`, now. Returns when they arrive, or `None` if they do not.
    pub(crate) fn send(
        &mut self,
        now: Time,
        from: usize,
        to: usize,
        length: usize,
        kind: Kind,
    ) -> Option<Time> {
        let latency = self.links[from].iter().find(|link| link.to == to)?.latency;
        let bytes = length + OVERHEAD;
        self.traffic.sent += 1;
        self.traffic.bytes += bytes as u64;
        self.traffic.kinds.entry(kind).or_default().sent += bytes as u64;
        self.sent[from] += bytes as u64;
        let start = self.upload_free[from].max(now);
        let seconds = match self.options.bandwidth {
            0 => 0.0,
            bandwidth => bytes as f64 / bandwidth as f64,
        };
        let left = start + Duration::from_secs_f64(seconds);
        self.upload_free[from] = left;
        // A question and its answer are lost together as often as a gossip message.
        let loss = match kind {
            Kind::Own | Kind::PassedOn => self.options.loss,
            Kind::Status | Kind::Question => 1.0 - (1.0 - self.options.loss).sqrt(),
        };
        if self.parted(from, to) || self.random.chance(loss) {
            self.traffic.lost += 1;
            return None;
        }
        self.traffic.kinds.entry(kind).or_default().received += bytes as u64;
        let mut factor = 0.8 + 0.4 * self.random.unit();
        if self.random.chance(self.options.reorder) {
            factor *= 1.0 + 9.0 * self.random.unit();
        }
        Some(left + latency.mul_f64(factor))
    }

    /// Whether a gossip message that arrives does so once more.
    pub(crate) fn repeats(&mut self) -> bool {
        self.random.chance(self.options.duplicate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(options: &Options) -> Network {
        let mut network = Network::new(options);
        for at in 0..options.peers {
            network.look_for_neighbours(at, |_| true);
        }
        network
    }

    #[test]
    fn everybody_finds_neighbours_and_nobody_has_too_many() {
        let options = Options { peers: 200, ..Options::default() };
        let network = network(&options);
        for at in 0..options.peers {
            let neighbours = network.neighbours(at);
            assert!((6..=12).contains(&neighbours.len()), "{neighbours:?}");
            assert!(neighbours.iter().all(|other| network.connected(*other, at) && *other != at));
        }
    }

    #[test]
    fn a_split_parts_and_heals() {
        let options = Options { peers: 60, ..Options::default() };
        let mut network = network(&options);
        let across = |network: &Network| {
            let pairs = (0..60).flat_map(|a| network.neighbours(a).into_iter().map(move |b| (a, b)));
            pairs.filter(|(a, b)| network.half[*a] != network.half[*b]).count()
        };
        let before = across(&network);
        assert!(before > 50);
        network.split();
        let (a, b) = (0..60)
            .flat_map(|a| network.neighbours(a).into_iter().map(move |b| (a, b)))
            .find(|(a, b)| network.half[*a] != network.half[*b])
            .unwrap();
        assert_eq!(network.send(Duration::ZERO, a, b, 10, Kind::Own), None);
        assert_eq!(network.break_up().len(), before / 2);
        assert_eq!(across(&network), 0);
        assert_eq!(network.heal(|_| true).len(), before / 2);
        assert_eq!(across(&network), before);
    }

    #[test]
    fn an_upload_is_a_queue_and_losses_are_counted() {
        let options = Options { peers: 2, bandwidth: 1_000, loss: 0.0, ..Options::default() };
        let mut network = network(&options);
        let mut arrivals = Vec::new();
        for _ in 0..10 {
            arrivals.extend(network.send(Duration::ZERO, 0, 1, 920, Kind::Own));
        }
        assert_eq!(arrivals.len(), 10);
        assert!(arrivals.iter().max().unwrap() > &Duration::from_secs(10));
        assert_eq!((network.sent[0], network.traffic.bytes), (10_000, 10_000));
        network.options.loss = 1.0;
        assert_eq!(network.send(Duration::ZERO, 0, 1, 1, Kind::Question), None);
        assert_eq!(network.traffic.lost, 1);
        // What is lost has been sent all the same.
        let carried = |kind| network.traffic.kinds.get(&kind).map(|carried| (carried.sent, carried.received));
        assert_eq!(carried(Kind::Own), Some((10_000, 10_000)));
        assert_eq!(carried(Kind::Question), Some((81, 0)));
    }
}
