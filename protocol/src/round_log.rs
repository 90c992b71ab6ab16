//! The round log: which deltas belong to which round.
//!
//! Open rounds are grow-only sets, one delta an author; merging two peers' sets is their union, so it
//! does not matter in which order, how often or from whom a delta comes. Two different deltas that one
//! author signed for one round cancel that author's part: the entry becomes *void*, with the two
//! signed headers as the proof.
//!
//! A round that leaves the window settles: its set is frozen and its sorted delta ids are chained into
//! the log digest, so two peers with equal log digests hold the same history. Settled rounds are kept
//! for `retention` more rounds, for peers that come back.
//!
//! Memory is bounded: at most `window + retention` rounds plus the window ahead, `publishers` entries
//! each. The cap on publishers is order-free: the entries with the lowest `BLAKE3(swarm, round, author)` stay,
//! whatever came first. Nothing else goes into that order, so peers whose histories have parted keep the same
//! entries of the rounds that they both have, and count the same votes about which history is the swarm's. An
//! order drawn from the history would make every parting permanent, and keep nobody from trying keys until one
//! comes first: that takes no time once the draw is known.

mod order;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::delta::{Delta, SignedHeader};
use crate::digest::Digest;
use crate::genesis::Genesis;
use crate::identity::PeerKey;

/// One author's part in a round.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Its delta.
    Delta(Arc<Delta>),
    /// It signed two; neither counts.
    Void(Box<(SignedHeader, SignedHeader)>),
}

impl Entry {
    /// Whose part it is.
    pub fn author(&self) -> PeerKey {
        match self {
            Self::Delta(delta) => delta.header().author,
            Self::Void(proof) => proof.0.header.author,
        }
    }
}

/// What became of a delta that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It is in the set now.
    Added,
    /// It was there already, or its author's part is void.
    Known,
    /// Its author had signed another one: both are void now, and this is the proof.
    Equivocation(Box<(SignedHeader, SignedHeader)>),
    /// Its round is settled.
    TooOld,
    /// Its round is too far ahead.
    TooNew,
    /// The round has `publishers` authors that come before this one.
    Crowded,
}

/// A round's entries, and the digest of them: it is asked for far more often than they change.
#[derive(Clone, Debug, Default)]
struct RoundSet {
    entries: BTreeMap<PeerKey, Entry>,
    digest: Digest,
    /// The authors by their order of precedence.
    ranks: BTreeSet<(Digest, PeerKey)>,
}

/// The sets of all rounds that are open or retained.
#[derive(Clone, Debug)]
pub struct RoundLog {
    swarm: Digest,
    window: u64,
    retention: u64,
    publishers: usize,
    rounds: BTreeMap<u64, RoundSet>,
    settled: u64,
    /// The first round whose set is here: whoever starts from a checkpoint has none of those before.
    held_from: u64,
    /// D by number of settled rounds, for the retained range.
    digests: BTreeMap<u64, Digest>,
    /// How often anything has changed.
    changes: u64,
    /// Deltas by body hash; several authors may have sent the very same body.
    bodies: HashMap<Digest, Vec<Arc<Delta>>>,
}

impl RoundLog {
    /// An empty log at the beginning of the swarm.
    pub fn new(genesis: &Genesis) -> Self {
        let start = Digest::of("swarm log 1", &[&genesis.swarm_id().0]);
        Self::at(genesis, 0, &[start])
    }

    /// An empty log that starts after `settled` rounds; `digests` are the log digests up to there, the last
    /// one that after `settled` rounds.
    pub fn at(genesis: &Genesis, settled: u64, digests: &[Digest]) -> Self {
        let counts = (0..=settled).rev();
        Self {
            swarm: genesis.swarm_id(),
            window: u64::from(genesis.rounds.window),
            retention: u64::from(genesis.rounds.retention),
            publishers: genesis.rule.publishers as usize,
            rounds: BTreeMap::new(),
            settled,
            held_from: settled,
            digests: counts.zip(digests.iter().rev().copied()).collect(),
            changes: 0,
            bodies: HashMap::new(),
        }
    }

    /// How often sets or settled rounds have changed: equal numbers, equal sets.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Number of settled rounds; rounds below are frozen.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The log digest through the settled rounds.
    pub fn log_digest(&self) -> Digest {
        self.digest_after(self.settled).unwrap_or_default()
    }

    /// The log digest after `settled` rounds, if that is in the retained range.
    pub fn digest_after(&self, settled: u64) -> Option<Digest> {
        self.digests.get(&settled).copied()
    }

    /// How many rounds are settled when a peer trains for `round`.
    pub fn settled_at(&self, round: u64) -> u64 {
        (round + 1).saturating_sub(self.window)
    }

    /// Offers a verified delta; `newest` is the highest round that is accepted.
    pub fn insert(&mut self, delta: Delta, newest: u64) -> Insert {
        let (round, author) = (delta.header().round, delta.header().author);
        if round < self.settled {
            return Insert::TooOld;
        }
        if round > newest {
            return Insert::TooNew;
        }
        let set = &mut self.rounds.entry(round).or_default().entries;
        match set.get(&author) {
            Some(Entry::Void(_)) => Insert::Known,
            Some(Entry::Delta(held)) if held.id == delta.id => Insert::Known,
            Some(Entry::Delta(held)) => {
                let mut proof = [held.clone(), Arc::new(delta)];
                proof.sort_by_key(|delta| delta.id);
                let proof = Box::new((proof[0].signed, proof[1].signed));
                self.void(&proof);
                self.renew_digest(round);
                Insert::Equivocation(proof)
            }
            None => {
                let delta = Arc::new(delta);
                self.bodies.entry(delta.header().body_hash).or_default().push(delta.clone());
                set.insert(author, Entry::Delta(delta));
                let inserted = self.enforce_cap(round, author);
                self.renew_digest(round);
                inserted
            }
        }
    }

    /// Voids an author's part of a round by a proof that was verified: two signed headers of the same
    /// author and round with different ids. Returns whether that changed anything.
    pub fn insert_proof(&mut self, proof: &(SignedHeader, SignedHeader), newest: u64) -> bool {
        let (round, author) = (proof.0.header.round, proof.0.header.author);
        if round < self.settled || round > newest {
            return false;
        }
        if matches!(self.entry(round, &author), Some(Entry::Void(_))) {
            return false;
        }
        self.void(proof);
        let inserted = self.enforce_cap(round, author);
        self.renew_digest(round);
        inserted == Insert::Added
    }

    /// Takes an author's part out of an open round, as if nothing of it had ever been heard. Returns whether there was
    /// any.
    pub fn remove(&mut self, round: u64, author: &PeerKey) -> bool {
        if round < self.settled {
            return false;
        }
        let rank = self.rank(round, author);
        let Some(set) = self.rounds.get_mut(&round) else { return false };
        let Some(entry) = set.entries.remove(author) else { return false };
        set.ranks.remove(&(rank, *author));
        self.forget(Some(entry));
        self.renew_digest(round);
        true
    }

    fn void(&mut self, proof: &(SignedHeader, SignedHeader)) {
        let (round, author) = (proof.0.header.round, proof.0.header.author);
        let set = &mut self.rounds.entry(round).or_default().entries;
        let old = set.insert(author, Entry::Void(Box::new(*proof)));
        self.forget(old);
    }

    fn forget(&mut self, entry: Option<Entry>) {
        if let Some(Entry::Delta(delta)) = entry {
            let hash = delta.header().body_hash;
            if let Some(sharing) = self.bodies.get_mut(&hash) {
                sharing.retain(|held| held.id != delta.id);
                if sharing.is_empty() {
                    self.bodies.remove(&hash);
                }
            }
        }
    }

    /// Drops the last-ranked author if the round has too many; says what became of `new`.
    fn enforce_cap(&mut self, round: u64, new: PeerKey) -> Insert {
        let rank = self.rank(round, &new);
        let Some(set) = self.rounds.get_mut(&round) else { return Insert::Added };
        set.ranks.insert((rank, new));
        if set.entries.len() <= self.publishers {
            return Insert::Added;
        }
        let Some((_, last)) = set.ranks.pop_last() else { return Insert::Added };
        let dropped = set.entries.remove(&last);
        self.forget(dropped);
        if last == new { Insert::Crowded } else { Insert::Added }
    }

    /// The deltas of a round that count, by author.
    pub fn deltas(&self, round: u64) -> impl Iterator<Item = &Arc<Delta>> {
        self.entries(round).filter_map(|entry| match entry {
            Entry::Delta(delta) => Some(delta),
            Entry::Void(_) => None,
        })
    }

    /// All entries of a round, by author.
    pub fn entries(&self, round: u64) -> impl Iterator<Item = &Entry> {
        self.rounds.get(&round).into_iter().flat_map(|set| set.entries.values())
    }

    /// An author's delta for a round, if it counts.
    pub fn delta_of(&self, round: u64, author: &PeerKey) -> Option<&Arc<Delta>> {
        match self.entry(round, author)? {
            Entry::Delta(delta) => Some(delta),
            Entry::Void(_) => None,
        }
    }

    /// An author's part in a round.
    pub fn entry(&self, round: u64, author: &PeerKey) -> Option<&Entry> {
        self.rounds.get(&round)?.entries.get(author)
    }

    /// Whether the log holds this delta, or knows that its author's part is void.
    pub fn knows(&self, round: u64, author: &PeerKey, id: Digest) -> bool {
        match self.entry(round, author) {
            Some(Entry::Delta(held)) => held.id == id,
            Some(Entry::Void(_)) => true,
            None => false,
        }
    }

    /// The body with this hash.
    pub fn body(&self, hash: &Digest) -> Option<&Arc<[u8]>> {
        self.bodies.get(hash)?.first().map(|delta| &delta.body)
    }

    /// The digest of a round's set: equal digests mean equal sets. `None` for an empty set.
    pub fn set_digest(&self, round: u64) -> Option<Digest> {
        self.rounds.get(&round).filter(|set| !set.entries.is_empty()).map(|set| set.digest)
    }

    fn renew_digest(&mut self, round: u64) {
        self.changes += 1;
        let Some(set) = self.rounds.get_mut(&round) else { return };
        let mut bytes = Vec::with_capacity(set.entries.len() * 33);
        for (author, entry) in &set.entries {
            // Any two of an author's deltas prove the same, so a void part is named by its author.
            let (tag, id) = match entry {
                Entry::Delta(delta) => (0, delta.id.0),
                Entry::Void(_) => (1, author.0),
            };
            bytes.push(tag);
            bytes.extend(id);
        }
        set.digest = Digest::of("swarm round 1", &[&bytes]);
    }

    /// `(round, set digest)` of the rounds from `from` on that have entries.
    pub fn set_digests(&self, from: u64) -> Vec<(u64, Digest)> {
        let sets = self.rounds.range(from..).filter(|(_, set)| !set.entries.is_empty());
        sets.map(|(round, set)| (*round, set.digest)).collect()
    }

    /// The log digest after `round`, if it is `before` it and the round's set is as it is now.
    fn chain(&self, before: Digest, round: u64) -> Digest {
        let set = self.set_digest(round).unwrap_or_default();
        Digest::of("swarm chain 1", &[&before.0, &round.to_le_bytes(), &set.0])
    }

    /// The log digest after `settled` rounds if all rounds below settled as they are now; `None` for what
    /// is no longer retained. Bounded by the window: only `settled` up to the own round makes sense.
    pub fn expected_digest(&self, settled: u64) -> Option<Digest> {
        if settled <= self.settled {
            return self.digest_after(settled);
        }
        let ahead = settled - self.settled <= self.window;
        ahead.then(|| {
            (self.settled..settled).fold(self.log_digest(), |digest, round| self.chain(digest, round))
        })
    }

    /// Freezes the next round, chains its set into the log digest, and drops what is beyond retention.
    pub fn settle_next(&mut self) {
        self.changes += 1;
        let chained = self.chain(self.log_digest(), self.settled);
        self.settled += 1;
        self.digests.insert(self.settled, chained);
        let oldest = self.settled.saturating_sub(self.retention);
        self.held_from = self.held_from.max(oldest);
        let kept = self.rounds.split_off(&oldest);
        for entry in
            std::mem::replace(&mut self.rounds, kept).into_values().flat_map(|set| set.entries.into_values())
        {
            self.forget(Some(entry));
        }
        self.digests = self.digests.split_off(&oldest.saturating_sub(2 * self.window));
    }

    /// The log digests that a newcomer needs who starts after the settled rounds, oldest first: those of the
    /// last two windows.
    pub fn recent_digests(&self) -> Vec<Digest> {
        let first = self.settled.saturating_sub(2 * self.window);
        self.digests.range(first..=self.settled).map(|(_, digest)| *digest).collect()
    }

    /// The log digests that are retained: the number of settled rounds of the first one, and one for each
    /// number from there on.
    pub fn history(&self) -> (u64, Vec<Digest>) {
        let first = self.digests.keys().next().copied().unwrap_or(self.settled);
        (first, self.digests.values().copied().collect())
    }

    /// The first round whose set is here.
    pub fn held_from(&self) -> u64 {
        self.held_from
    }

    /// Where this history and another one ([`RoundLog::history`]) part: the largest number of settled
    /// rounds after which their digests are equal.
    pub fn common(&self, first: u64, digests: &[Digest]) -> Option<u64> {
        let both =
            (first..).zip(digests).filter(|(count, digest)| self.digest_after(*count) == Some(**digest));
        both.map(|(count, _)| count).last()
    }

    /// Whether the sets of the rounds from `settled` on are held by a log that has settled `by`.
    pub fn retains(&self, settled: u64, by: u64) -> bool {
        settled.saturating_add(self.retention) >= by
    }

    /// Takes back that the rounds from `settled` on have settled, and gives up the sets of those below
    /// `until`, for others to take their place. Returns the deltas that are given up.
    ///
    /// The sets of these rounds must be here ([`RoundLog::held_from`]), and a digest after `settled` rounds known.
    pub fn rewind(&mut self, settled: u64, until: u64) -> Vec<Arc<Delta>> {
        self.changes += 1;
        self.settled = settled;
        self.digests.split_off(&(settled + 1));
        let later = self.rounds.split_off(&until.max(settled));
        let given_up = std::mem::replace(&mut self.rounds, later).into_iter();
        let mut deltas = Vec::new();
        for (round, set) in given_up {
            if round < settled {
                self.rounds.insert(round, set);
                continue;
            }
            for entry in set.entries.into_values() {
                if let Entry::Delta(delta) = &entry {
                    deltas.push(delta.clone());
                }
                self.forget(Some(entry));
            }
        }
        deltas
    }

    /// Number of deltas held, in all rounds.
    pub fn held(&self) -> usize {
        self.bodies.values().map(Vec::len).sum()
    }

    /// Everything that a snapshot needs: `(settled, digest)` pairs, and all entries.
    pub fn contents(&self) -> (Vec<(u64, Digest)>, Vec<&Entry>) {
        let digests = self.digests.iter().map(|(count, digest)| (*count, *digest)).collect();
        (digests, self.rounds.values().flat_map(|set| set.entries.values()).collect())
    }

    /// Rebuilds a log from a snapshot's `contents`, with the number of settled rounds and the first round whose
    /// set was there; `None` if `digests` does not hold `settled`.
    pub fn from_contents(
        genesis: &Genesis,
        (settled, held_from): (u64, u64),
        digests: Vec<(u64, Digest)>,
        deltas: Vec<Delta>,
        proofs: Vec<(SignedHeader, SignedHeader)>,
    ) -> Option<Self> {
        let digests: BTreeMap<_, _> = digests.into_iter().collect();
        digests.get(&settled)?;
        let mut log = Self::at(genesis, 0, &[]);
        log.digests = digests;
        for delta in deltas {
            log.insert(delta, u64::MAX);
        }
        for proof in proofs {
            log.insert_proof(&proof, u64::MAX);
        }
        log.settled = settled;
        log.held_from = held_from;
        Some(log)
    }
}
