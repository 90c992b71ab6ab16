//! `swarm run`: trains and takes part.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;
use swarm_protocol::genesis::Genesis;

use super::config::rules_again;
use super::data::DataArgs;
use super::given::GivenArgs;
use super::guest::{GuestArgs, check_memory, set_priority};
use super::{GenesisArg, NodeArgs, block_on, farewell, training_threads, with_passive_openmp};
use crate::data::Examples;
use crate::governor::{self, Rules};
use crate::model::{self, DeviceChoice, Precision};
use crate::node::{self, Rounds};
use crate::train::worker;
use crate::train::{Learner, LearnerConfig};
use crate::trainer::TrainerState;

/// Train on your own text and take part in a swarm. Your text never leaves this device.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    genesis: GenesisArg,

    #[command(flatten)]
    pub(super) part: PartArgs,
}

/// Flags of every command that trains and takes part.
#[derive(Args)]
pub(super) struct PartArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,

    #[command(flatten)]
    learning: LearningArgs,

    /// Keep parameters to yourself: those whose names match PATTERN (* stands for anything), such as '*norm*' or
    /// 'lm_head*'. They learn from your data only and are never sent. May be repeated; the folder remembers it.
    #[arg(long, value_name = "PATTERN")]
    private: Vec<String>,

    /// When to stop: 40 stops when the swarm is at round 40, +40 after 40 more rounds.
    /// Default: never; Ctrl-C stops and keeps everything.
    #[arg(long, value_name = "N")]
    rounds: Option<Rounds>,

    /// What is missing of the rules is fetched from whoever is on the local network.
    #[arg(skip)]
    pub(super) fetches: bool,

    #[command(flatten)]
    guest: GuestArgs,
}

/// Flags of every command that trains.
#[derive(Args)]
pub(super) struct LearningArgs {
    #[command(flatten)]
    pub(super) data: DataArgs,

    #[command(flatten)]
    given: GivenArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// The order in which the data is read follows from this number.
    #[arg(long)]
    seed: Option<u64>,
}

/// Flags that say how to compute.
#[derive(Args)]
pub(super) struct ComputeArgs {
    /// Threads for training. Default: half of the cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Where to compute: auto takes a GPU if there is one.
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) device: DeviceChoice,

    /// Number format of matrix products: bf16 is faster where the processor multiplies it itself.
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) precision: Precision,

    /// Windows of a batch that are computed at once: fewer take less memory and a little more time, and learn the
    /// same. Default: all of the batch.
    #[arg(long, value_name = "WINDOWS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) micro_batch: Option<u32>,
}

impl ComputeArgs {
    /// Number of training threads.
    pub(super) fn threads(&self) -> Result<usize> {
        training_threads(self.threads)
    }
}

impl LearningArgs {
    /// Number of training threads.
    pub(super) fn threads(&self) -> Result<usize> {
        self.compute.threads()
    }

    /// What makes a learner of `data`; `default_seed` is used unless a seed was given. `dir` is the node's folder.
    pub(super) fn learner(
        &self,
        genesis: &Genesis,
        dir: &Path,
        data: Box<dyn Examples>,
        default_seed: u64,
    ) -> Result<impl FnOnce() -> Result<Learner> + Send + use<>> {
        let given = self.given.read(genesis, dir)?;
        let ComputeArgs { device, precision, micro_batch, .. } = self.compute;
        let device = device.resolve()?;
        let mut config = LearnerConfig::of(genesis, precision, self.seed.unwrap_or(default_seed));
        config.micro_batch = micro_batch.map_or(config.batch, |examples| config.batch.min(examples as usize));
        let architecture = genesis.model.clone();
        Ok(move || Learner::new(config, model::build(&architecture, &given, device, precision)?, data))
    }
}

impl Run {
    pub(super) fn execute(self) -> Result<()> {
        self.part.prepare()?;
        let (store, genesis) = self.genesis.open(&self.part.node)?;
        let setup = self.part.node.setup(store, genesis)?;
        self.part.run(setup)
    }
}

impl PartArgs {
    /// To be called before anything else: it may start the program anew.
    pub(super) fn prepare(&self) -> Result<()> {
        with_passive_openmp(self.learning.threads()?)?;
        set_priority(&self.guest.rules()?);
        Ok(())
    }

    /// Checks what can be checked without starting anything. Returns the rules on when to train.
    pub(super) fn check(&self) -> Result<Rules> {
        self.learning.threads()?;
        for path in &self.learning.data.data {
            ensure!(path.exists(), "--data {}: there is no such file or folder", path.display());
        }
        self.node.watch.check()?;
        self.guest.rules()
    }

    /// The rules on when to train.
    pub(super) fn rules(&self) -> Result<Rules> {
        self.guest.rules()
    }

    /// Trains and takes part until it is done, or stopped.
    pub(super) fn run(self, mut setup: node::Setup) -> Result<()> {
        let threads = self.learning.threads()?;
        let genesis = setup.genesis.clone();
        let dir = setup.store.dir().to_owned();
        let _watch = self.node.watch.start(&dir)?;
        let data = &self.learning.data;
        // Only who is told where peers are looks for them before it has everything.
        let mdns = self.fetches && setup.mdns;
        let around = node::Around { bootstrap: setup.bootstrap.clone(), mdns, key: setup.key };
        let tokenizer = data.tokenizer(&setup.store, &genesis, around)?;
        let examples = data.examples(&genesis, &tokenizer, Some(dir.join("data")))?;
        let validation = data.validation(&genesis, &tokenizer)?;
        // Every node reads its text in an order of its own: its key is as good a seed as any.
        let private = setup.store.private(&self.private, &genesis.model.parameters())?;
        let key = setup.store.identity()?.public().0;
        let seed = key.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let learner = self.learning.learner(&genesis, &dir, examples, seed)?;
        let rules = self.guest.rules()?;
        check_memory(&rules, &genesis, &self.learning.compute, setup.snapshot_interval)?;
        let reload = self.node.config.clone().map(rules_again).transpose()?;
        let governor = governor::start(&dir, rules, reload)?;
        let throttle = governor.throttle();
        setup.governor = Some(governor);
        setup.rounds = self.rounds;
        setup.validates = validation.is_some();
        let train = move |state: Option<TrainerState>| {
            let layout = genesis.layout()?.into();
            let setup = worker::Setup { genesis, layout, state, validation, private, threads, throttle };
            worker::spawn(setup, learner)
        };
        let json = setup.json;
        let ended = block_on(node::run(setup, Some(train)))?;
        farewell(ended, &dir, json);
        Ok(())
    }
}
