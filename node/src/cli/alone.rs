//! `swarm alone`: the same training without the others, to compare with.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use swarm_optimizer::residual::whole_model;
use swarm_protocol::initial;

use super::run::LearningArgs;
use super::with_passive_openmp;
use crate::status::{RoundRecord, Status, rate};
use crate::store::{self, write_atomically};
use crate::train::worker::{QUICK_WINDOWS, VALIDATION_WINDOWS};
use crate::train::{Learner, set_threads};

/// Time between two writes of status.json.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// The validation text is measured after this many rounds' worth of steps, as a node does.
const VALIDATE_EVERY: u64 = 5;

/// Train alone from the swarm's starting point: what this device would reach without the others, with the
/// same model, optimizer and text. For comparisons; nothing is shared.
#[derive(Args)]
pub(super) struct Alone {
    /// The genesis whose model and training rules to use.
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,

    /// Folder for status.json, report.json, and at the end the model, for swarm eval --alone.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    #[command(flatten)]
    learning: LearningArgs,

    /// Tokens to train on.
    #[arg(long, value_name = "N")]
    tokens: u64,
}

/// What the run reached.
#[derive(Serialize)]
struct AloneReport {
    validation_loss: Option<f64>,
    tokens: u64,
    steps: u64,
    seconds: f64,
    history: Vec<RoundRecord>,
}

impl Alone {
    pub(super) fn execute(self) -> Result<()> {
        let threads = self.learning.threads()?;
        with_passive_openmp(threads)?;
        set_threads(threads)?;
        let genesis = store::read_genesis(&self.genesis)?;
        ensure!(
            genesis.parent.is_none(),
            "{} is of a fork, which starts from another model: swarm alone starts from the seed. Compare with \
             a genesis without [parent]",
            self.genesis.display()
        );
        let tokenizer = self.learning.data.given_tokenizer(&genesis)?;
        let data = self.learning.data.examples(&genesis, &tokenizer, None)?;
        let validation = self.learning.data.validation(&genesis, &tokenizer)?;
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot make the folder {}", self.dir.display()))?;
        let layout = genesis.layout()?;
        let flat = whole_model(&layout, &initial::coefficients(&genesis, &layout), None);
        let mut learner = self.learning.learner(&genesis, &self.dir, data, 0)?()?;
        learner.set_parameters(&flat)?;
        let stop = super::stop_flag()?;

        let began = Instant::now();
        let measure = |learner: &Learner, windows| {
            validation.as_ref().map(|set| learner.evaluate(set.as_ref(), windows)).transpose()
        };
        let (mut tokens, mut steps, mut history) = (0u64, 0u64, Vec::new());
        let (mut loss_sum, mut taken) = (0.0, 0u32);
        let mut training = Duration::ZERO;
        let mut written: Option<Instant> = None;
        while tokens < self.tokens && !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let step_began = Instant::now();
            let report = learner.step(genesis.training.rate(steps / u64::from(genesis.training.steps)))?;
            training += step_began.elapsed();
            steps += 1;
            match &report.skipped {
                Some(why) => tracing::warn!("step skipped: {why}"),
                None => {
                    loss_sum += report.loss;
                    taken += 1;
                }
            }
            tokens += report.tokens;
            if steps.is_multiple_of(genesis.training.steps.into()) {
                let round = steps / u64::from(genesis.training.steps);
                let loss = (taken > 0).then(|| loss_sum / f64::from(taken));
                let validation_loss = if round.is_multiple_of(VALIDATE_EVERY) {
                    measure(&learner, QUICK_WINDOWS)?
                } else {
                    None
                };
                let seconds = began.elapsed().as_secs_f64();
                history.push(RoundRecord { round, seconds, tokens, loss, validation_loss });
                (loss_sum, taken) = (0.0, 0);
            }
            if written.is_none_or(|at| at.elapsed() >= STATUS_INTERVAL) {
                written = Some(Instant::now());
                let status = Status {
                    phase: "training".into(),
                    pid: std::process::id(),
                    swarm_id: genesis.swarm_id().to_string(),
                    round: steps / u64::from(genesis.training.steps),
                    loss: history.last().and_then(|record| record.loss),
                    tokens,
                    tokens_per_second: rate(tokens, training.as_secs_f64()),
                    ..Status::default()
                };
                self.write("status.json", &status)?;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let mut reached = flat;
        learner.read_parameters(&mut reached)?;
        write_atomically(&self.dir.join("genesis.toml"), genesis.to_toml().as_bytes())?;
        store::write_parameters(&self.dir.join("parameters"), &reached)?;
        let report = AloneReport {
            validation_loss: measure(&learner, VALIDATION_WINDOWS)?,
            tokens,
            steps,
            seconds,
            history,
        };
        self.write("report.json", &report)?;
        if let Some(loss) = report.validation_loss {
            println!("alone: validation loss {loss:.4} after {tokens} tokens");
        }
        Ok(())
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        write_atomically(&self.dir.join(name), &serde_json::to_vec_pretty(value)?)
    }
}
