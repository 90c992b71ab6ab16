//! `swarm bench generate`: writing with a cache of keys and values beside computing the whole sequence anew for each
//! token.
//!
//! Both continue the same text by the same tokens, some at a time in turn: greedily, so that they can be compared. The
//! sequences are as long as the context at most, so that neither has to let anything go.

use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde::Serialize;
use swarm_optimizer::residual::whole_model;
use swarm_protocol::architecture::LlamaConfig;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::initial;
use tch::Tensor;

use super::{Progress, median, print, use_threads};
use crate::data::sample_text;
use crate::model::{DeviceChoice, Llama, Network, Precision, Sequence};

/// How far the logits of the two may differ, as a share of the largest; beyond it they do not compute the same.
const TOLERANCE: f32 = 1e-4;
/// The same where matrix products are rounded to 8 bits.
const TOLERANCE_BF16: f32 = 5e-2;

/// Measure writing: tokens a second with a cache of keys and values, beside computing the whole sequence anew for each
/// token, in turn, and whether both predict the same.
#[derive(Args)]
pub(super) struct Generate {
    /// Models to measure.
    #[arg(long, value_delimiter = ',', default_value = "nano,micro", value_parser = LlamaConfig::PRESETS)]
    model: Vec<String>,

    /// Threads, for both. Default: 1.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Number format of matrix products, for both.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,

    /// How often each has its turn.
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Comparison {
    model: String,
    /// Tokens of the prompt, and how many are written.
    prompt: usize,
    written: usize,
    /// Medians.
    cached_tokens_per_second: f64,
    anew_tokens_per_second: f64,
    prompt_tokens_per_second: f64,
    /// Median over the turns.
    ratio: f64,
    /// Largest difference of the logits, as a share of the largest.
    difference: f32,
}

#[derive(Debug, Serialize)]
struct GenerateReport {
    threads: usize,
    precision: Precision,
    models: Vec<Comparison>,
}

impl Generate {
    pub(super) fn execute(self) -> Result<()> {
        let threads = use_threads(self.threads)?;
        ensure!(self.turns >= 1, "--turns 0: at least one is needed");
        let progress = Progress::new()?;
        let models = self.model.iter().map(|name| self.compare(name, &progress)).collect::<Result<_>>()?;
        print(&GenerateReport { threads, precision: self.precision, models }, self.json)
    }

    fn compare(&self, name: &str, progress: &Progress) -> Result<Comparison> {
        let arch = LlamaConfig::preset(name).ok_or_else(|| anyhow!("no model is called {name}"))?;
        let genesis = Genesis::new("bench", arch, 1);
        let layout = genesis.layout()?;
        let values = whole_model(&layout, &initial::coefficients(&genesis, &layout), None);
        let model = || -> Result<Llama> {
            let mut model = Llama::new(&arch, DeviceChoice::Cpu.resolve()?)?.with_precision(self.precision);
            model.set_parameters(&values)?;
            Ok(model)
        };
        let (anew, mut cached) = (model()?, Sequence::new(model()?)?);
        let prompt = arch.context as usize / 4;
        let written = arch.context as usize - prompt;
        let text: Vec<u32> = sample_text(prompt).into_iter().take(prompt).map(u32::from).collect();
        let (mut fast, mut slow, mut reading, mut ratios) = (vec![], vec![], vec![], vec![]);
        let mut difference = 0.0_f32;
        // The first turn is not counted: both allocate what they will need.
        for turn in 0..=self.turns {
            progress.say(turn, self.turns + 1, &format!("{name}, turn {turn} of {}", self.turns))?;
            // Without the beginning that it has from the last turn.
            cached.set(&[0])?;
            let began = Instant::now();
            let mut logits = cached.set(&text)?;
            let read = began.elapsed().as_secs_f64();
            let (mut tokens, mut all) = (text.clone(), vec![logits.clone()]);
            let began = Instant::now();
            for _ in 0..written {
                let token = likeliest(&logits)?;
                tokens.push(token);
                logits = cached.push(token)?;
                all.push(logits.clone());
            }
            let with = began.elapsed().as_secs_f64();
            progress.check()?;
            let began = Instant::now();
            let mut compared = Vec::with_capacity(written);
            for length in prompt + 1..=tokens.len() {
                compared.push(next_logits(&anew, tokens.get(..length).unwrap_or_default())?);
            }
            let without = began.elapsed().as_secs_f64();
            for (a, b) in all.iter().skip(1).zip(&compared) {
                difference = difference.max(differs(a, b));
            }
            if turn > 0 {
                fast.push(written as f64 / with);
                slow.push(written as f64 / without);
                reading.push(prompt as f64 / read);
                ratios.push(without / with);
            }
        }
        let tolerance = if self.precision == Precision::F32 { TOLERANCE } else { TOLERANCE_BF16 };
        ensure!(
            difference <= tolerance,
            "the two do not compute the same: their logits differ by {difference} of the largest; the figures would \
             mean nothing"
        );
        Ok(Comparison {
            model: name.to_owned(),
            prompt,
            written,
            cached_tokens_per_second: median(&fast),
            anew_tokens_per_second: median(&slow),
            prompt_tokens_per_second: median(&reading),
            ratio: median(&ratios),
            difference,
        })
    }
}

/// The logits after the last of these tokens, computed without a cache.
fn next_logits(model: &Llama, tokens: &[u32]) -> Result<Vec<f32>> {
    tch::no_grad(|| {
        let indices: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
        let logits = model.next_logits(&Tensor::f_from_slice(&indices)?.f_view([1, -1])?)?.f_view([-1])?;
        let mut values = vec![0.0; logits.numel()];
        let count = values.len();
        logits.f_copy_data(&mut values, count)?;
        Ok(values)
    })
}

fn likeliest(logits: &[f32]) -> Result<u32> {
    let best = (0..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(token, _)| token).context("the model has no output")
}

/// Largest difference as a share of the largest magnitude; infinite if something is no number.
fn differs(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
    let most = a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest);
    most.fold(0.0, |most, x| if x.is_nan() { f32::INFINITY } else { most.max(x) })
}

impl fmt::Display for GenerateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "threads: {}, precision: {:?}", self.threads, self.precision)?;
        for one in &self.models {
            writeln!(
                f,
                "{}: {} tokens after a prompt of {}: {:.0} a second with the cache, {:.0} computed anew: {:.1} times as \
                 fast; the prompt {:.0} a second; logits differ by {:.0e} of the largest",
                one.model,
                one.written,
                one.prompt,
                one.cached_tokens_per_second,
                one.anew_tokens_per_second,
                one.ratio,
                one.prompt_tokens_per_second,
                one.difference
            )?;
        }
        Ok(())
    }
}
