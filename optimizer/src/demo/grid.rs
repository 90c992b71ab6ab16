//! How a parameter is cut into equal chunks, each of which is transformed by itself.
//!
//! ```text
//! [300], target 64:  five chunks of 60            [48, 80], target 64:  chunks of 48 x 40, a grid of 1 x 2
//! ```
//!
//! Nothing is padded: the chunk length of a dimension divides it. The price is that a dimension with
//! no good divisor gets short chunks, in the extreme (a prime) single elements.

/// The length of the chunks into which a dimension of `n` elements is cut: the largest divisor of `n`
/// that is at most `target`, so `n` itself if that is small enough, and 1 if `n` is a prime above it.
///
/// `n` or `target` of 0 gives 0: there is no such divisor.
pub fn chunk_length(n: usize, target: usize) -> usize {
    // Divisors come in pairs (d, n / d) with d at most the square root.
    let small = (1..=n.isqrt().min(target)).filter(|d| n.is_multiple_of(*d));
    small.flat_map(|d| [d, n / d]).filter(|d| *d <= target).max().unwrap_or(0)
}

/// The chunks of one parameter. A 1-D parameter of n elements is one row of n columns.
///
/// Coefficients are numbered chunk by chunk, the grid in row-major order, row-major within a chunk:
/// `chunk * area + a * chunk_cols + b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkGrid {
    /// Rows of the parameter; 1 if it is 1-D.
    pub rows: usize,
    /// Columns of the parameter; the length if it is 1-D.
    pub cols: usize,
    /// Rows of a chunk, a divisor of `rows`.
    pub chunk_rows: usize,
    /// Columns of a chunk, a divisor of `cols`.
    pub chunk_cols: usize,
}

impl ChunkGrid {
    /// The grid for a shape `[n]` or `[rows, cols]` and a target chunk length; `None` for other
    /// shapes, empty ones, more than `u32::MAX` elements, and a target of 0.
    pub fn new(shape: &[usize], target: usize) -> Option<ChunkGrid> {
        let (rows, cols) = match *shape {
            [n] => (1, n),
            [rows, cols] => (rows, cols),
            _ => return None,
        };
        let elements = rows.checked_mul(cols)?;
        if elements == 0 || elements > u32::MAX as usize || target == 0 {
            return None;
        }
        let (chunk_rows, chunk_cols) = (chunk_length(rows, target), chunk_length(cols, target));
        Some(ChunkGrid { rows, cols, chunk_rows, chunk_cols })
    }

    /// Elements of the parameter, and as many coefficients.
    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// Coefficients of a chunk.
    pub fn area(&self) -> usize {
        self.chunk_rows * self.chunk_cols
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.elements() / self.area()
    }

    /// The stretches of the row-major parameter that make up `chunk`, one a chunk row.
    fn stretches(&self, chunk: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let ChunkGrid { cols, chunk_rows, chunk_cols, .. } = *self;
        let across = cols / chunk_cols;
        let first = (chunk / across) * chunk_rows * cols + (chunk % across) * chunk_cols;
        (0..chunk_rows).map(move |row| first + row * cols..first + row * cols + chunk_cols)
    }

    /// Copies `chunk` of the row-major parameter `from` to `tile`.
    pub(super) fn gather(&self, chunk: usize, from: &[f32], tile: &mut [f32]) {
        for (row, stretch) in tile.chunks_exact_mut(self.chunk_cols).zip(self.stretches(chunk)) {
            row.copy_from_slice(&from[stretch]);
        }
    }

    /// Hands each value of `chunk` in the row-major parameter `to` to `update`, with the tile's value.
    pub(super) fn scatter(&self, chunk: usize, tile: &[f32], to: &mut [f32], update: impl Fn(&mut f32, f32)) {
        for (row, stretch) in tile.chunks_exact(self.chunk_cols).zip(self.stretches(chunk)) {
            for (value, &change) in to[stretch].iter_mut().zip(row) {
                update(value, change);
            }
        }
    }
}
