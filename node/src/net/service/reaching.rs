//! Ways in: what the protocols find out about them, and what is done about it.

use std::{io, time::Instant};

use libp2p::{
    Multiaddr, PeerId, autonat, dcutr, identify,
    multiaddr::Protocol,
    relay,
    swarm::{ConnectionId, FromSwarm, NetworkBehaviour, behaviour::NewExternalAddrCandidate},
    upnp,
};

use super::{
    super::{
        address,
        picture::Picture,
        reach::{How, Step, Upnp},
    },
    Service,
};

impl Service {
    /// What a member says of itself and of this node shows whether it relays, and whether this node is reached.
    pub(super) fn learn_reach(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let Some(route) = self.peers.route(&peer, connection).cloned() else { return };
        if route.relayed {
            return;
        }
        let own: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        if route.local.is_none() && route.from_listening_port && address::is_far(&route.remote) {
            self.reach.seen(peer, &info.observed_addr, own.contains(&info.observed_addr));
            // identify takes another port than the listening one for an accident and puts the latter in its place;
            // here it is what a router made of it, and where a direct way may open.
            let seen = NewExternalAddrCandidate { addr: &info.observed_addr };
            self.swarm.behaviour_mut().dcutr.on_swarm_event(FromSwarm::NewExternalAddrCandidate(seen));
        }
        if let Some(local) = &route.local {
            let proven = self
                .reach
                .came_in(&route.remote, local, &info.observed_addr, |address| own.contains(address));
            if let Some((address, how)) = proven {
                self.swarm.add_external_address(address.clone());
                self.announce_addresses();
                self.tell_reachable(&address, how);
            }
        }
        if !info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            return self.reach.withdrawn(&peer);
        }
        let same_machine = self.peers.is_local(&peer);
        // Where this node got through is better than what the relay says of itself.
        let dialled = route.local.is_none().then_some(&route.remote);
        let address = dialled
            .into_iter()
            .chain(&info.listen_addrs)
            .find(|address| address::is_dialable(address, same_machine) && !address::is_relayed(address));
        if let Some(address) = address {
            let bare = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
            self.reach.offered(peer, bare);
        }
    }

    pub(super) fn on_test(&mut self, event: autonat::v2::client::Event) {
        let autonat::v2::client::Event { tested_addr, server, result, .. } = event;
        tracing::debug!(address = %tested_addr, by = %server, ?result, "an own address was tested");
        match result {
            Ok(()) => self.found_reachable(&tested_addr, How::Tested(server)),
            Err(_) => {
                if self.reach.test_failed(&tested_addr, server) {
                    tracing::info!(
                        "others cannot reach this node: {server} tried {tested_addr}; see swarm net"
                    );
                }
            }
        }
    }

    pub(super) fn on_upnp(&mut self, event: upnp::Event) {
        match event {
            upnp::Event::NewExternalAddr { external_addr, .. } => {
                self.reach.router_said(Upnp::Mapped);
                self.found_reachable(&external_addr, How::Upnp);
            }
            upnp::Event::ExpiredExternalAddr { external_addr, .. } => {
                tracing::info!("the router does not let others in at {external_addr} any more");
                self.reach.works_no_more(&external_addr);
                self.offer_relay();
            }
            upnp::Event::GatewayNotFound => self.reach.router_said(Upnp::NoRouter),
            upnp::Event::NonRoutableGateway => self.reach.router_said(Upnp::RouterNotPublic),
        }
    }

    fn found_reachable(&mut self, address: &Multiaddr, how: How) {
        if self.reach.works(address, how) {
            self.tell_reachable(address, how);
        }
    }

    fn tell_reachable(&mut self, address: &Multiaddr, how: How) {
        let how = match how {
            How::Tested(by) => format!("{by} tested it"),
            How::Upnp => "the router was asked to let others in".into(),
            How::Used => "others came in".into(),
            How::Witnessed => "others came in from different places".into(),
        };
        tracing::info!("others can reach this node at {address}: {how}");
        self.offer_relay();
    }

    /// Relays for others if, and only if, others can reach this node.
    fn offer_relay(&mut self) {
        let status = if self.reach.is_reachable() { relay::Status::Enable } else { relay::Status::Disable };
        if let Some(relay) = self.swarm.behaviour_mut().relay.as_mut() {
            relay.set_status(Some(status));
        }
    }

    /// Tells everybody connected that this node's addresses have changed; libp2p does so by itself only for
    /// those it listens at.
    pub(super) fn announce_addresses(&mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        self.swarm.behaviour_mut().identify.push(connected);
    }

    pub(super) fn on_relay_client(&mut self, event: relay::client::Event, now: Instant) {
        match event {
            relay::client::Event::ReservationReqAccepted { relay_peer_id, limit, .. } => {
                let limit = limit.map_or((None, None), |limit| (limit.duration(), limit.data_in_bytes()));
                if self.reach.reserved(relay_peer_id, limit, now) {
                    tracing::info!("others can reach this node through the relay {relay_peer_id}");
                    // Those whom this node could not reach have looked for a relay too.
                    self.discovery.hurry(now);
                }
            }
            relay::client::Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                tracing::debug!(relay = %relay_peer_id, "a relayed connection was opened");
            }
            relay::client::Event::InboundCircuitEstablished { src_peer_id, .. } => {
                tracing::debug!(peer = %src_peer_id, "a relayed connection came in");
            }
        }
    }

    pub(super) fn on_direct_attempt(&mut self, event: dcutr::Event) {
        match event.result {
            Ok(_) => tracing::info!("a direct way to {} was found", event.remote_peer_id),
            Err(error) => {
                tracing::debug!(peer = %event.remote_peer_id, %error, "no direct way was found");
            }
        }
    }

    /// An address of this machine is gone: what was known of ways in does not hold any more.
    pub(super) fn on_moved(&mut self, address: &Multiaddr) {
        if address::is_relayed(address) {
            return;
        }
        for address in self.reach.moved() {
            self.swarm.remove_external_address(&address);
        }
        self.offer_relay();
    }

    /// A reservation ended, or was refused.
    pub(super) fn on_reservation_closed(&mut self, relay: PeerId, reason: io::Result<()>, now: Instant) {
        let why =
            reason.err().map_or_else(|| "the connection to it closed".into(), |error| address::words(&error));
        if self.reach.lost(&relay, now, rand::random()) {
            tracing::info!("the relay {relay} is lost ({why}); looking for another");
        } else {
            tracing::debug!(%relay, %why, "no reservation");
        }
    }

    /// Shows how things stand to whoever looks.
    fn show(&mut self) {
        let relays = self.swarm.behaviour().relay.is_enabled();
        let members = self.peers.members();
        let listen = self.swarm.listeners().filter(|address| !address::is_relayed(address));
        let reached_at = self.swarm.external_addresses().map(|address| match address::peer_in(address) {
            Some(_) => address.clone(),
            None => address.clone().with(Protocol::P2p(*self.swarm.local_peer_id())),
        });
        let picture = Picture::of(listen, reached_at, &self.reach, relays, members);
        self.picture.send_if_modified(|shown| {
            let news = *shown != picture;
            if news {
                *shown = picture;
            }
            news
        });
    }

    /// Whatever is due: relays to ask or to leave, relayed connections that are no longer needed.
    pub(super) fn reach_tick(&mut self, now: Instant) {
        self.show();
        for connection in self.peers.superseded(now) {
            tracing::debug!(%connection, "a direct connection replaces this relayed one");
            self.swarm.close_connection(connection);
        }
        for step in self.reach.due(now, rand::random()) {
            match step {
                Step::Reserve { relay, address } => {
                    let circuit = address.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
                    match self.swarm.listen_on(circuit) {
                        Ok(listener) => {
                            self.reservations.insert(listener, relay);
                        }
                        Err(error) => {
                            tracing::debug!(%relay, %error, "the relay cannot be asked");
                            self.reach.lost(&relay, now, rand::random());
                        }
                    }
                }
                Step::Release(relay) => {
                    tracing::info!("others can reach this node directly: the relay {relay} is not needed");
                    let listener = self.reservations.iter().find(|(_, peer)| **peer == relay);
                    if let Some((listener, _)) = listener {
                        self.swarm.remove_listener(*listener);
                    }
                }
            }
        }
    }
}
