//! The shared model: integer DCT coefficients, and the fold that changes them.
//!
//! ```text
//! C = C0 - sum over rounds r of F(S_r)            S_r: the deltas of round r, one an author
//! F(S) = round_half_away_from_zero(A / n)         A: sum of the authors' values, n = |S|
//! ```
//!
//! Integers add in any order to the same bits, on any hardware. `F` of one round is a function of a
//! *set*, so when a late delta changes the set, the old `F` is taken out and the new one put in, and
//! nothing is left of the order in which the deltas came. Additions wrap, because wrapping addition
//! commutes and saturation does not; honest values stay far from the edge.

use std::sync::Arc;

use crate::layout::Layout;
use crate::sparse::SparseDelta;

/// The value of one integer step of a coefficient: 2^-20 of a model parameter's unit.
pub const UNIT: f32 = 1.0 / (1 << 20) as f32;

/// A coefficient beyond this magnitude (2^10 parameter units) is a fault, never training.
pub const FAULT: i32 = 1 << 30;

/// Whether a fold goes in or comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `C -= F(S)`: the round takes effect.
    In,
    /// `C += F(S)`: its effect is taken back exactly.
    Out,
}

/// The shared model C, in coefficient order. Cloning is cheap; a clone keeps its values while the
/// original goes on (copy on write).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coefficients {
    values: Arc<Vec<i32>>,
}

impl Coefficients {
    /// Takes over `values`, in coefficient order, in units of 2^-20.
    pub fn new(values: Vec<i32>) -> Self {
        Self { values: Arc::new(values) }
    }

    /// The integers, in coefficient order.
    pub fn values(&self) -> &[i32] {
        &self.values
    }

    /// The integers, to be changed: a copy of them if there are clones.
    pub(crate) fn values_mut(&mut self) -> &mut Vec<i32> {
        Arc::make_mut(&mut self.values)
    }

    /// Folds the set `deltas` (one an author) in or out. The order of `deltas` does not matter.
    ///
    /// Marks in `touched`, one flag a tile, the tiles that have changed.
    pub fn fold(
        &mut self,
        layout: &Layout,
        deltas: &[&SparseDelta],
        direction: Direction,
        touched: &mut [bool],
    ) {
        let n = deltas.len() as i64;
        if n == 0 {
            return;
        }
        let values = self.values_mut();
        let mut cursors: Vec<_> = deltas.iter().map(|delta| delta.tiles().peekable()).collect();
        let mut sums = vec![0i64; layout.side() * layout.side()];
        let mut named: Vec<u16> = Vec::new();
        let mean = Mean::of(n as u64);
        for (index, tile) in layout.tiles().iter().enumerate() {
            for cursor in &mut cursors {
                while let Some((_, step, entries)) = cursor.next_if(|(at, ..)| *at == index) {
                    let step = i64::from(step.units());
                    for entry in entries {
                        if let Some(sum) = sums[..tile.area()].get_mut(usize::from(entry.position)) {
                            *sum += step * i64::from(entry.level);
                            named.push(entry.position);
                        }
                    }
                }
            }
            if named.is_empty() {
                continue;
            }
            if let Some(flag) = touched.get_mut(index) {
                *flag = true;
            }
            let block = &mut values[tile.range()];
            for position in named.drain(..).map(usize::from) {
                // A position named by several authors comes up several times; after the first its sum
                // is zero again, and so is its fold.
                let sum = std::mem::take(&mut sums[position]);
                let change = mean.magnitude(sum.unsigned_abs()) as i32;
                let change = if sum < 0 { change.wrapping_neg() } else { change };
                block[position] = match direction {
                    Direction::In => block[position].wrapping_sub(change),
                    Direction::Out => block[position].wrapping_add(change),
                };
            }
        }
    }

    /// The first coefficient that is not the same in `other`, if any.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        self.values.iter().zip(other.values()).position(|(ours, theirs)| ours != theirs)
    }

    /// The first coefficient whose magnitude exceeds [`FAULT`], if any.
    pub fn first_fault(&self) -> Option<usize> {
        self.values.iter().position(|value| value.unsigned_abs() > FAULT.unsigned_abs())
    }
}

/// Division by the number of authors, rounded to nearest, halves away from zero.
#[derive(Clone, Copy)]
struct Mean {
    n: u64,
    /// 2^64 / 2n, rounded up: multiplying by it and dropping 64 bits divides what is below 2^32 exactly (Lemire,
    /// Kaser and Kurz, "Faster remainder by direct computation", 2019), in a fraction of a division's time.
    reciprocal: u64,
}

impl Mean {
    /// `n` is at least 1 and below 2^31.
    fn of(n: u64) -> Self {
        Self { n, reciprocal: u64::MAX / (2 * n) + 1 }
    }

    /// |a| / n, rounded: (2 |a| + n) / 2n, rounded down.
    fn magnitude(self, a: u64) -> u64 {
        let numerator = 2 * a + self.n;
        if numerator < 1 << 32 {
            ((u128::from(numerator) * u128::from(self.reciprocal)) >> 64) as u64
        } else {
            numerator / (2 * self.n)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::{Entry, Step};
    use proptest::prelude::*;

    fn layout() -> Layout {
        Layout::new([("m", vec![20, 20]), ("v", vec![20])], 16).unwrap()
    }

    fn arbitrary_delta() -> impl Strategy<Value = SparseDelta> {
        let tiles = layout().tiles().iter().map(|tile| tile.area()).collect::<Vec<_>>();
        let each: Vec<_> = tiles
            .into_iter()
            .map(|area| (0u8..120, proptest::collection::btree_map(0..area as u16, -15i8..=15, 0..6)))
            .collect();
        each.prop_map(|tiles| {
            let mut delta = SparseDelta::default();
            for (tile, (code, entries)) in tiles.into_iter().enumerate() {
                let entries = entries.into_iter().filter(|(_, level)| *level != 0);
                let entries = entries.map(|(position, level)| Entry { position, level });
                delta.push(tile as u32, Step::from_code(code).unwrap(), entries);
            }
            delta
        })
    }

    /// The definition, dense and slow: what `fold` must equal.
    fn definition(layout: &Layout, deltas: &[&SparseDelta]) -> Vec<i64> {
        let mut sums = vec![0i64; layout.len()];
        for delta in deltas {
            delta.for_each(layout, |index, units| sums[index] += i64::from(units));
        }
        let n = deltas.len() as f64;
        sums.into_iter().map(|sum| (sum as f64 / n).round() as i64).collect()
    }

    #[test]
    fn halves_go_away_from_zero() {
        let cases =
            [(5, 2, 3), (4, 3, 1), (0, 7, 0), (7, 1, 7), (1, 3, 0), (2, 4, 1), (1 << 33, 3, 2863311531)];
        for (a, n, expected) in cases {
            assert_eq!(Mean::of(n).magnitude(a), expected, "{a} / {n}");
        }
    }

    #[test]
    fn clones_keep_their_values() {
        let layout = layout();
        let mut delta = SparseDelta::default();
        delta.push(0, Step::nearest(8.0), [Entry { position: 5, level: -1 }]);
        let before = Coefficients::new(vec![0; layout.len()]);
        let mut after = before.clone();
        let mut touched = vec![false; layout.tiles().len()];
        after.fold(&layout, &[&delta], Direction::In, &mut touched);
        assert_eq!((before.values()[5], after.values()[5]), (0, 8));
        assert_eq!(touched.iter().filter(|flag| **flag).count(), 1);
    }

    proptest! {
        #[test]
        fn means_are_rounded_exactly(a in 0u64..1 << 34, near in 0u64..5, n in 1u64..5000) {
            // Anywhere, and just around a half.
            for a in [a, a / n * n + (n / 2 + near).saturating_sub(2)] {
                prop_assert_eq!(Mean::of(n).magnitude(a), (2 * a + n) / (2 * n), "{} / {}", a, n);
            }
        }

        #[test]
        fn the_fold_is_its_definition_in_any_order(
            mut deltas in proptest::collection::vec(arbitrary_delta(), 1..6), rotate in 0usize..6,
        ) {
            let layout = layout();
            let mut touched = vec![false; layout.tiles().len()];
            let start: Vec<i32> = (0..layout.len() as i32).map(|i| i * 7919 - 100_000).collect();
            let mut c = Coefficients::new(start.clone());
            c.fold(&layout, &deltas.iter().collect::<Vec<_>>(), Direction::In, &mut touched);
            let expected = definition(&layout, &deltas.iter().collect::<Vec<_>>());
            for (index, (now, before)) in c.values().iter().zip(&start).enumerate() {
                prop_assert_eq!(i64::from(*now), i64::from(*before) - expected[index]);
            }
            let turn = rotate % deltas.len();
            deltas.rotate_left(turn);
            deltas.reverse();
            let mut other = Coefficients::new(start);
            other.fold(&layout, &deltas.iter().collect::<Vec<_>>(), Direction::In, &mut touched);
            prop_assert_eq!(&c, &other);
        }

        #[test]
        fn out_undoes_in(deltas in proptest::collection::vec(arbitrary_delta(), 1..5), near_edge in any::<bool>()) {
            let layout = layout();
            let mut touched = vec![false; layout.tiles().len()];
            let value = if near_edge { i32::MAX - 1 } else { 3 };
            let start = Coefficients::new(vec![value; layout.len()]);
            let mut c = start.clone();
            let set: Vec<_> = deltas.iter().collect();
            c.fold(&layout, &set, Direction::In, &mut touched);
            c.fold(&layout, &set, Direction::Out, &mut touched);
            prop_assert_eq!(c, start);
        }
    }
}
