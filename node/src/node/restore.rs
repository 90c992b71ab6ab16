//! Going on from what is in the folder, whatever is left of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use libp2p::Multiaddr;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::Identity;
use swarm_protocol::peer::snapshot::own_deltas;
use swarm_protocol::peer::{Part, Peer};

use super::files;
use crate::store::snapshot::{NodeSnapshot, Totals};
use crate::store::{Signed, Store};
use crate::trainer::TrainerState;

/// What this identity signed last is not known, so it signs nothing until no neighbour can hold a later
/// delta of it than those that it has been told of.
///
/// A peer accepts deltas for rounds up to one window beyond its own. Peers of one swarm are within a window
/// of each other (others have parted, see the core's `branch`). So when a node joins at round J, no peer of
/// its swarm is beyond J + window, and none can hold a delta for a round beyond J + 2 windows, whatever was
/// signed before. Until then the node trains without publishing: what it learns stays in its residual.
/// Deltas of its own for these rounds come from the neighbours meanwhile, and are taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    window: u64,
    /// The first round that may be signed; unknown before joining.
    until: Option<u64>,
}

impl Doubt {
    pub(super) fn new(window: u32) -> Self {
        Self { window: window.into(), until: None }
    }

    /// Joined, at this round. Every time counts: a second join may be to a swarm that is further.
    pub(super) fn joined(&mut self, round: u64) {
        let until = round.saturating_add(2 * self.window + 1);
        self.until = Some(self.until.map_or(until, |before| before.max(until)));
    }

    /// Whether this round must not be signed.
    pub(super) fn forbids(&self, round: u64) -> bool {
        self.until.is_none_or(|until| round < until)
    }
}

/// What a node goes on from.
pub(super) struct Restored {
    pub(super) peer: Peer,
    pub(super) totals: Totals,
    pub(super) trainer: Option<TrainerState>,
    pub(super) doubt: Option<Doubt>,
}

/// The core as the folder left it, or at the beginning.
///
/// # Errors
/// Files that cannot be read, or that are of another swarm or peer.
pub(super) fn restore(
    store: &Store,
    genesis: &Arc<Genesis>,
    identity: Identity,
    bootstrap: &[Multiaddr],
    looks_around: bool,
    trains: bool,
) -> Result<Restored> {
    let signed = store.last_signed()?;
    let snapshot = store.snapshot(genesis)?;
    let outbox = store.outbox()?;
    let me = identity.public();
    let ours = own_deltas(&outbox).into_iter().all(|(signed, _)| {
        let header = &signed.header;
        header.swarm == genesis.swarm_id() && header.author == me
    });
    ensure!(
        ours,
        "{} holds deltas of another swarm or of another peer: was identity.key or genesis.toml replaced? Put the old \
         one back, or start in a new folder with --dir",
        store.path("outbox").display()
    );
    let doubt = match signed {
        Signed::Unknown if trains => {
            tracing::warn!(
                "what this node's identity signed last is not known (no file 'signed' and no outbox in {}), and to sign \
                 a round twice would be held against it: it publishes nothing until {} rounds after it has joined. If \
                 nobody else is left in this swarm, start in a new folder",
                store.dir().display(),
                2 * genesis.rounds.window + 1
            );
            Some(Doubt::new(genesis.rounds.window))
        }
        _ => None,
    };
    let start = || match genesis.parent {
        Some(_) => store.start(genesis.layout()?.len()),
        None => Ok(None),
    };
    let settled = snapshot.as_ref().map_or(0, |snapshot| snapshot.core.position.settled);
    let c0 = if settled > 0 { None } else { start()? };
    let found_after = match (&snapshot, bootstrap.is_empty()) {
        // Alone it could only sign rounds that it may have signed before.
        _ if doubt.is_some() => None,
        // Who was told where to find the swarm waits for it; who was not looks around on the local network
        // and where it has been for a moment and is the swarm otherwise. A replica that others join through is there at once.
        // All of those there may be waiting for the one who has a fork's starting point.
        (None, false) if c0.is_none() => None,
        (_, false) => Some(Duration::from_secs(10)),
        (_, true) if looks_around && trains => Some(Duration::from_secs(5)),
        (_, true) => Some(Duration::ZERO),
    };
    let next = match signed {
        Signed::Before(next) => next,
        Signed::Unknown => 0,
    };
    let beginning = |c0| {
        let secret = Identity::from_secret(&identity.secret());
        let part = Part { trains, found_after, stop_before: None };
        Peer::with_start(Duration::ZERO, genesis.clone(), secret, part, c0)
            .with_context(|| format!("the swarm in {} cannot begin", store.dir().display()))
    };
    if let Some(snapshot) = snapshot {
        let mut peer = beginning(c0)?;
        match go_on(&mut peer, snapshot, &outbox, next) {
            Ok((totals, trainer)) => {
                for (manifest, state) in store.checkpoints(peer.layout().len())? {
                    if !peer.restore_checkpoint(manifest, state) {
                        tracing::debug!("a checkpoint on disk is not of the history that the snapshot has");
                    }
                }
                tracing::info!("going on from round {}", peer.round());
                return Ok(Restored { peer, totals, trainer, doubt });
            }
            Err(error) => {
                let path = store.path("snapshot");
                store.give_up_snapshot(&error.context(format!("{} cannot be used", path.display())))?;
            }
        }
    }
    let mut peer = beginning(start()?)?;
    // Nothing but the own deltas, and what the mark tells of them.
    let mut core = peer.snapshot();
    core.position.next_to_sign = next;
    peer.restore(Duration::ZERO, core, &outbox).map_err(anyhow::Error::msg)?;
    Ok(Restored { peer, totals: Totals::default(), trainer: None, doubt })
}

/// Takes up a snapshot and what was signed after it.
fn go_on(
    peer: &mut Peer,
    snapshot: NodeSnapshot,
    outbox: &[Vec<u8>],
    next: u64,
) -> Result<(Totals, Option<TrainerState>)> {
    let NodeSnapshot { mut core, totals, mut trainer } = snapshot;
    let covered = core.position.next_to_sign;
    core.position.next_to_sign = covered.max(next);
    peer.restore(Duration::ZERO, core, outbox).map_err(|why| anyhow!(why))?;
    if let Some(state) = &mut trainer {
        files::take_out(peer, state, outbox, covered)?;
    }
    Ok((totals, trainer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_doubt_nothing_is_signed_for_two_windows_after_joining() {
        let mut doubt = Doubt::new(16);
        assert!(doubt.forbids(0) && doubt.forbids(u64::MAX), "not joined yet");
        doubt.joined(100);
        assert!(doubt.forbids(100) && doubt.forbids(132) && !doubt.forbids(133));
        // A later join puts it off, an earlier round does not bring it forward.
        doubt.joined(110);
        assert!(doubt.forbids(142) && !doubt.forbids(143));
        doubt.joined(90);
        assert!(doubt.forbids(142));
    }
}
