//! When a round ends. Time is an argument, never a clock.

use std::time::Duration;

use crate::Time;
use crate::genesis::Rounds;

/// The timing of the current round.
#[derive(Clone, Debug)]
pub struct Pacer {
    min_round: Duration,
    grace: Duration,
    started: Time,
    advanced: Time,
}

impl Pacer {
    /// A pacer whose first round starts `now`.
    pub fn new(rounds: &Rounds, now: Time) -> Self {
        Self {
            min_round: Duration::from_millis(rounds.min_round_ms.into()),
            grace: Duration::from_millis(rounds.grace_ms.into()),
            started: now,
            advanced: now,
        }
    }

    /// Training for a round starts `now`.
    pub fn start(&mut self, now: Time) {
        self.started = now;
    }

    /// The round number went up by `rounds`, `now`.
    pub fn advance(&mut self, now: Time, rounds: u64) {
        // What was not used of the time since stays available, up to this much of it.
        let used = self.min_round.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        self.advanced = self.advanced.saturating_add(used).clamp(now.saturating_sub(self.min_round), now);
    }

    /// Training is done `now`: until when to wait for the others. At most a tenth of the time that the
    /// round took, at most the genesis' grace, and no round is shorter than the genesis' minimum.
    pub fn deadline(&self, now: Time) -> Time {
        let grace = self.grace.min(now.saturating_sub(self.started) / 10);
        self.earliest().max(now.saturating_add(grace))
    }

    /// The earliest end of the current round.
    pub fn earliest(&self) -> Time {
        self.advanced.saturating_add(self.min_round)
    }

    /// By how many rounds a peer may jump `now`, however far ahead others say they are: no faster than
    /// a round every minimum round time.
    pub fn reach(&self, now: Time) -> u64 {
        let elapsed = now.saturating_sub(self.advanced).as_millis();
        u64::try_from(elapsed / self.min_round.as_millis().max(1)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pacer() -> Pacer {
        let rounds = Rounds {
            window: 16,
            retention: 64,
            checkpoint_every: 8,
            round_ms: 60_000,
            min_round_ms: 1_000,
            grace_ms: 3_000,
        };
        Pacer::new(&rounds, 10 * SECOND)
    }

    #[test]
    fn the_wait_is_a_tenth_of_the_round_at_most() {
        let pacer = pacer();
        assert_eq!(pacer.deadline(20 * SECOND), 21 * SECOND);
        assert_eq!(pacer.deadline(110 * SECOND), 113 * SECOND);
        // A round that took no time still lasts its minimum.
        assert_eq!(pacer.deadline(10 * SECOND), 11 * SECOND);
    }

    #[test]
    fn jumps_are_no_faster_than_rounds() {
        let mut pacer = pacer();
        assert_eq!(pacer.reach(10 * SECOND), 0);
        assert_eq!(pacer.reach(17 * SECOND), 7);
        pacer.advance(17 * SECOND, 7);
        assert_eq!(pacer.reach(17 * SECOND), 0);
        pacer.advance(100 * SECOND, 1);
        assert_eq!(pacer.reach(100 * SECOND), 1);
    }
}
