//! Passing on bytes for peers that cannot be reached, and testing for others whether they can: what this node
//! does for peers that have no way in, and the limits of it.
//!
//! ```text
//!   A ── behind a router ──▶ ┌───────┐ ◀── behind a router ── B      A reserves: it may be called through the relay.
//!                            │ relay │                               B asks for A: the relay joins the two streams,
//!                            └───────┘                               a circuit, encrypted between A and B.
//! ```
//!
//! Every node that others reach from outside offers this (circuit relay v2,
//! <https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md>), unless its user refuses. It is meant for
//! what A and B cannot do otherwise: they try at once to open a direct way, and leave the relay if they find one.
//! But where both routers choose ports at random there is none, and then the relay carries all that two
//! neighbours say to each other. The limits are made for that: through one circuit ([`CIRCUIT_BYTES`]) a nano
//! model's deltas of 121 kB pass 4,400 times, and a micro model's of 2.8 MB 190 times, before the two ask again. They
//! bound what is open and what one pair takes at a time, not bytes a second: a user who wants that refuses to
//! relay.
//!
//! Reservations and tests are for members of the swarm only. A circuit can be asked for by whoever connects, but
//! ends at a member in any case.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, autonat,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, derive_prelude::Either,
    },
};

use super::address;

/// Bytes that one circuit carries, both ways together.
pub(super) const CIRCUIT_BYTES: u64 = 512 << 20;
/// How long one circuit lasts: whoever is unreachable stays so, but a way round may have opened.
pub(super) const CIRCUIT_TIME: Duration = Duration::from_secs(3600);
/// Circuits at once.
pub(super) const CIRCUITS: usize = 16;
/// Circuits at once that one peer opens: it needs a few neighbours, not all of the relay.
const CIRCUITS_PER_PEER: usize = 4;
/// Peers that can be called through this node. A reservation costs an open connection, of which there are 64.
const RESERVATIONS: usize = 32;
/// How long a reservation holds unless it is renewed, which happens after three quarters of it.
pub(super) const RESERVATION_TIME: Duration = Duration::from_secs(3600);
/// A peer, and an address, has this many reservations or circuits in hand ..
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);
/// .. and gets one more in this time.
const REFILL: Duration = Duration::from_secs(60);

/// Addresses are tested for others this often in [`TEST_WINDOW`] at most ..
const TESTS: u32 = 60;
/// .. and for one peer this often: a few listeners, each over two protocols and both versions of IP.
const TESTS_PER_PEER: u32 = 12;
const TEST_WINDOW: Duration = Duration::from_secs(60);

/// The members of the swarm that are connected. Shared between the service, which knows, and what asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Members(Arc<Mutex<HashSet<PeerId>>>);

impl Members {
    /// `peer` is one.
    pub(super) fn add(&self, peer: PeerId) {
        self.lock().insert(peer);
    }

    /// `peer` is none, or not connected any more.
    pub(super) fn remove(&self, peer: &PeerId) {
        self.lock().remove(peer);
    }

    fn contains(&self, peer: &PeerId) -> bool {
        self.lock().contains(peer)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PeerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay that offers nothing until it is told to ([`relay::Behaviour::set_status`]): left to itself it would as
/// soon as this node is reached through another relay.
pub(super) fn server(local: PeerId, members: &Members) -> relay::Behaviour {
    let members = members.clone();
    let of_members = move |peer: PeerId, _: &Multiaddr, _: Instant| members.contains(&peer);
    let config = relay::Config {
        max_reservations: RESERVATIONS,
        // One connection is enough; libp2p counts those beyond this number.
        max_reservations_per_peer: 1,
        reservation_duration: RESERVATION_TIME,
        reservation_rate_limiters: vec![Box::new(of_members)],
        max_circuits: CIRCUITS,
        max_circuits_per_peer: CIRCUITS_PER_PEER - 1,
        max_circuit_duration: CIRCUIT_TIME,
        max_circuit_bytes: CIRCUIT_BYTES,
        circuit_src_rate_limiters: Vec::new(),
    };
    let config = config
        .reservation_rate_per_peer(BURST, REFILL)
        .reservation_rate_per_ip(BURST, REFILL)
        .circuit_src_per_peer(BURST, REFILL)
        .circuit_src_per_ip(BURST, REFILL);
    let mut server = relay::Behaviour::new(local, config);
    server.set_status(Some(relay::Status::Disable));
    server
}

/// How often something was done, for each peer and together, since the window began.
#[derive(Debug)]
struct Quota {
    began: Instant,
    all: u32,
    each: HashMap<PeerId, u32>,
}

impl Quota {
    fn new(now: Instant) -> Self {
        Self { began: now, all: 0, each: HashMap::new() }
    }

    /// Whether `peer` may have one more, which is then counted.
    fn take(&mut self, peer: PeerId, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= TEST_WINDOW {
            *self = Self::new(now);
        }
        let of_peer = self.each.get(&peer).copied().unwrap_or_default();
        if self.all >= TESTS || of_peer >= TESTS_PER_PEER {
            return false;
        }
        self.all += 1;
        self.each.insert(peer, of_peer + 1);
        true
    }
}

/// Tells members whether they can be reached, by dialling them (AutoNAT v2,
/// <https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md>). libp2p's server would dial for
/// anybody, as often as asked; this one answers others, and those who ask too much, that it did not work. Nor
/// does it dial through relays: that says nothing of the peer, and costs the relay a circuit. And it hangs up
/// when a test is done: the two are connected anyway.
pub(super) struct Tester {
    inner: autonat::v2::server::Behaviour,
    members: Members,
    quota: Quota,
    /// Dials that were asked for and not begun.
    asked: HashSet<ConnectionId>,
    /// Connections that a test was made for, and is done with.
    done: VecDeque<(PeerId, ConnectionId)>,
}

impl Tester {
    /// A tester for `members`.
    pub(super) fn new(members: Members) -> Self {
        Self {
            inner: autonat::v2::server::Behaviour::default(),
            members,
            quota: Quota::new(Instant::now()),
            asked: HashSet::new(),
            done: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Tester {
    type ConnectionHandler = <autonat::v2::server::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = autonat::v2::server::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let is_plain = |address| address::endpoint(address).is_some_and(|there| !there.relayed);
        if self.asked.remove(&connection) && !addresses.iter().all(is_plain) {
            return Err(ConnectionDenied::new("only direct addresses are tested"));
        }
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::DialFailure(DialFailure { connection_id, .. }) = event {
            self.asked.remove(&connection_id);
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if matches!(event, Either::Left(Either::Left(_))) {
            self.done.push_back((peer, connection));
        }
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.done.pop_front() {
            let connection = CloseConnection::One(connection);
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        loop {
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::Dial { opts }) => {
                    let peer_id = opts.get_peer_id();
                    let allowed = peer_id.is_some_and(|peer| {
                        self.members.contains(&peer) && self.quota.take(peer, Instant::now())
                    });
                    if allowed {
                        self.asked.insert(opts.connection_id());
                        return Poll::Ready(ToSwarm::Dial { opts });
                    }
                    self.inner.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                        peer_id,
                        error: &DialError::Aborted,
                        connection_id: opts.connection_id(),
                    }));
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_for_others_are_counted_for_each_peer_and_together_and_forgotten_with_the_window() {
        let now = Instant::now();
        let mut quota = Quota::new(now);
        let greedy = PeerId::random();
        let taken = (0..100).filter(|_| quota.take(greedy, now)).count();
        assert_eq!(taken, TESTS_PER_PEER as usize);
        let others = (0..1000).filter(|_| quota.take(PeerId::random(), now)).count();
        assert_eq!(others, (TESTS - TESTS_PER_PEER) as usize);
        assert!(quota.each.len() <= TESTS as usize, "no more is remembered than was given");
        assert!(quota.take(greedy, now + TEST_WINDOW));
    }
}
