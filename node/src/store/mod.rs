//! A node's folder.
//!
//! ```text
//! DIR/
//!   lock            held by the process that uses the folder
//!   identity.key    the ed25519 secret, 32 bytes and their checksum, readable by the owner only
//!   genesis.toml    the swarm's constitution, a copy; its first lines name the swarm id it must have
//!   tokenizer.json  the tokenizer that the genesis names, if it names one, a copy; peers that join fetch it from here
//!   snapshot        what the node goes on from; see `snapshot`
//!   outbox/N        own signed deltas since the snapshot and the last one before, one file a round, on
//!                   disk before anybody hears of them
//!   signed          the first round that has not been signed; see `outbox`
//!   checkpoints/N   the last ones, for peers that join; see `checkpoints`
//!   history/N       settled rounds that the log has let go of, for ledgers; see `ledger::archive`
//!   private         what this device keeps to itself; see `private`
//!   access          who may take part in a closed swarm; see `access`
//!   incoming/*      certificates and revocations that somebody leaves for the node
//!   start           the starting point of a swarm that begins with a model, in the folder that `swarm fork` or
//!                   `swarm new` made; see `checkpoints`
//!   data/           tokens of text that cannot be read as it is, and which text is held out; see `data::ledger`
//!   status.json     where the node is, rewritten twice a second
//!   events.jsonl, events.jsonl.1   what has happened, for whoever watches, four megabytes each at most; see `events`
//!   dashboard       what makes the dashboard's address; see `dashboard::keep`
//!   report.json     what it did, written when it stops
//!   control         what `swarm pause` and `swarm stop` ask of the node; see `governor::control`
//!   config.toml     settings, if the user puts them there; see `settings`
//!   log, log.1      what it has said, a megabyte each at most
//! ```
//!
//! Every file is written beside its place, synced and renamed, so that a kill at any moment leaves the
//! old one or the new one; files that are not text end with a checksum. What is damaged all the same is
//! named, set aside (`NAME.damaged-1`, ...; the newest three are kept of each name, and of all numbered files
//! of a folder), and made again:
//!
//! | damaged or missing | then |
//! |---|---|
//! | `identity.key` | an error: restore it, or start in a new folder. Never replaced. |
//! | `genesis.toml` | taken from `--genesis`, which must be of the same swarm; an error without it |
//! | `tokenizer.json` | taken from `--tokenizer`, or fetched from peers |
//! | `snapshot` | what is shared is fetched from peers again; what was learned and not told is lost |
//! | `outbox/N` | peers have the delta if it was published; N is never signed again |
//! | `signed` | the outbox tells the same |
//! | `signed` and all of `outbox` | nothing is signed for two windows after joining |
//! | `checkpoints/N` | the next checkpoint takes its place |
//! | `history/N` | no ledger reaches back beyond these rounds |
//! | `access` | peers tell again; this device's own certificate may have to be given again |
//! | `private` | an error, if it is no text; without it, only what the command line and the genesis say is private |
//! | `start` | the starting model is fetched from peers |
//! | `data/*.tokens` | made again from the data |
//! | `data/split.json` | which text is held out is chosen anew |
//! | `dashboard` | the dashboard gets another address |
//! | `control` | nothing new is asked of the node; `swarm pause` and `resume` write it anew |
//! | `events.jsonl` | lines that cannot be read are left out by whoever shows them |
//! | `status.json`, `report.json` | written anew; only `swarm admit` and `swarm revoke` read a round here |

mod access;
mod checkpoints;
mod file;
mod outbox;
#[cfg(feature = "train")]
mod parameters;
#[cfg(feature = "train")]
mod private;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::{Identity, PeerKey};

pub(crate) use access::{leave_statements, parse_statements, read_access, read_statements};
#[cfg(feature = "train")]
pub(crate) use checkpoints::{START, read_state};
pub(crate) use checkpoints::{ensure_empty, newer_checkpoint, write_successor};
pub(crate) use file::{
    is_damage, make_folder, numbers, open_checked, read_limited, set_aside, write_atomically, write_checked,
    write_streamed,
};
pub(crate) use outbox::Signed;
#[cfg(feature = "train")]
pub(crate) use parameters::{read_parameters, write_parameters};
use snapshot::NodeSnapshot;
pub(crate) use snapshot::{array as read_array, block, read_block};
pub(crate) use tokenizer::{read_tokenizer, write_tokenizer};

/// A genesis file is text of a few hundred bytes; more than this is something else.
const MAX_GENESIS: u64 = 64 * 1024;
/// Bytes of an identity's secret.
const SECRET: usize = 32;

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

/// What a folder's own copy of the genesis turned out to be.
enum Copy {
    Missing,
    Whole(Box<Genesis>),
    /// Not as it was written: why, and the swarm ids that it may have been of, as hex.
    Damaged(String, Vec<String>),
}

/// Reads a folder's copy of the genesis. It was written by [`Genesis::to_toml`], which puts the swarm id in
/// a comment: that is its checksum.
fn read_copy(path: &Path) -> Result<Copy> {
    if !path.try_exists().with_context(|| format!("cannot read {}", path.display()))? {
        return Ok(Copy::Missing);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let id = |line: &str| {
        let id = line.strip_prefix("# ")?.trim_end();
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
    };
    let mut ids: Vec<String> = text.lines().find_map(id).into_iter().collect();
    let named = ids.first().cloned();
    let why = match Genesis::parse(&text) {
        Ok(genesis) if named.as_deref() == Some(&genesis.swarm_id().to_string()) => {
            return Ok(Copy::Whole(Box::new(genesis)));
        }
        Ok(genesis) => {
            ids.push(genesis.swarm_id().to_string());
            "its values are not those of the swarm id in its first lines".to_owned()
        }
        // What follows quotes the file.
        Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    Ok(Copy::Damaged(format!("{} is damaged: {why}", path.display()), ids))
}

/// The genesis in a folder that is only looked at.
fn read_whole_copy(dir: &Path) -> Result<Genesis> {
    match read_copy(&dir.join("genesis.toml"))? {
        Copy::Whole(genesis) => Ok(*genesis),
        Copy::Missing => bail!("{} is not a node's folder (it has no genesis.toml)", dir.display()),
        Copy::Damaged(why, _) => {
            bail!("{why}. Give swarm run the swarm's genesis with --genesis FILE, and it is put right")
        }
    }
}

/// The snapshot of the node whose folder is `dir`, without locking it, with the genesis and the outbox.
///
/// # Errors
/// A folder that is none of a node's, or a file that cannot be read.
pub(crate) fn read_only(dir: &Path) -> Result<(Genesis, Identity, NodeSnapshot, Vec<Vec<u8>>)> {
    let genesis = read_whole_copy(dir)?;
    let identity = read_identity(&dir.join("identity.key"))?
        .with_context(|| format!("{} has no identity.key", dir.display()))?;
    let snapshot = snapshot::read(&dir.join("snapshot"), &genesis)?.with_context(|| {
        format!("{} has no snapshot yet: let swarm run finish a round there first", dir.display())
    })?;
    // Of one own delta less the model is only a little older.
    let outbox = outbox::read(&dir.join("outbox"), |_, error| {
        tracing::warn!("{error:#}");
        Ok(())
    })?;
    Ok((genesis, identity, snapshot, outbox))
}

fn read_identity(path: &Path) -> Result<Option<Identity>> {
    let damaged = |why: &str| {
        anyhow!(
            "{} is damaged: {why}. It says who this node is and is never replaced: restore it from a backup, or \
             start in a new folder with --dir, as a new peer",
            path.display()
        )
    };
    let secret = match file::read_checked(path, SECRET as u64) {
        Ok(None) => return Ok(None),
        Ok(Some(secret)) => secret,
        Err(error) if file::is_damage(&error) => {
            // The first builds wrote the secret alone.
            let bytes = file::read_limited(path, MAX_GENESIS)?;
            if bytes.len() != SECRET {
                return Err(damaged("it must have 32 bytes and their checksum"));
            }
            bytes
        }
        Err(error) => return Err(error),
    };
    let secret: [u8; SECRET] = secret.try_into().map_err(|_| damaged("it must have 32 bytes"))?;
    Ok(Some(Identity::from_secret(&secret)))
}

/// The key in a file that `swarm new` made, or an `identity.key`.
///
/// # Errors
/// No such file, or one that holds no key.
pub(crate) fn read_key(path: &Path) -> Result<Identity> {
    read_identity(path)?.with_context(|| format!("{}: there is no such file", path.display()))
}

/// The key in this file; a new one, readable by the owner only, if there is no such file. Returns whether it is new.
///
/// # Errors
/// A file that holds no key, or a disk that does not take a new one.
pub(crate) fn read_or_make_key(path: &Path) -> Result<(Identity, bool)> {
    if let Some(identity) = read_identity(path)? {
        return Ok((identity, false));
    }
    let mut secret = [0; SECRET];
    getrandom(&mut secret)?;
    let identity = Identity::from_secret(&secret);
    write_identity(path, &identity)?;
    Ok((identity, true))
}

/// The round that the node whose folder is `dir` said last that it is in.
///
/// # Errors
/// It has said nothing yet.
pub(crate) fn last_round(dir: &Path) -> Result<u64> {
    const MAX_STATUS: u64 = 1 << 20;
    let path = dir.join("status.json");
    let said = file::read_limited(&path, MAX_STATUS).ok();
    let status: Option<serde_json::Value> = said.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    status.and_then(|status| status["round"].as_u64()).with_context(|| {
        format!("{} does not say in which round the swarm is: let the node run there first", path.display())
    })
}

/// Writes an identity's secret; files are readable by the owner only.
fn write_identity(path: &Path, identity: &Identity) -> Result<()> {
    file::write_checked(path, |out| out.write_all(&identity.secret()))
}

impl Store {
    /// Opens `dir` for `genesis`, or for the genesis that is in it if none is given; makes what is missing.
    ///
    /// # Errors
    /// A folder that another process uses or that belongs to another swarm; anything that cannot be read
    /// or written.
    pub(crate) fn open(dir: &Path, genesis: Option<Genesis>) -> Result<(Self, Genesis)> {
        file::make_folder(dir)?;
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
        file::sweep(dir)?;
        for folder in ["outbox", "checkpoints", "history", "incoming"] {
            file::sweep(&store.path(folder))?;
        }
        let genesis = store.genesis(genesis)?;
        Ok((store, genesis))
    }

    /// The genesis of the folder; `wanted` if there is none, or if its copy is damaged.
    fn genesis(&self, wanted: Option<Genesis>) -> Result<Genesis> {
        let path = self.path("genesis.toml");
        let dir = self.dir.display();
        match (read_copy(&path)?, wanted) {
            (Copy::Whole(held), Some(wanted)) if wanted.swarm_id() != held.swarm_id() => bail!(
                "{dir} belongs to swarm {:.16} ({}), and the genesis given is of swarm {:.16} ({}): choose another \
                 folder with --dir, or leave --genesis out to go on with the swarm of this folder",
                held.swarm_id(),
                held.name,
                wanted.swarm_id(),
                wanted.name
            ),
            (Copy::Whole(held), _) => Ok(*held),
            (Copy::Missing, Some(wanted)) => {
                write_atomically(&path, wanted.to_toml().as_bytes())?;
                Ok(wanted)
            }
            (Copy::Missing, None) => bail!("{dir} holds no genesis yet: name one with --genesis FILE"),
            (Copy::Damaged(why, _), None) => bail!(
                "{why}. Give the swarm's genesis with --genesis FILE: every peer has the same, as genesis.toml in \
                 its folder"
            ),
            (Copy::Damaged(why, ids), Some(wanted)) => {
                let id = wanted.swarm_id().to_string();
                if !ids.is_empty() && !ids.contains(&id) {
                    bail!(
                        "{why}; and the genesis given is of another swarm ({id:.16}): give the one of swarm {:.16}, or \
                         choose another folder with --dir",
                        ids[0]
                    );
                }
                let aside = file::set_aside(&path)?;
                write_atomically(&path, wanted.to_toml().as_bytes())?;
                tracing::warn!("{why}; it is kept as {} and replaced by the genesis given", aside.display());
                Ok(wanted)
            }
        }
    }

    /// The genesis and the public key in a node's folder, without locking it.
    ///
    /// # Errors
    /// A folder that is none of a node's.
    pub(crate) fn look(dir: &Path) -> Result<(Genesis, PeerKey)> {
        let genesis = read_whole_copy(dir)?;
        let identity = read_identity(&dir.join("identity.key"))?
            .with_context(|| format!("{} has no identity.key yet: it is made by swarm run", dir.display()))?;
        Ok((genesis, identity.public()))
    }

    /// A file of the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder's identity; made if the folder is new.
    ///
    /// # Errors
    /// A damaged key, one that is missing though the folder has been used, or a disk that does not take it.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let path = self.path("identity.key");
        if let Some(identity) = read_identity(&path)? {
            if fs::metadata(&path).is_ok_and(|key| key.len() == SECRET as u64) {
                write_identity(&path, &identity)?;
            }
            return Ok(identity);
        }
        if outbox::is_used(&self.dir)? {
            bail!(
                "{} is missing, but this folder has been used with one: restore it from a backup, or start in a new \
                 folder with --dir, as a new peer",
                path.display()
            );
        }
        let mut secret = [0; SECRET];
        getrandom(&mut secret)?;
        // Before the key, so that a new key is never without it: it has signed nothing.
        outbox::write_mark(&self.path("signed"), 0)?;
        let identity = Identity::from_secret(&secret);
        write_identity(&path, &identity)?;
        Ok(identity)
    }

    /// The snapshot, or `None` if there is none. A damaged one is set aside, and the log says so.
    ///
    /// # Errors
    /// A file that cannot be read at all, or that is of another swarm.
    pub(crate) fn snapshot(&self, genesis: &Genesis) -> Result<Option<NodeSnapshot>> {
        match snapshot::read(&self.path("snapshot"), genesis) {
            Err(error) if file::is_damage(&error) => {
                self.give_up_snapshot(&error)?;
                Ok(None)
            }
            read => read,
        }
    }

    /// Sets the snapshot aside, for this reason.
    ///
    /// # Errors
    /// A folder in which nothing can be renamed.
    pub(crate) fn give_up_snapshot(&self, why: &anyhow::Error) -> Result<()> {
        let aside = file::set_aside(&self.path("snapshot"))?;
        tracing::error!(
            "{why:#}; it is kept as {}, and what is shared will be fetched from peers again",
            aside.display()
        );
        Ok(())
    }

    /// Writes the snapshot, then deletes the outbox files that it makes unnecessary: those of rounds
    /// below `from`, but never the newest, which tells even without a snapshot what was signed last.
    ///
    /// # Errors
    /// A disk that does not take it; the old snapshot and the outbox are then as before.
    pub(crate) fn save(&self, snapshot: &NodeSnapshot, from: u64) -> Result<()> {
        snapshot::write(&self.path("snapshot"), snapshot)?;
        outbox::prune(&self.path("outbox"), from)
    }

    /// Own deltas that are in no snapshot. A damaged one is set aside, and the log says so.
    ///
    /// # Errors
    /// A folder or file that cannot be read at all.
    pub(crate) fn outbox(&self) -> Result<Vec<Vec<u8>>> {
        outbox::read(&self.path("outbox"), |path, error| {
            let aside = file::set_aside(path)?;
            tracing::error!(
                "{error:#}; it is kept as {}. If the delta was published, peers have it; its round is not signed again",
                aside.display()
            );
            Ok(())
        })
    }

    /// What is known about the last round that was signed here. To be asked before [`Store::outbox`] or
    /// after it: what that sets aside counts all the same.
    ///
    /// # Errors
    /// A file that cannot be read at all, or a disk that does not take the mark.
    pub(crate) fn last_signed(&self) -> Result<Signed> {
        outbox::last_signed(&self.dir)
    }

    /// Puts an own delta on disk, durably, and notes that its round has been signed.
    ///
    /// # Errors
    /// A disk that does not take it; nobody must hear of the delta then.
    pub(crate) fn persist(&self, round: u64, bytes: &[u8]) -> Result<()> {
        let folder = self.path("outbox");
        file::make_folder(&folder)?;
        file::write_checked(&folder.join(round.to_string()), |out| out.write_all(bytes))?;
        outbox::write_mark(&self.path("signed"), round.saturating_add(1))
    }
}

fn getrandom(bytes: &mut [u8; SECRET]) -> Result<()> {
    use rand::TryRng;
    rand::rngs::SysRng
        .try_fill_bytes(bytes)
        .map_err(|error| anyhow!("the system gives no random bytes: {error}"))
}
