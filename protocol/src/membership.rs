//! Who has been heard of lately, as far as pacing needs to know.

use std::collections::BTreeMap;

use crate::identity::PeerKey;

/// Authors of these many rounds back are waited for and listened to.
pub const RECENT_ROUNDS: u64 = 3;

/// Authors remembered at most; beyond, the ones silent for longest are forgotten.
const MAX_AUTHORS: usize = 8192;

/// The latest round of every author that was heard, oneself excluded.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    latest: BTreeMap<PeerKey, u64>,
}

impl Membership {
    /// A valid delta of `author` for `round` was admitted.
    pub fn heard(&mut self, author: PeerKey, round: u64) {
        let latest = self.latest.entry(author).or_insert(round);
        *latest = round.max(*latest);
        if self.latest.len() > MAX_AUTHORS {
            let mut rounds: Vec<u64> = self.latest.values().copied().collect();
            let middle = rounds.len() / 2;
            let (_, median, _) = rounds.select_nth_unstable(middle);
            let median = *median;
            self.latest.retain(|_, round| *round > median);
        }
    }

    /// The highest round heard of from `author`.
    pub fn latest(&self, author: &PeerKey) -> Option<u64> {
        self.latest.get(author).copied()
    }

    /// The authors heard for one of the last [`RECENT_ROUNDS`] rounds before `round`, or for later ones.
    pub fn recent(&self, round: u64) -> impl Iterator<Item = (&PeerKey, u64)> {
        let from = round.saturating_sub(RECENT_ROUNDS);
        self.latest
            .iter()
            .filter(move |(_, latest)| **latest >= from)
            .map(|(author, latest)| (author, *latest))
    }

    /// The lower median of the latest rounds of the recent authors: where the swarm is. A minority of
    /// authors that claim to be far ahead cannot move it.
    pub fn swarm_round(&self, round: u64) -> Option<u64> {
        let mut rounds: Vec<u64> = self.recent(round).map(|(_, latest)| latest).collect();
        rounds.sort_unstable();
        rounds.get(rounds.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PeerKey {
        PeerKey([n; 32])
    }

    #[test]
    fn the_lower_median_of_recent_authors() {
        let mut members = Membership::default();
        assert_eq!(members.swarm_round(5), None);
        for (author, round) in [(1, 10), (2, 12), (3, 25), (4, 1)] {
            members.heard(key(author), round);
        }
        // Author 4 is silent since long; of 10, 12, 25 the middle one.
        assert_eq!(members.swarm_round(11), Some(12));
        members.heard(key(5), 11);
        assert_eq!(members.swarm_round(11), Some(11));
        members.heard(key(5), 3);
        assert_eq!(members.latest(&key(5)), Some(11));
    }

    #[test]
    fn memory_is_bounded() {
        let mut members = Membership::default();
        for n in 0..3 * MAX_AUTHORS as u64 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            members.heard(PeerKey(bytes), n);
        }
        assert!(members.latest.len() <= MAX_AUTHORS);
        assert_eq!(members.swarm_round(u64::MAX), None);
    }
}
