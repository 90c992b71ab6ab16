//! The last checkpoints on disk, so that a node that was restarted can serve them again.
//!
//! ```text
//! checkpoints/N   "swarm checkpoint 1\n" | length u32 | manifest | C: one i32 a parameter, little-endian |
//!                 BLAKE3 of all of this;   N: the number of settled rounds
//! ```

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use swarm_optimizer::coefficients::Coefficients;
use swarm_protocol::checkpoint::Checkpoints;

use super::Store;
use super::file::{self, Damaged};
use super::snapshot::{block, bytes, integers, read_block, words};

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
        file::write_checked(&folder.join(newest.checkpoint.settled.to_string()), |out| {
            out.write_all(MAGIC)?;
            block(out, &newest.bytes)?;
            integers(out, &newest.state)
        })?;
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
    use swarm_protocol::architecture::Architecture;
    use swarm_protocol::checkpoint::Held;
    use swarm_protocol::digest::Digest;
    use swarm_protocol::genesis::Genesis;

    #[test]
    fn the_last_ones_are_kept_and_damaged_ones_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let model = Architecture { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
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
}
