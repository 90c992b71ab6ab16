//! One by one or all at once, in any order, late or not: the same deltas count for the same.

use proptest::prelude::*;

use super::*;
use crate::coefficients::Direction;
use crate::sparse::Entry;

fn layout() -> Layout {
    Layout::new([("m", vec![40, 20]), ("v", vec![33])], 16).unwrap()
}

/// What an author of these tests does.
#[derive(Clone, Copy, Debug)]
struct Author {
    seed: u64,
    /// Of ten coefficients, so many have the sign that all honest authors find; the others have any.
    common: u64,
    /// All signs turned.
    turned: bool,
    code: u8,
    level: i8,
}

const HONEST: Author = Author { seed: 0, common: 6, turned: false, code: 40, level: 1 };

fn draw(seed: u64, index: u64) -> u64 {
    let mut state = (seed << 32 | index).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state ^= state >> 29;
    state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state ^ (state >> 32)
}

fn delta(layout: &Layout, author: Author) -> Arc<SparseDelta> {
    let mut delta = SparseDelta::default();
    for (index, tile) in layout.tiles().iter().enumerate() {
        let entries = (0..tile.area()).filter_map(|position| {
            let at = (tile.offset + position) as u64;
            let own = draw(author.seed + 1, at);
            if own.is_multiple_of(4) {
                return None;
            }
            let sign = if own / 4 % 10 < author.common { draw(0, at) } else { own >> 20 };
            let positive = (sign & 1 == 0) != author.turned;
            let level = if positive { author.level } else { -author.level };
            Some(Entry { position: position as u16, level })
        });
        delta.push(index as u32, Step::from_code(author.code).unwrap(), entries);
    }
    Arc::new(delta)
}

/// The definition again, written as the module says it, on plain numbers.
fn definition(layout: &Layout, deltas: &[Arc<SparseDelta>]) -> Vec<i64> {
    let n = deltas.len();
    let dense: Vec<Vec<i64>> = deltas
        .iter()
        .map(|delta| {
            let mut dense = vec![0i64; layout.len()];
            delta.for_each(layout, |at, units| dense[at] = i64::from(units));
            dense
        })
        .collect();
    let agree = |i: usize, j: usize| {
        let both = dense[i].iter().zip(&dense[j]).filter(|(a, b)| **a != 0 && **b != 0);
        let (same, all) =
            both.fold((0i64, 0i64), |(same, all), (a, b)| (same + i64::from(a * b > 0), all + 1));
        let more = 2 * same - all;
        more > 0 && more * more > 16 * all
    };
    let support: Vec<usize> = (0..n).map(|i| (0..n).filter(|&j| i != j && agree(i, j)).count()).collect();
    let middle = |mut values: Vec<i64>| {
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let median = middle(support.iter().map(|support| *support as i64).collect());
    let counts: Vec<bool> = support.iter().map(|support| 2 * *support as i64 >= median).collect();
    let mut sums = vec![0i64; layout.len()];
    for (index, tile) in layout.tiles().iter().enumerate() {
        let energies: Vec<i64> =
            dense.iter().map(|dense| dense[tile.range()].iter().map(|value| value * value).sum()).collect();
        let most = 4 * middle(energies.clone());
        for (author, delta) in deltas.iter().enumerate().filter(|(author, _)| counts[*author]) {
            let Some((_, step, entries)) = delta.tiles().find(|(at, ..)| *at == index) else { continue };
            let squares: i64 = entries.iter().map(|entry| i64::from(entry.level).pow(2)).sum();
            let steps = (0..Step::COUNT).map(|code| i64::from(Step::from_code(code).unwrap().units()));
            let fits = |units: &i64| *units == 8 || units * units * squares <= most;
            let units = if energies[author] > most {
                steps.filter(|units| *units < i64::from(step.units())).filter(fits).max().unwrap_or(8)
            } else {
                i64::from(step.units())
            };
            for entry in entries {
                sums[tile.offset + usize::from(entry.position)] += units * i64::from(entry.level);
            }
        }
    }
    let n = counts.iter().filter(|counts| **counts).count().max(1) as f64;
    sums.into_iter().map(|sum| (sum as f64 / n).round() as i64).collect()
}

fn author() -> impl Strategy<Value = Author> {
    let honest = (0u64..1000, 4u64..8, 30u8..50).prop_map(|(seed, common, code)| Author {
        seed,
        common,
        code,
        ..HONEST
    });
    let any = (0u64..1000, 0u64..11, any::<bool>(), 0u8..100, 1i8..16)
        .prop_map(|(seed, common, turned, code, level)| Author { seed, common, turned, code, level });
    prop_oneof![2 => honest, 1 => any]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_tally_folds_as_its_set_whatever_comes_and_goes(
        authors in prop::collection::vec(author(), 1..9),
        happens in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..30),
    ) {
        let layout = layout();
        let deltas: Vec<Arc<SparseDelta>> = authors.iter().map(|author| delta(&layout, *author)).collect();
        let start = Coefficients::new((0..layout.len() as i32).map(|i| i * 7919 - 100_000).collect());
        let mut by_tally = start.clone();
        let mut tally = Tally::empty(&layout);
        let mut touched = vec![false; layout.tiles().len()];
        let unpack = |key: &usize| deltas[*key].clone();
        for (index, folds) in happens {
            // Who is there goes, who is not there comes.
            let at = index.index(deltas.len());
            if tally.keys().any(|key| *key == at) {
                tally.retain(&layout, |key| *key != at, unpack);
            } else {
                tally.add(&layout, at, deltas[at].clone());
            }
            if folds {
                by_tally.fold_tally(&layout, &mut tally, unpack, &mut touched);
            }
        }
        by_tally.fold_tally(&layout, &mut tally, unpack, &mut touched);
        let mut keys: Vec<usize> = tally.keys().copied().collect();
        let expect = |keys: &[usize]| {
            let set: Vec<Arc<SparseDelta>> = keys.iter().map(unpack).collect();
            let counted = counted(&layout, &set);
            let mut by_set = start.clone();
            let set_of: Vec<&SparseDelta> = counted.iter().map(Arc::as_ref).collect();
            by_set.fold(&layout, &set_of, Direction::In, &mut []);
            (by_set, definition(&layout, &set))
        };
        for _ in 0..2 {
            let (by_set, defined) = expect(&keys);
            prop_assert_eq!(&by_tally, &by_set);
            for ((now, before), change) in by_set.values().iter().zip(start.values()).zip(&defined) {
                prop_assert_eq!(i64::from(*now), i64::from(*before) - change);
            }
            keys.reverse();
        }
        // Another one of the same, whose fold is in C already, takes all of it out again.
        let mut same = Tally::empty(&layout);
        keys.iter().for_each(|key| same.add(&layout, *key, unpack(key)));
        same.assume_folded(&layout, unpack);
        same.retain(&layout, |_| false, unpack);
        by_tally.fold_tally(&layout, &mut same, unpack, &mut touched);
        prop_assert_eq!(&by_tally, &start);
    }
}

fn panel(layout: &Layout, authors: &[Author]) -> Vec<Verdict> {
    let mut panel = Panel::default();
    authors.iter().for_each(|author| panel.join(Traits::of(layout, &delta(layout, *author))));
    panel.verdicts()
}

#[test]
fn three_of_twelve_who_turn_signs_make_noise_or_shout_do_not_count() {
    let layout = layout();
    let hostile = |kind: usize, seed: u64| match kind {
        0 => Author { seed, turned: true, ..HONEST },
        1 => Author { seed, common: 0, code: 140, ..HONEST },
        // The same harmful delta from each, but for a few signs.
        _ => Author { seed, common: 10, turned: true, code: 120, level: 15 },
    };
    for kind in 0..3 {
        let mut authors: Vec<Author> = (0..9).map(|seed| Author { seed, ..HONEST }).collect();
        let clean = panel(&layout, &authors);
        assert!(clean.iter().all(|verdict| *verdict == Some(Vec::new())), "{clean:?}");
        authors.extend((20..23).map(|seed| hostile(kind, seed)));
        let verdicts = panel(&layout, &authors);
        assert!(verdicts[..9].iter().all(Option::is_some), "{kind}: {verdicts:?}");
        assert!(verdicts[9..].iter().all(Option::is_none), "{kind}: {verdicts:?}");
    }
}

#[test]
fn who_agrees_and_shouts_is_lowered_to_twice_the_others() {
    let layout = layout();
    let mut authors: Vec<Author> = (0..4).map(|seed| Author { seed, ..HONEST }).collect();
    authors[3] = Author { code: 80, level: 5, ..authors[3] };
    let verdicts = panel(&layout, &authors);
    assert!(verdicts[..3].iter().all(|verdict| *verdict == Some(Vec::new())), "{verdicts:?}");
    let steps = verdicts[3].as_ref().unwrap();
    assert_eq!(steps.len(), layout.tiles().len());
    let energy = |delta: &SparseDelta| {
        let mut sum = 0.0;
        delta.for_each(&layout, |_, units| sum += f64::from(units).powi(2));
        sum
    };
    let all: Vec<_> = authors.iter().map(|author| delta(&layout, *author)).collect();
    let ratio = energy(&lowered(&all[3], steps)) / energy(&all[0]);
    assert!((2.5..5.0).contains(&ratio), "{ratio}");
}

#[test]
fn where_nobody_agrees_everybody_counts() {
    let layout = layout();
    let strangers: Vec<Author> = (0..7).map(|seed| Author { seed, common: 0, ..HONEST }).collect();
    assert!(panel(&layout, &strangers).iter().all(Option::is_some));
    // Two are no majority.
    let two = [HONEST, Author { seed: 1, turned: true, ..HONEST }];
    assert!(panel(&layout, &two).iter().all(Option::is_some));
    assert!(Panel::default().verdicts().is_empty());
}
