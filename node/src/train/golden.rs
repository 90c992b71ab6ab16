//! A TorchScript module in a learner against the same module trained by PyTorch in Python.
//!
//! `scripts/torchscript/export.py mlp tests/data/module` made the module and recorded the losses: 60 steps of AdamW on
//! the bundled digits, 16 pictures a step in their order, the learning rate 0.003 after 20 steps of warm-up, weight
//! decay 0.1 on matrices, gradients clipped to 1. The learner does the same here, so the losses must be the same but
//! for rounding.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use swarm_protocol::architecture::{Architecture, Images, Inputs, Loss};
use swarm_protocol::genesis::InnerOptimizer;
use tch::{Device, Tensor};

use super::{Learner, LearnerConfig};
use crate::data::{Examples, ImageExamples, Sampler, TestSet};
use crate::model::{Batch, Given, Network, Precision, build, module};

/// Largest difference of two losses: they are sums of many f32, taken in different orders.
const TOLERANCE: f64 = 2e-5;

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

fn digits() -> Images {
    Images { channels: 1, height: 8, width: 8, classes: 10, class_names: Vec::new() }
}

/// The training pictures, so many at a time, in their order.
#[derive(Debug)]
struct InOrder {
    all: Batch,
    next: i64,
}

impl InOrder {
    /// All but every fifth picture.
    fn new() -> Self {
        let all = ImageExamples::test_set(&[recorded("digits")], &digits()).unwrap();
        let all = all.read(0..all.len(), all.len()).unwrap();
        let kept: Vec<i64> = (0..all.len() as i64).filter(|at| at % 5 != 0).collect();
        let kept = Tensor::from_slice(&kept);
        let part = |tensor: &Tensor| tensor.index_select(0, &kept);
        Self { all: Batch { inputs: part(&all.inputs), targets: part(&all.targets) }, next: 0 }
    }
}

impl TestSet for InOrder {
    fn len(&self) -> u64 {
        self.all.len() as u64
    }

    fn read(&self, which: Range<u64>, _count: u64) -> Result<Batch> {
        Ok(self.all.part(which.start as usize, which.count(), Device::Cpu)?)
    }

    fn amount(&self) -> String {
        format!("{} pictures", self.all.len())
    }
}

impl Examples for InOrder {
    fn draw(&mut self, _sampler: &mut Sampler, count: usize) -> Result<Batch> {
        let (length, from) = (self.all.len() as i64, self.next);
        self.next += count as i64;
        let at: Vec<i64> = (from..self.next).map(|at| at % length).collect();
        let part = |tensor: &Tensor| tensor.f_index_select(0, &Tensor::from_slice(&at));
        Ok(Batch { inputs: part(&self.all.inputs)?, targets: part(&self.all.targets)? })
    }

    fn as_test_set(&self) -> &dyn TestSet {
        self
    }

    fn targets(&self) -> u64 {
        1
    }

    fn failed_reads(&self) -> u64 {
        0
    }
}

/// The recorded module, as a network with its own parameters.
fn network(bytes: &[u8]) -> Box<dyn Network> {
    tch::set_num_threads(1);
    let (config, values) = module::describe(bytes, Inputs::Images(digits()), Loss::CrossEntropy).unwrap();
    let given = Given { module: Some(bytes.to_vec()), ..Given::default() };
    let mut network = build(&Architecture::Module(config), &given, Device::Cpu, Precision::F32).unwrap();
    network.set_parameters(&values).unwrap();
    network
}

fn learner(micro_batch: usize) -> Learner {
    let bytes = fs::read(recorded("module/mlp.pt")).unwrap();
    let config = LearnerConfig {
        precision: Precision::F32,
        optimizer: InnerOptimizer::Adamw,
        batch: 16,
        micro_batch,
        learning_rate: 0.003,
        warmup_steps: 20,
        weight_decay: 0.1,
        clip: 1.0,
        seed: 1,
    };
    Learner::new(config, network(&bytes), Box::new(InOrder::new())).unwrap()
}

#[test]
fn a_module_learns_as_it_does_in_pytorch() {
    let curve = fs::read(recorded("module/curve.json")).unwrap();
    let curve: serde_json::Value = serde_json::from_slice(&curve).unwrap();
    let wanted: Vec<f64> =
        curve["one_node_losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    assert_eq!(wanted.len(), 60);
    assert!(wanted[0] > 2.2 && wanted[59] < 1.2, "there is something to compare: {wanted:?}");
    for micro_batch in [16, 5] {
        let mut learner = learner(micro_batch);
        for (step, wanted) in wanted.iter().enumerate() {
            let report = learner.step(1.0).unwrap();
            assert!((report.loss - wanted).abs() < TOLERANCE, "step {step}: {} {wanted}", report.loss);
        }
    }
}

#[test]
fn what_a_fold_writes_is_what_the_module_computes_with() {
    let mut learner = learner(16);
    let before = learner.measure_held_out(100).unwrap();
    assert!(before.accuracy.is_some_and(|share| share < 0.4), "{before:?}");
    let mut values = vec![0.0; learner.parameter_count()];
    learner.read_parameters(&mut values).unwrap();
    for _ in 0..40 {
        learner.step(1.0).unwrap();
    }
    let after = learner.measure_held_out(100).unwrap();
    assert!(after.loss < before.loss - 0.5 && after.accuracy > Some(0.5), "{after:?}");
    learner.set_parameters(&values).unwrap();
    assert_eq!(learner.measure_held_out(100).unwrap(), before);
}
