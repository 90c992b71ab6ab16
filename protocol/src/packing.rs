//! A delta's body: the one canonical byte string for a set of small multiples of steps.
//!
//! ```text
//! byte 0        format version, 2
//! bytes 1-2     k, little-endian: the density of this body, 1 ..= the genesis' k
//! then decisions, range coded (see [`range`]), for every tile of the layout in order:
//!   speaks?                       of the tiles before
//!   step's code, 8 decisions      of the codes before, from the highest bit down
//!   and for every position of the tile, row by row
//!     anything?                   of positions whose neighbours, left and above, are as large as this one's
//!     negative?                   even
//!     more than 1? than 2? ...    likewise; at most 14 times
//! ```
//!
//! After "of" stands what a decision's probability is learned from: the coder starts with even chances and
//! adapts, so nothing about it has to be sent. Coefficients that are evenly spread cost the bound
//! log2 C(area, k) / k + 1 and a hundredth; where large ones lie together, less.
//!
//! A delta is worth at most one encoding: a body that decodes is encoded again, and refused if that gives
//! other bytes. Decoding is bounded by construction: a tile has `area` positions and at most
//! `tile_k(area, k)` coefficients of at most 15 steps, and nothing is allocated by what a body claims.

mod range;

use range::{Bit, Decoder, Encoder};
use swarm_optimizer::layout::{Layout, Tile};
use swarm_optimizer::sparse::{Entry, MAX_LEVEL, SparseDelta, Step};
use thiserror::Error;

use crate::genesis::Rule;

const VERSION: u8 = 2;
const HEADER: usize = 3;
/// Neighbours count up to this each.
const NEIGHBOUR: u8 = 2;
const CONTEXTS: usize = 2 * NEIGHBOUR as usize + 1;

/// Why a body is not the canonical encoding of a delta.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each text says it.
pub enum PackingError {
    #[error("the body ends early")]
    Truncated,
    #[error("the body has format version {0}, not {VERSION}")]
    Version(u8),
    #[error("the body's density is outside the swarm's rule")]
    Density,
    #[error("a scale exceeds the swarm's cap")]
    Scale,
    #[error("a position lies outside its tile")]
    Position,
    #[error("the padding is not zero, or bytes follow the end")]
    Trailing,
    #[error("the body sends nothing")]
    Empty,
    #[error("a tile sends no coefficient, or more than its share")]
    Share,
    #[error("a coefficient's level is not between 1 and {MAX_LEVEL} in magnitude")]
    Level,
    #[error("the body is not the one encoding of what it says")]
    Canonical,
}

/// Bytes that no body of this swarm exceeds: twice what evenly spread positions and levels could cost.
pub fn max_len(layout: &Layout, rule: &Rule) -> usize {
    let bits = |tile: &Tile| {
        let count = layout.tile_k(tile.area(), rule.k as usize);
        32 + 2 * tile.area() + count * (1 + 2 * usize::from(MAX_LEVEL))
    };
    HEADER + 8 + layout.tiles().iter().map(bits).sum::<usize>().div_ceil(8)
}

/// What the coder has learned about a kind of decision.
struct Models {
    speaks: Bit,
    /// By the bits read so far, with a leading 1.
    step: [Bit; 256],
    /// For matrices and for vectors.
    shapes: [Levels; 2],
}

#[derive(Clone, Copy)]
struct Levels {
    any: [Bit; CONTEXTS],
    more: [[Bit; MAX_LEVEL as usize]; CONTEXTS],
}

impl Models {
    fn new() -> Self {
        let levels = Levels { any: [Bit::EVEN; CONTEXTS], more: [[Bit::EVEN; MAX_LEVEL as usize]; CONTEXTS] };
        Self { speaks: Bit::EVEN, step: [Bit::EVEN; 256], shapes: [levels; 2] }
    }

    fn levels(&mut self, tile: &Tile) -> &mut Levels {
        &mut self.shapes[usize::from(tile.rows == 1)]
    }
}

/// How large a position's neighbours are: `magnitudes` are those of the tile's positions before it.
fn context(tile: &Tile, magnitudes: &[u8], position: usize) -> usize {
    let left = if position.is_multiple_of(tile.cols) { 0 } else { magnitudes[position - 1] };
    let above = if position < tile.cols { 0 } else { magnitudes[position - tile.cols] };
    usize::from(left.min(NEIGHBOUR)) + usize::from(above.min(NEIGHBOUR))
}

/// Encodes `delta`, extracted with density `k`.
///
/// # Errors
/// [`PackingError::Empty`] if it sends nothing, and the other variants if it is not a delta of this
/// layout and rule (a tile with more entries than its share, a value over the cap).
pub fn encode(layout: &Layout, rule: &Rule, k: u32, delta: &SparseDelta) -> Result<Vec<u8>, PackingError> {
    if delta.is_empty() {
        return Err(PackingError::Empty);
    }
    let density = u16::try_from(k).ok().filter(|&d| d >= 1 && k <= rule.k).ok_or(PackingError::Density)?;
    let [low, high] = density.to_le_bytes();
    let mut coder = Encoder::new(vec![VERSION, low, high]);
    let mut models = Models::new();
    let mut levels = Vec::new();
    let mut magnitudes = Vec::new();
    let mut speaking = delta.tiles().peekable();
    for (index, tile) in layout.tiles().iter().enumerate() {
        let named = speaking.next_if(|(at, ..)| *at == index);
        coder.put(&mut models.speaks, named.is_some());
        let Some((_, step, entries)) = named else { continue };
        if entries.len() > layout.tile_k(tile.area(), k as usize) {
            return Err(PackingError::Share);
        }
        levels.clear();
        levels.resize(tile.area(), 0i8);
        let mut next = 0;
        for entry in entries {
            check(rule, step, entry.level)?;
            let position = usize::from(entry.position);
            let place = levels.get_mut(position).filter(|_| position >= next);
            *place.ok_or(PackingError::Position)? = entry.level;
            next = position + 1;
        }
        let mut node = 1;
        for shift in (0..8).rev() {
            let bit = step.code() >> shift & 1 == 1;
            coder.put(&mut models.step[node], bit);
            node = 2 * node + usize::from(bit);
        }
        let models = models.levels(tile);
        magnitudes.clear();
        magnitudes.extend(levels.iter().map(|level| level.unsigned_abs()));
        for (position, &level) in levels.iter().enumerate() {
            let context = context(tile, &magnitudes, position);
            coder.put(&mut models.any[context], level != 0);
            if level == 0 {
                continue;
            }
            coder.put_even(level < 0);
            let magnitude = level.unsigned_abs();
            for (reached, model) in (1..MAX_LEVEL).zip(&mut models.more[context]) {
                coder.put(model, magnitude > reached);
                if magnitude == reached {
                    break;
                }
            }
        }
    }
    if speaking.next().is_some() {
        return Err(PackingError::Position);
    }
    Ok(coder.finish())
}

fn check(rule: &Rule, step: Step, level: i8) -> Result<(), PackingError> {
    if level == 0 || level.unsigned_abs() > MAX_LEVEL {
        return Err(PackingError::Level);
    }
    let value = i64::from(step.units()) * i64::from(level.unsigned_abs());
    if value > 1 << rule.max_exponent { Err(PackingError::Scale) } else { Ok(()) }
}

/// Decodes a body, accepting only the canonical encoding.
///
/// # Errors
/// What is wrong with it; see [`PackingError`].
pub fn decode(layout: &Layout, rule: &Rule, body: &[u8]) -> Result<SparseDelta, PackingError> {
    let delta = decode_admitted(layout, rule, body)?;
    let k = body.get(1..HEADER).map_or(0, |k| u32::from(u16::from_le_bytes([k[0], k[1]])));
    if encode(layout, rule, k, &delta)? == body { Ok(delta) } else { Err(PackingError::Canonical) }
}

/// Decodes a body that [`decode`] has accepted before, without encoding it again.
///
/// # Errors
/// As [`decode`], but for [`PackingError::Canonical`].
pub fn decode_admitted(layout: &Layout, rule: &Rule, body: &[u8]) -> Result<SparseDelta, PackingError> {
    let [version, low, high, packed @ ..] = body else { return Err(PackingError::Truncated) };
    if *version != VERSION {
        return Err(PackingError::Version(*version));
    }
    let k = u16::from_le_bytes([*low, *high]);
    if k == 0 || u32::from(k) > rule.k {
        return Err(PackingError::Density);
    }
    let mut coder = Decoder::new(packed);
    let mut models = Models::new();
    let mut delta = SparseDelta::default();
    let (mut entries, mut magnitudes): (Vec<Entry>, Vec<u8>) = (Vec::new(), Vec::new());
    for (index, tile) in layout.tiles().iter().enumerate() {
        if coder.is_short() {
            return Err(PackingError::Truncated);
        }
        if !coder.take(&mut models.speaks) {
            continue;
        }
        let mut node = 1;
        for _ in 0..8 {
            node = 2 * node + usize::from(coder.take(&mut models.step[node]));
        }
        let step = Step::from_code((node - 256) as u8).ok_or(PackingError::Scale)?;
        let share = layout.tile_k(tile.area(), usize::from(k));
        let models = models.levels(tile);
        entries.clear();
        magnitudes.clear();
        for position in 0..tile.area() {
            let context = context(tile, &magnitudes, position);
            if !coder.take(&mut models.any[context]) {
                magnitudes.push(0);
                continue;
            }
            let negative = coder.take_even();
            let mut magnitude = 1u8;
            for model in models.more[context].iter_mut().take(usize::from(MAX_LEVEL) - 1) {
                if !coder.take(model) {
                    break;
                }
                magnitude += 1;
            }
            magnitudes.push(magnitude);
            let level = if negative { -(magnitude as i8) } else { magnitude as i8 };
            check(rule, step, level)?;
            if entries.len() == share {
                return Err(PackingError::Share);
            }
            entries.push(Entry { position: position as u16, level });
        }
        if entries.is_empty() {
            return Err(PackingError::Share);
        }
        delta.push(index as u32, step, entries.drain(..));
    }
    if coder.is_short() {
        return Err(PackingError::Truncated);
    }
    if !coder.is_exact() {
        return Err(PackingError::Trailing);
    }
    if delta.is_empty() { Err(PackingError::Empty) } else { Ok(delta) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use swarm_optimizer::kernels::Kernels;
    use swarm_optimizer::residual::Residual;

    const RULE: Rule = Rule { tile: 64, k: 256, max_exponent: 18, publishers: 64 };

    fn layout() -> Layout {
        Layout::new([("m", vec![130, 70]), ("v", vec![70])], 64).unwrap()
    }

    fn delta(layout: &Layout, seed: u64, k: u32) -> SparseDelta {
        let mut state = seed | 1;
        let values = (0..layout.len())
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect();
        Residual::from_values(layout, values).unwrap().extract(
            layout,
            &mut Kernels::single(layout),
            k as usize,
            RULE.max_exponent,
        )
    }

    proptest! {
        #[test]
        fn round_trip(seed in any::<u64>(), k in 1u32..=256) {
            let layout = layout();
            let delta = delta(&layout, seed, k);
            let body = encode(&layout, &RULE, k, &delta).unwrap();
            prop_assert!(body.len() <= max_len(&layout, &RULE));
            prop_assert_eq!(decode(&layout, &RULE, &body).unwrap(), delta);
        }

        /// Whatever bytes decode are the encoding of what they decode to: one body per delta.
        #[test]
        fn one_encoding_per_delta(seed in any::<u64>(), flips in proptest::collection::vec((any::<usize>(), 0u8..8), 1..4)) {
            let layout = layout();
            let mut body = encode(&layout, &RULE, 32, &delta(&layout, seed, 32)).unwrap();
            let original = body.clone();
            for (at, bit) in flips {
                let at = at % body.len();
                body[at] ^= 1 << bit;
            }
            if let Ok(delta) = decode(&layout, &RULE, &body) {
                let k = u32::from(u16::from_le_bytes([body[1], body[2]]));
                prop_assert_eq!(encode(&layout, &RULE, k, &delta).unwrap(), body);
            } else {
                prop_assert_ne!(body, original);
            }
        }

        #[test]
        fn noise_never_panics(body in proptest::collection::vec(any::<u8>(), 0..600), start in any::<bool>()) {
            let mut body = body;
            if start && body.len() > 3 {
                body[..3].copy_from_slice(&[2, 8, 0]);
            }
            let _ = decode(&layout(), &RULE, &body);
        }

        #[test]
        fn every_truncation_is_refused(seed in any::<u64>(), cut in 1usize..2000) {
            let layout = layout();
            let body = encode(&layout, &RULE, 64, &delta(&layout, seed, 64)).unwrap();
            let short = &body[..body.len().saturating_sub(cut)];
            prop_assert!(decode(&layout, &RULE, short).is_err());
        }
    }

    #[test]
    fn each_rule_is_enforced() {
        let layout = layout();
        let good = delta(&layout, 3, 256);
        let body = encode(&layout, &RULE, 256, &good).unwrap();
        let with = |at: usize, value: u8| {
            let mut copy = body.clone();
            copy[at] = value;
            decode(&layout, &RULE, &copy).unwrap_err()
        };
        assert_eq!(with(0, 1), PackingError::Version(1));
        assert_eq!(with(2, 2), PackingError::Density);
        assert_eq!(with(2, 0), PackingError::Density);
        assert_eq!(with(1, 200).to_string(), PackingError::Density.to_string());
        assert_eq!(decode(&layout, &RULE, &[body.clone(), vec![0]].concat()), Err(PackingError::Trailing));
        assert_eq!(encode(&layout, &RULE, 256, &SparseDelta::default()), Err(PackingError::Empty));
        assert_eq!(encode(&layout, &RULE, 128, &good), Err(PackingError::Share));
        assert_eq!(encode(&layout, &RULE, 300, &good), Err(PackingError::Density));
        let one = |tile, units: f64, position, level| {
            let mut delta = SparseDelta::default();
            delta.push(tile, Step::nearest(units), [Entry { position, level }]);
            encode(&layout, &RULE, 256, &delta).map(|_| ())
        };
        let quarter = f64::from(1 << 18);
        assert_eq!(one(0, quarter, 5, 1), Ok(()));
        assert_eq!(one(0, quarter, 5, 2), Err(PackingError::Scale));
        assert_eq!(one(0, 1.13 * quarter, 5, -1), Err(PackingError::Scale));
        assert_eq!(one(0, 8.0, 5, 0), Err(PackingError::Level));
        assert_eq!(one(0, 8.0, 5, 16), Err(PackingError::Level));
        assert_eq!(one(0, 8.0, 4096, 1), Err(PackingError::Position));
        assert_eq!(one(8, 8.0, 0, 1), Err(PackingError::Position));
    }

    /// What the decoder reads, it may only accept if the encoder would write it: bodies that break a rule
    /// are made with another rule's encoder.
    #[test]
    fn the_decoder_enforces_the_rules_too() {
        let layout = layout();
        let loose = Rule { max_exponent: 20, ..RULE };
        let mut loud = SparseDelta::default();
        loud.push(0, Step::nearest(f64::from(1 << 19)), [Entry { position: 5, level: 1 }]);
        let body = encode(&layout, &loose, 8, &loud).unwrap();
        assert_eq!(decode(&layout, &RULE, &body), Err(PackingError::Scale));
        // Density 9 says the same in other bytes, which is another body; but more than its share is not.
        let mut full = SparseDelta::default();
        let entries = (0..9).map(|position| Entry { position, level: 1 });
        full.push(0, Step::nearest(100.0), entries);
        let mut body = encode(&layout, &RULE, 9, &full).unwrap();
        assert_eq!(decode(&layout, &RULE, &body).unwrap(), full);
        body[1] = 8;
        assert_eq!(decode(&layout, &RULE, &body), Err(PackingError::Share));
        // All-zero decisions: no tile speaks.
        assert_eq!(decode(&layout, &RULE, &[2, 8, 0, 0, 0, 0, 0]), Err(PackingError::Empty));
    }

    #[test]
    fn a_coefficient_costs_little_more_than_the_bound() {
        let layout = Layout::new([("m", vec![640, 640])], 64).unwrap();
        // Uniform values: levels 1 only, at evenly spread positions.
        for (k, bound) in [(32, 9.3), (128, 7.4), (256, 6.4)] {
            let delta = delta(&layout, 11, k);
            assert!(delta.tiles().flat_map(|(.., entries)| entries).all(|entry| entry.level.abs() == 1));
            let k: u32 = k;
            let body = encode(&layout, &RULE, k, &delta).unwrap();
            let bits = body.len() as f64 * 8.0 / delta.len() as f64;
            // The tile's step costs up to 8 / k bits a coefficient on top; the bound is rounded.
            assert!(bits < bound + 0.12 + 8.0 / f64::from(k), "k = {k}: {bits:.2} bits a coefficient");
        }
    }

    #[test]
    fn golden_bytes() {
        let layout = Layout::new([("v", vec![24])], 8).unwrap();
        let rule = Rule { tile: 8, k: 16, max_exponent: 18, publishers: 64 };
        let mut delta = SparseDelta::default();
        let entry = |position, level| Entry { position, level };
        delta.push(0, Step::nearest(1024.0), [entry(1, -1), entry(6, 3)]);
        delta.push(2, Step::nearest(8.0), [entry(0, 1), entry(7, -1)]);
        let body = encode(&layout, &rule, 16, &delta).unwrap();
        // Written by this test; they change only together with the version.
        assert_eq!(body, GOLDEN);
        assert_eq!(decode(&layout, &rule, &body).unwrap(), delta);
    }

    const GOLDEN: [u8; 12] = [2, 16, 0, 156, 55, 224, 76, 218, 58, 49, 32, 180];
}
