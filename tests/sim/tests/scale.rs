//! What a peer sends does not depend on how many peers there are, once there are more than a round takes.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ops::ControlFlow;

use swarm_sim::{Options, Summary, run};

const PUBLISHERS: u32 = 16;

/// Good weather. With few neighbours each, peers have as many in a small swarm as in a large one.
fn swarm(peers: usize, publishers: u32, rounds: u64) -> Summary {
    let quiet = Options { slow: 0.0, reorder: 0.0, degree: 4, ..Options::default() };
    let options = Options { peers, publishers, rounds, ..quiet };
    run(&options, |_| ControlFlow::Continue(())).unwrap_or_else(|error| panic!("{error}"))
}

/// Bytes that a peer sends for a round, but for statuses: these go with the neighbours and the time.
fn deltas(summary: &Summary) -> f64 {
    summary.traffic.iter().filter(|(kind, _)| **kind != "statuses").map(|(_, flow)| flow.sent).sum()
}

/// Bytes that a peer sends for a round and neighbour: in a small swarm it has a few less.
fn all(summary: &Summary) -> f64 {
    summary.traffic.values().map(|flow| flow.sent).sum::<f64>() / summary.neighbours
}

#[test]
fn the_traffic_of_a_peer_is_flat_beyond_the_publishers_of_a_round() {
    let (few, many) = (swarm(16, PUBLISHERS, 24), swarm(64, PUBLISHERS, 24));
    assert_eq!((few.agreed, many.agreed), (16, 64));
    assert_eq!(few.crowded, 0, "there is room for all");
    // A few more than fit may publish, and all do in the first round, when nobody knows how many there are.
    assert!(all(&many) < 1.3 * all(&few), "{few}\n{many}");
    assert!(many.folded * 10 >= few.folded * 9, "the rounds are full all the same: {many}");
    // The figure can tell: with room for all of them in every round, their deltas take more than three times as much.
    let roomy = swarm(64, 64, 24);
    assert!(deltas(&roomy) > 3.0 * deltas(&few), "{few}\n{roomy}");
}

#[test]
fn peers_can_tell_how_many_they_are() {
    for (peers, publishers) in [(8, 16), (60, 16), (150, 16)] {
        let summary = swarm(peers, publishers, 20);
        let share = summary.estimated_peers as f64 / peers as f64;
        assert!(
            (0.75..1.33).contains(&share),
            "{peers} peers think that they are {}",
            summary.estimated_peers
        );
    }
}
