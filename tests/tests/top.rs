//! swarm top on real terminals, and where there is none.
#![cfg(unix)]

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use swarm_tests::{Place, Terminal, program};

/// A node's folder, without a node.
struct Folder {
    place: Place,
}

impl Folder {
    fn new() -> Result<Self> {
        let place = Place::new()?;
        fs::create_dir(place.path("node"))?;
        let folder = Self { place };
        folder.status(12, "training", None)?;
        let mut events = json!({"event": "started", "time": 1e9, "round": 0}).to_string() + "\n";
        for round in 0..12 {
            let loss = 3.0 - 0.05 * f64::from(round);
            let event = json!({"event": "round", "time": 1e9 + 30.0 * f64::from(round), "round": round, "loss": loss,
                "deltas_folded": 3 * round, "deltas_late": 0});
            events += &(event.to_string() + "\n");
        }
        folder.place.file("node/events.jsonl", events + "half a li")?;
        folder.place.file("node/log", "2025-11-22T15:12:00.123456Z  INFO joined the swarm \x1b[2J\n")?;
        Ok(folder)
    }

    /// Writes a status as old as that; without an age, one that stays new.
    fn status(&self, round: u64, phase: &str, age: Option<u64>) -> Result<()> {
        let status = json!({
            "phase": phase, "detail": "", "pid": 1, "peer_id": "12D3KooWabcdefghijkl", "name": "swarm\x1b]0;x\x07",
            "model": "nano", "round": round, "rounds_target": 40, "loss": 2.45, "peers": 1, "estimated_peers": 2,
            "state_digest": "a0af77a7", "agreement": {"same": 1, "differ": 0, "unknown": 0},
            "guest": {"trains": true, "share": 1.0, "words": "training", "objections": []},
            "network": {"peers": [{"peer_id": "12D3KooWzyxwvutsrqpo", "routes": [{"route": "direct", "over": "tcp",
                "ip": 4, "address": "/ip4/127.0.0.1/tcp/4001", "latency_ms": 7}]}]},
        });
        let partial = self.place.file("node/status.new", status.to_string())?;
        let now = SystemTime::now();
        let at = match age {
            Some(age) => now.checked_sub(Duration::from_secs(age)),
            None => now.checked_add(Duration::from_secs(3600)),
        };
        File::options().append(true).open(&partial)?.set_modified(at.context("no such time")?)?;
        fs::rename(partial, self.place.path("node/status.json")).map_err(Into::into)
    }

    fn top(&self, environment: &[(&str, &str)]) -> Result<Terminal> {
        let dir = self.place.path("node");
        let dir = dir.to_str().context("a folder without a name")?;
        Terminal::start(program::swarm()?, &["top", "--dir", dir], environment, 80, 24)
    }

    fn paused(&self) -> bool {
        let control = fs::read(self.place.path("node/control")).unwrap_or_default();
        serde_json::from_slice::<Value>(&control).is_ok_and(|control| control["paused_until"].is_u64())
    }
}

#[test]
fn keys_sizes_and_a_restart_of_the_node() -> Result<()> {
    let folder = Folder::new()?;
    let mut top = folder.top(&[])?;
    top.shows("12 of 40")?;
    for word in [
        "2.450 nats a token",
        "the same as 1 of 1 neighbour",
        "7 ms  direct  TCP/IPv4",
        "loss: line = training",
    ] {
        top.shows(word)?;
    }
    // What others wrote is shown, not obeyed.
    top.shows("joined the swarm \\u{1b}[2J")?;
    ensure!(top.coloured() > 0, "a terminal with colours has some:\n{}", top.text());
    top.resize(40, 12)?;
    top.wait_for("a small frame", |shown| shown.contains("peers: 1") && !shown.contains("loss: line"))?;
    top.resize(20, 5)?;
    top.shows("takes 40 x 10")?;
    top.resize(120, 40)?;
    top.wait_for("a wide frame", |shown| {
        shown.lines().any(|line| line.contains("loss: line") && line.contains("peers: 1"))
    })?;
    top.press("?")?;
    top.shows("leave; the node goes on")?;
    top.press("\x1b")?;
    top.wait_for("the end of the help", |shown| !shown.contains("leave; the node goes on"))?;
    top.press("\t")?;
    top.shows("▶ log")?;
    top.press("p")?;
    top.shows("asked it to pause")?;
    ensure!(folder.paused(), "no pause is in the folder");
    top.press("p")?;
    top.shows("asked it to go on")?;
    ensure!(!folder.paused(), "a pause is in the folder");
    folder.status(12, "stopped", Some(12))?;
    top.shows("does not run since")?;
    folder.place.file("node/status.json", "{\"round\": 1")?;
    top.shows("its status cannot be read; waiting")?;
    folder.status(13, "training", None)?;
    top.shows("13 of 40")?;
    top.wait_for("a node that runs", |shown| !shown.contains("waiting"))?;
    top.press("q")?;
    ensure!(top.leaves()?.success(), "q is no failure");
    Ok(())
}

#[test]
fn the_terminal_is_as_it_was_whatever_ends_it() -> Result<()> {
    let folder = Folder::new()?;
    for keys in ["q", "\x1b", "\x03"] {
        let mut top = folder.top(&[])?;
        top.shows("12 of 40")?;
        top.press(keys)?;
        ensure!(top.leaves()?.success(), "{keys:?} is no failure");
    }
    for signal in ["TERM", "HUP", "INT", "QUIT"] {
        let mut top = folder.top(&[])?;
        top.shows("12 of 40")?;
        let sent = Command::new("sh").arg("-c").arg(format!("kill -s {signal} {}", top.id())).status()?;
        ensure!(sent.success(), "cannot send {signal}");
        top.leaves().with_context(|| format!("after {signal}"))?;
    }
    Ok(())
}

#[test]
fn without_colours_without_unicode_and_on_a_dumb_terminal() -> Result<()> {
    let folder = Folder::new()?;
    let mut top = folder.top(&[("NO_COLOR", "1"), ("LC_ALL", "C")])?;
    top.shows("12 of 40")?;
    top.shows("####")?;
    top.shows("q quit")?;
    ensure!(top.coloured() == 0 && top.text().is_ascii(), "{}", top.text());
    top.press("q")?;
    top.leaves()?;
    let mut top = folder.top(&[("TERM", "dumb")])?;
    top.shows("a line a round follows")?;
    top.shows("round 12 of 40: loss 2.450")?;
    folder.status(13, "training", None)?;
    top.shows("round 13 of 40")?;
    top.press("\x03")?;
    top.leaves().map(drop)
}

#[test]
fn once_and_for_pipes_it_is_text() -> Result<()> {
    let folder = Folder::new()?;
    let once = |width: &str, height: &str| -> Result<String> {
        let mut command = Command::new(program::swarm()?);
        command.args(["top", "--once"]).env("SWARM_DIR", folder.place.path("node")).env("LC_ALL", "C.UTF-8");
        let output = command.env("COLUMNS", width).env("LINES", height).output()?;
        ensure!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = once("80", "24")?;
    for word in ["12 of 40", "2.450", "peers: 1", "joined the swarm"] {
        ensure!(text.contains(word), "'{word}' is not in\n{text}");
    }
    ensure!(!text.contains('\x1b') && !text.contains("q quit"), "{text}");
    ensure!(text.lines().count() <= 24 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    ensure!(once("20", "5")?.contains("takes 40 x 10"));
    for (dir, word) in [("nowhere", "no such folder"), (".", "no node's folder")] {
        folder.place.swarm(["top", "--dir", dir])?.refused(1, &[word])?;
    }
    Ok(())
}
