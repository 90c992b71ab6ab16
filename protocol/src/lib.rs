//! The swarm's rules as a sans-IO state machine: time and bytes in, actions out.
//!
//! The shared model is a pure function of a set of signed sparse deltas, so all that peers have to do is
//! end up with the same set. This crate holds everything that makes them: the constitution
//! ([`genesis`]), keys ([`identity`]), the formats ([`codec`], [`delta`], [`packing`], [`wire`]), the sets
//! ([`round_log`]), what they add up to ([`replica`]), and the state machine over all of it ([`peer`]).
//! There is no socket, clock, file or thread in here; a peer is driven.
//!
//! # Two peers
//!
//! A driver hands in what happened and carries out the actions. Here it is a loop over two peers, the
//! trainer invents a displacement, the disk is instant and the network is a queue:
//!
//! ```
//! use std::{collections::VecDeque, sync::Arc, time::Duration};
//! use swarm_optimizer::kernels::Kernels;
//! use swarm_optimizer::residual::Residual;
//! use swarm_protocol::{architecture::Sizes, genesis::Genesis, identity::Identity, packing};
//! use swarm_protocol::peer::{Action, Part, Peer, rounds::Extracted};
//!
//! let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
//! let genesis = Arc::new(Genesis::new("two", model, 1));
//! let part = Part { trains: true, found_after: Some(Duration::ZERO), stop_before: Some(5) };
//! let mut now = Duration::ZERO;
//! let mut peers: Vec<Peer> = (1..=2)
//!     .map(|n| Peer::new(now, genesis.clone(), Identity::from_secret(&[n; 32]), part).unwrap())
//!     .collect();
//! let keys: Vec<_> = peers.iter().map(Peer::key).collect();
//! peers[0].handle_connected(now, keys[1]);
//! peers[1].handle_connected(now, keys[0]);
//!
//! let mut finished = 0;
//! while finished < 2 {
//!     now += Duration::from_millis(10);
//!     for at in 0..2 {
//!         let other = 1 - at;
//!         peers[at].handle_wake(now);
//!         while let Some(action) = peers[at].poll_action() {
//!             match action {
//!                 Action::StartRound(_) => peers[at].handle_trained(now),
//!                 Action::Extract { round, k } => {
//!                     // A real trainer has moved its model; this one has learned something made up.
//!                     let layout = peers[at].layout().clone();
//!                     let learned = (0..layout.len()).map(|i| ((i * (at + 3)) as f32).sin() * 0.01);
//!                     let mut residual = Residual::from_values(&layout, learned.collect()).unwrap();
//!                     let rule = genesis.rule;
//!                     let kernels = &mut Kernels::single(&layout);
//!                     let delta = residual.extract(&layout, kernels, k as usize, rule.max_exponent);
//!                     let body = packing::encode(&layout, &rule, k, &delta).unwrap();
//!                     let (tokens, loss_before, loss_after) = (80, 2.8, 2.7);
//!                     peers[at].handle_extracted(
//!                         now, Extracted { round, body, tokens, loss_before, loss_after });
//!                 }
//!                 Action::Persist { round, .. } => peers[at].handle_persisted(now, round),
//!                 Action::Publish(bytes) => peers[other].handle_gossip(now, keys[at], 0, &bytes),
//!                 Action::Request { id, bytes, .. } => {
//!                     // The token is how the driver finds the asker again; with two, the id will do.
//!                     peers[other].handle_request(now, keys[at], id, &bytes);
//!                 }
//!                 Action::Respond { token, bytes } => {
//!                     peers[other].handle_response(now, keys[at], token, Some(&bytes));
//!                 }
//!                 Action::Finished => finished += 1,
//!                 // Nothing goes wrong here, and nothing is kept on disk.
//!                 _ => {}
//!             }
//!         }
//!     }
//! }
//! // Ten deltas made the same integers on both, whatever the order in which they arrived.
//! assert_eq!(peers[0].folded_counts().0, 10);
//! assert_eq!(peers[0].state_digest(), peers[1].state_digest());
//! assert_eq!(peers[0].log_digest(), peers[1].log_digest());
//! ```

pub mod access;
pub mod anti_entropy;
pub mod architecture;
pub mod checkpoint;
pub mod checks;
pub mod codec;
pub mod contributions;
pub mod delta;
pub mod digest;
pub mod fetch;
pub mod genesis;
pub mod identity;
pub mod initial;
pub mod invite;
pub mod ledger;
pub mod membership;
pub mod pacer;
pub mod packing;
pub mod peer;
pub mod rates;
pub mod replica;
pub mod round_log;
pub mod wire;

/// A point in time: the time since some start that the driver chose, the same for all calls on one peer.
pub type Time = std::time::Duration;
