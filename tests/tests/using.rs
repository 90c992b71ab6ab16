//! Using what was trained: talking with it, and measuring it.
#![cfg(unix)]

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_tests::program;
use swarm_tests::{Exit, Place, Process, Signal};

/// A place with the folder `node` of a node that has trained and stopped.
fn trained(rounds: &str) -> Result<Place> {
    let place = Place::with_genesis()?;
    place.node("node")?.rounds(rounds).start()?.success()?;
    Ok(place)
}

fn chat(place: &Place, input: Stdio, more: &[&str]) -> Result<Process> {
    let mut command = Command::new(program::swarm()?);
    command.args(["chat", "--threads", "1", "--dir", "node"]).args(more).env("OMP_NUM_THREADS", "1");
    command.current_dir(place.path(""));
    Process::spawn_with(input, "chat", &mut command, &place.path("node"), &place.path("chat.log"))
}

/// What was answered: neither what is said about it, nor anything that differs from run to run.
fn answers(log: &str) -> Vec<&str> {
    log.lines().filter(|line| !line.ends_with(" a second)")).collect()
}

#[test]
fn a_conversation_is_answered_line_by_line_and_forgets_its_oldest_turns() -> Result<()> {
    let place = trained("2")?;
    let lines = place.file("lines", "A delta?\n\nAnd a peer?\nAnd the model?\n")?;
    let talk = |more: &[&str]| chat(&place, File::open(&lines)?.into(), more)?.success();
    let log = talk(&["--tokens", "20", "--seed", "4"])?;
    ensure!(log.contains("this device's own model of swarm"), "{log}");
    // An empty line is none. The context has 64 bytes.
    assert_eq!(log.matches(" a second)").count(), 3, "{log}");
    ensure!(log.contains("(the context is full: ") && log.contains(" of 3 turns are left out)"), "{log}");
    assert_eq!(answers(&talk(&["--tokens", "20", "--seed", "4"])?), answers(&log), "the same seed");
    assert_ne!(answers(&talk(&["--tokens", "20", "--seed", "5"])?), answers(&log));
    fs::write(&lines, format!("{}\nA delta?\n", "x".repeat(100)))?;
    let log = talk(&["--tokens", "5"])?;
    ensure!(
        log.contains("more than the model's context of 64, with what stands before it: say it shorter"),
        "{log}"
    );
    assert_eq!(log.matches(" a second)").count(), 1, "what fits is answered: {log}");
    Ok(())
}

#[test]
fn ctrl_c_stops_an_answer_and_twice_ends_the_conversation() -> Result<()> {
    let place = trained("2")?;
    // Far more than can be written before somebody loses patience.
    let mut process = chat(&place, Stdio::piped(), &["--tokens", "100000000"])?;
    process.wait_for_log("twice ends")?;
    process.say("A delta?")?;
    let before = process.log()?.len();
    process.until("an answer", |process| (process.log().ok()?.len() > before).then_some(()))?;
    process.signal(Signal::Interrupt)?;
    process.wait_for_log(" a second)")?;
    process.say("And a peer?")?;
    let before = process.log()?.len();
    process.until("another answer", |process| (process.log().ok()?.len() > before).then_some(()))?;
    process.signal(Signal::Interrupt)?;
    process
        .until("its end", |process| (process.log().ok()?.matches(" a second)").count() == 2).then_some(()))?;
    process.signal(Signal::Interrupt)?;
    process.success()?;
    Ok(())
}

/// What `swarm eval` says, as JSON.
fn eval(place: &Place, more: &[&str]) -> Result<Value> {
    let base = ["eval", "--threads", "1", "--dir", "node", "--json"];
    let Exit { code, log } = place.swarm([&base, more].concat())?;
    ensure!(code == Some(0), "{code:?}: {log}");
    serde_json::from_str(&log).with_context(|| format!("no JSON: {log}"))
}

fn row<'a>(report: &'a Value, model: &str) -> Result<&'a Value> {
    let rows = report["models"].as_array().context("no models")?;
    rows.iter().find(|row| row["model"] == model).with_context(|| format!("no {model} in {report}"))
}

#[test]
fn the_shared_the_personal_and_the_lonely_model_are_measured_on_all_of_a_text() -> Result<()> {
    let place = trained("20")?;
    place.text("alone.txt", 5, 40_000)?;
    let alone =
        ["alone", "--genesis", "genesis.toml", "--dir", "alone", "--data", "alone.txt", "--threads", "1"];
    place.swarm([&alone[..], &["--tokens", "2000"]].concat())?.refused(0, &[])?;
    place.text("unseen.txt", 9, 3000)?;
    let report = eval(&place, &["--data", "unseen.txt", "--alone", "alone"])?;
    let bytes = fs::metadata(place.path("unseen.txt"))?.len();
    for model in ["shared", "personal", "alone"] {
        let row = row(&report, model)?;
        assert_eq!((row["tokens"].as_u64(), row["bytes"].as_u64()), (Some(bytes - 1), Some(bytes - 1)));
        let value = |key: &str| row[key].as_f64().with_context(|| format!("no {key}"));
        let loss = value("loss")?;
        // Untrained, it is that of 256 bytes, which are as likely.
        ensure!(loss > 1.0 && loss < 256_f64.ln(), "{model}: {loss}");
        ensure!((value("bits_per_byte")? - loss / std::f64::consts::LN_2).abs() < 1e-9, "{row}");
        ensure!((value("perplexity")? - loss.exp()).abs() < 1e-6, "{row}");
    }
    assert_ne!(row(&report, "shared")?["loss"], row(&report, "personal")?["loss"]);
    assert_eq!(report["window"], 64);

    let table = place.swarm(["eval", "--threads", "1", "--dir", "node", "--data", "unseen.txt"])?;
    table.refused(0, &["nats a token", "shared", "personal", "1 file", "windows of 64"])?;
    ensure!(!table.log.contains("alone"), "{}", table.log);

    // What the node holds out of its own text.
    let held = eval(&place, &["--data", "node.txt", "--held-out"])?;
    let tokens = row(&held, "shared")?["tokens"].as_u64().context("no tokens")?;
    assert!((1900..2100).contains(&tokens), "{tokens} of 40,000 at 5 %");
    Ok(())
}

#[test]
fn eval_says_what_is_wrong() -> Result<()> {
    let place = trained("1")?;
    place.text("text.txt", 9, 3000)?;
    place.file("short.txt", "x")?;
    fs::create_dir(place.path("empty"))?;
    place.genesis("other.toml", &[("layers", "1")])?;
    let alone = ["alone", "--dir", "alone", "--data", "text.txt", "--threads", "1", "--hold-out", "0.2"];
    place.swarm([&alone[..], &["--genesis", "other.toml", "--tokens", "100"]].concat())?.refused(0, &[])?;
    for (arguments, words) in [
        (&["--dir", "nowhere", "--data", "text.txt"][..], &["nowhere is not a node's folder"][..]),
        (&["--dir", "node", "--data", "none.txt"], &["none.txt"]),
        (&["--dir", "node", "--data", "short.txt"], &["at least two tokens"]),
        (&["--dir", "node", "--data", "empty"], &["there is no text in what --data names"]),
        (&["--dir", "node", "--data", "text.txt", "--alone", "empty"], &["--alone empty", "swarm alone"]),
        (
            &["--dir", "node", "--data", "text.txt", "--alone", "alone"],
            &["--alone alone is of another model"],
        ),
    ] {
        let exit = place.swarm([&["eval", "--threads", "1"], arguments].concat())?;
        exit.refused(1, words).with_context(|| format!("{arguments:?}"))?;
    }
    let misused = place.swarm(["eval", "--dir", "node"])?;
    misused.refused(2, &["--data <PATH>"])
}
