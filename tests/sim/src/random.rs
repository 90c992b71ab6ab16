//! Everything that happens by chance, from one seed.
//!
//! A [`Random`] is a ChaCha8 stream that belongs to a purpose (a word) and a number, so what one part of
//! the simulation draws does not depend on how much another part has drawn.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Uniform numbers added up for one normal value; the sum has variance 1.
const SUMMANDS: usize = 12;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of `seed` for `purpose` number `index`.
    pub(crate) fn new(seed: u64, purpose: &str, index: u64) -> Self {
        Self(ChaCha8Rng::from_seed(secret(seed, purpose, index)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound` (0 if that is 0). The bias is below 2^-32 for every bound that is used here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number from 0 up to but excluding 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability. Nothing is drawn for what never or always happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability >= 1.0 || (probability > 0.0 && self.unit() < probability)
    }

    /// A roughly normal number of mean 0 and variance 1 (Irwin-Hall: never beyond 6).
    pub(crate) fn normal(&mut self) -> f64 {
        (0..SUMMANDS).map(|_| self.unit()).sum::<f64>() - SUMMANDS as f64 / 2.0
    }

    /// A log-normal time: half of them are below `median`; `spread` is the standard deviation of the
    /// logarithm.
    pub(crate) fn log_normal(&mut self, median: Duration, spread: f64) -> Duration {
        if spread == 0.0 { median } else { median.mul_f64((self.normal() * spread).exp()) }
    }

    /// A time below `bound`.
    pub(crate) fn within(&mut self, bound: Duration) -> Duration {
        bound.mul_f64(self.unit())
    }
}

/// 32 bytes that only `seed`, `purpose` and `index` decide.
pub(crate) fn secret(seed: u64, purpose: &str, index: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("swarm simulator 1");
    hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes()).update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_what_seed_purpose_and_index_say() {
        let draw = |seed, purpose, index| Random::new(seed, purpose, index).next();
        assert_eq!(draw(1, "a", 0), draw(1, "a", 0));
        let all = [draw(1, "a", 0), draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1)];
        let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn distributions_are_as_named() {
        let mut random = Random::new(3, "test", 0);
        let median = Duration::from_millis(80);
        let n = 20_000;
        let below = (0..n).filter(|_| random.log_normal(median, 0.7) < median).count();
        assert!((9_700..10_300).contains(&below), "{below}");
        let variance = (0..n).map(|_| random.normal().powi(2)).sum::<f64>() / f64::from(n);
        assert!((0.95..1.05).contains(&variance), "{variance}");
        assert!((0..n).all(|_| random.below(7) < 7 && random.unit() < 1.0));
        assert_eq!(random.below(0), 0);
        assert!(!random.chance(0.0) && random.chance(1.0));
    }
}
