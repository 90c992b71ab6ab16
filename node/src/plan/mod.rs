//! What a node will take of its device and its line, worked out before it is run.
//!
//! [`crate::bounds`] says what rounds can come to need whatever the others do; here is what is to be
//! *expected*: with so many peers, at this density, on this device. Everything follows from the genesis and
//! from the counts that stand beside the code they describe ([`crate::model::size`], [`crate::train::size`],
//! the protocol's constants), except for three things that only the device can tell, each measured in a
//! fraction of a second: how fast it multiplies matrices, how fast it reads and writes memory, and how much
//! memory libtorch takes by itself. [`sample`] runs a little noise through the real transform, extraction and
//! packing: that is where the bits a coefficient come from.
//!
//! ```text
//!   genesis ──┬─> memory    vectors as long as the parameters, one step's work, rounds that are held
//!             ├─> disk      snapshots, checkpoints, outbox
//!             ├─> traffic   deltas, headers, statuses, in and out
//!   device ───┴─> time      arithmetic / measured rate, and the line
//! ```
//!
//! [`measure`] checks all this: it runs a node alone for a few rounds and compares.

pub(crate) mod measure;
mod memory;
mod sample;
mod speed;
#[cfg(test)]
mod tests;
mod time;
mod traffic;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use swarm_protocol::genesis::Genesis;
use tch::Device;

use crate::bounds::Bounds;
use crate::ledger::archive;
use crate::model::{Precision, language_model};
use crate::net::Rate;
pub(crate) use sample::Sample;
pub(crate) use speed::Speed;
pub(crate) use time::Round;

/// What the figures depend on besides the genesis and the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Peers that train, this one included.
    pub(crate) peers: u32,
    /// Rounds since the start; beyond the genesis' retention nothing grows any more.
    pub(crate) rounds: u64,
    /// How fast bulk is sent.
    pub(crate) max_upload: Option<Rate>,
    /// Time between two snapshots.
    pub(crate) snapshots: Duration,
    /// Number format of matrix products.
    pub(crate) precision: Precision,
    /// Windows of a batch that are computed at once; `None` for all.
    pub(crate) micro_batch: Option<u32>,
    /// Where training computes.
    pub(crate) device: Device,
}

impl Scene {
    /// Authors of a round: all peers, or as many as a round takes.
    fn authors(&self, genesis: &Genesis) -> u32 {
        self.peers.min(genesis.rule.publishers)
    }

    /// Windows that are computed at once.
    fn micro_batch(&self, genesis: &Genesis) -> u32 {
        self.micro_batch.unwrap_or(u32::MAX).min(genesis.training.batch)
    }
}

/// One line of a sheet.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Item {
    /// What for.
    pub(crate) purpose: String,
    /// How much.
    pub(crate) bytes: u64,
    /// The same, divided by the number of parameters.
    pub(crate) bytes_a_parameter: f64,
}

/// Items and their sum.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sheet {
    title: String,
    /// The lines.
    pub(crate) items: Vec<Item>,
    /// Their sum in bytes.
    pub(crate) total: u64,
    #[serde(skip)]
    parameters: u64,
}

impl Sheet {
    fn new(title: &str, parameters: u64) -> Self {
        Self { title: title.to_owned(), items: Vec::new(), total: 0, parameters }
    }

    fn add(&mut self, purpose: impl Into<String>, bytes: u64) {
        let bytes_a_parameter = bytes as f64 / self.parameters.max(1) as f64;
        self.items.push(Item { purpose: purpose.into(), bytes, bytes_a_parameter });
        self.total = self.total.saturating_add(bytes);
    }
}

/// All that is expected of a node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// Preset or "custom".
    pub(crate) model: String,
    /// Shared scalars.
    pub(crate) parameters: u64,
    /// Peers that train.
    pub(crate) peers: u32,
    /// Authors of a round.
    pub(crate) authors: u32,
    /// A delta, as noise of this density packs.
    pub(crate) delta: Sample,
    /// Memory at its peak.
    pub(crate) memory: Sheet,
    /// Disk at its peak.
    pub(crate) disk: Sheet,
    /// Received in a round.
    pub(crate) received: Sheet,
    /// Sent in a round, on average over the peers.
    pub(crate) sent: Sheet,
    /// How long a round takes.
    pub(crate) round: Round,
    /// What the device's own figures are.
    pub(crate) device: Speed,
    /// What rounds can come to need, whatever the others do.
    pub(crate) bounds: Bounds,
}

impl Plan {
    /// Works it out.
    ///
    /// # Errors
    /// A genesis without a layout; a device that does not compute.
    pub(crate) fn new(genesis: &Genesis, scene: &Scene, speed: Speed, sample: Sample) -> Result<Self> {
        let authors = scene.authors(genesis);
        let arch = language_model(&genesis.model)?;
        let round = Round::new(genesis, arch, scene, &speed, &sample);
        Ok(Self {
            model: genesis.model.label().to_owned(),
            parameters: genesis.model.parameter_count(),
            peers: scene.peers,
            authors,
            memory: memory::memory(genesis, arch, scene, &speed, &sample),
            disk: memory::disk(genesis, scene, &sample, &round),
            received: traffic::received(genesis, scene, &sample, round.seconds),
            sent: traffic::sent(genesis, scene, &sample, round.seconds),
            bounds: Bounds::new(genesis, scene.snapshots)?.keeping(archive::KEPT),
            delta: sample,
            round,
            device: speed,
        })
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<58} {:>12} {:>14}", self.title, "MB", "B/parameter")?;
        for item in &self.items {
            let megabytes = item.bytes as f64 * 1e-6;
            writeln!(f, "  {:<56} {megabytes:>12.2} {:>14.2}", item.purpose, item.bytes_a_parameter)?;
        }
        let each = self.total as f64 / self.parameters.max(1) as f64;
        writeln!(f, "  {:<56} {:>12.2} {each:>14.2}", "together", self.total as f64 * 1e-6)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "model {}, {} parameters; {} peers train, {} of them publish in a round",
            self.model, self.parameters, self.peers, self.authors
        )?;
        writeln!(f, "{}", self.delta)?;
        for sheet in [&self.memory, &self.disk, &self.received, &self.sent] {
            writeln!(f, "\n{}", sheet.to_string().trim_end())?;
        }
        writeln!(f, "\n{}", self.round)?;
        writeln!(f, "\n{}", self.device)?;
        write!(f, "bounds, whatever the others do: {}", self.bounds)
    }
}
