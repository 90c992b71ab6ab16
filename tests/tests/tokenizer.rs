//! A swarm with a tokenizer: made, named in the genesis, fetched by whoever joins, and refused if it is another.
#![cfg(unix)]

use anyhow::{Context, Result};
use swarm_tests::place::WINDOW;
use swarm_tests::report::{address, agreed};
use swarm_tests::{Place, Signal};

#[test]
fn whoever_joins_fetches_the_tokenizer_and_another_is_refused() -> Result<()> {
    const ROUNDS: u64 = 2 * WINDOW;
    let place = Place::new()?;
    place.text("common.txt", 1, 60_000)?;
    let train = |out: &'static str, vocabulary: &'static str| {
        place.swarm(["tokenizer", "train", "--data", "common.txt", "--vocabulary", vocabulary, "--out", out])
    };
    train("words.json", "300")?
        .refused(0, &["wrote words.json: 300 tokens", "swarm new --tokenizer words.json"])?;
    train("other.json", "280")?.refused(0, &["280 tokens"])?;
    train("other.json", "280")?.refused(1, &["other.json exists already", "--force"])?;
    let genesis = place.genesis_with("genesis.toml", &["--tokenizer", "words.json"], &[])?;
    let text = std::fs::read_to_string(&genesis)?;
    assert_eq!(text.matches("vocabulary = 300").count(), 2, "{text}");
    let run = ["run", "--genesis", "genesis.toml", "--data", "common.txt", "--dir", "bad", "--tokenizer"];
    let with = |file: &'static str| place.swarm(run.into_iter().chain([file]));
    with("other.json")?
        .refused(1, &["other.json is not the tokenizer of this swarm", "leave --tokenizer out"])?;
    with("common.txt")?.refused(1, &["common.txt", "tokenizer.json"])?;
    let none = ["run", "--genesis", "genesis.toml", "--data", "common.txt", "--dir", "bad"];
    place.swarm(none)?.refused(1, &["read with a tokenizer", "--tokenizer FILE"])?;

    let first = place.node("first")?.arg("--tokenizer").arg(place.path("words.json"));
    let mut first = first.rounds(&ROUNDS.to_string()).start()?;
    let there = address(&mut first, "/tcp/")?;
    first.wait_for_round(1)?;
    let invite = place.swarm(["invite", "--dir", "first", "--address", &there])?.log;
    let invite =
        invite.split_whitespace().find(|word| word.starts_with("swarm:")).context("no invite")?.to_owned();
    // Held while the second starts, so that it is not done before.
    first.signal(Signal::Stop)?;
    let second = place.node("second")?.invited(&invite).rounds(&ROUNDS.to_string());
    let mut second = second.start()?;
    second.wait_for_log("fetching its genesis")?;
    first.signal(Signal::Continue)?;
    second.wait_for_log("its tokenizer is here")?;
    first.signal(Signal::Stop)?;
    second.wait_for_phase("waiting for peers")?;
    first.signal(Signal::Continue)?;
    agreed(&mut [&mut first, &mut second], ROUNDS)?;
    let copy = std::fs::read(place.path("second").join("tokenizer.json"))?;
    assert!(copy == std::fs::read(place.path("words.json"))?, "not the same tokenizer");
    Ok(())
}
