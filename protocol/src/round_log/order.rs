//! The order of precedence: who has a place in a round that not all fit into, and what that tells.
//!
//! Each round draws anew: an author's rank is `BLAKE3(swarm, round, author)`, and the `publishers` lowest ranks have
//! a place. Ranks are as good as uniform, so the ranks in a round also tell out of how many they are the lowest: the
//! `k`-th lowest of `n` draws is near `k / n`. From this come two figures that no one has to be asked for: the cut,
//! above which it makes sense to publish, and how many authors there are. Both are this peer's own judgement, no part
//! of the shared state.

use std::collections::BTreeSet;

use super::RoundLog;
use crate::digest::Digest;
use crate::identity::PeerKey;

/// Rounds that tell how far down the order the next one will reach.
const LIKE_BEFORE: u64 = 3;
/// A rank as a share of all ranks, in 2^-64.
fn share(rank: &Digest) -> u64 {
    rank.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// 2^64: all ranks.
fn all() -> f64 {
    2_f64.powi(64)
}

impl RoundLog {
    /// An author's place in the order of precedence among those of a round.
    pub(super) fn rank(&self, round: u64, author: &PeerKey) -> Digest {
        Digest::of("swarm rank 2", &[&self.swarm.0, &round.to_le_bytes(), &author.0])
    }

    /// Whether a round has `publishers` authors that come before `author`.
    pub fn is_crowded(&self, round: u64, author: &PeerKey) -> bool {
        let Some(set) = self.rounds.get(&round) else { return false };
        if set.entries.len() < self.publishers || set.entries.contains_key(author) {
            return false;
        }
        self.last_rank(round).is_some_and(|last| self.rank(round, author) > last)
    }

    /// The rank of the last author of a round that is full.
    fn last_rank(&self, round: u64) -> Option<Digest> {
        let set = self.rounds.get(&round).filter(|set| set.entries.len() >= self.publishers)?;
        set.ranks.last().map(|(rank, _)| *rank)
    }

    /// How many authors a round has had, with those for whom it had no place, judged by how far down the order the
    /// authors reach that it has: of `n` draws out of [0, 1) the `k`-th lowest is below `(k - 0.3) / (n + 0.4)`
    /// half of the time (Benard's approximation of a median rank). `None` if nothing is known of that round.
    ///
    /// A round that is still filling says the same as a full one if those who are missing are missing by chance. An
    /// author can lower the last rank by trying keys, so that there seem to be more: nothing is to depend on it
    /// that does harm if it is far too high.
    pub fn likely_authors(&self, round: u64) -> Option<f64> {
        let set = self.rounds.get(&round)?;
        let (last, _) = set.ranks.last()?;
        let (known, reach) = (set.ranks.len() as f64, share(last) as f64 / all());
        Some(((known - 0.3) / reach.max(f64::MIN_POSITIVE) - 0.4).max(known))
    }

    /// The median of [`RoundLog::likely_authors`] over `count` rounds before `round`, without the one just before
    /// it: that is still filling. In the first rounds there is no other.
    pub fn likely_authors_before(&self, round: u64, count: u64) -> Option<f64> {
        let newest = round.checked_sub(1)?;
        let rounds = newest.saturating_sub(count)..newest;
        let mut likely: Vec<f64> = rounds.filter_map(|round| self.likely_authors(round)).collect();
        likely.sort_by(f64::total_cmp);
        likely.get(likely.len() / 2).copied().or_else(|| self.likely_authors(newest))
    }

    /// Which share of the order of precedence, in 2^-64, is likely to be among the `publishers` authors of
    /// `round`, judged by the few rounds before it: all of it, if these had a place for everybody. Every round is a
    /// fresh draw, so those above the cut publish and all others wait for a better one.
    ///
    /// Some of those who may publish do not, and rounds differ, so the square root of `publishers` more than fit may:
    /// one standard deviation. Each one more costs all peers traffic, while a place that stays free costs only that.
    pub fn cut(&self, round: u64) -> u64 {
        let Some(likely) = self.likely_authors_before(round, LIKE_BEFORE) else { return u64::MAX };
        let places = self.publishers as f64;
        let before = self.rounds.range(round.saturating_sub(LIKE_BEFORE + 1)..round);
        let seen: BTreeSet<&PeerKey> = before.flat_map(|(_, set)| set.entries.keys()).collect();
        // The ranks alone would now and then keep one out where all have a place.
        if seen.len() <= self.publishers && likely < 2.0 * places {
            return u64::MAX;
        }
        // A float becomes the nearest integer there is: all of the order, if all have a place.
        ((places + places.sqrt()) / likely.max(1.0) * all()) as u64
    }

    /// Whether `author` is above the cut of `round`.
    pub fn is_above(&self, cut: u64, round: u64, author: &PeerKey) -> bool {
        cut == u64::MAX || share(&self.rank(round, author)) <= cut
    }
}

#[cfg(test)]
mod tests {
    use super::super::Insert;
    use super::*;
    use crate::architecture::Sizes;
    use crate::delta::{Delta, Header};
    use crate::genesis::Genesis;
    use crate::identity::Identity;

    const PLACES: u32 = 16;

    fn log() -> RoundLog {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let mut genesis = Genesis::new("order", model, 1);
        genesis.rule.publishers = PLACES;
        RoundLog::new(&genesis)
    }

    fn author(n: u64) -> Identity {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&n.to_le_bytes());
        Identity::from_secret(&secret)
    }

    fn publish(log: &mut RoundLog, round: u64, author: &Identity) -> Insert {
        let header = Header::new(Digest::default(), round, author.public(), &[]);
        let delta = Delta { id: header.id(), signed: header.sign(author), body: Vec::new().into() };
        log.insert(delta, u64::MAX)
    }

    /// Everybody publishes who is above the cut; returns how many that were.
    fn one_round(log: &mut RoundLog, round: u64, authors: &[Identity]) -> usize {
        let cut = log.cut(round);
        let above: Vec<&Identity> =
            authors.iter().filter(|author| log.is_above(cut, round, &author.public())).collect();
        above.iter().for_each(|author| drop(publish(log, round, author)));
        above.len()
    }

    #[test]
    fn the_last_rank_of_a_round_tells_how_many_authors_there_are() {
        for count in [4, 16, 100, 1_500] {
            let authors: Vec<Identity> = (0..count).map(author).collect();
            let mut log = log();
            assert_eq!(log.likely_authors_before(9, 8), None);
            for round in 0..9 {
                one_round(&mut log, round, &authors);
            }
            let likely = log.likely_authors_before(9, 8).unwrap();
            let share = likely / count as f64;
            // Few draws tell little; and never fewer than have been seen.
            let most = f64::max(1.33, 1.0 + 1.5 / (count as f64).sqrt());
            assert!((0.75..most).contains(&share), "{count} authors, judged to be {likely}");
        }
    }

    #[test]
    fn no_more_publish_than_a_few_more_than_fit_however_many_there_are() {
        for count in [64, 1_500] {
            let authors: Vec<Identity> = (0..count).map(author).collect();
            let mut log = log();
            let published: Vec<usize> = (0..40).map(|round| one_round(&mut log, round, &authors)).collect();
            // Nothing is known of the first round, and only that one of the second.
            assert_eq!(published[0], authors.len());
            let mean = published[2..].iter().sum::<usize>() as f64 / 38.0;
            assert!((f64::from(PLACES)..1.5 * f64::from(PLACES)).contains(&mean), "{count}: {published:?}");
        }
        let few: Vec<Identity> = (0..u64::from(PLACES)).map(author).collect();
        let mut log = log();
        let published: Vec<usize> = (0..20).map(|round| one_round(&mut log, round, &few)).collect();
        assert!(published.iter().all(|count| *count == few.len()), "there is room for all: {published:?}");
    }

    #[test]
    fn a_round_that_is_still_filling_lets_nobody_else_in() {
        let authors: Vec<Identity> = (0..1_500).map(author).collect();
        let mut log = log();
        for round in 0..6 {
            one_round(&mut log, round, &authors);
        }
        let (cut, half) = (log.cut(6), PLACES as usize / 2);
        let above = authors.iter().filter(|author| log.is_above(cut, 6, &author.public()));
        let above: Vec<&Identity> = above.take(half).collect();
        above.iter().for_each(|author| drop(publish(&mut log, 6, author)));
        assert!(log.cut(7) < u64::MAX / 20 && log.cut(8) < u64::MAX / 20);
    }

    #[test]
    fn when_most_have_left_all_others_have_a_place_again() {
        let authors: Vec<Identity> = (0..1_500).map(author).collect();
        let mut log = log();
        for round in 0..6 {
            one_round(&mut log, round, &authors);
        }
        let left = &authors[..10];
        let published: Vec<usize> = (6..26).map(|round| one_round(&mut log, round, left)).collect();
        assert!(published[0] < left.len(), "{published:?}");
        assert!(published[12..].iter().all(|count| *count == left.len()), "{published:?}");
    }
}
