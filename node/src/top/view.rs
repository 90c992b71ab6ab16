//! What is shown of a node: numbers, and texts that are safe to print.
//!
//! Both files are read as loosely as can be: a key that is missing, of another type or out of all bounds leaves its
//! place empty, so that a node of another version can be watched, too.

use std::sync::Arc;

use serde_json::Value;

use super::past::Past;
use super::text::clean;

/// Characters of a name, a word, a line.
const NAME: usize = 80;
const LINE: usize = 400;
/// Peers that are listed.
const PEERS: usize = 1000;

/// Whether the node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Running {
    /// No node has written anything here yet.
    #[default]
    Never,
    /// It does.
    Yes,
    /// It does not, for so many seconds.
    Not(f64),
}

/// All that is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(super) running: Running,
    pub(super) phase: String,
    pub(super) detail: String,
    pub(super) name: String,
    pub(super) model: String,
    pub(super) parameters: Option<u64>,
    pub(super) version: String,
    pub(super) peer_id: String,
    pub(super) round: u64,
    pub(super) target: Option<u64>,
    pub(super) loss: Option<f64>,
    pub(super) tokens: u64,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) past: Arc<Past>,
    /// Connected peers, and about how many the swarm has.
    pub(super) neighbours: u64,
    pub(super) estimated: Option<u64>,
    pub(super) peers: Vec<Peer>,
    pub(super) agreement: Option<Agreement>,
    pub(super) state_digest: String,
    pub(super) sent: Flow,
    pub(super) received: Flow,
    /// Bits that a coefficient of the last own delta took, and what they take at least.
    pub(super) bits: Option<f64>,
    pub(super) bound: Option<f64>,
    /// The governor's word; `None` if the node does not train.
    pub(super) guest: Option<Guest>,
    /// The newest lines of the log.
    pub(super) log: Vec<String>,
    /// What cannot be read at present.
    pub(super) trouble: Option<String>,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Peer {
    pub(super) id: String,
    /// Round trip, in milliseconds.
    pub(super) latency: Option<u64>,
    /// `direct`, or through whom.
    pub(super) route: String,
    /// Such as `QUIC/IPv6`.
    pub(super) over: String,
    pub(super) address: String,
    /// Connections beside this one.
    pub(super) more: usize,
}

/// How many neighbours hold the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Agreement {
    pub(super) same: u64,
    pub(super) differ: u64,
    pub(super) unknown: u64,
}

/// Traffic in one direction, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flow {
    pub(super) a_second: u64,
    pub(super) limit: Option<u64>,
    pub(super) today: u64,
    pub(super) in_all: u64,
}

/// What the governor says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Guest {
    pub(super) trains: bool,
    pub(super) words: String,
}

impl View {
    /// What a node's `status.json` says.
    pub(super) fn of(status: &Value) -> Self {
        let text = |name: &str, most| clean(status[name].as_str().unwrap_or_default(), most);
        let number = |name: &str| status[name].as_u64();
        let finite = |value: &Value| value.as_f64().filter(|value| value.is_finite());
        let meter = &status["meter"];
        let flow = |a_second: &str, limit: &str, today: &str, in_all: &str| Flow {
            a_second: meter[a_second].as_u64().unwrap_or(0),
            limit: meter[limit].as_u64(),
            today: meter[today].as_u64().unwrap_or(0),
            in_all: number(in_all).unwrap_or(0),
        };
        let known = status["network"]["peers"].as_array();
        let mut peers: Vec<Peer> = known.into_iter().flatten().take(PEERS).filter_map(peer).collect();
        // The nearest first; whose latency is not known, last.
        peers.sort_by_key(|peer| peer.latency.unwrap_or(u64::MAX));
        Self {
            running: Running::Never,
            phase: text("phase", NAME),
            detail: text("detail", LINE),
            name: text("name", NAME),
            model: text("model", NAME),
            parameters: number("parameters"),
            version: text("version", NAME),
            peer_id: text("peer_id", NAME),
            round: number("round").unwrap_or(0),
            target: number("rounds_target"),
            loss: finite(&status["loss"]),
            tokens: number("tokens").unwrap_or(0),
            tokens_per_second: finite(&status["tokens_per_second"]).filter(|speed| *speed > 0.0),
            past: Arc::default(),
            neighbours: number("peers").unwrap_or(0),
            estimated: number("estimated_peers"),
            peers,
            agreement: status["agreement"].as_object().map(|agreement| {
                let number = |name: &str| agreement.get(name).and_then(Value::as_u64).unwrap_or(0);
                Agreement { same: number("same"), differ: number("differ"), unknown: number("unknown") }
            }),
            state_digest: text("state_digest", NAME),
            sent: flow("sent_a_second", "upload_limit", "sent_today", "bytes_sent"),
            received: flow("received_a_second", "download_limit", "received_today", "bytes_received"),
            bits: finite(&meter["bits_a_coefficient"]),
            bound: finite(&meter["bits_bound"]),
            guest: status["guest"].as_object().map(|guest| Guest {
                trains: guest.get("trains").and_then(Value::as_bool).unwrap_or(false),
                words: clean(guest.get("words").and_then(Value::as_str).unwrap_or_default(), LINE),
            }),
            log: Vec::new(),
            trouble: None,
        }
    }

    /// Seconds until the round at which it stops, at its present pace.
    pub(super) fn left(&self) -> Option<f64> {
        let rounds = self.target?.checked_sub(self.round)?;
        Some(self.past.pace()? * rounds as f64)
    }

    /// Whether the governor keeps it from training.
    pub(super) fn is_held(&self) -> bool {
        self.guest.as_ref().is_some_and(|guest| !guest.trains)
    }
}

/// A peer of `status.json`, by its best connection.
fn peer(known: &Value) -> Option<Peer> {
    let id = clean(known["peer_id"].as_str()?, NAME);
    let routes: &[Value] = known["routes"].as_array().map_or(&[], Vec::as_slice);
    let is_direct = |way: &&Value| way["route"] == "direct";
    let best = routes.iter().find(is_direct).or_else(|| routes.first());
    let text = |name: &str| best.and_then(|way| way[name].as_str());
    let route = match (text("route"), text("relay")) {
        (Some("direct"), _) => "direct".to_owned(),
        (Some(_), Some(relay)) => format!("relayed via {}", super::text::ends(&clean(relay, NAME), 4, 6)),
        (Some(_), None) => "relayed".to_owned(),
        (None, _) => String::new(),
    };
    let over = match text("over") {
        Some("quic") => "QUIC",
        Some("tcp") => "TCP",
        _ => "",
    };
    let ip = best.and_then(|way| way["ip"].as_u64()).filter(|ip| [4, 6].contains(ip));
    let over = match ip {
        Some(ip) if !over.is_empty() => format!("{over}/IPv{ip}"),
        _ => over.to_owned(),
    };
    let latency = routes.iter().filter_map(|way| way["latency_ms"].as_u64()).min();
    let own = best.and_then(|way| way["latency_ms"].as_u64());
    let address = clean(text("address").unwrap_or_default(), LINE);
    Some(Peer { id, latency: own.or(latency), route, over, address, more: routes.len().saturating_sub(1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_peer_is_shown_by_its_best_connection() {
        let view = View::of(&json!({"network": {"peers": [
            {"peer_id": "far", "routes": [{"route": "relayed", "relay": "12D3KooWabcdefghijkl", "over": "tcp", "ip": 4,
                "address": "/p2p/far", "latency_ms": 90}]},
            {"peer_id": "odd", "routes": 7},
            {"routes": []},
            {"peer_id": "near", "routes": [
                {"route": "relayed", "relay": null, "over": "tcp", "ip": 4, "address": "/a", "latency_ms": 80},
                {"route": "direct", "relay": null, "over": "quic", "ip": 6, "address": "/b", "latency_ms": 3}]},
        ]}}));
        let shown: Vec<_> = view
            .peers
            .iter()
            .map(|peer| (&*peer.id, peer.latency, &*peer.route, &*peer.over, peer.more))
            .collect();
        assert_eq!(
            shown,
            [
                ("near", Some(3), "direct", "QUIC/IPv6", 1),
                ("far", Some(90), "relayed via 12D3…ghijkl", "TCP/IPv4", 0),
                ("odd", None, "", "", 0),
            ]
        );
    }

    #[test]
    fn anything_at_all_is_a_view() {
        for odd in [
            json!(null),
            json!([]),
            json!("text"),
            json!({"round": -1, "loss": "low", "peers": {}, "network": 3, "guest": [], "meter": null, "agreement": 9}),
            json!({"round": 1e300, "rounds_target": u64::MAX, "guest": {}, "network": {"peers": {"a": 1}}}),
        ] {
            let view = View::of(&odd);
            assert!(view.peers.is_empty() && view.agreement.is_none(), "{odd}");
        }
        let many: Vec<Value> = (0..5000).map(|n| json!({"peer_id": format!("{n}")})).collect();
        assert_eq!(View::of(&json!({"network": {"peers": many}})).peers.len(), PEERS);
    }
}
