//! The contribution ledger of real nodes: the same on both, proved to somebody who has none, and refused when a byte
//! is changed.
#![cfg(unix)]

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_tests::report::{address, agreed};
use swarm_tests::{Place, Signal};

/// What `swarm ARGUMENTS` prints when it succeeds.
fn printed(place: &Place, arguments: &[&str]) -> Result<String> {
    let exit = place.swarm(arguments)?;
    exit.refused(0, &[]).with_context(|| format!("swarm {}", arguments.join(" ")))?;
    Ok(exit.log)
}

fn json(place: &Place, dir: &str) -> Result<Value> {
    let text = printed(place, &["ledger", "--dir", dir, "--format", "json"])?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

fn round(ledger: &Value, key: &str) -> Result<u64> {
    ledger[key].as_u64().with_context(|| format!("no round '{key}' in {ledger}"))
}

#[test]
fn two_nodes_have_one_ledger_and_anybody_can_check_it() -> Result<()> {
    const ROUNDS: u64 = 30;
    let place = Place::with_genesis()?;
    let rounds = ROUNDS.to_string();
    let mut first = place.node("first")?.rounds(&rounds).start()?;
    let there = address(&mut first, "/tcp/")?;
    first.signal(Signal::Stop)?;
    let mut second = place.node("second")?.bootstrap(&there).rounds(&rounds).start()?;
    second.wait_for_phase("waiting for peers")?;
    first.signal(Signal::Continue)?;
    agreed(&mut [&mut first, &mut second], ROUNDS)?;

    // The one that was there first may hold rounds that the other never had.
    let ledgers = [json(&place, "first")?, json(&place, "second")?];
    let [(a, b), (c, d)] = [
        (round(&ledgers[0], "from")?, round(&ledgers[0], "to")?),
        (round(&ledgers[1], "from")?, round(&ledgers[1], "to")?),
    ];
    let (from, to) = (a.max(c).to_string(), b.min(d).to_string());
    ensure!(a.max(c) + 3 < b.min(d), "there is little to compare: {from} to {to}");
    let of = |dir: &str, more: &[&str]| {
        printed(&place, &[&["ledger", "--dir", dir, "--from", &from, "--to", &to], more].concat())
    };
    for format in [&["--format", "csv"][..], &["--format", "csv", "--rounds"], &["--format", "json"], &[]] {
        assert_eq!(of("first", format)?, of("second", format)?, "{format:?}");
    }
    let csv = of("first", &["--format", "csv"])?;
    assert_eq!(csv.lines().count(), 3, "{csv}");
    let ledger: Value = serde_json::from_str(&of("second", &["--format", "json"])?)?;
    let authors = ledger["authors"].as_array().context("no authors")?;
    for author in authors {
        ensure!(
            author["counted"].as_u64() > Some(0) && author["claimed_tokens"].as_u64() > Some(0),
            "{author}"
        );
        ensure!(author["confirms"] == author["could_confirm"], "{author}");
        ensure!(author["agreement"].as_f64().is_some_and(|cosine| cosine.abs() < 1.0), "{author}");
    }

    place.file("ledger.csv", &csv)?;
    of("first", &["--proof", "ledger.proof"])?;
    fs::remove_dir_all(place.path("first"))?;
    fs::remove_dir_all(place.path("second"))?;
    let id = place.swarm_id("genesis.toml")?;
    let digest = ledger["log_digest"].as_str().context("no log digest")?;
    let verify = |more: &[&str]| place.swarm([&["verify", "ledger.proof"], more].concat());
    verify(&[])?.refused(0, &["verified: ", &id, "You named none", "claim"])?;
    let all = ["--genesis", "genesis.toml", "--log-digest", digest, "--ledger", "ledger.csv"];
    verify(&all)?.refused(0, &["as you asked for", "nothing was left out: the log digest"])?;
    verify(&["--swarm-id", &id, "--rounds"])?.refused(0, &["counted"])?;
    let again = verify(&["--format", "csv"])?;
    ensure!(again.log.contains(&csv), "{}", again.log);

    // One byte of a ledger, of a proof, another swarm, another history.
    let last = csv.rfind("0.").context("no number")?;
    let mut changed = csv.clone().into_bytes();
    changed[last] = b'1';
    place.file("changed.csv", &changed)?;
    verify(&["--ledger", "changed.csv"])?.refused(1, &["changed.csv is not the ledger that is proved"])?;
    place.genesis("other.toml", &[("layers", "1")])?;
    verify(&["--genesis", "other.toml"])?.refused(1, &["proves nothing", "which was asked for"])?;
    verify(&["--log-digest", &id])?.refused(1, &["its rounds make the log digest"])?;
    let proof = fs::read(place.path("ledger.proof"))?;
    for part in 1..8 {
        let mut flipped = proof.clone();
        flipped[part * proof.len() / 8] ^= 0x10;
        place.file("flipped.proof", &flipped)?;
        place.swarm(["verify", "flipped.proof"])?.refused(1, &["flipped.proof is damaged"])?;
    }
    place.swarm(["verify", "nothing.proof"])?.refused(1, &["there is no such file"])?;
    place.swarm(["verify", "genesis.toml"])?.refused(1, &["genesis.toml"])?;
    Ok(())
}

#[test]
fn a_running_node_is_asked_and_a_young_one_says_why_not() -> Result<()> {
    let place = Place::with_genesis()?;
    let mut young = place.node("young")?.rounds("2").start()?;
    young.success()?;
    place
        .swarm(["ledger", "--dir", "young"])?
        .refused(1, &["no settled round is in young yet", "20 rounds further"])?;
    place.swarm(["ledger", "--dir", "nowhere"])?.refused(1, &["nowhere is not a node's folder"])?;
    let mut node = place.node("node")?.arg("--snapshot-seconds").arg("1").start()?;
    node.until("a settled round in a snapshot", |_| {
        let exit = place.swarm(["ledger", "--dir", "node"]).ok()?;
        (exit.code == Some(0)).then_some(())
    })?;
    let table = printed(&place, &["ledger", "--dir", "node"])?;
    ensure!(table.contains("100.0 %") && table.contains("as the authors claim"), "{table}");
    node.interrupt()?;
    let exit = place.swarm(["ledger", "--dir", "node", "--from", "100000"])?;
    exit.refused(1, &["--from 100000 --to"])
}
