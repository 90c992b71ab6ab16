//! What the network costs, counted from the forward pass in [`super::llama`]: numbers kept for the backward
//! pass, and arithmetic. `swarm plan` tells both before anything is run; whoever changes the forward pass
//! changes this.

use swarm_protocol::architecture::Architecture;

/// f32 vectors as long as the parameters that a gradient takes at its largest: the gradients of the pieces that
/// the flat vector is cut into, and the one vector that they are put together to.
pub(crate) const GRADIENT_VECTORS: u64 = 2;

/// Numbers (f32) that autograd keeps of one token between the forward and the backward pass.
///
/// A layer keeps its input, that divided by its norm, and that times the gain (dim each, twice); query, key and
/// value as they come from the product (3 dim) and query and key rotated (2 dim); what attention gives (dim);
/// gate and up (2 ffn), the gate after silu, and the product of both (ffn each). The output layer keeps its
/// normalised input, and the logits, their logarithms and their gradient.
pub(crate) fn kept_a_token(arch: &Architecture) -> u64 {
    let (dim, ffn) = (u64::from(arch.dim), u64::from(arch.ffn));
    let layer = 2 * 3 * dim + 3 * dim + 2 * dim + dim + 4 * ffn;
    u64::from(arch.layers) * layer + 3 * dim + 3 * u64::from(arch.vocabulary)
}

/// Floating point operations for one token of a sequence of `time`, forward and backward: two for each weight
/// that a token meets, and twice as many again on the way back; and of attention, half of the square (the other
/// half is in the future), with the scores computed a second time on the way back.
pub(crate) fn flops_a_token(arch: &Architecture, time: u64) -> u64 {
    let (dim, layers) = (u64::from(arch.dim), u64::from(arch.layers));
    let weights = layers * (4 * dim * dim + 3 * dim * u64::from(arch.ffn)) + dim * u64::from(arch.vocabulary);
    6 * weights + layers * 7 * time * dim
}
