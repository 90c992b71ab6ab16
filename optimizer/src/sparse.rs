//! What one author says about one round: for some tiles, a scale and a few signed positions.
//!
//! Every sent coefficient of a tile has the same magnitude, `2^exponent` units, so a coefficient is a
//! position and a sign. Magnitudes are bounded by construction: an author cannot shout.

use crate::layout::Layout;

/// One sent coefficient inside a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Row-major position inside the tile, below its area.
    pub position: u16,
    /// Whether the value is `-2^exponent` rather than `+2^exponent`.
    pub negative: bool,
}

/// A tile with something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    tile: u32,
    exponent: u8,
    end: usize,
}

/// A sparse set of signed powers of two, by tile, in ascending order of tile and position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseDelta {
    tiles: Vec<Named>,
    entries: Vec<Entry>,
}

impl SparseDelta {
    /// Appends a tile's entries. Tiles come in ascending order, positions within a tile too; an empty
    /// list of entries appends nothing.
    pub fn push(&mut self, tile: u32, exponent: u8, entries: impl IntoIterator<Item = Entry>) {
        let before = self.entries.len();
        self.entries.extend(entries);
        debug_assert!(self.tiles.last().is_none_or(|last| last.tile < tile));
        debug_assert!(self.entries[before..].is_sorted_by(|a, b| a.position < b.position));
        if self.entries.len() > before {
            self.tiles.push(Named { tile, exponent, end: self.entries.len() });
        }
    }

    /// The tiles that have entries: `(tile, exponent, entries)`, ascending.
    pub fn tiles(&self) -> impl Iterator<Item = (usize, u8, &[Entry])> {
        let mut start = 0;
        self.tiles.iter().map(move |named| {
            let entries = &self.entries[start..named.end];
            start = named.end;
            (named.tile as usize, named.exponent, entries)
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
        for (tile, exponent, entries) in self.tiles() {
            let Some(place) = layout.tiles().get(tile) else { continue };
            let magnitude = 1i32.wrapping_shl(u32::from(exponent));
            for entry in entries.iter().filter(|entry| usize::from(entry.position) < place.area()) {
                let value = if entry.negative { -magnitude } else { magnitude };
                visit(place.offset + usize::from(entry.position), value);
            }
        }
    }
}
