//! How a connection goes: over what, through whom, and who opened it.

use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, transport::PortUse},
    multiaddr::Protocol,
};

use super::address::{self, Endpoint};

/// One connection's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Where the other end is, as far as this one sees.
    pub(super) remote: Multiaddr,
    /// Where the other end came to, if it opened the connection.
    pub(super) local: Option<Multiaddr>,
    /// Both ends reach only a relay, which passes on what they say.
    pub(super) relayed: bool,
    /// The relay, if its name is known.
    pub(super) relay: Option<PeerId>,
    /// It was opened from the port at which this node listens.
    pub(super) from_listening_port: bool,
    /// How long the last ping took there and back.
    pub(super) latency: Option<Duration>,
}

impl Route {
    /// The way of an established connection.
    pub(super) fn of(point: &ConnectedPoint) -> Self {
        match point {
            ConnectedPoint::Dialer { address, port_use, .. } => Self {
                remote: address.clone(),
                local: None,
                relayed: address::is_relayed(address),
                relay: address::relay_in(address),
                from_listening_port: *port_use == PortUse::Reuse,
                latency: None,
            },
            ConnectedPoint::Listener { local_addr, send_back_addr } => Self {
                remote: send_back_addr.clone(),
                local: Some(local_addr.clone()),
                relayed: address::is_relayed(local_addr),
                relay: address::relay_in(local_addr),
                from_listening_port: true,
                latency: None,
            },
        }
    }

    /// Where this end meets the relay, or the other end: without peer ids, and without what follows the relay.
    pub(super) fn near(&self) -> Multiaddr {
        let seen = self.local.as_ref().filter(|_| self.relayed).unwrap_or(&self.remote);
        seen.iter().take_while(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit)).collect()
    }

    /// TCP or QUIC, and the version of IP: to the other end, or to the relay.
    pub(super) fn medium(&self) -> (Option<&'static str>, Option<u8>) {
        match address::endpoint(&self.near()) {
            Some(Endpoint { ip, tcp, .. }) => {
                (Some(if tcp { "tcp" } else { "quic" }), ip.map(|ip| if ip.is_ipv4() { 4 } else { 6 }))
            }
            None => (None, None),
        }
    }
}

#[cfg(test)]
impl From<&str> for Route {
    /// A direct connection that this end opened to there.
    fn from(remote: &str) -> Self {
        Self {
            remote: remote.parse().unwrap(),
            local: None,
            relayed: false,
            relay: None,
            from_listening_port: false,
            latency: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::Endpoint;

    #[test]
    fn a_route_says_what_it_goes_over_and_through_whom_from_both_ends() {
        let relay = PeerId::random();
        let there = PeerId::random();
        let circuit: Multiaddr =
            format!("/ip6/2001:db8::1/udp/1/quic-v1/p2p/{relay}/p2p-circuit").parse().unwrap();
        let near = Route::of(&ConnectedPoint::Listener {
            local_addr: circuit.clone(),
            send_back_addr: format!("/p2p/{there}").parse().unwrap(),
        });
        assert_eq!((near.relayed, near.relay, near.medium()), (true, Some(relay), (Some("quic"), Some(6))));
        let far = Route::of(&ConnectedPoint::Dialer {
            address: circuit.with(Protocol::P2p(there)),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        });
        assert_eq!((far.relayed, far.relay, far.medium()), (true, Some(relay), (Some("quic"), Some(6))));
        assert_eq!(near.near(), far.near());
        let direct = Route::from("/ip4/10.0.0.1/tcp/7");
        assert_eq!((direct.relayed, direct.relay, direct.medium()), (false, None, (Some("tcp"), Some(4))));
    }
}
