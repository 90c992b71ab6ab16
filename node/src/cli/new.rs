//! `swarm new`: writes a genesis.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use swarm_protocol::architecture::Architecture;
use swarm_protocol::genesis::{Genesis, InnerOptimizer};

use crate::store::write_atomically;

/// Write a genesis: the rules of a new swarm. Every peer needs the very same file.
#[derive(Args)]
pub(super) struct New {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "genesis.toml")]
    out: PathBuf,

    /// A name for the swarm, for people.
    #[arg(long, default_value = "swarm")]
    name: String,

    /// Size of the model: nano (about 1 M parameters), micro (10 M), small (100 M).
    #[arg(long, default_value = "nano", value_parser = Architecture::PRESETS)]
    model: String,

    /// The common starting point is drawn from this number.
    #[arg(long, default_value_t = 0)]
    seed: u64,

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

    /// Learning rate after the warm-up. Default: what suits the optimizer.
    #[arg(long)]
    learning_rate: Option<f64>,

    /// The round until which the learning rate falls, if the swarm is to end with its best model then.
    /// Default: 0, a swarm without an end, whose rate stays as it is.
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

    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

impl New {
    pub(super) fn execute(self) -> Result<()> {
        let model =
            Architecture::preset(&self.model).ok_or_else(|| anyhow!("no model is called {}", self.model))?;
        let mut genesis = Genesis::new(&self.name, model, self.seed);
        let set = |value: &mut u32, flag: Option<u32>| *value = flag.unwrap_or(*value);
        set(&mut genesis.training.steps, self.steps);
        set(&mut genesis.training.batch, self.batch);
        set(&mut genesis.training.warmup_steps, self.warmup_steps);
        set(&mut genesis.training.horizon, self.horizon);
        if let Some(name) = self.optimizer.as_deref() {
            genesis.training.optimizer =
                InnerOptimizer::named(name).ok_or_else(|| anyhow!("no optimizer is called {name}"))?;
            genesis.training.learning_rate = genesis.training.optimizer.learning_rate();
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
        genesis.validate().map_err(|error| anyhow!("these flags make no usable genesis: {error}"))?;
        if self.out.exists() && !self.force {
            bail!("{} exists already: choose another --out, or --force to replace it", self.out.display());
        }
        write_atomically(&self.out, genesis.to_toml().as_bytes())?;
        println!("swarm id: {}", genesis.swarm_id());
        println!("wrote {}: give this file to every peer, unchanged", self.out.display());
        println!("start with: swarm run --genesis {} --data PATH", self.out.display());
        Ok(())
    }
}
