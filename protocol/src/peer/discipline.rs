//! What becomes of those who break rules: each refusal is counted under its name, a few broken rules or one that no
//! honest peer breaks cut a peer off for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, Peer, Report};
use crate::Time;
use crate::identity::PeerKey;
use crate::rates::{Kind, Room};

impl Peer {
    /// Counts what is nobody's fault, or whose is told elsewhere. Returns how often it has happened.
    pub(super) fn count(&mut self, kind: &'static str) -> u64 {
        let count = self.refusals.entry(kind).or_insert(0);
        *count += 1;
        *count
    }

    /// Counts a dropped message; reports the first of its kind.
    pub(super) fn refuse(&mut self, kind: &'static str, peer: PeerKey) {
        if self.count(kind) == 1 {
            self.report(Report::Refused { kind, peer });
        }
    }

    /// Whether `peer` keeps to its rate with `tokens` more of this kind; what goes over it is counted, and after a long
    /// time taken as what it is.
    pub(super) fn within_rate(&mut self, now: Time, peer: PeerKey, kind: Kind, tokens: u64) -> bool {
        match self.rates.take(now, peer, kind, tokens) {
            Room::Enough => true,
            Room::None => {
                self.refuse(kind.refusal(), peer);
                false
            }
            Room::LongNone => {
                self.strike(now, kind.refusal(), peer);
                false
            }
        }
    }

    /// Counts a broken rule; after a few in a short time, the peer is cut off for a while.
    pub(super) fn strike(&mut self, now: Time, kind: &'static str, peer: PeerKey) {
        self.refuse(kind, peer);
        if self.offenders.strike(now, peer) {
            self.ban(now, kind, peer);
        }
    }

    /// Cuts off a peer that has certainly done what no honest one does.
    pub(super) fn ban(&mut self, now: Time, kind: &'static str, peer: PeerKey) {
        // What it had sent before is still being read: that is said once.
        if self.offenders.ban(now, peer) {
            self.actions.push_back(Action::Ban { peer, duration: BAN, reason: kind });
        }
    }
}

/// How long a peer is cut off.
const BAN: Duration = Duration::from_secs(600);
/// Broken rules that cut a peer off.
const STRIKES: u32 = 8;
/// One broken rule is forgiven after this time: mishaps of a long life do not add up.
const FORGIVEN: Duration = Duration::from_secs(600);
/// Peers that are remembered; those who are not cut off make room first, and of them whose time is up first.
const MAX_TRACKED: usize = 4096;

/// Who has broken rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Offenders {
    /// When all broken rules of a peer will be forgiven, or its ban is over; and whether it is cut off until then.
    all: BTreeMap<PeerKey, (Time, bool)>,
}

impl Offenders {
    /// Whether `peer` has broken a rule once too often.
    fn strike(&mut self, now: Time, peer: PeerKey) -> bool {
        let before = self.all.get(&peer).copied();
        if let Some((until, true)) = before
            && now < until
        {
            return true;
        }
        let until = before.map_or(now, |(until, _)| until.max(now)) + FORGIVEN;
        self.remember(peer, until, false);
        until > now + (STRIKES - 1) * FORGIVEN
    }

    /// `peer` is cut off. Returns whether it was not already.
    fn ban(&mut self, now: Time, peer: PeerKey) -> bool {
        if self.all.get(&peer).is_some_and(|(until, banned)| *banned && now < *until) {
            return false;
        }
        self.remember(peer, now + BAN, true);
        true
    }

    fn remember(&mut self, peer: PeerKey, until: Time, banned: bool) {
        if self.all.len() >= MAX_TRACKED
            && !self.all.contains_key(&peer)
            && let Some(first) =
                self.all.iter().min_by_key(|(_, (until, banned))| (*banned, *until)).map(|(peer, _)| *peer)
        {
            self.all.remove(&first);
        }
        self.all.insert(peer, (until, banned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn peer(seed: u8) -> PeerKey {
        Identity::from_secret(&[seed; 32]).public()
    }

    #[test]
    fn many_broken_rules_at_once_cut_off_and_few_over_a_long_time_do_not() {
        let mut offenders = Offenders::default();
        let times = |offenders: &mut Offenders, pause: Duration| {
            let struck = (0..100).map(|n| offenders.strike(n * pause, peer(1)));
            struck.collect::<Vec<_>>().iter().position(|cut| *cut)
        };
        assert_eq!(times(&mut offenders, Duration::ZERO), Some(STRIKES as usize - 1));
        assert_eq!(times(&mut Offenders::default(), Duration::from_secs(1)), Some(STRIKES as usize - 1));
        assert_eq!(times(&mut Offenders::default(), FORGIVEN), None);
    }

    #[test]
    fn a_peer_is_cut_off_once_and_again_after_its_time() {
        let mut offenders = Offenders::default();
        let now = Duration::from_secs(5);
        assert!(offenders.ban(now, peer(1)));
        assert!(!offenders.ban(now + BAN / 2, peer(1)));
        // What it had sent does not make the time longer, and does not count after it.
        assert!(offenders.strike(now + BAN / 2, peer(1)));
        assert!(offenders.ban(now + BAN, peer(1)));
        assert!(!offenders.strike(now + 2 * BAN, peer(1)));
    }

    #[test]
    fn strangers_without_end_take_bounded_memory_and_free_nobody_who_is_cut_off() {
        let mut offenders = Offenders::default();
        let cut_off = peer(1);
        assert!(offenders.ban(BAN, cut_off));
        for stranger in 0..2 * MAX_TRACKED as u64 {
            let mut secret = [7; 32];
            secret[..8].copy_from_slice(&stranger.to_le_bytes());
            offenders.strike(BAN, Identity::from_secret(&secret).public());
        }
        assert_eq!(offenders.all.len(), MAX_TRACKED);
        assert!(!offenders.ban(BAN, cut_off));
    }
}
