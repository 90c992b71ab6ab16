//! What a node is told before it starts, and how its run ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use swarm_protocol::access::Statements;
use swarm_protocol::checkpoint::Name;
use swarm_protocol::genesis::Genesis;

use super::Allowed;
use crate::governor::Governor;
use crate::net::NetworkKey;
use crate::store::Store;

/// After how many rounds a node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// When the swarm is at this round.
    Until(u64),
    /// After this many more from where it starts.
    More(u64),
}

impl std::str::FromStr for Rounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, make): (&str, fn(u64) -> Self) = match text.strip_prefix('+') {
            Some(digits) => (digits, Self::More),
            None => (text, Self::Until),
        };
        match digits.parse() {
            Ok(count) if count > 0 => Ok(make(count)),
            _ => Err(format!(
                "'{text}' is not a number of rounds: 40 stops when the swarm is at round 40, +40 after 40 more rounds"
            )),
        }
    }
}

/// What a node needs to run.
pub(crate) struct Setup {
    /// Its folder.
    pub(crate) store: Store,
    /// The rules.
    pub(crate) genesis: Arc<Genesis>,
    /// Addresses to listen on.
    pub(crate) listen: Vec<Multiaddr>,
    /// Addresses to join through.
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// Whether to look for peers on the local network.
    pub(crate) mdns: bool,
    /// When to stop.
    pub(crate) rounds: Option<Rounds>,
    /// Whether validation text was given.
    pub(crate) validates: bool,
    /// Time between two snapshots.
    pub(crate) snapshot_interval: Duration,
    /// Bytes of settled rounds that are kept for ledgers; see [`crate::ledger::archive`].
    pub(crate) keep_history: u64,
    /// How much is sent and received.
    pub(crate) allowed: Allowed,
    /// The checkpoint that a newcomer starts from, and from no other.
    pub(crate) pin: Option<Name>,
    /// When the user asked for all this.
    pub(crate) asked: Instant,
    /// Whether to pass on bytes for peers that cannot be reached.
    pub(crate) relay: bool,
    /// Whether to ask the router to let others in.
    pub(crate) upnp: bool,
    /// The private network's key, if this is one.
    pub(crate) key: Option<NetworkKey>,
    /// Certificates and revocations that the user gives.
    pub(crate) statements: Statements,
    /// Whether and how hard to train; `None`: whenever there is something to do.
    pub(crate) governor: Option<Governor>,
    /// Whether to print what happens.
    pub(crate) json: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its rounds are done and all neighbours hold the same.
    Finished,
    /// Somebody asked it to stop.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_from_the_swarm_or_from_here() {
        assert_eq!("40".parse(), Ok(Rounds::Until(40)));
        assert_eq!("+40".parse(), Ok(Rounds::More(40)));
        for text in ["0", "+0", "-1", "forty", "", "+", "1.5"] {
            let error = text.parse::<Rounds>().unwrap_err();
            assert!(error.contains("+40"), "{text}: {error}");
        }
    }
}
