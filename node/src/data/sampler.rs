//! Where the next training window starts: a random stream that can be put down and taken up again.
//!
//! A node that restarts from a snapshot should train on the batches that it would have seen, not on the
//! first ones again. ChaCha is a counter-mode generator, so its whole state is the seed and a position;
//! and because every draw takes exactly one 64-bit word, that position is the number of draws.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// 32-bit words of the ChaCha stream that one draw takes.
const WORDS_PER_DRAW: u128 = 2;

/// All that a [`Sampler`] is: enough to continue its stream in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SamplerState {
    /// The seed of the stream.
    pub(crate) seed: u64,
    /// Numbers drawn so far.
    pub(crate) drawn: u64,
}

/// A stream of uniformly distributed positions.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    rng: ChaCha8Rng,
    state: SamplerState,
}

impl Sampler {
    /// The stream that belongs to `seed`, at its beginning.
    pub(crate) fn new(seed: u64) -> Self {
        Self::restore(SamplerState { seed, drawn: 0 })
    }

    /// The stream at the position that `state` describes.
    pub(crate) fn restore(state: SamplerState) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(state.seed);
        rng.set_word_pos(u128::from(state.drawn) * WORDS_PER_DRAW);
        Self { rng, state }
    }

    /// The seed and the position reached.
    pub(crate) fn state(&self) -> SamplerState {
        self.state
    }

    /// A uniform number in `0..bound`; 0 if `bound` is 0.
    ///
    /// Multiply-and-shift without rejection (Lemire, arXiv 1805.10941): the bias is below
    /// `bound / 2^64`, and each draw takes the same number of words, which makes positions countable.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state.drawn = self.state.drawn.wrapping_add(1);
        let high_word = (u128::from(self.rng.next_u64()) * u128::from(bound)) >> 64;
        high_word as u64
    }
}
