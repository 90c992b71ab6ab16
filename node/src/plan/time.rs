//! How long a round takes: arithmetic over the measured rates, and the line.

use std::fmt;

use serde::Serialize;
use swarm_protocol::architecture::LlamaConfig;
use swarm_protocol::genesis::Genesis;

use super::{Sample, Scene, Speed, traffic};
use crate::{model, train};

/// How often each number that the backward pass needs is read or written in a step, forward and backward: by
/// the operation that makes it, by the one that uses it, by both on the way back, and likewise its gradient.
const PASSES: u64 = 8;
/// The same for the vectors as long as the parameters, under AdamW's rule: gradient, moments and parameter.
const ADAMW_PASSES: u64 = 16;
/// And under Muon's, its matrix products apart.
const MUON_PASSES: u64 = 24;

/// A round's parts in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Round {
    /// Tokens of a round.
    pub(crate) tokens: u64,
    /// Floating point operations of matrix products for one token.
    pub(crate) flops_a_token: u64,
    /// Inner steps: the model, forward and backward.
    pub(crate) model: f64,
    /// The inner optimizer.
    pub(crate) optimizer: f64,
    /// Transforms, extraction, packing, and checking the others' deltas.
    pub(crate) sharing: f64,
    /// Sending at --max-upload; it happens beside the rest.
    pub(crate) transfer: Option<f64>,
    /// Together: what takes longer, computing or sending, and no less than the genesis permits.
    pub(crate) seconds: f64,
}

impl Round {
    pub(super) fn new(
        genesis: &Genesis,
        arch: &LlamaConfig,
        scene: &Scene,
        speed: &Speed,
        sample: &Sample,
    ) -> Self {
        let training = &genesis.training;
        let parameters = genesis.model.parameter_count();
        let context = u64::from(arch.context);
        let tokens = u64::from(training.steps) * u64::from(training.batch) * context;
        let flops_a_token = model::size::flops_a_token(arch, context);
        let moving = |numbers: u64, passes: u64| (4 * numbers * passes) as f64 / speed.bytes_a_second;
        let products = |flops: u64| flops as f64 / speed.flops_a_second;
        let kept = model::size::kept_a_token(arch, scene.device);
        let of_model = tokens as f64 * (products(flops_a_token) + moving(kept, PASSES));
        let by_adamw = train::size::by_adamw(&genesis.model, training.optimizer);
        let step = products(train::size::flops(&genesis.model, training.optimizer))
            + moving(by_adamw, ADAMW_PASSES)
            + moving(parameters - by_adamw, MUON_PASSES);
        let optimizer = f64::from(training.steps) * step;
        let others = f64::from(scene.authors(genesis).saturating_sub(1));
        let sharing = parameters as f64 * (sample.making + others * sample.checking);
        let least = f64::from(genesis.rounds.min_round_ms) * 1e-3;
        let computing = of_model + optimizer + sharing;
        // Statuses depend on the round's length, and are few.
        let sent = traffic::sent(genesis, scene, sample, computing.max(least)).total;
        let transfer = scene.max_upload.map(|rate| sent as f64 / rate.bytes_a_second() as f64);
        let seconds = computing.max(transfer.unwrap_or(0.0)).max(least);
        Self { tokens, flops_a_token, model: of_model, optimizer, sharing, transfer, seconds }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "a round: about {:.1} s for {} tokens, {:.0} tokens/s (an estimate: {:.1} MFLOP a token over the rates \
             measured below)",
            self.seconds,
            self.tokens,
            self.tokens as f64 / self.seconds,
            self.flops_a_token as f64 * 1e-6
        )?;
        write!(
            f,
            "  the model {:.2} s, the inner optimizer {:.2} s, transforms, packing and checking {:.2} s; ",
            self.model, self.optimizer, self.sharing
        )?;
        match self.transfer {
            Some(seconds) => write!(f, "sending at --max-upload {seconds:.2} s, beside the rest"),
            None => write!(f, "sending beside it (no --max-upload)"),
        }
    }
}
