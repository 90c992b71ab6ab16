//! Checkpoints on disk: the last ones, so that a node that was restarted can serve them again, and the
//! starting point of a fork.
//!
//! ```text
//! checkpoints/N, start
//!                 "swarm checkpoint 1\n" | length u32 | manifest | C: one i32 a parameter, little-endian |
//!                 BLAKE3 of all of this;   N: the number of settled rounds
//! ```

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use swarm_optimizer::coefficients::Coefficients;
use swarm_protocol::checkpoint::{Checkpoints, Held};
use swarm_protocol::genesis::Genesis;

use super::Store;
use super::file::{self, Damaged};
use super::snapshot::{block, bytes, integers, read_block, words};

/// The file with the starting point of a fork.
pub(crate) const START: &str = "start";
const MAGIC: &[u8] = b"swarm checkpoint 1\n";
/// A manifest is 32 bytes for each MiB of C, and a few KiB.
const MAX_MANIFEST: u32 = 16 << 20;

impl Store {
    /// Writes the newest of `held`, and deletes what it no longer holds.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(crate) fn keep_checkpoint(&self, held: &Checkpoints) -> Result<()> {
        let Some(newest) = held.newest() else { return Ok(()) };
        let folder = self.path("checkpoints");
        file::make_folder(&folder)?;
        write(&folder.join(newest.checkpoint.settled.to_string()), newest)?;
        for settled in file::numbers(&folder)? {
            if held.iter().all(|held| held.checkpoint.settled != settled) {
                let path = folder.join(settled.to_string());
                fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The checkpoints on disk, oldest first: manifest and C of so many `parameters`. A damaged one is set
    /// aside, and the log says so.
    ///
    /// # Errors
    /// A folder or file that cannot be read at all.
    pub(crate) fn checkpoints(&self, parameters: usize) -> Result<Vec<(Vec<u8>, Coefficients)>> {
        let mut all = Vec::new();
        let folder = self.path("checkpoints");
        for settled in file::numbers(&folder)? {
            let path = folder.join(settled.to_string());
            match read(&path, parameters) {
                Ok(checkpoint) => all.push(checkpoint),
                Err(error) if !file::is_damage(&error) => return Err(error),
                Err(error) => {
                    let aside = file::set_aside(&path)?;
                    tracing::error!(
                        "{error:#}; it is kept as {}, and the next checkpoint will take its place",
                        aside.display()
                    );
                }
            }
        }
        Ok(all)
    }

    /// The starting point of a fork of so many `parameters`, if it was made or put here. A damaged one is set
    /// aside, and the log says so.
    ///
    /// # Errors
    /// A file that cannot be read at all.
    pub(crate) fn start(&self, parameters: usize) -> Result<Option<Coefficients>> {
        let path = self.path(START);
        if !path.exists() {
            return Ok(None);
        }
        match read(&path, parameters) {
            Ok((_, state)) => Ok(Some(state)),
            Err(error) if !file::is_damage(&error) => Err(error),
            Err(error) => {
                let aside = file::set_aside(&path)?;
                tracing::error!(
                    "{error:#}; it is kept as {}, and the starting model will be fetched from peers",
                    aside.display()
                );
                Ok(None)
            }
        }
    }
}

/// Makes the folder `dir` for the founder of a swarm that begins with a model: its starting point and, last, its genesis.
///
/// # Errors
/// A folder that is not empty; a disk that does not take it.
pub(crate) fn write_successor(dir: &Path, genesis: &Genesis, start: &Held) -> Result<()> {
    ensure_empty(dir)?;
    file::make_folder(dir)?;
    write(&dir.join(START), start)?;
    file::write_atomically(&dir.join("genesis.toml"), genesis.to_toml().as_bytes())
}

/// Fails if something is in the folder `dir` already.
///
/// # Errors
/// A folder that is not empty or cannot be listed.
pub(crate) fn ensure_empty(dir: &Path) -> Result<()> {
    let failed = || format!("cannot list {}", dir.display());
    if dir.exists() && fs::read_dir(dir).with_context(failed)?.next().is_some() {
        bail!("{} is not empty: choose another folder with --out", dir.display());
    }
    Ok(())
}

/// The newest checkpoint in the node's folder `dir` after more than `settled` rounds, without locking the
/// folder: how many rounds, and C of so many `parameters`. A damaged one is passed over.
///
/// # Errors
/// A folder that cannot be listed.
pub(crate) fn newer_checkpoint(
    dir: &Path,
    settled: u64,
    parameters: usize,
) -> Result<Option<(u64, Coefficients)>> {
    let folder = dir.join("checkpoints");
    for at in file::numbers(&folder)?.into_iter().rev().take_while(|at| *at > settled) {
        let path = folder.join(at.to_string());
        match read(&path, parameters).map(|(manifest, state)| Held::restore(manifest, state)) {
            Ok(Some(held)) if held.checkpoint.settled == at => return Ok(Some((at, held.state))),
            Ok(_) => tracing::warn!("{} is not what its name says: not used", path.display()),
            // It may just have been replaced by its running node.
            Err(error) => tracing::warn!("{error:#}: not used"),
        }
    }
    Ok(None)
}

/// The coefficients in a file like a checkpoint, such as a starting point, of so many `parameters`.
///
/// # Errors
/// A file that cannot be read, is damaged or has another number of them; the text names it.
#[cfg(feature = "train")]
pub(crate) fn read_state(path: &Path, parameters: usize) -> Result<Coefficients> {
    read(path, parameters).map(|(_, state)| state)
}

fn write(path: &Path, held: &Held) -> Result<()> {
    file::write_checked(path, |out| {
        out.write_all(MAGIC)?;
        block(out, &held.bytes)?;
        integers(out, &held.state)
    })
}

fn read(path: &Path, parameters: usize) -> Result<(Vec<u8>, Coefficients)> {
    let mut reader = file::open_checked(path)?.with_context(|| format!("{} is gone", path.display()))?;
    parse(&mut reader, parameters)
        .map_err(|error| Damaged(format!("{} cannot be used: {error:#}", path.display())).into())
}

fn parse(reader: &mut impl Read, parameters: usize) -> Result<(Vec<u8>, Coefficients)> {
    if bytes(reader, MAGIC.len())? != MAGIC {
        bail!("it is not a checkpoint of this version of swarm");
    }
    let manifest = read_block(reader, MAX_MANIFEST)?;
    Ok((manifest, Coefficients::new(words(reader, parameters, i32::from_le_bytes)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::Sizes;
    use swarm_protocol::digest::Digest;

    #[test]
    fn the_last_ones_are_kept_and_damaged_ones_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let (store, _) = Store::open(dir.path(), Some(Genesis::new("kept", model, 1))).unwrap();
        assert!(store.checkpoints(3).unwrap().is_empty());
        let mut held = Checkpoints::default();
        for settled in [8, 16, 24] {
            held.push(Held::new(settled, vec![Digest::default(); 9], Coefficients::new(vec![1, -2, 3])));
            store.keep_checkpoint(&held).unwrap();
        }
        let read = store.checkpoints(3).unwrap();
        let held: Vec<_> = held.iter().map(|held| (held.bytes.clone(), held.state.clone())).collect();
        assert_eq!((read.len(), read), (2, held));
        let path = dir.path().join("checkpoints/16");
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.checkpoints(3).unwrap().len(), 1);
        assert!(dir.path().join("checkpoints/16.damaged-1").exists());
    }

    #[test]
    fn a_successor_takes_an_empty_folder_and_its_start_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("a/fork");
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let genesis = Genesis::new("fork", model, 1);
        let held = Held::new(0, vec![Digest::default()], Coefficients::new(vec![1, -2, 3]));
        write_successor(&at, &genesis, &held).unwrap();
        let error = write_successor(&at, &genesis, &held).unwrap_err().to_string();
        assert!(error.contains("not empty") && error.contains("--out"), "{error}");
        let (store, read) = Store::open(&at, None).unwrap();
        assert_eq!((read, store.start(3).unwrap()), (genesis, Some(held.state)));
        let path = at.join("start");
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.start(3).unwrap(), None);
        assert!(at.join("start.damaged-1").exists());
    }

    #[test]
    fn the_newest_whole_checkpoint_is_found_without_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let (store, _) = Store::open(dir.path(), Some(Genesis::new("kept", model, 1))).unwrap();
        assert_eq!(newer_checkpoint(dir.path(), 0, 3).unwrap(), None);
        let mut held = Checkpoints::default();
        for settled in [8, 16] {
            let state = Coefficients::new(vec![settled as i32, 2, 3]);
            held.push(Held::new(settled, vec![Digest::default(); 9], state));
            store.keep_checkpoint(&held).unwrap();
        }
        let newest = |settled| newer_checkpoint(dir.path(), settled, 3).unwrap().map(|(at, _)| at);
        assert_eq!((newest(0), newest(15), newest(16)), (Some(16), Some(16), None));
        fs::write(dir.path().join("checkpoints/16"), "torn").unwrap();
        fs::rename(dir.path().join("checkpoints/8"), dir.path().join("checkpoints/12")).unwrap();
        assert_eq!(newest(0), None);
        assert!(dir.path().join("checkpoints/16").exists(), "somebody else's folder is left as it is");
    }
}
