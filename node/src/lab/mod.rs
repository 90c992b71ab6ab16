//! The laboratory: N learners in one process, to find out what a rule costs and what it gains.
//!
//! A result is worth something if it can be repeated, if everything else is equal, and if what was
//! measured is what people run. So a run is a function of its settings, its seed and its text; all methods
//! start from the same C0 and read the same windows; and the swarm here is the node's own code, without
//! the network. `swarm sim` asks what the network does; the laboratory asks what the mathematics does.
//!
//! - [`settings`]: what a run does; a file of runs, grids and seeds;
//! - [`text`]: shards and validation text; [`team`]: the methods;
//! - [`run`]: one run, saved on the way; [`sweep`]: many, several at a time, the hopeless stopped early;
//! - [`record`]: results; [`page`]: curves to look at.
//!
//! ```text
//!   OUT/index.html, summary.csv, results.json      all runs, written anew after each
//!   OUT/text/...                                   shards
//!   OUT/runs/NAME-seedS-HASH/result.json, curve.csv, state.bin
//! ```

mod attack;
mod page;
mod record;
mod run;
mod settings;
mod sweep;
mod team;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use run::Surroundings;
pub(crate) use settings::{Attack, Method, Plan};
pub(crate) use sweep::{Jobs, sweep};
pub(crate) use text::Text;
