//! Whole runs: what must hold, holds in any weather that the core can bear; what it cannot bear is seen.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ops::ControlFlow;
use std::time::Duration;

use swarm_protocol::rates::Kind;
use swarm_sim::{Attack, Error, Options, Progress, Summary, run};

fn small() -> Options {
    Options { peers: 16, rounds: 24, ..Options::default() }
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn agreed(options: &Options) -> Summary {
    let summary = run(options, go_on).unwrap_or_else(|error| panic!("{error}"));
    // Whatever the weather, nobody meets a limit: not who joins, catches up or comes back, and not who passes on
    // what those with bad intentions say.
    for kind in Kind::ALL.map(Kind::refusal) {
        assert!(!summary.refusals.contains_key(kind), "{kind}: {:?}", summary.refusals);
    }
    summary
}

/// Weather: sixty milliseconds of latency, a few messages that overtake others, one slow peer in ten;
/// nothing is lost.
#[test]
fn good_weather() {
    let summary = agreed(&small());
    assert_eq!((summary.agreed, summary.finished, summary.parted_settlements), (16, 16, 0));
    // Eight authors a round, but for a few places that stay free (ranks follow from the swarm id), and nothing is missed.
    assert!((8 * 22..=8 * 24).contains(&summary.folded) && summary.missed == 0, "{summary}");
    assert_eq!(summary.published, summary.folded + summary.crowded);
    // Sixteen authors for eight places: who comes too late for one is told so.
    let refused: Vec<_> =
        summary.refusals.keys().filter(|kind| *kind != "delta of a round that is full").collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(summary.most_held <= summary.held_bound);
}

/// Weather: loss, repetition, peers that crash and come back, and some with bad intentions; twice the same.
#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let bad = Options { loss: 0.2, duplicate: 0.1, churn: 0.03, newcomers: 0.0, byzantine: 0.1, ..small() };
    let first = agreed(&bad);
    let again = agreed(&bad);
    assert_eq!(first, again);
    let other = agreed(&Options { seed: 2, ..bad });
    assert!(other.trace != first.trace && other.state != first.state);
}

/// Weather: a tenth is lost. What is remembered across peers changes nothing: every peer by itself comes to
/// the same.
#[test]
fn remembered_answers_are_the_computed_ones() {
    let options = Options { peers: 8, rounds: 10, loss: 0.1, ..Options::default() };
    let summary = agreed(&Options { full: true, ..options.clone() });
    assert_eq!((summary.agreed, summary.folded), (8, 80));
    // In full mode the deltas are others, and so are their lengths; but all of them are there.
    assert_eq!(agreed(&options).folded, 80);
}

/// Weather: three messages in ten are lost, three come twice, two overtake others.
#[test]
fn loss_repetition_and_reordering() {
    for seed in 1..4 {
        let options = Options { seed, loss: 0.3, duplicate: 0.3, reorder: 0.2, ..small() };
        let summary = agreed(&options);
        assert_eq!((summary.agreed, summary.parted_settlements), (16, 0));
        assert!(summary.lost > 0 && summary.late_share > 0.0);
    }
}

/// Weather: two halves do not hear each other for eight rounds, less than the window, and a tenth of what is
/// sent is lost.
#[test]
fn a_split_shorter_than_the_window_heals() {
    let options = Options { partition: Some(Duration::from_secs(40)), loss: 0.1, ..small() };
    let summary = agreed(&options);
    assert_eq!((summary.agreed, summary.parted_settlements), (16, 0));
    assert!(summary.worst_convergence > 5.0, "{}", summary.worst_convergence);
}

/// Weather: two halves do not hear each other for longer than the window. Both sides settle rounds of their
/// own; then all take up what most authors have.
#[test]
fn a_split_longer_than_the_window_heals() {
    let length = Duration::from_secs(80);
    let options = Options { peers: 8, window: 8, rounds: 48, partition: Some(length), ..small() };
    let summary = agreed(&options);
    assert_eq!(summary.agreed, 8);
    assert!(summary.parted_settlements > 0, "{summary}");
}

/// Weather: in each round one peer in twenty leaves. Peers crash, come back from an older snapshot, or come
/// with nothing. (With room for all authors: what a newcomer knows of the history is not enough to rank
/// authors yet.)
#[test]
fn churn() {
    let options = Options { churn: 0.05, publishers: 32, rounds: 30, ..small() };
    let summary = agreed(&options);
    assert_eq!(summary.parted_settlements, 0);
    assert!(summary.left > 10 && summary.returned > 0 && summary.newcomers > 0, "{summary}");
}

/// Weather: good, but a fifth of the authors sign two deltas for a round, send garbage, boast, or send
/// again what they heard.
#[test]
fn authors_with_bad_intentions() {
    for attack in [Attack::Equivocate, Attack::Garbage, Attack::Replay, Attack::Lie] {
        let summary = agreed(&Options { byzantine: 0.2, attacks: vec![attack], ..small() });
        assert!((8..16).contains(&summary.agreed), "{}", summary.agreed);
        assert_eq!(summary.parted_settlements, 0);
        match attack {
            Attack::Garbage => assert!(summary.bans > 0 && !summary.refusals.is_empty()),
            _ => assert_eq!(summary.bans, 0),
        }
    }
}

/// Weather: good, but a fifth of the authors let go of a delta late. One that is shown just when its round
/// settles is in the sets of some and not of others: most authors' history decides.
#[test]
fn deltas_shown_too_late_part_nobody_for_long() {
    for attack in [Attack::LateEquivocate, Attack::Withhold] {
        let summary = agreed(&Options { byzantine: 0.2, attacks: vec![attack], rounds: 30, ..small() });
        assert!((8..16).contains(&summary.agreed), "{}", summary.agreed);
        assert!(summary.parted_settlements > 0, "{summary}");
    }
}

/// Weather: good; what is told of a run.
#[test]
fn a_summary_is_a_table_and_data() {
    let summary = agreed(&Options { peers: 2, rounds: 3, ..Options::default() });
    let table = summary.to_string();
    assert!(table.lines().all(|line| line.len() > 25), "{table}");
    assert!(table.contains(&summary.state) && table.contains("rounds to convergence"));
    let data = serde_json::to_value(&summary).unwrap();
    assert_eq!(data["agreed"], 2);
    assert_eq!(data["state"], summary.state);
}

/// Weather: bad. Two in ten messages are lost, one peer in twenty leaves in each round, and of those coming back
/// some are newcomers. Everybody settles the same all the time: nobody takes part in a round before it has what
/// was said in the rounds that are open.
#[test]
fn churn_and_loss_part_nobody() {
    for seed in 1..4 {
        let options = Options { peers: 40, rounds: 40, seed, loss: 0.2, churn: 0.05, ..Options::default() };
        let summary = agreed(&options);
        assert_eq!(summary.parted_settlements, 0, "{summary}");
        assert!(summary.left > 20 && summary.returned > 0 && summary.newcomers > 0, "{summary}");
    }
}

/// Weather: the same, and two halves do not hear each other for three windows.
#[test]
fn churn_loss_and_a_long_split() {
    for seed in 1..4 {
        let bad = Options { peers: 40, rounds: 80, seed, loss: 0.2, churn: 0.05, ..Options::default() };
        let summary = agreed(&Options { partition: Some(Duration::from_secs(150)), window: 10, ..bad });
        assert!(summary.parted_settlements > 0, "{summary}");
    }
}

/// No weather at all: somebody wants no more.
#[test]
fn a_run_can_be_stopped() {
    let stop = |progress: Progress| match progress.round {
        0..3 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let Err(Error::Stopped(progress)) = run(&small(), stop) else { panic!("it went on") };
    assert_eq!((progress.round, progress.rounds), (3, 24));
}

/// No weather at all.
#[test]
fn options_that_make_no_sense_are_refused() {
    let error = run(&Options { loss: 2.0, ..small() }, go_on).unwrap_err();
    assert_eq!(error.to_string(), "loss = 2: must be between 0 and 1");
}
