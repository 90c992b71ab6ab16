//! Agreement: how far each delta of a round points where the others of that round do.
//!
//! ```text
//! d_i        what author i says, in coefficients
//! c_i        what of it is folded: its steps lowered by the panel, or nothing
//! agreement  cos(d_i, sum of c_j over j != i), in thousandths
//! ```
//!
//! Its own part is left out of the sum, or a delta would agree with itself, and the more so the louder it is. Without
//! others that count, or where they cancel out, there is nothing to agree with.
//!
//! What a delta is compared with are sums and products of integers, and the root is an integer root, so every machine
//! prints the same thousandths whatever the order of the deltas. One tile at a time is summed up; no more is held.

use std::sync::Arc;

use crate::layout::Layout;
use crate::panel::{self, Verdict};
use crate::sparse::{Entry, SparseDelta, Step};

/// What the others of its round make of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Whether it is folded; see [`panel`].
    pub counts: bool,
    /// The cosine with the sum of the others that are folded, from -1000 to 1000.
    pub agreement: Option<i16>,
}

/// What of a delta its cosine is made of. With `d` what it says, `c` what of it is folded, `s` the sum of all `c`.
#[derive(Clone, Copy, Default)]
struct Products {
    dd: i128,
    ds: i128,
    dc: i128,
    cs: i128,
    cc: i128,
}

/// One delta's part of a tile: its place among the deltas, its step, the step that is folded, and its entries.
type Part<'a> = (usize, i128, i128, &'a [Entry]);

/// Judges the deltas of a round, each sent by another author; one answer for each, in their order.
pub fn judged(layout: &Layout, deltas: &[Arc<SparseDelta>]) -> Vec<Judged> {
    let verdicts = panel::verdicts(layout, deltas);
    let counting = verdicts.iter().filter(|verdict| verdict.is_some()).count();
    let mut cursors: Vec<_> = deltas.iter().map(|delta| delta.tiles().peekable()).collect();
    let mut products = vec![Products::default(); deltas.len()];
    // The squared length of the sum of all that count.
    let mut total: i128 = 0;
    let mut sums = vec![0i128; layout.side() * layout.side()];
    for (index, tile) in layout.tiles().iter().enumerate() {
        let mut parts: Vec<Part<'_>> = Vec::new();
        for ((of, cursor), verdict) in cursors.iter_mut().enumerate().zip(&verdicts) {
            while let Some((_, step, entries)) = cursor.next_if(|(at, ..)| *at == index) {
                parts.push((of, i128::from(step.units()), folded(verdict, index, step), entries));
            }
        }
        let sums = &mut sums[..tile.area()];
        for (_, _, step, entries) in &parts {
            for entry in *entries {
                if let Some(sum) = sums.get_mut(usize::from(entry.position)) {
                    *sum += step * i128::from(entry.level);
                }
            }
        }
        for (of, said, step, entries) in &parts {
            let Some(own) = products.get_mut(*of) else { continue };
            for entry in *entries {
                let Some(sum) = sums.get(usize::from(entry.position)) else { continue };
                let (d, c) = (said * i128::from(entry.level), step * i128::from(entry.level));
                own.dd += d * d;
                own.ds += d * sum;
                own.dc += d * c;
                own.cs += c * sum;
                own.cc += c * c;
            }
        }
        for entry in parts.iter().flat_map(|(.., entries)| *entries) {
            if let Some(sum) = sums.get_mut(usize::from(entry.position)) {
                // A position that several name comes up several times, and is zero after the first.
                total += std::mem::take(sum).pow(2);
            }
        }
    }
    let each = verdicts.iter().zip(&products);
    each.map(|(verdict, own)| {
        let counts = verdict.is_some();
        let has_others = counting > usize::from(counts);
        let others = total - 2 * own.cs + own.cc;
        let agreement = has_others.then(|| thousandths(own.ds - own.dc, own.dd, others)).flatten();
        Judged { counts, agreement }
    })
    .collect()
}

/// The step with which a tile is folded, in units; 0 for a delta that does not count.
fn folded(verdict: &Verdict, tile: usize, said: Step) -> i128 {
    let Some(lowered) = verdict else { return 0 };
    let found = lowered.binary_search_by(|(at, _)| (*at as usize).cmp(&tile)).ok();
    let step = found.and_then(|at| lowered.get(at)).map_or(said, |(_, step)| *step);
    i128::from(step.units())
}

/// `dot / sqrt(a b)` in thousandths, rounded; `None` if one of the two is nothing.
///
/// A value is below 2^28, a sum of 2^12 of them below 2^40, and there are at most 2^34: squares stay below 2^114.
fn thousandths(dot: i128, a: i128, b: i128) -> Option<i16> {
    let [a, b] = [a, b].map(|square| u128::try_from(square).ok().filter(|square| *square > 0));
    let ((a, shift_a), (b, shift_b)) = (root(a?), root(b?));
    // |dot| <= sqrt(a b), so this stays below 2^127.
    let scaled = dot.unsigned_abs() << (shift_a + shift_b);
    let unit = (a * b / 1000).max(1);
    let rounded = ((scaled + unit / 2) / unit).min(1000);
    let rounded = i16::try_from(rounded).ok()?;
    Some(if dot < 0 { -rounded } else { rounded })
}

/// The square root of a number that is not 0, as `root / 2^shift`, with 63 bits of it.
fn root(square: u128) -> (u128, u32) {
    let shift = square.leading_zeros().saturating_sub(2) / 2;
    ((square << (2 * shift)).isqrt(), shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout() -> Layout {
        Layout::new([("m", vec![20, 20]), ("v", vec![20])], 16).unwrap()
    }

    fn arbitrary_delta() -> impl Strategy<Value = Arc<SparseDelta>> {
        let areas: Vec<usize> = layout().tiles().iter().map(|tile| tile.area()).collect();
        let each: Vec<_> = areas
            .into_iter()
            .map(|area| (0u8..160, proptest::collection::btree_map(0..area as u16, -15i8..=15, 0..9)))
            .collect();
        each.prop_map(|tiles| {
            let mut delta = SparseDelta::default();
            for (tile, (code, entries)) in tiles.into_iter().enumerate() {
                let entries = entries.into_iter().filter(|(_, level)| *level != 0);
                let entries = entries.map(|(position, level)| Entry { position, level });
                delta.push(tile as u32, Step::from_code(code).unwrap(), entries);
            }
            Arc::new(delta)
        })
    }

    fn dense(layout: &Layout, delta: &SparseDelta) -> Vec<f64> {
        let mut dense = vec![0.0; layout.len()];
        delta.for_each(layout, |at, units| dense[at] = f64::from(units));
        dense
    }

    fn cosine(a: &[f64], b: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    /// The definition, in floats: what is folded comes from the panel itself.
    fn definition(layout: &Layout, deltas: &[Arc<SparseDelta>]) -> Vec<Option<f64>> {
        let counts: Vec<bool> = panel::verdicts(layout, deltas).iter().map(Option::is_some).collect();
        let counted: Vec<Vec<f64>> =
            panel::counted(layout, deltas).iter().map(|delta| dense(layout, delta)).collect();
        let mut next = 0;
        let mut each = Vec::new();
        for (delta, counts) in deltas.iter().zip(counts) {
            let own = counts.then_some(next);
            next += usize::from(counts);
            let others: Vec<_> =
                counted.iter().enumerate().filter(|(of, _)| Some(*of) != own).map(|(_, c)| c).collect();
            let sum: Vec<f64> =
                (0..layout.len()).map(|at| others.iter().map(|other| other[at]).sum()).collect();
            let cosine = cosine(&dense(layout, delta), &sum);
            each.push(cosine.is_finite().then_some(cosine));
        }
        each
    }

    #[test]
    fn roots_have_sixty_three_bits() {
        for square in [1u128, 2, 64, 65, (1 << 86) + 12345, (1 << 114) - 1] {
            let (root, shift) = root(square);
            assert!((1 << 62..1 << 63).contains(&root), "{square}: {root}");
            let found = root as f64 / 2f64.powi(shift as i32);
            assert!((found / (square as f64).sqrt() - 1.0).abs() < 1e-12, "{square}");
        }
    }

    #[test]
    fn the_extremes_are_whole() {
        assert_eq!(thousandths(64, 64, 64), Some(1000));
        assert_eq!(thousandths(-64, 64, 64), Some(-1000));
        assert_eq!(thousandths(0, 64, 64), Some(0));
        assert_eq!((thousandths(0, 64, 0), thousandths(0, 0, 64)), (None, None));
        let most = 1i128 << 113;
        assert_eq!(thousandths(-most, most, most), Some(-1000));
        // Halves go away from zero.
        assert_eq!((thousandths(1, 1000, 4000), thousandths(-1, 1000, 4000)), (Some(1), Some(-1)));
    }

    #[test]
    fn who_is_alone_agrees_with_nobody() {
        let layout = layout();
        let mut delta = SparseDelta::default();
        delta.push(0, Step::nearest(64.0), [Entry { position: 3, level: 2 }]);
        let alone = [Arc::new(delta)];
        assert_eq!(judged(&layout, &alone), [Judged { counts: true, agreement: None }]);
        assert!(judged(&layout, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn it_is_the_cosine_with_the_others(deltas in proptest::collection::vec(arbitrary_delta(), 1..6)) {
            let layout = layout();
            let found = judged(&layout, &deltas);
            for (index, (judged, defined)) in found.iter().zip(definition(&layout, &deltas)).enumerate() {
                match (judged.agreement, defined) {
                    (Some(found), Some(defined)) => prop_assert!(
                        (f64::from(found) - 1000.0 * defined).abs() <= 0.5 + 1e-6, "{index}: {found} {defined}"
                    ),
                    (found, defined) => prop_assert_eq!(found.is_some(), defined.is_some(), "{}", index),
                }
            }
            let mut turned = deltas.clone();
            turned.reverse();
            let mut again = judged(&layout, &turned);
            again.reverse();
            prop_assert_eq!(again, found);
        }
    }
}
