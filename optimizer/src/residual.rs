//! The residual R: what a device has learned and not yet told anyone, in the DCT domain.
//!
//! ```text
//! Q = inverseDCT(C - R)        this device's own model: the shared C, plus what only it knows
//! ```
//!
//! Local training moves Q by a displacement; `accumulate` adds its transform to R (with the sign that
//! makes the line above true again). `extract` takes the large, fast components out of R as small
//! multiples of a step; R keeps exactly what was not sent, so nothing is lost to rounding (error
//! feedback, Seide et al. 2014; DeMo's decoupled momentum, arXiv 2411.19870, without its decay).
//! Everything here is local float arithmetic: no rounding in it can part two peers.

use thiserror::Error;

use crate::coefficients::{Coefficients, UNIT};
use crate::kernels::{Kernels, Pass};
use crate::layout::Layout;
use crate::sparse::SparseDelta;

/// A displacement held a NaN or an infinity (or a value above 1e19, whose square is one).
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("parameter {parameter}: training produced a value that is not finite")]
pub struct NotFinite {
    /// The first parameter concerned.
    pub parameter: String,
}

/// R in coefficient order, in units of model parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    values: Vec<f32>,
}

impl Residual {
    /// A residual with nothing in it.
    pub fn zeros(layout: &Layout) -> Self {
        Self { values: vec![0.0; layout.len()] }
    }

    /// Takes over values in coefficient order, such as a snapshot's, or `None` if their number is wrong
    /// or one is not finite.
    pub fn from_values(layout: &Layout, values: Vec<f32>) -> Option<Self> {
        (values.len() == layout.len() && values.iter().all(|v| v.is_finite())).then_some(Self { values })
    }

    /// R in coefficient order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The Euclidean norm of R: how much this device has not yet told.
    pub fn norm(&self) -> f64 {
        self.values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
    }

    /// `R += DCT(before - after)`: what local training moved the parameters by. Both slices are in
    /// parameter order. Returns the Euclidean norm of it.
    ///
    /// # Errors
    /// [`NotFinite`] if either holds a NaN or an infinity; R is then unchanged, but for rounding.
    pub fn accumulate(
        &mut self,
        layout: &Layout,
        kernels: &mut Kernels,
        before: &[f32],
        after: &[f32],
    ) -> Result<f64, NotFinite> {
        let mut nothing = SparseDelta::default();
        self.advance(layout, kernels, Pass { moved: Some((before, after)), extract: None }, &mut nothing)
    }

    /// Takes the `k` largest coefficients of every full tile (other tiles at the same density) out of R,
    /// each rounded to a whole number of the tile's step, at most [`crate::sparse::MAX_LEVEL`] of them and at
    /// most `2^max_exponent` units. R keeps the difference, and all of what is private in `layout`.
    pub fn extract(
        &mut self,
        layout: &Layout,
        kernels: &mut Kernels,
        k: usize,
        max_exponent: u8,
    ) -> SparseDelta {
        let mut delta = SparseDelta::default();
        let pass = Pass { moved: None, extract: Some((k, max_exponent)) };
        // Without a displacement nothing can be wrong with it.
        let _ = self.advance(layout, kernels, pass, &mut delta);
        delta
    }

    /// [`Residual::accumulate`], then [`Residual::extract`] into `delta`, in one pass over memory.
    ///
    /// # Errors
    /// As [`Residual::accumulate`]; `delta` is then empty.
    #[allow(clippy::too_many_arguments)] // All of a round.
    pub fn accumulate_and_extract(
        &mut self,
        layout: &Layout,
        kernels: &mut Kernels,
        before: &[f32],
        after: &[f32],
        k: usize,
        max_exponent: u8,
        delta: &mut SparseDelta,
    ) -> Result<f64, NotFinite> {
        let pass = Pass { moved: Some((before, after)), extract: Some((k, max_exponent)) };
        self.advance(layout, kernels, pass, delta)
    }

    fn advance(
        &mut self,
        layout: &Layout,
        kernels: &mut Kernels,
        pass: Pass<'_>,
        delta: &mut SparseDelta,
    ) -> Result<f64, NotFinite> {
        delta.clear();
        kernels.advance(layout, &mut self.values, pass, delta).map(f64::sqrt).map_err(|tile| {
            // The other tiles have taken up what moved and given some of it away.
            self.give_back(layout, delta);
            delta.clear();
            let back = pass.moved.map(|(before, after)| (after, before));
            let _ = kernels.advance(layout, &mut self.values, Pass { moved: back, extract: None }, delta);
            let name = layout.tiles().get(tile).and_then(|tile| layout.parameter_at(tile.offset));
            NotFinite { parameter: name.unwrap_or("?").to_owned() }
        })
    }

    /// Puts what `delta` carried back: it was not accepted into the shared model after all.
    pub fn give_back(&mut self, layout: &Layout, delta: &SparseDelta) {
        delta.for_each(layout, |index, units| self.values[index] += units as f32 * UNIT);
    }

    /// Takes up `share` of what C gained from `before` to `after`. With all of it (1), `inverseDCT(after - R)` is
    /// then what `inverseDCT(before - R)` was, but for rounding; with nothing (0) the model moves as far as C did.
    pub fn rebase(&mut self, before: &Coefficients, after: &Coefficients, share: f32) {
        let gained = before.values().iter().zip(after.values()).map(|(old, new)| new.wrapping_sub(*old));
        self.values.iter_mut().zip(gained).for_each(|(value, gained)| *value += share * gained as f32 * UNIT);
    }

    /// [`Residual::rebase`], of the tiles flagged in `only` (one flag a tile) alone.
    pub fn rebase_tiles(
        &mut self,
        layout: &Layout,
        before: &Coefficients,
        after: &Coefficients,
        only: &[bool],
        share: f32,
    ) {
        for (tile, _) in layout.tiles().iter().zip(only).filter(|(_, only)| **only) {
            let both = before.values()[tile.range()].iter().zip(&after.values()[tile.range()]);
            let gained = both.map(|(old, new)| new.wrapping_sub(*old));
            let values = &mut self.values[tile.range()];
            values.iter_mut().zip(gained).for_each(|(value, gained)| *value += share * gained as f32 * UNIT);
        }
    }

    /// Takes out what `delta` carried: it was sent after this residual was saved.
    pub fn take_out(&mut self, layout: &Layout, delta: &SparseDelta) {
        delta.for_each(layout, |index, units| self.values[index] -= units as f32 * UNIT);
    }
}

/// Writes the model into `out`, in parameter order: `inverseDCT(C - R)`, the device's own, or
/// `inverseDCT(C)`, the shared one, without a residual. Only tiles flagged in `only` (one flag a tile)
/// are written, if given.
pub fn model(
    layout: &Layout,
    kernels: &mut Kernels,
    shared: &Coefficients,
    residual: Option<&Residual>,
    only: Option<&[bool]>,
    out: &mut [f32],
) {
    kernels.model(layout, shared, residual.map(Residual::values), only, out);
}

/// [`model`] of everything, once, in memory of its own. What does it again and again keeps its [`Kernels`].
pub fn whole_model(layout: &Layout, shared: &Coefficients, residual: Option<&Residual>) -> Vec<f32> {
    let mut flat = vec![0.0; layout.len()];
    model(layout, &mut Kernels::single(layout), shared, residual, None, &mut flat);
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coefficients::Direction;
    use crate::sparse::Entry;
    use proptest::prelude::*;

    fn layout() -> Layout {
        Layout::new([("m", vec![40, 20]), ("v", vec![33])], 16).unwrap()
    }

    fn noise(seed: u64, n: usize, scale: f32) -> Vec<f32> {
        let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
            })
            .collect()
    }

    fn close(a: &[f32], b: &[f32], tolerance: f32) {
        for (index, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= tolerance, "scalar {index}: {a} against {b}");
        }
    }

    proptest! {
        /// The equation of the design: after any local step, C - R gives back the trained model, and a
        /// fold of one's own delta alone leaves it where it was.
        #[test]
        fn c_minus_r_gives_back_q(seed in any::<u64>(), k in 1usize..256) {
            let layout = layout();
            let mut kernels = Kernels::single(&layout);
            let c0 = noise(seed, layout.len(), 300_000.0).iter().map(|v| *v as i32).collect();
            let mut c = Coefficients::new(c0);
            let mut r = Residual::zeros(&layout);
            let mut q = vec![0.0; layout.len()];
            model(&layout, &mut kernels, &c, Some(&r), None, &mut q);
            for round in 0..3 {
                let step = noise(seed ^ (round + 7), layout.len(), 0.01);
                let trained: Vec<f32> = q.iter().zip(&step).map(|(q, s)| q + s).collect();
                r.accumulate(&layout, &mut kernels, &q, &trained).unwrap();
                model(&layout, &mut kernels, &c, Some(&r), None, &mut q);
                close(&q, &trained, 5e-6);

                let before = r.norm();
                let delta = r.extract(&layout, &mut kernels, k, 18);
                prop_assert!(!delta.is_empty() && r.norm() < before);
                let mut touched = vec![false; layout.tiles().len()];
                c.fold(&layout, &[&delta], Direction::In, &mut touched);
                model(&layout, &mut kernels, &c, Some(&r), Some(&touched), &mut q);
                close(&q, &trained, 5e-6);
            }
        }

        #[test]
        fn what_is_returned_is_what_was_taken(seed in any::<u64>()) {
            let layout = layout();
            let mut kernels = Kernels::single(&layout);
            let r = Residual::from_values(&layout, noise(seed, layout.len(), 0.02)).unwrap();
            let mut changed = r.clone();
            let delta = changed.extract(&layout, &mut kernels, 64, 18);
            let sent = changed.clone();
            changed.give_back(&layout, &delta);
            close(changed.values(), r.values(), 1e-8);
            changed.take_out(&layout, &delta);
            close(changed.values(), sent.values(), 1e-8);
        }
    }

    #[test]
    fn levels_are_multiples_of_a_step_under_the_cap() {
        let layout = Layout::new([("v", vec![8])], 8).unwrap();
        let mut kernels = Kernels::single(&layout);
        let mut r = Residual::from_values(&layout, vec![0.0, 3.0, 0.0, 0.0, -5.0, 0.0, 0.0, 0.1]).unwrap();
        let delta = r.extract(&layout, &mut kernels, 16, 18);
        let all: Vec<_> = delta.tiles().map(|(tile, step, e)| (tile, step.units(), e.to_vec())).collect();
        let entry = |position, level| Entry { position, level };
        // The mean is far beyond the cap of a quarter, which is then the step.
        assert_eq!(all, [(0, 1 << 18, vec![entry(1, 1), entry(4, -1)])]);
        assert_eq!(r.values(), [0.0, 2.75, 0.0, 0.0, -4.75, 0.0, 0.0, 0.1]);
        // One that is far larger than the others is sent in several steps, at once as far as levels go.
        let mut r =
            Residual::from_values(&layout, vec![0.01, -0.01, 0.01, 0.1, 0.01, 0.01, 0.0, 0.0]).unwrap();
        let delta = r.extract(&layout, &mut kernels, 48, 18);
        let levels: Vec<i8> = delta.tiles().flat_map(|(.., entries)| entries).map(|e| e.level).collect();
        assert_eq!(levels, [1, -1, 1, 6, 1, 1]);
        assert!(r.norm() < 0.02, "{}", r.norm());
        // Less than half of the smallest step is not worth a word.
        let mut tiny = Residual::from_values(&layout, vec![3.9 * UNIT; 8]).unwrap();
        assert!(tiny.extract(&layout, &mut kernels, 16, 18).is_empty());
        let mut low = Residual::from_values(&layout, vec![0.01; 8]).unwrap();
        low.extract(&layout, &mut kernels, 64, 8)
            .for_each(&layout, |_, units| assert!(units.abs() <= 1 << 8));
    }

    /// At any density, what is left of normally distributed coefficients is what rate-distortion theory
    /// allows a scalar quantiser, roughly: the rule for the step is good at all of them.
    #[test]
    fn little_is_left() {
        let layout = Layout::new([("m", vec![128, 128])], 64).unwrap();
        let mut kernels = Kernels::single(&layout);
        // Sums of twelve uniform numbers.
        let values: Vec<f32> =
            (0..layout.len() as u64).map(|i| noise(i, 12, 0.01).iter().sum::<f32>() / 2.0).collect();
        for (k, most) in [(128, 0.82), (256, 0.70), (1024, 0.34), (2048, 0.12), (3072, 0.03), (4096, 0.005)] {
            let mut r = Residual::from_values(&layout, values.clone()).unwrap();
            let before = r.norm();
            r.extract(&layout, &mut kernels, k, 18);
            let left = (r.norm() / before).powi(2);
            assert!(left < most, "k = {k}: {left:.3} of the energy is left");
        }
    }

    #[test]
    fn a_rebased_residual_keeps_the_model() {
        let layout = layout();
        let count = layout.len() as i32;
        let before = Coefficients::new((0..count).map(|i| i * 1000 - 77).collect());
        let after = Coefficients::new((0..count).map(|i| i * i % 90_001).collect());
        let values = noise(3, layout.len(), 0.1);
        let mut residual = Residual::from_values(&layout, values).unwrap();
        let mut kernels = Kernels::single(&layout);
        let mut models = [vec![0.0; layout.len()], vec![0.0; layout.len()]];
        model(&layout, &mut kernels, &before, Some(&residual), None, &mut models[0]);
        let mut half = residual.clone();
        residual.rebase(&before, &after, 1.0);
        model(&layout, &mut kernels, &after, Some(&residual), None, &mut models[1]);
        let furthest = models[0].iter().zip(&models[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-5, "{furthest}");
        let own = half.values().to_vec();
        half.rebase(&before, &after, 0.5);
        for ((half, whole), own) in half.values().iter().zip(residual.values()).zip(own) {
            assert!((half - (whole + own) / 2.0).abs() < 1e-6, "{half} {whole} {own}");
        }
    }

    /// What is private is learned, never sent, and stays as it is whatever the others do.
    #[test]
    fn private_tiles_are_trained_and_not_sent() {
        let all = layout();
        let of_v = all.tiles_of(|name| name == "v");
        let kernels = || Kernels::single(&all);
        let (zeros, step) = (vec![0.0; all.len()], noise(1, all.len(), 0.01));
        let extract = |layout: &Layout| {
            let (mut residual, mut delta) = (Residual::zeros(layout), SparseDelta::default());
            residual
                .accumulate_and_extract(layout, &mut kernels(), &zeros, &step, 16, 18, &mut delta)
                .unwrap();
            (residual, delta)
        };
        let (residual, delta) = extract(&all.clone().with_private(|name| name == "v"));
        assert!(!delta.is_empty() && delta.tiles().all(|(tile, ..)| !of_v[tile]));
        let (_, open) = extract(&all);
        assert!(open.tiles().any(|(tile, ..)| of_v[tile]), "it would have been sent");

        let before = Coefficients::new(vec![1000; all.len()]);
        let after = Coefficients::new((0..all.len() as i32).map(|i| i * 777).collect());
        let mut kept = residual;
        let mut models = [vec![0.0; all.len()], vec![0.0; all.len()]];
        model(&all, &mut kernels(), &before, Some(&kept), None, &mut models[0]);
        kept.rebase_tiles(&all, &before, &after, &of_v, 1.0);
        model(&all, &mut kernels(), &after, Some(&kept), None, &mut models[1]);
        close(&models[0][800..], &models[1][800..], 1e-5);
        assert!((models[0][0] - models[1][0]).abs() > 1e-3, "the others' part moved");
    }

    #[test]
    fn not_finite_is_refused_by_name_and_changes_nothing() {
        let layout = layout();
        let mut kernels = Kernels::single(&layout);
        let mut r = Residual::zeros(&layout);
        let before = vec![0.0; layout.len()];
        let mut after = before.clone();
        after[801] = f32::NAN;
        let error = r.accumulate(&layout, &mut kernels, &before, &after).unwrap_err();
        assert_eq!(error.parameter, "v");
        assert_eq!(r, Residual::zeros(&layout));
    }
}
