//! The format, checked line by line; and that what the Grafana dashboard asks for is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::gather::{self, Newest, RULES};

/// A folder of a node that has said everything.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let status = json!({
        "version": "0.1.0", "name": "a \"name\"\\ of\nlines", "model": "nano", "swarm_id": "ab", "peer_id": "12D3",
        "phase": "paused", "round": 12, "rounds_target": 40, "tokens": 4096, "tokens_per_second": 99.5, "loss": 2.25,
        "parameters": 115_008, "peers": 3, "estimated_peers": 5, "open_deltas": 7, "bytes_sent": 10, "bytes_received": 20,
        "agreement": {"same": 2, "differ": 1, "unknown": 0},
        "meter": {
            "upload_limit": 1000, "download_limit": null, "sent_today": 5, "received_today": 6, "coefficients": 512,
            "bits_a_coefficient": 8.5, "bits_bound": 8.0,
        },
        "refusals": {"too old": 2, "invalid": 1},
        "network": {"peers": [
            {"peer_id": "a", "routes": [{"route": "direct", "latency_ms": 30}, {"route": "relayed", "latency_ms": 90}]},
            {"peer_id": "b", "routes": [{"route": "relayed", "latency_ms": null}]},
            {"peer_id": "c", "routes": [{"route": "direct", "latency_ms": 10}]},
        ]},
        "guest": {"trains": false, "share": 0.5, "words": "", "objections": [{"why": "power", "because": "", "until": ""}]},
    });
    fs::write(dir.path().join("status.json"), status.to_string()).unwrap();
    let events = [
        json!({"event": "round", "round": 10, "seconds": 20.0}),
        json!({"event": "round", "round": 11, "loss": 2.5, "seconds": 30.5, "deltas_folded": 33, "deltas_late": 2}),
        json!({"event": "folded", "round": 10, "authors": [
            {"author": "12D3", "counts": true, "tokens": 100, "loss_after": 2.0},
            {"author": "a", "counts": true, "tokens": 300, "loss_after": 3.0},
            {"author": "b", "counts": false, "tokens": 900, "loss_after": 0.0},
        ]}),
        json!({"event": "measured", "round": 9, "validation": 2.75, "shared": 2.5, "personal": null}),
    ];
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    fs::write(dir.path().join("events.jsonl"), lines).unwrap();
    dir
}

fn exposition(dir: &Path) -> String {
    gather::exposition(dir, &mut Newest::new(dir)).unwrap()
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Labels of a sample, without their braces; `None` if they are not as the format wants them.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (at, letter) in after.char_indices() {
            match (escaped, letter) {
                (true, 'n') => value.push('\n'),
                (true, '\\' | '"') => value.push(letter),
                (true, _) => return None,
                (false, '\\') => {}
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (false, '\n') => return None,
                (false, _) => value.push(letter),
            }
            escaped = !escaped && letter == '\\';
        }
        if !is_name(name) || found.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = after.get(end? + 1..)?;
        rest = match rest.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            Some(_) => return None,
            None => rest,
        };
    }
    Some(found)
}

/// Name, labels and value of all samples of a text that is as OpenMetrics wants it.
fn samples(text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let lines: Vec<&str> = text.strip_suffix("# EOF\n").expect("an end").lines().collect();
    let (mut helped, mut kinds) = (BTreeSet::new(), BTreeMap::new());
    let mut family = String::new();
    let mut found = Vec::new();
    for line in lines {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect(line);
            assert!(is_name(name) && words.len() > 5 && words.trim() == words, "{line}");
            assert!(helped.insert(name.to_owned()), "{name} is told about twice");
            family = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert_eq!(name, family, "HELP comes first: {line}");
            assert!(["counter", "gauge", "info"].contains(&kind), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').expect(line);
            let value: f64 = value.parse().expect(line);
            let (name, inside) = match name.split_once('{') {
                Some((name, inside)) => (name, inside.strip_suffix('}').expect(line)),
                None => (name, ""),
            };
            let end = match kinds.get(&family).expect(line).as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            assert_eq!(name, format!("{family}{end}"), "{line}");
            assert!(value.is_finite() && (end != "_total" || value >= 0.0), "{line}");
            let labels = labels(inside).expect(line);
            assert!(!found.iter().any(|(other, of, _)| other == name && *of == labels), "twice: {line}");
            found.push((name.to_owned(), labels, value));
        }
    }
    for name in kinds.keys() {
        assert!(found.iter().any(|(sample, ..)| sample.starts_with(name.as_str())), "{name} has no sample");
        assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{name}");
    }
    assert_eq!(helped.len(), kinds.len());
    found
}

#[test]
fn everything_is_there_in_the_format_that_is_promised() {
    let dir = folder();
    let text = exposition(dir.path());
    let samples = samples(&text);
    let value = |name: &str, label: &[(&str, &str)]| {
        let found = samples.iter().find(|(sample, labels, _)| {
            sample == name && label.iter().all(|(key, value)| labels.get(*key).is_some_and(|is| is == value))
        });
        found.unwrap_or_else(|| panic!("no {name} {label:?} in\n{text}")).2
    };
    assert_eq!(value("swarm_info", &[("version", "0.1.0"), ("name", "a \"name\"\\ of\nlines")]), 1.0);
    assert_eq!(value("swarm_rounds_total", &[]), 12.0);
    assert_eq!(value("swarm_loss_nats_per_token", &[("of", "training")]), 2.25);
    assert_eq!(value("swarm_loss_nats_per_token", &[("of", "claimed")]), 2.75);
    assert_eq!(value("swarm_loss_nats_per_token", &[("of", "shared")]), 2.5);
    assert!(!text.contains("of=\"personal\""), "what is not known is left out");
    assert_eq!(value("swarm_round_duration_seconds", &[]), 10.5);
    assert_eq!(value("swarm_peers", &[("route", "direct")]), 2.0);
    assert_eq!(value("swarm_peers", &[("route", "relayed")]), 1.0);
    assert_eq!(value("swarm_peer_latency_median_seconds", &[]), 0.01);
    assert_eq!(value("swarm_neighbours", &[("history", "differ")]), 1.0);
    assert_eq!(value("swarm_authors", &[("counts", "yes")]), 2.0);
    assert_eq!(value("swarm_deltas_folded_total", &[]), 33.0);
    assert_eq!(value("swarm_refused_messages_total", &[("kind", "too old")]), 2.0);
    assert_eq!(value("swarm_traffic_limit_bytes_per_second", &[("direction", "sent")]), 1000.0);
    assert_eq!(value("swarm_bits_per_coefficient", &[]), 8.5);
    assert_eq!(value("swarm_governor_trains", &[]), 0.0);
    assert_eq!(value("swarm_governor_forbids", &[("rule", "power")]), 1.0);
    assert_eq!(value("swarm_phase", &[("phase", "paused")]), 1.0);
    let forbids = samples.iter().filter(|(name, ..)| name == "swarm_governor_forbids");
    assert_eq!(forbids.clone().count(), RULES.len());
    assert_eq!(forbids.map(|(.., value)| value).sum::<f64>(), 1.0);
    #[cfg(target_os = "linux")]
    assert!(
        value("process_resident_memory_bytes", &[]) > 1e6 && value("process_start_time_seconds", &[]) > 1e9
    );
}

#[test]
fn a_folder_in_which_nothing_was_written_yet_has_numbers_too() {
    let dir = TempDir::new().unwrap();
    assert!(samples(&exposition(dir.path())).iter().any(|(name, ..)| name == "swarm_info"));
    // Whatever is in the file.
    for status in
        ["null", "[]", "{\"refusals\": 3, \"guest\": 1, \"network\": {\"peers\": {}}, \"round\": \"x\"}"]
    {
        fs::write(dir.path().join("status.json"), status).unwrap();
        samples(&exposition(dir.path()));
    }
}

#[test]
fn what_the_grafana_dashboard_asks_for_is_there() {
    let dashboard: Value = serde_json::from_str(include_str!("../../../scripts/grafana.json")).unwrap();
    let dir = folder();
    let known: BTreeSet<String> =
        samples(&exposition(dir.path())).into_iter().map(|(name, ..)| name).collect();
    let mut asked = BTreeSet::new();
    let mut targets = 0;
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice: {panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        for target in panel["targets"].as_array().into_iter().flatten() {
            targets += 1;
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let asks = target["expr"].as_str().unwrap();
            let words = asks.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let names = words.filter(|word| word.starts_with("swarm_") || word.starts_with("process_"));
            asked.extend(names.map(str::to_owned));
        }
    }
    assert!(targets > 10 && asked.len() > 10, "{targets} {asked:?}");
    let missing: Vec<&String> = asked.difference(&known).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {known:?}");
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
}
