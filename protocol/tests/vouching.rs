//! A newcomer believes the checkpoint that most authors name in their signed headers. Here most authors name
//! one that cannot be: more rounds than their own round has settled, up to the end of time, or none at all.
//! Nothing but the signature's holder can say that, so the headers are in order otherwise, and honest neighbours
//! pass them on. They are not counted, and the honest authors' word stands.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use support::{FOUNDER, JOINER, REPLICA, World, genesis};
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::delta::Header;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Genesis, Parent};
use swarm_protocol::identity::Identity;
use swarm_protocol::packing;
use swarm_protocol::peer::{Part, Report};
use swarm_protocol::wire::Gossip;

const ROUNDS: u64 = 60;
const HONEST: [usize; 2] = [0, 1];
/// More than the honest ones: what they vouch for wins, if it is counted.
const LIARS: [usize; 3] = [2, 3, 4];
const LATE: usize = 5;

/// What a header of a round says of a checkpoint, given how many rounds that round has settled.
type Claim = fn(u64) -> u64;

const CLAIMS: [(&str, Claim); 11] = [
    ("none", |_| 0),
    ("one more than is settled", |settled| settled + 1),
    ("the next one", |settled| (settled / 4 + 1) * 4),
    ("its own round", |settled| settled + 7),
    ("a while ahead", |settled| settled + 1000),
    ("half of all", |_| u64::MAX / 2),
    ("nearly the end, by two windows", |_| u64::MAX - 16),
    ("nearly the end, by the next checkpoint", |_| u64::MAX - 4),
    ("too late for the next checkpoint", |_| u64::MAX - 3),
    ("one before the end", |_| u64::MAX - 1),
    ("the end", |_| u64::MAX),
];

/// Two honest authors and three who lie: each of these is a neighbour like all others, but what its key signs is
/// the test's.
fn world(genesis: Arc<Genesis>, c0: Option<&Coefficients>) -> World {
    let mut world = World::with(1, genesis);
    for _ in HONEST {
        world.add_with(Part { stop_before: Some(ROUNDS), ..FOUNDER }, c0.cloned());
    }
    for _ in LIARS {
        world.add_with(REPLICA, c0.cloned());
    }
    world
}

/// A delta of the liar `at` for `round`, in order apart from its claim. All of them name the same checkpoint.
fn delta(world: &World, at: usize, round: u64, claim: Claim) -> Vec<u8> {
    let peer = &world.peers[HONEST[0]];
    let mut sparse = SparseDelta::default();
    sparse.push(at as u32, Step::nearest(64.0), vec![Entry { position: 1, level: 2 }]);
    let rule = &peer.genesis().rule;
    let body = packing::encode(peer.layout(), rule, rule.k, &sparse).unwrap();
    let settled = peer.log().settled_at(round);
    let identity = Identity::from_secret(&World::secret(at));
    let header = Header {
        base: peer.log().digest_after(settled).unwrap(),
        checkpoint_round: claim(settled),
        checkpoint_digest: Digest::of_bytes(b"nobody made it"),
        tokens: 64,
        loss_before: 2 << 16,
        loss_after: 1 << 16,
        ..Header::new(peer.swarm_id(), round, identity.public(), &body)
    };
    Gossip::Delta(Box::new(header.sign(&identity)), Some(body)).encode()
}

/// Rounds that the liars have signed, and checkpoints that the newcomer has chosen.
#[derive(Default)]
struct SoFar {
    lied: BTreeSet<u64>,
    chosen: usize,
}

/// Goes on for so many seconds, with a delta of each liar in every round. A checkpoint that the newcomer chooses
/// must be one that an honest peer holds at that moment.
fn run_for(world: &mut World, seconds: u64, claim: Claim, so_far: &mut SoFar) {
    for _ in 0..seconds * 20 {
        let round = world.peers[HONEST[0]].round();
        if so_far.lied.insert(round) && round < ROUNDS {
            for at in LIARS {
                let bytes = delta(world, at, round, claim);
                (0..world.peers.len()).for_each(|to| world.gossip(to, at, &bytes));
            }
        }
        world.run_until(world.now + Duration::from_millis(50));
        let reports = world.reports.get(LATE).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<_> = reports
            .iter()
            .filter_map(|report| match report {
                Report::JoiningAt(name) => Some(*name),
                _ => None,
            })
            .collect();
        for name in &names[so_far.chosen..] {
            let mut held = HONEST.iter().flat_map(|at| world.peers[*at].checkpoints().iter());
            assert!(held.any(|held| held.checkpoint.name() == *name), "{name:?}");
        }
        so_far.chosen = names.len();
    }
}

/// A newcomer comes after so many seconds, and joins at once at what the honest authors name.
fn joins(mut world: World, seconds: u64, what: &str, claim: Claim) {
    let mut so_far = SoFar::default();
    run_for(&mut world, seconds, claim, &mut so_far);
    assert_eq!(world.add(Part { stop_before: Some(ROUNDS), ..JOINER }), LATE);
    run_for(&mut world, 6, claim, &mut so_far);
    let what = format!("{what}, after {seconds} s");
    let reports = &world.reports[LATE];
    let count = |is: fn(&Report) -> bool| reports.iter().filter(|report| is(report)).count();
    assert_eq!(count(|report| matches!(report, Report::Joined { .. })), 1, "{what}: {reports:?}");
    assert_eq!(count(|report| matches!(report, Report::JoiningAt(_))), 1, "{what}: {reports:?}");
    assert_eq!(count(|report| matches!(report, Report::CannotJoin(_))), 0, "{what}: {reports:?}");
    // What it has heard of the liars is as they signed it, and counts as deltas: only their word does not.
    let peer = &world.peers[LATE];
    let round = peer.round() - 1;
    for at in LIARS {
        let delta = peer.log().delta_of(round, &world.peers[at].key()).unwrap();
        let expected = claim(peer.log().settled_at(round));
        assert_eq!(delta.header().checkpoint_round, expected, "{what}");
    }
    run_for(&mut world, 60, claim, &mut so_far);
    assert!([0, 1, LATE].iter().all(|at| world.finished.contains(at)), "{what}: {:?}", world.finished);
    world.assert_agreement(&[0, 1, LATE]);
    // Whoever lists such a header is honest, and its author has broken no rule of deltas: nobody is blamed.
    assert!(world.bans.is_empty(), "{what}: {:?}", world.bans);
    let harmless = ["delta that was here already", "delta before joining", "delta of a far future round"];
    for at in [0, 1, LATE] {
        let refused = world.peers[at].refusals();
        assert!(refused.keys().all(|kind| harmless.contains(kind)), "{what}: peer {at}: {refused:?}");
    }
}

/// Seconds before a newcomer comes: in turn such that the newest checkpoint is of any age, also one that is as new
/// as it can be.
fn moments() -> impl Iterator<Item = u64> {
    (20..24).cycle()
}

#[test]
fn checkpoints_that_cannot_be_do_not_count() {
    for ((what, claim), seconds) in CLAIMS.into_iter().zip(moments()) {
        joins(world(genesis(), None), seconds, what, claim);
    }
}

/// A newcomer to a fork has no model yet: to it the beginning would be something to fetch.
#[test]
fn nor_do_they_in_a_fork() {
    let parent = genesis();
    let c0 = swarm_protocol::initial::coefficients(&parent, &parent.layout().unwrap());
    let state = Digest::of_state(c0.values());
    let from = Parent { swarm: Some(parent.swarm_id()), settled: 12, state };
    let fork = Arc::new(Genesis { parent: Some(from), ..parent.as_ref().clone() });
    fork.validate().unwrap();
    for ((what, claim), seconds) in CLAIMS.into_iter().zip(moments()) {
        joins(world(fork.clone(), Some(&c0)), seconds, what, claim);
    }
}

/// Where most authors lie about a checkpoint that might be, a newcomer is led astray, and waits; one that was
/// invited to a checkpoint starts from that.
#[test]
fn who_was_invited_to_a_checkpoint_takes_no_other() {
    let might_be: Claim = |settled| settled / 4 * 4;
    for pinned in [false, true] {
        let mut world = world(genesis(), None);
        for round in 0..ROUNDS {
            while world.peers[HONEST[0]].round() < round {
                world.run_until(world.now + Duration::from_millis(50));
            }
            for at in LIARS {
                let bytes = delta(&world, at, round, might_be);
                (0..world.peers.len()).for_each(|to| world.gossip(to, at, &bytes));
            }
            if round == 22 {
                let pin = world.peers[HONEST[0]].newest_checkpoint().unwrap();
                assert_eq!(world.add(Part { stop_before: Some(ROUNDS), ..JOINER }), LATE);
                if pinned {
                    world.peers[LATE].pin(pin);
                }
            }
        }
        world.run_for(30);
        let mut chosen = world.reports[LATE].iter().filter_map(|report| match report {
            Report::JoiningAt(name) => Some(*name),
            _ => None,
        });
        let first = chosen.next().unwrap();
        assert_eq!(first.manifest != Digest::of_bytes(b"nobody made it"), pinned);
        assert_eq!(chosen.next().is_none(), pinned, "it is tried again");
        assert_eq!(world.finished.contains(&LATE), pinned, "{:?}", world.reports[LATE]);
        if pinned {
            world.assert_agreement(&[0, 1, LATE]);
        }
    }
}

/// A checkpoint that nobody holds any more is waited for, and said to be missing; nothing is founded.
#[test]
fn a_pin_that_is_too_old_is_said() {
    let mut world = world(genesis(), None);
    while world.peers[HONEST[0]].newest_checkpoint().is_none() {
        world.run_for(1);
    }
    let pin = world.peers[HONEST[0]].newest_checkpoint().unwrap();
    world.run_for(12);
    assert_eq!(world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER }), LATE);
    world.peers[LATE].pin(pin);
    world.run_for(10);
    let reports = &world.reports[LATE];
    let says = |report: &Report| matches!(report, Report::CannotJoin(why) if why.contains("new invite"));
    assert!(reports.iter().any(says), "{reports:?}");
    assert!(
        !reports.iter().any(|report| matches!(report, Report::Founded | Report::Joined { .. })),
        "{reports:?}"
    );
}
