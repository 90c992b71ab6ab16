//! The `swarm` program: trains a model on this device and shares what it learns with its peers.
//!
//! - [`cli`]: the command line, a file a command;
//! - [`bounds`]: how much memory and disk rounds can come to need;
//! - [`node`]: the loop between network, trainer, disk and core;
//! - [`net`]: libp2p, bytes in and out; [`store`]: the node's folder; [`status`]: what it says in files;
//! - [`trainer`]: what node and trainer say to each other; [`train`], [`model`], [`data`]: learning;
//! - [`lab`]: methods compared in one process; [`plan`]: what a node takes, before one is run.
//!
//! Built without the `train` feature it needs no libtorch, and replicates without training.

mod bounds;
mod cli;
mod net;
mod node;
mod status;
mod store;
// Without a trainer thread nobody speaks the trainer's side of this.
#[cfg_attr(not(feature = "train"), allow(dead_code))]
mod trainer;

#[cfg(feature = "train")]
mod data;
#[cfg(feature = "train")]
mod lab;
#[cfg(feature = "train")]
mod model;
#[cfg(feature = "train")]
mod plan;
#[cfg(feature = "train")]
mod train;

fn main() -> std::process::ExitCode {
    cli::main()
}
