//! Catching up: every round that a source has settled and heard since, in order, folded and settled as if it
//! had been lived through.
//!
//! What the source has settled is closed: only its lists count there, and the log digests that it claims must
//! come out. Several rounds are asked for at a time; when all are here but the swarm has gone on meanwhile, what
//! it has settled since is caught up with too.

use std::collections::BTreeSet;

use crate::Time;
use crate::digest::Digest;
use crate::identity::PeerKey;

use super::join::{Join, Stage};
use super::{Peer, Phase, Report};

/// Rounds asked for at a time.
const AHEAD: u64 = 32;

/// Bodies on their way, beyond which no more rounds are asked for.
const MANY_BODIES: usize = 256;

/// Rounds in a row without any delta: a swarm has none, for somebody has to be the first to get there.
const MAX_EMPTY: u32 = 4;

/// How often what has happened since is caught up with too, before this peer goes on from where it is.
const MAX_CHASES: u32 = 8;

/// Log digests that a source claims: the number of settled rounds of the first, and one for each number
/// from there on.
#[derive(Default)]
pub(super) struct History {
    pub(super) first: u64,
    /// The first round whose set the source holds.
    pub(super) held_from: u64,
    pub(super) digests: Vec<Digest>,
}

impl History {
    /// The digest after so many settled rounds.
    pub(super) fn at(&self, settled: u64) -> Option<Digest> {
        self.digests.get(usize::try_from(settled.checked_sub(self.first)?).ok()?).copied()
    }

    /// The highest number of settled rounds.
    pub(super) fn settled(&self) -> u64 {
        (self.first + self.digests.len() as u64).saturating_sub(1)
    }
}

impl Peer {
    /// Both histories are one up to where ours ends: fetches what the source has settled and heard since.
    pub(super) fn catch_up(&mut self, now: Time, history: History) {
        // What the source has settled without some delta that is open here has settled without it.
        for delta in self.log.rewind(self.log.settled(), history.settled()) {
            self.spare.insert(delta.header().body_hash, delta);
        }
        self.forget_awaited(history.settled());
        let Phase::Joining(join) = &mut self.phase else { return };
        join.enter(Stage::CatchingUp { listed: BTreeSet::new(), history });
        self.continue_joining(now);
    }

    /// All headers of `round` that the source knows have been offered.
    pub(super) fn join_round_listed(&mut self, round: u64) {
        if let Phase::Joining(Join { stage: Stage::CatchingUp { listed, .. }, unanswered, .. }) =
            &mut self.phase
        {
            listed.insert(round);
            *unanswered = 0;
        }
    }

    /// The body of a delta of `round` is not to be had from those asked: the round is not complete.
    pub(super) fn join_body_failed(&mut self, round: u64) {
        if let Phase::Joining(Join { stage: Stage::CatchingUp { listed, .. }, .. }) = &mut self.phase {
            listed.remove(&round);
        }
    }

    /// Takes every round in order that is complete, and asks for the next ones.
    pub(super) fn continue_catching_up(&mut self, now: Time, source: PeerKey, target: u64) {
        // Whoever has loaded a checkpoint stands a window after it, with nothing of the rounds between.
        let target = target.max(self.round);
        let mut next = self.log.settled();
        let (mut empty, mut full) = (0, next);
        loop {
            let Phase::Joining(Join { stage: Stage::CatchingUp { listed, .. }, .. }) = &self.phase else {
                return;
            };
            let complete = listed.contains(&next) && !self.awaits_bodies_of(next);
            if next >= target || !complete {
                break;
            }
            next += 1;
            if self.log.set_digest(next - 1).is_some() || next <= self.round {
                (empty, full) = (0, next);
            } else {
                empty += 1;
            }
            if empty >= MAX_EMPTY {
                self.refuse("rounds without any delta", source);
                self.seek_again(now, "the neighbour has nothing of the rounds that it says are over");
                return;
            }
        }
        // Rounds below `next` are complete, so this peer may stand there; a snapshot may stand further. If nobody
        // has a delta of the last ones, the swarm has not come to them yet.
        let reached = if next >= target { next } else { full };
        while self.round < reached {
            self.advance_to(now, self.round + 1);
            let Phase::Joining(Join { stage: Stage::CatchingUp { history, .. }, .. }) = &self.phase else {
                return;
            };
            if history.at(self.log.settled()).is_some_and(|claimed| claimed != self.log.log_digest()) {
                self.strike(now, "history that its rounds do not make", source);
                self.seek_again(now, "the neighbour's rounds do not make the history that it claims");
                return;
            }
        }
        if next >= target {
            if self.chase(now) {
                return;
            }
            self.fold(now);
            self.round = self.round.max(target);
            self.in_touch = true;
            self.neighbours.forgive();
            let round = self.round;
            self.report(Report::Joined { round });
            self.begin_round(now);
            return;
        }
        if self.bodies.len() >= MANY_BODIES {
            return;
        }
        for round in next..target.min(next + AHEAD).min(self.newest() + 1) {
            let Phase::Joining(Join { stage: Stage::CatchingUp { listed, .. }, .. }) = &self.phase else {
                return;
            };
            if !listed.contains(&round) {
                self.ask_round(now, source, round);
            }
        }
    }

    /// All that was asked for is here, but it took its time: goes on with what the swarm has settled since.
    /// Returns whether there is any.
    fn chase(&mut self, now: Time) -> bool {
        // A little is left to anti-entropy.
        let little = u64::from(self.genesis.rounds.window / 4);
        let behind = self
            .neighbours_at(|status| status.settled)
            .is_some_and(|most| most > self.log.settled() + little);
        let Phase::Joining(join) = &mut self.phase else { return false };
        if !behind || join.chases >= MAX_CHASES {
            return false;
        }
        join.chases += 1;
        self.compare(now, None, &BTreeSet::new())
    }
}
