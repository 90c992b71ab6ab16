//! One history for everybody: noticing that one's own is not the swarm's, and taking up the swarm's.
//!
//! Peers settle a round when it leaves the window, whatever has reached them. If they were cut off from
//! each other for longer, they have settled different sets, and from there on hold different histories.
//! Every signed delta says in its `base` which history its author has. Deltas of open rounds still reach
//! everyone once the peers meet again, so all of them settle the same headers some rounds later, and the
//! `base` that most of these carry (a tie: the smallest digest) is the swarm's history. It is the same for
//! all who count, and nobody has to be asked.
//!
//! Whoever holds another history looks for a neighbour that holds this one, finds the last number of
//! settled rounds on which both agree, takes back what it settled since, and fetches the neighbour's sets
//! instead. Integers go out of C as exactly as they came in.
//!
//! # What the device learned
//! Rounds that are given up may hold deltas that this peer published, and nobody else's C has them. A
//! share of what C loses and gains on the way goes to its residual ([`super::Action::Rebase`]), from where it
//! is published again, bit by bit. How much is the trainer's to say: the whole difference keeps the device's
//! own model as it is, and pulls everybody else's towards it. Nothing is counted twice, for the rounds that
//! held it are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_optimizer::coefficients::Coefficients;

use crate::Time;
use crate::delta::{Delta, SignedHeader};
use crate::digest::Digest;
use crate::identity::PeerKey;
use crate::ledger::Fate;
use crate::wire::{Request, Response, Role};

use super::catch_up::History;
use super::join::Stage;
use super::{Action, Peer, Phase, Report};

/// How long to wait before looking again whether most neighbours are right.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// What was given up and has not been replaced yet.
pub(super) struct GivenUp {
    /// C as it was.
    pub(super) before: Coefficients,
    /// Own deltas, `(round, id)`.
    pub(super) own: Vec<(u64, Digest)>,
}

/// The history that most authors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Majority {
    /// Number of settled rounds.
    pub(super) settled: u64,
    /// The log digest after them.
    pub(super) digest: Digest,
}

/// The round whose headers speak about all but the last round that `history` has settled.
pub(super) fn weighing(history: &History, window: u64) -> Option<u64> {
    (history.settled() + window).checked_sub(2)
}

impl Peer {
    /// Counts what the headers of a round that has just settled say about the history before it.
    pub(super) fn count_bases(&mut self, round: u64) {
        let settled = self.log.settled_at(round);
        let mut votes: BTreeMap<Digest, usize> = BTreeMap::new();
        for delta in self.log.deltas(round) {
            *votes.entry(delta.header().base).or_default() += 1;
        }
        let best = votes.into_iter().max_by_key(|(digest, count)| (*count, std::cmp::Reverse(*digest)));
        let Some((digest, _)) = best else { return };
        let ours = self.log.digest_after(settled);
        self.majority = ours.is_some_and(|ours| ours != digest).then_some(Majority { settled, digest });
    }

    /// If most authors have another history than this peer, starts to look for it among the neighbours.
    /// Or, whatever the authors' headers say here, if nearly all neighbours hold another.
    /// Returns whether it does.
    pub(super) fn seek_majority(&mut self, now: Time) -> bool {
        if let Some(majority) = self.majority.take()
            && self.compare(now, Some(majority), &BTreeSet::new())
        {
            return true;
        }
        if self.outvoted_at.is_some_and(|then| now < then + LOOK_AGAIN) {
            return false;
        }
        let Some(majority) = self.outvoted() else { return false };
        self.outvoted_at = Some(now);
        self.compare(now, Some(majority), &BTreeSet::new())
    }

    /// The history that at least three of four neighbours hold, if ours is another. A peer that
    /// few deltas reach may hold too few headers to see it from them.
    fn outvoted(&self) -> Option<Majority> {
        let common = self.common_history()?;
        let differs = self.log.digest_after(common.settled).is_some_and(|ours| ours != common.digest);
        let all = self.neighbours.iter().filter_map(|(_, neighbour)| neighbour.status.as_ref());
        let (mut holding, mut others) = (0, 0);
        for (status, _) in all.filter(|(status, _)| status.role != Role::Joining) {
            let same = (status.settled, status.log_digest) == (common.settled, common.digest);
            *if same { &mut holding } else { &mut others } += 1;
        }
        (differs && holding >= 3 && holding >= 3 * others).then_some(common)
    }

    /// Asks a neighbour that has not been `tried` for its history. Returns whether there is one.
    pub(super) fn compare(
        &mut self,
        now: Time,
        majority: Option<Majority>,
        tried: &BTreeSet<PeerKey>,
    ) -> bool {
        // Who holds ours is of no help in finding another one.
        let any = majority.is_none_or(|majority| self.is_ours(&majority));
        let differs = |settled: u64, theirs: Digest| {
            any || self.log.expected_digest(settled).is_none_or(|ours| ours != theirs)
        };
        let candidates = self.neighbours.iter().filter_map(|(peer, neighbour)| {
            let (status, _) = neighbour.status.as_ref()?;
            let other = majority.is_some_and(|majority| {
                majority.settled == status.settled && majority.digest != status.log_digest
            });
            let behind = majority.is_none() && self.is_behind(status);
            let fit = status.role != Role::Joining
                && !other
                && !behind
                && differs(status.settled, status.log_digest);
            (fit && !tried.contains(peer)).then_some((status.round, *peer))
        });
        // The furthest first: joining there needs no second join right after.
        let Some((target, source)) = candidates.max() else { return false };
        let asked = self.ask(now, source, crate::anti_entropy::Pending::History, &Request::History);
        if asked {
            let tried = tried.iter().copied().chain([source]).collect();
            self.join_from(source, target, Stage::Comparing { majority, tried });
        }
        asked
    }

    /// The log digests that a neighbour asks for.
    pub(super) fn history_response(&self) -> Response {
        let (first, digests) = self.log.history();
        Response::History { first, held_from: self.log.held_from(), digests }
    }

    /// `source` answered with its log digests. If it is not known what most authors have, their headers of the
    /// source's last whole round tell.
    pub(super) fn history_arrived(&mut self, now: Time, source: PeerKey, history: History) {
        let Some((majority, tried)) = self.comparing_with(&source) else { return };
        match (majority, weighing(&history, self.genesis.rounds.window.into())) {
            (Some(Majority { settled, digest }), _) if history.at(settled) != Some(digest) => {
                self.compare_next(now, majority, &tried);
            }
            (None, Some(round)) if history.settled() > 1 => {
                let asked = self.ask_round(now, source, round);
                if let Phase::Joining(join) = &mut self.phase {
                    join.enter(Stage::Weighing { history, tried });
                }
                if !asked {
                    self.join_cannot_use("the neighbour that was asked does not answer");
                }
            }
            _ => self.adopt(now, source, history, &tried),
        }
    }

    /// Headers that `source` lists for the round that weighs its history are here.
    pub(super) fn weigh(&mut self, now: Time, source: PeerKey, headers: &[SignedHeader]) {
        let Phase::Joining(join) = &mut self.phase else { return };
        let Some((history, tried)) = join.take_weighed() else { return };
        let mut votes: BTreeMap<Digest, BTreeSet<PeerKey>> = BTreeMap::new();
        // Together with what is here: neither side's selection decides alone.
        let round = weighing(&history, self.genesis.rounds.window.into()).unwrap_or_default();
        let held = self.log.deltas(round).map(|delta| &delta.signed);
        for signed in headers.iter().filter(|signed| self.checks.is_signed(signed)).chain(held) {
            let header = &signed.header;
            if header.swarm == self.swarm && header.author != self.me && self.has_a_say(header) {
                votes.entry(header.base).or_default().insert(header.author);
            }
        }
        // Most authors win; a tie goes to the smallest digest, the same for everybody.
        let best = votes.into_iter().max_by_key(|(base, authors)| (authors.len(), std::cmp::Reverse(*base)));
        let settled = history.settled() - 1;
        match best {
            Some((digest, _)) if history.at(settled) != Some(digest) => {
                self.compare_next(now, Some(Majority { settled, digest }), &tried);
            }
            // Nobody but us has spoken: then there is nobody to contradict it.
            _ => self.adopt(now, source, history, &tried),
        }
    }

    fn compare_next(&mut self, now: Time, majority: Option<Majority>, tried: &BTreeSet<PeerKey>) {
        if self.compare(now, majority, tried) {
            return;
        }
        // Those who signed for that history hold it no longer, or are gone. What most neighbours hold is next.
        let common = majority.and_then(|_| self.common_history()).filter(|common| majority != Some(*common));
        let helps = |common: &Majority| !self.is_ours(common) || self.is_left_behind();
        if common.filter(helps).is_none() || !self.compare(now, common, &BTreeSet::new()) {
            self.begin_round(now);
        }
    }

    /// Whether our history is, or is going to be, this one.
    fn is_ours(&self, history: &Majority) -> bool {
        self.log.expected_digest(history.settled) == Some(history.digest)
    }

    /// The history that most neighbours say they hold. A tie: the smallest digest.
    fn common_history(&self) -> Option<Majority> {
        let mut held: BTreeMap<(u64, Digest), usize> = BTreeMap::new();
        for (_, neighbour) in self.neighbours.iter() {
            if let Some((status, _)) =
                neighbour.status.as_ref().filter(|(status, _)| status.role != Role::Joining)
            {
                *held.entry((status.settled, status.log_digest)).or_default() += 1;
            }
        }
        let most = held.into_iter().max_by_key(|(history, count)| (*count, std::cmp::Reverse(*history)));
        most.map(|((settled, digest), _)| Majority { settled, digest })
    }

    /// Finds where our history and that of `source` part, and goes on from there with the source's.
    fn adopt(&mut self, now: Time, source: PeerKey, history: History, tried: &BTreeSet<PeerKey>) {
        let theirs = history.settled();
        let common = self.log.common(history.first, &history.digests);
        let parted = self.parted_from(history.first, &history.digests);
        // One who came later than we left off has not got the rounds between; somebody else may have.
        let has_rounds = common.is_some_and(|common| common >= history.held_from || common >= theirs);
        match common {
            Some(_) if has_rounds && !parted => {}
            Some(common) if has_rounds && common >= self.log.held_from() => self.give_up(common, theirs),
            Some(_) if !has_rounds && self.compare(now, None, tried) => return,
            _ => {
                if parted {
                    self.give_up_everything();
                }
                self.take_checkpoint(now, source);
                return;
            }
        }
        self.catch_up(now, history);
    }

    /// Whether our history and the one with these digests, the first after `first` rounds, are known to differ.
    pub(super) fn parted_from(&self, first: u64, digests: &[Digest]) -> bool {
        let (ours, theirs) = (self.log.settled(), (first + digests.len() as u64).saturating_sub(1));
        match self.log.common(first, digests) {
            Some(common) => common < ours.min(theirs),
            // Nothing to compare, or both know digests after the same numbers of rounds, and all differ.
            None => first <= ours && theirs >= self.log.history().0,
        }
    }

    /// Takes back the rounds from `settled` on, of which the other history has settled those below `until`.
    fn give_up(&mut self, settled: u64, until: u64) {
        let rounds = self.log.settled() - settled;
        self.report(Report::GaveUp { rounds });
        let before = self.replica.coefficients().clone();
        self.round = self.round.min((settled + u64::from(self.genesis.rounds.window)).saturating_sub(1));
        self.replica.rewind(&self.log, settled, self.round);
        let deltas = self.log.rewind(settled, until);
        self.checkpoints.rewind(settled);
        self.replica.fold(&self.log, self.round);
        self.actions.push_back(Action::Folded);
        self.remember(before, deltas);
    }

    /// The histories parted before anything that is retained: a checkpoint will take the place of all.
    pub(super) fn give_up_everything(&mut self) {
        let rounds = self.log.history().0..self.round + 1;
        let deltas = rounds.flat_map(|round| self.log.deltas(round)).cloned().collect();
        self.report(Report::GaveUp { rounds: self.log.settled() });
        self.remember(self.replica.coefficients().clone(), deltas);
    }

    fn remember(&mut self, before: Coefficients, deltas: Vec<Arc<Delta>>) {
        // If this happens again before the first time is over, C before both is what counts.
        let given_up = self.given_up.get_or_insert_with(|| Box::new(GivenUp { before, own: Vec::new() }));
        // Those of the last time only, so that what is remembered is never more than a log holds.
        self.spare.clear();
        for delta in deltas {
            let (author, round) = (delta.header().author, delta.header().round);
            if author == self.me {
                given_up.own.push((round, delta.id));
                self.ledger.give_up(round, delta.id);
            }
            self.spare.insert(delta.header().body_hash, delta);
        }
    }

    /// A body that left the log with its round.
    pub(super) fn spare_body(&self, hash: &Digest) -> Option<&Arc<[u8]>> {
        self.spare.get(hash).map(|delta| &delta.body)
    }

    /// The other history is here: if own deltas are not in it, what they carried stays with the device.
    pub(super) fn settle_accounts(&mut self) {
        self.spare.clear();
        let Some(given_up) = self.given_up.take() else { return };
        // Whatever became of looking for another history, this is the one now.
        let undecided =
            |(round, _, fate): &(u64, Digest, Fate)| *fate == Fate::GivenUp && *round < self.log.settled();
        let rounds: Vec<u64> = self.ledger.fates().filter(undecided).map(|(round, ..)| round).collect();
        rounds.into_iter().for_each(|round| self.close_account(round));
        let counts = |(round, id): &(u64, Digest)| {
            self.log.delta_of(*round, &self.me).is_some_and(|delta| delta.id == *id)
        };
        if !given_up.own.iter().all(counts) {
            self.actions.push_back(Action::Rebase(Box::new(given_up.before)));
        }
    }

    fn comparing_with(&self, source: &PeerKey) -> Option<(Option<Majority>, BTreeSet<PeerKey>)> {
        let Phase::Joining(join) = &self.phase else { return None };
        join.comparing_with(source)
    }
}
