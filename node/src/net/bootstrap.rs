//! The addresses the user gave to join through: dialled at the start, again with growing pauses while they
//! fail, and again when a connection that came from one is lost.
//!
//! ```text
//!              dial                established            confirmed (same swarm)
//!      Due ───────────▶ Dialing ───────────────▶ Joined ────────────────────────▶ Joined, announced
//!       ▲                  │ failed                 │ lost, or of another swarm        │ lost
//!       └──────────────────┴────────────────────────┴──────────────────────────────────┘
//!         after 1 s, 2 s, 4 s .. 60 s, each made a quarter longer or shorter by chance
//! ```
//!
//! This is bookkeeping only: time and chance are arguments, and dialling is up to the service.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::address;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lasted this long ends the growing of the pauses.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);

/// All bootstrap addresses.
#[derive(Debug)]
pub(super) struct Bootstrap {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    address: Multiaddr,
    /// The peer named in the address, or else the last one met there.
    peer: Option<PeerId>,
    state: State,
    failures: u32,
}

#[derive(Debug)]
enum State {
    Due(Instant),
    Dialing(ConnectionId),
    Joined {
        peer: PeerId,
        since: Instant,
        announced: bool,
    },
    /// The address is this node's own: it is not tried again.
    Own,
}

/// An address that did not work, to be reported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The address as given.
    pub(super) address: Multiaddr,
    /// The pause before the next attempt.
    pub(super) retry_in: Duration,
}

impl Bootstrap {
    /// All of `addresses` due now, except those that name `local`.
    pub(super) fn new(addresses: Vec<Multiaddr>, local: &PeerId, now: Instant) -> Self {
        let entry = |address: Multiaddr| {
            let peer = address::peer_in(&address);
            let state = if peer == Some(*local) { State::Own } else { State::Due(now) };
            Entry { address, peer, state, failures: 0 }
        };
        Self { entries: addresses.into_iter().map(entry).collect() }
    }

    /// The addresses to dial now. Each must be followed by [`Self::dialing`]. An address whose peer is
    /// connected already (by `is_connected`) counts as joined and is not named; one whose peer is banned is put off
    /// until the end of that (`banned_until`).
    pub(super) fn due(
        &mut self,
        now: Instant,
        is_connected: impl Fn(&PeerId) -> bool,
        banned_until: impl Fn(&PeerId) -> Option<Instant>,
    ) -> Vec<Multiaddr> {
        let mut due = Vec::new();
        for entry in &mut self.entries {
            if !matches!(entry.state, State::Due(at) if at <= now) {
                continue;
            }
            if let Some(until) = entry.peer.and_then(|peer| banned_until(&peer)) {
                entry.state = State::Due(until);
                continue;
            }
            match entry.peer.filter(&is_connected) {
                Some(peer) => entry.state = State::Joined { peer, since: now, announced: false },
                None => due.push(entry.address.clone()),
            }
        }
        due
    }

    /// `address` is being dialled as `connection`.
    pub(super) fn dialing(&mut self, address: &Multiaddr, connection: ConnectionId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.address == *address) {
            entry.state = State::Dialing(connection);
        }
    }

    /// The dial `connection` reached this node itself.
    pub(super) fn dialed_self(&mut self, connection: ConnectionId) {
        for entry in &mut self.entries {
            if matches!(entry.state, State::Dialing(id) if id == connection) {
                entry.state = State::Own;
            }
        }
    }

    /// The dial `connection` reached `peer`.
    pub(super) fn established(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) {
        for entry in &mut self.entries {
            if matches!(entry.state, State::Dialing(id) if id == connection) {
                entry.peer = Some(peer);
                entry.state = State::Joined { peer, since: now, announced: false };
            }
        }
    }

    /// The dial `connection` failed. `chance` is uniform in 0..1.
    pub(super) fn failed(&mut self, connection: ConnectionId, now: Instant, chance: f64) -> Vec<Failure> {
        self.put_off(now, chance, |state| matches!(state, State::Dialing(id) if *id == connection))
    }

    /// `peer` is of this swarm. Returns the addresses that have thereby proved good.
    pub(super) fn confirmed(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        let mut good = Vec::new();
        for entry in &mut self.entries {
            if let State::Joined { peer: joined, announced, .. } = &mut entry.state
                && joined == peer
                && !*announced
            {
                *announced = true;
                good.push(entry.address.clone());
            }
        }
        good
    }

    /// `peer` is gone, or unwanted. Returns the addresses to be tried again for it.
    pub(super) fn lost(&mut self, peer: &PeerId, now: Instant, chance: f64) -> Vec<Failure> {
        self.put_off(
            now,
            chance,
            |state| matches!(state, State::Joined { peer: joined, .. } if joined == peer),
        )
    }

    fn put_off(&mut self, now: Instant, chance: f64, concerns: impl Fn(&State) -> bool) -> Vec<Failure> {
        let mut failures = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| concerns(&entry.state)) {
            if let State::Joined { since, announced: true, .. } = entry.state
                && now.saturating_duration_since(since) >= GOOD_CONNECTION
            {
                entry.failures = 0;
            }
            let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(6)).min(LONGEST_PAUSE);
            let retry_in = pause.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0));
            entry.failures = entry.failures.saturating_add(1);
            entry.state = State::Due(now + retry_in);
            failures.push(Failure { address: entry.address.clone(), retry_in });
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `chance` at which a pause is exactly its nominal length.
    const NEVER_MIND: f64 = 0.5;

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn one(address: &str) -> (Bootstrap, Multiaddr, Instant) {
        let now = Instant::now();
        let address: Multiaddr = address.parse().unwrap();
        (Bootstrap::new(vec![address.clone()], &PeerId::random(), now), address, now)
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_chance_moves_them_by_a_quarter() {
        let (mut bootstrap, address, mut now) = one("/ip4/10.0.0.1/tcp/1");
        let mut pauses = Vec::new();
        for attempt in 0..9 {
            assert_eq!(bootstrap.due(now, |_| false, |_| None), std::slice::from_ref(&address));
            bootstrap.dialing(&address, id(attempt));
            assert!(bootstrap.due(now, |_| false, |_| None).is_empty(), "not dialled twice at once");
            assert!(bootstrap.failed(id(99), now, NEVER_MIND).is_empty(), "another dial's failure");
            let failure = bootstrap.failed(id(attempt), now, NEVER_MIND).pop().unwrap();
            pauses.push(failure.retry_in.as_secs());
            assert!(bootstrap.due(now + failure.retry_in / 2, |_| false, |_| None).is_empty());
            now += failure.retry_in;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        for (chance, expected) in [(0.0, 45), (1.0, 75)] {
            bootstrap.dialing(&address, id(0));
            assert_eq!(bootstrap.failed(id(0), now, chance)[0].retry_in.as_secs(), expected);
        }
    }

    #[test]
    fn a_lost_peer_is_dialled_again_and_only_a_good_connection_resets_the_pause() {
        let (mut bootstrap, address, now) = one("/ip4/10.0.0.1/tcp/1");
        let peer = PeerId::random();
        let join = |bootstrap: &mut Bootstrap| {
            bootstrap.dialing(&address, id(1));
            bootstrap.established(id(1), peer, now);
        };
        join(&mut bootstrap);
        assert_eq!(bootstrap.confirmed(&peer), std::slice::from_ref(&address));
        assert!(bootstrap.confirmed(&peer).is_empty(), "announced once");
        assert!(bootstrap.lost(&PeerId::random(), now, NEVER_MIND).is_empty());
        assert_eq!(bootstrap.lost(&peer, now, NEVER_MIND)[0].retry_in.as_secs(), 1);
        join(&mut bootstrap);
        bootstrap.confirmed(&peer);
        assert_eq!(bootstrap.lost(&peer, now, NEVER_MIND)[0].retry_in.as_secs(), 2, "it flaps");
        join(&mut bootstrap);
        bootstrap.confirmed(&peer);
        let later = now + GOOD_CONNECTION;
        assert_eq!(bootstrap.lost(&peer, later, NEVER_MIND)[0].retry_in.as_secs(), 1);
    }

    #[test]
    fn a_peer_connected_otherwise_is_not_dialled() {
        let peer = PeerId::random();
        let (mut bootstrap, address, now) = one(&format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}"));
        assert!(bootstrap.due(now, |connected| *connected == peer, |_| None).is_empty());
        assert_eq!(bootstrap.confirmed(&peer), [address]);
    }

    #[test]
    fn a_banned_peer_is_dialled_when_the_ban_ends() {
        let peer = PeerId::random();
        let (mut bootstrap, address, now) = one(&format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}"));
        let end = now + Duration::from_secs(600);
        let banned = |at: Instant| move |who: &PeerId| (*who == peer && at < end).then_some(end);
        for at in [now, now + Duration::from_secs(599), end] {
            let due = bootstrap.due(at, |_| false, banned(at));
            assert_eq!(due.contains(&address), at == end);
        }
    }

    #[test]
    fn the_nodes_own_addresses_are_never_dialled() {
        let now = Instant::now();
        let local = PeerId::random();
        let named: Multiaddr = format!("/ip4/10.0.0.1/tcp/1/p2p/{local}").parse().unwrap();
        let reached: Multiaddr = "/ip4/10.0.0.1/tcp/3".parse().unwrap();
        let mut bootstrap = Bootstrap::new(vec![named, reached.clone()], &local, now);
        assert_eq!(bootstrap.due(now, |_| false, |_| None), std::slice::from_ref(&reached));
        bootstrap.dialing(&reached, id(1));
        bootstrap.dialed_self(id(1));
        assert!(bootstrap.due(now + Duration::from_secs(3600), |_| false, |_| None).is_empty());
    }
}
