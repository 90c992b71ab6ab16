//! What a node may send and receive: so much a second, and so much a day.
//!
//! A day's amount is spread over what is left of the day (UTC), so that a node takes part all day long and not for
//! an hour of it. What a day has used is kept as `traffic.json` in the node's folder: a restart is no new day.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::net::{Daily, Limits, Rate, Traffic};
use crate::store::{read_limited, write_atomically};

const FILE: &str = "traffic.json";
const MAX_FILE: u64 = 4096;
const DAY: u64 = 24 * 3600;

/// What the user allows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// A second.
    pub(crate) limits: Limits,
    /// Sent a day.
    pub(crate) upload_day: Option<Daily>,
    /// Received a day.
    pub(crate) download_day: Option<Daily>,
}

/// What a day has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    /// Days since 1970.
    day: u64,
    /// Bytes sent on it.
    pub(super) sent: u64,
    /// Bytes received on it.
    pub(super) received: u64,
}

/// What is allowed, and what of it is used.
pub(super) struct Allowance {
    allowed: Allowed,
    used: Used,
    /// This run's traffic when it was last looked at.
    seen: Traffic,
    written: Used,
}

impl Allowance {
    /// With what the folder remembers of this day.
    pub(super) fn read(dir: &Path, allowed: Allowed, now: u64) -> Self {
        let read =
            || -> Result<Used> { Ok(serde_json::from_slice(&read_limited(&dir.join(FILE), MAX_FILE)?)?) };
        // A file that is missing or damaged costs no more than the memory of a day.
        let used = read().ok().filter(|used| used.day == now / DAY);
        let used = used.unwrap_or(Used { day: now / DAY, ..Used::default() });
        Self { allowed, used, seen: Traffic::default(), written: Used::default() }
    }

    /// This run has sent and received so much by now. Returns the limits that hold from now on.
    pub(super) fn update(&mut self, traffic: Traffic, now: u64) -> Limits {
        let day = now / DAY;
        if day != self.used.day {
            self.used = Used { day, ..Used::default() };
        }
        self.used.sent += traffic.sent.saturating_sub(self.seen.sent);
        self.used.received += traffic.received.saturating_sub(self.seen.received);
        self.seen = traffic;
        let left = DAY - now % DAY;
        let spread = |daily: Option<Daily>, used: u64| {
            daily.map(|daily| Rate::new(daily.bytes().saturating_sub(used) / left))
        };
        let least = |a: Option<Rate>, b: Option<Rate>| a.into_iter().chain(b).min();
        let Allowed { limits, upload_day, download_day } = self.allowed;
        Limits {
            upload: least(limits.upload, spread(upload_day, self.used.sent)),
            download: least(limits.download, spread(download_day, self.used.received)),
        }
    }

    /// What this day has used.
    pub(super) fn used(&self) -> Used {
        self.used
    }

    /// Writes what this day has used, if it has changed and if anything depends on it.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(super) fn write(&mut self, dir: &Path) -> Result<()> {
        let matters = self.allowed.upload_day.is_some() || self.allowed.download_day.is_some();
        if matters && self.written != self.used {
            write_atomically(&dir.join(FILE), &serde_json::to_vec(&self.used)?)?;
            self.written = self.used;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(sent: u64, received: u64) -> Traffic {
        Traffic { sent, received }
    }

    #[test]
    fn a_days_amount_is_spread_over_what_is_left_of_it_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = Allowed {
            limits: Limits { upload: Some(Rate::new(50_000)), download: None },
            upload_day: Some("1728MB".parse().unwrap()),
            download_day: Some("8640MB".parse().unwrap()),
        };
        let midnight = 20_000 * DAY;
        let mut allowance = Allowance::read(dir.path(), allowed, midnight);
        let rates = |limits: Limits| {
            (limits.upload.map(Rate::bytes_a_second), limits.download.map(Rate::bytes_a_second))
        };
        assert_eq!(rates(allowance.update(traffic(0, 0), midnight)), (Some(20_000), Some(100_000)));
        // Half of the upload is used in a quarter of the day.
        let morning = midnight + DAY / 4;
        assert_eq!(rates(allowance.update(traffic(864_000_000, 0), morning)), (Some(13_333), Some(133_333)));
        allowance.write(dir.path()).unwrap();
        let mut again = Allowance::read(dir.path(), allowed, morning);
        assert_eq!(rates(again.update(traffic(0, 0), morning)), (Some(13_333), Some(133_333)));
        // All of it: next to nothing until midnight. Then a new day, in which the limit a second is the lower one.
        let evening = midnight + DAY - 10;
        assert_eq!(rates(again.update(traffic(864_000_000, 0), evening)).0, Some(1));
        assert_eq!(rates(again.update(traffic(864_000_000, 0), midnight + 2 * DAY - 10)).0, Some(50_000));
    }

    #[test]
    fn without_an_amount_a_day_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut allowance = Allowance::read(dir.path(), Allowed::default(), 0);
        assert_eq!(allowance.update(traffic(5, 5), 10), Limits::default());
        allowance.write(dir.path()).unwrap();
        assert!(!dir.path().join(FILE).exists());
        assert_eq!(allowance.used().sent, 5);
    }
}
