//! What the symbols of a tile are, and what each is learned from.

use swarm_optimizer::layout::Tile;
use swarm_optimizer::sparse::{Entry, MAX_LEVEL, Step};

use super::PackingError;
use super::laws::Laws;
use super::model::Adaptive;
use super::rans::{Reader, Writer};

/// Coefficients that share a symbol for which of them are large.
pub(super) const GROUP: usize = 4;
/// Steps that differ by up to this from the one before have a symbol.
const NEAR: i32 = 11;
/// The symbol of the others.
pub(super) const FAR_STEP: usize = 2 * NEAR as usize + 1;
const STEP_SYMBOLS: usize = FAR_STEP + 1;
/// Contexts of the marks of a group: how many were marked in the group before, or that it is shorter than four.
pub(super) const BEFORE: usize = 3;

/// What a tile says: nothing, or as many coefficients as it may, or fewer; and [`AND_LARGE`] more if some magnitudes
/// are over 1.
const NOTHING: usize = 0;
const FULL: usize = 1;
const FEWER: usize = 2;
const AND_LARGE: usize = 2;

/// What stands before a tile's coefficients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// How many there are, at least one.
    pub(super) count: u32,
    /// Whether some magnitudes are over 1.
    pub(super) large: bool,
    pub(super) step: Step,
}

/// What has been learned from the tiles before.
pub(super) struct Models {
    pub(super) says: Adaptive<5>,
    /// For matrices and for vectors, and the last step's code.
    pub(super) steps: [(Adaptive<STEP_SYMBOLS>, i32); 2],
    pub(super) marks: [Adaptive<16>; BEFORE + 1],
    magnitudes: Adaptive<{ MAX_LEVEL as usize - 1 }>,
    laws: Laws,
}

/// The model of the marks of a group of `size`, after one in which `before` were marked.
fn marks_context(size: usize, before: u32) -> usize {
    if size < GROUP { BEFORE } else { (before as usize).min(BEFORE - 1) }
}

/// Whether the law of gaps is renewed before the group that begins with `left` coefficients to come. The more
/// there are, the less a few of them change it.
fn is_renewed(left: u32) -> bool {
    let period = match left {
        0..=16 => 4,
        17..=64 => 8,
        _ => 16,
    };
    left % period < GROUP as u32
}

/// 0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ...
fn fold_sign(value: i32) -> usize {
    (2 * value.unsigned_abs()) as usize - usize::from(value < 0)
}

fn unfold_sign(symbol: usize) -> i32 {
    let half = symbol.div_ceil(2) as i32;
    if symbol % 2 == 1 { -half } else { half }
}

impl Models {
    /// Nothing is learned yet: what is likely at first, in sixteenths of a symbol.
    pub(super) fn new() -> Self {
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
            laws: Laws::get(),
        }
    }

    pub(super) fn put_silence(&mut self, writer: &mut Writer) {
        self.says.put(writer, NOTHING);
    }

    /// Writes the head of a tile that sends up to `share` coefficients.
    pub(super) fn put_head(&mut self, writer: &mut Writer, tile: &Tile, share: u32, head: Head) {
        let says = if head.count == share { FULL } else { FEWER };
        self.says.put(writer, says + AND_LARGE * usize::from(head.large));
        if says == FEWER {
            writer.put_even(head.count - 1, share - 1);
        }
        let (model, last) = &mut self.steps[usize::from(tile.rows == 1)];
        let code = i32::from(head.step.code());
        let differs = code - *last;
        *last = code;
        if differs.abs() <= NEAR {
            model.put(writer, fold_sign(differs));
        } else {
            model.put(writer, FAR_STEP);
            writer.put_even(code as u32, u32::from(Step::COUNT));
        }
    }

    /// Reads a head, or `None` of a tile that says nothing.
    ///
    /// # Errors
    /// One that would have been written in another way, or a step that there is not.
    pub(super) fn take_head(
        &mut self,
        reader: &mut Reader,
        tile: &Tile,
        share: u32,
    ) -> Result<Option<Head>, PackingError> {
        let says = self.says.take(reader);
        if says == NOTHING {
            return Ok(None);
        }
        let large = says > FEWER;
        let count = match says - AND_LARGE * usize::from(large) {
            FULL => share,
            _ if share == 1 => return Err(PackingError::Canonical),
            _ => 1 + reader.take_even(share - 1),
        };
        let (model, last) = &mut self.steps[usize::from(tile.rows == 1)];
        let symbol = model.take(reader);
        let code = if symbol < FAR_STEP {
            *last + unfold_sign(symbol)
        } else {
            let code = reader.take_even(u32::from(Step::COUNT)) as i32;
            if (code - *last).abs() <= NEAR {
                return Err(PackingError::Canonical);
            }
            code
        };
        *last = code;
        let step = u8::try_from(code).ok().and_then(Step::from_code).ok_or(PackingError::Scale)?;
        Ok(Some(Head { count, large, step }))
    }

    /// Writes a tile's entries: at least one, at most `area`, with valid levels. Magnitudes are 1 if they are not
    /// `large`.
    ///
    /// # Errors
    /// Positions that do not rise or lie beyond the tile.
    pub(super) fn put_entries(
        &mut self,
        writer: &mut Writer,
        area: u32,
        large: bool,
        entries: &[Entry],
    ) -> Result<(), PackingError> {
        match large {
            true => self.put_sized::<true>(writer, area, entries),
            false => self.put_sized::<false>(writer, area, entries),
        }
    }

    /// Likewise. The loops are made for each case: most tiles are not `LARGE` where few coefficients are sent.
    fn put_sized<const LARGE: bool>(
        &mut self,
        writer: &mut Writer,
        area: u32,
        entries: &[Entry],
    ) -> Result<(), PackingError> {
        // Coefficients to come, the first position that is not passed yet, and marks of the group before.
        let (mut left, mut next, mut before) = (entries.len() as u32, 0, 0);
        let (groups, last) = entries.split_at(entries.len().saturating_sub(1) / GROUP * GROUP);
        let laws = self.laws;
        let mut law = laws.gaps(area, left);
        for group in groups.as_chunks::<GROUP>().0 {
            if LARGE {
                before = self.put_marks(writer, before, group);
            }
            if is_renewed(left) {
                law = laws.gaps(area - next, left);
            }
            let width = law.plain_bits();
            let (mut gaps, mut signs, mut low) = ([0; GROUP], 0, 0);
            for (index, (gap, entry)) in gaps.iter_mut().zip(group).enumerate() {
                *gap = gap_before(entry, &mut next)?;
                signs |= u64::from(entry.level < 0) << index;
                low |= u64::from(law.plain(*gap)) << (index as u32 * width);
            }
            left -= GROUP as u32;
            // Positions rise: if the last one leaves room for those to come, so did the others.
            if next + left > area {
                return Err(PackingError::Position);
            }
            law.put_four(writer, gaps);
            writer.put_plain(signs | low << GROUP, GROUP as u32 * (1 + width));
            if LARGE && before > 0 {
                self.put_magnitudes(writer, group);
            }
        }
        if LARGE {
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
        if LARGE && before > 0 {
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
    ///
    /// # Errors
    /// Positions beyond the tile, marks beyond the last entry. What `entries` hold then means nothing.
    pub(super) fn take_entries<'a>(
        &mut self,
        reader: Reader<'a>,
        area: u32,
        large: bool,
        entries: &mut [Entry],
    ) -> Result<Reader<'a>, PackingError> {
        match large {
            true => self.take_sized::<true>(reader, area, entries),
            false => self.take_sized::<false>(reader, area, entries),
        }
    }

    fn take_sized<'a, const LARGE: bool>(
        &mut self,
        mut reader: Reader<'a>,
        area: u32,
        entries: &mut [Entry],
    ) -> Result<Reader<'a>, PackingError> {
        let (mut left, mut next, mut marked) = (entries.len() as u32, 0, 0usize);
        let (groups, last) = entries.split_at_mut(entries.len().saturating_sub(1) / GROUP * GROUP);
        let laws = self.laws;
        let mut law = laws.gaps(area, left);
        for group in groups.as_chunks_mut::<GROUP>().0 {
            if LARGE {
                marked = self.marks[marks_context(GROUP, marked.count_ones())].take(&mut reader);
            }
            if is_renewed(left) {
                law = laws.gaps(area - next, left);
            }
            let width = law.plain_bits();
            let plain = reader.take_plain(GROUP as u32 * (1 + width));
            let gaps = law.take_four(&mut reader, area);
            let mut low = plain >> GROUP;
            for (index, (entry, gap)) in group.iter_mut().zip(gaps).enumerate() {
                *entry = entry_behind(&mut next, gap, low as u32 % (1 << width), plain >> index);
                low >>= width;
            }
            left -= GROUP as u32;
            // Positions rise: if the last one leaves room for those to come, so did the others.
            if next + left > area {
                return Err(PackingError::Position);
            }
            if LARGE && marked != 0 {
                reader = self.take_magnitudes(reader, marked, group);
            }
        }
        if LARGE {
            marked = self.marks[marks_context(last.len(), marked.count_ones())].take(&mut reader);
            if marked >> last.len() != 0 {
                return Err(PackingError::Canonical);
            }
        }
        for entry in last.iter_mut() {
            let free = area - next;
            let (gap, width) = if left == 1 {
                (reader.take_even(free), 0)
            } else {
                let law = laws.gaps(free, left);
                (law.take(&mut reader, area), law.plain_bits())
            };
            let plain = reader.take_plain(1 + width);
            *entry = entry_behind(&mut next, gap, (plain >> 1) as u32 % (1 << width), plain);
            left -= 1;
            if next + left > area {
                return Err(PackingError::Position);
            }
        }
        if LARGE && marked != 0 {
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

/// The entry behind a gap of `gap` and `low` together, negative if `sign` is odd; of magnitude 1 for now. `next`
/// goes behind it.
#[inline(always)]
fn entry_behind(next: &mut u32, gap: u32, low: u32, sign: u64) -> Entry {
    let position = *next + gap + low;
    *next = position + 1;
    Entry { position: position as u16, level: 1 - 2 * (sign & 1) as i8 }
}
