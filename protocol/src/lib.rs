//! The swarm's rules as a sans-IO state machine: time and bytes in, actions out.
//!
//! The shared model is a pure function of a set of signed sparse deltas, so all that peers have to do is
//! end up with the same set. This crate holds everything that makes them: the constitution
//! ([`genesis`]), keys ([`identity`]), the formats ([`delta`], [`packing`], [`wire`]), the sets
//! ([`round_log`]), what they add up to ([`replica`]), and the state machine over all of it ([`peer`]).
//! There is no socket, clock, file or thread in here; a peer is driven.
pub mod anti_entropy;
pub mod architecture;
pub mod delta;
pub mod digest;
pub mod fetch;
pub mod genesis;
pub mod identity;
pub mod initial;
pub mod membership;
pub mod pacer;
pub mod packing;
pub mod peer;
pub mod replica;
pub mod round_log;
pub mod wire;

/// A point in time: the time since some start that the driver chose, the same for all calls on one peer.
pub type Time = std::time::Duration;
