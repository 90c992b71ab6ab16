//! Which scalar of which parameter lies in which tile.
//!
//! The shared parameters are a list of named tensors. Two orders of their scalars matter:
//!
//! * **parameter order**: the tensors one after another, each row-major: what a trainer holds;
//! * **coefficient order**: the tiles one after another, each row-major by frequency: what the swarm
//!   shares, folds and hashes.
//!
//! A matrix is cut into tiles of `side` x `side`; tiles at the right and lower edges are ragged, not
//! padded, so both orders have exactly as many scalars as there are parameters. A vector is cut into
//! runs of `side`. The tiling depends on shapes alone, so every peer computes the same one.
//!
//! Some parameters may be private: they have their place in both orders, so that what others share does not depend on
//! what one keeps, but no delta names them.

use std::collections::HashSet;
use std::ops::Range;

use thiserror::Error;

/// Why a list of parameters has no layout.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LayoutError {
    /// The tile side is not one of [`Layout::SIDES`].
    #[error("tile side {0}: must be one of 8, 16, 32, 64, 128")]
    Side(usize),
    /// Only vectors and matrices can be tiled.
    #[error("parameter {name}: has {dims} dimensions; only vectors and matrices can be shared")]
    Dimensions {
        /// The parameter.
        name: String,
        /// Its number of dimensions.
        dims: usize,
    },
    /// A dimension is zero or the total is too large.
    #[error("parameter {0}: empty, or too large to count")]
    Size(String),
    /// Two parameters share a name.
    #[error("parameter {0}: named twice")]
    Duplicate(String),
    /// There are no parameters at all.
    #[error("no parameters to share")]
    Empty,
}

/// A named tensor's place in both orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterPlace {
    /// The tensor's name.
    pub name: String,
    /// `(rows, columns)`; a vector is one row.
    pub shape: (usize, usize),
    /// Its first scalar, in both orders.
    pub offset: usize,
    /// Its tiles.
    pub tiles: Range<usize>,
}

/// One tile: a `rows` x `cols` block of one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Height in scalars; 1 for vectors.
    pub rows: usize,
    /// Width in scalars.
    pub cols: usize,
    /// First coefficient, in coefficient order.
    pub offset: usize,
    /// First scalar (upper left), in parameter order.
    origin: usize,
    /// Distance between rows, in parameter order.
    stride: usize,
}

impl Tile {
    /// Number of coefficients, at most 128 x 128.
    pub fn area(&self) -> usize {
        self.rows * self.cols
    }

    /// The tile's coefficients, in coefficient order.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.area()
    }

    /// Where its row `row` begins, in parameter order.
    pub(crate) fn start_of(&self, row: usize) -> usize {
        self.origin + row * self.stride
    }
}

/// The tiling of all shared parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    side: usize,
    parameters: Vec<ParameterPlace>,
    tiles: Vec<Tile>,
    /// One flag a tile, or none at all.
    private: Vec<bool>,
    total: usize,
}

impl Layout {
    /// The tile sides a swarm may use. The largest area, 2^14, fits a `u16` position.
    pub const SIDES: [usize; 5] = [8, 16, 32, 64, 128];

    /// Lays out `parameters` (name, shape `[n]` or `[rows, columns]`) with tiles of `side`.
    ///
    /// # Errors
    /// An unknown side, a shape that is not one- or two-dimensional, an empty or uncountable tensor,
    /// a name used twice.
    pub fn new<N: Into<String>>(
        parameters: impl IntoIterator<Item = (N, Vec<usize>)>,
        side: usize,
    ) -> Result<Self, LayoutError> {
        if !Self::SIDES.contains(&side) {
            return Err(LayoutError::Side(side));
        }
        let mut layout =
            Self { side, parameters: Vec::new(), tiles: Vec::new(), private: Vec::new(), total: 0 };
        let mut names = HashSet::new();
        for (name, shape) in parameters {
            let name = name.into();
            if !names.insert(name.clone()) {
                return Err(LayoutError::Duplicate(name));
            }
            let (rows, cols) = match shape[..] {
                [n] => (1, n),
                [rows, cols] => (rows, cols),
                _ => return Err(LayoutError::Dimensions { name, dims: shape.len() }),
            };
            layout.push(name, rows, cols)?;
        }
        if layout.tiles.is_empty() { Err(LayoutError::Empty) } else { Ok(layout) }
    }

    fn push(&mut self, name: String, rows: usize, cols: usize) -> Result<(), LayoutError> {
        let size = rows.checked_mul(cols).filter(|&size| size > 0);
        let end =
            size.and_then(|size| self.total.checked_add(size)).filter(|&end| end <= isize::MAX as usize / 8);
        let Some(end) = end else { return Err(LayoutError::Size(name)) };
        let first_tile = self.tiles.len();
        let mut offset = self.total;
        for top in (0..rows).step_by(self.side) {
            let height = self.side.min(rows - top);
            for left in (0..cols).step_by(self.side) {
                let width = self.side.min(cols - left);
                let origin = self.total + top * cols + left;
                self.tiles.push(Tile { rows: height, cols: width, offset, origin, stride: cols });
                offset += height * width;
            }
        }
        debug_assert_eq!(offset, end);
        self.parameters.push(ParameterPlace {
            name,
            shape: (rows, cols),
            offset: self.total,
            tiles: first_tile..self.tiles.len(),
        });
        self.total = end;
        Ok(())
    }

    /// The same layout, in which no delta names the tiles of the parameters that `private` picks.
    #[must_use]
    pub fn with_private(mut self, private: impl Fn(&str) -> bool) -> Self {
        self.private = self.tiles_of(private);
        self
    }

    /// One flag a tile: whether it is one of a parameter that `chosen` picks by its name.
    pub fn tiles_of(&self, chosen: impl Fn(&str) -> bool) -> Vec<bool> {
        let flags = self.parameters.iter().flat_map(|place| {
            let flag = chosen(&place.name);
            place.tiles.clone().map(move |_| flag)
        });
        flags.collect()
    }

    /// Whether no delta names tile number `index`.
    pub fn is_private(&self, index: usize) -> bool {
        self.private.get(index).copied().unwrap_or(false)
    }

    /// Number of scalars.
    pub fn len(&self) -> usize {
        self.total
    }

    /// Never true: an empty layout is refused.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The tile side, in scalars.
    pub fn side(&self) -> usize {
        self.side
    }

    /// All tiles in coefficient order.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// All parameters in layout order.
    pub fn parameters(&self) -> &[ParameterPlace] {
        &self.parameters
    }

    /// The name of the parameter that holds scalar `index`, which means the same parameter in both
    /// orders, or `None` beyond the end.
    pub fn parameter_at(&self, index: usize) -> Option<&str> {
        if index >= self.total {
            return None;
        }
        let after = self.parameters.partition_point(|place| place.offset <= index);
        self.parameters.get(after.checked_sub(1)?).map(|place| place.name.as_str())
    }

    /// How many coefficients of a tile of `area` are sent when a full `side` x `side` tile sends `k`:
    /// the same density, rounded to nearest, at least one and at most all.
    pub fn tile_k(&self, area: usize, k: usize) -> usize {
        let full = self.side * self.side;
        ((2 * k * area + full) / (2 * full)).clamp(1, area)
    }

    /// How many coefficients are sent of `tile`, number `index`: see [`Layout::tile_k`]; none of a private one.
    pub fn share(&self, index: usize, tile: &Tile, k: usize) -> usize {
        if self.is_private(index) { 0 } else { self.tile_k(tile.area(), k) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ragged_edges_cover_every_scalar_once() {
        let layout = Layout::new([("m", vec![100, 70]), ("v", vec![130]), ("one", vec![1, 1])], 64).unwrap();
        assert_eq!(layout.len(), 7000 + 130 + 1);
        let shapes: Vec<_> = layout.tiles().iter().map(|t| (t.rows, t.cols)).collect();
        assert_eq!(shapes, [(64, 64), (64, 6), (36, 64), (36, 6), (1, 64), (1, 64), (1, 2), (1, 1)]);
        assert_eq!(layout.parameter_at(6999), Some("m"));
        assert_eq!(layout.parameter_at(7000), Some("v"));
        assert_eq!(layout.parameter_at(7131), None);
    }

    #[test]
    fn density_is_shared_by_ragged_tiles() {
        let layout = Layout::new([("m", vec![64, 64])], 64).unwrap();
        assert_eq!(layout.tile_k(4096, 256), 256);
        assert_eq!(layout.tile_k(64, 256), 4);
        assert_eq!(layout.tile_k(64, 8), 1);
        assert_eq!(layout.tile_k(2, 4096), 2);
    }

    #[test]
    fn private_parameters_keep_their_place_and_send_nothing() {
        let list = || [("m", vec![100, 70]), ("norm", vec![130]), ("head", vec![8, 8])];
        let open = Layout::new(list(), 64).unwrap();
        let layout = open.clone().with_private(|name| name != "m");
        assert_eq!((layout.tiles(), layout.len()), (open.tiles(), open.len()));
        let shares: Vec<_> =
            layout.tiles().iter().enumerate().map(|(index, tile)| layout.share(index, tile, 256)).collect();
        assert_eq!(shares, [256, 24, 144, 14, 0, 0, 0, 0]);
        assert_eq!(
            layout.tiles_of(|name| name == "norm"),
            [false, false, false, false, true, true, true, false]
        );
        assert!((0..open.tiles().len()).all(|index| !open.is_private(index)));
    }

    #[test]
    fn bad_lists_are_named() {
        let new = |shape: Vec<usize>, side| Layout::new([("p", shape)], side).unwrap_err();
        assert_eq!(new(vec![4], 48), LayoutError::Side(48));
        assert_eq!(new(vec![2, 2, 2], 64), LayoutError::Dimensions { name: "p".into(), dims: 3 });
        assert_eq!(new(vec![0, 5], 64), LayoutError::Size("p".into()));
        assert_eq!(new(vec![usize::MAX, 2], 64), LayoutError::Size("p".into()));
        let twice = Layout::new([("a", vec![1]), ("a", vec![1])], 64).unwrap_err();
        assert_eq!(twice, LayoutError::Duplicate("a".into()));
    }

    proptest! {
        #[test]
        fn every_scalar_is_in_one_tile(rows in 1usize..150, cols in 1usize..150, n in 1usize..150) {
            let layout = Layout::new([("m", vec![rows, cols]), ("v", vec![n])], 32).unwrap();
            let mut times = vec![0; layout.len()];
            for tile in layout.tiles() {
                for row in 0..tile.rows {
                    times[tile.start_of(row)..][..tile.cols].iter_mut().for_each(|times| *times += 1);
                }
            }
            prop_assert!(times.iter().all(|times| *times == 1));
            let areas: Vec<_> = layout.tiles().iter().flat_map(Tile::range).collect();
            prop_assert_eq!(areas, (0..layout.len()).collect::<Vec<_>>());
        }
    }
}
