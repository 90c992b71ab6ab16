//! A peer's own clock: it started elsewhere and runs a little fast or slow.

use std::time::Duration;

use swarm_protocol::Time;

const MILLION: i128 = 1_000_000;

/// Maps virtual time to what one peer takes for the time, and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset: Duration,
    /// Parts per million that the clock runs fast; above -1,000,000.
    fast: i32,
}

impl Clock {
    pub(crate) fn new(offset: Duration, fast: i32) -> Self {
        Self { offset, fast }
    }

    /// What the clock shows at the virtual time `at`.
    pub(crate) fn shows(&self, at: Time) -> Time {
        self.offset + scale(at, MILLION + i128::from(self.fast), MILLION)
    }

    /// The virtual time at which the clock shows `shown` or already a little more, never less.
    pub(crate) fn when(&self, shown: Time) -> Time {
        let since = shown.saturating_sub(self.offset);
        scale(since, MILLION, MILLION + i128::from(self.fast)) + Duration::from_nanos(2)
    }
}

fn scale(time: Time, by: i128, over: i128) -> Time {
    let nanos = time.as_nanos() as i128 * by / over;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_never_too_early() {
        for fast in [-20_000, -3, 0, 7, 999] {
            let clock = Clock::new(Duration::from_secs(60), fast);
            for nanos in (0..200_000_000_000).step_by(7_777_777_777) {
                let shown = Duration::from_secs(60) + Duration::from_nanos(nanos);
                let at = clock.when(shown);
                assert!(clock.shows(at) >= shown, "{fast} {nanos}");
                assert!(clock.shows(at) <= shown + Duration::from_nanos(5), "{fast} {nanos}");
            }
        }
    }
}
