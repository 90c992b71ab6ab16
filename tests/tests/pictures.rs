//! A swarm that learns to tell pictures apart: the bundled handwritten digits.
#![cfg(unix)]

use anyhow::Result;
use swarm_tests::digits::Digits;
use swarm_tests::report::{address, agreed};
use swarm_tests::{Place, Process};

/// Four nodes, each with five of the ten digits and every digit with two of them: none could learn to tell all ten from
/// its own pictures. Together they tell more than nine of ten that nobody trained on, each with the shared model.
#[test]
fn four_nodes_that_each_hold_some_digits_learn_all_ten() -> Result<()> {
    const ROUNDS: u64 = 60;
    let place = Place::new()?;
    place
        .swarm(["new", "--model", "digits", "--steps", "4", "--batch", "32", "--horizon", "60"])?
        .refused(0, &[])?;
    let digits = Digits::read()?;
    let validation = digits.validation(&place)?;
    let mut nodes: Vec<Process> = Vec::new();
    let mut first: Option<String> = None;
    for node in 0..4u8 {
        let first_class = node * 10 / 4;
        let name = format!("node-{node}");
        let data =
            digits.table(&place, &format!("{name}.csv"), |_, label| (label + 10 - first_class) % 10 < 5)?;
        let mut node = place.learner(&name, &data)?.arg("--validation").arg(&validation);
        if let Some(first) = &first {
            node = node.bootstrap(first);
        }
        let mut node = node.rounds(&ROUNDS.to_string()).start()?;
        if first.is_none() {
            first = Some(address(&mut node, "/tcp/")?);
        }
        nodes.push(node);
    }
    let mut nodes: Vec<&mut Process> = nodes.iter_mut().collect();
    for report in agreed(&mut nodes, ROUNDS)? {
        let accuracy = |key: &str| report[key].as_f64();
        assert!(accuracy("validation_accuracy") > Some(0.9), "{report}");
        assert!(accuracy("held_out_accuracy") > Some(0.8), "{report}");
        assert!(report["personal_validation_accuracy"].is_f64(), "{report}");
    }
    Ok(())
}

/// A swarm of text has no accuracy, and one of pictures takes no text.
#[test]
fn data_of_another_kind_are_refused() -> Result<()> {
    let place = Place::new()?;
    place.swarm(["new", "--model", "digits"])?.refused(0, &[])?;
    let text = place.text("text.txt", 1, 4000)?;
    let refused = place.learner("node", &text)?.start()?.exit()?;
    refused
        .refused(1, &["text.txt is no data for a swarm that learns pictures", "subfolder for each class"])?;
    let wide = place.file("wide.csv", format!("1{}\n", ",7".repeat(81)))?;
    place
        .learner("node", &wide)?
        .start()?
        .exit()?
        .refused(1, &["line 1 of", "wide.csv", "81 pixels", "8 x 8"])?;
    let label = place.file("label.csv", format!("10{}\n", ",7".repeat(64)))?;
    place
        .learner("node", &label)?
        .start()?
        .exit()?
        .refused(1, &["\"10\" of line 1", "outside the range", "0 to 9"])?;
    Ok(())
}
