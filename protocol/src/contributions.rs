//! Contributions: who did what, as a function of the signed log.
//!
//! All replicas hold the same sets of signed deltas, so whoever has those of the settled rounds from one to another
//! computes the very same ledger of them: [`Auditor`] takes the sets, round by round, and [`Auditor::finish`] says what
//! follows. (What became of a device's *own* deltas is another book, [`crate::ledger`].)
//!
//! # Facts
//! In integers, and the same whatever the order in which a set is given and however often a delta is in it:
//!
//! - Who signed a delta for which round. Signatures, hashes and the one encoding of a body are verified here, whoever
//!   hands them in.
//! - Whether the round's panel counts it ([`swarm_optimizer::panel`]). Several authors may have sent the very same body:
//!   it is folded once, and the set cannot tell whose it was, so each of them has the same part of the credit for it
//!   and is told to have shared it. Such a body is not compared with itself.
//! - Its agreement with the outcome: the cosine with the sum of the *others* that are folded
//!   ([`swarm_optimizer::agreement`]).
//! - Who signed two deltas for a round: void, nothing of it counts.
//! - Which history an author has signed: see below.
//!
//! # Claims
//! Tokens and losses are what authors say about themselves ([`Claims`]). Nothing depends on them, and nothing checks
//! them.
//!
//! # That nothing was left out
//! A set that lacks a delta still has right signatures. But the sets are chained into the log digest, and every delta
//! says in its signed `base` what that digest was after the rounds that had settled when it was made:
//!
//! ```text
//!   D(from) ─set─> D(from + 1) ─set─> ... ─set─> D(to)           computed from the sets that are given
//!                       ↑
//!                       base of the deltas of round from + window, and the later ones accordingly
//! ```
//!
//! An author **confirms** a history if its base is the digest that the given sets make. Leave one delta out, and no
//! later author confirms. [`Ledger::confirmed_to`] is how far more than half of the deltas of one and the same round
//! confirm; the last window of a ledger is too new for that. Then again, who has none of the authors' keys to compare
//! with cannot tell them from keys that were made up for the occasion: a ledger is worth what somebody knows of
//! the authors in it, or of its last log digest.

mod totals;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_optimizer::agreement::{self, Judged};
use swarm_optimizer::layout::Layout;
use thiserror::Error;

use crate::delta::{Delta, SignedHeader, VERSION};
use crate::digest::Digest;
use crate::genesis::Genesis;
use crate::identity::PeerKey;
use crate::packing::{self, PackingError};
use crate::round_log::{Entry, Insert, RoundLog};

pub use totals::Total;

/// Why something is no part of the swarm's log.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotOfTheLog {
    /// The genesis has no layout.
    #[error("{0}")]
    Genesis(String),
    /// The log of a swarm begins with a digest that follows from its id.
    #[error("the log digest before its first round is not the one that this swarm begins with")]
    Start,
    /// Nothing comes after the last round that there can be.
    #[error("its rounds go beyond the last one that there can be")]
    Rounds,
    /// A delta of something else.
    #[error("a delta of {author:.16} is of swarm {swarm:.16}, not of this one")]
    Swarm {
        /// Who signed it.
        author: PeerKey,
        /// Of which swarm it is.
        swarm: Digest,
    },
    /// A delta of another round.
    #[error("a delta of {author:.16} stands in round {at} and is of round {round}")]
    Round {
        /// Who signed it.
        author: PeerKey,
        /// The round where it stands.
        at: u64,
        /// The round that it is of.
        round: u64,
    },
    /// A delta whose format is unknown.
    #[error("the delta of {author:.16} for round {round} has format version {version}, not {VERSION}")]
    Version {
        /// Who signed it.
        author: PeerKey,
        /// Its round.
        round: u64,
        /// Its version.
        version: u16,
    },
    /// Not signed by its author.
    #[error("the signature of {author:.16} under a delta for round {round} does not hold")]
    Signature {
        /// Who is said to have signed it.
        author: PeerKey,
        /// Its round.
        round: u64,
    },
    /// Another body than the one that was signed.
    #[error("the delta of {author:.16} for round {round} has another body than the one that was signed")]
    Body {
        /// Who signed it.
        author: PeerKey,
        /// Its round.
        round: u64,
    },
    /// The body is no encoding of a delta.
    #[error("the delta of {author:.16} for round {round}: {why}")]
    Packing {
        /// Who signed it.
        author: PeerKey,
        /// Its round.
        round: u64,
        /// What is wrong with it.
        why: PackingError,
    },
    /// Two headers that are no proof of two deltas of one author for one round.
    #[error("what is said to prove that {author:.16} signed two deltas for round {round} does not prove it")]
    Proof {
        /// Whom it is about.
        author: PeerKey,
        /// The round where it stands.
        round: u64,
    },
    /// More authors than the genesis permits.
    #[error("round {round} has more authors than the genesis permits")]
    Crowded {
        /// The round.
        round: u64,
    },
}

/// What became of an author's part in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is folded.
    Counted,
    /// The others of the round left it out.
    LeftOut,
    /// The author signed two deltas for the round.
    Void,
}

/// What an author says about one of its deltas. Nobody can check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Tokens trained on.
    pub tokens: u64,
    /// Training loss at the start of the round; see [`crate::delta::float_loss`].
    pub loss_before: u32,
    /// Training loss at its end.
    pub loss_after: u32,
}

/// An author's part in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The round.
    pub round: u64,
    /// Whose part it is.
    pub author: PeerKey,
    /// What became of it.
    pub standing: Standing,
    /// How many authors of the round sent this very body, this one among them; 0 if it is void.
    pub sharing: u32,
    /// The cosine with the others that are folded, in thousandths.
    pub agreement: Option<i16>,
    /// Whether its author signed the very history that the ledger is of; `None` where the ledger begins too late to
    /// tell.
    pub confirms: Option<bool>,
    /// What its author says; `None` if it is void.
    pub claims: Option<Claims>,
}

/// Who contributed what to the settled rounds from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The swarm.
    pub swarm: Digest,
    /// The first round.
    pub from: u64,
    /// The round after the last one.
    pub to: u64,
    /// The log digest before the first round.
    pub before: Digest,
    /// The log digest after the last round: where it is equal, the sets of all rounds before are equal.
    pub after: Digest,
    /// The sets of the rounds below this one are those that the authors of a later round have signed, more than half
    /// of them. `from` if that is said of none.
    pub confirmed_to: u64,
    /// By round, then by author.
    pub rows: Vec<Row>,
    /// By share, the largest first.
    pub totals: Vec<Total>,
}

/// Checks the sets of consecutive rounds, and computes their ledger.
#[derive(Debug)]
pub struct Auditor {
    genesis: Arc<Genesis>,
    layout: Layout,
    from: u64,
    /// The next round.
    at: u64,
    before: Digest,
    /// The log digests after the last rounds, the newest last: as many as a later delta may be based on.
    digests: VecDeque<Digest>,
    confirmed_to: u64,
    rows: Vec<Row>,
}

impl Auditor {
    /// An auditor of the rounds from `from` on; `before` is the log digest before them.
    ///
    /// # Errors
    /// [`NotOfTheLog::Start`] if `from` is 0 and the digest not the one that this swarm begins with.
    pub fn new(genesis: Arc<Genesis>, from: u64, before: Digest) -> Result<Self, NotOfTheLog> {
        if from == 0 && before != RoundLog::new(&genesis).log_digest() {
            return Err(NotOfTheLog::Start);
        }
        let layout = genesis.layout().map_err(|error| NotOfTheLog::Genesis(error.to_string()))?;
        Ok(Self {
            genesis,
            layout,
            from,
            at: from,
            before,
            digests: VecDeque::from([before]),
            confirmed_to: from,
            rows: Vec::new(),
        })
    }

    /// The round that [`Auditor::round`] takes next.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The log digest before it.
    pub fn log_digest(&self) -> Digest {
        self.digests.back().copied().unwrap_or_default()
    }

    /// The next round's set: all of its entries, in any order.
    ///
    /// # Errors
    /// [`NotOfTheLog`]; nothing of the round is taken then.
    pub fn round(&mut self, entries: &[Entry]) -> Result<(), NotOfTheLog> {
        let after = self.at.checked_add(1).ok_or(NotOfTheLog::Rounds)?;
        let mut set = self.admit(entries)?;
        let deltas: Vec<&Arc<Delta>> = set.deltas(self.at).collect();
        let judged = self.judge(&deltas)?;
        let base = self.base();
        let mut confirming = 0;
        for entry in set.entries(self.at) {
            let row = match entry {
                Entry::Void(_) => Row {
                    round: self.at,
                    author: entry.author(),
                    standing: Standing::Void,
                    sharing: 0,
                    agreement: None,
                    confirms: None,
                    claims: None,
                },
                Entry::Delta(delta) => {
                    let header = delta.header();
                    let Some((sharing, judged)) = judged.get(&header.body_hash) else { continue };
                    let confirms = base.map(|base| header.base == base);
                    confirming += usize::from(confirms == Some(true));
                    Row {
                        round: self.at,
                        author: header.author,
                        standing: if judged.counts { Standing::Counted } else { Standing::LeftOut },
                        sharing: *sharing,
                        agreement: judged.agreement,
                        confirms,
                        claims: Some(Claims {
                            tokens: header.tokens,
                            loss_before: header.loss_before,
                            loss_after: header.loss_after,
                        }),
                    }
                }
            };
            self.rows.push(row);
        }
        if 2 * confirming > deltas.len() {
            self.confirmed_to = self.confirmed_to.max(set.settled_at(self.at));
        }
        set.settle_next();
        self.digests.push_back(set.log_digest());
        // A delta of the next round is based on the digest after `next + 1 - window` rounds.
        while self.digests.len() > self.genesis.rounds.window as usize {
            self.digests.pop_front();
        }
        self.at = after;
        Ok(())
    }

    /// What follows from the rounds that were taken.
    pub fn finish(self) -> Ledger {
        Ledger {
            swarm: self.genesis.swarm_id(),
            from: self.from,
            to: self.at,
            before: self.before,
            after: self.log_digest(),
            confirmed_to: self.confirmed_to,
            totals: totals::of(&self.rows),
            rows: self.rows,
        }
    }

    /// The log digest that an honest delta of the round is based on; `None` if that was before the first round.
    fn base(&self) -> Option<Digest> {
        let settled = (self.at + 1).saturating_sub(self.genesis.rounds.window.into());
        let back = usize::try_from(self.at.checked_sub(settled)?).ok()?;
        let index = self.digests.len().checked_sub(1)?.checked_sub(back)?;
        (settled >= self.from).then(|| self.digests.get(index).copied()).flatten()
    }

    /// The round's set, all of it verified, as a log of its own that has settled what was before.
    fn admit(&self, entries: &[Entry]) -> Result<RoundLog, NotOfTheLog> {
        let round = self.at;
        let authors: BTreeSet<PeerKey> = entries.iter().map(Entry::author).collect();
        if authors.len() > self.genesis.rule.publishers as usize {
            return Err(NotOfTheLog::Crowded { round });
        }
        let mut log = RoundLog::at(&self.genesis, round, &[self.log_digest()]);
        for entry in entries {
            match entry {
                Entry::Delta(delta) => {
                    self.check(&delta.signed)?;
                    let header = delta.header();
                    let author = header.author;
                    if delta.body.len() as u64 != u64::from(header.body_length)
                        || Digest::of_bytes(&delta.body) != header.body_hash
                    {
                        return Err(NotOfTheLog::Body { author, round });
                    }
                    let delta = Delta { id: header.id(), ..Delta::clone(delta) };
                    if log.insert(delta, round) == Insert::Crowded {
                        return Err(NotOfTheLog::Crowded { round });
                    }
                }
                Entry::Void(proof) => {
                    let (one, other) = proof.as_ref();
                    self.check(one)?;
                    self.check(other)?;
                    let author = one.header.author;
                    if other.header.author != author || one.header.id() == other.header.id() {
                        return Err(NotOfTheLog::Proof { author, round });
                    }
                    log.insert_proof(proof, round);
                }
            }
        }
        Ok(log)
    }

    /// Whether a header is of this swarm and round, and signed.
    fn check(&self, signed: &SignedHeader) -> Result<(), NotOfTheLog> {
        let header = &signed.header;
        let (author, round) = (header.author, self.at);
        if header.version != VERSION {
            return Err(NotOfTheLog::Version { author, round, version: header.version });
        }
        if header.swarm != self.genesis.swarm_id() {
            return Err(NotOfTheLog::Swarm { author, swarm: header.swarm });
        }
        if header.round != round {
            return Err(NotOfTheLog::Round { author, at: round, round: header.round });
        }
        if !signed.verify() {
            return Err(NotOfTheLog::Signature { author, round });
        }
        Ok(())
    }

    /// By body: how many sent it, and what the others make of it.
    fn judge(&self, deltas: &[&Arc<Delta>]) -> Result<BTreeMap<Digest, (u32, Judged)>, NotOfTheLog> {
        let mut bodies: BTreeMap<Digest, (u32, &Arc<Delta>)> = BTreeMap::new();
        for delta in deltas.iter().copied() {
            bodies.entry(delta.header().body_hash).or_insert((0, delta)).0 += 1;
        }
        let unpack = |(_, delta): &(u32, &Arc<Delta>)| {
            let (author, round) = (delta.header().author, self.at);
            packing::decode(&self.layout, &self.genesis.rule, &delta.body)
                .map(Arc::new)
                .map_err(|why| NotOfTheLog::Packing { author, round, why })
        };
        let sparse = bodies.values().map(unpack).collect::<Result<Vec<_>, _>>()?;
        let judged = agreement::judged(&self.layout, &sparse);
        let each = bodies.into_iter().zip(judged);
        Ok(each.map(|((hash, (sharing, _)), judged)| (hash, (sharing, judged))).collect())
    }
}
