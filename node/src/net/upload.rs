//! When bulk goes out: checkpoints and bodies that peers ask for.
//!
//! A device may have to share its line with people. With a limit, an answer of bulk is sent as soon as all that
//! was sent before, small messages too, is paid for, at so many bytes a second; until then it waits its turn,
//! first come, first served. An answer goes out whole, so that it is not overtaken by the asker's patience. Gossip,
//! statuses and lists of rounds never wait here: bulk has what they leave. That no more goes out than the limit
//! in any case is up to `meter`.
//!
//! Whoever asks gives up after ten seconds, so what would wait for longer than it is worth is refused soon:
//! the asker goes elsewhere, or comes back. So that nobody takes the whole queue, a peer has one answer
//! waiting, or as many as fit into half of the longest wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use swarm_protocol::identity::PeerKey;

use super::Rate;

/// The longest wait. The asker's patience, less the time that a large answer takes on its way.
const MAX_WAIT: Duration = Duration::from_secs(6);
/// What was not used of the limit for so long may be made up for.
const BURST: Duration = Duration::from_secs(1);
/// Bytes that may wait, whatever the limit.
const MAX_QUEUED: u64 = 32 << 20;
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
    /// Bytes that have been paid for so far.
    charged: u64,
}

impl<T> Upload<T> {
    /// Nothing sent yet; without a rate, nothing ever waits.
    pub(super) fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self { rate, paid: now, queue: VecDeque::new(), queued: 0, charged: 0 }
    }

    /// Sets or lifts the limit.
    pub(super) fn limit(&mut self, rate: Option<Rate>) {
        self.rate = rate;
    }

    /// So many bytes have been sent since the start, of everything: what is not paid for yet is, now. Bulk is paid
    /// for before it is sent, so while some is under way the count may be behind.
    pub(super) fn account(&mut self, sent: u64, now: Instant) {
        let Some(rate) = self.rate else {
            self.charged = sent;
            return;
        };
        if sent > self.charged {
            self.pay(rate, sent - self.charged, now);
        }
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
        self.charged += bytes;
    }

    /// When [`Upload::next`] has something; `None` if nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queue.front().map(|_| self.paid)
    }

    /// The next answer whose turn it is and which is still `wanted`.
    pub(super) fn next(&mut self, now: Instant, wanted: impl Fn(&T) -> bool) -> Option<T> {
        while self.rate.is_none() || self.paid <= now {
            let Waiting { bytes, answer, .. } = self.queue.pop_front()?;
            self.queued -= bytes;
            if wanted(&answer) {
                if let Some(rate) = self.rate {
                    self.pay(rate, bytes, now);
                }
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

    /// Small messages go out at once, and bulk has what they leave.
    #[test]
    fn what_else_is_sent_is_paid_for_first() {
        let (mut upload, now) = limited("100kB");
        assert_eq!(upload.offer(peer(1), 50_000, 0, now), Offered::Send(0));
        // The bulk itself is in the count, and 100 kB of other things.
        upload.account(150_000, now);
        assert_eq!(upload.offer(peer(1), 50_000, 1, now), Offered::Waits);
        assert_eq!(upload.due(), Some(now + Duration::from_millis(1500)));
        // A limit that is lifted lets it go.
        upload.limit(None);
        assert_eq!(upload.next(now, |_| true), Some(1));
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
