//! `swarm lab`: methods compared in one process.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use swarm_protocol::architecture::LlamaConfig;
use toml::Table;

use super::{stop_flag, with_passive_openmp};
use crate::lab::{Attack, Jobs, Method, Plan, Surroundings, Text, sweep};
use crate::model::{DeviceChoice, Precision};
use crate::store::{read_limited, write_atomically};

/// A file of runs is at most this large.
const MAX_CONFIG: u64 = 1 << 20;

/// Compare training methods: several learners in one process, on text that is cut into shards, with the
/// node's own code. Writes result.json and curve.csv for every run, and summary.csv and index.html.
/// Stopped with Ctrl-C, the same command goes on.
#[derive(Args)]
pub(super) struct Lab {
    /// A file of runs: grids, seeds, early stopping. Flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A text file or a folder of them. `~/` and `$CARGO_HOME/` at the beginning, and `/*.rs` at the end
    /// (only files of that name) are understood.
    #[arg(long, value_name = "PATH")]
    data: Option<String>,

    /// Folder for the results. For a single run its result.json is there too.
    #[arg(long, value_name = "DIR", default_value = "lab")]
    out: PathBuf,

    /// Seeds: every run once with each. Default: the file's, or 1.
    #[arg(long = "seed", value_name = "S")]
    seeds: Vec<u64>,

    /// Runs at a time. Default: as many as there are cores, divided by --threads.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Threads for each run. With 1, results repeat bit for bit on one machine.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// Where to compute: auto takes a GPU if there is one.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,

    #[command(flatten)]
    settings: SettingsFlags,
}

/// One flag for every setting of a run; those given are merged over the file's.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Settings of a run")]
struct SettingsFlags {
    /// How learners work together [default: swarm].
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Method>,
    /// Size of the model [default: nano].
    #[arg(long, value_parser = LlamaConfig::PRESETS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Number of learners [default: 4].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    learners: Option<u32>,
    /// Tokens, of all learners together [default: 2000000].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// Number format of matrix products [default: f32].
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<Precision>,
    /// Inner optimizer: adamw or muon. Like all that follows, by default as in a new genesis.
    #[arg(long, value_parser = ["adamw", "muon"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    optimizer: Option<String>,
    /// Learning rate after the warm-up.
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    learning_rate: Option<f64>,
    /// Steps over which it rises.
    #[arg(long, value_name = "STEPS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u32>,
    /// Share of the run, at its end, over which it falls.
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    decay: Option<f64>,
    /// What it falls to, as a share.
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    final_rate: Option<f64>,
    /// Decoupled weight decay.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    /// Largest norm of a gradient.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    clip: Option<f64>,
    /// Sequences a step and learner.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<u32>,
    /// Inner steps a round (H). For adamw-dp and demo, which exchange at every step: steps between two looks at the clock.
    #[arg(long, value_name = "H")]
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u32>,
    /// H at the end, reached linearly [default: as at the start].
    #[arg(long, value_name = "H")]
    #[serde(skip_serializing_if = "Option::is_none")]
    steps_end: Option<u32>,
    /// Side of a DCT tile.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tile: Option<u32>,
    /// Coefficients sent of a full tile.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<u32>,
    /// k at the end, reached linearly [default: as at the start].
    #[arg(long, value_name = "K")]
    #[serde(skip_serializing_if = "Option::is_none")]
    k_end: Option<u32>,
    /// Largest coefficient, as a power of two of 2^-20.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_exponent: Option<u8>,
    /// DiLoCo's outer learning rate [default: 1].
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    outer_learning_rate: Option<f64>,
    /// DiLoCo's outer Nesterov momentum [default: 0].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    outer_momentum: Option<f64>,
    /// DeMo's decay of the momentum [default: 0.999].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    demo_decay: Option<f64>,
    /// Steps of the next round that a learner takes before it folds a round's deltas [default: 0].
    #[arg(long, value_name = "STEPS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    overlap: Option<u32>,
    /// Share of deltas that come late, for each receiver [default: 0].
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<f64>,
    /// By how many rounds at most [default: 8].
    #[arg(long, value_name = "ROUNDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    late_rounds: Option<u32>,
    /// Share of deltas that reach nobody [default: 0].
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<f64>,
    /// Share of H that a slow learner manages; once for each, from the first on [default: 1].
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stragglers: Vec<f64>,
    /// So many learners, the last ones, are cut off from the others for a while [default: 0].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_off: Option<u32>,
    /// From this round on [default: 20].
    #[arg(long, value_name = "ROUND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_from: Option<u64>,
    /// For so many rounds [default: 100].
    #[arg(long, value_name = "ROUNDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_rounds: Option<u64>,
    /// So many learners, the last ones, are hostile [default: 0].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    attackers: Option<u32>,
    /// What they do [default: flip].
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    attack: Option<Attack>,
    /// Fold deltas as they are, without judging them by each other, to see what that is good for.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    undefended: Option<bool>,
}

impl Lab {
    pub(super) fn execute(self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ensure!((1..=1024).contains(&self.threads), "--threads {}: must be between 1 and 1024", self.threads);
        let count = self.jobs.unwrap_or((cores / self.threads).max(1));
        ensure!((1..=1024).contains(&count), "--jobs {count}: must be between 1 and 1024");
        with_passive_openmp(self.threads)?;
        let plan = match &self.config {
            None => Plan::default(),
            Some(path) => {
                let text = String::from_utf8(read_limited(path, MAX_CONFIG)?)
                    .with_context(|| format!("{} is not text", path.display()))?;
                Plan::parse(&text).with_context(|| format!("{}", path.display()))?
            }
        };
        let flags = Table::try_from(&self.settings).context("these flags")?;
        let runs = plan.runs(&flags, &self.seeds)?;
        let Some(data) = self.data.as_ref().or(plan.data.as_ref()) else {
            bail!("name the text to train on with --data PATH")
        };
        let text = Text::read(data)?;
        eprintln!("text: {}", text.summary);
        let stop = stop_flag()?;
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        let device = self.device.resolve()?;
        let around = Surroundings { text, texts: self.out.join("text"), device, stop };
        let jobs = Jobs { count, threads: self.threads };
        let results = sweep(&plan.title, &runs, plan.sweep.as_ref(), &self.out, &around, jobs)?;
        let Some(results) = results else {
            println!("stopped: everything is in {}; the same command goes on from here", self.out.display());
            return Ok(());
        };
        if let [single] = &results[..] {
            write_atomically(&self.out.join("result.json"), &serde_json::to_vec_pretty(single)?)?;
        }
        for result in &results {
            println!(
                "{:<48} seed {:<3} loss {:.4}  {:.3e} bytes a parameter and token",
                result.name, result.settings.seed, result.validation_loss, result.bytes_per_parameter_token
            );
        }
        println!("curves: {}", self.out.join("index.html").display());
        Ok(())
    }
}
