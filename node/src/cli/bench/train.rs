//! `swarm bench train`: the learner beside the same model in eager PyTorch.
//!
//! Both start from the same values, get the same batches, and take the same steps, some at a time in turn. What
//! they do is the same if their losses are: the first steps' agree to a few digits, and later ones differ only
//! as far as rounding is carried on by training.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use swarm_optimizer::residual::whole_model;
use swarm_protocol::architecture::LlamaConfig;
use swarm_protocol::genesis::{Genesis, InnerOptimizer};
use swarm_protocol::initial;

use super::{Progress, cpu_seconds, median, print, use_threads};
use crate::data::{Corpus, CorpusOptions, Sampler, TextExamples, sample_text};
use crate::model::{self, DeviceChoice, Precision, language_model};
use crate::train::{Learner, LearnerConfig};

/// The baseline.
const SCRIPT: &str = include_str!("../../../../scripts/bench_train.py");
/// Windows of text that both train on.
const WINDOWS: usize = 2000;
/// Steps whose losses are compared; rounding has not grown by then.
const COMPARED: usize = 8;
/// How far the first loss may differ, as a share: both sum in other orders, nothing else.
const FIRST_TOLERANCE: f64 = 1e-4;
/// The same for bf16, which rounds at the third digit.
const FIRST_TOLERANCE_BF16: f64 = 1e-2;

/// Measure training: tokens a second of this program beside the same model, batches and optimizer in eager
/// PyTorch (scripts/bench_train.py), in turn, and whether both compute the same losses.
#[derive(Args)]
pub(super) struct Train {
    /// Models to measure.
    #[arg(long, value_delimiter = ',', default_value = "nano,micro", value_parser = LlamaConfig::PRESETS)]
    model: Vec<String>,

    /// A Python that has torch. Without one: python3 -m venv .venv && .venv/bin/pip install torch==2.13.0 numpy,
    /// then --python .venv/bin/python.
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,

    /// Threads, for both. Default: 1.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Number format of matrix products, for both.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,

    /// Inner optimizer.
    #[arg(long, value_parser = ["adamw", "muon"], default_value = "muon")]
    optimizer: String,

    /// How often each has its turn.
    #[arg(long, value_name = "N", default_value_t = 9)]
    turns: usize,

    /// Steps a turn. Default: 8 for nano, 2 for larger models.
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One of the two sides.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Side {
    /// Loss of each step.
    losses: Vec<f64>,
    /// Seconds of each step: loss and gradient.
    gradient: Vec<f64>,
    /// Seconds of each step: inner optimizer.
    optimizer: Vec<f64>,
    /// Seconds of computing in each step, whatever else the machine did meanwhile.
    cpu: Vec<f64>,
}

impl Side {
    fn extend(&mut self, other: &Self) {
        self.losses.extend(&other.losses);
        self.gradient.extend(&other.gradient);
        self.optimizer.extend(&other.optimizer);
        self.cpu.extend(&other.cpu);
    }

    /// Seconds of each step.
    fn seconds(&self) -> Vec<f64> {
        self.gradient.iter().zip(&self.optimizer).map(|(a, b)| a + b).collect()
    }
}

/// What is said of a side.
#[derive(Debug, Serialize)]
struct Summary {
    tokens_per_second: f64,
    /// Of the quickest step.
    best_tokens_per_second: f64,
    /// A second of all threads' computing time.
    tokens_per_cpu_second: f64,
    gradient_ms: f64,
    optimizer_ms: f64,
    first_loss: f64,
    /// Mean over the last turn.
    last_loss: f64,
}

impl Summary {
    fn of(side: &Side, tokens: f64, turn: usize) -> Self {
        let seconds = side.seconds();
        let last = &side.losses[side.losses.len().saturating_sub(turn)..];
        let quickest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            tokens_per_second: tokens / median(&seconds),
            best_tokens_per_second: tokens / quickest,
            tokens_per_cpu_second: tokens / median(&side.cpu),
            gradient_ms: 1e3 * median(&side.gradient),
            optimizer_ms: 1e3 * median(&side.optimizer),
            first_loss: side.losses.first().copied().unwrap_or(f64::NAN),
            last_loss: last.iter().sum::<f64>() / last.len() as f64,
        }
    }
}

#[derive(Debug, Serialize)]
struct Comparison {
    model: String,
    batch: u32,
    context: u32,
    steps: usize,
    swarm: Summary,
    pytorch: Summary,
    /// Median over the turns of PyTorch's time a step, divided by this program's of the same turn.
    ratio: f64,
    /// The same of computing time: what other programs take of the machine hardly matters to it.
    cpu_ratio: f64,
    /// Largest difference of the first losses, as a share of them.
    loss_difference: f64,
}

#[derive(Debug, Serialize)]
struct TrainReport {
    pytorch: String,
    threads: usize,
    precision: Precision,
    optimizer: String,
    models: Vec<Comparison>,
}

impl Train {
    pub(super) fn execute(self) -> Result<()> {
        let threads = use_threads(self.threads)?;
        ensure!(self.turns >= 1, "--turns 0: at least one is needed");
        ensure!(self.steps != Some(0), "--steps 0: at least one is needed");
        let progress = Progress::new()?;
        let mut models = Vec::new();
        let mut version = String::new();
        for model in &self.model {
            models.push(self.compare(model, threads, &progress, &mut version)?);
        }
        let (precision, optimizer) = (self.precision, self.optimizer.clone());
        print(&TrainReport { pytorch: version, threads, precision, optimizer, models }, self.json)
    }

    fn compare(
        &self,
        name: &str,
        threads: usize,
        progress: &Progress,
        version: &mut String,
    ) -> Result<Comparison> {
        let arch = LlamaConfig::preset(name).ok_or_else(|| anyhow!("no model is called {name}"))?;
        let mut genesis = Genesis::new("bench", arch, 1);
        genesis.training.optimizer =
            InnerOptimizer::named(&self.optimizer).context("no optimizer is called like this")?;
        genesis.training.learning_rate = genesis.training.optimizer.learning_rate();
        let place =
            tempfile::Builder::new().prefix("swarm-bench-").tempdir().context("no temporary folder")?;
        let mut swarm = Swarm::new(&genesis, self.precision, place.path())?;
        let mut pytorch = PyTorch::start(&self.python, &genesis, self.precision, threads, place.path())?;
        version.clone_from(&pytorch.version);

        let steps = self.steps.unwrap_or(if name == "nano" { 8 } else { 2 });
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        let (mut ratios, mut cpu_ratios) = (Vec::new(), Vec::new());
        // The first turn is not counted: both allocate what they will need.
        for turn in 0..=self.turns {
            progress.say(turn, self.turns + 1, &format!("{name}, turn {turn} of {}", self.turns))?;
            swarm.write_batches(steps, &pytorch.batches)?;
            let (a, b) = if turn % 2 == 0 {
                let a = swarm.steps(steps)?;
                (a, pytorch.steps(steps)?)
            } else {
                let b = pytorch.steps(steps)?;
                (swarm.steps(steps)?, b)
            };
            if turn > 0 {
                ratios.push(median(&b.seconds()) / median(&a.seconds()));
                cpu_ratios.push(median(&b.cpu) / median(&a.cpu));
            }
            ours.extend(&a);
            theirs.extend(&b);
        }
        let differences = ours.losses.iter().zip(&theirs.losses).map(|(a, b)| ((a - b) / b).abs());
        let differences: Vec<f64> = differences.take(COMPARED).collect();
        let tolerance = match self.precision {
            Precision::F32 => FIRST_TOLERANCE,
            Precision::Bf16 => FIRST_TOLERANCE_BF16,
        };
        // Not a <= b, so that what is no number is seen too.
        if !differences.first().is_some_and(|first| *first <= tolerance) {
            bail!(
                "the two do not compute the same: their first losses are {:?} and {:?}; the figures would mean nothing",
                ours.losses.first(),
                theirs.losses.first()
            );
        }
        for side in [&mut ours, &mut theirs] {
            side.gradient.drain(..steps);
            side.optimizer.drain(..steps);
            side.cpu.drain(..steps);
        }
        let training = &genesis.training;
        let tokens = f64::from(training.batch) * f64::from(arch.context);
        Ok(Comparison {
            model: name.to_owned(),
            batch: training.batch,
            context: arch.context,
            steps: ours.gradient.len(),
            swarm: Summary::of(&ours, tokens, steps),
            pytorch: Summary::of(&theirs, tokens, steps),
            ratio: median(&ratios),
            cpu_ratio: median(&cpu_ratios),
            loss_difference: differences.into_iter().fold(0.0, f64::max),
        })
    }
}

/// This program's side: the learner as `swarm run` has it, and a second reader of its text for the other side.
struct Swarm {
    learner: Learner,
    text: Corpus,
    sampler: Sampler,
    width: usize,
    batch: usize,
}

impl Swarm {
    /// Writes the starting values to `folder/start`.
    fn new(genesis: &Genesis, precision: Precision, folder: &Path) -> Result<Self> {
        let context = language_model(&genesis.model)?.context as usize;
        let text = folder.join("text");
        std::fs::write(&text, sample_text(WINDOWS * (context + 1))).context("no temporary file")?;
        let open = || Corpus::open(std::slice::from_ref(&text), CorpusOptions::new(context));
        let config = LearnerConfig::of(genesis, precision, 1);
        let model =
            model::build(&genesis.model, &model::Given::default(), DeviceChoice::Cpu.resolve()?, precision)?;
        let mut learner = Learner::new(config, model, Box::new(TextExamples::new(open()?, context)))?;
        let layout = genesis.layout()?;
        let flat = whole_model(&layout, &initial::coefficients(genesis, &layout), None);
        learner.set_parameters(&flat)?;
        let bytes: Vec<u8> = flat.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(folder.join("start"), bytes).context("no temporary file")?;
        let (sampler, width) = (Sampler::new(config.seed), context + 1);
        Ok(Self { learner, text: open()?, sampler, width, batch: config.batch })
    }

    /// Writes the batches that the learner will draw in its next `steps` steps.
    fn write_batches(&mut self, steps: usize, path: &Path) -> Result<()> {
        let mut tokens = vec![0; steps * self.batch * self.width];
        for window in tokens.chunks_exact_mut(self.width) {
            self.text.sample(&mut self.sampler, window)?;
        }
        // The other side reads bytes.
        let bytes: Vec<u8> = tokens.into_iter().filter_map(|token| u8::try_from(token).ok()).collect();
        std::fs::write(path, bytes).context("no temporary file")
    }

    fn steps(&mut self, steps: usize) -> Result<Side> {
        let mut side = Side::default();
        for _ in 0..steps {
            let (began, computed) = (Instant::now(), cpu_seconds());
            let (loss, mut gradient) = self.learner.gradient()?;
            side.gradient.push(began.elapsed().as_secs_f64());
            let began = Instant::now();
            let report = self.learner.apply(loss, &mut gradient, 1.0)?;
            self.learner.reuse(gradient);
            side.optimizer.push(began.elapsed().as_secs_f64());
            side.cpu.push(cpu_seconds() - computed);
            ensure!(report.skipped.is_none(), "a step was skipped: {}", report.skipped.unwrap_or_default());
            side.losses.push(loss);
        }
        Ok(side)
    }
}

/// PyTorch's side: a process that takes steps when it is told to.
struct PyTorch {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
    batches: PathBuf,
}

/// Its first words.
#[derive(Deserialize)]
struct Hello {
    torch: String,
}

impl PyTorch {
    fn start(
        python: &Path,
        genesis: &Genesis,
        precision: Precision,
        threads: usize,
        folder: &Path,
    ) -> Result<Self> {
        let (arch, training) = (language_model(&genesis.model)?, &genesis.training);
        let (script, batches) = (folder.join("bench_train.py"), folder.join("batches"));
        std::fs::write(&script, SCRIPT).context("no temporary file")?;
        let config = serde_json::json!({
            "vocabulary": arch.vocabulary, "dim": arch.dim, "layers": arch.layers, "heads": arch.heads,
            "ffn": arch.ffn, "context": arch.context, "batch": training.batch,
            "optimizer": training.optimizer.name(), "learning_rate": training.learning_rate,
            "warmup_steps": training.warmup_steps, "weight_decay": training.weight_decay, "clip": training.clip,
            "precision": precision, "threads": threads, "start": folder.join("start"), "batches": batches,
        });
        let mut child = Command::new(python)
            .arg("-B")
            .arg(script)
            .arg(config.to_string())
            // It has libraries of its own, which must not be mixed with those of this program.
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("DYLD_LIBRARY_PATH")
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot start {}; name a Python with --python PATH", python.display())
            })?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else {
            bail!("no pipe to {}", python.display())
        };
        let (answers, version) = (BufReader::new(answers), String::new());
        let mut pytorch = Self { child, orders, answers, version, batches };
        let hello: Hello = pytorch.read().with_context(|| {
            format!(
                "{} cannot run the baseline. If it says 'no torch' above: python3 -m venv .venv && .venv/bin/pip \
                 install torch==2.13.0 numpy, then --python .venv/bin/python",
                python.display()
            )
        })?;
        pytorch.version = hello.torch;
        Ok(pytorch)
    }

    fn read<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("PyTorch's process cannot be read")?;
        ensure!(!line.is_empty(), "PyTorch's process ended");
        serde_json::from_str(&line).with_context(|| format!("PyTorch's process said: {}", line.trim()))
    }

    fn steps(&mut self, steps: usize) -> Result<Side> {
        writeln!(self.orders, "{steps}")
            .and_then(|()| self.orders.flush())
            .context("PyTorch's process ended")?;
        self.read()
    }
}

impl Drop for PyTorch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Display for TrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pytorch, threads, precision, optimizer, models } = self;
        let kind = match precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        };
        writeln!(f, "training, {threads} thread(s), {kind}, {optimizer}; PyTorch {pytorch}, eager; medians")?;
        let head = ["model", "", "tokens/s", "per CPU s", "gradient", "optimizer", "first loss", "last loss"];
        let [a, b, c, d, e, g, h, i] = head;
        write!(f, "{a:<8}{b:<9}{c:>10}{d:>10}{e:>12}{g:>12}{h:>12}{i:>12}")?;
        for comparison in models {
            for (side, summary) in [("swarm", &comparison.swarm), ("pytorch", &comparison.pytorch)] {
                write!(
                    f,
                    "\n{:<8}{side:<9}{:>10.0}{:>10.0}{:>9.2} ms{:>9.2} ms{:>12.6}{:>12.6}",
                    comparison.model,
                    summary.tokens_per_second,
                    summary.tokens_per_cpu_second,
                    summary.gradient_ms,
                    summary.optimizer_ms,
                    summary.first_loss,
                    summary.last_loss
                )?;
            }
            write!(
                f,
                "\n{:<8}ratio {:.3}, of computing time {:.3}; {} steps of {} x {} tokens; the first {COMPARED} losses \
                 differ by {:.1e} at most",
                comparison.model,
                comparison.ratio,
                comparison.cpu_ratio,
                comparison.steps,
                comparison.batch,
                comparison.context,
                comparison.loss_difference
            )?;
        }
        Ok(())
    }
}
