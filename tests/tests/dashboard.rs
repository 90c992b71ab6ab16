//! Watching a node: the dashboard and the metrics, as a program asks for them and in a real browser.
#![cfg(unix)]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use swarm_tests::http::{self, Reply};
use swarm_tests::program::{self, repository, skipped};
use swarm_tests::{Place, Process, Signal};

/// What the log says after `words`, up to the end of its line; the last of them.
fn told(process: &mut Process, words: &str) -> Result<String> {
    process.until(words, |process| {
        let log = process.log().ok()?;
        let (_, rest) = log.rsplit_once(words)?;
        Some(rest.split_once('\n')?.0.trim().to_owned())
    })
}

/// Address and path of a URL.
fn parts(url: &str) -> Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("no URL: {url}"))?;
    let at = rest.find('/').with_context(|| format!("no path: {url}"))?;
    Ok(rest.split_at(at))
}

/// What the page is told first.
fn history(address: &str, path: &str) -> Result<Value> {
    let request = format!("GET {path}api/live HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut stream = http::send(address, request.as_bytes())?;
    stream.wait_for_line("event: history")?;
    let line = stream.wait_for_line("data: ")?;
    Ok(serde_json::from_str(line.trim_start_matches("data: "))?)
}

fn try_model(address: &str, path: &str, tokens: u32) -> Result<Reply> {
    let ask = json!({"prompt": "the round ", "tokens": tokens, "temperature": 0.5});
    http::post(address, &format!("{path}api/try"), "", &ask.to_string())
}

#[test]
fn a_running_node_is_watched_and_its_model_is_tried() -> Result<()> {
    let place = Place::with_genesis()?;
    let watched = place
        .node("node")?
        .arg("--snapshot-seconds")
        .arg("1")
        .arg("--dashboard")
        .arg("--metrics=127.0.0.1:0");
    let mut node = watched.start()?;
    let url = told(&mut node, "dashboard: ")?;
    let (address, path) = parts(&url)?;
    let metrics = told(&mut node, "metrics: ")?;
    let (counted, numbers) = parts(&metrics)?;
    node.wait_for_round(3)?;

    let page = http::get(address, path, "")?;
    ensure!(page.status == 200 && page.body.contains("<main"), "{page:?}");
    http::get(address, "/", "")?.refused(404, &["token"])?;
    // Two names are none.
    http::get(address, path, "Host: evil.example\r\n")?.refused(403, &["Host"])?;
    let events = history(address, path)?["events"].clone();
    let kinds: Vec<&str> =
        events.as_array().into_iter().flatten().filter_map(|event| event["event"].as_str()).collect();
    ensure!(kinds.contains(&"started") && kinds.contains(&"round"), "{events}");

    let sheet = http::get(counted, numbers, "")?;
    ensure!(sheet.status == 200, "{sheet:?}");
    for line in
        ["# TYPE swarm_rounds counter", "swarm_phase{phase=\"training\"} 1", "swarm_governor_trains 1"]
    {
        ensure!(sheet.body.contains(line), "'{line}' is not in {}", sheet.body);
    }
    http::get(counted, "/", "")?.refused(404, &["/metrics"])?;

    let said = node.until("a model that can be tried", |_| {
        try_model(address, path, 20).ok().filter(|reply| reply.status != 409)
    })?;
    ensure!(said.status == 200 && !said.body.is_empty(), "{said:?}");
    ensure!(!said.body.starts_with("the round"), "only what is new: {said:?}");
    // One at a time; who goes away is not written for.
    let ask = json!({"prompt": "x", "tokens": 1000, "temperature": 1}).to_string();
    let mut first =
        http::send(address, http::posted(address, &format!("{path}api/try"), "", &ask).as_bytes())?;
    first.wait_for_line("HTTP/1.1 200")?;
    let second = try_model(address, path, 1)?;
    // It may have been quick.
    ensure!([200, 429].contains(&second.status), "{second:?}");
    drop(first);
    node.until("a free place", |_| try_model(address, path, 1).ok().filter(|reply| reply.status == 200))?;

    node.signal(Signal::Kill)?;
    drop(node);
    // The same address, for the same node, and for the page alone.
    let mut node = watched.start()?;
    assert_eq!(told(&mut node, "dashboard: ")?, url);
    // It listens to signals only when it has begun.
    node.wait_for_phase("training")?;
    node.interrupt()?;
    let mut command = Command::new(program::swarm()?);
    command.args(["dashboard", "--dir"]).arg(place.path("node"));
    let mut alone = Process::spawn("dashboard", &mut command, &place.path("node"), &place.path("alone.log"))?;
    assert_eq!(told(&mut alone, "dashboard: ")?, url);
    let stopped = history(address, path)?["events"].to_string();
    ensure!(stopped.contains("\"stopped\""), "{stopped}");
    alone.interrupt()?;
    Ok(())
}

#[test]
fn others_are_let_watch_only_if_that_is_said() -> Result<()> {
    let place = Place::with_genesis()?;
    let node = |flag: &str| place.node("node")?.arg(flag).start()?.exit();
    node("--dashboard=0.0.0.0:0")?
        .refused(1, &["--dashboard 0.0.0.0:0 can be reached by others", "--let-others-watch"])?;
    node("--metrics=0.0.0.0:0")?.refused(1, &["--metrics 0.0.0.0:0", "--let-others-watch"])?;
    node("--metrics=here")?.refused(1, &["--metrics here", "IP:PORT"])?;
    let nowhere = place.swarm(["dashboard", "--dir", "nowhere"])?;
    nowhere.refused(1, &["nowhere is no node's folder"])
}

#[test]
fn the_page_works_in_a_real_browser() -> Result<()> {
    let noted = repository().join(".dashboard/browser");
    if !noted.exists() {
        skipped(&format!(
            "{} is not there: run ./scripts/dashboard.sh, which puts it there",
            noted.display()
        ));
        return Ok(());
    }
    let place = Place::with_genesis()?;
    place.text("text.txt", 7, 40_000)?;
    let done = Command::new(repository().join(".dashboard/venv/bin/python"))
        .arg("-B")
        .arg(repository().join("scripts/dashboard/check.py"))
        .env("SWARM_PROGRAM", program::swarm()?)
        .env("SWARM_PLACE", place.path(""))
        .output()
        .context("cannot start the browser's tests")?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    println!("{said}");
    ensure!(done.status.success() && said.contains("\nOK"), "{said}");
    Ok(())
}
