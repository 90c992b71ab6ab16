//! A neighbour whose answers are lies: statuses, histories, rounds, bodies, checkpoints. Whoever asks it loses
//! little time and traffic, says what was wrong, and joins at the others; nobody honest is blamed.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{FOUNDER, JOINER, Lie, World};
use swarm_protocol::delta::SignedHeader;
use swarm_protocol::digest::Digest;
use swarm_protocol::peer::Part;
use swarm_protocol::wire::{Checkpoint, Refusal, Request, Response, Status};

const ROUNDS: u64 = 60;
const LIAR: usize = 3;
const LATE: usize = 4;

/// Seconds that the newcomer knows nobody but the liar.
const ALONE: u64 = 40;
/// Seconds before it comes: then its way in is the history, or a checkpoint and the history since.
const EARLY: u64 = 9;
const LONG_AFTER: u64 = 30;

/// Lies in statuses only.
fn status(change: impl Fn(&mut Status) + 'static) -> Lie {
    Box::new(move |_, honest| match honest {
        Response::Status(mut status) => {
            change(&mut status);
            Some(Response::Status(status))
        }
        other => Some(other),
    })
}

/// Lies in histories only.
fn history(change: impl Fn(&mut u64, &mut u64, &mut Vec<Digest>) + 'static) -> Lie {
    Box::new(move |_, honest| match honest {
        Response::History { mut first, mut held_from, mut digests } => {
            change(&mut first, &mut held_from, &mut digests);
            Some(Response::History { first, held_from, digests })
        }
        other => Some(other),
    })
}

/// Lies about the headers of rounds only.
fn round(change: impl Fn(u64, &mut Vec<SignedHeader>) -> bool + 'static) -> Lie {
    Box::new(move |question, honest| match (question, honest) {
        (Request::Round(round), Response::Round(mut headers, proofs)) => {
            change(*round, &mut headers).then_some(Response::Round(headers, proofs))
        }
        (_, other) => Some(other),
    })
}

/// Lies about bodies only.
fn bodies(change: impl Fn(&mut Vec<Vec<u8>>) -> bool + 'static) -> Lie {
    Box::new(move |_, honest| match honest {
        Response::Bodies(mut bodies) => change(&mut bodies).then_some(Response::Bodies(bodies)),
        other => Some(other),
    })
}

fn digest(n: u64) -> Digest {
    Digest::of_bytes(&n.to_le_bytes())
}

/// Three honest peers and a liar do some rounds; a newcomer meets the liar alone, then all.
fn join_beside(lie: Lie, seconds: u64) -> World {
    let mut world = World::new(1);
    for _ in 0..4 {
        world.add(Part { stop_before: Some(ROUNDS), ..FOUNDER });
    }
    world.run_for(seconds);
    world.lies.insert(LIAR, lie);
    world.add(Part { stop_before: Some(ROUNDS), ..JOINER });
    (0..LIAR).for_each(|honest| world.disconnect(honest, LATE));
    world.run_for(ALONE);
    world.cut.retain(|pair| !(pair.1 == LATE && pair.0 < LIAR));
    world.plug_in(LATE);
    world
}

/// The honest ones and the newcomer hold the same, soon; it has cost little, and nobody honest is blamed.
fn assert_unharmed(world: &mut World, what: &str) {
    world.run_for(150);
    for at in [0, 1, 2, LATE] {
        assert_eq!(
            world.peers[at].round(),
            ROUNDS,
            "{what}: peer {at} is {}: {:?} {:?}",
            world.peers[at].doing(),
            world.reports[at],
            world.peers[at].refusals()
        );
    }
    world.assert_agreement(&[0, 1, 2, LATE]);
    // Nor does a liar hold them for ever.
    assert!([0, 1, 2, LATE].iter().all(|at| world.finished.contains(at)), "{what}: {:?}", world.finished);
    world.assert_only_banned(&[LIAR]);
    let (asked, served) = (world.asked[&(LATE, LIAR)], world.served_to(LATE).bytes);
    assert!(asked < 2500, "{what}: {asked} questions");
    assert!(served < 10_000_000, "{what}: {served} bytes");
    for at in [0, 1, 2, LATE] {
        // Five authors, the rounds retained and those open.
        let held = world.peers[at].held_deltas();
        assert!(held <= 5 * (32 + 2 * 8), "{what}: peer {at} holds {held} deltas");
    }
}

type Case = (&'static str, fn() -> Lie, Option<&'static str>);

fn cases(seconds: &[u64], all: &[Case]) {
    for (what, lie, kind) in all {
        let mut counted = 0;
        for seconds in seconds {
            let mut world = join_beside(lie(), *seconds);
            assert_unharmed(&mut world, &format!("{what}, after {seconds} s"));
            counted += kind.map_or(1, |kind| world.refused(LATE, kind));
        }
        assert!(counted > 0, "{what}: not refused as {kind:?}");
    }
}

#[test]
fn statuses_that_cannot_be_true() {
    let impossible = Some("impossible status");
    cases(
        &[LONG_AFTER],
        &[
            ("a round at the end of time", || status(|s| s.round = u64::MAX), impossible),
            ("more settled than begun", || status(|s| s.settled = s.round + 1), impossible),
            ("settled at the end of time", || status(|s| s.settled = u64::MAX), impossible),
            (
                "a checkpoint of the future",
                || {
                    status(|s| {
                        s.checkpoint = Some(Checkpoint {
                            settled: s.settled + 1000,
                            manifest: digest(1),
                            log_digest: digest(2),
                        });
                    })
                },
                impossible,
            ),
            (
                "thousands of open rounds",
                || status(|s| s.open = (0..1500).map(|n| (s.settled + n, digest(n))).collect()),
                impossible,
            ),
            (
                "one open round a thousand times",
                || status(|s| s.open = (0..1500).map(|n| (s.round, digest(n))).collect()),
                impossible,
            ),
        ],
    );
}

#[test]
fn statuses_that_are_not_true() {
    cases(
        &[LONG_AFTER],
        &[
            (
                "far ahead",
                || {
                    status(|s| {
                        s.round += 1000;
                        s.settled += 1000;
                    })
                },
                None,
            ),
            (
                "far ahead, with a checkpoint there",
                || {
                    status(|s| {
                        s.round += 1000;
                        s.settled += 1000;
                        s.checkpoint = Some(Checkpoint {
                            settled: s.settled,
                            manifest: digest(1),
                            log_digest: s.log_digest,
                        });
                    })
                },
                None,
            ),
            (
                "still at the beginning",
                || {
                    status(|s| {
                        (s.round, s.settled) = (0, 0);
                        s.open.clear();
                        s.checkpoint = None;
                    })
                },
                None,
            ),
            ("another history", || status(|s| s.log_digest = digest(3)), None),
            ("other open sets", || status(|s| s.open.iter_mut().for_each(|open| open.1 = digest(4))), None),
            ("a delta of yours that nobody has", || status(|s| s.your_next_round = u64::MAX), None),
            (
                "a checkpoint that nobody made",
                || {
                    status(|s| {
                        if let Some(checkpoint) = &mut s.checkpoint {
                            checkpoint.manifest = digest(5);
                        }
                    })
                },
                None,
            ),
        ],
    );
}

#[test]
fn histories_that_lie() {
    let impossible = Some("impossible history");
    cases(
        &[EARLY, LONG_AFTER],
        &[
            ("no digests", || history(|_, _, digests| digests.clear()), impossible),
            (
                "endless digests",
                || history(|_, _, digests| *digests = (0..5000).map(digest).collect()),
                impossible,
            ),
            ("digests from the end of time", || history(|first, _, _| *first = u64::MAX), impossible),
            (
                "other digests",
                || history(|_, _, digests| digests.iter_mut().for_each(|d| *d = digest(d.0[0].into()))),
                None,
            ),
            (
                "digests of rounds that nobody has lived through",
                || history(|_, _, digests| digests.extend((0..8).map(digest))),
                None,
            ),
            (
                "the last digests are made up",
                || {
                    history(|_, _, digests| {
                        let from = digests.len().saturating_sub(3);
                        digests[from..].iter_mut().for_each(|d| *d = digest(d.0[0].into()));
                    })
                },
                None,
            ),
            ("holds nothing", || history(|_, held_from, _| *held_from = u64::MAX), None),
            ("holds everything", || history(|_, held_from, _| *held_from = 0), None),
            ("shifted", || history(|first, _, _| *first += 3), None),
        ],
    );
}

#[test]
fn rounds_that_lie() {
    let else_ = Some("round response about something else");
    cases(
        &[LONG_AFTER],
        &[
            (
                "nothing in any round",
                || {
                    round(|_, headers| {
                        headers.clear();
                        true
                    })
                },
                None,
            ),
            (
                "headers of other rounds",
                || {
                    round(|_, headers| {
                        headers.iter_mut().for_each(|signed| signed.header.round += 1);
                        true
                    })
                },
                else_,
            ),
            (
                "an endless list",
                || {
                    round(|_, headers| {
                        let one = headers.first().copied();
                        headers.extend(one.into_iter().flat_map(|one| std::iter::repeat_n(one, 3000)));
                        true
                    })
                },
                else_,
            ),
            (
                "what its authors did not sign",
                || {
                    round(|_, headers| {
                        headers.iter_mut().for_each(|signed| signed.header.tokens += 1);
                        true
                    })
                },
                None,
            ),
            ("no answer", || round(|_, _| false), None),
            (
                "refused",
                || {
                    Box::new(|question, honest| match question {
                        Request::Round(_) => Some(Response::Refused(Refusal::NotHeld)),
                        _ => Some(honest),
                    })
                },
                None,
            ),
        ],
    );
}

#[test]
fn bodies_that_lie() {
    cases(
        &[LONG_AFTER],
        &[
            (
                "more than were asked for",
                || {
                    bodies(|bodies| {
                        bodies.push(vec![1]);
                        true
                    })
                },
                Some("more bodies than were asked for"),
            ),
            (
                "fewer",
                || {
                    bodies(|bodies| {
                        bodies.truncate(1);
                        true
                    })
                },
                None,
            ),
            (
                "none of them",
                || {
                    bodies(|bodies| {
                        bodies.iter_mut().for_each(Vec::clear);
                        true
                    })
                },
                None,
            ),
            (
                "other bytes",
                || {
                    bodies(|bodies| {
                        bodies.iter_mut().flatten().for_each(|byte| *byte ^= 1);
                        true
                    })
                },
                Some("wrong bytes for a blob"),
            ),
            (
                "one byte of each",
                || {
                    bodies(|bodies| {
                        bodies.iter_mut().for_each(|body| body.truncate(1));
                        true
                    })
                },
                Some("wrong bytes for a blob"),
            ),
            (
                "in another order",
                || {
                    bodies(|bodies| {
                        bodies.reverse();
                        true
                    })
                },
                None,
            ),
            ("no answer", || bodies(|_| false), None),
        ],
    );
}

#[test]
fn one_who_never_answers_anything() {
    cases(
        &[LONG_AFTER],
        &[
            ("silence", || Box::new(|_, _| None), None),
            ("refuses everything", || Box::new(|_, _| Some(Response::Refused(Refusal::NotReady))), None),
            (
                "answers what was not asked",
                || {
                    Box::new(|question, honest| match question {
                        Request::Status(_) => Some(honest),
                        _ => Some(Response::Blob { total: 1, bytes: vec![0] }),
                    })
                },
                Some("malformed response"),
            ),
        ],
    );
}
