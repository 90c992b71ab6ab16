//! A swarm that trains a TorchScript module which PyTorch exported.
#![cfg(unix)]

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_tests::digits::Digits;
use swarm_tests::report::{address, agreed};
use swarm_tests::{Place, Process, program};

/// How far the swarm's loss may be from that of PyTorch alone, as a share of it. PyTorch's own runs differ by 0.5 %
/// (standard deviation over the order of the pictures); the swarm begins with one node that the others join, sends
/// rounded coefficients, and folds a late delta a round later. A single AdamW on 48
/// pictures a step ends 18 % lower, so this does tell rules apart.
const TOLERANCE: f64 = 0.1;

/// Three nodes with a third of the digits each, a step a round of 16 pictures each, every coefficient sent. PyTorch
/// does the same in one process (`train_together` in `scripts/torchscript/export.py`, the mean of five runs): three
/// optimizers, each a step from the common model on pictures of its own third, and the common model goes on with their
/// mean. So after as many rounds both must have about the same loss on pictures that nobody trained on.
#[test]
fn three_nodes_train_a_module_as_pytorch_does_in_one_process() -> Result<()> {
    let data = program::repository().join("tests/data/module");
    let curve: Value = serde_json::from_slice(&fs::read(data.join("curve.json"))?)?;
    let rounds = curve["rounds"].as_u64().context("no rounds")?;
    let place = Place::new()?;
    let module = data.join("mlp.pt").display().to_string();
    let new = ["new", "--model", &module, "--out", "node-0", "--steps", "1", "--k", "4096"];
    place.swarm(new)?.refused(0, &["2410 parameters", "a copy of the module", "--module"])?;
    fs::copy(place.path("node-0/genesis.toml"), place.path("genesis.toml"))?;
    let digits = Digits::read()?;
    let validation = digits.validation(&place)?;
    let mut nodes: Vec<Process> = Vec::new();
    for number in 0..3 {
        let name = format!("node-{number}");
        let table = digits.table(&place, &format!("{name}.csv"), |at, _| at % 3 == number)?;
        let mut node = place.learner(&name, &table)?.arg("--validation").arg(&validation);
        if let Some(first) = nodes.first_mut() {
            node = node.arg("--module").arg(&module).bootstrap(&address(first, "/tcp/")?);
        }
        nodes.push(node.rounds(&rounds.to_string()).start()?);
    }
    let mut nodes: Vec<&mut Process> = nodes.iter_mut().collect();
    let wanted = curve["held_out_loss"].as_f64().context("no loss")?;
    for report in agreed(&mut nodes, rounds)? {
        let loss = report["validation_loss"].as_f64().context("no loss")?;
        assert!((loss / wanted - 1.0).abs() < TOLERANCE, "PyTorch {wanted}: {report}");
    }
    // Whoever has been given it once need not name it again.
    assert_eq!(fs::read(place.path("node-1/module.pt"))?, fs::read(&module)?);
    Ok(())
}

/// Peers never send a module, and another one is refused.
#[test]
fn a_node_without_the_module_is_told_what_to_do() -> Result<()> {
    let data = program::repository().join("tests/data/module");
    let place = Place::new()?;
    let module = data.join("mlp.pt").display().to_string();
    place.swarm(["new", "--model", &module, "--out", "first"])?.refused(0, &[])?;
    fs::copy(place.path("first/genesis.toml"), place.path("genesis.toml"))?;
    let table = Digits::read()?.table(&place, "digits.csv", |_, _| true)?;
    let none = place.learner("none", &table)?.start()?.exit()?;
    none.refused(1, &["peers do not send", "--module FILE"])?;
    let other = place.learner("other", &table)?.arg("--module").arg(data.join("tied.pt")).start()?.exit()?;
    other.refused(1, &["tied.pt is not the module that the genesis names", "ask whoever made the swarm"])?;
    let again = place.swarm(["new", "--model", &module, "--out", "first"])?;
    again.refused(1, &["first is not empty"])?;
    let nowhere = place.swarm(["new", "--model", &module])?;
    nowhere.refused(1, &["--out DIR"])?;
    fs::copy(data.join("norm.pt"), place.path("norm.pt"))?;
    let undescribed = place.swarm(["new", "--model", "norm.pt", "--out", "norm"])?;
    undescribed.refused(1, &["norm.toml has to say what the module takes"])?;
    place.file("norm.toml", "loss = \"mse\"\n[inputs.vectors]\ninputs = 3\noutputs = 3\n")?;
    let norm = place.swarm(["new", "--model", "norm.pt", "--out", "norm"])?;
    norm.refused(1, &["the module norm.pt cannot be used", "group or layer normalisation"])?;
    place.file("norm.toml", "loss = \"hinge\"\n")?;
    place.swarm(["new", "--model", "norm.pt", "--out", "norm"])?.refused(1, &["norm.toml", "hinge"])?;
    Ok(())
}
