//! What the network costs, counted from [`super::by_hand`] (CPU) and [`super::llama`] (elsewhere): numbers kept for the backward
//! pass, and arithmetic. `swarm plan` tells both before anything is run; whoever changes the forward pass
//! changes this.

use swarm_protocol::architecture::LlamaConfig;
use tch::Device;

/// f32 vectors as long as the parameters that a gradient takes: the vector itself, and on a CPU the matrices with
/// their gains folded in, elsewhere the pieces that autograd puts it together from. Either is a little less.
pub(crate) const GRADIENT_VECTORS: u64 = 2;

/// Numbers (f32) that are kept of one token between the forward and the backward pass.
///
/// By hand, a layer keeps its input once normalised, for attention and for the feed-forward layer (dim each);
/// query, key and value; what attention gives (as wide as queries); gate and up (2 ffn), the gate after silu, and the
/// product of both (ffn each). Beside the layers there are the residual stream, its gradient, the last normalised
/// input and scratch (dim each), gradients of query, key and value and of the product (ffn), and the logits
/// and their logarithms; keys and values that heads share are repeated, and their gradients are. Autograd keeps each
/// normalised input before, after and with its gain (6 dim instead of 2), and query and key before and after they are
/// turned.
pub(crate) fn kept_a_token(arch: &LlamaConfig, device: Device) -> u64 {
    let (dim, ffn) = (u64::from(arch.dim), u64::from(arch.ffn));
    let (q, kv) = (u64::from(arch.query_rows()), u64::from(arch.key_rows()));
    let by_hand = 2 * dim + (q + 2 * kv) + q + 4 * ffn;
    let layer = if device == Device::Cpu { by_hand } else { by_hand + 4 * dim + q + kv };
    let repeated = if kv < q { 4 * q } else { 0 };
    u64::from(arch.layers) * layer + 4 * dim + (q + 2 * kv) + repeated + ffn + 2 * u64::from(arch.vocabulary)
}

/// Floating point operations for one token of a sequence of `time`, forward and backward: two for each weight
/// that a token meets, and twice as many again on the way back; and of attention, half of the square (the other
/// half is in the future), with the scores computed a second time on the way back.
pub(crate) fn flops_a_token(arch: &LlamaConfig, time: u64) -> u64 {
    let (dim, layers) = (u64::from(arch.dim), u64::from(arch.layers));
    let (q, kv) = (u64::from(arch.query_rows()), u64::from(arch.key_rows()));
    let layer = 2 * (q + kv) * dim + 3 * dim * u64::from(arch.ffn);
    let weights = layers * layer + dim * u64::from(arch.vocabulary);
    6 * weights + layers * 7 * time * q
}
