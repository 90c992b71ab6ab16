//! What is checked all the time, and what is measured on the way.
//!
//! Each time a peer's sets have changed, they and its coefficients are compared with what any other peer
//! held; each time it settles a round, with the history that the first one settled. Settled histories may
//! part while the network does: what counts is that they are one again at the end, so that is counted
//! here and judged by [`Invariants::finish`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use swarm_optimizer::coefficients::{Coefficients, Direction};
use swarm_optimizer::layout::Layout;
use swarm_optimizer::panel;
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::Time;
use swarm_protocol::delta::Delta;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::PeerKey;
use swarm_protocol::ledger::{Accounts, Fate};
use swarm_protocol::peer::Peer;
use swarm_protocol::round_log::Entry;
use swarm_protocol::wire::Role;
use swarm_protocol::{initial, packing};

use crate::options::Options;
use crate::sabotage::Sabotage;
use crate::violation::{Invariant, Violation};

/// Remembered pairs of sets and bits; twice as many at most.
const PAIRS: usize = 200_000;

/// A settled round: what came before it, and what it holds.
struct Settled {
    before: Digest,
    round: u64,
    deltas: Vec<Arc<Delta>>,
    /// Authors whose part is void.
    void: Vec<PeerKey>,
}

/// What a peer held when it was last looked at.
#[derive(Default)]
struct Seen {
    settled: u64,
    /// Of its log.
    changes: Option<u64>,
    sets: Vec<(u64, Digest)>,
    /// It was joining: what it fetches then is no news.
    joining: bool,
}

/// The checks, and what they need to remember.
pub(crate) struct Invariants {
    options: Options,
    genesis: Arc<Genesis>,
    layout: Arc<Layout>,
    /// The state digest that belongs to a digest of sets, and who held it first. When the first map is
    /// full it becomes the second.
    bits: [HashMap<Digest, (Digest, usize)>; 2],
    /// The log digest after so many settled rounds, as the first peer to get there had it.
    history: BTreeMap<u64, (Digest, usize)>,
    /// Settled rounds by the log digest after them.
    rounds: HashMap<Digest, Settled>,
    seen: Vec<Seen>,
    first_fold: BTreeMap<u64, Time>,
    last_change: BTreeMap<u64, Time>,
    parting: Option<String>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) parted: u64,
    pub(crate) most_held: usize,
}

/// What the final agreement is about.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Ids of the deltas that are in C.
    pub(crate) folded: BTreeSet<Digest>,
    /// Number of entries by round, void ones included.
    pub(crate) entries: BTreeMap<u64, usize>,
    /// Authors whose part is void, by round.
    pub(crate) void: BTreeSet<(u64, PeerKey)>,
}

impl Outcome {
    fn round<'a>(&mut self, round: u64, deltas: impl Iterator<Item = &'a Arc<Delta>>, void: &[PeerKey]) {
        let before = self.folded.len();
        self.folded.extend(deltas.map(|delta| delta.id));
        self.entries.insert(round, self.folded.len() - before + void.len());
        self.void.extend(void.iter().map(|author| (round, *author)));
    }
}

/// The authors whose part of `round` is void.
fn void(peer: &Peer, round: u64) -> Vec<PeerKey> {
    let entries = peer.log().entries(round);
    entries
        .filter_map(|entry| match entry {
            Entry::Void(proof) => Some(proof.0.header.author),
            Entry::Delta(_) => None,
        })
        .collect()
}

/// The authors of `deltas` that have not the same in `others`; a few of them.
fn missing(deltas: &[Arc<Delta>], others: &[Arc<Delta>]) -> String {
    let missing = deltas.iter().filter(|delta| others.iter().all(|other| other.id != delta.id));
    let authors: Vec<String> = missing.take(4).map(|delta| format!("{:.8}", delta.header().author)).collect();
    if authors.is_empty() { "none".to_owned() } else { authors.join(" ") }
}

impl Invariants {
    pub(crate) fn new(options: &Options, genesis: Arc<Genesis>, layout: Arc<Layout>) -> Self {
        Self {
            seen: (0..options.peers).map(|_| Seen::default()).collect(),
            options: options.clone(),
            genesis,
            layout,
            bits: [HashMap::new(), HashMap::new()],
            history: BTreeMap::new(),
            rounds: HashMap::new(),
            first_fold: BTreeMap::new(),
            last_change: BTreeMap::new(),
            parting: None,
            sabotage: None,
            parted: 0,
            most_held: 0,
        }
    }

    /// A violation, with what replays it.
    pub(crate) fn violated(
        &self,
        invariant: Invariant,
        time: Time,
        peers: Vec<usize>,
        detail: String,
    ) -> Violation {
        Violation { invariant, time, peers, detail, replay: Box::new(self.options.clone()) }
    }

    /// The most deltas that a peer may hold: the rounds that are retained, open, and ahead.
    pub(crate) fn held_bound(&self) -> usize {
        let rounds = &self.genesis.rounds;
        // A joining peer takes what its source has, which may be a whole history ahead of its own log.
        let span = rounds.retention + 2 * rounds.window + 1;
        2 * span as usize * self.genesis.rule.publishers as usize
    }

    /// Somebody new is at place `at`.
    pub(crate) fn restarted(&mut self, at: usize) {
        self.seen[at] = Seen { joining: true, ..Seen::default() };
    }

    /// Looks at a peer after something happened to it; `folded` tells that its C has changed.
    pub(crate) fn look(&mut self, now: Time, at: usize, peer: &Peer, folded: bool) -> Result<(), Violation> {
        let log = peer.log();
        let joining = peer.role() == Role::Joining;
        let seen = &mut self.seen[at];
        // A new log counts from the beginning, with another number of settled rounds.
        let now_at = Some(log.changes());
        if !folded && joining == seen.joining && now_at == seen.changes && log.settled() == seen.settled {
            return Ok(());
        }
        seen.changes = now_at;
        let settled = log.settled();
        let sets = log.set_digests(settled);
        let before = seen.settled;
        if sets != seen.sets || settled != before {
            if !joining && !seen.joining {
                let old: BTreeMap<u64, Digest> = seen.sets.iter().copied().collect();
                for (round, digest) in &sets {
                    if old.get(round) != Some(digest) {
                        self.last_change.insert(*round, now);
                    }
                }
            }
            seen.sets.clone_from(&sets);
            seen.settled = settled;
        }
        seen.joining = joining;
        if settled > before {
            for count in
                before.max(settled.saturating_sub(u64::from(self.genesis.rounds.retention))) + 1..=settled
            {
                self.settled(now, at, peer, count)?;
            }
            let hoard = if self.sabotage == Some(Sabotage::Hoard) { self.held_bound() } else { 0 };
            let held = peer.held_deltas() + hoard;
            self.most_held = self.most_held.max(held);
            if held > self.held_bound() {
                let detail = format!("peer {at} holds {held} deltas; {} are allowed", self.held_bound());
                return Err(self.violated(Invariant::BoundedMemory, now, vec![at], detail));
            }
        }
        if folded {
            self.first_fold.entry(peer.round().saturating_sub(1)).or_insert(now);
            self.same_bits(now, at, peer, &sets)?;
        }
        Ok(())
    }

    fn same_bits(
        &mut self,
        now: Time,
        at: usize,
        peer: &Peer,
        sets: &[(u64, Digest)],
    ) -> Result<(), Violation> {
        let mut bytes = peer.log().log_digest().0.to_vec();
        for (round, digest) in sets.iter().filter(|(round, _)| *round < peer.round()) {
            bytes.extend(round.to_le_bytes());
            bytes.extend(digest.0);
        }
        let key = Digest::of_bytes(&bytes);
        let mut state = peer.state_digest();
        if at == 1 && self.sabotage == Some(Sabotage::FlipCoefficient) {
            let mut values = peer.coefficients().values().to_vec();
            values[0] ^= 1;
            state = Digest::of_state(&values);
        }
        let known = self.bits.iter().find_map(|map| map.get(&key)).copied();
        match known {
            Some((same, _)) if same == state => Ok(()),
            Some((other, first)) => {
                let detail = format!(
                    "in round {} peer {at} holds state {state:.16} where peer {first} held {other:.16} for the \
                     same sets",
                    peer.round()
                );
                Err(self.violated(Invariant::SameSetSameBits, now, vec![first, at], detail))
            }
            None => {
                if self.bits[0].len() >= PAIRS {
                    self.bits[1] = std::mem::take(&mut self.bits[0]);
                }
                self.bits[0].insert(key, (state, at));
                Ok(())
            }
        }
    }

    /// The peer at `at` has settled `count` rounds.
    fn settled(&mut self, now: Time, at: usize, peer: &Peer, count: u64) -> Result<(), Violation> {
        let log = peer.log();
        let (Some(before), Some(after)) = (log.digest_after(count - 1), log.digest_after(count)) else {
            return Ok(());
        };
        match self.history.get(&count) {
            None => {
                self.history.insert(count, (after, at));
            }
            Some((first, _)) if *first == after => {}
            Some((first, other)) => {
                self.parted += 1;
                let round = count - 1;
                let theirs = self.rounds.get(first).map(|settled| settled.deltas.as_slice());
                let ours: Vec<Arc<Delta>> = log.deltas(round).cloned().collect();
                let theirs = theirs.unwrap_or_default();
                let (more, less) = (missing(&ours, theirs), missing(theirs, &ours));
                self.parting.get_or_insert_with(|| {
                    format!(
                        "settled histories first parted after {now:?}: for round {round} peer {at} (in round \
                         {}) has {} deltas where peer {other} had {}; more: {more}, less: {less}",
                        peer.round(),
                        ours.len(),
                        theirs.len()
                    )
                });
            }
        }
        if self.rounds.contains_key(&after) {
            return Ok(());
        }
        let round = count - 1;
        let mut deltas: Vec<Arc<Delta>> = log.deltas(round).cloned().collect();
        match self.sabotage {
            Some(Sabotage::AdmitTwice) => deltas.extend(deltas.first().cloned()),
            Some(Sabotage::ForgetDelta) => drop(deltas.pop()),
            _ => {}
        }
        let void = void(peer, round);
        if let Some(wrong) = self.wrong(round, &deltas, deltas.len() + void.len()) {
            let detail = format!("round {round} as peer {at} settled it: {wrong}");
            return Err(self.violated(Invariant::OncePerAuthor, now, vec![at], detail));
        }
        self.rounds.insert(after, Settled { before, round, deltas, void });
        Ok(())
    }

    /// What is wrong with a settled round, checked without anybody's memory.
    fn wrong(&self, round: u64, deltas: &[Arc<Delta>], entries: usize) -> Option<String> {
        if entries > self.genesis.rule.publishers as usize {
            return Some(format!("{entries} authors"));
        }
        let mut authors = BTreeSet::new();
        for delta in deltas {
            let header = delta.header();
            let what = if !authors.insert(header.author) {
                "counts twice"
            } else if header.round != round || delta.id != header.id() {
                "has a delta of another round"
            } else if !delta.signed.verify() {
                "did not sign its delta"
            } else if Digest::of_bytes(&delta.body) != header.body_hash
                || packing::decode(&self.layout, &self.genesis.rule, &delta.body).is_err()
            {
                "has a body that is not its own"
            } else {
                continue;
            };
            return Some(format!("author {:.8} {what}", header.author));
        }
        None
    }

    /// Where settled histories first parted, in words.
    pub(crate) fn parting(&self) -> Option<String> {
        self.parting.clone()
    }

    /// Judges the end: `peers` are the honest ones that are there, and they hold the same sets. Computes C
    /// once more from nothing but the sets.
    pub(crate) fn finish(&self, now: Time, peers: &[(usize, &Peer)]) -> Result<Outcome, Violation> {
        let mut outcome = Outcome::default();
        let Some((first, peer)) = peers.first() else { return Ok(outcome) };
        let state = peer.state_digest();
        if let Some((other, _)) = peers.iter().find(|(_, other)| other.state_digest() != state) {
            let detail = "the same sets, but other integers, at the end".to_owned();
            return Err(self.violated(Invariant::SameSetSameBits, now, vec![*first, *other], detail));
        }
        let mut c = initial::coefficients(&self.genesis, &self.layout);
        let mut at = peer.log().log_digest();
        let mut left = peer.log().settled();
        while left > 0 {
            let Some(settled) = self.rounds.get(&at).filter(|settled| settled.round + 1 == left) else {
                let detail = format!("nobody was seen to settle round {}", left - 1);
                return Err(self.violated(Invariant::PureFunction, now, vec![*first], detail));
            };
            self.fold(&mut c, settled.deltas.iter());
            outcome.round(settled.round, settled.deltas.iter(), &settled.void);
            at = settled.before;
            left -= 1;
        }
        for round in peer.log().settled()..peer.round() {
            self.fold(&mut c, peer.log().deltas(round));
            outcome.round(round, peer.log().deltas(round), &void(peer, round));
        }
        if Digest::of_state(c.values()) != state {
            let detail = "C computed from the sets alone is not what the peers hold".to_owned();
            return Err(self.violated(Invariant::PureFunction, now, vec![*first], detail));
        }
        Ok(outcome)
    }

    /// Whether the books of the peer at `at` say what became of its deltas; `given_back` are the rounds whose
    /// delta its driver has put back.
    pub(crate) fn accounts(
        &self,
        now: Time,
        at: usize,
        peer: &Peer,
        given_back: &BTreeSet<u64>,
        outcome: &Outcome,
    ) -> Result<Accounts, Violation> {
        let accounts = peer.accounts();
        let wrong = |detail| Err(self.violated(Invariant::Accounts, now, vec![at], detail));
        if !accounts.balance() {
            return wrong(format!("the books of peer {at} do not balance: {accounts:?}"));
        }
        for (round, id, fate) in peer.fates() {
            let folded = outcome.folded.contains(&id);
            let back = given_back.contains(&round);
            // It took a checkpoint over that round: its last word about it is from another history.
            let unseen = round < peer.log().held_from();
            let right = match fate {
                Fate::Settled => !back && (folded || unseen),
                Fate::Returned => back && (!folded || unseen),
                Fate::Open | Fate::GivenUp => round >= peer.log().settled() && !back,
                // It may be in C or not: that round's set has not been seen here.
                Fate::Kept | Fate::Forfeited => !back,
            };
            if !right {
                return wrong(format!(
                    "peer {at} says that its delta of round {round} is {fate:?}; in C: {folded}, given back: {back}"
                ));
            }
        }
        Ok(accounts)
    }

    /// By the definition: all of the set at hand, each body once, judged by each other. Peers come to the same one
    /// by one.
    fn fold<'a>(&self, c: &mut Coefficients, deltas: impl Iterator<Item = &'a Arc<Delta>>) {
        let mut seen = BTreeSet::new();
        let once = deltas.filter(|delta| seen.insert(delta.header().body_hash));
        let unpack = |delta: &Arc<Delta>| packing::decode(&self.layout, &self.genesis.rule, &delta.body);
        let sparse: Vec<Arc<SparseDelta>> =
            once.filter_map(|delta| unpack(delta).ok().map(Arc::new)).collect();
        let counted = panel::counted(&self.layout, &sparse);
        let set: Vec<&SparseDelta> = counted.iter().map(Arc::as_ref).collect();
        c.fold(&self.layout, &set, Direction::In, &mut []);
    }

    /// For every round, the virtual seconds from its first fold to the last change of its set.
    pub(crate) fn convergence(&self) -> Vec<f64> {
        let since = |(round, folded): (&u64, &Time)| {
            let change = self.last_change.get(round).copied().unwrap_or_default();
            change.saturating_sub(*folded).as_secs_f64()
        };
        let mut all: Vec<f64> = self.first_fold.iter().map(since).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The virtual seconds between first folds of successive rounds, on average.
    pub(crate) fn round_seconds(&self) -> f64 {
        let (Some((low, start)), Some((high, end))) =
            (self.first_fold.first_key_value(), self.first_fold.last_key_value())
        else {
            return 0.0;
        };
        end.saturating_sub(*start).as_secs_f64() / (high - low).max(1) as f64
    }
}
