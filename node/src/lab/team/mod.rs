//! The methods: how N learners train for a round and what they tell each other.
//!
//! - [`dense`]: data parallel, DiLoCo, each for itself;
//! - [`demo`]: the paper's DeMo, on the float optimizer of the core;
//! - [`swarm`]: the node's own rule, on the node's own code; [`weather`]: what the network does to it.
//!
//! All start from the same C0 and read the same windows of the same shards, so a difference between two
//! results is a difference between two methods.

mod demo;
mod dense;
mod swarm;
mod weather;

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use swarm_optimizer::residual::whole_model;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::initial;
use tch::Device;

use super::settings::{Method, Settings};
use crate::data::{Corpus, CorpusOptions, TestSet, TextExamples};
use crate::model::{self, language_model};
use crate::train::{Learner, LearnerConfig, LearnerState};

/// What a round is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    /// Its number.
    pub(crate) round: u64,
    /// Share of the learning rate.
    pub(crate) rate: f64,
    /// Inner steps.
    pub(crate) steps: u32,
    /// Coefficients of a full tile.
    pub(crate) k: u32,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Done {
    /// Tokens that all learners together trained on.
    pub(crate) tokens: u64,
    /// Mean training loss, in nats per byte.
    pub(crate) loss: f64,
    /// Bytes that one learner sent, on average.
    pub(crate) bytes: f64,
    /// Mean norm of the residuals afterwards, and of what the round moved the parameters by.
    pub(crate) residual_norm: f64,
    pub(crate) displacement_norm: f64,
}

/// Everything that a team's future depends on, besides settings and text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TeamState {
    pub(crate) learners: Vec<LearnerState>,
    /// Vectors of parameters, momenta or residuals; each method knows which.
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Vectors of coefficients.
    pub(crate) coefficients: Vec<Vec<i32>>,
    /// Open rounds: the packed deltas of their authors, and which of them each learner has folded.
    pub(crate) open: Vec<OpenRound>,
}

/// A round that may still change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenRound {
    pub(crate) round: u64,
    /// One an author; empty if it had nothing to say.
    pub(crate) bodies: Vec<Vec<u8>>,
    /// Authors folded, by learner.
    pub(crate) folded: Vec<Vec<u32>>,
}

/// N learners and their method.
pub(crate) trait Team {
    /// Trains one round and exchanges what the method exchanges.
    ///
    /// # Errors
    /// A failure of the device, or text that cannot be read.
    fn round(&mut self, orders: Orders) -> Result<Done>;

    /// Everything that is still under way arrives: call it after the last round.
    ///
    /// # Errors
    /// As [`Team::round`].
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Loss of the shared model on at most `windows` windows of `text`.
    ///
    /// # Errors
    /// A failure of the device, a text shorter than a window.
    fn validate(&mut self, text: &dyn TestSet, windows: usize) -> Result<f64>;

    /// Mean loss of the learners' own models, where they differ from the shared one.
    ///
    /// # Errors
    /// As [`Team::validate`].
    fn personal(&mut self, _text: &dyn TestSet, _windows: usize) -> Result<Option<f64>> {
        Ok(None)
    }

    /// The shared model's parameters; of the method local the first learner's.
    ///
    /// # Errors
    /// A failure of the device.
    fn parameters(&mut self) -> Result<Vec<f32>>;

    /// What is to be saved.
    ///
    /// # Errors
    /// A failure of the device.
    fn state(&mut self) -> Result<TeamState>;

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// A state of another team.
    fn restore(&mut self, state: TeamState) -> Result<()>;
}

/// The team that `settings` describe, its learners on one shard each.
///
/// # Errors
/// Text that cannot be opened, too little memory, a setting that the method refuses.
pub(crate) fn team(settings: &Settings, shards: &[PathBuf], device: Device) -> Result<Box<dyn Team>> {
    let genesis = settings.genesis()?;
    let learners = shards
        .iter()
        .enumerate()
        .map(|(number, shard)| learner(settings, &genesis, shard, number as u64, device))
        .collect::<Result<Vec<_>>>()?;
    Ok(match settings.method {
        Method::AdamwDp | Method::Local | Method::Diloco => {
            Box::new(dense::Dense::new(settings, start(&genesis)?, learners)?)
        }
        Method::Demo => Box::new(demo::DemoTeam::new(settings, start(&genesis)?, learners)?),
        Method::Swarm => Box::new(swarm::Swarm::new(settings, genesis, learners)?),
    })
}

fn learner(
    settings: &Settings,
    genesis: &Genesis,
    shard: &PathBuf,
    number: u64,
    device: Device,
) -> Result<Learner> {
    let context = language_model(&genesis.model)?.context as usize;
    let mut options = CorpusOptions::new(context);
    // The validation text is apart; a learner's own held-out part is not needed.
    options.held_out_fraction = 0.005;
    let corpus = Corpus::open(std::slice::from_ref(shard), options)?;
    let seed = settings.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number);
    let config = LearnerConfig::of(genesis, settings.precision, seed);
    let model = model::build(&genesis.model, &model::Given::default(), device, settings.precision)?;
    Learner::new(config, model, Box::new(TextExamples::new(corpus, context)))
}

/// The parameters that everyone starts from.
fn start(genesis: &Genesis) -> Result<Vec<f32>> {
    let layout = genesis.layout()?;
    Ok(whole_model(&layout, &initial::coefficients(genesis, &layout), None))
}

/// Mean of what several learners report.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.sum += value;
            self.count += 1;
        }
    }

    fn get(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.sum / f64::from(self.count) }
    }
}

/// Euclidean norm of the difference of two equally long vectors.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// The steps that a learner manages of `steps`.
fn managed(settings: &Settings, learner: usize, steps: u32) -> u32 {
    let share = settings.stragglers.get(learner).copied().unwrap_or(1.0);
    (f64::from(steps) * share).round() as u32
}
