//! One device's part in the swarm's rule: its model Q, its residual R, and how the two follow C.
//!
//! ```text
//!   a new C   R += DCT(start - now);  C = the new one;  Q = inverseDCT(C - R);  start = Q
//!   extract   R += DCT(start - now);  delta = R's largest, which leave R
//! ```
//!
//! What training moved is taken into R before C changes, so a fold in between two steps moves the model
//! without pushing anybody's work back, and the inner optimizer's moments live on. The node's trainer and
//! the laboratory use this one and the same code.
//!
//! What is private is not extracted, and whatever C does there, Q stays: R takes up all that C gains.

use std::sync::Arc;

use anyhow::Result;
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::{NotFinite, Residual, model};
use swarm_optimizer::sparse::SparseDelta;

use super::learner::Learner;

/// How much of its own way a device keeps when C leaves its history for another, and so tells the swarm again.
///
/// All of it pulls the shared model towards an average of two models that have gone different ways, and such an
/// average is worse than either. (`swarm lab`, nano, 3 of 8 learners cut off for rounds 20 to 119 of 170, seed 1:
/// loss 1.454 with 1, 1.413 with 0.3, 1.408 with 0, and 1.376 for a swarm that was never parted.)
const KEPT: f32 = 0.25;

/// A learner with a residual, and the C that it starts from.
pub(crate) struct Member {
    /// The model and its text.
    pub(crate) learner: Learner,
    layout: Arc<Layout>,
    kernels: Kernels,
    residual: Residual,
    shared: Option<Coefficients>,
    /// One flag a tile, or none at all.
    private: Vec<bool>,
    /// The parameters when R last took up what training moved.
    start: Vec<f32>,
    now: Vec<f32>,
}

impl Member {
    /// Vectors that it holds besides the residual and C, f32 and as long as the parameters: `start` and `now`.
    pub(crate) const VECTORS: u64 = 2;

    /// A member without a C: call [`Member::fold`] first. All vectors are `layout.len()` long. What is private in
    /// `layout` is this device's own. Its own arithmetic takes as many threads as libtorch's.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(layout: Arc<Layout>, learner: Learner, residual: Residual) -> Result<Self> {
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let private: Vec<bool> = (0..layout.tiles().len()).map(|index| layout.is_private(index)).collect();
        Ok(Self {
            learner,
            kernels: Kernels::new(&layout, threads)?,
            residual,
            shared: None,
            private: if private.contains(&true) { private } else { Vec::new() },
            start: vec![0.0; layout.len()],
            now: vec![0.0; layout.len()],
            layout,
        })
    }

    /// R.
    pub(crate) fn residual(&self) -> &Residual {
        &self.residual
    }

    /// What is mine to put back: a delta that did not enter the shared model.
    pub(crate) fn give_back(&mut self, delta: &SparseDelta) {
        self.residual.give_back(&self.layout, delta);
    }

    /// A delta that was given back is in the shared model after all.
    pub(crate) fn take_out(&mut self, delta: &SparseDelta) {
        self.residual.take_out(&self.layout, delta);
    }

    /// C leaves one history for another, and deltas of this device with it: [`KEPT`] of the way between the two
    /// goes to R. The inner optimizer's mean gradient, which led along the old history, begins anew, and so does
    /// the warm-up.
    ///
    /// # Errors
    /// A failure of the device.
    pub(crate) fn rebase(&mut self, before: &Coefficients, after: &Coefficients) -> Result<()> {
        self.take_up()?;
        self.residual.rebase(before, after, KEPT);
        // Folding the new one takes up all of it there.
        self.residual.rebase_tiles(&self.layout, before, after, &self.private, -KEPT);
        if let Some(shared) = &self.shared {
            model(&self.layout, &mut self.kernels, shared, Some(&self.residual), None, &mut self.start);
            self.learner.set_parameters(&self.start)?;
        }
        self.learner.begin_anew()
    }

    /// Takes over a newer C, changed in the tiles flagged in `touched` since the last one.
    ///
    /// # Errors
    /// A failure of the device.
    pub(crate) fn fold(&mut self, shared: Coefficients, touched: &[bool]) -> Result<()> {
        self.take_up()?;
        if let Some(before) = &self.shared {
            self.residual.rebase_tiles(&self.layout, before, &shared, &self.private, 1.0);
        }
        let others: Vec<bool> =
            touched.iter().zip(&self.private).map(|(touched, private)| *touched && !private).collect();
        let only = if self.private.is_empty() { touched } else { &others };
        let only = self.shared.is_some().then_some(only);
        model(&self.layout, &mut self.kernels, &shared, Some(&self.residual), only, &mut self.start);
        self.shared = Some(shared);
        self.learner.set_parameters(&self.start)
    }

    /// Goes on where a member was saved: with its C, its R and its parameters as they were, bit for bit.
    ///
    /// # Errors
    /// Parameters of another model; a failure of the device.
    pub(crate) fn resume(&mut self, shared: Coefficients, residual: Residual, flat: &[f32]) -> Result<()> {
        self.learner.set_parameters(flat)?;
        self.start.copy_from_slice(flat);
        self.shared = Some(shared);
        self.residual = residual;
        Ok(())
    }

    /// R takes up what training has moved since it last did; returns the Euclidean norm of that.
    ///
    /// # Errors
    /// A failure of the device.
    pub(crate) fn take_up(&mut self) -> Result<f64> {
        if self.shared.is_none() {
            return Ok(0.0);
        }
        self.learner.read_parameters(&mut self.now)?;
        let moved = self.residual.accumulate(&self.layout, &mut self.kernels, &self.start, &self.now);
        self.taken_up(moved)
    }

    /// What was moved is in R, or it was of no use: then the parameters go back to where they were.
    fn taken_up(&mut self, moved: Result<f64, NotFinite>) -> Result<f64> {
        match moved {
            Ok(norm) => {
                std::mem::swap(&mut self.start, &mut self.now);
                Ok(norm)
            }
            Err(error) => {
                tracing::error!("{error}: the steps since the last fold are taken back");
                self.learner.set_parameters(&self.start)?;
                Ok(f64::NAN)
            }
        }
    }

    /// Takes up what was trained, and takes R's `k` largest coefficients of a full tile out of it.
    ///
    /// # Errors
    /// As [`Member::take_up`].
    pub(crate) fn extract(&mut self, k: usize, max_exponent: u8) -> Result<SparseDelta> {
        if self.shared.is_some() {
            self.learner.read_parameters(&mut self.now)?;
            let (layout, kernels) = (&*self.layout, &mut self.kernels);
            let mut delta = SparseDelta::default();
            let moved = self.residual.accumulate_and_extract(
                layout,
                kernels,
                &self.start,
                &self.now,
                k,
                max_exponent,
                &mut delta,
            );
            let fine = moved.is_ok();
            self.taken_up(moved)?;
            if fine {
                return Ok(delta);
            }
        }
        Ok(self.residual.extract(&self.layout, &mut self.kernels, k, max_exponent))
    }

    /// Runs `measure` with the shared model in the learner's place; the parameters are as before
    /// afterwards. `None` before the first fold.
    ///
    /// # Errors
    /// What `measure` fails with; a failure of the device.
    pub(crate) fn with_shared<T>(
        &mut self,
        measure: impl FnOnce(&Learner) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let mut common = vec![0.0; self.layout.len()];
        model(&self.layout, &mut self.kernels, shared, None, None, &mut common);
        self.learner.read_parameters(&mut self.now)?;
        self.learner.set_parameters(&common)?;
        let measured = measure(&self.learner);
        self.learner.set_parameters(&self.now)?;
        measured.map(Some)
    }
}
