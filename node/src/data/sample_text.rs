//! Made-up text, for measurements that need some text and should not need the user's.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What it consists of: enough to learn something from.
const WORDS: [&str; 16] = [
    "the", "swarm", "learns", "a", "round", "of", "many", "small", "steps", "and", "shares", "what", "is",
    "large", "with", "all",
];

/// At least so many bytes of words in random order, the same ones every time.
pub(crate) fn sample_text(bytes: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.extend_from_slice(WORDS[rng.next_u32() as usize % WORDS.len()].as_bytes());
        text.push(b' ');
    }
    text
}
