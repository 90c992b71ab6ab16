//! The models that a node runs, on libtorch.
//!
//! - [`network`]: what all of them can do; their parameters are views of one flat vector;
//! - [`llama`]: transformers of the llama family, for text;
//! - [`lora`]: low-rank adapters for such a transformer;
//! - [`resnet`]: residual networks, for pictures;
//! - [`module`]: TorchScript modules, for anything;
//! - [`by_hand`]: loss and gradient on a CPU, the backward pass written out;
//! - [`cached`]: a sequence that grows token by token, and what attention keeps of it;
//! - [`device`]: where the computations run; [`size`]: what they cost.

mod by_hand;
mod cached;
#[cfg(test)]
mod cached_tests;
mod device;
mod llama;
pub(crate) mod lora;
pub(crate) mod module;
mod network;
mod resnet;
pub(crate) mod size;
#[cfg(test)]
mod tests;

pub(crate) use cached::Sequence;
pub(crate) use device::DeviceChoice;
pub(crate) use llama::{Llama, Precision};
pub(crate) use lora::Lora;
pub(crate) use module::Module;
pub(crate) use network::{Batch, Given, Network, build};
pub(crate) use network::{copy_into, copy_out_of, ensure_length, parameter_length};
pub(crate) use resnet::Resnet;
#[cfg(test)]
pub(crate) use tests::initial_parameters;

use anyhow::{Result, bail};
use swarm_protocol::architecture::{Architecture, LlamaConfig};

/// The sizes of a language model of the llama family.
///
/// # Errors
/// Another kind of model.
pub(crate) fn language_model(model: &Architecture) -> Result<&LlamaConfig> {
    match model.llama() {
        Some(config) => Ok(config),
        None => bail!(
            "the swarm's model ({}) is no language model, and this is for such models only",
            model.label()
        ),
    }
}
