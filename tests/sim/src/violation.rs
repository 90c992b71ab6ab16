//! What must never happen, and how to see it again.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::options::Options;
use crate::summary::Progress;

/// What all peers must hold to, whatever the weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Peers that hold the same sets hold the same integers.
    SameSetSameBits,
    /// After some quiet, all honest peers hold the same sets.
    Convergence,
    /// Nothing is in a settled round that does not belong there, and no author counts twice.
    OncePerAuthor,
    /// C is the starting point minus the folds of the settled and open sets, and nothing else.
    PureFunction,
    /// A peer never holds more than the genesis allows.
    BoundedMemory,
    /// Honest peers do not cut each other off.
    HonestNotBanned,
    /// No honest peer signs two deltas for one round.
    SignedOnce,
    /// What an author sent is settled, open, returned or forfeited, exactly, and where the books say.
    Accounts,
    /// Peers get on: the rounds end in bounded time.
    Progress,
    /// The state machine refused what its own snapshot said.
    Restart,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameSetSameBits => "same set implies same bits",
            Self::Convergence => "sets converge after quiescence",
            Self::OncePerAuthor => "nothing is admitted twice, no author counts twice in a round",
            Self::PureFunction => "the coefficients are a pure function of the sets",
            Self::BoundedMemory => "memory is bounded",
            Self::HonestNotBanned => "honest peers do not ban each other",
            Self::SignedOnce => "no honest peer signs a round twice",
            Self::Accounts => "what was sent is accounted for",
            Self::Progress => "rounds end in bounded time",
            Self::Restart => "a snapshot can be restored",
        })
    }
}

/// An invariant does not hold. The message ends with the command line that replays the run.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("violated after {time:?}: {invariant}\n  {detail}\n  peers: {peers:?}\n  replay: {replay}")]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in virtual time.
    pub time: Duration,
    /// Who is concerned, by number; a few of them if there are many.
    pub peers: Vec<usize>,
    /// What was seen, in words.
    pub detail: String,
    /// The run.
    pub replay: Box<Options>,
}

/// Why there is no summary.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Error {
    /// The options make no sense; the text names the one.
    #[error("{0}")]
    Options(String),
    /// An invariant does not hold.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// Whoever ran it wanted no more.
    #[error("stopped in round {} of {}, after {} virtual seconds and {} events; nothing had gone wrong so far",
        .0.round, .0.rounds, .0.time.as_secs(), .0.events)]
    Stopped(Progress),
}
