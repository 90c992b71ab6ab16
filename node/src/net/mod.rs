//! The network: bytes in, bytes out.
//!
//! This module connects one device to the others of its swarm and knows nothing about what they say:
//! gossip payloads, requests and responses are opaque bytes, judged by the core above. It offers
//!
//! - **gossip** (gossipsub): a payload reaches every peer of the swarm over a sparse mesh. A received
//!   payload is passed on only when the core has reported [`Verdict::Accept`] for its token;
//! - **requests** between two connected peers, one response each;
//! - **discovery**: bootstrap addresses, mDNS on the local network, and a Kademlia routing table, so that
//!   a mesh outlives the address it was joined through;
//! - **ways in**: it finds out whether others can open connections to this node (AutoNAT v2, UPnP, who comes in),
//!   relays for others if so and takes a relay if not, and leaves the relay for a direct connection opened from
//!   both sides at once (DCUtR) where the routers allow it;
//! - **separation of swarms**: every topic and protocol name holds the swarm id, and a peer of another
//!   swarm is reported and disconnected.
//!
//! ```text
//!            Command (bounded)                       one task
//!   core  ─────────────────────▶  service ── Swarm ── behaviour ── transport ── TCP, QUIC
//!         ◀─────────────────────     │
//!            Event (bounded)         ├ bootstrap   the addresses the user gave: dial, back off, report
//!                                    ├ meter       every byte counted, and held back if there is a limit
//!                                    ├ outbox      the event queue and what happens when it is full
//!                                    ├ peers       who is connected, how (route), and whether they belong
//!                                    ├ reach       whether others get in, and through which relays
//!                                    ├ relay       what this node does for others, and how much of it
//!                                    ├ picture     all that as the user sees it
//!                                    ├ tokens      what the core still owes an answer to
//!                                    └ upload      answers that wait, if bulk is limited
//! ```
//!
//! # Why it cannot deadlock
//!
//! Both queues are bounded, and the task never waits for one of them alone: it waits for the network, for
//! a command and for room in the event queue at the same time (`service`). A core that waits for room in
//! the command queue therefore always gets it, even when it is not reading events. What does not fit into
//! the event queue is dropped and counted ([`Handle::dropped`]) where the protocols above repair the loss
//! (gossip: anti-entropy; a request: the peer asks again), and is kept where they could not: connections
//! opened and closed, and the outcome of a request. What is kept is bounded too (`outbox`).

mod address;
mod behaviour;
mod bootstrap;
mod codec;
mod key;
mod meter;
mod outbox;
mod peers;
mod picture;
mod rate;
mod reach;
mod relay;
mod route;
mod scale;
mod service;
mod tokens;
mod transport;
mod upload;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use swarm_protocol::identity::PeerKey;
use swarm_protocol::peer::Verdict;
use swarm_protocol::wire;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

#[cfg(feature = "train")]
pub(crate) use address::multiaddr;
pub(crate) use address::{
    is_global, is_loopback as is_on_this_machine, parse_address, peer_id, peer_in, peer_key,
};
pub(crate) use key::NetworkKey;
use meter::Meter;
pub(crate) use picture::Picture;
pub(crate) use rate::{Daily, Rate, amount, parse_bytes};
pub(crate) use scale::{Scale, Watch};

/// Commands waiting for the network task.
const COMMAND_QUEUE: usize = 64;
/// Events waiting for the core.
const EVENT_QUEUE: usize = 256;

/// What a node needs to know to join its swarm's network.
#[derive(Clone)]
pub(crate) struct Config {
    /// The ed25519 seed (RFC 8032 private key) of this device's identity.
    pub(crate) secret: [u8; 32],
    /// The swarm id: it is part of every topic and protocol name.
    pub(crate) swarm_id: [u8; 32],
    /// Addresses to listen on; each must work, or [`start`] fails. None: dial only.
    pub(crate) listen: Vec<Multiaddr>,
    /// Addresses of peers to join through, with or without `/p2p/<peer id>`.
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// Peers met before, tried silently while nobody is connected.
    pub(crate) known: Vec<(PeerId, Vec<Multiaddr>)>,
    /// Whether to look for peers on the local network by multicast DNS (RFC 6762).
    pub(crate) mdns: bool,
    /// The largest gossip payload, in bytes.
    pub(crate) max_gossip: usize,
    /// The largest request, in bytes.
    pub(crate) max_request: usize,
    /// The largest response, in bytes.
    pub(crate) max_response: usize,
    /// How fast bytes may be sent and received.
    pub(crate) limits: Limits,
    /// Whether to pass on bytes for peers that cannot be reached, if this node can.
    pub(crate) relay: bool,
    /// Whether to ask the router to let others in (UPnP).
    pub(crate) upnp: bool,
    /// About how many peers the swarm has; 0 if that is not known.
    pub(crate) peers: usize,
    /// The private network's key, if this is one.
    pub(crate) key: Option<NetworkKey>,
}

/// How fast bytes may be sent and received, of all protocols together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Sent.
    pub(crate) upload: Option<Rate>,
    /// Received.
    pub(crate) download: Option<Rate>,
}

impl Config {
    /// A node of this swarm with the core's limits, no discovery on the local network and no limit of its own.
    pub(crate) fn new(
        secret: [u8; 32],
        swarm_id: [u8; 32],
        listen: Vec<Multiaddr>,
        bootstrap: Vec<Multiaddr>,
    ) -> Self {
        Self {
            secret,
            swarm_id,
            listen,
            bootstrap,
            known: Vec::new(),
            mdns: false,
            max_gossip: wire::MAX_GOSSIP,
            max_request: wire::MAX_REQUEST,
            max_response: wire::MAX_RESPONSE,
            limits: Limits::default(),
            relay: false,
            upnp: false,
            peers: 0,
            key: None,
        }
    }
}

/// What the core asks of the network.
#[derive(Debug)]
pub(crate) enum Command {
    /// Gossip these bytes, at most [`Config::max_gossip`]. A duplicate is silently left out.
    Publish(Vec<u8>),
    /// Judge the payload of an [`Event::Gossip`]. An unknown or forgotten token is ignored.
    Verdict {
        /// The event's token.
        token: u64,
        /// The judgement.
        verdict: Verdict,
    },
    /// Ask a connected peer. Answered by exactly one [`Event::Response`] or [`Event::RequestFailed`] while
    /// at most 64 requests are under way; beyond that the refusal itself may be dropped.
    Request {
        /// The peer to ask.
        peer: PeerKey,
        /// Chosen by the core; comes back with the outcome.
        id: u64,
        /// The request, at most [`Config::max_request`] bytes.
        bytes: Vec<u8>,
    },
    /// Answer an [`Event::Request`]. An unknown or forgotten token is ignored.
    Respond {
        /// The event's token.
        token: u64,
        /// The response, at most [`Config::max_response`] bytes.
        bytes: Vec<u8>,
        /// Whether it is bulk: subject to [`Limits::upload`], it may be sent later or not at all.
        bulk: bool,
    },
    /// Disconnect a peer and refuse it until `duration` has passed.
    Ban {
        /// The peer to refuse.
        peer: PeerKey,
        /// For how long.
        duration: Duration,
        /// Why, for the log.
        reason: String,
    },
    /// From now on, these limits.
    Limit(Limits),
    /// The swarm is of this scale now: as many neighbours and connections.
    Scale(Scale),
    /// Close every connection and end the task.
    Shutdown,
}

/// What the network tells the core.
#[derive(Debug)]
pub(crate) enum Event {
    /// Peers can reach this node here; the address ends in `/p2p/<own peer id>`.
    Listening(Multiaddr),
    /// A peer of this swarm is connected. Once until it is [`Event::Disconnected`].
    Connected {
        /// The peer.
        peer: PeerKey,
    },
    /// The last connection to a peer has closed. A peer that goes and comes back while the core reads no
    /// events is reported as neither.
    Disconnected {
        /// The peer.
        peer: PeerKey,
    },
    /// A peer of this swarm said where it can be reached.
    Met {
        /// The peer.
        peer: PeerId,
        /// Its addresses that are worth dialling.
        addresses: Vec<Multiaddr>,
    },
    /// A peer was disconnected and is refused, for whatever reason.
    Banned {
        /// The peer.
        peer: PeerId,
        /// For how long.
        duration: Duration,
        /// Why, in words.
        reason: String,
    },
    /// A gossip payload that has not been seen in the last ten minutes. The core owes a
    /// [`Command::Verdict`]; of too many unjudged payloads the oldest are ignored.
    Gossip {
        /// Names the payload in the verdict.
        token: u64,
        /// The neighbour that passed it on, not its author.
        source: PeerKey,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// A peer asks. The core owes a [`Command::Respond`] within 10 seconds.
    Request {
        /// Who asks.
        peer: PeerKey,
        /// Names the request in the response.
        token: u64,
        /// The request.
        bytes: Vec<u8>,
    },
    /// The answer to a [`Command::Request`].
    Response {
        /// Who answered.
        peer: PeerKey,
        /// The request's id.
        id: u64,
        /// The response.
        bytes: Vec<u8>,
    },
    /// A [`Command::Request`] got no answer.
    RequestFailed {
        /// Who was asked.
        peer: PeerKey,
        /// The request's id.
        id: u64,
        /// Why, in words.
        reason: String,
    },
    /// A peer that does not belong to this swarm was met, and disconnected. Once a peer.
    OtherSwarm {
        /// The peer.
        peer: PeerKey,
        /// Where it was met.
        address: String,
        /// Its swarm id in hex, or what it calls itself if it is no swarm peer. Its own words, escaped
        /// and cut.
        theirs: String,
    },
    /// A bootstrap address does not work; it will be tried again.
    BootstrapFailed {
        /// The address as given.
        address: Multiaddr,
        /// Why, in words.
        reason: String,
        /// When it is tried next.
        retry_in: Duration,
    },
    /// A bootstrap address works: the peer there is of this swarm.
    BootstrapConnected {
        /// The address as given.
        address: Multiaddr,
    },
    /// A payload was not gossiped: nobody to send it to, every queue full, or too large.
    PublishFailed {
        /// Why, in words.
        reason: String,
    },
    /// The network cannot go on; the task ends.
    Fatal {
        /// Why, in words.
        reason: String,
    },
}

/// Bytes since the start, over all connections and protocols. TCP: everything written to and read from the
/// sockets, encryption and multiplexing included. QUIC: the bytes of its streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Bytes sent.
    pub(crate) sent: u64,
    /// Bytes received.
    pub(crate) received: u64,
}

/// Counters the task writes and the handle reads.
#[derive(Debug)]
struct Counters {
    sent: Meter,
    received: Meter,
    dropped: AtomicU64,
}

impl Counters {
    fn new(now: Instant) -> Self {
        Self { sent: Meter::new(now), received: Meter::new(now), dropped: AtomicU64::new(0) }
    }
}

/// The core's end of the network. Dropping every clone shuts the network down.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    local: PeerId,
    picture: watch::Receiver<Picture>,
}

impl Handle {
    /// This node's peer id, as it stands in `/p2p/<peer id>`.
    pub(crate) fn local_peer_id(&self) -> PeerId {
        self.local
    }

    /// Bytes sent and received so far.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic { sent: self.counters.sent.bytes(), received: self.counters.received.bytes() }
    }

    /// Who is connected how, and how others reach this node.
    pub(crate) fn picture(&self) -> Picture {
        self.picture.borrow().clone()
    }

    /// How many events were dropped because the core did not read them fast enough.
    pub(crate) fn dropped(&self) -> u64 {
        self.counters.dropped.load(Ordering::Relaxed)
    }

    /// Hands a command to the network, waiting for room in the queue (never on the event queue).
    ///
    /// # Errors
    /// The network has stopped.
    pub(crate) async fn send(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(command).await.map_err(|_| anyhow::anyhow!("the network has stopped"))
    }
}

/// Opens the listeners and spawns the task that drives the network, which ends on [`Command::Shutdown`],
/// when every [`Handle`] is dropped, or when the event receiver is dropped.
///
/// # Errors
/// An address cannot be listened on (its port is in use, say), or a limit in `config` is unusable. The
/// message names the address and says what to do.
pub(crate) async fn start(config: Config) -> anyhow::Result<(Handle, mpsc::Receiver<Event>, JoinHandle<()>)> {
    let counters = Arc::new(Counters::new(Instant::now()));
    let (command_sender, command_receiver) = mpsc::channel(COMMAND_QUEUE);
    let (event_sender, event_receiver) = mpsc::channel(EVENT_QUEUE);
    let outbox = outbox::Outbox::new(event_sender, counters.clone());
    let service = service::Service::new(config, command_receiver, outbox, counters.clone())?;
    let (local, picture) = (service.local_peer_id(), service.picture());
    let handle = Handle { commands: command_sender, counters, local, picture };
    Ok((handle, event_receiver, tokio::spawn(service.run())))
}
