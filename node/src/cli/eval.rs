//! `swarm eval`: how good a model is on a text, and whether joining helped.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use swarm_protocol::architecture::{Architecture, ExamplesOf};

use super::given::GivenArgs;
use super::load::{Provenance, load_model};
use super::using::tokenizer;
use super::{stop_flag, training_threads, with_passive_openmp};
use crate::data::{Corpus, CorpusOptions, ImageExamples, TestSet, VectorExamples};
use crate::eval;
use crate::eval::text::{Files, held_out};
use crate::eval::{Measured, measure};
use crate::model::{self, DeviceChoice, Network, Precision};
use crate::store;
use crate::tokens::Tokenizer;
use crate::train::set_threads;

/// Time between two words about the progress.
const TELL: Duration = Duration::from_millis(500);

/// Measure models on a text: the shared one, the personal one (with what only this device has learned), and what
/// `swarm alone` reached without the others, so that it shows whether joining helps. Works offline, also while the
/// node is running (with its newest snapshot).
///
/// Prints the loss in nats a token, the perplexity, and bits a byte, which compares models with different tokenizers,
/// too. All of the text is measured on, in windows of the model's context that do not overlap. Text that a model was
/// trained on says little about it: of the node's own --data measure on what it holds out, with --held-out.
///
/// Of a classifier it prints the loss and the accuracy on all pictures or rows of --data.
#[derive(Args)]
pub(super) struct Eval {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// A file to measure on, or a folder in which text files are found. May be repeated; all are measured on as one.
    #[arg(long, value_name = "PATH", required = true)]
    data: Vec<PathBuf>,

    /// Only on what swarm run holds out of training when it is given the same --data (in the same order) and
    /// --hold-out.
    #[arg(long)]
    held_out: bool,

    /// Share that is held out, as swarm run was told.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, requires = "held_out")]
    hold_out: f64,

    /// The folder of a swarm alone: measure what it reached, too.
    #[arg(long, value_name = "DIR")]
    alone: Option<PathBuf>,

    /// Threads. Default: half of the cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Where to compute: auto takes a GPU if there is one.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,

    /// Number format of matrix products: bf16 is faster where the processor multiplies it itself.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,

    /// Write it as JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// A model's row.
#[derive(Serialize)]
struct Row {
    model: &'static str,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Serialize)]
struct Report {
    swarm: String,
    round: u64,
    data: String,
    /// Tokens that a prediction looks back at, at most.
    window: usize,
    models: Vec<Row>,
}

/// A model's row, of examples that are no text.
#[derive(Serialize)]
struct ExamplesRow {
    model: &'static str,
    #[serde(flatten)]
    measured: eval::set::Measured,
}

#[derive(Serialize)]
struct ExamplesReport {
    swarm: String,
    round: u64,
    data: String,
    models: Vec<ExamplesRow>,
}

/// What is measured on.
enum Data {
    Files(Files),
    HeldOut(Box<Corpus>),
}

impl Data {
    fn bytes(&self) -> u64 {
        match self {
            Self::Files(files) => files.bytes,
            // Only to tell how far it is: of tokens, as if each were a byte.
            Self::HeldOut(corpus) => corpus.held_out_tokens(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Files(files) => {
                let plural = if files.count() == 1 { "file" } else { "files" };
                format!("{} {plural}, {} bytes", files.count(), files.bytes)
            }
            Self::HeldOut(corpus) => format!("{} tokens held out of training", corpus.held_out_tokens()),
        }
    }
}

impl Eval {
    pub(super) fn execute(self) -> Result<()> {
        let threads = training_threads(self.threads)?;
        with_passive_openmp(threads)?;
        set_threads(threads)?;
        let (genesis, shared, provenance) = load_model(&self.dir, true)?;
        let mut models = vec![("shared", shared)];
        let (_, personal, whose) = load_model(&self.dir, false)?;
        if whose.personal {
            models.push(("personal", personal));
        } else {
            eprintln!("nothing was trained in {}: there is no personal model", self.dir.display());
        }
        if let Some(dir) = &self.alone {
            models.push(("alone", alone(dir, &genesis.model)?));
        }
        let given = GivenArgs::default().read(&genesis, &self.dir)?;
        let mut network = model::build(&genesis.model, &given, self.device.resolve()?, self.precision)?;
        let stop = stop_flag()?;
        let context = match genesis.model.examples() {
            ExamplesOf::Text { context, .. } => context as usize,
            kind => {
                ensure!(!self.held_out, "--held-out is for text: name data that nobody has trained on");
                let set: Box<dyn TestSet> = match kind {
                    ExamplesOf::Images(images) => Box::new(ImageExamples::test_set(&self.data, images)?),
                    ExamplesOf::Vectors(vectors) => Box::new(VectorExamples::test_set(&self.data, vectors)?),
                    ExamplesOf::Text { .. } => bail!("text is measured in windows"),
                };
                return self.on_examples(set.as_ref(), network.as_mut(), models, &provenance, &stop);
            }
        };
        let tokenizer = tokenizer(&self.dir, &genesis)?;
        let data = self.open(context, &tokenizer)?;
        let all = data.bytes() * models.len() as u64;
        let mut rows = Vec::new();
        let mut progress = Progress::new();
        for (name, values) in models {
            network.set_parameters(&values)?;
            drop(values);
            let before = data.bytes() * rows.len() as u64;
            let go_on = |read| {
                progress.tell(name, before + read, all);
                !stop.load(Ordering::Relaxed)
            };
            let network: &dyn Network = network.as_ref();
            let measured = match &data {
                Data::Files(files) => measure(network, context, files.pieces(&tokenizer), go_on),
                Data::HeldOut(corpus) => measure(network, context, held_out(corpus, &tokenizer), go_on),
            };
            rows.push(Row { model: name, measured: measured? });
        }
        progress.end();
        let report = Report {
            swarm: provenance.swarm.to_string(),
            round: provenance.round,
            data: data.describe(),
            window: context,
            models: rows,
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", table(&report));
        }
        Ok(())
    }

    /// Measures on examples that are no text.
    fn on_examples(
        &self,
        set: &dyn TestSet,
        network: &mut dyn Network,
        models: Vec<(&'static str, Vec<f32>)>,
        provenance: &Provenance,
        stop: &AtomicBool,
    ) -> Result<()> {
        let (mut rows, mut progress) = (Vec::new(), Progress::new());
        for (model, values) in models {
            network.set_parameters(&values)?;
            let measured = eval::set::measure(network, set, |done| {
                progress.tell(model, done, set.len());
                !stop.load(Ordering::Relaxed)
            })?;
            rows.push(ExamplesRow { model, measured });
        }
        progress.end();
        let report = ExamplesReport {
            swarm: provenance.swarm.to_string(),
            round: provenance.round,
            data: set.amount(),
            models: rows,
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(());
        }
        println!("{:<10}{:>12}{:>12}", "model", "loss", "accuracy");
        for ExamplesRow { model, measured } in &report.models {
            let accuracy = measured.accuracy.map_or("-".into(), |share| format!("{:.2} %", 100.0 * share));
            println!("{model:<10}{:>12.4}{accuracy:>12}", measured.loss);
        }
        println!("{}; swarm {:.8}, round {}", report.data, report.swarm, report.round);
        Ok(())
    }

    fn open(&self, context: usize, tokenizer: &Tokenizer) -> Result<Data> {
        if !self.held_out {
            return Ok(Data::Files(Files::find(&self.data)?));
        }
        let mut options = CorpusOptions::new(context);
        options.held_out_fraction = self.hold_out;
        options.tokenizer = tokenizer.clone();
        options.vocabulary = tokenizer.vocabulary();
        Ok(Data::HeldOut(Box::new(Corpus::open(&self.data, options)?)))
    }
}

/// What `swarm alone` reached in `dir`, if it is of this model.
fn alone(dir: &Path, model: &Architecture) -> Result<Vec<f32>> {
    let genesis = store::read_genesis(&dir.join("genesis.toml")).with_context(|| {
        format!("--alone {}: is it the folder of a swarm alone that has ended?", dir.display())
    })?;
    ensure!(
        genesis.model == *model,
        "--alone {} is of another model ({}) than the swarm's ({}): give swarm alone the swarm's genesis",
        dir.display(),
        genesis.model.label(),
        model.label()
    );
    store::read_parameters(&dir.join("parameters"), usize::try_from(model.parameter_count())?)
}

/// The report in words.
fn table(report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:<10}{:>15}{:>14}{:>14}", "model", "nats a token", "perplexity", "bits a byte");
    for Row { model, measured } in &report.models {
        let Measured { loss, perplexity, bits_per_byte, .. } = measured;
        let _ = writeln!(text, "{model:<10}{loss:>15.4}{perplexity:>14.3}{bits_per_byte:>14.4}");
    }
    let Report { swarm, round, data, window, models } = report;
    let tokens = models.first().map_or(0, |row| row.measured.tokens);
    let _ = writeln!(
        text,
        "{data}: {tokens} tokens predicted in windows of {window}; swarm {swarm:.8}, round {round}"
    );
    text
}

/// How far it is, for somebody who looks.
struct Progress {
    looks: bool,
    told: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { looks: std::io::stderr().is_terminal(), told: None }
    }

    fn tell(&mut self, what: &str, done: u64, all: u64) {
        if self.looks && self.told.is_none_or(|at| at.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            // Who cannot be told does not look.
            let _ = write!(std::io::stderr(), "\r{:3} %  {what:<10}", 100 * done / all.max(1));
        }
    }

    fn end(&self) {
        if self.told.is_some() {
            let _ = write!(std::io::stderr(), "\r{:20}\r", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_a_model_and_what_it_was_measured_on() {
        let measured =
            Measured { loss: 2.0, perplexity: 7.389, bits_per_byte: 2.885_39, tokens: 999, bytes: 999 };
        let models = vec![Row { model: "shared", measured }, Row { model: "alone", measured }];
        let report = Report {
            swarm: "0123456789abcdef".into(),
            round: 40,
            data: "1 file, 1000 bytes".into(),
            window: 128,
            models,
        };
        let text = table(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["shared", "2.0000", "7.389", "2.8854"]);
        assert!(lines[2].starts_with("alone"));
        assert_eq!(
            lines[3],
            "1 file, 1000 bytes: 999 tokens predicted in windows of 128; swarm 01234567, round 40"
        );
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["models"][1]["bits_per_byte"], 2.885_39);
    }
}
