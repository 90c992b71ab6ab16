//! Peers come and go, and the network splits and heals.

use std::time::Duration;

use swarm_protocol::Time;

use crate::queue::{Event, Who};
use crate::violation::Violation;

use super::{Saved, World};

/// After so long without a word, both ends of a connection give it up.
const PATIENCE: Duration = Duration::from_secs(20);

impl World {
    /// Schedules what the options ask for.
    pub(super) fn begin_weather(&mut self) {
        if self.options.churn > 0.0 {
            self.queue.after(self.options.round, Event::Churn);
        }
        if let Some(length) = self.options.partition {
            let start = self.options.round.mul_f64(self.options.rounds as f64 / 3.0);
            self.queue.at(start, Event::Split);
            if length > PATIENCE {
                self.queue.at(start + PATIENCE, Event::Break);
            }
            self.queue.at(start + length, Event::Heal);
        }
    }

    /// A round's time has passed: picks those who will leave during the next.
    pub(super) fn churn(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.queue.after(self.options.round, Event::Churn);
        let present = self.places.iter().filter(|place| place.peer.is_some()).count();
        // However hard it rains, half of the swarm stays.
        let mut spare = present.saturating_sub(self.places.len() / 2);
        for at in 0..self.places.len() {
            if spare == 0 || self.places[at].peer.is_none() || !self.random.chance(self.options.churn) {
                continue;
            }
            spare -= 1;
            let who = self.who(at);
            // The state on disk is older than the stop; only own deltas have been written since.
            let saved = self.random.within(self.options.round);
            self.queue.after(saved, Event::Snapshot(who));
            let stopped = saved + self.random.within(self.options.round);
            self.queue.after(stopped, Event::Leave(who));
        }
    }

    pub(super) fn snapshot(&mut self, who: Who) {
        if self.is_there(who) {
            let place = &mut self.places[who.at];
            place.snapshot = place.peer.as_ref().map(|peer| Saved {
                snapshot: peer.snapshot(),
                checkpoints: peer
                    .checkpoints()
                    .iter()
                    .map(|held| (held.bytes.clone(), held.state.clone()))
                    .collect(),
                given_back: place.given_back.clone(),
            });
        }
    }

    pub(super) fn leave(&mut self, who: Who) -> Result<(), Violation> {
        if !self.is_there(who) || self.ending.is_some() {
            return Ok(());
        }
        self.summary.left += 1;
        self.places[who.at].peer = None;
        for other in self.network.leave(who.at) {
            self.disconnected(other, who.at)?;
        }
        let away = self.random.log_normal(self.options.round * 4, 1.0);
        self.queue.after(away, Event::Return(who.at));
        Ok(())
    }

    pub(super) fn come_back(&mut self, at: usize) -> Result<(), Violation> {
        if self.ending.is_some() || self.places[at].peer.is_some() {
            return Ok(());
        }
        if self.random.chance(self.options.newcomers) {
            self.summary.newcomers += 1;
            let place = &mut self.places[at];
            place.person += 1;
            place.snapshot = None;
            place.outbox.clear();
            place.given_back.clear();
            self.trainer.reset(at);
            self.start(at, None, false)
        } else {
            self.summary.returned += 1;
            // As the node does: when all come back at once, somebody has to begin.
            self.start(at, Some(PATIENCE), true)
        }
    }

    pub(super) fn break_up(&mut self) -> Result<(), Violation> {
        for (a, b) in self.network.break_up() {
            self.disconnected(a, b)?;
            self.disconnected(b, a)?;
        }
        Ok(())
    }

    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        let places = &self.places;
        for (a, b) in self.network.heal(|at| places[at].peer.is_some()) {
            self.connected(a, b)?;
        }
        Ok(())
    }

    /// Cuts off a neighbour that has broken the rules, for `duration`.
    pub(super) fn cut_off(&mut self, at: usize, other: usize, duration: Time) -> Result<(), Violation> {
        self.summary.bans += 1;
        self.network.ban(at, other);
        self.queue.after(duration, Event::Forgive(at, other));
        if self.network.disconnect(at, other) {
            self.disconnected(at, other)?;
            self.disconnected(other, at)?;
        }
        Ok(())
    }
}
