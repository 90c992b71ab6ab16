//! Model, optimizer and data together: one call, one step.
//!
//! # A step
//! Draw a batch of windows from the training text, compute the loss and its gradient, let the inner
//! optimizer change the parameters. If the loss or the gradient is not finite, nothing is changed, the step is counted as
//! skipped, and the report names the parameter where the search found the first bad number: first among
//! the values (a damaged parameter spoils every gradient), then among the gradients.
//!
//! # Micro-batches
//! A pass over a batch keeps numbers of every token until it goes back. Where that is too much memory, the batch is
//! taken in parts, and the gradient is the mean of theirs, weighted by windows: the same but for rounding. The
//! parts' gradients need one more vector as long as the parameters.
//!
//! # The learning rate
//! Rises linearly over the first `warmup_steps` steps, and follows the caller's schedule:
//! `lr(step) = rate * learning_rate * min(1, (step + 1) / warmup_steps)`, where `step` counts the steps
//! that the optimizer has taken, from 0. Its moments are estimates from few gradients at first; the
//! warm-up keeps the steps small until they are worth something. `rate` is a function of the swarm's
//! round, the same on every device, however many steps each has taken.
//!
//! # Stopping and continuing
//! A step depends on the parameters, the optimizer's moments and the sampler's position, and on nothing else. The
//! caller keeps the parameters; [`Learner::state`] gives the rest.

use super::inner::{Inner, InnerConfig, InnerState, Outcome};
use crate::data::{Examples, Sampler, SamplerState, TestSet};
use crate::model::{Batch, Network, Precision, parameter_length};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::genesis::{Genesis, InnerOptimizer};
use tch::Tensor;

use crate::trainer::Measured;

/// Examples that are evaluated at once, if a batch has fewer: without gradients they need no more memory.
const EVALUATED_AT_ONCE: usize = 8;

/// Everything that a [`Learner`] needs to know besides its network and its data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LearnerConfig {
    /// Number format of matrix products.
    pub(crate) precision: Precision,
    /// The rule of a step.
    pub(crate) optimizer: InnerOptimizer,
    /// Examples in a batch.
    pub(crate) batch: usize,
    /// Examples that go forward and back at once: [`LearnerConfig::batch`], or fewer to save memory.
    pub(crate) micro_batch: usize,
    /// Learning rate after the warm-up.
    pub(crate) learning_rate: f64,
    /// Steps over which the learning rate rises; 0 for none.
    pub(crate) warmup_steps: u64,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f64,
    /// Largest global norm of a gradient.
    pub(crate) clip: f64,
    /// Of the stream of training examples.
    pub(crate) seed: u64,
}

impl LearnerConfig {
    /// By the rules of `genesis`.
    pub(crate) fn of(genesis: &Genesis, precision: Precision, seed: u64) -> Self {
        let training = &genesis.training;
        Self {
            precision,
            optimizer: training.optimizer,
            batch: training.batch as usize,
            micro_batch: training.batch as usize,
            learning_rate: training.learning_rate,
            warmup_steps: training.warmup_steps.into(),
            weight_decay: training.weight_decay,
            clip: training.clip,
            seed,
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepReport {
    /// Mean loss of the batch before the step, in nats; not finite if the step was skipped for
    /// that reason.
    pub(crate) loss: f64,
    /// Global norm of the gradient before clipping; NaN if the step was skipped.
    pub(crate) gradient_norm: f64,
    /// Targets in the batch: tokens of a text.
    pub(crate) tokens: u64,
    /// Why the step was skipped, with a parameter's name; `None` if it was taken.
    pub(crate) skipped: Option<String>,
}

/// What a learner's next step depends on besides the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LearnerState {
    /// Of the optimizer.
    pub(crate) optimizer: InnerState,
    /// Of the stream of training windows.
    pub(crate) sampler: SamplerState,
}

/// A model that learns from data.
#[derive(Debug)]
pub(crate) struct Learner {
    config: LearnerConfig,
    model: Box<dyn Network>,
    optimizer: Inner,
    data: Box<dyn Examples>,
    sampler: Sampler,
    skipped_steps: u64,
    /// The optimizer's step at which the warm-up began.
    anew_at: u64,
    /// Memory for the next gradient, and for one of a part of the batch.
    spare: Option<Tensor>,
    spare_part: Option<Tensor>,
    /// Of a step that was left between two parts: its batch, how many examples are done, and the sums of their
    /// losses and gradients.
    left: Option<(Batch, usize, f64, Tensor)>,
}

impl Learner {
    /// A learner whose parameters are all zero: call [`Learner::set_parameters`] first.
    ///
    /// # Errors
    /// A configuration that makes no sense, with the name of the setting; not enough memory.
    pub(crate) fn new(
        config: LearnerConfig,
        model: Box<dyn Network>,
        data: Box<dyn Examples>,
    ) -> Result<Self> {
        let LearnerConfig { batch, micro_batch, learning_rate, weight_decay, clip, .. } = config;
        ensure!(batch >= 1, "the batch size is 0: it must be at least 1");
        ensure!(
            (1..=batch).contains(&micro_batch),
            "the micro-batch is {micro_batch} examples: it must be between 1 and the batch's {batch}"
        );
        ensure!(
            learning_rate.is_finite() && learning_rate > 0.0,
            "the learning rate is {learning_rate}: it must be a positive number"
        );
        let LearnerConfig { precision, optimizer, .. } = config;
        let constants = InnerConfig {
            optimizer,
            compute: precision.kind(),
            weight_decay,
            clip,
            ..InnerConfig::default()
        };
        let optimizer = Inner::new(model.layout(), model.device(), constants)?;
        let sampler = Sampler::new(config.seed);
        Ok(Self {
            config,
            model,
            optimizer,
            data,
            sampler,
            skipped_steps: 0,
            anew_at: 0,
            spare: None,
            spare_part: None,
            left: None,
        })
    }

    /// One step on one random batch, at `rate` (positive) times the configured learning rate.
    ///
    /// # Errors
    /// Text that can no longer be read, or a failure of the device (out of memory). A loss or gradient
    /// that is not finite is no error: see [`StepReport::skipped`].
    pub(crate) fn step(&mut self, rate: f64) -> Result<StepReport> {
        self.step_unless(rate, || false)?.context("a step that nobody has stopped")
    }

    /// The same, but if `stop` says so between two micro-batches, it is left there, and the next call goes on from
    /// there: `None`.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub(crate) fn step_unless(&mut self, rate: f64, stop: impl Fn() -> bool) -> Result<Option<StepReport>> {
        let Some((loss, mut gradient)) = self.gradient_unless(stop)? else { return Ok(None) };
        let report = self.apply(loss, &mut gradient, rate)?;
        self.reuse(gradient);
        Ok(Some(report))
    }

    /// Takes back a gradient of this learner's that nobody needs any more: the next one comes in its memory.
    pub(crate) fn reuse(&mut self, gradient: Tensor) {
        self.spare = Some(gradient);
    }

    /// The first half of a step: draws a batch, and gives its mean loss and the gradient, f32
    /// `[parameter_count]`.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub(crate) fn gradient(&mut self) -> Result<(f64, Tensor)> {
        self.gradient_unless(|| false)?.context("a batch of no examples")
    }

    fn gradient_unless(&mut self, stop: impl Fn() -> bool) -> Result<Option<(f64, Tensor)>> {
        let LearnerConfig { batch: count, micro_batch, .. } = self.config;
        // Where the model has moved since, what is there of the gradient is that much older.
        let (batch, begun, mut mean) = match self.left.take() {
            Some((batch, done, loss, gradient)) => (batch, done, Some((loss, gradient))),
            None => (self.data.draw(&mut self.sampler, count)?, 0, None),
        };
        for start in (begun..count).step_by(micro_batch) {
            if start > begun && stop() {
                self.left = mean.map(|(loss, gradient)| (batch, start, loss, gradient));
                return Ok(None);
            }
            let length = micro_batch.min(count - start);
            let part = batch.part(start, length, self.model.device())?;
            let share = length as f64 / count as f64;
            let Some((loss, gradient)) = &mut mean else {
                let (loss, mut gradient) = self.model.loss_and_gradient(&part, self.spare.take())?;
                if share < 1.0 {
                    let _ = gradient.f_mul_scalar_(share)?;
                }
                mean = Some((share * loss, gradient));
                continue;
            };
            let (loss_here, mut here) = self.model.loss_and_gradient(&part, self.spare_part.take())?;
            *loss += share * loss_here;
            let _ = gradient.f_add_(&here.f_mul_scalar_(share)?)?;
            self.spare_part = Some(here);
        }
        Ok(mean)
    }

    /// The second half of a step: lets the optimizer use a gradient (its memory is overwritten), which
    /// belongs to the given loss.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub(crate) fn apply(&mut self, loss: f64, gradient: &mut Tensor, rate: f64) -> Result<StepReport> {
        let lr = rate * self.warmed_up();
        let parameters = self.model.flat().f_detach()?;
        let outcome = if loss.is_finite() {
            self.optimizer.step(&parameters, gradient, lr)?
        } else {
            Outcome::NotFinite
        };
        let (gradient_norm, skipped) = match outcome {
            Outcome::Applied { norm } => (norm, None),
            Outcome::NotFinite => {
                self.skipped_steps += 1;
                (f64::NAN, Some(self.culprit(gradient)?))
            }
        };
        Ok(StepReport { loss, gradient_norm, tokens: self.tokens_a_step(), skipped })
    }

    /// The learning rate of the next step at a rate of 1.
    pub(crate) fn warmed_up(&self) -> f64 {
        self.warmed_up_at(self.optimizer.steps().saturating_sub(self.anew_at))
    }

    /// The learning rate after `step` steps at a rate of 1.
    pub(crate) fn warmed_up_at(&self, step: u64) -> f64 {
        let warmup = self.config.warmup_steps;
        if step >= warmup {
            return self.config.learning_rate;
        }
        self.config.learning_rate * (step + 1) as f64 / warmup as f64
    }

    /// Targets in a batch.
    pub(crate) fn tokens_a_step(&self) -> u64 {
        self.config.batch as u64 * self.data.targets()
    }

    /// Takes over another learner's parameters; the optimizer's moments stay.
    ///
    /// # Errors
    /// A learner of another model; a failure of the device.
    pub(crate) fn copy_parameters(&mut self, other: &Self) -> Result<()> {
        self.model.flat().f_detach()?.f_copy_(&other.model.flat().f_detach()?)?;
        Ok(())
    }

    /// Steps skipped because something was not finite.
    pub(crate) fn skipped_steps(&self) -> u64 {
        self.skipped_steps
    }

    /// Number of parameters.
    #[cfg(test)]
    pub(crate) fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    /// What it learns from.
    pub(crate) fn data(&self) -> &dyn Examples {
        self.data.as_ref()
    }

    /// Overwrites all parameters, in layout order; the optimizer's moments stay.
    ///
    /// # Errors
    /// As [`Network::set_parameters`].
    pub(crate) fn set_parameters(&mut self, values: &[f32]) -> Result<()> {
        self.model.set_parameters(values)
    }

    /// Copies all parameters into `out`, in layout order.
    ///
    /// # Errors
    /// As [`Network::read_parameters`].
    pub(crate) fn read_parameters(&self, out: &mut [f32]) -> Result<()> {
        self.model.read_parameters(out)
    }

    /// Mean loss on `set` in nats, as [`Learner::measure`].
    ///
    /// # Errors
    /// As [`Learner::measure`].
    pub(crate) fn evaluate(&self, set: &dyn TestSet, most: usize) -> Result<f64> {
        self.measure(set, most).map(|measured| measured.loss)
    }

    /// Loss and accuracy on `set`, over at most `most` windows' worth of examples that are evenly spaced and do not
    /// overlap. The same set gives the same examples.
    ///
    /// # Errors
    /// A set without an example, `most` of 0, data that can no longer be read, a failure of the device.
    pub(crate) fn measure(&self, set: &dyn TestSet, most: usize) -> Result<Measured> {
        let count = set.len().min((most as u64).saturating_mul(set.examples_a_window()));
        ensure!(count > 0, "nothing to evaluate: {}, and at most {most} examples are wanted", set.amount());
        let (mut sum, mut hits) = (0.0, Some(0.0));
        let at_once = self.config.micro_batch.max(EVALUATED_AT_ONCE);
        for start in (0..count).step_by(at_once) {
            let batch = set.read(start..count.min(start + at_once as u64), count)?;
            let batch = batch.part(0, batch.len(), self.model.device())?;
            let loss = tch::no_grad(|| self.model.loss(&batch))?;
            sum += loss.f_double_value(&[])? * batch.len() as f64;
            if let Some(before) = hits {
                hits = tch::no_grad(|| self.model.hits(&batch))?.map(|here| before + here);
            }
        }
        Ok(Measured { loss: sum / count as f64, accuracy: hits.map(|hits| hits / count as f64) })
    }

    /// As [`Learner::measure`], on what is held out of the data.
    ///
    /// # Errors
    /// As [`Learner::measure`].
    pub(crate) fn measure_held_out(&self, most: usize) -> Result<Measured> {
        self.measure(self.data.as_test_set(), most)
    }

    /// As [`Learner::evaluate`], on what is held out of the data.
    ///
    /// # Errors
    /// As [`Learner::evaluate`].
    #[cfg(test)]
    pub(crate) fn held_out_loss(&self, most: usize) -> Result<f64> {
        self.measure_held_out(most).map(|measured| measured.loss)
    }

    /// Forgets the mean gradient and warms up again; the mean squares stay.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn begin_anew(&mut self) -> Result<()> {
        let mut state = self.optimizer.state()?;
        state.m.fill(0.0);
        self.optimizer.restore(&state)?;
        self.anew_at = self.optimizer.steps();
        Ok(())
    }

    /// What the next step depends on besides the parameters.
    ///
    /// # Errors
    /// If the device fails to hand it over.
    pub(crate) fn state(&self) -> Result<LearnerState> {
        Ok(LearnerState { optimizer: self.optimizer.state()?, sampler: self.sampler.state() })
    }

    /// Takes up a state that [`Learner::state`] gave. Its sampler's seed replaces the configured one.
    ///
    /// # Errors
    /// As [`Inner::restore`]; the learner is then unchanged.
    pub(crate) fn restore(&mut self, state: &LearnerState) -> Result<()> {
        self.optimizer.restore(&state.optimizer)?;
        self.sampler = Sampler::restore(state.sampler);
        Ok(())
    }

    /// Names the parameter that a loss or gradient which is not finite comes from.
    fn culprit(&self, gradient: &Tensor) -> Result<String> {
        let values = self.model.flat().f_detach()?;
        for (what, vector) in [("the value of", &values), ("the gradient of", gradient)] {
            let mut start = 0;
            for parameter in self.model.layout() {
                let length = parameter_length(parameter) as i64;
                let finite = vector.f_narrow(0, start, length)?.f_isfinite()?.f_all()?;
                if finite.f_int64_value(&[])? == 0 {
                    return Ok(format!("{what} {} is not finite", parameter.name));
                }
                start += length;
            }
        }
        Ok("the loss or the norm of the gradient is too large for its number format".into())
    }
}

/// Sets how many threads libtorch uses for one operation on the CPU.
///
/// OpenMP keeps this number per thread: call it on the thread that will train.
///
/// # Errors
/// 0 threads.
pub(crate) fn set_threads(threads: usize) -> Result<()> {
    ensure!(threads >= 1, "0 threads: at least one is needed");
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    Ok(())
}
