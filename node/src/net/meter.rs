//! Counting bytes, and holding them back: one meter for each direction, below every protocol.
//!
//! A limit is kept by construction: every read and write of every connection asks the meter first, and waits if
//! what went before is not paid for yet, at so many bytes a second. At most a quarter of a second's worth may be
//! made up for, so over a minute the limit holds within half a percent. A reader that waits is what slows a
//! sender down: its system stops acknowledging.
//!
//! Holding back is the last resort. A node chooses what it sends so that it fits (`node/src/node/thrift.rs`), and
//! bulk waits in a queue of its own before it comes here (`upload`), so that small messages do not stand behind it.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::Rate;

/// What was not used of the limit for so long may be made up for.
const BURST: Duration = Duration::from_millis(250);
/// A read or write takes at most what so much time is worth, so that connections share the limit ..
const PIECE: Duration = Duration::from_millis(100);
/// .. but not less than this many bytes: a system call for every few would cost more than it shares.
const SMALLEST_PIECE: u64 = 1024;

/// Bytes of one direction.
#[derive(Debug)]
pub(super) struct Meter {
    bytes: AtomicU64,
    /// Bytes a second; 0 without a limit.
    rate: AtomicU64,
    /// When all that went before is paid for.
    paid: Mutex<Instant>,
}

impl Meter {
    /// Nothing counted yet, no limit.
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: AtomicU64::new(0), rate: AtomicU64::new(0), paid: Mutex::new(now) }
    }

    /// Sets or lifts the limit.
    pub(super) fn limit(&self, rate: Option<Rate>) {
        self.rate.store(rate.map_or(0, Rate::bytes_a_second), Ordering::Relaxed);
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So many bytes have gone.
    pub(super) fn count(&self, bytes: usize, now: Instant) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 {
            let mut paid = self.paid.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let from = now.checked_sub(BURST).map_or(*paid, |earliest| (*paid).max(earliest));
            *paid = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
        }
    }

    /// When the next bytes may go; `None`: at once.
    fn due(&self, now: Instant) -> Option<Instant> {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let paid = *self.paid.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (paid > now).then_some(paid)
    }

    /// How many bytes a read or write may take; `None`: any number.
    pub(super) fn piece(&self) -> Option<usize> {
        match self.rate.load(Ordering::Relaxed) {
            0 => None,
            rate => {
                let piece = (rate as f64 * PIECE.as_secs_f64()) as u64;
                Some(usize::try_from(piece.max(SMALLEST_PIECE)).unwrap_or(usize::MAX))
            }
        }
    }
}

/// One connection's place at a meter.
#[derive(Debug, Default)]
pub(super) struct Turn(Option<Pin<Box<Sleep>>>);

impl Turn {
    /// Ready when the meter lets bytes go.
    pub(super) fn poll(&mut self, meter: &Meter, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.0 {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.0 = None;
            }
            match meter.due(Instant::now()) {
                None => return Poll::Ready(()),
                Some(due) => self.0 = Some(Box::pin(tokio::time::sleep_until(due.into()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writers that always want more: over any minute what goes is the limit, within a hundredth.
    #[test]
    fn over_any_minute_the_limit_holds_within_a_hundredth() {
        for rate in ["10kB", "200kB", "5MB"] {
            let rate: Rate = rate.parse().unwrap();
            let start = Instant::now();
            let meter = Meter::new(start);
            meter.limit(Some(rate));
            let piece = meter.piece().unwrap();
            let mut at_second = vec![0u64; 200];
            for millisecond in 0..200_000u64 {
                let now = start + Duration::from_millis(millisecond);
                // Idle for a while in the middle: what was not used then is not saved up.
                if !(50_000..80_000).contains(&millisecond) {
                    while meter.due(now).is_none() {
                        meter.count(piece.min(1 + (millisecond as usize * 7919) % piece), now);
                    }
                }
                at_second[(millisecond / 1000) as usize] = meter.bytes();
            }
            let minute = 60.0 * rate.bytes_a_second() as f64;
            let mut most: f64 = 0.0;
            for (from, to) in (0..140).map(|from| (from, from + 60)) {
                let gone = (at_second[to - 1] - if from == 0 { 0 } else { at_second[from - 1] }) as f64;
                most = most.max(gone / minute);
            }
            assert!((0.99..=1.01).contains(&most), "{rate:?}: {most}");
        }
    }

    #[test]
    fn without_a_limit_nothing_waits_and_all_is_counted() {
        let now = Instant::now();
        let meter = Meter::new(now);
        meter.count(1 << 30, now);
        assert_eq!((meter.bytes(), meter.due(now), meter.piece()), (1 << 30, None, None));
        // A limit that is lifted lets what waits go.
        meter.limit(Some("10kB".parse().unwrap()));
        meter.count(1 << 20, now);
        assert!(meter.due(now).is_some());
        meter.limit(None);
        assert_eq!(meter.due(now), None);
    }
}
