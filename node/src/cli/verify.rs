//! `swarm verify`: whether a ledger is what its proof shows.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use swarm_protocol::digest::Digest;

use crate::ledger::proof::{self, Proven};
use crate::ledger::show::{Format, written};
use crate::net::peer_id;
use crate::store::{read_genesis, read_limited};

/// A printed ledger has a few hundred bytes an author, or an author of a round.
const MAX_PRINTED: u64 = 1 << 30;

/// Check a ledger's proof, a file that swarm ledger --proof wrote: every signature, every body, and that the ledger is
/// the one that these deltas make. Needs no node and no network.
///
/// What it shows: the authors have signed these deltas for these rounds, and what follows from them is the ledger.
///
/// What it does not show. That the swarm is the one you mean: say which with --genesis or --swarm-id. That no delta was
/// left out: only the authors who came later have signed that, and only up to the round that the ledger names; ask a
/// peer that you trust for the log digest of these rounds (swarm ledger prints it) and give it with --log-digest. Whose
/// the keys are: somebody with many keys is many authors. And nothing makes the tokens and losses true that the
/// authors claim.
#[derive(Args)]
pub(super) struct Verify {
    /// The proof.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The genesis of the swarm that it must be of.
    #[arg(long, value_name = "FILE", conflicts_with = "swarm_id")]
    genesis: Option<PathBuf>,

    /// The id of the swarm that it must be of, as swarm id prints it.
    #[arg(long, value_name = "ID")]
    swarm_id: Option<Digest>,

    /// The log digest that the ledger must end with: that of a peer you trust, for the same rounds. Then nothing that
    /// the peer holds was left out.
    #[arg(long, value_name = "DIGEST")]
    log_digest: Option<Digest>,

    /// A ledger as swarm ledger printed it, in any format: it must be the one that is proved, byte for byte.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,

    /// How to write the ledger that is proved.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,

    /// A line for each author of each round, instead of one for each author.
    #[arg(long)]
    rounds: bool,
}

impl Verify {
    pub(super) fn execute(self) -> Result<()> {
        let wanted = match &self.genesis {
            Some(path) => Some(read_genesis(path)?.swarm_id()),
            None => self.swarm_id,
        };
        let proven = proof::read(&self.file, wanted)?;
        let ledger = &proven.ledger;
        if let Some(digest) = self.log_digest {
            ensure!(
                ledger.after == digest,
                "{}: its rounds make the log digest {}, not {digest}: it is of other rounds, or a delta was left out or \
                 made up",
                self.file.display(),
                ledger.after
            );
        }
        if let Some(path) = &self.ledger {
            compare(path, &proven)?;
        }
        let text = written(ledger, &proven.genesis, self.format, self.rounds)?;
        let words = told(&proven, wanted.is_some(), self.log_digest.is_some());
        if self.format == Format::Table {
            print!("{words}\n{text}");
        } else {
            eprint!("{words}");
            print!("{text}");
        }
        Ok(())
    }
}

/// Whether the file is the ledger, in whichever format.
fn compare(path: &Path, proven: &Proven) -> Result<()> {
    let printed = read_limited(path, MAX_PRINTED)?;
    for format in Format::ALL {
        for rounds in [false, true] {
            if written(&proven.ledger, &proven.genesis, format, rounds)?.as_bytes() == printed {
                return Ok(());
            }
        }
    }
    bail!(
        "{} is not the ledger that is proved, in any format: not a byte may be changed. The one that is proved is \
         printed without --ledger",
        path.display()
    )
}

/// What was found, and what was not.
fn told(proven: &Proven, vouched: bool, complete: bool) -> String {
    let ledger = &proven.ledger;
    let mut text = format!(
        "verified: {} signed parts of rounds {} to {}, and the ledger that they make\nswarm id: {}{}\n",
        ledger.rows.len(),
        ledger.from,
        ledger.to,
        ledger.swarm,
        if vouched {
            ", as you asked for"
        } else {
            ". You named none: whoever relies on this must compare it with the id of the swarm that is meant"
        }
    );
    text += &if complete {
        "nothing was left out: the log digest is the one that you gave\n".to_owned()
    } else if ledger.confirmed_to > ledger.from {
        format!(
            "whether something was left out: of the rounds below {}, most authors of a later round have signed that \
             nothing was; of the later ones, this file cannot show it (--log-digest)\n",
            ledger.confirmed_to
        )
    } else {
        "whether something was left out: this file cannot show it (--log-digest)\n".to_owned()
    };
    text += "tokens and losses are what the authors claim\n";
    if proven.genesis.access.is_open() {
        text += "the swarm is open: anybody may take part, with as many keys as they like\n";
    } else if proven.not_admitted.is_empty() {
        text += "the swarm is closed, and certificates in the proof admit every author\n";
    } else {
        text += "the swarm is closed, and no certificate in the proof admits, for all of their rounds:\n";
        for author in &proven.not_admitted {
            text += &format!(
                "    {}\n",
                peer_id(author).map_or_else(|| author.to_string(), |peer| peer.to_string())
            );
        }
    }
    text
}
