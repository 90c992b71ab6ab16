//! Every file of a node's home, damaged while it was killed: the node says which, and goes on or says why
//! not; and no round is ever signed twice. (The store's own tests try every kind of damage to every file.)
#![cfg(unix)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use swarm_tests::place::{Node, WINDOW};
use swarm_tests::report::{address, agreed, number};
use swarm_tests::{Place, Process};

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Cut,
    Empty,
    Remove,
}

impl Damage {
    fn strike(self, path: &Path) -> Result<()> {
        let mut bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        match self {
            Self::Flip => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            Self::Cut => bytes.truncate(bytes.len() * 2 / 3),
            Self::Empty => bytes.clear(),
            Self::Remove => return Ok(fs::remove_file(path)?),
        }
        Ok(fs::write(path, bytes)?)
    }
}

/// The names in a folder that are numbers, in order.
fn numbers(folder: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The rounds in a node's outbox.
fn outbox(node: &Node) -> Result<Vec<u64>> {
    numbers(&node.dir().join("outbox"))
}

/// Waits until it has signed a later round than `last` and has a snapshot, kills it, and returns the last
/// round that it signed.
fn work_and_kill(node: &Node, process: &mut Process, last: Option<u64>) -> Result<u64> {
    process.until("a later own delta", |_| (outbox(node).ok()?.last().copied() > last).then_some(()))?;
    process.until("a snapshot", |_| node.dir().join("snapshot").exists().then_some(()))?;
    process.kill()?;
    outbox(node)?.last().copied().context("no own delta")
}

#[test]
fn a_node_goes_on_whichever_of_its_files_is_damaged() -> Result<()> {
    let place = Place::with_genesis()?;
    let steady = place.node("steady")?;
    let mut first = steady.start()?;
    let there = address(&mut first, "/tcp/")?;
    let home = place.node("damaged")?.arg("--snapshot-seconds").arg("1");
    let command = home.clone().bootstrap(&there);
    let path = |file: &str| command.dir().join(file);
    let mut process = command.start()?;
    let mut last = work_and_kill(&command, &mut process, None)?;

    let newest = |last: u64| format!("outbox/{last}");
    let cases = [
        ("snapshot", Damage::Flip),
        ("snapshot", Damage::Empty),
        ("outbox", Damage::Cut),
        ("outbox", Damage::Remove),
        ("signed", Damage::Flip),
        ("signed", Damage::Remove),
        ("genesis.toml", Damage::Cut),
        ("status.json", Damage::Cut),
        ("status.json", Damage::Remove),
    ];
    let mut logs = Vec::new();
    for (kind, damage) in cases {
        let file = if kind == "outbox" { newest(last) } else { kind.to_owned() };
        damage.strike(&path(&file))?;
        process = command.start()?;
        process.wait_for_log("joined the swarm at round")?;
        last = work_and_kill(&command, &mut process, Some(last))
            .with_context(|| format!("{damage:?} {file}"))?;
        let log = process.log()?;
        let named = log.lines().any(|line| {
            line.contains(&format!("{file} is damaged")) && line.contains(&format!("{file}.damaged-"))
        });
        let told = !matches!(damage, Damage::Remove) && kind != "status.json";
        ensure!(named == told, "{damage:?} {file}: told {named} instead of {told}:\n{log}");
        ensure!(path(&file).exists() || kind == "outbox", "{file} is not there again");
        logs.push(log);
    }

    // All that tells what was signed last is lost: it finds out, or waits until it cannot matter.
    fs::remove_file(path("signed"))?;
    fs::remove_dir_all(path("outbox"))?;
    process = command.start()?;
    process.wait_for_log("what this node's identity signed last is not known")?;
    process.wait_for_log("joined the swarm at round")?;
    let joined = process.wait_for_round(0)?;
    process.wait_for_log("publishing again")?;
    let waited = process.wait_for_round(0)? - joined;
    ensure!(waited + 3 >= 2 * WINDOW, "it waited for {waited} rounds only");
    let before = last;
    last = work_and_kill(&command, &mut process, Some(last))?;
    ensure!(outbox(&command)?.iter().all(|round| *round > before + WINDOW), "{:?}", outbox(&command)?);
    logs.push(process.log()?);

    // The genesis without another one to take it from, and the key: errors that say what to do.
    let genesis = fs::read(path("genesis.toml"))?;
    Damage::Cut.strike(&path("genesis.toml"))?;
    let run = ["run", "--no-mdns", "--threads", "1", "--data", "damaged.txt", "--dir", "damaged"];
    place.swarm(run)?.refused(1, &["damaged/genesis.toml is damaged", "--genesis FILE"])?;
    fs::write(path("genesis.toml"), genesis)?;
    let key = fs::read(path("identity.key"))?;
    for damage in [Damage::Flip, Damage::Cut, Damage::Empty] {
        damage.strike(&path("identity.key"))?;
        let bytes = fs::read(path("identity.key"))?;
        place.swarm(run)?.refused(1, &["damaged/identity.key is damaged", "backup", "--dir"])?;
        ensure!(fs::read(path("identity.key"))? == bytes, "a key is never replaced");
        fs::write(path("identity.key"), &key)?;
    }
    fs::remove_file(path("identity.key"))?;
    place.swarm(run)?.refused(1, &["damaged/identity.key is missing", "backup"])?;
    ensure!(!path("identity.key").exists(), "a key is never replaced");
    fs::write(path("identity.key"), &key)?;

    // By now rounds have settled, and it keeps checkpoints for others.
    let newest = numbers(&path("checkpoints"))?.pop().context("no checkpoint")?;
    Damage::Flip.strike(&path(&format!("checkpoints/{newest}")))?;
    process = command.start()?;
    process.wait_for_log(&format!("checkpoints/{newest} is damaged"))?;
    last = work_and_kill(&command, &mut process, Some(last))?;
    ensure!(path(&format!("checkpoints/{newest}.damaged-1")).exists(), "it is not set aside");
    logs.push(process.log()?);

    // After all of this it is still the same peer, holds the same model, and nobody saw it sign twice.
    process = command.start()?;
    work_and_kill(&command, &mut process, Some(last))?;
    logs.push(process.log()?);
    logs.push(first.interrupt()?);
    let target = number(&first.report()?, "rounds")? + 20;
    let mut first = steady.rounds(&target.to_string()).start()?;
    let there = address(&mut first, "/tcp/")?;
    let mut process = home.bootstrap(&there).rounds(&target.to_string()).start()?;
    agreed(&mut [&mut first, &mut process], target)?;
    logs.extend([first.log()?, process.log()?]);
    for log in logs {
        ensure!(!log.contains("signed two deltas") && !log.contains("somebody else publishes"), "{log}");
    }
    Ok(())
}
