//! What one author says about one round: for some tiles, a step and a few small multiples of it.
//!
//! A sent coefficient is a position and a *level*, a whole number from -15 to 15 that is not 0; its value
//! is the level times the tile's step. Most levels are 1 or -1. Magnitudes are bounded by construction: an
//! author cannot shout.

use crate::layout::Layout;

/// Largest magnitude of a level.
pub const MAX_LEVEL: u8 = 15;

/// The value of level 1 in a tile, in units of 2^-20: `(8 + m) 2^e` with `m` in 0 ..= 7, so neighbouring
/// steps differ by a ninth at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(u8);

impl Step {
    /// Number of steps there are; codes are below it.
    pub const COUNT: u8 = 168;

    /// The step with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        (code < Self::COUNT).then_some(Self(code))
    }

    /// Its code: 8 e + m.
    pub fn code(self) -> u8 {
        self.0
    }

    /// Its value in units of 2^-20, from 8 to 15 x 2^20.
    pub fn units(self) -> i32 {
        i32::from(8 + self.0 % 8) << (self.0 / 8)
    }

    /// The step nearest to `units`, the larger of two that are as near; the smallest or largest if that is beyond
    /// them.
    pub fn nearest(units: f64) -> Self {
        let largest = f64::from(Self(Self::COUNT - 1).units());
        let units = units.clamp(8.0, largest);
        // 2^e is the largest power of two in units / 8: a float's exponent, exactly. What is beyond (8 + m) 2^e
        // rounds to the next m, and from m = 7 to the next e.
        let exponent = (units.to_bits() >> 52) as i32 - 1023 - 3;
        let parts = (units / f64::from(1 << exponent)).round() as i32;
        Self((8 * exponent + parts - 8).clamp(0, i32::from(Self::COUNT) - 1) as u8)
    }
}

/// One sent coefficient inside a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Row-major position inside the tile, below its area.
    pub position: u16,
    /// Its value in steps; not 0, at most [`MAX_LEVEL`] in magnitude.
    pub level: i8,
}

/// A tile with something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    tile: u32,
    step: Step,
    end: usize,
}

/// A sparse set of coefficients, by tile, in ascending order of tile and position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseDelta {
    tiles: Vec<Named>,
    entries: Vec<Entry>,
}

impl SparseDelta {
    /// Forgets everything but keeps the memory for the next one.
    pub fn clear(&mut self) {
        self.tiles.clear();
        self.entries.clear();
    }

    /// Appends a tile's entries. Tiles come in ascending order, positions within a tile too; an empty
    /// list of entries appends nothing.
    pub fn push(&mut self, tile: u32, step: Step, entries: impl IntoIterator<Item = Entry>) {
        self.push_each(tile, step, |list| list.extend(entries));
    }

    /// Appends a tile's entries one by one: `fill` pushes them to the end of the list. See [`SparseDelta::push`].
    #[inline(always)]
    pub(crate) fn push_each(&mut self, tile: u32, step: Step, fill: impl FnOnce(&mut Vec<Entry>)) {
        let before = self.entries.len();
        fill(&mut self.entries);
        self.name(tile, step, before);
    }

    /// The entries from `before` on are of `tile`.
    #[inline(always)]
    fn name(&mut self, tile: u32, step: Step, before: usize) {
        debug_assert!(self.tiles.last().is_none_or(|last| last.tile < tile));
        debug_assert!(self.entries[before..].is_sorted_by(|a, b| a.position < b.position));
        if self.entries.len() > before {
            self.tiles.push(Named { tile, step, end: self.entries.len() });
        }
    }

    /// Appends what `later` says, about tiles behind all of these.
    pub fn append(&mut self, later: &Self) {
        let before = self.entries.len();
        self.entries.extend_from_slice(&later.entries);
        self.tiles.extend(later.tiles.iter().map(|named| Named { end: before + named.end, ..*named }));
        debug_assert!(self.tiles.is_sorted_by(|a, b| a.tile < b.tile));
    }

    /// Appends a tile with `count` entries, which `fill` sets: they are 0 at first, and as for [`SparseDelta::push`]
    /// when it returns. Nothing is appended if it fails.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn push_with<T, E>(
        &mut self,
        tile: u32,
        step: Step,
        count: usize,
        fill: impl FnOnce(&mut [Entry]) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.entries.len();
        self.entries.resize(before + count, Entry { position: 0, level: 0 });
        let filled = fill(&mut self.entries[before..]);
        if filled.is_err() {
            self.entries.truncate(before);
        }
        self.name(tile, step, before);
        filled
    }

    /// The tiles that have entries: `(tile, step, entries)`, ascending.
    pub fn tiles(&self) -> impl Iterator<Item = (usize, Step, &[Entry])> {
        let mut start = 0;
        self.tiles.iter().map(move |named| {
            let entries = &self.entries[start..named.end];
            start = named.end;
            (named.tile as usize, named.step, entries)
        })
    }

    /// Number of sent coefficients.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is sent at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Calls `visit(index, units)` for every coefficient: its index in coefficient order and its value
    /// in units of 2^-20. Tiles and positions beyond `layout` are skipped.
    pub fn for_each(&self, layout: &Layout, mut visit: impl FnMut(usize, i32)) {
        for (tile, step, entries) in self.tiles() {
            let Some(place) = layout.tiles().get(tile) else { continue };
            for entry in entries.iter().filter(|entry| usize::from(entry.position) < place.area()) {
                visit(place.offset + usize::from(entry.position), step.units() * i32::from(entry.level));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_and_are_found() {
        let all: Vec<Step> = (0..Step::COUNT).map(|code| Step::from_code(code).unwrap()).collect();
        assert!(all.windows(2).all(|pair| pair[0].units() < pair[1].units()));
        assert!(all.windows(2).all(|pair| f64::from(pair[1].units()) <= 1.125 * f64::from(pair[0].units())));
        assert_eq!((all[0].units(), all[167].units(), Step::from_code(168)), (8, 15 << 20, None));
        for &step in &all {
            assert_eq!(Step::nearest(f64::from(step.units())), step);
            assert_eq!(Step::nearest(f64::from(step.units()) * 1.02), step);
        }
        for pair in all.windows(2) {
            let [low, high] = [f64::from(pair[0].units()), f64::from(pair[1].units())];
            let middle = f64::midpoint(low, high);
            assert_eq!(Step::nearest(middle.next_down()), pair[0]);
            assert_eq!((Step::nearest(middle), Step::nearest(middle.next_up())), (pair[1], pair[1]));
        }
        assert_eq!((Step::nearest(-1.0).units(), Step::nearest(f64::INFINITY).units()), (8, 15 << 20));
        // The largest value that can be named, far from overflow.
        assert!(i64::from(15 << 20) * i64::from(MAX_LEVEL) < 1 << 28);
    }
}
