//! AdamW against its formulas in f64, and the learner as a whole.

use super::*;
use crate::data::{Corpus, CorpusOptions, Text, TextExamples};
use crate::model::{Given, Precision, build, initial_parameters};
use std::io::Write;
use swarm_protocol::architecture::{Init, LlamaConfig, Parameter, Sizes};
use swarm_protocol::genesis::InnerOptimizer;
use tch::{Device, Tensor};

fn layout() -> Vec<Parameter> {
    let parameter = |name: &str, shape: &[usize]| Parameter {
        name: name.into(),
        shape: shape.to_vec(),
        init: Init::Ones,
        hidden: false,
    };
    vec![parameter("a", &[2, 2]), parameter("gain", &[2]), parameter("b", &[1, 2]), parameter("c", &[2, 1])]
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel()];
    let count = values.len();
    tensor.copy_data(&mut values, count);
    values
}

#[test]
fn adamw_follows_its_formulas() {
    tch::set_num_threads(1);
    let config = InnerConfig { clip: 2.0, ..InnerConfig::default() };
    let mut adamw = Inner::new(&layout(), Device::Cpu, config).unwrap();
    let start: Vec<f32> = (0..10).map(|i| i as f32 * 0.3 - 1.2).collect();
    let parameters = Tensor::from_slice(&start);
    let mut p: Vec<f64> = start.iter().map(|&x| f64::from(x)).collect();
    let (mut m, mut v) = (vec![0.0; 10], vec![0.0; 10]);
    for t in 1..=7 {
        let lr = 0.01 * f64::from(t);
        // The last gradients are long enough to be clipped; one element never has a gradient.
        let raw: Vec<f32> = (0..10).map(|i| ((i * t) as f32).sin() * 0.3 * t as f32).collect();
        let norm = raw.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
        let mut gradient = Tensor::from_slice(&raw);
        let outcome = adamw.step(&parameters, &mut gradient, lr).unwrap();
        assert!(matches!(outcome, Outcome::Applied { norm: n } if (n - norm).abs() < 1e-5), "{outcome:?}");
        for i in 0..10 {
            let g = f64::from(raw[i]) * (2.0 / norm).min(1.0);
            if !(4..6).contains(&i) {
                p[i] -= lr * 0.1 * p[i];
            }
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            let (m_hat, v_hat): (f64, f64) =
                (m[i] / (1.0 - 0.9_f64.powi(t)), v[i] / (1.0 - 0.95_f64.powi(t)));
            p[i] -= lr * m_hat / (v_hat.sqrt() + 1e-8);
        }
        for (got, want) in values(&parameters).iter().zip(&p) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "step {t}: {got} {want}");
        }
    }
    assert!(adamw.state().unwrap().step == 7 && m.iter().any(|&m| m != 0.0));
}

#[test]
fn adamw_agrees_with_libtorchs_own() {
    tch::set_num_threads(1);
    // libtorch decays whatever it is given, so compare without decay; no gradient is long enough to be
    // clipped here.
    let config = InnerConfig { weight_decay: 0.0, clip: 1e9, ..InnerConfig::default() };
    let mut adamw = Inner::new(&layout(), Device::Cpu, config).unwrap();
    let start: Vec<f32> = (0..10).map(|i| (i as f32).cos()).collect();
    let ours = Tensor::from_slice(&start);
    let store = tch::nn::VarStore::new(Device::Cpu);
    let theirs = store.root().var_copy("p", &Tensor::from_slice(&start));
    let mut reference = tch::nn::OptimizerConfig::build(
        tch::nn::AdamW { beta1: 0.9, beta2: 0.95, wd: 0.0, eps: 1e-8, amsgrad: false },
        &store,
        3e-3,
    )
    .unwrap();
    let target = Tensor::from_slice(&start.iter().rev().copied().collect::<Vec<_>>());
    for _ in 0..50 {
        let leaf = ours.detach().copy().set_requires_grad(true);
        let loss = (&leaf - &target).square().sum(tch::Kind::Float);
        let mut gradient = Tensor::run_backward(&[loss], &[leaf], false, false).remove(0);
        adamw.step(&ours, &mut gradient, 3e-3).unwrap();
        reference.backward_step(&(&theirs - &target).square().sum(tch::Kind::Float));
    }
    for (a, b) in values(&ours).iter().zip(values(&theirs.detach())) {
        assert!((a - b).abs() < 2e-6, "{a} {b}");
    }
    assert!((values(&ours)[0] - start[0]).abs() > 0.05, "50 steps of 0.003 must show");
}

#[test]
fn adamw_refuses_what_is_not_finite() {
    tch::set_num_threads(1);
    let mut adamw = Inner::new(&layout(), Device::Cpu, InnerConfig::default()).unwrap();
    let parameters = Tensor::from_slice(&[1.0_f32; 10]);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut gradient = [0.5_f32; 10];
        gradient[3] = bad;
        let outcome = adamw.step(&parameters, &mut Tensor::from_slice(&gradient), 0.1).unwrap();
        assert_eq!(outcome, Outcome::NotFinite);
    }
    assert_eq!(values(&parameters), [1.0; 10]);
    assert_eq!(adamw.state().unwrap(), InnerState { step: 0, m: vec![0.0; 10], v: vec![0.0; 10] });
    for lr in [0.0, -1.0, f64::NAN] {
        assert!(adamw.step(&parameters, &mut Tensor::from_slice(&[1.0_f32; 10]), lr).is_err());
    }
    let good = adamw.state().unwrap();
    assert!(adamw.restore(&InnerState { m: vec![0.0; 9], ..good.clone() }).is_err());
    assert!(adamw.restore(&InnerState { v: vec![-1.0; 10], ..good.clone() }).is_err());
    assert!(adamw.restore(&InnerState { m: vec![f32::NAN; 10], ..good }).is_err());
    let wrong = InnerConfig { beta2: 1.0, ..InnerConfig::default() };
    assert!(Inner::new(&layout(), Device::Cpu, wrong).unwrap_err().to_string().starts_with("beta2"));
}

const CONTEXT: usize = 16;

fn tiny() -> LlamaConfig {
    Sizes { vocabulary: 256, dim: 16, layers: 1, heads: 2, ffn: 32, context: 16 }.into()
}

fn config() -> LearnerConfig {
    LearnerConfig {
        precision: Precision::F32,
        optimizer: InnerOptimizer::Adamw,
        batch: 4,
        micro_batch: 4,
        learning_rate: 1e-2,
        warmup_steps: 4,
        weight_decay: 0.1,
        clip: 1.0,
        seed: 11,
    }
}

fn make(config: LearnerConfig, corpus: Corpus) -> anyhow::Result<Learner> {
    let model = build(&tiny().into(), &Given::default(), Device::Cpu, config.precision)?;
    Learner::new(config, model, Box::new(TextExamples::new(corpus, CONTEXT)))
}

fn learner(config: LearnerConfig) -> Learner {
    tch::set_num_threads(1);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&b"the quick brown fox jumps over the lazy dog. ".repeat(40)).unwrap();
    let options = CorpusOptions { held_out_fraction: 0.1, ..CorpusOptions::new(CONTEXT) };
    let corpus = Corpus::open(&[file.path().to_path_buf()], options).unwrap();
    let mut learner = make(config, corpus).unwrap();
    learner.set_parameters(&initial_parameters(&tiny(), 2)).unwrap();
    learner
}

fn parameters(learner: &Learner) -> Vec<f32> {
    let mut values = vec![0.0; learner.parameter_count()];
    learner.read_parameters(&mut values).unwrap();
    values
}

#[test]
fn training_lowers_the_loss_on_text_it_has_not_seen() {
    let mut learner = learner(config());
    let before = learner.held_out_loss(8).unwrap();
    assert!((before - 256.0_f64.ln()).abs() < 0.1, "{before}");
    let mut last = StepReport { loss: 0.0, gradient_norm: 0.0, tokens: 0, skipped: None };
    for _ in 0..150 {
        last = learner.step(1.0).unwrap();
        assert_eq!((last.tokens, &last.skipped), (64, &None));
        assert!(last.gradient_norm > 0.0 && last.gradient_norm.is_finite());
    }
    let after = learner.held_out_loss(8).unwrap();
    // The text repeats itself: with 16 bytes of context almost every byte is certain.
    assert!(after < 1.0 && last.loss < 1.0, "{before} -> {after}, last batch {}", last.loss);
    assert_eq!(after, learner.held_out_loss(8).unwrap(), "the same windows each time");
    let other = Text::of_bytes(&b"entirely different words ".repeat(10), CONTEXT).unwrap();
    let other = learner.evaluate(&other, 8).unwrap();
    assert!(other > after + 0.5, "{other}");
    assert!(learner.held_out_loss(0).is_err());
}

#[test]
fn evaluation_does_not_depend_on_how_windows_are_batched() {
    let whole = learner(config()).held_out_loss(7).unwrap();
    let single = learner(LearnerConfig { batch: 1, micro_batch: 1, ..config() }).held_out_loss(7).unwrap();
    assert!((whole - single).abs() < 1e-5, "{whole} {single}");
}

/// A step that is left after every part ends as one that is not: the same numbers, and no window more.
#[test]
fn a_step_that_is_left_between_its_parts_goes_on_there() {
    let parts = LearnerConfig { micro_batch: 1, ..config() };
    let (mut whole, mut left) = (learner(parts), learner(parts));
    for _ in 0..3 {
        let mut pauses = 0;
        let report = loop {
            match left.step_unless(1.0, || true).unwrap() {
                Some(report) => break report,
                None => pauses += 1,
            }
        };
        assert_eq!(pauses, parts.batch - 1);
        assert_eq!(report, whole.step(1.0).unwrap());
    }
    assert_eq!(parameters(&whole), parameters(&left));
    assert_eq!(whole.state().unwrap(), left.state().unwrap());
}

/// A batch in parts, the last one smaller, takes the steps of the whole batch, but for rounding.
#[test]
fn micro_batches_learn_the_same() {
    let mut whole = learner(config());
    for micro_batch in [1, 3] {
        let mut parts = learner(LearnerConfig { micro_batch, ..config() });
        whole.set_parameters(&parameters(&parts)).unwrap();
        whole.restore(&parts.state().unwrap()).unwrap();
        for _ in 0..5 {
            let (a, b) = (whole.step(1.0).unwrap(), parts.step(1.0).unwrap());
            assert!((a.loss - b.loss).abs() < 1e-5, "{} {}", a.loss, b.loss);
            assert!((a.gradient_norm - b.gradient_norm).abs() < 1e-4 * a.gradient_norm);
            assert_eq!(a.tokens, b.tokens);
        }
        for (a, b) in parameters(&whole).iter().zip(parameters(&parts)) {
            assert!((a - b).abs() < 2e-4, "{a} {b}");
        }
    }
}

#[test]
fn a_restored_learner_continues_bit_for_bit() {
    for optimizer in [InnerOptimizer::Adamw, InnerOptimizer::Muon] {
        let config = LearnerConfig { optimizer, ..config() };
        let mut original = learner(config);
        for _ in 0..5 {
            original.step(1.0).unwrap();
        }
        let (state, snapshot) = (original.state().unwrap(), parameters(&original));
        assert_eq!(state.optimizer.step, 5);
        let moments = (state.optimizer.m.len() + state.optimizer.v.len()) as u64;
        assert_eq!(moments, size::moments(&tiny().into(), optimizer), "no second moment that nobody uses");
        let mut resumed = learner(LearnerConfig { seed: 999, ..config });
        resumed.set_parameters(&snapshot).unwrap();
        resumed.restore(&state).unwrap();
        for _ in 0..5 {
            assert_eq!(original.step(1.0).unwrap(), resumed.step(1.0).unwrap());
        }
        assert_eq!(parameters(&original), parameters(&resumed));
        assert_eq!(original.state().unwrap(), resumed.state().unwrap());

        let mut without_state = learner(config);
        without_state.set_parameters(&snapshot).unwrap();
        for _ in 0..5 {
            without_state.step(1.0).unwrap();
        }
        assert_ne!(parameters(&original), parameters(&without_state), "the state must matter");
    }
}

#[test]
fn a_damaged_parameter_is_named_and_the_step_skipped() {
    let mut learner = learner(config());
    let good = parameters(&learner);
    let mut damaged = good.clone();
    let mut start = 0;
    for parameter in tiny().parameters() {
        if parameter.name == "model.layers.0.mlp.down_proj.weight" {
            damaged[start + 3] = f32::NAN;
        }
        start += parameter.shape.iter().product::<usize>();
    }
    learner.set_parameters(&damaged).unwrap();
    let report = learner.step(1.0).unwrap();
    let reason = report.skipped.unwrap();
    assert!(reason.contains("the value of model.layers.0.mlp.down_proj.weight"), "{reason}");
    assert!(report.loss.is_nan());
    assert_eq!((learner.skipped_steps(), learner.state().unwrap().optimizer.step), (1, 0));
    assert_eq!(parameters(&learner).iter().filter(|x| x.is_nan()).count(), 1, "nothing else changed");

    // Finite values whose gradient is not: an output layer so large that the loss overflows.
    let mut huge = good.clone();
    let tail = huge.len() - 100;
    huge[tail..].fill(f32::MAX);
    learner.set_parameters(&huge).unwrap();
    assert!(learner.step(1.0).unwrap().skipped.unwrap().contains("gradient of"));

    learner.set_parameters(&good).unwrap();
    assert_eq!(learner.step(1.0).unwrap().skipped, None);
    assert_eq!(learner.skipped_steps(), 2);
}

#[test]
fn the_learning_rate_rises_and_stays() {
    let mut learner = learner(config());
    let mut rates = Vec::new();
    for _ in 0..6 {
        rates.push(learner.warmed_up());
        learner.step(1.0).unwrap();
    }
    assert_eq!(rates, [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01]);
}

#[test]
fn senseless_settings_are_refused_by_name() {
    let open = || {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[b'x'; 4000]).unwrap();
        Corpus::open(&[file.path().to_path_buf()], CorpusOptions::new(16)).unwrap()
    };
    for (config, word) in [
        (LearnerConfig { batch: 0, ..config() }, "batch"),
        (LearnerConfig { micro_batch: 5, ..config() }, "micro-batch"),
        (LearnerConfig { micro_batch: 0, ..config() }, "micro-batch"),
        (LearnerConfig { learning_rate: f64::NAN, ..config() }, "learning rate"),
        (LearnerConfig { weight_decay: -1.0, ..config() }, "weight decay"),
        (LearnerConfig { clip: 0.0, ..config() }, "clip"),
    ] {
        let error = make(config, open()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let huge = LearnerConfig { batch: usize::MAX / 5, ..config() };
    let error = make(huge, open()).unwrap().step(1.0).unwrap_err().to_string();
    assert!(error.contains("batch"), "{error}");
    assert!(set_threads(0).is_err());
}
