//! What the network task knows about ways in and out, as others are to read it: in `status.json`, and as
//! `swarm net` puts it into words.

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::{
    reach::{How, Nat, Reach, Upnp},
    route::Route,
};

/// All of it. Empty before the first moment of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Picture {
    /// Addresses of this machine that it listens at.
    pub(crate) listen: Vec<String>,
    /// All addresses at which others reach it, relays included, each with its peer id.
    pub(crate) reached_at: Vec<String>,
    /// Whether others can open connections to it: `yes`, `no`, `unknown`.
    pub(crate) reachable: String,
    /// The addresses at which they can.
    pub(crate) ways_in: Vec<WayIn>,
    /// An address at which they cannot.
    pub(crate) failed: Option<Failed>,
    /// What the router in between does: `none`, `same port`, `new ports`, `unknown`.
    pub(crate) nat: String,
    /// What others see as this node's address.
    pub(crate) seen_as: Vec<String>,
    /// What the router answered: `off`, `asked`, `mapped`, `no router`, `router not public`.
    pub(crate) upnp: String,
    /// Relays that others can reach it through, or that it has asked.
    pub(crate) relays: Vec<RelayUse>,
    /// Whether it offers to relay for others.
    pub(crate) relays_for_others: bool,
    /// Connected peers of the swarm.
    pub(crate) peers: Vec<Neighbour>,
}

/// An address at which others reach this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WayIn {
    /// The address.
    pub(crate) address: String,
    /// How that is known: `tested`, `upnp`, `used`, `witnessed`.
    pub(crate) how: String,
    /// Who tested it.
    pub(crate) by: Option<String>,
}

/// An address that was tested in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// The address.
    pub(crate) address: String,
    /// Who tested it.
    pub(crate) by: String,
}

/// A relay that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayUse {
    /// Its peer id.
    pub(crate) peer_id: String,
    /// Whether it agreed.
    pub(crate) held: bool,
    /// How long a circuit may last, in seconds, if it says.
    pub(crate) circuit_seconds: Option<u64>,
    /// How much a circuit may carry, in bytes, if it says.
    pub(crate) circuit_bytes: Option<u64>,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Neighbour {
    /// Its peer id.
    pub(crate) peer_id: String,
    /// The ways to it: mostly one.
    pub(crate) routes: Vec<Way>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// `direct` or `relayed`.
    pub(crate) route: String,
    /// The relay, if it is known.
    pub(crate) relay: Option<String>,
    /// `tcp` or `quic`; to the relay, if there is one.
    pub(crate) over: Option<String>,
    /// The version of IP: 4 or 6.
    pub(crate) ip: Option<u8>,
    /// Whether this node opened it.
    pub(crate) outbound: bool,
    /// Where the other end is, as far as this one sees.
    pub(crate) address: String,
    /// How long the last ping took there and back, in milliseconds.
    pub(crate) latency_ms: Option<u32>,
}

impl Way {
    fn of(route: &Route) -> Self {
        let (over, ip) = route.medium();
        Self {
            route: if route.relayed { "relayed" } else { "direct" }.into(),
            relay: route.relay.map(|relay| relay.to_string()),
            over: over.map(str::to_owned),
            ip,
            outbound: route.local.is_none(),
            address: route.remote.to_string(),
            latency_ms: route.latency.map(|latency| u32::try_from(latency.as_millis()).unwrap_or(u32::MAX)),
        }
    }
}

impl Picture {
    /// As things stand. `relays`: whether this node may relay for others.
    pub(super) fn of<'a, R: Iterator<Item = &'a Route>>(
        listen: impl Iterator<Item = &'a Multiaddr>,
        reached_at: impl Iterator<Item = Multiaddr>,
        reach: &Reach,
        relays: bool,
        members: impl Iterator<Item = (&'a PeerId, R)>,
    ) -> Self {
        let mut listen: Vec<String> = listen.map(Multiaddr::to_string).collect();
        listen.sort_unstable();
        let mut reached_at: Vec<String> = reached_at.map(|address| address.to_string()).collect();
        reached_at.sort_unstable();
        let mut peers: Vec<Neighbour> = members
            .map(|(peer, routes)| Neighbour {
                peer_id: peer.to_string(),
                routes: routes.map(Way::of).collect(),
            })
            .collect();
        peers.sort_unstable_by(|a, b| a.peer_id.cmp(&b.peer_id));
        let reachable = match (reach.is_reachable(), reach.failed()) {
            (true, _) => "yes",
            (false, Some(_)) => "no",
            (false, None) => "unknown",
        };
        let way_in = |(address, how): &(Multiaddr, How)| WayIn {
            address: address.to_string(),
            how: match how {
                How::Tested(_) => "tested",
                How::Upnp => "upnp",
                How::Used => "used",
                How::Witnessed => "witnessed",
            }
            .into(),
            by: match how {
                How::Tested(by) => Some(by.to_string()),
                _ => None,
            },
        };
        Self {
            listen,
            reached_at,
            reachable: reachable.into(),
            ways_in: reach.known().iter().map(way_in).collect(),
            failed: reach
                .failed()
                .map(|(address, by)| Failed { address: address.to_string(), by: by.to_string() }),
            nat: match reach.nat() {
                Nat::Unknown => "unknown",
                Nat::None => "none",
                Nat::SamePort => "same port",
                Nat::NewPorts => "new ports",
            }
            .into(),
            seen_as: reach.seen_as(),
            upnp: match reach.upnp() {
                Upnp::Off => "off",
                Upnp::Asked => "asked",
                Upnp::Mapped => "mapped",
                Upnp::NoRouter => "no router",
                Upnp::RouterNotPublic => "router not public",
            }
            .into(),
            relays: reach
                .relays()
                .iter()
                .map(|relay| RelayUse {
                    peer_id: relay.peer.to_string(),
                    held: relay.held.is_some(),
                    circuit_seconds: relay.limit.0.map(|time| time.as_secs()),
                    circuit_bytes: relay.limit.1,
                })
                .collect(),
            relays_for_others: relays && reach.is_reachable(),
            peers,
        }
    }
}
