//! The inner optimizers: what turns a gradient into a local step.
//!
//! One flat vector of parameters, one of first moments `m`, one of second moments `v`. Under **AdamW**
//! (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) all parameters are updated by its rule; under
//! **Muon** the hidden matrices are by the rule of [`super::muon`], which uses `m` alone, and the rest by
//! AdamW. `v` holds only what AdamW updates: with Muon, a small part of the parameters. With gradient `g` (clipped), step number `t` from 1, learning rate `lr`, AdamW's rule is:
//!
//! ```text
//!     p = p - lr * weight_decay * p                 2-D parameters only; gains of normalisations are spared
//!     m = beta1 * m + (1 - beta1) * g
//!     v = beta2 * v + (1 - beta2) * g^2
//!     p = p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
//! ```
//!
//! All of it is a handful of in-place operations on whole vectors; the gradient's memory serves as
//! scratch. libtorch's own fused kernel (`_fused_adamw_`) is not exposed by `tch`, and the optimizer that
//! `tch` does expose neither works on one vector nor lets its moments be saved.
//!
//! Gradients are clipped by their global norm (Pascanu et al., arXiv 1211.5063). The norm also guards
//! against gradients that are not finite: one such number makes it so too, so a single scalar tells
//! whether to search for the culprit.

use super::muon::{Muon, OTHERS_SHARE, Rates, is_hidden_matrix};
use crate::model::{copy_into, copy_out_of, ensure_length, parameter_length};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::architecture::Parameter;
use swarm_protocol::genesis::InnerOptimizer;
use tch::{Device, Kind, TchError, Tensor};

/// The constants of the method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InnerConfig {
    /// Which rule.
    pub(crate) optimizer: InnerOptimizer,
    /// Number format of Muon's matrix products.
    pub(crate) compute: Kind,
    /// Decay of the mean of the gradients.
    pub(crate) beta1: f64,
    /// Decay of the mean of their squares.
    pub(crate) beta2: f64,
    /// Added to the root of the latter.
    pub(crate) eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate; 2-D parameters only.
    pub(crate) weight_decay: f64,
    /// Largest global norm of a gradient; longer ones are scaled down to it.
    pub(crate) clip: f64,
}

impl Default for InnerConfig {
    /// The usual values for transformers (GPT-3, arXiv 2005.14165, appendix B; llama, section 2.3).
    fn default() -> Self {
        Self {
            optimizer: InnerOptimizer::Adamw,
            compute: Kind::Float,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }
}

/// What [`Inner`] remembers between steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct InnerState {
    /// Steps taken.
    pub(crate) step: u64,
    /// Decayed mean of the gradients, in layout order.
    pub(crate) m: Vec<f32>,
    /// Decayed mean of the squared gradients of the parameters that AdamW updates, in layout order.
    pub(crate) v: Vec<f32>,
}

/// What became of a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The step was taken.
    Applied {
        /// Global norm of the gradient before clipping.
        norm: f64,
    },
    /// The gradient is not finite; nothing was changed.
    NotFinite,
}

/// The optimizer: constants, moments, and which rule updates which parts of the vector.
#[derive(Debug)]
pub(crate) struct Inner {
    config: InnerConfig,
    step: u64,
    /// f32 `[parameter_count]`.
    m: Tensor,
    /// f32, one run of `adamw` after another.
    v: Tensor,
    /// The runs of neighbouring 2-D parameters that AdamW updates.
    decayed: Vec<Run>,
    /// The runs that AdamW updates.
    adamw: Vec<Run>,
    /// What updates the rest, if there is a rest.
    muon: Option<Muon>,
}

/// `(start, length)` of a part of the flat vector.
type Run = (i64, i64);

/// The runs of neighbouring parameters that `chosen` picks.
fn runs(layout: &[Parameter], chosen: impl Fn(&Parameter) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut start = 0;
    for parameter in layout {
        let length = parameter_length(parameter) as i64;
        if chosen(parameter) {
            match runs.last_mut() {
                Some((run, run_length)) if *run + *run_length == start => *run_length += length,
                _ => runs.push((start, length)),
            }
        }
        start += length;
    }
    runs
}

impl Inner {
    /// An optimizer that has taken no step, for parameters with this layout.
    ///
    /// # Errors
    /// Constants outside their domain; not enough memory on the device.
    pub(crate) fn new(layout: &[Parameter], device: Device, config: InnerConfig) -> Result<Self> {
        let InnerConfig { beta1, beta2, eps, weight_decay, clip, optimizer, .. } = config;
        for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
            ensure!((0.0..1.0).contains(&beta), "{name} is {beta}: it must be at least 0 and less than 1");
        }
        for (name, value) in [("eps", eps), ("clip", clip)] {
            ensure!(value.is_finite() && value > 0.0, "{name} is {value}: it must be a positive number");
        }
        ensure!(
            weight_decay.is_finite() && weight_decay >= 0.0,
            "the weight decay is {weight_decay}: it must be 0 or a positive number"
        );
        let is_muons =
            |parameter: &Parameter| optimizer == InnerOptimizer::Muon && is_hidden_matrix(parameter);
        let decayed = runs(layout, |parameter| parameter.shape.len() > 1 && !is_muons(parameter));
        let adamw = runs(layout, |parameter| !is_muons(parameter));
        let muon = layout.iter().any(is_muons).then(|| Muon::new(layout));
        let count = layout.iter().map(parameter_length).sum::<usize>() as i64;
        let by_adamw = adamw.iter().map(|(_, length)| length).sum::<i64>();
        let zeros = |count: i64| Tensor::f_zeros([count], (Kind::Float, device));
        Ok(Self { config, step: 0, m: zeros(count)?, v: zeros(by_adamw)?, decayed, adamw, muon })
    }

    /// Steps taken.
    pub(crate) fn steps(&self) -> u64 {
        self.step
    }

    /// One step on `parameters` (f32 `[parameter_count]`, no gradient tracked, changed in place) with
    /// `gradient` (likewise; its memory is overwritten) and the positive learning rate `lr`.
    ///
    /// A gradient with a number in it that is not finite changes nothing.
    ///
    /// # Errors
    /// A learning rate that is not a positive number; tensors of a wrong shape.
    pub(crate) fn step(&mut self, parameters: &Tensor, gradient: &mut Tensor, lr: f64) -> Result<Outcome> {
        ensure!(lr.is_finite() && lr > 0.0, "the learning rate is {lr}: it must be a positive number");
        let norm = gradient.f_norm()?.f_double_value(&[])?;
        if !norm.is_finite() {
            return Ok(Outcome::NotFinite);
        }
        self.apply(parameters, gradient, norm, lr)?;
        Ok(Outcome::Applied { norm })
    }

    fn apply(
        &mut self,
        parameters: &Tensor,
        gradient: &mut Tensor,
        norm: f64,
        lr: f64,
    ) -> Result<(), TchError> {
        let InnerConfig { weight_decay, clip, compute, .. } = self.config;
        if norm > clip {
            let _ = gradient.f_mul_scalar_(clip / norm)?;
        }
        let adamw_lr = if self.muon.is_some() { OTHERS_SHARE * lr } else { lr };
        if weight_decay > 0.0 {
            for &(start, length) in &self.decayed {
                let _ =
                    parameters.f_narrow(0, start, length)?.f_mul_scalar_(1.0 - adamw_lr * weight_decay)?;
            }
        }
        self.step += 1;
        let mut squares = 0;
        for &run in &self.adamw {
            let v = self.v.f_narrow(0, squares, run.1)?;
            squares += run.1;
            self.adamw(parameters, gradient, v, run, adamw_lr)?;
        }
        if let Some(muon) = &self.muon {
            let rates = Rates { lr, weight_decay };
            muon.step(parameters, gradient, &self.m, rates, compute)?;
        }
        Ok(())
    }

    /// AdamW's rule for a part of the vector, whose second moments are `v`; weight decay apart.
    fn adamw(
        &self,
        parameters: &Tensor,
        gradient: &Tensor,
        mut v: Tensor,
        run: Run,
        lr: f64,
    ) -> Result<(), TchError> {
        let InnerConfig { beta1, beta2, eps, .. } = self.config;
        let part = |whole: &Tensor| whole.f_narrow(0, run.0, run.1);
        let (mut gradient, mut m) = (part(gradient)?, part(&self.m)?);
        let exponent = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (correction1, correction2) = (1.0 - beta1.powi(exponent), 1.0 - beta2.powi(exponent));
        let _ = m.f_lerp_(&gradient, 1.0 - beta1)?;
        let _ = gradient.f_square_()?;
        let _ = v.f_lerp_(&gradient, 1.0 - beta2)?;
        // From here on `gradient` is scratch. It becomes the denominator, scaled such that m divided by
        // it is the update with its sign: -(correction1 / lr) * (sqrt(v / correction2) + eps).
        let scale = -correction1 / lr;
        let mut denominator = v.f_sqrt_out(&gradient)?;
        let _ = denominator.f_mul_scalar_(scale / correction2.sqrt())?;
        let _ = denominator.f_add_scalar_(scale * eps)?;
        let _ = part(parameters)?.f_addcdiv_(&m, &denominator)?;
        Ok(())
    }

    /// A copy of everything that the next step depends on.
    ///
    /// # Errors
    /// If the device fails to hand it over.
    pub(crate) fn state(&self) -> Result<InnerState> {
        let copy = |source: &Tensor| -> Result<Vec<f32>, TchError> {
            let mut values = vec![0.0; source.numel()];
            copy_out_of(source, &mut values)?;
            Ok(values)
        };
        Ok(InnerState { step: self.step, m: copy(&self.m)?, v: copy(&self.v)? })
    }

    /// Takes up a state that [`Inner::state`] gave.
    ///
    /// # Errors
    /// Moments of a wrong length or with impossible values; the optimizer is then unchanged.
    pub(crate) fn restore(&mut self, state: &InnerState) -> Result<()> {
        ensure_length("first moments", state.m.len(), self.m.numel())?;
        ensure_length("second moments", state.v.len(), self.v.numel())?;
        ensure!(
            state.m.iter().all(|m| m.is_finite()) && state.v.iter().all(|v| v.is_finite() && *v >= 0.0),
            "the saved optimizer state holds values that no training can produce; it is damaged"
        );
        copy_into(&self.m, &state.m)?;
        copy_into(&self.v, &state.v)?;
        self.step = state.step;
        Ok(())
    }
}
