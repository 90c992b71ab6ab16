//! The model that a node runs: a byte-level llama-style transformer on libtorch.
//!
//! - [`llama`]: the network itself, all of whose parameters are views of one flat vector;
//! - [`by_hand`]: loss and gradient on a CPU, the backward pass written out;
//! - [`mod@generate`]: continuing a text byte by byte;
//! - [`device`]: where the computations run; [`size`]: what they cost.

mod by_hand;
mod device;
mod generate;
mod llama;
pub(crate) mod size;
#[cfg(test)]
mod tests;

pub(crate) use device::DeviceChoice;
pub(crate) use generate::{Sampling, generate};
pub(crate) use llama::{Llama, Precision};
pub(crate) use llama::{copy_into, copy_out_of, ensure_length, parameter_length};
#[cfg(test)]
pub(crate) use tests::initial_parameters;
