//! What a run reached: a curve while it goes on, a result when it has ended.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::store::write_atomically;

/// One point of a run's curve. Losses in nats per byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Rounds done.
    pub(crate) round: u64,
    /// Tokens trained on, by all learners together.
    pub(crate) tokens: u64,
    /// Bytes that one learner has sent, per parameter.
    pub(crate) bytes_per_parameter: f64,
    /// Mean of the training losses since the last point.
    pub(crate) training_loss: f64,
    /// Of the shared model (method local: mean of all) on text that nobody trains on.
    pub(crate) validation_loss: f64,
    /// Mean Euclidean norm of the learners' residuals, and of what a round moved them by.
    pub(crate) residual_norm: f64,
    pub(crate) displacement_norm: f64,
    /// Share of the learning rate.
    pub(crate) rate: f64,
}

/// DIR/result.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    pub(crate) name: String,
    /// Of the shared model at the end (method local: mean of all), in nats per byte.
    pub(crate) validation_loss: f64,
    /// Mean of the learners' own models, where they differ from the shared one.
    pub(crate) personal_validation_loss: Option<f64>,
    /// Bytes that one learner sends, per parameter and token that it trains on.
    pub(crate) bytes_per_parameter_token: f64,
    /// The same as a share of what dense 32-bit gradients would take at every step of this batch.
    pub(crate) share_of_dense: f64,
    pub(crate) tokens: u64,
    pub(crate) rounds: u64,
    pub(crate) parameters: u64,
    pub(crate) residual_norm: f64,
    /// Stopped before its tokens were through, by the sweep.
    pub(crate) stopped_early: bool,
    /// Time in all its parts, validation and saving included.
    pub(crate) seconds: f64,
    pub(crate) tokens_per_second: f64,
    /// BLAKE3 of the text: results on equal texts can be compared.
    pub(crate) text: String,
    /// BLAKE3 of the shared model's parameters: equal runs end with equal ones, on one kind of machine.
    pub(crate) model_digest: String,
    pub(crate) machine: String,
    pub(crate) version: String,
    pub(crate) settings: Settings,
    pub(crate) curve: Vec<Point>,
}

impl RunResult {
    /// Writes result.json and curve.csv.
    ///
    /// # Errors
    /// A disk that does not take them.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        write_atomically(&folder.join("curve.csv"), csv(&self.curve).as_bytes())?;
        write_atomically(&folder.join("result.json"), &serde_json::to_vec_pretty(self)?)
    }

    /// The result in a folder, if its run has ended there.
    ///
    /// # Errors
    /// A result.json that cannot be read.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("result.json");
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let read = serde_json::from_slice(&bytes);
        read.map(Some).with_context(|| format!("{} is no result of this version; remove it", path.display()))
    }
}

fn csv(curve: &[Point]) -> String {
    let mut text = String::from(
        "round,tokens,bytes_per_parameter,training_loss,validation_loss,residual_norm,displacement_norm,rate\n",
    );
    for p in curve {
        text += &format!(
            "{},{},{:.6},{:.5},{:.5},{:.5},{:.5},{:.5}\n",
            p.round,
            p.tokens,
            p.bytes_per_parameter,
            p.training_loss,
            p.validation_loss,
            p.residual_norm,
            p.displacement_norm,
            p.rate
        );
    }
    text
}

/// Runs that differ in the seed alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) name: String,
    pub(crate) seeds: Vec<u64>,
    /// Mean over the seeds.
    pub(crate) validation_loss: f64,
    /// Sample standard deviation over the seeds; none for one seed.
    pub(crate) spread: Option<f64>,
    pub(crate) personal_validation_loss: Option<f64>,
    pub(crate) bytes_per_parameter_token: f64,
    pub(crate) share_of_dense: f64,
    pub(crate) tokens: u64,
    pub(crate) learners: u32,
    pub(crate) stopped_early: bool,
}

/// One summary a name, in the order of their first runs.
pub(crate) fn summarize(results: &[RunResult]) -> Vec<Summary> {
    let mut names: Vec<&str> = Vec::new();
    for result in results {
        if !names.contains(&result.name.as_str()) {
            names.push(&result.name);
        }
    }
    let summary = |name: &&str| {
        let runs: Vec<&RunResult> = results.iter().filter(|run| run.name == *name).collect();
        let first = runs.first()?;
        let mean =
            |of: &dyn Fn(&RunResult) -> f64| runs.iter().map(|run| of(run)).sum::<f64>() / runs.len() as f64;
        let loss = mean(&|run| run.validation_loss);
        let squares: f64 = runs.iter().map(|run| (run.validation_loss - loss).powi(2)).sum();
        let personal = first.personal_validation_loss;
        Some(Summary {
            name: (*name).to_owned(),
            seeds: runs.iter().map(|run| run.settings.seed).collect(),
            validation_loss: loss,
            spread: (runs.len() > 1).then(|| (squares / (runs.len() - 1) as f64).sqrt()),
            personal_validation_loss: personal
                .map(|_| mean(&|run| run.personal_validation_loss.unwrap_or(run.validation_loss))),
            bytes_per_parameter_token: mean(&|run| run.bytes_per_parameter_token),
            share_of_dense: mean(&|run| run.share_of_dense),
            tokens: first.tokens,
            learners: first.settings.learners,
            stopped_early: runs.iter().any(|run| run.stopped_early),
        })
    };
    names.iter().filter_map(summary).collect()
}

/// The summaries as CSV.
pub(crate) fn summary_csv(summaries: &[Summary]) -> String {
    let mut text = String::from(
        "name,learners,tokens,seeds,validation_loss,spread,personal_validation_loss,bytes_per_parameter_token,share_of_dense\n",
    );
    for s in summaries {
        let optional = |value: Option<f64>| value.map(|value| format!("{value:.5}")).unwrap_or_default();
        text += &format!(
            "\"{}\",{},{},{},{:.5},{},{},{:.4e},{:.4e}\n",
            s.name.replace('"', "\"\""),
            s.learners,
            s.tokens,
            s.seeds.len(),
            s.validation_loss,
            optional(s.spread),
            optional(s.personal_validation_loss),
            s.bytes_per_parameter_token,
            s.share_of_dense
        );
    }
    text
}
