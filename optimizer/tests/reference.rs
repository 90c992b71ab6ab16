//! The optimizer against recorded runs of the reference implementation of DeMo.
//!
//! ```text
//! cargo test -p swarm-optimizer --test reference
//! SWARM_GOLDEN_DIR=FOLDER cargo test -p swarm-optimizer --test reference
//! ```
//!
//! Checks every recording in a folder, `tests/golden` unless told otherwise; the format is described
//! there. What is in the folder decides what is run: no name or number of cases is built in. A line
//! `N cases, S steps, V values compared` goes straight to standard output, past the test harness's
//! capture, and every difference is listed with its tensor, step and worker. A folder without
//! recordings is a failure.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

#[path = "reference/compare.rs"]
mod compare;
#[path = "reference/files.rs"]
mod files;
#[path = "reference/recording.rs"]
mod recording;
#[path = "reference/replay.rs"]
mod replay;
#[path = "reference/transforms.rs"]
mod transforms;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use compare::Outcome;
use files::Archive;

/// What came of a folder.
#[derive(Default)]
struct Report {
    cases: usize,
    steps: usize,
    values: usize,
    /// One entry a failed file, its differences on lines of their own.
    failures: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    fn add(&mut self, file: &str, result: Result<Outcome, String>) {
        self.cases += 1;
        let why = match result {
            Ok(outcome) => {
                self.steps += outcome.steps;
                self.values += outcome.values;
                outcome.failure()
            }
            Err(why) => Some(why),
        };
        self.failures.extend(why.map(|why| format!("{file}: {why}")));
    }
}

fn check_folder(folder: &Path) -> Report {
    let mut report = Report::default();
    let names = match files::names(folder) {
        Ok(names) => names,
        Err(why) => {
            report.failures.push(why);
            return report;
        }
    };
    let manifest = match files::manifest(folder) {
        Ok(manifest) => manifest,
        Err(why) => {
            report.failures.push(why);
            Default::default()
        }
    };
    for name in names {
        let path = folder.join(&name);
        if name.ends_with(".csv") {
            report.add(&name, transforms::check_chunk_lengths(&path));
        } else if name.ends_with(".safetensors") {
            match check_archive(&path, manifest.get(&name)) {
                Ok(Some(outcome)) => report.add(&name, Ok(outcome)),
                Ok(None) => report.notes.push(format!("{name}: skipped, its dtype is not float32")),
                Err(why) => report.add(&name, Err(why)),
            }
        }
    }
    if report.cases == 0 && report.failures.is_empty() {
        report.failures.push(format!("{}: no recordings (*.safetensors, *.csv) in it", folder.display()));
    }
    report
}

/// `None` for a recording in another dtype than f32, which is informative only.
fn check_archive(path: &Path, manifest: Option<&serde_json::Value>) -> Result<Option<Outcome>, String> {
    let bytes = std::fs::read(path).map_err(|why| format!("cannot read it: {why}"))?;
    let archive = Archive::new(&bytes)?;
    match archive.config(manifest)? {
        None => transforms::check_vectors(&archive).map(Some),
        Some(config) if config["dtype"] != "float32" => Ok(None),
        Some(config) => replay::check(&recording::Recording::load(&archive, &config)?).map(Some),
    }
}

/// The folder asked for; a relative one is meant from the workspace's root.
fn folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    match std::env::var_os("SWARM_GOLDEN_DIR") {
        Some(folder) => package.join("..").join(folder),
        None => package.join("tests/golden"),
    }
}

#[test]
fn every_recording_is_reproduced() {
    let folder = folder();
    let report = check_folder(&folder);
    // Starts on a fresh line, wherever the harness's own output stands.
    let mut text = String::from("\n");
    for line in report.notes.iter().chain(&report.failures) {
        writeln!(text, "{line}").unwrap();
    }
    let Report { cases, steps, values, failures, .. } = &report;
    writeln!(text, "{cases} cases, {steps} steps, {values} values compared").unwrap();
    std::io::stdout().lock().write_all(text.as_bytes()).unwrap();
    assert!(failures.is_empty(), "{} failures in {}, listed above", failures.len(), folder.display());
}

/// A fresh empty folder for one test.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn folders_without_recordings_fail() {
    let empty = scratch("reference-empty");
    assert!(check_folder(&empty).failures[0].contains("no recordings"));
    assert!(check_folder(&empty.join("missing")).failures[0].contains("cannot read the folder"));
    std::fs::write(empty.join("broken.safetensors"), b"not one").unwrap();
    let report = check_folder(&empty);
    assert!(report.failures[0].starts_with("broken.safetensors: "), "{:?}", report.failures);
}

/// Copies a kept recording with the bytes of one of its tensors changed, and returns what is found.
fn found_after(file: &str, tensor: &str, change: impl Fn(&mut [u8])) -> String {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bytes = std::fs::read(kept.join(file)).unwrap();
    let original = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: HashMap<String, _> = HashMap::new();
    for (name, view) in original.tensors() {
        let mut data = view.data().to_vec();
        if name == tensor {
            change(&mut data);
        }
        tensors.insert(name, (view.dtype(), view.shape().to_vec(), data));
    }
    assert!(tensors.contains_key(tensor), "{file} has no {tensor}");
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone();
    let folder = scratch(&format!("reference-{}", tensor.replace('/', "-")));
    std::fs::copy(kept.join("manifest.json"), folder.join("manifest.json")).unwrap();
    std::fs::write(folder.join(file), safetensors::serialize(views, metadata).unwrap()).unwrap();
    check_folder(&folder).failures.join("\n")
}

/// Adds a ten thousandth of itself and a little more to the last f32 of a tensor.
fn nudge(data: &mut [u8]) {
    let last = data.last_chunk_mut::<4>().unwrap();
    *last = (f32::from_le_bytes(*last) * 1.0001 + 1e-7).to_le_bytes();
}

#[test]
fn a_changed_value_is_found_and_named() {
    assert_eq!(found_after("groups_0.safetensors", "val/v64", |_| ()), "");
    for tensor in ["val/v64", "delta/v64", "merged/v64", "params/v64", "params/m2x3", "delta/v300"] {
        let found = found_after("groups_0.safetensors", tensor, nudge);
        assert!(found.contains(&format!("{tensor}, step 3")), "{tensor}: {found}");
    }
    let found = found_after("groups_0.safetensors", "grad/v64", nudge);
    assert!(found.contains("delta/v64, step 3, worker 1"), "{found}");
    let found = found_after("groups_0.safetensors", "idx/v64", |data| data[0] ^= 1);
    assert!(found.contains("idx/v64, step 0, worker 0"), "{found}");
    let found = found_after("dct_1d.safetensors", "n48/dct3_f64", |data| data[7] ^= 0x40);
    assert!(found.contains("n48/dct3_f64"), "{found}");
    // Generated inputs: only some rows are stored, the rest is checked through sums.
    let found = found_after("tall_1.safetensors", "merged_sum/m8192x16", |data| data[7] ^= 0x40);
    assert!(found.contains("merged_sum/m8192x16, step 0"), "{found}");
    let found = found_after("tall_1.safetensors", "grad_head/m8192x16", nudge);
    assert!(found.contains("grad_head/m8192x16"), "{found}");
}
