//! Bytes a second over the last moments, for the meter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::net::Traffic;

/// How far the meter looks back.
const SPAN: Duration = Duration::from_secs(10);
/// Readings kept: two a second over the span, and some more.
const READINGS: usize = 64;

/// The last readings.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(Instant, Traffic)>);

impl Recent {
    /// So much had gone by `now`.
    pub(super) fn note(&mut self, traffic: Traffic, now: Instant) {
        // One reading from before the span stays: the span begins there.
        while self.0.len() >= READINGS || self.0.get(1).is_some_and(|(at, _)| *at + SPAN <= now) {
            self.0.pop_front();
        }
        self.0.push_back((now, traffic));
    }

    /// Bytes sent and received a second.
    pub(super) fn a_second(&self) -> (u64, u64) {
        let (Some((from, before)), Some((to, after))) = (self.0.front(), self.0.back()) else {
            return (0, 0);
        };
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        let rate = |before: u64, after: u64| {
            if seconds > 0.0 { (after.saturating_sub(before) as f64 / seconds) as u64 } else { 0 }
        };
        (rate(before.sent, after.sent), rate(before.received, after.received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_back_for_ten_seconds() {
        let start = Instant::now();
        let mut recent = Recent::default();
        assert_eq!(recent.a_second(), (0, 0));
        for half_second in 0..100 {
            let sent = if half_second < 50 { 0 } else { 500 * (half_second - 50) };
            let traffic = Traffic { sent, received: 1000 * half_second };
            recent.note(traffic, start + Duration::from_millis(500 * half_second));
        }
        assert_eq!(recent.a_second(), (1000, 2000));
    }
}
