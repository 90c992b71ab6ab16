//! Whole runs of a tiny model: they learn, they repeat, they go on where they stopped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use swarm_protocol::genesis::InnerOptimizer;

use super::record::RunResult;
use super::run::{Outcome, Surroundings, run};
use super::settings::{Attack, Method, Settings, Sweep};
use super::sweep::{Jobs, sweep};
use super::text::Text;

fn around(dir: &Path) -> Surroundings {
    for name in 'a'..='t' {
        let folder = dir.join("source").join(name.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let words = ["alpha", "beta", "gamma", "delta"].map(|word| format!("{word} of {name}, "));
        std::fs::write(folder.join("text"), words.concat().repeat(300)).unwrap();
    }
    Surroundings {
        text: Text::read(dir.join("source").to_str().unwrap()).unwrap(),
        texts: dir.join("text"),
        device: tch::Device::Cpu,
        stop: Arc::new(AtomicBool::new(false)),
    }
}

/// Six rounds of two steps for three learners, one window each: seconds in all. (With AdamW: beside one
/// window, Muon's products would take most of the time.)
fn settings(method: Method) -> Settings {
    let steps = if matches!(method, Method::AdamwDp | Method::Demo) { 1 } else { 2 };
    let (optimizer, tokens) = (InnerOptimizer::Adamw, 6 * 2 * 3 * 128);
    let learning_rate = optimizer.learning_rate();
    Settings { method, learners: 3, batch: 1, tokens, steps, optimizer, learning_rate, ..Settings::default() }
}

fn finish(settings: &Settings, folder: &Path, around: &Surroundings) -> RunResult {
    tch::set_num_threads(1);
    match run(settings, folder, 1.0, around, |_| ()).unwrap() {
        Outcome::Finished(result) => *result,
        other => panic!("{other:?}"),
    }
}

const METHODS: [Method; 5] = [Method::AdamwDp, Method::Demo, Method::Swarm, Method::Local, Method::Diloco];

#[test]
fn every_method_learns_and_goes_on_bit_for_bit_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let around = around(dir.path());
    for method in METHODS {
        let mut settings = settings(method);
        if method == Method::Swarm {
            // Weather, so that open rounds are in the state too, and a round that nobody has folded yet.
            (settings.late, settings.lost, settings.late_rounds) = (0.4, 0.2, 3);
            (settings.optimizer, settings.overlap) = (InnerOptimizer::Muon, 1);
        }
        let whole = finish(&settings, &dir.path().join(method.name()), &around);
        assert!(whole.validation_loss < 5.5, "{method:?}: {}", whole.validation_loss);
        assert_eq!(whole.tokens, settings.tokens);
        let folder = dir.path().join("parts").join(method.name());
        for share in [0.3, 0.6] {
            let paused = run(&settings, &folder, share, &around, |_| ()).unwrap();
            assert!(matches!(paused, Outcome::Paused(_)), "{method:?}");
        }
        let parts = finish(&settings, &folder, &around);
        assert_eq!(parts.model_digest, whole.model_digest, "{method:?}");
        assert_eq!(parts.curve, whole.curve, "{method:?}");
        assert!(!folder.join("state.bin").exists() && folder.join("curve.csv").exists());
    }
}

#[test]
fn another_seed_is_another_run_and_bytes_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let around = around(dir.path());
    let result = |settings: Settings| {
        let folder = dir.path().join(settings.folder().unwrap());
        finish(&settings, &folder, &around)
    };
    let (one, two) =
        (result(settings(Method::Swarm)), result(Settings { seed: 2, ..settings(Method::Swarm) }));
    assert_ne!(one.model_digest, two.model_digest);
    let dense = result(settings(Method::AdamwDp));
    assert!((dense.share_of_dense - 1.0).abs() < 1e-9, "{}", dense.share_of_dense);
    assert!((dense.bytes_per_parameter_token - 4.0 / 128.0).abs() < 1e-12);
    let averaging = result(settings(Method::Diloco));
    assert!((averaging.share_of_dense - 0.5).abs() < 1e-9, "{}", averaging.share_of_dense);
    assert_eq!(result(settings(Method::Local)).bytes_per_parameter_token, 0.0);
    assert!(one.share_of_dense > 0.0 && one.share_of_dense < 0.1, "{}", one.share_of_dense);
}

#[test]
fn all_views_agree_once_everything_has_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let around = around(dir.path());
    // Lateness changes what learners train on, but a stranger who hears the deltas in time and one who
    // hears them late hold the same C: attackers that send nothing leave the others' sets alone.
    for attack in [Attack::Silence, Attack::Flip, Attack::Noise, Attack::Copy, Attack::Echo] {
        let settings =
            Settings { attackers: 1, attack, late: 0.5, late_rounds: 4, ..settings(Method::Swarm) };
        let shards = around.text.shards(&around.texts, 3).unwrap();
        tch::set_num_threads(1);
        let mut team = super::team::team(&settings, &shards, tch::Device::Cpu).unwrap();
        for round in 0..5 {
            team.round(super::team::Orders { round, rate: 1.0, steps: 1, k: 64 }).unwrap();
        }
        let before = team.state().unwrap().coefficients;
        assert!(before.windows(2).any(|pair| pair[0] != pair[1]), "{attack:?}: nothing was late");
        team.settle().unwrap();
        let after = team.state().unwrap().coefficients;
        assert!(after.windows(2).all(|pair| pair[0] == pair[1]), "{attack:?}");
    }
}

/// A quarter of the learners is hostile, and the others learn what they would have learned without them.
#[test]
fn a_hostile_quarter_changes_little() {
    let dir = tempfile::tempdir().unwrap();
    let around = around(dir.path());
    let tokens = 6 * 2 * 8 * 128;
    let team = Settings { learners: 8, attackers: 2, tokens, ..settings(Method::Swarm) };
    let loss = |attack, undefended| {
        let settings = Settings { attack, undefended, ..team.clone() };
        finish(&settings, &dir.path().join(settings.folder().unwrap()), &around).validation_loss
    };
    let clean = loss(Attack::Silence, false);
    for attack in [Attack::Flip, Attack::Noise, Attack::Collude, Attack::Oppose] {
        let (with, without) = (loss(attack, false), loss(attack, true));
        eprintln!("{attack:?}: {clean:.4} clean, {with:.4} defended, {without:.4} undefended");
        assert!(with < 1.02 * clean, "{attack:?}: {with} instead of {clean}");
        // All of them do harm where nobody judges, so that the line above says something.
        assert!(without > 1.02 * clean, "{attack:?}: {without} without a defence, {clean} clean");
    }
}

#[test]
fn who_was_cut_off_takes_up_the_history_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let around = around(dir.path());
    let settings =
        Settings { learners: 3, cut_off: 1, cut_from: 1, cut_rounds: 3, ..settings(Method::Swarm) };
    let shards = around.text.shards(&around.texts, 3).unwrap();
    tch::set_num_threads(1);
    let mut team = super::team::team(&settings, &shards, tch::Device::Cpu).unwrap();
    let parted = |team: &mut Box<dyn super::team::Team>| {
        let held = team.state().unwrap().coefficients;
        (held[0] != held[1], held[0] != held[2])
    };
    let mut rounds = Vec::new();
    for round in 0..6 {
        team.round(super::team::Orders { round, rate: 1.0, steps: 1, k: 64 }).unwrap();
        rounds.push(parted(&mut team));
    }
    // Cut off in rounds 1 to 3, back at the end of the last of them.
    let cut = (false, true);
    assert_eq!(rounds, [(false, false), cut, cut, (false, false), (false, false), (false, false)]);
}

#[test]
fn a_sweep_stops_the_hopeless_and_is_done_when_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let around = around(dir.path());
    let run = |learning_rate: f64, seed| Settings {
        name: format!("rate {learning_rate}"),
        learning_rate,
        seed,
        ..settings(Method::Local)
    };
    // A rate of 1e-7 learns nothing in six rounds.
    let runs = [run(1e-7, 1), run(1e-7, 2), run(1e-2, 1), run(1e-2, 2)];
    let halving = Sweep { at: vec![0.5], keep: 0.5 };
    let out = dir.path().join("out");
    let jobs = Jobs { count: 2, threads: 1 };
    let results = sweep("a sweep", &runs, Some(&halving), &out, &around, jobs).unwrap().unwrap();
    assert_eq!(results.iter().map(|r| r.stopped_early).collect::<Vec<_>>(), [true, true, false, false]);
    assert!(results[0].tokens < results[2].tokens);
    let again = sweep("a sweep", &runs, Some(&halving), &out, &around, jobs).unwrap().unwrap();
    assert!(again == results, "finished runs are read, not repeated");
    let csv = std::fs::read_to_string(out.join("summary.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3);
    assert!(std::fs::read_to_string(out.join("index.html")).unwrap().contains("rate 0.01"));
    around.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(sweep("", &[run(1e-3, 1)], None, &out, &around, jobs).unwrap().is_none());
}
