//! The `swarm` program.
#![allow(dead_code, unused_imports)]

mod data;
#[cfg(feature = "train")]
mod model;
#[cfg(feature = "train")]
mod train;

fn main() {}
