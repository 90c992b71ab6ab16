//! Advancing: train, sign, persist, publish, wait, fold, settle; and finishing together.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Time;
use crate::anti_entropy::{Neighbour, STATUS_INTERVAL};
use crate::checkpoint::Held;
use crate::delta::{self, Delta, Header, fixed_loss};
use crate::digest::Digest;
use crate::identity::PeerKey;
use crate::ledger::{self, Mass, Part};
use crate::packing;
use crate::round_log::Entry;
use crate::wire::{Gossip, MAX_INLINE, Role};

use super::{Action, Peer, Phase, Report};

/// Statuses of a neighbour that must agree in a row before a finishing peer believes it.
const AGREEING_STATUSES: u64 = 2;

/// Without neighbours, a finishing peer stays this long for somebody to come back.
pub(super) const FINISH_ALONE: Duration = Duration::from_secs(3);

/// A finishing peer does not stay longer than this and a round for a few neighbours who never agree, if most do:
/// what it knows, those know too.
const FINISH_PATIENCE: Duration = Duration::from_secs(30);

/// Of so many neighbours one may disagree.
pub(super) const ONE_OF: usize = 4;

/// A status older than this does not say any more where a neighbour is.
const FRESH: Duration = STATUS_INTERVAL.saturating_mul(4);

/// What the trainer extracted for a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Extracted {
    /// The round it was asked for.
    pub round: u64,
    /// The packed body; empty if there was nothing to send.
    pub body: Vec<u8>,
    /// Tokens trained on since the last delta.
    pub tokens: u64,
    /// Training loss at the start, in nats per token.
    pub loss_before: f64,
    /// Training loss at the end.
    pub loss_after: f64,
}

impl Peer {
    /// The trainer has done its steps for the round.
    pub fn handle_trained(&mut self, now: Time) {
        if !matches!(self.phase, Phase::Training) || !self.part.trains {
            return;
        }
        if self.met_others && self.neighbours.is_empty() {
            // A week offline is not forced on anyone, and not lost: it stays in the residual.
            self.in_touch = false;
            if !std::mem::replace(&mut self.alone, true) {
                self.report(Report::Alone);
            }
            self.actions.push_back(Action::StartRound(self.round));
            return;
        }
        self.alone = false;
        if !self.claims.is_empty() {
            // It may have signed this round already: another stretch of training until that is known.
            self.actions.push_back(Action::StartRound(self.round));
            return;
        }
        let swarm = self.membership.swarm_round(self.round).unwrap_or(0);
        let reach = self.pacer.reach(now).min(self.longest_jump());
        let target = swarm.min(self.round.saturating_add(reach));
        let target = target.max(self.next_to_sign).max(self.round);
        let last = self.part.stop_before.map_or(u64::MAX, |stop| stop.saturating_sub(1));
        self.advance_to(now, target.min(last).max(self.round));
        if self.round < self.next_to_sign {
            // Back from another history, with every round signed up to the last: nothing is signed twice.
            self.advance_to(now, last.saturating_add(1));
            self.begin_round(now);
            return;
        }
        let above = self.log.is_above(self.log.cut(self.round), self.round, &self.me);
        if !above || self.log.is_crowded(self.round, &self.me) || !self.may_publish(self.round) {
            // There are more authors than a round takes, the round is full of better-ranked ones already, or this
            // one is not admitted any more. What was learned waits for a round that takes it.
            self.start_waiting(now);
            return;
        }
        self.phase = Phase::Extracting(self.round);
        self.actions.push_back(Action::Extract { round: self.round, k: self.genesis.rule.k });
    }

    /// Whether there is training to be done here, from `now` on. A peer that was made for training can pause: it is a
    /// replica meanwhile, says so to its neighbours, and nobody waits for it. An own delta that is on its way still
    /// goes out. What was trained for a round that is left stays in the residual.
    pub fn set_training(&mut self, now: Time, trains: bool) {
        if std::mem::replace(&mut self.part.trains, trains) == trains {
            return;
        }
        if trains && matches!(self.phase, Phase::Training) {
            self.begin_round(now);
        }
        self.continue_phase(now);
    }

    /// The trainer has extracted its delta. It is signed and goes to disk before it goes anywhere else.
    pub fn handle_extracted(&mut self, now: Time, extracted: Extracted) {
        let Phase::Extracting(round) = self.phase else { return };
        if round != extracted.round {
            return;
        }
        // A round that has been signed is never signed again, whatever is asked.
        if extracted.body.is_empty() || round < self.next_to_sign {
            self.start_waiting(now);
            return;
        }
        if extracted.body.len() > self.max_body as usize
            || packing::decode(&self.layout, &self.genesis.rule, &extracted.body).is_err()
        {
            self.report(Report::Unusable);
            self.start_waiting(now);
            return;
        }
        let header = self.header(round, &extracted);
        let delta =
            Delta { id: header.id(), signed: header.sign(&self.identity), body: extracted.body.into() };
        self.next_to_sign = round + 1;
        self.book(&delta);
        let bytes = Gossip::Delta(Box::new(delta.signed), Some(delta.body.to_vec())).encode();
        self.phase = Phase::Persisting(Box::new(delta));
        self.actions.push_back(Action::Persist { round, bytes });
    }

    /// Enters an own delta into the books.
    pub(super) fn book(&mut self, delta: &Delta) {
        let header = delta.header();
        let mass = packing::decode(&self.layout, &self.genesis.rule, &delta.body);
        let mass = mass.map(|sparse| Mass::of(&sparse)).unwrap_or_default();
        self.ledger.signed(header.round, delta.id, header.body_hash, delta.body.clone(), mass);
    }

    /// The own delta of `round` is on disk.
    pub fn handle_persisted(&mut self, now: Time, round: u64) {
        let phase = std::mem::replace(&mut self.phase, Phase::Training);
        let Phase::Persisting(delta) = phase else {
            self.phase = phase;
            return;
        };
        debug_assert_eq!(delta.header().round, round);
        let inline = (delta.body.len() <= MAX_INLINE).then(|| delta.body.to_vec());
        self.rates.publish(now);
        self.actions.push_back(Action::Publish(Gossip::Delta(Box::new(delta.signed), inline).encode()));
        self.insert(now, *delta, None);
        self.start_waiting(now);
        self.continue_phase(now);
    }

    fn start_waiting(&mut self, now: Time) {
        self.phase = Phase::Waiting { deadline: self.pacer.deadline(now) };
    }

    fn header(&self, round: u64, extracted: &Extracted) -> Header {
        let checkpoint = self.checkpoints.newest().map_or(self.start, |held| held.checkpoint);
        Header {
            version: delta::VERSION,
            swarm: self.swarm,
            round,
            author: self.me,
            base: self.log.digest_after(self.log.settled_at(round)).unwrap_or_default(),
            checkpoint_round: checkpoint.settled,
            checkpoint_digest: checkpoint.manifest,
            body_hash: Digest::of_bytes(&extracted.body),
            body_length: extracted.body.len() as u32,
            tokens: extracted.tokens,
            loss_before: fixed_loss(extracted.loss_before),
            loss_after: fixed_loss(extracted.loss_after),
        }
    }

    /// Looks whether the current phase can go on.
    pub(super) fn continue_phase(&mut self, now: Time) {
        match &self.phase {
            Phase::Seeking { since } => {
                let since = *since;
                self.continue_seeking(now, since);
            }
            Phase::Joining(_) => self.continue_joining(now),
            Phase::Waiting { deadline } => {
                let over = now >= *deadline || (now >= self.pacer.earliest() && self.everyone_is_in());
                if over && self.is_far_ahead(now) {
                    self.phase = Phase::Waiting { deadline: now + STATUS_INTERVAL };
                } else if over {
                    self.next_round(now);
                }
            }
            Phase::Training if !self.part.trains => self.follow(now),
            Phase::Finishing { .. } => self.continue_finishing(now),
            _ => {}
        }
        self.ask_pieces(now);
    }

    /// Whether every author that is expected has its delta of this round in the log. A neighbour that says that it
    /// does not train is not expected.
    fn everyone_is_in(&self) -> bool {
        let cut = self.log.cut(self.round);
        let trains = |author| {
            let told = self.neighbours.get(author).and_then(|neighbour| neighbour.status.as_ref());
            told.is_none_or(|(status, _)| status.role == Role::Author)
        };
        let mut recent = self.membership.recent(self.round);
        recent.all(|(author, latest)| {
            latest >= self.round || !trains(author) || !self.log.is_above(cut, self.round, author)
        })
    }

    /// Whether most neighbours are so far behind that going on would settle rounds that they are still
    /// going to publish for: a quarter of the window. Who has not said where it is for a while does not
    /// count; whoever is behind itself never waits here, so somebody always goes on.
    fn is_far_ahead(&self, now: Time) -> bool {
        let at = |(peer, neighbour): (&PeerKey, &Neighbour)| {
            let (status, heard) = neighbour.status.as_ref()?;
            let counts = status.role == Role::Author && *heard + FRESH > now;
            // Its deltas may have said more since.
            counts.then(|| status.round.max(self.membership.latest(peer).unwrap_or(0)))
        };
        let mut rounds: Vec<u64> = self.neighbours.iter().filter_map(at).collect();
        rounds.sort_unstable();
        let median = rounds.len().checked_sub(1).and_then(|last| rounds.get(last.div_ceil(2)));
        let lead = u64::from(self.genesis.rounds.window / 4).max(1);
        median.is_some_and(|median| median + lead <= self.round)
    }

    fn next_round(&mut self, now: Time) {
        self.advance_to(now, self.round + 1);
        self.begin_round(now);
    }

    /// A replica goes where the authors are: past the lower median of their latest rounds.
    fn follow(&mut self, now: Time) {
        if self.part.stop_before.is_some_and(|stop| self.round >= stop) {
            self.begin_round(now);
            return;
        }
        let Some(swarm) = self.membership.swarm_round(self.round) else { return };
        let reach = self.pacer.reach(now).min(self.longest_jump());
        let target = (swarm + 1).min(self.round.saturating_add(reach));
        if target > self.round {
            self.advance_to(now, target);
            self.begin_round(now);
        }
    }

    /// Training for the current round begins, or the peer has done its rounds.
    pub(super) fn begin_round(&mut self, now: Time) {
        // Also if no other history was to be had: this one is it, then.
        self.settle_accounts();
        if self.part.stop_before.is_some_and(|stop| self.round >= stop) {
            self.phase = Phase::Finishing { agreed: BTreeMap::new(), since: now };
            self.continue_finishing(now);
            return;
        }
        if self.seek_majority(now) {
            return;
        }
        self.member = true;
        self.forget_revoked(now);
        self.phase = Phase::Training;
        self.pacer.start(now);
        if self.part.trains {
            self.actions.push_back(Action::StartRound(self.round));
        }
    }

    /// Moves on to `target`, round by round: folds what is below, settles what leaves the window, takes
    /// checkpoints where they are due.
    pub(super) fn advance_to(&mut self, now: Time, target: u64) {
        if target <= self.round {
            return;
        }
        self.pacer.advance(now, target - self.round);
        let every = u64::from(self.genesis.rounds.checkpoint_every);
        while self.round < target {
            self.round += 1;
            self.fold(now);
            while self.log.settled() < self.settles_at(self.round) {
                self.log.settle_next();
                let settled = self.log.settled();
                self.close_account(settled - 1);
                self.ledger.forget(settled.saturating_sub(self.longest_memory()));
                self.count_bases(settled - 1);
                self.replica.settle(settled);
                if settled.is_multiple_of(every) {
                    self.checkpoint();
                }
            }
        }
    }

    /// How many rounds are settled in `round`. Nobody who stops there says in a later header what it settled
    /// last, so that could not be compared: it stays open.
    fn settles_at(&self, round: u64) -> u64 {
        let last = self.part.stop_before.map_or(u64::MAX, |stop| stop.saturating_sub(1));
        self.log.settled_at(round.min(last))
    }

    pub(super) fn fold(&mut self, _now: Time) {
        if self.replica.fold(&self.log, self.round) {
            self.actions.push_back(Action::Folded);
        }
    }

    fn checkpoint(&mut self) {
        let (settled, state) = (self.log.settled(), self.replica.settled_coefficients());
        self.checkpoints.push(Held::new(settled, self.log.recent_digests(), state));
        self.actions.push_back(Action::Checkpoint(settled));
    }

    /// Rounds after which nothing that is known of one can change.
    fn longest_memory(&self) -> u64 {
        u64::from(self.genesis.rounds.retention) + u64::from(self.genesis.rounds.window)
    }

    /// `round` has settled: what became of the own delta?
    pub(super) fn close_account(&mut self, round: u64) {
        let own = self.log.delta_of(round, &self.me);
        let part = match self.log.entry(round, &self.me) {
            // What does not count is for the residual as if it had not come.
            Some(Entry::Delta(_)) if own.is_some_and(|own| self.replica.leaves_out(own)) => Part::Absent,
            Some(Entry::Delta(delta)) => Part::Counts(delta.id),
            Some(Entry::Void(_)) => Part::Void,
            None => Part::Absent,
        };
        let own = own.map(|delta| delta.body.clone());
        match (self.ledger.settle(round, part), own) {
            (Some(ledger::Entry::Return(body)), _) => self.actions.push_back(Action::Return { round, body }),
            (Some(ledger::Entry::Take), Some(body)) => self.actions.push_back(Action::Take { round, body }),
            _ => {}
        }
    }

    /// A peer that has done its rounds stays until every neighbour is as far and holds the same sets,
    /// in two statuses in a row: what it knows may be known to nobody else yet. After a while, most are enough: a
    /// neighbour that lies about itself would hold it for ever.
    fn continue_finishing(&mut self, now: Time) {
        let ours = self.log.set_digests(self.log.settled());
        let (settled, round) = (self.log.settled(), self.round);
        let patience = FINISH_PATIENCE + Duration::from_millis(self.genesis.rounds.round_ms.into());
        let Phase::Finishing { agreed, since } = &mut self.phase else { return };
        agreed.retain(|peer, _| self.neighbours.iter().any(|(neighbour, _)| neighbour == peer));
        let mut dissenting = 0;
        for (peer, neighbour) in self.neighbours.iter() {
            let same = neighbour.status.as_ref().is_some_and(|(status, _)| {
                let there = match status.role {
                    Role::Author => status.round >= round,
                    Role::Joining => false,
                    Role::Replica | Role::Finishing => true,
                };
                let from = settled.max(status.settled);
                // Equal open sets on top of different histories are no agreement, and a history that
                // cannot be compared (too old, or beyond our own round) is none either.
                let known = Some(status.settled).filter(|settled| *settled <= round);
                let history = known.and_then(|settled| self.log.expected_digest(settled));
                let there = there && history == Some(status.log_digest);
                let open = |(at, _): &&(u64, Digest)| (from..round).contains(at);
                there && ours.iter().filter(open).eq(status.open.iter().filter(open))
            });
            if !same {
                agreed.remove(peer);
            }
            let first = *agreed.entry(*peer).or_insert(neighbour.heard);
            dissenting += usize::from(!same || neighbour.heard < first + AGREEING_STATUSES - 1);
        }
        let alone = self.neighbours.is_empty();
        let few = dissenting * ONE_OF <= self.neighbours.len() && now >= *since + patience;
        if (dissenting == 0 || few) && (!alone || !self.met_others || now >= *since + FINISH_ALONE) {
            self.phase = Phase::Finished;
            self.actions.push_back(Action::Finished);
        }
    }
}
