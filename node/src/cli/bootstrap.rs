//! `swarm bootstrap`: a node that replicates without training.

use anyhow::Result;
use clap::Args;

use super::{GenesisArg, NodeArgs, block_on, farewell};
use crate::node;
use crate::trainer::{Trainer, TrainerState};

/// Run a node that others join through: it holds and passes on everything, and trains nothing.
#[derive(Args)]
pub(super) struct Bootstrap {
    #[command(flatten)]
    genesis: GenesisArg,

    #[command(flatten)]
    node: NodeArgs,
}

impl Bootstrap {
    pub(super) fn execute(self) -> Result<()> {
        let (store, genesis) = self.genesis.open(&self.node)?;
        let dir = store.dir().to_owned();
        let setup = self.node.setup(store, genesis)?;
        let _watch = self.node.watch.start(&dir)?;
        let nobody: Option<fn(Option<TrainerState>) -> Result<Trainer>> = None;
        let ended = block_on(node::run(setup, nobody))?;
        farewell(ended, &dir, self.node.json);
        Ok(())
    }
}
