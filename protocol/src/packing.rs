//! A delta's body: the one canonical byte string for a set of signed, scaled positions.
//!
//! ```text
//! byte 0        format version, 1
//! bytes 1-2     k, little-endian: the density of this body, 1 ..= the genesis' k
//! then bits, least significant first, for every tile of the layout in order:
//!   5 bits      exponent of the tile's scale, or 31: the tile sends nothing
//!   and if it sends, tile_k(area, k) entries, each
//!     gap       positions skipped since the previous entry, Rice coded with parameter b:
//!               gap >> b in unary (that many ones, then a zero), then the low b bits
//!     sign      1 bit, 1 = negative
//! last byte     padded with zero bits
//! ```
//!
//! `b` follows from the tile's area and count alone. For uniformly spread positions a coefficient costs
//! 0.2 bits more than the bound log2 C(area, k) / k + 1 at k = 128 and 256 (0.5 at k = 8), and 5 / k bits
//! for the tile's scale; a delta is worth at most one encoding, and decoding
//! refuses everything else: another version or density, an exponent over the cap, a position outside
//! the tile, non-zero padding, trailing bytes, a body that says nothing at all.
//!
//! Reading is bounded by construction: a tile has at most `area` unary bits, and nothing is allocated
//! by what the body claims.

use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::{Entry, SparseDelta};
use thiserror::Error;

use crate::genesis::Rule;

const VERSION: u8 = 1;
const EXPONENT_BITS: u32 = 5;
const SILENT: u8 = 31;
const HEADER: usize = 3;

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
    #[error("a tile sends another number of coefficients than its share")]
    Share,
}

/// Bytes that no body of this swarm exceeds.
pub fn max_len(layout: &Layout, rule: &Rule) -> usize {
    let bits: usize = layout
        .tiles()
        .iter()
        .map(|tile| {
            let count = layout.tile_k(tile.area(), rule.k as usize);
            let b = rice_parameter(tile.area(), count);
            EXPONENT_BITS as usize + count * (2 + b as usize) + (tile.area() >> b)
        })
        .sum();
    HEADER + bits.div_ceil(8)
}

/// Encodes `delta`, extracted with density `k`.
///
/// # Errors
/// [`PackingError::Empty`] if it sends nothing, and the other variants if it is not a delta of this
/// layout and rule (a tile with more or fewer entries than its share, a scale over the cap).
pub fn encode(layout: &Layout, rule: &Rule, k: u32, delta: &SparseDelta) -> Result<Vec<u8>, PackingError> {
    if delta.is_empty() {
        return Err(PackingError::Empty);
    }
    let density = u16::try_from(k).ok().filter(|&d| d >= 1 && k <= rule.k).ok_or(PackingError::Density)?;
    let mut bits = BitWriter { bytes: vec![VERSION], pending: 0, count: 0 };
    bits.bytes.extend(density.to_le_bytes());
    let mut speaking = delta.tiles().peekable();
    for (index, tile) in layout.tiles().iter().enumerate() {
        let Some((_, exponent, entries)) = speaking.next_if(|(at, ..)| *at == index) else {
            bits.put(u64::from(SILENT), EXPONENT_BITS);
            continue;
        };
        if exponent > rule.max_exponent {
            return Err(PackingError::Scale);
        }
        let count = layout.tile_k(tile.area(), k as usize);
        if entries.len() != count {
            return Err(PackingError::Share);
        }
        let b = rice_parameter(tile.area(), count);
        bits.put(u64::from(exponent), EXPONENT_BITS);
        let mut next = 0usize;
        for entry in entries {
            let position = usize::from(entry.position);
            let gap = position.checked_sub(next).filter(|_| position < tile.area());
            let gap = gap.ok_or(PackingError::Position)?;
            bits.put_unary(gap >> b);
            bits.put((gap & ((1 << b) - 1)) as u64, b);
            bits.put(u64::from(entry.negative), 1);
            next = position + 1;
        }
    }
    if speaking.next().is_some() {
        return Err(PackingError::Position);
    }
    Ok(bits.finish())
}

/// Decodes a body, accepting only the canonical encoding.
///
/// # Errors
/// What is wrong with it; see [`PackingError`].
pub fn decode(layout: &Layout, rule: &Rule, body: &[u8]) -> Result<SparseDelta, PackingError> {
    let [version, low, high, packed @ ..] = body else { return Err(PackingError::Truncated) };
    if *version != VERSION {
        return Err(PackingError::Version(*version));
    }
    let k = u16::from_le_bytes([*low, *high]);
    if k == 0 || u32::from(k) > rule.k {
        return Err(PackingError::Density);
    }
    let mut bits = BitReader { bytes: packed, pending: 0, count: 0 };
    let mut delta = SparseDelta::default();
    let mut entries: Vec<Entry> = Vec::new();
    for (index, tile) in layout.tiles().iter().enumerate() {
        let exponent = bits.take(EXPONENT_BITS)? as u8;
        if exponent == SILENT {
            continue;
        }
        if exponent > rule.max_exponent {
            return Err(PackingError::Scale);
        }
        let count = layout.tile_k(tile.area(), usize::from(k));
        let b = rice_parameter(tile.area(), count);
        let mut next = 0usize;
        entries.clear();
        for _ in 0..count {
            let room = tile.area().checked_sub(next + 1).ok_or(PackingError::Position)?;
            let high = bits.take_unary(room >> b)?.ok_or(PackingError::Position)?;
            let gap = (high << b) | bits.take(b)? as usize;
            if gap > room {
                return Err(PackingError::Position);
            }
            let position = u16::try_from(next + gap).map_err(|_| PackingError::Position)?;
            entries.push(Entry { position, negative: bits.take(1)? == 1 });
            next += gap + 1;
        }
        delta.push(index as u32, exponent, entries.drain(..));
    }
    bits.finish()?;
    if delta.is_empty() { Err(PackingError::Empty) } else { Ok(delta) }
}

/// The Rice parameter for `count` positions out of `area`: the largest b with 2^b at most the mean gap,
/// which for geometric gaps is within 0.01 bits of the best b. Integers only.
fn rice_parameter(area: usize, count: usize) -> u32 {
    ((area - count) / (count + 1)).max(1).ilog2()
}

struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `n` bits of `value`, n at most 32.
    fn put(&mut self, value: u64, n: u32) {
        self.pending |= value << self.count;
        self.count += n;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    fn put_unary(&mut self, mut ones: usize) {
        while ones >= 32 {
            self.put(u64::from(u32::MAX), 32);
            ones -= 32;
        }
        self.put((1 << ones) - 1, ones as u32 + 1);
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    pending: u64,
    count: u32,
}

impl BitReader<'_> {
    fn refill(&mut self) {
        while self.count <= 56 {
            let [first, rest @ ..] = self.bytes else { return };
            self.pending |= u64::from(*first) << self.count;
            self.count += 8;
            self.bytes = rest;
        }
    }

    /// The next `n` bits, n at most 32.
    fn take(&mut self, n: u32) -> Result<u64, PackingError> {
        if self.count < n {
            self.refill();
            if self.count < n {
                return Err(PackingError::Truncated);
            }
        }
        let value = self.pending & ((1u64 << n) - 1);
        self.pending >>= n;
        self.count -= n;
        Ok(value)
    }

    /// The number of ones before the next zero, or `None` if there are more than `most`.
    fn take_unary(&mut self, most: usize) -> Result<Option<usize>, PackingError> {
        let mut ones = 0usize;
        loop {
            if self.count == 0 {
                self.refill();
                if self.count == 0 {
                    return Err(PackingError::Truncated);
                }
            }
            let run = self.pending.trailing_ones().min(self.count);
            ones += run as usize;
            if ones > most {
                return Ok(None);
            }
            if run < self.count {
                self.pending = self.pending >> run >> 1;
                self.count -= run + 1;
                return Ok(Some(ones));
            }
            self.pending = 0;
            self.count = 0;
        }
    }

    fn finish(self) -> Result<(), PackingError> {
        if self.count < 8 && self.pending == 0 && self.bytes.is_empty() {
            Ok(())
        } else {
            Err(PackingError::Trailing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
        Residual::from_values(layout, values).unwrap().extract(layout, k as usize, RULE.max_exponent)
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
                body[..3].copy_from_slice(&[1, 8, 0]);
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
        assert_eq!(with(0, 2), PackingError::Version(2));
        assert_eq!(with(1, 1), PackingError::Density);
        assert_eq!(with(2, 0), PackingError::Density);
        assert_eq!(with(3, (body[3] & !31) | 19), PackingError::Scale);
        assert_eq!(decode(&layout, &RULE, &[body.clone(), vec![0]].concat()), Err(PackingError::Trailing));
        // Eight tiles, each with the exponent that says nothing.
        let silent = [&[1, 8, 0][..], &[0xff; 5]].concat();
        assert_eq!(decode(&layout, &RULE, &silent), Err(PackingError::Empty));
        assert_eq!(encode(&layout, &RULE, 256, &SparseDelta::default()), Err(PackingError::Empty));
        assert_eq!(encode(&layout, &RULE, 128, &good), Err(PackingError::Share));
        assert_eq!(encode(&layout, &RULE, 300, &good), Err(PackingError::Density));
    }

    #[test]
    fn a_coefficient_costs_little_more_than_the_bound() {
        let layout = Layout::new([("m", vec![640, 640])], 64).unwrap();
        for (k, bound, slack) in [(8u32, 11.1, 0.5), (32, 9.3, 0.25), (128, 7.4, 0.2), (256, 6.4, 0.2)] {
            let delta = delta(&layout, 11, k);
            let body = encode(&layout, &RULE, k, &delta).unwrap();
            let bits = body.len() as f64 * 8.0 / delta.len() as f64;
            // The tile's scale costs 5 / k bits a coefficient on top.
            assert!(bits < bound + slack + 5.0 / f64::from(k), "k = {k}: {bits:.2} bits a coefficient");
        }
    }

    #[test]
    fn golden_bytes() {
        let layout = Layout::new([("v", vec![24])], 8).unwrap();
        let rule = Rule { tile: 8, k: 16, max_exponent: 18, publishers: 64 };
        let mut delta = SparseDelta::default();
        let entry = |position, negative| Entry { position, negative };
        delta.push(0, 10, [entry(1, true), entry(6, false)]);
        delta.push(2, 3, [entry(0, false), entry(7, true)]);
        let body = encode(&layout, &rule, 16, &delta).unwrap();
        // By hand: area 8, 2 entries, mean gap 2, b = 1; bits in the order they are written.
        // Tile 0: 01010 | gap 1: 0 1, sign 1 | gap 4: 110 0, sign 0. Tile 1: 11111.
        // Tile 2: 11000 | gap 0: 0 0, sign 0 | gap 6: 1110 0, sign 1.
        assert_eq!(body, [1, 16, 0, 0b1100_1010, 0b1110_0011, 0b0000_1111, 0b1001_1100]);
        assert_eq!(decode(&layout, &rule, &body).unwrap(), delta);
    }
}
