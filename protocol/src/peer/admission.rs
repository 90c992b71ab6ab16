//! Which deltas are let in: everything is verified, in the order of what it costs, before it is kept
//! or passed on.
//!
//! The source's rate (see [`crate::rates`]); swarm, version, body length, round window, whether the author is admitted
//! (see [`crate::access`]); then the signature, strictly; then the body's hash; then its canonical packing, with
//! positions, shares and scales, and that it says anything. Each refusal is counted under its own name. A header
//! whose body is not here yet waits for it, and is passed on only when
//! body and all have been verified, so whoever passes a header on can serve its body.

use std::sync::Arc;

use swarm_optimizer::sparse::SparseDelta;

use crate::Time;
use crate::delta::{self, Delta, SignedHeader};
use crate::digest::Digest;
use crate::identity::PeerKey;
use crate::packing::PackingError;
use crate::rates::Kind;
use crate::round_log::{Entry, Insert};
use crate::wire::Gossip;

use super::{Action, Peer, Phase, Report, Verdict};

/// Headers that wait for their bodies, at most.
const MAX_AWAITED: usize = 512;

/// Other neighbours that may have a body, while joining: what has settled, everybody had.
const SPARE_SOURCES: usize = 2;

/// Headers that share one body, and gossip messages about one header, that are remembered.
const MAX_SHARING: usize = 16;

/// Verified headers whose common body is being fetched, each with the gossip messages to decide on when
/// it is here.
pub(super) struct AwaitedBody {
    /// What all these headers say it is.
    length: u32,
    headers: Vec<(SignedHeader, Vec<u64>)>,
}

/// What became of a header that was offered.
enum Screened {
    /// Everything but the body has been verified.
    Good,
    /// It is in the log already.
    Known,
    /// Nobody's fault.
    Useless(&'static str),
    /// Its author is not admitted, as far as is known here.
    NotAdmitted,
    /// Somebody's fault.
    Bad(&'static str),
}

const NOT_ADMITTED: &str = "delta of an author who is not admitted";

impl Peer {
    /// A gossip message arrived from `source` (who passed it on, not who made it). The decision comes as
    /// [`Action::Verdict`] with the same `token`.
    pub fn handle_gossip(&mut self, now: Time, source: PeerKey, token: u64, bytes: &[u8]) {
        if !self.within_rate(now, source, Kind::Gossip, 1) {
            self.verdict(token, Verdict::Ignore);
            return;
        }
        match Gossip::decode(bytes) {
            Ok(Gossip::Access(statements)) => {
                let verdict = self.access_heard(now, source, &statements);
                self.verdict(token, verdict);
            }
            Ok(_) if !self.is_let_in(&source) => {
                self.refuse("gossip of a peer that is not admitted", source);
                self.verdict(token, Verdict::Ignore);
            }
            Ok(Gossip::Delta(signed, _)) if self.is_closed(signed.header.round) => {
                self.refuse("delta of a round that is being caught up with", source);
                self.verdict(token, Verdict::Ignore);
            }
            Ok(Gossip::Delta(signed, body)) => match self.screen(&signed) {
                Screened::Good => match body {
                    Some(body) => self.admit(now, source, *signed, body, vec![token]),
                    None => self.await_body(now, source, *signed, Some(token)),
                },
                Screened::Known => {
                    let news = self.is_news(&signed, body.as_deref());
                    if !news {
                        // Counted, but no news to the user: also a network of honest peers repeats itself.
                        self.count("delta that was here already");
                    }
                    let news = news && self.rates.pass_on(now);
                    self.verdict(token, if news { Verdict::Accept } else { Verdict::Ignore });
                }
                Screened::NotAdmitted => {
                    self.refuse(NOT_ADMITTED, source);
                    self.seek_certificate(now, source, &signed.header);
                    self.verdict(token, Verdict::Ignore);
                }
                Screened::Useless(kind) => {
                    self.refuse(kind, source);
                    self.verdict(token, Verdict::Ignore);
                }
                Screened::Bad(kind) => {
                    self.strike(now, kind, source);
                    self.verdict(token, Verdict::Reject);
                }
            },
            // Whether it was in time is not ours to say about rounds that others have settled.
            Ok(Gossip::Equivocation(proof)) if self.is_closed(proof.0.header.round) => {
                self.refuse("proof about a round that is being caught up with", source);
                self.verdict(token, Verdict::Ignore);
            }
            Ok(Gossip::Equivocation(proof)) => {
                let mut verdict = self.admit_proof(now, &proof, source);
                if verdict == Verdict::Ignore {
                    self.refuse("proof that changes nothing", source);
                } else if verdict == Verdict::Accept && !self.rates.pass_on(now) {
                    verdict = Verdict::Ignore;
                }
                self.verdict(token, verdict);
            }
            Err(_) => {
                self.strike(now, "malformed gossip message", source);
                self.verdict(token, Verdict::Reject);
            }
        }
        self.continue_phase(now);
    }

    /// The highest round of which deltas are accepted now. Nobody who keeps pace is
    /// further ahead.
    pub(super) fn newest(&self) -> u64 {
        self.round + u64::from(self.genesis.rounds.window)
    }

    /// Whether only the source of the join under way has a say in this round.
    pub(super) fn is_closed(&self, round: u64) -> bool {
        matches!(&self.phase, Phase::Joining(join) if round < join.closed_below())
    }

    /// Whether `peer` has a say in this round.
    pub(super) fn may_say(&self, peer: &PeerKey, round: u64) -> bool {
        matches!(&self.phase, Phase::Joining(join) if join.is_source(peer)) || !self.is_closed(round)
    }

    /// Stops waiting for bodies of rounds below `settled`: which of them count is another's to say.
    pub(super) fn forget_awaited(&mut self, settled: u64) {
        let mut tokens = Vec::new();
        for (hash, awaited) in &mut self.bodies {
            awaited.headers.retain_mut(|(signed, waiting)| {
                let stays = signed.header.round >= settled;
                if !stays {
                    tokens.append(waiting);
                }
                stays
            });
            if awaited.headers.is_empty() {
                self.fetcher.cancel(hash);
            }
        }
        self.bodies.retain(|_, awaited| !awaited.headers.is_empty());
        tokens.into_iter().for_each(|token| self.verdict(token, Verdict::Ignore));
    }

    /// Whether a delta that is in the log may be passed on: it is the very same, not a copy with another signature
    /// or body, and came from a neighbour's list, so that those on the other side may lack it. Once.
    fn is_news(&mut self, signed: &SignedHeader, body: Option<&[u8]>) -> bool {
        let (round, author) = (signed.header.round, signed.header.author);
        let Some(held) = self.log.delta_of(round, &author) else { return false };
        let same = held.signed == *signed && body.is_none_or(|body| *body == *held.body);
        same && self.unpassed.remove(&(round, held.id))
    }

    fn screen(&self, signed: &SignedHeader) -> Screened {
        let header = &signed.header;
        if header.swarm != self.swarm {
            return Screened::Bad("delta of another swarm");
        }
        if header.version != delta::VERSION {
            return Screened::Bad("delta of an unknown version");
        }
        if header.body_length == 0 || header.body_length > self.max_body {
            return Screened::Bad("delta of an impossible length");
        }
        if matches!(self.phase, Phase::Seeking { .. }) {
            return Screened::Useless("delta before joining");
        }
        if header.round < self.log.settled() {
            return Screened::Useless("delta of a settled round");
        }
        if header.round > self.newest() {
            return Screened::Useless("delta of a far future round");
        }
        if self.log.knows(header.round, &header.author, header.id()) {
            return Screened::Known;
        }
        if self.log.is_crowded(header.round, &header.author) {
            return Screened::Useless("delta of a round that is full");
        }
        if !self.is_admissible(header) {
            return Screened::NotAdmitted;
        }
        if !self.checks.is_signed(signed) {
            return Screened::Bad("delta with a wrong signature");
        }
        Screened::Good
    }

    /// Offers a header that a neighbour listed; fetches its body from there if it is wanted.
    pub(super) fn offer(&mut self, now: Time, source: PeerKey, signed: SignedHeader) {
        match self.screen(&signed) {
            Screened::Good => self.await_body(now, source, signed, None),
            Screened::Known | Screened::Useless(_) => {}
            Screened::NotAdmitted => {
                *self.refusals.entry(NOT_ADMITTED).or_insert(0) += 1;
                self.seek_certificate(now, source, &signed.header);
            }
            Screened::Bad(kind) => self.strike(now, kind, source),
        }
    }

    fn await_body(&mut self, now: Time, source: PeerKey, signed: SignedHeader, token: Option<u64>) {
        let hash = signed.header.body_hash;
        let length = signed.header.body_length;
        let refused = match self.bodies.get(&hash) {
            // One of the headers lies. Asked for together, whoever has the body would be blamed for it.
            Some(awaited) => {
                (awaited.length != length).then_some("another length for a body that is awaited")
            }
            None => (self.bodies.len() >= MAX_AWAITED).then_some("too many bodies awaited"),
        };
        if let Some(kind) = refused {
            self.refuse(kind, source);
            self.join_body_failed(signed.header.round);
            token.into_iter().for_each(|token| self.verdict(token, Verdict::Ignore));
            return;
        }
        if let Some(body) = self.log.body(&hash).or_else(|| self.spare_body(&hash)).map(|body| body.to_vec())
        {
            self.admit(now, source, signed, body, token.into_iter().collect());
            return;
        }
        let awaited = self.bodies.entry(hash).or_insert(AwaitedBody { length, headers: Vec::new() });
        let shared = awaited.headers.len();
        let tokens = match awaited.headers.iter_mut().find(|(held, _)| held.header == signed.header) {
            Some((_, tokens)) => Some(tokens),
            None if shared < MAX_SHARING => {
                awaited.headers.push((signed, Vec::new()));
                awaited.headers.last_mut().map(|(_, tokens)| tokens)
            }
            None => None,
        };
        match tokens.filter(|tokens| tokens.len() < MAX_SHARING) {
            Some(tokens) => tokens.extend(token),
            None => token.into_iter().for_each(|token| self.verdict(token, Verdict::Ignore)),
        }
        self.fetch(now, hash, length.into(), source);
        if matches!(self.phase, Phase::Joining(_)) {
            for spare in self.neighbours.others(&source, SPARE_SOURCES) {
                self.fetch(now, hash, length.into(), spare);
            }
        }
    }

    /// A fetched body is here, with the right hash.
    pub(super) fn body_arrived(&mut self, now: Time, source: PeerKey, hash: Digest, body: Vec<u8>) {
        let Some(awaited) = self.bodies.remove(&hash) else { return };
        for (signed, tokens) in awaited.headers {
            self.admit(now, source, signed, body.clone(), tokens);
        }
    }

    /// Nobody has the body; anti-entropy may offer the header again.
    pub(super) fn body_failed(&mut self, hash: &Digest) {
        let Some(awaited) = self.bodies.remove(hash) else { return };
        self.count("announced body that did not come");
        for (signed, tokens) in awaited.headers {
            self.join_body_failed(signed.header.round);
            tokens.into_iter().for_each(|token| self.verdict(token, Verdict::Ignore));
        }
    }

    /// Whether a body of a delta of `round` is still on its way.
    pub(super) fn awaits_bodies_of(&self, round: u64) -> bool {
        self.bodies
            .values()
            .flat_map(|awaited| &awaited.headers)
            .any(|(signed, _)| signed.header.round == round)
    }

    fn admit(&mut self, now: Time, source: PeerKey, signed: SignedHeader, body: Vec<u8>, tokens: Vec<u64>) {
        let header = &signed.header;
        let said = if body.len() != header.body_length as usize || Digest::of_bytes(&body) != header.body_hash
        {
            Err("delta whose body does not match its header")
        } else {
            let said = self.checks.unpack(&self.layout, &self.genesis.rule, &header.body_hash, &body);
            said.map_err(PackingError::refusal)
        };
        let said = match said {
            Ok(said) => said,
            Err(kind) => {
                self.strike(now, kind, source);
                tokens.into_iter().for_each(|token| self.verdict(token, Verdict::Reject));
                return;
            }
        };
        let (round, id) = (header.round, header.id());
        let inserted = self.insert(now, Delta { id, signed, body: body.into() }, Some(said));
        let asked = !tokens.is_empty();
        let kept_back =
            matches!(inserted, Insert::Added | Insert::Equivocation(_)) && asked && !self.rates.pass_on(now);
        if inserted == Insert::Added && (!asked || kept_back) {
            self.unpassed = self.unpassed.split_off(&(self.log.settled(), Digest::default()));
            self.unpassed.insert((round, id));
        }
        let mut verdict = match inserted {
            Insert::Added | Insert::Equivocation(_) if !kept_back => Verdict::Accept,
            Insert::Added | Insert::Equivocation(_) => Verdict::Ignore,
            Insert::Known | Insert::TooOld | Insert::TooNew | Insert::Crowded => Verdict::Ignore,
        };
        // More than one: other messages with the same header. One of them is enough.
        for token in tokens {
            self.verdict(token, verdict);
            verdict = Verdict::Ignore;
        }
    }

    /// Puts a verified delta into the log; folds it at once if its round has been folded already. `said` is what its
    /// body says, if that is at hand.
    pub(super) fn insert(&mut self, now: Time, delta: Delta, said: Option<Arc<SparseDelta>>) -> Insert {
        let (round, author) = (delta.header().round, delta.header().author);
        let inserted = self.log.insert(delta, self.newest());
        match &inserted {
            Insert::Added if author == self.me => {
                let expected = self.next_to_sign > round;
                self.next_to_sign = self.next_to_sign.max(round + 1);
                if !expected && !matches!(self.phase, Phase::Joining(_)) {
                    self.report(Report::IdentityInUse { round });
                }
            }
            Insert::Added => self.membership.heard(author, round),
            Insert::Equivocation(proof) => {
                let bytes = Gossip::Equivocation(proof.clone()).encode();
                self.rates.publish(now);
                self.actions.push_back(Action::Publish(bytes));
                self.equivocated(author, round);
            }
            _ => return inserted,
        }
        if let (Some(said), Some(delta)) = (said, self.log.delta_of(round, &author)) {
            self.replica.note(&self.log, self.round, delta, said);
        }
        if round < self.round {
            self.fold(now);
        }
        inserted
    }

    fn equivocated(&mut self, author: PeerKey, round: u64) {
        self.count("two deltas of one author for one round");
        self.report(Report::Equivocation { author, round });
    }

    /// Verifies a proof of equivocation and voids the author's part. Only a proof that changes something is
    /// accepted: an author can sign any number of pairs, and old ones are true for ever.
    pub(super) fn admit_proof(
        &mut self,
        now: Time,
        proof: &(SignedHeader, SignedHeader),
        source: PeerKey,
    ) -> Verdict {
        let (a, b) = (&proof.0.header, &proof.1.header);
        let pair = a.author == b.author && a.round == b.round && a.id() != b.id();
        let ours = a.swarm == self.swarm && b.swarm == self.swarm;
        if !(pair && ours) {
            self.strike(now, "false proof of equivocation", source);
            return Verdict::Reject;
        }
        let open = (self.log.settled()..=self.newest()).contains(&a.round);
        let void = matches!(self.log.entry(a.round, &a.author), Some(Entry::Void(_)));
        if !open || void || !self.is_admissible(a) || matches!(self.phase, Phase::Seeking { .. }) {
            return Verdict::Ignore;
        }
        if !(self.checks.is_signed(&proof.0) && self.checks.is_signed(&proof.1)) {
            self.strike(now, "false proof of equivocation", source);
            return Verdict::Reject;
        }
        if !self.log.insert_proof(proof, self.newest()) {
            return Verdict::Ignore;
        }
        self.equivocated(a.author, a.round);
        if a.round < self.round && self.replica.fold(&self.log, self.round) {
            self.actions.push_back(Action::Folded);
        }
        Verdict::Accept
    }

    fn verdict(&mut self, token: u64, verdict: Verdict) {
        self.actions.push_back(Action::Verdict { token, verdict });
    }
}
