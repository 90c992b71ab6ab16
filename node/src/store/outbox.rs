//! Own signed deltas, and what is known about the last one.
//!
//! A round must never be signed twice: whoever sees two deltas of one author and round throws both away,
//! and has a proof against the author. So the highest signed round stands in two places, `outbox/N` by
//! its name and the mark `signed`, both on disk before anybody hears of the delta, and neither is needed
//! while the other is there. A damaged outbox file still counts by its name, also when it has been set
//! aside. Only if all of this is lost is the last round unknown; see [`Signed::Unknown`].

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::file::{self, Damaged, aside_name};

/// The mark: this line, then the first round that has not been signed as a `u64`, little-endian.
const MARK: &[u8] = b"swarm signed 1\n";
/// An outbox file holds one signed delta.
const MAX_OUTBOX: u64 = 1 << 31;

/// What is known about the rounds that an identity has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// This round and all later ones have not been signed.
    Before(u64),
    /// All that would tell is lost. Nothing may be signed before the neighbours cannot know a later own
    /// delta any more.
    Unknown,
}

/// Reads the mark in a node's folder.
///
/// # Errors
/// A file that cannot be read; [`Damaged`] if it is no mark.
fn read_mark(path: &Path) -> Result<Option<u64>> {
    let Some(bytes) = file::read_checked(path, (MARK.len() + 8) as u64)? else { return Ok(None) };
    match bytes.strip_prefix(MARK).and_then(|rest| rest.try_into().ok()) {
        Some(round) => Ok(Some(u64::from_le_bytes(round))),
        None => bail!(Damaged(format!("{} is damaged: it is no mark of a signed round", path.display()))),
    }
}

/// Writes the mark: `next` is the first round that has not been signed.
///
/// # Errors
/// A disk that does not take it.
pub(super) fn write_mark(path: &Path, next: u64) -> Result<()> {
    file::write_checked(path, |out| {
        out.write_all(MARK)?;
        out.write_all(&next.to_le_bytes())
    })
}

/// Whether anything tells that the folder's identity has been in use.
///
/// # Errors
/// A folder that cannot be listed.
pub(super) fn is_used(dir: &Path) -> Result<bool> {
    let names = file::names(dir)?;
    let bases: Vec<&str> = names.iter().map(|name| aside_name(name).map_or(&**name, |(of, _)| of)).collect();
    Ok(bases.contains(&"snapshot") || !file::names(&dir.join("outbox"))?.is_empty())
}

/// What is known about the last round that was signed. A damaged mark is set aside, and the log says so; one
/// that is missing, or older than the outbox (a kill came between the two), is made anew, so that again
/// either of them may be lost.
///
/// # Errors
/// A file that cannot be read at all, or a disk that does not take the mark.
pub(super) fn last_signed(dir: &Path) -> Result<Signed> {
    let path = dir.join("signed");
    let mark = match read_mark(&path) {
        Err(error) if file::is_damage(&error) => {
            let aside = file::set_aside(&path)?;
            tracing::warn!("{error:#}; it is kept as {}, the outbox tells the same", aside.display());
            None
        }
        mark => mark?,
    };
    let named = file::names(&dir.join("outbox"))?;
    let round = |name: &String| aside_name(name).map_or(&**name, |(of, _)| of).parse::<u64>().ok();
    let outbox = named.iter().filter_map(round).max().map(|last| last.saturating_add(1));
    let Some(next) = mark.max(outbox) else { return Ok(Signed::Unknown) };
    if mark != Some(next) {
        write_mark(&path, next)?;
    }
    Ok(Signed::Before(next))
}

/// The own deltas in an outbox, in the order of their rounds. What is damaged is handed to `damaged`
/// and left out.
///
/// # Errors
/// A folder or file that cannot be read at all; whatever `damaged` fails with.
pub(super) fn read(
    folder: &Path,
    mut damaged: impl FnMut(&Path, anyhow::Error) -> Result<()>,
) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for round in file::numbers(folder)? {
        let path = folder.join(round.to_string());
        match file::read_checked(&path, MAX_OUTBOX) {
            Ok(bytes) => all.extend(bytes),
            Err(error) if file::is_damage(&error) => damaged(&path, error)?,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Deletes the files of rounds below `from`, but never the newest.
///
/// # Errors
/// A file that cannot be deleted.
pub(super) fn prune(folder: &Path, from: u64) -> Result<()> {
    let rounds = file::numbers(folder)?;
    let newest = rounds.last().copied().unwrap_or_default();
    for round in rounds.into_iter().filter(|round| *round < from.min(newest)) {
        let path = folder.join(round.to_string());
        fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
    }
    Ok(())
}
