//! The command line: what it writes, and what it says to mistakes.
#![cfg(unix)]

use std::fs;

use anyhow::{Context, Result};
use swarm_tests::place::SMALL;
use swarm_tests::report::address;
use swarm_tests::{Place, Process};

/// Exit status of a command that could not do what it was asked to.
const FAILED: i32 = 1;
/// Exit status of a command line that is not understood.
const MISUSED: i32 = 2;

/// What has to be in the output of `swarm ARGUMENTS`, which ends with `code`.
struct Refusal<'a>(&'a [&'a str], i32, &'a [&'a str]);

impl Refusal<'_> {
    fn check(&self, place: &Place, before: &[&str]) -> Result<()> {
        let Self(arguments, code, words) = self;
        let all = [before, arguments].concat();
        let exit = place.swarm(&all)?;
        exit.refused(*code, words).with_context(|| format!("swarm {}", all.join(" ")))
    }
}

/// Flags of every run here; the genesis, the text and the folder are named by each case.
const RUN: [&str; 6] = ["run", "--no-mdns", "--threads", "1", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// A node that has run for a few rounds and stopped, in the folder `node`.
fn trained() -> Result<(Place, Process)> {
    let place = Place::with_genesis()?;
    let mut node = place.node("node")?.rounds("6").start()?;
    node.success()?;
    Ok((place, node))
}

#[test]
fn generate_writes_text_without_a_network() -> Result<()> {
    let (place, _) = trained()?;
    let write = |more: &[&str]| -> Result<String> {
        let base =
            ["generate", "--threads", "1", "--dir", "node", "--prompt", "the round ", "--tokens", "40"];
        let exit = place.swarm([&base, more].concat())?;
        exit.refused(0, &["the round ", "(40 tokens, "])?;
        // How fast it was differs.
        Ok(exit.log.lines().filter(|line| !line.ends_with(" a second)")).collect())
    };
    let own = write(&[])?;
    assert!(own.starts_with("the round "), "{own}");
    // 40 bytes; several may be one character, or one that stands for what is none.
    assert!(own.chars().count() > "the round ".len(), "{own}");
    assert_eq!(write(&[])?, own, "the same seed writes the same");
    assert_ne!(write(&["--seed", "1"])?, own, "another seed writes something else");
    let shared = write(&["--shared", "--temperature", "0"])?;
    let greedy = write(&["--shared", "--temperature", "0", "--seed", "1"])?;
    assert_eq!(greedy, shared, "without a temperature nothing is drawn");
    assert_eq!(write(&["--shared", "--top-k", "1"])?, shared, "of one there is nothing to draw");
    assert_eq!(write(&["--shared", "--top-p", "1e-9"])?, shared);
    let rest = shared.strip_prefix("the round ").unwrap_or_default();
    let stop: String = rest.chars().skip(4).take(1).collect();
    assert!(!stop.is_empty(), "{shared:?}");
    let base = ["generate", "--threads", "1", "--dir", "node", "--prompt", "the round ", "--shared"];
    let stopped = place.swarm([&base[..], &["--temperature", "0", "--stop", &stop]].concat())?;
    let text: String = stopped.log.lines().filter(|line| !line.ends_with(" a second)")).collect();
    assert_eq!(text, format!("the round {}", rest.split(&stop).next().unwrap_or_default()));
    let nothing = place.swarm(["generate", "--threads", "1", "--dir", "node", "--tokens", "0"])?;
    nothing.refused(0, &[])?;
    assert_eq!(nothing.log, "\n");
    Ok(())
}

#[test]
fn generate_says_what_is_wrong() -> Result<()> {
    let (place, _) = trained()?;
    fs::create_dir(place.path("empty"))?;
    // As a node leaves its folder when it is stopped in its very first step.
    fs::create_dir(place.path("young"))?;
    for file in ["genesis.toml", "identity.key"] {
        fs::copy(place.path("node").join(file), place.path("young").join(file))?;
    }
    fs::create_dir(place.path("torn"))?;
    for file in ["genesis.toml", "identity.key", "snapshot"] {
        let bytes = fs::read(place.path("node").join(file))?;
        let kept = if file == "snapshot" { bytes.len() - 1 } else { bytes.len() };
        fs::write(place.path("torn").join(file), &bytes[..kept])?;
    }
    let before = ["generate", "--threads", "1"];
    for case in [
        Refusal(&["--dir", "nowhere"], FAILED, &["nowhere is not a node's folder", "genesis.toml"]),
        Refusal(&["--dir", "empty"], FAILED, &["empty is not a node's folder", "genesis.toml"]),
        Refusal(&["--dir", "young"], FAILED, &["young has no snapshot yet", "finish a round"]),
        Refusal(&["--dir", "torn"], FAILED, &["torn/snapshot is damaged"]),
        Refusal(&["--dir", "node", "--temperature=-1"], FAILED, &["the temperature is -1", "positive"]),
        Refusal(&["--dir", "node", "--temperature", "nan"], FAILED, &["the temperature is NaN"]),
        Refusal(&["--dir", "node", "--top-k", "0"], FAILED, &["top-k is 0", "at least one"]),
        Refusal(&["--dir", "node", "--top-p", "0"], FAILED, &["top-p is 0", "at most 1"]),
        Refusal(&["--dir", "node", "--tokens", "many"], MISUSED, &["'many'", "--tokens"]),
        Refusal(
            &["--dir", "node", "--prompt", &"x".repeat(65)],
            FAILED,
            &["the prompt has 65 tokens, more than the model's context of 64: shorten it, or add --truncate"],
        ),
        Refusal(
            &["--dir", "node", "--tokens", "1", "--truncate", "--prompt", &"x".repeat(65)],
            0,
            &["the prompt has 65 tokens; the last 64 are continued"],
        ),
        Refusal(&["--dir", "node", "--seed=-1"], MISUSED, &["'-1'", "--seed"]),
        Refusal(&["--prompt", "x"], MISUSED, &["--dir <DIR>"]),
    ] {
        case.check(&place, &before)?;
    }
    for threads in ["0", "1000000"] {
        let words = [&format!("--threads {threads}"), "must be between 1 and 1024"];
        Refusal(&["generate", "--dir", "node", "--threads", threads], FAILED, &words).check(&place, &[])?;
    }
    Ok(())
}

#[test]
fn a_genesis_that_cannot_be_used_is_answered_with_the_key() -> Result<()> {
    let place = Place::with_genesis()?;
    place.text("text.txt", 1, 40_000)?;
    place.file("binary.toml", b"\xff\xfe\x00")?;
    place.file("large.toml", vec![b'#'; 70_000])?;
    place.file("prose.toml", "no genesis but one long line of text. ".repeat(1000))?;
    let good = fs::read_to_string(place.path("genesis.toml"))?;
    let run = |genesis: &str| {
        place.swarm([&RUN[..], &["--data", "text.txt", "--dir", "node", "--genesis", genesis]].concat())
    };
    for (from, to, words) in [
        ("k = 1024", "k = 0", &["rule.k = 0", "between 1 and 4096"][..]),
        ("k = 1024", "k = many", &["k = many"]),
        ("heads = 2", "heads = \"two\"", &["heads = \"two\"", "u32"]),
        ("kv_heads = 2", "kv_heads = 5", &["model.llama.kv_heads = 5"]),
        ("seed = 0", "sead = 0", &["sead", "expected one of"]),
        ("seed = 0", "", &["missing field `seed`"]),
        ("version = 1", "version = 2", &["version = 2", "version 1 only"]),
        ("tile = 64", "tile = 63", &["rule.tile = 63", "64"]),
        ("min_round_ms = 200", "min_round_ms = 0", &["rounds.min_round_ms = 0"]),
    ] {
        assert!(good.contains(from), "'{from}' is not in the genesis");
        place.file("bad.toml", good.replacen(from, to, 1))?;
        let checked = run("bad.toml")?.refused(FAILED, &[&["bad.toml"], words].concat());
        checked.with_context(|| format!("{from} -> {to}"))?;
    }
    for (genesis, words) in [
        ("none.toml", &["none.toml", "No such file"][..]),
        (".", &["cannot read .", "Is a directory"]),
        ("binary.toml", &["binary.toml is not text"]),
        ("large.toml", &["large.toml has more than 65536 bytes"]),
        ("prose.toml", &["prose.toml", "the genesis cannot be read"]),
    ] {
        let exit = run(genesis)?;
        exit.refused(FAILED, words).with_context(|| genesis.to_owned())?;
        assert!(exit.log.len() < 2000, "an answer of {} bytes", exit.log.len());
    }
    assert!(!place.path("node").exists(), "a genesis that is not usable makes no folder");
    Ok(())
}

#[test]
fn new_says_what_is_wrong_with_a_flag() -> Result<()> {
    let place = Place::with_genesis()?;
    let before = fs::read(place.path("genesis.toml"))?;
    for case in [
        Refusal(&["--out", "genesis.toml"], FAILED, &["genesis.toml exists already", "--force"]),
        Refusal(
            &["--out", "no/such/folder.toml"],
            FAILED,
            &["cannot write no/such/folder.toml", "No such file"],
        ),
        Refusal(&["--out", "new.toml", "--k", "0"], FAILED, &["rule.k = 0"]),
        Refusal(&["--out", "new.toml", "--steps", "0"], FAILED, &["training.steps = 0"]),
        Refusal(&["--out", "new.toml", "--learning-rate", "nan"], FAILED, &["training.learning_rate = NaN"]),
        Refusal(&["--out", "new.toml", "--name", ""], FAILED, &["name: must be"]),
        Refusal(&["--out", "new.toml", "--round-seconds", "0"], FAILED, &["rounds.", "_ms = 0"]),
        Refusal(&["--out", "new.toml", "--seed", "9223372036854775808"], FAILED, &["seed", "2^63"]),
        Refusal(
            &["--out", "new.toml", "--model", "huge"],
            FAILED,
            &["--model huge", "nano, micro, small", "digits"],
        ),
        Refusal(&["--out", "new.toml", "--batch=-1"], MISUSED, &["'-1'", "--batch"]),
    ] {
        case.check(&place, &["new"])?;
    }
    assert!(!place.path("new.toml").exists());
    assert_eq!(fs::read(place.path("genesis.toml"))?, before, "what was there is untouched");
    Ok(())
}

#[test]
fn text_that_cannot_be_trained_on_is_named() -> Result<()> {
    let place = Place::with_genesis()?;
    place.text("text.txt", 1, 40_000)?;
    place.file("empty.txt", "")?;
    place.file("short.txt", "shorter than a context")?;
    for folder in ["empty", "binary", "broken"] {
        fs::create_dir(place.path(folder))?;
    }
    place.file("binary/program", vec![0; 9000])?;
    std::os::unix::fs::symlink("/no/such/file", place.path("broken/link"))?;
    let context = SMALL.iter().find(|(key, _)| *key == "context").context("no context")?.1;
    let window = (context.parse::<u64>()? + 1).to_string();
    let before = [&RUN[..], &["--genesis", "genesis.toml", "--dir", "node", "--rounds", "1"]].concat();
    for case in [
        Refusal(&[], MISUSED, &["--data <PATH>"]),
        Refusal(&["--data", "none"], FAILED, &["cannot open the data path none", "No such file"]),
        Refusal(&["--data", "/dev/null"], FAILED, &["/dev/null is neither a file nor a folder"]),
        Refusal(&["--data", "empty.txt"], FAILED, &["no text in the data", "0 files"]),
        Refusal(&["--data", "empty"], FAILED, &["no text in the data", "0 files"]),
        Refusal(&["--data", "short.txt"], FAILED, &["too little text", &window, "bytes are needed"]),
        Refusal(&["--data", "binary"], FAILED, &["no text in the data", "1 binary file skipped"]),
        Refusal(
            &["--data", "broken"],
            FAILED,
            &["no text in the data", "1 could not be read", "broken/link"],
        ),
        Refusal(&["--data", "text.txt", "--hold-out", "0"], FAILED, &["held-out share is 0"]),
        Refusal(&["--data", "text.txt", "--hold-out", "1"], FAILED, &["held-out share is 1"]),
        Refusal(&["--data", "text.txt", "--hold-out", "nan"], FAILED, &["held-out share is NaN"]),
        Refusal(&["--data", "text.txt", "--hold-out", "much"], MISUSED, &["'much'", "--hold-out"]),
        Refusal(
            &["--data", "text.txt", "--validation", "none"],
            FAILED,
            &["--validation: none", "No such file"],
        ),
        Refusal(
            &["--data", "text.txt", "--validation", "empty"],
            FAILED,
            &["--validation: empty", "directory"],
        ),
        Refusal(
            &["--data", "text.txt", "--validation", "short.txt"],
            FAILED,
            &["--validation short.txt", &window],
        ),
    ] {
        case.check(&place, &before)?;
    }
    // Permissions keep nobody out who is root.
    let locked = place.file("locked.txt", "text ".repeat(1000))?;
    fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o000))?;
    if fs::File::open(&locked).is_err() {
        let words = ["no text in the data", "locked.txt", "Permission denied"];
        Refusal(&["--data", "locked.txt"], FAILED, &words).check(&place, &before)?;
    }
    Ok(())
}

#[test]
fn flags_that_make_no_sense_are_named() -> Result<()> {
    let place = Place::with_genesis()?;
    place.text("text.txt", 1, 40_000)?;
    fs::create_dir(place.path("empty"))?;
    place.file("file", "")?;
    let base = ["run", "--no-mdns", "--data", "text.txt"];
    let example = "/ip4/192.168.1.7/tcp/4001";
    for case in [
        Refusal(&[], FAILED, &["--genesis FILE", "--dir DIR"]),
        Refusal(&["--dir", "empty"], FAILED, &["empty holds no genesis yet", "--genesis FILE"]),
        Refusal(&["--genesis", "genesis.toml", "--dir", "file"], FAILED, &["cannot make the folder file"]),
    ] {
        case.check(&place, &base)?;
    }
    let before = [&base[..], &["--genesis", "genesis.toml", "--dir", "node"]].concat();
    for case in [
        Refusal(&["--threads", "0"], FAILED, &["--threads 0", "between 1 and 1024"]),
        Refusal(&["--threads", "1000000"], FAILED, &["--threads 1000000", "between 1 and 1024"]),
        Refusal(&["--threads", "few"], MISUSED, &["'few'", "--threads"]),
        Refusal(&["--device", "tpu"], MISUSED, &["'tpu'", "auto, cpu, cuda, mps"]),
        Refusal(&["--seed", "random"], MISUSED, &["'random'", "--seed"]),
        Refusal(&["--max-upload", "1mb"], MISUSED, &["'1mb'", "--max-upload", "200kB"]),
        Refusal(&["--max-upload", "1kB"], MISUSED, &["'1kB'", "at least 10 kB"]),
        Refusal(&["--colour", "red"], MISUSED, &["--colour"]),
    ] {
        case.check(&place, &before)?;
    }
    for rounds in ["abc", "0", "+0", "-1", "", "1.5", "99999999999999999999999"] {
        let case = format!("--rounds={rounds}");
        let words = [&format!("'{rounds}' is not a number of rounds"), "40 stops when", "+40 after"];
        Refusal(&[&case], MISUSED, &words).check(&place, &before)?;
    }
    for address in
        ["", "192.168.1.7:4001", "/ip4/192.168.1.7", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/99999"]
    {
        for flag in ["--bootstrap", "--listen"] {
            let case = format!("{flag}={address}");
            let words = [&format!("'{address}' is not an address"), flag, example];
            Refusal(&[&case], MISUSED, &words).check(&place, &before)?;
        }
    }
    let one = ["--threads", "1"];
    // 192.0.2.0/24 is nobody's (RFC 5737).
    let foreign = ["--listen", "/ip4/192.0.2.1/tcp/0"];
    let words = ["cannot listen on /ip4/192.0.2.1/tcp/0", "no such address", "--listen"];
    Refusal(&foreign, FAILED, &words).check(&place, &[&before[..], &one].concat())?;
    // No build has both, so at least one of them is refused; and where one is there, it works.
    let mut refused = 0;
    for device in ["cuda", "mps"] {
        let exit = place.swarm([&before[..], &one, &["--rounds", "+1", "--device", device]].concat())?;
        if exit.code != Some(0) {
            refused += 1;
            exit.refused(FAILED, &[&format!("--device {device}"), "use --device cpu"])?;
        }
    }
    assert!(refused > 0);
    Ok(())
}

/// A port, and a folder, that somebody else has: the error says which, and what to do; and the other goes
/// on as if nothing had happened.
#[test]
fn what_another_process_or_swarm_has_is_left_alone() -> Result<()> {
    let place = Place::with_genesis()?;
    let other = place.genesis("other.toml", &[("seed", "1")])?;
    let mut node = place.node("node")?.start()?;
    let there = address(&mut node, "/tcp/")?;
    let there = swarm_tests::report::without_peer_id(&there);
    node.wait_for_round(1)?;
    let base = ["run", "--no-mdns", "--threads", "1", "--data", "node.txt", "--genesis", "genesis.toml"];
    let words = [there, "address already in use", "--listen"];
    Refusal(&["--dir", "second", "--listen", there], FAILED, &words).check(&place, &base)?;
    let words = ["node is in use by a running swarm process", "--dir"];
    Refusal(&["--dir", "node"], FAILED, &words).check(&place, &base)?;
    let bootstrap = ["bootstrap", "--dir", "node", "--no-mdns"];
    Refusal(&bootstrap, FAILED, &words).check(&place, &[])?;
    let round = node.wait_for_round(0)?;
    node.wait_for_round(round + 2)?;
    node.interrupt()?;

    let before = fs::read(place.path("node/snapshot"))?;
    let other = other.display().to_string();
    let run =
        ["run", "--no-mdns", "--threads", "1", "--data", "node.txt", "--dir", "node", "--genesis", &other];
    Refusal(&run, FAILED, &["node belongs to swarm", "the genesis given is of swarm", "--dir"])
        .check(&place, &[])?;
    assert_eq!(fs::read(place.path("node/snapshot"))?, before);

    let key = fs::read(place.path("node/identity.key"))?;
    place.file("node/identity.key", &key[..31])?;
    let run = ["run", "--no-mdns", "--threads", "1", "--data", "node.txt", "--dir", "node"];
    let words = ["node/identity.key is damaged", "32 bytes", "backup"];
    Refusal(&run, FAILED, &words).check(&place, &[])?;
    assert_eq!(fs::read(place.path("node/identity.key"))?, &key[..31], "a key is never replaced");
    Ok(())
}

#[test]
fn id_tells_swarm_and_peer() -> Result<()> {
    let (place, node) = trained()?;
    let status = node.status().context("no status")?;
    let (swarm, peer) = (status["swarm_id"].as_str(), status["peer_id"].as_str());
    let (swarm, peer) = (swarm.context("no swarm id")?, peer.context("no peer id")?);
    place.swarm(["id", "--genesis", "genesis.toml"])?.refused(0, &[swarm])?;
    place.swarm(["id", "--dir", "node"])?.refused(0, &[swarm, peer])?;
    Refusal(&[], FAILED, &["--genesis FILE", "--dir DIR"]).check(&place, &["id"])?;
    Refusal(&["--dir", "nowhere"], FAILED, &["nowhere is not a node's folder"]).check(&place, &["id"])?;
    // A mistaken command is no crash either.
    Refusal(&["trian"], MISUSED, &["trian", "Usage"]).check(&place, &[])?;
    Refusal(
        &["alone", "--genesis", "none.toml", "--data", "node.txt", "--dir", "alone", "--tokens", "1"],
        FAILED,
        &["none.toml", "No such file"],
    )
    .check(&place, &[])
}

/// What `swarm plan` expects of a small node is near what one takes: its JSON says both.
#[cfg(target_os = "linux")]
#[test]
fn a_plan_is_near_what_a_node_takes() -> Result<()> {
    let place = Place::with_genesis()?;
    let arguments =
        ["plan", "--genesis", "genesis.toml", "--threads", "1", "--measure", "--rounds", "3", "--json"];
    let exit = place.swarm(arguments)?;
    exit.refused(0, &["a node alone: round"])?;
    let (from, to) = (exit.log.find("\n{"), exit.log.rfind('}'));
    let json = &exit.log[from.context("no JSON")?..=to.context("no JSON")?];
    let both: serde_json::Value = serde_json::from_str(json).with_context(|| json.to_owned())?;
    let (planned, measured) = (&both["plan"], &both["measured"]);
    let of = |key: &str| measured[key].as_f64().with_context(|| format!("no {key} in {measured}"));
    // The largest part is libtorch, which the plan measures; the model is small.
    let ratio = of("memory_ratio")?;
    assert!((0.7..1.4).contains(&ratio), "{measured}");
    assert!(of("disk")? < of("planned_disk")? && of("disk")? > 0.0, "{measured}");
    let bits = of("bits_a_coefficient")? / of("planned_bits")?;
    assert!((0.8..1.25).contains(&bits), "{measured}");
    // In a plan for many rounds more deltas are held than in a run of three.
    assert!(planned["disk"]["total"].as_u64() > measured["planned_disk"].as_u64());
    Ok(())
}

#[test]
fn a_benchmark_that_lacks_something_says_what() -> Result<()> {
    let place = Place::new()?;
    let train = ["bench", "train", "--model", "nano", "--turns", "1", "--steps", "1", "--python"];
    Refusal(&["nowhere"], FAILED, &["cannot start nowhere", "--python PATH"]).check(&place, &train)?;
    // A program that is no Python.
    Refusal(&["false"], FAILED, &["false cannot run the baseline", "pip install torch"])
        .check(&place, &train)?;
    let zero = ["bench", "train", "--turns", "0"];
    Refusal(&zero, FAILED, &["--turns 0: at least one is needed"]).check(&place, &[])
}
