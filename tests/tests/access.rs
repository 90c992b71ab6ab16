//! Closed swarms: who is admitted trains with the others; who is not is told what to do, and gets nothing.
#![cfg(unix)]

use std::fs;

use anyhow::{Context, Result};
use swarm_tests::report::{address, agreed, number, text};
use swarm_tests::{Exit, Place, Process, Signal};

/// Exit status of a command that could not do what it was asked to.
const FAILED: i32 = 1;
const WAITING: &str = "waiting to be admitted";

/// A place with a closed genesis and the key that admits, `admin.key`.
fn place() -> Result<Place> {
    let place = Place::with_genesis()?;
    let made =
        place.swarm(["new", "--out", "closed.toml", "--access", "invite", "--admin-key", "admin.key"])?;
    made.refused(0, &["made admin.key", "can admit anybody", "swarm admit PEER"])?;
    let closed = fs::read_to_string(place.path("closed.toml"))?;
    let (_, access) = closed.split_once("\n[access]").context("no [access] in the genesis")?;
    let open = fs::read_to_string(place.path("genesis.toml"))?;
    place.file("genesis.toml", format!("{open}\n[access]{access}"))?;
    Ok(place)
}

/// The line in what a command printed.
fn line(exit: &Exit) -> Result<String> {
    let words = ["swarm-cert:", "swarm-revocation:"];
    let lines = exit.log.lines();
    let mut found = lines.filter(|line| words.iter().any(|word| line.starts_with(word)));
    found.next().map(str::to_owned).with_context(|| format!("no line in: {}", exit.log))
}

/// Admits the device with this peer id by the key of the genesis.
fn admit(place: &Place, peer: &str, more: &[&str]) -> Result<String> {
    let by = ["admit", peer, "--genesis", "genesis.toml", "--key", "admin.key"];
    let exit = place.swarm([&by, more].concat())?;
    exit.refused(0, &[&format!("{peer} is admitted")])?;
    line(&exit)
}

/// Waits until the node says that it is not admitted, and returns its peer id as the log names it.
fn asks(process: &mut Process) -> Result<String> {
    let status = process.wait_for_phase(WAITING)?;
    let peer = text(&status, "peer_id")?.to_owned();
    process.wait_for_log(&format!("`swarm admit {peer}`"))?;
    assert!(text(&status, "detail")?.contains(&format!("`swarm admit {peer}`")), "{status}");
    Ok(peer)
}

#[test]
fn two_who_are_admitted_train_and_agree_and_a_third_is_told_what_to_do() -> Result<()> {
    const ROUNDS: u64 = 60;
    let place = place()?;
    // Alone and not admitted it does not begin a swarm of its own.
    let mut first = place.node("first")?.rounds(&ROUNDS.to_string()).start()?;
    let peer = asks(&mut first)?;
    first.interrupt()?;
    let certificate = admit(&place, &peer, &[])?;
    let mut first =
        place.node("first")?.rounds(&ROUNDS.to_string()).arg("--certificate").arg(&certificate).start()?;
    let there = address(&mut first, "/tcp/")?;
    first.wait_for_round(1)?;
    // Held until the second is admitted: it is not to be done before.
    first.signal(Signal::Stop)?;
    // The second is admitted by nothing but a file that is left in its folder while it runs and asks.
    let mut second = place.node("second")?.bootstrap(&there).rounds(&ROUNDS.to_string()).start()?;
    let peer = asks(&mut second)?;
    let certificate = admit(&place, &peer, &["--rounds", "1000"])?;
    fs::create_dir_all(place.path("second/incoming"))?;
    fs::write(place.path("second/incoming/mail.txt"), certificate)?;
    second.wait_for_log("taken up")?;
    first.signal(Signal::Continue)?;
    let mut third = place.node("third")?.bootstrap(&there).start()?;
    asks(&mut third)?;
    first.wait_for_log("it is not admitted to this swarm")?;
    agreed(&mut [&mut first, &mut second], ROUNDS)?;
    let status = third.status().context("no status")?;
    assert_eq!((number(&status, "round")?, text(&status, "phase")?), (0, WAITING), "{status}");
    third.interrupt()?;
    assert_eq!(number(&third.report()?, "deltas_folded")?, 0);
    assert_eq!(number(&third.report()?, "deltas_published")?, 0);
    assert!(number(&second.report()?, "deltas_published")? > 0);
    // What was given once is kept.
    let id = place.swarm(["id", "--dir", "second"])?;
    id.refused(0, &["admitted: until round 1000"])?;
    place.swarm(["id", "--dir", "first"])?.refused(0, &["admitted: without an end"])?;
    place.swarm(["id", "--dir", "third"])?.refused(0, &["not admitted"])
}

#[test]
fn who_is_revoked_is_cut_off_while_the_others_go_on() -> Result<()> {
    let place = place()?;
    let mut first = place.node("first")?.start()?;
    let peer = asks(&mut first)?;
    // A delegate: it admits the second with its own identity.
    admit(&place, &peer, &["--may-admit"]).and_then(|line| place.file("first.cert", line))?;
    first.interrupt()?;
    let certified = |name: &str| -> Result<swarm_tests::place::Node> {
        Ok(place.node(name)?.arg("--certificate").arg(place.path(&format!("{name}.cert"))))
    };
    let mut first = certified("first")?.start()?;
    let there = address(&mut first, "/tcp/")?;
    first.wait_for_round(1)?;
    let mut second = place.node("second")?.bootstrap(&there).start()?;
    let peer = asks(&mut second)?;
    // By the node that admits telling the swarm, its own user has nothing to do.
    place
        .swarm(["admit", &peer, "--dir", "first"])?
        .refused(0, &["is admitted without an end", "left in first"])?;
    let at = second.wait_for_round(2)?;
    let revoke = ["revoke", &peer, "--dir", "first"];
    let soon = place.swarm([&revoke[..], &["--from-round", &at.to_string()]].concat())?;
    soon.refused(FAILED, &["--from-round", "are open", "or leave the flag out"])?;
    place.swarm(revoke)?.refused(0, &[&format!("{peer} is revoked from round")])?;
    first.wait_for_log(&format!("{peer} has been revoked"))?;
    first.wait_for("no peer", |status| status["peers"] == 0)?;
    second.wait_for("to know", |status| {
        status["detail"].as_str().is_some_and(|detail| detail.contains("not admitted any more"))
    })?;
    let log = second.interrupt()?;
    assert!(log.contains("this device has been revoked"), "{log}");
    place.swarm(revoke)?.refused(FAILED, &["revoked already"])?;
    place
        .swarm(["admit", &peer, "--dir", "first"])?
        .refused(FAILED, &["has been revoked", "new identity"])?;
    first.interrupt()?;
    Ok(())
}

#[test]
fn commands_of_closed_swarms_say_what_is_wrong() -> Result<()> {
    let place = place()?;
    place.swarm(["new", "--out", "open.toml"])?.refused(0, &[])?;
    place
        .swarm([
            "new",
            "--out",
            "other.toml",
            "--name",
            "other",
            "--access",
            "invite",
            "--admin-key",
            "admin.key",
        ])?
        .refused(0, &[])?;
    place
        .swarm(["new", "--out", "more.toml", "--access", "invite", "--admin-key", "other.key"])?
        .refused(0, &[])?;
    let peer = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";
    for (arguments, words) in [
        (&["new", "--out", "x.toml", "--access", "invite"][..], &["--admin-key FILE"][..]),
        (&["new", "--out", "x.toml", "--admin-key", "admin.key"], &["--access invite"]),
        (&["admit", peer], &["--genesis FILE", "--dir DIR"]),
        (&["admit", peer, "--genesis", "genesis.toml"], &["--key FILE"]),
        (&["admit", peer, "--genesis", "genesis.toml", "--key", "none.key"], &["none.key", "no such file"]),
        (
            &["admit", peer, "--genesis", "genesis.toml", "--key", "genesis.toml"],
            &["genesis.toml is damaged"],
        ),
        (&["admit", peer, "--genesis", "open.toml", "--key", "admin.key"], &["is open", "--access invite"]),
        (
            &["admit", peer, "--genesis", "genesis.toml", "--key", "other.key"],
            &["none of those that may admit"],
        ),
        (
            &["admit", peer, "--genesis", "genesis.toml", "--key", "admin.key", "--rounds", "+5"],
            &["--rounds +N", "--dir"],
        ),
        (&["revoke", peer, "--genesis", "genesis.toml", "--key", "admin.key"], &["--from-round", "--dir"]),
        (
            &["bootstrap", "--genesis", "genesis.toml", "--certificate", "swarm-cert:AAAA"],
            &["--certificate", "damaged"],
        ),
        (
            &["bootstrap", "--genesis", "genesis.toml", "--certificate", "nothing"],
            &["--certificate", "nothing"],
        ),
    ] {
        let exit = place.swarm(arguments)?;
        exit.refused(FAILED, words).with_context(|| format!("swarm {}", arguments.join(" ")))?;
    }
    place
        .swarm(["admit", "me", "--genesis", "genesis.toml"])?
        .refused(2, &["'me' is not a peer", "12D3KooW"])?;
    // A certificate of another swarm.
    let line = admit(&place, peer, &[])?;
    let wrong = place.swarm(["bootstrap", "--no-mdns", "--genesis", "other.toml", "--certificate", &line])?;
    wrong.refused(FAILED, &["that was given", "made for this swarm"])?;
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(place.path("admin.key"))?.permissions().mode() & 0o777, 0o600);
    Ok(())
}
