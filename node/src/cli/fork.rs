//! `swarm fork`: a new swarm that begins with the model of another one.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Args;
use swarm_optimizer::coefficients::Coefficients;
use swarm_protocol::checkpoint::Held;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Genesis, Parent};
use swarm_protocol::round_log::RoundLog;

use super::access::{self, AccessArgs};
use super::load::Folder;
use super::rules::RuleArgs;
use crate::store;

/// Begin a new swarm with the shared model of the swarm in a node's folder: other rules, another name, the
/// same model. The old swarm is not touched and can go on; nobody has to move. Works offline, also while the
/// node is running (with its newest snapshot or checkpoint).
#[derive(Args)]
pub(super) struct Fork {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// The folder to make for the new swarm's first node: its genesis and its starting model.
    #[arg(long, value_name = "NEW_DIR")]
    out: PathBuf,

    /// A name for the new swarm, for people. Default: the old one's.
    #[arg(long)]
    name: Option<String>,

    /// Take in the rounds that are still open too, as this node has them. Use it for a swarm that has
    /// finished: its nodes agree about them. Default: only what has settled.
    #[arg(long)]
    open_rounds: bool,

    /// Refused, with the reason, unless it is the old one.
    #[arg(long, hide = true)]
    model: Option<String>,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    rules: RuleArgs,
}

impl Fork {
    pub(super) fn execute(self) -> Result<()> {
        let (parent, rounds, c0) = self.read()?;
        if let Some(model) = &self.model {
            let theirs = parent.model.label();
            ensure!(
                model == theirs,
                "--model {model}: a fork keeps the model of its parent ({theirs}), because what was trained fits no \
                 other one. swarm new --model {model} begins from scratch"
            );
        }
        let mut genesis = Genesis {
            name: self.name.clone().unwrap_or_else(|| parent.name.clone()),
            parent: Some(Parent {
                swarm: Some(parent.swarm_id()),
                settled: rounds,
                state: Digest::of_state(c0.values()),
            }),
            ..parent.clone()
        };
        self.rules.apply(&mut genesis)?;
        self.access.apply(&mut genesis)?;
        let start = Held::new(0, RoundLog::new(&genesis).recent_digests(), c0);
        store::write_successor(&self.out, &genesis, &start)?;
        if let Some(pinned) = &genesis.tokenizer
            && let Some(tokenizer) = store::read_tokenizer(&self.dir, pinned)?
        {
            store::write_tokenizer(&self.out, &tokenizer)?;
        }
        let out = self.out.display();
        println!("forked swarm {:.16} ({}) with {rounds} of its rounds", parent.swarm_id(), parent.name);
        println!("new swarm id: {}", genesis.swarm_id());
        println!("wrote {out}/genesis.toml, and {out}/start, the model that it names");
        println!("start it with: swarm run --dir {out} --data PATH");
        println!(
            "others need {out}/genesis.toml only, and the address of a node that has the model: \
             swarm run --genesis genesis.toml --data PATH --bootstrap ADDRESS"
        );
        access::explain(&genesis);
        if !genesis.access.is_open() && genesis.access == parent.access {
            println!(
                "as in the old swarm, those may admit who hold its keys; --access open or other keys change that"
            );
        }
        Ok(())
    }

    /// The genesis of the old swarm, how many of its rounds are in the model, and the model.
    fn read(&self) -> Result<(Genesis, u64, Coefficients)> {
        let dir = self.dir.display();
        let Folder { peer, settled, settled_state: c, .. } = Folder::open(&self.dir)?;
        let genesis = peer.genesis().clone();
        let parameters = peer.layout().len();
        let (rounds, c) = if self.open_rounds {
            (peer.round(), peer.coefficients().clone())
        } else {
            store::newer_checkpoint(&self.dir, settled, parameters)?.unwrap_or((settled, c))
        };
        if rounds == 0 {
            let window = genesis.rounds.window;
            let how = if self.open_rounds { "" } else { ", or take what is open with --open-rounds" };
            bail!(
                "nothing that was trained in {dir} has settled yet: that takes {window} rounds. Let swarm run do \
                 more{how}; swarm new begins from scratch"
            );
        }
        Ok((genesis.as_ref().clone(), rounds, c))
    }
}
