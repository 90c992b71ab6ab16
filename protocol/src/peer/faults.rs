//! Faults of a device's own memory or arithmetic: noticing that one's C is not what the sets make, and
//! mending it.
//!
//! Neighbours tell each other their newest checkpoint. Two that agree on the history but not on the state
//! cannot both have computed right. Whoever notices does not believe the other: it computes its own state
//! again, from an older checkpoint that still has its hash and the sets since.
//!
//! * The same comes out: the other is wrong, and gets a strike. So nobody is stopped, or even slowed more than
//!   once in a checkpoint's time, by what others say.
//! * Something else comes out: this device made a mistake. The first parameter that differs is named, and what
//!   the sets make takes the place of what was here. A device that does so twice is not to be trusted with
//!   anybody's model, least of all its owner's: it stops.

use swarm_optimizer::coefficients::Coefficients;

use crate::Time;
use crate::checkpoint::Held;
use crate::identity::PeerKey;
use crate::initial;
use crate::replica::{self, Replica};
use crate::wire::Checkpoint;

use super::{Action, Peer, Report};

/// Faults of its own after which a peer does not go on.
const MAX_FAULTS: u32 = 2;

impl Peer {
    /// `peer` says that this is its checkpoint: if it is another state for the same history, somebody is wrong.
    pub(super) fn compare_state(&mut self, now: Time, peer: PeerKey, theirs: &Checkpoint) {
        let differs = |held: &&Held| {
            let ours = &held.checkpoint;
            let same = ours.settled == theirs.settled && ours.log_digest == theirs.log_digest;
            same && ours.manifest != theirs.manifest
        };
        let Some(ours) = self.checkpoints.iter().find(differs).map(|held| held.checkpoint) else { return };
        if self.verified != Some(ours) {
            let Some(right) = self.compute_again(ours.settled) else { return };
            if right.checkpoint != ours {
                self.mend(now, ours, right);
                return;
            }
            self.verified = Some(ours);
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && neighbour.disputed != Some(theirs.manifest)
        {
            neighbour.disputed = Some(theirs.manifest);
            self.strike(now, "another state for the same history", peer);
        }
    }

    /// The checkpoint after `settled` rounds from an older one that is intact and the sets since; `None` if
    /// there is nothing to begin with, as soon after a join.
    fn compute_again(&self, settled: u64) -> Option<Held> {
        let intact = |held: &&Held| {
            let since = held.checkpoint.settled;
            since < settled && since >= self.log.held_from() && held.is_intact()
        };
        let (from, mut state) = match self.checkpoints.iter().rev().find(intact) {
            Some(held) => (held.checkpoint.settled, held.state.clone()),
            // What a fork began with is not in its genesis.
            None if self.log.held_from() == 0 && self.genesis.parent.is_none() => {
                (0, initial::coefficients(&self.genesis, &self.layout))
            }
            None => return None,
        };
        self.fold_settled(&mut state, from, settled);
        let digests = self.checkpoints.iter().find(|held| held.checkpoint.settled == settled)?;
        Some(Held::new(settled, digests.manifest.digests.clone(), state))
    }

    fn fold_settled(&self, state: &mut Coefficients, from: u64, to: u64) {
        for round in from..to {
            replica::fold_round(
                &self.layout,
                &self.genesis.rule,
                self.checks.as_ref(),
                &self.log,
                round,
                state,
            );
        }
    }

    /// This device has computed wrong: `right` takes the place of its checkpoint `wrong` and of all since.
    fn mend(&mut self, now: Time, wrong: Checkpoint, right: Held) {
        self.faults += 1;
        let mut state = right.state.clone();
        self.fold_settled(&mut state, wrong.settled, self.log.settled());
        let mut mended = Replica::new(self.layout.clone(), self.genesis.rule, state, self.checks.clone());
        mended.fold(&self.log, self.round);
        let index = mended.coefficients().first_difference(self.replica.coefficients());
        // If only the checkpoint is wrong, what it says differs.
        let held = self.checkpoints.iter().find(|held| held.checkpoint == wrong);
        let index = index.or_else(|| held.and_then(|held| right.state.first_difference(&held.state)));
        let parameter = index.and_then(|index| self.layout.parameter_at(index)).unwrap_or("none");
        self.report(Report::Fault {
            settled: wrong.settled,
            parameter: parameter.to_owned(),
            index: index.unwrap_or(0),
            fatal: self.faults >= MAX_FAULTS,
        });
        mended.take_counts(&self.replica);
        self.replica = mended;
        self.checkpoints.replace(wrong.settled, right);
        self.actions.push_back(Action::Checkpoint(wrong.settled));
        self.actions.push_back(Action::Folded);
        self.continue_phase(now);
    }

    /// Flips one bit of the coefficient at `index` of C, as a faulty memory would. For tests only.
    #[doc(hidden)]
    pub fn flip_bit(&mut self, index: usize, bit: u32) {
        self.replica.flip_bit(index, bit);
    }
}
