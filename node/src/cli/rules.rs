//! Flags for the rules of a swarm: those of `swarm new` and `swarm fork`.

use anyhow::{Result, anyhow};
use clap::Args;
use swarm_protocol::genesis::{Genesis, InnerOptimizer};

/// Rules that differ from the default ones of `swarm new`, or from the parent's of `swarm fork`.
#[derive(Args)]
pub(super) struct RuleArgs {
    /// Inner optimizer steps a round, at most (H).
    #[arg(long, value_name = "H")]
    steps: Option<u32>,

    /// Coefficients sent of a full 64 x 64 tile, at most; more is better and costs more traffic.
    #[arg(long)]
    k: Option<u32>,

    /// Sequences in a batch.
    #[arg(long)]
    batch: Option<u32>,

    /// The rule of the inner steps: muon learns faster, adamw takes less computing.
    #[arg(long, value_parser = ["adamw", "muon"])]
    optimizer: Option<String>,

    /// Learning rate after the warm-up. Default: what suits the optimizer, if that is a new one.
    #[arg(long)]
    learning_rate: Option<f64>,

    /// The round until which the learning rate falls, if the swarm is to end with its best model then.
    /// 0 is a swarm without an end, whose rate stays as it is.
    #[arg(long, value_name = "ROUND")]
    horizon: Option<u32>,

    /// Warm-up of the learning rate, in steps.
    #[arg(long)]
    warmup_steps: Option<u32>,

    /// Longest training time of a round, in seconds: slower devices send what they have.
    #[arg(long, value_name = "SECONDS")]
    round_seconds: Option<u32>,

    /// Shortest time of a round, in seconds: quicker devices wait for it to pass.
    #[arg(long, value_name = "SECONDS")]
    min_round_seconds: Option<u32>,
}

impl RuleArgs {
    /// Changes the rules that flags were given for, and checks the result.
    ///
    /// # Errors
    /// A value outside its range; the text names the key.
    pub(super) fn apply(&self, genesis: &mut Genesis) -> Result<()> {
        let set = |value: &mut u32, flag: Option<u32>| *value = flag.unwrap_or(*value);
        set(&mut genesis.training.steps, self.steps);
        set(&mut genesis.training.batch, self.batch);
        set(&mut genesis.training.warmup_steps, self.warmup_steps);
        set(&mut genesis.training.horizon, self.horizon);
        if let Some(name) = self.optimizer.as_deref() {
            let optimizer =
                InnerOptimizer::named(name).ok_or_else(|| anyhow!("no optimizer is called {name}"))?;
            if optimizer != genesis.training.optimizer {
                genesis.training.optimizer = optimizer;
                genesis.training.learning_rate = optimizer.learning_rate();
            }
        }
        set(&mut genesis.rule.k, self.k);
        genesis.training.learning_rate = self.learning_rate.unwrap_or(genesis.training.learning_rate);
        if let Some(seconds) = self.round_seconds {
            let rounds = &mut genesis.rounds;
            rounds.round_ms = seconds.saturating_mul(1000);
            rounds.min_round_ms = rounds.min_round_ms.min(rounds.round_ms);
            rounds.grace_ms = rounds.grace_ms.min(rounds.round_ms);
        }
        if let Some(seconds) = self.min_round_seconds {
            genesis.rounds.min_round_ms = seconds.saturating_mul(1000);
        }
        genesis.validate().map_err(|error| anyhow!("these flags make no usable genesis: {error}"))
    }
}
