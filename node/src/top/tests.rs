//! Frames of all sizes, of nodes of all kinds.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::{Chosen, Focus, draw, text_of};
use super::view::{Running, View};
use super::{Folder, Glance, Look, plain};

const UNICODE: Look = Look { unicode: true, colour: true };
const ASCII: Look = Look { unicode: false, colour: false };

/// A node in its twelfth round, among three neighbours.
fn status() -> Value {
    json!({
        "phase": "training", "detail": "", "pid": 1, "peer_id": "12D3KooWabcdefghijklmnopqrstuvwxyz", "name": "swarm",
        "model": "nano", "parameters": 115_008, "version": "0.1.0", "round": 12, "rounds_target": 40, "loss": 2.31,
        "tokens": 20_480, "tokens_per_second": 1859.4, "peers": 3, "estimated_peers": 9, "bytes_sent": 5_000_000,
        "bytes_received": 7_999_000, "state_digest": "a0af77a7".repeat(8),
        "agreement": {"same": 2, "differ": 0, "unknown": 1},
        "meter": {"sent_a_second": 120_000, "received_a_second": 98_000, "upload_limit": 200_000,
            "download_limit": null, "sent_today": 2_100_000, "received_today": 3_300_000, "coefficients": 100,
            "bits_a_coefficient": 8.1, "bits_bound": 7.9},
        "guest": {"trains": true, "share": 1.0, "words": "training", "objections": []},
        "network": {"peers": [
            {"peer_id": "12D3KooWaaaaaaaaaaaaaaaaaaaaaaaaa1", "routes": [{"route": "direct", "over": "quic", "ip": 4,
                "address": "/ip4/198.51.100.1/udp/4001/quic-v1", "latency_ms": 12}]},
            {"peer_id": "12D3KooWaaaaaaaaaaaaaaaaaaaaaaaaa2", "routes": [{"route": "relayed",
                "relay": "12D3KooWaaaaaaaaaaaaaaaaaaaaaaaaa1", "over": "tcp", "ip": 6, "address": "/p2p/x",
                "latency_ms": null}]},
            {"peer_id": "12D3KooWaaaaaaaaaaaaaaaaaaaaaaaaa3", "routes": [{"route": "direct", "over": "tcp", "ip": 4,
                "address": "/ip4/192.168.1.9/tcp/4001", "latency_ms": 1}]},
        ]},
    })
}

fn view_of(status: &Value) -> View {
    let mut view = View::of(status);
    view.running = Running::Yes;
    let past = std::sync::Arc::make_mut(&mut view.past);
    for round in 0..12u64 {
        let loss = 3.0 - 0.06 * round as f64;
        past.learn(&json!({"event": "round", "time": 33.0 * round as f64, "round": round, "loss": loss,
            "deltas_folded": 36, "deltas_late": 1}));
    }
    past.learn(&json!({"event": "measured", "round": 8, "validation": 2.6, "shared": 2.55, "personal": 2.5}));
    view.log = (0..40).map(|line| format!("15:12:{line:02} round {line}: loss 2.4, 3 peers")).collect();
    view
}

fn frame(view: &View, chosen: &Chosen, look: Look, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(view, chosen, look, frame.area(), frame.buffer_mut())).unwrap();
    text_of(terminal.backend().buffer())
}

fn keys() -> Chosen {
    Chosen { keys: true, ..Chosen::default() }
}

/// All words that a frame has to have.
fn has(frame: &str, words: &[&str]) {
    for word in words {
        assert!(frame.contains(word), "'{word}' is not in\n{frame}");
    }
}

#[test]
fn everything_is_on_a_screen_of_80_by_24() {
    let shown = frame(&view_of(&status()), &keys(), UNICODE, 80, 24);
    has(
        &shown,
        &[
            "swarm, nano, 115,008 parameters, 12D3…uvwxyz",
            "training",
            "12 of 40  ██████░░░░░░░░░░░░░░  30 %  about 15 min left",
            "2.310, validation 2.600, own text 2.500, shared model there 2.550",
            "the same as 2 of 3 neighbours, state a0af77a7, 36 deltas folded, 1 late",
            "120 kB/s of 200 kB/s",
            "60 %",
            "98.0 kB/s, no limit, 3.3 MB today, 8.0 MB in this run",
            "8.10 bits a coefficient, bound 7.90, 1.03 times as many",
            "loss: line = training, v = validation",
            "peers: 3 of a swarm of about 9",
            "12D3…aaaaa3     1 ms  direct  TCP/IPv4  /ip4/192.168.1.9/tcp/4001",
            "15:12:39 round 39",
            "q quit",
        ],
    );
    assert!(shown.lines().count() <= 24 && shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(shown.chars().any(|char| ('\u{2801}'..='\u{28ff}').contains(&char)), "no curve in\n{shown}");
}

#[test]
fn a_wide_screen_has_curves_and_peers_side_by_side_and_nothing_else_missing() {
    let shown = frame(&view_of(&status()), &keys(), UNICODE, 120, 40);
    has(
        &shown,
        &["relayed via 12D3…aaaaa1", "15:12:39", "line = training, v = validation", "own text: personal"],
    );
    assert!(shown.lines().any(|line| line.contains("── loss") && line.contains("peers: 3")), "{shown}");
}

#[test]
fn a_small_screen_keeps_the_facts_and_a_tiny_one_says_so() {
    let shown = frame(&view_of(&status()), &keys(), UNICODE, 40, 12);
    has(
        &shown,
        &[
            "12 of 40",
            "2.310, validation 2.600",
            "training",
            "the same as 2 of 3",
            "120 kB/s of 200 kB/s",
            "peers: 3",
        ],
    );
    has(&shown, &["8.10 bits a coefficient", "q quit"]);
    assert!(!shown.contains("log (UTC)") && !shown.contains("── loss"), "{shown}");
    let shown = frame(&view_of(&status()), &keys(), UNICODE, 40, 10);
    has(&shown, &["12 of 40", "8.10 bits a coefficient", "q quit"]);
    assert!(!shown.contains("peers: 3"), "{shown}");
    for (width, height) in [(20, 5), (39, 24), (80, 9)] {
        let shown = frame(&view_of(&status()), &keys(), UNICODE, width, height);
        let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        has(&words, &["the terminal is too small", &format!("{width} x {height}, it takes 40 x 10")]);
    }
}

#[test]
fn no_size_and_no_choice_is_too_odd() {
    let odd = json!({
        "phase": "p".repeat(3000), "detail": "\x1b[2J\x1b]0;title\x07".repeat(99), "name": "群".repeat(300),
        "model": "\u{202e}m", "parameters": u64::MAX, "peer_id": "\x1b".repeat(50), "round": u64::MAX,
        "rounds_target": 1, "loss": 1e300, "tokens": u64::MAX, "tokens_per_second": 1e300, "peers": u64::MAX,
        "estimated_peers": u64::MAX, "bytes_sent": u64::MAX, "bytes_received": u64::MAX,
        "state_digest": "\r\n".repeat(99), "agreement": {"same": u64::MAX, "differ": u64::MAX, "unknown": u64::MAX},
        "meter": {"sent_a_second": u64::MAX, "upload_limit": 0, "bits_a_coefficient": -1e300, "bits_bound": 1e-300},
        "guest": {"trains": false, "words": "\u{9b}31m".repeat(99)},
        "network": {"peers": [{"peer_id": "a\x1b[31m", "routes": [{"route": "\x1b", "relay": "\x07", "over": "quic",
            "ip": 99, "address": "\u{1b}[H".repeat(99), "latency_ms": u64::MAX}]}]},
    });
    for status in [odd, status(), json!(null), json!({"guest": {}, "meter": {"upload_limit": 1}})] {
        let mut view = View::of(&status);
        view.log = vec!["a".repeat(5000), String::new(), "群れ".repeat(99)];
        let past = std::sync::Arc::make_mut(&mut view.past);
        for (round, loss) in [(0u64, -1e6), (1, 1e6), (u64::MAX, 0.0)] {
            past.learn(
                &json!({"event": "round", "round": round, "time": 1e300 * round as f64, "loss": loss}),
            );
        }
        for running in [Running::Never, Running::Yes, Running::Not(1e300)] {
            view.running = running;
            for (width, height) in [
                (1, 1),
                (0, 0),
                (20, 5),
                (40, 10),
                (40, 12),
                (41, 17),
                (80, 24),
                (111, 19),
                (120, 40),
                (300, 90),
            ] {
                for look in [UNICODE, ASCII] {
                    let focus = Focus::Log;
                    let chosen = Chosen { focus, peers: usize::MAX, log: usize::MAX, help: true, ..keys() };
                    for chosen in [chosen, keys()] {
                        let shown = frame(&view, &chosen, look, width, height);
                        let harmless = |char: char| char == '\n' || !char.is_control();
                        assert!(shown.chars().all(harmless), "{width} x {height}\n{shown:?}");
                        assert!(look.unicode || shown.is_ascii(), "{width} x {height}\n{shown}");
                    }
                }
            }
        }
    }
}

#[test]
fn colours_are_only_there_if_wanted_and_only_repeat_words() {
    let mut status = status();
    status["agreement"] = json!({"same": 1, "differ": 1, "unknown": 1});
    status["guest"] = json!({"trains": false, "words": "paused: on battery 43 %, resumes on AC"});
    status["phase"] = "paused".into();
    let view = view_of(&status);
    let colours = |look: Look| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(&view, &keys(), look, frame.area(), frame.buffer_mut())).unwrap();
        let buffer = terminal.backend().buffer();
        let coloured =
            buffer.content.iter().filter(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset));
        (coloured.count(), text_of(buffer))
    };
    let (with, coloured) = colours(UNICODE);
    let (without, mono) = colours(Look { unicode: true, colour: false });
    assert!(with > 0 && without == 0, "{with} and {without} coloured cells");
    assert_eq!(coloured, mono, "what is said does not depend on colours");
    has(
        &mono,
        &["DIFFERS from 1 of 3 neighbours", "paused: on battery 43 %, resumes on AC", "p pause/resume"],
    );
}

#[test]
fn ascii_has_the_same_facts_and_a_curve() {
    let shown = frame(&view_of(&status()), &keys(), ASCII, 80, 24);
    assert!(shown.is_ascii(), "{shown}");
    has(&shown, &["######......", "12D3~uvwxyz", "-- loss: line = training", "> peers: 3", "^ v scroll"]);
    assert!(shown.lines().filter(|line| line.contains('*')).count() >= 3, "no curve in\n{shown}");
}

#[test]
fn help_and_messages_are_shown() {
    let view = view_of(&status());
    let shown = frame(&view, &Chosen { help: true, ..keys() }, UNICODE, 80, 24);
    has(&shown, &["Ctrl-C  leave; the node goes on", "bits of what it sends"]);
    has(
        &frame(&view, &Chosen { help: true, ..keys() }, UNICODE, 40, 10),
        &["Ctrl-C  leave", "scroll the other"],
    );
    let message = Some("asked it to pause".to_owned());
    let shown = frame(&view, &Chosen { message, ..keys() }, UNICODE, 80, 24);
    has(&shown, &["asked it to pause"]);
    assert!(!shown.contains("q quit"), "{shown}");
}

#[test]
fn a_long_list_and_a_log_scroll() {
    let mut status = status();
    let many: Vec<Value> = (0..30).map(|n| json!({"peer_id": format!("peer-{n:02}")})).collect();
    status["network"]["peers"] = many.into();
    let view = view_of(&status);
    let shown = frame(&view, &keys(), UNICODE, 80, 24);
    has(&shown, &["peer-00", "(1 to 3)"]);
    let shown = frame(&view, &Chosen { peers: 29, log: 5, ..keys() }, UNICODE, 80, 24);
    has(&shown, &["peer-29", "(28 to 30)", "5 more below", "15:12:34"]);
    assert!(!shown.contains("15:12:35"), "{shown}");
}

#[test]
fn a_node_that_is_away_is_waited_for_with_what_is_known() {
    let mut view = view_of(&status());
    view.running = Running::Not(12.0);
    view.phase = "stopped".into();
    let shown = frame(&view, &keys(), UNICODE, 80, 24);
    has(&shown, &["does not run since 12 s; waiting; it was last stopped", "12 of 40", "2.310"]);
    has(&shown, &["device   training, when it last ran"]);
    has(&plain::line(&view), &["round 12 of 40: loss 2.310", "does not run since 12 s (stopped); waiting"]);
    view.trouble = Some("status.json is no node's status".into());
    let shown = frame(&view, &keys(), UNICODE, 80, 24);
    has(&shown, &["its status cannot be read; waiting", "status.json is no node's status"]);
    let never = frame(&View::default(), &keys(), UNICODE, 80, 24);
    has(&never, &["no node has run here yet; waiting", "connected to nobody", "a curve begins"]);
}

#[test]
fn where_there_is_no_terminal_there_is_a_line_a_round() {
    fn by_file(dir: &Path) -> Result<Glance> {
        let status = serde_json::from_slice(&std::fs::read(dir.join("status.json"))?)?;
        Ok(Glance { status, age: Duration::ZERO, runs: true })
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status.json");
    std::fs::write(&path, status().to_string()).unwrap();
    let mut folder = Folder::new(dir.path(), by_file);
    let mut out = Vec::new();
    let mut looks = 0;
    plain::follow(&mut folder, &mut out, || {
        looks += 1;
        // The same twice, then another round.
        if looks == 2 {
            let mut next = status();
            next["round"] = 13.into();
            std::fs::write(&path, next.to_string()).unwrap();
        }
        looks < 3
    })
    .unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        lines.first(),
        Some(
            &"round 12 of 40: loss 2.310, 3 peers, 120 kB/s out, 98.0 kB/s in, the same as 2 neighbours; training"
        )
    );
    assert!(lines.last().is_some_and(|line| line.starts_with("round 13 of 40")), "{text}");
}
