//! Sums, and the plan against what the node's own code writes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use swarm_protocol::architecture::Architecture;
use swarm_protocol::delta::Header;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::Identity;
use swarm_protocol::peer::{Part, Peer};

use super::{Plan, Sample, Scene, Speed, memory};
use crate::model::Precision;
use crate::store::snapshot::{NodeSnapshot, Totals};
use crate::trainer::TrainerState;

const SCENE: Scene = Scene {
    peers: 4,
    rounds: u64::MAX,
    max_upload: None,
    snapshots: Duration::from_secs(300),
    precision: Precision::F32,
    micro_batch: None,
    device: tch::Device::Cpu,
};
const SPEED: Speed = Speed { flops_a_second: 1e11, bytes_a_second: 1e10, threads: 1, baseline: 200_000_000 };

fn genesis(model: &str) -> Genesis {
    Genesis::new("plan", Architecture::preset(model).unwrap(), 1)
}

fn plan(genesis: &Genesis, scene: &Scene) -> Plan {
    Plan::new(genesis, scene, SPEED, Sample::take(genesis).unwrap()).unwrap()
}

#[test]
fn the_json_parses_and_its_sums_add_up() {
    let genesis = genesis("nano");
    let plan = plan(&genesis, &SCENE);
    let json: Value = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
    assert_eq!(json["parameters"], genesis.model.parameter_count());
    for sheet in ["memory", "disk", "received", "sent"] {
        let items = json[sheet]["items"].as_array().unwrap();
        let sum: u64 = items.iter().map(|item| item["bytes"].as_u64().unwrap()).sum();
        assert_eq!(json[sheet]["total"], sum, "{sheet}");
        assert!(items.len() >= 4 && items.iter().filter(|item| item["bytes"] != 0).count() >= 3, "{sheet}");
        let text = plan.to_string();
        for item in items {
            assert!(text.contains(item["purpose"].as_str().unwrap()), "{sheet}: {item}");
        }
    }
    // Four peers who all publish: as much goes out as comes in, but for rounding.
    assert!(plan.received.total.abs_diff(plan.sent.total) < 8, "{} {}", plan.received.total, plan.sent.total);
    let parts = plan.round.model + plan.round.optimizer + plan.round.sharing;
    assert!((plan.round.seconds - parts).abs() < 1e-9, "no limit and no shortest round applies here");
}

#[test]
fn the_plan_follows_what_it_depends_on() {
    let nano = genesis("nano");
    let before = plan(&nano, &SCENE);
    let coarse = plan(
        &Genesis { rule: swarm_protocol::genesis::Rule { k: 128, ..nano.rule }, ..nano.clone() },
        &SCENE,
    );
    assert!(coarse.delta.inline && !before.delta.inline);
    assert!(coarse.received.total < before.received.total && coarse.memory.total < before.memory.total);
    let activations = |plan: &Plan| {
        let of = |item: &&super::Item| item.purpose.starts_with("activations");
        plan.memory.items.iter().find(of).unwrap().bytes
    };
    let parts = plan(&nano, &Scene { micro_batch: Some(4), ..SCENE });
    assert_eq!(activations(&before), 4 * activations(&parts), "4 windows at once instead of 16");
    let alone = plan(&nano, &Scene { peers: 1, ..SCENE });
    assert_eq!((alone.received.total, alone.sent.total), (0, 0), "nobody to talk to");
    let young = plan(&nano, &Scene { rounds: 3, ..SCENE });
    assert!(young.memory.total < before.memory.total && young.disk.total < before.disk.total);
    let slow = plan(&nano, &Scene { max_upload: Some("10kB".parse().unwrap()), ..SCENE });
    assert!(
        slow.round.seconds > 10.0 * before.round.seconds,
        "{} {}",
        slow.round.seconds,
        before.round.seconds
    );
    // More peers than a round takes: traffic does not grow with them any more.
    let crowd = |peers| plan(&nano, &Scene { peers, ..SCENE }).received.total as f64;
    assert!(crowd(1000) < 1.05 * crowd(500), "{} {}", crowd(1000), crowd(500));
    let micro = plan(&genesis("micro"), &SCENE);
    assert!(micro.memory.total > before.memory.total && micro.round.seconds > before.round.seconds);
}

#[test]
fn deltas_and_snapshots_are_as_large_as_planned() {
    let genesis = Arc::new(genesis("nano"));
    let sample = Sample::take(&genesis).unwrap();
    assert!((2.0..8.0).contains(&sample.bits_a_coefficient), "{sample}");
    let identity = Identity::from_secret(&[1; 32]);
    let header = Header::new(genesis.swarm_id(), 0, identity.public(), &[]);
    let signed = header.sign(&identity);
    let part = Part { trains: true, found_after: None, stop_before: None };
    let mut core = Peer::new(Duration::ZERO, genesis.clone(), identity, part).unwrap().snapshot();
    let body: Arc<[u8]> = vec![7; sample.body as usize].into();
    let scene = Scene { rounds: 5, ..SCENE };
    core.deltas = vec![(signed, body); 5 * 4];
    let parameters = genesis.model.parameter_count();
    let vector = |count: u64| vec![0.5; count as usize];
    let seconds = crate::train::size::by_adamw(&genesis.model, genesis.training.optimizer);
    assert!(seconds > 0 && seconds < parameters / 4, "Muon has none of its own");
    let (residual, m, v) = (vector(parameters), vector(parameters), vector(seconds));
    let trainer = Some(TrainerState { residual, step: 1, m, v, sampler_seed: 0, sampler_drawn: 0 });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    crate::store::snapshot::write(&path, &NodeSnapshot { core, totals: Totals::default(), trainer }).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    let planned = memory::snapshot_vectors(&genesis) + memory::snapshot_log(&genesis, &scene, &sample);
    assert!(length.abs_diff(planned) < planned / 100, "{length} written, {planned} planned");
}
