//! Methods that exchange whole vectors, and the one that exchanges nothing.
//!
//! Data parallel: all learners hold the same parameters; the mean of their gradients goes into one
//! optimizer, every step. DiLoCo (Douillard et al., arXiv 2311.08105): H local steps, then
//!
//! ```text
//!     delta = mean of (start - learner's parameters)
//!     v     = momentum * v + delta
//!     start = start - outer_lr * (delta + momentum * v)       Nesterov, as in PyTorch's SGD
//! ```
//!
//! With an outer learning rate of 1 and no momentum that is the plain mean of the parameters. The inner
//! optimizers' moments stay with their learners.
//!
//! Counted as sent: 32 bits a parameter and exchange, from each learner. (A ring all-reduce sends almost
//! twice that.)

use anyhow::{Context, Result, ensure};

use super::{Done, Mean, Orders, Team, TeamState, distance, managed};
use crate::data::TestSet;
use crate::lab::settings::{Method, Settings};
use crate::train::Learner;

/// Bytes of a parameter on the wire.
const WIRE: f64 = 4.0;

pub(super) struct Dense {
    settings: Settings,
    learners: Vec<Learner>,
    /// What all start a round from.
    start: Vec<f32>,
    /// DiLoCo's outer momentum.
    velocity: Vec<f32>,
    now: Vec<f32>,
}

impl Dense {
    pub(super) fn new(settings: &Settings, start: Vec<f32>, mut learners: Vec<Learner>) -> Result<Self> {
        learners.iter_mut().try_for_each(|learner| learner.set_parameters(&start))?;
        let zeros = vec![0.0; start.len()];
        Ok(Self { settings: settings.clone(), learners, velocity: zeros.clone(), now: zeros, start })
    }

    /// One step of one optimizer on the mean of all gradients.
    fn all_reduce(&mut self, orders: Orders, done: &mut Done, losses: &mut Mean) -> Result<()> {
        let count = self.learners.len() as f64;
        let mut sum = None;
        for learner in &mut self.learners {
            let (loss, gradient) = learner.gradient()?;
            losses.add(loss);
            sum = Some(match sum {
                None => gradient,
                Some(sum) => gradient.f_add(&sum)?,
            });
        }
        let mut mean = sum.context("no learners")?.f_div_scalar(count)?;
        let [first, others @ ..] = &mut self.learners[..] else { return Ok(()) };
        let report = first.apply(losses.get(), &mut mean, orders.rate)?;
        warn(report.skipped.as_deref());
        others.iter_mut().try_for_each(|other| other.copy_parameters(first))?;
        done.tokens += report.tokens * self.learners.len() as u64;
        done.bytes += WIRE * self.start.len() as f64;
        Ok(())
    }

    fn diloco(&mut self) -> Result<f64> {
        let count = self.learners.len() as f32;
        let mut delta = vec![0.0f32; self.start.len()];
        let mut moved = Mean::default();
        for learner in &self.learners {
            learner.read_parameters(&mut self.now)?;
            moved.add(distance(&self.start, &self.now));
            delta
                .iter_mut()
                .zip(self.start.iter().zip(&self.now))
                .for_each(|(d, (s, n))| *d += (s - n) / count);
        }
        let (rate, momentum) =
            (self.settings.outer_learning_rate as f32, self.settings.outer_momentum as f32);
        for ((start, v), delta) in self.start.iter_mut().zip(&mut self.velocity).zip(&delta) {
            *v = momentum * *v + delta;
            *start -= rate * (delta + momentum * *v);
        }
        self.learners.iter_mut().try_for_each(|learner| learner.set_parameters(&self.start))?;
        Ok(moved.get())
    }
}

impl Team for Dense {
    fn round(&mut self, orders: Orders) -> Result<Done> {
        let (mut done, mut losses) = (Done::default(), Mean::default());
        if self.settings.method == Method::AdamwDp {
            for _ in 0..orders.steps {
                self.all_reduce(orders, &mut done, &mut losses)?;
            }
        } else {
            for (number, learner) in self.learners.iter_mut().enumerate() {
                for _ in 0..managed(&self.settings, number, orders.steps) {
                    let report = learner.step(orders.rate)?;
                    warn(report.skipped.as_deref());
                    losses.add(report.loss);
                    done.tokens += report.tokens;
                }
            }
            if self.settings.method == Method::Diloco {
                done.displacement_norm = self.diloco()?;
                done.bytes = WIRE * self.start.len() as f64;
            }
        }
        done.loss = losses.get();
        Ok(done)
    }

    fn validate(&mut self, text: &dyn TestSet, windows: usize) -> Result<f64> {
        let asked = if self.settings.method == Method::Local { self.learners.len() } else { 1 };
        let mut mean = Mean::default();
        for learner in self.learners.iter().take(asked) {
            mean.add(learner.evaluate(text, windows)?);
        }
        Ok(mean.get())
    }

    fn parameters(&mut self) -> Result<Vec<f32>> {
        self.learners.first().context("no learners")?.read_parameters(&mut self.now)?;
        Ok(self.now.clone())
    }

    fn state(&mut self) -> Result<TeamState> {
        let mut state = TeamState::default();
        for learner in &self.learners {
            state.learners.push(learner.state()?);
            learner.read_parameters(&mut self.now)?;
            state.vectors.push(self.now.clone());
        }
        state.vectors.extend([self.start.clone(), self.velocity.clone()]);
        Ok(state)
    }

    fn restore(&mut self, mut state: TeamState) -> Result<()> {
        let fits =
            state.learners.len() == self.learners.len() && state.vectors.len() == self.learners.len() + 2;
        ensure!(fits && state.vectors.iter().all(|v| v.len() == self.start.len()), "a state of another team");
        self.velocity = state.vectors.pop().unwrap_or_default();
        self.start = state.vectors.pop().unwrap_or_default();
        for ((learner, state), flat) in self.learners.iter_mut().zip(&state.learners).zip(&state.vectors) {
            learner.restore(state)?;
            learner.set_parameters(flat)?;
        }
        Ok(())
    }
}

/// Says why a step was skipped.
pub(super) fn warn(skipped: Option<&str>) {
    if let Some(why) = skipped {
        tracing::warn!("step skipped: {why}");
    }
}
