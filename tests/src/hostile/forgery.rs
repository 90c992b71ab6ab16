//! Deltas as an enemy makes them: in order but for what is to be wrong with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::{Entry, SparseDelta, Step};
use swarm_protocol::delta::{Header, SignedHeader};
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::{Genesis, Rule};
use swarm_protocol::identity::Identity;
use swarm_protocol::packing;
use swarm_protocol::wire::Gossip;

/// Makes things up.
#[derive(Clone, Debug)]
pub(super) struct Forger {
    pub(super) swarm: Digest,
    layout: Arc<Layout>,
    rule: Rule,
    /// Identities that have been made.
    made: Arc<AtomicU64>,
}

impl Forger {
    pub(super) fn new(genesis: Genesis) -> Result<Self> {
        let layout = Arc::new(genesis.layout()?);
        Ok(Self { swarm: genesis.swarm_id(), layout, rule: genesis.rule, made: Arc::default() })
    }

    /// An identity that nobody has heard of.
    pub(super) fn identity(&self) -> Identity {
        let mut secret = [0xa7; 32];
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        // Another process has others: one that was banned there is not known here.
        let seed = u64::from(std::process::id()) << 32 | number;
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        Identity::from_secret(&secret)
    }

    /// A body that is in order.
    pub(super) fn body(&self, level: i8) -> Result<Vec<u8>> {
        let mut delta = SparseDelta::default();
        delta.push(0, Step::nearest(64.0), [Entry { position: 1, level }]);
        Ok(packing::encode(&self.layout, &self.rule, self.rule.k, &delta)?)
    }

    /// One that sends more than the genesis allows.
    pub(super) fn body_over_the_cap(&self) -> Result<Vec<u8>> {
        let mut delta = SparseDelta::default();
        delta.push(0, Step::nearest(1e7), [Entry { position: 1, level: 1 }]);
        Ok(packing::encode(&self.layout, &Rule { max_exponent: 24, ..self.rule }, self.rule.k, &delta)?)
    }

    /// A header of `author` for `round` and `body`, in order unless `change` spoils it before it is signed.
    pub(super) fn header(
        &self,
        author: &Identity,
        round: u64,
        body: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> SignedHeader {
        let mut header = Header::new(self.swarm, round, author.public(), body);
        change(&mut header);
        header.sign(author)
    }

    /// The same by somebody new, with its body, as gossip.
    pub(super) fn delta(&self, round: u64, body: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let signed = self.header(&self.identity(), round, body, change);
        Gossip::Delta(Box::new(signed), Some(body.to_vec())).encode()
    }
}
