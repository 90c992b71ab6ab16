//! The cosine transform of a power-of-two length, of as many lines at once as a vector has lanes.
//!
//! B. G. Lee, "A new algorithm to compute the discrete cosine transform", IEEE Trans. ASSP 32, 1984: with
//! `c(i) = 1 / (2 cos(pi (2i + 1) / 2n))`,
//!
//! ```text
//! forward   a = x[i] + x[n-1-i],  b = (x[i] - x[n-1-i]) c(i)      i below n/2
//!           X[2i] = A[i],         X[2i+1] = B[i] + B[i+1]         A, B: the transforms of a and b, half as long
//! inverse   the same backwards:   a[i] = X[2i], b[i] = X[2i+1] + X[2i-1];  x = A + c B,  A - c B
//! ```
//!
//! That is n/2 log2 n products and 3n/2 log2 n - n + 1 sums, none of them on single lanes: a tile's columns lie
//! side by side, so a row of it is a vector. Rows are transformed by transposing the tile in blocks. Without the
//! factors sqrt(1/n) and sqrt(2/n), which [`super::TileDct`] documents: sqrt(1/2) of the mean's is applied here,
//! the rest where the result is used.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use pulp::NullaryFnOnce;

use crate::lanes::Lanes;

/// The longest line.
pub(crate) const LONGEST: usize = 128;

/// Whether lines of `n` are transformed here.
pub(crate) fn has(n: usize) -> bool {
    n.is_power_of_two() && (8..=LONGEST).contains(&n)
}

/// c(i) and -c(i) for every length: those of n begin at n / 2.
#[derive(Clone)]
pub(crate) struct Factors {
    values: [[f32; 2]; LONGEST],
}

impl Factors {
    pub(crate) fn new() -> Self {
        let mut values = [[0.0; 2]; LONGEST];
        for (at, value) in values.iter_mut().enumerate().skip(1) {
            let half = 1 << at.ilog2();
            let angle = PI * (2 * (at - half) + 1) as f64 / (4 * half) as f64;
            let c = (0.5 / angle.cos()) as f32;
            *value = [c, -c];
        }
        Self { values }
    }
}

/// Both directions of one length, in terms of those of half of it.
macro_rules! length {
    ($n:literal, $half:literal, $forward:ident, $inverse:ident, $half_forward:ident, $half_inverse:ident) => {
        #[inline(always)]
        fn $forward<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s; $n]) {
            let zero = simd.splat_f32s(0.0);
            let (mut a, mut b) = ([zero; $half], [zero; $half]);
            for i in 0..$half {
                let (front, back) = (x[i], x[$n - 1 - i]);
                a[i] = simd.add_f32s(front, back);
                let c = simd.splat_f32s(factors.values[$half + i][0]);
                b[i] = simd.mul_f32s(simd.sub_f32s(front, back), c);
            }
            $half_forward(simd, factors, &mut a);
            $half_forward(simd, factors, &mut b);
            for i in 0..$half - 1 {
                x[2 * i] = a[i];
                x[2 * i + 1] = simd.add_f32s(b[i], b[i + 1]);
            }
            x[$n - 2] = a[$half - 1];
            x[$n - 1] = b[$half - 1];
        }

        #[inline(always)]
        fn $inverse<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s; $n]) {
            let zero = simd.splat_f32s(0.0);
            let (mut a, mut b) = ([zero; $half], [zero; $half]);
            a[0] = x[0];
            b[0] = x[1];
            for i in 1..$half {
                a[i] = x[2 * i];
                b[i] = simd.add_f32s(x[2 * i + 1], x[2 * i - 1]);
            }
            $half_inverse(simd, factors, &mut a);
            $half_inverse(simd, factors, &mut b);
            for i in 0..$half {
                let [c, minus_c] = factors.values[$half + i];
                x[i] = simd.fused(b[i], simd.splat_f32s(c), a[i]);
                x[$n - 1 - i] = simd.fused(b[i], simd.splat_f32s(minus_c), a[i]);
            }
        }
    };
}

/// A length as a function of its own, either way. (A struct, because a closure is not always inlined, and what is
/// not has none of the vector instructions.)
macro_rules! function {
    ($n:literal, $call:ident, $forward:ident, $inverse:ident) => {
        struct $call<'a, S: Lanes, const INVERSE: bool>(S, &'a Factors, &'a mut [S::f32s; $n]);

        impl<S: Lanes, const INVERSE: bool> NullaryFnOnce for $call<'_, S, INVERSE> {
            type Output = ();

            #[inline(always)]
            fn call(self) {
                let Self(simd, factors, x) = self;
                if INVERSE { $inverse(simd, factors, x) } else { $forward(simd, factors, x) }
            }
        }
    };
}

/// From here on a function of its own: inlined, the longer ones would be too large for the instruction cache.
#[inline(always)]
fn call_forward_32<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s; 32]) {
    simd.vectorize(Length32::<S, false>(simd, factors, x));
}

#[inline(always)]
fn call_inverse_32<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s; 32]) {
    simd.vectorize(Length32::<S, true>(simd, factors, x));
}

#[inline(always)]
fn forward_2<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s; 2]) {
    let c = simd.splat_f32s(factors.values[1][0]);
    *x = [simd.add_f32s(x[0], x[1]), simd.mul_f32s(simd.sub_f32s(x[0], x[1]), c)];
}

#[inline(always)]
fn inverse_2<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s; 2]) {
    let [c, minus_c] = factors.values[1];
    *x = [simd.fused(x[1], simd.splat_f32s(c), x[0]), simd.fused(x[1], simd.splat_f32s(minus_c), x[0])];
}

length!(4, 2, forward_4, inverse_4, forward_2, inverse_2);
length!(8, 4, forward_8, inverse_8, forward_4, inverse_4);
length!(16, 8, forward_16, inverse_16, forward_8, inverse_8);
length!(32, 16, forward_32, inverse_32, forward_16, inverse_16);
length!(64, 32, forward_64, inverse_64, call_forward_32, call_inverse_32);
length!(128, 64, forward_128, inverse_128, forward_64, inverse_64);

function!(8, Length8, forward_8, inverse_8);
function!(16, Length16, forward_16, inverse_16);
function!(32, Length32, forward_32, inverse_32);
function!(64, Length64, forward_64, inverse_64);
function!(128, Length128, forward_128, inverse_128);

/// Calls one length, if `x` has it.
macro_rules! run {
    ($length:ident, $inverse:literal, $simd:ident, $factors:ident, $x:ident) => {
        if let Some(x) = $x.first_chunk_mut() {
            $simd.vectorize($length::<S, $inverse>($simd, $factors, x));
        }
    };
}

/// Replaces the lines `x`, one a lane, by their transforms, sqrt(n/2) times too large. Lengths that are not
/// [`has`] are left alone.
#[inline(always)]
pub(crate) fn forward<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s]) {
    match x.len() {
        8 => run!(Length8, false, simd, factors, x),
        16 => run!(Length16, false, simd, factors, x),
        32 => run!(Length32, false, simd, factors, x),
        64 => run!(Length64, false, simd, factors, x),
        128 => run!(Length128, false, simd, factors, x),
        _ => {}
    }
    if let Some(mean) = x.first_mut() {
        *mean = simd.mul_f32s(*mean, simd.splat_f32s(FRAC_1_SQRT_2 as f32));
    }
}

/// The reverse of [`forward`]: from coefficients to lines, again sqrt(n/2) times too large.
#[inline(always)]
pub(crate) fn inverse<S: Lanes>(simd: S, factors: &Factors, x: &mut [S::f32s]) {
    if let Some(mean) = x.first_mut() {
        *mean = simd.mul_f32s(*mean, simd.splat_f32s(FRAC_1_SQRT_2 as f32));
    }
    match x.len() {
        8 => run!(Length8, true, simd, factors, x),
        16 => run!(Length16, true, simd, factors, x),
        32 => run!(Length32, true, simd, factors, x),
        64 => run!(Length64, true, simd, factors, x),
        128 => run!(Length128, true, simd, factors, x),
        _ => {}
    }
}
