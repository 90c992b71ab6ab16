//! The one task that drives libp2p: network events and commands in, events and dials out.
//!
//! The loop in [`Service::run`] waits for five things at once and for none of them alone: the network, a
//! command, room in the event queue, the turn of an answer that waits, and a half-second tick for whatever is due (bootstrap addresses, bans
//! that end, peers that never identified themselves, looking for more peers). Everything it handles, it
//! handles without waiting, so neither a busy core nor a hostile peer can stop it. What peers can make it
//! hold is bounded: connections by the limits in `behaviour`, unjudged payloads and unanswered requests by
//! `tokens`, events by `outbox`, answers that wait by `upload`.
//!
//! `membership` handles connections, `exchange` gossip and requests, `reaching` ways in.

mod exchange;
mod membership;
mod reaching;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    gossipsub, kad, mdns,
    multiaddr::Protocol,
    ping, relay,
    request_response::{OutboundRequestId, ResponseChannel},
    swarm::{self, DialError, SwarmEvent},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    Command, Config, Counters, Event, PeerKey, address,
    behaviour::{Behaviour, BehaviourEvent, Names},
    bootstrap::Bootstrap,
    outbox::Outbox,
    peers::Peers,
    picture::Picture,
    reach::Reach,
    relay::Members,
    route::Route,
    scale::Scale,
    tokens::Tokens,
    transport,
    upload::Upload,
};

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(500);
/// A connection without any open stream is closed after this time. Gossip and requests keep it open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How long closing the connections may take at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Payloads awaiting a verdict.
const UNJUDGED: usize = 1024;
/// Requests awaiting the core's response.
const UNANSWERED: usize = 256;

/// The task's state.
pub(super) struct Service {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    outbox: Outbox,
    names: Names,
    max_gossip: usize,
    max_request: usize,
    max_response: usize,
    listens: bool,
    fatal: Option<String>,
    peers: Peers,
    /// The members among these, for the protocols that ask.
    members: Members,
    reach: Reach,
    /// Which listener is a reservation with which relay.
    reservations: HashMap<ListenerId, PeerId>,
    picture: watch::Sender<Picture>,
    bootstrap: Bootstrap,
    /// Peers met in earlier runs.
    known: Vec<(PeerId, Vec<Multiaddr>)>,
    discovery: Discovery,
    scale: Scale,
    bans: HashMap<PeerId, Instant>,
    /// What gossip awaits a verdict: the payload's id and who passed it on.
    unjudged: Tokens<(gossipsub::MessageId, PeerId)>,
    unanswered: Tokens<(PeerKey, ResponseChannel<Vec<u8>>)>,
    /// Bulk that waits for its turn.
    uploads: Upload<(ResponseChannel<Vec<u8>>, Vec<u8>)>,
    /// Bulk that is refused, and when the asker learns of it.
    refused: VecDeque<(Instant, ResponseChannel<Vec<u8>>)>,
    requests: HashMap<OutboundRequestId, (PeerKey, u64)>,
    counters: Arc<Counters>,
}

impl Service {
    /// Sets everything up and opens the listeners. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// An address cannot be listened on, or a limit in `config` is unusable.
    pub(super) fn new(
        config: Config,
        commands: mpsc::Receiver<Command>,
        outbox: Outbox,
        counters: Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let keypair = address::keypair(config.secret)?;
        let names = Names::new(&config.swarm_id);
        let local = keypair.public().to_peer_id();
        let (transport, relay_client) = transport::build(&keypair, &counters, config.key)?;
        let members = Members::default();
        let behaviour = Behaviour::new(&config, &names, &keypair, relay_client, &members)?;
        let reach = Reach::new(behaviour.upnp.is_enabled());
        let mut swarm = Swarm::new(
            transport,
            behaviour,
            local,
            swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT),
        );
        // All probes before the first listener: [::] would collide with this node's own 0.0.0.0.
        config.listen.iter().try_for_each(address::probe)?;
        for listen in &config.listen {
            swarm.listen_on(listen.clone()).map_err(|error| address::listen_refused(listen, &error))?;
        }
        let now = Instant::now();
        counters.sent.limit(config.limits.upload);
        counters.received.limit(config.limits.download);
        Ok(Self {
            swarm,
            commands,
            outbox,
            names,
            max_gossip: config.max_gossip,
            max_request: config.max_request,
            max_response: config.max_response,
            listens: !config.listen.is_empty(),
            fatal: None,
            peers: Peers::new(now),
            members,
            reach,
            reservations: HashMap::new(),
            picture: watch::Sender::default(),
            bootstrap: Bootstrap::new(config.bootstrap, &local, now),
            known: config.known,
            discovery: Discovery::new(now),
            scale: Scale::of(config.peers),
            bans: HashMap::new(),
            unjudged: Tokens::new(UNJUDGED),
            unanswered: Tokens::new(UNANSWERED),
            uploads: Upload::new(config.limits.upload, now),
            counters: counters.clone(),
            refused: VecDeque::new(),
            requests: HashMap::new(),
        })
    }

    /// How the network stands, looked at twice a second.
    pub(super) fn picture(&self) -> watch::Receiver<Picture> {
        self.picture.subscribe()
    }

    /// This node's peer id.
    pub(super) fn local_peer_id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Runs until told to stop, the core is gone, or the network is.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.fatal.is_none() {
            let due = self.next_due();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event, Instant::now()),
                command = self.commands.recv() => match command {
                    None | Some(Command::Shutdown) => break,
                    Some(command) => self.on_command(command),
                },
                drained = self.outbox.drain() => if drained.is_err() { break },
                () = until(due) => self.send_due(Instant::now()),
                _ = tick.tick() => self.on_tick(Instant::now()),
            }
        }
        if let Some(reason) = self.fatal.take() {
            self.outbox.offer(Event::Fatal { reason });
        }
        self.close().await;
    }

    /// Closes every connection, so that peers see an end and not a timeout.
    async fn close(mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            self.disconnect(&peer);
        }
        let all_closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if timeout(CLOSE_TIMEOUT, all_closed).await.is_err() {
            tracing::debug!("not every connection closed in time");
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(bytes) => self.publish(bytes),
            Command::Verdict { token, verdict } => self.judge(token, verdict),
            Command::Request { peer, id, bytes } => self.request(peer, id, bytes),
            Command::Respond { token, bytes, bulk } => self.respond(token, bytes, bulk, Instant::now()),
            Command::Ban { peer, duration, reason } => match address::peer_id(&peer) {
                Some(peer) => self.ban(peer, duration, &reason, Instant::now()),
                None => tracing::warn!(%reason, "cannot ban a peer whose key is no ed25519 key"),
            },
            Command::Limit(limits) => {
                self.counters.sent.limit(limits.upload);
                self.counters.received.limit(limits.download);
                self.uploads.limit(limits.upload);
            }
            Command::Scale(scale) => {
                self.scale = scale;
                *self.swarm.behaviour_mut().limits.limits_mut() = scale.connections();
            }
            // Ends the loop before it gets here.
            Command::Shutdown => {}
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>, now: Instant) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event, now),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_opened(peer_id, connection_id, Route::of(&endpoint), now);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.on_closed(peer_id, connection_id, cause, now);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if matches!(error, DialError::LocalPeerId { .. }) {
                    self.bootstrap.dialed_self(connection_id);
                } else {
                    let failures = self.bootstrap.failed(connection_id, now, rand::random());
                    self.report_bootstrap(failures, &address::dial_error(&error));
                }
            }
            // Ways through a relay are told of when it agrees.
            SwarmEvent::NewListenAddr { address, .. } if address::is_relayed(&address) => {}
            SwarmEvent::NewListenAddr { address, .. } => {
                self.reach.listens(&address);
                let address = address.with(Protocol::P2p(self.local_peer_id()));
                self.outbox.offer(Event::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_moved(&address),
            SwarmEvent::ExternalAddrConfirmed { .. } => self.announce_addresses(),
            SwarmEvent::ListenerClosed { listener_id, reason, addresses } => {
                if let Some(relay) = self.reservations.remove(&listener_id) {
                    return self.on_reservation_closed(relay, reason, now);
                }
                tracing::warn!(?addresses, ?reason, "a listener closed");
                if self.listens && self.swarm.listeners().next().is_none() {
                    self.fatal = Some(match reason {
                        Ok(()) => "the last listener closed".into(),
                        Err(error) => format!("the last listener closed: {error}"),
                    });
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed to accept"),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Limits(never) | BehaviourEvent::Blocked(never) => match never {},
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                self.on_gossip(propagation_source, message_id, message.data, now);
            }
            BehaviourEvent::Gossip(_) => {}
            BehaviourEvent::Requests(event) => self.on_request_event(event),
            BehaviourEvent::Identify(event) => self.on_identify(event, now),
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(ping::Failure::Timeout) }) => {
                // The other end is gone without a word: its machine sleeps, or its cable is out.
                tracing::info!(%peer, "no answer to a ping: closing the connection");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Ok(latency) }) => {
                self.peers.pinged(&peer, connection, latency);
            }
            BehaviourEvent::Ping(_) => {}
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.dial_found(peer, vec![address]);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetClosestPeers(result),
                ..
            }) => {
                let found = match result {
                    Ok(kad::GetClosestPeersOk { peers, .. }) => peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                for kad::PeerInfo { peer_id, addrs } in found {
                    self.dial_found(peer_id, addrs);
                }
            }
            BehaviourEvent::Kad(_) => {}
            BehaviourEvent::RelayClient(event) => self.on_relay_client(event, now),
            // It says so of every connection, reserved or not.
            BehaviourEvent::Relay(relay::Event::ReservationClosed { .. }) => {}
            BehaviourEvent::Relay(event) => tracing::debug!(?event, "relaying"),
            BehaviourEvent::Dcutr(event) => self.on_direct_attempt(event),
            BehaviourEvent::Autonat(event) => self.on_test(event),
            BehaviourEvent::Tester(event) => tracing::debug!(?event, "tested an address for a peer"),
            BehaviourEvent::Upnp(event) => self.on_upnp(event),
        }
    }

    fn on_tick(&mut self, now: Instant) {
        for peer in self.peers.unwanted(now) {
            self.disconnect(&peer);
        }
        self.end_bans(now);
        self.dial_bootstrap(now);
        self.reach_tick(now);
        if self.discovery.is_due(now) {
            self.look_for_peers();
            self.dial_known();
        }
    }

    /// Starts closing every connection to `peer`; the events follow.
    fn disconnect(&mut self, peer: &PeerId) {
        if self.swarm.disconnect_peer_id(*peer).is_err() {
            tracing::debug!(%peer, "already disconnected");
        }
    }

    /// Looks up who is close to this node, so as to be known there, and who is close to a point chosen by
    /// chance, so as to know the rest. The lookups connect to whom they ask; what they find is dialled.
    fn look_for_peers(&mut self) {
        let local = self.local_peer_id();
        let kad = &mut self.swarm.behaviour_mut().kad;
        if kad.iter_queries().next().is_none() {
            kad.get_closest_peers(local);
            kad.get_closest_peers(PeerId::random());
        }
    }

    /// Tries those met in earlier runs, while nobody is there.
    fn dial_known(&mut self) {
        if self.peers.len() == 0 {
            for (peer, addresses) in self.known.clone() {
                self.dial_found(peer, addresses);
            }
        }
    }

    fn report_bootstrap(&mut self, failures: Vec<super::bootstrap::Failure>, reason: &str) {
        for super::bootstrap::Failure { address, retry_in } in failures {
            self.outbox.offer(Event::BootstrapFailed { address, reason: reason.to_owned(), retry_in });
        }
    }

    fn report_bootstrap_good(&mut self, addresses: Vec<Multiaddr>) {
        for address in addresses {
            self.outbox.offer(Event::BootstrapConnected { address });
        }
    }
}

/// Waits until then; for ever if there is nothing to wait for.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// When to look for peers next: after 5 s at first, then at intervals that double up to a minute, and soon
/// again when a peer is lost.
#[derive(Debug)]
struct Discovery {
    next: Instant,
    pause: Duration,
}

impl Discovery {
    const FIRST: Duration = Duration::from_secs(5);
    const LONGEST: Duration = Duration::from_secs(60);

    fn new(now: Instant) -> Self {
        Self { next: now + Self::FIRST, pause: Self::FIRST }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.pause = self.pause.saturating_mul(2).min(Self::LONGEST);
        self.next = now + self.pause;
        true
    }

    fn hurry(&mut self, now: Instant) {
        self.pause = Self::FIRST;
        self.next = self.next.min(now + Self::FIRST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_for_peers_slows_down_and_a_loss_hurries_it() {
        let mut now = Instant::now();
        let mut discovery = Discovery::new(now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(!discovery.is_due(now));
            pauses.push((discovery.next - now).as_secs());
            now = discovery.next;
            assert!(discovery.is_due(now));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        discovery.hurry(now);
        assert_eq!(discovery.next - now, Discovery::FIRST);
    }
}
