//! The `swarm` program: trains a model on this device and shares what it learns with its peers.
//!
//! - [`cli`]: the command line, a file a command;
//! - [`print`]: to stdout, for whom that is a pipe;
//! - [`bounds`]: how much memory and disk rounds can come to need;
//! - [`governor`]: whether to train on a device that somebody else is using;
//! - [`settings`]: flags, environment and file; [`service`]: a node that the system starts; [`logs`]: what it says;
//! - [`node`]: the loop between network, trainer, disk and core;
//! - [`net`]: libp2p, bytes in and out; [`store`]: the node's folder; [`status`]: what it says in files;
//! - [`top`]: a node, watched on a terminal;
//! - [`events`]: what a node tells whoever watches; [`rolling`]: files of lines that do not grow for ever;
//! - [`dashboard`], [`metrics`]: all that for browsers and for Prometheus;
//! - [`interop`]: models as other programs hold them; [`ledger`]: who contributed what, and the proof of it;
//! - [`trainer`]: what node and trainer say to each other; [`train`], [`model`], [`data`], [`tokens`]: learning;
//! - [`inference`]: using what was trained; [`serve`]: for other programs; [`web`]: HTTP on this machine;
//! - [`eval`]: how good it is;
//! - [`lab`]: methods compared in one process; [`plan`]: what a node takes, before one is run.
//!
//! Built without the `train` feature it needs no libtorch, and replicates without training.

// Before the modules that use what it defines.
#[macro_use]
mod print;

mod bounds;
mod cli;
mod dashboard;
mod events;
// Without a trainer there is nothing to govern but when to stop.
#[cfg_attr(not(feature = "train"), allow(dead_code, unused_imports))]
mod governor;
mod interop;
mod ledger;
mod logs;
mod metrics;
mod net;
mod node;
mod rolling;
#[cfg(feature = "train")]
mod service;
// What may be written into a file is asked, and looked at again, only for training.
#[cfg_attr(not(feature = "train"), allow(dead_code))]
mod settings;
mod status;
mod store;
mod top;
// Without a trainer thread nobody speaks the trainer's side of this.
#[cfg_attr(not(feature = "train"), allow(dead_code))]
mod trainer;
mod web;

#[cfg(feature = "train")]
mod data;
#[cfg(feature = "train")]
mod eval;
#[cfg(feature = "train")]
mod inference;
#[cfg(feature = "train")]
mod lab;
#[cfg(feature = "train")]
mod model;
#[cfg(feature = "train")]
mod plan;
#[cfg(feature = "train")]
mod serve;
#[cfg(feature = "train")]
mod tokens;
#[cfg(feature = "train")]
mod train;

fn main() -> std::process::ExitCode {
    cli::main()
}
