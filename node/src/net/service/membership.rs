//! Connections: who comes and goes, who belongs, whom to dial, whom to refuse.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId, identify,
    swarm::{
        ConnectionError, ConnectionId, DialError, StreamUpgradeError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    super::{Event, PeerKey, address, behaviour::IDENTIFY_PREFIX, peers::Standing, route::Route},
    Service,
};

/// Addresses of one peer that are kept or dialled.
const ADDRESSES: usize = 16;
/// Bans remembered. Of more, those that would end first end at once.
const BANS: usize = 4096;
/// The longest ban.
const LONGEST_BAN: Duration = Duration::from_secs(30 * 24 * 3600);

impl Service {
    pub(super) fn on_opened(&mut self, peer: PeerId, connection: ConnectionId, route: Route, now: Instant) {
        self.peers.opened(peer, connection, route, now);
        self.bootstrap.established(connection, peer, now);
        if self.peers.standing(&peer) == Some(Standing::Member) {
            let good = self.bootstrap.confirmed(&peer);
            self.report_bootstrap_good(good);
        }
    }

    pub(super) fn on_closed(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        cause: Option<ConnectionError>,
        now: Instant,
    ) {
        let Some(standing) = self.peers.closed(&peer, connection) else { return };
        self.members.remove(&peer);
        self.reach.withdrawn(&peer);
        let cause = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
        tracing::debug!(%peer, ?standing, %cause, "disconnected");
        let reason = match standing {
            Standing::Member => {
                if let Some(peer) = address::peer_key(&peer) {
                    self.outbox.keep(Event::Disconnected { peer });
                }
                self.discovery.hurry(now);
                format!("the connection was lost ({cause})")
            }
            Standing::Unknown => format!("the peer there did not say which swarm it belongs to ({cause})"),
            Standing::Foreign { .. } => "the peer there does not belong to this swarm".to_owned(),
        };
        let failures = self.bootstrap.lost(&peer, now, rand::random());
        self.report_bootstrap(failures, &reason);
    }

    pub(super) fn on_identify(&mut self, event: identify::Event, now: Instant) {
        match event {
            identify::Event::Received { connection_id, peer_id, info } => {
                if info.protocol_version != self.names.identify {
                    return self.on_foreign(peer_id, &info.protocol_version, now);
                }
                if self.member(&peer_id).is_some() {
                    self.learn_reach(peer_id, connection_id, &info);
                    self.learn_addresses(peer_id, info.listen_addrs);
                }
            }
            identify::Event::Sent { peer_id, .. } => self.peers.told(&peer_id),
            identify::Event::Error { peer_id, error: StreamUpgradeError::NegotiationFailed, .. } => {
                self.on_foreign(peer_id, "a program that does not speak libp2p's identify protocol", now);
            }
            // Any other failure may be passing; a peer that never identifies itself runs into its deadline.
            identify::Event::Error { peer_id, error, .. } => {
                tracing::debug!(peer = %peer_id, %error, "identify failed");
            }
            identify::Event::Pushed { .. } => {}
        }
    }

    /// The key of a peer that claims this swarm, which makes it a member if it was unknown; `None` for one
    /// that is foreign or has no ed25519 key.
    pub(super) fn member(&mut self, peer: &PeerId) -> Option<PeerKey> {
        let Some(key) = address::peer_key(peer) else {
            tracing::warn!(%peer, "disconnecting a peer whose key is not ed25519");
            self.disconnect(peer);
            return None;
        };
        if self.peers.set_member(peer) {
            self.members.add(*peer);
            self.outbox.keep(Event::Connected { peer: key });
            let good = self.bootstrap.confirmed(peer);
            self.report_bootstrap_good(good);
        }
        (self.peers.standing(peer) == Some(Standing::Member)).then_some(key)
    }

    /// A peer turns out not to be of this swarm. `claim` is what it said: its own words, to be escaped.
    fn on_foreign(&mut self, peer: PeerId, claim: &str, now: Instant) {
        // A member that identifies anew as something else stops being one.
        let was_member = self.peers.standing(&peer) == Some(Standing::Member);
        let theirs: String = claim
            .strip_prefix(IDENTIFY_PREFIX)
            .unwrap_or(claim)
            .chars()
            .take(80)
            .flat_map(char::escape_default)
            .collect();
        self.members.remove(&peer);
        self.reach.withdrawn(&peer);
        let is_news = self.peers.set_foreign(&peer, now);
        if let Some(key) = address::peer_key(&peer) {
            if was_member {
                self.outbox.keep(Event::Disconnected { peer: key });
            }
            if is_news {
                let address = self.peers.address(&peer).map_or_else(String::new, Multiaddr::to_string);
                self.outbox.offer(Event::OtherSwarm { peer: key, address, theirs: theirs.clone() });
            }
        }
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        let failures = self.bootstrap.lost(&peer, now, rand::random());
        self.report_bootstrap(
            failures,
            &format!("the peer there does not belong to this swarm, but to {theirs}"),
        );
    }

    /// Puts a member's addresses into the routing table.
    fn learn_addresses(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let same_machine = self.peers.is_local(&peer);
        let kad = &mut self.swarm.behaviour_mut().kad;
        let useful = addresses.into_iter().filter(|address| address::is_dialable(address, same_machine));
        let useful: Vec<Multiaddr> = useful.take(ADDRESSES).collect();
        for address in &useful {
            kad.add_address(&peer, address.clone());
        }
        if !useful.is_empty() {
            self.outbox.offer(Event::Met { peer, addresses: useful });
        }
    }

    /// Dials a peer that discovery found, unless there is no need or no point.
    pub(super) fn dial_found(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.retain(|address| address::is_dialable(address, true));
        addresses.truncate(ADDRESSES);
        if addresses.is_empty()
            || peer == self.local_peer_id()
            || self.peers.len() >= self.scale.neighbours()
            || self.peers.was_foreign(&peer)
            || self.bans.contains_key(&peer)
        {
            return;
        }
        // From a new port: two peers that find each other at once and dial from their listening ports would
        // open one connection from both sides, with nobody to answer.
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .allocate_new_port()
            .addresses(addresses)
            .build();
        if let Err(error) = self.swarm.dial(dial) {
            tracing::trace!(%peer, %error, "not dialled");
        }
    }

    /// Dials the bootstrap addresses that are due.
    pub(super) fn dial_bootstrap(&mut self, now: Instant) {
        let (peers, bans) = (&self.peers, &self.bans);
        let is_member = |peer: &PeerId| peers.standing(peer) == Some(Standing::Member);
        for address in self.bootstrap.due(now, is_member, |peer| bans.get(peer).copied()) {
            let dial = DialOpts::unknown_peer_id().address(address.clone());
            // Out in the world from the listening port, so that what the peer there sees of this node is what a
            // router in between makes of that port: others may find a way in there.
            let dial =
                if address::is_far(&address) { dial.build() } else { dial.allocate_new_port().build() };
            let connection = dial.connection_id();
            self.bootstrap.dialing(&address, connection);
            match self.swarm.dial(dial) {
                Ok(()) => {}
                // The swarm leaves out the addresses it listens on itself.
                Err(DialError::NoAddresses) => self.bootstrap.dialed_self(connection),
                Err(error) => {
                    let failures = self.bootstrap.failed(connection, now, rand::random());
                    self.report_bootstrap(failures, &address::dial_error(&error));
                }
            }
        }
        // An address whose peer was connected already has thereby proved good.
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            if self.peers.standing(&peer) == Some(Standing::Member) {
                let good = self.bootstrap.confirmed(&peer);
                self.report_bootstrap_good(good);
            }
        }
    }

    /// Disconnects a peer and refuses it until `duration` has passed.
    pub(super) fn ban(&mut self, peer: PeerId, duration: Duration, reason: &str, now: Instant) {
        tracing::warn!(%peer, seconds = duration.as_secs(), reason, "banning a peer");
        let duration = duration.min(LONGEST_BAN);
        self.outbox.offer(Event::Banned { peer, duration, reason: reason.to_owned() });
        let until = now + duration;
        let end = self.bans.entry(peer).or_insert(until);
        *end = until.max(*end);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.remove_peer(&peer);
        behaviour.blocked.block_peer(peer);
        if self.bans.len() > BANS
            && let Some((first, _)) = self.bans.iter().min_by_key(|(_, until)| **until)
        {
            let first = *first;
            self.bans.remove(&first);
            self.swarm.behaviour_mut().blocked.unblock_peer(first);
        }
    }

    pub(super) fn end_bans(&mut self, now: Instant) {
        let blocked = &mut self.swarm.behaviour_mut().blocked;
        self.bans.retain(|peer, until| {
            let holds = now < *until;
            if !holds {
                blocked.unblock_peer(*peer);
            }
            holds
        });
    }
}
