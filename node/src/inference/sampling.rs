//! Drawing a token from what the model predicts.
//!
//! It happens on the CPU, in f64 and with a ChaCha stream, so that a seed gives the same tokens wherever the model's
//! logits are the same.

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling {
    /// Divides the logits: 0 always takes the most probable token, 1 draws from the model's own distribution, more is
    /// more random.
    pub(crate) temperature: f64,
    /// Draw only from this many most probable tokens; `None` draws from all.
    pub(crate) top_k: Option<usize>,
    /// Draw only from the most probable tokens that together have this probability (nucleus sampling, Holtzman et
    /// al., arXiv 1904.09751), at least from one; 1 draws from all. Applied after `top_k`.
    pub(crate) top_p: f64,
    /// Of the random stream.
    pub(crate) seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: None, top_p: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Checks the numbers.
    ///
    /// # Errors
    /// One out of its range; the text names it.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { temperature, top_k, top_p, .. } = *self;
        ensure!(
            temperature.is_finite() && temperature >= 0.0,
            "the temperature is {temperature}: it must be 0 or a positive number"
        );
        ensure!(top_k != Some(0), "top-k is 0: at least one token must remain to be drawn");
        ensure!(top_p > 0.0 && top_p <= 1.0, "top-p is {top_p}: it must be above 0 and at most 1");
        Ok(())
    }
}

/// Draws one token after the other.
#[derive(Debug)]
pub(crate) struct Dice {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Dice {
    /// From the beginning of the seed's stream.
    ///
    /// # Errors
    /// As [`Sampling::check`].
    pub(crate) fn new(sampling: Sampling) -> Result<Self> {
        sampling.check()?;
        Ok(Self { sampling, rng: ChaCha8Rng::seed_from_u64(sampling.seed) })
    }

    /// The next token.
    ///
    /// # Errors
    /// Logits that are not finite, or none.
    pub(crate) fn draw(&mut self, logits: &[f32]) -> Result<u32> {
        // One number a token whatever the temperature, so that streams stay comparable.
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        draw(logits, &self.sampling, uniform)
    }
}

/// Draws from `softmax(logits / temperature)` by inverting its cumulative sum at `uniform` in `[0, 1)`. Tokens are
/// taken in the order of falling probability (ties: the smaller token first).
fn draw(logits: &[f32], sampling: &Sampling, uniform: f64) -> Result<u32> {
    let Sampling { temperature, top_k, top_p, .. } = *sampling;
    ensure!(
        logits.iter().all(|logit| logit.is_finite()),
        "the model's output is not finite: its parameters are damaged or training diverged"
    );
    let mut ranked: Vec<(u32, f64)> = (0..).zip(logits.iter().copied().map(f64::from)).collect();
    ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let &(best, highest) = ranked.first().context("the model has no output")?;
    if temperature == 0.0 {
        return Ok(best);
    }
    ranked.truncate(top_k.unwrap_or(usize::MAX));
    for (_, value) in &mut ranked {
        *value = ((*value - highest) / temperature).exp();
    }
    let total = ranked.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut sum = 0.0;
    // Those before which the others do not have enough yet: the first always.
    let kept = ranked.iter().take_while(|(_, weight)| {
        let needed = sum < top_p * total;
        sum += weight;
        needed
    });
    let kept = kept.count();
    ranked.truncate(kept);
    let mut remaining = uniform * ranked.iter().map(|(_, weight)| weight).sum::<f64>();
    for &(token, weight) in &ranked {
        if remaining < weight {
            return Ok(token);
        }
        remaining -= weight;
    }
    // Only rounding leads here: the sum of the weights came out a little below their total.
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: None, top_p: 1.0, seed: 0 };

    #[test]
    fn draws_follow_the_softmax() {
        let mut logits = vec![-1e9; 256];
        logits[usize::from(b'a')] = 0.0;
        logits[usize::from(b'b')] = 3.0_f32.ln();
        let (a, b) = (u32::from(b'a'), u32::from(b'b'));
        // Probabilities 3/4 and 1/4; the more probable comes first.
        let at = |uniform| draw(&logits, &PLAIN, uniform).unwrap();
        assert_eq!((at(0.0), at(0.74), at(0.76), at(0.999)), (b, b, a, a));
        // Temperature 1/2 squares the odds: 9/10 and 1/10.
        let at = |uniform| draw(&logits, &Sampling { temperature: 0.5, ..PLAIN }, uniform).unwrap();
        assert_eq!((at(0.89), at(0.91)), (b, a));
        assert_eq!(draw(&logits, &Sampling { top_k: Some(1), ..PLAIN }, 0.999).unwrap(), b);
        assert_eq!(draw(&logits, &Sampling { temperature: 0.0, ..PLAIN }, 0.999).unwrap(), b);
        logits[7] = f32::NAN;
        assert!(draw(&logits, &PLAIN, 0.5).is_err());
    }

    #[test]
    fn top_p_keeps_the_fewest_tokens_that_have_so_much_together() {
        // 1/2, 1/4, 1/8, 1/8.
        let logits = [0.5_f32, 0.25, 0.125, 0.125].map(f32::ln);
        let last = |top_p, top_k| draw(&logits, &Sampling { top_p, top_k, ..PLAIN }, 0.999_999).unwrap();
        assert_eq!(last(1.0, None), 3);
        assert_eq!(last(0.8, None), 2);
        assert_eq!(last(0.7, None), 1);
        assert_eq!(last(0.4, None), 0);
        assert_eq!(last(1e-9, None), 0, "one always remains");
        // Of three, which have 7/8 together: 4/7 and 2/7 are more than 0.8.
        assert_eq!(last(0.8, Some(3)), 1);
    }

    #[test]
    fn a_seed_gives_the_same_draws_and_bad_numbers_are_named() {
        let logits: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        let draws = |seed| {
            let mut dice = Dice::new(Sampling { seed, ..PLAIN }).unwrap();
            (0..20).map(|_| dice.draw(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draws(5), draws(5));
        assert_ne!(draws(5), draws(6));
        for (sampling, word) in [
            (Sampling { temperature: -1.0, ..PLAIN }, "temperature is -1"),
            (Sampling { temperature: f64::NAN, ..PLAIN }, "temperature is NaN"),
            (Sampling { top_k: Some(0), ..PLAIN }, "top-k is 0"),
            (Sampling { top_p: 0.0, ..PLAIN }, "top-p is 0"),
            (Sampling { top_p: f64::NAN, ..PLAIN }, "top-p is NaN"),
            (Sampling { top_p: 1.5, ..PLAIN }, "top-p is 1.5"),
        ] {
            let error = Dice::new(sampling).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
