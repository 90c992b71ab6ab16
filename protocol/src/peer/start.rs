//! Where a swarm begins: C0, and how a peer of a fork comes by it.
//!
//! An ordinary swarm's C0 follows from its genesis, so every peer has it. A fork's C0 is its parent's C, of
//! which the genesis holds the digest only. Whoever has it serves it as a checkpoint after no settled rounds.
//! A peer without it cannot found the swarm; it takes a checkpoint wherever it finds one, and while there is
//! no later one, that is C0. No header vouches for it: that its state is the one that the genesis names is all
//! the proof there can be, and all that is needed.

use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::layout::Layout;

use crate::Time;
use crate::checkpoint::{Checkpoints, Held, Manifest, Name};
use crate::digest::Digest;
use crate::genesis::{Genesis, GenesisError, Parent};
use crate::identity::PeerKey;
use crate::initial;
use crate::round_log::RoundLog;
use crate::wire::Checkpoint;

use super::join::Stage;
use super::{Peer, Report};

/// What a peer has at the beginning.
pub(super) struct Start {
    /// C, zeros if it is not known.
    pub(super) c0: Coefficients,
    /// Whether it is.
    pub(super) has_state: bool,
    /// Its name.
    pub(super) start: Checkpoint,
    /// What neighbours can fetch.
    pub(super) checkpoints: Checkpoints,
}

impl Start {
    pub(super) fn of(
        genesis: &Genesis,
        layout: &Layout,
        log: &RoundLog,
        imported: Option<Coefficients>,
    ) -> Result<Self, GenesisError> {
        let mut checkpoints = Checkpoints::default();
        let Some(c0) = initial::start(genesis, layout, imported)? else {
            // Nothing is signed before a checkpoint is here, so nobody sees this name.
            let start = Checkpoint { settled: 0, manifest: Digest::default(), log_digest: log.log_digest() };
            let c0 = Coefficients::new(vec![0; layout.len()]);
            return Ok(Self { c0, has_state: false, start, checkpoints });
        };
        let held = Held::new(0, log.recent_digests(), c0.clone());
        let start = held.checkpoint;
        if genesis.parent.is_some() {
            checkpoints.push(held);
        }
        Ok(Self { c0, has_state: true, start, checkpoints })
    }
}

impl Peer {
    /// Whether this peer has a model: one of a fork has none before it has met somebody, unless it was given
    /// the starting point.
    pub fn has_state(&self) -> bool {
        self.has_state
    }

    fn parent_of(&self, settled: u64) -> Option<Parent> {
        self.genesis.parent.filter(|_| settled == 0)
    }

    /// If `claimed` is a fork's starting point, begins to fetch it from `source`. Returns whether it is.
    pub(super) fn take_start(&mut self, now: Time, source: PeerKey, target: u64, claimed: Name) -> bool {
        if self.parent_of(claimed.settled).is_none() {
            return false;
        }
        self.report(Report::JoiningAt(claimed));
        self.join_from(source, target, Stage::Fetching(claimed));
        self.continue_joining(now);
        true
    }

    /// Whether `manifest`, whose hash is the one that was asked for, may be believed: one of a starting point
    /// is vouched for by the genesis alone, from which its history follows too.
    pub(super) fn may_believe(&self, manifest: &Manifest) -> bool {
        let begins = || manifest.digests == RoundLog::new(&self.genesis).recent_digests();
        self.parent_of(manifest.settled).is_none_or(|parent| parent.state == manifest.state && begins())
    }

    /// A checkpoint is not what it was said to be. Who named a starting point that is none has lied; of a
    /// later one, most authors have.
    pub(super) fn checkpoint_was_wrong(&mut self, now: Time, settled: u64, why: &'static str) {
        if let Some(source) = self.parent_of(settled).and_then(|_| self.join_source()) {
            self.refuse("another starting point than the genesis names", source);
            self.ban(now, "another starting point than the genesis names", source);
        }
        self.join_cannot_use(why);
    }

    /// Whether the C of a snapshot after so many settled rounds is the swarm's: a peer that was stopped before
    /// it had any has saved none.
    pub(super) fn is_state(&self, settled: u64, c: &Coefficients) -> bool {
        self.parent_of(settled).is_none_or(|parent| parent.state == Digest::of_state(c.values()))
    }
}
