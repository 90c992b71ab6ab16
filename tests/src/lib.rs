//! Helpers for tests that run several real `swarm` processes on this machine.
//!
//! ```text
//!   Place     a temporary folder with a genesis, texts and the folders of nodes
//!   Node      how one of its nodes is started; the same command can be given again
//!   Digits    pictures of handwritten digits, to be dealt out among nodes
//!   Process   one run of it: its status, its log, its report, signals, how it ended
//!   Internet  network namespaces with home routers between them
//!   Liar      a peer of a swarm that is no node: what others fetch from it is damaged
//!   Hostile   a peer that is no node and attacks one, in every way and at every layer
//!   Ear       a peer between two nodes that hears every byte they send
//!   Terminal  a program on a terminal: what it shows, keys, another size, how it leaves
//!   http      requests to a program that answers over HTTP
//!   program   where the programs are; the one with training is built if it is not fresh
//! ```
//!
//! Tests wait for conditions, never for times: [`GUARD`] only turns a process that hangs into a failure.
//! Where two processes would race (one must not finish before another is there), the fast one is held
//! with [`Signal::Stop`] and let go with [`Signal::Continue`]. Whatever a test started dies with it, and
//! the logs of a test that fails are printed.

pub mod digits;
pub mod ear;
mod frames;
pub mod hostile;
pub mod http;
pub mod liar;
pub mod nat;
pub mod place;
pub mod process;
pub mod program;
pub mod report;
#[cfg(unix)]
pub mod terminal;

pub use ear::Ear;
pub use hostile::Hostile;
pub use liar::Liar;
pub use place::{Changes, Node, Place};
pub use process::{Exit, Process, Signal};
#[cfg(unix)]
pub use terminal::Terminal;

use std::time::Duration;

/// How long a test waits for something that must happen. It says nothing about speed: it is many times
/// what a loaded machine takes.
pub const GUARD: Duration = Duration::from_secs(150);
