//! How much one neighbour may ask and send, over time.
//!
//! Every check of a message costs something, and so does every answer. What breaks a rule is dropped for that; what
//! keeps to all of them may still come a thousand times a second. So there is a *token bucket* for each neighbour and
//! kind of message: it holds `burst` tokens, `count` more come in every `period`, and what finds too few is
//! refused. (As in the generic cell rate algorithm, ITU-T I.371: all that is kept of a bucket is the time at which
//! it will be full again.)
//!
//! No limit is a guess about traffic. Each follows from the genesis, as the most that somebody who keeps to the
//! rules could have reason for, with room for clocks and links that bring together what was sent apart:
//!
//! | kind | a burst | all the time |
//! |---|---|---|
//! | statuses | one a connection, which may break and come back | one a second |
//! | questions about rounds | a join lists every round that is held, and is tried again | an answer to each status may ask for every open round |
//! | pieces | every body of those rounds and every chunk | the bodies of the newest round |
//! | bytes | the same, and the headers that are listed | the same |
//! | gossip | a swarm's first round, in which everybody publishes | the deltas of a round |
//!
//! Gossip is passed on, so what one peer says is not all its own: whoever hears much from many would say too much to
//! each. So there is one more bucket, for what this peer itself passes on, half as large: an honest peer is never
//! near its neighbours' limits, whatever others make it hear. What it does not pass on, it still keeps, and
//! anti-entropy brings it to those who lack it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Time;
use crate::anti_entropy::STATUS_INTERVAL;
use crate::checkpoint::{CHUNK, KEPT, manifest_len};
use crate::genesis::Genesis;
use crate::identity::PeerKey;
use crate::wire::SIGNED_HEADER_LEN;

/// Messages over a limit after which it is no mishap any more.
const LONG_EXCESS: u32 = 64;
/// Neighbours whose buckets are remembered. They outlive a connection, or a new one would come with full ones.
const MAX_TRACKED: usize = 1024;
/// Links and clocks: how much more than the rules give reason for.
const SLACK: u64 = 4;
/// Messages that one peer passes on at a time and in a second, whatever the genesis says. A gossip mesh carries no
/// more; the transport holds what it has seen for ten minutes.
const MOST_GOSSIP: u64 = 1000;
const MOST_GOSSIP_A_SECOND: u64 = 100;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Statuses.
    Status,
    /// Questions about rounds and history.
    Round,
    /// Bodies and parts of checkpoints that are asked for.
    Piece,
    /// Bytes of answers.
    Byte,
    /// Gossip messages.
    Gossip,
}

impl Kind {
    /// All of them, each at the place that its number says.
    pub const ALL: [Self; 5] = [Self::Status, Self::Round, Self::Piece, Self::Byte, Self::Gossip];

    /// What a refusal is counted as.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Status => "too many statuses",
            Self::Round => "too many questions about rounds",
            Self::Piece => "too many bodies and chunks asked for",
            Self::Byte => "too many bytes asked for",
            Self::Gossip => "too much gossip",
        }
    }
}

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There was.
    Enough,
    /// There was none.
    None,
    /// There was none, as often before: no mishap.
    LongNone,
}

/// A bucket's size, and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tokens that it holds.
    pub burst: u64,
    /// Tokens that come in every `period`.
    pub count: u64,
    /// See `count`.
    pub period: Duration,
}

impl Limit {
    /// How long so many tokens take to come in.
    fn time(&self, tokens: u64) -> Duration {
        let nanoseconds = u128::from(tokens) * self.period.as_nanos() / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// One bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it is full again.
    full: Time,
    /// What found no room since it was full.
    excess: u32,
}

impl Bucket {
    fn has(&self, now: Time, limit: &Limit, tokens: u64) -> bool {
        // Nothing needs more than a full one: what is larger than the burst passes when that is there.
        let tokens = tokens.min(limit.burst);
        self.full.saturating_sub(now) <= limit.time(limit.burst).saturating_sub(limit.time(tokens))
    }

    fn take(&mut self, now: Time, limit: &Limit, tokens: u64) {
        if self.full <= now {
            self.excess = 0;
        }
        self.full = self.full.max(now).saturating_add(limit.time(tokens));
    }
}

/// The buckets of all neighbours.
#[derive(Debug)]
pub struct Rates {
    limits: [Limit; Kind::ALL.len()],
    neighbours: BTreeMap<PeerKey, [Bucket; Kind::ALL.len()]>,
    pass_on: Limit,
    passed_on: Bucket,
}

impl Rates {
    /// The limits that follow from `genesis`, for a model of so many `coefficients` whose deltas have up to `max_body`
    /// bytes.
    pub fn new(genesis: &Genesis, coefficients: usize, max_body: u32) -> Self {
        let rounds = &genesis.rounds;
        let (window, publishers) = (u64::from(rounds.window), u64::from(genesis.rule.publishers));
        // Rounds that somebody holds: who takes back what it has settled holds these open for a while.
        let held = u64::from(rounds.retention) + 3 * window;
        let round = Duration::from_millis(rounds.min_round_ms.max(1).into());
        let second = STATUS_INTERVAL;
        let limit = |burst: u64, count: u64, period| Limit { burst, count, period };

        // Each of two statuses a second may show that all open rounds differ, to both sides of now.
        let (listed, listed_again) = (SLACK * held, 2 * SLACK * window);
        let pieces =
            (held * publishers).saturating_add(KEPT as u64 * (1 + coefficients.div_ceil(CHUNK) as u64));
        let headers = publishers * SIGNED_HEADER_LEN as u64;
        let checkpoint = 4 * coefficients as u64 + manifest_len(coefficients, window, window);
        let bodies = publishers.saturating_mul(max_body.into());
        let whole = (KEPT as u64 * checkpoint).saturating_add(held.saturating_mul(bodies));
        // In seconds, as both the rounds' lists and their bodies count.
        let bodies_a_second = bodies.saturating_mul(1000) / u64::from(rounds.min_round_ms.max(1));

        // With more authors than places, one that comes before all others replaces one of them: of N in any order,
        // P (1 + ln(N / P)) do (the records of a random sequence), which is 8 P for a thousand times as many.
        let burst = (8 * publishers + 2 * window + 8).min(MOST_GOSSIP);
        let a_round = 2 * publishers + 2;
        let most = MOST_GOSSIP_A_SECOND * u64::from(rounds.min_round_ms) / 1000;
        let pass_on = limit(burst, a_round.min(most.max(1)), round);
        Self {
            limits: [
                limit(16 * SLACK, SLACK, second),
                limit(listed, listed_again, second),
                limit(pieces.saturating_mul(SLACK), SLACK * publishers, round),
                limit(
                    whole.saturating_add(listed.saturating_mul(headers)).saturating_mul(SLACK),
                    bodies_a_second.saturating_mul(SLACK).saturating_add(listed_again * headers),
                    second,
                ),
                limit(2 * pass_on.burst, 2 * pass_on.count, round),
            ],
            neighbours: BTreeMap::new(),
            pass_on,
            passed_on: Bucket::default(),
        }
    }

    /// The limit for one neighbour.
    pub fn limit(&self, kind: Kind) -> Limit {
        self.limits[kind as usize]
    }

    /// Takes so many tokens of `peer`'s bucket, if they are there.
    pub fn take(&mut self, now: Time, peer: PeerKey, kind: Kind, tokens: u64) -> Room {
        let limit = self.limit(kind);
        let bucket = self.bucket(now, peer, kind);
        if bucket.has(now, &limit, tokens) {
            bucket.take(now, &limit, tokens);
            return Room::Enough;
        }
        bucket.excess = bucket.excess.saturating_add(1);
        if bucket.excess.is_multiple_of(LONG_EXCESS) { Room::LongNone } else { Room::None }
    }

    /// Takes so many tokens of `peer`'s bucket, whether they are there or not: what something cost is known only
    /// when it has been made.
    pub fn charge(&mut self, now: Time, peer: PeerKey, kind: Kind, tokens: u64) {
        let limit = self.limit(kind);
        self.bucket(now, peer, kind).take(now, &limit, tokens);
    }

    /// Whether this peer may pass on one more gossip message.
    pub fn pass_on(&mut self, now: Time) -> bool {
        let room = self.passed_on.has(now, &self.pass_on, 1);
        if room {
            self.publish(now);
        }
        room
    }

    /// This peer publishes something of its own, which counts like what it passes on and is never refused.
    pub fn publish(&mut self, now: Time) {
        self.passed_on.take(now, &self.pass_on, 1);
    }

    fn bucket(&mut self, now: Time, peer: PeerKey, kind: Kind) -> &mut Bucket {
        if self.neighbours.len() >= MAX_TRACKED && !self.neighbours.contains_key(&peer) {
            // Full ones are as good as none.
            self.neighbours.retain(|_, buckets| buckets.iter().any(|bucket| bucket.full > now));
            if self.neighbours.len() >= MAX_TRACKED {
                self.neighbours.clear();
            }
        }
        &mut self.neighbours.entry(peer).or_default()[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Sizes;

    const SECOND: Duration = Duration::from_secs(1);
    const A: PeerKey = PeerKey([1; 32]);
    const B: PeerKey = PeerKey([2; 32]);

    fn rates(change: impl Fn(&mut Genesis)) -> Rates {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let mut genesis = Genesis::new("rates", model, 1);
        change(&mut genesis);
        Rates::new(&genesis, 1000, 500)
    }

    /// How many of `tries` find room at `now`.
    fn taken(rates: &mut Rates, now: Time, peer: PeerKey, kind: Kind, tries: u64) -> u64 {
        (0..tries).filter(|_| rates.take(now, peer, kind, 1) == Room::Enough).count() as u64
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_comes_in() {
        let mut rates = rates(|_| {});
        for kind in [Kind::Status, Kind::Round, Kind::Gossip] {
            let Limit { burst, count, period } = rates.limit(kind);
            assert_eq!(taken(&mut rates, SECOND, A, kind, 2 * burst), burst, "{kind:?}");
            assert_eq!(taken(&mut rates, SECOND + period, A, kind, burst), count, "{kind:?}");
            assert_eq!(
                taken(&mut rates, SECOND + period, B, kind, burst),
                burst,
                "{kind:?} of somebody else"
            );
            // A long time later it holds no more than its burst.
            assert_eq!(taken(&mut rates, 10_000 * SECOND, A, kind, 2 * burst), burst, "{kind:?}");
        }
    }

    #[test]
    fn kinds_do_not_take_from_each_other() {
        let mut rates = rates(|_| {});
        let burst = rates.limit(Kind::Status).burst;
        assert_eq!(taken(&mut rates, SECOND, A, Kind::Status, burst + 1), burst);
        for kind in [Kind::Round, Kind::Piece, Kind::Byte, Kind::Gossip] {
            assert_eq!(rates.take(SECOND, A, kind, 1), Room::Enough, "{kind:?}");
        }
    }

    #[test]
    fn what_is_charged_is_missing_later() {
        let mut rates = rates(|_| {});
        let Limit { burst, count, period } = rates.limit(Kind::Byte);
        rates.charge(SECOND, A, Kind::Byte, burst + 10 * count);
        assert_eq!(rates.take(SECOND + 9 * period, A, Kind::Byte, 1), Room::None);
        assert_eq!(rates.take(SECOND + 11 * period, A, Kind::Byte, 1), Room::Enough);
    }

    #[test]
    fn a_long_excess_is_told_from_a_mishap() {
        let mut rates = rates(|_| {});
        let burst = rates.limit(Kind::Status).burst;
        taken(&mut rates, SECOND, A, Kind::Status, burst);
        let mut told = 0;
        for n in 1..=2 * LONG_EXCESS {
            let room = rates.take(SECOND, A, Kind::Status, 1);
            assert_eq!(room == Room::LongNone, n % LONG_EXCESS == 0, "{n}");
            told += u32::from(room == Room::LongNone);
        }
        assert_eq!(told, 2);
        // Once it is full again, all is forgotten.
        taken(&mut rates, 1000 * SECOND, A, Kind::Status, burst + u64::from(LONG_EXCESS) - 1);
        assert_eq!(rates.take(1000 * SECOND, A, Kind::Status, 1), Room::LongNone);
    }

    #[test]
    fn a_peer_passes_on_half_of_what_its_neighbours_bear() {
        for publishers in [1, 8, 64, 4096] {
            for min_round_ms in [1, 100, 500, 86_400_000] {
                let mut rates = rates(|genesis| {
                    genesis.rule.publishers = publishers;
                    genesis.rounds.min_round_ms = min_round_ms;
                });
                let passed = (0..100_000).filter(|_| rates.pass_on(SECOND)).count() as u64;
                assert_eq!(passed, rates.pass_on.burst);
                assert_eq!(rates.limit(Kind::Gossip).burst, 2 * passed);
                assert_eq!(rates.limit(Kind::Gossip).count, 2 * rates.pass_on.count);
                assert!(passed <= MOST_GOSSIP && rates.pass_on.count > 0);
            }
        }
    }

    #[test]
    fn a_newcomer_can_fetch_all_that_there_is() {
        for publishers in [1, 64, 4096] {
            let mut rates = rates(|genesis| {
                genesis.rule.publishers = publishers;
                genesis.rounds.retention = 4096;
            });
            // Every list of headers with every body of all rounds that are held, and both checkpoints, at once.
            let (rounds, publishers) = (4096 + 3 * 16, u64::from(publishers));
            for _ in 0..rounds {
                assert_eq!(rates.take(SECOND, A, Kind::Round, 1), Room::Enough);
                assert_eq!(rates.take(SECOND, A, Kind::Piece, publishers), Room::Enough);
                for bytes in [publishers * SIGNED_HEADER_LEN as u64, publishers * 500] {
                    assert_eq!(rates.take(SECOND, A, Kind::Byte, bytes), Room::Enough);
                }
            }
            assert_eq!(rates.take(SECOND, A, Kind::Byte, 2 * 4 * 1000), Room::Enough);
        }
    }

    #[test]
    fn memory_is_bounded_and_a_new_connection_brings_no_new_bucket() {
        let mut rates = rates(|_| {});
        let burst = rates.limit(Kind::Status).burst;
        taken(&mut rates, SECOND, A, Kind::Status, burst);
        for n in 0..MAX_TRACKED as u64 / 2 {
            let mut key = [9; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            rates.take(SECOND, PeerKey(key), Kind::Status, 1);
        }
        assert_eq!(rates.take(SECOND, A, Kind::Status, 1), Room::None);
        for n in 0..3 * MAX_TRACKED as u64 {
            let mut key = [8; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            rates.take(SECOND, PeerKey(key), Kind::Status, 1);
            assert!(rates.neighbours.len() <= MAX_TRACKED);
        }
    }
}
