//! Too much of what is no single broken rule: each neighbour has its share of what a peer does for others, and who
//! takes more is refused, counted, and in the end cut off. Honest peers never come near their limits: the simulator
//! shows that in any weather, and here one that fetches all there is.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{FOUNDER, JOINER, World};
use swarm_protocol::delta::Header;
use swarm_protocol::digest::Digest;
use swarm_protocol::identity::Identity;
use swarm_protocol::peer::Part;
use swarm_protocol::wire::{Gossip, MAX_BODIES, MAX_CHUNK, Request, Role, Status};

const ROUNDS: u64 = 14;

/// Two honest peers that have done a few rounds, and a third whose every word is the test's.
fn world() -> World {
    let mut world = World::new(1);
    for _ in 0..2 {
        world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER });
    }
    world.add(JOINER);
    world.run_for(5);
    world.alive[2] = false;
    world
}

/// The first has refused some of it, said so under this name, cut the third off, and goes on with the second.
fn refused_and_cut_off(mut world: World, kind: &str) {
    assert!(world.refused(0, kind) > 0, "{kind}: {:?}", world.peers[0].refusals());
    let attacker = world.peers[2].key();
    assert!(world.bans.contains(&(0, attacker)), "{kind}: {:?}", world.peers[0].refusals());
    world.assert_only_banned(&[2]);
    world.stop(2);
    world.run_for(120);
    assert_eq!(world.finished.len(), 2);
    world.assert_agreement(&[0, 1]);
    assert_eq!(world.refused(1, kind), 0, "nobody else was refused");
}

/// Asks the first peer over and over, at once, until it has had enough; returns how often it was answered.
fn ask(world: &mut World, question: &Request) -> usize {
    let attacker = world.peers[2].key();
    let bytes = question.encode();
    let mut asked = 0;
    while !world.bans.contains(&(0, attacker)) {
        world.request(0, 2, &bytes);
        asked += 1;
        assert!(asked < 200_000, "it is never enough");
    }
    asked
}

#[test]
fn a_flood_of_statuses_is_refused() {
    let mut world = world();
    let status = Status {
        round: world.peers[0].round(),
        your_next_round: 0,
        settled: 0,
        log_digest: Digest::default(),
        open: Vec::new(),
        checkpoint: None,
        role: Role::Replica,
        access: None,
    };
    let asked = ask(&mut world, &Request::Status(status));
    assert!(asked > 64, "{asked}");
    refused_and_cut_off(world, "too many statuses");
}

#[test]
fn a_flood_of_questions_about_rounds_is_refused() {
    for question in [Request::Round(3), Request::Round(1 << 40), Request::History] {
        let mut world = world();
        ask(&mut world, &question);
        refused_and_cut_off(world, "too many questions about rounds");
    }
}

#[test]
fn a_flood_of_questions_for_bytes_is_refused_whether_they_are_held_or_not() {
    let mut world = world();
    let unknown = Request::Blob { hash: Digest::default(), offset: 0, length: MAX_CHUNK };
    ask(&mut world, &unknown);
    refused_and_cut_off(world, "too many bodies and chunks asked for");

    let mut world = self::world();
    ask(&mut world, &Request::Bodies(vec![Digest::default(); MAX_BODIES]));
    refused_and_cut_off(world, "too many bodies and chunks asked for");

    let mut world = self::world();
    assert_eq!(ask(&mut world, &Request::Bodies(vec![Digest::default(); MAX_BODIES + 1])), 8);
    refused_and_cut_off(world, "question for too many bodies");
}

#[test]
fn whoever_draws_the_same_bytes_again_and_again_is_refused() {
    let mut world = world();
    let Gossip::Delta(signed, Some(_)) = Gossip::decode(&world.outboxes[0][0]).unwrap() else { panic!() };
    // Each question names one body 128 times, so that bytes run out before questions do.
    ask(&mut world, &Request::Bodies(vec![signed.header.body_hash; MAX_BODIES]));
    let refusals = world.peers[0].refusals();
    let kinds = ["too many bytes asked for", "too many bodies and chunks asked for"];
    assert!(kinds.iter().any(|kind| refusals.contains_key(kind)), "{refusals:?}");
}

#[test]
fn a_flood_of_gossip_is_refused_though_each_message_is_good() {
    let mut world = world();
    let attacker = world.peers[2].key();
    let round = world.peers[0].round();
    let Gossip::Delta(_, Some(body)) = Gossip::decode(&world.outboxes[0][0]).unwrap() else { panic!() };
    let before = world.passed_on[0];
    let mut sent = 0u64;
    while !world.bans.contains(&(0, attacker)) {
        let mut secret = [9; 32];
        secret[..8].copy_from_slice(&sent.to_le_bytes());
        let author = Identity::from_secret(&secret);
        let header = Header::new(world.peers[0].swarm_id(), round, author.public(), &body);
        let message = Gossip::Delta(Box::new(header.sign(&author)), Some(body.clone()));
        world.gossip(0, 2, &message.encode());
        sent += 1;
        assert!(sent < 20_000, "it is never enough");
    }
    // What was passed on is less than what the next one bears of this peer.
    let passed = world.passed_on[0] - before;
    assert!(passed > 0 && passed <= sent / 2, "{passed} of {sent}");
    assert_eq!(world.refused(1, "too much gossip"), 0);
    refused_and_cut_off(world, "too much gossip");
}

/// Who joins lists and fetches all that is held, with nothing to spare on the way.
#[test]
fn a_newcomer_meets_no_limit() {
    let mut world = World::new(3);
    world.loss = 100;
    for _ in 0..3 {
        world.add(FOUNDER);
    }
    world.run_for(100);
    for _ in 0..3 {
        world.add(JOINER);
        world.run_for(20);
    }
    let caught_up = world.peers[5].round() + 3 > world.peers[0].round();
    assert!(caught_up, "{} of {}", world.peers[5].round(), world.peers[0].round());
    for peer in &world.peers {
        let over = peer.refusals().keys().filter(|kind| kind.starts_with("too m"));
        assert_eq!(over.count(), 0, "{:?}", peer.refusals());
    }
    assert_eq!(world.bans, []);
}
