//! `swarm run`: trains and takes part.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use swarm_protocol::genesis::Genesis;

use super::{GenesisArg, NodeArgs, block_on, farewell, training_threads, with_passive_openmp};
use crate::data::{Corpus, CorpusOptions};
use crate::model::{DeviceChoice, Precision};
use crate::node::{self, Rounds};
use crate::train::worker;
use crate::train::{Learner, LearnerConfig};
use crate::trainer::TrainerState;

/// Validation text beyond this is not read.
const MAX_VALIDATION: u64 = 4 << 20;

/// Train on your own text and take part in a swarm. Your text never leaves this device.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    genesis: GenesisArg,

    #[command(flatten)]
    part: PartArgs,
}

/// Flags of every command that trains and takes part.
#[derive(Args)]
pub(super) struct PartArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,

    #[command(flatten)]
    learning: LearningArgs,

    /// When to stop: 40 stops when the swarm is at round 40, +40 after 40 more rounds.
    /// Default: never; Ctrl-C stops and keeps everything.
    #[arg(long, value_name = "N")]
    rounds: Option<Rounds>,
}

/// Flags of every command that trains.
#[derive(Args)]
pub(super) struct LearningArgs {
    /// A text file, or a folder in which text files are found. May be repeated.
    #[arg(long, value_name = "PATH", required = true)]
    pub(super) data: Vec<PathBuf>,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Text to measure the shared and the personal model on; never trained on.
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,

    /// The order in which the text is read follows from this number.
    #[arg(long)]
    seed: Option<u64>,

    /// Share of the text that is held out of training.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    hold_out: f64,
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

    /// Opens the text and says what it is.
    pub(super) fn corpus(&self, genesis: &Genesis) -> Result<Corpus> {
        let mut options = CorpusOptions::new(genesis.model.context as usize);
        options.held_out_fraction = self.hold_out;
        let corpus = Corpus::open(&self.data, options)?;
        tracing::info!("data: {}", corpus.summary());
        Ok(corpus)
    }

    /// Reads the validation text.
    pub(super) fn validation(&self, genesis: &Genesis) -> Result<Option<Vec<u8>>> {
        self.validation.as_deref().map(|path| read_validation(path, genesis)).transpose()
    }

    /// The learner's settings; `default_seed` is used unless one was given.
    pub(super) fn learner_config(&self, genesis: &Genesis, default_seed: u64) -> Result<LearnerConfig> {
        let seed = self.seed.unwrap_or(default_seed);
        let ComputeArgs { device, precision, micro_batch, .. } = self.compute;
        let config = LearnerConfig::of(genesis, device.resolve()?, precision, seed);
        let micro_batch = micro_batch.map_or(config.batch, |windows| config.batch.min(windows as usize));
        Ok(LearnerConfig { micro_batch, ..config })
    }
}

fn read_validation(path: &Path, genesis: &Genesis) -> Result<Vec<u8>> {
    let failed = || format!("--validation {}", path.display());
    let mut text = Vec::new();
    File::open(path)
        .with_context(failed)?
        .take(MAX_VALIDATION)
        .read_to_end(&mut text)
        .with_context(failed)?;
    let window = genesis.model.context as usize + 1;
    ensure!(
        text.len() >= window,
        "--validation {}: {} bytes are less than one window of the model ({window} bytes)",
        path.display(),
        text.len()
    );
    Ok(text)
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
        with_passive_openmp(self.learning.threads()?)
    }

    /// Trains and takes part until it is done, or stopped.
    pub(super) fn run(self, mut setup: node::Setup) -> Result<()> {
        let threads = self.learning.threads()?;
        let genesis = setup.genesis.clone();
        let dir = setup.store.dir().to_owned();
        let corpus = self.learning.corpus(&genesis)?;
        let validation = self.learning.validation(&genesis)?;
        // Every node reads its text in an order of its own: its key is as good a seed as any.
        let key = setup.store.identity()?.public().0;
        let seed = key.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let config = self.learning.learner_config(&genesis, seed)?;
        setup.rounds = self.rounds;
        setup.validates = validation.is_some();
        let train = move |state: Option<TrainerState>| {
            let layout = genesis.layout()?.into();
            let setup = worker::Setup { genesis, layout, state, validation, threads };
            worker::spawn(setup, move || Learner::new(config, corpus))
        };
        let ended = block_on(node::run(setup, Some(train)))?;
        farewell(ended, &dir);
        Ok(())
    }
}
