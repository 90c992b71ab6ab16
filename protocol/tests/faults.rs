//! A device that computes wrong, and one that says others do.

// A panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod support;

use support::{FOUNDER, World, genesis};
use swarm_protocol::digest::Digest;
use swarm_protocol::peer::{Part, Report};
use swarm_protocol::wire::{Checkpoint, Request, Role, Status};

#[test]
fn a_flipped_bit_is_noticed_named_and_mended() {
    let every = u64::from(genesis().rounds.checkpoint_every);
    for (seed, bit) in [(1, 0), (2, 30)] {
        let mut world = World::new(seed);
        for _ in 0..4 {
            world.add(Part { stop_before: Some(40), ..FOUNDER });
        }
        world.run_for(20);
        let flipped = world.peers[2].layout().len() / 2;
        let name = world.peers[2].layout().parameter_at(flipped).unwrap().to_owned();
        let at = world.peers[2].round();
        world.peers[2].flip_bit(flipped, bit);
        let fault = |world: &World| {
            world.reports[2].iter().find_map(|report| match report {
                Report::Fault { parameter, index, fatal, .. } => Some((parameter.clone(), *index, *fatal)),
                _ => None,
            })
        };
        while fault(&world).is_none() {
            world.run_for(1);
            // The next checkpoint is an interval away at most; a round or two until a neighbour has said the same.
            let round = world.peers[2].round();
            assert!(round <= at + every + 4, "not noticed in round {round}, flipped in {at}");
        }
        assert_eq!(fault(&world), Some((name, flipped, false)));
        world.run_for(60);
        assert_eq!(world.finished.len(), 4);
        world.assert_agreement(&[0, 1, 2, 3]);
        // The others computed again too, and were right.
        let faults = world.reports.iter().flatten().filter(|report| matches!(report, Report::Fault { .. }));
        assert_eq!((faults.count(), world.bans.len()), (1, 0));
    }
}

#[test]
fn nobody_is_stopped_by_what_another_says_of_its_state() {
    let mut world = World::new(3);
    for _ in 0..3 {
        world.add(Part { stop_before: Some(40), ..FOUNDER });
    }
    world.run_for(15);
    // Peer 2 says another state in every status, whatever it holds.
    let neighbours = [0, 1];
    for _ in 0..40 {
        world.run_for(1);
        for at in neighbours {
            let Some(held) = world.peers[at].checkpoints().newest() else { continue };
            let checkpoint = Checkpoint { manifest: Digest::of_bytes(b"another"), ..held.checkpoint };
            let status = Status {
                round: world.peers[at].round(),
                your_next_round: 0,
                settled: world.peers[at].log().settled(),
                log_digest: world.peers[at].log().log_digest(),
                open: world.peers[at].log().set_digests(world.peers[at].log().settled()),
                checkpoint: Some(checkpoint),
                role: Role::Author,
                access: None,
            };
            world.request(at, 2, &Request::Status(status).encode());
        }
    }
    world.run_for(60);
    assert_eq!(world.finished.len(), 3);
    world.assert_agreement(&[0, 1, 2]);
    for at in neighbours {
        assert!(world.peers[at].refusals()["another state for the same history"] > 0);
        assert!(!world.reports[at].iter().any(|report| matches!(report, Report::Fault { .. })));
    }
}
