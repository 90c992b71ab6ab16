//! `swarm plan`: what a node will take, before one is run.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use swarm_protocol::architecture::{Architecture, LlamaConfig};
use swarm_protocol::genesis::Genesis;

use super::rules::RuleArgs;
use super::run::ComputeArgs;
use super::{stop_flag, with_passive_openmp};
use crate::net::Rate;
use crate::plan::{Plan, Sample, Scene, Speed, measure};
use crate::store;
use crate::train::set_threads;

/// Rounds of a swarm that has been going for long.
const LONG: u64 = u64::MAX;

/// Print what a node of these rules will take of this device: memory, disk, traffic and time. Nothing is run but
/// a fraction of a second of arithmetic, which says how fast the device is; so the times are estimates.
#[derive(Args)]
pub(super) struct PlanCommand {
    /// The rules: a genesis file.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    genesis: Option<PathBuf>,

    /// Or those of a new swarm of this model: nano (about 1 M parameters), micro (10 M), small (100 M).
    #[arg(long, default_value = "nano", value_parser = LlamaConfig::PRESETS)]
    model: String,

    #[command(flatten)]
    rules: RuleArgs,

    /// Peers that train, this one included.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    peers: u32,

    /// As for swarm run: most bytes a second that are sent, such as 200kB.
    #[arg(long, value_name = "RATE")]
    max_upload: Option<Rate>,

    /// As for swarm run: time between two snapshots.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    snapshot_seconds: u32,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Also run a node alone, in a temporary folder, and compare the plan with it.
    #[arg(long)]
    measure: bool,

    /// Rounds that it does.
    #[arg(long, value_name = "N", default_value_t = 6, requires = "measure",
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: u64,

    /// Print JSON instead of tables: the plan, and what was measured (null without --measure).
    #[arg(long)]
    json: bool,
}

impl PlanCommand {
    pub(super) fn execute(self) -> Result<()> {
        let threads = self.compute.threads()?;
        with_passive_openmp(threads)?;
        set_threads(threads)?;
        let mut genesis = match &self.genesis {
            Some(path) => store::read_genesis(path)?,
            None => {
                let model = Architecture::preset(&self.model)
                    .ok_or_else(|| anyhow!("no model is called {}", self.model))?;
                Genesis::new("plan", model, 0)
            }
        };
        self.rules.apply(&mut genesis)?;
        let device = self.compute.device.resolve()?;
        let speed = Speed::measure(&genesis, device, self.compute.precision, threads)?;
        let sample = Sample::take(&genesis)?;
        let scene = Scene {
            peers: self.peers,
            rounds: LONG,
            max_upload: self.max_upload,
            snapshots: Duration::from_secs(self.snapshot_seconds.into()),
            precision: self.compute.precision,
            micro_batch: self.compute.micro_batch,
            device,
        };
        let plan = Plan::new(&genesis, &scene, speed, sample)?;
        if !self.json {
            println!("{plan}");
        }
        let measured = if self.measure {
            ensure!(cfg!(unix), "--measure needs a system that tells how much memory a process took");
            let stop = stop_flag()?;
            let scene = Scene { peers: 1, rounds: self.rounds, ..scene };
            let alone = Plan::new(&genesis, &scene, speed, sample)?;
            let flags = [
                ("--threads", threads.to_string()),
                ("--device", name(self.compute.device)),
                ("--precision", name(self.compute.precision)),
            ];
            let parts = self.compute.micro_batch.map(|windows| ("--micro-batch", windows.to_string()));
            let flags = flags.into_iter().chain(parts);
            let flags: Vec<String> = flags.flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
            let measured = measure::run(&genesis, &scene, &alone, &flags, &stop)?;
            if measured.is_none() {
                eprintln!("stopped before the node was done; nothing is left of it");
            }
            measured
        } else {
            None
        };
        if self.json {
            println!(
                "{}",
                serde_json::to_string_pretty(&serde_json::json!({ "plan": plan, "measured": measured }))?
            );
        } else if let Some(measured) = measured {
            println!("\n{measured}");
        }
        Ok(())
    }
}

/// A flag's value as it is written.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
