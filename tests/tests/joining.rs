//! Nodes find each other, join, train together and agree; or say why they cannot.
#![cfg(unix)]

use std::net::TcpListener;

use anyhow::{Context, Result};
use swarm_tests::place::WINDOW;
use swarm_tests::report::{address, agreed, number, text, without_peer_id};
use swarm_tests::{Place, Process, Signal, program};

/// The README's two nodes: the first has been the swarm for a while; the second is given nothing but its
/// address, without even a peer id, and takes the model from a checkpoint.
#[test]
fn a_second_node_joins_the_first_by_its_address() -> Result<()> {
    const ROUNDS: u64 = 2 * WINDOW + 30;
    let place = Place::with_genesis()?;
    let mut first = place.node("first")?.rounds(&ROUNDS.to_string()).start()?;
    let there = address(&mut first, "/tcp/")?;
    // More rounds are settled than can be open: whoever joins now has to begin with a checkpoint.
    first.wait_for_round(2 * WINDOW + 2)?;
    first.signal(Signal::Stop)?;
    let second = place.node("second")?.bootstrap(without_peer_id(&there)).rounds(&ROUNDS.to_string());
    let mut second = second.start()?;
    second.wait_for_phase("waiting for peers")?;
    first.signal(Signal::Continue)?;
    let reports = agreed(&mut [&mut first, &mut second], ROUNDS)?;
    let log = second.log()?;
    assert!(log.contains("joining: fetching the model after"), "{log}");
    assert!(log.contains("joined the swarm at round"), "{log}");
    for report in &reports {
        let (published, folded) = (number(report, "deltas_published")?, number(report, "deltas_folded")?);
        assert!(published > 0 && folded > published, "it folds its own and the other's: {report}");
    }
    // All, unless it was so slow at the end that it went on from a later round of the other.
    assert!((2 * WINDOW + 2..=ROUNDS).contains(&number(&reports[0], "deltas_published")?));
    Ok(())
}

/// Three nodes know only the bootstrap node, which trains nothing, and one of them reaches it over QUIC.
/// Once they have found each other it is not needed any more.
#[test]
fn training_goes_on_without_the_bootstrap_node() -> Result<()> {
    const ROUNDS: u64 = 60;
    let place = Place::with_genesis()?;
    let program = match program::replica()? {
        Some(replica) => replica,
        None => program::swarm()?.to_owned(),
    };
    let bootstrap = place.bootstrap("bootstrap", &program);
    let mut bootstrap =
        bootstrap.listen("/ip4/127.0.0.1/tcp/0").listen("/ip4/127.0.0.1/udp/0/quic-v1").start()?;
    let tcp = address(&mut bootstrap, "/tcp/")?;
    let quic = address(&mut bootstrap, "/quic-v1")?;
    // Held until all are there: they begin together, and none is done before the others have found it.
    bootstrap.signal(Signal::Stop)?;
    let mut nodes = Vec::new();
    for (name, there) in [("one", &tcp), ("two", &tcp), ("three", &quic)] {
        let node = place.node(name)?.bootstrap(there).listen("/ip4/127.0.0.1/tcp/0");
        let node = node.listen("/ip4/127.0.0.1/udp/0/quic-v1").rounds(&ROUNDS.to_string());
        nodes.push(node.start()?);
    }
    for node in &mut nodes {
        node.wait_for_phase("waiting for peers")?;
    }
    bootstrap.signal(Signal::Continue)?;
    for node in &mut nodes {
        node.wait_for("three peers", |status| status["peers"].as_u64() >= Some(3))?;
    }
    bootstrap.interrupt()?;
    for node in &mut nodes {
        let status = node.status().context("no status")?;
        assert!(
            number(&status, "round")? < ROUNDS,
            "it was done before the bootstrap node was stopped: {status}"
        );
    }
    let mut nodes: Vec<&mut Process> = nodes.iter_mut().collect();
    for report in agreed(&mut nodes, ROUNDS)? {
        let (published, folded) = (number(&report, "deltas_published")?, number(&report, "deltas_folded")?);
        assert!(folded > 2 * published, "it folds what all three publish: {report}");
    }
    Ok(())
}

/// Two geneses that differ in one value are two swarms: no delta crosses, and both users are told why.
#[test]
fn swarms_that_differ_in_one_value_never_mix() -> Result<()> {
    let place = Place::with_genesis()?;
    let other = place.genesis("other.toml", &[("grace_ms", "2001")])?;
    let mut here = place.node("here")?.start()?;
    let there = address(&mut here, "/tcp/")?;
    let mut stranger = place.node("stranger")?.genesis(&other).bootstrap(&there).start()?;
    let ours = here.wait_for("a swarm id", |status| status["swarm_id"].is_string())?;
    let ours = text(&ours, "swarm_id")?.to_owned();
    let status =
        stranger.wait_for("the reason for having no peers, which names the other swarm", |status| {
            status["detail"]
                .as_str()
                .is_some_and(|why| ours.get(..16).is_some_and(|swarm| why.contains(swarm)))
        })?;
    assert_eq!((number(&status, "peers")?, text(&status, "phase")?), (0, "waiting for peers"));
    let theirs = text(&status, "swarm_id")?.to_owned();
    assert_ne!(ours, theirs);
    here.wait_for_log("belongs to another swarm")?;
    let names_both = |log: &str| {
        let told = log.lines().find(|line| line.contains("belongs to another swarm")).unwrap_or_default();
        told.contains(&ours) && told.contains(&theirs)
    };
    // Both go on: the one trains, the other looks for peers.
    let round = number(&here.status().context("no status")?, "round")?;
    here.wait_for_round(round + 3)?;
    for (process, name) in [(&mut here, "here"), (&mut stranger, "stranger")] {
        let log = process.interrupt()?;
        assert!(names_both(&log), "{name} names both swarms in its log:\n{log}");
    }
    let (here, stranger) = (here.report()?, stranger.report()?);
    assert!(number(&here, "deltas_folded")? <= number(&here, "deltas_published")?, "its own only: {here}");
    assert_eq!(number(&stranger, "deltas_folded")?, 0);
    assert_eq!(number(&stranger, "deltas_published")?, 0);
    Ok(())
}

/// Nobody listens at the bootstrap address: the node says so by name, tries again ever more rarely, and
/// joins when somebody is there at last.
#[test]
fn a_dead_bootstrap_address_is_named_and_tried_again() -> Result<()> {
    let place = Place::with_genesis()?;
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let there = format!("/ip4/127.0.0.1/tcp/{port}");
    let mut late = place.node("late")?.bootstrap(&there).rounds("+5").start()?;
    let pauses = |log: &str| -> Vec<f64> {
        let failures =
            log.lines().filter(|line| line.contains(&there) && line.contains("connection refused"));
        failures
            .filter_map(|line| line.split("trying again in ").nth(1)?.split(' ').next()?.parse().ok())
            .collect()
    };
    late.until("three attempts", |process| (pauses(&process.log().ok()?).len() >= 3).then_some(()))?;
    let waited = pauses(&late.log()?);
    assert!(waited.is_sorted_by(|before, after| before < after), "the pauses grow: {waited:?}");
    let status = late.status().context("no status")?;
    assert_eq!((number(&status, "peers")?, text(&status, "phase")?), (0, "waiting for peers"));
    assert!(text(&status, "detail")?.contains(&there), "{status}");
    let mut early = place.node("early")?.listen(&there).start()?;
    late.wait_for_log(&format!("connected to bootstrap {there}"))?;
    // Done only when both hold the same.
    let log = late.success()?;
    assert!(log.contains("joined the swarm at round"), "{log}");
    let report = late.report()?;
    // Fewer than 5 if it was so slow that it went on from a later round of the other.
    assert!((1..=5).contains(&number(&report, "deltas_published")?), "{report}");
    assert_eq!(report["finished"], true);
    early.interrupt()?;
    let report = early.report()?;
    assert_eq!(
        number(&report, "deltas_folded")?,
        number(&report, "rounds")? + 5,
        "one own a round, and the other's"
    );
    Ok(())
}
