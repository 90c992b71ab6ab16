//! What a peer must keep on disk to go on after a stop, as plain values.
//!
//! The snapshot holds the shared coefficients after the *settled* rounds, the log of everything since
//! (and what is retained), and where the peer stood. Open rounds are folded again on restore, so C
//! comes back as the same function of the same sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_optimizer::coefficients::Coefficients;

use crate::Time;
use crate::checkpoint::{Checkpoints, Held};
use crate::delta::{Delta, SignedHeader};
use crate::digest::Digest;
use crate::identity::PeerKey;
use crate::ledger::Ledger;
use crate::replica::Replica;
use crate::round_log::{Entry, RoundLog};
use crate::wire::{Checkpoint, Gossip};

use super::Peer;
use super::branch::GivenUp;

/// Where a peer stood. The bulk (coefficients, bodies) is beside it in [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The swarm.
    pub swarm: Digest,
    /// The round it trained for.
    pub round: u64,
    /// Number of settled rounds.
    pub settled: u64,
    /// The first round whose set is here.
    pub held_from: u64,
    /// The first round that it has not signed a delta for.
    pub next_to_sign: u64,
    /// Whether it has ever met another replica.
    pub met_others: bool,
    /// Log digests by number of settled rounds.
    pub digests: Vec<(u64, Digest)>,
    /// Proofs of equivocation.
    pub proofs: Vec<(SignedHeader, SignedHeader)>,
    /// What became of what was sent.
    pub ledger: Ledger,
}

/// Everything that a peer needs to go on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it stood.
    pub position: Position,
    /// C after the settled rounds.
    pub settled: Coefficients,
    /// All deltas held: signed headers and bodies.
    pub deltas: Vec<(SignedHeader, Arc<[u8]>)>,
    /// Between two histories: C in the one that was given up, and own deltas in it, `(round, id)`.
    pub given_up: Option<(Coefficients, Vec<(u64, Digest)>)>,
}

impl Peer {
    /// Takes a snapshot.
    pub fn snapshot(&self) -> Snapshot {
        let (digests, entries) = self.log.contents();
        let (mut deltas, mut proofs) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Delta(delta) => deltas.push((delta.signed, delta.body.clone())),
                Entry::Void(proof) => proofs.push(**proof),
            }
        }
        let position = Position {
            swarm: self.swarm,
            round: self.round,
            settled: self.log.settled(),
            held_from: self.log.held_from(),
            next_to_sign: self.next_to_sign,
            met_others: self.met_others,
            digests,
            proofs,
            ledger: self.ledger.clone(),
        };
        let given_up = self.given_up.as_ref().map(|held| (held.before.clone(), held.own.clone()));
        Snapshot { position, settled: self.replica.settled_coefficients(), deltas, given_up }
    }

    /// Goes on from a snapshot and from the own deltas that were persisted after it (`outbox`: what
    /// [`super::Action::Persist`] asked to write). Call before anything else.
    ///
    /// # Errors
    /// A snapshot that is not of this swarm or contradicts itself; in words.
    pub fn restore(&mut self, now: Time, snapshot: Snapshot, outbox: &[Vec<u8>]) -> Result<(), String> {
        let Position { swarm, round, settled, held_from, next_to_sign, met_others, digests, proofs, ledger } =
            snapshot.position;
        if swarm != self.swarm {
            return Err(format!("it belongs to swarm {swarm:.16}, not {:.16}", self.swarm));
        }
        if snapshot.settled.values().len() != self.layout.len() {
            return Err("its number of coefficients is not the model's".into());
        }
        let mut deltas = Vec::with_capacity(snapshot.deltas.len());
        for (signed, body) in snapshot.deltas {
            // All were admitted once. To unpack them again takes a minute for a larger model.
            if Digest::of_bytes(&body) != signed.header.body_hash {
                return Err(format!(
                    "a delta of round {} has another body than its header",
                    signed.header.round
                ));
            }
            deltas.push(Delta { id: signed.header.id(), signed, body });
        }
        let log = RoundLog::from_contents(&self.genesis, (settled, held_from), digests, deltas, proofs);
        let log = log.ok_or("its log digests do not reach its settled rounds")?;
        // The last round of a peer that stops is not settled.
        if log.settled_at(round) > settled + 1 {
            return Err("its round and its settled rounds do not fit together".into());
        }
        self.has_state = self.is_state(settled, &snapshot.settled);
        if log.held_from() > 0 {
            // A starting point is of no use to others without the rounds after it.
            self.checkpoints = Checkpoints::default();
        }
        self.log = log;
        self.replica =
            Replica::new(self.layout.clone(), self.genesis.rule, snapshot.settled, self.checks.clone());
        self.round = round;
        self.next_to_sign = next_to_sign;
        self.met_others = met_others;
        self.in_touch = round == 0;
        self.ledger = ledger;
        self.given_up = snapshot.given_up.map(|(before, own)| Box::new(GivenUp { before, own }));
        self.restore_outbox(outbox)?;
        for (author, latest) in latest_rounds(&self.log, self.round) {
            if author != self.me {
                self.membership.heard(author, latest);
            }
        }
        self.fold(now);
        self.pacer.start(now);
        Ok(())
    }
}

impl Peer {
    /// A checkpoint that was kept on disk ([`super::Action::Checkpoint`]): the bytes of its manifest, and C. Call
    /// after [`Peer::restore`]. Returns whether it is whole, and of the history that was restored.
    pub fn restore_checkpoint(&mut self, manifest: Vec<u8>, state: Coefficients) -> bool {
        let held = Held::restore(manifest, state);
        let fits = |held: &Held| {
            let Checkpoint { settled, log_digest, .. } = held.checkpoint;
            held.state.values().len() == self.layout.len()
                && self.log.digest_after(settled) == Some(log_digest)
        };
        let Some(held) = held.filter(fits) else { return false };
        self.checkpoints.push(held);
        true
    }

    /// Takes up own deltas that were persisted, also without a snapshot: their rounds are never signed
    /// again.
    ///
    /// # Errors
    /// A delta of another swarm or peer.
    pub fn restore_outbox(&mut self, outbox: &[Vec<u8>]) -> Result<(), String> {
        let mut bodies = BTreeMap::new();
        for (signed, body) in own_deltas(outbox) {
            let at = signed.header.round;
            if signed.header.swarm != self.swarm || signed.header.author != self.me {
                return Err(format!("the outbox holds a delta of another swarm or peer (round {at})"));
            }
            self.next_to_sign = self.next_to_sign.max(at + 1);
            let delta = Delta { id: signed.header.id(), signed, body: body.into() };
            bodies.insert(signed.header.body_hash, delta.body.clone());
            if at >= self.log.settled() {
                self.book(&delta);
                self.log.insert(delta, u64::MAX);
            }
        }
        let log = &self.log;
        self.ledger.find_bodies(|hash| log.body(hash).or_else(|| bodies.get(hash)).cloned());
        Ok(())
    }
}

/// The signed headers and bodies of persisted own deltas; what cannot be read is skipped (its file is
/// checksummed by whoever wrote it).
pub fn own_deltas(outbox: &[Vec<u8>]) -> Vec<(SignedHeader, Vec<u8>)> {
    let read = |bytes: &Vec<u8>| match Gossip::decode(bytes) {
        Ok(Gossip::Delta(signed, Some(body))) => Some((*signed, body)),
        _ => None,
    };
    outbox.iter().filter_map(read).collect()
}

/// The highest round of every author among the open rounds up to `round`.
fn latest_rounds(log: &RoundLog, round: u64) -> BTreeMap<PeerKey, u64> {
    let mut latest = BTreeMap::new();
    for at in log.settled()..=round {
        for delta in log.deltas(at) {
            latest.insert(delta.header().author, at);
        }
    }
    latest
}
