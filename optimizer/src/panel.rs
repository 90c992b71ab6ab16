//! Which deltas of a round count, and for how much: what keeps a hostile quarter of the authors from steering C.
//!
//! Honest deltas of one round agree: where two of them name the same coefficient, their signs are the same more often
//! than chance has it. Hostile ones do not, unless they help. So each delta is judged by the others of its round:
//!
//! ```text
//! i agrees with j        (same - different)^2 > 16 (same + different), same > different: four standard deviations,
//!                        over the coefficients that both name
//! support of i           how many others it agrees with
//! i counts               if 2 support(i) >= the median support
//! energy of i in a tile  step^2 * sum of level^2
//! i's step in a tile     lowered until its energy is at most four times the median energy of the round there
//! ```
//!
//! Both medians are the upper ones, and neither moves beyond what honest deltas say while fewer than half are hostile.
//! Where nobody agrees with anybody, as in a swarm of strangers' texts or with very few coefficients in common, all
//! support is 0 and everyone counts: it takes a majority that agrees to leave somebody out. Two authors are no
//! majority, and always count.
//!
//! All of it is a function of the *set* of deltas, in integers, so every peer comes to the same verdicts whatever
//! the order. What is kept of a delta, its [`Traits`], is two bits a parameter and 16 bytes a tile: another delta is
//! compared with them, and only those whose verdicts it changes are unpacked again.
//!
//! A per-coefficient median or trimmed mean (Yin et al., arXiv 1803.01498) is no help here: a coefficient is named by
//! two or three authors of a dozen. Norms bounded by the median are those of Sun et al. (arXiv 1911.07963).

use std::sync::Arc;

use pulp::{Arch, NullaryFnOnce};

use crate::coefficients::Coefficients;
use crate::layout::{Layout, ParameterPlace};
use crate::sparse::{SparseDelta, Step};
use crate::sum::Sum;

/// The square of the standard deviations from chance that make agreement.
const CERTAIN: u64 = 16;
/// A tile's energy is at most this many times the median.
const MOST_ENERGY: u128 = 4;

/// What of a delta the others are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traits {
    /// One bit a coefficient: whether it is named, and whether it is negative.
    named: Vec<u64>,
    negative: Vec<u64>,
    /// The step of every tile, and the sum of its squared levels; 0 if it is not named.
    tiles: Vec<(Step, u64)>,
}

impl Traits {
    /// Those of `delta`.
    pub fn of(layout: &Layout, delta: &SparseDelta) -> Self {
        let words = layout.len().div_ceil(64);
        let smallest = Step::nearest(0.0);
        let mut traits = Self {
            named: vec![0; words],
            negative: vec![0; words],
            tiles: vec![(smallest, 0); layout.tiles().len()],
        };
        for (index, step, entries) in delta.tiles() {
            let (Some(tile), Some(kept)) = (layout.tiles().get(index), traits.tiles.get_mut(index)) else {
                continue;
            };
            let mut squares = 0;
            for entry in entries.iter().filter(|entry| usize::from(entry.position) < tile.area()) {
                let at = tile.offset + usize::from(entry.position);
                squares += u64::from(entry.level.unsigned_abs()).pow(2);
                if let (Some(named), Some(negative)) =
                    (traits.named.get_mut(at / 64), traits.negative.get_mut(at / 64))
                {
                    *named |= 1 << (at % 64);
                    *negative |= u64::from(entry.level < 0) << (at % 64);
                }
            }
            *kept = (step, squares);
        }
        traits
    }

    /// Whether the two have more signs in common than chance explains.
    pub fn agree(&self, other: &Self) -> bool {
        let (both, different) = Arch::new().dispatch(Compare { a: self, b: other });
        let same = both - different;
        same > different && u128::from(same - different).pow(2) > u128::from(CERTAIN) * u128::from(both)
    }

    fn energy(&self, tile: usize) -> u128 {
        self.tiles.get(tile).map_or(0, |(step, squares)| energy(*step, *squares))
    }
}

fn energy(step: Step, squares: u64) -> u128 {
    let units = u128::from(step.units().unsigned_abs());
    units * units * u128::from(squares)
}

/// Coefficients that both name, and those with different signs, by the machine's own count of bits.
struct Compare<'a> {
    a: &'a Traits,
    b: &'a Traits,
}

impl NullaryFnOnce for Compare<'_> {
    type Output = (u64, u64);

    #[inline(always)]
    fn call(self) -> (u64, u64) {
        let Self { a, b } = self;
        let (mut both, mut different) = (0, 0);
        let signs = a.negative.iter().zip(&b.negative);
        for ((named, other), (negative, turned)) in a.named.iter().zip(&b.named).zip(signs) {
            let common = named & other;
            both += u64::from(common.count_ones());
            different += u64::from((common & (negative ^ turned)).count_ones());
        }
        (both, different)
    }
}

/// What a delta counts as: `None` for nothing; else the tiles, ascending, whose steps are lower than it says.
pub type Verdict = Option<Vec<(u32, Step)>>;

/// The deltas of a round as far as they judge each other.
#[derive(Clone, Debug, Default)]
struct Panel {
    /// Each with whether it agrees with each: symmetric.
    members: Vec<(Traits, Vec<bool>)>,
}

impl Panel {
    fn join(&mut self, traits: Traits) {
        let mut agrees: Vec<bool> = Vec::with_capacity(self.members.len() + 1);
        for (other, theirs) in &mut self.members {
            let agree = traits.agree(other);
            theirs.push(agree);
            agrees.push(agree);
        }
        // Nobody supports itself.
        agrees.push(false);
        self.members.push((traits, agrees));
    }

    /// The last one takes its place.
    fn leave(&mut self, index: usize) {
        self.members.swap_remove(index);
        for (_, agrees) in &mut self.members {
            agrees.swap_remove(index);
        }
    }

    /// One for each, in the order of the members.
    fn verdicts(&self) -> Vec<Verdict> {
        let support: Vec<usize> =
            self.members.iter().map(|(_, agrees)| agrees.iter().filter(|agrees| **agrees).count()).collect();
        let Some(median) = upper_median(support.iter().copied()) else { return Vec::new() };
        let counts = support.iter().map(|support| 2 * support >= median);
        let mut verdicts: Vec<Verdict> = counts.map(|counts| counts.then(Vec::new)).collect();
        let tiles = self.members.first().map_or(0, |(traits, _)| traits.tiles.len());
        for tile in 0..tiles {
            let energies = self.members.iter().map(|(traits, _)| traits.energy(tile));
            let most = MOST_ENERGY * upper_median(energies).unwrap_or(0);
            for ((traits, _), verdict) in self.members.iter().zip(&mut verdicts) {
                if let (Some(lowered), Some(&(step, squares))) = (verdict, traits.tiles.get(tile))
                    && energy(step, squares) > most
                {
                    let code = (0..step.code())
                        .rev()
                        .find_map(|code| Step::from_code(code).filter(|step| energy(*step, squares) <= most));
                    // The smallest step is next to nothing.
                    lowered.push((tile as u32, code.unwrap_or(Step::nearest(0.0))));
                }
            }
        }
        verdicts
    }
}

/// The middle of what is sorted, the larger of two.
fn upper_median<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut sorted: Vec<T> = values.collect();
    let middle = sorted.len() / 2;
    sorted.sort_unstable();
    sorted.into_iter().nth(middle)
}

/// `delta` with the steps of some tiles replaced.
fn lowered(delta: &Arc<SparseDelta>, steps: &[(u32, Step)]) -> Arc<SparseDelta> {
    if steps.is_empty() {
        return delta.clone();
    }
    let mut out = SparseDelta::default();
    let mut steps = steps.iter().peekable();
    for (tile, step, entries) in delta.tiles() {
        let replaced = steps.next_if(|(at, _)| *at as usize == tile);
        out.push(tile as u32, replaced.map_or(step, |(_, step)| *step), entries.iter().copied());
    }
    Arc::new(out)
}

/// What each of the deltas of a round counts as. The definition, for whoever has all of them at hand; a [`Tally`]
/// comes to the same one by one.
pub fn verdicts(layout: &Layout, deltas: &[Arc<SparseDelta>]) -> Vec<Verdict> {
    let mut panel = Panel::default();
    deltas.iter().for_each(|delta| panel.join(Traits::of(layout, delta)));
    panel.verdicts()
}

/// The deltas of a round as they count: those that are to be folded.
pub fn counted(layout: &Layout, deltas: &[Arc<SparseDelta>]) -> Vec<Arc<SparseDelta>> {
    let verdicts = verdicts(layout, deltas);
    let each = deltas.iter().zip(&verdicts);
    each.filter_map(|(delta, verdict)| verdict.as_ref().map(|steps| lowered(delta, steps))).collect()
}

/// The sum of the deltas of a round as they count, each known by a key.
#[derive(Clone, Debug)]
pub struct Tally<K> {
    sum: Sum,
    panel: Panel,
    /// The members of the panel, and what of them is in the sum.
    held: Vec<(K, Verdict)>,
}

impl<K> Tally<K> {
    /// That of no deltas.
    pub fn empty(layout: &Layout) -> Self {
        Self { sum: Sum::zeros(layout), panel: Panel::default(), held: Vec::new() }
    }

    /// That of no deltas, in the same memory. C keeps what of it was folded.
    pub fn clear(&mut self) {
        self.sum.clear();
        self.panel.members.clear();
        self.held.clear();
    }

    /// The keys of all deltas, whether they count or not.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.held.iter().map(|(key, _)| key)
    }

    /// The keys of the deltas that do not count, as it was when they were last judged.
    pub fn left_out(&self) -> impl Iterator<Item = &K> {
        self.held.iter().filter(|(_, verdict)| verdict.is_none()).map(|(key, _)| key)
    }

    /// How much the deltas that count move each parameter of `layout`: the root mean square over its coefficients of
    /// what they add up to if their directions are independent. In units of C, for eyes only.
    pub fn movement(&self, layout: &Layout) -> Vec<f64> {
        let unit = f64::from(1 << 20);
        let members = self.panel.members.iter().zip(&self.held);
        let counted: Vec<&Traits> =
            members.filter(|(_, (_, verdict))| verdict.is_some()).map(|((traits, _), _)| traits).collect();
        let of_tile = |tile| counted.iter().map(|traits| traits.energy(tile) as f64).sum::<f64>();
        let parameters = layout.parameters().iter();
        let mean = |place: &ParameterPlace| {
            place.tiles.clone().map(of_tile).sum::<f64>() / (place.shape.0 * place.shape.1) as f64
        };
        parameters.map(|place| mean(place).sqrt() / unit).collect()
    }

    /// Number of deltas, whether they count or not.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Adds a delta. Until the others are next asked, it counts as it is.
    pub fn add(&mut self, layout: &Layout, key: K, delta: Arc<SparseDelta>) {
        self.panel.join(Traits::of(layout, &delta));
        self.sum.add(layout, delta);
        self.held.push((key, Some(Vec::new())));
    }

    /// Takes out the deltas that are not to `stay`; `unpack` says what they said.
    pub fn retain(
        &mut self,
        layout: &Layout,
        mut stay: impl FnMut(&K) -> bool,
        mut unpack: impl FnMut(&K) -> Arc<SparseDelta>,
    ) {
        let mut index = 0;
        while let Some((key, verdict)) = self.held.get(index) {
            if stay(key) {
                index += 1;
                continue;
            }
            if let Some(steps) = verdict {
                self.sum.remove(layout, lowered(&unpack(key), steps));
            }
            self.held.swap_remove(index);
            self.panel.leave(index);
        }
    }

    /// Whether as much waits as the sum is large: it is time for [`Coefficients::fold_tally`].
    pub fn is_full(&self) -> bool {
        self.sum.is_full()
    }

    /// What was added so far is in C already, as it counts.
    pub fn assume_folded(&mut self, layout: &Layout, unpack: impl FnMut(&K) -> Arc<SparseDelta>) {
        self.judge(layout, unpack, |_| ());
        self.sum.assume_folded(layout);
    }

    /// Makes the sum what the verdicts say; calls `full` when much waits.
    fn judge(
        &mut self,
        layout: &Layout,
        mut unpack: impl FnMut(&K) -> Arc<SparseDelta>,
        mut full: impl FnMut(&mut Sum),
    ) {
        for ((key, held), verdict) in self.held.iter_mut().zip(self.panel.verdicts()) {
            if *held == verdict {
                continue;
            }
            let delta = unpack(key);
            if let Some(steps) = &verdict {
                self.sum.add(layout, lowered(&delta, steps));
            }
            if let Some(steps) = held {
                self.sum.remove(layout, lowered(&delta, steps));
            }
            *held = verdict;
            if self.sum.is_full() {
                full(&mut self.sum);
            }
        }
    }
}

impl Coefficients {
    /// Takes the fold of `tally` as it was the last time out, if there was a last time, and puts the fold of it as it
    /// is now in: the same as [`Coefficients::fold`] with what [`counted`] of the one set and then of the other.
    /// `unpack` says what a delta said, and is asked for those whose verdicts have changed.
    ///
    /// Marks in `touched`, one flag a tile, the tiles that may have changed.
    pub fn fold_tally<K>(
        &mut self,
        layout: &Layout,
        tally: &mut Tally<K>,
        unpack: impl FnMut(&K) -> Arc<SparseDelta>,
        touched: &mut [bool],
    ) {
        tally.judge(layout, unpack, |sum| self.fold_sum(layout, sum, touched));
        self.fold_sum(layout, &mut tally.sum, touched);
    }

    /// Folds what waits in a [`Tally`] that [`Tally::is_full`], whatever the verdicts will be.
    pub fn fold_waiting<K>(&mut self, layout: &Layout, tally: &mut Tally<K>, touched: &mut [bool]) {
        self.fold_sum(layout, &mut tally.sum, touched);
    }
}

#[cfg(test)]
mod tests;
