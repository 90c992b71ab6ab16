//! One tile after another: the passes of [`super::Kernels`], in whatever vectors the caller has.

use super::{Part, Pass};
use crate::coefficients::UNIT;
use crate::dct::TileDct;
use crate::dct::lee::{self, Factors};
use crate::lanes::Lanes;
use crate::layout::{Layout, Tile};
use crate::sparse::{Entry, MAX_LEVEL, SparseDelta, Step};

/// The least coefficient that is sent, in steps: below it, sending costs more than it tells. (Between 0.5,
/// plain rounding, and what makes a step the centroid of what is rounded to it, for normal and for
/// heavier tails.)
const DEAD_ZONE: f64 = 0.62;

/// The smallest step, as a share of the mean magnitude: 15 of them are three standard deviations of
/// normally distributed coefficients.
const FINEST: f64 = 0.25;

/// Tiles that are read from memory together: a row of them is half a page, and full ones of them are an eighth of a
/// megabyte, which the second-level cache holds.
pub(super) const SIDE_BY_SIDE: usize = 8;

/// Whether the fast transform takes it, in vectors of so many lanes.
pub(super) fn is_fast(tile: &Tile, lanes: usize) -> bool {
    let fits = |n: usize| lee::has(n) && n.is_multiple_of(lanes);
    fits(tile.rows) && fits(tile.cols)
}

/// The tiles from `first` on, up to `end`, that lie side by side, so that their rows are one run of memory in
/// parameter order; at most [`SIDE_BY_SIDE`], none larger than the first. One vector can follow another.
fn neighbours(tiles: &[Tile], first: usize, end: usize) -> &[Tile] {
    let tiles = &tiles[first..end.min(first + SIDE_BY_SIDE)];
    let widest = tiles[0].cols;
    let touch = |pair: &[Tile]| {
        let [a, b] = pair else { return false };
        a.rows == b.rows && b.cols <= widest && a.start_of(0) + a.cols == b.start_of(0)
    };
    let more = tiles.windows(2).take_while(|pair| touch(pair)).count();
    &tiles[..=more]
}

/// R += DCT(before - after), and R's largest out of it, for the tiles of `part`. `residual` holds its scalars.
#[inline(always)]
pub(super) fn advance<S: Lanes>(
    simd: S,
    layout: &Layout,
    part: &mut Part,
    residual: &mut [f32],
    pass: Pass<'_>,
) {
    let work = &mut part.work;
    work.delta.clear();
    work.squares.clear();
    work.bad = None;
    let mut next = part.tiles.start;
    while next < part.tiles.end {
        let tiles = neighbours(layout.tiles(), next, part.tiles.end);
        let area = tiles[0].area();
        let staged = work.staged.get(tiles.len() * area);
        if let Some((before, after)) = pass.moved {
            // Row by row, because memory is read fastest in order.
            for row in 0..tiles[0].rows {
                for (tile, staged) in tiles.iter().zip(staged.chunks_mut(area)) {
                    let range = tile.start_of(row)..tile.start_of(row) + tile.cols;
                    let pairs = before[range.clone()].iter().zip(&after[range]);
                    let staged = &mut staged[row * tile.cols..][..tile.cols];
                    staged.iter_mut().zip(pairs).for_each(|(moved, (b, a))| *moved = b - a);
                }
            }
        }
        for ((index, tile), staged) in (next..).zip(tiles).zip(staged.chunks_mut(area)) {
            let begin = tile.offset - part.scalars.start;
            let block = &mut residual[begin..begin + tile.area()];
            if pass.moved.is_some() {
                let moved = &mut staged[..tile.area()];
                let squares = sum_of_squares(simd, moved);
                if !squares.is_finite() {
                    work.bad = work.bad.or(Some(index));
                    continue;
                }
                work.squares.push(squares);
                if is_fast(tile, S::F32_LANES) {
                    both_axes::<S, false>(simd, &work.factors, tile, moved, work.turned.get(area));
                    let scale = scale(tile);
                    block.iter_mut().zip(&*moved).for_each(|(r, moved)| *r += scale * moved);
                } else {
                    transform(&mut work.plans, tile, |plan| plan.forward(moved));
                    block.iter_mut().zip(&*moved).for_each(|(r, moved)| *r += moved);
                }
            }
            if let Some((k, max_exponent)) = pass.extract {
                let share = layout.share(index, tile, k);
                if share == 0 {
                    continue;
                }
                if is_fast(tile, S::F32_LANES) {
                    work.selector.select(simd, block, share);
                } else {
                    work.selector.select_any(block, share);
                }
                quantise(index, block, work.selector.chosen(), max_exponent, &mut work.delta);
            }
        }
        next += tiles.len();
    }
}

/// The sum of squares; what overflows when squared makes it infinite.
#[inline(always)]
fn sum_of_squares<S: Lanes>(simd: S, values: &[f32]) -> f64 {
    let (vectors, rest) = S::as_simd_f32s(values);
    let (fours, tail) = vectors.as_chunks::<4>();
    let mut sums = [simd.splat_f32s(0.0); 4];
    for four in fours {
        for (sum, vector) in sums.iter_mut().zip(four) {
            *sum = simd.fused(*vector, *vector, *sum);
        }
    }
    for vector in tail {
        sums[0] = simd.fused(*vector, *vector, sums[0]);
    }
    let sum = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
    f64::from(simd.reduce_sum_f32s(sum) + rest.iter().map(|x| x * x).sum::<f32>())
}

/// Transforms `values`, a tile, along columns and then along rows, forwards or (`INVERSE`) back; without
/// [`scale`]. `turned` is room for it on the way.
#[inline(always)]
fn both_axes<S: Lanes, const INVERSE: bool>(
    simd: S,
    factors: &Factors,
    tile: &Tile,
    values: &mut [f32],
    turned: &mut [f32],
) {
    let (high, wide) = (tile.rows / S::F32_LANES, tile.cols / S::F32_LANES);
    let (values, _) = S::as_mut_simd_f32s(values);
    let (turned, _) = S::as_mut_simd_f32s(turned);
    let mut lines = Lines([simd.splat_f32s(0.0); lee::LONGEST]);
    along_columns::<S, INVERSE>(simd, factors, &mut lines.0[..tile.rows], values, turned, wide);
    along_columns::<S, INVERSE>(simd, factors, &mut lines.0[..tile.cols], turned, values, high);
}

/// Lines in work, where a vector does not straddle two cache lines.
#[repr(align(64))]
struct Lines<V>([V; lee::LONGEST]);

/// Transforms the columns of `from`, `wide` vectors side by side, and writes them to `to` as rows.
#[inline(always)]
fn along_columns<S: Lanes, const INVERSE: bool>(
    simd: S,
    factors: &Factors,
    lines: &mut [S::f32s],
    from: &[S::f32s],
    to: &mut [S::f32s],
    wide: usize,
) {
    let lanes = S::F32_LANES;
    let high = lines.len() / lanes;
    for left in 0..wide {
        for (line, from) in lines.iter_mut().zip(from[left..].iter().step_by(wide)) {
            *line = *from;
        }
        if INVERSE {
            lee::inverse(simd, factors, lines)
        } else {
            lee::forward(simd, factors, lines)
        }
        for (top, square) in lines.chunks_exact_mut(lanes).enumerate() {
            simd.transpose(square);
            for (i, line) in square.iter().enumerate() {
                to[(left * lanes + i) * high + top] = *line;
            }
        }
    }
}

/// What makes the fast transform over both axes orthonormal.
fn scale(tile: &Tile) -> f32 {
    (4.0 / tile.area() as f64).sqrt() as f32
}

fn transform(
    plans: &mut [((usize, usize), TileDct<f32>)],
    tile: &Tile,
    apply: impl FnOnce(&mut TileDct<f32>),
) {
    let plan = plans.iter_mut().find(|(shape, _)| *shape == (tile.rows, tile.cols));
    debug_assert!(plan.is_some(), "no transform planned for a tile of {} x {}", tile.rows, tile.cols);
    if let Some((_, plan)) = plan {
        apply(plan);
    }
}

/// Takes the `chosen` coefficients out of `block`, each rounded to a whole number of the tile's step, at most
/// [`MAX_LEVEL`] of them and at most `2^max_exponent` units.
///
/// The step is the mean magnitude of the chosen, which is best where few are chosen and they are alike; or, if
/// that is smaller, what makes the least of them [`DEAD_ZONE`] of a step, which is best where many are chosen or
/// some are far larger than others; but no less than [`FINEST`] of the mean, so that levels reach the largest. A
/// coefficient that rounds to 0 stays.
#[inline(always)]
fn quantise(index: usize, block: &mut [f32], chosen: &[u16], max_exponent: u8, delta: &mut SparseDelta) {
    let cap = 1i64 << max_exponent.min(30);
    let (mut sum, mut least) = (0.0f32, f32::INFINITY);
    for &at in chosen {
        let magnitude = block[usize::from(at)].abs();
        sum += magnitude;
        least = least.min(magnitude);
    }
    let mean = f64::from(sum) / chosen.len().max(1) as f64;
    let step = mean.min((f64::from(least) / DEAD_ZONE).max(FINEST * mean)) / f64::from(UNIT);
    if !step.is_finite() {
        return;
    }
    let step = Step::nearest(step.min(cap as f64));
    let most = (cap / i64::from(step.units())).min(i64::from(MAX_LEVEL)) as f32;
    let value = step.units() as f32 * UNIT;
    let steps = value.recip();
    delta.push_each(
        index as u32,
        step,
        #[inline(always)]
        move |entries| {
            for &at in chosen {
                let coefficient = &mut block[usize::from(at)];
                // Rounded half away from zero, in what vectors have: a cast drops the fraction.
                let level = (coefficient.abs() * steps + 0.5).min(most) as i32 as f32;
                let level = level.copysign(*coefficient);
                *coefficient -= level * value;
                if level != 0.0 {
                    entries.push(Entry { position: at, level: level as i8 });
                }
            }
        },
    );
}

/// Writes inverseDCT(C - R) for the tiles of `part` that `only` flags. `out` holds its scalars.
#[inline(always)]
pub(super) fn model<S: Lanes>(
    simd: S,
    layout: &Layout,
    part: &mut Part,
    shared: &[i32],
    residual: Option<&[f32]>,
    only: Option<&[bool]>,
    out: &mut [f32],
) {
    let work = &mut part.work;
    let mut next = part.tiles.start;
    let wanted = |index: usize| only.is_none_or(|flags| flags.get(index).copied().unwrap_or(true));
    while next < part.tiles.end {
        let tiles = neighbours(layout.tiles(), next, part.tiles.end);
        let area = tiles[0].area();
        let staged = work.staged.get(tiles.len() * area);
        for ((index, tile), staged) in (next..).zip(tiles).zip(staged.chunks_mut(area)) {
            if !wanted(index) {
                continue;
            }
            let values = &mut staged[..tile.area()];
            let c = &shared[tile.range()];
            let scale = if is_fast(tile, S::F32_LANES) { scale(tile) } else { 1.0 };
            let unit = UNIT * scale;
            match residual {
                Some(residual) => {
                    let pairs = c.iter().zip(&residual[tile.range()]);
                    values.iter_mut().zip(pairs).for_each(|(q, (&c, r))| *q = c as f32 * unit - r * scale);
                }
                None => values.iter_mut().zip(c).for_each(|(q, &c)| *q = c as f32 * unit),
            }
            if is_fast(tile, S::F32_LANES) {
                both_axes::<S, true>(simd, &work.factors, tile, values, work.turned.get(area));
            } else {
                transform(&mut work.plans, tile, |plan| plan.inverse(values));
            }
        }
        for row in 0..tiles[0].rows {
            for ((index, tile), staged) in (next..).zip(tiles).zip(staged.chunks(area)) {
                if wanted(index) {
                    let start = tile.start_of(row) - part.scalars.start;
                    out[start..start + tile.cols].copy_from_slice(&staged[row * tile.cols..][..tile.cols]);
                }
            }
        }
        next += tiles.len();
    }
}
