//! Settled rounds that a node itself needs no more, kept for ledgers.
//!
//! ```text
//! DIR/history/N   "swarm history 1\n" | swarm, first round, round after the last, log digest before and after (bincode)
//!                 | each round as in a proof | BLAKE3 of all of this;   N: the first round
//! ```
//!
//! The log keeps the rounds of the retention. Before they leave it, they are written here, a few to a file, at the
//! checkpoints: two windows before, so that the next checkpoint comes in time, and what two histories may still disagree
//! about is mostly not here yet. Should a history be given up all the same, its files do not fit the log's digests any
//! more, and the other one's take their place. After a gap (a node was away for longer than the retention) the older
//! files stay until there is no room for them, and are in no ledger: a ledger has no holes.
//!
//! The oldest file goes when all together have more bytes than the node was told to keep.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::codec;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::packing;
use swarm_protocol::round_log::{Entry, RoundLog};

use super::proof::{AROUND_A_BODY, read_round, write_round};
use crate::store::{is_damage, make_folder, numbers, open_checked, read_array, set_aside, write_checked};

/// Bytes that a node keeps if nobody says otherwise.
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub(crate) const KEPT: u64 = 256_000_000;
const FOLDER: &str = "history";
const MAGIC: &[u8] = b"swarm history 1\n";
/// Bytes of a [`Head`].
const HEAD: usize = 3 * 32 + 2 * 8;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    swarm: Digest,
    from: u64,
    to: u64,
    before: Digest,
    after: Digest,
}

/// Writes the rounds that `log` will not hold for long, and deletes the oldest files if all together have more than
/// `most` bytes; 0 keeps none.
///
/// # Errors
/// A disk that does not take it.
pub(crate) fn keep(dir: &Path, genesis: &Genesis, log: &RoundLog, most: u64) -> Result<()> {
    let folder = dir.join(FOLDER);
    if most > 0 {
        let rounds = &genesis.rounds;
        let step = u64::from(rounds.checkpoint_every);
        let kept = u64::from(rounds.retention).saturating_sub(2 * u64::from(rounds.window));
        let end = log.settled().saturating_sub(kept);
        let mut next = written_to(&folder, genesis, log)?.unwrap_or(0).max(log.held_from());
        while next + step <= end {
            make_folder(&folder)?;
            write(&folder, genesis, log, next, next + step)?;
            next += step;
        }
    }
    prune(&folder, most)
}

/// The round after the last one that is in a file and of this log. Files of another history are deleted; damaged ones
/// are set aside, and the log says so.
fn written_to(folder: &Path, genesis: &Genesis, log: &RoundLog) -> Result<Option<u64>> {
    for first in numbers(folder)?.into_iter().rev() {
        let path = folder.join(first.to_string());
        match open(&path, genesis) {
            Ok((head, _)) if log.digest_after(head.to) == Some(head.after) => return Ok(Some(head.to)),
            // There is a gap, and nothing to compare with.
            Ok((head, _)) if head.to < log.held_from() => return Ok(None),
            Ok(_) => fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?,
            Err(error) if is_damage(&error) => {
                let aside = set_aside(&path)?;
                tracing::warn!("{error:#}; it is kept as {}", aside.display());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn write(folder: &Path, genesis: &Genesis, log: &RoundLog, from: u64, to: u64) -> Result<()> {
    let digest =
        |settled| log.digest_after(settled).context("the log has no digest of a round that it holds");
    let head = Head { swarm: genesis.swarm_id(), from, to, before: digest(from)?, after: digest(to)? };
    write_checked(&folder.join(from.to_string()), |out| {
        out.write_all(MAGIC)?;
        out.write_all(&codec::encode(&head))?;
        for round in from..to {
            let entries: Vec<Entry> = log.entries(round).cloned().collect();
            write_round(out, &entries)?;
        }
        Ok(())
    })
}

/// Deletes the oldest files until the others have at most `most` bytes.
fn prune(folder: &Path, most: u64) -> Result<()> {
    let mut bytes: u64 = 0;
    for first in numbers(folder)?.into_iter().rev() {
        let path = folder.join(first.to_string());
        let length = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
        bytes = bytes.saturating_add(length);
        if bytes > most {
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
    }
    Ok(())
}

/// Opens a file whose checksum holds, and reads what it holds; the reader is at its first round.
fn open(path: &Path, genesis: &Genesis) -> Result<(Head, impl Read + use<>)> {
    let reader = open_checked(path)?;
    let mut reader = reader.with_context(|| format!("{} is gone", path.display()))?;
    let magic: [u8; MAGIC.len()] = read_array(&mut reader)?;
    let head: [u8; HEAD] = read_array(&mut reader)?;
    let head: Option<Head> = codec::decode(&head);
    match head.filter(|_| magic == *MAGIC) {
        Some(head) if head.swarm == genesis.swarm_id() && head.from <= head.to => Ok((head, reader)),
        _ => bail!("{} is not of this swarm, or not of this version of it: delete it", path.display()),
    }
}

/// The kept rounds that a log continues.
#[derive(Debug, Default)]
pub(super) struct Archive {
    folder: PathBuf,
    /// One after the other without a gap, ascending.
    heads: Vec<Head>,
    /// The rounds of the file that was read last, and the first of them.
    read: RefCell<Option<(u64, Vec<Vec<Entry>>)>>,
}

impl Archive {
    /// What the folder `dir` of a node has that ends where `log` begins, or later.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub(super) fn open(dir: &Path, genesis: &Genesis, log: &RoundLog) -> Result<Self> {
        let folder = dir.join(FOLDER);
        let mut heads: Vec<Head> = Vec::new();
        for first in numbers(&folder)?.into_iter().rev() {
            let head = match open(&folder.join(first.to_string()), genesis) {
                Ok((head, _)) => head,
                // Older rounds are in no ledger then.
                Err(error) if heads.is_empty() => {
                    tracing::warn!("{error:#}");
                    continue;
                }
                Err(error) => {
                    tracing::warn!("{error:#}");
                    break;
                }
            };
            let fits = match heads.last() {
                Some(later) => (head.to, head.after) == (later.from, later.before),
                None => head.from < log.held_from() && joins(&head, log),
            };
            if fits {
                heads.push(head);
            } else if !heads.is_empty() {
                break;
            }
        }
        heads.reverse();
        Ok(Self { folder, heads, read: RefCell::default() })
    }

    /// The first round, if there is any.
    pub(super) fn from(&self) -> Option<u64> {
        self.heads.first().map(|head| head.from)
    }

    /// All entries of a round that is here.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(super) fn entries(&self, genesis: &Genesis, round: u64) -> Result<Vec<Entry>> {
        let head = self.head(round)?;
        let mut read = self.read.borrow_mut();
        if read.as_ref().is_none_or(|(from, _)| *from != head.from) {
            let (found, mut reader) = open(&self.folder.join(head.from.to_string()), genesis)?;
            ensure!(found == *head, "the node has just replaced kept rounds: ask again");
            let longest = packing::max_len(&genesis.layout()?, &genesis.rule) + AROUND_A_BODY;
            let longest = u32::try_from(longest).unwrap_or(u32::MAX);
            let rounds: Result<Vec<_>> =
                (head.from..head.to).map(|_| read_round(&mut reader, genesis, longest, true)).collect();
            *read = Some((head.from, rounds?));
        }
        let rounds =
            read.as_ref().and_then(|(_, rounds)| rounds.get(usize::try_from(round - head.from).ok()?));
        rounds.cloned().context("a kept round is missing")
    }

    /// The log digest before a round that is here.
    ///
    /// # Errors
    /// As [`Archive::entries`].
    pub(super) fn digest_before(&self, genesis: &Genesis, round: u64) -> Result<Digest> {
        let head = self.head(round)?;
        let mut digest = head.before;
        for at in head.from..round {
            let mut log = RoundLog::at(genesis, at, &[digest]);
            for entry in self.entries(genesis, at)? {
                match entry {
                    Entry::Delta(delta) => drop(log.insert(swarm_protocol::delta::Delta::clone(&delta), at)),
                    Entry::Void(proof) => {
                        log.insert_proof(&proof, at);
                    }
                }
            }
            log.settle_next();
            digest = log.log_digest();
        }
        Ok(digest)
    }

    fn head(&self, round: u64) -> Result<&Head> {
        let head = self.heads.iter().find(|head| (head.from..head.to).contains(&round));
        head.with_context(|| format!("round {round} is not kept"))
    }
}

/// Whether the rounds of a file lead up to those that the log holds: it knows the digest at one of its ends.
fn joins(head: &Head, log: &RoundLog) -> bool {
    let same = |settled, digest| log.digest_after(settled) == Some(digest);
    log.held_from() <= head.to && (same(head.to, head.after) || same(head.from, head.before))
}
