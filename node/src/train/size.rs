//! What training costs besides the network itself ([`crate::model::size`]): vectors and arithmetic of the
//! inner optimizer and of the swarm's rule, for `swarm plan`. The counts stand beside what they count.

use swarm_protocol::architecture::{Architecture, Parameter};
use swarm_protocol::genesis::InnerOptimizer;
use tch::Device;

use super::member::Member;
use super::muon;
use crate::model::parameter_length;

/// f32 vectors as long as the parameters, of the member besides the residual: the parameters before and after
/// training.
pub(crate) const DISPLACEMENT: u64 = Member::VECTORS;

/// Numbers (f32) that a step of the optimizer needs for a moment.
pub(crate) fn scratch(arch: &Architecture, optimizer: InnerOptimizer, device: Device) -> u64 {
    match optimizer {
        // The gradient's own memory serves.
        InnerOptimizer::Adamw => 0,
        InnerOptimizer::Muon => muon::scratch(&arch.parameters(), device),
    }
}

/// Floating point operations of matrix products in one step of the optimizer.
pub(crate) fn flops(arch: &Architecture, optimizer: InnerOptimizer) -> u64 {
    match optimizer {
        InnerOptimizer::Adamw => 0,
        InnerOptimizer::Muon => {
            let of = |parameter: &Parameter| match parameter.shape[..] {
                [rows, columns] if muon::is_hidden_matrix(parameter) => muon::flops(rows, columns),
                _ => 0,
            };
            arch.parameters().iter().map(of).sum()
        }
    }
}

/// Numbers (f32) that the optimizer keeps: a first moment of every parameter, and a second of AdamW's.
pub(crate) fn moments(arch: &Architecture, optimizer: InnerOptimizer) -> u64 {
    arch.parameter_count() + by_adamw(arch, optimizer)
}

/// Number of scalars that AdamW's rule updates.
pub(crate) fn by_adamw(arch: &Architecture, optimizer: InnerOptimizer) -> u64 {
    let is_muons =
        |parameter: &Parameter| optimizer == InnerOptimizer::Muon && muon::is_hidden_matrix(parameter);
    let parameters = arch.parameters();
    parameters.iter().filter(|parameter| !is_muons(parameter)).map(|p| parameter_length(p) as u64).sum()
}
