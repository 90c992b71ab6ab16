//! How many peers the swarm has, as far as this one can tell without asking anybody.

use super::Peer;

/// Rounds that are looked at: of so many, half must be tampered with before the median is.
const LOOKED_AT: u64 = 16;
/// No swarm is taken to be larger: ranks can be forged (see [`crate::round_log::RoundLog::likely_authors`]).
const MOST: f64 = 1e6;

impl Peer {
    /// About how many peers the swarm has, this one included: the authors of the last rounds, with those for whom
    /// there was no place, but at least as many as have been heard or are connected. A single round's
    /// figure is off by a share of 1 / sqrt(`publishers`) (standard error), the median of sixteen by a third of
    /// that; who takes part in some rounds only counts for as much. Peers that do not train are seen only as
    /// neighbours.
    ///
    /// Authors who try keys until their ranks are low make it seem larger. So it is for choosing parameters that
    /// cost little if they are wrong, and for nothing else.
    pub fn estimated_peers(&self) -> usize {
        let likely = self.log.likely_authors_before(self.round, LOOKED_AT).unwrap_or(0.0);
        let heard = self.membership.recent(self.round).count().max(self.neighbours.len()) + 1;
        (likely.min(MOST).round() as usize).max(heard)
    }
}
