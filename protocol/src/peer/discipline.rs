//! What becomes of those who break rules: each refusal is counted under its name, a few broken rules or one that no
//! honest peer breaks cut a peer off for a while.

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
                self.strike(kind.refusal(), peer);
                false
            }
        }
    }

    /// Counts a broken rule; after a few, the peer is cut off for a while.
    pub(super) fn strike(&mut self, kind: &'static str, peer: PeerKey) {
        const STRIKES: u32 = 8;
        const MAX_TRACKED: usize = 4096;
        self.refuse(kind, peer);
        if self.strikes.len() >= MAX_TRACKED {
            self.strikes.clear();
        }
        let strikes = self.strikes.entry(peer).or_insert(0);
        *strikes += 1;
        if *strikes >= STRIKES {
            self.ban(kind, peer);
        }
    }

    /// Cuts off a peer that has certainly done what no honest one does.
    pub(super) fn ban(&mut self, kind: &'static str, peer: PeerKey) {
        const BAN: Duration = Duration::from_secs(600);
        self.strikes.remove(&peer);
        self.actions.push_back(Action::Ban { peer, duration: BAN, reason: kind });
    }
}
