//! Sending less where a limit is tight: fewer coefficients first, fewer rounds second.
//!
//! What a node sends follows from its own deltas, times the neighbours that fetch them from it, and from those of
//! others, which it passes on; how much that is depends on the swarm and changes. So it is measured: at the end of
//! each round, what was sent since the last one is compared with what the limit allowed in that time. Near the limit,
//! the next delta has a fifth fewer coefficients; well below it, a tenth more, up to the genesis' k. With less
//! than a sixteenth of k a delta costs more in overhead than it teaches: then only every second round has one, then
//! every fourth, and so on. What is not sent stays in the residual and goes out later; nothing of it is lost.

use std::time::Instant;

use crate::net::Rate;

/// Of the limit: more than this is near, and less than that well below it.
const NEAR: f64 = 0.95;
const BELOW: f64 = 0.75;
/// What the share of k is multiplied with.
const LESS: f64 = 0.8;
const MORE: f64 = 1.1;
/// The smallest share of k.
const SMALLEST: f64 = 1.0 / 16.0;
/// At the least, one round of so many has a delta.
const RAREST: u64 = 16;

/// How much this node sends of what it could.
#[derive(Debug)]
pub(super) struct Thrift {
    /// Of the genesis' k.
    share: f64,
    /// One delta in so many rounds.
    every: u64,
    /// When the last round ended, and the bytes sent until then.
    since: Option<(Instant, u64)>,
}

impl Default for Thrift {
    fn default() -> Self {
        Self { share: 1.0, every: 1, since: None }
    }
}

impl Thrift {
    /// A round has ended at `now`; this run has sent `sent` bytes so far.
    pub(super) fn round_ended(&mut self, limit: Option<Rate>, sent: u64, now: Instant) {
        let before = self.since.replace((now, sent));
        let Some(limit) = limit else {
            (self.share, self.every) = (1.0, 1);
            return;
        };
        let Some((then, sent_then)) = before else { return };
        let allowed = limit.bytes_a_second() as f64 * now.saturating_duration_since(then).as_secs_f64();
        let used = sent.saturating_sub(sent_then) as f64 / allowed.max(1.0);
        if used > NEAR {
            if self.share > SMALLEST {
                self.share = (self.share * LESS).max(SMALLEST);
            } else {
                self.every = (2 * self.every).min(RAREST);
            }
        } else if used < BELOW {
            if self.every > 1 {
                self.every /= 2;
            } else {
                self.share = (self.share * MORE).min(1.0);
            }
        }
    }

    /// Coefficients of a full tile to send in `round`, of `k` that the genesis permits; `None` for a round without a
    /// delta.
    pub(super) fn coefficients(&self, round: u64, k: u32) -> Option<u32> {
        round.is_multiple_of(self.every).then_some(((f64::from(k) * self.share).round() as u32).clamp(1, k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A swarm in virtual time: a delta is fetched by three, and others' traffic comes on top.
    fn settle(limit: Option<Rate>, a_coefficient: f64, others: f64) -> (f64, f64, f64) {
        const K: u32 = 1024;
        let start = Instant::now();
        let mut thrift = Thrift::default();
        let (mut sent, mut deltas, mut coefficients) = (0.0, 0, 0.0);
        let mut waiting = 0.0f64;
        for round in 0..400u64 {
            let now = start + Duration::from_secs(round);
            if let Some(k) = thrift.coefficients(round, K) {
                waiting += 3.0 * a_coefficient * f64::from(k);
                if round >= 200 {
                    deltas += 1;
                    coefficients += f64::from(k);
                }
            }
            waiting += others;
            // What is over the limit is held back.
            let goes = limit.map_or(waiting, |limit| waiting.min(limit.bytes_a_second() as f64));
            (sent, waiting) = (sent + goes, waiting - goes);
            thrift.round_ended(limit, sent as u64, now + Duration::from_secs(1));
        }
        (deltas as f64 / 200.0, coefficients / f64::from(deltas).max(1.0) / f64::from(K), waiting)
    }

    #[test]
    fn a_tight_limit_costs_coefficients_first_and_rounds_second() {
        // A full delta costs 300 kB, the others 5 kB.
        let (deltas, share, _) = settle(None, 100.0, 5_000.0);
        assert_eq!((deltas, share), (1.0, 1.0));
        let (deltas, share, _) = settle(Some(Rate::new(1_000_000)), 100.0, 5_000.0);
        assert_eq!((deltas, share), (1.0, 1.0));
        let (deltas, share, waiting) = settle(Some(Rate::new(100_000)), 100.0, 5_000.0);
        assert_eq!(deltas, 1.0);
        assert!((0.15..0.4).contains(&share), "{share}");
        assert!(waiting < 300_000.0, "{waiting}");
        let (deltas, share, waiting) = settle(Some(Rate::new(15_000)), 100.0, 5_000.0);
        assert!((0.1..0.8).contains(&deltas), "{deltas}");
        assert!(share < 0.1, "{share}");
        assert!(waiting < 300_000.0, "{waiting}");
    }

    #[test]
    fn where_others_use_it_up_something_is_still_said_now_and_then() {
        let (deltas, ..) = settle(Some(Rate::new(15_000)), 100.0, 50_000.0);
        assert!((0.05..0.1).contains(&deltas), "one in {RAREST}: {deltas}");
    }

    #[test]
    fn a_limit_that_is_lifted_is_forgotten() {
        let now = Instant::now();
        let mut thrift = Thrift { share: SMALLEST, every: 4, since: Some((now, 0)) };
        assert_eq!((thrift.coefficients(3, 16), thrift.coefficients(4, 16)), (None, Some(1)));
        thrift.round_ended(None, 100, now);
        assert_eq!(thrift.coefficients(3, 16), Some(16));
    }
}
