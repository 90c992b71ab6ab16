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
use crate::data::{Corpus, Sampler, SamplerState};
use crate::model::{Llama, Precision, parameter_length};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::architecture::Architecture;
use swarm_protocol::genesis::{Genesis, InnerOptimizer};
use tch::{Device, Kind, TchError, Tensor};

/// Windows that are evaluated at once, if a batch has fewer: without gradients they need no more memory.
const EVALUATED_AT_ONCE: usize = 8;

/// Everything that a [`Learner`] needs to know besides its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LearnerConfig {
    /// Sizes of the model.
    pub(crate) arch: Architecture,
    /// Where to compute.
    pub(crate) device: Device,
    /// Number format of matrix products.
    pub(crate) precision: Precision,
    /// The rule of a step.
    pub(crate) optimizer: InnerOptimizer,
    /// Windows in a batch.
    pub(crate) batch: usize,
    /// Windows that go forward and back at once: [`LearnerConfig::batch`], or fewer to save memory.
    pub(crate) micro_batch: usize,
    /// Bytes in a window's input, at most the architecture's context.
    pub(crate) context: usize,
    /// Learning rate after the warm-up.
    pub(crate) learning_rate: f64,
    /// Steps over which the learning rate rises; 0 for none.
    pub(crate) warmup_steps: u64,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f64,
    /// Largest global norm of a gradient.
    pub(crate) clip: f64,
    /// Of the stream of training windows.
    pub(crate) seed: u64,
}

impl LearnerConfig {
    /// By the rules of `genesis`.
    pub(crate) fn of(genesis: &Genesis, device: Device, precision: Precision, seed: u64) -> Self {
        let training = &genesis.training;
        Self {
            arch: genesis.model,
            device,
            precision,
            optimizer: training.optimizer,
            batch: training.batch as usize,
            micro_batch: training.batch as usize,
            context: genesis.model.context as usize,
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
    /// Mean loss of the batch before the step, in nats per byte; not finite if the step was skipped for
    /// that reason.
    pub(crate) loss: f64,
    /// Global norm of the gradient before clipping; NaN if the step was skipped.
    pub(crate) gradient_norm: f64,
    /// Target bytes in the batch.
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

/// A model that learns from a text.
#[derive(Debug)]
pub(crate) struct Learner {
    config: LearnerConfig,
    model: Llama,
    optimizer: Inner,
    corpus: Corpus,
    sampler: Sampler,
    skipped_steps: u64,
    /// The optimizer's step at which the warm-up began.
    anew_at: u64,
    /// Memory for the next gradient, and for one of a part of the batch.
    spare: Option<Tensor>,
    spare_part: Option<Tensor>,
    /// One batch of windows, `batch * (context + 1)` bytes.
    windows: Vec<u8>,
}

impl Learner {
    /// A learner whose parameters are all zero: call [`Learner::set_parameters`] first.
    ///
    /// # Errors
    /// A configuration that makes no sense, with the name of the setting; not enough memory.
    pub(crate) fn new(config: LearnerConfig, corpus: Corpus) -> Result<Self> {
        let LearnerConfig { arch, device, batch, micro_batch, context, .. } = config;
        let LearnerConfig { learning_rate, weight_decay, clip, .. } = config;
        ensure!(batch >= 1, "the batch size is 0: it must be at least 1");
        ensure!(
            (1..=batch).contains(&micro_batch),
            "the micro-batch is {micro_batch} windows: it must be between 1 and the batch's {batch}"
        );
        ensure!(
            (1..=arch.context as usize).contains(&context),
            "the context is {context} bytes: it must be between 1 and the model's {}",
            arch.context
        );
        ensure!(
            learning_rate.is_finite() && learning_rate > 0.0,
            "the learning rate is {learning_rate}: it must be a positive number"
        );
        let LearnerConfig { precision, optimizer, .. } = config;
        let model = Llama::new(&arch, device)?.with_precision(precision);
        let constants = InnerConfig {
            optimizer,
            compute: precision.kind(),
            weight_decay,
            clip,
            ..InnerConfig::default()
        };
        let optimizer = Inner::new(model.layout(), device, constants)?;
        let length = batch.checked_mul(context + 1).context("the batch size is too large")?;
        let mut windows = Vec::new();
        windows.try_reserve_exact(length).with_context(|| format!("a batch of {batch} windows"))?;
        windows.resize(length, 0);
        let sampler = Sampler::new(config.seed);
        Ok(Self {
            config,
            model,
            optimizer,
            corpus,
            sampler,
            skipped_steps: 0,
            anew_at: 0,
            spare: None,
            spare_part: None,
            windows,
        })
    }

    /// One step on one random batch, at `rate` (positive) times the configured learning rate.
    ///
    /// # Errors
    /// Text that can no longer be read, or a failure of the device (out of memory). A loss or gradient
    /// that is not finite is no error: see [`StepReport::skipped`].
    pub(crate) fn step(&mut self, rate: f64) -> Result<StepReport> {
        let (loss, mut gradient) = self.gradient()?;
        let report = self.apply(loss, &mut gradient, rate)?;
        self.reuse(gradient);
        Ok(report)
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
        let width = self.config.context + 1;
        for window in self.windows.chunks_exact_mut(width) {
            self.corpus.sample(&mut self.sampler, window)?;
        }
        let part = width * self.config.micro_batch;
        let mut mean: Option<(f64, Tensor)> = None;
        for windows in self.windows.chunks(part) {
            let tokens = self.tokens(windows, width)?;
            let share = windows.len() as f64 / self.windows.len() as f64;
            let Some((loss, gradient)) = &mut mean else {
                let (loss, mut gradient) = self.model.loss_and_gradient(&tokens, self.spare.take())?;
                if share < 1.0 {
                    let _ = gradient.f_mul_scalar_(share)?;
                }
                mean = Some((share * loss, gradient));
                continue;
            };
            let (loss_here, mut here) = self.model.loss_and_gradient(&tokens, self.spare_part.take())?;
            *loss += share * loss_here;
            let _ = gradient.f_add_(&here.f_mul_scalar_(share)?)?;
            self.spare_part = Some(here);
        }
        mean.context("a batch of no windows")
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

    /// Target bytes in a batch.
    pub(crate) fn tokens_a_step(&self) -> u64 {
        (self.config.batch * self.config.context) as u64
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

    /// The text.
    pub(crate) fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Overwrites all parameters, in layout order; the optimizer's moments stay.
    ///
    /// # Errors
    /// As [`Llama::set_parameters`].
    pub(crate) fn set_parameters(&mut self, values: &[f32]) -> Result<()> {
        self.model.set_parameters(values)
    }

    /// Copies all parameters into `out`, in layout order.
    ///
    /// # Errors
    /// As [`Llama::read_parameters`].
    pub(crate) fn read_parameters(&self, out: &mut [f32]) -> Result<()> {
        self.model.read_parameters(out)
    }

    /// Mean loss on `text` in nats per byte, over at most `max_windows` windows that are evenly spaced
    /// and do not overlap. The same text gives the same windows.
    ///
    /// # Errors
    /// A text shorter than one window (context + 1 bytes), `max_windows` of 0, a failure of the device.
    pub(crate) fn evaluate(&self, text: &[u8], max_windows: usize) -> Result<f64> {
        self.evaluate_windows(text.len() as u64, max_windows, |start, window| {
            let source = text.get(start as usize..start as usize + window.len());
            window.copy_from_slice(source.context("a window reaches beyond the text")?);
            Ok(())
        })
    }

    /// As [`Learner::evaluate`], on the held-out part of the corpus.
    ///
    /// # Errors
    /// As [`Learner::evaluate`]; text that can no longer be read.
    pub(crate) fn held_out_loss(&self, max_windows: usize) -> Result<f64> {
        self.evaluate_windows(self.corpus.held_out_bytes(), max_windows, |start, window| {
            Ok(self.corpus.read_held_out(start, window)?)
        })
    }

    fn evaluate_windows(
        &self,
        length: u64,
        max_windows: usize,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<f64> {
        let width = self.config.context + 1;
        let starts = evenly_spaced(length, width as u64, max_windows as u64);
        let count = starts.len();
        if count == 0 {
            bail!("nothing to evaluate: {length} bytes of text, {max_windows} windows of {width} bytes");
        }
        let mut sum = 0.0;
        let at_once = self.config.micro_batch.max(EVALUATED_AT_ONCE);
        let mut batch = vec![0; at_once.min(count) * width];
        for group in starts.collect::<Vec<_>>().chunks(at_once) {
            for (&start, window) in group.iter().zip(batch.chunks_exact_mut(width)) {
                read(start, window)?;
            }
            let filled = batch.get(..group.len() * width).context("a batch is larger than its memory")?;
            let tokens = self.tokens(filled, width)?;
            let loss = tch::no_grad(|| self.model.loss(&tokens))?;
            sum += loss.f_double_value(&[])? * group.len() as f64;
        }
        Ok(sum / count as f64)
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

    /// Bytes of windows of `width` to i64 `[windows, width]` on the device.
    fn tokens(&self, windows: &[u8], width: usize) -> Result<Tensor, TchError> {
        Tensor::f_from_slice(windows)?
            .f_view([-1, width as i64])?
            .f_to_device(self.config.device)?
            .f_to_kind(Kind::Int64)
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

/// Starts of at most `max` windows of `width` in `0..length`, as far apart as possible.
fn evenly_spaced(length: u64, width: u64, max: u64) -> impl ExactSizeIterator<Item = u64> {
    let count = (length / width).min(max).min(u64::from(u32::MAX)) as u32;
    let slack = length.saturating_sub(width);
    (0..count).map(move |i| {
        let position = u128::from(i) * u128::from(slack) / u128::from(count.saturating_sub(1).max(1));
        position as u64
    })
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

#[cfg(test)]
mod unit {
    use super::evenly_spaced;

    #[test]
    fn windows_are_evenly_spaced_and_do_not_overlap() {
        for (length, width, max) in [(1000, 129, 100), (129, 129, 5), (1_000_003, 17, 64), (258, 129, 1)] {
            let starts: Vec<u64> = evenly_spaced(length, width, max).collect();
            assert_eq!(starts.len() as u64, (length / width).min(max));
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= width), "{starts:?}");
            assert!(starts.iter().all(|start| start + width <= length));
        }
        assert_eq!(evenly_spaced(128, 129, 5).len(), 0);
    }
}
