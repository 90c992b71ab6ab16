//! What the network knows, in words for somebody who has a router and no interest in it.

use std::fmt::Write;

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::net::{Picture, is_global};

/// All of it: where it listens, whether others come in, relays, peers, and what to do.
pub(super) fn explain(picture: &Picture) -> String {
    let mut text = String::new();
    for paragraph in
        [listening(picture), reachable(picture), router(picture), relays(picture), peers(picture)]
    {
        text.push_str(&paragraph);
    }
    text.push_str("\nWhat to do: ");
    text.push_str(&advice(picture));
    text.push('\n');
    text
}

fn listening(picture: &Picture) -> String {
    if picture.listen.is_empty() {
        return "Listening nowhere: this node opens connections, and nobody can open one to it.\n".into();
    }
    let mut text = "Listening at\n".to_owned();
    for address in &picture.listen {
        let _ = writeln!(text, "  {address}");
    }
    text
}

fn reachable(picture: &Picture) -> String {
    let mut text = String::new();
    for way in &picture.ways_in {
        let known = match (way.how.as_str(), &way.by) {
            ("tested", Some(by)) => format!("peer {by} tried it, and came through"),
            ("upnp", _) => "the router was asked to let others in there, and agreed".into(),
            ("used", _) => "others have come in there".into(),
            _ => "others have come in there, from two different places".into(),
        };
        let _ = writeln!(text, "Reachable from outside at {}: {known}.", way.address);
    }
    if !text.is_empty() {
        return text;
    }
    match &picture.failed {
        Some(failed) => format!(
            "Not reachable from outside: peer {} tried {} and did not come through.\n",
            failed.by, failed.address
        ),
        None if !has_far_peers(picture) => {
            "Not known whether it can be reached from outside the local network: nobody \
                                            from there is connected.\n"
                .into()
        }
        None => {
            "Not known yet whether it can be reached from outside: finding out takes up to half a minute.\n"
                .into()
        }
    }
}

fn router(picture: &Picture) -> String {
    let mut text = match picture.nat.as_str() {
        "none" => "No router in between translates addresses.\n",
        "same port" => {
            "A router in between translates addresses, and keeps to one port: direct connections can be opened from \
             inside.\n"
        }
        "new ports" => {
            "A router in between translates addresses, and takes another port for every connection: to peers behind \
             such routers no direct connection can be opened from inside.\n"
        }
        _ if picture.seen_as.is_empty() => "",
        _ => "A router in between translates addresses; of what kind it is too few peers have seen.\n",
    }
    .to_owned();
    if picture.nat != "none" && !picture.seen_as.is_empty() {
        let _ = writeln!(text, "Others see it as {}.", picture.seen_as.join(" and "));
    }
    text.push_str(match picture.upnp.as_str() {
        "mapped" => "UPnP: the router lets others in.\n",
        "no router" => "UPnP: no router on this network answers; most can be told to in their settings.\n",
        "router not public" => {
            "UPnP: the router answers, but is itself behind another one (the provider's, perhaps), so it cannot help.\n"
        }
        "asked" => "UPnP: no answer from a router yet.\n",
        _ => "UPnP: not asked.\n",
    });
    text
}

fn relays(picture: &Picture) -> String {
    let mut text = String::new();
    for relay in &picture.relays {
        if !relay.held {
            let _ = writeln!(text, "Relay: {} was asked and has not answered yet.", relay.peer_id);
            continue;
        }
        let time = relay.circuit_seconds.map(|seconds| format!("{} min", seconds.div_ceil(60)));
        let bytes = relay.circuit_bytes.map(|bytes| format!("{} MB", bytes / 1_000_000));
        let limits: Vec<String> = time.into_iter().chain(bytes).collect();
        let limits = match limits.is_empty() {
            true => "without a limit that it tells".into(),
            false => format!("for {} at most; then the connection is opened anew", limits.join(" and ")),
        };
        let _ = writeln!(text, "Relay: others reach it through {}, {limits}.", relay.peer_id);
    }
    if picture.relays_for_others {
        text.push_str("It relays for peers that cannot reach each other (--no-relay: it does not).\n");
    }
    text
}

fn peers(picture: &Picture) -> String {
    if picture.peers.is_empty() {
        return "Connected to nobody.\n".into();
    }
    let mut text = format!("Connected to {}\n", plural(picture.peers.len(), "peer"));
    for peer in &picture.peers {
        for way in &peer.routes {
            let over = match way.over.as_deref() {
                Some("quic") => "QUIC",
                Some(_) => "TCP",
                None => "an unknown protocol",
            };
            let ip = way.ip.map(|ip| format!(" over IPv{ip}")).unwrap_or_default();
            let opened = if way.outbound { "opened by this node" } else { "opened by the peer" };
            let route = match (way.route.as_str(), &way.relay) {
                ("direct", _) => format!("directly, {over}{ip}, {opened}, at {}", way.address),
                (_, Some(relay)) => format!("through relay {relay}, {over}{ip}, {opened}"),
                (_, None) => format!("through a relay, {over}{ip}, {opened}"),
            };
            let _ = writeln!(text, "  {}: {route}", peer.peer_id);
        }
    }
    text
}

fn advice(picture: &Picture) -> String {
    let relayed = picture.relays.iter().any(|relay| relay.held);
    if picture.listen.is_empty() {
        return "start the node with --listen /ip4/0.0.0.0/tcp/4001.".into();
    }
    if !picture.ways_in.is_empty() {
        return "nothing. Others can name this node's address to join.".into();
    }
    if picture.peers.is_empty() {
        return "name the address of a peer with --bootstrap, and see that it runs.".into();
    }
    if picture.failed.is_none() && !has_far_peers(picture) {
        return "nothing, as long as all peers are on this network. For others, open a port as the README says under \
                \"Behind a router\"."
            .into();
    }
    let works = match (relayed, picture.nat.as_str()) {
        (true, "new ports") => {
            "nothing has to be done: who cannot reach this node directly goes through the relay. Without it,"
        }
        (true, _) => {
            "nothing has to be done: others find it through the relay, and most go on directly from there. To do \
             without it,"
        }
        (false, _) if picture.failed.is_none() => "wait half a minute and ask again. If it stays like this,",
        (false, _) => {
            "no peer relays for this node, so peers behind routers of their own cannot reach it; who is reachable still \
             works. A swarm needs one reachable node, such as `swarm bootstrap` on a rented machine. Or"
        }
    };
    format!("{works} {}", forward(picture))
}

/// How to let others in by hand.
fn forward(picture: &Picture) -> String {
    let mut ports: Vec<String> = Vec::new();
    let mut machine = None;
    for address in picture.listen.iter().filter_map(|address| address.parse::<Multiaddr>().ok()) {
        let mut parts = address.iter();
        // IPv6 has no forwarding, and what answers at a loopback address is not asked from outside.
        let Some(Protocol::Ip4(ip)) =
            parts.next().filter(|part| !matches!(part, Protocol::Ip4(ip) if ip.is_loopback()))
        else {
            continue;
        };
        let port = match parts.next() {
            Some(Protocol::Tcp(port)) => format!("TCP port {port}"),
            Some(Protocol::Udp(port)) => format!("UDP port {port}"),
            _ => continue,
        };
        machine.get_or_insert(ip);
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let Some(machine) = machine else {
        return "let the router pass on what comes for the addresses above.".into();
    };
    format!(
        "switch UPnP on in the router, or let it forward {} to this machine ({machine}), and start the node with \
         --listen and the same port every time.",
        ports.join(" and ")
    )
}

/// Whether anybody from outside the local network is connected.
fn has_far_peers(picture: &Picture) -> bool {
    let ways = picture.peers.iter().flat_map(|peer| &peer.routes);
    ways.into_iter().any(|way| way.route == "relayed" || is_far(&way.address))
}

fn is_far(address: &str) -> bool {
    let Ok(address) = address.parse::<Multiaddr>() else { return false };
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => is_global(&ip.into()),
        Protocol::Ip6(ip) => is_global(&ip.into()),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => true,
        _ => false,
    })
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A node behind a router that nobody has tested yet, with `change` made to it.
    fn with(change: Value) -> String {
        let mut picture = json!({
            "listen": ["/ip4/127.0.0.1/tcp/4001", "/ip4/192.168.1.2/tcp/4001", "/ip4/192.168.1.2/udp/4001/quic-v1"],
            "reached_at": [],
            "reachable": "unknown",
            "ways_in": [],
            "failed": null,
            "nat": "unknown",
            "seen_as": ["/ip4/198.51.100.10/tcp/4001"],
            "upnp": "no router",
            "relays": [],
            "relays_for_others": false,
            "peers": [{"peer_id": "P1", "routes": [{"route": "direct", "relay": null, "over": "tcp", "ip": 4,
                "outbound": true, "address": "/ip4/198.51.100.1/tcp/4001"}]}],
        });
        for (key, value) in change.as_object().unwrap() {
            assert!(picture.get(key).is_some(), "no {key} in a picture");
            picture[key] = value.clone();
        }
        explain(&serde_json::from_value(picture).unwrap())
    }

    #[test]
    fn a_node_behind_a_router_with_a_relay_is_told_all_of_it() {
        let text = with(json!({
            "failed": {"address": "/ip4/198.51.100.10/tcp/4001", "by": "P1"},
            "nat": "same port",
            "relays": [{"peer_id": "P1", "held": true, "circuit_seconds": 3600, "circuit_bytes": 536870912u64}],
            "peers": [
                {"peer_id": "P1", "routes": [{"route": "direct", "relay": null, "over": "tcp", "ip": 4,
                    "outbound": true, "address": "/ip4/198.51.100.1/tcp/4001"}]},
                {"peer_id": "P2", "routes": [{"route": "relayed", "relay": "P1", "over": "quic", "ip": 6,
                    "outbound": false, "address": "/p2p/P2"}]},
            ],
        }));
        let expected = "\
Listening at
  /ip4/127.0.0.1/tcp/4001
  /ip4/192.168.1.2/tcp/4001
  /ip4/192.168.1.2/udp/4001/quic-v1
Not reachable from outside: peer P1 tried /ip4/198.51.100.10/tcp/4001 and did not come through.
A router in between translates addresses, and keeps to one port: direct connections can be opened from inside.
Others see it as /ip4/198.51.100.10/tcp/4001.
UPnP: no router on this network answers; most can be told to in their settings.
Relay: others reach it through P1, for 60 min and 536 MB at most; then the connection is opened anew.
Connected to 2 peers
  P1: directly, TCP over IPv4, opened by this node, at /ip4/198.51.100.1/tcp/4001
  P2: through relay P1, QUIC over IPv6, opened by the peer

What to do: nothing has to be done: others find it through the relay, and most go on directly from there. To do \
without it, switch UPnP on in the router, or let it forward TCP port 4001 and UDP port 4001 to this machine \
(192.168.1.2), and start the node with --listen and the same port every time.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_reachable_node_has_nothing_to_do_and_is_told_how_that_is_known() {
        for (how, words) in [
            (json!({"how": "tested", "by": "P9"}), "peer P9 tried it, and came through"),
            (json!({"how": "upnp", "by": null}), "the router was asked to let others in there, and agreed"),
            (json!({"how": "used", "by": null}), "others have come in there."),
            (json!({"how": "witnessed", "by": null}), "from two different places"),
        ] {
            let mut way = how;
            way["address"] = "/ip4/198.51.100.10/tcp/4001".into();
            let text = with(json!({"ways_in": [way], "upnp": "mapped", "relays_for_others": true}));
            assert!(text.contains("Reachable from outside at /ip4/198.51.100.10/tcp/4001: "), "{text}");
            assert!(text.contains(words), "{text}");
            assert!(text.contains("What to do: nothing. Others can name this node's address"), "{text}");
            assert!(text.contains("It relays for peers that cannot reach each other"), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let local = json!([{"peer_id": "P1", "routes": [{"route": "direct", "relay": null, "over": "tcp", "ip": 4,
            "outbound": true, "address": "/ip4/192.168.1.3/tcp/4001"}]}]);
        let text = with(json!({"peers": local, "seen_as": []}));
        assert!(text.contains("nobody from there is connected"), "{text}");
        assert!(text.contains("What to do: nothing, as long as all peers are on this network"), "{text}");
        assert!(!text.contains("A router in between"), "{text}");
        let text = with(json!({}));
        assert!(text.contains("finding out takes up to half a minute"), "{text}");
        assert!(text.contains("too few peers have seen"), "{text}");
        assert!(text.contains("What to do: wait half a minute"), "{text}");
        let text = with(json!({"peers": [], "seen_as": []}));
        assert!(text.contains("Connected to nobody") && text.contains("with --bootstrap"), "{text}");
    }

    #[test]
    fn without_a_relay_the_swarm_is_said_to_need_a_reachable_node() {
        let text = with(json!({
            "failed": {"address": "/ip4/198.51.100.10/tcp/4001", "by": "P1"},
            "nat": "new ports",
            "upnp": "router not public",
        }));
        for words in [
            "takes another port for every connection",
            "`swarm bootstrap` on a rented machine",
            "behind another one",
        ] {
            assert!(text.contains(words), "'{words}' is not in\n{text}");
        }
        let text = with(json!({
            "failed": {"address": "/ip6/2001:db8::1/tcp/4001", "by": "P1"},
            "listen": ["/ip6/2001:db8::1/tcp/4001", "/ip6/::1/tcp/4001"],
        }));
        assert!(text.contains("pass on what comes for the addresses above"), "{text}");
        let text = with(json!({"listen": []}));
        assert!(
            text.contains("Listening nowhere") && text.contains("--listen /ip4/0.0.0.0/tcp/4001"),
            "{text}"
        );
    }
}
