//! A checkpoint of several chunks from several sources, some of which break off, lie or are silent: found out,
//! named, cut off; what has been verified is kept, and nothing is fetched twice without need.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use support::{FOUNDER, JOINER, Lie, World, genesis};
use swarm_protocol::architecture::Sizes;
use swarm_protocol::checkpoint::CHUNK;
use swarm_protocol::peer::{Part, Report};
use swarm_protocol::wire::{MAX_CHUNK, Refusal, Request, Response};

const ROUNDS: u64 = 60;
const LATE: usize = 4;

/// Four peers of a swarm whose checkpoints have seven chunks; there is one, and somebody new comes.
fn world() -> World {
    let mut genesis = genesis().as_ref().clone();
    genesis.model = Sizes { vocabulary: 2048, dim: 320, layers: 1, heads: 4, ffn: 8, context: 8 }.into();
    genesis.rule.tile = 64;
    // No newer one while it is fetched.
    genesis.rounds.checkpoint_every = 8;
    genesis.validate().unwrap();
    let mut world = World::with(3, genesis.into());
    world.sparse = true;
    for _ in 0..4 {
        world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER });
    }
    world.run_for(13);
    // From here on a round takes six seconds, so that a checkpoint is to be had for longer than an answer may take.
    world.speed = vec![6000; 4];
    let coefficients = world.peers[0].layout().len();
    assert_eq!(coefficients.div_ceil(CHUNK), 7, "{coefficients}");
    let held = world.peers[0].checkpoints().newest().unwrap();
    assert!(held.bytes.len() < 1024);
    world
}

/// Answers as it should, apart from whole chunks: `chunk` says what becomes of the bytes of the n-th one.
fn lie(chunk: impl Fn(u64, u64, Vec<u8>) -> Option<Response> + 'static) -> Lie {
    let mut seen = Vec::new();
    Box::new(move |question, honest| match (question, honest) {
        (Request::Blob { hash, .. }, Response::Blob { total, bytes }) => {
            // A chunk may be asked for in several pieces, and two of them by turns.
            if !seen.contains(hash) {
                seen.push(*hash);
            }
            let count = seen.iter().position(|other| other == hash).map_or(0, |at| at as u64 + 1);
            chunk(count, total, bytes)
        }
        (_, other) => Some(other),
    })
}

fn right(total: u64, bytes: Vec<u8>) -> Option<Response> {
    Some(Response::Blob { total, bytes })
}

/// The newcomer has joined within so many seconds, and in the end all of `honest` hold the same.
fn joins(world: &mut World, seconds: u64, honest: &[usize]) {
    world.run_for(seconds);
    let joined = world.reports[LATE].iter().any(|report| matches!(report, Report::Joined { .. }));
    assert!(joined, "{:?} {:?}", world.reports[LATE], world.peers[LATE].refusals());
    let took = world.reports[LATE].iter().filter(|report| matches!(report, Report::JoiningAt(_))).count();
    assert!(took >= 1);
    world.speed.fill(700);
    world.run_for(100);
    world.assert_agreement(honest);
}

/// Bytes of all chunks.
fn whole(world: &World) -> u64 {
    4 * world.peers[0].layout().len() as u64
}

/// What answers cost beyond their bytes, and what small things are fetched one by one.
const SLACK: u64 = 64 * 1024;

#[test]
fn one_source_breaks_off_half_way_and_another_sends_wrong_bytes() {
    let mut world = world();
    // The first is cut off when it has been asked for its second chunk, the next one damages its second.
    let asked = Rc::new(Cell::new(0));
    let seen = asked.clone();
    world.lies.insert(
        0,
        lie(move |count, total, bytes| {
            seen.set(count);
            if count < 2 { right(total, bytes) } else { None }
        }),
    );
    world.lies.insert(
        1,
        lie(|count, total, mut bytes| {
            if count == 2 {
                bytes[1000] ^= 1;
            }
            right(total, bytes)
        }),
    );
    let late = world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    assert_eq!(late, LATE);
    while asked.get() < 2 {
        world.run_for(1);
    }
    world.stop(0);
    joins(&mut world, 8, &[1, 2, 3, LATE]);
    let liar = world.peers[1].key();
    assert!(world.bans.contains(&(LATE, liar)), "{:?}", world.bans);
    assert_eq!((world.bans.len(), world.refused(LATE, "wrong bytes for a blob")), (1, 1));
    // Every chunk once, the one that was wrong once more, and what the first had sent of its two: nothing that had been
    // verified.
    let served = world.served_to(LATE).blobs;
    let once = whole(&world);
    assert!(
        (once + u64::from(MAX_CHUNK)..once + 3 * u64::from(MAX_CHUNK) + SLACK).contains(&served),
        "{served} {once}"
    );
}

#[test]
fn sources_that_are_silent_or_refuse_cost_time_but_no_bytes() {
    let mut world = world();
    world.lies.insert(0, lie(|_, _, _| None));
    world.lies.insert(1, lie(|_, _, _| Some(Response::Refused(Refusal::NotHeld))));
    world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    world.speed[LATE] = 6000;
    // Two timeouts of fifteen seconds at most: the chunks that the silent one holds up are asked for elsewhere.
    joins(&mut world, 40, &[0, 1, 2, 3, LATE]);
    assert!(world.bans.is_empty(), "{:?}", world.bans);
    let (served, once) = (world.served_to(LATE).blobs, whole(&world));
    assert!(served < once + SLACK, "{served} of {once}");
}

#[test]
fn a_byte_at_a_time_other_lengths_and_endless_ones_are_found_out_at_once() {
    let mut world = world();
    world.lies.insert(0, lie(|_, total, bytes| right(total, bytes[..1].to_vec())));
    world.lies.insert(1, lie(|_, total, bytes| right(total + 1, bytes)));
    world.lies.insert(2, lie(|_, _, bytes| right(u64::MAX, bytes)));
    world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    joins(&mut world, 8, &[3, LATE]);
    let banned: Vec<usize> =
        (0..3).filter(|at| world.bans.contains(&(LATE, world.peers[*at].key()))).collect();
    assert_eq!(banned, [0, 1, 2], "{:?}", world.bans);
    assert!(world.refused(LATE, "wrong bytes for a blob") >= 3);
    world.assert_only_banned(&[0, 1, 2]);
    // Those under way with the three, at most, were for nothing.
    let (served, once) = (world.served_to(LATE).blobs, whole(&world));
    assert!(served < once + 6 * u64::from(MAX_CHUNK) + SLACK, "{served} of {once}");
}

/// All sources are gone half-way and others come: what is here is kept.
#[test]
fn a_join_that_breaks_off_goes_on_where_it_was() {
    let mut world = world();
    world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    let (here, all) = loop {
        world.run_until(world.now + Duration::from_millis(10));
        match world.peers[LATE].join_progress() {
            Some((here, all)) if here >= 2 * u64::from(MAX_CHUNK) => break (here, all),
            _ => assert!(world.now < Duration::from_secs(60), "it never begins"),
        }
    };
    assert!(here < all && all == whole(&world), "{here} of {all}");
    for at in 0..4 {
        world.disconnect(at, LATE);
    }
    world.run_for(1);
    let before = world.served_to(LATE).blobs;
    world.plug(LATE);
    joins(&mut world, 20, &[0, 1, 2, 3, LATE]);
    let again = world.served_to(LATE).blobs - before;
    assert!(again < all - here + SLACK, "{again}: {here} of {all} were here");
}

/// One is silent and the others have dropped the checkpoint: while the silent one is waited for, those who have
/// said no three times are left alone.
#[test]
fn who_has_refused_is_not_asked_again_and_again() {
    let mut world = world();
    world.lies.insert(0, lie(|_, _, _| None));
    for at in 1..4 {
        world.lies.insert(at, lie(|_, _, _| Some(Response::Refused(Refusal::NotHeld))));
    }
    world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    world.run_for(14);
    let questions: u64 = (1..4).map(|at| world.asked[&(LATE, at)]).sum();
    // A status a second each, three refusals or so each, and what a join asks besides.
    assert!(questions < 3 * (14 + 2 * 3) + 10, "{questions}");
}

/// More bodies than may be asked for at a time, and the only source takes its time over them, as one does whose
/// upload is limited: the others wait. Their rounds are not asked for over and over meanwhile.
#[test]
fn bodies_that_the_source_has_no_room_for_wait() {
    let mut genesis = genesis().as_ref().clone();
    (genesis.rounds.window, genesis.rounds.retention, genesis.rounds.checkpoint_every) = (32, 128, 32);
    genesis.validate().unwrap();
    let mut world = World::with(3, genesis.into());
    for _ in 0..2 {
        world.add(Part { stop_before: Some(2 * ROUNDS), ..FOUNDER });
    }
    world.run_for(60);
    let slow = Rc::new(Cell::new(false));
    for at in 0..2 {
        let slow = slow.clone();
        let answers = move |question: &Request| !slow.get() || !matches!(question, Request::Bodies(_));
        world.lies.insert(at, Box::new(move |question, honest| answers(question).then_some(honest)));
    }
    let late = world.add(Part { stop_before: Some(2 * ROUNDS), ..JOINER });
    world.disconnect(1, late);
    while world.peers[late].log().settled() == 0 {
        world.run_until(world.now + Duration::from_millis(1));
    }
    slow.set(true);
    world.run_for(10);
    // A status a second, and each round once: it is 57 of them, of which 32 are asked for at a time.
    let questions = world.asked[&(late, 0)];
    assert!((32..100).contains(&questions), "{questions}");
    slow.set(false);
    world.run_for(30);
    assert!(world.reports[late].iter().any(|report| matches!(report, Report::Joined { .. })));
    let failed = world.reports[late].iter().any(|report| matches!(report, Report::CannotJoin(_)));
    assert!(!failed, "{:?}", world.reports[late]);
}
