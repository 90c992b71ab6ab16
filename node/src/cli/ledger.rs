//! `swarm ledger`: who contributed what.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::ledger::history::History;
use crate::ledger::proof;
use crate::ledger::show::{Format, written};

/// Say who contributed what to the swarm, from the signed log in a node's folder: the same numbers on every peer that
/// holds the same rounds. Works offline, also while the node is running (with its newest snapshot).
///
/// Rounds, how many of them counted, the share of all that was folded, agreement (the cosine of a delta with the sum
/// of the others that were folded in its round: 1 is the same, 0 has nothing to do with it, -1 is the opposite) and
/// confirms (how many deltas were signed on top of this very history) are facts: they follow from what was signed.
/// Tokens and losses are what the authors say about themselves, and nobody can check them; their names say so.
///
/// Only settled rounds count, and only as many as the node keeps. Two peers print the same for the same rounds: choose
/// them with --from and --to, and compare the log digest.
#[derive(Args)]
pub(super) struct LedgerCommand {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// How to write it.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,

    /// The first round. Default: the oldest that the node holds.
    #[arg(long, value_name = "ROUND")]
    from: Option<u64>,

    /// The round after the last one. Default: after the newest that has settled.
    #[arg(long, value_name = "ROUND")]
    to: Option<u64>,

    /// A line for each author of each round, instead of one for each author.
    #[arg(long)]
    rounds: bool,

    /// Also write a file by which anybody can check all of it with swarm verify, without a node: it has the signed
    /// deltas of these rounds, and the ledger.
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
}

impl LedgerCommand {
    pub(super) fn execute(self) -> Result<()> {
        let history = History::open(&self.dir)?;
        ensure!(
            history.from() < history.to(),
            "no settled round is in {} yet: one settles when the swarm is {} rounds further, and is in the node's next \
             snapshot",
            self.dir.display(),
            history.genesis().rounds.window
        );
        let ledger = history.ledger(self.from, self.to)?;
        let text = written(&ledger, history.genesis(), self.format, self.rounds)?;
        if let Some(path) = &self.proof {
            proof::write(path, &history, &ledger)?;
            eprintln!(
                "wrote {}: {} signed parts of rounds {} to {}; anybody can check it with swarm verify",
                path.display(),
                ledger.rows.len(),
                ledger.from,
                ledger.to
            );
        }
        // Last: printing ends the program where nobody reads.
        print!("{text}");
        Ok(())
    }
}
