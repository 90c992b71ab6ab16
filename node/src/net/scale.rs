//! What depends on how many peers the swarm has: gossip's mesh, and how many connections there are.
//!
//! A peer's traffic goes with its neighbours and with the deltas of a round, and both have bounds of their own, so
//! nothing here grows with the swarm. What must grow, slowly, is how well the peers are connected: a message crosses
//! a mesh of `n` neighbours in about `log(peers) / log(n - 1)` hops, and each hop may be lost or slow.
//!
//! | swarm | peers | mesh (low/n/high, outbound) | copies of 1 MB, measured | looks for | connections |
//! |---|---|---|---|---|---|
//! | small | up to 16 | 2/3/4, 1 | 1.6 | 16 | 64 |
//! | hundreds | up to 1,000 | 4/6/10, 2 | 4.6 | 16 | 64 |
//! | thousands | more | 6/8/12, 2 | | 24 | 96 |
//!
//! * **Small**: all are neighbours, one hop away, and two in a mesh are enough to survive one that goes. More only
//!   means more copies of every delta. (Copies: nine peers, with IDONTWANT.)
//! * **Hundreds**: a mesh of three takes 9 hops to 500 peers and comes apart in churn; one of six takes 4.
//! * **Thousands**: the parameters of gossipsub v1.1's large deployments (its specification, and Ethereum's
//!   consensus specification: D = 8, low 6, high 12). To fill a mesh of up to 12 with peers of good standing, and
//!   to have others to tell what there is (IHAVE), a few more neighbours are needed.
//!
//! History is kept for longer where messages take longer. The lengths of frames are the same in every swarm: two
//! peers that judge its size differently must be able to talk.
//!
//! gossipsub's parameters are fixed when it is made. So a node that starts takes those for the number of peers that
//! its snapshot tells of, and later changes how many neighbours it looks for and how many connections it allows,
//! but its mesh only with the next start. A mesh of three in a large swarm works: those with a larger one take it
//! in; what it misses comes by anti-entropy.

use std::fmt;

use libp2p::connection_limits::ConnectionLimits;

/// A small swarm has so many peers at most ..
const SMALL: usize = 16;
/// .. and one of hundreds so many.
const HUNDREDS: usize = 1_000;
/// So many looks in a row must say the same before anything changes: estimates vary, and peers come and go.
const LOOKS: u32 = 12;

/// How large a swarm is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scale {
    /// Up to 16 peers: also what a node assumes that knows nothing.
    #[default]
    Small,
    /// Up to 1,000.
    Hundreds,
    /// More.
    Thousands,
}

/// Sizes of gossip's mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mesh {
    /// Below it, others are taken in.
    pub(super) low: usize,
    /// Neighbours that gossip is passed on to, if there are so many.
    pub(crate) n: usize,
    /// Above it, some are let go.
    pub(super) high: usize,
    /// Of them, at least so many that this node has dialled itself.
    pub(super) outbound: usize,
}

impl Scale {
    /// That of a swarm of so many peers.
    pub(crate) fn of(peers: usize) -> Self {
        if peers <= SMALL {
            Self::Small
        } else if peers <= HUNDREDS {
            Self::Hundreds
        } else {
            Self::Thousands
        }
    }

    /// Its name in status.json.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Hundreds => "hundreds",
            Self::Thousands => "thousands",
        }
    }

    /// Gossip's mesh.
    pub(crate) fn mesh(self) -> Mesh {
        match self {
            Self::Small => Mesh { low: 2, n: 3, high: 4, outbound: 1 },
            Self::Hundreds => Mesh { low: 4, n: 6, high: 10, outbound: 2 },
            Self::Thousands => Mesh { low: 6, n: 8, high: 12, outbound: 2 },
        }
    }

    /// Heartbeats (seconds) for which gossip is kept to be asked for.
    pub(super) fn history(self) -> usize {
        match self {
            Self::Small => 30,
            Self::Hundreds | Self::Thousands => 60,
        }
    }

    /// Peers found by discovery are dialled while fewer than this are connected.
    pub(crate) fn neighbours(self) -> usize {
        match self {
            Self::Small | Self::Hundreds => 16,
            Self::Thousands => 24,
        }
    }

    /// A quarter of all connections is kept for those that this node opens itself: whoever surrounds it from outside
    /// cannot take them all. Four a peer: two peers may dial each other at once, through a relay and then directly;
    /// and one that tests whether this node can be reached opens one more.
    pub(super) fn connections(self) -> ConnectionLimits {
        let most = 4 * self.neighbours() as u32;
        ConnectionLimits::default()
            .with_max_pending_incoming(Some(16))
            .with_max_pending_outgoing(Some(32))
            .with_max_established_incoming(Some(most - most / 4))
            .with_max_established(Some(most))
            .with_max_established_per_peer(Some(4))
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "up to 16 peers",
            Self::Hundreds => "hundreds of peers",
            Self::Thousands => "thousands of peers",
        })
    }
}

/// Notices when a swarm's scale has changed for good.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    scale: Scale,
    other: Option<(Scale, u32)>,
}

impl Watch {
    /// From this number of peers on.
    pub(crate) fn new(peers: usize) -> Self {
        Self { scale: Scale::of(peers), other: None }
    }

    /// The scale as it was last known.
    pub(crate) fn scale(&self) -> Scale {
        self.scale
    }

    /// So many peers there are now. Returns the new scale once it is another one for good: twelve looks in a row
    /// said the same, and a swarm that has become smaller has so by a quarter, so that one near a bound does not go
    /// to and fro.
    pub(crate) fn look(&mut self, peers: usize) -> Option<Scale> {
        // Room for a third more: only then it is smaller for good.
        let now = Scale::of(peers).max(Scale::of(peers.saturating_add(peers / 3)).min(self.scale));
        if now == self.scale {
            self.other = None;
            return None;
        }
        let looks = self.other.filter(|(other, _)| *other == now).map_or(1, |(_, looks)| looks + 1);
        self.other = Some((now, looks));
        (looks >= LOOKS).then(|| {
            self.other = None;
            self.scale = now;
            now
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Scale; 3] = [Scale::Small, Scale::Hundreds, Scale::Thousands];

    #[test]
    fn a_scale_has_room_for_its_mesh() {
        for scale in ALL {
            let Mesh { low, n, high, outbound } = scale.mesh();
            // What gossipsub demands.
            assert!(low <= n && n <= high && outbound < low && 2 * outbound <= n, "{scale:?}");
            assert!(high <= scale.neighbours(), "{scale:?}: more in a mesh than neighbours");
        }
        let counts = [0, 2, 16, 17, 1_000, 1_001, usize::MAX].map(Scale::of);
        let [small, hundreds, thousands] = ALL;
        assert_eq!(counts, [small, small, small, hundreds, hundreds, thousands, thousands]);
        assert!(ALL.is_sorted_by_key(|scale| (scale.mesh().n, scale.neighbours(), scale.history())));
    }

    #[test]
    fn a_scale_changes_when_it_has_changed_for_good() {
        let mut watch = Watch::new(10);
        let changes = |watch: &mut Watch, peers, looks| {
            (0..looks).filter_map(|_| watch.look(peers)).collect::<Vec<_>>()
        };
        assert_eq!(changes(&mut watch, 300, LOOKS - 1), []);
        assert_eq!(changes(&mut watch, 12, 1), []);
        assert_eq!(changes(&mut watch, 300, LOOKS - 1), [], "they must be in a row");
        assert_eq!(changes(&mut watch, 300, 100), [Scale::Hundreds]);
        // A little fewer is not small for good; much fewer is.
        assert_eq!(changes(&mut watch, 15, 100), []);
        assert_eq!(changes(&mut watch, 5_000, 100), [Scale::Thousands]);
        assert_eq!(changes(&mut watch, 900, 100), []);
        assert_eq!(changes(&mut watch, 10, 100), [Scale::Small]);
        assert_eq!(watch.scale(), Scale::Small);
    }
}
