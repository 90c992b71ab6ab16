//! swarm run --json: what happens, for programs.
#![cfg(unix)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_tests::{Place, program};

/// Standard output and error of a command that ends well.
fn apart(place: &Place, arguments: &[&str]) -> Result<(String, String)> {
    let (out, errors) = (place.path("out"), place.path("errors"));
    let ended = Command::new(program::swarm()?)
        .args(arguments)
        .args(["--no-mdns", "--no-upnp", "--listen", "/ip4/127.0.0.1/tcp/0", "--dir"])
        .arg(place.path("node"))
        .env("OMP_NUM_THREADS", "1")
        .env_remove("SWARM_LOG")
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&errors)?)
        .status()?;
    let errors = fs::read_to_string(errors)?;
    ensure!(ended.success(), "{ended}:\n{errors}");
    Ok((fs::read_to_string(out)?, errors))
}

fn run(place: &Place, rounds: &str, more: &[&str]) -> Result<(String, String)> {
    let (genesis, text) = (place.path("genesis.toml"), place.text("text.txt", 1, 100_000)?);
    let name = |path: &Path| path.to_str().map(str::to_owned).context("a path without a name");
    let (genesis, text) = (name(&genesis)?, name(&text)?);
    let start = ["run", "--threads", "1", "--rounds", rounds, "--genesis", &genesis, "--data", &text];
    apart(place, &[&start, more].concat())
}

/// The objects of a text, one a line.
fn objects(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}

fn rounds(events: &[Value]) -> Vec<u64> {
    events
        .iter()
        .filter(|event| event["event"] == "round")
        .filter_map(|event| event["round"].as_u64())
        .collect()
}

#[test]
fn json_is_an_object_a_line_and_nothing_else() -> Result<()> {
    let place = Place::with_genesis()?;
    let (out, errors) = run(&place, "4", &["--json"])?;
    let events = objects(&out)?;
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names.len(), events.len(), "{out}");
    assert_eq!((names.first(), names.last()), (Some(&"started"), Some(&"stopped")), "{out}");
    assert_eq!(rounds(&events), [0, 1, 2, 3], "{out}");
    let times: Vec<f64> = events.iter().filter_map(|event| event["time"].as_f64()).collect();
    assert!(times.len() == events.len() && times.is_sorted(), "{out}");
    let trained = events.iter().find(|event| event["event"] == "round").context("no round")?;
    ensure!(trained["loss"].is_f64() && trained["tokens"].as_u64() > Some(0), "{trained}");
    // The log goes where it always goes: a line a round.
    for round in 0..4 {
        let lines = errors.lines().filter(|line| line.contains(&format!(" round {round}: loss "))).count();
        assert_eq!(lines, 1, "of round {round}:\n{errors}");
    }
    ensure!(errors.contains("done: all neighbours hold the same model"), "{errors}");
    // The same as in the folder, to which the next run adds.
    let kept = fs::read_to_string(place.path("node/events.jsonl"))?;
    assert_eq!(kept, out);
    let (again, _) = run(&place, "+2", &["--json"])?;
    assert_eq!(rounds(&objects(&again)?), [4, 5], "{again}");
    assert_eq!(fs::read_to_string(place.path("node/events.jsonl"))?, out + &again);
    Ok(())
}

#[test]
fn without_it_stdout_has_one_sentence_and_top_has_the_rounds() -> Result<()> {
    let place = Place::with_genesis()?;
    let (out, _) = run(&place, "3", &[])?;
    assert_eq!((out.lines().count(), out.starts_with("done: ")), (1, true), "{out}");
    let shown = place.swarm(["top", "--once", "--ascii", "--dir", "node"])?;
    shown.refused(
        0,
        &["3 of 3", "does not run since", "loss: line = training", "nats a token", "-- log", "round 2: loss"],
    )
}
