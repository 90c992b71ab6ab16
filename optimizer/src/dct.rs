//! Orthonormal cosine transforms of any length, in one and two dimensions.
//!
//! The forward transform is the DCT-II, the inverse is the DCT-III, both scaled to be orthonormal:
//!
//! ```text
//! X[q] = s(q) sum_j x[j] cos(pi (2j + 1) q / 2n)        s(0) = sqrt(1/n), s(q) = sqrt(2/n) otherwise
//! x[j] = sum_q s(q) X[q] cos(pi (2j + 1) q / 2n)
//! ```
//!
//! Both keep the sum of squares, so "the largest coefficients" are those that carry most of the
//! signal. The cost is that of one complex FFT of the same length for every *two* real lines:
//!
//! 1. **Shuffle** (J. Makhoul, "A fast cosine transform in one and two dimensions", IEEE Trans. ASSP
//!    28, 1980): even samples in order, then odd samples backwards, `v = x[0], x[2], .., x[3], x[1]`.
//!    With `V` the n-point DFT of `v` and `w = exp(-i pi q / 2n)`, `w V[q]` is the sum over
//!    `x[j] exp(-i theta)` and `conj(w) V[n-q]` the sum over `x[j] exp(+i theta)`, `theta` being the
//!    cosine's argument above. Half their sum is the cosine sum.
//! 2. **Two lines at once**: nothing in step 1 asks `x` to be real. With line `a` as the real part and
//!    line `b` as the imaginary part, the cosine sums of both come out in the same places.
//! 3. **Rotate** in place: with `t = w / sqrt(2n)`, `P = t V[q]`, `M = conj(t) V[n-q]`,
//!    `X[q] = P + M` and `X[n-q] = i (P - M)`. `X[0]` (and, n even, the middle) is only scaled by
//!    `sqrt(1/n)`. The inverse runs the same three steps backwards with the same factors.
//!
//! Two neighbouring columns of a row-major tile lie side by side in memory, so the column pass of
//! [`TileDct`] loads and stores such pairs directly and needs no transposed copy.
//!
//! Factors are computed in f64 and rounded once. The FFT ([`rustfft`]) picks the fastest kernel of
//! the machine it runs on, so the last bits of a result differ from machine to machine. Nothing
//! shared between peers may depend on them.

pub(crate) mod lee;
#[cfg(test)]
mod tests;

use std::f64::consts::FRAC_PI_2;
use std::sync::Arc;

use num_traits::Float;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftNum, FftPlanner};

/// A floating-point type that the transforms work in: `f32` or `f64`.
pub trait Real: FftNum + Float {
    /// The value of this type nearest to `value`.
    fn nearest(value: f64) -> Self;
}

impl Real for f32 {
    fn nearest(value: f64) -> f32 {
        value as f32
    }
}

impl Real for f64 {
    fn nearest(value: f64) -> f64 {
        value
    }
}

/// Orthonormal DCT-II and DCT-III of one real line of fixed length.
#[derive(Clone)]
pub struct Dct<T: Real> {
    axis: Axis<T>,
    line: Vec<Complex<T>>,
}

impl<T: Real> Dct<T> {
    /// Plans both transforms for lines of `n` values. Every `n` from 1 works, primes included.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn new(n: usize) -> Self {
        let axis = Axis::new(n, &mut FftPlanner::new());
        Dct { line: vec![zero(); n], axis }
    }

    /// The length of a line.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.axis.len
    }

    /// Replaces the line `x` by its DCT-II.
    ///
    /// # Panics
    /// If `x` is not [`Dct::len`] values long.
    pub fn forward(&mut self, x: &mut [T]) {
        assert_eq!(x.len(), self.len(), "a line of another length than planned");
        load_shuffled(x, x, &mut self.line);
        self.axis.forward(&mut self.line);
        store(&self.line, x, |z| z.re);
    }

    /// Replaces the DCT-II coefficients `x` by the line they belong to (DCT-III).
    ///
    /// # Panics
    /// If `x` is not [`Dct::len`] values long.
    pub fn inverse(&mut self, x: &mut [T]) {
        assert_eq!(x.len(), self.len(), "a line of another length than planned");
        load(x, x, &mut self.line);
        self.axis.inverse(&mut self.line);
        store_unshuffled(&self.line, x, |z| z.re);
    }
}

/// Orthonormal DCT-II and DCT-III over both axes of a row-major tile of fixed size.
///
/// Coefficient `a * cols + b` belongs to frequency `a` along the rows' axis (axis 0) and `b` along the
/// columns' axis (axis 1). An axis of length 1 is left as it is, so a 1-D tile is one with one row.
#[derive(Clone)]
pub struct TileDct<T: Real> {
    rows: usize,
    cols: usize,
    /// Along a column: `rows` values.
    down: Axis<T>,
    /// Along a row: `cols` values.
    across: Axis<T>,
    /// Every pair of lines of the pass under way, one complex line after another.
    lines: Vec<Complex<T>>,
}

impl<T: Real> TileDct<T> {
    /// Plans both transforms for tiles of `rows` x `cols` values.
    ///
    /// # Panics
    /// If `rows` or `cols` is 0.
    pub fn new(rows: usize, cols: usize) -> Self {
        let mut planner = FftPlanner::new();
        let down = Axis::new(rows, &mut planner);
        let across = Axis::new(cols, &mut planner);
        let lines = vec![zero(); (rows.div_ceil(2) * cols).max(cols.div_ceil(2) * rows)];
        TileDct { rows, cols, down, across, lines }
    }

    /// The number of rows of a tile.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns of a tile.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Replaces the tile by its DCT-II over both axes.
    ///
    /// # Panics
    /// If `tile` is not `rows * cols` values long.
    pub fn forward(&mut self, tile: &mut [T]) {
        assert_eq!(tile.len(), self.rows * self.cols, "a tile of another size than planned");
        if self.cols > 1 {
            let lines = &mut self.lines[..self.rows.div_ceil(2) * self.cols];
            for (pair, line) in tile.chunks(2 * self.cols).zip(lines.chunks_exact_mut(self.cols)) {
                let (first, second) = pair_of(pair, self.cols);
                load_shuffled(first, second, line);
            }
            self.across.forward(lines);
            for (pair, line) in tile.chunks_mut(2 * self.cols).zip(lines.chunks_exact(self.cols)) {
                let (first, second) = pair.split_at_mut(self.cols);
                store(line, first, |z| z.re);
                store(line, second, |z| z.im);
            }
        }
        if self.rows > 1 {
            let lines = &mut self.lines[..self.cols.div_ceil(2) * self.rows];
            load_columns(tile, self.cols, lines, self.rows, shuffled);
            self.down.forward(lines);
            store_columns(lines, self.rows, tile, self.cols, |row, _| row);
        }
    }

    /// Replaces the tile's DCT-II coefficients by the tile they belong to (DCT-III over both axes).
    ///
    /// # Panics
    /// If `tile` is not `rows * cols` values long.
    pub fn inverse(&mut self, tile: &mut [T]) {
        assert_eq!(tile.len(), self.rows * self.cols, "a tile of another size than planned");
        if self.rows > 1 {
            let lines = &mut self.lines[..self.cols.div_ceil(2) * self.rows];
            load_columns(tile, self.cols, lines, self.rows, |row, _| row);
            self.down.inverse(lines);
            store_columns(lines, self.rows, tile, self.cols, shuffled);
        }
        if self.cols > 1 {
            let lines = &mut self.lines[..self.rows.div_ceil(2) * self.cols];
            for (pair, line) in tile.chunks(2 * self.cols).zip(lines.chunks_exact_mut(self.cols)) {
                let (first, second) = pair_of(pair, self.cols);
                load(first, second, line);
            }
            self.across.inverse(lines);
            for (pair, line) in tile.chunks_mut(2 * self.cols).zip(lines.chunks_exact(self.cols)) {
                let (first, second) = pair.split_at_mut(self.cols);
                store_unshuffled(line, first, |z| z.re);
                store_unshuffled(line, second, |z| z.im);
            }
        }
    }
}

/// Steps "FFT" and "rotate" of the module's doc, for complex lines of one length.
#[derive(Clone)]
struct Axis<T: Real> {
    len: usize,
    fft: Arc<dyn Fft<T>>,
    inverse_fft: Arc<dyn Fft<T>>,
    /// `exp(-i pi q / 2n) / sqrt(2n)` for q = 1, 2, .. below n/2.
    factors: Vec<Complex<T>>,
    /// `sqrt(1/n)`, for the mean and, n even, for the middle.
    plain: T,
    scratch: Vec<Complex<T>>,
}

impl<T: Real> Axis<T> {
    fn new(len: usize, planner: &mut FftPlanner<T>) -> Self {
        assert!(len > 0, "a transform of length 0");
        let fft = planner.plan_fft_forward(len);
        let inverse_fft = planner.plan_fft_inverse(len);
        let n = len as f64;
        let factors = (1..len.div_ceil(2))
            .map(|q| {
                let (sin, cos) = (FRAC_PI_2 * q as f64 / n).sin_cos();
                let scale = (0.5 / n).sqrt();
                Complex::new(T::nearest(cos * scale), T::nearest(-sin * scale))
            })
            .collect();
        let room = fft.get_inplace_scratch_len().max(inverse_fft.get_inplace_scratch_len());
        Axis {
            len,
            factors,
            plain: T::nearest(n.recip().sqrt()),
            scratch: vec![zero(); room],
            fft,
            inverse_fft,
        }
    }

    /// From shuffled samples to coefficients, for each line in `lines`.
    fn forward(&mut self, lines: &mut [Complex<T>]) {
        self.fft.process_with_scratch(lines, &mut self.scratch);
        for line in lines.chunks_exact_mut(self.len) {
            self.rotate(line, |t, low, high| {
                let (p, m) = (t * low, t.conj() * high);
                (p + m, times_i(p - m))
            });
        }
    }

    /// From coefficients to shuffled samples, for each line in `lines`.
    fn inverse(&mut self, lines: &mut [Complex<T>]) {
        for line in lines.chunks_exact_mut(self.len) {
            self.rotate(line, |t, low, high| {
                let high = times_i(high);
                (t.conj() * (low - high), t * (low + high))
            });
        }
        self.inverse_fft.process_with_scratch(lines, &mut self.scratch);
    }

    /// Replaces the entries q and n - q of a line by `turn(factor q, entry q, entry n - q)`.
    #[inline(always)]
    fn rotate(
        &self,
        line: &mut [Complex<T>],
        turn: impl Fn(Complex<T>, Complex<T>, Complex<T>) -> (Complex<T>, Complex<T>),
    ) {
        let Some((mean, rest)) = line.split_first_mut() else { return };
        *mean = mean.scale(self.plain);
        let (low, high) = rest.split_at_mut(self.factors.len());
        let high = match self.len % 2 {
            0 => {
                // n = 2, 4, ..: the entry n/2 is its own partner.
                let Some((middle, high)) = high.split_first_mut() else { return };
                *middle = middle.scale(self.plain);
                high
            }
            _ => high,
        };
        for ((&t, low), high) in self.factors.iter().zip(low).zip(high.iter_mut().rev()) {
            (*low, *high) = turn(t, *low, *high);
        }
    }
}

fn zero<T: Real>() -> Complex<T> {
    Complex::new(T::zero(), T::zero())
}

fn times_i<T: Real>(z: Complex<T>) -> Complex<T> {
    Complex::new(-z.im, z.re)
}

/// Splits two rows of `cols` values; a lone last row is paired with itself.
fn pair_of<T>(rows: &[T], cols: usize) -> (&[T], &[T]) {
    let (first, second) = rows.split_at(cols);
    (first, if second.is_empty() { first } else { second })
}

/// Where Makhoul's order puts sample `j` of `n`.
fn shuffled(j: usize, n: usize) -> usize {
    if j.is_multiple_of(2) { j / 2 } else { n - 1 - j / 2 }
}

fn load<T: Real>(first: &[T], second: &[T], line: &mut [Complex<T>]) {
    for (slot, (&a, &b)) in line.iter_mut().zip(first.iter().zip(second)) {
        *slot = Complex::new(a, b);
    }
}

fn store<T: Real>(line: &[Complex<T>], out: &mut [T], part: impl Fn(&Complex<T>) -> T) {
    for (value, z) in out.iter_mut().zip(line) {
        *value = part(z);
    }
}

fn load_shuffled<T: Real>(first: &[T], second: &[T], line: &mut [Complex<T>]) {
    let (front, back) = line.split_at_mut(first.len().div_ceil(2));
    let ((first, first_rest), (second, second_rest)) = (first.as_chunks::<2>(), second.as_chunks::<2>());
    if let (Some(last), [a], [b]) = (front.last_mut(), first_rest, second_rest) {
        *last = Complex::new(*a, *b);
    }
    let slots = front.iter_mut().zip(back.iter_mut().rev());
    for ((even, odd), (a, b)) in slots.zip(first.iter().zip(second)) {
        *even = Complex::new(a[0], b[0]);
        *odd = Complex::new(a[1], b[1]);
    }
}

fn store_unshuffled<T: Real>(line: &[Complex<T>], out: &mut [T], part: impl Fn(&Complex<T>) -> T) {
    let (front, back) = line.split_at(line.len().div_ceil(2));
    let (out, out_rest) = out.as_chunks_mut::<2>();
    for (pair, (even, odd)) in out.iter_mut().zip(front.iter().zip(back.iter().rev())) {
        *pair = [part(even), part(odd)];
    }
    if let ([value], Some(last)) = (out_rest, front.last()) {
        *value = part(last);
    }
}

/// Loads each two neighbouring columns as one complex line of `rows` entries, row r to `slot(r, rows)`;
/// a lone last column is paired with itself.
#[inline(always)]
fn load_columns<T: Real>(
    tile: &[T],
    cols: usize,
    lines: &mut [Complex<T>],
    rows: usize,
    slot: impl Fn(usize, usize) -> usize,
) {
    for (r, row) in tile.chunks_exact(cols).enumerate() {
        let slot = slot(r, rows);
        let (pairs, lone) = row.as_chunks::<2>();
        let mut lines = lines.chunks_exact_mut(rows);
        for ([a, b], line) in pairs.iter().zip(&mut lines) {
            line[slot] = Complex::new(*a, *b);
        }
        if let ([a], Some(line)) = (lone, lines.next()) {
            line[slot] = Complex::new(*a, *a);
        }
    }
}

/// The reverse of [`load_columns`].
#[inline(always)]
fn store_columns<T: Real>(
    lines: &[Complex<T>],
    rows: usize,
    tile: &mut [T],
    cols: usize,
    slot: impl Fn(usize, usize) -> usize,
) {
    for (r, row) in tile.chunks_exact_mut(cols).enumerate() {
        let slot = slot(r, rows);
        let (pairs, lone) = row.as_chunks_mut::<2>();
        let mut lines = lines.chunks_exact(rows);
        for (pair, line) in pairs.iter_mut().zip(&mut lines) {
            *pair = [line[slot].re, line[slot].im];
        }
        if let ([a], Some(line)) = (lone, lines.next()) {
            *a = line[slot].re;
        }
    }
}
