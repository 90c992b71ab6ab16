//! kill -9 under load: one node of a small swarm is killed at random moments, again and again.
//!
//! `SWARM_KILLS` says how often (10 by default, 50 for a long run), `SWARM_SEED` which moments.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use swarm_tests::place::Node;
use swarm_tests::report::{address, agreed, number};
use swarm_tests::{Place, Process, Signal};

/// Time between two snapshots of the node that is killed.
const INTERVAL: Duration = Duration::from_secs(2);
/// What a loaded machine may take longer to write one.
const SLACK: Duration = Duration::from_secs(5);
/// Rounds that all do together at the end.
const LAST_ROUNDS: u64 = 20;

/// Numbers that look random and are the same for the same seed (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    /// One of 0 to `below` - 1.
    fn throw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(value) => value.parse().with_context(|| format!("{name}={value} is not a number")),
        Err(_) => Ok(default),
    }
}

/// What is on a node's disk about its own deltas.
struct Signed {
    /// The first round that has not been signed, as the mark has it.
    next: u64,
    /// The deltas in the outbox by round.
    outbox: BTreeMap<u64, Vec<u8>>,
}

/// Reads it while the node is not running.
fn signed(node: &Node) -> Result<Signed> {
    let mark = fs::read(node.dir().join("signed"))?;
    let next = mark.get(15..23).and_then(|bytes| bytes.try_into().ok()).context("no mark")?;
    let mut outbox = BTreeMap::new();
    for entry in fs::read_dir(node.dir().join("outbox"))? {
        let path = entry?.path();
        let round = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let Some(round) = round {
            outbox.insert(round, fs::read(&path)?);
        }
    }
    Ok(Signed { next: u64::from_le_bytes(next), outbox })
}

fn newest(node: &Node) -> Option<u64> {
    let names = fs::read_dir(node.dir().join("outbox")).ok()?;
    names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
}

fn saved(node: &Node) -> Option<SystemTime> {
    fs::metadata(node.dir().join("snapshot")).ok()?.modified().ok()
}

/// Waits for something that only happens while it works, or for nothing at all, and then for a random
/// moment. Returns in words what it waited for, and whether the `others` stand still now.
///
/// While a node is away, the others go on, and it never gets to sign the rounds again that it may have
/// forgotten. Where they stand still before it signs, it comes back to the very rounds that it has just
/// signed: the most dangerous moment of all.
fn wait_for_a_moment(
    node: &Node,
    process: &mut Process,
    others: [&mut Process; 2],
    dice: &mut Dice,
) -> Result<(&'static str, bool)> {
    let kind = dice.throw(6);
    if kind > 0 {
        process.wait_for_log("joined the swarm at round")?;
    }
    let held = kind >= 4;
    if held {
        for other in others {
            other.signal(Signal::Stop)?;
        }
    }
    let (before, signed) = (saved(node), newest(node));
    let mut delta = || process.until("an own delta", |_| (newest(node) > signed).then_some(()));
    let (what, most) = match kind {
        0 => ("after its start", 2500),
        1 => ("after joining", 1500),
        2 => {
            delta()?;
            ("after a delta", 400)
        }
        3 => {
            process.until("a snapshot", |_| (saved(node) != before).then_some(()))?;
            ("after a snapshot", 2500)
        }
        _ => {
            delta()?;
            ("after a delta while the others stand still", 100)
        }
    };
    // The moment is what is random here: nothing is waited for.
    std::thread::sleep(Duration::from_millis(dice.throw(most)));
    Ok((what, held))
}

/// Starts the node again; if the `others` are held, they go on when it is about to join them.
fn come_back(node: &Node, held: bool, others: [&mut Process; 2]) -> Result<Process> {
    let mut process = node.start()?;
    if held {
        process.wait_for_phase("waiting for peers")?;
        for other in others {
            other.signal(Signal::Continue)?;
        }
    }
    Ok(process)
}

#[test]
fn a_node_that_is_killed_at_any_moment_goes_on_and_signs_nothing_twice() -> Result<()> {
    let (kills, seed) = (setting("SWARM_KILLS", 10)?, setting("SWARM_SEED", 1)?);
    let mut dice = Dice(seed);
    let place = Place::with_genesis()?;
    let (one, two) = (place.node("one")?, place.node("two")?);
    let mut first = one.start()?;
    let there = address(&mut first, "/tcp/")?;
    let mut second = two.clone().bootstrap(&there).start()?;
    let command = place.node("killed")?.arg("--snapshot-seconds").arg(INTERVAL.as_secs().to_string());
    let joining = command.clone().bootstrap(&there);

    let began = Instant::now();
    let mut logs = Vec::new();
    let mut known: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let (mut next, mut longest, mut held) = (0, Duration::ZERO, false);
    let mut node = joining.start()?;
    node.until("its first delta", |_| newest(&command))?;
    for kill in 1..=kills {
        let started = SystemTime::now();
        if kill > 1 {
            node = come_back(&joining, held, [&mut first, &mut second])?;
        }
        let what;
        (what, held) = wait_for_a_moment(&command, &mut node, [&mut first, &mut second], &mut dice)?;
        // A node that ended by itself is an error here: every restart has to succeed.
        node.kill().with_context(|| format!("kill {kill}, {what}"))?;
        let killed = SystemTime::now();
        logs.push(node.log()?);

        // What it learned since the last snapshot, and had not told, is lost.
        let since = saved(&command).map_or(started, |saved| saved.max(started));
        let lost = killed.duration_since(since).unwrap_or_default();
        ensure!(lost < INTERVAL + SLACK, "kill {kill}, {what}: {lost:?} since the last snapshot");
        longest = longest.max(lost);

        let now = signed(&command)?;
        // A kill between a delta and the mark leaves the mark one behind until the next start.
        let newest = now.outbox.last_key_value().map_or(0, |(round, _)| round + 1);
        let known_next = now.next.max(newest);
        ensure!(known_next >= next, "what was signed is forgotten: {next} became {known_next}");
        for (round, delta) in now.outbox {
            // Below the mark of the last time there can be nothing new, and nothing different.
            let same = if round < next { known.get(&round) == Some(&delta) } else { true };
            ensure!(same, "kill {kill}, {what}: round {round} was signed twice (the mark said {next})");
            known.insert(round, delta);
        }
        next = known_next;
        eprintln!("kill {kill}, {what}: {next} rounds, {:.1} s of work lost", lost.as_secs_f64());
    }
    let took = began.elapsed().as_secs_f64();

    // All together once more, to one end.
    node = come_back(&joining, held, [&mut first, &mut second])?;
    node.wait_for_log("joined the swarm at round")?;
    node.until("an own delta", |_| (newest(&command)? >= next).then_some(()))?;
    let mut reached = 0;
    for process in [&mut first, &mut second, &mut node] {
        logs.push(process.interrupt()?);
        reached = reached.max(number(&process.report()?, "rounds")?);
    }
    let target = (reached + LAST_ROUNDS).to_string();
    let mut first = one.rounds(&target).start()?;
    let there = address(&mut first, "/tcp/")?;
    let mut second = two.bootstrap(&there).rounds(&target).start()?;
    let mut node = command.bootstrap(&there).rounds(&target).start()?;
    let reports = agreed(&mut [&mut first, &mut second, &mut node], reached + LAST_ROUNDS)?;
    ensure!(number(&reports[2], "deltas_published")? > 0, "{}", reports[2]);
    for process in [&first, &second, &node] {
        logs.push(process.log()?);
    }
    for log in &logs {
        for words in ["signed two deltas", "somebody else publishes", "is damaged", "cannot be used"] {
            ensure!(!log.contains(words), "'{words}' in a log:\n{log}");
        }
    }
    eprintln!(
        "{kills} kills (seed {seed}) in {took:.0} s; {reached} rounds, no round signed twice, at most {:.1} s of work lost, \
         {} logs without a word of it, equal digests at the end",
        longest.as_secs_f64(),
        logs.len()
    );
    Ok(())
}
