//! The k largest magnitudes of a slice: the lossy step of DeMo.
//!
//! Selection, not sorting. The order is total (magnitude, then lowest index), so equal input gives equal output
//! on every machine. Two ways to the same choice:
//!
//! * [`select`]: quickselect moves the k largest to the front in time proportional to the slice, then only their
//!   k indices are sorted. For any slice.
//! * [`Selector`]: a threshold is guessed from that of the last tile, the values beyond it are counted in vectors,
//!   and the guess is mended by regula falsi until only a few values lie between one that keeps too many and one
//!   that keeps too few; those few are ranked. Neighbouring tiles are alike, so that is two or three counts of a
//!   tile in the first-level cache, a thirtieth of a nanosecond a value each.

use std::cmp::Reverse;

use crate::lanes::Lanes;

/// Writes to `chosen` the indices of the `k` values of largest magnitude, in ascending order.
///
/// - Ties go to the lowest index; -0 and +0 tie.
/// - An infinity is the largest number. A NaN is chosen only when there are no numbers left.
/// - `k` of at least `values.len()` chooses everything, 0 nothing.
///
/// `chosen` is cleared first. `scratch` is working memory that the caller keeps between calls; what it
/// holds before and after has no meaning.
///
/// # Panics
/// If `values` has more than `u32::MAX` entries.
pub fn select(values: &[f32], k: usize, scratch: &mut Vec<(f32, u32)>, chosen: &mut Vec<u32>) {
    assert!(values.len() <= u32::MAX as usize, "indices are 32 bits");
    chosen.clear();
    if k == 0 {
        return;
    }
    if k >= values.len() {
        chosen.extend(0..values.len() as u32);
        return;
    }
    scratch.clear();
    // Every number's magnitude is at least 0, so -1 puts a NaN behind all of them.
    scratch.extend(values.iter().zip(0u32..).map(|(v, i)| (if v.is_nan() { -1.0 } else { v.abs() }, i)));
    scratch.select_nth_unstable_by(k - 1, |a, b| rank(*b).cmp(&rank(*a)));
    chosen.extend(scratch.iter().take(k).map(|&(_, index)| index));
    chosen.sort_unstable();
}

/// One integer that orders like (magnitude, lower index first): the bits of non-negative floats order
/// like the floats, and the sign bit makes -1 negative. One comparison without branches.
fn rank((magnitude, index): (f32, u32)) -> i64 {
    (i64::from(magnitude.to_bits() as i32) << 32) | i64::from(!index)
}

/// Values between two thresholds that are few enough to rank.
const FEW: usize = 24;

/// Chooses the k largest of one tile after another; keeps its memory and its last threshold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    chosen: Vec<u16>,
    /// The last threshold.
    guess: f32,
    /// Magnitude and index of what lies between the thresholds.
    between: Vec<(f32, u32)>,
    indices: Vec<u32>,
}

impl Selector {
    /// The choice: indices, ascending.
    pub(crate) fn chosen(&self) -> &[u16] {
        &self.chosen
    }

    /// As [`select`], for a slice of at most 2^16 values.
    pub(crate) fn select_any(&mut self, values: &[f32], k: usize) {
        select(values, k, &mut self.between, &mut self.indices);
        self.chosen.clear();
        self.chosen.extend(self.indices.iter().map(|&index| index as u16));
    }

    /// As [`select`], for a slice of at most 2^16 values, none of them a NaN, whose length is a multiple of the
    /// vectors'.
    #[inline(always)]
    pub(crate) fn select<S: Lanes>(&mut self, simd: S, values: &[f32], k: usize) {
        self.chosen.clear();
        if k >= values.len() {
            self.chosen.extend((0..values.len()).map(|index| index as u16));
        }
        if k == 0 || k >= values.len() {
            return;
        }
        let (vectors, _) = S::as_simd_f32s(values);
        let (low, high) = self.bracket(simd, vectors, k);
        self.guess = low.value;
        // All that may be chosen, in order; and apart from them those between the thresholds. Both are written
        // before it is known whether they count: a branch that nobody can predict costs more than that.
        self.chosen.resize(low.reached, 0);
        self.between.resize(low.reached - high.reached + 1, (0.0, 0));
        let threshold = simd.splat_f32s(low.value);
        let (mut found, mut unsure) = (0, 0);
        let some = 64 / S::F32_LANES;
        for (at, vectors) in vectors.chunks(some).enumerate() {
            let mut bits = 0u64;
            for (at, vector) in vectors.iter().enumerate() {
                let reach = simd.bits(simd.greater_than_or_equal_f32s(simd.abs_f32s(*vector), threshold));
                bits |= u64::from(reach) << (at * S::F32_LANES);
            }
            while bits != 0 {
                let index = at * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                self.chosen[found] = index as u16;
                found += 1;
                let magnitude = values[index].abs();
                self.between[unsure] = (magnitude, index as u32);
                unsure += usize::from(magnitude < high.value);
            }
        }
        self.between.truncate(unsure);
        let wanted = k.saturating_sub(found - unsure);
        if wanted >= unsure {
            return;
        }
        let (_, &mut first_out, _) =
            self.between.select_nth_unstable_by_key(wanted, |&value| Reverse(rank(value)));
        let (out, mut kept) = (rank(first_out), 0);
        for at in 0..found {
            let index = self.chosen[at];
            self.chosen[kept] = index;
            kept += usize::from(rank((values[usize::from(index)].abs(), u32::from(index))) > out);
        }
        self.chosen.truncate(kept);
    }

    /// Two thresholds: at least `k` values reach the lower, fewer (or just as many) the higher, and between them
    /// are few, or equal ones only.
    #[inline(always)]
    fn bracket<S: Lanes>(&self, simd: S, vectors: &[S::f32s], k: usize) -> (Threshold, Threshold) {
        let mut low = Threshold { value: 0.0, reached: vectors.len() * S::F32_LANES };
        let mut high = Threshold { value: f32::INFINITY, reached: 0 };
        let mut guess = self.guess;
        let mut turn = 0u32;
        while low.reached > k && low.reached - high.reached > FEW {
            // A bound that is not known yet is looked for by steps that grow; then by proportion, and every third
            // time by halving the representable numbers between, so that it ends after some 90 at the latest.
            turn += 1;
            let next = |guess: f32| f32::from_bits(guess.to_bits() + 1);
            let half = f32::from_bits(low.value.to_bits().midpoint(high.value.to_bits()));
            let value = match (low.value > 0.0, high.value < f32::INFINITY) {
                _ if turn > 8 && turn.is_multiple_of(3) => half,
                (true, true) => {
                    let share = (low.reached - k) as f32 / (low.reached - high.reached) as f32;
                    low.value + (high.value - low.value) * share
                }
                (true, false) if turn > 1 => low.value * (1.0 + 0.04 * turn as f32),
                (false, true) if turn > 1 => high.value / (1.0 + 0.04 * turn as f32),
                _ => guess,
            };
            if low.value >= high.value || next(low.value) >= high.value {
                break;
            }
            guess = if value > low.value && value < high.value { value } else { half };
            let reached = count(simd, vectors, guess);
            let threshold = Threshold { value: guess, reached };
            if reached >= k {
                low = threshold;
            } else {
                high = threshold;
            }
        }
        (low, high)
    }
}

/// A magnitude, and how many values reach it.
#[derive(Clone, Copy)]
struct Threshold {
    value: f32,
    reached: usize,
}

/// How many magnitudes are at least `threshold`.
#[inline(always)]
fn count<S: Lanes>(simd: S, vectors: &[S::f32s], threshold: f32) -> usize {
    let (one, zero) = (simd.splat_u32s(1), simd.splat_u32s(0));
    let threshold = simd.splat_f32s(threshold);
    let mut sums = [zero; 2];
    let (pairs, rest) = vectors.as_chunks::<2>();
    for pair in pairs {
        for (sum, vector) in sums.iter_mut().zip(pair) {
            let reaches = simd.greater_than_or_equal_f32s(simd.abs_f32s(*vector), threshold);
            *sum = simd.add_u32s(*sum, simd.select_u32s(reaches, one, zero));
        }
    }
    for vector in rest {
        let reaches = simd.greater_than_or_equal_f32s(simd.abs_f32s(*vector), threshold);
        sums[0] = simd.add_u32s(sums[0], simd.select_u32s(reaches, one, zero));
    }
    let sum = simd.add_u32s(sums[0], sums[1]);
    let lanes: &[u32] = pulp::bytemuck::cast_slice(std::slice::from_ref(&sum));
    lanes.iter().sum::<u32>() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::Path;

    fn chosen(values: &[f32], k: usize) -> Vec<u32> {
        // Dirty working memory must not matter.
        let (mut scratch, mut chosen) = (vec![(9.0, 9); 3], vec![7; 5]);
        select(values, k, &mut scratch, &mut chosen);
        chosen
    }

    /// The same choice by sorting everything, with the rules written out one by one.
    fn by_sorting(values: &[f32], k: usize) -> Vec<u32> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| {
            let (x, y) = (values[a], values[b]);
            match (x.is_nan(), y.is_nan()) {
                (false, false) => y.abs().partial_cmp(&x.abs()).unwrap().then(a.cmp(&b)),
                (x, y) => x.cmp(&y).then(a.cmp(&b)),
            }
        });
        let mut first: Vec<u32> = order.into_iter().take(k).map(|i| i as u32).collect();
        first.sort_unstable();
        first
    }

    #[test]
    fn magnitudes_decide_and_indices_ascend() {
        assert_eq!(chosen(&[0.5, -4.0, 1.0, 3.0, -0.1], 2), [1, 3]);
        assert_eq!(chosen(&[0.5, -4.0, 1.0, 3.0, -0.1], 3), [1, 2, 3]);
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(chosen(&[0.0; 64], 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(chosen(&[0.0, -0.0, 0.0, 1.0], 2), [0, 3]);
        assert_eq!(chosen(&[1.0, 2.0, -2.0, 2.0, 1.0], 2), [1, 2]);
    }

    #[test]
    fn k_may_be_nothing_or_more_than_there_is() {
        assert_eq!(chosen(&[1.0, 2.0], 0), [0u32; 0]);
        assert_eq!(chosen(&[1.0, f32::NAN], 2), [0, 1]);
        assert_eq!(chosen(&[1.0, 2.0], usize::MAX), [0, 1]);
        assert_eq!(chosen(&[], 3), [0u32; 0]);
    }

    #[test]
    fn a_nan_comes_after_every_number() {
        let values = [f32::NAN, 0.0, f32::NEG_INFINITY, -f32::NAN, 1e-40];
        assert_eq!(chosen(&values, 1), [2]);
        assert_eq!(chosen(&values, 3), [1, 2, 4]);
        assert_eq!(chosen(&values, 4), [0, 1, 2, 4]);
    }

    /// The choice of every path of this machine, after tiles of other sizes.
    fn by_threshold(tiles: &[Vec<f32>], k: usize) -> Vec<Vec<Vec<u32>>> {
        fn all<S: Lanes>(simd: S, tiles: &[Vec<f32>], k: usize) -> Vec<Vec<u32>> {
            let mut selector = Selector::default();
            let choose = |values: &Vec<f32>| {
                let whole = values.len() / S::F32_LANES * S::F32_LANES;
                selector.select(simd, &values[..whole], k);
                selector.chosen().iter().map(|&index| u32::from(index)).collect()
            };
            tiles.iter().map(choose).collect()
        }
        let of = |path| match path {
            Path::Portable => all(pulp::Scalar128b, tiles, k),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2(simd) => all(simd, tiles, k),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512(simd) => all(simd, tiles, k),
            #[cfg(target_arch = "aarch64")]
            Path::Neon(simd) => all(simd, tiles, k),
        };
        Path::all().into_iter().map(of).collect()
    }

    proptest! {
        #[test]
        fn thresholds_choose_as_quickselect_does(
            seeds in prop::collection::vec((any::<u64>(), 0u32..6, -30i32..30), 1..4), k in 0usize..600,
        ) {
            let tile = |(seed, kind, scale): &(u64, u32, i32)| -> Vec<f32> {
                let mut state = *seed | 1;
                let mut next = || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
                };
                let value = |x: f32, i: usize| match kind {
                    0 => x,
                    1 => x.powi(9),
                    2 => (x * 3.0).round(),
                    3 => if i == 77 { f32::MAX } else { x * 1e-40 },
                    4 => if x > 0.9 { x } else { 0.0 },
                    _ => 0.25,
                };
                (0..512).map(|i| value(next(), i) * 2f32.powi(*scale)).collect()
            };
            let tiles: Vec<_> = seeds.iter().map(tile).collect();
            let expected: Vec<_> = tiles.iter().map(|values| chosen(values, k)).collect();
            for choice in by_threshold(&tiles, k) {
                prop_assert_eq!(&choice, &expected);
            }
        }

        #[test]
        fn any_bit_pattern_is_chosen_as_by_sorting(bits in prop::collection::vec(any::<u32>(), 0..300), k in 0usize..320) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            prop_assert_eq!(chosen(&values, k), by_sorting(&values, k));
        }

        #[test]
        fn many_ties_are_chosen_as_by_sorting(values in prop::collection::vec(-3i8..=3, 0..300), k in 0usize..320) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            prop_assert_eq!(chosen(&values, k), by_sorting(&values, k));
        }
    }
}
