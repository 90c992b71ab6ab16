//! A delta's body: the one canonical byte string for a set of small multiples of steps.
//!
//! ```text
//! byte 0        format version, 3
//! bytes 1-2     k, little-endian: the density of this body, 1 ..= the genesis' k
//! then symbols and plain bits (see [`rans`]), for every tile of the layout in order:
//!   what it says              nothing; its full share of coefficients, tile_k(area, k); or fewer
//!   fewer: how many           evenly likely, 1 ..= share - 1
//!   step's code               less the one before, -11 ..= 11, or that it differs by more
//!   by more: the code         evenly likely, 0 .. 168
//!   and for every four coefficients, in ascending order of their positions; fewer at the end of the tile:
//!     which are more than 1   in magnitude, a bit each
//!     the gap before each     free positions since the one before: bucket (see [`laws`]), low bits plain
//!     its sign                plain, 1 for negative
//!     magnitudes over 1       less 2, of those that were marked
//! ```
//!
//! A coefficient costs a symbol and a quarter, whatever the area of its tile. Positions cost what they are worth
//! where every choice of them is as likely as any other, log2 C(area, k) bits a tile: real deltas of matrices show no
//! other law, but for the embeddings in the first rounds. So the gap's law is not learned but computed, from how
//! many positions are free and how many are to come. What is learned from the tiles before ([`model`]) are
//! the rest: shares, steps and magnitudes.
//!
//! A delta has one body. Each symbol follows from the delta, a decoder refuses those that would not (a full share
//! written as a count, a near step as a far one), and the coder under it gives the symbols back only from the bytes
//! that it makes of them. Decoding is bounded by the layout: a tile has at most its share of coefficients, and
//! nothing is allocated by what a body claims.

mod laws;
mod model;
mod rans;

use laws::Laws;
use model::Adaptive;
use rans::{Reader, Writer};
use swarm_optimizer::layout::{Layout, Tile};
use swarm_optimizer::sparse::{Entry, MAX_LEVEL, SparseDelta, Step};
use thiserror::Error;

use crate::genesis::Rule;

const VERSION: u8 = 3;
const HEADER: usize = 3;
/// Coefficients that share a symbol for which of them are large.
const GROUP: usize = 4;
/// While more coefficients than this are to come, the law of gaps is renewed after every [`FAR`] of them only,
/// and otherwise after every group; the last four have each their own.
const MANY: u32 = 64;
const FAR: u32 = 16;
/// Steps that differ by up to this from the one before have a symbol.
const NEAR: i32 = 11;
const STEP_SYMBOLS: usize = 2 * NEAR as usize + 2;
/// Contexts of the marks of a group: how many were marked in the group before, or that it is shorter than four.
const BEFORE: usize = 3;

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
    #[error("a tile sends more coefficients than its share")]
    Share,
    #[error("a coefficient's level is not between 1 and {MAX_LEVEL} in magnitude")]
    Level,
    #[error("the body is not the one encoding of what it says")]
    Canonical,
}

/// Bytes that no body of this swarm exceeds.
pub fn max_len(layout: &Layout, rule: &Rule) -> usize {
    // Symbols cost 11 bits (gaps) or 15 (others) at most. Of a coefficient: its gap, low bits and a sign, and a
    // magnitude; a quarter of the marks, but a tile's last group may be short. Gaps of 40 buckets ask for one
    // more symbol each.
    let bits = |tile: &Tile| {
        let count = layout.tile_k(tile.area(), rule.k as usize);
        4 * 15 + count * (11 + 13 + 15) + count.div_ceil(GROUP) * 15 + tile.area() / 40 * 11
    };
    HEADER + 16 + layout.tiles().iter().map(bits).sum::<usize>().div_ceil(8)
}

/// What has been learned from the tiles before.
struct Models {
    says: Adaptive<5>,
    /// For matrices and for vectors, and the last step's code.
    steps: [(Adaptive<STEP_SYMBOLS>, i32); 2],
    marks: [Adaptive<16>; BEFORE + 1],
    magnitudes: Adaptive<{ MAX_LEVEL as usize - 1 }>,
}

/// What a tile says: nothing, or one of the other two; and [`LARGE`] more if some magnitudes are over 1.
const SILENT: usize = 0;
const FULL: usize = 1;
const FEWER: usize = 2;
const LARGE: usize = 2;

impl Models {
    fn new() -> Self {
        // What is likely at first, in sixteenths of a symbol.
        let step = Adaptive::new(std::array::from_fn(|symbol| (64 >> (symbol / 3)).max(2)));
        let marks = |share: [u32; 5]| {
            Adaptive::new(std::array::from_fn(|marked: usize| share[marked.count_ones() as usize]))
        };
        Self {
            says: Adaptive::new([8, 64, 8, 64, 8]),
            steps: [(step.clone(), 80), (step, 80)],
            marks: [
                marks([128, 8, 2, 1, 1]),
                marks([64, 8, 2, 1, 1]),
                marks([32, 8, 4, 2, 2]),
                marks([64, 8, 2, 1, 1]),
            ],
            magnitudes: Adaptive::new(std::array::from_fn(|magnitude| (64 >> magnitude).max(2))),
        }
    }
}

/// The model of the marks of a group of `size`, after one in which `before` were marked.
fn marks_context(size: usize, before: u32) -> usize {
    if size < GROUP { BEFORE } else { (before as usize).min(BEFORE - 1) }
}

/// Whether the law of gaps is renewed before the group that begins with `left` coefficients to come.
fn is_renewed(left: u32) -> bool {
    left <= MANY || left % FAR < GROUP as u32
}

/// 0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ...
fn fold_sign(value: i32) -> usize {
    (2 * value.unsigned_abs()) as usize - usize::from(value < 0)
}

fn unfold_sign(symbol: usize) -> i32 {
    let half = symbol.div_ceil(2) as i32;
    if symbol % 2 == 1 { -half } else { half }
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
        let (writer, mut models, laws) = (&mut self.writer, Models::new(), Laws::get());
        let mut speaking = delta.tiles().peekable();
        for (index, tile) in layout.tiles().iter().enumerate() {
            let Some((_, step, entries)) = speaking.next_if(|(at, ..)| *at == index) else {
                models.says.put(writer, SILENT);
                continue;
            };
            let share = layout.tile_k(tile.area(), k as usize);
            if entries.len() > share {
                return Err(PackingError::Share);
            }
            let largest = entries.iter().map(|entry| entry.level.unsigned_abs()).max().unwrap_or(1);
            if largest > MAX_LEVEL || entries.iter().any(|entry| entry.level == 0) {
                return Err(PackingError::Level);
            }
            check_scale(rule, step, largest)?;
            let large = largest > 1;
            let says = if entries.len() == share { FULL } else { FEWER };
            models.says.put(writer, says + LARGE * usize::from(large));
            if says == FEWER {
                writer.put_even(entries.len() as u32 - 1, share as u32 - 1);
            }
            models.put_step(writer, tile, step);
            models.put_entries(writer, laws, tile.area() as u32, large, entries)?;
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
        let (mut models, laws) = (Models::new(), Laws::get());
        for (index, tile) in layout.tiles().iter().enumerate() {
            if reader.is_short() {
                return Err(PackingError::Truncated);
            }
            let says = models.says.take(&mut reader);
            if says == SILENT {
                continue;
            }
            let share = layout.tile_k(tile.area(), usize::from(k)) as u32;
            let large = says > FEWER;
            let count = match says - LARGE * usize::from(large) {
                FULL => share,
                _ if share == 1 => return Err(PackingError::Canonical),
                _ => 1 + reader.take_even(share - 1),
            };
            let step = models.take_step(&mut reader, tile)?;
            reader = delta.push_with(index as u32, step, count as usize, |entries| {
                let reader = models.take_entries(reader, laws, tile.area() as u32, large, entries)?;
                let largest = match large {
                    true => entries.iter().map(|entry| entry.level.unsigned_abs()).max().unwrap_or(1),
                    false => 1,
                };
                if large && largest == 1 {
                    return Err(PackingError::Canonical);
                }
                check_scale(rule, step, largest).map(|()| reader)
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

fn check_scale(rule: &Rule, step: Step, largest: u8) -> Result<(), PackingError> {
    let value = i64::from(step.units()) * i64::from(largest);
    if value > 1 << rule.max_exponent { Err(PackingError::Scale) } else { Ok(()) }
}

impl Models {
    fn put_step(&mut self, writer: &mut Writer, tile: &Tile, step: Step) {
        let (model, last) = &mut self.steps[usize::from(tile.rows == 1)];
        let code = i32::from(step.code());
        let differs = code - *last;
        *last = code;
        if differs.abs() <= NEAR {
            model.put(writer, fold_sign(differs));
        } else {
            model.put(writer, STEP_SYMBOLS - 1);
            writer.put_even(code as u32, u32::from(Step::COUNT));
        }
    }

    fn take_step(&mut self, reader: &mut Reader, tile: &Tile) -> Result<Step, PackingError> {
        let (model, last) = &mut self.steps[usize::from(tile.rows == 1)];
        let symbol = model.take(reader);
        let code = if symbol < STEP_SYMBOLS - 1 {
            *last + unfold_sign(symbol)
        } else {
            let code = reader.take_even(u32::from(Step::COUNT)) as i32;
            if (code - *last).abs() <= NEAR {
                return Err(PackingError::Canonical);
            }
            code
        };
        *last = code;
        u8::try_from(code).ok().and_then(Step::from_code).ok_or(PackingError::Scale)
    }

    /// Writes a tile's entries: at least one, at most `area`, with valid levels. Magnitudes are 1 if they are not
    /// `large`.
    fn put_entries(
        &mut self,
        writer: &mut Writer,
        laws: Laws,
        area: u32,
        large: bool,
        entries: &[Entry],
    ) -> Result<(), PackingError> {
        // Coefficients to come, the first position that is not passed yet, and marks of the group before.
        let (mut left, mut next, mut before) = (entries.len() as u32, 0, 0);
        let (groups, last) = entries.split_at(entries.len().saturating_sub(1) / GROUP * GROUP);
        let mut law = laws.gaps(area, left);
        for group in groups.as_chunks::<GROUP>().0 {
            if large {
                before = self.put_marks(writer, before, group);
            }
            if is_renewed(left) {
                law = laws.gaps(area - next, left);
            }
            let (mut gaps, mut plain, mut bits) = ([0; GROUP], 0, 0);
            for (gap, entry) in gaps.iter_mut().zip(group) {
                *gap = gap_before(entry, &mut next)?;
                plain |= u64::from(law.plain(*gap) << 1 | u32::from(entry.level < 0)) << bits;
                bits += law.plain_bits() + 1;
            }
            left -= GROUP as u32;
            // Positions rise: if the last one leaves room for those to come, so did the others.
            if next + left > area {
                return Err(PackingError::Position);
            }
            law.put_four(writer, gaps);
            writer.put_plain(plain, bits);
            if before > 0 {
                self.put_magnitudes(writer, group);
            }
        }
        if large {
            before = self.put_marks(writer, before, last);
        }
        for entry in last {
            let free = area - next;
            let gap = gap_before(entry, &mut next)?;
            let negative = u32::from(entry.level < 0);
            if next + left - 1 > area {
                return Err(PackingError::Position);
            }
            if left == 1 {
                // It may be anywhere.
                writer.put_even(gap, free);
                writer.put_plain(negative.into(), 1);
            } else {
                let law = laws.gaps(free, left);
                law.put(writer, gap);
                writer.put_plain((law.plain(gap) << 1 | negative).into(), law.plain_bits() + 1);
            }
            left -= 1;
        }
        if before > 0 {
            self.put_magnitudes(writer, last);
        }
        Ok(())
    }

    /// Writes which of a group are larger than 1, and returns their number.
    fn put_marks(&mut self, writer: &mut Writer, before: u32, group: &[Entry]) -> u32 {
        let is_large = |entry: &Entry| usize::from(entry.level.unsigned_abs() > 1);
        let marked = group.iter().rev().fold(0, |marked, entry| marked << 1 | is_large(entry));
        self.marks[marks_context(group.len(), before)].put(writer, marked);
        marked.count_ones()
    }

    fn put_magnitudes(&mut self, writer: &mut Writer, group: &[Entry]) {
        for magnitude in
            group.iter().map(|entry| entry.level.unsigned_abs()).filter(|&magnitude| magnitude > 1)
        {
            self.magnitudes.put(writer, usize::from(magnitude) - 2);
        }
    }

    /// Reads as many entries as there are, at least one and at most `area`, and returns the reader behind them: as
    /// a value, it is kept in registers.
    fn take_entries<'a>(
        &mut self,
        mut reader: Reader<'a>,
        laws: Laws,
        area: u32,
        large: bool,
        entries: &mut [Entry],
    ) -> Result<Reader<'a>, PackingError> {
        let (mut left, mut next, mut marked) = (entries.len() as u32, 0, 0usize);
        let (groups, last) = entries.split_at_mut(entries.len().saturating_sub(1) / GROUP * GROUP);
        let mut law = laws.gaps(area, left);
        for group in groups.as_chunks_mut::<GROUP>().0 {
            if large {
                marked = self.marks[marks_context(GROUP, marked.count_ones())].take(&mut reader);
            }
            if is_renewed(left) {
                law = laws.gaps(area - next, left);
            }
            let width = law.plain_bits() + 1;
            let plain = reader.take_plain(GROUP as u32 * width);
            let gaps = law.take_four(&mut reader, area);
            group[0] = entry_behind(&mut next, gaps[0], plain, width);
            group[1] = entry_behind(&mut next, gaps[1], plain >> width, width);
            group[2] = entry_behind(&mut next, gaps[2], plain >> (2 * width), width);
            group[3] = entry_behind(&mut next, gaps[3], plain >> (3 * width), width);
            left -= GROUP as u32;
            // Positions rise: if the last one leaves room for those to come, so did the others.
            if next + left > area {
                return Err(PackingError::Position);
            }
            if marked != 0 {
                reader = self.take_magnitudes(reader, marked, group);
            }
        }
        if large {
            marked = self.marks[marks_context(last.len(), marked.count_ones())].take(&mut reader);
            if marked >> last.len() != 0 {
                return Err(PackingError::Canonical);
            }
        }
        for entry in last.iter_mut() {
            let free = area - next;
            let (gap, width) = if left == 1 {
                (reader.take_even(free), 1)
            } else {
                let law = laws.gaps(free, left);
                (law.take(&mut reader, area), law.plain_bits() + 1)
            };
            let plain = reader.take_plain(width);
            *entry = entry_behind(&mut next, gap, plain, width);
            left -= 1;
            if next + left > area {
                return Err(PackingError::Position);
            }
        }
        if marked != 0 {
            reader = self.take_magnitudes(reader, marked, last);
        }
        Ok(reader)
    }

    /// Reads magnitudes over 1 into the levels of a group, and returns the reader behind them.
    fn take_magnitudes<'a>(
        &mut self,
        mut reader: Reader<'a>,
        marked: usize,
        group: &mut [Entry],
    ) -> Reader<'a> {
        for (index, entry) in group.iter_mut().enumerate() {
            if marked >> index & 1 == 1 {
                entry.level *= 2 + self.magnitudes.take(&mut reader) as i8;
            }
        }
        reader
    }
}

/// How many positions lie between `next` and `entry`, behind which `next` goes.
#[inline]
fn gap_before(entry: &Entry, next: &mut u32) -> Result<u32, PackingError> {
    let position = u32::from(entry.position);
    let gap = position.checked_sub(*next).ok_or(PackingError::Position)?;
    *next = position + 1;
    Ok(gap)
}

/// The entry behind a gap that is `low`, the first position of its bucket, and the bits between the lowest of
/// `plain`, its sign, and the one at `width`; of magnitude 1 for now. `next` goes behind it.
#[inline]
fn entry_behind(next: &mut u32, low: u32, plain: u64, width: u32) -> Entry {
    let position = *next + low + (plain as u32 % (1 << width)) / 2;
    *next = position + 1;
    Entry { position: position as u16, level: 1 - 2 * (plain & 1) as i8 }
}

#[cfg(test)]
mod tests;
