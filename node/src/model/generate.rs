//! Continuing a text byte by byte.
//!
//! Each step runs the model over the last `context` bytes and draws the next one from the distribution
//! that it predicts. Drawing happens on the CPU, in f64 and with a ChaCha stream, so that a seed gives
//! the same text wherever the model's logits are the same.

use super::llama::Llama;
use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use swarm_protocol::architecture::BYTE_VOCABULARY;
use tch::{Kind, Tensor};

/// How the next byte is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampling {
    /// Divides the logits: 0 always takes the most probable byte, 1 draws from the model's own
    /// distribution, more is more random.
    pub(crate) temperature: f64,
    /// Draw only from this many most probable bytes; `None` draws from all.
    pub(crate) top_k: Option<usize>,
    /// Of the random stream.
    pub(crate) seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: None, seed: 0 }
    }
}

/// Continues `prompt` by up to `max_new_bytes` bytes.
///
/// Each new byte is handed to `on_byte`, which returns whether to go on. An empty prompt counts as a
/// newline: the model has no other notion of a beginning.
///
/// # Errors
/// A temperature that is negative or not finite, a `top_k` of 0, or a model whose logits are not finite.
pub(crate) fn generate(
    model: &Llama,
    prompt: &[u8],
    max_new_bytes: usize,
    sampling: &Sampling,
    mut on_byte: impl FnMut(u8) -> bool,
) -> Result<()> {
    let Sampling { temperature, top_k, seed } = *sampling;
    ensure!(
        temperature.is_finite() && temperature >= 0.0,
        "the temperature is {temperature}: it must be 0 or a positive number"
    );
    ensure!(top_k != Some(0), "top-k is 0: at least one byte must remain to be drawn");
    let context = model.architecture().context as usize;
    let prompt = if prompt.is_empty() { b"\n" } else { prompt };
    let mut recent: Vec<i64> =
        prompt.iter().skip(prompt.len().saturating_sub(context)).map(|&byte| i64::from(byte)).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..max_new_bytes {
        let logits = next_byte_logits(model, &recent)?;
        // One draw a byte whatever the temperature, so that streams stay comparable.
        let uniform = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let byte = draw(&logits, temperature, top_k, uniform)?;
        if !on_byte(byte) {
            break;
        }
        if recent.len() == context {
            recent.remove(0);
        }
        recent.push(i64::from(byte));
    }
    Ok(())
}

/// Logits of the 256 bytes after `recent`.
fn next_byte_logits(model: &Llama, recent: &[i64]) -> Result<Vec<f64>> {
    tch::no_grad(|| {
        let tokens = Tensor::f_from_slice(recent)?.f_view([1, recent.len() as i64])?;
        let logits = model.next_logits(&tokens.f_to_device(model.device())?)?;
        // Tokens beyond the bytes, if the vocabulary has any, are never written.
        let bytes = logits.f_view([-1])?.f_narrow(0, 0, i64::from(BYTE_VOCABULARY))?;
        let mut values = vec![0.0_f32; BYTE_VOCABULARY as usize];
        let count = values.len();
        bytes.f_to_kind(Kind::Float)?.f_copy_data(&mut values, count)?;
        Ok(values.into_iter().map(f64::from).collect())
    })
}

/// Draws from `softmax(logits / temperature)` by inverting its cumulative sum at `uniform` in `[0, 1)`.
/// Bytes are taken in the order of falling probability (ties: the smaller byte first).
fn draw(logits: &[f64], temperature: f64, top_k: Option<usize>, uniform: f64) -> Result<u8> {
    ensure!(
        logits.iter().all(|logit| logit.is_finite()),
        "the model's output is not finite: its parameters are damaged or training diverged"
    );
    let mut ranked: Vec<(u8, f64)> = (0..=u8::MAX).zip(logits.iter().copied()).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let &(best, highest) = ranked.first().context("the model has no output")?;
    if temperature == 0.0 {
        return Ok(best);
    }
    ranked.truncate(top_k.unwrap_or(usize::MAX));
    for (_, value) in &mut ranked {
        *value = ((*value - highest) / temperature).exp();
    }
    let mut remaining = uniform * ranked.iter().map(|(_, weight)| weight).sum::<f64>();
    for &(byte, weight) in &ranked {
        if remaining < weight {
            return Ok(byte);
        }
        remaining -= weight;
    }
    // Only rounding leads here: the sum of the weights came out a little below their total.
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn draws_follow_the_softmax() {
        let mut logits = vec![-1e9; 256];
        logits[usize::from(b'a')] = 0.0;
        logits[usize::from(b'b')] = 3.0_f64.ln();
        // Probabilities 3/4 and 1/4; the more probable comes first.
        let at = |uniform| draw(&logits, 1.0, None, uniform).unwrap();
        assert_eq!((at(0.0), at(0.74), at(0.76), at(0.999)), (b'b', b'b', b'a', b'a'));
        // Temperature 1/2 squares the odds: 9/10 and 1/10.
        let at = |uniform| draw(&logits, 0.5, None, uniform).unwrap();
        assert_eq!((at(0.89), at(0.91)), (b'b', b'a'));
        assert_eq!(draw(&logits, 1.0, Some(1), 0.999).unwrap(), b'b');
        assert_eq!(draw(&logits, 0.0, None, 0.999).unwrap(), b'b');
        logits[7] = f64::NAN;
        assert!(draw(&logits, 1.0, None, 0.5).is_err());
    }
}
