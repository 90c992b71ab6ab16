//! scripts/testnet.sh with the real program.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_tests::report::{number, text};
use swarm_tests::{Place, Process, Signal, program};

/// The keys of report.json.
const KEYS: &str = "swarm_id model parameters rounds agreed validation_loss baseline_validation_loss nodes";
/// The keys of one of its nodes.
const NODE_KEYS: &str = "peer_id rounds deltas_published deltas_folded late_deltas tokens loss_first loss_last \
                         validation_loss personal_validation_loss bytes_sent bytes_received delta_bytes_mean \
                         bits_per_coefficient log_digest state_digest seconds_training seconds_optimizing \
                         seconds_waiting tokens_per_second peak_memory_bytes";

/// Two nodes on a text of their own.
fn testnet(place: &Place, rounds: &str) -> Result<Process> {
    let data = place.text("text.txt", 1, 200_000)?;
    let out = place.path("out");
    let mut command = Command::new(program::repository().join("scripts/testnet.sh"));
    command.args(["--nodes", "2", "--rounds", rounds, "--data"]).arg(data).arg("--out").arg(&out);
    command.env("SWARM_BIN", program::swarm()?);
    Ok(Process::spawn("testnet", &mut command, &out, &place.path("testnet.log"))?.with_children())
}

fn keys(of: &Value) -> BTreeSet<&str> {
    of.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str)).collect()
}

/// The processes that wrote a status below `out`.
fn processes(out: &Path) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(out)? {
        if let Ok(status) = fs::read(entry?.path().join("status.json")) {
            all.push(number(&serde_json::from_slice(&status)?, "pid")?);
        }
    }
    Ok(all)
}

fn runs(process: u64) -> Result<bool> {
    let asked = Command::new("sh").arg("-c").arg(format!("kill -s 0 {process}")).output()?;
    Ok(asked.status.success())
}

#[test]
fn two_nodes_agree_and_the_report_has_every_key() -> Result<()> {
    let place = Place::new()?;
    let mut testnet = testnet(&place, "3")?;
    testnet.success()?;
    let report = testnet.report()?;
    assert_eq!(keys(&report), KEYS.split_whitespace().collect());
    assert_eq!(report["agreed"], true, "{report}");
    assert_eq!((number(&report, "rounds")?, text(&report, "model")?), (3, "nano"));
    assert!(report["validation_loss"].is_f64() && report["baseline_validation_loss"].is_null(), "{report}");
    let nodes = report["nodes"].as_array().context("no nodes")?;
    assert_eq!(nodes.len(), 2);
    for node in nodes {
        assert_eq!(keys(node), NODE_KEYS.split_whitespace().collect());
        assert!(node.as_object().is_some_and(|node| node.values().all(|value| !value.is_null())), "{node}");
        assert_eq!(text(node, "state_digest")?, text(&nodes[0], "state_digest")?);
        assert_eq!(number(node, "deltas_folded")?, 6, "three rounds of two nodes: {node}");
    }
    let page = fs::read_to_string(place.path("out/report.html"))?;
    let digest = text(&nodes[0], "state_digest")?;
    assert!(page.contains("<svg") && page.contains(digest), "the page has curves and the digest");
    for process in processes(&place.path("out"))? {
        assert!(!runs(process)?, "process {process} is left");
    }
    try_what_it_says(&place, &testnet.log()?)
}

/// The commands that it prints at its end work as they are printed.
fn try_what_it_says(place: &Place, said: &str) -> Result<()> {
    let text = place.text("own.txt", 7, 100_000)?;
    let program = program::swarm()?.to_str().context("a program without a name")?;
    let mut tried = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("    ")) {
        let words = shlex::split(line).with_context(|| format!("no command: {line}"))?;
        let [first, name, flags @ ..] = words.as_slice() else { continue };
        if first != program {
            continue;
        }
        let mut command = Command::new(program);
        command.arg(name).args(flags.iter().map(|flag| match flag.as_str() {
            "PATH" => text.as_os_str(),
            flag => flag.as_ref(),
        }));
        let (dir, log) = (place.path("out/node-1"), place.path(&format!("{name}.log")));
        let mut process = Process::spawn(name, &mut command, &dir, &log)?;
        match name.as_str() {
            "run" => {
                process.wait_for("steps on another text", |status| status["tokens"].as_u64() > Some(0))?;
                process.interrupt()?;
            }
            "dashboard" => {
                process.wait_for_log("http://")?;
                process.interrupt()?;
            }
            _ => {
                let log = process.success()?;
                assert!(!log.trim().is_empty(), "{name} says nothing");
            }
        }
        tried.push(name.clone());
    }
    assert_eq!(tried.len(), 3, "tried {tried:?} of\n{said}");
    assert_eq!((tried[0].as_str(), tried[2].as_str()), ("generate", "run"));
    Ok(())
}

#[test]
fn ctrl_c_leaves_a_report_and_no_process() -> Result<()> {
    let place = Place::new()?;
    let out = place.path("out");
    let mut testnet = testnet(&place, "100000")?;
    let training = |node: &str| -> Option<u64> {
        let status: Value =
            serde_json::from_slice(&fs::read(out.join(node).join("status.json")).ok()?).ok()?;
        status["round"].as_u64().filter(|round| *round >= 1)
    };
    testnet.until("both nodes train", |_| training("node-1").and(training("node-2")))?;
    let started = processes(&out)?;
    assert_eq!(started.len(), 3, "a bootstrap node and two that train");
    testnet.signal(Signal::Interrupt)?;
    testnet.exit()?.refused(130, &["Stopping"])?;
    for process in started {
        assert!(!runs(process)?, "process {process} is left");
    }
    let report = testnet.report()?;
    assert_eq!(keys(&report), KEYS.split_whitespace().collect());
    assert_eq!(report["agreed"], false, "they have not done their rounds");
    assert!(place.path("out/report.html").is_file());
    Ok(())
}
