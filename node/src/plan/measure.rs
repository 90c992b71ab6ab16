//! The plan against a real run: a node of its own process, alone, for a few rounds.
//!
//! What is compared is the process' largest resident memory, as the system counts it, how large its folder is,
//! and how long a round's work took, all as the node's `report.json` tells. Traffic needs others, so it is not
//! compared.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use swarm_protocol::genesis::{Access, Genesis};

use super::{Plan, Scene};
use crate::data::sample_text;
use crate::model::language_model;
use crate::store::write_atomically;

/// Length of the text in windows of the model, so that there is a held-out part.
const WINDOWS: usize = 400;
/// How often the run is looked at.
const POLL: Duration = Duration::from_millis(200);

/// A run of a node, and what the plan says of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// Rounds that it did.
    pub(crate) rounds: u64,
    /// Largest resident memory, in bytes.
    pub(crate) peak_memory: u64,
    /// What the plan expects of one peer after so many rounds.
    pub(crate) planned_memory: u64,
    /// The first divided by the second.
    pub(crate) memory_ratio: f64,
    /// Bytes in its folder at the end.
    pub(crate) disk: u64,
    /// What the plan expects at the peak, small files and files being replaced included.
    pub(crate) planned_disk: u64,
    /// Training, transforms and packing: seconds a round.
    pub(crate) seconds_a_round: f64,
    /// What the plan expects.
    pub(crate) planned_seconds: f64,
    /// Bits of a coefficient that was sent.
    pub(crate) bits_a_coefficient: Option<f64>,
    /// What the plan expects.
    pub(crate) planned_bits: f64,
}

/// Runs a node of `genesis` for `scene.rounds` rounds in a temporary folder, with `flags` of `swarm run`, and
/// compares it with `plan`, which must be one for the same scene. `None` if `stop` was set before it was done.
///
/// # Errors
/// The node failed; the text has its last words.
pub(crate) fn run(
    genesis: &Genesis,
    scene: &Scene,
    plan: &Plan,
    flags: &[String],
    stop: &AtomicBool,
) -> Result<Option<Measured>> {
    let place = tempfile::Builder::new().prefix("swarm-plan-").tempdir().context("no temporary folder")?;
    let path = |name: &str| place.path().join(name);
    // What a fork starts with is with its peers, and nobody would admit this node; how much it takes does not depend on
    // either.
    let genesis = Genesis { parent: None, access: Access::default(), ..genesis.clone() };
    write_atomically(&path("genesis.toml"), genesis.to_toml().as_bytes())?;
    write_atomically(
        &path("text"),
        &sample_text(WINDOWS * (language_model(&genesis.model)?.context as usize + 1)),
    )?;
    let log = fs::File::create(path("log")).context("no temporary file")?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program)
        .args(["run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .args(["--rounds", &scene.rounds.to_string()])
        .args(["--snapshot-seconds", &scene.snapshots.as_secs().max(1).to_string()])
        .args(flags)
        .arg("--genesis")
        .arg(path("genesis.toml"))
        .arg("--dir")
        .arg(path("node"))
        .arg("--data")
        .arg(path("text"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start this program again")?;
    let mut said = String::new();
    let ended = loop {
        if let Some(ended) = child.try_wait().context("cannot wait for the node")? {
            break ended;
        }
        if stop.load(Ordering::Relaxed) {
            // Its folder goes, so nothing has to be saved.
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        let status = read(&path("node/status.json")).unwrap_or_default();
        let line =
            format!("a node alone: round {} of {}, {}", status["round"], scene.rounds, status["phase"]);
        if line != said && status["round"].is_u64() {
            eprintln!("{line}");
            said = line;
        }
        std::thread::sleep(POLL);
    };
    if !ended.success() {
        let log = fs::read_to_string(path("log")).unwrap_or_default();
        bail!("the node ended ({ended}); its last words: {}", log.lines().last().unwrap_or("none"));
    }
    let report = read(&path("node/report.json"))?;
    let rounds = report["deltas_published"].as_u64().unwrap_or(0).max(1);
    let peak_memory = report["peak_memory_bytes"].as_u64().context("this system does not tell memory")?;
    let seconds = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
    Ok(Some(Measured {
        rounds,
        peak_memory,
        planned_memory: plan.memory.total,
        memory_ratio: peak_memory as f64 / plan.memory.total.max(1) as f64,
        disk: folder_bytes(&path("node")),
        planned_disk: plan.disk.total,
        seconds_a_round: (seconds("seconds_training") + seconds("seconds_optimizing")) / rounds as f64,
        planned_seconds: plan.round.model + plan.round.optimizer + plan.round.sharing,
        bits_a_coefficient: report["bits_per_coefficient"].as_f64(),
        planned_bits: plan.delta.bits_a_coefficient,
    }))
}

fn read(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", path.display()))
}

fn folder_bytes(path: &Path) -> u64 {
    let files = walkdir::WalkDir::new(path).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len()).sum()
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 * 1e-6;
        writeln!(f, "measured: a node alone, {} rounds", self.rounds)?;
        writeln!(
            f,
            "  memory at its peak {:.1} MB; the plan for this run says {:.1} MB: ratio {:.2}",
            megabytes(self.peak_memory),
            megabytes(self.planned_memory),
            self.memory_ratio
        )?;
        writeln!(
            f,
            "  folder {:.1} MB at the end; the plan says at most {:.1} MB",
            megabytes(self.disk),
            megabytes(self.planned_disk)
        )?;
        writeln!(
            f,
            "  a round's work {:.2} s; the plan says {:.2} s: ratio {:.2}",
            self.seconds_a_round,
            self.planned_seconds,
            self.seconds_a_round / self.planned_seconds
        )?;
        write!(
            f,
            "  {:.2} bits a coefficient; the plan says {:.2}",
            self.bits_a_coefficient.unwrap_or(f64::NAN),
            self.planned_bits
        )
    }
}
