//! Which model a command uses, and how it computes: flags of all commands that use what was trained.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, bail, ensure};
use clap::Args;
use swarm_protocol::architecture::LlamaConfig;
use swarm_protocol::genesis::Genesis;

use super::given;
use super::load::load_model;
use super::{training_threads, with_passive_openmp};
use crate::inference::{Loaded, Outcome, Sampling, Tokenizer};
use crate::model::{DeviceChoice, Llama, Network, Precision, Sequence};
use crate::train::set_threads;

/// Flags of every command that uses a language model.
#[derive(Args, Clone, Debug)]
pub(super) struct ModelArgs {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,

    /// Use the shared model, without what only this device has learned.
    #[arg(long)]
    shared: bool,

    /// Threads. Default: half of the cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Where to compute: auto takes a GPU if there is one.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,

    /// Number format of matrix products: bf16 is faster where the processor multiplies it itself.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
}

/// What a file is told from an earlier one of the same name by.
pub(super) type Version = Option<(SystemTime, u64)>;

impl ModelArgs {
    /// To be called before anything else: it may start the program anew.
    pub(super) fn prepare(&self) -> Result<()> {
        with_passive_openmp(training_threads(self.threads)?)
    }

    /// Loads the model, on the thread that will use it.
    ///
    /// # Errors
    /// A folder without a model, or with one that is not for text; not enough memory.
    pub(super) fn open(&self) -> Result<Loaded> {
        set_threads(training_threads(self.threads)?)?;
        let (genesis, values, provenance) = load_model(&self.dir, self.shared)?;
        let (config, values) = given::language_model(&genesis, &self.dir, values)?;
        let whose = if provenance.personal { "this device's own model" } else { "the shared model" };
        let about = format!("{whose} of swarm {:.8}, round {}", provenance.swarm, provenance.round);
        let sequence = self.sequence(&config, &values)?;
        Ok(Loaded { sequence, tokenizer: tokenizer(&self.dir, &genesis)?, about })
    }

    fn sequence(&self, config: &LlamaConfig, values: &[f32]) -> Result<Sequence> {
        let mut model = Llama::new(config, self.device.resolve()?)?.with_precision(self.precision);
        model.set_parameters(values)?;
        Sequence::new(model)
    }

    /// Which model is in the folder now: another version, another model.
    pub(super) fn version(&self) -> Version {
        version(&self.dir.join("snapshot"))
    }
}

fn version(path: &Path) -> Version {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// The tokenizer that the model in the node's folder `dir` was trained with.
///
/// # Errors
/// The folder has not the tokenizer that its genesis names, or the model has no place for every byte.
pub(super) fn tokenizer(dir: &Path, genesis: &Genesis) -> Result<Tokenizer> {
    let tokenizer = match &genesis.tokenizer {
        None => Tokenizer::Bytes,
        Some(pinned) => {
            let path = dir.join("tokenizer.json");
            let (tokenizer, _) = Tokenizer::open(&path)?;
            tokenizer.check(Some(pinned), &path.display().to_string())?;
            tokenizer
        }
    };
    let Some(places) = genesis.model.vocabulary() else {
        bail!("the swarm's model ({}) is no language model", genesis.model.label());
    };
    ensure!(
        places >= tokenizer.vocabulary(),
        "the model has {places} token ids, fewer than the {} that text is written with: it is not for this text",
        tokenizer.vocabulary()
    );
    Ok(tokenizer)
}

/// How tokens are drawn.
#[derive(Args, Clone, Debug)]
pub(super) struct SamplingArgs {
    /// 0 always takes the likeliest token; more is more varied.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f64,

    /// Draw from this many likeliest tokens only.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,

    /// Draw from the likeliest tokens only that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,

    /// The same seed draws the same text from the same model.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    /// Checks the numbers.
    pub(super) fn sampling(&self) -> Result<Sampling> {
        let Self { temperature, top_k, top_p, seed } = *self;
        let sampling = Sampling { temperature, top_k, top_p, seed };
        sampling.check()?;
        Ok(sampling)
    }
}

/// How fast it went, in words.
pub(super) fn pace(outcome: &Outcome) -> String {
    let seconds = outcome.writing.as_secs_f64();
    let tokens = outcome.tokens;
    format!("({tokens} tokens, {:.0} a second)", tokens as f64 / seconds.max(1e-9))
}
