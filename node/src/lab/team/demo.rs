//! DeMo as its paper has it, on the core's float optimizer: the baseline that the swarm's rule comes from.
//!
//! Counted as sent: what the reference implementation sends, a 32-bit value and a 64-bit index for every
//! coefficient.

use anyhow::{Context, Result, ensure};
use swarm_optimizer::demo::{Demo, DemoConfig, Sent};

use super::{Done, Mean, Orders, Team, TeamState};
use crate::data::TestSet;
use crate::lab::settings::Settings;
use crate::model::copy_out_of;
use crate::train::Learner;

/// Bytes of a coefficient on the reference's wire.
const WIRE: f64 = 12.0;

pub(super) struct DemoTeam {
    learners: Vec<Learner>,
    workers: Vec<Demo>,
    /// First scalar and length of every parameter.
    places: Vec<(usize, usize)>,
    /// The parameters, the same for all.
    flat: Vec<f32>,
    gradient: Vec<f32>,
    steps: u64,
}

impl DemoTeam {
    pub(super) fn new(settings: &Settings, flat: Vec<f32>, mut learners: Vec<Learner>) -> Result<Self> {
        let genesis = settings.genesis()?;
        let shapes: Vec<Vec<usize>> = genesis.model.parameters().into_iter().map(|p| p.shape).collect();
        let mut start = 0;
        let place = |shape: &Vec<usize>| {
            let length = shape.iter().product();
            start += length;
            (start - length, length)
        };
        let places = shapes.iter().map(place).collect();
        let config = DemoConfig {
            decay: settings.demo_decay,
            k: settings.k as usize,
            chunk: settings.tile as usize,
            weight_decay: settings.weight_decay,
        };
        let workers = learners.iter().map(|_| Demo::new(&shapes, config)).collect::<Result<Vec<_>, _>>()?;
        learners.iter_mut().try_for_each(|learner| learner.set_parameters(&flat))?;
        Ok(Self { learners, workers, places, gradient: vec![0.0; flat.len()], flat, steps: 0 })
    }

    fn step(&mut self, rate: f64, losses: &mut Mean) -> Result<f64> {
        let mut lr = 0.0;
        let mut sent: Vec<Vec<Sent>> = Vec::new();
        let mut shrunk = self.flat.clone();
        for (number, (learner, worker)) in self.learners.iter_mut().zip(&mut self.workers).enumerate() {
            let (loss, gradient) = learner.gradient()?;
            losses.add(loss);
            copy_out_of(&gradient, &mut self.gradient)?;
            lr = rate * learner.warmed_up_at(self.steps);
            let mut other = self.flat.clone();
            // Weight decay is a part of extracting; all workers do the same to the same parameters.
            let params = if number == 0 { &mut shrunk } else { &mut other };
            let mut all = Vec::with_capacity(self.places.len());
            for (param, &(start, length)) in self.places.iter().enumerate() {
                let range = start..start + length;
                all.push(worker.extract(param, &mut params[range.clone()], &self.gradient[range], lr)?);
            }
            sent.push(all);
        }
        self.flat = shrunk;
        let first = self.workers.first_mut().context("no learners")?;
        for (param, &(start, length)) in self.places.iter().enumerate() {
            let everyone: Vec<&Sent> = sent.iter().filter_map(|all| all.get(param)).collect();
            first.apply(param, &mut self.flat[start..start + length], &everyone, lr)?;
        }
        self.learners.iter_mut().try_for_each(|learner| learner.set_parameters(&self.flat))?;
        self.steps += 1;
        let coefficients: usize = sent.iter().flatten().map(|sent| sent.indices.len()).sum();
        Ok(WIRE * coefficients as f64 / sent.len() as f64)
    }
}

impl Team for DemoTeam {
    fn round(&mut self, orders: Orders) -> Result<Done> {
        let (mut done, mut losses) = (Done::default(), Mean::default());
        for _ in 0..orders.steps {
            done.bytes += self.step(orders.rate, &mut losses)?;
            done.tokens += self.learners.iter().map(Learner::tokens_a_step).sum::<u64>();
        }
        done.loss = losses.get();
        Ok(done)
    }

    fn validate(&mut self, text: &dyn TestSet, windows: usize) -> Result<f64> {
        self.learners.first().context("no learners")?.evaluate(text, windows)
    }

    fn parameters(&mut self) -> Result<Vec<f32>> {
        Ok(self.flat.clone())
    }

    fn state(&mut self) -> Result<TeamState> {
        let mut state = TeamState { vectors: vec![self.flat.clone()], ..TeamState::default() };
        for (learner, worker) in self.learners.iter().zip(&self.workers) {
            let mut learner = learner.state()?;
            // DeMo has no inner optimizer; its step count is the team's.
            learner.optimizer.step = self.steps;
            state.learners.push(learner);
            let mut momentum = Vec::with_capacity(self.flat.len());
            for param in 0..self.places.len() {
                momentum.extend_from_slice(worker.momentum(param)?);
            }
            state.vectors.push(momentum);
        }
        Ok(state)
    }

    fn restore(&mut self, state: TeamState) -> Result<()> {
        let [flat, momenta @ ..] = &state.vectors[..] else { anyhow::bail!("a state of another team") };
        let fits = momenta.len() == self.workers.len() && state.learners.len() == self.workers.len();
        ensure!(fits && state.vectors.iter().all(|v| v.len() == self.flat.len()), "a state of another team");
        self.flat.clone_from(flat);
        for (worker, momentum) in self.workers.iter_mut().zip(momenta) {
            for (param, &(start, length)) in self.places.iter().enumerate() {
                worker.set_momentum(param, &momentum[start..start + length])?;
            }
        }
        for (learner, state) in self.learners.iter_mut().zip(&state.learners) {
            self.steps = state.optimizer.step;
            learner.restore(state)?;
            learner.set_parameters(flat)?;
        }
        Ok(())
    }
}
