//! Identities and addresses: ed25519 keys, libp2p peer ids, multiaddresses, and what went wrong with them in
//! words a user can act on.
//!
//! A peer id of an ed25519 key is the key itself, wrapped in the identity multihash
//! (<https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>), so key and peer id turn into each
//! other without asking anyone.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, anyhow};
use libp2p::{Multiaddr, PeerId, TransportError, dns, identity, multiaddr::Protocol, swarm::DialError};

use swarm_protocol::identity::PeerKey;

/// The multihash code of "the digest is the data itself".
const IDENTITY_MULTIHASH: u64 = 0;

/// The libp2p keypair of an ed25519 seed.
pub(super) fn keypair(mut seed: [u8; 32]) -> anyhow::Result<identity::Keypair> {
    identity::Keypair::ed25519_from_bytes(&mut seed).context("the identity's seed is no ed25519 key")
}

/// The ed25519 key a peer id holds, or `None` if it is of another kind of key.
pub(crate) fn peer_key(peer: &PeerId) -> Option<PeerKey> {
    let hash = peer.as_ref();
    if hash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(PeerKey(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The peer id of an ed25519 key, or `None` if the bytes are no point of the curve.
pub(crate) fn peer_id(key: &PeerKey) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// Parses an address a user typed.
///
/// # Errors
/// Says what is wrong and shows an address that would work, unless `text` is a TCP or QUIC address, with or
/// without a `/p2p/<peer id>` at its end, or one through a relay: the relay's, with its peer id, then
/// `/p2p-circuit/p2p/<peer id>`.
pub(crate) fn parse_address(text: &str) -> anyhow::Result<Multiaddr> {
    const EXAMPLE: &str = "expected e.g. /ip4/192.168.1.7/tcp/4001, /dns/example.org/tcp/4001 or \
                           /ip4/192.168.1.7/udp/4001/quic-v1, with or without /p2p/<peer id> at the end";
    let text = text.trim();
    let address: Multiaddr =
        text.parse().map_err(|error| anyhow!("'{text}' is not an address ({error}); {EXAMPLE}"))?;
    if endpoint(&address).is_none() {
        return Err(anyhow!("'{text}' is not an address this program can use; {EXAMPLE}"));
    }
    Ok(address)
}

/// Where a connection goes: a host and how to reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `None` for a name that is yet to be resolved.
    pub(super) ip: Option<IpAddr>,
    /// The port.
    pub(super) port: u16,
    /// TCP, or else QUIC.
    pub(super) tcp: bool,
    /// These are the relay's, and the connection goes on from there.
    pub(super) relayed: bool,
}

/// Reads an address of the forms this node dials and listens on; `None` for any other.
pub(super) fn endpoint(address: &Multiaddr) -> Option<Endpoint> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => None,
        _ => return None,
    };
    let (port, tcp) = match parts.next()? {
        Protocol::Tcp(port) => (port, true),
        Protocol::Udp(port) if parts.next()? == Protocol::QuicV1 => (port, false),
        _ => return None,
    };
    let relayed = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None, None, None) => false,
        (Some(Protocol::P2p(_)), Some(Protocol::P2pCircuit), Some(Protocol::P2p(_)), None) => true,
        _ => return None,
    };
    Some(Endpoint { ip, port, tcp, relayed })
}

/// Whether an address leads, or a connection led, through a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The relay that an address leads through.
pub(super) fn relay_in(address: &Multiaddr) -> Option<PeerId> {
    let mut relay = None;
    for part in address {
        match part {
            Protocol::P2p(peer) => relay = Some(peer),
            Protocol::P2pCircuit => return relay,
            _ => {}
        }
    }
    None
}

/// Whether packets from anywhere in the world find this address: it is none of a private network, of this link or
/// machine, or of a provider's own NAT (RFC 1918, 3927, 4193, 4291, 6598).
pub(crate) fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            !(first == 0
                || first >= 224
                || shared
                || ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_global(&IpAddr::V4(ip)),
            None => {
                !(ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local())
            }
        },
    }
}

/// Whether an address leads out of the local network, as far as can be told without resolving its name.
pub(super) fn is_far(address: &Multiaddr) -> bool {
    endpoint(address).is_some_and(|there| there.ip.is_none_or(|ip| is_global(&ip)))
}

/// The address of a direct connection, if packets from anywhere find it, without a peer id at its end.
pub(super) fn global(address: &Multiaddr) -> Option<(IpAddr, Multiaddr)> {
    let Endpoint { ip: Some(ip), port, relayed: false, .. } = endpoint(address)? else { return None };
    let bare = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    (port != 0 && is_global(&ip)).then_some((ip, bare))
}

/// Whether an address a peer gave as its own is worth telling others and dialling. A loopback address is
/// worth something only to a peer on the same machine.
pub(super) fn is_dialable(address: &Multiaddr, same_machine: bool) -> bool {
    let Some(Endpoint { ip, port, .. }) = endpoint(address) else { return false };
    port != 0
        && ip.is_none_or(|ip| {
            !ip.is_unspecified() && !ip.is_multicast() && (same_machine || !ip.is_loopback())
        })
}

/// The address that these bytes are, if it is one that this program can use: bytes of an invite.
#[cfg(feature = "train")]
pub(crate) fn multiaddr(bytes: &[u8]) -> Option<Multiaddr> {
    Multiaddr::try_from(bytes.to_vec()).ok().filter(|address| endpoint(address).is_some())
}

/// Whether an address is of this machine itself.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    matches!(endpoint(address), Some(Endpoint { ip: Some(ip), relayed: false, .. }) if ip.is_loopback())
}

/// The peer id at the end of an address.
pub(crate) fn peer_in(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Fails if another process listens on the TCP port.
///
/// libp2p binds its TCP listeners with `SO_REUSEPORT` so that it can dial from the same port; two processes
/// of one user would then share a port silently, each getting some of the connections. A bind without the
/// option tells.
pub(super) fn probe(address: &Multiaddr) -> anyhow::Result<()> {
    if is_relayed(address) {
        return Err(anyhow!(
            "cannot listen on {address}: relays are chosen by the node itself when it needs one; choose an address \
             of this machine with --listen"
        ));
    }
    let Some(Endpoint { ip: Some(ip), port, tcp: true, .. }) = endpoint(address) else { return Ok(()) };
    if port == 0 {
        return Ok(());
    }
    match std::net::TcpListener::bind(SocketAddr::new(ip, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(listen_error(address, &error)),
    }
}

/// Why libp2p refuses to listen on an address, and what to do.
pub(super) fn listen_refused(address: &Multiaddr, error: &TransportError<io::Error>) -> anyhow::Error {
    match error {
        TransportError::Other(error) => listen_error(address, error),
        TransportError::MultiaddrNotSupported(_) => {
            anyhow!("cannot listen on {address}: {NOT_SUPPORTED}; choose another address with --listen")
        }
    }
}

fn listen_error(address: &Multiaddr, error: &io::Error) -> anyhow::Error {
    let why = match io_kind(error) {
        Some(io::ErrorKind::AddrInUse) => "address already in use; choose another port with --listen".into(),
        Some(io::ErrorKind::AddrNotAvailable) => {
            "this machine has no such address; choose another with --listen".into()
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "permission denied; choose a port above 1023 with --listen".into()
        }
        _ => words(error),
    };
    anyhow!("cannot listen on {address}: {why}")
}

/// Why a dial failed, in words.
pub(super) fn dial_error(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, .. } => format!(
            "the peer there is {obtained}, not the one named after /p2p/; correct that part of the address"
        ),
        DialError::LocalPeerId { .. } => "this is the node itself".into(),
        DialError::NoAddresses => "no address is known".into(),
        DialError::Aborted => "the attempt was given up".into(),
        DialError::DialPeerConditionFalse(_) => "another attempt is under way".into(),
        DialError::Denied { cause } => format!("not allowed from here: {}", words(cause)),
        DialError::Transport(errors) => match errors.last() {
            Some((_, TransportError::MultiaddrNotSupported(_))) => NOT_SUPPORTED.into(),
            Some((_, TransportError::Other(error))) => transport_error(error),
            None => "no reason given".into(),
        },
    }
}

fn transport_error(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(error) => dns_error(error),
        None => connection_error(error),
    }
}

fn dns_error(error: &dns::Error<io::Error>) -> String {
    match error {
        dns::Error::Transport(error) => connection_error(error),
        dns::Error::ResolveError(error) => format!("cannot resolve the name ({})", words(error)),
        dns::Error::TooManyLookups => "cannot resolve the name (too many lookups)".into(),
        dns::Error::MultiaddrNotSupported(_) => NOT_SUPPORTED.into(),
        dns::Error::Dial(errors) => match errors.last() {
            Some(error) => dns_error(error),
            None => words(error),
        },
    }
}

fn connection_error(error: &io::Error) -> String {
    let words = words(error);
    // QUIC's timeout is no `io::Error` inside; its words are all there is.
    let says = |text: &str| words.to_lowercase().contains(text);
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => REFUSED.into(),
        Some(io::ErrorKind::TimedOut) => TIMED_OUT.into(),
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => UNREACHABLE.into(),
        _ if says("timed out") || says("timeout") => TIMED_OUT.into(),
        _ => words,
    }
}

const NOT_SUPPORTED: &str = "neither TCP nor QUIC, expected e.g. /ip4/192.168.1.7/tcp/4001";
const REFUSED: &str = "connection refused: nothing listens there, or a firewall is in the way";
const TIMED_OUT: &str = "timed out: no answer from there";
const UNREACHABLE: &str = "unreachable from this network";

/// The kind of the first I/O error inside `error` that has one.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // libp2p's layers wrap errors in `io::Error::other`, whose `source` skips what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::Other) | None => {}
            kind => return kind,
        }
        cause = wrapped.map(|error| error as _).or_else(|| error.source());
    }
    // Some layers hand on the causes of an I/O error but not the error itself. Its words they keep, and those
    // end in the system's number for it.
    let words = words(error);
    let number = words.split_once("(os error ")?.1.split_once(')')?.0;
    Some(io::Error::from_raw_os_error(number.parse().ok()?).kind())
}

/// An error and its causes in one line, each said once.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_peer_ids_turn_into_each_other() {
        // RFC 8032, section 7.1, test 1: seed and public key.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |hex: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        };
        let peer = keypair(bytes(seed)).unwrap().public().to_peer_id();
        assert_eq!(peer_key(&peer), Some(PeerKey(bytes(public))));
        assert_eq!(peer_id(&PeerKey(bytes(public))), Some(peer));
        // A digest that holds no key, and bytes that are no point of the curve (y = 2 has no x).
        assert_eq!(peer_key(&PeerId::random()), None);
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert_eq!(peer_id(&PeerKey(off_curve)), None);
    }

    #[test]
    fn a_mistyped_address_is_answered_with_an_example() {
        for text in [
            "",
            "192.168.1.7:4001",
            "/ip4/192.168.1.7",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/1.2.3.4/tcp/x",
            "/ip4/1.2.3.4/tcp/1/ws",
            "/p2p-circuit",
            &format!("/ip4/1.2.3.4/tcp/1/p2p-circuit/p2p/{}", PeerId::random()),
            &format!("/ip4/1.2.3.4/tcp/1/p2p/{}/p2p-circuit", PeerId::random()),
        ] {
            let error = parse_address(text).unwrap_err().to_string();
            assert!(error.contains("/ip4/192.168.1.7/tcp/4001"), "{error}");
            assert!(error.contains(text), "{error}");
        }
        let peer = PeerId::random();
        for text in [
            "/ip4/192.168.1.7/tcp/4001",
            " /ip6/::1/udp/9/quic-v1\n",
            "/dns/example.org/tcp/4001",
            &format!("/ip4/1.2.3.4/tcp/1/p2p/{peer}"),
            &format!("/dns/example.org/udp/1/quic-v1/p2p/{peer}/p2p-circuit/p2p/{}", PeerId::random()),
        ] {
            assert_eq!(parse_address(text).unwrap().to_string(), text.trim());
        }
    }

    #[test]
    fn only_useful_addresses_are_passed_on() {
        let dialable = |text: &str, same| is_dialable(&text.parse().unwrap(), same);
        assert!(dialable("/ip4/10.0.0.1/tcp/1", false));
        assert!(dialable("/ip4/127.0.0.1/tcp/1", true));
        assert!(!dialable("/ip4/127.0.0.1/tcp/1", false));
        assert!(!dialable("/ip6/::1/udp/5/quic-v1", false));
        assert!(!dialable("/ip4/10.0.0.1/tcp/0", true));
        assert!(!dialable("/ip4/0.0.0.0/tcp/1", true));
        assert!(!dialable("/ip4/224.0.0.251/tcp/1", true));
        assert!(!dialable("/ip4/10.0.0.1/tcp/1/ws", true));
        let relayed = |relay| format!("{relay}/p2p/{0}/p2p-circuit/p2p/{0}", PeerId::random());
        assert!(dialable(&relayed("/ip4/1.2.3.4/tcp/1"), false));
        assert!(!dialable(&relayed("/ip4/127.0.0.1/tcp/1"), false));
    }

    #[test]
    fn whoever_is_behind_a_relay_is_not_where_the_relay_is() {
        let relay = PeerId::random();
        let there: Multiaddr =
            format!("/ip4/127.0.0.1/tcp/1/p2p/{relay}/p2p-circuit/p2p/{}", PeerId::random()).parse().unwrap();
        assert!(is_relayed(&there) && !is_loopback(&there));
        assert_eq!(relay_in(&there), Some(relay));
        assert_eq!(relay_in(&format!("/ip4/127.0.0.1/tcp/1/p2p/{relay}").parse().unwrap()), None);
        assert!(probe(&there).unwrap_err().to_string().contains("choose an address of this machine"));
    }

    #[test]
    fn addresses_of_private_networks_are_not_global() {
        for (text, expected) in [
            ("/ip4/198.51.100.7/tcp/4001", true),
            ("/ip4/172.32.0.1/udp/4001/quic-v1", true),
            ("/ip4/100.128.0.1/tcp/1", true),
            ("/ip6/2001:db8::1/tcp/1", true),
            ("/ip4/10.1.2.3/tcp/1", false),
            ("/ip4/172.31.0.1/tcp/1", false),
            ("/ip4/192.168.1.7/tcp/1", false),
            ("/ip4/100.64.0.1/tcp/1", false),
            ("/ip4/169.254.1.1/tcp/1", false),
            ("/ip4/127.0.0.1/tcp/1", false),
            ("/ip4/0.0.0.0/tcp/1", false),
            ("/ip4/255.255.255.255/tcp/1", false),
            ("/ip6/::1/tcp/1", false),
            ("/ip6/fe80::1/tcp/1", false),
            ("/ip6/fd00::1/tcp/1", false),
            ("/ip6/::ffff:10.0.0.1/tcp/1", false),
            ("/ip4/198.51.100.7/tcp/0", false),
            ("/dns/example.org/tcp/1", false),
        ] {
            assert_eq!(global(&text.parse().unwrap()).is_some(), expected, "{text}");
        }
        let named: Multiaddr = format!("/ip4/1.2.3.4/tcp/1/p2p/{}", PeerId::random()).parse().unwrap();
        assert_eq!(global(&named).unwrap().1, "/ip4/1.2.3.4/tcp/1".parse().unwrap());
    }

    #[test]
    fn a_cause_is_found_through_wrapped_errors() {
        let refused = io::Error::other(io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(io_kind(&refused), Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(transport_error(&refused), REFUSED);
        assert_eq!(io_kind(&io::Error::other("text")), None);
        assert_eq!(transport_error(&io::Error::other("Handshake with the remote timed out.")), TIMED_OUT);
        assert_eq!(transport_error(&io::Error::other("odd")), "odd");
        // 1 is EPERM on every Unix.
        #[cfg(unix)]
        assert_eq!(
            io_kind(&io::Error::other("x: Not allowed (os error 1)")),
            Some(io::ErrorKind::PermissionDenied)
        );
    }
}
