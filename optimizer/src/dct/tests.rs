//! The transforms against their definition, summed term by term in f64.

use std::f64::consts::PI;

use proptest::prelude::*;

use super::*;

/// The definition, term by term.
fn naive(x: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    (0..x.len())
        .map(|q| {
            let scale = if q == 0 { 1.0 / n } else { 2.0 / n }.sqrt();
            let terms = x.iter().enumerate();
            scale * terms.map(|(j, x)| x * (PI * ((2 * j + 1) * q) as f64 / (2.0 * n)).cos()).sum::<f64>()
        })
        .collect()
}

fn naive_tile(tile: &[f64], cols: usize) -> Vec<f64> {
    let rows = tile.len() / cols;
    let across: Vec<f64> = tile.chunks(cols).flat_map(naive).collect();
    let mut out = vec![0.0; tile.len()];
    for c in 0..cols {
        let column: Vec<f64> = (0..rows).map(|r| across[r * cols + c]).collect();
        for (r, value) in naive(&column).into_iter().enumerate() {
            out[r * cols + c] = value;
        }
    }
    out
}

/// Values in [-1, 1) from a seed.
fn noise(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
        })
        .collect()
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn lengths_one_two_and_three_by_hand() {
    let mut x = [3.0];
    Dct::new(1).forward(&mut x);
    assert_eq!(x, [3.0]);

    let mut x = [1.0f64, 0.0];
    Dct::new(2).forward(&mut x);
    assert!(worst(&x, &[0.5f64.sqrt(), 0.5f64.sqrt()]) < 1e-15);

    // cos(pi/6) = sqrt(3)/2 at the ends, 0 in the middle, times sqrt(2/3); a ramp has no second harmonic.
    let mut x = [1.0f64, 2.0, 3.0];
    Dct::new(3).forward(&mut x);
    assert!(worst(&x, &[6.0 / 3f64.sqrt(), -2f64.sqrt(), 0.0]) < 1e-15);
}

#[test]
fn every_length_up_to_130_matches_the_definition() {
    for n in 1..=130 {
        let x = noise(n, n as u64);
        let want = naive(&x);
        let mut dct = Dct::new(n);
        let mut got = x.clone();
        dct.forward(&mut got);
        assert!(worst(&got, &want) < 1e-12, "forward, length {n}: {}", worst(&got, &want));
        dct.inverse(&mut got);
        assert!(worst(&got, &x) < 1e-12, "inverse, length {n}: {}", worst(&got, &x));
    }
}

#[test]
fn one_plan_serves_many_lines() {
    let mut dct = Dct::<f64>::new(12);
    assert_eq!(dct.len(), 12);
    for seed in 0..4 {
        let mut x = noise(12, seed);
        let want = naive(&x);
        dct.clone().forward(&mut x.clone());
        dct.forward(&mut x);
        assert!(worst(&x, &want) < 1e-13);
    }
}

#[test]
fn a_zero_tile_stays_exactly_zero() {
    let mut dct = TileDct::<f32>::new(24, 50);
    let mut tile = vec![0.0; 24 * 50];
    dct.forward(&mut tile);
    dct.inverse(&mut tile);
    assert!(tile.iter().all(|&x| x == 0.0));
}

#[test]
#[should_panic(expected = "another length")]
fn a_line_of_another_length_is_refused() {
    Dct::<f32>::new(4).forward(&mut [0.0; 5]);
}

proptest! {
    #[test]
    fn tiles_match_the_definition(rows in 1usize..40, cols in 1usize..40, seed: u64) {
        let x = noise(rows * cols, seed);
        let want = naive_tile(&x, cols);

        let mut dct = TileDct::new(rows, cols);
        let mut got = x.clone();
        dct.forward(&mut got);
        prop_assert!(worst(&got, &want) < 1e-12);
        dct.inverse(&mut got);
        prop_assert!(worst(&got, &x) < 1e-12);

        let mut dct = TileDct::new(rows, cols);
        let mut got = narrow(&x);
        dct.forward(&mut got);
        prop_assert!(worst(&widen(&got), &want) < 5e-6);
        dct.inverse(&mut got);
        prop_assert!(worst(&widen(&got), &x) < 5e-6);
    }

    #[test]
    fn a_tile_of_one_row_is_a_line(n in 1usize..300, seed: u64) {
        let x = noise(n, seed);
        let (mut row, mut column, mut line) = (x.clone(), x.clone(), x);
        TileDct::new(1, n).forward(&mut row);
        TileDct::new(n, 1).forward(&mut column);
        Dct::new(n).forward(&mut line);
        prop_assert!(worst(&row, &line) < 1e-12);
        prop_assert!(worst(&column, &line) < 1e-12);
    }

    #[test]
    fn the_sum_of_squares_is_kept(rows in 1usize..70, cols in 1usize..70, seed: u64) {
        let x = noise(rows * cols, seed);
        let mut y = x.clone();
        TileDct::new(rows, cols).forward(&mut y);
        let energy = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
        prop_assert!((energy(&x) - energy(&y)).abs() <= 1e-12 * energy(&x));
    }
}
