//! Memory and disk, item by item.

use swarm_optimizer::sparse::Entry;
use swarm_protocol::architecture::LlamaConfig;
use swarm_protocol::checkpoint::{CHUNK, KEPT, manifest_len};
use swarm_protocol::genesis::Genesis;
use swarm_protocol::replica::SUMS;
use swarm_protocol::wire::SIGNED_HEADER_LEN;

use super::{Round, Sample, Scene, Sheet, Speed, traffic};
use crate::bounds::{AROUND_A_BODY, SMALL_FILES};
use crate::model::{self, Precision};
use crate::train;

/// Bytes of a parameter, a coefficient of C or of R, a moment.
const WORD: u64 = 4;
/// C as the core has it, and as the trainer has it until it takes up the newest: a change of one copies it.
const SHARED: u64 = 2;

/// Rounds whose deltas are there.
fn held_rounds(genesis: &Genesis, scene: &Scene) -> u64 {
    (u64::from(genesis.rounds.retention) + u64::from(genesis.rounds.window)).min(scene.rounds)
}

/// Deltas that are there.
fn held(genesis: &Genesis, scene: &Scene) -> u64 {
    held_rounds(genesis, scene) * u64::from(scene.authors(genesis))
}

/// Memory at its peak: a snapshot is taken while a step is under way.
pub(super) fn memory(
    genesis: &Genesis,
    arch: &LlamaConfig,
    scene: &Scene,
    speed: &Speed,
    sample: &Sample,
) -> Sheet {
    let training = &genesis.training;
    let parameters = genesis.model.parameter_count();
    let authors = u64::from(scene.authors(genesis));
    let vectors = |count: u64| count * WORD * parameters;
    let mut sheet = Sheet::new("memory, at its peak", parameters);
    sheet.add("model parameters", vectors(1));
    let micro_batch = scene.micro_batch(genesis);
    let parts = u64::from(micro_batch < training.batch);
    sheet.add("gradient, and what it is made with", vectors(model::size::GRADIENT_VECTORS + parts));
    sheet.add(format!("moments of {} (m, v)", training.optimizer.name()), moments(genesis));
    sheet.add("residual R", vectors(1));
    sheet.add("parameters before and after training", vectors(train::size::DISPLACEMENT));
    sheet.add("C, the core's and the trainer's", vectors(SHARED));
    sheet.add(format!("the last {KEPT} checkpoints"), vectors(KEPT as u64));
    sheet.add("for a snapshot: settled C, R, m, v", snapshot_vectors(genesis));
    let tokens = u64::from(micro_batch) * u64::from(arch.context);
    // In bf16, inputs and weights of products are kept a second time, at half the size.
    let kept = WORD * tokens * model::size::kept_a_token(arch, scene.device);
    let kept = if scene.precision == Precision::F32 { kept } else { kept + kept / 2 };
    let scratch = WORD * train::size::scratch(&genesis.model, training.optimizer, scene.device);
    let work = format!("activations of {micro_batch} x {} tokens, or the optimizer's scratch", arch.context);
    sheet.add(work, kept.max(scratch));
    let deltas = format!("deltas of {} open and kept rounds", held_rounds(genesis, scene));
    sheet.add(deltas, held(genesis, scene) * (sample.body + AROUND_A_BODY));
    // What waits to be added to a sum is no more than the sum.
    let waiting = (authors * sample.coefficients * size_of::<Entry>() as u64).min(vectors(1));
    sheet.add("sums of the newest rounds, and what is to be added", vectors(SUMS as u64) + waiting);
    // Two bits a parameter.
    let traits = SUMS as u64 * authors * parameters.div_ceil(4);
    sheet.add("what the authors of these rounds are compared by", traits);
    let unpacked = authors * sample.coefficients * size_of::<Entry>() as u64;
    sheet.add("a round's deltas, unpacked for a fold", unpacked);
    sheet.add("this program and libtorch (measured)", speed.baseline);
    sheet
}

/// Disk at its peak: while a snapshot and a checkpoint are written, the old ones are still there.
pub(super) fn disk(genesis: &Genesis, scene: &Scene, sample: &Sample, round: &Round) -> Sheet {
    let parameters = genesis.model.parameter_count();
    let window = u64::from(genesis.rounds.window);
    let mut sheet = Sheet::new("disk, at its peak", parameters);
    let vectors = snapshot_vectors(genesis);
    let log = snapshot_log(genesis, scene, sample);
    sheet.add("snapshot: settled C, R, m, v", vectors);
    sheet.add(format!("snapshot: deltas of {} rounds", held_rounds(genesis, scene)), log);
    sheet.add("the next snapshot, until it is whole", vectors + log);
    let coefficients = usize::try_from(parameters).unwrap_or(usize::MAX);
    let manifest = manifest_len(coefficients, 2 * window, window);
    let checkpoint = WORD * parameters + manifest;
    let chunks = coefficients.div_ceil(CHUNK);
    sheet.add(
        format!("{KEPT} checkpoints, {chunks} chunks each, and the next"),
        (KEPT as u64 + 1) * checkpoint,
    );
    let (_, own) = traffic::deltas(genesis, scene);
    // Since the snapshot before the last, and those that are open.
    let rounds =
        (2.0 * scene.snapshots.as_secs_f64() / round.seconds).min(scene.rounds as f64) + window as f64;
    sheet.add("outbox: own deltas", (own * rounds) as u64 * (sample.body + SIGNED_HEADER_LEN as u64));
    if genesis.parent.is_some() {
        sheet.add("the fork's starting point", checkpoint);
    }
    sheet.add("identity, genesis, status, report and logs, at most", SMALL_FILES);
    sheet
}

/// The optimizer's moments, in bytes.
fn moments(genesis: &Genesis) -> u64 {
    WORD * train::size::moments(&genesis.model, genesis.training.optimizer)
}

/// The part of a snapshot that grows with the parameters, in bytes: settled C, R and the moments.
pub(super) fn snapshot_vectors(genesis: &Genesis) -> u64 {
    2 * WORD * genesis.model.parameter_count() + moments(genesis)
}

/// The deltas in a snapshot, in bytes.
pub(super) fn snapshot_log(genesis: &Genesis, scene: &Scene, sample: &Sample) -> u64 {
    held(genesis, scene) * (sample.body + SIGNED_HEADER_LEN as u64)
}
