//! What one run of the laboratory does, and how a file describes many runs.
//!
//! # The file
//! ```toml
//! title = "What H costs"
//! data = "~/texts"              # may be left to --data
//! seeds = [1, 2, 3]             # every run once with each
//!
//! [common]                      # for all runs
//! tokens = 4_000_000
//!
//! [[run]]
//! name = "AdamW, all-reduce"
//! method = "adamw-dp"
//!
//! [[run]]                       # lists make a grid: these are four runs
//! name = "swarm"
//! method = "swarm"
//! steps = [5, 10]
//! k = [128, 256]
//!
//! [[run]]                       # without `seeds` above, each run may have its own
//! name = "Muon, all-reduce"
//! method = "adamw-dp"
//! optimizer = "muon"
//! seed = [1, 2, 3]
//!
//! [sweep]                       # optional: early stopping by successive halving
//! at = [0.1, 0.3]               # at these shares of the tokens ...
//! keep = 0.5                    # ... only this share of the runs goes on
//! ```
//! Every key of a run is also a flag of `swarm lab`; flags win over the file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::architecture::{LlamaConfig, Sizes};
use swarm_protocol::genesis::{Genesis, InnerOptimizer};
use toml::{Table, Value};

pub(crate) use super::attack::Attack;
use crate::model::Precision;

/// More runs than this in one file are a mistake.
const MAX_RUNS: usize = 10_000;

/// How learners work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    /// Data parallel: the mean of all gradients every step, one optimizer (--optimizer). The baseline.
    AdamwDp,
    /// DeMo as in its paper (arXiv 2411.19870): sparse momentum every step, sign update.
    Demo,
    /// The swarm's rule: local steps, sparse deltas of the residual, integer folds.
    Swarm,
    /// Each learner for itself; the loss is the mean of theirs.
    Local,
    /// DiLoCo (arXiv 2311.08105): local steps, dense mean, Nesterov outer step.
    Diloco,
}

impl Method {
    /// Its name in files and flags.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AdamwDp => "adamw-dp",
            Self::Demo => "demo",
            Self::Swarm => "swarm",
            Self::Local => "local",
            Self::Diloco => "diloco",
        }
    }
}

/// All that a run's result depends on, apart from the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// What people call it; runs that differ in the seed alone share it.
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) model: String,
    pub(crate) learners: u32,
    /// Of all learners together.
    pub(crate) tokens: u64,
    pub(crate) seed: u64,
    pub(crate) precision: Precision,
    pub(crate) optimizer: InnerOptimizer,
    pub(crate) learning_rate: f64,
    pub(crate) warmup_steps: u32,
    pub(crate) decay: f64,
    pub(crate) final_rate: f64,
    pub(crate) weight_decay: f64,
    pub(crate) clip: f64,
    pub(crate) batch: u32,
    /// Inner steps a round (H).
    pub(crate) steps: u32,
    /// H at the end of the run; it changes linearly. 0: as at the start.
    pub(crate) steps_end: u32,
    /// Steps of the next round that are taken before a round's deltas are folded, as by a node that does not wait.
    pub(crate) overlap: u32,
    pub(crate) tile: u32,
    pub(crate) k: u32,
    /// k at the end of the run; it changes linearly. 0: as at the start.
    pub(crate) k_end: u32,
    pub(crate) max_exponent: u8,
    pub(crate) outer_learning_rate: f64,
    pub(crate) outer_momentum: f64,
    /// DeMo's decay of the momentum.
    pub(crate) demo_decay: f64,
    /// Share of deltas that come late, per receiver, by 1 to `late_rounds` rounds.
    pub(crate) late: f64,
    pub(crate) late_rounds: u32,
    /// Share of deltas that reach nobody; their mass returns to their author.
    pub(crate) lost: f64,
    /// Share of the steps that each learner manages, from the first on; the others manage all.
    pub(crate) stragglers: Vec<f64>,
    /// The last so many learners are cut off from the others for `cut_rounds` rounds from `cut_from` on.
    pub(crate) cut_off: u32,
    pub(crate) cut_from: u64,
    pub(crate) cut_rounds: u64,
    /// The last so many learners are hostile.
    pub(crate) attackers: u32,
    pub(crate) attack: Attack,
    /// Deltas are folded as they are, without the others' judgement: what a swarm does not do.
    pub(crate) undefended: bool,
}

impl Default for Settings {
    /// A swarm with the rules of a new genesis.
    fn default() -> Self {
        let model = "nano".to_owned();
        // The preset exists; its sizes play no part in the defaults.
        let sizes = Sizes { vocabulary: 256, dim: 128, layers: 4, heads: 4, ffn: 352, context: 128 };
        let genesis = Genesis::new("lab", sizes, 0);
        let (rule, training) = (genesis.rule, genesis.training);
        Self {
            name: String::new(),
            method: Method::Swarm,
            model,
            learners: 4,
            tokens: 2_000_000,
            seed: 1,
            precision: Precision::F32,
            optimizer: training.optimizer,
            learning_rate: training.learning_rate,
            warmup_steps: training.warmup_steps,
            decay: training.decay,
            final_rate: training.final_rate,
            weight_decay: training.weight_decay,
            clip: training.clip,
            batch: training.batch,
            steps: training.steps,
            steps_end: 0,
            overlap: 0,
            tile: rule.tile,
            k: rule.k,
            k_end: 0,
            max_exponent: rule.max_exponent,
            outer_learning_rate: 1.0,
            outer_momentum: 0.0,
            demo_decay: 0.999,
            late: 0.0,
            late_rounds: 8,
            lost: 0.0,
            stragglers: Vec::new(),
            cut_off: 0,
            cut_from: 20,
            cut_rounds: 100,
            attackers: 0,
            attack: Attack::Flip,
            undefended: false,
        }
    }
}

impl Settings {
    /// From a table as it stands in a file or comes from flags.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong type or outside its range; the text names the key.
    pub(crate) fn from_table(table: Table) -> Result<Self> {
        let given = |key: &str| table.contains_key(key);
        let (optimizer_given, rate_given) = (given("optimizer"), given("learning-rate"));
        let mut settings: Self = Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| anyhow!("{}", error.to_string().trim().replace('\n', " ")))?;
        if settings.method == Method::AdamwDp && !optimizer_given {
            settings.optimizer = InnerOptimizer::Adamw;
        }
        if !rate_given {
            settings.learning_rate = settings.optimizer.learning_rate();
        }
        settings.genesis()?;
        let within = |key: &str, value: f64, low: f64, high: f64| {
            ensure!((low..=high).contains(&value), "{key} = {value}: must be between {low} and {high}");
            Ok(())
        };
        within("learners", settings.learners.into(), 1.0, 256.0)?;
        within("tokens", settings.tokens as f64, 1.0, 1e15)?;
        within("steps-end", settings.steps_end.into(), 0.0, 100_000.0)?;
        within("overlap", settings.overlap.into(), 0.0, 100_000.0)?;
        within("k-end", settings.k_end.into(), 0.0, f64::from(settings.tile * settings.tile))?;
        within("outer-learning-rate", settings.outer_learning_rate, 1e-6, 100.0)?;
        within("outer-momentum", settings.outer_momentum, 0.0, 0.9999)?;
        within("demo-decay", settings.demo_decay, 0.0, 0.999_999)?;
        within("late", settings.late, 0.0, 1.0)?;
        within("late-rounds", settings.late_rounds.into(), 1.0, f64::from(settings.window()) - 1.0)?;
        within("lost", settings.lost, 0.0, 1.0)?;
        // The others are the larger side, whose history stays.
        let smaller = settings.learners.saturating_sub(1) / 2;
        within("cut-off", settings.cut_off.into(), 0.0, smaller.into())?;
        within("cut-rounds", settings.cut_rounds as f64, 1.0, 1e9)?;
        within("attackers", settings.attackers.into(), 0.0, f64::from(settings.learners))?;
        settings.stragglers.iter().try_for_each(|&share| within("stragglers", share, 0.0, 1.0))?;
        if settings.method != Method::Swarm {
            let weather = settings.late > 0.0 || settings.lost > 0.0 || settings.attackers > 0;
            let weather = weather || settings.cut_off > 0 || settings.overlap > 0;
            ensure!(!weather, "overlap, late, lost, cut-off and attackers are for the method swarm alone");
        }
        Ok(settings)
    }

    /// The genesis of a swarm that trains like this.
    ///
    /// # Errors
    /// A value outside its range, by its name in the genesis.
    pub(crate) fn genesis(&self) -> Result<Genesis> {
        let model = LlamaConfig::preset(&self.model).with_context(|| {
            format!("model = {:?}: must be one of {:?}", self.model, LlamaConfig::PRESETS)
        })?;
        let mut genesis = Genesis::new("lab", model, self.seed);
        let (rule, training) = (&mut genesis.rule, &mut genesis.training);
        rule.tile = self.tile;
        rule.k = self.k.max(self.k_end);
        rule.max_exponent = self.max_exponent;
        training.optimizer = self.optimizer;
        training.steps = self.steps;
        training.batch = self.batch;
        training.learning_rate = self.learning_rate;
        training.warmup_steps = self.warmup_steps;
        training.decay = self.decay;
        training.final_rate = self.final_rate;
        training.weight_decay = self.weight_decay;
        training.clip = self.clip;
        genesis.validate().map_err(anyhow::Error::msg)?;
        Ok(genesis)
    }

    /// Rounds for which a delta may be late.
    pub(crate) fn window(&self) -> u32 {
        16
    }

    /// Inner steps of a round that begins when this share of the tokens is trained.
    pub(crate) fn steps_at(&self, progress: f64) -> u32 {
        between(self.steps, self.steps_end, progress)
    }

    /// Coefficients of a full tile, likewise.
    pub(crate) fn k_at(&self, progress: f64) -> u32 {
        between(self.k, self.k_end, progress)
    }

    /// The folder of a run: its name, its seed, and a hash of everything, so that another setting is
    /// another folder.
    pub(crate) fn folder(&self) -> Result<String> {
        let all = blake3::hash(toml::to_string(self)?.as_bytes()).to_hex();
        let name: String = self
            .label()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let words: Vec<&str> = name.split('-').filter(|word| !word.is_empty()).take(8).collect();
        Ok(format!("{}-seed{}-{:.8}", words.join("-"), self.seed, all.as_str()))
    }

    /// What to call the run.
    pub(crate) fn label(&self) -> String {
        if self.name.is_empty() { self.method.name().to_owned() } else { self.name.clone() }
    }
}

fn between(start: u32, end: u32, progress: f64) -> u32 {
    if end == 0 {
        return start;
    }
    let (from, to) = (f64::from(start), f64::from(end));
    ((from + (to - from) * progress.clamp(0.0, 1.0)).round() as u32).max(1)
}

/// Early stopping: at each of `at` (shares of the tokens) the better `keep` of the runs goes on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sweep {
    pub(crate) at: Vec<f64>,
    pub(crate) keep: f64,
}

/// A file of runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) title: String,
    pub(crate) data: Option<String>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) common: Table,
    pub(crate) run: Vec<Table>,
    pub(crate) sweep: Option<Sweep>,
}

impl Plan {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let plan: Self = toml::from_str(text).map_err(|error| anyhow!("{}", error.to_string().trim()))?;
        if let Some(Sweep { at, keep }) = &plan.sweep {
            ensure!((0.0..1.0).contains(keep), "sweep.keep = {keep}: must be at least 0 and less than 1");
            let rising = at.windows(2).all(|pair| pair[0] < pair[1]);
            ensure!(
                rising && at.iter().all(|at| *at > 0.0 && *at < 1.0),
                "sweep.at: must rise between 0 and 1"
            );
        }
        Ok(plan)
    }

    /// All runs: every table of the file, with lists taken apart into a grid and once for each seed;
    /// `flags` win over the file.
    ///
    /// # Errors
    /// As [`Settings::from_table`], with the run's number; too many runs; two that are the same.
    pub(crate) fn runs(&self, flags: &Table, seeds: &[u64]) -> Result<Vec<Settings>> {
        let one = [Table::new()];
        let tables = if self.run.is_empty() { &one[..] } else { &self.run };
        let mut runs = Vec::new();
        for (number, table) in tables.iter().enumerate() {
            let mut merged = self.common.clone();
            merged.extend(table.clone());
            merged.extend(flags.clone());
            let seeds: &[u64] = if seeds.is_empty() { &self.seeds } else { seeds };
            if !seeds.is_empty() {
                merged.remove("seed");
            }
            for point in grid(merged)? {
                for seed in seeds.iter().map(Some).chain(seeds.is_empty().then_some(None)) {
                    let mut point = point.clone();
                    if let Some(seed) = seed {
                        point.insert("seed".into(), Value::Integer(i64::try_from(*seed)?));
                    }
                    let settings = Settings::from_table(point);
                    runs.push(settings.with_context(|| format!("run {}", number + 1))?);
                    ensure!(runs.len() <= MAX_RUNS, "more than {MAX_RUNS} runs");
                }
            }
        }
        let mut seen = BTreeMap::new();
        for run in &runs {
            if seen.insert(run.folder()?, ()).is_some() {
                bail!("two runs are the same: {}, seed {}", run.label(), run.seed);
            }
        }
        Ok(runs)
    }
}

/// Takes lists apart; `stragglers` is a list of its own, and a list of lists of it a grid.
fn grid(table: Table) -> Result<Vec<Table>> {
    let mut points = vec![Table::new()];
    let named = table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut varied = Vec::new();
    for (key, value) in table {
        let choices = match value {
            Value::Array(list) if key != "stragglers" || list.iter().any(Value::is_array) => {
                ensure!(!list.is_empty(), "{key}: an empty list");
                if list.len() > 1 {
                    varied.push(key.clone());
                }
                list
            }
            single => vec![single],
        };
        ensure!(points.len().saturating_mul(choices.len()) <= MAX_RUNS, "more than {MAX_RUNS} runs");
        let extended = points.iter().flat_map(|point| {
            choices.iter().map(|choice| {
                let mut point = point.clone();
                point.insert(key.clone(), choice.clone());
                point
            })
        });
        points = extended.collect();
    }
    for point in &mut points {
        let values: Vec<String> = varied
            .iter()
            .filter(|key| !["name", "seed"].contains(&key.as_str()))
            .filter_map(|key| point.get(key).map(|value| format!("{key} {value}")))
            .collect();
        if !values.is_empty() {
            let method = point.get("method").and_then(Value::as_str).unwrap_or("swarm");
            let base = point.get("name").and_then(Value::as_str).unwrap_or(if named.is_empty() {
                method
            } else {
                &named
            });
            let name = format!("{base}, {}", values.join(", ").replace('"', ""));
            point.insert("name".into(), Value::String(name));
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_seeds_make_a_grid() {
        let plan = Plan::parse(
            "seeds = [1, 2]\n[common]\ntokens = 1000\n[[run]]\nmethod = \"swarm\"\nsteps = [5, 10]\nk = [64, 128]\n\
             stragglers = [1.0, 0.5]\n[[run]]\nmethod = \"adamw-dp\"\n",
        )
        .unwrap();
        let runs = plan.runs(&Table::new(), &[]).unwrap();
        assert_eq!(runs.len(), 10);
        assert!(runs.iter().all(|run| run.tokens == 1000));
        let names: Vec<_> = runs.iter().step_by(2).map(Settings::label).collect();
        assert!(names.contains(&"swarm, k 64, steps 10".to_owned()), "{names:?}");
        assert_eq!(runs[0].stragglers, [1.0, 0.5]);
        let flags: Table = toml::from_str("tokens = 7").unwrap();
        let runs = plan.runs(&flags, &[9]).unwrap();
        assert_eq!((runs.len(), runs[0].tokens, runs[0].seed), (5, 7, 9));
    }

    #[test]
    fn a_run_may_have_seeds_of_its_own() {
        let plan = Plan::parse("[[run]]\nname = \"a\"\nseed = [1, 2]\n[[run]]\nname = \"b\"\n").unwrap();
        let runs = plan.runs(&Table::new(), &[]).unwrap();
        let runs: Vec<_> = runs.iter().map(|run| (run.label(), run.seed)).collect();
        assert_eq!(runs, [("a".to_owned(), 1), ("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let runs = plan.runs(&Table::new(), &[7]).unwrap();
        assert_eq!(runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [7, 7]);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| {
            let plan = Plan::parse(text).and_then(|plan| plan.runs(&Table::new(), &[]));
            format!("{:#}", plan.unwrap_err())
        };
        for (text, word) in [
            ("[[run]]\nmethd = \"swarm\"", "methd"),
            ("[[run]]\nmethod = \"swrm\"", "swrm"),
            ("[[run]]\nk = 0", "rule.k"),
            ("[[run]]\nmodel = \"tiny\"", "nano"),
            ("[[run]]\nmethod = \"local\"\nlate = 0.3", "late"),
            ("[[run]]\nlate = 1.5", "late"),
            ("[[run]]\nlearners = 4\ncut-off = 2", "cut-off"),
            ("[[run]]\nk = []", "empty list"),
            ("[[run]]\nseed = 1\n[[run]]\nseed = 1", "the same"),
            ("[sweep]\nat = [0.5, 0.1]\nkeep = 0.5", "sweep.at"),
            ("colour = 3", "colour"),
        ] {
            let said = error(text);
            assert!(said.contains(word), "{text}: {said}");
        }
    }

    #[test]
    fn h_and_k_change_linearly() {
        let settings = Settings { steps: 10, steps_end: 20, k: 100, ..Settings::default() };
        assert_eq!([0.0, 0.5, 1.0].map(|at| settings.steps_at(at)), [10, 15, 20]);
        assert_eq!(settings.k_at(0.7), 100);
    }
}
