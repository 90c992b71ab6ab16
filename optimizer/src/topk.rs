//! The k largest magnitudes of a slice: the lossy step of DeMo.
//!
//! Selection, not sorting: quickselect moves the k largest to the front in time proportional to the
//! slice, then only their k indices are sorted. The order is total (magnitude, then lowest index), so
//! equal input gives equal output on every machine.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
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
