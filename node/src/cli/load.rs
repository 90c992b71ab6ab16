//! The model in a node's folder, as the commands see it that work offline: also while the node is running, with
//! its newest snapshot.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::residual::{Residual, whole_model};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::peer::{Part, Peer};

use crate::node::take_out;
use crate::store;
use crate::trainer::TrainerState;

/// Which model it is: what somebody who is handed a file of it can ask the swarm about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Provenance {
    /// The swarm.
    pub(super) swarm: Digest,
    /// Rounds that are in it, the open ones too.
    pub(super) round: u64,
    /// State digest of the shared coefficients C after these rounds.
    pub(super) state: Digest,
    /// Whether what only this device has learned is in it, too.
    pub(super) personal: bool,
}

/// A node's folder that is only looked at.
pub(super) struct Folder {
    /// The node's core as of its snapshot.
    pub(super) peer: Peer,
    /// Rounds that had settled by then.
    pub(super) settled: u64,
    /// C after these.
    pub(super) settled_state: Coefficients,
    trainer: Option<TrainerState>,
    outbox: Vec<Vec<u8>>,
    next_to_sign: u64,
}

impl Folder {
    /// Reads the folder `dir` without locking it.
    ///
    /// # Errors
    /// A folder that is none of a node's, or a file that cannot be used.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let (genesis, identity, snapshot, outbox) = store::read_only(dir)?;
        let position = &snapshot.core.position;
        let (settled, next_to_sign) = (position.settled, position.next_to_sign);
        let settled_state = snapshot.core.settled.clone();
        let part = Part { trains: false, found_after: None, stop_before: None };
        let mut peer = Peer::new(Duration::ZERO, Arc::new(genesis), identity, part)?;
        // It checks what it is given.
        peer.restore(Duration::ZERO, snapshot.core, &outbox)
            .map_err(|error| anyhow!("the snapshot in {} cannot be used: {error}", dir.display()))?;
        Ok(Self { peer, settled, settled_state, trainer: snapshot.trainer, outbox, next_to_sign })
    }

    /// What this device has learned and not told anyone, if it has trained.
    fn residual(&mut self) -> Result<Option<Residual>> {
        let Some(mut state) = self.trainer.take() else { return Ok(None) };
        take_out(&self.peer, &mut state, &self.outbox, self.next_to_sign)?;
        let residual = Residual::from_values(self.peer.layout(), state.residual);
        residual.context("the residual does not fit the model").map(Some)
    }
}

/// The model in the node's folder `dir`: its parameters in layout order. It is the personal model, with what only
/// this device has learned, unless only what is `shared` is asked for or nothing was ever trained here.
///
/// # Errors
/// As [`Folder::open`]; a node that has no model yet.
pub(super) fn load_model(dir: &Path, shared: bool) -> Result<(Genesis, Vec<f32>, Provenance)> {
    let mut folder = Folder::open(dir)?;
    ensure!(
        folder.peer.has_state(),
        "{} holds no model yet: this node was stopped before it found a peer that has the swarm's",
        dir.display()
    );
    let residual = if shared { None } else { folder.residual()? };
    let peer = &folder.peer;
    let flat = whole_model(peer.layout(), peer.coefficients(), residual.as_ref());
    let provenance = Provenance {
        swarm: peer.swarm_id(),
        round: peer.round(),
        state: Digest::of_state(peer.coefficients().values()),
        personal: residual.is_some(),
    };
    Ok((peer.genesis().as_ref().clone(), flat, provenance))
}
