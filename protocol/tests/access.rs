//! Closed swarms: who is not admitted gets nothing and counts for nothing, whoever passes it on; who is revoked counts
//! up to a round that is the same for all; and all who are admitted end with the same sets, whatever they heard when.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use support::{FOUNDER, JOINER, World};
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::access::{Certificate, NEVER, Revocation, Signed, Statements};
use swarm_protocol::delta::Header;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Access, Genesis, Tokenizer};
use swarm_protocol::identity::{Identity, PeerKey};
use swarm_protocol::packing;
use swarm_protocol::peer::{Action, Part, Peer, Report};
use swarm_protocol::wire::{Gossip, Refusal, Request, Response};

const ROUNDS: u64 = 30;
const WINDOW: u64 = 8;
const NOT_ADMITTED: &str = "delta of an author who is not admitted";

/// Who holds the key of the genesis; no peer of the tests.
fn founder() -> Identity {
    Identity::from_secret(&[200; 32])
}

fn key(at: usize) -> PeerKey {
    Identity::from_secret(&World::secret(at)).public()
}

fn genesis() -> Arc<Genesis> {
    let access = Access::invite([founder().public()]);
    Arc::new(Genesis { access, ..support::genesis().as_ref().clone() })
}

fn certificate(by: &Identity, subject: PeerKey, may_admit: bool, last_round: u64) -> Signed<Certificate> {
    let (swarm, issuer) = (genesis().swarm_id(), by.public());
    Signed::new(Certificate { swarm, subject, issuer, may_admit, last_round }, by)
}

fn admission(at: usize, last_round: u64) -> Statements {
    vec![certificate(&founder(), key(at), false, last_round)].into()
}

fn revocation(at: usize, from_round: u64) -> Statements {
    let said =
        Revocation { swarm: genesis().swarm_id(), subject: key(at), issuer: founder().public(), from_round };
    vec![Signed::new(said, &founder())].into()
}

/// Gives the peer at `at` what its user has been given.
fn tell(world: &mut World, at: usize, statements: &Statements) {
    world.peers[at].handle_statements(world.now, statements).unwrap();
    world.act(at);
}

/// A swarm of `count` peers that are admitted for good.
fn world(seed: u64, count: usize) -> World {
    let mut world = World::with(seed, genesis());
    for at in 0..count {
        let part = if at == 0 { FOUNDER } else { JOINER };
        world.add(Part { stop_before: Some(ROUNDS), ..part });
        tell(&mut world, at, &admission(at, NEVER));
    }
    world
}

/// A delta of `author` for `round`, in order in every way.
fn delta(world: &World, author: &Identity, round: u64) -> Vec<u8> {
    let (layout, rule) = (world.peers[0].layout(), world.genesis().rule);
    let mut said = SparseDelta::default();
    said.push(round as u32 % 4, Step::nearest(64.0), [Entry { position: 1, level: 2 }]);
    let body = packing::encode(layout, &rule, rule.k, &said).unwrap();
    let header = Header::new(world.peers[0].swarm_id(), round, author.public(), &body);
    Gossip::Delta(Box::new(header.sign(author)), Some(body)).encode()
}

/// The rounds that hold a delta of `author` at `at`.
fn rounds_of(world: &World, at: usize, author: &PeerKey) -> Vec<u64> {
    let log = world.peers[at].log();
    (0..ROUNDS).filter(|round| log.entry(*round, author).is_some()).collect()
}

fn answer(peer: &mut Peer, now: Duration, asker: PeerKey, request: &Request) -> Response {
    while peer.poll_action().is_some() {}
    peer.handle_request(now, asker, 77, &request.encode());
    let mut actions = std::iter::from_fn(|| peer.poll_action());
    let bytes = actions.find_map(|action| match action {
        Action::Respond { token: 77, bytes } => Some(bytes),
        _ => None,
    });
    Response::decode(&bytes.unwrap()).unwrap()
}

#[test]
fn who_is_not_admitted_gets_nothing_and_is_told_so() {
    let mut world = world(1, 2);
    let stranger = world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER });
    world.run_for(3);
    assert_eq!(world.peers[stranger].doing(), "waiting to be admitted");
    assert!(world.reports[stranger].contains(&Report::NotAdmitted), "{:?}", world.reports[stranger]);
    assert!(world.bans.is_empty(), "it has some time to show that it is admitted");
    world.run_for(120);
    assert_eq!(world.finished, [0, 1].into());
    world.assert_agreement(&[0, 1]);
    assert_eq!(world.peers[0].folded_counts().0, 2 * ROUNDS);
    for at in 0..2 {
        assert!(world.bans.contains(&(at, key(stranger))), "{:?}", world.bans);
        assert!(!world.bans.contains(&(stranger, key(at))), "it knows that the others are admitted");
    }
    assert_eq!(world.peers[stranger].doing(), "waiting to be admitted");
    assert_eq!((world.published[stranger], world.peers[stranger].held_deltas()), (0, 0));
}

#[test]
fn to_a_stranger_nothing_is_answered_but_the_genesis_and_by_what_the_answerer_is_admitted() {
    let mut world = world(2, 2);
    world.run_for(10);
    let (now, asker) = (world.now, key(9));
    let checkpoint = world.peers[0].checkpoints().newest().unwrap().checkpoint;
    let peer = &mut world.peers[0];
    for request in [
        Request::Round(1),
        Request::History,
        Request::Bodies(vec![Digest::default()]),
        Request::Blob { hash: checkpoint.manifest, offset: 0, length: 100 },
    ] {
        // A neighbour is answered.
        let answered = answer(peer, now, key(1), &request);
        assert!(!matches!(answered, Response::Refused(_)), "{request:?}: {answered:?}");
        assert_eq!(answer(peer, now, asker, &request), Response::Refused(Refusal::NotAdmitted));
    }
    let nothing = Request::Access(Statements::default());
    let Response::Access { admitted, statements } = answer(peer, now, asker, &nothing) else { panic!() };
    assert!(!admitted);
    assert_eq!(statements, admission(0, NEVER), "nothing about others");
    let genesis = Request::Blob { hash: peer.swarm_id(), offset: 0, length: 100 };
    assert_ne!(answer(peer, now, asker, &genesis), Response::Refused(Refusal::NotAdmitted));
    // With a certificate the whole register, and everything else.
    let shown = Request::Access(admission(9, 1000));
    let Response::Access { admitted, statements } = answer(peer, now, asker, &shown) else { panic!() };
    assert!(admitted && statements.len() == 3);
    assert!(!matches!(answer(peer, now, asker, &Request::Round(1)), Response::Refused(_)));
}

#[test]
fn the_tokenizer_is_served_to_strangers_as_the_genesis_is_and_nothing_in_its_place() {
    let tokenizer: Arc<[u8]> = b"{\"model\": \"words\"}".as_slice().into();
    let hash = Digest::of_bytes(&tokenizer);
    let pinned = Tokenizer { blake3: hash, vocabulary: 2 };
    let genesis = Arc::new(Genesis { tokenizer: Some(pinned), ..genesis().as_ref().clone() });
    let identity = Identity::from_secret(&World::secret(0));
    let mut peer = Peer::new(Duration::ZERO, genesis, identity, FOUNDER).unwrap();
    let ask = |offset, length| Request::Blob { hash, offset, length };
    let answered =
        |peer: &mut Peer, offset, length| answer(peer, Duration::ZERO, key(9), &ask(offset, length));
    assert_eq!(answered(&mut peer, 0, 100), Response::Refused(Refusal::NotHeld));
    assert!(!peer.serve_tokenizer(b"something else".as_slice().into()));
    assert_eq!(answered(&mut peer, 0, 100), Response::Refused(Refusal::NotHeld));
    assert!(peer.serve_tokenizer(tokenizer.clone()));
    let total = tokenizer.len() as u64;
    assert_eq!(answered(&mut peer, 0, 100), Response::Blob { total, bytes: tokenizer.to_vec() });
    assert_eq!(answered(&mut peer, 3, 4), Response::Blob { total, bytes: tokenizer[3..7].to_vec() });
    assert_eq!(answered(&mut peer, total, 4), Response::Refused(Refusal::NotHeld));
    // Without one in the genesis, none is served.
    let mut peer =
        Peer::new(Duration::ZERO, self::genesis(), Identity::from_secret(&World::secret(0)), FOUNDER)
            .unwrap();
    assert!(!peer.serve_tokenizer(tokenizer));
}

#[test]
fn a_delta_of_somebody_who_is_not_admitted_is_counted_and_not_kept_whoever_passes_it_on() {
    let mut world = world(3, 3);
    world.run_for(6);
    let (rogue, round) = (Identity::from_secret(&World::secret(9)), world.peers[0].round());
    let held = world.peers[0].held_deltas();
    for at in round..round + 3 {
        let bytes = delta(&world, &rogue, at);
        world.gossip(0, 1, &bytes);
    }
    assert_eq!(world.refused(0, NOT_ADMITTED), 3);
    assert_eq!(world.peers[0].held_deltas(), held);
    // A proof that it signed twice voids nothing: there is nothing to void, and no room to waste.
    let other = |tokens| {
        let header = Header { tokens, ..Header::new(genesis().swarm_id(), round, rogue.public(), &[1]) };
        header.sign(&rogue)
    };
    world.gossip(0, 1, &Gossip::Equivocation(Box::new((other(1), other(2)))).encode());
    world.run_for(120);
    assert_eq!(world.finished, [0, 1, 2].into());
    world.assert_agreement(&[0, 1, 2]);
    for at in 0..3 {
        assert!(rounds_of(&world, at, &rogue.public()).is_empty());
    }
    assert!(world.bans.is_empty(), "whoever passed it on may not have known: {:?}", world.bans);
}

#[test]
fn somebody_admitted_later_by_a_delegate_joins_a_running_swarm() {
    let mut world = World::with(4, genesis());
    for at in 0..2 {
        world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER });
        let by_founder = certificate(&founder(), key(at), at == 1, NEVER);
        tell(&mut world, at, &vec![by_founder].into());
    }
    world.run_for(12);
    let late = world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    let delegate = Identity::from_secret(&World::secret(1));
    let mut chain = world.peers[1].register().chain(&key(1));
    chain.push(certificate(&delegate, key(late), false, NEVER));
    // The line as its user gets it.
    let line = Statements::from(chain).to_string();
    tell(&mut world, late, &line.parse().unwrap());
    world.run_for(120);
    assert_eq!(world.finished, [0, 1, 2].into());
    world.assert_agreement(&[0, 1, 2]);
    assert!(rounds_of(&world, 0, &key(late)).len() > 5);
    assert!(world.bans.is_empty(), "{:?}", world.bans);
}

#[test]
fn a_certificate_that_the_swarm_is_told_is_as_good_as_one_that_is_shown() {
    let mut world = world(5, 2);
    let late = world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    world.run_for(2);
    // Whoever admits tells its own node; the device itself has nothing.
    tell(&mut world, 1, &admission(late, NEVER));
    world.run_for(120);
    assert_eq!(world.finished, [0, 1, 2].into());
    world.assert_agreement(&[0, 1, 2]);
    assert!(!rounds_of(&world, 0, &key(late)).is_empty() && world.bans.is_empty());
}

#[test]
fn an_author_counts_up_to_its_last_round_and_goes_on_when_it_is_admitted_again() {
    const LAST: u64 = 9;
    let mut world = World::with(6, genesis());
    for at in 0..3 {
        world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER });
        tell(&mut world, at, &admission(at, if at == 2 { LAST } else { NEVER }));
    }
    while world.peers[0].round() < LAST + 6 {
        world.run_for(1);
    }
    assert!(world.bans.contains(&(0, key(2))), "it is no neighbour any more: {:?}", world.bans);
    let (trying, round) = (Identity::from_secret(&World::secret(2)), world.peers[0].round());
    let bytes = delta(&world, &trying, round);
    world.gossip(0, 1, &bytes);
    assert_eq!(world.refused(0, NOT_ADMITTED), 1);
    for at in 0..2 {
        let rounds = rounds_of(&world, at, &key(2));
        assert!(rounds.len() > 5 && rounds.iter().all(|round| *round <= LAST), "{rounds:?}");
    }
    tell(&mut world, 2, &admission(2, NEVER));
    world.plug(2);
    world.run_for(120);
    assert_eq!(world.finished, [0, 1, 2].into());
    world.assert_agreement(&[0, 1, 2]);
    let rounds = rounds_of(&world, 0, &key(2));
    assert!(rounds.iter().any(|round| *round > LAST) && !rounds.contains(&(LAST + 1)), "{rounds:?}");
}

#[test]
fn a_revocation_that_comes_too_late_for_open_rounds_corrects_them() {
    let mut world = world(7, 4);
    world.run_for(12);
    let round = world.peers[0].round();
    let from = round - 3;
    assert!(rounds_of(&world, 1, &key(3)).iter().any(|round| *round >= from), "it has published for these");
    tell(&mut world, 0, &revocation(3, from));
    world.run_for(3);
    for at in 0..3 {
        let rounds = rounds_of(&world, at, &key(3));
        assert!(rounds.iter().all(|round| *round < from), "{at}: {rounds:?}");
        assert!(world.bans.contains(&(at, key(3))), "it is cut off at once");
        let told = Report::Revoked { subject: key(3), from_round: from };
        assert!(world.reports[at].contains(&told), "{:?}", world.reports[at]);
    }
    world.run_for(120);
    world.assert_agreement(&[0, 1, 2]);
    assert_eq!(world.finished, [0, 1, 2].into());
    let told = Report::Revoked { subject: key(3), from_round: from };
    assert!(!world.peers[3].is_admitted() && world.reports[3].contains(&told), "it knows, too");
}

#[test]
fn what_a_peer_kept_lets_it_go_on_where_it_was() {
    let mut world = world(8, 3);
    world.run_for(8);
    world.stop(1);
    let (kept, snapshot) = (world.peers[1].register().statements(), world.peers[1].snapshot());
    let identity = Identity::from_secret(&World::secret(1));
    let part = Part { stop_before: Some(ROUNDS), ..JOINER };
    let mut again = Peer::new(world.now, genesis(), identity, part).unwrap();
    assert!(!again.is_admitted());
    again.restore_access(&kept).unwrap();
    assert!(again.is_admitted());
    let outbox = world.outboxes[1].clone();
    again.restore(world.now, snapshot, &outbox).unwrap();
    world.restart(1, again);
    world.run_for(120);
    assert_eq!(world.finished, [0, 1, 2].into());
    world.assert_agreement(&[0, 1, 2]);
    // Somebody's certificate that was changed on the disk does not come back.
    let mut forged = kept;
    forged.certificates[0].said.last_round -= 1;
    let mut peer = Peer::new(world.now, genesis(), Identity::from_secret(&[9; 32]), JOINER).unwrap();
    assert!(peer.restore_access(&forged).is_err());
    assert_eq!(peer.register().statements().len(), 2);
}

#[test]
fn false_statements_are_struck_and_known_ones_not_passed_on() {
    let mut world = world(9, 2);
    world.run_for(3);
    let mut forged = admission(7, 5);
    forged.certificates[0].said.last_round = 6;
    let kind = "certificate or revocation that does not hold";
    for count in 1..=3 {
        world.gossip(0, 1, &Gossip::Access(forged.clone()).encode());
        assert_eq!(world.refused(0, kind), count);
    }
    let passed = world.passed_on[0];
    world.gossip(0, 1, &Gossip::Access(admission(7, 5)).encode());
    assert_eq!(world.passed_on[0], passed + 1);
    world.gossip(0, 1, &Gossip::Access(admission(7, 5)).encode());
    assert_eq!(world.passed_on[0], passed + 1);
    let many: Statements =
        (20..40).map(|at| certificate(&founder(), key(at), false, 5)).collect::<Vec<_>>().into();
    world.gossip(0, 1, &Gossip::Access(many).encode());
    assert_eq!(world.refused(0, "malformed gossip message"), 1);
    assert_eq!(world.peers[0].register().statements().len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Under loss, with a rogue whose deltas somebody passes on, and somebody revoked who goes on signing: all that
    /// remain hold the same, nothing of the rogue, and nothing of the revoked from the round on.
    #[test]
    fn whatever_is_lost_all_count_the_same_authors(seed in any::<u64>(), loss in 0u64..300, by in 0usize..4) {
        const ROGUE: usize = 9;
        const REVOKED: usize = 4;
        let mut world = world(seed, 5);
        (world.loss, world.duplication) = (loss, 100);
        world.run_for(5);
        let from = world.peers[by].round() + 2 * WINDOW;
        tell(&mut world, by, &revocation(REVOKED, from));
        let (rogue, revoked) =
            (Identity::from_secret(&World::secret(ROGUE)), Identity::from_secret(&World::secret(REVOKED)));
        for _ in 0..60 {
            world.run_for(1);
            let (to, source) = (world.below(4) as usize, world.below(4) as usize);
            let ahead = world.below(WINDOW);
            let round = world.peers[to].round() + ahead;
            for author in [&rogue, &revoked] {
                // What it signed when it still might is its own affair: only what it signs after that.
                if to != source && (author.public() == rogue.public() || round >= from) {
                    let bytes = delta(&world, author, round);
                    world.gossip(to, source, &bytes);
                }
            }
        }
        world.run_for(120);
        let others = [0, 1, 2, 3];
        prop_assert!(others.iter().all(|at| world.finished.contains(at)), "{:?}", world.finished);
        world.assert_agreement(&others);
        let refused: u64 = others.iter().map(|at| world.refused(*at, NOT_ADMITTED)).sum();
        prop_assert!(refused > 20, "{refused}");
        for at in others {
            prop_assert!(rounds_of(&world, at, &key(ROGUE)).is_empty());
            let rounds = rounds_of(&world, at, &key(REVOKED));
            prop_assert!(rounds.iter().all(|round| *round < from), "{rounds:?}, revoked from {from}");
            prop_assert_eq!(world.peers[at].register().digest(), world.peers[0].register().digest());
        }
    }
}
