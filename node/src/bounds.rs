//! What a node may come to need for rounds, whatever the others do: computed from the genesis alone.
//!
//! ```text
//! rounds   = retention + 2 window          kept, open, and as far ahead as deltas are accepted
//! delta    = longest body + 1 KiB          the header and what the tables that hold it take
//! memory   = rounds x publishers x delta
//!
//! snapshot = memory + 20 parameters        C, C of a history given up, residual, two moments of the
//!                                          optimizer, 4 bytes each
//! outbox   = (interval / min_round_ms + window + 2) x delta    own deltas: since the snapshot before, open
//! disk     = 2 snapshot + outbox           the old snapshot stays until the new one is whole
//!            + 12 parameters + 4 MiB       two checkpoints and a new one; small files
//!            + history + checkpoint_every x publishers x delta    kept for ledgers, and what is being written of it
//! ```
//!
//! The longest body is several times the usual one, and few swarms have as many authors as their genesis
//! permits: these are bounds, not expectations. Not in them: the model and its training, libtorch, what
//! the network has in flight, a second set of rounds for the moment in which a node takes up another
//! history, and damaged files that were set aside (three of each name at most).

use std::fmt;
use std::time::Duration;

use swarm_protocol::genesis::{Genesis, GenesisError};
use swarm_protocol::packing;

/// A delta's header, and its share of the tables that hold it, in bytes.
pub(crate) const AROUND_A_BODY: u64 = 1 << 10;
/// Identity, genesis, mark, status, report, two logs, two files of events and the checkpoints' manifests, in bytes.
pub(crate) const SMALL_FILES: u64 = 14 << 20;

/// The bounds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Bounds {
    /// Of memory for open and kept rounds.
    pub(crate) memory: u64,
    /// Of that, what one author can cause.
    pub(crate) author: u64,
    /// Authors of a round at most.
    pub(crate) authors: u32,
    /// Of the snapshot file.
    pub(crate) snapshot: u64,
    /// Of the node's folder.
    pub(crate) disk: u64,
    /// Of one file of settled rounds that are kept for ledgers.
    #[serde(skip)]
    pub(crate) rounds: u64,
}

impl Bounds {
    /// The bounds of a node that takes a snapshot every `interval`.
    ///
    /// # Errors
    /// A genesis without a layout.
    pub(crate) fn new(genesis: &Genesis, interval: Duration) -> Result<Self, GenesisError> {
        let longest = packing::max_len(&genesis.layout()?, &genesis.rule) as u64;
        let delta = longest.saturating_add(AROUND_A_BODY);
        let rounds = u64::from(genesis.rounds.retention) + 2 * u64::from(genesis.rounds.window);
        let author = rounds.saturating_mul(delta);
        let memory = author.saturating_mul(genesis.rule.publishers.into());
        let snapshot = memory.saturating_add(genesis.model.parameter_count().saturating_mul(20));
        let own = interval.as_millis() / u128::from(genesis.rounds.min_round_ms.max(1));
        let own = own + u128::from(genesis.rounds.window) + 2;
        let outbox = u64::try_from(own).unwrap_or(u64::MAX).saturating_mul(delta);
        let checkpoints = genesis.model.parameter_count().saturating_mul(12);
        let disk = [outbox, checkpoints, SMALL_FILES]
            .into_iter()
            .fold(snapshot.saturating_mul(2), u64::saturating_add);
        let rounds = delta
            .saturating_mul(genesis.rule.publishers.into())
            .saturating_mul(genesis.rounds.checkpoint_every.into());
        Ok(Self { memory, author, authors: genesis.rule.publishers, snapshot, disk, rounds })
    }

    /// The bounds of a node that also keeps `history` bytes of settled rounds for ledgers.
    pub(crate) fn keeping(self, history: u64) -> Self {
        // A new file is there before the oldest goes.
        let kept = if history > 0 { history.saturating_add(self.rounds) } else { 0 };
        Self { disk: self.disk.saturating_add(kept), ..self }
    }
}

/// Whole megabytes, rounded up: a bound is never understated.
pub(crate) fn megabytes(bytes: u64) -> String {
    let digits = bytes.div_ceil(1_000_000).to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{} MB", groups.join(","))
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most {} of memory for open and kept rounds ({} for each of up to {} authors), and {} of disk",
            megabytes(self.memory),
            megabytes(self.author),
            self.authors,
            megabytes(self.disk)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::snapshot::{NodeSnapshot, Totals};
    use crate::trainer::TrainerState;
    use std::sync::Arc;
    use swarm_protocol::architecture::Sizes;
    use swarm_protocol::delta::{Header, SignedHeader};
    use swarm_protocol::digest::Digest;
    use swarm_protocol::identity::Identity;
    use swarm_protocol::peer::{Part, Peer};

    const INTERVAL: Duration = Duration::from_secs(300);

    fn genesis() -> Genesis {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let mut genesis = Genesis::new("bounds", model, 1);
        genesis.rule.publishers = 5;
        genesis.rounds.window = 2;
        genesis.rounds.retention = 8;
        genesis.rounds.checkpoint_every = 1;
        genesis
    }

    fn bounds(change: impl Fn(&mut Genesis)) -> Bounds {
        let mut genesis = genesis();
        change(&mut genesis);
        Bounds::new(&genesis, INTERVAL).unwrap()
    }

    #[test]
    fn bounds_follow_the_genesis() {
        let before = bounds(|_| ());
        assert_eq!(before.memory, 5 * before.author);
        let twice = bounds(|genesis| genesis.rule.publishers = 10);
        assert_eq!((twice.memory, twice.author), (2 * before.memory, before.author));
        // 8 + 2 x 2 rounds are 12; 8 + 2 x 4 are 16, 20 + 2 x 2 are 24.
        assert_eq!(bounds(|genesis| genesis.rounds.window = 4).memory * 12, before.memory * 16);
        assert_eq!(bounds(|genesis| genesis.rounds.retention = 20).memory, before.memory * 2);
        assert!(bounds(|genesis| genesis.rule.k = 64).memory < before.memory);
        assert!(
            bounds(|genesis| {
                genesis.model =
                    Sizes { vocabulary: 16, dim: 16, layers: 1, heads: 2, ffn: 8, context: 8 }.into();
            })
            .memory
                > before.memory
        );
        // Longer rounds and shorter intervals leave fewer own deltas in the outbox.
        let slow = bounds(|genesis| genesis.rounds.min_round_ms = 1000);
        assert_eq!((slow.memory, slow.snapshot), (before.memory, before.snapshot));
        assert!(slow.disk < before.disk);
        assert_eq!(before.keeping(0), before);
        // A file of one round of five, and what is kept.
        assert_eq!(before.keeping(1000).disk - before.disk, 1000 + before.memory / 12);
        assert!(Bounds::new(&genesis(), INTERVAL / 10).unwrap().disk < before.disk);
    }

    #[test]
    fn a_full_snapshot_is_within_its_bound() {
        let genesis = Arc::new(genesis());
        let bounds = Bounds::new(&genesis, INTERVAL).unwrap();
        let identity = Identity::from_secret(&[1; 32]);
        let zero = Digest::default();
        let header = Header::new(genesis.swarm_id(), 0, identity.public(), &[]);
        let signed: SignedHeader = header.sign(&identity);
        let part = Part { trains: true, found_after: None, stop_before: None };
        let mut core = Peer::new(Duration::ZERO, genesis.clone(), identity, part).unwrap().snapshot();
        let longest = packing::max_len(&genesis.layout().unwrap(), &genesis.rule);
        let body: Arc<[u8]> = vec![7; longest].into();
        core.deltas = vec![(signed, body); 5 * 12];
        core.position.digests = (0..20).map(|settled| (settled, zero)).collect();
        let parameters = usize::try_from(genesis.model.parameter_count()).unwrap();
        let vector = || vec![0.5; parameters];
        let (residual, m, v) = (vector(), vector(), vector());
        let trainer = Some(TrainerState { residual, step: 1, m, v, sampler_seed: 0, sampler_drawn: 0 });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        let full = NodeSnapshot { core, totals: Totals::default(), trainer };
        crate::store::snapshot::write(&path, &full).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(length <= bounds.snapshot, "{length} of {}", bounds.snapshot);
        assert!(length > bounds.snapshot / 2, "a bound that is far off says nothing: {length}");
    }

    #[test]
    fn it_is_told_in_words() {
        let bounds =
            Bounds { memory: 1_234_000_001, author: 1, authors: 64, snapshot: 0, disk: 999_999, rounds: 0 };
        assert_eq!(
            bounds.to_string(),
            "at most 1,235 MB of memory for open and kept rounds (1 MB for each of up to 64 authors), and 1 MB of disk"
        );
    }
}
