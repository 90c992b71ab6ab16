//! The settled rounds that a node's folder holds: those of its newest snapshot, and what it has kept of older ones.
//!
//! Only settled rounds: their sets are frozen, and equal log digests mean equal sets.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use swarm_protocol::access::Statements;
use swarm_protocol::contributions::{Auditor, Ledger};
use swarm_protocol::delta::Delta;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::round_log::{Entry, RoundLog};

use super::archive::Archive;
use crate::store;

/// A node's settled rounds.
pub(crate) struct History {
    genesis: Arc<Genesis>,
    log: RoundLog,
    archive: Archive,
    statements: Statements,
}

impl History {
    /// Reads the folder `dir`, without locking it: its node may be running.
    ///
    /// # Errors
    /// A folder that is none of a node's, or a file that cannot be used.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let (genesis, _, snapshot, _) = store::read_only(dir)?;
        let position = snapshot.core.position;
        let delta = |(signed, body): (swarm_protocol::delta::SignedHeader, Arc<[u8]>)| Delta {
            id: signed.header.id(),
            signed,
            body,
        };
        let deltas = snapshot.core.deltas.into_iter().map(delta).collect();
        let spans = (position.settled, position.held_from);
        let log = RoundLog::from_contents(&genesis, spans, position.digests, deltas, position.proofs);
        let log = log.with_context(|| {
            format!("the snapshot in {}: its log digests do not reach its settled rounds", dir.display())
        })?;
        let statements =
            if genesis.access.is_open() { Statements::default() } else { store::read_access(dir)? };
        let archive = Archive::open(dir, &genesis, &log)?;
        Ok(Self { genesis: Arc::new(genesis), log, archive, statements })
    }

    /// The swarm's constitution.
    pub(crate) fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// What is known about who may take part, in a closed swarm.
    pub(crate) fn statements(&self) -> &Statements {
        &self.statements
    }

    /// The first round that is here.
    pub(crate) fn from(&self) -> u64 {
        self.archive.from().unwrap_or(self.log.held_from())
    }

    /// The round after the last one that is here.
    pub(crate) fn to(&self) -> u64 {
        self.log.settled()
    }

    /// The log digest after `settled` rounds.
    ///
    /// # Errors
    /// It is not known here.
    fn digest_after(&self, settled: u64) -> Result<Digest> {
        match self.log.digest_after(settled) {
            Some(digest) => Ok(digest),
            None => self.archive.digest_before(&self.genesis, settled),
        }
    }

    /// All entries of a round, by author.
    ///
    /// # Errors
    /// A file of kept rounds that cannot be read.
    pub(crate) fn entries(&self, round: u64) -> Result<Vec<Entry>> {
        if round < self.log.held_from() {
            return self.archive.entries(&self.genesis, round);
        }
        Ok(self.log.entries(round).cloned().collect())
    }

    /// The ledger of the rounds from `from` to below `to`; without them, of all that are here.
    ///
    /// # Errors
    /// Rounds that are not here, or a delta that does not hold.
    pub(crate) fn ledger(&self, from: Option<u64>, to: Option<u64>) -> Result<Ledger> {
        let (first, end) = (self.from(), self.to());
        let (from, to) = (from.unwrap_or(first), to.unwrap_or(end));
        let here = || {
            format!("this folder holds the settled rounds from {first} to {end} (the last one not included)")
        };
        ensure!(from <= to, "--from {from} --to {to}: the first round must not be behind the last one");
        ensure!(first <= from, "--from {from}: {}; older ones are not kept", here());
        ensure!(
            to <= end,
            "--to {to}: {}; later ones have not settled yet, or are not in the node's snapshot yet",
            here()
        );
        let mut auditor = Auditor::new(self.genesis.clone(), from, self.digest_after(from)?)?;
        for round in from..to {
            auditor.round(&self.entries(round)?).context("the node's log does not hold")?;
        }
        let ledger = auditor.finish();
        ensure!(
            ledger.after == self.digest_after(to)?,
            "the sets of the rounds from {from} to {to} do not make the log digest that the node has: its snapshot is \
             not one that this program wrote"
        );
        Ok(ledger)
    }
}
