//! `swarm new`: writes a genesis.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use swarm_protocol::architecture::Architecture;
use swarm_protocol::genesis::Genesis;

use super::access::{self, AccessArgs};
use super::rules::RuleArgs;
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

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    rules: RuleArgs,

    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

impl New {
    pub(super) fn execute(self) -> Result<()> {
        let model =
            Architecture::preset(&self.model).ok_or_else(|| anyhow!("no model is called {}", self.model))?;
        let mut genesis = Genesis::new(&self.name, model, self.seed);
        self.rules.apply(&mut genesis)?;
        if self.out.exists() && !self.force {
            bail!("{} exists already: choose another --out, or --force to replace it", self.out.display());
        }
        self.access.apply(&mut genesis)?;
        write_atomically(&self.out, genesis.to_toml().as_bytes())?;
        println!("swarm id: {}", genesis.swarm_id());
        println!("wrote {}: give this file to every peer, unchanged", self.out.display());
        println!("start with: swarm run --genesis {} --data PATH", self.out.display());
        access::explain(&genesis);
        Ok(())
    }
}
