//! From an invite to training, and back to the swarm without any address.
#![cfg(unix)]

use std::fs;

use anyhow::{Context, Result};
use swarm_tests::place::WINDOW;
use swarm_tests::report::{address, agreed, number};
use swarm_tests::{Place, Process};

fn invite(place: &Place, more: &[&str]) -> Result<String> {
    let exit = place.swarm(["invite", "--dir", "first"].iter().chain(more))?;
    assert!(exit.code == Some(0), "{}", exit.log);
    let line = exit.log.lines().find(|line| line.starts_with("swarm:"));
    Ok(line.with_context(|| format!("no invite in {}", exit.log))?.to_owned())
}

/// All that the newcomer is given is one line. It ends up with the very genesis, joins at the checkpoint that the
/// line pins, and says how long it took.
#[test]
fn one_line_is_enough_to_take_part() -> Result<()> {
    const ROUNDS: u64 = 4 * WINDOW + 10;
    let place = Place::new()?;
    // The last two checkpoints are kept: with few of them a pinned one is there for as long as a newcomer may take.
    place.genesis("genesis.toml", &[("checkpoint_every", &WINDOW.to_string())])?;
    let mut first = place.node("first")?.rounds(&ROUNDS.to_string()).start()?;
    first.wait_for("a checkpoint", |status| status["checkpoint"]["settled"].as_u64() >= Some(WINDOW))?;
    let invite = invite(&place, &["--pin"])?;
    let newcomer = place.node("newcomer")?.invited(&invite).rounds(&ROUNDS.to_string());
    let mut newcomer = newcomer.start()?;
    agreed(&mut [&mut first, &mut newcomer], ROUNDS)?;
    let log = newcomer.log()?;
    for words in ["the genesis of", "joining: fetching the model after", "is folded, "] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let genesis = |name: &str| fs::read_to_string(place.path(name).join("genesis.toml"));
    assert_eq!(genesis("newcomer")?, genesis("first")?);
    // The same line goes on in the same folder, and needs nobody for the genesis now.
    let mut again = place.node("newcomer")?.invited(&invite).rounds("+1").start()?;
    again.wait_for_log("going on from round")?;
    assert!(!again.log()?.contains("fetching its genesis"), "{}", again.log()?);
    again.interrupt()?;
    Ok(())
}

/// A node that is started again without any address finds those whom it has met before.
#[test]
fn who_has_been_there_needs_no_address_to_come_back() -> Result<()> {
    let place = Place::with_genesis()?;
    let mut first = place.node("first")?.start()?;
    let there = address(&mut first, "/tcp/")?;
    let mut second = place.node("second")?.bootstrap(&there).rounds("+3").start()?;
    second.success()?;
    let book = fs::read_to_string(place.path("second").join("peers.json"))?;
    let (bare, _) = there.split_once("/p2p/").context("no peer id")?;
    assert!(book.contains(bare), "{bare} is not in {book}");
    let told = place.swarm(["peers", "--dir", "second"])?;
    assert!(told.log.contains(bare) && told.log.contains("met "), "{}", told.log);
    let mut second = place.node("second")?.rounds("+3").start()?;
    second.wait_for("a peer", |status| status["peers"].as_u64() == Some(1))?;
    second.success()?;
    let report = second.report()?;
    assert!(number(&report, "deltas_folded")? > number(&report, "deltas_published")?, "{report}");
    first.interrupt()?;
    Ok(())
}

/// What is not an invite, or not to be used here, is said to be so, and what to do.
#[test]
fn an_invite_that_cannot_be_used_says_why() -> Result<()> {
    let place = Place::with_genesis()?;
    place.text("text", 1, 1000)?;
    let mut first: Process = place.node("first")?.start()?;
    address(&mut first, "/tcp/")?;
    first.wait_for("an address", |status| status["listen"][0].is_string())?;
    let invite = invite(&place, &[])?;
    first.interrupt()?;
    let join = |invite: &str, dir: &str| {
        place.swarm(["join", invite, "--dir", dir, "--data", "text", "--no-mdns", "--rounds", "1"])
    };
    join("swarm", "x")?.refused(2, &["not an invite", "swarm invite"])?;
    join(&invite[..invite.len() - 3], "x")?.refused(2, &["damaged", "copy all of it"])?;
    let other = place.genesis("other.toml", &[("seed", "9")])?;
    let mut stranger = place.node("stranger")?.genesis(&other).rounds("1").start()?;
    stranger.success()?;
    join(&invite, "stranger")?.refused(1, &["belongs to swarm", "another folder with --dir"])?;
    let nowhere = place.swarm(["invite", "--dir", "nowhere"])?;
    nowhere.refused(1, &["nowhere is not a node's folder"])?;
    let early = place.swarm(["invite", "--dir", "stranger", "--pin"])?;
    early.refused(1, &["no checkpoint yet", "without --pin"])?;
    Ok(())
}
