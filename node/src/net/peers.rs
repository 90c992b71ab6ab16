//! Who is connected, and whether they belong.
//!
//! ```text
//!   connection ──▶ Unknown ── speaks a protocol of this swarm, or identifies as its peer ──▶ Member
//!                     │                                                                        │
//!                     │ identifies as anything else, or as nothing in time                     │
//!                     ▼                                                                        │
//!                  Foreign ◀─────────────────── identifies anew as something else ─────────────┘
//! ```
//!
//! Protocol names and the gossip topic hold the swarm id, so whoever uses one claims the swarm just as much
//! as identify does; what comes first makes a member. Neither claim proves anything about what the peer will
//! say: that is the core's to judge. A foreign peer is disconnected, but not before it has been told who we
//! are, or its user would never learn why.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{address, route::Route};

/// An unknown peer must identify itself within this time.
const IDENTIFY_DEADLINE: Duration = Duration::from_secs(20);
/// A foreign peer that has not asked who we are within this time is not told.
const FAREWELL: Duration = Duration::from_secs(3);
/// Foreign peers remembered, so as to report and dial each only once.
const FOREIGN_REMEMBERED: usize = 256;
/// Gossip payloads from one peer are counted over this time ..
const GOSSIP_WINDOW: Duration = Duration::from_secs(10);
/// .. and may be this many. Payloads are remembered for ten minutes, so their rate must be bounded.
const GOSSIP_PER_WINDOW: u32 = 2000;

/// A direct connection replaces a relayed one when it has lasted this long: both ends know it by then, and what
/// was under way through the relay has mostly come.
const PROVEN: Duration = Duration::from_secs(2);

/// Whether a peer belongs to this swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not known yet.
    Unknown,
    /// It claims this swarm.
    Member,
    /// It claims another, or none.
    Foreign {
        /// When it was found out.
        since: Instant,
    },
}

#[derive(Debug)]
struct Peer {
    connections: Vec<(ConnectionId, Route, Instant)>,
    since: Instant,
    standing: Standing,
    knows_us: bool,
    gossip: u32,
}

/// All connected peers; as many as the connection limits allow.
#[derive(Debug)]
pub(super) struct Peers {
    connected: HashMap<PeerId, Peer>,
    foreign: VecDeque<PeerId>,
    window_ends: Instant,
}

impl Peers {
    /// Nobody is connected.
    pub(super) fn new(now: Instant) -> Self {
        Self { connected: HashMap::new(), foreign: VecDeque::new(), window_ends: now + GOSSIP_WINDOW }
    }

    /// A connection to `peer` was opened.
    pub(super) fn opened(&mut self, peer: PeerId, connection: ConnectionId, mut route: Route, now: Instant) {
        if route.relayed && route.relay.is_none() {
            // The end that is called learns where the relay is, and not who; but it is connected to it.
            let near = route.near();
            let is_there = |(_, way, _): &(ConnectionId, Route, Instant)| !way.relayed && way.near() == near;
            let relay = self.connected.iter().find(|(_, peer)| peer.connections.iter().any(is_there));
            route.relay = relay.map(|(relay, _)| *relay);
        }
        let peer = self.connected.entry(peer).or_insert_with(|| Peer {
            connections: Vec::new(),
            since: now,
            standing: Standing::Unknown,
            knows_us: false,
            gossip: 0,
        });
        peer.connections.push((connection, route, now));
    }

    /// A connection to `peer` was closed. Returns its standing if that was the last one.
    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) -> Option<Standing> {
        let entry = self.connected.get_mut(peer)?;
        entry.connections.retain(|(id, ..)| *id != connection);
        if !entry.connections.is_empty() {
            return None;
        }
        self.connected.remove(peer).map(|peer| peer.standing)
    }

    /// The standing of a connected peer.
    pub(super) fn standing(&self, peer: &PeerId) -> Option<Standing> {
        self.connected.get(peer).map(|peer| peer.standing)
    }

    /// How many peers are connected.
    pub(super) fn len(&self) -> usize {
        self.connected.len()
    }

    /// Where the other end of a connection to `peer` is.
    pub(super) fn address(&self, peer: &PeerId) -> Option<&Multiaddr> {
        self.connected.get(peer)?.connections.first().map(|(_, route, _)| &route.remote)
    }

    /// The way of one connection.
    pub(super) fn route(&self, peer: &PeerId, connection: ConnectionId) -> Option<&Route> {
        let connections = &self.connected.get(peer)?.connections;
        connections.iter().find(|(id, ..)| *id == connection).map(|(_, route, _)| route)
    }

    /// A ping on one connection took so long, there and back.
    pub(super) fn pinged(&mut self, peer: &PeerId, connection: ConnectionId, latency: Duration) {
        let peer = self.connected.get_mut(peer);
        let mut connections = peer.into_iter().flat_map(|peer| &mut peer.connections);
        if let Some((_, route, _)) = connections.find(|(id, ..)| *id == connection) {
            route.latency = Some(latency);
        }
    }

    /// The members, each with the ways to it, the oldest first.
    pub(super) fn members(&self) -> impl Iterator<Item = (&PeerId, impl Iterator<Item = &Route>)> {
        let members = self.connected.iter().filter(|(_, peer)| peer.standing == Standing::Member);
        members.map(|(id, peer)| (id, peer.connections.iter().map(|(_, route, _)| route)))
    }

    /// Relayed connections to peers that are now connected directly as well.
    pub(super) fn superseded(&self, now: Instant) -> Vec<ConnectionId> {
        let proven = |(_, route, since): &(ConnectionId, Route, Instant)| {
            !route.relayed && now.saturating_duration_since(*since) >= PROVEN
        };
        let direct = self.connected.values().filter(|peer| peer.connections.iter().any(proven));
        let all = direct.flat_map(|peer| &peer.connections);
        all.filter(|(_, route, _)| route.relayed).map(|(id, ..)| *id).collect()
    }

    /// Whether `peer` is on this machine.
    pub(super) fn is_local(&self, peer: &PeerId) -> bool {
        self.address(peer).is_some_and(address::is_loopback)
    }

    /// Whether `peer` was found to be foreign when last met.
    pub(super) fn was_foreign(&self, peer: &PeerId) -> bool {
        self.foreign.contains(peer)
    }

    /// `peer` claims this swarm. Returns whether that is news.
    pub(super) fn set_member(&mut self, peer: &PeerId) -> bool {
        match self.connected.get_mut(peer) {
            Some(entry) if entry.standing == Standing::Unknown => {
                entry.standing = Standing::Member;
                self.foreign.retain(|foreign| foreign != peer);
                true
            }
            _ => false,
        }
    }

    /// `peer` claims another swarm, or none. Returns whether that is news, also of earlier connections.
    pub(super) fn set_foreign(&mut self, peer: &PeerId, now: Instant) -> bool {
        if let Some(entry) = self.connected.get_mut(peer)
            && !matches!(entry.standing, Standing::Foreign { .. })
        {
            entry.standing = Standing::Foreign { since: now };
        }
        if self.foreign.contains(peer) {
            return false;
        }
        if self.foreign.len() >= FOREIGN_REMEMBERED {
            self.foreign.pop_front();
        }
        self.foreign.push_back(*peer);
        true
    }

    /// `peer` has been told who we are.
    pub(super) fn told(&mut self, peer: &PeerId) {
        if let Some(entry) = self.connected.get_mut(peer) {
            entry.knows_us = true;
        }
    }

    /// Counts a gossip payload of `peer`. Returns whether it sends too many.
    pub(super) fn gossip_flood(&mut self, peer: &PeerId) -> bool {
        let Some(entry) = self.connected.get_mut(peer) else { return false };
        entry.gossip = entry.gossip.saturating_add(1);
        entry.gossip > GOSSIP_PER_WINDOW
    }

    /// The peers to disconnect now: foreign ones, and those that did not identify themselves. Called every
    /// now and then; starts a new gossip window when the last has ended.
    pub(super) fn unwanted(&mut self, now: Instant) -> Vec<PeerId> {
        if now >= self.window_ends {
            self.window_ends = now + GOSSIP_WINDOW;
            self.connected.values_mut().for_each(|peer| peer.gossip = 0);
        }
        let is_unwanted = |peer: &Peer| match peer.standing {
            Standing::Member => false,
            Standing::Unknown => now.saturating_duration_since(peer.since) > IDENTIFY_DEADLINE,
            Standing::Foreign { since } => peer.knows_us || now.saturating_duration_since(since) > FAREWELL,
        };
        self.connected.iter().filter(|(_, peer)| is_unwanted(peer)).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> (Peers, PeerId, Instant) {
        let now = Instant::now();
        let peer = PeerId::random();
        let mut peers = Peers::new(now);
        peers.opened(peer, ConnectionId::new_unchecked(1), "/ip4/127.0.0.1/tcp/1".into(), now);
        (peers, peer, now)
    }

    #[test]
    fn a_peer_is_gone_with_its_last_connection() {
        let (mut peers, peer, now) = connected();
        peers.opened(peer, ConnectionId::new_unchecked(2), "/ip4/10.0.0.1/tcp/1".into(), now);
        assert!(peers.set_member(&peer));
        assert!(!peers.set_member(&peer), "news only once");
        assert!(peers.is_local(&peer));
        assert_eq!(peers.closed(&peer, ConnectionId::new_unchecked(1)), None);
        assert!(!peers.is_local(&peer));
        assert_eq!(peers.closed(&peer, ConnectionId::new_unchecked(2)), Some(Standing::Member));
        assert_eq!((peers.len(), peers.standing(&peer)), (0, None));
    }

    #[test]
    fn a_direct_connection_replaces_the_relayed_one_when_it_has_lasted_a_while() {
        let (mut peers, peer, now) = connected();
        let id = ConnectionId::new_unchecked;
        let relayed = || Route { relayed: true, ..Route::from("/ip4/198.51.100.1/tcp/1") };
        peers.opened(peer, id(2), relayed(), now);
        assert!(peers.superseded(now).is_empty(), "the direct one is too young");
        assert_eq!(peers.superseded(now + PROVEN), [id(2)]);
        assert!(peers.route(&peer, id(2)).unwrap().relayed);
        peers.closed(&peer, id(1));
        assert!(peers.superseded(now + PROVEN).is_empty(), "the relayed one is all there is");
    }

    #[test]
    fn a_relay_is_known_by_where_it_is() {
        let (mut peers, relay, now) = connected();
        let caller = PeerId::random();
        let from = |local: &str| Route {
            remote: format!("/p2p/{caller}").parse().unwrap(),
            local: Some(local.parse().unwrap()),
            relayed: true,
            ..Route::from("/ip4/127.0.0.1/tcp/1")
        };
        for (number, local, expected) in [
            (2, "/ip4/127.0.0.1/tcp/1/p2p-circuit", Some(relay)),
            (3, "/ip4/127.0.0.1/tcp/2/p2p-circuit", None),
        ] {
            let id = ConnectionId::new_unchecked(number);
            peers.opened(caller, id, from(local), now);
            assert_eq!(peers.route(&caller, id).unwrap().relay, expected);
        }
    }

    #[test]
    fn a_foreign_peer_is_told_before_it_is_disconnected() {
        let (mut peers, peer, now) = connected();
        assert!(peers.set_foreign(&peer, now));
        assert!(!peers.set_foreign(&peer, now), "reported once");
        assert!(!peers.set_member(&peer), "it cannot turn around on the same connection");
        assert!(peers.unwanted(now).is_empty());
        assert_eq!(peers.unwanted(now + 2 * FAREWELL), [peer]);
        peers.told(&peer);
        assert_eq!(peers.unwanted(now), [peer]);
        // On a new connection it can: its user may have given it the right swarm.
        peers.closed(&peer, ConnectionId::new_unchecked(1));
        assert!(peers.was_foreign(&peer));
        peers.opened(peer, ConnectionId::new_unchecked(3), "/ip4/10.0.0.1/tcp/1".into(), now);
        assert!(peers.set_member(&peer));
        assert!(!peers.was_foreign(&peer));
    }

    #[test]
    fn a_silent_peer_and_the_memory_of_foreign_ones_are_bounded() {
        let (mut peers, peer, now) = connected();
        assert!(peers.unwanted(now + IDENTIFY_DEADLINE).is_empty());
        assert_eq!(peers.unwanted(now + 2 * IDENTIFY_DEADLINE), [peer]);
        for _ in 0..2 * FOREIGN_REMEMBERED {
            peers.set_foreign(&PeerId::random(), now);
        }
        assert_eq!(peers.foreign.len(), FOREIGN_REMEMBERED);
    }

    #[test]
    fn a_gossip_flood_is_noticed_and_forgotten_with_the_window() {
        let (mut peers, peer, now) = connected();
        for _ in 0..GOSSIP_PER_WINDOW {
            assert!(!peers.gossip_flood(&peer));
        }
        assert!(peers.gossip_flood(&peer));
        peers.unwanted(now + GOSSIP_WINDOW);
        assert!(!peers.gossip_flood(&peer));
    }
}
