//! Every path of this machine against the general transform in f64, and against each other.

use proptest::prelude::*;

use super::tile::SIDE_BY_SIDE;
use super::*;
use crate::coefficients::UNIT;
use crate::residual::{Residual, model};
use crate::topk;

/// Tiles of every kind: full and ragged, side by side and alone, and vectors.
fn layout(side: usize, rows: usize, cols: usize) -> Layout {
    let mut shapes =
        vec![("a", vec![rows, cols]), ("b", vec![2 * side, 3 * side]), ("c", vec![side + 5]), ("d", vec![7])];
    // One vector's last tile is the first of a group of neighbours, and the next one's are wider.
    shapes.extend([("e", vec![SIDE_BY_SIDE * side + 3]), ("f", vec![2 * side])]);
    Layout::new(shapes, side).unwrap()
}

fn noise(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    };
    (0..n).map(|_| next()).collect()
}

/// The transform of every tile of `flat` (or back, from coefficient order), in f64.
fn oracle(layout: &Layout, values: &[f64], inverse: bool) -> Vec<f64> {
    let mut out = vec![0.0; values.len()];
    for tile in layout.tiles() {
        let place = |at: usize| tile.start_of(at / tile.cols) + at % tile.cols;
        let mut block: Vec<f64> =
            (0..tile.area()).map(|at| values[if inverse { tile.offset + at } else { place(at) }]).collect();
        let mut plan = TileDct::new(tile.rows, tile.cols);
        if inverse {
            plan.inverse(&mut block)
        } else {
            plan.forward(&mut block)
        }
        for (at, value) in block.into_iter().enumerate() {
            out[if inverse { place(at) } else { tile.offset + at }] = value;
        }
    }
    out
}

fn furthest(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// All paths that tiles of `side` can take, with one thread and with three.
fn all(layout: &Layout) -> Vec<Kernels> {
    let with = |path| [1, 3].map(|threads| Kernels::with_path(layout, threads, path).unwrap());
    Path::all().into_iter().flat_map(with).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_path_is_the_transform(
        seed: u64, side in prop::sample::select(&Layout::SIDES[..]), rows in 1usize..200, cols in 1usize..200,
    ) {
        let layout = layout(side, rows, cols);
        let (before, after) = (noise(seed, layout.len(), 1.0), noise(seed ^ 5, layout.len(), 1.0));
        let moved: Vec<f64> = before.iter().zip(&after).map(|(b, a)| f64::from(b - a)).collect();
        let expected = oracle(&layout, &moved, false);
        let squares = moved.iter().map(|x| x * x).sum::<f64>();
        let shared = Coefficients::new(noise(seed ^ 9, layout.len(), 5e5).iter().map(|c| *c as i32).collect());
        let own: Vec<f64> = shared.values().iter().map(|c| f64::from(*c) * f64::from(UNIT)).collect();
        let plain = oracle(&layout, &own, true);
        for mut kernels in all(&layout) {
            let mut r = Residual::zeros(&layout);
            let norm = r.accumulate(&layout, &mut kernels, &before, &after).unwrap();
            // Values up to 2, transformed: up to 2 side. Single precision keeps them to 1e-6 of that.
            let off = furthest(r.values(), &expected);
            prop_assert!(off < 2e-6 * side as f64, "{}: forward off by {off}", kernels.path().name());
            prop_assert!((norm - squares.sqrt()).abs() < 1e-5 * squares.sqrt());
            let mut out = vec![9.0; layout.len()];
            model(&layout, &mut kernels, &shared, None, None, &mut out);
            let off = furthest(&out, &plain);
            prop_assert!(off < 2e-6 * side as f64, "{}: inverse off by {off}", kernels.path().name());
            let only: Vec<bool> = (0..layout.tiles().len()).map(|tile| tile % 3 == 1).collect();
            let mut some = vec![9.0; layout.len()];
            model(&layout, &mut kernels, &shared, None, Some(&only), &mut some);
            for (tile, written) in layout.tiles().iter().zip(only) {
                for row in 0..tile.rows {
                    let range = tile.start_of(row)..tile.start_of(row) + tile.cols;
                    let expected = |at: &f32| if written { *at } else { 9.0 };
                    let same = some[range.clone()].iter().zip(&out[range]).all(|(s, o)| *s == expected(o));
                    prop_assert!(same);
                }
            }
        }
    }

    /// What is taken out is a function of R alone: the same on every path, with any number of threads.
    #[test]
    fn every_path_takes_out_the_same(
        seed: u64, side in prop::sample::select(&Layout::SIDES[..]), rows in 1usize..150, cols in 1usize..150,
        k in 1usize..2000, kind in 0..5,
    ) {
        let layout = layout(side, rows, cols);
        let mut values = noise(seed, layout.len(), 0.03);
        match kind {
            0 => {}
            1 => values.fill(0.0),
            2 => values.iter_mut().for_each(|value| *value *= 1e-36),
            3 => values.iter_mut().step_by(511).for_each(|value| *value = 1e30f32.copysign(*value)),
            _ => values.iter_mut().for_each(|value| *value = (*value * 100.0).round() / 64.0),
        }
        let before = Residual::from_values(&layout, values.clone()).unwrap();
        let mut results = all(&layout).into_iter().map(|mut kernels| {
            let mut r = before.clone();
            let delta = r.extract(&layout, &mut kernels, k, 18);
            (delta, r)
        });
        let (delta, left) = results.next().unwrap();
        for (other, r) in results {
            prop_assert_eq!(&other, &delta);
            prop_assert_eq!(&r, &left);
        }
        // And it is of the largest, and R keeps the difference.
        let mut sent = vec![0.0; layout.len()];
        delta.for_each(&layout, |index, units| sent[index] = units as f32 * UNIT);
        let (mut scratch, mut chosen) = (Vec::new(), Vec::new());
        for tile in layout.tiles() {
            let block = &values[tile.range()];
            topk::select(block, layout.tile_k(tile.area(), k), &mut scratch, &mut chosen);
            for at in 0..tile.area() {
                let (value, sent, left) = (block[at], sent[tile.offset + at], left.values()[tile.offset + at]);
                prop_assert!(sent == 0.0 || chosen.contains(&(at as u32)));
                prop_assert!((value - sent - left).abs() <= 1e-6 * value.abs(), "{value} {sent} {left}");
                prop_assert!(sent == 0.0 || sent.signum() == value.signum() && left.abs() <= value.abs());
            }
        }
    }
}

#[test]
fn one_pass_is_the_two_passes() {
    let layout = layout(64, 130, 200);
    let (before, after) = (noise(1, layout.len(), 0.1), noise(2, layout.len(), 0.1));
    for mut kernels in all(&layout) {
        let (mut one, mut two) = (Residual::zeros(&layout), Residual::zeros(&layout));
        let mut delta = SparseDelta::default();
        for _ in 0..3 {
            let norm = one
                .accumulate_and_extract(&layout, &mut kernels, &before, &after, 64, 18, &mut delta)
                .unwrap();
            assert_eq!(norm, two.accumulate(&layout, &mut kernels, &before, &after).unwrap());
            assert_eq!(delta, two.extract(&layout, &mut kernels, 64, 18));
            assert_eq!(one, two);
        }
    }
}

#[test]
fn what_is_not_finite_is_named_and_undone() {
    let layout = layout(64, 130, 200);
    let values = noise(3, layout.len(), 0.1);
    let (before, clean) = (noise(1, layout.len(), 0.1), noise(2, layout.len(), 0.1));
    for (at, bad) in [(0, f32::NAN), (130 * 200 + 70, f32::INFINITY), (layout.len() - 3, 1e30)] {
        let mut after = clean.clone();
        after[at] = bad;
        for mut kernels in all(&layout) {
            let mut r = Residual::from_values(&layout, values.clone()).unwrap();
            let mut delta = SparseDelta::default();
            let error = r.accumulate_and_extract(&layout, &mut kernels, &before, &after, 64, 18, &mut delta);
            assert_eq!(error.unwrap_err().parameter, layout.parameter_at(at).unwrap());
            assert!(delta.is_empty());
            assert!(r.values().iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}

#[test]
fn parts_cover_everything_once() {
    for (side, rows, cols) in [(64, 130, 200), (8, 1, 1), (16, 500, 3)] {
        let layout = layout(side, rows, cols);
        for parts in [1, 2, 5, 12, 1000] {
            let cut = cut(&layout, parts, 4);
            assert!(cut.len() <= parts);
            let (mut tile, mut scalar) = (0, 0);
            for part in &cut {
                assert_eq!((part.tiles.start, part.scalars.start), (tile, scalar));
                (tile, scalar) = (part.tiles.end, part.scalars.end);
            }
            assert_eq!((tile, scalar), (layout.tiles().len(), layout.len()));
        }
    }
}
