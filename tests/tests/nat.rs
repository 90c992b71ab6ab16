//! Nodes behind home routers, and what `swarm net` says of them: real address translation, in network namespaces.
//! Where that is not permitted the tests that need it say so and pass.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_tests::nat::{Internet, PUBLIC, Ports};
use swarm_tests::report::{address, agreed, text};
use swarm_tests::{Node, Place, Process, program};

/// Rounds of two seconds at least: finding a way takes some twenty.
const ROUNDS: u64 = 25;

/// The ways from one node to another, `direct` or `relayed`.
fn ways(status: &Value, to: &str) -> Vec<String> {
    let peers = status["network"]["peers"].as_array().into_iter().flatten();
    let routes = peers.filter(|peer| peer["peer_id"] == to).filter_map(|peer| peer["routes"].as_array());
    routes.flatten().filter_map(|route| Some(route["route"].as_str()?.to_owned())).collect()
}

fn peer_id(process: &mut Process) -> Result<String> {
    let status = process.wait_for("its name", |status| status["peer_id"].is_string())?;
    Ok(text(&status, "peer_id")?.to_owned())
}

/// A public node and two behind routers that train together.
struct Swarm {
    // In the order of dropping: the processes before the namespaces.
    bootstrap: Process,
    left: Process,
    right: Process,
    names: [String; 2],
    place: Place,
    _internet: Internet,
}

impl Swarm {
    fn start(ports: Ports, protocol: &str) -> Result<Option<Self>> {
        let Some(internet) = Internet::new(ports)? else { return Ok(None) };
        let place = Place::new()?;
        place.genesis("genesis.toml", &[("min_round_ms", "2000"), ("grace_ms", "4000")])?;
        let listen = |host: &str| match protocol {
            "tcp" => format!("/ip4/{host}/tcp/4001"),
            _ => format!("/ip4/{host}/udp/4001/quic-v1"),
        };
        let bootstrap = place
            .bootstrap("bootstrap", program::swarm()?)
            .within(&internet.public())
            .listen(&listen(PUBLIC))
            .start()?;
        let node = |name: &str, namespace: &str| -> Result<Process> {
            let node = place.node(name)?.within(namespace).rounds(&ROUNDS.to_string());
            node.talkative().listen(&listen("0.0.0.0")).bootstrap(&listen(PUBLIC)).start()
        };
        let mut left = node("left", &internet.left())?;
        let mut right = node("right", &internet.right())?;
        let names = [peer_id(&mut left)?, peer_id(&mut right)?];
        Ok(Some(Self { bootstrap, left, right, names, place, _internet: internet }))
    }

    /// Waits until both say that they are connected, and `way` only. (QUIC may open one connection from each side.)
    fn until(&mut self, way: &str) -> Result<()> {
        let [left, right] = &self.names;
        for (process, other) in [(&mut self.left, right), (&mut self.right, left)] {
            process.wait_for(&format!("a {way} connection"), |status| {
                let ways = ways(status, other);
                !ways.is_empty() && ways.iter().all(|found| found == way)
            })?;
        }
        Ok(())
    }
}

fn opens_a_direct_way(protocol: &str) -> Result<()> {
    let Some(mut swarm) = Swarm::start(Ports::Kept, protocol)? else { return Ok(()) };
    swarm.until("direct")?;
    // From here on only that connection can carry what they train.
    swarm.bootstrap.interrupt()?;
    agreed(&mut [&mut swarm.left, &mut swarm.right], ROUNDS)?;
    Ok(())
}

#[test]
fn two_nodes_behind_routers_that_keep_ports_open_a_direct_way_over_tcp() -> Result<()> {
    opens_a_direct_way("tcp")
}

#[test]
fn two_nodes_behind_routers_that_keep_ports_open_a_direct_way_over_quic() -> Result<()> {
    opens_a_direct_way("quic")
}

#[test]
fn two_nodes_behind_routers_with_random_ports_go_through_a_relay() -> Result<()> {
    let Some(mut swarm) = Swarm::start(Ports::Random, "tcp")? else { return Ok(()) };
    swarm.until("relayed")?;
    let Swarm { bootstrap, left, right, names, place, .. } = &mut swarm;
    let tested = left.wait_for("a test of its address", |status| status["network"]["reachable"] == "no")?;
    let relay = &tested["network"]["relays"][0];
    assert_eq!((&relay["held"], &relay["circuit_seconds"]), (&true.into(), &3600.into()), "{tested}");
    let through = format!("{}: through relay {}", names[1], text(relay, "peer_id")?);
    place.swarm(["net", "--dir", "left"])?.refused(
        0,
        &[
            "Not reachable from outside: peer",
            "tried /ip4/198.51.100.10/tcp/4001 and did not come through",
            "A router in between translates addresses",
            "for 60 min and 536 MB at most",
            &through,
            "What to do: nothing has to be done",
            "TCP port 4001 to this machine (192.168.1.2)",
        ],
    )?;
    agreed(&mut [left, right], ROUNDS)?;
    for process in [left, right] {
        let log = process.log()?;
        assert!(!log.contains("a direct way to"), "there is none:\n{log}");
    }
    bootstrap.interrupt()?;
    Ok(())
}

#[test]
fn a_node_that_others_reach_learns_it_from_a_peer_that_tries_and_hangs_up() -> Result<()> {
    let Some(internet) = Internet::new(Ports::Kept)? else { return Ok(()) };
    let place = Place::with_genesis()?;
    let node = |name: &str, port: u16| -> Result<Node> {
        let node = place.bootstrap(name, program::swarm()?).within(&internet.public());
        Ok(node.listen(&format!("/ip4/{PUBLIC}/tcp/{port}")))
    };
    let mut first = node("first", 4001)?.start()?;
    let mut second = node("second", 4002)?.bootstrap(&format!("/ip4/{PUBLIC}/tcp/4001")).start()?;
    let first_name = peer_id(&mut first)?;
    let status = second.wait_for("a way in, and one connection", |status| {
        status["network"]["reachable"] == "yes" && ways(status, &first_name) == ["direct"]
    })?;
    let network = &status["network"];
    assert_eq!(network["ways_in"][0]["address"], format!("/ip4/{PUBLIC}/tcp/4002"), "{network}");
    assert_eq!(
        (&network["relays_for_others"], &network["relays"]),
        (&true.into(), &Value::Array(Vec::new()))
    );
    place
        .swarm(["net", "--dir", "second"])?
        .refused(0, &["Reachable from outside at", "What to do: nothing."])?;
    second.interrupt()?;
    first.interrupt()?;
    Ok(())
}

#[test]
fn swarm_net_tries_a_bootstrap_address_out_and_says_why_if_nothing_can_be_found_out() -> Result<()> {
    let place = Place::with_genesis()?;
    let mut bootstrap = place.bootstrap("bootstrap", program::swarm()?).start()?;
    let there = address(&mut bootstrap, "/tcp/")?;
    let net = |more: &[&str]| {
        let always = ["net", "--genesis", "genesis.toml", "--no-upnp", "--listen", "/ip4/127.0.0.1/tcp/0"];
        place.swarm(always.iter().chain(more))
    };
    let name = text(&bootstrap.status().context("no status")?, "peer_id")?.to_owned();
    let found = format!("{name}: directly, TCP over IPv4, opened by this node");
    net(&["--bootstrap", &there, "--seconds", "4"])?.refused(
        0,
        &[
            "Connected to 1 peer",
            &found,
            "nobody from there is connected",
            "as long as all peers are on this network",
        ],
    )?;
    let json = net(&["--bootstrap", &there, "--seconds", "4", "--json"])?.log;
    let json: Value = serde_json::from_str(
        json.split_once('{').map(|(_, rest)| format!("{{{rest}")).context("no JSON")?.trim(),
    )?;
    assert_eq!(json["network"]["peers"][0]["peer_id"], name.as_str(), "{json}");
    // What the running node itself wrote, and that it is old when it has stopped.
    place
        .swarm(["net", "--dir", "bootstrap"])?
        .refused(0, &["Listening at\n  /ip4/127.0.0.1/tcp/", "UPnP: not asked"])?;
    bootstrap.interrupt()?;
    place.swarm(["net", "--dir", "bootstrap"])?.refused(0, &["This node does not run"])?;
    net(&["--bootstrap", &there, "--seconds", "2"])?
        .refused(1, &["nobody could be reached, so nothing can be found out", "connection refused"])?;
    place
        .swarm(["net", "--dir", "nowhere"])?
        .refused(1, &["cannot read nowhere/status.json", "a node that was started"])?;
    place.swarm(["net", "--genesis", "genesis.toml"])?.refused(2, &["--bootstrap <MULTIADDR>"])?;
    Ok(())
}
