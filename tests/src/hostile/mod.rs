//! A peer that attacks: it speaks the nodes' protocols over their transport, as far as it likes.
//!
//! ```text
//!   attack    what is done, and who stops it: the core, under a name, or a library before it gets there
//!   forgery   deltas and statuses as an enemy makes them
//!   voice     one identity with its connection: asks, gossips, answers with lies, writes what it wants on a stream
//!   wire      sockets without libp2p's swarm: bytes in the middle of a handshake
//! ```
//!
//! Each attack comes from a new identity: those that were caught are refused for ten minutes.

mod attack;
mod forgery;
mod voice;
mod wire;

pub use attack::{Attack, Stopped};

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use swarm_protocol::genesis::Genesis;
use tokio::runtime::Runtime;

use crate::GUARD;
use forgery::Forger;

/// The attacker; dropping it closes all its connections.
#[derive(Debug)]
pub struct Hostile {
    runtime: Runtime,
    target: Target,
}

/// Who is attacked.
#[derive(Clone, Debug)]
struct Target {
    address: Multiaddr,
    peer: PeerId,
    forger: Forger,
}

impl Hostile {
    /// An attacker of the node at `address` (which ends in its peer id), in the swarm of `genesis`.
    ///
    /// # Errors
    /// The address has no peer id, or the genesis no layout.
    pub fn new(address: &str, genesis: Genesis) -> Result<Self> {
        let address: Multiaddr = address.parse()?;
        let peer = address.iter().find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        let peer = peer.context("the node's address has no peer id")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, target: Target { address, peer, forger: Forger::new(genesis)? } })
    }

    /// Attacks once, from a new identity.
    ///
    /// # Errors
    /// The node could not be attacked: it does not listen any more, say.
    pub fn attack(&self, attack: Attack) -> Result<()> {
        self.runtime.block_on(within(attack.run(&self.target)))
    }
}

/// Nothing here takes long by itself.
async fn within<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(GUARD, what).await.context("the attack does not come to an end")?
}

/// Lets others work.
async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
