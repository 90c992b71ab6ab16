//! Fetching a checkpoint: its manifest from anybody, then its chunks from all who have it at once.
//!
//! The manifest's hash is what the authors' signed headers vouch for, so whatever is fetched by it is
//! theirs, whoever serves it. Each source has a few chunks under way at a time, so a fast one serves more
//! than a slow one; a chunk that does not come is asked for elsewhere. What has been verified is kept when
//! the join fails, and taken up by the next one at the same checkpoint.

use std::collections::BTreeMap;

use crate::Time;

use crate::checkpoint::{Assembly, Held, Manifest, Name, manifest_len};
use crate::digest::Digest;
use crate::identity::PeerKey;
use crate::wire::{Role, Status};

use super::Peer;

/// Chunks under way at one source.
const AT_ONCE: usize = 2;
/// Chunks in a row that a source may fail to deliver.
const MAX_FAILURES: u32 = 3;

/// A checkpoint under way.
pub(super) struct Transfer {
    name: Name,
    /// What has been fetched so far, once the manifest is here.
    assembly: Option<Assembly>,
    /// What has been asked for, and of whom.
    asked: BTreeMap<Digest, PeerKey>,
    /// Failures in a row, by source.
    failures: BTreeMap<PeerKey, u32>,
}

impl Transfer {
    /// Bytes of C that are here, and of how many.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        self.assembly.as_ref().map(Assembly::progress)
    }
}

impl Peer {
    /// Goes on fetching the checkpoint of this name. Returns why it cannot.
    pub(super) fn continue_transfer(&mut self, now: Time, name: Name) -> Result<(), &'static str> {
        if self.transfer.as_ref().is_none_or(|transfer| transfer.name != name) {
            self.cancel_transfer();
            self.transfer =
                Some(Transfer { name, assembly: None, asked: BTreeMap::new(), failures: BTreeMap::new() });
        }
        let Some(transfer) = &self.transfer else { return Ok(()) };
        // Who has the next one keeps the one before.
        let next = name.settled + u64::from(self.genesis.rounds.checkpoint_every);
        let has = |status: &Status| {
            let held = status.checkpoint.filter(|_| status.role != Role::Joining);
            held.is_some_and(|held| held.name() == name || held.settled == next)
        };
        let fit = self.neighbours.iter().filter_map(|(peer, neighbour)| {
            let has = neighbour.status.as_ref().is_some_and(|(status, _)| has(status));
            let failures = transfer.failures.get(peer).copied().unwrap_or(0);
            (has && failures < MAX_FAILURES).then_some((*peer, failures))
        });
        let fit: Vec<(PeerKey, u32)> = fit.collect();
        // Who has failed is tried again when all others have, too.
        let fewest = fit.iter().map(|(_, failures)| *failures).min();
        let best = fit.into_iter().filter(|(_, failures)| Some(*failures) == fewest);
        let mut load: BTreeMap<PeerKey, usize> = best.map(|(peer, _)| (peer, 0)).collect();
        if load.is_empty() && transfer.asked.is_empty() {
            // Whoever failed may be tried again by the next join.
            if let Some(transfer) = &mut self.transfer {
                transfer.failures.clear();
            }
            return Err("no neighbour has the checkpoint");
        }
        // Who has failed too often is not asked again for having a question to answer still.
        for peer in transfer.asked.values() {
            load.entry(*peer).and_modify(|under_way| *under_way += 1);
        }
        let wanted: Vec<(Digest, u64)> = match &transfer.assembly {
            None => {
                let window = u64::from(self.genesis.rounds.window);
                vec![(name.manifest, manifest_len(self.layout.len(), name.settled, window))]
            }
            Some(assembly) => assembly.missing(),
        };
        let open: Vec<_> =
            wanted.into_iter().filter(|(hash, _)| !transfer.asked.contains_key(hash)).collect();
        for (hash, length) in open {
            let least = load.iter().min_by_key(|(peer, under_way)| (**under_way, **peer));
            let Some(peer) = least.filter(|(_, under_way)| **under_way < AT_ONCE).map(|(peer, _)| *peer)
            else {
                break;
            };
            *load.entry(peer).or_default() += 1;
            if let Some(transfer) = &mut self.transfer {
                transfer.asked.insert(hash, peer);
            }
            self.fetch(now, hash, length, peer);
        }
        Ok(())
    }

    /// Bytes with this hash are here. Once the whole checkpoint is, it is returned.
    pub(super) fn part_arrived(&mut self, now: Time, hash: Digest, bytes: &[u8]) -> Option<Held> {
        let window = u64::from(self.genesis.rounds.window);
        let transfer = self.transfer.as_mut()?;
        let from = transfer.asked.remove(&hash)?;
        transfer.failures.remove(&from);
        let settled = transfer.name.settled;
        let Some(assembly) = &mut transfer.assembly else {
            // Its hash is right: whoever made it, most authors vouch for it, or the genesis.
            let manifest = Manifest::decode(bytes, &transfer.name, self.layout.len(), window);
            let manifest = manifest.filter(|manifest| self.may_believe(manifest));
            match (manifest, &mut self.transfer) {
                (Some(manifest), Some(transfer)) => {
                    transfer.assembly = Some(Assembly::new(manifest, self.layout.len()));
                }
                _ => {
                    self.transfer = None;
                    self.checkpoint_was_wrong(now, settled, "the checkpoint does not fit this swarm");
                }
            }
            return None;
        };
        assembly.insert(&hash, bytes);
        if !assembly.is_complete() {
            return None;
        }
        let (state, manifest) = (assembly.finish(), assembly.manifest.clone());
        self.transfer = None;
        if state.is_none() {
            self.checkpoint_was_wrong(
                now,
                settled,
                "the checkpoint's parts do not make the whole that it names",
            );
        }
        Some(Held::new(manifest.settled, manifest.digests, state?))
    }

    /// The source that was asked for the bytes with this hash does not deliver them.
    pub(super) fn part_failed(&mut self, hash: &Digest) {
        let Some(transfer) = &mut self.transfer else { return };
        if let Some(peer) = transfer.asked.remove(hash) {
            let failures = transfer.failures.entry(peer).or_default();
            *failures = failures.saturating_add(1);
        }
    }

    /// `peer` keeps us waiting: chunks that it has not been asked for yet may go to somebody else.
    pub(super) fn release_chunks(&mut self, peer: &PeerKey) {
        let (Some(transfer), Some(waiting)) = (&mut self.transfer, self.pieces.get_mut(peer)) else { return };
        waiting.retain(|(hash, _)| {
            let chunk = transfer.asked.remove(hash).is_some();
            if chunk {
                self.fetcher.cancel(hash);
            }
            !chunk
        });
    }

    /// Stops asking; what is here is kept.
    pub(super) fn pause_transfer(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        for hash in std::mem::take(&mut transfer.asked).into_keys() {
            self.fetcher.cancel(&hash);
        }
    }

    fn cancel_transfer(&mut self) {
        self.pause_transfer();
        self.transfer = None;
    }
}
