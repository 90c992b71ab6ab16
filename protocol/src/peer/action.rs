//! What a peer is told to be, and what it asks its driver to do.

use std::sync::Arc;
use std::time::Duration;

use swarm_optimizer::coefficients::Coefficients;

use crate::checkpoint::Name;
use crate::delta::Header;
use crate::identity::PeerKey;

/// How a peer takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whether it trains and publishes; otherwise it replicates only. A trainer that pauses replicates meanwhile: see
    /// [`super::Peer::set_training`].
    pub trains: bool,
    /// If nobody has been met by this time, be the swarm alone. `None`: wait for somebody.
    pub found_after: Option<Duration>,
    /// Stop before this round.
    pub stop_before: Option<u64>,
}

/// What the driver shall do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Flood these bytes.
    Publish(Vec<u8>),
    /// Whether the gossip message that came with `token` may be passed on.
    Verdict {
        /// The token of `handle_gossip`.
        token: u64,
        /// The decision.
        verdict: Verdict,
    },
    /// Ask `peer`; hand the answer to `handle_response` with the same id.
    Request {
        /// Whom.
        peer: PeerKey,
        /// Which question.
        id: u64,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Answer the request that came with `token`.
    Respond {
        /// The token of `handle_request`.
        token: u64,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Write this own delta to disk, durably, then call `handle_persisted`.
    Persist {
        /// Its round.
        round: u64,
        /// Signed header and body, as [`crate::wire::Gossip::decode`] reads them.
        bytes: Vec<u8>,
    },
    /// Train for this round, from the model of `coefficients` minus the own residual; then call
    /// `handle_trained`.
    StartRound(u64),
    /// Extract a delta from the residual; then call `handle_extracted`.
    Extract {
        /// For which round.
        round: u64,
        /// Density: coefficients of a full tile.
        k: u32,
    },
    /// C has changed: recompute the model (see [`super::Peer::take_touched`]).
    Folded,
    /// C has left one history for another, without deltas that this peer had published; it was this
    /// before. What the device learned shall not be lost with them: the residual takes up a share of the
    /// difference, C as it is now minus C as it was.
    Rebase(Box<Coefficients>),
    /// The round of an own delta has settled without it: what it carried goes back to the residual.
    Return {
        /// Its round.
        round: u64,
        /// Its packed body.
        body: Arc<[u8]>,
    },
    /// An own delta that went back to the residual is in the swarm's history after all: it leaves the residual
    /// again.
    Take {
        /// Its round.
        round: u64,
        /// Its packed body.
        body: Arc<[u8]>,
    },
    /// There is a new checkpoint after so many settled rounds: see [`super::Peer::checkpoints`]. Kept on disk, it
    /// can be served again after a restart.
    Checkpoint(u64),
    /// Something to tell the user.
    Report(Report),
    /// Cut `peer` off for a while.
    Ban {
        /// Whom.
        peer: PeerKey,
        /// For how long.
        duration: Duration,
        /// Why.
        reason: &'static str,
    },
    /// All rounds are done and every neighbour holds the same.
    Finished,
}

/// Whether a gossip message may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid: pass it on.
    Accept,
    /// Invalid: drop it, and think less of who passed it on.
    Reject,
    /// Not useful now: drop it, nobody's fault.
    Ignore,
}

/// Something to tell the user. `Refused` is reported once for each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The first message of this kind was dropped; see [`super::Peer::refusals`] for the counts.
    Refused {
        /// What was wrong.
        kind: &'static str,
        /// Who sent it.
        peer: PeerKey,
    },
    /// Nobody was met: this peer is the swarm for now.
    Founded,
    /// Fetching the swarm's state at this checkpoint.
    JoiningAt(Name),
    /// The swarm's state up to `round` is here.
    Joined {
        /// The round joined in.
        round: u64,
    },
    /// No neighbour has what is needed to join; trying again.
    CannotJoin(&'static str),
    /// Most authors have another history: ours has been given up from so many settled rounds on.
    GaveUp {
        /// How many.
        rounds: u64,
    },
    /// This device computed something else than the sets make: a fault of its memory or processor. It has been
    /// mended.
    Fault {
        /// Number of settled rounds of the checkpoint that was wrong.
        settled: u64,
        /// The first parameter that differed.
        parameter: String,
        /// The first coefficient that differed.
        index: usize,
        /// It was not the first time: this device must not go on.
        fatal: bool,
    },
    /// A neighbour's settled history differs from ours.
    Diverged {
        /// The neighbour.
        peer: PeerKey,
        /// The number of settled rounds at which it differs.
        settled: u64,
    },
    /// An author signed two deltas for one round.
    Equivocation {
        /// The author.
        author: PeerKey,
        /// The round.
        round: u64,
    },
    /// The network knows a delta of ours that we do not know: the identity is in use elsewhere, or was
    /// restored from an old backup.
    IdentityInUse {
        /// The round of that delta.
        round: u64,
    },
    /// The swarm is closed, and a neighbour that is admitted says that this device is not.
    NotAdmitted,
    /// Somebody is no longer admitted to the swarm.
    Revoked {
        /// Who.
        subject: PeerKey,
        /// The first round that it may not publish for.
        from_round: u64,
    },
    /// All neighbours are gone: training goes on, nothing is published until somebody is back.
    Alone,
    /// The trainer's delta was not canonical and has been dropped: a fault of this build.
    Unusable,
}

/// One author's delta of a round, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// What its author says.
    pub header: Header,
    /// Whether the others of its round let it count: see [`swarm_optimizer::panel`].
    pub counts: bool,
}

/// How many neighbours hold the same settled history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The same.
    pub same: usize,
    /// Another one: their model differs.
    pub differ: usize,
    /// They have not said, or cannot be compared.
    pub unknown: usize,
}
