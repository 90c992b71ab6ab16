//! A node that makes room for whoever uses the device, and one that is told to.
#![cfg(unix)]

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_tests::report::{address, agreed, number};
use swarm_tests::{Place, Process, program};

/// Whether the governor lets a node train.
fn trains(status: &Value) -> bool {
    status["guest"]["trains"] == true
}

#[test]
fn a_paused_node_stays_in_touch_and_loses_nothing() -> Result<()> {
    const ROUNDS: u64 = 60;
    let place = Place::with_genesis()?;
    let mut first = place.node("first")?.rounds(&ROUNDS.to_string()).start()?;
    let there = address(&mut first, "/tcp/")?;
    let mut second = place.node("second")?.rounds(&ROUNDS.to_string()).bootstrap(&there).start()?;
    second.wait_for_round(3)?;
    first.wait_for_round(3)?;
    let paused = place.swarm(["pause", "--dir", "first"])?;
    paused.refused(0, &["paused: by swarm pause, resumes with swarm resume"])?;
    println!("swarm pause: {}", paused.log.trim());
    // A step may have been under way when the governor's word came.
    let told = first.wait_for("a pause", |status| status["phase"] == "paused")?;
    let at = number(&told, "round")?;
    second.wait_for_round(at + 3)?;
    let early = first.wait_for("a few rounds", |status| status["round"].as_u64() >= Some(at + 2))?;
    second.wait_for_round(at + 8)?;
    let late = first.wait_for("more rounds", |status| status["round"].as_u64() >= Some(at + 7))?;
    assert_eq!(early["tokens"], late["tokens"], "it has trained while it was paused");
    assert_eq!(late["phase"], "paused");
    let words = place.swarm(["status", "--dir", "first"])?;
    words.refused(0, &["paused: by swarm pause", "tokens trained on"])?;
    let resumed = place.swarm(["resume", "--dir", "first"])?;
    resumed.refused(0, &["training"])?;
    let reports = agreed(&mut [&mut first, &mut second], ROUNDS)?;
    let trained = reports.first().context("no report")?;
    assert!(number(trained, "tokens")? > number(&late, "tokens")?, "{trained}");
    place.swarm(["logs", "--dir", "first"])?.refused(0, &["paused: by swarm pause", "training"])?;
    Ok(())
}

#[test]
fn stop_saves_as_ctrl_c_does_and_a_pause_outlives_it() -> Result<()> {
    let place = Place::with_genesis()?;
    let node = place.node("node")?;
    let mut run = node.start()?;
    run.wait_for_round(2)?;
    let stopped = place.swarm(["stop", "--dir", "node"])?;
    stopped.refused(0, &["stopped after", "everything is in node"])?;
    let log = run.success()?;
    ensure!(log.contains("stopped: everything is in"), "{log}");
    place.swarm(["stop", "--dir", "node"])?.refused(0, &["no node is running in node"])?;
    place.swarm(["status", "--dir", "node"])?.refused(0, &["This node does not run", "stopped"])?;
    place.swarm(["pause", "1h", "--dir", "node"])?.refused(0, &["will be paused when one is started"])?;
    let mut again = node.start()?;
    let status = again.wait_for_phase("paused")?;
    let words = status["guest"]["words"].as_str().context("no words")?;
    ensure!(words.starts_with("paused: by swarm pause, resumes in "), "{words}");
    assert_eq!(number(&status, "tokens")?, 0);
    place.swarm(["resume", "--dir", "node"])?.refused(0, &["training"])?;
    again.wait_for("steps", |status| status["tokens"].as_u64() > Some(0))?;
    place.swarm(["stop", "--dir", "node"])?.refused(0, &["stopped after"])?;
    again.success()?;
    // Of a folder that is none, and of one that never trains.
    place.swarm(["pause", "--dir", "nowhere"])?.refused(1, &["nowhere"])?;
    place.swarm(["pause", "0s", "--dir", "node"])?.refused(1, &["no time"])?;
    let mut replica = place.bootstrap("replica", program::swarm()?).start()?;
    replica.wait_for("a status", |_| true)?;
    place.swarm(["pause", "--dir", "replica"])?.refused(1, &["does not train", "swarm stop"])?;
    place.swarm(["stop", "--dir", "replica"])?.refused(0, &["stopped after"])?;
    replica.success().map(drop)
}

/// Flags over environment over file; the file again while the node runs.
#[test]
fn settings_come_from_a_file_and_some_of_them_again_while_it_runs() -> Result<()> {
    let place = Place::with_genesis()?;
    let file = place.path("node.toml");
    let config = file.to_str().context("a path")?;
    place.swarm(["config", "init", "--out", config])?.refused(0, &["is written"])?;
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains("\nwhen = \"idle\"\n") && text.contains("# max-upload = "), "{text}");
    place.swarm(["config", "check", config])?.refused(1, &["--data"])?;
    place.swarm(["config", "init", "--out", config])?.refused(1, &["exists", "--force"])?;
    for (line, words) in [
        ("wehn = \"idle\"", &["there is no setting 'wehn'"][..]),
        ("when = \"sometimes\"", &["node.toml", "sometimes", "always, idle, night"]),
        ("power = \"101%\"", &["no battery is ever fuller"]),
        ("hours = [\"07:00-07:00\"]", &["never start"]),
        ("cpu = \"0%\"", &["above 0%"]),
        ("data = [\"missing\"]", &["there is no such file"]),
    ] {
        let data = if line.starts_with("data") { "" } else { "data = ['.']\n" };
        fs::write(&file, format!("{data}{line}\n"))?;
        place.swarm(["config", "check", config])?.refused(1, words).with_context(|| line.to_owned())?;
    }
    let before = "when = 'always'\nsnapshot-seconds = 60\n";
    fs::write(&file, before)?;
    let node = place.node("node")?.arg("--config").arg(config).variable("SWARM_CPU", "60%");
    let mut run = node.start()?;
    let share = |status: &Value| status["guest"]["share"].as_f64().unwrap_or(0.0);
    run.wait_for("the environment's share", |status| (share(status) - 0.6).abs() < 1e-9)?;
    fs::write(&file, "when = 'always'\nsnapshot-seconds = 61\nexclusive = ['cargo', 'sleep']\n")?;
    let mut sleep = Command::new("sleep").arg("1000").spawn()?;
    let paused = run.wait_for("a pause", |status| !trains(status));
    sleep.kill()?;
    sleep.wait()?;
    let words = paused?["guest"]["words"].to_string();
    ensure!(words.contains(" is running, resumes when it has ended"), "{words}");
    fs::write(&file, "when = 'sometimes'\n")?;
    run.wait_for_log("what was set before stays")?;
    fs::write(&file, before)?;
    run.wait_for("training", trains)?;
    let log = run.interrupt()?;
    for said in ["snapshot-seconds takes effect when the node is next started", "new rules on when to train"]
    {
        ensure!(log.contains(said), "'{said}' is not in {log}");
    }
    Ok(())
}

#[test]
fn a_service_is_written_and_what_cannot_be_done_is_told() -> Result<()> {
    let place = Place::with_genesis()?;
    let text = place.text("notes.txt", 1, 40_000)?;
    let config = place.path("config.toml");
    fs::write(&config, format!("dir = 'node'\ndata = ['{}']\n", text.display()))?;
    let home = place.path("home");
    let service = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(program::swarm()?)
            .arg("service")
            .args(arguments)
            .current_dir(place.path("."))
            .env("HOME", &home)
            .env_remove("XDG_CONFIG_HOME")
            // No systemctl: as in a container.
            .env("PATH", &home)
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    };
    let said = |arguments: &[&str], code: i32, words: &[&str]| -> Result<()> {
        let (ended, text) = service(arguments)?;
        ensure!(ended == Some(code), "{arguments:?}: {ended:?} {text}");
        for word in words {
            ensure!(text.contains(word), "{arguments:?}: no '{word}': {text}");
        }
        Ok(())
    };
    for (system, words) in [
        ("systemd", &["[Service]", "run --as-service --config", "enable --now swarm"][..]),
        ("launchd", &["<key>RunAtLoad</key>", "launchctl load"]),
        ("windows", &["<LogonTrigger>", "schtasks /Create"]),
    ] {
        said(&["install", "--dry-run", "--system", system], 0, words)?;
    }
    ensure!(!home.exists(), "a dry run has written something");
    said(&["status"], 0, &["not installed"])?;
    if cfg!(target_os = "linux") {
        said(
            &["install"],
            0,
            &["swarm.service is written", "by hand", "systemctl --user enable --now swarm"],
        )?;
        let unit = fs::read_to_string(home.join(".config/systemd/user/swarm.service"))?;
        ensure!(unit.contains(config.to_str().context("a path")?), "{unit}");
        said(&["status"], 0, &["installed: ", "cannot be told"])?;
        said(&["uninstall"], 0, &["by hand", "is deleted"])?;
        said(&["uninstall"], 0, &["not installed"])?;
    }
    said(&["install", "--config", "missing.toml"], 1, &["missing.toml"])?;
    said(&["install", "--name", "a b"], 1, &["letters, digits and dashes"])
}

/// Memory that is not enough is told before anything is trained.
#[test]
fn too_little_memory_is_told_at_the_start() -> Result<()> {
    let place = Place::with_genesis()?;
    let mut node = place.node("node")?.arg("--memory").arg("20MB").start()?;
    node.exit()?.refused(1, &["--memory allows this program 20 MB", "--micro-batch"])
}

/// An X server of its own, whose idle counter is the real one.
#[cfg(target_os = "linux")]
mod screen {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use anyhow::{Context, Result, bail};
    use x11rb::connection::Connection;
    use x11rb::protocol::xproto::{KEY_PRESS_EVENT, KEY_RELEASE_EVENT};
    use x11rb::protocol::xtest::ConnectionExt;

    use super::{Place, Process, trains};

    struct Screen {
        server: Child,
        display: String,
    }

    impl Screen {
        /// `None` if there is no Xvfb here.
        fn start() -> Result<Option<Self>> {
            let started = Command::new("Xvfb")
                .args(["-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let mut server = match started {
                Ok(server) => server,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).context("Xvfb"),
            };
            let mut number = String::new();
            let out = server.stdout.take().context("no output")?;
            BufReader::new(out).read_line(&mut number)?;
            let number = number.trim().to_owned();
            let screen = Self { server, display: format!(":{number}") };
            if number.is_empty() {
                bail!("Xvfb has no display");
            }
            Ok(Some(screen))
        }

        /// Presses a key and lets it go, as a hand does.
        fn press(&self) -> Result<()> {
            const SPACE: u8 = 65;
            let (connection, screen) = x11rb::connect(Some(&self.display))?;
            let root = connection.setup().roots.get(screen).context("no screen")?.root;
            for kind in [KEY_PRESS_EVENT, KEY_RELEASE_EVENT] {
                connection.xtest_fake_input(kind, SPACE, 0, root, 0, 0, 0)?.check()?;
            }
            Ok(())
        }
    }

    impl Drop for Screen {
        fn drop(&mut self) {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
    }

    #[test]
    fn a_key_press_pauses_a_node_and_it_goes_on_when_nobody_is_there() -> Result<()> {
        let Some(screen) = Screen::start()? else {
            println!("left out: Xvfb is not installed, so there is no keyboard to press a key of");
            return Ok(());
        };
        let place = Place::with_genesis()?;
        let mut node =
            place.node("node")?.variable("DISPLAY", &screen.display).variable("WAYLAND_DISPLAY", "");
        // The machine that this runs on may be busy, on battery and short of memory.
        for flag in ["--when=idle", "--idle=4s", "--power=any", "--others-cpu=off", "--free-memory=off"] {
            node = node.arg(flag);
        }
        let mut node: Process =
            node.arg("--memory=off").arg("--network=any").arg("--full-screen=ignore").start()?;
        let tokens = |status: &serde_json::Value| status["tokens"].as_u64().unwrap_or(0);
        let trained =
            node.wait_for("training while nobody is there", |now| trains(now) && tokens(now) > 0)?;
        screen.press()?;
        let pressed = Instant::now();
        let paused = node.wait_for("a pause", |status| !trains(status))?;
        println!("paused {:.0} ms after a key was pressed", pressed.elapsed().as_secs_f64() * 1000.0);
        let words = paused["guest"]["words"].to_string();
        assert!(words.contains("somebody is using this device"), "{words}");
        assert!(words.contains("resumes when it has been left alone for 4 s"), "{words}");
        assert!(tokens(&paused) >= tokens(&trained));
        node.wait_for("training again", |now| trains(now) && tokens(now) > tokens(&paused))?;
        let log = node.interrupt()?;
        assert!(log.contains("paused: somebody is using this device"), "{log}");
        assert!(log.contains("INFO training"), "{log}");
        Ok(())
    }
}
