//! A swarm of thousands of peers in one process: the protocol core under any weather, in virtual time.
//!
//! The peers are [`swarm_protocol::peer::Peer`], the very state machine that a node drives. Here a queue
//! of events drives all of them: no clock, no thread, no socket, and one seed decides everything that
//! happens by chance. The same [`Options`] give the same run, event for event.
//!
//! ```text
//!   Options ──> world ──> Peer, Peer, Peer, ...      one a place
//!                │ │ └──> trainer: deltas made up from the seed
//!                │ └────> network: who is connected, latency, upload, loss, splits
//!                └──────> queue: what happens next; its hash is the trace
//!                invariants look at every peer whenever its sets or its C have changed
//! ```
//!
//! What must never happen ends the run as a [`Violation`], which prints the command line that replays it.
//! Otherwise there is a [`Summary`].
//!
//! ```
//! use std::ops::ControlFlow;
//! use swarm_sim::{Options, run};
//!
//! let options = Options { peers: 8, rounds: 6, loss: 0.1, ..Options::default() };
//! let go_on = |_| ControlFlow::Continue(());
//! let summary = run(&options, go_on).unwrap();
//! assert_eq!(summary.agreed, 8);
//! // Once more: the same run.
//! assert_eq!(run(&options, go_on).unwrap().trace, summary.trace);
//! ```
//!
//! To be fast, signatures are verified and bodies decoded once for all peers (they look at the same
//! bytes), and the trainer makes up a few coefficients; with [`Options::full`] every peer does everything
//! by itself.

use std::ops::ControlFlow;

mod attacks;
mod clock;
mod invariants;
mod network;
mod options;
mod queue;
mod random;
mod remembered;
mod sabotage;
mod summary;
mod trainer;
mod violation;
mod world;

pub use options::{Attack, Options};
pub use sabotage::Sabotage;
pub use summary::{Flow, Progress, Summary};
pub use violation::{Error, Invariant, Violation};

/// Runs the simulation that `options` describe. `progress` is called once a virtual second, and says whether to
/// go on.
///
/// # Errors
/// [`Error::Options`] for options that make no sense, [`Error::Violation`] if an invariant does not hold,
/// [`Error::Stopped`] if `progress` did not want to go on.
pub fn run(options: &Options, progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<Summary, Error> {
    world::World::new(options)?.run(progress)
}

/// The same, but something goes wrong: for tests of what notices it.
///
/// # Errors
/// As for [`run`].
#[doc(hidden)]
pub fn run_with(options: &Options, sabotage: Sabotage) -> Result<Summary, Error> {
    let mut world = world::World::new(options)?;
    world.sabotage(sabotage);
    world.run(|_| ControlFlow::Continue(()))
}
