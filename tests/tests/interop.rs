//! Models from `transformers` go in, a swarm trains them, and they come out as files that `transformers` and llama.cpp
//! open; all three compute the same.
//!
//! scripts/interop.sh puts the other programs where this looks for them; without them the test is skipped.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_tests::Place;
use swarm_tests::program::{repository, skipped};
use swarm_tests::report::{address, agreed, text};

/// What the models are asked to go on with.
const PROMPT: &str = "the peer folds a late delta";
const ROUNDS: u64 = 20;

/// The other programs.
struct Others {
    folder: PathBuf,
}

impl Others {
    /// `None`, with a word about it, if they are not there.
    fn find() -> Option<Self> {
        let folder = repository().join(".interop");
        let needed = ["venv/bin/python", "llama/node_modules/node-llama-cpp"];
        if let Some(missing) = needed.iter().find(|name| !folder.join(name).exists()) {
            let missing = folder.join(missing);
            skipped(&format!(
                "{} is not there: run ./scripts/interop.sh, which puts it there",
                missing.display()
            ));
            return None;
        }
        Some(Self { folder })
    }

    fn script(name: &str) -> PathBuf {
        repository().join("scripts/interop").join(name)
    }

    fn python(&self, script: &str, arguments: &[&Path]) -> Result<String> {
        let mut command = Command::new(self.folder.join("venv/bin/python"));
        command.arg("-B").arg(Self::script(script)).args(arguments);
        output(command.env("HF_HUB_OFFLINE", "1").env("OMP_NUM_THREADS", "1").env_remove("LD_LIBRARY_PATH"))
    }

    fn transformers(&self, example: &Path, folder: &Path) -> Result<Value> {
        last_line(&self.python("compare.py", &[example, folder])?)
    }

    fn llama_cpp(&self, example: &Path, file: &Path) -> Result<Value> {
        let mut command = Command::new("node");
        command.arg(Self::script("compare.mjs")).args([example, file]).current_dir(self.folder.join("llama"));
        last_line(&output(&mut command)?)
    }
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "{command:?}:\n{said}{}", String::from_utf8_lossy(&done.stderr));
    Ok(said)
}

fn last_line(said: &str) -> Result<Value> {
    let line = said.lines().last().context("nothing was said")?;
    serde_json::from_str(line).with_context(|| format!("no JSON: {said}"))
}

/// Checks that two programs agree: logits within `tolerance` of the largest, the same tokens if `same`.
fn agrees(what: &str, said: &Value, tolerance: f64, same: bool) -> Result<()> {
    let number = |key: &str| said[key].as_f64().with_context(|| format!("{what}: no {key} in {said}"));
    let (difference, largest) = (number("difference")?, number("largest")?);
    println!(
        "{what}: logits differ by {difference:.2e} at most, of {largest:.2}; same tokens: {}",
        said["same_tokens"]
    );
    ensure!(largest > 1.0, "{what}: the test would see nothing: {said}");
    ensure!(difference < tolerance * largest, "{what}: {said}");
    ensure!(said["tokenizer"] == true, "{what}: another vocabulary: {said}");
    ensure!(!same || said["same_tokens"] == true, "{what}: {said}");
    ensure!(said["same_generated"] != false || !same, "{what}: {said}");
    Ok(())
}

fn journey(others: &Others, family: &str, models: &Path) -> Result<()> {
    let place = Place::new()?;
    let model = models.join(family);
    let model = model.to_str().context("a path that is not text")?;
    let rules = ["--steps", "2", "--batch", "2", "--learning-rate", "0.002", "--round-seconds", "20"];
    let new = ["new", "--model", model, "--context", "96", "--out", "founder", "--name", family];
    place
        .swarm([&new[..], &rules].concat())?
        .refused(0, &["96 tokens of 128", "wrote founder/genesis.toml", "swarm run --dir founder"])?;

    let genesis = place.path("founder/genesis.toml");
    let rounds = ROUNDS.to_string();
    let node = |name: &str| Ok::<_, anyhow::Error>(place.node(name)?.genesis(&genesis).rounds(&rounds));
    let mut founder = node("founder")?.start()?;
    let there = address(&mut founder, "/tcp/")?;
    let mut second = node("second")?.bootstrap(&there).start()?;
    let mut third = node("third")?.bootstrap(&there).start()?;
    let reports = agreed(&mut [&mut founder, &mut second, &mut third], ROUNDS)?;
    let report = reports.first().context("no report")?;

    // From another node than the founder.
    let export = |format: &str, numbers: &str, out: &str, more: &[&str]| {
        let flags = ["export", "--dir", "second", "--format", format, "--quantize", numbers, "--out", out];
        place
            .swarm([&flags[..], more].concat())?
            .refused(0, &[&format!("wrote {out}: the"), "after 20 rounds"])
    };
    export("safetensors", "f32", "hf", &["--example", PROMPT])?;
    let example = place.path("hf.example.json");
    let said = others.transformers(&example, &place.path("hf"))?;
    agrees(&format!("{family}, transformers, f32"), &said, 1e-5, true)?;
    let provenance = &said["provenance"];
    ensure!(provenance["swarm.round"] == "20" && provenance["swarm.model"] == "shared", "{provenance}");
    ensure!(provenance["swarm.state"] == text(report, "state_digest")?, "{provenance}\n{report}");

    export("safetensors", "f16", "hf-f16", &[])?;
    let said = others.transformers(&example, &place.path("hf-f16"))?;
    // What 11 bits of every weight cost depends on the weights of the run: 1.3e-3 to 3.2e-3 were seen.
    agrees(&format!("{family}, transformers, f16"), &said, 1e-2, false)?;

    // Where weights are quantised, llama.cpp rounds activations, too.
    for (numbers, tolerance) in [("f32", 1e-5), ("f16", 1e-2), ("q8_0", 0.1), ("q4_0", 0.6)] {
        let file = format!("model-{numbers}.gguf");
        export("gguf", numbers, &file, &[])?;
        let said = others.llama_cpp(&example, &place.path(&file))?;
        agrees(&format!("{family}, llama.cpp, {numbers}"), &said, tolerance, numbers == "f32")?;
        ensure!(said["provenance"]["round"] == "20", "{said}");
    }

    // What only this device has learned is another model.
    export("safetensors", "f32", "personal", &["--personal", "--example", PROMPT])?;
    let personal = others.transformers(&place.path("personal.example.json"), &place.path("personal"))?;
    agrees(&format!("{family}, transformers, personal"), &personal, 1e-5, true)?;
    ensure!(personal["provenance"]["swarm.model"] == "personal", "{personal}");
    let logits = |name: &str| Ok::<_, anyhow::Error>(fs::read(place.path(name))?);
    ensure!(logits("personal.example.json")? != logits("hf.example.json")?, "it is the shared model");

    // And back: what came out goes in again.
    let again = ["new", "--model", "hf", "--out", "again", "--name", "again"];
    place.swarm(again)?.refused(0, &["parameters, 96 tokens of 96", "wrote again/genesis.toml"])?;
    export("gguf", "f32", "second.gguf", &[])?;
    let twice = ["export", "--dir", "second", "--format", "gguf", "--out", "second.gguf"];
    place.swarm(twice)?.refused(1, &["second.gguf exists already", "--out"])
}

#[test]
fn a_model_goes_in_trains_and_comes_out_and_others_compute_the_same() -> Result<()> {
    let Some(others) = Others::find() else { return Ok(()) };
    let models = tempfile::tempdir()?;
    others.python("make_models.py", &[models.path()])?;
    for family in ["llama", "qwen2"] {
        journey(&others, family, models.path())?;
    }
    Ok(())
}

/// Needs none of the other programs.
#[test]
fn a_model_is_given_as_a_file_of_sizes_and_what_is_none_is_refused() -> Result<()> {
    let place = Place::new()?;
    let sizes =
        "[llama]\nvocabulary = 256\ndim = 32\nlayers = 1\nheads = 4\nffn = 48\ncontext = 64\nkv_heads = 2\n";
    place.file("mine.toml", sizes)?;
    place.swarm(["new", "--model", "mine.toml", "--context", "32"])?.refused(0, &["wrote genesis.toml"])?;
    let genesis = fs::read_to_string(place.path("genesis.toml"))?;
    assert!(genesis.contains("kv_heads = 2") && genesis.contains("context = 32"), "{genesis}");
    assert!(!genesis.contains("[parent]"), "{genesis}");

    place.file("wrong.toml", sizes.replace("kv_heads = 2", "kv_heads = 3"))?;
    place.file("unknown.toml", sizes.replace("kv_heads = 2", "colour = 3"))?;
    place.file("module.pt", "PK")?;
    place.file("model.safetensors", "")?;
    fs::create_dir_all(place.path("empty"))?;
    fs::create_dir_all(place.path("pickled"))?;
    let config = r#"{ "model_type": "llama", "vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64 }"#;
    place.file("pickled/config.json", config)?;
    place.file("pickled/pytorch_model.bin", "PK")?;
    for (model, more, words) in [
        ("wrong.toml", &[][..], &["wrong.toml", "model.llama.kv_heads = 3", "must divide"][..]),
        ("unknown.toml", &[], &["unknown.toml", "colour"]),
        ("missing.toml", &[], &["missing.toml"]),
        ("mine.toml", &["--context", "65"], &["--context 65", "between 2 and", "64"]),
        ("module.pt", &[], &["module.pt", "can run code", "safetensors"]),
        ("model.safetensors", &[], &["name the folder"]),
        ("large", &[], &["no preset (nano, micro, small, digits, mnist, cifar)", ".toml", "folder"]),
        ("empty", &[], &["--model empty is a folder", "--out DIR"]),
        ("empty", &["--out", "new"], &["config.json"]),
        ("pickled", &["--out", "new"], &["pytorch_model.bin", "can run code", "convert it to safetensors"]),
        ("pickled", &["--out", "new", "--context", "65"], &["--context 65", "64"]),
        ("pickled", &["--out", "empty/.."], &["is not empty", "--out"]),
    ] {
        place.swarm([&["new", "--force", "--model", model], more].concat())?.refused(1, words)?;
    }
    assert!(!place.path("new").exists(), "what is refused makes no folder");

    place
        .swarm(["export", "--dir", "empty", "--format", "gguf", "--out", "x"])?
        .refused(1, &["not a node's folder"])
}
