//! How fast bulk goes out: checkpoints and bodies that peers ask for.
//!
//! A device may have to share its line with people. With a limit, an answer of bulk is sent as soon as what
//! was sent before is paid for, at so many bytes a second; until then it waits its turn, first come, first
//! served. An answer goes out whole, so that it is not overtaken by the asker's patience: the limit holds over
//! seconds, not over milliseconds. Gossip, statuses and lists of rounds never come here.
//!
//! Whoever asks gives up after ten seconds, so what would wait for longer than it is worth is refused soon:
//! the asker goes elsewhere, or comes back. So that nobody takes the whole queue, a peer has one answer
//! waiting, or as many as fit into half of the longest wait.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, Instant};

use swarm_protocol::identity::PeerKey;

/// The longest wait. The asker's patience, less the time that a large answer takes on its way.
const MAX_WAIT: Duration = Duration::from_secs(6);
/// What was not used of the limit for so long may be made up for.
const BURST: Duration = Duration::from_secs(1);
/// Bytes that may wait, whatever the limit.
const MAX_QUEUED: u64 = 32 << 20;
/// The smallest limit: the bodies of a small model's rounds would not get through with less.
const SMALLEST: u64 = 10_000;

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(NonZeroU64);

impl Rate {
    /// The number itself.
    #[cfg(feature = "train")]
    pub(crate) fn bytes_a_second(self) -> u64 {
        self.0.get()
    }

    fn time(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.0.get() as f64)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a rate in bytes a second: write 200kB or 1.5MB (k is 1,000, ki 1,024; B is a byte)"
            )
        };
        let bare = text.strip_suffix("/s").unwrap_or(text);
        let end = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
        let (number, unit) = bare.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let factor = match unit.trim_start() {
            "" | "B" => 1.0,
            "k" | "K" | "kB" | "KB" => 1e3,
            "M" | "MB" => 1e6,
            "G" | "GB" => 1e9,
            "ki" | "Ki" | "kiB" | "KiB" => 1024.0,
            "Mi" | "MiB" => 1048576.0,
            "Gi" | "GiB" => 1073741824.0,
            _ => return Err(wrong()),
        };
        let rate = number * factor;
        if !(SMALLEST as f64..=1e15).contains(&rate) {
            return Err(format!(
                "'{text}' is out of range: at least {} kB a second are needed to take part; leave the flag out for no \
                 limit",
                SMALLEST / 1000
            ));
        }
        NonZeroU64::new(rate as u64).map(Self).ok_or_else(wrong)
    }
}

/// What becomes of an answer that is offered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<T> {
    /// It is to be sent now.
    Send(T),
    /// It waits; [`Upload::next`] gives it back when it is its turn.
    Waits,
    /// It would wait for too long.
    Refused(T),
}

struct Waiting<T> {
    peer: PeerKey,
    bytes: u64,
    answer: T,
}

/// Answers that wait for their turn.
pub(super) struct Upload<T> {
    rate: Option<Rate>,
    /// When all that was sent is paid for.
    paid: Instant,
    queue: VecDeque<Waiting<T>>,
    queued: u64,
}

impl<T> Upload<T> {
    /// Nothing sent yet; without a rate, nothing ever waits.
    pub(super) fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self { rate, paid: now, queue: VecDeque::new(), queued: 0 }
    }

    /// An answer of so many `bytes` to `peer`.
    pub(super) fn offer(&mut self, peer: PeerKey, bytes: u64, answer: T, now: Instant) -> Offered<T> {
        let Some(rate) = self.rate else { return Offered::Send(answer) };
        if self.queue.is_empty() && self.paid <= now {
            self.pay(rate, bytes, now);
            return Offered::Send(answer);
        }
        let wait = self.paid.saturating_duration_since(now) + rate.time(self.queued);
        let theirs: u64 =
            self.queue.iter().filter(|waiting| waiting.peer == peer).map(|waiting| waiting.bytes).sum();
        let fair = theirs == 0 || rate.time(theirs + bytes) <= MAX_WAIT / 2;
        if wait > MAX_WAIT || !fair || self.queued + bytes > MAX_QUEUED {
            return Offered::Refused(answer);
        }
        self.queued += bytes;
        self.queue.push_back(Waiting { peer, bytes, answer });
        Offered::Waits
    }

    fn pay(&mut self, rate: Rate, bytes: u64, now: Instant) {
        let from = now.checked_sub(BURST).map_or(self.paid, |earliest| self.paid.max(earliest));
        self.paid = from + rate.time(bytes);
    }

    /// When [`Upload::next`] has something; `None` if nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queue.front().map(|_| self.paid)
    }

    /// The next answer whose turn it is and which is still `wanted`.
    pub(super) fn next(&mut self, now: Instant, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let rate = self.rate?;
        while self.paid <= now {
            let Waiting { bytes, answer, .. } = self.queue.pop_front()?;
            self.queued -= bytes;
            if wanted(&answer) {
                self.pay(rate, bytes, now);
                return Some(answer);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerKey {
        PeerKey([n; 32])
    }

    fn limited(rate: &str) -> (Upload<u64>, Instant) {
        let now = Instant::now();
        (Upload::new(Some(rate.parse().unwrap()), now), now)
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("200kB", 200_000),
            ("1MB", 1_000_000),
            ("1.5 MB/s", 1_500_000),
            ("64KiB", 65_536),
            ("1G", 1_000_000_000),
            ("20000", 20_000),
            ("10kB", 10_000),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().0.get(), bytes, "{text}");
        }
        for text in ["", "fast", "1mb", "200kb", "kB", "-1MB", "1.2.3MB", "nan", "inf", "1MB/h", "1e9"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("200kB"), "{text}: {error}");
        }
        for text in ["0", "9kB", "10000000000GB"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("out of range") && error.contains("10 kB"), "{text}: {error}");
        }
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let now = Instant::now();
        let mut upload = Upload::new(None, now);
        for n in 0..1000 {
            assert_eq!(upload.offer(peer(1), 1 << 30, n, now), Offered::Send(n));
        }
        assert_eq!((upload.due(), upload.next(now, |_| true)), (None, None));
    }

    /// Several askers that each want chunks and bodies all the time, and come back soon when they are refused.
    #[test]
    fn over_a_longer_span_the_rate_is_the_limit_and_everybody_is_served() {
        for (rate, bytes_a_second) in [("50kB", 50e3), ("200kB", 200e3), ("1MB", 1e6), ("20MB", 20e6)] {
            let (mut upload, start) = limited(rate);
            const SIZES: [u64; 4] = [1 << 20, 121_000, 1 << 20, 66_000];
            let (mut sent, mut served) = (0u64, [0u32; 4]);
            // One entry for each question under way: when it is asked again if nothing waits.
            let mut ask: Vec<(usize, Instant, bool)> = (0..8).map(|n| (n % 4, start, false)).collect();
            // So long that one large answer, which may still have to be paid for, does not count.
            let seconds = 600;
            for step in 0..seconds * 100 {
                let now = start + Duration::from_millis(10 * step);
                while let Some(n) = upload.next(now, |_| true) {
                    let (asker, ..) = ask[n as usize];
                    ask[n as usize] = (asker, now, false);
                    sent += SIZES[asker];
                    served[asker] += 1;
                }
                for (n, slot) in ask.iter_mut().enumerate() {
                    let (asker, at, waits) = *slot;
                    if waits || at > now {
                        continue;
                    }
                    *slot = match upload.offer(peer(asker as u8), SIZES[asker], n as u64, now) {
                        Offered::Send(_) => {
                            sent += SIZES[asker];
                            served[asker] += 1;
                            (asker, now + Duration::from_millis(10), false)
                        }
                        Offered::Waits => (asker, now, true),
                        Offered::Refused(_) => (asker, now + Duration::from_millis(700), false),
                    };
                }
                // What waits is sent before its asker has given up.
                assert!(upload.due().is_none_or(|due| due <= now + Duration::from_secs(25)));
            }
            let measured = sent as f64 / seconds as f64;
            assert!((measured / bytes_a_second - 1.0).abs() < 0.1, "{rate}: {measured} bytes a second");
            assert!(served.iter().all(|served| *served > 0), "{rate}: {served:?}");
        }
    }

    #[test]
    fn what_waits_is_bounded_shared_and_comes_in_order() {
        let (mut upload, now) = limited("100kB");
        assert_eq!(upload.offer(peer(1), 200_000, 0, now), Offered::Send(0));
        // The first one of a peer may wait however large it is; more only while they are few.
        assert_eq!(upload.offer(peer(1), 100_000, 1, now), Offered::Waits);
        assert_eq!(upload.offer(peer(1), 150_000, 2, now), Offered::Waits);
        assert_eq!(upload.offer(peer(1), 100_000, 3, now), Offered::Refused(3));
        assert_eq!(upload.offer(peer(2), 1_000_000, 4, now), Offered::Waits);
        // 2 s are to be paid, and 12.5 s wait: nobody else need try.
        assert_eq!(upload.offer(peer(3), 1, 5, now), Offered::Refused(5));
        assert_eq!((upload.due(), upload.next(now, |_| true)), (Some(now + Duration::from_secs(2)), None));
        let at = |seconds: f64| now + Duration::from_secs_f64(seconds);
        assert_eq!(upload.next(at(2.0), |_| true), Some(1));
        assert_eq!(upload.next(at(2.9), |_| true), None);
        // One whose asker is gone costs nothing.
        assert_eq!(upload.next(at(3.1), |answer| *answer != 2), Some(4));
        assert_eq!((upload.due(), upload.queued), (None, 0));
        // Time that nothing was asked for is not saved up.
        let late = at(1000.0);
        assert_eq!(upload.offer(peer(1), 150_000, 6, late), Offered::Send(6));
        assert_eq!(upload.offer(peer(1), 1, 7, late), Offered::Waits);
        assert_eq!(upload.due(), Some(late + Duration::from_millis(500)));
    }
}
