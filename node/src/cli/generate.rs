//! `swarm generate`: what was trained, used offline.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use swarm_optimizer::residual::{Residual, whole_model};
use swarm_protocol::peer::{Part, Peer};

use super::{training_threads, with_passive_openmp};
use crate::model::{DeviceChoice, Llama, Sampling, generate};
use crate::node::take_out;
use crate::store;
use crate::train::set_threads;

/// Continue a text with the model in a node's folder: the personal one, or the shared one. Works offline,
/// also while the node is running (with its newest snapshot).
#[derive(Args)]
pub(super) struct Generate {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// The text to continue.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prompt: String,

    /// Use the shared model, without what only this device has learned.
    #[arg(long)]
    shared: bool,

    /// Bytes to write.
    #[arg(long, value_name = "N", default_value_t = 300)]
    bytes: usize,

    /// 0 always takes the likeliest byte; more is more varied.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,

    /// Draw from this many likeliest bytes only.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,

    /// The same seed draws the same text from the same model.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Threads. Default: half of the cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
}

impl Generate {
    pub(super) fn execute(self) -> Result<()> {
        let threads = training_threads(self.threads)?;
        with_passive_openmp(threads)?;
        set_threads(threads)?;
        let (genesis, identity, snapshot, outbox) = store::read_only(&self.dir)?;
        let genesis = std::sync::Arc::new(genesis);
        let part = Part { trains: false, found_after: None, stop_before: None };
        let mut peer = Peer::new(Duration::ZERO, genesis.clone(), identity, part)?;
        let next_to_sign = snapshot.core.position.next_to_sign;
        peer.restore(Duration::ZERO, snapshot.core, &outbox)
            .map_err(|error| anyhow!("the snapshot in {} cannot be used: {error}", self.dir.display()))?;
        ensure!(
            peer.has_state(),
            "{} holds no model yet: this node was stopped before it found a peer that has the swarm's",
            self.dir.display()
        );
        let layout = peer.layout().clone();
        let residual = match snapshot.trainer.filter(|_| !self.shared) {
            Some(mut state) => {
                take_out(&peer, &mut state, &outbox, next_to_sign)?;
                Some(
                    Residual::from_values(&layout, state.residual)
                        .context("the residual does not fit the model")?,
                )
            }
            None => None,
        };
        let flat = whole_model(&layout, peer.coefficients(), residual.as_ref());
        let mut llama = Llama::new(&genesis.model, self.device.resolve()?)?;
        llama.set_parameters(&flat)?;
        let sampling = Sampling { temperature: self.temperature, top_k: self.top_k, seed: self.seed };
        let mut out = std::io::stdout().lock();
        let mut failed = out.write_all(self.prompt.as_bytes()).err();
        generate(&llama, self.prompt.as_bytes(), self.bytes, &sampling, |byte| {
            failed = out.write_all(&[byte]).and_then(|()| out.flush()).err();
            failed.is_none()
        })?;
        match failed {
            // Whoever read this has seen enough.
            Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Some(error) => Err(error).context("cannot write the text"),
            None => writeln!(out).context("cannot write the text"),
        }
    }
}
