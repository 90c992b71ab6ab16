//! A peer that breaks the rules: dropped, counted under its name, reported once a kind, cut off after a
//! while; the honest ones go on and agree.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use proptest::prelude::*;
use support::{FOUNDER, JOINER, World};
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::delta::{Header, SignedHeader};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Rule;
use swarm_protocol::identity::Identity;
use swarm_protocol::packing;
use swarm_protocol::peer::{Part, Report};
use swarm_protocol::wire::{Gossip, Request};

const ROUNDS: u64 = 14;

/// Two honest peers that have done a few rounds, and a third, connected one whose key the test uses.
fn world() -> World {
    let mut world = World::new(1);
    for _ in 0..2 {
        world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER });
    }
    world.add(JOINER);
    world.run_for(5);
    // From here on the third is the attacker's: it says only what the test makes it say.
    world.alive[2] = false;
    world
}

fn hostile() -> Identity {
    Identity::from_secret(&World::secret(2))
}

/// A delta by the attacker for `round` with this body, all in order unless `change` spoils it.
fn delta(world: &World, round: u64, body: &[u8], change: impl Fn(&mut Header)) -> Gossip {
    let mut header = Header {
        tokens: u64::MAX,
        ..Header::new(world.peers[0].swarm_id(), round, hostile().public(), body)
    };
    change(&mut header);
    Gossip::Delta(Box::new(header.sign(&hostile())), Some(body.to_vec()))
}

/// An honest delta's body.
fn body(world: &World) -> Vec<u8> {
    match Gossip::decode(&world.outboxes[0][0]).unwrap() {
        Gossip::Delta(_, Some(body)) => body,
        other => panic!("{other:?}"),
    }
}

/// A body that is in order, and that nobody has sent.
fn other_body(world: &World, n: u8) -> Vec<u8> {
    let peer = &world.peers[0];
    let mut delta = SparseDelta::default();
    delta.push(n.into(), Step::nearest(64.0), [Entry { position: 1, level: 2 }]);
    let rule = &peer.genesis().rule;
    packing::encode(peer.layout(), rule, rule.k, &delta).unwrap()
}

fn count(world: &World, kind: &str) -> u64 {
    world.peers[0].refusals().get(kind).copied().unwrap_or(0)
}

/// The honest two finish and agree.
fn honest_agree(world: &mut World) {
    world.stop(2);
    world.run_for(120);
    assert_eq!(world.finished.len(), 2);
    world.assert_agreement(&[0, 1]);
}

#[test]
fn every_broken_rule_is_counted_under_its_name_and_reported_once() {
    let mut world = world();
    let (round, good) = (world.peers[0].round(), body(&world));
    let long = vec![0u8; 60_000];
    let spoilt = [
        ("delta of another swarm", delta(&world, round, &good, |h| h.swarm = Digest::default())),
        ("delta of an unknown version", delta(&world, round, &good, |h| h.version = 9)),
        ("delta of an impossible length", delta(&world, round, &long, |_| {})),
        ("delta of a far future round", delta(&world, round + 1000, &good, |_| {})),
        (
            "delta whose body does not match its header",
            delta(&world, round, &good, |h| h.body_hash.0[0] ^= 1),
        ),
        ("delta whose body has an unknown version", delta(&world, round, &[1, 4, 0, 255, 255], |_| {})),
        ("delta of another density", delta(&world, round, &[3, 255, 255, 255, 255], |_| {})),
        ("delta whose body ends early", delta(&world, round, &[3, 4, 0, 1], |_| {})),
        ("delta whose body is not canonical", delta(&world, round, &good[..good.len() / 2], |_| {})),
        ("delta over the scale cap", {
            // Packed under a rule that allows more.
            let peer = &world.peers[0];
            let rule = Rule { max_exponent: 24, ..peer.genesis().rule };
            let mut large = SparseDelta::default();
            large.push(0, Step::nearest(1e7), [Entry { position: 1, level: 1 }]);
            let body = packing::encode(peer.layout(), &rule, rule.k, &large).unwrap();
            delta(&world, round, &body, |_| {})
        }),
        ("delta with a wrong signature", {
            let Gossip::Delta(mut signed, body) = delta(&world, round, &good, |_| {}) else { panic!() };
            signed.header.tokens = 1;
            Gossip::Delta(signed, body)
        }),
    ];
    let held = world.peers[0].held_deltas();
    for (kind, message) in spoilt {
        world.gossip(0, 2, &message.encode());
        world.gossip(0, 2, &message.encode());
        assert_eq!(count(&world, kind), 2, "{kind}: {:?}", world.peers[0].refusals());
        let reported =
            world.reports[0].iter().filter(|r| matches!(r, Report::Refused { kind: k, .. } if *k == kind));
        assert_eq!(reported.count(), 1, "{kind}");
    }
    world.gossip(0, 2, b"\x01\x01 not a header");
    world.gossip(0, 2, b"");
    assert_eq!(count(&world, "malformed gossip message"), 2);
    world.request(0, 2, b"\x01\x63");
    assert_eq!(count(&world, "malformed request"), 1);
    assert_eq!(world.peers[0].held_deltas(), held, "nothing of it was kept");
    // Eight broken rules cut a peer off.
    let attacker = hostile().public();
    assert!(world.bans.iter().any(|(at, banned)| *at == 0 && *banned == attacker), "{:?}", world.bans);
    honest_agree(&mut world);
}

#[test]
fn two_deltas_for_one_round_void_each_other_everywhere_in_any_order() {
    let mut world = world();
    let (round, good) = (world.peers[0].round(), body(&world));
    let one = delta(&world, round, &good, |_| {}).encode();
    let two = delta(&world, round, &good, |h| h.tokens = 1).encode();
    world.gossip(0, 2, &one);
    world.gossip(1, 2, &two);
    world.gossip(0, 2, &two);
    honest_agree(&mut world);
    for at in [0, 1] {
        let found = world.reports[at]
            .iter()
            .any(|r| matches!(r, Report::Equivocation { round: r, .. } if *r == round));
        assert!(found, "peer {at}: {:?}", world.reports[at]);
    }
}

#[test]
fn a_false_proof_of_equivocation_voids_nobody() {
    let mut world = world();
    let Gossip::Delta(honest, _) = Gossip::decode(world.outboxes[1].last().unwrap()).unwrap() else {
        panic!()
    };
    let mut forged = *honest;
    forged.header.tokens += 1;
    for proof in [(*honest, forged), (*honest, *honest)] {
        world.gossip(0, 2, &Gossip::Equivocation(Box::new(proof)).encode());
    }
    assert_eq!(count(&world, "false proof of equivocation"), 2);
    let void = world.reports[0].iter().any(|r| matches!(r, Report::Equivocation { .. }));
    assert!(!void);
    honest_agree(&mut world);
}

/// A proof that is true stays true for ever, and whoever signs two headers can sign a thousand: a peer passes on
/// one, and none about a round that is over.
#[test]
fn proofs_of_equivocation_are_passed_on_once() {
    let mut world = world();
    let (round, good) = (world.peers[0].round(), body(&world));
    let header = |round: u64, tokens: u64| match delta(&world, round, &good, |h| h.tokens = tokens) {
        Gossip::Delta(signed, _) => *signed,
        Gossip::Equivocation(_) | Gossip::Access(_) => panic!(),
    };
    let proof = |a, b| Gossip::Equivocation(Box::new((a, b))).encode();
    let mut flood =
        vec![proof(header(round, 0), header(round, 1)), proof(header(round, 1), header(round, 0))];
    flood.extend((2..200).map(|tokens| proof(header(round, 0), header(round, tokens))));
    let old: Vec<_> = (0..100).map(|n| proof(header(0, 2 * n), header(0, 2 * n + 1))).collect();
    let far: Vec<_> = (0..100).map(|n| proof(header(round + 99, n), header(round + 99, n + 1))).collect();
    let settled = world.peers[0].log().settled();
    while world.peers[0].log().settled() == settled {
        world.run_for(1);
    }
    let before = world.passed_on[0];
    for _ in 0..2 {
        for bytes in flood.iter().chain(&old).chain(&far) {
            world.gossip(0, 2, bytes);
        }
    }
    assert_eq!(world.passed_on[0], before + 1);
    assert_eq!(count(&world, "proof that changes nothing"), 2 * 400 - 1);
    let void = world.reports[0].iter().filter(|r| matches!(r, Report::Equivocation { .. }));
    assert_eq!(void.count(), 1);
    honest_agree(&mut world);
}

/// What has been passed on is not passed on again, and a copy of it with other bytes where nobody looks never.
#[test]
fn a_delta_is_passed_on_once_however_often_it_comes() {
    let mut world = world();
    let bytes = world.outboxes[1].last().unwrap().clone();
    let Gossip::Delta(signed, Some(good)) = Gossip::decode(&bytes).unwrap() else { panic!() };
    world.run_for(2);
    let (before, held) = (world.passed_on[0], world.peers[0].held_deltas());
    let known = count(&world, "delta that was here already");
    // The author's name, but not its signature.
    let forged = SignedHeader { signature: signed.header.sign(&hostile()).signature, ..*signed };
    let copies = [
        bytes,
        Gossip::Delta(signed.clone(), None).encode(),
        Gossip::Delta(signed.clone(), Some([&good[..], &[0; 50_000]].concat())).encode(),
        Gossip::Delta(Box::new(forged), Some(good)).encode(),
    ];
    for _ in 0..50 {
        copies.iter().for_each(|bytes| world.gossip(0, 2, bytes));
    }
    assert_eq!(world.passed_on[0], before);
    assert_eq!(world.peers[0].held_deltas(), held);
    assert_eq!(count(&world, "delta that was here already"), known + 200);
    // Of a round that is over.
    let old = world.outboxes[1][0].clone();
    world.run_for(8);
    let refused = count(&world, "delta of a settled round");
    (0..50).for_each(|_| world.gossip(0, 2, &old));
    assert_eq!(count(&world, "delta of a settled round"), refused + 50);
    assert!(world.bans.is_empty(), "an honest peer may pass on what is late");
    honest_agree(&mut world);
}

#[test]
fn an_announced_body_that_never_comes_is_given_up() {
    let mut world = world();
    let (round, good) = (world.peers[0].round(), body(&world));
    let Gossip::Delta(signed, _) = delta(&world, round, &good, |h| h.body_hash.0[0] ^= 1) else { panic!() };
    let held = world.peers[0].held_deltas();
    // The attacker is not there to be asked; nothing is admitted, and nothing waits for ever.
    world.gossip(0, 2, &Gossip::Delta(signed, None).encode());
    assert_eq!(world.peers[0].held_deltas(), held);
    honest_agree(&mut world);
}

#[test]
fn a_body_that_another_author_copies_counts_for_both_and_is_fetched_once() {
    let mut world = world();
    let round = world.peers[0].round();
    let copied = body(&world);
    world.gossip(0, 2, &delta(&world, round, &copied, |_| {}).encode());
    // The other peer learns of it from peer 0 and finds the very same bytes it may hold already.
    honest_agree(&mut world);
    assert!(world.peers[1].folded_counts().0 > 2 * (ROUNDS - 3));
}

#[test]
fn a_flood_of_headers_is_bounded() {
    let mut world = world();
    let good = body(&world);
    let round = world.peers[0].round();
    let before = world.peers[0].held_deltas();
    for n in 0..2000u64 {
        let mut secret = [9; 32];
        secret[..8].copy_from_slice(&n.to_le_bytes());
        let author = Identity::from_secret(&secret);
        let Gossip::Delta(signed, body) = delta(&world, round, &good, |h| h.author = author.public()) else {
            panic!()
        };
        let signed = signed.header.sign(&author);
        world.gossip(0, 2, &Gossip::Delta(Box::new(signed), body).encode());
    }
    // A round holds `publishers` deltas at most, whoever they are from.
    assert!(world.peers[0].held_deltas() <= before + 64, "{}", world.peers[0].held_deltas());
}

/// A header that is not true about a body that somebody else serves: who serves it is not to blame.
#[test]
fn a_wrong_length_of_somebody_elses_body_is_not_blamed_on_who_has_it() {
    let mut world = world();
    let round = world.peers[0].round();
    for (n, first) in [(1u8, true), (2, false)] {
        let author = Identity::from_secret(&[100 + n; 32]);
        let body = other_body(&world, n);
        let header = |length: u32, name: &Identity| {
            let Gossip::Delta(signed, _) = delta(&world, round, &body, |h| {
                (h.author, h.body_length) = (name.public(), length);
            }) else {
                panic!()
            };
            Gossip::Delta(Box::new(signed.header.sign(name)), None).encode()
        };
        let (lie, truth) = (header(body.len() as u32 + 1, &hostile()), header(body.len() as u32, &author));
        // Only the second honest peer has it.
        let whole = match Gossip::decode(&truth).unwrap() {
            Gossip::Delta(signed, _) => Gossip::Delta(signed, Some(body.clone())).encode(),
            Gossip::Equivocation(_) | Gossip::Access(_) => panic!(),
        };
        world.cut.insert((0, 1));
        world.gossip(1, 2, &whole);
        world.cut.clear();
        let messages = if first { [(2, lie), (1, truth)] } else { [(1, truth), (2, lie)] };
        for (from, bytes) in &messages {
            world.gossip(0, *from, bytes);
        }
        world.run_for(3);
    }
    assert!(count(&world, "another length for a body that is awaited") >= 2);
    assert_eq!(count(&world, "delta whose body does not match its header"), 0);
    assert!(world.bans.is_empty(), "{:?}", world.bans);
    honest_agree(&mut world);
}

/// Somebody announces hundreds of bodies that never come: those that others announce are fetched all the same.
#[test]
fn bodies_that_one_announces_and_never_sends_leave_room_for_others() {
    let mut world = world();
    let round = world.peers[0].round();
    for n in 0..600u64 {
        let author = Identity::from_secret(&Digest::of_bytes(&n.to_le_bytes()).0);
        let Gossip::Delta(signed, _) =
            delta(&world, round, &[1, 2, 3, n as u8, (n >> 8) as u8], |h| h.author = author.public())
        else {
            panic!()
        };
        world.gossip(0, 2, &Gossip::Delta(Box::new(signed.header.sign(&author)), None).encode());
    }
    // The second one's next delta, announced without its body.
    let honest = world.outboxes[1].len();
    world.cut.insert((0, 1));
    while world.outboxes[1].len() == honest {
        world.run_until(world.now + Duration::from_millis(50));
    }
    world.cut.clear();
    let Gossip::Delta(signed, _) = Gossip::decode(world.outboxes[1].last().unwrap()).unwrap() else {
        panic!()
    };
    world.gossip(0, 1, &Gossip::Delta(signed.clone(), None).encode());
    world.run_for(1);
    assert!(world.peers[0].log().delta_of(signed.header.round, &signed.header.author).is_some());
    assert_eq!(count(&world, "too many bodies awaited"), 0);
    // Sixteen questions at a time, and no more until they are given up.
    assert!(world.asked[&(0, 2)] <= 40, "{:?}", world.asked);
    honest_agree(&mut world);
}

#[test]
fn requests_for_anything_get_an_answer_of_bounded_size() {
    let mut world = world();
    for request in [
        Request::Round(u64::MAX),
        Request::Round(0),
        Request::Blob { hash: Digest::default(), offset: u64::MAX, length: u32::MAX },
        Request::Blob { hash: Digest::of_bytes(&body(&world)), offset: u64::MAX, length: u32::MAX },
        Request::Blob { hash: Digest::of_bytes(&body(&world)), offset: 3, length: u32::MAX },
    ] {
        world.request(0, 2, &request.encode());
    }
    honest_agree(&mut world);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any bit of an honest delta flipped on the way: dropped, or the very same delta; never a panic, and
    /// the sets still agree.
    #[test]
    fn flipped_bits_never_get_in(flips in proptest::collection::vec((any::<usize>(), 0u8..8), 1..4), cut in any::<usize>()) {
        let mut world = world();
        let honest = world.outboxes[0].last().unwrap().clone();
        let held = world.peers[1].held_deltas();
        let mut bytes = honest.clone();
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        world.gossip(1, 2, &bytes);
        world.gossip(1, 2, &honest[..cut % honest.len()]);
        prop_assert!(world.peers[1].held_deltas() <= held + 1);
        honest_agree(&mut world);
        let void = world.reports.iter().flatten().any(|r| matches!(r, Report::Equivocation { .. }));
        prop_assert!(!void);
    }

    /// Any bytes at all, to every input.
    #[test]
    fn noise_is_survived(noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20), kind in 0u8..40) {
        let mut world = world();
        for bytes in &noise {
            let framed = [&[1, kind][..], bytes].concat();
            for bytes in [bytes, &framed] {
                world.gossip(0, 2, bytes);
                world.request(0, 2, bytes);
                let key = hostile().public();
                world.peers[0].handle_response(world.now, key, 3, Some(bytes));
            }
        }
        world.peers[0].handle_wake(world.now + Duration::from_secs(1));
        honest_agree(&mut world);
    }
}
