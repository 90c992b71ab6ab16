//! What survives a kill, a stop, a damaged file and a full disk.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_tests::place::Node;
use swarm_tests::report::{address, agreed, number};
use swarm_tests::{Place, Signal, program};

/// The own deltas on a node's disk, by round.
fn outbox(node: &Node) -> Result<BTreeMap<u64, Vec<u8>>> {
    let mut deltas = BTreeMap::new();
    for entry in fs::read_dir(node.dir().join("outbox"))? {
        let path = entry?.path();
        // Beside them there may be one that was being written.
        let round = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let Some(round) = round {
            deltas.insert(round, fs::read(&path)?);
        }
    }
    Ok(deltas)
}

/// One of three is killed, the others go on, it comes back with the same command: it catches up, signs no
/// round twice, and all agree at the end.
#[test]
fn a_killed_node_comes_back_and_signs_nothing_twice() -> Result<()> {
    const ROUNDS: u64 = 60;
    let place = Place::with_genesis()?;
    let mut first = place.node("first")?.rounds(&ROUNDS.to_string()).start()?;
    let there = address(&mut first, "/tcp/")?;
    first.signal(Signal::Stop)?;
    let command = place.node("killed")?.bootstrap(&there).rounds(&ROUNDS.to_string());
    let mut killed = command.start()?;
    let mut third = place.node("third")?.bootstrap(&there).rounds(&ROUNDS.to_string()).start()?;
    killed.wait_for_phase("waiting for peers")?;
    third.wait_for_phase("waiting for peers")?;
    first.signal(Signal::Continue)?;
    // In the middle of things: all three train, and it has published a few.
    third.wait_for_phase("training")?;
    killed.until("five own deltas", |_| (outbox(&command).ok()?.len() >= 5).then_some(()))?;
    killed.kill()?;
    let before = outbox(&command)?;
    let (last, _) = before.last_key_value().context("it has published nothing")?;

    let away = first.wait_for_round(0)?;
    first.wait_for_round(away + 4)?;
    third.wait_for_round(away + 4)?;
    first.signal(Signal::Stop)?;
    third.signal(Signal::Stop)?;
    let mut back = command.start()?;
    back.wait_for_phase("waiting for peers")?;
    first.signal(Signal::Continue)?;
    third.signal(Signal::Continue)?;
    back.wait_for_log("joined the swarm at round")?;
    back.until("an own delta", |_| (outbox(&command).ok()?.last_key_value()?.0 > last).then_some(()))?;
    for (round, delta) in outbox(&command)? {
        let same = before.get(&round).is_none_or(|held| *held == delta);
        assert!(same, "round {round} was signed before the kill and again after it");
    }
    let reports = agreed(&mut [&mut first, &mut back, &mut third], ROUNDS)?;
    assert!(back.log()?.contains("going on from round"), "{}", back.log()?);
    for process in [&first, &back, &third] {
        let log = process.log()?;
        assert!(!log.contains("signed two deltas"), "{log}");
    }
    let again = number(&reports[1], "deltas_published")?;
    assert!(again > 0 && again < ROUNDS - last, "it published {again} after round {last}");
    Ok(())
}

/// Killed at the worst moment, when the first delta is out and no snapshot has been written: the same
/// command goes on, and the round is not signed again.
#[test]
fn a_node_that_is_killed_before_its_first_snapshot_goes_on() -> Result<()> {
    let place = Place::with_genesis()?;
    let command = place.node("node")?;
    let mut node = command.clone().start()?;
    node.until("its first delta", |_| outbox(&command).ok()?.get(&0).map(drop))?;
    node.kill()?;
    // Whether or not the kill was quick enough, this is how the disk looks if it is.
    let _ = fs::remove_file(command.dir().join("snapshot"));
    let before = outbox(&command)?;
    let mut node = command.rounds("8").start()?;
    let log = node.success()?;
    assert!(!log.contains("signed two deltas"), "{log}");
    let report = node.report()?;
    let signed = before.last_key_value().context("nothing was published")?.0 + 1;
    assert_eq!(number(&report, "deltas_published")?, 8 - signed);
    assert_eq!(number(&report, "deltas_folded")?, 8, "what was published counts: {report}");
    Ok(())
}

/// Ctrl-C, and a request to terminate, save everything; the same command goes on where it stopped.
#[test]
fn a_stopped_node_goes_on_where_it_stopped() -> Result<()> {
    let place = Place::with_genesis()?;
    let command = place.node("node")?;
    let mut node = command.start()?;
    node.wait_for_round(4)?;
    let log = node.interrupt()?;
    assert!(log.contains("stopped: everything is in"), "{log}");
    let first = node.report()?;
    assert_eq!(first["finished"], false);
    let reached = number(&first, "rounds")?;

    let mut node = command.start()?;
    node.wait_for_log(&format!("going on from round {reached}"))?;
    node.wait_for_round(reached + 2)?;
    node.signal(Signal::Terminate)?;
    node.success()?;
    let second = node.report()?;
    let stopped = number(&second, "rounds")?;
    assert!(stopped >= reached + 2);

    let mut node = command.clone().rounds("+3").start()?;
    let log = node.success()?;
    assert!(log.contains(&format!("going on from round {stopped}")), "{log}");
    let report = node.report()?;
    assert_eq!(number(&report, "rounds")?, stopped + 3);
    let published = |report: &Value| number(report, "deltas_published");
    let signed = published(&first)? + published(&second)? + published(&report)?;
    assert_eq!(signed, stopped + 3, "every round is signed once, in whichever run");
    // The model went on too, and did not start again.
    let losses = (first["loss_first"].as_f64(), report["loss_last"].as_f64());
    assert!(losses.1 < losses.0, "{losses:?}");
    Ok(())
}

/// One flipped bit in the snapshot: it is set aside and named, what is shared comes from the others.
#[test]
fn a_damaged_snapshot_is_set_aside_and_the_node_joins_again() -> Result<()> {
    const ROUNDS: u64 = 40;
    let place = Place::with_genesis()?;
    let mut first = place.node("first")?.rounds(&ROUNDS.to_string()).start()?;
    let there = address(&mut first, "/tcp/")?;
    first.signal(Signal::Stop)?;
    let command = place.node("damaged")?.bootstrap(&there).rounds(&ROUNDS.to_string());
    let mut node = command.start()?;
    node.wait_for_phase("waiting for peers")?;
    first.signal(Signal::Continue)?;
    node.wait_for_log("joined the swarm at round")?;
    let joined = node.wait_for_round(0)?;
    node.wait_for_round(joined + 4)?;
    node.interrupt()?;

    let snapshot = command.dir().join("snapshot");
    let mut bytes = fs::read(&snapshot)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, &bytes)?;
    let mut back = command.start()?;
    back.wait_for_log("joined the swarm at round")?;
    let log = back.log()?;
    let aside = command.dir().join("snapshot.damaged-1");
    let told = |line: &str| line.contains("is damaged") && line.contains(&aside.display().to_string());
    assert!(log.lines().any(told), "{log}");
    assert_eq!(fs::read(&aside)?, bytes, "the damaged file is kept as it was");
    let reports = agreed(&mut [&mut first, &mut back], ROUNDS)?;
    assert!(number(&reports[1], "deltas_published")? > 0);
    assert!(!first.log()?.contains("signed two deltas"), "{}", first.log()?);
    Ok(())
}

/// A file system of a few megabytes, gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `path`; `None` if this process may not.
    fn mount(path: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let mount = ["-t", "tmpfs", "-o", "size=12m", "swarm-tests"];
        let mounted = Command::new("mount").args(mount).arg(path).output();
        Ok(mounted.is_ok_and(|done| done.status.success()).then(|| Self(path.to_owned())))
    }

    /// Fills what is left of it.
    fn fill(&self) -> Result<()> {
        let block = vec![b'x'; 4096];
        let mut file = fs::File::options().create(true).append(true).open(self.filler())?;
        loop {
            match std::io::Write::write_all(&mut file, &block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
    }

    fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("cannot free the disk")
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a process that is being killed may still be on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The disk is full, at the start and in the middle: the error names the file and the cause, and with
/// space again the same command goes on from where it was.
#[test]
fn a_full_disk_ends_the_node_with_a_word_and_nothing_is_lost() -> Result<()> {
    let place = Place::with_genesis()?;
    let Some(disk) = SmallDisk::mount(&place.path("disk"))? else {
        program::skipped("a full disk: only root can mount a small file system");
        return Ok(());
    };
    let dir = disk.0.join("node");
    let command = place.node("node")?.in_dir(&dir).rounds("30");
    disk.fill()?;
    let full = &["No space left on device", "is the disk full"];
    let exit = command.start()?.exit()?;
    ensure!(exit.code == Some(1) && exit.log.contains("No space left on device"), "{exit:?}");
    disk.free()?;

    let mut node = command.start()?;
    node.until("a snapshot", |_| dir.join("snapshot").exists().then_some(()))?;
    node.wait_for_round(3)?;
    disk.fill()?;
    let exit = node.exit()?;
    exit.refused(1, full)?;
    exit.refused(1, &[&dir.join("outbox").display().to_string()])?;
    let before = outbox(&command)?;
    let last = *before.last_key_value().context("it had published nothing")?.0;
    disk.free()?;

    let mut node = command.start()?;
    let log = node.success()?;
    assert!(log.contains("going on from round"), "{log}");
    assert!(!log.contains("signed two deltas"), "{log}");
    let report = node.report()?;
    assert_eq!((number(&report, "rounds")?, number(&report, "deltas_published")?), (30, 30 - 1 - last));
    Ok(())
}
