//! `swarm fork`: the new swarm begins with what the old one has learned.
#![cfg(unix)]

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_tests::Place;
use swarm_tests::place::Changes;
use swarm_tests::report::{address, agreed};

/// Rounds settle early, and the model learns something in a few of them.
const QUICK: Changes<'static> =
    &[("window", "4"), ("retention", "16"), ("warmup_steps", "0"), ("steps", "4"), ("batch", "8")];

const RUN: [&str; 6] = ["run", "--no-mdns", "--threads", "1", "--listen", "/ip4/127.0.0.1/tcp/0"];

fn loss(report: &Value, key: &str) -> Result<f64> {
    report[key].as_f64().with_context(|| format!("no number '{key}' in {report}"))
}

fn report(place: &Place, dir: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(place.path(dir).join("report.json"))?)?)
}

#[test]
fn a_fork_begins_with_the_trained_model() -> Result<()> {
    let place = Place::new()?;
    place.genesis("genesis.toml", QUICK)?;
    place.node("node")?.rounds("12").start()?.success()?;
    let parent = report(&place, "node")?;
    let before = fs::read(place.path("node/snapshot"))?;
    let forked = ["fork", "--dir", "node", "--out", "forked", "--name", "second", "--k", "512"];
    place.swarm(forked)?.refused(0, &["forked swarm", "with 8 of its rounds", "swarm run --dir forked"])?;
    assert_eq!(fs::read(place.path("node/snapshot"))?, before, "the old node is as it was");
    let genesis = fs::read_to_string(place.path("forked/genesis.toml"))?;
    assert!(genesis.contains("name = \"second\"") && genesis.contains("k = 512"), "{genesis}");
    assert!(genesis.contains("[parent]") && genesis.contains("settled = 8"), "{genesis}");
    place.swarm(["id", "--genesis", "forked/genesis.toml"])?.refused(0, &["parent:", "after 8 rounds"])?;

    let run = |rounds| [&RUN[..], &["--dir", "forked", "--data", "node.txt", "--rounds", rounds]].concat();
    place.swarm(run("2"))?.refused(0, &["starting the swarm"])?;
    let child = report(&place, "forked")?;
    let (scratch, trained) = (loss(&parent, "loss_first")?, loss(&parent, "loss_last")?);
    let first = loss(&child, "loss_first")?;
    assert!(trained < scratch - 0.5, "the parent learned: {scratch} -> {trained}");
    assert!(first < (scratch + trained) / 2.0, "{first} is nearer to {scratch} than to {trained}");
    assert_eq!(child["rounds"], 2);
    // It goes on like any other, and can be forked again.
    place.swarm(run("9"))?.refused(0, &["going on from round 2"])?;
    place
        .swarm(["fork", "--dir", "forked", "--out", "third", "--open-rounds"])?
        .refused(0, &["with 9 of"])?;
    let third = fs::read_to_string(place.path("third/genesis.toml"))?;
    let state = report(&place, "forked")?["state_digest"].as_str().context("no digest")?.to_owned();
    assert!(third.contains(&state), "with the open rounds it is the model that all had at the end: {third}");
    Ok(())
}

/// The others have nothing but the genesis. They may even be there first.
#[test]
fn others_fetch_the_starting_model_from_the_founder() -> Result<()> {
    let place = Place::new()?;
    place.genesis("genesis.toml", QUICK)?;
    place.node("node")?.rounds("9").start()?.success()?;
    place.swarm(["fork", "--dir", "node", "--out", "forked"])?.refused(0, &[])?;
    let genesis = place.path("forked/genesis.toml");
    let mut joiner = place.node("joiner")?.genesis(&genesis).rounds("8").start()?;
    let there = address(&mut joiner, "/tcp/")?;
    joiner.wait_for_log("its starting model is not in this folder")?;
    let dir = place.path("forked");
    let founder = place.node("founder")?.genesis(&genesis).in_dir(&dir).bootstrap(&there).rounds("8");
    let mut founder = founder.start()?;
    agreed(&mut [&mut founder, &mut joiner], 8)?;
    let log = joiner.log()?;
    assert!(log.contains("fetching the model after 0 settled rounds"), "{log}");
    Ok(())
}

#[test]
fn fork_says_what_is_wrong() -> Result<()> {
    let place = Place::new()?;
    place.genesis("genesis.toml", QUICK)?;
    place.node("young")?.rounds("2").start()?.success()?;
    let fork = |more: &[&str]| place.swarm([&["fork"], more].concat());
    fork(&["--dir", "nowhere", "--out", "new"])?.refused(1, &["nowhere is not a node's folder"])?;
    fork(&["--dir", "young"])?.refused(2, &["--out <NEW_DIR>"])?;
    let young = ["--dir", "young", "--out", "new"];
    fork(&young)?.refused(1, &["has settled yet", "4 rounds", "--open-rounds", "swarm new"])?;
    let open = [&young[..], &["--open-rounds"]].concat();
    for (more, words) in [
        (
            &["--model", "micro"][..],
            &["--model micro", "keeps the model of its parent (llama)", "swarm new"][..],
        ),
        (&["--k", "0"], &["rule.k = 0"]),
        (&["--name", ""], &["name: must be"]),
        (&["--learning-rate", "nan"], &["training.learning_rate = NaN"]),
    ] {
        fork(&[&open, more].concat())?.refused(1, words)?;
    }
    assert!(!place.path("new").exists(), "what is refused makes no folder");
    fork(&open)?.refused(0, &["with 2 of its rounds"])?;
    fork(&open)?.refused(1, &["new is not empty", "--out"])?;
    // A genesis that names another model than the one beside it.
    let genesis = fs::read_to_string(place.path("new/genesis.toml"))?;
    let state = genesis.lines().find(|line| line.starts_with("state = ")).context("no state")?;
    let wrong = format!("state = \"{}\"", "0".repeat(64));
    fs::create_dir(place.path("wrong"))?;
    fs::copy(place.path("new/start"), place.path("wrong/start"))?;
    place.file("wrong.toml", genesis.replacen(state, &wrong, 1))?;
    let run = [&RUN[..], &["--dir", "wrong", "--genesis", "wrong.toml", "--data", "young.txt"]].concat();
    place
        .swarm(run)?
        .refused(1, &["the swarm in wrong cannot begin", "but the genesis names", "swarm fork"])?;
    let alone =
        ["alone", "--genesis", "new/genesis.toml", "--data", "young.txt", "--dir", "a", "--tokens", "1"];
    place.swarm(alone)?.refused(1, &["new/genesis.toml is of a fork", "[parent]"])
}
