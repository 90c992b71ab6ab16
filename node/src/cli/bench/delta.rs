//! What `swarm bench optimizer` and `swarm bench wire` work on: a model's layout, and displacements like training's.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use swarm_optimizer::layout::{Layout, LayoutError};

/// A llama of 29.9 M parameters with width 512: 8 layers, feed-forward width 1408, vocabulary 8192, tied head.
pub(super) fn layout(tile: usize) -> Result<Layout, LayoutError> {
    let (dim, ffn) = (512, 1408);
    let mut parameters = vec![("embedding".to_owned(), vec![8192, dim])];
    for layer in 0..8 {
        let square = ["q", "k", "v", "o"].map(|name| (name, vec![dim, dim]));
        let wide = [("gate", vec![ffn, dim]), ("up", vec![ffn, dim]), ("down", vec![dim, ffn])];
        let gains = [("norm1", vec![dim]), ("norm2", vec![dim])];
        for (name, shape) in square.into_iter().chain(wide).chain(gains) {
            parameters.push((format!("{layer}.{name}"), shape));
        }
    }
    parameters.push(("norm".to_owned(), vec![dim]));
    Layout::new(parameters, tile)
}

/// `n` values, normally distributed as far as four uniform numbers make it, of standard deviation `spread`.
pub(super) fn noise(seed: u64, n: usize, spread: f32) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || {
        let bits = rng.next_u64();
        let sum: i32 = (0..4).map(|part| i32::from((bits >> (16 * part)) as i16)).sum();
        // Each of the four has a variance of 2^32 / 12.
        sum as f32 / (65536.0 / 3f32.sqrt()) * spread
    };
    (0..n).map(|_| normal()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_spread_asked_for() {
        let values = noise(1, 100_000, 0.5);
        let squares = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        assert!(((squares / 100_000.0).sqrt() - 0.5).abs() < 0.01);
        assert!((28_000_000..31_000_000).contains(&layout(64).unwrap().len()));
    }
}
