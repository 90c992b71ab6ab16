//! A node's folder.
//!
//! ```text
//! DIR/
//!   lock            held by the process that uses the folder
//!   identity.key    the ed25519 secret, 32 bytes, readable by the owner only
//!   genesis.toml    the swarm's constitution, a copy
//!   snapshot        what the node goes on from; see `snapshot`
//!   outbox/N        own signed deltas since the snapshot and the last one before, one file a round, on
//!                   disk before anybody hears of them
//!   checkpoints/N   the last ones, for peers that join; see `checkpoints`
//!   status.json     where the node is, rewritten twice a second
//!   report.json     what it did, written when it stops
//! ```
//!
//! Every file is written beside its place, synced and renamed, so that a kill at any moment leaves the
//! old one or the new one; files that are not text end with a checksum. A damaged file is set aside, not
//! deleted.

mod checkpoints;
mod file;
pub(crate) mod snapshot;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::{Identity, PeerKey};

#[cfg(feature = "train")]
pub(crate) use file::read_limited;
pub(crate) use file::write_atomically;
#[cfg(feature = "train")]
pub(crate) use file::{open_checked, set_aside, write_checked};
use snapshot::NodeSnapshot;

/// A genesis file is text of a few hundred bytes; more than this is something else.
const MAX_GENESIS: u64 = 64 * 1024;
/// An outbox file holds one signed delta.
const MAX_OUTBOX: u64 = 1 << 31;

/// A node's folder, locked for this process.
pub(crate) struct Store {
    dir: PathBuf,
    _lock: File,
}

/// Reads a genesis file.
///
/// # Errors
/// No such file, too large, or not a genesis; the text names the file and the key.
pub(crate) fn read_genesis(path: &Path) -> Result<Genesis> {
    let bytes = file::read_limited(path, MAX_GENESIS)?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{} is not text", path.display()))?;
    Genesis::parse(&text).with_context(|| format!("{}", path.display()))
}

/// The snapshot of the node whose folder is `dir`, without locking it, with the genesis and the outbox.
///
/// # Errors
/// A folder that is none of a node's, or a file that cannot be read.
#[cfg(feature = "train")]
pub(crate) fn read_only(dir: &Path) -> Result<(Genesis, Identity, NodeSnapshot, Vec<Vec<u8>>)> {
    let genesis = dir.join("genesis.toml");
    if !genesis.is_file() {
        bail!("{} is not a node's folder (it has no genesis.toml)", dir.display());
    }
    let genesis = read_genesis(&genesis)?;
    let identity = read_identity(&dir.join("identity.key"))?
        .with_context(|| format!("{} has no identity.key", dir.display()))?;
    let snapshot = snapshot::read(&dir.join("snapshot"), &genesis)?.with_context(|| {
        format!("{} has no snapshot yet: let swarm run finish a round there first", dir.display())
    })?;
    let outbox = read_outbox(dir)?;
    Ok((genesis, identity, snapshot, outbox))
}

fn read_identity(path: &Path) -> Result<Option<Identity>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = file::read_limited(path, 1024)?;
    let secret: [u8; 32] = bytes.try_into().map_err(|_| {
        anyhow!("{} is damaged: it must have 32 bytes. Restore it from a backup, or move it away to start with a new identity", path.display())
    })?;
    Ok(Some(Identity::from_secret(&secret)))
}

fn outbox_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    numbered_files(&dir.join("outbox"))
}

/// The files of `folder` whose names are numbers, in order; none if there is no such folder.
fn numbered_files(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let round = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        files.extend(round.map(|round| (round, path)));
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(feature = "train")]
fn read_outbox(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for (_, path) in outbox_files(dir)? {
        all.push(file::read_checked(&path, MAX_OUTBOX)?);
    }
    Ok(all)
}

impl Store {
    /// Opens `dir` for `genesis`, or for the genesis that is in it if none is given; makes what is missing.
    ///
    /// # Errors
    /// A folder that another process uses or that belongs to another swarm; anything that cannot be read
    /// or written.
    pub(crate) fn open(dir: &Path, genesis: Option<Genesis>) -> Result<(Self, Genesis)> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let lock_path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use by a running swarm process: stop that one, or choose another folder with --dir",
                dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        let store = Self { dir: dir.to_owned(), _lock: lock };
        let path = store.path("genesis.toml");
        let held = if path.exists() { Some(read_genesis(&path)?) } else { None };
        let genesis = match (genesis, held) {
            (Some(wanted), Some(held)) if wanted.swarm_id() != held.swarm_id() => bail!(
                "{} belongs to swarm {:.16} ({}), and the genesis given is of swarm {:.16} ({}): choose another \
                 folder with --dir, or leave --genesis out to go on with the swarm of this folder",
                dir.display(),
                held.swarm_id(),
                held.name,
                wanted.swarm_id(),
                wanted.name
            ),
            (_, Some(held)) => held,
            (Some(wanted), None) => {
                write_atomically(&path, wanted.to_toml().as_bytes())?;
                wanted
            }
            (None, None) => bail!("{} holds no genesis yet: name one with --genesis FILE", dir.display()),
        };
        Ok((store, genesis))
    }

    /// The genesis and the public key in a node's folder, without locking it.
    ///
    /// # Errors
    /// A folder that is none of a node's.
    pub(crate) fn look(dir: &Path) -> Result<(Genesis, PeerKey)> {
        let genesis = dir.join("genesis.toml");
        if !genesis.is_file() {
            bail!("{} is not a node's folder (it has no genesis.toml)", dir.display());
        }
        let identity = read_identity(&dir.join("identity.key"))?
            .with_context(|| format!("{} has no identity.key yet: it is made by swarm run", dir.display()))?;
        Ok((read_genesis(&genesis)?, identity.public()))
    }

    /// A file of the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder's identity; made if there is none.
    ///
    /// # Errors
    /// A damaged key, or a disk that does not take it.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let path = self.path("identity.key");
        if let Some(identity) = read_identity(&path)? {
            return Ok(identity);
        }
        let mut secret = [0; 32];
        getrandom(&mut secret)?;
        // write_atomically's files are readable by the owner only.
        write_atomically(&path, &secret)?;
        Ok(Identity::from_secret(&secret))
    }

    /// The snapshot, or `None` if there is none. A damaged one is set aside, and the log says so.
    ///
    /// # Errors
    /// A file that cannot be read at all.
    pub(crate) fn snapshot(&self, genesis: &Genesis) -> Result<Option<NodeSnapshot>> {
        let path = self.path("snapshot");
        match snapshot::read(&path, genesis) {
            Ok(snapshot) => Ok(snapshot),
            Err(error) => {
                let aside = file::set_aside(&path)?;
                tracing::error!(
                    "{error:#}; it is kept as {}, and what is shared will be fetched from peers again",
                    aside.display()
                );
                Ok(None)
            }
        }
    }

    /// Writes the snapshot, then deletes the outbox files that it makes unnecessary: those of rounds
    /// below `from`, but never the newest, which tells even without a snapshot what was signed last.
    ///
    /// # Errors
    /// A disk that does not take it; the old snapshot and the outbox are then as before.
    pub(crate) fn save(&self, snapshot: &NodeSnapshot, from: u64) -> Result<()> {
        snapshot::write(&self.path("snapshot"), snapshot)?;
        self.prune(from)
    }

    fn prune(&self, from: u64) -> Result<()> {
        let files = outbox_files(&self.dir)?;
        let newest = files.last().map_or(0, |(round, _)| *round);
        for (round, path) in files {
            if round < from.min(newest) {
                fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Own deltas that are in no snapshot. A damaged one is set aside.
    ///
    /// # Errors
    /// A folder or file that cannot be read at all.
    pub(crate) fn outbox(&self) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for (_, path) in outbox_files(&self.dir)? {
            match file::read_checked(&path, MAX_OUTBOX) {
                Ok(bytes) => all.push(bytes),
                Err(error) => {
                    let aside = file::set_aside(&path)?;
                    tracing::error!("{error:#}; it is kept as {}", aside.display());
                }
            }
        }
        Ok(all)
    }

    /// Puts an own delta on disk, durably.
    ///
    /// # Errors
    /// A disk that does not take it; nobody must hear of the delta then.
    pub(crate) fn persist(&self, round: u64, bytes: &[u8]) -> Result<()> {
        let folder = self.path("outbox");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        file::write_checked(&folder.join(round.to_string()), |out| out.write_all(bytes))
    }
}

fn getrandom(bytes: &mut [u8; 32]) -> Result<()> {
    use rand::TryRng;
    rand::rngs::SysRng
        .try_fill_bytes(bytes)
        .map_err(|error| anyhow!("the system gives no random bytes: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::Architecture;

    fn genesis(seed: u64) -> Genesis {
        let model = Architecture { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        Genesis::new("store", model, seed)
    }

    #[test]
    fn a_folder_is_one_processes_and_one_swarms() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("node");
        let no_genesis = Store::open(&at, None).err().unwrap().to_string();
        assert!(no_genesis.contains("--genesis"), "{no_genesis}");
        let (store, _) = Store::open(&at, Some(genesis(1))).unwrap();
        let key = store.identity().unwrap().public();
        let in_use = Store::open(&at, None).err().unwrap().to_string();
        assert!(in_use.contains("in use"), "{in_use}");
        drop(store);
        let other = Store::open(&at, Some(genesis(2))).err().unwrap().to_string();
        assert!(other.contains("belongs to swarm") && other.contains("--dir"), "{other}");
        let (store, held) = Store::open(&at, None).unwrap();
        assert_eq!((held, store.identity().unwrap().public()), (genesis(1), key));
    }

    #[test]
    fn the_newest_own_delta_stays_whatever_a_snapshot_covers() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), Some(genesis(1))).unwrap();
        for round in [8, 9, 10] {
            store.persist(round, format!("delta {round}").as_bytes()).unwrap();
        }
        let rounds = |store: &Store| {
            outbox_files(store.dir()).unwrap().into_iter().map(|(round, _)| round).collect::<Vec<_>>()
        };
        assert_eq!(rounds(&store), [8, 9, 10]);
        assert_eq!(store.outbox().unwrap()[2], b"delta 10");
        // One of them is damaged: set aside, the others are read.
        fs::write(store.path("outbox/9"), b"x").unwrap();
        assert_eq!(store.outbox().unwrap().len(), 2);
        assert!(store.path("outbox/9.damaged-1").exists());
        store.prune(11).unwrap();
        assert_eq!(rounds(&store), [10]);
    }
}
