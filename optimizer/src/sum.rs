//! The sum of a round's deltas: what its fold is computed from, kept so that one more delta costs one more
//! addition.
//!
//! ```text
//! F(S) = round_half_away_from_zero(A / n)         A: sum of the authors' values, n = |S|
//! ```
//!
//! A late delta changes A where it names something, and n everywhere. Whoever has A changes the fold in two passes
//! over memory; whoever has not must unpack the whole set again ([`Coefficients::fold`], which needs no memory of its
//! own). Both give the same bits.

use pulp::{Arch, NullaryFnOnce};

use crate::coefficients::{Coefficients, Direction};
use crate::layout::Layout;
use crate::sparse::SparseDelta;

/// A: one i32 a coefficient, 4 bytes a parameter. Sums wrap; those of a swarm never do, because its publishers times
/// its largest coefficient stay below 2^31.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    values: Vec<i32>,
    count: u32,
}

impl Sum {
    /// The sum of no deltas.
    pub fn zeros(layout: &Layout) -> Self {
        Self { values: vec![0; layout.len()], count: 0 }
    }

    /// The sum of no deltas, in the same memory.
    pub fn clear(&mut self) {
        self.values.fill(0);
        self.count = 0;
    }

    /// Adds a delta.
    pub fn add(&mut self, layout: &Layout, delta: &SparseDelta) {
        self.each(layout, delta, i32::wrapping_add);
        self.count += 1;
    }

    /// Takes a delta out that was added before.
    pub fn remove(&mut self, layout: &Layout, delta: &SparseDelta) {
        self.each(layout, delta, i32::wrapping_sub);
        self.count = self.count.saturating_sub(1);
    }

    fn each(&mut self, layout: &Layout, delta: &SparseDelta, change: impl Fn(i32, i32) -> i32) {
        for (tile, step, entries) in delta.tiles() {
            let Some(place) = layout.tiles().get(tile) else { continue };
            let Some(block) = self.values.get_mut(place.range()) else { continue };
            for entry in entries {
                if let Some(sum) = block.get_mut(usize::from(entry.position)) {
                    *sum = change(*sum, step.units() * i32::from(entry.level));
                }
            }
        }
    }
}

impl Coefficients {
    /// Folds the set whose sum this is in or out, as [`Coefficients::fold`] does with the set itself.
    ///
    /// Marks in `touched`, one flag a tile, the tiles in which the sum is not zero everywhere.
    pub fn fold_sum(&mut self, layout: &Layout, sum: &Sum, direction: Direction, touched: &mut [bool]) {
        if sum.count == 0 {
            return;
        }
        let sign = match direction {
            Direction::In => -1.0,
            Direction::Out => 1.0,
        };
        let share = sign / f64::from(sum.count);
        let all = Pass { layout, values: self.values_mut(), sums: &sum.values, share, touched };
        Arch::new().dispatch(all);
    }
}

/// One pass over C and a sum, in the machine's longest vectors.
struct Pass<'a> {
    layout: &'a Layout,
    values: &'a mut [i32],
    sums: &'a [i32],
    /// 1 / n with the sign of the change.
    share: f64,
    touched: &'a mut [bool],
}

impl NullaryFnOnce for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { layout, values, sums, share, touched } = self;
        for (index, tile) in layout.tiles().iter().enumerate() {
            let (Some(values), Some(sums)) = (values.get_mut(tile.range()), sums.get(tile.range())) else {
                continue;
            };
            let mut named = 0;
            for (value, &sum) in values.iter_mut().zip(sums) {
                *value = value.wrapping_add(rounded(sum, share));
                named |= sum;
            }
            if let (1.., Some(flag)) = (named.unsigned_abs(), touched.get_mut(index)) {
                *flag = true;
            }
        }
    }
}

/// `sum * share`, `share` being 1 / n or -1 / n, rounded to nearest, halves away from zero.
///
/// A quarter more of magnitude decides halves and nothing else, since the next multiple of 1 / n is further away
/// than that; and the error of the f64 product is far smaller still. Adding 1.5 * 2^52 rounds to a whole number and
/// leaves it, as two's complement, in the low bits. All of it is exact, so it is the same on every machine.
#[inline(always)]
fn rounded(sum: i32, share: f64) -> i32 {
    const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;
    let sum = f64::from(sum);
    let quotient = (sum + 0.25f64.copysign(sum)) * share;
    (quotient + WHOLE).to_bits() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::{Entry, Step};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn means_are_rounded_exactly(sum in any::<i32>(), near in -2i64..=2, n in 1i64..5000) {
            let half = i64::from(sum) / n * n + n / 2 + near;
            for sum in [i64::from(sum), half, -half] {
                let Ok(narrow) = i32::try_from(sum) else { continue };
                let expected = sum.signum() * ((2 * sum.abs() + n) / (2 * n));
                prop_assert_eq!(i64::from(rounded(narrow, 1.0 / n as f64)), expected, "{} / {}", sum, n);
                let out = rounded(narrow, -1.0 / n as f64).wrapping_neg();
                prop_assert_eq!(out, expected as i32, "{} / -{}", sum, n);
            }
        }

        /// Whatever comes and goes in whatever order, the sum folds as the set does.
        #[test]
        fn a_sum_folds_as_its_set(
            deltas in prop::collection::vec(
                prop::collection::vec((0usize..5, 0u8..120, 0u16..300, -15i8..=15), 0..20), 1..8,
            ),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let layout = Layout::new([("m", vec![20, 20]), ("v", vec![20])], 16).unwrap();
            let deltas: Vec<SparseDelta> = deltas.into_iter().map(|mut named| {
                named.sort_unstable();
                let mut delta = SparseDelta::default();
                for tile in 0..layout.tiles().len() {
                    let mut entries: Vec<Entry> = Vec::new();
                    let mut code = 0;
                    for (_, step, position, level) in named.iter().filter(|(at, ..)| *at == tile) {
                        code = *step;
                        if *level != 0 && usize::from(*position) < layout.tiles()[tile].area() {
                            entries.push(Entry { position: *position, level: *level });
                        }
                    }
                    entries.sort_unstable_by_key(|entry| entry.position);
                    entries.dedup_by_key(|entry| entry.position);
                    if !entries.is_empty() {
                        delta.push(tile as u32, Step::from_code(code).unwrap(), entries);
                    }
                }
                delta
            }).collect();
            let mut sum = Sum::zeros(&layout);
            deltas.iter().for_each(|delta| sum.add(&layout, delta));
            let mut left: Vec<&SparseDelta> = deltas.iter().collect();
            for index in gone {
                if left.len() > 1 {
                    sum.remove(&layout, left.remove(index.index(left.len())));
                }
            }
            let start = Coefficients::new((0..layout.len() as i32).map(|i| i * 7919 - 100_000).collect());
            let (mut by_sum, mut by_set) = (start.clone(), start.clone());
            let mut touched = [vec![false; layout.tiles().len()], vec![false; layout.tiles().len()]];
            by_sum.fold_sum(&layout, &sum, Direction::In, &mut touched[0]);
            by_set.fold(&layout, &left, Direction::In, &mut touched[1]);
            prop_assert_eq!(&by_sum, &by_set);
            // Where values cancel, the set names a tile and the sum does not.
            prop_assert!(touched[0].iter().zip(&touched[1]).all(|(sum, set)| !sum || *set));
            by_sum.fold_sum(&layout, &sum, Direction::Out, &mut touched[0]);
            prop_assert_eq!(&by_sum, &start);
            sum.clear();
            prop_assert_eq!(&sum, &Sum::zeros(&layout));
        }
    }
}
