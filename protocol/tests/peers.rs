//! Several peers, a bad network, virtual time: whatever happens, the same sets and the same integers.

mod support;

use std::time::Duration;

use support::{FOUNDER, JOINER, REPLICA, World, genesis};
use swarm_protocol::architecture::Sizes;
use swarm_protocol::identity::Identity;
use swarm_protocol::peer::{Part, Peer, Report};
use swarm_protocol::wire::{Gossip, MAX_INLINE, Role, SIGNED_HEADER_LEN};

/// Runs `count` founders to `rounds` rounds and asserts that all finish with the same.
fn all_agree(seed: u64, count: usize, rounds: u64, weather: impl Fn(&mut World)) -> World {
    all_agree_in(World::new(seed), count, rounds, weather)
}

fn all_agree_in(mut world: World, count: usize, rounds: u64, weather: impl Fn(&mut World)) -> World {
    let part = Part { stop_before: Some(rounds), ..FOUNDER };
    for _ in 0..count {
        world.add(part);
    }
    weather(&mut world);
    world.run_for(rounds * 5);
    let everyone: Vec<usize> = (0..count).collect();
    assert_eq!(world.finished.len(), count, "{} of {count} finished", world.finished.len());
    world.assert_agreement(&everyone);
    for peer in &world.peers {
        assert_eq!(peer.round(), rounds);
    }
    world
}

#[test]
fn four_peers_agree_in_good_weather() {
    let world = all_agree(1, 4, 12, |_| {});
    // Peers of equal speed publish for every round, and every delta is folded by everyone.
    for peer in &world.peers {
        assert!(peer.folded_counts().0 >= 4 * 12 - 6, "{:?}", peer.folded_counts());
        // Here everybody hears everything several times.
        let refused: Vec<_> =
            peer.refusals().keys().filter(|k| **k != "delta that was here already").collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

/// One of five always says the opposite: the others of its rounds leave it out, and what it sent goes back to it.
#[test]
fn what_does_not_count_goes_back_to_its_author() {
    let mut genesis = genesis().as_ref().clone();
    // Enough coefficients in common for certainty.
    genesis.rule.k = 48;
    let world = all_agree_in(World::with(2, genesis.into()), 5, 30, |world| world.contrary = Some(4));
    for (at, peer) in world.peers.iter().enumerate() {
        let accounts = peer.accounts();
        assert!(accounts.balance(), "{accounts:?}");
        let (settled, returned) = (accounts.settled.deltas, accounts.returned.deltas);
        let (more, less) = if at == 4 { (returned, settled) } else { (settled, returned) };
        assert!(more > 15 && less == 0, "{at}: {accounts:?}");
        assert_eq!(world.returned[at].len() as u64, returned);
    }
}

#[test]
fn they_agree_when_messages_are_lost_repeated_and_reordered() {
    for seed in 0..30 {
        all_agree(seed, 5, 15, |world| {
            world.loss = 300;
            world.duplication = 300;
        });
    }
}

#[test]
fn without_any_gossip_anti_entropy_alone_carries_everything() {
    let world = all_agree(3, 3, 10, |world| world.loss = 1000);
    assert!(world.peers.iter().all(|peer| peer.folded_counts().1 > 0), "some deltas must have come late");
}

/// Deltas beyond the inline limit are announced by gossip and pulled by their hash, through a chain of
/// peers too: who passes a header on holds the body.
#[test]
fn bodies_too_large_for_gossip_are_pulled() {
    let mut genesis = genesis().as_ref().clone();
    genesis.model = Sizes { vocabulary: 1024, dim: 160, layers: 1, heads: 4, ffn: 8, context: 8 }.into();
    genesis.rule.tile = 64;
    genesis.rule.k = 4096;
    genesis.validate().unwrap();
    let mut world = World::with(2, genesis.into());
    world.loss = 200;
    for _ in 0..3 {
        world.add(Part { stop_before: Some(6), ..FOUNDER });
    }
    // The first and the last are not connected: everything between them goes through the second.
    world.disconnect(0, 2);
    world.run_for(40);
    assert_eq!(world.finished.len(), 3);
    world.assert_agreement(&[0, 1, 2]);
    for at in 0..3 {
        assert!(world.outboxes[at].iter().all(|bytes| bytes.len() > MAX_INLINE + SIGNED_HEADER_LEN));
        assert_eq!(world.peers[at].folded_counts().0, world.outboxes.iter().map(|o| o.len() as u64).sum());
    }
}

#[test]
fn a_slow_peer_takes_part_and_is_not_skipped() {
    let world = all_agree(4, 4, 20, |world| world.speed[3] = 1500);
    let slow = world.outboxes[3].len();
    assert!((7..=14).contains(&slow), "the slow peer published {slow} deltas");
    assert!(world.outboxes[0].len() >= 17, "the fast ones do not wait: {}", world.outboxes[0].len());
}

/// A device that is faster than all others would sooner or later settle rounds that they are still working
/// for, and hold a history of its own: it is held back.
#[test]
fn a_fast_peer_does_not_run_away() {
    let world = all_agree(4, 4, 40, |world| world.speed[3] = 200);
    assert!(world.reports.iter().flatten().all(|report| !matches!(report, Report::Diverged { .. })));
}

/// A neighbour that goes on past our last round has settled rounds that are still open here: its history
/// is compared with what ours will be, and equal is equal.
#[test]
fn a_peer_finishes_beside_one_that_goes_on() {
    let mut world = World::new(6);
    world.add(Part { stop_before: Some(12), ..FOUNDER });
    world.add(FOUNDER);
    world.run_for(60);
    assert!(world.finished.contains(&0), "{:?}", world.reports[0]);
    assert!(world.peers[1].round() > 12);
    // The same when the finishing one hears from the other only when that is far beyond its own round: what
    // cannot be compared is not called agreement.
    let mut world = World::new(6);
    world.add(Part { stop_before: Some(12), ..FOUNDER });
    world.add(FOUNDER);
    world.run_for(5);
    world.cut.insert((0, 1));
    world.run_for(40);
    world.cut.clear();
    world.run_for(30);
    let ahead = world.peers[1].round() > 12 + 2 * u64::from(genesis().rounds.window);
    assert!(ahead && !world.finished.contains(&0), "{} {:?}", world.peers[1].round(), world.finished);
}

#[test]
fn a_replica_follows_without_publishing() {
    let mut world = World::new(5);
    let replica = world.add(REPLICA);
    for _ in 0..2 {
        world.add(Part { stop_before: Some(10), ..JOINER });
    }
    world.run_for(60);
    assert_eq!(world.finished.len(), 2);
    assert!(world.outboxes[replica].is_empty());
    assert_eq!(world.peers[replica].role(), Role::Replica);
    world.assert_agreement(&[1, 2]);
    // Who stops leaves its last round open; a replica goes on, so it settles that too: the same integers.
    assert_eq!(world.peers[replica].round(), 10);
    assert_eq!(world.peers[replica].state_digest(), world.peers[1].state_digest());
}

#[test]
fn a_newcomer_joins_late_from_a_checkpoint_and_agrees() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.loss = 100;
        for _ in 0..2 {
            world.add(Part { stop_before: Some(60), ..FOUNDER });
        }
        world.run_for(30);
        let round = world.peers[0].round();
        assert!(round > 25, "only at round {round}");
        let late = world.add(Part { stop_before: Some(60), ..JOINER });
        world.run_for(120);
        assert_eq!(world.finished.len(), 3, "seed {seed}");
        world.assert_agreement(&[0, 1, late]);
        let joined = world.reports[late].iter().any(|report| matches!(report, Report::JoiningAt(_)));
        assert!(joined, "it must have taken a checkpoint: {:?}", world.reports[late]);
        assert!(world.outboxes[late].len() > 15, "it must have published: {}", world.outboxes[late].len());
    }
}

/// More deltas than a neighbour takes questions at a time: a joiner must not settle the rounds without
/// those that it could not ask for at once.
#[test]
fn a_newcomer_fetches_every_delta_of_crowded_rounds() {
    let mut world = World::new(11);
    for _ in 0..20 {
        world.add(Part { stop_before: Some(24), ..FOUNDER });
    }
    world.run_for(4);
    assert!((3..=8).contains(&world.peers[0].round()), "{}", world.peers[0].round());
    // It is connected with one of them only.
    let late = world.add(Part { stop_before: Some(24), ..JOINER });
    for other in 1..20 {
        world.disconnect(other, late);
    }
    world.run_for(80);
    assert_eq!(world.finished.len(), 21, "{:?}", world.reports[late]);
    world.assert_agreement(&(0..21).collect::<Vec<_>>());
}

#[test]
fn a_joiner_with_nobody_there_waits() {
    let mut world = World::new(1);
    let at = world.add(JOINER);
    world.run_for(600);
    assert_eq!((world.peers[at].round(), world.peers[at].role()), (0, Role::Joining));
    assert!(world.outboxes[at].is_empty());
}

#[test]
fn a_founder_alone_advances_and_one_left_alone_does_not() {
    let mut world = World::new(1);
    let founder = world.add(FOUNDER);
    world.run_for(20);
    assert!(world.peers[founder].round() > 15);
    let joiner = world.add(JOINER);
    world.run_for(20);
    world.stop(founder);
    world.run_for(3);
    let (round, published) = (world.peers[joiner].round(), world.outboxes[joiner].len());
    world.run_for(60);
    assert_eq!(world.peers[joiner].round(), round);
    assert_eq!(world.outboxes[joiner].len(), published);
    assert_eq!(world.reports[joiner].iter().filter(|report| **report == Report::Alone).count(), 1);
}

#[test]
fn a_restart_from_an_old_snapshot_never_signs_a_round_twice() {
    let mut world = World::new(7);
    for _ in 0..3 {
        world.add(Part { stop_before: Some(40), ..FOUNDER });
    }
    world.run_for(10);
    let snapshot = world.peers[2].snapshot();
    let signed = world.outboxes[2].len();
    // Deltas go on for a while after the snapshot; then the process is killed.
    world.run_for(4);
    assert!(world.outboxes[2].len() > signed);
    world.stop(2);
    world.run_for(2);
    let part = Part { found_after: Some(Duration::from_secs(5)), stop_before: Some(40), ..JOINER };
    let mut peer =
        Peer::new(world.now, world.genesis(), Identity::from_secret(&World::secret(2)), part).unwrap();
    peer.restore(world.now, snapshot, &world.outboxes[2].clone()).unwrap();
    world.restart(2, peer);
    world.run_for(80);
    assert_eq!(world.finished.len(), 3);
    world.assert_agreement(&[0, 1, 2]);
    let mut rounds: Vec<u64> = world.outboxes[2]
        .iter()
        .map(|bytes| match Gossip::decode(bytes) {
            Ok(Gossip::Delta(signed, _)) => signed.header.round,
            other => panic!("{other:?}"),
        })
        .collect();
    let count = rounds.len();
    rounds.dedup();
    assert_eq!(rounds.len(), count, "a round was signed twice");
    let void =
        |reports: &[Report]| reports.iter().any(|report| matches!(report, Report::Equivocation { .. }));
    assert!(world.reports.iter().all(|reports| !void(reports)));
}

#[test]
fn a_folder_from_an_old_backup_signs_nothing_that_the_swarm_has_from_it() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        for _ in 0..3 {
            world.add(Part { stop_before: Some(60), ..FOUNDER });
        }
        world.run_for(10);
        let (snapshot, outbox) = (world.peers[2].snapshot(), world.outboxes[2].clone());
        // The others train for long: when it comes back, they are where it signed already.
        (world.speed[0], world.speed[1]) = (12_000, 12_000);
        world.run_for(8);
        let signed = world.outboxes[2].len();
        assert!(signed > outbox.len());
        world.stop(2);
        // Training takes less time than a status, so without waiting it would sign first.
        world.speed[2] = 1;
        let part = Part { found_after: Some(Duration::from_secs(5)), stop_before: Some(60), ..JOINER };
        let mut peer =
            Peer::new(world.now, world.genesis(), Identity::from_secret(&World::secret(2)), part).unwrap();
        peer.restore(world.now, snapshot, &outbox).unwrap();
        world.restart(2, peer);
        world.run_for(30);
        (world.speed[0], world.speed[1]) = (700, 700);
        world.run_for(120);
        assert_eq!(world.finished.len(), 3, "seed {seed}");
        world.assert_agreement(&[0, 1, 2]);
        assert!(world.outboxes[2].len() > signed, "seed {seed}: it goes on publishing");
        let void =
            |reports: &[Report]| reports.iter().any(|report| matches!(report, Report::Equivocation { .. }));
        assert!(world.reports.iter().all(|reports| !void(reports)), "seed {seed}: a round was signed twice");
    }
}

#[test]
fn a_restored_peer_is_the_same_peer() {
    let mut world = World::new(8);
    for _ in 0..2 {
        world.add(FOUNDER);
    }
    world.run_for(12);
    let before = &world.peers[0];
    let mut peer =
        Peer::new(world.now, world.genesis(), Identity::from_secret(&World::secret(0)), FOUNDER).unwrap();
    peer.restore(world.now, before.snapshot(), &[]).unwrap();
    assert_eq!(peer.round(), before.round());
    assert_eq!(peer.state_digest(), before.state_digest());
    // A body that is not its header's is noticed, whatever it holds.
    let mut damaged = before.snapshot();
    damaged.deltas[0].1 = vec![1, 2, 3].into();
    assert!(peer.restore(world.now, damaged, &[]).unwrap_err().contains("another body than its header"));
    assert_eq!(peer.log_digest(), before.log_digest());
    let mut other = genesis().as_ref().clone();
    other.seed += 1;
    let mut stranger =
        Peer::new(world.now, other.into(), Identity::from_secret(&World::secret(0)), FOUNDER).unwrap();
    let error = stranger.restore(world.now, before.snapshot(), &[]).unwrap_err();
    assert!(error.contains("swarm"), "{error}");
}

#[test]
fn a_peer_away_for_longer_than_the_window_keeps_training_and_joins_again() {
    let mut world = World::new(9);
    for _ in 0..3 {
        world.add(Part { stop_before: Some(80), ..FOUNDER });
    }
    world.run_for(8);
    world.unplug(2);
    world.run_for(2);
    let (round, published) = (world.peers[2].round(), world.outboxes[2].len());
    world.run_for(28);
    assert_eq!((world.peers[2].round(), world.outboxes[2].len()), (round, published));
    assert!(world.peers[0].round() > round + u64::from(genesis().rounds.window));
    world.plug(2);
    world.run_for(120);
    assert_eq!(world.finished.len(), 3, "{:?}", world.reports[2]);
    world.assert_agreement(&[0, 1, 2]);
    assert!(world.reports[2].iter().any(|report| matches!(report, Report::JoiningAt(_))));
    assert!(world.outboxes[2].len() > published + 10, "it publishes again");
}

/// Three of eight cannot hear the others for a while; both sides go on publishing, each for itself.
fn parted(seed: u64, seconds: u64, rounds: u64) -> World {
    let mut world = World::new(seed);
    world.loss = 100;
    for _ in 0..8 {
        world.add(Part { stop_before: Some(rounds), ..FOUNDER });
    }
    world.run_for(8);
    world.cut.extend((0..5).flat_map(|one| (5..8).map(move |other| (one, other))));
    world.run_for(seconds);
    let sides = (world.peers[0].log_digest(), world.peers[7].log_digest());
    let rounds_of: Vec<u64> = world.peers.iter().map(Peer::round).collect();
    assert!(sides.0 != sides.1, "nothing parted: {rounds_of:?}");
    world.cut.clear();
    world.run_for(rounds * 3);
    world
}

/// Settled rounds that a peer has given up at once, at most.
fn gave_up(world: &World, at: usize) -> u64 {
    let rounds = world.reports[at].iter().map(|report| match report {
        Report::GaveUp { rounds } => *rounds,
        _ => 0,
    });
    rounds.max().unwrap_or(0)
}

#[test]
fn after_a_long_partition_all_take_up_the_history_of_most() {
    let window = u64::from(genesis().rounds.window);
    let retention = u64::from(genesis().rounds.retention);
    for seed in 0..4 {
        // Beyond the window, the rounds since are exchanged; beyond retention, a checkpoint.
        for seconds in [2 * window, 2 * retention] {
            let world = parted(seed, seconds, 2 * seconds + 60);
            assert_eq!(world.finished.len(), 8, "seed {seed}, {seconds} s: {:?}", world.finished);
            world.assert_agreement(&[0, 1, 2, 3, 4, 5, 6, 7]);
            for at in 0..8 {
                // What the larger side had settled alone stays; rounds that were open when both met again may
                // have settled differently here and there.
                let given_up = gave_up(&world, at);
                let all_of_it = given_up >= 2 * window;
                assert_eq!(all_of_it, at >= 5, "seed {seed}, {seconds} s: peer {at}: {given_up}");
                assert!(at < 5 || world.rebased[at] > 0, "seed {seed}, {seconds} s: peer {at}");
            }
        }
    }
}

#[test]
fn one_who_was_deaf_and_dumb_takes_up_the_history_of_the_others() {
    let mut world = World::new(9);
    for _ in 0..3 {
        world.add(Part { stop_before: Some(60), ..FOUNDER });
    }
    world.run_for(8);
    // Still connected: it goes on publishing for itself.
    world.cut.extend([(0, 2), (1, 2)]);
    world.run_for(30);
    world.cut.clear();
    world.run_for(90);
    assert_eq!(world.finished.len(), 3);
    world.assert_agreement(&[0, 1, 2]);
    assert_eq!((gave_up(&world, 0), gave_up(&world, 1)), (0, 0));
    assert!(gave_up(&world, 2) > 0 && world.rebased[2] > 0);
}
