//! A trainer that pauses is a replica meanwhile: nobody waits for it, it stays in touch, and comes back where the
//! swarm is.

mod support;

use std::time::Duration;

use support::{FOUNDER, World, genesis};
use swarm_protocol::peer::{Part, Report};
use swarm_protocol::wire::Role;

fn pause(world: &mut World, at: usize) {
    world.peers[at].set_training(world.now, false);
    world.act(at);
}

fn resume(world: &mut World, at: usize) {
    world.peers[at].set_training(world.now, true);
    world.act(at);
}

#[test]
fn a_paused_peer_follows_and_comes_back_where_the_swarm_is() {
    let mut world = World::new(1);
    let part = Part { stop_before: Some(60), ..FOUNDER };
    for _ in 0..3 {
        world.add(part);
    }
    world.run_for(8);
    let before = world.outboxes[2].len();
    assert!(before > 4, "{before}");
    pause(&mut world, 2);
    world.run_for(20);
    assert_eq!((world.peers[2].role(), world.peers[2].doing()), (Role::Replica, "replicating"));
    assert!(world.outboxes[2].len() <= before + 1, "only what was on its way: {}", world.outboxes[2].len());
    let there = world.peers[0].round();
    assert!(there > 20 && world.peers[2].round() + 2 >= there, "{there} {}", world.peers[2].round());
    let published = world.outboxes[2].len();
    resume(&mut world, 2);
    assert_eq!(world.peers[2].role(), Role::Author);
    world.run_for(5);
    assert!(world.outboxes[2].len() >= published + 3, "{} {published}", world.outboxes[2].len());
    world.run_for(120);
    assert_eq!(world.finished.len(), 3);
    world.assert_agreement(&[0, 1, 2]);
    let joined = |report: &Report| matches!(report, Report::JoiningAt(_) | Report::Joined { .. });
    assert!(!world.reports[2].iter().any(joined), "it was never away: {:?}", world.reports[2]);
}

/// A round ends with the last delta that is expected, and one of who has said that it does not train is not.
#[test]
fn nobody_waits_for_a_neighbour_that_has_paused() {
    let mut world = World::new(2);
    let author = world.add(FOUNDER);
    let other = world.add(FOUNDER);
    world.run_for(8);
    pause(&mut world, other);
    // It takes a second until the pause is known: for the rounds until then the author waits as ever.
    world.run_for(2);
    for _ in 0..2 {
        let (published, round) = (world.published[author], world.peers[author].round());
        while world.published[author] == published {
            world.run_until(world.now + Duration::from_millis(1));
        }
        assert_eq!(world.peers[author].round(), round + 1, "it waits for somebody");
    }
}

#[test]
fn whoever_pauses_whenever_all_end_with_the_same() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        world.loss = 200;
        let part = Part { stop_before: Some(30), ..FOUNDER };
        for _ in 0..4 {
            world.add(part);
        }
        let mut trains = [true; 4];
        for _ in 0..60 {
            world.run_until(world.now + Duration::from_millis(300));
            let at = world.below(4) as usize;
            trains[at] = !trains[at];
            if trains[at] { resume(&mut world, at) } else { pause(&mut world, at) }
        }
        (0..4).for_each(|at| resume(&mut world, at));
        world.run_for(150);
        assert_eq!(world.finished.len(), 4, "seed {seed}: {:?}", world.finished);
        world.assert_agreement(&[0, 1, 2, 3]);
    }
}

/// Whose line is cut while it pauses is left behind, and joins again as anybody who was away does.
#[test]
fn a_long_pause_without_a_line_ends_with_joining_again() {
    let mut world = World::new(4);
    for _ in 0..3 {
        world.add(FOUNDER);
    }
    world.run_for(8);
    pause(&mut world, 2);
    world.unplug(2);
    world.run_for(60);
    let away = world.peers[2].round() + u64::from(genesis().rounds.retention);
    assert!(world.peers[0].round() > away, "{} {away}", world.peers[0].round());
    world.plug(2);
    resume(&mut world, 2);
    let published = world.outboxes[2].len();
    world.run_for(20);
    assert!(world.outboxes[2].len() > published + 5, "{:?}", world.reports[2]);
    assert!(world.peers[2].round() + 2 >= world.peers[0].round());
}
