//! A delta's body: the one canonical byte string for a set of small multiples of steps.
//!
//! ```text
//! byte 0        format version, 3
//! bytes 1-2     k, little-endian: the density of this body, 1 ..= the genesis' k
//! then symbols and plain bits (see [`rans`]), for every tile of the layout in order:
//!   what it says              nothing; its full share of coefficients, Layout::share; or fewer; and of both
//!                             whether some magnitudes are over 1
//!   fewer: how many           less 1, of 0 .. share - 1, evenly likely
//!   step's code               less the one of the matrix or vector before, -11 ..= 11, or that it differs by more
//!   by more: the code         of 0 .. 168, evenly likely
//!   and for every four coefficients, in ascending order of their positions; for 1 to 4 at the end of the tile:
//!     some are over 1: which  a bit each, the first lowest
//!     the gap before each     positions since the one before: what is above its plain bits (see [`laws`])
//!     plain bits              signs, 1 for negative, then the gaps' low bits; of the last 1 to 4, after each gap
//!     magnitudes over 1       less 2
//! ```
//!
//! What a coefficient costs does not depend on the area of its tile: one symbol and a quarter or less. Positions cost
//! what they are worth where every choice of them is as likely as any other, log2 C(area, k) bits a tile. Real
//! deltas of Muon's show no other law, neither by frequency nor by neighbours, except for those of the embeddings in
//! the first rounds. So the law of gaps is not learned but computed, from how many positions are free and how
//! many coefficients are to come. What is learned from the tiles before (see [`model`]) is the rest: shares,
//! steps and magnitudes.
//!
//! A delta has one body, which needs no second encoding to verify. Every symbol follows from the delta; a decoder
//! refuses what an encoder would have said with other symbols (a near step as a far one); and the coder under it
//! gives symbols back only from the very bytes that it makes of them. Decoding is bounded by the layout: a tile
//! has at most its share of coefficients, and nothing is allocated by what a body claims.

mod laws;
mod model;
mod rans;
mod tile;

use rans::{Reader, Writer};
use swarm_optimizer::layout::{Layout, Tile};
use swarm_optimizer::sparse::{Entry, MAX_LEVEL, SparseDelta, Step};
use thiserror::Error;
use tile::{Head, Models};

use crate::genesis::Rule;

const VERSION: u8 = 3;
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
    #[error("the body is longer than what it says")]
    Trailing,
    #[error("the body sends nothing")]
    Empty,
    #[error("a tile sends more coefficients than its share, or is private")]
    Share,
    #[error("a coefficient's level is not between 1 and {MAX_LEVEL} in magnitude")]
    Level,
    #[error("the body is not the one encoding of what it says")]
    Canonical,
}

/// What positions and signs of `k` of `area` coefficients take at least, in bits, if every choice is as likely:
/// log2 C(area, k) + k.
pub fn uniform_bits(area: usize, k: usize) -> f64 {
    let choices = (0..k.min(area)).map(|i| ((area - i) as f64 / (i + 1) as f64).log2()).sum::<f64>();
    choices + k as f64
}

impl PackingError {
    /// What refusing a delta for it is counted as.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Truncated => "delta whose body ends early",
            Self::Version(_) => "delta whose body has an unknown version",
            Self::Density => "delta of another density",
            Self::Scale => "delta over the scale cap",
            Self::Position => "delta with a position outside its tile",
            Self::Trailing => "delta whose body is too long",
            Self::Empty => "delta that says nothing",
            Self::Share => "delta with more coefficients than its share",
            Self::Level => "delta with a level out of range",
            Self::Canonical => "delta whose body is not canonical",
        }
    }
}

/// Bytes that no body of this swarm exceeds, whatever its author makes up.
pub fn max_len(layout: &Layout, rule: &Rule) -> usize {
    let bits = |(index, tile): (usize, &Tile)| {
        let area = tile.area();
        let count = layout.share(index, tile, rule.k as usize);
        // Up to four symbols before the coefficients, and the last gap, which may be evenly likely.
        let start = 2 * model::MOST_BITS + 3 * rans::EVEN_MOST_BITS;
        // A gap has j plain bits or more only where more than 2^(j + 2) positions are free for each that is to come.
        let plain: usize = (1..14).map(|j| count.min(area >> (j + 2))).sum();
        // A gap, a sign and a magnitude; and of the marks of four, a quarter.
        let each = laws::MOST_BITS + 1 + model::MOST_BITS;
        let marks = count.div_ceil(tile::GROUP) * model::MOST_BITS;
        // Gaps take no more than the positions that are not named.
        let long = (area - count) / laws::LEAST_BUCKETS * laws::MOST_BITS;
        // Whole numbers for states cost less than a ten thousandth of a bit a symbol.
        start + plain + count * each + marks + long + count.div_ceil(64)
    };
    HEADER + rans::STATES + layout.tiles().iter().enumerate().map(bits).sum::<usize>().div_ceil(8)
}

/// Encodes `delta`, extracted with density `k`.
///
/// # Errors
/// As [`Packer::encode_into`].
pub fn encode(layout: &Layout, rule: &Rule, k: u32, delta: &SparseDelta) -> Result<Vec<u8>, PackingError> {
    let mut body = Vec::new();
    Packer::default().encode_into(layout, rule, k, delta, &mut body)?;
    Ok(body)
}

/// Decodes a body, accepting only the canonical encoding.
///
/// # Errors
/// What is wrong with it; see [`PackingError`].
pub fn decode(layout: &Layout, rule: &Rule, body: &[u8]) -> Result<SparseDelta, PackingError> {
    let mut delta = SparseDelta::default();
    Packer::default().decode_into(layout, rule, body, &mut delta)?;
    Ok(delta)
}

/// Encodes and decodes one body after another with the same memory.
#[derive(Clone, Debug, Default)]
pub struct Packer {
    writer: Writer,
}

impl Packer {
    /// Encodes `delta`, extracted with density `k`, into `body`, whatever was in that before.
    ///
    /// # Errors
    /// [`PackingError::Empty`] if it sends nothing, and the other variants if it is not a delta of this
    /// layout and rule (a tile with more entries than its share, a value over the cap). `body` is then empty.
    pub fn encode_into(
        &mut self,
        layout: &Layout,
        rule: &Rule,
        k: u32,
        delta: &SparseDelta,
        body: &mut Vec<u8>,
    ) -> Result<(), PackingError> {
        body.clear();
        if delta.is_empty() {
            return Err(PackingError::Empty);
        }
        let density =
            u16::try_from(k).ok().filter(|&d| d >= 1 && k <= rule.k).ok_or(PackingError::Density)?;
        self.writer.clear();
        let (writer, mut models) = (&mut self.writer, Models::new());
        let mut speaking = delta.tiles().peekable();
        for (index, tile) in layout.tiles().iter().enumerate() {
            let share = layout.share(index, tile, k as usize);
            let Some((_, step, entries)) = speaking.next_if(|(at, ..)| *at == index) else {
                // Of a private tile there is nothing to say, not even that.
                if share > 0 {
                    models.put_silence(writer);
                }
                continue;
            };
            if entries.len() > share {
                return Err(PackingError::Share);
            }
            // One less than a magnitude; of 0, more than any.
            let over = |entry: &Entry| entry.level.unsigned_abs().wrapping_sub(1);
            let most = entries.iter().map(over).max().unwrap_or(0);
            if most >= MAX_LEVEL {
                return Err(PackingError::Level);
            }
            check_scale(rule, step, 1 + most)?;
            let head = Head { count: entries.len() as u32, large: most > 0, step };
            models.put_head(writer, tile, share as u32, head);
            models.put_entries(writer, tile.area() as u32, head.large, entries)?;
        }
        if speaking.next().is_some() {
            return Err(PackingError::Position);
        }
        let [low, high] = density.to_le_bytes();
        body.extend_from_slice(&[VERSION, low, high]);
        writer.finish(body);
        Ok(())
    }

    /// Decodes `body` into `delta`, whatever was in that before, accepting only the canonical encoding.
    ///
    /// # Errors
    /// What is wrong with it; see [`PackingError`]. `delta` then holds what came before that.
    pub fn decode_into(
        &mut self,
        layout: &Layout,
        rule: &Rule,
        body: &[u8],
        delta: &mut SparseDelta,
    ) -> Result<(), PackingError> {
        delta.clear();
        let [version, low, high, packed @ ..] = body else { return Err(PackingError::Truncated) };
        if *version != VERSION {
            return Err(PackingError::Version(*version));
        }
        let k = u16::from_le_bytes([*low, *high]);
        if k == 0 || u32::from(k) > rule.k {
            return Err(PackingError::Density);
        }
        let mut reader = Reader::new(packed).ok_or(PackingError::Truncated)?;
        let mut models = Models::new();
        for (index, tile) in layout.tiles().iter().enumerate() {
            if reader.is_short() {
                return Err(PackingError::Truncated);
            }
            let share = layout.share(index, tile, usize::from(k)) as u32;
            if share == 0 {
                continue;
            }
            let Some(Head { count, large, step }) = models.take_head(&mut reader, tile, share)? else {
                continue;
            };
            reader = delta.push_with(index as u32, step, count as usize, |entries| {
                let reader = models.take_entries(reader, tile.area() as u32, large, entries)?;
                let most = match large {
                    true => entries.iter().map(|entry| entry.level.unsigned_abs()).max().unwrap_or(1),
                    false => 1,
                };
                if large && most == 1 {
                    return Err(PackingError::Canonical);
                }
                check_scale(rule, step, most).map(|()| reader)
            })?;
        }
        if reader.is_short() {
            return Err(PackingError::Truncated);
        }
        if reader.is_long() {
            return Err(PackingError::Trailing);
        }
        if !reader.is_exact() {
            return Err(PackingError::Canonical);
        }
        if delta.is_empty() { Err(PackingError::Empty) } else { Ok(()) }
    }
}

/// Whether a coefficient of `most` steps is within the cap.
fn check_scale(rule: &Rule, step: Step, most: u8) -> Result<(), PackingError> {
    let value = i64::from(step.units()) * i64::from(most);
    if value > 1 << rule.max_exponent { Err(PackingError::Scale) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
