//! A swarm that shares low-rank adapters for a model that stays as it is.
#![cfg(unix)]

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_tests::Place;
use swarm_tests::report::{address, agreed, number};

fn loss(report: &Value, key: &str) -> Result<f64> {
    report[key].as_f64().with_context(|| format!("no {key} in {report}"))
}

/// The base is what a node has trained. Two nodes adapt it to other text, share a fraction of the bytes, and generate
/// offline from the base and what they have learned.
#[test]
fn two_nodes_adapt_a_model_that_stays_as_it_is() -> Result<()> {
    const ROUNDS: u64 = 30;
    let place = Place::with_genesis()?;
    let mut node = place.node("before")?.rounds("20").start()?;
    let before = agreed(&mut [&mut node], 20)?.remove(0);
    place.swarm(["fork", "--dir", "before", "--open-rounds", "--out", "base"])?.refused(0, &[])?;
    let lora =
        ["new", "--model", "base", "--train", "lora:r=4,targets=q_proj+v_proj+down_proj", "--steps", "2"];
    let lora = place.swarm(lora.into_iter().chain(["--force", "--batch", "4", "--out", "genesis.toml"]))?;
    lora.refused(0, &["--base base"])?;
    // Without the base there is nothing to adapt.
    let without = place.node("without")?.start()?.exit()?;
    without.refused(1, &["adapters for a model that stays as it is", "--base PATH"])?;
    let text =
        place.file("other.txt", "zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich. ".repeat(400))?;
    let learner = |name: &str| {
        let node = place.learner(name, &text)?.arg("--base").arg(place.path("base"));
        anyhow::Ok(node.arg("--validation").arg(&text).rounds(&ROUNDS.to_string()))
    };
    let mut one = learner("one")?.start()?;
    let mut two = learner("two")?.bootstrap(&address(&mut one, "/tcp/")?).start()?;
    for report in agreed(&mut [&mut one, &mut two], ROUNDS)? {
        assert!(number(&report, "parameters")? * 10 < number(&before, "parameters")?, "{report}");
        let (first, last) = (loss(&report, "loss_first")?, loss(&report, "validation_loss")?);
        assert!(last < first - 0.2, "it has learned: {report}");
    }
    assert_eq!(
        fs::read(place.path("one/base"))?,
        fs::read(place.path("base/start"))?,
        "the base is as it was"
    );
    let generate = ["generate", "--dir", "one", "--prompt", "zw", "--bytes", "8"];
    place.swarm(generate)?.refused(0, &["zw"])
}

#[test]
fn another_base_is_refused() -> Result<()> {
    let place = Place::with_genesis()?;
    let mut node = place.node("before")?.rounds("2").start()?;
    agreed(&mut [&mut node], 2)?;
    let fork = |out: &str, more: &[&str]| {
        let fork = ["fork", "--dir", "before", "--open-rounds", "--out", out];
        place.swarm(fork.iter().chain(more))?.refused(0, &[])
    };
    fork("base", &[])?;
    let none = place.swarm(["new", "--model", "before", "--train", "lora:r=2", "--out", "lora.toml"])?;
    none.refused(1, &["no file start", "swarm fork --dir before"])?;
    let large = place.swarm(["new", "--model", "base", "--train", "lora:r=65", "--out", "lora.toml"])?;
    large.refused(1, &["model.lora.rank = 65"])?;
    place
        .swarm(["new", "--model", "base", "--train", "qlora", "--out", "lora.toml"])?
        .refused(2, &["lora:r=8"])?;
    let new = ["new", "--force", "--model", "base", "--train", "lora:r=2", "--out", "genesis.toml"];
    place.swarm(new)?.refused(0, &[])?;
    let mut node =
        place.node("before-2")?.in_dir(&place.path("before")).genesis(&place.path("before/genesis.toml"));
    node = node.rounds("+1");
    agreed(&mut [&mut node.start()?], 3)?;
    fork("later", &[])?;
    let wrong = place.node("wrong")?.arg("--base").arg(place.path("later")).start()?.exit()?;
    wrong.refused(1, &["is not the base that the genesis names", "ask whoever made the swarm"])?;
    let text = place.node("text")?.arg("--base").arg(place.path("text.txt")).start()?.exit()?;
    text.refused(1, &["text.txt is not the base"])?;
    let needless = place.node("needless")?.genesis(&place.path("before/genesis.toml"));
    needless
        .arg("--base")
        .arg(place.path("base"))
        .start()?
        .exit()?
        .refused(1, &["--base", "leave the flag out"])
}
