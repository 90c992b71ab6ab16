//! The sum of a round's deltas: what its fold is computed from, kept so that one more delta costs one more
//! addition.
//!
//! ```text
//! F(S) = round_half_away_from_zero(A / n)         A: sum of the authors' values, n = |S|
//! ```
//!
//! A late delta changes A where it names something, and n everywhere. Whoever has A changes the fold in one pass
//! over memory; whoever has not must unpack the whole set again ([`Coefficients::fold`], which needs no memory of its
//! own). Both give the same bits.
//!
//! What is added waits until there is enough of it, or until C is to change. Then every tile is done with while it is
//! in the cache: the old fold out of C, the deltas into A, the new fold into C.

use std::sync::Arc;

use pulp::{Arch, NullaryFnOnce};

use crate::coefficients::Coefficients;
use crate::layout::Layout;
use crate::sparse::{Entry, SparseDelta, Step};

/// A: one i32 a coefficient, 4 bytes a parameter, and what waits to be added, no more than that and one delta. Sums
/// wrap; those of a swarm never do, because its publishers times its largest coefficient stay below 2^31.
#[derive(Clone, Debug)]
pub struct Sum {
    values: Vec<i32>,
    /// The values are of no meaning yet: they are zero.
    blank: bool,
    /// Deltas in the sum, waiting ones included.
    count: u32,
    /// Of how many deltas, all of them in the values, the fold is in C.
    folded: u32,
    /// What waits, and whether it comes or goes.
    waiting: Vec<(Arc<SparseDelta>, bool)>,
    /// Its coefficients.
    waiting_coefficients: usize,
}

impl Sum {
    /// The sum of no deltas.
    pub fn zeros(layout: &Layout) -> Self {
        Self {
            values: vec![0; layout.len()],
            blank: false,
            count: 0,
            folded: 0,
            waiting: Vec::new(),
            waiting_coefficients: 0,
        }
    }

    /// The sum of no deltas, in the same memory. C keeps what of it was folded.
    pub fn clear(&mut self) {
        (self.blank, self.count, self.folded, self.waiting_coefficients) = (true, 0, 0, 0);
        self.waiting.clear();
    }

    /// Adds a delta.
    pub fn add(&mut self, layout: &Layout, delta: Arc<SparseDelta>) {
        self.count += 1;
        self.wait(layout, delta, true);
    }

    /// Takes a delta out that was added before.
    pub fn remove(&mut self, layout: &Layout, delta: Arc<SparseDelta>) {
        self.count = self.count.saturating_sub(1);
        self.wait(layout, delta, false);
    }

    /// What was added so far is in C already, by other means.
    pub fn assume_folded(&mut self, layout: &Layout) {
        self.pass(layout, None, &mut []);
        self.folded = self.count;
    }

    fn wait(&mut self, layout: &Layout, delta: Arc<SparseDelta>, comes: bool) {
        self.waiting_coefficients += delta.len();
        self.waiting.push((delta, comes));
        // The fold in C is of the values as they are: they stay until it is changed.
        if self.folded == 0 && self.is_full() {
            self.pass(layout, None, &mut []);
        }
    }

    /// Whether as much waits as the sum is large: it is time for [`Coefficients::fold_sum`].
    pub fn is_full(&self) -> bool {
        self.waiting_coefficients >= self.values.len()
    }

    /// Adds what waits to the values; and if C is given, takes their fold out of it before and puts it in after.
    fn pass(&mut self, layout: &Layout, folds: Option<&mut [i32]>, touched: &mut [bool]) {
        let waiting = self.waiting.iter().map(|(delta, comes)| (delta.tiles().peekable(), *comes));
        let share = |count: u32| if count == 0 { 0.0 } else { 1.0 / f64::from(count) };
        Arch::new().dispatch(Pass {
            layout,
            blank: self.blank,
            sums: &mut self.values,
            waiting: waiting.collect(),
            folds,
            shares: [share(self.folded), -share(self.count)],
            touched,
        });
        self.blank = false;
        self.waiting.clear();
        self.waiting_coefficients = 0;
    }
}

impl Coefficients {
    /// Takes the fold of `sum` as it was the last time out, if there was a last time, and puts the fold of it as it is
    /// now in: the same as [`Coefficients::fold`] with one set and then with the other.
    ///
    /// Marks in `touched`, one flag a tile, the tiles that may have changed.
    pub fn fold_sum(&mut self, layout: &Layout, sum: &mut Sum, touched: &mut [bool]) {
        if sum.folded == 0 && sum.count == 0 {
            return;
        }
        sum.pass(layout, Some(self.values_mut()), touched);
        sum.folded = sum.count;
    }
}

/// One pass over a sum, and C, in the machine's longest vectors.
struct Pass<'a, I: Iterator> {
    layout: &'a Layout,
    blank: bool,
    sums: &'a mut [i32],
    waiting: Vec<(std::iter::Peekable<I>, bool)>,
    folds: Option<&'a mut [i32]>,
    /// 1 / n before, and -1 / n after; 0 for none.
    shares: [f64; 2],
    touched: &'a mut [bool],
}

impl<'a, I: Iterator<Item = (usize, Step, &'a [Entry])>> NullaryFnOnce for Pass<'_, I> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { layout, blank, sums, mut waiting, mut folds, shares: [before, after], touched } = self;
        for (index, tile) in layout.tiles().iter().enumerate() {
            let Some(sums) = sums.get_mut(tile.range()) else { continue };
            let mut values = folds.as_deref_mut().and_then(|values| values.get_mut(tile.range()));
            if blank {
                sums.fill(0);
            }
            let mut named = 0;
            if let (Some(values), true) = (&mut values, before != 0.0 && !blank) {
                named |= fold(values, sums, before);
            }
            for (tiles, comes) in &mut waiting {
                while let Some((_, step, entries)) = tiles.next_if(|(at, ..)| *at == index) {
                    let step = if *comes { step.units() } else { -step.units() };
                    for entry in entries {
                        if let Some(sum) = sums.get_mut(usize::from(entry.position)) {
                            *sum = sum.wrapping_add(step * i32::from(entry.level));
                        }
                    }
                }
            }
            if let (Some(values), true) = (&mut values, after != 0.0) {
                named |= fold(values, sums, after);
            }
            if let (1.., Some(flag)) = (named.unsigned_abs(), touched.get_mut(index)) {
                *flag = true;
            }
        }
    }
}

/// Adds `sums * share`, rounded, to `values`; what it gives back is 0 only if all sums are.
#[inline(always)]
fn fold(values: &mut [i32], sums: &[i32], share: f64) -> i32 {
    let mut named = 0;
    for (value, &sum) in values.iter_mut().zip(sums) {
        *value = value.wrapping_add(rounded(sum, share));
        named |= sum;
    }
    named
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
    use crate::coefficients::Direction;
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
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..3), folds in 1usize..9,
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
            let deltas: Vec<Arc<SparseDelta>> = deltas.into_iter().map(Arc::new).collect();
            let mut sum = Sum::zeros(&layout);
            let start = Coefficients::new((0..layout.len() as i32).map(|i| i * 7919 - 100_000).collect());
            let mut by_sum = start.clone();
            let mut touched = [vec![false; layout.tiles().len()], vec![false; layout.tiles().len()]];
            let mut left: Vec<&Arc<SparseDelta>> = Vec::new();
            let mut gone = gone.into_iter();
            for (at, delta) in deltas.iter().enumerate() {
                sum.add(&layout, delta.clone());
                left.push(delta);
                if let Some(index) = gone.next().filter(|_| left.len() > 1) {
                    sum.remove(&layout, left.remove(index.index(left.len())).clone());
                }
                if at % folds == 0 {
                    by_sum.fold_sum(&layout, &mut sum, &mut touched[0]);
                }
            }
            by_sum.fold_sum(&layout, &mut sum, &mut touched[0]);
            let set: Vec<&SparseDelta> = left.iter().map(|delta| delta.as_ref()).collect();
            let mut by_set = start.clone();
            by_set.fold(&layout, &set, Direction::In, &mut touched[1]);
            prop_assert_eq!(&by_sum, &by_set);
            let changed = |index: usize| layout.tiles()[index].range().any(|at| by_sum.values()[at] != start.values()[at]);
            prop_assert!((0..layout.tiles().len()).all(|index| touched[0][index] || !changed(index)));

            // Another sum of the same, whose fold is in C already, takes all of it out again.
            let mut same = Sum::zeros(&layout);
            same.add(&layout, deltas[0].clone());
            same.clear();
            left.iter().for_each(|delta| same.add(&layout, (*delta).clone()));
            same.assume_folded(&layout);
            left.iter().for_each(|delta| same.remove(&layout, (*delta).clone()));
            by_sum.fold_sum(&layout, &mut same, &mut touched[0]);
            prop_assert_eq!(&by_sum, &start);
        }
    }
}
