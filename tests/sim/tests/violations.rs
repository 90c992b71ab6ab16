//! The invariants are able to fire: something is broken on purpose, and the violation that comes is of that kind and
//! says how to see it again.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

use swarm_sim::{Error, Invariant, Options, Sabotage, run_with};

fn small() -> Options {
    Options { peers: 8, rounds: 24, window: 8, seed: 5, ..Options::default() }
}

/// Asserts that `sabotage` is noticed as a violation of `invariant`.
fn fires(options: &Options, sabotage: Sabotage, invariant: Invariant) {
    let violation = match run_with(options, sabotage) {
        Err(Error::Violation(violation)) => violation,
        other => panic!("{sabotage:?} went unnoticed: {other:?}"),
    };
    assert_eq!(violation.invariant, invariant, "{violation}");
    let text = violation.to_string();
    assert!(text.contains(&invariant.to_string()), "{text}");
    assert!(text.ends_with(&format!("replay: {options}")), "{text}");
    assert!(!violation.detail.is_empty());
}

#[test]
fn other_integers_for_the_same_sets() {
    fires(&small(), Sabotage::FlipCoefficient, Invariant::SameSetSameBits);
}

#[test]
fn a_peer_that_hears_nothing_never_agrees() {
    fires(&small(), Sabotage::Deafen, Invariant::Convergence);
}

#[test]
fn an_author_that_counts_twice() {
    fires(&small(), Sabotage::AdmitTwice, Invariant::OncePerAuthor);
}

#[test]
fn integers_that_no_set_accounts_for() {
    fires(&small(), Sabotage::ForgetDelta, Invariant::PureFunction);
}

#[test]
fn more_deltas_than_are_allowed() {
    fires(&small(), Sabotage::Hoard, Invariant::BoundedMemory);
}

#[test]
fn an_honest_peer_that_bans_another() {
    fires(&small(), Sabotage::BanHonest, Invariant::HonestNotBanned);
}

#[test]
fn two_signatures_for_one_round() {
    fires(&small(), Sabotage::SignTwice, Invariant::SignedOnce);
}

#[test]
fn a_delta_that_is_in_c_and_in_the_residual() {
    fires(&small(), Sabotage::GiveBack, Invariant::Accounts);
}

#[test]
fn rounds_that_never_end() {
    fires(&small(), Sabotage::Freeze, Invariant::Progress);
}

#[test]
fn a_snapshot_of_another_swarm() {
    let options = Options { churn: 0.1, newcomers: 0.0, ..small() };
    fires(&options, Sabotage::SpoilSnapshot, Invariant::Restart);
}
